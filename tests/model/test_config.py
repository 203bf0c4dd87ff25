"""Shapes: reading, refusing, counting."""

import json
from pathlib import Path

import pytest
import torch

from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig, count_parameters_by_part
from zhbert.model.pretrained import BertForPreTraining

# Every shape of the published models: layers, hidden size, heads, vocabulary.
PUBLISHED = [
    (2, 128, 2, 21128),
    (4, 256, 4, 21128),
    (2, 768, 4, 21128),
    (3, 768, 12, 21128),
    (6, 768, 12, 21128),
    (12, 768, 12, 21128),
    (12, 768, 12, 30522),
    (12, 768, 12, 119547),
    (3, 1024, 16, 21128),
    (24, 1024, 16, 21128),
    (24, 1024, 16, 28996),
    (36, 1024, 16, 21128),
]


@pytest.mark.parametrize(("layers", "hidden", "heads", "vocabulary"), PUBLISHED)
def test_every_published_shape_is_built_with_the_parameters_counted(
    layers: int, hidden: int, heads: int, vocabulary: int
) -> None:
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        vocab_size=vocabulary,
    )
    with torch.device("meta"):
        model = BertForPreTraining(config)
    built = sum(p.numel() for p in model.parameters())
    assert sum(count_parameters_by_part(config).values()) == built


@pytest.mark.parametrize(
    ("shape", "millions"),
    [((2, 128, 2), 3.2), ((4, 256, 4), 8.8), ((12, 768, 12), 102.3), ((36, 1024, 16), 476.7)],
)
def test_counts_are_those_that_the_references_print(
    shape: tuple[int, int, int], millions: float
) -> None:
    config = BertConfig(
        num_hidden_layers=shape[0], hidden_size=shape[1], num_attention_heads=shape[2]
    )
    counted = sum(
        count_parameters_by_part(config, masked_words=False, sentence_pair=False).values()
    )
    assert counted / 1e6 == pytest.approx(millions, abs=0.1)


def test_counts_equal_those_of_transformers(config: BertConfig) -> None:
    import transformers

    theirs = transformers.BertForPreTraining(transformers.BertConfig(**_shape(config)))
    assert sum(count_parameters_by_part(config).values()) == theirs.num_parameters()


def _shape(config: BertConfig) -> dict[str, object]:
    return {k: v for k, v in config.to_dict().items() if k != "model_type"}


def test_unknown_keys_survive(tmp_path: Path) -> None:
    config = BertConfig.from_dict({**BertConfig().to_dict(), "id2label": {"0": "是"}})
    config.save_pretrained(tmp_path)
    assert BertConfig.from_pretrained(tmp_path) == config
    assert config.other == {"model_type": "bert", "id2label": {"0": "是"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "albert"}, "of the type 'albert'"),
        ({"model_type": "electra"}, "of the type 'electra'"),
        ({"model_type": "roberta"}, "config.json says model_type bert"),
        ({"model_type": None, "architectures": ["AlbertModel"]}, "of the type 'albert'"),
        ({"hidden_size": None}, "no hidden_size"),
        ({"hidden_size": 770}, "not a multiple of num_attention_heads"),
        ({"num_hidden_layers": "12"}, "num_hidden_layers = '12'"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob = 1.0"),
        ({"hidden_act": "swish"}, "known: gelu, gelu_new, relu"),
        ({"embedding_size": 128}, "embedding_size differs"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
    ],
)
def test_what_is_not_a_bert_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    values = {**BertConfig().to_dict(), **changes}
    values = {k: v for k, v in values.items() if v is not None}
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ZhbertError, match=message) as caught:
        BertConfig.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ZhbertError, match=r"config\.json"):
        BertConfig.from_pretrained(tmp_path)
