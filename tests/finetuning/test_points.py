"""The points of a grid: their folders, their seeds, and what may change between commands."""

from __future__ import annotations

import json

import pytest

from zhbert.errors import ZhbertError
from zhbert.finetuning.points import GridPoint, points_of, seeds_of
from zhbert.finetuning.result import RESULT_KEYS
from zhbert.schema import to_toml
from zhbert.tasks.settings import FineTuningSettings

SETTINGS = FineTuningSettings()


def test_a_folder_does_not_depend_on_the_order_of_the_keys(tmp_path):
    grid = [("epochs=1", "batch_size=8"), ("epochs=2", "batch_size=16")]
    turned = [tuple(reversed(texts)) for texts in grid]
    mine, other = (points_of(tmp_path, texts, [SETTINGS] * 2) for texts in (grid, turned))
    assert [point.folder for point in mine] == [point.folder for point in other]
    assert mine[0].folder == tmp_path / "grid" / "batch_size=8,epochs=1"


def test_a_value_with_a_slash_makes_no_further_folder(tmp_path):
    points = points_of(tmp_path, [("precision=a/b",), ("precision=c",)], [SETTINGS] * 2)
    assert points[0].folder == tmp_path / "grid" / "precision=a_b"


def test_other_settings_are_refused_by_key_and_values(tmp_path):
    (tmp_path / "settings.toml").write_text(to_toml(SETTINGS), encoding="utf-8")
    GridPoint(tmp_path, FineTuningSettings(threads=2, checkpoint_every=5)).check_same_settings()
    with pytest.raises(ZhbertError, match="epochs = 3, now 4"):
        GridPoint(tmp_path, FineTuningSettings(epochs=4)).check_same_settings()


def test_a_point_that_was_not_begun_has_no_settings_yet(tmp_path):
    GridPoint(tmp_path / "none", SETTINGS).check_same_settings()


def finish(folder):
    (folder / "final").mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(dict.fromkeys(RESULT_KEYS)), encoding="utf-8")


def test_seeds_that_are_finished_at_every_point_are_kept(tmp_path):
    points = [GridPoint(tmp_path / name, SETTINGS, (name,)) for name in ("a", "b")]
    for point in points:
        finish(point.folder / "seed-4")
    finish(points[0].folder / "seed-7")
    (points[0].folder / "seed-0x").mkdir()
    assert seeds_of(points, 2) == [0, 1, 4]
