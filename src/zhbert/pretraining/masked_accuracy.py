"""The accuracy of a pretrained model on the masked pieces of a corpus's held-out documents.

The masks are the same as in the evaluations of all pretraining runs (by default ``char`` and
``wwm``), on rows of 128 pieces packed from full sentences, so that all models can be compared.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.config import EvaluationSettings
from zhbert.errors import ZhbertError
from zhbert.model.folder import check_corpus_vocabulary
from zhbert.wording import listed

if TYPE_CHECKING:
    from zhbert.model.pretrained import BertForPreTraining

SEQUENCE_LENGTH = 128


def masked_accuracy(
    model: str | os.PathLike[str],
    corpus: str | os.PathLike[str],
    settings: EvaluationSettings | None = None,
    *,
    precision: str = "fp32",
    engine: str | None = None,
    remark: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Measure ``model``, in any form that ``zhbert.zoo.locate`` opens, on a corpus folder.

    ``engine`` is ``torch``, or ``onnx`` for the folder's ONNX graph; None: torch, unless the folder
    has nothing but a graph.

    Returns:
        a dict for each masking strategy, with the keys of an evaluation in metrics.jsonl:
        ``evaluation`` (the strategy), ``masked_lm_accuracy``, ``masked_lm_loss``,
        ``masked_lm_predictions``, ``baseline_accuracy`` (of the most frequent piece).

    Raises:
        ZhbertError: there is no model, no corpus or nothing held out, or the vocabularies differ.
    """
    from zhbert.data.shards import Corpus
    from zhbert.zoo import locate

    opened = Corpus.open(os.fspath(corpus))
    folder = locate(os.fspath(model), quiet=True)
    vocabulary = opened.tokenizer().vocabulary
    check_corpus_vocabulary(folder, opened, remark)

    from zhbert.data.evaluation import held_out_rows
    from zhbert.inference.onnx_model import OnnxModel, remark_on_graph, runs_by_onnx
    from zhbert.pretraining.objective import (
        MaskedWordsObjective,
        PretrainingObjective,
        evaluations_of,
    )
    from zhbert.runtime import choose_device, choose_dtype, prepare_threads
    from zhbert.train.distributed import Ranks
    from zhbert.train.loop import evaluate

    prepare_threads(0)
    ranks = Ranks(device=choose_device())
    by_onnx = runs_by_onnx(folder, engine)
    if precision == "int8" and not by_onnx:
        raise ZhbertError("precision int8: masked words are evaluated in fp32 or bf16")
    bert: OnnxModel | BertForPreTraining
    if by_onnx:
        bert = OnnxModel.from_pretrained(folder, "BertForMaskedLM", precision=precision)
        remark_on_graph(folder, bert, remark)
    else:
        bert = _open(folder, remark).to(ranks.device)
    length = min(SEQUENCE_LENGTH, bert.config.max_position_embeddings)
    wanted = settings or EvaluationSettings()
    masked = held_out_rows(opened, vocabulary, wanted, sequence_length=length)
    if not masked:
        raise ZhbertError(
            f"{opened.folder}: no held-out documents to measure on; prepare it again with "
            "--held-out 0.01 --overwrite to have some"
        )
    dtype = choose_dtype("fp32" if by_onnx else precision, ranks.device)
    objective = MaskedWordsObjective() if by_onnx else PretrainingObjective()
    lines = evaluate(bert, objective, evaluations_of(masked), 0, dtype, ranks)
    # Rows of full sentences have no pairs, and a model does not have a step.
    return [
        {key: value for key, value in line.items() if not key.startswith(("step", "next_"))}
        for line in lines
    ]


def _open(folder: Path, remark: Callable[[str], None]) -> BertForPreTraining:
    """Open a folder's model; warn with ``remark`` if a part needed to fill masks is untrained."""
    from zhbert.model.names import OF_PAIRS
    from zhbert.model.pretrained import BertForPreTraining

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = BertForPreTraining.from_pretrained(folder, quiet=True)
    untrained = [name for name in model.loading.missing if not name.startswith(OF_PAIRS)]
    if model.loading.masked_words_head == "random":
        untrained = ["the mask-filling head"]
    if untrained:
        remark(f"warning: {folder}: never trained: {listed(untrained)}")
    return model
