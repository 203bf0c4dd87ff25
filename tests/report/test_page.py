"""report.html: well-formed, by itself, and nobody's text is markup; report.md likewise."""

from __future__ import annotations

import json
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.report.run_folders import fine_tuning_run, pretraining_run, spread, write_json

from zhbert.report.build import gather
from zhbert.report.page import page
from zhbert.report.write import markdown

# Everything that a JSON file can hold: lone surrogates, controls and all.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
HOSTILE = (
    "</td></script><script>alert(1)</script><img src=x onerror=y>\"'&amp;|`*_[a](http://b)"
    " \0\u202e\ud800"
)


class Structure(HTMLParser):
    """The tags of a page in their order, and what is checked of each."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.rows: list[list[list[int]]] = []  # of each table, the widths of each row's cells
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        assert len(values) == len(attributes)
        self.tags.append((tag, tuple(values)))
        assert tag not in ("script", "link", "img", "iframe", "object", "base")
        assert not [name for name in values if name.startswith("on") or name in ("src", "srcset")]
        assert values.get("href", "#").startswith("#")
        assert "url(" not in values.get("style", "")
        if "id" in values:
            self.ids.append(values["id"])
        self.references += values.get("aria-labelledby", "").split()
        if "href" in values:
            self.references.append(values["href"][1:])
        if tag == "table":
            self.rows.append([])
        elif tag == "tr":
            self.rows[-1].append([])
        elif tag in ("td", "th"):
            assert tag == "td" or values["scope"] in ("row", "col", "rowgroup")
            self.rows[-1][-1].append(int(values.get("colspan", "1")))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            assert "url(" not in data
            assert "@import" not in data
        self.texts.append(data)

    def check(self) -> None:
        assert len(set(self.ids)) == len(self.ids)
        assert set(self.references) <= set(self.ids)
        for rows in self.rows:
            assert len({sum(row) for row in rows}) == 1
            assert len(rows) > 1


def structure(text: str) -> Structure:
    found = Structure(text)
    found.check()
    return found


@pytest.fixture
def all_kinds(tmp_path: Path) -> list[Path]:
    """Two models on each kind of task, pretraining, and what is unfinished."""
    folders = [
        fine_tuning_run(tmp_path / f"{task}-{model}", task, model, examples=20, parameters=size)
        for task in ("chnsenticorp", "thucnews_titles", "stsb_zh", "ner_peopledaily", "cmrc2018")
        for model, size in (("char", 3_000_000), ("wwm", 9_000_000))
    ]
    folders.append(pretraining_run(tmp_path / "wwm", steps=200))
    folders.append(pretraining_run(tmp_path / "char", steps=130, planned=300))
    begun = fine_tuning_run(tmp_path / "begun", "lcqmc", right=[0.5])
    (begun / "summary.json").unlink()
    point = {"overrides": ["epochs=3"], "metrics": {"accuracy": spread([70.0])}, "folder": "grid/x"}
    grid = fine_tuning_run(tmp_path / "grid", "bq", grid=[point], best=["epochs=3"])
    return [*folders, begun, grid]


def test_the_page_is_well_formed_and_by_itself(all_kinds: list[Path]) -> None:
    text = page(gather(all_kinds, "char"))
    found = structure(text)
    names = [tag for tag, _ in found.tags]
    assert text.startswith('<!doctype html>\n<html lang="en">')
    # The words of addresses may stand in texts, not in the page's own parts.
    assert "http:" not in text
    assert "https:" not in text
    # A picture of the scores by size, 1 + 2 x 2 of pretraining, one of each task's epochs.
    drawings = [
        attributes for tag, attributes in found.tags if tag == "svg" and "role" in attributes
    ]
    assert len(drawings) == 1 + 5 + 7
    assert names.count("title") == len(drawings) + 1
    assert names.count("desc") == len(drawings)
    assert names.count("details") == 11
    for expected in ("成绩", "相对成绩", "差异", "规模与用时", "预训练", "混淆矩阵", "运行"):
        assert expected in text
    assert "unfinished: no seed is done" in text
    assert "epochs=3" in text


def test_each_run_by_itself_makes_a_page(all_kinds: list[Path]) -> None:
    for folder in all_kinds:
        structure(page(gather([folder])))


def test_numbers_in_the_page_are_those_of_the_runs(tmp_path: Path) -> None:
    metrics = {"accuracy": spread([80.0, 84.0, 83.5])}
    folder = fine_tuning_run(tmp_path / "run", "lcqmc", metrics=metrics)
    texts = structure(page(gather([folder]))).texts
    assert "84.00 (82.50)" in texts
    assert "± 2.18" in texts


def test_the_matrix_in_the_page_has_right_labels_in_rows(tmp_path: Path) -> None:
    folder = fine_tuning_run(tmp_path / "run", "chnsenticorp", right=[0.5], examples=4)
    lines = [{"text": "x", "gold": "0", "predicted": "1", "score": 0.0}] * 4
    lines += [{"text": "x", "gold": "1", "predicted": "1", "score": 1.0}] * 2
    path = folder / "seed-0" / "predictions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = page(gather([folder]))
    row = re.search(r'<th scope="row"><bdi>0 negative</bdi></th>(.*?)</tr>', text)
    assert row is not None
    assert re.sub(r"<[^>]*>", " ", row.group(1)).split() == ["100.0", "4"]
    assert row.group(1).index("<td") < row.group(1).index("100.0")
    assert row.group(1).startswith('<td style="--share:0.000" class="right"></td>')


def test_scores_by_size_are_of_the_models_with_all_figures(tmp_path: Path) -> None:
    folders = [
        fine_tuning_run(tmp_path / f"{task}-{model}", task, model, examples=20, parameters=size)
        for task, model, size in (
            ("lcqmc", "a", 1_000_000),
            ("ocnli", "a", 1_000_000),
            ("lcqmc", "b", 2_000_000),
            ("ocnli", "b", 2_000_000),
            ("lcqmc", "c", 3_000_000),
        )
    ]
    found = re.search(r"<desc id=\"description-1\">(.*?)</desc>", page(gather(folders)))
    assert found is not None
    report = gather(folders)
    means = [
        statistics.fmean(s.mean or 0 for s in row.scores.values()) for row in report.table.ours
    ]
    assert found.group(1) == (
        f"mean score, % by parameters. a: {means[0]:.4g} at 1,000,000, "
        f"b: {means[1]:.4g} at 2,000,000."
    )


def test_curves_of_other_examples_are_marked(tmp_path: Path) -> None:
    first = fine_tuning_run(tmp_path / "a", "lcqmc", "a")
    second = fine_tuning_run(tmp_path / "b", "lcqmc", "b", dev_sha256="f" * 64)
    text = page(gather([first, second]))
    assert "<bdi>b †</bdi></li>" in text
    assert "<bdi>a</bdi></li>" in text


def _with_text_everywhere(folder: Path, text: str) -> list[Path]:
    """Runs where ``text`` is a model, a task, a title, a label, a remark, and in every example."""
    # Not empty, and no label that there is already.
    text = f"!{text}"
    runs = []
    for place, task in enumerate(("chnsenticorp", "ner_peopledaily", "cmrc2018")):
        run = folder / f"run-{place}"
        facts = {"model_name": text, "title": text, "split_note": text, "device": text}
        facts["task"] = f"{text}{place}"
        fine_tuning_run(run, task, "m", right=[0.4], examples=6, text=text, **facts)
        path = run / "seed-0" / "predictions.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        if task == "chnsenticorp":
            lines[0] |= {"gold": text, "predicted": "0", "score": 0.0, "text": text}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        runs.append(run)
    pretraining = pretraining_run(folder / "pretraining", steps=100)
    write_json(pretraining / "provenance.json", {"device": "cpu", "precision": "x"})
    with (pretraining / "metrics.jsonl").open("a") as file:
        line = {"step": 100, "evaluation": text, "masked_lm_accuracy": 0.1, "masked_lm_loss": 5.0}
        file.write(json.dumps(line) + "\n")
    return [*runs, pretraining]


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> tuple[Structure, str]:
    """The page and the Markdown of a text that is nothing special."""
    folder = tmp_path_factory.mktemp("harmless")
    report = gather(_with_text_everywhere(folder, "words"))
    return structure(page(report)), markdown(report)


@given(ANY_TEXT)
@example(HOSTILE)
@example("")
@settings(max_examples=25)
def test_no_text_can_inject_markup(
    tmp_path_factory: pytest.TempPathFactory, harmless: tuple[Structure, str], text: str
) -> None:
    report = gather(_with_text_everywhere(tmp_path_factory.mktemp("any"), text))
    written = page(report)
    written.encode("utf-8")
    assert structure(written).tags == harmless[0].tags
    table = markdown(report)
    table.encode("utf-8")
    assert _cells(table) == _cells(harmless[1])
    assert not re.search(r"(?<!\\)[<>`*]", _without_rules(table))


def _cells(text: str) -> list[int]:
    """How many cells each line has; a line that is no row has one."""
    return [len(re.split(r"(?<!\\)\|", line)) for line in text.split("\n")]


def _without_rules(text: str) -> str:
    """Without what the report itself emphasises: what a group of rows has in common."""
    return re.sub(r"(?m)^\| \*(.*)\*( \| )", r"| \1\2", text)


def test_a_hostile_text_is_still_to_be_read(tmp_path: Path) -> None:
    found = structure(page(gather(_with_text_everywhere(tmp_path, HOSTILE))))
    shown = "!" + HOSTILE.replace("\0", "\ufffd").replace("\u202e", "\ufffd").replace(
        "\ud800", "\ufffd"
    )
    assert shown in found.texts
