"""A sentence model and a file of texts to a folder of static vectors."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.model.folder import check_out
from zhbert.retrieval.embed import Progress
from zhbert.retrieval.texts import read_texts
from zhbert.tasks.sources import named_source
from zhbert.zoo import locate

# The number of texts whose pieces' outputs are in memory at a time.
_TEXTS = 1024


@dataclass(frozen=True)
class MadeStatic:
    """What `make_static` has written."""

    out: Path
    texts: int
    """The number of texts of the corpus."""
    pieces: int
    dimensions: int


def make_static(
    model: str | Path,
    corpus: str | os.PathLike[str],
    out: str | Path,
    *,
    dimensions: int | None = None,
    field: str | None = None,
    encoding: str | None = None,
    precision: str = "fp32",
    overwrite: bool = False,
    quiet: bool = True,
    remark: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda doing, done, total: None,
) -> MadeStatic:
    """Make static vectors of a sentence model's pieces from what it gives for them in a corpus.

    Args:
        model: what `SentenceEncoder.from_pretrained` opens.
        corpus: texts like those that will be encoded, in a form that `read_texts` takes; ``-`` is
            stdin. Some ten thousand sentences are enough.
        out: the folder to write, which `SentenceEncoder` and sentence-transformers open.
        dimensions: the number of dimensions; None: the model's.
        field, encoding: as for `read_texts`.
        precision: what the model computes in: ``fp32`` or ``bf16``.
        overwrite: replace an existing model.
        quiet: show no progress of a download, and no warning about a plain BERT.
        remark: called with each remark, one line each.
        progress: called with what is done, how many texts of it, and of how many.

    Raises:
        ZhbertError: the model, the corpus or an option is unusable.
    """
    out = check_out(out, model, overwrite=overwrite)
    locate(model, quiet=quiet)
    source = named_source(corpus)
    texts = (one.text for one in read_texts(source, field=field, encoding=encoding, remark=remark))

    # Importing torch takes seconds, so wrong files and names are reported first.
    from zhbert.sentences.encoder import SentenceEncoder
    from zhbert.sentences.model import SentenceModel
    from zhbert.sentences.static import StaticMaker

    encoder = SentenceEncoder.from_pretrained(model, precision=precision, quiet=quiet)
    if not isinstance(encoder.model, SentenceModel):
        raise ZhbertError(f"{os.fspath(model)}: static vectors already; give their sentence model")
    maker, count = StaticMaker(encoder.model), 0
    while some := list(itertools.islice(texts, _TEXTS)):
        maker.add(encoder.rows(some), encoder.dtype)
        count += len(some)
        progress("encoding", count, None)
    tokenizer = encoder.tokenizer
    static = maker.make(tokenizer.cls_id, tokenizer.sep_id, dimensions)
    SentenceEncoder(static, tokenizer).save_pretrained(out)
    return MadeStatic(out, count, static.vocab_size, static.embedding_dimension)
