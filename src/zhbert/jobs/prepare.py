"""Raw text files -> a corpus folder of words and pieces, ready for pretraining.

Reads text, JSON lines and arrays, csv, tsv, parquet, WikiExtractor's and SogouCS' articles (.gz,
.bz2, .xz, .zst too), folders, and stdin (-). Cuts the text into documents, lines, sentences, words
and pieces, and writes them to OUT. Work that was interrupted goes on where it stopped: run the same
command again. The result does not depend on --workers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zhbert import console, options
from zhbert.data.account import account, describe, remarks, warnings
from zhbert.data.blocks import (
    MOST_PLACES,
    BlockWorker,
    Settings,
    find_duplicates,
    start_worker,
    work,
)
from zhbert.data.documents import Block, Place, read_blocks
from zhbert.data.held_out import divide_document, move_document
from zhbert.data.read_options import DOCUMENTS, ReadOptions
from zhbert.data.shards import COUNTS, FORMAT, SPLITS, VERSION, flush_shards, merge_shards
from zhbert.data.sources import Sources, find_sources
from zhbert.data.texts import refusal
from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, read_json, remove, sweep, write_json
from zhbert.folders import Claim, locked
from zhbert.text.segmenters import SEGMENTERS, Segmenter
from zhbert.text.simplify import TRADITIONAL
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.tokenizer_files import find_tokenizer
from zhbert.text.vocab import default_vocabulary
from zhbert.text.words import AlignmentReport

# Told the stage's name, the bytes of the input that were read, and all there are (0: not known).
Progress = Callable[[str, int, int], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``zhbert prepare``."""
    parser.add_argument("files", nargs="+", metavar="FILES", help="files or folders; - is stdin")
    parser.add_argument("--out", required=True, type=Path, help="the corpus folder to make")
    parser.add_argument(
        "--vocab",
        type=Path,
        help="vocab.txt or a folder with a tokenizer (default: the vocabulary of this package)",
    )
    parser.add_argument("--segmenter", default="jieba", help=" | ".join(SEGMENTERS))
    parser.add_argument(
        "--segmenter-model",
        metavar="MODEL",
        help="ltp, pkuseg, thulac, hanlp: a model's file or folder, or a name the library knows",
    )
    parser.add_argument("--user-words", type=Path, help="a user dictionary of jieba, pkuseg, ...")
    parser.add_argument(
        "--traditional",
        choices=TRADITIONAL,
        default="characters",
        help="how traditional text is simplified, for finding words only (default: characters)",
    )
    parser.add_argument(
        "--documents",
        choices=DOCUMENTS,
        default="blank",
        help="in txt, what is a document: the text up to a blank line, a line, a file",
    )
    options.add_reading_arguments(parser)
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.01,
        help="share of documents set aside (default 0.01; at least one, unless it is 0)",
    )
    parser.add_argument(
        "--deduplicate", action="store_true", help="drop lines that stood before in the input"
    )
    parser.add_argument(
        "--on-error",
        choices=("skip", "fail"),
        default="skip",
        help="what cannot be read is skipped and counted, or stops the work (default: skip)",
    )
    parser.add_argument("--workers", type=int, help="processes (default: one for each CPU)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a corpus that stands in OUT"
    )


def run(args: argparse.Namespace) -> int:
    """Prepare, and print the account."""
    begin = time.perf_counter()
    try:
        with progress_bar(args.quiet or args.json) as progress:
            report = prepare(
                args.files,
                args.out,
                vocab=args.vocab,
                segmenter=args.segmenter,
                segmenter_model=args.segmenter_model,
                user_words=args.user_words,
                traditional=args.traditional,
                documents=args.documents,
                field=args.field,
                encoding=args.encoding,
                held_out=args.held_out,
                deduplicate=args.deduplicate,
                on_error=args.on_error,
                workers=processors() if args.workers is None else args.workers,
                overwrite=args.overwrite,
                progress=progress,
            )
    except KeyboardInterrupt:
        console.err().print(
            "stopped; finished shards are kept: run the same command again to go on"
        )
        raise
    report["seconds"] = time.perf_counter() - begin
    for warning in report["warnings"]:
        console.say(f"WARNING: {warning}")
    if args.json:
        console.print_json(report)
    else:
        console.out().print(describe(report), end="")
    return 0


def processors() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress]:
    """A progress bar for each stage: MB, MB/s and the time left."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Speed

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        DownloadColumn(),
        Speed(),
        TimeRemainingColumn(compact=True),
    )
    with console.progress(quiet, *columns) as bar:
        tasks: dict[str, Any] = {}

        def progress(stage: str, read: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total or None)
            bar.update(tasks[stage], completed=read)

        yield progress


def _silent(stage: str, read: int, total: int) -> None:
    """No progress."""


def prepare(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    vocab: str | Path | None = None,
    segmenter: str = "jieba",
    segmenter_model: str | Path | None = None,
    user_words: str | Path | None = None,
    traditional: str = "characters",
    documents: str = "blank",
    field: str | None = None,
    encoding: str | None = None,
    held_out: float = 0.01,
    deduplicate: bool = False,
    on_error: str = "skip",
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make the corpus folder ``out`` from text files; the options are those of the command line.

    Returns corpus.json with what is told but not stored: ``places`` where something could not be
    read, ``reused_blocks`` of an earlier, interrupted run, ``bytes`` read. With more than one
    worker the caller's script must be importable (``if __name__ == "__main__"``).
    Raises ZhbertError; what is finished by then stays, and the same call goes on from there.
    """
    _check_options(segmenter, traditional, documents, held_out, on_error, workers)
    out = Path(out)
    sources = find_sources(files, leave_out=out)
    settings = Settings(
        out=out,
        # Once: a name would lead every worker to the hub.
        vocabulary=default_vocabulary() if vocab is None else find_tokenizer(Path(vocab)),
        segmenter=segmenter,
        segmenter_model=segmenter_model,
        user_words=Path(user_words) if user_words is not None else None,
        traditional=traditional,
        reading=ReadOptions(documents=documents, field=field, encoding=encoding),
        held_out=held_out,
    )
    _put_away(settings)
    _claim(settings, overwrite).check()
    worker = BlockWorker(settings)
    described = _describe_settings(settings, worker.tokenizer, worker.segmenter, deduplicate)
    try:
        with locked(settings.out):
            folder = _Folder(settings, described, overwrite)
            folder.begin()
            job = _Job(settings, worker, sources, workers, on_error, progress or _silent)
            with closing(job.pool):
                return job.run(folder, described, deduplicate)
    except OSError as error:
        error.filename = error.filename or str(out)
        raise describe_os_error(error, "prepare: writing") from error


def _check_options(
    segmenter: str, traditional: str, documents: str, held_out: float, on_error: str, workers: int
) -> None:
    for name, value, known in (
        ("segmenter", segmenter, tuple(SEGMENTERS)),
        ("traditional", traditional, TRADITIONAL),
        ("documents", documents, DOCUMENTS),
        ("on-error", on_error, ("skip", "fail")),
    ):
        if value not in known:
            raise ZhbertError(f"--{name} {value}: unknown; known: {', '.join(known)}")
    if not 0 <= held_out < 1:
        raise ZhbertError(f"--held-out {held_out}: a share from 0 to less than 1 is expected")
    if workers < 1:
        raise ZhbertError(f"--workers {workers}: at least one is needed")


def _describe_settings(
    settings: Settings, tokenizer: Tokenizer, segmenter: Segmenter, deduplicate: bool
) -> dict[str, Any]:
    """All that the corpus's content depends on, but the input."""
    return {
        "vocabulary_size": len(tokenizer.vocabulary),
        "tokenizer": {"fingerprint": tokenizer.fingerprint()},
        "segmenter": {
            "name": segmenter.name,
            "version": segmenter.version,
            "options": segmenter.options,
        },
        "options": {
            "documents": settings.reading.documents,
            "field": settings.reading.field or "text",
            "held_out": settings.held_out,
            "deduplicate": deduplicate,
        }
        | ({"encoding": settings.reading.encoding} if settings.reading.encoding else {}),
    }


def _claim(settings: Settings, overwrite: bool) -> Claim:
    finished = (settings.out / "corpus.json").exists()
    return Claim(
        folder=settings.out,
        what="a finished corpus" if finished else "a corpus",
        is_ours=lambda folder: finished or settings.partial.is_dir(),
        overwrite=overwrite,
        goes_on=not finished,
    )


def _put_away(settings: Settings) -> None:
    """Remove the scaffolding of a finished corpus, whose process was killed before it could."""
    if (settings.out / "corpus.json").exists() and settings.partial.is_dir():
        with locked(settings.out):
            if (settings.out / "corpus.json").exists():
                remove(settings.partial)


class _Folder:
    """The corpus folder while it is being made."""

    def __init__(self, settings: Settings, described: dict[str, Any], overwrite: bool) -> None:
        self.settings = settings
        self.described = {"format": FORMAT, "version": VERSION} | described
        self.overwrite = overwrite

    def begin(self) -> None:
        out, partial = self.settings.out, self.settings.partial
        # Another process may have been there since the first look.
        _claim(self.settings, self.overwrite).check()
        finished = (out / "corpus.json").exists()
        known = partial / "settings.json"
        partial.mkdir(exist_ok=True)
        sweep(partial)
        if finished:
            # corpus.json goes first: what is left is then no corpus, but an unfinished one.
            (out / "corpus.json").unlink()
            self._clear()
        elif known.exists():
            before = read_json(known, dict)
            if before != self.described:
                what = ", ".join(_differences(before, self.described))
                if not self.overwrite:
                    raise ZhbertError(
                        f"{out}: an unfinished corpus of other settings ({what}): repeat the "
                        "command that began it, or add --overwrite to begin anew"
                    )
                self._clear()
        write_json(known, self.described)

    def _clear(self) -> None:
        for path in [*self._shards(), *self.settings.partial.iterdir()]:
            path.unlink()

    def _shards(self) -> list[Path]:
        return [path for split in SPLITS for path in self.settings.out.glob(f"{split}-*.arrow")]

    def discard(self) -> None:
        """Leave nothing behind: there is nothing to go on with."""
        self._clear()
        remove(self.settings.partial)

    def finish(self, info: dict[str, Any], tokenizer: Tokenizer) -> None:
        """Write corpus.json last of all, and put the scaffolding away."""
        out = self.settings.out
        listed = {entry["file"] for entries in info["shards"].values() for entry in entries}
        for path in self._shards():
            if path.name not in listed:
                path.unlink()
        flush_shards(out / name for name in sorted(listed))
        tokenizer.save_pretrained(out)
        write_json(out / "corpus.json", info)
        remove(self.settings.partial)
        # What workers of a killed process have left while this one was at work.
        sweep(out)


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """What differs, by name: ``options.held_out was 0.01, is 0.02``."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            inner = f"{name}.{key}" if name else key
            yield from _differences(before.get(key), now.get(key), inner)
    elif before != now:
        long = isinstance(now, str) and len(now) > 20
        yield f"{name} differs" if long else f"{name} was {before}, is {now}"


@dataclass
class _Work:
    """What became of all blocks."""

    counts: Counter[str] = field(default_factory=Counter)
    alignment: AlignmentReport = field(default_factory=AlignmentReport)
    places: list[Place] = field(default_factory=list)
    train: dict[int, dict[str, Any]] = field(default_factory=dict)  # shards, by block
    held_out: list[int] = field(default_factory=list)  # blocks
    held_out_documents: int = 0
    lowest: list[int] | None = None  # hash, document of its block, block
    aside: str = ""
    reused: int = 0
    peak: int = 0


class _Job:
    """Reads, has the blocks worked off, and puts the corpus together."""

    def __init__(
        self,
        settings: Settings,
        worker: BlockWorker,
        sources: Sources,
        workers: int,
        on_error: str,
        progress: Progress,
    ) -> None:
        self.settings = settings
        self.worker = worker
        self.sources = sources
        self.reading = settings.reading
        self.pool = _Here(worker) if workers == 1 else _Processes(settings, workers)
        self.on_error = on_error
        self.progress = progress
        self.read = 0

    def run(self, folder: _Folder, described: dict[str, Any], deduplicate: bool) -> dict[str, Any]:
        settings = self.settings
        if deduplicate:
            self._spool_stdin()
            blocks = 0
            for _, _ in self._map("hash_lines", "looking for duplicates"):
                blocks += 1
            find_duplicates(settings, blocks)
        else:
            for path in settings.partial.glob("duplicates-*.bin"):
                path.unlink()
        work = self._work()
        if not work.train and not work.held_out:
            folder.discard()
            first = min(work.places, key=lambda place: not place.error, default=None)
            hint = f"; the first trouble: {refusal(first, self.reading)}" if first else ""
            raise ZhbertError(f"the input holds no text that could be read{hint}")
        if settings.held_out:
            self._hold_something_out(work)
        train = [work.train[number] for number in sorted(work.train)]
        held_out = [settings.held_out_path(number) for number in sorted(work.held_out)]
        shards = {
            "train": train,
            "held_out": merge_shards(held_out, settings.out, "held_out"),
        }
        totals = {
            split: {name: sum(entry[name] for entry in entries) for name in COUNTS}
            for split, entries in shards.items()
        }
        info: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            **described,
            "totals": totals,
            "read": account(work.counts, totals, self.sources),
            "alignment": work.alignment.to_dict(),
            "shards": shards,
        }
        folder.finish(info, self.worker.tokenizer)
        return info | {
            "folder": str(settings.out),
            "places": [str(place) for place in work.places],
            "left_out": self.sources.describe_left_out(),
            "warnings": warnings(info["read"], self.reading),
            "remarks": [
                *self.worker.segmenter.remarks,
                *([work.aside] if work.aside else []),
                *remarks(info, work.counts),
            ],
            "reused_blocks": work.reused,
            "peak_memory": work.peak,
            "bytes": self.read,
        }

    def _work(self) -> _Work:
        """Have all blocks worked off."""
        done = _Work()
        for block, result in self._map("work", "words and pieces"):
            found = [*block.places, *(Place(*place) for place in result["places"])]
            found.sort(key=lambda place: (place.source, place.line))
            errors = [place for place in found if place.error]
            if self.on_error == "fail" and (errors or result["first_error"]):
                first = refusal(errors[0], self.reading) if errors else result["first_error"]
                raise ZhbertError(f"{first} (--on-error skip counts such places and goes on)")
            done.places += found[: MOST_PLACES - len(done.places)]
            done.counts.update(block.counts)
            done.counts.update(result["counts"])
            done.alignment += AlignmentReport(**result["alignment"])
            done.reused += result["reused"]
            done.peak = max(done.peak, result["peak_memory"])
            if result["train"]:
                done.train[block.number] = result["train"]
                if lowest := result.get("lowest"):
                    done.lowest = min([*lowest, block.number], done.lowest or [2**64])
            if result["held_out"]:
                done.held_out.append(block.number)
                done.held_out_documents += result["held_out"]["documents"]
        return done

    def _hold_something_out(self, done: _Work) -> None:
        """Where the documents' hashes left nothing to evaluate on, or nothing to train on."""
        settings = self.settings
        documents = sum(entry["documents"] for entry in done.train.values())
        if documents + done.held_out_documents == 1:
            (number,) = [*done.train, *done.held_out]
            train, aside = settings.train_path(number), settings.held_out_path(number)
            divided = divide_document(
                train if done.train else aside, settings.held_out, train, aside
            )
            if divided is None:
                done.aside = "nothing could be held out: the text is a single sentence"
                return
            done.train[number], what, in_a_line = divided
            done.held_out = [number]
            done.counts.update(["documents.found", "documents.divided"])
            done.counts["lines.found"] += in_a_line
            done.aside = f"the text is one document: its last {what} became another one, held out"
        elif not done.held_out and done.lowest:
            _, document, number = done.lowest
            train, aside = settings.train_path(number), settings.held_out_path(number)
            if done.train[number]["documents"] == 1:
                train.replace(aside)
                del done.train[number]
            else:
                done.train[number] = move_document(train, document, aside)
            done.held_out = [number]
            done.aside = (
                f"held out: the document with the lowest hash, for lack of one among the first "
                f"{settings.held_out:.2%} of all hashes"
            )

    def _spool_stdin(self) -> None:
        """Two passes need the input twice."""
        import sys

        for number, source in enumerate(self.sources):
            if source.path is None:
                path = self.settings.partial / "stdin"
                with path.open("wb") as file:
                    shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
                self.sources[number] = replace(source, path=path, size=path.stat().st_size)

    def _map(self, method: str, stage: str) -> Iterator[tuple[Block, Any]]:
        """Have each block worked off by that method of BlockWorker; in order."""
        self.read = 0
        stdin = any(source.path is None for source in self.sources)
        total = 0 if stdin else sum(source.size for source in self.sources)
        self.progress(stage, 0, total)
        for block, result in self.pool.map(method, read_blocks(self.sources, self.reading)):
            self.read = block.read_to
            self.progress(stage, self.read, total)
            yield block, result


class _Here:
    """One worker: this process."""

    def __init__(self, worker: BlockWorker) -> None:
        self.worker = worker

    def map(self, method: str, blocks: Iterable[Block]) -> Iterator[tuple[Block, Any]]:
        """The method's results for each block, in order."""
        for block in blocks:
            yield block, getattr(self.worker, method)(block)

    def close(self) -> None:
        """Nothing to close."""


class _Processes:
    """Several workers: processes that are started afresh."""

    def __init__(self, settings: Settings, workers: int) -> None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        self.workers = workers
        self.pool = ProcessPoolExecutor(
            workers,
            # Never fork: the caller may hold threads and locks (torch does).
            mp_context=multiprocessing.get_context("spawn"),
            initializer=start_worker,
            initargs=(settings,),
        )

    def map(self, method: str, blocks: Iterable[Block]) -> Iterator[tuple[Block, Any]]:
        """The method's results for each block, in order; few blocks wait at a time."""
        from concurrent.futures import Future
        from concurrent.futures.process import BrokenProcessPool

        waiting: deque[tuple[Block, Future[Any]]] = deque()
        try:
            for block in blocks:
                waiting.append((block, self.pool.submit(work, method, block)))
                if len(waiting) > self.workers + 1:
                    yield waiting[0][0], waiting.popleft()[1].result()
            while waiting:
                yield waiting[0][0], waiting.popleft()[1].result()
        except BrokenProcessPool:
            raise ZhbertError(
                "a worker process died (out of memory?): run the same command again with fewer "
                "--workers; finished shards are kept"
            ) from None

    def close(self) -> None:
        """Stop the processes; on an error or Ctrl-C nobody waits for blocks in work."""
        for process in list((getattr(self.pool, "_processes", None) or {}).values()):
            process.kill()
        self.pool.shutdown(cancel_futures=True)
