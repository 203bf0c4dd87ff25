"""Recipes: what is accepted, what is refused and with which words."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhbert.config import (
    CHOICES,
    RANGES,
    DistillSettings,
    EvaluationSettings,
    MaskingSettings,
    Match,
    ModelShape,
    OptimizerSettings,
    Recipe,
    RowSettings,
    check_recipe,
    flatten,
    load_recipe,
    parse_recipe,
    recipe_names,
    recipe_to_toml,
    resolve_shape,
)
from zhbert.errors import ZhbertError
from zhbert.model.activations import ACTIVATIONS


def refusal(table=(), *overrides):
    with pytest.raises(ZhbertError) as caught:
        parse_recipe(dict(table), overrides, where="my.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_errors_name_file_key_value_and_choices():
    assert refusal({"stepz": 3}) == "my.toml: unknown key 'stepz'; did you mean 'steps'?"
    assert (
        refusal({"masking": {"ratee": 1}})
        == "my.toml: masking: unknown key 'ratee'; did you mean 'rate'?"
    )
    assert "known: name, learning_rate" in refusal({"optimizer": {"zzz": 1}})
    assert "did you mean 'optimizer.learning_rate'?" in refusal({"learning_rate": 1.0})
    assert refusal({"steps": "3"}) == 'my.toml: steps = "3": must be a whole number'
    assert refusal({"steps": 3.0}) == "my.toml: steps = 3.0: must be a whole number"
    assert refusal({"steps": True}) == "my.toml: steps = true: must be a whole number"
    assert refusal({"seed": -1}).startswith("my.toml: seed = -1: must be from 0")
    assert refusal({"masking": 3}) == "my.toml: masking = 3: must be a section, [masking]"
    assert (
        refusal({"masking": {"strategy": "wmw"}})
        == "my.toml: masking.strategy = \"wmw\": not a choice; did you mean 'wwm'? "
        "one of your own? run the script that adds it in place of zhbert"
    )
    assert "must be above 0 and at most 1" in refusal({"masking": {"rate": 1.5}})
    assert "must be from 0 to 1" in refusal({"rows": {"warmup_share": 1.5}})
    assert "must increase" in refusal({"rows": {"warmup_length": [32, 16]}})
    two = {"warmup_length": [16, 32], "warmup_share": 0.5}
    assert "one share for each" in refusal({"rows": two})
    assert "together at most 1" in refusal({"rows": {**two, "warmup_share": [0.6, 0.6]}})
    assert "must be 8 or more" in refusal({"rows": {"warmup_length": 7}})
    assert "finite" in refusal({"optimizer": {"learning_rate": float("nan")}})


def test_values_that_contradict_each_other_are_refused():
    assert "multiple of" in refusal({"model": {"hidden_size": 100, "num_attention_heads": 3}})
    assert "at most model.max_position_embeddings" in refusal({"sequence_length": 513})
    assert "at most batch_size" in refusal({"batch_size": 8, "micro_batch_size": 9})
    assert "at most 1" in refusal({"masking": {"mask_share": 0.8, "random_share": 0.3}})
    assert "both set" in refusal({"initial_model": "a", "continue_from": "b"})


def test_overrides_are_toml_values_or_bare_texts():
    recipe = parse_recipe(
        {},
        [
            "steps=3",
            "masking.strategy=char",
            "masking.rate = 0.2",
            "optimizer.learning_rate=1",
            "initial_model=models/2024",
            "masking.per_word=true",
            'rows.builder="lines"',
            "evaluation.strategies=char",
            "masking.final_rate=0.1",
        ],
    )
    assert recipe.steps == 3
    assert recipe.masking == MaskingSettings(
        strategy="char", rate=0.2, per_word=True, final_rate=0.1
    )
    assert recipe.optimizer.learning_rate == 1.0
    assert isinstance(recipe.optimizer.learning_rate, float)
    assert recipe.initial_model == "models/2024"
    assert recipe.rows.builder == "lines"
    assert recipe.evaluation.strategies == ("char",)
    assert parse_recipe({}, ["initial_model=2024"]).initial_model == "2024"
    assert parse_recipe({}, ["masking.final_rate=0.1", "masking.final_rate="]) == Recipe()
    assert parse_recipe({}, ['evaluation.strategies=["char", "ngram"]']).evaluation.strategies == (
        "char",
        "ngram",
    )


def test_wrong_overrides_are_refused():
    assert refusal({}, "steps") == "'steps': an override is key=value, for example steps=100000"
    assert refusal({}, "steps=x") == "steps=x: must be a whole number"
    assert "unknown key 'step'; did you mean 'steps'" in refusal({}, "step=1")
    assert "masking: unknown key 'rat'; did you mean 'rate'" in refusal({}, "masking.rat=1")
    assert "'masking' is a section" in refusal({}, "masking=1")
    assert "'steps' is a key, not a section" in refusal({}, "steps.more=1")


def test_files_that_are_no_recipes_are_refused(tmp_path):
    with pytest.raises(ZhbertError, match=r"no recipe 'tny'; did you mean 'tiny'\?"):
        load_recipe("tny")
    with pytest.raises(ZhbertError, match="no such file"):
        load_recipe("none/such.toml")
    (tmp_path / "broken.toml").write_text("steps = ", encoding="utf-8")
    with pytest.raises(ZhbertError, match="not valid TOML"):
        load_recipe(tmp_path / "broken.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ZhbertError, match="UTF-8"):
        load_recipe(tmp_path / "binary.toml")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
RECIPES = st.builds(
    Recipe,
    steps=st.integers(1, 10**9),
    seed=st.integers(0, 2**63 - 1),
    initial_model=TEXTS,
    model=st.builds(
        ModelShape,
        hidden_size=st.none() | st.integers(1, 20).map(lambda n: 64 * n),
        hidden_dropout_prob=st.none() | st.floats(0, 0.99),
    ),
    rows=st.builds(RowSettings, builder=st.sampled_from(CHOICES["rows.builder"])),
    masking=st.builds(
        MaskingSettings,
        rate=st.floats(1e-9, 0.999),
        final_rate=st.none() | st.floats(1e-9, 0.999),
        per_word=st.booleans(),
    ),
    optimizer=st.builds(OptimizerSettings, learning_rate=st.floats(1e-30, 1e30)),
    evaluation=st.builds(
        EvaluationSettings,
        strategies=st.lists(st.sampled_from(sorted({*CHOICES["masking.strategy"]} - {"mac"}))).map(
            tuple
        ),
    ),
)


@given(RECIPES)
def test_a_recipe_reads_back_identically(recipe):
    text = recipe_to_toml(recipe)
    assert parse_recipe(tomllib.loads(text)) == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_reads_back_identically(name):
    recipe = load_recipe(name)
    resolved = dataclasses.replace(recipe, model=resolve_shape(recipe.model))
    assert parse_recipe(tomllib.loads(recipe_to_toml(resolved))) == resolved


def test_a_shape_follows_the_initial_model_but_for_dropout_and_fewer_layers():
    initial = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    fewer = resolve_shape(ModelShape(num_hidden_layers=3, hidden_dropout_prob=0.0), initial)
    assert (fewer.num_hidden_layers, fewer.hidden_size, fewer.hidden_dropout_prob) == (3, 256, 0.0)
    with pytest.raises(ZhbertError, match=r"hidden_size = 128: the model to start from has 256"):
        resolve_shape(ModelShape(hidden_size=128), initial)
    with pytest.raises(ZhbertError, match="num_hidden_layers = 5"):
        resolve_shape(ModelShape(num_hidden_layers=5), initial)


def test_the_choices_are_those_of_the_parts():
    assert set(CHOICES["model.hidden_act"]) == set(ACTIVATIONS)


def test_every_number_has_a_range_and_the_defaults_are_within():
    recipe = Recipe(distill=DistillSettings(matches=(Match(),)))
    check_recipe(recipe)
    keys = flatten(recipe) | {f"matches.{key}": value for key, value in flatten(Match()).items()}
    for key, value in keys.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert key in RANGES, key
    assert set(RANGES) | set(CHOICES) <= set(keys)


def test_a_section_that_may_be_missing_begins_with_its_first_key():
    assert load_recipe("tiny").distill is None
    recipe = load_recipe("tiny", ["softmax.frequent=0", "distill.temperature=2"])
    assert recipe.distill == DistillSettings(temperature=2.0)
    assert "[distill]" not in recipe_to_toml(load_recipe("tiny"))


def test_matches_are_a_list_of_tables_in_files_and_overrides():
    override = 'distill.matches=[{loss="cos", student=[1]}, {loss="relations", heads=4}]'
    recipe = load_recipe("tiny", ["distill.soft_labels=none", override])
    expected = (Match(loss="cos", student=(1,)), Match(loss="relations", heads=4))
    assert recipe.distill is not None
    assert recipe.distill.matches == expected
    assert parse_recipe(tomllib.loads(recipe_to_toml(recipe))) == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distill.matches=cos", "must be a list of tables"),
        ("distill.matches=[3]", "must be a list of tables"),
        ('distill.matches=[{los="cos"}]', "unknown key 'los'; did you mean 'loss'?"),
        ('distill.matches=[{loss="coz"}]', 'entry 1: loss = "coz": not a choice; did you mean'),
        ("distill.matches=[{weight=0}]", "entry 1: weight = 0.0: must be above 0"),
        ("distill=3", "'distill' is a section"),
        ("distill.temperature=0", "must be above 0"),
        ("distill.top_k=1", "must be 0 (all pieces), or 2 or more"),
        ("distill.soft_labels=none", "nothing is learnt from the teacher"),
        ("distill.cache=c", "set distill.top_k=10 as well"),
    ],
)
def test_wrong_values_of_distillation_are_refused(override, message):
    with pytest.raises(ZhbertError) as caught:
        load_recipe("tiny", ["softmax.frequent=0", override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_soft_labels_over_all_pieces_need_all_pieces():
    with pytest.raises(ZhbertError, match=r"softmax.frequent = 2000: soft labels over the whole"):
        load_recipe("tiny", ["distill.temperature=2"])
    load_recipe("tiny", ["distill.top_k=10"])


def test_a_password_in_a_teachers_address_is_not_written():
    address = "https://me:secret@example.org/model.zip"
    recipe = load_recipe("tiny", ["distill.top_k=10", f'distill.teachers=["{address}"]'])
    assert "secret" not in recipe_to_toml(recipe)


def test_first_weights_of_a_teacher_need_one():
    with pytest.raises(ZhbertError, match="there is no teacher"):
        load_recipe("tiny", ["initial_weights=teacher"])
