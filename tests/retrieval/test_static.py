"""Static vectors: made from a sentence model, and the same in sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.retrieval.conftest import PIECES, TEXTS

from zhbert import BertModel, SentenceEncoder, ZhbertError
from zhbert.cli import main
from zhbert.retrieval.search import opened_search
from zhbert.retrieval.static import MadeStatic, make_static
from zhbert.sentences.static import RARE


@pytest.fixture
def static(model: Path, corpus: Path, tmp_path: Path) -> Path:
    make_static(model, corpus, tmp_path / "static")
    return tmp_path / "static"


def test_sentence_transformers_computes_the_same(static: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = [*TEXTS, "", "[CLS] 猫 [MASK]", "苹果，" * 1000]
    theirs = SentenceTransformer(str(static), device="cpu").encode(texts)
    np.testing.assert_allclose(SentenceEncoder.from_pretrained(static).encode(texts), theirs)


def distances(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.linalg.norm(vectors[:, None] - vectors, axis=-1)
    return found


def test_a_piece_has_its_mean_output_less_the_common_one_and_a_weight(
    model: Path, static: Path
) -> None:
    teacher = SentenceEncoder.from_pretrained(model)
    outputs: dict[int, list[np.ndarray]] = {}
    for one in teacher.encode(TEXTS, output_value=None):
        for piece, output in zip(
            one["input_ids"][1:-1], one["token_embeddings"][1:-1], strict=True
        ):
            outputs.setdefault(int(piece), []).append(output.numpy())
    counts = np.array([len(outputs.get(number, ())) for number in range(len(PIECES))]) + 1
    shares = counts / counts.sum()
    found = load_file(static / "model.safetensors")["embedding.weight"] * ((RARE + shares) / RARE)[
        :, None
    ].astype(np.float32)
    seen = sorted(outputs)
    wanted = np.array([np.mean(outputs[piece], axis=0) for piece in seen])
    # Their axes differ; distances depend neither on these nor on what is common.
    np.testing.assert_allclose(distances(found[seen]), distances(wanted), atol=1e-4)
    np.testing.assert_allclose(shares @ found, 0, atol=1e-5)


def test_fewer_dimensions_are_the_first_principal_components(
    model: Path, corpus: Path, static: Path, tmp_path: Path
) -> None:
    made = make_static(model, corpus, tmp_path / "small", dimensions=4)
    assert made == MadeStatic(tmp_path / "small", len(TEXTS), len(PIECES), 4)
    all_of_them = SentenceEncoder.from_pretrained(static).encode(TEXTS)
    small = SentenceEncoder.from_pretrained(tmp_path / "small").encode(TEXTS)
    np.testing.assert_allclose(np.abs(small), np.abs(all_of_them[:, :4]), atol=1e-5)


def test_search_takes_static_vectors(static: Path, corpus: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with opened_search(str(static), str(corpus), index=str(tmp_path / "index")) as opened:
            assert opened.answer([TEXTS[1]], 1)[0][0].text == TEXTS[1]


def test_a_static_model_is_saved_and_opened_with_its_prompts(static: Path, tmp_path: Path) -> None:
    encoder = SentenceEncoder.from_pretrained(static, prompts={"query": "我们："})
    encoder.save_pretrained(tmp_path / "again")
    again = SentenceEncoder.from_pretrained(tmp_path / "again")
    assert (again.encode_query("猫") == encoder.encode("我们：猫")).all()


def test_the_verb_says_what_it_made(
    model: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["embed-static", str(model), "--corpus", str(corpus), "--out", str(tmp_path / "new")]
    assert main(command) == 0
    assert f"{len(PIECES)} vectors of 16 dimensions, from 6 texts, in " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("not finite", "NaN or infinite"),
        ("another tensor", "not the matrix embedding.weight"),
        ("another module", "a StaticEmbedding is known here alone"),
    ],
)
def test_a_damaged_folder_is_one_line(static: Path, change: str, words: str) -> None:
    vectors = load_file(static / "model.safetensors")["embedding.weight"]
    if change == "another module":
        modules = json.loads((static / "modules.json").read_text())
        modules.append({**modules[0], "type": "sentence_transformers.models.Normalize"})
        (static / "modules.json").write_text(json.dumps(modules))
    elif change == "not finite":
        vectors[7, 3] = np.nan
        save_file({"embedding.weight": vectors}, static / "model.safetensors")
    else:
        save_file({"embeddings": vectors}, static / "model.safetensors")
    with pytest.raises(ZhbertError, match=words):
        SentenceEncoder.from_pretrained(static)


@pytest.mark.parametrize("dimensions", [0, 17])
def test_wrong_dimensions_are_one_line(
    model: Path, corpus: Path, tmp_path: Path, dimensions: int
) -> None:
    with pytest.raises(ZhbertError, match="must be from 1 to 16"):
        make_static(model, corpus, tmp_path / "static", dimensions=dimensions)
    assert not (tmp_path / "static").exists()


def test_what_static_vectors_cannot_do_is_one_line(
    static: Path, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(ZhbertError, match="static vectors already"):
        make_static(static, corpus, tmp_path / "again")
    with pytest.raises(ZhbertError, match="vectors of pieces alone"):
        BertModel.from_pretrained(static)
    encoder = SentenceEncoder.from_pretrained(static)
    with pytest.raises(ZhbertError, match="sentence_embedding"):
        encoder.encode("猫", output_value="token_embeddings")
    with pytest.raises(ZhbertError, match="max_seq_length"):
        encoder.max_seq_length = 8
