"""Every card is valid and says what was published; a mistake in one is a line that helps."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from zhbert.errors import ZhbertError
from zhbert.tasks.card import CARDS_FOLDER
from zhbert.tasks.cards import (
    card_names,
    is_official_split,
    load_card,
    split_remark,
)
from zhbert.tasks.kinds import KINDS

NAMES = {
    "classify": (
        "afqmc", "bq", "chnsenticorp", "cmnli", "cola", "csl", "iflytek", "lcqmc", "mnli", "mrpc",
        "ocnli", "qnli", "qqp", "rte", "sst2", "thucnews", "thucnews_titles", "tnews", "wnli",
        "xnli",
    ),
    "regress": ("stsb", "stsb_zh"),
    "tag": ("cluener", "msra", "ner_peopledaily", "weibo"),
    "span": ("cjrc", "cmrc2018", "drcd", "squad1.1", "squad2.0"),
    "embed": (
        "atec_embed", "bq_embed", "cmrc2018_embed", "drcd_embed", "lcqmc_embed", "ocnli_embed",
        "pawsx_embed", "stsb_zh_embed", "xnli_embed", "zh_embed",
    ),
}  # fmt: skip

# Rows of the published table that are no task of ours: means over tasks, and pretraining.
NO_TASKS = ("average-of-8", "glue-score", "squad-score", "pretraining")
MNLI = {"mnli-m": ("mnli", "dev"), "mnli-mm": ("mnli", "dev_mismatched")}

CLASSIFY = """
title = "Mine"
kind = "classify"
metrics = ["accuracy"]
[data]
format = "csv"
train = "train.csv"
dev = "dev.csv"
text = "text"
label = "label"
labels = ["no", "yes"]
"""


@pytest.fixture
def write(tmp_path):
    """Write a card of one's own, with a line changed; return its path."""

    def write(old: str = "", new: str = "", text: str = CLASSIFY) -> Path:
        assert old in text
        path = tmp_path / "mine.toml"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return path

    return write


def test_the_folder_holds_these_cards_and_no_others():
    assert card_names() == sorted(name for names in NAMES.values() for name in names)
    assert len(list(CARDS_FOLDER.iterdir())) == len(card_names())


@pytest.mark.parametrize("name", card_names())
def test_every_card_is_valid_and_complete(name):
    card = load_card(name)
    assert name in NAMES[card.kind]
    assert card.name == name
    assert card.ships
    assert {"train", "dev"} <= set(card.data.splits)
    assert set(card.metrics) <= set(KINDS[card.kind].metric_names)
    assert card.settings.source, "says where its settings are from"
    assert ": " in card.title, "the list of tasks shows what stands after the colon"


def published(reference: Path) -> list[tuple[str, ...]]:
    with reference.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] not in NO_TASKS]
    return [
        (
            *MNLI.get(row["dataset"], (row["dataset"], row["split"])),
            row["source"],
            row["model"],
            row["metric"],
            row["max_or_only"],
            row["mean_of_10_seeds"],
        )
        for row in rows
    ]


def test_every_published_result_stands_in_its_card_and_no_other():
    reference = Path(__file__).parents[3] / "shared" / "reference" / "published_results.csv"
    cards = [card for name in card_names() if (card := load_card(name)).kind != "embed"]
    ours = [(card.name, one) for card in cards for one in card.published]
    assert len(ours) == 208
    if not reference.is_file():
        # The table lies beside the project where it is developed, and only there.
        return
    expected = {
        (task, split, source, model, metric, float(best), float(mean) if mean else None)
        for task, split, source, model, metric, best, mean in published(reference)
    }
    assert expected == {
        (
            task, one.split, one.source, one.model,
            f"{one.metric} (presumed)" if one.note else one.metric, one.max, one.mean,
        )
        for task, one in ours
    }  # fmt: skip
    assert len(expected) == len(ours)


def test_the_published_similarities():
    """The sets that everybody prints, each with its models' Spearman on test."""
    sets = ("atec", "bq", "lcqmc", "pawsx", "stsb_zh")
    table = {
        "CoSENT, RoBERTa-wwm-ext": (50.8, 71.5, 79.3, 61.6, 80.0),
        "SBERT, RoBERTa-wwm-ext": (48.3, 70.0, 79.2, 44.1, 72.4),
        "bge-small-zh": (43.2, 55.5, 72.6, 10.0, 76.5),
        "multilingual-e5-small": (35.1, 43.3, 72.7, 11.0, 77.7),
    }
    published = {name: load_card(f"{name}_embed").published for name in sets}
    for model, figures in table.items():
        ours = [one.max for name in sets for one in published[name] if one.model == model]
        assert ours == list(figures)
    others = {one.model: one.max for one in published["stsb_zh"] if one.model not in table}
    assert others == {
        "CoSENT, ERNIE-3.0-nano": 66.8, "BERT, mean": 54.7, "BERT, whitened": 68.1,
        "BERT, SimCSE": 67.0,
    }  # fmt: skip
    every = [one for ones in published.values() for one in ones]
    assert {(one.split, one.metric) for one in every} == {("test", "spearman")}


def test_the_published_learning_rates():
    """The table of the references: all wwm models, BERT as they, ERNIE its own."""
    table = {
        "cmrc2018": (3e-5, 8e-5), "drcd": (3e-5, 8e-5), "cjrc": (4e-5, 8e-5), "xnli": (3e-5, 5e-5),
        "chnsenticorp": (2e-5, 5e-5), "lcqmc": (2e-5, 3e-5), "bq": (3e-5, 5e-5),
        "thucnews": (2e-5, 5e-5),
    }  # fmt: skip
    for name, (usual, ernie) in table.items():
        card = load_card(name)
        assert card.settings_for().learning_rate == usual
        assert card.settings_for("bert").learning_rate == usual
        assert card.settings_for("ernie").learning_rate == ernie
        assert card.settings_for("ernie").epochs == card.settings.epochs


def test_a_cut_of_the_official_split_is_told_from_it():
    card = load_card("lcqmc")
    assert is_official_split(card, "dev", 8802) is True
    assert split_remark(card, "dev", 8802) == ""
    assert "1,000 examples here, the official dev 8,802" in split_remark(card, "dev", 1000)
    assert is_official_split(card, "dev", 9802) is False
    # Some distributions of QQP lack three rows more than others.
    assert is_official_split(load_card("qqp"), "train", 363_846) is True
    # Nobody says how many there are: neither yes nor no.
    assert is_official_split(load_card("cjrc"), "train", 5280) is None


def test_a_card_of_ones_own_needs_a_few_lines(write):
    card = load_card(write())
    assert card.name == "mine"
    assert not card.ships
    assert card.data.train == ("train.csv",)
    assert card.data.text == ("text",)
    assert card.data.labels == ("no", "yes")
    assert card.settings.warmup_share == 0.1


def test_labels_may_stand_in_a_file_beside_the_card(write):
    path = write('labels = ["no", "yes"]', 'labels_file = "class.txt"')
    with pytest.raises(ZhbertError, match=r"mine\.toml: data\.labels_file: reading .*class\.txt"):
        load_card(path)
    path.with_name("class.txt").write_text("\ufeff体育\n财经\n\n", encoding="utf-8")
    assert load_card(path).data.labels == ("体育", "财经")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "classify"', 'kind = "clasify"',
         """mine.toml: kind = "clasify": not a choice; did you mean 'classify'?"""),
        ('title = "Mine"', "", "mine.toml: 'title' is missing"),
        ('title = "Mine"', 'titel = "Mine"',
         "mine.toml: unknown key 'titel'; did you mean 'title'?"),
        ('title = "Mine"', "title = 3", "mine.toml: title = 3: must be a text"),
        ('title = "Mine"', 'written = ["epochs"]\ntitle = "Mine"',
         "mine.toml: unknown key 'written'; the card's name is its file's"),
        ('title = "Mine"', 'name = "Mine"',
         "mine.toml: unknown key 'name'; the card's name is its file's"),
        ('title = "Mine"', 'title = "Mine"\nlabels = ["0"]',
         "mine.toml: 'labels' belongs in [data]"),
        ('text = "text"', 'txt = "text"',
         "mine.toml: data: unknown key 'txt'; did you mean 'text'?"),
        ('text = "text"', "", "mine.toml: data: 'text' is missing: the column of the text"),
        ('text = "text"', "text = 1.5",
         "mine.toml: data.text = 1.5: must be a list of texts or numbers"),
        ('text = "text"', "text = -1", "mine.toml: data.text = -1: must be 0 or more"),
        ('format = "csv"', 'format = "jsonl"\nid = 3',
         "mine.toml: data.id = 3: must be a name: jsonl has no numbered columns"),
        ('format = "csv"', 'format = "csv"\nheader = false',
         'mine.toml: data.text = "text": without a header (header = false) a column is a number, '
         "from 0"),
        ('format = "csv"', 'format = "bio"',
         'mine.toml: data.format = "bio": not a choice; known: tsv, csv, jsonl, parquet'),
        ('format = "csv"', "", "mine.toml: data: 'format' is missing"),
        ('format = "csv"', 'format = "csv"\nsplit_column = "split"\nheader = false',
         "mine.toml: data.split_column: without a header (header = false) no column has a name"),
        ("[data]", "[date]", "mine.toml: unknown key 'date'; did you mean 'data'?"),
        ('["no", "yes"]', "[0, 1]", "mine.toml: data.labels = [0, 1]: must be a list of texts"),
        ('["no", "yes"]', '["no"]',
         'mine.toml: data.labels = ["no"]: name two or more, in the order of their ids, or name a '
         "labels_file"),
        ('["no", "yes"]', '["no", "no"]', 'mine.toml: data.labels: "no" stands there twice'),
        ('labels = ["no", "yes"]', 'labels = ["no", "yes"]\nlabel_names = ["No"]',
         "mine.toml: data.label_names: 1 names for 2 labels"),
        ('labels = ["no", "yes"]', 'labels = ["no", "yes"]\nrename_labels = { nay = "non" }',
         """mine.toml: data.rename_labels.nay = "non": not a choice; did you mean 'no'?"""),
        ('["accuracy"]', '["acuracy"]',
         """mine.toml: metrics = "acuracy": not a choice; did you mean 'accuracy'?"""),
        ('["accuracy"]', "[]",
         "mine.toml: metrics = []: name one or more of accuracy, f1, matthews, f1_micro, "
         "f1_macro, f1_weighted"),
        ('["accuracy"]', '["em"]',
         'mine.toml: metrics = "em": not a choice; known: accuracy, f1, matthews, f1_micro'),
        ('train = "train.csv"\ndev = "dev.csv"', "",
         "mine.toml: data: neither train nor dev names a file"),
        ("[data]", "[settings]\nepocs = 2\n[data]",
         "mine.toml: settings: unknown key 'epocs'; did you mean 'epochs'?"),
        ("[data]", "[settings]\nepochs = 0\n[data]",
         "mine.toml: settings.epochs = 0: must be above 0"),
        ("[data]", "[settings.ernie]\nlearning_rate = -1.0\n[data]",
         "mine.toml: settings.ernie.learning_rate = -1.0: must be above 0"),
        ("[data]", "[settings.smalll]\nepochs = 2\n[data]",
         'mine.toml: a section of settings = "smalll": not a choice; did you mean '
         "'small'?"),
        ("[data]", '[settings.ernie]\nlearning_rate = "high"\n[data]',
         'mine.toml: settings.ernie.learning_rate = "high": must be a number'),
        ("[data]", "[settings]\nwarmup_share = 2\n[data]",
         "mine.toml: settings.warmup_share = 2.0: must be from 0 to 1"),
        ("[data]", '[[published]]\nsource = "x"\nmodel = "y"\nsplit = "dev"\nmax = 9\n[data]',
         "mine.toml: published[0]: 'metric' is missing"),
        ("[data]", "[official]\ndef = 9\n[data]",
         'mine.toml: official = "def": not a choice; did you mean \'dev\'?'),
        ("[data]", "[data", "mine.toml: not valid TOML: "),
        ('"no", ', '"no\\t", ', "no tab or line end in a label, and no space around it"),
        ('"no", ', '"n\\no", ', "no tab or line end in a label"),
        ('"no", ', '" no", ', 'mine.toml: data.labels: " no": '),
        ("[data]", '[data]\ndrop_labels = ["- "]', 'data.drop_labels: "- ": no tab'),
        ("[data]", '[data]\nmore = { "a/b" = "x.csv" }',
         'data.more: "a/b": a split\'s name is made of letters, digits'),
        ("[data]",
         '[data]\nmore = { hard = "x", dev_hard = "y" }\nscored_with_dev = ["hard", "dev_hard"]',
         "the scores of two splits would be named hard"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_card_is_one_line(write, old, new, message):
    with pytest.raises(ZhbertError) as caught:
        load_card(write(old, new))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "lines", "message"),
    [
        ("regress", "", 'data.label_range = []: must be the lowest and the highest number'),
        ("regress", "label_range = [5, 0]", "data.label_range = [5.0, 0.0]: must be the lowest"),
        ("regress", 'label_range = ["0", "5"]', "must be a list of numbers"),
        ("multi_label", 'text = "a"\nformat = "tsv"\nlabels = ["x", "y"]\nheader = false',
         'data.text = "a": without a header (header = false) a column is a number'),
        ("multi_label", 'text = 0\nformat = "tsv"\nlabels = ["x", "y"]\nheader = false',
         "data: 'label' is missing: without a header (header = false) no column"),
        ("multi_label", 'text = "a"\nformat = "tsv"\nlabels = ["x", "y"]\nthreshold = 1.0',
         "data.threshold = 1.0: must be above 0 and below 1"),
        ("multi_label", 'text = "a"\nlabel = "l"\nformat = "tsv"\nlabels = ["x,y", "z"]',
         'data.labels: "x,y" holds label_delimiter, ","; choose another one'),
        ("multi_label", 'text = "a"\nformat = "tsv"\nlabels = ["x", "y"]\nlabel_delimiter = ""',
         'data.label_delimiter = "": must be a text, for example ","'),
        ("span", 'format = "squad"',
         """data: 'scorer' is missing; write scorer = "cmrc2018", or cjrc, squad1.1, squad2.0"""),
        ("span", 'format = "squad"\nscorer = "squad"', 'data.scorer = "squad": not a choice'),
        ("span", 'format = "squad"\nscorer = "cmrc2018"\nno_answer = true',
         "data.no_answer = true: cmrc2018 has no score for a question without an answer; the "
         "scorer must be cjrc or squad2.0"),
    ],
)  # fmt: skip
def test_every_kind_asks_for_its_own_keys(write, kind, lines, message):
    metric = KINDS[kind].metric_names[0]
    text = f'title = "t"\nkind = "{kind}"\nmetrics = ["{metric}"]\n[data]\ndev = "d"\n'
    if kind == "regress":
        text += 'format = "tsv"\ntext = "a"\nlabel = "b"\n'
    with pytest.raises(ZhbertError) as caught:
        load_card(write(text=text + lines))
    assert message in str(caught.value)


def test_f1_of_three_labels_is_refused(write):
    text = CLASSIFY.replace('"accuracy"', '"f1"').replace('"no", ', '"no", "perhaps", ')
    with pytest.raises(ZhbertError, match="f1 needs two labels, the second the positive one"):
        load_card(write(text=text))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lcqcm", "no task 'lcqcm'; a card of your own ends in .toml; did you mean 'lcqmc'?"),
        ("squad", "no task 'squad'; a card of your own ends in .toml; did you mean 'squad"),
        ("nowhere.toml", "nowhere.toml: no such file; 'zhbert tasks' lists the tasks by name"),
        ("./", "./: a folder, not a task"),
    ],
)
def test_an_unknown_card_is_one_line(name, message):
    with pytest.raises(ZhbertError) as caught:
        load_card(name)
    assert message in str(caught.value)


def test_a_card_that_is_no_text_is_one_line(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes("title = '题'".encode("gb18030"))
    with pytest.raises(ZhbertError, match="not UTF-8"):
        load_card(path)
