"""The fine-tuned models: transformers' outputs, folders and labels, packed or padded."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.model.conftest import enlarge

from zhbert.model.config import BertConfig
from zhbert.model.loading import UntrainedWeightsWarning
from zhbert.model.pretrained import (
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from zhbert.packing import PackedBatch

KINDS = [
    (BertForSequenceClassification, "BertForSequenceClassification", ["差", "中", "好"]),
    (BertForSequenceClassification, "BertForSequenceClassification", ["score"]),
    (BertForTokenClassification, "BertForTokenClassification", ["O", "B-LOC", "I-LOC"]),
    (BertForQuestionAnswering, "BertForQuestionAnswering", ["a", "b"]),
]
kinds = pytest.mark.parametrize(("mine", "other", "labels"), KINDS)


def logits_of(output: Any) -> list[torch.Tensor]:
    names = ("logits", "start_logits", "end_logits")
    return [x for name in names if (x := getattr(output, name, None)) is not None]


def assert_same(theirs: Any, ours: torch.nn.Module, batch: dict[str, torch.Tensor]) -> None:
    there = batch["attention_mask"].bool()
    with torch.no_grad():
        expected, got = logits_of(theirs(**batch)), logits_of(ours(**batch))
    assert len(expected) == len(got)
    for a, b in zip(expected, got, strict=True):
        if a.shape[:2] == there.shape:
            a, b = a[there], b[there]
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)


@kinds
def test_outputs_equal_those_of_transformers_both_ways(
    tmp_path: Path, shape: dict, batch: dict, mine: type, other: str, labels: list[str]
) -> None:
    names = dict(enumerate(labels))
    config = transformers.BertConfig(
        **shape, id2label=names, label2id={v: k for k, v in names.items()}
    )
    theirs = enlarge(getattr(transformers, other)(config)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = mine.from_pretrained(tmp_path / "theirs")
    assert ours.config.labels == labels
    assert_same(theirs, ours, batch)
    ours.save_pretrained(tmp_path / "ours")
    again = getattr(transformers, other).from_pretrained(tmp_path / "ours")
    assert again.config.id2label == names
    assert_same(again, ours, batch)


@kinds
def test_packed_rows_give_what_padded_rows_give(
    config: BertConfig, batch: dict, mine: type, other: str, labels: list[str]
) -> None:
    model = enlarge(mine(config.with_labels(labels))).eval()
    there = batch["attention_mask"].bool()
    lengths = there.sum(1)
    packed = PackedBatch(
        input_ids=batch["input_ids"][there],
        token_type_ids=batch["token_type_ids"][there],
        position_ids=torch.arange(there.shape[1]).expand(there.shape)[there],
        cu_seqlens=torch.cat((torch.zeros(1, dtype=torch.long), lengths.cumsum(0))).int(),
        max_length=int(lengths.max()),
    )
    with torch.no_grad():
        padded = logits_of(model(**batch))
        if hasattr(model, "row_logits"):
            assert torch.allclose(model.row_logits(packed), padded[0], atol=1e-5)
        else:
            expected = torch.stack(padded, -1) if len(padded) == 2 else padded[0]
            assert torch.allclose(model.piece_logits(packed), expected[there], atol=1e-5)


@kinds
def test_a_new_head_is_said_and_the_rest_is_the_models(
    tmp_path: Path, config: BertConfig, mine: type, other: str, labels: list[str]
) -> None:
    base = BertForPreTraining(config)
    base.save_pretrained(tmp_path)
    with pytest.warns(UntrainedWeightsWarning, match="random weights take their place"):
        model = mine.from_pretrained(tmp_path, labels=labels, seed=1)
    assert torch.equal(
        model.encoder.layers[0].attention.qkv.weight, base.encoder.layers[0].attention.qkv.weight
    )
    assert {name.split(".")[0] for name in model.loading.missing} <= {"classifier", "qa_outputs"}


def test_losses_equal_those_of_transformers(shape: dict, tmp_path: Path, batch: dict) -> None:
    for count, labels in ((3, torch.tensor([0, 2, 1, 1, 0])), (1, torch.randn(5))):
        theirs = transformers.BertForSequenceClassification(
            transformers.BertConfig(**shape, num_labels=count)
        ).eval()
        theirs.save_pretrained(tmp_path / str(count))
        ours = BertForSequenceClassification.from_pretrained(tmp_path / str(count))
        expected = theirs(**batch, labels=labels).loss
        torch.testing.assert_close(ours(**batch, labels=labels).loss, expected)


def test_dropout_before_the_head_follows_the_seed(config: BertConfig, batch: dict) -> None:
    model = enlarge(BertForSequenceClassification(config.with_labels(["a", "b"])))
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    model.config.other["classifier_dropout"] = 0.5
    model.train()

    def logits(seed: int) -> torch.Tensor:
        model.set_dropout_seed(seed)
        return model(**batch).logits

    assert torch.equal(logits(1), logits(1))
    assert not torch.equal(logits(1), logits(2))
