"""Predictor: for values of Python what the verbs give for files, to the last bit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.small_models import make_model
from tests.small_tasks import texts

from zhbert import Predictor
from zhbert.errors import ZhbertError
from zhbert.files import to_json
from zhbert.finetuning.predict import predict
from zhbert.inference.fill import fill, open_mask_filler
from zhbert.retrieval.embed import embed
from zhbert.tasks.kinds import KINDS

SOME = texts(50, 7)
PAIRS = [(text[:14], text[13::-1]) for text in SOME]  # as long as a row at most
INPUTS = {
    "classify": SOME,
    "multi_label": SOME,
    "regress": PAIRS,
    "tag": SOME,
    "span": [("好在？", text) for text in SOME],
    "embed": PAIRS,
}
COLUMNS = {"span": ("question", "context")}


def run_of(tuned, kind):
    return tuned / kind / "run"


def as_dict(kind, value):
    values = (value,) if isinstance(value, str) else value
    return dict(zip(COLUMNS.get(kind, ("text", "text_pair")), values, strict=False))


@pytest.fixture(scope="module")
def written(tuned, tmp_path_factory):
    """What `zhbert predict` writes for the same inputs, by kind."""
    folder, found = tmp_path_factory.mktemp("written"), {}
    for kind, inputs in INPUTS.items():
        file = folder / f"{kind}.jsonl"
        file.write_text("".join(to_json(as_dict(kind, one)) + "\n" for one in inputs), "utf-8")
        predict(run_of(tuned, kind), file, folder / f"{kind}.out.jsonl")
        lines = (folder / f"{kind}.out.jsonl").read_text("utf-8").splitlines()
        found[kind] = [json.loads(line) for line in lines]
    return found


def plain(results):
    return json.loads(to_json(results))


@pytest.mark.parametrize("kind", INPUTS)
def test_the_same_as_predict_to_the_last_bit(tuned, written, kind):
    predictor = Predictor.from_pretrained(run_of(tuned, kind))
    assert predictor.task == kind
    assert plain(predictor(INPUTS[kind])) == written[kind]
    assert (
        plain(list(predictor.stream(as_dict(kind, one) for one in INPUTS[kind]))) == written[kind]
    )


def test_one_input_gives_one_result(tuned):
    predictor = Predictor.from_pretrained(run_of(tuned, "classify"))
    assert predictor(SOME[0]) == predictor([SOME[0]])[0]
    assert predictor({"text": SOME[0]}) == predictor(SOME[0])
    assert predictor([]) == []
    pairs = Predictor.from_pretrained(run_of(tuned, "regress"))
    assert pairs(PAIRS[0]) == pairs([PAIRS[0]])[0]


@pytest.mark.parametrize("inputs", ["好" * 40, ["好", "好" * 40]])
def test_one_warning_a_call_says_that_texts_are_cut(tuned, inputs):
    predictor = Predictor.from_pretrained(run_of(tuned, "classify"))
    with pytest.warns(UserWarning, match="^1 of . texts .* longer than") as found:
        predictor(inputs)
    assert [one.filename for one in found] == [__file__]


def test_tokens_are_tagged_as_their_text(tuned):
    predictor = Predictor.from_pretrained(run_of(tuned, "tag"))
    expected = predictor("我在中京")
    assert predictor([list("我在中京")]) == [expected]
    assert predictor(tuple("我在中京")) == expected


def test_a_stream_reads_no_more_than_a_batch_ahead(tuned):
    read = []
    for kind in ("classify", "embed"):
        predictor = Predictor.from_pretrained(run_of(tuned, kind))
        results = predictor.stream((read.append(text) or text for text in SOME), batch_size=8)
        next(results)
        assert len(read) <= 9  # an embedder looks at the first input
        read.clear()


@pytest.fixture(scope="module")
def filler(tmp_path_factory):
    """A model whose head that fills masks does not look fresh."""
    return make_model(tmp_path_factory.mktemp("filler"))


def test_masks_are_filled_as_fill_does(filler):
    masked = [f"{text[:2]}[MASK]{text[2:]}" for text in SOME[:40]]
    predictor = Predictor.from_pretrained(filler, top_k=2)
    assert predictor.task == "fill"
    model, tokenizer = open_mask_filler(filler)
    expected = fill(model, tokenizer, masked[:32], top_k=2)
    assert predictor(masked)[:32] == expected
    assert [len(one.masks[0].candidates) for one in predictor(masked)] == [2] * 40


def test_texts_give_the_vectors_that_embed_writes(tuned, tmp_path):
    final = run_of(tuned, "embed") / "seed-0" / "final"
    (tmp_path / "in.txt").write_text("\n".join(SOME), "utf-8")
    embed(final, tmp_path / "in.txt", tmp_path / "out.npy")
    predictor = Predictor.from_pretrained(final)
    found = predictor(SOME)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.load(tmp_path / "out.npy"))
    assert predictor(SOME[0]).shape == found.shape[1:]


def test_a_model_that_transformers_has_fine_tuned(tmp_path):
    import transformers

    labels = {0: "neg", 1: "pos"}
    folder = make_model(tmp_path, kind=transformers.BertForSequenceClassification, id2label=labels)
    predictor = Predictor.from_pretrained(folder)
    one, two = predictor(["的一是", ("的一", "是在")])
    assert set(one["probabilities"]) == {"neg", "pos"}
    assert two["text_pair"] == "是在"


@pytest.mark.parametrize(
    ("kind", "value", "line"),
    [
        ("classify", None, "inputs[1] is null: must be a text, two texts, or a dict"),
        ("classify", ("的", "一"), "inputs[1]: the model reads one text, not two"),
        ("classify", {"txt": "的"}, 'inputs[1]: no column "text"; there: txt'),
        ("regress", "的", "inputs[1]: the model reads two texts: give both, as (text, text_pair)"),
        ("regress", ("的", None), 'inputs[1]: "text_pair" is null: must be a text'),
        ("regress", ("的", "一", "是"), "must be a text, two texts"),
        ("tag", [], "inputs[1]: an empty sentence"),
        ("tag", ["的", 1], "inputs[1]: tokens must be a list of texts"),
        ("tag", None, "inputs[1] is null: must be a text, or a list of tokens"),
        ("span", "的？", "must be a question with its context"),
        ("span", {"question": "的？"}, "inputs[1]: no 'context'; there: question"),
        ("span", ("的？", 1), "inputs[1]: context = 1: must be a text"),
        ("embed", None, "inputs[1] is null"),
        ("embed", "的", "inputs[1]: the model reads two texts"),
        ("fill", None, "inputs[1] is null: must be a text"),
        ("fill", "的", "inputs[1]: no [MASK] in the text '的'"),
    ],
)
def test_what_it_cannot_predict_for_is_named_with_its_place(tuned, filler, kind, value, line):
    fine = {"fill": "[MASK]的", **{kind: inputs[0] for kind, inputs in INPUTS.items()}}[kind]
    model = filler if kind == "fill" else run_of(tuned, kind)
    with pytest.raises(ZhbertError) as caught:
        Predictor.from_pretrained(model)([fine, value])
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_that_predicts_nothing_is_refused(tuned, filler):
    with pytest.raises(ZhbertError, match=r"not fine-tuned for a task .*, and without a trained "):
        Predictor.from_pretrained(tuned / "model")
    for options in (
        {"precision": "fp16"}, {"top_k": 0}, {"precision": "bf16"}, {"device": "cuda:99"},
    ):  # fmt: skip
        with pytest.raises(ZhbertError, match=next(iter(options))):
            Predictor.from_pretrained(filler, **options)


def test_the_page_names_what_every_kind_of_task_returns(tuned, filler):
    page = (Path(__file__).parents[2] / "docs" / "predicting.md").read_text("utf-8")
    rows = [line.split("|")[1:4] for line in page.splitlines() if line.startswith("| `")][1:]
    assert {task.strip(" `") for task, *_ in rows} == {*KINDS, "fill"}
    for task, _, result in rows:
        if "a dict" in result:
            kind = task.strip(" `")
            found = Predictor.from_pretrained(run_of(tuned, kind))(INPUTS[kind][0])
            named = {name for name in re.findall(r"`(\w+)`", result) if name in found}
            assert named == set(found)


def test_the_blocks_of_the_page_run(capsys):
    page = (Path(__file__).parents[2] / "docs" / "predicting.md").read_text("utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "predicting.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 4
