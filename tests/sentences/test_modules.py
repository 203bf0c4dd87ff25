"""Folders of sentence-transformers, old and new: opened and written with equal vectors."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
import transformers
from tests.sentences.folders import (
    TEXTS,
    WIDTH,
    as_older,
    dense,
    in_subfolder,
    open_theirs,
    rewrite,
    write_theirs,
)
from tests.small_models import make_model

from zhbert import BertConfig, SentenceEncoder, ZhbertError, zoo
from zhbert.export.convert import convert
from zhbert.sentences.model import SentenceModel
from zhbert.sentences.modules import DenseConfig, NormalizeConfig, SentenceConfig
from zhbert.surgery.shrink import shrink
from zhbert.zoo.layout import module_folders


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_theirs(tmp_path_factory.mktemp("whole") / "model", dense())


def opened(folder, **options):
    return SentenceEncoder.from_pretrained(folder, device="cpu", **options)


def assert_same_vectors(ours, theirs, **options):
    mine, yours = ours.encode(TEXTS, **options), theirs.encode(TEXTS, **options)
    np.testing.assert_allclose(mine, yours, rtol=0, atol=1e-5)


def normalize():
    from sentence_transformers.base.modules import Normalize

    return Normalize()


# Name -> the modules behind the pooling, and the options of `write_theirs`.
VARIANTS = {
    "cls": lambda: ([], {"modes": "cls"}),
    "max": lambda: ([], {"modes": "max"}),
    "mean_sqrt_len_tokens": lambda: ([], {"modes": "mean_sqrt_len_tokens"}),
    "weightedmean": lambda: ([], {"modes": "weightedmean"}),
    "lasttoken": lambda: ([], {"modes": "lasttoken"}),
    "several": lambda: ([normalize()], {"modes": ["lasttoken", "cls", "mean", "cls"]}),
    "in the old order": lambda: ([], {"modes": ["max", "mean"]}),
    "dense": lambda: ([dense(), normalize()], {}),
    "two dense": lambda: (
        [
            dense(activation_function=torch.nn.GELU(), bias=False),
            dense(8, 3, activation_function=None, use_residual=True),
        ],
        {},
    ),
    "residual": lambda: ([dense(out=WIDTH, use_residual=True)], {}),
    "truncated": lambda: ([], {"truncate_dim": 5, "similarity_fn_name": "dot"}),
    "prompts": lambda: (
        [],
        {"prompts": {"query": "bert: ", "a": "trans "}, "default_prompt_name": "a"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=VARIANTS)
def folder(request, tmp_path_factory):
    rest, options = VARIANTS[request.param]()
    return write_theirs(tmp_path_factory.mktemp("variants") / "model", *rest, **options)


def test_what_sentence_transformers_writes_opens(folder):
    ours, theirs = opened(folder), open_theirs(folder)
    assert_same_vectors(ours, theirs)
    for name in ("max_seq_length", "prompts", "default_prompt_name", "similarity_fn_name"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.get_embedding_dimension() == theirs.get_embedding_dimension()


def test_what_is_written_opens_in_sentence_transformers_and_here(folder, tmp_path):
    ours = opened(folder)
    ours.save_pretrained(tmp_path / "again")
    theirs = open_theirs(tmp_path / "again")
    assert_same_vectors(ours, theirs)
    assert_same_vectors(opened(tmp_path / "again"), theirs)
    for name in ("max_seq_length", "prompts", "default_prompt_name", "similarity_fn_name"):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize(
    ("modes", "include_prompt"),
    [("cls", False), (["max", "weightedmean"], False), ("mean", False), ("mean", True)],
)
def test_prompts_are_pooled_or_not(tmp_path, modes, include_prompt):
    prompts = {"query": "bert 的: ", "passage": "a b"}
    folder = write_theirs(
        tmp_path / "model", modes=modes, include_prompt=include_prompt, prompts=prompts
    )
    ours, theirs = opened(folder), open_theirs(folder)
    assert_same_vectors(ours, theirs, prompt_name="passage")
    assert_same_vectors(ours, theirs, prompt="")
    for name in ("encode_query", "encode_document"):
        mine, yours = (getattr(model, name)(TEXTS) for model in (ours, theirs))
        np.testing.assert_allclose(mine, yours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("place", ["", "0_Transformer", "0_BERT"])
def test_older_folders_open(tmp_path, place):
    folder = write_theirs(tmp_path / "model", dense())
    as_older(folder, pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True)
    for file in ("config_sentence_transformers.json", "2_Dense/model.safetensors"):
        if file.endswith("safetensors"):
            from safetensors.torch import load_file

            torch.save(load_file(folder / file), folder / "2_Dense" / "pytorch_model.bin")
        (folder / file).unlink()
    if place:
        in_subfolder(folder, place)
    assert_same_vectors(opened(folder), open_theirs(folder))
    assert_same_vectors(opened(folder / place), open_theirs(folder))


@pytest.mark.parametrize("place", ["", "0_BERT"])
@pytest.mark.parametrize("nest", ["", "model"])
def test_an_archive_opens_and_is_saved_whole(whole, tmp_path, monkeypatch, place, nest):
    monkeypatch.setenv("ZHBERT_CACHE", str(tmp_path / "cache"))
    shutil.copytree(whole, tmp_path / "packed" / nest, dirs_exist_ok=True)
    if place:
        in_subfolder(tmp_path / "packed" / nest, place)
    archive = shutil.make_archive(str(tmp_path / "made"), "zip", tmp_path / "packed")
    zoo.save(archive, tmp_path / "saved")
    for folder in (archive, tmp_path / "saved"):
        assert_same_vectors(opened(folder), open_theirs(whole))


def test_a_sentence_model_that_is_no_bert_is_named_with_its_class(monkeypatch):
    monkeypatch.setattr(zoo, "locate", None)  # nothing is fetched
    with pytest.raises(ZhbertError, match="RobertaModel") as caught:
        opened("stsb_L-12_H-768_A-12")
    assert "SentenceTransformer opens" in str(caught.value)


@pytest.mark.parametrize("place", ["", "0_Transformer"])
def test_a_converted_model_keeps_its_modules(whole, tmp_path, place):
    folder = shutil.copytree(whole, tmp_path / "model")
    rewrite(folder / "tokenizer_config.json", model_max_length=9)
    if place:
        in_subfolder(folder, place)
    convert(folder, tmp_path / "converted", "pytorch")
    theirs = open_theirs(folder)
    assert_same_vectors(opened(tmp_path / "converted"), theirs)
    assert_same_vectors(open_theirs(tmp_path / "converted"), theirs)
    convert(tmp_path / "converted", tmp_path / "tf", "tensorflow")
    assert module_folders(tmp_path / "tf") == ["", "1_Pooling", "2_Dense"]


def test_a_model_with_fewer_positions_keeps_its_modules(whole, tmp_path):
    shrink(whole, tmp_path / "short", positions=12)
    theirs = open_theirs(whole)
    theirs.max_seq_length = 12
    assert_same_vectors(opened(tmp_path / "short"), theirs)
    assert_same_vectors(open_theirs(tmp_path / "short"), theirs)


@pytest.mark.parametrize("length", [3, 7])
def test_texts_are_cut_to_max_seq_length(tmp_path, length):
    folder = write_theirs(tmp_path / "model")
    rewrite(folder / "sentence_bert_config.json", max_seq_length=length)
    ours, theirs = opened(folder), open_theirs(folder)
    assert ours.max_seq_length == theirs.max_seq_length == length
    assert_same_vectors(ours, theirs)
    ours.max_seq_length = theirs.max_seq_length = length + 1
    assert_same_vectors(ours, theirs)
    ours.save_pretrained(tmp_path / "again")
    assert open_theirs(tmp_path / "again").max_seq_length == length + 1


@pytest.mark.parametrize("lower", [True, False])
def test_do_lower_case_is_independent_of_the_tokenizer(tmp_path, lower):
    folder = write_theirs(tmp_path / "model")
    make_model(tmp_path / "cased", do_lower_case=False, kind=transformers.BertModel)
    for file in (tmp_path / "cased").iterdir():
        shutil.copy(file, folder)
    rewrite(folder / "sentence_bert_config.json", do_lower_case=lower)
    ours = opened(folder)
    assert_same_vectors(ours, open_theirs(folder))
    ours.save_pretrained(tmp_path / "again")
    assert_same_vectors(ours, open_theirs(tmp_path / "again"))


def test_a_plain_bert_gets_mean_pooling_and_a_warning(tmp_path):
    folder = make_model(tmp_path / "bert")
    with pytest.warns(UserWarning, match="a plain BERT, never trained for similarity"):
        ours = opened(folder)
    assert_same_vectors(ours, open_theirs(folder))


@pytest.mark.parametrize("pooler", [True, False])
def test_transformers_opens_a_saved_folder_as_the_same_bert(tmp_path, pooler):
    make_model(tmp_path / "bert", kind=transformers.BertModel)
    if not pooler:
        model = transformers.BertModel.from_pretrained(tmp_path / "bert", add_pooling_layer=False)
        model.save_pretrained(tmp_path / "bert")
    opened(tmp_path / "bert", quiet=True).save_pretrained(tmp_path / "sentences")
    before, after = (
        transformers.BertModel.from_pretrained(tmp_path / name, add_pooling_layer=pooler)
        for name in ("bert", "sentences")
    )
    for mine, yours in zip(after.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(mine, yours, rtol=0, atol=0)


def test_a_fresh_model_is_the_same_for_the_same_seed():
    sentence = SentenceConfig(
        pooling=("cls", "mean"),
        projections=(DenseConfig(in_features=32, out_features=4), NormalizeConfig()),
    )
    small = BertConfig(vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    one, other = (SentenceModel(small, seed=4, sentence=sentence) for _ in range(2))
    for mine, yours in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, yours, rtol=0, atol=0)


# -- damage --------------------------------------------------------------------------------------


def put(name, **values):
    return lambda folder: rewrite(folder / name, **values)


def module(number, kind):
    def change(folder):
        entries = json.loads((folder / "modules.json").read_text())
        entries[number]["type"] = kind
        (folder / "modules.json").write_text(json.dumps(entries))

    return change


def spoil(name, content=b"{"):
    return lambda folder: (folder / name).write_bytes(content)


def with_nan(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "2_Dense" / "model.safetensors"
    save_file({name: t * float("nan") for name, t in load_file(path).items()}, path)


BROKEN = {
    'module 1 is a "sentence_transformers.models.CNN", which is not known here': module(
        1, "sentence_transformers.models.CNN"
    ),
    'module 2 is a "mine.Dense"': module(2, "mine.Dense"),
    "the modules are Transformer, Dense, Dense": module(1, "sentence_transformers.models.Dense"),
    "modules.json:1: not JSON": spoil("modules.json"),
    "modules.json: empty": spoil("modules.json", b""),
    "module 0: needs a type and a path": spoil("modules.json", b'[{"idx": 0}]'),
    "the modules are missing": spoil("modules.json", b"[]"),
    "but config.json says hidden_size = 16": put("1_Pooling/config.json", embedding_dimension=12),
    "pooling: 'first' is not known; known: cls": put("1_Pooling/config.json", pooling_mode="first"),
    "a Dense of in_features = 12, but the vectors before it have 16": put(
        "2_Dense/config.json", in_features=12
    ),
    "linear.weight has the shape (8, 16), its config.json says (7, 16)": put(
        "2_Dense/config.json", out_features=7
    ),
    "holds linear.bias, linear.weight; its config.json describes": put(
        "2_Dense/config.json", bias=False
    ),
    "config.json: activation_function = \"os.system\" is not known": put(
        "2_Dense/config.json", activation_function="os.system"
    ),
    "out_features = 0: no width": put("2_Dense/config.json", out_features=0),
    "only vectors of sentences are known": put(
        "2_Dense/config.json", module_input_name="token_embeddings"
    ),
    "no weights of the Dense in it": lambda f: (f / "2_Dense" / "model.safetensors").unlink(),
    "linear.weight holds NaN or infinite numbers": with_nan,
    "2_Dense/config.json: no such file": lambda f: (f / "2_Dense" / "config.json").unlink(),
    "max_seq_length = \"x\": must be a whole number": put(
        "sentence_bert_config.json", max_seq_length="x"
    ),
    "max_seq_length = 1: must be a whole number from 2 on": put(
        "sentence_bert_config.json", max_seq_length=1
    ),
    "the model has no such prompt; it has a": put(
        "config_sentence_transformers.json", default_prompt_name="b", prompts={"a": "b"}
    ),
    "prompts: \"a\" is 3: not a text": put("config_sentence_transformers.json", prompts={"a": 3}),
    "a \"SparseEncoder\", not a SentenceTransformer": put(
        "config_sentence_transformers.json", model_type="SparseEncoder"
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", BROKEN)
def test_a_damaged_folder_is_refused_in_one_line(whole, tmp_path, said):
    folder = shutil.copytree(whole, tmp_path / "model")
    BROKEN[said](folder)
    with warnings.catch_warnings(), pytest.raises(ZhbertError) as caught:
        opened(folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nan_in_the_model_is_refused(whole):
    ours = opened(whole)
    with torch.no_grad():
        ours.model.encoder.layers[0].attention.qkv.bias.fill_(float("nan"))
    with pytest.raises(ZhbertError, match="scores are not finite numbers"):
        ours.encode(TEXTS)


def test_only_a_model_is_replaced(whole, tmp_path):
    ours = opened(whole)
    ours.save_pretrained(tmp_path / "model")
    ours.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "mine").mkdir()
    with pytest.raises(ZhbertError, match="not empty, and not a model"):
        ours.save_pretrained(tmp_path / "model")
