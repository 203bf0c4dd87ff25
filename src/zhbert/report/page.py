"""The page report.html: a single file without scripts that needs no network."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from importlib import resources
from string import Template

from zhbert import __version__
from zhbert.report import figures, tables
from zhbert.report.build import Report
from zhbert.report.markup import Child, Markup, element, escape, join
from zhbert.report.mistakes import (
    Confusion,
    best_seed,
    confusion,
    predictions_of,
    worst_mistakes,
)
from zhbert.report.numbers import share_text
from zhbert.report.runs import FineTuningRun
from zhbert.report.tables import Cell, Table
from zhbert.tasks.kinds.base import Mistake
from zhbert.tasks.kinds.tag import NOT_FOUND
from zhbert.wording import counted


def page(report: Report) -> str:
    """Return the HTML document."""
    numbers = itertools.count(1)
    found = tables.sections(report)
    beneath = {title: _beneath(title, report, numbers) for title in found}
    sections = [
        *((title, join([_table(table), beneath[title]])) for title, table in found.items()),
        *_tasks(report, numbers),
        _runs(report),
    ]
    links = [(f"section-{place}", title) for place, (title, _) in enumerate(sections, start=1)]
    body = [
        element("h1", "Report 报告"),
        element("p", _introduction(report), class_="note"),
        element(
            "nav",
            [element("a", title, href=f"#{id_}") for id_, title in links],
            aria_label="Contents",
        ),
        element(
            "main",
            [
                element("section", element("h2", title, id=id_), content)
                for (id_, title), (_, content) in zip(links, sections, strict=True)
            ],
        ),
    ]
    assets = resources.files("zhbert") / "assets"
    frame, style = (
        (assets / f"report.{end}").read_text(encoding="utf-8") for end in ("html", "css")
    )
    return Template(frame).substitute(title=escape(_title(report)), style=style, body=join(body))


_Section = tuple[str, Markup]


def _title(report: Report) -> str:
    names = list(report.styles)
    return "zhbert report: " + ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


def _introduction(report: Report) -> str:
    fine_tuning, pretraining = report.fine_tuning, report.pretraining
    parts = []
    if fine_tuning:
        models = len({run.model_key for run in fine_tuning})
        parts.append(
            f"Fine-tuning: {counted(models, 'model')}, {counted(len(report.tasks), 'task')}"
        )
        parts.append(counted(len(fine_tuning), "run"))
    if pretraining:
        parts.append(f"{counted(len(pretraining), 'pretraining run')}")
    return f"{', '.join(parts)}. zhbert {__version__}."


# -- sections --------------------------------------------------------------------------------------


def _beneath(title: str, report: Report, numbers: Iterator[int]) -> Markup | None:
    """Return what stands below a section's table: notes or charts."""
    if title == tables.SCORES:
        scores = (score for row in report.table.rows for score in row.scores.values())
        starred = sorted({f"* {score.note}" for score in scores if score.note})
        return _notes([*report.table.notes, *report.table.about, *starred])
    charts: Child = None
    if title == tables.COSTS:
        base = report.base if report.base and report.base.runs else report.table.ours[0]
        charts = figures.size_chart(report.table, base, report.styles, numbers)
    if title == tables.PRETRAINING:
        charts = figures.pretraining_charts(report.pretraining, report.styles, numbers)
    return element("div", charts, class_="charts") if charts else None


def _tasks(report: Report, numbers: Iterator[int]) -> Iterator[_Section]:
    for task, runs in report.tasks.items():
        found = [(run, *_mistakes(run)) for run in runs]
        elsewhere = report.scored_elsewhere(task)
        scores = figures.fine_tuning_chart(runs, report.styles, elsewhere, numbers)
        losses = [figures.loss_chart(run.model, run.losses, numbers) for run in runs]
        matrices = [_matrix(run, matrix) for run, matrix, _, _ in found if matrix]
        parts = [
            element("p", runs[0].title),
            element("div", scores, losses, matrices, class_="charts"),
        ]
        if matrices:
            reading = _reading(any(NOT_FOUND in m.labels for _, m, _, _ in found if m))
            parts.append(element("p", reading, class_="note"))
        parts += [_table(grid) for run in runs if (grid := tables.grid(run))]
        parts += [_worst(run, seed, worst) for run, _, seed, worst in found if worst]
        yield task, join(parts)


def _reading(of_entities: bool) -> str:
    text = (
        "Matrices: correct classes in rows, predicted ones in columns; per cent of a row, and "
        "below it the number, over all seeds."
    )
    if of_entities:
        text += (
            f" {NOT_FOUND} means that no entity has the same boundaries: it was missed or made up."
        )
    return text


def _mistakes(run: FineTuningRun) -> tuple[Confusion | None, int | None, list[Mistake]]:
    """Return a run's confusion matrix, its best seed and that seed's worst mistakes."""
    seed = best_seed(run)
    lines = [] if seed is None else predictions_of(run, seed)
    others = (lines if one == seed else predictions_of(run, one) for one in run.seeds)
    return confusion(run, others), seed, worst_mistakes(run, lines)


def _runs(report: Report) -> _Section:
    items = []
    for run in report.runs:
        state = "finished" if run.finished else "unfinished"
        remarks = "; ".join(run.remarks) or state
        items.append(element("li", element("code", str(run.folder)), f": {remarks}"))
    return "Runs 运行", element("ul", items, class_="notes")


# -- parts -----------------------------------------------------------------------------------------


def _table(table: Table) -> Markup:
    def cell(content: Cell) -> Child:
        return [
            element("bdi", content.text),
            element("small", content.below) if content.below else None,
        ]

    width = len(table.headings)
    head = element(
        "tr",
        [
            element(
                "th",
                cell(one),
                scope="col",
                class_="word" if place == 0 or place - 1 in table.texts else None,
            )
            for place, one in enumerate(table.headings)
        ],
    )
    bodies = []
    for name, lines in table.groups.items():
        rows = []
        if name:
            rows.append(element("tr", element("th", name, scope="rowgroup", colspan=width)))
        for line in lines:
            cells = [
                element("td", cell(one), class_="word" if place in table.texts else None)
                for place, one in enumerate(line.cells)
            ]
            name_cell = element("th", element("bdi", line.name), scope="row")
            rows.append(element("tr", name_cell, cells, class_="base" if line.base else None))
        bodies.append(element("tbody", rows))
    # The caption is outside the box: a <caption> would be scrolled with the columns.
    return join(
        [
            element("p", table.caption, class_="note"),
            _box(element("table", element("thead", head), bodies), table.caption),
        ]
    )


def _box(table: Markup, label: str) -> Markup:
    """Wrap a wide table in a box that scrolls, also by keyboard (tabindex)."""
    return element("div", table, class_="box", tabindex="0", role="region", aria_label=label)


def _matrix(run: FineTuningRun, matrix: Confusion) -> Markup:
    what = matrix.class_name
    caption = f"{run.model}: which {what} for which"
    rows = [
        element(
            "tr",
            element("th", element("bdi", label), scope="row"),
            [_matrix_cell(matrix, right, predicted) for predicted in range(len(matrix.labels))],
        )
        for right, label in enumerate(matrix.labels)
    ]
    head = element(
        "tr",
        element("td", ""),
        [element("th", element("bdi", label), scope="col") for label in matrix.labels],
    )
    table = element("table", element("thead", head), element("tbody", rows), class_="matrix")
    return element(
        "figure",
        element("figcaption", f"{caption} 混淆矩阵 ({counted(len(run.seeds), 'seed')})"),
        _box(table, caption),
        class_="wide" if len(matrix.labels) > 6 else None,
    )


def _matrix_cell(matrix: Confusion, right: int, predicted: int) -> Markup:
    share, count = matrix.share(right, predicted), matrix.counts[right][predicted]
    content = [share_text(100 * share), element("small", f"{count:,}")] if count else None
    return element(
        "td",
        content,
        style=f"--share:{share:.3f}",
        class_="right" if right == predicted and matrix.labels[right] != NOT_FOUND else None,
    )


def _worst(run: FineTuningRun, seed: int | None, mistakes: Sequence[Mistake]) -> Markup:
    title = f"{run.model}: the worst mistakes 最严重的错误 (seed {seed})"
    rows = [
        element(
            "tr",
            element("td", [element("bdi", text) for text in one.texts], class_="text long"),
            element("td", element("bdi", one.right), class_="text"),
            element("td", element("bdi", one.predicted), class_="text"),
            element("td", one.how_wrong),
        )
        for one in mistakes
    ]
    head = element(
        "tr",
        [
            element("th", name, scope="col", class_="text" if name != "measure" else None)
            for name in ("text", "right", "predicted", "measure")
        ],
    )
    table = element(
        "table",
        element("thead", head),
        # The language selects the variant of Han characters that is drawn.
        element("tbody", rows, lang=run.card.language if run.card else None),
    )
    return element("details", element("summary", title), _box(table, title))


def _notes(notes: Sequence[str]) -> Markup | None:
    if not notes:
        return None
    return element("ul", [element("li", note) for note in notes], class_="notes")
