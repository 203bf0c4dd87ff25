"""The table of names: reversible, complete, and the same tensors on both sides."""

import pytest
import torch

from zhbert.model.config import BertConfig
from zhbert.model.names import from_hugging_face, modern_name, to_hugging_face
from zhbert.model.pretrained import BertForPreTraining


def test_names_go_there_and_back(config: BertConfig) -> None:
    ours = dict(BertForPreTraining(config).named_parameters())
    back, missing = from_hugging_face(to_hugging_face(ours), ours)
    assert missing == []
    assert list(back) == list(ours)
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_the_table_names_every_tensor_of_transformers(config: BertConfig, shape: dict) -> None:
    import transformers

    theirs = transformers.BertForPreTraining(transformers.BertConfig(**shape))
    ours = to_hugging_face(dict(BertForPreTraining(config).named_parameters()))
    assert set(ours) == {name for name, _ in theirs.named_parameters()}
    assert {n: p.shape for n, p in ours.items()} == {
        n: p.shape for n, p in theirs.named_parameters()
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        ("embeddings.LayerNorm.beta", "bert.embeddings.LayerNorm.bias"),
        ("encoder.layer.11.output.dense.bias", "bert.encoder.layer.11.output.dense.bias"),
        ("module.bert.pooler.dense.bias", "bert.pooler.dense.bias"),
        ("cls.predictions.transform.LayerNorm.gamma", "cls.predictions.transform.LayerNorm.weight"),
    ],
)
def test_old_names_lead_to_todays(old: str, new: str) -> None:
    assert modern_name(old) == new
    assert modern_name(new) == new
