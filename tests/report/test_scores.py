"""Scores side by side: what is compared with what, and what is not."""

from __future__ import annotations

import csv
import io
import statistics
from pathlib import Path

import pytest
from tests.report.run_folders import fine_tuning_run, spread

from zhbert.errors import ZhbertError
from zhbert.report.build import gather
from zhbert.report.scores import Column, ScoreRecord, records, score_table
from zhbert.report.write import comma_separated, markdown

ACCURACY = Column("chnsenticorp", "accuracy", "dev", "classify")


def run(folder: Path, task: str, model: str, *values: float, **more: object) -> Path:
    """A run with these values of its first metric, and half of them of the second."""
    from zhbert.tasks.cards import load_card

    metrics = {
        name: spread([value / (1 + place) for value in values])
        for place, name in enumerate(load_card(task).metrics)
    }
    facts = {"metrics": metrics, "seeds": list(range(len(values))), **more}
    return fine_tuning_run(folder, task, model, right=[0.5] * len(values), examples=6, **facts)


def record(found: list[ScoreRecord], **wanted: object) -> ScoreRecord:
    (one,) = [r for r in found if all(getattr(r, key) == v for key, v in wanted.items())]
    return one


def test_a_score_is_the_maximum_and_the_mean_of_the_seeds(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", "lcqmc", "wwm", 80.0, 84.0, 83.5)
    (row,) = gather([folder]).table.rows
    (score,) = row.scores.values()
    assert (score.max, score.seeds) == (84.0, 3)
    assert score.mean == pytest.approx(82.5)
    assert score.std == pytest.approx(statistics.stdev([80.0, 84.0, 83.5]))
    assert "| wwm | 84.00 (82.50) ± 2.18 |" in markdown(gather([folder]))


def test_published_figures_stand_beside_the_same_split(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", "chnsenticorp", "wwm", 80.0, official=True)
    text = markdown(gather([folder]))
    assert "published by chinese-bert-wwm, as printed" in text
    assert "| BERT-wwm | 95.1 (94.5) |" in text
    # Those of the test split alone are nothing for this one.
    assert "RBT3" not in text


def test_published_figures_are_left_out_on_a_cut_and_the_reason_is_given(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", "chnsenticorp", "wwm", 80.0, official=False)
    text = markdown(gather([folder]))
    assert "BERT-wwm" not in text
    assert "not the papers' protocol; published figures are left out" in text


def test_published_figures_of_another_metric_are_named(tmp_path: Path) -> None:
    text = markdown(gather([run(tmp_path / "a", "stsb", "wwm", 80.0, official=True)]))
    assert "stsb: published are unstated of dev, which this is not" in text


def test_a_further_split_has_its_own_published_figures(tmp_path: Path) -> None:
    metrics = {"accuracy": spread([60.0]), "accuracy_mismatched": spread([61.0])}
    folder = run(tmp_path / "a", "mnli", "wwm", 60.0, metrics=metrics, official=True)
    table = gather([folder]).table
    assert [(c.metric, c.split) for c in table.columns] == [
        ("accuracy", "dev"),
        ("accuracy", "dev_mismatched"),
    ]
    tiny = table.find("BERT-Tiny")
    assert len(tiny.scores) == 2
    assert table.ours[0].scores[table.columns[1]].max == 61.0


def test_published_figures_are_left_out_beside_a_cut_of_a_further_split(tmp_path: Path) -> None:
    metrics = {"accuracy": spread([60.0]), "accuracy_mismatched": spread([61.0])}
    notes = {"dev_mismatched": "mnli: dev_mismatched has 10 examples here"}
    folder = run(
        tmp_path / "a", "mnli", "wwm", 60.0,
        metrics=metrics, official=True, further_split_notes=notes,
    )  # fmt: skip
    report = gather([folder])
    assert [c.split for c in report.table.find("BERT-Tiny").scores] == ["dev"]
    assert "dev_mismatched has 10 examples here; published figures are left out" in markdown(report)


def test_a_split_of_any_name_is_told_from_dev(tmp_path: Path) -> None:
    metrics = {"f1": spread([80.0]), "em": spread([60.0]), "f1_challenge": spread([40.0])}
    folder = run(tmp_path / "a", "cmrc2018", "wwm", 80.0, metrics=metrics, official=True)
    card = (folder / "task.toml").read_text(encoding="utf-8")
    (folder / "task.toml").write_text(
        card.replace("[data]\n", '[data]\nscored_with_dev = ["challenge"]\n'), encoding="utf-8"
    )
    table = gather([folder]).table
    found = {(one.metric, one.split): score.max for one, score in table.ours[0].scores.items()}
    assert found == {("f1", "dev"): 80.0, ("em", "dev"): 60.0, ("f1", "challenge"): 40.0}
    bert = table.find("BERT").scores
    assert {(one.metric, one.split): score.max for one, score in bert.items()} == {
        ("f1", "dev"): 84.5,
        ("em", "dev"): 65.5,
        ("f1", "challenge"): 43.3,
    }


def test_another_card_that_is_scored_has_a_column_of_its_main_metric(tmp_path: Path) -> None:
    names = {
        "spearman": 80.0, "pearson": 79.0, "spearman_lcqmc_embed": 70.0, "ap_lcqmc_embed": 75.0,
        "mrr@10_cmrc2018_embed": 60.0, "map_cmrc2018_embed": 61.0,
    }  # fmt: skip
    metrics = {name: spread([value]) for name, value in names.items()}
    table = gather([run(tmp_path / "a", "zh_embed", "wwm", 80.0, metrics=metrics)]).table
    assert {one.key: score.max for one, score in table.ours[0].scores.items()} == {
        name: names[name]
        for name in ("spearman", "pearson", "spearman_lcqmc_embed", "mrr@10_cmrc2018_embed")
    }


def test_the_published_figures_of_the_very_model_are_in_its_line(tmp_path: Path) -> None:
    name = "hfl/chinese-roberta-wwm-ext"
    table = gather([run(tmp_path / "a", "chnsenticorp", name, 94.0, 95.0, official=True)]).table
    found = records(table)
    ours = record(found, model="chinese-roberta-wwm-ext")
    assert (ours.max, ours.mean) == (95.0, 94.5)
    assert (ours.published_max, ours.published_mean) == (95.0, 94.6)
    assert ours.published_by == "chinese-bert-wwm"
    # Once is enough.
    assert not [one for one in found if one.model == "RoBERTa-wwm-ext"]
    other = record(found, model="BERT-wwm")
    assert (other.run, other.max, other.published_max) == ("", None, 95.1)


def test_csv_is_tidy_and_exact(tmp_path: Path) -> None:
    values = (80.123456789, 83.3)
    folder = run(tmp_path / "a,b", "lcqmc", 'ww"m\n', *values)
    (line,) = csv.DictReader(io.StringIO(comma_separated(gather([folder])), newline=""))
    assert line["run"] == str(folder)
    assert line["model"] == 'ww"m\n'
    assert [line[key] for key in ("task", "metric", "split", "seeds")] == [
        "lcqmc",
        "accuracy",
        "dev",
        "2",
    ]
    assert float(line["mean"]) == statistics.fmean(values)
    assert float(line["std"]) == statistics.stdev(values)
    assert line["published_max"] == ""


# -- shares ----------------------------------------------------------------------------------------


def test_shares_are_of_the_bases_means(tmp_path: Path) -> None:
    folders = [
        run(tmp_path / "1", "lcqmc", "small", 40.0, 50.0),
        run(tmp_path / "2", "lcqmc", "large", 80.0, 100.0),
        run(tmp_path / "3", "ocnli", "small", 60.0),
        run(tmp_path / "4", "ocnli", "large", 80.0),
        run(tmp_path / "5", "cmrc2018", "small", 20.0),
        run(tmp_path / "6", "cmrc2018", "large", 80.0),
    ]
    relative = gather(folders, "large").relative
    assert relative is not None
    assert relative.base.model == "large"
    rows = {row.row.model: row for row in relative.rows}
    assert [round(share, 6) for share in rows["small"].shares.values()] == [50, 75, 25, 25]
    # F1 and EM count once each.
    assert rows["small"].mean == pytest.approx((50 + 75 + 25 + 25) / 4)
    assert rows["small"].mean_of_classification == pytest.approx(62.5)
    assert rows["large"].mean == 100.0
    text = markdown(gather(folders, "large"))
    assert "| small | 43.8 | 62.5 | 50.0 | 75.0 | 25.0 | 25.0 |" in text


def test_numbers_and_tags_are_no_classification(tmp_path: Path) -> None:
    folders = [
        run(tmp_path / f"{task}-{model}", task, model, value)
        for task, small in (("lcqmc", 40.0), ("stsb_zh", 8.0), ("ner_peopledaily", 16.0))
        for model, value in (("large", 80.0), ("small", small))
    ]
    relative = gather(folders).relative
    assert relative is not None
    assert relative.rows[1].mean_of_classification == pytest.approx(50.0)
    assert relative.rows[1].mean == pytest.approx((50 + 10 + 10 + 20) / 4)


def test_a_mean_of_shares_needs_all_figures(tmp_path: Path) -> None:
    folders = [
        run(tmp_path / "1", "lcqmc", "large", 80.0),
        run(tmp_path / "2", "ocnli", "large", 80.0),
        run(tmp_path / "3", "lcqmc", "small", 40.0),
    ]
    relative = gather(folders).relative
    assert relative is not None
    assert [row.mean for row in relative.rows] == [100.0, None]


def test_shares_of_a_published_model(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", "chnsenticorp", "small", 80.0, 85.14, official=True)
    for base in (None, "RoBERTa-wwm-ext", "roberta-wwm-ext"):
        relative = gather([folder], base).relative
        assert relative is not None
        assert relative.base.name == "RoBERTa-wwm-ext (chinese-bert-wwm)"
        assert [row.row.model for row in relative.rows] == ["small", "RoBERTa-wwm-ext"]
        assert relative.rows[0].shares[ACCURACY] == pytest.approx(100 * 82.57 / 94.6)


def test_a_share_of_nothing_is_left_out(tmp_path: Path) -> None:
    folders = [run(tmp_path / "1", "cola", "a", 0.0), run(tmp_path / "2", "cola", "b", 9.0)]
    assert gather(folders).relative is None


def test_an_unknown_base_is_named_with_the_known(tmp_path: Path) -> None:
    folder = run(tmp_path / "1", "lcqmc", "small", 40.0)
    with pytest.raises(ZhbertError, match=r"no such model here; did you mean 'small'\?"):
        gather([folder], "smal")
    with pytest.raises(ZhbertError, match="no fine-tuned model here to compare with"):
        score_table([]).find("small")


# -- other examples --------------------------------------------------------------------------------


def test_scores_on_other_examples_are_marked_and_not_compared(tmp_path: Path) -> None:
    folders = [
        run(tmp_path / "1", "lcqmc", "a", 80.0),
        run(tmp_path / "2", "lcqmc", "b", 40.0, dev_sha256="f" * 64),
        run(tmp_path / "3", "lcqmc", "c", 60.0),
    ]
    report = gather(folders, "a")
    assert [next(iter(row.scores.values())).elsewhere for row in report.table.rows] == [
        False,
        True,
        False,
    ]
    assert report.relative is not None
    assert [row.row.model for row in report.relative.rows] == ["a", "c"]
    assert [(one.model, one.why_not) for one in report.differences] == [
        ("b", "scored on other examples"),
        ("c", ""),
    ]
    text = markdown(report)
    assert "| b | 40.00 (40.00)† |" in text
    assert "b was scored on other examples than a" in text
    # The base decides whose examples count.
    others = gather(folders, "b").table.rows
    assert [next(iter(row.scores.values())).elsewhere for row in others] == [True, False, True]
