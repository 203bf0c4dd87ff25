"""docs/design.md is true: each function on a journey exists, and the rooms are import-linter's."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

import zhbert

ROOT = Path(__file__).parent.parent
PACKAGE = Path(zhbert.__file__).parent
PAGE = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^\d+\. `([\w/.]+\.(?:py|cpp))` `([\w.]+)`", PAGE, re.MULTILINE)


@cache
def definitions(file: str) -> set[str]:
    names: set[str] = set()
    for node in ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            if isinstance(node, ast.ClassDef):
                inner = (one for one in node.body if isinstance(one, ast.FunctionDef))
                names |= {f"{node.name}.{one.name}" for one in inner}
    return names


def test_there_are_five_journeys() -> None:
    assert len(re.findall(r"^### ", PAGE, re.MULTILINE)) == 5
    assert len(STEPS) > 40


@pytest.mark.parametrize(("file", "name"), STEPS)
def test_each_step_of_a_journey_exists(file: str, name: str) -> None:
    assert name in definitions(file)


def test_the_rooms_are_those_that_import_linter_holds() -> None:
    picture = PAGE.split("```")[1]
    drawn = [
        " | ".join(re.split(r" {2,}", line)[0].split(" | "))
        for line in picture.strip().splitlines()
    ]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    assert drawn == [layer.replace("zhbert.", "") for layer in layers]
