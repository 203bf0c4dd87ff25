"""The recipes that ship with the package: copying and describing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zhbert.config import load_recipe, recipe_path, resolve_shape
from zhbert.files import write_text
from zhbert.folders import check_file


def copy_recipe(name: str, to: str | Path | None = None) -> Path:
    """Copy a recipe's file to the file or folder ``to`` (default: here); return its path.

    Raises:
        ZhbertError: the file exists already.
    """
    source = recipe_path(name)
    target = Path(to) if to else Path(source.name)
    if target.is_dir():
        target = target / source.name
    check_file(target, label=str(target), way="choose another name")
    write_text(target, source.read_text(encoding="utf-8"))
    return target


def describe_recipe(name: str) -> dict[str, Any]:
    """Return a recipe's name, its first comment line, and its most important values."""
    text = recipe_path(name).read_text(encoding="utf-8")
    recipe = load_recipe(name)
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
