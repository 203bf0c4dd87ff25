"""``zhbert similar-words``: words of the same topic, by counting or by given vectors."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from tests.small_corpora import PIECES, make_corpus

from zhbert.cli import main
from zhbert.data.similar_words import SimilarWords, read_similar_words
from zhbert.sentences import similar_words
from zhbert.sentences.similar_words import make_similar_words


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents that keep to one of ten topics, of four words of one and four of two pieces."""
    return make_corpus(tmp_path_factory.mktemp("similar") / "corpus", train=600)


def pairs_of(file: Path) -> list[list[str]]:
    return [line.split("\t")[:2] for line in file.read_text(encoding="utf-8").splitlines()[1:]]


def topic_of(word: str) -> int:
    return (PIECES.index(word.split()[0]) - 5) // 5


def test_similar_words_are_of_the_same_topic_and_length(corpus: Path, tmp_path: Path) -> None:
    made = make_similar_words(corpus, tmp_path / "a.tsv", most=3)
    pairs = pairs_of(made.out)
    assert len(pairs) == 3 * made.words == 3 * 80
    assert made.share == 1.0
    for word, other in pairs:
        assert word != other
        assert len(word.split()) == len(other.split())
    right = sum(topic_of(word) == topic_of(other) for word, other in pairs)
    assert right > 0.9 * len(pairs), right
    assert isinstance(read_similar_words(made.out, PIECES), SimilarWords)


def test_the_same_corpus_gives_the_same_bytes_whatever_is_read_at_a_time(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_similar_words(corpus, tmp_path / "a.tsv").out.read_bytes()
    assert make_similar_words(corpus, tmp_path / "b.tsv").out.read_bytes() == one
    # Words at the border of two parts are not counted as neighbours; all words are counted.
    monkeypatch.setattr(similar_words, "_CHUNK", 1000)
    parts = make_similar_words(corpus, tmp_path / "c.tsv").out
    assert [pair[0] for pair in pairs_of(parts)] == [
        pair[0] for pair in pairs_of(tmp_path / "a.tsv")
    ]


LINES = ["一 1 0 0", "丁 0.9 0.1 0", "丂 0 0 1", "一丁 0 1 0", "七丄 0 1 0.1", "ａｂ 1 1 1"]
BROKEN = ["七 1 nan 0", "unknown 1 0 -nan", "丅 1 0", "丆 1 x 0"]


@pytest.mark.parametrize("head", [[], ["11 3"], ["99 3"]])
@pytest.mark.parametrize("packed", [False, True])
def test_vectors_of_the_user_decide(
    corpus: Path, tmp_path: Path, head: list[str], packed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "\n".join(["", *head, *LINES[:2], *BROKEN, *LINES[2:], LINES[0].replace("1", "-1"), ""])
    file = tmp_path / ("vectors.txt" + ".gz" * packed)
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    out = tmp_path / "similar.tsv"
    arguments = ["similar-words", str(corpus), "--vectors", str(file), "--out", str(out)]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "4 broken lines left out" in shown.out
    promised = "its first line promises 99 words, 11 are there"
    assert (promised in shown.err) == (head == ["99 3"])
    # 丂 is like neither; the two words of two pieces are like each other.
    assert pairs_of(out) == [["一", "丁"], ["丁", "一"], ["一 丁", "七 丄"], ["七 丄", "一 丁"]]


MISTAKES = {
    "GBK": ("一 1 0\n丁 1 1\n".encode("gbk"), "not UTF-8"),
    "no words": (b"a 1 0\nb 1 1\n", "no vector of any word of the corpus"),
    "prose": ("春天来了。\n".encode(), "no vector of any word of the corpus"),
    "binary": (b"2 3\n" + bytes(500), "v.txt: "),
    "word2vec": (
        b"2 3\n"
        + b"".join(w.encode() + b" " + struct.pack("<3f", 1, 2, 3) + b"\n" for w in "一丁"),
        "v.txt: word2vec's binary format; save it as text",
    ),
    "cut off": (
        "9 3\n一 1 0 0\n".encode(),
        "v.txt: no similar words: it has vectors of only 1 word of the corpus; its first line "
        "promises 9 words, 1 is there",
    ),
}


@pytest.mark.parametrize(("content", "said"), MISTAKES.values(), ids=MISTAKES)
def test_vectors_that_cannot_be_read_are_one_line(
    corpus: Path, tmp_path: Path, content: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v.txt").write_bytes(content)
    arguments = ["--vectors", str(tmp_path / "v.txt"), "--out", str(tmp_path / "similar.tsv")]
    assert main(["similar-words", str(corpus), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["v.txt"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--most", "0"], "--most 0: must be 1 or more"),
        (["--min-frequency", "100000"], "no word occurs 100000 times"),
        (["--vectors", "nowhere"], "nowhere: no such file"),
    ],
)
def test_a_mistake_is_one_line(
    corpus: Path, tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["similar-words", str(corpus), "--out", str(tmp_path / "x.tsv"), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
