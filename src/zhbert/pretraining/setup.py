"""The set-up of a pretraining run: its recipe, corpus, folder and processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from zhbert.config import ModelShape, Recipe
from zhbert.data.masking import Masker
from zhbert.data.shards import Corpus
from zhbert.runs.folder import RunFolder
from zhbert.runtime import choose_dtype
from zhbert.text.tokenizer import Tokenizer
from zhbert.train.cost import Workload
from zhbert.train.distributed import Ranks


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """The settings and resources of one run."""

    recipe: Recipe
    recipe_file: str
    """The name of the recipe's file, for errors."""
    overrides: list[str]
    """All its overrides, as ``key=value``."""
    corpus: Corpus
    folder: RunFolder
    resumes: bool
    """True if an interrupted run is resumed."""
    ranks: Ranks
    say: Callable[[str], None]
    """Called with each remark for the user."""
    quiet: bool
    """Show no progress on stderr."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The corpus's tokenizer."""
        return self.corpus.tokenizer()

    @cached_property
    def corpus_hash(self) -> str:
        """The SHA-256 of corpus.json's content, which includes the shards' checksums."""
        return hashlib.sha256(json.dumps(self.corpus.info, sort_keys=True).encode()).hexdigest()

    @cached_property
    def masker(self) -> Masker:
        """Masks the training rows."""
        return Masker(self.recipe.masking, self.tokenizer.vocabulary)

    @property
    def similar_words_hash(self) -> str:
        """The SHA-256 of the file of similar words; empty without one."""
        words = self.masker.vocabulary.similar_words
        return words.sha256 if words else ""

    @property
    def divides(self) -> bool:
        """True if the weights are divided among several processes."""
        return self.recipe.sharding == "full" and self.ranks.world_size > 1

    @cached_property
    def dtype(self) -> torch.dtype:
        """The number format of the model's products."""
        return choose_dtype(self.recipe.precision, self.ranks.device)

    def workload(self, shape: ModelShape) -> Workload:
        """Return the sizes that determine memory and operations; ``shape`` is resolved."""
        return Workload.of_recipe(self.recipe, shape, self.corpus.vocabulary_size)
