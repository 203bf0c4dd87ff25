"""Functions that map a checkpoint's entries to entries with other layers, rows or positions.

Tensors are read one at a time, and only when the resulting entries are read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.model.entry import Entry
from zhbert.model.names import PER_PIECE, POSITIONS

_LAYER = re.compile(r"(bert\.encoder\.layer\.)(\d+)(\..+)")
# Prefixes of tensor names -> the part of the model; the first match is used.
_PARTS = (
    ("bert.embeddings.word_embeddings.", "word embeddings"),
    ("bert.embeddings.position_embeddings.", "position embeddings"),
    ("bert.embeddings.token_type_embeddings.", "segment embeddings"),
    ("bert.embeddings.LayerNorm.", "embedding norm"),
    ("bert.encoder.layer.", "layers"),
    ("bert.pooler.", "pooler"),
    ("cls.predictions.", "masked-word head"),
    ("cls.seq_relationship.", "sentence-pair head"),
    ("", "other heads"),
)


def keep_layers(entries: Mapping[str, Entry], layers: Sequence[int]) -> dict[str, Entry]:
    """Return the entries with only these layers, renumbered in the given order.

    Raises:
        ZhbertError: ``layers`` is empty, or has a layer twice or one that the model lacks.

    >>> names = ["bert.encoder.layer.0.a.bias", "bert.encoder.layer.5.a.bias", "cls.b"]
    >>> list(keep_layers(dict.fromkeys(names, Entry.of(torch.ones(1))), [5]))
    ['bert.encoder.layer.0.a.bias', 'cls.b']
    """
    there = {int(match[2]) for name in entries if (match := _LAYER.fullmatch(name))}
    if not layers:
        raise ZhbertError("no layer to keep; name one at least")
    for layer in layers:
        if layer not in there:
            raise ZhbertError(
                f"layer {layer}: the model has the layers 0 to {max(there, default=0)}"
            )
        if layers.count(layer) > 1:
            raise ZhbertError(f"layer {layer}: named twice; a layer is kept once")
    place = {layer: number for number, layer in enumerate(layers)}
    kept: dict[str, Entry] = {}
    for name, entry in entries.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            kept[name] = entry
        elif int(match[2]) in place:
            kept[f"{match[1]}{place[int(match[2])]}{match[3]}"] = entry
    return kept


def select_rows(entries: Mapping[str, Entry], rows: Sequence[int]) -> dict[str, Entry]:
    """Return the entries of a model whose piece ``i`` is piece ``rows[i]`` of this model.

    >>> bias = Entry.of(torch.tensor([0.5, 0.25, 2.0]))
    >>> select_rows({"cls.predictions.bias": bias}, [2, 0])["cls.predictions.bias"].read().tolist()
    [2.0, 0.5]
    """
    index = torch.tensor(rows, dtype=torch.int64)

    def selected(entry: Entry) -> Entry:
        shape = (len(rows), *entry.shape[1:])
        return Entry(shape, entry.dtype, lambda: entry.read()[index])

    return {n: selected(e) if n in PER_PIECE else e for n, e in entries.items()}


def extend_rows(
    entries: Mapping[str, Entry], sources: Sequence[Sequence[int]], *, first: int
) -> dict[str, Entry]:
    """Return the entries with a new row for each of ``sources``, from the id ``first`` on.

    A new row is the mean of the rows whose ids are in its source, computed in float32 or wider and
    rounded to the dtype of the table. Spare rows (a model may have more rows than pieces) are used
    first; unused spare rows are kept.

    >>> bias = Entry.of(torch.tensor([0.5, 0.25, 2.0]))
    >>> grown = extend_rows({"cls.predictions.bias": bias}, [[0, 1], [2]], first=3)
    >>> grown["cls.predictions.bias"].read().tolist()
    [0.5, 0.25, 2.0, 0.375, 2.0]
    """

    def extended(entry: Entry) -> Entry:
        assert first <= entry.shape[0]
        shape = (max(entry.shape[0], first + len(sources)), *entry.shape[1:])
        return Entry(shape, entry.dtype, lambda: _extended(entry.read(), shape[0], sources, first))

    return {n: extended(e) if n in PER_PIECE else e for n, e in entries.items()}


def _extended(table: Tensor, rows: int, sources: Sequence[Sequence[int]], first: int) -> Tensor:
    grown = table.new_zeros(rows, *table.shape[1:])
    grown[: len(table)] = table
    wide = torch.promote_types(table.dtype, torch.float32)
    for row, source in enumerate(sources, first):
        grown[row] = table[list(source)].to(wide).mean(0)
    return grown


def resize_positions(
    entries: Mapping[str, Entry], length: int, by: str = "hierarchical"
) -> dict[str, Entry]:
    """Return the entries with ``length`` positions, made from the n trained ones.

    ``by`` is the way. The first two keep the trained rows, from the first on:

    - ``repeat``: the trained rows, repeated, as Longformer is initialised
      (https://arxiv.org/abs/2004.05150, section 5);
    - ``hierarchical``: row i n + j is a u_i + (1 - a) u_j with a = 0.4, where u is such that rows 0
      to n - 1 are the trained ones (Su Jianlin, https://kexue.fm/archives/7947). This gives up to
      n^2 different rows;
    - ``interpolate``: the trained rows spread evenly over the new length, and linear mixtures of
      neighbours between them. All rows change but the first and the last.

    Raises:
        ZhbertError: there are no position embeddings, or ``length`` exceeds n^2 (hierarchical).

    >>> table = Entry.of(torch.tensor([[0.0], [1.0]]))
    >>> longer = resize_positions({POSITIONS: table}, 4, "repeat")
    >>> longer[POSITIONS].read().flatten().tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    if POSITIONS not in entries:
        raise ZhbertError("no position embeddings in the model")
    entry = entries[POSITIONS]
    trained, *width = entry.shape
    if by == "hierarchical" and length > trained**2:
        raise ZhbertError(
            f"{length:,} positions: of {trained:,} trained ones at most {trained**2:,} are made "
            "hierarchical; --new-rows repeat makes more"
        )
    longer = Entry((length, *width), entry.dtype, lambda: _NEW_ROWS[by](entry.read(), length))
    return {**entries, POSITIONS: longer}


def _repeated(table: Tensor, length: int) -> Tensor:
    return table[torch.arange(length) % len(table)]


def _hierarchical(table: Tensor, length: int) -> Tensor:
    trained = len(table)
    wide = table.to(torch.promote_types(table.dtype, torch.float32))
    # u, from the trained rows p: p_j = a u_0 + (1 - a) u_j, and p_0 = u_0.
    bases = (wide - _FIRST * wide[0]) / (1 - _FIRST)
    number = torch.arange(trained, max(trained, length))
    made = _FIRST * bases[number // trained] + (1 - _FIRST) * bases[number % trained]
    # The trained rows are copied, because computing them from u would round them.
    return torch.cat([table[:length], made.to(table.dtype)])


def _interpolated(table: Tensor, length: int) -> Tensor:
    wide = table.to(torch.promote_types(table.dtype, torch.float32))
    places = torch.linspace(0, len(table) - 1, length, dtype=torch.float64)
    below = places.long()
    share = (places - below).to(wide.dtype)[:, None]
    return torch.lerp(wide[below], wide[(below + 1).clamp(max=len(table) - 1)], share).to(
        table.dtype
    )


_FIRST = 0.4
_NEW_ROWS = {
    "hierarchical": _hierarchical,
    "repeat": _repeated,
    "interpolate": _interpolated,
}


def parameters_by_part(entries: Mapping[str, Entry]) -> dict[str, int]:
    """Return the number of parameters of each part of a model, in the order of the model.

    >>> parameters_by_part({"classifier.weight": Entry.of(torch.ones(2, 8))})
    {'other heads': 16}
    """
    found: dict[str, int] = {}
    for name, entry in entries.items():
        part = next(part for beginning, part in _PARTS if name.startswith(beginning))
        found[part] = found.get(part, 0) + math.prod(entry.shape)
    return {part: found[part] for _, part in _PARTS if part in found}
