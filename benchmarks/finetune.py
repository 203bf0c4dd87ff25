"""Fine-tuning, predicting and answering beside transformers, in turns in one process.

python benchmarks/finetune.py train      one epoch on LCQMC (length 128, batch 64)
python benchmarks/finetune.py predict    10,000 THUCNews titles
python benchmarks/finetune.py span       CMRC 2018 dev, scored too (length 512, stride 128)

BERT-Mini (4 layers x 256) with random weights: speed does not depend on them. The peers, in
float32: transformers' Trainer with dynamic padding; its text-classification pipeline with batches
of 64; and the steps of its question-answering example (windows by the fast tokenizer, batches of
16 padded to their longest row, the 20 best starts and ends of each window). Ours in float32 and
with --precision bf16. Tokenizing counts for predict and span on both sides, and for train on
neither. --model takes a fine-tuned model for predict or span instead, to see that a trained
model's results are the peer's. Needs ZHBERT_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import numpy as np
import torch

from zhbert import BertConfig, BertForPreTraining, Tokenizer
from zhbert.finetuning.fine_tuned import open_fine_tuned
from zhbert.finetuning.run import finetune
from zhbert.runtime import choose_dtype, cpu_name
from zhbert.tasks.cards import load_card
from zhbert.tasks.learners.span import SpanLearner
from zhbert.tasks.read import read_examples
from zhbert.tasks.scoring import score

BATCH, LEARNING_RATE = 64, 1e-4


def data() -> Path:
    return Path(os.environ["ZHBERT_DATA"]).resolve() / "tasks"


def base_model(folder: Path) -> Path:
    tokenizer = Tokenizer.default()
    shape = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    model = BertForPreTraining(BertConfig(vocab_size=len(tokenizer), **shape))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tune(task: str, base: Path, out: Path, *overrides: str) -> dict[str, Any]:
    return finetune(task, base, data() / task, out, overrides, overwrite=True).summary


def tuned_a_little(task: str, folder: Path, model: Path | None, names: Mapping[str, int]) -> Path:
    """``model``, or a random one after a few steps on the first lines of the task's files."""
    if model is not None:
        return model
    small = folder / "small"
    small.mkdir()
    for name, count in names.items():
        text = (data() / task / name).read_text(encoding="utf-8")
        if name.endswith(".json"):
            content = json.loads(text)
            cut = json.dumps({**content, "data": content["data"][:count]})
        else:
            cut = "".join(text.splitlines(keepends=True)[:count])
        (small / name).write_text(cut, encoding="utf-8")
    base = base_model(folder / "base")
    finetune(task, base, small, folder / "run", ["epochs=1", "precision=fp32"])
    return folder / "run" / "seed-0" / "final"


def train(
    folder: Path, precision: str, model: Path | None
) -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """(ours, the peer's, examples): each returns (seconds, dev accuracy)."""
    import transformers

    card = load_card("lcqmc")
    examples: Any = {s: read_examples(card, data() / "lcqmc", s) for s in ("train", "dev")}
    base = base_model(folder / "base")
    fast = transformers.AutoTokenizer.from_pretrained(base)

    class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __init__(self, split: str) -> None:
            chosen = examples[split]
            texts = [e.text for e in chosen], [e.text_pair for e in chosen]
            encoded = fast(*texts, truncation=True, max_length=128)
            labels = [card.data.labels.index(e.label) for e in chosen]
            self.rows = [
                {**{key: encoded[key][i] for key in encoded}, "labels": labels[i]}
                for i in range(len(chosen))
            ]

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return self.rows[index]

    tokenized = {split: Rows(split) for split in examples}

    def ours() -> tuple[float, float]:
        summary = tune(
            "lcqmc", base, folder / "ours", "epochs=1", f"batch_size={BATCH}",
            f"precision={precision}", f"optimizer.learning_rate={LEARNING_RATE}",
            "sequence_length=128",
        )  # fmt: skip
        return summary["seconds"], summary["metrics"]["accuracy"]["mean"]

    def theirs() -> tuple[float, float]:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(base)
        arguments = transformers.TrainingArguments(
            str(folder / "theirs"),
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            warmup_steps=round(0.1 * len(tokenized["train"]) / BATCH),
            weight_decay=0.01,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=tokenized["train"],
            eval_dataset=tokenized["dev"],
            data_collator=transformers.DataCollatorWithPadding(fast),
        )
        begun = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begun
        found = trainer.predict(tokenized["dev"])
        return seconds, 100 * float((found.predictions.argmax(-1) == found.label_ids).mean())

    return ours, theirs, len(examples["train"])


def predict(
    folder: Path, precision: str, model: Path | None
) -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """(ours, the peer's, titles): each returns (seconds, the labels)."""
    import transformers

    names = {"train.txt": 200, "dev.txt": 200, "class.txt": 200}
    final = tuned_a_little("thucnews_titles", folder, model, names)
    card = load_card("thucnews_titles")
    examples: Any = read_examples(card, data() / "thucnews_titles", "dev")[:10_000]
    tuned = replace(open_fine_tuned(final), dtype=choose_dtype(precision, torch.device("cpu")))
    pipe = transformers.pipeline(
        "text-classification", model=str(final), device="cpu", batch_size=BATCH
    )
    texts = [example.text for example in examples]

    def ours() -> tuple[float, list[str]]:
        begun = time.perf_counter()
        found = [str(one.value) for one in tuned.predict(examples)]
        return time.perf_counter() - begun, found

    def theirs() -> tuple[float, list[str]]:
        begun = time.perf_counter()
        found = [one["label"] for one in pipe(texts)]
        return time.perf_counter() - begun, found

    return ours, theirs, len(texts)


def span(
    folder: Path, precision: str, model: Path | None
) -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """(ours, the peer's, questions): each returns (seconds, F1)."""
    import transformers

    names = {"cmrc2018_train.json": 20, "cmrc2018_dev.json": 7}
    final = tuned_a_little("cmrc2018", folder, model, names)
    card = load_card("cmrc2018")
    examples: Any = read_examples(card, data() / "cmrc2018", "dev")
    tuned = replace(open_fine_tuned(final), dtype=choose_dtype(precision, torch.device("cpu")))
    fast = transformers.AutoTokenizer.from_pretrained(final)
    network = transformers.AutoModelForQuestionAnswering.from_pretrained(final).eval()
    assert isinstance(tuned.learner, SpanLearner)
    longest = tuned.learner.max_answer_length

    def ours() -> tuple[float, float]:
        begun = time.perf_counter()
        found = tuned.predict(examples)
        answers = {e.id: str(p.value) for e, p in zip(examples, found, strict=True)}
        f1 = score(card, examples, answers).metrics["f1"]
        return time.perf_counter() - begun, f1

    def theirs() -> tuple[float, float]:
        begun = time.perf_counter()
        encoded = fast(
            [e.question for e in examples],
            [e.context for e in examples],
            truncation="only_second",
            max_length=512,
            stride=128,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        windows = len(encoded["input_ids"])
        logits: list[tuple[np.ndarray, np.ndarray]] = []
        names = ("input_ids", "token_type_ids", "attention_mask")
        for first in range(0, windows, 16):
            rows = [
                {name: encoded[name][i] for name in names}
                for i in range(first, min(first + 16, windows))
            ]
            with torch.no_grad():
                output = network(**fast.pad(rows, return_tensors="pt"))
            logits += zip(output.start_logits.numpy(), output.end_logits.numpy(), strict=True)
        best: dict[int, tuple[float, str]] = {}
        for window, (starts, ends) in enumerate(logits):
            owner = encoded["overflow_to_sample_mapping"][window]
            segments, offsets = encoded.sequence_ids(window), encoded["offset_mapping"][window]
            for start in np.argsort(starts)[: -20 - 1 : -1].tolist():
                for end in np.argsort(ends)[: -20 - 1 : -1].tolist():
                    if max(start, end) >= len(segments) or not start <= end < start + longest:
                        continue
                    if segments[start] != 1 or segments[end] != 1:
                        continue
                    value = float(starts[start] + ends[end])
                    if owner not in best or value > best[owner][0]:
                        text = examples[owner].context[offsets[start][0] : offsets[end][1]]
                        best[owner] = (value, text)
        answers = {e.id: best[i][1] if i in best else "" for i, e in enumerate(examples)}
        f1 = score(card, examples, answers).metrics["f1"]
        return time.perf_counter() - begun, f1

    return ours, theirs, len(examples)


WORK = {"train": train, "predict": predict, "span": span}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a fine-tuned model, for predict and span")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs, count = WORK[options.work](Path(folder), options.precision, options.model)
        runs = [(ours(), theirs()) for _ in range(options.repeats)]
    seconds = [[one[0] for one in side] for side in zip(*runs, strict=True)]
    mine, peer = (statistics.median(side) for side in seconds)
    results = [side[-1][1] for side in zip(*runs, strict=True)]
    if options.work == "predict":
        same = np.mean([a == b for a, b in zip(*results, strict=True)])
        quality = {"same_labels": float(same)}
    else:
        quality = {"ours": results[0], "theirs": results[1]}
    found = {
        "work": options.work,
        "precision": options.precision,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "examples": count,
        "ours_per_second": count / mine,
        "theirs_per_second": count / peer,
        "ratio": statistics.median(b[0] / a[0] for a, b in runs),
        "ratios": [round(b[0] / a[0], 2) for a, b in runs],
        **quality,
    }
    if options.json:
        print(json.dumps(found))
        return
    for key, value in found.items():
        print(f"{key:18} {value:,.2f}" if isinstance(value, float) else f"{key:18} {value}")


if __name__ == "__main__":
    main()
