"""One text masked, from Python and without a console."""

from __future__ import annotations

import pytest

from zhbert.data.mask_text import mask_text
from zhbert.errors import ZhbertError
from zhbert.text.segmenters import load_segmenter
from zhbert.text.tokenizer import Tokenizer


def test_a_text_is_masked_by_each_strategy() -> None:
    found = mask_text(
        "使用 语言 模型", Tokenizer.default(), load_segmenter("whitespace"), rate=0.5, seed=3
    )
    assert found.words == ("使用", "语言", "模型")
    assert found.pieces == tuple("使用语言模型")
    assert found.word_starts == (True, False) * 3
    assert found.quota == 4
    for strategy in ("char", "wwm"):
        masks = found.masks[strategy]
        assert len(masks.predicted) == 4
        assert masks.actions == ("mask",) * 4
        for position, piece in enumerate(masks.pieces):
            hidden = position in masks.predicted
            assert piece == ("[MASK]" if hidden else found.pieces[position])


@pytest.mark.parametrize(("text", "message"), [(" ", "no text"), ("\udcff", "not UTF-8")])
def test_what_cannot_be_masked_is_refused(text: str, message: str) -> None:
    with pytest.raises(ZhbertError, match=message):
        mask_text(text, Tokenizer.default(), load_segmenter("whitespace"))
