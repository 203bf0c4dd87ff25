"""A pretraining run, from its first check to its final model."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch

from zhbert.config import Recipe
from zhbert.data.evaluation import held_out_rows
from zhbert.data.loader import GrowingRows, MaskedBatch
from zhbert.errors import ZhbertError
from zhbert.files import advising
from zhbert.model.names import current_names
from zhbert.model.pretrained import BertForPreTraining
from zhbert.pretraining import objective
from zhbert.pretraining.cached_labels import cached_labels
from zhbert.pretraining.describe import after_divergence, describe_run, schedule_warnings
from zhbert.pretraining.distillation import DistillationObjective, Teaching
from zhbert.pretraining.folder import (
    checkpoint_writer,
    checkpoints_of,
    write_beginning,
    write_final,
)
from zhbert.pretraining.result import PretrainingResult
from zhbert.pretraining.setup import RunSetup
from zhbert.pretraining.stages import training_rows
from zhbert.pretraining.start import Start, begin
from zhbert.runtime import make_deterministic, prepare_threads
from zhbert.train.checkpoint import (
    KeepBest,
    Saver,
    TrainingCheckpoint,
    copying_ended,
    host_copies,
    load_model_state,
    model_state,
)
from zhbert.train.cost import Hardware, compile_if_worth_it, micro_batch_rows
from zhbert.train.graphs import CudaGraphs, Recorder
from zhbert.train.log import MetricsFile, ProgressLine, Sink, TensorBoard
from zhbert.train.loop import (
    EvaluationSet,
    LoopSettings,
    NotFiniteError,
    Outcome,
    Trainer,
)
from zhbert.train.optim import Optimizer, Schedule, make_optimizer, schedule
from zhbert.train.sharding import from_first, shard
from zhbert.train.signals import write_notice
from zhbert.train.step import Forward
from zhbert.wording import counted


def train_run(setup: RunSetup, held: ExitStack, *, tensorboard: bool) -> PretrainingResult:
    """Train with ``setup``; the run's folder is locked until ``held`` is closed."""
    recipe, ranks = setup.recipe, setup.ranks
    prepare_threads(recipe.threads)
    if recipe.deterministic:
        make_deterministic(ranks.device)
    if tensorboard:
        TensorBoard.check()
    teaching = Teaching.of(setup)
    start = begin(setup, teaching.add_to if teaching else lambda model: None)
    if teaching and start.random:
        setup.say(teaching.begin(start.model))
    last_step = start.first_step + recipe.steps
    for warning in schedule_warnings(recipe, last_step):
        setup.say(warning)
    rows = _micro_batch_rows(setup, start)
    loader = training_rows(setup, rows, start.done, _window_ends(setup, start))
    evaluations = _evaluations(setup, rows)
    optimizer, divided = _prepare_model(setup, start)
    for line in describe_run(setup, start, loader, rows):
        setup.say(line)
    for line in teaching.describe(setup.corpus.vocabulary_size) if teaching else ():
        setup.say(line)

    usual = objective.PretrainingObjective(
        objective.candidate_sampler(recipe.softmax, setup.corpus)
    )
    taught = DistillationObjective(usual, teaching) if teaching else None
    source = _source(setup, start, loader, teaching, taught)
    ranks.on_first(lambda: _open_folder(setup, start, teaching, held))
    how = "" if setup.folder.goes_on else " with --resume"
    how += " in place of --overwrite" if setup.folder.overwrite else ""
    held.enter_context(advising(f"run the same command again{how}"))
    metrics, sinks = _sinks(setup, start, last_step, tensorboard)
    saver, best = Saver(checkpoints_of(setup), ranks), _best(setup, start, evaluations)
    trainer = Trainer(
        start.model,
        taught or usual,
        weights=_weights(recipe, start, taught) if taught else None,
        evaluation_objective=usual,
        source=lambda step: source(step - start.first_step),
        optimizer=optimizer,
        schedule=_schedule(recipe, last_step),
        settings=_loop_settings(setup, last_step),
        save=checkpoint_writer(setup, start, optimizer, metrics, loader, saver, rows),
        sinks=[*sinks, saver, *([best] if best else [])],
        evaluations=evaluations,
        record=_recorder(setup),
        ranks=ranks,
        divided=divided,
        start=start.state,
        evaluated=_evaluated(setup, start, metrics),
        notice=write_notice if ranks.first else lambda line: None,
    )
    outcome = _train(setup, trainer, [saver, best.saver] if best else [saver], rows)
    result = _finish(setup, start.model, outcome, best)
    made, dropped = ranks.sum([loader.made_pieces, loader.dropped_pieces])
    share = dropped / max(1.0, made + dropped)
    if dropped:
        setup.say(f"{share:.2%} of the pieces were cut off to make pairs fit their rows")
    return dataclasses.replace(result, dropped_share=share)


# -- before the first step -------------------------------------------------------------------------


def _micro_batch_rows(setup: RunSetup, start: Start) -> int:
    recipe, ranks = setup.recipe, setup.ranks
    rows = -(-recipe.batch_size // ranks.world_size)
    if recipe.micro_batch_size:
        return min(recipe.micro_batch_size, rows)
    shards = ranks.world_size if recipe.sharding == "full" else 1
    hardware = Hardware.of(ranks.device, setup.dtype, ranks.world_size, shards)
    most = micro_batch_rows(rows, setup.workload(start.shape), hardware)
    # A run resumed on another machine is identical to the bit, if that has enough memory.
    info = start.checkpoint.info if setup.resumes and start.checkpoint else {}
    return min(info.get("micro_batch_rows") or most, most)


def _window_ends(setup: RunSetup, start: Start) -> Mapping[str, Sequence[int]]:
    """Return what the run that is resumed has counted of its rows."""
    if not (setup.resumes and start.checkpoint):
        return {}
    ends: Mapping[str, Sequence[int]] = start.checkpoint.info.get("window_ends", {})
    return ends


def _evaluations(setup: RunSetup, batch_size: int) -> list[EvaluationSet[MaskedBatch]]:
    recipe, corpus = setup.recipe, setup.corpus
    masked = held_out_rows(
        corpus,
        setup.tokenizer.vocabulary,
        recipe.evaluation,
        builder=recipe.rows.builder,
        sequence_length=recipe.sequence_length,
        batch_size=batch_size,
    )
    if recipe.evaluation.rows and recipe.evaluation.strategies and not masked:
        setup.say(
            f"{corpus.folder}: no held-out documents: evaluation is skipped (prepare it again "
            "with --held-out 0.01 --overwrite to have some)"
        )
    return objective.evaluations_of(masked)


def _prepare_model(setup: RunSetup, start: Start) -> tuple[Optimizer, Forward | None]:
    """Move the model to its device and compile it.

    Return its optimiser, with any saved state, and its forward pass if its weights are divided.
    """
    recipe, ranks, model = setup.recipe, setup.ranks, start.model
    if recipe.rows.builder != "pairs":
        # They are not trained, and DDP waits for the gradient of every trainable parameter.
        model.pooler.requires_grad_(False)
        model.nsp_head.requires_grad_(False)
    model.encoder.checkpointing = recipe.activation_checkpointing
    divided = None
    if setup.divides:
        divided = Forward(model)
        model.encoder.run_hooks_outside()
        shard(divided, model.encoder.layers, ranks, setup.dtype)
    else:
        model.to(ranks.device)
    optimizer = make_optimizer(recipe.optimizer, model, setup.dtype)
    if start.checkpoint is not None:
        state = current_names(start.checkpoint.tensors("optimizer")) if ranks.first else {}
        if ranks.connected:
            state = from_first(optimizer.state_dict(), state, ranks)
        optimizer.load_state_dict(state)
    pieces = recipe.steps * recipe.batch_size * recipe.sequence_length
    compile_if_worth_it(
        model,
        recipe.compile,
        steps=recipe.steps,
        operations=setup.workload(start.shape).operations() * pieces,
        on_cpu=ranks.device.type == "cpu",
        say=setup.say,
    )
    return optimizer, divided


def _source(
    setup: RunSetup,
    start: Start,
    loader: GrowingRows,
    teaching: Teaching | None,
    taught: DistillationObjective | None,
) -> Callable[[int], Iterator[Sequence[MaskedBatch]]]:
    """Return the function of the batches after some steps of this run, with any cached labels."""
    if teaching is None or taught is None or not teaching.settings.cache:
        return loader.steps
    steps = range(start.done, setup.recipe.steps)
    labels = cached_labels(setup, teaching, loader, steps, taught.best_pieces)
    return partial(labels.labelled, loader)


def _weights(
    recipe: Recipe, start: Start, taught: DistillationObjective
) -> Callable[[int], Sequence[float]]:
    """Return the function of the weights of a step's parts."""
    return lambda step: taught.weights((step - start.first_step) / recipe.steps)


def _schedule(recipe: Recipe, last_step: int) -> Schedule:
    options = recipe.optimizer
    end = options.schedule_steps or last_step
    return schedule(options.schedule, options.learning_rate, options.warmup_steps, end)


def _loop_settings(setup: RunSetup, last_step: int) -> LoopSettings:
    recipe = setup.recipe
    return LoopSettings(
        last_step=last_step,
        seed=recipe.seed,
        dtype=setup.dtype,
        clip_norm=recipe.optimizer.clip_norm,
        checkpoint_every=recipe.checkpoint_every,
        evaluate_every=recipe.evaluate_every,
    )


def _recorder(setup: RunSetup) -> Recorder | None:
    """Return what records steps on a GPU; None for steps that cannot be recorded, or need not."""
    recipe = setup.recipe
    # Random states and the exchanges of divided weights stay outside of graphs; models so large
    # keep the GPU busy without them.
    if recipe.activation_checkpointing or recipe.sharding != "none":
        return None
    return CudaGraphs(setup.say) if setup.ranks.device.type == "cuda" else None


def _open_folder(setup: RunSetup, start: Start, teaching: Teaching | None, held: ExitStack) -> None:
    """Lock the run's folder and write its first files, after all requirements were checked."""
    held.enter_context(setup.folder.held())
    write_beginning(setup, start, teaching.identities if teaching else {})


def _sinks(
    setup: RunSetup, start: Start, last_step: int, tensorboard: bool
) -> tuple[MetricsFile | None, list[Sink]]:
    """Open the sinks of the log, metrics.jsonl first, in the first process; none in others."""
    if not setup.ranks.first:
        return None, []
    after = start.state.step if setup.resumes else None
    metrics = MetricsFile(setup.folder.path / "metrics.jsonl", after, setup.say)
    sinks: list[Sink] = [metrics]
    if tensorboard:
        sinks.append(TensorBoard(setup.folder.path / "tensorboard", after))
    if not setup.quiet:
        sinks.append(ProgressLine(sys.stderr, start.state.step, last_step))
    return metrics, sinks


def _best(
    setup: RunSetup, start: Start, evaluations: list[EvaluationSet[MaskedBatch]]
) -> KeepBest | None:
    """Return the keeper of the best weights, if the recipe has one and there are evaluations."""
    if not (setup.recipe.evaluation.keep_best and evaluations):
        return None
    return KeepBest(
        setup.folder.path / "best", start.model, len(evaluations), start.state.step, setup.ranks
    )


def _evaluated(setup: RunSetup, start: Start, metrics: MetricsFile | None) -> frozenset[str] | None:
    """Return the first step's evaluations in the log; None: the first step has none."""
    evaluated = setup.ranks.on_first(lambda: metrics.evaluated if metrics else frozenset())
    recipe = setup.recipe
    measures_start = recipe.evaluation.keep_best and bool(recipe.initial_model)
    return evaluated if start.checkpoint or measures_start else None


# -- training, and after it ------------------------------------------------------------------------


def _train(
    setup: RunSetup, trainer: Trainer[MaskedBatch], savers: Sequence[Saver], micro_batch_rows: int
) -> Outcome:
    try:
        outcome = trainer.train()
        for saver in savers:
            saver.finish()
        return outcome
    except Exception as error:
        # What is being written shall be complete, unless Ctrl-C (no Exception) ends all at once.
        for saver in savers:
            saver.wait()
        if isinstance(error, torch.OutOfMemoryError):
            raise ZhbertError(
                f"the GPU has no memory for micro-batches of {counted(micro_batch_rows, 'row')}: "
                "run the same command again with --resume and a smaller micro_batch_size, or with "
                "--resume and activation_checkpointing=true"
            ) from None
        if not isinstance(error, NotFiniteError):
            raise
        kept = checkpoints_of(setup).steps()
        raise ZhbertError(f"{error}; {after_divergence(setup, kept)}") from None
    finally:
        for sink in trainer.sinks:
            sink.close()


def _finish(
    setup: RunSetup, model: BertForPreTraining, outcome: Outcome, best: KeepBest | None
) -> PretrainingResult:
    """Write the final model of a complete run: the last weights or the best ones."""
    kept, evaluations = outcome.step, outcome.evaluations
    if not outcome.signal:
        found = best.best() if best else None
        if found:
            kept, evaluations = found.step, found.info["evaluations"]
            if kept < outcome.step:
                setup.say(f"the run's model is that of step {kept}: its held-out loss is lowest")
        finished = _finished_model(setup, model, found)
        if setup.ranks.first:
            write_final(setup, finished, kept, evaluations)
    return PretrainingResult(
        folder=setup.folder.path,
        step=outcome.step,
        pieces=outcome.pieces,
        seconds=outcome.seconds,
        signal=outcome.signal,
        evaluations=evaluations,
        kept_step=kept,
    )


def _finished_model(
    setup: RunSetup, model: BertForPreTraining, found: TrainingCheckpoint | None
) -> BertForPreTraining:
    """Return the model with the weights that it has, or those of a checkpoint.

    If its weights are divided, the first process returns a new model that has all of them.
    """
    first = setup.ranks.first
    state = current_names(found.tensors("model")) if found and first else None
    if not setup.divides:
        if found and state:
            load_model_state(model, state, found.path)
        return model
    if not found:
        state = host_copies(model_state(model), first)
        copying_ended(setup.ranks.device)()
    with torch.device("meta"):
        alone = BertForPreTraining(model.config)
    if state:
        # Without what only distillation trains.
        own = {name: state[name] for name, _ in alone.named_parameters()}
        alone.load_state_dict(own, assign=True)
    return alone
