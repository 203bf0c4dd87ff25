"""Texts with several labels: read in every form, learnt and predicted as transformers does."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.inference.run_model import run_model
from zhbert.model.pretrained import BertForSequenceClassification
from zhbert.tasks.cards import parse_card
from zhbert.tasks.examples import TextExample
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.learners.texts import MultiLabelLearner
from zhbert.tasks.metrics import AVERAGES, class_report, of_all, resampled_averaged_f1
from zhbert.tasks.read import read_examples
from zhbert.tasks.rows import gather
from zhbert.text.tokenizer import Tokenizer

OURS = Tokenizer.default()
LABELS = ("服务", "房间", "价格")


def card(tmp_path, form="jsonl", **data):
    table = {"format": form, "dev": "dev", "text": "text", "labels": list(LABELS), **data}
    top = {"title": "t", "kind": "multi_label", "metrics": ["f1_micro"], "data": table}
    return parse_card(top, tmp_path / "mine.toml")


def labels_of(card, path, **more):
    return [one.labels for one in read_examples(card, path, "dev", **more)]


# -- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["价格", "服务"], ("服务", "价格")),
        ("价格, 服务", ("服务", "价格")),
        ("房间,房间,", ("房间",)),
        ([], ()),
        ("", ()),
        (["价钱"], ("价格",)),
    ],
)
def test_labels_are_a_list_or_a_text_with_delimiters(tmp_path, value, expected):
    (tmp_path / "dev").write_text(json.dumps({"text": "好", "label": value}), encoding="utf-8")
    mine = card(tmp_path, label="label", rename_labels={"价钱": "价格"})
    assert labels_of(mine, tmp_path / "dev") == [expected]


def test_each_label_may_be_a_column(tmp_path):
    text = "text\t服务\t客房\t价格\n好\t1\t0\ttrue\n差\t0\t0.0\tFalse\n"
    (tmp_path / "dev").write_text(text, encoding="utf-8")
    mine = card(tmp_path, "tsv", rename_labels={"客房": "房间"})
    assert labels_of(mine, tmp_path / "dev") == [("服务", "价格"), ()]
    (tmp_path / "dev").write_text(text.replace("\t0.0\t", "\t2\t"), encoding="utf-8")
    with pytest.raises(ZhbertError, match='dev:3: "客房" is "2": must be 0 or 1'):
        labels_of(mine, tmp_path / "dev")
    (tmp_path / "dev").write_text("text\t服务\n好\t1\n", encoding="utf-8")
    with pytest.raises(ZhbertError, match='dev:2: no column "房间" or "客房"; there: text, 服务'):
        labels_of(mine, tmp_path / "dev")
    assert labels_of(mine, tmp_path / "dev", labelled=False) == [None]


def test_parquet_holds_lists_and_columns(tmp_path):
    table = {"text": ["好"], "label": [["房间"]], "服务": [1], "房间": [0], "价格": [True]}
    pq.write_table(pa.table(table), tmp_path / "dev")
    assert labels_of(card(tmp_path, "parquet", label="label"), tmp_path / "dev") == [("房间",)]
    assert labels_of(card(tmp_path, "parquet"), tmp_path / "dev") == [("服务", "价格")]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["房价"], 'dev:1: the label "房价" is not in the card; the card\'s labels: 服务, 房间'),
        ("服务;房间", 'the label "服务;房间" is not in the card'),
        (None, '"label" is null: must be a list of labels, or a text with "," between them; []'),
        ({"服务": 1}, '"label" is {"服务": 1}: must be a list of labels'),
        ([["服务"]], "must be a list of labels"),
    ],
)
def test_what_is_no_label_is_one_line(tmp_path, value, message):
    (tmp_path / "dev").write_text(json.dumps({"text": "好", "label": value}), encoding="utf-8")
    mine = card(tmp_path, label="label")
    with pytest.raises(ZhbertError) as caught:
        labels_of(mine, tmp_path / "dev")
    assert message in str(caught.value)
    # A text to predict for needs no labels.
    assert labels_of(mine, tmp_path / "dev", labelled=False) == [None]


# -- learning and predicting ---------------------------------------------------------------------


def small_model(tmp_path, count=3):
    names = dict(enumerate(LABELS[:count]))
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        initializer_range=0.3, vocab_size=21128, id2label=names,
        label2id={label: number for number, label in names.items()},
        problem_type="multi_label_classification",
    )  # fmt: skip
    theirs = transformers.BertForSequenceClassification(config).eval()
    theirs.save_pretrained(tmp_path / "model")
    OURS.save_pretrained(tmp_path / "model")
    return theirs, BertForSequenceClassification.from_pretrained(tmp_path / "model")


def test_the_loss_is_transformers(tmp_path):
    theirs, ours = small_model(tmp_path)
    examples = [
        TextExample("0", "房间很大", labels=("服务", "房间")),
        TextExample("1", "太贵", "真的", labels=("价格",)),
        TextExample("2", "去年住过", labels=()),
    ]
    rows = MultiLabelLearner(OURS, LABELS, 32).prepare(examples, training=True).rows
    assert rows.targets.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    texts, pairs = [one.text for one in examples], [one.text_pair for one in examples]
    total = 0.0
    for text, pair, marks in zip(texts, pairs, rows.targets, strict=True):
        batch = dict(tokenizer(text, pair, return_tensors="pt"))
        marks = torch.tensor(marks)[None]
        with torch.no_grad():
            expected = theirs(**batch, labels=marks).loss
            torch.testing.assert_close(ours(**batch, labels=marks).loss, expected)
        total += float(expected)
    batch = gather(rows, np.arange(3))
    with torch.no_grad():
        loss = MultiLabelLearner(OURS, LABELS, 32).loss(ours, batch)
    assert float(loss) == pytest.approx(total, rel=1e-5)


def test_each_label_is_predicted_from_its_threshold_on():
    kind = MultiLabelLearner(OURS, LABELS, 16)
    prepared = kind.prepare([TextExample("0", "好"), TextExample("1", "差")])
    scores = np.array([[3.0, 0.0, -3.0], [-9.0, -9.0, -9.0]], np.float32)
    some, none = kind.decode(prepared, scores)
    assert (some.value, none.value) == (("服务", "房间"), ())
    assert some.details["probabilities"] == pytest.approx(
        {"服务": 0.952574, "房间": 0.5, "价格": 0.047426}, abs=1e-6
    )
    strict = MultiLabelLearner(OURS, LABELS, 16, threshold=0.9)
    assert strict.decode(prepared, scores)[0].value == ("服务",)
    gold = [TextExample("0", "", labels=("服务",)), TextExample("1", "", labels=())]
    each = KINDS["multi_label"].each
    assert each(None, gold, [some.value, ()]) == {"score": [pytest.approx(2 / 3), 1.0]}
    assert each(None, gold, [(), ("价格",)]) == {"score": [0.0, 0.0]}


def test_probabilities_are_those_of_transformers_pipeline(tmp_path):
    _, ours = small_model(tmp_path)
    kind = MultiLabelLearner(OURS, LABELS, 32)
    prepared = kind.prepare([TextExample("0", "房间很大")])
    (found,) = kind.decode(prepared, run_model(ours, prepared.rows, kind.scores))
    pipeline = transformers.pipeline("text-classification", str(tmp_path / "model"), top_k=None)
    expected = {one["label"]: one["score"] for one in pipeline(["房间很大"])[0]}
    assert found.details["probabilities"] == pytest.approx(expected, abs=1e-5)


# -- scores --------------------------------------------------------------------------------------


def sides(labels, single):
    each = st.sampled_from(labels) if single else st.sets(st.sampled_from(labels))
    pairs = st.lists(st.tuples(each, each), min_size=1, max_size=30)
    return pairs.map(lambda rows: [[row[side] for row in rows] for side in (0, 1)])


def marks(side, labels):
    return np.array([[label in row for label in labels] for row in side])


def assert_report_is(mine, theirs):
    rows = {**mine["classes"], **{f"{name} avg": x for name, x in mine["averages"].items()}}
    # scikit-learn calls micro accuracy where every example has one label.
    accuracy = theirs.pop("accuracy", None)
    if accuracy is not None:
        assert rows.pop("micro avg")["f1"] == pytest.approx(100 * accuracy)
    theirs.pop("samples avg", None)
    assert set(rows) == set(theirs)
    for name, row in theirs.items():
        for key, value in row.items():
            factor = 1 if key == "support" else 100
            assert rows[name][key.replace("f1-score", "f1")] == pytest.approx(factor * value), name


@pytest.mark.filterwarnings("ignore:A single label was found")
@given(sides("abcd", single=True))
def test_the_report_of_labels_is_scikit_learns(pair):
    from sklearn.metrics import classification_report, confusion_matrix

    gold, found = pair
    report = class_report(gold, found, "abcd")
    assert_report_is(report, classification_report(*pair, output_dict=True, zero_division=0))
    for average in AVERAGES:
        expected = report["averages"][average]["f1"]
        metric = resampled_averaged_f1(gold, found, "abcd", average=average)
        assert of_all(metric, len(gold)) == pytest.approx(expected)
    classes = list(report["classes"])
    theirs = confusion_matrix(*pair, labels=classes).tolist()
    rows = [report["confusion"][label] for label in classes]
    assert [[row.get(label, 0) for label in classes] for row in rows] == theirs


@given(sides("abcd", single=False))
def test_the_report_of_several_labels_is_scikit_learns(pair):
    from sklearn.metrics import accuracy_score, classification_report

    rows = [[tuple(sorted(row)) for row in side] for side in pair]
    expected = classification_report(
        *(marks(side, "abcd") for side in pair), target_names=list("abcd"), output_dict=True,
        zero_division=0,
    )  # fmt: skip
    assert_report_is(class_report(*rows, "abcd"), expected)
    exact = accuracy_score(*(marks(side, "abcd") for side in pair))
    whole = KINDS["multi_label"].metrics["exact_match"](*rows, "abcd")(np.ones((1, len(rows[0]))))
    assert whole[0] == pytest.approx(100 * exact)


@pytest.mark.parametrize("kind", ["classify", "multi_label"])
@pytest.mark.parametrize("average", AVERAGES)
def test_an_averaged_f1_of_a_resample_is_that_of_its_examples(kind, average):
    gold, found = "aabbca", "abbcca"
    if kind == "multi_label":
        gold = [("a",), ("a", "b"), (), ("c",), ("b",), ("a", "c")]
        found = [("a",), ("b",), ("c",), ("c",), (), ("a",)]
    metric = KINDS[kind].metrics[f"f1_{average}"]
    weights = np.random.default_rng(0).multinomial(6, [1 / 6] * 6, size=100).astype(float)
    scores = metric(gold, found, "abc")(weights)
    for row, score in zip(weights.astype(int), scores, strict=True):
        which = [index for index, times in enumerate(row) for _ in range(times)]
        alone = metric([gold[n] for n in which], [found[n] for n in which], "abc")
        assert score == pytest.approx(alone(np.ones((1, len(which))))[0])
