"""TSDAE: the same loss and gradients as transformers' decoder with the same weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zhbert.model.config import BertConfig
from zhbert.model.loading import UntrainedWeightsWarning
from zhbert.packing import pack_rows
from zhbert.sentences.denoising import DenoisingModel, damaged
from zhbert.sentences.model import SentenceModel

CONFIG = BertConfig(
    vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=32, initializer_range=0.2, max_position_embeddings=32,
)  # fmt: skip


def batch(lengths=(5, 9, 3), seed=0):
    ids = np.random.default_rng(seed).integers(5, 60, sum(lengths))
    return pack_rows(ids, np.array(lengths))


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    SentenceModel(CONFIG, seed=1).save_pretrained(folder)
    with pytest.warns(UntrainedWeightsWarning, match="no trained mask-filling head"):
        model = DenoisingModel.from_pretrained(folder, seed=3)
    with torch.no_grad():
        for parameter in (*model.decoder.parameters(), *model.mlm_head.parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model, folder


@pytest.fixture(scope="module")
def theirs(ours):
    from transformers import BertLMHeadModel

    model, folder = ours
    decoder = BertLMHeadModel.from_pretrained(folder, is_decoder=True, add_cross_attention=True)
    head, mine = decoder.cls.predictions, model.mlm_head
    pairs = [(head.transform.dense, mine.transform), (head.transform.LayerNorm, mine.norm)]
    for layer, own in zip(decoder.bert.encoder.layer, model.decoder, strict=True):
        cross = layer.crossattention
        pairs += [(cross.self.value, own.value), (cross.output.dense, own.output),
                  (cross.output.LayerNorm, own.norm)]  # fmt: skip
    for one, other in pairs:
        one.load_state_dict(other.state_dict())
    with torch.no_grad():
        head.bias.copy_(mine.bias)
    return decoder.eval()


def test_the_loss_and_its_gradients_equal_transformers(ours, theirs):
    model, _ = ours
    rows = batch()
    vectors = torch.randn(3, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = model.eval().restoring_loss(vectors, rows)
    words = model.encoder.embeddings.words.weight
    mine = torch.autograd.grad(loss, (vectors, words))

    ends = itertools.pairwise(rows.cu_seqlens.tolist())
    padded = torch.nn.utils.rnn.pad_sequence(
        [rows.input_ids[a:b] for a, b in ends], batch_first=True
    )
    logits = theirs(padded[:, :-1], encoder_hidden_states=vectors[:, None]).logits
    other = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), padded[:, 1:].flatten(), ignore_index=0, reduction="sum"
    )
    yours = torch.autograd.grad(other, (vectors, theirs.bert.embeddings.word_embeddings.weight))
    torch.testing.assert_close(loss, other)
    for one, two in zip(mine, yours, strict=True):
        torch.testing.assert_close(one[1:], two[1:], rtol=1e-4, atol=1e-4)


def test_the_decoder_is_not_saved(ours, tmp_path):
    model, folder = ours
    model.save_pretrained(tmp_path)
    names = [sorted(SentenceModel.from_pretrained(one).state_dict()) for one in (folder, tmp_path)]
    assert names[0] == names[1]


@given(st.lists(st.integers(2, 12), min_size=1, max_size=8), st.integers(0, 9))
def test_some_of_each_text_is_left(lengths, seed):
    whole = batch(lengths, seed)
    left = damaged(whole, np.random.default_rng(seed))
    bounds = zip(*(itertools.pairwise(one.cu_seqlens.tolist()) for one in (whole, left)),
                 strict=True)  # fmt: skip
    for (a, b), (c, d) in bounds:
        row, rest = whole.input_ids[a:b].tolist(), left.input_ids[c:d].tolist()
        assert (rest[0], rest[-1]) == (row[0], row[-1])
        assert len(rest) >= min(3, len(row))
        remaining = iter(row)
        assert all(piece in remaining for piece in rest)


def test_a_share_of_the_pieces_is_deleted():
    whole = batch([500] * 20)
    left = damaged(whole, np.random.default_rng(0))
    assert 0.38 < left.num_pieces / whole.num_pieces < 0.42
