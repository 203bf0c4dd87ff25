"""The model card of a pretraining run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zhbert.model.config import BertConfig
from zhbert.pretraining.setup import RunSetup
from zhbert.runs.model_card import BaseModel, RunCard, figures, public_name
from zhbert.schema import flatten

_USAGE = (
    """from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("MODEL")
model = AutoModelForMaskedLM.from_pretrained("MODEL")""",
    """from zhbert import Predictor

print(Predictor.from_pretrained("MODEL")("今天天气很[MASK]。").filled)""",
)


def card_of_run(
    setup: RunSetup, config: BertConfig, step: int, evaluations: Sequence[Mapping[str, Any]]
) -> RunCard:
    """Describe the final model of a run.

    Args:
        setup: the run.
        config: the model's configuration.
        step: the step of its weights.
        evaluations: the lines of the evaluation at that step.
    """
    recipe, info = setup.recipe, setup.corpus.info
    base = BaseModel.of(recipe.initial_model) if recipe.initial_model else None
    if phase := recipe.continue_from:
        base = BaseModel.of(phase, Path(phase) / "final")
    origin = f", trained on from {base.name}" if base else ""
    if recipe.distill is not None:
        origin += f", taught by {', '.join(map(public_name, recipe.distill.teachers))}"
    # A corpus that another program has written has no more than its shards.
    texts = {
        key: f"{sum(shard[key] for shard in info['shards']['train']):,}"
        for key in ("documents", "sentences", "words", "pieces")
    }
    if segmenter := info.get("segmenter"):
        texts["words found by"] = f"{segmenter['name']} {segmenter['version']}"
    pairs = recipe.rows.builder == "pairs"
    return RunCard(
        title=f"Chinese BERT, {config.num_hidden_layers} x {config.hidden_size}",
        chinese="用 zhbert 预训练的中文 BERT。",
        summary=f"A {figures(config)}{origin}: {step:,} steps of masked words, by the recipe "
        f"{setup.recipe_file}.",
        pipeline_tag="fill-mask",
        tags=() if recipe.masking.strategy == "char" else ("whole-word-masking",),
        usage=_USAGE,
        base=base,
        data=texts
        | {
            "vocabulary": f"{info['vocabulary_size']:,} pieces (hash "
            f"{setup.corpus.fingerprint[:12]})"
        },
        settings=flatten(recipe),
        table=[
            ("held-out masks", "accuracy, per cent", "loss"),
            *(
                (
                    line["evaluation"],
                    f"{100 * line['masked_lm_accuracy']:.2f}",
                    f"{line['masked_lm_loss']:.4f}",
                )
                for line in evaluations
            ),
        ],
        limits=[
            "The accuracy is that of masked pieces in held-out documents of the same corpus. "
            "Models with another vocabulary, other texts or other masks cannot be compared by it.",
            "It is not the accuracy on any task: fine-tune and score for that.",
            "Sentence pairs were learnt, too: the pooler is trained."
            if pairs
            else "Masked words alone were learnt: the pooler and the head for sentence pairs are "
            "untrained.",
            "What the texts contain, prejudices and errors included, the model may repeat.",
        ],
    )
