"""Mistakes in files of pairs: one line, exit code 2, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from zhbert import cli

SCORED = 'metrics = ["spearman"]', 'label = "y"\nlabel_range = [0, 5]\n'
JUDGED = 'metrics = ["ap"]', 'label = "y"\nyes = ["1"]\nno = ["0"]\n'
TRIPLES = 'metrics = ["mrr@10"]', 'negative = "y"\n'


@pytest.mark.parametrize(
    ("card", "train", "message"),
    [
        (SCORED, "甲\t乙\t3\n丙\t丁\t很像", 'train.tsv:3: the label "很像" is not a number from 0'),
        (JUDGED, "甲\t乙\t0\n丙\t丁\t0", "train.tsv: no pair in it is similar: there is nothing"),
        (TRIPLES, "甲\t乙\t丙\n甲\t乙\t乙", 'train.tsv:3: "乙" is its own negative: remove it'),
        (TRIPLES, "甲\t乙", "train.tsv:2: 2 columns where the header has 3"),
    ],
)
def test_a_broken_file_of_pairs_is_refused_before_anything_is_written(
    card: tuple[str, str], train: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    metrics, keys = card
    (tmp_path / "mine.toml").write_text(
        f'title = "t"\nkind = "embed"\n{metrics}\n[data]\nformat = "tsv"\ntrain = "train.tsv"\n'
        f'dev = "dev.tsv"\ntext = "a"\ntext_pair = "b"\n{keys}'
    )
    (tmp_path / "train.tsv").write_text(f"a\tb\ty\n{train}\n", encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("a\tb\ty\n甲\t乙\t1\n", encoding="utf-8")
    out = tmp_path / "run"
    code = cli.main(["finetune", str(tmp_path / "mine.toml"), "--model", "mini", "--out", str(out)])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    (line,) = captured.err.splitlines()
    assert line.startswith("zhbert: error: ")
    assert message in line
    assert not out.exists()
