"""The Apptainer definition names files that exist, the pins of pyproject.toml, and scripts that a shell takes."""

import re
import subprocess
import tomllib

import pytest
from places import ROOT

DEFINITION = (ROOT / "slurm/ecg-batch.def").read_text(encoding="utf-8")
SCRIPTS = ("post", "environment", "runscript", "test")
# what a wheel is built of, and its constraints; tests/cli/test_wheel.py builds one of them
NEEDED = {"pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "constraints.txt", "configs", "ecg_batch"}


def sections() -> dict[str, str]:
    head, *parts = re.split(r"^%(\w+)$", DEFINITION, flags=re.MULTILINE)
    return {"head": head, **dict(zip(parts[::2], parts[1::2], strict=True))}


def arguments() -> dict[str, str]:
    return dict(re.findall(r"^    (\w+)=(\w+)$", sections()["arguments"], re.MULTILINE))


def filled(text: str) -> str:
    """With the arguments' defaults in their places, as apptainer fills them in."""
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: arguments()[found[1]], text)


def test_it_has_the_sections_of_a_definition():
    found = sections()
    assert list(found) == ["head", "arguments", "files", "post", "environment", "runscript", "test", "labels", "help"]
    assert re.findall(r"^(Bootstrap|From): \S+$", found["head"], re.MULTILINE) == ["Bootstrap", "From"]
    assert set(re.findall(r"\{\{ (\w+) \}\}", DEFINITION)) == arguments().keys() == {"torch", "mamba"}


def test_the_files_it_takes_are_those_that_a_wheel_is_built_of():
    pairs = [line.split() for line in sections()["files"].splitlines() if line.strip()]
    assert {source for source, _ in pairs} == NEEDED and all((ROOT / source).exists() for source in NEEDED)
    assert all(target == f"/opt/source/{source}" for source, target in pairs)


def test_its_pins_are_those_of_the_package():
    project, post = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"], sections()["post"]
    extras = project["optional-dependencies"]
    (torch,) = (line for line in extras["slurm"] if line.startswith("torch=="))
    assert post.count("torch==") == 1 and f"'{torch}+cpu'" in post and "'.[slurm,train]'" in post
    assert all(f"'{of_gpu}'" in post for of_gpu in extras["gpu"] if of_gpu not in extras["slurm"])


@pytest.mark.parametrize("name", SCRIPTS)
def test_its_scripts_are_those_of_a_plain_shell(name):
    subprocess.run(["sh", "-n"], input=filled(sections()[name]), text=True, check=True)
