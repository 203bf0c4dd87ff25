"""Files of vectors: NumPy's .npy, .safetensors and .parquet, written block by block.

Beside NAME.npy and NAME.safetensors stands NAME.npy.json (NAME.safetensors.json) with the ids of
the rows and how the vectors were made; parquet contains both itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.files import atomic_file, to_json
from zhbert.retrieval.texts import Text

Rows = NDArray[Any]
Blocks = Iterator[tuple[list[Text], Rows]]
"""Texts with their vectors, some at a time."""

_SAFETENSORS = {"float32": "F32", "int8": "I8", "uint8": "U8"}
"""safetensors' names of dtypes: https://huggingface.co/docs/safetensors."""


def suffix_of(path: str | os.PathLike[str]) -> str:
    """Return the ending of the name of a file of vectors, which selects its format.

    Raises:
        ZhbertError: no format has this ending.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITERS:
        raise ZhbertError(
            f"--out {os.fspath(path)}: name a file that ends in .npy, .parquet or .safetensors"
        )
    return suffix


def companion(path: str | os.PathLike[str]) -> Path | None:
    """Return the file beside a file of vectors that has its ids; None if it has them itself.

    >>> companion("vectors.npy").name, companion("vectors.parquet")
    ('vectors.npy.json', None)
    """
    path = Path(path)
    return None if path.suffix.lower() == ".parquet" else path.with_name(path.name + ".json")


def write_vectors(
    path: str | os.PathLike[str],
    blocks: Callable[[], Blocks],
    shape: tuple[int, int],
    dtype: str,
    made: Mapping[str, Any],
) -> None:
    """Write a file of vectors, and its companion, if it has one. Each appears whole or not at all.

    Args:
        path: the file, in an existing folder. A file of this name is replaced.
        blocks: called for the texts and vectors; twice for a file with a companion.
        shape: (N, D) of all vectors together.
        dtype: float32, int8 or uint8.
        made: how the vectors were made, as JSON data.

    Raises:
        ZhbertError: writing fails.
    """
    beside = companion(path)
    if beside is not None:
        with atomic_file(beside) as temporary, temporary.open("w", encoding="utf-8") as file:
            # The ids come last, one a line: they may be a million.
            file.write(to_json(made, indent=2).removesuffix("\n}") + ',\n  "ids": [')
            separator = "\n    "
            for texts, _ in blocks():
                for text in texts:
                    file.write(separator + to_json(text.id))
                    separator = ",\n    "
            file.write("\n  ]\n}\n")
    with atomic_file(path) as temporary:
        WRITERS[suffix_of(path)](temporary, blocks(), shape, dtype, made)


def _write_npy(
    path: Path, blocks: Blocks, shape: tuple[int, int], dtype: str, made: Mapping[str, Any]
) -> None:
    with path.open("wb") as file:
        header = {"descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
        _write_rows(file, blocks)


def _write_safetensors(
    path: Path, blocks: Blocks, shape: tuple[int, int], dtype: str, made: Mapping[str, Any]
) -> None:
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    tensor = {"dtype": _SAFETENSORS[dtype], "shape": shape, "data_offsets": [0, size]}
    # The values of the metadata must be texts.
    metadata = {key: one if isinstance(one, str) else to_json(one) for key, one in made.items()}
    header = json.dumps({"__metadata__": metadata, "vectors": tensor}).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        _write_rows(file, blocks)


def _write_rows(file: BinaryIO, blocks: Blocks) -> None:
    for _, rows in blocks:
        file.write(rows.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes())


def _write_parquet(
    path: Path, blocks: Blocks, shape: tuple[int, int], dtype: str, made: Mapping[str, Any]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = pa.type_for_alias(dtype.replace("float32", "float"))
    schema = pa.schema(
        {"id": pa.string(), "text": pa.string(), "vector": pa.list_(number, shape[1])},
        metadata={"zhbert": to_json(made)},
    )
    with pq.ParquetWriter(path, schema) as writer:
        for texts, rows in blocks:
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), shape[1])
            ids, plain = ([one[place] for one in texts] for place in (0, 1))
            writer.write_batch(pa.record_batch([pa.array(ids), pa.array(plain), vectors], schema))


WRITERS: Mapping[str, Callable[[Path, Blocks, tuple[int, int], str, Mapping[str, Any]], None]] = {
    ".npy": _write_npy,
    ".safetensors": _write_safetensors,
    ".parquet": _write_parquet,
}
"""What writes a file, by the ending of its name."""
