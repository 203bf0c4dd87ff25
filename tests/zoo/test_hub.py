"""Models of the hub, from a server that answers as the hub does."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled, logging
from tests.zoo.models import CONFIG, VOCABULARY, contents
from tests.zoo.server import COMMIT, Fault, Server, serving

from zhbert.errors import ZhbertError
from zhbert.zoo import cached_models, locate, save
from zhbert.zoo.hub import CONFIGS, TOKENIZER, WEIGHTS, cached_hub_ids
from zhbert.zoo.layout import MODULES, find_model
from zhbert.zoo.origin import HubOptions, is_hub_id

TEXTS = {
    "config.json": json.dumps(CONFIG | {"model_type": "bert"}).encode(),
    "vocab.txt": VOCABULARY.encode(),
    "tokenizer_config.json": b"{}",
}
# What the hub holds besides: the same weights for other libraries, and texts.
OTHERS = {
    "README.md": b"text",
    "tf_model.h5": b"x",
    "flax_model.msgpack": b"x",
    "onnx/model.onnx": b"x",
    "rust_model.ot": b"x",
}


@pytest.fixture
def hub(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The hub, online, with an empty cache."""
    from huggingface_hub.utils import close_session

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        server.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    close_session()  # it keeps whether it is offline
    yield server
    close_session()


def refused(name: str) -> str:
    with pytest.raises(ZhbertError) as caught:
        locate(name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_only_the_files_that_are_needed_come(weights: str, hub: Server) -> None:
    files = TEXTS | {weights: b"weights"}
    hub.add_hub_model("hfl/toy", files | OTHERS)
    folder = locate("hfl/toy")
    assert contents(folder) == files
    assert sorted(hub.fetched()) == sorted(files)
    assert find_model(folder).weights.name == weights


def test_weights_come_once_where_there_are_two_forms(hub: Server) -> None:
    files = TEXTS | {"model.safetensors": b"weights", "pytorch_model.bin": b"weights"}
    hub.add_hub_model("hfl/toy", files)
    assert "pytorch_model.bin" not in contents(locate("hfl/toy"))


SENTENCES = {
    "modules.json": json.dumps(
        [
            {"type": f"sentence_transformers.models.{path[2:] or 'Transformer'}", "path": path}
            for path in ("", "1_Pooling", "2_Dense", "3_Normalize", "../escape")
        ]
    ).encode(),
    "config_sentence_transformers.json": b"{}",
    "sentence_bert_config.json": b"{}",
    "1_Pooling/config.json": b"{}",
    "2_Dense/config.json": b"{}",
    "2_Dense/pytorch_model.bin": b"weights",
}


def test_a_sentence_model_comes_with_its_modules(hub: Server, tmp_path: Path) -> None:
    files = TEXTS | SENTENCES | {"model.safetensors": b"weights"}
    hub.add_hub_model("me/toy", files | OTHERS)
    assert contents(locate("me/toy")) == files
    save("me/toy", tmp_path / "out")
    assert contents(tmp_path / "out") == files


@pytest.mark.parametrize("stem", ["model", "pytorch_model"])
def test_shards_come_with_their_index(stem: str, hub: Server) -> None:
    end = "safetensors" if stem == "model" else "bin"
    shards = [f"{stem}-0000{number}-of-00002.{end}" for number in (1, 2)]
    index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1], "c": shards[0]}}).encode()
    files = TEXTS | {f"{stem}.{end}.index.json": index} | dict.fromkeys(shards, b"weights")
    hub.add_hub_model("hfl/toy", files | OTHERS)
    assert contents(locate("hfl/toy")) == files


def test_a_model_that_is_there_costs_one_question(hub: Server) -> None:
    hub.add_hub_model("hfl/toy", TEXTS | {"pytorch_model.bin": b"weights"})
    folder = locate("hfl/toy")
    before = len(hub.requests)
    assert locate("hfl/toy") == folder
    assert [one.method for one in hub.requests[before:]] == ["HEAD"]


def test_the_arguments_of_transformers_reach_the_hub(hub: Server, tmp_path: Path) -> None:
    hub.add_hub_model("hfl/toy", TEXTS | {"pytorch_model.bin": b"weights"})
    asked = HubOptions(cache_dir=tmp_path / "own", revision=COMMIT, token="hf_secret")
    folder = locate("hfl/toy", hub=asked)
    assert folder.is_relative_to(tmp_path / "own")
    assert folder.name == COMMIT
    sent = [
        {name.lower(): value for name, value in one.headers.items()}
        for one in hub.requests
        if "/resolve/" in one.path
    ]
    assert {headers["authorization"] for headers in sent} == {"Bearer hf_secret"}
    before = len(hub.requests)
    here = dataclasses.replace(asked, local_files_only=True)
    assert locate("hfl/toy", hub=here) == folder
    assert len(hub.requests) == before
    with pytest.raises(ZhbertError, match="no such folder here, and"):
        locate("hfl/toy", hub=dataclasses.replace(here, cache_dir=tmp_path / "empty"))
    locate("hfl/toy", hub=dataclasses.replace(asked, force_download=True))
    assert hub.fetched().count("pytorch_model.bin") == 2


def test_the_names_of_the_catalogue_lead_to_the_hub(hub: Server, tmp_path: Path) -> None:
    hub.add_hub_model("hfl/rbt3", TEXTS | {"model.safetensors": b"weights"})
    assert locate("RBT3") == locate("hfl/rbt3")
    save("rbt3", tmp_path / "out")
    assert contents(tmp_path / "out") == TEXTS | {"model.safetensors": b"weights"}
    # A copy: whoever changes it does not change the cache.
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert cached_hub_ids() == ["hfl/rbt3"]
    assert cached_models() == ["rbt3"]


def test_a_download_that_broke_off_goes_on(hub: Server) -> None:
    body = bytes(range(256)) * 4000
    hub.add_hub_model("hfl/toy", TEXTS | {"model.safetensors": body})
    hub.faults = [Fault(), Fault(break_after=500_000)]  # config.json, then the weights
    assert (locate("hfl/toy") / "model.safetensors").read_bytes() == body


def test_what_the_hub_refuses_is_one_line(hub: Server) -> None:
    hub.add_hub_model("hfl/toy", TEXTS)
    assert "no model.safetensors and no pytorch_model.bin on the hub" in refused("hfl/toy")
    hub.add_hub_model("hfl/empty", {"README.md": b""})
    assert "no config.json on the hub" in refused("hfl/empty")
    message = refused("hfl/nobody")
    assert f"no such folder here, and no such model at {hub.url}" in message
    index = b'{"weight_map": {"a": "model-1.safetensors"}}'
    hub.add_hub_model("hfl/part", TEXTS | {"model.safetensors.index.json": index})
    assert "names model-1.safetensors, which is not on the hub" in refused("hfl/part")
    assert "not a name on the hub" in refused("hfl/a--b")


def test_a_gated_model_says_where_to_ask(hub: Server) -> None:
    hub.add_hub_model("hfl/gated", TEXTS)
    hub.refuse_hub_model("hfl/gated", "GatedRepo")
    assert f"ask at {hub.url}/hfl/gated" in refused("hfl/gated")


def test_a_hub_that_is_down_leaves_what_is_here(hub: Server) -> None:
    hub.add_hub_model("hfl/rbt3", TEXTS | {"model.safetensors": b"weights"})
    hub.add_hub_model("hfl/toy", TEXTS | {"model.safetensors": b"weights"})
    folder = locate("rbt3")
    for path in hub.headers:
        hub.broken[path] = 503
    assert locate("rbt3") == folder
    message = refused("hfl/toy")
    assert f"no answer from {hub.url}" in message
    assert message.endswith("these are here: rbt3")


def test_without_a_network_what_is_here_works(hub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add_hub_model("hfl/rbt3", TEXTS | {"pytorch_model.bin": b"weights"})
    folder = locate("rbt3")
    with serving() as gone:
        monkeypatch.setattr(constants, "ENDPOINT", gone.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            gone.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
    assert locate("rbt3") == folder
    message = refused("hfl/toy")
    assert f"no answer from {gone.url}" in message
    assert message.endswith("these are here: rbt3")


def test_without_a_network_what_nobody_knows_of_is_left_out(
    hub: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As another program may have fetched it: nothing notes which files the hub does not have.
    hub.add_hub_model("hfl/rbt3", TEXTS | {"pytorch_model.bin": b"weights"})
    folder = locate("rbt3")
    shutil.rmtree(folder.parent.parent / ".no_exist")
    (folder / "tokenizer_config.json").unlink()
    for name in (*CONFIGS, *WEIGHTS, *TOKENIZER, MODULES):
        for revision in ("main", COMMIT):
            hub.broken[f"/hfl/rbt3/resolve/{revision}/{name}"] = 503
    assert locate("rbt3") == folder
    assert set(contents(folder)) == {"config.json", "pytorch_model.bin", "vocab.txt"}
    (folder / "vocab.txt").unlink()
    assert "no answer from" in refused("hfl/rbt3")


def test_a_model_that_is_here_in_part_is_not_offered(hub: Server) -> None:
    index = b'{"weight_map": {"a": "model-1.safetensors"}}'
    hub.add_hub_model("hfl/part", TEXTS | {"model.safetensors.index.json": index})
    refused("hfl/part")
    other = TEXTS | {"config.json": b'{"model_type": "albert"}', "model.safetensors": b""}
    hub.add_hub_model("hfl/other", other)
    locate("hfl/other")
    assert cached_hub_ids() == []


def test_the_hub_is_asked_again_in_silence(
    hub: Server, waited: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    handlers, bars = logging.get_logger().handlers, are_progress_bars_disabled()
    hub.add_hub_model("hfl/toy", TEXTS | {"model.safetensors": b"weights"})
    hub.faults = [Fault(status=503), Fault(status=502, headers={"Retry-After": "7"})]
    locate("hfl/toy")
    assert waited == [1, 7]
    assert (logging.get_logger().handlers, are_progress_bars_disabled()) == (handlers, bars)
    assert capsys.readouterr() == ("", "")


def test_waiting_for_the_hub_is_said_once(hub: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("config.json", "bert_config.json"):
        hub.broken[f"/hfl/toy/resolve/main/{name}"] = 503
    with pytest.raises(ZhbertError, match="no answer from"):
        locate("hfl/toy", quiet=False)
    assert capsys.readouterr().err == (
        f"note: {hub.url} does not answer; trying again for a while\n"
    )


def test_the_environment_is_heard(server: Server, tmp_path: Path) -> None:
    """In a process of its own, as a user has it: the library reads it when it is imported."""
    server.add_hub_model("hfl/rbt3", TEXTS | {"model.safetensors": b"weights"})
    environment = dict(os.environ) | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": "hf_secret",
        "HF_HUB_OFFLINE": "0",
    }

    def run(name: str, **more: str) -> subprocess.CompletedProcess[str]:
        program = "import sys; from zhbert.zoo import locate; print(locate(sys.argv[1]))"
        command = [sys.executable, "-c", program, name]
        return subprocess.run(command, env=environment | more, capture_output=True, text=True)

    # The library waits a second here, and would say so.
    server.faults = [Fault(status=429, headers={"Retry-After": "0"})]
    first = run("rbt3")
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    assert Path(first.stdout.strip()) == (
        tmp_path / "home/hub/models--hfl--rbt3/snapshots" / COMMIT
    )
    files = [one for one in server.requests if "/resolve/" in one.path]
    assert {one.headers["authorization"] for one in files} == {"Bearer hf_secret"}
    asked = len(server.requests)
    assert run("rbt3", HF_HUB_OFFLINE="1").stdout == first.stdout
    missing = run("hfl/rbtl3", HF_HUB_OFFLINE="1")
    assert len(server.requests) == asked
    last = missing.stderr.strip().split("\n")[-1]
    assert "HF_HUB_OFFLINE is set" in last
    assert last.endswith("these are here: zhbert-mini, rbt3")


def test_names_with_an_owner() -> None:
    assert is_hub_id("hfl/rbt3")
    assert is_hub_id("0wner/with.dots-and_more")
    for name in ("rbt3", "a/b/c", "/a/b", "./a", "../a", "~/a", "a/", "/a", "a b/c", "中/文"):
        assert not is_hub_id(name)
