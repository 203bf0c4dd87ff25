"""Distillation from cached soft labels: the same run as with the teacher, without it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.small_corpora import TINY

from zhbert.errors import ZhbertError
from zhbert.pretraining import distillation
from zhbert.pretraining.run import pretrain

STAGES = ["rows.warmup_share=0.5", "rows.warmup_length=16"]
SETTINGS = [*TINY, *STAGES, "steps=8", "checkpoint_every=3", "distill.top_k=4"]


def steps_of(run: Path) -> list[dict[str, Any]]:
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if "evaluation" not in line]


@pytest.fixture
def distilled(
    corpus: Path, finished_run: Path, tmp_path: Path
) -> Callable[..., list[dict[str, Any]]]:
    """Distils with these settings, and returns the log's lines of steps."""

    def run(name: str, *overrides: str, **options: Any) -> list[dict[str, Any]]:
        pretrain(
            "tiny",
            options.pop("corpus", corpus),
            tmp_path / name,
            [*SETTINGS, f'distill.teachers=["{finished_run / "final"}"]', *overrides],
            **options,
        )
        return steps_of(tmp_path / name)

    return run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows that teachers are asked about."""
    rows: list[int] = []
    own = distillation.DistillationObjective._ask

    def ask(self: Any, batch: Any) -> Any:
        if self._teaching.teachers:
            rows.append(batch.packed.num_rows)
        return own(self, batch)

    monkeypatch.setattr(distillation.DistillationObjective, "_ask", ask)
    return rows


def test_losses_are_those_of_the_live_teacher(
    distilled: Callable[..., list[dict[str, Any]]], tmp_path: Path, asked: list[int]
) -> None:
    """The goal is 1 %; half precision of the labels changes them much less."""
    live = distilled("live")
    asked.clear()
    cached = distilled("cached", f"distill.cache={tmp_path / 'labels'}")
    assert asked
    for one, other in zip(live, cached, strict=True):
        assert one["soft_labels_loss"] > 0
        for part in ("loss", "soft_labels_loss", "masked_lm_loss"):
            assert other[part] == pytest.approx(one[part], rel=1e-3)
    # The next run asks nothing.
    asked.clear()
    again = distilled("again", f"distill.cache={tmp_path / 'labels'}")
    assert asked == []
    assert [line["loss"] for line in again] == [line["loss"] for line in cached]


def test_a_resumed_run_reads_on(
    distilled: Callable[..., list[dict[str, Any]]], tmp_path: Path, asked: list[int]
) -> None:
    cache = f"distill.cache={tmp_path / 'labels'}"
    whole = distilled("run", cache)
    asked.clear()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000008")
    resumed = distilled("run", cache, resume=True)
    assert asked == []
    assert [line["loss"] for line in resumed] == [line["loss"] for line in whole]


def test_a_cache_of_another_teacher_or_other_masks_is_refused(
    distilled: Callable[..., list[dict[str, Any]]], tmp_path: Path, finished_run: Path
) -> None:
    other = shutil.copytree(finished_run / "final", tmp_path / "teacher")
    weights = load_file(other / "model.safetensors")
    weights["cls.predictions.bias"] += 1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    cache = f"distill.cache={tmp_path / 'labels'}"
    distilled("first", cache)
    with pytest.raises(ZhbertError, match=r"labels: the soft labels of another run: seed was"):
        distilled("second", cache, "seed=3")
    with pytest.raises(ZhbertError, match=r"another run: masking.rate was .*, is 0.31; choose"):
        distilled("second", cache, "masking.rate=0.31", "masking.final_rate=")
    with pytest.raises(ZhbertError, match=r"another run: teacher differs; choose another distill"):
        distilled("second", cache, f'distill.teachers=["{other}"]')
    assert not (tmp_path / "second").exists()


def test_a_full_disk_is_one_line(
    distilled: Callable[..., list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ZhbertError, match=r"labels: the disk is full; free some space and run the"):
        distilled("run", f"distill.cache={tmp_path / 'labels'}")
    assert not (tmp_path / "run").exists()


def test_the_teacher_is_gone_while_the_student_trains(
    distilled: Callable[..., list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[weakref.ref[Any]] = []
    own = distillation.open_teacher

    def open_teacher(*args: Any, **options: Any) -> Any:
        teacher = own(*args, **options)
        opened.append(weakref.ref(teacher.model))
        return teacher

    monkeypatch.setattr(distillation, "open_teacher", open_teacher)
    alive: list[bool] = []
    step = torch._fused_adamw_

    def watched(*args: Any, **options: Any) -> Any:
        alive.append(opened[0]() is not None)
        return step(*args, **options)

    monkeypatch.setattr(torch, "_fused_adamw_", watched)
    distilled("run", f"distill.cache={tmp_path / 'labels'}", "optimizer.name=adamw")
    assert alive
    assert not any(alive)


def test_two_processes_share_the_teachers_work_and_learn_the_same(
    distilled: Callable[..., list[dict[str, Any]]],
    corpus: Path,
    finished_run: Path,
    tmp_path: Path,
) -> None:
    live = distilled("one", "micro_batch_size=3")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = ["distill", "tiny", "--teacher", str(finished_run / "final"), "--corpus", str(corpus)]
    out = ["--out", str(tmp_path / "two"), "--quiet"]
    settings = [*SETTINGS, "micro_batch_size=3", f"distill.cache={tmp_path / 'labels'}"]
    subprocess.run(
        [sys.executable, *launcher, "-m", "zhbert", *words, *out, *settings],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    shared = steps_of(tmp_path / "two")
    assert [line["loss"] for line in shared] == pytest.approx(
        [line["loss"] for line in live], rel=1e-3
    )
