"""A model by PyTorch here, by transformers and by ONNX Runtime, in turns in one process.

python benchmarks/engines.py                      a classifier and masked words; two sizes
python benchmarks/engines.py --sizes small --threads 1 2 --repeats 5

Random weights: speed does not depend on them. The rows are THUCNews titles, tokenized before; for
masked words, every seventh piece of a title is masked. The peer is transformers in float32, with
batches of 64 titles of similar length, padded to the longest. ONNX Runtime runs the graphs of
'zhbert convert --to onnx', in float32 and in int8. Needs ZHBERT_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

from zhbert import BertConfig, BertForMaskedLM, BertForSequenceClassification, Tokenizer
from zhbert.export.onnx import export_onnx
from zhbert.inference.onnx_model import OnnxModel
from zhbert.inference.rows import PieceRows, by_length
from zhbert.inference.run_model import run_model
from zhbert.model.native import INT8_STATES
from zhbert.model.onnx_files import INPUTS, TASKS
from zhbert.packing import PackedBatch
from zhbert.runtime import cpu_name, prepare_threads

SIZES = {"small": (4, 256, 4, 4096), "base": (12, 768, 12, 128)}
"""Layers, hidden size, heads, and the number of titles."""
BATCH, MASKED = 64, 7
LABELS = [str(number) for number in range(14)]
PEER = "transformers, fp32"

Work = dict[str, Callable[[], Any]]


def titles(tokenizer: Tokenizer, count: int) -> PieceRows:
    path = Path(os.environ["ZHBERT_DATA"]).resolve() / "tasks" / "thucnews_titles" / "dev.txt"
    lines = path.read_text(encoding="utf-8").splitlines()[:count]
    pieces = tokenizer.encode_batch([line.split("\t")[0] for line in lines])
    return PieceRows.of_segments(tokenizer, [(ids,) for ids in pieces])


def padded(rows: PieceRows) -> Iterator[dict[str, torch.Tensor]]:
    """The peer's batches, made before the clock runs."""
    order = np.argsort(rows.lengths, kind="stable")
    for first in range(0, len(order), BATCH):
        some = [torch.from_numpy(rows.row(row).astype(np.int64)) for row in order[first:][:BATCH]]
        ids = torch.nn.utils.rnn.pad_sequence(some, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in some], True)
        yield dict(zip(INPUTS, (ids, mask, torch.zeros_like(ids)), strict=True))


def by_peer(network: Any, batches: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [network(**batch).logits for batch in batches]


def classified(model: Any, rows: PieceRows, dtype: torch.dtype = torch.float32) -> Any:
    def forward(one: Any, batch: PackedBatch) -> torch.Tensor:
        logits: torch.Tensor = one.row_logits(batch)
        return logits

    return run_model(model, rows, forward, dtype=dtype)


def masked(model: Any, batches: list[PackedBatch], mask: int) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [
            model.masked_logits(batch, (batch.input_ids == mask).nonzero()[:, 0])
            for batch in batches
        ]


def work_of(task: str, size: str, folder: Path) -> tuple[Work, int]:
    """What is timed, by name, and the number of titles or of masked words."""
    import transformers

    logging: Any = transformers.utils.logging
    logging.disable_progress_bar()
    layers, hidden, heads, count = SIZES[size]
    tokenizer = Tokenizer.default()
    config = BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
    ).with_labels(LABELS)
    kind: Any = BertForSequenceClassification if task == "classify" else BertForMaskedLM
    model: Any = kind(config).eval()
    if task == "fill":
        # A head of initial values is not exported.
        torch.nn.init.normal_(model.mlm_head.norm.bias, std=0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    network = getattr(transformers, TASKS[task]).from_pretrained(folder).eval()
    graphs = {}
    for precision, name in (("float32", "fp32"), ("int8", "int8")):
        out = folder / precision
        if not out.exists():
            export_onnx(folder, out, task=task, precision=precision)
        graphs[f"ONNX Runtime, {name}"] = OnnxModel.from_pretrained(out, TASKS[task])
    rows = titles(tokenizer, count)
    work: Work = {}
    if task == "classify":
        batches = list(padded(rows))
        work[PEER] = partial(by_peer, network, batches)
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
        if INT8_STATES is not None:
            dtypes["int8"] = torch.int8
        for name, dtype in dtypes.items():
            work[f"zhbert, {name}"] = partial(classified, model, rows, dtype)
        for name, graph in graphs.items():
            work[name] = partial(classified, graph, rows)
        return work, len(rows)
    starts = np.repeat(rows.cu_seqlens[:-1], rows.lengths)
    hide = (np.arange(len(rows.ids)) - starts) % MASKED == MASKED - 1
    hide[rows.cu_seqlens[1:] - 1] = False
    rows.ids[hide] = tokenizer.mask_id
    batches = list(padded(rows))
    packed = [rows.pack(chosen)[0] for chosen in by_length(rows.lengths, BATCH, 1 << 20)]
    work[PEER] = partial(by_peer, network, batches)
    for name, one in {"zhbert, fp32": model, **graphs}.items():
        work[name] = partial(masked, one, packed, tokenizer.mask_id)
    return work, int(hide.sum())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[*SIZES])
    parser.add_argument(
        "--tasks", nargs="+", choices=("classify", "fill"), default=["classify", "fill"]
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if not options.json:
        print(cpu_name())
    for size in options.sizes:
        for task in options.tasks:
            with tempfile.TemporaryDirectory() as folder:
                for threads in options.threads:
                    prepare_threads(threads)
                    work, count = work_of(task, size, Path(folder))
                    report(time_all(work, options.repeats), count, options.json,
                           {"task": task, "size": size, "threads": threads})  # fmt: skip


def time_all(work: Work, repeats: int) -> dict[str, list[float]]:
    """The seconds of each repetition; each kind of work once before, to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(repeats + 1):
        for name, run in work.items():
            begun = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def report(
    seconds: dict[str, list[float]], count: int, as_json: bool, about: dict[str, Any]
) -> None:
    unit = "titles" if about["task"] == "classify" else "masked words"
    if not as_json:
        print(
            "\n" + ", ".join(f"{key} {value}" for key, value in about.items()) + f", {count} {unit}"
        )
    for name, own in seconds.items():
        rate = count / statistics.median(own)
        ratio = statistics.median(b / a for a, b in zip(own, seconds[PEER], strict=True))
        if as_json:
            found = {**about, "engine": name, "per_second": rate, "ratio": ratio}
            print(json.dumps({**found, "cpu": cpu_name()}))
        else:
            print(f"{name:22} {rate:9,.0f} {unit}/s  {ratio:5.2f}x")


if __name__ == "__main__":
    main()
