"""The newest transformers 4 opens our model folders, with the same ids and the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zhbert import BertConfig, BertForPreTraining, Tokenizer
from zhbert.model.pretrained import BertForQuestionAnswering
from zhbert.tasks.kinds import run_model
from zhbert.tasks.read import SpanExample
from zhbert.tasks.span import Span

ROOT = Path(__file__).parent.parent
TEXTS = [
    "使用语言[MASK][MASK]来预测下一个词的probability。",
    "  “Café”——２０２６年…… 𠮷野家 [SEP] naïve😀",
    "한국어 とカタカナ",
]
THEIRS = """
import json, sys, torch, transformers
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining, AutoTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(folder)
batch = tokenizer(texts, padding=True, return_tensors="pt", return_offsets_mapping=True)
offsets = batch.pop("offset_mapping").tolist()
with torch.no_grad():
    both = AutoModelForPreTraining.from_pretrained(folder).eval()(**batch)
    masked = AutoModelForMaskedLM.from_pretrained(folder).eval()(**batch)
print("RESULT" + json.dumps({
    "version": transformers.__version__, "class": type(tokenizer).__name__,
    "ids": batch["input_ids"].tolist(), "mask": batch["attention_mask"].tolist(),
    "offsets": offsets, "logits": both.prediction_logits[:, :6, :50].tolist(),
    "masked": masked.logits[:, :6, :50].tolist(), "pairs": both.seq_relationship_logits.tolist(),
}))
"""

CONTEXT = "王小明１９８６年生于北京市，2008年在Harvard学习；后来他住在上海——和家人一起。"
QUESTIONS = ["王小明住在哪里？", "他什么时候出生？", "谁在Harvard学习？", "北京", "哪一年？"]
ANSWERS = """
import json, sys
from transformers import pipeline
folder, context, questions = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
answer = pipeline("question-answering", model=folder)
# Pieces are our words: theirs would be everything between two spaces.
print("RESULT" + json.dumps([
    answer(question=one, context=context, align_to_words=False, max_answer_len=8)
    for one in questions
]))
"""


@pytest.fixture(scope="module")
def transformers4() -> Path:
    folder = Path(os.environ.get("ZHBERT_TRANSFORMERS4", ROOT / ".transformers4"))
    if not (folder / "transformers").is_dir():
        pytest.skip(f"{folder}: transformers 4 is not there; 'make test' installs it")
    return folder


def run_there(transformers4: Path, program: str, *arguments: str) -> Any:
    """What a program prints after RESULT, run with transformers 4."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        # Pipelines look at every TensorFlow class where TensorFlow is installed, too.
        env={
            **os.environ,
            "PYTHONPATH": str(transformers4),
            "HF_HUB_OFFLINE": "1",
            "USE_TF": "0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.split("RESULT")[1])


def test_transformers_4_opens_our_model_folder(tmp_path: Path, transformers4: Path) -> None:
    tokenizer = Tokenizer.default()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.2,
    )
    model = BertForPreTraining(config, seed=1).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    theirs = run_there(transformers4, THEIRS, str(tmp_path), json.dumps(TEXTS))
    assert theirs["version"].startswith("4.")

    for text, ids, mask, offsets in zip(
        TEXTS, theirs["ids"], theirs["mask"], theirs["offsets"], strict=True
    ):
        ours = tokenizer.encode(text)
        length = sum(mask)
        assert ids[:length] == [tokenizer.cls_id, *ours.ids.tolist(), tokenizer.sep_id]
        assert offsets[1 : length - 1] == ours.offsets.tolist()
    with torch.no_grad():
        result = model(torch.tensor(theirs["ids"]), attention_mask=torch.tensor(theirs["mask"]))
    np.testing.assert_allclose(
        result.prediction_logits[:, :6, :50].numpy(), theirs["logits"], atol=1e-4
    )
    np.testing.assert_allclose(
        result.prediction_logits[:, :6, :50].numpy(), theirs["masked"], atol=1e-4
    )
    np.testing.assert_allclose(result.seq_relationship_logits.numpy(), theirs["pairs"], atol=1e-4)


def test_the_question_answering_pipeline_gives_our_answers(
    tmp_path: Path, transformers4: Path
) -> None:
    """Transformers 5 has this pipeline no more, so it is tested here only."""
    tokenizer = Tokenizer.default()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.2,
    )
    model = BertForQuestionAnswering(config, seed=1).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    theirs = run_there(transformers4, ANSWERS, str(tmp_path), CONTEXT, json.dumps(QUESTIONS))

    kind = Span(tokenizer, 128, max_answer_length=8)
    examples = [SpanExample(str(n), one, CONTEXT) for n, one in enumerate(QUESTIONS)]
    prepared = kind.prepare(examples)
    ours = kind.decode(prepared, run_model(kind, model, prepared.rows))
    assert [one.value for one in ours] == [one["answer"] for one in theirs]
    # A random model's answers, but not the same one to each question.
    assert len({one.value for one in ours}) > 1
