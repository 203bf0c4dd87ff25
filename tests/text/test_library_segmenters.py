"""The libraries' words, found again in the text: exact ends whatever a library does to it.

The models are made by the libraries' own trainers (LTP's perceptron, pkuseg) or of their own
classes with random weights (neural LTP); THULAC's is the one in its package; HanLP is a stand-in.
"""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.text import hanlp_stand_in, segmenter_models

from zhbert.errors import ZhbertError
from zhbert.text.segmenters import Segmenter, load_segmenter
from zhbert.text.segmenters.alignment import align, fold
from zhbert.text.segmenters.library import LONGEST, LibrarySegmenter
from zhbert.text.simplify import Simplifier

# The model's name -> the segmenter that it is for.
SEGMENTER = {
    "perceptron": "ltp",
    "neural": "ltp",
    "pkuseg": "pkuseg",
    "thulac": "thulac",
    "hanlp": "hanlp",
}
Load = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def hanlp() -> Iterator[None]:
    """HanLP's interface in the place of the library."""
    version = metadata.version
    with pytest.MonkeyPatch.context() as patch:
        for name, module in hanlp_stand_in.modules().items():
            patch.setitem(sys.modules, name, module)
        patch.setattr(
            metadata,
            "version",
            lambda name: hanlp_stand_in.VERSION if name == "hanlp" else version(name),
        )
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    return {
        name: None
        if name == "thulac"
        else getattr(segmenter_models, name)(tmp_path_factory.mktemp(name, numbered=False))
        for name in SEGMENTER
    }


@pytest.fixture(scope="module")
def load(models: dict[str, Path | None]) -> Iterator[Load]:
    """load("pkuseg", **options): the segmenter with its small model; the same one again."""
    loaded: dict[str, Segmenter] = {}

    def by_name(name: str, **options: Any) -> Segmenter:
        if options:
            return load_segmenter(SEGMENTER[name], model=models[name], **options)
        if name not in loaded:
            loaded[name] = load_segmenter(SEGMENTER[name], model=models[name])
        return loaded[name]

    yield by_name
    loaded.clear()


def words_of(segmenter: Segmenter, text: str) -> list[str]:
    ends = segmenter.segment([text])[0].tolist()
    return [text[a:b] for a, b in pairwise([0, *ends])]


every = pytest.mark.parametrize("name", SEGMENTER)
# Chinese of both scripts, Latin, digits, Japanese, Korean, Thai, Arabic; full-width, ligatures,
# combining marks, joined emoji; blanks, controls, invisible and unassigned characters, surrogates.
SCRIPTS = st.sampled_from(
    "使用语言模型来预测下一个词的研究生命天安门乾隆語言體龍頭髮aBcÉßﬁ１２ＡｂⅣ㎏½09.,;:!?#@%-_/()[]{}<>\"'"
    "。，、！？；：…—（）《》“”‘’ひらカナ한국어ไทยعربي😀👨\u200d👩\ufe0f𠀀𪚥\U000f0000\u0301\u0e33"
)
ODD = st.sampled_from(
    " \t\n\r\x0b\x1c\x85\u2028\u3000\xa0\x00\x07\x7f\u200b\ufeff\ufffd\ud800\udfff"
)
TEXTS = st.text(SCRIPTS | SCRIPTS | ODD | st.characters(), max_size=30)


@every
@given(texts=st.lists(TEXTS, max_size=3))
@settings(max_examples=60)
def test_ends_increase_end_with_the_text_and_depend_on_no_neighbour(
    load: Load, name: str, texts: list[str]
) -> None:
    segmenter = load(name)
    assert isinstance(segmenter, Segmenter)
    together = segmenter.segment(texts)
    assert len(together) == len(texts)
    for text, ends in zip(texts, together, strict=True):
        assert ends.dtype == np.int32
        assert (np.diff(ends, prepend=0) > 0).all()
        assert (ends[-1] == len(text)) if text else not len(ends)
        assert segmenter.segment([text])[0].tolist() == ends.tolist()


@every
@given(text=TEXTS)
@settings(max_examples=40)
def test_no_word_holds_a_blank_and_something_else(load: Load, name: str, text: str) -> None:
    for word in words_of(load(name), text):
        # Control characters count as blanks: no library does anything sensible with them.
        assert len({c.isspace() or unicodedata.category(c) == "Cc" for c in word}) == 1


@every
@given(text=st.text(SCRIPTS | SCRIPTS | ODD, max_size=60))
@settings(max_examples=60)
def test_the_words_of_mixed_scripts_are_the_library_s_own(load: Load, name: str, text: str) -> None:
    segmenter = load(name)
    before = segmenter.unaligned
    segmenter.segment([text])
    assert segmenter.unaligned == before


@every
def test_lines_and_sentences_are_cut_like_each_alone(load: Load, name: str) -> None:
    segmenter = load(name)
    parts = ["使用语言模型来预测！", "研究生命的起源", "\n", "我爱北京天安门。", "\n\n", "学术"]
    alone = [word for part in parts for word in words_of(segmenter, part)]
    assert words_of(segmenter, "".join(parts)) == alone


@every
def test_a_megabyte_in_one_line_is_cut(load: Load, name: str) -> None:
    # The others are slow: a shorter line still has many parts.
    size = 1 << 20 if name == "perceptron" else 20 * LONGEST
    (ends,) = load(name).segment(["语言模型研究生命" * (size // 8)])
    assert ends[-1] == size
    assert (np.diff(ends, prepend=0) > 0).all()


def test_what_stands_behind_a_model_s_last_piece_is_cut_too(load: Load) -> None:
    # 한 is three pieces: of these 500 characters a model of 512 pieces sees a half.
    segmenter = load("neural")
    text = "한语" * (LONGEST // 2)
    ends = segmenter.segment([text])[0]
    assert segmenter.unaligned == 0
    assert np.count_nonzero(ends > LONGEST // 2) > LONGEST // 8


@pytest.mark.parametrize("name", ["perceptron", "pkuseg", "thulac", "hanlp"])
def test_trained_models_find_the_words_that_they_were_trained_on(load: Load, name: str) -> None:
    segmenter = load(name)
    expected = ["使用", "语言", "模型", "来", "预测"]
    assert words_of(segmenter, "使用语言模型来预测") == expected
    assert words_of(segmenter, "研究 ，\t研究")[:2] == ["研究", " "]


@every
def test_traditional_text_is_cut_like_simplified(load: Load, name: str) -> None:
    simplified, traditional = "学术研究计划语言模型", "學術研究計劃語言模型"
    segmenter = load(name)
    cuts = segmenter.segment([simplified])[0].tolist()
    assert segmenter.segment([traditional])[0].tolist() == cuts
    assert segmenter.options["traditional"] == "characters"
    assert segmenter.options["traditional_table"]


@pytest.mark.parametrize(
    ("how", "expected"), [("none", "乾語體"), ("characters", "乾语体"), ("opencc", "干语体")]
)
def test_the_library_gets_the_text_as_traditional_says(how: str, expected: str) -> None:
    seen = []

    def cut(sentence: str) -> list[str]:
        seen.append(sentence)
        return [sentence]

    segmenter = LibrarySegmenter("made", "1", cut, simplify=Simplifier(how), options={})
    assert words_of(segmenter, "乾語體") == ["乾語體"]
    assert seen[-1] == expected
    assert segmenter.options["traditional"] == how


@every
def test_words_of_the_user_are_kept_whole(load: Load, name: str, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("語言模型 5\n天安门研究\n天安门研究\n", encoding="utf-8")
    segmenter = load(name, user_words=file)
    kept = {"語言模型", "天安门研究"} & set(words_of(segmenter, "使用語言模型來預測天安门研究的"))
    # LTP joins what its model leaves apart, but a word of the model's that sticks out may win.
    assert len(kept) >= (1 if name == "neural" else 2)
    assert "user_words" in segmenter.options
    assert segmenter.remarks == []


@every
def test_a_word_with_spaces_is_told_and_its_parts_are_no_words(
    load: Load, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "words.txt"
    file.write_text("Edu Trust认证 2000\n天安 门研究\n语言模型 3 n\n", encoding="utf-8")
    segmenter = load(name, user_words=file)
    (remark,) = segmenter.remarks
    assert "2 of 3 words whole: Edu Trust认证, 天安 门研究" in remark
    assert "语言模型" in words_of(segmenter, "使用语言模型")


def test_words_that_a_library_cuts_all_the_same_are_told(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("语言！模型\n", encoding="utf-8")
    (remark,) = load("pkuseg", user_words=file).remarks
    assert "1 of 1 word whole" in remark
    file.write_text("", encoding="utf-8")
    for name in ("pkuseg", "thulac"):
        assert words_of(load(name, user_words=file), "语言模型") == ["语言", "模型"]


@every
def test_a_corpus_says_what_cut_it(
    load: Load, models: dict[str, Path | None], name: str, tmp_path: Path
) -> None:
    segmenter = load(name)
    assert segmenter.name == SEGMENTER[name]
    assert segmenter.version
    assert json.loads(json.dumps(segmenter.options)) == segmenter.options
    model = models[name]
    if model is None:
        assert segmenter.options["model"] == "default"
        return
    assert segmenter.options["model"] == model.name
    # The same files elsewhere are the same model; another byte is another.
    other = tmp_path / model.name
    (shutil.copytree if model.is_dir() else shutil.copy)(model, other)
    again = load_segmenter(SEGMENTER[name], model=str(other))
    assert again.options == segmenter.options
    changed = other if other.is_file() else next(other.glob("*.json"), other / "weights.npz")
    if changed.suffix == ".json":
        changed.write_text(changed.read_text() + "\n")
        assert (
            load_segmenter(SEGMENTER[name], model=other).options["model_sha256"]
            != segmenter.options["model_sha256"]
        )


def test_a_folder_of_a_perceptron_model_is_known_by_its_config(
    load: Load, models: dict[str, Path | None], tmp_path: Path
) -> None:
    file = models["perceptron"]
    assert file
    shutil.copy(file, tmp_path / "cws.bin")
    (tmp_path / "config.json").write_text('{"nerual": false, "tasks": {"cws": "cws.bin"}}')
    segmenter = load_segmenter("ltp", model=tmp_path)
    assert segmenter.options["kind"] == "perceptron"
    assert words_of(segmenter, "使用语言模型") == words_of(load("perceptron"), "使用语言模型")


def test_a_name_of_the_hub_is_fetched_through_the_hub_s_client(
    models: dict[str, Path | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def snapshot(name: str, **options: Any) -> str:
        asked.append((name, options["revision"]))
        return str(models["neural"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    segmenter = load_segmenter("ltp", model="LTP/tiny@main")
    assert asked == [("LTP/tiny", "main")]
    assert segmenter.options["model"] == "LTP/tiny@main"
    assert segmenter.options["model_sha256"]


# ---------------------------------------------------------------- alignment


@pytest.mark.parametrize(
    ("sentence", "words", "expected"),
    [
        ("使用模型", ["使用", "模型"], [2, 4]),
        ("使用 模型", ["使用", "模型"], [3, 5]),
        ("ＡＢ模型", ["ab", "模型"], [2, 4]),
        ("語言模型", ["语言", "模型"], [2, 4]),
        ("重5㎏的", ["重", "5", "kg", "的"], [1, 2, 3, 4]),
        ("㎏的", ["k", "g", "的"], [1, 2]),
        ("e\u0301a", ["é", "a"], [2, 3]),
        ("\ufeff使用", ["使用"], [3]),
        ("使用", ["", "使", "用", ""], [1, 2]),
        ("使用", ["使", "[UNK]"], None),
        ("使用", ["使"], None),
        ("使用", ["用", "使"], None),
    ],
)
def test_words_are_found_in_the_sentence_again(
    sentence: str, words: list[str], expected: list[int] | None
) -> None:
    assert align(sentence, words) == expected


@given(st.text(SCRIPTS | ODD, max_size=20), st.data())
def test_a_library_that_normalises_is_followed(sentence: str, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(sentence)))))
    words = [sentence[a:b] for a, b in pairwise([0, *cuts, len(sentence)])]
    change = draw.draw(st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
    changed = ["".join(unicodedata.normalize(change, w).split()).lower() for w in words]
    ends = align(sentence, changed)
    assert ends is not None
    assert all(0 < end <= len(sentence) for end in ends)


def made(cut: Callable[[str], list[str]]) -> LibrarySegmenter:
    return LibrarySegmenter("made", "1", cut, simplify=Simplifier("none"), options={})


def test_a_library_sees_short_clean_sentences_and_none_that_is_invisible() -> None:
    seen = []

    def cut(sentence: str) -> list[str]:
        seen.append(sentence)
        return [sentence]

    segmenter = made(cut)
    segmenter.segment(["  你\ud800\x07好。\r\n\n 再见", "\ufeff\u200b", " ", "模" * 2000])
    assert seen[1:3] == ["你\ufffd 好。", "再见"]
    assert "".join(seen[3:]) == "模" * 2000
    assert max(map(len, seen)) == LONGEST


def test_where_words_cannot_be_found_each_character_is_one() -> None:
    segmenter = made(lambda sentence: ["[UNK]"] if "词" in sentence[:2] else [sentence])
    assert words_of(segmenter, "词的 x。使用模型。") == ["词", "的", " ", "x", "。", "使用模型。"]
    assert segmenter.unaligned == 1


def test_a_library_that_is_off_altogether_is_noticed_at_once() -> None:
    with pytest.raises(ZhbertError, match=r"segmenter made: the words of .* come out as '\[UNK\]'"):
        made(lambda sentence: ["[UNK]"])


def test_an_error_inside_a_library_is_one_line() -> None:
    def cut(sentence: str) -> list[str]:
        if "x" in sentence:
            raise RuntimeError("no memory\nat line 3")
        return [sentence]

    with pytest.raises(ZhbertError, match=r"stopped at 'xyz…': RuntimeError: no memory$"):
        made(cut).segment(["语言", "xyz"])


# ---------------------------------------------------------------- what cannot be loaded


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("ltp", "ltp_extension.perceptron"),
        ("pkuseg", "spacy_pkuseg"),
        ("thulac", "thulac"),
        ("hanlp", "hanlp"),
    ],
)
def test_a_missing_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "cws_model.bin").write_bytes(b"")
    model = tmp_path / "cws_model.bin" if name == "ltp" else None
    with pytest.raises(ZhbertError, match=rf"pip install '(spacy-)?{name}[^' ]*'$"):
        load_segmenter(name, model=model)


@pytest.mark.parametrize("name", ["ltp", "pkuseg", "thulac", "hanlp"])
def test_a_model_that_is_not_there_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(ZhbertError, match=r"nowhere: no such model"):
        load_segmenter(name, model=tmp_path / "nowhere")
    with pytest.raises(ZhbertError, match=r"no .*(json|bin|msgpack)"):
        load_segmenter(name, model=tmp_path)


@pytest.mark.parametrize("name", ["pkuseg", "thulac", "hanlp"])
def test_an_unknown_name_of_a_model_is_one_line(name: str) -> None:
    with pytest.raises(ZhbertError, match="nonsense"):
        load_segmenter(name, model="nonsense")


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    import spacy_pkuseg

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    monkeypatch.setattr(spacy_pkuseg, "download_model", offline)
    for name in ("ltp", "pkuseg", "hanlp"):
        with pytest.raises(ZhbertError, match=r"no route to host\).*--segmenter-model") as caught:
            load_segmenter(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["perceptron", "neural", "pkuseg", "hanlp"])
def test_a_damaged_model_is_one_line(
    models: dict[str, Path | None], tmp_path: Path, name: str
) -> None:
    model = models[name]
    assert model
    broken = tmp_path / model.name
    (shutil.copytree if model.is_dir() else shutil.copy)(model, broken)
    weights = next(
        file
        for file in [broken, *broken.glob("*")]
        if file.is_file() and file.suffix in (".bin", ".pt", ".npz")
    )
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(ZhbertError, match="could not be loaded") as caught:
        load_segmenter(SEGMENTER[name], model=broken)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["neural", "hanlp"])
def test_weights_that_a_checkpoint_lacks_are_told(
    models: dict[str, Path | None], tmp_path: Path, name: str
) -> None:
    import torch

    model = models[name]
    assert model
    folder = shutil.copytree(model, tmp_path / "model")
    (file,) = [*folder.glob("*.bin"), *folder.glob("*.pt")]
    state = torch.load(file)
    del state[next(key for key in state if "word_embeddings" in key)]
    torch.save(state, file)
    with pytest.raises(ZhbertError, match=r"lacks 1 weights \(.*word_embeddings"):
        load_segmenter(SEGMENTER[name], model=folder)


class _Runs:
    """A pickle that makes a file when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize(
    ("name", "weights"), [("neural", "pytorch_model.bin"), ("hanlp", "model.pt")]
)
def test_a_pickle_that_runs_code_is_refused(
    models: dict[str, Path | None], tmp_path: Path, name: str, weights: str
) -> None:
    import torch

    model = models[name]
    assert model
    folder = shutil.copytree(model, tmp_path / "model")
    torch.save({"a": _Runs(tmp_path / "ran")}, folder / weights)
    with pytest.raises(ZhbertError, match="could not be loaded"):
        load_segmenter(SEGMENTER[name], model=folder)
    assert not (tmp_path / "ran").exists()


def test_pkuseg_s_old_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "features.pkl").write_bytes(b"")
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(ZhbertError, match=r"no features\.msgpack"):
        load_segmenter("pkuseg", model=tmp_path)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("ltp", {}, "not of an LTP model"),
        ("ltp", [], "not a ltp model's config.json: must hold an object"),
        ("ltp", {"nerual": False}, "None: not a ltp model"),
        ("ltp", {"nerual": False, "tasks": 3}, "None: not a ltp model"),
        ("hanlp", {}, "holds a None"),
        ("hanlp", {"classpath": None}, "holds a None"),
    ],
)
def test_a_config_of_something_else_is_refused(
    tmp_path: Path, name: str, config: Any, message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ZhbertError, match=message):
        load_segmenter(name, model=tmp_path)


# Where in a folder's files a library makes what is named there: (file, keys on the way).
PLACES = [
    ("neural", "config.json", ["model"]),
    ("neural", "config.json", ["model", "backbone"]),
    ("neural", "config.json", ["model", "backbone", "config", "x"]),
    ("neural", "config.json", ["model", "heads", "cws"]),
    ("neural", "config.json", ["model", "processor", "more", "x"]),
    ("hanlp", "config.json", []),
    ("hanlp", "config.json", ["transform"]),
    ("hanlp", "config.json", ["sampler_builder", "x"]),
    ("hanlp", "config.json", ["x", "y", 0, "z"]),
    ("hanlp", "vocabs.json", ["tag"]),
    ("hanlp", "vocabs.json", ["nested", "tag"]),
]
KEYS = {
    "neural": "_ltp_target_",
    ("hanlp", "config.json"): "classpath",
    ("hanlp", "vocabs.json"): "type",
}
# By module, through modules, beside what is allowed, and of a library's own that runs things.
CALLS = [
    "os.system",
    "posix.system",
    "subprocess.check_output",
    "builtins.exec",
    "torch.nn.parallel.distributed.os.system",
    "torch.nn.Linear",
    "torch.load",
    "ltp_core.models.utils.instantiate.importlib.import_module",
    "ltp_core.models.ltp_model.LTPModule.__init__",
    "ltp_core.models.ltp_model.LTPModule ",
    "transformers.AutoModel.from_pretrained",
    "hanlp.components.lambda_wrapper.LambdaComponent",
    "hanlp.common.vocab.os.system",
    "hanlp.layers.embeddings.fast_text.FastTextEmbedding",
    "os.abort",
    "",
]


@pytest.mark.parametrize(("name", "file", "keys"), PLACES)
@pytest.mark.parametrize("call", CALLS)
def test_what_a_folder_s_files_name_is_never_called(
    models: dict[str, Path | None],
    tmp_path: Path,
    name: str,
    file: str,
    keys: list[str | int],
    call: str,
) -> None:
    model = models[name]
    assert model
    folder = shutil.copytree(model, tmp_path / "model")
    content = json.loads((folder / file).read_text())
    place: Any = content
    for depth, key in enumerate(keys, 1):
        if isinstance(place, list):
            place.append({})
        elif key not in place:
            place[key] = [] if keys[depth:][:1] == [0] else {}
        place = place[key]
    key = KEYS.get(name) or KEYS[name, file]  # type: ignore[call-overload]
    place |= {key: call, "command": f"touch {tmp_path / 'ran'}", "idx_to_token": []}
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(ZhbertError, match=r"refused|holds a") as caught:
        load_segmenter(SEGMENTER[name], model=folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "file", "entry"),
    [
        ("neural", "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}),
        ("neural", "tokenizer_config.json", {"tokenizer_class": "TransfoXLTokenizer"}),
        ("neural", "config.json", {"a": [{"auto_map": {"AutoModel": "evil.Evil"}}]}),
        ("neural", "config.json", {"a": {"attn_implementation": "some-one/kernel"}}),
        ("neural", "config.json", {"a": {"_attn_implementation": {"": "some-one/kernel"}}}),
        ("neural", "config.json", {"model": {"backbone": {"config": {"model_type": "rag"}}}}),
        ("hanlp", "config.json", {"transform": {"mapper": "https://example.com/char_table.json"}}),
        ("hanlp", "config.json", {"embed": {"filepath": "HTTP://example.com/a.bin"}}),
        ("hanlp", "config.json", {"a": "https://file.hankcs.com.example.com/a.bin"}),
    ],
)
def test_code_and_files_of_elsewhere_are_refused(
    models: dict[str, Path | None], tmp_path: Path, name: str, file: str, entry: dict[str, Any]
) -> None:
    model = models[name]
    assert model
    folder = shutil.copytree(model, tmp_path / "model")
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | entry))
    with pytest.raises(ZhbertError, match="refused") as caught:
        load_segmenter(SEGMENTER[name], model=folder)
    assert "\n" not in str(caught.value)


def test_the_stand_in_calls_what_a_config_names_as_hanlp_does(
    models: dict[str, Path | None], tmp_path: Path
) -> None:
    """So that the tests above would fail if nothing were refused."""
    model = models["hanlp"]
    assert model
    folder = shutil.copytree(model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    evil = {"classpath": "os.system", "command": f"touch {tmp_path / 'ran'}"}
    (folder / "config.json").write_text(json.dumps(config | {"x": {**evil}}))
    hanlp_stand_in.TransformerTaggingTokenizer().load(str(folder), devices=-1, verbose=False)
    assert (tmp_path / "ran").exists()


def test_a_pickle_among_pkuseg_s_weights_is_not_run(
    models: dict[str, Path | None], tmp_path: Path
) -> None:
    model = models["pkuseg"]
    assert model
    folder = shutil.copytree(model, tmp_path / "model")
    weights = np.array([_Runs(tmp_path / "ran")], object)
    np.savez(folder / "weights.npz", sizes=weights, w=weights)
    with pytest.raises(ZhbertError, match="could not be loaded"):
        load_segmenter("pkuseg", model=folder)
    assert not (tmp_path / "ran").exists()


def test_the_perceptron_of_a_folder_is_read_from_the_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(b"")
    (tmp_path / "model").mkdir()
    config = {"nerual": False, "tasks": {"cws": "../outside.bin"}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ZhbertError, match=r"model: no outside\.bin"):
        load_segmenter("ltp", model=tmp_path / "model")


def test_segmenters_without_models_say_so() -> None:
    for name in ("jieba", "whitespace"):
        with pytest.raises(ZhbertError, match=f"the {name} segmenter has no model to choose"):
            load_segmenter(name, model="x")


def test_the_fold_keeps_what_tells_characters_apart() -> None:
    assert fold("一") == "一"
    assert fold("Ａ") == "a"
    assert fold("\u3000") == fold("\u200b") == ""
