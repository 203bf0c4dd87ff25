"""A file of texts to a file of vectors: of any length, in bounded memory, resumed after a kill."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.files import remove
from zhbert.folders import check_file, locked
from zhbert.retrieval.store import VectorStore
from zhbert.retrieval.texts import Text, read_texts
from zhbert.retrieval.vector_files import companion, suffix_of, write_vectors
from zhbert.tasks.sources import StandardInput, named_source
from zhbert.terminal import say_nothing
from zhbert.wording import without_secrets
from zhbert.zoo import locate

# The number of values in memory at a time when the file is written.
_VALUES = 1 << 22

Progress = Callable[[str, int, int | None], None]
"""Called with what is done ("encoding"), the number of texts that are done, and of all texts: None
if it is not known (stdin)."""


@dataclass(frozen=True)
class Embedded:
    """What `embed` has written."""

    out: Path
    texts: int
    dimensions: int
    """The dimensions of the model's vectors; binary ones have 8 of them in a byte."""
    ids: Path
    """The file with the ids: parquet's own, or the companion."""
    resumed: int
    """The number of texts that an interrupted run had done before."""


def embed(
    model: str | os.PathLike[str],
    file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    field: str | None = None,
    encoding: str | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
    precision: str = "fp32",
    engine: str | None = None,
    vectors: str = "float32",
    normalize: bool = False,
    truncate_dim: int | None = None,
    overwrite: bool = False,
    quiet: bool = True,
    remark: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda doing, done, total: None,
) -> Embedded:
    """Compute the vectors of a file's texts and write them to ``out``, in the texts' order.

    Unfinished work is kept in the folder ``OUT.unfinished``. The same call goes on with it, and
    its result is the same to the last bit as that of an uninterrupted one.

    Args:
        model: what `SentenceEncoder.from_pretrained` opens.
        file: the texts, in a form that `read_texts` takes; ``-`` is stdin.
        out: a file that ends in .npy, .parquet or .safetensors.
        field, encoding: as for `read_texts`.
        prompt_name, prompt: the prompt to put before each text, by its name or itself.
        precision, engine: as for `SentenceEncoder.from_pretrained`.
        vectors: what is stored: ``float32``, ``int8``, ``uint8``, ``binary`` or ``ubinary``.
        normalize: scale the vectors to the length 1.
        truncate_dim: the number of dimensions to keep; None: the model's.
        overwrite: replace an existing ``out``.
        quiet: show no progress of a download, and no warning about a plain BERT.
        remark: called with each remark, one line each.
        progress: called after each group of texts.

    Raises:
        ZhbertError: the model, the file or an option is unusable, or the disk is full.
    """
    source, ids = named_source(file), companion(out)
    suffix_of(out)
    for path in filter(None, (Path(out), ids)):
        check_file(path, overwrite=overwrite, needed={"file of texts": Path(file)})
    locate(os.fspath(model), quiet=quiet)
    read = partial(read_texts, source, field=field, encoding=encoding)
    total, remark_on_rows = None, remark
    if not isinstance(source, StandardInput):
        # A broken row is reported now, and not after hours.
        total = sum(1 for _ in read(remark=remark))
        _check_count(total, source, vectors)
        remark_on_rows = say_nothing  # they were made now
    # Importing torch takes seconds, so wrong files and names are reported first.
    from zhbert.inference.onnx_model import remark_on_graph
    from zhbert.retrieval.identity import identity_of
    from zhbert.sentences.encoder import SentenceEncoder

    encoder = SentenceEncoder.from_pretrained(
        os.fspath(model), precision=precision, engine=engine, quiet=quiet
    )
    remark_on_graph(os.fspath(model), encoder.model, remark)
    options: dict[str, Any] = {
        "prompt_name": prompt_name,
        "prompt": prompt,
        "normalize_embeddings": normalize,
        "truncate_dim": truncate_dim,
    }
    identity = {**identity_of(encoder), **options}
    store = VectorStore(
        Path(f"{os.fspath(out)}.unfinished"),
        encoder.encode([], **options).shape[1],
        what="unfinished vectors",
        option="--out",
        anew="remove this folder to begin anew",
    )
    with locked(store.folder):
        store.begin(identity)
        resumed = store.count
        try:
            store.fill(
                read(remark=remark_on_rows),
                lambda texts: np.asarray(encoder.encode(texts, **options)),
                lambda count: progress("encoding", count, total),
            )
        finally:
            if not store.count:  # nothing to go on with
                remove(store.folder)
        _check_count(store.count, source, vectors)
        made = {"model": without_secrets(os.fspath(model)), "sha256": identity["model"]}
        _write(out, store, vectors, {**made, "precision": precision, **options})
        remove(store.folder)
    return Embedded(Path(out), store.count, store.dimensions, ids or Path(out), resumed)


def _check_count(count: int, source: object, vectors: str) -> None:
    if not count:
        raise ZhbertError(f"{source}: no texts in it")
    if count == 1 and vectors in ("int8", "uint8"):
        raise ZhbertError(
            f"{source}: one text: {vectors} vectors are scaled by the range of many; take float32"
        )


def _write(
    out: str | os.PathLike[str], store: VectorStore, stored: str, made: dict[str, Any]
) -> None:
    from zhbert.sentences.quantization import quantization_ranges, quantize_embeddings

    found, ranges = store.vectors, None
    made["vectors"] = stored
    if stored in ("int8", "uint8"):
        ranges = quantization_ranges(found)
        made["ranges"] = ranges.tolist()
    step = max(_VALUES // store.dimensions, 1)

    def blocks() -> Iterator[tuple[list[Text], NDArray[Any]]]:
        texts = store.texts()
        for first in range(0, len(found), step):
            rows = quantize_embeddings(np.asarray(found[first : first + step]), stored, ranges)
            yield list(islice(texts, len(rows))), rows

    width = -(-store.dimensions // 8) if stored.endswith("binary") else store.dimensions
    dtype = {"binary": "int8", "ubinary": "uint8"}.get(stored, stored)
    write_vectors(out, blocks, (store.count, width), dtype, made)
