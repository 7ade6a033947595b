"""environment.yml and pyproject.toml name the same packages and versions."""

import re
import tomllib

import yaml
from places import ROOT


def test_conda_and_pip_pins_are_equal():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(part for part in environment if isinstance(part, dict))["pip"]
    conda = {line for line in environment if isinstance(line, str)} - {"pip", "python=3.12"}
    pinned = {*project["dependencies"], *project["optional-dependencies"]["gpu"]}
    (torch,) = (line for line in pinned if line.startswith("torch=="))
    built = {line for line in pinned if line.startswith(("causal-conv1d", "mamba-ssm"))}
    assert set(pip) - {"--no-deps --editable ."} == pinned - {torch} - built
    assert conda == {torch.replace("torch==", "pytorch-gpu="), *built} and len(built) == 2


def test_make_takes_the_pythons_that_the_package_allows():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    found = re.search(r"\(3, (\d+)\) <= sys.version_info\[:2\] <= \(3, (\d+)\)", (ROOT / "Makefile").read_text())
    assert asked == f">=3.{found[1]},<3.{int(found[2]) + 1}"


def test_every_pin_stands_in_the_constraints():
    constraints = set((ROOT / "constraints.txt").read_text().lower().split())  # pip freeze writes PyYAML
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pins = {line.partition(";")[0] for line in (*project["dependencies"], *extras["dev"])}
    assert pins <= constraints
    assert {*extras["synthesize"], *extras["slurm"], *extras["train"], *extras["evaluate"]} <= set(extras["dev"])
