"""Reading of texts from a column of a parquet file."""

from __future__ import annotations

import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from zhbert.data.read_options import ReadOptions
from zhbert.data.sources import DamagedError, Source
from zhbert.files import reason_of
from zhbert.wording import listed


@dataclass
class Cells:
    """Some rows of a parquet file's column of text."""

    first: int
    """the number of the first row, from 1"""
    raw: bytearray = field(default_factory=bytearray)
    """the texts, concatenated"""
    lengths: array.array[int] = field(default_factory=lambda: array.array("q"))
    """the size of each text in bytes; -1: a null"""

    def add(self, column: Any) -> None:
        """Add the texts of a pyarrow array."""
        import pyarrow as pa

        texts = column.cast(pa.large_string())
        offsets = np.frombuffer(texts.buffers()[1], np.int64)
        offsets = offsets[texts.offset : texts.offset + len(texts) + 1]
        lengths = np.where(np.asarray(texts.is_null()), -1, np.diff(offsets))
        data = texts.buffers()[2]
        if data is not None:
            self.raw += data.slice(offsets[0], offsets[-1] - offsets[0])
        self.lengths.frombytes(lengths.astype(np.int64).tobytes())


_ROWS = 256
# A chunk of a column that unpacks to more bytes than this and to a thousand times the file's size
# is refused.
_SUSPICIOUS = 256 << 20


def parquet_cells(source: Source, raw: BinaryIO, reading: ReadOptions) -> Iterator[Cells]:
    """Yield one parquet file's texts, a few hundred rows at a time.

    Raises:
        DamagedError: the file is not parquet, lacks the text column, or unpacks to too much data.
    """
    import pyarrow.parquet as pq

    name = reading.field or "text"
    try:
        file = pq.ParquetFile(raw, buffer_size=1 << 20, pre_buffer=False)
        _check_text_column(file.schema_arrow, name)
        rows = _rows_at_a_time(file.metadata, name, source.size, reading)
        cells = Cells(1)
        for batch in file.iter_batches(batch_size=rows, columns=[name]):
            cells.add(batch.column(0))
            if len(cells.lengths) >= _ROWS or len(cells.raw) > _SUSPICIOUS >> 2:
                yield cells
                cells = Cells(cells.first + len(cells.lengths))
        if cells.lengths:
            yield cells
    except DamagedError:
        raise
    except Exception as error:
        # pyarrow's errors have no common base class but Exception.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DamagedError(f"not readable as parquet: {reason_of(error)}") from error


def _check_text_column(schema: Any, name: str) -> None:
    import pyarrow as pa

    if name not in schema.names:
        raise DamagedError(
            f"no column '{name}'; it has {listed(schema.names)}; --field names the column"
        )
    kind = schema.field(name).type
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(values) or pa.types.is_large_string(values)):
        raise DamagedError(f"column '{name}' holds {kind}, not text; --field names the column")


def _rows_at_a_time(metadata: Any, name: str, size: int, reading: ReadOptions) -> int:
    """Return how many rows can be read at a time in bounded memory.

    Raises:
        DamagedError: a few kilobytes unpack to gigabytes.
    """
    rows = _ROWS
    for group in range(metadata.num_row_groups):
        part = metadata.row_group(group)
        for column in map(part.column, range(part.num_columns)):
            if column.path_in_schema.partition(".")[0] != name:
                continue
            unpacked = column.total_uncompressed_size
            if unpacked > _SUSPICIOUS and (
                unpacked > 1000 * size or unpacked > reading.document_bytes * max(1, part.num_rows)
            ):
                raise DamagedError(
                    f"{size:,} bytes that unpack to {unpacked:,} in {part.num_rows:,} rows: "
                    "no memory holds such texts"
                )
            if column.has_dictionary_page:
                # A long text in the dictionary may occur in every row.
                share = column.data_page_offset - column.dictionary_page_offset
                longest = unpacked * share // max(1, column.total_compressed_size)
                while rows > 1 and rows * longest > _SUSPICIOUS >> 1:
                    rows //= 2
    return rows
