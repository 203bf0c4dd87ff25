"""corpus and segment: figures that match the shards, text with visible words."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zhbert import cli
from zhbert.data.prepare import prepare
from zhbert.data.shards import Corpus

TEXT = "使用语言模型来预测下一个词的probability。真的吗？\n第二行。\n\n" + "短文。\n\n" * 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "a.txt").write_text(TEXT, encoding="utf-8")
    prepare([folder / "a.txt"], folder / "corpus", held_out=0)
    return folder / "corpus"


def test_documents_are_shown_with_words_apart(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["corpus", str(corpus), "--rows", "2", "--verify"]) == 0
    out = capsys.readouterr().out
    assert "使用 语言 模型 来 预测 下 一个 词 的 probability 。" in out
    assert "train document 0: 3 sentences" in out
    assert "checksums: as they were written" in out
    assert "\x1b" not in out
    assert all(len(line) <= 100 for line in out.split("\n"))


def test_the_figures_are_the_corpus_s(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["corpus", str(corpus), "--json", "--rows", "99"]) == 0
    report = json.loads(capsys.readouterr().out)
    (shard,) = Corpus.open(corpus).shards("train")
    assert report["totals"]["train"]["documents"] == shard.documents == 21
    assert len(report["documents"]) == 21
    assert report["documents"][0]["text"][1:] == ["真的 吗 ？", "第二行 。"]
    assert report["pieces_in_use"] == len(set(shard.pieces.tolist()))
    assert report["pieces_counted"] == report["totals"]["train"]["pieces"]


def test_an_empty_split_shows_no_documents(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["corpus", str(corpus), "--split", "held_out"]) == 0
    assert "document 0" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["/nowhere"], ["{}", "--rows", "-1"]])
def test_a_mistake_is_one_line(
    corpus: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["corpus", *(word.format(corpus) for word in arguments)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_bit_of_the_description_ends_a_verb_but_in_one_line(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    described = folder / "corpus.json"
    whole = described.read_bytes()
    codes = set()
    for number in range(150):
        damaged = bytearray(whole)
        damaged[number * len(whole) // 150] ^= 1 << number % 7
        described.write_bytes(damaged)
        for words in (["corpus", str(folder)], ["check", "tiny", "--corpus", str(folder)]):
            codes.add(cli.main(words))
            said = capsys.readouterr().err
            assert "Traceback" not in said
            assert sum("error: " in line for line in said.splitlines()) <= 1
    assert codes == {0, 2}


# ---------------------------------------------------------------- segment


def test_segment_puts_blanks_between_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.txt.gz"
    file.write_bytes(gzip.compress("使用語言模型。\n\n乾隆 hello world\n".encode()))
    assert cli.main(["segment", str(file)]) == 0
    assert capsys.readouterr().out == "使用 語言 模型 。\n\n乾隆 hello world\n"
    assert cli.main(["segment", str(file), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[0]) == ["使用", "語言", "模型", "。"]


def test_segmented_text_prepares_to_the_same_words(tmp_path: Path, corpus: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    segmented = subprocess.run(
        [sys.executable, "-m", "zhbert", "segment", tmp_path / "a.txt"],
        capture_output=True,
        check=True,
    ).stdout
    (tmp_path / "b.txt").write_bytes(segmented)
    prepare([tmp_path / "b.txt"], tmp_path / "corpus", segmenter="whitespace", held_out=0)
    (first,), (second,) = (
        Corpus.open(folder).shards("train") for folder in (corpus, tmp_path / "corpus")
    )
    assert first.pieces.tolist() == second.pieces.tolist()
    assert first.word_starts().tolist() == second.word_starts().tolist()
    assert first.sentence_starts().tolist() == second.sentence_starts().tolist()


def test_segment_answers_each_line_of_a_pipe_at_once() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "zhbert", "segment", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for line, words in (("你好世界\n", "你好 世界\n"), ("再见\n", "再见\n")):
        process.stdin.write(line)
        process.stdin.flush()
        begin = time.monotonic()
        assert process.stdout.readline() == words
        assert time.monotonic() - begin < 30
    process.stdin.close()
    assert process.wait() == 0
    process.stdout.close()


def test_segment_refuses_lines_that_are_not_utf8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_bytes(b"ok\n\xff\n")
    assert cli.main(["segment", str(tmp_path / "a.txt")]) == 2
    out, errors = capsys.readouterr()
    assert "\ufffd" not in out
    assert "a.txt:2: not UTF-8; --encoding gb18030" in errors
    (tmp_path / "a.txt").write_bytes("今天天气\n很好\n".encode("gbk"))
    assert cli.main(["segment", str(tmp_path / "a.txt"), "--encoding", "gbk"]) == 0
    assert capsys.readouterr().out == "今天天气\n很 好\n"
    assert cli.main(["segment", str(tmp_path)]) == 2
    assert cli.main(["segment", str(tmp_path / "a.txt"), "--segmenter", "nope"]) == 2
