"""Large corpora: windows of shards, each row once an epoch, a pure function of seed and step."""

from __future__ import annotations

import random
import weakref
from collections import Counter
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data import reference_rows
from tests.data.reference_rows import CLS, SEP, MemoryShard
from tests.data.test_loader import assert_same_batches, masked_rows, rows_of

from zhbert.config import MaskingSettings
from zhbert.data import row_windows
from zhbert.data.examples import BUILDERS, make_rows
from zhbert.data.loader import GrowingRows, MaskedBatch, PretrainingLoader
from zhbert.data.masking import Masker
from zhbert.data.random_streams import MASKS, generator
from zhbert.data.row_order import WholeCorpus
from zhbert.data.row_windows import ShardWindows, rows_of_split
from zhbert.data.shards import Documents, Shards, write_shard
from zhbert.errors import ZhbertError

SHARDS, BATCH = 12, 16


class MemoryShards(list[MemoryShard]):
    """Shards that know their sizes, as those of a corpus do."""

    @property
    def entries(self) -> list[dict[str, int]]:
        return [
            {"pieces": len(shard.pieces), "sentences": len(shard.sentence_starts())}
            for shard in self
        ]

    @property
    def piece_bytes(self) -> int:
        return 2 * sum(len(shard.pieces) for shard in self)


@cache
def shards() -> MemoryShards:
    """Twelve shards of eight documents; every piece of the corpus is another one."""
    documents = reference_rows.random_documents(8 * SHARDS, random.Random(1))
    return MemoryShards(MemoryShard(documents[8 * n : 8 * n + 8]) for n in range(SHARDS))


@cache
def vocabulary() -> list[str]:
    marks = ["[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", *(f"[unused{i}]" for i in range(5))]
    return [*marks, *(f"p{i}" for i in range(shards().piece_bytes // 2))]


def source(builder: str, length: int = 40, **options: Any) -> Any:
    """Four windows of about three shards."""
    size = sum(max(entry["pieces"], 20 * entry["sentences"]) for entry in shards().entries)
    defaults = {"whole_bytes": 0, "window_pieces": size // 4}
    return rows_of_split(
        builder, shards(), cls_id=CLS, sep_id=SEP, sequence_length=length, seed=5,
        **(defaults | options),
    )  # fmt: skip


def loader(
    builder: str = "pairs", *, static: int = 0, length: int = 40, **options: Any
) -> PretrainingLoader:
    masker = Masker(MaskingSettings(static_masks=static), vocabulary())
    return PretrainingLoader(
        source(builder, length), masker, seed=5, **({"batch_size": BATCH} | options)
    )


def stream(made: PretrainingLoader, rows: int) -> list[MaskedBatch]:
    return list(made.rows(0, rows))


def shard_of(piece: int) -> int:
    return next(n for n, shard in enumerate(shards()) if piece in shard.pieces)


def epoch_size(builder: str, epoch: int = 0) -> int:
    made = source(builder)
    return sum(made.count(epoch, window) for window in range(made.windows))


def test_a_small_split_is_planned_as_a_whole_and_a_large_one_in_windows() -> None:
    assert isinstance(source("pairs", whole_bytes=shards().piece_bytes + 1), WholeCorpus)
    large = source("pairs", whole_bytes=shards().piece_bytes)
    assert isinstance(large, ShardWindows)
    assert large.windows == 4


@pytest.mark.parametrize("builder", BUILDERS)
def test_every_row_of_every_window_stands_once_in_an_epoch(builder: str) -> None:
    rows = source(builder)
    for epoch, begin in ((0, 0), (1, epoch_size(builder))):
        expected = Counter(
            tuple(
                made.row(epoch, i, generator(5, MASKS, epoch, window << 28 | i)).piece_ids.tolist()
            )
            for window in range(rows.windows)
            for made in [rows.rows(epoch, window)]
            for i in range(made.count(epoch))
        )
        end = begin + expected.total()
        assert Counter(rows_of(list(loader(builder).rows(begin, end)))) == expected


@pytest.mark.parametrize("builder", ["full-sentences", "lines"])
def test_the_rows_are_those_of_the_corpus_as_a_whole(builder: str) -> None:
    whole = make_rows(builder, shards(), cls_id=CLS, sep_id=SEP, sequence_length=40, seed=5)
    expected = [tuple(whole.row(0, i, generator(0, 0, 0)).piece_ids) for i in range(whole.count(0))]
    assert sorted(rows_of(stream(loader(builder), whole.count(0)))) == sorted(expected)


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_step_is_the_same_wherever_one_starts(builder: str) -> None:
    made = loader(builder, micro_batch_size=6)
    last = 2 * epoch_size(builder) // BATCH
    straight = list(islice(made.steps(0), last + 1))
    for start in (1, last // 3, last - 1, last):
        assert_same_batches(loader(builder, micro_batch_size=6).step(start), straight[start])
        resumed = loader(builder, micro_batch_size=6, window_ends=made.window_ends)
        assert_same_batches(resumed.step(start), straight[start])
    for step in (last, 0, last // 2, 3):
        assert_same_batches(made.step(step), straight[step])


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_a_window(world_size: int) -> None:
    whole = loader()
    ranks = [loader(rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in range(epoch_size("pairs") // BATCH + 2):
        shared = [row for rank in ranks for row in masked_rows(rank.step(step))]
        assert shared == masked_rows(whole.step(step))


def test_another_seed_and_another_epoch_have_other_windows() -> None:
    made = source("lines")
    other = ShardWindows(
        shards(), [1] * SHARDS, partial(pytest.fail), seed=6, sequence_length=40, window_pieces=3
    )
    parts = [
        [windows._numbers(epoch, window).tolist() for window in range(4)]
        for windows, epoch in ((made, 0), (made, 1), (other, 0))
    ]
    assert all(sorted(chain(*part)) == list(range(SHARDS)) for part in parts)
    assert parts[0] != parts[1] != parts[2] != parts[0]


def test_rows_are_read_window_by_window_and_at_random_within_each() -> None:
    made = source("lines")
    found = [row[1] for row in rows_of(stream(loader("lines"), epoch_size("lines")))]
    for window in range(made.windows):
        count = made.count(0, window)
        here, found = found[:count], found[count:]
        assert {shard_of(piece) for piece in here} == set(made._numbers(0, window).tolist())
        places = np.argsort(np.argsort(here))
        for one, other in ((np.arange(count), places), (places[1:], places[:-1])):
            assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(count)


def test_the_random_segment_of_a_pair_is_from_another_document_of_the_window() -> None:
    made = source("pairs")
    across = 0
    for window in range(made.windows):
        members = set(made._numbers(0, window).tolist())
        rows = made.rows(0, window)
        for i in range(rows.count(0)):
            row = rows.row(0, i, generator(0, 0, 0))
            a, b = shard_of(row.piece_ids[1]), shard_of(row.piece_ids[row.first_length])
            assert {a, b} <= members
            across += a != b
            assert a == b or row.next_sentence_label == 1
    assert across > 20


def test_each_window_draws_its_own_pairs_and_masks() -> None:
    plans = [
        make_rows(
            "pairs", shards(), cls_id=CLS, sep_id=SEP, sequence_length=40, seed=5, window=window
        ).plan(0, np.arange(20))
        for window in (0, 1)
    ]
    assert not np.array_equal(*plans)
    ends = (0, epoch_size("pairs") - 1)
    first, last = (next(loader()._order.stretches(place, place + 1)) for place in ends)
    assert first.epoch == last.epoch
    assert first.base != last.base


@pytest.mark.parametrize("builder", BUILDERS)
def test_static_masks_repeat_in_another_order_and_firsts_finds_them(builder: str) -> None:
    made = loader(builder, static=2)
    sizes = [epoch_size(builder, epoch) for epoch in (0, 1)]
    rows = masked_rows(stream(made, 2 * sum(sizes)))
    first, second, third = np.cumsum([*sizes, sizes[0]]).tolist()
    assert sorted(rows[:first]) == sorted(rows[second:third])
    assert rows[:first] != rows[second:third]
    assert sorted(rows[first:second]) == sorted(rows[third:])
    fresh = loader(builder, static=2)
    firsts = fresh.firsts(0, len(rows))
    assert firsts[:second].tolist() == list(range(second))
    assert firsts[second:].max() < second
    assert [rows[place] for place in firsts.tolist()] == rows


def test_no_more_than_two_windows_are_planned_at_a_time() -> None:
    made = loader("lines")
    windows: Any = made._rows
    planned: weakref.WeakSet[Any] = weakref.WeakSet()
    make = windows._make

    def watched(shards: Any, window: int) -> Any:
        rows = make(shards, window)
        planned.add(rows)
        return rows

    windows._make = watched
    highest = 0
    for _ in islice(made.steps(1), 2 * epoch_size("lines") // BATCH):
        highest = max(highest, len(planned))
    assert highest == 2
    made.forget()
    windows._thread.shutdown()
    assert not planned


def test_the_next_window_is_planned_before_it_is_reached() -> None:
    made = loader("lines")
    made.step(0)
    windows: Any = made._rows
    assert list(windows._planned) == [(0, 0), (0, 1)]
    before = windows._planned[0, 1].result()
    assert windows.rows(0, 1) is before


def test_evaluation_takes_rows_of_the_first_epoch() -> None:
    made, size = loader("lines"), epoch_size("lines")
    assert rows_of(made.evaluation(50)) == rows_of(stream(loader("lines"), 50))
    assert len(rows_of(made.evaluation(10 * size))) == size
    assert made.rows_per_epoch == pytest.approx(size, rel=0.3)
    assert loader("pairs").random_share == pytest.approx(0.7, abs=0.2)


def test_short_rows_that_are_done_are_forgotten() -> None:
    short, last = loader(length=10), loader()
    rows = GrowingRows([(3, short)], last)
    list(islice(rows.steps(0), 4))
    windows: Any = short._rows
    assert not windows._planned
    assert list(rows.window_ends) == ["10", "40"]
    assert rows.window_ends["40"] == last.window_ends


@pytest.fixture
def on_disk(tmp_path: Path) -> Shards:
    entries = []
    for number, shard in enumerate(shards()):
        flags = np.unpackbits(shard.word_start_bits, bitorder="little")[: len(shard.pieces)]
        starts = shard.document_starts, shard.sentence_starts(), shard.line_starts()
        contents = Documents(shard.pieces.astype(np.uint16), flags.view(bool), *starts)
        entries.append(write_shard(tmp_path / f"train-{number:05d}.arrow", contents))
    return Shards(tmp_path, entries, len(vocabulary()))


def test_only_the_shards_of_two_windows_are_open(on_disk: Shards) -> None:
    rows = rows_of_split(
        "lines", on_disk, cls_id=CLS, sep_id=SEP, sequence_length=40, seed=5,
        whole_bytes=0, window_pieces=source("lines")._sizes.sum() // 4,
    )  # fmt: skip
    masker = Masker(MaskingSettings(), vocabulary())
    made = PretrainingLoader(rows, masker, batch_size=BATCH, seed=5)
    for step, batches in enumerate(islice(made.steps(0), epoch_size("lines") // BATCH)):
        assert_same_batches(batches, loader("lines").step(step))
        assert len(on_disk.opened) <= 2 * 5


def test_a_shard_that_was_altered_is_noticed_before_its_window_is_read(on_disk: Shards) -> None:
    path = on_disk[0].path
    raw = bytearray(path.read_bytes())
    raw[raw.index(shards()[0].pieces.astype(np.uint16).tobytes())] ^= 1
    path.write_bytes(raw)
    rows = row_windows.rows_of_split(
        "lines", on_disk, cls_id=CLS, sep_id=SEP, sequence_length=40, seed=5, whole_bytes=0
    )
    with pytest.raises(ZhbertError, match=r"train-00000.arrow: its checksum differs"):
        rows.rows(0, 0)
