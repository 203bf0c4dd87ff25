"""What is estimated of memory and operations, and what is chosen by it."""

from __future__ import annotations

import dataclasses

import pytest

from zhbert import runtime
from zhbert.config import load_recipe, resolve_shape
from zhbert.errors import ZhbertError
from zhbert.train import cost
from zhbert.train.cost import Hardware, Workload, max_padded_tokens, micro_batch_rows

BASE = Workload(
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    vocabulary_size=21128,
    sequence_length=128,
)
LAPTOP = Hardware(memory=16 << 30)
GPU = Hardware(memory=80 << 30, on_gpu=True, bytes_per_number=2)


def test_operations_are_about_six_for_each_parameter_and_piece():
    parameters = 12 * 12 * 768**2
    encoder = dataclasses.replace(BASE, predicted_share=0.0).operations()
    assert encoder == pytest.approx(6 * parameters, rel=0.05)


def test_fewer_compared_pieces_cost_less_and_more_predictions_more():
    plain, many, sampled = (
        Workload.of_recipe(
            load_recipe("tiny", more), resolve_shape(load_recipe("tiny").model), 21128
        )
        for more in (
            ["softmax.frequent=0", "masking.rate=0.15"],
            ["softmax.frequent=0", "masking.rate=0.4"],
            ["softmax.frequent=2000", "masking.rate=0.4"],
        )
    )
    assert sampled.vocabulary_size == 2000 + 1024
    for what in ("activation_bytes", "operations"):
        assert getattr(sampled, what)() < getattr(plain, what)() < getattr(many, what)()


@pytest.mark.parametrize("hardware", [LAPTOP, GPU])
def test_micro_batches_fill_the_memory_and_are_equally_large(hardware):
    rows = micro_batch_rows(5000, BASE, hardware)
    most = hardware.pieces_at_once(BASE) // 128
    parts = -(-5000 // rows)
    assert rows <= most < 5000
    assert 5000 / most <= parts < 5000 / most + 1
    assert 0 <= parts * rows - 5000 < parts


def test_a_batch_that_fits_is_one_micro_batch_and_a_row_that_does_not_is_one_too():
    assert micro_batch_rows(8, BASE, GPU) == 8
    assert micro_batch_rows(8, BASE, Hardware(memory=1 << 20)) == 1


def test_processes_share_a_machines_memory_but_not_a_gpus():
    for hardware, share in ((Hardware(memory=8 << 30), 4), (GPU, 1)):
        several = dataclasses.replace(hardware, processes=4)
        alone, one = hardware.pieces_at_once(BASE), several.pieces_at_once(BASE)
        assert alone // share == pytest.approx(one, rel=0.01)


def test_on_a_cpu_no_tensor_is_larger_than_malloc_likes():
    long = dataclasses.replace(BASE, sequence_length=512)
    pieces = max_padded_tokens(long, LAPTOP)
    assert 4 * 12 * 512 * pieces <= cost.CPU_TENSOR_BYTES < 4 * 12 * 512 * (pieces + 1)
    assert max_padded_tokens(long, GPU) == GPU.pieces_at_once(long)
    pieces = cost.max_predicted_tokens(3072, on_cpu=True)
    assert 4 * 3072 * pieces <= cost.CPU_TENSOR_BYTES < 4 * 3072 * (pieces + 1)
    assert cost.max_predicted_tokens(48, on_cpu=True) == cost.MAX_PADDED_TOKENS
    assert cost.max_predicted_tokens(3072, on_cpu=False) == cost.MAX_PADDED_TOKENS


@pytest.mark.parametrize(
    ("choice", "steps", "operations", "on_cpu", "compiled"),
    [
        ("no", 10**6, 1e20, False, False),
        ("yes", 1, 1.0, True, True),
        ("auto", cost.COMPILE_FROM_STEPS - 1, 1e20, False, False),
        ("auto", cost.COMPILE_FROM_STEPS, 1.0, False, True),
        ("auto", 10**6, 0.99 * cost.COMPILE_FROM_OPERATIONS_ON_CPU, True, False),
        ("auto", cost.COMPILE_FROM_STEPS, cost.COMPILE_FROM_OPERATIONS_ON_CPU, True, True),
    ],
)
def test_only_a_long_run_is_compiled_by_itself(choice, steps, operations, on_cpu, compiled):
    worth = cost.worth_compiling(choice, steps=steps, operations=operations, on_cpu=on_cpu)
    assert worth == compiled


@pytest.mark.parametrize(
    ("on_cpu", "lacks", "missing"),
    [
        (True, "compiler", "C++ compiler (mine; CXX can name another)"),
        (False, "compiler", "C compiler (gcc or clang; CC can name another)"),
        (True, "header", "include/Python.h (Debian: the package python3-dev)"),
        (False, "header", "include/Python.h (Debian: the package python3-dev)"),
        (False, "triton", "package triton (pip install triton)"),
    ],
)
def test_what_is_missing_to_compile_is_said_and_the_run_goes_on(
    on_cpu, lacks, missing, monkeypatch, tmp_path
):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("CXX", "mine")
    found = None if lacks == "triton" else "found"
    monkeypatch.setattr(runtime, "find_spec", lambda name: found)
    compiler = None if lacks == "compiler" else "found"
    monkeypatch.setattr(runtime.shutil, "which", lambda name: compiler)
    monkeypatch.setattr(runtime.sysconfig, "get_path", lambda *names: tmp_path / "include")
    said = []
    settings = {"steps": 500, "operations": 1e20, "on_cpu": on_cpu, "say": said.append}
    cost.compile_if_worth_it(None, "auto", **settings)
    assert said[0].startswith("no ")
    assert said[0].endswith(f"{missing}: training runs uncompiled, slower")
    with pytest.raises(ZhbertError, match="compile = yes: there is no ") as caught:
        cost.compile_if_worth_it(None, "yes", **settings)
    assert str(caught.value).endswith(missing)
