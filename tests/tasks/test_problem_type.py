"""What config.json says of a fine-tuned model is believed where it holds, else one line."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from zhbert.errors import ZhbertError
from zhbert.finetuning.fine_tuned import open_fine_tuned
from zhbert.finetuning.predict import predict
from zhbert.tasks.examples import TextExample
from zhbert.text.tokenizer import Tokenizer


@pytest.fixture
def model(tmp_path):
    """A folder that transformers wrote, of ``count`` labels, with keys of its config changed."""

    def model(count=3, **changed):
        names = {number: f"标{number}" for number in range(count)}
        tokenizer = Tokenizer.default()
        config = transformers.BertConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            vocab_size=21128, id2label=names,
            label2id={label: number for number, label in names.items()},
        )  # fmt: skip
        theirs = transformers.BertForSequenceClassification(config)
        with torch.no_grad():
            theirs.classifier.bias.copy_(torch.tensor([3.0, 3.0, -3.0])[:count])
        theirs.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        path = tmp_path / "model" / "config.json"
        values = json.loads(path.read_text(encoding="utf-8")) | changed
        values = {key: value for key, value in values.items() if value != "absent"}
        path.write_text(json.dumps(values), encoding="utf-8")
        return tmp_path / "model"

    return model


@pytest.mark.parametrize(
    ("stated", "count", "kind"),
    [
        ("multi_label_classification", 3, "multi_label"),
        ("multi_label_classification", 1, "multi_label"),
        ("single_label_classification", 3, "classify"),
        ("regression", 1, "regress"),
        (None, 1, "regress"),
        (None, 3, "classify"),
    ],
)
def test_the_problem_type_decides_how_scores_are_read(model, stated, count, kind):
    assert open_fine_tuned(model(count, problem_type=stated)).kind.name == kind


def test_several_labels_are_predicted_by_sigmoids(model, tmp_path):
    folder = model(3, problem_type="multi_label_classification")
    (found,) = open_fine_tuned(folder).predict([TextExample("0", "房间很大")])
    pipeline = transformers.pipeline("text-classification", str(folder), top_k=None)
    expected = {one["label"]: one["score"] for one in pipeline(["房间很大"])[0]}
    assert found.details["probabilities"] == pytest.approx(expected, abs=1e-5)
    assert found.value == ("标0", "标1")
    (tmp_path / "in.txt").write_text("房间很大\n", encoding="utf-8")
    predict(folder, tmp_path / "in.txt", tmp_path / "out.jsonl")
    line = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert line["prediction"] == ["标0", "标1"]
    assert "probability" not in line
    predict(folder, tmp_path / "in.txt", tmp_path / "out.tsv")
    head, row = (tmp_path / "out.tsv").read_text(encoding="utf-8").splitlines()
    assert head.split("\t") == ["id", "prediction", "p(标0)", "p(标1)", "p(标2)"]
    assert row.split("\t")[:2] == ["0", "标0,标1"]


@pytest.mark.parametrize(
    ("changed", "count", "message"),
    [
        (
            {"problem_type": "multi_label"},
            3,
            'problem_type = "multi_label": must be one of regr',
        ),
        ({"problem_type": ["regression"]}, 3, 'problem_type = ["regression"]: must be one of'),
        ({"problem_type": "regression"}, 3, "3 numbers a text; only one is supported"),
        ({"problem_type": "single_label_classification"}, 1, "there is one label only"),
        ({"id2label": {"0": "a", "2": "b", "3": "c"}}, 3, "must map 0, 1, 2, ... to labels"),
        ({"id2label": {"a": 0, "b": 1, "c": 2}}, 3, "must map 0, 1, 2, ... to labels"),
        ({"id2label": ["a", "b", "c"]}, 3, "must map 0, 1, 2, ... to labels"),
        ({"id2label": {"0": "a", "1": "b", "2": "a"}}, 3, 'id2label: "a" stands there twice'),
        ({"id2label": {"0": "a", "1": None, "2": "c"}}, 3, "id2label: null: must be a text"),
        ({"id2label": {"0": "a", "1": "b"}}, 3, "(3, 16), config.json says (2, 16); does id2label"),
        ({"id2label": "absent", "num_labels": "many"}, 3, 'num_labels = "many": must be'),
        ({"id2label": "absent", "num_labels": 0}, 3, "num_labels = 0: must be from 1 to"),
        ({"num_labels": 4}, 3, "num_labels = 4, but id2label names 3; remove the one that is wron"),
    ],
)
def test_what_config_contradicts_is_one_line(model, changed, count, message):
    with pytest.raises(ZhbertError) as caught:
        open_fine_tuned(model(count, **changed))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_without_names_are_counted_by_num_labels(model):
    opened = open_fine_tuned(model(3, id2label="absent", num_labels=3))
    assert opened.learner.labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_a_folder_that_names_no_architecture_is_one_line(model):
    with pytest.raises(ZhbertError, match=r"no architecture in config\.json: not fine-tuned for a"):
        open_fine_tuned(model(3, architectures="absent"))


def test_pairs_need_a_model_of_two_segments(model):
    from safetensors.torch import load_file, save_file

    folder = model(2, type_vocab_size=1)
    tensors = load_file(folder / "model.safetensors")
    name = "bert.embeddings.token_type_embeddings.weight"
    tensors[name] = tensors[name][:1].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    opened = open_fine_tuned(folder)
    assert len(opened.predict([TextExample("0", "好")])) == 1
    with pytest.raises(ZhbertError, match=r"one segment only \(type_vocab_size = 1"):
        opened.predict([TextExample("0", "好", "坏")])


def test_scores_that_are_no_numbers_are_refused(model, tmp_path):
    opened = open_fine_tuned(model(3))
    with torch.no_grad():
        opened.model.classifier.bias.fill_(torch.inf)
    with pytest.raises(ZhbertError, match=r"scores are not finite numbers \(NaN or infinity\)"):
        opened.predict([TextExample("0", "好")])
