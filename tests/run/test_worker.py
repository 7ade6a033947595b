"""Whatever is done to a run, it ends in the same bytes or in words that say what to do; nothing is lost, nothing
doubled.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from comparing import assert_same_dataset, ecg_files
from fakes import fake, open_nothing
from half_done import kill_half_done, wait_for
from places import TESTS

from ecg_batch.dataset.beats import BEAT_COLUMNS
from ecg_batch.dataset.finalise import finalise
from ecg_batch.dataset.layout import FAILURES, STAGING, partial_of
from ecg_batch.dataset.receipts import missing, read_receipt
from ecg_batch.dataset.rows import ROW_COLUMNS
from ecg_batch.dataset.run import Run, read_run
from ecg_batch.dataset.verify import verify
from ecg_batch.errors import UserError
from ecg_batch.request.parse import load_request
from ecg_batch.request.query_table import NAME as QUERIES
from ecg_batch.run import worker
from ecg_batch.run.claim import HEARTBEAT, Claim, claim_shard, read_progress
from ecg_batch.run.folder import open_run
from ecg_batch.run.local import ShardsFailed, run_missing, synthesize
from ecg_batch.run.planning import make_plan
from ecg_batch.run.worker import Stopped, Worker, _handle, run_worker, stripe_order

KILLED, INTERRUPTED = -signal.SIGKILL, 130
PROGRESS = re.compile(r"[0-9]{2}:[0-9]{2}:[0-9]{2} [0-9,]+ of [0-9,]+ records \(.*")  # of a run that takes a while


def but_progress(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if not PROGRESS.fullmatch(line)]


def finish(process) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


# The same bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "staged file"), OSError("the file system gave back other samples"), ValueError()]
)
def test_taken_over_while_it_commits(make_run, error):
    """Its staging folder is half removed by the task that took the shard over: nobody's failure."""
    run = make_run()
    task, shard = Worker(run, fake()), run.shards[0]
    old = claim_shard(run, shard)
    os.utime(old.staging / HEARTBEAT, (0, 0))
    assert claim_shard(run, shard).attempt == 2
    old.staging.mkdir()
    _handle(task, shard, old, error)
    assert list((run.folder / FAILURES).iterdir()) == []
    old.release()
    own = Claim(shard, 2, run.folder / STAGING / "0.2", 0.0)
    _handle(task, shard, own, error)
    assert [path.name for path in (run.folder / FAILURES).iterdir()] == ["0.txt"], "without a newer claim it is its own"


@pytest.mark.slow
def test_three_workers_make_the_same_bytes_as_one(make_dataset, start_driver, write_request, tmp_path):
    one = make_dataset()
    status, output, errors = finish(start_driver(write_request(), tmp_path / "three", workers=3))
    assert (status, but_progress(errors)) == (0, []), errors
    assert "three: finished. 540 records in 5 shards" in output
    assert_same_dataset(one, tmp_path / "three")
    again = finish(start_driver(write_request(), tmp_path / "three", workers=3))
    assert again[0] == 0 and "nothing was left to do" in again[1]


@pytest.mark.slow
@pytest.mark.parametrize(("way", "opened"), [("fork", 1), ("spawn", 2)])
def test_workers_are_started_either_way(make_dataset, make_run, tmp_path, monkeypatch, way, opened):
    """Forked ones have what their driver has opened; on a GPU, and where a fork is not safe, each opens it for itself."""
    monkeypatch.setattr("ecg_batch.run.local.way_to_start", lambda plan: way)
    run = make_run()
    run_missing(run, 2, partial(open_and_note, tmp_path / "opened"))
    assert (tmp_path / "opened").read_text() == "x" * opened
    finalise(run)
    assert_same_dataset(make_dataset(), run.out)


def open_and_note(path: Path, plan):
    with open(path, "a") as file:
        file.write("x")
    return fake()(plan)


def test_how_a_worker_died_is_said(make_run):
    """Where all of them die at their first shard, again and again would not help."""
    with pytest.raises(UserError, match=r"worker [01] died \(SIGKILL\); killed, or out of memory\? .*fewer workers"):
        run_missing(make_run(), 2, lambda plan: die_at_once)


def die_at_once(*given):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_is_named_and_the_others_make_its_shards(make_dataset, make_run, tmp_path, caplog):
    def one_dies(*given):
        with suppress(FileExistsError):
            (tmp_path / "struck").touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
        return fake()(run.plan)(*given)

    run = make_run()
    run_missing(run, 2, lambda plan: one_dies)
    assert [said.levelname for said in caplog.records if "died (SIGKILL)" in said.message] == ["WARNING"]
    finalise(run)
    assert_same_dataset(make_dataset(), run.out)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(1, 10), (2, 4)])
def test_killed_and_resumed(make_dataset, start_driver, write_request, tmp_path, workers, kills):
    """kill -9 with some shards finished and one or two begun, of the driver alone and of all at once; then the same command to the
    end.
    """
    many = {"records": 1920, "shard": 64, "batch": 16}  # 30 shards of four batches: more than the kills let pass
    fresh, out, finished = make_dataset(**many), tmp_path / "killed", 0
    for kill in range(kills):
        process = start_driver(write_request(**many), out, workers, pause_s=0.02)
        share = (0, 0.5, 1)[kill % 3]  # of a shard; 1: all its records are made, it is being written
        found = kill_half_done(process, partial_of(out), share, finished + 1, struck=("all", "driver")[kill % 2])
        assert process.returncode == KILLED and found.finished > finished and len(found.begun) <= workers
        finished = found.finished
    assert 0 < len(missing(read_run(partial_of(out)))) < 30
    status, _, errors = finish(start_driver(write_request(**many), out, workers))
    assert status == 0, errors
    assert_same_dataset(fresh, out)


def test_a_shard_does_not_depend_on_stripes_or_order(make_run, make_dataset):
    run = make_run()
    for index in (2, 0, 1):
        run_worker(Worker(run, fake(), index, 3))
    run_missing(run, 1, fake())
    assert missing(run) == []
    dataset = make_dataset()
    for name, data in ecg_files(run.folder).items():
        assert data == (dataset / name).read_bytes()


def test_stripes_cover_all_and_steal_from_the_far_end(make_run):
    run = make_run()
    assert [shard.index for shard in stripe_order(run.shards, 1, 2)] == [1, 3, 4, 2, 0]


def test_receipts_of_other_stripes_are_listed_and_not_read(make_run, monkeypatch):
    """A thousand workers that read 25,000 each would keep a file system busy for hours."""
    run, read = make_run(), []
    run_missing(run, 1, fake(), only=frozenset({0, 1, 2, 4}))
    monkeypatch.setattr(worker, "read_receipt", lambda run, index: read.append(index) or read_receipt(run, index))
    made = []
    run_worker(Worker(run, fake(), 0, 2, on_commit=lambda: made.append(len(missing(run)))))
    assert made == [0], "shard 3 is another's, and was made all the same"
    assert {index for index in read if index in (1, 3)} == {3} and {0, 2, 4} <= set(read)
    os.truncate(run.receipt(1), 50)
    run_worker(Worker(run, fake(), 0, 2))
    assert [shard.index for shard in missing(run)] == [1]
    run_worker(Worker(run, fake(), 1, 2))
    assert missing(run) == []


def test_what_others_made_meanwhile_is_not_looked_at_one_by_one(make_run, monkeypatch):
    """A worker that ends its stripe while others go on takes one shard of theirs and then lists again."""
    run, asked = make_run(records=1280, shard=64), []  # 20 shards
    mine = Worker(run, fake(), 0, 10)  # 0 and 10

    def take(one, tools, shard):
        asked.append(shard.index)
        if shard.index == 19:  # meanwhile they make all but 5
            run_missing(run, 1, fake(), only=frozenset(range(20)) - {5})
        return sound(one, tools, shard)

    sound = worker._take
    monkeypatch.setattr(worker, "_take", lambda one, *rest: (take if one is mine else sound)(one, *rest))
    run_worker(mine)
    assert asked == [0, 10, 19, 5]
    assert missing(run) == []


# Two at once ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_drivers_on_one_folder(make_dataset, start_driver, write_request, tmp_path):
    fresh, out = make_dataset(), tmp_path / "both"
    drivers = [start_driver(write_request(), out, workers, pause_s=0.1) for workers in (1, 1)]
    for driver in drivers:
        status, output, errors = finish(driver)
        assert (status, but_progress(errors)) == (0, []) and "finished. 540 records" in output
    assert_same_dataset(fresh, out)


@pytest.mark.slow
def test_a_worker_leaves_a_shard_to_its_maker_and_takes_over_when_that_dies(make_run):
    run = make_run()
    claim = claim_shard(run, run.shards[1])
    thread = threading.Thread(target=run_worker, args=(Worker(run, fake()),))
    thread.start()
    wait_for(lambda: len(missing(run)) == 1)
    time.sleep(0.6)
    assert [shard.index for shard in missing(run)] == [1], "it did not keep away"
    claim.release()  # as if its maker had ended without a receipt
    thread.join(timeout=30)
    assert missing(run) == []


@pytest.mark.slow
def test_a_run_that_is_finished_meanwhile_ends_the_worker_quietly(make_run, write_request):
    run = make_run()

    def make_and_be_overtaken(plan, *given):
        if not run.out.exists():
            synthesize(load_request(write_request()), run.out, 1, fake())  # takes over: our claim looks dead from here
        return fake()(plan)(*given)

    def claim_others(plan):
        (run.folder / STAGING / "0.1" / "progress.json").write_text("{}")
        return partial(make_and_be_overtaken, plan)

    (run.folder / STAGING / "0.1").mkdir()
    overtaken = threading.Thread(target=run_worker, args=(Worker(run, claim_others),))
    overtaken.start()
    wait_for(lambda: any(shard.attempt == 2 for shard in read_progress(run)))
    (run.folder / STAGING / "0.2" / "progress.json").write_text("{}")
    overtaken.join(timeout=30)
    assert not overtaken.is_alive()
    assert list(verify(run.out)) == [] and not run.folder.exists()


# Ended from outside ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "signum"), [(1, signal.SIGINT), (1, signal.SIGTERM), (2, signal.SIGINT)])
def test_ctrl_c_keeps_what_is_done_and_says_how_to_carry_on(start_driver, write_request, tmp_path, workers, signum):
    out = tmp_path / "interrupted"
    process = start_driver(write_request(), out, workers, pause_s=0.3)
    wait_for(lambda: {0, 1} & {p.shard for p in read_progress(Run(None, partial_of(out))) if p.done_records})
    process.send_signal(signum)
    status, _, errors = finish(process)
    assert status == INTERRUPTED
    assert "shards are finished and kept in" in errors and "run the same command again" in errors
    assert "Traceback" not in errors
    assert os.listdir(partial_of(out) / STAGING) == []
    assert finish(start_driver(write_request(), out))[0] == 0


@pytest.mark.slow
def test_workers_end_when_their_driver_is_killed(start_driver, write_request, tmp_path):
    out = tmp_path / "orphans"
    process = start_driver(write_request(records=5400), out, 2, pause_s=0.2)
    wait_for(lambda: len(read_progress(Run(None, partial_of(out)))) == 2)
    workers = [progress.pid for progress in read_progress(Run(None, partial_of(out)))]
    process.kill()
    finish(process)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), seconds=5)
    assert os.listdir(partial_of(out) / STAGING) == []


@pytest.mark.slow
def test_a_killed_worker_is_replaced(make_dataset, start_driver, write_request, tmp_path):
    fresh, out = make_dataset(), tmp_path / "run"
    process = start_driver(write_request(), out, 2, pause_s=0.2)
    found = kill_half_done(process, partial_of(out), finished=0, struck="worker")
    assert found.begun[0].pid != process.pid and process.poll() is None, "a worker died, its driver lives"
    status, _, errors = finish(process)
    assert status == 0, errors
    assert_same_dataset(fresh, out)


def test_a_worker_told_to_stop_stops_between_batches(make_run):
    run = make_run()
    answers = iter([True, True, False])
    with pytest.raises(Stopped):
        run_worker(Worker(run, fake(), keep_going=lambda: next(answers)))
    assert len(missing(run)) == 5 and os.listdir(run.folder / STAGING) == []


# Failures -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_shard_that_fails_is_put_aside_and_the_others_go_on(make_run, make_dataset, monkeypatch, workers):
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{TESTS.parent}")
    run = make_run()
    with pytest.raises(
        ShardsFailed, match="2 of 5 shards failed: shard 1: RuntimeError: record 130 is poisoned; shard 4"
    ) as caught:
        run_missing(run, workers, fake(poisoned=(130, 539)))
    assert str(run.folder / FAILURES) in str(caught.value)
    assert [shard.index for shard in missing(run)] == [1, 4]
    assert "shard 1, records 128 to 255" in (run.folder / FAILURES / "1.txt").read_text()
    assert "Traceback" in (run.folder / FAILURES / "1.txt").read_text()
    run_missing(run, workers, fake())
    assert missing(run) == []


def test_a_generator_that_breaks_the_contract_is_a_failed_shard(make_run):
    run = make_run()

    def make_floats(plan, shard, *rest):
        ecg, rows, beats = fake()(plan)(shard, *rest)
        made = {0: (ecg.astype(np.float32), rows, beats), 1: (ecg, rows.drop("flags"), beats), 2: (ecg, rows.slice(1), beats),
                3: (ecg, rows, [beats[0].drop("t_end_ms")])}  # fmt: skip
        return made.get(shard.index, (ecg, rows, beats))

    with pytest.raises(ShardsFailed) as caught:
        run_missing(run, 1, lambda plan: partial(make_floats, plan))
    assert "the generator gave float32 (128, 12, 1000); needed int16" in str(caught.value)
    assert f"needed {BEAT_COLUMNS}" in str(caught.value)
    assert f"needed {ROW_COLUMNS}" in str(caught.value) and "not those of records 256 to 383" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_assets_that_do_not_open_are_the_users_to_mend(make_run, monkeypatch, workers):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    run = make_run()
    with pytest.raises(UserError, match="vqvae.safetensors: damaged"):
        run_missing(run, workers, open_nothing)


@pytest.mark.slow
def test_a_truncated_receipt_and_a_stray_folder_are_made_good(make_run, make_dataset, write_request):
    run = make_run()
    run_missing(run, 1, fake())
    os.truncate(run.receipt(2), 50)
    (run.folder / STAGING / "2.1").mkdir()
    (run.folder / STAGING / "2.1" / "ecg.zarr").mkdir()
    (run.folder / STAGING / "file-0123").write_text("left by a kill")
    synthesize(load_request(write_request()), run.out, 1, fake())
    assert_same_dataset(make_dataset(), run.out)


def test_a_damaged_table_of_queries_is_named_and_made_anew(make_run, write_request, tmp_path):
    (tmp_path / "t.csv").write_text("label,age\n" + "".join(f"NORM,{age}\nAFIB,{age}\n" for age in range(100)))
    table = {"mix": None, "records": None, "table": "t.csv"}
    run = make_run(**table)
    data = bytearray((run.folder / QUERIES).read_bytes())
    data[30] ^= 1
    (run.folder / QUERIES).write_bytes(data)
    with pytest.raises(ShardsFailed, match=rf"{QUERIES}: damaged .*Delete it and run the same command again"):
        run_missing(run, 1, fake())
    (run.folder / QUERIES).unlink()
    synthesize(load_request(write_request(**table)), run.out, 1, fake())
    assert list(verify(run.out)) == []


# File systems ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_stops_the_run_and_loses_nothing(mount, make_dataset, start_driver, write_request, workers):
    disk = mount("mounted", "4m")  # 5.3 MB are needed
    status, _, errors = finish(start_driver(write_request(), disk / "run", workers))
    assert status == 2 and "the disk (or quota) is full" in errors and "run the same command again" in errors, errors
    assert "Traceback" not in errors
    folder = partial_of(disk / "run")
    left = len(missing(read_run(folder)))
    assert 0 < left < 5 and os.listdir(folder / STAGING) == []
    subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
    assert finish(start_driver(write_request(), disk / "run", workers))[0] == 0
    assert_same_dataset(make_dataset(), disk / "run")


@pytest.mark.slow
def test_a_read_only_disk_is_named_and_can_be_read(mount, make_run, write_request, start_driver):
    disk = mount("mounted", "40m")
    synthesize(load_request(write_request()), disk / "done", 1, fake())
    open_run(*make_plan(load_request(write_request())), disk / "begun")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert list(verify(disk / "done")) == []
    for name in ("begun", "new"):
        status, _, errors = finish(start_driver(write_request(), disk / name))
        assert status == 2 and "cannot be written" in errors and "Traceback" not in errors, errors
