"""Export of a model to ONNX: the folder that optimum, sentence-transformers and transformers.js
open, with a graph that was compared with the model.

The layout is in `zhbert.model.onnx_files`; https://onnx.ai is the format.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.export import ONNX_OPSETS
from zhbert.export.onnx_check import ROWS, OutputAgreement, compare_graph
from zhbert.export.onnx_graph import PaddedModel, export_graph, has_pooler
from zhbert.files import atomic_folder, make_folder
from zhbert.model.checkpoint import Checkpoint, open_checkpoint
from zhbert.model.config import BertConfig
from zhbert.model.folder import check_out, tokenizer_of
from zhbert.model.head_states import head_states
from zhbert.model.onnx_files import GRAPHS, METADATA, TASKS, stated_sizes
from zhbert.model.pretrained import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)
from zhbert.model.sentence_files import copy_sentence_files
from zhbert.runs.model_card import Opening, copy_card
from zhbert.sentences.model import SentenceModel
from zhbert.text.tokenizer import Tokenizer
from zhbert.wording import how_to_install, listed
from zhbert.zoo import locate
from zhbert.zoo.layout import ONNX_FOLDER, find_model, sentence_folder

if TYPE_CHECKING:
    import onnx_ir as ir

_MODELS: Mapping[str, Any] = {
    "encoder": BertModel,
    "fill": BertForMaskedLM,
    "classify": BertForSequenceClassification,
    "tag": BertForTokenClassification,
    "span": BertForQuestionAnswering,
    "embed": SentenceModel,
}
_PIPELINES = {
    "encoder": "feature-extraction",
    "fill": "fill-mask",
    "classify": "text-classification",
    "tag": "token-classification",
    "span": "question-answering",
    "embed": "sentence-similarity",
}
# The most that a graph may differ from its model: the largest difference as a share of the model's
# largest number, or the noise. Measured were 4e-6, 2e-3 and 0.2 on trained models of 4 and 6
# layers; a wrong graph has a noise of 1.
_LIMITS = {"float32": ("relative", 1e-4), "float16": ("noise", 2e-2), "int8": ("noise", 0.5)}
_ADVICE = {
    "float32": "; please report it, with the model's config.json",
    "float16": "; export it in float32",
    "int8": "; export it in float32 or float16",
}
# A file of Protocol Buffers holds at most 2 GB; larger graphs have their weights beside them.
_MOST_BYTES_IN_GRAPH = 1_500_000_000


def export_onnx(
    source: str | Path,
    out: str | Path,
    *,
    task: str | None = None,
    precision: str = "float32",
    opset: int = ONNX_OPSETS[0],
    overwrite: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write the model ``source`` into the folder ``out`` as ONNX, and compare the two.

    Args:
        source: a model, given as anything that ``zhbert.zoo.locate`` accepts.
        task: what the graph computes, of ``zhbert.model.onnx_files.TASKS``; None: what the model
            was trained for.
        precision: of the weights, of ``zhbert.model.onnx_files.GRAPHS``.
        opset: the version of ONNX's operations, of ``zhbert.export.ONNX_OPSETS``.
        progress: called with the number of rows compared so far and the total.

    Returns:
        ``folder``, ``format``, ``task``, ``architecture``, ``precision``, ``opset``, ``file`` (the
        graph), ``bytes``, ``rows`` (compared), ``vocabulary`` (size), and ``outputs``: for each one
        ``largest_difference``, ``relative_difference`` (to the model's largest number), ``noise``
        (root mean squares) and ``equal_labels`` (a share; None: no labels).

    Raises:
        ZhbertError: a library is missing, the model cannot do the task or is damaged, ``out`` is in
            use, or the graph does not agree with the model. Nothing is written then.
    """
    out = Path(out)
    if opset not in ONNX_OPSETS:
        first, last = ONNX_OPSETS[0], ONNX_OPSETS[-1]
        raise ZhbertError(f"--opset {opset}: must be from {first} to {last}")
    _check_libraries()
    check_out(out, source, overwrite=overwrite, option="DST")
    folder = locate(source, quiet=quiet)
    config, checkpoint = BertConfig.from_pretrained(folder), open_checkpoint(folder)
    tokenizer = tokenizer_of(find_model(folder), config.vocab_size)
    tasks = _possible_tasks(folder, checkpoint, config)
    if task is not None and task not in tasks:
        raise ZhbertError(
            f"{source}: --task {task}: the model was not trained for it; it can be exported for "
            f"{listed(tasks)}"
        )
    task = task or tasks[0]
    model = _opened(folder, task)
    with atomic_folder(out, replace=overwrite) as temporary:
        file = temporary / ONNX_FOLDER / GRAPHS[precision]
        stated = {"task": task, "precision": precision, "weights": checkpoint.fingerprint()}
        _write_graph(file, model, stated, opset, tokenizer)
        found = compare_graph(file, model, task, tokenizer, progress)
        _check_agreement(source, found, precision)
        config = _described(model.config, task, own_task=task == tasks[0])
        _write_beside(temporary, folder, model, config, task, tokenizer)
        copy_card(folder, temporary, _opening(task, file.name))
        size = sum(path.stat().st_size for path in file.parent.iterdir())
    return {
        "folder": str(out),
        "format": "onnx",
        "task": task,
        "architecture": TASKS[task],
        "precision": precision,
        "opset": opset,
        "file": f"{ONNX_FOLDER}/{file.name}",
        "bytes": size,
        "rows": ROWS,
        "outputs": {name: _report(one) for name, one in found.items()},
        "vocabulary": None if tokenizer is None else len(tokenizer),
    }


def _report(one: OutputAgreement) -> dict[str, float | None]:
    return {
        "largest_difference": one.largest,
        "relative_difference": one.relative,
        "noise": one.noise,
        "equal_labels": one.equal_labels,
    }


def _check_agreement(
    source: str | Path, found: Mapping[str, OutputAgreement], precision: str
) -> None:
    measure, limit = _LIMITS[precision]
    for name, one in found.items():
        if not getattr(one, measure) <= limit:  # NaN is not, either
            raise ZhbertError(
                f"{source}: nothing written, because the graph differs from the model: {name} by "
                f"{one.largest:.2g} of {one.magnitude:.2g} ({measure} {getattr(one, measure):.2g}; "
                f"{precision} may have {limit:g}){_ADVICE[precision]}"
            )


def _check_libraries() -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            raise ZhbertError(f"--to onnx: {name} is not installed: {how_to_install('onnx')}")


# -- the model --------------------------------------------------------------------------------


def _possible_tasks(folder: Path, checkpoint: Checkpoint, config: BertConfig) -> list[str]:
    """Return the tasks that a model was trained for, the last training first; encoder, embed."""
    named = (config.other.get("architectures") or [""])[0]
    states = head_states(checkpoint.entries, config.initializer_range)
    tasks = ["embed"] if sentence_folder(folder) is not None else []
    if states["question_answering"].present:
        tasks.append("span")
    if states["classifier"].present and named != "BertForMultipleChoice":
        tasks.append("tag" if named == TASKS["tag"] else "classify")
    if states["masked_words"].word in ("trained", "unclear"):
        tasks.append("fill")
    return list(dict.fromkeys([*tasks, "encoder", "embed"]))


def _opened(folder: Path, task: str) -> Any:
    """Open the model; raise ZhbertError if the file lacks weights that the task needs."""
    with warnings.catch_warnings():
        # Heads of other tasks are not needed, and a missing pooler is left out of the graph.
        warnings.simplefilter("ignore", UserWarning)
        model = _MODELS[task].from_pretrained(folder, quiet=True)
    missing = [name for name in model.missing_parts if not name.startswith("bert.pooler.")]
    if missing or (task == "classify" and not has_pooler(model)):
        what = missing[0] if missing else "the pooler"
        raise ZhbertError(f"{folder}: {what} is missing, which --task {task} needs")
    return model


def _described(config: BertConfig, task: str, *, own_task: bool) -> BertConfig:
    """Return the configuration of what is exported, as transformers' classes and ours read it."""
    former = ("torch_dtype", "tie_word_embeddings") + (() if own_task else ("zhbert",))
    other = {name: value for name, value in config.other.items() if name not in former}
    other |= {"architectures": [TASKS[task]], "dtype": "float32"}
    described = replace(config, other=other)
    if task in ("classify", "tag") and "id2label" not in other:
        return described.with_labels(config.labels)
    return described


def _write_beside(
    out: Path,
    folder: Path,
    model: Any,
    config: BertConfig,
    task: str,
    tokenizer: Tokenizer | None,
) -> None:
    """Write the configuration, the tokenizer and a sentence model's files."""
    if task == "embed" and sentence_folder(folder) is None:
        model.save_sentence_files(out)
    elif task == "embed":
        copy_sentence_files(folder, out, config.max_position_embeddings)
    config.save_pretrained(out)
    if tokenizer is not None:
        tokenizer.save_pretrained(out, model_max_length=config.max_position_embeddings)


def _opening(task: str, graph: str) -> Opening:
    """Return how sentence-transformers or optimum open the folder."""
    other = f'"{ONNX_FOLDER}/{graph}"' if graph != GRAPHS["float32"] else ""
    if task == "embed":
        more = f', model_kwargs={{"file_name": {other}}}' if other else ""
        return Opening(
            "sentence-transformers",
            "from sentence_transformers import SentenceTransformer\n\n"
            f'model = SentenceTransformer("MODEL", backend="onnx"{more})\n'
            'vectors = model.encode(["今天天气很好。", "今天天气不错。"])',
            _PIPELINES[task],
        )
    name = "ORTModelFor" + (TASKS[task].partition("For")[2] or "FeatureExtraction")
    more = f", file_name={other}" if other else ""
    return Opening(
        "onnx",
        f"from optimum.onnxruntime import {name}\nfrom transformers import AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained("MODEL")\n'
        f'model = {name}.from_pretrained("MODEL"{more})',
        _PIPELINES[task],
    )


# -- the graph --------------------------------------------------------------------------------


def _write_graph(
    file: Path,
    model: Any,
    stated: Mapping[str, str],
    opset: int,
    tokenizer: Tokenizer | None,
) -> None:
    """Write the graph; ``stated`` is what it says of itself, by the keys of `METADATA`."""
    task, precision = stated["task"], stated["precision"]
    padded = PaddedModel(model, task)
    if precision == "float16":
        padded = copy.deepcopy(padded).half()
    graph = export_graph(padded, opset)
    sizes = json.dumps(stated_sizes(model.config), ensure_ascii=False)
    stated = {**stated, "config": sizes}
    if tokenizer is not None:
        stated["vocabulary"] = tokenizer.fingerprint()
    graph.metadata_props.update({METADATA[key]: value for key, value in stated.items()})
    make_folder(file.parent)
    if precision != "int8":
        _save(graph, file)
        return
    exact = file.with_name(GRAPHS["float32"])
    _save(graph, exact)
    _quantize(exact, file)
    for path in exact.parent.glob(f"{exact.name}*"):
        path.unlink()


def _save(graph: ir.Model, file: Path) -> None:
    import onnx_ir as ir

    size = sum(v.const_value.nbytes for v in graph.graph.initializers.values() if v.const_value)
    beside = f"{file.name}_data" if size > _MOST_BYTES_IN_GRAPH else None
    ir.save(graph, file, external_data=beside)


def _quantize(exact: Path, file: Path) -> None:
    """Write a graph whose linear maps (one scale a column) and word embeddings are int8.

    The embeddings are two thirds of a small model's file, and add hardly any noise: 0.215 instead
    of 0.211 in a MiniLM of 6 layers.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it advises to prepare the graph, which the exporter has done
    try:
        quantize_dynamic(
            exact,
            file,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)
