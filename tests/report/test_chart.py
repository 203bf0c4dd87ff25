"""Pictures: points stand where their numbers say, ticks are round, styles are told apart."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.run_folders import pretraining_run

from zhbert.report.chart import COLOURS, HEIGHT, WIDTH, Axis, Series, chart
from zhbert.report.figures import binned, mean_curve
from zhbert.report.runs import PretrainingRun, read_runs

NUMBERS = st.floats(-1e12, 1e12)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=40)


def places(picture: str) -> list[tuple[float, float]]:
    """The points of a picture's lines, then of its markers."""
    found = [
        tuple(map(float, pair.split()))
        for path in re.findall(r'd="M([^"A-Za-z]+ [^"]*)" class="line"', picture)
        for pair in path.split("L")
    ]
    found += [tuple(map(float, p)) for p in re.findall(r"translate\((\S+) (\S+)\)", picture)]
    return [(x, y) for x, y in found]


@given(POINTS, st.booleans(), st.booleans())
def test_everything_is_inside_the_picture(
    points: list[tuple[float, float]], lines: bool, whole: bool
) -> None:
    picture = chart("t", Axis("x", whole=whole), Axis("y"), [Series("s", points)], 1, lines=lines)
    drawing = picture.split("</svg>")[0]
    for x, y in places(drawing):
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT
    ticks = re.findall(r'class="[xy]">([^<]+)<', drawing)
    assert 2 <= len(ticks) <= 20
    assert len(set(re.findall(r'class="y">([^<]+)<', drawing))) >= 2


@given(st.lists(st.floats(1, 1e10), min_size=1, max_size=8))
def test_logarithmic_axes_hold_every_size(sizes: list[float]) -> None:
    points = [(size, 50.0) for size in sizes]
    picture = chart(
        "t", Axis("x", logarithmic=True), Axis("y"), [Series("s", points)], 1, lines=False
    )
    drawing = picture.split("</svg>")[0]
    assert all(0 <= x <= WIDTH for x, _ in places(drawing))
    assert re.search(r'class="x">', drawing)


def test_higher_numbers_stand_higher_and_later_ones_to_the_right() -> None:
    picture = chart("t", Axis("x"), Axis("y"), [Series("s", [(0, 1), (1, 2), (2, 4)])], 1)
    found = places(picture.split("</svg>")[0])[:3]
    assert found == sorted(found)
    assert [y for _, y in found] == sorted((y for _, y in found), reverse=True)
    # Twice the step is twice the way.
    (_, first), (_, second), (_, third) = found
    assert second - third == pytest.approx(2 * (first - second), abs=0.2)


def test_series_are_told_without_colours() -> None:
    series = [Series(f"s{n}", [(0, n), (1, n + 1)], style=n) for n in range(2 * COLOURS)]
    legend = chart("t", Axis("x"), Axis("y"), series, 1).split('<ul class="legend">')[1]
    marks = [
        (re.findall(r'stroke-dasharray="([^"]*)"', entry), re.findall(r'd="(M[^"]*)" tr', entry))
        for entry in legend.split("<li")[1:]
    ]
    assert len(marks) == 2 * COLOURS
    assert len({str(mark) for mark in marks}) == 2 * COLOURS


def test_seeds_are_thin_and_have_no_place_in_the_legend() -> None:
    series = [Series("mean", [(0, 1), (1, 2)]), Series("seed 0", [(0, 0), (1, 3)], faint=True)]
    picture = chart("t", Axis("x"), Axis("y"), series, 1)
    assert "seed 0" not in picture
    assert picture.index("faint") < picture.index('class="s0"')


def test_nothing_to_draw_is_one_line() -> None:
    assert "nothing to draw yet" in chart("t", Axis("x"), Axis("y"), [Series("s", [])], 1)
    far = [Series("s", [(1.0, 1e300)])]
    assert "nothing to draw yet" in chart("t", Axis("x"), Axis("y"), far, 1)


def test_a_training_curve_is_of_means_of_neighbouring_steps(tmp_path: Path) -> None:
    (run,) = read_runs([pretraining_run(tmp_path / "run", steps=250)])
    assert isinstance(run, PretrainingRun)
    points = binned(run.steps, run.losses, 10)
    expected = run.losses.reshape(10, 25).mean(axis=1)
    assert np.allclose([y for _, y in points], expected)
    assert [x for x, _ in points] == [13.0 + 25 * n for n in range(10)]
    assert len(binned(run.steps, run.losses, 1000)) == 250


def test_the_mean_of_seeds_is_of_the_epochs_that_all_reached() -> None:
    curves = {0: ((1.0, 50.0), (2.0, 60.0)), 3: ((1.0, 70.0), (2.0, 80.0), (3.0, 90.0))}
    assert mean_curve(curves) == ((1.0, 60.0), (2.0, 70.0))
    assert mean_curve({}) == ()


def test_numbers_of_charts_are_their_ids() -> None:
    count = itertools.count(4)
    picture = chart("t", Axis("x"), Axis("y"), [Series("s", [(0, 0)])], next(count))
    assert 'aria-labelledby="title-4 description-4"' in picture
