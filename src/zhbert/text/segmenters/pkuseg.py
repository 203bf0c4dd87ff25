"""pkuseg, by its maintained build spacy-pkuseg (https://github.com/explosion/spacy-pkuseg)."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from zhbert.text.segmenters.library import LibrarySegmenter
from zhbert.text.segmenters.loading import Library, describe_model
from zhbert.text.simplify import Simplifier

_DEFAULT = "spacy_ontonotes"
_PKUSEG = Library("pkuseg")


def load_pkuseg(
    *,
    user_words: Path | None = None,
    traditional: str = "characters",
    model: str | Path | None = None,
) -> LibrarySegmenter:
    """Load pkuseg.

    ``model``: a folder that ``spacy_pkuseg.train`` wrote, or a published name (spacy_ontonotes,
    web, news, medicine, tourism, mixed; spacy_ontonotes otherwise), which pkuseg fetches.
    """
    library = _PKUSEG.module("spacy_pkuseg")
    simplify = Simplifier(traditional)
    config = library.config
    named = _DEFAULT if model is None else model
    local = None if named in config.available_models else _PKUSEG.local(named)
    if local is not None:
        # The older features.pkl is not accepted: it is a pickle, which can run code.
        _PKUSEG.files(local, ["features.msgpack", "weights.npz"])
    elif named not in config.available_models:
        raise _PKUSEG.error(
            f"no model '{named}': a folder, or one of {', '.join(config.available_models)}"
        )
    words = [simplify(word) for word, _, _ in _PKUSEG.user_words(user_words)]
    with _PKUSEG.loading(named):
        segmenter = library.pkuseg(str(local or named), user_dict=words or "default")
        folder = Path(config.modelDir)
    found = [folder / name for name in ("features.msgpack", "features.pkl", "weights.npz")]
    return LibrarySegmenter(
        "pkuseg",
        metadata.version("spacy-pkuseg"),
        segmenter.cut,
        simplify=simplify,
        options=describe_model(named, [file for file in found if file.is_file()]),
        user_words=user_words,
    )
