"""The kind embed: its five forms, what is searched, its predictions, and mixtures of cards."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zhbert.errors import ZhbertError
from zhbert.finetuning.splits import read_splits
from zhbert.tasks.cards import card_table, load_card, parse_card, with_encoding
from zhbert.tasks.examples import EmbedExample, Prediction
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.metrics import of_all
from zhbert.tasks.passages import with_passages
from zhbert.tasks.read import read_examples, read_inputs, read_to_score
from zhbert.tasks.scoring import prediction_lines, score_files
from zhbert.tasks.sources import StandardInput

KIND = KINDS["embed"]
PAIRS = {"text": "a", "text_pair": "b"}
SCORED = {**PAIRS, "label": "y", "label_range": [0, 5]}
JUDGED = {**PAIRS, "label": "y", "yes": ["1"], "no": ["0"]}
SQUAD = {"data": [{"paragraphs": [
    {"context": "李白生于碎叶。", "qas": [{"id": "1", "question": "李白生于哪里？"}]},
    {"context": "杜甫生于巩县。", "qas": [{"id": "2", "question": "谁生于巩县？"},
                                    {"id": "3", "question": "杜甫生于哪里？"}]},
]}]}  # fmt: skip


def card_of(data: dict[str, Any], *metrics: str, form: str = "tsv", name: str = "mine") -> Any:
    searched = "label" not in data
    table = {"format": form, "train": "train", "dev": "dev", **data}
    metrics = metrics or ("mrr@10" if searched else "spearman",)
    card = {"title": "t", "kind": "embed", "metrics": list(metrics), "data": table}
    return parse_card(card, Path(f"{name}.toml"))


@pytest.fixture
def read(tmp_path):
    """Read the dev file (or that of another split) of these contents."""

    def read(card: Any, contents: str, split: str = "dev") -> list[Any]:
        (tmp_path / split).write_text(contents, encoding="utf-8")
        return read_examples(card, tmp_path, split)

    return read


def refusal(call: Any, *args: Any, **named: Any) -> str:
    with pytest.raises(ZhbertError) as caught:
        call(*args, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Forms


def test_a_number_is_scaled_to_0_to_1(read):
    one, two = read(card_of(SCORED), "a\tb\ty\n甲\t乙\t5\n丙\t丁\t1.5\n")
    assert one == EmbedExample("0", ("甲", "乙"), "scored", 1.0, "mine")
    assert two.gold == 0.3


def test_labels_mean_yes_or_no_in_any_spelling_of_a_number(read):
    found = read(card_of(JUDGED), "a\tb\ty\n甲\t乙\t1\n丙\t丁\t0\n戊\t己\t1.0\n")
    assert [one.gold for one in found] == [1.0, 0.0, 1.0]


def test_texts_alone_are_only_trained_on(read):
    (one,) = read(card_of({"text": "a", "dev": []}), "a\n甲\n", "train")
    assert (one.form, one.texts, one.gold) == ("texts", ("甲",), None)
    assert "texts alone are trained on, not scored" in refusal(card_of, {"text": "a"})


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_several_right_passages_are_an_example_each_and_share_negatives(form, tmp_path):
    rows = [
        {"a": "甲", "b": ["乙", "丙"], "n": ["丁", "戊"]},
        {"a": "己", "b": ["乙"], "n": ["丁"]},
    ]
    if form == "jsonl":
        (tmp_path / "dev").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "dev")
    card = card_of({**PAIRS, "negative": "n"}, form=form)
    found = read_examples(card, tmp_path, "dev")
    assert [(one.id, one.texts) for one in found] == [
        ("0", ("甲", "乙", "丁", "戊")),
        ("0.1", ("甲", "丙", "丁", "戊")),
        ("1", ("己", "乙", "丁")),
    ]
    assert [one.relevant for one in found] == [("0", "0.1"), ("0", "0.1"), ("0",)]
    assert found[0].passages.texts == ("乙", "丁", "戊", "丙")
    assert found[0].passages.ids == ("0", "0#1", "0#2", "0.1")


def test_a_question_belongs_to_its_paragraph(read):
    found = read(card_of({}, form="squad"), json.dumps(SQUAD))
    assert [one.relevant for one in found] == [("1",), ("2",), ("2",)]
    assert found[2].texts == ("杜甫生于哪里？", "杜甫生于巩县。")


def test_rows_of_one_premise_become_triples_in_train_alone(read):
    card = card_of({**JUDGED, "triples": True, "drop_labels": ["2"]}, "ap")
    rows = "a\tb\ty\n甲\t乙\t1\n甲\t丙\t0\n甲\t丁\t2\n甲\t戊\t1\n甲\t乙\t0\n己\t庚\t1\n"
    remarks: list[str] = []
    train = KIND.to_train(card, read(card, rows, "train"), "t/train", remarks.append)
    assert [one.texts for one in train] == [("甲", "乙", "丙"), ("甲", "戊", "丙")]
    assert {one.form for one in train} == {"triples"}
    assert {one.form for one in read(card, rows, "train")} == {"judged"}
    assert remarks == ["train: texts left out that have not both a yes and a no: 1"]


# What is searched


def test_passages_of_further_splits_are_searched_and_equal_ones_are_one(tmp_path):
    files = {"train": "甲\t乙\n丙\t丁\n", "dev": "戊\t己\n庚\t丁\n"}
    for name, rows in files.items():
        (tmp_path / name).write_text("a\tb\n" + rows, encoding="utf-8")
    card = card_of({**PAIRS, "haystack": ["train"]})
    found, further = read_to_score(card, tmp_path / "dev", "dev")
    assert found[0].passages.ids == ("0", "1", "train:0")
    assert found[0].passages.texts == ("己", "丁", "乙")
    assert further == {"train": tmp_path / "train"}
    (tmp_path / "train").unlink()
    assert "no train file of mine there" in refusal(read_to_score, card, tmp_path / "dev", "dev")


def test_every_question_of_cmrc2018_is_searched_in_the_paragraphs_of_both_splits(data):
    card = load_card("cmrc2018_embed")
    path = data / "tasks" / "cmrc2018" / "cmrc2018_dev.json"
    found, _ = read_to_score(card, path, "dev")
    assert len(found[0].passages.ids) == len(set(found[0].passages.texts)) == 2827
    assert all(len(one.relevant) == 1 for one in found)
    texts = dict(zip(found[0].passages.ids, found[0].passages.texts, strict=True))
    assert all(texts[one.relevant[0]] == one.texts[1] for one in found)


# Predictions


def inputs(card: Any, source: Any) -> list[Any]:
    return list(read_inputs(KIND, card, (), source))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("in.tsv", "甲\t乙\n丙\t丁\n"),
        ("in.csv", "甲,乙\n丙,丁\n"),
        ("in.txt", "甲\t乙\n丙\t丁\n"),
        ("in.tsv", "text\ttext_pair\n甲\t乙\n丙\t丁\n"),
        ("in.tsv", "a\tb\n甲\t乙\n丙\t丁\n"),
        ("in.jsonl", '{"a": "甲", "b": "乙", "y": 7}\n{"a": "丙", "b": "丁"}\n'),
    ],
)
@pytest.mark.parametrize("data", [SCORED, JUDGED, PAIRS, {**PAIRS, "negative": "n"}])
def test_two_texts_a_row_are_read_to_be_compared(tmp_path, name, text, data):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    found = inputs(card_of(data), path)
    assert [(one.id, one.texts) for one in found] == [("0", ("甲", "乙")), ("1", ("丙", "丁"))]
    assert all(one.passages is None for one in found)


def test_pairs_are_read_for_a_model_of_any_card(tmp_path):
    for card in (None, card_of({}, form="squad"), card_of({"text": "a", "dev": []})):
        (one,) = inputs(card, StandardInput(io.BytesIO("甲\t乙\n".encode())))
        assert one.texts == ("甲", "乙")
    path = tmp_path / "q.json"
    path.write_text(json.dumps(SQUAD), encoding="utf-8")
    assert [one.id for one in inputs(card_of({}, form="squad"), path)] == ["1", "2", "3"]


def test_a_text_alone_cannot_be_compared():
    stdin = StandardInput(io.BytesIO("甲\n".encode()))
    assert "the model compares two texts: put a tab between them" in refusal(inputs, None, stdin)


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_what_a_run_writes_is_scored(tmp_path, form):
    card = card_of(PAIRS, "mrr@10", "recall@1")
    path = tmp_path / "mine.toml"
    path.write_text(
        'title = "t"\nkind = "embed"\nmetrics = ["mrr@10", "recall@1"]\n[data]\nformat = "tsv"\n'
        'dev = "dev.tsv"\ntext = "a"\ntext_pair = "b"\n'
    )
    gold = tmp_path / "dev.tsv"
    gold.write_text("a\tb\n甲\t乙\n丙\t丁\n", encoding="utf-8")
    examples = read_examples(card, gold, "dev")
    lists = {"0": ["0", "1"], "1": ["0", "1"]}
    lines = [{"id": id_, "predicted": found} for id_, found in lists.items()]
    written = json.dumps(lists) if form == "json" else "\n".join(map(json.dumps, lines))
    (tmp_path / "p").write_text(written)
    result = score_files(path, gold, tmp_path / "p")
    assert result["metrics"] == {"mrr@10": 75.0, "recall@1": 50.0}
    (tmp_path / "p").write_text('{"0": "0", "1": "1"}')
    assert "must be a list of the ids of passages" in refusal(
        score_files, path, gold, tmp_path / "p"
    )
    assert KIND.each(card, examples, list(lists.values())) == {"score": [1.0, 0.5]}


def test_a_mistake_of_search_is_how_far_down_the_right_passage_is():
    pairs = [EmbedExample(str(n), (f"问{n}", f"答{n}" * 200), "pairs") for n in range(3)]
    card, examples = card_of(PAIRS), with_passages(pairs)
    found = [("1", "0", "2"), ("1",), ("0", "1")]
    predictions = [Prediction(ids) for ids in found]
    lines = list(prediction_lines(card, examples, predictions))
    assert all(len(line["text_pair"]) == 201 for line in lines)
    read = json.loads(json.dumps(lines))
    assert of_all(KIND.resampled("mrr@10", read, ()), 3) == 50
    mistakes = [KIND.mistake(line, (), {}) for line in read]
    assert mistakes[1] is None
    assert [one.how_wrong for one in mistakes if one] == ["rank 2", "not among the first 2"]
    assert mistakes[2].badness > mistakes[0].badness


def test_a_pair_is_as_right_as_its_rank():
    examples = [EmbedExample(str(n), ("甲", "乙"), "scored", n / 3) for n in range(4)]
    card = card_of(SCORED)
    assert KIND.each(card, examples, [0.96, 0.97, 0.98, 0.99]) == {"score": [1.0] * 4}
    scores = KIND.each(card, examples, [0.99, 0.97, 0.98, 0.96])["score"]
    assert scores == [0.25, 1.0, 1.0, 0.25]
    line = {**KIND.shown(examples[0]), "predicted": 0.99, "score": 0.25}
    found = KIND.mistake(line, (), {})
    assert (found.right, found.predicted) == ("0.00", "0.99")
    assert found.how_wrong == "75 % of the ranks off"


# Mistakes of users


@pytest.mark.parametrize(
    ("data", "rows", "message"),
    [
        (SCORED, "甲\t乙\t像", 'dev:2: the label "像" is not a number from 0 to 5'),
        (SCORED, "甲\t乙\t6", 'dev:2: the label "6" is not a number from 0 to 5'),
        (SCORED, "甲\t乙\tnan", 'dev:2: the label "nan" is not a number from 0 to 5'),
        (JUDGED, "甲\t乙\t2", 'dev:2: the label "2" is not in the card; yes: 1; no: 0'),
        ({**PAIRS, "negative": "y"}, "甲\t乙\t乙", 'dev:2: "乙" is its own negative: remove it'),
        ({**PAIRS, "negative": "y"}, "甲\t乙\t甲", 'dev:2: "甲" is its own negative: remove it'),
        ({**PAIRS, "negative": "z"}, "甲\t乙\t甲", 'dev:2: no column "z"; there: a, b, y'),
        (PAIRS, "甲\t乙", "dev:2: 2 columns where the header has 3"),
    ],
)
def test_a_broken_row_is_named(read, data, rows, message):
    assert message in refusal(read, card_of(data), f"a\tb\ty\n{rows}\n")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (("1", "1.1"), "dev:2: the id '1.1' stands there twice"),
        (("1", "1#1"), 'the id "1#1" would be that of two passages: rename it'),
    ],
)
def test_ids_that_are_made_are_not_those_of_the_file(read, ids, message):
    texts = iter("甲乙丙丁戊己庚辛")
    rows = [{"i": i, "a": next(texts), "b": [next(texts), next(texts)], "n": [next(texts)]}
            for i in ids]  # fmt: skip
    card = card_of({**PAIRS, "negative": "n", "id": "i"}, form="jsonl")
    assert message in refusal(read, card, "\n".join(map(json.dumps, rows)))


def test_a_train_set_without_any_positive_is_refused(read):
    rows = "a\tb\ty\n甲\t乙\t0\n甲\t丙\t0\n"
    for more, message in (({}, "no pair in it is similar"), ({"triples": True}, "no triples")):
        card = card_of({**JUDGED, **more})
        found = read(card, rows, "train")
        assert message in refusal(KIND.to_train, card, found, "train", print)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({**PAIRS, "label": "y"}, "data.label: say what it means: label_range = [0, 5]"),
        ({**PAIRS, "yes": ["1"]}, "data.yes: without a label; name its column"),
        ({**SCORED, "yes": ["1"]}, "data.label_range: for numbers; yes, no and triples are for"),
        ({**SCORED, "label_range": [5, 0]}, "must be the lowest and the highest number"),
        ({**JUDGED, "no": ["1"]}, "data: 1 in yes and in no"),
        ({**JUDGED, "negative": "n"}, "data: label and negative: remove one of them"),
        ({**JUDGED, "haystack": ["train"]}, "nothing is searched: the pairs have labels"),
        ({**PAIRS, "haystack": ["tran"]}, 'data.haystack = "tran": not a choice'),
        ({**PAIRS, "train_on": ["x", "x"]}, 'data.train_on: "x" stands there twice'),
        ({"text": "a", "label": "y", "label_range": [0, 1]}, "'text_pair' is missing"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(data, message):
    assert message in refusal(card_of, data)


def test_a_metric_must_fit_the_form():
    assert refusal(card_of, SCORED, "ap").endswith(
        "metrics: ap: not for scored; choose of spearman, pearson"
    )
    assert "metrics: spearman: not for pairs" in refusal(card_of, PAIRS, "spearman")


@pytest.mark.parametrize("data", [SCORED, {**JUDGED, "triples": True}, PAIRS, {"train_on": ["x"]}])
def test_a_card_is_read_back_from_what_is_written(data):
    card = card_of({**PAIRS, **data})
    assert parse_card(card_table(card), Path("mine.toml")).data == card.data


# Mixtures


@pytest.fixture
def mixture(tmp_path):
    """Three cards with their files; the first trains on the second and is scored on the third."""
    rows = {"one": "甲\t乙\t5", "two": "丙\t丁\t1", "three": "戊\t己"}
    for name, row in rows.items():
        (tmp_path / name).mkdir()
        for split in ("train", "dev"):
            (tmp_path / name / f"{split}.tsv").write_text(row + "\n", encoding="utf-8")
    columns = "header = false\ntext = 0\ntext_pair = 1\n"
    keys = {
        "one": ("spearman", 'label = 2\nlabel_range = [0, 5]\ntrain_on = ["two.toml"]\n'
                            'scored_on = ["three.toml"]\n'),
        "two": ("ap", 'label = 2\nyes = ["1"]\nno = ["0"]\n'),
        "three": ("mrr@10", 'haystack = ["train"]\n'),
    }  # fmt: skip
    for name, (metric, more) in keys.items():
        (tmp_path / f"{name}.toml").write_text(
            f'title = "t"\nkind = "embed"\nmetrics = ["{metric}"]\n[data]\nformat = "tsv"\n'
            f'train = "train.tsv"\ndev = "dev.tsv"\n{columns}{more}'
        )
    return tmp_path


def splits_of(folder: Path, data: Path | None = None) -> Any:
    remarks: list[str] = []
    train, scored = read_splits(load_card(folder / "one.toml"), data, remarks.append)
    return train, scored, remarks


def test_a_card_trains_on_others_files_and_is_scored_on_theirs(mixture):
    train, scored, remarks = splits_of(mixture)
    assert list(train) == ["train", "train two"]
    assert [one.examples[0].source for one in train.values()] == ["one", "two"]
    assert [one.examples[0].form for one in train.values()] == ["scored", "judged"]
    assert list(scored) == ["dev", "three"]
    assert scored["three"].card.metrics == ("mrr@10",)
    assert scored["three"].haystack == {"train": mixture / "three" / "train.tsv"}
    assert remarks == []


def test_an_encoding_is_that_of_all_files(mixture):
    for path in mixture.glob("*/*.tsv"):
        path.write_bytes(path.read_text(encoding="utf-8").encode("gb18030"))
    card = with_encoding(load_card(mixture / "one.toml"), "gb18030")
    train, scored = read_splits(card, None, print, encoding="gb18030")
    every = [*train.values(), *scored.values()]
    assert [one.examples[0].texts[0] for one in every] == ["甲", "丙", "甲", "戊"]


def test_without_its_own_training_file_only_others_are_trained_on(mixture):
    path = mixture / "one.toml"
    path.write_text(path.read_text().replace('train = "train.tsv"\n', ""))
    assert list(splits_of(mixture)[0]) == ["train two"]


def test_what_is_missing_is_an_error_in_train_and_a_remark_in_dev(mixture):
    (mixture / "three" / "dev.tsv").unlink()
    assert splits_of(mixture)[2] == ["three: no dev file of it there: not scored"]
    (mixture / "two" / "train.tsv").unlink()
    assert "no train file of two there" in refusal(splits_of, mixture)


def test_the_folder_of_one_task_is_not_that_of_all(mixture):
    found = refusal(splits_of, mixture, mixture / "one")
    assert "train.tsv: found for one and for two (train two); give the folder" in found


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("lcqmc", "one.toml: data.train_on: lcqmc is of the kind classify, not embed"),
        ("lcqcm_embed", "one.toml: data.train_on: no task 'lcqcm_embed'"),
        ("one.toml", "one.toml: data.train_on: one.toml trains on other cards itself"),
    ],
)
def test_another_card_must_be_one_to_train_on(mixture, card, message):
    path = mixture / "one.toml"
    path.write_text(path.read_text().replace("two.toml", card))
    assert message in refusal(splits_of, mixture)


def test_the_shipped_mixture_finds_all_its_files(data):
    card = load_card("zh_embed")
    train, scored = read_splits(card, data / "tasks", lambda line: None)
    assert {one.examples[0].form for one in train.values()} == {
        "scored", "triples", "judged", "pairs",
    }  # fmt: skip
    assert [name.removeprefix("train ") for name in train] == ["train", *card.data.train_on]
    assert list(scored) == ["dev", *card.data.scored_on]
