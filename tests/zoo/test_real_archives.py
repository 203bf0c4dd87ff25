"""A real tiny model in every published layout, packed, served, fetched and opened by its URL."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tests.zoo.models import contents
from tests.zoo.server import Fault, Server

from zhbert.export.tensorflow import write_tensorflow
from zhbert.model.checkpoint import open_checkpoint
from zhbert.model.config import BertConfig
from zhbert.model.formats.pickle import write_pickle
from zhbert.model.pretrained import BertForPreTraining
from zhbert.text.tokenizer import Tokenizer
from zhbert.zoo import locate, save

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"使用语言模型来预测下一个词的概率"]
LAYOUTS = {
    "google": "tensorflow",
    "config.json": "pytorch",
    "bert_config.json": "pytorch",
    "safetensors": "safetensors",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model in each layout."""
    place = tmp_path_factory.mktemp("layouts")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    made = {layout: place / layout for layout in LAYOUTS}
    for folder in made.values():
        folder.mkdir()
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    BertForPreTraining(config).save_pretrained(made["safetensors"])
    entries = open_checkpoint(made["safetensors"]).entries
    for layout in ("config.json", "bert_config.json"):
        write_pickle(made[layout], entries)
        shutil.copy(made["safetensors"] / "config.json", made[layout] / layout)
    write_tensorflow(made["google"], entries, config, PIECES)
    return made


@pytest.mark.parametrize("kind", [("zip", "zip"), ("gztar", "tgz")], ids=str)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_model_opens_by_the_url_of_its_archive(
    layout: str,
    nested: bool,
    kind: tuple[str, str],
    folders: dict[str, Path],
    server: Server,
    tmp_path: Path,
) -> None:
    inside = tmp_path / "packed" / ("chinese_L-2_H-32_A-2" if nested else "")
    shutil.copytree(folders[layout], inside)
    archive = Path(shutil.make_archive(str(tmp_path / "model"), kind[0], tmp_path / "packed"))
    url = server.add(f"/model.{kind[1]}", archive.read_bytes())
    server.faults = [Fault(break_after=5000)]

    found, expected = open_checkpoint(locate(url)), open_checkpoint(folders["safetensors"])
    assert found.format == LAYOUTS[layout]
    assert set(found.entries) == set(expected.entries)
    for name, entry in expected.entries.items():
        assert torch.equal(found.entries[name].read(), entry.read()), name
    assert BertConfig.from_pretrained(url).num_hidden_layers == 2
    assert list(Tokenizer.from_pretrained(url).vocabulary) == PIECES

    save(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folders[layout])


def test_the_genuine_checkpoint_of_tensorflow_opens_from_an_archive(
    data: Path, server: Server, tmp_path: Path
) -> None:
    source = data / "fixtures" / "tf1_tiny_bert"
    shutil.copytree(source, tmp_path / "packed" / "uncased_L-2_H-128_A-2")
    archive = Path(shutil.make_archive(str(tmp_path / "model"), "zip", tmp_path / "packed"))
    url = server.add("/uncased_L-2_H-128_A-2.zip", archive.read_bytes())
    found, expected = open_checkpoint(locate(url)), open_checkpoint(source)
    assert len(found.entries) > 30
    for name, entry in expected.entries.items():
        assert torch.equal(found.entries[name].read(), entry.read()), name
