"""What an earlier version has written opens and goes on; make.py says how it was made.

Everything goes through the command line, as the folders came about.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.compatibility.make import DATA, FINETUNING, PRETRAINING, RUNS, SUFFIXES, losses

from zhbert import cli, load_segmenter
from zhbert.runtime import cpu_flags, cpu_name

EXPECTED: dict[str, Any] = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
MADE = EXPECTED["made"]
# Other instructions, another library and the plain twin of the native module add up in another
# order: then only to 1e-4.
SAME_BITS = (
    MADE["torch"] == torch.__version__
    and MADE["cpu"] == cpu_name()
    and set(MADE["cpu_flags"]) <= cpu_flags()
    and importlib.util.find_spec("zhbert.model._attention") is not None
)


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """The folders of data/, unpacked; read them only."""
    folder = tmp_path_factory.mktemp("kept")
    for path in DATA.glob("*.tar.xz"):
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def mine(kept, tmp_path):
    """A copy of one of the folders."""
    return lambda name: shutil.copytree(kept / name, tmp_path / name)


@pytest.fixture
def zhbert(capsys):
    """What a verb prints; it must succeed."""

    def run(*words: str | Path) -> str:
        capsys.readouterr()
        code = cli.main([*map(str, words), "--quiet"])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return run


def assert_same(found: Any, expected: Any) -> None:
    """Equal to the bit, or where that cannot be, to 1e-4; floats may be written as hexadecimals."""
    if SAME_BITS:
        assert found == expected
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    elif isinstance(expected, str) and expected.startswith(("0x", "-0x")):
        assert_same(float.fromhex(found), float.fromhex(expected))
    else:
        assert found == expected


# -- corpora ---------------------------------------------------------------------------------------


def test_a_corpus_verifies(kept, zhbert):
    told = json.loads(zhbert("corpus", kept / "corpus", "--verify", "--json"))
    assert told["totals"]["train"]["documents"] == 35
    assert told["totals"]["held_out"]["documents"] == 5


def test_an_unfinished_corpus_goes_on(mine, zhbert, monkeypatch):
    folder = mine("unfinished")
    monkeypatch.chdir(folder)
    settings = folder / "corpus" / ".partial" / "settings.json"
    told = json.loads(settings.read_text(encoding="utf-8"))
    # Another version of the segmenter cuts other words: such a corpus would be begun anew.
    told["segmenter"]["version"] = load_segmenter("jieba").version
    settings.write_text(json.dumps(told), encoding="utf-8")
    shard = folder / "corpus" / "train-00000.arrow"
    written = shard.stat().st_mtime_ns
    files = ["text.txt", "--vocab", "vocab.txt", "--out", "corpus"]
    zhbert("prepare", *files, "--held-out", "0.15", "--deduplicate", "--workers", "1")
    told = json.loads(zhbert("corpus", folder / "corpus", "--verify", "--json"))
    assert told["totals"]["train"]["documents"] == 35
    assert shard.stat().st_mtime_ns == written


# -- pretraining -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "pairs", "muon"])
def test_a_run_in_the_middle_goes_on_to_the_same_losses(kept, mine, zhbert, name):
    run = mine(f"pretraining/{name}")
    zhbert("pretrain", "tiny", "--corpus", kept / "corpus", "--out", run, "--resume")
    assert_same(losses(run), EXPECTED["pretraining"][name])
    assert (run / "final" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", RUNS)
def test_a_run_from_its_start_has_the_same_losses(kept, tmp_path, zhbert, name):
    run = tmp_path / "run"
    settings = (*PRETRAINING, *RUNS[name])
    zhbert("pretrain", "tiny", "--corpus", kept / "corpus", "--out", run, *settings)
    assert_same(losses(run), EXPECTED["pretraining"][name])


@pytest.mark.parametrize("name", RUNS)
def test_the_recipe_of_a_run_is_a_recipe(kept, zhbert, name):
    zhbert("check", kept / "pretraining" / name / "recipe.toml", "--corpus", kept / "corpus")


def test_overwrite_knows_a_run_of_pretraining(kept, mine, zhbert):
    run = mine("pretraining/plain")
    settings = (*PRETRAINING, "model.hidden_size=16", "steps=1")
    zhbert("pretrain", "tiny", "--corpus", kept / "corpus", "--out", run, "--overwrite", *settings)
    assert len(losses(run)["losses"]) == 1


# -- fine-tuning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_fine_tuned_model_predicts_the_same(kept, zhbert, kind):
    model = kept / "finetuning" / kind / "seed-0" / "final"
    printed = zhbert("predict", model, kept / "task" / f"{kind}-dev{SUFFIXES[kind]}")
    assert_same([json.loads(line) for line in printed.splitlines()], EXPECTED["predictions"][kind])


def finetune(kept: Path, run: Path, *words: str) -> list[str | Path]:
    card, model = kept / "task" / "classify.toml", kept / "pretraining" / "finished" / "final"
    return ["finetune", card, "--model", model, "--out", run, *FINETUNING, *words]


def test_a_run_stopped_within_a_seed_goes_on_to_the_same_result(kept, mine, zhbert):
    run = mine("finetuning/seeds")
    zhbert(*finetune(kept, run, "--seeds", "2"))
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["seeds"] == [0, 1]
    # Later versions have more settings, which must not have changed anything.
    assert summary["settings"].items() >= EXPECTED["seeds"]["settings"].items()
    assert_same(summary["metrics"], EXPECTED["seeds"]["metrics"])
    resumed = json.loads((run / "provenance.json").read_text(encoding="utf-8"))["resumed"]
    assert len(resumed) == 1


def test_a_finished_seed_is_not_trained_again(kept, mine, zhbert):
    run = mine("finetuning/classify")
    before = (run / "seed-0" / "result.json").read_bytes()
    zhbert(*finetune(kept, run))
    assert (run / "seed-0" / "result.json").read_bytes() == before


def test_overwrite_knows_a_run_of_fine_tuning(kept, mine, zhbert):
    run = mine("finetuning/tag")
    zhbert(*finetune(kept, run, "--overwrite", "epochs=1"))
    assert json.loads((run / "summary.json").read_text(encoding="utf-8"))["kind"] == "classify"


# -- the rest --------------------------------------------------------------------------------------


def test_the_report_reads_all_runs(kept, tmp_path, zhbert):
    runs = [*(kept / "pretraining").iterdir(), *(kept / "finetuning").iterdir()]
    zhbert("report", *runs, "--out", tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert all(name in text for name in (*RUNS, "classify", "tag", "span"))


def test_a_model_in_the_cache_needs_no_network(kept, zhbert, monkeypatch):
    monkeypatch.setenv("ZHBERT_CACHE", str(kept / "cache"))
    told = json.loads(zhbert("inspect", EXPECTED["url"], "--json"))
    assert told["shape"]["hidden_size"] == 16
