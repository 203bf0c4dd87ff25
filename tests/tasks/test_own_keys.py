"""A kind of one's own whose card names its columns by keys of its own, which it must have.

Which of two texts is better? What is handed in are lines such as ``5 >``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from tests.small_tasks import QUICK, make_model, texts

from zhbert.errors import ZhbertError
from zhbert.finetuning.fine_tuned import open_fine_tuned
from zhbert.finetuning.predict import predict
from zhbert.finetuning.run import finetune
from zhbert.report.comparison import compare_runs
from zhbert.tasks.card import Column
from zhbert.tasks.cards import load_card
from zhbert.tasks.examples import Prediction, TextExample, Value
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.kinds.classify import Classify, ClassifyData
from zhbert.tasks.metrics import of_pairs, resampled_accuracy
from zhbert.tasks.prediction_rows import PredictionRow
from zhbert.tasks.read import read_examples
from zhbert.tasks.scoring import check_metrics, check_submission, score_files, write_submission
from zhbert.tasks.writers import PredictionWriter

SIGNS = {"first": ">", "second": "<"}


@dataclass(frozen=True, kw_only=True)
class PairwiseData(ClassifyData):
    first: Column
    """The column of the first text."""
    second: Column
    """The column of the second text."""

    def completed(self, folder: Path, where: str) -> Self:
        made = super().completed(folder, where)
        return dataclasses.replace(made, text=self.first, text_pair=self.second)


class Pairwise(Classify):
    name = "pairwise"
    data_class = PairwiseData

    def submissions(self, card: Any, labels: Sequence[str]) -> dict[str, PredictionWriter]:
        def line(example: Any, prediction: Any) -> str:
            return f"{example.id} {SIGNS[prediction.value]}\n"

        return {".rank": PredictionWriter(line)}

    def predicted(self, row: PredictionRow, data: Any, where: str) -> Value:
        signs = {sign: label for label, sign in SIGNS.items()}
        if row.text[-1] in signs:
            return signs[row.text[-1]]
        return super().predicted(row, data, where)


CARD = """
title = "Better: which of two texts is it?"
kind = "pairwise"
metrics = ["accuracy"]
[data]
format = "tsv"
train = "train.tsv"
dev = "dev.tsv"
first = "one"
second = ["other", "two"]
label = "better"
labels = ["first", "second"]
"""


def write_card(folder: Path) -> Path:
    for split, count in (("train", 16), ("dev", 9)):
        rows = [
            f"{text}\t{text[::-1]}\t{('first', 'second')[n % 2]}\n"
            for n, text in enumerate(texts(count, count))
        ]
        text = "one\ttwo\tbetter\n" + "".join(rows)
        (folder / f"{split}.tsv").write_text(text, encoding="utf-8")
    path = folder / "better.toml"
    path.write_text(CARD, encoding="utf-8")
    return path


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> Pairwise:
    made = Pairwise()
    monkeypatch.setitem(KINDS, "pairwise", made)
    return made


@pytest.fixture
def card(tmp_path: Path, kind: Pairwise) -> Path:
    return write_card(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run of the task, and what it said."""
    folder = tmp_path_factory.mktemp("pairwise")
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, "pairwise", Pairwise())
        model = make_model(folder / "model")
        task = write_card(folder)
        finetune(task, model, None, folder / "run", [*QUICK, "epochs=1"], say=said.append)
    return folder / "run", said


def refusal(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(ZhbertError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("kind")
def test_a_model_of_it_predicts_for_every_form_of_file(
    trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    final, dev = trained[0] / "seed-0" / "final", trained[0].with_name("dev.tsv")
    (tmp_path / "pairs.txt").write_text("好\t坏\n", encoding="utf-8")
    (tmp_path / "pairs.csv").write_text("text,text_pair\n好,坏\n", encoding="utf-8")
    for name in ("pairs.txt", "pairs.csv"):
        assert predict(final, tmp_path / name, tmp_path / f"{name}.jsonl") == 1
    assert predict(final, dev, tmp_path / "dev.rank", submission=True) == 9
    submitted = (trained[0] / "seed-0" / "submission.rank").read_text(encoding="utf-8")
    assert (tmp_path / "dev.rank").read_text(encoding="utf-8") == submitted
    assert refusal(predict, final, dev, tmp_path / "x.tsv", submission=True).endswith(
        "x.tsv: name a file that ends in .rank, as submissions of the kind pairwise do"
    )
    assert refusal(predict, final, dev, tmp_path / "x.rank").endswith(
        "x.rank: name a file that ends in .jsonl, .tsv or .csv; with --submission, in .rank"
    )


# -- its card --------------------------------------------------------------------------------------


def test_a_single_column_stands_for_a_list_in_a_key_of_its_own_too(card: Path) -> None:
    data = load_card(card).data
    assert (data.first, data.second) == (("one",), ("other", "two"))
    assert read_examples(load_card(card), None, "dev")[0].shown.keys() == {
        "id",
        "text",
        "text_pair",
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('first = "one"\n', "", "better.toml: data: 'first' is missing"),
        ("[data]\n", 'first = "one"\n[data]\n', "better.toml: 'first' belongs in [data]"),
        ('first = "one"', "first = 1.5",
         "better.toml: data.first = 1.5: must be a list of texts or numbers"),
    ],
)  # fmt: skip
def test_mistakes_in_its_card(card: Path, old: str, new: str, message: str) -> None:
    card.write_text(CARD.replace(old, new), encoding="utf-8")
    assert refusal(load_card, card) == message


def test_a_class_in_the_table_of_kinds_is_refused(
    card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "pairwise", Pairwise)  # type: ignore[arg-type]
    assert refusal(load_card, card) == (
        'KINDS["pairwise"] is the class Pairwise; put an instance there, Pairwise()'
    )


def test_without_its_script_it_is_unknown(trained: tuple[Path, list[str]]) -> None:
    run = trained[0]
    unknown = (
        'kind = "pairwise": not a choice; one of your own? run the script that adds it to KINDS in '
        "place of zhbert; known: classify, multi_label, regress, tag, span, embed"
    )
    assert refusal(load_card, run.with_name("better.toml")) == f"better.toml: {unknown}"
    assert refusal(open_fine_tuned, run / "seed-0" / "final") == f"better.toml: {unknown}"
    assert refusal(compare_runs, run, run) == f"--compare: {run} and {run}: {run}: {unknown}"


# -- its submission --------------------------------------------------------------------------------


@pytest.mark.usefixtures("kind")
def test_a_submission_without_ids_that_are_read_is_said(trained: tuple[Path, list[str]]) -> None:
    run, said = trained
    order = "submission.rank: no ids found in it: its rows are taken in the order of dev"
    assert [line for line in said if "submission" in line] == [order]
    remarks: list[str] = []
    files = run.with_name("dev.tsv"), run / "seed-0" / "submission.rank"
    found = score_files(run.with_name("better.toml"), *files, remark=remarks.append)
    assert remarks == [f"{order}.tsv"]
    result = json.loads((run / "seed-0" / "result.json").read_text(encoding="utf-8"))
    assert found["metrics"] == result["metrics"]


class Misread(Pairwise):
    """Reads the ids, and the signs the wrong way round."""

    def predicted(self, row: PredictionRow, data: Any, where: str) -> Value:
        return {"<": "first", ">": "second"}[row.text]

    def submissions(self, card: Any, labels: Sequence[str]) -> dict[str, PredictionWriter]:
        return {".rank": PredictionWriter(lambda one, found: f"{one.id}\t{SIGNS[found.value]}\n")}


class Unreadable(Misread):
    def predicted(self, row: PredictionRow, data: Any, where: str) -> Value:
        return {"=": "first"}[row.text]


class OtherIds(Misread):
    def submissions(self, card: Any, labels: Sequence[str]) -> dict[str, PredictionWriter]:
        return {".rank": PredictionWriter(lambda one, found: f"{one.id}0\t{SIGNS[found.value]}\n")}


@pytest.mark.parametrize(
    ("reader", "remark"),
    [
        (Misread(), """reads "second" for the example "0", not "first\""""),
        (Unreadable(), "cannot read it (KeyError: '>')"),
        (OtherIds(), 'reads the id "00", which no example has'),
    ],
)
def test_a_submission_that_is_read_otherwise_is_said(
    card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Pairwise, remark: str
) -> None:
    monkeypatch.setitem(KINDS, "pairwise", reader)
    task, remarks = load_card(card), list[str]()
    examples = [TextExample(str(n), "好", "坏", label="first") for n in range(3)]
    predictions = [Prediction(label) for label in ("first", "second", "first")]
    path = write_submission(task, examples, predictions, tmp_path / "sub")
    check_submission(task, examples, predictions, path, remarks.append)
    assert remarks == [f"{path}: 'zhbert score' {remark}"]


# -- its metrics -----------------------------------------------------------------------------------


def share(gold: Sequence[str], predicted: Sequence[str]) -> float:
    return float(np.mean([a == b for a, b in zip(gold, predicted, strict=True)]))


class Wrong(Pairwise):
    metrics = {  # noqa: RUF012 - as somebody may write it
        "accuracy": of_pairs(resampled_accuracy),
        "share": of_pairs(share),  # type: ignore[arg-type]
        "flat": lambda gold, predicted, labels: lambda weights: 50.0,  # type: ignore[dict-item, return-value]
    }


@pytest.mark.parametrize(
    ("metric", "what"),
    [("share", "returned 1.0"), ("flat", "of weights of shape (2, 9) is 50.0")],
)
def test_a_metric_that_is_no_function_of_weights_fails_before_the_training(
    card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, what: str
) -> None:
    monkeypatch.setitem(KINDS, "pairwise", Wrong())
    card.write_text(CARD.replace('"accuracy"', f'"accuracy", "{metric}"'), encoding="utf-8")
    assert refusal(finetune, card, tmp_path / "no-model", None, tmp_path / "run") == (
        f"the metric {metric} of the kind pairwise {what}; it must return a function from weights "
        "(resamples, examples) to scores (resamples,)"
    )


@pytest.mark.usefixtures("kind")
def test_metrics_of_the_kinds_that_there_are_pass(card: Path) -> None:
    task = dataclasses.replace(load_card(card), metrics=KINDS["pairwise"].metric_names)
    check_metrics(task, read_examples(task, None, "dev"))
