"""Text to ids: ours beside `tokenizers`, one thread each, the same text, identical ids.

    ZHBERT_DATA=.data python benchmarks/tokenizer.py [--megabytes 5] [--repeats 3] [--json]

Peer: BertWordPieceTokenizer.encode_batch without [CLS] and [SEP]. A repetition makes both
tokenizers anew, so nothing is cached; peer and ours alternate; medians. Timed: list of strings in,
ids of every text out (ours: one array a text). The floor is what the machine needs to copy the
text's bytes and the ids once.

Then ZhbertTokenizer beside transformers' BertTokenizerFast, as a model is fed: batches of 64 lines,
padding=True, truncation=True, return_tensors="np"; equal arrays. The peer runs with
TOKENIZERS_PARALLELISM=false and =true (all cores); ours has one thread.
"""

# Not named tokenize.py: a script's folder comes first on the path, and numpy imports the standard
# library's module of that name.

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import tokenizers
from tokenizers import BertWordPieceTokenizer

import zhbert
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.wordpiece import PythonWordPiece

FILES = ("history", "law", "reviews", "tech")
BATCH, BATCHES = 64, 50


def timed(function: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = function(*arguments, **options)
    return time.perf_counter() - begin, result


def copy_rate() -> float:
    """Bytes a second of copying 64 MB, read and written bytes both counted once."""
    source = np.ones(64 << 20, np.uint8)
    target = np.empty_like(source)
    np.copyto(target, source)
    return source.nbytes / min(timed(np.copyto, target, source)[0] for _ in range(5))


def first_lines(path: Path, size: int) -> list[str]:
    with path.open("rb") as file:
        return file.read(size).decode("utf-8", errors="ignore").split("\n")


def measure(texts: list[str], vocabulary: Path, repeats: int) -> dict[str, float]:
    times: dict[str, list[float]] = {"peer": [], "ours": [], "words": [], "opening": []}
    for repeat in range(repeats):
        peer = BertWordPieceTokenizer.from_file(str(vocabulary))
        seconds, expected = timed(peer.encode_batch, texts, add_special_tokens=False)
        times["peer"].append(seconds)
        if repeat == 0:
            expected_ids = [encoding.ids for encoding in expected]
        del expected
        seconds, ours = timed(Tokenizer.from_pretrained, vocabulary)
        times["opening"].append(seconds)
        seconds, arrays = timed(ours.encode_batch, texts)
        times["ours"].append(seconds)
        if [ids.tolist() for ids in arrays] != expected_ids:
            raise SystemExit("the ids differ")
        ends = [np.arange(1, len(text) + 1, dtype=np.int32) for text in texts]
        times["words"].append(timed(ours.encode_words, texts, ends)[0])
    medians = {name: statistics.median(values) for name, values in times.items()}
    size = sum(len(text.encode()) for text in texts) / 1e6
    pieces = sum(map(len, expected_ids))
    return {
        "megabytes": size,
        "lines": len(texts),
        "pieces": pieces,
        "peer_mb_s": size / medians["peer"],
        "ours_mb_s": size / medians["ours"],
        "ratio": medians["peer"] / medians["ours"],
        "peer_seconds": medians["peer"],
        "ours_seconds": medians["ours"],
        "encode_words_mb_s": size / medians["words"],
        "opening_seconds": medians["opening"],
        "moved_bytes": size * 1e6 + 4 * pieces,
    }


def measure_calls(texts: list[str], vocabulary: Path, repeats: int) -> dict[str, float]:
    """Lines a second of ZhbertTokenizer and BertTokenizerFast, batch by batch."""
    from transformers import BertTokenizerFast  # type: ignore[attr-defined]

    ours = zhbert.ZhbertTokenizer.from_pretrained(vocabulary)
    peer = BertTokenizerFast.from_pretrained(str(vocabulary))
    texts = [text for text in texts if text][: BATCH * BATCHES]
    batches = [texts[k : k + BATCH] for k in range(0, len(texts), BATCH)]
    options = {"padding": True, "truncation": True, "max_length": 512, "return_tensors": "np"}

    def run(tokenizer: Any) -> list[Any]:
        return [tokenizer(batch, **options) for batch in batches]

    expected = run(peer)
    for found, right in zip(run(ours), expected, strict=True):
        if any((found[name] != right[name]).any() for name in right):
            raise SystemExit("the inputs differ")
    times: dict[str, list[float]] = {"peer": [], "peer_all": [], "ours": []}
    for _ in range(repeats):
        times["peer"].append(timed(run, peer)[0])
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        times["peer_all"].append(timed(run, peer)[0])
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        times["ours"].append(timed(run, ours)[0])
    return {name: len(texts) / statistics.median(values) for name, values in times.items()}


def machine() -> dict[str, str]:
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    ).stdout.strip()
    return {
        "cpu": model,
        "cpus": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "commit": commit,
        "zhbert": zhbert.__version__,
        "tokenizers": tokenizers.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "transformers": version("transformers"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("ZHBERT_DATA"))
    parser.add_argument("--vocab", type=Path, help="a vocab.txt; default: the data's Google one")
    parser.add_argument("--megabytes", type=float, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the development data: --data or ZHBERT_DATA")
    vocabulary = arguments.vocab or arguments.data / "google_zh_vocab.txt"
    if isinstance(Tokenizer.from_pretrained(vocabulary)._core, PythonWordPiece):
        parser.error("the native module is not built: python setup.py build_ext --inplace")
    results, calls = {}, {}
    for name in FILES:
        texts = first_lines(
            arguments.data / "corpus" / f"{name}.txt", int(arguments.megabytes * 1e6)
        )
        results[name] = measure(texts, vocabulary, arguments.repeats)
        calls[name] = measure_calls(texts, vocabulary, arguments.repeats)
    rate = copy_rate()
    peer = sum(result["peer_seconds"] for result in results.values())
    ours = sum(result["ours_seconds"] for result in results.values())
    floor = sum(result["moved_bytes"] for result in results.values()) / rate
    report = {
        "machine": machine(),
        "repeats": arguments.repeats,
        "files": results,
        "calls": calls,
        "ratio": peer / ours,
        "lowest_ratio": min(result["ratio"] for result in results.values()),
        "copy_gb_s": rate / 1e9,
        "times_the_floor": ours / floor,
    }
    if arguments.json:
        json.dump(report, sys.stdout, indent=2)
        print()
        return 0
    print(", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    print(f"one thread, medians of {arguments.repeats}; identical ids")
    print("file        lines    pieces  peer MB/s  ours MB/s  ratio  encode_words MB/s  opening ms")
    for name, r in results.items():
        print(
            f"{name:8} {r['lines']:8,} {r['pieces']:9,} {r['peer_mb_s']:10.2f}"
            f" {r['ours_mb_s']:10.1f} {r['ratio']:6.0f} {r['encode_words_mb_s']:18.1f}"
            f" {1e3 * r['opening_seconds']:11.1f}"
        )
    print(
        f"over all {report['ratio']:.0f} times the peer, at the lowest"
        f" {report['lowest_ratio']:.0f}; {report['times_the_floor']:.1f} times the time of copying"
        f" text and ids at {rate / 1e9:.1f} GB/s"
    )
    print(f"\nZhbertTokenizer beside BertTokenizerFast, batches of {BATCH} lines, lines a second")
    print("file      peer, one thread  peer, all cores  ours, one thread  ratios")
    for name, r in calls.items():
        print(
            f"{name:8} {r['peer']:17,.0f} {r['peer_all']:16,.0f} {r['ours']:17,.0f}"
            f"  {r['ours'] / r['peer']:.0f}, {r['ours'] / r['peer_all']:.0f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
