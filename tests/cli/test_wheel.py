"""The wheel alone is enough: examples, a dataset, its check, its picture and its export, far from any checkout, with no compiler
and without the packages that only extras install. Whoever calls for one of those is told the extra in a sentence.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import ROOT

from ecg_batch.kernels.build import BUILDS

SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "constraints.txt", "configs", "ecg_batch")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """It is built from a copy: a build leaves its traces in the source tree."""
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("needs setuptools 77 or newer to build without fetching it")
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "source" / name)
    for stale in (folder / "source").rglob("*.so"):
        stale.unlink()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "dist", folder / "source"], check=True
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def needed(name: str, done: set[str]) -> set[str]:
    """The packages that one needs without extras, itself too."""
    if name not in done:
        done.add(name)
        for line in requires(name) or ():
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                needed(canonicalize_name(one.name), done)
    return done


@pytest.fixture(scope="module")
def base(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel and what it needs without extras, as links to what is installed here."""
    folder = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/*/site-packages")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--no-deps", "--ignore-installed", "--target", packages, wheel], check=True)
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for name in set().union(*(needed(canonicalize_name(Requirement(line).name), set()) for line in dependencies)):
        for part in {file.parts[0] for file in distribution(name).files} - {"..", "__pycache__"}:
            if not (packages / part).exists():
                (packages / part).symlink_to(distribution(name).locate_file(part))
    return folder


def run(base: Path, cwd: Path, *words) -> subprocess.CompletedProcess:
    """Python in that environment; on its PATH is no compiler."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": str(base / "bin")}
    return subprocess.run([base / "bin/python", *map(str, words)], capture_output=True, text=True, cwd=cwd, env=environment)


def say(base: Path, cwd: Path, *words) -> str:
    done = run(base, cwd, "-m", "ecg_batch", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(base: Path, cwd: Path, *words) -> str:
    done = run(base, cwd, "-m", "ecg_batch", *words)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stdout + done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    return line


@pytest.fixture(scope="module")
def made(base, tmp_path_factory) -> Path:
    """A folder with the examples, and with runs/demo of 64 records."""
    folder = tmp_path_factory.mktemp("made")
    say(base, folder, "configs")
    words = ("synthesize", "configs/demo.yaml", "--out", "runs/demo", "--set", "records=64", "shard=64", "batch=64")
    if not (shutil.which("c++") and BUILDS):
        pytest.skip("without kernels recorded texture needs torch")
    assert "finished. 64 records in 1 shard," in say(base, folder, *words)
    return folder


@pytest.mark.slow
def test_the_wheel_holds_what_the_checkout_holds(base):
    (installed,) = base.glob("lib/*/site-packages")
    held = {path.relative_to(installed) for path in installed.glob("ecg_batch/**/*") if path.is_file() and path.suffix != ".pyc"}
    ours = {path.relative_to(ROOT) for path in ROOT.glob("ecg_batch/**/*") if path.is_file() and path.suffix not in (".pyc", ".so")}
    configs = {path.relative_to(installed) for path in installed.glob("ecg_batch/configs/*")}
    assert {path.name for path in configs} == {path.name for path in ROOT.glob("configs/*")}
    assert {path for path in held - configs if path.suffix != ".so"} == ours
    if shutil.which("c++"):
        assert {path.name for path in held if path.suffix == ".so"} == {f"{build}.so" for build, _ in BUILDS}


@pytest.mark.slow
def test_one_wheel_serves_every_python_and_brings_its_own_c_plus_plus(wheel, base):
    assert wheel.name == f"ecg_batch-{version('ecg-batch')}-py3-none-linux_{platform.machine()}.whl"
    for library in base.glob("lib/*/site-packages/ecg_batch/kernels/*.so"):
        held = library.read_bytes()
        assert not [name for name in (b"libstdc++.so", b"libgcc_s.so", b"Py_", b"GLIBC_2.3") if name in held], library.name


@pytest.mark.slow
def test_the_wheel_alone_is_enough(base, made):
    where = run(base, made, "-c", "import ecg_batch; print(ecg_batch.__file__)")
    assert where.stdout.startswith(str(base))
    versions = json.loads((made / "runs/demo/plan.json").read_text())["versions"]
    assert versions["kernels"].startswith("compiled ") and versions["torch"] == "absent"
    assert "finished" in say(base, made, "status", "runs/demo")
    assert "all is well" in say(base, made, "verify", "runs/demo")
    say(base, made, "plot", "runs/demo")
    assert (made / "runs/demo.png").stat().st_size > 10_000
    for name, ends in (("ptbxl", "hea"), ("hdf5", "hdf5"), ("npy", "npy")):
        say(base, made, "export", "runs/demo", "--format", name, "--out", f"runs/{name}", "--workers", "1")
        assert list((made / "runs" / name).rglob(f"*.{ends}"))
    assert len(list((made / "runs/ptbxl").rglob("*.hea"))) == 64


@pytest.mark.slow
def test_the_same_records_without_torch_and_with_it(made, tmp_path):
    """Here with all that is installed, from the checkout."""
    words = ("synthesize", "configs/demo.yaml", "--out", tmp_path / "demo", "--set", "records=64", "shard=64", "batch=64")
    subprocess.run([sys.executable, "-m", "ecg_batch", *map(str, words)], check=True, capture_output=True, cwd=ROOT)
    without, beside = (json.loads((path / "dataset.json").read_text()) for path in (made / "runs/demo", tmp_path / "demo"))
    assert without["content_root"] == beside["content_root"]
    assert without["versions"].pop("torch") == "absent" != beside["versions"].pop("torch")
    assert without["versions"] == beside["versions"]


READS = """
import ecg_batch
dataset = ecg_batch.open_dataset("runs/demo")
chosen = dataset.where(label="NORM", flags="")
print(len(dataset), dataset[0].shape, 0 < len(chosen) < 64, len(dataset.beats(0)) > 3)
assert not set("torch submitit sklearn neurokit2".split()) & set(__import__("sys").modules)
"""


@pytest.mark.slow
def test_reading_needs_no_extra(base, made):
    done = run(base, made, "-c", READS)
    assert done.stdout == "64 (12, 1000) True True\n", done.stderr


@pytest.mark.slow
def test_a_long_record_needs_no_extra(base, made):
    words = ("--out", "runs/long", "--set", "records=2", "duration_s=120", "batch=2")
    assert "finished. 2 records" in say(base, made, "synthesize", "configs/holter_events.yaml", *words)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "package", "extra"), [
    (("synthesize", "configs/published.yaml", "--out", "runs/a"), "torch", "synthesize"),
    (("synthesize", "configs/demo.yaml", "--out", "runs/c", "--cluster", "configs/slurm.yaml", "--dry-run"), "submitit", "slurm"),
    (("train", "units", "--bank", "bank", "--out", "models"), "torch", "train"),
    (("train", "judge", "--ptbxl", "ptbxl", "--out", "models"), "torch, sklearn", "train"),
    (("evaluate", "runs/demo", "--ptbxl", "ptbxl", "--out", "report"), "torch, sklearn, neurokit2", "evaluate"),
])  # fmt: skip
def test_a_command_names_the_extra_that_it_needs(base, made, words, package, extra):
    said = refused(base, made, *words)
    assert said.startswith(f"error: {package} not installed; this needs the extra '{extra}': pip install 'ecg-batch[{extra}]'")
    assert not [path for path in made.glob("runs/*") if path.name[0] in "ac"]  # nothing was begun


@pytest.mark.slow
def test_what_is_imported_names_the_extra_that_it_needs(base, made):
    said = run(base, made, "-c", "from ecg_batch import ECGLoader").stderr.splitlines()[-1]
    assert said.startswith("ecg_batch.errors.MissingPackage: torch not installed; this needs the extra 'train'")
    can = "try:\n    from ecg_batch import ECGLoader\nexcept ImportError:\n    print('reads without')"
    assert run(base, made, "-c", can).stdout == "reads without\n"
