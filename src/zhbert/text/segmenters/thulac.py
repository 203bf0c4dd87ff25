"""THULAC's version in Python (https://github.com/thunlp/THULAC-Python)."""

from __future__ import annotations

import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from zhbert.text.segmenters.library import LibrarySegmenter
from zhbert.text.segmenters.loading import Library, describe_model
from zhbert.text.simplify import Simplifier

_FILES = (
    "cws_model.bin",
    "cws_dat.bin",
    "cws_label.txt",
    "t2s.dat",
    "ns.dat",
    "idiom.dat",
    "singlepun.dat",
)
_THULAC = Library("thulac")


def load_thulac(
    *,
    user_words: Path | None = None,
    traditional: str = "characters",
    model: str | Path | None = None,
) -> LibrarySegmenter:
    """Load THULAC, which holds its model as Python numbers: 0.8 GB in each process.

    ``model``: a folder with its files; the one in its package otherwise.
    """
    library = _THULAC.module("thulac")
    simplify = Simplifier(traditional)
    folder = Path(library.__file__).parent / "models"
    if model is not None:
        local = _THULAC.local(model)
        if local is None:
            raise _THULAC.error(f"{model}: no such model folder")
        folder = local
    files = _THULAC.files(folder, _FILES)
    words = [simplify(word) for word, _, _ in _THULAC.user_words(user_words)]
    segmenter = _open(library, folder, words)

    def cut(sentence: str) -> list[str]:
        return [word for word, _ in segmenter.cut(sentence)]

    return LibrarySegmenter(
        "thulac",
        metadata.version("thulac"),
        cut,
        simplify=simplify,
        options=describe_model("default" if model is None else model, files),
        user_words=user_words,
    )


def _open(library: Any, folder: Path, words: list[str]) -> Any:
    """THULAC with the model of a folder; the user's words go through a file."""
    with _THULAC.loading(folder), tempfile.TemporaryDirectory() as temporary:
        file = None
        if words:
            file = Path(temporary) / "words.txt"
            lines = [f"{word}\n" for word in dict.fromkeys(words)]
            file.write_text("".join(lines), encoding="utf-8")
        return library.thulac(
            user_dict=None if file is None else str(file), model_path=str(folder), seg_only=True
        )
