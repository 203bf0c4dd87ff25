"""Texts as a model's inputs: special tokens, truncation, windows and padding, in whole arrays.

Results equal those of transformers' BertTokenizerFast. Truncation and windows follow
tokenizers/src/utils/truncation.rs and tokenizers/src/tokenizer/encoding.rs in
https://github.com/huggingface/tokenizers.

Shapes: ``texts`` is the number of texts or pairs of texts, ``parts`` 1 for texts and 2 for pairs;
``rows`` is larger than ``texts`` if what is cut off becomes rows, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.schema import check_choice
from zhbert.text.wordpiece import Encoded

Ints = NDArray[np.int64]

_TRUNCATIONS = ("longest_first", "only_first", "only_second")


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """How texts become a model's inputs: names and meanings are transformers'.

    (https://huggingface.co/docs/transformers/main_classes/tokenizer)
    """

    add_special_tokens: bool = True
    """Add [CLS] and [SEP]."""
    padding: bool | str = False
    """``True`` or "longest": to the longest row; "max_length": to ``max_length``."""
    truncation: bool | str | None = None
    """``True`` or "longest_first": the longer text of a pair first; "only_first", "only_second"."""
    max_length: int | None = None
    """The number of pieces of a row, special tokens included."""
    model_max_length: int | None = None
    """What ``max_length`` is if it is needed and not named."""
    stride: int = 0
    """The number of pieces that consecutive windows of a text have in common."""
    is_split_into_words: bool = False
    """A text is a list of words; offsets count from the start of a word."""
    pad_to_multiple_of: int | None = None
    padding_side: str = "right"
    truncation_side: str = "right"
    return_tensors: str | None = None
    """None: lists; "np": int64 arrays; "pt": int64 tensors."""
    return_token_type_ids: bool = True
    return_attention_mask: bool = True
    return_overflowing_tokens: bool = False
    """Return every window of a text that is too long, not only the first."""
    return_special_tokens_mask: bool = False
    return_offsets_mapping: bool = False
    return_length: bool = False
    split_special_tokens: bool = False
    """Special tokens in a text are plain text."""

    def __post_init__(self) -> None:
        padding = "longest" if self.padding is True else self.padding or "do_not_pad"
        # As in transformers, max_length alone asks for truncation.
        alone = self.truncation is None and self.padding is False and self.max_length is not None
        truncation = "longest_first" if alone or self.truncation is True else self.truncation
        truncation = truncation or "do_not_truncate"
        check_choice(padding, ("do_not_pad", "longest", "max_length"), "padding")
        check_choice(truncation, ("do_not_truncate", *_TRUNCATIONS), "truncation")
        check_choice(self.return_tensors or "np", ("np", "pt"), "return_tensors")
        for name in ("padding_side", "truncation_side"):
            check_choice(getattr(self, name), ("right", "left"), name)
        max_length = self.max_length
        if max_length is None and (padding == "max_length" or truncation in _TRUNCATIONS):
            max_length = self.model_max_length
            if max_length is None:
                raise ZhbertError("max_length: name it; the tokenizer does not know its model's")
        multiple = self.pad_to_multiple_of
        both = truncation in _TRUNCATIONS and padding != "do_not_pad"
        if both and max_length and multiple and max_length % multiple:
            raise ZhbertError(
                f"max_length = {max_length}: no multiple of pad_to_multiple_of = {multiple}"
            )
        chosen = {"padding": padding, "truncation": truncation, "max_length": max_length}
        for name, value in chosen.items():
            object.__setattr__(self, name, value)

    @property
    def pads(self) -> bool:
        """True if short rows are filled up."""
        return self.padding != "do_not_pad"

    @property
    def truncates(self) -> bool:
        """True if long rows are cut."""
        return self.truncation in _TRUNCATIONS

    def num_special(self, parts: int) -> int:
        """Return how many special tokens a row of one or two texts has."""
        return parts + 1 if self.add_special_tokens else 0


Encode = Callable[[Sequence[str], bool], Encoded]
"""Encodes texts; True: special tokens in them are not plain text."""


class _Windows(NamedTuple):
    """What each row has of its text or pair."""

    texts: Ints
    """The place of the text or pair among all (rows,)."""
    starts: Ints
    """The first piece (parts, rows), counted from the start of the text."""
    sizes: Ints
    """The number of pieces (parts, rows)."""


def model_inputs(
    encode: Encode,
    text: Any,
    text_pair: Any,
    special_ids: Sequence[int],
    options: InputOptions,
) -> dict[str, Any]:
    """Encode a text, a pair of texts, or lists of these; see `Tokenizer.__call__`.

    ``special_ids``: those of [CLS], [SEP] and [PAD].

    Raises:
        TypeError: what should be a text is none.
        ZhbertError: texts cannot be cut as asked for, or rows of different lengths should become
            an array.
    """
    parts, is_batch = _parts(text, text_pair, options.is_split_into_words)
    ids, starts, offsets = _encoded(encode, parts, options)
    sizes = np.diff(starts).reshape(len(parts), -1)
    windows = _windows(sizes, _kept(sizes, options), options)
    firsts = starts[:-1].reshape(sizes.shape)[:, windows.texts] + windows.starts
    source, types, lengths = _laid_out(firsts, windows.sizes, len(ids), options)
    columns = {"input_ids": np.concatenate([ids, special_ids]).astype(np.int64)[source]}
    if options.return_token_type_ids:
        columns["token_type_ids"] = types
    if options.return_attention_mask:
        columns["attention_mask"] = (source != len(ids) + 2).astype(np.int64)
    if options.return_special_tokens_mask:
        columns["special_tokens_mask"] = (source >= len(ids)).astype(np.int64)
    if options.return_offsets_mapping:
        nowhere = np.zeros((3, 2), np.int64)
        columns["offset_mapping"] = np.concatenate([offsets, nowhere])[source]
    of_rows = {"length": lengths} if options.return_length else {}
    if options.return_overflowing_tokens:
        of_rows["overflow_to_sample_mapping"] = windows.texts
    if options.return_tensors:
        arrays = _arrays(columns, lengths) | of_rows
        if options.return_tensors == "np":
            return arrays
        import torch

        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    lists = _lists(columns, lengths)
    if not is_batch and not options.return_overflowing_tokens:
        lists = {name: rows[0] for name, rows in lists.items()}
    return lists | {name: values.tolist() for name, values in of_rows.items()}


def _parts(text: Any, text_pair: Any, words: bool) -> tuple[list[Sequence[Any]], bool]:
    """Return all texts and, for pairs, all second texts; and whether they were lists."""
    is_batch = isinstance(text, list | tuple)
    if is_batch and words:
        is_batch = bool(text) and isinstance(text[0], list | tuple)
    if not is_batch:
        return [[text], [text_pair]] if text_pair else [[text]], False
    if text_pair is None:
        return [text], True
    if not isinstance(text_pair, list | tuple):
        raise TypeError("text_pair must be a list as text is, of the same length")
    if len(text) != len(text_pair):
        raise ZhbertError(f"text_pair: {len(text_pair):,} texts for the {len(text):,} of text")
    return [text, text_pair], True


def _encoded(encode: Encode, parts: Sequence[Sequence[Any]], options: InputOptions) -> Encoded:
    texts = [text for part in parts for text in part]
    words = texts
    if options.is_split_into_words:
        _check(texts, (list, tuple), "with is_split_into_words, a text is a list of words")
        words = [word for text in texts for word in text]
    _check(words, (str,), "a text is a string")
    ids, starts, offsets = encode(words, not options.split_special_tokens)
    if options.is_split_into_words:
        starts = starts[np.cumsum([0, *map(len, texts)])]
    return ids, starts, offsets


def _check(values: Sequence[Any], kinds: tuple[type, ...], rule: str) -> None:
    for value in values:
        if not isinstance(value, kinds):
            raise TypeError(f"{rule}, not {type(value).__name__}: {value!r:.40}")


def _kept(sizes: Ints, options: InputOptions) -> Ints:
    """Return the number of pieces of each text that a row has at most: (parts, texts)."""
    if not options.truncates:
        return sizes
    assert options.max_length is not None
    room = options.max_length - options.num_special(len(sizes))
    if room <= options.stride:
        raise ZhbertError(
            f"max_length = {options.max_length}: without the special tokens it must be greater "
            f"than stride = {options.stride}"
        )
    over = np.maximum(sizes.sum(axis=0) - room, 0)
    if options.truncation != "longest_first":
        which = 0 if options.truncation == "only_first" else 1
        if over.any() and (which >= len(sizes) or (over >= sizes[which])[over > 0].any()):
            raise ZhbertError(
                f"truncation = {options.truncation}: of a row that is too long, this text is "
                "shorter than what is to be cut off; truncation = longest_first cuts both"
            )
        kept: Ints = sizes - over * (np.arange(len(sizes)) == which)[:, None]
        return kept
    if len(sizes) == 1:
        return np.minimum(sizes, room)
    return longest_first(sizes, room)


def longest_first(sizes: Ints, room: int) -> Ints:
    """Return the sizes of pairs after the longer text was truncated first: (2, n) -> (2, n).

    As in Hugging Face's tokenizers, two texts that are both too long get half of ``room`` each, and
    an odd piece goes to the longer one.

    >>> longest_first(np.array([[3, 9, 9, 8], [4, 2, 8, 8]]), 7).tolist()
    [[3, 5, 4, 3], [4, 2, 3, 4]]
    """
    low, high = np.sort(sizes, axis=0)
    high = np.where(low > room, low, np.maximum(low, room - low))
    halves = low + high > room
    low, high = np.where(halves, room // 2, low), np.where(halves, room - room // 2, high)
    kept = np.where(sizes[0] > sizes[1], [high, low], [low, high])
    return np.where(sizes.sum(axis=0) > room, kept, sizes)


def _windows(sizes: Ints, kept: Ints, options: InputOptions) -> _Windows:
    """Cut texts into windows of ``kept`` pieces, each of which repeats ``stride`` of the last."""
    cut = kept < sizes
    if not cut.any():
        return _Windows(np.arange(sizes.shape[1]), np.zeros_like(sizes), sizes)
    if (kept[cut] <= options.stride).any():
        raise ZhbertError(f"stride = {options.stride}: not less than what a row has of a text")
    steps = np.where(cut, kept - options.stride, 1)
    further = np.zeros_like(sizes)
    if options.return_overflowing_tokens:
        if len(sizes) > 1 and cut.all(axis=0).any():
            raise ZhbertError(
                "return_overflowing_tokens: both texts of a pair are cut; "
                "name one: truncation = only_second"
            )
        further = np.where(cut, -((kept - sizes) // steps), 0)
    texts = np.repeat(np.arange(sizes.shape[1]), 1 + further.sum(axis=0))
    number = np.arange(len(texts)) - np.searchsorted(texts, texts)
    passed = np.where(cut, steps, 0)[:, texts] * number
    rest = sizes[:, texts] - passed
    size = np.minimum(kept[:, texts], rest)
    return _Windows(texts, passed if options.truncation_side == "right" else rest - size, size)


def _laid_out(
    firsts: Ints, sizes: Ints, num_pieces: int, options: InputOptions
) -> tuple[Ints, Ints, Ints]:
    """Put the pieces of all rows one after another, with special tokens and padding.

    Args:
        firsts: the index of the first piece of each text of a row (parts, rows).
        sizes: the number of its pieces (parts, rows).
        num_pieces: the number of all pieces; the indices after them are [CLS], [SEP] and [PAD].
        options: what is added.

    Returns:
        The index of what stands at each place, the place's token type, and the lengths of rows.
    """
    cls, sep, pad = range(num_pieces, num_pieces + 3)
    filled = sizes.sum(axis=0) + options.num_special(len(sizes))
    lengths = filled
    if options.pads:
        longest = int(filled.max(initial=0))
        if options.padding == "max_length":
            longest = options.max_length or 0
        multiple = options.pad_to_multiple_of or 1
        lengths = np.maximum(filled, -(-longest // multiple) * multiple)
    place = np.cumsum(lengths) - lengths
    if options.padding_side == "left":
        place += lengths - filled
    source = np.full(lengths.sum(), pad)
    types = np.zeros_like(source)
    added = int(options.add_special_tokens)
    if added:
        source[place] = cls
    place = place + added
    for part, size in enumerate(sizes):
        here = _ranges(place, size)
        source[here] = _ranges(firsts[part], size)
        types[here] = part
        place = place + size
        if added:
            source[place] = sep
            types[place] = part
        place = place + added
    return source, types, lengths


def _ranges(starts: Ints, sizes: Ints) -> Ints:
    """Return the numbers from each start on, ``sizes`` of them, one after another."""
    shifts: Ints = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
    return shifts + np.arange(len(shifts))


def _lists(columns: dict[str, Ints], lengths: Ints) -> dict[str, Any]:
    ends = [0, *np.cumsum(lengths).tolist()]
    found = {}
    for name, column in columns.items():
        values = column.tolist() if column.ndim == 1 else list(zip(*column.T.tolist(), strict=True))
        found[name] = [values[a:b] for a, b in pairwise(ends)]
    return found


def _arrays(columns: dict[str, Ints], lengths: Ints) -> dict[str, Any]:
    if len(lengths) and (lengths != lengths[0]).any():
        raise ZhbertError(
            "return_tensors: the rows differ in length; ask for padding=True, and truncation=True "
            "if they may be too long"
        )
    shape = len(lengths), lengths.max(initial=0)
    return {name: column.reshape(*shape, *column.shape[1:]) for name, column in columns.items()}
