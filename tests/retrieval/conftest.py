"""A small sentence model of random weights, with prompts, and a file of texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from zhbert import BertConfig, SentenceEncoder, Tokenizer
from zhbert.sentences.model import SentenceModel
from zhbert.sentences.modules import SentenceConfig

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"今天气很好股票跌了猫狗在睡觉我们吃苹果：，。",
]
TEXTS = [
    "今天天气很好。",
    "股票跌了。",
    "猫在睡觉，狗在睡觉。",
    "我们吃苹果。",
    "猫",
    "天气好，股票好。",
]


def save_model(folder: Path, *, seed: int = 1, **sentence: object) -> Path:
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    model = SentenceModel(config, seed, sentence=SentenceConfig(**sentence))  # type: ignore[arg-type]
    SentenceEncoder(model, Tokenizer(PIECES)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"query": "我们：", "document": "", "weather": "天气："}
    return save_model(tmp_path_factory.mktemp("models") / "model", prompts=prompts)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path
