"""The newest transformers 4 opens our model folders, with the same ids and the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from zhbert import BertConfig, BertForPreTraining, Tokenizer

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


@pytest.fixture(scope="module")
def transformers4() -> Path:
    folder = Path(os.environ.get("ZHBERT_TRANSFORMERS4", ROOT / ".transformers4"))
    if not (folder / "transformers").is_dir():
        pytest.skip(f"{folder}: transformers 4 is not there; 'make test' installs it")
    return folder


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
    done = subprocess.run(
        [sys.executable, "-c", THEIRS, str(tmp_path), json.dumps(TEXTS)],
        env={**os.environ, "PYTHONPATH": str(transformers4), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.split("RESULT")[1])
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
