"""metrics.jsonl to the byte, and the progress line."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest

from zhbert.errors import ZhbertError
from zhbert.train.log import MetricsFile, Progress, cut_metrics


def step_line(step, **more):
    return {
        "step": step,
        "loss": math.pi / step,
        "pieces": 4000 * step,
        "data_wait": 0.01,
        "step_seconds": 0.1,
        **more,
    }


def test_lines_keep_full_precision_and_are_there_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.write(step_line(1))
    assert json.loads(path.read_text(encoding="utf-8"))["loss"] == math.pi
    file.close()


def test_a_cut_keeps_older_lines_to_the_byte(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = b'{"step": 1,  "loss": 0.10}\n{"step": 2}\n{"step": 2, "evaluation": "wwm"}\n'
    path.write_bytes(kept + b'{"step": 3}\n{"step": 4, "lo')
    assert cut_metrics(path, 3) == 4
    assert cut_metrics(path, 2) == 3
    assert path.read_bytes() == kept
    file = MetricsFile(path, after=2)
    file.write({"step": 3})
    file.close()
    assert path.read_bytes() == kept + b'{"step": 3}\n'


def test_a_torn_line_is_cut_whatever_its_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}')
    assert cut_metrics(path, 9) == 1
    assert path.read_bytes() == b'{"step": 1}\n'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_one_clear_line():
    file = MetricsFile.__new__(MetricsFile)
    file.path = "/dev/full"
    file._file = open("/dev/full", "a", buffering=1)  # noqa: PTH123, SIM115
    with pytest.raises(ZhbertError, match="disk is full"):
        file.write({"step": 1})
    with pytest.raises(OSError, match="No space"):
        file._file.close()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one_line_that_is_overwritten(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    progress = Progress(stream, 0, 100)
    progress.LIVE_SECONDS = 0
    for step in range(1, 101):
        progress.write(step_line(step))
    progress.close()
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.count("\r") == 100
    passing = text.split("\r")[:-1]
    assert all(len(part.replace("\x1b[K", "")) < 60 for part in passing)
    for word in ("step  50/100", "loss 0.063", "pieces/s", "data wait"):
        assert word in passing[50]


def test_without_a_terminal_there_are_few_plain_lines():
    stream = io.StringIO()
    progress = Progress(stream, 0, 1000)
    for step in range(1, 1001):
        progress.write(step_line(step))
    progress.write(
        {"step": 1000, "evaluation": "wwm", "masked_lm_accuracy": 0.5, "masked_lm_loss": 1.0}
    )
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert "step 1000/1000" in lines[0]
    assert "wwm masks: accuracy 50.00 %" in lines[1]
    assert "\x1b" not in stream.getvalue()
