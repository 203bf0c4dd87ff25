"""List the recipes of this package, show one, or copy one to edit.

zhbert recipes
zhbert recipes show tiny
zhbert recipes copy tiny my-tiny.toml
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from zhbert import console
from zhbert.errors import ZhbertError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("action", nargs="?", choices=("list", "show", "copy"), default="list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a recipe's name")
    parser.add_argument(
        "to", nargs="?", metavar="TO", help="copy: the new file (default ./NAME.toml)"
    )


def run(args: argparse.Namespace) -> int:
    """List the recipes, show one, or copy one."""
    from zhbert.config import load_recipe, recipe_names, recipe_path
    from zhbert.pretraining.recipes import copy_recipe

    if args.action == "list":
        if args.name:
            raise ZhbertError(f"'{args.name}': to see one recipe: zhbert recipes show {args.name}")
        _list(as_json=args.json)
    elif not args.name:
        raise ZhbertError(
            f"zhbert recipes {args.action} NAME: a name is missing; there are "
            f"{', '.join(recipe_names())}"
        )
    elif args.action == "show" and args.json:
        console.print_json({"name": args.name, "values": asdict(load_recipe(args.name))})
    elif args.action == "show":
        sys.stdout.write(recipe_path(args.name).read_text(encoding="utf-8"))
    else:
        target = copy_recipe(args.name, args.to)
        if args.json:
            console.print_json({"file": str(target)})
        else:
            sys.stdout.write(f"{target}\n")
    return 0


def _list(as_json: bool) -> None:
    from zhbert.config import recipe_names
    from zhbert.pretraining.recipes import describe_recipe

    entries = [describe_recipe(name) for name in recipe_names()]
    if as_json:
        console.print_json(entries)
        return
    table = console.table("=recipe", ">steps x rows x pieces", "what")
    for entry in entries:
        size = f"{entry['steps']:,} x {entry['batch_size']:,} x {entry['sequence_length']}"
        table.add_row(entry["name"], size, entry["what"])
    console.out().print(table)
