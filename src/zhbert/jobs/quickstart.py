"""The model in the box learns your text: the whole pipeline in some minutes, before and after.

zhbert quickstart                                (the sample text that ships with the package)
zhbert quickstart my.txt more.jsonl --out runs/mine
zhbert quickstart my.txt --from chinese-roberta-wwm-ext
zhbert quickstart my.txt --from scratch

Words and masks, a corpus of which a tenth is held out, training by the recipe 'quickstart' (from
scratch: 'quickstart-scratch'); masks filled and held-out accuracy, before and after. OUT is then a
run folder with a model folder in OUT/final; the corpus lies in OUT-corpus. Ctrl-C saves first;
--resume goes on. The exit code is 1 if the model is worse than the one that it began as (from
scratch: worse than always guessing the most frequent piece).
"""

from __future__ import annotations

import argparse
import math
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert import console, options, terminal
from zhbert.config import flatten, load_recipe, resolve_shape
from zhbert.data.account import describe
from zhbert.data.cloze import Cloze, held_out_clozes
from zhbert.data.first_look import FirstLook, first_look
from zhbert.data.mask_text import mask_text
from zhbert.data.prepare import prepare
from zhbert.data.shards import Corpus
from zhbert.errors import ZhbertError
from zhbert.files import advising, json_lines
from zhbert.folders import Claim
from zhbert.inference.fill import Filled, fill, open_mask_filler
from zhbert.jobs.mask import print_table
from zhbert.jobs.prepare import progress_bar
from zhbert.pretraining.result import PretrainingResult
from zhbert.pretraining.run import pretrain
from zhbert.runtime import processors
from zhbert.text.segmenters import load_segmenter
from zhbert.text.tokenizer import Tokenizer
from zhbert.train.cost import Workload
from zhbert.wording import counted, without_secrets
from zhbert.zoo import locate
from zhbert.zoo.packaged import DEFAULT

if TYPE_CHECKING:
    from zhbert.model.pretrained import BertForMaskedLM, BertForPreTraining

SAMPLE = Path(__file__).parent.parent / "assets" / "sample.txt"
SCRATCH = "scratch"

# A small text leaves few documents aside at the usual 1 %: too few to measure anything.
HELD_OUT = 0.1
# Where the documents are few and unlike in length, chance sets another share aside; within these
# bounds it will do.
_LEAST, _MOST = 0.03, 0.4

# How many masked sentences are shown.
SHOWN = 5

# More passes over a text than these only learn it by heart.
PASSES = 8
# From scratch it takes more of them; beyond these, short rows are learnt by heart, and fewer steps
# of long ones are better.
BY_HEART = 40
_OF_LITTLE = ("steps=400", "rows.warmup_share=[0.0]", "evaluate_every=100")
# The recipe's steps and learning rate are those of a model of this size: a larger one gets the
# steps that take as long on a CPU, and the lower rate that large models need.
_LIKE = Workload(
    hidden_size=256,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=1024,
    vocabulary_size=21128,
    sequence_length=128,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="*",
        help="text files or folders (default: the sample text of the package)",
    )
    parser.add_argument(
        "--from",
        dest="source",
        default=DEFAULT,
        metavar="MODEL",
        help="the model to go on with: a folder, an archive or a name (default: the one in "
        "the box, zhbert-mini); scratch: a new one",
    )
    parser.add_argument(
        "--out", default="runs/quickstart", metavar="RUN", help="the run folder to write"
    )
    parser.add_argument("--resume", action="store_true", help="go on where it was stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier quickstart")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="key=value",
        help="override a value of the recipe (may be repeated)",
    )
    options.add_reading_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run every stage and compare the model with what it was."""
    try:
        with advising("run it again with --resume"):
            return _Quickstart(args).go()
    except KeyboardInterrupt:
        console.err().print(_to_go_on())
        raise


def _to_go_on() -> str:
    again = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
    command = without_secrets(shlex.join(["zhbert", *again, "--resume"]))
    return f"stopped; nothing is lost; to go on: {command}"


@dataclass(frozen=True)
class HeldOutScore:
    """Held-out accuracies, 0 to 1, with masks of one kind."""

    before: float | None
    after: float
    baseline: float
    predictions: int

    @property
    def reference(self) -> float:
        """What the model has to be better than."""
        return self.baseline if self.before is None else self.before

    @property
    def better(self) -> bool:
        """Than the reference, by however little."""
        return self.after > self.reference

    @property
    def worse(self) -> bool:
        """By more than twice the chance of so few predictions."""
        p, q = self.after, self.reference
        return q - p > 2 * math.sqrt((p * (1 - p) + q * (1 - q)) / max(1, self.predictions))


_BeforeAndAfter = Sequence[tuple[Cloze, Filled, Filled]]


class _Quickstart:
    """The stages, one after another."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.begun = args, time.monotonic()
        self.silent = args.quiet or args.json
        folder = Path(args.out)
        self.folder = folder.resolve() if folder.name in ("", "..") else folder
        self.corpus_folder = Path(f"{self.folder}-corpus")
        self.scratch = args.source == SCRATCH
        self.recipe = "quickstart-scratch" if self.scratch else "quickstart"
        self.texts = args.text or [SAMPLE]
        self.model_folder: Path | None = None
        self.tokenizer = Tokenizer.default()

    def go(self) -> int:
        # What can be wrong with folders, recipe, text and model, before anything is done.
        self._check_folders()
        evaluation = load_recipe(self.recipe, self.args.overrides).evaluation
        if not evaluation.rows or "wwm" not in evaluation.strategies:
            raise ZhbertError(
                "--set evaluation...: nothing would be compared; leave evaluation.rows above 0 and "
                '"wwm" among evaluation.strategies'
            )
        look = first_look(self.texts, options.reading_of(self.args))
        model = None if self.scratch else self._open(look)
        if model is None:
            self._check_vocabulary(look)

        self._stage(1, "分词与掩码  words and masks")
        self._show_masks(look.sentence)
        self._stage(2, "文本 → 语料  text to corpus")
        corpus = self._corpus()
        overrides = [*self._plan(corpus, model), *self.args.overrides]
        self._stage(3, "训练前填空  masks filled before training")
        clozes = held_out_clozes(corpus, SHOWN)
        before = self._filled(model or self._untrained(corpus, overrides), clozes)
        self._show_filled(clozes, [before])
        self._stage(4, "训练  training")
        result = self._train(overrides)
        if result.signal:
            console.err().print(_to_go_on())
            return 128 + result.signal
        self._stage(5, "训练后填空  masks filled after training")
        assert result.final is not None
        after = self._filled(open_mask_filler(result.final)[0], clozes)
        self._show_filled(clozes, [before, after])
        scores = self._scores(result)
        self._tell(corpus, result, scores, list(zip(clozes, before, after, strict=True)))
        return 1 if scores["wwm"].worse else 0

    def _stage(self, number: int, title: str) -> None:
        if not self.silent:
            console.out().print(f"\n{number}/5  {title}", style="bold")
            # The stages' own progress is on stderr: keep the two in order in a log.
            sys.stdout.flush()

    # -- before anything is done -----------------------------------------------------------------

    def _check_folders(self) -> None:
        args = self.args
        if args.resume and args.overwrite:
            raise ZhbertError("--resume and --overwrite contradict each other: give one of them")
        needed = {f"text {name}": Path(name) for name in args.text}
        if not self.scratch and Path(args.source).exists():
            needed["model"] = Path(args.source)
        for place in (self.folder, self.corpus_folder):
            Claim(
                folder=place,
                what="an earlier quickstart",
                is_ours=_is_ours,
                overwrite=args.overwrite,
                goes_on=args.resume,
                ways="--resume goes on with it, ",
                needed=needed,
            ).check()

    def _open(self, look: FirstLook) -> BertForMaskedLM:
        """The model to go on with; the text is looked at before its weights are read."""
        self.model_folder = locate(self.args.source, quiet=self.silent)
        self.tokenizer = Tokenizer.from_pretrained(self.model_folder)
        self._check_vocabulary(look)
        with warnings.catch_warnings():
            # What it would warn of is refused here.
            warnings.simplefilter("ignore")
            model, _ = open_mask_filler(self.model_folder)
        if (head := model.loading.masked_words_head) not in ("trained", "unclear"):
            raise ZhbertError(
                f"{self.args.source}: its mask-filling head is {head}: a model that was "
                "fine-tuned, or an encoder alone; start from the model that it was made of"
            )
        return model

    def _check_vocabulary(self, look: FirstLook) -> None:
        model = DEFAULT if self.scratch else without_secrets(str(self.args.source))
        words = shlex.join(["zhbert", "vocab", "extend", model, "--from-text", *look.names])
        way_out = f"add them ({words} --out models/extended) and give --from models/extended"
        for note in look.check_vocabulary(self.tokenizer, way_out):
            if not self.silent:
                terminal.say(f"note: {note}")

    # -- the stages ------------------------------------------------------------------------------

    def _show_masks(self, sentence: str) -> None:
        if self.silent:
            return
        segmenter = load_segmenter("jieba")
        drawn = [mask_text(sentence, self.tokenizer, segmenter, seed=seed) for seed in range(9)]
        # Chance may mask nothing of a short sentence.
        masked = (one for one in drawn if all(masks.predicted for masks in one.masks.values()))
        print_table(next(masked, drawn[0]))

    def _corpus(self) -> Corpus:
        # A text without blank lines is one document, of which only the end is set aside: then each
        # line is one.
        if self.args.resume and (self.corpus_folder / "corpus.json").is_file():
            corpus = Corpus.open(self.corpus_folder)
            if corpus.fingerprint != self.tokenizer.fingerprint():
                raise ZhbertError(
                    f"{self.corpus_folder}: prepared with another vocabulary than that of "
                    f"{self.args.source}: give the --from that it was begun with, or --overwrite"
                )
            if _is_enough(corpus):
                return corpus
        for documents in ("blank", "line"):
            begun = time.perf_counter()
            with progress_bar(self.silent) as progress:
                report = prepare(
                    self.texts,
                    self.corpus_folder,
                    vocab=self.model_folder,
                    documents=documents,
                    field=self.args.field,
                    encoding=self.args.encoding,
                    held_out=HELD_OUT,
                    overwrite=True,
                    workers=processors(),
                    progress=progress,
                )
            corpus = Corpus.open(self.corpus_folder)
            if _is_enough(corpus):
                break
        else:
            pieces = report["read"]["pieces"]
            shutil.rmtree(self.corpus_folder)
            raise ZhbertError(
                f"{pieces['held_out']:,} of {pieces['encoded']:,} pieces fell to the part that is "
                "set aside to measure on, where a tenth should: the text has too few lines, or "
                "they are alike; give more text, or text of more lines"
            )
        if not self.silent:
            report["seconds"] = time.perf_counter() - begun
            console.out().print(describe(report), end="")
        return corpus

    def _plan(self, corpus: Corpus, model: BertForMaskedLM | None) -> list[str]:
        """What the recipe leaves open: where to start, and how long so much text is good for."""
        recipe, given = (load_recipe(self.recipe, more) for more in ((), self.args.overrides))
        rows = corpus.info["totals"]["train"]["pieces"] / recipe.sequence_length
        if model is None:
            little = recipe.steps * recipe.batch_size > BY_HEART * rows
            return list(_OF_LITTLE) if little else []
        size = Workload.of(
            model.config,
            vocabulary_size=model.config.vocab_size,
            sequence_length=recipe.sequence_length,
        )
        larger = max(1.0, size.operations() / _LIKE.operations())
        most = math.ceil(PASSES * rows / recipe.batch_size)
        steps = max(10, min(most, round(recipe.steps / larger)))
        if given.steps != recipe.steps:
            steps = given.steps
        rate = recipe.optimizer.learning_rate * min(1, _LIKE.hidden_size / size.hidden_size) ** 2
        return [
            f"initial_model={self.args.source}",
            f"steps={steps}",
            f"optimizer.warmup_steps={steps // 10}",
            f"optimizer.learning_rate={rate:.3g}",
            f"evaluate_every={max(1, steps // 4)}",
            f"checkpoint_every={max(1, steps // 4)}",
        ]

    def _train(self, overrides: Sequence[str]) -> PretrainingResult:
        return pretrain(
            self.recipe,
            self.corpus_folder,
            self.folder,
            overrides,
            resume=self.args.resume and (self.folder / "recipe.toml").is_file(),
            overwrite=self.args.overwrite,
            quiet=self.args.quiet,
        )

    def _untrained(self, corpus: Corpus, overrides: Sequence[str]) -> BertForPreTraining:
        """The very weights with which training from scratch begins."""
        from zhbert.model.config import BertConfig

        recipe = load_recipe(self.recipe, overrides)
        shape: dict[str, Any] = flatten(resolve_shape(recipe.model))
        from zhbert.pretraining.start import new_model

        return new_model(recipe, BertConfig(vocab_size=len(self.tokenizer), **shape), corpus)

    def _filled(
        self, model: BertForMaskedLM | BertForPreTraining, clozes: Sequence[Cloze]
    ) -> list[Filled]:
        return fill(model.eval(), self.tokenizer, [cloze.text for cloze in clozes])

    def _show_filled(self, clozes: Sequence[Cloze], rounds: Sequence[Sequence[Filled]]) -> None:
        if self.silent:
            return
        names = ("训练前 before", "训练后 after ")
        for number, cloze in enumerate(clozes):
            console.out().print(f"{cloze.text}   （{cloze.answer}）")
            for name, filled in zip(names, rounds, strict=False):
                best = "   ".join(
                    " ".join(f"{c.piece} {c.probability:.0%}" for c in mask.candidates[:3])
                    for mask in filled[number].masks
                )
                console.out().print(f"    {name}: {best}")

    # -- what came of it -------------------------------------------------------------------------

    def _scores(self, result: PretrainingResult) -> dict[str, HeldOutScore]:
        lines = [line for _, line in json_lines(result.folder / "metrics.jsonl")]
        evaluations = [line for line in lines if line and "evaluation" in line]
        before = {
            line["evaluation"]: line["masked_lm_accuracy"]
            for line in evaluations
            if line["step"] == 0
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

    def _tell(
        self,
        corpus: Corpus,
        result: PretrainingResult,
        scores: dict[str, HeldOutScore],
        filled: _BeforeAndAfter,
    ) -> None:
        seconds, score = time.monotonic() - self.begun, scores["wwm"]
        pieces = corpus.info["totals"]["train"]["pieces"]
        if self.args.json:
            figures = {"pieces": pieces, "seconds": seconds}
            console.print_json(self._as_dict(result, scores, filled) | figures)
        else:
            self._print_scores(scores)
            console.out().print(f"模型  model: {result.final}   ({seconds / 60:.1f} min)")
        if not score.better:
            what = "worse than" if score.worse else "no better than"
            reference = "always guessing the commonest piece" if self.scratch else "before"
            console.err().print(
                f"the model is {what} {reference}: {pieces:,} pieces of text, "
                f"{counted(result.step, 'step')} ({result.pieces / pieces:.1f} passes) in "
                f"{result.seconds / 60:.1f} minutes. {_WHAT_HELPS}",
                style="bold red" if score.worse else "bold",
            )
        elif filled and not self.silent:
            example = filled[0][0].text
            console.out().print(f'试一试  try: zhbert fill {result.final} "{example}"')

    def _as_dict(
        self, result: PretrainingResult, scores: dict[str, HeldOutScore], filled: _BeforeAndAfter
    ) -> dict[str, Any]:
        score = scores["wwm"]
        return {
            "model": str(result.final),
            "corpus": str(self.corpus_folder),
            "from": without_secrets(str(self.args.source)),
            "masked_lm_accuracy": score.after,
            "baseline_accuracy": score.baseline,
            "predictions": score.predictions,
            "better_than_baseline": score.after > score.baseline,
            "better": score.better,
            "accuracy": {name: vars(one) for name, one in scores.items()},
            "steps": result.step,
            "kept_step": result.kept_step,
            "pieces_trained": result.pieces,
            "filled": [
                {
                    "text": cloze.text,
                    "answer": cloze.answer,
                    "before": before.filled,
                    "after": after.filled,
                }
                for cloze, before, after in filled
            ],
        }

    def _print_scores(self, scores: dict[str, HeldOutScore]) -> None:
        names = {"wwm": "全词掩码 whole words", "char": "字掩码   characters"}
        table = console.table("masks", ">before", ">after", ">commonest piece", ">predictions")
        for name, one in sorted(scores.items(), reverse=True):
            before = "-" if one.before is None else f"{one.before:.2%}"
            figures = (before, f"{one.after:.2%}", f"{one.baseline:.2%}", f"{one.predictions:,}")
            table.add_row(names.get(name, name), *figures)
        console.out().print("\n保留文本上的掩码准确率  held-out masked accuracy")
        console.out().print(table)


_WHAT_HELPS = (
    "More text helps most, then more minutes (--set steps=...) or a GPU. By docs/results.md, 0.2 "
    "MB of prose brought 2 points in 2 CPU-minutes; from scratch, 1.5 MB of statutes came to 36 % "
    "in 8, and 160 MB to 46 % in 6 minutes of a GPU"
)


def _is_ours(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("recipe.toml", "corpus.json", ".partial"))


def _is_enough(corpus: Corpus) -> bool:
    """Is there something to measure on, and something to learn from?"""
    train, held_out = (corpus.info["totals"][split] for split in ("train", "held_out"))
    share = held_out["pieces"] / (train["pieces"] + held_out["pieces"])
    enough = 2 if corpus.info["options"]["documents"] == "blank" else 1
    return bool(_LEAST <= share <= _MOST and train["documents"] >= enough)
