"""The masked accuracy of any model is what a run said of it."""

from __future__ import annotations

import json

import pytest
from tests.small_corpora import TINY, make_corpus

from zhbert import cli
from zhbert.config import EvaluationSettings
from zhbert.errors import ZhbertError
from zhbert.pretraining.masked_accuracy import masked_accuracy
from zhbert.pretraining.run import pretrain
from zhbert.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def result(tmp_path_factory, corpus):
    """A run of rows of full sentences, as long as its model's positions."""
    overrides = [*TINY, "steps=40", "sequence_length=64", "evaluation.rows=1000"]
    return pretrain("tiny", corpus, tmp_path_factory.mktemp("runs") / "run", overrides)


def test_it_is_what_the_run_measured(result, corpus):
    for line, expected in zip(
        masked_accuracy(result.final, corpus), result.evaluations, strict=True
    ):
        assert line["masked_lm_loss"] == pytest.approx(expected["masked_lm_loss"], rel=1e-5)
        for key in ("evaluation", "masked_lm_accuracy", "masked_lm_predictions"):
            assert line[key] == expected[key]
        assert line["baseline_accuracy"] == expected["baseline_accuracy"]


def test_the_verb_prints_it(result, corpus, capsys):
    words = ["evaluate", str(result.final), "--corpus", str(corpus)]
    assert cli.main([*words, "--json"]) == 0
    char, wwm = json.loads(capsys.readouterr().out)
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert f"masked accuracy {char['masked_lm_accuracy']:.2%}" in said.splitlines()[0]
    assert f"masked accuracy {wwm['masked_lm_accuracy']:.2%}" in said.splitlines()[1]


def test_fewer_rows_and_one_strategy(result, corpus):
    (line,) = masked_accuracy(result.final, corpus, EvaluationSettings(rows=2, strategies=("wwm",)))
    assert line["evaluation"] == "wwm"
    assert 0 < line["masked_lm_predictions"] <= 2 * 10


def test_a_model_of_another_vocabulary_is_refused(result, tmp_path, corpus):
    other = make_corpus(tmp_path / "other")
    tokenizer = Tokenizer([*Tokenizer.from_pretrained(corpus).vocabulary[:-1], "龘"])
    tokenizer.save_pretrained(other)
    info = json.loads((other / "corpus.json").read_text(encoding="utf-8"))
    info["tokenizer"]["fingerprint"] = tokenizer.fingerprint()
    (other / "corpus.json").write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(ZhbertError, match="made with another vocabulary"):
        masked_accuracy(result.final, other)


def test_a_corpus_that_holds_nothing_out_is_refused(result, tmp_path):
    with pytest.raises(ZhbertError, match="no held-out documents to measure on"):
        masked_accuracy(result.final, make_corpus(tmp_path / "corpus", held_out=0))


def test_a_model_without_a_head_is_remarked(result, corpus, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "headless"
    folder.mkdir()
    for path in result.final.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if name.startswith("bert.")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    remarks: list[str] = []
    masked_accuracy(folder, corpus, remark=remarks.append)
    (remark,) = remarks
    assert "never trained: cls.predictions" in remark


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], "give TASK and --data FILE"),
        (["lcqmc"], "give TASK and --data FILE"),
        (["lcqmc", "--corpus", "corpus"], "--corpus: TASK does not go with it"),
        (["--data", "dev.tsv", "--corpus", "corpus"], "--corpus: --data does not go with it"),
        (["--corpus", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(more, expected, capsys):
    assert cli.main(["evaluate", "model", *more]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1
