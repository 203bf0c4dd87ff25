"""Scores of rows: the same whatever a row is batched with, in either number format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tests.model.conftest import SHAPE, enlarge
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.inference import run_model as running
from zhbert.inference.run_model import run_model
from zhbert.model import layers, native
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForSequenceClassification
from zhbert.packing import PackedBatch
from zhbert.tasks.examples import TextExample
from zhbert.tasks.learners.texts import ClassifyLearner
from zhbert.text.tokenizer import Tokenizer

OURS = Tokenizer.default()
KIND = ClassifyLearner(OURS, ("差", "好"), 32)
TEXTS = ["好", "很好的一本书", "房间很小，早餐不好，服务员也不热情。" * 2] * 4
ROWS = KIND.prepare([TextExample(str(n), text, None) for n, text in enumerate(TEXTS)]).rows


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def classifier() -> BertForSequenceClassification:
    config = BertConfig(**{**SHAPE, "hidden_size": 64, "vocab_size": len(OURS)})
    return enlarge(BertForSequenceClassification(config.with_labels(["差", "好"])))


@pytest.mark.parametrize("natively", [True, False])
def test_predicting_in_bfloat16_is_close_and_leaves_the_model_in_float32(
    natively: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not natively:
        monkeypatch.setattr(native, "SUPPORTED", {})
    model = classifier().train()
    encoder, state = model.encoder, {k: v.clone() for k, v in model.state_dict().items()}
    exact = run_model(model, ROWS, KIND.scores)
    rounded = run_model(model, ROWS, KIND.scores, dtype=torch.bfloat16)
    assert rounded.dtype == np.float32
    assert np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max()
    assert not np.array_equal(rounded, exact)
    assert model.encoder is encoder
    assert model.training
    after = model.state_dict()
    assert all(torch.equal(after[name], state[name]) for name in state)
    assert {x.dtype for x in after.values()} == {torch.float32}
    assert np.array_equal(run_model(model, ROWS, KIND.scores), exact)


def test_an_error_while_predicting_leaves_the_model_its_encoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = classifier().eval()
    encoder, seen = model.encoder, []

    def fail(self: Any, *_: Any, **__: Any) -> Tensor:
        seen.append(self.attention.qkv.weight.dtype)
        raise KeyboardInterrupt

    monkeypatch.setattr(layers.Block, "forward", fail)
    with pytest.raises(KeyboardInterrupt):
        run_model(model, ROWS, KIND.scores, dtype=torch.bfloat16)
    assert seen == [torch.bfloat16]
    assert model.encoder is encoder
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_threads_changes_nothing(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MAX_ROWS", 2)
    model = classifier().eval()
    found = []
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        found.append(run_model(model, ROWS, KIND.scores, dtype=dtype))
        assert torch.get_num_threads() == threads
    assert all(np.array_equal(one, found[0]) for one in found)


def test_an_error_in_one_of_several_batches_ends_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "MAX_ROWS", 1)
    torch.set_num_threads(2)
    seen: list[int] = []

    def fail(*_: Any, **__: Any) -> Tensor:
        seen.append(1)
        assert not torch.is_grad_enabled()
        raise ValueError("broken")

    monkeypatch.setattr(layers.Block, "forward", fail)
    with pytest.raises(ValueError, match="broken"):
        run_model(classifier(), ROWS, KIND.scores)
    assert len(seen) <= len(ROWS)
    assert torch.get_num_threads() == 2


def test_what_a_row_is_predicted_beside_changes_rounding_only() -> None:
    model = classifier().eval()
    together = run_model(model, ROWS, KIND.scores)
    for number in (0, 1, 2):
        text = TextExample("0", TEXTS[number], None)
        alone = run_model(model, KIND.prepare([text]).rows, KIND.scores)
        np.testing.assert_allclose(alone[0], together[number], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_copy_of_the_encoder_is_kept_until_its_weights_change(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[int] = []
    pack = native.pack
    monkeypatch.setattr(native, "pack", lambda *a: (packed.append(1), pack(*a)))
    model = classifier().eval()
    first = run_model(model, ROWS, KIND.scores, dtype=dtype)
    assert np.array_equal(run_model(model, ROWS, KIND.scores, dtype=dtype), first)
    assert len(packed) == 1
    with torch.no_grad():
        model.encoder.layers[0].feed_forward.inner.weight.mul_(2)
    assert not np.allclose(run_model(model, ROWS, KIND.scores, dtype=dtype), first)
    assert len(packed) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hooks_are_called_that_came_after_a_first_prediction(dtype: torch.dtype) -> None:
    model = classifier().eval()
    run_model(model, ROWS, KIND.scores, dtype=dtype)
    seen: list[int] = []
    model.encoder.layers[0].register_forward_hook(lambda *_: seen.append(1))
    run_model(model, ROWS, KIND.scores, dtype=dtype)
    assert seen


@pytest.mark.skipif(native.INT8_STATES is None, reason="this machine has no AVX512_VNNI")
def test_predicting_with_weights_of_8_bits_is_close() -> None:
    model = classifier().eval()
    exact = run_model(model, ROWS, KIND.scores)
    rounded = run_model(model, ROWS, KIND.scores, dtype=torch.int8)
    assert 0 < np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max()
    assert {x.dtype for x in model.state_dict().values()} == {torch.float32}
    assert np.array_equal(run_model(model, ROWS, KIND.scores), exact)


def test_weights_of_8_bits_need_a_cpu_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "INT8_STATES", None)
    with pytest.raises(ZhbertError, match="AVX512_VNNI only; take float32 or bfloat16"):
        run_model(classifier(), ROWS, KIND.scores, dtype=torch.int8)


@pytest.mark.skipif(native.INT8_STATES is None, reason="this machine has no AVX512_VNNI")
def test_damaged_weights_are_noticed_in_8_bits() -> None:
    model = classifier().eval()
    with torch.no_grad():
        model.encoder.layers[0].feed_forward.inner.weight[3, 4] = torch.nan
    with pytest.raises(ZhbertError, match="not finite numbers"):
        run_model(model, ROWS, KIND.scores, dtype=torch.int8)


@pytest.mark.parametrize("per_piece", [False, True])
def test_filling_a_batch_up_changes_no_score(
    per_piece: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = classifier().eval()
    sizes: list[int] = []

    def forward(model: Any, batch: PackedBatch) -> Tensor:
        sizes.append(batch.num_pieces)
        states = model.encoder(batch)
        return states[:, :3] if per_piece else states[batch.cu_seqlens[:-1].long(), :3]

    rows = KIND.prepare([TextExample(str(n), "很好的一本书", None) for n in range(8)]).rows
    exact = run_model(model, rows, forward)
    monkeypatch.setattr(running, "MAX_TOKENS_ON_CPU", 66)
    filled = run_model(model, rows, forward)
    assert sizes == [64, 66]
    np.testing.assert_allclose(filled, exact, atol=1e-5)
