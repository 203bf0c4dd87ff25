"""The parts of HanLP 2.1's interface that zhbert uses, with a model of one number a character.

As in HanLP, a config's ``classpath`` and a vocabulary's ``type`` are imported and called, whatever
they name (hanlp_common/configurable.py, hanlp/common/transform.py), so a hostile model runs here
what it would run there.
"""

from __future__ import annotations

import importlib
import json
import types
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

VERSION = "2.1.5"


class _Made:
    """What a harmless class path makes."""

    def __init__(self, **options: Any) -> None:
        self.options = options


def _made(config: dict[str, Any]) -> Any:
    """HanLP's Configurable.from_config."""
    module, name = config["classpath"].rsplit(".", 1)
    parts = {
        key: _made(value) if isinstance(value, dict) and "classpath" in value else value
        for key, value in config.items()
        if key != "classpath"
    }
    return getattr(importlib.import_module(module), name)(**parts)


class _Config(dict[str, Any]):
    __setattr__ = dict.__setitem__


class _Model(torch.nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.word_embeddings = torch.nn.Embedding(size, 1)


class TransformerTaggingTokenizer:
    """A word begins at each character whose number is low, and at those that it never saw."""

    dict_force: set[str] | None = None

    def __init__(self) -> None:
        self.config = _Config()

    def load(self, save_dir: str, devices: int, verbose: bool) -> None:
        folder = Path(save_dir)
        self.config.update(json.loads((folder / "config.json").read_text()))
        for key, value in self.config.items():
            if isinstance(value, dict) and "classpath" in value:
                self.config[key] = _made(value)
        vocabs = json.loads((folder / "vocabs.json").read_text())
        for vocab in vocabs.values():
            module, name = vocab["type"].rsplit(".", 1)
            getattr(importlib.import_module(module), name)()
        self.characters = vocabs["tag"]["idx_to_token"]
        self.model_ = _Model(len(self.characters))
        self.load_weights(save_dir)

    def load_weights(self, save_dir: str, filename: str = "model.pt") -> None:
        state = torch.load(Path(save_dir) / filename, map_location="cpu")
        self.model_.load_state_dict(state, strict=False)

    def __call__(self, sentences: list[str]) -> list[list[list[Any]]]:
        assert self.config["output_spans"]
        return [list(self._spans(sentence)) for sentence in sentences]

    def _spans(self, sentence: str) -> Any:
        inside = self.model_.word_embeddings.weight[:, 0].tolist()
        known = dict(zip(self.characters, inside, strict=True))
        starts = {at for at, character in enumerate(sentence) if known.get(character, 0) < 0.5}
        for at in range(len(sentence)):
            for word in self.dict_force or ():
                if sentence.startswith(word, at):
                    starts -= set(range(at + 1, at + len(word)))
                    starts |= {at, at + len(word)}
        places = sorted(starts & set(range(len(sentence))) | {0, len(sentence)})
        for a, b in pairwise(places):
            yield [sentence[a:b], a, b]


def get_resource(name: str) -> str:
    """HanLP's download; there is no network here."""
    raise ConnectionError(f"{name}: no route to host")


def modules() -> dict[str, types.ModuleType]:
    """The modules to register, by name."""
    found = {
        name: types.ModuleType(name)
        for name in (
            "hanlp",
            "hanlp.common",
            "hanlp.common.dataset",
            "hanlp.common.transform",
            "hanlp.common.vocab",
            "hanlp.components",
            "hanlp.components.tokenizers",
            "hanlp.components.tokenizers.transformer",
            "hanlp.components.lambda_wrapper",
            "hanlp.utils",
            "hanlp.utils.io_util",
        )
    }
    members: dict[str, dict[str, Any]] = {
        "hanlp": {
            "pretrained": types.SimpleNamespace(
                tok=types.SimpleNamespace(ALL={"COARSE_ELECTRA_SMALL_ZH": "https://..."})
            )
        },
        "hanlp.common.dataset": {"SortingSamplerBuilder": _Made},
        "hanlp.common.transform": {"NormalizeCharacter": _Made},
        "hanlp.common.vocab": {"Vocab": _Made},
        "hanlp.components.tokenizers.transformer": {
            "TransformerTaggingTokenizer": TransformerTaggingTokenizer
        },
        "hanlp.utils.io_util": {"get_resource": get_resource},
    }
    for name, values in members.items():
        vars(found[name]).update(values)
    return found
