"""Pretraining with a teacher: hard labels, soft labels and matches of layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from zhbert.config import DistillSettings
from zhbert.data.loader import MaskedBatch
from zhbert.distill.cache import TaughtBatch
from zhbert.distill.initial_weights import take_embeddings
from zhbert.distill.matcher import Projections, match_counts, match_sums
from zhbert.distill.matching import MatchPlan, plan_matches
from zhbert.distill.schedules import part_weights
from zhbert.distill.teacher import Teacher, open_teacher
from zhbert.distill.teacher_folder import (
    StudentRows,
    TeacherFolder,
    check_fills_masks,
    check_memory,
    find_teacher,
)
from zhbert.distill.temperature import temperatures
from zhbert.errors import ZhbertError
from zhbert.model.attention import RowLayout
from zhbert.model.config import BertConfig
from zhbert.model.distilled_loss import BestPieces, best_pieces
from zhbert.model.pretrained import BertForPreTraining
from zhbert.model.recording import Recording, recording
from zhbert.pretraining.check_distillation import describe_soft_labels
from zhbert.pretraining.objective import PretrainingObjective
from zhbert.pretraining.setup import RunSetup
from zhbert.runs.provenance import read_provenance
from zhbert.runtime import total_memory
from zhbert.wording import counted
from zhbert.zoo import locate


@dataclass
class Teaching:
    """The teachers of a run, and what the student learns from them."""

    setup: RunSetup
    settings: DistillSettings
    teachers: Sequence[Teacher[BertForPreTraining]] = ()
    """Opened when the student is there."""
    plan: MatchPlan = field(default_factory=MatchPlan)
    """The matches of layers, planned then."""
    identities: dict[str, str] = field(default_factory=dict)
    """The hash of each teacher, by its name."""

    @classmethod
    def of(cls, setup: RunSetup) -> Teaching | None:
        """Return the teaching that the recipe describes; None if it has no ``[distill]``."""
        settings = setup.recipe.distill
        if settings is None:
            return None
        if not settings.teachers:
            raise ZhbertError(
                f"{setup.recipe_file}: [distill] needs a teacher: 'zhbert distill' takes one, "
                "--teacher MODEL"
            )
        return cls(setup, settings)

    def add_to(self, student: BertForPreTraining) -> None:
        """Open the teachers, plan the matches, and add to the student what only they train.

        Raises:
            ZhbertError: a teacher does not fit the student, the rows or the memory.
        """
        found = self._find(student.config)
        self.plan = plan_matches(
            self.settings, student.config, [teacher.config for teacher in found]
        )
        parameters = sum(p.numel() for p in student.parameters())
        self.identities = {one.name: one.identity for one in found}
        self._check_begun_with()
        device = self.setup.ranks.device
        check_memory(found, parameters, total_memory(device))
        self.teachers = [
            open_teacher(
                one,
                BertForPreTraining,
                device=device,
                dtype=self.setup.dtype,
                rows=student.config.vocab_size,
            )
            for one in found
        ]
        student.add_matching(Projections(self.plan, self.setup.recipe.seed))

    def _find(self, student: BertConfig) -> list[TeacherFolder]:
        """Find the teachers; the first process downloads them."""
        setup, settings = self.setup, self.settings
        rows = StudentRows(
            tokenizer=setup.tokenizer,
            counts=setup.corpus.piece_counts,
            longest=setup.recipe.sequence_length,
            pairs=setup.recipe.rows.builder == "pairs",
        )
        found = []
        for name in settings.teachers:
            setup.ranks.on_first(partial(find_teacher, name, quiet=setup.quiet))
            teacher = find_teacher(name, rows, settings)
            _check_other_model(setup.recipe.initial_model, student, teacher)
            if settings.soft_labels != "none":
                check_fills_masks(teacher)
            if teacher.vocabulary is not None and not teacher.vocabulary.is_identity:
                setup.say(f"{teacher.name}: {teacher.vocabulary}")
            found.append(teacher)
        return found

    def _check_begun_with(self) -> None:
        """Raise a ZhbertError if a resumed run's teacher has changed."""
        folder = self.setup.folder.path
        begun = read_provenance(folder).get("teachers") if self.setup.resumes else None
        for name, identity in self.identities.items():
            if isinstance(begun, dict) and begun.get(name, identity) != identity:
                raise ZhbertError(
                    f"--teacher {name}: not the teacher that {folder} was begun with: its files "
                    "have changed; give that one, or begin another run"
                )

    def begin(self, student: BertForPreTraining) -> str:
        """Give random weights the teacher's embeddings, if asked to; return a line about both."""
        setup, teacher = self.setup, self.teachers[0]
        width, theirs = student.config.hidden_size, teacher.config.hidden_size
        if setup.recipe.initial_weights == "teacher":
            share = take_embeddings(student, teacher.model, setup.corpus.piece_counts)
            return (
                f"the student's embeddings are the {width} principal components of the "
                f"teacher's, which keep {share:.1%} of their squared length"
            )
        line = "note: the student starts from random weights, and learns much sooner from "
        if width == theirs and student.config.num_hidden_layers < teacher.config.num_hidden_layers:
            return line + f"the teacher's first layers: initial_model={teacher.name}"
        return line + "the teacher's embeddings: initial_weights=teacher"

    def describe(self, vocabulary_size: int) -> Iterator[str]:
        """Yield lines for people; ``vocabulary_size`` is the student's."""
        for teacher in self.teachers:
            layers = counted(teacher.config.num_hidden_layers, "layer")
            yield f"teacher: {teacher.name}, {layers} x {teacher.config.hidden_size}"
        yield f"soft labels: {describe_soft_labels(self.settings, vocabulary_size)}"
        yield from self.plan.describe()


def _check_other_model(initial_model: str, student: BertConfig, teacher: TeacherFolder) -> None:
    """Raise a ZhbertError if the student starts as the whole of its own teacher."""
    if not initial_model or student.num_hidden_layers < teacher.config.num_hidden_layers:
        return
    if locate(initial_model).samefile(teacher.folder):
        raise ZhbertError(
            f"--teacher {teacher.name}: the student starts from the same folder, with all of its "
            "layers: a model has nothing to learn from itself; set model.num_hidden_layers, or "
            "give another teacher"
        )


class DistillationObjective:
    """The losses of pretraining, and of what the student learns from its teachers.

    Its parts are those of pretraining, ``soft_labels``, and one for each match.

    Args:
        usual: the losses that need no teacher.
        teaching: the teachers, with a plan.
    """

    def __init__(self, usual: PretrainingObjective, teaching: Teaching) -> None:
        self._usual, self._plan = usual, teaching.plan
        self._settings, self._teaching = teaching.settings, teaching
        self._soft = self._settings.soft_labels != "none"
        constant = self._settings.temperature_schedule == "constant"
        self._temperature = (
            self._settings.temperature
            if constant
            else partial(temperatures, settings=self._settings)
        )
        self.parts = (*usual.parts, *(("soft_labels",) if self._soft else ()), *self._plan.names)

    def counts(self, batch: MaskedBatch) -> tuple[int, ...]:
        """Count the masked pieces, the pairs, the soft labels, and what each match compares."""
        soft = (len(batch.labels),) if self._soft else ()
        return (*self._usual.counts(batch), *soft, *match_counts(self._plan, batch.packed))

    def pieces(self, batch: MaskedBatch) -> int:
        """Count all pieces."""
        return self._usual.pieces(batch)

    def weights(self, progress: float) -> tuple[float, ...]:
        """Return the factor of each part when ``progress`` (0 to 1) of the run is done."""
        return part_weights(self._settings, self._plan, progress, len(self._usual.parts))

    def __call__(self, model: nn.Module, batch: MaskedBatch, seed: int) -> tuple[Tensor, Tensor]:
        """Return (parts,) sums of losses, and (parts,) counts of correct predictions."""
        assert isinstance(model, BertForPreTraining)
        soft_labels, taught = self._ask(batch)
        model.set_dropout_seed(seed, batch.first_row)
        pairs = batch.next_sentence_labels
        with recording(model.encoder, *self._plan.student) as learnt:
            predicted, first = model.states_for_heads(
                batch.packed, batch.predicted_positions, with_first=pairs is not None
            )
        words = model.encoder.embeddings.words.weight
        candidates = self._usual.candidates(model, batch, seed)
        soft = []
        if soft_labels is None:
            hard, correct = model.mlm_head.loss(predicted, words, batch.labels, candidates)
        else:
            hard, correct, loss = model.mlm_head.distilled_loss(
                predicted,
                words,
                batch.labels,
                soft_labels,
                kind=self._settings.soft_labels,
                temperature=self._temperature,
                candidates=candidates,
            )
            soft = [loss.float()]
        of_pairs, pairs_correct = model.next_sentence_loss(first, pairs)
        nothing = hard.new_zeros(())
        sums = torch.stack([hard, nothing if of_pairs is None else of_pairs, *soft])
        projections = cast(Projections, model.matching)
        layout = RowLayout.of_batch(batch.packed)
        matched = match_sums(self._plan, projections, learnt, taught, layout)
        right = torch.zeros(len(self.parts), device=sums.device)
        right[0] = correct
        if pairs_correct is not None:
            right[1] = pairs_correct
        return torch.cat((sums, matched)), right

    def best_pieces(self, batch: MaskedBatch) -> BestPieces:
        """Return the teachers' best pieces at the predicted positions, to be cached."""
        found, _ = self._ask(batch)
        assert isinstance(found, BestPieces)
        return found

    @torch.no_grad()
    def _ask(self, batch: MaskedBatch) -> tuple[Tensor | BestPieces | None, list[Recording]]:
        """Return the teachers' soft labels, and what was recorded inside each of them."""
        if isinstance(batch, TaughtBatch):
            return batch.best, []
        kept: list[Recording] = []
        scores: Tensor | None = None
        # The teachers' weights have the precision of the products already.
        with torch.autocast(batch.labels.device.type, enabled=False):
            for number, teacher in enumerate(self._teaching.teachers):
                model = teacher.model
                with recording(model.encoder, *self._plan.teacher(number)) as one:
                    hidden, _ = model.states_for_heads(
                        batch.packed, batch.predicted_positions, with_first=False
                    )
                kept.append(one)
                if not self._soft:
                    continue
                words = model.encoder.embeddings.words.weight
                if len(self._teaching.teachers) == 1:
                    head, k = model.mlm_head, self._settings.top_k
                    best = head.best(hidden, words, k) if k else head.scores(hidden, words)
                    return best, kept
                own = self._weighed(model.mlm_head.scores(hidden, words).float())
                scores = own if scores is None else scores.add_(own)
        if scores is None:
            return None, kept
        if self._settings.soft_labels == "ce":
            # Logits of the mean distribution under the temperature.
            smallest = torch.finfo(scores.dtype).tiny
            scores = scores.clamp_(min=smallest).log_().mul_(self._settings.temperature)
        return (best_pieces(scores, self._settings.top_k) if self._settings.top_k else scores), kept

    def _weighed(self, scores: Tensor) -> Tensor:
        """Return one of several teachers' share of the mean: of logits, or of probabilities."""
        if self._settings.soft_labels == "ce":
            scores = torch.softmax(scores / self._settings.temperature, dim=1)
        return scores / len(self._teaching.teachers)
