"""The configuration of a BERT, with Hugging Face's field names, and its number of parameters."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zhbert.config import CHOICES, RANGES, VOCABULARY_SIZE
from zhbert.errors import ZhbertError
from zhbert.files import make_folder, read_json, write_json
from zhbert.wording import listed, shortly
from zhbert.zoo import locate
from zhbert.zoo.layout import find_model

# Other architectures of Chinese models, and the class that opens them.
_OTHERS = {
    "albert": "AlbertModel",
    "deberta-v2": "DebertaV2Model",
    "distilbert": "DistilBertModel",
    "electra": "ElectraModel",
    "ernie": "ErnieModel",
    "mpnet": "MPNetModel",
    "roberta": "RobertaModel",
    "xlm-roberta": "XLMRobertaModel",
}
# PaddleNLP's classes whose names differ from Hugging Face's.
PADDLE_CLASSES = {"BertForPretraining": "BertForPreTraining"}
_REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
# Keys for which only these values are accepted.
_ONLY: Mapping[str, Sequence[Any]] = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "pool_act": ("tanh",),  # PaddleNLP's
    "problem_type": ("regression", "single_label_classification", "multi_label_classification"),
}
# Further attributes of transformers' BertConfig, and what they are if config.json lacks them.
_DEFAULTS: Mapping[str, Any] = {
    "add_cross_attention": False,
    "architectures": None,
    "bos_token_id": None,
    "chunk_size_feed_forward": 0,
    "classifier_dropout": None,
    "dtype": None,
    "eos_token_id": None,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
    "tie_word_embeddings": True,
    "torch_dtype": None,
    "transformers_version": None,
    "use_cache": True,
}
SECTION = "zhbert"
"""The key of config.json that contains the task of a fine-tuned model."""

_OF_LABELS = ("num_labels", "id2label", "label2id")


@dataclass(kw_only=True)
class BertConfig:
    """The architecture of a model: ``config.json``, with Hugging Face's names.

    Keys of a config.json that are not fields here are kept in ``other`` and written back. Those
    that transformers' BertConfig has are attributes and arguments, too.

    >>> config = BertConfig(vocab_size=100, hidden_size=8, num_attention_heads=2, num_labels=3)
    >>> config.intermediate_size, config.id2label, config.output_attentions
    (32, {0: 'LABEL_0', 1: 'LABEL_1', 2: 'LABEL_2'}, False)
    >>> BertConfig.from_dict({**config.to_dict(), "note": "kept"}).note
    'kept'
    """

    model_type: ClassVar[str] = "bert"

    vocab_size: int = 21128
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    # 0 means four times hidden_size, as in every published BERT.
    intermediate_size: int = 0
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    other: dict[str, Any] = field(default_factory=dict)

    def check(self, where: str) -> None:
        """Raise a ZhbertError that names the first impossible value, if there is one."""
        for name, value in _checked(vars(self), where).items():
            setattr(self, name, value)
        if self.hidden_size % self.num_attention_heads:
            raise ZhbertError(
                f"{where}: hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.pad_token_id >= self.vocab_size:
            raise ZhbertError(
                f"{where}: pad_token_id = {self.pad_token_id}: must be below vocab_size = "
                f"{self.vocab_size}"
            )

    if not TYPE_CHECKING:  # so that mypy finds a misspelt name

        def __init__(self, **values: Any) -> None:
            """Make a configuration from fields, and attributes that `update` knows."""
            own = {name: value for name, value in values.items() if name in _FIELDS}
            vars(self).update(
                {one.name: one.default for one in fields(self)}, **{"other": {}, **own}
            )
            if not self.intermediate_size:
                self.intermediate_size = 4 * self.hidden_size
            self.update({name: value for name, value in values.items() if name not in own})

        def __getattr__(self, name: str) -> Any:
            # A copy that is being made has no ``other`` yet.
            known = {**_DEFAULTS, **vars(self).get("other", {})}
            if name not in known:
                raise AttributeError(f"BertConfig has no attribute {name!r}")
            return known[name]

        def __setattr__(self, name: str, value: Any) -> None:
            if name in _FIELDS:
                super().__setattr__(name, value)
            else:
                self._set_other({name: value})

    def update(self, values: Mapping[str, Any]) -> None:
        """Set attributes by their names in transformers.

        >>> config = BertConfig()
        >>> config.update({"id2label": {0: "no", 1: "yes"}, "hidden_dropout_prob": 0})
        >>> config.label2id, config.hidden_dropout_prob
        ({'no': 0, 'yes': 1}, 0.0)

        Raises:
            ZhbertError: an unknown name or an impossible value.
        """
        where = "model configuration"
        known = [*_FIELDS, *_OF_LABELS, "problem_type", *_ONLY, *_DEFAULTS, *self.other]
        if unknown := [name for name in values if name not in known]:
            near = get_close_matches(unknown[0], known, 1)
            hint = f"did you mean {near[0]}?" if near else "keep keys of your own in other={}"
            raise ZhbertError(f"{where}: no such attribute: {shortly(unknown[0])}; {hint}")
        check_is_bert(values, where)
        own = {name: value for name, value in values.items() if name in _FIELDS}
        vars(self).update(own)
        self._set_other({name: value for name, value in values.items() if name not in own})
        self.check(where)

    def _set_other(self, values: Mapping[str, Any]) -> None:
        """Set what is no field; the labels' three attributes replace each other."""
        values, given = dict(values), {name: values.get(name) for name in _OF_LABELS}
        if any(value is not None for value in given.values()):
            values = {name: value for name, value in values.items() if name not in given}
            if given["id2label"] is None and given["label2id"] is not None:
                given["id2label"] = {number: label for label, number in given["label2id"].items()}
            alone = BertConfig()
            alone.other.update({name: v for name, v in given.items() if v is not None})
            labels = alone.labels
            if given["label2id"] not in (None, alone.label2id):
                raise ZhbertError("model configuration: label2id is not the inverse of id2label")
            if given["id2label"] is not None or len(labels) != self.num_labels:
                values |= {"id2label": dict(enumerate(labels)), "label2id": alone.label2id}
                self.other.pop("num_labels", None)
        self.other.update(values)

    @property
    def num_labels(self) -> int:
        """The number of labels of a fine-tuned model."""
        return len(self.labels)

    @property
    def id2label(self) -> dict[int, str]:
        """The labels of a fine-tuned model by their numbers."""
        return dict(enumerate(self.labels))

    @property
    def label2id(self) -> dict[str, int]:
        """The numbers of the labels."""
        return {label: number for number, label in enumerate(self.labels)}

    @property
    def use_return_dict(self) -> bool:
        """The name of ``return_dict`` in transformers 4."""
        return bool({**_DEFAULTS, **self.other}["return_dict"])

    @property
    def labels(self) -> list[str]:
        """The labels of a fine-tuned model in id order, from ``id2label``.

        >>> BertConfig(other={"id2label": {"0": "neutral", "1": "entailment"}}).labels
        ['neutral', 'entailment']
        >>> BertConfig().labels
        ['LABEL_0', 'LABEL_1']
        """
        by_id, count = self.other.get("id2label"), self.other.get("num_labels")
        if count is not None:
            count = _number(count, int, "config.json: num_labels")
            if not 1 <= count <= _MOST_LABELS:
                raise ZhbertError(
                    f"config.json: num_labels = {count}: must be from 1 to {_MOST_LABELS:,}"
                )
        if not by_id:
            return [f"LABEL_{number}" for number in range(2 if count is None else count)]
        try:
            numbered = {int(number): label for number, label in by_id.items()}
            labels = [numbered[number] for number in range(len(by_id))]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ZhbertError("config.json: id2label must map 0, 1, 2, ... to labels") from None
        for label in labels:
            if type(label) not in (str, int, float):
                raise ZhbertError(f"config.json: id2label: {shortly(label)}: must be a text")
        ((label, times),) = Counter(map(str, labels)).most_common(1)
        if times > 1:
            raise ZhbertError(f"config.json: id2label: {shortly(label)} stands there twice")
        if count not in (None, len(labels)):
            raise ZhbertError(
                f"config.json: num_labels = {count}, but id2label names {len(labels)}; remove the "
                "one that is wrong"
            )
        return [str(label) for label in labels]

    @property
    def problem_type(self) -> str | None:
        """The type of a sequence classification, in transformers' terms; None: not stated."""
        return self.other.get("problem_type")

    def with_labels(self, labels: Sequence[str]) -> BertConfig:
        """Return the same architecture with these labels, stored as in transformers."""
        other = {name: value for name, value in self.other.items() if name != "num_labels"}
        other["id2label"] = {str(number): label for number, label in enumerate(labels)}
        other["label2id"] = {label: number for number, label in enumerate(labels)}
        return replace(self, other=other)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> BertConfig:
        """Read the values of a config.json; ``where`` names it in errors.

        Raises:
            ZhbertError: another architecture, a missing size, or an impossible value.
        """
        values = _from_paddle(values)
        check_is_bert(values, where)
        known = {f.name for f in fields(cls)} - {"other"}
        # Hugging Face writes None for a key that is not set.
        given = {n: value for n, value in values.items() if n in known and value is not None}
        known_acts = CHOICES["model.hidden_act"]
        if given.get("hidden_act", "gelu") not in known_acts:
            act = shortly(given["hidden_act"])
            raise ZhbertError(
                f"{where}: hidden_act = {act} is not known; known: {listed(known_acts)}"
            )
        missing = [name for name in _REQUIRED if name not in given]
        if missing:
            raise ZhbertError(
                f"{where}: no {', '.join(missing)}: not the configuration of a BERT model"
            )
        try:
            config = cls(**_checked(given, where))
        except ZhbertError as error:
            raise ZhbertError(str(error).replace("model configuration", where, 1)) from None
        config.other = {name: value for name, value in values.items() if name not in known}
        if (rate := config.other.get("classifier_dropout")) is not None:
            config.other["classifier_dropout"] = _in_range(
                rate, float, RANGES["model.hidden_dropout_prob"], f"{where}: classifier_dropout"
            )
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return the content of config.json, always with the model type (for transformers)."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "other"}
        return {"model_type": self.model_type, **own, **self.other}

    def get_text_config(self, **kind: bool) -> BertConfig:
        """Return this configuration, whatever ``kind`` is: a BERT has no other part than text."""
        return self

    def to_json_string(self, use_diff: bool = True) -> str:
        """Return config.json as a text; all keys, whatever ``use_diff`` is."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n"

    @classmethod
    def from_pretrained(cls, folder: str | Path, **changes: Any) -> BertConfig:
        """Read the configuration of a folder, an archive or a name (or a JSON file itself).

        ``changes`` are attributes with other values than in the file, as for ``update``.
        """
        path = Path(folder)
        if path.suffix != ".json" or path.name.endswith(".index.json"):
            inside = [path / name for name in ("config.json", "bert_config.json")]
            found = next((file for file in inside if file.is_file()), None)
            if found is None:
                files = find_model(locate(path))
                found = files.config or files.folder / "config.json"
            path = found
        config = cls.from_dict(read_json(path, dict, "a model's configuration"), str(path))
        config.update(changes)
        return config

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``folder/config.json``, atomically."""
        path = Path(folder)
        make_folder(path)
        table = self.to_dict()
        # Where transformers once found the model: a path of somebody's machine, perhaps.
        table.pop("_name_or_path", None)
        write_json(path / "config.json", table)


_FIELDS = tuple(f.name for f in fields(BertConfig))


_Check = tuple[str, Callable[[Any], bool]]
_RANGES: dict[str, _Check] = {
    **{name.removeprefix("model."): check for name, check in RANGES.items() if "model." in name},
    "vocab_size": VOCABULARY_SIZE,
    # Models with one segment can be read, although new ones need two for pairs.
    "type_vocab_size": ("from 1 to 65,536", lambda value: 1 <= value <= 65_536),
    "pad_token_id": ("0 or more", lambda value: value >= 0),
}
_MOST_LABELS = 100_000


def _checked(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the values that are fields of BertConfig, with their types and ranges checked."""
    found: dict[str, Any] = {}
    for item in fields(BertConfig):
        if item.name not in values or item.name == "other":
            continue
        value, label = values[item.name], f"{where}: {item.name}"
        if isinstance(item.default, str):
            # Only the type is checked here: any program may add to the table of activations.
            if not isinstance(value, str):
                raise ZhbertError(f"{label} = {shortly(value)}: must be a name")
            found[item.name] = value
        else:
            found[item.name] = _in_range(value, type(item.default), _RANGES[item.name], label)
    return found


def _in_range(value: Any, kind: type, check: _Check, label: str) -> Any:
    number = _number(value, kind, label)
    if not check[1](number):
        raise ZhbertError(f"{label} = {shortly(value)}: must be {check[0]}")
    return number


def _number(value: Any, kind: type, label: str) -> Any:
    """Convert a value to a number: some programs write 768 as "768" or 768.0.

    >>> _number("768", int, "hidden_size"), _number("1e-12", float, "layer_norm_eps")
    (768, 1e-12)
    """
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if not isinstance(number, (int, float)) or isinstance(number, bool):
        number = math.nan
    # No size has more than 64 bits, and a float may not be able to represent it.
    if not abs(number) < 2**63 or (kind is int and number != int(number)):
        name = "a whole number" if kind is int else "a number"
        raise ZhbertError(f"{label} = {shortly(value)}: must be {name}")
    return kind(number)


def _from_paddle(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write what PaddleNLP writes in its own way as Hugging Face does.

    Before version 2.5 the encoder's values stood inside those of the class around it.

    >>> old = {"init_class": "BertForPretraining", "init_args": [{"init_class": "BertModel",
    ...        "hidden_size": 768}]}
    >>> _from_paddle(old)
    {'hidden_size': 768, 'architectures': ['BertForPreTraining']}
    """
    if "init_class" in values:
        inner = [part for part in values.get("init_args") or [] if isinstance(part, dict)]
        flat = {key: value for part in (*inner, values) for key, value in part.items()}
        named = flat.pop("init_class")
        flat.pop("init_args", None)
        values = {**flat, "architectures": [named]}
    named = values.get("architectures")
    if isinstance(named, list):
        return {**values, "architectures": [PADDLE_CLASSES.get(str(n), n) for n in named]}
    return values


def check_is_bert(values: Mapping[str, Any], where: str) -> None:
    """Raise a ZhbertError for the configuration of another architecture.

    Chinese "RoBERTa" models (RoBERTa-wwm-ext, RBT3, ...) are BERTs: their model_type is bert.
    """
    architectures = values.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(a, str) for a in architectures):
        raise ZhbertError(
            f"{where}: architectures = {shortly(architectures)}: must be a list of texts"
        )
    kind = values.get("model_type")
    if kind is None and architectures:
        # Files from before model_type: BertForMaskedLM, AlbertModel, ...
        kind = architectures[0].split("For")[0].removesuffix("Model").lower()
    if kind == "SentenceTransformer":  # the folder's only configuration is not a transformer's
        raise ZhbertError(
            f"{where}: vectors of pieces alone, or a sentence model without config.json, not a "
            "BERT: 'zhbert embed', 'similarity' and 'search' open static vectors"
        )
    if kind not in (None, "bert"):
        opener = _OTHERS.get(str(kind), "AutoModel")
        raise ZhbertError(
            f"{where}: a model of the type {str(kind)[:40]!r}, not BERT: transformers' {opener} "
            "opens it (a Chinese RoBERTa-wwm is a BERT: its config.json says model_type bert)"
        )
    for key, fine in _ONLY.items():
        if values.get(key) not in (None, *fine):
            known = f"one of {listed(fine)}" if len(fine) > 1 else fine[0]
            raise ZhbertError(f"{where}: {key} = {shortly(values[key])}: must be {known}")
    if values.get("pruned_heads"):
        raise ZhbertError(f"{where}: pruned_heads: layers of unequal widths are not supported")
    narrow, hidden = values.get("embedding_size"), values.get("hidden_size")
    if None not in (narrow, hidden) and _number(narrow, int, f"{where}: embedding_size") != _number(
        hidden, int, f"{where}: hidden_size"
    ):
        raise ZhbertError(f"{where}: embedding_size differs from hidden_size: not a BERT model")


def count_parameters_by_part(
    config: BertConfig, *, masked_words: bool = True, sentence_pair: bool = True
) -> dict[str, int]:
    """Count the parameters of each part of BertForPreTraining from the shape alone.

    The decoder shares the word embeddings, so only its bias is counted. The pooler is counted even
    without ``sentence_pair``, since Hugging Face's BertModel has it.

    >>> parts = count_parameters_by_part(BertConfig())
    >>> parts["word embeddings"], parts["layers"]
    (16226304, 85054464)
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    norm = 2 * hidden
    attention = 4 * (hidden * hidden + hidden)
    feed_forward = 2 * hidden * inner + inner + hidden
    parts = {
        "word embeddings": config.vocab_size * hidden,
        "position embeddings": config.max_position_embeddings * hidden,
        "segment embeddings": config.type_vocab_size * hidden,
        "embedding norm": norm,
        "layers": config.num_hidden_layers * (attention + feed_forward + 2 * norm),
        "pooler": hidden * hidden + hidden,
    }
    if masked_words:
        parts["masked-word head"] = hidden * hidden + hidden + norm + config.vocab_size
    if sentence_pair:
        parts["sentence-pair head"] = 2 * hidden + 2
    return parts
