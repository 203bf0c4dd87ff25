"""``zhbert vocab extend``: new rows are means, old ones untouched, every tokenizer agrees."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.small_models import PIECES, make_model, outputs

from zhbert.cli import main
from zhbert.data.prepare import prepare
from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining
from zhbert.surgery.extend_vocabulary import extend_vocabulary
from zhbert.text.coverage import cover
from zhbert.text.extend_vocab import CutWords, admit, pieces_for, with_pieces
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.vocab import read_vocabulary

IDS = [[3, 6, 7, 25, 60, 5, 92], [3, 94, 10, 94, 18, 30, 4]]
ROWS = "bert.embeddings.word_embeddings.weight"
BIAS = "cls.predictions.bias"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uncased model without “ ” and 龘; read it only."""
    return make_model(tmp_path_factory.mktemp("models") / "model")


def a_list(folder: Path, *lines: str) -> Path:
    path = folder / "words.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def extend(model: Path, folder: Path, *lines: str) -> dict[str, Any]:
    return extend_vocabulary(model, folder / "out", source=a_list(folder, *lines))


# --- rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_new_rows_are_means_of_their_old_pieces_and_the_rest_stays(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", dtype=dtype)
    result = extend(model, tmp_path, "Transformers", "龘", "##ers", "一龘")
    old, new = (load_file(f / "model.safetensors") for f in (model, tmp_path / "out"))
    assert old.keys() == new.keys()
    size = len(PIECES)
    for name, tensor in old.items():
        assert new[name].dtype == dtype
        kept = new[name][:size] if name in (ROWS, BIAS) else new[name]
        assert torch.equal(kept, tensor)
    cuts = [["trans", "##form", "##er", "##s"], ["[UNK]"], ["##er", "##s"]]
    assert [one["was"] for one in result["added"]] == cuts
    assert [one["piece"] for one in result["added"]] == ["transformers", "龘", "##ers"]
    for row, cut in enumerate(cuts, size):
        ids = [PIECES.index(piece) for piece in cut]
        for name in (ROWS, BIAS):
            mean = torch.from_numpy(np.asarray(old[name].float().numpy()[ids].mean(axis=0)))
            tolerance = 2 * torch.finfo(dtype).eps
            torch.testing.assert_close(new[name][row], mean.to(dtype), rtol=tolerance, atol=1e-6)
    assert torch.equal(new[ROWS][size + 1], old[ROWS][PIECES.index("[UNK]")])
    assert result["unknown_before"] == 1
    assert BertConfig.from_pretrained(tmp_path / "out").vocab_size == size + 3


def test_old_text_gives_the_same_outputs_bit_for_bit(model: Path, tmp_path: Path) -> None:
    extend(model, tmp_path, "covid", "“", "”")
    old, new = outputs(model, IDS), outputs(tmp_path / "out", IDS)
    for one, other in zip(old.hidden_states, new.hidden_states, strict=True):
        assert torch.equal(one, other)
    logits = new.prediction_logits[..., : len(PIECES)]
    torch.testing.assert_close(logits, old.prediction_logits, rtol=0, atol=1e-5)
    ours = BertForPreTraining.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        found = ours(torch.tensor(IDS)).prediction_logits
    torch.testing.assert_close(found, new.prediction_logits, rtol=0, atol=1e-4)


def test_a_fine_tuned_model_is_extended_too(tmp_path: Path) -> None:
    kind = transformers.BertForTokenClassification
    model = make_model(tmp_path / "model", kind=kind, num_labels=5)
    extend(model, tmp_path, "covid")
    old, new = (outputs(folder, IDS, kind) for folder in (model, tmp_path / "out"))
    assert torch.equal(old.logits, new.logits)


@pytest.mark.parametrize(("spare", "rows"), [(1, 3), (3, 3), (8, 8)])
def test_spare_rows_are_used_first(spare: int, rows: int, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", spare=spare)
    result = extend(model, tmp_path, "covid", "bed", "a1")
    assert result["rows"] == len(PIECES) + rows
    old, new = (load_file(f / "model.safetensors") for f in (model, tmp_path / "out"))
    assert torch.equal(new[ROWS][: len(PIECES)], old[ROWS][: len(PIECES)])
    assert torch.equal(new[ROWS][len(PIECES) + 3 :], old[ROWS][len(PIECES) + 3 :])
    ids = [PIECES.index(piece) for piece in ("b", "##e", "##d")]
    torch.testing.assert_close(new[ROWS][len(PIECES) + 1], old[ROWS][ids].mean(0))
    assert Tokenizer.from_pretrained(tmp_path / "out").id_of("bed") == len(PIECES) + 1
    outputs(tmp_path / "out", IDS)


# --- tokenizers ---------------------------------------------------------------------------------

ALPHABET = "的一新冠龘abctrBERT019 -，“é\u0301É♀😀\t\u200b한\xa0"
LINES = st.lists(st.text(ALPHABET, max_size=6) | st.sampled_from(["##ers", "##é", "bert"]))


@given(LINES, st.booleans())
def test_what_is_admitted_is_one_piece_and_what_is_refused_never_is(
    lines: list[str], lower: bool
) -> None:
    old = Tokenizer(PIECES, do_lower_case=lower)
    words = [line.strip() for line in lines if line.strip()]
    found = admit(old, words)
    assert len(set(found.new)) == len(found.new)
    assert all(old.id_of(piece) is None for piece in found.new)
    assert all(old.id_of(piece) is not None for piece in found.known)
    new = with_pieces(old, [*PIECES, *found.new])
    for piece in found.new:
        if not piece.startswith("##"):
            assert new.encode(piece).pieces == [piece]
            assert admit(new, [piece]).known == [piece]
    for words_refused in found.refused.values():
        for word in words_refused:
            # Even with a row of its own, no text would lead to it.
            forced = with_pieces(old, [*PIECES, word])
            assert len(PIECES) not in forced.encode(word).ids
            assert len(PIECES) not in forced.encode("a" + word.removeprefix("##")).ids


@pytest.fixture(scope="module")
def extended(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extended")
    extend(model, folder, "Transformers", "龘", "“", "##ers", "a1b2", "😀", "##😀", "bertt")
    return folder / "out"


@given(st.lists(st.sampled_from(["transformers", "龘", "ers", "A1B2", *ALPHABET, "[MASK]"])))
@settings(max_examples=200)
def test_all_tokenizers_agree_on_an_extended_model(extended: Path, parts: list[str]) -> None:
    text = "".join(parts)
    ours = Tokenizer.from_pretrained(extended)
    expected = ours.encode(text)
    for theirs in (
        transformers.AutoTokenizer.from_pretrained(extended),
        transformers.BertTokenizer.from_pretrained(extended),
    ):
        assert theirs(text, add_special_tokens=False)["input_ids"] == expected.ids.tolist()
    before = Tokenizer(PIECES).encode(text)
    if expected.ids.size and expected.ids.max() < len(PIECES):
        assert expected.pieces == before.pieces


def test_a_cased_model_keeps_its_case(tmp_path: Path) -> None:
    cased = make_model(tmp_path / "cased", do_lower_case=False)
    result = extend(cased, tmp_path, "COVID", "covid")
    assert [one["piece"] for one in result["added"]] == ["COVID", "covid"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.tokenize("COVID covid") == ["COVID", "covid"]


# --- lists --------------------------------------------------------------------------------------


def test_a_list_is_accounted_for_line_by_line(model: Path, tmp_path: Path, capsys) -> None:
    words = a_list(tmp_path, "\ufeffCOVID", "", "covid ", "的", "新冠", "wi-fi", "x" * 101, "龘")
    out = tmp_path / "out"
    arguments = ["vocab", "extend", str(model), "--with", str(words), "--out", str(out)]
    capsys.readouterr()
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "龘" in shown.out
    assert "c ##o ##v ##i ##d" in shown.out
    assert f"2 new pieces, {len(PIECES) + 2} in all" in shown.out
    assert f"initial_model={out}" in shown.out
    assert "1 word of the list known" in shown.err
    assert "each of them always stands alone: 新冠" in shown.err
    assert "cut at spaces and punctuation: wi-fi" in shown.err
    assert "over 100 characters" in shown.err
    assert "1 new piece was [UNK] before" in shown.err
    assert "\x1b" not in shown.out
    assert main([*arguments, "--overwrite", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["piece"], one["id"]) for one in found["added"]] == [
        ("covid", len(PIECES)),
        ("龘", len(PIECES) + 1),
    ]
    assert found["known"] == ["的"]
    assert sum(map(len, found["refused"].values())) == 3


def test_a_list_may_have_another_encoding(model: Path, tmp_path: Path) -> None:
    words = tmp_path / "gbk.txt"
    words.write_bytes("龘\n".encode("gb18030"))
    arguments = ["vocab", "extend", str(model), "--with", str(words), "--encoding", "gbk"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert Tokenizer.from_pretrained(tmp_path / "out").id_of("龘") == len(PIECES)


def test_a_byte_order_mark_is_no_part_of_the_first_piece(model: Path, tmp_path: Path) -> None:
    added = extend(model, tmp_path, "\ufeff##ers")["added"]
    assert [one["piece"] for one in added] == ["##ers"]


def test_characters_without_an_inner_form_are_named(tmp_path: Path, capsys) -> None:
    # "abc" is a ##bc; with a piece "ab" it is ab and then nothing: [UNK].
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##bc", "##b"]
    model = make_model(tmp_path / "model", pieces=pieces)
    result = extend(model, tmp_path, "ab")
    assert result["without_inner_form"] == ["c"]
    assert Tokenizer.from_pretrained(tmp_path / "out").encode("abc").pieces == ["[UNK]"]
    assert (
        extend_vocabulary(model, tmp_path / "safe", source=a_list(tmp_path, "ab", "##c"))[
            "without_inner_form"
        ]
        == []
    )


# --- text and corpora ---------------------------------------------------------------------------

TEXT = "的“transformers”在 COVID 2024 人，covid 龘 Transformers transformers\n" * 4 + "q“rare”\n"


def test_text_gets_its_characters_first_then_what_saves_most(model: Path, tmp_path: Path) -> None:
    result = extend_vocabulary(model, tmp_path / "out", from_text=[TEXT], min_frequency=4)
    added = {one["piece"]: one["count"] for one in result["added"]}
    # “ and ” 5 times, 龘 4; transformers 12 times saves 3 each, covid 8 times 4 each.
    assert list(added.items()) == [
        ("“", 5),
        ("”", 5),
        ("龘", 4),
        ("transformers", 12),
        ("covid", 8),
    ]
    old, new = Tokenizer(PIECES), Tokenizer.from_pretrained(tmp_path / "out")
    assert result["coverage"]["before"]["unknown"] == cover(old, [TEXT]).unknown == 14
    assert result["coverage"]["after"]["unknown"] == cover(new, [TEXT]).unknown == 0
    few = extend_vocabulary(model, tmp_path / "few", from_text=[TEXT], min_frequency=1, at_most=4)
    assert [one["piece"] for one in few["added"]] == ["“", "”", "龘", "transformers"]


def test_pieces_are_asked_for_by_what_they_save() -> None:
    tokenizer = Tokenizer(["[UNK]", "a", "b", "##a", "##b"])
    words = Counter({"ab": 5, "abba": 3, "bc": 2, "bd": 1, "aa": 1, "e": 1})
    # ##c is missing twice, ##d and e once; abba saves 3 pieces 3 times, ab 1 piece 5 times; bc is
    # two pieces as soon as there is ##c.
    found = pieces_for(tokenizer, words, at_most=9, min_frequency=2)
    assert list(found.items()) == [("##c", 2), ("abba", 3), ("ab", 5), ("bc", 2)]


def test_a_list_and_text_go_together(model: Path, tmp_path: Path) -> None:
    result = extend_vocabulary(
        model, tmp_path / "out", source=a_list(tmp_path, "covid", "龘"), from_text=[TEXT],
        min_frequency=5,
    )  # fmt: skip
    added = [(one["piece"], one["count"]) for one in result["added"]]
    assert added == [("covid", None), ("龘", None), ("“", 5), ("”", 5), ("transformers", 12)]


@given(st.lists(st.text("ab9的“龘 ，", max_size=12), max_size=6))
def test_words_that_are_no_piece_are_counted_as_the_tokenizer_cuts_them(texts: list[str]) -> None:
    pieces = ["[UNK]", "的", "，", "a", "##b", "ab", "9"]
    tokenizer = Tokenizer(pieces)
    words = CutWords(tokenizer)
    expected: Counter[str] = Counter()
    for text in texts:
        words.add(text)
        spaced = "".join(f" {c} " if c in "的“龘，" else c for c in text)
        for word in spaced.split():
            if tokenizer.encode(word).pieces != [word]:
                expected[word] += 1
    assert words.folded() == expected
    chosen = pieces_for(tokenizer, expected, at_most=1000, min_frequency=1)
    new = with_pieces(tokenizer, [*pieces, *chosen])
    assert new.unk_id not in new.encode(" ".join(texts)).ids


def test_rare_spellings_are_forgotten_first() -> None:
    words = CutWords(Tokenizer(["[UNK]", "a"]), max_words=4)
    words.add("b b b c c d e f")
    assert words.folded() == {"b": 3, "c": 2}


def test_a_corpus_gives_its_words_and_characters(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    # Its vocabulary has the quotation marks and 龘, and cuts words otherwise.
    words = ["“", "”", "龘", "covid", "##ormers", "transf"]
    vocabulary = a_list(tmp_path, *PIECES, *words).rename(tmp_path / "vocab.txt")
    corpus = tmp_path / "corpus"
    prepare([text], corpus, vocab=vocabulary, held_out=0, segmenter="jieba")
    result = extend_vocabulary(model, tmp_path / "out", source=corpus, min_frequency=4)
    added = {one["piece"]: one["count"] for one in result["added"]}
    assert added == {"“": 5, "”": 5, "龘": 4, "transformers": 12, "covid": 8}
    assert result["added"][3]["was"] == ["trans", "##form", "##er", "##s"]
    # The model's own pieces: what it cuts is found, what was [UNK] is lost.
    own = tmp_path / "own"
    prepare([text], own, vocab=model, held_out=0, segmenter="jieba")
    again = extend_vocabulary(model, tmp_path / "again", source=own, min_frequency=4)
    assert {one["piece"]: one["count"] for one in again["added"]} == {
        "transformers": 12,
        "covid": 8,
    }


def test_googles_vocabulary_grows_by_what_a_real_text_asks_for(data: Path, tmp_path: Path) -> None:
    pieces = read_vocabulary(data / "google_zh_vocab.txt")
    model = make_model(tmp_path / "model", pieces=pieces, num_hidden_layers=1)
    with (data / "corpus" / "tech.txt").open(encoding="utf-8") as file:
        text = file.read(300_000)
    result = extend_vocabulary(model, tmp_path / "out", from_text=[text], at_most=50)
    added = [one["piece"] for one in result["added"]]
    assert {"“", "”"} <= set(added[:3])
    assert len(added) == 50
    before, after = result["coverage"]["before"], result["coverage"]["after"]
    assert after["pieces"] < before["pieces"]
    assert after["unknown"] < 0.1 * before["unknown"]
    assert result["without_inner_form"] == []
    assert read_vocabulary(tmp_path / "out" / "vocab.txt") == [*pieces, *added]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = Tokenizer.from_pretrained(tmp_path / "out")
    lines = text.splitlines()[:300]
    expected = theirs(lines, add_special_tokens=False)["input_ids"]
    assert [ids.tolist() for ids in ours.encode_batch(lines)] == expected


# --- mistakes -----------------------------------------------------------------------------------


def mistakes(folder: Path, model: Path) -> dict[str, tuple[list[str], str]]:
    def write(name: str, content: bytes) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    fine = write("fine.txt", b"covid\n")
    bare = make_model(folder / "no vocabulary")
    (bare / "vocab.txt").unlink()
    (bare / "tokenizer.json").unlink()
    Tokenizer([*PIECES, "多"]).save_pretrained(make_model(folder / "more pieces"))
    path = make_model(folder / "short") / "model.safetensors"
    tensors = load_file(path)
    tensors[BIAS] = tensors[BIAS][:-1].clone()
    save_file(tensors, path, metadata={"format": "pt"})
    (folder / "other").mkdir()
    mine = str(model)
    return {
        "nothing": ([mine], "nothing to add: give --with"),
        "empty list": ([mine, "--with", write("empty.txt", b"\n \n")], "empty"),
        "not UTF-8": ([mine, "--with", write("gbk.txt", "新".encode("gbk"))], "not UTF-8"),
        "no list": ([mine, "--with", str(folder / "none.txt")], "no such file"),
        "no corpus": ([mine, "--with", str(folder / "other")], "no corpus.json"),
        "known": ([mine, "--with", write("old.txt", "的\nbert\n".encode())], "2 of its words alr"),
        "Han": ([mine, "--with", write("han.txt", "新冠\n".encode())], "always stands alone"),
        "no word": ([mine, "--from-text", write("a.txt", b"bert\n")], "10 times (--min-freq"),
        "empty text": ([mine, "--from-text", write("b.txt", b"")], "empty"),
        "stdin": ([mine, "--from-text", "-"], "reads its text twice"),
        "at most": ([mine, "--from-text", fine, "--at-most", "0"], "must be 1 or more"),
        "of a list": ([mine, "--with", fine, "--at-most", "5"], "of a list, all is taken"),
        "no vocabulary": ([str(bare), "--with", fine], "no vocab.txt"),
        "more pieces": ([str(folder / "more pieces"), "--with", fine], "another model's"),
        "short bias": ([str(folder / "short"), "--with", fine], f"{BIAS} has {len(PIECES) - 1}"),
        "no model": ([str(folder / "nowhere" / "x"), "--with", fine], "nowhere"),
        "out": ([mine, "--with", fine, "--out", str(folder / "short")], "--overwrite replaces"),
        "other out": ([mine, "--with", fine, "--out", str(folder)], "not a model"),
    }


def test_every_mistake_is_one_clear_line_and_writes_nothing(
    model: Path, tmp_path: Path, capsys
) -> None:
    cases = mistakes(tmp_path, model)
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    for name, (arguments, said) in cases.items():
        out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
        assert main(["vocab", "extend", *arguments, *out]) == 2, name
        captured = capsys.readouterr()
        assert said in captured.err, name
        assert captured.err.count("\n") == 1, name
        assert captured.out == "", name
        assert sorted(tmp_path.rglob("*")) == before, name


def test_a_checkpoint_with_nan_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = make_model(tmp_path / "model") / "model.safetensors"
    tensors = load_file(path)
    tensors[ROWS][40, 3] = float("inf")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ZhbertError, match="NaN or infinite"):
        extend(tmp_path / "model", tmp_path, "covid")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "words.txt"]
