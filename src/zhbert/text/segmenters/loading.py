"""Importing a segmenter's library and reading the files of its models.

What goes wrong becomes one line that names the segmenter. Since these libraries import and call
whatever a model's files name, the files are looked through before a library sees them.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import read_json, sha256_of
from zhbert.text.segmenters.user_words import UserWord, read_user_words
from zhbert.wording import how_to_install

# Keys by which transformers, which LTP and HanLP load models with, runs code of a model's folder
# or kernels of the hub; and the values that are allowed.
_NAMES_OF_TRANSFORMERS: dict[str, frozenset[str]] = {
    "auto_map": frozenset(),
    "attn_implementation": frozenset(("eager", "sdpa")),
    "_attn_implementation": frozenset(("eager", "sdpa")),
    "_attn_implementation_internal": frozenset(("eager", "sdpa")),
}


@dataclass(frozen=True)
class Library:
    """A segmenter's library: how it is imported and which of its models' files are accepted.

    ``allowed_names``: for each key of a config by which the library looks up what it calls, the
    names that may stand there. Names are looked up through modules, so that
    ``torch.nn.parallel.distributed.os.system`` would be a command: only exact names pass.
    """

    segmenter: str
    allowed_names: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def error(self, message: str) -> ZhbertError:
        """Return the error with this message about this segmenter."""
        return ZhbertError(f"segmenter {self.segmenter}: {message}")

    def module(self, name: str) -> Any:
        """Import a module; ZhbertError says what to install."""
        try:
            with warnings.catch_warnings():
                # Python compiles their code for the first time: invalid escapes, for instance.
                warnings.simplefilter("ignore")
                return importlib.import_module(name)
        except ImportError as error:
            raise self.error(
                f"{name.split('.')[0]} cannot be imported ({name_of_error(error)}); "
                f"{how_to_install(self.segmenter)}"
            ) from error

    @contextlib.contextmanager
    def loading(self, model: str | Path) -> Iterator[None]:
        """Turn errors while a model is loaded into one line, and suppress the library's output."""
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            # Files left open, calls that their own dependencies have deprecated.
            warnings.simplefilter("ignore")
            try:
                yield
            except ZhbertError:
                raise
            except (Exception, SystemExit) as error:
                traceback.clear_frames(error.__traceback__)
                raise self.error(
                    f"model {model} could not be loaded ({name_of_error(error)}); give a model's "
                    "file or folder with --segmenter-model, or go online to fetch it"
                ) from error

    def local(self, model: str | Path) -> Path | None:
        """Return the file or folder that ``model`` names; None if it can only be a name."""
        path = Path(model).expanduser()
        if path.exists():
            return path
        text = str(model)
        is_path = isinstance(model, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1
        if is_path and "://" not in text:
            raise self.error(f"{model}: no such model file or folder")
        return None

    def files(self, folder: Path, names: Sequence[str]) -> list[Path]:
        """Return the files of these names in a folder, all of which a model needs."""
        for name in names:
            if not (folder / name).is_file():
                raise self.error(f"{folder}: no {name}: not a {self.segmenter} model")
        return [folder / name for name in names]

    def config(self, folder: Path, name: str = "config.json") -> dict[str, Any]:
        """Return a model's JSON file; raise ZhbertError if it makes the library call other code."""
        (file,) = self.files(folder, [name])
        config = read_json(file, dict, f"a {self.segmenter} model's {name}")
        allowed = {**self.allowed_names, **_NAMES_OF_TRANSFORMERS}
        for key, value in entries_of(config):
            calls = key in allowed and isinstance(value, str | dict | list)
            if calls and (not isinstance(value, str) or value not in allowed[key]):
                raise self.error(
                    f"{file}: {key} wants {str(value)[:80]!r}: refused, as it could run any code; "
                    "give a model from a source that you trust"
                )
        return config

    def refuse_missing(self, folder: Path, weights: Sequence[str]) -> None:
        """Raise ZhbertError for weights that a checkpoint lacks: the library leaves them random."""
        weights = [key for key in weights if "pooler" not in key and "position_ids" not in key]
        if weights:
            raise self.error(
                f"{folder}: the checkpoint lacks {len(weights)} weights ({weights[0]}, ...): a "
                "damaged model, or of another version"
            )

    def user_words(self, file: Path | None) -> list[UserWord]:
        """Return the words of a user dictionary that the library can keep whole: without blanks."""
        words = [] if file is None else read_user_words(file, self.segmenter)
        return [word for word in words if not word.has_blank]


def entries_of(config: Any) -> Iterator[tuple[str, Any]]:
    """Return all keys of a JSON value with their values, at any depth."""
    left = [config]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += value
        if isinstance(value, dict):
            left += value.values()
            yield from value.items()


def name_of_error(error: BaseException) -> str:
    """Return an exception's class and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__


def describe_model(model: str | Path, files: Sequence[Path]) -> dict[str, Any]:
    """Return a model for corpus.json: its name without parent folders, and its files' hash."""
    name = Path(model).resolve().name if Path(model).expanduser().exists() else str(model)
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return {"model": name, "model_sha256": digest.hexdigest()}
