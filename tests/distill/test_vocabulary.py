"""A teacher with another vocabulary answers, piece by piece, as it did with its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zhbert.config import DistillSettings
from zhbert.distill.vocabulary import (
    NO_LOGIT,
    VocabularyMap,
    check_logits,
    check_mapping,
    give_vocabulary,
    map_vocabulary,
)
from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForMaskedLM
from zhbert.text.tokenizer import Tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*"使用语言模型预测下一个词", "bert", "##s", "probability"]


def tokenizer(*pieces: str, **options) -> Tokenizer:
    return Tokenizer([*SPECIAL, *pieces], **options)


def mapped(student: Tokenizer, teacher: Tokenizer, counts=None) -> VocabularyMap:
    if counts is None:
        counts = np.ones(len(student), np.int64)
    return map_vocabulary(student, teacher, counts)


def teacher_model(pieces: int, seed: int = 0) -> BertForMaskedLM:
    config = BertConfig(
        vocab_size=pieces,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    model = BertForMaskedLM(config, seed=seed).eval()
    torch.nn.init.normal_(model.mlm_head.bias, generator=torch.Generator().manual_seed(seed))
    return model


def logits(model: BertForMaskedLM, ids) -> torch.Tensor:
    with torch.no_grad():
        output = model(torch.as_tensor(ids)[None]).logits
    assert output is not None
    return output[0]


@given(st.permutations([*SPECIAL, *WORDS]), st.integers(0, 3), st.data())
def test_a_permuted_teacher_answers_as_it_did(pieces, spare, data):
    student, teacher = Tokenizer([*SPECIAL, *WORDS]), Tokenizer(pieces)
    row = data.draw(st.lists(st.integers(0, len(student) - 1), min_size=1, max_size=16))
    model = teacher_model(len(teacher))
    theirs = [teacher.id_of(student.vocabulary[piece]) for piece in row]
    expected = logits(model, theirs)
    mapping = mapped(student, teacher)
    give_vocabulary(model, mapping, rows=len(student) + spare)
    found = logits(model, row)
    order = [teacher.id_of(piece) for piece in student.vocabulary]
    torch.testing.assert_close(found[:, : len(student)], expected[:, order])
    assert bool((found[:, len(student) :] < NO_LOGIT / 2).all())
    assert mapping.share == mapping.text_share == 1.0


@given(st.lists(st.sampled_from(WORDS), unique=True), st.lists(st.sampled_from(WORDS), unique=True))
def test_a_smaller_teacher_answers_with_its_own_pieces_alone(ours, theirs):
    student, teacher = tokenizer(*ours), tokenizer(*theirs)
    model = teacher_model(len(teacher))
    row = [student.cls_id, student.mask_id, student.sep_id]
    before = logits(model, row)[1]
    give_vocabulary(model, mapped(student, teacher), rows=len(student))
    after = logits(model, row)[1].softmax(-1)
    shared = [piece for piece in student.vocabulary if teacher.id_of(piece) is not None]
    expected = before[[teacher.id_of(piece) for piece in shared]].softmax(-1)
    torch.testing.assert_close(after[[student.id_of(piece) for piece in shared]], expected)
    unknown = [row for row, piece in enumerate(student.vocabulary) if piece not in shared]
    assert not after[unknown].any()


def test_a_piece_that_the_teacher_lacks_reads_as_its_unk():
    student, teacher = tokenizer("使", "用"), tokenizer("用")
    model, own = teacher_model(len(teacher)), teacher_model(len(teacher))
    give_vocabulary(model, mapped(student, teacher), rows=len(student))
    hidden = model.encoder.embeddings.words.weight
    assert torch.equal(hidden[student.id_of("使")], own.encoder.embeddings.words.weight[1])


def test_special_tokens_are_found_by_their_role():
    named = {"mask_token": "<mask>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    teacher = Tokenizer(["使", *named.values(), "[PAD]", "[MASK]"], special_tokens=named)
    found = mapped(tokenizer("使"), teacher)
    assert found.rows.tolist() == [5, 2, 3, 4, 1, 0]


def test_case_is_ignored_if_only_one_vocabulary_has_it():
    cased = {"do_lower_case": False}
    lower, both = tokenizer("the", "cafe", "nasa"), tokenizer("The", "the", "Café", "NASA", **cased)
    assert mapped(both, lower).rows[5:].tolist() == [5, 5, 6, 7]
    assert mapped(lower, both).rows[5:].tolist() == [6, 7, 8]
    assert mapped(tokenizer("The", **cased), tokenizer("the", **cased)).rows[5:].tolist() == [-1]


def test_a_character_inside_a_word_is_the_character():
    assert mapped(tokenizer("##使", "##s", "##使用"), tokenizer("使", "s")).rows[5:].tolist() == [
        5,
        -1,
        -1,
    ]


def test_pieces_of_one_teacher_piece_share_its_probability_by_their_counts():
    student = tokenizer("The", "the", "使", "##使", do_lower_case=False)
    teacher = tokenizer("the", "使")
    counts = np.array([0, 0, 0, 0, 0, 30, 90, 7, 0])
    model = teacher_model(len(teacher))
    before = logits(model, [2, 4, 3])[1].softmax(-1)
    give_vocabulary(model, mapped(student, teacher, counts), rows=len(student))
    after = logits(model, [2, 4, 3])[1].softmax(-1)
    torch.testing.assert_close(after[5:7].sum(), before[5])
    assert float(after[5] / after[6]) == pytest.approx(1 / 3, rel=0.01)
    torch.testing.assert_close(after[7:], torch.tensor([float(before[6]), 0.0]))


def test_no_probability_is_finite_in_half_precision():
    student, teacher = tokenizer("使", "用"), tokenizer("使")
    model = teacher_model(len(teacher))
    give_vocabulary(model, mapped(student, teacher), rows=len(student))
    for dtype in (torch.bfloat16, torch.float16):
        assert bool(model.mlm_head.bias.to(dtype).isfinite().all())


def test_what_a_mapping_would_do_is_said_before_it_is_done():
    student, teacher = tokenizer("使", "用"), tokenizer("使")
    mapping = mapped(student, teacher, np.array([0, 0, 0, 0, 0, 40, 60]))
    with pytest.raises(ZhbertError) as refused:
        check_mapping(mapping, "models/large", DistillSettings())
    assert str(refused.value) == (
        "models/large: a teacher of another vocabulary than the student's: "
        "distill.other_vocabulary=map maps its pieces by their text: 6 of 7 pieces (85.7%) are "
        "mapped to the teacher's, 40.0% of the text"
    )
    with pytest.raises(ZhbertError, match="too different from the student's"):
        check_mapping(mapping, "models/large", DistillSettings(other_vocabulary="map"))
    check_mapping(mapped(student, teacher), "models/large", DistillSettings(other_vocabulary="map"))


def test_the_logits_of_pieces_that_the_teacher_lacks_cannot_be_compared():
    mapping = mapped(tokenizer("使", "用"), tokenizer("使"))
    settings = DistillSettings(other_vocabulary="map", soft_labels="mse")
    with pytest.raises(ZhbertError, match=r"take distill\.soft_labels=ce"):
        check_logits(mapping, "models/large", settings)
    check_logits(mapping, "models/large", dataclasses.replace(settings, top_k=10))


def test_the_same_vocabulary_is_left_as_it_is():
    student = Tokenizer([*SPECIAL, "使", "用", "使"])
    mapping = mapped(student, Tokenizer(student.vocabulary, do_lower_case=False))
    model = teacher_model(len(student))
    before = model.encoder.embeddings.words.weight
    give_vocabulary(model, mapping, rows=len(student))
    assert model.encoder.embeddings.words.weight is before
    check_mapping(mapping, "models/large", DistillSettings())
