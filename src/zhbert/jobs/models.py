"""List the published models, or show one: its shape, where it is had, how to open it.

zhbert models
zhbert models --language cn --size small
zhbert models rbt3
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping
from itertools import chain, repeat
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import read_json
from zhbert.model.config import BertConfig, count_parameters_by_part
from zhbert.wording import counted
from zhbert.zoo.catalogue import CLASSES, SIZES, Card, cards, find_card, similar_names
from zhbert.zoo.packaged import is_packaged, packaged_model

# Google's Chinese vocabulary, which nearly all Chinese models share: what others are compared with.
_CHINESE_PIECES = 21128

_WHERE = {
    "hugging_face_id": "hub",
    "modelscope_id": "ModelScope",
    "pytorch_archive": "PyTorch",
    "tensorflow_archive": "TensorFlow",
    "paddlehub_module": "PaddleHub",
}
# Columns that the label of a fact takes.
_LABEL = 11
_SURE = {
    "published": "",
    "deduced": ", deduced from the published parameter count",
    "estimated": ", estimated from the published parameter count",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME",
        help="show this model: a name, another name of it, or a hub id",
    )  # fmt: skip
    parser.add_argument(
        "--language", choices=_choices("language"), help="list only models of this language"
    )
    parser.add_argument(
        "--size", choices=SIZES,
        help="list only this size: large has 24 layers or more, base 12, small fewer; tiny is "
        "narrower than 768 as well",
    )  # fmt: skip
    parser.add_argument(
        "--source", choices=_choices("source"), help="list only what this reference publishes"
    )


def _choices(field: str) -> list[str]:
    return sorted({getattr(card, field) for card in cards()})


def run(args: argparse.Namespace) -> int:
    """List the models that the filters leave, or show one."""
    from zhbert import console

    filters = {key: getattr(args, key) for key in ("language", "size", "source")}
    filters = {key: value for key, value in filters.items() if value}
    if args.name is not None:
        if filters:
            raise ZhbertError(f"NAME and --{next(iter(filters))}: give a name or filters, not both")
        card = known_card(args.name)
        if args.json:
            console.print_json(describe(card))
        else:
            _show(card)
        return 0
    chosen = [card for card in cards() if all(getattr(card, k) == v for k, v in filters.items())]
    if args.json:
        console.print_json([describe(card) for card in chosen])
    else:
        _list(chosen, args.quiet)
    return 0


def known_card(name: str) -> Card:
    """The card of ``name``; raises ZhbertError, with near names, where there is none."""
    card = find_card(name)
    if card is None:
        near = " or ".join(f"'{one}'" for one in similar_names(name))
        hint = f"; did you mean {near}?" if near else ""
        raise ZhbertError(f"no model '{name}'{hint}; 'zhbert models' lists them all")
    return card


def count_parameters(card: Card, *, heads: bool = False) -> int:
    """Parameters of the card's shape, pooler included; ``heads``: of its pretraining, too.

    >>> count_parameters(known_card("rbt3")), count_parameters(known_card("rbt3"), heads=True)
    (38476800, 39091594)
    """
    config = BertConfig(
        vocab_size=card.vocab_size,
        hidden_size=card.hidden_size,
        num_hidden_layers=card.num_layers,
        num_attention_heads=card.num_heads,
        max_position_embeddings=card.max_position_embeddings,
        type_vocab_size=card.type_vocab_size,
    )
    # Roberta differs by its embeddings alone, and has no sentence pairs.
    parts = count_parameters_by_part(
        config, masked_words=heads, sentence_pair=heads and card.opens_here
    )
    return sum(parts.values())


def compare_parameters(card: Card) -> str:
    """One or two sentences: the published count beside the one of the shape, and why they differ.

    >>> compare_parameters(known_card("rbt3"))
    'The published 38M is the count without the heads, rounded.'
    """
    if card.parameters is None:
        return "No figure was published."
    figure, _, remark = card.parameters.partition(" ")
    ours = count_parameters(card)
    published, step = _figure(figure)
    if ours // step != published // step and round(ours / step) * step != published:
        english = count_parameters(dataclasses.replace(card, vocab_size=30522))
        return (
            f"The published {figure} is not its own: {remark.strip('()')}. It is BERT-base's with "
            f"the 30,522 pieces of the English vocabulary ({_millions(english)}); "
            f"{card.vocab_size:,} pieces make {_millions(ours)}."
        )
    how = "rounded" if round(ours / step) * step == published else "cut off"
    text = f"The published {figure} is the count without the heads, {how}."
    if card.vocab_size_from != "estimated":
        return text
    usual = dataclasses.replace(card, vocab_size=_CHINESE_PIECES)
    kind = "larger" if card.vocab_size > _CHINESE_PIECES else "smaller"
    least, most = _vocabularies(card, published, step)
    return (
        f"The published {figure} asks for a {kind} vocabulary: with the usual "
        f"{_CHINESE_PIECES:,} pieces this shape has {_millions(count_parameters(usual))}; "
        f"{least:,} to {most:,} pieces give {figure}, so the count here takes {card.vocab_size:,}."
    )


def _figure(text: str) -> tuple[int, int]:
    """A printed count and the worth of its last digit: "102.3M" -> (102_300_000, 100_000)."""
    match = re.fullmatch(r"(\d+)(?:\.(\d+))?M", text)
    assert match, text
    decimals = match[2] or ""
    step = 10 ** (6 - len(decimals))
    return int(match[1] + decimals) * step, step


def _vocabularies(card: Card, published: int, step: int) -> tuple[int, int]:
    """The fewest and the most pieces with which the shape rounds to the published count."""
    rest = count_parameters(card) - card.vocab_size * card.hidden_size
    least, most = published - step // 2 - rest, published + step // 2 - rest
    return -(-least // card.hidden_size), (most - 1) // card.hidden_size


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}M"


def class_remark(card: Card) -> str:
    """With which classes it opens, where its name or the catalogue suggests others.

    >>> class_remark(known_card("bert-base-chinese"))
    ''
    """
    if not card.opens_here:
        return "Not a BERT: zhbert downloads it but cannot open it; transformers can."
    names = [name.casefold() for name in (card.name, *card.aliases)]
    if any("roberta" in name or name.startswith("rbt") for name in names):
        return "A BERT, although it is called a RoBERTa: use Bert classes, not Roberta's."
    return ""


def head_warning(card: Card) -> str:
    """What is known to be wrong with the head that fills masks; empty where nothing is known."""
    if card.fills_masks is not False:
        return ""
    return (
        "The published files hold no trained mask-filling head (none, or a random one): what it "
        "fills in is noise until you train it, with the recipe continue-domain for example. "
        "Embedding and fine-tuning need no such head."
    )


def commands_here(card: Card) -> list[str]:
    """How zhbert gets and opens it: lines for a shell, and for Python (``>>>``)."""
    lines = [f"zhbert download {card.name} --out {card.name}"]
    if card.opens_here:
        english = card.language == "en"
        text = "Water is [MASK] at 100 degrees." if english else "使用语言[MASK][MASK]来预测。"
        lines += [
            f'zhbert fill {card.name} "{text}"',
            f'>>> zhbert.BertModel.from_pretrained("{card.name}")',
        ]
    return lines


def commands_in_transformers(card: Card) -> list[str]:
    """How transformers opens it: from the hub, or from the folder that ``download`` leaves."""
    place = card.hugging_face_id or card.name
    return [
        f'>>> transformers.{name}.from_pretrained("{place}")' for name in CLASSES[card.architecture]
    ]


def scores_of(card: Card) -> dict[str, Any] | None:
    """What was measured of a model of this package; None of any other."""
    if card.package_folder is None or not is_packaged(card.package_folder):
        return None
    return read_json(packaged_model(card.package_folder) / "scores.json", dict, "scores")


def score_facts(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured, and the figure, for people.

    >>> score_facts({"set_phrases": {"phrases": 100, "top1": 7, "top5": 9}})
    [('set phrases, one character masked', '7 of 100; among the first five candidates 9')]
    """
    masked = {"wwm": "whole words", "char": "characters"}
    facts = [
        (
            f"held-out text, {masked[one['evaluation']]} masked",
            f"{one['masked_lm_accuracy']:.1%} of the masked pieces named; always the most frequent "
            f"piece: {one['baseline_accuracy']:.1%}",
        )
        for one in scores.get("held_out", ())
    ]
    if phrases := scores.get("set_phrases"):
        found = f"{phrases['top1']} of {phrases['phrases']}"
        among = f"among the first five candidates {phrases['top5']}"
        facts.append(("set phrases, one character masked", f"{found}; {among}"))
    for task, one in scores.get("tasks", {}).items():
        figure = f"{one['metric']} {one['mean']:.2f}"
        figure += "" if one["std"] is None else f" ± {one['std']:.2f}"
        how = f"{counted(one['seeds'], 'seed')}, {counted(one['epochs'], 'epoch')} at "
        how += f"{one['learning_rate']:g}" + (f"; {one['note']}" if one["note"] else "")
        facts.append((f"fine-tuned, {task}", f"{figure} on {one['split']}; {how}"))
    return facts


def describe(card: Card) -> dict[str, Any]:
    """The card and what follows from it, for ``--json``."""
    return {
        **dataclasses.asdict(card),
        "size": card.size,
        "forms": card.forms,
        "opens_here": card.opens_here,
        "parameters_counted": count_parameters(card),
        "parameters_counted_with_heads": count_parameters(card, heads=True),
        "parameters_compared": compare_parameters(card),
        "transformers_classes": CLASSES[card.architecture],
        "class_remark": class_remark(card) or None,
        "head_warning": head_warning(card) or None,
        "scores": scores_of(card),
    }


def _list(chosen: list[Card], quiet: bool) -> None:
    from zhbert import console

    table = console.table("=model", "=lang", ">shape", ">params", "source", "=forms")
    # In a narrow window this is the column that gives way.
    table.columns[4].overflow = "ellipsis"
    for card in chosen:
        # A bare Paddle module is nothing that zhbert fetches: the card names it.
        forms = " ".join(form for form in card.forms if form != "paddle")
        shape = f"{card.num_layers}x{card.hidden_size}"
        params = _millions(count_parameters(card))
        table.add_row(card.name, card.language, shape, params, card.source, forms)
    console.out().print(table)
    if quiet:
        return
    remarks = [
        f"{len(chosen)} of {len(cards())} models. params: counted from the shape, without heads. "
        "forms: here (part of zhbert), hub (Hugging Face), pt and tf (archives for PyTorch, "
        "TensorFlow). 'zhbert models NAME' says more of one."
    ]
    if strangers := [card.name for card in chosen if not card.opens_here]:
        remarks.append(f"Not BERTs, zhbert cannot open them: {', '.join(strangers)}.")
    for remark in remarks:
        console.err().print(remark, soft_wrap=False)


def _show(card: Card) -> None:
    from zhbert import console

    out = console.out()
    out.print(card.display_name or card.name, style="bold")
    out.print(console.facts(_facts(card), _LABEL))
    for field, label in _WHERE.items():
        if place := getattr(card, field):
            # Never broken into lines: it is there to be copied.
            out.print(f"{label:<{_LABEL}}  {place}", soft_wrap=True)
    if warning := head_warning(card):
        out.print(f"\nWARNING {warning}", style="bold red", soft_wrap=False)
    place = "from the hub" if card.hugging_face_id else "the downloaded folder"
    for heading, lines in (
        ("with zhbert", commands_here(card)),
        (f"with transformers, {place}", commands_in_transformers(card)),
    ):
        out.print(f"\n{heading}")
        for line in lines:
            out.print(f"  {line}", soft_wrap=True)


def _facts(card: Card) -> list[tuple[str, str]]:
    model, tokenizer = CLASSES[card.architecture]
    heads = "both heads" if card.opens_here else "the head"
    measured = [f"{what}: {figure}" for what, figure in score_facts(scores_of(card) or {})]
    facts = [
        ("name", card.name),
        ("also called", ", ".join(name for name in card.aliases if name != card.display_name)),
        ("published", _published(card)),
        ("language", card.language),
        ("trained on", card.trained_on or "not stated"),
        ("licence", card.licence or "not stated"),
        (
            "shape",
            f"{counted(card.num_layers, 'layer')}, {card.hidden_size} wide, "
            f"{counted(card.num_heads, 'head')}, "
            f"{card.max_position_embeddings} positions ({card.size})",
        ),
        ("vocabulary", f"{_pieces(card)} pieces{_SURE[card.vocab_size_from]}"),
        (
            "parameters",
            f"{count_parameters(card):,} counted from the shape; with {heads} of pretraining "
            f"{count_parameters(card, heads=True):,}. {compare_parameters(card)}",
        ),
        ("classes", f"{model}, {tokenizer}. {class_remark(card)}"),
        *zip(chain(["measured"], repeat("")), measured, strict=False),
        ("note", card.note or ""),
        ("recipe", f"zhbert recipes show {card.recipe}" if card.recipe else ""),
    ]
    return [(label, text) for label, text in facts if text]


def _published(card: Card) -> str:
    if card.package_folder is None:
        return f"by {card.owner}; listed in {card.source}"
    if not is_packaged(card.package_folder):
        return "in this package, but not in this installation of it"
    files = packaged_model(card.package_folder).iterdir()
    return f"in this package: {sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


def _pieces(card: Card) -> str:
    return ("about " if card.vocab_size_from == "estimated" else "") + f"{card.vocab_size:,}"
