"""The catalogue holds every published model, under every name that people type."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhbert.zoo.catalogue import CLASSES, FORMS, SIZES, cards, find_card, similar_names


def test_every_published_model_has_a_card() -> None:
    assert Counter(card.source for card in cards()) == {
        "zhbert": 1, "bert-chinese": 22, "chinese-bert-wwm": 10,
    }  # fmt: skip
    assert Counter(card.language for card in cards()) == {"cn": 26, "en": 4, "global": 3}
    assert Counter(form for card in cards() for form in card.forms) == {
        "here": 1, "hub": 10, "pt": 22, "tf": 8, "paddle": 6,
    }  # fmt: skip


def test_the_facts_are_the_references_own(data: Path) -> None:
    """Compared with the collected facts where they lie beside the development data."""
    folders = (Path(os.environ["ZHBERT_DATA"]), data)
    above = [parent for folder in folders for parent in folder.absolute().parents]
    files = [parent / "shared" / "reference" / "model_catalogue.toml" for parent in above]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return
    tables = tomllib.loads(file.read_text(encoding="utf-8"))["model"]
    theirs = [card for card in cards() if card.source != "zhbert"]
    assert [card.name for card in theirs] == [table["name"] for table in tables]
    for card, table in zip(theirs, tables, strict=True):
        assert {key: getattr(card, key) for key in table} == table
        unstated = {"display_name", "trained_on", "licence", "parameters", *FORMS.values()}
        assert all(getattr(card, key) is None for key in unstated - set(table))


def test_facts_of_some_models() -> None:
    tiny = find_card("bert_tiny_cn")
    assert tiny is not None
    assert (tiny.num_layers, tiny.hidden_size, tiny.num_heads) == (2, 128, 2)
    assert tiny.parameters == "3.2M"
    assert tiny.tensorflow_archive is not None
    assert tiny.tensorflow_archive.endswith("/pretrain/tf1/chinese_L-2_H-128_A-2.zip")
    deepest = max(cards(), key=lambda card: card.num_layers)
    assert (deepest.name, deepest.num_layers) == ("bert_night-king_36L_cn", 36)
    assert [card.name for card in cards() if not card.opens_here] == [
        "stsb_L-12_H-768_A-12", "stsb_L-24_H-1024_A-16", "stsb-multi_L-12_H-768_A-12",
    ]  # fmt: skip
    headless = [card.name for card in cards() if card.fills_masks is False]
    assert headless == [
        "chinese-roberta-wwm-ext-large", "chinese-roberta-wwm-ext", "chinese-bert-wwm-ext",
        "chinese-bert-wwm", "rbt3", "rbtl3",
    ]  # fmt: skip


def test_no_card_invents_a_licence() -> None:
    assert {card.name for card in cards() if card.licence} == {"zhbert-mini"}


def test_every_value_is_one_of_the_known() -> None:
    for card in cards():
        assert card.architecture in CLASSES
        assert card.size in SIZES
        assert card.vocab_size_from in ("published", "deduced", "estimated")
        assert card.hidden_size % card.num_heads == 0
        assert {"here", "hub", "pt"} & set(card.forms)
        for url in (card.pytorch_archive, card.tensorflow_archive):
            assert url is None or re.fullmatch(r"https://[\w./-]+\.(zip|tgz)", url)


def test_vocabularies_are_google_s_chinese_one_but_for_these() -> None:
    others = {card.name: card.vocab_size for card in cards() if card.vocab_size != 21128}
    assert others == {
        "bert_2L_cn": 2100, "bert_6L_cn": 2100,
        "bert_lyarra_12L_cn": 24800, "bert_rickard_12L_cn": 24800, "bert_lyanna_12L_cn": 24800,
        "stsb_drogo_L-12_H-768_A-12": 30522,
        "stsb_L-12_H-768_A-12": 50265, "stsb_L-24_H-1024_A-16": 50265,
        "stsb-multi_L-12_H-768_A-12": 250002,
        "bert-base-multilingual-cased": 119547, "bert-base-multilingual-uncased": 105879,
        "bert-large-wwm-english": 30522,
    }  # fmt: skip
    estimated = {card.name for card in cards() if card.vocab_size_from == "estimated"}
    assert estimated == {name for name, size in others.items() if size % 100 == 0}


def test_sizes_count_up() -> None:
    assert Counter(card.size for card in cards()) == {
        "tiny": 3, "small": 6, "base": 17, "large": 7,
    }  # fmt: skip


def test_no_two_cards_have_a_name_in_common() -> None:
    owners = Counter(
        re.sub(r"[-_ ]+", "-", name.lower())
        for card in cards()
        for name in (card.name, *card.aliases)
    )
    assert owners.most_common(1)[0][1] == 1


def test_every_name_finds_its_card() -> None:
    for card in cards():
        known = (card.name, card.display_name, card.hugging_face_id, card.paddlehub_module)
        for name in filter(None, (*known, *card.aliases)):
            for written in (name, name.upper(), name.lower(), name.replace("_", "-"), f" {name} "):
                assert find_card(written) is card


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("RBT3", "rbt3"),
        ("hfl/rbt3", "rbt3"),
        ("hfl/RBTL3", "rbtl3"),
        ("RoBERTa-wwm-ext", "chinese-roberta-wwm-ext"),
        ("roberta-wwm-ext", "chinese-roberta-wwm-ext"),
        ("hfl/chinese-roberta-wwm-ext", "chinese-roberta-wwm-ext"),
        ("RoBERTa-wwm-ext-large", "chinese-roberta-wwm-ext-large"),
        ("bert-wwm", "chinese-bert-wwm"),
        ("BERT-wwm-ext", "chinese-bert-wwm-ext"),
        ("bert-base-chinese", "bert-base-chinese"),
        ("google-bert/bert-base-chinese", "bert-base-chinese"),
        ("bert-large-uncased-whole-word-masking", "bert-large-wwm-english"),
        ("BERT-Tiny-CN", "bert_tiny_cn"),
        ("mini-cn", "bert_mini_cn"),
        ("mini", "zhbert-mini"),
        ("zhbert_mini", "zhbert-mini"),
        ("chinese_L-2_H-128_A-2", "bert_tiny_cn"),
        ("roberta_L-24_H-1024_A-16_cn", "bert_24L_cn"),
        ("roberta_lyanna_L-12_H-768_A-12_cn_tf", "bert_lyanna_12L_cn"),
        ("bert_tyrion_12l_cn", "bert_tyrion_12L_cn"),
    ],
)
def test_what_people_type_is_found(typed: str, name: str) -> None:
    card = find_card(typed)
    assert card is not None
    assert card.name == name


def test_a_part_of_a_name_or_a_slip_suggests_the_model() -> None:
    assert similar_names("rtb3")[0] == "rbt3"
    assert similar_names("night king") == ["bert_night-king_36L_cn"]
    assert similar_names("bert-base-chines")[0] == "bert-base-chinese"
    assert similar_names("llama") == []
    assert len(similar_names("bert")) == 3


@given(st.text())
def test_any_text_finds_a_card_or_none(text: str) -> None:
    card = find_card(text)
    assert card is None or card in cards()
    assert all(find_card(name) for name in similar_names(text))


def test_the_catalogue_imports_nothing_heavy() -> None:
    code = (
        "import sys; from zhbert.zoo import catalogue; catalogue.cards();"
        "heavy = {'torch', 'numpy', 'rich', 'requests', 'huggingface_hub'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
