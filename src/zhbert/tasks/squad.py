"""Questions in the JSON of SQuAD and related formats, or in rows with one question each.

The files of SQuAD, CMRC 2018 (also its first form), DRCD and CJRC contain articles, paragraphs and
questions. Files that the datasets library makes of them with ``to_json`` contain an object with id,
context, question and answers per line, or a list of such objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import parse_json
from zhbert.tasks.offsets import whole_number
from zhbert.tasks.sources import (
    Source,
    first_line,
    first_of,
    head,
    json_object,
    json_records,
    scalar,
    whole_text,
)
from zhbert.wording import listed, name, shortly

_ID, _QUESTION = ("id", "query_id", "qid"), ("question", "query_text", "query")
_CONTEXT, _ANSWERS = ("context", "context_text"), ("answers", "answer")
_TRUE = (True, "true", "True", "TRUE", "1")


@dataclass(frozen=True)
class SquadQuestion:
    """A question as it was read from a file."""

    id: str
    text: str
    context: str
    answers: list[tuple[str, int]] | None
    """Each answer with its begin in the file (-1: not given); None: the file has no answers."""
    domain: str | None
    marked_impossible: bool
    """True if the file marks the question as having no answer, besides its list of answers."""
    where: str
    """File and question, for errors."""


def questions(path: Source, *, labelled: bool = True) -> Iterator[SquadQuestion]:
    """Yield the questions of a file, without answers unless ``labelled``.

    JSON lines are read one at a time; other files are read whole.
    """
    number = 0
    for where, table in _tables(path):
        for domain, context, question, at in _questions(table, where):
            given = first_of(question, _ID)
            if given is None and question is not table:
                given = _first({k: v for k, v in question.items() if v is not None}, _ID,
                               f"{at}: a question")  # fmt: skip
            # Rows with one question each may lack ids: their numbers are used.
            identity = str(number) if given is None else scalar(given, f"{at}: a question's id")
            number += 1
            at = f"{at}: question '{name(identity)}'"
            text, context = question_of({**question, _CONTEXT[0]: context}, at)
            given = first_of(question, _ANSWERS)
            answers = _answers(given, at) if labelled and given is not None else None
            impossible = question.get("is_impossible") in _TRUE
            yield SquadQuestion(identity, text, context, answers, domain, impossible, at)


def question_of(table: Mapping[Any, Any], where: str) -> tuple[str, str]:
    """Return a question and its context; raise ZhbertError if one of them is missing or no text."""
    found = {names[0]: _first(table, names, where) for names in (_QUESTION, _CONTEXT)}
    for what, value in found.items():
        if not isinstance(value, str):
            raise ZhbertError(f"{where}: {what} = {shortly(value)}: must be a text")
    question, context = found.values()
    return question, context


def _tables(path: Source) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield articles, paragraphs or questions, with the file and, for JSON lines, the line."""
    record = json_object(first_line(path))
    rows = path.name.lower().endswith(".jsonl") or len(head(path, 2)) > 1
    if record is not None and "data" not in record and (rows or _holds_questions(record)):
        for line, table in json_records(path):
            if "header" in table:  # MRQA's first line
                continue
            if not _holds_questions(table):
                there = listed(table) or "nothing"
                raise ZhbertError(f"{path}:{line}: question and context must be there, not {there}")
            yield f"{path}:{line}", table
        return
    text = whole_text(path)
    table = parse_json(text, path)
    articles = table.get("data") if isinstance(table, Mapping) else table
    if not isinstance(articles, list) or not all(isinstance(one, Mapping) for one in articles):
        there = f"; there: {listed(table) or 'nothing'}" if isinstance(table, Mapping) else ""
        if there and all(isinstance(one, str) for one in table.values()):
            there += "; are these predictions?"
        raise ZhbertError(f"{path}: not SQuAD's JSON: no list of articles in 'data'{there}")
    for article in articles:
        yield str(path), article


def _holds_questions(table: Mapping[Any, Any]) -> bool:
    return "qas" in table or "paragraphs" in table or any(key in table for key in _QUESTION)


def _questions(
    article: Mapping[Any, Any], where: str
) -> Iterator[tuple[str | None, Any, Mapping[Any, Any], str]]:
    """Yield domain, context, question and its place, for an article, a paragraph or a question."""
    domain = article.get("domain")
    if not {"paragraphs", "qas"} & article.keys() and _holds_questions(article):
        yield domain, _first(article, _CONTEXT, where), article, where
        return
    # CMRC 2018's first form has no paragraphs: an article is used as one.
    paragraphs = article.get("paragraphs", [article])
    if not isinstance(paragraphs, list):
        raise ZhbertError(f"{where}: {_title(article)}: paragraphs must be a list")
    for place, paragraph in enumerate(paragraphs):
        at = f"{where}: {_title(article)}: paragraph {place + 1}"
        if not isinstance(paragraph, Mapping):
            raise ZhbertError(f"{at}: must be an object with context and qas")
        context = _first(paragraph, _CONTEXT, at)
        found = _first(paragraph, ("qas",), at)
        if not isinstance(context, str) or not isinstance(found, list):
            raise ZhbertError(f"{at}: context must be a text and qas a list")
        for question in found:
            if not isinstance(question, Mapping):
                raise ZhbertError(f"{at}: a question must be an object")
            yield domain, context, question, where


def _title(article: Mapping[Any, Any]) -> str:
    for key in ("title", "id", "caseid", "context_id"):
        if key in article:
            return f"article '{name(str(article[key]))}'"
    return "an article"


def _first(table: Mapping[Any, Any], names: tuple[str, ...], where: str) -> Any:
    for key in names:
        if key in table:
            return table[key]
    raise ZhbertError(f"{where}: no '{names[0]}'; there: {listed(table) or 'nothing'}")


def _answers(answers: Any, where: str) -> list[tuple[str, int]]:
    """Return answers and begins from SQuAD's list, a single answer, or columns of both.

    >>> _answers({"text": ["甲", "乙"], "answer_start": [0, 5]}, "x"), _answers("甲", "x")
    ([('甲', 0), ('乙', 5)], [('甲', -1)])
    """
    if isinstance(answers, Mapping) and isinstance(texts := answers.get("text"), list):
        # The datasets library stores two columns.
        starts = answers.get("answer_start")
        if not isinstance(starts, list):
            starts = [starts] * len(texts) if len(texts) < 2 else [starts]
        if starts in ([], [None]):
            starts = [None] * len(texts)
        if len(starts) != len(texts):
            raise ZhbertError(f"{where}: {shortly(answers)}: a text must have a start, each")
        pairs = zip(texts, starts, strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
    return [_answer(one, where) for one in (answers if isinstance(answers, list) else [answers])]


def _answer(answer: Any, where: str) -> tuple[str, int]:
    """Return an answer's text and its begin in the file; -1 if there is none."""
    start = None
    if isinstance(answer, Mapping):
        if "text" not in answer:
            raise ZhbertError(f"{where}: {shortly(answer)}: an answer must be a text, or hold one")
        answer, start = answer["text"], answer.get("answer_start")
    if answer is None:
        return "", -1
    if isinstance(answer, bool | list | Mapping):
        raise ZhbertError(f"{where}: {shortly(answer)}: an answer must be a text, or hold one")
    return scalar(answer, where), _start(start, where)


def _start(value: Any, where: str) -> int:
    """Return where an answer begins, in any spelling of the number.

    >>> [_start(value, "x") for value in (25, "25", 25.0, "25.0", [25], None, -1, "", [])]
    [25, 25, 25, 25, 25, -1, -1, -1, -1]
    """
    if isinstance(value, list):
        # If one text occurs at several places, the first is as good as any.
        value = value[0] if value else None
    # pandas writes NaN for missing values.
    if value is None or value == "" or value != value:
        return -1
    number = whole_number(value)
    if number is None:
        raise ZhbertError(f"{where}: answer_start = {shortly(value)}: must be a whole number")
    return max(number, -1)
