"""The teacher's best pieces on disk: what is read is what was computed, once for each row."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from threading import Barrier
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tests.data.reference_rows import MemoryShard, random_documents
from tests.pretraining_loaders import loader_over

from zhbert.config import MaskingSettings
from zhbert.data.loader import GrowingRows, MaskedBatch, PretrainingLoader
from zhbert.distill.cache import SoftLabelCache, TaughtBatch
from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig
from zhbert.model.distilled_loss import BestPieces, best_pieces
from zhbert.model.pretrained import BertForPreTraining
from zhbert.train.distributed import Ranks

K, STEPS = 10, 12


@cache
def shards() -> list[MemoryShard]:
    return [MemoryShard(random_documents(25, random.Random(1)))]


@cache
def vocabulary() -> list[str]:
    pieces = max(int(shard.pieces.max()) for shard in shards()) + 1
    marks = ["[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]"]
    return [*marks, *(f"p{i}" for i in range(pieces))]


def loader(length: int = 40, batch_size: int = 8, **options: Any) -> PretrainingLoader:
    options = {"builder": "full-sentences", "micro_batch_size": 3, "total_steps": STEPS} | options
    return loader_over(
        shards(), vocabulary(), sequence_length=length, batch_size=batch_size, **options
    )


def rows(**options: Any) -> GrowingRows:
    """Five steps of short rows, then longer ones."""
    return GrowingRows([(5, loader(20, 16, **options))], loader(**options))


@dataclass
class FakeTeacher:
    """Logits that are a function of the masked piece's neighbourhood; counts its rows."""

    rows: int = 0
    until: float = float("inf")

    def __call__(self, batch: MaskedBatch) -> BestPieces:
        if self.rows >= self.until:
            raise KeyboardInterrupt
        self.rows += batch.packed.num_rows
        ids = batch.packed.input_ids
        places = batch.predicted_positions
        around = ids[places] + 7 * ids[places - 1] + 31 * ids[(places + 1).clamp(max=len(ids) - 1)]
        columns = torch.arange(len(vocabulary()))
        return best_pieces(torch.sin((around + 1)[:, None] * (columns + 1.0)) * 12 + 3, K)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SoftLabelCache]:
    monkeypatch.setattr("zhbert.distill.cache._PIECES", 400)  # ten rows a block

    def make(**identity: Any) -> SoftLabelCache:
        found = SoftLabelCache(tmp_path / "cache", K, len(vocabulary()))
        found.begin({"teacher": "0" * 64, "masking": {"rate": 0.15}} | identity)
        return found

    return make


def filled(found: SoftLabelCache, of: GrowingRows, steps: range = range(STEPS)) -> int:
    """Fill a cache; return how many rows the teacher had to compute."""
    teacher = FakeTeacher()
    assert found.missing(of, steps) >= 0
    found.fill(of, steps, teacher, Ranks())
    return teacher.rows


def assert_labels_are_live(found: SoftLabelCache, of: GrowingRows, first: int = 0) -> None:
    teacher, labelled = FakeTeacher(), found.labelled(of, first)
    for step in range(first, STEPS):
        live, cached = of.loader_at(step).step(step), next(labelled)
        for plain, batch in zip(live, cached, strict=True):
            assert torch.equal(batch.packed.input_ids, plain.packed.input_ids)
            assert batch.first_row == plain.first_row
            expected = teacher(plain)
            assert torch.equal(batch.best.pieces, expected.pieces)
            below = expected.logits - expected.logits[:, :1]
            torch.testing.assert_close(batch.best.logits, below, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "masking",
    [
        MaskingSettings(),
        MaskingSettings(static_masks=2),
        MaskingSettings(rate=0.3, final_rate=0.1),
        MaskingSettings(static_masks=1, rate=0.3, final_rate=0.1),
    ],
)
@pytest.mark.parametrize("builder", ["full-sentences", "pairs"])
def test_what_is_read_is_what_the_teacher_says(
    made: Callable[..., SoftLabelCache], masking: MaskingSettings, builder: str
) -> None:
    options = {"masking": masking, "builder": builder}
    filled(made(), rows(**options))
    assert_labels_are_live(made(), rows(**options))
    assert_labels_are_live(made(), rows(**options), first=4)


def test_every_row_is_computed_once(made: Callable[..., SoftLabelCache]) -> None:
    needed = 5 * 16 + (STEPS - 5) * 8
    # The longer rows begin in the middle of a block.
    assert needed <= filled(made(), rows()) < needed + 10
    assert filled(made(), rows()) == 0
    # As a longer run begins with the same rows, it needs no others.
    assert 8 <= filled(made(), rows(), range(STEPS + 1)) < 8 + 10


def test_with_static_masks_the_repeated_epochs_need_nothing(
    made: Callable[..., SoftLabelCache],
) -> None:
    repeated = GrowingRows([], loader(masking=MaskingSettings(static_masks=2)))
    epochs = 2 * repeated.rows_per_epoch
    steps = range(epochs // 8 + 1)
    assert filled(made(), repeated, steps) == epochs
    assert filled(made(), repeated, range(10 * len(steps))) == 0


def test_a_run_divided_in_another_way_reads_the_same(made: Callable[..., SoftLabelCache]) -> None:
    filled(made(), rows())
    other = GrowingRows([(5, loader(20, 16, micro_batch_size=5))], loader(micro_batch_size=0))
    assert filled(made(), other) == 0
    assert_labels_are_live(made(), other)


def test_a_kill_loses_no_finished_block(made: Callable[..., SoftLabelCache]) -> None:
    every = filled(made(), rows())
    for path in made().folder.rglob("*.labels"):
        path.unlink()
    with pytest.raises(KeyboardInterrupt):
        made().fill(rows(), range(STEPS), FakeTeacher(until=every // 2), Ranks())
    assert 0 < filled(made(), rows()) <= every - every // 2 + 20
    assert_labels_are_live(made(), rows())


class Together(Ranks):
    """One of three processes in threads of a test: their exchanges wait for each other."""

    barrier = Barrier(3, timeout=20)
    values: ClassVar[dict[int, list[float]]] = {}

    def sum(self, values: Any) -> list[float]:
        self.values[self.rank] = list(values)
        self.barrier.wait()
        found = [sum(column) for column in zip(*self.values.values(), strict=True)]
        self.barrier.wait()
        return found


def fill_together(make: Callable[..., SoftLabelCache], teachers: list[FakeTeacher]) -> list[Any]:
    """Fill a cache with a process for each teacher; return their errors."""
    found = [make() for _ in teachers]

    def work(rank: int) -> ZhbertError | None:
        try:
            found[rank].fill(rows(), range(STEPS), teachers[rank], Together(rank, 3))
        except ZhbertError as error:
            return error
        return None

    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(work, range(3)))


def test_processes_share_the_blocks(made: Callable[..., SoftLabelCache]) -> None:
    teachers = [FakeTeacher() for _ in range(3)]
    assert fill_together(made, teachers) == [None] * 3
    assert max(t.rows for t in teachers) - min(t.rows for t in teachers) <= 20
    assert filled(made(), rows()) == 0
    for path in made().folder.rglob("*.labels"):
        path.unlink()
    assert filled(made(), rows()) == sum(teacher.rows for teacher in teachers)


def test_every_process_hears_of_an_error_in_one(
    made: Callable[..., SoftLabelCache],
) -> None:
    @dataclass
    class Broken(FakeTeacher):
        def __call__(self, batch: MaskedBatch) -> BestPieces:
            best = super().__call__(batch)
            return replace(best, logits=best.logits * np.nan)

    errors = fill_together(made, [FakeTeacher(), Broken(), FakeTeacher()])
    assert [str(error).partition(": ")[2] for error in errors[::2]] == [
        "another process could not fill it"
    ] * 2
    assert "not finite" in str(errors[1])


def test_at_most_40_bytes_a_predicted_piece(tmp_path: Path) -> None:
    of = GrowingRows([], loader(128))
    found = SoftLabelCache(tmp_path / "cache", K, 21_128)
    found.begin({})
    filled(found, of)
    size = sum(path.stat().st_size for path in found.folder.rglob("*.labels"))
    predicted = sum(len(b.labels) for step in range(STEPS) for b in of.loader_at(step).step(step))
    assert size / predicted < 38.5


# -- refusals


def test_labels_of_something_else_are_refused_by_name(
    made: Callable[..., SoftLabelCache],
) -> None:
    made()
    with pytest.raises(ZhbertError, match=r"cache: the soft labels of another run: teacher differ"):
        made(teacher="1" * 64)
    with pytest.raises(ZhbertError, match=r"another run: masking.rate was 0.15, is 0.3; choose"):
        made(masking={"rate": 0.3})


def test_a_folder_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ZhbertError, match=r"not a cache of soft labels; choose another distill\.c"):
        SoftLabelCache(tmp_path, K, 100).begin({})


@pytest.mark.parametrize("size", [0, 3, 100, -1])
def test_a_damaged_block_is_named(made: Callable[..., SoftLabelCache], size: int) -> None:
    filled(made(), rows())
    (path, *_) = sorted(made().folder.rglob("*.labels"))
    whole = path.read_bytes()

    def use() -> None:
        filled(made(), rows())
        assert_labels_are_live(made(), rows())

    path.write_bytes(whole[:size])
    with pytest.raises(ZhbertError, match=f"{path.name}.*delete this file, and the next run makes"):
        use()
    path.write_bytes(whole[:200] + b"x" + whole[201:])
    with pytest.raises(ZhbertError, match="its checksum differs; delete this file"):
        use()
    path.unlink()
    assert filled(made(), rows()) > 0
    assert_labels_are_live(made(), rows())


def test_rows_with_other_masks_are_noticed(made: Callable[..., SoftLabelCache]) -> None:
    filled(made(), rows())
    other = rows(masking=MaskingSettings(rate=0.4))
    with pytest.raises(ZhbertError, match="its rows have other masks than the run's"):
        list(zip(range(STEPS), made().labelled(other), strict=False))


def test_scores_that_are_not_finite_are_not_kept(made: Callable[..., SoftLabelCache]) -> None:
    def broken(batch: MaskedBatch) -> BestPieces:
        best = FakeTeacher()(batch)
        return replace(best, logits=best.logits * np.nan)

    with pytest.raises(ZhbertError, match="the teacher's scores are not finite"):
        made().fill(rows(), range(STEPS), broken, Ranks())
    assert not list(made().folder.rglob("*.labels"))


# -- with models


def test_losses_are_those_of_the_live_teacher(made: Callable[..., SoftLabelCache]) -> None:
    """Half precision changes them by less than a ten-thousandth; the goal is a hundredth."""
    shape = {"vocab_size": len(vocabulary()), "num_attention_heads": 2, "num_hidden_layers": 1}
    teacher = BertForPreTraining(BertConfig(**shape, hidden_size=32), seed=1).eval()
    student = BertForPreTraining(BertConfig(**shape, hidden_size=16), seed=2).eval()
    for model in (teacher, student):
        model.scale_initial_weights(np.arange(len(vocabulary())) ** 2)

    def states(model: BertForPreTraining, batch: MaskedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        states, _ = model.states_for_heads(
            batch.packed, batch.predicted_positions, with_first=False
        )
        return states, model.encoder.embeddings.words.weight

    def teach(batch: MaskedBatch) -> BestPieces:
        with torch.no_grad():
            return teacher.mlm_head.best(*states(teacher, batch), K)

    def soft(batch: TaughtBatch, best: BestPieces) -> float:
        loss = student.mlm_head.distilled_loss(
            *states(student, batch), batch.labels, best, temperature=2.0
        )
        return loss[2].item()

    made().fill(rows(), range(STEPS), teach, Ranks())
    for _, batches in zip(range(STEPS), made().labelled(rows()), strict=False):
        for batch in batches:
            assert soft(batch, batch.best) == pytest.approx(soft(batch, teach(batch)), rel=1e-4)
