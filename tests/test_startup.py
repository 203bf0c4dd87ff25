"""A verb starts in about the time that importing torch takes; a mistake is said before that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from zhbert import BertConfig, BertForPreTraining, Tokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"今天气很好"]
# Run a verb, then tell on the last line which of the named modules are there.
SCRIPT = """
import json, sys
from zhbert.cli import main
code = main(sys.argv[2:])
print(json.dumps([code, [name for name in sys.argv[1].split() if name in sys.modules]]))
"""


def imported(names: str, *words: str) -> tuple[int, list[str]]:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, names, *words]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    code, found = json.loads(done.stdout.splitlines()[-1])
    return code, found


def test_opening_a_model_does_not_import_the_compiler(tmp_path: Path) -> None:
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForPreTraining(BertConfig(vocab_size=len(PIECES), **shape), seed=1)
    model.save_pretrained(tmp_path)
    Tokenizer(PIECES).save_pretrained(tmp_path)
    code, found = imported("torch torch._dynamo sympy", "fill", str(tmp_path), "今天[MASK]气")
    assert (code, found) == (0, ["torch"])


@pytest.mark.parametrize(
    "line",
    [
        "fill nosuch 今[MASK]",
        "fill 今天",
        "fill rbt3",
        "pretrain tiny --corpus nosuch --out r",
        "pretrain nosuch --corpus c --out r",
        "inspect nosuch",
        "params nosuch",
        "predict nosuch x.tsv",
        "finetune lcqmc --model m --data nosuch --out r",
        "evaluate nosuch lcqmc --data nosuch",
        "evaluate nosuch --data nosuch lcqmc",
        "segment nosuch",
        "prepare nosuch --out c",
        "prepare README.md --vocab nosuch --out c",
        "report nosuch --out r",
        "score lcqmc nosuch nosuch",
    ],
)
def test_a_wrong_path_is_said_before_torch_is_imported(line: str) -> None:
    assert imported("torch", *line.split()) == (2, [])
