"""metrics.jsonl to the byte, and the progress line."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.train.log import MetricsFile, ProgressLine, cut_metrics, describe_evaluation


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
    said = []
    assert cut_metrics(path, 2, said.append) == {"wwm"}
    assert path.read_bytes() == kept
    # What cannot be read is not thrown away, even where it was surely of a later step.
    assert (tmp_path / "metrics.damaged.jsonl").read_bytes() == b'{"step": 4, "lo\n'
    assert said == [f"{path}: damaged lines, kept in metrics.damaged.jsonl: 5"]
    file = MetricsFile(path, after=2, say=said.append)
    file.write({"step": 3})
    file.close()
    assert path.read_bytes() == kept + b'{"step": 3}\n'
    assert len(said) == 1


def test_a_line_that_lost_its_end_of_line_alone_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}')
    assert cut_metrics(path, 9, pytest.fail) == set()
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'


# No bit makes one of these lines another one.
LINES = [b'{"step": %d, "loss": 1%d}\n' % (n // 2, n % 10 * 111) for n in range(2, 10)]
SIZE = len(LINES[0])


@given(st.integers(0, 8 * SIZE * len(LINES) - 1), st.integers(1, 4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_bit_costs_its_own_line_at_most_and_that_is_kept(tmp_path, bit, step):
    damaged = bytearray(b"".join(LINES))
    damaged[bit // 8] ^= 1 << bit % 8
    path, aside = tmp_path / "metrics.jsonl", tmp_path / "metrics.damaged.jsonl"
    aside.unlink(missing_ok=True)
    path.write_bytes(damaged)
    said = []
    cut_metrics(path, step, said.append)
    assert bool(said) == aside.exists()
    hit, at_its_end = divmod(bit // 8, SIZE)
    touched = {hit, hit + 1} if at_its_end == SIZE - 1 else {hit}
    untouched = [line for n, line in enumerate(LINES[: 2 * step]) if n not in touched]
    found = path.read_bytes()
    assert [line for line in found.splitlines(keepends=True) if line in untouched] == untouched
    if hit < 2 * step - 1:  # of the last line, a later step could be meant
        both = found + (aside.read_bytes() if said else b"")
        for part in damaged[hit * SIZE : (hit + 1) * SIZE].split(b"\n"):
            assert part in both


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine has no /dev/full")
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
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    progress = ProgressLine(stream, 0, 100)
    progress.LIVE_SECONDS = 0
    for step in range(1, 101):
        progress.write(step_line(step))
    progress.close()
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.count("\r") == 100
    passing = text.split("\r")[:-1]
    assert all(len(part.replace("\x1b[K", "")) < 80 for part in passing)
    for word in ("step  50/100", "loss 0.063", "pieces/s", "data wait"):
        assert word in passing[50]


def test_a_terminals_lines_break_between_words(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    progress = ProgressLine(stream, 0, 9)
    progress.say("step 2  held out, char masks: accuracy 0.00 %")
    lines = stream.getvalue().removeprefix("\r\x1b[K").splitlines()
    assert lines == ["step 2  held out, char masks:", "accuracy 0.00 %"]


def test_without_a_terminal_there_are_few_plain_lines():
    stream = io.StringIO()
    progress = ProgressLine(stream, 0, 1000)
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


def test_an_evaluation_without_predictions_says_so() -> None:
    line = {"step": 9, "evaluation": "wwm", "masked_lm_accuracy": None, "masked_lm_loss": None}
    assert describe_evaluation(line) == "step 9  held out, wwm masks: nothing to predict"
