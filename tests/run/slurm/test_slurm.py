"""Runs on a real Slurm cluster end in the bytes of a run in one process, whatever befalls tasks, nodes, Slurm or driver."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from comparing import assert_same_dataset
from fakes import fake, small_request
from places import TESTS
from slurm_lab.lab import NODES, Lab, new_lab, state, why_not
from slurm_lab.runs import RUN, SHARDS, SlurmRun

from ecg_batch.dataset.manifest import read_manifest
from ecg_batch.dataset.receipts import missing
from ecg_batch.dataset.run import read_run
from ecg_batch.request.parse import load_request
from ecg_batch.run.claim import Progress
from ecg_batch.run.folder import open_run
from ecg_batch.run.local import run_missing, synthesize
from ecg_batch.run.planning import make_plan

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    yield from started(new_lab(tmp_path_factory.mktemp("lab")))


@pytest.fixture(scope="module")
def small_arrays(tmp_path_factory):
    yield from started(new_lab(tmp_path_factory.mktemp("lab"), max_array=20))


@pytest.fixture(scope="module")
def accounted(tmp_path_factory):
    yield from started(new_lab(tmp_path_factory.mktemp("lab"), accounting=True))


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    yield from started(new_lab(tmp_path_factory.mktemp("lab"), memory=True))


@pytest.fixture(scope="module")
def by_core(tmp_path_factory):
    yield from started(new_lab(tmp_path_factory.mktemp("lab"), select="CR_Core"))


def started(lab: Lab):
    try:
        lab.start()
        yield lab
    finally:
        lab.stop()


@pytest.fixture
def run_on(write_request, tmp_path):
    """run_on(lab, pause_s, key=value, ...) -> a run not yet driven; key=value change the cluster file."""
    runs = []

    def make(lab, pause_s: float = 0.0, **settings) -> SlurmRun:
        runs.append(SlurmRun(lab, write_request(**RUN), tmp_path / "run", pause_s, settings))
        return runs[-1]

    yield make
    for run in runs:
        run.clear()


@pytest.fixture(scope="module")
def alone(inputs, tmp_path_factory):
    """The same run in one process."""
    request = small_request(inputs, tmp_path_factory.mktemp("alone") / "request.yaml", **RUN)
    synthesize(load_request(request), request.with_name("run"), 1, fake())
    return request.with_name("run")


@pytest.fixture(scope="module", autouse=True)
def over_a_minute(inputs, tmp_path_factory):
    """A run on a cluster of its own, while the other tests go on: Slurm counts time limits in minutes. 24 s of work for each of 8
    tasks would fit into one; 4 tasks with 64 s each do not.
    """
    request = small_request(inputs, tmp_path_factory.mktemp("minute") / "request.yaml", **RUN)
    for lab in started(new_lab(tmp_path_factory.mktemp("lab"))):
        run = SlurmRun(lab, request, request.with_name("run"), 4.0, {"walltime_min": 1, "most_tasks": 4})
        run.drive()
        yield run
        run.drivers[0].kill()


def test_a_plain_run(lab, run_on, alone):
    run = run_on(lab)
    run.drive()
    status, words = run.finish()
    assert status == 0, run.all_words()
    assert f"{SHARDS} shards" in words
    assert_same_dataset(alone, run.out)
    assert len(list(run.logs.iterdir())) <= 4, "one log for each node, and nothing of submitit's"


def test_everything_at_once(lab, run_on, alone):
    """Three workers killed, a node crashed, a task requeued, one preempted, slurmctld restarted, the driver killed twice."""
    run = run_on(lab, pause_s=2.0)
    first = run.drive()
    run.await_done(2)
    first.kill()
    for claim in run.makers()[:3]:
        os.kill(claim.pid, signal.SIGKILL)
    second = run.drive()
    run.await_done(8)
    lab.crash("node2")
    lab.run("scontrol", "requeue", job_on(run, "node3"))
    lab.run("sbatch", "--partition=urgent", "--nodelist=node1", "--exclusive", "--output=/dev/null", "--wrap=sleep 4")
    run.wait_for(lambda: run.tasks("--partition=urgent", "--states=RUNNING"))
    lab.kill("slurmctld")
    time.sleep(2)
    lab.start_controller()
    second.kill()
    run.drive()
    status, words = run.finish(seconds=300)  # a controller that forgot an end believes in it until the claim is stale: 120 s
    assert status == 0, run.all_words()
    assert "Traceback" not in words
    assert_same_dataset(alone, run.out)
    print(f"\n{run.words(first)}--\n{run.words(second)}--\n{words}")


def job_on(run: SlurmRun, node: str) -> str:
    """The id of a task that runs on a node."""
    return run.tasks(f"--nodelist={node}", "--states=RUNNING", form="%A")[0]


def test_a_pending_task_that_is_cancelled_is_submitted_again(lab, run_on, alone):
    run = run_on(lab, pause_s=1.0, most_tasks=10, shards_per_task=2, cpus=2, poll_s=5)  # 4 run, 6 wait
    run.drive()
    run.wait_for(lambda: len(run.tasks("--states=PENDING")) == 6)
    lab.run("scancel", run.tasks("--states=PENDING", form="%i")[0])
    cancelled = time.monotonic()
    run.wait_for(lambda: "submitted 1 task" in run.words())
    assert time.monotonic() - cancelled < 40, "poll_s is 5 here; the default of 15 s stays well below a minute"
    assert run.finish()[0] == 0, run.all_words()
    assert_same_dataset(alone, run.out)


def test_a_lone_task_that_is_cancelled_while_pending(lab, run_on, write_request):
    """submitit's own result() would wait for ever: nothing is left in the queue, nothing in sacct."""
    run = run_on(lab, most_tasks=1, extra={"begin": "now+3600"})
    run.drive()
    run.wait_for(lambda: run.tasks("--states=PENDING"))
    lab.run("scancel", run.tasks("--states=PENDING", form="%i")[0])
    run.wait_for(lambda: run.words().count("submitted 1 task") == 2, 20)


def test_tasks_go_where_the_gpus_are(lab, run_on):
    run = run_on(lab, gpus=1, setup=["echo sees GPU $CUDA_VISIBLE_DEVICES"])
    run.drive()
    assert run.finish()[0] == 0, run.all_words()
    hosts = {json.loads(path.read_bytes())["host"] for path in (run.out / "receipts").iterdir()}
    assert hosts == {"node1", "node2", "node3"}, "node4 has none"
    logs = "".join(path.read_text() for path in run.logs.glob("*.log"))
    assert "sees GPU 0" in logs and "sees GPU 1" in logs


def test_a_held_task_is_not_waited_for(lab, run_on):
    run = run_on(lab, most_tasks=1, extra={"begin": "now+3600"})
    run.drive()
    run.wait_for(lambda: run.tasks("--states=PENDING"))
    lab.run("scontrol", "hold", run.tasks("--states=PENDING", form="%i")[0])
    run.wait_for(lambda: run.words().count("submitted 1 task") == 2, 20)


def test_five_thousand_tasks_where_arrays_end_at_1001(lab, run_on, write_request):
    """They wait, are found by the next driver, vanish, and are submitted again."""
    run = run_on(lab, most_tasks=5000, shards_per_task=1, extra={"begin": "now+3600"})
    write_request(**{**RUN, "records": 5000 * 64})
    first = run.drive()
    run.wait_for(lambda: run.words().count("submitted 1001 tasks") == 4 and "submitted 996 tasks" in run.words(), 60)
    assert len(run.tasks()) == 5000
    first.kill()
    second = run.drive()
    run.wait_for(lambda: "5000 pending" in run.words(second), 20)
    lab.run("scancel", "--user=root")
    run.wait_for(lambda: "submitted 996 tasks" in run.words(second), 60)
    assert "Traceback" not in run.all_words()


def test_a_driver_that_comes_back_finds_the_tasks_of_the_former(lab, run_on):
    run = run_on(lab, pause_s=0.5)
    run.drive()
    run.await_done(1)
    run.drivers[0].kill()
    second = run.drive()
    status, words = run.finish(second)
    assert status == 0 and "submitted" not in words, words


def test_split_brain(lab, run_on, alone):
    """slurmd is killed and its tasks live on, halted for a while: Slurm runs them again elsewhere, and both copies go on."""
    run = run_on(lab, pause_s=3.0, most_tasks=6)  # 6 of 8 CPUs: there is room for the second copies
    run.drive()
    run.await_done(4)
    old: dict[int, Progress] = {}

    def halted() -> bool:
        """All workers of node3 stand still inside a shard; they are let go where one had just finished."""
        pids = {claim.pid for claim in run.makers() if claim.host == "node3"}
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        to_make = {shard.index for shard in missing(read_run(run.folder))}
        old.update({claim.shard: claim for claim in run.makers() if claim.pid in pids and claim.shard in to_make})
        if len(old) == len(pids) > 0:
            return True
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        old.clear()
        return False

    run.wait_for(halted, 20)
    lab.kill("slurmd.node3")

    def made_twice() -> list[Progress]:
        second = [claim for claim in run.makers() if claim.shard in old and claim.attempt > old[claim.shard].attempt]
        return [claim for claim in second if is_alive(claim.pid) and is_alive(old[claim.shard].pid)]

    run.wait_for(made_twice)
    for claim in old.values():
        os.kill(claim.pid, signal.SIGCONT)

    def both_at_work() -> bool:
        jobs = {claim.job for claim in run.makers() if is_alive(claim.pid)}
        return any(claim.job in jobs and claim.job.replace(".0", ".1") in jobs for claim in old.values())

    run.wait_for(both_at_work, 20)
    status, _ = run.finish(seconds=180)
    assert status == 0, run.all_words()
    assert_same_dataset(alone, run.out)


def is_alive(pid: int) -> bool:
    return state(pid) not in "ZX"


def test_a_long_outage_of_the_controller(lab, run_on, alone):
    """It hangs, then is dead, each longer than squeue waits for it (5 s here), and all tasks die meanwhile."""
    run = run_on(lab, pause_s=3.0)  # 24 s of work: more than the controller takes to save
    driver = run.drive()
    run.await_done(4)
    starts = [time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S")) for text in run.tasks("--states=RUNNING", form="%S")]
    # a controller that has not saved what it started drains the nodes ("Duplicate jobid"), and they stay so
    run.wait_for(lambda: (lab.folder / "state" / "job_state").stat().st_mtime > max(starts))
    os.kill(lab.pid("slurmctld"), signal.SIGSTOP)
    for node in range(1, NODES + 1):
        lab.end_tasks(f"node{node}")
    time.sleep(8)
    lab.kill("slurmctld")
    left = SHARDS - run.done()
    time.sleep(12)
    assert left == SHARDS - run.done() > 0 and driver.poll() is None, "nobody makes anything, and the driver waits"
    lab.start_controller()
    assert run.finish()[0] == 0, run.all_words()
    assert_same_dataset(alone, run.out)


def test_a_shard_that_fails_is_named_and_the_others_are_made(lab, run_on, alone):
    run = run_on(lab)
    run.drive(130, 4000)
    status, words = run.finish()
    assert status == 1, run.all_words()
    assert "2 of 64 shards failed: shard 2: RuntimeError: record 130 is poisoned; shard 62" in words
    assert run.done() == SHARDS - 2
    run.drive()
    assert run.finish()[0] == 0, run.all_words()
    assert_same_dataset(alone, run.out)


@pytest.mark.parametrize("settings", [
    {"extra": {"export": "NONE"}, "setup": [f"export PYTHONPATH={TESTS}:{TESTS.parent}"]},
    {"extra": {"mem-per-cpu": "200M", "exclude": ["node4", "node3"]}, "walltime_min": None, "cpus": None},
])  # fmt: skip
def test_sites_with_rules_of_their_own(settings, lab, run_on, alone):
    run = run_on(lab, **settings)
    run.drive()
    assert run.finish()[0] == 0, run.all_words()
    assert_same_dataset(alone, run.out)


def test_sbatch_refuses(lab, run_on):
    run = run_on(lab, partition="nowhere")
    run.drive()
    status, words = run.finish()
    assert status == 2 and "sbatch refuses the tasks" in words and "invalid partition" in words, words
    assert list((run.logs / "tasks").iterdir()) == [], "submitit leaves the pickles of what was refused"


def test_tasks_that_die_at_once_end_the_driver(lab, run_on):
    """And eight rounds of eight of them leave no more files behind than two rounds need."""
    run, most = run_on(lab, rounds=8, setup=["exit 7"]), 0
    driver = run.drive()
    while driver.poll() is None:
        most = max(most, sum(path.is_file() for path in run.logs.rglob("*")))
        time.sleep(0.1)
    status, words = run.finish()
    assert status == 2 and "8 rounds of tasks in a row made no shard; 64 of 64 are missing" in words, run.all_words()
    assert 0 < most <= 2 * (8 + 1) + 5, "a pickle for each task and a script for each array, twice; a log for each node"


def test_a_driver_inside_a_job(lab, run_on, alone):
    """Its own SLURM_ and SBATCH_ variables do not reach the tasks: here they would ask for memory that no node has."""
    run = run_on(lab)
    run.drive(environment={"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "900000", "SBATCH_MEM_PER_NODE": "900000",
                           "SBATCH_PARTITION": "nowhere", "SLURM_ARRAY_TASK_ID": "3", "CUDA_VISIBLE_DEVICES": "7"})  # fmt: skip
    assert run.finish()[0] == 0, run.all_words()
    assert_same_dataset(alone, run.out)


def test_sbatch_of_the_driver_with_the_real_generator(lab, run_on, tmp_path):
    """The command of the README, from the folder of the project, with the bundled bank and models."""
    run = run_on(lab)
    (tmp_path / "cluster.yaml").write_text("{memory_gb: 1, most_tasks: 2, shards_per_task: 1, poll_s: 1, walltime_min: 10}")
    request = ["configs/demo.yaml", "--set", "records=128", "shard=64", "batch=64"]
    options = [f"--output={tmp_path}/driver.log", "--export=ALL", f"--chdir={TESTS.parent}"]
    job = ["slurm/synthesize.sbatch", *request, "--out", run.out, "--cluster", tmp_path / "cluster.yaml"]
    path = f"{os.path.dirname(sys.executable)}:{run.lab.environment['PATH']}"
    environment = {**lab.environment, "PATH": path, "PYTHONPATH": str(TESTS.parent), "SBATCH_MEM_PER_NODE": "1000"}
    subprocess.run(["sbatch", *map(str, options + job)], env=environment, cwd=TESTS.parent, check=True, capture_output=True)
    run.wait_for(lambda: not run.tasks(), 120)
    words = (tmp_path / "driver.log").read_text()
    assert "run: finished. 128 records in 2 shards" in words, words
    overrides = ["records=128", "shard=64", "batch=64"]
    here = [sys.executable, "jobs/synthesize.py", "configs/demo.yaml", "--out", tmp_path / "here", "--set", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    subprocess.run(list(map(str, here)), env=environment, cwd=TESTS.parent, check=True, capture_output=True)
    assert_same_dataset(tmp_path / "here", run.out)


def test_arrays_below_max_array_size(small_arrays, run_on, alone):
    run = run_on(small_arrays, most_tasks=64, shards_per_task=1)
    run.drive()
    status, words = run.finish()
    assert status == 0, run.all_words()
    assert [line.split(" ", 1)[1] for line in words.splitlines() if "submitted" in line][:4] == [
        "submitted 20 tasks", "submitted 20 tasks", "submitted 20 tasks", "submitted 4 tasks"]  # fmt: skip
    assert_same_dataset(alone, run.out)


@pytest.mark.parametrize("settings", [
    {"memory_gb": None}, {"memory_gb": 0.2}, {"memory_gb": None, "cpus": None, "extra": {"mem-per-cpu": "100M"}},
], ids=["no --mem", "--mem", "--mem-per-cpu"])  # fmt: skip
def test_a_site_that_gives_out_cores_and_no_memory(by_core, run_on, alone, settings):
    assert "CR_CORE" in by_core.run("scontrol", "show", "config").upper()
    run = run_on(by_core, **settings)
    run.drive()
    status, _ = run.finish()
    assert status == 0, run.all_words()
    assert_same_dataset(alone, run.out)


def test_one_missing_shard(small_arrays, run_on, alone, write_request):
    """An array of one element would be none."""
    run = run_on(small_arrays)
    plan, _ = make_plan(load_request(write_request(**RUN)))
    run_missing(open_run(plan, None, run.out), 1, fake(), frozenset(range(SHARDS)) - {17})
    run.drive()
    status, words = run.finish()
    assert status == 0 and "submitted 1 task\n" in words, run.all_words()
    assert_same_dataset(alone, run.out)


@pytest.mark.skipif(bool(why_not(accounting=True)), reason=why_not(accounting=True) or "-")
def test_accounting_that_dies_under_the_run(accounted, run_on, alone):
    run = run_on(accounted, pause_s=0.5)
    run.drive()
    run.await_done(4)
    accounted.kill("slurmdbd")
    assert run.finish()[0] == 0, run.all_words()
    assert_same_dataset(alone, run.out)


limited_only = pytest.mark.skipif(bool(why_not(memory=True)), reason=why_not(memory=True) or "-")


@limited_only
def test_out_of_memory_halves_the_batch_where_the_request_allows_it(limited, run_on, alone, write_request):
    """The kernel kills two tasks: a batch of 64 takes 512 MB, one of 32 256 MB, and 410 MB are allowed."""
    run = run_on(limited, memory_gb=0.4)
    write_request(**RUN, batch_on_oom="halve")
    run.drive(hungry="5,45")
    status, words = run.finish()
    assert status == 0, run.all_words()
    for shard in (5, 45):
        assert words.count(f"shard {shard} ran out of memory with batch 64; it is made with batch 32") == 1, words
    assert read_manifest(run.out)["smaller_batch"] == {"32": [5, 45]}
    assert_same_dataset(alone, run.out)  # the fake generator's bytes do not depend on the batch


@limited_only
def test_out_of_memory_is_named_where_the_batch_is_fixed(limited, run_on):
    run = run_on(limited, memory_gb=0.4, rounds=9)  # a lone task may die on the same two shards three times each
    run.drive(hungry="5,45")
    status, words = run.finish()
    assert status == 1 and "2 of 64 shards failed: shard 5: UserError: its task was ended 3 times" in words, run.all_words()
    assert words.count("out of memory, as Slurm says. Raise memory_gb") == 2
    assert run.done() == SHARDS - 2


def test_the_time_limit_is_met_without_being_hit(over_a_minute, alone):
    run = over_a_minute
    status, words = run.finish(seconds=200)
    assert status == 0, run.all_words()
    assert words.count("submitted") > 1, words
    logs = "".join(path.read_text() for path in run.logs.glob("*.log"))
    assert "no time for another shard" in logs and "CANCELLED" not in logs and "DUE TO TIME LIMIT" not in logs, logs
    assert_same_dataset(alone, run.out)
