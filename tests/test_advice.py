"""What messages advise can be done: the verbs, options and packages that they name exist."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

import zhbert
from zhbert import cli

SOURCE = Path(zhbert.__file__).parent
# "zhbert VERB and what follows", up to the end of the quotation or the sentence.
COMMAND = re.compile(r"\bzhbert ((?:[a-z]+)\b(?:[^'`;,()\n]|\([^)]*\))*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
# Options of no verb that messages speak of.
OTHERS = {
    "--local",
    "--untracked-files",
    "--porcelain",
    "--share",
    "--version",
    "--nproc-per-node",
    "--max-restarts",
    "--rdzv-backend",
    "--rdzv-endpoint",
    "--nnodes",
    "--standalone",
    "--head",
}


def texts() -> Iterator[tuple[Path, int, str]]:
    """Every text of the package that is no docstring; what is filled in stands there as ``X``."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {
            id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
            for part in node.values
        }  # fmt: skip
        documented = {
            id(node.value) for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "X" for p in node.values)
                yield path, node.lineno, "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and id(node) not in inside | documented:
                yield path, node.lineno, node.value if isinstance(node.value, str) else ""


@cache
def options(verb: str) -> frozenset[str]:
    """What a verb takes, those of its own verbs included."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quiet")
    parser.add_argument("--json")
    importlib.import_module(cli.VERBS[verb][0]).add_arguments(parser)
    found: set[str] = set()
    parsers = [parser]
    for one in parsers:
        for action in one._actions:
            found |= set(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return frozenset(found)


def test_the_commands_of_messages_exist() -> None:
    seen = 0
    for path, line, text in texts():
        for command in COMMAND.findall(text):
            verb, *words = command.split()
            if verb in cli.VERBS:
                seen += 1
                for option in OPTION.findall(" ".join(words)):
                    assert option in options(verb), f"{path}:{line}: zhbert {command}"
    assert seen > 40


def test_the_options_of_messages_exist() -> None:
    every = frozenset().union(*map(options, cli.VERBS)) | OTHERS
    for path, line, text in texts():
        for option in OPTION.findall(text):
            assert option in every, f"{path}:{line}: {option}"


def test_packages_are_installed_by_their_names() -> None:
    """The package itself is on no index: its extras lead somewhere only in its folder (`.[X]`)."""
    needed = metadata.requires("zhbert") or ()
    known = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in needed} | {
        "transformers",
        "triton",
    }
    for path, line, text in texts():
        for name in re.findall(r"pip install '?([\w.\[\]{}-]+)", text):
            assert name in {"X", ".[X]"} | known, f"{path}:{line}: pip install {name}"


@pytest.mark.parametrize("verb", cli.VERBS)
def test_the_examples_of_a_verbs_help_parse(verb: str) -> None:
    module = importlib.import_module(cli.VERBS[verb][0])
    for line in (module.__doc__ or "").splitlines():
        found = re.match(r"^zhbert (\w+)(.*?)(?: {2,}.*)?$", line)
        if found is not None and found[1] in cli.VERBS:
            for option in OPTION.findall(found[2]):
                assert option in options(found[1]), line
