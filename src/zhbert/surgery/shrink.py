"""Smaller models made from large ones, with fewer layers, pieces or positions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.model.folder import ModelFolder, check_out, open_model_folder
from zhbert.surgery.entries import keep_layers, parameters_by_part, resize_positions, select_rows
from zhbert.text.coverage import compare_coverage
from zhbert.text.extend_vocab import ids_of_piece, with_pieces
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.vocab import read_vocabulary
from zhbert.wording import without_secrets


def shrink(
    model: str | Path,
    out: str | Path,
    *,
    layers: str | Sequence[int] | None = None,
    vocab: str | Path | None = None,
    vocab_from: Iterable[str] | None = None,
    vocab_size: int | None = None,
    positions: int | None = None,
    corpus: Iterable[str] | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write a smaller model to the folder ``out``.

    Remaining weights are the same bit for bit, heads included.

    Args:
        model: a model, given as anything that ``zhbert.zoo.locate`` accepts.
        layers: the layers to keep, from 0, in their new order, as numbers or as text: "0-2,-1".
        vocab: a vocab.txt with a part of the model's pieces, which are kept in this order.
        vocab_from: texts whose most frequent pieces are kept, besides special tokens and ASCII
            characters; iterated over twice, so a generator does not work.
        vocab_size: the number of pieces to keep; None: all that ``vocab_from`` uses.
        positions: the number of positions to keep, from the first one on.
        corpus: texts to report lost pieces of; None: ``vocab_from``.

    Returns:
        ``layers``, ``pieces``, ``positions``, ``rows`` (of the word embeddings), ``parameters`` (by
        part), ``total`` and ``bytes``, each also with ``_before``; and, if the vocabulary has
        changed and there are texts, ``corpus``: their coverage and lost pieces.

    Raises:
        ZhbertError: there is nothing to do, a layer does not exist, or the vocabulary has pieces
            that the model lacks.
    """
    new_vocabulary = vocab is not None or vocab_from is not None
    _check_request(
        nothing=layers is None and positions is None and not new_vocabulary,
        corpus_alone=corpus is not None and not new_vocabulary,
        size_alone=vocab_size is not None and vocab_from is None,
    )
    out = check_out(out, model, overwrite=overwrite)
    large = open_model_folder(model, quiet=quiet)
    kept = _layers_of(large, layers)
    entries = large.entries if layers is None else keep_layers(large.entries, kept)
    if positions is not None:
        _check_positions(positions, large.config.max_position_embeddings, str(model))
        entries = resize_positions(entries, positions)
    tokenizer, loss = large.tokenizer, None
    if new_vocabulary:
        rows = (
            _most_used(tokenizer, vocab_from or (), vocab_size)
            if vocab is None
            else _rows_of_file(tokenizer, Path(vocab))
        )
        entries = select_rows(entries, rows)
        tokenizer = with_pieces(tokenizer, [tokenizer.vocabulary[row] for row in rows])
        texts = vocab_from if corpus is None else corpus
        loss = None if texts is None else _loss(large.tokenizer, tokenizer, texts)
    small = large.changed(entries, tokenizer=tokenizer, num_layers=len(kept))
    small.write(out, overwrite=overwrite)
    figures = {
        "model": without_secrets(str(model)),
        "out": str(out),
        "layers": kept,
        "layers_before": large.config.num_hidden_layers,
        **_figures(small, ""),
        **_figures(large, "_before"),
    }
    return figures if loss is None else {**figures, "corpus": loss}


def _check_request(*, nothing: bool, corpus_alone: bool, size_alone: bool) -> None:
    if nothing:
        raise ZhbertError(
            "nothing to take away: give --layers, --vocab, --vocab-from or --positions"
        )
    if corpus_alone:
        raise ZhbertError("--corpus reports on a smaller vocabulary: give --vocab too")
    if size_alone:
        raise ZhbertError("--vocab-size goes with --vocab-from, which names the text to count on")


def _figures(model: ModelFolder, end: str) -> dict[str, Any]:
    parameters = parameters_by_part(model.entries)
    return {
        f"pieces{end}": len(model.tokenizer),
        f"positions{end}": model.config.max_position_embeddings,
        f"rows{end}": model.rows,
        f"parameters{end}": parameters,
        f"total{end}": sum(parameters.values()),
        f"bytes{end}": sum(entry.size for entry in model.entries.values()),
    }


def _layers_of(model: ModelFolder, layers: str | Sequence[int] | None) -> list[int]:
    count = model.config.num_hidden_layers
    if layers is None:
        return list(range(count))
    return parse_layers(layers, count) if isinstance(layers, str) else list(layers)


def parse_layers(text: str, layers: int) -> list[int]:
    """Parse ``0,1,2``, ``0-2`` or ``0,-1`` for a model with ``layers`` layers.

    >>> parse_layers("0-2,-1", 12)
    [0, 1, 2, 11]

    Raises:
        ZhbertError: ``text`` is not such a list, or has a layer twice or one that does not exist.
    """
    found: list[int] = []
    for item in text.split(","):
        match = re.fullmatch(r"\s*(?:(\d+)\s*-\s*(\d+)|(-?\d+))\s*", item, re.ASCII)
        if match is None:
            raise ZhbertError(f"--layers {text}: '{item}' is no layer; write 0,1,2 or 0-2")
        first, last = int(match[1] or match[3]), int(match[2] or match[3])
        if first > last:
            raise ZhbertError(f"--layers {text}: '{item}' runs backwards; name each: 2,1,0")
        if not (-layers <= first and last < layers):
            raise ZhbertError(
                f"--layers {text}: the model has {layers} layers, 0 to {layers - 1} (or -1 for the "
                f"last); there is no {item.strip()}"
            )
        found += [number % layers for number in range(first, last + 1)]
    if twice := [layer for layer in found if found.count(layer) > 1]:
        raise ZhbertError(f"--layers {text}: layer {twice[0]} is named twice; it is kept once")
    return found


def _check_positions(positions: int, had: int, model: str) -> None:
    # [CLS], one piece and [SEP] need three.
    if positions < 3:
        raise ZhbertError(f"--positions {positions}: must be 3 or more")
    if positions > had:
        raise ZhbertError(
            f"--positions {positions:,}: the model has {had:,}; 'zhbert stretch {model} "
            f"--positions {positions} --out DIR' makes more"
        )


# --- which pieces -------------------------------------------------------------------------------


def _rows_of_file(tokenizer: Tokenizer, path: Path) -> list[int]:
    """Return the ids of the pieces of a vocab.txt, in its order."""
    if path.is_dir():
        path = path / "vocab.txt"
    pieces = read_vocabulary(path)
    first_line: dict[str, int] = {}
    for number, piece in enumerate(pieces, 1):
        if not piece:
            raise ZhbertError(f"{path}: line {number} is empty; every line is a piece")
        if (first := first_line.setdefault(piece, number)) != number:
            raise ZhbertError(f"{path}: {piece!r} stands on line {first} and line {number}")
    if gone := [one.content for one in tokenizer.added_tokens if one.content not in first_line]:
        raise ZhbertError(
            f"{path}: lacks {' '.join(gone)}; the model's special and added tokens must remain"
        )
    ids = [tokenizer.id_of(piece) for piece in pieces]
    if strange := [piece for piece, row in zip(pieces, ids, strict=True) if row is None]:
        raise ZhbertError(
            f"{path}: {len(strange):,} of its {len(pieces):,} pieces are none of the model's, "
            f"{' '.join(strange[:3])} first; leave them out, or give the model rows for them "
            "before: zhbert vocab extend MODEL --with FILE"
        )
    return [row for row in ids if row is not None]


def _most_used(tokenizer: Tokenizer, texts: Iterable[str], size: int | None) -> list[int]:
    """Return the ids of the texts' most frequent pieces and of required ones, ascending."""
    used: Counter[int] = Counter()
    for text in texts:
        used.update(_ids(tokenizer, text))
    # Latin words whose longer pieces are dropped are then split into single characters.
    ascii_forms = (form + chr(code) for code in range(33, 127) for form in ("", "##"))
    needed = {row for form in ascii_forms if (row := tokenizer.id_of(form)) is not None}
    needed |= set(tokenizer.added_ids)
    if size is not None and size < len(needed):
        raise ZhbertError(
            f"--vocab-size {size:,}: special tokens and ASCII characters take {len(needed):,}; "
            "give more"
        )
    # Pieces with the same frequency are ordered by id.
    ranking = sorted(used.keys() - needed, key=lambda row: (-used[row], row))
    room = len(ranking) if size is None else size - len(needed)
    return sorted(needed | set(ranking[:room]))


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode_batch([text], special_tokens=False)[0].tolist()
    return ids


# --- what texts lose ----------------------------------------------------------------------------


def _loss(old: Tokenizer, new: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """Return the texts' coverage by both vocabularies, and their pieces that are lost."""
    used: Counter[int] = Counter()

    def counted() -> Iterator[str]:
        for text in texts:
            used.update(_ids(old, text))
            yield text

    coverage = compare_coverage(old, new, counted())
    lost = [
        {
            "piece": old.vocabulary[row],
            "count": times,
            "becomes": [new.vocabulary[i] for i in ids_of_piece(new, old.vocabulary[row])],
        }
        for row, times in sorted(used.items(), key=lambda item: (-item[1], item[0]))
        if new.id_of(old.vocabulary[row]) is None
    ]
    return {**coverage, "lost_pieces": len(lost), "lost": lost}
