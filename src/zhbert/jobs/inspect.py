"""Describe a checkpoint: format, shape, vocabulary and which heads are trained.

zhbert inspect rbt3
zhbert inspect chinese_L-12_H-768_A-12.zip
zhbert inspect runs/tiny/final/model.safetensors --json

PATH is a model folder of any format, an archive, a name in the catalogue, a hub
id, a URL, or a weights file. Tensors are read one at a time; no model is built.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.wording import counted, listed, without_secrets

if TYPE_CHECKING:
    from zhbert.model.head_states import HeadState
    from zhbert.model.inspection import Inspection, Vocabulary
    from zhbert.sentences.modules import SentenceConfig
    from zhbert.zoo.layout import ModelFiles

_WORDS = {
    "masked_words": "masked words",
    "sentence_pair": "sentence pair",
    "pooler": "pooler",
    "classifier": "classifier",
    "question_answering": "questions",
}
_UNITS = ("B", "kB", "MB", "GB", "TB")
# The number of names shown of a long list; --json has all of them.
_SHOWN = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("path", metavar="PATH", help="model folder, archive, name or weights file")


def run(args: argparse.Namespace) -> int:
    """Inspect the model and print the result; the exit code is 0 even if the model has faults."""
    from zhbert import console
    from zhbert.zoo import find_files

    path = without_secrets(args.path)
    files = find_files(args.path, quiet=args.quiet)
    # Importing torch takes seconds, so a wrong path is reported first.
    from zhbert.model.inspection import inspect_checkpoint
    from zhbert.sentences.modules import read_sentence_config

    found = inspect_checkpoint(files)
    sentence = None
    try:
        sentence = read_sentence_config(files.folder, found.shape["hidden_size"] or 0)
    except ZhbertError as error:
        found = dataclasses.replace(found, problems=(*found.problems, str(error)))
    if args.json:
        console.print_json(describe(path, files, found, sentence))
    else:
        _print(path, found, sentence)
    return 0


def describe(
    path: str, files: ModelFiles, found: Inspection, sentence: SentenceConfig | None
) -> dict[str, Any]:
    """Return the whole inspection, for ``--json``."""
    result: dict[str, Any] = {"path": path, "folder": str(files.folder), "bytes": found.size}
    result |= dataclasses.asdict(found)
    result["sentence_model"] = None if sentence is None else dataclasses.asdict(sentence)
    for name, head in found.heads.items():
        result["heads"][name]["state"] = head.word
    if found.vocabulary is not None:
        result["vocabulary"]["missing"] = found.vocabulary.missing
    return result


def _print(path: str, found: Inspection, sentence: SentenceConfig | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from zhbert import console

    out = console.out()
    out.print(path, style="bold")
    facts = [*_facts(found)]
    if sentence is not None:
        facts.append(("sentences", _sentences(sentence, found.shape["hidden_size"] or 0)))
    out.print(console.facts(facts, 13), soft_wrap=False)
    if found.problems:
        out.print("\ncontradictions", style="bold")
        _print_list(found.problems)
    out.print("\nwhat it can be used for", style="bold")
    uses = Table.grid(padding=(0, 2))
    uses.add_column(no_wrap=False)
    uses.add_column(no_wrap=True)
    uses.add_column(overflow="fold")
    words = {True: "yes", False: "no", None: "doubtful"}
    for use in found.uses:
        style = {True: "green", False: "bold red", None: "yellow"}[use.answer]
        uses.add_row(use.what, Text(words[use.answer], style), use.why)
    out.print(uses, soft_wrap=False)


def _print_list(lines: tuple[str, ...]) -> None:
    from rich.table import Table

    from zhbert import console

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row("-", line)
    console.out().print(table, soft_wrap=False)


def _facts(found: Inspection) -> Iterator[tuple[str, str]]:
    count = len(found.files)
    files = next(iter(found.files)) if count == 1 else counted(count, "file")
    yield "format", f"{found.format}, {files}, {_bytes(found.size)}"
    yield "shape", _shape(found.shape)
    shares = ", ".join(
        name if share == 1 else f"{name} {share:.1%}" for name, share in found.dtypes.items()
    )
    yield "parameters", f"{found.parameters:,} ({shares})"
    yield "vocabulary", _vocabulary(found.vocabulary)
    if found.vocabulary is not None:
        ids = found.vocabulary.special_tokens
        yield "", ", ".join(f"{token} {'missing' if i is None else i}" for token, i in ids.items())
    if found.foreign:
        yield "tensors", _names(found.unused)
        return
    if found.encoder.present:
        yield "encoder", _state(found.encoder)
    for name, head in found.heads.items():
        # Every pretrained BERT has these three; other heads are mentioned only if present.
        if head.present or name in ("masked_words", "sentence_pair", "pooler"):
            yield _WORDS[name], _state(head) + _remark(name, found)
    if found.decoder != "shared":
        yield "decoder", found.decoder
    if found.missing:
        yield "missing", _names(found.missing)
    if found.unused:
        yield "unused", _names(found.unused)
    if found.skipped:
        yield (
            "left aside",
            f"{counted(len(found.skipped), 'item')}, no weights: " + _names(found.skipped),
        )
    if found.not_finite:
        yield "not finite", _names(found.not_finite)


def _sentences(sentence: SentenceConfig, hidden_size: int) -> str:
    steps = [f"{' and '.join(sentence.pooling)} pooling"]
    steps += [type(one).__name__.removesuffix("Config") for one in sentence.projections]
    length = sentence.max_seq_length
    cut = f"; texts are cut to {length:,} pieces" if length else ""
    prompts = f"; prompts {listed(sentence.prompts)}" if sentence.prompts else ""
    dimensions = f"{sentence.embedding_dimension(hidden_size):,} dimensions"
    return f"{', '.join(steps)}; {dimensions}{cut}{prompts}"


def _shape(shape: dict[str, int | None]) -> str:
    def number(field: str, noun: str = "") -> str:
        value = shape[field]
        if value is None:
            return f"? {noun}s" if noun else "?"
        return counted(value, noun) if noun else f"{value:,}"

    return (
        f"{number('num_hidden_layers', 'layer')} x {number('hidden_size')} "
        f"(feed-forward {number('intermediate_size')}), {number('num_attention_heads', 'head')}, "
        f"{number('max_position_embeddings', 'position')}, {number('type_vocab_size', 'segment')}"
    )


def _vocabulary(vocabulary: Vocabulary | None) -> str:
    if vocabulary is None:
        return "none beside the weights"
    case = "cased" if vocabulary.cased else "lower-cased"
    unused = f", {vocabulary.unused} of them [unused]" if vocabulary.unused else ""
    if vocabulary.rows is None:
        agree = "no word embeddings to compare with"
    elif vocabulary.rows == vocabulary.pieces:
        agree = "as many as rows"
    else:
        agree = f"but {counted(vocabulary.rows, 'row')}"
    return f"{counted(vocabulary.pieces, 'piece')}{unused}, {agree}, {case}"


def _state(head: HeadState) -> str:
    if not head.present:
        return "missing" if head.why == "not in the file" else f"missing: {head.why}"
    return f"{head.word}: {head.why}"


def _remark(name: str, found: Inspection) -> str:
    if name == "pooler" and found.heads[name].trained is False and found.encoder.trained:
        return ". Expected where a model was pretrained without sentence pairs"
    if name == "classifier" and found.heads[name].present and found.classifier:
        labels = f"; labels {', '.join(found.labels.values())}" if found.labels else ""
        return f". Classifies {found.classifier}{labels}"
    return ""


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _bytes(size: float) -> str:
    power = 0
    while size >= 1000 and power < len(_UNITS) - 1:
        size, power = size / 1000, power + 1
    return f"{size:,.{1 if power else 0}f} {_UNITS[power]}"
