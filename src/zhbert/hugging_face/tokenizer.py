"""A tokenizer for transformers that encodes batches of texts natively, many times as fast."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import copy
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.tokenizer_files import find_tokenizer
from zhbert.text.tokenizer_json import TokenizerJson
from zhbert.zoo.origin import is_hub_id

try:
    from tokenizers import Encoding
    from transformers import BatchEncoding, BertTokenizerFast  # type: ignore[attr-defined]
except ImportError:
    raise ZhbertError(
        "ZhbertTokenizer is a tokenizer of transformers, which is not installed: pip install "
        "transformers; zhbert.Tokenizer works without it"
    ) from None

_Again = Callable[[], BatchEncoding]

# A text of fewer characters is encoded by `tokenizers` before the arrays here are made.
_SHORT = 64


class ZhbertTokenizer(BertTokenizerFast):  # type: ignore[misc]
    """transformers' BertTokenizerFast, with the same results, encoding batches natively.

    Everything else (decoding, added tokens, files, ``pad``, ...) is BertTokenizerFast's own. It
    also encodes what the native code does not: a single short text, options of rare kinds, and
    everything if the normalizer or the template was replaced by one that is not BERT's.
    ``char_to_token``, ``word_ids`` and the like are answered by ``tokenizers``, which encodes the
    texts again when the first such question is asked.

    >>> tokenizer = ZhbertTokenizer.from_pretrained("mini")
    >>> batch = tokenizer(["使用语言模型", "概率"], padding=True, return_tensors="np")
    >>> batch["input_ids"].shape
    (2, 8)
    >>> tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    ['使 用 语 言 模 型', '概 率']
    """

    # transformers 5 reads the vocabulary as for BertTokenizer only if there is an own __init__.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    @classmethod
    def from_pretrained(cls, name: str | Path, *args: Any, **kwargs: Any) -> ZhbertTokenizer:
        """Open a folder, an archive, a vocab.txt, a name in the catalogue, or a hub id.

        The other arguments are transformers' (``do_lower_case``, ``revision``, ...).

        Raises:
            ZhbertError: nothing of that name exists, or it has no BERT tokenizer.
        """
        if not is_hub_id(str(name)) or Path(name).exists():
            name = find_tokenizer(Path(name))
        tokenizer: ZhbertTokenizer = super().from_pretrained(str(name), *args, **kwargs)
        return tokenizer

    def save_pretrained(self, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        """Write transformers' files of a BertTokenizer; who opens them needs no zhbert."""
        plain = copy(self)
        plain.__class__ = BertTokenizerFast
        files: tuple[str, ...] = plain.save_pretrained(*args, **kwargs)
        return files

    def _encode_plus(self, text: Any, text_pair: Any = None, **options: Any) -> BatchEncoding:
        again: _Again = partial(super()._encode_plus, text, text_pair, **options)
        short = isinstance(text, str) and not text_pair and len(text) < _SHORT
        return again() if short else self._natively(text, text_pair, options, again)

    def _batch_encode_plus(
        self, batch_text_or_text_pairs: Any, **options: Any
    ) -> BatchEncoding:  # transformers 4 calls it for lists: of texts, or of pairs as tuples
        batch = batch_text_or_text_pairs
        again: _Again = partial(super()._batch_encode_plus, batch, **options)
        if len(batch) < 2:  # what its _encode_plus makes of one text
            return again()
        words = options.get("is_split_into_words", False)
        paired = isinstance(batch[0], tuple) and not (words and isinstance(batch[0][0], str))
        texts, pairs = zip(*batch, strict=True) if paired else (batch, None)
        return self._natively(texts, pairs, options, again)

    def _natively(
        self, text: Any, text_pair: Any, options: dict[str, Any], again: _Again
    ) -> BatchEncoding:
        """Encode by `Tokenizer`; where it refuses, ``again`` does it, or says why not."""
        native = self._native()
        if native is None:
            return again()
        try:
            inputs = native(text, text_pair, **self._native_options(options))
        except (TypeError, ZhbertError):
            return again()
        if options.get("max_length") is None:
            rows = inputs["input_ids"]
            if isinstance(rows, list) and not (rows and isinstance(rows[0], list)):
                rows = [rows]
            verbose = options.get("verbose", True)
            self._eventual_warn_about_too_long_sequence(
                max(rows, key=len, default=[]), None, verbose
            )
        return _NativeEncoding(inputs, again, 2 if text_pair else 1)

    def _native_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return transformers' arguments as those of `Tokenizer`, with this object's defaults."""
        defaults = {
            "padding_side": self.padding_side,
            "split_special_tokens": self.split_special_tokens,
            "return_token_type_ids": "token_type_ids" in self.model_input_names,
            "return_attention_mask": "attention_mask" in self.model_input_names,
        }
        chosen = {"truncation_side": self.truncation_side}
        for name, value in options.items():
            if name != "verbose":
                chosen[name.removesuffix("_strategy")] = (
                    defaults.get(name) if value is None else value
                )
        return chosen

    def _native(self) -> Tokenizer | None:
        """Return the native tokenizer by the present rules, or None if they are not BERT's."""
        backend = self._tokenizer
        parts = (backend.normalizer, backend.pre_tokenizer, backend.post_processor)
        rules = [part and part.__getstate__() for part in parts], self.pad_token
        if self.__dict__.get("_native_rules") != rules:
            self._native_rules, self._native_tokenizer = rules, _native_tokenizer(self)
        return self._native_tokenizer

    def _add_tokens(self, *args: Any, **kwargs: Any) -> int:
        self.__dict__.pop("_native_rules", None)
        number: int = super()._add_tokens(*args, **kwargs)
        return number

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_native")}


class _NativeEncoding(BatchEncoding):
    """The inputs; the `tokenizers.Encoding` objects are made when they are first asked for."""

    def __init__(self, inputs: dict[str, Any], again: _Again, n_sequences: int) -> None:
        super().__init__(inputs, n_sequences=n_sequences)
        del self._encodings  # which is None
        self._again = again

    @cached_property
    def _encodings(self) -> Any:  # type: ignore[override]
        return self._again().encodings

    @property
    def is_fast(self) -> bool:
        return True


def _native_tokenizer(tokenizer: BertTokenizerFast) -> Tokenizer | None:
    """Return the same tokenizer, natively; None if it is not BERT's in all that it does."""
    backend = tokenizer._tokenizer
    if backend.post_processor is None or tokenizer.pad_token_type_id != 0:
        return None
    around = backend.post_processor.process(Encoding(), Encoding())
    if around.type_ids != [0, 0, 1] or around.tokens[1] != around.tokens[2]:
        return None
    named = zip(("cls_token", "sep_token"), around.tokens, strict=False)
    try:
        fast = TokenizerJson(Path("tokenizer.json"), json.loads(backend.to_str()))
        native = Tokenizer(
            fast.vocabulary,
            **fast.options,
            special_tokens={
                "unk_token": fast.unknown_token,
                **dict(named),
                **({"pad_token": tokenizer.pad_token} if tokenizer.pad_token else {}),
            },
            added_tokens=[token for _, token in sorted(fast.added_tokens.items())],
        )
    except ZhbertError:
        return None
    ids = {row: native.id_of(token.content) for row, token in fast.added_tokens.items()}
    same = all(row == number for row, number in ids.items())
    return native if same and len(native.added_tokens) == len(ids) else None
