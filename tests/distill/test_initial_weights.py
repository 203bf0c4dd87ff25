"""A student's first embeddings: the principal components of its teacher's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zhbert.distill.initial_weights import take_embeddings
from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining

COUNTS = np.arange(40)


def model(width, seed=0, **more):
    config = BertConfig(
        vocab_size=40, hidden_size=width, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=more.pop("positions", 16), **more,
    )  # fmt: skip
    return BertForPreTraining(config, seed=seed)


def test_embeddings_that_lie_in_few_dimensions_are_kept_whole():
    teacher, student = model(16), model(8)
    with torch.no_grad():
        inside = torch.linalg.qr(torch.randn(16, 8)).Q
        words = teacher.encoder.embeddings.words
        words.weight.copy_(words.weight @ inside @ inside.t())
        teacher.mlm_head.bias.normal_()
    assert take_embeddings(student, teacher, COUNTS) == pytest.approx(1.0)
    own, theirs = (one.encoder.embeddings.words.weight for one in (student, teacher))
    torch.testing.assert_close(own @ own.t(), theirs @ theirs.t())
    torch.testing.assert_close(student.mlm_head.bias, teacher.mlm_head.bias)


def test_positions_and_segments_are_mapped_to_the_same_axes():
    teacher, student = model(8, positions=12), model(8, seed=1, positions=16)
    before = student.encoder.embeddings.positions.weight.clone()
    take_embeddings(student, teacher, COUNTS)
    own, theirs = student.encoder.embeddings, teacher.encoder.embeddings
    # With as many axes as the teacher has, lengths and angles stay.
    torch.testing.assert_close(
        own.words.weight @ own.positions.weight[:12].t(),
        theirs.words.weight @ theirs.positions.weight.t(),
    )
    torch.testing.assert_close(
        own.words.weight @ own.token_types.weight.t(),
        theirs.words.weight @ theirs.token_types.weight.t(),
    )
    assert torch.equal(own.positions.weight[12:], before[12:])


def test_no_other_axes_keep_more_of_the_frequent_pieces():
    teacher, student = model(16, seed=2), model(4)
    share = take_embeddings(student, teacher, COUNTS)
    words = teacher.encoder.embeddings.words.weight.double()
    weights = torch.from_numpy(COUNTS + 1.0).sqrt()
    own = student.encoder.embeddings.words.weight.double()
    kept = (weights * own.square().sum(1)).sum() / (weights * words.square().sum(1)).sum()
    assert kept.item() == pytest.approx(share)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        axes = torch.linalg.qr(torch.randn(16, 4, generator=generator, dtype=torch.double)).Q
        other = (weights * (words @ axes).square().sum(1)).sum()
        assert other / (weights * words.square().sum(1)).sum() <= share


def test_a_narrower_teacher_is_refused():
    with pytest.raises(ZhbertError, match="the teacher is 8 wide and the student 16"):
        take_embeddings(model(16), model(8), COUNTS)
