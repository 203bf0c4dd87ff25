"""A tokenizer's files: what transformers writes is read, what we write transformers opens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from zhbert.errors import ZhbertError
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.vocab import read_vocabulary

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "使",
    "用",
    "hello",
    "Hello",
    "##o",
    "e",
    "é",
]
TEXTS = ["使用 Hello[MASK]", "hellOo é", "[CLS] 使é用[PAD]x", "<S>使<T>", "", "[MASK][UNK]"]
Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A function that writes the files of a model folder (text, bytes or JSON)."""

    def write(files: dict[str, Any]) -> Path:
        for name, content in ({"config.json": {"model_type": "bert"}} | files).items():
            if isinstance(content, bytes):
                (tmp_path / name).write_bytes(content)
            else:
                text = content if isinstance(content, str) else json.dumps(content)
                (tmp_path / name).write_text(text, encoding="utf-8", newline="\n")
        return tmp_path

    return write


def lines(pieces: list[str]) -> str:
    return "".join(f"{piece}\n" for piece in pieces)


def assert_same_as_transformers(path: Path, texts: list[str] = TEXTS) -> None:
    ours = Tokenizer.from_pretrained(path)
    for theirs in (
        transformers.AutoTokenizer.from_pretrained(path),
        transformers.BertTokenizer.from_pretrained(path),
    ):
        for text in texts:
            expected = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
            encoding = ours.encode(text)
            assert encoding.ids.tolist() == expected["input_ids"], text
            assert encoding.pieces == theirs.convert_ids_to_tokens(expected["input_ids"])
            assert [tuple(o) for o in encoding.offsets.tolist()] == expected["offset_mapping"]
        for name in ("pad", "unk", "cls", "sep", "mask"):
            if getattr(theirs, f"{name}_token") is not None:
                assert getattr(ours, f"{name}_id") == getattr(theirs, f"{name}_token_id")


CONFIGS: dict[str, dict[str, Any]] = {
    "none": {},
    "cased": {"do_lower_case": False},
    "accents kept": {"strip_accents": False},
    "accents stripped, cased": {"do_lower_case": False, "strip_accents": True},
    "Chinese not split": {"tokenize_chinese_chars": False},
    "another mask": {"mask_token": "使"},
    "as older versions wrote it": {
        "mask_token": {
            "__type": "AddedToken",
            "content": "[MASK]",
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
        }
    },
    "no mask": {"mask_token": None},
    "more special tokens": {"additional_special_tokens": ["<S>", "<T>"]},
    "added tokens": {
        "added_tokens_decoder": {
            "5": {"content": "使", "normalized": False, "special": True},
            "12": {"content": "<S>", "normalized": False, "special": False},
        }
    },
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_vocab_txt_with_a_configuration_reads_as_in_transformers(
    folder: Folder, config: dict[str, Any]
) -> None:
    assert_same_as_transformers(
        folder({"vocab.txt": lines(PIECES), "tokenizer_config.json": config})
    )


VOCABULARIES = {
    "no configuration": lines(PIECES),
    "no newline at the end": lines(PIECES)[:-1],
    "CRLF": lines(PIECES).replace("\n", "\r\n").encode(),
    "blank lines at the end": lines(PIECES) + "\n\n \n",
    "blank lines inside": lines([*PIECES[:6], "", "", *PIECES[6:]]),
    "white space as a piece": lines([*PIECES[:6], "\u2028", "##\u2028", *PIECES[6:]]),
    "white space after pieces": lines([f"{piece}\u3000 " for piece in PIECES]),
    "special tokens missing": lines(PIECES[1:4] + PIECES[5:]),
    "special tokens missing before a blank line": lines([*PIECES[1:4], *PIECES[5:], ""]),
    "special tokens missing before blank lines": lines([*PIECES[1:4], *PIECES[5:], "", "", ""]),
}


@pytest.mark.parametrize("content", VOCABULARIES.values(), ids=list(VOCABULARIES))
def test_vocab_txt_reads_as_in_transformers(folder: Folder, content: str | bytes) -> None:
    assert_same_as_transformers(folder({"vocab.txt": content}))


def test_other_names_of_special_tokens(folder: Folder) -> None:
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"}
    pieces = [*names.values(), "[MASK]", "使", "用", "[", "]", "un", "##k"]
    path = folder({"vocab.txt": lines(pieces), "tokenizer_config.json": names})
    assert_same_as_transformers(path, [*TEXTS, "使<unk>用<s> [UNK]", "<unk"])
    tokenizer = Tokenizer.from_pretrained(path)
    assert (tokenizer.unk_id, tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id) == (0, 1, 2, 3)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"do_lower_case": False},
    {"strip_accents": False, "tokenize_chinese_chars": False},
    {"extra_special_tokens": ["<S>", "使"]},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_what_we_save_opens_in_transformers_with_the_same_ids(
    folder: Folder, options: dict[str, Any]
) -> None:
    path = folder({})
    tokenizer = Tokenizer(PIECES, **options)
    tokenizer.save_pretrained(path, model_max_length=512)
    assert_same_as_transformers(path)
    assert transformers.AutoTokenizer.from_pretrained(path).model_max_length == 512
    assert Tokenizer.from_pretrained(path).fingerprint() == tokenizer.fingerprint()
    # Either vocabulary file will do alone.
    for name in ("vocab.txt", "tokenizer.json"):
        content = (path / name).read_bytes()
        (path / name).unlink()
        assert_same_as_transformers(path)
        assert Tokenizer.from_pretrained(path).fingerprint() == tokenizer.fingerprint()
        (path / name).write_bytes(content)


def test_transformers_adds_cls_and_sep_to_what_we_save(folder: Folder) -> None:
    path = folder({})
    Tokenizer(PIECES).save_pretrained(path)
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    assert theirs("使").input_ids == [2, 5, 3]
    pair = theirs("使", "用")
    assert pair.input_ids == [2, 5, 3, 6, 3]
    assert pair.token_type_ids == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("options", [{}, {"do_lower_case": False}])
def test_what_transformers_saves_is_read(folder: Folder, options: dict[str, Any]) -> None:
    path = folder({"vocab.txt": lines(PIECES)})
    transformers.BertTokenizer.from_pretrained(path, **options).save_pretrained(path)
    (path / "vocab.txt").unlink()
    assert_same_as_transformers(path)
    assert Tokenizer.from_pretrained(path).vocabulary == tuple(PIECES)


def test_what_transformers_saves_of_a_blank_piece_is_the_same_tokenizer(folder: Folder) -> None:
    path = folder({"vocab.txt": lines([*PIECES[:6], "\u2028", "##\u2028", *PIECES[6:]])})
    expected = Tokenizer.from_pretrained(path).fingerprint()
    transformers.BertTokenizer.from_pretrained(path).save_pretrained(path)
    assert Tokenizer.from_pretrained(path).fingerprint() == expected
    (path / "vocab.txt").unlink()
    assert Tokenizer.from_pretrained(path).fingerprint() == expected


def test_tokenizer_json_alone_says_the_options(folder: Folder) -> None:
    path = folder({})
    Tokenizer(PIECES, do_lower_case=False, strip_accents=True).save_pretrained(path)
    (path / "tokenizer_config.json").unlink()
    (path / "vocab.txt").unlink()
    for name in (path, path / "tokenizer.json"):
        tokenizer = Tokenizer.from_pretrained(name)
        assert (tokenizer.options.do_lower_case, tokenizer.options.strip_accents) == (False, True)
        assert tokenizer.encode("Hello é").pieces == ["Hello", "e"]


def test_special_tokens_map_of_older_folders_is_read(folder: Folder) -> None:
    path = folder({"vocab.txt": lines(PIECES), "special_tokens_map.json": {"mask_token": "使"}})
    assert Tokenizer.from_pretrained(path).mask_id == 5
    assert_same_as_transformers(path)


def test_google_vocabulary_and_its_copy_give_the_same(data: Path, folder: Folder) -> None:
    tokenizer = Tokenizer.from_pretrained(data / "google_zh_vocab.txt")
    assert len(tokenizer.vocabulary) == 21128
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id) == (0, 100, 101)
    path = folder({})
    tokenizer.save_pretrained(path)
    # To the byte: two of its pieces are a line separator, U+2028.
    assert (path / "vocab.txt").read_bytes() == (data / "google_zh_vocab.txt").read_bytes()
    content = json.loads((path / "tokenizer.json").read_text("utf-8"))
    assert sorted(content["model"]["vocab"].values()) == list(range(21128))
    assert_same_as_transformers(path, ["“语言模型”——来预测 probability…", "<S>[unused1]</S>"])


def test_fingerprint_tells_pieces_and_options_apart() -> None:
    made = [
        Tokenizer(PIECES),
        Tokenizer([*PIECES, "的"]),
        Tokenizer([*PIECES[:-2], "é", "e"]),
        Tokenizer(PIECES, do_lower_case=False),
        Tokenizer(PIECES, strip_accents=False),
        Tokenizer(PIECES, tokenize_chinese_chars=False),
        Tokenizer(PIECES, extra_special_tokens=["使"]),
    ]
    assert len({tokenizer.fingerprint() for tokenizer in made}) == len(made)
    # strip_accents = None means the same as do_lower_case.
    assert Tokenizer(PIECES).fingerprint() == Tokenizer(PIECES, strip_accents=True).fingerprint()


# --- users' mistakes ----------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "使": 1}},
    "normalizer": {"type": "BertNormalizer"},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
}

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no files": ({}, "neither vocab.txt nor tokenizer.json"),
    "empty vocabulary": ({"vocab.txt": "\n \n"}, "vocab.txt: the vocabulary is empty"),
    "no [UNK]": ({"vocab.txt": "a\nb\n"}, r"no piece \[UNK\]"),
    "not UTF-8": (
        {"vocab.txt": b"[UNK]\n\xd6\xd0\n"},
        "vocab.txt: not UTF-8 .*at byte 7.*iconv -f GB18030",
    ),
    "byte order mark": ({"vocab.txt": "\ufeff[UNK]\n"}, "byte order mark"),
    "broken JSON": ({"tokenizer.json": "{"}, "tokenizer.json:1: not JSON"),
    "not an object": ({"tokenizer.json": []}, "not a tokenizer: must hold an object"),
    "an LFS pointer": ({"vocab.txt": "version https://git-lfs.github.com/spec/v1\n"}, "git lfs"),
    "a web page": ({"vocab.txt": "<!DOCTYPE html><html>"}, "vocab.txt: a web page"),
    "UTF-16": ({"vocab.txt": "[UNK]\n".encode("utf-16")}, "vocab.txt: .*iconv -f UTF-16"),
    "another model": ({"tokenizer.json": {"model": {"type": "BPE"}}}, "a BPE tokenizer"),
    "no model": ({"tokenizer.json": {}}, "a None tokenizer"),
    "another normalizer": ({"tokenizer.json": GOOD | {"normalizer": {"type": "NFKC"}}}, "'NFKC'"),
    "no normalizer": ({"tokenizer.json": GOOD | {"normalizer": None}}, "normalizer is None"),
    "another splitter": (
        {"tokenizer.json": GOOD | {"pre_tokenizer": {"type": "Whitespace"}}},
        "pre_tokenizer is 'Whitespace'",
    ),
    "another prefix": (
        {"tokenizer.json": GOOD | {"model": GOOD["model"] | {"continuing_subword_prefix": "@@"}}},
        "continuing_subword_prefix is '@@', not '##'",
    ),
    "added token elsewhere": (
        {"tokenizer.json": GOOD | {"added_tokens": [{"id": 7, "content": "<S>"}]}},
        "has the id 7, where 2 is expected",
    ),
    "vocabularies differ": (
        {"tokenizer.json": GOOD, "vocab.txt": "[UNK]\n用\n"},
        "disagree: id 1 is '使' and '用'",
    ),
    "option of another type": (
        {"vocab.txt": "[UNK]\n", "tokenizer_config.json": {"do_lower_case": "yes"}},
        "do_lower_case must be true or false, not 'yes'",
    ),
    "special token of another type": (
        {"vocab.txt": "[UNK]\n", "tokenizer_config.json": {"mask_token": 4}},
        "mask_token: a token is expected, not 4",
    ),
}


@pytest.mark.parametrize(("files", "says"), MISTAKES.values(), ids=list(MISTAKES))
def test_mistakes_are_named_in_one_line(folder: Folder, files: dict[str, Any], says: str) -> None:
    with pytest.raises(ZhbertError, match=says) as error:
        Tokenizer.from_pretrained(folder(files))
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ZhbertError, match="nowhere: no such file or folder"):
        Tokenizer.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ZhbertError, match="no such file"):
        read_vocabulary(tmp_path / "nowhere.txt")


def test_a_special_token_that_was_switched_off_is_named(folder: Folder) -> None:
    path = folder({"vocab.txt": lines(PIECES), "tokenizer_config.json": {"mask_token": None}})
    with pytest.raises(ZhbertError, match="no mask_token"):
        _ = Tokenizer.from_pretrained(path).mask_id


def test_saving_where_a_file_stands_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ZhbertError, match="file"):
        Tokenizer(PIECES).save_pretrained(tmp_path / "file")
