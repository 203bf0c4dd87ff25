"""One block of raw text -> its shards: what a worker of ``zhbert prepare`` does."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zhbert.data.blocks import TextBlock
from zhbert.data.corpus_folder import CorpusPaths
from zhbert.data.duplicates import store_hashes
from zhbert.data.outline import Outline, outline
from zhbert.data.read_options import ReadOptions
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
        hashes = outline(block, self.settings.reading).line_hashes()
        store_hashes(self.settings.paths.line_hashes(block.number), hashes)
        return len(hashes)

    def prepare(self, block: TextBlock) -> dict[str, Any]:
        """Write the block's shards and its result; if they are there already, keep them."""
        paths = self.settings.paths
        duplicates = np.zeros(0, np.uint32)
        with suppress(FileNotFoundError):
            duplicates = np.fromfile(paths.duplicates(block.number), np.uint32)
        fingerprint = block.fingerprint() + (
            f"-{hashlib.sha256(duplicates.data).hexdigest()}" if len(duplicates) else ""
        )
        finished = _finished(paths, block.number, fingerprint)
        if finished is not None:
            return finished | {"reused": True, "peak_memory": peak_memory()}
        found = outline(block, self.settings.reading)
        # The raw bytes are not needed any more: they would only add to the peak of the memory.
        block.segments.clear()
        result = self._prepare(block.number, found, duplicates) | {"fingerprint": fingerprint}
        # Not flushed to disk: if a power cut spoils it, the block is done again.
        with atomic_file(paths.result(block.number), flush=False) as temporary:
            temporary.write_text(json.dumps(result), encoding="utf-8")
        return result | {"reused": False, "peak_memory": peak_memory()}

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
            "places": [
                [place.source, place.name, place.line, place.reason, place.error]
                for place in found.places[:MOST_PLACES]
            ],
            # With --on-error fail the first error counts, however many remarks stand before it.
            "first_error": next((str(place) for place in found.places if place.error), None),
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
        return {
            "train": _write(settings.paths.train(number), sentences, pieces, train),
            "held_out": _write(
                settings.paths.held_out(number), sentences, pieces, present & held_out
            ),
            "lowest": _lowest(hashes[owners[_changes(owners)]]),
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


def _write(
    path: Path, sentences: _Sentences, pieces: _EncodedSentences, selected: Array
) -> dict[str, Any] | None:
    """Write a shard of the selected sentences; None, and no file, where there are none."""
    if selected.any():
        return write_shard(path, _select(sentences, pieces, selected))
    path.unlink(missing_ok=True)
    return None


def _select(sentences: _Sentences, pieces: _EncodedSentences, selected: Array) -> Documents:
    """Return the selected sentences' pieces as documents."""
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


def _finished(paths: CorpusPaths, number: int, fingerprint: str) -> dict[str, Any] | None:
    """Return the result of a block that an earlier run has finished, if its shards are whole."""
    # There may be none, and a power cut may have spoilt it.
    result = read_json_if_sound(paths.result(number))
    if result.get("fingerprint") != fingerprint:
        return None
    for split, path in (("train", paths.train(number)), ("held_out", paths.held_out(number))):
        entry = result[split]
        if entry and not (path.is_file() and sha256_of(path) == entry["sha256"]):
            return None
    return result


def peak_memory() -> int:
    """Return the most memory that this process ever held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
