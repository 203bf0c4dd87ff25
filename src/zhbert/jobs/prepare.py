"""Raw text files -> a corpus folder of words and pieces, ready for pretraining.

Reads txt, jsonl and parquet (.gz, .bz2, .xz, .zst too), folders, and stdin (-). Cuts the text into
documents, lines, sentences, words and pieces, and writes them to OUT. Work that was interrupted
goes on where it stopped: run the same command again. The result does not depend on --workers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from zhbert.data.documents import (
    DOCUMENTS,
    Block,
    Place,
    Reading,
    Source,
    find_sources,
    read_blocks,
)
from zhbert.data.shards import FORMAT, VERSION, flush_shards, merge_shards
from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, read_json, remove, sweep, write_json
from zhbert.folders import Claim, locked
from zhbert.jobs import console
from zhbert.jobs.blocks import (
    MOST_PLACES,
    BlockWorker,
    Settings,
    find_duplicates,
    start_worker,
    work,
)
from zhbert.text.segment import SEGMENTERS, TRADITIONAL, Segmenter
from zhbert.text.tokenizer import Tokenizer
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
    parser.add_argument("--field", help="jsonl, parquet: the field with the text (default: text)")
    parser.add_argument(
        "--held-out", type=float, default=0.01, help="share of documents set aside (default 0.01)"
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
                held_out=args.held_out,
                deduplicate=args.deduplicate,
                on_error=args.on_error,
                workers=processors() if args.workers is None else args.workers,
                overwrite=args.overwrite,
                progress=progress,
            )
    except KeyboardInterrupt:
        console.err().print(
            "stopped; finished shards are kept: run the same command again to go on", markup=False
        )
        raise
    report["seconds"] = time.perf_counter() - begin
    if args.json:
        console.print_json(report)
    else:
        console.out().print(describe(report), markup=False, end="")
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
        vocabulary=Path(vocab) if vocab is not None else _shipped_vocabulary(),
        segmenter=segmenter,
        segmenter_model=segmenter_model,
        user_words=Path(user_words) if user_words is not None else None,
        traditional=traditional,
        reading=Reading(documents=documents, field=field),
        held_out=held_out,
    )
    _claim(settings, overwrite).check()
    worker = BlockWorker(settings)
    described = _describe_settings(settings, worker.tokenizer, worker.segmenter, deduplicate)
    try:
        with _held(settings, described, overwrite) as folder:
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


def _shipped_vocabulary() -> Path:
    path = resources.files("zhbert") / "assets" / "vocab.txt"
    return Path(str(path))


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
        },
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


@contextmanager
def _held(settings: Settings, described: dict[str, Any], overwrite: bool) -> Iterator[_Folder]:
    """The corpus folder, held by this process, checked, begun or gone on with."""
    with locked(settings.out):
        folder = _Folder(settings, described, overwrite)
        folder.begin()
        yield folder


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
        out, partial = self.settings.out, self.settings.partial
        for pattern in ("train-*.arrow", "held_out-*.arrow"):
            for path in out.glob(pattern):
                path.unlink()
        for path in partial.iterdir():
            path.unlink()

    def discard(self) -> None:
        """Leave nothing behind: there is nothing to go on with."""
        self._clear()
        remove(self.settings.partial)

    def finish(self, info: dict[str, Any], tokenizer: Tokenizer) -> None:
        """Write corpus.json last of all, and put the scaffolding away."""
        out = self.settings.out
        listed = {entry["file"] for entries in info["shards"].values() for entry in entries}
        for pattern in ("train-*.arrow", "held_out-*.arrow"):
            for path in out.glob(pattern):
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


class _Job:
    """Reads, has the blocks worked off, and puts the corpus together."""

    def __init__(
        self,
        settings: Settings,
        worker: BlockWorker,
        sources: list[Source],
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
        counts: Counter[str] = Counter()
        alignment = AlignmentReport()
        places: list[Place] = []
        train: list[dict[str, Any]] = []
        held_out: list[Path] = []
        reused = peak = 0
        for block, result in self._map("work", "words and pieces"):
            found = [*block.places, *(Place(*place) for place in result["places"])]
            found.sort(key=lambda place: (place.source, place.line))
            errors = [place for place in found if place.error]
            if self.on_error == "fail" and (errors or result["first_error"]):
                first = str(errors[0]) if errors else result["first_error"]
                raise ZhbertError(f"{first} (--on-error skip counts such places and goes on)")
            places += found[: MOST_PLACES - len(places)]
            counts.update(block.counts)
            counts.update(result["counts"])
            alignment += AlignmentReport(**result["alignment"])
            reused += result["reused"]
            peak = max(peak, result["peak_memory"])
            if result["train"]:
                train.append(result["train"])
            if result["held_out"]:
                held_out.append(settings.held_out_path(block.number))
        if not train and not held_out:
            folder.discard()
            hint = f"; the first trouble: {places[0]}" if places else ""
            raise ZhbertError(f"the input holds no text that could be read{hint}")
        shards = {
            "train": train,
            "held_out": merge_shards(held_out, settings.out, "held_out"),
        }
        totals = {
            split: {
                name: sum(entry[name] for entry in entries)
                for name in ("documents", "sentences", "lines", "words", "pieces")
            }
            for split, entries in shards.items()
        }
        info: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            **described,
            "totals": totals,
            "read": _account(counts, totals),
            "alignment": alignment.to_dict(),
            "shards": shards,
        }
        folder.finish(info, self.worker.tokenizer)
        return info | {
            "folder": str(settings.out),
            "places": [str(place) for place in places],
            "remarks": list(getattr(self.worker.segmenter, "remarks", [])),
            "reused_blocks": reused,
            "peak_memory": peak,
            "bytes": self.read,
        }

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


_SKIPPED = ("broken_utf8", "bad_json", "missing_field", "wrong_type", "too_long")


def _account(counts: Counter[str], totals: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Where everything that was read has gone; the sums are equalities."""
    train, held_out = totals["train"], totals["held_out"]
    tokens = {key.split(".", 1)[1]: n for key, n in counts.items() if "special_tokens." in key}
    return {
        "documents": {
            "found": counts["documents.found"],
            "train": train["documents"],
            "held_out": held_out["documents"],
            "empty": counts["documents.empty"],
            "without_pieces": counts["documents.without_pieces"],
            "duplicates_only": counts["documents.duplicates_only"],
            "skipped": {what: counts[f"documents.{what}"] for what in _SKIPPED},
        },
        "lines": {
            "found": counts["lines.found"],
            "train": train["lines"],
            "held_out": held_out["lines"],
            "blank": counts["lines.blank"],
            "without_pieces": counts["lines.without_pieces"],
            "duplicate": counts["lines.duplicate"],
            "broken_utf8": counts["lines.broken_utf8"],
        },
        "pieces": {
            "encoded": counts["pieces.encoded"],
            "train": train["pieces"],
            "held_out": held_out["pieces"],
        },
        "split": {
            "documents": counts["documents.split"],
            "lines": counts["lines.split"],
            "sentences": counts["sentences.cut"],
        },
        "sentences_cut_by_character": counts["sentences.unaligned"],
        "files": {
            "read": counts["files.read"],
            "empty": counts["files.empty"],
            "damaged": counts["files.damaged"],
        },
        "characters": {
            "nul": counts["characters.nul"],
            "lone_surrogates": counts["characters.lone_surrogates"],
        },
        "special_token_strings": dict(sorted(tokens.items())),
    }


def describe(report: dict[str, Any]) -> str:
    """The account of a prepared corpus, for people."""
    read = report["read"]
    documents, lines, pieces = read["documents"], read["lines"], read["pieces"]

    def others(part: dict[str, Any], names: Sequence[str]) -> str:
        return "".join(
            f" + {part[name]:,} {name.replace('_', ' ')}" for name in names if part[name]
        )

    skipped = sum(documents["skipped"].values())
    reasons = ", ".join(
        f"{n:,} {what.replace('_', ' ')}" for what, n in documents["skipped"].items() if n
    )
    rows = [
        f"{report['folder']}: {len(report['shards']['train'])} shards for training, "
        f"{len(report['shards']['held_out'])} held out",
        f"documents  {documents['found']:,} read = {documents['train']:,} training + "
        f"{documents['held_out']:,} held out"
        + others(documents, ("empty", "without_pieces", "duplicates_only"))
        + (f" + {skipped:,} skipped ({reasons})" if skipped else ""),
        f"lines      {lines['found']:,} read = {lines['train']:,} training + "
        f"{lines['held_out']:,} held out"
        + others(lines, ("blank", "without_pieces", "duplicate", "broken_utf8")),
        f"pieces     {pieces['encoded']:,} made = {pieces['train']:,} training + "
        f"{pieces['held_out']:,} held out",
        AlignmentReport(
            report["alignment"]["words"],
            report["alignment"]["pieces"],
            report["alignment"]["widened_words"],
            report["alignment"]["unknown_pieces"],
            report["alignment"]["pieces_per_word"],
        ).describe(),
    ]
    split = {what: n for what, n in read["split"].items() if n}
    if split:
        parts = ", ".join(f"{n:,} {what}" for what, n in split.items())
        rows.append(f"split because too long: {parts}; nothing of them is lost")
    by_character = read["sentences_cut_by_character"]
    if by_character:
        rows.append(
            f"{by_character:,} sentences have a word for each character: what "
            f"{report['segmenter']['name']} made of them was not found in the text"
        )
    if read["files"]["empty"] or read["files"]["damaged"]:
        rows.append(
            f"files      {read['files']['read']:,} read, {read['files']['empty']:,} of them empty, "
            f"{read['files']['damaged']:,} damaged"
        )
    for what, n in read["characters"].items():
        if n:
            rows.append(f"{n:,} {what.replace('_', ' ')} characters were dropped")
    tokens = read["special_token_strings"]
    if tokens:
        parts = ", ".join(f"{token} {n:,}" for token, n in tokens.items())
        rows.append(f"strings like special tokens, kept as plain text: {parts}")
    rows += report.get("remarks", [])
    if report["places"]:
        rows.append(f"where (the first {MOST_PLACES} places at most):")
        rows += [f"  {place}" for place in report["places"]]
    if report["reused_blocks"]:
        rows.append(
            f"{report['reused_blocks']:,} blocks were finished before and taken as they were"
        )
    if "seconds" in report:
        speed = report["bytes"] / 1e6 / max(report["seconds"], 1e-9)
        rows.append(
            f"{report['bytes'] / 1e6:,.1f} MB in {report['seconds']:.1f} s: {speed:.1f} MB/s; "
            f"a worker's peak memory: {report['peak_memory'] / 1e6:.0f} MB"
        )
    return "\n".join(rows) + "\n"
