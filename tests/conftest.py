"""Fixtures: inputs made once, requests and finished runs made of them."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import fake, small_request, write_fake_bank, write_fake_models
from places import TESTS
from threadpoolctl import threadpool_limits

from ecg_batch.request.parse import load_request
from ecg_batch.run.folder import open_run
from ecg_batch.run.local import synthesize
from ecg_batch.run.planning import make_plan

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in a shell's background jobs, and then in all that they start
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Minutes each: two processes that share the files end together when no such file is left for the end.
LONGEST_FILES = ("test_benchmarks.py", "test_evaluate.py", "test_worker.py", "test_export.py", "test_stream.py", "test_generate.py",
                 "test_prepare.py", "test_guarantees.py", "test_holter.py", "test_wheel.py", "test_contracts.py",
                 "test_tools.py")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST_FILES.index(item.path.name) if item.path.name in LONGEST_FILES else len(LONGEST_FILES))


@pytest.fixture(scope="session")
def real_ptbxl() -> Path:
    """A folder in PTB-XL's layout at 100 and 500 Hz, a sample of it or the whole: where ECG_BATCH_PTBXL says."""
    if not (named := os.environ.get("ECG_BATCH_PTBXL")):
        pytest.skip("needs PTB-XL, or a sample of it in its layout: set ECG_BATCH_PTBXL to the folder")
    folder = Path(named).resolve()
    assert (folder / "ptbxl_database.csv").exists(), f"ECG_BATCH_PTBXL is {named}, where no ptbxl_database.csv is"
    return folder


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


@pytest.fixture
def make_run(write_request, tmp_path):
    """make_run(name, key=value, ...) -> the planned Run."""

    def make(name: str = "run", **changes):
        plan, table = make_plan(load_request(write_request(**changes)))
        return open_run(plan, table, tmp_path / name)

    return make


@pytest.fixture
def make_dataset(write_request, tmp_path):
    """make_dataset(name, key=value, ...) -> folder of a finished dataset."""

    def make(name: str = "dataset", **changes) -> Path:
        synthesize(load_request(write_request(**changes)), tmp_path / name, 1, fake())
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def made_once(inputs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made_once")
    synthesize(load_request(small_request(inputs, folder / "request.yaml")), folder / "dataset", 1, fake())
    return folder / "dataset"


@pytest.fixture
def small_dataset(made_once, tmp_path) -> Path:
    """Folder of a finished dataset for those who only read it: what make_dataset() makes, made once, and copied."""
    return shutil.copytree(made_once, tmp_path / "dataset")


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


@pytest.fixture
def few_threads():
    """Threads of OpenMP that wait for a core beside other work spin; a toy has no use for them."""
    with threadpool_limits(1):
        yield
