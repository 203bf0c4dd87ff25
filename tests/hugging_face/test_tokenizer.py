"""ZhbertTokenizer and Tokenizer's call: what BertTokenizerFast answers, key by key."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.text.test_tokenizer import OPTIONS, PIECES, any_text
from tests.transformers4 import ROOT, run_with_transformers4
from tokenizers import AddedToken, normalizers

from zhbert import Tokenizer, ZhbertError, ZhbertTokenizer
from zhbert.hugging_face.tokenizer import _NativeEncoding


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    Tokenizer(PIECES, model_max_length=24).save_pretrained(path)
    (path / "config.json").write_text('{"model_type": "bert"}')
    return path


@pytest.fixture(scope="module")
def ours(folder: Path) -> ZhbertTokenizer:
    return ZhbertTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return transformers.BertTokenizerFast.from_pretrained(folder)


# --- equal to BertTokenizerFast -----------------------------------------------------------------

texts = any_text | st.text("abc 使用", min_size=10, max_size=60)
word_lists = st.lists(texts, max_size=5)
flags = st.fixed_dictionaries(
    {},
    optional={
        "add_special_tokens": st.booleans(),
        "padding": st.sampled_from([True, False, "longest", "max_length", "do_not_pad"]),
        "truncation": st.sampled_from(
            [True, False, None, "longest_first", "only_first", "only_second", "do_not_truncate"]
        ),
        "max_length": st.sampled_from([9, 10, 12, 16, 17, 24, 30]),
        "stride": st.integers(0, 2),
        "pad_to_multiple_of": st.sampled_from([None, 1, 4, 8]),
        "padding_side": st.sampled_from([None, "left", "right"]),
        "return_tensors": st.sampled_from([None, None, "np", "pt"]),
        "return_token_type_ids": st.booleans() | st.none(),
        "return_attention_mask": st.booleans() | st.none(),
        "return_overflowing_tokens": st.booleans(),
        "return_special_tokens_mask": st.booleans(),
        "return_offsets_mapping": st.booleans(),
        "return_length": st.booleans(),
        "split_special_tokens": st.booleans(),
    },
)


@st.composite
def inputs(draw: st.DrawFn) -> tuple[Any, Any, dict[str, Any]]:
    options = draw(flags)
    words = draw(st.integers(0, 3)) == 0
    if words:
        options["is_split_into_words"] = True
    one = word_lists if words else texts
    if draw(st.booleans()):
        return draw(one), draw(st.none() | one), options
    batch = draw(st.lists(one, min_size=1, max_size=5))
    paired = draw(st.booleans())
    pairs = draw(st.lists(one, min_size=len(batch), max_size=len(batch))) if paired else None
    return batch, pairs, options


def plain(value: Any) -> Any:
    """A value with all its types."""
    if isinstance(value, list | tuple):
        return type(value), [plain(one) for one in value]
    if isinstance(value, np.ndarray) and value.dtype == object:
        return "ragged", value.shape, [plain(one) for one in value]
    if isinstance(value, np.ndarray | torch.Tensor):
        # Theirs lack the last axis of offsets if there is no piece.
        shape = tuple(value.shape) if 0 not in value.shape else tuple(value.shape[:2])
        return type(value), value.dtype, shape, value.tolist()
    return type(value), value


def outcome(tokenizer: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a call returns, in order and with types; or the type of its error."""
    try:
        found = tokenizer(*arguments, **options)
    except Exception as error:
        return type(error)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of `tokenizers`, over some strides
            raise
        return type(error)
    return [(name, plain(value)) for name, value in found.items()]


@given(inputs())
@settings(max_examples=600)
@pytest.mark.filterwarnings("ignore:.max_length. is ignored")
def test_any_call_gives_what_bert_tokenizer_fast_gives(
    ours: ZhbertTokenizer, theirs: Any, call: tuple[Any, Any, dict[str, Any]]
) -> None:
    text, pair, options = call
    assert outcome(ours, text, pair, **options) == outcome(theirs, text, pair, **options)


@given(inputs(), st.integers(0, len(OPTIONS) - 1), st.sampled_from(["left", "right"]))
@settings(max_examples=400)
@pytest.mark.filterwarnings("ignore:.max_length. is ignored")
def test_the_call_of_zhbert_s_own_tokenizer_gives_the_same_or_one_line(
    call: tuple[Any, Any, dict[str, Any]], place: int, side: str
) -> None:
    text, pair, options = call
    own, reference = both(place)
    reference.truncation_side = side
    chosen = {key: value for key, value in options.items() if value is not None}
    expected = outcome(reference, text, pair, **options)
    found = outcome(own, text, pair, truncation_side=side, **chosen)
    if found is ZhbertError:
        assert isinstance(expected, type) or rarely_useful(expected, pair, options)
    else:
        assert found == expected


def rarely_useful(expected: Any, pair: Any, options: dict[str, Any]) -> bool:
    """An array of arrays, or windows over both texts of a pair."""
    ragged = options.get("return_tensors") == "np" and expected[0][1][0] == "ragged"
    return ragged or (bool(pair) and options.get("return_overflowing_tokens", False))


@cache
def both(place: int) -> tuple[Tokenizer, Any]:
    """Ours, and the peer, of the options OPTIONS[place]."""
    with tempfile.TemporaryDirectory() as folder:
        own = Tokenizer(PIECES, **OPTIONS[place], model_max_length=24)
        own.save_pretrained(folder)
        return own, transformers.BertTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("rule", ["longest_first", "only_first", "only_second"])
def test_lists_are_encoded_natively(
    ours: ZhbertTokenizer, theirs: Any, side: str, rule: str
) -> None:
    options = {"truncation": rule, "max_length": 12, "padding": True, "return_tensors": "np"}
    for tokenizer in (ours, theirs):
        tokenizer.truncation_side = side
    pair = ["使用" * 6, "的abc"] if rule == "only_second" else ["的abc", "a"]
    found = outcome(ours, ["a使用" * 3, "使"], pair, **options)
    assert found == outcome(theirs, ["a使用" * 3, "使"], pair, **options)
    assert isinstance(ours(["使" * 9, "a"], **options | {"truncation": True}), _NativeEncoding)
    for tokenizer in (ours, theirs):
        tokenizer.truncation_side = "right"


def test_characters_words_and_pieces_are_found_as_by_bert_tokenizer_fast(
    ours: ZhbertTokenizer, theirs: Any
) -> None:
    options = {"truncation": "only_second", "max_length": 10, "return_overflowing_tokens": True}
    arguments = ["a使 pro", "用"], ["使用的probability", "的" * 12]
    found, expected = ours(*arguments, **options), theirs(*arguments, **options)
    assert isinstance(found, _NativeEncoding)
    assert (found.is_fast, found.n_sequences) == (expected.is_fast, expected.n_sequences)
    for row in range(len(expected["input_ids"])):
        for name in ("tokens", "word_ids", "sequence_ids"):
            assert getattr(found, name)(row) == getattr(expected, name)(row)
        assert found.char_to_token(row, 1, 1) == expected.char_to_token(row, 1, 1)
        assert found[row].offsets == expected[row].offsets
    assert pickle.loads(pickle.dumps(found)).word_ids(1) == expected.word_ids(1)


def test_tokens_may_be_added_and_rules_replaced_at_any_time(folder: Path) -> None:
    pair = [
        cls.from_pretrained(folder) for cls in (ZhbertTokenizer, transformers.BertTokenizerFast)
    ]
    texts = ["使用Á新冠<e> 的", "abc [MASK]使"] * 3

    def same(**options: Any) -> None:
        found, expected = (outcome(tokenizer, texts, **options) for tokenizer in pair)
        assert found == expected

    same()
    for change in (
        lambda one: one.add_tokens(["新冠", AddedToken("使", lstrip=True)]),
        lambda one: one.add_special_tokens({"extra_special_tokens": ["<e>"]}),
        lambda one: setattr(one, "pad_token", "[MASK]"),
        lambda one: setattr(one.backend_tokenizer, "normalizer", normalizers.NFC()),
        lambda one: setattr(one.backend_tokenizer, "post_processor", None),
    ):
        for tokenizer in pair:
            change(tokenizer)
        same(padding=True)


def test_mistakes_are_the_errors_of_bert_tokenizer_fast(ours: ZhbertTokenizer, theirs: Any) -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((5,), {}),
        ((None,), {}),
        ((["使", None],), {}),
        ((["使", 5],), {}),
        ((b"abc",), {}),
        ((["使"], "用"), {}),
        ((["使"], ["用", "的"]), {}),
        ((["使用", "的"],), {"return_tensors": "pt"}),
        ((["使用", "的"],), {"return_tensors": "tensor"}),
        ((["使用", "的"],), {"padding": "widest"}),
        ((["使用", "的"],), {"truncation": "first"}),
        ((["使用", "的"],), {"padding": True, "padding_side": "top"}),
        ((["使用", "的"],), {"truncation": True, "max_length": 3, "stride": 2}),
        ((["使用", "的"], ["的"] * 2), {"truncation": "only_first", "max_length": 3}),
        ((["使用"],), {"truncation": True, "padding": True, "pad_to_multiple_of": 5}),
        ((["使用"],), {"is_split_into_words": True}),
    ]
    for arguments, options in calls:
        expected = outcome(theirs, *arguments, **options)
        assert outcome(ours, *arguments, **options) == expected, (arguments, options)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((5,), {}, "a text is a string, not int: 5"),
        ((["使", None],), {}, "a text is a string, not NoneType"),
        ((["使"], "用"), {}, "text_pair must be a list"),
        ((["使"], ["用", "的"]), {}, "text_pair: 2 texts for the 1 of text"),
        (([["使"], "用"],), {"is_split_into_words": True}, "a text is a list of words, not str"),
        ((["使用", "的"],), {"return_tensors": "pt"}, "differ in length; ask for padding=True"),
        (("使",), {"return_tensors": "tf"}, 'return_tensors = "tf": not a choice'),
        (("使",), {"padding": "longst"}, "did you mean 'longest'"),
        (("使",), {"truncation": "first"}, 'truncation = "first": not a choice'),
        (("使",), {"truncation": True}, "max_length: name it"),
        (("使",), {"max_length": 3, "stride": 1}, "greater than stride = 1"),
        (("使", "用" * 9), {"max_length": 5, "truncation": "only_first"}, "longest_first"),
        (("使",), {"padings": True}, "unexpected keyword argument 'padings'"),
    ],
)
def test_mistakes_are_one_line_without_transformers(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ZhbertError, TypeError)) as caught:
        Tokenizer(PIECES)(*arguments, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- with transformers' other parts -------------------------------------------------------------


def test_what_is_saved_is_a_bert_tokenizer(folder: Path, tmp_path: Path) -> None:
    ours = ZhbertTokenizer.from_pretrained(folder)
    ours.save_pretrained(tmp_path / "ours")
    theirs = transformers.BertTokenizerFast.from_pretrained(folder)
    theirs.save_pretrained(tmp_path / "theirs")
    names = [path.name for path in (tmp_path / "theirs").iterdir()]
    assert [path.name for path in (tmp_path / "ours").iterdir()] == names
    for name in names:
        assert (tmp_path / "ours" / name).read_text() == (tmp_path / "theirs" / name).read_text()
    assert isinstance(ours, ZhbertTokenizer)


def test_names_of_the_catalogue_and_single_files_open(folder: Path) -> None:
    assert ZhbertTokenizer.from_pretrained("mini").vocab_size == 21128
    assert ZhbertTokenizer.from_pretrained(folder / "vocab.txt").vocab_size == len(PIECES)
    with pytest.raises(ZhbertError, match="no-such-model"):
        ZhbertTokenizer.from_pretrained("no-such-model")


def test_another_process_can_have_it(ours: ZhbertTokenizer) -> None:
    before = pickle.dumps(ours)
    ours(["使用"] * 3)
    assert pickle.dumps(ours) == before  # datasets takes the bytes to see whether anything changed
    assert pickle.loads(before)(["使用"])["input_ids"] == ours(["使用"])["input_ids"]


@pytest.fixture(scope="module")
def mini() -> ZhbertTokenizer:
    return ZhbertTokenizer.from_pretrained("mini")


def test_pipelines_fill_masks_with_it(mini: ZhbertTokenizer) -> None:
    model = transformers.AutoModelForMaskedLM.from_pretrained(mini.name_or_path)
    fast = transformers.BertTokenizerFast.from_pretrained(mini.name_or_path)
    texts = ["北京是中国的首[MASK]。", "他说[MASK]。"]
    found, expected = (
        transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)(texts)
        for tokenizer in (mini, fast)
    )
    assert found == expected


def test_the_trainer_and_datasets_take_it(mini: ZhbertTokenizer, tmp_path: Path) -> None:
    import datasets

    def encode(rows: dict[str, list[str]]) -> Any:
        return mini(rows["text"], truncation=True, max_length=16)

    rows = datasets.Dataset.from_dict({"text": ["使用语言模型", "概率"] * 4, "label": [0, 1] * 4})
    encoded = rows.map(encode, batched=True, remove_columns="text")
    assert encoded[1]["input_ids"] == mini("概率")["input_ids"]
    config = transformers.BertConfig(
        vocab_size=len(mini), hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8,
    )  # fmt: skip
    trainer = transformers.Trainer(
        transformers.BertForSequenceClassification(config),
        transformers.TrainingArguments(tmp_path, max_steps=2, report_to=[], use_cpu=True),
        train_dataset=encoded,
        processing_class=mini,
    )
    assert isinstance(trainer.data_collator, transformers.DataCollatorWithPadding)
    assert trainer.train().global_step == 2
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "checkpoint-2").vocab_size


def test_labels_of_words_are_padded_with_it(ours: ZhbertTokenizer, theirs: Any) -> None:
    batch = [["使", "用abc"], ["的"]]
    collated = []
    for tokenizer in (ours, theirs):
        encoded = tokenizer(batch, is_split_into_words=True)
        labels = [[-100 if w is None else w for w in encoded.word_ids(row)] for row in (0, 1)]
        rows = [{"input_ids": encoded["input_ids"][row], "labels": labels[row]} for row in (0, 1)]
        collated.append(transformers.DataCollatorForTokenClassification(tokenizer)(rows))
    found, expected = collated
    assert {name: plain(value) for name, value in found.items()} == {
        name: plain(value) for name, value in expected.items()
    }


WITH_TRANSFORMERS_4 = """
import random, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from transformers import AutoTokenizer, BertTokenizerFast, pipeline
from zhbert import ZhbertTokenizer
from zhbert.hugging_face.tokenizer import _NativeEncoding

def outcome(tokenizer, *arguments, **options):
    try:
        found = tokenizer(*arguments, **options)
    except Exception as error:
        return type(error).__name__
    plain = lambda v: (str(v.dtype), repr(v.tolist())) if hasattr(v, "dtype") else v
    return [(name, plain(value)) for name, value in found.items()]

ours = ZhbertTokenizer.from_pretrained(sys.argv[2])
theirs = BertTokenizerFast.from_pretrained(sys.argv[2])
rng, different, native = random.Random(1), [], 0
choices = {
    "padding": [True, False, "max_length"], "truncation": [True, False, None, "only_second"],
    "max_length": [12, 20], "stride": [0, 1], "return_tensors": [None, "np", "pt"],
    "add_special_tokens": [True, False], "return_offsets_mapping": [True, False],
    "return_special_tokens_mask": [True, False], "return_overflowing_tokens": [True, False],
    "return_length": [True, False], "padding_side": [None, "left"], "pad_to_multiple_of": [None, 4],
}
def text():
    return "".join(rng.choice("使用的 abc12é[SEP]!가") for _ in range(rng.randrange(24)))
for trial in range(300):
    options = {n: rng.choice(v) for n, v in choices.items() if rng.random() < 0.4}
    words = rng.random() < 0.25
    one = (lambda: [text() for _ in range(3)]) if words else text
    if words:
        options["is_split_into_words"] = True
    batch = [one() for _ in range(3)] if rng.random() < 0.7 else one()
    pair = None
    if rng.random() < 0.5:
        pair = [one() for _ in range(3)] if len(batch) == 3 and not words else one()
        pair = pair if isinstance(batch, list) == isinstance(pair, list) else None
    found, expected = (outcome(t, batch, pair, **options) for t in (ours, theirs))
    if found != expected:
        different.append([batch, pair, options, found, expected])
encoding = ours(["使用abc", "的"])
assert encoding.word_ids(0) == theirs(["使用abc", "的"]).word_ids(0)
ours.add_tokens(["新冠"]); theirs.add_tokens(["新冠"])
assert ours(["新冠", "的"])["input_ids"] == theirs(["新冠", "的"])["input_ids"]
ours.save_pretrained(sys.argv[3])
saved = type(AutoTokenizer.from_pretrained(sys.argv[3])).__name__
result = [different[:2], isinstance(encoding, _NativeEncoding), saved]
"""


def test_transformers_4_gives_the_same(folder: Path, tmp_path: Path) -> None:
    answer = run_with_transformers4(
        WITH_TRANSFORMERS_4, str(ROOT / "src"), str(folder), str(tmp_path / "saved")
    )
    assert answer == [[], True, "BertTokenizerFast"]
