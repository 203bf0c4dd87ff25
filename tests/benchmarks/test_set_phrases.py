"""The list of set phrases, and the script that asks models for them."""

from __future__ import annotations

import json
import sys
from collections import Counter

import pytest
from tests.benchmarks.scripts import script

from zhbert.text.tokenizer import Tokenizer

phrases = script("set_phrases")


@pytest.fixture(scope="module")
def listed():
    return phrases.read_list()


def test_a_hundred_different_phrases_of_four_characters(listed):
    assert len({one.phrase for one in listed}) == len(listed) == 100
    assert len({one.text for one in listed}) == 100
    assert {len(one.phrase) for one in listed} == {4}


def test_one_character_of_the_phrase_is_masked_and_stands_nowhere_else(listed):
    for one in listed:
        assert one.text.count("[MASK]") == one.phrase.count(one.answer) == 1
        assert one.phrase.replace(one.answer, "[MASK]") in one.text
        assert one.phrase in one.text.replace("[MASK]", one.answer)
        assert one.answer not in one.text


def test_every_place_is_masked_equally_often(listed):
    assert Counter(one.place for one in listed) == dict.fromkeys(range(4), 25)


def test_the_shipped_vocabulary_has_every_character(listed):
    tokenizer = Tokenizer.default()
    for one in listed:
        ids = tokenizer.encode(one.text.replace("[MASK]", one.answer)).ids
        assert tokenizer.unk_id not in ids
        assert tokenizer.vocabulary.count(one.answer) == 1


def test_hits_are_counted_by_place(listed):
    answered = [
        phrases.Answered(one, (one.answer if number < 5 else "的", "了", one.answer))
        for number, one in enumerate(listed)
    ]
    found = phrases.summary("model", answered)
    assert (found["top1"], found["top5"], sum(found["top1_by_place"])) == (5, 100, 5)
    assert found["top1_by_place"][listed[4].place] >= 1
    assert len(found["missed"]) == 95
    assert found["missed"][0]["text"] == listed[5].text


def test_models_are_asked(tmp_path, listed, monkeypatch, capsys):
    """A model that names 的 everywhere completes nothing, and one line a model says so."""
    import torch

    from zhbert.model.config import BertConfig
    from zhbert.model.pretrained import BertForMaskedLM

    tokenizer = Tokenizer.default()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    model = BertForMaskedLM(config)
    with torch.no_grad():
        model.mlm_head.bias[tokenizer.vocabulary.index("的")] = 100.0
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr(sys, "argv", ["set_phrases.py", str(tmp_path), str(tmp_path), "--json"])
    with pytest.warns(UserWarning, match="never trained"):
        phrases.main()
    results = json.loads(capsys.readouterr().out)
    assert [result["top1"] for result in results] == [0, 0]
    assert all(missed["candidates"][0] == "的" for missed in results[0]["missed"])


def test_a_model_that_is_none_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["set_phrases.py", "./nowhere"])
    with pytest.raises(SystemExit) as caught:
        phrases.main()
    assert "nowhere" in str(caught.value)
    assert "\n" not in str(caught.value)
