"""Batches: a pure function of (seed, step), of every row once an epoch, masked as the rules say."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data import reference_masking, reference_rows
from tests.data.reference_masking import chi_square_p, two_sample_p
from tests.data.reference_rows import CLS, SEP, MemoryShard
from tests.pretraining_loaders import loader_over

import zhbert
from zhbert.config import MaskingSettings
from zhbert.data import loader as loader_module
from zhbert.data import masking as masking_module
from zhbert.data import row_plans
from zhbert.data.examples import BUILDERS, make_rows
from zhbert.data.loader import GrowingRows, MaskedBatch, PretrainingLoader
from zhbert.data.masking import IGNORED, Masker, MaskingVocabulary
from zhbert.data.random_streams import MASKS, generator
from zhbert.data.shards import Corpus, Documents, Shard, write_shard
from zhbert.data.similar_words import write_similar_words
from zhbert.errors import ZhbertError
from zhbert.masking_strategies import STRATEGIES
from zhbert.text.tokenizer import Tokenizer

MASK = 2
UNLIKELY = 1e-3
SMALL, LARGE = 60, 1500  # documents


@cache
def documents(count: int) -> list[reference_rows.Document]:
    return reference_rows.random_documents(count, random.Random(count))


@cache
def shards(count: int) -> list[MemoryShard]:
    cut = count // 3
    return [MemoryShard(documents(count)[:cut]), MemoryShard(documents(count)[cut:])]


@cache
def vocabulary(count: int) -> list[str]:
    """Every piece of the corpus is another one: a row is known by its pieces."""
    pieces = sum(len(shard.pieces) for shard in shards(count))
    marks = ["[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", *(f"[unused{i}]" for i in range(5))]
    return [*marks, *(f"p{i}" for i in range(pieces))]


def loader(count: int = SMALL, **options: Any) -> PretrainingLoader:
    return loader_over(shards(count), vocabulary(count), **({"batch_size": 16} | options))


def restored(batch: MaskedBatch) -> torch.Tensor:
    ids = batch.packed.input_ids.clone()
    ids[batch.predicted_positions] = batch.labels
    return ids


def rows_of(batches: list[MaskedBatch]) -> list[tuple[int, ...]]:
    """The rows as they were before they were masked."""
    return [
        tuple(restored(batch)[start:end].tolist())
        for batch in batches
        for start, end in pairwise(batch.packed.cu_seqlens.tolist())
    ]


def masked_rows(batches: list[MaskedBatch]) -> list[tuple[list[int], list[int]]]:
    """Each row's (input_ids, labels), labels -100 where nothing is predicted."""
    rows = []
    for batch in batches:
        labels = torch.full_like(batch.packed.input_ids, IGNORED)
        labels[batch.predicted_positions] = batch.labels
        for start, end in pairwise(batch.packed.cu_seqlens.tolist()):
            rows.append((batch.packed.input_ids[start:end].tolist(), labels[start:end].tolist()))
    return rows


def values_of(batch: MaskedBatch) -> list[object]:
    return [*vars(batch.packed).values(), *vars(replace(batch, packed=None)).values()]


def assert_same_batches(ours: list[MaskedBatch], theirs: list[MaskedBatch]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for mine, yours in zip(values_of(one), values_of(other), strict=True):
            if isinstance(mine, torch.Tensor):
                assert mine.dtype == yours.dtype
                assert torch.equal(mine, yours)
            else:
                assert mine == yours


# --- Which rows


@pytest.mark.parametrize("builder", BUILDERS)
def test_an_epoch_is_a_permutation_of_all_rows(builder: str) -> None:
    made = loader(builder=builder, batch_size=7)
    builder_rows = make_rows(
        builder, shards(SMALL), cls_id=CLS, sep_id=SEP, sequence_length=40, seed=5
    )
    sizes = [builder_rows.count(epoch) for epoch in range(3)]
    assert made.rows_per_epoch == sizes[0] > 50
    stream = rows_of([b for step in islice(made.steps(0), sum(sizes) // 7) for b in step])
    first = 0
    orders = []
    for epoch in range(2):
        expected = [
            tuple(builder_rows.row(epoch, i, generator(5, MASKS, epoch, i)).piece_ids.tolist())
            for i in range(sizes[epoch])
        ]
        found = stream[first : first + sizes[epoch]]
        first += sizes[epoch]
        assert Counter(found) == Counter(expected)
        orders.append([expected.index(row) for row in found])
    assert orders[0] != sorted(orders[0])
    assert orders[0][:20] != orders[1][:20]


def test_an_epoch_s_order_is_of_the_whole_corpus_not_of_a_buffer() -> None:
    """Positions in the corpus and in the epoch are uncorrelated."""
    made = loader(LARGE, builder="lines", batch_size=500)
    steps = made.rows_per_epoch // 500
    first_pieces = [row[1] for step in islice(made.steps(0), steps) for row in rows_of(step)]
    correlation = np.corrcoef(np.arange(len(first_pieces)), first_pieces)[0, 1]
    assert abs(correlation) < 4 / np.sqrt(len(first_pieces))


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_step_is_the_same_wherever_one_starts(builder: str) -> None:
    options = {"builder": builder, "micro_batch_size": 6, "total_steps": 60}
    masking = MaskingSettings(rate=0.3, final_rate=0.15)
    straight = list(islice(loader(masking=masking, **options).steps(0), 45))
    for start in (0, 1, 17, 44):
        resumed = next(loader(masking=masking, **options).steps(start))
        assert_same_batches(resumed, straight[start])
    back_and_forth = loader(masking=masking, **options)
    for step in (40, 3, 22, 3):
        assert_same_batches(back_and_forth.step(step), straight[step])


def test_a_share_of_the_rows_is_masked_by_single_pieces() -> None:
    options = {"builder": "full-sentences", "batch_size": 400}
    plain, chars, mixed = (
        loader(masking=MaskingSettings(strategy=strategy, char_share=share), **options).step(0)[0]
        for strategy, share in (("wwm", 0.0), ("wwm", 1.0), ("wwm", 0.5))
    )
    # Each row is masked by the one rule or the other, and about half of them by each.
    starts = mixed.packed.cu_seqlens.tolist()
    by_char = [
        torch.equal(mixed.packed.input_ids[begin:end], chars.packed.input_ids[begin:end])
        for begin, end in pairwise(starts)
    ]
    assert 0.4 < sum(by_char) / len(by_char) < 0.6
    assert not torch.equal(chars.packed.input_ids, plain.packed.input_ids)
    again = loader(masking=MaskingSettings(strategy="char", char_share=1.0), **options).step(0)[0]
    assert torch.equal(again.packed.input_ids, chars.packed.input_ids)


@pytest.mark.parametrize("builder", BUILDERS)
def test_short_rows_first_takes_each_step_from_one_of_two_loaders(builder: str) -> None:
    options = {"builder": builder, "total_steps": 12}
    masking = MaskingSettings(rate=0.3, final_rate=0.15)

    def both() -> tuple[PretrainingLoader, PretrainingLoader]:
        short = loader(sequence_length=10, batch_size=64, masking=masking, **options)
        return short, loader(masking=masking, **options)

    def warmed_up() -> GrowingRows:
        short, long = both()
        return GrowingRows([(5, short)], long)

    short, long = both()
    expected = [short.step(step) for step in range(5)]
    expected += [long.step(step) for step in range(5, 12)]
    assert max(batch.packed.max_length for step in expected[:5] for batch in step) <= 10
    warmed = warmed_up()
    for found, step in zip(warmed.steps(0), expected, strict=False):
        assert_same_batches(found, step)
    assert warmed.rows_per_epoch == long.rows_per_epoch
    for start in (1, 4, 5, 11):
        warmed = warmed_up()
        steps = islice(warmed.steps(start), 3)
        for found, step in zip(steps, expected[start : start + 3], strict=False):
            assert_same_batches(found, step)
    # What was dropped is a share of what was made.
    made = sum(len(batch.packed.input_ids) for step in expected for batch in step)
    warmed = warmed_up()
    taken = [batch for step in islice(warmed.steps(0), 12) for batch in step]
    assert warmed.made_pieces == made == sum(len(batch.packed.input_ids) for batch in taken)
    assert warmed.dropped_pieces == sum(batch.dropped_pieces for batch in taken)


@pytest.mark.parametrize("batch_size", [12, 13])
@pytest.mark.parametrize("micro_batch_size", [0, 1, 5, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_and_micro_batches_partition_the_step(
    world_size: int, micro_batch_size: int, batch_size: int
) -> None:
    whole = loader(batch_size=batch_size)
    ranks = [
        loader(
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    for step in (0, 9):
        (expected,) = whole.step(step)
        parts = [rank.step(step) for rank in ranks]
        for part in parts:
            sizes = [batch.packed.num_rows for batch in part]
            limit = micro_batch_size or batch_size
            assert all(size == limit for size in sizes[:-1])
            assert 0 < sizes[-1] <= limit
        flat = [batch for part in parts for batch in part]
        assert masked_rows(flat) == masked_rows([expected])
        for name in ("input_ids", "token_type_ids", "position_ids"):
            joined = torch.cat([getattr(batch.packed, name) for batch in flat])
            assert torch.equal(joined, getattr(expected.packed, name))
        assert torch.equal(torch.cat([batch.labels for batch in flat]), expected.labels)
        rows = [(batch.first_row, batch.packed.num_rows) for batch in flat]
        assert [first for first, _ in rows] == [
            sum(n for _, n in rows[:k]) for k in range(len(rows))
        ]
        labels = [batch.next_sentence_labels for batch in flat]
        assert torch.equal(torch.cat(labels), expected.next_sentence_labels)
        assert sum(batch.dropped_pieces for batch in flat) == expected.dropped_pieces
        sizes = [sum(batch.packed.num_rows for batch in part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_another_seed_gives_other_rows_orders_and_masks() -> None:
    one, other = (loader(builder="lines", seed=seed).step(0) for seed in (1, 2))
    assert rows_of(one) != rows_of(other)


# --- The shape of a batch


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_batch_is_rows_end_to_end_without_padding(builder: str) -> None:
    for step in islice(loader(builder=builder, micro_batch_size=5).steps(0), 12):
        for batch in step:
            starts = batch.packed.cu_seqlens.tolist()
            assert starts[0] == 0
            assert starts[-1] == len(batch.packed.input_ids)
            assert batch.packed.max_length == max(b - a for a, b in pairwise(starts)) <= 40
            for name in ("input_ids", "token_type_ids", "position_ids"):
                assert getattr(batch.packed, name).dtype == torch.int64
            assert batch.labels.dtype == batch.predicted_positions.dtype == torch.int64
            assert batch.packed.cu_seqlens.dtype == torch.int32
            assert 3 not in batch.packed.input_ids  # [PAD]
            predicted = batch.predicted_positions
            assert (predicted[1:] > predicted[:-1]).all()
            assert len(predicted) == len(batch.labels) > 0
            assert not set(batch.labels.tolist()) & {CLS, SEP}
            pairs = batch.next_sentence_labels
            assert (pairs is not None) == (builder == "pairs")
            if pairs is not None:
                assert pairs.dtype == torch.int64
                assert pairs.shape == (len(starts) - 1,)
            for row, (start, end) in enumerate(pairwise(starts)):
                ids = restored(batch)[start:end].tolist()
                assert ids[0] == CLS
                assert ids[-1] == SEP
                assert batch.packed.position_ids[start:end].tolist() == list(range(end - start))
                types = batch.packed.token_type_ids[start:end].tolist()
                if pairs is None:
                    assert types == [0] * (end - start)
                    continue
                first = ids.index(SEP) + 1  # token type 0: [CLS] A [SEP]
                assert types == [0] * first + [1] * (end - start - first)
                follows = ids[first] > ids[first - 2]
                assert pairs[row] == 1 or follows  # a true B stands after its A in the corpus


def test_the_share_of_random_pairs_is_that_of_the_epochs_labels() -> None:
    whole = loader()
    rows = whole.evaluation(whole.rows_per_epoch)
    labels = torch.cat([batch.next_sentence_labels for batch in rows])
    assert whole.random_share == pytest.approx(labels.float().mean().item())
    assert loader(builder="lines").random_share is None


def test_what_pairs_lose_is_counted() -> None:
    made = loader(batch_size=1)
    rows = make_rows("pairs", shards(SMALL), cls_id=CLS, sep_id=SEP, sequence_length=40, seed=5)
    dropped = [rows.row(0, i, generator(5, MASKS, 0, i)).dropped for i in range(rows.count(0))]
    steps = islice(made.steps(0), rows.count(0))
    assert sum(batch.dropped_pieces for step in steps for batch in step) == sum(dropped) > 0


# --- The masks


@pytest.fixture(scope="module")
def similar_words(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file in which each word of one piece is similar to the next."""
    path = tmp_path_factory.mktemp("similar") / "words.tsv"
    pieces = range(10, len(vocabulary(SMALL)) - 1)
    write_similar_words(path, vocabulary(SMALL), [((n,), (n + 1,), 0.5) for n in pieces])
    return str(path)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("builder", BUILDERS)
def test_rows_are_masked_by_the_function_that_the_package_exports(
    builder: str, strategy: str, similar_words: str
) -> None:
    similar = similar_words if strategy == "mac" else ""
    masking = MaskingSettings(
        strategy=strategy, rate=0.2, max_predictions=6, per_word=True, random_pieces="all",
        mask_share=0.6, random_share=0.3, similar_words=similar,
    )  # fmt: skip
    made = loader(builder=builder, masking=masking, batch_size=20)
    rows = make_rows(builder, shards(SMALL), cls_id=CLS, sep_id=SEP, sequence_length=40, seed=5)
    expected = {}
    for index in range(rows.count(0)):
        rng = generator(5, MASKS, 0, index)
        row = rows.row(0, index, rng)
        inputs, labels = zhbert.mask_words(
            row.piece_ids,
            row.word_starts,
            strategy=strategy,
            rate=0.2,
            max_predictions=6,
            vocabulary=vocabulary(SMALL),
            rng=rng,
            random_pieces="all",
            per_word=True,
            mask_share=0.6,
            random_share=0.3,
            similar_words=similar,
        )
        expected[tuple(row.piece_ids.tolist())] = (inputs.tolist(), labels.tolist())
    for batches in islice(made.steps(0), rows.count(0) // 20):
        for row, masked in zip(rows_of(batches), masked_rows(batches), strict=True):
            assert masked == expected[row]


@cache
def word_starts(count: int) -> dict[int, bool]:
    return {
        piece: index == 0
        for document in documents(count)
        for line in document
        for sentence in line
        for word in sentence
        for index, piece in enumerate(word)
    }


# Similar words are held against their reference in test_similar_words.py.
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "mac"])
@pytest.mark.parametrize("builder", ["pairs", "full-sentences"])
def test_the_loader_s_masks_are_distributed_as_the_reference_s(builder: str, strategy: str) -> None:
    """By row: predictions; of one predicted word a row: its length, its span, its actions."""
    masking = MaskingSettings(strategy=strategy)
    made = loader(LARGE, builder=builder, masking=masking, sequence_length=64, batch_size=250)
    starts = word_starts(LARGE)
    names = ("predictions", "length", "span", "action")
    ours: dict[str, Counter] = {name: Counter() for name in names}
    theirs: dict[str, Counter] = {name: Counter() for name in names}
    rng = random.Random(1)
    for batches in islice(made.steps(0), 5):
        for row, (inputs, labels) in zip(rows_of(batches), masked_rows(batches), strict=True):
            flags = [starts.get(piece, True) for piece in row]
            chosen = reference_masking.choose(row, flags, {CLS, SEP}, strategy=strategy, rng=rng)
            expected = reference_masking.replace(
                row, chosen, mask_id=MASK, random_pieces=range(10, len(vocabulary(LARGE))), rng=rng
            )
            segments = reference_masking.words_of(row, flags, {CLS, SEP})
            words = [word for segment in segments for word in segment]
            if strategy == "char":
                words = [[position] for word in words for position in word]
            _count(ours, row, words, inputs, labels)
            _count(theirs, row, words, *expected)
    for name in names:
        p = two_sample_p(ours[name], theirs[name])
        assert p > UNLIKELY, (name, p, ours[name], theirs[name])
    actions = [ours["action"][kind] for kind in ("mask", "random", "kept")]
    due = [share * sum(actions) for share in (0.8, 0.1, 0.1)]
    assert chi_square_p(actions, due) > UNLIKELY


def _count(
    counts: dict[str, Counter],
    row: tuple[int, ...],
    words: list[list[int]],
    inputs: list[int],
    labels: list[int],
) -> None:
    predicted = {position for position, label in enumerate(labels) if label != IGNORED}
    chosen = [set(word) <= predicted for word in words]
    assert sum(len(word) for word, hit in zip(words, chosen, strict=True) if hit) == len(predicted)
    # Rows differ in length, so predictions are counted beside the row's quota.
    limit = reference_masking.quota_of(len(row), 0.15, 20)
    counts["predictions"][limit // 3, len(predicted) - limit] += 1
    picks = [index for index, hit in enumerate(chosen) if hit]
    if not picks:
        return
    first = last = picks[row[1] % len(picks)]
    word = words[first]
    counts["length"][len(word)] += 1
    while first and chosen[first - 1]:
        first -= 1
    while last + 1 < len(words) and chosen[last + 1]:
        last += 1
    counts["span"][min(last - first + 1, 8)] += 1
    piece = inputs[word[0]]
    kind = "mask" if piece == MASK else "kept" if piece == row[word[0]] else "random"
    counts["action"][kind] += 1


def test_long_words_of_short_rows_are_masked_as_often_as_published_for_wwm_unbiased() -> None:
    """On the loader's own output: wwm has the length bias, wwm-unbiased has none."""
    starts = word_starts(LARGE)
    rates = {}
    for strategy in ("wwm", "wwm-unbiased"):
        made = loader(
            LARGE, builder="full-sentences", masking=MaskingSettings(strategy=strategy),
            sequence_length=32, batch_size=500,
        )  # fmt: skip
        seen, hit = Counter(), Counter()
        for batches in islice(made.steps(0), 2 * made.rows_per_epoch // 500):
            for row, (_, labels) in zip(rows_of(batches), masked_rows(batches), strict=True):
                flags = [starts.get(piece, True) for piece in row]
                for segment in reference_masking.words_of(row, flags, {CLS, SEP}):
                    for word in segment:
                        seen[len(word)] += 1
                        hit[len(word)] += labels[word[0]] != IGNORED
        rates[strategy] = [hit[size] / seen[size] for size in range(1, 7)]
    biased, fair = rates["wwm"], rates["wwm-unbiased"]
    assert biased[0] > 1.3 * biased[1] > 1.3 * 1.1 * biased[2]
    assert biased[5] < 0.01
    assert fair == pytest.approx([sum(fair) / 6] * 6, rel=0.15), fair


def test_masks_differ_between_epochs_and_static_ones_repeat() -> None:
    def epochs(static: int, count: int) -> list[dict[tuple[int, ...], tuple]]:
        made = loader(builder="lines", masking=MaskingSettings(static_masks=static), batch_size=1)
        size = made.rows_per_epoch
        found = []
        for epoch in range(count):
            steps = islice(made.steps(epoch * size), size)
            found.append({row: masked_rows(step)[0] for step in steps for row in rows_of(step)})
        return found

    dynamic = epochs(0, 3)
    assert all(one != other for one, other in pairwise(dynamic))
    fixed = epochs(2, 5)
    assert fixed[0] == fixed[2] == fixed[4]
    assert fixed[1] == fixed[3] != fixed[0]
    same = [fixed[0][row] == fixed[1][row] for row in fixed[0] if len(row) > 20]
    assert np.mean(same) < 0.1


def test_static_masks_repeat_the_pairs_too_but_not_their_order() -> None:
    made = loader(masking=MaskingSettings(static_masks=2), batch_size=1)
    rows = make_rows("pairs", shards(SMALL), cls_id=CLS, sep_id=SEP, sequence_length=40, seed=5)
    sizes = [rows.count(epoch % 2) for epoch in range(5)]
    found = []
    steps = made.steps(0)
    for size in sizes:
        found.append([masked_rows(next(steps))[0] for _ in range(size)])
    assert sorted(found[0]) == sorted(found[2]) == sorted(found[4])
    assert sorted(found[1]) == sorted(found[3]) != sorted(found[0])
    assert found[0] != found[2]


def test_the_rate_follows_its_schedule() -> None:
    made = loader(
        builder="full-sentences",
        masking=MaskingSettings(strategy="char", rate=0.30, final_rate=0.15),
        total_steps=11,
    )
    for step, batches in enumerate(islice(made.steps(0), 13)):
        rate = 0.30 - 0.15 * min(step, 10) / 10
        for inputs, labels in masked_rows(batches):
            predicted = sum(label != IGNORED for label in labels)
            assert predicted == reference_masking.quota_of(len(inputs), rate, 20)


# --- The native module

native = pytest.mark.skipif(loader_module._rows is None, reason="the native module is missing")

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(0x4E00, 0x4E19))]


@cache
def few_pieces(similar_words: str = "") -> MaskingVocabulary:
    """So few that marks and words with similar ones occur in the middle of a text."""
    return MaskingVocabulary(PIECES, similar_words=similar_words)


@pytest.fixture(scope="module")
def similar_pieces(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file in which half of the words of one or two pieces have similar ones, one or several."""
    path = tmp_path_factory.mktemp("similar") / "words.tsv"
    ones = [((a,), (b,), 0.5) for a in range(5, 17) for b in range(5, 17) if a + b & 3 == 0]
    twos = [((a, b), (b, a), 0.5) for a in range(5, 30) for b in range(5, 17) if a != b]
    write_similar_words(path, PIECES, [*ones, *twos])
    return str(path)


def shards_of_few_pieces(seed: int, sizes: list[int], dtype: type) -> list[MemoryShard]:
    rng = random.Random(seed)
    made = []
    for size in sizes:
        shard = MemoryShard(reference_rows.random_documents(size, rng, words=20))
        vars(shard)["pieces"] = np.array(rng.choices(range(30), k=len(shard.pieces)), dtype)
        made.append(shard)
    return made


settings_of_masking = st.builds(
    MaskingSettings,
    strategy=st.sampled_from(list(STRATEGIES)),
    rate=st.sampled_from([0.02, 0.15, 0.5, 1.0]),
    max_predictions=st.sampled_from([1, 7, 100]),
    char_share=st.sampled_from([0.0, 0.4]),
    static_masks=st.integers(0, 2),
    per_word=st.booleans(),
    mask_share=st.sampled_from([0.0, 0.5]),
    random_share=st.sampled_from([0.0, 0.5]),
)


@native
@settings(max_examples=60)
@given(
    masking=settings_of_masking,
    corpus=st.tuples(
        st.integers(0, 1000),
        st.lists(st.integers(1, 8), min_size=1, max_size=4),
        st.sampled_from([np.uint16, np.uint32]),
    ),
    builder=st.sampled_from(BUILDERS),
    length=st.sampled_from([5, 16, 41]),
    seed=st.integers(0, 2**65),
    first=st.integers(0, 300),
    rows=st.integers(1, 40),
)
def test_a_batch_is_the_plain_version_s_with_any_number_of_threads(
    similar_pieces: str, masking: MaskingSettings, corpus: Any, builder: str, length: int,
    seed: int, first: int, rows: int,
) -> None:  # fmt: skip
    masking = replace(masking, similar_words=similar_pieces)
    shards = shards_of_few_pieces(*corpus)

    def batches(threads: int) -> list[MaskedBatch]:
        made = loader_over(
            shards, few_pieces(similar_pieces), builder=builder, sequence_length=length,
            masking=masking, seed=seed, batch_size=rows, micro_batch_size=rows, threads=threads,
        )  # fmt: skip
        return [*made.rows(first, first + rows), *made.evaluation(rows, strategy="ngram")]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader_module, "PIECES_PER_THREAD", 1)
        ours = batches(1)
        for threads in (2, 3, 4):
            assert_same_batches(batches(threads), ours)
        for module in (loader_module, masking_module, row_plans):
            patch.setattr(module, "_rows", None)
        assert_same_batches(batches(1), ours)


@native
@pytest.mark.parametrize("strategy", ["char", "mac"])
def test_a_strategy_from_outside_masks_in_python(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nothing:
        def choose(self, words: Any, limit: int, rng: np.random.Generator) -> list[Any]:
            return []

    monkeypatch.setitem(STRATEGIES, strategy, Nothing())
    masking = MaskingSettings(
        **({"strategy": strategy} if strategy == "mac" else {"char_share": 1.0})
    )
    batch = loader(masking=masking).step(0)[0]
    assert not len(batch.labels)
    assert batch.packed.num_rows == 16


@native
def test_rows_without_a_word_have_no_predictions() -> None:
    (shard,) = shards_of_few_pieces(0, [3], np.uint16)
    shard.pieces[:] = PIECES.index("[PAD]")
    batch = loader_over([shard], few_pieces(), builder="lines", batch_size=2).step(0)[0]
    assert batch.packed.num_rows == 2
    assert batch.labels.shape == batch.predicted_positions.shape == (0,)


def arguments_of_a_batch() -> dict[str, Any]:
    """A row [CLS] 5 6 [SEP] 7 [SEP] of the second of two shards, with two documents."""
    few = few_pieces()
    return {
        "shards": tuple(
            (base, np.arange(5, 8, dtype=np.uint16), np.array([7], np.uint8), np.array([0, 2, 3]))
            for base in (0, 3)
        ),
        "plan": np.array([[3, 3, 3, 0, 0]]),
        "first_key": 1,
        "keys": np.array([1], np.uint64),
        "max_pieces": -1,
        "strategy": 1,
        "char_share": 0.0,
        "rate": 0.15,
        "settings": Masker(MaskingSettings(), few).native_settings,
        "threads": 1,
    }


@native
def test_the_native_batch_is_packed() -> None:
    arguments = arguments_of_a_batch()
    made = loader_module._rows.make_batch(*arguments.values())
    pieces, types, positions, begins, predicted, labels, _, longest, dropped = made
    ids = np.frombuffer(pieces, np.int64).copy()
    ids[np.frombuffer(predicted, np.int64)] = np.frombuffer(labels, np.int64)
    assert ids.tolist() == [2, 5, 6, 3, 7, 3]
    assert np.frombuffer(types, np.int64).tolist() == [0] * 6
    assert np.frombuffer(positions, np.int64).tolist() == [*range(6)]
    assert np.frombuffer(begins, np.int32).tolist() == [0, 6]
    assert (longest, dropped) == (6, 0)


def shard_with(place: int, value: Any) -> tuple[tuple[Any, ...], ...]:
    first, second = arguments_of_a_batch()["shards"]
    return first, (*second[:place], value, *second[place + 1 :])


@native
@pytest.mark.parametrize(
    "changed",
    [
        {"plan": np.array([[6, 1, 0, 0, 0]])},
        {"plan": np.array([[4, 3, 0, 0, 0]])},
        {"plan": np.array([[-1, 1, 0, 0, 0]])},
        {"plan": np.array([[3, -1, 0, 0, 0]])},
        {"plan": np.array([[3, 2**62, 0, 0, 0]])},
        {"plan": np.array([[3, 3, 3, 4, 0]]), "max_pieces": 2},
        {"plan": np.array([[3, 3, 0, 0]])},
        {"plan": np.array([[3, 3, 3, 0, 0]], np.int32)},
        {"keys": np.array([1, 2], np.uint64)},
        {"shards": ()},
        {"shards": (None,)},
        {"shards": shard_with(0, -5)},
        {"shards": shard_with(1, np.arange(3.0))},
        {"shards": shard_with(2, np.empty(0, np.uint8))},
        {"shards": shard_with(3, np.array([0, 2, 1, 2, 3]))},
        {"settings": ()},
        {"settings": None},
        {"strategy": 4},
        {"threads": 0},
    ],
    ids=str,
)  # fmt: skip
def test_malformed_arguments_of_the_native_batch_are_errors(changed: dict[str, Any]) -> None:
    arguments = arguments_of_a_batch()
    with pytest.raises((ValueError, TypeError, SystemError)):
        loader_module._rows.make_batch(*(arguments | changed).values())


# --- Evaluation


def test_evaluation_masks_are_fixed_and_do_not_depend_on_how_training_is_shared() -> None:
    made = loader(builder="pairs", micro_batch_size=8)
    first = made.evaluation(50)
    list(islice(made.steps(0), 40))
    assert_same_batches(made.evaluation(50), first)
    other = loader(builder="pairs", batch_size=24, rank=1, world_size=3, total_steps=9)
    assert masked_rows(other.evaluation(50)) == masked_rows(first)
    # They derive from the loader's seed, and from nothing else of the run.
    assert masked_rows(loader(builder="pairs", seed=6).evaluation(50)) != masked_rows(first)


def test_evaluation_keeps_the_first_rate_of_a_schedule() -> None:
    changing = loader(masking=MaskingSettings(rate=0.3, final_rate=0.1), total_steps=5)
    list(islice(changing.steps(0), 6))
    constant = loader(masking=MaskingSettings(rate=0.3))
    assert masked_rows(changing.evaluation(40)) == masked_rows(constant.evaluation(40))


@pytest.mark.parametrize("builder", BUILDERS)
def test_evaluation_by_another_strategy_is_over_the_same_rows(builder: str) -> None:
    made = loader(builder=builder, masking=MaskingSettings(strategy="wwm"))
    whole, characters = made.evaluation(60), made.evaluation(60, strategy="char")
    assert rows_of(whole) == rows_of(characters)
    assert masked_rows(whole) != masked_rows(characters)
    assert len(set(rows_of(whole))) == 60
    by_character = loader(builder=builder, masking=MaskingSettings(strategy="char")).evaluation(60)
    assert masked_rows(by_character) == masked_rows(characters)


def test_evaluation_takes_no_more_rows_than_there_are() -> None:
    made = loader(builder="lines", micro_batch_size=9)
    batches = made.evaluation(10**6)
    assert len(rows_of(batches)) == made.rows_per_epoch
    assert all(len(batch.packed.cu_seqlens) == 10 for batch in batches[:-1])
    assert made.evaluation(0) == []


# --- Mistakes


@pytest.mark.parametrize("builder", BUILDERS)
def test_an_empty_split_is_one_clear_line(builder: str) -> None:
    for empty in ([], [MemoryShard([])]):
        with pytest.raises(ZhbertError, match="no rows") as error:
            loader_over(empty, vocabulary(SMALL), builder=builder, batch_size=4)
        assert "\n" not in str(error.value)


def test_fewer_rows_than_processes_is_one_clear_line() -> None:
    with pytest.raises(ZhbertError, match="batch_size = 2 is less than the 3 processes"):
        loader(batch_size=2, world_size=3)


# --- Shards on disk, and real text


@pytest.mark.parametrize("builder", BUILDERS)
def test_batches_from_shards_on_disk_are_those_from_memory(builder: str, tmp_path: Path) -> None:
    on_disk = []
    for number, shard in enumerate(shards(SMALL)):
        flags = np.unpackbits(shard.word_start_bits, bitorder="little")[: len(shard.pieces)]
        path = tmp_path / f"train-{number:05d}.arrow"
        write_shard(
            path,
            Documents(
                shard.pieces.astype(np.uint16),
                flags.view(bool),
                shard.document_starts,
                shard.sentence_starts(),
                shard.line_starts(),
            ),
        )
        on_disk.append(Shard(path))
    made = loader_over(on_disk, vocabulary(SMALL), builder=builder, batch_size=16)
    for step in (0, 8, 31):
        assert_same_batches(made.step(step), loader(builder=builder).step(step))


@pytest.fixture(scope="module")
def real_corpus(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Half a megabyte of real text, prepared."""
    folder = tmp_path_factory.mktemp("real")
    files = []
    for name in ("wiki", "history", "reviews"):
        with (data / "corpus" / f"{name}.txt").open("rb") as file:
            text = file.read(170_000).decode("utf-8", errors="ignore")
        files.append(folder / f"{name}.txt")
        files[-1].write_text(text, encoding="utf-8")
    zhbert.prepare(files, folder / "corpus", workers=1)
    return Corpus.open(folder / "corpus")


def test_a_prepared_corpus_keeps_what_the_builders_rely_on(real_corpus: Corpus) -> None:
    for shard in real_corpus.shards("train"):
        words = set(np.flatnonzero(shard.word_starts()).tolist())
        sentences = set(shard.sentence_starts().tolist())
        lines = set(shard.line_starts().tolist())
        documents = set(shard.document_starts[:-1].tolist())
        assert documents <= lines <= sentences <= words


@pytest.mark.parametrize("builder", ["full-sentences", "lines"])
def test_packed_rows_of_real_text_lose_nothing(real_corpus: Corpus, builder: str) -> None:
    shards = real_corpus.shards("train")
    tokenizer = Tokenizer.from_pretrained(real_corpus.folder)
    marks = [tokenizer.cls_id, tokenizer.sep_id]
    rows = make_rows(builder, shards, cls_id=marks[0], sep_id=marks[1], sequence_length=128, seed=0)
    ids = [rows.row(0, i, generator(0, 2, 0, i)).piece_ids for i in range(rows.count(0))]
    assert max(map(len, ids)) <= 128
    flat = np.concatenate(ids)
    whole = np.concatenate([shard.pieces for shard in shards])
    assert np.array_equal(flat[~np.isin(flat, marks)], whole)


@pytest.mark.parametrize(
    ("strategy", "published"),
    [
        ("wwm", (17.0, 15.0, 14.0, 13.9)),
        ("wwm-unbiased", (15.0, 15.0, 15.0, 15.0)),
    ],
)
def test_words_of_real_text_are_masked_as_often_as_published(
    real_corpus: Corpus, strategy: str, published: tuple[float, ...]
) -> None:
    """Rows of 128: the rate by word length, on the loader's own output over four epochs."""
    shards = real_corpus.shards("train")
    tokenizer = Tokenizer.from_pretrained(real_corpus.folder)
    marks = {tokenizer.cls_id, tokenizer.sep_id}
    rows = make_rows(
        "full-sentences", shards, cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id,
        sequence_length=128, seed=0,
    )  # fmt: skip
    flags = {}
    for index in range(rows.count(0)):
        row = rows.row(0, index, generator(0, 2, 0, index))
        flags[tuple(row.piece_ids.tolist())] = row.word_starts.tolist()
    made = loader_over(
        shards, tokenizer.vocabulary, builder="full-sentences", sequence_length=128,
        batch_size=100, masking=MaskingSettings(strategy=strategy), seed=0,
    )  # fmt: skip
    seen, hit = Counter(), Counter()
    for batches in islice(made.steps(0), 4 * made.rows_per_epoch // 100):
        for row, (_, labels) in zip(rows_of(batches), masked_rows(batches), strict=True):
            if len(row) < 120:  # the last row of a shard
                continue
            for segment in reference_masking.words_of(row, flags[row], marks):
                for word in segment:
                    predicted = [labels[position] != IGNORED for position in word]
                    assert len(set(predicted)) == 1
                    seen[len(word)] += 1
                    hit[len(word)] += predicted[0]
    rates = [100 * hit[size] / seen[size] for size in range(1, 5)]
    assert rates == pytest.approx(published, abs=1.5), rates
