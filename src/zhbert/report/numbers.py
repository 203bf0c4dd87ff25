"""Formatting of numbers, the same in all formats of a report."""

from __future__ import annotations

from zhbert.report.scores import Score
from zhbert.train.log import duration
from zhbert.wording import counted

MISSING = "–"


def score_text(score: Score | None) -> str:
    """Format maximum (mean) in per cent; published scores keep their number of decimals.

    >>> score_text(Score(85.0, 84.6)), score_text(Score(89.4, 89.2, seeds=3)), score_text(None)
    ('85.0 (84.6)', '89.40 (89.20)', '–')
    """
    if score is None:
        return MISSING
    printed = (score.max, score.mean or 0.0)
    few = score.seeds is None and printed == tuple(round(figure, 1) for figure in printed)
    decimals = ".1f" if few else ".2f"
    mean = "" if score.mean is None else f" ({score.mean:{decimals}})"
    return (
        f"{score.max:{decimals}}{mean}{'†' if score.elsewhere else ''}{'*' if score.note else ''}"
    )


def spread_text(score: Score | None, *, seeds: bool = True) -> str:
    """Format the standard deviation and, unless ``seeds`` is false, the number of seeds.

    >>> spread_text(Score(84.25, 83.5, 0.618, 3)), spread_text(Score(84.25, 84.25, None, 1))
    ('± 0.62, 3 seeds', '1 seed')
    """
    if score is None or score.seeds is None:
        return ""
    parts = [] if score.std is None else [f"± {score.std:.2f}"]
    return ", ".join([*parts, *([counted(score.seeds, "seed")] if seeds else [])])


def share_text(share: float | None) -> str:
    """Format a share in per cent.

    >>> share_text(97.349), share_text(None)
    ('97.3', '–')
    """
    return MISSING if share is None else f"{share:.1f}"


def count_text(number: float | None) -> str:
    """Format a large number, rounded.

    >>> count_text(950.4), count_text(31_415), count_text(2_718_281), count_text(None)
    ('950', '31.4k', '2.72M', '–')
    """
    if number is None:
        return MISSING
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit * 0.9995:
            scaled = number / unit
            return f"{scaled:.{max(0, 2 - len(str(int(abs(scaled)))) + 1)}f}{letter}"
    return f"{number:.0f}"


def duration_text(seconds: float | None) -> str:
    """Format a duration.

    >>> duration_text(42), duration_text(625), duration_text(7300), duration_text(None)
    ('42 s', '10 min 25 s', '2 h 01 min', '–')
    """
    if seconds is None:
        return MISSING
    return duration(seconds)
