"""Inspection of a checkpoint: its shape, heads, vocabulary, problems and possible uses.

Tensors are read one at a time; no model is made.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.files import read_json
from zhbert.model.checkpoint import Checkpoint, open_checkpoint, stored_files
from zhbert.model.config import BertConfig
from zhbert.model.entry import Entry, is_finite
from zhbert.model.head_states import (
    HARDLY,
    HEADS,
    HeadState,
    hardly,
    head_states,
    largest,
    untouched,
)
from zhbert.model.names import ALIASES, CONSTANTS, TEMPLATES, foreign_architecture
from zhbert.text.added_tokens import SPECIAL_TOKENS
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.vocab import looks_cased, read_vocabulary
from zhbert.wording import counted
from zhbert.zoo.layout import ModelFiles

_LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.")
_DECODER = "cls.predictions.decoder.weight"


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary next to the weights."""

    file: str
    pieces: int
    rows: int | None  # of the word embeddings
    cased: bool
    lower_cases: bool  # True: the tokenizer lower-cases text
    special_tokens: dict[str, int | None]  # piece -> id; None: the vocabulary lacks it
    unused: int  # pieces of the form [unused7]

    @property
    def missing(self) -> list[str]:
        """Special tokens that the vocabulary lacks."""
        return [token for token, number in self.special_tokens.items() if number is None]


@dataclass(frozen=True)
class Use:
    """A possible use of a checkpoint."""

    what: str
    answer: bool | None  # None: unclear
    why: str


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The result of ``inspect_checkpoint``."""

    format: str  # "safetensors", "pytorch" or "tensorflow"
    files: dict[str, int]  # of the weights: name -> bytes
    shape: dict[str, int | None]  # by the config's field names, from the tensors; None: unknown
    parameters: int  # a decoder that shares the word embeddings is not counted again
    dtypes: dict[str, float]  # name -> share of the parameters
    vocabulary: Vocabulary | None
    encoder: HeadState
    heads: dict[str, HeadState]
    classifier: str | None  # the purpose of the classifier, if there is one
    labels: dict[str, str]  # of the classifier, by number
    decoder: str  # "shared", "shared, kept twice" or "its own"
    missing: tuple[str, ...]  # names that BertForPreTraining has and the file has not
    unused: tuple[str, ...]  # names that no BERT of this config has
    skipped: tuple[str, ...]  # optimiser slots and constants
    not_finite: tuple[str, ...]  # tensors with NaN or infinity
    problems: tuple[str, ...]  # inconsistencies
    refusal: str | None  # the reason why zhbert does not open it
    uses: tuple[Use, ...]

    @property
    def foreign(self) -> bool:
        """True if this is another architecture by its names."""
        return foreign_architecture(self.unused) is not None

    @property
    def size(self) -> int:
        """Total size of the weights' files in bytes."""
        return sum(self.files.values())


# Sizes in the config, and the tensor and axis that they are read from.
_SIZES = {
    "hidden_size": ("bert.embeddings.word_embeddings.weight", 1),
    "intermediate_size": ("bert.encoder.layer.*.intermediate.dense.weight", 0),
    "max_position_embeddings": ("bert.embeddings.position_embeddings.weight", 0),
    "type_vocab_size": ("bert.embeddings.token_type_embeddings.weight", 0),
    "vocab_size": ("bert.embeddings.word_embeddings.weight", 0),
}
# Shapes of tensors by the end of their names; the first match counts.
_SHAPES = (
    ("word_embeddings.weight", "vocab_size hidden_size"),
    ("position_embeddings.weight", "max_position_embeddings hidden_size"),
    ("token_type_embeddings.weight", "type_vocab_size hidden_size"),
    ("intermediate.dense.weight", "intermediate_size hidden_size"),
    ("intermediate.dense.bias", "intermediate_size"),
    (".*.output.dense.weight", "hidden_size intermediate_size"),
    ("cls.predictions.bias", "vocab_size"),
    ("seq_relationship.weight", "2 hidden_size"),
    ("seq_relationship.bias", "2"),
    ("LayerNorm.weight", "hidden_size"),
    (".bias", "hidden_size"),
    (".weight", "hidden_size hidden_size"),
)
_KINDS = {
    "SequenceClassification": "a whole text or pair",
    "TokenClassification": "each piece",
    "MultipleChoice": "one of several choices",
}


def inspect_checkpoint(files: ModelFiles) -> Inspection:
    """Inspect a model's files, with one tensor in memory at a time.

    Raises:
        ZhbertError: the weights cannot be read at all. Other problems are in the result.
    """
    checkpoint = open_checkpoint(files.weights)
    entries = checkpoint.entries
    problems: list[str] = []
    stated = _Stated.of(files, problems)
    shape, wrong_sizes = _shape(entries, stated.values)
    problems += wrong_sizes
    vocabulary = _vocabulary(files, shape["vocab_size"], problems)
    heads = head_states(entries, stated.config.initializer_range if stated.config else 0.02)
    encoder = _encoder_state(entries, problems)
    decoder = _decoder(checkpoint)
    every = dict(entries)
    if decoder == "its own":
        every[_DECODER] = checkpoint.aliases[_DECODER]
    spoilt = tuple(name for name, entry in every.items() if not is_finite(entry.read()))
    layers = stated.config.num_hidden_layers if stated.config else shape["num_hidden_layers"]
    missing, unused = _missing_and_unused(entries, layers or 0)
    reasons = _reasons_against(
        checkpoint, stated, wrong_sizes, missing=missing, spoilt=spoilt, decoder=decoder
    )
    refusal = next(reasons, None)
    kind, labels = _classifier(stated.values, entries, problems)
    index = [files.weights] if files.weights.suffix == ".json" else []
    return Inspection(
        format=checkpoint.format,
        files={path.name: path.stat().st_size for path in [*index, *stored_files(files)]},
        shape=shape,
        parameters=sum(math.prod(entry.shape) for entry in every.values()),
        dtypes=_dtypes(every.values()),
        vocabulary=vocabulary,
        encoder=encoder,
        heads=heads,
        classifier=kind,
        labels=labels,
        decoder=decoder,
        missing=missing,
        unused=unused,
        skipped=checkpoint.skipped,
        not_finite=spoilt,
        problems=tuple(problems),
        refusal=refusal,
        uses=tuple(_uses(encoder, heads, kind, vocabulary, refusal)),
    )


@dataclass(frozen=True)
class _Stated:
    """The configuration next to the weights."""

    values: Mapping[str, Any]  # empty without a file that can be read
    config: BertConfig | None  # None: not that of a BERT
    trouble: str | None  # the reason why it is not

    @classmethod
    def of(cls, files: ModelFiles, problems: list[str]) -> _Stated:
        tells = "write one, the tensors tell all of it but the heads' count"
        if files.config is None:
            return cls({}, None, f"config.json is missing: {tells}")
        name = files.config.name
        try:
            values = read_json(files.config, dict, "a model's configuration")
        except ZhbertError as error:
            problems.append(str(error))
            return cls({}, None, f"{name} is unreadable: {tells}")
        try:
            return cls(values, BertConfig.from_dict(values, name), None)
        except ZhbertError as error:
            return cls(values, None, str(error))


def sizes_of(entries: Mapping[str, Entry]) -> dict[str, int | None]:
    """Return sizes by the config's field names, from the tensors; None: no tensor shows it.

    >>> words = Entry.of(torch.ones(21, 8))
    >>> sizes_of({"bert.embeddings.word_embeddings.weight": words})["vocab_size"]
    21
    """
    numbers = {int(found[1]) for name in entries if (found := _LAYER.match(name))}
    told: dict[str, int | None] = {"num_hidden_layers": len(numbers) or None}
    for field, (template, axis) in _SIZES.items():
        name = template.replace("*", str(min(numbers, default=0)))
        shape = entries[name].shape if name in entries else ()
        told[field] = shape[axis] if len(shape) == 2 else None
    return told


def quantised_tensor(entries: Mapping[str, Entry]) -> str | None:
    """Return the problem of a model quantised to integers; None if it is not quantised."""
    for name, entry in entries.items():
        if name.startswith("bert.") and not entry.dtype.is_floating_point:
            kind = str(entry.dtype).removeprefix("torch.")
            return f"{name} is kept as {kind}: a quantised model; take the one it was made from"
    return None


def _shape(
    entries: Mapping[str, Entry], values: Mapping[str, Any]
) -> tuple[dict[str, int | None], list[str]]:
    """Return sizes from the tensors (or else from the config), and disagreements."""
    problems = []
    told = sizes_of(entries)
    told["num_attention_heads"] = None
    for field, size in told.items():
        said = values.get(field)
        if isinstance(said, int) and size is not None and said != size:
            problems.append(f"the config says {field} {said:,}, the tensors {size:,}")
        if size is None and isinstance(said, int):
            told[field] = said
    wrong = []
    for name, entry in entries.items():
        expected = _expected_shape(_LAYER.sub("bert.encoder.layer.*.", name), told)
        if expected is not None and entry.shape != expected:
            wrong.append(f"{name} has the shape {entry.shape}, beside the others {expected} fits")
    more = [f"and {len(wrong) - 3} more tensors of wrong shapes"] if len(wrong) > 4 else []
    return told, problems + (wrong[:3] + more if more else wrong)


def _expected_shape(template: str, sizes: Mapping[str, int | None]) -> tuple[int, ...] | None:
    """Return the shape of a tensor of BertForPreTraining; None if it is unknown.

    >>> _expected_shape("cls.seq_relationship.weight", {"hidden_size": 768})
    (2, 768)
    """
    if template not in TEMPLATES or not template.startswith(("bert.", "cls.")):
        return None
    fields = next(fields for end, fields in _SHAPES if template.endswith(end)).split()
    shape = [int(f) if f.isdigit() else sizes[f] for f in fields]
    return None if None in shape else tuple(n for n in shape if n is not None)


def _missing_and_unused(
    entries: Mapping[str, Entry], layers: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names of BertForPreTraining that the file lacks, and names that are not BERT's."""
    expected = list(_expected_names(layers))
    known = {*expected, *(name for head in HEADS.values() for name in head.names)}
    missing = tuple(name for name in expected if name not in entries)
    return missing, tuple(name for name in entries if name not in known)


def _expected_names(layers: int) -> Iterator[str]:
    """Yield the names of BertForPreTraining's tensors."""
    templates = sorted(name for name in TEMPLATES if name.startswith(("bert.", "cls.")))
    yield from (name for name in templates if "*" not in name)
    for number in range(layers):
        yield from (name.replace("*", str(number)) for name in templates if "*" in name)


def _encoder_state(entries: Mapping[str, Entry], problems: list[str]) -> HeadState:
    """Return the encoder's state by its norms; add untrained layers to ``problems``."""
    norms: dict[str, tuple[Tensor, Tensor]] = {}
    for name in entries:
        norm = name.removesuffix(".weight")
        of_encoder = norm.endswith("LayerNorm") and norm.startswith(("bert.emb", "bert.enc"))
        if of_encoder and f"{norm}.bias" in entries:
            parts = (entries[name].read(), entries[f"{norm}.bias"].read())
            norms[norm] = (parts[0].double(), parts[1].double())
    if not norms:
        return HeadState(False, None, "no norms of a BERT in the file")
    fresh = {norm for norm, parts in norms.items() if untouched(*parts)}
    if len(fresh) == len(norms):
        return HeadState(True, False, "every norm exactly as initialised")
    layers = {norm: int(found[1]) for norm in norms if (found := _LAYER.match(norm))}
    trained = {number for norm, number in layers.items() if norm not in fresh}
    if never := sorted(set(layers.values()) - trained):
        numbers = ", ".join(map(str, never))
        problems.append(f"layers exactly as initialised, never trained: {numbers} (from 0)")
    scales = [float(scale.mean()) for scale, _ in norms.values()]
    shifts = torch.cat([shift for _, shift in norms.values()])
    why = f"norms have moved: scales {min(scales):.3g} to {max(scales):.3g}, "
    why += f"shifts up to {largest(shifts)}"
    return HeadState(True, True, why + hardly(shifts))


def _decoder(checkpoint: Checkpoint) -> str:
    if _DECODER not in checkpoint.aliases:
        return "shared"
    shared = checkpoint.entries[ALIASES[_DECODER]]
    same = torch.equal(checkpoint.aliases[_DECODER].read(), shared.read())
    return "shared, kept twice" if same else "its own"


def _dtypes(entries: Iterable[Entry]) -> dict[str, float]:
    """Return each dtype's share of the parameters, the largest first."""
    sizes: Counter[str] = Counter()
    for entry in entries:
        sizes[str(entry.dtype).removeprefix("torch.")] += math.prod(entry.shape)
    total = sum(sizes.values()) or 1
    return {name: size / total for name, size in sizes.most_common()}


def _vocabulary(files: ModelFiles, rows: int | None, problems: list[str]) -> Vocabulary | None:
    """Return the vocabulary next to the weights, if any; add what is wrong to ``problems``.

    ``rows``: number of rows of the word embeddings.
    """
    file = files.vocabulary
    if file is None:
        file = files.folder / "tokenizer.json"
        if not file.is_file():
            return None
    special_tokens, lower_cases = dict(SPECIAL_TOKENS), True
    pieces: list[str] = []
    try:
        if file.suffix != ".json":
            pieces = read_vocabulary(file)
        usual = file.name in ("vocab.txt", "tokenizer.json")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tokenizer = Tokenizer.from_pretrained(files.folder if usual else file)
        problems += [str(warning.message) for warning in caught]
        special_tokens, lower_cases = tokenizer.special_tokens, tokenizer.options.do_lower_case
        # A special token that the file lacks counts as missing, not as added by the user.
        named = special_tokens.values()
        pieces += [piece for piece in tokenizer.vocabulary[len(pieces) :] if piece not in named]
    except ZhbertError as error:
        problems.append(str(error))
        if not pieces:
            return None
    ids = {piece: number for number, piece in enumerate(pieces)}
    found = Vocabulary(
        file=file.name,
        pieces=len(pieces),
        rows=rows,
        cased=looks_cased(pieces),
        lower_cases=lower_cases,
        special_tokens={token: ids.get(token) for token in special_tokens.values()},
        unused=sum(1 for piece in pieces if re.fullmatch(r"\[unused\d+\]", piece)),
    )
    problems += _disagreements(found, pieces)
    return found


def _disagreements(found: Vocabulary, pieces: Iterable[str]) -> Iterator[str]:
    """Yield the inconsistencies of a vocabulary, the weights and the tokenizer's options."""
    if found.rows is not None and found.rows != found.pieces:
        more = found.rows > found.pieces
        what = "rows without a piece" if more else "this is another model's list"
        yield f"{found.file} has {found.pieces:,} pieces, the weights {found.rows:,} rows: {what}"
    if found.cased and found.lower_cases:
        yield (
            "the vocabulary is cased, but the tokenizer lower-cases: its capitals are never used; "
            'write "do_lower_case": false into tokenizer_config.json'
        )
    has_letters = any(piece.lower() != piece.upper() for piece in pieces)
    if not found.cased and not found.lower_cases and has_letters:
        yield (
            "the vocabulary is lower-cased, but the tokenizer keeps capitals, which become [UNK]; "
            'write "do_lower_case": true into tokenizer_config.json'
        )


def _classifier(
    values: Mapping[str, Any], entries: Mapping[str, Entry], problems: list[str]
) -> tuple[str | None, dict[str, str]]:
    """Return the purpose of the classifier, and its labels, from the config."""
    head = entries.get(HEADS["classifier"].weight)
    if head is None:
        return None, {}
    named = values.get("architectures")
    architecture = str(named[0]) if named and isinstance(named, list) else ""
    kind = _KINDS.get(architecture.partition("For")[2], "a text or each piece (no config tells)")
    named = values.get("id2label")
    labels = {str(k): str(v) for k, v in named.items()} if isinstance(named, dict) else {}
    if labels and head.shape and len(labels) != head.shape[0]:
        problems.append(
            f"the config names {len(labels)} labels, the classifier has {head.shape[0]}"
        )
    return kind, labels


def _reasons_against(
    checkpoint: Checkpoint,
    stated: _Stated,
    wrong_sizes: Iterable[str],
    *,
    missing: Iterable[str],
    spoilt: Iterable[str],
    decoder: str,
) -> Iterator[str]:
    """Yield the reasons why ``from_pretrained`` raises an error, in the order of its checks."""
    if foreign := foreign_architecture(checkpoint.entries):
        yield foreign
    if stated.trouble:
        yield stated.trouble
    if quantised := quantised_tensor(checkpoint.entries):
        yield quantised
    trunk = [n for n in missing if n.startswith(("bert.embeddings.", "bert.encoder."))]
    if trunk:
        yield f"the file lacks {len(trunk)} tensors of the encoder, first {trunk[0]}"
    # Layers beyond the config's number are not used; other sizes must agree.
    yield from (problem for problem in wrong_sizes if "num_hidden_layers" not in problem)
    for name in spoilt:
        yield f"NaN or infinite numbers in {name}: take an earlier checkpoint"
    if decoder == "its own" and stated.values.get("tie_word_embeddings") is False:
        yield "a decoder of its own: only BERT's shared decoder is supported"


def _uses(
    encoder: HeadState,
    heads: Mapping[str, HeadState],
    classifier: str | None,
    vocabulary: Vocabulary | None,
    refusal: str | None,
) -> Iterator[Use]:
    if refusal:
        yield Use("opens in zhbert", False, refusal)
        return
    if vocabulary is None:
        yield Use("reads text", False, "no vocabulary here: put its vocab.txt beside the weights")
    elif vocabulary.rows is not None and vocabulary.pieces > vocabulary.rows:
        yield Use("reads text", False, "the vocabulary is another model's: find its own")
    if encoder.trained is False:
        yield Use("anything but training", False, "all of it is random: train it first")
        return
    pooler = heads["pooler"]
    remark = "average the vectors of the pieces"
    if pooler.trained is not True:
        remark += f" (not the pooler's: it is {pooler.word})"
    yield Use("fine-tuning, embedding text", True, remark)
    yield _use_of("fills masks", heads["masked_words"], "no trained mask-filling head")
    yield _use_of(
        "says whether two sentences follow", heads["sentence_pair"], "no trained sentence-pair head"
    )
    if classifier is not None:
        yield _use_of(f"classifies {classifier}", heads["classifier"], "a random classifier")
    if heads["question_answering"].present:
        yield _use_of("answers questions", heads["question_answering"], "a random head")


def _use_of(what: str, head: HeadState, otherwise: str) -> Use:
    if head.trained:
        if HARDLY in head.why:
            return Use(what, None, "trained for a few steps only: close to random")
        return Use(what, True, "")
    if head.present and head.trained is None:
        return Use(what, None, head.why)
    return Use(what, False, f"{otherwise}: train it first")


def summary_line(checkpoint: Checkpoint, heads: Mapping[str, HeadState] | None = None) -> str:
    """Summarise a BERT checkpoint in a line: shape, type, format, and the two heads.

    ``heads``: its head_states, if they were computed already.

    >>> from pathlib import Path
    >>> one = {"bert.embeddings.word_embeddings.weight": torch.ones(21128, 768)}
    >>> entries = {name: Entry.of(tensor) for name, tensor in one.items()}
    >>> summary_line(Checkpoint(Path("x"), "safetensors", entries))
    'BERT, 0 layers x 768, 21,128 pieces, float32 safetensors; masked-word head missing; \
sentence-pair head missing'
    """
    entries = checkpoint.entries
    heads = head_states(entries) if heads is None else heads
    sizes = {name: size or 0 for name, size in sizes_of(entries).items()}
    dtype = next(iter(_dtypes(entries.values())), "float32")
    # Constants in older checkpoints are not worth a remark.
    aside = sum(name not in CONSTANTS for name in checkpoint.skipped)
    left = f"; {counted(aside, 'item')} left aside (no weights)" if aside else ""
    return (
        f"BERT, {counted(sizes['num_hidden_layers'], 'layer')} x {sizes['hidden_size']}, "
        f"{sizes['vocab_size']:,} pieces, {dtype} {checkpoint.format}; "
        f"masked-word head {heads['masked_words'].word}; "
        f"sentence-pair head {heads['sentence_pair'].word}{left}"
    )
