"""Pooling over packed rows: the values and gradients of sentence-transformers over padded ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zhbert.sentences.pooling import POOLING_MODES, pool

WIDTH = 5


@pytest.fixture(scope="module")
def theirs():
    from sentence_transformers.sentence_transformer.modules import Pooling

    def pooled(hidden, lengths, modes, prompt_length):
        padded = torch.nn.utils.rnn.pad_sequence(hidden.split(lengths), batch_first=True)
        mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        features = {"token_embeddings": padded, "attention_mask": mask.long()}
        module = Pooling(WIDTH, modes, include_prompt=False)
        return module(features | {"prompt_length": prompt_length})["sentence_embedding"]

    return pooled


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    modes=st.lists(st.sampled_from(list(POOLING_MODES)), min_size=1, max_size=3),
    prompt_length=st.integers(0, 4),
)
@example([1, 2], list(POOLING_MODES), 3)
def test_values_and_gradients_equal_sentence_transformers(theirs, lengths, modes, prompt_length):
    generator = torch.Generator().manual_seed(sum(lengths))
    hidden = torch.randn(sum(lengths), WIDTH, generator=generator, requires_grad=True)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int()
    ours = pool(hidden, cu_seqlens, modes, prompt_length=prompt_length)
    yours = theirs(hidden, lengths, modes, prompt_length)
    torch.testing.assert_close(ours, yours)
    # The greatest of no pieces is -inf, and has no gradient.
    weights = torch.randn(ours.shape, generator=generator).where(ours.isfinite(), 0.0)
    found = [
        torch.autograd.grad((x.nan_to_num(neginf=0.0) * weights).sum(), hidden)
        for x in (ours, yours)
    ]
    torch.testing.assert_close(*found)


def test_pooling_is_in_float32():
    hidden = torch.ones(3, WIDTH, dtype=torch.bfloat16)
    assert pool(hidden, torch.tensor([0, 3]), ["mean"]).dtype == torch.float32
