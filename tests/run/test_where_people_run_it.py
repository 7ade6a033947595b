"""Where people run it: read-only installations, odd users and paths, small scratch, shared folders, two versions. Same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from comparing import assert_same_dataset
from places import ROOT

pytestmark = pytest.mark.slow

PATH = os.environ["PATH"]
VERSION = metadata.version("ecg-batch")
SMALL = ("--set", "records=192", "shard=64", "batch=64")
TEAM = 54000  # a group without a name, and its members
ONE, OTHER = 54321, 54322


def say(python: str, site: Path, *words, member: int = 0, **changes) -> subprocess.CompletedProcess:
    """`ecg-batch WORDS` of the package in this folder, in a bare environment. member: the user, 0 for this one."""
    return subprocess.run(command_of(python, *words, member=member), capture_output=True, text=True, timeout=240,
                          **options_of(site, member, **changes))  # fmt: skip


def command_of(python: str, *words, member: int = 0) -> list[str]:
    become = ["setpriv", "--reuid", member, "--regid", member, "--groups", TEAM] if member else []
    return list(map(str, [*become, python, "-m", "ecg_batch", *words]))


def options_of(site: Path, member: int, cwd: Path | None = None, umask: int = 0o022, **environment) -> dict:
    base = {"PATH": PATH, "PYTHONPATH": os.pathsep.join(map(str, [site, *packages()])), "OMP_NUM_THREADS": "1"}
    return {"env": base | {name: str(value) for name, value in environment.items()}, "cwd": cwd or site.parent, "umask": umask}


def packages() -> list[str]:
    """Where what ecg-batch needs is installed, for another Python of the same version."""
    return [folder for folder in sys.path if folder.endswith("site-packages")]


def well(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Matplotlib" not in done.stderr, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def request_file(tmp_path_factory) -> Path:
    """The demo's; with SMALL behind it, it makes 192 records in 3 shards."""
    return shutil.copy(ROOT / "configs/demo.yaml", tmp_path_factory.mktemp("request") / "request.yaml")


@pytest.fixture(scope="module")
def plain(request_file) -> Path:
    """The dataset as it is made anywhere."""
    well(say(sys.executable, ROOT, "synthesize", request_file, "--out", request_file.with_name("run"), *SMALL))
    return request_file.with_name("run")


@pytest.fixture
def site(request) -> Path:
    """A folder like site-packages that holds a copy of the package and its metadata. The name may be asked for by parameter."""
    where = request.getfixturevalue("tmp_path" if os.getuid() else "open_folder")
    folder = where / getattr(request, "param", "site")
    shutil.copytree(ROOT / "ecg_batch", folder / "ecg_batch", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "configs", folder / "ecg_batch" / "configs")
    version(folder, VERSION)
    return folder


def version(site: Path, number: str) -> None:
    info = site / f"ecg_batch-{number}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ecg-batch\nVersion: {number}\n")


@pytest.fixture(scope="module")
def everybodys() -> str:
    """A Python that other users can start, as workers do by its path. This one may lie in root's home."""
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv")
    own = "python{}.{}".format(*sys.version_info)
    starts = "import subprocess, sys, numpy; subprocess.run([sys.executable, '-c', ''], check=True)"
    for python in (sys.executable, f"/usr/bin/{own}", f"/usr/local/bin/{own}"):
        command = command_of(python, member=ONE)[:-2]
        done = subprocess.run([*command, "-c", starts], capture_output=True, **options_of(ROOT, ONE, cwd=Path("/")))
        if done.returncode == 0:
            return python
    pytest.skip("no Python of this version that another user can start")


def files(folder: Path) -> list[tuple]:
    states = [(str(path), path.stat()) for path in folder.rglob("*") if path.is_file()]
    return sorted((path, state.st_mode, state.st_size, state.st_mtime_ns) for path, state in states)


# Who, and from where --------------------------------------------------------------------------------------------------


def test_a_read_only_installation_serves_a_user_without_name_or_home(site, open_folder, everybodys, plain):
    """From the examples to a verified dataset, its picture and its export; in the installation nothing is touched."""
    for path in [*site.rglob("*"), site]:
        path.chmod(path.stat().st_mode & ~0o222)
    before, home = files(site), open_folder / "theirs"
    home.mkdir()
    os.chown(home, ONE, ONE)

    def ecg_batch(*words) -> str:
        return well(say(everybodys, site, *words, member=ONE, cwd=home))

    assert "demo.yaml" in ecg_batch("configs")
    ecg_batch("synthesize", "configs/demo.yaml", "--out", "run", "--workers", "2", *SMALL)
    assert_same_dataset(plain, home / "run")
    assert "all is well" in ecg_batch("verify", "run")
    ecg_batch("plot", "run"), ecg_batch("export", "run", "--format", "ptbxl")
    told = ecg_batch("doctor", "--out", "next")
    assert f"{ONE} (a number without a name)" in told and ", read-only" in told and "\n!" not in told, told
    assert files(site) == before and {path.stat().st_uid for path in home.rglob("*")} == {ONE}


@pytest.mark.parametrize("site", ["Übung mit Leerzeichen ♥ 数据"], indirect=True)
def test_spaces_and_letters_of_all_scripts_in_every_path(site, request_file, plain):
    """Of the installation, the request, the dataset, the present folder and the scratch, under a locale that knows ASCII alone."""
    here, odd = site.parent / "Läufe eins", {"LC_ALL": "C"}
    here.mkdir()
    odd["TMPDIR"] = here / "tmp é"
    odd["TMPDIR"].mkdir()
    shutil.copy(request_file, here / "An frage ß.yaml")
    well(say(sys.executable, site, "synthesize", "An frage ß.yaml", "--out", "r eins", "--workers", "2", *SMALL, cwd=here, **odd))
    assert_same_dataset(plain, here / "r eins")
    for words in (["verify"], *(["export", "--format", name] for name in ("ptbxl", "hdf5"))):
        well(say(sys.executable, site, words[0], "r eins", *words[1:], cwd=here, **odd))
    before, ascii_alone = files(here / "r eins"), {**odd, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for words in (["status"], ["verify", "--repair"]):
        done = say(sys.executable, site, words[0], here / "r eins", *words[1:], **ascii_alone)
        assert done.returncode == 2 and "names of files are read as ascii here" in done.stderr and "PYTHONUTF8=1" in done.stderr
    said = well(say(sys.executable, site, "status", here / "r eins", **odd, PYTHONIOENCODING="ascii"))
    assert r"L\xe4ufe eins/r eins: finished" in said, "what a terminal cannot show is shown as its number"
    assert files(here / "r eins") == before, "what cannot be read so is not given up as damaged"


# Scratch --------------------------------------------------------------------------------------------------------------


def test_the_demo_in_a_scratch_of_64_mb(mount, tmp_path):
    small_scratch = mount("scratch", "64m")
    words = ("synthesize", ROOT / "configs/demo.yaml", "--out", tmp_path / "demo", "--workers", "2")
    assert "2,048 records in 4 shards" in well(say(sys.executable, ROOT, *words, TMPDIR=small_scratch))
    well(say(sys.executable, ROOT, "export", tmp_path / "demo", "--format", "npy", TMPDIR=small_scratch))
    assert list(small_scratch.iterdir()) == [], "nothing is left behind"


# A group --------------------------------------------------------------------------------------------------------------


def test_what_one_member_of_a_group_began_another_finishes_and_a_third_mends(open_folder, site, everybodys, request_file, plain):
    """umask 002 and a folder with setgid promise that the group may write everything, also what was left by a kill."""
    shared = open_folder / "shared"
    shared.mkdir()
    os.chown(shared, 0, TEAM)
    shared.chmod(0o2775)
    shutil.copy(request_file, shared / "request.yaml")

    def ecg_batch(member: int, *words) -> str:
        return well(say(everybodys, site, *words, member=member, cwd=shared, umask=0o002))

    words = ("synthesize", "request.yaml", "--out", "team/run", *SMALL)
    process = subprocess.Popen(command_of(everybodys, *words, member=ONE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               **options_of(site, ONE, cwd=shared, umask=0o002))  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(shared.glob("team/run.partial/receipts/*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL), process.wait()
    assert (shared / "team/run.partial").exists(), "it was killed in the middle"
    refuse_private(shared)
    ecg_batch(OTHER, "synthesize", "--workers", "2", *words[1:])
    assert_same_dataset(plain, shared / "team/run")
    refuse_private(shared)
    with open(shared / "team/run/records.parquet", "ab") as file:
        file.write(b"x")
    assert say(everybodys, site, "verify", "team/run", "--repair", member=ONE, cwd=shared, umask=0o002).returncode == 1
    ecg_batch(ONE, *words)
    assert_same_dataset(plain, shared / "team/run")
    ecg_batch(OTHER, "export", "team/run", "--format", "npy", "--workers", "1")
    refuse_private(shared)
    assert {path.stat().st_uid for path in shared.rglob("*")} >= {ONE, OTHER}


def refuse_private(folder: Path) -> None:
    """All below belongs to the group, which may read and write it, and so will what is made in its folders."""
    states = [(path, path.stat()) for path in folder.rglob("*") if path.name != "request.yaml"]
    asked = {True: 0o2070, False: 0o060}
    assert [str(path) for path, state in states if state.st_gid != TEAM] == []
    assert [f"{path}: {state.st_mode:o}" for path, state in states if asked[path.is_dir()] & ~state.st_mode] == []


# Two versions ---------------------------------------------------------------------------------------------------------


def test_two_versions_that_meet_on_one_run(site, request_file, plain, tmp_path):
    """The second refuses to go on, in words, and touches nothing; it reads what is finished."""
    other = site.with_name("other")
    (other / "ecg_batch").parent.mkdir()
    (other / "ecg_batch").symlink_to(site / "ecg_batch")
    version(other, "9.9.9")
    words = ("synthesize", request_file, "--out", tmp_path / "run", *SMALL)
    well(say(sys.executable, site, *words, "--only", "0,2"))
    before = files(tmp_path)
    for more in (["--workers", "2"], ["--only", "1"]):
        done = say(sys.executable, other, *words, *more)
        says = f"begun with other software (ecg-batch {VERSION} there, 9.9.9 here)"
        assert done.returncode == 2 and says in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1 and files(tmp_path) == before
    assert "2 of 3 shards" in well(say(sys.executable, other, "status", tmp_path / "run"))
    well(say(sys.executable, site, *words))
    assert_same_dataset(plain, tmp_path / "run")
    assert "all is well" in well(say(sys.executable, other, "verify", tmp_path / "run"))
    assert "nothing was left to do" in well(say(sys.executable, other, *words))
