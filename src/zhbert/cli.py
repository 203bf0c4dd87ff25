"""The command line, ``zhbert VERB ...``; the module of a verb is imported only when it runs."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from itertools import pairwise
from types import FrameType
from typing import NoReturn

from zhbert.errors import Interrupted, ZhbertError
from zhbert.files import describe_os_error
from zhbert.terminal import escaping

# verb -> (module, one line of help), in the order in which a user needs them.
VERBS = {
    "quickstart": (
        "zhbert.jobs.quickstart",
        "train the packaged model on your text, in minutes",
    ),
    "mask": ("zhbert.jobs.mask", "show a text, its words and its masks in a four-row table"),
    "vocab": ("zhbert.jobs.vocab", "train, extend or measure a vocabulary"),
    "segment": ("zhbert.jobs.segment", "segment text into words, or compare segmenters"),
    "prepare": ("zhbert.jobs.prepare", "turn raw text into a corpus folder of words and pieces"),
    "corpus": ("zhbert.jobs.corpus", "show statistics and a few documents of a corpus folder"),
    "similar-words": (
        "zhbert.jobs.similar_words",
        "find the similar words of a corpus's words, for the masking strategy mac",
    ),
    "recipes": ("zhbert.jobs.recipes", "list, show or copy the recipes"),
    "check": ("zhbert.jobs.check", "check a recipe and describe the run"),
    "pretrain": ("zhbert.jobs.pretrain", "train a masked language model from a recipe"),
    "distill": ("zhbert.jobs.distill", "train a small model that learns from a large one"),
    "fill": ("zhbert.jobs.fill", "fill the [MASK]s of a text"),
    "models": ("zhbert.jobs.models", "list the published models, or describe one"),
    "download": ("zhbert.jobs.download", "download a model by its name, hub id or URL"),
    "inspect": ("zhbert.jobs.inspect", "describe a checkpoint and which of its heads are trained"),
    "convert": ("zhbert.jobs.convert", "convert between TensorFlow, safetensors and PyTorch"),
    "verify": ("zhbert.jobs.verify", "check that two models compute the same"),
    "shrink": ("zhbert.jobs.shrink", "make a model smaller: fewer layers, pieces, positions"),
    "stretch": ("zhbert.jobs.stretch", "give a model more positions, made from the trained ones"),
    "tasks": ("zhbert.jobs.tasks", "list the tasks, or describe one"),
    "finetune": ("zhbert.jobs.finetune", "fine-tune a model for a task, with seeds and grids"),
    "evaluate": ("zhbert.jobs.evaluate", "score a model on labelled examples, or on masked words"),
    "predict": ("zhbert.jobs.predict", "predict with a fine-tuned model for any file or stdin"),
    "score": ("zhbert.jobs.score", "score predictions as the benchmark does"),
    "embed": ("zhbert.jobs.embed", "compute the vectors of a file's texts by a sentence model"),
    "embed-static": (
        "zhbert.jobs.embed_static",
        "make vectors of pieces from a sentence model: faster, less exact",
    ),
    "similarity": ("zhbert.jobs.similarity", "say how similar two texts are, or pairs in files"),
    "search": ("zhbert.jobs.search", "find the texts of a corpus that are most similar to queries"),
    "push": ("zhbert.jobs.push", "upload a model to the Hugging Face hub, with its card"),
    "report": ("zhbert.jobs.report", "make one page of tables and figures from runs"),
    "params": ("zhbert.jobs.params", "count the parameters of a recipe, a model or a shape"),
}
# The signals that ask a process to end: Ctrl-C, kill, and a terminal that is closed.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The verbs that divide their work among the processes that torchrun starts.
_OF_SEVERAL = ("pretrain", "distill")
# The limit of argparse's error messages, in characters: they may quote the whole command line.
_SHOWN = 200


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises its errors as ZhbertError, without printing the usage."""

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.split())
        if len(line) > _SHOWN:
            line = line[:_SHOWN] + "…"
        verb = self.prog.removeprefix("zhbert ")
        raise ZhbertError(f"{verb}: {line}; '{self.prog} --help' says more")


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {text}" for verb, (_, text) in VERBS.items()]
    return (
        "usage: zhbert VERB ...\n\n"
        "Chinese BERT with whole word masking: text in, a masked language model out.\n\n"
        + "\n".join(lines)
        + "\n\nzhbert VERB --help describes a verb; zhbert --version prints the version.\n"
    )


def _run(verb: str, arguments: Sequence[str]) -> int:
    # Some clusters set WORLD_SIZE in every container; LOCAL_RANK is torchrun's.
    if _one_of_several() and "LOCAL_RANK" in os.environ and verb not in _OF_SEVERAL:
        # Each process would do the whole work, and write the same files.
        raise ZhbertError(f"{verb} runs in one process: start it without torchrun")
    # Must be set before torch is imported. Waiting threads then sleep instead of spinning. On an
    # idle machine that costs little. Beside one other busy process, spinning makes a training step
    # ten times as long, because the spinning threads take the core of the thread they wait for.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from zhbert.runtime import limit_onednn  # late, since --help does without it

    limit_onednn()
    module = importlib.import_module(VERBS[verb][0])
    parser = _Parser(
        prog=f"zhbert {verb}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--quiet", action="store_true", help="print results only")
    parser.add_argument("--json", action="store_true", help="print results as JSON")
    module.add_arguments(parser)
    if "--out=" in arguments or ("--out", "") in pairwise(arguments):
        # Usually an unset variable in a script. As a path, "" would mean the current folder.
        raise ZhbertError(f"{verb}: --out: an empty name; name a file or a folder")
    result = module.run(parser.parse_args(arguments))
    sys.stdout.flush()
    return int(result)


_by_python = warnings.formatwarning


def _one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Format a zhbert warning as one line, without the source line that raised it."""
    if category.__module__.startswith("zhbert."):
        return f"zhbert: warning: {message}\n"
    return _by_python(message, category, filename, lineno, line)


def entry() -> NoReturn:
    """Run `main` and end the process with its exit code: the entry point of ``zhbert``."""
    for number in _ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:  # ignored under nohup
            signal.signal(number, _interrupt)
    several = _one_of_several()
    warnings.formatwarning = _one_line
    try:
        code = main()
    except Exception:
        if not several:
            raise
        sys.excepthook(*sys.exc_info())
        code = 1
    leave(code, at_once=several)


def _one_of_several() -> bool:
    """Return True if this is one of several processes; torchrun sets WORLD_SIZE."""
    return os.environ.get("WORLD_SIZE") not in (None, "", "1")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Raise Interrupted, so that the verb can clean up; a second signal ends it immediately."""
    for one in _ENDING:
        signal.signal(one, signal.SIG_DFL)
    raise Interrupted(number)


def leave(code: int, *, at_once: bool) -> NoReturn:
    """End the process; ``at_once`` skips the interpreter's shutdown.

    It is meant for one of several processes. gloo's threads may still hold a tensor of the last
    exchange; if they release it during shutdown, the process aborts and its exit code is SIGABRT's
    instead of ``code``. For a process that has failed, destroying the process group first would not
    help: that waits for processes that have ended or do not answer.
    """
    if at_once:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return its exit code: 0 success, 1 a negative answer, 2 a user's mistake."""
    with redirect_stdout(escaping(sys.stdout)), redirect_stderr(escaping(sys.stderr)):
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(_usage())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from zhbert import __version__

        sys.stdout.write(f"zhbert {__version__}\n")
        return 0
    if words[0] not in VERBS:
        import difflib

        near = difflib.get_close_matches(words[0], VERBS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(VERBS)}"
        sys.stderr.write(f"zhbert: error: no verb '{words[0]}'{hint}\n")
        return 2
    try:
        return _run(words[0], words[1:])
    except ZhbertError as error:
        sys.stderr.write(f"zhbert: error: {error}\n")
        return 2
    except BrokenPipeError:
        # The reader of a pipe (head, less) has ended: discard the rest of the output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as interrupt:
        number: int = getattr(interrupt, "number", signal.SIGINT)
        # torchrun ends the others when one process has failed.
        launcher = _one_of_several() and number == signal.SIGTERM
        with suppress(OSError):  # the terminal may be closed
            sys.stderr.write(f"zhbert: {'ended by its launcher' if launcher else 'interrupted'}\n")
        return 128 + number
    except OSError as error:
        if os.environ.get("ZHBERT_DEBUG"):
            raise
        if not error.filename and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            # Errors about files carry the file's name, so this one is about stdout. Redirect it,
            # so that flushing the rest at exit does not fail again.
            error.filename = "standard output"
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stderr.write(f"zhbert: error: {describe_os_error(error, words[0] + ':')}\n")
        return 2
