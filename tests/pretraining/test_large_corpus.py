"""A run on a corpus that is planned in windows; its threshold is lowered here."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from tests.small_corpora import TINY, documents, make_corpus

from zhbert.data.row_windows import ShardWindows, rows_of_split
from zhbert.data.shards import write_shard
from zhbert.pretraining import stages
from zhbert.pretraining.run import pretrain

OVERRIDES = [
    *TINY, "steps=24", "checkpoint_every=12", "rows.builder=pairs",
    "rows.warmup_length=8", "rows.warmup_share=0.2",
]  # fmt: skip


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six shards, in three windows."""
    folder = make_corpus(tmp_path / "corpus", train=10, held_out=0)
    described = folder / "corpus.json"
    info = json.loads(described.read_text(encoding="utf-8"))
    for number in range(1, 6):
        path = folder / f"train-{number:05d}.arrow"
        info["shards"]["train"].append(write_shard(path, documents(10, 100 + number)))
    described.write_text(json.dumps(info), encoding="utf-8")
    size = sum(entry["sentences"] for entry in info["shards"]["train"]) * 20
    small = partial(rows_of_split, whole_bytes=0, window_pieces=size // 3)
    monkeypatch.setattr(stages, "rows_of_split", small)
    return folder


def losses_of(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_a_resumed_run_goes_on_in_its_window_without_counting_rows_again(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    pretrain("tiny", large, run, OVERRIDES, quiet=False)
    assert "rows an epoch in 3 windows" in capsys.readouterr().err
    losses = losses_of(run)
    shutil.rmtree(run / "checkpoints" / "step-000024")
    info = json.loads((run / "checkpoints/step-000012/checkpoint.json").read_text("utf-8"))
    assert set(info["window_ends"]) == {"8", "32"}
    assert len(info["window_ends"]["32"]) > 1
    counted = []
    count = ShardWindows.count

    def watched(self: ShardWindows, epoch: int, window: int) -> int:
        counted.append((self.sequence_length, epoch, window))
        return count(self, epoch, window)

    monkeypatch.setattr(ShardWindows, "count", watched)
    pretrain("tiny", large, run, resume=True)
    assert losses_of(run) == losses
    # The first window's rows are counted for the epoch's length, which is told at the beginning.
    assert (32, 0, 1) not in counted
