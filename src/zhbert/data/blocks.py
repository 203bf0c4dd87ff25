"""One block of raw text to its shard: what a worker of ``zhbert prepare`` does."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import sys
import threading
import unicodedata
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zhbert.data.documents import Block, Outline, outline
from zhbert.data.read_options import ReadOptions
from zhbert.data.shards import Documents, piece_type, write_shard
from zhbert.errors import ZhbertError
from zhbert.files import atomic_file, read_json, sha256_of
from zhbert.text.segmenters import Segmenter, load_segmenter
from zhbert.text.sentences import CUT, text_of
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.words import AlignmentReport

Array = np.ndarray[Any, Any]

# Places of trouble that are kept of a block: the report shows the first ten of all.
MOST_PLACES = 10
# Characters that go from words to pieces at a time: what is made on the way stays in the cache.
_PART = 1 << 18


@dataclass(frozen=True)
class Settings:
    """All that a worker needs to know."""

    out: Path
    vocabulary: Path
    segmenter: str
    user_words: Path | None
    traditional: str
    reading: ReadOptions
    held_out: float
    segmenter_model: str | Path | None = None

    @property
    def partial(self) -> Path:
        """Where unfinished work lies: it is gone when the corpus is finished."""
        return self.out / ".partial"

    def train_path(self, block: int) -> Path:
        """The block's shard of the corpus."""
        return self.out / f"train-{block:05d}.arrow"

    def held_out_path(self, block: int) -> Path:
        """The block's held-out documents, which are merged in the end."""
        return self.partial / f"held_out-{block:05d}.arrow"

    def result_path(self, block: int) -> Path:
        """What became of the block; written after its shards."""
        return self.partial / f"{block:05d}.json"

    def lines_path(self, block: int) -> Path:
        """The hashes of the block's lines, for finding duplicates."""
        return self.partial / f"lines-{block:05d}.bin"

    def duplicates_path(self, block: int) -> Path:
        """Which of the block's lines stand earlier in the input: uint32, increasing."""
        return self.partial / f"duplicates-{block:05d}.bin"


@dataclass(frozen=True)
class _Pieces:
    """The pieces of a block's sentences."""

    ids: Array  # (pieces,)
    word_starts: Array  # (pieces,) bool
    lengths: Array  # (sentences,) pieces of each
    alignment: AlignmentReport


class BlockWorker:
    """Works blocks off; one in each process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tokenizer = Tokenizer.from_pretrained(settings.vocabulary)
        self.segmenter: Segmenter = load_segmenter(
            settings.segmenter,
            user_words=settings.user_words,
            traditional=settings.traditional,
            model=settings.segmenter_model,
        )
        self.punctuation = np.array([_is_punctuation(p) for p in self.tokenizer.vocabulary])

    def work(self, block: Block) -> dict[str, Any]:
        """Write the block's shards and its result; a finished one is taken as it is."""
        settings = self.settings
        dropped = np.zeros(0, np.uint32)
        with suppress(FileNotFoundError):
            dropped = np.fromfile(settings.duplicates_path(block.number), np.uint32)
        fingerprint = block.fingerprint() + (
            f"-{hashlib.sha256(dropped.data).hexdigest()}" if len(dropped) else ""
        )
        finished = _finished(settings, block.number, fingerprint)
        if finished is not None:
            return finished
        found = outline(block, settings.reading)
        # The raw bytes are not needed any more: they would only add to the peak.
        block.segments.clear()
        result = self._write(block.number, found, dropped)
        result["fingerprint"] = fingerprint
        # Not flushed to disk either: if a power cut spoils it, the block is done again.
        with atomic_file(settings.result_path(block.number), flush=False) as temporary:
            temporary.write_text(json.dumps(result), encoding="utf-8")
        return result | {"reused": False, "peak_memory": peak_memory()}

    def _write(self, number: int, found: Outline, dropped: Array) -> dict[str, Any]:
        settings = self.settings
        counts = found.counts
        documents, lines = found.documents, found.lines
        hashes = found.document_hashes()
        held = _below(hashes, settings.held_out)
        document_of = np.cumsum(documents) - 1
        line_of = np.cumsum(lines) - 1
        text, codes, ends = found.text, found.codes, found.sentences.ends
        apart = (found.sentences.flags & CUT).astype(bool)
        if len(dropped):
            keep = ~np.isin(line_of, dropped)
            lengths = np.diff(ends, prepend=0)
            codes = codes[np.repeat(keep, lengths)]
            text = text_of(codes)
            ends = np.cumsum(lengths[keep]).astype(np.int32)
            apart, document_of, line_of = apart[keep], document_of[keep], line_of[keep]
            counts["lines.duplicate"] += len(dropped)
            left = int(np.count_nonzero(_changes(document_of)))
            counts["documents.duplicates_only"] += int(np.count_nonzero(documents)) - left
        pieces = self._pieces(text, codes, ends, apart, counts)
        lengths = pieces.lengths
        present = lengths > 0
        for what, owners in (("documents", document_of), ("lines", line_of)):
            with_pieces = int(np.count_nonzero(_changes(owners[present])))
            counts[f"{what}.without_pieces"] += (
                int(np.count_nonzero(_changes(owners))) - with_pieces
            )
        counts["pieces.encoded"] += len(pieces.ids)
        counts["pieces.punctuation"] += int(np.count_nonzero(self.punctuation[pieces.ids]))
        result: dict[str, Any] = {}
        for split, path, chosen in (
            ("train", settings.train_path(number), ~held),
            ("held_out", settings.held_out_path(number), held),
        ):
            selected = present & chosen[document_of]
            result[split] = None
            if selected.any():
                result[split] = write_shard(path, _select(pieces, selected, document_of, line_of))
            else:
                path.unlink(missing_ok=True)
            if split == "train":
                owners = document_of[selected]
                result["lowest"] = _lowest(hashes[owners[_changes(owners)]])
        result["counts"] = dict(sorted((+counts).items()))
        result["alignment"] = asdict(pieces.alignment)
        result["places"] = [
            [place.source, place.name, place.line, place.reason, place.error]
            for place in found.places[:MOST_PLACES]
        ]
        # The first error counts where --on-error is fail, however many remarks stand before it.
        result["first_error"] = next((str(place) for place in found.places if place.error), None)
        return result

    def _pieces(
        self, text: str, codes: Array, ends: Array, apart: Array, counts: Counter[str]
    ) -> _Pieces:
        """The pieces of a text's sentences, a part at a time."""
        kind = piece_type(len(self.tokenizer.vocabulary))
        parts: list[tuple[Array, Array, Array]] = []
        alignment = AlignmentReport()
        unaligned = self.segmenter.unaligned
        first = begin = 0
        while first < len(ends):
            last = max(first + 1, int(np.searchsorted(ends, begin + _PART, "right")))
            end = int(ends[last - 1])
            part, part_ends = codes[begin:end], ends[first:last] - np.int32(begin)
            self._count_special_tokens(text, begin, part, counts)
            stops = self.segmenter.segment_run(text[begin:end], part, part_ends, apart[first:last])
            words = self.tokenizer.encode_run(part, part_ends, stops)
            parts.append((words.ids.astype(kind), words.word_starts, np.diff(words.starts)))
            alignment += AlignmentReport.of(words)
            first, begin = last, end
        counts["sentences.unaligned"] += self.segmenter.unaligned - unaligned
        if not parts:
            return _Pieces(np.zeros(0, kind), np.zeros(0, bool), np.zeros(0, np.int64), alignment)
        ids, word_starts, lengths = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return _Pieces(ids, word_starts, lengths, alignment)

    def _count_special_tokens(
        self, text: str, begin: int, part: Array, counts: Counter[str]
    ) -> None:
        tokens = self.tokenizer.special_tokens.values()
        for initial in {token[0] for token in tokens}:
            for place in np.flatnonzero(part == ord(initial)).tolist():
                for token in tokens:
                    if text.startswith(token, begin + place):
                        counts[f"special_tokens.{token}"] += 1

    def hash_lines(self, block: Block) -> int:
        """The first pass of --deduplicate: store the hashes of the block's lines; their number."""
        path = self.settings.lines_path(block.number)
        hashes = outline(block, self.settings.reading).line_hashes()
        store_hashes(path, hashes)
        return len(hashes)


def _is_punctuation(piece: str) -> bool:
    text = piece.removeprefix("##") or piece
    return all(unicodedata.category(character)[0] in "PS" for character in text)


def _select(pieces: _Pieces, selected: Array, document_of: Array, line_of: Array) -> Documents:
    """The selected sentences' pieces as documents."""
    ends = np.cumsum(pieces.lengths)
    sizes = pieces.lengths[selected]
    starts = np.cumsum(sizes) - sizes
    # Runs of selected sentences are few: copying them is faster than choosing piece by piece.
    edges = np.flatnonzero(np.diff(selected, prepend=False, append=False))
    places = np.append(0, ends)[edges].reshape(-1, 2).tolist()
    return Documents(
        pieces=np.concatenate([pieces.ids[a:b] for a, b in places]),
        word_starts=np.concatenate([pieces.word_starts[a:b] for a, b in places]),
        document_starts=np.append(starts[_changes(document_of[selected])], sizes.sum()),
        sentence_starts=starts,
        line_starts=starts[_changes(line_of[selected])],
    )


def _changes(values: Array) -> Array:
    """Which of some numbers, none smaller than the one before, are the first of their kind."""
    first = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return first


def _below(hashes: Array, share: float) -> Array:
    """Which hashes belong to the lowest ``share`` of all possible ones."""
    return (hashes >> np.uint64(11)) < np.uint64(round(share * (1 << 53)))


def _lowest(hashes: Array) -> tuple[int, int] | None:
    """The lowest hash of some documents, and whose it is: a larger share would hold it out first.

    >>> _lowest(np.array([7, 3, 5], np.uint64))
    (3, 1)
    """
    if not len(hashes):
        return None
    number = int(np.argmin(hashes))
    return int(hashes[number]), number


def _finished(settings: Settings, number: int, fingerprint: str) -> dict[str, Any] | None:
    """The result of a block that an earlier run has finished, if its shards are whole."""
    result: dict[str, Any] = {}
    with suppress(ZhbertError):  # there is none yet, or a power cut has spoilt it
        result = read_json(settings.result_path(number), dict)
    if result.get("fingerprint") != fingerprint:
        return None
    for split, path in (
        ("train", settings.train_path(number)),
        ("held_out", settings.held_out_path(number)),
    ):
        entry = result[split]
        if entry and not (path.is_file() and sha256_of(path) == entry["sha256"]):
            return None
    return result | {"reused": True, "peak_memory": peak_memory()}


def peak_memory() -> int:
    """The most memory that this process ever held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# ---------------------------------------------------------------- duplicate lines

_PARTITIONS = 256


def store_hashes(path: Path, hashes: Array) -> None:
    """Store (lines, 2) uint64 hashes by partition: their counts, then hash, hash, line number."""
    partition = (hashes[:, 0] >> np.uint64(56)).astype(np.int64)
    order = np.argsort(partition, kind="stable")
    rows = np.column_stack([hashes[order], order.astype(np.uint64)])
    counts = np.bincount(partition, minlength=_PARTITIONS).astype(np.uint64)
    # numpy's tofile does not say why it fails.
    path.write_bytes(np.concatenate([counts, rows.ravel()]).data)


def find_duplicates(settings: Settings, blocks: int, most_lines: int = 4_000_000) -> int:
    """The second step of --deduplicate: for each block the lines that stood before; their number.

    Of 256 partitions of all hashes as many are in memory at a time as hold ``most_lines`` (50
    bytes each while they are sorted), but at least one.
    """
    total = 0
    counts = np.zeros((blocks, _PARTITIONS), np.int64)
    for number in range(blocks):
        settings.duplicates_path(number).write_bytes(b"")
        counts[number] = np.fromfile(settings.lines_path(number), np.uint64, _PARTITIONS)
    firsts = np.cumsum(counts, axis=1) - counts
    sizes = counts.sum(axis=0)
    begin = 0
    while begin < _PARTITIONS:
        end = begin + 1
        while end < _PARTITIONS and sizes[begin : end + 1].sum() <= most_lines:
            end += 1
        lines = counts[:, begin:end].sum(axis=1)
        rows = np.concatenate(
            [
                np.fromfile(
                    settings.lines_path(number),
                    np.uint64,
                    3 * int(lines[number]),
                    offset=8 * (_PARTITIONS + 3 * int(firsts[number, begin])),
                ).reshape(-1, 3)
                for number in range(blocks)
            ]
        )
        # Stable: of equal lines the first one of the input stays in front.
        order = np.lexsort((rows[:, 1], rows[:, 0]))
        same = (rows[order[1:], :2] == rows[order[:-1], :2]).all(axis=1)
        repeated = np.zeros(len(rows), bool)
        repeated[order[1:]] = same
        total += int(np.count_nonzero(repeated))
        stops = np.cumsum(lines)
        for number in np.flatnonzero(lines).tolist():
            part = slice(int(stops[number] - lines[number]), int(stops[number]))
            dropped = rows[part, 2][repeated[part]]
            with settings.duplicates_path(number).open("ab") as file:
                file.write(dropped.astype(np.uint32).tobytes())
        begin = end
    for number in range(blocks):
        path = settings.duplicates_path(number)
        path.write_bytes(np.sort(np.fromfile(path, np.uint32)).data)
        settings.lines_path(number).unlink()
    return total


# ---------------------------------------------------------------- the process

_worker: BlockWorker | None = None


def start_worker(settings: Settings) -> None:
    """Make this process a worker: it leaves signals to its parent, and ends when that ends."""
    global _worker
    import multiprocessing
    from multiprocessing.connection import wait

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # There is a process for each CPU: a neural segmenter's library would start as many threads in
    # each of them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            wait([parent.sentinel])
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
    # The parent has opened the same vocabulary and said what is odd about it.
    warnings.simplefilter("ignore")
    _worker = BlockWorker(settings)


def work(method: str, block: Block) -> Any:
    """Call a method of this process's BlockWorker."""
    assert _worker is not None
    return getattr(_worker, method)(block)
