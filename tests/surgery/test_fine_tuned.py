"""Fine-tuned models of every kind, changed: they still predict, and old texts alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.small_tasks import CARDS, PIECES, QUICK, make_model, make_task

from zhbert.cli import main
from zhbert.finetuning.run import finetune
from zhbert.model.folder import open_model_folder

CHANGES = {
    "more pieces": ["vocab", "extend", "MODEL", "--with", "words.txt"],
    "more positions": ["stretch", "MODEL", "--positions", "100"],
    # Rows are of 32 pieces; the longest text here has fewer than 60.
    "fewer positions": ["shrink", "MODEL", "--positions", "60"],
    "other pieces": ["shrink", "MODEL", "--vocab", "vocab.txt"],
}


@pytest.fixture(scope="module", params=CARDS)
def fine_tuned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of one kind in ``final``, its task, and lists of pieces."""
    folder = tmp_path_factory.mktemp(request.param)
    card = make_task(folder, request.param, train=16, dev=8)
    run = folder / "run"
    finetune(card, make_model(folder / "model"), folder, run, [*QUICK, "epochs=1"])
    next(run.rglob("final")).rename(folder / "final")
    (folder / "words.txt").write_text("bert\n龘\n", encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(PIECES[::-1]) + "\n", encoding="utf-8")
    return folder


def predictions(folder: Path, model: Path) -> bytes:
    dev = next(path for path in folder.glob("dev.*"))
    out = folder / "predictions.jsonl"
    assert main(["predict", str(model), str(dev), "--out", str(out), "--overwrite", "--quiet"]) == 0
    return out.read_bytes()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_head_the_task_and_old_predictions_stay(
    fine_tuned: Path, tmp_path: Path, change: list[str], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(fine_tuned)
    before, after = fine_tuned / "final", tmp_path / "changed"
    command = [str(before) if word == "MODEL" else word for word in change]
    assert main([*command, "--out", str(after)]) == 0
    said = capsys.readouterr().out
    assert "pretrain" not in said
    assert ("zhbert finetune TASK --model" in said) == (change[0] != "shrink")
    old, new = (json.loads((at / "config.json").read_text("utf-8")) for at in (before, after))
    for key in ("architectures", "id2label", "label2id", "problem_type", "zhbert"):
        assert new.get(key) == old.get(key), key
    # The card is of the model before, with its scores.
    names = {path.name for path in before.iterdir()} - {"README.md"}
    assert {path.name for path in after.iterdir()} == names
    assert predictions(fine_tuned, after) == predictions(fine_tuned, before)


def test_with_fewer_positions_than_its_rows_a_model_reads_shorter_rows(
    fine_tuned: Path, tmp_path: Path
) -> None:
    to = tmp_path / "short"
    command = ["shrink", str(fine_tuned / "final"), "--positions", "20", "--out", str(to)]
    assert main([*command, "--quiet"]) == 0
    config = json.loads((to / "config.json").read_text(encoding="utf-8"))
    assert config["zhbert"]["sequence_length"] == 20
    assert predictions(fine_tuned, to)


def test_stretch_says_how_much_predictions_still_read(
    fine_tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "long"
    assert main(["stretch", str(fine_tuned / "final"), "--positions", "99", "--out", str(to)]) == 0
    task = json.loads((to / "config.json").read_text(encoding="utf-8"))["zhbert"]
    printed = " ".join(capsys.readouterr().out.split())
    assert "zhbert finetune TASK" in printed
    assert "sequence_length=99 Until then, it predicts from rows " in printed
    assert f"rows of {task['sequence_length']} pieces at most, as before." in printed


def test_a_tagger_of_another_name_remains_a_tagger(tmp_path: Path) -> None:
    from tests.small_models import make_model as make_tagger
    from transformers import BertForTokenClassification

    model = make_tagger(tmp_path / "model", kind=BertForTokenClassification, num_labels=5)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["ErnieForTokenClassification"]
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert main(["stretch", str(model), "--positions", "50", "--out", str(tmp_path / "out")]) == 0
    other = open_model_folder(tmp_path / "out").config.other
    assert other["architectures"] == ["BertForTokenClassification"]
