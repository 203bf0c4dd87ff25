"""Where a run begins and how its rows grow, by the recipe alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zhbert.config import load_recipe
from zhbert.errors import ZhbertError
from zhbert.pretraining.describe import schedule_warnings
from zhbert.pretraining.stages import loader_threads, stages_of
from zhbert.pretraining.start import allowed_changes

RUN = Path("runs/a")


def recipe(*overrides):
    return load_recipe("tiny", ["steps=100", "sequence_length=128", *overrides])


def test_a_stage_has_as_many_pieces_a_step_as_the_full_rows():
    shares = ["rows.warmup_share=[0.1,0.2]", "rows.warmup_length=[16,32]", "batch_size=4"]
    stages = stages_of(recipe(*shares))
    assert [(stage.end, stage.length, stage.rows) for stage in stages] == [
        (10, 16, 32),
        (30, 32, 16),
    ]
    assert {stage.length * stage.rows for stage in stages} == {128 * 4}


@pytest.mark.parametrize(
    "without", ["rows.warmup_length=65", "rows.warmup_share=0.001", "continue_from=runs/b"]
)
def test_there_is_no_stage_of_long_rows_of_no_step_or_in_a_later_phase(without):
    assert stages_of(recipe("rows.warmup_share=0.5"))
    assert stages_of(recipe("rows.warmup_share=0.5", without)) == []


def test_rows_are_made_by_as_many_threads_as_leave_the_model_its_cores(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert loader_threads(torch.device("cpu")) == 1
    assert loader_threads(torch.device("cuda")) == 16


def test_a_resumed_run_may_change_what_decides_nothing_computed_so_far():
    assert allowed_changes(recipe("threads=2"), recipe("threads=1"), RUN) == ["threads = 2 (was 1)"]
    (line,) = allowed_changes(recipe("steps=200"), recipe(), RUN)
    assert "falls to zero at the new end" in line
    for key in ("optimizer.schedule=constant", "optimizer.schedule_steps=300"):
        (line,) = allowed_changes(recipe(key, "steps=200"), recipe(key), RUN)
        assert line == "steps = 200 (was 100)"


@pytest.mark.parametrize(
    ("change", "way"), [("seed=1", "continue_from="), ("optimizer.name=lamb", "initial_model=")]
)
def test_any_other_change_is_refused_with_a_way_to_a_new_run(change, way):
    with pytest.raises(ZhbertError, match=way):
        allowed_changes(recipe(change), recipe(), RUN)


def test_a_schedule_that_does_not_fit_the_run_is_warned_of():
    fine = recipe("optimizer.warmup_steps=10", "optimizer.schedule_steps=0")
    assert not list(schedule_warnings(fine, 100))
    bad = recipe("optimizer.warmup_steps=101", "optimizer.schedule_steps=50")
    assert len(list(schedule_warnings(bad, 100))) == 2


def test_a_run_of_another_recipe_names_all_that_differs() -> None:
    teacher, other = (recipe(f'distill.teachers=["{name}"]', "softmax.frequent=0") for name in "ab")
    with pytest.raises(ZhbertError, match=r"teachers = \['a'\], but .* begun with \['b'\]; change"):
        allowed_changes(teacher, other, RUN)
    with pytest.raises(ZhbertError, match=r"\(also changed: sequence_length\); change them back"):
        allowed_changes(recipe("batch_size=9", "sequence_length=64", "threads=3"), recipe(), RUN)
