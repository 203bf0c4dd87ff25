"""Model cards: what the hub reads of them, and what must not stand in them."""

from __future__ import annotations

import getpass
import json
import re
import shutil

import pytest
from huggingface_hub import ModelCard as HubCard
from huggingface_hub import metadata_load
from tests.small_corpora import TINY
from tests.small_tasks import QUICK

from zhbert.finetuning.fine_tuned import open_fine_tuned
from zhbert.finetuning.run import finetune
from zhbert.pretraining.run import pretrain
from zhbert.runs.model_card import FILE, BaseModel

PIPELINES = {
    "classify": "text-classification",
    "multi_label": "text-classification",
    "regress": "text-classification",
    "tag": "token-classification",
    "span": "question-answering",
    "embed": "sentence-similarity",
}


def card_in(folder):
    """The text of a card, which the hub's library reads without a complaint."""
    card = HubCard.load(folder / FILE, ignore_metadata_errors=False)
    text = (folder / FILE).read_text("utf-8")
    assert card.content == text
    return text, card.data


def assert_keeps_secrets(text, *folders):
    for secret in (*map(str, folders), "/tmp", "/root", "/home", getpass.getuser() + "@"):
        assert secret not in text
    assert not re.search(r"(^|[\s|`\"'(])/\w", text)


@pytest.mark.parametrize("kind", PIPELINES)
def test_the_card_of_every_kind_of_task(tuned, kind):
    run = tuned / kind / "run"
    text, data = card_in(run / "seed-0" / "final")
    assert data.pipeline_tag == PIPELINES[kind]
    assert data.language == "zh"
    assert data.library_name == ("sentence-transformers" if kind == "embed" else "transformers")
    assert data.license is None
    assert "Not stated for model, from which it was trained: choose one" in text
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    scores = {one.metric_type: one.metric_value for one in data.eval_results}
    expected = {key: round(one["values"][0], 2) for key, one in summary["metrics"].items()}
    assert scores == expected
    assert {one.dataset_split for one in data.eval_results} == {"dev"}
    for value in expected.values():
        assert f"| {value:.2f} |" in text
    assert "320 examples" in text
    assert_keeps_secrets(text, tuned)


def test_every_seed_shows_its_own_score_and_that_of_all(tuned, tmp_path):
    card = tuned / "classify" / "my_classify.toml"
    finetune(card, tuned / "model", None, tmp_path / "run", QUICK, seeds=2)
    cards = [(tmp_path / "run" / f"seed-{n}" / "final" / FILE).read_text("utf-8") for n in (0, 1)]
    for seed, text in enumerate(cards):
        assert f"| metric | seed {seed} | mean ± standard deviation of 2 | best |" in text
    assert cards[0] != cards[1]
    before = cards[0]
    (tmp_path / "run" / "seed-0" / "final" / FILE).unlink()
    edited = cards[1].replace("# my_classify", "# Mine")
    (tmp_path / "run" / "seed-1" / "final" / FILE).write_text(edited, "utf-8")
    finetune(card, tuned / "model", None, tmp_path / "run", QUICK, seeds=2)
    assert (tmp_path / "run" / "seed-0" / "final" / FILE).read_text("utf-8") == before
    assert (tmp_path / "run" / "seed-1" / "final" / FILE).read_text("utf-8") == edited


def test_a_card_says_how_many_training_texts_were_cut(tuned, tmp_path):
    card = tuned / "classify" / "my_classify.toml"
    overrides = [*QUICK, "sequence_length=16", "epochs=1"]
    finetune(card, tuned / "model", None, tmp_path / "run", overrides)
    text, _ = card_in(tmp_path / "run" / "seed-0" / "final")
    cut = r"\n- train: \d+ of 320 texts are longer than sequence_length = 16: .* cut off\.\n"
    assert re.search(cut, text)
    uncut, _ = card_in(tuned / "classify" / "run" / "seed-0" / "final")
    assert "cut off" not in uncut


def test_the_card_of_pretraining(finished_run, corpus):
    text, data = card_in(finished_run / "final")
    assert (data.pipeline_tag, data.library_name) == ("fill-mask", "transformers")
    assert data.tags == ["bert", "chinese", "zhbert", "whole-word-masking"]
    assert "12 steps of masked words, by the recipe tiny.toml" in text
    assert "| wwm |" in text
    assert "| `optimizer.learning_rate` |" in text
    assert "the pooler is trained" in text
    assert_keeps_secrets(text, finished_run, corpus)


def test_a_licence_goes_from_a_model_to_what_is_trained_from_it(finished_run, corpus, tmp_path):
    first = tmp_path / "first"
    shutil.copytree(finished_run / "final", first)
    text = (first / FILE).read_text("utf-8")
    text = text.replace("---\n", "---\nlicense: mit\nbase_model: me/ancestor\n", 1)
    (first / FILE).write_text(text, "utf-8")
    overrides = [*TINY, "steps=2", f"initial_model={first}", "model.num_hidden_layers=2"]
    result = pretrain("continue-domain", corpus, tmp_path / "run", overrides)
    text, data = card_in(result.final)
    assert (data.license, data.base_model) == ("mit", "me/ancestor")
    assert "mit, that of first, from which it was trained." in text
    assert "| `initial_model` | first |" in text
    assert_keeps_secrets(text, tmp_path)


def test_the_configuration_beside_a_card_has_no_paths(tuned, tmp_path):
    card = (tuned / "classify" / "my_classify.toml").read_text("utf-8")
    for name in ("train.tsv", "dev.tsv"):
        card = card.replace(f'"{name}"', f'"{tuned / "classify" / name}"')
    (tmp_path / "absolute.toml").write_text(card, "utf-8")
    shutil.copytree(tuned / "model", tmp_path / "model")
    config = (tmp_path / "model" / "config.json").read_text("utf-8")
    found = json.loads(config) | {"_name_or_path": str(tmp_path)}
    (tmp_path / "model" / "config.json").write_text(json.dumps(found), "utf-8")
    finetune(tmp_path / "absolute.toml", tmp_path / "model", None, tmp_path / "run", QUICK)
    final = tmp_path / "run" / "seed-0" / "final"
    for path in final.glob("*.json"):
        assert_keeps_secrets(path.read_text("utf-8"), tuned, tmp_path)
    assert open_fine_tuned(final).card.data.train == ("train.tsv",)


def test_what_is_known_of_a_base_model(tmp_path):
    assert BaseModel.of("hfl/rbt3") == BaseModel("rbt3", "hfl/rbt3", None)
    assert BaseModel.of("mini") == BaseModel("zhbert-mini", None, "apache-2.0")
    assert BaseModel.of("someone/bert") == BaseModel("bert", "someone/bert", None)
    (tmp_path / FILE).write_text("---\nlicense: [\n---\n", "utf-8")
    assert BaseModel.of(str(tmp_path)) == BaseModel(tmp_path.name)


def test_the_front_matter_is_read_by_the_hubs_own_reader(finished_run):
    found = metadata_load(finished_run / "final" / FILE)
    assert found["library_name"] == "transformers"
    assert "model-index" not in found
