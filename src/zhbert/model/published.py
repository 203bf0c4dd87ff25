"""Facts from the card of a published model: its parameters, scores, and how to open it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from zhbert.files import read_json
from zhbert.model.config import BertConfig, count_parameters_by_part
from zhbert.wording import counted
from zhbert.zoo.catalogue import CLASSES, ModelCard
from zhbert.zoo.packaged import is_packaged, packaged_model

# The size of Google's Chinese vocabulary, which nearly all Chinese models have.
_CHINESE_PIECES = 21128


def count_parameters(card: ModelCard, *, heads: bool = False) -> int:
    """Count the parameters of the card's shape with the pooler; with ``heads``, both heads, too.

    >>> from zhbert.zoo.catalogue import known_card
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
    # RoBERTa differs only in its embeddings, and has no sentence-pair head.
    parts = count_parameters_by_part(
        config, masked_words=heads, sentence_pair=heads and card.opens_here
    )
    return sum(parts.values())


def compare_parameters(card: ModelCard) -> str:
    """Compare the published count with that of the shape, in one or two sentences.

    >>> from zhbert.zoo.catalogue import known_card
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
    """Parse a count; return it and the unit of its last digit: "102.3M" -> 102300000, 100000."""
    match = re.fullmatch(r"(\d+)(?:\.(\d+))?M", text)
    assert match, text
    decimals = match[2] or ""
    step = 10 ** (6 - len(decimals))
    return int(match[1] + decimals) * step, step


def _vocabularies(card: ModelCard, published: int, step: int) -> tuple[int, int]:
    """Return the fewest and the most pieces with which the published count is right."""
    rest = count_parameters(card) - card.vocab_size * card.hidden_size
    least, most = published - step // 2 - rest, published + step // 2 - rest
    return -(-least // card.hidden_size), (most - 1) // card.hidden_size


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}M"


def class_remark(card: ModelCard) -> str:
    """Return which classes open it, if its name or the catalogue suggests others; else "".

    >>> from zhbert.zoo.catalogue import known_card
    >>> class_remark(known_card("bert-base-chinese"))
    ''
    """
    if not card.opens_here:
        return "Not a BERT: zhbert downloads it but cannot open it; transformers can."
    names = [name.casefold() for name in (card.name, *card.aliases)]
    if any("roberta" in name or name.startswith("rbt") for name in names):
        return "A BERT, although it is called a RoBERTa: use Bert classes, not Roberta's."
    return ""


def head_warning(card: ModelCard) -> str:
    """Return a warning if the published mask-filling head is known to be untrained; else ""."""
    if card.fills_masks is not False:
        return ""
    return (
        "The published files hold no trained mask-filling head (none, or a random one): what it "
        "fills in is noise until you train it, with the recipe continue-domain for example. "
        "Embedding and fine-tuning need no such head."
    )


def commands_here(card: ModelCard) -> list[str]:
    """Return lines for a shell and for Python (``>>>``) that get and open it with zhbert."""
    lines = [f"zhbert download {card.name} --out {card.name}"]
    if card.opens_here:
        english = card.language == "en"
        text = "Water is [MASK] at 100 degrees." if english else "使用语言[MASK][MASK]来预测。"
        lines += [
            f'zhbert fill {card.name} "{text}"',
            f'>>> zhbert.BertModel.from_pretrained("{card.name}")',
        ]
    return lines


def commands_in_transformers(card: ModelCard) -> list[str]:
    """Return lines that open it with transformers, from the hub or the downloaded folder."""
    place = card.hugging_face_id or card.name
    return [
        f'>>> transformers.{name}.from_pretrained("{place}")' for name in CLASSES[card.architecture]
    ]


def scores_of(card: ModelCard) -> dict[str, Any] | None:
    """Return the measured scores of a model in this package; None for other models."""
    if card.package_folder is None or not is_packaged(card.package_folder):
        return None
    return read_json(packaged_model(card.package_folder) / "scores.json", dict, "scores")


def score_facts(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Format the measurements of `scores_of` as pairs: what was measured, and the result.

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


def describe(card: ModelCard) -> dict[str, Any]:
    """Return the card and the facts derived from it, for ``--json``."""
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
