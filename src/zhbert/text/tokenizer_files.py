"""What the files of a tokenizer say: vocab.txt, tokenizer.json and those beside them.

transformers 2 to 5 wrote the same things in different places. Which of them count, and the order in
which added tokens get their ids, is read off `_from_pretrained` in transformers'
tokenization_utils_base.py (https://github.com/huggingface/transformers).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import read_json
from zhbert.text.added_tokens import WHITE_SPACE, AddedToken
from zhbert.text.vocab import looks_cased, read_rows, warn_of_repeated
from zhbert.text.wordpiece import CONTINUATION, MAX_CHARACTERS_PER_WORD
from zhbert.zoo import locate
from zhbert.zoo.archive import is_archive_name
from zhbert.zoo.layout import is_weights

# Hugging Face's names, in the order in which transformers appends those a vocabulary lacks.
SPECIAL_TOKENS: Mapping[str, str] = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}

# In the order in which tokenizer.json has them.
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def find_tokenizer(path: Path) -> Path:
    """The folder or file of a tokenizer, which archives and names lead to."""
    if path.is_file() and is_weights(path):
        return path.parent
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


def read_tokenizer(path: Path) -> dict[str, Any]:
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
        vocabulary = read_rows(vocabulary_file)
        warn_of_repeated(vocabulary, vocabulary_file)
        if fast is not None:
            vocabulary = fast.agreed_with(vocabulary, vocabulary_file)
    elif fast is not None:
        vocabulary = fast.vocabulary
    else:
        raise ZhbertError(
            f"{path}: neither vocab.txt nor tokenizer.json there; name a model folder, a corpus "
            "folder or a vocab.txt"
        )
    # The configuration speaks of vocab.txt, not of other lists of pieces beside it.
    applies = path.is_dir() or path.name in ("vocab.txt", "tokenizer.json")
    files = _OptionFiles(folder if applies else None)
    if applies and not files.config and fast is None and (folder / "bert_config.json").is_file():
        # Google's layout has no place for the option: only the pieces tell.
        files.config = {"do_lower_case": not looks_cased(vocabulary)}
    special = dict(SPECIAL_TOKENS)
    if fast is not None:
        special["unk_token"] = fast.unknown_token
    special, tokens = files.added_tokens(special, fast.added_tokens if fast else {})
    _must_have_their_ids(path, vocabulary, tokens)
    return files.options(fast.options if fast else {}) | {
        "vocabulary": vocabulary,
        "special_tokens": special,
        "added_tokens": [token for token, _ in tokens],
    }


def _must_have_their_ids(
    path: Path, vocabulary: Sequence[str], tokens: Sequence[tuple[AddedToken, int | None]]
) -> None:
    """Refuse added tokens whose files give them other ids than transformers would."""
    ids = {piece: row for row, piece in enumerate(vocabulary) if piece}
    following = len(set(vocabulary))
    for token, number in tokens:
        row = ids.get(token.content)
        if row is None:
            row = ids[token.content] = following
            following += 1
        if number is not None and number != row:
            raise ZhbertError(
                f"{path}: the added token {token.content!r} has the id {number}, where {row} is "
                "expected (transformers counts on from the vocabulary): files of two models are "
                "mixed here"
            )


def _token(value: Any, where: str, *, special: bool = False) -> AddedToken:
    """An added token as the files have it: its string, or an object with what is not usual."""
    if isinstance(value, str):
        return AddedToken(value, special=True, normalized=False)
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise ZhbertError(f"{where}: a token is expected, not {value!r}")
    special = special or bool(value.get("special"))
    flags = {name: value.get(name, False) for name in FLAGS[:3]}
    flags["normalized"] = value.get("normalized", not special)
    if odd := [name for name, flag in flags.items() if not isinstance(flag, bool)]:
        raise ZhbertError(
            f"{where}: {value['content']!r}: {odd[0]} must be true or false, not {flags[odd[0]]!r}"
        )
    return AddedToken(value["content"], special=special, **flags)


def _by_id(values: Any, where: str) -> dict[int, AddedToken]:
    """Added tokens by their ids: of a list whose entries have them, or an object id -> token."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(values, dict):
        pairs = list(values.items())
    elif isinstance(values, list) and all(isinstance(value, dict) for value in values):
        pairs = [(value.get("id"), value) for value in values]
    else:
        raise ZhbertError(f"{where}: tokens and their ids are expected, not {values!r:.40}")
    found: dict[int, AddedToken] = {}
    for key, value in pairs:
        token = AddedToken(value) if isinstance(value, str) else _token(value, where)
        if not re.fullmatch("[0-9]{1,9}", str(key)):
            raise ZhbertError(
                f"{where}: {token.content!r} has the id {key!r}; a number is expected"
            )
        if any(token.content == other.content for other in found.values()):
            raise ZhbertError(f"{where}: {token.content!r} has two ids; which counts is not known")
        if int(key) in found:
            raise ZhbertError(
                f"{where}: {found[int(key)].content!r} and {token.content!r} share the id {key}"
            )
        found[int(key)] = token
    return found


class _OptionFiles:
    """The files beside a vocabulary: tokenizer_config.json and those that older folders have."""

    # transformers' order; it makes every other key that ends in _token a special token, too.
    _NAMES = (
        "bos_token",
        "eos_token",
        "unk_token",
        "sep_token",
        "pad_token",
        "cls_token",
        "mask_token",
    )

    def __init__(self, folder: Path | None) -> None:
        self.config: dict[str, Any] = {}
        self._added: dict[int, AddedToken] | None = None
        self._legacy: dict[int, AddedToken] = {}
        self._where = "tokenizer_config.json"
        if folder is None:
            return
        path = folder / "tokenizer_config.json"
        self._where = str(path)
        self.config = read_json(path, dict, "a tokenizer's options") if path.is_file() else {}
        if self.config.get("additional_special_tokens") and not self._extra():
            self.config["extra_special_tokens"] = self.config.pop("additional_special_tokens")
        if "added_tokens_decoder" in self.config:
            added = self.config["added_tokens_decoder"] or {}
            self._added = _by_id(added, f"{path}: added_tokens_decoder")
            return
        self._read_older(folder)

    def _extra(self) -> Any:
        return self.config.get("extra_special_tokens")

    def _read_older(self, folder: Path) -> None:
        """What was written before tokenizer_config.json held the added tokens."""
        older = folder / "special_tokens_map.json"
        for key, value in (read_json(older, dict) if older.is_file() else {}).items():
            if isinstance(value, dict) and "content" in value:
                self.config[key] = value | {"special": True}
            elif key == "extra_special_tokens" and isinstance(value, list):
                self.config[key] = [*(self._extra() or []), *value]
            else:
                self.config[key] = value
        legacy = folder / "added_tokens.json"
        if legacy.is_file():
            rows = read_json(legacy, dict, "a list of added tokens")
            names = (name for name in self.config if name.endswith("_token"))
            special = {_token(self.config[n], n).content for n in names if self.config[n]}
            special |= {_token(value, "extra_special_tokens").content for value in self._extras()}
            entries = [
                {"id": row, "content": token, "special": token in special}
                for token, row in rows.items()
            ]
            self._legacy = _by_id(entries, str(legacy))
        # Only now: in this file's place the names of before count as no special tokens.
        if more := self.config.get("additional_special_tokens"):
            self.config.setdefault("extra_special_tokens", more)

    def _extras(self) -> list[Any]:
        extra = self._extra() or []
        if not isinstance(extra, list | dict):
            raise ZhbertError(
                f"{self._where}: extra_special_tokens must be a list, not {extra!r:.40}"
            )
        return list(extra.values()) if isinstance(extra, dict) else extra

    def options(self, usual: Mapping[str, Any]) -> dict[str, Any]:
        """The options of the normalisation: those of ``usual`` where nothing else is said."""
        found = dict(usual)
        for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
            if name in self.config:
                found[name] = self.config[name]
            value = found.get(name, True)
            if not isinstance(value, bool) and not (value is None and name == "strip_accents"):
                raise ZhbertError(f"{self._where}: {name} must be true or false, not {value!r}")
        return found

    def added_tokens(
        self, special: dict[str, str], fast: Mapping[int, AddedToken]
    ) -> tuple[dict[str, str], list[tuple[AddedToken, int | None]]]:
        """The special tokens by name, and all added tokens in transformers' order.

        ``special``: the usual names; ``fast``: the added tokens of tokenizer.json, which count
        where tokenizer_config.json has none. With each token the id that a file gives it.
        """
        by_id = self._added if self._added is not None else {**self._legacy, **fast}
        found: dict[str, tuple[AddedToken, int | None]] = {
            token.content: (token, row) for row, token in sorted(by_id.items())
        }
        others = (key for key in self.config if key.endswith("_token") and key not in self._NAMES)
        for name in (*self._NAMES, *others):
            value = self.config.get(name, special.get(name))
            if name in self.config:
                special.pop(name, None)
            if value is None or (name not in self._NAMES and not isinstance(value, str | dict)):
                continue
            named = _token(value, f"{self._where}: {name}")
            token, row = found.get(named.content, (named, None))
            found[token.content] = replace(token, special=True), row
            if name in SPECIAL_TOKENS:
                special[name] = token.content
        for value in self._extras():
            extra = _token(value, f"{self._where}: extra_special_tokens")
            found.setdefault(extra.content, (extra, None))
        return special, list(found.values())


class _FastTokenizer:
    """What a tokenizer.json says, as far as it describes a BERT tokenizer."""

    def __init__(self, path: Path) -> None:
        content = read_json(path, dict, "a tokenizer")
        self.path = path
        model = content.get("model")
        kind = model.get("type", "WordPiece") if isinstance(model, dict) else None
        if not isinstance(model, dict) or kind != "WordPiece":
            raise ZhbertError(
                f"{path}: a {kind} tokenizer, not BERT's WordPiece; zhbert reads BERT's only"
            )
        self._read_model(model)
        self.added_tokens = _by_id(content.get("added_tokens") or [], f"{path}: added_tokens")
        self.options = self._read_normalizer(content.get("normalizer"))
        splitter = content.get("pre_tokenizer")
        if not isinstance(splitter, dict) or splitter.get("type") != "BertPreTokenizer":
            raise self._unlike_bert("pre_tokenizer", splitter)

    def agreed_with(self, rows: Sequence[str], vocabulary_file: Path) -> list[str]:
        """The pieces, with rows of vocab.txt where this file has holes (repeated pieces).

        Refuses a folder whose two vocabularies differ: which was meant cannot be known.
        """
        here = dict(enumerate(self.vocabulary))
        here |= {row: token.content for row, token in self.added_tokens.items()}
        for row, piece in enumerate(rows):
            one, other = here.get(row, "").rstrip(WHITE_SPACE), piece.rstrip(WHITE_SPACE)
            if other and (one != other if one else row not in here):
                there = f"is {one!r} and" if one else "is missing and"
                raise ZhbertError(
                    f"{self.path} and {vocabulary_file.name} disagree: id {row} {there} "
                    f"{other!r}; delete the one that does not belong to the model"
                )
        count = len(self.vocabulary)
        return [a or b for a, b in zip_longest(self.vocabulary, rows[:count], fillvalue="")]

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
