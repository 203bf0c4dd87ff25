"""Check a recipe and describe the run that it defines, without training.

zhbert check tiny
zhbert check bert-wwm-phase1 batch_size=1024 --corpus corpus
zhbert check minirbt-h256 --teacher runs/rbt6/final --corpus corpus
zhbert check bert-wwm-phase1 --device h100 --gpus 8 --price 2.5
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

from zhbert import console
from zhbert.options import add_recipe_arguments
from zhbert.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--corpus", metavar="DIR", help="also compute the number of epochs on this corpus"
    )
    parser.add_argument(
        "--teacher",
        action="append",
        default=[],
        metavar="MODEL",
        help="of a distillation: also say which layer matches which, and what the teacher costs",
    )
    parser.add_argument(
        "--device",
        metavar="GPU",
        help="estimate memory, speed and hours on this GPU, which need not be here: h100, ...",
    )
    parser.add_argument(
        "--gpus", type=int, metavar="N", help="so many of them, 8 in a machine (default 1)"
    )
    parser.add_argument(
        "--price", type=float, metavar="P", help="the price of an hour of one GPU: adds the cost"
    )


def run(args: argparse.Namespace) -> int:
    """Check the recipe and print the result."""
    from zhbert.config import load_recipe, recipe_to_toml, resolve_shape
    from zhbert.pretraining.check import check

    result = check(
        args.recipe,
        args.overrides,
        corpus=args.corpus,
        teachers=args.teacher,
        device=args.device,
        gpus=args.gpus,
        price=args.price,
    )
    if args.json:
        console.print_json(result)
        return 0
    if not args.quiet:
        recipe = load_recipe(args.recipe, args.overrides)
        shape = resolve_shape(recipe.model, result["initial_shape"])
        sys.stdout.write(recipe_to_toml(dataclasses.replace(recipe, model=shape)) + "\n")
    lines = [
        ("parameters", f"{result['parameters']:,}"),
        ("pieces a step", f"at most {result['pieces_per_step']:,}"),
        ("micro-batch", f"{counted(result['micro_batch_size'], 'row')} {_where(result)}"),
        ("memory", _memory(result)),
        (
            "operations",
            f"{result['operations']:.2g} in all, {result['operations_per_step']:.2g} a step"
            + _of_teacher(result, "operations_per_step", 1),
        ),
    ]
    lines += _gpu_lines(result["gpu"])
    lines += _distillation_lines(result["distillation"])
    if result["epochs"] is not None:
        lines.append(("corpus", f"{result['corpus_pieces']:,} pieces to train on"))
        lines.append(("epochs", f"about {_rough(result['epochs'])}"))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        sys.stdout.write(f"{name:<{width}}  {value}\n")
    for note in result["notes"]:
        sys.stdout.write(f"note: {note}\n")
    return 0


def _where(result: dict[str, Any]) -> str:
    return "on this machine's CPU" if result["gpu"] is None else "on each GPU"


def _memory(result: dict[str, Any]) -> str:
    found, gpu = result["memory_bytes"], result["gpu"]
    if gpu is None:
        text = f"about {found / 2**30:.2g} GiB on a CPU in fp32"
        return text + _of_teacher(result, "memory_bytes", 2**30)
    size = f"{_rough(found / 1e6)} MB" if found < 1e9 else f"{_rough(found / 1e9)}"
    text = f"about {size} of {gpu['memory']:g} GB on each GPU"
    return text + _of_teacher(result, "memory_bytes", 1e9)


def _gpu_lines(gpu: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Yield what a run takes on GPUs, if it is planned for some."""
    from zhbert.train.log import duration

    if gpu is None:
        return
    yield "GPUs", f"{gpu['gpus']:,} x {gpu['name']}, at {gpu['share_of_peak']:.0%} of their peak"
    seconds = gpu["seconds_per_step"]
    step = f"{_rough(seconds * 1e3)} ms" if seconds < 1 else f"{_rough(seconds)} s"
    yield "speed", f"about {_rough(gpu['pieces_per_second'])} pieces/s, {step} a step"
    yield "time", f"about {duration(gpu['hours'] * 3600)}, besides evaluations and compiling"
    if gpu["cost"] is not None:
        each = f"{counted(gpu['gpus'], 'GPU')} x {_rough(gpu['hours'])} h x {gpu['price']:g}"
        yield "cost", f"about {_rough(gpu['cost'])} = {each}"
    steps, cards = counted(gpu["measured_steps"], "step"), " and ".join(gpu["measured_on"])
    if gpu["error"] is None:
        yield "estimate", f"unproven: from the time of {steps} measured on {cards}"
    else:
        yield (
            "estimate",
            f"time within {gpu['error']:.0%} of each of {steps} measured on {cards}; "
            "on other GPUs unproven",
        )


def _rough(number: float) -> str:
    """Return a number with three digits that count."""
    return f"{float(f'{number:.3g}'):,.15g}"


def _of_teacher(result: dict[str, Any], key: str, unit: float) -> str:
    """Return how much of a number the teacher takes, if there is one."""
    found = result["distillation"]
    if not found or not found["teachers"]:
        return ""
    return f", {found[key] / unit:.2g} of it for the teacher"


def _distillation_lines(found: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Yield what a distillation does, if it is one."""
    if found is None:
        return
    for teacher in found["teachers"]:
        shape = f"{counted(teacher['layers'], 'layer')} x {teacher['hidden_size']}"
        yield "teacher", f"{teacher['name']}: {shape}, {teacher['parameters']:,} parameters"
        if teacher["vocabulary"]:
            yield "vocabulary", teacher["vocabulary"]
    weights, soft = found["weights"], found["soft_labels"]
    yield "soft labels", soft if soft == "none" else f"{soft}; weight {weights['soft']:g}"
    yield "hard labels", f"weight {weights['hard']:g}"
    for line in found["matches"]:
        yield "match", line
    if found["projection_parameters"]:
        number = found["projection_parameters"]
        yield "projections", f"{number:,} parameters, trained and not written to the model"
