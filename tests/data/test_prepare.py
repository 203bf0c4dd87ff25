"""prepare: nothing is lost, nothing depends on the workers, and interrupted work goes on."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rjieba
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zhbert import cli
from zhbert.data import SPLITS
from zhbert.data import prepare as job
from zhbert.data.account import describe
from zhbert.data.prepare import prepare
from zhbert.data.read_options import ReadOptions
from zhbert.data.shards import Corpus
from zhbert.errors import ZhbertError
from zhbert.text.sentences import _line_ends
from zhbert.text.simplify import simplify
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.words import align

HAN = "使用语言模型来预测下一个词的研究生命中国家人民大会这是不了在有我他们学习时间"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", *HAN, *"。！？，…”“abcdse01"]
PIECES += ["##" + letter for letter in "abcdse01"] + ["sep", "ab", "##bc"]


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "ReadOptions", functools.partial(ReadOptions, block_bytes=2000))


def articles(count: int, seed: int = 0) -> str:
    """Documents of random words; some lines occur more than once."""
    rng = np.random.default_rng(seed)
    lines = ["".join(rng.choice(list(HAN + "。，"), 30)) + "。" for _ in range(count)]
    lines += lines[: count // 4]
    documents = ["\n".join(rng.choice(lines, rng.integers(1, 6))) for _ in range(count)]
    return "\n\n".join(documents) + "\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def fingerprint(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def documents_of(
    folder: Path, split: str
) -> list[tuple[list[int], list[bool], list[int], list[int]]]:
    """(pieces, word starts, sentence starts, line starts) of each document."""
    found = []
    for shard in Corpus.open(folder).shards(split):
        words, sentences, lines = shard.word_starts(), shard.sentence_starts(), shard.line_starts()
        for a, b in pairwise(shard.document_starts.tolist()):
            inside = [
                (starts[(starts >= a) & (starts < b)] - a).tolist() for starts in (sentences, lines)
            ]
            found.append((shard.pieces[a:b].tolist(), words[a:b].tolist(), *inside))
    return found


# ---------------------------------------------------------------- what is written


def slow_document(lines: Sequence[str], tokenizer: Tokenizer) -> tuple[list, list, list, list]:
    """One document by the definitions, sentence by sentence and word by word."""
    pieces: list[int] = []
    words: list[bool] = []
    sentences, starts = [], []
    for line in lines:
        line_start = len(pieces)
        for a, b in pairwise([0, *_line_ends(line)]):
            sentence = line[a:b]
            encoding = tokenizer.encode(sentence, special_tokens=False)
            ends = np.cumsum([len(word) for word in rjieba.cut(simplify(sentence))])
            if len(encoding):
                sentences.append(len(pieces))
                words += align(encoding.offsets, ends)[0].tolist()
                pieces += encoding.ids.tolist()
        if len(pieces) > line_start:
            starts.append(line_start)
    return pieces, words, sentences, starts


def assert_is_what_the_definitions_say(folder: Path, documents: list[list[str]]) -> None:
    tokenizer = Tokenizer.from_pretrained(folder)
    expected = [slow_document(lines, tokenizer) for lines in documents]
    expected = [document for document in expected if document[0]]
    found = documents_of(folder, "train")
    if Corpus.open(folder).info["totals"]["held_out"]["documents"]:
        # Held-out documents stand apart; both parts keep the input's order.
        held_out = documents_of(folder, "held_out")
        rest = list(expected)
        for document in held_out:
            rest.remove(document)
        assert found == rest
    else:
        assert found == expected


TEXT = st.lists(
    st.lists(
        st.text(st.sampled_from(HAN + '。！？…”“"， abc01[SEP]語體\u0301\u3000!'), max_size=25),
        max_size=4,
    ),
    max_size=5,
)


@given(TEXT)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_a_corpus_is_what_the_definitions_say(
    tmp_path: Path, vocab: Path, text: list[list[str]]
) -> None:
    documents = [["使用。"], *([line for line in lines if line.strip()] for lines in text)]
    file = write(tmp_path / "a.txt", "\n\n".join("\n".join(lines) for lines in documents))
    prepare([file], tmp_path / "corpus", vocab=vocab, held_out=0, overwrite=True)
    assert_is_what_the_definitions_say(tmp_path / "corpus", documents)


def test_real_text_is_what_the_definitions_say(tmp_path: Path, data: Path) -> None:
    for name in ("mixed", "tech", "law_traditional"):
        raw = (data / "corpus" / f"{name}.txt").read_bytes()[:60_000]
        raw = raw[: raw.rfind(b"\n\n")]
        file = write(tmp_path / "a.txt", raw)
        prepare([file], tmp_path / "corpus", held_out=0.2, overwrite=True)
        documents = [part.split("\n") for part in raw.decode().split("\n\n")]
        assert_is_what_the_definitions_say(tmp_path / "corpus", documents)


INPUT = st.lists(
    st.sampled_from(
        ["使用语言。\n", "下一个词\n", "\n", "\n\n", "\x01\n", "\r\n", "[SEP]在[MASK]\n", "…！？\n",
         " \u3000\n", "使用" * 40 + "\n", "\0有\n"]
    ).map(str.encode)
    | st.just(b"\xff\n"),
    max_size=20,
).map(b"".join)  # fmt: skip


@given(
    raws=st.lists(INPUT, min_size=1, max_size=3),
    options=st.fixed_dictionaries(
        {
            "documents": st.sampled_from(["blank", "line", "file"]),
            "deduplicate": st.booleans(),
            "scatter": st.booleans(),
            "held_out": st.sampled_from([0.0, 0.5]),
        }
    ),
    block_bytes=st.sampled_from([100, 1000]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_every_document_line_and_piece_is_accounted_for(
    tmp_path: Path,
    vocab: Path,
    monkeypatch: pytest.MonkeyPatch,
    raws: list[bytes],
    options: dict[str, Any],
    block_bytes: int,
) -> None:
    monkeypatch.setattr(
        job,
        "ReadOptions",
        functools.partial(ReadOptions, block_bytes=block_bytes, document_bytes=60),
    )
    files = [write(tmp_path / f"{number}.txt", raw) for number, raw in enumerate(raws)]
    files.append(
        write(tmp_path / "last.jsonl", '{"text": "中国人民。\\n大会"}\n{"text": 1}\nx\n{}\n')
    )
    out = tmp_path / "corpus"
    report = prepare(files, out, vocab=vocab, overwrite=True, **options)
    read = report["read"]
    documents, lines, pieces = read["documents"], read["lines"], read["pieces"]
    skipped = sum(documents.pop("skipped").values())
    assert documents.pop("found") == sum(documents.values()) + skipped
    assert lines.pop("found") == sum(lines.values())
    assert pieces.pop("encoded") == sum(pieces.values())
    assert skipped >= 3
    # The account is that of the files themselves.
    for split in SPLITS:
        found = documents_of(out, split)
        totals = report["totals"][split]
        assert totals["documents"] == documents[split] == len(found)
        assert totals["pieces"] == pieces[split] == sum(len(d[0]) for d in found)
        assert totals["words"] == sum(sum(d[1]) for d in found)
        assert totals["sentences"] == sum(len(d[2]) for d in found)
        assert totals["lines"] == lines[split] == sum(len(d[3]) for d in found)
        for document in found:
            assert document[0]
            assert document[1][0]
            assert document[2][0] == document[3][0] == 0
            assert set(document[3]) <= set(document[2])
            assert all(document[1][start] for start in document[2])
    alignment = report["alignment"]
    assert alignment["pieces"] == sum(pieces.values())
    assert alignment["words"] == sum(totals["words"] for totals in report["totals"].values())
    text = b"".join(raws).decode(errors="ignore")
    if not options["deduplicate"]:
        assert read["special_token_strings"].get("[SEP]", 0) == text.count("[SEP]")


def test_strings_like_special_tokens_are_plain_text_and_counted(
    tmp_path: Path, vocab: Path
) -> None:
    file = write(tmp_path / "a.txt", "使用[SEP]语言[MASK]。[SEP]\n")
    report = prepare([file], tmp_path / "corpus", vocab=vocab, held_out=0)
    assert report["read"]["special_token_strings"] == {"[MASK]": 1, "[SEP]": 2}
    ((pieces, *_),) = documents_of(tmp_path / "corpus", "train")
    assert not set(pieces) & {0, 2, 3, 4}


def test_held_out_documents_are_chosen_by_their_text(tmp_path: Path, vocab: Path) -> None:
    text = articles(600)
    whole = prepare([write(tmp_path / "a.txt", text)], tmp_path / "a", vocab=vocab, held_out=0.1)
    share = whole["totals"]["held_out"]["documents"] / 600
    assert 0.06 < share < 0.14
    # Another order, other line ends, other files: the same documents.
    backwards = "\r\n\r\n\r\n".join(
        document.replace("\n", "\r\n") for document in reversed(text.strip().split("\n\n"))
    )
    prepare([write(tmp_path / "b.txt", backwards)], tmp_path / "b", vocab=vocab, held_out=0.1)
    first = documents_of(tmp_path / "a", "held_out")
    assert sorted(first) == sorted(documents_of(tmp_path / "b", "held_out"))
    # A larger share holds out the same ones and more.
    prepare([tmp_path / "a.txt"], tmp_path / "c", vocab=vocab, held_out=0.3)
    more = documents_of(tmp_path / "c", "held_out")
    assert all(document in more for document in first)


def test_deduplicating_keeps_the_first_of_equal_lines(
    tmp_path: Path, vocab: Path, small_blocks: None
) -> None:
    file = write(tmp_path / "a.txt", articles(300))
    report = prepare([file], tmp_path / "corpus", vocab=vocab, held_out=0, deduplicate=True)
    seen: set[str] = set()
    documents = []
    for document in file.read_text(encoding="utf-8").split("\n\n"):
        kept = [line for line in document.split("\n") if line and line not in seen]
        kept = list(dict.fromkeys(kept))
        seen.update(kept)
        documents.append(kept)
    assert len(report["shards"]["train"]) > 3
    assert_is_what_the_definitions_say(tmp_path / "corpus", documents)
    read = report["read"]
    assert read["documents"]["duplicates_only"] == sum(not document for document in documents) > 0
    assert read["lines"]["train"] == len(seen)


def test_scattered_documents_stand_beside_those_of_other_blocks(
    tmp_path: Path, vocab: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.txt", articles(300))
    options: dict[str, Any] = {"vocab": vocab, "held_out": 0.1}
    prepare([file], tmp_path / "plain", **options)
    few = functools.partial(job.scattered_shards, most_blocks=8)
    monkeypatch.setattr(job, "scattered_shards", few)
    prepare([file], tmp_path / "scattered", scatter=True, **options)
    plain, scattered = (documents_of(tmp_path / name, "train") for name in ("plain", "scattered"))
    assert sorted(plain) == sorted(scattered)
    assert documents_of(tmp_path / "plain", "held_out") == documents_of(
        tmp_path / "scattered", "held_out"
    )
    # Of a document and the next one: how far they stood apart. At random it would be a third.
    place = {str(document): number for number, document in enumerate(plain)}
    places = np.array([place[str(document)] for document in scattered])
    assert np.abs(np.diff(places)).mean() > 0.25 * len(places)
    sizes = [
        entry["pieces"] for entry in Corpus.open(tmp_path / "scattered").info["shards"]["train"]
    ]
    assert max(sizes) < 3 * np.mean(sizes)


@pytest.mark.parametrize("held_out", [0, 1e-9])
def test_few_documents_are_scattered_likewise(
    tmp_path: Path, vocab: Path, small_blocks: None, held_out: float
) -> None:
    for count in (1, 2, 40):
        file = write(tmp_path / "a.txt", articles(count))
        report = prepare(
            [file], tmp_path / "c", vocab=vocab, held_out=held_out, scatter=True, overwrite=True
        )
        found = report["read"]["documents"]["found"]
        assert sum(len(documents_of(tmp_path / "c", split)) for split in SPLITS) == found >= count


# ---------------------------------------------------------------- workers, interruptions


def test_the_bytes_do_not_depend_on_workers_time_or_place(
    tmp_path: Path, vocab: Path, small_blocks: None
) -> None:
    text = articles(150)
    first = write(tmp_path / "a.txt", text)
    (tmp_path / "elsewhere").mkdir()
    second = write(tmp_path / "elsewhere" / "b.txt", text + "\n坏\n")
    second.write_bytes(second.read_bytes().replace("坏".encode(), b"\xff"))
    first.write_bytes(second.read_bytes())
    options: dict[str, Any] = {
        "vocab": vocab,
        "held_out": 0.1,
        "deduplicate": True,
        "scatter": True,
    }
    prepare([first], tmp_path / "1", workers=1, **options)
    prepare([second], tmp_path / "elsewhere" / "3", workers=3, **options)
    expected = fingerprint(tmp_path / "1")
    assert len(expected) > 8
    assert fingerprint(tmp_path / "elsewhere" / "3") == expected


SCRIPT = """
import functools, os, signal, sys
from zhbert.data.read_options import ReadOptions
from zhbert.data import prepare as job

def kill_self(stage, read, total, calls=[]):
    calls.append(read)
    if len(calls) == {calls}:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    job.ReadOptions = functools.partial(ReadOptions, block_bytes=2000)
    job.prepare([sys.argv[1]], sys.argv[2], vocab=sys.argv[3], held_out=0.1,
                segmenter="whitespace", workers={workers}, progress=kill_self)
"""


def assert_all_ended(group: int) -> None:
    """No process of the group outlives its first one for long."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("a process is left")


@pytest.mark.parametrize("workers", [1, 2])
def test_work_goes_on_after_kill_9(
    tmp_path: Path, vocab: Path, small_blocks: None, workers: int
) -> None:
    file = write(tmp_path / "a.txt", articles(150))
    script = write(tmp_path / "script.py", SCRIPT.format(calls=7, workers=workers))
    out = tmp_path / "corpus"
    killed = subprocess.Popen([sys.executable, script, file, out, vocab], start_new_session=True)
    assert killed.wait() == -signal.SIGKILL
    assert_all_ended(killed.pid)
    finished = {path: path.stat().st_mtime_ns for path in out.glob("train-*.arrow")}
    assert len(finished) >= 6
    with pytest.raises(ZhbertError, match="prepare has not finished here"):
        Corpus.open(out)
    # Half a file that the kill left behind is swept away.
    write(out / ".train-00099.arrow.zhbert-0123abcd.tmp", "half")
    options: dict[str, Any] = {"vocab": vocab, "held_out": 0.1, "segmenter": "whitespace"}
    report = prepare([file], out, **options)
    # The kill may have come between a file and the note that it is finished.
    assert report["reused_blocks"] >= len(finished) - 1
    kept = [path for path, time in finished.items() if path.stat().st_mtime_ns == time]
    assert len(kept) >= len(finished) - 1
    prepare([file], tmp_path / "whole", **options)
    assert fingerprint(out) == fingerprint(tmp_path / "whole")


def interrupted(tmp_path: Path, vocab: Path, file: Path, out: Path, **options: Any) -> None:
    """Prepare a part, then stop as by Ctrl-C."""

    def stop(stage: str, read: int, total: int) -> None:
        if stage == "words and pieces" and read > 8000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([file], out, vocab=vocab, progress=stop, **options)


@pytest.mark.parametrize("scatter", [False, True])
def test_a_changed_block_is_done_again_and_the_others_are_kept(
    tmp_path: Path, vocab: Path, small_blocks: None, scatter: bool
) -> None:
    text = articles(150)
    file = write(tmp_path / "a.txt", text)
    interrupted(tmp_path, vocab, file, tmp_path / "corpus", scatter=scatter)
    file.write_bytes((text[:10].replace(text[3], "人") + text[10:]).encode())
    report = prepare([file], tmp_path / "corpus", vocab=vocab, scatter=scatter)
    assert report["reused_blocks"] > 0
    prepare([file], tmp_path / "whole", vocab=vocab, scatter=scatter)
    assert fingerprint(tmp_path / "corpus") == fingerprint(tmp_path / "whole")


def test_other_settings_on_unfinished_work_are_named(
    tmp_path: Path, vocab: Path, small_blocks: None
) -> None:
    file = write(tmp_path / "a.txt", articles(150))
    out = tmp_path / "corpus"
    interrupted(tmp_path, vocab, file, out)
    with pytest.raises(ZhbertError, match=r"\(--held-out was 0\.01, now is 0\.5\)"):
        prepare([file], out, vocab=vocab, held_out=0.5)
    # --overwrite begins anew; without other settings it goes on.
    assert prepare([file], out, vocab=vocab, held_out=0.5, overwrite=True)["reused_blocks"] == 0
    shorter = write(tmp_path / "b.txt", "使用。\n")
    prepare([shorter], out, vocab=vocab, overwrite=True, held_out=0)
    prepare([shorter], tmp_path / "whole", vocab=vocab, held_out=0)
    assert fingerprint(out) == fingerprint(tmp_path / "whole")


@pytest.mark.parametrize("options", [{}, {"deduplicate": True, "workers": 2}])
def test_finished_blocks_of_another_text_are_not_thrown_away(
    tmp_path: Path, vocab: Path, small_blocks: None, options: dict[str, Any]
) -> None:
    text = articles(150)
    file, out = write(tmp_path / "a.txt", text), tmp_path / "corpus"
    prepare([file], tmp_path / "whole", vocab=vocab, **options)
    interrupted(tmp_path, vocab, file, out, **options)
    finished = {path.name for path in (out / ".partial").glob("[0-9]*.json")}
    assert finished
    for other in ("使用。\n", articles(150, seed=1)):
        with pytest.raises(ZhbertError, match=r"unfinished corpus of other text .*--overwrite"):
            prepare([write(tmp_path / "b.txt", other)], out, vocab=vocab, **options)
    assert finished <= {path.name for path in (out / ".partial").glob("[0-9]*.json")}
    assert prepare([file], out, vocab=vocab, **options)["reused_blocks"] >= len(finished)
    assert fingerprint(out) == fingerprint(tmp_path / "whole")


def test_text_that_has_grown_is_gone_on_with(
    tmp_path: Path, vocab: Path, small_blocks: None
) -> None:
    file, out = write(tmp_path / "a.txt", articles(150)), tmp_path / "corpus"
    interrupted(tmp_path, vocab, file, out)
    grown = write(tmp_path / "b.txt", file.read_text(encoding="utf-8") + articles(5, seed=1))
    assert prepare([grown], out, vocab=vocab)["reused_blocks"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_workers_and_says_how_to_go_on(
    tmp_path: Path, vocab: Path, number: int
) -> None:
    file = write(tmp_path / "a.txt", articles(3000))
    out = tmp_path / "corpus"
    script = write(
        tmp_path / "script.py",
        "import functools\n"
        "from zhbert import cli\n"
        "from zhbert.data.read_options import ReadOptions\n"
        "from zhbert.data import prepare as job\n"
        "if __name__ == '__main__':\n"
        "    job.ReadOptions = functools.partial(ReadOptions, block_bytes=2000)\n"
        "    cli.entry()\n",
    )
    command = [sys.executable, script, "prepare", file, "--out", out, "--vocab", vocab]
    command += ["--segmenter", "whitespace"]  # starts in no time
    process = subprocess.Popen(
        [*command, "--workers", "2"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while len(list(out.glob("train-*"))) < 3:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    # As a terminal does it: the whole group gets the signal.
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert_all_ended(process.pid)


def test_a_worker_that_dies_is_one_line(tmp_path: Path, vocab: Path, small_blocks: None) -> None:
    file = write(tmp_path / "a.txt", articles(300))

    def kill(stage: str, read: int, total: int) -> None:
        if read:
            multiprocessing.active_children()[0].kill()

    with pytest.raises(ZhbertError, match="a worker process died"):
        prepare([file], tmp_path / "corpus", vocab=vocab, workers=2, progress=kill)
    assert not multiprocessing.active_children()


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": 1.0}, "--held-out 1.0"),
        ({"workers": 0}, "--workers 0"),
        ({"segmenter": "nope"}, "unknown segmenter 'nope'; known: jieba, whitespace"),
        ({"vocab": "nowhere.txt"}, "nowhere.txt"),
        ({"user_words": "nowhere.txt"}, "reading nowhere.txt: no such file"),
    ],
)
def test_a_wrong_option_is_one_line(
    tmp_path: Path, vocab: Path, options: dict[str, Any], message: str
) -> None:
    file = write(tmp_path / "a.txt", "使用。")
    with pytest.raises(ZhbertError, match=message):
        prepare([file], tmp_path / "corpus", **{"vocab": vocab} | options)
    assert not (tmp_path / "corpus").exists()


def test_a_finished_corpus_and_other_folders_are_not_overwritten(
    tmp_path: Path, vocab: Path
) -> None:
    file = write(tmp_path / "a.txt", "使用。")
    prepare([file], tmp_path / "corpus", vocab=vocab)
    before = fingerprint(tmp_path / "corpus")
    with pytest.raises(ZhbertError, match="--overwrite"):
        prepare([file], tmp_path / "corpus", vocab=vocab)
    assert fingerprint(tmp_path / "corpus") == before
    for overwrite in (False, True):
        with pytest.raises(ZhbertError, match="not a corpus"):
            prepare([file], tmp_path, vocab=vocab, overwrite=overwrite)
        with pytest.raises(ZhbertError, match="a file"):
            prepare([file], file, vocab=vocab, overwrite=overwrite)


def test_input_without_text_is_one_line_with_the_first_trouble(tmp_path: Path, vocab: Path) -> None:
    for raw, trouble in ((b"", "empty"), (b"\xff\xfe\n", "UTF-16"), (b"\n\n\x01\n", "no text")):
        with pytest.raises(ZhbertError, match=f"holds no text.*{trouble}|{trouble}"):
            prepare([write(tmp_path / "a.txt", raw)], tmp_path / "corpus", vocab=vocab)


def test_on_error_fail_stops_at_the_first_place(
    tmp_path: Path, vocab: Path, small_blocks: None
) -> None:
    lines = articles(100).encode().split(b"\n")
    lines[200:200] = [b"\xff"]
    lines[150:150] = [b"\xff"]
    file = write(tmp_path / "a.txt", b"\n".join(lines))
    for workers in (1, 2):
        with pytest.raises(ZhbertError, match=r"a.txt:151: not UTF-8; .*GB18030.*--on-error skip"):
            prepare([file], tmp_path / "corpus", vocab=vocab, on_error="fail", workers=workers)
    report = prepare([file], tmp_path / "corpus", vocab=vocab)
    assert report["places"] == [f"{file}:151: not UTF-8", f"{file}:202: not UTF-8"]
    assert report["read"]["lines"]["broken_utf8"] == 2


@pytest.mark.parametrize(
    ("number", "message"), [(28, "the disk is full"), (13, "no permission"), (30, "no permission")]
)
def test_a_full_disk_is_one_line_and_leaves_nothing_half(
    tmp_path: Path, vocab: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    file = write(tmp_path / "a.txt", "使用。")

    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr("zhbert.data.shards._HashingFile.write", full)
        with pytest.raises(ZhbertError, match=message):
            prepare([file], tmp_path / "corpus", vocab=vocab, held_out=0)
    assert not list((tmp_path / "corpus").glob("*train*"))
    assert prepare([file], tmp_path / "corpus", vocab=vocab, held_out=0)["totals"]


def test_two_prepares_of_one_folder_do_not_meet(tmp_path: Path, vocab: Path) -> None:
    file = write(tmp_path / "a.txt", "使用。")

    def again(stage: str, read: int, total: int) -> None:
        with pytest.raises(ZhbertError, match="another process is at work"):
            prepare([file], tmp_path / "corpus", vocab=vocab)

    prepare([file], tmp_path / "corpus", vocab=vocab, progress=again)


# ---------------------------------------------------------------- the command


def test_the_command_prints_the_account(
    tmp_path: Path, vocab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.txt", "使用[SEP]语言。\n\n".encode() + b"\xff\n")
    command = ["prepare", str(file), "--vocab", str(vocab), "--held-out", "0", "--workers", "1"]
    assert cli.main([*command, "--out", str(tmp_path / "1")]) == 0
    out, errors = capsys.readouterr()
    assert "documents  1 read = 1 training + 0 held out" in out
    assert "a.txt:3: not UTF-8" in out
    assert "[SEP] 1" in out
    assert "0.0 MB of files in " in out
    assert errors.startswith("WARNING: 1 of 3 lines were left out: they are not UTF-8; --encoding")
    assert cli.main([*command, "--out", str(tmp_path / "2"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["totals"]["train"]["documents"] == 1
    assert describe(report).startswith(str(tmp_path / "2"))
    assert cli.main([*command, "--out", str(tmp_path / "2")]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_the_command_reads_stdin_even_twice(tmp_path: Path, vocab: Path) -> None:
    for number, option in enumerate(([], ["--deduplicate"])):
        out = tmp_path / str(number)
        command = [sys.executable, "-m", "zhbert", "prepare", "-", "--out", out, "--held-out", "0"]
        subprocess.run(
            [*command, "--vocab", vocab, "--quiet", *option],
            input="使用。\n使用。\n\n语言。\n".encode(),
            check=True,
        )
        totals = Corpus.open(out).info["totals"]["train"]
        assert totals["documents"] == 2
        assert totals["lines"] == 3 - number


def test_the_shipped_vocabulary_is_the_default(tmp_path: Path) -> None:
    report = prepare([write(tmp_path / "a.txt", "使用语言模型。")], tmp_path / "corpus", held_out=0)
    assert report["vocabulary_size"] == 21_128
    Tokenizer.from_pretrained(tmp_path / "corpus")


def test_preparing_never_imports_torch(tmp_path: Path, vocab: Path) -> None:
    code = (
        "import sys\nfrom zhbert.data.prepare import prepare\n"
        f"prepare([{str(vocab)!r}], {str(tmp_path / 'c')!r}, vocab={str(vocab)!r})\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_input_without_text_leaves_nothing_behind(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n", encoding="utf-8")
    with pytest.raises(ZhbertError, match="no text"):
        prepare([tmp_path / "empty.txt"], tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


# ---------------------------------------------------------------- something is always held out


@pytest.mark.parametrize("workers", [1, 2])
def test_a_few_documents_hold_the_one_with_the_lowest_hash_out(
    tmp_path: Path, vocab: Path, small_blocks: None, workers: int
) -> None:
    # So small a share that no hash lies below it.
    file = write(tmp_path / "a.txt", articles(97))
    few = prepare([file], tmp_path / "few", vocab=vocab, held_out=1e-9, workers=workers)
    assert few["read"]["documents"]["held_out"] == 1
    assert few["read"]["documents"]["found"] == few["read"]["documents"]["train"] + 1
    assert "held out: the document with the lowest hash" in describe(few)
    # A larger share holds the same one out, and more.
    prepare([file], tmp_path / "more", vocab=vocab, held_out=0.1)
    (chosen,) = documents_of(tmp_path / "few", "held_out")
    assert chosen in documents_of(tmp_path / "more", "held_out")
    every = [*documents_of(tmp_path / "few", "train"), chosen]
    prepare([file], tmp_path / "none", vocab=vocab, held_out=0)
    assert sorted(every) == sorted(documents_of(tmp_path / "none", "train"))


@pytest.mark.parametrize(
    ("text", "train", "held_out", "said"),
    [
        ("使用。语言。\n模型。\n", ["使用。语言。"], ["模型。"], "last 1 line became another one"),
        ("使用。语言。", ["使用。"], ["语言。"], "last 1 sentence became another one"),
        ("使用", ["使用"], [], "nothing could be held out: the text is a single sentence"),
    ],
)
def test_of_a_single_document_the_end_is_held_out(
    tmp_path: Path, vocab: Path, text: str, train: list[str], held_out: list[str], said: str
) -> None:
    report = prepare([write(tmp_path / "a.txt", text)], tmp_path / "corpus", vocab=vocab)
    assert said in describe(report)
    tokenizer = Tokenizer.from_pretrained(vocab)
    for split, expected in (("train", train), ("held_out", held_out)):
        found = documents_of(tmp_path / "corpus", split)
        assert [pieces for pieces, *_ in found] == [
            tokenizer.encode(one, special_tokens=False).ids.tolist() for one in expected
        ]
        # A part begins a line and a sentence.
        assert all(sentences[0] == lines[0] == 0 for _, _, sentences, lines in found)
    read = report["read"]
    for what in ("documents", "lines"):
        assert read[what]["found"] == len(train) + len(held_out)


def test_a_single_document_is_never_held_out_whole(tmp_path: Path, vocab: Path) -> None:
    file = write(tmp_path / "a.txt", "使用。\n语言。\n模型。\n")
    totals = prepare([file], tmp_path / "corpus", vocab=vocab, held_out=0.999999)["totals"]
    assert totals["train"]["documents"] == totals["held_out"]["documents"] == 1


# ---------------------------------------------------------------- what is told


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        ("使用。\n语言。\n模型。\n", "3 lines in 1 document: a blank line separates documents"),
        ("使用。\n\n语言。\n\n模型。\n", "every document is one sentence"),
        ("。！，？\n使。！？，\n", "of the pieces are punctuation or symbols"),
        ("龘鱻麤\n使用\n", "of the pieces are [UNK]: zhbert vocab coverage"),
    ],
)
def test_texts_that_teach_little_are_told(
    tmp_path: Path, vocab: Path, text: str, remark: str
) -> None:
    report = prepare([write(tmp_path / "a.txt", text)], tmp_path / "corpus", vocab=vocab)
    assert remark in describe(report)


def test_a_plain_corpus_has_no_remarks(tmp_path: Path, vocab: Path) -> None:
    file = write(tmp_path / "a.txt", articles(300))
    report = prepare([file], tmp_path / "corpus", vocab=vocab, held_out=0.1)
    assert report["remarks"] == report["warnings"] == []


def test_characters_that_cleaning_drops_are_counted_by_kind(tmp_path: Path, vocab: Path) -> None:
    text = "使用\ufffd\ufffd语言\ue5e5模型\u200b\x01\0\n" * 10
    report = prepare([write(tmp_path / "a.txt", text)], tmp_path / "corpus", vocab=vocab)
    assert (
        "10 NUL, 20 U+FFFD, 10 private-use, 10 zero-width and 10 control characters were dropped"
        in describe(report)
    )


def test_much_that_is_lost_is_a_warning_with_a_way_out(
    tmp_path: Path, vocab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = write(tmp_path / "a.txt", b"ok\n" + "使用语言。\n".encode("gbk") * 99)
    command = ["prepare", str(mixed), "--vocab", str(vocab), "--workers", "1", "--quiet", "--out"]
    assert cli.main([*command, str(tmp_path / "1")]) == 0
    errors = capsys.readouterr().err
    assert "WARNING: 99 of 100 lines were left out: they are not UTF-8; --encoding" in errors
    assert cli.main([*command, str(tmp_path / "2"), "--encoding", "gbk"]) == 0
    out, errors = capsys.readouterr()
    assert "lines      100 read" in out
    assert errors == ""
    assert json.loads((tmp_path / "2" / "corpus.json").read_text())["options"]["encoding"] == "gbk"


def test_how_files_were_read_and_which_were_not_is_told(tmp_path: Path, vocab: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "wiki_00", '{"text": "使用。"}\n')
    write(folder / "b.csv", "id,text\n1,语言。\n")
    write(folder / "c.py", "print(1)\n")
    write(folder / "d.txt", b"%PDF-1.4\n")
    report = prepare([folder], tmp_path / "corpus", vocab=vocab)
    account = describe(report)
    assert "left out of the folder: c.py (1 file)" in account.splitlines()[1]
    assert "read as JSON lines: 1 file" in account
    assert "read as CSV, the column 'text': 1 file" in account
    assert "d.txt: a PDF" in account
    assert report["warnings"] == ["1 of 3 files could not be read, or not to the end"]
    assert report["read"]["files"]["left_out"] == 1
