"""The cluster file, and what follows from it without a cluster: arrays, batch script, time left, dry run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TESTS
from fakes import fake

from ecg_batch import driver, slurm
from ecg_batch.claim import claim_shard, read_progress
from ecg_batch.cluster import Cluster, cut_arrays, load_cluster, parse_cluster, sbatch_text
from ecg_batch.commit import missing
from ecg_batch.errors import UserError
from ecg_batch.execute import run_missing, synthesize
from ecg_batch.request_file import load_request
from ecg_batch.slurm import DEFAULT_MAX_ARRAY, Job, TimeLeft, forget_own_job, max_array_size
from ecg_batch.status import read_failures

ROOT = TESTS.parent
GOLDEN = """#!/bin/bash

# Parameters
#SBATCH --array=0-19%20
#SBATCH --constraint=a100
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-node=1
#SBATCH --job-name=ecg-abc
#SBATCH --mem=1536M
#SBATCH --nodes=1
#SBATCH --open-mode=append
#SBATCH --output=/data/run.logs/%N.log
#SBATCH --partition=gpu
#SBATCH --signal=USR2@60
#SBATCH --time=90

# setup
module load cuda
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /data/run.logs/tasks/%A_%a_%t_log.out --output=/data/run.logs/%N.log --open-mode=append --cpus-per-task=4 PYTHON -u -m submitit.core._submit /data/run.logs/tasks
"""  # noqa: E501


# The file -------------------------------------------------------------------------------------------------------------


def test_the_example_states_the_defaults():
    assert load_cluster(ROOT / "configs" / "slurm.yaml") == Cluster()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"walltime": 60}, "unknown key 'walltime' .did you mean walltime_min"),
        ({"gpus": "one"}, "gpus is 'one'; needed a whole number from 0 to 64"),
        ({"rounds": True}, "rounds is True"),
        ({"poll_s": 300}, "poll_s is 300; needed a number from 0.2 to 30"),
        ({"partition": 7}, "partition is 7; needed a name"),
        ({"setup": "module load cuda"}, "setup is 'module load cuda'; needed a list"),
        ({"extra": ["x"]}, "extra is .*; needed sbatch options"),
        ({"extra": {"job_name": "mine"}}, "extra.job-name cannot be set"),
    ],
)
def test_what_is_refused(raw, words):
    with pytest.raises(UserError, match=f"c.yaml: {words}"):
        parse_cluster(raw, "c.yaml")


def test_the_batch_script():
    """A golden text. Where it differs on purpose (a new submitit), read the difference and put the new text here."""
    cluster = Cluster(partition="gpu", walltime_min=90, gpus=1, cpus=4, memory_gb=1.5, setup=("module load cuda",),
                      extra=(("constraint", "a100"),))  # fmt: skip
    assert sbatch_text(cluster, "ecg-abc", Path("/data/run.logs"), 20).replace(sys.executable, "PYTHON") == GOLDEN
    assert "--array" not in sbatch_text(cluster, "ecg-abc", Path("/data/run.logs"), 1)


# Arithmetic -----------------------------------------------------------------------------------------------------------


def test_arrays_cover_the_tasks():
    assert cut_arrays(5000, 1001) == [1001, 1001, 1001, 1001, 996]
    assert cut_arrays(1, 1001) == [1] and cut_arrays(0, 1001) == []
    assert cut_arrays(3, 0) == [1, 1, 1], "MaxArraySize 0: arrays are switched off"


def test_tasks_for_missing_shards():
    cluster = Cluster(shards_per_task=4, most_tasks=10)
    assert [cluster.tasks_for(shards) for shards in (0, 1, 4, 5, 1000)] == [0, 1, 1, 2, 10]


def test_time_left():
    """Shards of 10, 20 and 5 s, a limit at 60 s: after 35 s there are 25 s left, less than 1.5 * 20."""
    times = iter([0, 10, 30, 35])
    has_time = TimeLeft(60, clock=lambda: next(times))
    assert [has_time() for _ in range(4)] == [True, True, True, False]
    assert TimeLeft(1, clock=lambda: 0.0)(), "the first shard is always begun"


def test_max_array_size_without_slurm(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert max_array_size() == DEFAULT_MAX_ARRAY


def test_the_jobs_own_variables_are_dropped(monkeypatch):
    variables = {"SLURM_JOB_ID": "1", "SBATCH_PARTITION": "x", "SLURM_CONF": "c", "CUDA_VISIBLE_DEVICES": "0", "PATH": "p"}
    monkeypatch.setattr(os, "environ", variables)
    forget_own_job()
    assert os.environ == {"SLURM_CONF": "c", "PATH": "p"}
    os.environ["CUDA_VISIBLE_DEVICES"] = "1"
    forget_own_job()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1", "outside of a job it is the user's own"


# Claims of tasks that are gone ----------------------------------------------------------------------------------------


@pytest.fixture
def new_driver(make_run):
    plan, folder, _ = make_run()
    return driver.Driver(plan, folder, Cluster(), fake(), None)


def claim_as(monkeypatch, run, shard: int, job: str, restarts: int = 0):
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    return claim_shard(run.folder, run.plan.shards[shard])


def test_claims_are_freed_where_slurm_has_their_maker_no_more(new_driver, monkeypatch):
    for shard, job in enumerate(("10", "11", "12", "13")):
        claim_as(monkeypatch, new_driver, shard, job)
    queue = [Job("10", "9", 0, "R", "None"), Job("11", "9", 1, "R", "None"), Job("12", "9", 0, "CG", "None")]
    new_driver._free_claims(read_progress(new_driver.folder), queue)
    fresh = [claim.shard for claim in read_progress(new_driver.folder) if claim.is_fresh]
    assert fresh == [0], "11 was requeued, 12 is completing, 13 is gone"


def test_a_maker_that_lives_after_all_goes_on(new_driver, monkeypatch):
    claim = claim_as(monkeypatch, new_driver, 0, "10")
    new_driver._free_claims(read_progress(new_driver.folder), [])
    claim.beat(5)
    assert read_progress(new_driver.folder)[0].is_fresh


def test_a_shard_whose_tasks_die_is_put_aside(new_driver, monkeypatch):
    """As out of memory does: nothing writes a traceback."""
    for attempt in range(driver.DEATHS):
        assert read_failures(new_driver.folder, {}) == {}
        assert claim_as(monkeypatch, new_driver, 3, str(attempt)).attempt == attempt + 1
        new_driver._free_claims(read_progress(new_driver.folder), [])
    assert "its task was ended 3 times before it was done: out of memory" in read_failures(new_driver.folder, {})[3]


def test_a_task_that_hangs_is_not_counted_on(new_driver, monkeypatch):
    queue = [Job("10", "9", 0, "R", "None"), Job("11", "9", 0, "PD", "Resources")]
    claim = claim_as(monkeypatch, new_driver, 0, "10")
    submitted = []
    monkeypatch.setattr(driver, "ask_queue", lambda name: queue)
    monkeypatch.setattr(driver.Driver, "_submit", lambda self, count, others_live: submitted.append(count))
    new_driver.step()
    assert submitted == [], "5 shards, 4 a task: two tasks are on their way"
    os.utime(claim.staging / "progress.json", (1, 1))
    new_driver.step()
    assert submitted == [1]


def test_an_id_that_is_given_away_again(new_driver, monkeypatch):
    """A controller that crashed has forgotten jobs 10 and 11, whose tasks died, and gives their ids to the next."""
    for shard, job in enumerate(("10", "11")):
        claim_as(monkeypatch, new_driver, shard, job)
    submitted = []
    monkeypatch.setattr(driver.Driver, "_submit", lambda self, count, others_live: submitted.append(count))
    for queue in (
        [],
        [Job("10", "10", 0, "PD", ""), Job("11", "10", 0, "PD", "")],
        [Job("10", "10", 0, "R", ""), Job("11", "10", 0, "R", "")],
    ):
        monkeypatch.setattr(driver, "ask_queue", lambda name, queue=queue: queue)
        new_driver.step()
    assert submitted == [2], "5 shards, 4 a task: two tasks, and then they are on their way"


@pytest.mark.parametrize(
    ("line", "live"),
    [
        ("17 15 0 R None", True),
        ("17 15 0 PD Resources", True),
        ("17 15 2 PD JobHeldUser", False),
        ("17 15 0 PD launch failed requeued held", False),
        ("17 15 0 CG None", False),
        ("17 15 1 PD", True),
    ],
)
def test_lines_of_squeue(line, live):
    assert slurm._read_job(line).is_live == live


# Chosen shards, dry run -----------------------------------------------------------------------------------------------


def test_only_chosen_shards_are_made(make_run, write_request):
    plan, folder, out = make_run()
    run_missing(plan, folder, 1, fake(), frozenset({1, 3}))
    assert [shard.index for shard in missing(plan, folder)] == [0, 2, 4]
    synthesize(load_request(write_request()), out, 1, fake(), only=frozenset({0, 2}))
    assert not out.exists()
    synthesize(load_request(write_request()), out, 1, fake(), only=frozenset({4}))
    assert out.exists(), "the last one missing: finished"
    with pytest.raises(UserError, match="--only 5: the plan has shards 0 to 4"):
        synthesize(load_request(write_request()), out, 1, fake(), only=frozenset({5}))


def test_dry_run(make_run, write_request, tmp_path):
    def dry_run(out: Path) -> str:
        command = [
            ROOT / "jobs" / "synthesize.py",
            write_request(),
            "--out",
            out,
            "--dry-run",
            "--cluster",
            ROOT / "configs/slurm.yaml",
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    text = dry_run(tmp_path / "new")
    assert "540 records in 5 shards; 0 are made" in text and "CPU time: not measured" in text
    assert "tasks: 2 in 1 arrays" in text and "#SBATCH --array=0-1%2" in text and not list(tmp_path.glob("new*"))
    plan, folder, out = make_run()
    run_missing(plan, folder, 1, fake(), frozenset({0, 1}))
    assert "as measured on the 2 shards made" in dry_run(out) and "#SBATCH --array" not in dry_run(out)
