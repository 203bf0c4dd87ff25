"""PaddleNLP's BERT: its names of tensors, and its model_state.pdparams.

A .pdparams is a pickle of NumPy arrays by name, which paddle.save writes. It is read whole. Only
the names that arrays need are known, each with a stand-in, so nothing in such a file can run.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from zhbert.errors import ZhbertError
from zhbert.files import refused
from zhbert.model.entry import Entry
from zhbert.model.formats.renaming import Renaming
from zhbert.model.names import ALIASES

_WHAT = "a file of paddle.save"
_TABLE = Renaming(
    {
        "E": ("bert.embeddings", "bert.embeddings"),
        "L": ("bert.encoder.layers.*", "bert.encoder.layer.*"),
        "P": ("cls.predictions", "cls.predictions"),
    },
    # Paddle's                      Hugging Face's                          transposed
    (
        ("E.word_embeddings.weight",       "E.word_embeddings.weight",           False),
        ("E.position_embeddings.weight",   "E.position_embeddings.weight",       False),
        ("E.token_type_embeddings.weight", "E.token_type_embeddings.weight",     False),
        ("E.layer_norm.weight",            "E.LayerNorm.weight",                 False),
        ("E.layer_norm.bias",              "E.LayerNorm.bias",                   False),
        ("L.self_attn.q_proj.weight",      "L.attention.self.query.weight",      True),
        ("L.self_attn.q_proj.bias",        "L.attention.self.query.bias",        False),
        ("L.self_attn.k_proj.weight",      "L.attention.self.key.weight",        True),
        ("L.self_attn.k_proj.bias",        "L.attention.self.key.bias",          False),
        ("L.self_attn.v_proj.weight",      "L.attention.self.value.weight",      True),
        ("L.self_attn.v_proj.bias",        "L.attention.self.value.bias",        False),
        ("L.self_attn.out_proj.weight",    "L.attention.output.dense.weight",    True),
        ("L.self_attn.out_proj.bias",      "L.attention.output.dense.bias",      False),
        ("L.norm1.weight",                 "L.attention.output.LayerNorm.weight", False),
        ("L.norm1.bias",                   "L.attention.output.LayerNorm.bias",  False),
        ("L.linear1.weight",               "L.intermediate.dense.weight",        True),
        ("L.linear1.bias",                 "L.intermediate.dense.bias",          False),
        ("L.linear2.weight",               "L.output.dense.weight",              True),
        ("L.linear2.bias",                 "L.output.dense.bias",                False),
        ("L.norm2.weight",                 "L.output.LayerNorm.weight",          False),
        ("L.norm2.bias",                   "L.output.LayerNorm.bias",            False),
        ("bert.pooler.dense.weight",       "bert.pooler.dense.weight",           True),
        ("bert.pooler.dense.bias",         "bert.pooler.dense.bias",             False),
        ("P.transform.weight",             "P.transform.dense.weight",           True),
        ("P.transform.bias",               "P.transform.dense.bias",             False),
        ("P.layer_norm.weight",            "P.transform.LayerNorm.weight",       False),
        ("P.layer_norm.bias",              "P.transform.LayerNorm.bias",         False),
        ("P.decoder_bias",                 "P.bias",                             False),
        ("P.decoder.bias",                 "P.decoder.bias",                     False),
        ("P.decoder.weight",               "P.decoder.weight",                   False),
        # What PaddleNLP before 2.6 called the matrix.
        ("P.decoder_weight",               "P.decoder.weight",                   False),
        ("cls.seq_relationship.weight",    "cls.seq_relationship.weight",        True),
        ("cls.seq_relationship.bias",      "cls.seq_relationship.bias",          False),
        ("classifier.weight",              "classifier.weight",                  True),
        ("classifier.bias",                "classifier.bias",                    False),
    ),
)  # fmt: skip
_WORDS = re.compile(r"((?:.*\.)?)embeddings\.word_embeddings\.weight")
_OF_ENCODER = re.compile(r"(embeddings|encoder\.layers\.\d+|pooler)\.")
# Paddle calls the head of question answering a classifier, too.
SPANS = "BertForQuestionAnswering"


def is_paddle(names: Iterable[str]) -> bool:
    """Return True if these are the names of a BERT of PaddleNLP.

    >>> is_paddle(["bert.embeddings.word_embeddings.weight", "bert.encoder.layers.0.norm1.bias"])
    True
    """
    names = list(names)
    words = [match for name in names if (match := _WORDS.fullmatch(name))]
    # Two models in one file, and ERNIE, whose tensors have the same names but for the first word.
    if len(words) != 1 or re.search(r"(^|\.)ernie", words[0][1]):
        return False
    return f"{words[0][1]}encoder.layers.0.norm1.weight" in names or (
        f"{words[0][1]}encoder.layers.0.norm1.bias" in names
    )


def from_paddle(entries: Mapping[str, Entry], architecture: str | None = None) -> dict[str, Entry]:
    """Return the entries of a BERT of PaddleNLP by Hugging Face's names, turned as there.

    Names outside the table stay as they are.

    Args:
        architecture: the class that the model's config.json names, since Paddle's name of the head
            of question answering is also that of a classifier.
    """
    prefix = next(match[1] for name in entries if (match := _WORDS.fullmatch(name)))
    above = prefix.removesuffix("bert.")
    found: dict[str, Entry] = {}
    for name, entry in entries.items():
        rest = name.removeprefix(prefix)
        here = f"bert.{rest}" if _OF_ENCODER.match(rest) else name.removeprefix(above)
        known, flip = _TABLE.to_hugging_face(here) or (name, False)
        if architecture == SPANS and known.startswith("classifier."):
            known = known.replace("classifier", "qa_outputs")
        # NumPy has no bfloat16, so Paddle keeps its bits as whole numbers.
        if entry.dtype == torch.uint16:
            entry = entry.then(lambda bits: bits.view(torch.bfloat16))
        # Of a tensor with two names the first counts.
        found.setdefault(known, entry.then(torch.t) if flip and len(entry.shape) == 2 else entry)
    return found


def to_paddle(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the entries by the names that PaddleNLP's classes expect, turned as there.

    The decoder stands there twice, as in Paddle's own files: PaddleNLP shares its matrix with the
    word embeddings all the same, but warns of random numbers where a name is missing.
    """
    entries = dict(entries)
    if "cls.predictions.bias" in entries:
        entries |= {alias: entries[name] for alias, name in ALIASES.items()}
    found: dict[str, Entry] = {}
    for name, entry in entries.items():
        spans = name.startswith("qa_outputs.")
        known = name.replace("qa_outputs", "classifier") if spans else name
        theirs, flip = _TABLE.from_hugging_face(known) or (name, False)
        if entry.dtype == torch.bfloat16:
            entry = entry.then(lambda numbers: numbers.view(torch.uint16))
        found[theirs] = entry.then(torch.t) if flip else entry
    return found


# ---------------------------------------------------------------- .pdparams

# NumPy's names of what a BERT's numbers may be.
_DTYPES = {
    "f8": torch.float64,
    "f4": torch.float32,
    "f2": torch.float16,
    "u2": torch.uint16,
    "i8": torch.int64,
    "i4": torch.int32,
}


class _Array:
    """Stands for a NumPy array: only its state is kept."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def entry(self, path: Path, name: str) -> Entry:
        _, shape, kind, in_columns, numbers = self.state
        if kind.word not in _DTYPES or kind.order == ">":
            raise ZhbertError(f"{path}: {name} is kept as {kind.word}, which no BERT is")
        if in_columns:
            shape = shape[::-1]
        # A copy, since bytes cannot be written to.
        tensor = torch.frombuffer(bytearray(numbers), dtype=_DTYPES[kind.word]).reshape(shape)
        return Entry.of(tensor.permute(*reversed(range(tensor.ndim))) if in_columns else tensor)


class _Kind:
    """Stands for a NumPy dtype."""

    def __init__(self, word: object, *_: Any) -> None:
        self.word, self.order = str(word), ""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


# What a name in the file stands for. No function of NumPy runs, whatever a file says.
_STAND_INS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": dict,
    "builtins.tuple": tuple,
    "__builtin__.tuple": tuple,
    # Protocol 2 writes bytes as a text.
    "_codecs.encode": lambda text, _: text.encode("latin-1"),
    "numpy.dtype": _Kind,
    "numpy.ndarray": _Array,
    **{
        f"numpy.{core}.multiarray.{name}": made
        for core in ("core", "_core")
        for name, made in (("_reconstruct", _Array), ("scalar", lambda *_: None))
    },
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._path = file.name

    def find_class(self, module: str, name: str) -> Any:
        called = f"{module}.{name}"
        if called not in _STAND_INS:
            raise ZhbertError(
                f"{self._path}: this pickle holds more than arrays, {called} first (it could run "
                "code); where you trust it, save the model's state_dict() alone"
            )
        return _STAND_INS[called]


def read_pdparams(path: Path) -> tuple[dict[str, Entry], list[str]]:
    """Return the entries of one file by their names in it, and the names of its other content.

    Raises:
        ZhbertError: the file is damaged, holds no table of arrays, or names a function that arrays
            do not need.
    """
    entries: dict[str, Entry] = {}
    aside = []
    with refused(path, _WHAT), path.open("rb") as file:
        table = _Unpickler(file).load()
        if not isinstance(table, dict):
            raise ZhbertError(f"{path}: {_WHAT} without a table of arrays by name")
        for name, value in table.items():
            # Beside other objects, paddle.save writes a tensor as its own name and its array.
            if isinstance(value, tuple) and len(value) == 2:
                value = value[1]
            if isinstance(name, str) and isinstance(value, _Array):
                entries[name] = value.entry(path, name)
            else:
                aside.append(str(name))
    if not entries:
        raise ZhbertError(f"{path}: no array in it; it holds {', '.join(aside)[:80] or 'nothing'}")
    return entries, aside
