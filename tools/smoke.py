"""The whole way with whatever is installed: prepare, pretrain, fill, fine-tune, predict, score.

    python tools/smoke.py

Twenty steps of a narrow model: that every verb runs with these versions of the libraries, and what
it leaves can be read by the next. Nothing of the source tree is used but this file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

TEXTS = ["今天的天气很好，我们去公园散步。", "这家酒店的服务太差，房间也不干净。"]
CARD = """
title = "smoke"
kind = "classify"
metrics = ["accuracy"]

[data]
format = "tsv"
header = true
train = ["train.tsv"]
dev = ["dev.tsv"]
text = "text"
label = "label"
labels = ["好", "差"]
"""
SHAPE = [
    f"model.{key}" for key in ("hidden_size=64", "num_attention_heads=2", "num_hidden_layers=1")
]


def zhbert(*words: str) -> str:
    """Run one verb; stop where it fails."""
    print("zhbert", *words, flush=True)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "zhbert", *words], stdout=subprocess.PIPE, encoding="utf-8"
    )
    if done.returncode:
        sys.exit(f"exit code {done.returncode}")
    return done.stdout


def main() -> None:
    """Go the whole way in a temporary folder."""
    print(
        sys.version.split()[0],
        *(f"{name} {version(name)}" for name in ("torch", "numpy", "pyarrow")),
    )
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        documents = "\n\n".join(f"{a}{number}。\n{b}" for number in range(99) for a, b in [TEXTS])
        (at / "raw.txt").write_text(documents, encoding="utf-8")
        rows = "".join(f"{TEXTS[n % 2]}{n}\t{'好差'[n % 2]}\n" for n in range(40))
        for name in ("train", "dev"):
            (at / f"{name}.tsv").write_text(f"text\tlabel\n{rows}", encoding="utf-8")
        (at / "card.toml").write_text(CARD, encoding="utf-8")
        raw, corpus, run, card = (str(at / n) for n in ("raw.txt", "corpus", "run", "card.toml"))
        zhbert("prepare", raw, "--out", corpus)
        short = ["steps=20", "batch_size=8", "sequence_length=32", "optimizer.warmup_steps=2"]
        zhbert("pretrain", "tiny", "--corpus", corpus, "--out", run, *short, *SHAPE)
        filled = json.loads(zhbert("fill", f"{run}/final", "今天的[MASK]气很好。", "--json"))
        assert filled, "fill gave nothing"
        tuned = str(at / "tuned")
        zhbert(
            "finetune", card, "--model", f"{run}/final", "--out", tuned, "--seeds", "1", "epochs=1"
        )
        predictions = str(at / "predictions.jsonl")
        zhbert("predict", f"{tuned}/seed-0/final", str(at / "dev.tsv"), "--out", predictions)
        scores = json.loads(zhbert("score", card, str(at / "dev.tsv"), predictions, "--json"))
        assert scores, "score gave nothing"
    print("all of it ran")


if __name__ == "__main__":
    main()
