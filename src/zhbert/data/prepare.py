"""Raw text files -> a corpus folder: documents of pieces with word boundaries.

The input is cut into blocks. Workers turn each block into a shard, and what becomes of a block
depends on the block alone: so neither the number of workers nor where they run changes the corpus,
and an interrupted preparation goes on where it stopped.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from zhbert.data import ENGINES
from zhbert.data.account import account, remarks, warnings
from zhbert.data.block_worker import MOST_PLACES, BlockWorker, PreparationSettings
from zhbert.data.blocks import Place, TextBlock, read_blocks
from zhbert.data.corpus_folder import CorpusFolder, CorpusPaths
from zhbert.data.duplicates import partitions
from zhbert.data.held_out import divide_document, move_document
from zhbert.data.pools import InProcess, Item, Pool, Processes, check_may_start_processes
from zhbert.data.read_options import DOCUMENTS, ON_ERROR, ReadOptions
from zhbert.data.scatter import scattered_shards
from zhbert.data.shards import COUNTS, FORMAT, VERSION, merge_shards
from zhbert.data.sources import Sources, find_sources
from zhbert.data.texts import refusal
from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error
from zhbert.folders import locked
from zhbert.text.segmenters import Segmenter, segmenter_loader
from zhbert.text.segmenters.protocol import check_segmenter, describe_segmenter
from zhbert.text.simplify import TRADITIONAL
from zhbert.text.tokenizer_files import find_tokenizer
from zhbert.text.vocab import default_vocabulary
from zhbert.text.words import AlignmentReport

PrepareProgress = Callable[[str, int, int], None]
"""Told the stage's name, the bytes of the input that were read, and all there are (0: unknown)."""


def _silent(stage: str, read: int, total: int) -> None:
    """Tell nobody of the progress."""


def prepare(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    vocab: str | Path | None = None,
    segmenter: str | Segmenter = "jieba",
    segmenter_model: str | Path | None = None,
    user_words: str | Path | None = None,
    traditional: str = "characters",
    documents: str = "blank",
    field: str | None = None,
    encoding: str | None = None,
    held_out: float = 0.01,
    deduplicate: bool = False,
    scatter: bool = False,
    on_error: str = "skip",
    engine: str = "local",
    address: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: PrepareProgress | None = None,
) -> dict[str, Any]:
    """Make a corpus folder from text files, as ``zhbert prepare`` does.

    With more than one worker the caller's script must be importable, that is, it must protect its
    own work by ``if __name__ == "__main__"``.

    Args:
        files: files and folders to read; "-" is stdin.
        out: the corpus folder to make. Unfinished work of the same settings is gone on with.
        vocab: vocab.txt or a folder with a tokenizer; None: the vocabulary of this package.
        segmenter: what finds the words: a name in ``zhbert.text.segmenters.SEGMENTERS``, or a
            segmenter, which several workers get pickled.
        segmenter_model: for ltp, pkuseg, thulac and hanlp: a file, a folder or a name.
        user_words: a user dictionary.
        traditional: how traditional text is simplified to find words in it: ``characters``,
            ``opencc`` or ``none``.
        documents: what a document is in plain text: the text up to a ``blank`` line, a ``line``, a
            ``file``.
        field: the field or column that holds the text in JSON, csv, tsv and parquet.
        encoding: how the text is encoded, where it has no byte order mark.
        held_out: share of documents that are set aside to evaluate on.
        deduplicate: drop lines that stood before in the input.
        scatter: scatter the training documents over the shards by a hash of their pieces, so that
            neighbours seldom have one source.
        on_error: what cannot be read is counted (``skip``), or stops the work (``fail``).
        engine: where blocks are worked on: by processes of this machine (``local``), or of all
            machines of a Ray cluster (``ray``), which must see the files under the same names.
        address: the cluster's; None: what Ray finds (RAY_ADDRESS, or a cluster on this machine),
            else a cluster of this machine alone is started.
        workers: number of processes; None: one, or one per CPU of the cluster.
        overwrite: replace a corpus that stands in ``out``.
        progress: called again and again with the stage, the bytes that were read, and all bytes.

    Returns:
        What corpus.json holds, and what is not stored: ``places`` where something could not be
        read, ``warnings`` and ``remarks``, ``reused_blocks`` of an earlier, interrupted run,
        ``bytes`` read, ``peak_memory`` of a worker.

    Raises:
        ZhbertError: nothing can be read, or something cannot be written. What was finished by then
            stays, and the same call goes on from there.
    """
    _check_options(traditional, documents, held_out, on_error, engine)
    _check_workers(engine, workers, address)
    paths = CorpusPaths(Path(out))
    sources = find_sources(files, leave_out=paths.out)
    settings = PreparationSettings(
        paths=paths,
        # Found here: given a name, every worker would ask the hub.
        vocabulary=default_vocabulary() if vocab is None else find_tokenizer(Path(vocab)),
        load_segmenter=_loader(segmenter, user_words, traditional, segmenter_model),
        reading=ReadOptions(documents=documents, field=field, encoding=encoding),
        held_out=held_out,
        deduplicate=deduplicate,
        scatter=scatter,
    )
    folder = CorpusFolder(paths, overwrite)
    folder.check()
    worker = BlockWorker(settings)
    described = _describe(settings, worker)
    start = partial(_start_pool, worker, described, engine, address, workers)
    try:
        with locked(paths.out), closing(start()) as pool:
            folder.begin(described)
            builder = _CorpusBuilder(settings, sources, pool, folder, on_error, progress or _silent)
            return builder.build(worker, described)
    except OSError as error:
        error.filename = error.filename or str(out)
        reading = isinstance(error, FileNotFoundError)  # a file that was there before
        raise describe_os_error(error, f"prepare: {'reading' if reading else 'writing'}") from error


def _start_pool(
    worker: BlockWorker,
    described: Mapping[str, Any],
    engine: str,
    address: str | None,
    workers: int | None,
) -> Pool:
    if engine == "ray":
        from zhbert.data.ray_pool import RayTasks

        return RayTasks(worker.settings, described, address, workers)
    return InProcess(worker) if workers in (None, 1) else Processes(worker.settings, workers)


def _check_options(
    traditional: str, documents: str, held_out: float, on_error: str, engine: str
) -> None:
    for name, value, known in (
        ("traditional", traditional, TRADITIONAL),
        ("documents", documents, DOCUMENTS),
        ("on-error", on_error, ON_ERROR),
        ("engine", engine, ENGINES),
    ):
        if value not in known:
            raise ZhbertError(f"--{name} {value}: unknown; known: {', '.join(known)}")
    if not 0 <= held_out < 1:
        raise ZhbertError(f"--held-out {held_out}: a share from 0 to less than 1 is expected")


def _check_workers(engine: str, workers: int | None, address: str | None) -> None:
    if workers is not None and workers < 1:
        raise ZhbertError(f"--workers {workers}: at least one is needed")
    if address is not None and engine != "ray":
        raise ZhbertError(f"--address {address}: of a Ray cluster: add --engine ray")
    if engine == "local" and workers not in (None, 1):
        check_may_start_processes()


def _loader(
    segmenter: str | Segmenter,
    user_words: str | Path | None,
    traditional: str,
    model: str | Path | None,
) -> Callable[[], Segmenter]:
    """What makes the segmenter, in each process."""
    if isinstance(segmenter, str):
        words = None if user_words is None else Path(user_words)
        return segmenter_loader(segmenter, user_words=words, traditional=traditional, model=model)
    check_segmenter(segmenter)
    if user_words is not None or model is not None:
        raise ZhbertError(
            f"segmenter {segmenter.name}: is loaded already; give its words and its model when "
            "you make it"
        )
    return partial(_itself, segmenter)


def _itself(segmenter: Segmenter) -> Segmenter:
    return segmenter


def _describe(settings: PreparationSettings, worker: BlockWorker) -> dict[str, Any]:
    """Return all that the corpus's content depends on, except the input."""
    tokenizer, segmenter, reading = worker.tokenizer, worker.segmenter, settings.reading
    options = {
        "documents": reading.documents,
        "field": reading.field or "text",
        "held_out": settings.held_out,
        "deduplicate": settings.deduplicate,
    }
    if reading.encoding:
        options["encoding"] = reading.encoding
    if settings.scatter:
        options["scatter"] = True
    return {
        "vocabulary_size": len(tokenizer.vocabulary),
        "tokenizer": {"fingerprint": tokenizer.fingerprint()},
        "segmenter": describe_segmenter(segmenter),
        "options": options,
    }


@dataclass
class _Results:
    """What became of all blocks."""

    counts: Counter[str] = field(default_factory=Counter)
    alignment: AlignmentReport = field(default_factory=AlignmentReport)
    places: list[Place] = field(default_factory=list)
    train: dict[int, dict[str, Any]] = field(default_factory=dict)
    """the entries of the training shards, by block"""
    held_out: list[int] = field(default_factory=list)
    """the blocks that have held-out documents"""
    held_out_documents: int = 0
    lowest: list[int] | None = None
    """the lowest hash of a training document, the document's number in its block, and the block"""
    remark: str = ""
    """how something was held out that the hashes alone would not have"""
    reused: int = 0
    peak_memory: int = 0

    def add(self, block: TextBlock, result: Mapping[str, Any], places: Sequence[Place]) -> None:
        """Add what became of a block, where ``places`` tell of both its reading and its text."""
        self.places += places[: MOST_PLACES - len(self.places)]
        self.counts.update(block.counts)
        self.counts.update(result["counts"])
        self.alignment += AlignmentReport(**result["alignment"])
        self.reused += result["reused"]
        self.peak_memory = max(self.peak_memory, result["peak_memory"])
        if result["train"]:
            self.train[block.number] = result["train"]
            if lowest := result.get("lowest"):
                self.lowest = min([*lowest, block.number], self.lowest or [2**64])
        if result["held_out"]:
            self.held_out.append(block.number)
            self.held_out_documents += result["held_out"]["documents"]


class _CorpusBuilder:
    """Reads the input, has its blocks worked on, and puts the corpus together."""

    def __init__(
        self,
        settings: PreparationSettings,
        sources: Sources,
        pool: Pool,
        folder: CorpusFolder,
        on_error: str,
        progress: PrepareProgress,
    ) -> None:
        self._settings = settings
        self._paths = settings.paths
        self._sources = sources
        self._reading = settings.reading
        self._pool = pool
        self._folder = folder
        self._on_error = on_error
        self._progress = progress
        self._read = 0  # bytes of the input

    def build(self, worker: BlockWorker, described: Mapping[str, Any]) -> dict[str, Any]:
        """Make the corpus and return the report."""
        if self._settings.deduplicate:
            self._find_duplicates()
        results = self._prepare_blocks()
        if not results.train and not results.held_out:
            self._folder.discard()
            raise self._no_text(results)
        if self._settings.held_out:
            self._hold_something_out(results)
        if self._settings.scatter:
            self._scatter(results)
        info = self._describe_corpus(results, described)
        self._folder.finish(info, worker.tokenizer)
        return info | {
            "folder": str(self._paths.out),
            "places": [str(place) for place in results.places],
            "left_out": self._sources.describe_left_out(),
            "warnings": warnings(info["read"], self._reading),
            "remarks": [
                *worker.segmenter.remarks,
                *([results.remark] if results.remark else []),
                *remarks(info, results.counts),
            ],
            "reused_blocks": results.reused,
            "peak_memory": results.peak_memory,
            "bytes": self._read,
        }

    def _find_duplicates(self) -> None:
        self._store_stdin()
        # Other input may have had more of them.
        for path in self._paths.partial.glob("duplicates-*.bin"):
            path.unlink()
        blocks = sum(1 for _ in self._map_blocks("hash_lines", "looking for duplicates"))
        runs = partitions(self._paths, blocks)
        for _ in self._map("find_duplicates", "comparing lines", runs, [run.lines for run in runs]):
            pass
        for block in range(blocks):
            self._paths.line_hashes(block).unlink()

    def _store_stdin(self) -> None:
        """Write stdin to a file, because the input will be read twice."""
        for number, source in enumerate(self._sources):
            if source.path is None:
                path = self._paths.partial / "stdin"
                with path.open("wb") as file:
                    shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
                self._sources[number] = replace(source, path=path, size=path.stat().st_size)

    def _prepare_blocks(self) -> _Results:
        results = _Results()
        lines = Counter[int]()  # that a source has before what is in this block
        for block, result in self._map_blocks("prepare", "words and pieces"):

            def in_file(place: Place) -> Place:
                # 0 is the whole file.
                before = lines[place.source] if place.line else 0
                return replace(place, line=place.line + before)

            found = [Place(*place) for place in result["places"]]
            places = [in_file(place) for place in (*block.places, *found)]
            places.sort(key=lambda place: (place.source, place.line))
            if self._on_error == "fail":
                rest = [in_file(Place(*result["error"]))] if result.get("error") else []
                self._check_places([*places, *rest])
            results.add(block, result, places)
            lines.update(result["line_ends"])
        return results

    def _check_places(self, places: Iterable[Place]) -> None:
        """Raise the first error among the places."""
        if error := next((place for place in places if place.error), None):
            raise ZhbertError(
                f"{refusal(error, self._reading)} (--on-error skip counts such places and goes on)"
            )

    def _map_blocks(self, method: str, stage: str) -> Iterator[tuple[TextBlock, Any]]:
        """Have each block worked on by that method of BlockWorker; yield the results in order."""
        self._read = 0
        stdin = any(source.path is None for source in self._sources)
        total = 0 if stdin else sum(source.size for source in self._sources)
        self._progress(stage, 0, total)
        blocks = read_blocks(self._sources, self._reading, unread=True)
        for block, result in self._pool.map(method, self._folder.check_text(blocks)):
            self._read = block.read_to
            self._progress(stage, self._read, total)
            yield block, result

    def _map(
        self, method: str, stage: str, items: Sequence[Item], sizes: Sequence[int]
    ) -> Iterator[tuple[Item, Any]]:
        """Likewise for other things than blocks, whose sizes add up to the progress."""
        done, total = 0, sum(sizes)
        for size, found in zip(sizes, self._pool.map(method, items), strict=True):
            done += size
            self._progress(stage, done, total)
            yield found

    def _scatter(self, results: _Results) -> None:
        """Put the shards together from those of all blocks."""
        blocks = results.train
        wanted = list(scattered_shards(blocks))
        sizes = [blocks[shard.number]["bytes"] for shard in wanted]
        found = self._map("scatter", "scattering documents", wanted, sizes)
        results.train = {shard.number: done["train"] for shard, done in found if done["train"]}

    def _no_text(self, results: _Results) -> ZhbertError:
        first = min(results.places, key=lambda place: not place.error, default=None)
        hint = f"; the first trouble: {refusal(first, self._reading)}" if first else ""
        return ZhbertError(f"the input holds no text that could be read{hint}")

    def _hold_something_out(self, results: _Results) -> None:
        """Set something aside where the hashes of so few documents did not divide them."""
        documents = sum(entry["documents"] for entry in results.train.values())
        if documents + results.held_out_documents == 1:
            self._divide_only_document(results)
        elif not results.held_out and results.lowest:
            self._move_lowest_document(results, *results.lowest[1:])

    def _divide_only_document(self, results: _Results) -> None:
        (number,) = [*results.train, *results.held_out]
        train, aside = self._settings.train(number), self._paths.held_out(number)
        shard = train if results.train else aside
        divided = divide_document(shard, self._settings.held_out, train, aside)
        if divided is None:
            results.remark = "nothing could be held out: the text is a single sentence"
            return
        results.train[number], what, inside_line = divided
        results.held_out = [number]
        results.counts.update(["documents.found", "documents.divided"])
        results.counts["lines.found"] += inside_line
        results.remark = f"the text is one document: its last {what} became another one, held out"

    def _move_lowest_document(self, results: _Results, document: int, block: int) -> None:
        train, aside = self._settings.train(block), self._paths.held_out(block)
        if results.train[block]["documents"] == 1:
            train.replace(aside)
            del results.train[block]
        else:
            results.train[block] = move_document(train, document, aside)
        results.held_out = [block]
        results.remark = (
            "held out: the document with the lowest hash, for lack of one among the first "
            f"{self._settings.held_out:.2%} of all hashes"
        )

    def _describe_corpus(self, results: _Results, described: Mapping[str, Any]) -> dict[str, Any]:
        """What corpus.json will hold; merges the held-out parts of all blocks."""
        held_out = [self._paths.held_out(number) for number in sorted(results.held_out)]
        shards = {
            "train": [results.train[number] for number in sorted(results.train)],
            "held_out": merge_shards(held_out, self._paths.out, "held_out"),
        }
        totals = {
            split: {name: sum(entry[name] for entry in entries) for name in COUNTS}
            for split, entries in shards.items()
        }
        return {
            "format": FORMAT,
            "version": VERSION,
            **described,
            "totals": totals,
            "read": account(results.counts, totals, self._sources),
            "alignment": results.alignment.to_dict(),
            "shards": shards,
        }
