"""Dropout by hash: the rate, independence, and nothing but the seed."""

import hashlib
import math
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from zhbert.model import encoder
from zhbert.model.config import BertConfig
from zhbert.model.dropout import dropout, dropout_keys, keep_mask
from zhbert.model.pretrained import BertForPreTraining

COUNT = 1 << 18


def _mask(seed: int, site: int = 0, rate: float = 0.1) -> torch.Tensor:
    return keep_mask(COUNT, rate, dropout_keys(seed, site + 1)[site])


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_the_share_dropped_is_the_rate(rate: float) -> None:
    for seed in range(8):
        share = 1 - _mask(seed, rate=rate).double().mean().item()
        assert abs(share - rate) < 5 * math.sqrt(rate * (1 - rate) / COUNT)


@pytest.mark.parametrize("size", [64, 128, 768])
def test_every_row_and_every_column_drops_at_the_rate(size: int) -> None:
    grid = ~_mask(3)[: COUNT // size * size].view(-1, size)
    for share, count in ((grid.double().mean(0), len(grid)), (grid.double().mean(1), size)):
        deviations = (share - 0.1) / math.sqrt(0.09 / count)
        assert deviations.abs().max() < 6.5
        assert 0.8 < deviations.std() < 1.2  # as spread as independent draws, not more even


@pytest.mark.parametrize(
    ("one", "other"),
    [((0, 0), (1, 0)), ((7, 0), (7, 1)), ((7, 2), (8, 1)), ((0, 0), (1 << 32, 0))],
)
def test_seeds_and_sites_are_independent(one: tuple[int, int], other: tuple[int, int]) -> None:
    both = ~_mask(*one) & ~_mask(*other)
    assert abs(both.double().mean().item() - 0.01) < 5 * math.sqrt(0.01 * 0.99 / COUNT)


@pytest.mark.parametrize("step", [1, 2, 64, 128, 768, 16384])
def test_neighbours_are_independent(step: int) -> None:
    dropped = ~_mask(11)
    both = dropped[step:] & dropped[:-step]
    assert abs(both.double().mean().item() - 0.01) < 5 * math.sqrt(0.01 * 0.99 / COUNT)


def test_two_seeds_are_no_shifted_copies() -> None:
    one, other = (~_mask(1))[:4096].float() - 0.1, (~_mask(2))[: 4096 * 4].float() - 0.1
    overlap = torch.nn.functional.conv1d(other.view(1, 1, -1), one.view(1, 1, -1)) / (0.09 * 4096)
    assert overlap.abs().max() < 0.12


def test_what_is_kept_is_scaled_so_that_the_mean_stays() -> None:
    x = torch.ones(COUNT, requires_grad=True)
    y = dropout(x, 0.1, dropout_keys(5, 1)[0])
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.9])
    assert y.mean().item() == pytest.approx(1, abs=0.005)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_the_mask_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = _mask(9)
    torch.rand(7)
    assert torch.equal(first, _mask(9))
    assert not torch.equal(first, _mask(10))


def test_forwards_of_one_seed_differ_and_repeat(config: BertConfig, batch: dict) -> None:
    model = BertForPreTraining(config).train()

    def run(count: int) -> list[torch.Tensor]:
        model.set_dropout_seed(4)
        return [model(**batch).prediction_logits for _ in range(count)]

    first, second = run(2)
    assert not torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip((first, second), run(2), strict=True))
    model.eval()
    assert torch.equal(*[model(**batch).prediction_logits for _ in range(2)])


def test_masks_are_what_they_have_always_been() -> None:
    masks = hashlib.sha256()
    for seed in range(64):
        for key in dropout_keys(seed * 0x9E3779B97F4A7C15, 3):
            masks.update(keep_mask(5000, 0.1, key).numpy().tobytes())
    assert masks.hexdigest().startswith("bfb7d9c761d485bd")


def test_no_number_known_at_compile_time_leaves_32_bits() -> None:
    """What is made of indices and constants alone a compiler computes itself, in wider numbers."""
    known: dict[Any, int] = {}  # of such a node: the greatest magnitude
    traced = make_fx(lambda key: keep_mask(1 << 22, 0.1, key))(torch.ones(2, dtype=torch.int32))
    for node in traced.graph.nodes:
        sizes = [known.get(x, x) for x in node.args]
        if "arange" in node.name:
            known[node] = node.args[0]
        elif node.op == "call_function" and all(isinstance(size, int) for size in sizes):
            known[node] = abs(math.prod(sizes) if "mul" in node.name else sum(map(abs, sizes)))
    assert known
    assert max(known.values()) < 1 << 31


# PyTorch's compiler warns of its own insides.
@pytest.mark.filterwarnings("ignore")
def test_one_compiled_function_serves_all_layers(
    shape: dict[str, Any], packed: dict[str, Any]
) -> None:
    torch.compiler.reset()
    compiled: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    model = BertForPreTraining(BertConfig(**{**shape, "num_hidden_layers": 5})).train()
    functions = [torch.compile(each, dynamic=True, backend=backend) for each in encoder.EAGER]
    model.encoder._compiled = encoder.Functions(*functions)
    for seed in range(2):
        model.set_dropout_seed(seed)
        model.pretraining_loss(**packed).masked_lm_loss_sum.backward()
    assert len(compiled) == 3  # the embeddings, a layer, the last layer
