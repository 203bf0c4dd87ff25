"""Reading a checkpoint's tensors as a model's parameters, with checks and warnings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.model.checkpoint import Checkpoint
from zhbert.model.config import BertConfig
from zhbert.model.entry import Entry
from zhbert.model.head_states import HEADS, HeadState, head_states
from zhbert.model.inspection import quantised_tensor, sizes_of, summary_line
from zhbert.model.names import (
    ALIASES,
    FINE_TUNED,
    OF_PAIRS,
    TEMPLATES,
    foreign_architecture,
    from_hugging_face,
    hugging_face_names,
    to_hugging_face,
)
from zhbert.wording import listed


class UntrainedWeightsWarning(UserWarning):
    """A warning that a part of a loaded model was never trained and computes noise."""


class UnusedWeightsWarning(UserWarning):
    """A warning that a checkpoint contains tensors that the model does not use."""


@dataclass(frozen=True)
class LoadingReport:
    """A report on a checkpoint's tensors and their use, with Hugging Face's names."""

    missing: tuple[str, ...] = ()
    """parameters of the model that are not in the file and so are random"""
    unused: tuple[str, ...] = ()
    """tensors of the file that the model does not use"""
    heads: Mapping[str, HeadState] = field(default_factory=dict)
    """the state of every head that a file may contain"""
    summary: str = ""
    """one line: shape, format, heads"""

    @property
    def masked_words_head(self) -> str:
        """The state of the mask-filling head: "trained", "missing", "random" or "unclear"."""
        return self.heads["masked_words"].word if self.heads else "trained"


def read_parameters(
    checkpoint: Checkpoint, wanted: Mapping[str, Tensor], config: BertConfig
) -> tuple[dict[str, Tensor], LoadingReport]:
    """Read the ``wanted`` parameters (our names) of a checkpoint, each tensor once.

    Raises:
        ZhbertError: the encoder is not complete, shapes differ, or a number is not finite.
    """
    check_tensors(checkpoint, to_hugging_face(wanted))
    # The heads are inspected, too.
    held = {
        name: Entry.of(checkpoint.entries[name].read())
        for head in HEADS.values()
        for name in head.names
        if name in checkpoint.entries
    }
    checkpoint = replace(checkpoint, entries={**checkpoint.entries, **held})
    found, missing = from_hugging_face(checkpoint.checked(), wanted)
    used = {name for ours in wanted for name in hugging_face_names(ours)}
    states = head_states(checkpoint.entries, config.initializer_range)
    summary = summary_line(checkpoint, states)
    if missing and _alone_by_design(config, missing):
        summary += f"; random until trained: {', '.join(missing)}"
    return found, LoadingReport(
        missing=tuple(missing),
        unused=tuple(sorted(set(checkpoint.entries) - used)),
        heads=states,
        summary=summary,
    )


def without_head(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint without the head of a fine-tuned model."""
    kept = {n: e for n, e in checkpoint.entries.items() if not n.startswith(FINE_TUNED)}
    return replace(checkpoint, entries=kept)


def set_layers(checkpoint: Checkpoint, config: BertConfig, wanted: int | None) -> Iterator[Warning]:
    """Change ``config`` to the first ``wanted`` layers; yield warnings about the others.

    Raises:
        ZhbertError: the model has fewer layers.
    """
    said = config.num_hidden_layers
    there = sizes_of(checkpoint.entries)["num_hidden_layers"] or 0
    if wanted is not None:
        if not 1 <= wanted <= said:
            raise ZhbertError(f"{checkpoint.file.parent}: has {said} layers; {wanted} asked")
        config.num_hidden_layers = wanted
    elif there > said:
        yield UnusedWeightsWarning(
            f"{checkpoint.file}: config.json says num_hidden_layers = {said}, the weights have "
            f"{there}: only the first {said} are used"
        )


def warnings_of(
    checkpoint: Checkpoint, config: BertConfig, report: LoadingReport, *, has_mlm_head: bool
) -> Iterator[Warning]:
    """Yield warnings to show before a model is used."""
    file, state = checkpoint.file, report.masked_words_head if has_mlm_head else ""
    if report.missing and not _alone_by_design(config, report.missing):
        what = "no trained mask-filling head" if state == "missing" else "untrained parts"
        yield UntrainedWeightsWarning(
            f"{file}: {what}: missing {', '.join(report.missing)}; random weights take their "
            "place, so train before you use them"
        )
    if state == "random":
        yield UntrainedWeightsWarning(
            f"{file}: the mask-filling head (cls.predictions.*) holds initial random weights "
            f"({report.heads['masked_words'].why}): it was never trained, and the masks it fills "
            "are noise; train it first"
        )
    if strange := [n for n in report.unused if _is_strange(n)]:
        yield UnusedWeightsWarning(f"{file}: not used: {listed(strange)}")


def _alone_by_design(config: BertConfig, missing: Iterable[str]) -> bool:
    """Return True if the ``missing`` heads do not belong to the model's class."""
    said = config.other.get("architectures") == ["BertForMaskedLM"]
    return said and all(name.startswith(OF_PAIRS) for name in missing)


def _is_strange(unused: str) -> bool:
    template = ".".join("*" if part.isdigit() else part for part in unused.split("."))
    return template not in TEMPLATES or unused.startswith(FINE_TUNED)


# -- checks ----------------------------------------------------------------------------------------


def check_architecture(checkpoint: Checkpoint, config: BertConfig) -> None:
    """Raise a ZhbertError if tensors and configuration are of different models."""
    entries, file = checkpoint.entries, checkpoint.file
    if foreign := foreign_architecture(entries):
        raise ZhbertError(f"{file}: {foreign}")
    for name, size in sizes_of(entries).items():
        said = getattr(config, name)
        # A smaller number of layers means the first ones.
        fits = said <= (size or 0) if name == "num_hidden_layers" else said == size
        if size is not None and not fits:
            raise ZhbertError(
                f"{file}: config.json says {name} = {said:,}, the weights have "
                f"{size:,}: correct it there, or put the weights' own config.json beside them"
            )
    if quantised := quantised_tensor(entries):
        raise ZhbertError(f"{file}: {quantised}")
    if config.other.get("tie_word_embeddings") is not False:
        return
    for alias, entry in checkpoint.aliases.items():
        if not torch.equal(entries[ALIASES[alias]].read(), entry.read()):
            raise ZhbertError(
                f"{file}: {alias} differs from {ALIASES[alias]} (tie_word_embeddings is "
                "false): only BERT's shared decoder is supported"
            )


def check_tensors(checkpoint: Checkpoint, wanted: Mapping[str, Tensor]) -> None:
    """Raise a ZhbertError if tensors of the encoder are missing, or shapes differ.

    ``wanted``: a model's parameters by Hugging Face's names; heads may be missing.
    """
    file, entries = checkpoint.file, checkpoint.entries
    missing = [n for n in wanted if n not in entries]
    trunk = [n for n in missing if n.startswith("bert.") and not n.startswith("bert.pooler.")]
    if trunk:
        raise ZhbertError(
            f"{file}: lacks {len(trunk)} tensors of the model that config.json describes, first "
            f"{trunk[0]}; not a BERT checkpoint, or not this one's config.json (it holds "
            f"{', '.join(list(entries)[:2]) or 'no tensor'})"
        )
    for name, like in wanted.items():
        if name in entries and entries[name].shape != tuple(like.shape):
            head = "; does id2label name all labels?" if name.startswith("classifier") else ""
            raise ZhbertError(
                f"{file}: {name} has the shape {entries[name].shape}, config.json says "
                f"{tuple(like.shape)}{head}"
            )
