"""What follows from the cards of published models: parameters, classes, heads, commands."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
import shlex

import pytest

from zhbert import cli
from zhbert.config import recipe_names
from zhbert.model.published import (
    class_remark,
    commands_here,
    commands_in_transformers,
    compare_parameters,
    count_parameters,
    head_warning,
)
from zhbert.zoo.catalogue import ModelCard, cards, known_card

NAMES = [card.name for card in cards()]

# -- parameters --------------------------------------------------------------------------------


@pytest.mark.parametrize("card", cards(), ids=NAMES)
def test_the_count_gives_the_published_figure_or_the_card_says_why_not(card: ModelCard) -> None:
    text = compare_parameters(card)
    if card.parameters is None:
        assert text == "No figure was published."
        return
    figure = card.parameters.split("M")[0]
    decimals = len(figure.partition(".")[2])
    counted = count_parameters(card) / 1e6
    if f"{counted:.{decimals}f}" == figure:
        assert "rounded" in text or "vocabulary" in text
    elif f"{counted:.6f}".startswith(figure):
        assert text.endswith("cut off.")
    else:
        assert card.name in ("chinese-bert-wwm", "chinese-bert-wwm-ext")
        assert "one figure for every base model" in text
        assert "English vocabulary (109.5M); 21,128 pieces make 102.3M" in text


def test_only_these_figures_need_a_word() -> None:
    plain = re.compile(r"The published \S+ is the count without the heads, rounded\.")
    explained = [
        card.name
        for card in cards()
        if card.parameters and not plain.fullmatch(compare_parameters(card))
    ]
    assert explained == [
        "bert_2L_cn", "bert_6L_cn", "bert_lyarra_12L_cn", "bert_rickard_12L_cn",
        "bert_lyanna_12L_cn", "stsb_L-24_H-1024_A-16", "chinese-roberta-wwm-ext-large",
        "chinese-bert-wwm-ext", "chinese-bert-wwm",
    ]  # fmt: skip


def test_a_vocabulary_of_another_size_is_bounded_by_the_figure() -> None:
    card = known_card("bert_lyanna_12L_cn")
    text = compare_parameters(card)
    assert "asks for a larger vocabulary" in text
    assert "24,751 to 24,881 pieces give 105.1M" in text
    for pieces, fits in ((24750, False), (24751, True), (24881, True), (24882, False)):
        counted = count_parameters(dataclasses.replace(card, vocab_size=pieces))
        assert (round(counted / 1e6, 1) == 105.1) is fits
    assert "asks for a smaller vocabulary" in compare_parameters(known_card("bert_6L_cn"))


@pytest.mark.parametrize("name", ["bert_tiny_cn", "stsb_L-12_H-768_A-12"])
def test_counts_are_those_of_transformers(name: str) -> None:
    import torch
    import transformers

    card = known_card(name)
    shape = {
        "vocab_size": card.vocab_size,
        "hidden_size": card.hidden_size,
        "intermediate_size": 4 * card.hidden_size,
        "num_hidden_layers": card.num_layers,
        "num_attention_heads": card.num_heads,
        "max_position_embeddings": card.max_position_embeddings,
        "type_vocab_size": card.type_vocab_size,
    }
    with torch.device("meta"):
        if card.opens_here:
            config = transformers.BertConfig(**shape)
            encoder: torch.nn.Module = transformers.BertModel(config)
            whole: torch.nn.Module = transformers.BertForPreTraining(config)
        else:
            config = transformers.RobertaConfig(**shape)
            encoder = transformers.RobertaModel(config)
            whole = transformers.RobertaForMaskedLM(config)
    assert count_parameters(card) == sum(p.numel() for p in encoder.parameters())
    with_heads = sum(p.numel() for p in whole.parameters())
    if not card.opens_here:
        # RobertaForMaskedLM leaves out the pooler, which the published figure counts.
        with_heads += card.hidden_size**2 + card.hidden_size
    assert count_parameters(card, heads=True) == with_heads


# -- how it opens ------------------------------------------------------------------------------


def test_models_called_roberta_are_told_to_be_berts() -> None:
    told = {card.name for card in cards() if class_remark(card).startswith("A BERT, although")}
    assert {"chinese-roberta-wwm-ext", "rbt3", "rbtl3", "bert_24L_cn", "bert-3L_cn-beta"} <= told
    assert not told & {"bert-base-chinese", "chinese-bert-wwm", "bert_tiny_cn"}
    assert all("BertModel" in commands_in_transformers(known_card(name))[0] for name in told)


def test_only_the_published_wwm_models_are_said_to_lack_a_head() -> None:
    warned = [card for card in cards() if head_warning(card)]
    assert len(warned) == 6
    assert {card.owner for card in warned} == {"HFL (HIT and iFLYTEK joint lab)"}


@pytest.mark.parametrize("card", cards(), ids=NAMES)
def test_the_commands_that_a_card_shows_exist(card: ModelCard) -> None:
    for line in commands_here(card):
        if line.startswith(">>> "):
            assert re.fullmatch(r'>>> zhbert\.BertModel\.from_pretrained\("\S+"\)', line)
            continue
        _, verb, *arguments = shlex.split(line)
        if verb != "fill":
            continue
        parser = argparse.ArgumentParser()
        importlib.import_module(cli.VERBS[verb][0]).add_arguments(parser)
        parser.parse_args(arguments)
    assert card.recipe is None or card.recipe in recipe_names()
