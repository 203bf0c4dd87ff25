"""What a rank of a run takes on a corpus larger than memory: memory, first batch, rate, seeking.

python benchmarks/large_corpus.py TEXT ...       (11,900 shards of 5.5 M pieces: 200 GB of text)

The corpus has one real shard, of the first 16 MB of the given text, under 11,900 names: hard links
in a temporary folder. Its disk reads are therefore not measured, everything else is. Memory is what
the process has for itself ("RssAnon" of Linux); mapped files, which the system frees when it needs
the memory, are shown apart ("RssFile"). Each setting runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHARD_BYTES = 16_000_000
COUNTED_WINDOWS = 30
SETTINGS = (("full-sentences", 128), ("pairs", 128), ("lines", 128), ("pairs", 512))


def make_corpus(texts: list[Path], folder: Path, shards: int) -> None:
    """Prepare a shard, and make a corpus of it and of links to it."""
    import zhbert

    text = folder / "text.txt"
    with text.open("wb") as file:
        for path in texts:
            if (left := SHARD_BYTES - file.tell()) > 0:
                file.write(path.read_bytes()[:left].decode("utf-8", "ignore").encode())
    corpus = folder / "corpus"
    zhbert.prepare([text], corpus, workers=1, held_out=0)
    described = corpus / "corpus.json"
    info = json.loads(described.read_text(encoding="utf-8"))
    real = info["shards"]["train"][0]
    entries = [real | {"file": f"linked-{number:05d}.arrow"} for number in range(shards)]
    for entry in entries:
        os.link(corpus / real["file"], corpus / entry["file"])
    info["shards"]["train"] = entries
    described.write_text(json.dumps(info), encoding="utf-8")


def memory() -> dict[str, int]:
    """Return MB of this process's own memory, now and at most, and of mapped files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return {name: int(values[name].split()[0]) // 1024 for name in ("RssAnon", "RssFile", "VmHWM")}


def measure(folder: Path, builder: str, length: int, steps: int, rows: int) -> dict[str, Any]:
    """Open the corpus as a rank does, and make the batches of some steps."""
    start = time.perf_counter()
    from zhbert.config import MaskingSettings
    from zhbert.data.loader import PretrainingLoader
    from zhbert.data.masking import Masker
    from zhbert.data.row_windows import rows_of_split
    from zhbert.data.shards import Corpus

    corpus = Corpus.open(folder)
    opened = time.perf_counter() - start
    masker = Masker(MaskingSettings(static_masks=5), corpus.tokenizer().vocabulary)

    def loader(ends: list[int]) -> PretrainingLoader:
        source = rows_of_split(
            builder,
            corpus.shards("train"),
            cls_id=masker.vocabulary.cls_id,
            sep_id=masker.vocabulary.sep_id,
            sequence_length=length,
            seed=0,
        )
        return PretrainingLoader(source, masker, batch_size=rows, seed=0, window_ends=ends)

    before = memory()["RssAnon"]
    made = loader([])
    made.step(0)
    first = time.perf_counter() - start
    highest, slowest, pieces = 0, 0.0, made.made_pieces
    begun = time.perf_counter()
    window = made.rows_per_epoch // made.windows // rows
    # The steps around the end of the first window; those in between are left out.
    numbers = [*range(1, steps // 2), *range(window - steps // 4, window + steps // 4)]
    for step in numbers:
        at = time.perf_counter()
        made.step(step)
        slowest = max(slowest, time.perf_counter() - at)
        if step % 10 == 0:
            highest = max(highest, memory()["RssAnon"])
    rate = (made.made_pieces - pieces) / (time.perf_counter() - begun)
    # The ends of windows as a checkpoint has them, and a loader that begins with these.
    average = made.rows_per_epoch // made.windows
    ends = [*made.window_ends]
    while len(ends) < made.windows // 2:
        ends.append(ends[-1] + average)
    at = time.perf_counter()
    middle = loader(ends)
    middle.step(ends[-1] // rows - 1)
    seek = time.perf_counter() - at
    at = time.perf_counter()
    loader([]).step(COUNTED_WINDOWS * average // rows)
    uncounted = time.perf_counter() - at
    return {
        "builder": builder,
        "length": length,
        "pieces": sum(entry["pieces"] for entry in corpus.shards("train").entries),
        "windows": made.windows,
        "open_seconds": opened,
        "first_batch_seconds": first,
        "anonymous_mb_before": before,
        "anonymous_mb_highest": highest,
        "memory_mb": memory(),
        "pieces_per_second": rate,
        "slowest_step_seconds": slowest,
        "seek_seconds": seek,
        "uncounted_seconds_a_window": uncounted / COUNTED_WINDOWS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--shards", type=int, default=11_900)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        builder, length = args.one
        found = measure(args.texts[0], builder, int(length), args.steps, args.batch_size)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_corpus(args.texts, Path(folder), args.shards)
        for builder, length in SETTINGS:
            command = [sys.executable, __file__, str(Path(folder) / "corpus")]
            command += ["--steps", str(args.steps), "--batch-size", str(args.batch_size)]
            command += ["--one", builder, str(length)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            print(json.dumps(json.loads(done.stdout), indent=2))


if __name__ == "__main__":
    main()
