"""What a checkpoint holds: its shape, its heads, and whether those were ever trained.

Tensors are read one at a time; nothing is built.

**When a head counts as never trained.** Training leaves marks that no initialiser makes, and the
rule looks for them. Every step of every optimiser moves every bias and every norm's shift, since
their gradients are exactly zero for no input that occurs; initialisers set them to exactly zero,
and rounding to float16 or bfloat16 keeps zero zero. So, for a head with a norm (masked words):

- *random* if the norm's shifts are all exactly 0 and its scales all equal (1; or less, where
  weight decay alone shrank them), and its output bias is exactly zero or its matrix looks drawn;
  *unclear* if neither is so;
- *random* if the norm's scale lies around 0 (mean of its absolute values below 0.1, or mean below
  half its spread): it was drawn like a matrix, as the first PyTorch versions of BERT did;
- *trained* otherwise.

For a head of one matrix and one bias (pooler, sentence pair, classifier, question answering):

- with a bias of exact zeros: *random* if the matrix looks drawn, *unclear* if not. The bias of
  question answering adds the same number to every position, so that softmax cancels it and it need
  not move: there the matrix must also have the initialiser's spread or less;
- with another bias: *random* if the matrix looks drawn as PyTorch draws by default, and the bias
  with it: uniform within 1 / sqrt(inputs), with the spread of that; or if the matrix looks drawn
  with the spread of ``initializer_range`` and the norm of the masked-word head was drawn around 0
  (or, in a file without that head, the bias has that spread too, to three standard errors);
- *trained* otherwise.

A matrix *looks drawn* if its mean is 0 and its excess kurtosis is that of a normal distribution
(0), of one cut at two sigma (-0.63: Google's initialiser), or of a uniform one (-1.2), each to
five standard errors (sigma / sqrt(n), sqrt(24 / n)) and a little for rounding. Below 100 numbers
nothing can be told apart, and everything looks drawn.

Measured at widths 32, 128 and 768, each in float32, float16 and bfloat16: of heads drawn as
transformers or Google's code draw (440 files), none was called trained, and none unclear; of those
trained from there for 1, 10 or 100 steps of AdamW at 1e-6 to 1e-4, none was called random. Where
biases were drawn too (PyTorch's default), a pooler or classifier trained for few steps still counts
as random, and a fresh matrix below 100 numbers as trained; the masked-word head was never mistaken,
as its norm tells. A question-answering head in float16, trained by plain SGD, counts as random.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.files import read_json
from zhbert.model.checkpoint import Checkpoint, open_checkpoint, weight_files
from zhbert.model.config import BertConfig
from zhbert.model.entry import Entry, is_finite
from zhbert.model.names import ALIASES, CONSTANTS, TEMPLATES, foreign_architecture
from zhbert.text.added_tokens import SPECIAL_TOKENS
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.vocab import looks_cased, read_vocabulary
from zhbert.wording import counted
from zhbert.zoo.layout import ModelFiles

# The standard normal distribution cut at two sigma: its standard deviation and excess kurtosis.
_CUT_SPREAD = 0.879626
_CUT_KURTOSIS = -0.634310
_LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.")
_DECODER = "cls.predictions.decoder.weight"
HARDLY = "(a few steps only)"
# Standard errors that a statistic of a fresh draw may be away from its expectation.
_ERRORS = 5.0


@dataclass(frozen=True)
class HeadState:
    """Whether a head is in the file, looks trained (None: cannot be told), and the evidence."""

    present: bool
    trained: bool | None
    why: str

    @property
    def word(self) -> str:
        """One word: missing, trained, random or unclear."""
        if not self.present:
            return "missing"
        return {True: "trained", False: "random", None: "unclear"}[self.trained]


@dataclass(frozen=True)
class _Head:
    """Names of a head's tensors; a norm and an output bias only where it has them."""

    weight: str
    bias: str
    norm: str | None = None
    output_bias: str | None = None
    bias_moves: bool = True

    @property
    def names(self) -> list[str]:
        names = [self.weight, self.bias]
        if self.norm:
            names += [f"{self.norm}.weight", f"{self.norm}.bias"]
        return names + ([self.output_bias] if self.output_bias else [])


HEADS: Mapping[str, _Head] = {
    "masked_words": _Head(
        "cls.predictions.transform.dense.weight",
        "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
    ),
    "sentence_pair": _Head("cls.seq_relationship.weight", "cls.seq_relationship.bias"),
    "pooler": _Head("bert.pooler.dense.weight", "bert.pooler.dense.bias"),
    "classifier": _Head("classifier.weight", "classifier.bias"),
    "question_answering": _Head("qa_outputs.weight", "qa_outputs.bias", bias_moves=False),
}


def head_states(
    entries: Mapping[str, Entry], initializer_range: float = 0.02
) -> dict[str, HeadState]:
    """Each head of HEADS: is it among ``entries``, and does it look trained?

    The rule stands at the top of this module. ``initializer_range`` is the config's.

    >>> import torch
    >>> fresh = {"classifier.weight": torch.zeros(2, 64), "classifier.bias": torch.zeros(2)}
    >>> head_states({name: Entry.of(t) for name, t in fresh.items()})["classifier"]
    HeadState(present=True, trained=False, why='weights and bias are exactly zero')
    """
    states: dict[str, HeadState] = {}
    # Of the masked-word head; None: no such head to tell from.
    norm_drawn: bool | None = None
    for name, head in HEADS.items():
        missing = [n for n in head.names if n not in entries]
        if missing:
            why = "not in the file"
            if len(missing) < len(head.names):
                why = f"incomplete: lacks {', '.join(missing)}"
            states[name] = HeadState(False, None, why)
            continue
        tensors = {n: entries[n].read().double() for n in head.names}
        spoilt = [n for n, t in tensors.items() if not is_finite(t)]
        if spoilt:
            states[name] = HeadState(True, None, f"NaN or infinite numbers in {spoilt[0]}")
        elif head.norm:
            norm_drawn = _around_zero(tensors[f"{head.norm}.weight"])
            states[name] = _state_with_norm(head, tensors)
        else:
            dtype = entries[head.weight].dtype
            rounding = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
            states[name] = _state_without_norm(
                head, tensors, initializer_range, rounding, norm_drawn
            )
    return states


def _state_with_norm(head: _Head, tensors: Mapping[str, Tensor]) -> HeadState:
    assert head.norm is not None
    assert head.output_bias is not None
    scale, shift = tensors[f"{head.norm}.weight"], tensors[f"{head.norm}.bias"]
    if _around_zero(scale):
        mean = float(scale.mean())
        return HeadState(True, False, f"norm scale drawn around 0 (mean {mean:.4f})")
    draw = _Draw.of(tensors[head.weight])
    if _untouched(scale, shift):
        if not tensors[head.output_bias].any():
            return HeadState(
                True, False, f"norm and output bias exactly as initialised; {draw.text}"
            )
        if draw.kind is not None:
            return HeadState(True, False, f"norm exactly as initialised; {draw.text}")
        return HeadState(True, None, f"norm exactly as initialised, but {draw.text}")
    moved = f"norm has moved: scale {float(scale.mean()):.3g}, shift up to {_largest(shift)}"
    return HeadState(True, True, moved + _hardly(shift))


def _state_without_norm(
    head: _Head,
    tensors: Mapping[str, Tensor],
    initializer_range: float,
    rounding: float,
    norm_drawn: bool | None,
) -> HeadState:
    weight, bias = tensors[head.weight], tensors[head.bias]
    draw = _Draw.of(weight)
    usual = draw.has_spread(initializer_range)
    if not bias.any():
        if not weight.any():
            return HeadState(True, False, "weights and bias are exactly zero")
        if draw.kind is None:
            return HeadState(True, None, f"bias exactly zero, but {draw.text}")
        if not head.bias_moves and not usual and draw.spread > initializer_range:
            return HeadState(True, None, f"bias exactly zero (it need not move); {draw.text}")
        return HeadState(True, False, f"bias exactly zero; {draw.text}")
    bound = 1 / math.sqrt(weight.shape[-1])
    if draw.kind == "uniform" and max(_most(weight), _most(bias)) <= bound * (1 + 2 * rounding):
        if draw.has_spread(bound / math.sqrt(3)):
            return HeadState(True, False, f"PyTorch's default initialisation: {draw.text}")
    elif draw.kind in ("normal", "cut normal") and usual:
        if norm_drawn:
            return HeadState(True, False, f"{draw.text}, as in the masked-word head beside it")
        alike = bias.numel() >= 32 and _Draw.of(bias).has_spread(initializer_range, errors=3)
        if norm_drawn is None and alike:
            return HeadState(True, False, f"{draw.text}, and the bias too")
    moved = f"bias has moved from zero: up to {_largest(bias)}"
    # What question answering's bias moved by says nothing of how long it was trained.
    return HeadState(True, True, moved + (_hardly(bias) if head.bias_moves else ""))


def _hardly(moved: Tensor) -> str:
    """A remark where the numbers are those of a few steps, which leave a head as good as random."""
    return f" {HARDLY}" if _most(moved) < 1e-3 else ""


def _most(tensor: Tensor) -> float:
    return float(tensor.abs().max())


def _largest(tensor: Tensor) -> str:
    return f"{_most(tensor):.2g}"


def _untouched(scale: Tensor, shift: Tensor) -> bool:
    return not bool(shift.any()) and bool((scale == scale[0]).all())


def _around_zero(scale: Tensor) -> bool:
    if float(scale.abs().mean()) < 0.1:
        return True
    return abs(float(scale.mean())) < float(scale.std(correction=0)) / 2


@dataclass(frozen=True)
class _Draw:
    """The distribution that numbers look drawn from; ``kind`` is None where they look like none."""

    kind: str | None  # "normal", "cut normal", "uniform"
    spread: float  # standard deviation
    kurtosis: float
    count: int

    @classmethod
    def of(cls, numbers: Tensor) -> _Draw:
        """Look at the mean and the excess kurtosis of ``numbers``."""
        count = numbers.numel()
        flat = numbers.reshape(-1)
        mean, spread = float(flat.mean()), float(flat.std(correction=0))
        if spread == 0:
            return cls(None, 0.0, 0.0, count)
        centred = (flat - mean) / spread
        kurtosis = float((centred**4).mean()) - 3
        if count < 100:
            return cls("normal", spread, kurtosis, count)
        if abs(mean) > _ERRORS * spread / math.sqrt(count) + 1e-3 * spread:
            return cls(None, spread, kurtosis, count)
        tolerance = _ERRORS * math.sqrt(24 / count) + 0.02
        near = {
            kind: abs(kurtosis - expected)
            for kind, expected in (
                ("normal", 0.0),
                ("cut normal", _CUT_KURTOSIS),
                ("uniform", -1.2),
            )
        }
        kind = min(near, key=near.__getitem__)
        return cls(kind if near[kind] <= tolerance else None, spread, kurtosis, count)

    def has_spread(self, initializer_range: float, errors: float = _ERRORS) -> bool:
        """Is the spread the initialiser's, to so many standard errors (and 1 % for rounding)?"""
        tolerance = errors / math.sqrt(2 * self.count) + 0.01
        return any(
            abs(self.spread / (initializer_range * part) - 1) <= tolerance
            for part in (1.0, _CUT_SPREAD)
        )

    @property
    def text(self) -> str:
        """In a few words."""
        if self.spread == 0:
            return "weights all equal"
        names = {"cut normal": "normal cut at two sigma", None: "like no fresh draw"}
        if self.count < 100:
            return f"weights too few to judge (std {self.spread:.3g})"
        # Adding 0.0 makes 0.0 of -0.0.
        numbers = f"std {self.spread:.3g}, excess kurtosis {round(self.kurtosis, 2) + 0.0}"
        return f"weights {names.get(self.kind, self.kind)} ({numbers})"


# ---------------------------------------------------------------- whole checkpoints


@dataclass(frozen=True)
class Vocabulary:
    """The pieces beside the weights."""

    file: str
    pieces: int
    rows: int | None  # of the word embeddings
    cased: bool
    lower_cases: bool  # what the tokenizer does to text
    special_tokens: dict[str, int | None]  # piece -> id; None: the vocabulary lacks it
    unused: int  # pieces of the form [unused7]

    @property
    def missing(self) -> list[str]:
        """Special tokens that have no piece."""
        return [token for token, number in self.special_tokens.items() if number is None]


@dataclass(frozen=True)
class Use:
    """Something that a checkpoint could be used for."""

    what: str
    answer: bool | None  # None: it cannot be told
    why: str


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What ``inspect_checkpoint`` finds."""

    format: str  # "safetensors", "pytorch" or "tensorflow"
    files: dict[str, int]  # of the weights: name -> bytes
    shape: dict[str, int | None]  # in the config's field names, by the tensors; None: not told
    parameters: int  # a decoder that shares the word embeddings does not count again
    dtypes: dict[str, float]  # name -> share of the parameters
    vocabulary: Vocabulary | None
    encoder: HeadState
    heads: dict[str, HeadState]
    classifier: str | None  # what the classifier classifies, where there is one
    labels: dict[str, str]  # of the classifier, by number
    decoder: str  # "shared", "shared, kept twice" or "its own"
    missing: tuple[str, ...]  # names that BertForPreTraining has and the file has not
    unused: tuple[str, ...]  # names that no BERT of this config has
    skipped: tuple[str, ...]  # optimiser slots and constants
    not_finite: tuple[str, ...]  # tensors with NaN or infinity
    problems: tuple[str, ...]  # what does not fit together
    refusal: str | None  # why zhbert does not open it
    uses: tuple[Use, ...]

    @property
    def foreign(self) -> bool:
        """Whether this is another architecture, by its names."""
        return foreign_architecture(self.unused) is not None

    @property
    def size(self) -> int:
        """Bytes of all files of the weights."""
        return sum(self.files.values())


# Sizes of the config, and where the tensors tell them: a name, and the axis of its shape.
_SIZES = {
    "hidden_size": ("bert.embeddings.word_embeddings.weight", 1),
    "intermediate_size": ("bert.encoder.layer.*.intermediate.dense.weight", 0),
    "max_position_embeddings": ("bert.embeddings.position_embeddings.weight", 0),
    "type_vocab_size": ("bert.embeddings.token_type_embeddings.weight", 0),
    "vocab_size": ("bert.embeddings.word_embeddings.weight", 0),
}
# Shapes of tensors by the end of their name; the first that fits counts.
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
    """Look at a model's files; every tensor is read once, one in memory at a time.

    Raises:
        ZhbertError: the weights cannot be read at all. What is merely strange is told instead.
    """
    checkpoint = open_checkpoint(files.weights)
    entries = checkpoint.entries
    problems: list[str] = []
    values, config, trouble = _config(files, problems)
    shape, odd = _shape(entries, values)
    problems += odd
    vocabulary = _vocabulary(files, shape["vocab_size"], problems)
    initializer_range = config.initializer_range if config else 0.02
    heads = head_states(entries, initializer_range)
    encoder, untouched = _encoder_state(entries)
    if untouched and encoder.trained:
        numbers = ", ".join(map(str, untouched))
        problems.append(f"layers exactly as initialised, never trained: {numbers} (from 0)")
    decoder = _decoder(checkpoint)
    every = dict(entries)
    if decoder == "its own":
        every[_DECODER] = checkpoint.aliases[_DECODER]
    spoilt = tuple(name for name, entry in every.items() if not is_finite(entry.read()))
    layers = (config.num_hidden_layers if config else shape["num_hidden_layers"]) or 0
    expected = list(_expected_names(layers))
    missing = tuple(name for name in expected if name not in entries)
    known = {*expected, *(name for head in HEADS.values() for name in head.names)}
    unused = tuple(name for name in entries if name not in known)
    refusal = _refusal(checkpoint, trouble, missing, spoilt, odd, decoder, values)
    kind, labels = _classifier(values, entries, problems)
    return Inspection(
        format=checkpoint.format,
        files={path.name: path.stat().st_size for path in _weight_files(files)},
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


def _config(
    files: ModelFiles, problems: list[str]
) -> tuple[dict[str, Any] | None, BertConfig | None, str | None]:
    """What the config's JSON says, the configuration that it is, and why it is none of a BERT."""
    tells = "write one, the tensors tell all of it but the heads' count"
    if files.config is None:
        return None, None, f"config.json is missing: {tells}"
    name = files.config.name
    try:
        values = read_json(files.config, dict, "a model's configuration")
    except ZhbertError as error:
        problems.append(str(error))
        return None, None, f"{name} is unreadable: {tells}"
    try:
        return values, BertConfig.from_dict(values, name), None
    except ZhbertError as error:
        return values, None, str(error)


def sizes_of(entries: Mapping[str, Entry]) -> dict[str, int | None]:
    """Sizes in the config's field names, by the tensors; None where no tensor tells.

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
    """What is wrong with a model whose numbers were made whole ones; None where they were not."""
    for name, entry in entries.items():
        if name.startswith("bert.") and not entry.dtype.is_floating_point:
            kind = str(entry.dtype).removeprefix("torch.")
            return f"{name} is kept as {kind}: a quantised model; take the one it was made from"
    return None


def _shape(
    entries: Mapping[str, Entry], values: Mapping[str, Any] | None
) -> tuple[dict[str, int | None], list[str]]:
    """Sizes by the tensors (by the config where no tensor tells), and what disagrees."""
    problems = []
    told = sizes_of(entries)
    told["num_attention_heads"] = None
    for field, size in told.items():
        said = (values or {}).get(field)
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
    """The shape of a tensor of BertForPreTraining; None where that is not known.

    >>> _expected_shape("cls.seq_relationship.weight", {"hidden_size": 768})
    (2, 768)
    """
    if template not in TEMPLATES or not template.startswith(("bert.", "cls.")):
        return None
    fields = next(fields for end, fields in _SHAPES if template.endswith(end)).split()
    shape = [int(f) if f.isdigit() else sizes[f] for f in fields]
    return None if None in shape else tuple(n for n in shape if n is not None)


def _expected_names(layers: int) -> Iterator[str]:
    """The names of BertForPreTraining's tensors."""
    templates = sorted(name for name in TEMPLATES if name.startswith(("bert.", "cls.")))
    yield from (name for name in templates if "*" not in name)
    for number in range(layers):
        yield from (name.replace("*", str(number)) for name in templates if "*" in name)


def _encoder_state(entries: Mapping[str, Entry]) -> tuple[HeadState, list[int]]:
    """Whether the encoder was trained, by its norms, and the numbers of layers that were not."""
    norms: dict[str, tuple[Tensor, Tensor]] = {}
    for name in entries:
        norm = name.removesuffix(".weight")
        if norm.endswith("LayerNorm") and norm.startswith(("bert.emb", "bert.enc")):
            if f"{norm}.bias" not in entries:
                continue
            norms[norm] = (entries[name].read().double(), entries[f"{norm}.bias"].read().double())
    if not norms:
        return HeadState(False, None, "no norms of a BERT in the file"), []
    touched = {norm: not _untouched(*pair) for norm, pair in norms.items()}
    layers: dict[int, bool] = {}
    for norm, moved in touched.items():
        if found := _LAYER.match(norm):
            layers[int(found[1])] = layers.get(int(found[1]), False) or moved
    untouched = sorted(number for number, moved in layers.items() if not moved)
    if not any(touched.values()):
        return HeadState(True, False, "every norm exactly as initialised"), untouched
    scales = [float(scale.mean()) for scale, _ in norms.values()]
    shifts = torch.cat([shift for _, shift in norms.values()])
    why = f"norms have moved: scales {min(scales):.3g} to {max(scales):.3g}, "
    why += f"shifts up to {_largest(shifts)}"
    return HeadState(True, True, why + _hardly(shifts)), untouched


def _decoder(checkpoint: Checkpoint) -> str:
    if _DECODER not in checkpoint.aliases:
        return "shared"
    shared = checkpoint.entries[ALIASES[_DECODER]]
    same = torch.equal(checkpoint.aliases[_DECODER].read(), shared.read())
    return "shared, kept twice" if same else "its own"


def _dtypes(entries: Iterable[Entry]) -> dict[str, float]:
    """Shares of the parameters, the largest first."""
    sizes: Counter[str] = Counter()
    for entry in entries:
        sizes[str(entry.dtype).removeprefix("torch.")] += math.prod(entry.shape)
    total = sum(sizes.values()) or 1
    return {name: size / total for name, size in sizes.most_common()}


def _weight_files(files: ModelFiles) -> list[Path]:
    if files.format == "tensorflow":
        return sorted(files.folder.glob(f"{files.weights.name}.*"))
    index = [files.weights] if files.weights.suffix == ".json" else []
    return index + weight_files(files.weights)


def _vocabulary(files: ModelFiles, rows: int | None, problems: list[str]) -> Vocabulary | None:
    """The vocabulary beside the weights, if there is one; ``problems`` gets what is wrong with it.

    ``rows`` are those of the word embeddings.
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
        # A special token that the file lacks is missing, not added by the user.
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
    """What does not fit together in a vocabulary, the weights and the tokenizer's options."""
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
    values: Mapping[str, Any] | None, entries: Mapping[str, Entry], problems: list[str]
) -> tuple[str | None, dict[str, str]]:
    """What the classifier is for, and its labels, by the config."""
    head = entries.get(HEADS["classifier"].weight)
    if head is None:
        return None, {}
    named = (values or {}).get("architectures")
    architecture = str(named[0]) if named and isinstance(named, list) else ""
    kind = _KINDS.get(architecture.partition("For")[2], "a text or each piece (no config tells)")
    named = (values or {}).get("id2label")
    labels = {str(k): str(v) for k, v in named.items()} if isinstance(named, dict) else {}
    if labels and head.shape and len(labels) != head.shape[0]:
        problems.append(
            f"the config names {len(labels)} labels, the classifier has {head.shape[0]}"
        )
    return kind, labels


def _refusal(
    checkpoint: Checkpoint,
    trouble: str | None,
    missing: Iterable[str],
    spoilt: Iterable[str],
    odd: Iterable[str],
    decoder: str,
    values: Mapping[str, Any] | None,
) -> str | None:
    """The first reason for which ``from_pretrained`` refuses this checkpoint."""
    if foreign := foreign_architecture(checkpoint.entries):
        return foreign
    if trouble:
        return trouble
    if quantised := quantised_tensor(checkpoint.entries):
        return quantised
    trunk = [n for n in missing if n.startswith(("bert.embeddings.", "bert.encoder."))]
    if trunk:
        return f"the file lacks {len(trunk)} tensors of the encoder, first {trunk[0]}"
    for problem in odd:
        # Layers beyond those of the config stay unused; other sizes must agree.
        if "num_hidden_layers" not in problem:
            return problem
    for name in spoilt:
        return f"NaN or infinite numbers in {name}: take an earlier checkpoint"
    if decoder == "its own" and values and values.get("tie_word_embeddings") is False:
        return "a decoder of its own: only BERT's shared decoder is supported"
    return None


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
    """One line on a BERT checkpoint, by its tensors: shape, type, format, and its two heads.

    ``heads`` are its head_states, where they are known already.

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
    # Constants that older checkpoints carry along are no news.
    aside = sum(name not in CONSTANTS for name in checkpoint.skipped)
    left = f"; {counted(aside, 'item')} left aside (no weights)" if aside else ""
    return (
        f"BERT, {counted(sizes['num_hidden_layers'], 'layer')} x {sizes['hidden_size']}, "
        f"{sizes['vocab_size']:,} pieces, {dtype} {checkpoint.format}; "
        f"masked-word head {heads['masked_words'].word}; "
        f"sentence-pair head {heads['sentence_pair'].word}{left}"
    )
