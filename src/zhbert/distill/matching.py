"""Which layer of the student is compared with which layer of a teacher, decided before any runs.

Layers are counted from 1; 0 stands for the output of the embeddings.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zhbert.config import DistillSettings, Match
from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig
from zhbert.schema import check_choice
from zhbert.wording import counted, show


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What must be known of a loss before it is computed."""

    hidden: bool = True
    """True: it compares the states that layers put out; False: their queries, keys and values."""
    pairs: bool = False
    """It compares two layers of the student with two of the teacher."""
    equal_widths: bool = False
    """States of another width than the teacher's must be projected to that."""
    equal_heads: bool = False
    """Head is compared with head."""
    default: str = "all"
    """The student's layers where none is named: ``all``, ``last``, or a pair of layers."""


NEEDS: Mapping[str, Needs] = {
    "hidden_mse": Needs(equal_widths=True),
    "cos": Needs(equal_widths=True),
    "pkd": Needs(equal_widths=True),
    "fsp": Needs(equal_widths=True, pairs=True, default="first and last"),
    "nst": Needs(pairs=True, default="last and last"),
    "attention_mse": Needs(hidden=False, equal_heads=True),
    "attention_mse_sum": Needs(hidden=False),
    "attention_ce": Needs(hidden=False, equal_heads=True),
    "attention_ce_mean": Needs(hidden=False),
    "relations": Needs(hidden=False, default="last"),
}
"""The losses in `zhbert.distill.losses.MATCH_LOSSES`, where planning must know them: no torch."""


class MatchedLayers(NamedTuple):
    """The layers of one model that are recorded."""

    hidden: frozenset[int]
    """Those whose states are compared; 0: the embeddings' output."""
    attention: frozenset[int]
    """Those whose queries, keys and values are compared."""


class Term(NamedTuple):
    """One comparison: a layer (for a loss of pairs: two) of each model."""

    student: tuple[int, ...]
    teacher: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PlannedMatch:
    """A match with every default filled in. Its loss is the sum over its terms."""

    name: str
    """Its part of the step's loss: the loss's name, with a number from the second one on."""
    loss: str
    """A name in `NEEDS`."""
    weight: float
    of_teacher: int
    """The teacher's place among several, from 0."""
    terms: tuple[Term, ...]
    projection: str
    """``linear``, ``relu``, ``tanh`` or ``none``: the map of the student's states to the teacher's
    width, one for each term."""
    widths: tuple[int, int]
    """The hidden sizes of student and teacher."""
    heads: tuple[int, int]
    """The numbers of heads of student and teacher; for relations those of the relations."""

    @property
    def needs(self) -> Needs:
        """What its loss compares."""
        return NEEDS[self.loss]

    def describe(self, teachers: int = 1) -> str:
        """Return a line for people; ``teachers`` is the number of all teachers."""
        own, theirs = (_shown(layers) for layers in zip(*self.terms, strict=True))
        line = f"{self.name}: student {own} <- teacher {theirs}"
        if teachers > 1:
            plural = "s" if len(self.terms) > 1 or self.needs.pairs else ""
            whose = f"teacher {self.of_teacher + 1}'s layer{plural}"
            line = f"{self.name}: student {own} <- {whose} {theirs}"
        if self.projection != "none":
            line += f"; {self.projection} {self.widths[0]} -> {self.widths[1]}"
        if self.loss == "relations":
            line += f"; {counted(self.heads[0], 'relation head')}"
        return line + (f"; weight {self.weight:g}" if self.weight != 1 else "")


@dataclass(frozen=True)
class MatchPlan:
    """All matches of a run."""

    matches: tuple[PlannedMatch, ...] = ()
    teachers: int = 1
    """Number of teachers."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the matches as parts of the step's loss."""
        return tuple(match.name for match in self.matches)

    @property
    def weights(self) -> tuple[float, ...]:
        """The factor of each match in the step's loss."""
        return tuple(match.weight for match in self.matches)

    @property
    def num_parameters(self) -> int:
        """Number of parameters of all projections."""
        return sum(
            len(match.terms) * (match.widths[0] + 1) * match.widths[1]
            for match in self.matches
            if match.projection != "none"
        )

    @property
    def student(self) -> MatchedLayers:
        """The student's layers that are compared."""
        return _layers(
            (match.needs, term.student) for match in self.matches for term in match.terms
        )

    def teacher(self, number: int = 0) -> MatchedLayers:
        """Return the layers of one teacher that are compared; ``number`` counts from 0."""
        mine = [match for match in self.matches if match.of_teacher == number]
        return _layers((match.needs, term.teacher) for match in mine for term in match.terms)

    def describe(self) -> list[str]:
        """Return a line for people for each match: which layers, and how states are projected."""
        return [match.describe(self.teachers) for match in self.matches]


def plan_matches(
    settings: DistillSettings, student: BertConfig, teachers: Sequence[BertConfig]
) -> MatchPlan:
    """Decide which layers are compared.

    >>> small = BertConfig(num_hidden_layers=2, hidden_size=128, num_attention_heads=2)
    >>> large = BertConfig(num_hidden_layers=4, hidden_size=256, num_attention_heads=4)
    >>> settings = DistillSettings(matches=(Match(loss="hidden_mse"), Match(loss="relations")))
    >>> for line in plan_matches(settings, small, [large]).describe():
    ...     print(line)
    hidden_mse: student 1, 2 <- teacher 2, 4; linear 128 -> 256
    relations: student 2 <- teacher 4; 4 relation heads

    Raises:
        ZhbertError: an unknown loss, a layer, teacher or head that does not exist, more layers than
            the student has, or models that this loss cannot compare.
    """
    planned: list[PlannedMatch] = []
    for number, match in enumerate(settings.matches, start=1):
        check_choice(match.loss, NEEDS, f"distill.matches, entry {number}: loss")
        where = f"distill.matches, entry {number} ({match.loss})"
        if not 1 <= match.of_teacher <= len(teachers):
            raise ZhbertError(
                f"{where}: of_teacher = {match.of_teacher}: must be from 1 to the number of "
                f"teachers, which is {len(teachers)}"
            )
        times = sum(other.loss == match.loss for other in planned) + 1
        name = match.loss if times == 1 else f"{match.loss}_{times}"
        planned.append(_planned(match, name, student, teachers[match.of_teacher - 1], where))
    numbers: Counter[tuple[str, int]] = Counter()
    for one in planned:
        numbers[one.loss, one.of_teacher] += len(one.terms)
        number, where = numbers[one.loss, one.of_teacher], f"distill.matches: {one.loss}"
        _check_number(number, student.num_hidden_layers, one.needs, where)
    return MatchPlan(tuple(planned), len(teachers))


def _planned(
    match: Match, name: str, student: BertConfig, teacher: BertConfig, where: str
) -> PlannedMatch:
    """Fill in the defaults of one match, and check it."""
    needs = NEEDS[match.loss]
    return PlannedMatch(
        name=name,
        loss=match.loss,
        weight=match.weight,
        of_teacher=match.of_teacher - 1,
        terms=_terms(match, needs, student.num_hidden_layers, teacher.num_hidden_layers, where),
        projection=_projection(match, needs, student, teacher, where),
        widths=(student.hidden_size, teacher.hidden_size),
        heads=_heads(match, needs, student, teacher, where),
    )


def _terms(
    match: Match, needs: Needs, layers: int, of_teacher: int, where: str
) -> tuple[Term, ...]:
    """Return which layers are compared, of models with so many."""
    own = match.student or _default_layers(needs, layers)
    _check_number(max(len(own), len(match.teacher)), layers, needs, where)
    _check_layers("student", own, layers, needs, where)
    # Half a layer is rounded up.
    theirs = match.teacher or tuple((2 * i * of_teacher + layers) // (2 * layers) for i in own)
    _check_layers("teacher", theirs, of_teacher, needs, where)
    if len(own) != len(theirs):
        raise ZhbertError(
            f"{where}: student = {show(own)}, teacher = {show(theirs)}: "
            f"{counted(len(own), 'layer')} and {len(theirs)}; name as many of both"
        )
    width = 2 if needs.pairs else 1
    terms = [Term(own[i : i + width], theirs[i : i + width]) for i in range(0, len(own), width)]
    ((layer, times),) = Counter(term.student for term in terms).most_common(1)
    if times > 1:
        raise ZhbertError(
            f"{where}: student = {show(own)}: {show(layer if needs.pairs else layer[0])} is there "
            "more than once"
        )
    return tuple(terms)


def _default_layers(needs: Needs, layers: int) -> tuple[int, ...]:
    return {
        "all": tuple(range(1, layers + 1)),
        "last": (layers,),
        "first and last": (0, layers),
        "last and last": (layers, layers),
    }[needs.default]


def _check_layers(whose: str, layers: Sequence[int], number: int, needs: Needs, where: str) -> None:
    """Refuse layers that do not exist, and half a pair."""
    if needs.pairs and len(layers) % 2:
        raise ZhbertError(
            f"{where}: {whose} = {show(layers)}: this loss compares pairs of layers; write two for "
            f"each, such as [0, {number}]"
        )
    least = 0 if needs.hidden else 1
    missing = [layer for layer in layers if not least <= layer <= number]
    if missing:
        first = "0 (the embeddings)" if needs.hidden else "1"
        raise ZhbertError(
            f"{where}: {whose} = {show(layers)}: no layer {missing[0]}"
            f"{' with attention' if missing[0] == 0 else ''}: the {whose} has "
            f"{counted(number, 'layer')}; write numbers from {first} to {number}"
        )


def _projection(
    match: Match, needs: Needs, student: BertConfig, teacher: BertConfig, where: str
) -> str:
    """Return the kind of projection that a match has."""
    own, theirs = student.hidden_size, teacher.hidden_size
    differ = needs.equal_widths and own != theirs
    if match.projection == "auto":
        return "linear" if differ else "none"
    if match.projection == "none":
        if differ:
            raise ZhbertError(
                f'{where}: projection = "none": the student is {own} wide and the teacher '
                f'{theirs}; write projection = "linear", or leave it out'
            )
    elif not needs.hidden:
        raise ZhbertError(
            f"{where}: projection = {show(match.projection)}: this loss compares attention, and "
            "only states are projected; leave it out"
        )
    return match.projection


def _heads(
    match: Match, needs: Needs, student: BertConfig, teacher: BertConfig, where: str
) -> tuple[int, int]:
    """Return the numbers of heads by which student and teacher are compared."""
    own, theirs = student.num_attention_heads, teacher.num_attention_heads
    if match.loss != "relations":
        if match.heads:
            raise ZhbertError(
                f"{where}: heads = {match.heads}: only relations take a number of heads; leave it "
                "out"
            )
        if needs.equal_heads and own != theirs:
            other = {"attention_mse": "attention_mse_sum", "attention_ce": "attention_ce_mean"}
            raise ZhbertError(
                f"{where}: the student has {counted(own, 'head')} and the teacher {theirs}; use "
                f"{other[match.loss]}, or relations, which need not have as many"
            )
        return own, theirs
    heads = match.heads or theirs
    common = math.gcd(student.hidden_size, teacher.hidden_size)
    if common % heads:
        fitting = max(number for number in range(1, heads) if common % number == 0)
        raise ZhbertError(
            f"{where}: {counted(heads, 'relation head')}: they must divide the student's "
            f"width {student.hidden_size} and the teacher's {teacher.hidden_size}; write heads = "
            f"{fitting}"
        )
    return heads, heads


def _check_number(number: int, layers: int, needs: Needs, where: str) -> None:
    """Refuse to match more layers than the student has."""
    if not needs.pairs and number > layers + needs.hidden:
        embeddings = " (and 0, the embeddings)" if needs.hidden else ""
        raise ZhbertError(
            f"{where}: {number} layers are matched, but the student has {layers}{embeddings}: name "
            "each at most once"
        )


def _layers(compared: Iterable[tuple[Needs, Sequence[int]]]) -> MatchedLayers:
    """Collect the layers that losses compare."""
    numbers: dict[bool, set[int]] = {True: set(), False: set()}
    for needs, layers in compared:
        numbers[needs.hidden].update(layers)
    return MatchedLayers(frozenset(numbers[True]), frozenset(numbers[False]))


def _shown(layers: Iterable[Sequence[int]]) -> str:
    """Write layers, or pairs of layers, for people.

    >>> _shown([(1,), (2,)]), _shown([(0, 2)])
    ('1, 2', '0 and 2')
    """
    return ", ".join(" and ".join(map(str, one)) for one in layers)
