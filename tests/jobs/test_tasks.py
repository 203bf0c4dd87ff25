"""zhbert tasks: the list, one task in full, and JSON for machines."""

from __future__ import annotations

import json

import pytest

from zhbert import cli
from zhbert.tasks.cards import card_names, card_path, load_card


@pytest.fixture
def tasks(monkeypatch, capsys):
    """Run the verb; return its exit code, stdout and stderr."""
    monkeypatch.setitem(cli.VERBS, "tasks", ("zhbert.jobs.tasks", "the tasks"))

    def tasks(*arguments: str, columns: int = 80) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        code = cli.main(["tasks", *arguments])
        return code, *capsys.readouterr()

    return tasks


def test_the_list_names_every_task_within_80_columns(tasks):
    code, out, err = tasks()
    assert code == 0
    first_words = [line.split(maxsplit=1)[0] for line in out.splitlines() if line[0] != " "]
    assert first_words == ["task", *card_names()]
    assert max(map(len, out.splitlines())) <= 80
    assert "do two questions mean the same?" in out
    assert "LCQMC" not in out, "the name stands there already"
    assert f"{len(card_names())} tasks." in err
    assert "'zhbert tasks NAME --card'" in err, "on one line, to be copied"
    assert max(map(len, err.splitlines())) <= 80
    assert tasks("--quiet")[2] == ""


@pytest.mark.parametrize("name", card_names())
@pytest.mark.parametrize("columns", [60, 80])
def test_every_task_is_shown_within_the_window(tasks, name, columns):
    code, out, _ = tasks(name, columns=columns)
    card = load_card(name)
    assert code == 0
    assert max(map(len, out.splitlines())) <= columns
    assert f"name        {name}" in out
    assert "learning_rate" in out
    for one in card.published:
        assert one.model in out
    assert "\u2026" not in out, "nothing is cut off"


def test_a_task_shows_what_was_published_and_how_it_is_set(tasks):
    out = tasks("lcqmc")[1]
    assert "labels      0 = different, 1 = same" in out
    assert "models           others  small  ernie" in out
    assert "epochs                3      5      3" in out
    assert "learning_rate      2e-5   1e-4   3e-5" in out
    assert "small: fewer than 12 layers, or narrower than 768." in out
    assert "dev    BERT                   89.4 (88.4)" in out
    assert out.count("\ndev ") == out.count("\ntest ") == 1, "a split is named once"
    assert "dev: dev.tsv (8,802 examples)" in out
    assert "* the metric is presumed." in tasks("cola")[1]


def test_json_is_a_list_of_objects_with_names(tasks):
    cards = json.loads(tasks("--json")[1])
    assert [card["name"] for card in cards] == card_names()
    one = json.loads(tasks("cmrc2018", "--json")[1])
    assert one == cards[card_names().index("cmrc2018")]
    assert one["metrics"] == ["f1", "em"]
    assert one["families"]["ernie"]["learning_rate"] == 8e-5
    assert len(one["published"]) == 40


def test_a_card_of_ones_own_is_shown(tasks, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'title = "My [question]"\nkind = "regress"\nnote = "a [b] c"\n'
        'metrics = ["spearman"]\n[data]\n'
        'format = "csv"\ndev = "d.csv"\ntext = "a"\nlabel = "b"\nlabel_range = [0, 1]\n'
    )
    code, out, _ = tasks(str(path))
    assert code == 0
    assert out.startswith("My [question]\nname        mine")
    assert "a number from 0 to 1" in out
    assert "a [b] c" in out


def test_an_unknown_task_is_one_line(tasks):
    code, out, err = tasks("lcqcm")
    assert (code, out) == (2, "")
    assert err == (
        "zhbert: error: no task 'lcqcm'; a card of your own ends in .toml; did you mean 'lcqmc'?\n"
    )


@pytest.mark.parametrize("name", card_names())
def test_a_card_is_printed_as_its_file_stands(tasks, name, tmp_path):
    code, out, err = tasks(name, "--card")
    assert (code, err) == (0, "")
    copy = tmp_path / "copy.toml"
    copy.write_text(out, encoding="utf-8")
    assert copy.read_bytes() == card_path(name).read_bytes()
    assert load_card(copy).data == load_card(name).data


def test_a_card_is_printed_in_utf8_with_its_own_line_ends(tmp_path, capfdbinary):
    path = tmp_path / "mine.toml"
    written = (
        'title = "工单"\r\nkind = "classify" # 两类\r\nmetrics = ["accuracy"]\r\n[data]\r\n'
        'format = "csv"\r\ntrain = "t.csv"\r\ntext = "a"\r\nlabel = "b"\r\n'
        'labels = ["是", "否"]\r\n'
    ).encode("utf-8-sig")
    path.write_bytes(written)
    assert cli.main(["tasks", str(path), "--card"]) == 0
    assert capfdbinary.readouterr() == (written, b"")


def test_a_card_that_is_none_is_not_printed(tasks, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('title = "t"\nkind = "clasify"\n')
    code, out, err = tasks(str(path), "--card")
    assert (code, out) == (2, "")
    assert err.endswith("did you mean 'classify'?\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--card"], "--card: whose? zhbert tasks NAME --card"),
        (
            ["lcqmc", "--card", "--json"],
            "--card prints a TOML file and --json JSON: remove one of them",
        ),
    ],
)
def test_what_card_does_not_go_with_is_one_line(tasks, arguments, said):
    assert tasks(*arguments) == (2, "", f"zhbert: error: {said}\n")
