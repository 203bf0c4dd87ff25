"""List the fine-tuning tasks, or describe one: files, labels, settings, results.

zhbert tasks
zhbert tasks lcqmc
zhbert tasks my-task.toml
zhbert tasks lcqmc --card > my-task.toml

A card is a TOML file; --card prints it, so that you can make your own from it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from zhbert import console
from zhbert.errors import ZhbertError
from zhbert.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

    from zhbert.tasks.card import Data, TaskCard

# The width of the label column.
_LABEL = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="describe this task: a name, or the path of a card"
    )
    parser.add_argument("--card", action="store_true", help="print NAME's card as it is")


def run(args: argparse.Namespace) -> int:
    """List the tasks, or describe one."""
    from zhbert.tasks.cards import card_names, load_card

    if args.card:
        if args.name is None:
            raise ZhbertError("--card: whose? zhbert tasks NAME --card")
        if args.json:
            raise ZhbertError("--card prints a TOML file and --json JSON: remove one of them")
        _print_file(load_card(args.name))
        return 0
    if args.name is not None:
        card = load_card(args.name)
        if args.json:
            console.print_json(describe(card))
        else:
            _show(card)
        return 0
    cards = [load_card(name) for name in card_names()]
    if args.json:
        console.print_json([describe(card) for card in cards])
    else:
        _list(cards, args.quiet)
    return 0


def describe(card: TaskCard) -> dict[str, Any]:
    """Return the card as plain data, with the name first, for ``--json``."""
    table = dataclasses.asdict(card)
    del table["written"]
    return {"name": table.pop("name"), **table, "path": str(card.path)}


def _print_file(card: TaskCard) -> None:
    raw = card.path.read_bytes()
    if sys.stdout.isatty():
        sys.stdout.write(raw.decode("utf-8-sig"))
    else:
        # Written as bytes, because a card must be UTF-8 whatever the environment's encoding.
        sys.stdout.flush()
        sys.stdout.buffer.write(raw)


def _list(cards: list[TaskCard], quiet: bool) -> None:
    table = console.table("=task", "=kind", "=lang", "=metrics", "what")
    for card in cards:
        # "LCQMC: do two questions mean the same?": the row already begins with the name.
        what = card.title.partition(": ")[2] or card.title
        table.add_row(card.name, card.kind, card.language, ",\n".join(card.metrics), what)
    console.out().print(table)
    if not quiet:
        console.err().print(
            f"{counted(len(cards), 'task')}. The first metric decides which checkpoint is best.\n"
            "'zhbert tasks NAME' says more of one. A card of your own is a file like those:\n"
            "'zhbert tasks NAME --card' prints one.", soft_wrap=False,
        )  # fmt: skip


def _show(card: TaskCard) -> None:
    from zhbert.tasks.settings import BASE_HIDDEN_SIZE, BASE_LAYERS

    out = console.out()
    out.print(card.title, style="bold", soft_wrap=False)
    out.print(console.facts(_facts(card), _LABEL))
    out.print("\nsettings")
    out.print(_settings_table(card))
    out.print(
        f"small: fewer than {BASE_LAYERS} layers, or narrower than {BASE_HIDDEN_SIZE}.",
        soft_wrap=False,
    )
    if card.settings.source:
        source = card.settings.source
        out.print(f"{source[0].upper()}{source[1:]}.", soft_wrap=False)
    if card.published:
        out.print("\npublished results, per cent: best of the seeds (mean)")
        out.print(_published_table(card))
        remarks = {one.note for one in card.published if one.note}
        for remark in sorted(remarks):
            out.print(f"* {remark}.", soft_wrap=False)


def _facts(card: TaskCard) -> list[tuple[str, str]]:
    from zhbert.tasks.kinds import KINDS

    data: Data = card.data
    files = [
        f"{split}: {' or '.join(names)}"
        + (f" ({counted(card.official[split], 'example')})" if split in card.official else "")
        for split, names in data.splits.items()
    ]
    texts = {
        "name": card.name,
        "kind": f"{card.kind}, {card.language}",
        "metrics": ", ".join(card.metrics),
        "licence": card.licence or "none stated",
        "format": data.format,
        "files": "\n".join(files),
        **KINDS[card.kind].facts(card),
        "note": card.note,
    }
    return [(label, text) for label, text in texts.items() if text]


def _settings_table(card: TaskCard) -> Table:
    from zhbert.tasks.card import CardSettings
    from zhbert.tasks.kinds import KINDS
    from zhbert.tasks.settings import settings_for

    small = settings_for(card, "small")
    families = {
        "others": card.settings,
        "small": dataclasses.replace(
            card.settings, epochs=small.epochs, learning_rate=small.optimizer.learning_rate
        ),
        **card.families,
    }
    table = console.table("=models", *(f">{family}" for family in families))
    own = KINDS[card.kind].own_settings
    others = {name for kind in KINDS.values() for name in kind.own_settings} - own
    for item in dataclasses.fields(CardSettings):
        if item.name == "source" or item.name in others:
            continue
        values = [getattr(settings, item.name) for settings in families.values()]
        if any(value != "" for value in values):
            table.add_row(item.name, *map(_setting, values))
    return table


def _setting(value: float | str) -> str:
    """Format a setting briefly.

    >>> _setting(128), _setting(0.1), _setting(2.5e-5), _setting("auto")
    ('128', '0.1', '2.5e-5', 'auto')
    """
    if isinstance(value, str):
        return value
    if not 0 < value < 0.001:
        return f"{value:g}"
    digits, exponent = f"{value:e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def _published_table(card: TaskCard) -> Table:
    figures = [one.max for one in card.published]
    decimals = 1 if figures == [round(figure, 1) for figure in figures] else 2
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for one in card.published:
        mean = "" if one.mean is None else f" ({one.mean:.{decimals}f})"
        row = rows.setdefault((one.split, one.model), {})
        row[one.metric] = f"{one.max:.{decimals}f}{mean}" + ("*" if one.note else "")
    metrics = list(dict.fromkeys(one.metric for one in card.published))
    table = console.table("=split", "model", *(f">{metric}" for metric in metrics))
    for split in card.data.splits:
        shown = split
        for (of, model), row in rows.items():
            if of == split:
                table.add_row(shown, model, *(row.get(metric, "") for metric in metrics))
                shown = ""
    return table
