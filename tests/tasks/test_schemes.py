"""Tag schemes: what their tags say, both ways, and which labels are of none."""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tasks.slow_entities import STRICT, default_entities, f1, strict_entities

from zhbert.errors import ZhbertError
from zhbert.tasks.cards import load_card, parse_card
from zhbert.tasks.metrics import of_all, resampled_entity_f1
from zhbert.tasks.schemes import (
    SCHEMES,
    Entity,
    scheme_name,
    scheme_of,
    scheme_of_model,
    tags_of_types,
)

LETTERS = {"BIO": "BI", "BIOS": "BIS", "BIOES": "BIES", "BMES": "BMES", "BMEWO": "BMEW",
           "BILOU": "BILU"}  # fmt: skip


def labels_of(scheme: str, kinds: str = "XY", spell: str = "{}-{}") -> list[str]:
    return ["O", *(spell.format(one, kind) for kind in kinds for one in LETTERS[scheme])]


@st.composite
def spans(draw: st.DrawFn) -> tuple[int, list[Entity]]:
    """A sentence's length, and entities in it that do not overlap."""
    found, end = [], 0
    for gap, length, kind in draw(
        st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.sampled_from("XY")), max_size=6)
    ):
        found.append((kind, end + gap, end + gap + length))
        end += gap + length
    return end + draw(st.integers(0, 3)), found


@pytest.mark.parametrize("scheme", LETTERS)
@given(spans())
def test_spans_become_tags_and_the_same_spans_again(
    scheme: str, sentence: tuple[int, list[Entity]]
) -> None:
    length, found = sentence
    read = scheme_of(labels_of(scheme), scheme)
    tags = read.tags(length, found)
    assert len(tags) == length
    assert read.entities(tags) == found == strict_entities(tags, scheme)
    assert read.broken(tags) == 0


@given(spans())
def test_types_alone_join_neighbours_of_one_type(sentence: tuple[int, list[Entity]]) -> None:
    length, found = sentence
    read = scheme_of(["O", "X", "Y"])
    tags = read.tags(length, found)
    assert read.name == "IO"
    assert read.tags(length, read.entities(tags)) == tags
    assert sum(end - start for _, start, end in read.entities(tags)) == sum(
        end - start for _, start, end in found
    )


@pytest.mark.parametrize("scheme", LETTERS)
def test_every_short_row_gives_the_entities_of_the_slow_rules(scheme: str) -> None:
    labels = labels_of(scheme)
    read = scheme_of(labels)
    assert read.name == scheme
    slow = default_entities if scheme == "BIO" else partial(strict_entities, scheme=scheme)
    for row in product(labels, repeat=4):
        assert read.entities(row) == slow(row), row


@pytest.mark.parametrize("scheme", [name for name in STRICT if name != "BIO"])
@given(st.data())
def test_f1_of_a_strict_scheme_is_that_of_the_slow_rules(scheme: str, data: st.DataObject) -> None:
    tag = st.sampled_from(labels_of(scheme))
    pairs = data.draw(st.lists(st.lists(st.tuples(tag, tag), min_size=1), min_size=1, max_size=4))
    gold, predicted = ([[pair[side] for pair in row] for row in pairs] for side in (0, 1))
    slow = partial(strict_entities, scheme=scheme)
    metric = resampled_entity_f1(gold, predicted, scheme_of(labels_of(scheme)))
    assert of_all(metric, len(gold)) == pytest.approx(f1(gold, predicted, slow))


@pytest.mark.parametrize("spell", ["{}-{}", "{}_{}", "{1}-{0}", "{1}_{0}"])
@pytest.mark.parametrize("scheme", LETTERS)
def test_all_spellings_of_tags_say_the_same(scheme: str, spell: str) -> None:
    labels = labels_of(scheme, ["PER", "LOC"], spell)
    for spelled in (labels, [label.lower() for label in labels]):
        read = scheme_of(spelled)
        assert read.name == scheme
        kinds = {kind.upper() for _, kind in read.places.values()}
        assert kinds == {"", "PER", "LOC"}


def test_words_are_entities_of_letters_alone() -> None:
    assert scheme_of(list("BMES")).entities(list("SBMEBE")) == [
        ("_", 0, 1), ("_", 1, 4), ("_", 4, 6)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "name"),
    [("IOB", "BIO"), ("IOB2", "BIO"), ("iob1", "BIO"), ("BIESO", "BIOES"), ("IOBES", "BIOES"),
     ("BMESO", "BMES"), ("BIOSE", "BIOES"), ("BMEW", "BMEWO"), ("BILUO", "BILOU"), ("IO", "IO")],
)  # fmt: skip
def test_a_schemes_name_may_be_written_as_others_write_it(written: str, name: str) -> None:
    assert scheme_name(written) == name in SCHEMES


def test_types_become_the_labels_of_a_scheme() -> None:
    for scheme in LETTERS:
        labels = tags_of_types(["a", "b"], scheme)
        assert scheme_of(labels).name == scheme
        assert {kind for _, kind in scheme_of(labels).places.values()} == {"", "a", "b"}
        assert tags_of_types(labels, scheme) == labels


@pytest.mark.parametrize(
    ("labels", "scheme", "said"),
    [
        (["O", "B-A", "E-A"], "BIO", '"E-A": not of BIO; the labels are of BIOES: write'),
        (["O", "B-A", "M-A", "E-A"], "BIO", 'the labels are of BMES: write scheme = "BMES"'),
        (["O", "B-A", "I-A"], "BIOES", '"B-A": in BIOES it needs a label E-A'),
        (["O", "B-A", "PER"], "", '"PER": not of BIO; its tags are B-TYPE, I-TYPE, O'),
        (["O", "B-A", "I-A"], "BOI2E", "not a choice"),
    ],
)
def test_labels_not_of_the_scheme_are_named_with_the_cards_line(
    tmp_path: Path, labels: list[str], scheme: str, said: str
) -> None:
    card = tmp_path / "mine.toml"
    card.write_text(
        f'title = "t"\nkind = "tag"\nmetrics = ["f1"]\n\n[data]\nformat = "bio"\ndev = "dev"\n'
        f'scheme = "{scheme}"\nlabels = {labels}\n'
    )
    with pytest.raises(ZhbertError) as error:
        load_card(card)
    line = 8 if said == "not a choice" else 9
    assert str(error.value).startswith(f"mine.toml:{line}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_label_of_a_file_of_labels_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("O\nB-A\nI-A\nX-A\n")
    table = {"title": "t", "kind": "tag", "metrics": ["f1"],
             "data": {"format": "bio", "dev": "dev", "labels_file": "labels.txt"}}  # fmt: skip
    with pytest.raises(ZhbertError, match=r'^labels.txt:4: data: "X-A": not of BIO'):
        parse_card(table, tmp_path / "mine.toml")


def test_labels_of_other_programs_models_aggregate_as_their_pipeline_does() -> None:
    """transformers' get_tag: B- and I- are cut off, whatever else goes on with its own name."""
    labels = ("O", "B-PER", "I-PER", "X", "[CLS]")
    scheme = scheme_of_model(labels)
    assert scheme is not None
    assert scheme.entities(["B-PER", "I-PER", "B-PER", "X", "X", "O"]) == [
        ("PER", 0, 2), ("PER", 2, 3), ("X", 3, 5)
    ]  # fmt: skip
    assert scheme_of_model(("LABEL_0", "LABEL_1")) is None
