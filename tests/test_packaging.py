"""What installs the project agrees: locks, pyproject.toml, Dockerfile and workflow."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = ("run.txt", "test.txt", "transformers4.txt", "paddle.txt", "oldest.txt")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NEEDS = PROJECT["project"]["dependencies"] + PROJECT["build-system"]["requires"]
PIN = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>[^ ]+)(?: ; (?P<marker>[^\\]+?))?"
    r"(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n(?P<wheels>(?:#   .+\.whl\n)+)",
    re.MULTILINE,
)


@cache
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock", ROOT / "tools" / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins(lock: str) -> dict[str, re.Match[str]]:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    found = {match["name"]: match for match in PIN.finditer(text)}
    # Every line that is no comment belongs to a pin with hashes: pip would refuse another one.
    lines = [line for line in text.splitlines() if line and line[0] not in "# "]
    assert len(lines) == len(found)
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_wheel_for_every_promised_machine(lock: str) -> None:
    pythons = tool().PYTHONS[:1] if lock == "oldest.txt" else tool().PYTHONS
    for pin in pins(lock).values():
        wheels = [line.strip("# ") for line in pin["wheels"].splitlines()]
        assert len(wheels) == pin["hashes"].count("--hash")
        for environment in tool().environments(pythons):
            if pin["marker"] is None or Marker(pin["marker"]).evaluate(environment):
                assert any(tool().fits(wheel, environment) for wheel in wheels), (
                    f"{pin['name']}: no wheel for {environment}"
                )


def test_a_source_package_or_a_wheel_for_elsewhere_is_noticed() -> None:
    linux, *_, mac = tool().environments()
    assert not tool().fits("torch-2.13.0-cp310-cp310-manylinux_2_28_x86_64.whl", linux)
    assert not tool().fits("torch-2.13.0-cp313-cp313t-macosx_11_0_arm64.whl", mac)
    assert tool().fits("ruff-0.17.6-py3-none-macosx_11_0_arm64.whl", mac)
    assert tool().fits("safetensors-0.8.0-cp310-abi3-macosx_11_0_arm64.whl", mac)
    assert PIN.search("seqeval==1.2.2 \\\n    --hash=sha256:" + "0" * 64 + "\n") is None


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("run.txt", NEEDS),
        ("oldest.txt", NEEDS),
        ("test.txt", NEEDS + PROJECT["dependency-groups"]["test"]),
    ],
)
def test_locks_hold_what_pyproject_asks_for(lock: str, wanted: list[str]) -> None:
    found = pins(lock)
    for line in wanted:
        need = Requirement(line)
        name = canonicalize_name(need.name)
        if name == "torch":
            assert name not in found
            torch = (ROOT / "requirements" / "torch.txt").read_text(encoding="utf-8")
            assert Requirement(torch.splitlines()[-1]).specifier.contains("2.13.0")
        else:
            assert need.specifier.contains(found[name]["version"]), line


def test_one_environment_grows_into_the_other() -> None:
    test = pins("test.txt")
    for name, pin in pins("run.txt").items():
        assert (pin["version"], pin["hashes"]) == (test[name]["version"], test[name]["hashes"])


@pytest.fixture
def makefile() -> str:
    if not (ROOT / "Makefile").exists():
        return ""  # the wheel is tested without the source tree
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_dockerfile_installs_what_make_does(makefile: str) -> None:
    if not makefile:
        return
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    python = re.search(r"^FROM python:(3\.\d+)-slim$", text, re.MULTILINE)
    assert python is not None
    assert python[1] in tool().PYTHONS
    for lock in re.findall(r"-r (requirements/\S+)", text):
        assert (ROOT / lock).exists()
        assert lock.removeprefix("requirements/") in makefile
    assert {"--require-hashes", "--only-binary=:all:"} <= set(text.split())
    for target in re.findall(r"^RUN make (\w+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert "TORCH_INDEX" in makefile


def test_the_workflow_checks_every_promised_machine_and_python(makefile: str) -> None:
    if not makefile:
        return
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text("utf-8"))
    matrix = workflow["jobs"]["check"]["strategy"]["matrix"]
    assert tuple(matrix["python"]) == tool().PYTHONS
    machines = {"ubuntu": "linux", "macos": "darwin"}
    promised = {
        (machines[name.split("-")[0]], "arm" in name or name.startswith("macos"))
        for name in matrix["os"]
    }
    assert promised == {(system, cpu != "x86_64") for system, cpu in tool().MACHINES}
    assert workflow["jobs"]["wheels"]["strategy"]["matrix"]["os"] == matrix["os"]
    ran = [step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step]
    for command in ran:
        assert re.search(rf"^{command.removeprefix('make ')}:", makefile, re.MULTILINE), command
    assert {"make check", "make smoke"} <= set(ran)


def test_the_promised_pythons_are_those_of_pyproject() -> None:
    promised = PROJECT["project"]["classifiers"]
    prefix = "Programming Language :: Python :: 3."
    assert tuple(
        f"3.{line.removeprefix(prefix)}" for line in promised if line.startswith(prefix)
    ) == tool().PYTHONS  # fmt: skip


def test_wheel_and_source_distribution_hold_every_file_of_the_package(makefile: str) -> None:
    if not makefile:
        return
    from setuptools import Distribution
    from setuptools.config.pyprojecttoml import read_configuration

    settings = read_configuration(ROOT / "pyproject.toml")["tool"]["setuptools"]
    package = ROOT / "src" / "zhbert"
    distribution = Distribution(
        {"package_dir": {"": str(ROOT / "src")}, "package_data": settings["package-data"]}
    )
    names = [path.parent.relative_to(ROOT / "src") for path in package.rglob("__init__.py")]
    distribution.packages = [".".join(name.parts) for name in names]
    command = distribution.get_command_obj("build_py")
    command.ensure_finalized()
    held = {Path(place, file) for _, place, _, files in command.data_files for file in files}
    built = {".py", ".cpp", ".h", ".so", ".pyc"}
    wanted = {path for path in package.rglob("*") if path.is_file() and path.suffix not in built}
    assert {path.relative_to(package) for path in wanted - held} == set()
