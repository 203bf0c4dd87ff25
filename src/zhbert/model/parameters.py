"""The number of parameters of a recipe, a model, or a shape (LAYERSxWIDTH)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zhbert.config import (
    VOCABULARY_SIZE,
    ModelShape,
    flatten,
    load_recipe,
    recipe_names,
    resolve_shape,
)
from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig, count_parameters_by_part
from zhbert.zoo.layout import is_weights
from zhbert.zoo.origin import is_here

_SHAPE = re.compile(r"(\d{1,9})[xX×](\d{1,9})")


def parameters_of(what: str, *, vocabulary_size: int = 21128) -> dict[str, Any]:
    """Count the parameters of a recipe, a model or a shape (LAYERSxWIDTH), by part and in total.

    ``vocabulary_size`` is used for a recipe or a shape, which do not have one.

    >>> parameters_of("2x128")["total"]
    3221642

    Raises:
        ZhbertError: it is none of these, or the vocabulary's size is impossible.
    """
    config = _config(what, vocabulary_size)
    parts = count_parameters_by_part(config)
    return {
        "what": what,
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "vocabulary_size": config.vocab_size,
        "parts": parts,
        "total": sum(parts.values()),
    }


def _config(what: str, vocabulary_size: int) -> BertConfig:
    if not VOCABULARY_SIZE[1](vocabulary_size):
        raise ZhbertError(f"--vocabulary-size {vocabulary_size}: must be {VOCABULARY_SIZE[0]}")
    shape: ModelShape | None = None
    path = Path(what)
    if match := _SHAPE.fullmatch(what):
        layers, width = int(match[1]), int(match[2])
        # One head is valid for every width; the count does not depend on the number of heads.
        shape = resolve_shape(
            ModelShape(num_hidden_layers=layers, hidden_size=width, num_attention_heads=1)
        )
    elif path.is_dir() or what.endswith(".json") or (path.is_file() and is_weights(path)):
        return BertConfig.from_pretrained(what)
    elif what in recipe_names() or path.is_file():
        shape = resolve_shape(load_recipe(what).model)
    elif is_here(what):
        return BertConfig.from_pretrained(what)
    if shape is None:
        raise ZhbertError(
            f"'{what}': not a recipe, a model folder or a shape such as 12x768; "
            f"recipes: {', '.join(recipe_names())}"
        )
    return BertConfig(vocab_size=vocabulary_size, **flatten(shape))
