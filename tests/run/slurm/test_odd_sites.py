"""Sites whose Slurm answers late, not at all, or with rules of its own: the driver waits, asks for less, or ends in their words.

The tools of Slurm are small scripts here, first on the PATH: they are the border that a site changes.
"""

import logging
import os
import stat
from pathlib import Path

import pytest
from fakes import fake

from ecg_batch.errors import UserError
from ecg_batch.run.claim import claim_shard, read_progress
from ecg_batch.run.slurm import driver as driving
from ecg_batch.run.slurm import queue as asking
from ecg_batch.run.slurm.cluster import SUBMITTED, Cluster
from ecg_batch.run.slurm.driver import Driver, job_name

TOOLS = {
    # an id for each array, whose size is noted; more tasks in all than $SITE/most are refused with the words in $SITE/words
    "sbatch": """
script="${@: -1}"; last=$(grep -oP '(?<=--array=0-)[0-9]+' "$script"); size=$((${last:-0} + 1))
have=$(awk '{n += $2} END {print n + 0}' "$SITE/submitted")
if [ $((have + size)) -gt "$(cat "$SITE/most")" ]; then cat "$SITE/words" >&2; exit 1; fi
id=$((100 + 100 * $(wc -l <"$SITE/submitted"))); echo "$id $size" >>"$SITE/submitted"; echo "Submitted batch job $id"
""",
    # what $SITE/queue holds, for the question about ended tasks nothing; fails with the words in $SITE/broken
    "squeue": """
echo "$*" >>"$SITE/asked"
[ -e "$SITE/broken" ] && { cat "$SITE/broken" >&2; exit 1; }
case "$*" in *ArrayJobID*) cat "$SITE/queue" ;; esac
""",
    "scancel": 'echo "$*" >>"$SITE/cancelled"',
    "scontrol": 'echo "MaxArraySize            = 1001"',
    "srun": "exit 1",
}


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The folder of a site: what its tools note, and what they are to say."""
    tools, folder = tmp_path / "tools", tmp_path / "site"
    tools.mkdir()
    folder.mkdir()
    for name, text in TOOLS.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        os.chmod(tools / name, stat.S_IRWXU)
    for name in ("submitted", "queue", "asked", "cancelled"):
        (folder / name).touch()
    (folder / "most").write_text("1000")
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SITE", str(folder))
    monkeypatch.setattr(asking, "_silent", {})
    return folder


@pytest.fixture
def driver(make_run, site):
    """A driver of five shards, which wants a task for each."""
    driver = Driver(make_run(), Cluster(shards_per_task=1, most_tasks=8), fake(), None)
    (driver.logs / SUBMITTED).mkdir(parents=True)
    return driver


def sizes(site: Path) -> list[int]:
    """Of the arrays that were submitted."""
    return [int(line.split()[1]) for line in (site / "submitted").read_text().splitlines()]


def show(site: Path, *lines: str) -> None:
    (site / "queue").write_text("".join(f"{line}\n" for line in lines))


# Late answers ---------------------------------------------------------------------------------------------------------


def test_what_sbatch_took_counts_until_squeue_has_shown_it(driver, site, monkeypatch):
    for _ in range(6):
        driver.step()
    assert sizes(site) == [5], "an answer out of a cache knows nothing of it"
    show(site, *(f"{100 + task} 100 0 R None" for task in range(5)))
    driver.step()
    assert sizes(site) == [5] and driver.unseen == {}
    show(site)
    driver.step()
    assert sizes(site) == [5, 5], "now they are gone"
    monkeypatch.setattr(driving, "UNSEEN_S", 0)
    driver.step()
    assert sizes(site) == [5, 5, 5], "nothing is waited for without end"


def test_ended_tasks_that_slurm_remembers_were_seen(driver, site):
    driver.step()
    show(site, *(f"{100 + task} 100 0 F NonZeroExitCode" for task in range(5)))
    driver.step()
    assert sizes(site) == [5, 5]


def test_an_old_answer_frees_no_claim_and_removes_no_file(driver, site, monkeypatch):
    driver.step()
    files = sorted(path.name for path in (driver.logs / SUBMITTED).iterdir())
    monkeypatch.setenv("SLURM_JOB_ID", "101")
    claim = claim_shard(driver.run, driver.run.shards[0])
    driver.step()
    assert read_progress(driver.run)[0].is_fresh and claim.staging.exists()
    assert sorted(path.name for path in (driver.logs / SUBMITTED).iterdir()) == files != []
    show(site, "102 100 0 R None")
    driver.step()
    assert read_progress(driver.run)[0].is_freed, "an answer of today, without its maker"


# No answers -----------------------------------------------------------------------------------------------------------


def test_the_first_silence_of_squeue_is_a_line_with_its_words(driver, site, caplog):
    (site / "broken").write_text("slurm_load_jobs error: Protocol authentication error\n")
    for _ in range(3):
        driver.step()
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == ["squeue gives no answer (status 1: slurm_load_jobs error: Protocol authentication error); it is asked again"]
    (site / "broken").unlink()
    driver.step()
    (site / "broken").write_text("slurm_load_jobs error: Unable to contact slurm controller\n")
    driver.step()
    assert sum("Unable to contact" in record.getMessage() for record in caplog.records) == 1, "after an answer, told anew"
    driver.last_answer -= driving.PATIENCE_S + 1
    with pytest.raises(UserError, match=r"squeue has not answered for 60 min \(status 1: .*Unable to contact slurm controller\)"):
        driver.step()


# Limits ---------------------------------------------------------------------------------------------------------------

NAMED = "sbatch: error: AssocMaxSubmitJobLimit\n"
ALL_LIMITS = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy "
    "(job submit limit, user's size and/or time limits)\n"
)
WRONG = (
    "sbatch: error: invalid partition specified: nowhere\n"
    "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
)


@pytest.mark.parametrize("words", [NAMED + ALL_LIMITS, "sbatch: error: QOSMaxSubmitJobPerUserLimit\n" + ALL_LIMITS, ALL_LIMITS])
def test_fewer_tasks_are_submitted_where_so_many_are_not_let_in(words, driver, site):
    (site / "most").write_text("2")
    (site / "words").write_text(words)
    driver.step()
    assert sizes(site) == [2]


def test_a_limit_is_waited_for_and_named_with_its_key(driver, site, caplog, monkeypatch):
    (site / "most").write_text("0")
    (site / "words").write_text(NAMED + ALL_LIMITS)
    for _ in range(8):
        driver.limited_until = 0
        driver.step()
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1 and "AssocMaxSubmitJobLimit" in told[0] and "most_tasks is 8 in the cluster file" in told[0]
    asked = driver.limited_until
    driver.step()
    assert driver.limited_until == asked, "sbatch is left alone for a while"
    (site / "most").write_text("1000")
    driver.limited_until = 0
    driver.step()
    assert sizes(site) == [5] and driver.limited_since is None
    driver.unseen, driver.limited_since = {}, -driving.LIMITED_S
    (site / "most").write_text("0")
    monkeypatch.setattr(driving, "UNSEEN_S", 0)
    with pytest.raises(UserError, match=r"let in no task for 24 h: AssocMaxSubmitJobLimit; .*most_tasks is 8"):
        driver.limited_since = driver.last_answer - driving.LIMITED_S - 1
        driver.step()


@pytest.mark.parametrize(("words", "says"), [
    (WRONG, "invalid partition specified: nowhere; Batch job submission failed: Invalid partition.* Change the cluster file and"),
    ("sbatch: error: QOSMaxWallDurationPerJobLimit\n" + ALL_LIMITS, "QOSMaxWallDurationPerJobLimit; .*Change the cluster file and"),
    (ALL_LIMITS, r"\(job submit limit.*Change the cluster file \(most_tasks, where it is a limit of jobs in the queue\)"),
])  # fmt: skip
def test_what_no_waiting_mends_ends_the_run_with_all_words(words, says, driver, site):
    (site / "most").write_text("0")
    (site / "words").write_text(words)
    with pytest.raises(UserError, match=says):
        for _ in range(driving.REFUSALS):
            driver.step()
    assert list((driver.logs / SUBMITTED).glob("*.pkl")) == [], "submitit leaves the pickles of what was refused"


# Reasons that do not end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["JobHoldMaxRequeue", "DependencyNeverSatisfied", "BadConstraints"])
def test_tasks_that_wait_in_vain_are_cancelled_and_end_the_run_with_the_reason(reason, driver, site, caplog):
    with pytest.raises(UserError, match=rf"3 rounds of tasks in a row made no shard; .*a reason that does not end: {reason}"):
        for number in range(1, 9):
            driver.step()
            show(site, *(f"{100 * number + task} {100 * number} 0 PD {reason}" for task in range(5)))
    assert "--state=PENDING 100 101 102 103 104" in (site / "cancelled").read_text()
    assert len([record for record in caplog.records if "a reason that does not end" in record.getMessage()]) == 1


def test_held_tasks_are_the_users_and_are_left_alone(driver, site):
    driver.step()
    show(site, *(f"{100 + task} 100 0 PD JobHeldUser" for task in range(5)))
    driver.step()
    assert (site / "cancelled").read_text() == "" and sizes(site) == [5, 5]


# Names ----------------------------------------------------------------------------------------------------------------


def test_the_queue_is_asked_by_number_whatever_the_user_is_called(driver, site, monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "nobody")
    driver.step()
    driver.close()
    asked = (site / "asked").read_text().splitlines()
    assert asked and all(f"--user={os.getuid()} --name={driver.name} " in f"{line} " for line in asked)


def test_the_same_request_in_two_folders_has_two_names(make_run, tmp_path):
    run = make_run()
    (tmp_path / "link").symlink_to(run.out)
    names = {job_name(run.plan, path, None) for path in (run.out, run.folder, tmp_path / "link")}
    assert len(names) == 1 and names != {job_name(run.plan, tmp_path / "other", None)}
    assert next(iter(names)).startswith(f"ecg-{run.plan.run_id[:12]}-")


def test_a_claim_by_a_clock_ahead_is_made_old_for_tasks_that_come_anew(driver, site):
    """A task sees it for the first time and would take it for fresh; the driver has watched it."""
    claim = claim_shard(driver.run, driver.run.shards[0])
    path = claim.staging / "progress.json"
    path.write_text(path.read_text().replace('"host": "', '"host": "far-'))
    os.utime(path, (path.stat().st_mtime + 3600,) * 2)
    driver.step()
    assert sizes(site) == [4], "somebody outside of Slurm seems to be at it"
    from ecg_batch.run import claim as claims

    claims._watched[str(path)].since -= claims.STALE_S
    driver.step()
    assert not read_progress(driver.run)[0].is_fresh, "to the driver itself, whose own hand is no beat"
    claims._watched.clear()
    assert not read_progress(driver.run)[0].is_fresh, "to a task that comes anew"
