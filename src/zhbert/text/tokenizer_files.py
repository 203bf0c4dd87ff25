"""Reading of a tokenizer's files: vocab.txt, tokenizer.json and the files next to them.

transformers 2 to 5 wrote the same things in different places. The precedence of the files and the
order of the added tokens' ids follow `_from_pretrained` in transformers'
tokenization_utils_base.py (https://github.com/huggingface/transformers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import read_json
from zhbert.text.added_tokens import (
    SPECIAL_TOKENS,
    AddedToken,
    parse_token,
    parse_tokens_by_id,
)
from zhbert.text.tokenizer_json import TokenizerJson
from zhbert.text.vocab import looks_cased, read_rows, warn_of_repeated
from zhbert.zoo import locate
from zhbert.zoo.archive import is_archive_name
from zhbert.zoo.layout import is_weights


def find_tokenizer(path: Path) -> Path:
    """Return the folder or file of the tokenizer at a path, in an archive or in the catalogue."""
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
            # This error is about a missing model; `read_tokenizer` raises one about the vocabulary.
            return path
        raise


def read_tokenizer(path: Path) -> dict[str, Any]:
    """Read the arguments for `Tokenizer` from a folder or a file.

    Raises:
        ZhbertError: there is no vocabulary, it is not BERT's, or files contradict each other.
    """
    vocabulary_file, json_file = _vocabulary_files(path)
    fast = None if json_file is None else TokenizerJson(json_file)
    vocabulary = _read_pieces(path, vocabulary_file, fast)
    folder = path if path.is_dir() else path.parent
    # tokenizer_config.json describes only files with the usual names in its folder.
    applies = path.is_dir() or path.name in ("vocab.txt", "tokenizer.json")
    config = _TokenizerConfig(folder if applies else None)
    if applies and not config.values and fast is None and (folder / "bert_config.json").is_file():
        # Google's layout does not store this option, so it is inferred from the pieces.
        config.values = {"do_lower_case": not looks_cased(vocabulary)}
    special = dict(SPECIAL_TOKENS)
    if fast is not None:
        special["unk_token"] = fast.unknown_token
    special, tokens = config.added_tokens(special, fast.added_tokens if fast else {})
    _check_ids(path, vocabulary, tokens)
    return config.options(fast.options if fast else {}) | {
        "vocabulary": vocabulary,
        "special_tokens": special,
        "added_tokens": [token for token, _ in tokens],
        "model_max_length": config.model_max_length(),
    }


def _vocabulary_files(path: Path) -> tuple[Path | None, Path | None]:
    """Return the vocab.txt and the tokenizer.json of a folder or a file, if they exist."""
    if not path.is_dir() and path.suffix != ".json":
        return path, None
    text, fast = (path / "vocab.txt", path / "tokenizer.json") if path.is_dir() else (None, path)
    return text if text and text.is_file() else None, fast if fast.is_file() else None


def _read_pieces(path: Path, vocabulary_file: Path | None, fast: TokenizerJson | None) -> list[str]:
    """Read the pieces in id order from the file that exists, or from two that must agree."""
    if vocabulary_file is None and fast is None:
        raise ZhbertError(
            f"{path}: neither vocab.txt nor tokenizer.json there; name a model folder, a corpus "
            "folder or a vocab.txt"
        )
    if vocabulary_file is None:
        assert fast is not None
        return fast.vocabulary
    pieces = read_rows(vocabulary_file)
    warn_of_repeated(pieces, vocabulary_file)
    return pieces if fast is None else fast.agreed_with(pieces, vocabulary_file)


def _check_ids(
    path: Path, vocabulary: Sequence[str], tokens: Sequence[tuple[AddedToken, int | None]]
) -> None:
    """Raise ZhbertError if a file gives an added token a different id than transformers."""
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


class _TokenizerConfig:
    """The files next to a vocabulary: tokenizer_config.json, and those of older versions.

    ``values``: the combined settings, by the keys of tokenizer_config.json.
    """

    # In transformers' order. It treats every other key that ends in _token as a special token, too.
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
        self.values: dict[str, Any] = {}
        self._added: dict[int, AddedToken] | None = None
        self._legacy: dict[int, AddedToken] = {}
        self._where = "tokenizer_config.json"
        if folder is None:
            return
        path = folder / "tokenizer_config.json"
        self._where = str(path)
        self.values = read_json(path, dict, "a tokenizer's options") if path.is_file() else {}
        if self.values.get("additional_special_tokens") and not self._extra():
            self.values["extra_special_tokens"] = self.values.pop("additional_special_tokens")
        if "added_tokens_decoder" in self.values:
            added = self.values["added_tokens_decoder"] or {}
            self._added = parse_tokens_by_id(added, f"{path}: added_tokens_decoder")
            return
        self._read_older(folder)

    def _extra(self) -> Any:
        return self.values.get("extra_special_tokens")

    def _read_older(self, folder: Path) -> None:
        """Read the files from before tokenizer_config.json contained the added tokens."""
        older = folder / "special_tokens_map.json"
        for key, value in (read_json(older, dict) if older.is_file() else {}).items():
            if isinstance(value, dict) and "content" in value:
                self.values[key] = value | {"special": True}
            elif key == "extra_special_tokens" and isinstance(value, list):
                self.values[key] = [*(self._extra() or []), *value]
            else:
                self.values[key] = value
        legacy = folder / "added_tokens.json"
        if legacy.is_file():
            rows = read_json(legacy, dict, "a list of added tokens")
            names = (name for name in self.values if name.endswith("_token"))
            special = {parse_token(self.values[n], n).content for n in names if self.values[n]}
            special |= {
                parse_token(value, "extra_special_tokens").content for value in self._extras()
            }
            entries = [
                {"id": row, "content": token, "special": token in special}
                for token, row in rows.items()
            ]
            self._legacy = parse_tokens_by_id(entries, str(legacy))
        # Only after added_tokens.json: its tokens do not become special through these names.
        if more := self.values.get("additional_special_tokens"):
            self.values.setdefault("extra_special_tokens", more)

    def _extras(self) -> list[Any]:
        extra = self._extra() or []
        if not isinstance(extra, list | dict):
            raise ZhbertError(
                f"{self._where}: extra_special_tokens must be a list, not {extra!r:.40}"
            )
        return list(extra.values()) if isinstance(extra, dict) else extra

    def options(self, usual: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the normalisation; ``usual`` has the defaults."""
        found = dict(usual)
        for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
            if name in self.values:
                found[name] = self.values[name]
            value = found.get(name, True)
            if not isinstance(value, bool) and not (value is None and name == "strip_accents"):
                raise ZhbertError(f"{self._where}: {name} must be true or false, not {value!r}")
        return found

    def model_max_length(self) -> int | None:
        """Return the greatest length of a row; transformers writes 1e30 if it does not know."""
        length = self.values.get("model_max_length")
        return length if isinstance(length, int) and 0 < length < 1_000_000 else None

    def added_tokens(
        self, special: dict[str, str], fast: Mapping[int, AddedToken]
    ) -> tuple[dict[str, str], list[tuple[AddedToken, int | None]]]:
        """Return the special tokens by name, and all added tokens with their ids in the files.

        Args:
            special: the default special tokens.
            fast: the added tokens of tokenizer.json, used if tokenizer_config.json has none.

        Returns:
            The special tokens, and the added tokens in transformers' order.
        """
        by_id = self._added if self._added is not None else {**self._legacy, **fast}
        found: dict[str, tuple[AddedToken, int | None]] = {
            token.content: (token, row) for row, token in sorted(by_id.items())
        }
        others = (key for key in self.values if key.endswith("_token") and key not in self._NAMES)
        for name in (*self._NAMES, *others):
            value = self.values.get(name, special.get(name))
            if name in self.values:
                special.pop(name, None)
            if value is None or (name not in self._NAMES and not isinstance(value, str | dict)):
                continue
            named = parse_token(value, f"{self._where}: {name}")
            token, row = found.get(named.content, (named, None))
            found[token.content] = replace(token, special=True), row
            if name in SPECIAL_TOKENS:
                special[name] = token.content
        for value in self._extras():
            extra = parse_token(value, f"{self._where}: extra_special_tokens")
            found.setdefault(extra.content, (extra, None))
        return special, list(found.values())
