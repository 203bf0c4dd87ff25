"""The official scores of reading comprehension: CMRC 2018 (also for DRCD), CJRC and SQuAD.

Every scorer takes the gold answers and the prediction of each question, by the questions' ids. A
question without a prediction counts 0; a prediction without a question is ignored. The rules of the
official scripts differ:

========= ======================== ===========================================================
scorer    before comparing         F1
========= ======================== ===========================================================
cmrc2018  punctuation is dropped   of the longest run of tokens that both share, a Han character
                                   or an English word each
cjrc      only letters and digits  of the bags of characters; each answer is left out once
          are kept
squad1.1  punctuation and English  of the bags of words
          articles are dropped
squad2.0  the same                 the same; some questions have no answer
========= ======================== ===========================================================

CMRC 2018: https://github.com/ymcui/cmrc2018 (cmrc2018_evaluate.py).
CJRC: https://github.com/china-ai-law-challenge/CAIL2019.
SQuAD: https://rajpurkar.github.io/SQuAD-explorer/ (evaluate-v1.1.py, evaluate-v2.0.py).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from functools import cache, lru_cache

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.tasks.metrics import Floats


@dataclass(frozen=True)
class SpanScores:
    """Scores of a set of questions, in per cent."""

    ids: tuple[str, ...]
    per_question_em: Floats
    """The exact match of each question, 0 to 100, in the order of `ids`: (questions,)."""
    per_question_f1: Floats
    missing: tuple[str, ...] = ()
    """The ids of questions without a prediction, which count 0."""
    unknown: tuple[str, ...] = ()
    """The ids of predictions without a question, which are ignored."""
    further: Mapping[str, float] = field(default_factory=dict)
    """Other figures that the scorer prints, by its own names."""

    @property
    def em(self) -> float:
        """Exact match: the mean over all questions."""
        return float(self.per_question_em.mean())

    @property
    def f1(self) -> float:
        """F1: the mean over all questions."""
        return float(self.per_question_f1.mean())


Gold = Mapping[str, Sequence[str]]
"""A question's id -> its answers. A question without an answer has no answers or an empty one."""


def _each(
    gold: Gold,
    predictions: Mapping[str, str],
    one: Callable[[Sequence[str], str], tuple[float, float]],
    *,
    all_answered: bool = False,
) -> Floats:
    """Return exact match and F1 of every question, in [0, 1]: (n, 2).

    If ``all_answered``, ZhbertError is raised for a question without an answer.
    """
    if not gold:
        raise ZhbertError("no questions to score")
    if all_answered and (empty := [id_ for id_, answers in gold.items() if not answers]):
        raise ZhbertError(
            f"question {empty[0]}: no answer to compare with; its answers may be withheld"
        )
    scores = np.zeros((len(gold), 2))
    for row, (id_, answers) in enumerate(gold.items()):
        if id_ in predictions:
            scores[row] = one(answers, predictions[id_])
    return scores


def _sum_up(gold: Gold, predictions: Mapping[str, str], each: Floats) -> SpanScores:
    return SpanScores(
        ids=tuple(gold),
        per_question_em=100 * each[:, 0],
        per_question_f1=100 * each[:, 1],
        missing=tuple(id_ for id_ in gold if id_ not in predictions),
        unknown=tuple(id_ for id_ in predictions if id_ not in gold),
    )


def _f1(same: int, predicted: int, gold: int) -> float:
    return 2 * same / (predicted + gold) if same else 0.0


# -- CMRC 2018, DRCD -----------------------------------------------------------------------------

# The benchmark's list, which lacks some punctuation: "!", "," and "…" are kept.
_CMRC_DROPPED = dict.fromkeys(map(ord, "-:_*^/\\~`+=" + "，。：？！“”；’《》·、「」（）－～『』"))
_HAN_OR_REST = re.compile("[\u4e00-\u9fa5]|[^\u4e00-\u9fa5]+")


def cmrc2018(gold: Gold, predictions: Mapping[str, str]) -> SpanScores:
    """Score as CMRC 2018 does; ``further`` has the ``average`` of exact match and F1.

    The official scorer splits text that is not Chinese with NLTK's ``word_tokenize``, which splits
    sentences first. That step needs a data file to be downloaded and is left out here: if an answer
    has several English sentences, every full stop but the last stays part of its word.

    Raises `ZhbertError` if there are no questions, a question has no answer, or NLTK is missing.

    >>> scores = cmrc2018({"1": ["《音乐全书》"], "2": ["8世纪"]}, {"1": "音乐全书", "2": "世纪时"})
    >>> scores.em, scores.f1
    (50.0, 83.33333333333333)
    """
    each = _each(gold, predictions, _cmrc_question, all_answered=True)
    scores = _sum_up(gold, predictions, each)
    return replace(scores, further={"average": (scores.em + scores.f1) / 2})


def _cmrc_question(answers: Sequence[str], prediction: str) -> tuple[float, float]:
    text = _cmrc_text(prediction)
    tokens = _cmrc_tokens(text)
    exact, best = 0.0, 0.0
    for answer in dict.fromkeys(map(_cmrc_text, answers)):
        exact = max(exact, float(answer == text))
        theirs = _cmrc_tokens(answer)
        run = SequenceMatcher(None, tokens, theirs, autojunk=False).find_longest_match().size
        best = max(best, _f1(run, len(tokens), len(theirs)))
    return exact, best


def _cmrc_text(text: str) -> str:
    return text.lower().strip().translate(_CMRC_DROPPED)


def _cmrc_tokens(text: str) -> list[str]:
    tokens: list[str] = []
    for part in _HAN_OR_REST.findall(text):
        if "\u4e00" <= part[0] <= "\u9fa5":
            tokens.append(part)
        else:
            tokens.extend(_words(part))
    return tokens


@lru_cache(maxsize=1 << 16)
def _words(text: str) -> tuple[str, ...]:
    return tuple(_word_tokenizer()(text))


@cache
def _word_tokenizer() -> Callable[[str], list[str]]:
    try:
        # This import takes a second and is needed only for answers that are not entirely Chinese.
        from nltk.tokenize import NLTKWordTokenizer
    except ImportError:
        raise ZhbertError(
            "CMRC 2018's scorer cuts English words with NLTK, which is missing: pip install nltk"
        ) from None
    tokenize: Callable[[str], list[str]] = NLTKWordTokenizer().tokenize
    return tokenize


# -- CJRC ----------------------------------------------------------------------------------------


def cjrc(
    gold: Gold, predictions: Mapping[str, str], domains: Mapping[str, str] | None = None
) -> SpanScores:
    """Score as CJRC does. YES and NO are compared as texts; no answer is the empty string.

    If a question has several answers, each is left out once and the best score over the others is
    taken; the question's score is the mean of these. The scores of human annotators are computed in
    the same way, against the other annotators.

    ``domains`` (a question's id -> ``civil`` or ``criminal``) adds ``civil_em``, ``civil_f1``, …
    and ``average`` to ``further``.

    >>> cjrc({"1": ["YES", "YES", "NO"]}, {"1": "Yes。"}).em
    100.0
    >>> round(cjrc({"1": ["YES", "NO"]}, {"1": "YES"}).em, 1)
    50.0
    """
    scores = _sum_up(gold, predictions, _each(gold, predictions, _cjrc_question))
    further = {"average": (scores.em + scores.f1) / 2}
    domains = domains or {}
    of_each = [domains.get(id_) for id_ in scores.ids]
    for domain in sorted({one for one in of_each if one is not None}):
        chosen = np.array([one == domain for one in of_each])
        further[f"{domain}_em"] = float(scores.per_question_em[chosen].mean())
        further[f"{domain}_f1"] = float(scores.per_question_f1[chosen].mean())
    return replace(scores, further=further)


def _cjrc_question(answers: Sequence[str], prediction: str) -> tuple[float, float]:
    text = _cjrc_text(prediction)
    letters = Counter(text)
    scores = []
    for answer in map(_cjrc_text, answers or [""]):
        same = (Counter(answer) & letters).total()
        # An empty prediction is right for an empty answer.
        f1 = _f1(same, len(text), len(answer)) if answer or text else 1.0
        scores.append((float(answer == text), f1))
    if len(scores) == 1:
        return scores[0]
    return _leave_one_out([one[0] for one in scores]), _leave_one_out([one[1] for one in scores])


def _leave_one_out(scores: Sequence[float]) -> float:
    """Return the mean, over each score left out in turn, of the best of the others.

    >>> _leave_one_out([1.0, 0.5, 0.5])
    0.8333333333333334
    """
    # The best of the others is the best of all, unless that one is left out.
    second, best = sorted(scores)[-2:]
    return (best * (len(scores) - 1) + second) / len(scores)


def _cjrc_text(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalpha() or letter.isdigit())


# -- SQuAD ---------------------------------------------------------------------------------------

_SQUAD_DROPPED = dict.fromkeys(map(ord, string.punctuation))
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def squad11(gold: Gold, predictions: Mapping[str, str]) -> SpanScores:
    """Score as SQuAD 1.1 does.

    Raises `ZhbertError` if there are no questions or a question has no answer.

    >>> scores = squad11({"1": ["the Broncos", "Denver Broncos"]}, {"1": "Broncos!"})
    >>> scores.em, scores.f1
    (100.0, 100.0)
    """
    each = _each(gold, predictions, _squad11_question, all_answered=True)
    return _sum_up(gold, predictions, each)


def _squad11_question(answers: Sequence[str], prediction: str) -> tuple[float, float]:
    words = _squad_words(prediction)
    theirs = [_squad_words(answer) for answer in answers]
    return float(words in theirs), max(_bag_f1(words, answer) for answer in theirs)


def squad20(
    gold: Gold,
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> SpanScores:
    """Score as SQuAD 2.0 does: the right prediction is empty if there is no answer.

    ``null_odds`` has a number for each question, higher if no answer is likelier: above
    ``threshold``, the prediction counts as empty. ``further`` has the scores of the questions with
    an answer (``HasAns_exact``, ``HasAns_f1``, ``HasAns_total``) and of those without
    (``NoAns_…``). With ``null_odds`` it also has the best scores over all thresholds
    (``best_exact``, ``best_exact_thresh``, ``best_f1``, ``best_f1_thresh``). As in the official
    script, the search also separates questions with equal odds, so that the best score may be one
    that no threshold reaches.

    Raises `ZhbertError` if there are no questions, or one that was answered has no odds.

    >>> scores = squad20({"1": ["Paris"], "2": []}, {"1": "in Paris", "2": "Rome"})
    >>> scores.em, round(scores.f1, 2), scores.further["NoAns_exact"]
    (0.0, 33.33, 0.0)
    >>> squad20({"1": ["Paris"], "2": []}, {"1": "Paris", "2": "Rome"}, {"1": 0.1, "2": 7}).em
    100.0
    """
    each = _each(gold, predictions, _squad20_question)
    has_answer = np.array([bool(answers) for answers in gold.values()])
    best: dict[str, float] = {}
    if null_odds is not None:
        best = _best_scores(gold, predictions, each, null_odds)
        for row, id_ in enumerate(gold):
            if id_ in predictions and null_odds[id_] > threshold:
                each[row] = not has_answer[row]
    scores = _sum_up(gold, predictions, each)
    further: dict[str, float] = {}
    for name, chosen in (("HasAns", has_answer), ("NoAns", ~has_answer)):
        if chosen.any():
            further[f"{name}_exact"] = float(scores.per_question_em[chosen].mean())
            further[f"{name}_f1"] = float(scores.per_question_f1[chosen].mean())
            further[f"{name}_total"] = int(chosen.sum())
    return replace(scores, further={**further, **best})


def _squad20_question(answers: Sequence[str], prediction: str) -> tuple[float, float]:
    words = _squad_words(prediction)
    # Answers without a word are ignored; if there are no others, the right prediction is empty.
    theirs = [answer for answer in map(_squad_words, answers) if answer] or [[]]
    best = max(_bag_f1(words, answer) if words and answer else float(words == answer)
               for answer in theirs)  # fmt: skip
    return float(words in theirs), best


def _best_scores(
    gold: Gold, predictions: Mapping[str, str], each: Floats, null_odds: Mapping[str, float]
) -> dict[str, float]:
    """Return the best exact match and F1 over all thresholds, with these thresholds."""
    answered = {id_: row for row, id_ in enumerate(gold) if id_ in predictions}
    for id_ in answered:
        if id_ not in null_odds:
            raise ZhbertError(f"question {id_}: no odds that it has no answer")
    all_empty = float(sum(not gold[id_] for id_ in answered))
    best = {}
    for column, name in enumerate(("exact", "f1")):
        # The gain in score from answering a question instead of leaving it empty.
        gains = {
            id_: each[row, column] if gold[id_] else -bool(predictions[id_])
            for id_, row in answered.items()
        }
        reached, threshold = _best_threshold(all_empty, gains, null_odds)
        best[f"best_{name}"] = 100 * reached / len(gold)
        best[f"best_{name}_thresh"] = threshold
    return best


def _best_threshold(
    all_empty: float, gains: Mapping[str, float], odds: Mapping[str, float]
) -> tuple[float, float]:
    """Return the best sum and its threshold.

    At first all predictions are empty; then they are restored one by one, from the lowest odds.
    Equal odds keep the order of ``odds``, as in the official script.
    """
    total, best, threshold = all_empty, all_empty, 0.0
    for id_ in sorted(odds, key=lambda one: odds[one]):
        total += gains.get(id_, 0.0)
        if total > best:
            best, threshold = total, odds[id_]
    return best, threshold


def _squad_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_SQUAD_DROPPED)).split()


def _bag_f1(ours: list[str], theirs: list[str]) -> float:
    return _f1((Counter(ours) & Counter(theirs)).total(), len(ours), len(theirs))


# -- all scorers -----------------------------------------------------------------------------------


SCORERS: Mapping[str, Callable[..., SpanScores]] = {
    "cmrc2018": cmrc2018,
    "cjrc": cjrc,
    "squad1.1": squad11,
    "squad2.0": squad20,
}
"""A card's ``scorer`` -> the function of (gold, predictions, …)."""
SCORERS_OF_NO_ANSWER = ("cjrc", "squad2.0")
"""The scorers that support questions without an answer."""
