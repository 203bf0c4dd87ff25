"""Where a run computes: device, number format, threads; and where its results come from."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.files import read_json
from zhbert.wording import without_secrets

if TYPE_CHECKING:
    import torch


def choose_device(local_rank: int = 0) -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device("cpu")


def _cpuinfo(*keys: str) -> str:
    """What Linux says of the first CPU under one of the keys; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = (line for line in text.splitlines() if line.startswith(keys))
    return next(lines, "").partition(":")[2].strip()


def cpu_flags() -> set[str]:
    """The CPU's features as Linux names them (``avx512f``, ``amx_bf16``); empty elsewhere."""
    return set(_cpuinfo("flags", "Features").split())


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """``auto`` is bf16 on GPUs and CPUs that multiply it natively, and fp32 elsewhere.

    Without AMX or AVX512_BF16 a CPU's bf16 products are no faster than fp32's.
    """
    import torch

    if precision == "fp32":
        return torch.float32
    if precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = not cpu_flags().isdisjoint({"amx_bf16", "avx512_bf16"})
    return torch.bfloat16 if fast else torch.float32


# oneDNN keeps what it has compiled for a shape, a third of a megabyte each, and packed rows make a
# new shape of nearly every batch. So many serve the batches of one moment; its own bound, 1024,
# lets a process grow by half a gigabyte. Read when the first operation runs.
_ONEDNN_CACHES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
_SHAPES_KEPT = 64
# OpenMP ends the process where it cannot start a thread.
MOST_THREADS = 1024


def prepare_threads(threads: int) -> int:
    """Set PyTorch's CPU threads (0: its own choice) and return how many there are.

    Call it before anything is computed. Raises ZhbertError for more threads than any CPU has cores.
    """
    import torch

    if threads > MOST_THREADS:
        raise ZhbertError(f"threads = {threads}: must be {MOST_THREADS:,} or less; 0: all cores")
    for name in _ONEDNN_CACHES:
        os.environ.setdefault(name, str(_SHAPES_KEPT))
    if threads:
        torch.set_num_threads(threads)
    # Adam's running means decay into denormal numbers, on which a CPU computes many times slower.
    # Threads take the setting from the thread that starts them: it must precede all computing.
    torch.set_flush_denormal(True)
    return torch.get_num_threads()


def has_compiler() -> bool:
    """Is there the C++ compiler that torch.compile needs on a CPU (Triton brings its own)?"""
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "g++", "clang++"))


def total_memory(device: torch.device | None = None) -> int:
    """The whole memory of a GPU in bytes; of the CPU, or of no device named: the machine's."""
    if device is not None and device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cpu_name() -> str:
    """The CPU's name as the system gives it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def git_commit() -> str | None:
    """The commit of the source tree that this runs from, with ``+`` where it was changed."""
    root = Path(__file__).resolve().parents[2]
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


def provenance(device: torch.device, dtype: torch.dtype, world_size: int = 1) -> dict[str, Any]:
    """What a result depends on and a recipe does not say: versions, commit, hardware, command."""
    import numpy
    import torch

    from zhbert import __version__

    flags = cpu_flags()
    telling = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "asimd",
               "sve")  # fmt: skip
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
        "cpu_flags": [flag for flag in telling if flag in flags],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "cuda": torch.version.cuda if gpu else None,
        "device": str(device),
        "precision": str(dtype).removeprefix("torch."),
        "processes": world_size,
    }


def read_provenance(folder: Path) -> dict[str, Any]:
    """A run's provenance.json; nothing where it is missing or damaged: no result depends on it."""
    try:
        return read_json(folder / "provenance.json", dict)
    except ZhbertError:
        return {}
