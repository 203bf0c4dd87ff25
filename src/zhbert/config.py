"""A recipe: a TOML file and ``key=value`` overrides become frozen dataclasses, or one clear error.

A recipe is named by the stem of a file that ships with the package (``tiny``) or by a path.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import read_toml
from zhbert.masking_strategies import STRATEGIES, by_similar_words
from zhbert.schema import (
    ABOVE_0,
    NOT_BELOW_0,
    ROW_LENGTH,
    SHARE,
    Range,
    build,
    check_value,
    hint_in,
    overridden,
    suggest,
    to_toml,
)
from zhbert.schema import flatten as flatten  # a name of this module, too
from zhbert.wording import show, without_secrets

RECIPES_FOLDER = Path(__file__).with_name("recipes")


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The encoder, by Hugging Face's names. Unset keys follow ``initial_model``, else BERT-base.

    The vocabulary's size is not a key: it comes from the corpus.
    """

    hidden_size: int | None = None
    """Width of every layer."""
    num_hidden_layers: int | None = None
    """Number of blocks; fewer than ``initial_model`` has means its first ones."""
    num_attention_heads: int | None = None
    """Heads of each block; unset: one for every 64 of ``hidden_size``."""
    intermediate_size: int | None = None
    """Width of the feed-forward layer; unset: four times ``hidden_size``."""
    hidden_act: str | None = None
    """Activation of the feed-forward layer; unset: gelu (the exact one)."""
    hidden_dropout_prob: float | None = None
    """Dropout after the embeddings, the attention and the feed-forward layer; unset: 0.1."""
    attention_probs_dropout_prob: float | None = None
    """Dropout of the attention's weights; unset: 0.1."""
    max_position_embeddings: int | None = None
    """The longest row that the model can ever read, in pieces; unset: 512."""
    type_vocab_size: int | None = None
    """Number of segments; unset: 2."""
    initializer_range: float | None = None
    """Standard deviation of the initial weights; unset: 0.02."""
    layer_norm_eps: float | None = None
    """Added to the variance in layer normalisation; unset: 1e-12."""


@dataclass(frozen=True, kw_only=True)
class RowSettings:
    """How documents become rows."""

    builder: str = "pairs"
    """``pairs``: two segments, as Google's BERT, the second one at random in half of the rows;
    ``full-sentences``: rows packed from sentences without pairs, as RoBERTa; ``lines``: one input
    line is one row."""
    short_row_probability: float = 0.1
    """Share of the rows whose length is drawn at random instead of the full one."""
    warmup_share: tuple[float, ...] = (0.0,)
    """The share of all steps, at the run's beginning, that has rows of each ``warmup_length``, and
    so many of them that a step has as many pieces as later: from many short contexts a small model
    learns much sooner that neighbours matter. Of no effect with ``continue_from``: the earlier
    phase had short rows."""
    warmup_length: tuple[int, ...] = (32,)
    """The longest row of these stages in pieces, increasing. A stage of more than half of
    ``sequence_length`` is left out."""


@dataclass(frozen=True, kw_only=True)
class MaskingSettings:
    """Which pieces are predicted, and what stands in their place."""

    strategy: str = "wwm"
    """``char``: single pieces; ``wwm``: whole words by Google's rule; ``wwm-unbiased``: whole
    words, every length equally often; ``ngram``: spans of one to four words; ``mac``: such spans,
    whose words become similar words instead of [MASK]."""
    similar_words: str = ""
    """With ``mac``: the file of similar words, which ``zhbert similar-words`` makes."""
    char_share: float = 0.0
    """This share of the rows is masked by single pieces, whatever the strategy, so that the model
    also learns to fill one masked character of a word."""
    rate: float = 0.15
    """Share of a row's pieces to predict."""
    final_rate: float | None = None
    """The rate at the last step, reached linearly; unset: the rate stays."""
    max_predictions: int = 20
    """The most predicted pieces of a row (Google's: 20 of 128 pieces, 77 of 512)."""
    random_pieces: str = "corpus"
    """What replaces a piece at random: ``corpus``: a piece that text can contain; ``all``: any."""
    per_word: bool = False
    """Whether all pieces of a word become [MASK], random or stay together, not each by itself (as
    they always do with ``mac``)."""
    mask_share: float = 0.8
    """Share of the chosen pieces that become [MASK] (with ``mac``: of the words that become a
    similar one)."""
    random_share: float = 0.1
    """Share of the chosen pieces that become a random piece (with ``mac``: of the words that become
    a random one); the rest stays as it is."""
    static_masks: int = 0
    """0: new masks in every epoch; k: the same k masks in turn (the published models: 5)."""

    def rate_at(self, progress: float) -> float:
        """Return the masking rate when ``progress`` (0 to 1) of the run is done."""
        if self.final_rate is None:
            return self.rate
        return self.rate + (self.final_rate - self.rate) * min(max(progress, 0.0), 1.0)


@dataclass(frozen=True, kw_only=True)
class SoftmaxSettings:
    """A sampled softmax: training compares the right piece with a part of the vocabulary.

    For a small model the product with the whole vocabulary is most of the work. Evaluation and the
    finished model always use all pieces. The method: https://arxiv.org/abs/1412.2007
    """

    frequent: int = 0
    """0: all pieces take part (the exact softmax). Otherwise the corpus's so many most frequent
    pieces do, and a sample of the others. With 2000 of 21,128, a step of 2 layers x 128 at a
    masking rate of 0.4 takes less than half of the time."""
    sampled: int = 1024
    """So many of the other pieces are drawn at every step, with weights by which they stand for all
    of them. Of no effect while ``frequent`` is 0."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The optimiser and its learning rate."""

    name: str = "adamw"
    """``adamw``: as Google's, without bias correction; ``lamb``: for very large batches; ``muon``:
    for training from random weights: orthogonalised momentum for the layers' matrices, and AdamW
    for all other parameters. Others are those of `OPTIMIZERS`."""
    learning_rate: float = 1e-4
    """The peak, reached at the end of the warm-up."""
    weight_decay: float = 0.01
    """Decoupled decay; none on biases and layer normalisation."""
    beta1: float = 0.9
    """Decay of the gradient's running mean."""
    beta2: float = 0.999
    """Decay of the squared gradient's running mean."""
    epsilon: float = 1e-6
    """Added to the square root of the running mean of squares."""
    momentum: float = 0.95
    """With ``muon``: decay of the running mean of the matrices' gradients."""
    clip_norm: float = 1.0
    """The largest global norm of the gradient, which is scaled down to it; 0: no clipping."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly."""
    schedule: str = "linear"
    """After the warm-up: ``linear`` or ``cosine`` decay to zero, or ``constant``."""
    schedule_steps: int = 0
    """The step at which the decay ends, over all phases; 0: the end of this run."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Evaluation on held-out documents, under masks that never change."""

    rows: int = 1000
    """The most rows; 0: no evaluation."""
    strategies: tuple[str, ...] = ("char", "wwm")
    """One evaluation for each of these masking strategies."""
    keep_best: bool = False
    """Whether the run's model is that of the evaluation with the lowest loss (the mean over the
    strategies) instead of the last step's. A run from an ``initial_model`` then evaluates that
    first."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """A loss between layers of the student and layers of a teacher.

    Layers are counted from 1; of hidden states, 0 is the output of the embeddings. The losses of
    several layers are added up.
    """

    loss: str = "hidden_mse"
    """One of `MATCH_NAMES`: ``hidden_mse``, ``cos``, ``pkd`` (each row's first piece), ``fsp`` and
    ``nst`` compare hidden states, ``attention_*`` the attention's scores, and ``relations`` those
    between queries, between keys and between values."""
    student: tuple[int, ...] = ()
    """Layers of the student; empty: all of them, and for ``relations`` the last."""
    teacher: tuple[int, ...] = ()
    """The layer of the teacher for each of them; empty: spread evenly, the last for the last."""
    weight: float = 1.0
    """The factor of the loss."""
    projection: str = "auto"
    """The map from the student's width to the teacher's, which is trained as well: ``linear``,
    ``relu``, ``tanh``, ``none``, or ``auto``: linear if the widths differ."""
    heads: int = 0
    """With ``relations``: into how many heads the vectors are divided; 0: the teacher's number."""
    of_teacher: int = 1
    """Which of several teachers."""


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """What a student learns from a teacher, besides what the text itself teaches it.

    The method: https://arxiv.org/abs/1503.02531. Names and losses are those of TextBrewer,
    https://arxiv.org/abs/2002.12620; the loss of soft labels has no factor temperature^2.
    """

    teachers: tuple[str, ...] = ()
    """Model folders or names, as ``--teacher`` gives them. The soft labels of several are
    averaged."""
    soft_labels: str = "ce"
    """The loss of the teacher's soft labels: ``ce`` (cross entropy of the distributions), ``mse``
    (squared error of the logits), or ``none``."""
    temperature: float = 8.0
    """Both models' logits are divided by it: the higher, the more the improbable labels count."""
    temperature_schedule: str = "constant"
    """``constant``, or by example: ``flsw`` (lower where the two models differ) or ``cwsm`` (lower
    where the student is unsure). Source: https://arxiv.org/abs/1911.07471"""
    temperature_beta: float = 1.0
    """With ``flsw`` and ``cwsm``: how much the temperature varies."""
    temperature_gamma: float = 2.0
    """With ``flsw``: the exponent of the difference."""
    soft_weight: float = 1.0
    """The factor of the loss of soft labels."""
    soft_schedule: str = "constant"
    """How this factor changes over the run: ``constant``, ``growth`` (from 0) or ``decay`` (to
    0)."""
    hard_weight: float = 1.0
    """The factor of the losses that need no teacher."""
    hard_schedule: str = "constant"
    """How that factor changes, likewise."""
    top_k: int = 0
    """In pretraining: soft labels are over the teacher's so many best pieces, among which both
    models' probabilities add up to 1; 0: over the whole vocabulary."""
    cache: str = ""
    """In pretraining: the folder in which the teacher's outputs are kept, so that it computes each
    row only once, for all runs with these rows and masks; needs ``top_k``. Empty: none."""
    other_vocabulary: str = "refuse"
    """A teacher with another vocabulary: ``refuse``, or ``map`` its pieces to the same texts."""
    matches: tuple[Match, ...] = ()
    """Losses between the layers of both models."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a pretraining run computes."""

    steps: int = 100_000
    """Optimiser steps of this run (of this phase, with ``continue_from``)."""
    batch_size: int = 32
    """Rows in one optimiser step, over all micro-batches and processes."""
    micro_batch_size: int = 0
    """Rows in one forward pass of one process; 0: chosen by the model's size and the device."""
    sequence_length: int = 128
    """The longest row in pieces, [CLS] and [SEP] included."""
    seed: int = 0
    """Decides the initial weights, the rows' order, the masks and the dropout."""
    precision: str = "auto"
    """``bf16``, ``fp32``, or ``auto``: bf16 on GPUs and on CPUs with AMX or AVX512_BF16."""
    compile: str = "auto"
    """torch.compile: ``yes``, ``no``, or ``auto``: in a run so long that it gains by it."""
    activation_checkpointing: bool = False
    """Whether a layer's inner states are computed again for its gradient instead of being kept:
    a third more work, several times larger micro-batches. With the same micro-batches the losses
    are the same, uncompiled to the bit."""
    sharding: str = "none"
    """``full``: each of several processes keeps a part of every weight, of its gradient and of the
    optimiser's state, and gets the other parts layer by layer (FSDP), for models that do not fit
    otherwise; ``none``: each process keeps them all, which is faster."""
    deterministic: bool = False
    """On GPUs: add numbers up in the same order in each run, so that resuming is identical to the
    bit there, too, on the same kind of GPU; slower. On a CPU it always is."""
    initial_weights: str = "bert"
    """How random weights are drawn, in a run that starts from no other model. ``bert``: all with
    the standard deviation ``initializer_range``, as BERT's; ``scaled``: those of a linear map with
    1 / sqrt(its inputs), and the bias of each piece's logit is the log of its frequency in the
    corpus, which the model then need not learn; ``teacher``: as ``scaled``, but the embeddings are
    the principal components of the (wider) teacher's."""
    initial_model: str = ""
    """A model folder to start from; empty: random weights."""
    continue_from: str = ""
    """The run folder of an earlier phase: its model, optimiser state and step count go on."""
    keep_checkpoints: int = 2
    """The number of newest checkpoints that are kept."""
    checkpoint_every: int = 1000
    """Steps from one checkpoint to the next; 0: only at the end."""
    evaluate_every: int = 1000
    """Steps from one evaluation to the next; 0: only at the end."""
    threads: int = 0
    """CPU threads of one process; 0: PyTorch's own choice."""
    model: ModelShape = field(default_factory=ModelShape)
    rows: RowSettings = field(default_factory=RowSettings)
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    softmax: SoftmaxSettings = field(default_factory=SoftmaxSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    distill: DistillSettings | None = None


def teachers_override(names: Sequence[str]) -> list[str]:
    """Return the override that names the teachers of a recipe; none without names.

    >>> teachers_override(["mini"])
    ['distill.teachers=["mini"]']
    """
    return [f"distill.teachers={json.dumps(names, ensure_ascii=False)}"] if names else []


MATCH_NAMES = (
    "hidden_mse", "cos", "pkd", "attention_mse", "attention_mse_sum", "attention_ce",
    "attention_ce_mean", "fsp", "nst", "relations",
)  # fmt: skip
"""The losses between layers; `zhbert.distill.losses` has their definitions."""

OPTIMIZERS: dict[str, Any] = {
    "adamw": "zhbert.train.optim:AdamW",
    "lamb": "zhbert.train.optim:Lamb",
    "muon": "zhbert.train.optim:Muon",
}
"""The optimisers by name: a class, or the module and name of one, which is imported when a run
begins. Anybody may add one: `zhbert.train.optim` says what it must have."""

CHOICES: dict[str, Collection[str]] = {
    "precision": ("auto", "fp32", "bf16"),
    "compile": ("auto", "yes", "no"),
    "sharding": ("none", "full"),
    "initial_weights": ("bert", "scaled", "teacher"),
    "model.hidden_act": ("gelu", "gelu_new", "relu"),
    "rows.builder": ("pairs", "full-sentences", "lines"),
    "masking.strategy": STRATEGIES,
    "masking.random_pieces": ("corpus", "all"),
    "optimizer.name": OPTIMIZERS,
    "optimizer.schedule": ("linear", "constant", "cosine"),
    "evaluation.strategies": STRATEGIES,
    "distill.soft_labels": ("ce", "mse", "none"),
    "distill.temperature_schedule": ("constant", "flsw", "cwsm"),
    "distill.soft_schedule": ("constant", "growth", "decay"),
    "distill.hard_schedule": ("constant", "growth", "decay"),
    "distill.other_vocabulary": ("refuse", "map"),
    "matches.loss": MATCH_NAMES,
    "matches.projection": ("auto", "linear", "relu", "tanh", "none"),
}

# Keys whose choices anybody may add to.
_EXTENSIBLE = ("masking.strategy", "optimizer.name", "evaluation.strategies")

_RATE: Range = ("above 0 and at most 1", lambda value: 0 < value <= 1)
_BELOW_ONE: Range = ("from 0 up to but not 1", lambda value: 0 <= value < 1)


def _up_to(most: int, least: int = 1) -> Range:
    return (f"from {least} to {most:,}", lambda value: least <= value <= most)


# Far above any model there is: beyond it a number is a mistake that would fill the memory.
VOCABULARY_SIZE = _up_to(10_000_000)

RANGES: dict[str, Range] = {
    "steps": ABOVE_0,
    "batch_size": ABOVE_0,
    "micro_batch_size": NOT_BELOW_0,
    "sequence_length": ROW_LENGTH,
    "seed": ("from 0 to 2^63 - 1", lambda value: 0 <= value < 2**63),
    "keep_checkpoints": ("1 or more", lambda value: value >= 1),
    "checkpoint_every": NOT_BELOW_0,
    "evaluate_every": NOT_BELOW_0,
    "threads": NOT_BELOW_0,
    "model.hidden_size": _up_to(65_536),
    "model.num_hidden_layers": _up_to(1_000),
    "model.num_attention_heads": _up_to(65_536),
    "model.intermediate_size": _up_to(1_048_576),
    "model.hidden_dropout_prob": _BELOW_ONE,
    "model.attention_probs_dropout_prob": _BELOW_ONE,
    "model.max_position_embeddings": _up_to(1_048_576),
    "model.type_vocab_size": _up_to(65_536, least=2),
    "model.initializer_range": ABOVE_0,
    "model.layer_norm_eps": ABOVE_0,
    "rows.short_row_probability": SHARE,
    "rows.warmup_share": SHARE,
    "rows.warmup_length": ROW_LENGTH,
    "masking.char_share": SHARE,
    "masking.rate": _RATE,
    "masking.final_rate": _RATE,
    "masking.max_predictions": ABOVE_0,
    "masking.mask_share": SHARE,
    "masking.random_share": SHARE,
    "masking.static_masks": NOT_BELOW_0,
    "softmax.frequent": NOT_BELOW_0,
    "softmax.sampled": ABOVE_0,
    "optimizer.learning_rate": ABOVE_0,
    "optimizer.weight_decay": NOT_BELOW_0,
    "optimizer.beta1": _BELOW_ONE,
    "optimizer.beta2": _BELOW_ONE,
    "optimizer.epsilon": ABOVE_0,
    "optimizer.momentum": _BELOW_ONE,
    "optimizer.clip_norm": NOT_BELOW_0,
    "optimizer.warmup_steps": NOT_BELOW_0,
    "optimizer.schedule_steps": NOT_BELOW_0,
    "evaluation.rows": NOT_BELOW_0,
    "distill.temperature": ABOVE_0,
    "distill.temperature_beta": NOT_BELOW_0,
    "distill.temperature_gamma": ABOVE_0,
    "distill.soft_weight": NOT_BELOW_0,
    "distill.hard_weight": NOT_BELOW_0,
    "distill.top_k": ("0 (all pieces), or 2 or more", lambda value: value == 0 or value >= 2),
    "matches.student": NOT_BELOW_0,
    "matches.teacher": NOT_BELOW_0,
    "matches.weight": ABOVE_0,
    "matches.heads": NOT_BELOW_0,
    "matches.of_teacher": ABOVE_0,
}

# What an unset key of [model] means where no initial_model says otherwise: BERT-base.
BASE_MODEL: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
}


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES_FOLDER.glob("*.toml"))


def recipe_path(name: str | os.PathLike[str]) -> Path:
    """Return the file of a recipe named by its stem (``tiny``) or by a path (``my/tiny.toml``).

    Raises ZhbertError where there is none, naming the recipes that there are.
    """
    text = os.fspath(name)
    path = named_file(text, RECIPES_FOLDER, "recipe")
    if path is None:
        raise ZhbertError(
            f"no recipe '{text}'{suggest(text, recipe_names())}, or give a path to a file"
        )
    return path


def named_file(text: str, folder: Path, what: str) -> Path | None:
    """Return the TOML file in ``folder`` with this stem, or at this path; None if not a path.

    Raises ZhbertError, which uses the noun ``what`` ("recipe"), if a path leads to no file.
    """
    shipped, path = folder / f"{text}.toml", Path(text)
    if os.sep not in text and shipped.is_file():
        return shipped
    if path.is_file():
        return path
    if path.suffix == ".toml" or os.sep in text:
        why = f"a folder, not a {what}" if path.is_dir() else "no such file"
        raise ZhbertError(f"{text}: {why}; 'zhbert {what}s' lists the {what}s by name")
    return None


def load_recipe(name: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply ``key=value`` overrides; raises ZhbertError in one line.

    >>> load_recipe("tiny", ["masking.strategy=char", "steps=3"]).masking.strategy
    'char'
    """
    path = recipe_path(name)
    return parse_recipe(read_toml(path, "a recipe"), overrides, where=path.name)


def parse_recipe(
    table: Mapping[str, Any], overrides: Iterable[str] = (), *, where: str = "recipe"
) -> Recipe:
    """Turn a TOML table and overrides into a checked Recipe; ``where`` names the file in errors.

    >>> parse_recipe({"masking": {"ratee": 0.2}})
    Traceback (most recent call last):
    zhbert.errors.ZhbertError: recipe: masking: unknown key 'ratee'; did you mean 'rate'?
    """
    recipe = build(Recipe, table, "", where, hint_in(Recipe()))
    for override in overrides:
        recipe = overridden(recipe, override)
    check_recipe(recipe, where)
    return recipe


def check_recipe(recipe: Recipe, where: str = "recipe") -> None:
    """Refuse values out of range and values that contradict each other."""
    for key, value in flatten(recipe).items():
        _check(key, value, f"{where}: {key}")
    shares, lengths = recipe.rows.warmup_share, recipe.rows.warmup_length
    if sorted(set(lengths)) != list(lengths):
        raise ZhbertError(f"{where}: rows.warmup_length = {show(list(lengths))}: must increase")
    if len(shares) != len(lengths) or sum(shares) > 1 + 1e-9:
        raise ZhbertError(
            f"{where}: rows.warmup_share = {show(list(shares))}: must be one share for each of "
            f"rows.warmup_length = {show(list(lengths))}, together at most 1"
        )
    _check_together(recipe.masking, f"{where}: masking")
    if strange := [name for name in recipe.evaluation.strategies if by_similar_words(name)]:
        raise ZhbertError(
            f"{where}: evaluation.strategies: {strange[0]} depends on a file of similar words, and "
            "evaluations compare models by the same masks; ngram chooses the same words"
        )
    if recipe.initial_model and recipe.continue_from:
        raise ZhbertError(
            f"{where}: initial_model and continue_from are both set: continue_from brings its own "
            "model, so remove one of them"
        )
    if recipe.micro_batch_size > recipe.batch_size:
        raise ZhbertError(
            f"{where}: micro_batch_size = {recipe.micro_batch_size}: must be at most "
            f"batch_size = {recipe.batch_size}"
        )
    if recipe.initial_weights == "teacher" and recipe.distill is None:
        raise ZhbertError(
            f"{where}: initial_weights = teacher: there is no teacher; 'zhbert distill' takes one, "
            "--teacher MODEL"
        )
    if recipe.distill is not None:
        check_distillation(recipe.distill, where)
        _check_soft_labels(recipe, where)
    if recipe.initial_model or recipe.continue_from:
        # Unset keys of [model] are then known only when that model is read.
        return
    check_shape(resolve_shape(recipe.model), recipe.sequence_length, where)


def check_masking(masking: MaskingSettings) -> None:
    """Refuse values of masking alone, where there is no recipe, as ``check_recipe`` does.

    >>> check_masking(MaskingSettings(rate=0))
    Traceback (most recent call last):
    zhbert.errors.ZhbertError: masking: rate = 0: must be above 0 and at most 1
    """
    for key, value in flatten(masking).items():
        _check(f"masking.{key}", value, f"masking: {key}")
    _check_together(masking, "masking")


def check_distillation(distill: DistillSettings, where: str) -> None:
    """Refuse values of distillation out of range; ``where`` begins the errors.

    >>> check_distillation(DistillSettings(temperature=0), "x.toml")
    Traceback (most recent call last):
    zhbert.errors.ZhbertError: x.toml: distill.temperature = 0: must be above 0
    """
    for key, value in flatten(distill).items():
        if key != "matches":
            _check(f"distill.{key}", value, f"{where}: distill.{key}")
    for number, match in enumerate(distill.matches, start=1):
        for key, value in flatten(match).items():
            _check(f"matches.{key}", value, f"{where}: distill.matches, entry {number}: {key}")
    if distill.soft_labels == "none" and not distill.matches:
        raise ZhbertError(
            f"{where}: distill.soft_labels = none and no distill.matches: nothing is learnt from "
            "the teacher"
        )


def _check_soft_labels(recipe: Recipe, where: str) -> None:
    """Refuse soft labels that cannot be computed or kept."""
    distill = recipe.distill
    assert distill is not None
    soft = distill.soft_labels != "none"
    if soft and recipe.softmax.frequent and not distill.top_k:
        raise ZhbertError(
            f"{where}: softmax.frequent = {recipe.softmax.frequent}: soft labels over the whole "
            "vocabulary need all pieces; set softmax.frequent=0, or distill.top_k=10 for soft "
            "labels over the teacher's 10 best pieces"
        )
    if distill.cache and not (soft and distill.top_k):
        raise ZhbertError(
            f"{where}: distill.cache keeps soft labels over the teacher's best pieces: set "
            "distill.top_k=10 as well"
        )
    if distill.cache and distill.matches:
        raise ZhbertError(
            f"{where}: distill.cache keeps soft labels only, and distill.matches need the teacher "
            "itself: remove one of them"
        )


def _check(key: str, value: Any, label: str) -> None:
    known, within = CHOICES.get(key), RANGES.get(key)
    check_value(value, label, known, within, extensible=key in _EXTENSIBLE)


def _check_together(masking: MaskingSettings, where: str) -> None:
    if by_similar_words(masking.strategy) and not masking.similar_words:
        raise ZhbertError(
            f"{where}: strategy = {masking.strategy}: needs similar_words, a file that 'zhbert "
            "similar-words CORPUS --out FILE' makes"
        )
    total = masking.mask_share + masking.random_share
    if total > 1 + 1e-9:
        raise ZhbertError(f"{where}: mask_share + random_share = {total:g}: must be at most 1")


def check_shape(shape: ModelShape, sequence_length: int, where: str = "recipe") -> None:
    """Refuse a resolved shape that cannot be built, or rows that are too long for it."""
    assert shape.hidden_size is not None
    assert shape.num_attention_heads is not None
    assert shape.max_position_embeddings is not None
    if shape.hidden_size % shape.num_attention_heads:
        raise ZhbertError(
            f"{where}: model.hidden_size = {shape.hidden_size}: must be a multiple of "
            f"model.num_attention_heads = {shape.num_attention_heads}"
        )
    if sequence_length > shape.max_position_embeddings:
        raise ZhbertError(
            f"{where}: sequence_length = {sequence_length}: must be at most "
            f"model.max_position_embeddings = {shape.max_position_embeddings} (zhbert stretch "
            "gives a trained model more)"
        )


def resolve_shape(shape: ModelShape, initial: Mapping[str, Any] | None = None) -> ModelShape:
    """Fill the unset keys from ``initial`` (a config.json's table) or else from BERT-base.

    A set key that contradicts ``initial`` is an error, but for dropout and for fewer layers.

    >>> resolve_shape(ModelShape(hidden_size=128, num_hidden_layers=2)).intermediate_size
    512
    """
    values = {key: value for key, value in dataclasses.asdict(shape).items() if value is not None}
    if initial is not None:
        for key, value in values.items():
            theirs = initial.get(key)
            free = key.endswith("dropout_prob") or theirs is None or value == theirs
            if not free and not (key == "num_hidden_layers" and value < theirs):
                other = "another model"
                if key == "max_position_embeddings":
                    other = f"what zhbert stretch --positions {value} or zhbert shrink makes of it"
                raise ZhbertError(
                    f"model.{key} = {show(value)}: the model to start from has {show(theirs)}; "
                    f"remove the key, or start from {other}"
                )
        known = {item.name for item in dataclasses.fields(ModelShape)}
        values = {**{k: v for k, v in initial.items() if k in known and v is not None}, **values}
    values = {**BASE_MODEL, **values}
    values.setdefault("num_attention_heads", max(1, values["hidden_size"] // 64))
    values.setdefault("intermediate_size", 4 * values["hidden_size"])
    return ModelShape(**values)


def recipe_to_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML, which ``parse_recipe`` reads back identically.

    Unset keys are left out, and so is a password in the address of a model.
    """
    return to_toml(without_passwords(recipe))


def without_passwords(recipe: Recipe) -> Recipe:
    """Return the recipe without passwords in the addresses of models."""
    distill = recipe.distill
    if distill is not None:
        teachers = tuple(map(without_secrets, distill.teachers))
        distill = dataclasses.replace(distill, teachers=teachers)
    model = without_secrets(recipe.initial_model)
    return dataclasses.replace(recipe, initial_model=model, distill=distill)
