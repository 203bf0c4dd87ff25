"""PaddlePaddle, PaddleNLP and PaddleHub, in one process beside this one (`make test-paddle`)."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from tests.another_python import AnotherPython

ROOT = Path(__file__).parent.parent.parent
# PaddleNLP and PaddleHub import these for other models, for servers and for pictures; half of them
# exist as source only. Empty modules stand in: what a BERT needs is not among them.
LEFT_OUT = """
import importlib.abc, importlib.machinery, sys, types
NAMES = {
    "aiohttp", "aistudio_sdk", "cv2", "datasets", "dill", "flask", "gradio", "gunicorn", "jieba",
    "matplotlib", "multiprocess", "paddle2onnx", "paddlenlp.server", "pandas", "pyarrow", "rarfile",
    "rouge", "scipy", "seqeval", "sklearn", "visualdl", "zmq",
}

class LeftOut(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name in NAMES or name.partition(".")[0] in NAMES:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        def missing(name):
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})
        module.__getattr__ = missing
        return module

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, LeftOut())
"""


def paddle_folder() -> Path:
    """The environment that `make test-paddle` makes; without it, the test is skipped."""
    asked = os.environ.get("ZHBERT_PADDLE")
    folder = Path(asked or ROOT / ".paddle")
    if not (folder / "bin" / "python").exists():
        # `make test-paddle` asks for it: there its absence is a failure.
        assert asked is None, f"{folder}: not there"
        pytest.skip("this machine has no .paddle; 'make test-paddle' makes it, and runs this")
    return folder


@functools.cache
def _process() -> AnotherPython:
    home = tempfile.mkdtemp()  # PaddleHub writes into it
    variables = {"HOME": home, "HUB_HOME": home, "PYTHONPATH": ""}
    return AnotherPython(str(paddle_folder() / "bin" / "python"), variables, first=LEFT_OUT)


def run_with_paddle(program: str, *arguments: str) -> Any:
    """What a program, given ``arguments`` as ``sys.argv[1:]``, leaves as ``result``."""
    return _process().run(program, *arguments)
