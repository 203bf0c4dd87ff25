"""The whole pipeline as a user runs it, on the sample text, cut short."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from zhbert.cli import main
from zhbert.errors import Interrupted
from zhbert.files import sha256_of
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForMaskedLM, BertForSequenceClassification, BertModel
from zhbert.pretraining.masked_accuracy import masked_accuracy
from zhbert.pretraining.quickstart import SAMPLE, HeldOutScore
from zhbert.pretraining.result import PretrainingResult
from zhbert.text.tokenizer import Tokenizer
from zhbert.zoo import packaged

SHORT = ["--set", "compile=no", "--set", "evaluate_every=0"]
SCRATCH = ["--from", "scratch", "--set", "model.hidden_size=32", *SHORT]
# A language so regular that a few steps learn it: the word after 第 is always 一章.
LINE = "第一章讲的是春天，第二章讲的是夏天。第三章讲的是秋天，第四章讲的是冬天。\n"
REGULAR = "\n\n".join(LINE * (3 + i % 5) + f"{i}" for i in range(200))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A user's text that can be learnt."""
    path = tmp_path / "我的文本.txt"
    path.write_text(REGULAR, encoding="utf-8")
    return path


def save_model(folder: Path, kind: type[BertModel], tokenizer: Tokenizer) -> Path:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), intermediate_size=64, **shape)
    model = kind(config, seed=1)
    if isinstance(model, BertForMaskedLM):
        # An untrained head, whose weights are as they were drawn, is refused.
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.mlm_head.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with the shipped vocabulary that knows nothing."""
    folder = tmp_path_factory.mktemp("models") / "small"
    return save_model(folder, BertForMaskedLM, Tokenizer.default())


Quickstart = Callable[..., tuple[int, str, str]]


@pytest.fixture
def quickstart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Quickstart:
    """Run the verb; what it returned, and what it printed to stdout and stderr."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        code = main(["quickstart", "--out", str(tmp_path / "run"), *map(str, words)])
        return code, *capsys.readouterr()

    return run


def test_the_sample_is_what_it_is_said_to_be() -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    articles = text.strip().split("\n\n")
    assert len(articles) >= 80
    assert len(re.findall("[\u4e00-\u9fff]", text)) >= 40_000
    lines = [line for line in text.splitlines() if line]
    assert len(lines) == len(set(lines))
    assert sum(bool(re.search("[A-Za-z]{2}", article)) for article in articles) >= 10
    assert sum(bool(re.search("[0-9]", article)) for article in articles) >= 10
    # Characters that only traditional text has.
    assert sum(len(re.findall("[這個們為說時會學過點]", article)) > 10 for article in articles) >= 5


def test_quickstart_shows_every_stage_and_leaves_a_model(
    quickstart: Quickstart, tmp_path: Path
) -> None:
    code, printed, _ = quickstart(*SCRATCH, "--set", "steps=6")
    assert code in (0, 1)  # six steps need not beat anything
    for number in range(1, 6):
        assert f"\n{number}/5 " in printed
    shown = ("before", "after", "held-out masked accuracy", "commonest piece", "min)")
    assert all(words in printed for words in shown)
    out = tmp_path / "run"
    for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer.json"):
        assert (out / "final" / name).is_file()
    code, _, said = quickstart(*SCRATCH, "--set", "steps=6")
    assert code == 2
    assert "--overwrite" in said
    inside = out / "我的.txt"
    inside.write_text("一段文字。\n", encoding="utf-8")
    code, _, said = quickstart(inside, "--overwrite", *SCRATCH)
    assert code == 2
    assert "--overwrite would remove the text " in said
    assert inside.is_file()


def test_a_model_learns_its_users_text_and_every_figure_is_told(
    quickstart: Quickstart, text: Path, model: Path, tmp_path: Path
) -> None:
    settings = ["optimizer.learning_rate=5e-3", "steps=80", "precision=fp32"]
    words = [word for setting in settings for word in ("--set", setting)]
    code, printed, _ = quickstart(text, "--from", model, *words, *SHORT, "--json")
    result = json.loads(printed)
    assert code == 0
    assert result["better"]
    assert result["better_than_baseline"]
    for strategy in ("wwm", "char"):
        figures = result["accuracy"][strategy]
        assert figures["before"] < figures["baseline"] < figures["after"] <= 1
    assert result["masked_lm_accuracy"] == result["accuracy"]["wwm"]["after"]
    assert result["kept_step"] <= result["steps"] == 80
    assert result["pieces"] > 30_000
    assert result["seconds"] > 0
    assert len(result["filled"]) == 5
    for filled in result["filled"]:
        # The user's own sentences, in which what was masked is found after training.
        assert filled["text"].replace("[MASK]" * len(filled["answer"]), filled["answer"]) in REGULAR
        assert filled["before"] != filled["after"]
    # What is told of the model is what is measured of it.
    (wwm,) = [
        line
        for line in masked_accuracy(tmp_path / "run" / "final", tmp_path / "run-corpus")
        if line["evaluation"] == "wwm"
    ]
    assert wwm["masked_lm_accuracy"] == pytest.approx(result["masked_lm_accuracy"], abs=2e-3)


def test_the_first_stage_shows_the_users_own_sentence(quickstart: Quickstart, text: Path) -> None:
    _, printed, _ = quickstart(text, *SCRATCH, "--set", "steps=1")
    first = printed.split("2/5")[0]
    assert "第一章讲的是春天，第二章讲的是夏天。" in first
    assert "[MASK]" in first


def test_a_model_of_another_vocabulary_gets_the_text_in_its_own(
    quickstart: Quickstart, text: Path, tmp_path: Path
) -> None:
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    other = Tokenizer([*special, *sorted(set(REGULAR) - {"\n"}), *map("##{}".format, range(10))])
    folder = save_model(tmp_path / "other", BertForMaskedLM, other)
    rate = ["--set", "steps=60", "--set", "optimizer.learning_rate=5e-3"]
    code, printed, _ = quickstart(text, "--from", folder, *SHORT, *rate, "--json")
    assert code == 0
    assert json.loads(printed)["better"]
    assert Tokenizer.from_pretrained(tmp_path / "run" / "final").vocabulary == other.vocabulary


def test_a_little_text_gets_few_steps(quickstart: Quickstart, model: Path, tmp_path: Path) -> None:
    text = tmp_path / "little.txt"
    lines = (f"第{i}天，孩子们在河边看见一只白色的大鸟。\n" for i in range(100))
    text.write_text("".join(lines), encoding="utf-8")
    code, printed, _ = quickstart(text, "--from", model, "--json", "--quiet")
    result = json.loads(printed)
    assert code == 0
    assert 10 <= result["steps"] < 60
    assert (tmp_path / "run-corpus").is_dir()


def test_a_model_that_learns_nothing_is_said_to_be_no_better_and_why(
    quickstart: Quickstart, text: Path, model: Path
) -> None:
    rate = ["--set", "optimizer.learning_rate=1e-12", "--set", "steps=2"]
    code, _, said = quickstart(text, "--from", model, *rate, *SHORT, "--quiet")
    assert code == 0, said
    assert re.search(
        r"no better than before: \d\d,\d{3} pieces of text, 2 steps .*More text helps", said
    )


def test_the_exit_code_is_1_if_a_new_model_is_worse_than_guessing(quickstart: Quickstart) -> None:
    rate = ["--set", "optimizer.learning_rate=1e-9", "--set", "steps=2"]
    # Random weights, and not those that begin as good as the guess.
    rate += ["--set", "initial_weights=bert"]
    code, _, said = quickstart(*rate, *SCRATCH, "--quiet")
    assert code == 1
    assert "worse than always guessing the commonest piece" in said


@pytest.mark.parametrize(("after", "predictions", "worse"), [
    (0.5, 1000, False), (0.49, 1000, False), (0.4, 1000, True), (0.4, 40, False),
])  # fmt: skip
def test_worse_is_what_chance_does_not_explain(after: float, predictions: int, worse: bool) -> None:
    assert HeldOutScore(0.5, after, 0.1, predictions).worse == worse


UNFIT = {
    "missing": (None, "no such file"),
    "empty": ("", "no text"),
    "ten lines": ("春天来了，院子里的桃花开了。\n" * 10, "too short"),
    "English": ("The quick brown fox jumps over the lazy dog.\n" * 100, "not Chinese"),
    "uncovered": ("春天来了𪚥。" * 300, r"\[UNK\].*zhbert vocab extend"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_an_unfit_text_is_one_line_before_anything_runs(
    quickstart: Quickstart, model: Path, tmp_path: Path, what: str
) -> None:
    content, said = UNFIT[what]
    text = tmp_path / "my.txt"
    if content is not None:
        text.write_text(content, encoding="utf-8")
    for source in (model, "scratch"):
        code, out, error = quickstart(text, "--from", source)
        assert (code, out) == (2, "")
        assert re.fullmatch(f"zhbert: error: .*my.txt: .*{said}.*\n", error)
        assert not list(tmp_path.glob("run*"))


def test_a_model_that_cannot_begin_is_one_line_before_anything_runs(
    quickstart: Quickstart, text: Path, model: Path, tmp_path: Path
) -> None:
    classifier = save_model(
        tmp_path / "classifier", BertForSequenceClassification, Tokenizer.default()
    )
    damaged = tmp_path / "damaged"
    shutil.copytree(model, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    empty = tmp_path / "empty"
    empty.mkdir()
    refusals = {
        "no/such/folder": "no such file or folder",
        "nosuchname": "no such model",
        classifier: "mask-filling head is missing",
        damaged: "model.safetensors",
        empty: "no model file",
    }
    for source, said in refusals.items():
        code, out, error = quickstart(text, "--from", source)
        assert (code, out) == (2, "")
        assert re.fullmatch(f"zhbert: error: .*{said}.*\n", error)
        assert not list(tmp_path.glob("run*"))


@pytest.fixture
def box(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small model as if it were the one in the box."""
    folder = tmp_path / "assets" / "zhbert-mini"
    shutil.copytree(model, folder)
    sums = "".join(f"{sha256_of(path)}  {path.name}\n" for path in folder.iterdir())
    (folder / "SHA256SUMS").write_text(sums, encoding="ascii")
    monkeypatch.setattr(packaged, "FOLDER", folder.parent)
    return folder


def test_the_default_is_the_model_in_the_box(
    quickstart: Quickstart, text: Path, box: Path, tmp_path: Path
) -> None:
    code, printed, _ = quickstart(text, *SHORT, "--set", "steps=1", "--json")
    assert code == 0
    assert json.loads(printed)["from"] == "zhbert-mini"
    assert 'initial_model = "zhbert-mini"' in (tmp_path / "run" / "recipe.toml").read_text("utf-8")


def test_a_damaged_model_in_the_box_is_one_line_before_anything_runs(
    quickstart: Quickstart, text: Path, box: Path, tmp_path: Path
) -> None:
    with (box / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    code, out, error = quickstart(text)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"zhbert: error: .*model.safetensors: damaged \(checksum .*\n", error)
    assert not list(tmp_path.glob("run*"))


def test_lines_that_are_all_alike_leave_nothing_to_measure_on(
    quickstart: Quickstart, model: Path, tmp_path: Path
) -> None:
    text = tmp_path / "alike.txt"
    text.write_text("孩子们在河边看见一只白色的大鸟。\n" * 100, encoding="utf-8")
    code, _, said = quickstart(text, "--from", model, "--quiet")
    assert code == 2
    assert re.search("error: [0-9,]+ of 1,600 pieces fell to the part .* they are alike", said)
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize("stage", ["prepare", "held_out_clozes", "pretrain"])
def test_ctrl_c_loses_nothing_and_says_how_to_go_on(
    quickstart: Quickstart, text: Path, model: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted

    words = [text, "--from", model, *SHORT, "--set", "steps=4"]
    command = ["zhbert", "quickstart", "--out", "run", *map(str, words)]
    monkeypatch.setattr("sys.argv", command)
    with monkeypatch.context() as patch:
        patch.setattr(f"zhbert.pretraining.quickstart.{stage}", interrupted)
        code, _, said = quickstart(*words)
    assert code == 130
    assert f"to go on: {shlex.join([*command, '--resume'])}\n" in said
    code, printed, _ = quickstart(*words, "--resume", "--json")
    assert code in (0, 1)
    assert json.loads(printed)["steps"] == 4


def test_a_signal_that_training_has_heard_is_told_with_the_way_on(
    quickstart: Quickstart, text: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = PretrainingResult(
        tmp_path / "run", step=3, pieces=9, seconds=1.0, signal=signal.SIGTERM
    )
    monkeypatch.setattr("zhbert.pretraining.quickstart.pretrain", lambda *_, **__: stopped)
    code, _, said = quickstart(text, "--from", model)
    assert code == 128 + signal.SIGTERM
    assert "nothing is lost; to go on: zhbert" in said


@pytest.mark.parametrize("setting", ["evaluation.rows=0", 'evaluation.strategies=["char"]'])
def test_without_anything_to_compare_it_does_not_begin(
    quickstart: Quickstart, text: Path, model: Path, setting: str
) -> None:
    code, out, said = quickstart(text, "--from", model, "--set", setting)
    assert (code, out) == (2, "")
    assert "nothing would be compared" in said


def test_a_finished_quickstart_that_goes_on_says_the_same_again(
    quickstart: Quickstart, text: Path, model: Path
) -> None:
    words = [text, "--from", model, *SHORT, "--set", "steps=2", "--json"]
    words += ["--set", "evaluation.keep_best=false"]
    figures = [json.loads(quickstart(*words, *more)[1]) for more in ((), ("--resume",))]
    assert figures[0]["accuracy"] == figures[1]["accuracy"]
    assert figures[0]["kept_step"] == figures[1]["kept_step"] == 2


def test_a_run_that_a_signal_stopped_goes_on_to_the_same_model(
    quickstart: Quickstart, text: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [text, "--from", model, *SHORT, "--set", "steps=4", "--json"]
    code, printed, _ = quickstart(*words)
    whole = json.loads(printed)
    run = tmp_path / "run"
    # As if the run had been killed before its end.
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "final")
    code, printed, _ = quickstart(*words, "--resume")
    assert code == 0
    again = json.loads(printed)
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}


def test_a_text_without_blank_lines_is_split_by_lines(
    quickstart: Quickstart, tmp_path: Path
) -> None:
    text = tmp_path / "one.txt"
    text.write_text(
        "".join(f"这是第{i}行，讲的是春天的故事。\n" for i in range(300)), encoding="utf-8"
    )
    _, printed, _ = quickstart(text, "--set", "steps=2", *SCRATCH)
    assert "documents  300 read" in printed
