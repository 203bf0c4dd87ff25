"""Distilled runs: their losses by part, and teacher, student and student alone in one table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.report.run_folders import fine_tuning_run, pretraining_run, write_json, write_lines

from zhbert.report.build import Report, gather
from zhbert.report.comparison import compare_runs
from zhbert.report.page import page
from zhbert.report.write import as_data, comma_separated, markdown


def taught_by(*folders: Path) -> list[dict[str, str]]:
    """What summary.json of a distilled run says of its teachers, which are seeds' models."""
    for folder in folders:
        folder.mkdir(exist_ok=True)
    return [{"name": str(folder), "folder": str(folder.resolve())} for folder in folders]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """A teacher whose second seed taught, the student alone, and the distilled student."""
    teacher = fine_tuning_run(tmp_path / "base-lcqmc", right=[0.8, 0.95], model_name="base")
    alone = fine_tuning_run(tmp_path / "alone", "lcqmc", "tiny", right=[0.6, 0.62], examples=60)
    distilled = fine_tuning_run(
        tmp_path / "distilled", "lcqmc", "tiny", right=[0.8, 0.75],
        teachers=taught_by(teacher / "seed-1" / "final"),
    )  # fmt: skip
    return [teacher, alone, distilled]


def mean(report: Report, place: int) -> float:
    return report.fine_tuning[place].scores["accuracy"].mean


def test_the_gap_closed_is_between_the_seed_that_taught_and_the_student_alone(
    folders: list[Path],
) -> None:
    report = gather(folders)
    (one,) = report.distillations
    assert one.taught == report.fine_tuning[0].scores["accuracy"].values[1]
    assert one.difference is not None
    assert one.difference.result is not None
    alone, distilled = mean(report, 1), mean(report, 2)
    assert one.difference.result.difference == pytest.approx(distilled - alone)
    assert one.closed == pytest.approx(100 * (distilled - alone) / (one.taught - alone))
    (row,) = (
        line
        for line in markdown(report).splitlines()
        if line.startswith("| tiny, distilled |") and "%" in line
    )
    for shown in (f"{one.taught:.2f}", f"{alone:.2f}", f"{distilled:.2f}", f"{one.closed:.0f} %"):
        assert shown in row
    assert "蒸馏" in page(report)
    (data,) = as_data(report, [])["distillations"]
    assert data["gap_closed"] == one.closed
    assert data["alone_run"] == str(folders[1])


def test_of_several_teachers_the_best_is_shown(folders: list[Path], tmp_path: Path) -> None:
    worse = fine_tuning_run(tmp_path / "worse", right=[0.7])
    both = taught_by(worse / "seed-0" / "final", folders[0] / "seed-1" / "final")
    student = fine_tuning_run(tmp_path / "both", "lcqmc", "tiny", right=[0.8], teachers=both)
    (one,) = gather([folders[0], worse, student]).distillations
    assert one.teacher == "base-lcqmc"
    assert one.alone is None
    assert "no run of the student alone here" in markdown(gather([worse, student]))


def test_of_several_tasks_the_sums_of_gains_and_gaps_are_divided(
    folders: list[Path], tmp_path: Path
) -> None:
    teacher = fine_tuning_run(tmp_path / "base-bq", "bq", "base", right=[0.95])
    alone = fine_tuning_run(tmp_path / "alone-bq", "bq", "tiny", right=[0.5])
    teachers = taught_by(teacher / "seed-0" / "final")
    student = fine_tuning_run(tmp_path / "student-bq", "bq", "tiny", right=[0.8], teachers=teachers)
    report = gather([*folders, teacher, alone, student])
    (gain, gap), (other_gain, other_gap) = (one.gain_and_gap for one in report.distillations)
    share = 100 * (gain + other_gain) / (gap + other_gap)
    text = markdown(report).partition("| *all tasks together* |")[2]
    assert f"| tiny, distilled |  |  |  |  |  |  | {share:.0f} %, 2 tasks |" in text
    assert "| *all tasks together* |" not in markdown(gather(folders))


def test_what_was_scored_on_other_examples_is_neither_teacher_nor_alone(tmp_path: Path) -> None:
    teacher = fine_tuning_run(tmp_path / "t", right=[0.9], dev_sha256="f" * 64)
    alone = fine_tuning_run(tmp_path / "a", "lcqmc", "tiny", right=[0.5], dev_sha256="f" * 64)
    teachers = taught_by(teacher / "seed-0" / "final")
    student = fine_tuning_run(tmp_path / "d", "lcqmc", "tiny", right=[0.8], teachers=teachers)
    (one,) = gather([teacher, alone, student]).distillations
    assert (one.taught, one.alone, one.closed) == (None, None, None)


def test_a_teacher_that_is_no_better_leaves_no_gap(tmp_path: Path) -> None:
    teacher = fine_tuning_run(tmp_path / "t", right=[0.3])
    alone = fine_tuning_run(tmp_path / "a", "lcqmc", "tiny", right=[0.9])
    teachers = taught_by(teacher / "seed-0" / "final")
    student = fine_tuning_run(tmp_path / "d", "lcqmc", "tiny", right=[0.9], teachers=teachers)
    (one,) = gather([teacher, alone, student]).distillations
    assert one.difference is not None
    assert one.closed is None


def test_of_several_tasks_the_same_without_teachers_are_compared(
    folders: list[Path], tmp_path: Path
) -> None:
    teachers = taught_by(folders[0] / "seed-1" / "final")
    facts = {"together": ["lcqmc", "bq"]}
    plain = fine_tuning_run(tmp_path / "plain", "lcqmc", "tiny", right=[0.7], **facts)
    other = fine_tuning_run(tmp_path / "other", "lcqmc", "tiny", together=["lcqmc", "ocnli"])
    taught = fine_tuning_run(tmp_path / "s", "lcqmc", "tiny", teachers=teachers, **facts)
    for given, expected in (
        ([folders[1], other, plain], plain),
        ([other, folders[1]], folders[1]),
        ([other], None),
    ):
        (one,) = gather([*given, taught]).distillations
        assert (one.alone.folder if one.alone else None) == expected


def test_distilled_and_alone_are_rows_of_their_own_in_every_task(
    folders: list[Path], tmp_path: Path
) -> None:
    other = fine_tuning_run(tmp_path / "other", "ocnli", "tiny", teachers=taught_by(tmp_path))
    report = gather([*folders, other], "tiny")
    assert [row.model for row in report.table.ours] == ["base", "tiny", "tiny, distilled"]
    assert {column.task for column in report.table.ours[2].scores} == {"lcqmc", "ocnli"}
    assert report.base is not None
    assert report.base.model == "tiny"
    assert "tiny, distilled" in comma_separated(report)


def test_compare_takes_a_distilled_and_a_plain_run(folders: list[Path]) -> None:
    found = compare_runs(folders[2], folders[1])
    assert found["difference"] > 0
    assert found["a"]["model_name"] == "tiny, distilled"
    assert found["same_weights_at_first"]


def test_damaged_teachers_are_none(tmp_path: Path) -> None:
    teachers = [None, {"folder": 3}, {}, {"name": "x"}]
    report = gather([fine_tuning_run(tmp_path / "run", teachers=teachers)])
    assert report.distillations == ()


def test_a_model_pretrained_by_distillation_shows_its_teacher(tmp_path: Path) -> None:
    pretraining = pretraining_run(tmp_path / "small", teachers=["runs/base/final", "hfl/rbt3"])
    run = fine_tuning_run(tmp_path / "run", "lcqmc", "small")
    origin = json.loads((run / "provenance.json").read_text())
    origin["model_folder"] = str(pretraining / "final")
    write_json(run / "provenance.json", origin)
    text = markdown(gather([run]))
    assert "small: pretrained by distillation from base, rbt3" in text
    assert "2 x 128 from base, rbt3" in markdown(gather([pretraining]))


# -- losses ----------------------------------------------------------------------------------------


def drawn(text: str) -> list[str]:
    """What the chart of the parts of a loss draws, in words."""
    return re.findall(r"<desc[^>]*>mean loss by steps\. (.*?)</desc>", text)


def test_every_part_of_a_pretraining_loss_is_drawn_by_step(tmp_path: Path) -> None:
    folder = pretraining_run(tmp_path / "run", steps=120, planned=120, teachers=["base"])
    (found,) = drawn(page(gather([folder])))
    loss = 5.5 + 4 / 120**0.5
    assert found == (
        f"weighted sum: {3 * loss + 1 / 120:.4g} at 120, masked_lm: {loss:.4g} at 120, "
        f"soft_labels: {2 * loss:.4g} at 120, hidden_mse: 0.008333 at 120."
    )


def test_a_loss_of_one_part_has_no_chart_of_parts(tmp_path: Path) -> None:
    runs = [pretraining_run(tmp_path / "p"), fine_tuning_run(tmp_path / "f")]
    assert drawn(page(gather(runs))) == []


def test_parts_of_fine_tuning_are_means_over_the_seeds(tmp_path: Path) -> None:
    run = fine_tuning_run(tmp_path / "run", right=[0.5, 0.6])
    for seed in (0, 1):
        log = [
            {"step": n, "loss": 2.0, "classify_loss": 0.5, "soft_labels_loss": 1.0 + seed}
            for n in range(1, 241)
        ]
        write_lines(run / f"seed-{seed}" / "metrics.jsonl", log)
    (found,) = drawn(page(gather([run])))
    assert found.startswith("weighted sum: 2 at 239.5, classify: 0.5 at 239.5, soft_labels: 1.5")
