"""On a real Slurm: doctor tells a machine that has it from one without, and what no node can hold is refused with the numbers."""

import os
import subprocess
import sys
import time

import pytest
import yaml
from places import ROOT
from slurm_lab.lab import NODES, new_lab, why_not

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(why_not(accounting=True)), reason=why_not(accounting=True) or "-")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = new_lab(tmp_path_factory.mktemp("lab"), accounting=True)
    try:
        lab.start()
        for words in (("account", "heart"), ("user", "root", "account=heart")):
            lab.run("sacctmgr", "--immediate", "add", *words)
        yield lab
    finally:
        lab.stop()


def say(environment: dict[str, str], *words) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ecg_batch", *map(str, words)]
    environment = {**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


@pytest.fixture
def without(tmp_path):
    """The environment of the same machine as if Slurm were not on it: a PATH without its tools."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "env"):
        (tools / name).symlink_to(f"/bin/{name}")
    return {**{name: value for name, value in os.environ.items() if not name.startswith("SLURM")}, "PATH": str(tools)}


def cluster_file(folder, **settings):
    (folder / "cluster.yaml").write_text(yaml.safe_dump(settings))
    return folder / "cluster.yaml"


def test_doctor_tells_both_kinds_of_machine_apart(lab, without, tmp_path):
    file = cluster_file(tmp_path, memory_gb=1, partition="main")
    there = say(lab.environment, "doctor", "--out", tmp_path / "run", "--cluster", file)
    assert there.returncode == 0 and "Traceback" not in there.stderr, there.stdout + there.stderr
    assert "cluster lab, answers" in there.stdout and "MaxArraySize 1001, MaxJobCount 20000" in there.stdout
    assert "partition      main (default): no limit of time; 3 nodes of 2 CPUs, 3.906 GB, 2 GPUs; 1 node of 2 CPUs" in there.stdout
    assert "accounting     Account heart" in there.stdout and "a node of main holds a task" in there.stdout
    alone = say(without, "doctor", "--out", tmp_path / "run")
    assert alone.returncode == 0 and "none on this machine" in alone.stdout and "partition" not in alone.stdout
    asked = say(without, "doctor", "--out", tmp_path / "run", "--cluster", file)
    assert asked.returncode == 1 and "\n! Slurm          none on this machine" in asked.stdout


def test_doctor_and_synthesize_refuse_what_no_node_can_hold(lab, write_request, tmp_path):
    file = cluster_file(tmp_path, memory_gb=500, gpus=3, cpus=64, partition="main")
    words = [f"{key} is {asked}, and no node of partition main has more than {most}"
             for key, asked, most in (("memory_gb", 500, "3.906 GB"), ("cpus", 64, 2), ("gpus", 3, 2))]  # fmt: skip
    doctor = say(lab.environment, "doctor", "--cluster", file, "--out", tmp_path / "run")
    assert doctor.returncode == 1 and all(f"! cluster file   {one}\n" in doctor.stdout for one in words), doctor.stdout
    before = lab.run("scontrol", "show", "config").split("NEXT_JOB_ID")[1].split()[1]
    for more in ((), ("--dry-run",)):
        done = say(lab.environment, "synthesize", write_request(), "--out", tmp_path / "run", "--cluster", file, *more)
        assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith(f"error: {file}, line ") and "; ".join(words) in done.stderr
    assert lab.run("scontrol", "show", "config").split("NEXT_JOB_ID")[1].split()[1] == before, "nothing was submitted"
    assert not (tmp_path / "run.partial").exists()


def test_a_limit_of_time(lab, write_request, tmp_path):
    lab.run("scontrol", "update", "PartitionName=urgent", "MaxTime=90")
    file = cluster_file(tmp_path, partition="urgent", walltime_min=120, memory_gb=1)
    done = say(lab.environment, "synthesize", write_request(), "--out", tmp_path / "run", "--cluster", file, "--dry-run")
    assert done.returncode == 2 and "walltime_min is 120, and partition urgent allows 90 min" in done.stderr, done.stderr


def test_a_controller_that_is_gone_does_not_hold_doctor_up(lab, tmp_path):
    """Last, since it ends the controller: its tools wait up to a minute for it."""
    assert lab.is_idle() and len(lab.nodes()) == NODES
    lab.kill("slurmctld")
    begun = time.monotonic()
    gone = say(lab.environment, "doctor", "--out", tmp_path / "run")
    assert gone.returncode == 0 and "the controller gives no answer" in gone.stdout and "Traceback" not in gone.stderr, gone.stdout
    assert time.monotonic() - begun < 25
