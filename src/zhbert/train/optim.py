"""Optimisers (AdamW as in Google's BERT, LAMB, Muon), schedules, and the gradient's global norm.

All optimisers keep their state by parameter name, so that the order and grouping of the parameters
do not matter for loading a checkpoint. Biases and normalisation (all parameters of fewer than two
dimensions) have no weight decay.

`zhbert.config.OPTIMIZERS` is their table, to which any program may add a class: its first argument
is the model's named parameters, and its keyword arguments are the keys of a recipe's [optimizer]
that it uses.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from zhbert.config import OPTIMIZERS, OptimizerSettings, flatten
from zhbert.errors import ZhbertError
from zhbert.train.sharding import divided_from, divided_like, is_divided, local, norms, whole

Number = float | Tensor
"""A number, or a scalar tensor on the parameters' device."""

Schedule = Callable[[int], float]
"""The learning rate of a step, from the number of steps before it (0 at the first)."""


class Optimizer(Protocol):
    """The interface of optimisers."""

    def step(self, learning_rate: float, gradient_divisor: Tensor | None = None) -> None:
        """Update all parameters with a ``grad``, divided by the scalar ``gradient_divisor``."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as named tensors, for a checkpoint."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state from ``state_dict``."""


@runtime_checkable
class RecordableOptimizer(Optimizer, Protocol):
    """An optimiser whose update can be recorded once and repeated with other numbers.

    ``step`` is ``update(advance(learning_rate), gradient_divisor)``.
    """

    def advance(self, learning_rate: float) -> Sequence[float]:
        """Count a step, and return all numbers of its update that change from step to step."""

    def update(self, numbers: Sequence[Number], gradient_divisor: Tensor | None = None) -> None:
        """Update all parameters, by operations on tensors alone."""


def make_optimizer(
    settings: OptimizerSettings, model: torch.nn.Module, dtype: torch.dtype
) -> Optimizer:
    """Make the optimiser of a recipe's [optimizer] for all parameters of ``model``.

    The class gets those keys of ``settings`` that it has an argument for and, if it has such
    arguments, ``matrices``, the model's hidden matrices, and ``dtype``, the model's number format.
    """
    factory = OPTIMIZERS[settings.name]
    if isinstance(factory, str):
        module, _, name = factory.partition(":")
        factory = getattr(importlib.import_module(module), name)
    wanted = inspect.signature(factory).parameters
    values: dict[str, Any] = {**flatten(settings), "dtype": dtype}
    if "matrices" in wanted:
        values["matrices"] = cast(Any, model).hidden_matrices()
    optimizer: Optimizer = factory(
        model.named_parameters(), **{key: values[key] for key in values if key in wanted}
    )
    return optimizer


class _Moments:
    """The running means of each parameter's gradient and of its squared gradient.

    Parameters are updated in two groups: matrices with weight decay, all others without.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, torch.nn.Parameter]],
        *,
        weight_decay: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
    ) -> None:
        self.weight_decay, self.epsilon = weight_decay, epsilon
        self.beta1, self.beta2 = beta1, beta2
        self.named = dict(parameters)
        self.mean = {
            name: torch.zeros_like(p, requires_grad=False) for name, p in self.named.items()
        }
        self.square = {name: torch.zeros_like(m) for name, m in self.mean.items()}
        self.steps = 0

    def step(self, learning_rate: float, gradient_divisor: Tensor | None = None) -> None:
        """Make one step; the gradients are left divided by ``gradient_divisor``."""
        self.update(self.advance(learning_rate), gradient_divisor)

    def advance(self, learning_rate: float) -> Sequence[float]:
        """Count a step, and return the numbers of its update: the learning rate, in AdamW."""
        self.steps += 1
        return (learning_rate,)

    def update(self, numbers: Sequence[Number], gradient_divisor: Tensor | None = None) -> None:
        """Update all parameters by the numbers from ``advance``."""
        raise NotImplementedError

    def _groups(self) -> list[tuple[bool, list[str]]]:
        """Return (decayed, names) of the parameters with both means and a gradient in this step."""
        ready = [name for name in self.square if self.named[name].grad is not None]
        decayed = [name for name in ready if self.named[name].ndim >= 2]
        others = [name for name in ready if self.named[name].ndim < 2]
        return [(decay, names) for decay, names in ((True, decayed), (False, others)) if names]

    def _gradients(self, names: list[str]) -> list[Tensor]:
        return [local(cast(Tensor, self.named[name].grad)) for name in names]

    def state_dict(self) -> dict[str, Tensor]:
        """Return ``NAME.mean`` and ``NAME.square`` of all parameters with these, and ``steps``."""
        state = {f"{name}.mean": value for name, value in self.mean.items()}
        state.update({f"{name}.square": value for name, value in self.square.items()})
        state["steps"] = torch.tensor(self.steps, dtype=torch.int64)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state by names; raise ZhbertError if names or shapes differ."""
        mine = self.state_dict()
        for name, value in mine.items():
            if name not in state:
                raise ZhbertError(
                    f"the optimiser's state lacks '{name}': it belongs to another model"
                )
            if state[name].shape != value.shape:
                raise ZhbertError(
                    f"the optimiser's state has {tuple(state[name].shape)} for '{name}', the model "
                    f"{tuple(value.shape)}: it belongs to another shape"
                )
            if name != "steps":
                value.copy_(state[name])
        self.steps = int(state["steps"])


class AdamW(_Moments):
    """Google's AdamW without bias correction: ``p -= lr * (m / (sqrt(v) + eps) + decay * p)``.

    Source: https://github.com/google-research/bert/blob/master/optimization.py ; decoupled weight
    decay: https://arxiv.org/abs/1711.05101
    """

    @cached_property
    def _endless(self) -> dict[str, Tensor]:
        """A step number for each parameter, so large that the bias correction is exactly 1.

        PyTorch's fused kernel corrects by 1 - beta^step, and otherwise follows Google's rule. It
        reads the memory once, separate operations ten times (BERT-Tiny on two cores: 1.1 ms
        instead of 5.4 ms).
        """
        return {name: torch.full((), 1e12, device=p.device) for name, p in self.named.items()}

    @torch.no_grad()
    def update(self, numbers: Sequence[Number], gradient_divisor: Tensor | None = None) -> None:
        """Update all parameters; the gradients are left divided by ``gradient_divisor``."""
        for decayed, names in self._groups():
            torch._fused_adamw_(
                [local(self.named[name]) for name in names],
                self._gradients(names),
                [local(self.mean[name]) for name in names],
                [local(self.square[name]) for name in names],
                [],
                [self._endless[name] for name in names],
                lr=cast(Any, numbers[0]),
                beta1=self.beta1,
                beta2=self.beta2,
                weight_decay=self.weight_decay if decayed else 0.0,
                eps=self.epsilon,
                amsgrad=False,
                maximize=False,
                grad_scale=gradient_divisor,
            )


class Lamb(_Moments):
    """LAMB, for very large batches: Algorithm 2 of its paper, with phi the identity.

    The running means are corrected for their bias. Each matrix has a trust ratio |p| / |update|,
    which is 1 if either norm is 0. Biases and normalisation have no trust ratio and no decay, as
    in Google's exclude list.

    Source: https://arxiv.org/abs/1904.00962
    """

    def advance(self, learning_rate: float) -> Sequence[float]:
        """Count a step; return the learning rate and the corrections of both running means."""
        super().advance(learning_rate)
        return learning_rate, 1 - self.beta1**self.steps, 1 - self.beta2**self.steps

    @torch.no_grad()
    def update(self, numbers: Sequence[Number], gradient_divisor: Tensor | None = None) -> None:
        """Update all parameters; the gradients are left divided by ``gradient_divisor``."""
        learning_rate, mean_correction, square_correction = numbers
        for decayed, names in self._groups():
            parameters: list[Tensor] = [local(self.named[name]) for name in names]
            gradients = self._gradients(names)
            means = [local(self.mean[name]) for name in names]
            squares = [local(self.square[name]) for name in names]
            if gradient_divisor is not None:
                torch._foreach_div_(gradients, gradient_divisor)
            torch._foreach_lerp_(means, gradients, 1 - self.beta1)
            torch._foreach_mul_(squares, self.beta2)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - self.beta2)
            updates = torch._foreach_div(squares, square_correction)
            torch._foreach_sqrt_(updates)
            torch._foreach_add_(updates, self.epsilon)
            torch._foreach_reciprocal_(updates)
            torch._foreach_mul_(updates, means)
            torch._foreach_div_(updates, mean_correction)
            if decayed:
                torch._foreach_add_(updates, parameters, alpha=self.weight_decay)
                divided = is_divided(self.named[names[0]])
                sizes, lengths = norms(parameters, divided), norms(updates, divided)
                ratios = torch.where((sizes > 0) & (lengths > 0), sizes / lengths, 1.0)
                torch._foreach_mul_(updates, list(ratios.unbind()))
            _add_scaled(parameters, updates, -learning_rate)


class Muon(AdamW):
    """Muon for the matrices of the hidden layers, AdamW for all other parameters.

    A matrix moves along its gradient's running mean, whose singular values are first made about
    equal by five Newton-Schulz iterations: a step then changes all directions equally instead of
    only the few that dominate the gradient. It is scaled to the size of AdamW's steps
    (``0.2 * sqrt(longer side)``), so that both share a learning rate and a weight decay. This is
    the rule of ``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"``.

    Source: https://kellerjordan.github.io/posts/muon/ ; the scale: https://arxiv.org/abs/2502.16982

    Args:
        parameters: (name, parameter) of all trained parameters.
        matrices: the names of the hidden matrices, each with the number of maps that are stacked in
            it (3 for fused queries, keys and values); each map is orthogonalised separately.
        momentum: decay of the running mean, with Nesterov's lookahead.
        dtype: the number format of the iterations; bfloat16 is exact enough.
        weight_decay, beta1, beta2, epsilon: as AdamW's.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, torch.nn.Parameter]],
        *,
        matrices: Mapping[str, int],
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
        weight_decay: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(
            parameters, weight_decay=weight_decay, beta1=beta1, beta2=beta2, epsilon=epsilon
        )
        self.momentum, self.dtype = momentum, dtype
        self.matrices = {name: parts for name, parts in matrices.items() if name in self.named}
        for name in self.matrices:
            del self.square[name]

    @torch.no_grad()
    def update(self, numbers: Sequence[Number], gradient_divisor: Tensor | None = None) -> None:
        """Update all parameters; the gradients are left divided by ``gradient_divisor``."""
        names = [name for name in self.matrices if self.named[name].grad is not None]
        if names:
            gradients, means = self._gradients(names), [local(self.mean[name]) for name in names]
            if gradient_divisor is not None:
                torch._foreach_div_(gradients, gradient_divisor)
            torch._foreach_lerp_(means, gradients, 1 - self.momentum)
            updates = torch._foreach_lerp(gradients, means, self.momentum)
            self._move(dict(zip(names, updates, strict=True)), numbers[0])
        super().update(numbers, gradient_divisor)

    def _move(self, updates: Mapping[str, Tensor], learning_rate: Number) -> None:
        # Matrices of one shape are processed together, in few large products. Divided ones are
        # processed one by one, each of them whole on every rank, which then moves its own rows.
        alike: dict[tuple[int, int, str], list[str]] = {}
        for name in updates:
            rows, columns = self.named[name].shape
            alone = name if is_divided(self.named[name]) else ""
            alike.setdefault((rows // self.matrices[name], columns, alone), []).append(name)
        for (rows, columns, _), names in alike.items():
            matrices = [whole(divided_from(self.named[name], updates[name])) for name in names]
            stacked = torch.cat([matrix.reshape(-1, rows, columns) for matrix in matrices])
            turned = orthogonalized(stacked, self.dtype).to(matrices[0].dtype)
            moves = [
                local(divided_like(self.named[name], maps.flatten(0, 1)))
                for name, maps in zip(
                    names, torch.split(turned, [self.matrices[name] for name in names]), strict=True
                )
            ]
            parameters = [local(self.named[name]) for name in names]
            torch._foreach_mul_(parameters, 1 - learning_rate * self.weight_decay)
            _add_scaled(parameters, moves, -learning_rate * 0.2 * math.sqrt(max(rows, columns)))


def _add_scaled(parameters: list[Tensor], updates: Any, factor: Number) -> None:
    """Add ``factor * updates``, which may be overwritten, to the parameters."""
    if isinstance(factor, Tensor):
        torch._foreach_mul_(updates, factor)
        factor = 1.0
    torch._foreach_add_(parameters, updates, alpha=factor)


def orthogonalized(matrices: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Move the singular values of (B, rows, columns) matrices to between about 0.7 and 1.2.

    It does five steps of the quintic Newton-Schulz iteration. The coefficients maximise the slope
    at 0; the values do not converge to 1, which is not needed.

    Source: https://kellerjordan.github.io/posts/muon/
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.to(dtype)
    if tall:
        x = x.transpose(1, 2)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        gram = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, gram, x, beta=3.4445)
    return x.transpose(1, 2) if tall else x


def global_norm(parameters: Iterable[torch.nn.Parameter]) -> Tensor:
    """Return the Euclidean norm of all gradients together, a scalar tensor (0 without any)."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    return cast(Tensor, torch.linalg.vector_norm(norms(gradients)))


def schedule(name: str, peak: float, warmup_steps: int, total_steps: int) -> Schedule:
    """Return a schedule: a linear warm-up, then ``linear`` or ``cosine`` to zero, or ``constant``.

    The first step has 1/warmup_steps of the peak (Google's has zero and so no effect).
    The decay starts at the peak and would reach zero one step after the last.

    >>> rate = schedule("linear", 1.0, warmup_steps=2, total_steps=6)
    >>> [rate(done) for done in range(7)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    decays: dict[str, Callable[[float], float]] = {
        "linear": lambda share: 1 - share,
        "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
        "constant": lambda share: 1.0,
    }
    decay = decays[name]

    def learning_rate(done: int) -> float:
        if done < warmup_steps:
            return peak * (done + 1) / warmup_steps
        share = (done - warmup_steps) / max(1, total_steps - warmup_steps)
        return peak * decay(min(1.0, share))

    return learning_rate
