"""Reading a task's files: examples, inputs to predict, and predictions.

All values are checked while they are read; an error is one line that names file and line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from zhbert.data.sources import check_encoding
from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error
from zhbert.schema import suggest
from zhbert.tasks.card import TaskCard
from zhbert.tasks.examples import Example, Remark, Value
from zhbert.tasks.kinds import KINDS, Kind
from zhbert.tasks.predictions import PredictionFile
from zhbert.tasks.sources import Source, as_text


def read_examples(
    card: TaskCard,
    data: Path | None,
    split: str,
    *,
    labelled: bool = True,
    remark: Remark = lambda line: None,
) -> list[Example]:
    """Return the checked examples of a split; ``data`` is a file, a folder or None (the card's).

    Raises ZhbertError for an unknown label, a missing column, an empty file and so on.
    """
    path = data_file(card, data, split)
    examples = list(iterate_examples(card, path, split=split, labelled=labelled, remark=remark))
    if not examples:
        raise ZhbertError(f"{path}: no examples: the {split} set of {card.name} is empty")
    return examples


def read_to_score(
    card: TaskCard, path: Path, split: str, *, remark: Remark = lambda line: None
) -> tuple[list[Example], dict[str, Path]]:
    """Return the examples of a split in the form in which a model is scored on them.

    For search, that is with the passages of the splits in ``data.haystack``, whose files are looked
    for beside ``path`` and returned, too. Raises ZhbertError as `read_examples` does.
    """
    examples = read_examples(card, path, split, remark=remark)
    others = [other for other in card.data.haystack if other != split]
    files = {other: data_file(card, path.parent, other) for other in others}
    further = {other: read_examples(card, file, other) for other, file in files.items()}
    return KINDS[card.kind].in_haystack(examples, further) if files else examples, files


def iterate_examples(
    card: TaskCard,
    path: Source,
    *,
    split: str | None = None,
    labelled: bool = True,
    remark: Remark = lambda line: None,
) -> Iterator[Example]:
    """Yield examples with only one in memory at a time, except from SQuAD's JSON.

    Unless ``labelled``, labels may be missing, are not checked and never cause a row to be skipped.
    A ``split`` is required if the card names a ``split_column``.
    """
    try:
        source = as_text(path, card.data.encoding)
        yield from KINDS[card.kind].examples(card, source, split, labelled=labelled, remark=remark)
    except OSError as error:
        raise describe_os_error(error, "reading") from None


def read_inputs(
    kind: Kind,
    card: TaskCard | None,
    labels: Sequence[str],
    source: Source,
    *,
    encoding: str | None = None,
    remark: Remark = lambda line: None,
) -> Iterator[Example]:
    """Yield the examples of a file or of stdin that a model predicts for.

    Args:
        kind: the model's kind.
        card: the model's task; None if another program fine-tuned the model.
        labels: the model's labels.
        source: the file or stdin.
        encoding: the file's encoding; None: UTF-8.
        remark: called with a line for people about what was left out.

    Raises:
        ZhbertError: something does not fit the model; names file and line.
    """
    check_encoding(encoding)
    try:
        yield from kind.read_inputs(card, labels, as_text(source, encoding), remark)
    except OSError as error:
        raise describe_os_error(error, "reading") from None


def read_predictions(
    card: TaskCard,
    path: Path,
    examples: Sequence[Example],
    gold: Path,
    split: str,
    remark: Remark = lambda line: None,
) -> dict[str, Value]:
    """Return predictions by their examples' ids; ``gold`` is the file of the ``examples``.

    Raises ZhbertError with file and line if the file is not one of predictions for this task.
    """

    def every_example() -> list[Example]:
        return read_examples(card, gold, split, labelled=False)

    file = PredictionFile(card, path, examples, gold, every_example, remark)
    found = KINDS[card.kind].read_predictions(file)
    if not found.keys() & {example.id for example in examples}:
        of = "its only id is not" if len(found) == 1 else f"none of its {len(found):,} ids is"
        raise ZhbertError(f"{path}: {of} in {gold}; is it for another file?")
    return found


def data_file(card: TaskCard, data: Path | None, split: str) -> Path:
    """Return the file of a split; raise ZhbertError, with the names tried, if there is none."""
    names = card.files_of(split)
    if data is not None and data.is_file():
        return data
    if names is None:
        raise ZhbertError(
            f"{card.name}: the card names no file for '{split}'{suggest(split, card.data.splits)}"
        )
    folder = _folder(card, data)
    found = find_file(card, data, split)
    if found is None:
        raise ZhbertError(
            f"{folder}: no {split} file of {card.name} there; looked for {', '.join(names)}, also "
            f"in {card.data.folder or card.name}/"
        )
    return found


def find_file(card: TaskCard, data: Path | None, split: str) -> Path | None:
    """Return a split's file in a folder, or in the task's own folder there, or None.

    ``data`` None means the folder of the card itself.
    """
    folder = _folder(card, data)
    for place in ("", card.data.folder, card.name):
        for name in card.files_of(split) or ():
            if (folder / place / name).is_file():
                return folder / place / name
    return None


def _folder(card: TaskCard, data: Path | None) -> Path:
    if data is None:
        if card.ships:
            raise ZhbertError(
                f"{card.name}: its examples are not part of zhbert; say where they are: --data DIR"
            )
        return card.path.parent
    if not data.is_dir():
        what = "no such file or folder"
        if data.exists():
            what = "neither a file nor a folder: save as a file what comes from it"
        raise ZhbertError(f"{data}: {what}")
    return data
