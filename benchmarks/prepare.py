"""``zhbert prepare`` with jieba words beside ``rjieba.cut`` alone: the floor the segmenter sets.

    python benchmarks/prepare.py [--megabytes 20 100] [--repeats 3] [--whole]

Both run on one core, alternated, over the same lines, each in a fresh process; medians. Of prepare
the wall time of the whole process counts, fsync included; of ``rjieba.cut`` only the loop over the
lines, which lie in memory. --whole prepares all development text and prints the peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHARES = {"history": 1.0, "law": 1.0, "tech": 1.0, "reviews": 1.0}
CUT = """
import sys, time, rjieba
lines = open(sys.argv[1], encoding="utf-8").read().split("\\n")
rjieba.cut("预热")
begin, busy = time.perf_counter(), time.process_time()
for line in lines:
    rjieba.cut(line)
print(time.perf_counter() - begin, time.process_time() - busy)
"""


def sample(corpus: Path, megabytes: float, path: Path) -> float:
    """Whole documents of the four sources, the same of each as far as it goes; MB written."""
    left = megabytes * 1e6
    # The smallest first: what it lacks is taken from the others.
    names = sorted(SHARES, key=lambda name: (corpus / f"{name}.txt").stat().st_size)
    written = 0
    with path.open("wb") as out:
        for k, name in enumerate(names):
            raw = (corpus / f"{name}.txt").read_bytes()
            want = int(left / (len(names) - k))
            end = raw.find(b"\n\n", want)
            raw = raw[: end + 2] if end >= 0 else raw.rstrip(b"\n") + b"\n\n"
            out.write(raw)
            left -= len(raw)
            written += len(raw)
    return written / 1e6


def run(command: list[str]) -> tuple[float, float, int, str]:
    """Wall and processor seconds, peak memory in MB, and what was printed."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024, printed


def prepare(
    text: list[str], out: Path, workers: int = 1
) -> tuple[float, float, int, dict[str, Any]]:
    command = [sys.executable, "-m", "zhbert", "prepare", *text, "--out", str(out)]
    command += ["--workers", str(workers), "--overwrite", "--json"]
    seconds, busy, memory, printed = run(command)
    return seconds, busy, memory, json.loads(printed)


def environment() -> str:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        cpus = Path("/proc/cpuinfo").read_text()
        model = next((c.split(":")[1].strip() for c in cpus.split("\n") if "model name" in c), "")
    from importlib.metadata import version

    return f"{model}, {os.cpu_count()} cores, rjieba {version('rjieba')}, commit {commit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, nargs="*", default=[20, 100])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--whole", action="store_true")
    args = parser.parse_args()
    data = os.environ.get("ZHBERT_DATA")
    if not data:
        raise SystemExit("ZHBERT_DATA names the folder of the development data; it is not set")
    corpus = Path(data).resolve() / "corpus"
    print(environment())
    with tempfile.TemporaryDirectory() as folder:
        text, out = Path(folder) / "text.txt", Path(folder) / "corpus"
        text.write_text("开始。\n", encoding="utf-8")
        start_ups = [prepare([str(text)], out)[:2] for _ in range(3)]
        start_up, start_busy = (min(times) for times in zip(*start_ups, strict=True))
        print(f"start-up of prepare: {start_up:.2f} s ({start_busy:.2f} s of a processor)")
        for megabytes in args.megabytes:
            size = sample(corpus, megabytes, text)
            floors, ours, memory = [], [], 0
            for _ in range(args.repeats):
                printed = run([sys.executable, "-c", CUT, str(text)])[3]
                floors.append([float(number) for number in printed.split()])
                *times, peak, _ = prepare([str(text)], out)
                ours.append(times)
                memory = max(memory, peak)
            print(f"{size:.1f} MB, prepare's peak memory {memory} MB")
            for what, k, start in (("wall", 0, start_up), ("processor", 1, start_busy)):
                floor = statistics.median(times[k] for times in floors)
                whole = statistics.median(times[k] for times in ours)
                best = min(times[k] for times in ours) / min(times[k] for times in floors)
                print(
                    f"  {what:9}  rjieba.cut alone {floor:6.2f} s ({size / floor:4.1f} MB/s)  "
                    f"prepare {whole:6.2f} s ({size / whole:4.1f} MB/s)  ratio {whole / floor:.2f}"
                    f" (best of each: {best:.2f}), without start-up {(whole - start) / floor:.2f}\n"
                    f"             cut {' '.join(f'{times[k]:.2f}' for times in floors)}; "
                    f"prepare {' '.join(f'{times[k]:.2f}' for times in ours)}",
                    flush=True,
                )
        if args.whole:
            for workers in (1, 2):
                seconds, _, _, report = prepare([str(corpus)], out, workers)
                size = report["bytes"] / 1e6
                print(
                    f"all development text, {size:.1f} MB, workers {workers}: {seconds:.1f} s "
                    f"({size / seconds:.1f} MB/s), peak memory of a worker "
                    f"{report['peak_memory'] / 1e6:.0f} MB"
                )


if __name__ == "__main__":
    main()
