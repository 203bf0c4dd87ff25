"""Small tasks of every kind, made by code, and small models: what fine-tuning is tested on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining
from zhbert.text.tokenizer import Tokenizer

CHARACTERS = (
    "的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生好坏京"
)
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS, "否", "？", "。")
QUICK = ("precision=fp32", "threads=1", "batch_size=8", "sequence_length=32", "epochs=2")
LEARNING = ("optimizer.learning_rate=2e-3", "epochs=6")


def make_model(folder: Path, *, seed: int = 0, max_positions: int = 64) -> Path:
    """A model folder of two narrow layers."""
    config = BertConfig(
        vocab_size=len(PIECES), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=max_positions, initializer_range=0.05,
    )  # fmt: skip
    BertForPreTraining(config, seed=seed).save_pretrained(folder)
    Tokenizer(PIECES).save_pretrained(folder)
    return folder


def texts(count: int, seed: int) -> list[str]:
    """Texts of 4 to 20 characters."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(CHARACTERS[:40]), rng.integers(4, 20))) for _ in range(count)]


def _classify(count: int, seed: int) -> str:
    lines = ["text\tlabel"]
    for number, text in enumerate(texts(count, seed)):
        good = number % 2
        lines.append(f"{text[:2]}{'好' if good else '坏'}{text[2:]}\t{'pos' if good else 'neg'}")
    return "\n".join(lines) + "\n"


def _multi_label(count: int, seed: int) -> str:
    lines = []
    for number, text in enumerate(texts(count, seed)):
        marks = "".join(mark for place, mark in enumerate("好坏京") if number >> place & 1)
        lines.append(json.dumps({"text": marks + text, "labels": list(marks)}, ensure_ascii=False))
    return "\n".join(lines) + "\n"


def _regress(count: int, seed: int) -> str:
    lines = []
    for number, text in enumerate(texts(count, seed)):
        value = number % 5
        lines.append(f"{'好' * value}{text}\t{text}\t{value}")
    return "\n".join(lines) + "\n"


def _tag(count: int, seed: int) -> str:
    lines: list[str] = []
    for text in texts(count, seed):
        lines += [f"{character} O" for character in text]
        lines += ["中 B-LOC", "京 I-LOC", ""]
    return "\n".join(lines) + "\n"


def _span(count: int, seed: int) -> str:
    paragraphs = []
    for number, text in enumerate(texts(count, seed)):
        context = f"{text}好{text[:2]}。"
        answer = {"text": "好" + text[0], "answer_start": len(text)}
        question = {"id": f"Q{number}", "question": "好在？", "answers": [answer]}
        paragraphs.append({"context": context, "qas": [question]})
    return json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}, ensure_ascii=False)


def _embed(count: int, seed: int) -> str:
    lines = []
    for number, text in enumerate(texts(count, seed)):
        same = number % 2
        lines.append(f"{text}\t{text[1:]}{'好' if same else '坏京' * 6}\t{same}")
    return "\n".join(lines) + "\n"


CARDS = {
    "classify": """
        title = "good or bad?"
        kind = "classify"
        metrics = ["accuracy", "f1"]
        [data]
        format = "tsv"
        train = "train.tsv"
        dev = "dev.tsv"
        text = "text"
        label = "label"
        labels = ["neg", "pos"]
    """,
    "multi_label": """
        title = "what is in it?"
        kind = "multi_label"
        metrics = ["f1_micro", "f1_macro", "f1_weighted", "exact_match"]
        [data]
        format = "jsonl"
        train = "train.jsonl"
        dev = "dev.jsonl"
        text = "text"
        label = "labels"
        labels = ["好", "坏", "京"]
    """,
    "regress": """
        title = "how good?"
        kind = "regress"
        metrics = ["pearson", "spearman"]
        [data]
        format = "tsv"
        header = false
        train = "train.tsv"
        dev = "dev.tsv"
        text = 0
        text_pair = 1
        label = 2
        label_range = [0, 4]
    """,
    "tag": """
        title = "where is it?"
        kind = "tag"
        metrics = ["f1"]
        [data]
        format = "bio"
        train = "train.txt"
        dev = "dev.txt"
        labels = ["O", "B-LOC", "I-LOC"]
        scheme = "BIO"
    """,
    "span": """
        title = "where does it stand?"
        kind = "span"
        metrics = ["f1", "em"]
        [data]
        format = "squad"
        train = "train.json"
        dev = "dev.json"
        scorer = "squad1.1"
    """,
    "embed": """
        title = "how near?"
        kind = "embed"
        metrics = ["spearman", "ap"]
        [data]
        format = "tsv"
        header = false
        train = "train.tsv"
        dev = "dev.tsv"
        text = 0
        text_pair = 1
        label = 2
        yes = ["1"]
        no = ["0"]
    """,
}
_MAKERS = {
    "classify": (_classify, ".tsv"),
    "multi_label": (_multi_label, ".jsonl"),
    "regress": (_regress, ".tsv"),
    "tag": (_tag, ".txt"),
    "span": (_span, ".json"),
    "embed": (_embed, ".tsv"),
}


def make_task(folder: Path, kind: str, *, train: int = 64, dev: int = 24) -> Path:
    """A card beside its files; the card's path."""
    folder.mkdir(parents=True, exist_ok=True)
    make, suffix = _MAKERS[kind]
    (folder / f"train{suffix}").write_text(make(train, 1), encoding="utf-8")
    (folder / f"dev{suffix}").write_text(make(dev, 2), encoding="utf-8")
    card = folder / f"my_{kind}.toml"
    card.write_text("\n".join(line.strip() for line in CARDS[kind].splitlines()), encoding="utf-8")
    return card
