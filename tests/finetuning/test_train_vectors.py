"""Training vectors end to end: every form, mixtures, resumption, and what the folder is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.small_embedding_tasks import make_embedding_task
from tests.small_tasks import QUICK, make_model

import zhbert.finetuning.seed as finetune_seed
from zhbert.errors import ZhbertError
from zhbert.finetuning.evaluate import evaluate
from zhbert.finetuning.fine_tuned import open_fine_tuned
from zhbert.finetuning.predict import predict
from zhbert.finetuning.run import finetune
from zhbert.sentences.encoder import SentenceEncoder

FORMS = ("scored", "judged", "pairs", "triples")
SENTENCES = ["中国人民", "我们在学习，你来了。", "好"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    return {form: make_embedding_task(folder / form, form) for form in (*FORMS, "texts")}


@pytest.fixture(scope="module")
def run(tmp_path_factory, model, cards):
    folder = tmp_path_factory.mktemp("run")
    finetune(cards["judged"], model, None, folder, [*QUICK, "pooling=cls"])
    return folder


def losses(run):
    lines = (run / "seed-0" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_learnt(tmp_path, model, cards, form):
    overrides = [*QUICK, "epochs=8", "optimizer.learning_rate=2e-3"]
    result = finetune(cards[form], model, None, tmp_path / "run", overrides)
    found = losses(tmp_path / "run")
    assert np.mean(found[-8:]) < np.mean(found[:8])
    (first, *_) = result.summary["metrics"].values()
    assert first["mean"] > 20


@pytest.mark.parametrize("loss", ["simcse", "tsdae", "angle", "contrastive"])
def test_other_losses_train_too(tmp_path, model, cards, loss):
    finetune(cards["judged"], model, None, tmp_path / "run", [*QUICK, f"loss={loss}"])
    assert min(losses(tmp_path / "run")) >= 0
    SentenceEncoder.from_pretrained(tmp_path / "run" / "seed-0" / "final")


def test_a_mixture_of_cards_trains_and_one_is_scored(tmp_path, model, cards):
    card = tmp_path / "mixture.toml"
    others = ", ".join(json.dumps(str(cards[form])) for form in ("texts", "triples"))
    text = cards["scored"].read_text(encoding="utf-8")
    text = text.replace('train = "train.tsv"', f"train_on = [{others}]")
    card.write_text(text, encoding="utf-8")
    (tmp_path / "dev.tsv").write_bytes((cards["scored"].parent / "dev.tsv").read_bytes())
    said = []
    result = finetune(card, model, None, tmp_path / "run", [*QUICK, "matryoshka=32+16"],
                      say=said.append)  # fmt: skip
    assert "spearman" in result.summary["metrics"]
    assert any("simcse tells a text's two rows apart by dropout" in line for line in said)


def test_hard_negatives_are_mined_before_training(tmp_path, model, cards):
    said = []
    finetune(cards["pairs"], model, None, tmp_path / "run", [*QUICK, "hard_negatives=2"],
             say=said.append)  # fmt: skip
    assert [line for line in said if "hard negatives mined" in line]


def test_the_result_is_a_sentence_transformers_folder(run):
    from sentence_transformers import SentenceTransformer

    final = run / "seed-0" / "final"
    theirs = SentenceTransformer(str(final), device="cpu")
    ours = SentenceEncoder.from_pretrained(final, quiet=True)
    assert ours.sentence.pooling == ("cls",)
    assert theirs.max_seq_length == ours.max_seq_length == 32
    np.testing.assert_allclose(theirs.encode(SENTENCES), ours.encode(SENTENCES), atol=1e-5)


def test_a_trained_model_predicts_cosines_and_is_scored(run, tmp_path, cards):
    file = cards["judged"].parent / "dev.tsv"
    opened = open_fine_tuned(run)
    assert opened.learner.sequence_length == 32
    predict(run, file, tmp_path / "out.jsonl")
    lines = map(json.loads, (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
    saved = (run / "seed-0" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    for mine, line in zip(lines, map(json.loads, saved), strict=True):
        assert mine["prediction"] == pytest.approx(line["predicted"], abs=1e-5)
    best = json.loads((run / "seed-0" / "result.json").read_text(encoding="utf-8"))["metrics"]
    found = evaluate(run, cards["judged"], file)["metrics"]
    assert found == pytest.approx(best, abs=0.01)


def test_a_trained_model_is_trained_further_with_its_own_pooling(run, tmp_path, cards):
    finetune(cards["pairs"], run, None, tmp_path / "run", QUICK)
    encoder = SentenceEncoder.from_pretrained(tmp_path / "run" / "seed-0" / "final", quiet=True)
    assert encoder.sentence.pooling == ("cls",)


def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(tmp_path, model, cards, monkeypatch):
    """With dropout and cached gradients: the batches are too large for one pass."""
    overrides = [*QUICK, "micro_batch_size=3", "checkpoint_every=5", "loss=simcse"]
    finetune(cards["pairs"], model, None, tmp_path / "whole", overrides)
    real, done = finetune_seed.Checkpoints.save, []

    def save(self, step, groups, info):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(step)
        return real(self, step, groups, info)

    with monkeypatch.context() as patch:
        patch.setattr(finetune_seed.Checkpoints, "save", save)
        with pytest.raises(KeyboardInterrupt):
            finetune(cards["pairs"], model, None, tmp_path / "run", overrides)
    finetune(cards["pairs"], model, None, tmp_path / "run", overrides)
    for name in ("final/model.safetensors", "predictions.jsonl"):
        one, two = ((tmp_path / x / "seed-0" / name).read_bytes() for x in ("run", "whole"))
        assert one == two


def test_the_logged_loss_is_that_of_the_whole_batch(tmp_path, model, cards):
    for name, rows in (("whole", 0), ("cached", 3)):
        overrides = [*QUICK, "epochs=1", f"micro_batch_size={rows}"]
        finetune(cards["triples"], model, None, tmp_path / name, overrides)
    whole, cached = losses(tmp_path / "whole"), losses(tmp_path / "cached")
    assert cached == pytest.approx(whole, rel=1e-4)


def test_a_grid_and_bfloat16(tmp_path, model, cards):
    overrides = [*QUICK, "precision=bf16", "scale=10,20", "epochs=1"]
    summary = finetune(cards["scored"], model, None, tmp_path / "run", overrides).summary
    assert [point["overrides"] for point in summary["grid"]] == [["scale=10"], ["scale=20"]]


def test_a_plain_model_is_not_one_that_was_trained(model):
    with pytest.raises(ZhbertError, match="not fine-tuned for a task"):
        open_fine_tuned(model)
