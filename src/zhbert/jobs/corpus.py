"""Statistics of a corpus folder, and a few of its documents as a person would read them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zhbert import console
from zhbert.data.shards import SPLITS, Corpus, Shard
from zhbert.errors import ZhbertError
from zhbert.files import refused
from zhbert.text.words import AlignmentReport
from zhbert.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

# The pieces in use are counted over this many at most: a second's work.
_COUNTED = 100_000_000
_SENTENCES_SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``zhbert corpus``."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="what 'zhbert prepare' made")
    parser.add_argument("--rows", type=int, default=3, help="how many documents to show (3)")
    parser.add_argument("--split", choices=SPLITS, default="train", help="whose (default: train)")
    parser.add_argument("--verify", action="store_true", help="compare every shard's checksum")


def run(args: argparse.Namespace) -> int:
    """Print the statistics and some documents."""
    if args.rows < 0:
        raise ZhbertError(f"--rows {args.rows}: a number from 0 on is expected")
    corpus = Corpus.open(args.folder)
    if args.verify:
        corpus.verify()
    # First, since it compares the vocabulary's size, by which pieces are counted.
    documents = sample_documents(corpus, args.split, args.rows)
    report = describe_corpus(corpus) | {"verified": args.verify, "documents": documents}
    if args.json:
        console.print_json(report)
        return 0
    described = corpus.folder / "corpus.json"
    with refused(described, "what prepare wrote", hint="; prepare the corpus again"):
        table, lines = _figures(corpus, report)
    if args.verify:
        lines.append("checksums: as they were written")
    out = console.out()
    out.print(table)
    out.print("\n".join(lines))
    for document in report["documents"]:
        sentences = document["text"]
        out.print(
            f"\n{args.split.replace('_', ' ')} document {document['number']:,}: "
            f"{counted(document['sentences'], 'sentence')}, "
            f"{counted(document['pieces'], 'piece')}",
        )
        for sentence in sentences:
            out.print(f"  {sentence}")
        if len(sentences) < document["sentences"]:
            out.print(f"  … {document['sentences'] - len(sentences):,} more")
    return 0


def _figures(corpus: Corpus, report: dict[str, Any]) -> tuple[Table, list[str]]:
    """The table of both splits, and the lines under it."""
    table = console.table(str(corpus.folder), *(f">{split.replace('_', ' ')}" for split in SPLITS))
    for name in ("documents", "lines", "sentences", "words", "pieces"):
        table.add_row(name, *(f"{report['totals'][split][name]:,}" for split in SPLITS))
    table.add_row("shards", *(f"{len(corpus.info['shards'][split]):,}" for split in SPLITS))
    return table, [
        "",
        AlignmentReport.from_dict(report["alignment"]).describe(),
        f"pieces of the vocabulary in use: {report['pieces_in_use']:,} of "
        f"{corpus.vocabulary_size:,}"
        + (
            f" (among {report['pieces_counted']:,} pieces)"
            if report["pieces_counted"] < sum(report["totals"][s]["pieces"] for s in SPLITS)
            else ""
        ),
        f"segmenter: {report['segmenter']['name']} {report['segmenter']['version']}",
    ]


def describe_corpus(corpus: Corpus) -> dict[str, Any]:
    """What corpus.json says, and how many pieces of the vocabulary occur."""
    counts = np.zeros(corpus.vocabulary_size, np.int64)
    counted = 0
    for split in SPLITS:
        for shard in corpus.shards(split):
            if counted >= _COUNTED:
                break
            counts += np.bincount(shard.pieces, minlength=corpus.vocabulary_size)
            counted += len(shard.pieces)
    info = {key: value for key, value in corpus.info.items() if key != "shards"}
    return info | {"pieces_in_use": int(np.count_nonzero(counts)), "pieces_counted": counted}


def sample_documents(corpus: Corpus, split: str, rows: int) -> list[dict[str, Any]]:
    """Some documents, evenly spread over the split, with blanks between words."""
    shards = corpus.shards(split)
    firsts = np.cumsum([0] + [shard.documents for shard in shards])
    total = int(firsts[-1])
    vocabulary = corpus.tokenizer().vocabulary
    documents = []
    for row in range(min(rows, total)):
        number = row * total // min(rows, total)
        place = int(np.searchsorted(firsts, number, "right")) - 1
        documents.append(
            {"number": number}
            | _read_document(shards[place], number - int(firsts[place]), vocabulary)
        )
    return documents


def _read_document(shard: Shard, number: int, vocabulary: Sequence[str]) -> dict[str, Any]:
    begin, end = shard.document_starts[number : number + 2].tolist()
    sentences = shard.sentence_starts()
    sentences = sentences[(sentences >= begin) & (sentences < end)]
    starts = shard.word_starts()
    shown = []
    for first, last in pairwise([*sentences[: _SENTENCES_SHOWN + 1].tolist(), end]):
        pieces = [vocabulary[piece] for piece in shard.pieces[first:last].tolist()]
        text = ""
        for piece, starts_word in zip(pieces, starts[first:last].tolist(), strict=True):
            plain = piece[2:] if piece.startswith("##") and len(piece) > 2 else piece
            text += (" " if starts_word and text else "") + plain
        shown.append(text)
    return {
        "sentences": len(sentences),
        "pieces": end - begin,
        "text": shown[:_SENTENCES_SHOWN],
    }
