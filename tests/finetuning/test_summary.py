"""The best point of a grid becomes the run's result."""

from __future__ import annotations

import json

import pytest

from zhbert.errors import ZhbertError
from zhbert.finetuning.points import GridPoint
from zhbert.finetuning.summary import spread, take_best
from zhbert.tasks.settings import FineTuningSettings


def point(run, name):
    folder = run / "grid" / name
    (folder / "seed-0").mkdir(parents=True)
    (folder / "seed-0" / "result.json").write_text(name, encoding="utf-8")
    (folder / "settings.toml").write_text(f"# {name}\n", encoding="utf-8")
    return GridPoint(folder, FineTuningSettings(), (name,))


def summary(*values):
    return {"metrics": {"f1": spread(values)}, "seeds": [0]}


def test_the_best_mean_wins_and_its_seeds_get_second_names(tmp_path):
    points = [point(tmp_path, name) for name in ("epochs=1", "epochs=2")]
    former = tmp_path / "seed-9"
    former.mkdir()
    found = take_best(tmp_path, "f1", points, [summary(70.0, 90.0), summary(82.0, 82.0)])
    assert found["best"] == ["epochs=2"]
    assert (tmp_path / "seed-0" / "result.json").read_text(encoding="utf-8") == "epochs=2"
    assert (tmp_path / "settings.toml").read_text(encoding="utf-8") == "# epochs=2\n"
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == found
    assert not former.exists()


def test_a_point_that_failed_is_listed_with_the_reason(tmp_path):
    points = [point(tmp_path, name) for name in ("a=1", "a=2")]
    found = take_best(tmp_path, "f1", points, [ZhbertError("the loss is nan"), summary(1.0)])
    assert [one.get("failed") for one in found["grid"]] == ["the loss is nan", None]


def test_a_grid_of_which_every_point_failed_is_no_result(tmp_path):
    with pytest.raises(ZhbertError, match="every point of the grid failed; the last: why"):
        take_best(tmp_path, "f1", [point(tmp_path, "a=1")], [ZhbertError("why")])


def test_one_value_has_no_deviation():
    assert spread([3.0]) == {"max": 3.0, "mean": 3.0, "std": 0.0, "values": [3.0]}
