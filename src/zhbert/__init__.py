"""zhbert: Chinese BERT with whole word masking, from text to a model folder.

Names are imported when they are first used, so that ``import zhbert`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zhbert.data.corpus_tables import load_corpus
    from zhbert.data.masking import mask_words
    from zhbert.data.prepare import prepare
    from zhbert.errors import ZhbertError
    from zhbert.finetuning.evaluate import evaluate
    from zhbert.finetuning.predict import predict
    from zhbert.finetuning.predictor import Predictor
    from zhbert.finetuning.run import finetune
    from zhbert.hugging_face.collator import WholeWordMaskCollator
    from zhbert.hugging_face.tokenizer import ZhbertTokenizer
    from zhbert.model.config import BertConfig
    from zhbert.model.pretrained import (
        BertForMaskedLM,
        BertForPreTraining,
        BertForQuestionAnswering,
        BertForSequenceClassification,
        BertForTokenClassification,
        BertModel,
    )
    from zhbert.pretraining.run import pretrain
    from zhbert.sentences.encoder import SentenceEncoder
    from zhbert.text.segmenters import Segmenter, load_segmenter
    from zhbert.text.tokenizer import Tokenizer
    from zhbert.zoo.upload import push_to_hub

__version__ = "0.1.0"

_WHERE = {
    "BertConfig": "zhbert.model.config",
    "BertForMaskedLM": "zhbert.model.pretrained",
    "BertForPreTraining": "zhbert.model.pretrained",
    "BertForQuestionAnswering": "zhbert.model.pretrained",
    "BertForSequenceClassification": "zhbert.model.pretrained",
    "BertForTokenClassification": "zhbert.model.pretrained",
    "BertModel": "zhbert.model.pretrained",
    "Predictor": "zhbert.finetuning.predictor",
    "Segmenter": "zhbert.text.segmenters",
    "SentenceEncoder": "zhbert.sentences.encoder",
    "Tokenizer": "zhbert.text.tokenizer",
    "WholeWordMaskCollator": "zhbert.hugging_face.collator",
    "ZhbertError": "zhbert.errors",
    "load_corpus": "zhbert.data.corpus_tables",
    "ZhbertTokenizer": "zhbert.hugging_face.tokenizer",
    "load_segmenter": "zhbert.text.segmenters",
    "mask_words": "zhbert.data.masking",
    "evaluate": "zhbert.finetuning.evaluate",
    "finetune": "zhbert.finetuning.run",
    "predict": "zhbert.finetuning.predict",
    "prepare": "zhbert.data.prepare",
    "pretrain": "zhbert.pretraining.run",
    "push_to_hub": "zhbert.zoo.upload",
}

__all__ = [
    "BertConfig",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "Predictor",
    "Segmenter",
    "SentenceEncoder",
    "Tokenizer",
    "WholeWordMaskCollator",
    "ZhbertError",
    "ZhbertTokenizer",
    "__version__",
    "evaluate",
    "finetune",
    "load_corpus",
    "load_segmenter",
    "mask_words",
    "predict",
    "prepare",
    "pretrain",
    "push_to_hub",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'zhbert' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return __all__
