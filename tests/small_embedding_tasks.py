"""Small tasks of the kind embed, made by code: pairs of each form, and a mixture."""

from __future__ import annotations

from pathlib import Path

from tests.small_tasks import texts

HEAD = """
title = "near or far?"
kind = "embed"
metrics = [{metrics}]
[data]
format = "tsv"
train = "train.tsv"
{dev}
text = "text"
"""
PAIR = 'text_pair = "text_pair"\n'
CARDS = {
    "scored": ('"spearman", "pearson"', PAIR + 'label = "label"\nlabel_range = [0, 2]\n'),
    "judged": ('"spearman", "ap"', PAIR + 'label = "label"\nyes = ["2"]\nno = ["0", "1"]\n'),
    "pairs": ('"mrr@10", "recall@1"', PAIR),
    "triples": ('"mrr@10"', PAIR + 'negative = "negative"\n'),
    "texts": ('"spearman"', ""),
}


def rows(form: str, count: int, seed: int) -> str:
    """Texts whose first two characters decide what is near to them."""
    columns = {"scored": ("text", "text_pair", "label"), "judged": ("text", "text_pair", "label"),
               "pairs": ("text", "text_pair"), "triples": ("text", "text_pair", "negative"),
               "texts": ("text",)}[form]  # fmt: skip
    lines = ["\t".join(columns)]
    some = texts(count, seed)
    for number, text in enumerate(some):
        other = some[number - 1]
        near = text[:4] + other[4:] if form in ("pairs", "triples") or number % 3 == 2 else other
        fields = {"text": text, "text_pair": near + "。", "label": str(number % 3),
                  "negative": other[::-1] + "否"}  # fmt: skip
        lines.append("\t".join(fields[column] for column in columns))
    return "\n".join(lines) + "\n"


def make_embedding_task(folder: Path, form: str, *, train: int = 60, dev: int = 24) -> Path:
    """A card beside its files; the card's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.tsv").write_text(rows(form, train, 1), encoding="utf-8")
    metrics, keys = CARDS[form]
    named = ""
    if form != "texts":
        (folder / "dev.tsv").write_text(rows(form, dev, 2), encoding="utf-8")
        named = 'dev = "dev.tsv"'
    card = folder / f"my_{form}.toml"
    card.write_text(HEAD.format(metrics=metrics, dev=named) + keys, encoding="utf-8")
    return card
