"""BERT's tokenizer, which turns text into piece ids with offsets into the original text.

Ids, pieces and offsets equal those of `transformers`' BertTokenizer on every input.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.files import make_folder, write_json, write_text
from zhbert.text.added_tokens import (
    SPECIAL_TOKENS,
    WHITE_SPACE,
    AddedToken,
    AddedTokens,
    reachable,
)
from zhbert.text.model_inputs import InputOptions, model_inputs
from zhbert.text.normalize import Options, code_points, normalize
from zhbert.text.tokenizer_files import find_tokenizer, read_tokenizer
from zhbert.text.tokenizer_json import to_tokenizer_json
from zhbert.text.vocab import default_vocabulary
from zhbert.text.wordpiece import CONTINUATION, PythonWordPiece
from zhbert.text.words import WordPieces
from zhbert.zoo.upload import Pushable

try:
    from zhbert.text.native_wordpiece import NativeWordPiece
except ImportError:
    NativeWordPiece = None  # type: ignore[assignment, misc]


@dataclass(frozen=True)
class Encoding:
    """One text's pieces: ids (n,) int32, their strings, offsets (n, 2) int32 in characters."""

    ids: NDArray[np.int32]
    pieces: list[str]
    offsets: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer(Pushable):
    """A BERT tokenizer; it adds no [CLS] or [SEP].

    >>> pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "使", "用", "pro", "##bability"]
    >>> tokenizer = Tokenizer(pieces)
    >>> encoding = tokenizer.encode("使用 Probability[MASK]")
    >>> encoding.pieces
    ['使', '用', 'pro', '##bability', '[MASK]']
    >>> encoding.offsets.tolist()
    [[0, 1], [1, 2], [3, 6], [6, 14], [14, 20]]

    A text may have up to 500 million characters. While it is encoded, it takes 4 bytes a character
    and 4 bytes a piece (12 with offsets). A lone surrogate is dropped, as control characters are.
    """

    vocabulary: tuple[str, ...]
    """All pieces in id order, including added tokens."""
    num_word_pieces: int
    """The number of word pieces; the added tokens that are no word pieces follow them."""

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        do_lower_case: bool = True,
        strip_accents: bool | None = None,
        tokenize_chinese_chars: bool = True,
        special_tokens: Mapping[str, str] = SPECIAL_TOKENS,
        extra_special_tokens: Sequence[str] = (),
        added_tokens: Sequence[AddedToken] = (),
        model_max_length: int | None = None,
    ) -> None:
        """Make a tokenizer from pieces in id order.

        Tokens that the vocabulary lacks are appended to it, as in transformers, the added tokens
        first; only [UNK] is required.

        Args:
            vocabulary: the pieces; if a piece occurs twice, its last id counts.
            do_lower_case: convert to lower case.
            strip_accents: remove accents; None: same as ``do_lower_case``.
            tokenize_chinese_chars: make each Han character a separate word.
            special_tokens: special tokens by their Hugging Face names (``mask_token``, ...).
            extra_special_tokens: special tokens without a name.
            added_tokens: tokens as added by transformers' ``add_tokens``, including special ones.
            model_max_length: the number of pieces to which a call truncates if asked to.

        Raises:
            ZhbertError: no [UNK] in the vocabulary, an unknown name, or a token that is never
                found in a text.
        """
        ids = {piece: number for number, piece in enumerate(vocabulary) if piece}
        self.model_max_length = model_max_length
        self.options = Options(do_lower_case, strip_accents, tokenize_chinese_chars)
        self.special_tokens = _named_tokens(special_tokens, ids)
        special = (*self.special_tokens.values(), *extra_special_tokens)
        plain = [AddedToken(token, special=True, normalized=False) for token in special]
        self.added_tokens = _checked([*added_tokens, *plain], self.options)
        rows, beyond = _appended(vocabulary, [token.content for token in self.added_tokens], ids)
        self.vocabulary = (*rows, *beyond)
        self._ids = ids | {token: row for row, token in enumerate(beyond, len(rows))}
        self._added = AddedTokens(
            {token: self._ids[token.content] for token in self.added_tokens}, self.options
        )
        # A token that no text is cut into can become a row of vocab.txt, as a missing [MASK] does.
        # Other appended tokens stay outside, as in transformers.
        harmless = self._added.is_plain and not any(
            reachable(token, self.options) for token in beyond
        )
        self.num_word_pieces = len(self.vocabulary) if harmless else len(rows)
        self._special_ids = {
            token.content: row for token, row in self._added.ids.items() if token.special
        }
        word_pieces = {piece: row for piece, row in self._ids.items() if row < self.num_word_pieces}
        self._core = _engine()(word_pieces, self.unk_id, self._added, self.options)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Tokenizer:
        """Open a folder with vocab.txt or tokenizer.json, or one of these files.

        ``path`` may also be an archive, a name in the catalogue or a hub id, as for models.
        Options are read from tokenizer_config.json, then from tokenizer.json's normalizer; the
        others are BERT's defaults.

        Raises:
            ZhbertError: no tokenizer exists there, a file is damaged, or it is not BERT's.
        """
        arguments = read_tokenizer(find_tokenizer(Path(path)))
        try:
            return cls(**arguments)
        except ZhbertError as error:
            raise ZhbertError(f"{path}: {error}") from None

    @classmethod
    def default(cls) -> Tokenizer:
        """Return the tokenizer of the package's vocabulary: 21,128 pieces, uncased.

        >>> len(Tokenizer.default())
        21128
        """
        return cls.from_pretrained(default_vocabulary())

    def save_pretrained(self, folder: str | Path, *, model_max_length: int | None = None) -> None:
        """Write vocab.txt, tokenizer_config.json and tokenizer.json for transformers 4 and 5.

        ``model_max_length``: written in place of the tokenizer's own.
        """
        folder = Path(folder)
        make_folder(folder)
        pieces = self.vocabulary[: self.num_word_pieces]
        write_text(folder / "vocab.txt", "".join(f"{piece}\n" for piece in pieces))
        write_json(folder / "tokenizer_config.json", self._config(model_max_length))
        if beyond := self.vocabulary[self.num_word_pieces :]:
            rows = {token: row for row, token in enumerate(beyond, self.num_word_pieces)}
            write_json(folder / "added_tokens.json", rows)
        fast = to_tokenizer_json(pieces, self.options, self.special_tokens, self._added_by_id())
        # Without indentation json uses its C encoder: 50 times as fast.
        write_text(folder / "tokenizer.json", json.dumps(fast, ensure_ascii=False) + "\n")

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]],
        text_pair: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Encode texts or pairs of texts as a model's inputs, as transformers' tokenizers do.

        Args:
            text: a text or a list of texts; a text is a list of words if ``is_split_into_words``.
            text_pair: the second text, or that of each pair.
            options: the fields of `InputOptions`, which are transformers' (``padding``,
                ``truncation``, ``return_tensors``, ...). If ``max_length`` is needed and not
                named, it is ``model_max_length``.

        Returns:
            input_ids, token_type_ids, attention_mask and what else is asked for, each as a list
            (of lists, for a list of texts), or as an array or tensor (rows, length) of int64.

        Whoever needs more of transformers' interface (``pad``, ``batch_decode``, ``add_tokens``,
        ``char_to_token``, ...) takes `zhbert.ZhbertTokenizer`, which is a BertTokenizerFast.

        Raises:
            TypeError: no text, or an unknown option.
            ZhbertError: an option's value is none of its choices, or the texts do not fit it.

        >>> tokenizer = Tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "使", "用", "的"])
        >>> for name, values in tokenizer("使用", "的").items():
        ...     print(name, values)
        input_ids [2, 5, 6, 3, 7, 3]
        token_type_ids [0, 0, 0, 0, 1, 1]
        attention_mask [1, 1, 1, 1, 1, 1]
        >>> tokenizer(["使用的", "用"], padding=True, return_tensors="np")["input_ids"]
        array([[2, 5, 6, 7, 3],
               [2, 6, 3, 0, 0]])
        """
        chosen = InputOptions(**options, model_max_length=self.model_max_length)
        around = (self.cls_id, self.sep_id) if chosen.add_special_tokens else (0, 0)
        pad = self.pad_id if chosen.pads else 0
        return model_inputs(self._core.encode, text, text_pair, (*around, pad), chosen)

    def encode(self, text: str, *, special_tokens: bool = True) -> Encoding:
        """Encode one text; with ``special_tokens``, "[MASK]" in it becomes the special token.

        Otherwise special tokens are plain text.
        """
        ids, _, offsets = self._core.encode([text], special_tokens)
        vocabulary = self.vocabulary
        return Encoding(ids, [vocabulary[i] for i in ids.tolist()], offsets)

    def encode_batch(
        self, texts: Iterable[str], *, special_tokens: bool = True
    ) -> list[NDArray[np.int32]]:
        """Encode many texts to ids, (pieces,) int32 each; the arrays share memory."""
        if isinstance(texts, str):
            raise TypeError("a list of texts is expected, not one text")
        return self._core.encode_batch(list(texts), special_tokens)

    def encode_words(
        self, texts: Sequence[str], word_ends: Sequence[NDArray[np.int32]]
    ) -> WordPieces:
        """Encode texts and mark the pieces that start a word; special tokens are plain text here.

        ``word_ends``: the increasing word ends of each text in characters; the last is the text's
        length. A word that ends inside a piece is extended to the piece's end.
        """
        return self._core.encode_words(texts, word_ends)

    def encode_run(
        self, codes: NDArray[np.uint32], text_ends: NDArray[np.int32], word_ends: NDArray[np.int32]
    ) -> WordPieces:
        """Do the same as `encode_words` for texts concatenated in ``codes`` (code points).

        It is fast for many short texts, since no Python object is made per text. Text t is
        ``codes[text_ends[t - 1]:text_ends[t]]``; ``word_ends`` increases and may leave out the
        ends of texts.
        """
        return self._core.encode_run(codes, text_ends, word_ends)

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids into readable text: ``##`` pieces joined, no spaces between Chinese characters.

        >>> tokenizer = Tokenizer(["[UNK]", "用", "bert", "##s", "is", ",", "a"])
        >>> tokenizer.decode([1, 2, 3, 4, 1, 1, 2, 5, 6])
        '用berts is用用bert, a'
        """
        text = ""
        previous_word = False
        special = self._special_ids
        for number in ids:
            if not 0 <= number < len(self.vocabulary):
                raise ZhbertError(f"no piece has the id {number}; the last is {len(self) - 1}")
            piece = self.vocabulary[number]
            if piece.startswith(CONTINUATION) and len(piece) > len(CONTINUATION):
                text += piece[len(CONTINUATION) :]
                continue
            word = piece in special or not _is_single(piece)
            after_comma = text[-1:] in tuple(",;!?") and piece[:1].isalpha() and word
            text += (" " if (word and previous_word) or after_comma else "") + piece
            previous_word = word and piece not in special
        return text

    def fingerprint(self) -> str:
        """Return a SHA-256 of the pieces and options; if two tokenizers' agree, so do their ids."""
        # Sorted, since files may list them in any order.
        tokens = [] if self._is_plain else sorted(self.added_tokens, key=lambda one: one.content)
        added = [asdict(token) for token in tokens]
        content = json.dumps(
            [
                # As in the files of transformers, which strips pieces of white space.
                [piece.rstrip(WHITE_SPACE) for piece in self.vocabulary],
                self.options.do_lower_case,
                self.options.strips_accents,
                self.options.tokenize_chinese_chars,
                self.special_tokens,
                sorted(self.extra_special_tokens),
                *([self.num_word_pieces, added] if added else []),
            ],
            ensure_ascii=True,
            sort_keys=True,
        )
        return hashlib.sha256(content.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.vocabulary)

    def __reduce__(self) -> tuple[Any, ...]:
        # The native tables cannot be pickled: another process builds them again.
        return partial(Tokenizer, **self.settings), (self.vocabulary[: self.num_word_pieces],)

    @property
    def settings(self) -> dict[str, Any]:
        """All arguments except the pieces: ``Tokenizer(pieces, **settings)`` has the same rules."""
        return asdict(self.options) | {
            "special_tokens": self.special_tokens,
            "added_tokens": self.added_tokens,
            "model_max_length": self.model_max_length,
        }

    @property
    def _is_plain(self) -> bool:
        """True if vocab.txt and the special tokens' names define all added tokens."""
        return self._added.is_plain and self.num_word_pieces == len(self.vocabulary)

    @property
    def extra_special_tokens(self) -> tuple[str, ...]:
        """The special tokens without a name."""
        named = self.special_tokens.values()
        return tuple(token for token in self._special_ids if token not in named)

    @property
    def added_ids(self) -> tuple[int, ...]:
        """The ids of all added tokens, special or not, in increasing order."""
        return tuple(row for _, row in self._added_by_id())

    def _added_by_id(self) -> list[tuple[AddedToken, int]]:
        return sorted(self._added.ids.items(), key=lambda item: item[1])

    def id_of(self, piece: str) -> int | None:
        """Return a piece's id, or None if the vocabulary lacks it."""
        return self._ids.get(piece)

    @property
    def pad_id(self) -> int:
        """The id of [PAD]."""
        return self._special("pad_token")

    @property
    def unk_id(self) -> int:
        """The id of [UNK]."""
        return self._special("unk_token")

    @property
    def cls_id(self) -> int:
        """The id of [CLS]."""
        return self._special("cls_token")

    @property
    def sep_id(self) -> int:
        """The id of [SEP]."""
        return self._special("sep_token")

    @property
    def mask_id(self) -> int:
        """The id of [MASK]."""
        return self._special("mask_token")

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The ids of all special tokens, in increasing order."""
        return tuple(sorted(self._special_ids.values()))

    def _special(self, name: str) -> int:
        if name not in self.special_tokens:
            raise ZhbertError(f"this tokenizer has no {name}; set it in tokenizer_config.json")
        return self._ids[self.special_tokens[name]]

    def _config(self, model_max_length: int | None) -> dict[str, Any]:
        model_max_length = model_max_length or self.model_max_length
        config: dict[str, Any] = {
            "tokenizer_class": "BertTokenizer",
            **asdict(self.options),
            **{name: self.special_tokens.get(name) for name in SPECIAL_TOKENS},
        }
        if self.extra_special_tokens:
            config["additional_special_tokens"] = list(self.extra_special_tokens)
        if not self._is_plain:
            config["added_tokens_decoder"] = {
                str(row): asdict(token) for token, row in self._added_by_id()
            }
        if model_max_length is not None:
            config["model_max_length"] = model_max_length
        return config


@cache
def _engine() -> type[PythonWordPiece | NativeWordPiece]:
    """Return the native WordPiece class; if it was not built, warn and return the Python one."""
    if NativeWordPiece is None:
        warnings.warn(
            "zhbert.text._wordpiece was not built (no C++ compiler?): tokenizing in plain Python, "
            "with the same results but hundreds of times slower",
            RuntimeWarning,
            stacklevel=3,
        )
        return PythonWordPiece
    return NativeWordPiece


def _named_tokens(special_tokens: Mapping[str, str], ids: Mapping[str, int]) -> dict[str, str]:
    """Return the special tokens by name, in Hugging Face's order, always with [UNK]."""
    unknown_names = sorted(set(special_tokens) - set(SPECIAL_TOKENS))
    if unknown_names:
        raise ZhbertError(
            f"special_tokens: unknown name {unknown_names[0]!r}; known: "
            + ", ".join(sorted(SPECIAL_TOKENS))
        )
    named = {name: special_tokens[name] for name in SPECIAL_TOKENS if name in special_tokens}
    unknown = named.setdefault("unk_token", SPECIAL_TOKENS["unk_token"])
    if unknown not in ids:
        raise ZhbertError(
            f"the vocabulary has no piece {unknown}, which stands for everything it lacks; "
            "add it (one piece a line) or name another unk_token in tokenizer_config.json"
        )
    return named


def _checked(tokens: Sequence[AddedToken], options: Options) -> tuple[AddedToken, ...]:
    """Return the tokens without duplicates; raise ZhbertError if one is never found in a text."""
    found: dict[str, AddedToken] = {}
    for token in tokens:
        if not token.content:
            raise ZhbertError("a special token is empty; remove it from tokenizer_config.json")
        if token.normalized and not normalize(token.content, options)[0]:
            raise ZhbertError(
                f"nothing is left of the added token {token.content!r} when it is normalised; "
                'set "normalized": false'
            )
        if not token.content.strip(WHITE_SPACE) and any(other.rstrip for other in tokens):
            raise ZhbertError(
                f"the added token {token.content!r} is white space, which another one takes by its "
                '"rstrip"; leave out one of the two'
            )
        found.setdefault(token.content, token)
    return tuple(found.values())


def _appended(
    vocabulary: Sequence[str], tokens: Sequence[str], ids: Mapping[str, int]
) -> tuple[list[str], list[str]]:
    """Return the rows of a vocabulary, and the tokens that it lacks, which get the next ids.

    As in transformers, the first new id is the number of distinct pieces (an empty one included),
    not the number of rows. Empty rows at the end are dropped if nothing follows them.
    """
    rows = list(vocabulary)
    missing = [token for token in tokens if token not in ids]
    number = len(set(rows))
    while rows and not rows[-1] and (not missing or len(rows) > number):
        rows.pop()
    if missing and number < len(rows):
        raise ZhbertError(
            f"transformers would give the added token {missing[0]!r} the id {number}, which is "
            f"{rows[number]!r}: the vocabulary has {len(rows):,} rows and {number:,} different "
            f"pieces; write {missing[0]!r} at the end of vocab.txt"
        )
    return rows, missing


@cache
def _is_single(piece: str) -> bool:
    """Return True if each character of a piece is a separate word: Han or punctuation."""
    points = code_points()
    return all(c in points.chinese or c in points.punctuation for c in piece)
