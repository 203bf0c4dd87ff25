"""transformers' API of its BERT classes: the same calls give the same numbers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from tests.model.conftest import SHAPE, enlarge
from tests.model.test_variants import RotaryAttention
from torch.utils import _pytree

import zhbert
from zhbert import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    ZhbertError,
)
from zhbert.model.layers import Layers
from zhbert.model.loading import UntrainedWeightsWarning
from zhbert.model.names import to_hugging_face
from zhbert.model.outputs import ModelOutput

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
Batch = dict[str, torch.Tensor]


class Pair(NamedTuple):
    theirs: Any
    ours: Any
    labels: Batch


@pytest.fixture(scope="module")
def mask() -> torch.Tensor:
    mask = torch.ones(4, 13, dtype=torch.long)
    mask[1, 9:] = 0
    mask[3, 2:] = 0
    return mask


@pytest.fixture(scope="module")
def inputs(mask: torch.Tensor) -> Batch:
    generator = torch.Generator().manual_seed(5)
    return {
        "input_ids": torch.randint(0, 97, mask.shape, generator=generator),
        "attention_mask": mask,
        "token_type_ids": torch.randint(0, 2, mask.shape, generator=generator),
        "position_ids": torch.arange(13)[None] + 3,
    }


def labels_of(kind: str, mask: torch.Tensor) -> Batch:
    pieces = torch.where((mask == 1) & (torch.arange(13) % 3 == 1), 2, -100)
    return {
        "BertModel": {},
        "BertForMaskedLM": {"labels": pieces},
        "BertForPreTraining": {
            "labels": pieces,
            "next_sentence_label": torch.tensor([0, 1, 1, 0]),
        },
        "BertForSequenceClassification": {"labels": torch.tensor([2, 0, 1, 1])},
        "BertForTokenClassification": {"labels": pieces},
        "BertForQuestionAnswering": {
            "start_positions": torch.tensor([0, 3, 1, 50]),
            "end_positions": torch.tensor([2, 3, 1, 50]),
        },
    }[kind]


KINDS = [
    "BertModel",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
]


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, mask: Any, tmp_path_factory: Any) -> Pair:
    """A class of transformers and ours with the same large weights, in training without dropout."""
    kind, folder = request.param, tmp_path_factory.mktemp("model")
    labels = {} if "Question" in kind else {"num_labels": 3}
    config = transformers.BertConfig(**SHAPE, **NO_DROPOUT, **labels, attn_implementation="eager")
    torch.manual_seed(0)
    theirs: Any = enlarge(getattr(transformers, kind)(config))
    theirs.save_pretrained(folder)
    ours = getattr(zhbert, kind).from_pretrained(folder)
    return Pair(theirs.train(), ours.train(), labels_of(kind, mask))


def assert_close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def assert_same_where_pieces_are(theirs: Any, ours: Any, mask: torch.Tensor) -> None:
    """Both are (batch, length, ...) or (batch, ...)."""
    assert theirs.shape == ours.shape
    there = mask.bool() if theirs.shape[1:2] == mask.shape[1:] else torch.ones(4).bool()
    assert_close(ours[there], theirs[there])


def test_outputs_hidden_states_and_attentions_equal(pair: Pair, inputs: Batch) -> None:
    mask, more = inputs["attention_mask"], {"output_hidden_states": True, "output_attentions": True}
    theirs, ours = (model(**inputs, **pair.labels, **more) for model in pair[:2])
    # transformers' BertModel adds an empty tuple of cross attentions, which only decoders have.
    assert list(ours) == [name for name in theirs if name != "cross_attentions"]
    for name in ours:
        if name == "hidden_states":
            assert len(ours[name]) == len(theirs[name]) == 4
            for one, other in zip(theirs[name], ours[name], strict=True):
                assert_same_where_pieces_are(one, other, mask)
                assert not other[mask == 0].any()
        elif name == "attentions":
            assert len(ours[name]) == len(theirs[name]) == 3
            for one, other in zip(theirs[name], ours[name], strict=True):
                assert_close(other, one * mask[:, None, :, None])
        elif name != "loss":
            assert_same_where_pieces_are(theirs[name], ours[name], mask)


def test_losses_and_gradients_equal(pair: Pair, inputs: Batch) -> None:
    batch = dict(inputs)
    if "start_positions" in pair.labels:
        # The loss of transformers takes padding for places where an answer may begin.
        del batch["attention_mask"]
    found = []
    for model in pair[:2]:
        model.zero_grad()
        output = model(**batch, **pair.labels)
        loss = output[0] if pair.labels else output.pooler_output.square().sum()
        loss.backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append((loss, to_hugging_face(grads) if model is pair.ours else grads))
    (their_loss, theirs), (our_loss, ours) = found
    assert_close(our_loss, their_loss)
    prefix = "" if pair.labels else "bert."
    assert {prefix + name for name in theirs} == ours.keys()
    for name, grad in theirs.items():
        torch.testing.assert_close(ours[prefix + name], grad, rtol=1e-4, atol=1e-5)


def test_attentions_have_gradients(pair: Pair, inputs: Batch) -> None:
    grads = []
    for model in pair[:2]:
        model.zero_grad()
        attentions = model(**inputs, output_attentions=True).attentions
        (attentions[-1].square() * inputs["attention_mask"][:, None, :, None]).sum().backward()
        grads.append(model.get_input_embeddings().weight.grad.clone())
    # The padding piece's own row is frozen in transformers.
    torch.testing.assert_close(grads[0][1:], grads[1][1:], rtol=1e-4, atol=1e-5)


def test_embeddings_in_place_of_ids_give_the_same(pair: Pair, inputs: Batch) -> None:
    embeds = pair.ours.get_input_embeddings()(inputs["input_ids"])
    given = {n: t for n, t in inputs.items() if n != "input_ids"}
    expected = pair.ours(**inputs, **pair.labels)
    for name, value in pair.ours(**given, inputs_embeds=embeds, **pair.labels).items():
        assert torch.equal(value, expected[name]), name


def test_a_tuple_by_argument_or_configuration(pair: Pair, inputs: Batch) -> None:
    expected = pair.ours(**inputs, **pair.labels).to_tuple()
    theirs = pair.theirs(**inputs, **pair.labels, return_dict=False)
    found = pair.ours(**inputs, **pair.labels, return_dict=False)
    assert type(found) is tuple
    assert len(found) == len(theirs)
    assert all(map(torch.equal, found, expected))
    pair.ours.config.return_dict = False
    try:
        assert type(pair.ours(**inputs)) is tuple
        assert type(pair.ours(**inputs, return_dict=True)) is ModelOutput
    finally:
        pair.ours.config.return_dict = True


@pytest.mark.parametrize("pair", [KINDS[1], KINDS[3], KINDS[4]], indirect=True)
def test_the_loss_is_divided_by_the_items_of_the_whole_batch(pair: Pair, inputs: Batch) -> None:
    """So that accumulated gradients are those of one large batch."""
    whole = pair.ours(**inputs, **pair.labels).loss
    items = (pair.labels["labels"] != -100).sum()
    parts = torch.zeros(())
    for rows in (slice(0, 1), slice(1, 4)):
        batch = {n: t[rows] if len(t) > 1 else t for n, t in {**inputs, **pair.labels}.items()}
        parts = parts + pair.ours(**batch, num_items_in_batch=items).loss
    assert_close(parts, whole)


def test_no_answer_begins_or_ends_at_padding(
    tmp_path: Path, inputs: Batch, mask: torch.Tensor
) -> None:
    theirs: Any = enlarge(transformers.BertForQuestionAnswering(transformers.BertConfig(**SHAPE)))
    theirs.eval().save_pretrained(tmp_path)
    ours = zhbert.BertForQuestionAnswering.from_pretrained(tmp_path)
    places = {"start_positions": torch.tensor([0, 3, 1, 1]), "end_positions": torch.arange(4) // 2}
    output = ours(**inputs, **places)
    lowest = torch.finfo(torch.float32).min
    expected = []
    for name, place in zip(("start_logits", "end_logits"), places.values(), strict=True):
        assert (output[name][mask == 0] == lowest).all()
        logits = theirs(**inputs)[name].masked_fill(mask == 0, lowest)
        expected.append(torch.nn.functional.cross_entropy(logits, place))
    assert_close(output.loss, sum(expected) / 2)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (torch.tensor([0, 2, 1, 1]), "single_label_classification"),
        (torch.rand(4, 3).round(), "multi_label_classification"),
        (torch.randn(4, 3), "regression"),
    ],
)
@pytest.mark.parametrize("said", [True, False])
def test_the_problem_type_is_found_as_in_transformers(
    labels: torch.Tensor, problem: str, said: bool, inputs: Batch, tmp_path: Path
) -> None:
    if not said and problem == "regression":
        problem = "multi_label_classification"
    config = transformers.BertConfig(**SHAPE, num_labels=3, problem_type=problem if said else None)
    theirs = enlarge(transformers.BertForSequenceClassification(config)).eval()
    theirs.save_pretrained(tmp_path)
    ours = BertForSequenceClassification.from_pretrained(tmp_path)
    assert_close(ours(**inputs, labels=labels).loss, theirs(**inputs, labels=labels).loss)
    assert ours.config.problem_type == theirs.config.problem_type == problem


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_close_as_that_of_transformers(
    folder: Path, inputs: Batch, dtype: torch.dtype
) -> None:
    there = inputs["attention_mask"].bool()

    def logits(kind: Any, **options: Any) -> torch.Tensor:
        model = kind.from_pretrained(folder, **options).eval()
        with torch.no_grad():
            found = model(**inputs).logits[there]
        assert found.dtype == options.get("dtype", torch.float32)
        return found.float()

    exact = logits(BertForMaskedLM)
    error = (logits(BertForMaskedLM, dtype=dtype) - exact).abs().mean()
    theirs = (logits(transformers.BertForMaskedLM, dtype=dtype) - exact).abs().mean()
    assert error < 1.5 * theirs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(0)
    enlarge(transformers.BertForPreTraining(transformers.BertConfig(**SHAPE))).save_pretrained(
        folder
    )
    return folder


# --- from_pretrained


def test_a_folder_keeps_its_dtype_if_it_is_saved_again(folder: Path, tmp_path: Path) -> None:
    half = BertModel.from_pretrained(folder, dtype="bfloat16")
    half.save_pretrained(tmp_path)
    assert transformers.BertModel.from_pretrained(tmp_path).dtype == torch.bfloat16
    assert BertModel.from_pretrained(tmp_path).dtype == torch.float32
    assert BertModel.from_pretrained(tmp_path, dtype="auto").dtype == torch.bfloat16
    assert BertModel.from_pretrained(tmp_path, torch_dtype=torch.float16).dtype == torch.float16


@pytest.mark.parametrize(
    "place", ["cpu", "auto", torch.device("cpu"), {"": "cpu"}, {"bert": "cpu", "cls": "cpu"}]
)
def test_the_whole_model_goes_to_one_device(folder: Path, place: Any) -> None:
    model = BertModel.from_pretrained(folder, device_map=place)
    expected = "cuda" if place == "auto" and torch.cuda.is_available() else "cpu"
    assert model.device.type == expected
    assert model.hf_device_map == {"": torch.device(expected)}


@pytest.mark.filterwarnings("ignore::zhbert.model.loading.UntrainedWeightsWarning")
def test_labels_are_given_as_to_transformers(folder: Path) -> None:
    names = {0: "差", 1: "中", 2: "好"}
    inverse = {label: number for number, label in names.items()}
    for given in ({"id2label": names}, {"label2id": inverse}, {"num_labels": 3, "id2label": names}):
        model = BertForSequenceClassification.from_pretrained(folder, **given)
        assert model.config.id2label == names
        assert model.config.label2id == inverse
        assert model.classifier.out_features == model.num_labels == 3
    model = BertForSequenceClassification.from_pretrained(folder, num_labels=4)
    assert model.config.labels == ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]


def test_new_names_keep_a_head_and_another_number_makes_a_new_one(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.warns(UntrainedWeightsWarning, match="classifier"):
        model = BertForSequenceClassification.from_pretrained(folder, num_labels=3)
    model.save_pretrained(tmp_path)
    names = {0: "差", 1: "中", 2: "好"}
    again = BertForSequenceClassification.from_pretrained(tmp_path, id2label=names)
    assert torch.equal(again.classifier.weight, model.classifier.weight)
    assert again.config.labels == ["差", "中", "好"]
    with pytest.warns(UntrainedWeightsWarning, match=r"classifier\.weight"):
        other = BertForSequenceClassification.from_pretrained(
            tmp_path, num_labels=2, ignore_mismatched_sizes=True
        )
    assert other.classifier.out_features == 2


def test_attributes_of_the_configuration_are_arguments(folder: Path, inputs: Batch) -> None:
    model = BertModel.from_pretrained(
        folder, output_attentions=True, hidden_dropout_prob=0.3, add_pooling_layer=False
    )
    assert model.pooler is None
    assert model.config.hidden_dropout_prob == 0.3
    assert list(model(**inputs)) == ["last_hidden_state", "attentions"]
    config = BertConfig.from_pretrained(folder, output_hidden_states=True)
    for given in (config, transformers.BertConfig(**config.to_dict())):
        output = BertModel.from_pretrained(folder, config=given)(**inputs)
        assert list(output) == ["last_hidden_state", "pooler_output", "hidden_states"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"output_loading_info": True}, r"output_loading_info: read model\.loading"),
        ({"device_map": {"bert": 0, "cls": 1}}, "names 2 devices: a BERT fits on one"),
        ({"device_map": "cuda/1"}, "device = .cuda/1.: Invalid device string"),
        ({"device_map": "cuda:99"}, "device = .cuda:99.: .*; give 'cpu'"),
        ({"subfolder": "onnx"}, "subfolder: give the folder itself"),
        ({"dtype": "int8"}, "must be float32, bfloat16"),
        ({"attn_implementation": "flash_attention_2"}, "leave it out"),
        ({"num_label": 3}, 'num_label"; did you mean num_labels?'),
        ({"id2label": {0: "a"}, "num_labels": 2}, "num_labels = 2, but id2label names 1"),
        ({"id2label": {0: "a"}, "label2id": {"b": 0}}, "not the inverse"),
        ({"problem_type": "ranking"}, "problem_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"load_in_8bit": True}, "precision int8"),
        ({"config": 3}, "must be a BertConfig"),
    ],
)
def test_a_wrong_argument_is_one_line(folder: Path, arguments: Any, said: str) -> None:
    with pytest.raises(ZhbertError, match=said) as error:
        BertModel.from_pretrained(folder, **arguments)
    assert "\n" not in str(error.value)


def test_what_changes_nothing_is_accepted(folder: Path) -> None:
    BertModel.from_pretrained(
        folder, low_cpu_mem_usage=True, use_safetensors=True, trust_remote_code=False,
        attn_implementation="eager", revision="main", local_files_only=True, proxies=None,
        subfolder="",
    )  # fmt: skip


# --- forward and its output

IDS = torch.tensor([[1, 1, 1], [1, 1, 2]])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "either input_ids or inputs_embeds"),
        ({"input_ids": torch.ones(1, 2), "inputs_embeds": torch.ones(1, 2, 32)}, "either"),
        ({"input_ids": torch.ones(2, 3), "attention_mask": torch.ones(2, 1, 3, 3)}, "shape"),
        ({"input_ids": torch.ones(2, 3), "encoder_hidden_states": torch.ones(1)}, "encoders"),
        ({"input_ids": torch.ones(2, 3), "use_cache": True}, "encoders"),
        ({"input_ids": torch.ones(2, 3), "output_attention": True}, "unknown .*output_attention"),
        ({"input_ids": IDS[0]}, r"input_ids of shape \(3,\): \(batch, length\) is needed"),
        ({"input_ids": IDS[:, :0]}, r"input_ids of shape \(2, 0\)"),
        ({"inputs_embeds": torch.ones(2, 3)}, r"inputs_embeds of shape \(2, 3\)"),
        ({"input_ids": IDS + 95}, "input_ids: 97 in row 1: must be 0 to 96; .* 97 pieces"),
        ({"input_ids": IDS - 2}, "input_ids: -1 in row 0"),
        ({"input_ids": IDS, "token_type_ids": IDS}, "token_type_ids: 2 in row 1"),
        ({"input_ids": IDS, "position_ids": IDS + 600}, "position_ids: 601 in row 0"),
    ],
)
def test_a_wrong_input_is_one_line(given: Any, said: str) -> None:
    with pytest.raises(ZhbertError, match=said):
        BertModel(BertConfig(**SHAPE))(**given)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_pieces_has_outputs_without_numbers(kind: str, training: bool) -> None:
    model = getattr(zhbert, kind)(BertConfig(**SHAPE)).train(training)
    everything = {"output_hidden_states": True, "output_attentions": True}
    for mask in (torch.zeros_like(IDS), torch.ones_like(IDS)[:0]):
        output = model(IDS[: len(mask)], mask, **everything)
        assert output[0].shape[0] == len(mask)
        assert output[0].isfinite().all()
        assert not any(x.any() for x in (*output.hidden_states, *output.attentions))


def test_padding_has_no_loss_whatever_its_labels(inputs: Batch, mask: torch.Tensor) -> None:
    model = BertForMaskedLM(BertConfig(**SHAPE)).eval()
    labels = inputs["input_ids"]
    masked = labels.masked_fill(mask == 0, -100)
    assert torch.equal(model(**inputs, labels=labels).loss, model(**inputs, labels=masked).loss)


def test_another_attention_has_no_weights_to_return() -> None:
    model = BertModel(BertConfig(**SHAPE), layers=Layers(attention=RotaryAttention))
    with pytest.raises(ZhbertError, match="output_attentions"):
        model(torch.ones(1, 4, dtype=torch.long), output_attentions=True)


def test_an_output_is_a_dictionary_a_tuple_and_an_object() -> None:
    loss, logits = torch.tensor(1.0), torch.ones(2, 3)
    output = ModelOutput(loss=loss, logits=logits, hidden_states=None)
    assert output.loss is output[0] is output["loss"] is output.get("loss")
    assert output[1:] == (logits,)
    assert output[-1] is logits
    assert list(output) == list(output.keys()) == ["loss", "logits"]
    assert "hidden_states" not in output
    assert output.hidden_states is None
    with pytest.raises(AttributeError):
        _ = output.logit
    output.attentions = (logits,)
    assert output["attentions"] == (logits,)
    again = pickle.loads(pickle.dumps(output))
    assert type(again) is ModelOutput
    assert list(again) == list(output)


def test_libraries_make_an_output_of_other_tensors() -> None:
    from accelerate.utils import convert_outputs_to_fp32, send_to_device

    output = ModelOutput(loss=torch.ones((), dtype=torch.bfloat16), hidden_states=(torch.ones(2),))
    wide = convert_outputs_to_fp32(lambda: output)()
    assert type(wide) is type(send_to_device(output, "cpu")) is ModelOutput
    assert wide.loss.dtype == torch.float32
    leaves, form = _pytree.tree_flatten(output)
    assert len(leaves) == 2
    doubled = _pytree.tree_unflatten([2 * leaf for leaf in leaves], form)
    assert type(doubled) is ModelOutput
    assert doubled.loss == 2
    # What torch.nn.DataParallel does with the outputs of several devices.
    gathered = type(output)((name, output[name]) for name in output)
    assert list(gathered) == list(output)


# --- methods


def test_a_resized_vocabulary_equals_that_of_transformers(folder: Path) -> None:
    for size, multiple in ((101, None), (90, None), (None, 64)):
        theirs = transformers.BertForMaskedLM.from_pretrained(folder)
        ours = BertForMaskedLM.from_pretrained(folder)
        for model in (theirs, ours):
            model.resize_token_embeddings(size, pad_to_multiple_of=multiple)
        ids = torch.arange(80)[None, :30]
        expected, found = theirs(ids).logits, ours(ids).logits
        assert found.shape == expected.shape
        # transformers adds a little noise to the mean.
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
        assert ours.config.vocab_size == found.shape[-1]


def test_a_state_dict_of_transformers_is_loaded(folder: Path, inputs: Batch) -> None:
    theirs = transformers.BertForPreTraining.from_pretrained(folder)
    ours = zhbert.BertForPreTraining(BertConfig(**SHAPE)).eval()
    result = ours.load_state_dict(theirs.state_dict())
    assert not result.missing_keys
    there = inputs["attention_mask"].bool()
    expected = theirs(**inputs).prediction_logits[there]
    torch.testing.assert_close(ours(**inputs).prediction_logits[there], expected, atol=1e-4, rtol=0)
    again = zhbert.BertForPreTraining(BertConfig(**SHAPE), seed=3)
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again.pooler.dense.weight, ours.pooler.dense.weight)
    with pytest.raises(RuntimeError, match="Missing key"):
        ours.load_state_dict(theirs.bert.state_dict())


def test_gradient_checkpointing_changes_no_gradient(folder: Path, inputs: Batch) -> None:
    model = BertForMaskedLM.from_pretrained(folder).train()
    model.set_dropout_seed(3)
    kept = model(**inputs, labels=inputs["input_ids"])
    kept.loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert model.is_gradient_checkpointing
    calls = []
    model.encoder.layers[0].feed_forward.register_forward_hook(lambda *_: calls.append(1))
    model.set_dropout_seed(3)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert len(calls) == 2
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


def test_the_parts_have_the_names_of_transformers(folder: Path, inputs: Batch) -> None:
    theirs = transformers.BertForPreTraining.from_pretrained(folder)
    ours = zhbert.BertForPreTraining.from_pretrained(folder)
    assert ours.get_output_embeddings().weight is ours.get_input_embeddings().weight
    for name in ("device", "dtype", "base_model_prefix", "main_input_name"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.num_parameters() == theirs.num_parameters()
    trunk = ours.bert(**inputs)
    expected = theirs.base_model(**inputs)
    torch.testing.assert_close(trunk.pooler_output, expected.pooler_output, atol=1e-4, rtol=0)
    for parameter in ours.base_model.parameters():
        parameter.requires_grad = False
    trainable = {name for name, p in ours.named_parameters() if p.requires_grad}
    assert all(name.startswith(("mlm_head.", "nsp_head.")) for name in trainable)
    assert ours.num_parameters(only_trainable=True) < 5000
    assert not ours.can_generate()
    assert ours.name_or_path == str(folder)


def test_accelerates_way_of_saving_works(folder: Path, tmp_path: Path, inputs: Batch) -> None:
    model = BertForMaskedLM.from_pretrained(folder)
    state = {name: 2 * tensor for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "no", is_main_process=False)
    assert not (tmp_path / "no").exists()
    model.save_pretrained(
        tmp_path / "two", is_main_process=True, save_function=print, state_dict=state
    )
    again = BertForMaskedLM.from_pretrained(tmp_path / "two")
    assert torch.equal(again.mlm_head.bias, 2 * model.mlm_head.bias)
    for refused in ({"safe_serialization": False}, {"push_to_hub": True}, {"max_shard_size": "1"}):
        with pytest.raises(ZhbertError):
            model.save_pretrained(tmp_path / "three", **refused)
    assert not (tmp_path / "three").exists()


# --- the configuration


def test_a_configuration_is_made_read_and_changed_as_in_transformers(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "id2label": {0: "否", 1: "是"},
        "problem_type": "multi_label_classification",
        "classifier_dropout": 0.2,
        "return_dict": False,
    }
    theirs, ours = transformers.BertConfig(**SHAPE, **given), BertConfig(**SHAPE, **given)
    names = [*given, "num_labels", "model_type", "hidden_size", "output_attentions", "is_decoder"]
    for name in names:
        assert getattr(ours, name) == getattr(theirs, name), name
    ours.save_pretrained(tmp_path)
    again = transformers.BertConfig.from_pretrained(tmp_path)
    assert (again.id2label, again.label2id) == (given["id2label"], {"否": 0, "是": 1})
    assert again.classifier_dropout == 0.2
    for config in (theirs, ours):
        config.num_labels = 3
        config.note = "kept"
    assert ours.id2label == theirs.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert ours.note == "kept" == ours.to_dict()["note"]
    assert not hasattr(ours, "no_such_name")
    assert BertConfig.from_pretrained(tmp_path, num_labels=5).num_labels == 5
    with pytest.raises(ZhbertError, match="did you mean hidden_size"):
        BertConfig(hiden_size=3)  # type: ignore[call-arg]
