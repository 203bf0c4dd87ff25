"""PaddleNLP's BERT: its names of tensors, and its model_state.pdparams.

A .pdparams is a pickle of NumPy arrays by name, which paddle.save writes. It is not unpickled here:
its instructions are followed one by one, and only those that make arrays and tables are known, so
nothing in such a file can run. The numbers themselves stay in the file until they are asked for.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.files import refused
from zhbert.model.entry import Entry, read_tensor
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
_TABLES = ("collections OrderedDict",)
_ARRAYS = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_SCALARS = ("numpy.core.multiarray scalar", "numpy._core.multiarray scalar")
_TYPES = ("numpy dtype", "numpy ndarray")
_TUPLES = ("builtins tuple", "__builtin__ tuple")
_ENCODED = ("_codecs encode",)
# No name is longer. A longer text is the numbers of an array.
_LONGEST_NAME = 1 << 12


@dataclass(frozen=True)
class _Global:
    """The name of a class or a function, which is never looked up."""

    name: str


class _Text(str):
    """A text; of a long one only its place is kept. Protocol 2 writes an array's bytes so."""

    start: int
    size: int  # in the file, in UTF-8
    length: int  # in characters

    @classmethod
    def at(cls, text: str, start: int) -> _Text:
        kept = cls(text if len(text) <= _LONGEST_NAME else "")
        kept.start, kept.length = start, len(text)
        kept.size = len(text.encode("utf-8", "surrogatepass"))
        return kept


@dataclass(frozen=True)
class _Bytes:
    """Bytes that stay in the file, as they are or as the characters of a text (``text_size``)."""

    start: int
    length: int
    text_size: int | None = None

    def read(self, path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self.text_size is None:
            return read_tensor(path, self.start, shape, dtype)
        text = read_tensor(path, self.start, (self.text_size,), torch.uint8).numpy().tobytes()
        numbers = bytearray(text.decode("utf-8").encode("latin-1"))
        return torch.frombuffer(numbers, dtype=dtype).reshape(shape)


@dataclass
class _Object:
    """An array or its dtype, before and after its state is known."""

    of: str
    arguments: tuple[Any, ...]
    state: tuple[Any, ...] = ()


def read_pdparams(path: Path) -> tuple[dict[str, Entry], list[str]]:
    """Return the entries of one file by their names in it, and the names of its other content.

    Raises:
        ZhbertError: the file is damaged, holds no table of arrays, or names a function that arrays
            do not need.
    """
    with refused(path, _WHAT):
        table = _Pickle(path).read()
    if not isinstance(table, dict):
        raise ZhbertError(f"{path}: {_WHAT} without a table of arrays by name")
    entries: dict[str, Entry] = {}
    aside = []
    for name, value in table.items():
        # Beside other objects, paddle.save writes a tensor as its own name and its array.
        if isinstance(value, tuple) and len(value) == 2:
            value = value[1]
        if isinstance(name, str) and isinstance(value, _Object) and value.of in _ARRAYS:
            with refused(path, _WHAT):
                entries[name] = _entry(path, name, value)
        else:
            aside.append(str(name))
    if not entries:
        raise ZhbertError(f"{path}: no array in it; it holds {', '.join(aside)[:80] or 'nothing'}")
    return entries, aside


def _entry(path: Path, name: str, array: _Object) -> Entry:
    _, shape, kind, in_columns, numbers = array.state
    word = str(kind.arguments[0])
    if word not in _DTYPES or kind.state[1] == ">":
        raise ZhbertError(f"{path}: {name} is kept as {word}, which no BERT is")
    dtype = _DTYPES[word]
    shape = tuple(int(number) for number in shape)
    kept = shape[::-1] if in_columns else shape
    entry = Entry(kept, dtype, partial(numbers.read, path, kept, dtype))
    if min(shape, default=1) < 0 or entry.size != numbers.length:
        raise ValueError(f"{name} has {numbers.length:,} bytes, its shape needs {entry.size:,}")
    return entry.then(lambda t: t.permute(*reversed(range(t.ndim)))) if in_columns else entry


class _Pickle:
    """The instructions of a pickle, followed without running anything: a stack and a memo."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under the marks
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        with self._path.open("rb") as file:
            for code, argument, place in pickletools.genops(file):
                self._follow(code.name, argument, place or 0)
        return self._stack.pop()

    def _follow(self, code: str, argument: Any, place: int) -> None:
        if code in _PLAIN:
            self._stack.append(_PLAIN[code](argument))
        elif code in _LENGTHS:
            # The numbers of an array are read when they are asked for.
            start = place + 1 + _LENGTHS[code]
            is_text = isinstance(argument, str)
            item = _Text.at(argument, start) if is_text else _Bytes(start, len(argument))
            self._stack.append(item)
        elif code in _SHORT_TUPLES:
            count = _SHORT_TUPLES[code]
            self._stack[-count:] = [tuple(self._stack[-count:])]
        elif (action := _ACTIONS.get(code)) is not None:
            action(self, argument)
        elif code not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"the instruction {code}, which no array needs")

    def _mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _marked(self) -> list[Any]:
        above, self._stack = self._stack, self._below.pop()
        return above

    def _tuple(self, _: Any) -> None:
        items = tuple(self._marked())
        self._stack.append(items)

    def _append(self, _: Any) -> None:
        item = self._stack.pop()
        self._stack[-1].append(item)

    def _append_all(self, _: Any) -> None:
        items = self._marked()
        self._stack[-1].extend(items)

    def _set(self, _: Any) -> None:
        name, value = self._stack[-2:]
        del self._stack[-2:]
        self._stack[-1][name] = value

    def _set_all(self, _: Any) -> None:
        items = self._marked()
        self._stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _memoize(self, number: int | None) -> None:
        self._memo[len(self._memo) if number is None else number] = self._stack[-1]

    def _recall(self, number: int) -> None:
        self._stack.append(self._memo[number])

    def _name(self, argument: str | None) -> None:
        if argument is None:
            argument = " ".join(self._stack[-2:])
            del self._stack[-2:]
        if argument not in (*_TABLES, *_ARRAYS, *_SCALARS, *_TYPES, *_TUPLES, *_ENCODED):
            raise ZhbertError(
                f"{self._path}: this pickle holds more than arrays, {argument.replace(' ', '.')} "
                "first (it could run code); where you trust it, save the model's state_dict() alone"
            )
        self._stack.append(_Global(argument))

    def _call(self, _: Any) -> None:
        called, arguments = self._stack[-2:]
        if called.name in _TABLES:
            made: Any = {}
        elif called.name in _TUPLES:
            made = tuple(arguments[0])
        elif called.name in _ENCODED:
            made = _Bytes(arguments[0].start, arguments[0].length, arguments[0].size)
        else:
            made = _Object(called.name, arguments)
        self._stack[-2:] = [made]

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        self._stack[-1].state = state


_NUMBERS = (
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"
)  # fmt: skip
_PLAIN: Mapping[str, Callable[[Any], Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    **dict.fromkeys(_NUMBERS, lambda argument: argument),
}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# How many bytes of an instruction state the length of the bytes that follow.
_LENGTHS = {
    "SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8, "SHORT_BINUNICODE": 1, "BINUNICODE": 4
}  # fmt: skip
_ACTIONS: Mapping[str, Callable[[_Pickle, Any], None]] = {
    "MARK": _Pickle._mark,
    "TUPLE": _Pickle._tuple,
    "APPEND": _Pickle._append,
    "APPENDS": _Pickle._append_all,
    "SETITEM": _Pickle._set,
    "SETITEMS": _Pickle._set_all,
    "MEMOIZE": _Pickle._memoize,
    "BINPUT": _Pickle._memoize,
    "LONG_BINPUT": _Pickle._memoize,
    "BINGET": _Pickle._recall,
    "LONG_BINGET": _Pickle._recall,
    "GLOBAL": _Pickle._name,
    "STACK_GLOBAL": _Pickle._name,
    "REDUCE": _Pickle._call,
    "BUILD": _Pickle._build,
}
