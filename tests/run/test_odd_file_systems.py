"""File systems that lack links or locks, a full disk that is not the dataset's, users without a name: the same bytes, or words."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from comparing import assert_same_dataset
from fakes import small_request, write_fake_bank, write_fake_models
from places import ROOT, TESTS

from ecg_batch import files
from ecg_batch.dataset.verify import verify
from ecg_batch.files import write_new


@pytest.fixture(scope="session")
def lacking(tmp_path_factory):
    """lacking(NO_LINK=1) -> environment of a process on a file system that lacks it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler, and Linux")
    library = tmp_path_factory.mktemp("odd") / "odd.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, TESTS / "run/odd_file_system.c", "-ldl"], check=True)
    path = f"{TESTS}{os.pathsep}{ROOT}"
    base = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "LD_PRELOAD": str(library)}
    return lambda **calls: base | {name: str(number) for name, number in calls.items()}


def synthesize(request: Path, out: Path, workers: int, environment: dict[str, str], *before: str) -> subprocess.CompletedProcess:
    command = [*before, sys.executable, str(TESTS / "fakes.py"), str(request), str(out), str(workers), "0"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


# Calls that are not there ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "calls"), [
    (1, {"NO_LINK": errno.EPERM}), (1, {"NO_LINK": errno.EXDEV}), (1, {"NO_LINK": errno.EOPNOTSUPP}),
    (2, {"NO_FLOCK": errno.ENOSYS}), (2, {"NO_FLOCK": errno.ENOLCK}), (2, {"NO_LINK": errno.EPERM, "NO_FLOCK": errno.ENOSYS}),
])  # fmt: skip
def test_without_links_or_locks_the_bytes_are_the_same(workers, calls, lacking, write_request, make_dataset, tmp_path):
    done = synthesize(write_request(), tmp_path / "run", workers, lacking(**calls))
    assert done.returncode == 0 and "Traceback" not in done.stderr and "error" not in done.stderr, done.stderr
    assert_same_dataset(make_dataset(), tmp_path / "run")
    assert list(verify(tmp_path / "run")) == []


@pytest.mark.slow
def test_hdf5_without_locks(lacking, write_request, tmp_path):
    """Written and read, as on NFS without lockd, where HDF5 by itself would refuse to open a file."""
    done = synthesize(write_request(format="hdf5"), tmp_path / "run", 1, lacking(NO_FLOCK=errno.ENOLCK))
    assert done.returncode == 0, done.stderr
    for words in (["verify"], ["export", "--format", "hdf5", "--workers", "1"]):
        command = [sys.executable, "-m", "ecg_batch", words[0], tmp_path / "run", *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, env=lacking(NO_FLOCK=errno.ENOLCK), timeout=120)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


def no_links(*names):
    raise OSError(errno.EPERM, "no links here")


@pytest.mark.parametrize("way", ["links", "marks"])
def test_of_many_writers_of_a_new_file_one_wins(way, tmp_path, monkeypatch):
    if way == "marks":
        monkeypatch.setattr(files.os, "link", no_links)
    won, start = [], threading.Barrier(16)

    def write(number: int) -> None:
        start.wait()
        if write_new(tmp_path / "file", b"%d" % number, tmp_path):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and (tmp_path / "file").read_bytes() == b"%d" % won[0]
    assert os.listdir(tmp_path) == ["file"]


def test_a_mark_whose_maker_died_is_waited_for_and_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "link", no_links)
    monkeypatch.setattr(files, "MARK_S", 0.1)
    (tmp_path / ".file.mark").touch()
    assert write_new(tmp_path / "file", b"one", tmp_path) and not write_new(tmp_path / "file", b"two", tmp_path)
    assert os.listdir(tmp_path) == ["file"]


# Whose disk is full ---------------------------------------------------------------------------------------------------


@pytest.fixture
def full_scratch(mount):
    """A folder for temporary files without room for one; as it is small, Python's own trial of it passes."""
    scratch = mount("scratch", "64k")
    (scratch / "ballast").write_bytes(bytes(60 * 1024))  # a page is left, for a file of one byte
    return scratch


def test_a_full_disk_of_temporary_files_is_no_hindrance(full_scratch, write_request, tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{ROOT}", "TMPDIR": str(full_scratch)}
    done = synthesize(write_request(), tmp_path / "run", 2, environment)
    assert done.returncode == 0, done.stderr


# Who runs it ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_number_without_name_or_home_serves(open_folder):
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv")
    home = open_folder / "theirs"
    home.mkdir()
    write_fake_bank(open_folder / "bank")
    write_fake_models(open_folder / "models")
    request = small_request(open_folder, home / "request.yaml")
    os.chown(home, 54321, 54321)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{TESTS}{os.pathsep}{ROOT}"}
    become = ("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups")
    done = synthesize(request, home / "run", 1, environment, *become)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert list(verify(home / "run")) == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_real_generator_needs_neither_name_nor_home(workers, tmp_path):
    """As in a container that is started with a number: no line in /etc/passwd, no HOME."""
    (tmp_path / "request.yaml").write_text("{records: 128, shard: 64, batch: 64, mix: {labels: {NORM: 1}}}")
    job = [
        sys.executable,
        "-m",
        "ecg_batch",
        "synthesize",
        tmp_path / "request.yaml",
        "--out",
        tmp_path / "run",
        "--workers",
        workers,
    ]
    bare = ["env", "-i", f"PATH={os.environ['PATH']}", f"PYTHONPATH={ROOT}"]
    words = ["unshare", "--user", "--map-user=54321", *bare, *map(str, job)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    if "unshare" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr}")
    assert done.returncode == 0 and "finished. 128 records" in done.stdout, done.stderr
