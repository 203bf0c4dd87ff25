"""The catalogue of published models: a card for each, with its shape and its sources."""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from zhbert.errors import ZhbertError

_TABLE = Path(__file__).with_name("models.toml")

# architecture -> the model and tokenizer classes of transformers that open it.
CLASSES = {
    "bert": ("BertModel", "BertTokenizer"),
    "roberta": ("RobertaModel", "RobertaTokenizer"),
    "xlm-roberta": ("XLMRobertaModel", "XLMRobertaTokenizer"),
}
# The forms in which a model is published -> the card's field with the address, by precedence.
FORMS = {
    "here": "package_folder",
    "hub": "hugging_face_id",
    "pt": "pytorch_archive",
    "tf": "tensorflow_archive",
    "paddle": "paddlehub_module",
}
SIZES = ("tiny", "small", "base", "large")


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """One published model; a field is None if the model's README does not give it.

    >>> card = find_card("hfl/rbt3")
    >>> card.name, card.num_layers, card.hidden_size, card.forms
    ('rbt3', 3, 768, ('hub', 'paddle'))
    """

    name: str
    display_name: str | None = None
    # Other names of the model: listed ones, hub ids, names of archives.
    aliases: tuple[str, ...] = ()
    source: str  # the reference that lists it
    owner: str
    language: str  # "cn", "en" or "global"
    trained_on: str | None = None
    licence: str | None = None
    architecture: str = "bert"  # a key of CLASSES
    num_layers: int
    hidden_size: int
    num_heads: int
    vocab_size: int
    vocab_size_from: str  # "published", "deduced" or "estimated": models.toml says what each means
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    # The number as printed in its README: "102.3M".
    parameters: str | None = None
    # False: the published files have no trained masked-word head.
    fills_masks: bool | None = None
    # zhbert's recipe for such a model.
    recipe: str | None = None
    # A folder in zhbert.zoo.packaged.FOLDER.
    package_folder: str | None = None
    hugging_face_id: str | None = None
    # A copy on ModelScope; shown to users, not downloaded by zhbert.
    modelscope_id: str | None = None
    tensorflow_archive: str | None = None
    pytorch_archive: str | None = None
    paddlehub_module: str | None = None
    note: str | None = None

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms in which it is published, in the order of FORMS."""
        return tuple(form for form, field in FORMS.items() if getattr(self, field))

    @property
    def size(self) -> str:
        """One of SIZES: base has 12 layers or more, small has fewer, tiny is also narrower.

        >>> [find_card(name).size for name in ("bert_tiny_cn", "rbtl3", "bert-base-chinese")]
        ['tiny', 'small', 'base']
        """
        if self.num_layers >= 24:
            return "large"
        if self.num_layers >= 12:
            return "base"
        return "small" if self.hidden_size >= 768 else "tiny"

    @property
    def opens_here(self) -> bool:
        """True if it is a BERT, the only architecture that zhbert opens."""
        return self.architecture == "bert"


@functools.cache
def cards() -> tuple[ModelCard, ...]:
    """Return all cards in the order of models.toml."""
    tables = tomllib.loads(_TABLE.read_text(encoding="utf-8"))["model"]
    return tuple(_card(table) for table in tables)


def find_card(name: str) -> ModelCard | None:
    """Return the card of a name, an alias or a hub id, ignoring case and ``_`` versus ``-``.

    >>> find_card("RoBERTa_wwm_ext").name
    'chinese-roberta-wwm-ext'
    >>> find_card("gpt") is None
    True
    """
    return _index().get(_key(name))


def known_card(name: str) -> ModelCard:
    """Return the card of ``name``; raise ZhbertError, with similar names, if there is none."""
    card = find_card(name)
    if card is None:
        near = " or ".join(f"'{one}'" for one in similar_names(name))
        hint = f"; did you mean {near}?" if near else ""
        raise ZhbertError(f"no model '{name}'{hint}; 'zhbert models' lists them all")
    return card


def similar_names(name: str) -> list[str]:
    """Return the names of up to three cards most similar to an unknown name, the likeliest first.

    >>> similar_names("rbt-3")[0]
    'rbt3'
    """
    index, wanted = _index(), _key(name)
    # difflib compares whole names, so it does not find parts of names ("night king", "wwm").
    keys = [key for key in index if len(wanted) > 2 and wanted in key]
    keys += difflib.get_close_matches(wanted, index, n=6)
    return list(dict.fromkeys(index[key].name for key in keys))[:3]


@functools.cache
def _index() -> Mapping[str, ModelCard]:
    # A test checks that no two cards share a name.
    index: dict[str, ModelCard] = {}
    for card in cards():
        for name in (card.name, *card.aliases):
            index.setdefault(_key(name), card)
    return index


def _key(name: str) -> str:
    return "-".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _card(table: Mapping[str, Any]) -> ModelCard:
    card = ModelCard(**table)
    names = [*card.aliases]
    names += [name for name in (card.display_name, card.paddlehub_module) if name]
    if card.hugging_face_id:
        # Many people write hub ids without the owner, since the ids of Google's models had none.
        names += [card.hugging_face_id, card.hugging_face_id.rpartition("/")[2]]
    for url in (card.pytorch_archive, card.tensorflow_archive):
        if url:
            names.append(Path(urlsplit(url).path).stem)
    distinct = {_key(name): name for name in reversed(names) if _key(name) != _key(card.name)}
    return replace(card, aliases=tuple(reversed(distinct.values())))
