"""A file of pairs to a file of triples: each pair with hard negatives from a corpus."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from zhbert.errors import ZhbertError
from zhbert.files import to_json, write_text
from zhbert.folders import check_file
from zhbert.retrieval.embed import Progress
from zhbert.retrieval.texts import read_texts
from zhbert.sentences.hard_negatives import Mining, mine_hard_negatives
from zhbert.tasks.examples import EmbedExample
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.read import read_inputs
from zhbert.tasks.sources import named_source
from zhbert.zoo import locate


@dataclass(frozen=True)
class Mined:
    """What `write_hard_negatives` has written."""

    out: Path
    pairs: int
    """The number of pairs that were read."""
    triples: int
    """The number of those that have hard negatives: the rows of ``out``."""
    negatives: int
    """The number of hard negatives of all of them."""


def write_hard_negatives(
    model: str | os.PathLike[str],
    pairs: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    corpus: str | os.PathLike[str] | None = None,
    mining: Mapping[str, Any] | None = None,
    field: str | None = None,
    encoding: str | None = None,
    precision: str = "fp32",
    overwrite: bool = False,
    quiet: bool = True,
    remark: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda doing, done, total: None,
) -> Mined:
    """Write the pairs that have hard negatives as JSON lines: text, text_pair, negative (a list).

    A card with these three columns trains on them (``kind = "embed"``).

    Args:
        model: what `SentenceEncoder.from_pretrained` opens.
        pairs: anchors and positives, or questions and passages: two columns, a table with the
            columns text and text_pair, or SQuAD's JSON; ``-`` is stdin.
        out: a file that ends in .jsonl.
        corpus: further texts that may be negatives, in a form that `read_texts` takes. The
            positives of other anchors may be, too.
        mining: the fields of `Mining`: which of the texts near an anchor are taken; None: the
            three nearest.
        field, encoding: as for `read_texts`; the encoding is that of ``pairs``, too.
        precision: what the model computes in: ``fp32``, ``bf16`` or ``int8``.
        overwrite: replace an existing ``out``.
        quiet: show no progress of a download, and no warning about a plain BERT.
        remark: called with each remark, one line each.
        progress: called with what is done, how many texts of it, and of how many.

    Raises:
        ZhbertError: a file or an option is unusable, or no pair has a hard negative.
    """
    if Path(out).suffix != ".jsonl":
        raise ZhbertError(f"--out {os.fspath(out)}: name a file that ends in .jsonl")
    needed = {"file of pairs": Path(pairs), **({"corpus": Path(corpus)} if corpus else {})}
    check_file(out, overwrite=overwrite, needed=needed)
    wanted = Mining(**(mining or {}))
    locate(os.fspath(model), quiet=quiet)
    read = _read_pairs(pairs, encoding, remark)
    further: list[str] = []
    if corpus is not None:
        texts = read_texts(named_source(corpus), field=field, encoding=encoding, remark=remark)
        further = [one.text for one in texts]
    # Importing torch takes seconds, so wrong files and options are reported first.
    from zhbert.sentences.encoder import SentenceEncoder

    encoder = SentenceEncoder.from_pretrained(os.fspath(model), precision=precision, quiet=quiet)
    mined = mine_hard_negatives(encoder, read, further, wanted, progress)
    lines = [
        to_json({"text": anchor, "text_pair": positive, "negative": list(negatives)}) + "\n"
        for (anchor, positive), negatives in zip(read, mined, strict=True)
        if negatives
    ]
    if not lines:
        raise ZhbertError(
            f"{os.fspath(pairs)}: no pair has a hard negative: every text near an anchor is its "
            "positive, or left out by the margins and limits"
        )
    write_text(out, "".join(lines))
    return Mined(Path(out), len(read), len(lines), sum(map(len, mined)))


def _read_pairs(
    path: str | os.PathLike[str], encoding: str | None, remark: Callable[[str], None]
) -> list[tuple[str, str]]:
    """Return the distinct pairs of a file."""
    source = named_source(path)
    examples = read_inputs(KINDS["embed"], None, (), source, encoding=encoding, remark=remark)
    pairs = dict.fromkeys(cast(EmbedExample, example).texts for example in examples)
    if not pairs:
        raise ZhbertError(f"{source}: no pairs in it")
    for texts in pairs:
        if len(texts) != 2 or not all(texts):
            raise ZhbertError(f"{source}: a text without a positive: {texts[0]}")
    return [(anchor, positive) for anchor, positive in pairs]
