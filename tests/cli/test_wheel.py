"""The wheel alone is enough: examples, a dataset, its check, its picture and its export, far from any checkout."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest
from places import ROOT

SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "constraints.txt", "configs", "ecg_batch")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what the wheel holds. It is built from a copy: a build leaves its traces in the source tree."""
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
    subprocess.run([*pip, "install", "--no-deps", "--ignore-installed", "--target", folder / "target", wheel], check=True)
    return folder / "target"


def say(installed, cwd, *words) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "ecg_batch", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_the_wheel_holds_what_the_checkout_holds(installed):
    held = {path.relative_to(installed) for path in installed.glob("ecg_batch/**/*") if path.is_file() and path.suffix != ".pyc"}
    ours = {path.relative_to(ROOT) for path in ROOT.glob("ecg_batch/**/*") if path.is_file() and path.suffix not in (".pyc", ".so")}
    configs = {path.relative_to(installed) for path in installed.glob("ecg_batch/configs/*")}
    assert {path.name for path in configs} == {path.name for path in ROOT.glob("configs/*")}
    assert {path for path in held - configs if path.suffix != ".so"} == ours
    if shutil.which("c++"):
        assert len([path for path in held if path.suffix == ".so"]) == 2


@pytest.mark.slow
def test_the_wheel_alone_is_enough(installed, tmp_path):
    where = subprocess.run(
        [sys.executable, "-c", "import ecg_batch; print(ecg_batch.__file__)"],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)},
    )  # fmt: skip
    assert where.stdout.startswith(str(installed))
    say(installed, tmp_path, "configs")
    words = ("synthesize", "configs/demo.yaml", "--out", "runs/demo", "--set", "records=64", "shard=64", "batch=64")
    assert "finished. 64 records in 1 shard," in say(installed, tmp_path, *words).stdout
    assert "compiled" in (tmp_path / "runs/demo/plan.json").read_text() or not shutil.which("c++")
    assert "finished" in say(installed, tmp_path, "status", "runs/demo").stdout
    assert "all is well" in say(installed, tmp_path, "verify", "runs/demo").stdout
    say(installed, tmp_path, "plot", "runs/demo")
    assert (tmp_path / "runs/demo.png").stat().st_size > 10_000
    say(installed, tmp_path, "export", "runs/demo", "--format", "ptbxl", "--workers", "1")
    assert len(list((tmp_path / "runs/demo-ptbxl").rglob("*.hea"))) == 64
