"""List the recipes that ship with zhbert, show one, or copy it to edit.

zhbert recipes
zhbert recipes show tiny
zhbert recipes copy tiny my-tiny.toml
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from zhbert.config import Recipe, load_recipe, recipe_names, recipe_path, resolve_shape
from zhbert.errors import ZhbertError
from zhbert.files import write_text
from zhbert.folders import check_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("action", nargs="?", choices=("list", "show", "copy"), default="list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a recipe's name")
    parser.add_argument("to", nargs="?", metavar="TO", help="copy: the new file (./NAME.toml)")


def run(args: argparse.Namespace) -> int:
    """Do what the command line says."""
    from zhbert import console

    if args.action == "list":
        if args.name:
            raise ZhbertError(f"'{args.name}': to see one recipe: zhbert recipes show {args.name}")
        entries = [describe(name) for name in recipe_names()]
        if args.json:
            console.print_json(entries)
            return 0
        _table(entries)
        return 0
    if not args.name:
        raise ZhbertError(
            f"zhbert recipes {args.action} NAME: a name is missing; there are "
            f"{', '.join(recipe_names())}"
        )
    if args.action == "show":
        if args.json:
            recipe = load_recipe(args.name)
            console.print_json({"name": args.name, "values": dataclasses.asdict(recipe)})
        else:
            sys.stdout.write(recipe_path(args.name).read_text(encoding="utf-8"))
        return 0
    target = copy(args.name, args.to)
    if args.json:
        console.print_json({"file": str(target)})
    else:
        sys.stdout.write(f"{target}\n")
    return 0


def copy(name: str, to: str | Path | None = None) -> Path:
    """Copy a recipe to a file or into a folder; an existing file is not replaced."""
    source = recipe_path(name)
    target = Path(to) if to else Path(source.name)
    if target.is_dir():
        target = target / source.name
    check_file(target, label=str(target), way="choose another name")
    write_text(target, source.read_text(encoding="utf-8"))
    return target


def describe(name: str) -> dict[str, Any]:
    """A recipe's name, its first comment line, and the values that tell it apart."""
    text = recipe_path(name).read_text(encoding="utf-8")
    recipe: Recipe = load_recipe(name)
    first = text.split("\n", 1)[0]
    shape = resolve_shape(recipe.model)
    source = recipe.initial_model or recipe.continue_from
    unset = recipe.model.hidden_size is None and bool(source)
    return {
        "name": name,
        "what": first.lstrip("# ").rstrip("."),
        "shape": None if unset else f"{shape.num_hidden_layers}x{shape.hidden_size}",
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        "sequence_length": recipe.sequence_length,
        "starts_from": source,
    }


def _table(entries: list[dict[str, Any]]) -> None:
    from zhbert import console

    table = console.table("=recipe", ">steps x rows x pieces", "what")
    for entry in entries:
        size = f"{entry['steps']:,} x {entry['batch_size']:,} x {entry['sequence_length']}"
        table.add_row(entry["name"], size, entry["what"])
    console.out().print(table)
