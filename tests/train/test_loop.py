"""The loop on a toy: means over the global batch, signals, non-finite losses, data in a thread."""

from __future__ import annotations

import copy
import itertools
import math
import os
import signal
import threading
import time

import pytest
import torch
from tests.train import toys

from zhbert.errors import ZhbertError
from zhbert.train.loop import (
    BEGINNING,
    EvaluationSet,
    Judgement,
    LoopSettings,
    Trainer,
    evaluate,
)
from zhbert.train.optim import AdamW
from zhbert.train.prefetch import Prefetcher
from zhbert.train.step import mix


def run(sizes=(5, 2), last_step=6, *, model=None, start=BEGINNING, source=None, **more):
    model = model or toys.ToyModel()
    lines, saved = toys.Lines(), more.pop("saved", [])
    settings = {"last_step": last_step, "clip_norm": 0.5, **more.pop("settings", {})}
    outcome = Trainer(
        model,
        more.pop("objective", None) or toys.ToyObjective(),
        source=source or (lambda step: (toys.toy_step(n, sizes) for n in itertools.count(step))),
        optimizer=AdamW(model.named_parameters()),
        schedule=lambda done: 0.01 * (done + 1),
        settings=LoopSettings(**settings),
        save=saved.append,
        sinks=[lines],
        start=start,
        **more,
    ).train()
    return outcome, lines, saved, model


def test_the_loss_is_the_mean_over_the_whole_batch_however_it_is_cut():
    _, whole, _, first = run(sizes=(7,))
    _, parts, _, second = run(sizes=(5, 1, 1))
    for a, b in zip(whole, parts, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
    torch.testing.assert_close(first.weight, second.weight, rtol=1e-4, atol=1e-6)
    # The first loss by hand: the mean over all 7 predictions, not the mean of means.
    x = torch.cat([batch.x for batch in toys.toy_step(0, (5, 1, 1))])
    y = torch.cat([batch.y for batch in toys.toy_step(0, (5, 1, 1))])
    expected = torch.nn.functional.cross_entropy(toys.ToyModel()(x), y).item()
    assert parts[0]["loss"] == pytest.approx(expected, rel=1e-6)


def test_a_step_line_holds_what_others_read():
    outcome, lines, saved, _ = run(settings={"checkpoint_every": 4})
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    last = lines[-1]
    assert last["pieces"] == 6 * 70
    assert last["masked_lm_loss"] == last["loss"]
    assert last["pairs_loss"] is None
    assert last["learning_rate"] == 0.01 * 6
    assert last["pieces_per_second"] == pytest.approx(70 / last["step_seconds"])
    assert 0 <= last["data_wait"] <= 1
    assert [at.step for at in saved] == [4, 6]
    assert (outcome.step, outcome.pieces, outcome.signal) == (6, 420, None)


def test_parts_are_weighted_in_the_loss_and_logged_without_their_weights():
    plain = run(last_step=1, settings={"clip_norm": 0})[1]
    weights = [(0.5, 1.0), (0.25, 1.0)]
    weighted = run(last_step=2, weights=lambda done: weights[done], settings={"clip_norm": 0})[1]
    assert weighted[0]["masked_lm_loss"] == plain[0]["masked_lm_loss"]
    assert weighted[0]["loss"] == 0.5 * plain[0]["loss"]
    assert weighted[0]["grad_norm"] == pytest.approx(0.5 * plain[0]["grad_norm"], rel=1e-6)
    assert weighted[1]["loss"] == 0.25 * weighted[1]["masked_lm_loss"]


def test_evaluations_may_have_an_objective_of_their_own():
    class Other(toys.ToyObjective):
        def __call__(self, model, batch, seed):
            sums, correct = super().__call__(model, batch, seed)
            return 2 * sums, correct

    sets = [EvaluationSet("dev", toys.toy_step(0))]
    usual, other = (
        run(evaluations=sets, evaluation_objective=objective)[1] for objective in (None, Other())
    )
    losses = [line["masked_lm_loss"] for line in (usual[-1], other[-1])]
    assert losses[1] == pytest.approx(2 * losses[0])
    assert [line["loss"] for line in list(usual)[:-1]] == [
        line["loss"] for line in list(other)[:-1]
    ]


def test_gradients_are_clipped_by_their_global_norm():
    model = toys.ToyModel()
    start = model.weight.detach().clone()

    class Plain:
        def step(self, rate, divisor):
            norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
            assert norm / divisor == pytest.approx(0.01)

    settings = LoopSettings(last_step=1, clip_norm=0.01)
    Trainer(
        model,
        toys.ToyObjective(),
        source=lambda step: iter([toys.toy_step(0)]),
        optimizer=Plain(),
        schedule=lambda done: 0.1,
        settings=settings,
        save=lambda at: None,
    ).train()
    assert torch.equal(start, model.weight)


def test_going_on_repeats_no_step_and_skips_none():
    _, whole, _, _ = run()
    _, first, saved, model = run(last_step=3)
    asked = []

    def source(step):
        asked.append(step)
        return (toys.toy_step(n) for n in itertools.count(step))

    _, second, _, _ = run(model=model, start=saved[-1], source=source)
    assert asked == [3]
    steps = [line["step"] for line in [*first, *second]]
    assert steps == [line["step"] for line in whole]
    assert second[-1]["pieces"] == whole[-1]["pieces"]
    assert second[-1]["seconds"] > first[-1]["seconds"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_its_step_and_saves_nothing(bad):
    def source(step):
        for number in itertools.count(step):
            batches = toys.toy_step(number)
            if number == 3:
                batches[0].x[0, 0] = bad
            yield batches

    saved = []
    with pytest.raises(ZhbertError, match=r"the loss is nan at step 4 \(learning rate 0.04\)$"):
        run(source=source, settings={"checkpoint_every": 1}, saved=saved)
    assert [at.step for at in saved] == [1, 2, 3]


def test_evaluations_come_at_their_steps_and_at_the_end():
    fixed = EvaluationSet(
        "fixed", [*toys.toy_step(99), *toys.toy_step(98)], {"baseline_accuracy": 0.5}
    )
    _, lines, _, model = run(evaluations=[fixed], settings={"evaluate_every": 4})
    found = [line for line in lines if "evaluation" in line]
    assert [line["step"] for line in found] == [4, 6]
    assert found[0]["masked_lm_predictions"] == 14
    assert found[0]["pairs_accuracy"] is None
    assert found[0]["baseline_accuracy"] == 0.5
    again = evaluate(model, toys.ToyObjective(), [fixed], 6)
    assert again == [found[1]]
    x, y = torch.cat([b.x for b in fixed.batches]), torch.cat([b.y for b in fixed.batches])
    assert found[1]["masked_lm_accuracy"] == (model(x).argmax(-1) == y).double().mean().item()


def test_evaluations_that_were_lost_are_made_when_the_run_goes_on():
    fixed = [EvaluationSet(name, toys.toy_step(99)) for name in ("one", "two")]
    more = {"evaluations": fixed, "settings": {"evaluate_every": 2, "checkpoint_every": 2}}

    class Interrupting(toys.ToyObjective):
        interrupted = False

        def __call__(self, model, batch, seed):
            if not model.training and not self.interrupted:
                self.interrupted = True
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(model, batch, seed)

    _, whole, _, _ = run(**more, last_step=2)
    outcome, lines, saved, model = run(**more, objective=Interrupting(), notice=lambda line: None)
    assert (outcome.step, len(lines)) == (2, 2)

    def resume(evaluated, **others):
        return run(
            **{"start": saved[-1], "model": copy.deepcopy(model), "last_step": 3, **more, **others},
            evaluated=evaluated,
        )

    _, rest, _, _ = resume(())
    assert rest[:2] == whole[2:]
    assert [line["step"] for line in rest] == [2, 2, 3, 3, 3]
    for there, names in ((["one"], ["two"]), (["one", "two"], [])):
        _, rest, _, _ = resume(there)
        assert [line["evaluation"] for line in rest if line["step"] == 2] == names
    # The very last ones, too: what was trained is saved, and they are made the next time.
    late = {"objective": Interrupting(), "notice": lambda line: None}
    outcome, rest, _, _ = resume((), last_step=2, **late)
    assert (outcome.signal, rest) == (signal.SIGTERM, [])
    outcome, rest, _, _ = resume((), last_step=2)
    assert (outcome.signal, rest) == (None, whole[2:])


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_heard_after_the_micro_batch_and_gives_the_handlers_back(number):
    before = [signal.getsignal(one) for one in SIGNALS]
    notices = []

    class Interrupting(toys.ToyObjective):
        calls = 0

        def __call__(self, model, batch, seed):
            self.calls += 1
            if self.calls == 3:  # the first micro-batch of step 2
                os.kill(os.getpid(), number)
            return super().__call__(model, batch, seed)

    outcome, lines, saved, _ = run(objective=Interrupting(), notice=notices.append)
    # Of step 2 only one micro-batch was computed: the step is made again when the run goes on.
    assert (outcome.step, outcome.signal) == (1, number)
    assert [at.step for at in saved] == [1]
    assert len(lines) == 1
    assert len(notices) == 1
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_nothing_of_a_step_that_a_signal_cuts_short_is_in_the_model():
    class Interrupting(toys.ToyObjective):
        calls = 0

        def __call__(self, model, batch, seed):
            self.calls += 1
            if self.calls == 5:  # the first micro-batch of step 3
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(model, batch, seed)

    outcome, _, _, model = run(objective=Interrupting())
    assert outcome.step == 2
    for mine, other in zip(model.parameters(), run(last_step=2)[3].parameters(), strict=True):
        assert torch.equal(mine, other)
        assert mine.grad is None


def test_a_signal_in_the_last_evaluation_is_told_though_nothing_is_left_to_stop():
    def judge(at):
        if at.step == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return Judgement([], False)

    outcome, _, saved, _ = run(judge=judge, notice=lambda line: None)
    assert (outcome.step, outcome.signal, outcome.late_signal) == (6, None, signal.SIGINT)
    assert [at.step for at in saved] == [6]
    outcome, _, _, _ = run()
    assert outcome.late_signal is None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_stops_at_once(number):
    class Interrupting(toys.ToyObjective):
        def __call__(self, model, batch, seed):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), number)
            return super().__call__(model, batch, seed)

    with pytest.raises(KeyboardInterrupt) as caught:
        run(objective=Interrupting())
    assert caught.value.number == number


def test_what_nohup_lets_a_run_ignore_stays_ignored():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        class HangingUp(toys.ToyObjective):
            def __call__(self, model, batch, seed):
                os.kill(os.getpid(), signal.SIGHUP)
                return super().__call__(model, batch, seed)

        assert run(objective=HangingUp())[0].signal is None
    finally:
        signal.signal(signal.SIGHUP, former)


def test_data_comes_from_a_thread_and_waiting_is_measured():
    def slow(step):
        for number in itertools.count(step):
            time.sleep(0.05)
            assert threading.current_thread() is not threading.main_thread()
            yield toys.toy_step(number)

    _, lines, _, _ = run(last_step=4, source=slow)
    assert sum(line["data_wait"] * line["step_seconds"] for line in lines) > 0.05


def test_an_error_in_the_data_reaches_the_caller_and_the_thread_ends():
    def broken(step):
        yield toys.toy_step(0)
        raise ZhbertError("train-00000.arrow: cut short")

    with pytest.raises(ZhbertError, match="cut short"):
        run(source=broken)
    with pytest.raises(ZhbertError, match="ended before the last step"):
        run(source=lambda step: iter([toys.toy_step(0)]))
    assert not [t for t in threading.enumerate() if t.name == "prefetch"]


def test_the_prefetcher_does_not_run_far_ahead():
    made = []

    def source():
        for number in itertools.count():
            made.append(number)
            yield toys.toy_step(number)

    with Prefetcher(source(), depth=2) as batches:
        batches.take()
        time.sleep(0.05)
        assert len(made) <= 4


def test_bf16_autocast_reaches_the_objective():
    seen = []

    class Watching(toys.ToyObjective):
        def __call__(self, model, batch, seed):
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().__call__(model, batch, seed)

    run(last_step=1, objective=Watching(), settings={"dtype": torch.bfloat16})
    assert set(seen) == {True}


def test_seeds_differ_in_every_coordinate():
    seeds = {mix(*place) for place in itertools.product(range(8), repeat=4)}
    assert len(seeds) == 8**4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_judge_evaluates_when_due_and_may_end_the_run():
    asked = []

    def judge(at):
        asked.append(at.step)
        return Judgement([{"step": at.step, "evaluation": "dev", "f1": 1.0}], enough=at.step == 4)

    saved = []
    settings = {"evaluate_every": 2, "checkpoint_every": 2}
    outcome, lines, _, _ = run(judge=judge, settings=settings, saved=saved)
    assert asked == [2, 4]
    assert outcome.step == 4
    assert outcome.signal is None
    # Judged first, then saved: a checkpoint knows what was said of its step.
    assert [at.step for at in saved] == [2, 4]
    assert [line.get("evaluation") for line in lines] == [None, None, "dev", None, None, "dev"]


def test_a_judge_does_not_change_what_is_trained():
    _, _, _, plain = run()
    _, _, _, judged = run(judge=lambda at: Judgement([]), settings={"evaluate_every": 1})
    assert torch.equal(plain.weight, judged.weight)
