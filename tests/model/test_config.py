"""Shapes: reading, refusing, counting."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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
        ({"num_hidden_layers": "twelve"}, 'num_hidden_layers = "twelve": must be a whole number'),
        ({"num_hidden_layers": True}, "num_hidden_layers = true: must be a whole number"),
        ({"num_hidden_layers": [12]}, "num_hidden_layers = \\[12\\]: must be a whole number"),
        ({"hidden_size": 768.5}, "hidden_size = 768.5: must be a whole number"),
        ({"hidden_size": math.nan}, "hidden_size = NaN: must be a whole number"),
        ({"layer_norm_eps": math.inf}, "layer_norm_eps = Infinity: must be a number"),
        ({"layer_norm_eps": "1e-12x"}, "layer_norm_eps = .*must be a number"),
        ({"num_hidden_layers": 10_000_000}, "num_hidden_layers = .*must be from 1 to 1,000"),
        ({"hidden_size": 10**9}, "hidden_size = .*must be from 1 to"),
        ({"vocab_size": 10**12}, "vocab_size = .*must be from 1 to"),
        ({"vocab_size": 10**400}, "vocab_size = .*must be a whole number"),
        ({"type_vocab_size": 0}, "type_vocab_size = 0: must be from 1"),
        ({"pad_token_id": 21128}, "pad_token_id = 21128: must be below vocab_size = 21128"),
        ({"pad_token_id": -1}, "pad_token_id = -1: must be 0 or more"),
        ({"hidden_act": ["gelu"]}, "hidden_act = .*is not known"),
        ({"architectures": 5}, "architectures = 5: must be a list of texts"),
        ({"model_type": ["bert"]}, "of the type"),
        ({"model_type": {}}, "of the type"),
        ({"problem_type": "multi"}, "problem_type = .*must be one of regression, single_label"),
        ({"classifier_dropout": "much"}, "classifier_dropout = .*must be a number"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"is_decoder": True}, "is_decoder = true: must be False"),
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


@pytest.mark.parametrize("text", ['{"num_labels": "many"}', '{"num_labels": 1e12}'])
def test_a_number_of_labels_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(ZhbertError, match="num_labels = "):
        _ = BertConfig(other=json.loads(text)).labels


@pytest.mark.parametrize("id2label", [5, ["a", "b"], {"a": "b"}, {"1": "b"}, {"": 1}])
def test_labels_that_are_no_table_are_one_line(id2label: object) -> None:
    with pytest.raises(ZhbertError, match="id2label must map 0, 1, 2"):
        _ = BertConfig(other={"id2label": id2label}).labels


SPELLINGS = [str, float, lambda n: f"{n}.0", lambda n: n]


@given(st.lists(st.sampled_from(SPELLINGS), min_size=4, max_size=4))
def test_numbers_are_read_as_other_programs_write_them(spellings: list) -> None:
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    plain = BertConfig()
    written = {
        name: spell(getattr(plain, name)) for name, spell in zip(names, spellings, strict=True)
    }
    written |= {"layer_norm_eps": "1e-12", "hidden_dropout_prob": "0.1", "pad_token_id": None}
    read = BertConfig.from_dict(written)
    assert read == plain
    assert all(type(getattr(read, name)) is int for name in names)


def test_a_byte_order_mark_nulls_and_harmless_keys_are_no_matter(tmp_path: Path) -> None:
    values = BertConfig().to_dict() | {
        "is_decoder": None, "position_embedding_type": None, "embedding_size": "768",
        "use_cache": True, "problem_type": None, "architectures": None, "note": math.nan,
    }  # fmt: skip
    text = json.dumps(values)
    (tmp_path / "config.json").write_text(text, encoding="utf-8-sig")
    assert BertConfig.from_pretrained(tmp_path).hidden_size == 768


@given(
    st.sampled_from(sorted(BertConfig().to_dict())),
    st.from_type(type(None))
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=2), st.none()),
)
def test_any_value_is_read_or_refused_in_one_line(name: str, value: object) -> None:
    said = ""
    try:
        BertConfig.from_dict({**BertConfig().to_dict(), name: value}, "x/config.json")
    except ZhbertError as error:
        said = str(error)
    assert "\n" not in said
    assert not said or (said.startswith("x/config.json: ") and (name in said or "type" in said))
