"""Masked sentences out of the held-out part of a corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from zhbert.data.cloze import held_out_clozes
from zhbert.data.prepare import prepare
from zhbert.data.shards import Corpus

LINE = "第{}天，孩子们在河边看见一只白色的大鸟。abc\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("cloze")
    text = folder / "text.txt"
    text.write_text("".join(LINE.format(i) for i in range(60)), encoding="utf-8")
    prepare([text], folder / "corpus", documents="line", held_out=0.2)
    return Corpus.open(folder / "corpus")


def test_a_cloze_is_a_held_out_sentence_with_one_word_masked(corpus: Corpus) -> None:
    clozes = held_out_clozes(corpus, 5)
    assert len(set(clozes)) == 5
    sentences = {LINE.format(i).split("abc")[0] for i in range(60)}
    for cloze in clozes:
        masks = "[MASK]" * len(cloze.answer)
        assert cloze.text.replace(masks, cloze.answer) in sentences
        assert all("\u4e00" <= character <= "\u9fff" for character in cloze.answer)
    assert clozes == held_out_clozes(corpus, 5)


def test_there_are_no_more_clozes_than_sentences(corpus: Corpus, tmp_path: Path) -> None:
    assert len(held_out_clozes(corpus, 500)) == corpus.info["totals"]["held_out"]["documents"]
