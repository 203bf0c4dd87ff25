"""A verb starts in about the time that importing torch takes; a mistake is said before that."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

from zhbert import BertConfig, BertForPreTraining, Tokenizer
from zhbert.cli import VERBS

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"今天气很好"]
# Run each line, and tell of each on the last one which of the named modules it has imported.
SCRIPT = """
import json, shlex, sys
from zhbert.cli import main
told, before = {}, set()
for line in sys.argv[2:]:
    code = main(shlex.split(line))
    here = {name for name in sys.argv[1].split() if name in sys.modules}
    told[line], before = [code, sorted(here - before)], here
print(json.dumps(told))
"""


def imported(names: str, *lines: str) -> dict[str, list[object]]:
    """For each command line its exit code, and which modules it was the first to import."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, names, *lines]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    found: dict[str, list[object]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_opening_a_model_does_not_import_the_compiler(tmp_path: Path) -> None:
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForPreTraining(BertConfig(vocab_size=len(PIECES), **shape), seed=1)
    model.save_pretrained(tmp_path)
    Tokenizer(PIECES).save_pretrained(tmp_path)
    line = shlex.join(["fill", str(tmp_path), "今天[MASK]气"])
    assert imported("torch torch._dynamo sympy", line) == {line: [0, ["torch"]]}


WRONG = (
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
    "embed mini nosuch --out v.npy",
    "embed nosuch README.md --out v.npy",
    "embed mini README.md --out v.txt",
    "similarity nosuch 今天 明天",
    "similarity mini README.md 今天",
    "search nosuch --corpus README.md 今天",
    "search mini --corpus nosuch 今天",
    "search mini --index nosuch 今天",
    "prepare nosuch --out c",
    "prepare README.md --vocab nosuch --out c",
    "report nosuch --out r",
    "score lcqmc nosuch nosuch",
)


def test_a_wrong_path_is_said_before_torch_is_imported() -> None:
    assert imported("torch", *WRONG) == {line: [2, []] for line in WRONG}


def test_declaring_arguments_imports_no_numpy_unless_the_choices_need_it() -> None:
    # The names of the segmenters stand beside what loads them.
    others = [verb for verb in VERBS if verb not in ("mask", "segment", "prepare")]
    lines = [f"{verb} --nosuch" for verb in others]
    assert imported("numpy pyarrow torch", *lines) == {line: [2, []] for line in lines}
