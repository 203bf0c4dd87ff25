"""List the published models, or describe one: its shape and how to get it.

zhbert models
zhbert models --language cn --size small
zhbert models rbt3
"""

from __future__ import annotations

import argparse

from zhbert.errors import ZhbertError
from zhbert.wording import counted
from zhbert.zoo.catalogue import CLASSES, SIZES, ModelCard, cards, known_card
from zhbert.zoo.packaged import is_packaged, packaged_model

_WHERE = {
    "hugging_face_id": "hub",
    "modelscope_id": "ModelScope",
    "pytorch_archive": "PyTorch",
    "tensorflow_archive": "TensorFlow",
    "paddlehub_module": "PaddleHub",
}
# The width of the label column.
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
        help="describe this model: a name, an alias or a hub id",
    )  # fmt: skip
    parser.add_argument(
        "--language", choices=_choices("language"), help="list only models for this language"
    )
    parser.add_argument(
        "--size", choices=SIZES,
        help="list only this size: large (24 layers or more), base (12 or more), small (fewer), "
        "tiny (fewer, and hidden size below 768)",
    )  # fmt: skip
    parser.add_argument(
        "--source", choices=_choices("source"), help="list only models from this reference"
    )


def _choices(field: str) -> list[str]:
    return sorted({getattr(card, field) for card in cards()})


def run(args: argparse.Namespace) -> int:
    """List the models that pass the filters, or describe one."""
    from zhbert import console
    from zhbert.model.published import describe

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


def _list(chosen: list[ModelCard], quiet: bool) -> None:
    from zhbert import console
    from zhbert.model.published import count_parameters

    table = console.table("=model", "=lang", ">shape", ">params", "source", "=forms")
    # This column is shortened in narrow windows.
    table.columns[4].overflow = "ellipsis"
    for card in chosen:
        # zhbert does not download Paddle modules; 'zhbert models NAME' shows them.
        forms = " ".join(form for form in card.forms if form != "paddle")
        shape = f"{card.num_layers}x{card.hidden_size}"
        params = f"{count_parameters(card) / 1e6:.1f}M"
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


def _show(card: ModelCard) -> None:
    from zhbert import console
    from zhbert.model.published import commands_here, commands_in_transformers, head_warning

    out = console.out()
    out.print(card.display_name or card.name, style="bold")
    out.print(console.facts(_facts(card), _LABEL))
    for field, label in _WHERE.items():
        if place := getattr(card, field):
            # Not wrapped, so that it can be copied.
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


def _facts(card: ModelCard) -> list[tuple[str, str]]:
    from zhbert.model.published import (
        class_remark,
        compare_parameters,
        count_parameters,
        score_facts,
        scores_of,
    )

    model, tokenizer = CLASSES[card.architecture]
    about = "about " if card.vocab_size_from == "estimated" else ""
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
        ("vocabulary", f"{about}{card.vocab_size:,} pieces{_SURE[card.vocab_size_from]}"),
        (
            "parameters",
            f"{count_parameters(card):,} counted from the shape; with {heads} of pretraining "
            f"{count_parameters(card, heads=True):,}. {compare_parameters(card)}",
        ),
        ("classes", f"{model}, {tokenizer}. {class_remark(card)}"),
        ("measured", "\n".join(measured)),
        ("note", card.note or ""),
        ("recipe", f"zhbert recipes show {card.recipe}" if card.recipe else ""),
    ]
    return [(label, text) for label, text in facts if text]


def _published(card: ModelCard) -> str:
    if card.package_folder is None:
        return f"by {card.owner}; listed in {card.source}"
    if not is_packaged(card.package_folder):
        return "in this package, but not in this installation of it"
    files = packaged_model(card.package_folder).iterdir()
    return f"in this package: {sum(file.stat().st_size for file in files) / 1e6:.1f} MB"
