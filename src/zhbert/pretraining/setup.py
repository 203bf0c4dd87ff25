"""What every part of a pretraining run looks at: its recipe, corpus, folder and processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from zhbert.config import ModelShape, Recipe
from zhbert.data.shards import Corpus
from zhbert.runs.folder import RunFolder
from zhbert.runtime import choose_dtype
from zhbert.text.tokenizer import Tokenizer
from zhbert.train.cost import Workload
from zhbert.train.distributed import Ranks


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """One run, before it begins."""

    recipe: Recipe
    recipe_file: str
    """The name of the recipe's file, for errors."""
    overrides: list[str]
    """Everything that was overridden in it, as ``key=value``."""
    corpus: Corpus
    folder: RunFolder
    ranks: Ranks
    say: Callable[[str], None]
    """Takes remarks for the user."""
    quiet: bool
    """No progress on stderr."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The corpus's."""
        return self.corpus.tokenizer()

    @cached_property
    def corpus_hash(self) -> str:
        """The SHA-256 of what corpus.json says, the shards' checksums included."""
        return hashlib.sha256(json.dumps(self.corpus.info, sort_keys=True).encode()).hexdigest()

    @property
    def resumes(self) -> bool:
        """Whether a run that was interrupted goes on."""
        return self.folder.goes_on

    @cached_property
    def dtype(self) -> torch.dtype:
        """The number format of the model's products."""
        return choose_dtype(self.recipe.precision, self.ranks.device)

    def workload(self, shape: ModelShape) -> Workload:
        """The sizes that decide memory and operations; ``shape`` is resolved."""
        return Workload.of_recipe(self.recipe, shape, self.corpus.vocabulary_size)
