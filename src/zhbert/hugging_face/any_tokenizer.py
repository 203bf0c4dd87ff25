"""Any BERT tokenizer, ours or one of transformers', as pieces that know where their words start."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.words import first_pieces
from zhbert.wording import shortly

_NAMES = ("pad", "unk", "cls", "sep", "mask")
# A name that masking never draws at random (`MaskingVocabulary`).
_NEVER = "[unused0]"


class PiecesOfWords(NamedTuple):
    """A text without special tokens."""

    ids: NDArray[np.int64]
    """(length,) its pieces"""
    word_starts: NDArray[np.bool_]
    """(length,) True for the first piece of a word"""


class AnyTokenizer:
    """Our `Tokenizer`, or any tokenizer of transformers with BERT's word pieces and special tokens.

    Pieces and words are aligned by offsets in characters. A tokenizer without offsets (transformers
    calls it slow) gets those of our tokenizer with the same vocabulary and rules. Where the two
    make other pieces of a text, the pieces between those that they share have the offsets of what
    stands there in ours.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not isinstance(tokenizer, Tokenizer) and not hasattr(tokenizer, "get_vocab"):
            raise ZhbertError(
                f"tokenizer = {shortly(tokenizer)}: a tokenizer is needed, such as "
                "zhbert.Tokenizer.from_pretrained(...)"
            )
        self.tokenizer = tokenizer

    @cached_property
    def special_ids(self) -> dict[str, int | None]:
        """The ids of the special tokens by the names pad, unk, cls, sep and mask."""
        if isinstance(self.tokenizer, Tokenizer):
            tokens = self.tokenizer.special_tokens
            return {name: self.tokenizer.id_of(tokens.get(f"{name}_token", "")) for name in _NAMES}
        return {name: getattr(self.tokenizer, f"{name}_token_id") for name in _NAMES}

    @cached_property
    def all_special_ids(self) -> set[int]:
        """The ids of all special tokens, those without a name included."""
        ours = isinstance(self.tokenizer, Tokenizer)
        return set(self.tokenizer.special_ids if ours else self.tokenizer.all_special_ids)

    def pieces(self) -> list[str]:
        """Return the pieces in id order; the named special tokens have BERT's names: [CLS] ..."""
        if isinstance(self.tokenizer, Tokenizer):
            known = {piece: number for number, piece in enumerate(self.tokenizer.vocabulary)}
        else:
            known = self.tokenizer.get_vocab()
        pieces = [_NEVER] * (max(known.values(), default=-1) + 1)
        names = {f"[{name.upper()}]": number for name, number in self.special_ids.items()}
        for piece, number in known.items():
            if piece not in names:
                pieces[number] = piece
        for name, special in names.items():
            if special is not None:
                pieces[special] = name
        return pieces

    def segments(
        self, texts: Sequence[str], word_ends: Sequence[NDArray[Any]]
    ) -> list[PiecesOfWords]:
        """Encode texts without adding special tokens; the arguments are `encode_words`'s."""
        if isinstance(self.tokenizer, Tokenizer):
            found = self.tokenizer.encode_words(texts, word_ends)
            ids = found.ids.astype(np.int64)
            return [
                PiecesOfWords(ids[a:b], found.word_starts[a:b])
                for a, b in pairwise(found.starts.tolist())
            ]
        batch = self._called(list(texts), self._has_offsets)
        offsets = batch.get("offset_mapping", [None] * len(texts))
        return [
            PiecesOfWords(ids := np.array(row, np.int64), self.word_starts(text, ids, places, ends))
            for text, row, places, ends in zip(
                texts, batch["input_ids"], offsets, word_ends, strict=True
            )
        ]

    def word_starts(
        self, text: str, ids: NDArray[np.int64], offsets: Any, word_ends: NDArray[Any]
    ) -> NDArray[np.bool_]:
        """Return which pieces of a text start a word.

        Args:
            text: the text.
            ids: (length,) its pieces, without special tokens that are not in the text.
            offsets: (length, 2) characters of each piece; None if the tokenizer gives none.
            word_ends: the ends of the text's words.
        """
        if offsets is None:
            starts = self._found_again(text, ids)
        else:
            starts = np.asarray(offsets, np.int64).reshape(-1, 2)[:, 0]
        return first_pieces(starts, word_ends)

    @cached_property
    def _has_offsets(self) -> bool:
        try:
            return "offset_mapping" in self._called(["字"], True)
        except (NotImplementedError, TypeError):  # what Python tokenizers say
            return False

    def _called(self, texts: list[str], offsets: bool) -> Any:
        wanted = {"return_offsets_mapping": True} if offsets else {}
        return self.tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            # It would say that a text is longer than the model's rows: it is cut later.
            verbose=False,
            **wanted,
        )

    @cached_property
    def _twin(self) -> Tokenizer:
        if isinstance(self.tokenizer, Tokenizer):
            return self.tokenizer
        with tempfile.TemporaryDirectory() as folder:
            try:
                self.tokenizer.save_pretrained(folder)
                return Tokenizer.from_pretrained(folder)
            except ZhbertError as error:
                raise ZhbertError(
                    f"{type(self.tokenizer).__name__}: gives no offsets, and is not BERT's "
                    f"tokenizer ({str(error).removeprefix(folder).strip('/: ')}): use its fast "
                    "version"
                ) from None

    def _found_again(self, text: str, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the character at which each piece starts."""
        ours = self._twin.encode(text)
        starts = np.append(ours.offsets[:, 0], len(text)).astype(np.int64)
        if np.array_equal(ours.ids, ids):
            return starts[:-1]
        found = np.empty(len(ids), np.int64)
        matcher = SequenceMatcher(None, ours.ids.tolist(), ids.tolist(), autojunk=False)
        for _, first, last, begin, end in matcher.get_opcodes():
            # What ours lacks stands where the piece before it does.
            first = max(first - (first == last), 0)
            place = first + np.arange(end - begin) * (last - first) // max(end - begin, 1)
            found[begin:end] = starts[place]
        return found
