"""The pretrained model that fine-tuning starts from."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from zhbert.config import DistillSettings
from zhbert.errors import ZhbertError
from zhbert.files import sha256_of
from zhbert.finetuning.fine_tuned import open_tokenizer
from zhbert.model.checkpoint import stored_files
from zhbert.model.config import BertConfig, count_parameters_by_part
from zhbert.model.folder import check_vocabulary
from zhbert.model.loading import UntrainedWeightsWarning, UnusedWeightsWarning
from zhbert.model.names import FINE_TUNED
from zhbert.sentences.model import SentenceModel
from zhbert.tasks.card import TaskCard
from zhbert.tasks.kinds import Kind
from zhbert.tasks.learners.base import Learner
from zhbert.tasks.settings import (
    FineTuningSettings,
    check_settings,
    family_of,
    settings_for,
    with_overrides,
)
from zhbert.text.tokenizer import Tokenizer
from zhbert.zoo.layout import find_model
from zhbert.zoo.origin import short_name


@dataclass(frozen=True)
class StartingModel:
    """A model folder's configuration and tokenizer, without its weights."""

    name: str
    """The name that the user gave."""
    folder: Path
    config: BertConfig
    tokenizer: Tokenizer

    @classmethod
    def open(cls, name: str, folder: Path) -> StartingModel:
        """Read a model folder; raise ZhbertError if it has no vocabulary."""
        return cls(name, folder, BertConfig.from_pretrained(folder), open_tokenizer(folder))

    def settings(
        self,
        card: TaskCard,
        overrides: Iterable[str],
        say: Callable[[str], None],
        distill: DistillSettings | None = None,
    ) -> FineTuningSettings:
        """Return the card's settings for a model of this size, with overrides applied.

        ``distill`` is what the overrides change of distillation; None: there is no teacher.

        Raises ZhbertError if a value is out of range or rows are longer than the model's maximum.
        """
        config = self.config
        family = family_of(short_name(self.name), config.num_hidden_layers, config.hidden_size)
        base = dataclasses.replace(settings_for(card, family), distill=distill)
        longest = config.max_position_embeddings
        if base.sequence_length > longest:
            say(
                f"sequence_length = {longest} instead of {base.sequence_length}: the model reads "
                "no longer rows"
            )
            base = dataclasses.replace(base, sequence_length=longest)
        settings = with_overrides(base, overrides)
        if settings.sequence_length > longest:
            raise ZhbertError(
                f"sequence_length = {settings.sequence_length}: {self.name} reads rows of "
                f"{longest} pieces at most (max_position_embeddings)"
            )
        check_settings(settings)
        return settings

    def check(
        self,
        kind: Kind,
        learner: Learner,
        say: Callable[[str], None],
        teachers: Iterable[StartingModel] = (),
    ) -> None:
        """Raise ZhbertError if the model cannot be opened, and warn if it was never trained.

        ``teachers`` are those that it shall learn from.
        """
        model = cast(Any, open_with_head(self.folder, kind, learner, 0))
        states = model.loading.heads
        words = states["masked_words"]
        if words.word == "random":
            say(
                f"warning: {self.name}: was never trained ({words.why}): fine-tuning starts from "
                "noise"
            )
            for teacher in teachers:
                own, theirs = self.config.num_hidden_layers, teacher.config.num_hidden_layers
                layers = ",".join(map(str, {i * theirs // own: None for i in range(own)}))
                say(
                    "note: a student that starts from noise learns little from a teacher: 'zhbert "
                    f"shrink {teacher.folder} --layers {layers} --out START' makes one of the "
                    "teacher's layers, for --model START"
                )
        if kind.problem_type is not None and states["pooler"].word == "missing":
            say(f"note: {self.name}: no pooler in it; a random one is trained")
        if isinstance(model, SentenceModel) and (prompts := model.sentence.prompts):
            names = ", ".join(name for name, text in prompts.items() if text)
            if names:
                say(f"note: {self.name}: its prompts ({names}) are not put before the texts")
        check_vocabulary(self.folder, self.tokenizer, self.config.vocab_size)

    def identity(self) -> dict[str, Any]:
        """Return hashes and the configuration that identify this model in provenance.json."""
        shape = dataclasses.asdict(self.config)
        del shape["other"]
        return {
            "model": [sha256_of(file) for file in stored_files(find_model(self.folder))],
            "configuration": shape,
            "vocabulary": self.tokenizer.fingerprint(),
        }

    def num_parameters(self, kind: Kind, learner: Learner) -> int:
        """Return the number of parameters of the fine-tuned model."""
        parts = count_parameters_by_part(self.config, masked_words=False, sentence_pair=False)
        if kind.architecture != "BertForSequenceClassification":
            del parts["pooler"]
        if kind.architecture == "BertModel":
            return sum(parts.values())
        outputs = 2 if learner.labels is None else len(learner.labels)
        return sum(parts.values()) + outputs * (self.config.hidden_size + 1)


def open_with_head(folder: Path, kind: Kind, learner: Learner, seed: int) -> torch.nn.Module:
    """Open the pretrained model with a new head, or with its own if that has the same labels."""
    with warnings.catch_warnings():
        # A new head is expected here; other warnings were shown when the run began.
        warnings.simplefilter("ignore", UntrainedWeightsWarning)
        warnings.simplefilter("ignore", UnusedWeightsWarning)
        model: torch.nn.Module = learner.training_class(kind.model_class()).from_pretrained(
            folder, labels=learner.labels, seed=seed, quiet=True
        )
    if not any(name.startswith(FINE_TUNED) for name in cast(Any, model).loading.missing):
        learner.begin(model)
    return model
