"""Write requirements/*.txt anew: every version that `make` installs, with the hash of every wheel.

    pip install uv && python tools/lock.py              # the newest of everything
    python tools/lock.py --keep                         # only what pyproject.toml now asks for anew

uv resolves for all promised machines at once; what is written is pip's own format, so installing
needs pip alone. Only wheels count: a package that exists as source only is an error here, since its
build takes whatever its build tools are on that day. Below each package stand its wheels' names:
`tests/test_packaging.py` reads there, without a network, that every machine has one.

torch is left out, and what only its CUDA build needs: it comes as the machine's pip offers it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
PYTHONS = ("3.11", "3.12", "3.13")
# What pip's markers and a wheel's name call the promised machines.
MACHINES = {
    ("linux", "x86_64"): ("manylinux", "_x86_64"),
    ("linux", "aarch64"): ("manylinux", "_aarch64"),
    ("darwin", "arm64"): ("macosx", "_arm64", "_universal2"),
}
# torch's CUDA build brings these with it.
_CUDA = ("nvidia-", "cuda-", "triton")


def environments(pythons: Iterable[str] = PYTHONS) -> Iterator[dict[str, str]]:
    """Every promised machine under every Python, as the variables of a requirement's marker."""
    for system, machine in MACHINES:
        for python in pythons:
            yield {
                "sys_platform": system,
                "platform_system": {"linux": "Linux", "darwin": "Darwin"}[system],
                "platform_machine": machine,
                "platform_python_implementation": "CPython",
                "implementation_name": "cpython",
                "os_name": "posix",
                "python_version": python,
                "python_full_version": f"{python}.0",
                "extra": "",
            }


def fits(wheel: str, environment: dict[str, str]) -> bool:
    """Whether a wheel of this name installs there.

    >>> linux = next(environments())
    >>> fits("rich-15.0.0-py3-none-any.whl", linux)
    True
    >>> fits("numpy-2.4.6-cp312-cp312-macosx_14_0_arm64.whl", linux)
    False
    """
    python = int(environment["python_version"].split(".")[1])
    system, *endings = MACHINES[environment["sys_platform"], environment["platform_machine"]]
    for tag in parse_wheel_filename(wheel)[3]:
        for_python = tag.interpreter in (f"cp3{python}", f"py3{python}", "py3")
        if tag.abi == "abi3" and tag.interpreter.startswith("cp3"):
            for_python = int(tag.interpreter[3:]) <= python
        for_abi = tag.abi in ("none", "abi3", f"cp3{python}")
        for_machine = tag.platform == "any" or (
            tag.platform.startswith(system) and tag.platform.endswith(tuple(endings))
        )
        if for_python and for_abi and for_machine:
            return True
    return False


def _resolve(wanted: list[str], held: list[str], *options: str) -> list[dict[str, Any]]:
    """uv's answer: each package with its version, its marker and its wheels.

    ``held`` are versions to keep, wherever such a package is needed at all.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "wanted.in"
        names.write_text("\n".join(wanted), encoding="utf-8")
        constraints = Path(folder) / "held.txt"
        constraints.write_text("\n".join(held), encoding="utf-8")
        lock = Path(folder) / "pylock.toml"
        command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", PYTHONS[0]]
        command += ["--only-binary", ":all:", "--format", "pylock.toml", "--output-file", str(lock)]
        command += ["--constraint", str(constraints), *options, str(names)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found: list[dict[str, Any]] = tomllib.loads(lock.read_text(encoding="utf-8"))["packages"]
    return [p for p in found if p["name"] != "torch" and not p["name"].startswith(_CUDA)]


def _written(package: dict[str, Any], pythons: Iterable[str]) -> str | None:
    """One package's lines; None where no promised machine installs it."""
    marker = package.get("marker")
    there = [e for e in environments(pythons) if marker is None or Marker(marker).evaluate(e)]
    if not there:
        return None
    names = {w["url"].rsplit("/", 1)[1]: w["hashes"]["sha256"] for w in package.get("wheels", [])}
    kept = sorted(name for name in names if any(fits(name, e) for e in there))
    for environment in there:
        if not any(fits(name, environment) for name in kept):
            place = "{sys_platform} {platform_machine}, Python {python_version}"
            missing = f"{package['name']} {package['version']}: no wheel for {place}"
            sys.exit(missing.format(**environment))
    everywhere = len(there) == len(list(environments(pythons)))
    condition = "" if everywhere else f" ; {marker}"
    hashes = "".join(f" \\\n    --hash=sha256:{names[name]}" for name in kept)
    files = "".join(f"#   {name}\n" for name in kept)
    return f"{package['name']}=={package['version']}{condition}{hashes}\n{files}"


def _write(
    name: str, says: str, packages: list[dict[str, Any]], pythons: Iterable[str] = PYTHONS
) -> None:
    lines = [text for p in packages if (text := _written(p, pythons)) is not None]
    head = f"# {says}\n# Made by tools/lock.py; the names below a package are its wheels'.\n"
    (LOCKS / name).write_text(head + "".join(lines), encoding="utf-8")
    print(f"requirements/{name}: {len(lines)} packages")


def _pins(name: str) -> list[str]:
    if not (LOCKS / name).exists():
        return []
    lines = (LOCKS / name).read_text(encoding="utf-8").splitlines()
    return [line.removesuffix("\\").strip() for line in lines if "==" in line and line[0] != "#"]


def main() -> None:
    """Resolve and write every lock."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep the versions that are there")
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needs = project["project"]["dependencies"] + project["build-system"]["requires"]
    groups = project["dependency-groups"]
    torch = (LOCKS / "torch.txt").read_text(encoding="utf-8").splitlines()[-1]

    def held(name: str) -> list[str]:
        return [torch, *(_pins(name) if options.keep else [])]

    test = _resolve(needs + groups["test"], held("test.txt"))
    _write("test.txt", "What the tests need beside torch: run.txt and the oracles.", test)
    # The same versions for the main job: one environment grows into the other.
    run = _resolve(needs, [torch, *_pins("test.txt")])
    _write("run.txt", "What `make quickstart` installs beside torch.", run)
    # Into a folder of its own, without what the environment has anyway.
    own = {"transformers", "tokenizers", "huggingface-hub", "optimum", "optimum-onnx"}
    old = _resolve(groups["transformers4"], held("transformers4.txt"))
    old = [package for package in old if package["name"] in own]
    _write("transformers4.txt", "The newest transformers 4, beside the installed 5.", old)
    # PaddleNLP and PaddleHub ask for much that a BERT does not need, some of it as source only.
    alone = _resolve(groups["paddle-alone"], [], "--no-deps")
    rest = _resolve(groups["paddle"], held("paddle.txt"))
    _write(
        "paddle.txt",
        "PaddlePaddle with PaddleNLP and PaddleHub, for `make test-paddle`.",
        rest + alone,
    )
    oldest = _resolve(needs, [torch], "--resolution", "lowest-direct")
    says = "The oldest of everything that pyproject.toml allows, torch apart."
    _write("oldest.txt", says, oldest, PYTHONS[:1])


if __name__ == "__main__":
    main()
