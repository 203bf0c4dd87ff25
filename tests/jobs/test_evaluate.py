"""zhbert evaluate: the metrics that finetune printed, and what does not fit."""

from __future__ import annotations

import json
import math
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.small_tasks import PIECES

from zhbert.errors import ZhbertError
from zhbert.finetuning.evaluate import evaluate
from zhbert.finetuning.fine_tuned import open_fine_tuned
from zhbert.tasks.examples import SpanExample, TagExample, TextExample
from zhbert.text.tokenizer import Tokenizer

KINDS = ("classify", "multi_label", "regress", "tag", "span")


def parts(tuned, kind):
    folder = tuned / kind
    return folder / "run", folder / f"my_{kind}.toml", next(folder.glob("dev.*"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_scores_what_the_run_said(tuned, kind):
    run, card, dev = parts(tuned, kind)
    expected = json.loads((run / "seed-0" / "result.json").read_text(encoding="utf-8"))["metrics"]
    found = evaluate(run / "seed-0" / "final", card, dev)
    assert found["metrics"] == pytest.approx(expected, abs=0.01)
    assert found["examples"] == 24


def test_a_graph_scores_what_its_model_does(tuned, tmp_path):
    from zhbert.export.onnx import export_onnx

    run, card, dev = parts(tuned, "classify")
    final = run / "seed-0" / "final"
    export_onnx(final, tmp_path / "graph")
    assert (
        evaluate(tmp_path / "graph", card, dev)["metrics"] == evaluate(final, card, dev)["metrics"]
    )


def test_json_has_the_metrics_by_name(tuned, capsys, monkeypatch):
    from zhbert import cli

    monkeypatch.setitem(cli.VERBS, "evaluate", ("zhbert.jobs.evaluate", ""))
    run, card, dev = map(str, parts(tuned, "classify"))
    assert cli._run("evaluate", [run, card, "--data", dev, "--json", "--quiet"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert set(metrics) == {"accuracy", "f1"}
    assert cli._run("evaluate", [run, card, "--data", dev]) == 0
    assert f"accuracy  {metrics['accuracy']:.2f}" in capsys.readouterr().out


def test_each_label_and_each_type_of_entity_is_scored(tuned):
    from sklearn.metrics import classification_report

    run, card, dev = parts(tuned, "classify")
    found = evaluate(run, card, dev)
    lines = (run / "seed-0" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    sides = ([json.loads(line)[key] for line in lines] for key in ("gold", "predicted"))
    expected = classification_report(*sides, output_dict=True, zero_division=0)
    for label, row in found["classes"].items():
        assert row["support"] == expected[label]["support"]
        for name, theirs in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score")):
            assert row[name] == pytest.approx(100 * expected[label][theirs])
    macro = expected["macro avg"]["f1-score"]
    assert found["averages"]["macro"]["f1"] == pytest.approx(100 * macro)
    assert sum(sum(row.values()) for row in found["confusion"].values()) == 24
    result = json.loads((run / "seed-0" / "result.json").read_text(encoding="utf-8"))
    assert result["classes"] == found["classes"]

    found = evaluate(*parts(tuned, "tag"))
    assert list(found["classes"]) == ["LOC"]
    assert found["classes"]["LOC"]["support"] == 24
    assert found["averages"]["micro"]["f1"] == pytest.approx(found["metrics"]["f1"])
    assert "classes" not in evaluate(*parts(tuned, "regress"))


def test_the_threshold_is_that_of_the_card(tuned, tmp_path):
    run, card, dev = parts(tuned, "multi_label")
    strict = tmp_path / "my_multi_label.toml"
    strict.write_text(f"{card.read_text(encoding='utf-8')}\nthreshold = 0.999999\n", "utf-8")
    assert evaluate(run, card, dev)["averages"]["micro"]["recall"] > 0
    assert evaluate(run, strict, dev)["averages"]["micro"]["recall"] == 0


def test_the_table_shows_labels_as_they_stand(tuned, tmp_path, capsys, monkeypatch):
    from zhbert import cli

    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setitem(cli.VERBS, "evaluate", ("zhbert.jobs.evaluate", ""))
    run, card, dev = parts(tuned, "classify")
    named = tmp_path / "my_classify.toml"
    names = 'label_names = ["[b]坏[/b]", ":smile:"]'
    named.write_text(f"{card.read_text()}\n{names}\n", encoding="utf-8")
    assert cli._run("evaluate", [str(run), str(named), "--data", str(dev)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["label", "precision", "recall", "f1", "support"]
    assert lines[1].startswith("neg [b]坏[/b] ")
    assert lines[2].startswith("pos :smile: ")
    assert [line.split()[0] for line in lines[3:6]] == ["micro", "macro", "weighted"]
    assert any(line.startswith("is \\ predicted") for line in lines)


def test_a_score_on_another_task_is_remarked_upon(tuned, tmp_path):
    run, card, dev = parts(tuned, "classify")
    remarks = []
    evaluate(run, card, dev, remark=remarks.append)
    assert not remarks
    other = tmp_path / "other.toml"
    shutil.copyfile(card, other)
    evaluate(run, other, dev, remark=remarks.append)
    assert remarks[0].endswith("fine-tuned for my_classify, scored on other")


def test_a_run_stands_for_the_seed_that_is_best_on_dev(tuned, tmp_path):
    run, card, dev = parts(tuned, "classify")
    several = tmp_path / "several"
    shutil.copytree(run, several)
    (several / "seed-0").rename(several / "seed-7")
    summary = json.loads((several / "summary.json").read_text("utf-8"))
    summary["seeds"] = [3, 7]
    summary["metrics"][summary["main_metric"]]["values"] = [50.0, 60.0]
    (several / "summary.json").write_text(json.dumps(summary), "utf-8")
    remarks = []
    assert evaluate(several, card, dev, remark=remarks.append) == evaluate(run, card, dev)
    assert remarks == [f"{several}: 2 seeds; taken is 7, the best on dev"]


VALUES = (None, True, -1, 10**30, 1.5, math.nan, "x", "", [], ["a"], {}, {"a": 1})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_value_of_a_models_task_is_believed_or_refused_in_one_line(tuned, data):
    """What config.json keeps of the task, at every depth, and the keys that transformers reads."""
    kind = data.draw(st.sampled_from(KINDS))
    config = tuned / kind / "run" / "seed-0" / "final" / "config.json"
    text = config.read_text(encoding="utf-8")
    table = values = json.loads(text)
    key = data.draw(st.sampled_from(["zhbert", "id2label", "num_labels", "problem_type"]))
    while isinstance(table.get(key), dict) and table[key] and data.draw(st.booleans()):
        table = table[key]
        key = data.draw(st.sampled_from(sorted(table)))
    table[key] = data.draw(st.sampled_from(VALUES))
    said, one = "", {"tag": TagExample("0", ("好",)), "span": SpanExample("0", "好？", "好坏。")}
    try:
        config.write_text(json.dumps(values), encoding="utf-8")
        open_fine_tuned(config.parent).predict([one.get(kind, TextExample("0", "好", "坏"))])
    except ZhbertError as error:
        said = str(error)
    finally:
        config.write_text(text, encoding="utf-8")
    assert "\n" not in said


def test_what_does_not_fit_is_refused(tuned, tmp_path):
    run, card, dev = parts(tuned, "classify")
    _, other, other_dev = parts(tuned, "tag")

    def refusal(*arguments):
        with pytest.raises(ZhbertError) as caught:
            evaluate(*arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "a model of the kind classify" in refusal(run, other, other_dev)
    assert "a folder; name the file" in refusal(run, card, dev.parent)
    renamed = tmp_path / "renamed.toml"
    renamed.write_text(card.read_text().replace('"neg", "pos"', '"neg", "good"'))
    rows = dev.read_text(encoding="utf-8").replace("\tpos", "\tgood")
    (tmp_path / "dev.tsv").write_text(rows, encoding="utf-8")
    line = refusal(run, renamed, tmp_path / "dev.tsv")
    assert "but not renamed's good: fine-tuned for another task" in line
    (tmp_path / "dev.tsv").write_text("text\tlabel\n好\tbad\n", encoding="utf-8")
    assert "dev.tsv:2" in refusal(run, card, tmp_path / "dev.tsv")
    assert "not fine-tuned" in refusal(tuned / "model", card, dev)
    (tmp_path / "other").mkdir()
    other = shutil.copytree(run / "seed-0" / "final", tmp_path / "other" / "final")
    Tokenizer([*PIECES, "多"]).save_pretrained(other)
    assert "this is another model's vocabulary" in refusal(other, card, dev)
