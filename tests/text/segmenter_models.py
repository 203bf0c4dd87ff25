"""Small models of the libraries that cut words, trained or built in a second, offline.

HanLP has no wheel, so it is not among the libraries that tests install: `hanlp_stand_in` has the
parts of its interface that are used.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path

SENTENCES = (
    "使用 语言 模型 来 预测 下 一个 词 的 概率 。",
    "研究 生命 的 起源",
    "我 爱 北京 天安门 ，",
    "学术 研究 计划 ， 语言 模型 研究",
)
_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "b", "##b", "ᄒ", "##ᅡ", "##ᆫ"]


def _training_file(folder: Path) -> str:
    file = folder / "train.txt"
    file.write_text("".join(f"{line}\n" for line in SENTENCES * 10), encoding="utf-8")
    return str(file)


def _tokenizer(folder: Path) -> int:
    """A tokenizer of the sentences' characters; its size."""
    from transformers import BertTokenizerFast

    vocabulary = _PIECES + sorted(set("".join(SENTENCES)) - {" "})
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return len(vocabulary)


def perceptron(folder: Path) -> Path:
    """The file of a perceptron model that LTP's own trainer made."""
    from ltp_extension.perceptron import Algorithm, CWSTrainer

    trainer = CWSTrainer()
    trainer.load_train_data(_training_file(folder))
    trainer.load_eval_data(_training_file(folder))
    trainer.epoch, trainer.algorithm, trainer.shuffle = 3, Algorithm("AP", 1), False
    trainer.train().save(str(folder / "cws_model.bin"))
    return folder / "cws_model.bin"


def neural(folder: Path) -> Path:
    """The folder of a neural LTP model: its real classes, random weights."""
    import torch
    from ltp.nerual import LTP

    size = _tokenizer(folder)
    models = "ltp_core.models"
    backbone = {
        "model_type": "electra",
        "vocab_size": size,
        "embedding_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    config = {
        "nerual": True,
        "version": "4.2.0",
        "model": {
            "_ltp_target_": f"{models}.ltp_model.LTPModule",
            "backbone": {
                "_ltp_target_": f"{models}.utils.load_transformers",
                "config": backbone,
            },
            "heads": {
                "cws": {
                    "_ltp_target_": f"{models}.components.token.MLPTokenClassifier",
                    "input_size": 16,
                    "num_labels": 2,
                }
            },
            "processor": {"cws": {"_ltp_target_": f"{models}.processor.TokenOnly"}},
        },
        "vocabs": {"cws": ["I-W", "B-W"]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        torch.save(LTP(config=config).model.state_dict(), folder / "pytorch_model.bin")
    return folder


def pkuseg(folder: Path) -> Path:
    """The folder that pkuseg's own trainer wrote."""
    import spacy_pkuseg

    file = _training_file(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        spacy_pkuseg.train(file, file, str(folder / "model"), train_iter=3)
    return folder / "model"


def hanlp(folder: Path) -> Path:
    """A folder as HanLP's trainer writes it, for the stand-in of its interface."""
    import torch

    tags = {character: 1.0 for line in SENTENCES for character in line if character != " "}
    tags |= {word[0]: 0.0 for line in SENTENCES for word in line.split()}
    characters = sorted(tags)
    config = {
        "classpath": "hanlp.components.tokenizers.transformer.TransformerTaggingTokenizer",
        "hanlp_version": "2.1.5",
        "sampler_builder": {
            "classpath": "hanlp.common.dataset.SortingSamplerBuilder",
            "batch_size": 32,
        },
        "transform": {
            "classpath": "hanlp.common.transform.NormalizeCharacter",
            "mapper": "https://file.hankcs.com/corpus/char_table.json.zip",
        },
        "tagging_scheme": "BMES",
    }
    vocabs = {"tag": {"idx_to_token": characters, "type": "hanlp.common.vocab.Vocab"}}
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config))
    (model / "vocabs.json").write_text(json.dumps(vocabs))
    weight = torch.tensor([[tags[c]] for c in characters])
    torch.save({"word_embeddings.weight": weight}, model / "model.pt")
    return model
