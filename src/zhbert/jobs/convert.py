"""Write a model in another program's form: safetensors, PyTorch's pickle, Google's TensorFlow.

zhbert convert chinese_roberta_wwm_ext_L-12_H-768_A-12.zip rwx --to safetensors
zhbert convert runs/tiny/final tiny-tf --to tensorflow
zhbert convert rbt3 rbt3-half --to safetensors --dtype float16

SRC is a folder, an archive of one, or a name (zhbert models). Numbers stay as they are, bit for
bit, unless --dtype says otherwise. Training on masked words alone leaves the pooler and the head
of sentence pairs as random as they began: --drop-untrained-heads leaves such heads out.
"""

from __future__ import annotations

import argparse
import ctypes
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.model.folder import architecture_of, check_out, tokenizer_of
from zhbert.wording import counted, listed, without_secrets

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from zhbert.model.checkpoint import Checkpoint, Entry
    from zhbert.model.config import BertConfig
    from zhbert.text.tokenizer import Tokenizer

FORMATS = ("tensorflow", "safetensors", "pytorch")
DTYPES = ("float32", "float16", "bfloat16")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
# Their tensors have the names of BertForSequenceClassification's.
_CLASSIFIERS = ("BertForTokenClassification", "BertForMultipleChoice")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("source", metavar="SRC", help="a model: folder, archive or name")
    parser.add_argument("out", metavar="DST", type=Path, help="the folder to write")
    parser.add_argument("--to", required=True, choices=FORMATS, help="the form to write")
    parser.add_argument("--dtype", choices=DTYPES, help="store numbers so (default: as SRC does)")
    parser.add_argument(
        "--drop-untrained-heads", action="store_true",
        help="leave out heads that hold initial random weights (zhbert inspect names them)",
    )  # fmt: skip
    parser.add_argument(
        "--max-shard-size", metavar="SIZE",
        help="safetensors: cut the file into parts of at most SIZE, as 500MB or 2GB",
    )  # fmt: skip
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a model that stands in DST"
    )


def run(args: argparse.Namespace) -> int:
    """Convert, and say in one line what was written."""
    from zhbert import console

    with console.progress(args.quiet or args.json) as progress:
        task = progress.add_task("converting", total=None)
        report = convert(
            args.source,
            args.out,
            args.to,
            dtype=args.dtype,
            drop_untrained_heads=args.drop_untrained_heads,
            max_shard_bytes=_bytes(args.max_shard_size),
            overwrite=args.overwrite,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
            quiet=args.quiet,
        )
    if args.json:
        console.print_json(report)
        return 0
    if report["unknown"] and not args.quiet:
        names = listed(report["unknown"])
        console.err().print(f"not BERT's, kept as they are: {names}")
    if report["dropped"] and not args.quiet:
        console.err().print(f"never trained, left out: {listed(report['dropped'])}")
    if report["vocabulary"] is None and not args.quiet:
        console.err().print(f"{without_secrets(args.source)}: no vocabulary, so none was written")
    skipped = f"; {len(report['skipped'])} skipped (no weights)" if report["skipped"] else ""
    console.out().print(
        f"{report['folder']}: {report['format']}, {report['architecture']}, {report['dtype']}, "
        f"{counted(report['tensors'], 'tensor')}, {report['bytes']:,} bytes{skipped}",
    )
    return 0


def convert(
    source: str | Path,
    out: str | Path,
    to: str,
    *,
    dtype: str | None = None,
    drop_untrained_heads: bool = False,
    max_shard_bytes: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write the model ``source`` into the folder ``out`` in the form ``to`` (one of FORMATS).

    One tensor after the other is read and written: memory does not grow with the model.
    ``progress`` is called with the bytes read so far and in all.

    Returns ``format``, ``architecture``, ``dtype``, ``tensors``, ``bytes``, ``skipped`` (in the
    source, but no weights), ``unknown`` (kept, but not BERT's), ``dropped`` (of untrained heads),
    ``vocabulary`` (its size).

    Raises:
        ZhbertError: not a BERT, a vocabulary or a configuration that is not this model's, NaN, a
            damaged file, or an ``out`` that is in use; nothing is left behind then.
    """
    import torch

    from zhbert.files import atomic_folder
    from zhbert.model.checkpoint import converted, open_checkpoint
    from zhbert.model.config import BertConfig
    from zhbert.model.pretrained import check_architecture
    from zhbert.zoo import locate
    from zhbert.zoo.layout import find_model

    out = Path(out)
    if max_shard_bytes is not None and to != "safetensors":
        raise ZhbertError("--max-shard-size: only safetensors are cut by size; leave it out")
    check_out(out, source, overwrite=overwrite, option="DST")
    folder = locate(source, quiet=quiet)
    config = BertConfig.from_pretrained(folder)
    checkpoint = open_checkpoint(folder)
    check_architecture(checkpoint, config)
    unknown = _check_shapes(checkpoint, config)
    tokenizer = tokenizer_of(find_model(folder), config.vocab_size)
    dropped = _of_untrained_heads(checkpoint, config) if drop_untrained_heads else []
    kept = {name: entry for name, entry in checkpoint.entries.items() if name not in dropped}
    checkpoint = replace(checkpoint, entries=kept)
    kind = None if dtype is None else getattr(torch, dtype)
    entries = converted(checkpoint.entries, kind)
    config = _described(config, entries)
    with atomic_folder(out, replace=overwrite) as temporary:
        watched = _watched(checkpoint, kind, progress)
        _write(temporary, watched, config, tokenizer, to, max_shard_bytes)
    return {
        "folder": str(out),
        "format": to,
        "architecture": config.other["architectures"][0],
        "dtype": config.other["dtype"],
        "tensors": len(entries),
        "bytes": sum(entry.size for entry in entries.values()),
        "skipped": list(checkpoint.skipped),
        "unknown": unknown,
        "dropped": dropped,
        "vocabulary": None if tokenizer is None else len(tokenizer),
    }


def _write(
    folder: Path,
    entries: Mapping[str, Entry],
    config: BertConfig,
    tokenizer: Tokenizer | None,
    to: str,
    max_shard_bytes: int | None,
) -> None:
    from zhbert.model.checkpoint import write_pytorch, write_safetensors
    from zhbert.text.tokenizer import Tokenizer

    if to == "tensorflow":
        from zhbert.export.tensorflow import write_tensorflow

        write_tensorflow(
            folder, entries, config, None if tokenizer is None else tokenizer.vocabulary
        )
        # Google's layout has no place for the tokenizer's options. Where the pieces alone would be
        # read with others, our files beside them say which.
        if tokenizer is not None:
            alone = Tokenizer.from_pretrained(folder)
            if alone.fingerprint() != tokenizer.fingerprint():
                tokenizer.save_pretrained(folder)
        return
    if to == "pytorch":
        write_pytorch(folder, entries)
    else:
        write_safetensors(folder, entries, max_shard_bytes=max_shard_bytes)
    config.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder, model_max_length=config.max_position_embeddings)


def _check_shapes(checkpoint: Checkpoint, config: BertConfig) -> list[str]:
    """Check every tensor of BERT's against the configuration; the names that are not BERT's."""
    import torch

    from zhbert.model.names import to_hugging_face
    from zhbert.model.pretrained import BertForPreTraining, check_tensors

    with torch.device("meta"):
        model = BertForPreTraining(config)
    wanted = to_hugging_face(dict(model.named_parameters()))
    check_tensors(checkpoint, wanted)
    heads = ("classifier.weight", "classifier.bias", "qa_outputs.weight", "qa_outputs.bias")
    return [name for name in checkpoint.entries if name not in wanted and name not in heads]


def _of_untrained_heads(checkpoint: Checkpoint, config: BertConfig) -> list[str]:
    """The tensors of those heads that hold initial random weights."""
    from zhbert.model.inspection import HEADS, head_states

    states = head_states(checkpoint.entries, config.initializer_range)
    return [
        name
        for head, state in states.items()
        if state.word == "random"
        for name in HEADS[head].names
    ]


def _described(config: BertConfig, entries: Mapping[str, Entry]) -> BertConfig:
    """The configuration with what the file really holds: class, type of the numbers, labels."""
    # The decoder is the word embeddings themselves here, whatever the source says of it.
    former_keys = ("torch_dtype", "tie_word_embeddings")
    other = {name: value for name, value in config.other.items() if name not in former_keys}
    name = architecture_of(entries)
    former = other.get("architectures") or [""]
    if name == "BertForSequenceClassification" and former[0] in _CLASSIFIERS:
        name = former[0]
    other["architectures"] = [name]
    words = entries["bert.embeddings.word_embeddings.weight"]
    other["dtype"] = str(words.dtype).removeprefix("torch.")
    if "classifier.weight" in entries and "id2label" not in other:
        # Hugging Face counts a classifier's classes by their names.
        count = entries["classifier.weight"].shape[0]
        return replace(config, other=other).with_labels([f"LABEL_{n}" for n in range(count)])
    return replace(config, other=other)


def _watched(
    checkpoint: Checkpoint, dtype: torch.dtype | None, progress: Callable[[int, int], object]
) -> dict[str, Entry]:
    """The entries in their new type, checked as they are read, with word of the progress."""
    from zhbert.model.checkpoint import converted, is_finite

    source = checkpoint.checked()
    total = sum(entry.size for entry in source.values())
    done = 0

    def read(name: str) -> Tensor:
        nonlocal done
        _give_back_memory()
        tensor = source[name].read()
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
            if not is_finite(tensor):
                raise ZhbertError(
                    f"{checkpoint.file}: {name} holds numbers above those of {entries[name].dtype};"
                    " use --dtype bfloat16"
                )
        done += source[name].size
        progress(done, total)
        return tensor

    entries = converted(source, dtype)
    return {name: replace(entry, read=partial(read, name)) for name, entry in entries.items()}


def _give_back_memory() -> None:
    """Return what is freed to the system: glibc's heap of large and small blocks keeps most of it.

    1 GB was kept so in converting a model of 2 GB.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _bytes(text: str | None) -> int | None:
    """A size with its unit, in bytes.

    >>> _bytes("500MB"), _bytes("2g")
    (500000000, 2000000000)
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)\s*([kmg]?)b?", text.strip().lower())
    if match is None or not int(match[1]):
        raise ZhbertError(f"--max-shard-size {text}: not a size; write 500MB or 2GB")
    return int(match[1]) * _UNITS[match[2]]
