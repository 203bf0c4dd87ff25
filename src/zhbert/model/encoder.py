"""The encoder: embeddings and a sequence of blocks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zhbert.model import flash, native
from zhbert.model.attention import QuerySubset, RowLayout
from zhbert.model.config import BertConfig
from zhbert.model.dropout import DropoutKey
from zhbert.model.layers import (
    BERT_LAYERS,
    DROPOUT_SITES_PER_LAYER,
    NO_DROPOUT,
    Block,
    Embeddings,
    Layers,
)
from zhbert.model.recording import Recording
from zhbert.packing import PackedBatch


class Calls(NamedTuple):
    """The functions with which the encoder calls its parts. They are not bound to one block, so
    that a compiled function serves all blocks whose parameters have the same shapes."""

    finish: Callable[..., Tensor]
    block: Callable[..., Tensor]
    last_block: Callable[..., Tensor]


def _block(block: nn.Module, *inputs: Any) -> Any:
    return block(*inputs)


# A separate function, since PyTorch stops compiling a function after eight times.
def _last_block(block: nn.Module, *inputs: Any) -> Any:
    return block(*inputs)


# The same without the hooks of the block itself.
def _block_alone(block: nn.Module, *inputs: Any) -> Any:
    return type(block).forward(block, *inputs)


def _last_block_alone(block: nn.Module, *inputs: Any) -> Any:
    return type(block).forward(block, *inputs)


def _within_hooks(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a call of a block with its hooks, which has ``call`` in place of its ``forward``."""

    def called(block: nn.Module, *inputs: Any) -> Tensor:
        block.forward = partial(call, block)
        try:
            found: Tensor = block(*inputs)
            return found
        finally:
            del block.forward

    return called


def _computed_again(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a call that keeps only its inputs for the backward pass, and computes again there."""

    def checkpointed(block: nn.Module, x: Tensor, *inputs: Any) -> Tensor:
        # Dropout is a function of its keys, except for that of attention on CUDA.
        found: Tensor = checkpoint(
            call, block, x, *inputs, use_reentrant=False, preserve_rng_state=x.is_cuda
        )
        return found

    return checkpointed


def _checkpointed(calls: Calls) -> Calls:
    return Calls(calls.finish, _computed_again(calls.block), _computed_again(calls.last_block))


EAGER = Calls(Embeddings.finish, _block, _last_block)
_WITHOUT_HOOKS = Calls(Embeddings.finish, _block_alone, _last_block_alone)


class Encoder(nn.Module):
    """BERT's encoder: from packed piece ids to one vector per piece."""

    def __init__(self, config: BertConfig, layers: Layers = BERT_LAYERS) -> None:
        super().__init__()
        self.embeddings = Embeddings(config, layers)
        self.layers = nn.ModuleList(Block(config, layers) for _ in range(config.num_hidden_layers))
        self._head_size = config.hidden_size // config.num_attention_heads
        self._compiled, self._compiled_again = EAGER, _checkpointed(EAGER)
        self.checkpointing = False
        """Whether training keeps only the input of every block, and computes the rest again."""
        self._hooks_outside = False
        self.recording: Recording | None = None
        """Where parts of the next forward passes are kept (`zhbert.model.recording`)."""

    @property
    def dropout_sites(self) -> int:
        """Number of keys that ``forward`` takes: one for the embeddings, then three per block."""
        return 1 + DROPOUT_SITES_PER_LAYER * len(self.layers)

    def forward(
        self,
        batch: PackedBatch,
        layout: RowLayout | None = None,
        keys: Sequence[DropoutKey] | None = None,
        *,
        subset: QuerySubset | None = None,
    ) -> Tensor:
        """Encode T packed pieces -> (T, H), or -> (Q, H) of ``subset`` alone.

        Args:
            batch: the pieces.
            layout: the layout of their rows, if it was computed already.
            keys: the keys of all dropout sites; None: no dropout.
            subset: compute the last block for these pieces only. The result is exact, since
                pieces are independent after the last attention.
        """
        layout = layout or RowLayout.of_batch(batch)
        compiled = self._worth_compiling(layout, subset)
        if compiled and not self._flash(layout):
            # Made here, once for all blocks: a block that is computed again must change nothing.
            _ = layout.grid, None if subset is None else subset.layout.grid
        ids = (batch.input_ids, batch.token_type_ids, batch.position_ids)
        run = self._calls(self.embeddings, compiled)
        x: Tensor = self.embeddings(*ids, keys[0] if keys else None, run.finish)
        kept, last = self.recording, len(self.layers)
        of_all = subset is None or (kept is not None and last in kept.hidden)
        for number, block in enumerate(self.layers, start=1):
            self._keep(number - 1, x)
            first = 1 + DROPOUT_SITES_PER_LAYER * (number - 1)
            own = keys[first : first + DROPOUT_SITES_PER_LAYER] if keys else NO_DROPOUT
            run = self._calls(block, compiled)
            qkv = None
            if kept is not None and number in kept.attention:
                attention: Any = block.attention
                qkv = kept.qkv[number] = native.linear(attention.qkv, x)
            if of_all or number < last:
                x = run.block(block, x, layout, own, None, qkv)
            else:
                assert subset is not None
                x = run.last_block(block, x, layout, _only(own, subset), subset, qkv)
        self._keep(last, x)
        return x[subset.positions] if subset is not None and of_all else x

    def _keep(self, number: int, x: Tensor) -> None:
        """Record the states of a number, if they are asked for."""
        if self.recording is not None and number in self.recording.hidden:
            self.recording.states[number] = x.to(self.embeddings.words.weight.dtype)

    def run_hooks_outside(self) -> None:
        """Run the blocks' own hooks around what is compiled and what is computed again.

        These are the hooks that gather a block's weights, which are divided among processes.
        """
        self._hooks_outside = True
        self._compiled, self._compiled_again = _WITHOUT_HOOKS, _checkpointed(_WITHOUT_HOOKS)

    def compile_layers(self) -> None:
        """Train with compiled functions from now on; they are compiled at their first call."""
        with warnings.catch_warnings():
            # The import of PyTorch's compiler uses a deprecated part of PyTorch.
            warnings.simplefilter("ignore", DeprecationWarning)
            calls = _WITHOUT_HOOKS if self._hooks_outside else EAGER
            self._compiled, self._compiled_again = (
                Calls(*(torch.compile(call, dynamic=True) for call in each))
                # What is computed again is compiled with the rest: a second call of a compiled
                # function may find another compilation of it, which keeps other tensors.
                for each in (calls, _checkpointed(calls))
            )

    def _calls(self, part: nn.Module, compiled: bool) -> Calls:
        """Return the compiled functions if ``compiled`` and ``part`` has no hooks."""
        outside = self._hooks_outside and isinstance(part, Block)
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        if compiled and (outside or not has_hooks(part)):
            run = self._compiled_again if again else self._compiled
        else:
            run = _WITHOUT_HOOKS if outside else EAGER
            run = _checkpointed(run) if again else run
        if outside:
            run = Calls(run.finish, _within_hooks(run.block), _within_hooks(run.last_block))
        return run

    def _flash(self, layout: RowLayout) -> bool:
        """Return True if the blocks' attention needs no grid of the rows."""
        device, dtype = layout.cu_seqlens.device.type, self.embeddings.words.weight.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        return layout.flash and flash.serves(dtype, self._head_size)

    def _worth_compiling(self, layout: RowLayout, subset: QuerySubset | None) -> bool:
        """Return True if this is training with a shape for which the functions were compiled.

        Sizes of 1 and evaluation would need another compilation, of half a minute each.
        """
        sizes = [layout.cu_seqlens.shape[0] - 1, layout.max_length]
        if subset is not None:
            sizes += [subset.positions.shape[0], subset.layout.max_length]
        return torch.is_grad_enabled() and self.training and min(sizes) > 1


def _only(keys: Sequence[DropoutKey | None], subset: QuerySubset) -> Sequence[DropoutKey | None]:
    """Restrict a block's keys to some pieces."""
    if keys[0] is None:
        return keys
    pieces = keys[0].pieces[subset.positions]
    return [None if key is None else replace(key, pieces=pieces) for key in keys]


def has_hooks(module: nn.Module) -> bool:
    """Return True if a module or one in it has hooks, which compiled code might ignore."""
    return any(
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
        for part in module.modules()
    )
