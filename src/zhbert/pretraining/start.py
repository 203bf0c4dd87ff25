"""The start of a run: random weights, a model, an earlier phase, or its newest checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from zhbert.config import (
    Match,
    ModelShape,
    Recipe,
    check_shape,
    flatten,
    load_recipe,
    resolve_shape,
    without_passwords,
)
from zhbert.data.shards import Corpus
from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig, count_parameters_by_part
from zhbert.model.folder import check_corpus_vocabulary, other_vocabulary
from zhbert.model.names import current_names
from zhbert.model.pretrained import BertForPreTraining
from zhbert.pretraining.setup import RunSetup
from zhbert.runs.folder import changed_settings
from zhbert.runtime import total_memory
from zhbert.train.checkpoint import Checkpoints, TrainingCheckpoint, load_model_state
from zhbert.train.cost import BYTES_PER_PARAMETER
from zhbert.train.loop import BEGINNING, TrainState
from zhbert.wording import counted, listed
from zhbert.zoo import locate
from zhbert.zoo.catalogue import find_card

# The keys that may change when a run is resumed, since they do not affect the steps so far. More
# steps stretch a schedule that ends with the run, which is reported.
FREE_ON_RESUME = {
    "steps", "micro_batch_size", "precision", "compile", "activation_checkpointing", "sharding",
    "deterministic", "keep_checkpoints", "checkpoint_every", "evaluate_every", "threads",
    "evaluation.rows", "evaluation.strategies",
    "masking.similar_words",  # the file's content may not change
}  # fmt: skip


@dataclass
class Start:
    """The starting point of a run."""

    shape: ModelShape
    """The model's resolved shape."""
    model: BertForPreTraining
    checkpoint: TrainingCheckpoint | None = None
    """The source of ``model`` and the optimiser's state; None at the start of a first phase."""
    state: TrainState = BEGINNING
    first_step: int = 0
    """The step at which this run or phase began."""
    random: bool = False
    """True: the model has random weights."""

    @property
    def done(self) -> int:
        """Completed steps of this run."""
        return self.state.step - self.first_step


def begin(setup: RunSetup, add: Callable[[BertForPreTraining], None]) -> Start:
    """Return the start given by the recipe, or the newest checkpoint of a resumed run.

    Args:
        setup: the run.
        add: adds to a new model what else the run trains, before a checkpoint is read into it.

    Raises:
        ZhbertError: it does not exist, or does not fit the recipe or the corpus.
    """
    if setup.resumes and (start := _resumed(setup, add)):
        return start
    if setup.recipe.continue_from:
        return _next_phase(setup, add)
    if setup.recipe.initial_model:
        start = _from_model(setup)
    else:
        shape = resolve_shape(setup.recipe.model)
        model = new_model(setup.recipe, _configuration(setup, shape), setup.corpus)
        start = Start(shape, model, random=True)
    add(start.model)
    return start


def new_model(recipe: Recipe, config: BertConfig, corpus: Corpus) -> BertForPreTraining:
    """Make the random weights of a run that does not start from another model."""
    model = BertForPreTraining(config, seed=recipe.seed)
    if recipe.initial_weights != "bert":
        model.scale_initial_weights(corpus.piece_counts)
    return model


# -- from another model ----------------------------------------------------------------------------


def _from_model(setup: RunSetup) -> Start:
    recipe = setup.recipe
    source = _initial_folder(setup, recipe.initial_model)
    check_corpus_vocabulary(source, setup.corpus, setup.say)
    config = BertConfig.from_pretrained(source)
    shape = resolve_shape(recipe.model, config.to_dict())
    check_shape(shape, recipe.sequence_length, setup.recipe_file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = BertForPreTraining.from_pretrained(
            source, num_hidden_layers=shape.num_hidden_layers, seed=recipe.seed, quiet=True
        )
    setup.say(f"{source}: {model.loading.summary}")
    for warning in caught:
        setup.say(f"note: {warning.message}")
    if shape.num_hidden_layers != config.num_hidden_layers:
        setup.say(f"{source}: only its first {counted(model.config.num_hidden_layers, 'layer')}")
    _set_dropout(model, shape)
    return Start(shape, model)


def _initial_folder(setup: RunSetup, name: str) -> Path:
    """Return the folder of the model to start from; download it if it is a known name."""
    path = Path(name)
    where = f"{setup.recipe_file}: initial_model = {name}"
    if (path / "final").is_dir() and not (path / "config.json").is_file():
        raise ZhbertError(
            f"{where}: a run folder; its model is initial_model={path / 'final'} (to go on as "
            f"its next phase: continue_from={path})"
        )
    card = find_card(path.name)
    if card is not None and not path.exists() and find_card(name) is None:
        # models/rbt3 looks like a hub id but means a folder.
        raise ZhbertError(
            f"{where}: no such folder; 'zhbert download {card.name} --out {name}' makes it, or "
            f"take the model by its name: initial_model={card.name}"
        )
    try:
        # The first process downloads it; then the others find it.
        setup.ranks.on_first(lambda: locate(name, quiet=setup.quiet))
        return locate(name)
    except ZhbertError as error:
        raise ZhbertError(
            f"{where}: {error} (or give another, initial_model=MODEL, or start from random "
            "weights, initial_model=)"
        ) from None


def _set_dropout(model: BertForPreTraining, shape: ModelShape) -> None:
    """Give a loaded model the recipe's dropout instead of its own."""
    assert shape.hidden_dropout_prob is not None
    assert shape.attention_probs_dropout_prob is not None
    config = model.config
    wanted = (shape.hidden_dropout_prob, shape.attention_probs_dropout_prob)
    if wanted == (config.hidden_dropout_prob, config.attention_probs_dropout_prob):
        return
    config.hidden_dropout_prob, config.attention_probs_dropout_prob = wanted
    # Layers read their rates when they are constructed.
    fresh = BertForPreTraining(config)
    for name, module in model.named_modules():
        if hasattr(module, "rate"):
            module.rate = fresh.get_submodule(name).rate


# -- from a checkpoint -----------------------------------------------------------------------------


def _resumed(setup: RunSetup, add: Callable[[BertForPreTraining], None]) -> Start | None:
    """Return the run's newest checkpoint; None if the run ended before its first one."""
    folder, recipe = setup.folder.path, setup.recipe
    former = setup.ranks.on_first(lambda: load_recipe(folder / "recipe.toml"))
    changes = allowed_changes(recipe, former, folder)
    checkpoint = _newest_checkpoint(setup, folder)
    if checkpoint is None:
        setup.say(f"{folder}: no complete checkpoint: the run begins anew")
        return None
    if checkpoint.info.get("corpus") != setup.corpus_hash:
        raise ZhbertError(
            f"{setup.corpus.folder}: not the corpus that {folder} was trained on; give that one, "
            "or start another run"
        )
    if checkpoint.info.get("similar_words", "") != setup.similar_words_hash:
        raise ZhbertError(
            f"{recipe.masking.similar_words}: not the similar words that {folder} was trained "
            "with; put the former file back, or start another run"
        )
    first_step = int(checkpoint.info["first_step"])
    start = _from_checkpoint(setup, add, former.model, checkpoint, first_step)
    setup.say(f"resuming {folder} from step {start.state.step}")
    for line in changes:
        setup.say(f"changed: {line}")
    if start.done > recipe.steps:
        raise ZhbertError(
            f"{folder} is at step {start.state.step} already, beyond steps = {recipe.steps}"
        )
    return start


def allowed_changes(recipe: Recipe, former: Recipe, folder: Path) -> list[str]:
    """Describe a resumed run's recipe changes, one line each; raise ZhbertError if forbidden."""
    changed = {
        key: tuple(list(one) if isinstance(one, tuple) else one for one in values)
        for key, values in changed_settings(without_passwords(recipe), former).items()
        # In the run's recipe.toml all keys of [model] are resolved.
        if not (key.startswith("model.") and values[0] is None)
    }
    if forbidden := [key for key in changed if key not in FREE_ON_RESUME]:
        key, *others = forbidden
        value, was = changed[key]
        way = f"continue_from={folder} takes this one's state along"
        if "optimizer.name" in forbidden:  # the state fits this optimiser only
            way = f"initial_model={folder / 'final'} takes its weights along"
        also = f" (also changed: {listed(others, most=4)})" if others else ""
        raise ZhbertError(
            f"{key} = {value!r}, but {folder} was begun with {was!r}{also}; change "
            f"{'them' if others else 'it'} back, or begin a new run ({way})"
        )
    lines = []
    for key, (value, was) in changed.items():
        schedule = former.optimizer
        stretched = not schedule.schedule_steps and schedule.schedule != "constant"
        falls = ": the learning rate now falls to zero at the new end"
        lines.append(
            f"{key} = {value!r} (was {was!r})" + (falls if key == "steps" and stretched else "")
        )
    return lines


def _next_phase(setup: RunSetup, add: Callable[[BertForPreTraining], None]) -> Start:
    recipe, earlier = setup.recipe, Path(setup.recipe.continue_from)
    where = f"{setup.recipe_file}: continue_from = {recipe.continue_from}"

    def read_former() -> Recipe:
        if not (earlier / "recipe.toml").is_file():
            raise ZhbertError(
                f"{where}: not a run folder; give the run folder of the earlier phase "
                "(continue_from=RUN)"
            )
        return load_recipe(earlier / "recipe.toml")

    former = setup.ranks.on_first(read_former)
    checkpoint = _newest_checkpoint(setup, earlier)
    if checkpoint is None:
        raise ZhbertError(f"{where}: no complete checkpoint in it; train it first")
    theirs = checkpoint.info
    if theirs.get("vocabulary") != setup.corpus.fingerprint:
        raise other_vocabulary(
            setup.corpus, str(earlier), str(theirs.get("vocabulary")), None, earlier / "final"
        )
    if theirs.get("optimizer") != recipe.optimizer.name:
        raise ZhbertError(
            f"{setup.recipe_file}: optimizer.name = {recipe.optimizer.name}: {earlier} was trained "
            f"with {theirs.get('optimizer')}, whose state goes on; to start afresh from its "
            f"weights, use initial_model={earlier / 'final'}"
        )
    if _matches(recipe) != _matches(former):
        raise ZhbertError(
            f"{where}: it has other distill.matches, whose maps go on with the model; give the "
            f"same ones, or start from its weights alone, initial_model={earlier / 'final'}"
        )
    shape = resolve_shape(recipe.model, flatten(former.model))
    check_shape(shape, recipe.sequence_length, setup.recipe_file)
    end = int(theirs["first_step"]) + former.steps
    if checkpoint.step < end:
        setup.say(f"note: {earlier} ended early, at step {checkpoint.step} of {end}")
    setup.say(f"continuing {earlier} from step {checkpoint.step}: model, optimiser and schedule")
    return _from_checkpoint(setup, add, shape, checkpoint, checkpoint.step)


def _matches(recipe: Recipe) -> tuple[Match, ...]:
    return recipe.distill.matches if recipe.distill else ()


def _newest_checkpoint(setup: RunSetup, run_folder: Path) -> TrainingCheckpoint | None:
    checkpoints = Checkpoints(run_folder / "checkpoints", say=setup.say)
    return setup.ranks.on_first(checkpoints.newest)


def _from_checkpoint(
    setup: RunSetup,
    add: Callable[[BertForPreTraining], None],
    shape: ModelShape,
    checkpoint: TrainingCheckpoint,
    first_step: int,
) -> Start:
    info = checkpoint.info
    model = BertForPreTraining(_configuration(setup, shape), seed=setup.recipe.seed)
    add(model)
    # The others get the first process's weights from it before the first step.
    if setup.ranks.first:
        load_model_state(model, current_names(checkpoint.tensors("model")), checkpoint.path)
    state = TrainState(checkpoint.step, int(info["pieces"]), float(info["seconds"]))
    return Start(shape, model, checkpoint, state, first_step)


def _configuration(setup: RunSetup, shape: ModelShape) -> BertConfig:
    """Return the configuration of a new model; raise ZhbertError if it exceeds the memory."""
    config = BertConfig(
        vocab_size=setup.corpus.vocabulary_size,
        pad_token_id=setup.tokenizer.pad_id,
        **flatten(shape),
    )
    parameters = sum(count_parameters_by_part(config).values())
    needed, memory = parameters * BYTES_PER_PARAMETER, total_memory(setup.ranks.device)
    if setup.divides:
        needed //= setup.ranks.world_size
    if needed > memory:
        raise ZhbertError(
            f"{setup.recipe_file}: a model of {parameters:,} parameters takes "
            f"{needed / 2**30:,.0f} GiB to train, and there are {memory / 2**30:,.0f}; choose a "
            "smaller [model], or divide it among more GPUs (torchrun, with sharding=full)"
        )
    return config
