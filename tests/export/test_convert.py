"""zhbert convert: the same model in every form, exactly, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.model.conftest import SHAPE, enlarge

from zhbert import BertConfig, BertForMaskedLM, BertForPreTraining, BertModel, Tokenizer
from zhbert.cli import main
from zhbert.errors import ZhbertError
from zhbert.export import FORMATS
from zhbert.export import tensorflow as writer
from zhbert.export.convert import convert
from zhbert.model.checkpoint import open_checkpoint
from zhbert.model.names import OF_PAIRS

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(0x4E00, 0x4E00 + 92))]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny model folder of ours, with numbers that matter everywhere."""
    folder = tmp_path / "model"
    enlarge(BertForPreTraining(BertConfig(**SHAPE))).save_pretrained(folder)
    Tokenizer(PIECES).save_pretrained(folder, model_max_length=40)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: entry.read() for name, entry in open_checkpoint(folder).entries.items()}


def assert_same_tensors(one: Path, other: Path) -> None:
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    assert all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    found = load_file(folder / "model.safetensors")
    edit(found)
    save_file(found, folder / "model.safetensors")


def set_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_round_through_every_form_is_exact(model: Path, tmp_path: Path) -> None:
    here = model
    for number, form in enumerate(("tensorflow", "pytorch", "tensorflow", "safetensors")):
        there = tmp_path / f"{number}-{form}"
        report = convert(here, there, form)
        assert (report["format"], report["architecture"]) == (form, "BertForPreTraining")
        assert (report["tensors"], report["dtype"], report["vocabulary"]) == (62, "float32", 97)
        assert_same_tensors(model, there)
        here = there
    assert (here / "model.safetensors").read_bytes() != b""
    before, after = (json.loads((f / "config.json").read_text()) for f in (model, here))
    assert before == after
    for name in ("vocab.txt", "tokenizer_config.json", "tokenizer.json"):
        assert (here / name).read_text() == (model / name).read_text()


def test_the_genuine_checkpoint_goes_round_exactly(data: Path, tmp_path: Path) -> None:
    source = data / "fixtures" / "tf1_tiny_bert"
    convert(source, tmp_path / "st", "safetensors")
    convert(tmp_path / "st", tmp_path / "tf", "tensorflow")
    assert_same_tensors(source, tmp_path / "tf")
    pieces = [(f / "vocab.txt").read_text().split() for f in (source, tmp_path / "tf")]
    assert pieces[0] == pieces[1]
    configs = [json.loads((f / "bert_config.json").read_text()) for f in (source, tmp_path / "tf")]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("form", ["safetensors", "pytorch"])
def test_transformers_opens_what_came_from_tensorflow(
    model: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    monkeypatch.setattr(writer, "_PART_BYTES", 20_000)
    convert(model, tmp_path / "tf", "tensorflow")
    convert(tmp_path / "tf", tmp_path / "hf", form)
    theirs, report = transformers.BertForPreTraining.from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ours = BertForPreTraining.from_pretrained(model)
    ids = torch.randint(0, 97, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = theirs(ids), ours(ids)
    torch.testing.assert_close(a.prediction_logits, b.prediction_logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        a.seq_relationship_logits, b.seq_relationship_logits, rtol=0, atol=1e-4
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    text = "一丁七"
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == [
        PIECES.index(character) for character in text
    ]


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM])
def test_the_configuration_names_what_the_file_holds(tmp_path: Path, kind: type) -> None:
    kind(BertConfig(**SHAPE)).save_pretrained(tmp_path / "model")
    set_config(tmp_path / "model", architectures=["BertForPreTraining"], torch_dtype="float16")
    report = convert(tmp_path / "model", tmp_path / "out", "pytorch")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == [kind.__name__] == [report["architecture"]]
    assert config["dtype"] == "float32"
    assert "torch_dtype" not in config
    assert report["vocabulary"] is None


@pytest.mark.parametrize(("asked", "named"), [(None, "float32"), ("float16", "float16")])
def test_a_model_stored_in_half_precision_is_still_opened_in_float32(
    tmp_path: Path, asked: str | None, named: str
) -> None:
    report = convert("mini", tmp_path / "out", "safetensors", dtype=asked)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (report["dtype"], config["dtype"]) == ("float16", named)


def test_a_classifier_of_three_classes_keeps_them(model: Path, tmp_path: Path) -> None:
    import transformers

    def classifier(found: dict[str, torch.Tensor]) -> None:
        for name in [n for n in found if n.startswith("cls.")]:
            del found[name]
        found |= {"classifier.weight": torch.randn(3, 32), "classifier.bias": torch.randn(3)}

    change(model, classifier)
    convert(model, tmp_path / "tf", "tensorflow")
    convert(tmp_path / "tf", tmp_path / "back", "safetensors")
    assert_same_tensors(model, tmp_path / "back")
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "back")
    assert opened.num_labels == 3


def test_the_tokenizers_options_are_not_lost(model: Path, tmp_path: Path) -> None:
    # No capital letter in the pieces: they alone would be read as lower-casing.
    Tokenizer(PIECES, do_lower_case=False).save_pretrained(model)
    convert(model, tmp_path / "tf", "tensorflow")
    assert not Tokenizer.from_pretrained(tmp_path / "tf").options.do_lower_case


def test_the_card_and_the_licence_go_along(model: Path, tmp_path: Path) -> None:
    for name in ("README.md", "LICENSE"):
        (model / name).write_text(f"of {name}")
    convert(model, tmp_path / "out", to="pytorch")
    for name in ("README.md", "LICENSE"):
        assert (tmp_path / "out" / name).read_text() == f"of {name}"


def test_capital_letters_make_a_google_vocabulary_cased(model: Path, tmp_path: Path) -> None:
    cased = [*PIECES[:-26], *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    Tokenizer(cased, do_lower_case=False).save_pretrained(model)
    convert(model, tmp_path / "tf", "tensorflow")
    (tmp_path / "tf" / "tokenizer_config.json").unlink(missing_ok=True)
    (tmp_path / "tf" / "tokenizer.json").unlink(missing_ok=True)
    convert(tmp_path / "tf", tmp_path / "back", "safetensors")
    config = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text())
    assert config["do_lower_case"] is False


@pytest.mark.parametrize("form", FORMATS)
def test_half_precision_and_back(model: Path, tmp_path: Path, form: str) -> None:
    convert(model, tmp_path / "half", form, dtype="float16")
    convert(tmp_path / "half", tmp_path / "full", "safetensors", dtype="float32")
    halves, full = tensors(tmp_path / "half"), tensors(tmp_path / "full")
    for name, tensor in tensors(model).items():
        assert halves[name].dtype == torch.float16
        assert torch.equal(full[name], tensor.half().float())


def test_heads_that_were_never_trained_are_left_out_when_asked(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = tmp_path / "fresh"
    BertForPreTraining(BertConfig(**SHAPE), seed=3).save_pretrained(fresh)

    def untrain(found: dict[str, torch.Tensor]) -> None:
        found |= {n: t for n, t in tensors(fresh).items() if n.startswith(OF_PAIRS)}

    words = ["convert", str(model), str(tmp_path / "out"), "--to", "pytorch"]
    assert main([*words, "--drop-untrained-heads"]) == 0
    assert_same_tensors(model, tmp_path / "out")
    change(model, untrain)
    capsys.readouterr()
    assert main([*words, "--drop-untrained-heads", "--overwrite"]) == 0
    captured = capsys.readouterr()
    assert "never trained, left out: cls.seq_relationship.weight" in captured.err
    assert "BertForMaskedLM, float32" in captured.out
    left = {n: t for n, t in tensors(model).items() if not n.startswith(OF_PAIRS)}
    assert tensors(tmp_path / "out").keys() == left.keys()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BertForMaskedLM.from_pretrained(tmp_path / "out")


def test_shards(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["convert", str(model), str(tmp_path / "out"), "--to", "safetensors"]
    assert main([*arguments, "--max-shard-size", "30KB", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2
    assert sum(t.nbytes for s in shards for t in load_file(s).values()) == report["bytes"]
    assert_same_tensors(model, tmp_path / "out")


def test_unknown_tensors_are_kept_and_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(model, lambda found: found.update({"crf.transitions": torch.randn(4, 4)}))
    for form in FORMATS:
        out = tmp_path / form
        assert main(["convert", str(model), str(out), "--to", form]) == 0
        printed = capsys.readouterr()
        assert printed.err == "not BERT's, kept as they are: crf.transitions\n"
        assert f"{out}: {form}, BertForPreTraining, float32, 63 tensors" in printed.out
        assert_same_tensors(model, out)


def _spoil_numbers(model: Path) -> None:
    name = "bert.encoder.layer.2.output.dense.weight"
    change(model, lambda found: found[name].view(-1)[5:6].fill_(float("nan")))


def _too_large(model: Path) -> None:
    change(model, lambda found: found["bert.pooler.dense.bias"].fill_(1e6))


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (_spoil_numbers, {}, r"layer\.2\.output\.dense\.weight holds NaN"),
        (_too_large, {"dtype": "float16"}, "holds numbers above those of torch.float16"),
        (
            lambda m: set_config(m, vocab_size=96),
            {},
            "says vocab_size = 96, the weights have 97",
        ),
        (
            lambda m: set_config(m, num_hidden_layers=4),
            {},
            "layers = 4, the weights have 3",
        ),
        (lambda m: set_config(m, model_type="albert"), {}, "of the type 'albert'"),
        (lambda m: Tokenizer([*PIECES, "x"]).save_pretrained(m), {}, "98 pieces, the model 97"),
        (lambda m: (m / "config.json").unlink(), {}, "config.json"),
        (
            lambda m: change(m, lambda f: f.update({"albert_layer_groups.x": torch.ones(1)})),
            {},
            "an ALBERT, not a BERT",
        ),
    ],
)
@pytest.mark.parametrize("form", FORMATS)
def test_a_model_that_is_none_leaves_nothing_behind(
    model: Path, tmp_path: Path, form: str, spoil: Any, options: dict[str, Any], message: str
) -> None:
    spoil(model)
    with pytest.raises(ZhbertError, match=message) as caught:
        convert(model, tmp_path / "out", form, **options)
    assert "\n" not in str(caught.value)
    assert ".tmp" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_what_stands_in_the_way_is_left_alone(model: Path, tmp_path: Path) -> None:
    papers = tmp_path / "papers"
    papers.mkdir()
    (papers / "thesis.txt").write_text("x")
    with pytest.raises(ZhbertError, match="not empty, and not a model"):
        convert(model, papers, "pytorch", overwrite=True)
    for place, why in ((model, "the model itself"), (tmp_path, "not empty, and not a model")):
        with pytest.raises(ZhbertError, match=why):
            convert(model, place, "pytorch", overwrite=True)
    with pytest.raises(ZhbertError, match="--overwrite would remove the model, "):
        convert(model / "model.safetensors", model, "pytorch", overwrite=True)
    shutil.copytree(model, tmp_path / "other")
    with pytest.raises(ZhbertError, match="--overwrite replaces it"):
        convert(model, tmp_path / "other", "pytorch")
    convert(model, tmp_path / "other", "pytorch", overwrite=True)
    assert not (tmp_path / "other" / "model.safetensors").exists()
    assert_same_tensors(model, tmp_path / "other")
    with pytest.raises(ZhbertError, match="a file; DST names the folder"):
        convert(model, papers / "thesis.txt", "pytorch")


def test_an_archive_of_googles_layout_is_a_source(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZHBERT_CACHE", str(tmp_path / "cache"))
    convert(model, tmp_path / "tf" / "chinese_L-3_H-32_A-4", "tensorflow")
    archive = shutil.make_archive(str(tmp_path / "chinese"), "zip", tmp_path / "tf")
    convert(archive, tmp_path / "back", "safetensors")
    assert_same_tensors(model, tmp_path / "back")


@pytest.mark.parametrize("size", ["0", "1.5GB", "many", "-1"])
def test_a_size_that_is_none_is_one_line(
    model: Path, tmp_path: Path, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["convert", str(model), str(tmp_path / "x"), "--to", "safetensors"]
    assert main([*arguments, f"--max-shard-size={size}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_shards_are_of_safetensors_only(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ZhbertError, match="only safetensors are cut by size"):
        convert(model, tmp_path / "out", "tensorflow", max_shard_size=10**9)


_CONVERTING = """
    import re, sys
    import zhbert.export.convert, zhbert.model.pretrained
    from zhbert.model.formats.tensorflow import import_tensorflow

    def peak():
        # Not getrusage: its figure begins with that of the process which started this one.
        return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
    import_tensorflow()
    print(peak())
    zhbert.export.convert.convert(sys.argv[1] + "/st", sys.argv[1] + "/tf", "tensorflow")
    print(peak())
    zhbert.export.convert.convert(sys.argv[1] + "/tf", sys.argv[1] + "/back", "safetensors")
    print(peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="this machine has no /proc")
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """270 MB pass through, either way, in the memory of a few tensors above the libraries' own."""
    from zhbert.model.entry import Entry
    from zhbert.model.formats.safetensors import write_safetensors
    from zhbert.model.names import to_hugging_face

    config = BertConfig(
        vocab_size=2000, hidden_size=1024, num_attention_heads=16, num_hidden_layers=5
    )
    with torch.device("meta"):
        named = dict(BertForPreTraining(config).named_parameters())

    def entry(like: torch.Tensor) -> Entry:
        return Entry(tuple(like.shape), torch.float32, lambda: torch.full(like.shape, 0.5))

    entries = {name: entry(like) for name, like in to_hugging_face(named).items()}
    assert sum(e.size for e in entries.values()) > 270e6
    (tmp_path / "st").mkdir()
    write_safetensors(tmp_path / "st", entries)
    config.save_pretrained(tmp_path / "st")
    command = [sys.executable, "-c", textwrap.dedent(_CONVERTING), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    libraries, to, back = map(int, done.stdout.split())
    assert libraries < 900
    assert to - libraries < 130
    assert back - libraries < 160


@pytest.mark.parametrize("kept", [100, 21128 - 512])
@pytest.mark.parametrize(
    "command", [["fill", "M", "使[MASK]"], ["convert", "M", "OUT", "--to", "pytorch"],
                ["shrink", "M", "--layers", "0", "--out", "OUT"]]
)  # fmt: skip
def test_a_vocabulary_far_from_the_weights_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], kept: int
) -> None:
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertForPreTraining(BertConfig(vocab_size=21128, **shape)).save_pretrained(tmp_path / "M")
    pieces = Tokenizer.default().vocabulary[:kept]
    (tmp_path / "M" / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    words = [str(tmp_path / word) if word in ("M", "OUT") else word for word in command]
    assert main([*words, "--quiet"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "WARNING" not in line]
    assert len(lines) == 1
    assert ("no piece [UNK]" if kept == 100 else "another model's vocabulary") in lines[0]
    assert str(tmp_path / "M") in lines[0]
    assert not (tmp_path / "OUT").exists()
