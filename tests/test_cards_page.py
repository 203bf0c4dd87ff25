"""docs/cards.md is true: its cards read its files, its commands parse, its tables are complete."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest

from zhbert import cli
from zhbert.errors import ZhbertError
from zhbert.tasks.card import CardSettings, Published, TaskCard
from zhbert.tasks.cards import (
    load_card,
    parse_card,
    split_of,
)
from zhbert.tasks.examples import EmbedExample, Example, SpanExample, TagExample, TextExample
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.read import read_examples
from zhbert.tasks.settings import settings_for
from zhbert.tasks.span_scores import SCORERS, SCORERS_OF_NO_ANSWER

PAGE = Path(__file__).parent.parent / "docs" / "cards.md"
TEXT = PAGE.read_text(encoding="utf-8")
# A line that begins with a file's name in backticks and ends in a colon, then the file.
FILE = re.compile(r"^`([\w.-]+)`[^\n]*:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```bash\n(.*?)^```$|`(zhbert [^`]+)`", re.MULTILINE | re.DOTALL)


def section(heading: str) -> str:
    """The text under a heading of the second level."""
    return TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def table(text: str, heading: str) -> dict[str, dict[str, str]]:
    """The rows of the table whose first column is ``heading``: key -> column -> cell."""
    lines = iter(text.splitlines())
    columns = next(cells for line in lines if (cells := row(line))[0] == heading)
    next(lines)
    rows: dict[str, dict[str, str]] = {}
    for line in lines:
        if not line.startswith("|"):
            break
        cells = row(line)
        assert len(cells) == len(columns), line
        key = cells[0].strip("`")
        assert cells[0] == f"`{key}`", line
        assert key not in rows, line
        rows[key] = dict(zip(columns, cells, strict=True))
    return rows


def row(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def examples_of(heading: str) -> dict[str, str]:
    return dict(FILE.findall(section(heading)))


HEADINGS = [
    heading
    for heading in re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    if "```toml\n" in section(heading)
]


def write(heading: str, folder: Path) -> TaskCard:
    """The section's files; the card among them."""
    files = examples_of(heading)
    for name, body in files.items():
        (folder / name).write_text(body, encoding="utf-8")
    (name,) = (name for name in files if name.endswith(".toml"))
    return load_card(folder / name)


def test_there_is_a_card_of_every_kind(tmp_path):
    kinds = [write(heading, tmp_path).kind for heading in HEADINGS]
    assert sorted(set(kinds)) == sorted(KINDS)
    assert TEXT.count("```toml\n") == len(HEADINGS)


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_example_is_read_by_its_card(heading, tmp_path, monkeypatch, capsys):
    card = write(heading, tmp_path)
    used = {card.path.name, getattr(card.data, "labels_file", "")}
    for split, names in card.data.splits.items():
        if any((tmp_path / name).exists() for name in names):
            assert read_examples(card, None, split)
            used |= set(names)
    assert set(examples_of(heading)) <= used, "every file is one that the card names"
    assert card.data.train[0] in examples_of(heading)
    # Shown as the page says, within a window.
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["tasks", str(card.path)]) == 0
    assert card.title in capsys.readouterr().out


def read(name: str, folder: Path, split: str = "train") -> tuple[list[Example], list[str]]:
    """The examples of the card of that name, and what was remarked."""
    (heading,) = (one for one in HEADINGS if name in examples_of(one))
    remarks: list[str] = []
    card = write(heading, folder)
    return read_examples(card, None, split, remark=remarks.append), remarks


def test_the_examples_are_what_the_page_says_of_them(tmp_path):
    rows, remarks = read("reviews.toml", tmp_path)
    assert rows == [
        TextExample("1001", "房间很大，早餐也不错", label="好评"),
        TextExample("1002", '前台说"没有房间", 等了一小时', label="差评"),
        TextExample("1003", "隔音太差", label="差评"),
    ]
    assert remarks == ['train.csv: rows left out for their label "不明": 1']

    rows, remarks = read("pairs.toml", tmp_path)
    assert [row.label for row in rows] == ["same", "different", "same"]
    assert rows[2].text == '"花呗"怎么还款'
    assert remarks == ["train.tsv: rows left out for too many or too few columns: 1"]
    card = load_card(tmp_path / "pairs.toml")
    strict = dataclasses.replace(card, data=dataclasses.replace(card.data, skip_broken_rows=False))
    with pytest.raises(ZhbertError, match=r"train\.tsv:4: 2 columns where the first row has 3"):
        read_examples(strict, None, "train")

    rows, remarks = read("topics.toml", tmp_path)
    assert [row.labels for row in rows] == [("服务", "房间"), ("价格",), ("房间", "价格"), ()]
    assert remarks == []
    # The other form, without `label`, gives the same.
    columns = re.findall(
        r"^```csv\n(.*?)^```$", section("Several labels, from JSON lines"), re.M | re.S
    )
    (tmp_path / "train.csv").write_text(columns[0], encoding="utf-8")
    card = load_card(tmp_path / "topics.toml")
    data = dataclasses.replace(card.data, format="csv", label=())
    found = read_examples(dataclasses.replace(card, data=data), tmp_path / "train.csv", "train")
    assert [row.labels for row in found] == [rows[0].labels, rows[3].labels]

    rows, _ = read("names.toml", tmp_path)
    assert [type(row) for row in rows] == [TagExample, TagExample]
    assert "".join(rows[0].tokens) == "李白到了成都"

    rows, remarks = read("questions.toml", tmp_path)
    assert [type(row) for row in rows] == [SpanExample, SpanExample]
    assert [row.kind for row in rows] == ["span", "none"]
    assert remarks == [], "answer_start is right"

    rows, remarks = read("faq.toml", tmp_path)
    assert [type(row) for row in rows] == [EmbedExample] * 3
    assert [(row.id, row.form, len(row.texts)) for row in rows[1:]] == [
        ("1", "triples", 3), ("1.1", "triples", 3),
    ]  # fmt: skip
    assert rows[2].relevant == ("1", "1.1")
    assert remarks == []


def test_one_file_of_all_splits_is_read_by_split(tmp_path):
    train, _ = read("similarity.toml", tmp_path)
    dev, _ = read("similarity.toml", tmp_path, "dev")
    test, _ = read("similarity.toml", tmp_path, "test")
    assert [[row.value for row in rows] for rows in (train, dev, test)] == [[4.6], [0.0], [4.0]]
    card = load_card(tmp_path / "similarity.toml")
    assert split_of(card, Path("all.jsonl")) == "dev"
    assert split_of(card, Path("all.jsonl"), "test") == "test"
    with pytest.raises(ZhbertError, match="--split tets: not in similarity; did you mean 'test'"):
        split_of(card, Path("all.jsonl"), "tets")
    reviews = write(HEADINGS[0], tmp_path)
    inside = dataclasses.replace(reviews, data=dataclasses.replace(reviews.data, test=("t/a.csv",)))
    assert split_of(inside, tmp_path / "t" / "a.csv") == "test"
    assert split_of(inside, tmp_path / "a.csv") == "dev"
    names = ("test.csv", "dev.csv", "other.csv")
    assert [split_of(reviews, Path(name)) for name in names] == ["test", "dev", "dev"]


def test_files_are_found_where_the_page_says(tmp_path):
    card = write(HEADINGS[0], tmp_path)
    inside = tmp_path / card.name
    inside.mkdir()
    (tmp_path / "train.csv").rename(inside / "train.csv")
    assert len(read_examples(card, None, "train")) == 3


def test_every_scorer_that_is_named_for_no_answer_counts_it():
    from zhbert.tasks.span_scores import SCORERS as COUNT

    sentence = next(line for line in TEXT.splitlines() if "need a scorer" in line)
    named = set(re.findall(r"`([\w.]+)`", sentence.split("need a scorer")[1])) & set(SCORERS)
    assert named == set(SCORERS_OF_NO_ANSWER)
    for name in SCORERS:
        if name in named:
            assert COUNT[name]({"1": []}, {"1": ""}).em == 100
        else:
            with pytest.raises(ZhbertError, match="no answer to compare with"):
                COUNT[name]({"1": []}, {"1": ""})


def test_small_models_get_what_the_page_says(tmp_path):
    def small(card: TaskCard) -> tuple[int, float]:
        settings = settings_for(card, "small")
        return settings.epochs, settings.optimizer.learning_rate

    cards = {card.name: card for card in (write(heading, tmp_path) for heading in HEADINGS)}
    assert small(cards["reviews"]) == (5, 1e-4)
    assert small(cards["questions"]) == (8, 1e-4)
    shipped = load_card("lcqmc")
    assert small(shipped) == (5, 1e-4)
    copy = load_card(shutil.copy(shipped.path, tmp_path / "copy.toml"))
    assert small(copy) == (shipped.settings.epochs, shipped.settings.learning_rate)


def is_key(name: str) -> bool:
    """Whether a card's file may have this key at its top."""
    try:
        parse_card({name: None}, Path("mine.toml"))
    except ZhbertError as error:
        return f"unknown key '{name}'" not in str(error)
    return True


@pytest.mark.parametrize(
    ("classes", "heading"),
    [
        ([TaskCard], "The keys of a card"),
        ([kind.data_class for kind in KINDS.values()], "`[data]`"),
        ([CardSettings], "`[settings]`"),
        ([Published], "`[official]` and `[[published]]`"),
    ],
)
def test_the_tables_name_every_key_and_its_default(classes, heading):
    rows = table(section(heading), "key")
    fields = {
        item.name: item
        for one in classes
        for item in dataclasses.fields(one)
        if one is not TaskCard or is_key(item.name)
    }
    assert set(fields) == set(rows)
    for name, item in fields.items():
        cell = rows[name]["default"]
        if item.default is item.default_factory is dataclasses.MISSING:
            assert cell == "required", name
        elif cell:
            value = tomllib.loads(f"value = {cell.strip('`')}")["value"]
            assert (type(value), value) == (type(item.default), item.default), name
        else:
            # Nothing, or sections of which each key has its default.
            assert not item.default or item.default_factory is not dataclasses.MISSING, name


# A card of each kind in each of its formats with what it must have.
REQUIRED = {
    "classify": {"text": "a", "label": "b", "labels": ["x", "y"]},
    "multi_label": {"text": "a", "label": "b", "labels": ["x", "y"]},
    "regress": {"text": "a", "label": "b", "label_range": [0, 5]},
    "tag": {"labels": ["O", "B-X"], "scheme": "BIO"},
    "span": {"scorer": "squad2.0"},
    "embed": {},
}
PAIRS = {"text": "a", "text_pair": "c"}
JUDGED = {**PAIRS, "label": "b", "yes": ["x"], "no": ["y"]}
# What the card of an embedding task must have beside a key; others need pairs alone.
BESIDE = {
    "label_range": {**PAIRS, "label": "b"},
    **dict.fromkeys(("label", "yes", "no", "drop_labels", "triples"), JUDGED),
}
# A value that is not the default of each key that not every card may have.
VALUES = {
    "text_pair": "c", "id": "d", "where": {"e": "f"}, "split_column": "g", "header": True,
    "quoting": True, "skip_broken_rows": True, "labels_file": "labels.txt",
    "label_names": ["无", "有"], "rename_labels": {"z": "x"}, "drop_labels": ["-"],
    "drop_word_places": True, "yes_no": True, "no_answer": True, "label_delimiter": ";",
    "threshold": 0.3, "yes": ["x"], "no": ["y"], "triples": True, "negative": "n",
    "train_on": ["lcqmc_embed"], "scored_on": ["bq_embed"], "haystack": ["dev"],
    **{key: value for keys in REQUIRED.values() for key, value in keys.items()},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_is_refused_in_the_card_of_another_kind_or_format(kind, tmp_path):
    (tmp_path / "labels.txt").write_text("O\nB-X\n", encoding="utf-8")
    for key, cells in table(section("`[data]`"), "key").items():
        if (of := cells["for"]) == "all":
            assert key not in VALUES
            continue
        for form in KINDS[kind].formats:
            data = {"format": form, "dev": "d", **REQUIRED[kind], key: VALUES[key]}
            if key in REQUIRED[kind]:
                data[key] = REQUIRED[kind][key]
            elif key == "labels_file":
                data.pop("labels", None)
            elif form == "bio" and key in ("text", "label"):
                data[key] = 1
            metric = KINDS[kind].metric_names[0]
            if kind == "embed" and form != "squad":
                data = {**data, **BESIDE.get(key, PAIRS)}
            if kind == "embed" and "label" not in data:
                metric = "mrr@10"
            card = {"title": "t", "kind": kind, "metrics": [metric], "data": data}
            allowed = of.replace("rows", "classify, multi_label, regress, embed").split(", ")
            fits = kind in allowed or form in allowed
            if (kind, form) == ("embed", "squad"):
                fits = key in ("train_on", "scored_on", "haystack")
            if fits:
                parse_card(card, tmp_path / "mine.toml")
            else:
                with pytest.raises(ZhbertError, match=rf"^mine.toml: data.{key}: is for .*, not"):
                    parse_card(card, tmp_path / "mine.toml")


def test_the_table_of_kinds_is_the_programs():
    rows = table(TEXT, "kind")
    assert list(rows) == list(KINDS)
    for kind, cells in rows.items():
        named = {column: re.findall("`([^`]+)`", cells[column]) for column in cells}
        assert tuple(named["formats"]) == KINDS[kind].formats
        known = KINDS[kind].metric_names
        assert sorted(set(named["metrics"]) - {"scorer"}) == sorted(known)


def test_every_command_of_the_page_parses():
    lines = [line for found in COMMANDS.findall(TEXT) for line in "".join(found).splitlines()]
    commands = [shlex.split(line.partition(" > ")[0]) for line in lines]
    whole = [words for words in commands if len(words) > 2 and "--help" not in words]
    assert len(whole) >= 8
    for _, verb, *arguments in whole:
        parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
        module = importlib.import_module(cli.VERBS[verb][0])
        module.add_arguments(parser)
        parser.parse_args(arguments)
