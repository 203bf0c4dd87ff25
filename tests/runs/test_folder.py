"""A run's folder: which may be written, and what it remembers of its beginning."""

from __future__ import annotations

import json

import pytest

from zhbert.config import Recipe
from zhbert.errors import ZhbertError
from zhbert.runs.folder import RunFolder, changed_settings
from zhbert.runs.provenance import read_provenance


def folder_at(path, **options):
    return RunFolder(path=path, what="a run", settings_file="recipe.toml", **options)


@pytest.fixture
def run(tmp_path):
    """A run that was begun with one override."""
    folder = folder_at(tmp_path / "run")
    with folder.held():
        folder.begin("steps = 1\n", {"overrides": ["steps=1"], "commit": "a"}, "overrides")
    return folder.path


def test_a_new_run_has_its_settings_and_its_provenance(run):
    assert (run / "recipe.toml").read_text("utf-8") == "steps = 1\n"
    assert read_provenance(run) == {"overrides": ["steps=1"], "commit": "a"}


def test_a_resumption_is_added_and_only_the_named_keys_are_renewed(run):
    for steps in (2, 3):
        origin = {"overrides": [f"steps={steps}"], "commit": "b"}
        folder_at(run, goes_on=True).begin(f"steps = {steps}\n", origin, "overrides")
    noted = read_provenance(run)
    assert (noted["overrides"], noted["commit"]) == (["steps=3"], "a")
    assert [one["overrides"] for one in noted["resumed"]] == [["steps=2"], ["steps=3"]]


def test_a_run_that_is_replaced_leaves_nothing(run):
    (run / "metrics.jsonl").touch()
    folder_at(run, overwrite=True).begin("steps = 9\n", {"commit": "c"})
    assert sorted(path.name for path in run.iterdir()) == ["provenance.json", "recipe.toml"]
    assert read_provenance(run) == {"commit": "c"}


def test_only_a_run_is_gone_on_with_or_replaced(run, tmp_path):
    assert folder_at(run, goes_on=True).continued
    assert not folder_at(tmp_path / "none", goes_on=True).continued
    assert not folder_at(run, goes_on=True, overwrite=True).continued
    with pytest.raises(ZhbertError, match="a run stands there"):
        folder_at(run).check()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(ZhbertError, match="not empty, and not a run"):
        folder_at(tmp_path / "other", overwrite=True).check()


def test_what_a_full_disk_left_is_gone_on_with(tmp_path):
    (tmp_path / "provenance.json").write_text("{}", "utf-8")
    folder_at(tmp_path, goes_on=True).check()
    assert not folder_at(tmp_path, goes_on=True).continued


@pytest.mark.parametrize("text", ["", "[]", '{"a"', "\xff"])
def test_a_damaged_provenance_is_an_empty_one(tmp_path, text):
    (tmp_path / "provenance.json").write_bytes(text.encode("latin-1"))
    assert read_provenance(tmp_path) == {}
    (tmp_path / "provenance.json").write_text(json.dumps({"commit": "a"}), "utf-8")
    assert read_provenance(tmp_path) == {"commit": "a"}


def test_changed_settings_are_named_by_dotted_keys():
    old, new = Recipe(), Recipe(steps=2)
    assert changed_settings(new, old) == {"steps": (2, old.steps)}
