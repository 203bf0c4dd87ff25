"""Run folders made by code, as 'zhbert finetune' and 'zhbert pretrain' leave them."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zhbert.schema import table_to_toml
from zhbert.tasks.card import TaskCard
from zhbert.tasks.cards import card_table, load_card
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.metrics import entity_counts

TEXTS = (
    "酒店的位置很好，早餐也不错，就是房间小了一点。",
    "使用语言模型来预测下一个词的概率。",
    "这本书的纸张太差，看了两天就散了！",
    "How long does the battery of this 笔记本 last?",
    "哈尔滨是黑龙江的省会，国际冰雪文化名城。",
)
NAMES = ("张三", "北京大学", "哈尔滨")


def fine_tuning_run(
    folder: Path,
    task: str = "lcqmc",
    model: str = "wwm",
    /,
    *,
    right: Sequence[float] = (0.7, 0.75, 0.8),
    examples: int = 60,
    dev_sha256: str = "0" * 64,
    official: bool = False,
    text: str | None = None,
    **facts: Any,
) -> Path:
    """A finished run: ``right`` has each seed's probability of getting an example right.

    ``official``: say that dev is the papers'. ``text`` takes the place of every text. ``facts``
    change summary.json.
    """
    card = load_card(task)
    folder.mkdir(parents=True)
    (folder / "task.toml").write_text(table_to_toml(card_table(card)), encoding="utf-8")
    origin = {"model": model, "identity": {"model": [model], "dev": dev_sha256}}
    write_json(folder / "provenance.json", origin)
    values: dict[str, list[float]] = {name: [] for name in card.metrics}
    for seed, probability in enumerate(right):
        rng = random.Random(f"{task} {model} {seed}")
        lines = list(predictions(card, examples, probability, rng, text))
        metrics = {name: measured(card, name, lines) for name in card.metrics}
        for name, value in metrics.items():
            values[name].append(value)
        write_seed(folder / f"seed-{seed}", metrics, lines)
    note = "" if official else f"{task}: dev has {examples} examples here: not the papers' protocol"
    summary = {
        "task": task,
        "kind": card.kind,
        "title": card.title,
        "model": model,
        "model_name": Path(model).name,
        "labels": list(card.data.labels),
        "split": "dev",
        "split_note": note,
        "metrics": {name: spread(found) for name, found in values.items()},
        "main_metric": card.metrics[0],
        "seeds": list(range(len(right))),
        "settings": {"epochs": 3},
        "parameters": 3_183_746,
        "layers": 2,
        "hidden_size": 128,
        "train_examples": 600,
        "dev_examples": examples,
        "seconds": 21.9,
        "examples_per_second": 54.8,
        "pieces_per_second": 5465.5,
        "padding_share": 0.125,
        "precision": "float32",
        "device": "cpu",
        "dev_sha256": dev_sha256,
        **facts,
    }
    write_json(folder / "summary.json", summary)
    return folder


def write_seed(
    folder: Path, metrics: Mapping[str, float], lines: Iterable[Mapping[str, Any]]
) -> None:
    """A seed's folder: three epochs, the last one the best."""
    folder.mkdir(parents=True)
    log: list[Mapping[str, Any]] = []
    for epoch in (1, 2, 3):
        step = 10 * epoch
        log.append({"step": step, "loss": 1 / epoch, "seconds": 7.3 * epoch})
        found = {name: value - 6 * (3 - epoch) ** 1.5 for name, value in metrics.items()}
        log.append({"step": step, "epoch": float(epoch), "evaluation": "dev", **found})
    write_lines(folder / "metrics.jsonl", log)
    write_lines(folder / "predictions.jsonl", lines)
    write_json(folder / "result.json", {"metrics": dict(metrics), "best_epoch": 3.0})


def predictions(
    card: TaskCard, examples: int, right: float, rng: random.Random, text: str | None
) -> Iterable[dict[str, Any]]:
    """Lines of predictions.jsonl."""
    for number in range(examples):
        # Examples are the same for all models and seeds.
        example = random.Random(f"{card.name} {number}")
        shown = text if text is not None else example.choice(TEXTS)
        hit = rng.random() < right
        if card.kind == "tag":
            name = example.choice(NAMES)
            kind, other = example.sample(["PER", "ORG", "LOC"], 2)
            tokens = [*name, *shown[:20]]
            entity = [f"B-{kind}", *[f"I-{kind}"] * (len(name) - 1)]
            wrong = rng.choice([[f"B-{other}", *[f"I-{other}"] * (len(name) - 1)], None])
            found = entity if hit else wrong or ["O"] * len(name)
            gold, predicted = (
                [*tags, *["O"] * (len(tokens) - len(name))] for tags in (entity, found)
            )
            counts = entity_counts([gold], [predicted])[0]
            score = 2 * counts[0] / (counts[1] + counts[2])
            yield {"id": str(number), "tokens": tokens, "gold": gold, "predicted": predicted,
                   "score": float(score), "probabilities": [0.9] * len(tokens)}  # fmt: skip
        elif card.kind == "span":
            answer = example.choice(NAMES) if text is None else shown
            score = 1.0 if hit else rng.choice([0.0, 0.5])
            yield {"id": f"Q{number}", "question": shown, "context": f"{answer}{shown}",
                   "gold": [answer, answer], "predicted": answer if hit else shown[:9],
                   "score": score, "em": float(hit), "probability": 0.8, "start": 0}  # fmt: skip
        elif card.kind == "regress":
            gold = float(example.randint(0, 5))
            guess = round(gold + rng.gauss(0, 3 * (1 - right)), 3)
            yield {"id": str(number), "text": shown, "text_pair": shown[::-1], "gold": gold,
                   "predicted": guess, "score": max(0.0, 1 - abs(gold - guess) / 5)}  # fmt: skip
        elif card.kind == "embed" and card.data.searched:
            found = rng.sample(range(examples), 3)
            ids = [str(number), *map(str, found)] if hit else [*map(str, found), str(number)]
            yield {"id": str(number), "text": shown, "text_pair": shown[::-1],
                   "gold": [str(number)], "predicted": ids, "best": f"{ids[0]}{shown}",
                   "score": 1 / (ids.index(str(number)) + 1)}  # fmt: skip
        elif card.kind == "embed":
            gold = float(example.randint(0, 1))
            guess = round(0.2 + 0.5 * gold + 0.4 * rng.random() * (1 - right), 6)
            yield {"id": str(number), "text": shown, "text_pair": shown[::-1], "gold": gold,
                   "predicted": guess, "score": round(rng.random(), 3)}  # fmt: skip
        else:
            label = example.choice(card.data.labels)
            wrong_label = rng.choice([one for one in card.data.labels if one != label])
            answer = label if hit else wrong_label
            sure = round(rng.uniform(0.5, 1), 6)
            pair = {"text_pair": shown[::-1]} if card.data.pairs else {}
            yield {"id": str(number), "text": shown, **pair, "gold": label, "predicted": answer,
                   "score": float(hit), "probabilities": {answer: sure}}  # fmt: skip


def measured(card: TaskCard, name: str, lines: Sequence[Mapping[str, Any]]) -> float:
    """A metric of predictions."""
    metric = KINDS[card.kind].resampled(name, lines, card.data.labels)
    import numpy as np

    return float(metric(np.ones((1, len(lines))))[0])


def spread(values: Sequence[float]) -> dict[str, Any]:
    """As summary.json has it."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {
        "max": max(values),
        "mean": statistics.fmean(values),
        "std": std,
        "values": list(values),
    }


def pretraining_run(
    folder: Path,
    *,
    strategy: str = "wwm",
    steps: int = 300,
    planned: int = 300,
    level: float = 5.5,
    teachers: Sequence[str] = (),
) -> Path:
    """A pretraining run, finished where it did the steps that were planned.

    With ``teachers`` it has soft labels and a match of hidden states as further parts of the loss.
    """
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(
        f"steps = {planned}\n[model]\nhidden_size = 128\nnum_hidden_layers = 2\n"
        f'[masking]\nstrategy = "{strategy}"\n'
        + (f"[distill]\nteachers = {json.dumps(list(teachers))}\n" if teachers else ""),
        encoding="utf-8",
    )
    write_json(folder / "provenance.json", {"device": "cpu", "precision": "bfloat16"})
    log: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        loss = level + 4 / step**0.5
        parts = {"masked_lm_loss": loss}
        if teachers:
            parts |= {"soft_labels_loss": 2 * loss, "hidden_mse_loss": 1 / step}
        log.append(
            {"step": step, "loss": sum(parts.values()), **parts, "next_sentence_loss": None,
             "pieces": 1600 * step, "seconds": 0.5 * step}
        )  # fmt: skip
        if step % 100 == 0:
            for masks in ("char", "wwm"):
                log.append(
                    {"step": step, "evaluation": masks, "masked_lm_loss": loss + 0.1,
                     "masked_lm_accuracy": 0.15 - 0.1 / step, "baseline_accuracy": 0.04,
                     "next_sentence_accuracy": None}
                )  # fmt: skip
    write_lines(folder / "metrics.jsonl", log)
    if steps == planned:
        (folder / "final").mkdir()
        write_json(folder / "final" / "config.json", {})
    return folder


def write_json(path: Path, value: Any) -> None:
    """One JSON document."""
    path.write_text(json.dumps(value), encoding="utf-8")


def write_lines(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """A JSON document a line."""
    text = "".join(json.dumps(value) + "\n" for value in values)
    path.write_text(text, encoding="utf-8")
