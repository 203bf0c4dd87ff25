"""Learners: rows and targets as transformers' scripts make them, decoding, bad input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import transformers
from hypothesis import example, given
from hypothesis import strategies as st

from zhbert.inference.run_model import run_model
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from zhbert.tasks.cards import load_card
from zhbert.tasks.examples import SpanExample, TagExample, TextExample
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.learners.span import SpanLearner, best_spans, best_threshold, windows
from zhbert.tasks.learners.tag import TagLearner
from zhbert.tasks.learners.texts import ClassifyLearner, RegressLearner
from zhbert.tasks.rows import gather
from zhbert.text.tokenizer import Tokenizer

OURS = Tokenizer.default()
TAGS = ("O", "B-LOC", "I-LOC")
CONFIG = BertConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
    initializer_range=0.2,
)  # fmt: skip


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    OURS.save_pretrained(folder)
    return transformers.BertTokenizerFast.from_pretrained(folder)


def question(context, answer="", start=None, asked="谁在北京？", kind="span", number="1"):
    start = context.find(answer) if start is None else start
    return SpanExample(number, asked, context, (answer,), (start,), kind)


# -- classify, regress ---------------------------------------------------------------------------


def test_labels_become_numbers_in_the_cards_order_and_come_back():
    learner = ClassifyLearner(OURS, ("neg", "pos"), 16)
    examples = [TextExample("0", "好", None, "pos"), TextExample("1", "差", "坏", "neg")]
    prepared = learner.prepare(examples, training=True)
    assert prepared.rows.targets.tolist() == [1, 0]
    found = learner.decode(prepared, np.array([[0.0, 1.0], [2.0, 0.0]], np.float32))
    assert [one.value for one in found] == ["pos", "neg"]
    assert found[0].details["probabilities"]["pos"] == pytest.approx(1 / (1 + math.exp(-1)), 1e-5)
    assert KINDS["classify"].each(None, examples, ["pos", "neg"]) == {"score": [1.0, 1.0]}


def test_numbers_are_learnt_between_0_and_1_and_said_in_the_files_scale():
    learner = RegressLearner(OURS, 0.0, 5.0, 16)
    examples = [TextExample("0", "好", "坏", "5", 5.0), TextExample("1", "好", "好", "2.5", 2.5)]
    prepared = learner.prepare(examples, training=True)
    assert prepared.rows.targets.tolist() == [1.0, 0.5]
    model = BertForSequenceClassification(CONFIG.with_labels(learner.labels)).eval()
    before = learner.decode(prepared, run_model(model, prepared.rows, learner.scores))
    learner.finish(model)
    # The scale is in the head now: what any program computes is the number itself.
    after = run_model(model, prepared.rows, learner.scores)[:, 0]
    assert after.tolist() == pytest.approx([one.value for one in before], abs=1e-5)


# -- tags ----------------------------------------------------------------------------------------


def test_first_pieces_get_the_tags_as_in_transformers(theirs):
    tokens = ("我", "在", "unbelievable", "\u200b", "北", "京", "20190620", "!")
    tags = ("O", "O", "B-LOC", "I-LOC", "B-LOC", "I-LOC", "O", "O")
    prepared = TagLearner(OURS, TAGS, 64).prepare([TagExample("0", tokens, tags)], training=True)
    expected = theirs(list(tokens), is_split_into_words=True)
    assert prepared.rows.row(0).tolist() == expected["input_ids"]
    labels, previous = [], None
    for word in expected.word_ids():
        labels.append(-100 if word in (None, previous) else TAGS.index(tags[word]))
        previous = word
    assert prepared.rows.targets.tolist() == labels


def test_a_token_without_pieces_is_outside():
    learner = TagLearner(OURS, TAGS, 16)
    examples = [TagExample("0", ("北", "\u200b", "京"))]
    prepared = learner.prepare(examples)
    scores = np.zeros((len(prepared.rows.ids), 3), np.float32)
    scores[:, 1] = 5
    assert learner.decode(prepared, scores)[0].value == ("B-LOC", "O", "B-LOC")


@given(st.lists(st.lists(st.sampled_from(["中", "cats", "a1b2", " "]), max_size=40), max_size=4))
def test_every_token_is_tagged_however_long_the_sentence(sentences):
    learner = TagLearner(OURS, TAGS, 8)
    examples = [TagExample(str(n), tuple(one)) for n, one in enumerate(sentences)]
    prepared = learner.prepare(examples)
    assert max(prepared.rows.lengths, default=0) <= 8
    # The scores name each piece's place: the tag of a token tells which piece decided it.
    nothing = np.zeros((len(prepared.rows.ids), 3), np.float32)
    for sentence, prediction in zip(examples, learner.decode(prepared, nothing), strict=True):
        assert len(prediction.value) == len(sentence.tokens)
    places = prepared.places
    there = [(n, t) for n, one in enumerate(sentences) for t, x in enumerate(one) if x.strip()]
    assert list(zip(places.sentences.tolist(), places.tokens.tolist(), strict=True)) == there
    firsts = {
        token: OURS.encode(token).ids[0] for one in sentences for token in one if token.strip()
    }
    assert [firsts[sentences[n][t]] for n, t in there] == prepared.rows.ids[places.pieces].tolist()


def test_entities_are_named_with_their_text():
    learner = TagLearner(OURS, TAGS, 16)
    one = TagExample("0", ("在", "北", "京"), ("O", "B-LOC", "I-LOC"))
    prepared = learner.prepare([one])
    scores = np.zeros((5, 3), np.float32)
    scores[[1, 2, 3], [0, 1, 2]] = 3
    (found,) = learner.decode(prepared, scores)
    assert found.details["entities"] == [{"type": "LOC", "start": 1, "end": 3, "text": "北京"}]
    card = load_card("ner_peopledaily")
    assert KINDS["tag"].each(card, [one], [found.value]) == {"score": [1.0]}
    assert KINDS["tag"].each(card, [one], [("O", "O", "O")]) == {"score": [0.0]}


# -- spans: rows ---------------------------------------------------------------------------------


def features_of_run_qa(tokenizer, one, length, stride):
    """Rows and targets, step by step as transformers' run_qa.py prepares them."""
    encoded = tokenizer(
        one.question, one.context, truncation="only_second", max_length=length, stride=stride,
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    targets = []
    for number, offsets in enumerate(encoded["offset_mapping"]):
        sequence = encoded.sequence_ids(number)
        first = sequence.index(1) if 1 in sequence else None
        if one.training_span is None or first is None:
            targets.append((0, 0))
            continue
        last = len(sequence) - 1 - sequence[::-1].index(1)
        start, end = one.training_span
        if not (offsets[first][0] <= start and offsets[last][1] >= end):
            targets.append((0, 0))
            continue
        while first < len(offsets) and offsets[first][0] <= start and sequence[first] == 1:
            first += 1
        while offsets[last][1] >= end and sequence[last] == 1:
            last -= 1
        targets.append((first - 1, last + 1))
    return encoded["input_ids"], targets


@given(st.data())
def test_windows_and_targets_are_those_of_run_qa(theirs, data):
    context = data.draw(st.text(alphabet="在北京有cat s12，。", min_size=1, max_size=80))
    length = data.draw(st.integers(24, 50))
    stride = data.draw(st.integers(1, 8))
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, len(context)))
    one = question(context, context[start:end], start)
    learner = SpanLearner(OURS, length, stride)
    prepared = learner.prepare([one], training=True)
    rows, targets = features_of_run_qa(theirs, one, length, stride)
    assert [prepared.rows.row(n).tolist() for n in range(len(prepared.rows))] == rows
    if not context[start:end].isspace():
        assert [tuple(t) for t in prepared.rows.targets.tolist()] == targets


def test_windows_on_real_questions_are_those_of_run_qa(theirs, data):
    from zhbert.tasks.cards import load_card
    from zhbert.tasks.read import read_examples

    examples = read_examples(load_card("cmrc2018"), data / "tasks" / "cmrc2018", "dev")[:200]
    prepared = SpanLearner(OURS, 384, 128).prepare(examples, training=True)
    rows, targets = [], []
    for one in examples:
        more_rows, more_targets = features_of_run_qa(theirs, one, 384, 128)
        rows += more_rows
        targets += more_targets
    assert [prepared.rows.row(n).tolist() for n in range(len(prepared.rows))] == rows
    assert [tuple(t) for t in prepared.rows.targets.tolist()] == targets


@given(st.integers(0, 300), st.integers(1, 60), st.integers(1, 80))
def test_windows_cover_the_whole_context(pieces, room, stride):
    found = windows(pieces, room, stride)
    assert found[0][0] == 0
    assert found[-1][1] == pieces
    assert all(end - begin <= room for begin, end in found)
    assert all(b[0] <= a[1] for a, b in itertools.pairwise(found))


def test_a_question_longer_than_the_row_is_cut_with_a_remark():
    prepared = SpanLearner(OURS, 20).prepare(
        [question("我在北京。", "北京", asked="谁" * 100)], training=True
    )
    assert max(prepared.rows.lengths) <= 20
    assert prepared.rows.targets.max() > 0
    assert "1 of 1 questions are longer than 8 pieces" in prepared.remarks[0]


def test_questions_whose_answer_is_nowhere_are_not_learnt_from():
    lost = question("我在北京。", "上海", -1)
    learner = SpanLearner(OURS, 32)
    assert len(learner.prepare([lost, question("我在北京。", "北京")], training=True).rows) == 1
    assert len(learner.prepare([lost]).rows) == 1


def test_a_text_of_100_000_characters_is_read_in_windows():
    context = "北" * 60_000 + "京" + "南" * 40_000
    prepared = SpanLearner(OURS, 512, 128).prepare([question(context, "京")], training=True)
    assert int((prepared.rows.targets[:, 0] > 0).sum()) >= 1
    assert max(prepared.rows.lengths) == 512


# -- spans: decoding -----------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_best_span_is_the_best_of_all(size, most, seed):
    window = np.random.default_rng(seed).normal(size=(size, 2)).astype(np.float32)
    every = [
        (float(window[a, 0] + window[b, 1]), a, b)
        for a in range(size)
        for b in range(a, min(size, a + most))
    ]
    found = best_spans(window, size, most)
    assert sorted(found) == sorted(every, reverse=True)[: len(found)][::-1]
    assert len(found) == min(size, len(every))


def scores_for(prepared, *peaks, low=-5.0):
    """Scores of all pieces, low but at (row, place in the row): start and end there."""
    scores = np.full((len(prepared.rows.ids), 2), low, np.float32)
    for row, start, end, value in peaks:
        scores[prepared.rows.cu_seqlens[row] + start, 0] = value
        scores[prepared.rows.cu_seqlens[row] + end, 1] = value
    return scores


def test_the_answer_is_the_best_over_all_windows():
    context = "甲乙丙丁" * 10 + "我在北京"
    learner = SpanLearner(OURS, 24, 4)
    prepared = learner.prepare([question(context, "北京")], training=True)
    last = len(prepared.rows) - 1
    start, end = prepared.rows.targets[last].tolist()
    (found,) = learner.decode(
        prepared, scores_for(prepared, (0, 9, 9, 1.0), (last, start, end, 2.0))
    )
    assert found.value == "北京"
    assert found.details["start"] == context.index("北京")


def test_no_answer_is_as_likely_as_in_the_window_that_likes_it_least():
    learner = SpanLearner(OURS, 24, 4, no_answer=True)
    prepared = learner.prepare([question("甲乙丙丁" * 12)])
    assert len(prepared.rows) > 2
    scores = scores_for(prepared, (1, 9, 9, 1.0))
    starts = prepared.rows.cu_seqlens[:-1]
    scores[starts] = 4.0
    scores[starts[1]] = 0.5
    (found,) = learner.decode(prepared, scores)
    assert found.details["null_odds"] == pytest.approx(1.0 - 2.0)
    assert found.value


def test_an_answer_lies_in_the_context_and_is_not_too_long():
    learner = SpanLearner(OURS, 32, max_answer_length=2)
    prepared = learner.prepare([question("甲乙丙丁", asked="我？")])
    # [CLS] 我 ？ [SEP] 甲 乙 丙 丁 [SEP]: the question and the last [SEP] score high, in vain.
    scores = scores_for(prepared, (0, 1, 8, 9.0), (0, 5, 5, 3.0))
    scores[7, 1] = 4.0
    (found,) = learner.decode(prepared, scores)
    assert found.value == "乙"


def test_judgements_are_spans_before_the_context():
    learner = SpanLearner(OURS, 32, scorer="cjrc", yes_no=True, no_answer=True)
    examples = [
        question("他在北京。", "YES", -1, kind="yes", number="1"),
        question("他在北京。", "NO", -1, kind="no", number="2"),
        question("他在北京。", "", -1, kind="none", number="3"),
        question("他在北京。", "北京", kind="span", number="4"),
    ]
    prepared = learner.prepare(examples, training=True)
    row = OURS.decode(prepared.rows.row(0))
    assert row.endswith("[SEP]是否他在北京。[SEP]")
    targets = prepared.rows.targets.tolist()
    assert targets == [[7, 7], [8, 8], [0, 0], [11, 12]]
    scores = scores_for(prepared, *((n, a, b, 4.0) for n, (a, b) in enumerate(targets)))
    found = learner.decode(prepared, scores)
    assert [one.value for one in found] == ["YES", "NO", "", "北京"]
    values = [one.value for one in found]
    assert KINDS["span"].each(load_card("cmrc2018"), examples, values)["em"] == [1.0] * 4
    # A span that begins at 是 and ends in the text is none.
    (mixed, *_) = learner.decode(prepared, scores_for(prepared, (0, 7, 12, 1.0)))
    assert mixed.value not in ("是否他在北京", "是")


def test_the_threshold_for_no_answer_is_the_best_on_dev():
    learner = SpanLearner(OURS, 32, scorer="squad2.0", no_answer=True)
    examples = [
        question("他在北京。", "北京", number="1"),
        SpanExample("2", "谁？", "他在北京。", (), (), "none"),
        question("他在北京。", "北京", number="3"),
    ]
    prepared = learner.prepare(examples)
    start = learner.prepare(examples[:1], training=True).rows.targets[0].tolist()
    other = learner.prepare([question("他在北京。", "北京", asked="谁？")], training=True)
    second = other.rows.targets[0].tolist()
    scores = scores_for(prepared, (0, *start, 1.0), (1, *second, 1.0), (2, *start, 1.0))
    for row, null in enumerate((2.0, 5.0, 3.0)):
        scores[prepared.rows.cu_seqlens[row]] = null / 2
    plain = learner.decode(prepared, scores)
    assert [one.value for one in plain] == ["北京", "", ""]
    tuned = learner.tuned(prepared, scores)
    assert 1.0 < tuned.null_threshold < 3.0
    assert [one.value for one in tuned.decode(prepared, scores)] == ["北京", "", "北京"]
    assert tuned.saved()["null_threshold"] == tuned.null_threshold


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.booleans()), min_size=1))
# Of equal odds all are answered or none: the best part of them is no choice.
@example([(0, True, False), (0, False, True), (0, False, True)])
def test_no_threshold_is_better_than_the_chosen_one(questions):
    odds, answered, unanswered = (np.array(x, np.float64) for x in zip(*questions, strict=True))

    def total(threshold):
        return np.where(odds > threshold, unanswered, answered).sum()

    chosen = total(best_threshold(odds, answered, unanswered))
    assert chosen == max(map(total, np.arange(-4.5, 4.5, 0.5)))


# -- losses, and what is computed ----------------------------------------------------------------


def test_the_loss_of_spans_is_that_of_each_row_by_itself():
    learner = SpanLearner(OURS, 24, 4)
    prepared = learner.prepare([question("我在北京" * 12, "北京")], training=True)
    model = BertForQuestionAnswering(CONFIG).eval()
    batch = gather(prepared.rows, np.arange(len(prepared.rows)))
    with torch.no_grad():
        loss = float(learner.loss(model, batch))
        expected = 0.0
        for number in range(len(prepared.rows)):
            row = torch.tensor(prepared.rows.row(number)[None].astype(np.int64))
            types = torch.arange(row.shape[1])[None] >= int(prepared.rows.second[number])
            output = model(row, token_type_ids=types.long())
            for logits, target in zip(
                (output.start_logits, output.end_logits),
                prepared.rows.targets[number],
                strict=True,
            ):
                expected -= float(logits[0].log_softmax(-1)[target]) / 2
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("learner", "model", "examples"),
    [
        (
            ClassifyLearner(OURS, ("a", "b"), 32),
            BertForSequenceClassification(CONFIG),
            [TextExample(str(n), "好" * (1 + n % 7)) for n in range(80)],
        ),
        (
            TagLearner(OURS, TAGS, 32),
            BertForTokenClassification(CONFIG.with_labels(TAGS)),
            [TagExample(str(n), ("好",) * (1 + n % 7)) for n in range(80)],
        ),
    ],
)
def test_what_a_row_is_batched_with_changes_rounding_only(learner, model, examples):
    together = learner.prepare(examples)
    scores = run_model(model, together.rows, learner.scores)
    starts = (
        together.rows.cu_seqlens if len(scores) > len(examples) else np.arange(len(examples) + 1)
    )
    for number in (0, 6, 33, 79):
        alone = run_model(model, learner.prepare([examples[number]]).rows, learner.scores)
        mine = scores[starts[number] : starts[number + 1]]
        np.testing.assert_allclose(mine, alone, atol=1e-5)
