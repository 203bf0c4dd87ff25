"""zhbert similarity: two texts, or pairs in files, by the model's own measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.killing import one_line
from tests.retrieval.conftest import TEXTS, save_model

from zhbert import SentenceEncoder
from zhbert.cli import main


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_two_texts(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_model(tmp_path / "model", similarity_fn_name=name)
    encoder = SentenceEncoder.from_pretrained(model)
    (wanted,) = encoder.similarity_pairwise(*(encoder.encode([text]) for text in TEXTS[:2]))
    assert main(["similarity", str(model), *TEXTS[:2]]) == 0
    assert capsys.readouterr().out == f"{wanted:.4f}\n"


def test_two_files(
    tmp_path: Path, model: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.jsonl"
    lines = [json.dumps({"text": text}) for text in reversed(TEXTS)]
    other.write_text("\n".join(lines), encoding="utf-8")
    encoder = SentenceEncoder.from_pretrained(model)
    wanted = encoder.similarity_pairwise(encoder.encode(TEXTS), encoder.encode(TEXTS[::-1]))
    assert main(["similarity", str(model), str(corpus), str(other), "--json"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["a"], line["b"]) for line in printed] == list(
        zip(TEXTS, TEXTS[::-1], strict=True)
    )
    assert [line["similarity"] for line in printed] == pytest.approx(wanted.tolist(), abs=1e-5)
    assert main(["similarity", str(model), str(corpus), str(other)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"{wanted[0]:.4f}\t{TEXTS[0]}\t{TEXTS[-1]}"


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ("好", " ", "B is empty; give a text"),
        ("好.txt", "坏.TSV", "好.txt: no such file"),
        ("CORPUS", "好", "is a file, and 好 is none; give two texts or two files"),
        ("CORPUS", "SHORT", "has 6 texts and"),
        ("EMPTY", "EMPTY", "has 0 texts and"),
    ],
)
def test_what_is_wrong_is_one_line(
    model: Path, corpus: Path, a: str, b: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus.with_name("short.txt").write_text("好\n", encoding="utf-8")
    corpus.with_name("empty.txt").touch()
    names = {
        "CORPUS": str(corpus),
        "SHORT": str(corpus.with_name("short.txt")),
        "EMPTY": str(corpus.with_name("empty.txt")),
    }
    assert main(["similarity", str(model), names.get(a, a), names.get(b, b)]) == 2
    assert words in one_line(capsys, "")
