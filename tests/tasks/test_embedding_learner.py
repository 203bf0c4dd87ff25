"""The learner of vectors: what a batch compares, cached gradients, predictions, bad input."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.inference.run_model import run_model
from zhbert.model.config import BertConfig
from zhbert.sentences.losses import LOSSES, Ranking, Scored, Triplets
from zhbert.sentences.model import SentenceModel
from zhbert.sentences.pooling import POOLING_MODES
from zhbert.tasks.batches import BatchLimits
from zhbert.tasks.examples import EmbedExample
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.kinds.base import Learning
from zhbert.tasks.kinds.embed import METRICS_OF
from zhbert.tasks.learners.base import FineTuning
from zhbert.tasks.learners.embed import USUAL_LOSS, EmbedLearner
from zhbert.tasks.passages import with_passages
from zhbert.tasks.settings import CHOICES, FineTuningSettings, with_overrides
from zhbert.text.tokenizer import Tokenizer

OURS = Tokenizer.default()
WORDS = "北京天气很好我们学习中文今股票跌了"
LIMITS = BatchLimits(10**6, 0, 10**6)


def model(dropout=0.1):
    config = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        initializer_range=0.2, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    return SentenceModel(config).train()


def example(number, form="pairs", source="card"):
    rng = np.random.default_rng(number)
    count = {"pairs": 2, "scored": 2, "judged": 2, "triples": 4, "texts": 1}[form]
    texts = tuple("".join(rng.choice(list(WORDS), rng.integers(2, 12))) for _ in range(count))
    value = {"scored": number % 5 / 4, "judged": float(number % 2)}.get(form)
    return EmbedExample(str(number), texts, form, value, source)


def examples(count, form="pairs", source="card"):
    return [example(number, form, source) for number in range(count)]


def learner(**settings):
    return EmbedLearner(OURS, 32, **settings)


def gradients_of_a_step(learner, prepared, limits, dropout=0.1):
    """The loss and every gradient of one step as the loop computes it; how many batches it had."""
    objective, ours = FineTuning("embed", learner), model(dropout)
    batches = learner.batches(prepared).gather(np.arange(len(prepared.examples)), limits)
    with torch.no_grad():
        ready = objective.whole_step(ours, batches, 7)
    total = torch.zeros(1)
    for batch in ready:
        loss, _ = objective(ours, batch, 7)
        loss.sum().backward()
        total += loss.detach()
    count = sum(objective.counts(batch)[0] for batch in batches)
    found = {n: p.grad for n, p in ours.named_parameters() if p.grad is not None}
    return total / count, found, len(batches)


def assert_same_gradients(found, wanted):
    """Up to 1e-5 of the largest."""
    assert found.keys() == wanted.keys()
    largest = max(float(one.abs().max()) for one in wanted.values())
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-5 * largest)


# -- cached gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", METRICS_OF)
def test_cached_gradients_equal_those_of_one_batch(form):
    """With dropout, and for SimCSE with that of its own."""
    ours = learner()
    dropout = 0.0 if form == "texts" else 0.1
    prepared = ours.prepare(examples(12, form), training=True)
    loss, whole, count = gradients_of_a_step(ours, prepared, LIMITS, dropout)
    assert count == 1
    for limits in (BatchLimits(60, 0, 120), BatchLimits(60, 0, 0), BatchLimits(10**6, 3)):
        cached, found, count = gradients_of_a_step(ours, prepared, limits, dropout)
        assert count > 2
        torch.testing.assert_close(cached, loss, rtol=1e-5, atol=1e-6)
        assert_same_gradients(found, whole)


def test_rows_cut_into_small_parts_give_the_same_gradient_without_a_second_pass():
    ours = learner()
    prepared = ours.prepare(examples(12), training=True)
    _, whole, _ = gradients_of_a_step(ours, prepared, LIMITS)
    _, found, count = gradients_of_a_step(ours, prepared, BatchLimits(60, 0, 10**6))
    assert count == 1
    assert_same_gradients(found, whole)


def test_simcse_has_no_gradient_without_dropout_and_gets_some():
    prepared = learner().prepare(examples(6, "texts"), training=True)
    loss, found, _ = gradients_of_a_step(learner(), prepared, LIMITS, dropout=0.0)
    assert loss.item() > 0
    assert sum(float(one.abs().sum()) for one in found.values()) > 0


# -- what is compared ------------------------------------------------------------------------------


def batch_of(ours, some, limits=LIMITS):
    prepared = ours.prepare(some, training=True)
    return prepared, ours.batches(prepared).gather(np.arange(len(prepared.examples)), limits)


def texts_of(batches):
    """The text of each row of a step."""
    rows = []
    for part in itertools.chain.from_iterable(batch.parts for batch in batches):
        ids, ends = part.input_ids.numpy(), part.cu_seqlens.tolist()
        rows += [OURS.decode(ids[a + 1 : b - 1].tolist()) for a, b in itertools.pairwise(ends)]
    return rows


@given(st.integers(1, 30), st.sampled_from(("pairs", "scored", "triples")), st.integers(4, 80))
def test_a_batch_compares_the_texts_of_its_examples(count, form, tokens):
    ours = learner(loss_name="triplet" if form == "triples" else "auto")
    some = examples(count, form)
    if form == "scored" and count == 1:
        return
    _, batches = batch_of(ours, some, BatchLimits(tokens, 0, 2 * tokens))
    rows = texts_of(batches)
    assert len(set(rows)) == len(rows)
    compared = batches[0].compared
    if isinstance(compared, Scored):
        found = [*zip(compared.left, compared.right, compared.values.tolist(), strict=True)]
        wanted = [(*one.texts, one.value) for one in some]
    elif isinstance(compared, Triplets):
        found = [*zip(compared.anchors, compared.positives, compared.negatives, strict=True)]
        wanted = [(*one.texts[:2], other) for one in some for other in one.texts[2:]]
    else:
        found = [*zip(compared.anchors, compared.candidates[compared.positives], strict=True)]
        wanted = [one.texts for one in some]
    assert [tuple(rows[x] if isinstance(x, torch.Tensor) else x for x in one) for one in found] == [
        tuple(pytest.approx(x) if isinstance(x, float) else x for x in one) for one in wanted
    ]


def test_negatives_are_candidates_for_every_anchor():
    _, batches = batch_of(learner(), examples(4, "triples"))
    compared = batches[0].compared
    assert isinstance(compared, Ranking)
    assert len(compared.candidates) == 4 * 3


def test_simcse_finds_each_text_in_its_other_row():
    some = examples(4, "texts")
    _, batches = batch_of(learner(), some)
    compared, rows = batches[0].compared, texts_of(batches)
    assert [rows[row] for row in compared.anchors] == [one.texts[0] for one in some]
    others = compared.candidates[compared.positives]
    assert [rows[row] for row in others] == [one.texts[0] for one in some]
    assert not set(compared.anchors.tolist()) & set(others.tolist())


def test_tsdae_restores_each_text_from_a_part_of_it():
    ours, some = learner(loss_name="tsdae"), examples(6)
    prepared, batches = batch_of(ours, some, BatchLimits(40))
    assert len(batches) > 1
    whole = [row for batch in batches for row in texts_of([dataclasses.replace(
        batch, packed=batch.originals)])]  # fmt: skip
    assert sorted(whole) == sorted(text for one in some for text in one.texts)
    for batch in batches:
        assert batch.predictions == batch.originals.num_pieces - batch.originals.num_rows
    again = ours.batches(prepared).gather(np.arange(len(prepared.examples)), BatchLimits(40))
    for one, two in zip(batches, again, strict=True):
        assert torch.equal(one.packed.input_ids, two.packed.input_ids)


@pytest.mark.parametrize("loss", ["auto", "simcse", "tsdae"])
def test_the_rows_of_a_step_are_those_that_it_gathers(loss):
    ours = learner(loss_name=loss)
    prepared, batches = batch_of(ours, examples(9, "triples"))
    numbers = np.arange(len(prepared.examples))
    parts = ours.batches(prepared).parts_of(numbers, BatchLimits(60))
    rows = np.concatenate(parts)
    assert len(parts) > 1
    assert sum(part.num_rows for batch in batches for part in batch.parts) == len(rows)
    assert (np.diff(prepared.rows.lengths[rows]) >= 0).all()


# -- epochs ----------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 16))
def test_an_epoch_takes_every_example_once_each_batch_of_one_card(one, two, size):
    ours = learner()
    some = [*examples(one, "pairs", "a"), *examples(two, "texts", "b")]
    np.random.default_rng(0).shuffle(some)
    prepared = ours.prepare(some, training=True)
    batches = ours.batches(prepared)
    plan = batches.plan(size, 3, 1)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(prepared.examples)))
    assert len(plan) == batches.per_epoch(size)
    for chosen in plan:
        assert len(chosen) <= size
        assert len({prepared.examples[number].source for number in chosen}) == 1


def test_an_epoch_follows_from_seed_and_number_alone():
    ours = learner()
    batches = ours.batches(ours.prepare(examples(50), training=True))
    one, same, other, next_one = (
        np.concatenate(batches.plan(8, seed, epoch)).tolist()
        for seed, epoch in ((1, 0), (1, 0), (2, 0), (1, 1))
    )
    assert one == same
    assert one not in (other, next_one)


# -- predictions -----------------------------------------------------------------------------------


def test_predictions_are_cosines_of_the_two_texts():
    ours, some = learner(), examples(5, "scored")
    prepared = ours.prepare(some)
    vectors = np.random.default_rng(0).normal(size=(len(prepared.rows), 8)).astype(np.float32)
    rows = {text: row for row, text in enumerate(dict.fromkeys(t for e in some for t in e.texts))}
    for one, found in zip(some, ours.decode(prepared, vectors), strict=True):
        a, b = (vectors[rows[text]] for text in one.texts)
        assert found.value == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)


def test_the_nearest_passages_are_predicted_best_first():
    ours, net = learner(), model().eval()
    some = with_passages(examples(6), {"train": examples(9)[6:]})
    prepared = ours.prepare(some)
    passages = some[0].passages
    found = ours.decode(prepared, run_model(net, prepared.rows, ours.scores))
    every = ours.prepare([EmbedExample("0", (one.texts[0], text), "scored")
                          for one in some for text in passages.texts])  # fmt: skip
    cosines = ours.decode(every, run_model(net, every.rows, ours.scores))
    values = np.array([one.value for one in cosines]).reshape(len(some), -1)
    for row, one in zip(values, found, strict=True):
        assert sorted(one.value) == sorted(passages.ids)
        order = [passages.ids.index(id_) for id_ in one.value]
        assert (np.diff(row[order]) <= 2e-6).all()
        assert one.details["best"] == passages.texts[order[0]]


# -- hard negatives --------------------------------------------------------------------------------


def test_pairs_get_negatives_that_the_model_finds_near_their_anchors():
    ours = learner(hard_negatives=2)
    some = [*examples(20, "pairs", "a"), *examples(3, "texts", "b")]
    found, remarks = ours.completed(some, lambda: model().eval())
    assert len(found) == len(some)
    mined = [one for one in found if one.form == "triples"]
    assert mined
    positives = {one.texts[1] for one in some[:20]}
    for before, after in zip(some, found, strict=True):
        assert after.texts[: len(before.texts)] == before.texts
        assert {*after.texts[2:]} <= positives - {before.texts[0], before.texts[-1]}
        assert len(after.texts) <= 4
    count = sum(len(one.texts) - 2 for one in mined)
    assert remarks == [f"a: {count} hard negatives mined, for {len(mined)} of 20 pairs"]
    prepared = ours.prepare(found, training=True)
    assert [group.loss for group in prepared.places.groups] == ["multiple_negatives", "simcse"]


def test_what_all_vectors_share_does_not_hide_the_negatives():
    class Shifted(SentenceModel):
        def embed(self, batch, **options):
            return super().embed(batch, **options) + 30

    ours, some = learner(hard_negatives=2), examples(20)
    plain, shifted = model().eval(), Shifted(model().config).eval()
    assert torch.equal(plain.encoder.embeddings.words.weight,
                       shifted.encoder.embeddings.words.weight)  # fmt: skip
    assert ours.completed(some, lambda: shifted)[0] == ours.completed(some, lambda: plain)[0]


def test_only_pairs_that_mean_yes_get_negatives():
    ours = learner(hard_negatives=1, loss_name="multiple_negatives")
    some = examples(20, "judged")
    found, _ = ours.completed(some, lambda: model().eval())
    assert {one.form for before, one in zip(some, found, strict=True) if not before.value} == {
        "judged"
    }
    kept = ours.prepare(found, training=True)
    assert len(kept.examples) == 10
    assert [group.loss for group in kept.places.groups] == ["multiple_negatives"]
    assert max(len(one.texts) for one in kept.examples) == 3


def test_a_loss_that_ranks_nothing_gets_no_negatives():
    def opened():
        raise AssertionError("the model was opened")

    for name, form in (("auto", "scored"), ("simcse", "pairs"), ("tsdae", "pairs")):
        some = examples(3, form)
        found, (remark,) = learner(hard_negatives=1, loss_name=name).completed(some, opened)
        assert found == some
        assert "none mined" in remark


def test_nothing_is_mined_unless_asked_for():
    def opened():
        raise AssertionError("the model was opened")

    assert learner().completed(examples(3), opened) == (examples(3), [])


# -- settings and bad input ------------------------------------------------------------------------


def test_the_settings_name_every_loss_and_pooling():
    assert CHOICES["loss"] == ("auto", *LOSSES)
    assert CHOICES["pooling"] == ("auto", *POOLING_MODES)
    assert USUAL_LOSS.keys() == set(METRICS_OF)
    for form, loss in USUAL_LOSS.items():
        assert form in LOSSES[loss].forms


def test_settings_reach_the_loss():
    texts = ("loss=contrastive", "margin=0.7", "scale=5", "matryoshka=16+8", "pooling=cls")
    settings = with_overrides(FineTuningSettings(), texts)
    ours = KINDS["embed"].learner(Learning(None, OURS, settings, ()))
    assert (ours.loss_name, ours.pooling, ours.dimensions) == ("contrastive", "cls", (16, 8))
    assert dict(ours.parameters) == {"margin": 0.7, "scale": 5.0}
    prepared = ours.prepare(examples(6, "judged"), training=True)
    loss, _, _ = gradients_of_a_step(ours, prepared, LIMITS, dropout=0.0)
    plain = dataclasses.replace(ours, parameters={})
    assert loss != gradients_of_a_step(plain, prepared, LIMITS, dropout=0.0)[0]


@pytest.mark.parametrize(
    "text",
    ["loss=best", "pooling=average", "scale=0", "margin=-1", "matryoshka=64;32", "matryoshka=0",
     "hard_negatives=-1"],
)  # fmt: skip
def test_a_wrong_setting_is_refused(text):
    with pytest.raises(ZhbertError, match=text.partition("=")[0]):
        with_overrides(FineTuningSettings(), [text])


def test_a_loss_is_used_for_the_forms_that_it_takes():
    ours = learner(loss_name="triplet")
    some = [*examples(3, "triples", "a"), *examples(3, "scored", "b")]
    prepared = ours.prepare(some, training=True)
    assert [group.loss for group in prepared.places.groups] == ["triplet", "cosent"]
    with pytest.raises(ZhbertError, match=r"from triples, .* pairs; choose auto or m"):
        ours.prepare(examples(3), training=True)


def test_multiple_negatives_leave_out_pairs_that_mean_no():
    ours = learner(loss_name="multiple_negatives")
    prepared = ours.prepare(examples(6, "judged"), training=True)
    assert [one.value for one in prepared.examples] == [1.0] * 3
    assert prepared.remarks == (
        "card: 3 of 6 pairs mean no: multiple_negatives leaves them out",
        "card: 3 examples, learnt by multiple_negatives",
    )
    no = [one for one in examples(6, "judged") if not one.value]
    with pytest.raises(ZhbertError, match="card: no pair to train on means yes"):
        ours.prepare(no, training=True)


def test_pairs_of_one_value_teach_nothing():
    same = [dataclasses.replace(one, value=0.5) for one in examples(3, "scored")]
    with pytest.raises(ZhbertError, match=r"card: all 3 pairs .* the same value \(0.5\)"):
        learner().prepare(same, training=True)


@pytest.mark.parametrize(("place", "word"), [(0, "anchor"), (1, "positive")])
def test_a_text_as_its_own_negative_is_refused(place, word):
    one = example(3, "triples")
    bad = dataclasses.replace(one, texts=(*one.texts, one.texts[place]))
    with pytest.raises(ZhbertError, match=f"card: example 3: its negative is its own {word}"):
        learner().prepare([bad], training=True)


def test_more_dimensions_than_the_model_has_are_refused():
    with pytest.raises(ZhbertError, match=r"matryoshka: 32 dimensions: .* have 16"):
        learner(dimensions=(32, 8)).begin(model())
