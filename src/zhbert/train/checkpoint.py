"""Training checkpoints, RUN/checkpoints/step-000123/, each written atomically.

A checkpoint is a folder of safetensors files and ``checkpoint.json``, which contains their
checksums and is written last. Only the newest few are kept.
"""

from __future__ import annotations

import contextvars
import math
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.files import (
    atomic_folder,
    describe_os_error,
    read_json,
    refused,
    remove,
    sha256_of,
    sweep,
    write_json,
)
from zhbert.runtime import free_memory
from zhbert.train.distributed import ALONE, Ranks
from zhbert.train.sharding import is_divided, whole

_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class TrainingCheckpoint:
    """One complete checkpoint on disk."""

    path: Path
    info: dict[str, Any]

    @property
    def step(self) -> int:
        """The number of completed optimiser steps."""
        return int(self.info["step"])

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Read the tensors saved under ``name`` ("model", "optimizer") to the CPU."""
        return load_file(self.path / f"{name}.safetensors")


class Checkpoints:
    """The checkpoints of one run, in ``folder``.

    Args:
        folder: the run's folder of checkpoints; it need not exist.
        keep: how many of the newest to keep when another is saved.
        say: called with a line about each damaged checkpoint, which is skipped.
    """

    def __init__(
        self, folder: Path, *, keep: int = 2, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.folder, self.keep, self.say = folder, keep, say

    def steps(self) -> list[int]:
        """Return the steps that have a folder, complete or not, in ascending order."""
        if not self.folder.is_dir():
            return []
        matches = [_NAME.fullmatch(path.name) for path in self.folder.iterdir() if path.is_dir()]
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return self.folder / f"step-{step:06d}"

    def save(
        self, step: int, groups: Mapping[str, Mapping[str, Tensor]], info: Mapping[str, Any]
    ) -> Path:
        """Write one checkpoint atomically, then remove all but the newest ``keep``.

        Raises:
            ZhbertError: the disk is full or not writable; older checkpoints then stay.
        """
        path = self.path(step)
        try:
            sweep(self.folder)
            with atomic_folder(path) as temporary:
                for name, tensors in groups.items():
                    whole = {key: value.detach().contiguous() for key, value in tensors.items()}
                    save_file(whole, temporary / f"{name}.safetensors")
                files = {
                    file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
                    for file in sorted(temporary.iterdir())
                }
                write_json(temporary / "checkpoint.json", {"step": step, **info, "files": files})
            _sync_folder(self.folder)
            for old in self.steps()[: -self.keep]:
                remove(self.path(old))
        except (OSError, ZhbertError, SafetensorError) as error:
            raise self._trouble(error, path) from None
        return path

    def newest(self) -> TrainingCheckpoint | None:
        """Return the newest checkpoint whose files are complete and unchanged, or None."""
        for step in reversed(self.steps()):
            try:
                return _complete(self.path(step))
            except ZhbertError as error:
                self.say(f"{self.path(step)}: {error}: skipped")
        return None

    def forget_after(self, step: int) -> None:
        """Remove checkpoints of later steps, which were skipped as damaged, and temporary files."""
        sweep(self.folder)
        for newer in self.steps():
            if newer > step:
                remove(self.path(newer))

    def _trouble(self, error: Exception, path: Path) -> ZhbertError:
        steps = [step for step in self.steps() if step != int(path.name[5:])]
        kept = f"; the checkpoint of step {steps[-1]} is as it was" if steps else ""
        if found := re.search(r"os error (\d+)", str(error)):
            number = int(found[1])
            error = OSError(number, os.strerror(number))
        if isinstance(error, OSError):
            error = describe_os_error(error, f"saving {path}:")
        elif isinstance(error, SafetensorError):
            error = ZhbertError(f"saving {path}: {error}")
        return ZhbertError(f"{error}{kept}")


class Saver:
    """Saves checkpoints of a run while its training goes on; also a sink of its log.

    A save copies the state to the host's memory; a thread of the first rank then writes the copy.
    One checkpoint is written at a time. If there is no memory for a copy, training waits.

    If writing fails, the next line of the log, the next save or ``finish`` raises its ZhbertError.

    Args:
        checkpoints: where they are written.
        ranks: the processes, all of which call the same methods.
    """

    def __init__(self, checkpoints: Checkpoints, ranks: Ranks) -> None:
        self.checkpoints, self._ranks = checkpoints, ranks
        self._thread: threading.Thread | None = None
        self._error: ZhbertError | None = None

    def save(
        self,
        step: int,
        groups: Mapping[str, Mapping[str, Tensor]],
        info: Mapping[str, Any],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Save a state, as `Checkpoints.save` does, after the former one is on the disk.

        ``before`` is called first, where the writing is done; it may raise a ZhbertError.
        """
        self.finish()
        tensors = [tensor for group in groups.values() for tensor in group.values()]
        divided = any(map(is_divided, tensors))
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        # Half of the free memory, which others may need as well. A divided state must be copied.
        apart = divided or 2 * size <= free_memory()
        copies: dict[str, Mapping[str, Tensor]] = dict(groups)
        if divided or (apart and self._ranks.first):
            copies = {name: host_copies(group, self._ranks.first) for name, group in groups.items()}
        if not self._ranks.first:
            return
        copied = copying_ended(self._ranks.device)

        def write() -> None:
            copied()
            before()
            self.checkpoints.save(step, copies, info)

        if not apart:
            write()
            return
        # The context has the advice in error messages.
        work = partial(contextvars.copy_context().run, self._write, write)
        self._thread = threading.Thread(target=work, name="checkpoint", daemon=True)
        self._thread.start()

    def _write(self, write: Callable[[], None]) -> None:
        try:
            write()
        except ZhbertError as error:
            self._error = error
        except Exception as error:  # from a thread, none may be lost
            self._error = ZhbertError(f"saving a checkpoint: {error!r}")

    def write(self, line: Mapping[str, Any]) -> None:
        """Raise the ZhbertError of a save that has failed."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Wait until everything is on the disk; raise the ZhbertError on all ranks if it is not."""
        self._ranks.on_first(self._joined)

    def _joined(self) -> None:
        self.wait()
        self.write({})

    def wait(self) -> None:
        """Wait until nothing is being written any more."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Do nothing."""


def host_copies(group: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Copy tensors to the host's memory, whole ones; where divided ones are, all ranks call this.

    On a GPU the copies are made after what it has been given to do, without waiting for it: they
    may be read once `copying_ended` says so.

    Args:
        group: the tensors, by name.
        keep: False: return nothing. The other ranks' parts of divided tensors are still needed.
    """
    copies = {}
    for name, tensor in group.items():
        found = whole(tensor.detach())
        if keep and found.is_cuda:
            room = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
            copies[name] = room.copy_(found, non_blocking=True)
        elif keep:
            copies[name] = found if is_divided(tensor) else found.clone()
    return copies


def copying_ended(device: torch.device) -> Callable[[], None]:
    """Return a function that waits until the device has done what it was given until now."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event.synchronize


class KeepBest:
    """A log sink that keeps the weights with the best evaluation on disk.

    The best weights have the lowest masked language modelling loss, averaged over the evaluations
    of a step. The lines of a step's evaluations are written before the next step changes the model.

    Args:
        folder: the folder of the one kept checkpoint.
        ranks: the processes; each of them has such a sink.
        model: the model that is trained.
        evaluations: number of evaluations per step.
        after: the step from which the run resumes; a kept checkpoint of a later step is removed.
    """

    def __init__(
        self,
        folder: Path,
        model: torch.nn.Module,
        evaluations: int,
        after: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self.saver = Saver(Checkpoints(folder, keep=1), ranks)
        self._model, self._evaluations, self._ranks = model, evaluations, ranks
        self._lines: list[dict[str, Any]] = []
        self._lowest = ranks.on_first(partial(self._lowest_until, after))

    def _lowest_until(self, after: int) -> float:
        self.saver.checkpoints.forget_after(after)
        best = self.saver.checkpoints.newest()
        return float(best.info["loss"]) if best else math.inf

    def write(self, line: Mapping[str, Any]) -> None:
        """Receive one line; after a step's last evaluation, keep the weights if they are best."""
        self.saver.write(line)
        if "evaluation" not in line:
            return
        others = [one for one in self._lines if one["step"] == line["step"]]
        self._lines = [*others, dict(line)]
        losses = [one["masked_lm_loss"] for one in self._lines]
        if len(losses) < self._evaluations or None in losses:
            return
        loss = sum(losses) / len(losses)
        if loss < self._lowest:
            self._lowest = loss
            info = {"loss": loss, "evaluations": self._lines}
            self.saver.save(line["step"], {"model": model_state(self._model)}, info)

    def close(self) -> None:
        """Do nothing."""

    def best(self) -> TrainingCheckpoint | None:
        """Return the kept checkpoint: tensors "model", and in its info the lines, "evaluations"."""
        self.saver.finish()
        return self._ranks.on_first(self.saver.checkpoints.newest)


def _complete(path: Path) -> TrainingCheckpoint:
    """Open the checkpoint in a folder; raise ZhbertError with the reason if it cannot be used."""
    if not (path / "checkpoint.json").exists():
        raise ZhbertError("incomplete (no checkpoint.json)")
    try:
        info = read_json(path / "checkpoint.json", dict)
        written = {str(n): (int(e["bytes"]), str(e["sha256"])) for n, e in info["files"].items()}
        int(info["step"])
    except (ZhbertError, ValueError, KeyError, TypeError, AttributeError):
        raise ZhbertError("corrupt (checkpoint.json cannot be read)") from None
    for name, (size, checksum) in written.items():
        file = path / name
        if not file.is_file():
            raise ZhbertError(f"incomplete ({name} is missing)")
        with refused(file):
            changed = file.stat().st_size != size or sha256_of(file) != checksum
        if changed:
            raise ZhbertError(f"corrupt ({name} is not what was written)")
    return TrainingCheckpoint(path, info)


def model_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by name; a shared tensor is included once."""
    state: dict[str, Tensor] = dict(model.named_parameters())
    lasting = model.state_dict(keep_vars=True)
    state.update((name, value) for name, value in model.named_buffers() if name in lasting)
    return state


def load_model_state(model: torch.nn.Module, state: Mapping[str, Tensor], where: Path) -> None:
    """Copy a state of `model_state` into the model.

    Raises:
        ZhbertError: names or shapes differ.
    """
    mine = model_state(model)
    for name, value in mine.items():
        if name not in state:
            raise _of_another_shape(where, f"has no '{name}'")
        if state[name].shape != value.shape:
            sizes = f"{tuple(state[name].shape)}, the model's is {tuple(value.shape)}"
            raise _of_another_shape(where, f"'{name}' is {sizes}")
    if unknown := [name for name in state if name not in mine]:
        raise _of_another_shape(where, f"holds '{unknown[0]}', which the model has not")
    with torch.no_grad():
        for name, value in mine.items():
            value.copy_(state[name])


def _of_another_shape(where: Path, what: str) -> ZhbertError:
    return ZhbertError(
        f"{where}: {what}: a checkpoint of another shape; use the recipe that this run began with"
    )


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
