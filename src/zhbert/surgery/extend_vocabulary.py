"""Models with more pieces, taken from a list of words, from texts or from a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.data import SPLITS
from zhbert.data.read_options import ReadOptions
from zhbert.data.shards import Corpus
from zhbert.data.sources import check_encoding
from zhbert.data.texts import read_lines
from zhbert.errors import ZhbertError
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
    encoding: str | None = None,
    from_text: Iterable[str] | None = None,
    at_most: int | None = None,
    min_frequency: int | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write a model with more pieces to the folder ``out``.

    A new row is the mean of the rows of the pieces that its word was split into before, and so is
    its bias in the masked-word head. Trained rows are kept bit for bit. New ids follow the old
    ones; if a model has more rows than pieces, these spare rows are used first.

    Args:
        model: a model, given as anything that ``zhbert.zoo.locate`` accepts.
        source: a list (a word or a piece a line), all of which are added, or a corpus folder.
        encoding: of the list, if it is not UTF-8.
        from_text: texts; iterated over twice, so a generator does not work.
        at_most: the limit of pieces from texts and a corpus (default 1,000).
        min_frequency: their minimum frequency there (default 10).

    Returns:
        ``added`` (each with ``piece``, ``id``, ``count`` in the text, and ``was``, its former
        pieces), ``known`` and ``refused`` words of the list, ``pieces`` and ``rows``, also with
        ``_before``, and ``coverage`` of ``from_text`` by the old and the new vocabulary.

    Raises:
        ZhbertError: there is nothing to add, or a file cannot be read.
    """
    is_corpus = source is not None and Path(source).is_dir()
    if source is None and from_text is None:
        raise ZhbertError("nothing to add: give --with LIST, --with CORPUS or --from-text FILES")
    _check_bounds(at_most, min_frequency, used=is_corpus or from_text is not None)
    out = check_out(out, model, overwrite=overwrite)
    words = _read_list(source, encoding) if source is not None and not is_corpus else []
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
    """Describe the new pieces; ``former`` contains the ids of each one's former pieces."""
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


def _read_list(path: str | Path, encoding: str | None) -> list[str]:
    """Return the lines of a list, without blank ones."""
    reading = ReadOptions(encoding=check_encoding(encoding))
    words = [line.strip() for lines in read_lines(path, reading) for line in lines]
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
    """Return characters inside pieces without a ``##`` form: words split before one are [UNK]."""
    points = code_points()
    inner = {
        character
        for piece in tokenizer.vocabulary
        for character in piece.removeprefix(CONTINUATION)[not piece.startswith(CONTINUATION) :]
        # Special tokens and [unused1] are left out: text is split at their brackets.
        if points.punctuation.isdisjoint(piece) or piece.startswith(CONTINUATION)
    }
    inner -= points.chinese | points.punctuation | points.spaces
    return sorted(c for c in inner if tokenizer.id_of(CONTINUATION + c) is None)


# --- words --------------------------------------------------------------------------------------


def _count_words(
    tokenizer: Tokenizer, corpus: str | Path | None, texts: Iterable[str] | None
) -> Counter[str]:
    """Count the words of a corpus, and those words of texts that are split or become [UNK]."""
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
    """Count the words of a corpus: those of its tokenizer, not of a segmenter.

    A corpus contains pieces; the pieces of a word, joined, are the word as the tokenizer normalised
    it. Words that became [UNK] are lost.
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
    """Count the words of a shard; ``inside`` is true for each piece that continues a word."""
    first = np.flatnonzero(~inside[pieces])
    sizes = np.diff(np.append(first, len(pieces)))
    alone = np.bincount(pieces[first[sizes == 1]])
    for piece in np.flatnonzero(alone).tolist():
        words[plain[piece]] += int(alone[piece])
    # All longer words of one size are counted together, as the distinct rows of a table.
    for size in np.unique(sizes[sizes > 1]).tolist():
        table = pieces[first[sizes == size][:, None] + np.arange(size)]
        rows, counts = np.unique(table, axis=0, return_counts=True)
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
            words["".join(plain[piece] for piece in row)] += count
