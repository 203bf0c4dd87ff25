"""Fine-tuning settings: the card's by family, overrides, the grid, what a resumption may change."""

from __future__ import annotations

import dataclasses

import pytest

from zhbert.config import DistillSettings
from zhbert.errors import ZhbertError
from zhbert.schema import flatten
from zhbert.tasks.card import CardSettings
from zhbert.tasks.cards import card_names, load_card, parse_card
from zhbert.tasks.settings import (
    CHOICES,
    FREE_ON_RESUME,
    RANGES,
    FineTuningSettings,
    check_settings,
    differences,
    distinct_points,
    family_of,
    grid,
    settings_for,
    with_overrides,
)


@pytest.mark.parametrize("name", card_names())
def test_every_cards_settings_are_good_for_every_family(name):
    card = load_card(name)
    for family in ("bert", "ernie", "small"):
        settings = settings_for(card, family)
        check_settings(settings)
        assert settings.sequence_length == card.settings.sequence_length
    assert settings_for(card, "bert").optimizer.learning_rate == card.settings.learning_rate


def test_families_have_learning_rates_of_their_own():
    card = load_card("chnsenticorp")
    rates = [settings_for(card, f).optimizer.learning_rate for f in ("bert", "ernie", "small")]
    assert rates == [2e-5, 5e-5, 1e-4]
    assert settings_for(card, "bert").epochs == 3
    assert settings_for(card, "small").epochs == 5
    longer = dataclasses.replace(card, settings=dataclasses.replace(card.settings, epochs=9))
    assert settings_for(longer, "small").epochs == 9
    own = dataclasses.replace(card, families={"small": CardSettings(epochs=2, learning_rate=3e-4)})
    settings = settings_for(own, "small")
    assert (settings.epochs, settings.optimizer.learning_rate) == (2, 3e-4)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({}, (5, 1e-4)),
        ({"sequence_length": 64}, (5, 1e-4)),
        ({"epochs": 1}, (1, 1e-4)),
        ({"learning_rate": 2e-5}, (5, 2e-5)),
        ({"epochs": 1, "learning_rate": 2e-5}, (1, 2e-5)),
        ({"epochs": 1, "small": {"learning_rate": 2e-4}}, (1, 2e-4)),
    ],
)
def test_what_a_card_of_ones_own_says_holds_for_small_models(section, expected, tmp_path):
    data = {"format": "csv", "dev": "d", "text": "t", "label": "l", "labels": ["0", "1"]}
    table = {"title": "t", "kind": "classify", "metrics": ["accuracy"], "data": data}
    own = parse_card({**table, "settings": section}, tmp_path / "own.toml")
    settings = settings_for(own, "small")
    assert (settings.epochs, settings.optimizer.learning_rate) == expected


def test_a_model_is_small_by_its_layers_or_its_width():
    assert family_of("hfl/rbt3", 3, 768) == "small"
    assert family_of("x", 12, 512) == "small"
    assert family_of("hfl/chinese-roberta-wwm-ext-large", 24, 1024) == "bert"
    assert family_of("ERNIE-tiny", 3, 312) == "ernie"


def test_overrides_reach_every_key():
    flat = flatten(FineTuningSettings())
    del flat["distill"]  # a section that is only there with a teacher
    for key, value in flat.items():
        again = with_overrides(FineTuningSettings(), [f"{key}={value}"])
        assert again == FineTuningSettings()
    changed = with_overrides(FineTuningSettings(), ["optimizer.learning_rate=1e-4", "epochs=7"])
    assert (changed.optimizer.learning_rate, changed.epochs) == (1e-4, 7)


def test_rules_are_about_keys_that_exist():
    keys = set(flatten(FineTuningSettings(distill=DistillSettings())))
    own = {key for key in keys if not key.startswith("distill.")}  # zhbert.config checks those
    assert set(RANGES) | set(CHOICES) == own
    assert keys >= FREE_ON_RESUME


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("epochs=-1", "epochs = -1: must be above 0"),
        ("epochs=2.5", "epochs=2.5: must be a whole number"),
        ("sequence_length=4", "sequence_length = 4: must be 8 or more"),
        ("optimizer.warmup_share=2", "optimizer.warmup_share = 2.0: must be from 0 to 1"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate = NaN: must be a finite number"),
        ("compile=maybe", 'compile = "maybe": not a choice; known: auto, yes, no'),
        ("optimizer=adam", "optimizer=adam: 'optimizer' is a section"),
    ],
)
def test_wrong_values_are_one_line(override, said):
    with pytest.raises(ZhbertError) as caught:
        with_overrides(FineTuningSettings(), [override])
    assert str(caught.value).startswith(said)


def test_dimensions_of_one_model_are_not_a_grid() -> None:
    with pytest.raises(ZhbertError, match=r"matryoshka=128\+64"):
        grid(["matryoshka=128,64"])
    assert len(grid(["matryoshka=128+64,64+32"])) == 2


def test_a_grid_is_the_product_of_its_lists():
    points = grid(["optimizer.learning_rate=1e-5,2e-5,3e-5", "epochs=2", "batch_size=16, 32"])
    assert len(points) == 6
    assert len(set(points)) == 6
    assert all("epochs=2" in point for point in points)
    assert grid([]) == [()]


def test_values_that_are_the_same_are_one_point():
    points = distinct_points(["optimizer.learning_rate=1e-4,0.0001,2e-4", "epochs=3"])
    assert points == [
        ("optimizer.learning_rate=1e-4", "epochs=3"),
        ("optimizer.learning_rate=2e-4", "epochs=3"),
    ]


def test_a_continuation_may_change_what_decides_nothing():
    one = FineTuningSettings()
    assert differences(dataclasses.replace(one, threads=3, compile="no"), one) == []
    assert differences(dataclasses.replace(one, epochs=4), one) == ["epochs = 3, now 4"]
