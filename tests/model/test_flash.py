"""The attention of GPUs, with PyTorch's two operations replaced by exact ones for the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from zhbert.model import encoder, flash, layers
from zhbert.model.attention import QuerySubset, RowLayout, attend
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining
from zhbert.packing import pack_rows


def _forward(
    query: Tensor, key: Tensor, value: Tensor, query_cu: Tensor, cu: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, ...]:
    """Attend row by row, exactly: (Q, heads, size), (T, heads, size) twice -> (Q, heads, size)."""
    assert query_cu.dtype == cu.dtype == torch.int32
    assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
    found = torch.zeros(query.shape, dtype=query.dtype)
    for ours, theirs in _rows(query_cu, cu):
        one, keys, values = (x.transpose(0, 1) for x in (query[ours], key[theirs], value[theirs]))
        found[ours] = (_weights(one, keys) @ values).transpose(0, 1)
    normalisers = torch.zeros(query.shape[1], query.shape[0])
    state = torch.zeros(2, dtype=torch.uint64)
    return found, normalisers, state, torch.zeros((), dtype=torch.uint64), found.new_empty(0)


def _backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    normalisers: Tensor,
    query_cu: Tensor,
    cu: Tensor,
    *_: Any,
) -> tuple[Tensor, ...]:
    assert out.shape == gradient.shape
    assert normalisers.shape == (query.shape[1], query.shape[0])
    found = tuple(torch.zeros(x.shape, dtype=x.dtype) for x in (query, key, value))
    for ours, theirs in _rows(query_cu, cu):
        parts = (query[ours], key[theirs], value[theirs], gradient[ours])
        one, keys, values, upstream = (x.transpose(0, 1) for x in parts)
        weights, of_weights = _weights(one, keys), upstream @ values.mT
        of_scores = weights * (of_weights - (weights * of_weights).sum(-1, keepdim=True))
        of_scores = of_scores * query.shape[-1] ** -0.5
        found[0][ours] = (of_scores @ keys).transpose(0, 1)
        found[1][theirs] = (of_scores.mT @ one).transpose(0, 1)
        found[2][theirs] = (weights.mT @ upstream).transpose(0, 1)
    return found


def _rows(query_cu: Tensor, cu: Tensor) -> Iterator[tuple[Any, Any]]:
    ends = [itertools.pairwise(x.tolist()) for x in (query_cu, cu)]
    for ours, theirs in zip(*ends, strict=True):
        yield slice(*ours), slice(*theirs)


def _weights(query: Tensor, keys: Tensor) -> Tensor:
    return (query @ keys.mT * query.shape[-1] ** -0.5).softmax(-1)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take the branches of a GPU with flash attention."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", _forward, "CPU")
    library.impl("_flash_attention_backward", _backward, "CPU")
    monkeypatch.setattr(flash, "available", lambda device: True)

    def narrow(x: Tensor) -> torch.dtype:
        return torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype

    monkeypatch.setattr(layers, "states_dtype", narrow)
    monkeypatch.setattr(layers, "chooses_rows", lambda table: True)
    yield
    library._destroy()


ROWS = torch.tensor([0, 5, 5, 6, 16, 16])  # the second and the last are empty


# PyTorch 2.14 warns of its own insides.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("some", [False, True])
def test_gradients_are_those_of_the_function(some: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    queries = torch.tensor([0, 2, 3, 3, 7, 8]) if some else ROWS
    query, packed = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((8, 24), (16, 48 if some else 72))
    )

    def attended(query: Tensor, packed: Tensor) -> Tensor:
        asked = query if some else None
        cuts = queries.int(), ROWS.int()
        return flash.flash_attention(asked, packed, *cuts, 4, 10, 3, 0.0)[0] * query.sum()

    assert torch.autograd.gradcheck(attended, (query, packed))
    schema = (None if not some else query, packed, queries.int(), ROWS.int(), 4, 10, 3, 0.0)
    torch.library.opcheck(flash.flash_attention, schema)


@pytest.mark.parametrize("some", [False, True])
def test_it_attends_as_the_products_do(
    some: bool, on_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash, "serves", lambda dtype, size: True)
    generator = torch.Generator().manual_seed(3)
    layout = RowLayout.of(torch.tensor([0, 5, 6, 16]), 10, 16)
    subset = QuerySubset.of(layout, torch.tensor([2, 8, 9]), with_first=True) if some else None
    query = torch.randn(6, 24, generator=generator, requires_grad=True) if some else None
    packed = torch.randn(16, 48 if some else 72, generator=generator, requires_grad=True)
    leaves = [packed] if query is None else [query, packed]

    def run() -> list[Tensor]:
        found = attend(query, packed, layout, subset, heads=3)
        return [found, *torch.autograd.grad(found.square().sum(), leaves)]

    found, layout.flash = run(), False
    torch.testing.assert_close(found, run(), rtol=0, atol=1e-4)


def _batch(generator: torch.Generator, empty: int) -> dict[str, Any]:
    """Rows of any lengths, then empty ones; some predictions in each but the last."""
    lengths = torch.randint(4, 18, (6,), generator=generator)
    starts = torch.cat((torch.zeros(1, dtype=torch.long), lengths.cumsum(0)))
    pieces = torch.randint(0, 97, (int(starts[-1]),), generator=generator)
    packed = pack_rows(pieces.numpy(), torch.cat((lengths, lengths.new_zeros(empty))).numpy())
    predicted = torch.cat([starts[:5] + 1, starts[:3] + 2]).sort().values
    return {
        "batch": packed,
        "predicted_positions": predicted,
        "labels": torch.randint(0, 97, (8,), generator=generator),
        "next_sentence_labels": torch.randint(0, 2, (6 + empty,), generator=generator),
    }


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_segments_chosen_by_comparison_are_those_looked_up(
    shape: dict[str, Any], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BertConfig(**shape, type_vocab_size=rows, hidden_dropout_prob=0.0)
    part = layers.Embeddings(config)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter)
    ids = torch.arange(30) % 7, torch.arange(30) % rows, torch.arange(30)
    found = []
    for chosen in (False, True):
        monkeypatch.setattr(layers, "chooses_rows", lambda table, chosen=chosen: chosen)
        states = part(*ids)
        found.append(
            [states, *torch.autograd.grad(states.square().cumsum(1).sum(), [*part.parameters()])]
        )
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("on_gpu")
def test_narrow_states_train_towards_the_same_gradient(
    shape: dict[str, Any], packed: dict[str, Any]
) -> None:
    """The states between layers are in bfloat16, with a loss that differs by rounding alone."""
    config = BertConfig(**shape, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = BertForPreTraining(config, seed=3).train()
    seen: list[torch.dtype] = []
    model.encoder.layers[1].register_forward_hook(lambda _, given, made: seen.append(made.dtype))
    found = []
    for narrow in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            loss = model.pretraining_loss(**packed)
        total = loss.masked_lm_loss_sum + loss.next_sentence_loss_sum
        gradient = torch.autograd.grad(total, list(model.parameters()))
        found.append((total.item(), torch.cat([g.view(-1) for g in gradient])))
    assert seen == [torch.float32, torch.bfloat16]
    (exact, expected), (near, gradient) = found
    assert near == pytest.approx(exact, rel=0.02)
    assert (gradient - expected).norm() < 0.1 * expected.norm()


# PyTorch's compiler warns of its own insides.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("on_gpu")
def test_one_graph_serves_all_layers_and_all_batches(shape: dict[str, Any]) -> None:
    torch.compiler.reset()
    compiled: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    model = BertForPreTraining(BertConfig(**{**shape, "num_hidden_layers": 3})).train()
    generator = torch.Generator().manual_seed(3)
    losses = []
    for functions in (
        encoder.EAGER,
        [torch.compile(f, dynamic=True, fullgraph=True, backend=backend) for f in encoder.EAGER],
    ):
        model.encoder._compiled = encoder.Calls(*functions)
        generator.manual_seed(3)
        for step in range(20):
            model.set_dropout_seed(step)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = model.pretraining_loss(**_batch(generator, empty=step % 3))
            (found.masked_lm_loss_sum + found.next_sentence_loss_sum).backward()
        losses.append(found.masked_lm_loss_sum.item())
    assert len(compiled) == 3  # the embeddings, a layer, the last layer
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
