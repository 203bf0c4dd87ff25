"""The card of a model that a run has trained: README.md, as the Hugging Face hub shows it.

https://huggingface.co/docs/hub/model-cards says what its head, the front matter, contains. A card
has no paths, no names of users and no times: the same run gives the same bytes.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhbert import __version__
from zhbert.files import write_text
from zhbert.wording import counted
from zhbert.zoo import catalogue
from zhbert.zoo.origin import is_hub_id, short_name

FILE = "README.md"

# Settings with paths, of which the card shows the last part; and settings of the machine.
_NAMES = ("initial_model", "continue_from", "masking.similar_words", "distill.teachers")
_OF_THE_MACHINE = frozenset(
    ("threads", "compile", "micro_batch_size", "checkpoint_every", "keep_checkpoints")
)


@dataclass(frozen=True)
class BaseModel:
    """The model that a run starts from."""

    name: str
    hub_id: str | None = None
    licence: str | None = None
    """The hub's name of its licence, if known."""

    @classmethod
    def of(cls, name: str, folder: Path | None = None) -> BaseModel:
        """Describe a model as a user named it; a local one by the card in its ``folder``."""
        path = Path(name).expanduser()
        if path.exists():
            own = _front_matter(folder or path)
            base, licence = own.get("base_model"), own.get("license")
            base = base if isinstance(base, str) else None
            return cls(public_name(name), base, licence if isinstance(licence, str) else None)
        card = catalogue.find_card(name)
        if card is None:
            return cls(public_name(name), name if is_hub_id(name) else None)
        licence = re.match(r"[\w.-]+", card.licence or "")
        return cls(card.name, card.hugging_face_id, licence[0].lower() if licence else None)


@dataclass(frozen=True, kw_only=True)
class CardScore:
    """One score of a task."""

    metric: str
    split: str
    value: float
    task: str
    """The task's name."""
    title: str
    """The task in words."""


@dataclass(frozen=True, kw_only=True)
class RunCard:
    """What is known of a trained model."""

    title: str
    chinese: str
    """One line in Chinese; "" for a model of another language."""
    summary: str
    pipeline_tag: str
    library: str = "transformers"
    tags: tuple[str, ...] = ()
    language: str = "zh"
    usage: Sequence[str]
    """Blocks of Python."""
    base: BaseModel | None
    data: Mapping[str, str]
    """The texts that it has learnt from, as facts."""
    settings: Mapping[str, Any]
    """Flat, as `zhbert.schema.flatten` returns them."""
    table: Sequence[Sequence[str]]
    """The scores, below their heads."""
    scores: Sequence[CardScore] = ()
    """The scores that the hub's pages compare."""
    limits: Sequence[str]
    """What a reader of the scores must know."""

    def write(self, folder: Path) -> None:
        """Write the card to a model's folder, unless a person has edited the one that is there."""
        text, path = self.text(), folder / FILE
        if not path.is_file() or _is_own(path.read_text(encoding="utf-8", errors="replace")):
            write_text(path, text + _mark(text))

    def text(self) -> str:
        """Return the content of README.md."""
        settings = [
            (f"`{key}`", _value(value, name=key in _NAMES))
            for key, value in self.settings.items()
            if value not in (None, "", ()) and key not in _OF_THE_MACHINE
        ]
        parts = [
            f"---\n{self._front_matter()}\n---",
            f"# {self.title}",
            self.chinese,
            f"{self.summary} Made by zhbert {__version__}.",
            "## Use",
            *(f"```python\n{block}\n```" for block in self.usage),
            "## Data",
            _table([("", ""), *self.data.items()]),
            "## Settings",
            _table([("setting", "value"), *settings]),
            "## Scores",
            _table(self.table) if self.table[1:] else "None: nothing was held out to score it on.",
            "## What the numbers do not say",
            "\n".join(f"- {line}" for line in self.limits),
            "## Licence",
            self._licence(),
        ]
        return "\n\n".join(filter(None, parts)) + "\n"

    def _front_matter(self) -> str:
        # Imported late: it takes a while, and a run's beginning does not need it.
        from huggingface_hub import EvalResult, ModelCardData

        base = self.base or BaseModel("")
        of_scores: dict[str, Any] = {}
        if self.scores:
            of_scores = {
                "metrics": list(dict.fromkeys(one.metric for one in self.scores)),
                "model_name": self.title,
                "eval_results": [
                    EvalResult(
                        task_type=self.pipeline_tag,
                        dataset_type=one.task,
                        dataset_name=one.title,
                        dataset_split=one.split,
                        metric_type=one.metric,
                        metric_value=round(one.value, 2),
                    )
                    for one in self.scores
                ],
            }
        data = ModelCardData(
            language=self.language,
            license=base.licence,
            library_name=self.library,
            pipeline_tag=self.pipeline_tag,
            base_model=base.hub_id,
            tags=["bert", *(("chinese",) if self.language == "zh" else ()), "zhbert", *self.tags],
            **of_scores,
        )
        return str(data.to_yaml(line_break="\n"))

    def _licence(self) -> str:
        if self.base is None or self.base.licence is None:
            of = f" for {self.base.name}, from which it was trained" if self.base else ""
            return (
                f"Not stated{of}: choose one that the model and its texts allow before publishing, "
                "and write it into the front matter (`license`)."
            )
        return f"{self.base.licence}, that of {self.base.name}, from which it was trained."


def public_name(model: str) -> str:
    """Return a model's name without folders and, of an address, without passwords and keys.

    >>> public_name("https://me:secret@example.org/a.zip?token=abc"), public_name("runs/a/final")
    ('a.zip', 'a')
    """
    return short_name(model.partition("?")[0] if "://" in model else model)


def _mark(text: str) -> str:
    """Return the last line of a card, by which one that was edited is told."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"\n<!-- Made by zhbert ({digest}); once it is edited, it is left as it is. -->\n"


def _is_own(card: str) -> bool:
    text, line, rest = card.rpartition("\n<!--")
    return _mark(text) == line + rest


@dataclass(frozen=True)
class Opening:
    """How another form of a model is opened."""

    library: str
    """The hub's name of the library."""
    code: str
    """A block of Python."""
    pipeline_tag: str | None = None
    """What it computes; None: what the model did."""


def copy_card(source: Path, out: Path, opening: Opening | None = None) -> None:
    """Copy the card and the licence beside a model, if there are any, to another form of it.

    A card that nobody has edited shows the form's ``opening``; others are copied as they are.
    """
    for name in (FILE, "LICENSE"):
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    if opening is not None and (out / FILE).is_file():
        card = (out / FILE).read_text(encoding="utf-8", errors="replace")
        if _is_own(card):
            text = _opened_by(opening, card.rpartition("\n<!--")[0])
            write_text(out / FILE, text + _mark(text))


def _opened_by(opening: Opening, text: str) -> str:
    """Return a card of ours with another library and its code in the place of the first block.

    The further blocks, of zhbert, go if the model no longer computes what it did.
    """
    head, use, rest = re.split(r"(?<=\n)(?=## Use\n|## Data\n)", text, maxsplit=2)
    tag = f"pipeline_tag: {opening.pipeline_tag}"
    same = opening.pipeline_tag is None or f"\n{tag}\n" in head
    blocks = re.findall(r"```python\n.*?\n```\n\n", use, flags=re.DOTALL)[1:] if same else []
    head = re.sub(r"(?m)^library_name: .*$", f"library_name: {opening.library}", head, count=1)
    if not same:
        head = re.sub(r"(?m)^pipeline_tag: .*$", tag, head, count=1)
    return "".join((head, f"## Use\n\n```python\n{opening.code}\n```\n\n", *blocks, rest))


def figures(config: Any) -> str:
    """Return a model's size in words, from its `zhbert.model.config.BertConfig`."""
    return (
        f"BERT with {counted(config.num_hidden_layers, 'layer')} of width "
        f"{config.hidden_size:,}, {config.num_attention_heads} heads and "
        f"{config.max_position_embeddings:,} positions"
    )


def _table(rows: Iterable[Sequence[str]]) -> str:
    head, *others = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *others]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _value(value: Any, *, name: bool) -> str:
    if isinstance(value, tuple):
        return ", ".join(_value(one, name=name) for one in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return public_name(str(value)) if name else str(value)


def _front_matter(folder: Path) -> dict[str, Any]:
    """Return what the card of a local model states; {} if it has none, or an unreadable one."""
    from huggingface_hub import metadata_load

    try:
        return metadata_load(folder / FILE) or {}
    except (OSError, ValueError):
        return {}
    except Exception as error:  # of the YAML library, which huggingface_hub brings along
        if type(error).__module__.partition(".")[0] != "yaml":
            raise
        return {}
