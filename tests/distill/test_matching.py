"""Which layers are compared, what people are told of it, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from zhbert.config import MATCH_NAMES, DistillSettings, Match
from zhbert.distill.matching import NEEDS, MatchPlan, plan_matches
from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig

STUDENT = BertConfig(num_hidden_layers=3, hidden_size=128, num_attention_heads=2)
TEACHER = BertConfig(num_hidden_layers=12, hidden_size=768, num_attention_heads=12)
SMALL_TEACHER = BertConfig(num_hidden_layers=4, hidden_size=128, num_attention_heads=4)


def plan(
    *matches: Match, student: BertConfig = STUDENT, teachers: tuple[BertConfig, ...] = (TEACHER,)
) -> MatchPlan:
    return plan_matches(DistillSettings(matches=matches), student, teachers)


@pytest.mark.parametrize(
    ("match", "line"),
    [
        (Match(), "hidden_mse: student 1, 2, 3 <- teacher 4, 8, 12; linear 128 -> 768"),
        (
            Match(loss="cos", student=(0, 3), projection="tanh", weight=0.5),
            "cos: student 0, 3 <- teacher 0, 12; tanh 128 -> 768; weight 0.5",
        ),
        (
            Match(loss="pkd", student=(3, 1), teacher=(2, 2)),
            "pkd: student 3, 1 <- teacher 2, 2; linear 128 -> 768",
        ),
        (Match(loss="fsp"), "fsp: student 0 and 3 <- teacher 0 and 12; linear 128 -> 768"),
        (
            Match(loss="fsp", student=(0, 1, 1, 3), teacher=(0, 2, 2, 4), projection="relu"),
            "fsp: student 0 and 1, 1 and 3 <- teacher 0 and 2, 2 and 4; relu 128 -> 768",
        ),
        (Match(loss="nst"), "nst: student 3 and 3 <- teacher 12 and 12"),
        (
            Match(loss="attention_mse_sum"),
            "attention_mse_sum: student 1, 2, 3 <- teacher 4, 8, 12",
        ),
        (Match(loss="relations", heads=8), "relations: student 3 <- teacher 12; 8 relation heads"),
        (
            Match(loss="relations", teacher=(11,), heads=1),
            "relations: student 3 <- teacher 11; 1 relation head",
        ),
    ],
)
def test_a_plan_says_what_is_compared(match: Match, line: str) -> None:
    assert plan(match).describe() == [line]


@pytest.mark.parametrize(
    ("student", "teacher", "layers"),
    [
        (2, 4, (2, 4)),
        (3, 12, (4, 8, 12)),
        (4, 6, (2, 3, 5, 6)),
        (8, 12, (2, 3, 5, 6, 8, 9, 11, 12)),
        (4, 2, (1, 1, 2, 2)),
        (6, 6, (1, 2, 3, 4, 5, 6)),
    ],
)
def test_the_teachers_layers_are_spread_evenly(
    student: int, teacher: int, layers: tuple[int, ...]
) -> None:
    configs = [BertConfig(num_hidden_layers=number) for number in (student, teacher)]
    found = plan(Match(), student=configs[0], teachers=(configs[1],))
    assert tuple(term.teacher[0] for term in found.matches[0].terms) == layers


def test_no_projection_where_the_widths_are_equal() -> None:
    assert plan(Match(), teachers=(SMALL_TEACHER,)).matches[0].projection == "none"


def test_several_teachers_and_matches() -> None:
    found = plan(
        Match(student=(1,), of_teacher=2),
        Match(student=(1,), weight=2.0),
        Match(loss="attention_ce_mean", student=(2,)),
        teachers=(TEACHER, SMALL_TEACHER),
    )
    assert found.names == ("hidden_mse", "hidden_mse_2", "attention_ce_mean")
    assert found.weights == (1.0, 2.0, 1.0)
    assert found.student == ({1}, {2})
    assert found.teacher(0) == ({4}, {8})
    assert found.teacher(1) == ({1}, set())
    assert found.describe() == [
        "hidden_mse: student 1 <- teacher 2's layer 1",
        "hidden_mse_2: student 1 <- teacher 1's layer 4; linear 128 -> 768; weight 2",
        "attention_ce_mean: student 2 <- teacher 1's layer 8",
    ]


def test_nothing_to_match_is_a_plan() -> None:
    assert plan().names == ()
    assert plan().student == (frozenset(), frozenset())


ENTRY = "distill.matches, entry 1"


@pytest.mark.parametrize(
    ("match", "error"),
    [
        (
            {"loss": "hidden_mes"},
            f"{ENTRY}: loss = \"hidden_mes\": not a choice; did you mean 'hidden_mse'?",
        ),
        (
            {"student": (1, 4)},
            f"{ENTRY} (hidden_mse): student = [1, 4]: no layer 4: the student has 3 layers; write "
            "numbers from 0 (the embeddings) to 3",
        ),
        (
            {"student": (1,), "teacher": (13,)},
            f"{ENTRY} (hidden_mse): teacher = [13]: no layer 13: the teacher has 12 layers; write "
            "numbers from 0 (the embeddings) to 12",
        ),
        (
            {"loss": "attention_mse_sum", "student": (0,)},
            f"{ENTRY} (attention_mse_sum): student = [0]: no layer 0 with attention: the student "
            "has 3 layers; write numbers from 1 to 3",
        ),
        (
            {"student": (1, 2), "teacher": (1, 2, 3)},
            f"{ENTRY} (hidden_mse): student = [1, 2], teacher = [1, 2, 3]: 2 layers and 3; name as "
            "many of both",
        ),
        (
            {"teacher": (1, 2, 3, 4, 5)},
            f"{ENTRY} (hidden_mse): 5 layers are matched, but the student has 3 (and 0, the "
            "embeddings): name each at most once",
        ),
        (
            {"loss": "relations", "student": (1, 2, 3, 1)},
            f"{ENTRY} (relations): 4 layers are matched, but the student has 3: name each at most "
            "once",
        ),
        (
            {"student": (1, 1), "teacher": (1, 2)},
            f"{ENTRY} (hidden_mse): student = [1, 1]: 1 is there more than once",
        ),
        (
            {"loss": "nst", "student": (1, 2, 1, 2)},
            f"{ENTRY} (nst): student = [1, 2, 1, 2]: [1, 2] is there more than once",
        ),
        (
            {"loss": "fsp", "student": (0, 1, 2)},
            f"{ENTRY} (fsp): student = [0, 1, 2]: this loss compares pairs of layers; write two "
            "for each, such as [0, 3]",
        ),
        (
            {"projection": "none"},
            f'{ENTRY} (hidden_mse): projection = "none": the student is 128 wide and the teacher '
            '768; write projection = "linear", or leave it out',
        ),
        (
            {"loss": "relations", "projection": "linear"},
            f'{ENTRY} (relations): projection = "linear": this loss compares attention, and only '
            "states are projected; leave it out",
        ),
        (
            {"loss": "attention_ce"},
            f"{ENTRY} (attention_ce): the student has 2 heads and the teacher 12; use "
            "attention_ce_mean, or relations, which need not have as many",
        ),
        (
            {"loss": "relations"},
            f"{ENTRY} (relations): 12 relation heads: they must divide the student's width 128 and "
            "the teacher's 768; write heads = 8",
        ),
        (
            {"loss": "cos", "heads": 4},
            f"{ENTRY} (cos): heads = 4: only relations take a number of heads; leave it out",
        ),
        (
            {"of_teacher": 2},
            f"{ENTRY} (hidden_mse): of_teacher = 2: must be from 1 to the number of teachers, "
            "which is 1",
        ),
    ],
)
def test_an_impossible_match_is_refused_in_one_line(match: dict[str, Any], error: str) -> None:
    with pytest.raises(ZhbertError) as caught:
        plan(Match(**match))
    assert str(caught.value) == error


def test_more_matches_than_the_student_has_layers_are_refused() -> None:
    with pytest.raises(ZhbertError) as caught:
        plan(Match(loss="cos"), Match(loss="cos", teacher=(1, 2, 3)))
    assert str(caught.value) == (
        "distill.matches: cos: 6 layers are matched, but the student has 3 (and 0, the "
        "embeddings): name each at most once"
    )


def test_planning_needs_no_torch() -> None:
    code = "import sys, zhbert.distill.matching; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_loss_can_be_planned() -> None:
    assert set(NEEDS) == set(MATCH_NAMES)
    for name in NEEDS:
        assert plan(Match(loss=name), student=TEACHER).names == (name,)
