"""How many of a hundred common set phrases a model completes, one character of each masked.

    python benchmarks/set_phrases.py MODEL [MODEL ...] [--show] [--json]

MODEL is whatever ``zhbert fill`` takes: a folder, an archive, a name, a hub id. The list,
set_phrases.tsv, holds idioms and set phrases of four characters, each in a short sentence of its
own; every place of the phrase is masked 25 times, and the masked character stands nowhere else in
the sentence. It was written before any model was asked, and no setting may be chosen by it.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.inference.fill import fill, open_mask_filler
from zhbert.text.tokenizer import Tokenizer

LIST = Path(__file__).with_suffix(".tsv")
MASK = "[MASK]"
CANDIDATES = 5


@dataclass(frozen=True)
class Phrase:
    """A sentence with one character of a set phrase masked."""

    text: str
    answer: str
    phrase: str

    @property
    def place(self) -> int:
        """Which of the four characters is masked, from 0."""
        return self.phrase.index(self.answer)

    def masked_by(self, tokenizer: Tokenizer) -> str:
        """The text with the tokenizer's own mask."""
        return self.text.replace(MASK, tokenizer.special_tokens["mask_token"])


@dataclass(frozen=True)
class Answered:
    """What a model names at the mask, the likeliest first."""

    question: Phrase
    candidates: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Is the likeliest one the character?"""
        return self.candidates[0] == self.question.answer


def read_list() -> list[Phrase]:
    with LIST.open(encoding="utf-8", newline="") as file:
        return [Phrase(**row) for row in csv.DictReader(file, delimiter="\t")]


def ask(model: str, phrases: list[Phrase]) -> list[Answered]:
    opened, tokenizer = open_mask_filler(model)
    texts = [phrase.masked_by(tokenizer) for phrase in phrases]
    return [
        Answered(phrase, tuple(one.piece for one in filled.masks[0].candidates))
        for phrase, filled in zip(
            phrases, fill(opened, tokenizer, texts, top_k=CANDIDATES), strict=True
        )
    ]


def summary(model: str, answered: list[Answered]) -> dict[str, Any]:
    places = Counter(one.question.place for one in answered if one.right)
    return {
        "model": model,
        "phrases": len(answered),
        "top1": places.total(),
        "top5": sum(one.question.answer in one.candidates for one in answered),
        "top1_by_place": [places[place] for place in range(4)],
        "missed": [
            {**dataclasses.asdict(one.question), "candidates": one.candidates}
            for one in answered
            if not one.right
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", metavar="MODEL", nargs="+", help="folder, archive, name, hub id")
    parser.add_argument("--show", action="store_true", help="what was missed, and what was named")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    phrases = read_list()
    try:
        results = [summary(model, ask(model, phrases)) for model in args.models]
    except ZhbertError as error:
        raise SystemExit(str(error)) from None
    if args.json:
        print(json.dumps(results, ensure_ascii=False, indent=2))
        return
    for result in results:
        places = " ".join(map(str, result["top1_by_place"]))
        print(
            f"{result['model']}: {result['top1']} of {result['phrases']} right, {result['top5']} "
            f"among the first five (by the masked character's place: {places} of 25 each)"
        )
        for missed in result["missed"] if args.show else ():
            print(f"  {missed['text']}  {missed['answer']}: {' '.join(missed['candidates'])}")


if __name__ == "__main__":
    main()
