"""Every block of the READMEs is run, or at least taken apart by the parser that would run it."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from zhbert import cli

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "README_EN.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [body for kind, body in BLOCK.findall(text) if kind == language]


def commands(name: str) -> list[list[str]]:
    lines = [line for body in blocks(name, "bash") for line in body.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if shlex.split(line, comments=True)]


@pytest.mark.parametrize("name", READMES)
def test_every_command_of_the_readme_parses(name: str) -> None:
    seen = 0
    for words in commands(name):
        if "zhbert" not in words:
            assert words[0] in ("make", "pip", "uv")
            continue
        check_command(words)
        seen += 1
    assert seen >= 10


def check_command(words: list[str]) -> None:
    """Let the verb's parser take what follows ``zhbert``, and torchrun's what stands before it."""
    at = words.index("zhbert")
    verb, *arguments = words[at + 1 :]
    module = importlib.import_module(cli.VERBS[verb][0])
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--json", action="store_true")
    module.add_arguments(parser)
    parser.parse_args(arguments)
    if "torchrun" in words[:at]:
        parsed = get_args_parser().parse_args(words[words.index("torchrun") + 1 :])
        assert (parsed.module, parsed.training_script) == (True, "zhbert")


def test_every_command_of_the_page_on_clusters_parses() -> None:
    own = [words for words in commands("docs/clusters.md") if "zhbert" in words]
    for words in own:
        check_command(words)
    assert len(own) >= 3


@pytest.mark.parametrize("name", READMES)
def test_make_targets_of_the_readme_exist(name: str) -> None:
    if not (ROOT / "Makefile").exists():  # the wheel is tested without the source tree
        return
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands(name):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words


# A block shows the warning that a plain BERT was never trained for similarity.
@pytest.mark.filterwarnings("ignore::zhbert.model.loading.UntrainedWeightsWarning")
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set:UserWarning")
@pytest.mark.parametrize("name", READMES)
def test_python_blocks_of_the_readme_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [body for body in blocks(name, "python") if "from zhbert" in body]
    assert own
    monkeypatch.chdir(tmp_path)
    for body in own:
        exec(compile(body, name, "exec"), {})


# One block goes on where another ends. There is no accelerator that pinned memory could help.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_the_page_on_transformers_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = (Path(cli.__file__).parent / "assets/sample.txt").read_text(encoding="utf-8")[:20_000]
    Path("text.txt").write_text(lines, encoding="utf-8")
    names: dict[str, object] = {}
    bodies = blocks("docs/training-with-transformers.md", "python")
    assert len(bodies) == 4
    for body in bodies:
        exec(compile(body, "training-with-transformers.md", "exec"), names)


def test_the_two_readmes_have_the_same_shape() -> None:
    shapes = []
    for name in READMES:
        text = (ROOT / name).read_text(encoding="utf-8")
        shapes.append(
            {
                "headings": [line.split()[0] for line in text.splitlines() if line.startswith("#")],
                "commands": commands(name),
                "rows": sum(line.startswith("| ") for line in text.splitlines()),
                "links": sorted(set(re.findall(r"\]\((docs/[^)]+|[A-Z]+\.md)\)", text))),
            }
        )
    for shape in shapes:
        shape["links"] = [link for link in shape["links"] if "README" not in link]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", READMES)
def test_linked_documents_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("name", READMES)
def test_the_readmes_card_works(name: str, tmp_path: Path) -> None:
    from zhbert.tasks.cards import load_card
    from zhbert.tasks.read import read_examples

    (card,) = blocks(name, "toml")
    (tmp_path / "my-task.toml").write_text(card, encoding="utf-8")
    (tmp_path / "train.csv").write_text('text,label\n"你好，世界",咨询\n', encoding="utf-8")
    examples = read_examples(load_card(tmp_path / "my-task.toml"), None, "train")
    assert [(e.text, e.label) for e in examples] == [("你好，世界", "咨询")]


@pytest.mark.parametrize("name", READMES)
def test_the_four_rows_are_what_mask_shows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    (command,) = re.findall(r"`zhbert (mask [^`]+ --seed \d+)`", text)
    assert cli.main([*shlex.split(command), "--quiet"]) == 0
    shown = re.findall(r"(?:original|segmented|masking) +(.*)", capsys.readouterr().out)
    rows = [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("| ")][1:5]
    assert rows == shown
