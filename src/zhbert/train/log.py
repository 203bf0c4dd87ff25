"""The logs of a training run: metrics.jsonl, TensorBoard, and a line of progress."""

from __future__ import annotations

import os
import shutil
import textwrap
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

from zhbert.errors import ZhbertError
from zhbert.files import atomic_file, describe_os_error, json_lines, to_json
from zhbert.terminal import escape_controls, unescaped
from zhbert.wording import how_to_install


class Sink(Protocol):
    """A receiver of log lines: a mapping for each optimiser step and for each evaluation."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Receive one line."""

    def close(self) -> None:
        """Finish."""


class MetricsFile:
    """metrics.jsonl: one JSON object per line, with unrounded floats, written without delay.

    Args:
        path: the file to append to.
        after: the step from which the run resumes. Lines of later steps are removed, as these
            steps are repeated. None: nothing is removed.
        say: called with a line if there are damaged lines.
    """

    def __init__(
        self, path: Path, after: int | None = None, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.path = path
        self.evaluated: frozenset[str] = frozenset()
        """The names of the evaluations of step ``after`` in the file."""
        if after is not None and path.exists():
            self.evaluated = cut_metrics(path, after, say)
        self._file = path.open("a", encoding="utf-8", newline="\n", buffering=1)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append one line; raise ZhbertError if the disk is full."""
        try:
            self._file.write(to_json(line) + "\n")
        except OSError as error:
            raise describe_os_error(error, f"writing {self.path}") from None

    def sync(self) -> None:
        """Flush to the disk, so that no checkpoint is newer than the log after a power cut."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def cut_metrics(path: Path, step: int, say: Callable[[str], None]) -> frozenset[str]:
    """Remove lines of later steps; return the names of the remaining evaluations of ``step``.

    The remaining lines are unchanged. A line without a step, or of a later step but before
    remaining lines, is damaged: it is moved to a separate file, and its number goes to ``say``.
    """
    last, evaluated = 0, set()
    for number, (_, entry) in enumerate(json_lines(path), 1):
        if entry and 0 <= _step_of(entry) <= step:
            last = number
            if entry["step"] == step and "evaluation" in entry:
                evaluated.add(str(entry["evaluation"]))
    damaged: dict[int, bytes] = {}
    with atomic_file(path) as temporary, temporary.open("wb") as kept:
        for number, (line, entry) in enumerate(json_lines(path), 1):
            whole = line.removesuffix(b"\n") + b"\n"
            at = _step_of(entry or {})
            if 0 <= at <= step:
                kept.write(whole)
            elif at < 0 or number < last:
                damaged[number] = whole
        if damaged:
            aside = path.with_suffix(".damaged.jsonl")
            with aside.open("ab") as file:
                file.writelines(damaged.values())
            numbers = ", ".join(map(str, damaged))
            say(f"{path}: damaged lines, kept in {aside.name}: {numbers}")
    return frozenset(evaluated)


def _step_of(entry: Mapping[str, Any]) -> int:
    """Return the step of a line; -1 if it has none."""
    step = entry.get("step")
    return step if type(step) is int else -1


class TensorBoard:
    """A sink that writes the same numbers as TensorBoard event files, in RUN/tensorboard."""

    def __init__(self, folder: Path, after: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = None if after is None else after + 1
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge)

    @staticmethod
    def check() -> None:
        """Raise ZhbertError if the library is missing; called before a run makes its folder."""
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError:
            raise ZhbertError(
                f"--tensorboard: tensorboard is not installed; {how_to_install('tensorboard')}"
            ) from None

    def write(self, line: Mapping[str, Any]) -> None:
        """Add every number of the line as a scalar."""
        group = f"evaluation-{line['evaluation']}" if "evaluation" in line else "train"
        for name, value in line.items():
            if name not in ("step", "evaluation") and isinstance(value, int | float):
                self._writer.add_scalar(f"{group}/{name}", value, line["step"])

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class ProgressLine:
    """A line of progress: updated in place on a terminal, elsewhere printed now and then.

    ``describe`` formats the line of an evaluation; the default is for pretraining.
    """

    LIVE_SECONDS = 0.2
    PLAIN_SECONDS = 15.0

    def __init__(
        self,
        stream: TextIO,
        first_step: int,
        last_step: int,
        describe: Callable[[Mapping[str, Any]], str] | None = None,
    ) -> None:
        """Set up the line; ``describe`` formats an evaluation (default: one of pretraining)."""
        # Control characters move the cursor here; those in the text are escaped.
        self.stream, self.last_step = unescaped(stream), last_step
        self._evaluation = describe or describe_evaluation
        self.live = stream.isatty()
        self._shown = 0.0 if self.live else time.monotonic() - self.PLAIN_SECONDS + 3.0
        self._width = len(str(last_step))
        self._recent: deque[tuple[float, int, int, float]] = deque(
            [(time.monotonic(), first_step, 0, 0.0)]
        )
        self._waited = 0.0
        self._open = False
        self._begun = False

    def write(self, line: Mapping[str, Any]) -> None:
        """Show a step or an evaluation."""
        if "evaluation" in line:
            self._line(self._evaluation(line))
            return
        now = time.monotonic()
        if not self._begun:
            # The speed does not count the first step, which compiles and warms up.
            self._begun = True
            self._recent = deque([(now, line["step"], line["pieces"], 0.0)])
        self._waited += line["data_wait"] * line["step_seconds"]
        self._recent.append((now, line["step"], line["pieces"], self._waited))
        while len(self._recent) > 2 and now - self._recent[0][0] > 30:
            self._recent.popleft()
        due = self.LIVE_SECONDS if self.live else self.PLAIN_SECONDS
        if now - self._shown >= due or line["step"] == self.last_step:
            self._shown = now
            self._line(self._describe(line), passing=self.live and line["step"] != self.last_step)

    def say(self, text: str) -> None:
        """Print a remark on a separate line."""
        self._line(text)

    def close(self) -> None:
        """Leave the cursor on a fresh line."""
        if self._open:
            self.stream.write("\n")
            self.stream.flush()
            self._open = False

    def _describe(self, line: Mapping[str, Any]) -> str:
        start, end = self._recent[0], self._recent[-1]
        seconds, steps = end[0] - start[0], end[1] - start[1]
        parts = [f"step {line['step']:>{self._width}}/{self.last_step}", f"loss {line['loss']:.3f}"]
        if steps and seconds > 0:
            parts.append(f"{count((end[2] - start[2]) / seconds)} pieces/s")
            parts.append(f"data wait {(end[3] - start[3]) / seconds:.0%}")
            parts.append(f"{duration((self.last_step - line['step']) * seconds / steps)} left")
        return "  ".join(parts)

    def _line(self, text: str, passing: bool = False) -> None:
        text = escape_controls(text)
        if not self.live:
            self.stream.write(text + "\n")
        else:
            columns = shutil.get_terminal_size().columns - 1
            # A permanent line is wrapped between words; a line to be overwritten must be one line.
            lines = [text[:columns]] if passing else textwrap.wrap(text, columns) or [""]
            self.stream.write("\r\x1b[K" + "\n".join(lines) + ("" if passing else "\n"))
            self._open = passing
        self.stream.flush()


def describe_evaluation(line: Mapping[str, Any]) -> str:
    """Format an evaluation of pretraining.

    >>> describe_evaluation({"step": 9, "evaluation": "wwm", "masked_lm_accuracy": 0.25,
    ...     "masked_lm_loss": 5.5, "baseline_accuracy": 0.05, "next_sentence_accuracy": None})
    'step 9  held out, wwm masks: accuracy 25.00 % (commonest piece: 5.00 %), loss 5.500'
    """
    text = f"step {line['step']}  held out, {line['evaluation']} masks: "
    if line["masked_lm_accuracy"] is None:
        return text + "nothing to predict"
    text += f"accuracy {line['masked_lm_accuracy'] * 100:.2f} %"
    if line.get("baseline_accuracy") is not None:
        text += f" (commonest piece: {line['baseline_accuracy'] * 100:.2f} %)"
    text += f", loss {line['masked_lm_loss']:.3f}"
    if line.get("next_sentence_accuracy") is not None:
        text += f", pairs {line['next_sentence_accuracy'] * 100:.1f} %"
    return text


def count(number: float) -> str:
    """Format a number, rounded.

    >>> count(950), count(31_415), count(2_718_281)
    ('950', '31.4k', '2.72M')
    """
    if number < 1000:
        return f"{number:.0f}"
    if number < 1e6:
        return f"{number / 1e3:.3g}k" if number < 999_500 else "1.00M"
    return f"{number / 1e6:.3g}M" if number < 1e9 else f"{number / 1e9:.3g}G"


def duration(seconds: float) -> str:
    """Format a time span.

    >>> duration(42), duration(625), duration(7300), duration(216000)
    ('42 s', '10 min 25 s', '2 h 01 min', '2 days 12 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole >= 48 * 3600:
        return f"{whole // 86400:,} days {whole % 86400 // 3600} h"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
