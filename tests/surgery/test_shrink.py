"""``zhbert shrink``: the kept part computes what it computed before, and transformers opens it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.small_corpora import PIECES as CORPUS_PIECES
from tests.small_corpora import TINY, make_corpus
from tests.small_models import PIECES, make_model, outputs

from zhbert.cli import main
from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining
from zhbert.pretraining.run import pretrain
from zhbert.surgery.shrink import parse_layers, shrink
from zhbert.text.coverage import cover
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.vocab import read_vocabulary

IDS = [[3, 6, 7, 25, 60, 5, 92], [3, 94, 10, 94, 18, 30, 4]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers and both heads of pretraining; read it only."""
    return make_model(tmp_path_factory.mktemp("models") / "large")


def vocabulary(path: Path, pieces: list[str]) -> Path:
    path.write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    return path


# --- layers -------------------------------------------------------------------------------------


def test_the_first_layers_are_what_from_pretrained_takes(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    assert main(["shrink", str(model), "--layers", "0,1,2", "--out", str(out), "--quiet"]) == 0
    expected = dict(
        BertForPreTraining.from_pretrained(model, num_hidden_layers=3).named_parameters()
    )
    found = dict(BertForPreTraining.from_pretrained(out).named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_hidden_states_are_those_of_the_large_model_bit_for_bit(
    model: Path, tmp_path: Path
) -> None:
    shrink(model, tmp_path / "small", layers="0-2")
    large, small = outputs(model, IDS), outputs(tmp_path / "small", IDS)
    assert len(small.hidden_states) == 4
    for number, state in enumerate(small.hidden_states):
        assert torch.equal(state, large.hidden_states[number])
    assert not torch.equal(small.prediction_logits, large.prediction_logits)
    config = json.loads((tmp_path / "small/config.json").read_text(encoding="utf-8"))
    assert config["num_hidden_layers"] == 3
    assert config["architectures"] == ["BertForPreTraining"]


def test_layers_come_in_the_order_given(model: Path, tmp_path: Path) -> None:
    result = shrink(model, tmp_path / "small", layers="3,-4")
    assert result["layers"] == [3, 0]
    old, new = (load_file(f / "model.safetensors") for f in (model, tmp_path / "small"))
    for place, layer in enumerate([3, 0]):
        name = "bert.encoder.layer.{}.output.dense.weight"
        assert torch.equal(new[name.format(place)], old[name.format(layer)])


@given(st.lists(st.integers(0, 11), min_size=1, unique=True), st.data())
def test_lists_and_ranges_and_negative_numbers_are_layers(layers: list[int], data: Any) -> None:
    text = ",".join(str(n - 12) if data.draw(st.booleans()) else str(n) for n in layers)
    assert parse_layers(text, 12) == layers
    first, last = min(layers), max(layers)
    assert parse_layers(f"{first}-{last}", 12) == list(range(first, last + 1))


@pytest.mark.parametrize(
    "text", ["a", "", "0,", "12", "-13", "3-1", "0-12", "0,0", "0,-12", "0-2,1", "1.5", "²"]
)
def test_what_is_no_list_of_layers_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ZhbertError, match=f"^--layers {re.escape(text)}: [^\n]+$"):
        parse_layers(text, 12)


def test_a_fine_tuned_head_and_its_type_go_along(tmp_path: Path) -> None:
    kind = transformers.BertForSequenceClassification
    labels = {0: "差", 1: "中", 2: "好"}
    large = make_model(tmp_path / "large", kind=kind, dtype=torch.float16, id2label=labels)
    shrink(large, tmp_path / "small", layers="0,1")
    old, new = (load_file(f / "model.safetensors") for f in (large, tmp_path / "small"))
    assert {tensor.dtype for tensor in new.values()} == {torch.float16}
    assert torch.equal(new["classifier.weight"], old["classifier.weight"])
    opened = kind.from_pretrained(tmp_path / "small", num_labels=3)
    assert opened.config.id2label == labels
    assert type(opened.config).__name__ == "BertConfig"
    assert outputs(tmp_path / "small", IDS, kind).logits.shape == (2, 3)


def test_googles_files_become_a_folder_that_transformers_opens(data: Path, tmp_path: Path) -> None:
    source = data / "fixtures" / "tf1_tiny_bert"
    shrink(source, tmp_path / "small", layers=[0])
    ids = torch.tensor([[2, 7, 9, 14, 3]])
    ours = BertForPreTraining.from_pretrained(source, num_hidden_layers=1)
    theirs = outputs(tmp_path / "small", ids)
    with torch.no_grad():
        logits = ours(ids).prediction_logits
    torch.testing.assert_close(theirs.prediction_logits, logits, rtol=0, atol=1e-5)
    config = json.loads((tmp_path / "small/config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForPreTraining"]
    text = "模型的 BERT，2024"
    theirs_tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "small")
    ours_tokens = Tokenizer.from_pretrained(source)
    assert theirs_tokens(text, add_special_tokens=False)["input_ids"] == (
        ours_tokens.encode(text).ids.tolist()
    )


def test_pretraining_goes_on_from_a_cut_model_in_a_folder_or_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZHBERT_CACHE", str(tmp_path / "cache"))
    corpus = make_corpus(tmp_path / "corpus")
    large = make_model(tmp_path / "large", pieces=list(CORPUS_PIECES), max_position_embeddings=64)
    shrink(large, tmp_path / "start", layers="0,2,3")
    shutil.make_archive(str(tmp_path / "start"), "zip", tmp_path / "start")
    own = [option for option in TINY if not option.startswith("model.")]
    for number, name in enumerate(("start", "start.zip")):
        overrides = [*own, "steps=1", f"initial_model={tmp_path / name}"]
        overrides += ["optimizer.learning_rate=1e-12"]
        pretrain("rbt3", corpus, tmp_path / f"run{number}", overrides)
        old, new = (
            load_file(f / "model.safetensors") for f in (large, tmp_path / f"run{number}" / "final")
        )
        name = "bert.encoder.layer.{}.output.dense.weight"
        torch.testing.assert_close(new[name.format(2)], old[name.format(3)], rtol=0, atol=1e-6)
        assert name.format(3) not in new
    # Another vocabulary of the same size, seen inside an archive too.
    Tokenizer([*CORPUS_PIECES[:-1], "龘"]).save_pretrained(tmp_path / "start")
    shutil.make_archive(str(tmp_path / "other"), "zip", tmp_path / "start")
    with pytest.raises(ZhbertError, match="made with another vocabulary"):
        pretrain("rbt3", corpus, tmp_path / "none", [*own, f"initial_model={tmp_path}/other.zip"])
    missing = tmp_path / "models" / "chinese-roberta-wwm-ext"
    with pytest.raises(ZhbertError, match="zhbert download chinese-roberta-wwm-ext --out") as error:
        pretrain("rbt3", corpus, tmp_path / "none", [*own, f"initial_model={missing}"])
    assert "\n" not in str(error.value)


# --- pieces -------------------------------------------------------------------------------------

# Not in the model's order, and without some letters: q, z and their ## forms, trans, ##er.
KEPT = [p for p in reversed(PIECES) if p not in ("q", "z", "##q", "##z", "trans", "##er")]


@pytest.fixture(scope="module")
def pruned(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pruned")
    shrink(model, folder / "small", vocab=vocabulary(folder / "new.txt", KEPT))
    return folder / "small"


def test_a_pruned_model_computes_the_same_where_its_pieces_remain(
    model: Path, pruned: Path
) -> None:
    columns = [PIECES.index(piece) for piece in KEPT]
    place = {old: new for new, old in enumerate(columns)}
    large = outputs(model, IDS)
    small = outputs(pruned, [[place[old] for old in row] for row in IDS])
    for one, other in zip(large.hidden_states, small.hidden_states, strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(
        small.prediction_logits, large.prediction_logits[..., columns], rtol=0, atol=1e-5
    )
    assert torch.equal(small.seq_relationship_logits, large.seq_relationship_logits)
    config = BertConfig.from_pretrained(pruned)
    assert config.vocab_size == len(KEPT)
    assert config.pad_token_id == KEPT.index("[PAD]")
    assert read_vocabulary(pruned / "vocab.txt") == KEPT


TEXTS = st.text(alphabet="的一是在abqzTRANSformer09 ，。[MASK]龘é", max_size=40)


@given(st.lists(TEXTS, max_size=8))
def test_all_tokenizers_agree_on_a_pruned_model(pruned: Path, texts: list[str]) -> None:
    ours = Tokenizer.from_pretrained(pruned)
    large = Tokenizer(PIECES)
    for theirs in (
        transformers.AutoTokenizer.from_pretrained(pruned),
        transformers.BertTokenizer.from_pretrained(pruned),
    ):
        for text in texts:
            expected = theirs(text, add_special_tokens=False)["input_ids"]
            assert ours.encode(text).ids.tolist() == expected
    for text in texts:
        before = large.encode(text).pieces
        if set(before) <= set(KEPT):
            assert ours.encode(text).pieces == before


def test_the_report_says_what_a_corpus_loses(model: Path, tmp_path: Path, capsys) -> None:
    text = "的 quiz 的 transformer，\n龘在 Transformer ber 的\n" * 3
    corpus = tmp_path / "text.txt"
    corpus.write_text(text, encoding="utf-8")
    new = vocabulary(tmp_path / "new.txt", KEPT)
    arguments = ["shrink", str(model), "--vocab", str(new), "--corpus", str(corpus)]
    assert main([*arguments, "--out", str(tmp_path / "small"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["corpus"]
    old, small = Tokenizer(PIECES), Tokenizer(KEPT)
    for side, tokenizer in (("before", old), ("after", small)):
        expected = cover(tokenizer, [text])
        assert found[side]["unknown"] == expected.unknown
        assert found[side]["pieces_per_character"] == expected.pieces / expected.characters
    used = Counter(old.encode(text, special_tokens=False).pieces)
    lost = {piece: count for piece, count in used.items() if piece not in KEPT}
    assert {one["piece"]: one["count"] for one in found["lost"]} == lost
    counts = [one["count"] for one in found["lost"]]
    assert counts == sorted(counts, reverse=True)
    becomes = {one["piece"]: one["becomes"] for one in found["lost"]}
    assert becomes["trans"] == ["t", "##r", "##a", "##n", "##s"]
    assert becomes["##er"] == ["##e", "##r"]
    assert becomes["q"] == ["[UNK]"]


def test_the_most_used_pieces_of_a_text_are_kept(model: Path, tmp_path: Path) -> None:
    text = "的的的的一一一是是transformer在\n"
    result = shrink(model, tmp_path / "all", vocab_from=[text])
    ascii_forms = {p for p in PIECES if p.isascii() and len(p.removeprefix("##")) == 1}
    needed = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} | ascii_forms
    used = {*"的一是在", "trans", "##form", "##er"}
    expected = [p for p in PIECES if p in needed | used]
    assert read_vocabulary(tmp_path / "all" / "vocab.txt") == expected
    assert result["corpus"]["after"] == result["corpus"]["before"]
    shrink(model, tmp_path / "few", vocab_from=[text], vocab_size=len(needed) + 3)
    few = read_vocabulary(tmp_path / "few" / "vocab.txt")
    assert set(few) == needed | set("的一是")
    with pytest.raises(ZhbertError, match=f"take {len(needed)}; give more"):
        shrink(model, tmp_path / "none", vocab_from=[text], vocab_size=len(needed) - 1)


def test_layers_and_pieces_go_at_once_and_the_table_is_plain(
    model: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    new = vocabulary(tmp_path / "new.txt", KEPT)
    out = tmp_path / "small"
    arguments = ["--layers=-1", "--vocab", str(new), "--out", str(out)]
    assert main(["shrink", str(model), *arguments]) == 0
    shown = capsys.readouterr().out
    old, small = (load_file(f / "model.safetensors") for f in (model, out))
    row = next(line for line in shown.splitlines() if line.startswith("all parameters"))
    totals = [sum(t.numel() for t in tensors.values()) for tensors in (old, small)]
    assert [int(number.replace(",", "")) for number in row.split()[2:]] == totals
    assert f"layers 3 of 4, {len(KEPT)} of {len(PIECES)} pieces" in shown
    assert f"initial_model={out}" in shown
    assert "\x1b" not in shown


def test_spare_rows_go_with_the_pieces(tmp_path: Path) -> None:
    large = make_model(tmp_path / "large", spare=9)
    result = shrink(large, tmp_path / "small", vocab=vocabulary(tmp_path / "new.txt", KEPT))
    assert (result["rows_before"], result["rows"]) == (len(PIECES) + 9, len(KEPT))
    shrink(large, tmp_path / "layers", layers="0")
    assert BertConfig.from_pretrained(tmp_path / "layers").vocab_size == len(PIECES) + 9


# --- mistakes -----------------------------------------------------------------------------------


def mistakes(folder: Path, model: Path) -> dict[str, tuple[list[str], str]]:
    def broken(name: str) -> Path:
        return make_model(folder / name)

    (broken("no vocabulary") / "vocab.txt").unlink()
    (folder / "no vocabulary" / "tokenizer.json").unlink()
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    path = broken("other size") / "config.json"
    path.write_text(json.dumps(config | {"vocab_size": 50}), encoding="utf-8")
    path = broken("no hidden_size") / "config.json"
    path.write_text(json.dumps({k: v for k, v in config.items() if k != "hidden_size"}))
    Tokenizer([*PIECES, "多"]).save_pretrained(broken("more pieces"))
    path = broken("nan") / "model.safetensors"
    tensors = load_file(path)
    tensors["bert.pooler.dense.bias"][3] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    (folder / "other").mkdir()
    (folder / "other" / "a.txt").write_text("mine")
    (folder / "file").write_text("mine")
    (folder / "gbk.txt").write_bytes("第一行\n".encode("gb18030"))

    def new(name: str, pieces: list[str]) -> list[str]:
        return ["--vocab", str(vocabulary(folder / f"{name}.txt", pieces))]

    layers = ["--layers", "0"]
    mine = str(model)
    twice = [*PIECES, "的"]
    return {
        "range": ([mine, "--layers", "0,4"], "4 layers, 0 to 3"),
        "letter": ([mine, "--layers", "a"], "'a' is no layer"),
        "nothing": ([mine], "nothing to take away"),
        "missing model": ([str(folder / "nowhere" / "x"), *layers], "nowhere"),
        "no vocabulary": ([str(folder / "no vocabulary"), *layers], "no vocab.txt"),
        "other size": ([str(folder / "other size"), *layers], "says vocab_size = 50"),
        "no hidden_size": ([str(folder / "no hidden_size"), *layers], "no hidden_size"),
        "more pieces": ([str(folder / "more pieces"), *layers], "another model's vocabulary"),
        "nan": ([str(folder / "nan"), *layers], "holds NaN"),
        "missing pieces": ([mine, *new("a", [*PIECES, "龘", "foo"])], "vocab extend"),
        "duplicate": ([mine, *new("b", twice)], f"line 7 and line {len(twice)}"),
        "empty line": ([mine, *new("c", ["[UNK]", "", "的"])], "line 2 is empty"),
        "special": ([mine, *new("d", PIECES[:5])], "lacks [MASK]"),
        "empty": ([mine, *new("e", [])], "empty"),
        "not UTF-8": ([mine, "--vocab", str(folder / "gbk.txt")], "not UTF-8"),
        "no file": ([mine, "--vocab", str(folder / "none.txt")], "no such file"),
        "corpus alone": ([mine, *layers, "--corpus", "x.txt"], "give --vocab too"),
        "size alone": ([mine, *layers, "--vocab-size", "9"], "goes with --vocab-from"),
        "stdin": ([mine, "--vocab-from", "-"], "reads its text twice"),
        "no text": ([mine, "--vocab-from", str(folder / "none.txt")], "no such file"),
        "out is a folder": ([mine, *layers, "--out", str(folder / "other")], "not a model"),
        "out is a file": (
            [mine, *layers, "--out", str(folder / "file")],
            "a file; --out names",
        ),
        "out is there": ([mine, *layers, "--out", str(folder / "nan")], "--overwrite replaces"),
        "out is the model": ([mine, *layers, "--out", mine, "--overwrite"], "the model itself"),
    }


def test_every_mistake_is_one_clear_line_and_writes_nothing(
    model: Path, tmp_path: Path, capsys
) -> None:
    cases = mistakes(tmp_path, model)
    capsys.readouterr()
    before = {p: p.stat().st_mtime_ns for p in (*tmp_path.rglob("*"), *model.rglob("*"))}
    for name, (arguments, said) in cases.items():
        out = [] if "--out" in arguments else ["--out", str(tmp_path / "out" / "small")]
        assert main(["shrink", *arguments, *out]) == 2, name
        captured = capsys.readouterr()
        assert said in captured.err, name
        assert captured.err.count("\n") == 1, name
        assert captured.out == "", name
        # A folder above --out is no half of a model.
        (tmp_path / "out").rmdir() if (tmp_path / "out").exists() else None
        after = {p: p.stat().st_mtime_ns for p in (*tmp_path.rglob("*"), *model.rglob("*"))}
        assert {p for p in after if p.is_file()} == {p for p in before if p.is_file()}, name


def test_a_full_disk_leaves_what_was_there(
    model: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = make_model(tmp_path / "out", num_hidden_layers=1)
    content = (out / "model.safetensors").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    arguments = ["shrink", str(model), "--layers", "0", "--out", str(out), "--overwrite"]
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("zhbert.files.os.fsync", full)
        assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "the disk is full" in error
    assert error.count("\n") == 1
    assert (out / "model.safetensors").read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert main([*arguments, "--quiet"]) == 0
    assert (out / "model.safetensors").read_bytes() != content
