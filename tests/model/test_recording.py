"""What is recorded inside a forward pass: the same tensors that the pass goes on with."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from zhbert.model.attention import QuerySubset, RowLayout
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining
from zhbert.model.recording import recording
from zhbert.packing import pack_rows

LENGTHS = torch.tensor([5, 9, 3]).numpy()
PIECES = torch.arange(17).numpy() % 11 + 1
PREDICTED = torch.tensor([2, 6, 7, 15])


@pytest.fixture
def model():
    config = BertConfig(
        vocab_size=12, hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=40, max_position_embeddings=16, initializer_range=0.3,
        # The last block's attention has other dropout if it computes all pieces.
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForPreTraining(config, seed=3)


@pytest.fixture
def batch():
    return pack_rows(PIECES, LENGTHS)


def states_for_heads(model, batch):
    model.set_dropout_seed(5)
    return model.states_for_heads(batch, PREDICTED, with_first=True)


@pytest.mark.parametrize("training", [True, False])
def test_recording_changes_nothing(model, batch, training):
    model.train(training)
    predicted, first = states_for_heads(model, batch)
    with recording(model.encoder, {0, 2, 3}, {1, 3}):
        recorded = states_for_heads(model, batch)
    torch.testing.assert_close(recorded[0], predicted)
    torch.testing.assert_close(recorded[1], first)
    assert model.encoder.recording is None


def test_states_and_queries_are_those_of_the_layers(model, batch):
    model.eval()
    with recording(model.encoder, {0, 1, 2, 3}, {2, 3}) as kept:
        predicted, _ = states_for_heads(model, batch)
    layout = RowLayout.of_batch(batch)
    embeddings = model.encoder.embeddings(batch.input_ids, batch.token_type_ids, batch.position_ids)
    torch.testing.assert_close(kept.states[0], embeddings)
    for number, block in enumerate(model.encoder.layers, start=1):
        before = kept.states[number - 1]
        torch.testing.assert_close(kept.states[number], block(before, layout))
        if number in (2, 3):
            qkv = functional.linear(before, block.attention.qkv.weight, block.attention.qkv.bias)
            torch.testing.assert_close(kept.qkv[number], qkv)
    torch.testing.assert_close(predicted, kept.states[3][PREDICTED])


def test_only_what_is_asked_for_is_kept(model, batch):
    with recording(model.encoder, {2}, {1}) as kept:
        states_for_heads(model, batch)
    assert (set(kept.states), set(kept.qkv)) == ({2}, {1})


def test_the_last_block_computes_only_what_the_head_needs_unless_its_states_are_kept(model, batch):
    computed = []
    last = model.encoder.layers[-1]
    last.register_forward_hook(lambda module, inputs, output: computed.append(len(output)))
    for hidden in ({1, 2}, {3}):
        with recording(model.encoder, hidden, {3}):
            states_for_heads(model, batch)
    subset = QuerySubset.of(RowLayout.of_batch(batch), PREDICTED, with_first=True)
    assert computed == [len(subset.positions), len(PIECES)]


def test_gradients_flow_through_what_is_kept(model, batch):
    model.eval()
    with recording(model.encoder, {2}, {2}) as kept:
        states_for_heads(model, batch)
    (kept.states[2].square().sum() + kept.qkv[2].square().sum()).backward()
    assert model.encoder.layers[0].attention.qkv.weight.grad.abs().sum() > 0
    # Nothing of the layer above took part.
    assert model.encoder.layers[2].attention.qkv.weight.grad is None


def test_a_recording_ends_with_an_error(model):
    with pytest.raises(ZeroDivisionError), recording(model.encoder, {1}):
        raise ZeroDivisionError
    assert model.encoder.recording is None


def test_padded_forwards_are_recorded_too(model):
    ids = torch.tensor([[2, 5, 6, 3]])
    with recording(model.encoder, {2}) as kept:
        alone = model.eval()(ids, output_hidden_states=True).hidden_states
        assert not kept.states
        model(ids)
    torch.testing.assert_close(kept.states[2], alone[2][0])
