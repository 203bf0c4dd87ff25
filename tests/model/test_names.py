"""The table of names: reversible, complete, and the same tensors on both sides."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig
from zhbert.model.entry import entries_of
from zhbert.model.names import (
    foreign_architecture,
    from_hugging_face,
    modern_names,
    to_hugging_face,
)
from zhbert.model.pretrained import BertForPreTraining


def test_names_go_there_and_back(config: BertConfig) -> None:
    ours = dict(BertForPreTraining(config).named_parameters())
    back, missing = from_hugging_face(entries_of(to_hugging_face(ours)), ours)
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
    assert modern_names([old]) == {old: new}
    assert modern_names([new]) == {new: new}


HEADS = ("cls.predictions.bias", "cls.seq_relationship.weight", "classifier.bias")
PREFIXES = [
    "module.", "_orig_mod.", "module._orig_mod.", "model.", "auto_model.", "bert_model.",
    "bert.bert.", "encoder.", "0.auto_model.", "_forward_module.", "student.", "roberta.",
    "model.bert.", "encoder.bert.", "base_model.model.bert.", "网络.",
]  # fmt: skip


def names_of_transformers(shape: dict) -> list[str]:
    import transformers

    with torch.device("meta"):
        model = transformers.BertModel(transformers.BertConfig(**shape))
    return [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("place", ["beside", "above", "elsewhere"])
def test_what_all_names_of_the_encoder_begin_with_is_left_off(
    shape: dict, prefix: str, place: str
) -> None:
    above = {"beside": prefix.removesuffix("bert."), "above": "", "elsewhere": "task.0."}[place]
    wanted = {f"{prefix}{name}": f"bert.{name}" for name in names_of_transformers(shape)}
    wanted |= {f"{above}{head}": head for head in HEADS}
    assert modern_names(wanted) == wanted


parts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="./"), min_size=1)
ordinary = ("embeddings", "encoder", "pooler")


@given(st.lists(parts.filter(lambda part: part not in ordinary), max_size=4))
def test_any_prefix_is_left_off(above: list[str]) -> None:
    prefix = "".join(f"{part}." for part in above)
    trunk = ("embeddings.word_embeddings.weight", "encoder.layer.10.output.dense.bias")
    wanted = {f"{prefix}{name}": f"bert.{name}" for name in trunk}
    if not foreign_architecture(wanted):
        assert modern_names(wanted) == wanted


def test_wrappers_of_inner_modules_are_left_off() -> None:
    inner = "bert.encoder.layer.0._fsdp_wrapped_module._orig_mod.output.dense.bias"
    assert modern_names([inner]) == {inner: "bert.encoder.layer.0.output.dense.bias"}


def test_what_is_none_of_berts_keeps_its_name() -> None:
    names = ["m.bert.embeddings.word_embeddings.weight", "m.lstm.bias", "m.bert.adapter.weight"]
    assert list(modern_names(names).values())[1:] == names[1:]


def test_two_models_are_named_by_their_prefixes() -> None:
    names = [f"{who}.bert.embeddings.word_embeddings.weight" for who in ("student", "teacher")]
    with pytest.raises(ZhbertError, match=r"'student\.bert\.' and with 'teacher\.bert\.'"):
        modern_names(names)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("encoder.sentence_encoder.layers.0.fc1.weight", "fairseq"),
        ("language_model.encoder.layers.0.attention.query_key_value.weight", "Megatron-LM"),
        ("bert.encoder.layers.0.self_attn.q_proj.weight", "PaddleNLP"),
        ("base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight", "merge"),
        ("ernie.embeddings.word_embeddings.weight", "ErnieModel"),
        ("transformer.layer.0.attention.q_lin.weight", "DistilBertModel"),
        ("transformer.h.0.ln_1.weight", "GPT2LMHeadModel"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "T5ForConditionalGeneration"),
        ("model.layers.0.self_attn.q_proj.weight", "AutoModelForCausalLM"),
    ],
)
def test_other_programs_files_are_named_with_the_way_out(name: str, said: str) -> None:
    assert said in str(foreign_architecture([name]))
    assert modern_names([name]) == {name: name}


def test_a_bert_is_not_taken_for_another_architecture(config: BertConfig) -> None:
    ours = dict(BertForPreTraining(config).named_parameters())
    assert foreign_architecture(to_hugging_face(ours)) is None
