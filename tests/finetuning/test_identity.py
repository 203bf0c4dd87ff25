"""Which runs a command goes on with: those of the same task, model and data."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from tests.small_tasks import make_model, make_task

from zhbert.errors import ZhbertError
from zhbert.export.convert import convert
from zhbert.finetuning.identity import check_identity, identity_of
from zhbert.finetuning.request import FineTuningRequest, Split
from zhbert.finetuning.starting_model import StartingModel
from zhbert.runs.folder import RunFolder
from zhbert.tasks.cards import load_card


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("identity")
    make_model(folder / "model")
    make_task(folder / "task", "classify")
    return folder


@pytest.fixture
def request_of(folder, tmp_path):
    card = load_card(folder / "task" / "my_classify.toml")
    splits = {
        name: Split(folder / "task" / f"{name}.tsv", [], card, name) for name in ("train", "dev")
    }
    (tmp_path / "run").mkdir()
    return FineTuningRequest(
        card=card,
        train={"train": splits["train"]},
        scored={"dev": splits["dev"]},
        model_name="model",
        model=folder / "model",
        run_folder=RunFolder(path=tmp_path / "run", what="a run", settings_file="task.toml"),
        points=[()],
        seeds=1,
        say=lambda line: None,
        quiet=True,
    )


def note(request, identity):
    file = request.run_folder.path / "provenance.json"
    file.write_text(json.dumps({"identity": identity}), encoding="utf-8")


def identity(request):
    return identity_of(request, StartingModel.open("model", request.model))


def refusal(request, now):
    with pytest.raises(ZhbertError) as caught:
        check_identity(request, now)
    return str(caught.value)


def test_the_same_run_is_gone_on_with(request_of):
    note(request_of, identity(request_of))
    check_identity(request_of, identity(request_of))


def test_weights_in_several_files_are_all_compared(request_of, folder, tmp_path):
    convert(folder / "model", tmp_path / "parts", "safetensors", max_shard_size=2_000)
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    parted = dataclasses.replace(request_of, model=tmp_path / "parts")
    note(parted, identity(parted))
    file = sorted((tmp_path / "parts").glob("*.safetensors"))[-1]
    save_file({name: one + 1 for name, one in load_file(file).items()}, file)
    assert "another model" in refusal(parted, identity(parted))


def test_words_of_a_card_may_change_and_what_is_computed_may_not(request_of):
    note(request_of, identity(request_of))
    card = dataclasses.replace(request_of.card, title="other", note="new")
    check_identity(request_of, identity(dataclasses.replace(request_of, card=card)))
    card = dataclasses.replace(request_of.card, metrics=("f1",))
    other = identity(dataclasses.replace(request_of, card=card))
    assert "a run of another task is there" in refusal(request_of, other)


def test_another_activation_or_vocabulary_is_another_model(request_of, tmp_path):
    note(request_of, identity(request_of))
    model = shutil.copytree(request_of.model, tmp_path / "model")
    other = dataclasses.replace(request_of, model=model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"transformers_version": "9"}))
    check_identity(request_of, identity(other))
    (model / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    assert "another model configuration" in refusal(request_of, identity(other))
    (model / "config.json").write_text(json.dumps(config))
    (model / "tokenizer.json").unlink()
    pieces = (model / "vocab.txt").read_text(encoding="utf-8").split("\n")
    pieces[10:12] = pieces[11:9:-1]
    (model / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    assert "another model vocabulary" in refusal(request_of, identity(other))


def test_a_changed_file_is_named(request_of, tmp_path):
    note(request_of, identity(request_of))
    path = tmp_path / "dev.tsv"
    path.write_text("text\tlabel\n", encoding="utf-8")
    scored = {"dev": Split(path, [], request_of.card, "dev")}
    other = identity(dataclasses.replace(request_of, scored=scored))
    assert "a run of another dev file is there" in refusal(request_of, other)


def test_other_cards_and_their_files_are_part_of_the_run(request_of, tmp_path):
    files = [tmp_path / name for name in ("train.tsv", "dev.tsv", "more.tsv")]
    for path in files:
        path.write_text("a\n", encoding="utf-8")
    card = dataclasses.replace(request_of.card, name="other")
    splits = {
        "train": {**request_of.train, "train other": Split(files[0], [], card, "train")},
        "scored": {
            **request_of.scored,
            "other": Split(files[1], [], card, "dev", {"train": files[0], "more": files[2]}),
        },
    }
    mixed = dataclasses.replace(request_of, **splits)
    note(mixed, identity(mixed))
    check_identity(mixed, identity(mixed))
    assert list(mixed.files)[-1] == "other haystack more", "train is there already"
    for path, name in zip(files, ("train other", "other", "other haystack more"), strict=True):
        path.write_text("b\n", encoding="utf-8")
        assert f"a run of another {name} file is there" in refusal(mixed, identity(mixed))
        path.write_text("a\n", encoding="utf-8")
    changed = dataclasses.replace(splits["scored"]["other"], card=card.with_data(text=("b",)))
    other = dataclasses.replace(mixed, scored={**request_of.scored, "other": changed})
    assert "a run of another card of other is there" in refusal(other, identity(other))


def test_what_an_older_version_did_not_note_is_not_compared(request_of):
    now = identity(request_of)
    note(request_of, {k: v for k, v in now.items() if k not in ("configuration", "vocabulary")})
    check_identity(request_of, now)


@pytest.mark.parametrize("text", ["{", "{}", '{"identity": 3}', "[" * 200_000])
def test_a_damaged_provenance_is_named(request_of, text):
    (request_of.run_folder.path / "provenance.json").write_text(text)
    assert "provenance.json is missing or damaged" in refusal(request_of, {})
