"""``zhbert prepare --engine ray`` beside ``--engine local``: the same text, as many processes.

    python benchmarks/prepare_ray.py [--megabytes 100] [--repeats 3] [--deduplicate] [--scatter]

Ray has two nodes of one CPU each, both on this machine; local work has two processes. They are
alternated; medians. Of both counts the whole of ``prepare``, that is, also the start of the
processes, and Ray's connection, but not the start of the cluster, which is there once for all.
The corpora are compared byte by byte.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from prepare import environment, sample
from zhbert.data.prepare import prepare


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files."""
    names = sorted(path.name for path in one.iterdir())
    if names != sorted(path.name for path in other.iterdir()):
        return False
    return filecmp.cmpfiles(one, other, names, shallow=False)[0] == names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--deduplicate", action="store_true")
    parser.add_argument("--scatter", action="store_true")
    args = parser.parse_args()
    data = os.environ.get("ZHBERT_DATA")
    if not data:
        raise SystemExit("ZHBERT_DATA names the folder of the development data; it is not set")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 200 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    cluster.add_node(**node)
    engines: dict[str, dict[str, Any]] = {
        "local": {"workers": 2},
        "ray": {"engine": "ray", "address": cluster.address},
    }
    print(f"{environment()}, ray {ray.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        size = sample(Path(data).resolve() / "corpus", args.megabytes, text)
        seconds: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(args.repeats):
            for name, options in engines.items():
                begin = time.perf_counter()
                prepare(
                    [text],
                    Path(folder) / name,
                    deduplicate=args.deduplicate,
                    scatter=args.scatter,
                    overwrite=True,
                    **options,
                )
                seconds[name].append(time.perf_counter() - begin)
        for name, times in seconds.items():
            told = " ".join(f"{one:.1f}" for one in times)
            print(f"{name:6} {size / statistics.median(times):5.1f} MB/s  ({told} s)")
        ratios = [r / own for own, r in zip(seconds["local"], seconds["ray"], strict=True)]
        print(f"ray takes {statistics.median(ratios):.2f} times as long (median of pairs)")
        equal = same(Path(folder) / "local", Path(folder) / "ray")
        print(f"the bytes are {'equal' if equal else 'NOT equal'}")
    cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
