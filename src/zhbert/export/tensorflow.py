"""Model folders in Google's layout (https://github.com/google-research/bert): a TensorFlow 1
checkpoint, bert_config.json and vocab.txt.

No .meta file is written. It would contain a graph of TensorFlow operations, but the programs that
open such models (Google's ``init_checkpoint``, transformers, bert4keras) build their own graph and
read the variables by name.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, write_json, write_text
from zhbert.model.config import BertConfig
from zhbert.model.entry import Entry, in_shards
from zhbert.model.formats.tensorflow import NAMES, import_tensorflow

NAME = "bert_model.ckpt"
# The size of a part of the data; parts are in memory one at a time.
_PART_BYTES = 64 << 20
# Keys of Google's bert_config.json besides those of BertConfig, and the label names, which a
# classifier needs.
_KEPT = (
    "directionality",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
    "id2label",
    "label2id",
)
# Keys that only Hugging Face has, with the values that Google's code always uses; other values are
# written.
_FIXED = {"layer_norm_eps": 1e-12, "pad_token_id": 0}


def write_tensorflow(
    folder: Path,
    entries: Mapping[str, Entry],
    config: BertConfig,
    vocabulary: Sequence[str] | None = None,
) -> None:
    """Write bert_model.ckpt.*, bert_config.json and vocab.txt into a new folder.

    At most 64 MB of tensors (or one larger tensor) are in memory at a time and in each data file.
    Tensors without a counterpart in Google's models keep their names.

    Raises:
        ZhbertError: TensorFlow is missing, or the disk is full.
    """
    tensorflow = import_tensorflow()
    with suppress(RuntimeError):
        # TensorFlow refuses this after the calling program has used its devices.
        tensorflow.config.set_visible_devices([], "GPU")
    parts = in_shards(entries, _PART_BYTES)
    with _writing(tensorflow, folder), tensorflow.device("CPU:0"):
        if len(parts) == 1:
            _save(tensorflow, folder / NAME, parts[0])
        else:
            prefixes = []
            for number, part in enumerate(parts):
                prefixes.append(str(folder / f"part-{number:05}" / NAME))
                _save(tensorflow, Path(prefixes[-1]), part)
            tensorflow.raw_ops.MergeV2Checkpoints(
                checkpoint_prefixes=prefixes,
                destination_prefix=str(folder / NAME),
                delete_old_dirs=True,
            )
        write_json(folder / "bert_config.json", google_config(config))
        if vocabulary is not None:
            write_text(folder / "vocab.txt", "".join(f"{piece}\n" for piece in vocabulary))


def google_config(config: BertConfig) -> dict[str, Any]:
    """Return the content of bert_config.json, in the order of Google's files.

    >>> "model_type" in google_config(BertConfig(vocab_size=100))
    False
    """
    values = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "other"}
    for name, fixed in _FIXED.items():
        if values[name] == fixed:
            del values[name]
    values |= {name: config.other[name] for name in _KEPT if name in config.other}
    return dict(sorted(values.items()))


def _save(tensorflow: Any, prefix: Path, part: Mapping[str, Entry]) -> None:
    names, tensors = [], []
    for name, entry in part.items():
        theirs, transposed = NAMES.from_hugging_face(name) or (name, False)
        tensor = entry.read()
        names.append(theirs)
        tensors.append(_shared(tensorflow, tensor.t() if transposed else tensor))
    tensorflow.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=tensors,
    )


def _shared(tensorflow: Any, tensor: Tensor) -> Any:
    """Return a TensorFlow tensor that shares the memory; going through NumPy would copy it."""
    capsule = tensor.detach().contiguous().__dlpack__()
    return tensorflow.experimental.dlpack.from_dlpack(capsule)


@contextmanager
def _writing(tensorflow: Any, folder: Path) -> Iterator[None]:
    try:
        yield
    except tensorflow.errors.ResourceExhaustedError:
        full = OSError(errno.ENOSPC, "No space left on device", str(folder))
        raise describe_os_error(full, "writing") from None
    except tensorflow.errors.OpError as error:
        line = str(error).split("\n")[0]
        raise ZhbertError(f"writing {folder}: TensorFlow: {line}") from None
    except OSError as error:
        raise describe_os_error(error, "writing") from None
