"""Fine-tune a model for a task, with one seed or several, and compare two runs.

  zhbert finetune lcqmc --model rbt3 --data tasks/lcqmc --out runs/lcqmc
  zhbert finetune lcqmc --model rbt3 --data tasks/lcqmc --out runs/lcqmc --seeds 10
  zhbert finetune my-task.toml --model runs/tiny/final --out runs/mine epochs=5
  zhbert finetune ocnli --model rbt3 --data tasks/ocnli --out runs/grid \\
      optimizer.learning_rate=2e-5,5e-5 batch_size=32,64
  zhbert finetune --compare runs/lcqmc-wwm runs/lcqmc-char

TASK is a name ('zhbert tasks' lists them) or a card of your own. Its settings, by the family of
the model, are overridden by key=value; values with commas make a grid, whose best point is chosen
on dev. OUT gets summary.json, task.toml, settings.toml, and seed-K/ with final/, a model folder
that transformers opens. The same command again goes on where a killed run stopped: seeds that are
finished are not run again.

Keys: epochs, sequence_length, batch_size, optimizer.learning_rate; patience=3 stops after three
evaluations without a better score; evaluate_every and checkpoint_every, in steps; doc_stride and
max_answer_length, of spans; precision, compile, threads, micro_batch_size; and
optimizer.warmup_share, .weight_decay, .epsilon and .clip_norm.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.files import (
    advising,
    atomic_folder,
    read_toml,
    sha256_of,
    write_json,
    write_text,
)
from zhbert.finetuning.describe import (
    describe_examples,
    describe_settings,
    describe_summary,
    short_name,
)
from zhbert.model.folder import check_vocabulary
from zhbert.options import add_encoding, take_positionals_anywhere
from zhbert.report.comparison import compare_runs
from zhbert.runs.folder import RunFolder
from zhbert.runs.provenance import read_provenance
from zhbert.schema import build, flatten, to_toml
from zhbert.tasks.cards import TaskCard, load_card, split_remark, with_encoding
from zhbert.tasks.settings import (
    FineTuningSettings,
    check_settings,
    differences,
    distinct_points,
    family_of,
    settings_for,
    with_overrides,
)
from zhbert.wording import counted, without_secrets

if TYPE_CHECKING:
    from zhbert.finetuning.seed import DivergedError, Task
    from zhbert.model.config import BertConfig
    from zhbert.tasks.kinds import Kind
    from zhbert.tasks.read import Example
    from zhbert.text.tokenizer import Tokenizer

PREVIEWED = 3
# Pieces of a row that the preview shows.
PREVIEWED_PIECES = 32


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    folder: Path
    summary: dict[str, Any]
    """What RUN/summary.json holds."""
    signal: int | None = None
    """SIGINT, SIGTERM or SIGHUP where one ended the run early; its state is saved."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("task", metavar="TASK", nargs="?", help="a task's name, or a card's path")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="override its settings")
    parser.add_argument("--model", metavar="M", help="a folder, an archive, a name or a hub id")
    parser.add_argument("--data", metavar="DIR", help="the folder of the task's files")
    add_encoding(parser, "each of them")
    parser.add_argument("--out", metavar="RUN", help="the run folder to write, or to go on with")
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="train with the seeds 0 to N - 1 (1)"
    )
    parser.add_argument("--overwrite", action="store_true", help="remove an existing RUN first")
    parser.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="compare two finished runs of one task"
    )
    take_positionals_anywhere(parser)


def run(args: argparse.Namespace) -> int:
    """Do what the command line says."""
    from zhbert import console

    if args.compare:
        others = (args.task, args.model, args.data, args.out, args.overwrite, args.seeds != 1)
        if any(others):
            raise ZhbertError("--compare takes two run folders and nothing else")
        _print_comparison(compare_runs(*args.compare), as_json=args.json)
        return 0
    for name in ("task", "model", "out"):
        if not getattr(args, name):
            option = "TASK" if name == "task" else f"--{name}"
            raise ZhbertError(f"{option} is missing: zhbert finetune TASK --model M --out RUN")
    result = finetune(
        args.task,
        args.model,
        args.data,
        args.out,
        args.overrides,
        seeds=args.seeds,
        encoding=args.encoding,
        overwrite=args.overwrite,
        quiet=args.quiet,
    )
    if result.signal:
        without = " (without --overwrite)" if args.overwrite else ""
        sys.stderr.write(f"saved; the same command again{without} goes on\n")
        return 128 + result.signal
    if args.json:
        console.print_json(result.summary)
    else:
        for line in describe_summary(result.summary, result.folder):
            console.out().print(line)
    return 0


def _print_comparison(result: Mapping[str, Any], *, as_json: bool) -> None:
    from zhbert import console

    if as_json:
        console.print_json(result)
        return
    for name in ("a", "b"):
        one = result[name]
        sys.stdout.write(
            f"{name.upper()}  {one['mean']:.2f}  {one['model_name']}, "
            f"{counted(one['seeds'], 'seed')} ({one['folder']})\n"
        )
        for remark in one["remarks"]:
            console.say(f"{one['folder']}: {remark}")
    verdict = "larger" if result["larger_than_noise"] else "not larger"
    sys.stdout.write(
        f"A - B  {result['metric']} {result['difference']:+.2f} points, "
        f"{result['confidence']:.0%} interval {result['low']:+.2f} to {result['high']:+.2f}: "
        f"{verdict} than the noise\n"
        f"{counted(result['resamples'], 'resample')} of "
        f"{counted(result['examples'], 'example')} of "
        f"{result['task']}'s {result['split']} and of the seeds\n"
    )
    if result["a"]["model_name"] != result["b"]["model_name"]:
        sys.stdout.write(
            "about these two models: others, pretrained in the same ways with other seeds, may "
            "differ by more\n"
        )


def finetune(
    task: str | os.PathLike[str],
    model: str | os.PathLike[str],
    data: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    seeds: int = 1,
    encoding: str | None = None,
    overwrite: bool = False,
    quiet: bool = True,
) -> Result:
    """Fine-tune ``model`` for ``task`` and write the run folder ``out``, or go on with it.

    Args:
        task: a task's name, or a card's path.
        model: what `zhbert.zoo.locate` understands.
        data: the folder of the task's files; None: the folder of the card.
        out: the run folder. One of the same task, model, data and settings is gone on with.
        overrides: ``key=value`` texts; several values, with commas, make a grid.
        seeds: how many, from 0 on.
        encoding: what the task's files are encoded in; None: what the card says.
        overwrite: remove ``out`` first, if it is a run folder.
        quiet: nothing on stderr.

    Raises:
        ZhbertError: anything that is wrong with card, data, model, settings or folders; a loss
            that is not finite.
    """
    # Before the seconds that it takes to import torch: what can be wrong with words.
    if seeds < 1:
        raise ZhbertError(f"--seeds {seeds}: must be 1 or more")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ZhbertError("finetune runs in one process: start it without torchrun")
    card = with_encoding(load_card(task), encoding)
    texts = list(overrides)
    points = distinct_points(texts)
    folder = Path(out)
    run_folder = RunFolder(
        path=folder,
        what="a run of 'zhbert finetune'",
        settings_file="task.toml",
        overwrite=overwrite,
        goes_on=True,
    )
    run_folder.check()
    return _Run(card, os.fspath(model), data, run_folder, points, seeds, quiet).go()


class _Run:
    """The wiring of one run."""

    def __init__(
        self,
        card: TaskCard,
        model: str,
        data: str | os.PathLike[str] | None,
        run_folder: RunFolder,
        points: Sequence[tuple[str, ...]],
        seeds: int,
        quiet: bool,
    ) -> None:
        from zhbert.model.config import BertConfig
        from zhbert.zoo import locate
        from zhbert.zoo.layout import find_model

        self.card, self.model_name, self.run_folder = card, without_secrets(model), run_folder
        self.folder, self.overwrite = run_folder.path, run_folder.overwrite
        self.points, self.seeds = points, seeds
        self.quiet = quiet
        self.data = None if data is None else Path(data)
        # Data first: it is checked in a second, and a model may have to be fetched.
        self.files, self.splits = self._read()
        self.model = find_model(locate(model, quiet=quiet)).folder
        self.config: BertConfig = BertConfig.from_pretrained(self.model)

        from zhbert.finetuning.fine_tuned import open_tokenizer
        from zhbert.runtime import choose_device

        self.tokenizer: Tokenizer = open_tokenizer(self.model)
        self.device = choose_device()
        self.settings = [self._settings(point) for point in points]

    def say(self, line: str) -> None:
        """A remark on stderr."""
        from zhbert import console

        if not self.quiet:
            console.say(line)

    def go(self) -> Result:
        """All points of the grid, all seeds."""
        from zhbert.finetuning.seed import Stopped
        from zhbert.runtime import prepare_threads

        self.threads = prepare_threads(self.settings[0].threads)
        needed = {f"{split} file": path for split, path in self.files.items()}
        needed |= {"model": self.model, "card": self.card.path}
        self.run_folder = dataclasses.replace(self.run_folder, needed=needed)
        self.run_folder.check()
        self._look_at_model()
        identity = json.loads(json.dumps(self._identity()))
        self._check_former(identity)
        # Nothing is written, or overwritten, before the data have become rows.
        first = self._task(self.settings[0], first=True)
        try:
            with self.run_folder.held():
                self._check_former(identity)
                self._open(identity)
                without = " without --overwrite" if self.overwrite else ""
                with advising(f"run the same command again{without}"):
                    return Result(self.folder, self._points(first))
        except Stopped as stopped:
            return Result(self.folder, {}, stopped.signal)

    def _points(self, first: Task) -> dict[str, Any]:
        """The summary of the only point, or of the best one; ``first`` is the first one's task."""
        from zhbert.finetuning.seed import DivergedError

        seeds = self._all_seeds()
        if len(seeds) > self.seeds:
            self.say(f"seeds {', '.join(map(str, seeds))} are there: the summary is of all")
        summaries: list[dict[str, Any] | DivergedError] = []
        for number, (point, settings) in enumerate(zip(self.points, self.settings, strict=True)):
            task = self._task(settings, first=False) if number else first
            try:
                summaries.append(self._point(point, task, seeds))
            except DivergedError as error:
                # A grid is asked for to find such points, too.
                if len(self.points) == 1:
                    raise
                self.say(f"left out of the grid: {error}")
                summaries.append(error)
        summary = summaries[0] if len(summaries) == 1 else self._take_best(summaries)
        assert isinstance(summary, dict)
        return summary

    # -- before --------------------------------------------------------------------------------

    def _read(self) -> tuple[dict[str, Path], dict[str, list[Example]]]:
        """Files and examples of train, dev and what is scored with dev."""
        from zhbert.tasks.read import data_file, find_file, read_examples

        files: dict[str, Path] = {}
        splits: dict[str, list[Example]] = {}
        for split in ("train", "dev", *self.card.data.scored_with_dev):
            if split in ("train", "dev"):
                files[split] = data_file(self.card, self.data, split)
            elif (found := find_file(self.card, self.data, split)) is not None:
                files[split] = found
        if files["train"] == files["dev"] and not self.card.data.split_column:
            if self.data is not None and self.data.is_file():
                raise ZhbertError(
                    f"--data {self.data}: one file for train and dev; give the folder of both"
                )
            raise ZhbertError(
                f"{files['dev']}: one file for train and dev; name two in the card, or the column "
                "that tells them apart: split_column"
            )
        for split, path in files.items():
            splits[split] = read_examples(self.card, path, split, remark=self.say)
        return files, splits

    def _settings(self, point: tuple[str, ...]) -> FineTuningSettings:
        config, name = self.config, self.model_name
        family = family_of(short_name(name), config.num_hidden_layers, config.hidden_size)
        base = settings_for(self.card, family)
        most = config.max_position_embeddings
        if base.sequence_length > most:
            self.say(
                f"sequence_length = {most} instead of {base.sequence_length}: the model reads no "
                "longer rows"
            )
            base = dataclasses.replace(base, sequence_length=most)
        settings = with_overrides(base, point)
        if settings.sequence_length > most:
            raise ZhbertError(
                f"sequence_length = {settings.sequence_length}: {name} reads rows of {most} pieces "
                "at most (max_position_embeddings)"
            )
        check_settings(settings)
        return settings

    def _look_at_model(self) -> None:
        """Refuse what cannot be opened now, not after the data were read; warn of noise."""
        from zhbert.finetuning.fine_tuned import KINDS
        from zhbert.finetuning.seed import open_model
        from zhbert.model.checkpoint import open_checkpoint
        from zhbert.model.inspection import head_states

        kind = KINDS[self.card.kind](self.card, self.tokenizer, self.settings[0])
        open_model(self.model, kind, 0)
        checkpoint = open_checkpoint(self.model)
        states = head_states(checkpoint.entries, self.config.initializer_range)
        words = states.get("masked_words")
        if words is not None and words.word == "random":
            self.say(
                f"warning: {self.model_name}: was never trained ({words.why}): fine-tuning starts "
                "from noise"
            )
        if kind.problem_type is not None and states["pooler"].word == "missing":
            self.say(f"note: {self.model_name}: no pooler in it; a random one is trained")
        check_vocabulary(self.model, self.tokenizer, self.config.vocab_size)

    def _identity(self) -> dict[str, Any]:
        """What a run that is gone on with must have in common with this one."""
        from zhbert.finetuning.fine_tuned import card_table
        from zhbert.zoo.layout import find_model

        weights = find_model(self.model).weights
        files = [weights] if weights.is_file() else sorted(weights.parent.glob(weights.name + "*"))
        shape = dataclasses.asdict(self.config)
        del shape["other"]
        return {
            "model": [sha256_of(file) for file in files],
            "configuration": shape,
            "vocabulary": self.tokenizer.fingerprint(),
            **{split: sha256_of(path) for split, path in self.files.items()},
            "task": card_table(self.card),
            "grid": len(self.points) > 1,
        }

    def _check_former(self, identity: Mapping[str, Any]) -> None:
        """See that a run that is gone on with is of the same data, model and settings."""
        if self.run_folder.continued:
            self._check_identity(identity)
        for point, settings in zip(self.points, self.settings, strict=True):
            self._check_settings(self._folder_of(point), settings)

    def _check_identity(self, identity: Mapping[str, Any]) -> None:
        """See that a run that is gone on with is of the same data and model."""
        theirs = read_provenance(self.folder).get("identity")
        if not isinstance(theirs, dict) or not theirs:
            raise ZhbertError(
                f"{self.folder}: a run of which provenance.json is missing or damaged; --overwrite "
                "begins it anew, or choose another --out"
            )
        what = next(
            (
                key
                for key in {**identity, **theirs}
                # What an older version did not note is not held against it.
                if (key in theirs or key in self.files)
                and _compared(theirs.get(key)) != _compared(identity.get(key))
            ),
            None,
        )
        if what is not None:
            split = what in self.card.data.splits
            named = f"{what} file" if split else _NAMES_IN_IDENTITY.get(what, what)
            raise ZhbertError(
                f"{self.folder}: a run of another {named} is there already; --overwrite replaces "
                "it, or choose another --out"
            )

    def _open(self, identity: Mapping[str, Any]) -> None:
        """Make the run folder."""
        from zhbert.finetuning.fine_tuned import card_table, table_to_toml
        from zhbert.runs.provenance import provenance
        from zhbert.runtime import choose_dtype

        origin = {
            **provenance(self.device, choose_dtype(self.settings[0].precision, self.device)),
            "model": self.model_name,
            "model_folder": str(self.model.resolve()),
            "data": {split: str(path.resolve()) for split, path in self.files.items()},
            "identity": identity,
        }
        self.run_folder.begin(table_to_toml(card_table(self.card)), origin)

    # -- a point of the grid -------------------------------------------------------------------

    def _point(self, point: tuple[str, ...], task: Task, seeds: Sequence[int]) -> dict[str, Any]:
        """All seeds with the same settings; their summary."""
        from zhbert.finetuning.seed import Stopped, train_seed

        folder = self._folder_of(point)
        several = len(self.points) > 1
        if several:
            self.say(f"\n{' '.join(self._varied(point))}")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "settings.toml", to_toml(task.settings))
        summary: dict[str, Any] = {}
        results: list[dict[str, Any]] = []
        for place, seed in enumerate(seeds, start=1):
            if len(seeds) > 1:
                self.say(f"seed {seed} ({place} of {len(seeds)})")
            result, signal = train_seed(task, folder / f"seed-{seed}", seed)
            results.append(result)
            summary = self._summary(task, results)
            write_json(folder / "summary.json", summary)
            if signal and (point, seed) != (self.points[-1], seeds[-1]):
                raise Stopped(signal)
        return summary

    def _all_seeds(self) -> list[int]:
        """Those asked for, and further ones that earlier commands have finished at every point."""
        from zhbert.finetuning.seed import finished

        folders = [self._folder_of(point) for point in self.points]
        names = [path.name.removeprefix("seed-") for path in folders[0].glob("seed-[0-9]*")]
        more = [
            int(name)
            for name in names
            if name.isdecimal() and all(finished(folder / f"seed-{name}") for folder in folders)
        ]
        return sorted({*range(self.seeds), *more})

    def _folder_of(self, point: tuple[str, ...]) -> Path:
        if len(self.points) == 1:
            return self.folder
        # The same folder whatever the order in which the keys were given.
        return self.folder / "grid" / ",".join(sorted(self._varied(point))).replace("/", "_")

    def _varied(self, point: tuple[str, ...]) -> list[str]:
        return [text for text in point if not all(text in other for other in self.points)]

    def _check_settings(self, folder: Path, settings: FineTuningSettings) -> None:
        """See that a run that is gone on with had the same settings."""
        path = folder / "settings.toml"
        if path.is_file() and not self.overwrite:
            try:
                table = read_toml(path)
            except ZhbertError as error:
                raise ZhbertError(f"{error}; --overwrite begins the run anew") from None
            former = build(FineTuningSettings, table, "", str(path))
            changed = differences(settings, former)
            if changed:
                raise ZhbertError(
                    f"{folder}: a run with other settings is there already ({'; '.join(changed)}); "
                    "--overwrite replaces it, or choose another --out"
                )

    def _task(self, settings: FineTuningSettings, first: bool) -> Task:
        """Everything tokenized, once for all seeds."""
        from zhbert.finetuning.fine_tuned import KINDS
        from zhbert.finetuning.seed import Task
        from zhbert.inference.rows import check_segments

        kind = KINDS[self.card.kind](self.card, self.tokenizer, settings)
        train = kind.prepare(self.splits["train"], training=True)
        check_segments(train.rows, self.config.type_vocab_size)
        others = {
            split: kind.prepare(examples)
            for split, examples in self.splits.items()
            if split != "train"
        }
        if not len(train.rows):
            raise ZhbertError(f"{self.files['train']}: no example that can be learnt from")
        task = Task(
            card=self.card,
            kind=kind,
            model=self.model,
            train=train,
            dev=others.pop("dev"),
            also=others,
            settings=settings,
            device=self.device,
            say=self.say,
            quiet=self.quiet,
        )
        if not self.quiet:
            if first:
                self.say(f"task: {self.card.title}")
                for split, examples in self.splits.items():
                    what = describe_examples(examples, self.card.data.labels)
                    self.say(f"{split}: {self.files[split]}: {what}")
                self._preview(kind)
            for line in dict.fromkeys((*train.remarks, *task.dev.remarks)):
                self.say(line)
            self._describe(task)
        return task

    def _preview(self, kind: Kind) -> None:
        """Three examples as the model will see them."""
        for example in self.splits["train"][:PREVIEWED]:
            rows = kind.prepare([example], training=True).rows
            if not len(rows):
                continue
            # Of spans, the window that holds the answer.
            number = 0
            if rows.targets is not None and rows.targets.ndim == 2:
                number = int(rows.targets[:, 0].argmax())
            pieces = rows.row(number).tolist()
            text = self.tokenizer.decode(pieces[:PREVIEWED_PIECES])
            more = f" … ({len(pieces)} pieces)" if len(pieces) > PREVIEWED_PIECES else ""
            self.say(f"  {text}{more}\n    -> {kind.describe(example)}")

    def _describe(self, task: Task) -> None:
        from zhbert.finetuning.epochs import plan_epoch
        from zhbert.inference.rows import padding_share
        from zhbert.runtime import choose_dtype

        card, settings, config = self.card, task.settings, self.config
        dtype = str(choose_dtype(settings.precision, self.device)).removeprefix("torch.")
        lengths = task.train.rows.lengths
        plan = plan_epoch(lengths, settings.batch_size, 0, 0)
        self.say(
            f"model: {self.model_name}, {counted(config.num_hidden_layers, 'layer')} x "
            f"{config.hidden_size}; {self.device}, {dtype}"
            + (f", {counted(self.threads, 'thread')}" if self.device.type == "cpu" else "")
        )
        rows = len(task.train.rows)
        of_rows = f" in {counted(rows, 'row')}" if rows != len(task.train.examples) else ""
        self.say(
            f"data: {counted(len(task.train.examples), 'example')} to train on{of_rows}, "
            f"{len(task.dev.examples):,} in dev; {lengths.mean():.0f} pieces a row, "
            f"{padding_share(lengths, plan):.1%} padding"
        )
        for line in describe_settings(settings, spans=card.kind == "span"):
            self.say(line)
        self.say(f"{counted(task.steps, 'step')}, {task.steps_per_epoch:,} an epoch")

    # -- after ---------------------------------------------------------------------------------

    def _summary(self, task: Task, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        from zhbert.runtime import choose_dtype

        card, config = self.card, self.config
        names = list(results[0]["metrics"])
        metrics = {name: _spread([r["metrics"][name] for r in results]) for name in names}

        def mean(key: str) -> float | None:
            values = [r[key] for r in results if r[key] is not None]
            return statistics.fmean(values) if values else None

        dtype = choose_dtype(task.settings.precision, self.device)
        return {
            "task": card.name,
            "kind": card.kind,
            "title": card.title,
            "model": self.model_name,
            "model_name": short_name(self.model_name),
            "labels": list(card.data.labels),
            "split": "dev",
            "split_note": split_remark(card, "dev", len(task.dev.examples)),
            "further_split_notes": {
                split: note
                for split, prepared in task.also.items()
                if (note := split_remark(card, split, len(prepared.examples)))
            },
            "metrics": metrics,
            "main_metric": card.metrics[0],
            "seeds": [r["seed"] for r in results],
            "settings": flatten(task.settings),
            "parameters": _parameters(config, task.kind),
            "layers": config.num_hidden_layers,
            "hidden_size": config.hidden_size,
            "train_examples": len(task.train.examples),
            "dev_examples": len(task.dev.examples),
            "seconds": mean("seconds"),
            "examples_per_second": mean("examples_per_second"),
            "pieces_per_second": mean("pieces_per_second"),
            "padding_share": mean("padding_share"),
            "precision": str(dtype).removeprefix("torch."),
            "device": str(self.device),
            "dev_sha256": sha256_of(self.files["dev"]),
        }

    def _take_best(self, summaries: Sequence[dict[str, Any] | DivergedError]) -> dict[str, Any]:
        """The grid's best point, by its mean on dev, becomes the run's result."""
        metric = self.card.metrics[0]
        finished = {n: one for n, one in enumerate(summaries) if isinstance(one, dict)}
        if not finished:
            raise ZhbertError(f"every point of the grid failed; the last: {summaries[-1]}")
        best = max(finished, key=lambda number: finished[number]["metrics"][metric]["mean"])
        source = self._folder_of(self.points[best])
        for former in self.folder.glob("seed-*"):
            # Links to another point's: that was the best of a smaller grid.
            shutil.rmtree(former, ignore_errors=True)
        for seed in finished[best]["seeds"]:
            link_folder(source / f"seed-{seed}", self.folder / f"seed-{seed}")
        write_text(self.folder / "settings.toml", (source / "settings.toml").read_text("utf-8"))
        points = [
            {
                "overrides": self._varied(point),
                "folder": str(self._folder_of(point).relative_to(self.folder)),
                **({"metrics": one["metrics"]} if isinstance(one, dict) else {"failed": str(one)}),
            }
            for point, one in zip(self.points, summaries, strict=True)
        ]
        summary = {**finished[best], "grid": points, "best": self._varied(self.points[best])}
        write_json(self.folder / "summary.json", summary)
        return summary


_NAMES_IN_IDENTITY = {"configuration": "model configuration", "vocabulary": "model vocabulary"}
# Of a card: words, figures of others, and settings, since those that were used are compared.
_NOT_COMPARED = {"title", "note", "licence", "official", "published", "settings"}


def _compared(value: Any) -> Any:
    """What decides the examples and their scores."""
    if isinstance(value, dict):
        return {key: one for key, one in value.items() if key not in _NOT_COMPARED}
    return value


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Maximum, mean and the sample's standard deviation, 0 of one value."""
    return {
        "max": max(values),
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "values": list(values),
    }


def link_folder(source: Path, target: Path) -> None:
    """The same files under a second name; copies where the disk has no such links."""

    def link(one: str, other: str) -> str:
        try:
            os.link(one, other)
        except OSError:
            shutil.copyfile(one, other)
        return other

    with atomic_folder(target) as temporary:
        shutil.copytree(source, temporary, copy_function=link, dirs_exist_ok=True)


def _parameters(config: BertConfig, kind: Kind) -> int:
    from zhbert.model.config import count_parameters_by_part

    parts = count_parameters_by_part(config, masked_words=False, sentence_pair=False)
    if kind.architecture != "BertForSequenceClassification":
        del parts["pooler"]
    outputs = 2 if kind.labels is None else len(kind.labels)
    return sum(parts.values()) + outputs * (config.hidden_size + 1)


__all__ = ["Result", "add_arguments", "finetune", "run"]
