"""Train a masked language model by a recipe.

  zhbert pretrain tiny --corpus corpus --out runs/tiny
  zhbert pretrain tiny --corpus corpus --out runs/tiny --resume
  zhbert pretrain tiny --corpus corpus --out runs/x steps=500 masking.strategy=char
  torchrun --nproc-per-node 2 -m zhbert pretrain tiny --corpus corpus --out runs/tiny

OUT gets recipe.toml (with every value), provenance.json, metrics.jsonl, checkpoints/, and final/,
a model folder that transformers opens. Ctrl-C saves first; --resume goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.config import (
    ModelShape,
    Recipe,
    check_shape,
    flatten,
    load_recipe,
    parse_recipe,
    recipe_path,
    recipe_to_toml,
    resolve_shape,
)
from zhbert.data.remarks import on_rows, on_text
from zhbert.errors import ZhbertError
from zhbert.files import advising
from zhbert.model.folder import check_corpus_vocabulary, other_vocabulary
from zhbert.options import add_recipe_arguments
from zhbert.runs.folder import RunFolder, changed_settings
from zhbert.runs.provenance import provenance, read_provenance
from zhbert.runtime import (
    choose_device,
    choose_dtype,
    prepare_threads,
    total_memory,
)
from zhbert.train.cost import (
    BYTES_PER_PARAMETER,
    Hardware,
    Workload,
    compile_if_worth_it,
    micro_batch_rows,
)
from zhbert.wording import counted, without_secrets

if TYPE_CHECKING:
    from zhbert.data.loader import GrowingRows, MaskedBatch, PretrainingLoader
    from zhbert.data.shards import Corpus
    from zhbert.model.loss import CandidateSampler
    from zhbert.model.pretrained import BertForPreTraining
    from zhbert.text.tokenizer import Tokenizer
    from zhbert.train.checkpoint import Checkpoints, KeepBest, TrainingCheckpoint
    from zhbert.train.distributed import Ranks
    from zhbert.train.log import MetricsFile, Sink
    from zhbert.train.loop import EvaluationSet, Outcome, TrainState
    from zhbert.train.optim import AdamW, Lamb

# A run may change these and still go on from its checkpoint: they do not decide what was computed
# so far. More steps stretch a schedule that ends with the run, and that is said.
FREE_ON_RESUME = {
    "steps", "micro_batch_size", "precision", "compile", "keep_checkpoints", "checkpoint_every",
    "evaluate_every", "threads", "evaluation.rows", "evaluation.strategies",
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    folder: Path
    step: int
    pieces: int
    seconds: float
    """Time in training steps, over all resumptions."""
    signal: int | None
    """SIGINT, SIGTERM or SIGHUP where one ended the run early; its state is saved."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """The last evaluation, one entry for each masking strategy."""
    dropped_share: float = 0.0
    """Of the pieces read since the run was begun or resumed: cut off to make pairs fit."""
    kept_step: int = 0
    """The step whose weights the run's model has: the last, or with ``keep_best`` the best."""

    @property
    def final(self) -> Path | None:
        """The model folder, once the run is complete."""
        return None if self.signal else self.folder / "final"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument("--corpus", required=True, metavar="DIR", help="what 'zhbert prepare' made")
    parser.add_argument("--out", required=True, metavar="RUN", help="the run folder to write")
    parser.add_argument("--resume", action="store_true", help="go on from RUN's newest checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="remove an existing RUN first")
    parser.add_argument("--tensorboard", action="store_true", help="write RUN/tensorboard too")


def run(args: argparse.Namespace) -> int:
    """Do what the command line says."""
    from zhbert import console

    rank = int(os.environ.get("RANK", "0"))
    try:
        result = pretrain(
            args.recipe,
            args.corpus,
            args.out,
            args.overrides,
            resume=args.resume,
            overwrite=args.overwrite,
            tensorboard=args.tensorboard,
            quiet=args.quiet,
        )
    except ZhbertError as error:
        if rank:
            raise ZhbertError(f"process {rank}: {error}") from None
        raise
    if rank == 0:
        if args.json:
            values = {**dataclasses.asdict(result), "folder": str(result.folder)}
            console.print_json({**values, "final": str(result.final) if result.final else None})
        elif result.final:
            sys.stdout.write(f"{result.final}\n")
        if result.signal:
            again = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
            processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            launcher = ["zhbert"]
            if processes > 1:
                launcher = ["torchrun", "--nproc-per-node", str(processes), "-m", "zhbert"]
            command = without_secrets(shlex.join([*launcher, *again, "--resume"]))
            sys.stderr.write(f"saved at step {result.step}; to go on: {command}\n")
    return 128 + result.signal if result.signal else 0


def pretrain(
    recipe: str | os.PathLike[str] | Recipe,
    corpus: str | os.PathLike[str],
    out: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    quiet: bool = True,
) -> Result:
    """Train by ``recipe`` on the corpus folder ``corpus`` and write the run folder ``out``.

    Args:
        recipe: a recipe's name or path, or a Recipe.
        corpus: what ``prepare`` made.
        out: the run folder; it must not exist yet, but for ``resume`` or ``overwrite``.
        overrides: ``key=value`` texts.
        resume: go on from the newest complete checkpoint in ``out``.
        overwrite: remove ``out`` first, if it is a run folder.
        tensorboard: write event files to ``out/tensorboard``.
        quiet: no progress on stderr.

    Raises:
        ZhbertError: anything that is wrong with the recipe, the corpus or the folders; a loss that
            is not finite.
    """
    if resume and overwrite:
        raise ZhbertError("--resume and --overwrite contradict each other: give one of them")
    folder = Path(out)
    # Before the second it takes to import torch: what can be wrong with folders and recipes.
    run_folder = RunFolder(
        path=folder,
        what="a run folder",
        settings_file="recipe.toml",
        overwrite=overwrite,
        goes_on=resume,
        ways="--resume goes on with it, ",
    )
    _check_run_folder(run_folder)
    # A run remembers the overrides that it was begun with: --resume need not repeat them.
    every = [*(read_provenance(folder).get("overrides", []) if resume else []), *overrides]
    if isinstance(recipe, Recipe):
        where = "recipe"
        settings = parse_recipe(_nested(recipe), every)
    else:
        where = recipe_path(recipe).name
        settings = load_recipe(recipe, every)

    from zhbert.data.shards import Corpus

    # One of several processes says that it lacks the corpus when all have joined: those that wait
    # for it to join would not hear of it.
    opened = None if "RANK" in os.environ else Corpus.open(Path(corpus))

    from zhbert.train.distributed import process_group

    with process_group(choose_device) as ranks, ExitStack() as held:
        return _Job(
            settings,
            where,
            opened or Corpus.open(Path(corpus)),
            run_folder,
            ranks,
            overrides=list(dict.fromkeys(every)),
            tensorboard=tensorboard,
            quiet=quiet,
            held=held,
        ).go()


@dataclass
class _Start:
    """Where the run begins: its shape, its model, and what is done already."""

    shape: ModelShape
    model: BertForPreTraining
    checkpoint: TrainingCheckpoint | None
    at: TrainState
    first_step: int


@dataclass(frozen=True)
class _Stage:
    """Steps of short rows."""

    end: int
    """The step at which they end, counted from the run's first."""
    length: int
    """Pieces of a row at most."""
    rows: int
    """Rows of a step."""
    times: int
    """How many of them there are for each later row."""


class _Job:
    """The wiring of one run."""

    def __init__(
        self,
        recipe: Recipe,
        where: str,
        corpus: Corpus,
        run_folder: RunFolder,
        ranks: Ranks,
        *,
        overrides: list[str],
        tensorboard: bool,
        quiet: bool,
        held: ExitStack,
    ) -> None:
        self.recipe, self.where, self.ranks = recipe, where, ranks
        self.run_folder, self.folder = run_folder, run_folder.path
        self.resume, self.overwrite = run_folder.goes_on, run_folder.overwrite
        self.overrides, self.tensorboard, self.held = overrides, tensorboard, held
        self.quiet = quiet or not ranks.first
        self.threads = prepare_threads(recipe.threads)
        self.dtype = choose_dtype(recipe.precision, ranks.device)
        self.corpus = corpus
        self.tokenizer: Tokenizer = corpus.tokenizer()

    def say(self, line: str) -> None:
        """A remark on stderr, from the first process only."""
        if not self.quiet:
            from zhbert import console

            console.say(line)

    def go(self) -> Result:
        from zhbert.model.names import current_names
        from zhbert.pretraining import objective
        from zhbert.train.checkpoint import load_model_state
        from zhbert.train.log import TensorBoard
        from zhbert.train.loop import LoopSettings, NotFiniteError, Trainer
        from zhbert.train.optim import schedule
        from zhbert.train.signals import write_notice

        recipe, ranks = self.recipe, self.ranks
        self.run_folder = dataclasses.replace(self.run_folder, needed=self._needed())
        _check_run_folder(self.run_folder)
        if self.tensorboard:
            TensorBoard.check()
        begun = self._begin()
        model = begun.model
        last_step = begun.first_step + recipe.steps
        self._warn(last_step)
        micro_rows = self._micro_batch_rows(begun)
        loader = self._loader(micro_rows, begun.at.step - begun.first_step)
        evaluations = self._evaluations(micro_rows)
        if recipe.rows.builder != "pairs":
            # Nothing trains them, and DDP waits for the gradient of every trained parameter.
            model.pooler.requires_grad_(False)
            model.nsp_head.requires_grad_(False)
        model.to(ranks.device)
        optimizer = self._optimizer(begun)
        self._compile(model, begun.shape)
        self._describe(model, loader, begun, last_step, micro_rows)

        ranks.on_first(lambda: self._open_run(begun))
        instead = " in place of --overwrite" if self.overwrite else ""
        self.held.enter_context(advising(f"run the same command again with --resume{instead}"))
        metrics, sinks = self._sinks(begun, last_step)
        evaluated = ranks.on_first(lambda: metrics.evaluated if metrics else frozenset())
        best = self._best(begun, len(evaluations)) if recipe.evaluation.keep_best else None
        sinks += [best] if best else []
        measures_start = recipe.evaluation.keep_best and bool(recipe.initial_model)
        checkpoints = self._checkpoints()
        options = recipe.optimizer
        try:
            outcome: Outcome = Trainer(
                model,
                objective.PretrainingObjective(self._sampler()),
                source=lambda step: loader.steps(step - begun.first_step),
                optimizer=optimizer,
                schedule=schedule(
                    options.schedule,
                    options.learning_rate,
                    options.warmup_steps,
                    options.schedule_steps or last_step,
                ),
                settings=LoopSettings(
                    last_step=last_step,
                    seed=recipe.seed,
                    dtype=self.dtype,
                    clip_norm=options.clip_norm,
                    checkpoint_every=recipe.checkpoint_every,
                    evaluate_every=recipe.evaluate_every,
                ),
                save=self._saver(begun, optimizer, metrics, checkpoints, micro_rows),
                sinks=sinks,
                evaluations=evaluations,
                ranks=ranks,
                start=begun.at,
                evaluated=evaluated if begun.checkpoint or measures_start else None,
                notice=write_notice if ranks.first else lambda line: None,
            ).train()
        except NotFiniteError as error:
            raise ZhbertError(f"{error}; {self._way_out(checkpoints.steps())}") from None
        finally:
            for sink in sinks:
                sink.close()
        kept, judged = outcome.step, outcome.evaluations
        if ranks.first and not outcome.signal:
            if best and (found := best.best()):
                kept, judged = found.step, found.info["evaluations"]
                load_model_state(model, current_names(found.tensors("model")), found.path)
                if kept < outcome.step:
                    self.say(f"the run's model is that of step {kept}: its held-out loss is lowest")
            self._write_final(model)
        made, dropped = ranks.sum([loader.made_pieces, loader.dropped_pieces])
        share = dropped / max(1.0, made + dropped)
        if dropped:
            self.say(f"{share:.2%} of the pieces were cut off to make pairs fit their rows")
        return Result(
            self.folder,
            outcome.step,
            outcome.pieces,
            outcome.seconds,
            outcome.signal,
            judged,
            share,
            kept,
        )

    def _optimizer(self, begun: _Start) -> AdamW | Lamb:
        """The recipe's optimiser, in every process with the state that the run goes on from."""
        from zhbert.model.names import current_names
        from zhbert.train.optim import OPTIMIZERS

        options, ranks = self.recipe.optimizer, self.ranks
        own: dict[str, Any] = {}
        if options.name == "muon":
            own = {
                "matrices": begun.model.hidden_matrices(),
                "momentum": options.momentum,
                "dtype": self.dtype,
            }
        optimizer = OPTIMIZERS[options.name](
            begun.model.named_parameters(),
            weight_decay=options.weight_decay,
            beta1=options.beta1,
            beta2=options.beta2,
            epsilon=options.epsilon,
            **own,
        )
        if begun.checkpoint is not None:
            if ranks.first:
                optimizer.load_state_dict(current_names(begun.checkpoint.tensors("optimizer")))
            state = optimizer.state_dict()
            ranks.broadcast([value for name, value in state.items() if name != "steps"])
            optimizer.steps = int(ranks.sum([optimizer.steps if ranks.first else 0])[0])
        return optimizer

    def _sinks(self, begun: _Start, last_step: int) -> tuple[MetricsFile | None, list[Sink]]:
        """What the first process writes its lines to, metrics.jsonl first."""
        from zhbert.train.log import MetricsFile, Progress, TensorBoard

        if not self.ranks.first:
            return None, []
        after = begun.at.step if self.resume else None
        metrics = MetricsFile(self.folder / "metrics.jsonl", after, self.say)
        sinks: list[Sink] = [metrics]
        if self.tensorboard:
            sinks.append(TensorBoard(self.folder / "tensorboard", after))
        if not self.quiet:
            sinks.append(Progress(sys.stderr, begun.at.step, last_step))
        return metrics, sinks

    def _best(self, begun: _Start, evaluations: int) -> KeepBest | None:
        """What keeps the best weights, in the first process."""
        from zhbert.train.checkpoint import KeepBest

        if not (self.ranks.first and evaluations):
            return None
        return KeepBest(self.folder / "best", begun.model, evaluations, begun.at.step)

    def _saver(
        self,
        begun: _Start,
        optimizer: AdamW | Lamb,
        metrics: MetricsFile | None,
        checkpoints: Checkpoints,
        micro_rows: int,
    ) -> Callable[[TrainState], None]:
        """What writes a checkpoint, in the process that has the metrics."""
        from zhbert.train.checkpoint import model_state

        info = {
            "first_step": begun.first_step,
            "optimizer": self.recipe.optimizer.name,
            "vocabulary": self.corpus.fingerprint,
            "corpus": self._corpus_hash(),
            "shape": flatten(begun.shape),
            # Where memory chose it: sums in another order differ by rounding.
            "micro_batch_rows": 0 if self.recipe.micro_batch_size else micro_rows,
        }

        def save(at: TrainState) -> None:
            if metrics is None:
                return
            # Those too that no row has come from: all of them decided which rows there are.
            for shard in self.corpus.shards("train"):
                shard.verify()
            metrics.sync()
            groups = {"model": model_state(begun.model), "optimizer": optimizer.state_dict()}
            checkpoints.save(at.step, groups, {**info, **dataclasses.asdict(at)})

        return save

    # -- where the run starts ------------------------------------------------------------------

    def _begin(self) -> _Start:
        from zhbert.pretraining import objective

        if self.resume and (resumed := self._begin_resumed()):
            return resumed
        if self.recipe.continue_from:
            return self._begin_next_phase()
        from zhbert.model.config import BertConfig
        from zhbert.model.pretrained import BertForPreTraining
        from zhbert.train.loop import TrainState

        recipe = self.recipe
        if not recipe.initial_model:
            shape = resolve_shape(recipe.model)
            model = objective.new_model(recipe, self._config(shape), self.corpus)
            return _Start(shape, model, None, TrainState(), 0)
        source = self._initial_folder(recipe.initial_model)
        check_corpus_vocabulary(source, self.corpus, self.say)
        config = BertConfig.from_pretrained(source)
        shape = resolve_shape(recipe.model, config.to_dict())
        check_shape(shape, recipe.sequence_length, self.where)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = BertForPreTraining.from_pretrained(
                source, num_hidden_layers=shape.num_hidden_layers, seed=recipe.seed
            )
        for warning in caught:
            self.say(f"note: {warning.message}")
        if shape.num_hidden_layers != config.num_hidden_layers:
            self.say(f"{source}: only its first {counted(model.config.num_hidden_layers, 'layer')}")
        self._set_dropout(model, shape)
        return _Start(shape, model, None, TrainState(), 0)

    def _needed(self) -> dict[str, Path]:
        """What the run is made from, where it is a file or a folder here."""
        recipe = self.recipe
        named = {"initial model": recipe.initial_model, "earlier phase": recipe.continue_from}
        there = {what: Path(name) for what, name in named.items() if name and Path(name).exists()}
        return {"corpus": self.corpus.folder, **there}

    def _initial_folder(self, name: str) -> Path:
        """The folder of the model to start from: a folder, or fetched by its name."""
        from zhbert.zoo import locate
        from zhbert.zoo.catalogue import find_card

        path = Path(name)
        where = f"{self.where}: initial_model = {name}"
        if (path / "final").is_dir() and not (path / "config.json").is_file():
            raise ZhbertError(
                f"{where}: a run folder; its model is initial_model={path / 'final'} (to go on as "
                f"its next phase: continue_from={path})"
            )
        card = find_card(path.name)
        if card is not None and not path.exists() and find_card(name) is None:
            # models/rbt3 has the form of a hub's id, but is meant as a folder.
            raise ZhbertError(
                f"{where}: no such folder; 'zhbert download {card.name} --out {name}' makes it, or "
                f"take the model by its name: initial_model={card.name}"
            )
        try:
            # One rank fetches it, the others find it.
            self.ranks.on_first(lambda: locate(name, quiet=self.quiet))
            return locate(name)
        except ZhbertError as error:
            raise ZhbertError(
                f"{where}: {error} (or give another, initial_model=MODEL, or start from random "
                "weights, initial_model=)"
            ) from None

    def _begin_resumed(self) -> _Start | None:
        """Where the newest checkpoint is; None: the run ended before its first one."""
        former = load_recipe(self.folder / "recipe.toml")
        changed = self._changes(former)
        checkpoint = self._newest(self.folder)
        if checkpoint is None:
            self.say(f"{self.folder}: no complete checkpoint: the run begins anew")
            return None
        if checkpoint.info.get("corpus") != self._corpus_hash():
            raise ZhbertError(
                f"{self.corpus.folder}: not the corpus that {self.folder} was trained on; give "
                "that one, or start another run"
            )
        start = self._from_checkpoint(former.model, checkpoint, int(checkpoint.info["first_step"]))
        self.say(f"resuming {self.folder} from step {start.at.step}")
        for line in changed:
            self.say(f"changed: {line}")
        last_step = start.first_step + self.recipe.steps
        if start.at.step > last_step:
            raise ZhbertError(
                f"{self.folder} is at step {start.at.step} already, beyond "
                f"steps = {self.recipe.steps}"
            )
        return start

    def _begin_next_phase(self) -> _Start:
        earlier = Path(self.recipe.continue_from)
        recipe = self.recipe
        if not (earlier / "recipe.toml").is_file():
            raise ZhbertError(
                f"{self.where}: continue_from = {recipe.continue_from}: not a run folder; give the "
                "run folder of the earlier phase (continue_from=RUN)"
            )
        former = load_recipe(earlier / "recipe.toml")
        checkpoint = self._newest(earlier)
        if checkpoint is None:
            raise ZhbertError(
                f"{self.where}: continue_from = {recipe.continue_from}: no complete checkpoint in "
                "it; train it first"
            )
        theirs = checkpoint.info
        if theirs.get("vocabulary") != self.corpus.fingerprint:
            raise other_vocabulary(
                self.corpus, str(earlier), str(theirs.get("vocabulary")), None, earlier / "final"
            )
        if theirs.get("optimizer") != recipe.optimizer.name:
            raise ZhbertError(
                f"{self.where}: optimizer.name = {recipe.optimizer.name}: {earlier} was trained "
                f"with {theirs.get('optimizer')}, whose state goes on; to start afresh from its "
                f"weights, use initial_model={earlier / 'final'}"
            )
        shape = resolve_shape(recipe.model, flatten(former.model))
        check_shape(shape, recipe.sequence_length, self.where)
        if checkpoint.step < int(theirs["first_step"]) + former.steps:
            self.say(
                f"note: {earlier} ended early, at step {checkpoint.step} of "
                f"{int(theirs['first_step']) + former.steps}"
            )
        self.say(f"continuing {earlier} from step {checkpoint.step}: model, optimiser and schedule")
        return self._from_checkpoint(shape, checkpoint, checkpoint.step)

    def _from_checkpoint(
        self, shape: ModelShape, checkpoint: TrainingCheckpoint, first_step: int
    ) -> _Start:
        from zhbert.model.names import current_names
        from zhbert.model.pretrained import BertForPreTraining
        from zhbert.train.checkpoint import load_model_state
        from zhbert.train.loop import TrainState

        info = checkpoint.info
        model = BertForPreTraining(self._config(shape), seed=self.recipe.seed)
        # The other processes get the first one's weights when DDP is set up.
        if self.ranks.first:
            load_model_state(model, current_names(checkpoint.tensors("model")), checkpoint.path)
        at = TrainState(checkpoint.step, int(info["pieces"]), float(info["seconds"]))
        return _Start(shape, model, checkpoint, at, first_step)

    def _newest(self, run_folder: Path) -> TrainingCheckpoint | None:
        from zhbert.train.checkpoint import Checkpoints

        checkpoints = Checkpoints(run_folder / "checkpoints", say=self.say)
        return self.ranks.on_first(checkpoints.newest)

    def _changes(self, former: Recipe) -> list[str]:
        """What differs from the run's own recipe and may; ZhbertError for what may not."""
        mine = dataclasses.replace(
            self.recipe, initial_model=without_secrets(self.recipe.initial_model)
        )
        lines = []
        for key, (value, was) in changed_settings(mine, former).items():
            # An unset key of [model] means what the run was resolved to.
            if key.startswith("model.") and value is None:
                continue
            if key not in FREE_ON_RESUME:
                along = f"continue_from={self.folder} takes this one's state along"
                if key == "optimizer.name":  # whose state another one can't go on with
                    along = f"initial_model={self.folder / 'final'} takes its weights along"
                raise ZhbertError(
                    f"--resume: {key} = {value!r}, but {self.folder} was begun with "
                    f"{was!r}; change it back, or begin a new run ({along})"
                )
            stretched = key == "steps" and not former.optimizer.schedule_steps
            stretched = stretched and former.optimizer.schedule != "constant"
            more = ": the learning rate now falls to zero at the new end" if stretched else ""
            lines.append(f"{key} = {value!r} (was {was!r}){more}")
        return lines

    # -- checks --------------------------------------------------------------------------------

    def _warn(self, last_step: int) -> None:
        options = self.recipe.optimizer
        if options.warmup_steps > last_step:
            self.say(
                f"warning: optimizer.warmup_steps = {options.warmup_steps} is longer than the "
                f"run's {last_step} steps: the learning rate never reaches its peak"
            )
        if 0 < options.schedule_steps < last_step and options.schedule != "constant":
            self.say(
                f"warning: optimizer.schedule_steps = {options.schedule_steps}, but the run ends "
                f"at step {last_step}: from there on the learning rate is zero"
            )

    # -- parts ---------------------------------------------------------------------------------

    def _config(self, shape: ModelShape) -> Any:
        from zhbert.model.config import BertConfig, count_parameters_by_part

        config = BertConfig(
            vocab_size=self.corpus.vocabulary_size,
            pad_token_id=self.tokenizer.pad_id,
            **flatten(shape),
        )
        parameters = sum(count_parameters_by_part(config).values())
        needed, memory = parameters * BYTES_PER_PARAMETER, total_memory(self.ranks.device)
        if needed > memory:
            raise ZhbertError(
                f"{self.where}: a model of {parameters:,} parameters takes {needed / 2**30:,.0f} "
                f"GiB to train, and there are {memory / 2**30:,.0f}; choose a smaller [model]"
            )
        return config

    def _set_dropout(self, model: BertForPreTraining, shape: ModelShape) -> None:
        """A loaded model with the recipe's dropout instead of its own."""
        from zhbert.model.pretrained import BertForPreTraining

        assert shape.hidden_dropout_prob is not None
        assert shape.attention_probs_dropout_prob is not None
        config = model.config
        wanted = (shape.hidden_dropout_prob, shape.attention_probs_dropout_prob)
        if wanted == (config.hidden_dropout_prob, config.attention_probs_dropout_prob):
            return
        config.hidden_dropout_prob, config.attention_probs_dropout_prob = wanted
        # The layers read their rates when they are built.
        fresh = BertForPreTraining(config)
        for name, module in model.named_modules():
            if hasattr(module, "rate"):
                module.rate = fresh.get_submodule(name).rate

    def _micro_batch_rows(self, begun: _Start) -> int:
        recipe, ranks = self.recipe, self.ranks
        rows = -(-recipe.batch_size // ranks.world_size)
        if recipe.micro_batch_size:
            return min(recipe.micro_batch_size, rows)
        hardware = Hardware.of(ranks.device, self.dtype, ranks.world_size)
        most = micro_batch_rows(rows, self._work(begun.shape), hardware)
        # A run that goes on on another machine stays the same to the bit, if that has the memory.
        info = begun.checkpoint.info if self.resume and begun.checkpoint else {}
        return min(info.get("micro_batch_rows") or most, most)

    def _loader(self, micro_rows: int, done: int) -> GrowingRows:
        """What the run's steps after ``done`` ones are made of."""
        from zhbert.data.loader import GrowingRows

        recipe = self.recipe
        short = [
            (stage.end, self._loader_of(stage.length, stage.rows, stage.times * micro_rows))
            for stage in self._stages()
            if done < stage.end
        ]
        last = self._loader_of(recipe.sequence_length, recipe.batch_size, micro_rows)
        return GrowingRows(short, last)

    def _stages(self) -> list[_Stage]:
        """The stages of short rows, with as many pieces a step as later."""
        recipe, rows = self.recipe, self.recipe.rows
        stages: list[_Stage] = []
        share = 0.0
        for length, part in zip(rows.warmup_length, rows.warmup_share, strict=True):
            share += part
            times = recipe.sequence_length // length
            if times > 1 and not recipe.continue_from and (end := int(recipe.steps * share)):
                stages.append(_Stage(end, length, times * recipe.batch_size, times))
        return stages

    def _loader_of(
        self, sequence_length: int, batch_size: int, micro_batch_size: int
    ) -> PretrainingLoader:
        from zhbert.data.examples import make_rows
        from zhbert.data.loader import PretrainingLoader
        from zhbert.data.masking import Masker

        recipe = self.recipe
        masker = Masker(recipe.masking, self.tokenizer.vocabulary)
        rows = make_rows(
            recipe.rows.builder,
            self.corpus.shards("train"),
            cls_id=masker.vocabulary.cls_id,
            sep_id=masker.vocabulary.sep_id,
            sequence_length=sequence_length,
            seed=recipe.seed,
            short_row_probability=recipe.rows.short_row_probability,
        )
        return PretrainingLoader(
            rows,
            masker,
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            seed=recipe.seed,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            total_steps=recipe.steps,
        )

    def _evaluations(self, micro_rows: int) -> list[EvaluationSet[MaskedBatch]]:
        from zhbert.data.evaluation import held_out_rows
        from zhbert.pretraining import objective

        recipe = self.recipe
        wanted = recipe.evaluation
        masked = held_out_rows(
            self.corpus,
            self.tokenizer.vocabulary,
            wanted,
            builder=recipe.rows.builder,
            sequence_length=recipe.sequence_length,
            batch_size=micro_rows,
        )
        if wanted.rows and wanted.strategies and not masked:
            self.say(
                f"{self.corpus.folder}: no held-out documents: evaluation is skipped (prepare it "
                "again with --held-out 0.01 --overwrite to have some)"
            )
        return objective.evaluations_of(masked)

    def _sampler(self) -> CandidateSampler | None:
        """What chooses the pieces that a step's softmax is over; None: it is over all."""
        from zhbert.model.loss import CandidateSampler

        softmax = self.recipe.softmax
        if not 0 < softmax.frequent < self.corpus.vocabulary_size:
            return None
        return CandidateSampler(self.corpus.piece_counts, softmax.frequent, softmax.sampled)

    def _compile(self, model: BertForPreTraining, shape: ModelShape) -> None:
        recipe = self.recipe
        pieces = recipe.steps * recipe.batch_size * recipe.sequence_length
        compile_if_worth_it(
            model,
            recipe.compile,
            steps=recipe.steps,
            operations=self._work(shape).operations() * pieces,
            on_cpu=self.ranks.device.type == "cpu",
            say=self.say,
        )

    def _work(self, shape: ModelShape) -> Workload:
        return Workload.of_recipe(self.recipe, shape, self.corpus.vocabulary_size)

    def _checkpoints(self) -> Checkpoints:
        from zhbert.train.checkpoint import Checkpoints

        return Checkpoints(
            self.folder / "checkpoints", keep=self.recipe.keep_checkpoints, say=self.say
        )

    def _corpus_hash(self) -> str:
        return hashlib.sha256(json.dumps(self.corpus.info, sort_keys=True).encode()).hexdigest()

    # -- what is written and said --------------------------------------------------------------

    def _open_run(self, begun: _Start) -> None:
        """Make the run folder, now that everything it needs is there."""
        self.held.enter_context(self.run_folder.held())
        origin = {
            **provenance(self.ranks.device, self.dtype, self.ranks.world_size),
            "recipe": self.where,
            "overrides": [without_secrets(one) for one in self.overrides],
            "corpus": str(self.corpus.folder.resolve()),
            "corpus_vocabulary": self.corpus.fingerprint,
            "from_step": begun.at.step,
        }
        if self.resume:
            self._checkpoints().forget_after(begun.at.step)
        resolved = dataclasses.replace(self.recipe, model=begun.shape)
        self.run_folder.begin(recipe_to_toml(resolved), origin, "overrides")

    def _way_out(self, kept: list[int]) -> str:
        """What to do about a loss that is no number, given the steps that have a checkpoint."""
        gently = "a lower optimizer.learning_rate or a longer optimizer.warmup_steps"
        if not kept:
            return f"nothing was saved yet; begin again with {gently}, and --overwrite"
        return (
            f"the checkpoint of step {kept[-1]} is kept; begin a run in another --out from it, "
            f"continue_from={self.folder}, with {gently}"
        )

    def _write_final(self, model: BertForPreTraining) -> None:
        from zhbert.files import atomic_folder

        positions = model.config.max_position_embeddings
        with atomic_folder(self.folder / "final") as temporary:
            model.save_pretrained(temporary)
            self.tokenizer.save_pretrained(temporary, model_max_length=positions)

    def _describe(
        self,
        model: BertForPreTraining,
        loader: GrowingRows,
        begun: _Start,
        last_step: int,
        micro_rows: int,
    ) -> None:
        if self.quiet:
            return
        recipe, ranks, shape = self.recipe, self.ranks, begun.shape
        parameters = sum(p.numel() for p in model.parameters())
        self.say(
            f"model: {counted(model.config.num_hidden_layers, 'layer')} x {shape.hidden_size}, "
            f"{parameters:,} parameters; {ranks.device}, {str(self.dtype).removeprefix('torch.')}"
            + (f", {counted(self.threads, 'thread')}" if ranks.device.type == "cpu" else "")
            + (f", {ranks.world_size} processes" if ranks.world_size > 1 else "")
        )
        rows, random = loader.rows_per_epoch, loader.random_share
        epochs = recipe.steps * recipe.batch_size / rows
        self.say(
            f"data: {counted(rows, 'row')} an epoch ({recipe.rows.builder}"
            + ("" if random is None else f": {1 - random:.0%} next, {random:.0%} random")
            + f", {recipe.masking.strategy} masks); steps {begun.at.step + 1} to {last_step} x "
            f"{counted(recipe.batch_size, 'row')} of up to {recipe.sequence_length} pieces = "
            f"{epochs:.3g} epochs"
            + (f"; micro-batches of {micro_rows}" if micro_rows < recipe.batch_size else "")
        )
        info = self.corpus.info
        for remark in (
            *on_text(info),
            *on_rows(info, recipe.rows.builder, rows, recipe.batch_size),
        ):
            self.say(f"note: {remark}")
        for stage in self._stages():
            if begun.at.step - begun.first_step < stage.end:
                self.say(
                    f"warm-up: until step {begun.first_step + stage.end:,}, {stage.rows} rows of "
                    f"up to {stage.length} pieces a step"
                )


def _check_run_folder(folder: RunFolder) -> None:
    # Of several processes the first one makes the folder, perhaps before the others look.
    if not folder.goes_on and int(os.environ.get("RANK", "0")):
        return
    folder.check()
    if folder.goes_on and not folder.continued:
        raise ZhbertError(
            f"--resume: {folder.path}: no run to go on with; leave --resume away to begin one"
        )


def _nested(recipe: Recipe) -> dict[str, Any]:
    """A Recipe as the table that ``parse_recipe`` reads: unset keys left out."""
    return dataclasses.asdict(
        recipe,
        dict_factory=lambda pairs: {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in pairs
            if value is not None
        },
    )


__all__ = ["Result", "add_arguments", "pretrain", "run"]
