"""The cluster file, and what follows from it without a cluster: arrays, batch script, time left, dry run."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import fake
from places import TESTS

from ecg_batch.dataset.receipts import missing
from ecg_batch.errors import UserError
from ecg_batch.request.parse import load_request
from ecg_batch.run.claim import claim_shard, read_progress
from ecg_batch.run.local import run_missing, synthesize
from ecg_batch.run.slurm import driver
from ecg_batch.run.slurm import queue as slurm
from ecg_batch.run.slurm.cluster import Cluster, cut_arrays, has_gpus, load_cluster, parse_cluster, refuse_log_names, sbatch_text
from ecg_batch.run.slurm.queue import DEFAULT_MAX_ARRAY, Job, TimeLeft, forget_own_job, max_array_size
from ecg_batch.run.status import read_failures
from ecg_batch.settings import Written

ROOT = TESTS.parent
GOLDEN = Path(__file__).parent / "golden"


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
        ({"partition": 7}, "partition is 7; needed text, on one line: write '7' in quotes"),
        ({"extra": {"P": "x"}}, "extra: unknown option 'P'; needed the long name .* of one letter these are known: A .account., C"),
        ({"extra": {"comment": "a\nrm -rf ~"}}, "extra.comment is .*; needed text, a number, true for a flag"),
        ({"extra": {"exclude": [["a"], "b"]}}, "extra.exclude is .*; needed text"),
        ({"extra": {"exclude": {"a": 1}}}, "extra.exclude is .*; needed text"),
        ({"extra": {"mem": float("nan")}}, "extra.mem is nan; needed text"),
        ({"extra": {"J": "mine"}}, "extra: unknown option 'J'"),
        ({"extra": {"parsable": True}}, "extra.parsable cannot be set: sbatch would not answer"),
        ({"extra": {"p": "gpu", "partition": "cpu"}}, "extra.partition: partition is given twice"),
        ({"setup": "module load cuda"}, "setup is 'module load cuda'; needed a list"),
        ({"extra": ["x"]}, "extra is .*; needed keys with values"),
        ({"extra": {"job_name": "mine"}}, "extra.job-name cannot be set"),
    ],
)
def test_what_is_refused(raw, words):
    with pytest.raises(UserError, match=f"c.yaml: {words}"):
        parse_cluster(Written(raw, "c.yaml"))


SITES = {
    "plain": {"partition": "gpu", "walltime_min": 90, "gpus": 1, "cpus": 4, "memory_gb": 1.5, "setup": ["module load cuda"],
              "extra": {"constraint": "a100"}},
    "forbids-mem": {"memory_gb": None, "cpus": 128, "partition": "standard", "qos": "standard", "extra": {"exclusive": True}},
    "mem-per-cpu": {"memory_gb": 4, "extra": {"mem-per-cpu": "2G", "exclude": ["node7", "node9"], "requeue": False}},
    "gres": {"gpus": 1, "cpus": 8, "extra": {"gres": ["gpu:a100:1", "nvme:10"]}},
    "account-of-digits": {"account": "12345", "walltime_min": None, "cpus": None, "memory_gb": None, "extra": {"t": "0-02:00:00"}},
    "exports-nothing": {"extra": {"export": "NONE"}},
}  # fmt: skip


@pytest.mark.parametrize("site", SITES)
def test_the_batch_script(site):
    """Golden texts. Where one differs on purpose (a new submitit), read the difference and put the new text into golden/."""
    text = sbatch_text(parse_cluster(Written(SITES[site], "c.yaml")), "ecg-abc", Path("/data/run.logs"), 20)
    assert text.replace(sys.executable, "PYTHON") == (GOLDEN / f"{site}.sbatch").read_text(), text
    assert "--array" not in sbatch_text(parse_cluster(Written(SITES[site], "c.yaml")), "ecg-abc", Path("/data/run.logs"), 1)


def options(raw: dict) -> set[str]:
    """What the batch script tells sbatch, beside what it always does."""
    text = sbatch_text(parse_cluster(Written(raw, "c.yaml")), "ecg-abc", Path("/data/run.logs"), 1)
    always = ("job-name", "nodes", "open-mode", "output", "signal")
    found = {line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH --")}
    return {option for option in found if option.split("=")[0] not in always}


USUAL = {"cpus-per-task=1", "mem=4096M", "time=60"}


@pytest.mark.parametrize(
    ("raw", "gone", "come"),
    [
        ({}, set(), set()),
        ({"memory_gb": None}, {"mem=4096M"}, set()),
        ({"walltime_min": None}, {"time=60"}, set()),
        ({"cpus": None}, {"cpus-per-task=1"}, set()),
        ({"gpus": None}, set(), set()),
        ({"extra": {"mem": None}}, {"mem=4096M"}, set()),
        ({"extra": {"mem": 0}}, {"mem=4096M"}, {"mem=0"}),
        ({"extra": {"mem-per-cpu": "2G"}}, {"mem=4096M"}, {"mem-per-cpu=2G"}),
        ({"extra": {"mem_per_gpu": "2G"}}, {"mem=4096M"}, {"mem-per-gpu=2G"}),
        ({"gpus": 1}, set(), {"gpus-per-node=1"}),
        ({"gpus": 1, "extra": {"gres": "gpu:1"}}, set(), {"gres=gpu:1"}),
        ({"gpus": 1, "extra": {"G": "a100:1"}}, set(), {"gpus=a100:1"}),
        ({"gpus": 1, "extra": {"gres": "nvme:10"}}, set(), {"gres=nvme:10", "gpus-per-node=1"}),
        ({"partition": "a", "extra": {"p": "b"}}, set(), {"partition=b"}),
        ({"account": "a", "extra": {"account": False}}, set(), set()),
        ({"extra": {"exclude": ["a", "b"], "nodelist": []}}, set(), {"exclude=a,b"}),
        ({"extra": {"requeue": True, "no-kill": False, "comment": None}}, set(), {"requeue"}),
        ({"extra": {"time": "2:00:00"}}, {"time=60"}, {"time=2:00:00"}),
    ],
)
def test_options_of_sbatch_are_left_out_replaced_and_joined(raw, gone, come):
    assert options(raw) == USUAL - gone | come


def test_a_step_has_the_cpus_of_its_job():
    for raw, cpus in (({}, "=1"), ({"cpus": 4}, "=4"), ({"extra": {"c": 6}}, "=6"), ({"cpus": None}, None)):
        step = sbatch_text(parse_cluster(Written(raw, "c.yaml")), "n", Path("/d"), 1).split("srun ")[1]
        assert f"--cpus-per-task{cpus}" in step if cpus else "--cpus-per-task" not in step


@pytest.mark.parametrize("name", ["100%j", "a\\b", "%"])
def test_a_folder_whose_logs_slurm_would_rename_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="which Slurm replaces in the names of logs"):
        refuse_log_names(tmp_path / f"{name}.logs")
    refuse_log_names(tmp_path / "a plain (one), with ümlaut.logs")


@pytest.mark.parametrize(("raw", "has"), [
    ({"gpus": 1}, True), ({"gpus": 0}, False), ({}, False), ({"gpus": None}, False), ({"extra": {"gres": "gpu:1"}}, True),
    ({"extra": {"gpus": 1}}, True), ({"extra": {"gres": "nvme:1"}}, False), ({"gpus": 1, "extra": {"gres": "nvme:1"}}, True),
    ({"gpus": 1, "extra": {"gpus-per-node": None}}, False),
])  # fmt: skip
def test_a_cluster_file_has_gpus_under_whatever_name(raw, has):
    assert has_gpus(parse_cluster(Written(raw, "c.yaml"))) is has


# Arithmetic -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "with space", "a'b", 'a"b', "$HOME", "a;b", "a&&b", "*", "(x)"])
def test_a_batch_script_can_be_pasted_whatever_the_folder_is_called(tmp_path, name):
    logs = tmp_path / name / "run.logs"
    line = next(line for line in sbatch_text(Cluster(), "ecg", logs, 3).splitlines() if line.startswith("srun"))
    said = shlex.split(line)
    assert said[-4:] == ["-u", "-m", "submitit.core._submit", str(logs / "tasks")]
    assert [word for word in said if "run.logs" in word and not word.startswith(("--output=", str(logs)))] == []
    echoed = subprocess.run(["bash", "-c", f"set -- {line}; printf '%s\\n' \"$@\""], capture_output=True, text=True, cwd=tmp_path)
    assert echoed.stdout.splitlines() == said


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
    variables |= {"SLURM_JWT": "key"}  # without it no tool of Slurm is answered where it is the way to log in
    monkeypatch.setattr(os, "environ", variables)
    forget_own_job()
    assert os.environ == {"SLURM_CONF": "c", "PATH": "p", "SLURM_JWT": "key"}
    os.environ["CUDA_VISIBLE_DEVICES"] = "1"
    forget_own_job()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1", "outside of a job it is the user's own"


# Claims of tasks that are gone ----------------------------------------------------------------------------------------


@pytest.fixture
def new_driver(make_run):
    run = make_run()
    return driver.Driver(run, Cluster(), fake(), None)


def claim_as(monkeypatch, run, shard: int, job: str, restarts: int = 0):
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    return claim_shard(run, run.shards[shard])


def test_claims_are_freed_where_slurm_has_their_maker_no_more(new_driver, monkeypatch):
    for shard, job in enumerate(("10", "11", "12", "13")):
        claim_as(monkeypatch, new_driver.run, shard, job)
    queue = [Job("10", "9", 0, "R", "None"), Job("11", "9", 1, "R", "None"), Job("12", "9", 0, "CG", "None")]
    new_driver._free_claims(read_progress(new_driver.run), queue)
    fresh = [claim.shard for claim in read_progress(new_driver.run) if claim.is_fresh]
    assert fresh == [0], "11 was requeued, 12 is completing, 13 is gone"


def test_a_maker_that_lives_after_all_goes_on(new_driver, monkeypatch):
    claim = claim_as(monkeypatch, new_driver.run, 0, "10")
    new_driver._free_claims(read_progress(new_driver.run), [])
    claim.beat(5)
    assert read_progress(new_driver.run)[0].is_fresh


def test_a_shard_whose_tasks_die_is_put_aside(new_driver, monkeypatch):
    """As out of memory does: nothing writes a traceback."""
    for attempt in range(driver.DEATHS):
        assert read_failures(new_driver.run, {}) == {}
        assert claim_as(monkeypatch, new_driver.run, 3, str(attempt)).attempt == attempt + 1
        new_driver._free_claims(read_progress(new_driver.run), [])
    assert "its task was ended 3 times before it was done: out of memory" in read_failures(new_driver.run, {})[3]


def test_a_task_that_hangs_is_not_counted_on(new_driver, monkeypatch):
    queue = [Job("10", "9", 0, "R", "None"), Job("11", "9", 0, "PD", "Resources")]
    claim = claim_as(monkeypatch, new_driver.run, 0, "10")
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
        claim_as(monkeypatch, new_driver.run, shard, job)
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
        ("17 15 1 PD JobHoldMaxRequeue", False),
        ("17 15 1 PD (DependencyNeverSatisfied)", False),
        ("17 15 1 PD BadConstraints", False),
        ("17 15 0 CD None", False),
        ("17 15 0 OOM OutOfMemory", False),
    ],
)
def test_lines_of_squeue(line, live):
    assert slurm._read_job(line).is_live == live


# Chosen shards, dry run -----------------------------------------------------------------------------------------------


def test_only_chosen_shards_are_made(make_run, write_request):
    run = make_run()
    run_missing(run, 1, fake(), frozenset({1, 3}))
    assert [shard.index for shard in missing(run)] == [0, 2, 4]
    synthesize(load_request(write_request()), run.out, 1, fake(), only=frozenset({0, 2}))
    assert not run.out.exists()
    synthesize(load_request(write_request()), run.out, 1, fake(), only=frozenset({4}))
    assert run.out.exists(), "the last one missing: finished"
    with pytest.raises(UserError, match="--only 5: the plan has shards 0 to 4"):
        synthesize(load_request(write_request()), run.out, 1, fake(), only=frozenset({5}))


@pytest.mark.slow
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
    assert "tasks: 2 in 1 array of" in text and "#SBATCH --array=0-1%2" in text and not list(tmp_path.glob("new*"))
    run = make_run()
    run_missing(run, 1, fake(), frozenset({0, 1}))
    assert "as measured on the 2 shards made" in dry_run(run.out) and "#SBATCH --array" not in dry_run(run.out)
