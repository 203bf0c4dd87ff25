"""The shape of a BERT, in Hugging Face's field names, and its parameter count without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, make_folder, write_json
from zhbert.zoo import locate
from zhbert.zoo.layout import find_model

# Activations that Hugging Face's BERT configurations name; "gelu" is the exact one (erf).
ACTIVATIONS = ("gelu", "gelu_new", "relu")
# Other architectures that Chinese models come in, and the class that opens them.
_OTHERS = {
    "albert": "AlbertModel",
    "deberta-v2": "DebertaV2Model",
    "distilbert": "DistilBertModel",
    "electra": "ElectraModel",
    "ernie": "ErnieModel",
    "roberta": "RobertaModel",
    "xlm-roberta": "XLMRobertaModel",
}
_REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")


@dataclass(kw_only=True)
class BertConfig:
    """The architecture of one model: ``config.json`` in Hugging Face's names.

    Keys of a config.json that are not fields here are kept in ``other`` and written back.

    >>> config = BertConfig(vocab_size=100, hidden_size=8, num_attention_heads=2)
    >>> config.intermediate_size
    32
    >>> BertConfig.from_dict({**config.to_dict(), "note": "kept"}).to_dict()["note"]
    'kept'
    """

    vocab_size: int = 21128
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    # 0 stands for four times hidden_size, as in every published BERT.
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

    def __post_init__(self) -> None:
        if not self.intermediate_size:
            self.intermediate_size = 4 * self.hidden_size
        self.check("model configuration")

    def check(self, where: str) -> None:
        """Raise a ZhbertError that names the first value that no model can have."""
        for name in (*_REQUIRED, "intermediate_size", "max_position_embeddings", "type_vocab_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ZhbertError(f"{where}: {name} = {value!r}: must be a whole number above 0")
        if self.hidden_size % self.num_attention_heads:
            raise ZhbertError(
                f"{where}: hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise ZhbertError(f"{where}: {name} = {value!r}: must be at least 0 and below 1")
        if self.hidden_act not in ACTIVATIONS:
            raise ZhbertError(
                f"{where}: hidden_act {self.hidden_act!r} is not known; "
                f"known: {', '.join(ACTIVATIONS)}"
            )

    @property
    def labels(self) -> list[str]:
        """The labels of a fine-tuned model in the order of their ids, from ``id2label``.

        >>> BertConfig(other={"id2label": {"0": "neutral", "1": "entailment"}}).labels
        ['neutral', 'entailment']
        >>> BertConfig().labels
        ['LABEL_0', 'LABEL_1']
        """
        by_id = self.other.get("id2label") or {}
        if not by_id:
            return [f"LABEL_{number}" for number in range(int(self.other.get("num_labels", 2)))]
        try:
            numbered = {int(number): str(label) for number, label in by_id.items()}
            return [numbered[number] for number in range(len(numbered))]
        except (AttributeError, KeyError, ValueError):
            raise ZhbertError("config.json: id2label must map 0, 1, 2, ... to labels") from None

    def with_labels(self, labels: Sequence[str]) -> BertConfig:
        """The same architecture with these labels, as transformers keeps them."""
        other = {name: value for name, value in self.other.items() if name != "num_labels"}
        other["id2label"] = {str(number): label for number, label in enumerate(labels)}
        other["label2id"] = {label: number for number, label in enumerate(labels)}
        return replace(self, other=other)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> BertConfig:
        """Read the values of a config.json; ``where`` names it in errors.

        Raises:
            ZhbertError: another architecture, a missing size, or a value that no model can have.
        """
        check_is_bert(values, where)
        known = {f.name for f in fields(cls)} - {"other"}
        given = {name: value for name, value in values.items() if name in known}
        # None is Hugging Face's way to leave a key out.
        given = {name: value for name, value in given.items() if value is not None}
        missing = [name for name in _REQUIRED if name not in given]
        if missing:
            raise ZhbertError(
                f"{where}: no {', '.join(missing)}: not the configuration of a BERT model"
            )
        try:
            config = cls(**given)
        except ZhbertError as error:
            raise ZhbertError(str(error).replace("model configuration", where, 1)) from None
        config.other = {name: value for name, value in values.items() if name not in known}
        return config

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds; the model type is always there, so that transformers opens it."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "other"}
        return {"model_type": "bert", **own, **self.other}

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> BertConfig:
        """Read the configuration of a folder, an archive or a name (or a JSON file itself)."""
        path = Path(folder)
        if path.suffix != ".json":
            inside = [path / name for name in ("config.json", "bert_config.json")]
            found = next((file for file in inside if file.is_file()), None)
            if found is None:
                files = find_model(locate(path))
                found = files.config or files.folder / "config.json"
            path = found
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise describe_os_error(error, "reading") from None
        except ValueError as error:
            raise ZhbertError(f"{path}: not JSON: {error}") from None
        if not isinstance(values, dict):
            raise ZhbertError(f"{path}: not a configuration: a JSON object is expected")
        return cls.from_dict(values, str(path))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``folder/config.json``, atomically."""
        path = Path(folder)
        make_folder(path)
        write_json(path / "config.json", self.to_dict())


def check_is_bert(values: Mapping[str, Any], where: str) -> None:
    """Raise a ZhbertError for the configuration of another architecture.

    Chinese "RoBERTa" models (RoBERTa-wwm-ext, RBT3, ...) are BERTs: their model_type says bert.
    """
    architectures = values.get("architectures") or []
    kind = values.get("model_type")
    if kind is None and architectures:
        # Files from before model_type: BertForMaskedLM, AlbertModel, ...
        kind = str(architectures[0]).split("For")[0].removesuffix("Model").lower()
    if kind not in (None, "bert"):
        kind = str(kind)
        opener = _OTHERS.get(kind, "AutoModel")
        raise ZhbertError(
            f"{where}: a model of the type '{kind}', not BERT: transformers' {opener} opens it "
            "(Chinese RoBERTa-wwm models are BERTs: their config.json says model_type bert)"
        )
    for key, fine in (("position_embedding_type", "absolute"), ("is_decoder", False)):
        if values.get(key, fine) != fine:
            raise ZhbertError(f"{where}: {key} = {values[key]!r} is not supported; only {fine!r}")
    if values.get("embedding_size", values.get("hidden_size")) != values.get("hidden_size"):
        raise ZhbertError(f"{where}: embedding_size differs from hidden_size: not a BERT model")


def count_parameters_by_part(
    config: BertConfig, *, masked_words: bool = True, sentence_pair: bool = True
) -> dict[str, int]:
    """Parameters of each part of BertForPreTraining, counted from the shape alone.

    The decoder shares the word embeddings, so only its bias counts. Without ``sentence_pair`` the
    pooler, which serves nothing else, still counts: Hugging Face's BertModel has it.

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
