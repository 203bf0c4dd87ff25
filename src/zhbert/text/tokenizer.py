"""BERT's tokenizer: text to piece ids with offsets into the original text.

Ids, pieces and offsets equal those of `transformers`' BertTokenizer on every input.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, make_folder, write_json, write_text
from zhbert.signatures import HEAD, no_text
from zhbert.text.normalize import Options, code_points
from zhbert.text.wordpiece import CONTINUATION, MAX_CHARACTERS_PER_WORD, PythonWordPiece
from zhbert.text.words import WordPieces
from zhbert.zoo import locate
from zhbert.zoo.archive import is_archive_name

__all__ = ["SPECIAL_TOKENS", "Encoding", "Tokenizer", "WordPieces", "read_vocabulary"]

# Hugging Face's names, in the order in which transformers appends those a vocabulary lacks.
SPECIAL_TOKENS: Mapping[str, str] = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}

# Unicode's White_Space, at which transformers ends a line of vocab.txt.
_WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + ("\u2028\u2029\u202f\u205f\u3000")
)


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

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        do_lower_case: bool = True,
        strip_accents: bool | None = None,
        tokenize_chinese_chars: bool = True,
        special_tokens: Mapping[str, str] = SPECIAL_TOKENS,
        extra_special_tokens: Sequence[str] = (),
    ) -> None:
        """Make a tokenizer of pieces in id order.

        ``special_tokens`` maps Hugging Face's names (``mask_token``, ...) to pieces; special tokens
        that the vocabulary lacks are appended to it, as transformers does, except [UNK], without
        which there is no tokenizer. ``extra_special_tokens`` too are matched in text as they stand.
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
        self.extra_special_tokens = tuple(dict.fromkeys(extra_special_tokens))
        pieces = list(vocabulary)
        ids = _number(pieces)
        unknown = self.special_tokens.get("unk_token", SPECIAL_TOKENS["unk_token"])
        if unknown not in ids:
            raise ZhbertError(
                f"the vocabulary has no piece {unknown}, which stands for everything it lacks; "
                "add it (one piece a line) or name another unk_token in tokenizer_config.json"
            )
        self.special_tokens["unk_token"] = unknown
        for token in (*self.special_tokens.values(), *self.extra_special_tokens):
            if not token:
                raise ZhbertError("a special token is empty; remove it from tokenizer_config.json")
            if token not in ids:
                ids[token] = len(pieces)
                pieces.append(token)
        self.vocabulary = tuple(pieces)
        self._ids = ids
        self._special_ids = {
            token: ids[token]
            for token in (*self.special_tokens.values(), *self.extra_special_tokens)
        }
        self._core = _engine()(ids, ids[unknown], self._special_ids, self.options)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Tokenizer:
        """Open a folder with vocab.txt (and tokenizer_config.json) or tokenizer.json, or one file.

        An archive, a name of the catalogue and a hub id lead to their folder, as for models.
        Options come from tokenizer_config.json; what it does not say comes from tokenizer.json's
        normalizer, then from BERT's defaults.
        """
        arguments = _read(_found(Path(path)))
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
        return cls.from_pretrained(Path(__file__).resolve().parent.parent / "assets")

    def save_pretrained(self, folder: str | Path, *, model_max_length: int | None = None) -> None:
        """Write vocab.txt, tokenizer_config.json and tokenizer.json for transformers 4 and 5.

        ``model_max_length`` is where transformers truncates when asked to.
        """
        folder = Path(folder)
        make_folder(folder)
        write_text(folder / "vocab.txt", "".join(f"{piece}\n" for piece in self.vocabulary))
        write_json(folder / "tokenizer_config.json", self._config(model_max_length))
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
        text = codes.tobytes().decode("utf-32-le", "surrogatepass")
        places = list(zip([0, *text_ends.tolist()], text_ends.tolist(), strict=False))
        low = np.searchsorted(word_ends, [a for a, _ in places], "right")
        high = np.searchsorted(word_ends, [b for _, b in places], "left")
        ends = [
            np.append(word_ends[i:j] - a, b - a).astype(np.int32)
            for i, j, (a, b) in zip(low, high, places, strict=True)
        ]
        return self.encode_words([text[a:b] for a, b in places], ends)

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
        content = json.dumps(
            [
                # As transformers writes them, which strips a piece that is white space.
                [piece.rstrip(_WHITE_SPACE) for piece in self.vocabulary],
                self.options.do_lower_case,
                self.options.strips_accents,
                self.options.tokenize_chinese_chars,
                self.special_tokens,
                sorted(self.extra_special_tokens),
            ],
            ensure_ascii=True,
            sort_keys=True,
        )
        return hashlib.sha256(content.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.vocabulary)

    def __reduce__(self) -> tuple[Any, ...]:
        # The native tables stay in their process; another one makes its own.
        again = partial(
            Tokenizer,
            do_lower_case=self.options.do_lower_case,
            strip_accents=self.options.strip_accents,
            tokenize_chinese_chars=self.options.tokenize_chinese_chars,
            special_tokens=self.special_tokens,
            extra_special_tokens=self.extra_special_tokens,
        )
        return again, (self.vocabulary,)

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
            "do_lower_case": self.options.do_lower_case,
            "strip_accents": self.options.strip_accents,
            "tokenize_chinese_chars": self.options.tokenize_chinese_chars,
        }
        for name in SPECIAL_TOKENS:
            config[name] = self.special_tokens.get(name)
        if self.extra_special_tokens:
            config["additional_special_tokens"] = list(self.extra_special_tokens)
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
                {
                    "id": number,
                    "content": token,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
                for token, number in sorted(self._special_ids.items(), key=lambda item: item[1])
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
                "vocab": {piece: number for number, piece in enumerate(self.vocabulary)},
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


def _number(pieces: Sequence[str]) -> dict[str, int]:
    """Piece -> id. Blank lines keep their place in the count but are no pieces."""
    ids = {piece: number for number, piece in enumerate(pieces) if piece}
    if len(ids) + sum(not piece for piece in pieces) != len(pieces):
        seen: dict[str, int] = {}
        for number, piece in enumerate(pieces):
            if piece and seen.setdefault(piece, number) != number:
                raise ZhbertError(
                    f"the vocabulary has {piece!r} twice, with the ids {seen[piece]} and {number}; "
                    "remove one of them"
                )
    return ids


@cache
def _stands_alone(piece: str) -> bool:
    points = code_points()
    return all(c in points.chinese or c in points.punctuation for c in piece)


def _piece(line: str) -> str:
    piece = line.rstrip(_WHITE_SPACE)
    return line.strip("\t\v\f\r ") if piece in ("", CONTINUATION) else piece


def read_vocabulary(path: str | Path) -> list[str]:
    """The pieces of a vocab.txt: one a line, white space at the end of a line not counted.

    Blank lines at the end are no pieces; blank lines before stay, as places without a piece. A
    piece of nothing but other white space (Google's Chinese vocabulary has U+2028, and ## before
    it) stays as it is: no text has such a piece, but the file can be written again.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        if (what := no_text(raw[:HEAD])) is not None:
            raise ZhbertError(f"{path}: {what}")
        text = raw.decode("utf-8")
    except OSError as error:
        raise describe_os_error(error, "reading the vocabulary") from error
    except UnicodeDecodeError as error:
        raise ZhbertError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    if text.startswith("\ufeff"):
        raise ZhbertError(f"{path}: starts with a byte order mark; save it as UTF-8 without one")
    pieces = [_piece(line) for line in text.split("\n")]
    while pieces and not pieces[-1]:
        pieces.pop()
    if not pieces:
        raise ZhbertError(f"{path}: the vocabulary is empty; it needs one piece a line")
    return pieces


def _found(path: Path) -> Path:
    """The folder or file of a tokenizer, which archives and names lead to."""
    if path.is_file() and not is_archive_name(path.name):
        return path
    if path.is_dir() and any((path / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        return path
    try:
        return locate(path)
    except ZhbertError:
        if path.is_dir():
            # No model in it, and no vocabulary: what is missing here is the latter.
            return path
        raise


def _read(path: Path) -> dict[str, Any]:
    """The arguments of Tokenizer that a folder or a file stands for."""
    folder = path if path.is_dir() else path.parent
    vocabulary_file: Path | None = folder / "vocab.txt"
    fast_file: Path | None = folder / "tokenizer.json"
    if not path.is_dir():
        vocabulary_file = None if path.suffix == ".json" else path
        fast_file = path if path.suffix == ".json" else None
    elif not (folder / "vocab.txt").is_file():
        vocabulary_file = None
    if fast_file is not None and not fast_file.is_file():
        fast_file = None
    fast = _FastTokenizer(fast_file) if fast_file else None
    if vocabulary_file is not None:
        vocabulary = read_vocabulary(vocabulary_file)
        if fast is not None:
            fast.must_agree_with(vocabulary, vocabulary_file)
    elif fast is not None:
        vocabulary = fast.vocabulary
    else:
        raise ZhbertError(
            f"{path}: neither vocab.txt nor tokenizer.json there; name a model folder, a corpus "
            "folder or a vocab.txt"
        )
    config_file = folder / "tokenizer_config.json"
    # The configuration speaks of vocab.txt, not of other lists of pieces beside it.
    applies = path.is_dir() or path.name in ("vocab.txt", "tokenizer.json")
    config = _read_config(config_file) if applies else {}
    if applies and not config and fast is None and (folder / "bert_config.json").is_file():
        from zhbert.text.vocab import looks_cased

        # Google's layout has no place for the option: only the pieces tell.
        config = {"do_lower_case": not looks_cased(vocabulary)}
    arguments: dict[str, Any] = dict(fast.options) if fast else {}
    for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
        if name in config:
            arguments[name] = config[name]
        value = arguments.get(name, True)
        if not isinstance(value, bool) and not (value is None and name == "strip_accents"):
            raise ZhbertError(f"{config_file}: {name} must be true or false, not {value!r}")
    special, extra = _special_tokens(config, config_file, fast)
    return arguments | {
        "vocabulary": vocabulary,
        "special_tokens": special,
        "extra_special_tokens": extra,
    }


def _read_config(path: Path) -> dict[str, Any]:
    """tokenizer_config.json, with what older folders keep in special_tokens_map.json."""
    config = _read_json(path) if path.is_file() else {}
    older = path.with_name("special_tokens_map.json")
    if older.is_file() and "added_tokens_decoder" not in config:
        config |= _read_json(older)
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise describe_os_error(error, "reading") from error
    except ValueError as error:
        raise ZhbertError(f"{path}: not JSON ({error}); write it again") from error
    if not isinstance(value, dict):
        raise ZhbertError(f"{path}: a JSON object is expected, not a {type(value).__name__}")
    return value


def _added_token(value: Any, where: str) -> str:
    """An added token's string; only those that are matched as they stand can be read."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise ZhbertError(f"{where}: a token is expected, not {value!r}")
    for name in ("lstrip", "rstrip", "single_word", "normalized"):
        if value.get(name):
            raise ZhbertError(
                f"{where}: the token {value['content']!r} is matched with {name}, which zhbert "
                f'does not do; set "{name}": false, or make it an ordinary piece'
            )
    return str(value["content"])


def _special_tokens(
    config: Mapping[str, Any], config_file: Path, fast: _FastTokenizer | None
) -> tuple[dict[str, str], list[str]]:
    special = dict(SPECIAL_TOKENS)
    if fast is not None:
        special["unk_token"] = fast.unknown_token
    for name in SPECIAL_TOKENS:
        if name in config:
            del special[name]
            if config[name] is not None:
                special[name] = _added_token(config[name], f"{config_file}: {name}")
    extra = []
    for name in ("additional_special_tokens", "extra_special_tokens"):
        values = config.get(name) or []
        values = list(values.values()) if isinstance(values, dict) else values
        extra += [_added_token(value, f"{config_file}: {name}") for value in values]
    added = config.get("added_tokens_decoder") or {}
    extra += [
        _added_token(token, f"{config_file}: added_tokens_decoder") for token in added.values()
    ]
    if fast is not None:
        extra += fast.added_tokens
    return special, [token for token in dict.fromkeys(extra) if token not in special.values()]


class _FastTokenizer:
    """What a tokenizer.json says, as far as it describes a BERT tokenizer."""

    def __init__(self, path: Path) -> None:
        content = _read_json(path)
        self.path = path
        model = content.get("model")
        kind = model.get("type", "WordPiece") if isinstance(model, dict) else None
        if not isinstance(model, dict) or kind != "WordPiece":
            raise ZhbertError(
                f"{path}: a {kind} tokenizer, not BERT's WordPiece; zhbert reads BERT's only"
            )
        self._read_model(model)
        self._read_added_tokens(content.get("added_tokens") or [])
        self.options = self._read_normalizer(content.get("normalizer"))
        splitter = content.get("pre_tokenizer")
        if not isinstance(splitter, dict) or splitter.get("type") != "BertPreTokenizer":
            raise self._unlike_bert("pre_tokenizer", splitter)

    def must_agree_with(self, vocabulary: Sequence[str], vocabulary_file: Path) -> None:
        """Refuse a folder whose two vocabularies differ: which was meant cannot be known."""
        for number, (here, there) in enumerate(zip(self.vocabulary, vocabulary, strict=False)):
            here, there = here.rstrip(_WHITE_SPACE), there.rstrip(_WHITE_SPACE)
            if here != there and here and there:
                raise ZhbertError(
                    f"{self.path} and {vocabulary_file.name} disagree: id {number} is {here!r} and "
                    f"{there!r}; delete the one that does not belong to the model"
                )

    def _read_model(self, model: Mapping[str, Any]) -> None:
        vocabulary = model.get("vocab")
        if not isinstance(vocabulary, dict) or not vocabulary:
            raise ZhbertError(f"{self.path}: no vocabulary in it; write it again")
        numbers = list(vocabulary.values())
        if not all(type(n) is int and n >= 0 for n in numbers) or max(numbers) > 10_000_000:
            raise ZhbertError(f"{self.path}: the vocabulary's ids must be numbers from 0 on")
        self.vocabulary = [""] * (max(numbers) + 1)
        for piece, number in vocabulary.items():
            if self.vocabulary[number]:
                raise ZhbertError(
                    f"{self.path}: {self.vocabulary[number]!r} and {piece!r} share the id {number}"
                )
            self.vocabulary[number] = piece
        self.unknown_token = str(model.get("unk_token", SPECIAL_TOKENS["unk_token"]))
        for name, expected in (
            ("continuing_subword_prefix", CONTINUATION),
            ("max_input_chars_per_word", MAX_CHARACTERS_PER_WORD),
        ):
            if model.get(name, expected) != expected:
                raise self._unlike_bert(name, model[name], expected)

    def _read_added_tokens(self, added: Sequence[Mapping[str, Any]]) -> None:
        self.added_tokens: list[str] = []
        places = {piece: number for number, piece in enumerate(self.vocabulary) if piece}
        for value in sorted(added, key=lambda token: int(token.get("id", 0))):
            token = _added_token(value, f"{self.path}: added_tokens")
            number = places.setdefault(token, len(self.vocabulary))
            if number != value.get("id"):
                raise ZhbertError(
                    f"{self.path}: the added token {token!r} has the id {value.get('id')}, where "
                    f"{number} is expected"
                )
            if number == len(self.vocabulary):
                self.vocabulary.append(token)
            self.added_tokens.append(token)

    def _read_normalizer(self, normalizer: Any) -> dict[str, Any]:
        if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
            raise self._unlike_bert("normalizer", normalizer)
        if normalizer.get("clean_text", True) is not True:
            raise self._unlike_bert("clean_text", normalizer["clean_text"], True)
        return {
            "do_lower_case": normalizer.get("lowercase", True),
            "strip_accents": normalizer.get("strip_accents"),
            "tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True),
        }

    def _unlike_bert(self, name: str, value: Any, expected: Any = None) -> ZhbertError:
        kind = value.get("type") if isinstance(value, dict) else value
        wanted = f", not {expected!r}" if expected is not None else ""
        return ZhbertError(
            f"{self.path}: its {name} is {kind!r}{wanted}: not a BERT tokenizer; zhbert reads "
            "BERT's only"
        )
