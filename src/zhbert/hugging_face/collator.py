"""Whole word masks for transformers' Trainer, accelerate and plain DataLoaders.

collator = WholeWordMaskCollator(tokenizer, seed=1)
Trainer(model, TrainingArguments(..., remove_unused_columns=False), train_dataset=texts,
        data_collator=collator, callbacks=[collator.trainer_callback()])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zhbert.config import MaskingSettings
from zhbert.data.examples import TrainingRow
from zhbert.data.masking import IGNORED, Masker
from zhbert.data.random_streams import MASKS, ReusableGenerator
from zhbert.data.row_plans import truncate_pair
from zhbert.errors import ZhbertError
from zhbert.files import HALF_SURROGATE
from zhbert.hugging_face.any_tokenizer import AnyTokenizer, PiecesOfWords
from zhbert.schema import build, check_choice
from zhbert.text.segmenters import Segmenter, load_segmenter
from zhbert.text.segmenters.protocol import check_segmenter, word_ends_of

# Without a length of the tokenizer's own, transformers says 10^30, and ours None.
_LONGEST_ROW = 100_000
_MOST_ROWS = 1 << 40

Row = dict[str, NDArray[np.int64]]


class WholeWordMaskCollator:
    """Turns rows of a data set into a batch whose words are masked whole.

    A row is a mapping with one of these sets of columns; all rows of a batch have the same:

    * ``text``, and ``text_pair`` if there are two: segmented, tokenized, and cut to
      ``sequence_length`` before a word that does not fit (of a pair, the longer text loses its
      first or last word until both fit);
    * ``text``, ``input_ids`` and, if there are any, ``text_pair``, ``token_type_ids`` and
      ``offset_mapping``: as the tokenizer has returned them, with their special tokens;
    * ``input_ids`` and ``word_starts`` (1 where a word starts): likewise, segmented before;
    * ``pieces`` and ``word_starts``: without special tokens, as in the tables of
      `zhbert.load_corpus`; ``document_starts`` says where [SEP] separates documents;
    * ``input_ids`` and ``labels``: what `mask` has returned; it is only padded.

    Special tokens that stand in a text are never predicted, except [UNK].

    **Which masks.** Once an epoch is set, a row's masks depend on (seed, epoch, row) alone: not on
    batch, order, worker, process, or where a run was resumed. ``row`` is the row's number in the
    column of that name, or else a hash of its pieces. `trainer_callback` sets the epoch in
    transformers' Trainer, `set_epoch` elsewhere, before the epoch's first batch is asked for; both
    reach the workers of a DataLoader, persistent ones too. Without an epoch, masks are new in every
    batch, and drawn from torch's generator, as those of transformers' own collators are.

    Args:
        tokenizer: a BERT tokenizer of transformers, fast or not, or a `zhbert.Tokenizer`.
        segmenter: a name, or what `zhbert.load_segmenter` returns (with a user dictionary, say).
        sequence_length: the most pieces of a row, special tokens included; None: the tokenizer's
            ``model_max_length``, or 512 if it has none.
        seed: 0 or more.
        pad_to_multiple_of: batches are padded to such a length; None: to their longest row.
        return_tensors: ``pt`` (torch) or ``np``.
        masking: keys of a recipe's ``[masking]`` table: ``strategy``, ``rate``, ``char_share``,
            ``per_word`` and so on (`MaskingSettings`). ``max_predictions`` is without effect unless
            it is set: a row has as many as its rate says.

    Raises:
        ZhbertError: a setting is unknown or out of range, or the tokenizer is not BERT's.

    >>> from zhbert import Tokenizer
    >>> collator = WholeWordMaskCollator(Tokenizer.default(), return_tensors="np", rate=0.4)
    >>> collator.set_epoch(0)
    >>> batch = collator([{"text": "使用语言模型"}, {"text": "模型"}])
    >>> {name: array.shape for name, array in batch.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'input_ids': (2, 8), 'token_type_ids': (2, 8), 'labels': (2, 8), 'attention_mask': (2, 8)}
    >>> [(label != -100).tolist() for label in batch["labels"][:, 1:7]]
    [[True, True, False, False, False, False], [True, True, False, False, False, False]]
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        segmenter: str | Segmenter = "jieba",
        sequence_length: int | None = None,
        seed: int = 0,
        pad_to_multiple_of: int | None = None,
        return_tensors: str = "pt",
        **masking: Any,
    ) -> None:
        check_choice(return_tensors, ("pt", "np"), "WholeWordMaskCollator: return_tensors")
        if sequence_length is None:
            sequence_length = getattr(tokenizer, "model_max_length", None) or _LONGEST_ROW
            sequence_length = 512 if sequence_length >= _LONGEST_ROW else sequence_length
        if sequence_length < 5 or seed < 0:
            raise ZhbertError(
                f"WholeWordMaskCollator: sequence_length = {sequence_length}, seed = {seed}: must "
                "be 5 or more, and 0 or more"
            )
        settings = build(
            MaskingSettings,
            {"max_predictions": sequence_length, **masking},
            "",
            "WholeWordMaskCollator",
        )
        if settings.final_rate is not None:
            raise ZhbertError(
                "WholeWordMaskCollator: final_rate: a collator does not know how long the run is; "
                "leave it out"
            )
        if isinstance(segmenter, str):
            segmenter = load_segmenter(segmenter)
        self.tokenizer = tokenizer
        self.segmenter = check_segmenter(segmenter)
        self.sequence_length = sequence_length
        self.seed = seed
        self.pad_to_multiple_of = pad_to_multiple_of
        self.return_tensors = return_tensors
        self._source = AnyTokenizer(tokenizer)
        self._masker = Masker(settings, self._source.pieces())
        vocabulary = self._masker.vocabulary
        self._special = np.zeros(len(vocabulary.pieces), np.bool_)
        self._special[list(self._source.all_special_ids - {self._source.special_ids["unk"]})] = True
        self._generator = ReusableGenerator()
        # In memory that is shared with workers, however they are started; -1: no epoch is set.
        self._epoch = torch.full((), -1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def __call__(
        self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None
    ) -> dict[str, Any]:
        """Mask rows and pad them.

        Returns:
            ``input_ids``, ``token_type_ids``, ``labels`` (-100 where nothing is predicted) and
            ``attention_mask``, each (rows, length) int64.

        Raises:
            ZhbertError: the rows have none of the sets of columns, or a text is not a string.
        """
        # A number is the label of a text as a whole: of no use here.
        is_masked = np.ndim(features[0].get("labels", 0)) == 1
        rows = features if is_masked else self.mask(features)
        batch = self._padded(rows)
        if (return_tensors or self.return_tensors) == "np":
            return dict(batch)
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's masks: 0 is the first; workers that already run hear of it, too."""
        if epoch < 0:
            raise ZhbertError(f"WholeWordMaskCollator: epoch = {epoch}: must be 0 or more")
        self._epoch.fill_(epoch)

    def trainer_callback(self) -> Any:
        """Return a TrainerCallback that sets the epoch as transformers' Trainer counts it.

        Raises:
            ZhbertError: transformers is not installed.
        """
        try:
            from transformers import TrainerCallback
        except ImportError:
            raise ZhbertError("transformers is not installed; pip install transformers") from None
        collator = self

        class SetEpoch(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                # Not zero where a run is resumed.
                self.epoch = int(state.epoch or 0)

            def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                collator.set_epoch(self.epoch)
                self.epoch += 1

        return SetEpoch()

    def mask(self, features: Sequence[Mapping[str, Any]]) -> list[Row]:
        """Mask rows without padding: ``input_ids``, ``token_type_ids`` and ``labels`` of each.

        For rows whose masks stay the same, such as those of an evaluation.
        """
        epoch = int(self._epoch)
        if epoch < 0:
            epoch = int(torch.randint(1 << 24, ()))
        elif static := self._masker.settings.static_masks:
            epoch %= static
        masked = []
        for feature, unmasked in zip(features, self._unmasked(features), strict=True):
            number = _number_of(feature, unmasked, self._special)
            rng = self._generator.at(self.seed, MASKS, epoch, number)
            row = unmasked if isinstance(unmasked, TrainingRow) else self._joined(unmasked, rng)
            masked.append(self._masked(row, rng))
        return masked

    def _masked(self, row: TrainingRow, rng: np.random.Generator) -> Row:
        ids = row.piece_ids
        # Special tokens of a text separate words and are not predicted, as [SEP].
        hidden = self._special[ids]
        originals = ids[hidden]
        ids[hidden] = self._masker.vocabulary.sep_id
        labels = self._masker.mask(ids, row.word_starts, rng)
        ids[hidden] = originals
        types = np.zeros(len(ids), np.int64)
        types[row.first_length :] = 1
        return {"input_ids": ids, "token_type_ids": types, "labels": labels}

    def _unmasked(
        self, features: Sequence[Mapping[str, Any]]
    ) -> Sequence[TrainingRow | list[PiecesOfWords]]:
        """Read the rows: complete, or as segments between special tokens."""
        columns = features[0].keys()
        if "word_starts" in columns and "pieces" in columns:
            return [[self._stored(feature)] for feature in features]
        if "word_starts" in columns and "input_ids" in columns:
            return [
                _complete(row, np.array(row["input_ids"], np.int64), row["word_starts"])
                for row in features
            ]
        if "text" not in columns:
            raise ZhbertError(
                f"WholeWordMaskCollator: the rows have no 'text' (columns: "
                f"{', '.join(columns) or 'none'}); Trainer drops it unless "
                "TrainingArguments(remove_unused_columns=False)"
            )
        names = ["text", "text_pair"] if "text_pair" in columns else ["text"]
        texts = [_text_of(feature, name) for feature in features for name in names]
        ends = word_ends_of(self.segmenter, texts)
        if "input_ids" in columns:
            pairs = zip(texts, ends, strict=True)
            return [self._tokenized(row, [next(pairs) for _ in names]) for row in features]
        segments = self._source.segments(texts, ends)
        step = len(names)
        return [segments[at : at + step] for at in range(0, len(segments), step)]

    def _stored(self, feature: Mapping[str, Any]) -> PiecesOfWords:
        """Read a row of a corpus's table."""
        ids = np.array(feature["pieces"], np.int64)
        starts = np.array(feature["word_starts"], np.bool_)
        documents = np.asarray(feature.get("document_starts", ()), np.int64)
        if len(documents):
            ids = np.insert(ids, documents, self._masker.vocabulary.sep_id)
            starts = np.insert(starts, documents, True)
        return PiecesOfWords(ids, starts)

    def _tokenized(
        self, feature: Mapping[str, Any], texts: Sequence[tuple[str, NDArray[Any]]]
    ) -> TrainingRow:
        """Find the words of a row that the tokenizer has made of one or two texts."""
        ids = np.array(feature["input_ids"], np.int64)
        types = np.asarray(feature.get("token_type_ids", np.zeros(len(ids))), np.int64)
        offsets = feature.get("offset_mapping")
        starts = np.ones(len(ids), np.bool_)
        # [CLS], [SEP] and padding have the offsets (0, 0), too; other special tokens, their own.
        vocabulary = self._masker.vocabulary
        marks = [vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id]
        for number, (text, ends) in enumerate(texts):
            here = np.flatnonzero((types == number) & ~np.isin(ids, marks))
            places = None if offsets is None else np.asarray(offsets, np.int64)[here]
            starts[here] = self._source.word_starts(text, ids[here], places, ends)
        return _complete(feature, ids, starts)

    def _joined(self, segments: list[PiecesOfWords], rng: np.random.Generator) -> TrainingRow:
        """Return [CLS] A [SEP], or [CLS] A [SEP] B [SEP]; what is too long is cut by words."""
        most = self.sequence_length - 1 - len(segments)
        if len(segments) == 2:
            (a, a_words), (b, b_words) = segments
            first, end, begin, stop = truncate_pair(a_words, b_words, most, rng)
            cut = [PiecesOfWords(a[first:end], a_words[first:end])]
            cut.append(PiecesOfWords(b[begin:stop], b_words[begin:stop]))
        else:
            cut = [_beginning(segments[0], most)]
        vocabulary = self._masker.vocabulary
        sep = np.array([vocabulary.sep_id])
        start = np.ones(1, np.bool_)
        return TrainingRow(
            np.concatenate([[vocabulary.cls_id], *chain(*((one.ids, sep) for one in cut))]),
            np.concatenate([start, *chain(*((one.word_starts, start) for one in cut))]),
            first_length=len(cut[0].ids) + 2,
            next_sentence_label=None,
            dropped=0,
        )

    def _padded(self, rows: Sequence[Mapping[str, Any]]) -> Row:
        """Pad masked rows to one length; a row's attention mask is 1 where it has pieces."""
        length = max(len(row["input_ids"]) for row in rows)
        if multiple := self.pad_to_multiple_of:
            length = -(-length // multiple) * multiple
        shape = (len(rows), length)
        batch = {
            "input_ids": np.full(shape, max(self._masker.vocabulary.pad_id, 0), np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
            "labels": np.full(shape, IGNORED, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
        }
        for number, row in enumerate(rows):
            size = len(row["input_ids"])
            batch["attention_mask"][number, :size] = 1
            for name in row.keys() & batch.keys() - {"attention_mask"}:
                batch[name][number, :size] = row[name]
        return batch


def _complete(feature: Mapping[str, Any], ids: NDArray[np.int64], word_starts: Any) -> TrainingRow:
    """Return a row with its special tokens as it is, without padding at its end."""
    length = int(np.sum(feature.get("attention_mask", np.ones(len(ids)))))
    second = np.count_nonzero(np.asarray(feature.get("token_type_ids", ()))[:length])
    return TrainingRow(
        ids[:length], np.array(word_starts, np.bool_)[:length], length - int(second), None, 0
    )


def _beginning(segment: PiecesOfWords, most: int) -> PiecesOfWords:
    """Cut a segment before the first word that does not fit."""
    ids, starts = segment
    if len(ids) > most:
        # A word as long as the row has nowhere else to be cut.
        most = int(np.flatnonzero(starts[: most + 1])[-1]) or most
    return PiecesOfWords(ids[:most], starts[:most])


def _number_of(
    feature: Mapping[str, Any],
    unmasked: TrainingRow | list[PiecesOfWords],
    special: NDArray[np.bool_],
) -> int:
    """Return the number that stands for a row: that of its column, or a hash of its pieces."""
    if (number := feature.get("row")) is not None:
        if not 0 <= int(number) < _MOST_ROWS:
            raise ZhbertError(f"WholeWordMaskCollator: row = {number}: must be 0 to {_MOST_ROWS}")
        return int(number)
    if isinstance(unmasked, TrainingRow):
        ids = unmasked.piece_ids
        ids = ids[~special[ids]]
    else:
        ids = np.concatenate([segment.ids for segment in unmasked])
    digest = blake2b(ids.astype("<i8").tobytes(), digest_size=5).digest()
    return int.from_bytes(digest, "little")


def _text_of(feature: Mapping[str, Any], name: str) -> str:
    text = feature[name]
    if not isinstance(text, str):
        raise ZhbertError(
            f"WholeWordMaskCollator: a row's {name} is {type(text).__name__}; a string is needed"
        )
    # Tokenizers in Rust take valid Unicode alone; as long as before, so that offsets stay.
    return HALF_SURROGATE.sub("\ufffd", text)
