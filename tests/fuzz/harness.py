"""One damaged file after the other for one reader: each ends in a result or in one clear line."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.mutate import mutate

from zhbert.errors import ZhbertError

SECONDS = 20
"""No reading of a small file may take longer."""
MEMORY = 1 << 30
"""Bytes that the process may grow by over a whole round of files."""
_LONGEST_LINE = 2_000


@dataclass(frozen=True)
class Reader:
    """What is read: ``make`` writes the intact files, ``read`` reads all of it.

    ``damage`` are patterns of the files that are damaged, one at a time. ``share`` of the files
    that are asked for are enough where reading one takes long.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], object]
    damage: tuple[str, ...] = ("*",)
    share: float = 1


@dataclass(frozen=True)
class Finding:
    """A damaged file that ended in something else than a result or one line."""

    reader: str
    seed: int
    number: int
    file: str
    trouble: str

    def __str__(self) -> str:
        return (
            f"{self.reader}: {self.trouble}\n    {self.file}; again: make fuzz "
            f"READER={self.reader} SEED={self.seed} FIRST={self.number} NUMBER=1"
        )


class _TooSlowError(BaseException):
    """Not an Exception: no reader may take it for damage."""


def attack(
    name: str,
    reader: Reader,
    folder: Path,
    *,
    seed: int,
    numbers: range,
    before: Callable[[int], None] = lambda number: None,
) -> Iterator[Finding]:
    """Damage ``reader``'s files in one way for each of ``numbers``, in ``folder``.

    The same seed and number damage the same file in the same way. ``before`` is told each number:
    after a crash the last one it heard is to blame.
    """
    intact = folder / "intact"
    intact.mkdir(parents=True)
    reader.make(intact)
    files = sorted(
        path.relative_to(intact)
        for pattern in reader.damage
        for path in intact.glob(pattern)
        if path.is_file()
    )
    assert files, f"{name}: nothing to damage"
    place = folder / "place"
    shutil.copytree(intact, place)
    assert (trouble := _trouble(reader, place, intact=True)) is None, f"{name}: {trouble}"
    there = _names(intact)
    with _bounded_memory():
        for number in numbers:
            before(number)
            rng = random.Random(f"{name} {seed} {number}")
            file = rng.choice(files)
            (place / file).write_bytes(mutate((intact / file).read_bytes(), rng))
            trouble = _trouble(reader, place)
            left = _names(place) != there
            if trouble is None and left:
                trouble = "something was left behind"
            if trouble is not None:
                yield Finding(name, seed, number, str(file), trouble)
            if left:
                shutil.rmtree(place)
                shutil.copytree(intact, place)
            shutil.copyfile(intact / file, place / file)


def _names(folder: Path) -> list[str]:
    """Everything below a folder."""
    return sorted(
        f"{place.removeprefix(str(folder))}/{name}"
        for place, folders, files in os.walk(folder)
        for name in (*folders, *files)
    )


def _trouble(reader: Reader, place: Path, *, intact: bool = False) -> str | None:
    """What is wrong with the way in which reading ended; None for nothing."""

    def late(*_: object) -> None:
        raise _TooSlowError

    former = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(place)
    except ZhbertError as error:
        return f"refused: {error}" if intact else _trouble_of_line(str(error))
    except _TooSlowError:
        return f"still not done after {SECONDS} seconds"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return _where(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    return None


def _where(error: BaseException) -> str:
    """An exception and the last place of ours that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/zhbert/" in frame.filename] or list(frames)
    place = ours[-1]
    said = " ".join(str(error).split())[:200]
    file = place.filename.rpartition("/zhbert/")[2]
    return f"{type(error).__name__}: {said} ({file}:{place.lineno} in {place.name})"


def _trouble_of_line(line: str) -> str | None:
    strange = {
        f"U+{ord(one):04X}"
        for one in line
        if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") or one in "\u202a\u202e\u2066"
    }
    if strange:
        return f"the line holds {', '.join(sorted(strange))}: {line[:300]!r}"
    if len(line) > _LONGEST_LINE:
        return f"a line of {len(line):,} characters: {line[:200]}…"
    return None if line else "an empty line"


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Nothing in here can make the process much larger: it is refused memory instead."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
