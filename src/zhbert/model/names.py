"""Our parameter names and Hugging Face's: one table, read in both directions.

``*`` stands for a layer's number. Where one parameter of ours holds several of theirs (queries,
keys and values), theirs are its equal parts from the first row down, in the order given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

# Beginnings of Hugging Face's names, so that the table fits a page.
_BEGINNINGS = {
    "E.": "bert.embeddings.",
    "L.": "bert.encoder.layer.*.",
    "P.": "cls.predictions.",
}
#  ours                                           Hugging Face's
_TABLE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("encoder.embeddings.words.weight",             ("E.word_embeddings.weight",)),
    ("encoder.embeddings.positions.weight",         ("E.position_embeddings.weight",)),
    ("encoder.embeddings.token_types.weight",       ("E.token_type_embeddings.weight",)),
    ("encoder.embeddings.norm.weight",              ("E.LayerNorm.weight",)),
    ("encoder.embeddings.norm.bias",                ("E.LayerNorm.bias",)),
    ("encoder.layers.*.attention.qkv.weight",       ("L.attention.self.query.weight",
                                                     "L.attention.self.key.weight",
                                                     "L.attention.self.value.weight")),
    ("encoder.layers.*.attention.qkv.bias",         ("L.attention.self.query.bias",
                                                     "L.attention.self.key.bias",
                                                     "L.attention.self.value.bias")),
    ("encoder.layers.*.attention.output.weight",    ("L.attention.output.dense.weight",)),
    ("encoder.layers.*.attention.output.bias",      ("L.attention.output.dense.bias",)),
    ("encoder.layers.*.attention_norm.weight",      ("L.attention.output.LayerNorm.weight",)),
    ("encoder.layers.*.attention_norm.bias",        ("L.attention.output.LayerNorm.bias",)),
    ("encoder.layers.*.feed_forward.inner.weight",  ("L.intermediate.dense.weight",)),
    ("encoder.layers.*.feed_forward.inner.bias",    ("L.intermediate.dense.bias",)),
    ("encoder.layers.*.feed_forward.outer.weight",  ("L.output.dense.weight",)),
    ("encoder.layers.*.feed_forward.outer.bias",    ("L.output.dense.bias",)),
    ("encoder.layers.*.feed_forward_norm.weight",   ("L.output.LayerNorm.weight",)),
    ("encoder.layers.*.feed_forward_norm.bias",     ("L.output.LayerNorm.bias",)),
    ("pooler.dense.weight",                         ("bert.pooler.dense.weight",)),
    ("pooler.dense.bias",                           ("bert.pooler.dense.bias",)),
    ("masked_words.transform.weight",               ("P.transform.dense.weight",)),
    ("masked_words.transform.bias",                 ("P.transform.dense.bias",)),
    ("masked_words.norm.weight",                    ("P.transform.LayerNorm.weight",)),
    ("masked_words.norm.bias",                      ("P.transform.LayerNorm.bias",)),
    ("masked_words.bias",                           ("P.bias",)),
    ("sentence_pair.dense.weight",                  ("cls.seq_relationship.weight",)),
    ("sentence_pair.dense.bias",                    ("cls.seq_relationship.bias",)),
    ("classifier.weight",                           ("classifier.weight",)),
    ("classifier.bias",                             ("classifier.bias",)),
    ("qa_outputs.weight",                           ("qa_outputs.weight",)),
    ("qa_outputs.bias",                             ("qa_outputs.bias",)),
)  # fmt: skip
# Other names of the same thing, and where they lead.
ALIASES = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
# Heads of fine-tuned models: a model without a place for them says that it leaves them.
FINE_TUNED = ("classifier.", "qa_outputs.")
# Constants that older checkpoints carry along; nothing is lost by leaving them.
CONSTANTS = {"bert.embeddings.position_ids", "bert.embeddings.token_type_ids"}

# A BERT under another family's names, as training programs with Roberta's classes save one.
_SYNONYMS = (
    ("roberta.", "bert."),
    ("lm_head.dense.", "cls.predictions.transform.dense."),
    ("lm_head.layer_norm.", "cls.predictions.transform.LayerNorm."),
    ("lm_head.decoder.", "cls.predictions.decoder."),
    ("lm_head.bias", "cls.predictions.bias"),
)
# What only other architectures have, and what to open them with.
_FOREIGN = (
    ("albert_layer_groups", "an ALBERT", "AlbertModel"),
    ("inner_group_", "an ALBERT", "AlbertModel"),  # TensorFlow's name
    ("discriminator_predictions", "an ELECTRA", "ElectraModel"),
    ("electra.", "an ELECTRA", "ElectraModel"),
    ("electra/", "an ELECTRA", "ElectraModel"),  # TensorFlow's name
    ("embeddings_project", "an ELECTRA with narrow embeddings", "ElectraModel"),
    ("task_type_embeddings", "an ERNIE with task embeddings", "ErnieModel"),
    ("ernie.", "an ERNIE", "ErnieModel"),
    ("deberta.", "a DeBERTa", "DebertaV2Model"),
    ("distilbert.", "a DistilBERT", "DistilBertModel"),
    ("nezha.", "a NEZHA", "NezhaModel (transformers 4)"),
    ("relative_positions_encoding", "a NEZHA", "NezhaModel (transformers 4)"),
)

_BY_OURS = {
    ours: tuple(_BEGINNINGS.get(name[:2], name[:2]) + name[2:] for name in theirs)
    for ours, theirs in _TABLE
}
# Every name of theirs that the table knows, ``*`` for a layer's number.
TEMPLATES = frozenset(name for theirs in _BY_OURS.values() for name in theirs)


def hugging_face_names(ours: str) -> tuple[str, ...]:
    """Hugging Face's names of our parameter, in order.

    >>> hugging_face_names("encoder.layers.7.attention.output.bias")
    ('bert.encoder.layer.7.attention.output.dense.bias',)
    """
    number = re.search(r"\.layers\.(\d+)\.", ours)
    template = ours if number is None else ours.replace(f".{number[1]}.", ".*.", 1)
    theirs = _BY_OURS[template]
    return theirs if number is None else tuple(n.replace("*", number[1], 1) for n in theirs)


def modern_name(name: str) -> str:
    """A checkpoint's name as Hugging Face writes it today, with the ``bert.`` prefix.

    >>> modern_name("encoder.layer.0.output.LayerNorm.gamma")
    'bert.encoder.layer.0.output.LayerNorm.weight'
    """
    name = name.removeprefix("module.")
    for theirs, bert in _SYNONYMS:
        if name.startswith(theirs):
            name = bert + name.removeprefix(theirs)
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def foreign_architecture(names: Iterable[str]) -> str | None:
    """What a checkpoint with these names is, where it is no BERT, and what opens it.

    >>> foreign_architecture(["albert.encoder.albert_layer_groups.0.bias"])
    "an ALBERT, not a BERT: zhbert cannot open it; transformers' AlbertModel does"
    >>> foreign_architecture(["bert.pooler.dense.bias"])
    """
    for name in names:
        for mark, what, opener in _FOREIGN:
            if mark in name:
                return f"{what}, not a BERT: zhbert cannot open it; transformers' {opener} does"
    return None


def to_hugging_face(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters under Hugging Face's names; fused ones cut into contiguous parts."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        names = hugging_face_names(name)
        for part, part_name in zip(tensor.chunk(len(names)), names, strict=True):
            theirs[part_name] = part
    return theirs


def from_hugging_face(
    theirs: Mapping[str, Tensor], wanted: Iterable[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """``wanted`` parameters of ours from theirs (modern names), and those missing there."""
    found: dict[str, Tensor] = {}
    missing: list[str] = []
    for name in wanted:
        names = hugging_face_names(name)
        absent = [n for n in names if n not in theirs]
        missing += absent
        if not absent:
            parts = [theirs[n] for n in names]
            found[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
    return found, missing
