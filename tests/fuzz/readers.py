"""Every reader of files that others may have made, and intact files for it."""

from __future__ import annotations

import bz2
import dataclasses
import functools
import gzip
import json
import lzma
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from tests import small_tasks
from tests.fuzz.harness import Reader
from tests.report.run_folders import fine_tuning_run, pretraining_run
from tests.small_corpora import PIECES, make_corpus
from tests.zoo.models import make_archive

from zhbert.config import MaskingSettings, load_recipe, recipe_path
from zhbert.data.blocks import read_blocks
from zhbert.data.masking import Masker
from zhbert.data.outline import outline
from zhbert.data.read_options import ReadOptions
from zhbert.data.shards import Corpus
from zhbert.data.similar_words import write_similar_words
from zhbert.data.sources import find_sources
from zhbert.files import sha256_of
from zhbert.tasks.card import TaskCard
from zhbert.tasks.cards import load_card
from zhbert.tasks.examples import Prediction
from zhbert.tasks.predictions import read_null_odds
from zhbert.tasks.read import read_examples, read_predictions
from zhbert.tasks.scoring import write_submission
from zhbert.text.segmenters import load_segmenter
from zhbert.text.tokenizer import Tokenizer
from zhbert.zoo.archive import Limits, unpack
from zhbert.zoo.download import RETRY, _Download, discard, read_record
from zhbert.zoo.hub import cached_hub_ids
from zhbert.zoo.progress import DownloadProgress

TEXT = (
    "使用语言模型来预测下一个词的概率。\n今天天气很好，适合训练。\n\n第二篇 has Latin words 123。\n"
)
RECORDS = "".join(
    json.dumps({"id": number, "text": TEXT, "meta": [None, 1.5]}, ensure_ascii=False) + "\n"
    for number in range(4)
)

READERS: dict[str, Reader] = {}
"""Name -> reader; what ``make check`` damages thousands of times."""


# --- archives and downloads ---------------------------------------------------------------------


def _read_archive(folder: Path) -> None:
    (archive,) = folder.glob("model.*")
    with tempfile.TemporaryDirectory() as out:
        unpack(archive, Path(out), limits=Limits(harmless=8 << 20))


for kind in ("zip", "tgz", "tar", "tar.xz", "tar.bz2"):
    READERS[f"archive-{kind}"] = Reader(
        functools.partial(make_archive, kind=kind, nest="模型"), _read_archive
    )


def _make_tar(folder: Path) -> None:
    make_archive(folder, kind="tar", nest="模型")


def _read_tar(folder: Path) -> None:
    """Damage below the compression's checksum, and the tar's own checksums right again."""
    data = bytearray((folder / "model.tar").read_bytes())
    for start in range(0, len(data) - 511, 512):
        header = data[start : start + 512]
        if header[257:262] == b"ustar":
            header[148:156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    packed = folder / "model.tgz"
    packed.write_bytes(gzip.compress(bytes(data), 1))
    try:
        with tempfile.TemporaryDirectory() as out:
            unpack(packed, Path(out), limits=Limits(harmless=8 << 20))
    finally:
        packed.unlink()


READERS["archive-headers"] = Reader(_make_tar, _read_tar)


def _make_hub_cache(folder: Path) -> None:
    here = folder / "models--hfl--rbt3"
    (here / "snapshots" / "abc").mkdir(parents=True)
    (here / "refs").mkdir()
    (here / "refs" / "main").write_text("abc")
    index = {"weight_map": {"a": "model-1.safetensors"}}
    (here / "snapshots" / "abc" / "model.safetensors.index.json").write_text(json.dumps(index))
    (here / "snapshots" / "abc" / "model-1.safetensors").write_bytes(b"x")
    (here / "snapshots" / "abc" / "config.json").write_text('{"model_type": "bert"}')


def _read_hub_cache(folder: Path) -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_CACHE
    constants.HF_HUB_CACHE = str(folder)
    try:
        cached_hub_ids()
    finally:
        constants.HF_HUB_CACHE = before


READERS["hub-cache"] = Reader(_make_hub_cache, _read_hub_cache, ("*/*/main", "*/*/*/*.json"))


def _make_sentence_model(folder: Path) -> None:
    from zhbert.model.config import BertConfig
    from zhbert.sentences.encoder import SentenceEncoder
    from zhbert.sentences.model import SentenceModel
    from zhbert.sentences.modules import DenseConfig, NormalizeConfig, SentenceConfig

    config = BertConfig(
        vocab_size=len(small_tasks.PIECES),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    dense = DenseConfig(in_features=8, out_features=4)
    sentence = SentenceConfig(projections=(dense, NormalizeConfig()), prompts={"query": "问"})
    model = SentenceModel(config, sentence=sentence)
    SentenceEncoder(model, Tokenizer(small_tasks.PIECES)).save_pretrained(folder)


def _read_sentence_model(folder: Path) -> None:
    from zhbert.sentences.encoder import SentenceEncoder

    SentenceEncoder.from_pretrained(folder, device="cpu", quiet=True).encode(["今天", ""])


READERS["sentence-model"] = Reader(
    _make_sentence_model,
    _read_sentence_model,
    ("modules.json", "*sentence*.json", "*/config.json", "*/model.safetensors"),
)


def _make_state(folder: Path) -> None:
    (folder / "m.zip.part").write_bytes(b"PK")
    (folder / "m.zip.part.json").write_text('{"validator": "\\"a\\"", "total": 10}')


def _read_state(folder: Path) -> None:
    state = _Download("https://a.b/m.zip", folder, DownloadProgress(), RETRY).read_state()
    assert isinstance(state.validator, str | None)
    assert isinstance(state.total, int | None)


READERS["download-state"] = Reader(_make_state, _read_state, ("*.json",))


def _make_record(folder: Path) -> None:
    record = {"url": "https://a.b/m.zip", "size": 3, "sha256": "0" * 64, "fetched": "2024-01-01"}
    (folder / "record.json").write_text(json.dumps(record))


def _read_record(folder: Path) -> None:
    if record := read_record(folder):
        assert isinstance(record.url, str)
        assert isinstance(record.sha256, str)
        content = (folder / "record.json").read_bytes()
        discard(folder)
        (folder / "record.json").write_bytes(content)


READERS["download-record"] = Reader(_make_record, _read_record)


# --- text ---------------------------------------------------------------------------------------

_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
_FORMS = {
    "txt": TEXT * 4,
    "jsonl": RECORDS,
    "json": f"[{','.join(RECORDS.splitlines())}]",
    "csv": f'id,text\n1,"{TEXT}"\n2,"a ""b"", c"\n',
    "text": f'<doc id="1" url="" title="数学">\n数学\n\n{TEXT}\n</doc>\n' * 2,
}


def _make_text(folder: Path, name: str) -> None:
    form, _, packed = name.partition(".")
    if form == "parquet":
        table = pa.table({"text": [TEXT, None, TEXT], "n": [1, 2, 3]})
        pq.write_table(table, folder / "a.parquet")
    else:
        pack = _PACKERS[f".{packed}" if packed else ""]
        (folder / f"a.{name}").write_bytes(pack(_FORMS[form].encode()))


def _read_text(folder: Path) -> None:
    reading = ReadOptions()
    for block in read_blocks(find_sources([folder]), reading):
        found = outline(block, reading)
        found.spans(found.documents)
        found.document_hashes()


for name in (
    "txt",
    "jsonl",
    "json",
    "csv",
    "text",
    "parquet",
    "txt.gz",
    "jsonl.bz2",
    "txt.xz",
    "jsonl.zst",
):
    READERS[f"corpus-{name}"] = Reader(functools.partial(_make_text, name=name), _read_text)


def _read_corpus(folder: Path) -> None:
    from zhbert.data.corpus_figures import describe_corpus, sample_documents

    corpus = Corpus.open(folder / "corpus")
    corpus.verify()
    describe_corpus(corpus)
    sample_documents(corpus, "train", 2)


READERS["prepared"] = Reader(
    lambda folder: make_corpus(folder / "corpus"), _read_corpus, ("*/corpus.json", "*/*.arrow")
)


def _read_rows(folder: Path) -> None:
    """As a stranger made it: the checksums are those of the damaged shards."""
    from tests.pretraining_loaders import loader_over

    description = folder / "corpus" / "corpus.json"
    info = json.loads(description.read_text(encoding="utf-8"))
    for entry in [*info["shards"]["train"], *info["shards"]["held_out"]]:
        file = folder / "corpus" / entry["file"]
        entry |= {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    description.write_text(json.dumps(info), encoding="utf-8")
    corpus = Corpus.open(folder / "corpus")
    for builder in ("pairs", "full-sentences", "lines"):
        loader = loader_over(
            corpus.shards("train"), corpus.tokenizer().vocabulary, builder=builder,
            sequence_length=32, batch_size=8, seed=0,
        )  # fmt: skip
        loader.step(0)
        loader.step(9)


READERS["prepared-rows"] = Reader(
    lambda folder: make_corpus(folder / "corpus"), _read_rows, ("*/*.arrow",)
)


def _make_words(folder: Path) -> None:
    (folder / "words.txt").write_text("语言模型 5 n\n预测\n下一个 3\n", encoding="utf-8")


def _read_words(folder: Path) -> None:
    load_segmenter("jieba", user_words=folder / "words.txt").segment([TEXT])


READERS["user-words"] = Reader(_make_words, _read_words, share=0.2)


# --- tokenizers ---------------------------------------------------------------------------------


def _make_tokenizer(folder: Path) -> None:
    Tokenizer(small_tasks.PIECES).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 54}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"cls_token": "[CLS]"}))
    (folder / "added_tokens.json").write_text(json.dumps({"[NEW]": len(small_tasks.PIECES)}))


def _make_fast_tokenizer(folder: Path) -> None:
    _make_tokenizer(folder)
    (folder / "vocab.txt").unlink()


def _read_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(folder)
    tokenizer.decode(tokenizer.encode(TEXT + "[MASK][NEW]").ids)
    tokenizer.fingerprint()


READERS["tokenizer"] = Reader(_make_tokenizer, _read_tokenizer, ("vocab.txt", "*token*.json"))
READERS["tokenizer-fast"] = Reader(_make_fast_tokenizer, _read_tokenizer, ("*token*.json",))


# --- models -------------------------------------------------------------------------------------


def _make_model(folder: Path, form: str = "safetensors", shards: bool = False) -> None:
    import torch

    from zhbert.model.checkpoint import open_checkpoint
    from zhbert.model.formats.paddle import to_paddle
    from zhbert.model.formats.safetensors import write_safetensors

    small_tasks.make_model(folder)
    whole = folder / "model.safetensors"
    entries = open_checkpoint(folder).entries
    tensors = {name: entry.read().clone() for name, entry in entries.items()}
    if form == "safetensors" and shards:
        write_safetensors(folder, entries, max_shard_bytes=30_000)
    elif shards:
        torch.save(tensors, folder / "weights.bin")
        table = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "weights.bin")}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(table))
    elif form == "paddle":
        theirs = {n: entry.read().numpy() for n, entry in to_paddle(entries).items()}
        (folder / "model_state.pdparams").write_bytes(pickle.dumps(theirs, protocol=4))
    elif form != "safetensors":
        zipped = form == "pytorch"
        file = folder / "pytorch_model.bin"
        torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
    if shards or form != "safetensors":
        whole.unlink()


def _read_model(folder: Path) -> None:
    from zhbert.model.checkpoint import open_checkpoint
    from zhbert.model.pretrained import BertForPreTraining

    for entry in open_checkpoint(folder).entries.values():
        entry.read()
    BertForPreTraining.from_pretrained(folder)


READERS["config"] = Reader(_make_model, _read_model, ("config.json",))
READERS["safetensors"] = Reader(_make_model, _read_model, ("model.safetensors",))
for form in ("pytorch", "legacy"):
    READERS[f"pickle-{form}"] = Reader(
        functools.partial(_make_model, form=form), _read_model, ("pytorch_model.bin",)
    )
READERS["pickle-paddle"] = Reader(
    functools.partial(_make_model, form="paddle"), _read_model, ("model_state.pdparams",)
)
for form in ("safetensors", "pytorch"):
    READERS[f"index-{form}"] = Reader(
        functools.partial(_make_model, form=form, shards=True), _read_model, ("*.index.json",)
    )


# --- tasks --------------------------------------------------------------------------------------


def _make_table(folder: Path, kind: str, form: str) -> None:
    card = small_tasks.make_task(folder, kind, train=4, dev=4)
    text = card.read_text(encoding="utf-8")
    source = next(folder.glob("dev.*"))
    lines = [line.split("\t") for line in source.read_text(encoding="utf-8").splitlines()]
    names, rows = lines[0], lines[1:]
    if form == "csv":
        source.write_text("".join(f'"{text}",{label}\n' for text, label in lines))
    elif form == "jsonl":
        objects = (json.dumps(dict(zip(names, row, strict=True))) for row in rows)
        source.write_text("".join(f"{one}\n" for one in objects))
    elif form == "parquet":
        columns = zip(*rows, strict=True)
        pq.write_table(pa.table(dict(zip(names, map(list, columns), strict=True))), source)
    if form != "own":
        source.rename(source.with_suffix(f".{form}"))
        card.write_text(text.replace("tsv", form), encoding="utf-8")


def _card(folder: Path) -> TaskCard:
    return load_card(next(folder.glob("my_*.toml")))


def _read_table(folder: Path) -> None:
    read_examples(_card(folder), next(folder.glob("dev.*")), "dev")


for kind, form in (
    *(("classify", form) for form in ("own", "csv", "jsonl", "parquet")),
    *((kind, "own") for kind in ("regress", "tag", "span", "embed")),
):
    READERS[f"table-{kind}-{form}"] = Reader(
        functools.partial(_make_table, kind=kind, form=form), _read_table, ("dev.*",)
    )


_EXPORTS: dict[str, tuple[str, list[Any]]] = {
    "cluener": ("tag", [{"text": "中京好", "label": {"LOC": {"中京": [[0, 1]]}}}]),
    "doccano": ("tag", [{"text": "中京好", "label": [[0, 2, "LOC"]]}]),
    "label-studio": ("tag", [{"id": 1, "data": {"text": "中京好"}, "annotations": [{"result": [
        {"value": {"start": 0, "end": 2, "text": "中京", "labels": ["LOC"]}}]}]}]),
    "tokens": ("tag", [{"tokens": ["中", "京"], "ner_tags": ["B-LOC", 2]}]),
    "flat": ("span", [{"context": "在京。", "question": "谁",
                       "answers": {"text": ["京"], "answer_start": ["1"]}}]),
}  # fmt: skip
"""What others write: a kind, and objects of which a file holds one a line, or a list."""


def _make_form(folder: Path, name: str) -> None:
    kind, objects = _EXPORTS[name]
    small_tasks.make_task(folder, kind, train=1, dev=1)
    source = next(folder.glob("dev.*"))
    text = json.dumps(objects, ensure_ascii=False)
    source.write_text(text if name == "label-studio" else text[1:-1] + "\n" + text[1:-1])


for name in _EXPORTS:
    READERS[f"table-{name}"] = Reader(
        functools.partial(_make_form, name=name), _read_table, ("dev.*",)
    )


def _make_cards(folder: Path) -> None:
    for kind in small_tasks.CARDS:
        small_tasks.make_task(folder, kind, train=1, dev=1)


def _read_cards(folder: Path) -> None:
    for card in sorted(folder.glob("*.toml")):
        load_card(card)


READERS["card"] = Reader(_make_cards, _read_cards, ("*.toml",))


def _make_recipes(folder: Path) -> None:
    for name in ("tiny", "rbt3", "continue-domain"):
        shutil.copyfile(recipe_path(name), folder / f"{name}.toml")


def _read_recipes(folder: Path) -> None:
    for recipe in sorted(folder.glob("*.toml")):
        load_recipe(recipe)


READERS["recipe"] = Reader(_make_recipes, _read_recipes)


def _make_similar_words(folder: Path) -> None:
    write_similar_words(folder / "similar.tsv", PIECES, [((5, 6), (7, 8), 0.5), ((5,), (9,), 0.4)])


def _read_similar_words(folder: Path) -> None:
    settings = MaskingSettings(strategy="mac", similar_words=str(folder / "similar.tsv"))
    row, starts = np.array([2, 5, 6, 5, 3]), np.array([True, True, False, True, True])
    Masker(settings, PIECES).mask(row, starts, np.random.default_rng(0))


READERS["similar-words"] = Reader(_make_similar_words, _read_similar_words)


def _make_predictions(folder: Path, kind: str) -> None:
    _make_table(folder, kind, "own")
    card = _card(folder)
    examples: list[Any] = read_examples(card, next(folder.glob("dev.*")), "dev")
    values = ["好" if kind == "span" else one.gold for one in examples]
    write_submission(card, examples, list(map(Prediction, values)), folder / "predicted")
    pairs = zip(examples, values, strict=True)
    objects = ({"id": one.id, "predicted": value, "null_odds": 0.5} for one, value in pairs)
    lines = (json.dumps(one, ensure_ascii=False) for one in objects)
    (folder / "predicted.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (folder / "odds.json").write_text(json.dumps({one.id: 0.5 for one in examples}))


def _read_predictions(folder: Path) -> None:
    card, gold = _card(folder), next(folder.glob("dev.*"))
    examples = read_examples(card, gold, "dev")
    for path in sorted(folder.glob("predicted.*")):
        read_predictions(card, path, examples, gold, "dev")
    read_null_odds(folder / "odds.json", card)


for kind in small_tasks.CARDS:
    READERS[f"predictions-{kind}"] = Reader(
        functools.partial(_make_predictions, kind=kind),
        _read_predictions,
        ("predicted.*", "odds.json"),
    )


# --- runs ---------------------------------------------------------------------------------------


def _make_runs(folder: Path) -> None:
    fine_tuning_run(folder / "finetuned", right=(0.7, 0.8), examples=6)
    fine_tuning_run(folder / "tagged", "msra", right=(0.7,), examples=3)
    pretraining_run(folder / "pretrained", steps=100, planned=100)


def _read_runs(folder: Path) -> None:
    from zhbert.report.build import gather
    from zhbert.report.write import write_report

    with tempfile.TemporaryDirectory() as out:
        write_report(gather(sorted(folder.iterdir())), Path(out))


READERS["runs"] = Reader(
    _make_runs, _read_runs, ("*/*.json", "*/*.jsonl", "*/*.toml", "*/*/*.json", "*/*/*.jsonl")
)


def _make_checkpoints(folder: Path) -> None:
    import torch

    from zhbert.train.checkpoint import Checkpoints

    for step in (1, 2):
        Checkpoints(folder).save(step, {"model": {"a": torch.zeros(8)}}, {"seed": 1})


def _read_checkpoints(folder: Path) -> None:
    from zhbert.train.checkpoint import Checkpoints

    if (newest := Checkpoints(folder).newest()) is not None:
        _ = newest.step, newest.tensors("model")


READERS["checkpoints"] = Reader(_make_checkpoints, _read_checkpoints, ("step-000002/*",))


def _make_fine_tuned(folder: Path, kind: str) -> None:
    from zhbert.finetuning.fine_tuned import SECTION, section_of
    from zhbert.model import pretrained
    from zhbert.model.config import BertConfig
    from zhbert.tasks.kinds import KINDS
    from zhbert.tasks.kinds.base import Learning
    from zhbert.tasks.settings import settings_for

    small_tasks.make_model(folder)
    card = load_card(small_tasks.make_task(folder / "task", kind, train=1, dev=1))
    settings = dataclasses.replace(settings_for(card, "tiny"), sequence_length=32)
    made = KINDS[kind].learner(
        Learning(card, Tokenizer.from_pretrained(folder), settings, card.data.labels)
    )
    config = BertConfig.from_pretrained(folder).with_labels(made.labels or ())
    config.other[SECTION] = section_of(card, made)
    getattr(pretrained, KINDS[kind].architecture)(config).save_pretrained(folder)


def _read_fine_tuned(folder: Path) -> None:
    from zhbert.finetuning.fine_tuned import open_fine_tuned

    opened = open_fine_tuned(folder)
    if opened.card:
        split = next((folder / "task").glob("dev.*"))
        opened.predict(read_examples(opened.card, split, "dev", labelled=False))


for kind in small_tasks.CARDS:
    READERS[f"fine-tuned-{kind}"] = Reader(
        functools.partial(_make_fine_tuned, kind=kind), _read_fine_tuned, ("config.json",)
    )
