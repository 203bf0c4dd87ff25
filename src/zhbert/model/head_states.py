"""Whether the heads of a checkpoint were ever trained, by their numbers alone.

**When a head counts as never trained.** Training leaves marks that no initialiser makes, and the
rule looks for them. Every step of every optimiser moves every bias and every norm's shift, since
their gradients are exactly zero for no input that occurs; initialisers set them to exactly zero,
and rounding to float16 or bfloat16 keeps zero zero. So, for a head with a norm (masked words):

- *random* if the norm's shifts are all exactly 0 and its scales all equal (1; or less, where
  weight decay alone shrank them), and its output bias is exactly zero or its matrix looks drawn;
  *unclear* if neither is so;
- *random* if the norm's scale lies around 0 (mean of its absolute values below 0.1, or mean below
  half its spread): it was drawn like a matrix, as the first PyTorch versions of BERT did;
- *trained* otherwise.

For a head of one matrix and one bias (pooler, sentence pair, classifier, question answering):

- with a bias of exact zeros: *random* if the matrix looks drawn, *unclear* if not. The bias of
  question answering adds the same number to every position, so that softmax cancels it and it need
  not move: there the matrix must also have the initialiser's spread or less;
- with another bias: *random* if the matrix looks drawn as PyTorch draws by default, and the bias
  with it: uniform within 1 / sqrt(inputs), with the spread of that; or if the matrix looks drawn
  with the spread of ``initializer_range`` and the norm of the masked-word head was drawn around 0
  (or, in a file without that head, the bias has that spread too, to three standard errors);
- *trained* otherwise.

A matrix *looks drawn* if its mean is 0 and its excess kurtosis is that of a normal distribution
(0), of one cut at two sigma (-0.63: Google's initialiser), or of a uniform one (-1.2), each to
five standard errors (sigma / sqrt(n), sqrt(24 / n)) and a little for rounding. Below 100 numbers
nothing can be told apart, and everything looks drawn.

Measured at widths 32, 128 and 768, each in float32, float16 and bfloat16: of heads drawn as
transformers or Google's code draw (440 files), none was called trained, and none unclear; of those
trained from there for 1, 10 or 100 steps of AdamW at 1e-6 to 1e-4, none was called random. Where
biases were drawn too (PyTorch's default), a pooler or classifier trained for few steps still counts
as random, and a fresh matrix below 100 numbers as trained; the masked-word head was never mistaken,
as its norm tells. A question-answering head in float16, trained by plain SGD, counts as random.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, finfo

from zhbert.model.entry import Entry, is_finite

# The standard normal distribution cut at two sigma: its standard deviation and excess kurtosis.
_CUT_SPREAD = 0.879626
_CUT_KURTOSIS = -0.634310
HARDLY = "(a few steps only)"
# Standard errors that a statistic of a fresh draw may be away from its expectation.
_ERRORS = 5.0


@dataclass(frozen=True)
class HeadState:
    """Whether a head is in the file, looks trained (None: cannot be told), and the evidence."""

    present: bool
    trained: bool | None
    why: str

    @property
    def word(self) -> str:
        """One word: missing, trained, random or unclear."""
        if not self.present:
            return "missing"
        return {True: "trained", False: "random", None: "unclear"}[self.trained]


@dataclass(frozen=True)
class _Head:
    """Names of a head's tensors; a norm and an output bias only where it has them."""

    weight: str
    bias: str
    norm: str | None = None
    output_bias: str | None = None
    bias_moves: bool = True

    @property
    def names(self) -> list[str]:
        names = [self.weight, self.bias]
        if self.norm:
            names += [f"{self.norm}.weight", f"{self.norm}.bias"]
        return names + ([self.output_bias] if self.output_bias else [])


HEADS: Mapping[str, _Head] = {
    "masked_words": _Head(
        "cls.predictions.transform.dense.weight",
        "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
    ),
    "sentence_pair": _Head("cls.seq_relationship.weight", "cls.seq_relationship.bias"),
    "pooler": _Head("bert.pooler.dense.weight", "bert.pooler.dense.bias"),
    "classifier": _Head("classifier.weight", "classifier.bias"),
    "question_answering": _Head("qa_outputs.weight", "qa_outputs.bias", bias_moves=False),
}


def head_states(
    entries: Mapping[str, Entry], initializer_range: float = 0.02
) -> dict[str, HeadState]:
    """Each head of HEADS: is it among ``entries``, and does it look trained?

    The rule stands at the top of this module. ``initializer_range`` is the config's.

    >>> import torch
    >>> fresh = {"classifier.weight": torch.zeros(2, 64), "classifier.bias": torch.zeros(2)}
    >>> head_states({name: Entry.of(t) for name, t in fresh.items()})["classifier"]
    HeadState(present=True, trained=False, why='weights and bias are exactly zero')
    """
    states: dict[str, HeadState] = {}
    # Of the masked-word head; None: no such head to tell from.
    norm_drawn: bool | None = None
    for name, head in HEADS.items():
        missing = [n for n in head.names if n not in entries]
        if missing:
            why = "not in the file"
            if len(missing) < len(head.names):
                why = f"incomplete: lacks {', '.join(missing)}"
            states[name] = HeadState(False, None, why)
            continue
        tensors = {n: entries[n].read().double() for n in head.names}
        spoilt = [n for n, t in tensors.items() if not is_finite(t)]
        if spoilt:
            states[name] = HeadState(True, None, f"NaN or infinite numbers in {spoilt[0]}")
        elif head.norm:
            norm_drawn = _around_zero(tensors[f"{head.norm}.weight"])
            states[name] = _state_with_norm(head, tensors)
        else:
            dtype = entries[head.weight].dtype
            rounding = finfo(dtype).eps if dtype.is_floating_point else 0.0
            states[name] = _state_without_norm(
                head, tensors, initializer_range, rounding, norm_drawn
            )
    return states


def _state_with_norm(head: _Head, tensors: Mapping[str, Tensor]) -> HeadState:
    assert head.norm is not None
    assert head.output_bias is not None
    scale, shift = tensors[f"{head.norm}.weight"], tensors[f"{head.norm}.bias"]
    if _around_zero(scale):
        mean = float(scale.mean())
        return HeadState(True, False, f"norm scale drawn around 0 (mean {mean:.4f})")
    draw = _Draw.of(tensors[head.weight])
    if untouched(scale, shift):
        if not tensors[head.output_bias].any():
            return HeadState(
                True, False, f"norm and output bias exactly as initialised; {draw.text}"
            )
        if draw.kind is not None:
            return HeadState(True, False, f"norm exactly as initialised; {draw.text}")
        return HeadState(True, None, f"norm exactly as initialised, but {draw.text}")
    moved = f"norm has moved: scale {float(scale.mean()):.3g}, shift up to {largest(shift)}"
    return HeadState(True, True, moved + hardly(shift))


def _state_without_norm(
    head: _Head,
    tensors: Mapping[str, Tensor],
    initializer_range: float,
    rounding: float,
    norm_drawn: bool | None,
) -> HeadState:
    weight, bias = tensors[head.weight], tensors[head.bias]
    draw = _Draw.of(weight)
    usual = draw.has_spread(initializer_range)
    if not bias.any():
        if not weight.any():
            return HeadState(True, False, "weights and bias are exactly zero")
        if draw.kind is None:
            return HeadState(True, None, f"bias exactly zero, but {draw.text}")
        if not head.bias_moves and not usual and draw.spread > initializer_range:
            return HeadState(True, None, f"bias exactly zero (it need not move); {draw.text}")
        return HeadState(True, False, f"bias exactly zero; {draw.text}")
    bound = 1 / math.sqrt(weight.shape[-1])
    if draw.kind == "uniform" and max(_most(weight), _most(bias)) <= bound * (1 + 2 * rounding):
        if draw.has_spread(bound / math.sqrt(3)):
            return HeadState(True, False, f"PyTorch's default initialisation: {draw.text}")
    elif draw.kind in ("normal", "cut normal") and usual:
        if norm_drawn:
            return HeadState(True, False, f"{draw.text}, as in the masked-word head beside it")
        alike = bias.numel() >= 32 and _Draw.of(bias).has_spread(initializer_range, errors=3)
        if norm_drawn is None and alike:
            return HeadState(True, False, f"{draw.text}, and the bias too")
    moved = f"bias has moved from zero: up to {largest(bias)}"
    # How far the bias of question answering moved does not tell how long it was trained.
    return HeadState(True, True, moved + (hardly(bias) if head.bias_moves else ""))


def hardly(moved: Tensor) -> str:
    """A remark where the numbers are those of a few steps, which leave a head as good as random."""
    return f" {HARDLY}" if _most(moved) < 1e-3 else ""


def _most(tensor: Tensor) -> float:
    return float(tensor.abs().max())


def largest(tensor: Tensor) -> str:
    """The largest absolute number, for people."""
    return f"{_most(tensor):.2g}"


def untouched(scale: Tensor, shift: Tensor) -> bool:
    """Whether a norm is as its initialiser made it: no shift, and one scale everywhere."""
    return not bool(shift.any()) and bool((scale == scale[0]).all())


def _around_zero(scale: Tensor) -> bool:
    if float(scale.abs().mean()) < 0.1:
        return True
    return abs(float(scale.mean())) < float(scale.std(correction=0)) / 2


@dataclass(frozen=True)
class _Draw:
    """The distribution that numbers look drawn from; ``kind`` is None where they look like none."""

    kind: str | None  # "normal", "cut normal", "uniform"
    spread: float  # standard deviation
    kurtosis: float
    count: int

    @classmethod
    def of(cls, numbers: Tensor) -> _Draw:
        """Look at the mean and the excess kurtosis of ``numbers``."""
        count = numbers.numel()
        flat = numbers.reshape(-1)
        mean, spread = float(flat.mean()), float(flat.std(correction=0))
        if spread == 0:
            return cls(None, 0.0, 0.0, count)
        centred = (flat - mean) / spread
        kurtosis = float((centred**4).mean()) - 3
        if count < 100:
            return cls("normal", spread, kurtosis, count)
        if abs(mean) > _ERRORS * spread / math.sqrt(count) + 1e-3 * spread:
            return cls(None, spread, kurtosis, count)
        tolerance = _ERRORS * math.sqrt(24 / count) + 0.02
        near = {
            kind: abs(kurtosis - expected)
            for kind, expected in (
                ("normal", 0.0),
                ("cut normal", _CUT_KURTOSIS),
                ("uniform", -1.2),
            )
        }
        kind = min(near, key=near.__getitem__)
        return cls(kind if near[kind] <= tolerance else None, spread, kurtosis, count)

    def has_spread(self, initializer_range: float, errors: float = _ERRORS) -> bool:
        """Whether the spread is the initialiser's, to ``errors`` standard errors and 1 %."""
        tolerance = errors / math.sqrt(2 * self.count) + 0.01
        return any(
            abs(self.spread / (initializer_range * part) - 1) <= tolerance
            for part in (1.0, _CUT_SPREAD)
        )

    @property
    def text(self) -> str:
        """In a few words."""
        if self.spread == 0:
            return "weights all equal"
        names = {"cut normal": "normal cut at two sigma", None: "like no fresh draw"}
        if self.count < 100:
            return f"weights too few to judge (std {self.spread:.3g})"
        # Adding 0.0 makes 0.0 of -0.0.
        numbers = f"std {self.spread:.3g}, excess kurtosis {round(self.kurtosis, 2) + 0.0}"
        return f"weights {names.get(self.kind, self.kind)} ({numbers})"
