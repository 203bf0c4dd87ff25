"""A teacher with another vocabulary of the same characters, given the student's.

Rows and labels are made of the student's pieces. Each of them is looked up, by its text, among the
teacher's pieces, and the rows of the teacher's word embeddings (which are also the output matrix of
its masked-word head) are put into the student's order, once. The teacher is then a model with the
student's vocabulary: nothing else in a run knows of the other one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.config import DistillSettings
from zhbert.errors import ZhbertError
from zhbert.text.added_tokens import WHITE_SPACE
from zhbert.text.normalize import Options, code_points, normalize
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.wordpiece import CONTINUATION

# The logit of a piece that the teacher cannot predict: no probability at any temperature in use,
# and finite in bfloat16 and float16.
NO_LOGIT = -1e4
# A teacher that does not know so much of the text has nothing to teach.
LEAST_TEXT_SHARE = 0.5


@dataclass(frozen=True)
class VocabularyMap:
    """Which of the teacher's pieces stands for each of the student's V pieces."""

    rows: NDArray[np.int64]
    """(V,) the teacher's ids; -1: none."""
    exact: NDArray[np.bool_]
    """(V,) true where both pieces have the same text, or are the same special token."""
    counts: NDArray[np.int64]
    """(V,) how often each of the student's pieces occurs in the text."""
    unk_id: int
    """The teacher's id of [UNK]."""
    is_identity: bool
    """Both vocabularies are the same."""

    @property
    def share(self) -> float:
        """The share of the student's vocabulary that has a piece of the teacher's."""
        return float((self.rows >= 0).mean())

    @property
    def text_share(self) -> float:
        """The share of the text's pieces that have a piece of the teacher's."""
        total = int(self.counts.sum())
        return float(self.counts[self.rows >= 0].sum() / total) if total else self.share

    @cached_property
    def log_shares(self) -> NDArray[np.float32]:
        """(V,) the log of each piece's share of the probability of the teacher's piece.

        Several of the student's pieces may have the same one of the teacher's ("The" and "the" in
        a lower-cased vocabulary, "字" and "##字" where there is only one). As many as they are,
        they share its probability, in proportion to how often they occur.
        """
        weights = self.counts + np.where(self.exact, 0.5, 0.0)
        totals = np.bincount(self.rows + 1, weights)[self.rows + 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(weights / totals)
        found = np.where((self.rows >= 0) & np.isfinite(logs), logs, NO_LOGIT)
        return np.maximum(found, NO_LOGIT).astype(np.float32)

    def __str__(self) -> str:
        """Return how much was found, for people."""
        mapped = int((self.rows >= 0).sum())
        return (
            f"{mapped:,} of {len(self.rows):,} pieces ({self.share:.1%}) are mapped to the "
            f"teacher's, {self.text_share:.1%} of the text"
        )


def map_vocabulary(
    student: Tokenizer, teacher: Tokenizer, counts: NDArray[np.int64]
) -> VocabularyMap:
    """Find the teacher's piece for each of the student's.

    A special token is looked up by its role, any other piece by its text; then, if only one of the
    two vocabularies is lower-cased, without regard to case; and a "##" piece of one Chinese
    character without its "##", which means the same.

    Args:
        student: the tokenizer of the rows.
        teacher: the tokenizer of the teacher's folder.
        counts: (V,) how often each of the student's pieces occurs in the text.

    >>> special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    >>> student = Tokenizer([*special, "使", "##使", "用", "bert"])
    >>> teacher = Tokenizer(["使", "BERT", *special], do_lower_case=False)
    >>> found = map_vocabulary(student, teacher, np.array([0, 0, 0, 0, 0, 3, 0, 1, 4]))
    >>> found.rows.tolist()
    [2, 3, 4, 5, 6, 0, 0, -1, 1]
    >>> print(found)
    8 of 9 pieces (88.9%) are mapped to the teacher's, 87.5% of the text
    """
    lookup = _Lookup(teacher, _folding(student.options, teacher.options))
    rows = np.array([lookup.find(piece) for piece in student.vocabulary], np.int64)
    exact = np.array([lookup.ids.get(piece) is not None for piece in student.vocabulary])
    for role, token in student.special_tokens.items():
        row, theirs = student.id_of(token), teacher.special_tokens.get(role)
        if row is not None and theirs is not None:
            found = teacher.id_of(theirs)
            rows[row], exact[row] = (-1, False) if found is None else (found, True)
    same = _content(student) == _content(teacher)
    if same:
        # Of a piece that stands there twice, each row is its own.
        rows, exact = np.arange(len(student)), np.ones(len(student), np.bool_)
    return VocabularyMap(rows, exact, counts, teacher.unk_id, same)


def _content(tokenizer: Tokenizer) -> tuple[list[str], dict[str, str]]:
    """Return what ids stand for; programs write pieces of odd white space in different ways."""
    pieces = [piece.rstrip(WHITE_SPACE) for piece in tokenizer.vocabulary]
    return pieces, dict(tokenizer.special_tokens)


class _Lookup:
    """The teacher's ids by text; ``fold`` makes texts alike in which case does not count."""

    def __init__(self, teacher: Tokenizer, fold: Callable[[str], str] | None) -> None:
        self.ids = {piece: row for row, piece in enumerate(teacher.vocabulary) if piece}
        self._fold = fold
        self._folded: dict[str, int] = {}
        if fold is not None:
            for row, piece in enumerate(teacher.vocabulary):
                # Pieces stand in order of their frequency, so that the first one is the likeliest.
                self._folded.setdefault(fold(piece), row)

    def find(self, piece: str) -> int:
        """Return the id of the teacher's piece, or -1."""
        if not piece:
            return -1
        bare = piece.removeprefix(CONTINUATION)
        forms = [piece]
        if len(bare) == 1 and bare in code_points().chinese:
            forms.append(bare)
        for form in forms:
            if form in self.ids:
                return self.ids[form]
            if self._fold is not None and (row := self._folded.get(self._fold(form))) is not None:
                return row
        return -1


def _folding(student: Options, teacher: Options) -> Callable[[str], str] | None:
    """Return the function that makes pieces of both vocabularies alike; None: none is needed."""
    if student.do_lower_case == teacher.do_lower_case:
        return None
    lower = student if student.do_lower_case else teacher
    options = Options(True, lower.strip_accents, tokenize_chinese_chars=False)
    return lambda piece: "".join(normalize(piece, options)[0])


def give_vocabulary(model: Any, mapping: VocabularyMap, *, rows: int) -> None:
    """Put a teacher's word embeddings, and its masked-word bias if any, into the student's order.

    Pieces that the teacher lacks get the embedding of its [UNK], and as labels no probability.

    Args:
        model: a model of `zhbert.model.pretrained`; it is changed, unless it fits already.
        mapping: of the student's V pieces.
        rows: the rows of the student's own matrix, V or more: spare ones are never read.
    """
    # Imported here: 'zhbert check' maps vocabularies, but opens no model.
    import torch

    if mapping.is_identity and model.config.vocab_size == rows:
        return
    wanted = torch.full((rows,), -1, dtype=torch.int64)
    wanted[: len(mapping.rows)] = torch.from_numpy(mapping.rows)
    there, source = wanted >= 0, wanted.where(wanted >= 0, mapping.unk_id)
    words = model.encoder.embeddings.words
    words.weight = torch.nn.Parameter(words.weight.detach()[source], requires_grad=False)
    words.num_embeddings = model.config.vocab_size = rows
    if (head := getattr(model, "mlm_head", None)) is not None:
        shares = torch.zeros(rows)
        shares[: len(mapping.rows)] = torch.from_numpy(mapping.log_shares)
        bias = (head.bias.detach()[source] + shares.to(head.bias)).where(there, NO_LOGIT)
        head.bias = torch.nn.Parameter(bias, requires_grad=False)


def check_mapping(mapping: VocabularyMap, teacher: str, settings: DistillSettings) -> None:
    """Raise a ZhbertError if a teacher's vocabulary is another and may or can not be mapped.

    Args:
        mapping: from the student's to the teacher's pieces.
        teacher: the teacher's name, for the error.
        settings: ``other_vocabulary`` decides.
    """
    if mapping.is_identity:
        return
    if settings.other_vocabulary != "map":
        raise ZhbertError(
            f"{teacher}: a teacher of another vocabulary than the student's: "
            f"distill.other_vocabulary=map maps its pieces by their text: {mapping}"
        )
    if mapping.text_share < LEAST_TEXT_SHARE:
        raise ZhbertError(
            f"{teacher}: the teacher's vocabulary is too different from the student's: {mapping}; "
            f"at least {LEAST_TEXT_SHARE:.0%} of the text must be; take another teacher"
        )


def check_logits(mapping: VocabularyMap, teacher: str, settings: DistillSettings) -> None:
    """Raise a ZhbertError if logits of pieces are compared that a teacher does not have."""
    squared = settings.soft_labels == "mse" and not settings.top_k
    if squared and (mapping.rows < 0).any():
        raise ZhbertError(
            f"{teacher}: distill.soft_labels = mse compares the logits of all pieces, and the "
            f"teacher has none for some of them ({mapping}): take distill.soft_labels=ce"
        )
