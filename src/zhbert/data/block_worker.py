"""One block of raw text -> its shards: what a worker of ``zhbert prepare`` does."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zhbert.data.blocks import TextBlock
from zhbert.data.corpus_folder import CorpusPaths
from zhbert.data.duplicates import Partitions, duplicates_of, find_duplicates, store_hashes
from zhbert.data.outline import Outline, outline
from zhbert.data.read_options import ReadOptions
from zhbert.data.scatter import ScatteredShard, hash_order, in_order, write_scattered
from zhbert.data.shards import Documents, piece_type, write_shard
from zhbert.files import atomic_file, read_json_if_sound, sha256_of
from zhbert.text.segmenters import Segmenter
from zhbert.text.segmenters.protocol import check_run_ends
from zhbert.text.sentences import CUT, text_of
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.words import AlignmentReport

Array = np.ndarray[Any, Any]

# Places of trouble that are kept of a block: the report shows the first ten of all.
MOST_PLACES = 10
# Characters that go from words to pieces at a time, so that what is made on the way stays in the
# processor's cache.
_PART = 1 << 18


@dataclass(frozen=True, kw_only=True)
class PreparationSettings:
    """All that a worker needs to know."""

    paths: CorpusPaths
    vocabulary: Path
    load_segmenter: Callable[[], Segmenter]
    reading: ReadOptions
    held_out: float
    deduplicate: bool = False
    scatter: bool = False

    def train(self, block: int) -> Path:
        """Return the path of the shard of a block's training documents."""
        return self.paths.unscattered(block) if self.scatter else self.paths.train(block)


@dataclass
class _Sentences:
    """A block's sentences, and whose they are."""

    text: str
    codes: Array  # (characters,) uint32: the text's code points
    ends: Array  # (sentences,) int32, in characters
    cut: Array  # (sentences,) bool: cut off because the sentence was too long
    documents: Array  # (sentences,) the number of its document
    lines: Array  # (sentences,) the number of its line

    @classmethod
    def of(cls, found: Outline) -> _Sentences:
        """Return all sentences of a block."""
        sentences = found.sentences
        return cls(
            found.text,
            found.codes,
            sentences.ends,
            (sentences.flags & CUT).astype(bool),
            np.cumsum(found.documents) - 1,
            np.cumsum(found.lines) - 1,
        )

    def without_lines(self, dropped: Array) -> _Sentences:
        """Return the sentences that do not stand on the ``dropped`` lines."""
        keep = ~np.isin(self.lines, dropped)
        lengths = np.diff(self.ends, prepend=0)
        codes = self.codes[np.repeat(keep, lengths)]
        return _Sentences(
            text_of(codes),
            codes,
            np.cumsum(lengths[keep]).astype(np.int32),
            self.cut[keep],
            self.documents[keep],
            self.lines[keep],
        )


@dataclass(frozen=True)
class _EncodedSentences:
    """The pieces of a block's sentences."""

    ids: Array  # (pieces,)
    word_starts: Array  # (pieces,) bool
    lengths: Array  # (sentences,) pieces of each
    alignment: AlignmentReport


class BlockWorker:
    """Works on blocks, one after another; each process has one."""

    def __init__(self, settings: PreparationSettings) -> None:
        self.settings = settings
        self.tokenizer = Tokenizer.from_pretrained(settings.vocabulary)
        self.segmenter = settings.load_segmenter()
        self._punctuation = np.array([_is_punctuation(p) for p in self.tokenizer.vocabulary])

    def hash_lines(self, block: TextBlock) -> int:
        """Store the hashes of the block's lines, to find duplicates by; return their number."""
        block.load()
        hashes = outline(block, self.settings.reading).line_hashes()
        store_hashes(self.settings.paths, block.number, hashes)
        return len(hashes)

    def find_duplicates(self, searched: Partitions) -> None:
        """Write which lines of each block occur in earlier ones, by some of the hashes."""
        find_duplicates(self.settings.paths, searched)

    def scatter(self, wanted: ScatteredShard) -> dict[str, Any]:
        """Write a shard of documents from many blocks, and its entry; keep what is there."""
        paths = self.settings.paths
        note, shard = paths.scattered(wanted.number), paths.train(wanted.number)
        result = _finished(note, wanted.fingerprint, {"train": shard})
        if result is None:
            entry = write_scattered(paths, wanted)
            result = {"train": entry, "fingerprint": wanted.fingerprint}
            _note(note, result)
        return result

    def prepare(self, block: TextBlock) -> dict[str, Any]:
        """Write the block's shards and its result; if they are there already, keep them.

        The numbers of lines in the result lack those of the files' earlier parts: ``line_ends``
        has the lines of this one's.
        """
        settings, paths = self.settings, self.settings.paths
        line_ends = block.load()
        duplicates = duplicates_of(paths, block.number)
        fingerprint = block.fingerprint() + (
            f"-{hashlib.sha256(duplicates.data).hexdigest()}" if len(duplicates) else ""
        )
        shards = {"train": settings.train(block.number), "held_out": paths.held_out(block.number)}
        told = {"reused": True, "line_ends": line_ends, "peak_memory": peak_memory()}
        finished = _finished(paths.result(block.number), fingerprint, shards)
        if finished is not None:
            return finished | told
        found = outline(block, self.settings.reading)
        # The raw bytes are not needed any more: they would only add to the peak of the memory.
        block.segments.clear()
        result = self._prepare(block.number, found, duplicates) | {"fingerprint": fingerprint}
        _note(paths.result(block.number), result)
        return result | told | {"reused": False, "peak_memory": peak_memory()}

    def _prepare(self, number: int, found: Outline, duplicates: Array) -> dict[str, Any]:
        counts = found.counts
        sentences = _Sentences.of(found)
        if len(duplicates):
            before = _count_runs(sentences.documents)
            sentences = sentences.without_lines(duplicates)
            counts["lines.duplicate"] += len(duplicates)
            left = _count_runs(sentences.documents)
            counts["documents.duplicates_only"] += before - left
        pieces = self._encode(sentences, counts)
        present = pieces.lengths > 0
        for what, owners in (("documents", sentences.documents), ("lines", sentences.lines)):
            lost = _count_runs(owners) - _count_runs(owners[present])
            counts[f"{what}.without_pieces"] += lost
        counts["pieces.encoded"] += len(pieces.ids)
        counts["pieces.punctuation"] += int(np.count_nonzero(self._punctuation[pieces.ids]))
        return {
            **self._write_shards(number, found.document_hashes(), sentences, pieces),
            "counts": dict(sorted((+counts).items())),
            "alignment": asdict(pieces.alignment),
            "places": [astuple(place) for place in found.places[:MOST_PLACES]],
            # With --on-error fail the first error counts, however many remarks stand before it.
            "error": next((astuple(place) for place in found.places if place.error), None),
        }

    def _write_shards(
        self, number: int, hashes: Array, sentences: _Sentences, pieces: _EncodedSentences
    ) -> dict[str, Any]:
        """Write the shards of both splits; return their entries, and the lowest training hash.

        A document is held out by the hash of its text, so that it is so in every corpus.
        """
        settings = self.settings
        held_out = _below(hashes, settings.held_out)[sentences.documents]
        present = pieces.lengths > 0
        train = present & ~held_out
        owners = sentences.documents[train]
        hashes = hashes[owners[_changes(owners)]]
        documents = _select(sentences, pieces, train)
        if settings.scatter and documents:
            order = hash_order(documents)
            documents, hashes = in_order(documents, order), hashes[order]
        aside = _select(sentences, pieces, present & held_out)
        return {
            "train": _write(settings.train(number), documents),
            "held_out": _write(settings.paths.held_out(number), aside),
            "lowest": _lowest(hashes),
        }

    def _encode(self, sentences: _Sentences, counts: Counter[str]) -> _EncodedSentences:
        """Return the pieces of the sentences, a part of the text at a time."""
        kind = piece_type(len(self.tokenizer.vocabulary))
        ends = sentences.ends
        parts: list[tuple[Array, Array, Array]] = []
        alignment = AlignmentReport()
        unaligned = self.segmenter.unaligned
        first = begin = 0
        while first < len(ends):
            last = max(first + 1, int(np.searchsorted(ends, begin + _PART, "right")))
            end = int(ends[last - 1])
            text, codes = sentences.text[begin:end], sentences.codes[begin:end]
            part_ends = ends[first:last] - np.int32(begin)
            self._count_special_tokens(sentences.text, begin, codes, counts)
            found = self.segmenter.segment_run(text, codes, part_ends, sentences.cut[first:last])
            word_ends = check_run_ends(self.segmenter, found, len(text))
            words = self.tokenizer.encode_run(codes, part_ends, word_ends)
            parts.append((words.ids.astype(kind), words.word_starts, np.diff(words.starts)))
            alignment += AlignmentReport.of(words)
            first, begin = last, end
        counts["sentences.unaligned"] += self.segmenter.unaligned - unaligned
        if not parts:
            parts = [(np.zeros(0, kind), np.zeros(0, bool), np.zeros(0, np.int64))]
        ids, word_starts, lengths = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return _EncodedSentences(ids, word_starts, lengths, alignment)

    def _count_special_tokens(
        self, text: str, begin: int, codes: Array, counts: Counter[str]
    ) -> None:
        """Count the special tokens' strings in a part of the text, which begins at ``begin``."""
        tokens = self.tokenizer.special_tokens.values()
        for initial in {token[0] for token in tokens}:
            for place in np.flatnonzero(codes == ord(initial)).tolist():
                for token in tokens:
                    if text.startswith(token, begin + place):
                        counts[f"special_tokens.{token}"] += 1


def _is_punctuation(piece: str) -> bool:
    text = piece.removeprefix("##") or piece
    return all(unicodedata.category(character)[0] in "PS" for character in text)


def _write(path: Path, documents: Documents | None) -> dict[str, Any] | None:
    """Write a shard; None, and no file, where there are no documents."""
    if documents is not None:
        return write_shard(path, documents)
    path.unlink(missing_ok=True)
    return None


def _select(sentences: _Sentences, pieces: _EncodedSentences, selected: Array) -> Documents | None:
    """Return the selected sentences' pieces as documents; None if none is selected."""
    if not selected.any():
        return None
    ends = np.cumsum(pieces.lengths)
    sizes = pieces.lengths[selected]
    starts = np.cumsum(sizes) - sizes
    # Runs of selected sentences are few: copying them is faster than choosing piece by piece.
    edges = np.flatnonzero(np.diff(selected, prepend=False, append=False))
    places = np.append(0, ends)[edges].reshape(-1, 2).tolist()
    return Documents(
        pieces=np.concatenate([pieces.ids[a:b] for a, b in places]),
        word_starts=np.concatenate([pieces.word_starts[a:b] for a, b in places]),
        document_starts=np.append(starts[_changes(sentences.documents[selected])], sizes.sum()),
        sentence_starts=starts,
        line_starts=starts[_changes(sentences.lines[selected])],
    )


def _changes(numbers: Array) -> Array:
    """Mark the numbers that differ from the one before them; the first number is always marked.

    >>> _changes(np.array([3, 3, 4, 4])).tolist()
    [True, False, True, False]
    """
    first = np.ones(len(numbers), bool)
    np.not_equal(numbers[1:], numbers[:-1], out=first[1:])
    return first


def _count_runs(numbers: Array) -> int:
    return int(np.count_nonzero(_changes(numbers)))


def _below(hashes: Array, share: float) -> Array:
    """Return which hashes belong to the lowest ``share`` of all possible ones."""
    return (hashes >> np.uint64(11)) < np.uint64(round(share * (1 << 53)))


def _lowest(hashes: Array) -> tuple[int, int] | None:
    """Return the lowest hash of some documents, and the number of its document.

    If a larger share were held out, this document would be the first of them.

    >>> _lowest(np.array([7, 3, 5], np.uint64))
    (3, 1)
    """
    if not len(hashes):
        return None
    number = int(np.argmin(hashes))
    return int(hashes[number]), number


def _note(path: Path, result: Mapping[str, Any]) -> None:
    """Write that something is finished."""
    # Not flushed to disk: if a power cut spoils it, the work is done again.
    with atomic_file(path, flush=False) as temporary:
        temporary.write_text(json.dumps(result), encoding="utf-8")


def _finished(note: Path, fingerprint: str, shards: Mapping[str, Path]) -> dict[str, Any] | None:
    """Return what an earlier run has noted as finished, if its shards are whole."""
    # There may be no note, and a power cut may have spoilt it.
    result = read_json_if_sound(note)
    if result.get("fingerprint") != fingerprint:
        return None
    for split, path in shards.items():
        entry = result[split]
        if entry and not (path.is_file() and sha256_of(path) == entry["sha256"]):
            return None
    return result


def peak_memory() -> int:
    """Return the most memory that this process ever held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
