"""The stages of `zhbert quickstart`: train a model on a user's text; compare before and after.

The methods of a `Quickstart` are called in their order. It continues from a model with the recipe
``quickstart``, or starts from random weights with ``quickstart-scratch``; the number of steps and
other settings depend on the amount of text and the size of the model.
"""

from __future__ import annotations

import math
import shlex
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.config import flatten, load_recipe, resolve_shape
from zhbert.data.cloze import Cloze, held_out_clozes
from zhbert.data.first_look import FirstLook, first_look
from zhbert.data.mask_text import MaskedText, mask_text
from zhbert.data.prepare import PrepareProgress, prepare
from zhbert.data.read_options import ReadOptions
from zhbert.data.shards import Corpus
from zhbert.errors import ZhbertError
from zhbert.files import json_lines
from zhbert.folders import Claim
from zhbert.inference.fill import Filled, fill, open_mask_filler
from zhbert.model.config import BertConfig
from zhbert.pretraining.result import PretrainingResult
from zhbert.pretraining.run import pretrain
from zhbert.runtime import processors
from zhbert.text.segmenters import load_segmenter
from zhbert.text.tokenizer import Tokenizer
from zhbert.train.cost import Workload
from zhbert.wording import without_secrets
from zhbert.zoo import locate
from zhbert.zoo.packaged import DEFAULT

if TYPE_CHECKING:
    from zhbert.inference.fill import MaskFiller
    from zhbert.model.pretrained import BertForPreTraining

SAMPLE = Path(__file__).parent.parent / "assets" / "sample.txt"
SCRATCH = "scratch"

# The usual 1 % of a small text is too few documents for an evaluation.
HELD_OUT = 0.1
# The held-out share varies if documents are few and of different lengths; these are its limits.
_LEAST_HELD_OUT, _MOST_HELD_OUT = 0.03, 0.4

# Number of masked sentences to fill.
SHOWN = 5

# In more passes than these, a pretrained model memorises a text.
PASSES = 8
# From scratch a model needs more. In more passes than these it memorises short rows, and fewer
# steps of long rows are better.
PASSES_FROM_SCRATCH = 40
_WITH_LITTLE_TEXT = ("steps=400", "rows.warmup_share=[0.0]", "evaluate_every=100")

# The recipe's steps and learning rate suit a model of this size. A larger model gets the number of
# steps that takes as long on a CPU, and the lower rate that large models need.
_RECIPE_SIZE = Workload(
    hidden_size=256,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=1024,
    vocabulary_size=21128,
    sequence_length=128,
)


@dataclass(frozen=True)
class HeldOutScore:
    """Held-out accuracies, 0 to 1, with masks of one kind."""

    before: float | None
    """None: the weights were random, so the model was not evaluated before."""
    after: float
    baseline: float
    """The accuracy of always guessing the most frequent piece."""
    predictions: int

    @property
    def reference(self) -> float:
        """The accuracy that the model has to beat."""
        return self.baseline if self.before is None else self.before

    @property
    def better(self) -> bool:
        """True if it beats the reference by any amount."""
        return self.after > self.reference

    @property
    def worse(self) -> bool:
        """True if it is below the reference by more than two standard errors."""
        p, q = self.after, self.reference
        return q - p > 2 * math.sqrt((p * (1 - p) + q * (1 - q)) / max(1, self.predictions))


@dataclass(kw_only=True)
class Quickstart:
    """One quickstart, stage by stage."""

    folder: Path
    """The run folder; the corpus is in FOLDER-corpus."""
    texts: Sequence[str | Path] = (SAMPLE,)
    source: str = DEFAULT
    """The model to continue from, or ``scratch``."""
    resume: bool = False
    overwrite: bool = False
    overrides: Sequence[str] = ()
    """``key=value`` texts for the recipe."""
    reading: ReadOptions = field(default_factory=ReadOptions)
    say: Callable[[str], None] = lambda line: None
    """Called with each remark."""
    quiet: bool = True
    """Show no progress on stderr while a model is downloaded."""

    def __post_init__(self) -> None:
        self.corpus_folder = Path(f"{self.folder}-corpus")
        self.scratch = self.source == SCRATCH
        self.recipe = "quickstart-scratch" if self.scratch else "quickstart"
        self.tokenizer = Tokenizer.default()
        self.model: MaskFiller | None = None
        """The model to continue from, after `open` has read it."""
        self._model_folder: Path | None = None

    # -- before any work -------------------------------------------------------------------------

    def open(self) -> FirstLook:
        """Check folders, recipe, text and model, and open the model; return the checked text.

        Raises:
            ZhbertError: any of them is not usable.
        """
        self._check_folders()
        evaluation = load_recipe(self.recipe, self.overrides).evaluation
        if not evaluation.rows or "wwm" not in evaluation.strategies:
            raise ZhbertError(
                "--set evaluation...: nothing would be compared; leave evaluation.rows above 0 and "
                '"wwm" among evaluation.strategies'
            )
        look = first_look(self.texts, self.reading)
        if not self.scratch:
            self._model_folder = locate(self.source, quiet=self.quiet)
            self.tokenizer = Tokenizer.from_pretrained(self._model_folder)
        # Before the model's weights are read.
        self._check_vocabulary(look)
        if self._model_folder is not None:
            self.model = self._open_model(self._model_folder)
        return look

    def _check_folders(self) -> None:
        if self.resume and self.overwrite:
            raise ZhbertError("--resume and --overwrite contradict each other: give one of them")
        needed = {f"text {name}": Path(name) for name in self.texts}
        if not self.scratch and Path(self.source).exists():
            needed["model"] = Path(self.source)
        for place in (self.folder, self.corpus_folder):
            Claim(
                folder=place,
                what="an earlier quickstart",
                is_ours=_is_ours,
                overwrite=self.overwrite,
                goes_on=self.resume,
                ways="--resume goes on with it, ",
                needed=needed,
            ).check()

    def _check_vocabulary(self, look: FirstLook) -> None:
        model = DEFAULT if self.scratch else without_secrets(self.source)
        words = shlex.join(["zhbert", "vocab", "extend", model, "--from-text", *look.names])
        way_out = f"add them ({words} --out models/extended) and give --from models/extended"
        for note in look.check_vocabulary(self.tokenizer, way_out):
            self.say(f"note: {note}")

    def _open_model(self, folder: Path) -> MaskFiller:
        with warnings.catch_warnings():
            # Conditions that this would warn of are errors here.
            warnings.simplefilter("ignore")
            model, _ = open_mask_filler(folder, engine="torch")
        if (head := model.loading.masked_words_head) not in ("trained", "unclear"):
            raise ZhbertError(
                f"{self.source}: its mask-filling head is {head}: a model that was fine-tuned, or "
                "an encoder alone; start from the model that it was made of"
            )
        return model

    # -- the stages ------------------------------------------------------------------------------

    def mask(self, sentence: str) -> MaskedText:
        """Mask a sentence by all strategies, with a seed that gives each of them a mask."""
        segmenter = load_segmenter("jieba")
        drawn = [mask_text(sentence, self.tokenizer, segmenter, seed=seed) for seed in range(9)]
        masked = (one for one in drawn if all(masks.predicted for masks in one.masks.values()))
        return next(masked, drawn[0])

    def prepare(
        self, progress_bar: Callable[[], AbstractContextManager[PrepareProgress | None]]
    ) -> tuple[Corpus, dict[str, Any] | None]:
        """Make the text's corpus; return it and `prepare`'s report (None if it existed already).

        In a text without blank lines, which would be one document, each line is a document.
        """
        if self.resume and (self.corpus_folder / "corpus.json").is_file():
            corpus = Corpus.open(self.corpus_folder)
            if corpus.fingerprint != self.tokenizer.fingerprint():
                raise ZhbertError(
                    f"{self.corpus_folder}: prepared with another vocabulary than that of "
                    f"{self.source}: give the --from that it was begun with, or --overwrite"
                )
            if _is_enough(corpus):
                return corpus, None
        for documents in ("blank", "line"):
            begun = time.perf_counter()
            with progress_bar() as progress:
                report = prepare(
                    self.texts,
                    self.corpus_folder,
                    vocab=self._model_folder,
                    documents=documents,
                    field=self.reading.field,
                    encoding=self.reading.encoding,
                    held_out=HELD_OUT,
                    overwrite=True,
                    workers=processors(),
                    progress=progress,
                )
            corpus = Corpus.open(self.corpus_folder)
            if _is_enough(corpus):
                return corpus, {**report, "seconds": time.perf_counter() - begun}
        pieces = report["read"]["pieces"]
        shutil.rmtree(self.corpus_folder)
        raise ZhbertError(
            f"{pieces['held_out']:,} of {pieces['encoded']:,} pieces fell to the part that is "
            "set aside to measure on, where a tenth should: the text has too few lines, or "
            "they are alike; give more text, or text of more lines"
        )

    def plan(self, corpus: Corpus) -> list[str]:
        """Choose overrides of the recipe: the model to start from, and steps to suit the text."""
        recipe, given = (load_recipe(self.recipe, more) for more in ((), self.overrides))
        rows = corpus.info["totals"]["train"]["pieces"] / recipe.sequence_length
        if self.model is None:
            little = recipe.steps * recipe.batch_size > PASSES_FROM_SCRATCH * rows
            return [*(_WITH_LITTLE_TEXT if little else ()), *self.overrides]
        config = self.model.config
        size = Workload.of(
            config, vocabulary_size=config.vocab_size, sequence_length=recipe.sequence_length
        )
        larger = max(1.0, size.operations() / _RECIPE_SIZE.operations())
        most = math.ceil(PASSES * rows / recipe.batch_size)
        steps = max(10, min(most, round(recipe.steps / larger)))
        if given.steps != recipe.steps:
            steps = given.steps
        narrower = min(1, _RECIPE_SIZE.hidden_size / config.hidden_size)
        return [
            f"initial_model={self.source}",
            f"steps={steps}",
            f"optimizer.warmup_steps={steps // 10}",
            f"optimizer.learning_rate={recipe.optimizer.learning_rate * narrower**2:.3g}",
            f"evaluate_every={max(1, steps // 4)}",
            f"checkpoint_every={max(1, steps // 4)}",
            *self.overrides,
        ]

    def clozes(self, corpus: Corpus) -> Sequence[Cloze]:
        """Return sentences of the held-out documents, each with one word masked."""
        return held_out_clozes(corpus, SHOWN)

    def fill_before(
        self, corpus: Corpus, overrides: Sequence[str], clozes: Sequence[Cloze]
    ) -> list[Filled]:
        """Fill the masks with the initial model or the initial random weights."""
        return self._fill(self.model or self._untrained(corpus, overrides), clozes)

    def _untrained(self, corpus: Corpus, overrides: Sequence[str]) -> BertForPreTraining:
        from zhbert.pretraining.start import new_model

        recipe = load_recipe(self.recipe, overrides)
        shape: dict[str, Any] = flatten(resolve_shape(recipe.model))
        return new_model(recipe, BertConfig(vocab_size=len(self.tokenizer), **shape), corpus)

    def _fill(self, model: MaskFiller, clozes: Sequence[Cloze]) -> list[Filled]:
        return fill(model.eval(), self.tokenizer, [cloze.text for cloze in clozes])

    def train(self, overrides: Sequence[str], *, quiet: bool = True) -> PretrainingResult:
        """Train the model; ``quiet`` as in `pretrain`."""
        return pretrain(
            self.recipe,
            self.corpus_folder,
            self.folder,
            overrides,
            resume=self.resume and (self.folder / "recipe.toml").is_file(),
            overwrite=self.overwrite,
            quiet=quiet,
        )

    def fill_after(self, result: PretrainingResult, clozes: Sequence[Cloze]) -> list[Filled]:
        """Fill the masks with the trained model."""
        assert result.final is not None
        return self._fill(open_mask_filler(result.final)[0], clozes)


def scores_of(result: PretrainingResult) -> dict[str, HeldOutScore]:
    """Return a finished run's final and initial scores, by masking strategy."""
    lines = [line for _, line in json_lines(result.folder / "metrics.jsonl")]
    evaluations = [line for line in lines if line and "evaluation" in line]
    before = {
        line["evaluation"]: line["masked_lm_accuracy"] for line in evaluations if line["step"] == 0
    }
    return {
        line["evaluation"]: HeldOutScore(
            before.get(line["evaluation"]),
            line["masked_lm_accuracy"],
            line["baseline_accuracy"],
            line["masked_lm_predictions"],
        )
        for line in evaluations
        if line["step"] == result.kept_step
    }


def _is_ours(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("recipe.toml", "corpus.json", ".partial"))


def _is_enough(corpus: Corpus) -> bool:
    """Return True if there is enough text both for evaluation and for training."""
    train, held_out = (corpus.info["totals"][split] for split in ("train", "held_out"))
    share = held_out["pieces"] / (train["pieces"] + held_out["pieces"])
    enough = 2 if corpus.info["options"]["documents"] == "blank" else 1
    fits = _LEAST_HELD_OUT <= share <= _MOST_HELD_OUT
    return bool(fits and train["documents"] >= enough)
