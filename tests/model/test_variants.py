"""A new activation, norm or attention is a few lines outside of the package.

These are the examples of CONTRIBUTING.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zhbert import BertConfig, BertForPreTraining
from zhbert.errors import ZhbertError
from zhbert.model.activations import ACTIVATIONS
from zhbert.model.attention import QuerySubset, RowLayout, attend
from zhbert.model.dropout import DropoutKey
from zhbert.model.layers import Layers


def squared_relu(x: Tensor) -> Tensor:
    """Primer's activation: https://arxiv.org/abs/2109.08668."""
    return torch.relu(x).square()


def rms_norm(config: BertConfig) -> nn.Module:
    """LayerNorm without means and biases: https://arxiv.org/abs/1910.07467."""
    return nn.RMSNorm(config.hidden_size, eps=1e-6)


class RotaryAttention(nn.Module):
    """Self-attention that knows how far apart two pieces are: https://arxiv.org/abs/2104.09864."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.query = nn.Linear(hidden, hidden)
        self.key_value = nn.Linear(hidden, 2 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.heads, self.rate = config.num_attention_heads, config.attention_probs_dropout_prob
        size = hidden // self.heads
        frequencies = 10_000.0 ** (-torch.arange(0, size, 2) / size)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(
        self,
        own: Tensor,
        x: Tensor,
        layout: RowLayout,
        subset: QuerySubset | None = None,
        key: DropoutKey | None = None,
    ) -> Tensor:
        _, places = layout.places()
        own_places = places if subset is None else places[subset.positions]
        keys, values = self.key_value(x).chunk(2, dim=1)
        query, keys = self.rotated(self.query(own), own_places), self.rotated(keys, places)
        packed = torch.cat((keys, values), 1)
        return attend(query, packed, layout, subset, heads=self.heads, rate=self.rate, key=key)

    def rotated(self, x: Tensor, places: Tensor) -> Tensor:
        """Turn each pair of dimensions of every head by an angle that grows with the place."""
        angles = places[:, None, None] * self.frequencies
        one, other = x.view(len(x), self.heads, -1, 2).unbind(-1)
        turned = torch.stack(
            (one * angles.cos() - other * angles.sin(), one * angles.sin() + other * angles.cos()),
            dim=-1,
        )
        return turned.reshape(x.shape)


# -- the claims ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def activation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACTIVATIONS, "squared_relu", squared_relu)


VARIANTS: dict[str, tuple[dict[str, Any], Layers]] = {
    "activation": ({"hidden_act": "squared_relu"}, Layers()),
    "norm": ({}, Layers(norm=rms_norm)),
    "attention": ({}, Layers(attention=RotaryAttention)),
    "all": ({"hidden_act": "squared_relu"}, Layers(norm=rms_norm, attention=RotaryAttention)),
}
each = pytest.mark.parametrize("variant", VARIANTS)


def made(shape: dict[str, Any], variant: str) -> BertForPreTraining:
    changes, layers = VARIANTS[variant]
    return BertForPreTraining(BertConfig(**{**shape, **changes}), seed=1, layers=layers)


@each
def test_a_variant_trains(shape: dict[str, Any], packed: dict[str, Any], variant: str) -> None:
    model = made(shape, variant).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        model.set_dropout_seed(1)
        loss = model.pretraining_loss(**packed)
        (loss.masked_lm_loss_sum + loss.next_sentence_loss_sum).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.masked_lm_loss_sum.item())
    assert losses[2] < losses[0]


@each
def test_a_variant_is_another_function_than_bert(
    shape: dict[str, Any], packed: dict[str, Any], variant: str
) -> None:
    plain = BertForPreTraining(BertConfig(**shape), seed=1).eval()
    model = made(shape, variant).eval()
    with torch.no_grad():
        assert not torch.allclose(model.encoder(packed["batch"]), plain.encoder(packed["batch"]))


@each
def test_a_variant_predicts_some_pieces_as_it_predicts_all(
    shape: dict[str, Any], packed: dict[str, Any], variant: str
) -> None:
    model, batch = made(shape, variant).eval(), packed["batch"]
    layout = RowLayout.of_batch(batch)
    subset = QuerySubset.of(layout, packed["predicted_positions"], with_first=True)
    with torch.no_grad():
        some, every = model.encoder(batch, subset=subset), model.encoder(batch)
    torch.testing.assert_close(some, every[subset.positions], rtol=1e-5, atol=1e-5)


def test_rotary_attention_depends_on_distances_alone(shape: dict[str, Any]) -> None:
    attention = RotaryAttention(BertConfig(**shape))
    query, keys = torch.randn(2, 1, shape["hidden_size"])
    for place in (0, 5):
        here = attention.rotated(query, torch.tensor([place]))
        there = attention.rotated(keys, torch.tensor([place + 3]))
        product = (here * there).sum()
        if place == 0:
            expected = product
    torch.testing.assert_close(product, expected)


@pytest.mark.parametrize(
    ("variant", "part"),
    [
        ("activation", "hidden_act is squared_relu"),
        ("norm", r"encoder\.embeddings\.norm is a torch\..*RMSNorm"),
        ("attention", r"encoder\.layers\.0\.attention is a .*RotaryAttention"),
    ],
)
def test_what_transformers_cannot_hold_is_not_saved(
    shape: dict[str, Any], variant: str, part: str, tmp_path: Path
) -> None:
    with pytest.raises(ZhbertError, match=f"{part}, which transformers' BERT cannot hold"):
        made(shape, variant).save_pretrained(tmp_path)
    assert not any(tmp_path.iterdir())


def test_an_unknown_activation_is_refused_with_the_known_ones(shape: dict[str, Any]) -> None:
    with pytest.raises(ZhbertError, match="'swish' is not known; known: gelu, gelu_new, relu"):
        BertForPreTraining(BertConfig(**{**shape, "hidden_act": "swish"}))
