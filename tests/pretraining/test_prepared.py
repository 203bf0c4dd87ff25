"""Micro-batches as a GPU gets them: of few shapes, with all that is drawn on the host."""

from __future__ import annotations

import random
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tests.data import reference_rows
from tests.pretraining.test_pretrain import evaluations_of, steps_of
from tests.pretraining_loaders import loader_over
from tests.small_corpora import MUON, TINY

from zhbert.data.loader import MaskedBatch
from zhbert.model.config import BertConfig
from zhbert.model.loss import CandidateSampler
from zhbert.model.pretrained import BertForPreTraining
from zhbert.pretraining import training
from zhbert.pretraining.fixed_shapes import with_fixed_shape
from zhbert.pretraining.objective import PretrainingObjective
from zhbert.pretraining.run import pretrain

PAD = 5


@pytest.fixture(scope="module", params=["pairs", "full-sentences"])
def batches(request) -> list[MaskedBatch]:
    """200 micro-batches of 32 rows of up to 128 pieces."""
    shard = reference_rows.MemoryShard(reference_rows.random_documents(400, random.Random(1)))
    marks = ["[CLS]", "[SEP]", "[MASK]", "[UNK]", "[unused1]", "[PAD]"]
    vocabulary = [*marks, *(f"p{i}" for i in range(int(shard.pieces.max()) + 1 - len(marks)))]
    loader = loader_over(
        [shard], vocabulary, builder=request.param, sequence_length=128, batch_size=32
    )
    return [loader.step(step)[0] for step in range(200)]


def test_200_batches_have_few_shapes_and_little_padding(batches):
    shapes, own, total = set(), 0, 0
    for batch in batches:
        fixed = with_fixed_shape(batch, PAD)
        shapes.add((fixed.packed.num_pieces, fixed.packed.num_rows, len(fixed.labels)))
        own, total = own + batch.packed.num_pieces, total + fixed.packed.num_pieces
    assert len(shapes) <= 5
    assert own / total > 0.9


@pytest.mark.parametrize("number", [0, 1, 199])
def test_the_batch_s_own_rows_stay_and_what_is_appended_has_no_weight(batches, number):
    batch = batches[number]
    fixed = with_fixed_shape(batch, PAD)
    packed, rows = fixed.packed, batch.packed.num_rows
    pieces, predictions = batch.packed.num_pieces, len(batch.labels)
    for name in ("input_ids", "token_type_ids", "position_ids"):
        assert torch.equal(getattr(packed, name)[:pieces], getattr(batch.packed, name))
    assert torch.equal(packed.cu_seqlens[: rows + 1], batch.packed.cu_seqlens)
    assert set(packed.input_ids[pieces:].tolist()) == {PAD}
    lengths = packed.cu_seqlens.diff()
    assert int(lengths.min()) > 0
    assert int(lengths.max()) <= packed.max_length
    assert int(packed.position_ids.max()) < 128
    assert int(packed.cu_seqlens[-1]) == packed.num_pieces
    assert torch.equal(fixed.labels[:predictions], batch.labels)
    assert set(fixed.labels[predictions:].tolist()) <= {-100}
    places = fixed.predicted_positions
    assert bool((places.diff() > 0).all())
    assert bool((places[predictions:] >= pieces).all())
    assert not set(places.tolist()) & set(packed.cu_seqlens.tolist())
    pairs = fixed.next_sentence_labels
    assert pairs is None or set(pairs[rows:].tolist()) == {-100}


@pytest.mark.parametrize("sampled", [False, True])
def test_losses_and_gradients_are_those_of_the_batch_itself(batches, sampled):
    batch = batches[0]
    config = BertConfig(
        vocab_size=int(batch.packed.input_ids.max()) + 9, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=32, pad_token_id=PAD,
    )  # fmt: skip
    model = BertForPreTraining(config).train()
    sampler = None
    if sampled:
        counts = torch.arange(config.vocab_size).numpy()
        sampler = CandidateSampler(counts, 50, 40)
    objective = PretrainingObjective(sampler)

    def results(given):
        model.zero_grad()
        sums, correct = objective(model, given, 3)
        sums.sum().backward()
        found = [p.grad.to_dense() for p in model.parameters() if p.grad is not None]
        return [sums.detach(), correct, *found]

    fixed = objective.prepared(model, batch, 3)
    assert objective.counts(fixed)[0] > objective.counts(batch)[0]
    for mine, theirs in zip(results(batch), results(fixed), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-4)


def by_calls(setup):
    """Record on the CPU: a recording is the call itself."""
    return lambda call: call


@pytest.mark.parametrize("settings", [["optimizer.name=lamb", "rows.builder=pairs"], MUON])
def test_a_run_of_recorded_steps_is_the_usual_run_and_resumes_to_the_bit(
    corpus, tmp_path, monkeypatch, settings
):
    overrides = [*TINY, "steps=8", "checkpoint_every=3", "micro_batch_size=3", *settings]
    overrides += ["rows.warmup_share=0.5", "rows.warmup_length=16"]
    pretrain("tiny", corpus, tmp_path / "usual", overrides)
    monkeypatch.setattr(training, "_recorder", by_calls)
    pretrain("tiny", corpus, tmp_path / "whole", overrides)
    for usual, recorded in zip(
        steps_of(tmp_path / "usual"), steps_of(tmp_path / "whole"), strict=True
    ):
        for name in ("loss", "grad_norm", "pieces", "learning_rate"):
            assert recorded[name] == pytest.approx(usual[name], rel=1e-4)
    run = tmp_path / "run"
    shutil.copytree(tmp_path / "whole", run)
    for lost in (run / "checkpoints" / "step-000008", run / "final"):
        shutil.rmtree(lost)
    pretrain("tiny", corpus, run, overrides, resume=True)
    finals = [load_file(one / "final" / "model.safetensors") for one in (run, tmp_path / "whole")]
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[1])
    assert evaluations_of(run) == evaluations_of(tmp_path / "whole")
