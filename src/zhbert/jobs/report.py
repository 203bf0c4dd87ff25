"""Report on runs: print tables, and write Markdown, CSV and HTML with figures.

  zhbert report runs/lcqmc-wwm runs/lcqmc-char --out report
  zhbert report runs/*-wwm runs/*-char --base char --out report
  zhbert report runs/wwm runs/char --out curves --overwrite

A RUN is a folder written by 'zhbert finetune' or 'zhbert pretrain', finished or
not. Scores are shown as "maximum (mean)" over the seeds, with published scores
on the same split, and as shares of a base model's scores. --base selects that
model, one of the runs' or a published one ("RoBERTa-wwm-ext"), and adds the
differences from it, tested by a paired bootstrap. A distilled run is shown beside
its teacher and the student alone if their runs are given, too: how much of the
gap is closed. report.html needs no network.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from zhbert.report.build import Report
    from zhbert.report.runs import PretrainingRun
    from zhbert.tasks.bootstrap import PairedComparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the folder to write"
    )
    parser.add_argument(
        "--base", metavar="MODEL", help="compare the others with this model (default: the first)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a report in DIR")


def run(args: argparse.Namespace) -> int:
    """Read the runs, write the report and print the scores."""
    from zhbert import console
    from zhbert.report.build import gather
    from zhbert.report.write import as_data, check_out, write_report

    check_out(args.out, overwrite=args.overwrite)
    with console.progress(args.quiet or args.json) as progress:
        progress.add_task("reading runs", total=None)
        report = gather(args.runs, args.base)
        files = write_report(report, args.out, overwrite=args.overwrite)
    if args.json:
        console.print_json(as_data(report, files))
    else:
        _print(report, files, args.quiet)
    return 0


def _print(report: Report, files: list[Path], quiet: bool) -> None:
    from zhbert import console

    out = console.out()
    if report.table.rows:
        out.print(_scores(report))
    if report.relative:
        out.print(f"base: {report.relative.base.name}")
    if report.differences:
        out.print("* larger than the noise: the 95 % interval (paired bootstrap) leaves out 0")
    if report.distillations:
        out.print(_distillations(report))
    for one in report.pretraining:
        out.print(_pretraining_line(one))
    for run in report.runs:
        for remark in run.remarks:
            out.print(f"{run.folder}: {remark}")
    out.print(f"written: {', '.join(map(str, files))}")
    if not quiet:
        for note in report.table.notes:
            console.err().print(note)


def _scores(report: Report) -> Table:
    """Return the runs' scores as a table, with a row for each metric of a task and each model."""
    from zhbert import console
    from zhbert.report.numbers import score_text, share_text

    relative = report.relative
    rows = relative.rows if relative else ()
    shares = {row.row.model: row for row in rows if not row.row.source}
    verdicts = {(one.task, one.model): one for one in report.differences}
    headings = ["=task", "model", ">max (mean)", ">±", ">seeds"]
    headings += [">% of\nbase's"] * bool(relative) + [">less\nbase's"] * bool(verdicts)
    table = console.table(*headings)
    table.columns[1].min_width = min(16, max(len(row.model) for row in report.table.ours))
    for column in report.table.columns:
        name = f"{column.task} {column.key}"
        for row in report.table.ours:
            score = row.scores.get(column)
            if score is None:
                continue
            cells = [name, row.model, score_text(score)]
            cells += ["" if score.std is None else f"{score.std:.2f}", str(score.seeds)]
            if relative:
                share = shares[row.model].shares.get(column) if row.model in shares else None
                cells.append(share_text(share))
            one = verdicts.get((column.task, row.model))
            if one and one.metric == column.key:
                cells.append(_verdict(one.result))
            table.add_row(*cells)
            name = ""
    if relative and len(relative.columns) > 1:
        _add_means(table, "mean, all tasks", {m: row.mean for m, row in shares.items()})
        of_classification = {m: row.mean_of_classification for m, row in shares.items()}
        _add_means(table, "mean, classification", of_classification)
    return table


def _distillations(report: Report) -> Table:
    """Return distilled students beside their teachers and the same students alone."""
    from zhbert import console
    from zhbert.report.tables import distillation

    of = distillation(report.distillations)
    table = console.table(
        "task", "student", ">teacher", ">distilled", ">alone", ">less\nalone", ">gap\nclosed"
    )
    for name, lines in of.groups.items():
        for line in lines:
            teacher, distilled, alone, less, _, _, closed = (cell.text for cell in line.cells)
            table.add_row(name, line.name, teacher, distilled, alone, less, closed)
    return table


def _add_means(table: Table, label: str, means: Mapping[str, float | None]) -> None:
    from zhbert.report.numbers import share_text

    for model, mean in means.items():
        if mean is not None:
            table.add_row(label, model, "", "", "", share_text(mean), style="bold")
            label = ""


def _verdict(result: PairedComparison | None) -> str:
    from zhbert.report.numbers import MISSING

    if result is None:
        return MISSING
    return f"{result.difference:+.2f}{'*' if result.is_larger_than_noise else ' '}"


def _pretraining_line(run: PretrainingRun) -> str:
    from zhbert.report.numbers import count_text, duration_text

    parts = [f"{run.name}: step {run.last_step:,}"]
    if run.last_loss is not None:
        parts.append(f"loss {run.last_loss:.3f}")
    for name, evaluations in run.evaluations.items():
        if evaluations[-1].accuracy is not None:
            parts.append(f"{name} {evaluations[-1].accuracy:.2%}")
    parts.append(f"{count_text(run.pieces)} pieces in {duration_text(run.seconds)}")
    return ", ".join(parts)
