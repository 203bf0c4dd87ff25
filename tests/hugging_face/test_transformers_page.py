"""docs/transformers.md: its examples run, and no argument of transformers is missing."""

from __future__ import annotations

import dataclasses
import inspect
import re

import pytest
from tests.test_docs import BLOCK, ROOT

import zhbert
from zhbert.model.arguments import REFUSED, WITHOUT_EFFECT, LoadingArguments
from zhbert.model.outputs import ForwardOptions

PAGE = (ROOT / "docs" / "transformers.md").read_text(encoding="utf-8")
NAMED = {
    word
    for code in re.findall(r"`([^`]+)`", re.sub(BLOCK, "", PAGE))
    for word in re.findall(r"\w+", code)
}
KINDS = [name for name in zhbert.__all__ if name.startswith("BertFor")]


@pytest.mark.filterwarnings("ignore")
def test_the_examples_run() -> None:
    names: dict[str, object] = {}
    for _, code in BLOCK.findall(PAGE):
        exec(compile(code, "transformers.md", "exec"), names)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("task", "kind", "key"),
    [
        ("text-classification", "BertForSequenceClassification", "score"),
        ("token-classification", "BertForTokenClassification", "entity"),
    ],
)
def test_these_pipelines_take_our_classes(task: str, kind: str, key: str) -> None:
    from transformers import pipeline

    tokenizer = zhbert.ZhbertTokenizer.from_pretrained("mini")
    model = getattr(zhbert, kind).from_pretrained("mini")
    assert key in pipeline(task, model=model, tokenizer=tokenizer)("很好")[0]


def test_features_are_not_extracted_by_their_pipeline() -> None:
    from transformers import pipeline

    tokenizer = zhbert.ZhbertTokenizer.from_pretrained("mini")
    model = zhbert.BertModel.from_pretrained("mini")
    with pytest.raises(KeyError, match="0"):
        pipeline("feature-extraction", model=model, tokenizer=tokenizer)("很好")


def test_every_argument_of_loading_and_saving_is_named() -> None:
    from transformers import PreTrainedModel

    loading, saving = PreTrainedModel.from_pretrained, PreTrainedModel.save_pretrained
    asked = {*inspect.signature(loading).parameters, *LoadingArguments.__annotations__}
    asked |= set(re.findall(r'kwargs\.pop\("([a-z]\w+)"', inspect.getsource(loading)))
    asked |= {*inspect.signature(saving).parameters, *WITHOUT_EFFECT}
    assert asked - NAMED == {"kwargs", "self", "save_directory"}


def test_every_argument_of_forward_is_named_and_known() -> None:
    import transformers
    from transformers.utils import TransformersKwargs

    asked = {*TransformersKwargs.__annotations__, *REFUSED["forward"]}
    for name in (*KINDS, "BertModel"):
        theirs = inspect.signature(getattr(transformers, name).forward).parameters
        ours = inspect.signature(getattr(zhbert, name).forward).parameters
        known = {*ours, *ForwardOptions.__annotations__, *REFUSED["forward"], "kwargs"}
        assert theirs.keys() <= known, name
        asked |= theirs.keys()
    assert asked - NAMED == {"kwargs", "self"}


def test_every_attribute_of_the_configuration_is_named_and_there() -> None:
    import transformers

    names = {field.name for field in dataclasses.fields(transformers.BertConfig)}
    assert names <= NAMED
    ours, theirs = zhbert.BertConfig(), transformers.BertConfig()
    differ = {name for name in names if getattr(ours, name) != getattr(theirs, name)}
    assert differ == {"vocab_size", "id2label", "label2id", "transformers_version"} & differ
