"""Checkpoints: a model's tensors in any format, by their Hugging Face names, read on demand.

A model of several gigabytes needs only the memory of its largest tensor (and, for a pickle, of a
window of the file).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.files import read_json_if_sound
from zhbert.model.entry import Entry, is_finite
from zhbert.model.formats.paddle import from_paddle, is_paddle, read_pdparams
from zhbert.model.formats.pickle import read_pickle
from zhbert.model.formats.safetensors import read_safetensors
from zhbert.model.formats.tensorflow import read_tensorflow
from zhbert.model.names import ALIASES, CONSTANTS, modern_names, segments_of_uer
from zhbert.zoo.layout import ModelFiles, find_model, shards_of, weights_format

READERS: Mapping[str, Callable[[Path], tuple[dict[str, Entry], list[str]]]] = {
    "safetensors": read_safetensors,
    "pytorch": read_pickle,
    "tensorflow": read_tensorflow,
    "paddle": read_pdparams,
}
"""By format: the reader of a file's entries, with the names in it, and of skipped names."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a model in any format, by current Hugging Face names (with ``bert.``)."""

    file: Path  # to name in errors
    format: str  # "safetensors", "pytorch", "tensorflow" or "paddle"
    entries: dict[str, Entry]
    # Second names of tensors that are among the entries: the decoder's matrix and bias.
    aliases: dict[str, Entry] = field(default_factory=dict)
    # Other content of the file: optimiser state, the step, constants, other objects.
    skipped: tuple[str, ...] = ()

    @classmethod
    def of(cls, file: Path, format: str, raw: Mapping[str, Entry]) -> Checkpoint:
        """Rename the tensors of a file of any program to Hugging Face's names."""
        entries: dict[str, Entry] = {}
        names: dict[str, str] = {}
        modern_name = modern_names(raw, file)
        for name, entry in raw.items():
            modern = modern_name[name]
            if segments_of_uer(name):
                entry = entry.then(lambda rows: rows[1:])
            if modern in entries:
                raise ZhbertError(
                    f"{file}: '{names[modern]}' and '{name}' both mean {modern}: two models in one "
                    "file; save one of them alone"
                )
            entries[modern], names[modern] = entry, name
        aliases: dict[str, Entry] = {}
        for alias, name in ALIASES.items():
            if alias in entries:
                aliases[alias] = entries.pop(alias)
                entries.setdefault(name, aliases[alias])
        skipped = tuple(name for name in entries if name in CONSTANTS)
        for name in skipped:
            del entries[name]
        return cls(file, format, entries, aliases, skipped)

    def checked(self) -> dict[str, Entry]:
        """Return the entries; reading one with NaN or infinity raises a ZhbertError."""

        def read(name: str) -> Tensor:
            tensor = self.entries[name].read()
            if not is_finite(tensor):
                raise ZhbertError(
                    f"{self.file}: {name} holds NaN or infinite numbers: the training that wrote "
                    "it diverged; use an earlier checkpoint"
                )
            return tensor

        return {n: replace(entry, read=partial(read, n)) for n, entry in self.entries.items()}

    def fingerprint(self) -> str:
        """Return the SHA-256 of all vectors (biases, layer norms), the same in every format.

        They are a thousandth of a model, and every training changes them.
        """
        digest = hashlib.sha256()
        for name, entry in sorted(self.entries.items()):
            if len(entry.shape) == 1:
                digest.update(name.encode() + entry.read().float().numpy().tobytes())
        return digest.hexdigest()


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a model folder (or one of its files) of any format; only names and shapes are read.

    Raises:
        ZhbertError: there is no model, a file is damaged, or a pickle contains more than tensors.
    """
    files = find_model(path)
    if files.format == "onnx":
        raise ZhbertError(
            f"{files.weights}: an ONNX graph, which only 'zhbert predict', 'evaluate', 'fill' and "
            "'embed' run (--engine onnx): for all else, take the model that it was made from"
        )
    entries: dict[str, Entry] = {}
    aside: dict[str, None] = {}
    for part in weight_files(files.weights):
        format = files.format if files.format == "tensorflow" else weights_format(part)
        found, left = READERS[format](part)
        entries |= found
        aside |= dict.fromkeys(left)
    form = files.format
    if is_paddle(entries):
        form, entries = "paddle", from_paddle(entries, _architecture(files))
    checkpoint = Checkpoint.of(files.weights, form, entries)
    return replace(checkpoint, skipped=(*checkpoint.skipped, *aside))


def _architecture(files: ModelFiles) -> str | None:
    """Return the class that config.json names, if it does; its faults are reported elsewhere."""
    values = read_json_if_sound(files.config) if files.config else {}
    named = values.get("architectures") or [values.get("init_class")]
    return str(named[0]) if isinstance(named, list) else None


def stored_files(files: ModelFiles) -> list[Path]:
    """Return the files that hold a model's weights, which is several if they are TensorFlow's."""
    if files.format == "tensorflow":
        return sorted(files.folder.glob(f"{files.weights.name}.*"))
    return weight_files(files.weights)


def weight_files(weights: Path) -> list[Path]:
    """Return the files with the tensors: ``weights`` itself, or the files in an index.

    Raises:
        ZhbertError: it is not an index of weights, or one of its files is missing.
    """
    if weights.suffix != ".json":
        return [weights]
    parts = [weights.parent / name for name in shards_of(weights)]
    for path in parts:
        # A too long name cannot exist.
        if len(path.name) > 255 or not path.is_file():
            raise ZhbertError(
                f"{weights.parent / path.name[:255]}: missing, though {weights.name} names it; "
                "fetch it again"
            )
    return parts
