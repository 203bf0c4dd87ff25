"""``zhbert vocab``: training to the same bytes, coverage with its causes, clear errors."""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from zhbert.cli import main
from zhbert.files import sha256_of
from zhbert.text.learn_vocab import bert_words
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.vocab import default_vocabulary, read_vocabulary

TEXT = "他说：“BERT 模型”……\n她說：「BERT 模型」——\ntransformers 與 transformer 2024 2025\n" * 3


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def train(text: Path, out: Path, *options: str) -> list[str]:
    assert main(["vocab", "train", str(text), "--out", str(out), "--quiet", *options]) == 0
    return read_vocabulary(out)


def coverage(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["vocab", "coverage", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


# --- train --------------------------------------------------------------------------------------


def test_training_gives_the_same_bytes_again(text: Path, tmp_path: Path) -> None:
    train(text, tmp_path / "a.txt")
    train(text, tmp_path / "b.txt")
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()


def test_a_file_is_replaced_only_when_asked(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "vocab.txt"
    out.write_text("mine", encoding="utf-8")
    assert main(["vocab", "train", str(text), "--out", str(out), "--quiet"]) == 2
    assert out.read_text() == "mine"
    assert train(text, out, "--overwrite")[0] == "[PAD]"


def test_a_trained_vocabulary_leaves_nothing_of_its_text_unknown(
    text: Path, tmp_path: Path
) -> None:
    train(text, tmp_path / "vocab.txt", "--characters", "none")
    tokenizer = Tokenizer.from_pretrained(tmp_path / "vocab.txt")
    encoding = tokenizer.encode(TEXT)
    assert tokenizer.unk_id not in encoding.ids
    assert {"bert", "transformer"} <= set(encoding.pieces)


def test_the_size_is_kept_and_a_shortage_is_said(text: Path, tmp_path: Path, capsys) -> None:
    fewer = len(train(text, tmp_path / "all.txt", "--characters", "none"))
    assert len(train(text, tmp_path / "v.txt", "--characters", "none", "--size", "220")) == 220
    arguments = [str(text), "--out", str(tmp_path / "w.txt"), "--characters", "none"]
    assert main(["vocab", "train", *arguments]) == 0
    captured = capsys.readouterr()
    assert f"note: {fewer:,} pieces, not 21,128" in captured.err
    assert f"{fewer:,}  pieces in" in captured.out
    assert "\x1b" not in captured.out


def test_figures_as_json_describe_the_file(text: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "vocab.txt"
    assert main(["vocab", "train", str(text), "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    pieces = read_vocabulary(out)
    assert found["size"] == len(pieces)
    assert found["sha256"] == sha256_of(out)
    rows = Counter(found["rows"])
    del rows["han_from_text"]
    assert rows.total() == len(pieces)


def test_characters_from_sets_and_files_are_there(text: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("喆\n龘", encoding="utf-8")
    pieces = train(text, tmp_path / "v.txt", "--characters", f"quotes,{tmp_path / 'mine.txt'}")
    assert {"喆", "龘", "《", "他"} <= set(pieces)
    assert "啊" not in pieces


def test_a_small_vocabulary_leaves_room_for_the_text(text: Path, tmp_path: Path, capsys) -> None:
    arguments = [str(text), "--out", str(tmp_path / "v.txt"), "--size", "4000", "--json"]
    assert main(["vocab", "train", *arguments]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["required"] == "quotes,letters"
    assert "no room for every character of gb2312, big5-1" in captured.err
    assert {"…", "の", "說"} <= set(read_vocabulary(tmp_path / "v.txt"))


def test_special_tokens_follow_mask(text: Path, tmp_path: Path) -> None:
    pieces = train(text, tmp_path / "v.txt", "--special-tokens", "<S>,<T>")
    assert pieces[103:106] == ["[MASK]", "<S>", "<T>"]


def test_training_reads_compressed_files_and_records(text: Path, tmp_path: Path) -> None:
    expected = train(text, tmp_path / "v.txt")
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "a.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    assert train(folder, tmp_path / "w.txt") == expected
    records = tmp_path / "a.jsonl"
    lines = (json.dumps({"body": line}) for line in TEXT.splitlines())
    records.write_text("\n".join(lines), encoding="utf-8")
    assert train(records, tmp_path / "w.txt", "--field", "body", "--overwrite") == expected


def test_the_shipped_vocabulary_is_what_the_command_makes(data: Path, tmp_path: Path) -> None:
    files = sorted((data / "corpus").glob("*.txt"))
    assert len(files) == 7
    out = tmp_path / "vocab.txt"
    assert main(["vocab", "train", *map(str, files), "--out", str(out), "--quiet"]) == 0
    assert out.read_bytes() == (default_vocabulary() / "vocab.txt").read_bytes()


# --- coverage -----------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A vocabulary without quotation marks and without some characters."""
    path = tmp_path / "small.txt"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"他说，。的：abc", "##b", "##的"]
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return path


def test_coverage_counts_what_the_tokenizer_makes(small: Path, text: Path, capsys) -> None:
    found = coverage(capsys, str(small), str(text), "--top", "1000")
    tokenizer = Tokenizer.from_pretrained(small)
    ids = tokenizer.encode(TEXT).ids
    assert found["total"]["pieces"] == len(ids)
    assert found["total"]["unknown"] == int((ids == tokenizer.unk_id).sum())
    missing = {one["character"]: one for one in found["total"]["missing"]}
    assert missing["模"]["count"] == TEXT.count("模")
    assert missing["模"]["code_point"] == "U+6A21"
    assert "模" in missing["模"]["example"]
    assert set(missing) >= set("“”—…說r2")
    assert not set(missing) & set("他说：")


def test_missing_quotes_and_dashes_are_named_and_counted(small: Path, text: Path, capsys) -> None:
    found = coverage(capsys, str(small), str(text))
    assert found["missing_quotes_and_dashes"] == list("“”‘’—…")
    occurrences = sum(TEXT.count(c) for c in "“”‘’—…")
    advice = " ".join(found["advice"])
    assert f"lacks “ ” ‘ ’ — …: {occurrences} occurrences become [UNK]" in advice
    assert "The vocabulary shipped with zhbert" in advice
    assert found["unreachable_rows"] == 1


def test_traditional_characters_are_counted_and_named(small: Path, text: Path, capsys) -> None:
    found = coverage(capsys, str(small), str(text))
    han = sum("\u4e00" <= c <= "\u9fff" for c in TEXT)
    assert found["total"]["traditional"] == TEXT.count("說") + TEXT.count("與") == 6
    assert found["total"]["traditional_share"] == pytest.approx(6 / han)
    assert found["total"]["traditional_unknown"] == 6
    assert any("traditional" in one and "與" in one for one in found["advice"])


def test_latin_words_are_measured_in_pieces(text: Path, tmp_path: Path, capsys) -> None:
    text.write_text("abb 的cab，2024", encoding="utf-8")
    small = tmp_path / "v.txt"
    small.write_text("\n".join(["[UNK]", "a", "c", "##a", "##b", "##bb"]), encoding="utf-8")
    found = coverage(capsys, str(small), str(text))["total"]
    # a ##bb, c ##a ##b
    assert found["latin_words"] == 2
    assert found["latin_pieces_per_word"] == pytest.approx(2.5)
    assert found["latin_pieces_per_character"] == pytest.approx(5 / 6)


def test_a_word_that_is_too_long_is_no_missing_character(text: Path, capsys) -> None:
    text.write_text("a" * 101 + " 好", encoding="utf-8")
    found = coverage(capsys, "default", str(text))["total"]
    assert found["unknown"] == found["too_long_words"] == 1
    assert found["missing"] == []


def test_coverage_of_several_files_adds_up(small: Path, text: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "other.txt"
    other.write_text("的龘的龘", encoding="utf-8")
    found = coverage(capsys, str(small), str(text), str(other))
    assert len(found["files"]) == 2
    for name in ("characters", "pieces", "unknown", "han", "traditional"):
        assert found["total"][name] == sum(one[name] for one in found["files"].values())


def test_the_table_is_plain_text(small: Path, text: Path, capsys) -> None:
    assert main(["vocab", "coverage", str(small), str(text)]) == 0
    shown = capsys.readouterr().out
    assert "text.txt" in shown
    assert "U+6A21" in shown
    assert "\x1b" not in shown
    text.write_text("他说：“好”。", encoding="utf-8")
    assert main(["vocab", "coverage", "default", str(text)]) == 0
    assert "Nothing to mend" in capsys.readouterr().out


def test_a_model_folder_is_a_vocabulary_too(
    small: Path, text: Path, tmp_path: Path, capsys
) -> None:
    folder = tmp_path / "model"
    Tokenizer.from_pretrained(small).save_pretrained(folder)
    assert (
        coverage(capsys, str(folder), str(text))["total"]
        == coverage(capsys, str(small), str(text))["total"]
    )


def test_the_shipped_vocabulary_covers_the_corpora(data: Path, capsys) -> None:
    files = [str(data / "corpus" / f"{name}.txt") for name in ("wiki", "mixed", "reviews")]
    ours = coverage(capsys, "default", *files)["total"]
    google = coverage(capsys, str(data / "google_zh_vocab.txt"), *files)
    assert ours["unknown_share"] < 1e-4
    assert google["total"]["unknown_share"] > 1e-3
    assert google["missing_quotes_and_dashes"] == list("“”‘’—…")
    assert google["unreachable_rows"] == 7322


# --- mistakes -----------------------------------------------------------------------------------


def mistakes(folder: Path) -> dict[str, tuple[list[str], str]]:
    text, out = str(folder / "text.txt"), str(folder / "v.txt")
    for name, content in (
        ("empty.txt", b""),
        ("gbk.txt", "第一行\n第二行".encode("gb18030")),
        ("no_unk.txt", "的\n一\n".encode()),
    ):
        (folder / name).write_bytes(content)
    (folder / "nothing").mkdir()
    file = {name: str(folder / f"{name}.txt") for name in ("empty", "gbk", "no_unk", "missing")}
    return {
        "missing file": (["train", file["missing"], "--out", out], "no such file"),
        "empty file": (["train", text, file["empty"], "--out", out], "empty"),
        "not UTF-8": (["train", file["gbk"], "--out", out], "not UTF-8"),
        "folder without text": (["train", str(folder / "nothing"), "--out", out], "nothing: no"),
        "out is a folder": (["train", text, "--out", str(folder)], "a folder; name a file"),
        "out is there": (["train", text, "--out", file["no_unk"]], "--overwrite replaces it"),
        "out is the text": (["train", text, "--out", text, "--overwrite"], "is the input "),
        "size": (["train", text, "--out", out, "--size", "9"], "--size 9 is too small"),
        "frequency": (["train", text, "--out", out, "--min-frequency", "0"], "must be 1 or more"),
        "characters": (["train", text, "--out", out, "--characters", "gb"], "sets: quotes, gb2312"),
        "tokens": (["train", text, "--out", out, "--special-tokens", "[CLS]"], "there already"),
        "no vocabulary": (["coverage", file["missing"], text], "no such file"),
        "empty vocabulary": (["coverage", file["empty"], text], "empty"),
        "broken vocabulary": (["coverage", file["gbk"], text], "not UTF-8"),
        "no [UNK]": (["coverage", file["no_unk"], text], "no piece [UNK]"),
        "not a model": (["coverage", str(folder / "nothing"), text], "neither vocab.txt"),
        "no text": (["coverage", "default", file["missing"]], "no such file"),
        "empty text": (["coverage", "default", file["empty"]], "empty"),
        "broken text": (["coverage", "default", file["gbk"]], "not UTF-8"),
    }


def test_every_mistake_is_one_clear_line_and_writes_nothing(text: Path, capsys) -> None:
    for name, (arguments, said) in mistakes(text.parent).items():
        assert main(["vocab", *arguments]) == 2, name
        error = capsys.readouterr().err
        assert said in error, name
        assert error.count("\n") == 1, name
    assert not (text.parent / "v.txt").exists()


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(
    text: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = text.parent / "v.txt"
    out.write_text("before")
    monkeypatch.setattr("zhbert.files.os.fsync", full)
    train = ["vocab", "train", str(text), "--out", str(out), "--overwrite", "--quiet"]
    assert main(train) == 2
    error = capsys.readouterr().err
    assert "the disk is full" in error
    assert error.count("\n") == 1
    assert out.read_text() == "before"
    assert sorted(p.name for p in text.parent.iterdir()) == ["text.txt", "v.txt"]


def test_words_are_counted_as_the_tokenizer_cuts_them() -> None:
    assert bert_words("Wi-Fi 6E的") == ["wi", "-", "fi", "6e", "的"]
