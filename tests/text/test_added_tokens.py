"""Added tokens: ids, pieces and offsets equal transformers' on every folder that it writes."""

from __future__ import annotations

import json
import shutil
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.text.test_tokenizer import in_plain_python

from zhbert.errors import ZhbertError
from zhbert.text.added_tokens import AddedToken
from zhbert.text.extend_vocab import with_pieces
from zhbert.text.sentences import codes_of
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.vocab import TokenizerWarning

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = "他说好新冠「」《》abcABCéÉ12 .,#-_İß가각\u0301\u200b\u3000Ａ"
PIECES = [
    *SPECIAL,
    *sorted(set("他说好新冠「》abceéABé12.,#-_ßi가가ｱ")),
    *(f"##{c}" for c in "abceé12ßiᅡᆨ"),
    *("ab", "abc", "##ab", "ca", "12", "##12", "Ab", "##bC"),
]
OPTIONS = st.fixed_dictionaries(
    {
        "do_lower_case": st.booleans(),
        "strip_accents": st.sampled_from([None, True, False]),
        "tokenize_chinese_chars": st.booleans(),
    }
)
# Prefixes of each other, with spaces, accents and capitals, of the vocabulary or not.
OVERLAPPING = [
    "「",
    "」",
    "新冠",
    "新冠 ",
    " 新",
    "说好",
    "好",
    "가",
    "1",
    "12",
    "COVID-19",
    "É",
    "é",
]
OVERLAPPING += ["a b", "ab", "abc", "ABC", "aaa", "e", "##a", "[MASK]", "[MAS", "<S>"]
CONTENTS = st.one_of(
    st.text(st.sampled_from(CHARACTERS), min_size=1, max_size=4),
    st.sampled_from(OVERLAPPING),
).filter(lambda content: content.strip("\u0301\u200b\u3000 "))


@st.composite
def tokens(draw: st.DrawFn) -> tokenizers.AddedToken:
    flags = {name: draw(st.booleans()) for name in ("special", "normalized")}
    for name in ("single_word", "lstrip", "rstrip"):
        flags[name] = draw(st.integers(0, 3)) == 0
    return tokenizers.AddedToken(draw(CONTENTS), **flags)


def texts_with(contents: list[str]) -> st.SearchStrategy[str]:
    parts = st.sampled_from([*contents, *contents, *SPECIAL]) | st.sampled_from(CHARACTERS)
    return st.lists(parts | st.characters(codec="utf-8"), max_size=14).map("".join)


def assert_same_ids(path: Path, texts: list[str]) -> Tokenizer:
    """In plain Python and natively, one by one and together, with special tokens and without."""
    ours, theirs = Tokenizer.from_pretrained(path), transformers.AutoTokenizer.from_pretrained(path)
    assert len(set(ours.vocabulary)) == len(theirs)
    slow = in_plain_python(ours)
    for special in (True, False):
        # Many texts together are not taken for a short one.
        many = ["ab" * 40, *texts, "ab" * 40]
        batch = ours.encode_batch(many, special_tokens=special)
        together = ours._core.encode(many, special)
        for number, text in enumerate(many):
            expected = theirs(
                text,
                add_special_tokens=False,
                return_offsets_mapping=True,
                split_special_tokens=not special,
            )
            for core in (ours._core, slow):
                ids, _, offsets = core.encode([text], special)
                assert ids.tolist() == expected["input_ids"], text
                assert [tuple(o) for o in offsets.tolist()] == expected["offset_mapping"], text
            assert batch[number].tolist() == expected["input_ids"]
            a, b = together[1][number : number + 2]
            assert together[0][a:b].tolist() == expected["input_ids"]
            assert [tuple(o) for o in together[2][a:b].tolist()] == expected["offset_mapping"]
            for row in expected["input_ids"]:
                # convert_ids_to_tokens shows an added token normalised: " 他 " for 他.
                added = theirs.added_tokens_decoder.get(row)
                piece = theirs.convert_ids_to_tokens(row) if added is None else added.content
                assert ours.vocabulary[row] == piece
    assert [ours.id_of(t) for t in theirs.added_tokens_encoder] == [
        *theirs.added_tokens_encoder.values()
    ]
    return ours


def write_vocabulary(folder: Path, pieces: list[str] = PIECES) -> None:
    (folder / "config.json").write_text('{"model_type": "bert"}')
    text = "".join(f"{piece}\n" for piece in pieces)
    (folder / "vocab.txt").write_text(text, encoding="utf-8", newline="\n")


SLOW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


# Special tokens of other names, which transformers adds where the vocabulary lacks them.
NAMED = st.fixed_dictionaries(
    {},
    optional={
        "mask_token": st.sampled_from(["<m>", tokenizers.AddedToken("<m>", lstrip=True), "好"]),
        "bos_token": st.sampled_from(["<s>", "ab"]),
        "extra_special_tokens": st.sampled_from([["<e>", "说"], {"image_token": "<im>"}]),
    },
)


def normalized(token: str) -> str:
    """Two tokens that are one when normalised are not compared: their order decides, as it came."""
    parts = unicodedata.normalize("NFD", token.lower())
    return "".join(part for part in parts if not unicodedata.combining(part)).strip()


def as_found(token: tokenizers.AddedToken) -> str:
    """Of two tokens that are found by the same string, tokenizers takes one by chance."""
    return normalized(token.content) if token.normalized else str(token)


@given(st.data(), OPTIONS, NAMED, st.lists(tokens(), max_size=5, unique_by=(str, as_found)))
@SLOW
def test_ids_equal_transformers_on_every_folder_that_it_writes(
    draw: st.DataObject,
    options: dict[str, Any],
    named: dict[str, Any],
    added: list[tokenizers.AddedToken],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        path, again = Path(name), Path(name) / "again"
        write_vocabulary(path, PIECES[draw.draw(st.sampled_from([0, 0, 1])) :])
        theirs = transformers.BertTokenizer.from_pretrained(path, **options, **named)
        for token in added:
            theirs.add_tokens([token])
        theirs.save_pretrained(path)
        if draw.draw(st.booleans()):
            (path / "vocab.txt").unlink()
        parts = [*(t.content for t in added), "<m>", "<s>", "<e>", "<im>"]
        texts = draw.draw(st.lists(texts_with(parts), min_size=1, max_size=4))
        ours = assert_same_ids(path, texts)
        ours.save_pretrained(again)
        shutil.copy(path / "config.json", again)
        assert assert_same_ids(again, texts).fingerprint() == ours.fingerprint()


def legacy_folder(path: Path, draw: st.DataObject, added: list[str]) -> None:
    """As transformers 2 to 4 wrote them: the added tokens' ids, perhaps the special tokens."""
    beyond = [token for token in added if token not in PIECES]
    ids = {token: len(PIECES) + row for row, token in enumerate(beyond)}
    known = {token: PIECES.index(token) for token in added if token in PIECES}
    write_vocabulary(path)
    (path / "added_tokens.json").write_text(json.dumps(ids | known), encoding="utf-8")
    config: dict[str, Any] = draw.draw(OPTIONS) | {"tokenizer_class": "BertTokenizer"}
    names: dict[str, Any] = dict(zip(NAMES, SPECIAL, strict=True))
    extra = draw.draw(st.lists(st.sampled_from([*added, "<S>"]), max_size=2, unique=True))
    if extra:
        names["additional_special_tokens"] = extra
    if draw.draw(st.booleans()):
        names["mask_token"] = MASK
    if draw.draw(st.booleans()):
        plain = {name: _without_type(value) for name, value in names.items()}
        (path / "special_tokens_map.json").write_text(json.dumps(plain))
    if draw.draw(st.booleans()):
        config |= names
    (path / "tokenizer_config.json").write_text(json.dumps(config))


def _without_type(value: Any) -> Any:
    return {k: v for k, v in value.items() if k != "__type"} if isinstance(value, dict) else value


NAMES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
MASK = {
    "__type": "AddedToken",
    "content": "[MASK]",
    "single_word": False,
    "lstrip": True,
    "rstrip": False,
    "normalized": False,
}


@given(st.data(), st.lists(CONTENTS, max_size=4, unique_by=normalized))
@SLOW
def test_ids_equal_transformers_on_older_folders(draw: st.DataObject, added: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        legacy_folder(path, draw, added)
        texts = draw.draw(st.lists(texts_with([*added, "<S>"]), min_size=1, max_size=3))
        ours = assert_same_ids(path, texts)
        again = path / "again"
        ours.save_pretrained(again)
        shutil.copy(path / "config.json", again)
        assert assert_same_ids(again, texts).fingerprint() == ours.fingerprint()


def test_the_user_s_own_brackets_are_pieces_of_the_corpus_and_of_what_is_saved(
    tmp_path: Path,
) -> None:
    write_vocabulary(tmp_path, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"他说好"])
    (tmp_path / "added_tokens.json").write_text('{"「": 8, "」": 9}')
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode("他说「好」").pieces == list("他说「好」")
    text = "他说「好」" * 20
    (ids,) = tokenizer.encode_batch([text], special_tokens=False)
    assert ids.tolist() == [5, 6, 8, 7, 9] * 20
    tokenizer.save_pretrained(tmp_path / "again")
    assert Tokenizer.from_pretrained(tmp_path / "again").fingerprint() == tokenizer.fingerprint()
    assert (tmp_path / "again" / "vocab.txt").read_text().split() == [*SPECIAL, *"他说好"]
    assert json.loads((tmp_path / "again" / "added_tokens.json").read_text()) == {"「": 8, "」": 9}


@given(st.data(), st.lists(tokens(), min_size=1, max_size=4, unique_by=str))
@settings(max_examples=60, deadline=None)
def test_words_of_texts_with_added_tokens_are_the_plain_python_s(
    draw: st.DataObject, added: list[tokenizers.AddedToken]
) -> None:
    made = [AddedToken(t.content, t.special, t.normalized, t.single_word) for t in added]
    tokenizer = Tokenizer(PIECES, added_tokens=made)
    texts = draw.draw(st.lists(texts_with([t.content for t in added]), min_size=1, max_size=8))
    texts += ["ab好" * 30]
    cuts = [sorted(draw.draw(st.sets(st.integers(1, len(t))))) if t else [] for t in texts]
    ends = [np.array([*c, len(t)] if t else [], np.int32) for c, t in zip(cuts, texts, strict=True)]
    expected = in_plain_python(tokenizer).encode_words(texts, ends)
    codes = codes_of("".join(texts))
    text_ends = np.cumsum([len(t) for t in texts]).astype(np.int32)
    starts = [0, *text_ends[:-1].tolist()]
    run_ends = np.concatenate([e + s for e, s in zip(ends, starts, strict=True)]).astype(np.int32)
    for found in (
        tokenizer.encode_words(texts, ends),
        tokenizer.encode_run(codes, text_ends, np.unique(run_ends)),
    ):
        assert found.ids.tolist() == expected.ids.tolist()
        assert found.starts.tolist() == expected.starts.tolist()
        assert found.word_starts.tolist() == expected.word_starts.tolist()
        assert found.pieces_per_word.tolist() == expected.pieces_per_word.tolist()
        for name in ("words", "widened", "unknown"):
            assert getattr(found, name) == getattr(expected, name)


BASE = [*SPECIAL, *"他说好", "ab", "##c"]


def refusal(pieces: list[str], *added: AddedToken) -> str:
    with pytest.raises(ZhbertError) as caught:
        Tokenizer(pieces, added_tokens=added)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tokens_that_cannot_be_found_as_in_transformers_are_refused() -> None:
    assert "nothing is left of" in refusal(BASE, AddedToken("\u0301"))
    assert "white space" in refusal(BASE, AddedToken(" "), AddedToken("x", rstrip=True))
    # Two rows are the same piece: transformers would give the new one an id that is another's.
    assert "the id 11, which is 'q'" in refusal([*BASE, "ab", "q"], AddedToken("「"))


def test_white_space_can_be_a_token(tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    theirs.add_tokens(
        [tokenizers.AddedToken("\u3000", normalized=False), tokenizers.AddedToken(" ")]
    )
    theirs.save_pretrained(tmp_path)
    assert_same_ids(tmp_path, ["他 说\u3000好", "  ab \u3000 a", "好好"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("added_tokens.json", {"「": 10, "」": 12}, "'」' has the id 12, where 11 is expected"),
        ("added_tokens.json", {"「": "x"}, "'「' has the id 'x'; a number is expected"),
        ("added_tokens.json", {"「": -1}, "'「' has the id -1"),
        ("added_tokens.json", {"「": True}, "'「' has the id True"),
        ("added_tokens.json", {"「": None}, "'「' has the id None"),
        ("added_tokens.json", {"「": 10, "」": 10}, "'「' and '」' share the id 10"),
        (
            "added_tokens.json",
            ["「"],
            "added_tokens.json: not a list of added tokens: must hold an",
        ),
        ("added_tokens.json", "{", "added_tokens.json:1: not JSON"),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}, "tokens and their ids are"),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"10": 3}},
            "a token is expected, not 3",
        ),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"10": {"content": "「", "lstrip": "no"}}},
            "'「': lstrip must be true or false, not 'no'",
        ),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"10": {"content": "「"}, "11": {"content": "「"}}},
            "'「' has two ids",
        ),
        (
            "tokenizer_config.json",
            {"extra_special_tokens": 3},
            "extra_special_tokens must be a list",
        ),
        ("special_tokens_map.json", [], "special_tokens_map.json: must hold an object"),
    ],
)
def test_damaged_files_of_added_tokens_are_one_line(
    tmp_path: Path, name: str, content: Any, message: str
) -> None:
    write_vocabulary(tmp_path, BASE)
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / name).write_text(text)
    with pytest.raises(ZhbertError) as caught:
        Tokenizer.from_pretrained(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_piece_that_stands_twice_is_its_last_row_as_in_transformers(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, [*SPECIAL, "他", "$", "好", "$", "说"])
    with pytest.warns(TokenizerWarning, match=r"'\$' stands there twice, with the ids 6 and 8"):
        tokenizer = assert_same_ids(tmp_path, ["他$说", "$$"])
    tokenizer.save_pretrained(tmp_path / "again")
    shutil.copy(tmp_path / "config.json", tmp_path / "again")
    vocabulary = (tmp_path / "again" / "vocab.txt").read_bytes()
    assert vocabulary == (tmp_path / "vocab.txt").read_bytes()
    with pytest.warns(TokenizerWarning):
        again = assert_same_ids(tmp_path / "again", ["他$说", "$$"])
    assert again.fingerprint() == tokenizer.fingerprint()


def test_new_pieces_follow_added_tokens_that_stay_what_they_were(tmp_path: Path) -> None:
    old = Tokenizer(BASE, added_tokens=[AddedToken("「"), AddedToken("新冠")])
    new = with_pieces(old, [*old.vocabulary, "xyz"])
    assert new.vocabulary == (*old.vocabulary, "xyz")
    assert new.encode("他xyz「新冠").pieces == ["他", "xyz", "「", "新冠"]
    new.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert_same_ids(tmp_path, ["他xyz「新冠", "新 冠ab「c"])
    single = Tokenizer(BASE, added_tokens=[AddedToken("covid", single_word=True)])
    with pytest.raises(ZhbertError, match="'covid' would have to become a row"):
        with_pieces(single, [*single.vocabulary, "xyz"])


@given(st.data(), st.lists(tokens(), max_size=3, unique_by=str))
@settings(max_examples=60, deadline=None)
def test_the_scan_never_misses_a_text_with_a_token(
    draw: st.DataObject, added: list[tokenizers.AddedToken]
) -> None:
    made = [AddedToken(t.content, t.special, t.normalized, t.single_word) for t in added]
    tokenizer = Tokenizer(PIECES, added_tokens=made, **draw.draw(OPTIONS))
    texts = draw.draw(st.lists(texts_with([t.content for t in added]), min_size=1, max_size=9))
    ends = np.cumsum([len(text) for text in texts])
    touched = tokenizer._added.touched(codes_of("".join(texts)), ends)
    plain = Tokenizer(PIECES, special_tokens={}, **vars(tokenizer.options))
    for text, may_hold in zip(texts, touched, strict=True):
        ids = tokenizer.encode(text).ids.tolist()
        if not may_hold:
            assert ids == plain.encode(text, special_tokens=False).ids.tolist()
