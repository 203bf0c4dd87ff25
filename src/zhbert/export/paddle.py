"""Model folders that PaddleNLP's BERT classes and PaddleHub open, written without either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import write_text
from zhbert.model.config import PADDLE_CLASSES, BertConfig
from zhbert.model.entry import Entry
from zhbert.model.formats.paddle import to_paddle
from zhbert.model.formats.safetensors import write_safetensors

# PaddleNLP looks the name up among the functions of paddle.nn.functional.
_ACTIVATIONS = ("gelu", "relu")
# What `paddlehub.Module(directory=FOLDER)` runs, in the form of PaddleHub's own BERT modules.
_MODULE = '''\
"""This folder's model for PaddleHub: paddlehub.Module(directory=...)."""

import os

import paddle
from paddlehub.module.module import moduleinfo
from paddlehub.module.nlp_module import TransformerModule
from paddlenlp.transformers import BertForSequenceClassification, BertModel, BertTokenizer

FOLDER = os.path.dirname(os.path.abspath(__file__))
MODELS = {None: BertModel, "seq-cls": BertForSequenceClassification}


@moduleinfo(
    name="zhbert",
    version="1.0.0",
    author="zhbert",
    author_email="",
    summary="A Chinese BERT.",
    type="nlp/semantic_model",
    meta=TransformerModule,
)
class Bert(paddle.nn.Layer):
    """The encoder; with task="seq-cls", a classifier of whole texts to train or to use."""

    def __init__(self, task=None, load_checkpoint=None, label_map=None, num_classes=None, **kwargs):
        super(Bert, self).__init__()  # PaddleHub makes a new class of this one
        if task not in MODELS:
            raise RuntimeError(f"task {task!r}: must be None or 'seq-cls'")
        if label_map or num_classes:
            kwargs["num_labels"] = len(label_map or ()) or num_classes
        self.task = task
        self.model = MODELS[task].from_pretrained(FOLDER, **kwargs)
        self.label_map = label_map or self.model.config.id2label
        self.criterion = paddle.nn.CrossEntropyLoss()
        self.metric = paddle.metric.Accuracy()
        if load_checkpoint is not None and os.path.isfile(load_checkpoint):
            self.set_state_dict(paddle.load(load_checkpoint))

    def forward(self, input_ids, token_type_ids=None, labels=None):
        result = self.model(input_ids, token_type_ids)
        if self.task is None:
            return result
        scores = paddle.nn.functional.softmax(result, axis=-1)
        if labels is None:
            return scores
        accuracy = self.metric.compute(scores, labels)
        return scores, self.criterion(result, labels), {"acc": accuracy}

    @staticmethod
    def get_tokenizer(*args, **kwargs):
        return BertTokenizer.from_pretrained(FOLDER, *args, **kwargs)
'''


def write_paddle(
    folder: Path,
    entries: Mapping[str, Entry],
    config: BertConfig,
    *,
    max_shard_bytes: int | None = None,
) -> None:
    """Write model.safetensors, config.json and module.py into a new folder.

    One tensor is in memory at a time, as in ``write_safetensors``.

    Raises:
        ZhbertError: Paddle has no such activation.
    """
    if config.hidden_act not in _ACTIVATIONS:
        known = " and ".join(_ACTIVATIONS)
        raise ZhbertError(f"hidden_act = {config.hidden_act!r}: PaddleNLP's BERT has {known} only")
    write_safetensors(folder, to_paddle(entries), max_shard_bytes=max_shard_bytes, written_for="np")
    named = paddle_classes(config)
    replace(config, other=config.other | {"architectures": named}).save_pretrained(folder)
    write_text(folder / "module.py", _MODULE)


def paddle_classes(config: BertConfig) -> list[str]:
    """Return the names of a model's classes in PaddleNLP."""
    paddles = {theirs: name for name, theirs in PADDLE_CLASSES.items()}
    return [paddles.get(name, name) for name in config.other["architectures"]]
