"""Our parameter names and Hugging Face's, in one table for both directions.

``*`` is a layer's number. If one of our parameters contains several of theirs (queries, keys and
values), theirs are its equal parts from the first row down, in the given order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.model.entry import Entry

POSITIONS = "bert.embeddings.position_embeddings.weight"
# The tensors with one row (or one number) per piece. The decoder of the masked-word head shares the
# matrix of the word embeddings.
PER_PIECE = ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias")

# Abbreviated beginnings of Hugging Face's names, to keep the table narrow.
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
    ("mlm_head.transform.weight",                   ("P.transform.dense.weight",)),
    ("mlm_head.transform.bias",                     ("P.transform.dense.bias",)),
    ("mlm_head.norm.weight",                        ("P.transform.LayerNorm.weight",)),
    ("mlm_head.norm.bias",                          ("P.transform.LayerNorm.bias",)),
    ("mlm_head.bias",                               ("P.bias",)),
    ("nsp_head.dense.weight",                       ("cls.seq_relationship.weight",)),
    ("nsp_head.dense.bias",                         ("cls.seq_relationship.bias",)),
    ("classifier.weight",                           ("classifier.weight",)),
    ("classifier.bias",                             ("classifier.bias",)),
    ("qa_outputs.weight",                           ("qa_outputs.weight",)),
    ("qa_outputs.bias",                             ("qa_outputs.bias",)),
)  # fmt: skip
# Former beginnings of our names, in older training checkpoints.
_RENAMED = (("masked_words.", "mlm_head."), ("sentence_pair.", "nsp_head."))
# Second names of tensors, and their first names.
ALIASES = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
# Heads of fine-tuned models. A model without such a head warns that it does not use them.
FINE_TUNED = ("classifier.", "qa_outputs.")
# Parts that only sentence pairs need, which transformers' BertForMaskedLM lacks.
OF_PAIRS = ("bert.pooler.", "cls.seq_relationship.")
# Constants in older checkpoints, which are not read.
CONSTANTS = {
    f"{prefix}embeddings.{name}"
    for prefix in ("bert.", "")
    for name in ("position_ids", "token_type_ids")
}

# UER-py and TencentPretrain, where the first row of the segment embeddings is for padding.
_SEGMENTS_OF_UER = r"^embedding\.(segment_embedding|seg\.embedding)\."


def _in_parts(pattern: str) -> re.Pattern[str]:
    """Compile a pattern in which ^ matches the beginning of any part of a dotted name."""
    return re.compile(pattern.replace("^", r"(?<![^.])"))


# Replacements for other programs' names, after any prefix; applied in this order.
_SPELLINGS = tuple(
    (_in_parts(pattern), replacement)
    for pattern, replacement in (
        # torch.compile, FSDP, activation checkpoints and DeepSpeed wrap a module at any depth.
        (r"^_(orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module|forward_module)\.", ""),
        # UER-py and TencentPretrain.
        (r"^embedding\.(word_embedding|word\.embedding)\.", "embeddings.word_embeddings."),
        (r"^embedding\.(position_embedding|pos\.embedding)\.", "embeddings.position_embeddings."),
        (_SEGMENTS_OF_UER, "embeddings.token_type_embeddings."),
        (r"^embedding\.layer_norm\.", "embeddings.LayerNorm."),
        (r"^encoder\.transformer\.(\d+)\.", r"encoder.layer.\1."),
        (r"(layer\.\d+)\.self_attn\.linear_layers\.0\.", r"\1.attention.self.query."),
        (r"(layer\.\d+)\.self_attn\.linear_layers\.1\.", r"\1.attention.self.key."),
        (r"(layer\.\d+)\.self_attn\.linear_layers\.2\.", r"\1.attention.self.value."),
        (r"(layer\.\d+)\.self_attn\.final_linear\.", r"\1.attention.output.dense."),
        (r"(layer\.\d+)\.layer_norm_1\.", r"\1.attention.output.LayerNorm."),
        (r"(layer\.\d+)\.feed_forward\.linear_1\.", r"\1.intermediate.dense."),
        (r"(layer\.\d+)\.feed_forward\.linear_2\.", r"\1.output.dense."),
        (r"(layer\.\d+)\.layer_norm_2\.", r"\1.output.LayerNorm."),
        (r"^target\.mlm[._]linear_1\.", "cls.predictions.transform.dense."),
        (r"^target\.(mlm\.)?layer_norm\.", "cls.predictions.transform.LayerNorm."),
        (r"^target\.mlm[._]linear_2\.", "cls.predictions.decoder."),
        (r"^target\.n?sp[._]linear_1\.|^output_layer_1\.", "pooler.dense."),
        (r"^target\.n?sp[._]linear_2\.", "cls.seq_relationship."),
        (r"^output_layer_2\.", "classifier."),
        # Roberta's classes.
        (r"^lm_head\.(dense\.|decoder\.|bias$)", r"cls.predictions.\1"),
        (r"^lm_head\.layer_norm\.", "cls.predictions.LayerNorm."),
        (r"cls\.predictions\.(dense|LayerNorm)\.", r"cls.predictions.transform.\1."),
        # NVIDIA's DeepLearningExamples, and literal translations of Google's names.
        (r"\.dense_act\.", ".dense."),
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
    )
)
_WORDS = re.compile(r"((?:.*[./])?)embeddings[./]word_embeddings(?:\.weight)?")
_TRUNK = re.compile(r"(embeddings[./]\w+|encoder[./]layer[._]\d+|pooler[./]dense)(?=[./])")
_HEADS = ("cls.predictions.", "cls.seq_relationship.", *FINE_TUNED)
# Names that only other architectures have, and the message about each.
_FOREIGN = tuple(
    (
        re.compile(mark),
        f"{what}, not a BERT: zhbert cannot open it; transformers' {opener} does",
    )
    for mark, what, opener in (
        # TensorFlow's names have / instead of the dot.
        (r"albert_layer_groups|inner_group_", "an ALBERT", "AlbertModel"),
        (r"discriminator_predictions|electra[./]", "an ELECTRA", "ElectraModel"),
        (r"embeddings_project", "an ELECTRA with narrow embeddings", "ElectraModel"),
        (r"task_type_embeddings", "an ERNIE with task embeddings", "ErnieModel"),
        (r"ernie\.", "an ERNIE", "ErnieModel"),
        (r"deberta\.|rel_embeddings", "a DeBERTa", "DebertaV2Model"),
        (r"distilbert\.|attention\.q_lin\.", "a DistilBERT", "DistilBertModel"),
        (r"nezha\.|relative_positions_encoding", "a NEZHA", "NezhaModel (transformers 4)"),
        (r"roformer\.|embed_positions", "a RoFormer", "RoFormerModel"),
        (r"attention\.self\.query_global", "a Longformer", "LongformerModel"),
        (r"rel_attn", "an XLNet", "XLNetModel"),
        (r"(^|\.)wte\.weight|transformer\.h\.\d", "a GPT-2", "GPT2LMHeadModel"),
        (r"(encoder|decoder)\.block\.\d", "a T5", "T5ForConditionalGeneration"),
        (r"(^|\.)model\.layers\.\d+\.self_attn\.", "a Llama or its like", "AutoModelForCausalLM"),
        (r"attn\.Wqkv", "a ModernBERT or another BERT with fused attention", "AutoModel"),
    )
) + tuple(
    # Possibly a BERT, but in another program's layout.
    (re.compile(mark), f"{what}: zhbert cannot open it; {way}")
    for mark, what, way in (
        (
            r"sentence_encoder\.",
            "a checkpoint of fairseq",
            "transformers 4 has convert_roberta_original_pytorch_checkpoint_to_pytorch.py for it",
        ),
        (
            r"query_key_value|language_model\.embedding\.",
            "a checkpoint of Megatron-LM",
            "transformers 4 has convert_megatron_bert_checkpoint.py for it",
        ),
        (
            r"encoder\.layers\.\d+\.self_attn\.q_proj\.",
            "a checkpoint with the names of BART, or of another model of PaddleNLP than BERT",
            "take the model's files for transformers, or rename its tensors in its own program",
        ),
        (
            r"\.lora_[AB]\.|\.base_layer\.",
            "a LoRA adapter (PEFT), not a whole model",
            "merge it with its base model: PeftModel.from_pretrained(...).merge_and_unload()",
        ),
    )
)

_BY_OURS = {
    ours: tuple(_BEGINNINGS.get(name[:2], name[:2]) + name[2:] for name in theirs)
    for ours, theirs in _TABLE
}
# All Hugging Face names in the table, with ``*`` for a layer's number.
TEMPLATES = frozenset(name for theirs in _BY_OURS.values() for name in theirs)


def hugging_face_names(ours: str) -> tuple[str, ...]:
    """Return Hugging Face's names of our parameter, in order.

    >>> hugging_face_names("encoder.layers.7.attention.output.bias")
    ('bert.encoder.layer.7.attention.output.dense.bias',)
    """
    number = re.search(r"\.layers\.(\d+)\.", ours)
    template = ours if number is None else ours.replace(f".{number[1]}.", ".*.", 1)
    theirs = _BY_OURS[template]
    return theirs if number is None else tuple(n.replace("*", number[1], 1) for n in theirs)


def current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a training checkpoint's tensors, including the optimiser's, to our current names.

    >>> list(current_names({"masked_words.bias": torch.ones(2)}))
    ['mlm_head.bias']
    """
    current = {}
    for name, tensor in state.items():
        for old, new in _RENAMED:
            if name.startswith(old):
                name = new + name.removeprefix(old)
        current[name] = tensor
    return current


def modern_names(names: Iterable[str], where: object = "checkpoint") -> dict[str, str]:
    """Map a checkpoint's names to Hugging Face's current names, with the ``bert.`` prefix.

    The common prefix of the encoder's names is removed; so is the part of it in a head's name, or
    a prefix before ``cls.`` and the like. Names that are not BERT's stay unchanged, as do all names
    of another architecture.

    Raises:
        ZhbertError: there are two models, that is, two matrices of word embeddings.

    >>> modern_names(["module.bert.encoder.layer.0.output.LayerNorm.gamma", "module.qa_outputs.x"])
    {'module.bert.encoder.layer.0.output.LayerNorm.gamma': \
'bert.encoder.layer.0.output.LayerNorm.weight', 'module.qa_outputs.x': 'qa_outputs.x'}
    """
    spelt = {name: _respelt(name) for name in names}
    if foreign_architecture(spelt):
        return {name: name for name in spelt}
    prefix = shared_prefix(spelt.values(), where)
    modern = {name: _without_prefix(new, prefix) for name, new in spelt.items()}
    # Heads are only searched for if there is an encoder.
    if any(new.startswith("bert.") for new in modern.values()):
        for head in _HEADS:
            modern = _with_head_at_top(modern, head)
    return modern


def _with_head_at_top(names: dict[str, str], head: str) -> dict[str, str]:
    """Move a head that is inside one module next to the encoder to the top of the names."""
    owners = {
        new.partition(f".{head}")[0]
        for new in names.values()
        if f".{head}" in new and not new.startswith("bert.")
    }
    if len(owners) != 1 or any(new.startswith(head) for new in names.values()):
        return names
    owner = f"{owners.pop()}."
    return {
        name: new.removeprefix(owner) if new.startswith(owner + head) else new
        for name, new in names.items()
    }


def holds_bert(names: Iterable[str]) -> bool:
    """Return True if these names of any program include a BERT's word embeddings."""
    return any(_WORDS.fullmatch(_respelt(name)) for name in names)


def segments_of_uer(name: str) -> bool:
    """Return True for UER-py's segment embeddings, whose first row is for padding."""
    return _in_parts(_SEGMENTS_OF_UER).search(name) is not None


def _respelt(name: str) -> str:
    for pattern, replacement in _SPELLINGS:
        name = pattern.sub(replacement, name)
    return name


def shared_prefix(names: Iterable[str], where: object = "checkpoint") -> str:
    """Return the common prefix of the encoder's names, in PyTorch's or TensorFlow's form.

    >>> shared_prefix(["model.bert.embeddings.word_embeddings.weight", "model.lstm.bias"])
    'model.bert.'
    """
    names = list(names)
    if foreign_architecture(names):
        return ""
    found = {match[1] for name in names if (match := _WORDS.fullmatch(name))}
    if len(found) > 1:
        begin = " and with ".join(repr(prefix) for prefix in sorted(found))
        raise ZhbertError(
            f"{where}: two models in one file, whose names begin with {begin}; save one of them "
            "alone"
        )
    if not found:
        # Without word embeddings, as in a shard, the other tensors' prefix counts if it is unique.
        found = {name[: match.start()] for name in names if (match := _TRUNK.search(name))}
    return found.pop() if len(found) == 1 else ""


def of_encoder(name: str) -> bool:
    """Return True if a name without its prefix is the encoder's (PyTorch's or TensorFlow's)."""
    return _TRUNK.match(name) is not None


def _without_prefix(name: str, prefix: str) -> str:
    rest = name.removeprefix(prefix)
    if name.startswith(prefix) and of_encoder(rest):
        return f"bert.{rest}"
    # A head belongs to a module above the encoder: module.cls next to module.bert.
    for end in range(len(prefix), 0, -1):
        if prefix[end - 1] == "." and name.startswith(prefix[:end]):
            return name[end:] if name.startswith(_HEADS, end) else name
    return name


def foreign_architecture(names: Iterable[str]) -> str | None:
    """Describe the other architecture of these names, and what opens it; None: it is a BERT.

    >>> foreign_architecture(["albert.encoder.albert_layer_groups.0.bias"])
    "an ALBERT, not a BERT: zhbert cannot open it; transformers' AlbertModel does"
    >>> foreign_architecture(["bert.pooler.dense.bias"])
    """
    for name in names:
        for mark, said in _FOREIGN:
            if mark.search(name):
                return said
    return None


def to_hugging_face(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our parameters to Hugging Face's names; cut fused ones into contiguous parts."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        names = hugging_face_names(name)
        for part, part_name in zip(tensor.chunk(len(names)), names, strict=True):
            theirs[part_name] = part
    return theirs


def from_hugging_face(
    theirs: Mapping[str, Entry], wanted: Iterable[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Read our ``wanted`` parameters from theirs (current names); return missing names, too."""
    found: dict[str, Tensor] = {}
    missing: list[str] = []
    for name in wanted:
        names = hugging_face_names(name)
        absent = [n for n in names if n not in theirs]
        missing += absent
        if not absent:
            parts = [theirs[n].read() for n in names]
            found[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
    return found, missing
