"""doctor tells what is there and marks what is wrong, wherever it is asked: it never ends in a traceback, nor waits long."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from places import ROOT

from ecg_batch.cli.main import main
from ecg_batch.run.doctor import examine, folders, machine, software
from ecg_batch.run.doctor import slurm as slurm_facts
from ecg_batch.run.doctor.facts import Fact, Worth, found, lines, odd, wrong
from ecg_batch.run.slurm import queue as asking

TOPICS = ["python", "ecg-batch", "packages", "kernels", "instructions", "torch", "GPU", "triton", "mamba_ssm", "causal_conv1d",
          "system", "CPU", "memory", "user", "HOME", "limits", "--out", "file system", "Slurm"]  # fmt: skip


@pytest.fixture(autouse=True)
def nobody_asked_yet(monkeypatch):
    monkeypatch.setattr(asking, "_silent", {})


def facts_of(question) -> list[Fact]:
    return list(found({"it": question}, 20))


def topics(facts: list[Fact], *worths: Worth) -> list[str]:
    return [fact.topic for fact in facts if not worths or fact.worth in worths]


# The whole ------------------------------------------------------------------------------------------------------------


def doctor(*words, environment: dict[str, str] | None = None, before: tuple = (), **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} if environment is None else environment
    command = [*before, sys.executable, "-m", "ecg_batch", "doctor", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **options)


def without_slurm(folder: Path) -> str:
    """A PATH of a machine where no tool of Slurm is."""
    (folder / "bin").mkdir()
    for name in ("sh", "uname"):
        (folder / "bin" / name).symlink_to(shutil.which(name))
    return str(folder / "bin")


@pytest.mark.slow
def test_a_machine_that_is_well_has_every_topic_and_status_0(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", without_slurm(tmp_path))
    assert main(["doctor", "--out", str(tmp_path / "run"), "--json"]) == 0
    told = [Fact(**fact) for fact in json.loads(capsys.readouterr().out)]
    assert [topic for topic in TOPICS if topic not in topics(told)] == [] and topics(told, Worth.WRONG) == []
    text = "\n".join(map(str, told))
    version = metadata.version("torch")
    assert f"{sys.version.split()[0]} (cpython) at {sys.executable}" in text and f"torch          {version}, built for " in text
    assert "works here: write and fsync, rename over a file, links between folders, rename a folder, flock" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"], "nothing is left behind"


@pytest.mark.slow
def test_in_a_container_without_name_home_or_scratch_it_still_tells(tmp_path):
    """A number for a user, an empty environment, no PATH, ASCII alone, no TMPDIR, and a present folder that is gone."""
    bare = {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "TMPDIR": "/nowhere"}
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'cd "$0" && rmdir "$0" && exec "$@"'
    before = ("unshare", "--user", "--map-user=54321", "/bin/sh", "-c", script, str(gone))
    done = doctor("--cluster", tmp_path / "no.yaml", environment=bare, before=before)
    if "unshare" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr}")
    assert done.returncode == 1 and done.stderr == "", done.stdout + done.stderr
    marked = [line[:16].rstrip() for line in done.stdout.splitlines() if line[:1] in "?!"]
    assert {"! --out", "! cluster file", "! Slurm", "? encoding"} <= set(marked), done.stdout
    assert "54321 (a number without a name)" in done.stdout and "HOME           not set" in done.stdout
    assert "cannot be looked at" in done.stdout and "could not be found out" not in done.stdout


def test_what_is_wrong_comes_again_at_the_end_with_what_to_do():
    facts = [Fact("a", "well"), wrong("b", "bad", "Mend it"), odd("c", "strange\nthing", "Look at it")]
    assert lines(facts) == ["  a              well", "! b              bad", "? c              strange\\nthing", "",
                            "! would keep a run from working:", "  1. b: bad. Mend it", "",
                            "? worth a look:", "  1. c: strange\\nthing. Look at it"]  # fmt: skip
    assert lines(facts[:1])[-1] == "nothing would keep a run from working"
    assert examine.keeps_from_working(facts) and not examine.keeps_from_working([facts[0], facts[2]])


def test_what_fails_or_hangs_is_a_fact_and_keeps_nothing_back():
    def fails():
        yield Fact("lost", "with its question")
        raise OSError("broken")

    questions = {"one": lambda: [Fact("one", "1")], "two": fails, "three": lambda: time.sleep(60)}
    questions["four"] = lambda: [Fact("four", "")]
    begun = time.monotonic()
    told = list(found(questions, 0.3))
    assert topics(told) == ["one", "two", "three", "four"] and topics(told, Worth.ODD) == ["two", "three"]
    assert "OSError: broken (test_doctor.py, line " in told[1].text and told[2].text == "no answer within 0.3 s"
    assert time.monotonic() - begun < 5


# Software -------------------------------------------------------------------------------------------------------------


def test_what_differs_from_the_pins_is_named():
    here = metadata.version("numpy")
    requires = ["numpy==1.0.0", f"scipy=={metadata.version('scipy')}", "no-such-thing==3", "torch==0.1"]
    told = list(software.pins([*requires, "wfdb>=3", "x==1; extra == 'gpu'", 'no-such-either==2; extra == "slurm"']))
    assert told[0].text.startswith("1 of 5 as pinned; torch ")
    assert told[0].text.endswith("; not installed: no-such-either (extra slurm)")
    assert [fact.text for fact in told if fact.worth == Worth.WRONG] == ["no-such-thing is absent"]
    assert f"numpy is {here}, pinned is 1.0.0" in [fact.text for fact in told if fact.worth == Worth.ODD]
    assert software._is("2.13.0+cpu", "2.13.0") and not software._is("2.13.1", "2.13.0")


def test_the_pins_of_this_project_are_met_here():
    assert not [fact for fact in software.package() if fact.worth == Worth.WRONG]


@pytest.mark.parametrize(("asked", "version", "allowed"), [
    (">=3.11,<3.13", (3, 12), True), (">=3.11,<3.13", (3, 13), False), ("<3.15,>=3.11", (3, 10), False), ("", (3, 9), True),
    ("~=3.11", (3, 9), True),
])  # fmt: skip
def test_versions_of_python(asked, version, allowed):
    assert software._allows(asked, version) is allowed


@pytest.mark.parametrize(("torch", "says"), [
    ("raise ImportError('libcudart.so.13: cannot open')", "torch: cannot be imported: ImportError: libcudart.so.13"),
    ("import os; os.abort()", "torch: cannot be imported: status -6"),
    ("import time; time.sleep(60)", "torch: not imported within 0.5 s"),
    ("class version: cuda = '13.0'\n__version__ = '9'\nclass cuda:\n def is_available(): raise RuntimeError", "GPU: RuntimeError"),
])  # fmt: skip
def test_a_torch_that_cannot_be_imported_crashes_or_hangs(torch, says, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text(torch)
    (tmp_path / "mamba_ssm.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(software, "GPU_S", 0.5 if "sleep" in torch else 20)
    told = [f"{fact.topic}: {fact.text}" for fact in software.gpu()]
    assert any(one.startswith(says) for one in told), told
    if "version" in torch:
        assert any(one.startswith("mamba_ssm: cannot be imported: ImportError: undefined symbol") for one in told)


# Machine --------------------------------------------------------------------------------------------------------------

V1 = {"proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/job_7/step\n1:name=systemd:/\n",
      "cgroup/memory/job_7/memory.limit_in_bytes": "500000000\n",
      "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}  # fmt: skip
V2 = {"proc/self/cgroup": "0::/system/job_7/step\n", "cgroup/system/job_7/step/memory.max": "max\n",
      "cgroup/system/job_7/memory.max": "3000000000\n", "cgroup/system/memory.max": "8000000000\n"}  # fmt: skip


NONE = {"proc/self/cgroup": "0::/\n"}


@pytest.mark.parametrize(("files", "limit"), [(V1, 500_000_000), (V2, 3_000_000_000), (NONE, None), ({}, None)])
def test_the_least_limit_of_a_cgroup_counts(files, limit, tmp_path, monkeypatch):
    for name, text in {"proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 7000000 kB\n", **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "CGROUP", tmp_path / "cgroup")
    assert machine.cgroup_limit() == limit
    (told,) = machine.memory()
    assert told.text.startswith("7.6 GB, 6.7 GB free") and (told.worth == Worth.ODD) == (limit == 500_000_000)


def test_where_the_system_tells_nothing_there_are_still_facts(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "PROC", tmp_path)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(folders, "MOUNTS", tmp_path / "none")
    told = [fact for question in (machine.system, machine.memory, machine.user, machine.limits) for fact in facts_of(question)]
    assert topics(told) == ["system", "CPU", "memory", "user", "HOME", "limits"]
    assert "umask unknown" in told[3].text and folders.file_system(tmp_path) == ("unknown", "unknown")


# Folders --------------------------------------------------------------------------------------------------------------


def test_the_file_system_is_the_innermost_that_is_mounted_there(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:1 / / rw - ext4 /dev/a rw\n23 1 0:2 / /scratch rw shared:1 - lustre mds:/x rw\n"
        "24 1 0:3 / /scratch/two\\040words rw - nfs4 host:/y rw\n25 1 0:4 / /scratch rw - beegfs b rw\nodd line\n"
    )
    monkeypatch.setattr(folders, "MOUNTS", mounts)
    places = ["/home/me", "/scratch", "/scratch/two words/deep", "/scratchy"]
    assert [folders.file_system(Path(place))[0] for place in places] == ["ext4", "beegfs", "nfs4", "ext4"]


def test_an_out_that_cannot_be_written_is_wrong(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert topics(list(folders.dataset(tmp_path / "file" / "run")), Worth.WRONG) == ["--out"]

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folders.Path, "mkdir", refuse)
    (told,) = [fact for fact in folders.dataset(tmp_path / "run") if fact.worth == Worth.WRONG]
    assert told.text == f"no folder can be made in {tmp_path}: Permission denied"


def test_links_and_locks_that_are_missing_are_told_and_keep_no_run_from_working(tmp_path, monkeypatch):
    def absent(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(folders.os, "link", absent)
    monkeypatch.setattr(folders.fcntl, "flock", absent)
    told = list(folders.dataset(tmp_path / "run"))
    assert topics(told, Worth.WRONG, Worth.ODD) == [] and os.listdir(tmp_path) == []
    text = "\n".join(map(str, told))
    assert "works here: write and fsync, rename over a file, rename a folder\n" in text
    assert "no links between folders (Operation not supported): a mark" in text and "no flock (Operation not supported)" in text


# Slurm ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """tools(scontrol="script") -> these are the only tools of Slurm here."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(slurm_facts, "ANSWER_S", 0.5)

    def write(**scripts: str) -> None:
        for name in slurm_facts.TOOLS:
            (folder / name).write_text(f"#!/bin/sh\n{scripts.get(name, 'exit 1')}\n")
            os.chmod(folder / name, stat.S_IRWXU)

    return write


CONFIG = "echo 'MaxArraySize = 500'; echo 'MaxJobCount = 100'; echo 'SLURM_VERSION = 23.11.4'; echo 'JobSubmitPlugins = (null)'"
SINFO = "echo 'main*|down|2:00:00|UNLIMITED|4|8|16000|(null)'"


def slurm_facts_of(folder: Path, text: str | None) -> list[Fact]:
    if text is not None:
        (folder / "c.yaml").write_text(text)
    return list(slurm_facts.slurm(folder / "c.yaml" if text is not None else None))


def test_a_site_is_told_and_a_cluster_file_held_against_it(tools, tmp_path):
    tools(scontrol=CONFIG, sinfo=SINFO)
    told = slurm_facts_of(tmp_path, "{cpus: 9, memory_gb: 99, most_tasks: 200}")
    text = "\n".join(map(str, told))
    assert "23.11.4, cluster without a name, answers" in text and "MaxArraySize 500, MaxJobCount 100" in text
    assert "main (default) (down): 120 min; 4 nodes of 8 CPUs, 15.62 GB, no GPU" in text
    assert [fact.text for fact in told if fact.worth == Worth.WRONG] == [
        "memory_gb is 99, and no node of partition main has more than 15.62 GB",
        "cpus is 9, and no node of partition main has more than 8",
    ]
    assert [fact.text for fact in told if fact.worth == Worth.ODD] == [
        "partition main is down", "most_tasks is 200, and the site holds 100 jobs of all users (MaxJobCount)",
    ]  # fmt: skip
    assert not [fact for fact in slurm_facts_of(tmp_path, "{cpus: 8}") if fact.worth == Worth.WRONG]
    assert "sinfo shows main" in "".join(map(str, slurm_facts_of(tmp_path, "partition: elsewhere")))
    assert "c.yaml, line 1: unknown key" in "".join(map(str, slurm_facts_of(tmp_path, "cores: 8")))


@pytest.mark.parametrize("scontrol", ["sleep 60 & sleep 60", "echo down >&2; exit 1", "kill -9 $$"])
def test_a_slurm_that_hangs_or_fails_is_told_within_seconds(scontrol, tools, tmp_path):
    tools(scontrol=scontrol)
    begun = time.monotonic()
    (told,) = slurm_facts_of(tmp_path, None)
    (asked,) = slurm_facts_of(tmp_path, "{}")
    assert told.worth == Worth.ODD and asked.worth == Worth.WRONG and "the controller gives no answer: " in told.text
    assert time.monotonic() - begun < 5


def test_a_slurm_that_talks_nonsense_refuses_nothing(tools, tmp_path):
    tools(scontrol="echo hello", sinfo="printf '\\377\\000|||||||'")
    told = slurm_facts_of(tmp_path, "{cpus: 1000, memory_gb: 9000}")
    assert topics(told, Worth.WRONG) == [] and "not compared: Slurm does not say" in told[-1].text


def test_an_out_that_slurm_would_read_as_a_pattern_is_wrong_with_slurm_alone(tmp_path):
    out = tmp_path / "a%b"
    assert [fact.worth == Worth.WRONG for fact in (next(folders.dataset(out)), next(folders.dataset(out, True)))] == [False, True]


def test_without_slurm_only_a_cluster_file_is_in_vain(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert topics(slurm_facts_of(tmp_path, None), Worth.WRONG) == []
    assert topics(slurm_facts_of(tmp_path, "{}"), Worth.WRONG) == ["Slurm"]
