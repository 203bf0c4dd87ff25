"""zhbert predict: forms of input and output, order, bounded memory, one line for what is wrong."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.small_tasks import QUICK, make_model, make_task, texts

from zhbert.errors import ZhbertError
from zhbert.finetuning import fine_tuned
from zhbert.finetuning import predict as predict_module
from zhbert.finetuning.evaluate import evaluate
from zhbert.finetuning.fine_tuned import open_fine_tuned
from zhbert.finetuning.predict import predict
from zhbert.finetuning.run import finetune
from zhbert.tasks.cards import card_table, load_card
from zhbert.tasks.examples import TextExample
from zhbert.tasks.kinds.classify import Classify
from zhbert.tasks.read import read_examples, read_predictions
from zhbert.tasks.writers import PredictionWriter

SAMPLES = Path(__file__).parents[1] / "tasks" / "samples"
KINDS = ("classify", "multi_label", "regress", "tag", "span")


def model_of(tuned, kind):
    return tuned / kind / "run" / "seed-0" / "final"


def dev_of(tuned, kind):
    return next((tuned / kind).glob("dev.*"))


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_the_tasks_own_file_gives_what_finetune_predicted(tmp_path, tuned, kind):
    count = predict(model_of(tuned, kind), dev_of(tuned, kind), tmp_path / "out.jsonl")
    found = lines_of(tmp_path / "out.jsonl")
    expected = lines_of(tuned / kind / "run" / "seed-0" / "predictions.jsonl")
    assert count == len(found) == len(expected)
    for mine, line in zip(found, expected, strict=True):
        assert mine["id"] == line["id"]
        assert mine["prediction"] == pytest.approx(line["predicted"], abs=1e-4)
        if kind == "classify":
            assert mine["probabilities"] == pytest.approx(line["probabilities"], abs=1e-5)
            assert mine["probability"] == max(mine["probabilities"].values())


def inputs(folder, kind):
    """The same texts, written in every form that a file may have."""
    several = texts(9, 7)
    pairs = kind == "regress"
    rows = [(text, text[::-1]) if pairs else (text,) for text in several]
    names = ["text", "text_pair"][: len(rows[0])]
    files = {
        "plain.txt": "".join("\t".join(row) + "\n" for row in rows),
        "bom.txt": "\ufeff" + "".join("\t".join(row) + "\r\n" for row in rows),
        "table.tsv": "\n".join(["\t".join(["id", *names]), *("9\t" + "\t".join(r) for r in rows)]),
        "table.csv": "\n".join([",".join(names), *(",".join(f'"{x}"' for x in r) for r in rows)]),
        "lines.jsonl": "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return rows, [folder / name for name in files]


@pytest.mark.parametrize("kind", ["classify", "regress"])
def test_every_form_of_the_same_texts_gives_the_same(tmp_path, tuned, kind):
    rows, files = inputs(tmp_path, kind)
    results = []
    for file in files:
        predict(model_of(tuned, kind), file, tmp_path / "out.jsonl", overwrite=True)
        results.append(lines_of(tmp_path / "out.jsonl"))
    assert [line["text"] for line in results[0]] == [row[0] for row in rows]
    assert all(result == results[0] for result in results)


def test_parquet_is_read(tmp_path, tuned):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["好", "坏"]}), tmp_path / "in.parquet")
    predict(model_of(tuned, "classify"), tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert [line["text"] for line in lines_of(tmp_path / "out.jsonl")] == ["好", "坏"]


def test_a_table_has_a_column_for_every_label(tmp_path, tuned):
    (tmp_path / "in.txt").write_text("的好\n的坏\n", encoding="utf-8")
    predict(model_of(tuned, "classify"), tmp_path / "in.txt", tmp_path / "out.tsv")
    head, *rows = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert head == ["id", "prediction", "probability", "p(neg)", "p(pos)"]
    assert [row[0] for row in rows] == ["0", "1"]
    for _, label, most, negative, positive in rows:
        chances = {"neg": float(negative), "pos": float(positive)}
        assert label == max(chances, key=chances.__getitem__)
        assert float(most) == chances[label]
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)


def test_a_submission_is_what_score_reads(tmp_path, tuned):
    from zhbert.tasks.cards import load_card
    from zhbert.tasks.read import read_examples, read_predictions

    card, dev = load_card(tuned / "classify" / "my_classify.toml"), dev_of(tuned, "classify")
    out = tmp_path / "out.tsv"
    predict(model_of(tuned, "classify"), dev, out, submission=True)
    assert out.read_text(encoding="utf-8").splitlines()[0] == "index\tprediction"
    found = read_predictions(card, out, read_examples(card, dev, "dev"), dev, "dev")
    lines = lines_of(tuned / "classify" / "run" / "seed-0" / "predictions.jsonl")
    assert found == {line["id"]: line["predicted"] for line in lines}


@pytest.mark.parametrize(
    ("kind", "submission", "forms"),
    [
        ("classify", True, ".tsv, .json or .jsonl, as submissions of the kind classify do"),
        ("tag", True, ".txt, as submissions of the kind tag do"),
        ("classify", False, ".jsonl, .tsv or .csv; with --submission, in .tsv, .json or .jsonl"),
        ("tag", False, ".jsonl, .txt, .tsv or .json"),
    ],
)
def test_a_wrong_suffix_is_answered_with_the_kinds_forms(tmp_path, tuned, kind, submission, forms):
    both = model_of(tuned, kind), dev_of(tuned, kind)
    line = refusal(*both, tmp_path / "x.rank", submission=submission)
    assert line.endswith(f"x.rank: name a file that ends in {forms}")


def test_sentences_are_tagged_by_character(tmp_path, tuned):
    (tmp_path / "in.txt").write_text("我在他来中京\n我他大来 在中京\n", encoding="utf-8")
    predict(model_of(tuned, "tag"), tmp_path / "in.txt", tmp_path / "out.jsonl")
    for line in lines_of(tmp_path / "out.jsonl"):
        (entity,) = line["entities"]
        text = "".join(line["tokens"])
        assert (entity["text"], text[entity["start"] : entity["end"]]) == ("中京", "中京")
    predict(model_of(tuned, "tag"), dev_of(tuned, "tag"), tmp_path / "out.txt")
    expected = (tuned / "tag" / "run" / "seed-0" / "submission.txt").read_text(encoding="utf-8")
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == expected


def test_answers_by_id_and_questions_as_json_lines(tmp_path, tuned):
    predict(model_of(tuned, "span"), dev_of(tuned, "span"), tmp_path / "out.json")
    answers = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    submitted = tuned / "span" / "run" / "seed-0" / "submission.json"
    assert answers == json.loads(submitted.read_text(encoding="utf-8"))
    data = json.loads(dev_of(tuned, "span").read_text(encoding="utf-8"))["data"][0]["paragraphs"]
    questions = [
        {"id": q["id"], "question": q["question"], "context": one["context"]}
        for one in data
        for q in one["qas"]
    ]
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    predict(model_of(tuned, "span"), file, tmp_path / "out.jsonl")
    found = {line["id"]: line for line in lines_of(tmp_path / "out.jsonl")}
    assert {id_: line["prediction"] for id_, line in found.items()} == answers
    one = found["Q0"]
    context = questions[0]["context"]
    assert context[one["start"] :].startswith(one["prediction"])


def test_the_order_is_the_files_and_windows_do_not_matter(tmp_path, tuned, monkeypatch):
    several = [TextExample(str(n), text) for n, text in enumerate(texts(50, 3))]
    opened = open_fine_tuned(model_of(tuned, "classify"))
    whole = opened.predict(several)
    monkeypatch.setattr(fine_tuned, "WINDOW_EXAMPLES", 7)
    parts = list(opened.stream(iter(several)))
    assert [example.id for example, _ in parts] == [one.id for one in several]
    for mine, (_, other) in zip(whole, parts, strict=True):
        assert mine.value == other.value
        assert mine.details["probabilities"] == pytest.approx(
            other.details["probabilities"], abs=1e-5
        )


def test_a_file_is_read_as_it_is_needed(tuned, monkeypatch):
    monkeypatch.setattr(fine_tuned, "WINDOW_EXAMPLES", 10)
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield TextExample(str(len(taken)), "好")

    stream = open_fine_tuned(model_of(tuned, "classify")).stream(endless())
    for _ in range(25):
        next(stream)
    assert len(taken) <= 30
    monkeypatch.setattr(fine_tuned, "WINDOW_CHARACTERS", 5)
    before = len(taken)
    next(open_fine_tuned(model_of(tuned, "classify")).stream(endless()))
    assert len(taken) - before == 5


def test_stdin_and_stdout(tuned, monkeypatch, capsys):
    class Stdin:
        buffer = io.BytesIO("的好\n\n的坏".encode())

    monkeypatch.setattr(predict_module.sys, "stdin", Stdin())
    assert predict(model_of(tuned, "classify"), "-", "-") == 2
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in found] == ["的好", "的坏"]


def test_a_closed_stdin_is_one_line(tuned, monkeypatch):
    monkeypatch.setattr(predict_module.sys, "stdin", None)
    assert refusal(model_of(tuned, "classify"), "-", "-") == "stdin is closed; name a file"


def test_predictions_are_fp32_unless_bf16_is_asked_for(tmp_path, tuned, monkeypatch):
    used = []
    real = fine_tuned.run_model

    def run_model(*arguments, dtype):
        used.append(dtype)
        return real(*arguments, dtype=dtype)

    monkeypatch.setattr(fine_tuned, "run_model", run_model)
    for precision in ("fp32", "bf16"):
        out = tmp_path / f"{precision}.jsonl"
        predict(model_of(tuned, "classify"), dev_of(tuned, "classify"), out, precision=precision)
    assert used == [torch.float32, torch.bfloat16]
    for a, b in zip(*(lines_of(tmp_path / f"{p}.jsonl") for p in ("fp32", "bf16")), strict=True):
        assert a["probabilities"] == pytest.approx(b["probabilities"], abs=0.05)


def test_models_that_transformers_fine_tuned_are_opened(tmp_path, tuned):
    import transformers

    config = transformers.BertConfig.from_pretrained(model_of(tuned, "classify"))
    del config.zhbert
    config.id2label, config.label2id = {0: "否", 1: "是"}, {"否": 0, "是": 1}
    theirs = transformers.BertForSequenceClassification(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    transformers.AutoTokenizer.from_pretrained(model_of(tuned, "classify")).save_pretrained(
        tmp_path / "theirs"
    )
    (tmp_path / "in.txt").write_text("的好\t的坏\n的人\n", encoding="utf-8")
    predict(tmp_path / "theirs", tmp_path / "in.txt", tmp_path / "out.jsonl")
    pair, single = lines_of(tmp_path / "out.jsonl")
    assert pair["text_pair"] == "的坏"
    classify = transformers.pipeline("text-classification", str(tmp_path / "theirs"), top_k=None)
    (expected,) = classify([{"text": "的好", "text_pair": "的坏"}])
    assert pair["probabilities"] == pytest.approx(
        {one["label"]: one["score"] for one in expected}, abs=1e-4
    )
    assert set(single["probabilities"]) == {"否", "是"}


# -- what is refused -------------------------------------------------------------------------------


def refusal(*arguments, **options):
    with pytest.raises(ZhbertError) as caught:
        predict(*arguments, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_what_does_not_fit_is_one_line_and_leaves_nothing(tmp_path, tuned):
    classify, span = model_of(tuned, "classify"), model_of(tuned, "span")
    out = tmp_path / "out.jsonl"

    def line(text, name="in.txt", model=classify, target=out):
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
        said = refusal(model, tmp_path / name, target)
        assert not list(tmp_path.glob("*out*"))
        return said

    assert "no examples in it" in line("")
    assert "in.txt:2: not UTF-8" in line("好\n".encode() + b"\xff\xfe\n")
    assert line("words\n好\n", "in.tsv").endswith("no column text; there: words")
    assert "not JSON lines" in line("好\n", "in.jsonl")
    assert "in.txt:1: the model compares two texts" in line(
        "好\n", model=model_of(tuned, "regress")
    )
    assert "no column 'text_pair'" in line("text\n好\n", "in.tsv", model_of(tuned, "regress"))
    assert "no 'context'; there: question" in line('{"question": "好"}', "q.jsonl", span)
    assert "not JSON" in line("{", "q.json", span)
    assert "ends in .jsonl, .tsv or .csv" in line("好\n", target=tmp_path / "out.xml")
    assert line("a,b\n好,坏\n", "in.csv", model_of(tuned, "regress")).endswith(
        "no column text with text_pair; there: a, b"
    )
    assert "no such file" in refusal(classify, tmp_path / "nowhere.txt", out)
    assert "a folder; name a file in it" in refusal(classify, tmp_path, out)
    lost = tmp_path / "lost" / "out.jsonl"
    assert "no folder" in refusal(classify, tmp_path / "in.txt", lost)
    out.write_text("")
    assert "--overwrite" in refusal(classify, tmp_path / "in.txt", out)


def test_the_file_itself_is_never_written_over(tmp_path, tuned):
    source = tmp_path / "texts.tsv"
    text = dev_of(tuned, "classify").read_text(encoding="utf-8")
    source.write_text(text, encoding="utf-8")
    (tmp_path / "link.tsv").symlink_to(source)
    for out in (source, tmp_path / "link.tsv", tmp_path / "." / "texts.tsv"):
        line = refusal(model_of(tuned, "classify"), source, out, overwrite=True)
        assert "is the file to predict for; give another name" in line
    assert source.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_clues_submission_is_an_object_a_line(tmp_path, tuned, suffix):
    card = load_card("afqmc")
    opened = card_of_clue(tuned, tmp_path)
    out = tmp_path / f"afqmc_predict{suffix}"
    predict(opened, SAMPLES / "afqmc" / "test.json", out, submission=True)
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines[0] in ('{"id": 0, "label": "0"}', '{"id": 0, "label": "1"}')
    assert [json.loads(line)["id"] for line in lines] == list(range(10))
    gold = SAMPLES / "afqmc" / "dev.json"
    # What is handed in is read back by ``score``.
    assert len(read_predictions(card, out, read_examples(card, gold, "dev"), gold, "dev")) == 10


def card_of_clue(tuned, folder):
    """A classifier of pairs, as if it had been fine-tuned for AFQMC."""
    final = shutil.copytree(model_of(tuned, "classify"), folder / "clue")
    config = json.loads((final / "config.json").read_text(encoding="utf-8"))
    card = load_card("afqmc")
    kept = {key: card_table(card)[key] for key in ("title", "kind", "language", "metrics", "data")}
    config["zhbert"] |= {"task": "afqmc", "card": kept}
    config["id2label"] = dict(enumerate(card.data.labels))
    (final / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return final


def test_cjrcs_submission_is_a_list(tmp_path):
    card = make_task(tmp_path / "task", "span")
    text = card.read_text(encoding="utf-8").replace("squad1.1", "cjrc")
    card.write_text(text, encoding="utf-8")
    model = make_model(tmp_path / "model")
    finetune(card, model, None, tmp_path / "run", [*QUICK, "epochs=1"])
    final = tmp_path / "run" / "seed-0" / "final"
    predict(final, card.with_name("dev.json"), tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [sorted(one) for one in found] == [["answer", "id"]] * 24
    submission = tmp_path / "run" / "seed-0" / "submission.json"
    assert json.loads(submission.read_text(encoding="utf-8")) == found


def test_tagged_lines_hold_every_token_on_one(tmp_path, tuned):
    (tmp_path / "in.jsonl").write_text('{"text": "北\\n京"}\n', encoding="utf-8")
    predict(model_of(tuned, "tag"), tmp_path / "in.jsonl", tmp_path / "out.txt")
    lines = (tmp_path / "out.txt").read_text(encoding="utf-8").split("\n")
    assert [line[0] for line in lines[:3]] == ["北", " ", "京"]
    assert len(lines) == 4
    (tmp_path / "in.jsonl").write_text('{"tokens": []}\n', encoding="utf-8")
    line = refusal(model_of(tuned, "tag"), tmp_path / "in.jsonl", tmp_path / "empty.txt")
    assert "the sentence '0' is empty, which tagged lines cannot hold; write .jsonl" in line
    assert predict(model_of(tuned, "tag"), tmp_path / "in.jsonl", tmp_path / "out.jsonl") == 1


def test_a_full_disk_is_one_line_with_the_files_name(tmp_path, tuned, monkeypatch):
    def full(example, prediction):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "in.txt").write_text("好\n", encoding="utf-8")
    monkeypatch.setattr(Classify, "writers", lambda *_: {".jsonl": PredictionWriter(full)})
    line = refusal(model_of(tuned, "classify"), tmp_path / "in.txt", tmp_path / "out.jsonl")
    assert line.startswith(f"writing {tmp_path / 'out.jsonl'}: the disk is full")
    assert not list(tmp_path.glob("*out*"))


def test_a_model_that_is_not_fine_tuned_is_refused(tmp_path, tuned):
    (tmp_path / "in.txt").write_text("好\n", encoding="utf-8")
    line = refusal(tuned / "model", tmp_path / "in.txt", tmp_path / "out.jsonl")
    assert "BertForPreTraining: not fine-tuned for a task" in line


def test_memory_does_not_grow_with_the_file(tmp_path, tuned):
    """Ten times the lines, about the same peak."""
    code = (
        "import resource, sys; from zhbert import predict; predict(*sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for factor in (1, 10):
        file = tmp_path / f"{factor}.txt"
        file.write_text("".join(f"{text}\n" for text in texts(3000, 1)) * factor, encoding="utf-8")
        result = subprocess.run(
            [sys.executable, "-c", code, str(model_of(tuned, "classify")), str(file),
             str(tmp_path / f"{factor}.tsv")],
            capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        peaks.append(int(result.stdout))
    assert peaks[1] < peaks[0] + 40_000


def test_a_csv_holds_no_formula_and_is_read_back(tmp_path, tuned):
    model = shutil.copytree(model_of(tuned, "classify"), tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["zhbert"]["card"]["data"]["id"] = ["number"]
    (model / "config.json").write_text(json.dumps(config))
    rows = [f'"=cmd|{n}",{text}' for n, text in enumerate(texts(4, 7))]
    (tmp_path / "in.csv").write_text("\n".join(["number,text", *rows]))
    predict(model, tmp_path / "in.csv", tmp_path / "out.csv")
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[0] == "id,prediction,probability,p(neg),p(pos)"
    assert [row.split(",")[0] for row in rows[1:]] == [f"'=cmd|{n}" for n in range(4)]
    card = open_fine_tuned(model).card
    examples = [TextExample(f"=cmd|{n}", "") for n in range(4)]
    found = read_predictions(card, tmp_path / "out.csv", examples, tmp_path / "in.csv", "dev")
    assert list(found) == [one.id for one in examples]


def test_entities_are_written_as_cluener_wants_them(tmp_path, tuned):
    for name in ("out.json", "out.jsonl"):
        predict(model_of(tuned, "tag"), dev_of(tuned, "tag"), tmp_path / name)
    lines = lines_of(tmp_path / "out.json")
    assert any(one["label"] for one in lines)
    for one, expected in zip(lines, lines_of(tmp_path / "out.jsonl"), strict=True):
        assert (str(one["id"]), one["text"]) == (expected["id"], "".join(expected["tokens"]))
        spans = {
            (kind, text, *place)
            for kind, names in one["label"].items()
            for text, places in names.items()
            for place in places
        }
        assert spans == {
            (e["type"], e["text"], e["start"], e["end"] - 1) for e in expected["entities"]
        }


def test_an_encoding_is_named_or_said(tmp_path, tuned):
    several = texts(5, 7)
    (tmp_path / "in.txt").write_text("\n".join(several))
    predict(model_of(tuned, "classify"), tmp_path / "in.txt", tmp_path / "expected.jsonl")
    for encoding in ("gb18030", "utf-16"):
        (tmp_path / "in.txt").write_bytes("\n".join(several).encode(encoding))
        both = model_of(tuned, "classify"), tmp_path / "in.txt"
        with pytest.raises(ZhbertError, match=r"in\.txt:1: not UTF-8 .*--encoding"):
            predict(*both, tmp_path / f"{encoding}.jsonl")
        predict(*both, tmp_path / f"{encoding}.jsonl", encoding=encoding)
        assert lines_of(tmp_path / f"{encoding}.jsonl") == lines_of(tmp_path / "expected.jsonl")


@pytest.mark.parametrize(("kind", "remark"), [
    ("classify", "3 of 5 texts are longer than sequence_length = 32: their ends are cut off"),
    ("span", "3 of 5 questions are longer than 14 pieces, half of the row (sequence_length = 32): "
     "their ends are cut off"),
    ("tag", None),  # long sentences are read in parts
])  # fmt: skip
def test_texts_that_are_cut_are_counted_once_over_all_windows(
    tmp_path, tuned, monkeypatch, kind, remark
):
    monkeypatch.setattr(fine_tuned, "WINDOW_EXAMPLES", 2)
    file, said = tmp_path / "in.jsonl", []
    several = ["好" * length for length in (3, 40, 50, 4, 60)]
    rows = [{"question": one, "context": "在京"} if kind == "span" else {"text": one}
            for one in several]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    predict(model_of(tuned, kind), file, tmp_path / "out.jsonl", say=said.append)
    assert [line for line in said if "longer" in line] == [remark] * (remark is not None)


def test_evaluate_says_that_texts_are_cut(tmp_path, tuned):
    file, said = tmp_path / "dev.tsv", []
    file.write_text(f"text\tlabel\n{'好' * 40}\tpos\n好\tneg\n", "utf-8")
    card = tuned / "classify" / "my_classify.toml"
    evaluate(model_of(tuned, "classify"), card, file, remark=said.append)
    assert "1 of 2 texts are longer than sequence_length = 32: their ends are cut off" in said
