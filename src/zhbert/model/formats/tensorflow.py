"""Reading of TensorFlow 1 checkpoints, as written by Google's BERT, with Hugging Face's names."""

from __future__ import annotations

import importlib
import math
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, refused
from zhbert.model.entry import Entry
from zhbert.model.formats.renaming import Renaming
from zhbert.model.names import of_encoder, shared_prefix
from zhbert.wording import how_to_install

NAMES = Renaming(
    {
        "E": ("bert/embeddings", "bert.embeddings"),
        "L": ("bert/encoder/layer_*", "bert.encoder.layer.*"),
        "P": ("cls/predictions", "cls.predictions"),
    },
    # TensorFlow's                     Hugging Face's                       transposed
    (
        ("E/word_embeddings",              "E.word_embeddings.weight",              False),
        ("E/position_embeddings",          "E.position_embeddings.weight",          False),
        ("E/token_type_embeddings",        "E.token_type_embeddings.weight",        False),
        ("E/LayerNorm/gamma",              "E.LayerNorm.weight",                    False),
        ("E/LayerNorm/beta",               "E.LayerNorm.bias",                      False),
        ("L/attention/self/query/kernel",  "L.attention.self.query.weight",         True),
        ("L/attention/self/query/bias",    "L.attention.self.query.bias",           False),
        ("L/attention/self/key/kernel",    "L.attention.self.key.weight",           True),
        ("L/attention/self/key/bias",      "L.attention.self.key.bias",             False),
        ("L/attention/self/value/kernel",  "L.attention.self.value.weight",         True),
        ("L/attention/self/value/bias",    "L.attention.self.value.bias",           False),
        ("L/attention/output/dense/kernel", "L.attention.output.dense.weight",      True),
        ("L/attention/output/dense/bias",  "L.attention.output.dense.bias",         False),
        ("L/attention/output/LayerNorm/gamma", "L.attention.output.LayerNorm.weight", False),
        ("L/attention/output/LayerNorm/beta", "L.attention.output.LayerNorm.bias",  False),
        ("L/intermediate/dense/kernel",    "L.intermediate.dense.weight",           True),
        ("L/intermediate/dense/bias",      "L.intermediate.dense.bias",             False),
        ("L/output/dense/kernel",          "L.output.dense.weight",                 True),
        ("L/output/dense/bias",            "L.output.dense.bias",                   False),
        ("L/output/LayerNorm/gamma",       "L.output.LayerNorm.weight",             False),
        ("L/output/LayerNorm/beta",        "L.output.LayerNorm.bias",               False),
        ("bert/pooler/dense/kernel",       "bert.pooler.dense.weight",              True),
        ("bert/pooler/dense/bias",         "bert.pooler.dense.bias",                False),
        ("P/transform/dense/kernel",       "P.transform.dense.weight",              True),
        ("P/transform/dense/bias",         "P.transform.dense.bias",                False),
        ("P/transform/LayerNorm/gamma",    "P.transform.LayerNorm.weight",          False),
        ("P/transform/LayerNorm/beta",     "P.transform.LayerNorm.bias",            False),
        ("P/output_bias",                  "P.bias",                                False),
        # Google's code uses these with transpose_b=True, so they are stored like Hugging Face's.
        ("cls/seq_relationship/output_weights", "cls.seq_relationship.weight",      False),
        ("cls/seq_relationship/output_bias", "cls.seq_relationship.bias",           False),
        # run_classifier.py and run_squad.py
        ("output_weights",                 "classifier.weight",                     False),
        ("output_bias",                    "classifier.bias",                       False),
        ("cls/squad/output_weights",       "qa_outputs.weight",                     False),
        ("cls/squad/output_bias",          "qa_outputs.bias",                       False),
    ),
)  # fmt: skip
# Optimiser state, by the last part of the name.
_OPTIMISER = re.compile(
    r"global_step(_\d+)?|(beta\d|.+)_power(_\d+)?|(current_)?loss_scale(_\d+)?|(good|bad)_steps"
    r"|(adam|lamb)_[mv](_\d+)?|Adam(_\d+)?|Momentum|ExponentialMovingAverage|accum(ulator)?(_\d+)?"
)
_CHATTER = re.compile(
    rb"WARNING: All log messages before absl|I\d{4} |To enable the following instr"
)
_SHARD = re.compile(r"\.data-(\d+)-of-(\d+)$")
_CHECKPOINT = "a checkpoint of TensorFlow"
_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def import_tensorflow() -> Any:
    """Import TensorFlow without its messages; raise a ZhbertError with advice if it is missing.

    The import takes three seconds and half a gigabyte, so it is done only for its checkpoints.
    """
    # Hides its messages at run time, unless the user has set this.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _without_chatter(), _without_keras(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("tensorflow")
    except ImportError as error:
        if error.name and error.name.partition(".")[0] != "tensorflow":
            raise ZhbertError(f"TensorFlow does not start: {error}; install it anew") from None
        raise ZhbertError(
            "TensorFlow checkpoints are read and written by TensorFlow, which is not installed: "
            f"{how_to_install('tensorflow')}"
        ) from None


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Hide the messages on stderr that TensorFlow prints on import regardless of settings."""
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(real, 2)
            caught.seek(0)
            os.write(real, b"".join(line for line in caught if not _CHATTER.match(line)))
            os.close(real)


@contextmanager
def _without_keras() -> Iterator[None]:
    """Keep TensorFlow from importing Keras and, with it, scikit-learn: 80 MB and a second.

    TensorFlow still loads ``tensorflow.keras`` when a program uses it later.
    """
    if "keras" in sys.modules:
        yield
        return
    sys.modules["keras"] = None  # type: ignore[assignment]  # import then raises ImportError
    try:
        yield
    finally:
        del sys.modules["keras"]


def read_tensorflow(prefix: Path) -> tuple[dict[str, Entry], list[str]]:
    """Return the entries of ``prefix.index``, ``prefix.data-*``, and the names of skipped ones.

    Names are Hugging Face's; names that are not in the table stay unchanged. Optimiser state is
    skipped.

    Raises:
        ZhbertError: TensorFlow is missing, a file is missing or damaged, or TensorFlow 2 wrote it.
    """
    reader, shapes, kinds = _opened(prefix)
    # Programs may build the model inside another variable scope.
    scope = shared_prefix(shapes, prefix).removesuffix("bert/")
    entries: dict[str, Entry] = {}
    aside = []
    # TensorFlow's map has no defined order.
    for name in sorted(shapes, key=_in_order):
        if _is_optimiser(name, shapes) or kinds[name] not in _DTYPES:
            aside.append(name)
            continue
        here, flip = name.removeprefix(scope), False
        here = f"bert/{here}" if of_encoder(here) else here
        if (known := NAMES.to_hugging_face(here)) is not None:
            here, flip = known
        entry = Entry(shapes[name], _DTYPES[kinds[name]], partial(_read, reader, prefix, name))
        if here in entries:
            raise ZhbertError(f"{prefix}: two variables mean {here}; the second is {name}")
        entries[here] = entry.then(torch.t) if flip and len(entry.shape) == 2 else entry
    return entries, aside


def _opened(prefix: Path) -> tuple[Any, dict[str, tuple[int, ...]], dict[str, str]]:
    """Open TensorFlow's reader of a checkpoint; return it and each variable's shape and type."""
    available = _check_files(prefix)
    tensorflow = import_tensorflow()
    with refused(prefix, _CHECKPOINT):
        reader = tensorflow.train.load_checkpoint(str(prefix))
        shapes = {n: tuple(shape) for n, shape in reader.get_variable_to_shape_map().items()}
        kinds = reader.get_variable_to_dtype_map()
        size = sum(math.prod(shape) * kinds[name].size for name, shape in shapes.items())
    if "_CHECKPOINTABLE_OBJECT_GRAPH" in shapes:
        raise ZhbertError(
            f"{prefix}: a checkpoint of TensorFlow 2 objects; those of TensorFlow 1, as Google's "
            "BERT writes them, are read: convert it with the program that wrote it"
        )
    if size > available:
        raise ZhbertError(
            f"{prefix}.data-*: truncated: {available:,} of {size:,} bytes; fetch it again"
        )
    return reader, shapes, {name: kind.name for name, kind in kinds.items()}


def _check_files(prefix: Path) -> int:
    """Return the size of all data parts in bytes; check that every part exists."""
    parts = {}
    try:
        for path in prefix.parent.glob(f"{prefix.name}.data-*"):
            if shard := _SHARD.search(path.name):
                parts[int(shard[1])] = path.stat().st_size, int(shard[2])
    except OSError as error:
        raise describe_os_error(error, "reading") from None
    count = max((of for _, of in parts.values()), default=1)
    for number in range(count):
        if number not in parts:
            raise ZhbertError(
                f"{prefix}.data-{number:05}-of-{count:05}: missing beside the .index; fetch it too"
            )
    return sum(size for size, _ in parts.values())


def _read(reader: Any, prefix: Path, name: str) -> Tensor:
    with refused(prefix, _CHECKPOINT):
        array = reader.get_tensor(name)
    if array.dtype.name == "bfloat16":
        # NumPy's bfloat16 cannot be converted to PyTorch's, but has the same bits.
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)


def _is_optimiser(name: str, names: Iterable[str]) -> bool:
    parent, _, last = name.rpartition("/")
    # The slots of all optimisers are named VARIABLE/SLOT.
    return parent in names or _OPTIMISER.fullmatch(last) is not None


def _in_order(name: str) -> list[int | str]:
    """Return a sort key that puts layer_2 before layer_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
