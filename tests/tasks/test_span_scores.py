"""Scores of answers: equal to a slow scorer that was written apart, from the rules alone.

The slow ones share nothing with the code: strings are taken letter by letter, runs are searched by
trying all of them, bags are emptied one by one, thresholds are all tried, sums are fractions.
"""

from __future__ import annotations

import builtins
import json
import random
import time
import unicodedata
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.tasks import span_scores
from zhbert.tasks.span_scores import SCORERS, SpanScores, cjrc, cmrc2018, squad11, squad20
from zhbert.tasks.span_scores import SCORERS as NAMED_IN_CARDS

Gold = dict[str, list[str]]
Pair = tuple[Fraction, Fraction]

# -- answers to try ------------------------------------------------------------------------------

# Pieces of which answers share some: Han characters (also outside U+4E00..U+9FA5), English words,
# numbers, marks of every list, full-width letters, characters whose lower case is longer, accents.
PIECES = [
    "中", "国", "音", "乐", "書", "龥", "鿀", "〇", "㐀", "𠀀", "a", "an", "the", "The",
    "THE", "can't", "cannot", "word", "Word.", "U.S.", "$3.50", "2014", "8", "1,000", "½",
    "²", "Ⅳ", " ", "  ", "\t", "\n", "\u3000", "\xa0", "\u200b", "，", "。", "：", "？", "！",
    "“", "”", "；", "’", "‘", "《", "》", "·", "、", "「", "」", "（", "）", "－", "～", "『",
    "』", "…", "……", "—", "-", ":", "_", "*", "^", "/", "\\", "~", "`", "+", "=", "!", "?",
    ",", ".", ";", "'", '"', "''", "``", "(", ")", "[", "]", "<", ">", "--", "&", "%", "#",
    "@", "Ａ", "ｂ", "３", "İ", "ß", "é", "e\u0301", "か", "한", "🎵", "YES", "NO",
]  # fmt: skip
answers = st.one_of(
    st.just(""),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.lists(st.sampled_from(["中", "国", "音", "the", " ", "word"]), max_size=8).map("".join),
    st.text(max_size=12),
)


def question_sets(least: int) -> st.SearchStrategy[tuple[Gold, dict[str, str]]]:
    """Questions with ``least`` answers or more; some have no prediction, some predictions no
    question, and some predictions are one of the answers, or a part of one."""

    @st.composite
    def draw_all(draw: st.DrawFn) -> tuple[Gold, dict[str, str]]:
        gold, predictions = {}, {}
        for number in range(draw(st.integers(1, 4))):
            theirs = draw(st.lists(answers, min_size=least, max_size=4))
            gold[f"q{number}"] = theirs
            if draw(st.integers(0, 5)) == 0:
                continue
            guess = draw(st.sampled_from([*theirs, ""])) + draw(answers)
            start = draw(st.integers(0, len(guess)))
            predictions[f"q{number}"] = guess[start:] if draw(st.booleans()) else guess
        if draw(st.integers(0, 3)) == 0:
            predictions["nobody asked"] = draw(answers)
        return gold, predictions

    return draw_all()


def seeded_sets(count: int, seed: int) -> tuple[Gold, dict[str, str]]:
    rng = random.Random(seed)

    def text() -> str:
        pieces = PIECES if rng.random() < 0.7 else ["中", "国", "音", "the ", "word "]
        return "".join(rng.choice(pieces) for _ in range(rng.randint(0, 9)))

    gold = {f"q{n}": [text() for _ in range(rng.randint(1, 4))] for n in range(count)}
    predictions = {}
    for id_, theirs in gold.items():
        if rng.random() < 0.95:
            some = rng.choice(theirs)
            cut = rng.randint(0, len(some))
            predictions[id_] = rng.choice([some, text(), some[cut:], some + text(), ""])
    return gold, predictions


# -- slow scorers --------------------------------------------------------------------------------


def mean(scores: Sequence[Fraction]) -> float:
    return float(100 * sum(scores, Fraction(0)) / len(scores))


def slow(
    gold: Gold, predictions: dict[str, str], one: Callable[[list[str], str], Pair]
) -> list[Pair]:
    nothing = (Fraction(0), Fraction(0))
    return [one(gold[id_], predictions[id_]) if id_ in predictions else nothing for id_ in gold]


def harmonic(same: int, ours: int, theirs: int) -> Fraction:
    if same == 0:
        return Fraction(0)
    precision, recall = Fraction(same, ours), Fraction(same, theirs)
    return 2 * precision * recall / (precision + recall)


def slow_cmrc_cut(text: str) -> tuple[str, list[str]]:
    from nltk.tokenize import NLTKWordTokenizer

    dropped = list("-:_*^/\\~`+=") + list("，。：？！“”；’《》·、「」（）－～『』")
    kept = ""
    for letter in text.lower().strip():
        if letter not in dropped:
            kept += letter
    tokens, waiting = [], ""
    for letter in kept + "一":  # one more, so that what waits is cut
        if 0x4E00 <= ord(letter) <= 0x9FA5:
            tokens += NLTKWordTokenizer().tokenize(waiting)
            tokens.append(letter)
            waiting = ""
        else:
            waiting += letter
    return kept, tokens[:-1]


def longest_run(ours: list[str], theirs: list[str]) -> int:
    for size in range(min(len(ours), len(theirs)), 0, -1):
        for start in range(len(ours) - size + 1):
            for other in range(len(theirs) - size + 1):
                if ours[start : start + size] == theirs[other : other + size]:
                    return size
    return 0


def slow_cmrc(theirs: list[str], guess: str) -> Pair:
    text, tokens = slow_cmrc_cut(guess)
    exact, best = Fraction(0), Fraction(0)
    for answer in theirs:
        other_text, other = slow_cmrc_cut(answer)
        if other_text == text:
            exact = Fraction(1)
        best = max(best, harmonic(longest_run(tokens, other), len(tokens), len(other)))
    return exact, best


def taken_from_both(ours: Sequence[str], theirs: Sequence[str]) -> int:
    left, same = list(theirs), 0
    for one in ours:
        if one in left:
            left.remove(one)
            same += 1
    return same


def slow_cjrc(theirs: list[str], guess: str) -> Pair:
    def kept(text: str) -> list[str]:
        # Letters by Unicode's classes; digits, and superscripts and the like, by their value.
        return [c for c in text.lower() if unicodedata.category(c)[0] == "L"
                or unicodedata.digit(c, None) is not None]  # fmt: skip

    def single(answer: str) -> Pair:
        ours, other = kept(guess), kept(answer)
        if not ours or not other:
            equal = Fraction(int(ours == other))
            return equal, equal
        return Fraction(int(ours == other)), harmonic(
            taken_from_both(ours, other), len(ours), len(other)
        )

    if len(theirs) < 2:
        return single(theirs[0] if theirs else "")
    sums = [Fraction(0), Fraction(0)]
    for out in range(len(theirs)):
        rest = [single(answer) for place, answer in enumerate(theirs) if place != out]
        for which in (0, 1):
            sums[which] += max(pair[which] for pair in rest)
    return sums[0] / len(theirs), sums[1] / len(theirs)


def slow_squad_words(text: str) -> list[str]:
    kept = "".join(
        c for c in text.lower() if not (c.isascii() and unicodedata.category(c)[0] in "PS")
    )
    # An article stands between what is no letter, digit or underscore.
    words, word = [], ""
    for c in kept + " ":
        if c.isalnum() or c == "_":
            word += c
        else:
            words += [" " if word in ("a", "an", "the") else word, c]
            word = ""
    return "".join(words).split()


def slow_squad11(theirs: list[str], guess: str) -> Pair:
    ours = slow_squad_words(guess)
    exact, best = Fraction(0), Fraction(0)
    for other in map(slow_squad_words, theirs):
        exact = max(exact, Fraction(int(" ".join(ours) == " ".join(other))))
        best = max(best, harmonic(taken_from_both(ours, other), len(ours), len(other)))
    return exact, best


def slow_squad20(theirs: list[str], guess: str) -> Pair:
    left = [answer for answer in theirs if slow_squad_words(answer)]
    ours = slow_squad_words(guess)
    if not left:
        return Fraction(int(not ours)), Fraction(int(not ours))
    return slow_squad11(left, guess) if ours else (Fraction(0), Fraction(0))


SLOW = {
    "cmrc2018": (cmrc2018, slow_cmrc, 1),
    "cjrc": (cjrc, slow_cjrc, 0),
    "squad1.1": (squad11, slow_squad11, 1),
    "squad2.0": (squad20, slow_squad20, 0),
}


def assert_equal_to_slow(name: str, gold: Gold, predictions: dict[str, str]) -> None:
    fast, one, _ = SLOW[name]
    scores, expected = fast(gold, predictions), slow(gold, predictions, one)
    assert scores.ids == tuple(gold)
    assert scores.per_question_em == pytest.approx([float(100 * em) for em, _ in expected])
    assert scores.per_question_f1 == pytest.approx([float(100 * f1) for _, f1 in expected])
    assert scores.em == pytest.approx(mean([em for em, _ in expected]))
    assert scores.f1 == pytest.approx(mean([f1 for _, f1 in expected]))
    assert set(scores.missing) == set(gold) - set(predictions)
    assert set(scores.unknown) == set(predictions) - set(gold)


@pytest.mark.parametrize("name", SLOW)
def test_scores_are_those_of_the_slow_scorer(name: str) -> None:
    @given(question_sets(least=SLOW[name][2]))
    @settings(max_examples=400)
    @example(({"q0": ["中国", "", "。"]}, {"q0": ""}))
    @example(({"q0": ["《the》 a an"], "q1": ["x"]}, {"q0": "，", "q1": "\u3000x\n"}))
    def check(questions: tuple[Gold, dict[str, str]]) -> None:
        assert_equal_to_slow(name, *questions)

    check()


@pytest.mark.parametrize("name", SLOW)
def test_five_thousand_random_answers_score_as_the_slow_scorer_says(name: str) -> None:
    gold, predictions = seeded_sets(5000, seed=1)
    assert_equal_to_slow(name, gold, predictions)


def test_cuts_and_mistakes_of_real_answers_score_as_the_slow_scorers_say(data: Path) -> None:
    rng = random.Random(0)
    for name, file in [
        ("cmrc2018", "cmrc2018/cmrc2018_dev.json"),
        ("cmrc2018", "drcd/drcd_dev.json"),
        ("cjrc", "cjrc/cjrc_dev.json"),
    ]:
        document = json.loads((data / "tasks" / file).read_text())
        gold, predictions = {}, {}
        for article in document["data"]:
            for paragraph in article["paragraphs"]:
                context = paragraph["context"]
                for question in paragraph["qas"][:3]:
                    theirs = [answer["text"] for answer in question["answers"]]
                    gold[question["id"]] = theirs
                    start = max(0, context.find(theirs[0]) + rng.randint(-3, 3))
                    size = max(0, len(theirs[0]) + rng.randint(-4, 4))
                    guess = context[start : start + size]
                    predictions[question["id"]] = rng.choice([guess, theirs[-1], "YES", ""])
        assert len(gold) > 300
        assert_equal_to_slow(name, gold, predictions)


# -- by hand -------------------------------------------------------------------------------------


def one(scorer: Callable[..., SpanScores], answers: list[str], prediction: str) -> Any:
    scores = scorer({"q": answers}, {"q": prediction})
    return round(scores.em, 4), round(scores.f1, 4)


@pytest.mark.parametrize(
    ("answers", "prediction", "expected"),
    [
        (["《音乐全书》"], "音乐全书", (100, 100)),  # marks are dropped
        (["音乐！全书!"], "音乐全书", (0, 88.8889)),  # "!" is not among them, and is a token
        (["法拉比"], "法比", (0, 40)),  # a run: 法 or 比, not both
        (["20世纪80年代"], "20世纪", (0, 66.6667)),  # a number is one token
        (["Hello World"], "hello world", (100, 100)),
        (["Hello World"], "helloworld", (0, 0)),  # exact match keeps spaces
        (["New York"], " New York\u3000", (100, 100)),  # stripped at the ends
        (["New York"], "，New York", (100, 100)),
        (["New York"], "， New York", (0, 100)),  # stripped before marks are dropped, not after
        (["can-not"], "cannot", (100, 100)),  # dropped, not parted
        ([""], "", (100, 0)),  # nothing in common: no F1
        (["Ａ股"], "ａ股", (100, 100)),  # full-width letters have a lower case
        (["甲", "乙", "丙"], "丙", (100, 100)),  # the best answer counts
        (["的甲" * 200], "甲" + "的甲" * 200, (0, 99.8752)),  # long ones are no other case
        (["鿀"], "鿀鿀", (0, 0)),  # no Han character to this scorer: one word
    ],
)
def test_cmrc_by_hand(answers: list[str], prediction: str, expected: tuple[float, float]) -> None:
    assert one(cmrc2018, answers, prediction) == expected


def test_cmrc_drops_these_marks_and_no_others() -> None:
    # ASCII and Latin 1; general, Chinese, small and full-width punctuation.
    blocks = [(0x20, 0x100), (0x2000, 0x2070), (0x3000, 0x3040), (0xFE10, 0xFE70), (0xFF00, 0xFFF0)]
    marks = [chr(code) for block in blocks for code in range(*block)]
    scores = cmrc2018({mark: [f"甲{mark}乙"] for mark in marks}, dict.fromkeys(marks, "甲乙"))
    dropped = [mark for mark, em in zip(scores.ids, scores.per_question_em, strict=True) if em]
    assert sorted(dropped) == sorted("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")


@pytest.mark.parametrize(
    ("answers", "prediction", "expected"),
    [
        (["YES"], "yes", (100, 100)),
        (["", ""], "", (100, 100)),
        ([""], "甲", (0, 0)),
        ([], "。", (100, 100)),  # no answers, no letters
        (["甲乙"], "乙甲", (0, 100)),  # a bag
        (["甲", "甲", "乙"], "甲", (100, 100)),
        (["甲", "乙", "乙"], "甲", (66.6667, 66.6667)),
        (["13万元"], "13万", (0, 85.7143)),
    ],
)
def test_cjrc_by_hand(answers: list[str], prediction: str, expected: tuple[float, float]) -> None:
    assert one(cjrc, answers, prediction) == expected


@pytest.mark.parametrize(
    ("answers", "prediction", "expected"),
    [
        (["The Broncos"], "broncos.", (100, 100)),
        (["a"], "", (100, 0)),  # in 1.1 nothing against nothing has no F1
        (["Saint-Denis"], "Saint Denis", (0, 0)),  # hyphens are dropped, not parted
        (["An apple, a pear and the fig"], "apple pear and fig", (100, 100)),
        (["theory"], "ory", (0, 0)),  # articles are words
    ],
)
def test_squad11_by_hand(answers: list[str], prediction: str, expected: tuple[Any, Any]) -> None:
    assert one(squad11, answers, prediction) == expected


def test_squad20_by_hand() -> None:
    assert one(squad20, [], "") == (100, 100)
    assert one(squad20, [], "the") == (100, 100)  # nothing of it is left
    assert one(squad20, [], "x") == (0, 0)
    assert one(squad20, ["a", "x"], "") == (0, 0)  # "a" is no answer: nothing of it is left
    assert one(squad20, ["x"], "The X") == (100, 100)


def test_the_average_is_of_exact_match_and_f1() -> None:
    for scorer in (cmrc2018, cjrc):
        scores = scorer({"1": ["甲乙"], "2": ["甲"]}, {"1": "甲", "2": "甲"})
        assert scores.further["average"] == pytest.approx((50 + (100 + 200 / 3) / 2) / 2)


def test_cjrc_counts_each_domain_apart() -> None:
    gold = {"1": ["甲"], "2": ["乙"], "3": ["丙丁"], "4": ["戊"]}
    domains = {"1": "civil", "2": "civil", "3": "criminal"}
    scores = cjrc(gold, {"1": "甲", "3": "丙"}, domains)
    assert scores.further == {
        "average": pytest.approx((25 + (100 + 200 / 3) / 4) / 2),
        "civil_em": 50,
        "civil_f1": 50,
        "criminal_em": 0,
        "criminal_f1": pytest.approx(200 / 3),
    }


# -- SQuAD 2.0's threshold -----------------------------------------------------------------------


@given(question_sets(least=0), st.randoms(use_true_random=False))
@settings(max_examples=400)
def test_thresholds_are_found_as_by_trying_them_all(
    questions: tuple[Gold, dict[str, str]], rng: random.Random
) -> None:
    gold, predictions = questions
    predictions = {id_: predictions.get(id_, "") for id_ in gold}
    order = rng.sample(range(len(gold) * 3), len(gold))
    odds = {id_: float(place) - 2 for id_, place in zip(gold, order, strict=True)}
    scores = squad20(gold, predictions, odds)
    raw = dict(zip(gold, slow(gold, predictions, slow_squad20), strict=True))

    def score_at(threshold: float, which: int) -> Fraction:
        return sum(
            (Fraction(int(not gold[id_])) if odds[id_] > threshold else raw[id_][which])
            for id_ in gold
        ) * Fraction(100, len(gold))  # type: ignore[return-value]

    assert scores.em == pytest.approx(float(score_at(1.0, 0)))
    assert scores.f1 == pytest.approx(float(score_at(1.0, 1)))
    for which, name in ((0, "exact"), (1, "f1")):
        best = max(score_at(threshold, which) for threshold in [-1e9, *odds.values()])
        # The official search takes an unanswerable question as lost where its prediction is not
        # the empty string, although one of articles and marks is scored as empty.
        if all(gold[id_] or bool(predictions[id_]) != bool(raw[id_][0]) for id_ in gold):
            assert scores.further[f"best_{name}"] == pytest.approx(float(best))
            reached = score_at(scores.further[f"best_{name}_thresh"], which)
            if best > score_at(-1e9, which):
                assert float(reached) == pytest.approx(float(best))
            else:
                assert scores.further[f"best_{name}_thresh"] == 0.0


def test_has_answer_and_no_answer_are_counted_apart() -> None:
    gold = {"1": ["x"], "2": ["x y"], "3": [], "4": ["z"]}
    scores = squad20(gold, {"1": "x", "2": "x", "3": "", "4": ""})
    assert scores.further == {
        "HasAns_exact": pytest.approx(100 / 3),
        "HasAns_f1": pytest.approx((100 + 200 / 3) / 3),
        "HasAns_total": 3,
        "NoAns_exact": 100,
        "NoAns_f1": 100,
        "NoAns_total": 1,
    }
    assert set(squad20({"1": ["x"]}, {"1": "x"}).further) == {
        "HasAns_exact", "HasAns_f1", "HasAns_total"
    }  # fmt: skip


def test_among_equal_odds_the_best_score_is_the_official_scripts() -> None:
    """It looks after each question, in the file's order, though equal odds go together."""
    gold = {"1": ["x"], "2": []}
    predictions = {"1": "x", "2": "wrong"}
    first = squad20(gold, predictions, {"1": 0.5, "2": 0.5}).further
    assert (first["best_exact"], first["best_exact_thresh"]) == (100, 0.5)
    other = squad20(gold, predictions, {"2": 0.5, "1": 0.5}).further
    assert (other["best_exact"], other["best_exact_thresh"]) == (50, 0)


def test_odds_above_the_threshold_empty_an_answer() -> None:
    gold, predictions = {"1": ["x"], "2": []}, {"1": "x", "2": "x"}
    odds = {"1": 3.0, "2": 4.0}
    assert squad20(gold, predictions, odds).em == 50
    assert squad20(gold, predictions, odds, threshold=3.0).em == 100
    assert squad20(gold, predictions, odds, threshold=4.0).em == 50


def test_a_question_without_a_prediction_counts_0_even_without_an_answer() -> None:
    scores = squad20({"1": [], "2": []}, {"1": ""}, {"1": 0.0, "2": 5.0})
    assert scores.em == 50
    assert scores.further["best_exact"] == 50
    assert scores.missing == ("2",)


# -- what cannot be scored -----------------------------------------------------------------------


def test_the_table_holds_what_cards_may_ask_for() -> None:
    assert set(SCORERS) == set(NAMED_IN_CARDS)


@pytest.mark.parametrize("scorer", SCORERS.values())
def test_no_questions_are_refused(scorer: Callable[..., SpanScores]) -> None:
    with pytest.raises(ZhbertError, match=r"^no questions to score$"):
        scorer({}, {"1": "x"})


@pytest.mark.parametrize("scorer", [cmrc2018, squad11])
def test_withheld_answers_are_refused(scorer: Callable[..., SpanScores]) -> None:
    with pytest.raises(ZhbertError, match=r"^question 7: no answer to compare with"):
        scorer({"7": []}, {"7": "x"})


def test_missing_odds_are_refused() -> None:
    with pytest.raises(ZhbertError, match=r"^question 2: no odds that it has no answer$"):
        squad20({"1": ["x"], "2": []}, {"1": "x", "2": ""}, {"1": 0.0})


def test_without_nltk_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("nltk"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    span_scores._word_tokenizer.cache_clear()
    span_scores._words.cache_clear()
    assert cmrc2018({"1": ["音乐"]}, {"1": "音乐"}).em == 100  # nothing to cut
    with pytest.raises(ZhbertError, match="NLTK, which is missing: pip install nltk"):
        cmrc2018({"1": ["MP3音乐"]}, {"1": "音乐"})


def test_a_dev_set_is_scored_in_a_moment() -> None:
    gold, predictions = seeded_sets(1600, seed=2)
    cmrc2018({"1": ["MP3"]}, {"1": "MP3"})  # NLTK is loaded
    start = time.process_time()
    cmrc2018(gold, predictions)
    assert time.process_time() - start < 2
