"""Provenance of a run's results: versions, commit, hardware and command, in provenance.json."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.files import read_json_if_sound
from zhbert.runtime import cpu_flags, cpu_name
from zhbert.wording import without_secrets

if TYPE_CHECKING:
    import torch

FILE = "provenance.json"

# CPU features that affect speed and the last bits of results.
_TELLING_FLAGS = (
    "avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "asimd", "sve",
)  # fmt: skip


def provenance(device: torch.device, dtype: torch.dtype, world_size: int = 1) -> dict[str, Any]:
    """Return everything that affects a result and is not in the recipe, as JSON data."""
    import numpy
    import torch

    from zhbert import __version__

    flags = cpu_flags()
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": [without_secrets(word) for word in sys.argv],
        "zhbert": __version__,
        "commit": git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cpu_flags": [flag for flag in _TELLING_FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "cuda": torch.version.cuda if gpu else None,
        # PyTorch's default is without; NVIDIA's containers turn it on.
        "tf32": torch.backends.cuda.matmul.allow_tf32 if gpu else None,
        "device": str(device),
        "precision": str(dtype).removeprefix("torch."),
        "processes": world_size,
    }


def read_provenance(folder: Path) -> dict[str, Any]:
    """Read a run's provenance.json; return {} if it is missing or damaged."""
    return read_json_if_sound(folder / FILE)


def git_commit() -> str | None:
    """Return the commit of zhbert's source tree, with ``+`` if it has changes; None outside git."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
