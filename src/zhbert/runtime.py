"""The hardware that a run computes on: device, dtype, threads, memory."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import sysconfig
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zhbert.errors import ZhbertError
from zhbert.schema import check_choice
from zhbert.wording import shortly

if TYPE_CHECKING:
    import torch


def launched_rank() -> int | None:
    """Return this process's number among those that torchrun started; None without torchrun."""
    return int(os.environ["RANK"]) if {"RANK", "WORLD_SIZE"} <= os.environ.keys() else None


def choose_device(local_rank: int = 0) -> torch.device:
    """Return this process's GPU if there is one, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device("cpu")


def device_named(name: str | torch.device | None) -> torch.device:
    """Return a device by its name; None: this process's GPU if there is one, else the CPU.

    >>> device_named("cpu")
    device(type='cpu')

    Raises:
        ZhbertError: there is no such device.
    """
    import torch

    if name is None:
        return choose_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        reason = re.split(r"\.\s|\n", str(error))[0].rstrip(".:")
        raise ZhbertError(
            f"device = {shortly(str(name))}: {reason}; give 'cpu', or leave it out"
        ) from None
    return device


def processors() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo(*keys: str) -> str:
    """Return the first value of one of ``keys`` in /proc/cpuinfo; "" if there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = (line for line in text.splitlines() if line.startswith(keys))
    return next(lines, "").partition(":")[2].strip()


def cpu_flags() -> set[str]:
    """Return the CPU's features by their Linux names (``avx512f``, ...); empty on other systems."""
    return set(_cpuinfo("flags", "Features").split())


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype for a ``precision``: "fp32", "bf16", "int8" (for prediction) or "auto".

    "auto" is bf16 on GPUs and CPUs with instructions for it (AMX, AVX512_BF16), else fp32: without
    such instructions bf16 is no faster.
    """
    import torch

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
    check_choice(precision, (*dtypes, "auto"), "precision")
    if precision in dtypes:
        return dtypes[precision]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = not cpu_flags().isdisjoint({"amx_bf16", "avx512_bf16"})
    return torch.bfloat16 if fast else torch.float32


# OpenMP aborts the process when it cannot start a thread.
MOST_THREADS = 1024


def prepare_threads(threads: int) -> int:
    """Set the number of PyTorch's CPU threads (0: PyTorch's default) and return it.

    Call this before anything is computed. Raises ZhbertError for more than 1,024 threads.
    """
    import torch

    if threads > MOST_THREADS:
        raise ZhbertError(f"threads = {threads}: must be {MOST_THREADS:,} or less; 0: all cores")
    limit_onednn()
    if threads:
        torch.set_num_threads(threads)
    # Adam's running means decay into denormal numbers, on which a CPU computes many times slower.
    # A thread inherits this setting from the one that starts it, so it must be made first.
    torch.set_flush_denormal(True)
    return torch.get_num_threads()


def limit_onednn() -> None:
    """Let oneDNN cache the code for a few dozen shapes; it reads the limit when it first computes.

    Each takes about a third of a megabyte, and packed rows have a new shape in nearly every batch:
    with its default limit, 1,024 shapes, a process grows by half a gigabyte.
    """
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, "64")


def missing_to_compile(on_cpu: bool) -> str:
    """Return what torch.compile lacks on this machine, for an error; "" if nothing.

    For a CPU, Inductor compiles C++; for a GPU, Triton compiles C when it first launches a kernel.
    Both include Python.h.
    """
    if not (on_cpu or find_spec("triton")):
        return "package triton (pip install triton)"
    language, variable, names = ("C", "CC", ["gcc", "clang"])
    if on_cpu:
        usual = "clang++" if sys.platform == "darwin" else "g++"
        language, variable, names = ("C++", "CXX", [usual])
    if variable in os.environ:
        names = [os.environ[variable]]
    if not any(map(shutil.which, names)):
        return f"{language} compiler ({' or '.join(names)}; {variable} can name another)"
    # Not sysconfig's default scheme, which on Debian is that of /usr/local.
    header = Path(sysconfig.get_path("include", "posix_prefix"), "Python.h")
    return "" if header.is_file() else f"{header} (Debian: the package python3-dev)"


def make_deterministic(device: torch.device) -> None:
    """Compute the same bits in each run on a GPU; on a CPU nothing needs to change.

    Call this before anything is computed.
    """
    import torch

    if device.type == "cuda":
        # https://docs.nvidia.com/cuda/cublas/#results-reproducibility
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Nothing reads memory before it is written, so it need not be filled.
        cast(Any, torch.utils).deterministic.fill_uninitialized_memory = False


def total_memory(device: torch.device | None = None) -> int:
    """Return the memory in bytes: the GPU's if ``device`` is a GPU, else the machine's."""
    if device is not None and device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_memory() -> int:
    """Return the bytes that this process may still take: the machine's, or its control group's."""
    free = total_memory()
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        free = min(free, int(available.split()[1]) * 1024)
    with suppress(OSError, ValueError):  # memory.max is "max" where there is no limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{n}").read_text()) for n in ("max", "current"))
        # Pages of files are given back when memory is needed.
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(stat.get("inactive_file", 0)))
    return max(0, free)


def cpu_name() -> str:
    """Return the CPU's name as reported by the system."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()
