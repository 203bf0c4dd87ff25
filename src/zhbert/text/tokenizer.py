"""BERT's tokenizer: text to piece ids with offsets into the original text.

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
from zhbert.text.added_tokens import WHITE_SPACE, AddedToken, AddedTokens, reachable
from zhbert.text.normalize import Options, code_points, normalize
from zhbert.text.tokenizer_files import (
    FLAGS,
    SPECIAL_TOKENS,
    find_tokenizer,
    read_tokenizer,
)
from zhbert.text.vocab import default_vocabulary
from zhbert.text.wordpiece import CONTINUATION, MAX_CHARACTERS_PER_WORD, PythonWordPiece
from zhbert.text.words import WordPieces, texts_of_run


@dataclass(frozen=True)
class Encoding:
    """One text's pieces: ids (n,) int32, their strings, offsets (n, 2) int32 in characters."""

    ids: NDArray[np.int32]
    pieces: list[str]
    offsets: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """A BERT tokenizer; it adds no [CLS] or [SEP].

    >>> pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "使", "用", "pro", "##bability"]
    >>> tokenizer = Tokenizer(pieces)
    >>> encoding = tokenizer.encode("使用 Probability[MASK]")
    >>> encoding.pieces
    ['使', '用', 'pro', '##bability', '[MASK]']
    >>> encoding.offsets.tolist()
    [[0, 1], [1, 2], [3, 6], [6, 14], [14, 20]]

    A text may have up to 500 million characters; its UTF-32 form (4 bytes a character) is held
    while it is encoded, beside 4 bytes a piece (12 with offsets). A lone
    surrogate counts as a control character: it is dropped.
    """

    vocabulary: tuple[str, ...]
    """All pieces in id order, the added tokens among them."""
    num_word_pieces: int
    """The rows that word pieces lead to; behind them stand tokens that were added alone."""

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
    ) -> None:
        """Make a tokenizer of pieces in id order; of equal ones the last counts.

        ``special_tokens`` maps Hugging Face's names (``mask_token``, ...) to pieces;
        ``extra_special_tokens`` too are matched in text as they stand. ``added_tokens`` are what
        transformers' ``add_tokens`` makes, special ones among them. Of these the ones that the
        vocabulary lacks are appended to it, as transformers does, the added tokens first, except
        [UNK], without which there is no tokenizer.
        """
        unknown_names = sorted(set(special_tokens) - set(SPECIAL_TOKENS))
        if unknown_names:
            raise ZhbertError(
                f"special_tokens: unknown name {unknown_names[0]!r}; known: "
                + ", ".join(sorted(SPECIAL_TOKENS))
            )
        self.options = Options(do_lower_case, strip_accents, tokenize_chinese_chars)
        self.special_tokens = {
            name: special_tokens[name] for name in SPECIAL_TOKENS if name in special_tokens
        }
        ids = {piece: number for number, piece in enumerate(vocabulary) if piece}
        unknown = self.special_tokens.get("unk_token", SPECIAL_TOKENS["unk_token"])
        if unknown not in ids:
            raise ZhbertError(
                f"the vocabulary has no piece {unknown}, which stands for everything it lacks; "
                "add it (one piece a line) or name another unk_token in tokenizer_config.json"
            )
        self.special_tokens["unk_token"] = unknown
        self.added_tokens = _checked(
            [
                *added_tokens,
                *(
                    AddedToken(token, special=True, normalized=False)
                    for token in (*self.special_tokens.values(), *extra_special_tokens)
                ),
            ],
            self.options,
        )
        rows, beyond = _numbered(vocabulary, ids, self.added_tokens)
        self.vocabulary = (*rows, *beyond)
        self._ids = ids
        numbers = {token: ids[token.content] for token in self.added_tokens}
        self._added = added = AddedTokens(numbers, self.options)
        # What no word piece can lead to may be a row like others: so [MASK] is one in vocab.txt
        # where it was missing. Other appended tokens stay outside, as in transformers.
        harmless = added.is_plain and not any(reachable(token, self.options) for token in beyond)
        self.num_word_pieces = len(self.vocabulary) if harmless else len(rows)
        self._special_ids = {
            token.content: ids[token.content] for token in self.added_tokens if token.special
        }
        words = {piece: row for piece, row in ids.items() if row < self.num_word_pieces}
        self._core = _engine()(words, ids[unknown], added, self.options)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Tokenizer:
        """Open a folder with vocab.txt (and tokenizer_config.json) or tokenizer.json, or one file.

        An archive, a name of the catalogue and a hub id lead to their folder, as for models.
        Options come from tokenizer_config.json; what it does not say comes from tokenizer.json's
        normalizer, then from BERT's defaults.
        """
        arguments = read_tokenizer(find_tokenizer(Path(path)))
        try:
            return cls(**arguments)
        except ZhbertError as error:
            raise ZhbertError(f"{path}: {error}") from None

    @classmethod
    def default(cls) -> Tokenizer:
        """The tokenizer of the vocabulary that ships with the package: 21,128 pieces, uncased.

        >>> len(Tokenizer.default())
        21128
        """
        return cls.from_pretrained(default_vocabulary())

    def save_pretrained(self, folder: str | Path, *, model_max_length: int | None = None) -> None:
        """Write vocab.txt, tokenizer_config.json and tokenizer.json for transformers 4 and 5.

        ``model_max_length`` is where transformers truncates when asked to.
        """
        folder = Path(folder)
        make_folder(folder)
        pieces = self.vocabulary[: self.num_word_pieces]
        write_text(folder / "vocab.txt", "".join(f"{piece}\n" for piece in pieces))
        write_json(folder / "tokenizer_config.json", self._config(model_max_length))
        if beyond := self.vocabulary[self.num_word_pieces :]:
            rows = {token: row for row, token in enumerate(beyond, self.num_word_pieces)}
            write_json(folder / "added_tokens.json", rows)
        # Without indentation: json writes 21,128 entries in C then, 50 times as fast.
        fast = json.dumps(self._fast_tokenizer(), ensure_ascii=False)
        write_text(folder / "tokenizer.json", fast + "\n")

    def encode(self, text: str, *, special_tokens: bool = True) -> Encoding:
        """Encode one text; a special token's string in it becomes that token, unless told not."""
        ids, _, offsets = self._core.encode([text], special_tokens)
        vocabulary = self.vocabulary
        return Encoding(ids, [vocabulary[i] for i in ids.tolist()], offsets)

    def encode_batch(
        self, texts: Iterable[str], *, special_tokens: bool = True
    ) -> list[NDArray[np.int32]]:
        """Encode many texts to ids; the arrays are slices of one."""
        if isinstance(texts, str):
            raise TypeError("a list of texts is expected, not one text")
        arrays: list[NDArray[np.int32]] = self._core.encode_batch(list(texts), special_tokens)
        return arrays

    def encode_words(
        self, texts: Sequence[str], word_ends: Sequence[NDArray[np.int32]]
    ) -> WordPieces:
        """Encode texts and say which pieces start a word; special tokens are plain text here.

        ``word_ends``: for each text the increasing ends of its words in characters, the last one
        being the text's length. A boundary inside a piece moves to that piece's end: the word is
        widened to whole pieces.
        """
        words: WordPieces = self._core.encode_words(texts, word_ends)
        return words

    def encode_run(
        self, codes: NDArray[np.uint32], text_ends: NDArray[np.int32], word_ends: NDArray[np.int32]
    ) -> WordPieces:
        """`encode_words` of texts that stand in ``codes`` (code points) one after another.

        Text t is ``codes[text_ends[t - 1]:text_ends[t]]``; ``word_ends`` increases and need not
        hold the texts' ends. For many short texts: no Python object is made for each of them.
        """
        run = getattr(self._core, "encode_run", None)
        if run is not None:
            words: WordPieces = run(codes, text_ends, word_ends)
            return words
        return self.encode_words(*texts_of_run(codes, text_ends, word_ends))

    def decode(self, ids: Iterable[int]) -> str:
        """Readable text: ``##`` pieces joined, no spaces between Chinese characters.

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
            word = piece in special or not _stands_alone(piece)
            after_comma = text[-1:] in tuple(",;!?") and piece[:1].isalpha() and word
            text += (" " if (word and previous_word) or after_comma else "") + piece
            previous_word = word and piece not in special
        return text

    def fingerprint(self) -> str:
        """SHA-256 over the pieces and every option: two tokenizers with the same give equal ids."""
        # In whatever order a file names them.
        tokens = [] if self._is_plain else sorted(self.added_tokens, key=lambda one: one.content)
        added = [asdict(token) for token in tokens]
        content = json.dumps(
            [
                # As transformers writes them, which strips a piece that is white space.
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
        # The native tables stay in their process; another one makes its own.
        return partial(Tokenizer, **self.settings), (self.vocabulary[: self.num_word_pieces],)

    @property
    def settings(self) -> dict[str, Any]:
        """All but the pieces: ``Tokenizer(pieces, **settings)`` cuts as this one does."""
        tokens = {"special_tokens": self.special_tokens, "added_tokens": self.added_tokens}
        return asdict(self.options) | tokens

    @property
    def _is_plain(self) -> bool:
        """Whether no added token needs more than its place in vocab.txt and its name."""
        return self._added.is_plain and self.num_word_pieces == len(self.vocabulary)

    @property
    def extra_special_tokens(self) -> tuple[str, ...]:
        """Special tokens besides those that have a name."""
        named = self.special_tokens.values()
        return tuple(token for token in self._special_ids if token not in named)

    @property
    def added_ids(self) -> tuple[int, ...]:
        """The ids of all added tokens, special or not, in increasing order."""
        return tuple(row for _, row in self._added_by_id())

    def _added_by_id(self) -> list[tuple[AddedToken, int]]:
        return sorted(self._added.ids.items(), key=lambda item: item[1])

    def id_of(self, piece: str) -> int | None:
        """A piece's id, or None if the vocabulary lacks it."""
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

    def _fast_tokenizer(self) -> dict[str, Any]:
        """The content of tokenizer.json."""

        def special(token: str, segment: int) -> dict[str, Any]:
            return {"SpecialToken": {"id": token, "type_id": segment}}

        def sequence(name: str, segment: int) -> dict[str, Any]:
            return {"Sequence": {"id": name, "type_id": segment}}

        post_processor = None
        if {"cls_token", "sep_token"} <= set(self.special_tokens):
            cls, sep = self.special_tokens["cls_token"], self.special_tokens["sep_token"]
            single = [special(cls, 0), sequence("A", 0), special(sep, 0)]
            post_processor = {
                "type": "TemplateProcessing",
                "single": single,
                "pair": [*single, sequence("B", 1), special(sep, 1)],
                "special_tokens": {
                    token: {"id": token, "ids": [self._ids[token]], "tokens": [token]}
                    for token in (cls, sep)
                },
            }
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {"id": row, "content": token.content}
                | {name: getattr(token, name) for name in FLAGS}
                for token, row in self._added_by_id()
            ],
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": self.options.tokenize_chinese_chars,
                "strip_accents": self.options.strip_accents,
                "lowercase": self.options.do_lower_case,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": post_processor,
            "decoder": {"type": "WordPiece", "prefix": CONTINUATION, "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": self.special_tokens["unk_token"],
                "continuing_subword_prefix": CONTINUATION,
                "max_input_chars_per_word": MAX_CHARACTERS_PER_WORD,
                # A blank line's place too, so that the ids have no hole.
                "vocab": {
                    piece: row for row, piece in enumerate(self.vocabulary[: self.num_word_pieces])
                },
            },
        }


@cache
def _engine() -> Any:
    """The native word pieces, or the slow ones with a warning (once)."""
    try:
        from zhbert.text.native import NativeWordPiece
    except ImportError:
        warnings.warn(
            "zhbert.text._wordpiece was not built (no C++ compiler?): tokenizing in plain Python, "
            "with the same results but hundreds of times slower",
            RuntimeWarning,
            stacklevel=3,
        )
        return PythonWordPiece
    return NativeWordPiece


def _checked(tokens: Sequence[AddedToken], options: Options) -> tuple[AddedToken, ...]:
    """The tokens, each once, the first of a string; those that cannot be found are refused."""
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


def _numbered(
    vocabulary: Sequence[str], ids: dict[str, int], tokens: Sequence[AddedToken]
) -> tuple[list[str], list[str]]:
    """The rows of a vocabulary, and the tokens that it lacks, which ``ids`` gets.

    transformers numbers these on from the count of different pieces, an empty one among them, not
    from the count of rows. Empty rows at the end are left out where nothing follows them.
    """
    rows = list(vocabulary)
    missing = [token.content for token in tokens if token.content not in ids]
    number = len(set(rows))
    while rows and not rows[-1] and (not missing or len(rows) > number):
        rows.pop()
    if missing and number < len(rows):
        raise ZhbertError(
            f"transformers would give the added token {missing[0]!r} the id {number}, which is "
            f"{rows[number]!r}: the vocabulary has {len(rows):,} rows and {number:,} different "
            f"pieces; write {missing[0]!r} at the end of vocab.txt"
        )
    ids |= {token: row for row, token in enumerate(missing, len(rows))}
    return rows, missing


@cache
def _stands_alone(piece: str) -> bool:
    points = code_points()
    return all(c in points.chinese or c in points.punctuation for c in piece)
