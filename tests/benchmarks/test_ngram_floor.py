"""The n-gram floor: its counts are those of plain dictionaries, and it reads a language."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.benchmarks.scripts import script
from tests.small_corpora import cycles, make_corpus

from zhbert.data.shards import Corpus
from zhbert.text.tokenizer import Tokenizer

ngrams = script("ngram_floor")
BREAK = ngrams.BREAK

PIECES = st.integers(0, 4)
DOCUMENTS = st.lists(st.lists(PIECES, min_size=1, max_size=12), min_size=1, max_size=8)
SEEN = st.one_of(PIECES, st.just(BREAK))
WINDOWS = st.lists(st.tuples(*[SEEN] * 7), min_size=1, max_size=6)
WEIGHTS = st.builds(ngrams.Weights, st.sampled_from([0.5, 1.0]), st.sampled_from([0.5, 1.0, 4.0]))


def slow_followers(documents, pattern, context):
    """What stands in a context, counted place by place."""
    found = Counter()
    for document in documents:
        for place, piece in enumerate(document):
            around = [place + offset for offset in pattern]
            if min(around) >= 0 and max(around) < len(document):
                found[piece] += tuple(document[one] for one in around) == context
    return +found


def slow_mixed(documents, shorter, pattern, window, trust):
    context = tuple(window[3 + offset] for offset in pattern)
    found = {} if BREAK in context else slow_followers(documents, pattern, context)
    if not found:
        return shorter
    weight = trust * len(found)
    total = sum(found.values()) + weight
    return {y: (found.get(y, 0) + weight * p) / total for y, p in shorter.items()}


def slow_distribution(documents, window, weights):
    """The same model as the script's, with dictionaries."""
    counts = Counter(piece for document in documents for piece in document)
    frequency = {piece: count / counts.total() for piece, count in sorted(counts.items())}
    left, right = frequency, frequency
    for n in (1, 2, 3):
        left = slow_mixed(documents, left, tuple(range(-n, 0)), window, weights.trust)
        right = slow_mixed(documents, right, tuple(range(1, n + 1)), window, weights.trust)
    both = {y: (left[y] * right[y] / frequency[y]) ** weights.sharpness for y in frequency}
    both = {y: p / sum(both.values()) for y, p in both.items()}
    both = slow_mixed(documents, both, (-1, 1), window, weights.trust)
    wider = [
        slow_mixed(documents, both, pattern, window, weights.trust)
        for pattern in ((-2, -1, 1), (-1, 1, 2))
    ]
    return [(wider[0][y] + wider[1][y]) / 2 for y in frequency]


@given(DOCUMENTS, WINDOWS, WEIGHTS, st.integers(0, 7))
def test_the_distributions_are_those_of_dictionaries(documents, windows, weights, cut):
    texts = [
        np.array([piece for one in several for piece in (*one, BREAK)], dtype=np.uint16)
        for several in (documents[:cut], documents[cut:])
        if several
    ]
    masks = ngrams.Masks(np.array(windows, np.uint16), np.zeros(len(windows), np.int64))
    model = ngrams.NGrams(texts, masks)
    found = model.distribution(np.arange(len(masks)), weights)
    expected = [slow_distribution(documents, window, weights) for window in windows]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_a_shown_piece_is_taken_for_the_one_that_stood_there_if_it_fits():
    """2 follows 1 in nine of ten places, 3 in one, 4 never; it is the shown piece that decides."""
    text = np.array([1, 2] * 9 + [1, 3, BREAK, 4, BREAK], np.uint16)
    window = np.full((3, 7), BREAK, np.uint16)
    window[:, 2] = 1
    window[:, 3] = (BREAK, 3, 4)
    model = ngrams.NGrams([text], ngrams.Masks(window, np.array([2, 3, 2])))
    right = [
        ngrams.score(model, np.array([number]), ngrams.Weights(1.0, 0.01), 50.0).right
        for number in range(3)
    ]
    assert right == [1, 1, 1]


def test_hidden_documents_are_not_counted(tmp_path):
    shard = Corpus.open(make_corpus(tmp_path / "corpus")).shards("train")[0]
    hidden = np.arange(shard.documents) % 3 == 0
    text = ngrams.text_of(shard, hidden)
    kept = [shard.pieces[a:b] for a, b in zip(*ends(shard.document_starts, ~hidden), strict=True)]
    assert text[text != BREAK].tolist() == np.concatenate(kept).tolist()
    assert np.count_nonzero(text == BREAK) == len(text) - sum(map(len, kept))
    assert ngrams.text_of(shard, hidden & False).tolist().count(BREAK) == shard.documents


def ends(starts, chosen):
    return starts[:-1][chosen], starts[1:][chosen]


def test_every_tenth_document_is_set_aside(tmp_path):
    shards = Corpus.open(make_corpus(tmp_path / "corpus", train=35)).shards("train")
    (chosen,) = ngrams.set_aside(shards)
    assert np.flatnonzero(chosen).tolist() == [9, 19, 29]


def test_a_language_where_a_neighbour_tells_all_is_read(tmp_path, capsys, monkeypatch):
    """A mask between two masks and a random neighbour leave a few places in a hundred open."""
    folder = make_corpus(tmp_path / "corpus", train=200, held_out=40, documents=cycles)
    char, wwm, phrases = ngrams.floor(Corpus.open(folder), 1000)
    assert char["accuracy"] > 0.95 > 0.1 > char["baseline"]
    assert wwm["accuracy"] > 0.95
    assert (phrases["number"], phrases["accuracy"]) == (100, 0)  # its vocabulary lacks them
    monkeypatch.setattr(sys, "argv", ["ngram_floor.py", str(folder)])
    ngrams.main()
    assert f"{char['accuracy']:.2%}" in capsys.readouterr().out


def test_nothing_held_out_is_said(tmp_path, monkeypatch):
    folder = make_corpus(tmp_path / "corpus", held_out=0)
    monkeypatch.setattr(sys, "argv", ["ngram_floor.py", str(folder)])
    with pytest.raises(SystemExit, match="no held-out documents"):
        ngrams.main()


def test_the_set_phrases_are_asked_in_the_pieces_of_the_vocabulary():
    tokenizer = Tokenizer.default()
    texts = ngrams.phrases_of(tokenizer)
    named = "".join(tokenizer.vocabulary[answer] for text in texts for answer in text.answers)
    assert named == "".join(phrase.answer for phrase in ngrams.read_list())
    assert all(text.ids[text.masked].tolist() == [tokenizer.mask_id] for text in texts)
