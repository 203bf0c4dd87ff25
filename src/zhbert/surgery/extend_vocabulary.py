"""A model with more pieces: from a list of words, from texts, or from a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.data.shards import SPLITS, Corpus
from zhbert.errors import ZhbertError
from zhbert.files import read_text
from zhbert.model.folder import check_out, open_model_folder
from zhbert.surgery.entries import extend_rows
from zhbert.text.coverage import compare_coverage
from zhbert.text.extend_vocab import (
    Admission,
    CutWords,
    admit,
    fold_counts,
    ids_of_piece,
    pieces_for,
    with_pieces,
)
from zhbert.text.normalize import code_points
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.wordpiece import CONTINUATION
from zhbert.wording import without_secrets

AT_MOST = 1000
MIN_FREQUENCY = 10


def extend_vocabulary(
    model: str | Path,
    out: str | Path,
    *,
    source: str | Path | None = None,
    from_text: Iterable[str] | None = None,
    at_most: int | None = None,
    min_frequency: int | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write a model with more pieces to the folder ``out``; return what was added.

    A new row is the mean of the rows of the pieces that its word was cut into before, and so is its
    bias in the masked-word head. Trained rows stay bit for bit. New ids come after the old ones;
    where a model has more rows than pieces, these spare rows are used first.

    Args:
        model: a folder, an archive or a name: anything that ``zhbert.zoo.locate`` takes.
        source: a list (a word or a piece a line), all of which is taken, or a corpus folder.
        from_text: texts. They are iterated over twice, so not a generator.
        at_most: how many pieces are taken from texts and a corpus (1,000).
        min_frequency: how often they must occur there (10).

    Returns:
        ``added`` (each with ``piece``, ``id``, ``count`` in the text, the pieces that it ``was``),
        ``known`` and ``refused`` words of the list, ``pieces`` and ``rows`` with ``_before``, and
        ``coverage``, what the old and the new vocabulary make of ``from_text``.

    Raises:
        ZhbertError: nothing to add, or something that cannot be read.
    """
    is_corpus = source is not None and Path(source).is_dir()
    if source is None and from_text is None:
        raise ZhbertError("nothing to add: give --with LIST, --with CORPUS or --from-text FILES")
    _check_bounds(at_most, min_frequency, used=is_corpus or from_text is not None)
    out = check_out(out, model, overwrite=overwrite)
    words = _read_list(Path(source)) if source is not None and not is_corpus else []
    opened = open_model_folder(model, quiet=quiet)
    old = opened.tokenizer
    listed = admit(old, words)
    least = MIN_FREQUENCY if min_frequency is None else min_frequency
    asked = pieces_for(
        with_pieces(old, [*old.vocabulary, *listed.new]),
        _count_words(old, source if is_corpus else None, from_text),
        at_most=AT_MOST if at_most is None else at_most,
        min_frequency=least,
    )
    if not listed.new and not asked:
        where = "the text" if source is None else source
        raise ZhbertError(f"{where}: nothing to add: {_why_nothing(listed, model, least)}")
    counts: dict[str, int | None] = {**dict.fromkeys(listed.new), **asked}
    former = [ids_of_piece(old, piece) for piece in counts]
    new = with_pieces(old, [*old.vocabulary, *counts])
    coverage = {} if from_text is None else {"coverage": compare_coverage(old, new, from_text)}
    entries = extend_rows(opened.entries, former, first=len(old))
    extended = opened.changed(entries, tokenizer=new)
    extended.write(out, overwrite=overwrite)
    return {
        "model": without_secrets(str(model)),
        "out": str(out),
        "pieces": len(new),
        "pieces_before": len(old),
        "rows": extended.rows,
        "rows_before": opened.rows,
        "added": _added(old, counts, former),
        "unknown_before": sum(rows == [old.unk_id] for rows in former),
        "known": listed.known,
        "refused": listed.refused,
        "without_inner_form": _without_inner_form(new),
        **coverage,
    }


def _added(
    old: Tokenizer, counts: Mapping[str, int | None], former: Sequence[Sequence[int]]
) -> list[dict[str, Any]]:
    """The new pieces, by their counts in the text; ``former`` are the ids that each had before."""
    return [
        {
            "piece": piece,
            "id": number,
            "count": count,
            "was": [old.vocabulary[row] for row in rows],
            "was_unknown": rows == [old.unk_id],
        }
        for number, ((piece, count), rows) in enumerate(
            zip(counts.items(), former, strict=True), len(old)
        )
    ]


def _check_bounds(at_most: int | None, min_frequency: int | None, *, used: bool) -> None:
    for name, value in (("at-most", at_most), ("min-frequency", min_frequency)):
        if value is not None and value < 1:
            raise ZhbertError(f"--{name} {value}: must be 1 or more")
        if value is not None and not used:
            raise ZhbertError(f"--{name} is for --from-text and a corpus; of a list, all is taken")


def _read_list(path: Path) -> list[str]:
    """The lines of a list, without blank ones."""
    words = [line.strip() for line in read_text(path, "a list of words").splitlines()]
    if not any(words):
        raise ZhbertError(f"{path}: empty; it needs a word or a piece a line")
    return [word for word in words if word]


def _why_nothing(listed: Admission, model: str | Path, least: int) -> str:
    reasons = []
    if listed.known:
        reasons.append(f"{model} has {len(listed.known):,} of its words already")
    reasons += [f"{len(words):,} cannot be pieces ({why})" for why, words in listed.refused.items()]
    if listed.refused:
        reasons.append("prose goes with --from-text FILE")
    if not reasons:
        reasons.append(
            f"no word that {model} cuts, and no character that it lacks, occurs {least} times "
            "(--min-frequency)"
        )
    return "; ".join(reasons)


def _without_inner_form(tokenizer: Tokenizer) -> list[str]:
    """Characters inside pieces that have no ``##`` form: a word cut before one becomes [UNK]."""
    points = code_points()
    inner = {
        character
        for piece in tokenizer.vocabulary
        for character in piece.removeprefix(CONTINUATION)[not piece.startswith(CONTINUATION) :]
        # Special tokens and [unused1] are cut at their brackets.
        if points.punctuation.isdisjoint(piece) or piece.startswith(CONTINUATION)
    }
    inner -= points.chinese | points.punctuation | points.spaces
    return sorted(c for c in inner if tokenizer.id_of(CONTINUATION + c) is None)


# --- words --------------------------------------------------------------------------------------


def _count_words(
    tokenizer: Tokenizer, corpus: str | Path | None, texts: Iterable[str] | None
) -> Counter[str]:
    """The words of a corpus, and of texts those that the tokenizer cuts or does not know."""
    words: Counter[str] = Counter()
    if corpus is not None:
        words += fold_counts(corpus_words(Corpus.open(corpus)), tokenizer.options)
    if texts is not None:
        cut = CutWords(tokenizer)
        for text in texts:
            cut.add(text)
        words += cut.folded()
    return words


def corpus_words(corpus: Corpus) -> Counter[str]:
    """How often each word of a corpus occurs: words as its tokenizer sees them, not a segmenter.

    A corpus holds pieces; those of a word, joined, are the word as the tokenizer folded it. Words
    that became [UNK] are lost.
    """
    tokenizer = corpus.tokenizer()
    plain = [piece.removeprefix(CONTINUATION) or piece for piece in tokenizer.vocabulary]
    pairs = zip(plain, tokenizer.vocabulary, strict=True)
    inside = np.array([one != piece for one, piece in pairs])
    words: Counter[str] = Counter()
    for split in SPLITS:
        for shard in corpus.shards(split):
            _add_words(words, np.asarray(shard.pieces), inside, plain)
    for special in tokenizer.special_ids:
        words.pop(plain[special], None)
    return words


def _add_words(
    words: Counter[str],
    pieces: NDArray[np.integer],
    inside: NDArray[np.bool_],
    plain: Sequence[str],
) -> None:
    """Count the words of a shard; ``inside`` says of each piece whether it continues a word."""
    first = np.flatnonzero(~inside[pieces])
    sizes = np.diff(np.append(first, len(pieces)))
    alone = np.bincount(pieces[first[sizes == 1]])
    for piece in np.flatnonzero(alone).tolist():
        words[plain[piece]] += int(alone[piece])
    # Longer words, all of one size at a time: a table of them, and its distinct rows.
    for size in np.unique(sizes[sizes > 1]).tolist():
        table = pieces[first[sizes == size][:, None] + np.arange(size)]
        rows, counts = np.unique(table, axis=0, return_counts=True)
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
            words["".join(plain[piece] for piece in row)] += count
