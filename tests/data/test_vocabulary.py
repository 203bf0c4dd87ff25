"""Vocabularies and files of text, from Python: no console, the progress is told."""

from __future__ import annotations

from pathlib import Path

from zhbert.data.sources import Source, find_sources
from zhbert.data.vocabulary import coverage_of_files, train_vocabulary
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.vocab import read_vocabulary


def test_a_vocabulary_is_trained_and_measured_in_silence(tmp_path: Path, capsys) -> None:
    file = tmp_path / "a.txt"
    file.write_text("使用语言模型\nBERT BERT\n" * 2, encoding="utf-8")
    sources = find_sources([file])
    told: list[tuple[Source, int]] = []

    figures = train_vocabulary(
        sources, tmp_path / "vocab.txt", characters="none", advance=lambda *step: told.append(step)
    )

    assert read_vocabulary(tmp_path / "vocab.txt")[-1] == "bert"
    assert (figures["files"], figures["required"]) == (1, "none")
    assert sum(read for _, read in told) == file.stat().st_size
    tokenizer = Tokenizer.from_pretrained(tmp_path / "vocab.txt")
    (found,) = coverage_of_files(tokenizer, sources).values()
    assert (found.pieces, found.unknown) == (16, 0)
    assert capsys.readouterr() == ("", "")
