"""Make the folders in data/: what the version before a large change has written.

  python tests/compatibility/make.py

Run it with the version whose files are to stay readable (``zhbert`` on the path of Python), never
with the one that is tested: data/ was made by commit 177bd2e (zhbert 0.1.0, torch 2.13.0, float32,
one thread of an AMD EPYC with AVX2). Besides the archives it writes expected.json: every loss of
the pretraining runs, as exact floats, and what the fine-tuned models predicted.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WHO = ("我", "你", "他们", "老师", "同学", "妈妈", "小王的朋友")
WHEN = ("今天", "昨天晚上", "星期天", "明年春天", "2023年")
WHERE = ("在学校", "在图书馆", "在北京", "在公园里", "坐在家里")
WHAT = ("看书", "学习中文", "听音乐", "喝茶", "写了一封信", "打电话", "画画")
MORE = ("天气很好", "大家都很高兴", "时间过得真快", "外面下着大雨", "花开得很美")


def sentence(rng: random.Random) -> str:
    """A Chinese sentence of ours."""
    said = "".join(map(rng.choice, (WHEN, WHO, WHERE, WHAT)))
    return f"{said}，{rng.choice(MORE)}。" if rng.random() < 0.5 else f"{said}。"


def write_texts(folder: Path) -> None:
    """The text, its vocabulary, and a task of each kind that a model is kept for."""
    rng = random.Random(0)
    documents = ["\n".join(sentence(rng) for _ in range(rng.randint(3, 6))) for _ in range(40)]
    text = "\n\n".join(documents) + "\n"
    (folder / "text.txt").write_text(text, encoding="utf-8")
    characters = sorted(set("".join((*WHO, *WHEN, *WHERE, *WHAT, *MORE, "，。？哪儿"))))
    digits = [f"##{digit}" for digit in "0123"]
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *characters, *digits]) + "\n", "utf-8")
    (folder / "task").mkdir()
    for split, count in (("train", 48), ("dev", 16)):
        lines = (folder / "task" / f"classify-{split}.tsv").open("w", encoding="utf-8")
        tags = (folder / "task" / f"tag-{split}.txt").open("w", encoding="utf-8")
        paragraphs = []
        with lines, tags:
            lines.write("text\tlabel\n")
            for number in range(count):
                place, what = rng.choice(WHERE), rng.choice(WHAT)
                before = rng.choice(WHEN) + rng.choice(WHO)
                text = before + place + what + "。"
                lines.write(f"{text}\t{'study' if place in WHERE[:2] else 'other'}\n")
                for at, character in enumerate(text):
                    inside = len(before) <= at < len(before) + len(place)
                    first = "B" if at == len(before) else "I"
                    tags.write(f"{character} {f'{first}-LOC' if inside else 'O'}\n")
                tags.write("\n")
                answers = [{"text": place, "answer_start": len(before)}]
                asked = {"id": f"{split}-{number}", "question": "在哪儿？", "answers": answers}
                paragraphs.append({"context": text, "qas": [asked]})
        squad = {"data": [{"title": "", "paragraphs": paragraphs}]}
        path = folder / "task" / f"span-{split}.json"
        path.write_text(json.dumps(squad, ensure_ascii=False), encoding="utf-8")
    for kind, card in CARDS.items():
        text = f'title = "where?"\nkind = "{kind}"\n{card}'
        (folder / "task" / f"{kind}.toml").write_text(text, encoding="utf-8")


CARDS = {
    "classify": """metrics = ["accuracy", "f1"]
[data]
format = "tsv"
train = "classify-train.tsv"
dev = "classify-dev.tsv"
text = "text"
label = "label"
labels = ["study", "other"]
""",
    "tag": """metrics = ["f1"]
[data]
format = "bio"
train = "tag-train.txt"
dev = "tag-dev.txt"
labels = ["O", "B-LOC", "I-LOC"]
scheme = "BIO"
""",
    "span": """metrics = ["f1", "em"]
[data]
format = "squad"
train = "span-train.json"
dev = "span-dev.json"
scorer = "squad1.1"
""",
}

SUFFIXES = {"classify": ".tsv", "tag": ".txt", "span": ".json"}

# Everything that decides a loss, whatever the recipe holds: the tests begin the same runs anew.
PRETRAINING = (
    "model.num_hidden_layers=2", "model.num_attention_heads=2", "model.intermediate_size=64",
    "model.max_position_embeddings=32", "model.hidden_dropout_prob=0.1",
    "model.attention_probs_dropout_prob=0.1",
    "steps=60", "sequence_length=32", "batch_size=8", "micro_batch_size=4",
    "checkpoint_every=30", "keep_checkpoints=1", "evaluate_every=30", "evaluation.rows=8",
    "masking.max_predictions=5", "masking.rate=0.15", "masking.final_rate=",
    "initial_weights=bert", "softmax.frequent=0", "optimizer.name=adamw",
    "optimizer.learning_rate=1e-3", "optimizer.warmup_steps=5", "optimizer.beta2=0.999",
    "rows.builder=full-sentences", "rows.warmup_share=[]", "rows.warmup_length=[]",
    "compile=no", "threads=1", "precision=fp32",
)  # fmt: skip
RUNS = {
    "plain": ("model.hidden_size=32",),
    "pairs": ("model.hidden_size=32", "rows.builder=pairs", "rows.short_row_probability=0.1"),
    "muon": (
        "model.hidden_size=32", "rows.warmup_share=[0.2]", "rows.warmup_length=[16]",
        "optimizer.name=muon", "optimizer.beta2=0.98", "initial_weights=scaled",
        "softmax.frequent=30", "softmax.sampled=20",
        "masking.strategy=wwm", "masking.char_share=0.5", "masking.final_rate=0.1",
    ),
    "finished": (
        "model.hidden_size=16", "model.initializer_range=0.2", "steps=20", "checkpoint_every=0",
    ),
}  # fmt: skip
MODEL = "pretraining/finished/final"
FINETUNING = (
    "precision=fp32", "threads=1", "compile=no", "batch_size=8", "sequence_length=32", "epochs=16",
    "optimizer.learning_rate=1e-3", "checkpoint_every=24",
)  # fmt: skip


# Not -m zhbert: provenance.json would name the place of the source.
ZHBERT = (sys.executable, "-c", "from zhbert.cli import entry; entry()")


def zhbert(folder: Path, *words: str | Path) -> str:
    """What a verb prints."""
    command = [*ZHBERT, *map(str, words), "--quiet"]
    done = subprocess.run(command, cwd=folder, check=True, text=True, stdout=subprocess.PIPE)
    return done.stdout


def killed_at(folder: Path, sign: str, *words: str | Path) -> None:
    """Run a verb and kill it as soon as the file ``sign`` is there."""
    command = [*ZHBERT, *map(str, words), "--quiet"]
    with subprocess.Popen(command, cwd=folder) as process:
        while process.poll() is None and not list(folder.glob(sign)):
            time.sleep(0.0005)
        process.kill()
    assert process.returncode == -signal.SIGKILL, f"{sign}: ended before it was killed"


def pretrain(folder: Path, expected: dict[str, Any]) -> None:
    """A run of each kind to its end, and again until it is killed after step 30."""
    for name, overrides in RUNS.items():
        command = ["pretrain", "tiny", "--corpus", "corpus", *PRETRAINING, *overrides, "--out"]
        whole = folder / "whole" / name
        zhbert(folder, *command, whole.relative_to(folder))
        expected["pretraining"][name] = losses(whole)
        if name == "finished":
            (folder / "pretraining").mkdir(exist_ok=True)
            whole.rename(folder / "pretraining" / name)
            continue
        run = f"pretraining/{name}"
        killed_at(folder, f"{run}/checkpoints/step-000030/checkpoint.json", *command, run)
        assert not (folder / run / "final").exists()


def losses(run: Path) -> dict[str, Any]:
    """Every loss of a run, and every figure of its evaluations, as exact floats."""
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    evaluations = [
        {
            key: value.hex() if isinstance(value, float) else value
            for key, value in line.items()
            if key in ("step", "evaluation") or key.endswith(("_loss", "_accuracy"))
        }
        for line in lines
        if "evaluation" in line
    ]
    steps = [float(line["loss"]).hex() for line in lines if "evaluation" not in line]
    return {"losses": steps, "evaluations": evaluations}


def finetune(folder: Path, expected: dict[str, Any]) -> None:
    """Finished runs of three kinds, and one of two seeds that is killed within its second one."""
    for kind in CARDS:
        command = ["finetune", f"task/{kind}.toml", "--model", MODEL, *FINETUNING, "--out"]
        run = f"finetuning/{kind}"
        zhbert(folder, *command, run)
        file = f"task/{kind}-dev{SUFFIXES[kind]}"
        expected["predictions"][kind] = [
            json.loads(line)
            for line in zhbert(folder, "predict", f"{run}/seed-0/final", file).splitlines()
        ]
    command = ["finetune", "task/classify.toml", "--model", MODEL, *FINETUNING, "--seeds", "2"]
    zhbert(folder, *command, "--out", "whole/seeds")
    expected["seeds"] = json.loads((folder / "whole/seeds/summary.json").read_text("utf-8"))
    killed_at(
        folder, "finetuning/seeds/seed-1/checkpoints/step-000048/checkpoint.json",
        *command, "--out", "finetuning/seeds",
    )  # fmt: skip
    assert not (folder / "finetuning/seeds/seed-1/result.json").exists()


def interrupt_prepare(folder: Path, *words: str | Path) -> None:
    """A corpus folder whose blocks are done, and that is not finished."""
    end = "import os, sys; from zhbert import cli; from zhbert.jobs import prepare;"
    end += "prepare._Folder.finish = lambda *_: os._exit(9); cli.main(sys.argv[1:])"
    (folder / "unfinished").mkdir()
    done = subprocess.run([sys.executable, "-c", end, *map(str, words), "--quiet"], cwd=folder)
    assert done.returncode == 9


def fill_cache(folder: Path, expected: dict[str, Any]) -> None:
    """The cache after a download of an archive, with a second one that broke off."""
    with zipfile.ZipFile(folder / "served.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / MODEL).iterdir()):
            archive.write(path, f"tiny/{path.name}")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/served.zip"
        os.environ["ZHBERT_CACHE"] = str(folder / "cache")
        expected["url"] = url
        zhbert(folder, "inspect", url)
        server.shutdown()
    # The archive itself is not needed where it is unpacked.
    for path in folder.glob("cache/downloads/*/served.zip"):
        path.unlink()


def pack(folder: Path, name: str) -> None:
    """data/NAME.tar.xz of a folder, the same bytes for the same files."""
    with tarfile.open(DATA / f"{name}.tar.xz", "w:xz", preset=9) as archive:
        for path in sorted((folder / name).rglob("*")):
            if path.is_file():
                member = tarfile.TarInfo(str(path.relative_to(folder)))
                member.size = path.stat().st_size
                with path.open("rb") as file:
                    archive.addfile(member, file)


def main() -> None:
    """Make everything anew."""
    expected: dict[str, Any] = {"pretraining": {}, "predictions": {}}
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="zhbert-") as temporary:
        folder = Path(temporary)
        write_texts(folder)
        prepare = ["prepare", "text.txt", "--vocab", "vocab.txt", "--held-out", "0.15"]
        zhbert(folder, *prepare, "--out", "corpus")
        interrupt_prepare(folder, *prepare, "--deduplicate", "--out", "unfinished/corpus")
        for name in ("text.txt", "vocab.txt"):
            (folder / name).rename(folder / "unfinished" / name)
        pretrain(folder, expected)
        finetune(folder, expected)
        fill_cache(folder, expected)
        provenance = json.loads((folder / "pretraining/plain/provenance.json").read_text("utf-8"))
        expected["made"] = {
            key: provenance[key] for key in ("zhbert", "commit", "torch", "cpu", "cpu_flags")
        }
        for name in ("corpus", "unfinished", "pretraining", "task", "finetuning", "cache"):
            pack(folder, name)
    text = json.dumps(expected, ensure_ascii=False, indent=1)
    (DATA / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
