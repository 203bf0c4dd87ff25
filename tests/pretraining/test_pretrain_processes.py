"""Real processes: killed and resumed, interrupted, joined by torchrun."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.ranks import launch
from tests.small_corpora import MUON, TINY

from zhbert.pretraining.run import pretrain

STEPS = 160


def command(corpus, out, *more, launcher=()):
    python = [sys.executable, *launcher, "-m", "zhbert"]
    return [*python, "pretrain", "tiny", "--corpus", str(corpus), "--out", str(out), *TINY, *more]


def lines_of(folder):
    file = folder / "metrics.jsonl"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return text.splitlines(keepends=True)


def losses(folder):
    lines = [json.loads(line) for line in lines_of(folder)]
    return [line["loss"] for line in lines if "evaluation" not in line]


def wait_for_lines(process, folder, number_of_lines):
    end = time.monotonic() + 60
    while len(lines_of(folder)) < number_of_lines and time.monotonic() < end:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)


def run_until(words, folder, number_of_lines, number):
    """Start a run, send it a signal once it has logged so many lines; (exit code, stderr)."""
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_for_lines(process, folder, number_of_lines)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_kill_and_resume_give_bit_identical_losses(corpus, tmp_path):
    """SIGTERM, then SIGINT, then SIGKILL, and on to the end: as if nothing had happened."""
    settings = [f"steps={STEPS}", "checkpoint_every=20"]
    pretrain("tiny", corpus, tmp_path / "whole", [*TINY, *settings])
    run = tmp_path / "run"
    first = command(corpus, run, *settings)
    code, said = run_until(first, run, 30, signal.SIGTERM)
    assert code == 143
    reached = len(losses(run))
    assert 30 <= reached < STEPS
    assert f"saved at step {reached}; to go on: zhbert pretrain tiny" in said
    assert said.rstrip().endswith("--resume")
    assert not (run / "final").exists()

    code, said = run_until([*first, "--resume"], run, reached + 25, signal.SIGINT)
    assert code == 130
    assert f"from step {reached}" in said
    assert "Ctrl-C again stops at once" in said
    reached = len(losses(run))

    code, _ = run_until([*first, "--resume"], run, reached + 25, signal.SIGKILL)
    assert code == -signal.SIGKILL
    killed = lines_of(run)
    saved = max(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))
    assert saved <= len(killed)

    done = subprocess.run(
        command(corpus, run, *settings, "--resume"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"from step {saved}" in done.stderr
    assert lines_of(run)[:saved] == killed[:saved]
    assert losses(run) == losses(tmp_path / "whole")


def start_two(corpus, out, settings, *options):
    """Start a run of two processes under torchrun."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *options]
    return subprocess.Popen(
        command(corpus, out, *settings, "--quiet", launcher=torchrun),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill_a_process_of(launcher, folder, number_of_lines):
    """Kill the launcher's last process once the run has logged so many lines."""
    wait_for_lines(launcher, folder, number_of_lines)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)


def test_torchrun_with_two_processes_gives_the_curve_of_one(corpus, tmp_path):
    """Also if one is killed, and torchrun starts both again: then to the bit."""
    settings = ["steps=60", "checkpoint_every=10", "rows.builder=pairs", "micro_batch_size=3"]
    settings += [*MUON, "rows.warmup_share=0.5", "rows.warmup_length=8", "--resume-if-there"]
    two = start_two(corpus, tmp_path / "two", settings)
    killed = start_two(corpus, tmp_path / "killed", settings, "--max-restarts=1")
    kill_a_process_of(killed, tmp_path / "killed", 15)
    pretrain("tiny", corpus, tmp_path / "one", [*TINY, *settings[:-1]])
    for name, launcher in (("two", two), ("killed", killed)):
        said, errors = launcher.communicate(timeout=60)
        assert launcher.returncode == 0, errors
        assert said == f"{tmp_path / name / 'final'}\n"
    assert "another process of this run has gone" in errors
    assert losses(tmp_path / "killed") == losses(tmp_path / "two")
    curves = [[json.loads(line) for line in lines_of(tmp_path / name)] for name in ("one", "two")]
    assert len(curves[0]) == len(curves[1])
    for one, two in zip(*curves, strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            if key not in ("pieces_per_second", "data_wait", "step_seconds", "seconds"):
                same = value == two[key] or value == pytest.approx(two[key], rel=1e-4)
                assert same, (key, value, two[key])
    assert [line["pieces"] for line in curves[0] if "pieces" in line][-1] > 0


def test_a_run_goes_on_where_the_others_lack_its_folder(corpus, finished_run, tmp_path):
    """Machines without a shared disk for the run: the first process's folder is the run's."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    more = ("steps=14", "rows.builder=pairs", "model.num_hidden_layers=4", "--resume")
    other = command(corpus, tmp_path / "elsewhere", *more)
    for code, _, errors in launch(command(corpus, run, *more), other):
        assert code == 0, errors
    assert len(losses(run)) == 14
    assert not (tmp_path / "elsewhere").exists()


def test_a_process_that_lacks_the_corpus_ends_all_with_a_line_each(corpus, tmp_path):
    """A node that the shared folder was not mounted on."""
    run = tmp_path / "run"
    first, second = launch(command(corpus, run), command(tmp_path / "nowhere", run))
    assert second[0] == first[0] == 2
    assert second[2].count("\n") == 1
    assert str(tmp_path / "nowhere") in second[2]
    told = first[2].splitlines()[-1]
    assert told.startswith("zhbert: error: another process of this run has gone")
    assert "Traceback" not in first[2]
