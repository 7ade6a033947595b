"""Whatever is done to a run, it ends in the same bytes or in words that say what to do; nothing is lost, nothing
doubled.
"""

import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import TESTS
from fakes import fake

from ecg_batch.claim import HEARTBEAT, Claim, claim_shard, read_progress
from ecg_batch.commit import missing, receipt_path
from ecg_batch.errors import UserError
from ecg_batch.execute import ShardsFailed, run_missing, synthesize
from ecg_batch.plan import FAILURES, STAGING, make_plan, open_run, partial_of, read_plan
from ecg_batch.query_table import NAME as QUERIES
from ecg_batch.request_file import load_request
from ecg_batch.rows import ROW_COLUMNS
from ecg_batch.status import read_manifest
from ecg_batch.verify import verify
from ecg_batch.worker import Generator, Stopped, Task, _handle, run_worker, stripe_order

KILLED, INTERRUPTED = -signal.SIGKILL, 130


def ecg_files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in (out / "ecg.zarr").rglob("*") if path.is_file()}


def assert_same_dataset(one: Path, two: Path) -> None:
    assert ecg_files(one) == ecg_files(two)
    assert read_manifest(one)["content_root"] == read_manifest(two)["content_root"]
    assert (one / "records.parquet").read_bytes() == (two / "records.parquet").read_bytes()
    assert list(verify(two)) == []


def wait_for(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def finish(process) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


# The same bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "staged file"), OSError("the file system gave back other samples"), ValueError()]
)
def test_taken_over_while_it_commits(make_run, error):
    """Its staging folder is half removed by the task that took the shard over: nobody's failure."""
    plan, folder, _ = make_run()
    task, shard = Task(plan, folder, fake()), plan.shards[0]
    old = claim_shard(folder, shard)
    os.utime(old.staging / HEARTBEAT, (0, 0))
    assert claim_shard(folder, shard).attempt == 2
    old.staging.mkdir()
    _handle(task, shard, old, error)
    assert list((folder / FAILURES).iterdir()) == []
    old.release()
    own = Claim(shard, 2, folder / STAGING / "0.2", 0.0)
    _handle(task, shard, own, error)
    assert [path.name for path in (folder / FAILURES).iterdir()] == ["0.txt"], "without a newer claim it is its own"


def test_three_workers_make_the_same_bytes_as_one(make_dataset, start_driver, write_request, tmp_path):
    one = make_dataset()
    status, output, errors = finish(start_driver(write_request(), tmp_path / "three", workers=3))
    assert (status, errors) == (0, ""), errors
    assert "three: finished. 540 records in 5 shards" in output
    assert_same_dataset(one, tmp_path / "three")
    again = finish(start_driver(write_request(), tmp_path / "three", workers=3))
    assert again[0] == 0 and "nothing was left to do" in again[1]


@pytest.mark.parametrize(("workers", "kills"), [(1, 10), (2, 4)])
def test_killed_and_resumed(make_dataset, start_driver, write_request, tmp_path, workers, kills):
    """kill -9 of the driver at random moments within the work, then the same command to the end."""
    many = {
        "records": 1920,
        "shard": 64,
    }  # 30 shards of about 0.15 s, the first of a process 0.5 s: more than kills let pass
    fresh, out, chance = make_dataset(**many), tmp_path / "killed", random.Random(workers)
    folder = partial_of(out)
    for kill in range(kills):
        process = start_driver(write_request(**many), out, workers, pause_s=0.05)
        wait_for(lambda pid=process.pid: any(is_child(progress.pid, pid) for progress in read_progress(folder)))
        time.sleep(chance.uniform(0, 0.9))
        if kill == kills - 1:  # on a busy machine none may have been made so far
            wait_for(lambda: any((folder / "receipts").iterdir()))
        process.kill()
        assert finish(process)[0] == KILLED
    assert 0 < len(missing(read_plan(folder), folder)) < 30
    status, _, errors = finish(start_driver(write_request(**many), out, workers))
    assert status == 0, errors
    assert_same_dataset(fresh, out)


def is_child(pid: int, of: int) -> bool:
    """Whether a process is another one, or one of its grandchildren (submitit's controller stands between)."""
    try:
        while pid > 1 and pid != of:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return False
    return pid == of


def test_a_shard_does_not_depend_on_stripes_or_order(make_run, make_dataset):
    plan, folder, out = make_run()
    for index in (2, 0, 1):
        run_worker(Task(plan, folder, fake(), index, 3))
    run_missing(plan, folder, 1, fake())
    assert missing(plan, folder) == []
    dataset = make_dataset()
    for name, data in ecg_files(folder).items():
        assert data == (dataset / name).read_bytes()


def test_stripes_cover_all_and_steal_from_the_far_end(make_run):
    plan, _, _ = make_run()
    assert [shard.index for shard in stripe_order(plan.shards, 1, 2)] == [1, 3, 4, 2, 0]


# Two at once ----------------------------------------------------------------------------------------------------------


def test_two_drivers_on_one_folder(make_dataset, start_driver, write_request, tmp_path):
    fresh, out = make_dataset(), tmp_path / "both"
    drivers = [start_driver(write_request(), out, workers, pause_s=0.1) for workers in (1, 1)]
    for driver in drivers:
        status, output, errors = finish(driver)
        assert (status, errors) == (0, "") and "finished. 540 records" in output
    assert_same_dataset(fresh, out)


def test_a_worker_leaves_a_shard_to_its_maker_and_takes_over_when_that_dies(make_run):
    plan, folder, _ = make_run()
    claim = claim_shard(folder, plan.shards[1])
    thread = threading.Thread(target=run_worker, args=(Task(plan, folder, fake()),))
    thread.start()
    wait_for(lambda: len(missing(plan, folder)) == 1)
    time.sleep(0.6)
    assert [shard.index for shard in missing(plan, folder)] == [1], "it did not keep away"
    claim.release()  # as if its maker had ended without a receipt
    thread.join(timeout=30)
    assert missing(plan, folder) == []


def test_a_run_that_is_finished_meanwhile_ends_the_worker_quietly(make_run, write_request):
    plan, folder, out = make_run()

    def synthesize_and_be_overtaken(plan, assets, shard, queries_of, on_batch):
        if not out.exists():
            synthesize(load_request(write_request()), out, 1, fake())  # takes over: our claim looks dead from here
        return fake().synthesize_shard(plan, assets, shard, queries_of, on_batch)

    claim_others = Generator(
        lambda plan: (folder / STAGING / "0.1" / "progress.json").write_text("{}"), synthesize_and_be_overtaken
    )
    (folder / STAGING / "0.1").mkdir()
    overtaken = threading.Thread(target=run_worker, args=(Task(plan, folder, claim_others),))
    overtaken.start()
    wait_for(lambda: read_progress(folder) and read_progress(folder)[0].attempt == 2)
    (folder / STAGING / "0.2" / "progress.json").write_text("{}")
    overtaken.join(timeout=30)
    assert not overtaken.is_alive()
    assert list(verify(out)) == [] and not folder.exists()


# Ended from outside ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "signum"), [(1, signal.SIGINT), (1, signal.SIGTERM), (2, signal.SIGINT)])
def test_ctrl_c_keeps_what_is_done_and_says_how_to_carry_on(start_driver, write_request, tmp_path, workers, signum):
    out = tmp_path / "interrupted"
    process = start_driver(write_request(), out, workers, pause_s=0.3)
    wait_for(lambda: {0, 1} & {p.shard for p in read_progress(partial_of(out)) if p.done_records})
    process.send_signal(signum)
    status, _, errors = finish(process)
    assert status == INTERRUPTED
    assert "shards are finished and kept in" in errors and "run the same command again" in errors
    assert "Traceback" not in errors
    assert os.listdir(partial_of(out) / STAGING) == []
    assert finish(start_driver(write_request(), out))[0] == 0


def test_workers_end_when_their_driver_is_killed(start_driver, write_request, tmp_path):
    out = tmp_path / "orphans"
    process = start_driver(write_request(records=5400), out, 2, pause_s=0.2)
    wait_for(lambda: len(read_progress(partial_of(out))) == 2)
    workers = [progress.pid for progress in read_progress(partial_of(out))]
    process.kill()
    finish(process)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), seconds=5)
    assert os.listdir(partial_of(out) / STAGING) == []


def test_a_killed_worker_is_replaced(make_dataset, start_driver, write_request, tmp_path):
    fresh, out = make_dataset(), tmp_path / "run"
    process = start_driver(write_request(), out, 2, pause_s=0.2)
    wait_for(lambda: len(read_progress(partial_of(out))) == 2)
    os.kill(read_progress(partial_of(out))[0].pid, signal.SIGKILL)
    status, _, errors = finish(process)
    assert status == 0, errors
    assert_same_dataset(fresh, out)


def test_a_worker_told_to_stop_stops_between_batches(make_run):
    plan, folder, _ = make_run()
    answers = iter([True, True, False])
    with pytest.raises(Stopped):
        run_worker(Task(plan, folder, fake(), keep_going=lambda: next(answers)))
    assert len(missing(plan, folder)) == 5 and os.listdir(folder / STAGING) == []


# Failures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_shard_that_fails_is_put_aside_and_the_others_go_on(make_run, make_dataset, monkeypatch, workers):
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{TESTS.parent}")
    plan, folder, out = make_run()
    with pytest.raises(
        ShardsFailed, match="2 of 5 shards failed: shard 1: RuntimeError: record 130 is poisoned; shard 4"
    ) as caught:
        run_missing(plan, folder, workers, fake(poisoned=(130, 539)))
    assert str(folder / FAILURES) in str(caught.value)
    assert [shard.index for shard in missing(plan, folder)] == [1, 4]
    assert "shard 1, records 128 to 255" in (folder / FAILURES / "1.txt").read_text()
    assert "Traceback" in (folder / FAILURES / "1.txt").read_text()
    run_missing(plan, folder, workers, fake())
    assert missing(plan, folder) == []


def test_a_generator_that_breaks_the_contract_is_a_failed_shard(make_run):
    plan, folder, _ = make_run()

    def synthesize_floats(plan, assets, shard, queries_of, on_batch):
        ecg, rows = fake().synthesize_shard(plan, assets, shard, queries_of, on_batch)
        return {0: (ecg.astype(np.float32), rows), 1: (ecg, rows.drop("flags")), 2: (ecg, rows.slice(1))}.get(
            shard.index, (ecg, rows)
        )

    with pytest.raises(ShardsFailed) as caught:
        run_missing(plan, folder, 1, Generator(lambda plan: None, synthesize_floats))
    assert "the generator gave float32 (128, 12, 1000); needed int16" in str(caught.value)
    assert f"needed {ROW_COLUMNS}" in str(caught.value) and "not those of records 256 to 383" in str(caught.value)


def open_nothing(plan):
    raise UserError("models/vqvae.safetensors: damaged. Train it again")


@pytest.mark.parametrize("workers", [1, 2])
def test_assets_that_do_not_open_are_the_users_to_mend(make_run, monkeypatch, workers):
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}{os.pathsep}{TESTS.parent}")
    plan, folder, _ = make_run()
    with pytest.raises(UserError, match="vqvae.safetensors: damaged"):
        run_missing(plan, folder, workers, Generator(open_nothing, fake().synthesize_shard))


def test_a_truncated_receipt_and_a_stray_folder_are_made_good(make_run, make_dataset, write_request):
    plan, folder, out = make_run()
    run_missing(plan, folder, 1, fake())
    os.truncate(receipt_path(folder, 2), 50)
    (folder / STAGING / "2.1").mkdir()
    (folder / STAGING / "2.1" / "ecg.zarr").mkdir()
    (folder / STAGING / "file-0123").write_text("left by a kill")
    synthesize(load_request(write_request()), out, 1, fake())
    assert_same_dataset(make_dataset(), out)


def test_a_damaged_table_of_queries_is_named_and_made_anew(make_run, write_request, tmp_path):
    (tmp_path / "t.csv").write_text("label,age\n" + "".join(f"NORM,{age}\nAFIB,{age}\n" for age in range(100)))
    table = {"mix": None, "records": None, "table": "t.csv"}
    plan, folder, out = make_run(**table)
    data = bytearray((folder / QUERIES).read_bytes())
    data[30] ^= 1
    (folder / QUERIES).write_bytes(data)
    with pytest.raises(ShardsFailed, match=rf"{QUERIES}: damaged .*Delete it and run the same command again"):
        run_missing(plan, folder, 1, fake())
    (folder / QUERIES).unlink()
    synthesize(load_request(write_request(**table)), out, 1, fake())
    assert list(verify(out)) == []


# File systems ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def mount(tmp_path):
    """mount(options) -> a small tmpfs. Skips where that is not allowed."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def do(*options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a tmpfs here (needs root): {done.stderr.strip()}")
        return folder

    yield do
    subprocess.run(["umount", "-l", folder], capture_output=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_stops_the_run_and_loses_nothing(mount, make_dataset, start_driver, write_request, workers):
    disk = mount("size=4m")  # 5.3 MB are needed
    status, _, errors = finish(start_driver(write_request(), disk / "run", workers))
    assert status == 2 and "the disk (or quota) is full" in errors and "run the same command again" in errors, errors
    assert "Traceback" not in errors
    folder = partial_of(disk / "run")
    left = len(missing(read_plan(folder), folder))
    assert 0 < left < 5 and os.listdir(folder / STAGING) == []
    subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
    assert finish(start_driver(write_request(), disk / "run", workers))[0] == 0
    assert_same_dataset(make_dataset(), disk / "run")


def test_a_read_only_disk_is_named_and_can_be_read(mount, make_run, write_request, start_driver):
    disk = mount("size=40m")
    synthesize(load_request(write_request()), disk / "done", 1, fake())
    open_run(*make_plan(load_request(write_request())), disk / "begun")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert list(verify(disk / "done")) == []
    for name in ("begun", "new"):
        status, _, errors = finish(start_driver(write_request(), disk / name))
        assert status == 2 and "cannot be written" in errors and "Traceback" not in errors, errors
