"""The model cards of a fine-tuning run, one for each seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zhbert.finetuning.request import FineTuningRequest
from zhbert.finetuning.training_task import TrainingTask
from zhbert.runs.model_card import BaseModel, CardScore, RunCard, figures, public_name
from zhbert.schema import flatten
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.kinds.embed import Embed
from zhbert.wording import counted, listed

_PIPELINES = {
    "BertForSequenceClassification": "text-classification",
    "BertForTokenClassification": "token-classification",
    "BertForQuestionAnswering": "question-answering",
    "BertModel": "sentence-similarity",
}
_TRANSFORMERS = """from transformers import Auto{model}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("MODEL")
model = Auto{model}.from_pretrained("MODEL")"""
_SENTENCES = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("MODEL")
vectors = model.encode(["今天天气很好。", "今天天气不错。"])"""
_ZHBERT = """from zhbert import Predictor

print(Predictor.from_pretrained("MODEL")({example}))"""
# Those that sentence-transformers gives its models.
_SENTENCE_TAGS = ("sentence-transformers", "sentence-similarity", "feature-extraction")
_EXAMPLES = {
    "tag": '["李白生于碎叶城。"]',
    "span": '{"question": "李白生于哪里？", "context": "李白生于碎叶城。"}',
    "embed": '["今天天气很好。", "今天天气不错。"]',
}


def card_of_seed(
    request: FineTuningRequest,
    task: TrainingTask,
    result: Mapping[str, Any],
    summary: Mapping[str, Any],
) -> RunCard:
    """Describe the model of a seed.

    Args:
        request: the run.
        task: what the seed was trained for.
        result: the content of its result.json.
        summary: the content of summary.json, of all seeds that are finished.
    """
    card, kind = task.card, task.kind
    base, sentences = BaseModel.of(request.model_name, request.model), kind.name == Embed.name
    model = "ModelFor" + kind.architecture.partition("For")[2]
    example = '("今天天气很好。", "今天天气不错。")' if _pairs(task) else '"今天天气很好。"'
    zhbert = _ZHBERT.format(example=_EXAMPLES.get(kind.name, example))
    unread = {key for one in KINDS.values() for key in one.own_settings} - kind.own_settings
    cut = task.train.cut
    taught = [public_name(name) for name in request.teachers]
    return RunCard(
        title=f"{card.name}, fine-tuned from {base.name}",
        chinese=f"由 {base.name} 微调的 BERT，任务：{card.name}。" if card.language == "zh" else "",
        summary=f"A {figures(task.config)}, fine-tuned from {base.name} for the task {card.name} "
        f"({card.title}), seed {result['seed']}{', taught by ' if taught else ''}"
        f"{', '.join(taught)}.",
        pipeline_tag=_PIPELINES[kind.architecture],
        library="sentence-transformers" if sentences else "transformers",
        tags=_SENTENCE_TAGS if sentences else (),
        language=card.language,
        usage=[_SENTENCES if sentences else _TRANSFORMERS.format(model=model), zhbert],
        base=base,
        data={
            **{name: f"{one.path.name}, {counted(len(one.examples), 'example')}"
               for name, one in request.splits.items()},
            **({"labels": listed(card.data.labels, 20)} if card.data.labels else {}),
            **({"licence of the task": card.licence} if card.licence else {}),
        },
        settings={k: v for k, v in flatten(task.settings).items() if k not in unread},
        table=list(_table(result, summary)),
        scores=[
            CardScore(metric=metric, split=split, value=result["metrics"][key], task=card.name,
                  title=card.title)
            for key, metric, split in _keys(card.metrics, result["metrics"])
        ],
        limits=[
            "All scores are in per cent, as the benchmark computes them.",
            f"dev chose the step whose weights are kept ({result['best_step']:,} of "
            f"{result['steps']:,}): its score is higher than that of new texts would be.",
            *filter(None, [summary["split_note"], *summary["further_split_notes"].values()]),
            *([f"train: {task.learner.describe_cut(*cut)}."] if cut[0] else []),
            "Texts of another kind than the task's were not tried.",
        ],
    )  # fmt: skip


def _pairs(task: TrainingTask) -> bool:
    return bool(getattr(task.card.data, "text_pair", ()))


def _keys(metrics: Sequence[str], values: Mapping[str, float]) -> Iterator[tuple[str, str, str]]:
    """Yield each key of a result with its metric and split: (accuracy_test, accuracy, test)."""
    for key in values:
        # f1_micro begins with f1.
        for metric in sorted(metrics, key=len, reverse=True):
            if key == metric or key.startswith(f"{metric}_"):
                yield key, metric, key[len(metric) + 1 :] or "dev"
                break


def _table(result: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    seeds = summary["seeds"]
    yield "metric", f"seed {result['seed']}", f"mean ± standard deviation of {len(seeds)}", "best"
    for key, spread in summary["metrics"].items():
        yield (
            key,
            f"{result['metrics'][key]:.2f}",
            f"{spread['mean']:.2f} ± {spread['std']:.2f}",
            f"{spread['max']:.2f}",
        )
