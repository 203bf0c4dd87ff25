"""Models to the hub, which is a server on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from tests.small_tasks import make_model
from tests.zoo.models import contents
from tests.zoo.uploads import TOKEN, UploadHub, taking_uploads

import zhbert
from zhbert import cli
from zhbert.errors import ZhbertError

# Of huggingface_hub, which so calls the library below it.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    """A hub, and a token that it knows."""
    from huggingface_hub.utils import close_session

    with taking_uploads() as server:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        close_session()  # it keeps whether it is offline
        yield server
        close_session()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a card."""
    folder = make_model(tmp_path_factory.mktemp("models") / "final")
    (folder / "README.md").write_text("---\nlanguage: zh\n---\n", "utf-8")
    return folder


def test_a_model_is_uploaded_and_nothing_else(hub: UploadHub, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "final"
    shutil.copytree(model, folder)
    for other in ("provenance.json", "training_args.bin", "optimizer.pt", "notes.txt", ".env"):
        (folder / other).write_text(TOKEN)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "model.safetensors").write_text("x")
    address = zhbert.push_to_hub(folder, "me/toy", private=True, commit_message="Mine")
    assert address == f"{hub.url}/me/toy"
    assert hub.files["me/toy", "main"] == contents(model)
    assert (hub.private, hub.messages) == ({"me/toy": True}, ["Mine"])


def test_a_branch_and_a_token_may_be_named(
    hub: UploadHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    zhbert.push_to_hub(model, "me/toy", token=TOKEN, revision="second")
    assert set(hub.files) == {("me/toy", "second")}


def test_models_tokenizers_and_sentence_encoders_push_what_they_save(
    hub: UploadHub, model: Path, tmp_path: Path
) -> None:
    encoder = zhbert.SentenceEncoder.from_pretrained(model, quiet=True)
    for thing in (encoder.model, encoder.tokenizer, encoder):
        thing.save_pretrained(tmp_path / type(thing).__name__)
        thing.push_to_hub(f"me/{type(thing).__name__}")
        saved = contents(tmp_path / type(thing).__name__)
        assert hub.files[f"me/{type(thing).__name__}", "main"] == saved


def test_a_sentence_model_comes_with_its_modules(
    hub: UploadHub, model: Path, tmp_path: Path
) -> None:
    zhbert.SentenceEncoder.from_pretrained(model, quiet=True).save_pretrained(tmp_path / "out")
    zhbert.push_to_hub(tmp_path / "out", "me/toy")
    assert "1_Pooling/config.json" in hub.files["me/toy", "main"]
    assert hub.files["me/toy", "main"] == contents(tmp_path / "out")


def test_the_verb_pushes_the_best_seed_of_a_run(
    hub: UploadHub, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model, tmp_path / "seed-0" / "final")
    summary = '{"main_metric": "f1", "seeds": [0], "metrics": {"f1": {"values": [1.0]}}}'
    (tmp_path / "summary.json").write_text(summary)
    assert cli.main(["push", str(tmp_path), "me/toy", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (f"{hub.url}/me/toy\n", "")
    assert hub.files["me/toy", "main"] == contents(model)


def refused(*arguments: object, **options: str) -> str:
    with pytest.raises(ZhbertError) as caught:
        zhbert.push_to_hub(*arguments, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def test_what_is_no_model_or_no_name_is_refused(
    hub: UploadHub, model: Path, tmp_path: Path
) -> None:
    assert "no model file here" in refused(tmp_path, "me/toy")
    assert "not a name on the hub: write OWNER/MODEL" in refused(model, "toy")
    assert not hub.private


def test_without_a_token_nothing_is_asked(
    hub: UploadHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "me/toy: no token, without which nobody may write" in refused(model, "me/toy")


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (401, "the token is not valid: log in again ('hf auth login'), or set HF_TOKEN"),
        (403, "the token may not write there: take one that may write, or another OWNER"),
        (500, "Server Error"),
    ],
)
@pytest.mark.parametrize("part", ["/api/repos/create", "/large/", "/commit/"])
def test_a_refusal_is_one_line(
    hub: UploadHub, model: Path, status: int, why: str, part: str
) -> None:
    hub.refused[part] = status
    line = refused(model, "me/toy")
    assert line.startswith(f"me/toy: nothing was uploaded to {hub.url}: ")
    assert why in line


def test_no_network_is_one_line(
    hub: UploadHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "nothing was uploaded to http://127.0.0.1:9: no answer (" in refused(model, "me/toy")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(model, "me/toy")
