"""HanLP 2's transformer tokenizers (https://github.com/hankcs/HanLP)."""

from __future__ import annotations

import re
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

from zhbert.text.segmenters.library import LibrarySegmenter
from zhbert.text.segmenters.loading import Library, describe_model, entries_of
from zhbert.text.simplify import Simplifier

_DEFAULT = "COARSE_ELECTRA_SMALL_ZH"
_CLASS = "hanlp.components.tokenizers.transformer.TransformerTaggingTokenizer"
_HANLP = Library(
    "hanlp",
    {
        "classpath": frozenset(
            (
                _CLASS,
                "hanlp.common.dataset.KMeansSamplerBuilder",
                "hanlp.common.dataset.SortingSamplerBuilder",
                "hanlp.common.transform.NormalizeCharacter",
                "hanlp.common.transform.NormalizeToken",
                "hanlp.layers.scalar_mix.ScalarMixWithDropoutBuilder",
            )
        ),
        # In vocabs.json.
        "type": frozenset(
            f"hanlp.common.vocab.{name}"
            for name in ("LowercaseVocab", "Vocab", "VocabWithFrequency", "VocabWithNone")
        ),
    },
)
_ADDRESS = re.compile(r"(?:https?|ftp):(?!//file\.hankcs\.com/)", re.IGNORECASE)


def load_hanlp(
    *,
    user_words: Path | None = None,
    traditional: str = "characters",
    model: str | Path | None = None,
) -> LibrarySegmenter:
    """Load HanLP.

    ``model``: a folder that a tokenizer was saved to, an address, or a name of
    ``hanlp.pretrained.tok`` (COARSE_ELECTRA_SMALL_ZH otherwise), which HanLP fetches.
    """
    simplify = Simplifier(traditional)
    library = _HANLP.module("hanlp")
    named = _DEFAULT if model is None else model
    folder = _HANLP.local(named)
    if folder is None:
        folder = _fetch(library, str(named))
    # HanLP makes an object of whatever class the config names.
    made = _config(folder, "config.json").get("classpath")
    if made != _CLASS:
        raise _HANLP.error(f"{named} holds a {made}; a {_CLASS.split('.')[-1]} is needed")
    _config(folder, "vocabs.json")
    files = _HANLP.files(folder, ["config.json", "model.pt", "vocabs.json"])
    tokenizer = _open(folder, named)
    words = {simplify(word) for word, _, _ in _HANLP.user_words(user_words)}
    if words:
        tokenizer.dict_force = words
    tokenizer.config.output_spans = True

    def cut(sentence: str) -> list[str]:
        # By their spans: a character of several pieces (한 has three) may come as several words.
        ends = {end for _, _, end in tokenizer([sentence])[0]}
        return [sentence[a:b] for a, b in pairwise([0, *sorted(ends)])]

    return LibrarySegmenter(
        "hanlp",
        metadata.version("hanlp"),
        cut,
        simplify=simplify,
        options=describe_model(named, files),
        user_words=user_words,
    )


def _fetch(library: Any, name: str) -> Path:
    """Return the folder of a published model or of an address, in HanLP's cache."""
    if name not in library.pretrained.tok.ALL and "://" not in name:
        raise _HANLP.error(
            f"no model '{name}': a folder, or a name of hanlp.pretrained.tok such as {_DEFAULT}"
        )
    with _HANLP.loading(name):
        return Path(_HANLP.module("hanlp.utils.io_util").get_resource(name))


def _config(folder: Path, name: str) -> dict[str, Any]:
    """Return a JSON file of a model, without addresses: HanLP would fetch what stands there."""
    config = _HANLP.config(folder, name)
    for key, value in entries_of(config):
        if isinstance(value, str) and _ADDRESS.match(value):
            raise _HANLP.error(
                f"{folder / name}: {key} is an address, {value[:80]!r}: refused, but for those of "
                "https://file.hankcs.com/"
            )
    return config


def _open(folder: Path, named: str | Path) -> Any:
    """HanLP's tokenizer with all of its weights."""
    library = _HANLP.module("hanlp.components.tokenizers.transformer")
    missing: list[str] = []

    class NotingMissingWeights(library.TransformerTaggingTokenizer):  # type: ignore[misc, name-defined]
        def load_weights(self, *arguments: Any, **options: Any) -> None:
            self.model_.register_load_state_dict_post_hook(
                lambda _, keys: missing.extend(keys.missing_keys)
            )
            super().load_weights(*arguments, **options)

    with _HANLP.loading(named):
        tokenizer = NotingMissingWeights()
        tokenizer.load(str(folder), devices=-1, verbose=False)
    _HANLP.refuse_missing(folder, missing)
    return tokenizer
