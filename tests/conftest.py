"""Fixtures: inputs made once, requests and finished runs made of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fakes import fake, write_fake_bank, write_fake_models

from ecg_batch.execute import synthesize
from ecg_batch.plan import make_plan, open_run, partial_of
from ecg_batch.request_file import load_request

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in a shell's background jobs, and then in all that they start
    signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent
MIX = {
    "labels": {"NORM": 0.5, "AFIB": 0.3, "SBRAD": 0.2},
    "hr_bpm": {"uniform": [50, 90]},
    "sex": {"female": 0.6, "male": 0.4},
}
# 5 shards, the last one short; small enough that a run takes a fraction of a second
SMALL = {"records": 540, "batch": 64, "shard": 128, "seed": 7, "mix": MIX}


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Path:
    """A folder with bank/ and models/."""
    folder = tmp_path_factory.mktemp("inputs")
    write_fake_bank(folder / "bank")
    write_fake_models(folder / "models")
    return folder


@pytest.fixture
def write_request(inputs, tmp_path):
    """write_request(key=value, ...) -> path of a small request with these changes; None drops a key."""

    def write(name: str = "request.yaml", **changes) -> Path:
        return small_request(inputs, tmp_path / name, **changes)

    return write


def small_request(inputs: Path, path: Path, **changes) -> Path:
    raw = {**SMALL, "bank": str(inputs / "bank"), "models": str(inputs / "models"), **changes}
    path.write_text(yaml.safe_dump({key: value for key, value in raw.items() if value is not None}))
    return path


@pytest.fixture
def make_run(write_request, tmp_path):
    """make_run(name, key=value, ...) -> (plan, folder.partial, out) of a planned run."""

    def make(name: str = "run", **changes):
        plan, table = make_plan(load_request(write_request(**changes)))
        out = tmp_path / name
        assert open_run(plan, table, out) == partial_of(out)
        return plan, partial_of(out), out

    return make


@pytest.fixture
def make_dataset(write_request, tmp_path):
    """make_dataset(name, key=value, ...) -> folder of a finished dataset."""

    def make(name: str = "dataset", **changes) -> Path:
        synthesize(load_request(write_request(**changes)), tmp_path / name, 1, fake())
        return tmp_path / name

    return make


@pytest.fixture
def start_driver(tmp_path_factory):
    """start_driver(request, out, workers, pause_s) -> a running driver process, killed when the test is over."""
    processes = []
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "OMP_NUM_THREADS": "1"}
    environment["TMPDIR"] = str(tmp_path_factory.mktemp("scratch"))  # a killed driver cannot clear up behind it

    def start(request: Path, out: Path, workers: int = 1, pause_s: float = 0.0) -> subprocess.Popen:
        command = [sys.executable, str(TESTS / "fakes.py"), str(request), str(out), str(workers), str(pause_s)]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()
