"""What is estimated of a training step on GPUs that are not here."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest

from zhbert.train import gpus
from zhbert.train.cost import Hardware, micro_batch_rows
from zhbert.train.gpus import GPUS, MEASURED_STEPS, step_seconds

BASE = MEASURED_STEPS[0].workload


@pytest.mark.parametrize("step", MEASURED_STEPS, ids=str)
def test_measured_steps_are_estimated_within_the_error_that_is_said(step):
    work, gpu = step.workload, GPUS[step.gpu]
    seconds = step_seconds(work, gpu, rows=step.rows)
    assert seconds * 1e3 == pytest.approx(step.milliseconds, rel=gpus.error() or 0.2)
    memory = gpus.memory_bytes(work.parameters, work, rows=step.rows)
    # Besides what the model needs, libraries keep a tenth of a gigabyte.
    assert memory / 1e9 == pytest.approx(step.gigabytes, rel=0.2, abs=0.1)


@pytest.mark.parametrize(
    ("count", "micro_batches", "rows_per_second"),
    [(1, 32, 580), (8, 32, 4591), (16, 16, 9191), (64, 4, 35774), (256, 1, 138294)],
)
def test_nvidias_own_program_is_about_as_fast_on_a100(count, micro_batches, rows_per_second):
    # BERT-large, micro-batches of 256 rows of 128, mixed precision, eight GPUs a machine:
    # https://github.com/NVIDIA/DeepLearningExamples/tree/master/PyTorch/LanguageModeling/BERT
    large = dataclasses.replace(
        BASE,
        num_hidden_layers=24,
        hidden_size=1024,
        num_attention_heads=16,
        intermediate_size=4096,
        vocabulary_size=30522,
    )
    rows = 256 * micro_batches
    seconds = step_seconds(large, GPUS["a100"], rows=rows, micro_batches=micro_batches, gpus=count)
    assert count * rows / seconds == pytest.approx(rows_per_second, rel=0.2)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=str)
def test_twice_the_gpus_take_less_time_and_no_more_than_half_is_saved(gpu):
    times = [step_seconds(BASE, gpu, rows=1024 // n, gpus=n) for n in (1, 2, 4, 8)]
    for fewer, more in pairwise(times):
        assert fewer / 2 < more < fewer


def test_more_memory_never_makes_a_smaller_micro_batch():
    rows = [
        micro_batch_rows(1024, BASE, Hardware(memory=size << 30, on_gpu=True, bytes_per_number=2))
        for size in range(1, 141)
    ]
    assert rows == sorted(rows)


def test_every_part_of_a_step_takes_time():
    fitted = gpus._fit(MEASURED_STEPS)
    assert (fitted > 0).all()
    h100, usual = GPUS["h100"], step_seconds(BASE, GPUS["h100"], rows=64)
    for change in ({"tflops": 100}, {"bandwidth": 100}):
        assert step_seconds(BASE, dataclasses.replace(h100, **change), rows=64) > usual
    assert step_seconds(BASE, h100, rows=64, micro_batches=8) > usual
    assert step_seconds(BASE, h100, rows=64, bytes_per_number=4) > 1.5 * usual
    again = dataclasses.replace(BASE, checkpointing=True)
    assert 1.15 < step_seconds(again, h100, rows=64) / usual < 4 / 3
    assert gpus.memory_bytes(0, again, rows=64) < gpus.memory_bytes(0, BASE, rows=64) / 3


def test_the_network_between_machines_is_slower_than_the_links_inside():
    one, two = (gpus._exchange_seconds(BASE, GPUS["h100"], n) for n in (8, 16))
    assert two > 3 * one > 0
