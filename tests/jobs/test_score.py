"""``zhbert score``: every benchmark's files in, its scores out, and one line for what is wrong."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.slow_entities import f1

from zhbert import cli
from zhbert.tasks.cards import card_names, load_card
from zhbert.tasks.examples import EmbedExample, SpanExample, TagExample, TextExample
from zhbert.tasks.read import find_file, read_examples

Write = Callable[[str, Any], str]


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a text, or anything else as JSON; the file's path."""

    def write_file(name: str, content: Any) -> str:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write_file


@pytest.fixture
def score(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """What ``zhbert score ... --json`` prints."""

    def run(*arguments: str) -> Any:
        assert cli.main(["score", *arguments, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line that ``zhbert score ...`` refuses with."""

    def run(*arguments: str) -> str:
        assert cli.main(["score", *arguments]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("zhbert: error: ")
        assert printed.err.count("\n") == 1
        return printed.err.removeprefix("zhbert: error: ").rstrip("\n")

    return run


def squad(questions: dict[str, list[str]], context: str = "甲乙丙丁 Paris", **more: Any) -> Any:
    asked = [
        {"id": id_, "question": "?", "answers": [{"text": a, "answer_start": 0} for a in answers]}
        for id_, answers in questions.items()
    ]
    return {"version": "1", "data": [{"paragraphs": [{"context": context, "qas": asked}], **more}]}


REGRESS = "s1\ts2\tscore\na\tb\t1.0\nc\td\t4.5\ne\tf\t3.0\n"
RTE = "index\tsentence1\tsentence2\tlabel\n" + "".join(
    f"{n}\ta\tb\t{label}\n"
    for n, label in enumerate(["entailment", "not_entailment", "entailment", "entailment"])
)
NER = "中 B-ORG\n国 I-ORG\n人 O\n\n李 B-PER\n四 I-PER\n"


# -- questions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["cmrc2018", "drcd"])
def test_chinese_questions(task: str, score: Callable[..., Any], write: Write) -> None:
    gold = write("g.json", squad({"1": ["甲乙"], "2": ["丙丁", "丙"]}))
    result = score(task, gold, write("p.json", {"1": "甲", "2": "丙。"}))
    assert set(result["metrics"]) == {"em", "f1"}
    assert result["metrics"]["em"] == 50
    assert result["metrics"]["f1"] == pytest.approx((100 + 200 / 3) / 2)
    assert result["further"]["average"] == pytest.approx((50 + (100 + 200 / 3) / 2) / 2)
    assert (result["task"], result["examples"]) == (task, 2)


def test_cjrc_takes_its_list_and_a_mapping(score: Callable[..., Any], write: Write) -> None:
    gold = squad({"1": ["YES"], "2": [""]}, domain="civil")
    gold["data"] += squad({"3": ["甲乙"]}, domain="criminal")["data"]
    path = write("g.json", gold)
    as_list = [{"id": "1", "answer": "YES"}, {"id": "2", "answer": ""}, {"id": 3, "answer": ["甲"]}]
    result = score("cjrc", path, write("p.json", as_list))
    assert result["metrics"] == {"f1": pytest.approx((200 + 200 / 3) / 3),
                                 "em": pytest.approx(200 / 3)}  # fmt: skip
    assert result["further"]["civil_em"] == 100
    assert result["further"]["criminal_f1"] == pytest.approx(200 / 3)
    mapping = write("q.json", {"1": "YES", "2": "", "3": "甲"})
    assert score("cjrc", path, mapping)["metrics"] == result["metrics"]


def test_squad(score: Callable[..., Any], write: Write) -> None:
    gold = write("g.json", squad({"1": ["Paris"], "2": ["甲乙"]}))
    result = score("squad1.1", gold, write("p.json", {"1": "the paris", "2": "丁"}))
    assert result["metrics"] == {"em": 50, "f1": 50}


def test_squad_2_with_and_without_odds(score: Callable[..., Any], write: Write) -> None:
    gold = write("g.json", squad({"1": ["Paris"], "2": [], "3": []}))
    predictions = write("p.json", {"1": "Paris", "2": "", "3": "甲"})
    result = score("squad2.0", gold, predictions)
    assert result["metrics"]["em"] == pytest.approx(200 / 3)
    assert result["further"] == {
        "HasAns_exact": 100, "HasAns_f1": 100, "HasAns_total": 1,
        "NoAns_exact": 50, "NoAns_f1": 50, "NoAns_total": 2,
    }  # fmt: skip
    odds = write("odds.json", {"1": -5, "2": 3.5, "3": 0.5})
    further = score("squad2.0", gold, predictions, "--null-odds", odds)["further"]
    assert (further["best_exact"], further["best_exact_thresh"]) == (100, -5)


def test_missing_and_unknown_ids_are_said_with_their_numbers(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = write("g.json", squad({str(n): ["甲"] for n in range(4)}))
    predictions = write("p.json", {"0": "甲", "x": "甲", "y": "甲"})
    assert cli.main(["score", "cmrc2018", gold, predictions, "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["metrics"]["em"] == 25
    assert (result["missing"], result["unknown"]) == (3, 2)
    assert "3 of 4 questions have no prediction, counted as 0; the first: 1\n" in printed.err
    assert "2 predictions are for unknown ids, left out; the first: x\n" in printed.err
    assert cli.main(["score", "cmrc2018", gold, predictions, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_one_missing_and_one_unknown_id_are_said_in_the_singular(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = write("g.json", squad({"1": ["甲"], "2": ["甲"]}))
    assert cli.main(["score", "cmrc2018", gold, write("p.json", {"1": "甲", "x": "甲"})]) == 0
    assert capsys.readouterr().err.startswith(
        "1 of 2 questions has no prediction, counted as 0; its id: 2\n"
        "1 prediction is for an unknown id, left out; its id: x\n"
    )


def test_right_answers_of_the_real_files_score_100(
    data: Path, score: Callable[..., Any], write: Write
) -> None:
    for task, file in [
        ("cmrc2018", "cmrc2018/cmrc2018_dev.json"), ("drcd", "drcd/drcd_dev.json"),
    ]:  # fmt: skip
        path = data / "tasks" / file
        answers = {
            question["id"]: question["answers"][-1]["text"]
            for article in json.loads(path.read_text())["data"]
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        }
        result = score(task, str(path), write("p.json", answers))
        assert result["metrics"] == {"em": 100, "f1": 100}
        assert result["examples"] == len(answers)
    # The dev set here is a part of the official one, which must be said.
    assert "not the papers' protocol" in result["split_note"]


def test_whether_the_split_is_a_cut_is_said_as_evaluate_says_it(
    score: Callable[..., Any], write: Write
) -> None:
    predictions = write("p.tsv", "entailment\n" * 4)
    note = score("rte", write("dev.tsv", RTE), predictions)["split_note"]
    assert note.startswith("rte: dev has 4 examples here, the official dev 277")
    named = write("mine.toml", 'title = "Mine"\nkind = "classify"\nmetrics = ["accuracy"]\n[data]\n'
                  'format = "tsv"\ndev = ["dev.tsv"]\ntext = "sentence1"\nlabel = "label"\n'
                  'labels = ["entailment", "not_entailment"]\n')  # fmt: skip
    assert score(named, write("dev.tsv", RTE), predictions)["split_note"] == ""


# -- labels and numbers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "predictions",
    [
        "index\tprediction\n3\tentailment\n0\tentailment\n1\tentailment\n2\tnot_entailment\n",
        "index\tprediction\r\n0\tentailment\r\n1\tentailment\r\n2\tnot_entailment\r\n3\tentailment",
        "0\tentailment\n1\tentailment\n2\tnot_entailment\n3\tentailment\n",
        "entailment\nentailment\nnot_entailment\nentailment\n",
        "prediction\nentailment\nentailment\nnot_entailment\nentailment\n",
        "\ufeffid\ttext\tlabel\n0\ta\tentailment\n1\tb\tentailment\n2\tc\tnot_entailment\n"
        "3\td\tentailment\n",
        '{"id": 0, "label": "entailment"}\n{"id": 1, "label": "entailment"}\n'
        '{"id": 3, "label": "entailment"}\n{"id": 2, "label": "not_entailment"}\n',
        '{"label": "entailment"}\n{"label": "entailment"}\n{"label": "not_entailment"}\n'
        '{"label": "entailment", "probability": 0.5}\n',
    ],
    ids=[
        "glue",
        "crlf",
        "no header",
        "plain",
        "plain header",
        "more columns",
        "json",
        "json plain",
    ],
)
def test_labels_in_every_form(predictions: str, score: Callable[..., Any], write: Write) -> None:
    result = score("rte", write("dev.tsv", RTE), write("p.tsv", predictions))
    assert result["metrics"] == {"accuracy": 50}


def test_glues_scores_are_the_libraries(
    data: Path, score: Callable[..., Any], write: Write
) -> None:
    from sklearn.metrics import f1_score, matthews_corrcoef

    rng = random.Random(0)
    mrpc = data / "tasks/glue/MRPC/msr_paraphrase_test.txt"
    gold = [line.split("\t")[0] for line in mrpc.read_text("utf-8-sig").splitlines()[1:]]
    predicted = [rng.choice([label, "1"]) for label in gold]
    lines = "index\tprediction\n" + "".join(f"{n}\t{p}\n" for n, p in enumerate(predicted))
    metrics = score("mrpc", str(mrpc), write("p.tsv", lines))["metrics"]
    assert metrics["f1"] == pytest.approx(100 * f1_score(gold, predicted, pos_label="1"))
    cola = data / "tasks/glue/CoLA/dev.tsv"
    gold = [line.split("\t")[1] for line in cola.read_text().splitlines()]
    predicted = [rng.choice([label, "1"]) for label in gold]
    metrics = score("cola", str(cola), write("p.tsv", "\n".join(predicted)))["metrics"]
    assert metrics["matthews"] == pytest.approx(100 * matthews_corrcoef(gold, predicted))


def test_numbers(data: Path, score: Callable[..., Any], write: Write) -> None:
    from scipy import stats

    rng = random.Random(0)
    path = find_file(load_card("stsb_zh"), data / "tasks", "dev")
    assert path is not None
    gold = [float(line.split("\t")[2]) for line in path.read_text().splitlines() if line]
    predicted = [round(value + rng.gauss(0, 2), 2) for value in gold]
    lines = "index\tprediction\n" + "".join(f"{n}\t{p}\n" for n, p in enumerate(predicted))
    metrics = score("stsb_zh", str(path), write("p.tsv", lines))["metrics"]
    assert metrics["pearson"] == pytest.approx(100 * stats.pearsonr(gold, predicted)[0])
    assert metrics["spearman"] == pytest.approx(100 * stats.spearmanr(gold, predicted)[0])


def test_one_file_of_all_splits_is_scored_split_by_split(
    data: Path, score: Callable[..., Any], write: Write
) -> None:
    gold = str(data / "tasks/glue/STS-B/stsbenchmark.tsv")
    predictions = write("p.tsv", "\n".join(str(n % 7) for n in range(1500)))
    assert score("stsb", gold, predictions)["examples"] == 1500
    assert score("stsb", gold, predictions, "--split", "dev")["split"] == "dev"


def test_rows_without_a_usable_label_may_be_predicted_and_are_not_scored(
    score: Callable[..., Any], write: Write
) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "label": label, "id": n}
            for n, label in enumerate(["neutral", "-", "entailment"])]  # fmt: skip
    gold = write("dev.json", "\n".join(map(json.dumps, rows)))
    by_id = [{"id": n, "label": "neutral"} for n in range(3)]
    result = score("ocnli", gold, write("p.json", "\n".join(map(json.dumps, by_id))))
    assert (result["metrics"]["accuracy"], result["unknown"]) == (50, 0)
    for plain in ("neutral\n" * 3, "neutral\nneutral\n"):
        assert score("ocnli", gold, write("p.txt", plain))["metrics"] == result["metrics"]


def test_labels_may_be_named_as_in_print(score: Callable[..., Any], write: Write) -> None:
    card = load_card("thucnews_titles")
    names = card.data.label_names or card.data.labels
    gold = write("dev.txt", "标题一\t0\n标题二\t1\n")
    result = score("thucnews_titles", gold, write("p.txt", f"{names[0]}\n{names[0]}\n"))
    assert result["metrics"]["accuracy"] == 50


# -- tags ----------------------------------------------------------------------------------------


def test_tags_in_the_second_or_a_third_column(score: Callable[..., Any], write: Write) -> None:
    gold = write("dev.txt", NER)
    second = "中 B-ORG\n国 I-ORG\n人 O\n\n李 B-ORG\n四 I-ORG\n"
    third = "中 B-ORG B-ORG\n国\tI-ORG\tI-ORG\n人 O O\n\n\n李 B-PER B-ORG\n四 I-PER I-ORG"
    for predictions in (second, third):
        result = score("ner_peopledaily", gold, write("p.txt", predictions))
        assert result["metrics"]["f1"] == 50
        assert result["further"] == {"precision": 50, "recall": 50}


def test_precision_is_of_what_was_found_and_recall_of_what_is_there(
    score: Callable[..., Any], write: Write
) -> None:
    predictions = write("p.txt", NER.replace("国 I-ORG\n人 O", "国 B-PER\n人 B-PER"))
    result = score("ner_peopledaily", write("dev.txt", NER), predictions)
    assert result["further"] == {"precision": 25, "recall": 50}
    assert result["metrics"]["f1"] == pytest.approx(100 / 3)


def test_tokens_that_look_like_space_and_ends_of_lines(
    score: Callable[..., Any], write: Write
) -> None:
    """U+3000, U+2028 and a space are tokens; a file from Windows is as good."""
    rows = "\u3000 O\n\u2028 O\n  O\n中 B-ORG\n\n国 B-ORG\n"
    gold = write("dev.txt", rows)
    for predictions in (rows, rows.replace("\n", "\r\n"), rows.replace(" ", "\t")):
        result = score("ner_peopledaily", gold, write("p.txt", predictions))
        assert result["metrics"]["f1"] == 100


def test_places_of_characters_in_their_words_are_dropped_where_the_card_says_so(
    score: Callable[..., Any], write: Write
) -> None:
    gold = write("dev.txt", "科0\tB-PER.NAM\n技1\tI-PER.NAM\n")
    for predictions in ("科0\tB-PER.NAM\n技1\tO\n", "科\tB-PER.NAM\n技\tO\n"):
        assert score("weibo", gold, write("p.txt", predictions))["metrics"]["f1"] == 0


def test_tags_of_a_real_file_score_as_seqeval_says(
    data: Path, score: Callable[..., Any], write: Write
) -> None:
    path = data / "tasks/ner_peopledaily/dev.txt"
    rng = random.Random(0)
    tags = load_card("ner_peopledaily").data.labels
    gold: list[list[str]] = [[]]
    predicted: list[list[str]] = [[]]
    lines = []
    for line in path.read_text().split("\n"):
        if line.strip():
            token, tag = line.split(" ") if not line.startswith(" ") else (" ", line.split()[-1])
            guess = rng.choice(tags) if rng.random() < 0.1 else tag
            gold[-1].append(tag)
            predicted[-1].append(guess)
            lines.append(f"{token} {guess}")
        else:
            lines.append("")
            if gold[-1]:
                gold.append([])
                predicted.append([])
    metrics = score("ner_peopledaily", str(path), write("p.txt", "\n".join(lines)))["metrics"]
    assert metrics["f1"] == pytest.approx(f1(gold[:-1], predicted[:-1]))
    assert 20 < metrics["f1"] < 95


# -- what people see -----------------------------------------------------------------------------


def test_the_table_fits_and_names_the_task(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = write("g.json", squad({"1": ["Paris"], "2": []}))
    odds = write("odds.json", {"1": -5.25, "2": 3.5})
    predictions = write("p.json", {"1": "Paris", "2": "x"})
    assert cli.main(["score", "squad2.0", gold, predictions, "--null-odds", odds]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("squad2.0, 2 examples ")
    assert all(len(line) <= 80 for line in lines)
    rows = dict(line.split() for line in lines[1:])
    assert (rows["em"], rows["HasAns_total"]) == ("100.00", "1")
    assert (rows["best_f1"], rows["best_f1_thresh"]) == ("100.00", "-5.25")


def test_the_odds_that_predict_and_a_run_write(
    write: Write, score: Callable[..., Any], refusal: Callable[..., str]
) -> None:
    gold = write("g.json", squad({"1": ["Paris"], "2": []}))
    lines = [
        {"id": "1", "prediction": "Paris", "null_odds": -5.25},
        {"id": "2", "prediction": "x", "null_odds": 3.5},
    ]
    file = write("p.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    found = score("squad2.0", gold, file, "--null-odds", file)["further"]
    assert (found["NoAns_exact"], found["best_f1"], found["best_f1_thresh"]) == (100, 100, -5.25)
    bare = write("bare.jsonl", '{"id": "1", "prediction": "Paris"}\n')
    message = refusal("squad2.0", gold, file, "--null-odds", bare)
    assert f"{bare}:1: no null_odds; there: id, prediction" in message


def test_the_table_of_one_example(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    gold, predictions = write("g.json", squad({"1": ["甲"]})), write("p.json", {"1": "甲"})
    assert cli.main(["score", "drcd", gold, predictions]) == 0
    assert capsys.readouterr().out.startswith("drcd, 1 example ")


def test_a_card_of_ones_own(score: Callable[..., Any], write: Write, tmp_path: Path) -> None:
    card = write(
        "mine.toml",
        'title = "Mine"\nkind = "classify"\nmetrics = ["f1", "accuracy"]\n[data]\nformat = "csv"\n'
        'dev = ["dev.csv"]\ntext = "t"\nlabel = "y"\nlabels = ["no", "yes"]\n',
    )
    gold = write("dev.csv", "t,y\na,yes\nb,no\nc,yes\n")
    result = score(card, gold, write("p.txt", "yes\nyes\nno\n"))
    assert result["metrics"] == {"f1": 50, "accuracy": pytest.approx(100 / 3)}
    assert score(card, str(tmp_path), write("p.txt", "yes\nno\nyes\n"))["metrics"]["f1"] == 100


def test_every_card_is_scored_with_its_own_metrics(
    data: Path, score: Callable[..., Any], write: Write
) -> None:
    """Gold labels as predictions: 100 in each metric of each card, by names that stay."""
    scored = set()
    for name in card_names():
        card = load_card(name)
        path = next(
            (found for place in (data / "tasks", data / "tasks/glue")
             if (found := find_file(card, place, "dev"))), None
        )  # fmt: skip
        if path is None:
            continue
        examples = read_examples(card, path, "dev")
        if isinstance(examples[0], SpanExample):
            answers = {one.id: one.answers[0] if one.answers else "" for one in examples}  # type: ignore[union-attr]
            predictions = write("p.json", answers)
        elif isinstance(examples[0], TagExample):
            predictions = write("p.txt", path.read_text())
        elif isinstance(examples[0], EmbedExample):
            predictions = write("p.json", {one.id: one.gold for one in examples})
        else:
            texts = [one for one in examples if isinstance(one, TextExample)]
            predictions = write("p.tsv", "".join(f"{one.id}\t{one.label}\n" for one in texts))
        metrics = score(name, str(path), predictions)["metrics"]
        assert list(metrics) == list(card.metrics)
        if getattr(card.data, "scorer", "") != "cjrc":  # whose answers differ from each other
            assert all(value == pytest.approx(100) for value in metrics.values()), name
        scored.add(card.kind)
    assert scored == {"classify", "regress", "tag", "span", "embed"}


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "p.json: empty: no predictions in it"),
        (" \n\n", "p.json: empty: no predictions in it"),
        ('{"1": "甲",\n}', "p.json:2: not JSON"),
        ('"甲"', "objects with id and answer"),
        ('["甲"]', "or a list of objects with id and answer"),
        ('[{"id": "1"}]', "p.json:1: no prediction or label; there: id"),
        ('{"1": null}', "p.json: question '1': null: an answer must be a text, '' where there is"),
        ('{"1": {"text": "甲"}}', 'question \'1\': {"text": "甲"}: an answer must be a text'),
        ('{"1": true}', "question '1': true: an answer must be a text"),
        ('{"q7": "甲"}', "p.json: its only id is not in"),
        ('{"q7": "甲", "q8": "甲"}', "p.json: none of its 2 ids is in"),
        ("{}", "p.json: no predictions in it"),
        ("[" * 100_000, "p.json:1: not JSON (nested too deeply)"),
        ({"长" * 5_000: None}, "p.json: question '" + "长" * 40 + "…': null: an answer must be"),
        (squad({"1": ["甲"]}), "holds questions, not predictions; is it GOLD?"),
    ],
)
def test_answers_that_cannot_be_read_are_refused(
    content: Any, words: str, refusal: Callable[..., str], write: Write
) -> None:
    gold = write("g.json", squad({"1": ["甲"]}))
    assert words in refusal("cmrc2018", gold, write("p.json", content))


def test_predictions_given_as_gold_are_told_in_a_short_line(
    refusal: Callable[..., str], write: Write
) -> None:
    gold = write("g.json", {str(n): "甲" for n in range(5_000)})
    line = refusal("cmrc2018", gold, write("p.json", {"1": "甲"}))
    assert "0, 1, 2, 3, 4, 5, 6, 7, … (5,000 in all); are these predictions?" in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("\n", "p.tsv: empty: no predictions in it"),
        ("index\tprediction\n", "p.tsv: no predictions in it"),
        ("prediction\n", "p.tsv: no predictions in it"),
        ("entailment\n", "p.tsv: 1 prediction, but"),
        ("entailment\n" * 3, "3 predictions, but"),
        ("entailment\n" * 5, "5 predictions, but"),
        ("entailment\nentailmant\n\n\nentailment\nentailment", "p.tsv:2: the label "
         "\"entailmant\" is not in the card; did you mean 'entailment'?"),
        ("1\n0\n1\n0\n", 'p.tsv:1: the label "1" is not in the card; the card\'s labels: entail'),
        ("0\tentailment\n1\tentailment\n", "2 of 4 examples have no prediction; the first: 2"),
        ("0\tentailment\n1\tentailment\n3\tentailment\n",
         "1 of 4 examples has no prediction; the first: 2"),
        ("0\tentailment\n0\tentailment\n", "p.tsv:2: the id '0' stands there twice"),
        ("0\tentailment\n1\n", "p.tsv:2: 1 column where the first line has 2"),
        ("0\ta\tentailment\n", "p.tsv: 3 columns and no header; write index and prediction"),
        ("id\ta\tb\n0\ta\tentailment\n", "no column prediction or label; there: id, a, b"),
        ("90\tentailment\n91\tentailment\n", "none of its 2 ids is in"),
        ("id\t" + "\t".join(f"c{n}" for n in range(5_000)) + "\n0\ta\n", "no column prediction or "
         "label; there: id, c0, c1, c2, c3, c4, c5, c6, … (5,001 in all)"),
        ('{"id": 0}\n', "p.tsv:1: no prediction or label; there: id"),
        (json.dumps({f"{n}\n": n for n in range(5_000)}) + "\n", 'the label "0" is not in the'),
        ('{"id": 0, "label"\n', "p.tsv:1: not JSON"),
        ('["entailment", "entailment"]\n', "p.tsv: 2 predictions, but"),
        ('{"id": 0, "label": "entailment"}\n{"label": "entailment"}\n', "p.tsv:2: no id, although"),
        ('{"id": 0, "label": ["' + "x" * 500 + '"]}\n', "…"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_read_are_refused(
    content: str, words: str, refusal: Callable[..., str], write: Write
) -> None:
    line = refusal("rte", write("dev.tsv", RTE), write("p.tsv", content))
    assert words in line
    assert len(line) < 400


def test_a_card_of_many_labels_is_not_listed_whole(
    refusal: Callable[..., str], write: Write
) -> None:
    card = write(
        "mine.toml",
        'title = "Mine"\nkind = "classify"\nmetrics = ["accuracy"]\n[data]\nformat = "tsv"\n'
        f'dev = ["dev.tsv"]\ntext = "t"\nlabel = "y"\nlabels = {[str(n) for n in range(1_000)]}\n',
    )
    line = refusal(card, write("dev.tsv", "t\ty\na\t1\n"), write("p.txt", "x\n"))
    assert line.endswith("the card's labels: 0, 1, 2, 3, 4, 5, 6, 7, … (1,000 in all)")


@pytest.mark.parametrize("value", ["nan", "inf", "good", ""])
def test_numbers_must_be_finite(value: str, refusal: Callable[..., str], write: Write) -> None:
    gold = write("dev.tsv", "a\tb\t1.0\nc\td\t4.5\n")
    predictions = write("p.tsv", f"index\tprediction\n0\t1.5\n1\t{value}\n")
    assert f'p.tsv:3: "{value}": must be a number' in refusal("stsb_zh", gold, predictions)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (NER.replace("李", "王"), 'p.txt:5: "王" where'),
        (NER.replace("人 O\n", ""), "p.txt:2: a sentence of 2 tokens, in"),
        ("中 B-ORG\n\n国 O\n", "p.txt:1: a sentence of 1 token, in"),
        (NER.replace("人 O\n", "人 O\n民 O\n"), "p.txt:4: a sentence of 4 tokens, in"),
        (NER.replace("\n\n", "\n"), "p.txt:5: a sentence of 5 tokens, in"),
        (NER + "\n人 O\n", "p.txt: 3 sentences, but"),
        (NER.split("\n\n")[0], "p.txt: 1 sentence, but"),
        (NER.replace("I-PER", "I-PRE"), "p.txt:6: the tag \"I-PRE\" is not in the card; did you"),
        (NER.replace("人 O", "人"), "p.txt:3: write a token and its tag a line"),
        (NER.replace("人 O", "人 O O O"), "p.txt:3: write a token and its tag a line"),
        ("", "p.txt: empty"),
    ],
)  # fmt: skip
def test_tags_that_do_not_fit_are_refused(
    content: str, words: str, refusal: Callable[..., str], write: Write
) -> None:
    gold = write("dev.txt", NER)
    assert words in refusal("ner_peopledaily", gold, write("p.txt", content))


def test_a_row_of_tags_that_is_too_short_is_refused(
    refusal: Callable[..., str], write: Write
) -> None:
    predictions = write("p.jsonl", '{"id": 0, "prediction": ["O"]}\n')
    line = refusal("ner_peopledaily", write("dev.txt", NER), predictions)
    assert "the sentence '0': 1 tag, in" in line
    assert line.endswith("it has 3 tokens")


def test_odds_that_do_not_fit_are_refused(refusal: Callable[..., str], write: Write) -> None:
    gold = write("g.json", squad({"1": ["甲"], "2": []}))
    predictions = write("p.json", {"1": "甲", "2": ""})

    def with_odds(content: Any) -> str:
        return refusal("squad2.0", gold, predictions, "--null-odds", write("o.json", content))

    assert "question 2: no odds that it has no answer" in with_odds({"1": 0})
    assert "o.json: question '2': \"no\": must be a finite number" in with_odds({"1": 0, "2": "no"})
    assert "o.json: question '1': NaN: must be a finite number" in with_odds('{"1": NaN}')
    assert 'o.json: must be {"id": number, ...}' in with_odds([1])
    odds = write("o.json", {"1": 0, "2": 0})
    line = refusal("squad1.1", gold, predictions, "--null-odds", odds)
    assert line == "--null-odds: for SQuAD 2.0's rules alone, not for squad1.1"


def test_files_that_are_not_there_or_are_another_tasks(
    refusal: Callable[..., str], write: Write, tmp_path: Path
) -> None:
    gold, predictions = write("g.json", squad({"1": ["甲"]})), write("p.json", {"1": "甲"})
    assert "no such file" in refusal("cmrc2018", gold, str(tmp_path / "none.json"))
    assert "no such file" in refusal("cmrc2018", str(tmp_path / "none.json"), predictions)
    assert "reading" in refusal("cmrc2018", gold, str(tmp_path))
    assert "did you mean 'cmrc2018'" in refusal("cmrc2019", gold, predictions)
    assert "not JSON" in refusal("cmrc2018", write("dev.tsv", RTE), predictions)
    assert "no column" in refusal("rte", write("other.tsv", REGRESS), predictions)
    (tmp_path / "gbk.json").write_bytes('{"1": "甲"}'.encode("gb18030"))
    line = refusal("cmrc2018", gold, str(tmp_path / "gbk.json"))
    assert "gbk.json:1: not UTF-8" in line
    assert "convert the file, for example: iconv -f GB18030 -t UTF-8" in line


@pytest.mark.parametrize("name", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_named(
    name: str, refusal: Callable[..., str], write: Write, tmp_path: Path
) -> None:
    (tmp_path / "p.json").write_bytes('\ufeff{"1": "甲"}'.encode(name))
    line = refusal("cmrc2018", write("g.json", squad({"1": ["甲"]})), str(tmp_path / "p.json"))
    assert (
        "p.json:1: not UTF-8 (invalid start byte at byte 1 of the line); convert the file" in line
    )
    assert "iconv -f UTF-16 -t UTF-8" in line


def test_withheld_answers_are_refused(refusal: Callable[..., str], write: Write) -> None:
    gold, predictions = write("g.json", squad({"1": []})), write("p.json", {"1": "甲"})
    assert "no answer" in refusal("squad1.1", gold, predictions)


def test_torch_is_not_loaded_to_score(write: Write) -> None:
    gold, predictions = write("dev.tsv", RTE), write("p.tsv", "entailment\n" * 4)
    code = (
        "import sys; from pathlib import Path; from zhbert.tasks.scoring import score_files; "
        "score_files('rte', Path(sys.argv[1]), Path(sys.argv[2])); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, gold, predictions], check=True)


# -- whatever the predictions are written as -------------------------------------------------------


OWN = """
title = "t"
kind = "classify"
metrics = ["accuracy"]
[data]
format = "csv"
dev = "gold.csv"
text = "text"
label = "label"
labels = ["差", "好"]
rename_labels = { "0" = "差", "1" = "好" }
"""
GOLD = "text,label\n很好,1\n很差,0\n不错,1\n"


@pytest.mark.parametrize(
    "predictions",
    [
        "id,label\n0,1\n1,0\n2,1\n",
        "id,label\r\n0,1\r\n1,0\r\n2,1\r\n",
        "\ufeffindex,prediction\n0,好\n1,差\n2,好\n",
        "0,1\n1,0\n2,1\n",
        "prediction,probability,id\n1,0.9,0\n0,0.8,1\n1,0.7,2\n",
        "qid,answer\n0,1\n1,0\n2,1\n",
        "number,said\n0,1\n1,0\n2,1\n",
        "id\tlabel\n0\t1\n1\t0\n2\t1\n",
        "label\n1\n0\n1\n",
        "1\n0\n1\n",
        "1\r0\r1\r",
        "1.0\n0.0\n1.0\n",
        '"id","label"\n"0","1"\n"1","0"\n"2","1"\n',
        "0.1\t0.9\n0.8\t0.2\n0.3\t0.7\n",
        "0.1,0.9\n0.8,0.2\n0.3,0.7\n",
        "-3.5\t4e-1\n1\t-2\n0.25\t7\n",
        "id\tp(差)\tp(好)\n0\t0.1\t0.9\n1\t0.8\t0.2\n2\t0.3\t0.7\n",
        "差\t好\n0.1\t0.9\n0.8\t0.2\n0.3\t0.7\n",
        '{"id": 0, "label": 1}\n{"id": 1, "label": 0.0}\n{"id": 2, "label": "1"}\n',
        '[{"id": 0, "label": 1}, {"id": 1, "label": "差"},\n {"id": 2, "label": "1"}]',
        '{"0": "1", "1": 0, "2": "好"}',
        "[1, 0, 1]",
        '["好", "差", "好"]',
        "[[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]",
        '{"label": "1"}\n{"label": "0"}\n{"label": "1"}\n',
        "id,label\n1,1\n2,0\n3,1\n",
    ],
)
def test_labels_are_read_in_every_form(
    predictions: str, score: Callable[..., Any], write: Write
) -> None:
    card, gold = write("own.toml", OWN), write("gold.csv", GOLD)
    if predictions.endswith("3,1\n"):  # ids from 1, of examples that have others
        card = write("own.toml", OWN.replace('label = "label"', 'label = "label"\nid = "id"'))
        gold = write("gold.csv", "id,text,label\na,很好,1\nb,很差,0\nc,不错,1\n")
    for name in ("p.csv", "p.tsv", "p.json", "p"):
        assert score(card, gold, write(name, predictions))["metrics"] == {"accuracy": 100}


def test_the_largest_of_as_many_numbers_as_labels_is_said(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "0.1\t0.9\n0.8\t0.2\n0.3\t0.7\n"
    card, gold = write("own.toml", OWN), write("gold.csv", GOLD)
    assert cli.main(["score", card, gold, write("test_results.tsv", rows)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "test_results.tsv: 2 numbers for each example: the label with the largest is" in said


@pytest.mark.parametrize(
    ("predictions", "said"),
    [
        ("0.1\t0.9\n0.8\t0.2\n", "2 predictions, but"),
        ("0.1\t0.2\t0.7\n" * 3, "3 columns and no header; write index and prediction, a tab "
         "between them, or 2 numbers, one for each label, or a prediction a line"),
        ("[[0.1, 0.2, 0.7], [1, 2], [1, 2]]", "p:1: 3 numbers, but the card has 2 labels"),
        ("id,label\n0,1\n1\n", "p:3: 1 column where the first line has 2"),
        ("id,label\n0,1\n0,1\n", "p:3: the id '0' stands there twice"),
        ("id,label\n0,=1+1\n", 'p:2: the label "=1+1" is not in the card'),
        ("id\tp(差)\tp(好)\n0\t0.1\tx\n", 'p:2: "x": must be a probability'),
        ("PAR1\x15\x04\ud800", "p: it is a parquet file; write JSON, TSV, CSV or lines"),
        ("PK\x03\x04 xl/workbook", "p: it is an Excel workbook: save it as CSV"),
    ],
)  # fmt: skip
def test_what_is_no_form_of_labels_is_said(
    predictions: str, said: str, refusal: Callable[..., str], write: Write, tmp_path: Path
) -> None:
    (tmp_path / "p").write_bytes(predictions.encode("utf-8", "surrogatepass"))
    line = refusal(write("own.toml", OWN), write("gold.csv", GOLD), str(tmp_path / "p"))
    assert said in line


def test_answers_may_be_a_table(score: Callable[..., Any], write: Write) -> None:
    gold = write("g.json", squad({"1": ["甲乙"], "2": ["Paris, 丙"]}))
    for text in ("id\tprediction\tprobability\n1\t甲乙\t0.9\n2\tParis, 丙\t0.4\n",
                 'id,prediction\n1,甲乙\n2,"Paris, 丙"\n',
                 '[{"id": "1", "prediction_text": "甲乙"}, '
                 '{"id": "2", "prediction_text": "Paris, 丙"}]'):  # fmt: skip
        assert score("cmrc2018", gold, write("p", text))["metrics"]["em"] == 100


def test_cluener_is_scored_from_its_own_form(score: Callable[..., Any], write: Write) -> None:
    card = write("names.toml", 'title = "t"\nkind = "tag"\nmetrics = ["f1"]\n[data]\n'
                 'format = "jsonl"\ndev = "g.json"\nlabels = ["name", "book"]\n')  # fmt: skip
    lines = [{"id": 5, "text": "李白诗", "label": {"name": {"李白": [[0, 1]]}}},
             {"id": 7, "text": "好书", "label": {}}]  # fmt: skip
    gold = write("g.json", "\n".join(map(json.dumps, lines)))
    assert score(card, gold, gold)["metrics"]["f1"] == 100
    lines[0]["label"] = {"name": {"李": [[0, 0]]}, "book": {"诗": [[2, 2]]}}
    without = [{"id": one["id"], "label": one["label"]} for one in lines]
    predictions = write("p.json", "\n".join(map(json.dumps, without)))
    assert score(card, gold, predictions)["further"] == {"precision": 0, "recall": 0}


def test_a_file_of_another_encoding_is_read_where_it_is_named(
    score: Callable[..., Any], refusal: Callable[..., str], write: Write, tmp_path: Path
) -> None:
    card, gold = write("own.toml", OWN), tmp_path / "gold.csv"
    gold.write_bytes(GOLD.encode("gb18030"))
    predictions = write("p.csv", "id,label\n0,好\n1,差\n2,好\n")
    assert "gold.csv:2: not UTF-8" in refusal(card, str(gold), predictions)
    assert "--encoding gb18030" in refusal(card, str(gold), predictions)
    for encoding in ("gb18030", "GBK", "utf-16", "utf-16-le", "big5"):
        gold.write_bytes(GOLD.replace("很", "最").replace("错", "好").encode(encoding))
        found = score(card, str(gold), predictions, "--encoding", encoding)
        assert found["metrics"] == {"accuracy": 100}
    (tmp_path / "own.toml").write_text(OWN + 'encoding = "gbk"\n')
    gold.write_bytes(GOLD.encode("gbk"))
    (tmp_path / "p.csv").write_bytes("id,label\n0,好\n1,差\n2,好\n".encode("gbk"))
    assert score(card, str(gold), predictions)["metrics"] == {"accuracy": 100}
    assert "rot13: unknown" in refusal(card, str(gold), predictions, "--encoding", "rot13")
    line = refusal(card, str(gold), predictions, "--encoding", "ascii")
    assert "gold.csv:2: not ascii: " in line
