"""Writing of a report: report.md, report.csv and report.html, or plain data for JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from zhbert.files import atomic_folder
from zhbert.folders import Claim
from zhbert.report import tables
from zhbert.report.build import Report
from zhbert.report.comparison import ScoreDifference, mean_of
from zhbert.report.markup import clean
from zhbert.report.page import page
from zhbert.report.scores import ScoreRecord, records
from zhbert.report.tables import Cell, Table
from zhbert.spreadsheets import to_cell

FILES = ("report.md", "report.csv", "report.html")

_SPECIAL = re.compile(r"[\\`*\[\]<>|~#&$]|(?<![^\W_])_|_(?![^\W_])")


def write_report(report: Report, out: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the three files into the folder ``out`` and return them.

    Raises ZhbertError if ``out`` exists and is not a report, or is one and not ``overwrite``.
    """
    check_out(out, overwrite=overwrite)
    texts = dict(zip(FILES, (markdown(report), comma_separated(report), page(report)), strict=True))
    with atomic_folder(out, replace=overwrite) as folder:
        for name, text in texts.items():
            # newline="": the lines of report.csv end in CR LF, as RFC 4180 says.
            (folder / name).write_text(text, encoding="utf-8", newline="")
    return [out / name for name in FILES]


def check_out(out: Path, *, overwrite: bool) -> None:
    """Raise ZhbertError if a report cannot be written to ``out``."""

    def is_report(folder: Path) -> bool:
        return {path.name for path in folder.iterdir()} <= set(FILES)

    Claim(folder=out, what="a report", is_ours=is_report, overwrite=overwrite).check()


# -- JSON ------------------------------------------------------------------------------------------


def as_data(report: Report, files: Sequence[Path]) -> dict[str, Any]:
    """Return the report as plain data; ``files`` are its written files."""
    relative = report.relative
    return {
        "files": [str(file) for file in files],
        "scores": [dataclasses.asdict(record) for record in records(report.table)],
        "notes": list(report.table.notes),
        "base": report.base.name if report.base else None,
        "relative": [
            {
                "model": row.row.name,
                "mean": row.mean,
                "mean_of_classification": row.mean_of_classification,
                "shares": [
                    {"task": column.task, "metric": column.key, "share": share}
                    for column, share in row.shares.items()
                ],
            }
            for row in (relative.rows if relative else ())
        ],
        "differences": [
            {name: getattr(one, name) for name in ("task", "metric", "model", "base")}
            | _difference(one)
            for one in report.differences
        ],
        "distillations": [
            {
                "task": one.student.task,
                "metric": one.student.main_metric,
                "run": str(one.student.folder),
                "teacher": one.teacher,
                "teacher_score": one.taught,
                "distilled": mean_of(one.student),
                "alone": mean_of(one.alone) if one.alone else None,
                "alone_run": str(one.alone.folder) if one.alone else None,
                "gap_closed": one.closed,
                **(_difference(one.difference) if one.difference else {}),
            }
            for one in report.distillations
        ],
        "runs": [
            {"folder": str(run.folder), "finished": run.finished, "remarks": list(run.remarks)}
            for run in report.runs
        ],
    }


def _difference(one: ScoreDifference) -> dict[str, Any]:
    return {
        **(dataclasses.asdict(one.result) if one.result else {"why_not": one.why_not}),
        "larger_than_noise": one.result.is_larger_than_noise if one.result else None,
    }


# -- CSV -------------------------------------------------------------------------------------------


def comma_separated(report: Report) -> str:
    """Return the text of report.csv: a line for each score, with all digits."""
    names = [item.name for item in dataclasses.fields(ScoreRecord)]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    for record in records(report.table):
        values = (getattr(record, name) for name in names)
        writer.writerow(
            to_cell(clean(value)) if isinstance(value, str) else value for value in values
        )
    return text.getvalue()


# -- Markdown --------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """Return the text of report.md: the tables, and notes on scores that cannot be compared."""
    parts = ["# Report 报告"]

    for title, table in tables.sections(report).items():
        parts += [f"## {title}", table_text(table)]
        if title == tables.SCORES and (notes := [*report.table.notes, *report.table.about]):
            parts.append("\n".join(f"- {escape(note)}" for note in notes))
    remarks = [
        f"- {escape(str(run.folder))}: {escape(remark)}"
        for run in report.runs
        for remark in run.remarks
    ]
    if remarks:
        parts += ["## Unfinished or incomplete 未完成", "\n".join(remarks)]
    return "\n\n".join(parts) + "\n"


def table_text(table: Table) -> str:
    """Return a table with its caption, in Markdown."""
    rules = [
        ":---",
        *(":---" if n in table.texts else "---:" for n in range(len(table.headings) - 1)),
    ]
    lines = [_row(map(_cell, table.headings)), _row(rules)]
    for name, rows in table.groups.items():
        if name:
            lines.append(_row([f"*{escape(name)}*", *[""] * (len(table.headings) - 1)]))
        for line in rows:
            lines.append(_row([escape(line.name), *map(_cell, line.cells)]))
    return f"{escape(table.caption)}\n\n" + "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    if not cell.below:
        return text
    return f"{text}{', ' if cell.below[0].isdigit() else ' '}{escape(cell.below)}"


def escape(text: str) -> str:
    r"""Escape a text for Markdown and put it on one line.

    >>> print(escape("a_b <b>|*x*"))
    a_b \<b\>\|\*x\*
    """
    return _SPECIAL.sub(lambda found: "\\" + found.group(), " ".join(clean(text).split()))
