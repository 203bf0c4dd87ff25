"""The newest transformers 4 opens our model folders, with the same ids and the same numbers."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.text.test_added_tokens import CHARACTERS, OVERLAPPING, SPECIAL, write_vocabulary
from tests.transformers4 import run_with_transformers4

from zhbert import BertConfig, BertForPreTraining, Tokenizer
from zhbert.inference.run_model import run_model
from zhbert.model.pretrained import BertForQuestionAnswering
from zhbert.tasks.examples import SpanExample
from zhbert.tasks.learners.span import SpanLearner

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
result = {
    "version": transformers.__version__, "class": type(tokenizer).__name__,
    "ids": batch["input_ids"].tolist(), "mask": batch["attention_mask"].tolist(),
    "offsets": offsets, "logits": both.prediction_logits[:, :6, :50].tolist(),
    "masked": masked.logits[:, :6, :50].tolist(), "pairs": both.seq_relationship_logits.tolist(),
}
"""

# Folders with added tokens that transformers 4 writes, and the ids that it finds there again.
ADDED = """
import json, os, sys
from transformers import AddedToken, AutoTokenizer, BertTokenizer, BertTokenizerFast
folder, cases = sys.argv[1], json.loads(sys.argv[2])
result = []
for number, (options, added, texts) in enumerate(cases):
    for kind in (BertTokenizer, BertTokenizerFast):
        out = os.path.join(folder, f"{kind.__name__}-{number}")
        tokenizer = kind.from_pretrained(folder, **options)
        for one in added:
            tokenizer.add_tokens([AddedToken(**one)])
        tokenizer.save_pretrained(out)
        with open(os.path.join(out, "config.json"), "w") as file:
            json.dump({"model_type": "bert"}, file)
        again = AutoTokenizer.from_pretrained(out)
        encoded = [
            again(text, add_special_tokens=False, return_offsets_mapping=True) for text in texts
        ]
        rows = [[one["input_ids"], one["offset_mapping"]] for one in encoded]
        result.append([number, out, rows])
"""

READ = """
import json, sys
from transformers import AutoTokenizer
result = []
for folder, texts in json.loads(sys.argv[1]):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    result.append([tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts])
"""

CONTEXT = "王小明１９８６年生于北京市，2008年在Harvard学习；后来他住在上海——和家人一起。"
QUESTIONS = ["王小明住在哪里？", "他什么时候出生？", "谁在Harvard学习？", "北京", "哪一年？"]
ANSWERS = """
import json, sys
from transformers import pipeline
folder, context, questions = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
answer = pipeline("question-answering", model=folder)
# Pieces are our words: theirs would be everything between two spaces.
result = [
    answer(question=one, context=context, align_to_words=False, max_answer_len=8)
    for one in questions
]
"""


def test_transformers_4_opens_our_model_folder(tmp_path: Path) -> None:
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
    theirs = run_with_transformers4(THEIRS, str(tmp_path), json.dumps(TEXTS))
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


def made_cases(rng: random.Random, count: int) -> list[tuple[Any, ...]]:
    """Options, added tokens and texts that hold them."""
    cases: list[tuple[Any, ...]] = []
    for _ in range(count):
        contents = {
            rng.choice(OVERLAPPING)
            if rng.random() < 0.6
            else "".join(rng.choices(CHARACTERS, k=rng.randint(1, 4)))
            for _ in range(rng.randint(0, 4))
        }
        added = [
            {"content": content}
            | {name: rng.random() < 0.5 for name in ("special", "normalized")}
            | {name: rng.random() < 0.2 for name in ("single_word", "lstrip", "rstrip")}
            for content in sorted(contents)
            if content.strip("\u0301\u200b\u3000 ")
        ]
        parts = [*CHARACTERS, *SPECIAL, *(one["content"] for one in added for _ in range(8))]
        texts = ["".join(rng.choices(parts, k=rng.randint(0, 14))) for _ in range(5)]
        options = {
            "do_lower_case": rng.random() < 0.5,
            "strip_accents": rng.choice([None, True, False]),
            "tokenize_chinese_chars": rng.random() < 0.5,
        }
        cases.append((options, added, texts))
    return cases


def test_added_tokens_of_folders_that_transformers_4_writes(tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    cases = made_cases(random.Random(1), int(os.environ.get("ZHBERT_CASES", "25")))
    found = run_with_transformers4(ADDED, str(tmp_path), json.dumps(cases))
    assert len(found) == 2 * len(cases)
    saved = []
    for number, out, rows in found:
        tokenizer = Tokenizer.from_pretrained(out)
        tokenizer.save_pretrained(f"{out}-again")
        (Path(f"{out}-again") / "config.json").write_text('{"model_type": "bert"}')
        saved.append((f"{out}-again", cases[number][2]))
        for text, (ids, offsets) in zip(cases[number][2], rows, strict=True):
            encoding = tokenizer.encode(text)
            assert encoding.ids.tolist() == ids, (cases[number], out, text)
            assert encoding.offsets.tolist() == offsets, (cases[number], out, text)
    expected = [[ids for ids, _ in rows] for _, _, rows in found]
    assert run_with_transformers4(READ, json.dumps(saved)) == expected


def test_the_question_answering_pipeline_gives_our_answers(tmp_path: Path) -> None:
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
    theirs = run_with_transformers4(ANSWERS, str(tmp_path), CONTEXT, json.dumps(QUESTIONS))

    kind = SpanLearner(tokenizer, 128, max_answer_length=8)
    examples = [SpanExample(str(n), one, CONTEXT) for n, one in enumerate(QUESTIONS)]
    prepared = kind.prepare(examples)
    ours = kind.decode(prepared, run_model(model, prepared.rows, kind.scores))
    assert [one.value for one in ours] == [one["answer"] for one in theirs]
    # A random model's answers, but not the same one to each question.
    assert len({one.value for one in ours}) > 1
