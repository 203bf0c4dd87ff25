"""Line and scatter charts as inline SVG, in the colours of the page's style sheet.

Coordinates go from 0 to `WIDTH` and `HEIGHT`, about the pixels of a phone's screen, so that text is
legible there; wide screens show several charts in a row instead of larger ones. Series differ in
colour, dashes and marker, so that they can be distinguished in black and white.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from zhbert.report.markup import Markup, element

WIDTH, HEIGHT = 360, 236
_TOP, _RIGHT, _BOTTOM = 26, 12, 40
_CHARACTER = 6.6  # the width of a digit at 11 pixels, generously

# The page's style sheet has a colour for each of these (.s0, .s1, …).
COLOURS = 7
_DASHES = (None, "7 3", "2 3", "9 3 2 3", "12 4", "4 2", "1 2")
_MARKERS = (
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",  # a disc
    "M-3.2 -3.2h6.4v6.4h-6.4z",  # a square
    "M0 -4.2L4 3H-4z",  # a triangle
    "M0 -4.6L4.6 0L0 4.6L-4.6 0z",  # a diamond
    "M0 4.2L4 -3H-4z",  # a triangle upside down
    "M-1.3 -4h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7v-2.6h2.7z",  # a cross
    "M-4 -2h8v4h-8z",  # a bar
)
_MOST_MARKERS = 9
_MOST_DASHED = 40
_FAR = 1e15


@dataclass(frozen=True)
class Series:
    """A line, or points if the chart has no lines."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0
    """The number of its colour, dashes and marker; the same for a model in all charts."""
    faint: bool = False
    """Draw a thin line without an entry in the legend, for one seed of several."""
    reference: bool = False
    """Draw a grey line for comparison."""


@dataclass(frozen=True)
class Axis:
    """An axis of the chart."""

    label: str
    """The quantity, with its unit."""
    logarithmic: bool = False
    whole: bool = False
    """Place ticks at whole numbers only."""


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool
    start: float
    """The coordinate of ``low``, in pixels."""
    end: float

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)


def chart(
    title: str, x: Axis, y: Axis, series: Sequence[Series], number: int, *, lines: bool = True
) -> Markup:
    """Return a chart with its legend; ``number`` must be unique in the page.

    Series without points are left out; if none is left, return a line of text that says so.
    """
    drawn = [shown for one in series if (shown := _within_reach(one, x, y)).points]
    if not drawn:
        return element("p", f"{title}: nothing to draw yet.", class_="note")
    xs = [point[0] for one in drawn for point in one.points]
    ys = [point[1] for one in drawn for point in one.points]
    y_ticks = _ticks(min(ys), max(ys), y)
    left = 10 + max(len(_number(tick)) for tick in y_ticks[2]) * _CHARACTER
    across = _Scale(*_ticks(min(xs), max(xs), x), x.logarithmic, left, WIDTH - _RIGHT)
    down = _Scale(*y_ticks, y.logarithmic, HEIGHT - _BOTTOM, _TOP)
    # Drawn from back to front: references, faint lines, others.
    ordered = sorted(drawn, key=lambda one: (not one.reference, not one.faint))
    picture = element(
        "svg",
        element("title", title, id=f"title-{number}"),
        element("desc", describe(x, y, drawn), id=f"description-{number}"),
        _frame(across, down, x, y),
        [_draw(one, across, down, lines) for one in ordered],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=f"title-{number} description-{number}",
    )
    return element(
        "figure", element("figcaption", title), picture, _legend(drawn, lines), class_="chart"
    )


def _within_reach(one: Series, x: Axis, y: Axis) -> Series:
    """Return the series without points that an axis cannot show, as in a diverged run."""
    points = [
        point
        for point in one.points
        if all(
            abs(value) < _FAR and (value > 0 or not axis.logarithmic)
            for value, axis in zip(point, (x, y), strict=True)
        )
    ]
    return replace(one, points=points)


def describe(x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """Describe a chart in words: the last point of each series.

    >>> describe(Axis("steps"), Axis("loss"), [Series("wwm", [(0, 9.9), (100, 6.1)])])
    'loss by steps. wwm: 6.1 at 100.'
    """
    ends = ", ".join(
        f"{one.name}: {one.points[-1][1]:.4g} at {one.points[-1][0]:,.7g}"
        for one in series
        if not one.faint
    )
    return f"{y.label} by {x.label}. {ends}."


# -- axes ------------------------------------------------------------------------------------------


def _ticks(low: float, high: float, axis: Axis) -> tuple[float, float, tuple[float, ...]]:
    """Return the ends of an axis and its ticks: four to seven round numbers."""
    if axis.logarithmic:
        low, high = low / 1.25, high * 1.25
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8)):
            ticks = [f * 10.0**power for power in powers for f in factors]
            ticks = [tick for tick in ticks if low <= tick <= high]
            if len(ticks) >= 3:
                break
        return low, high, tuple(ticks)
    if high - low < 1e-9 * max(1.0, abs(high)):
        room = max(abs(high) * 0.02, 0.5)
        low, high = low - room, high + room
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= 6)
    if axis.whole:
        step = max(step, 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [float(f"{index * step:.12g}") for index in range(first, last + 1)]
    return ticks[0], ticks[-1], tuple(ticks)


def _number(value: float) -> str:
    """Return a tick's label.

    >>> _number(12_000), _number(0.25), _number(3_200_000), _number(0)
    ('12k', '0.25', '3.2M', '0')
    """
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{letter}"
    return f"{value:.6g}"


def _frame(across: _Scale, down: _Scale, x: Axis, y: Axis) -> list[Markup]:
    bottom, left, right = down.start, across.start, across.end
    parts = []
    for tick in down.ticks:
        at = down(tick)
        parts.append(element("path", d=f"M{left:g} {at:g}H{right:g}", class_="grid"))
        parts.append(element("text", _number(tick), x=f"{left - 5:g}", y=at + 4, class_="y"))
    for tick in across.ticks:
        at = across(tick)
        parts.append(element("path", d=f"M{at:g} {bottom:g}v4", class_="axis"))
        parts.append(element("text", _number(tick), x=at, y=bottom + 16, class_="x"))
    parts.append(element("path", d=f"M{left:g} {bottom:g}H{right:g}", class_="axis"))
    parts.append(element("text", y.label, x=4, y=14, class_="label"))
    parts.append(element("text", x.label, x=right, y=HEIGHT - 6, class_="label end"))
    return parts


# -- series ----------------------------------------------------------------------------------------


def _draw(one: Series, across: _Scale, down: _Scale, lines: bool) -> Markup:
    places = [(across(x), down(y)) for x, y in one.points]
    parts = []
    if lines and len(places) > 1:
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
        parts.append(_line(one, path))
    if not one.reference and not (one.faint and len(places) > 1):
        parts += [_mark(one, *place) for place in _marked(places, one.style)]
    return element("g", parts, class_=_classes(one))


def _marked(places: list[tuple[float, float]], style: int) -> list[tuple[float, float]]:
    """Return the points with a marker: only a few of a long line, differing between styles."""
    if len(places) <= _MOST_MARKERS:
        return places
    step = len(places) / _MOST_MARKERS
    first = step * (0.3 + 0.4 * (style % 3) / 2)
    return [places[int(first + step * index)] for index in range(_MOST_MARKERS)]


def _classes(one: Series) -> str:
    colour = "reference" if one.reference else f"s{one.style % COLOURS}"
    return f"{colour} faint" if one.faint else colour


def _line(one: Series, path: str) -> Markup:
    dashes = "1 4" if one.reference else _DASHES[one.style % len(_DASHES)]
    # Dashes are not visible in a long, jagged line; markers distinguish it.
    if not one.reference and (one.faint or len(one.points) > _MOST_DASHED):
        dashes = None
    return element("path", d=path, class_="line", stroke_dasharray=dashes)


def _mark(one: Series, x: float, y: float) -> Markup:
    # When colours repeat, they are combined with other markers.
    marker = _MARKERS[(one.style + one.style // COLOURS) % len(_MARKERS)]
    return element("path", d=marker, transform=f"translate({x:g} {y:g})", class_="marker")


def _legend(series: Sequence[Series], lines: bool) -> Markup:
    entries = []
    for one in series:
        if one.faint:
            continue
        line = _line(one, "M1 7H33") if lines else None
        mark = None if one.reference else _mark(one, 17, 7)
        drawing = element("svg", line, mark, viewBox="0 0 34 14", aria_hidden="true")
        entries.append(element("li", drawing, element("bdi", one.name), class_=_classes(one)))
    return element("ul", entries, class_="legend")
