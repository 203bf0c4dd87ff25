"""Every recipe runs; recipes, check and params say what they should."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import pytest
from tests.distill.teachers import make_teacher
from tests.small_corpora import TINY

from zhbert import cli
from zhbert.config import RECIPES_FOLDER, load_recipe, recipe_names, resolve_shape
from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig
from zhbert.model.parameters import parameters_of
from zhbert.model.pretrained import BertForPreTraining
from zhbert.pretraining.check import check
from zhbert.pretraining.recipes import copy_recipe, describe_recipe
from zhbert.pretraining.run import pretrain

EXPECTED = (
    "bert-wwm-ext",
    "bert-wwm-ext-phase2",
    "bert-wwm-phase1",
    "bert-wwm-phase2",
    "continue-domain",
    "mini",
    "mini-cn",
    "minirbt-h256",
    "minirbt-h288",
    "quickstart",
    "quickstart-scratch",
    "rbt3",
    "rbt3-distill",
    "rbt6-distill",
    "rbtl3",
    "roberta-wwm-ext",
    "roberta-wwm-ext-large",
    "tiny",
    "tiny-cn",
    "tiny-distill",
    "tinybert4",
)

# What makes a recipe small without changing what it is about.
ITS_OWN = ("model.num_hidden_layers", "masking", "optimizer.name", "initial_weights", "softmax")
SMALL = tuple(override for override in TINY if not override.startswith(ITS_OWN))


def test_the_folder_holds_these_recipes_and_no_others():
    assert tuple(recipe_names()) == EXPECTED
    assert len(list(RECIPES_FOLDER.iterdir())) == len(EXPECTED)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_runs_for_three_steps(name, corpus, finished_run, tmp_path):
    recipe = load_recipe(name)
    overrides = [*SMALL, "steps=3"]
    first, layers = 1, min(recipe.model.num_hidden_layers or 2, 3)
    if recipe.continue_from:
        first_phase = tmp_path / "first"
        earlier = recipe.continue_from.removeprefix("runs/")
        more = ["steps=2", "initial_model=", "model.num_hidden_layers=2"]
        pretrain(earlier, corpus, first_phase, [*SMALL, *more])
        overrides += [f"continue_from={first_phase}"]
        first = 3
    elif recipe.distill:
        layers = recipe.model.num_hidden_layers
        teacher = make_teacher(
            tmp_path / "teacher", num_hidden_layers=12, hidden_size=16, intermediate_size=32
        )
        overrides += [f'distill.teachers=["{teacher}"]']
        overrides += [f"initial_model={teacher}"] if recipe.initial_model else []
    elif recipe.initial_model:
        overrides += [f"initial_model={finished_run / 'final'}"]
        layers = recipe.model.num_hidden_layers or 4
    overrides += [f"model.num_hidden_layers={layers}"]
    result = pretrain(name, corpus, tmp_path / "run", overrides)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line)["step"] for line in lines if "evaluation" not in line]
    assert steps == [first, first + 1, first + 2]
    assert {line["evaluation"] for line in result.evaluations} == {"char", "wwm"}
    config = BertConfig.from_pretrained(tmp_path / "run" / "final")
    assert config.num_hidden_layers == layers


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_opens_with_commands_that_parse_and_its_source(name):
    text = (RECIPES_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    header = [line[1:].strip() for line in text.split("\nsteps", 1)[0].splitlines()]
    assert re.fullmatch(r"\S.{10,90}", header[0])
    assert any(line.startswith("Source: ") for line in header)
    commands = [line for line in header if re.match(r"(zhbert|torchrun) ", line)]
    verb = "distill" if load_recipe(name).distill else "pretrain"
    own = [line for line in commands if f"zhbert {verb} {name} " in line]
    assert own
    for line in own:
        words = shlex.split(line)
        assert words[words.index("--corpus") + 1]
        assert words[words.index("--out") + 1]
    assert all(len(line) <= 120 for line in text.splitlines())


def test_published_settings_are_as_published():
    tiny = load_recipe("tiny-cn")
    assert (tiny.steps, tiny.batch_size, tiny.sequence_length) == (100_000, 32, 128)
    assert tiny.optimizer.learning_rate == 2e-5
    assert (tiny.masking.strategy, tiny.masking.max_predictions) == ("char", 20)
    large = load_recipe("roberta-wwm-ext-large")
    shape = resolve_shape(large.model)
    assert (shape.num_hidden_layers, shape.hidden_size) == (24, 1024)
    assert (shape.num_attention_heads, shape.intermediate_size) == (16, 4096)
    assert (large.steps, large.batch_size, large.optimizer.learning_rate) == (2_000_000, 512, 5e-5)
    first, second = load_recipe("bert-wwm-phase1"), load_recipe("bert-wwm-phase2")
    assert (first.batch_size, first.sequence_length) == (2560, 128)
    assert (second.batch_size, second.sequence_length) == (384, 512)
    assert first.optimizer == second.optimizer
    assert first.optimizer.schedule_steps == first.steps + second.steps
    for recipe in (load_recipe(name) for name in EXPECTED):
        masking, length = recipe.masking, recipe.sequence_length
        if masking.final_rate is None:
            assert masking.max_predictions == (77 if length == 512 else 20)
        else:
            assert masking.max_predictions >= int(length * masking.rate)


def test_students_have_the_shapes_of_the_published_ones():
    shapes = {
        "minirbt-h256": (6, 256, 8, 1024),
        "minirbt-h288": (6, 288, 8, 1152),
        "tinybert4": (4, 312, 12, 1200),
        "rbt3-distill": (3, 768, 12, 3072),
        "rbt6-distill": (6, 768, 12, 3072),
    }
    for name, (layers, width, heads, inner) in shapes.items():
        recipe = load_recipe(name)
        shape = resolve_shape(recipe.model)
        assert (shape.num_hidden_layers, shape.hidden_size) == (layers, width)
        assert (shape.num_attention_heads, shape.intermediate_size) == (heads, inner)
        if name != "tinybert4":
            assert (recipe.steps, recipe.batch_size, recipe.sequence_length) == (100_000, 4096, 512)
            assert (recipe.optimizer.learning_rate, recipe.distill.temperature) == (4e-4, 8)
            assert recipe.distill.matches[0].student == tuple(range(layers + 1))


def test_recipes_are_listed_shown_and_copied(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", listed, re.MULTILINE) for name in EXPECTED)
    assert all(len(line) <= 80 for line in listed.splitlines())
    assert "\x1b" not in listed
    assert cli.main(["recipes", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == list(EXPECTED)
    assert cli.main(["recipes", "show", "tiny"]) == 0
    text = (RECIPES_FOLDER / "tiny.toml").read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    assert cli.main(["recipes", "copy", "tiny", str(tmp_path / "mine.toml")]) == 0
    assert (tmp_path / "mine.toml").read_text(encoding="utf-8") == text
    assert load_recipe(tmp_path / "mine.toml") == load_recipe("tiny")
    with pytest.raises(ZhbertError, match="exists already"):
        copy_recipe("tiny", tmp_path / "mine.toml")
    assert copy_recipe("rbt3", tmp_path) == tmp_path / "rbt3.toml"
    assert cli.main(["recipes", "show", "rtb3"]) == 2
    assert "did you mean 'rbt3'?" in capsys.readouterr().err


def test_a_description_names_what_a_recipe_starts_from():
    assert describe_recipe("rbt3")["starts_from"] == "chinese-roberta-wwm-ext"
    assert describe_recipe("tiny")["shape"] == "2x128"


def test_check_validates_and_estimates(corpus, capsys):
    result = check("tiny", ["steps=100", "batch_size=32"], corpus=corpus)
    assert result["parameters"] == parameters_of("tiny", vocabulary_size=60)["total"]
    assert result["pieces_per_step"] == 32 * 128
    assert result["epochs"] == pytest.approx(100 * 32 * 128 / result["corpus_pieces"])
    assert result["values"]["model.num_attention_heads"] == 2
    assert result["micro_batch_size"] == 32
    assert cli.main(["check", "tiny", "steps=100", "--corpus", str(corpus)]) == 0
    printed = capsys.readouterr().out
    for text in ("steps = 100", "parameters", "memory", "epochs"):
        assert text in printed
    assert cli.main(["check", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] is None
    assert cli.main(["check", "tiny", "masking.ratee=1"]) == 2
    assert "did you mean 'rate'" in capsys.readouterr().err
    assert cli.main(["check", "tiny", "optimizer.warmup_steps=99999", "--quiet"]) == 0
    assert "is longer than steps" in capsys.readouterr().out


def test_check_says_what_rented_gpus_would_take(capsys):
    eight = ["check", "bert-wwm-phase1", "--device", "H100", "--gpus", "8", "--quiet"]
    assert cli.main([*eight, "--price", "2.5", "compile=yes"]) == 0
    printed = capsys.readouterr().out
    for text in ("320 rows on each GPU", "of 80 GB", "8 x H100", "pieces/s", " h ", "cost", "H200"):
        assert text in printed
    found = check("bert-wwm-phase1", device="h100", gpus=8, price=2.5)["gpu"]
    assert found["cost"] == pytest.approx(found["hours"] * 8 * 2.5)
    assert found["hours"] == pytest.approx(100_000 * 2560 * 128 / found["pieces_per_second"] / 3600)
    assert check("tiny", device="h100")["gpu"]["cost"] is None


def test_a_model_too_large_for_one_gpu_fits_several():
    large = ["model.hidden_size=8192", "model.num_attention_heads=64", "batch_size=64"]
    large += ["model.num_hidden_layers=12", "model.intermediate_size=32768"]
    with pytest.raises(ZhbertError, match=r"it would fit with sharding=full$"):
        check("tiny", large, device="h100", gpus=8)
    divided = check("tiny", [*large, "sharding=full"], device="h100", gpus=8)
    again = check(
        "tiny", [*large, "sharding=full", "activation_checkpointing=true"], device="h100", gpus=8
    )
    assert again["memory_bytes"] < divided["memory_bytes"] < 80e9
    assert again["micro_batch_size"] == 8
    speeds = [plan["gpu"]["pieces_per_second"] for plan in (again, divided)]
    assert 0.7 < speeds[0] / speeds[1] < 1


@pytest.mark.parametrize("set_already", [[], ["sharding=full"], ["micro_batch_size=64"]])
def test_every_way_out_that_an_error_names_fits(set_already):
    recipe = "roberta-wwm-ext-large"
    large = ["model.num_hidden_layers=96", "model.hidden_size=2048", *set_already]
    large += ["model.intermediate_size=8192", "model.num_attention_heads=32"]
    with pytest.raises(ZhbertError) as caught:
        check(recipe, large, device="4090", gpus=2)
    ways = str(caught.value).partition("it would fit with ")[2].split("; or with ")
    assert len(ways) >= 2
    for way in ways:
        words = way.split()
        flags = {"--device": "4090", "--gpus": "2"}
        flags |= {word: words[at + 1] for at, word in enumerate(words) if word in flags}
        keys = [word for word in words if "=" in word]
        plan = check(recipe, [*large, *keys], device=flags["--device"], gpus=int(flags["--gpus"]))
        assert plan["memory_bytes"] < plan["gpu"]["memory"] * 1e9


def test_no_way_out_is_named_for_a_model_that_fits_no_gpu():
    vast = ["model.hidden_size=65536", "model.num_attention_heads=1024", "batch_size=1"]
    vast += ["model.num_hidden_layers=96", "model.intermediate_size=262144"]
    with pytest.raises(ZhbertError, match="would help: train a smaller model"):
        check("tiny", vast, device="4090")


def test_check_notes_what_training_would_say():
    alone = check("tiny", ["sharding=full"], device="h100")
    assert any("no other processes" in note for note in alone["notes"])
    usual = ["batch_size=1024", "sequence_length=128", "model.hidden_size=768"]
    usual += ["model.num_attention_heads=12", "model.num_hidden_layers=12"]
    for rows, said in ((0, False), (128, False), (900, True)):
        plan = check("bert-wwm-phase1", [*usual, f"micro_batch_size={rows}"], device="h100")
        assert any("fills more than half" in note for note in plan["notes"]) == said
    assert any("training would stop there" in note for note in plan["notes"])


def test_numbers_of_large_and_small_plans_are_readable(capsys):
    plan = ["check", "tiny", "--quiet", "--device", "h100", "--price", "2.5"]
    assert cli.main([*plan, "steps=1000000000"]) == 0
    printed = capsys.readouterr().out
    for text in (" MB of 80 GB", " days ", " = 1 GPU x ", " h x 2.5", "on other GPUs unproven"):
        assert text in printed
    assert cli.main(["check", "bert-wwm-phase1", "--quiet", "--device", "l4"]) == 0
    assert re.search(r" [\d.]+ s a step", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--device mi300", "--device mi300: not in the table of GPUs; known: h200, h100"),
        ("--gpus 8", "need --device"),
        ("--price 2", "need --device"),
        ("--device h100 --gpus 0", "--gpus 0: must be 1 or more"),
        ("--device h100 --gpus 17", "--gpus 17: batch_size = 16 has too few rows"),
        ("--device h100 --price -1", "--price -1: must be"),
        (
            "--device 4090 model.hidden_size=8192 model.num_hidden_layers=12",
            "GB on each GPU, and RTX 4090 has 24: it would fit with",
        ),
    ],
)
def test_a_plan_that_cannot_be_is_one_line(words, message, capsys):
    assert cli.main(["check", "tiny", *words.split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_check_reads_the_model_to_start_from(finished_run):
    result = check("rbt3", [f"initial_model={finished_run / 'final'}", "sequence_length=64"])
    assert result["values"]["model.hidden_size"] == 16
    assert result["vocabulary_size"] == 60
    with pytest.raises(ZhbertError, match="sequence_length = 512: must be at most"):
        check("rbt3", [f"initial_model={finished_run / 'final'}"])
    assert any("fetched when training begins" in note for note in check("rbt3")["notes"])


def test_params_counts_what_a_model_has(finished_run, tmp_path, capsys):
    config = BertConfig.from_pretrained(finished_run / "final")
    real = sum(p.numel() for p in BertForPreTraining(config).parameters())
    assert parameters_of(str(finished_run / "final"))["total"] == real
    assert parameters_of("12x768")["parts"]["layers"] == 85_054_464
    assert parameters_of("12x768")["total"] == parameters_of("roberta-wwm-ext")["total"]
    assert cli.main(["params", "2x128"]) == 0
    assert re.search(r"total +3,221,642 +100.0%", capsys.readouterr().out)
    assert cli.main(["params", "2x128", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 3_221_642
    assert cli.main(["params", "nothing"]) == 2
    assert "not a recipe, a model folder or a shape" in capsys.readouterr().err
    shutil.copy(RECIPES_FOLDER / "tiny.toml", tmp_path / "mine.toml")
    assert parameters_of(str(tmp_path / "mine.toml"))["total"] == 3_221_642
