"""Reading and writing of tokenizer.json, the file of the ``tokenizers`` library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import read_json
from zhbert.text.added_tokens import (
    FLAGS,
    SPECIAL_TOKENS,
    WHITE_SPACE,
    AddedToken,
    parse_tokens_by_id,
)
from zhbert.text.normalize import Options
from zhbert.text.wordpiece import CONTINUATION, MAX_CHARACTERS_PER_WORD


class TokenizerJson:
    """The content of a BERT tokenizer's tokenizer.json.

    Raises:
        ZhbertError: it is not a BERT tokenizer's.
    """

    def __init__(self, path: Path, content: Mapping[str, Any] | None = None) -> None:
        """Read the file, or ``content`` in its place."""
        content = read_json(path, dict, "a tokenizer") if content is None else content
        self.path = path
        model = content.get("model")
        kind = model.get("type", "WordPiece") if isinstance(model, dict) else None
        if not isinstance(model, dict) or kind != "WordPiece":
            raise ZhbertError(
                f"{path}: a {kind} tokenizer, not BERT's WordPiece; zhbert reads BERT's only"
            )
        self._read_model(model)
        self.added_tokens = parse_tokens_by_id(
            content.get("added_tokens") or [], f"{path}: added_tokens"
        )
        self.options = self._read_normalizer(content.get("normalizer"))
        splitter = content.get("pre_tokenizer")
        if not isinstance(splitter, dict) or splitter.get("type") != "BertPreTokenizer":
            raise self._unlike_bert("pre_tokenizer", splitter)

    def agreed_with(self, rows: Sequence[str], vocabulary_file: Path) -> list[str]:
        """Return the pieces of both files; vocab.txt fills gaps left by repeated pieces.

        Raises:
            ZhbertError: the files differ.
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


def to_tokenizer_json(
    pieces: Sequence[str],
    options: Options,
    special_tokens: Mapping[str, str],
    added_tokens: Sequence[tuple[AddedToken, int]],
) -> dict[str, Any]:
    """Return the content of tokenizer.json.

    Args:
        pieces: the word pieces in id order; blank ones are written too, so that ids have no gap.
        options: the options of the normalisation.
        special_tokens: special tokens by their Hugging Face names (``unk_token``, ...).
        added_tokens: all added tokens with their ids, which increase.
    """
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": row, "content": token.content} | {name: getattr(token, name) for name in FLAGS}
            for token, row in added_tokens
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": options.tokenize_chinese_chars,
            "strip_accents": options.strip_accents,
            "lowercase": options.do_lower_case,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _post_processor(
            special_tokens, {token.content: row for token, row in added_tokens}
        ),
        "decoder": {"type": "WordPiece", "prefix": CONTINUATION, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": special_tokens["unk_token"],
            "continuing_subword_prefix": CONTINUATION,
            "max_input_chars_per_word": MAX_CHARACTERS_PER_WORD,
            "vocab": {piece: row for row, piece in enumerate(pieces)},
        },
    }


def _post_processor(
    special_tokens: Mapping[str, str], ids: Mapping[str, int]
) -> dict[str, Any] | None:
    """Return templates: [CLS] A [SEP] and [CLS] A [SEP] B [SEP]; None without these tokens."""

    def special(token: str, segment: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": segment}}

    def sequence(name: str, segment: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": segment}}

    if not {"cls_token", "sep_token"} <= special_tokens.keys():
        return None
    cls, sep = special_tokens["cls_token"], special_tokens["sep_token"]
    single = [special(cls, 0), sequence("A", 0), special(sep, 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, sequence("B", 1), special(sep, 1)],
        "special_tokens": {
            token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in (cls, sep)
        },
    }
