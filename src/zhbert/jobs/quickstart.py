"""The whole pipeline on the sample text that ships with the package, or on your own.

zhbert quickstart
zhbert quickstart my.txt more.jsonl --out runs/mine

Words and masks, a corpus, a small model trained by the recipe 'quickstart', masks filled before
and after. OUT is then a run folder with a model folder in OUT/final; the corpus lies in OUT-corpus.
The exit code is 1 if the model is not better on held-out text than always guessing the most
frequent piece.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.files import advising
from zhbert.folders import Claim

if TYPE_CHECKING:
    from zhbert.data.shards import Corpus
    from zhbert.jobs.fill import Filled
    from zhbert.text.tokenizer import Tokenizer

SAMPLE = Path(__file__).parent.parent / "assets" / "sample.txt"
EXAMPLE = "使用语言模型来预测下一个词的probability。"

# A small text leaves few documents aside at the usual 1 %: too few to measure anything.
HELD_OUT = 0.1

# How many masked sentences are shown, and how long they may be to be read at a glance.
SHOWN = 5
SHOWN_PIECES = (8, 32)


@dataclass(frozen=True)
class Question:
    """A held-out sentence with one word masked."""

    text: str
    answer: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="*",
        help="text files or folders (default: the sample text of the package)",
    )
    parser.add_argument(
        "--out", default="runs/quickstart", metavar="RUN", help="the run folder to write"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier quickstart")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="key=value",
        help="override a value of the recipe (may be repeated)",
    )


def run(args: argparse.Namespace) -> int:
    """Run every stage and compare the model with the baseline."""
    with advising("run it again with --overwrite"):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from zhbert.jobs.console import err, out, print_json
    from zhbert.jobs.pretrain import pretrain

    begun = time.monotonic()
    console = out()

    def stage(number: int, title: str) -> None:
        if not (args.quiet or args.json):
            console.print(f"\n{number}/5  {title}", style="bold")
            # The stages' own progress is on stderr: keep the two in order in a log.
            sys.stdout.flush()

    folder = Path(args.out)
    if folder.name in ("", ".."):
        folder = folder.resolve()
    corpus_folder = Path(f"{folder}-corpus")
    for place in (folder, corpus_folder):
        Claim(
            folder=place,
            what="an earlier quickstart",
            is_ours=_is_ours,
            overwrite=args.overwrite,
            needed={f"text {name}": Path(name) for name in args.text},
        ).check()

    stage(1, "分词与掩码  words and masks")
    if not (args.quiet or args.json):
        _show_masks()

    stage(2, "文本 → 语料  text to corpus")
    corpus = _prepare(args, corpus_folder)

    stage(3, "训练前填空  masks filled before training")
    tokenizer, questions = _questions(corpus)
    before = _fill_untrained(tokenizer, questions, args.overrides)
    if not (args.quiet or args.json):
        _show_filled(questions, [before])

    stage(4, "训练  training")
    result = pretrain(
        "quickstart",
        corpus_folder,
        folder,
        args.overrides,
        overwrite=args.overwrite,
        quiet=args.quiet,
    )
    if result.final is None or result.signal:
        err().print(
            f"stopped at step {result.step}; to go on: zhbert pretrain quickstart "
            f"--corpus {corpus_folder} --out {folder} --resume",
        )
        return 128 + (result.signal or 0)

    stage(5, "训练后填空  masks filled after training")
    after = _fill_trained(result.final, questions)
    if not (args.quiet or args.json):
        _show_filled(questions, [before, after])

    line = next(line for line in result.evaluations if line["evaluation"] == "wwm")
    accuracy, baseline = line["masked_lm_accuracy"], line["baseline_accuracy"]
    better = accuracy > baseline
    seconds = time.monotonic() - begun
    if args.json:
        print_json(
            {
                "model": str(result.final),
                "corpus": str(corpus_folder),
                "masked_lm_accuracy": accuracy,
                "baseline_accuracy": baseline,
                "predictions": line["masked_lm_predictions"],
                "better_than_baseline": better,
                "seconds": seconds,
                "filled": [
                    {
                        "text": question.text,
                        "answer": question.answer,
                        "before": old.filled,
                        "after": new.filled,
                    }
                    for question, old, new in zip(questions, before, after, strict=True)
                ],
            }
        )
    else:
        console.print(
            f"\n保留文本上的掩码准确率  held-out masked accuracy: {accuracy:.2%} "
            f"({line['masked_lm_predictions']:,} masked pieces)\n"
            f"总猜最常见的字        always the commonest piece: {baseline:.2%}\n"
            f"模型  model: {result.final}   ({seconds / 60:.1f} min)"
        )
        if better and not args.quiet:
            console.print(
                f'试一试  try: zhbert fill {result.final} "今天天气[MASK]好。"\n'
                "It learnt from very little text in a few minutes; docs/results.md shows what more "
                "of both gives.",
            )
    if not better:
        err().print(
            "the model is not better than the baseline: the text is too small or too varied for "
            "this recipe; give more text, or train longer (--set steps=...)",
            style="bold red",
        )
    return 0 if better else 1


def _is_ours(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("recipe.toml", "corpus.json", ".partial"))


def _show_masks() -> None:
    from zhbert.jobs.mask import mask_text, print_table
    from zhbert.text.segment import load_segmenter
    from zhbert.text.tokenizer import Tokenizer

    print_table(mask_text(EXAMPLE, Tokenizer.default(), load_segmenter("jieba"), seed=3))


def _prepare(args: argparse.Namespace, folder: Path) -> Corpus:
    from zhbert.data.shards import Corpus
    from zhbert.jobs.account import describe
    from zhbert.jobs.console import out
    from zhbert.jobs.prepare import prepare, processors, progress_bar

    silent = args.quiet or args.json
    # A text without blank lines is one document, of which only the end is set aside: then each line
    # is one.
    for documents, enough in (("blank", 2), ("line", 1)):
        begun = time.perf_counter()
        with progress_bar(silent) as progress:
            report = prepare(
                args.text or [SAMPLE],
                folder,
                documents=documents,
                held_out=HELD_OUT,
                overwrite=True,
                workers=processors(),
                progress=progress,
            )
        corpus = Corpus.open(folder)
        totals = corpus.info["totals"]
        if totals["held_out"]["documents"] and totals["train"]["documents"] >= enough:
            break
    else:
        shutil.rmtree(folder)
        raise ZhbertError(
            "the text is too short to set a part of it aside: give at least some fifty lines"
        )
    if not silent:
        out().print(describe({**report, "seconds": time.perf_counter() - begun}), end="")
    return corpus


def _questions(corpus: Corpus) -> tuple[Tokenizer, list[Question]]:
    """Masked sentences from the held-out documents, spread over all of them."""
    import numpy as np

    tokenizer = corpus.tokenizer()
    mask = tokenizer.special_tokens["mask_token"]
    rng = np.random.default_rng(0)
    found: list[Question] = []
    for shard in corpus.shards("held_out"):
        starts = np.append(shard.sentence_starts(), len(shard.pieces))
        words = shard.word_starts()
        lengths = np.diff(starts)
        fitting = np.flatnonzero((lengths >= SHOWN_PIECES[0]) & (lengths <= SHOWN_PIECES[1]))
        for sentence in rng.permutation(fitting)[: 4 * SHOWN]:
            begin, end = starts[sentence], starts[sentence + 1]
            pieces = shard.pieces[begin:end]
            edges = np.append(np.flatnonzero(words[begin:end]), end - begin)
            sizes = np.diff(edges)
            candidates = [
                w for w in np.flatnonzero((sizes >= 1) & (sizes <= 2))
                if all(
                    "\u4e00" <= tokenizer.vocabulary[p] <= "\u9fff"
                    for p in pieces[edges[w] : edges[w + 1]]
                )
            ]  # fmt: skip
            if not candidates or tokenizer.unk_id in pieces:
                continue
            first, last = edges[(w := int(rng.choice(candidates)))], edges[w + 1]
            text = (
                tokenizer.decode(pieces[:first])
                + mask * int(last - first)
                + tokenizer.decode(pieces[last:])
            )
            found.append(Question(text, tokenizer.decode(pieces[first:last])))
            if len(found) == SHOWN:
                return tokenizer, found
    return tokenizer, found


def _fill_untrained(
    tokenizer: Tokenizer, questions: Sequence[Question], overrides: Sequence[str]
) -> list[Filled]:
    """What the very weights with which training begins fill in."""
    from zhbert.config import flatten, load_recipe, resolve_shape
    from zhbert.jobs.fill import fill
    from zhbert.model.config import BertConfig
    from zhbert.model.pretrained import BertForPreTraining

    recipe = load_recipe("quickstart", overrides)
    shape: dict[str, Any] = flatten(resolve_shape(recipe.model))
    config = BertConfig(vocab_size=len(tokenizer), **shape)
    model = BertForPreTraining(config, seed=recipe.seed).eval()
    return fill(model, tokenizer, [question.text for question in questions])


def _fill_trained(folder: Path, questions: Sequence[Question]) -> list[Filled]:
    from zhbert.jobs.fill import fill, open_model

    with warnings.catch_warnings():
        # A model that learnt nothing is told by the scores below.
        warnings.simplefilter("ignore")
        model, tokenizer = open_model(folder)
    return fill(model.eval(), tokenizer, [question.text for question in questions])


def _show_filled(questions: Sequence[Question], rounds: Sequence[Sequence[Filled]]) -> None:
    from zhbert.jobs.console import out

    console = out()
    names = ("训练前 before", "训练后 after ")
    for number, question in enumerate(questions):
        console.print(f"{question.text}   （{question.answer}）")
        for name, filled in zip(names, rounds, strict=False):
            best = "   ".join(
                " ".join(f"{c.piece} {c.probability:.0%}" for c in mask.candidates[:3])
                for mask in filled[number].masks
            )
            console.print(f"    {name}: {best}")
