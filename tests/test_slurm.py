"""Runs on a real Slurm cluster end in the bytes of a run in one process, whatever befalls tasks, nodes, Slurm or driver."""

import pytest
from slurm.lab import new_lab, why_not
from slurm_runs import RUN, SHARDS, SlurmRun
from test_worker import assert_same_dataset

from fakes import fake
from ecg_batch.execute import synthesize
from ecg_batch.request import load_request

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = new_lab(tmp_path_factory.mktemp("lab"))
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


@pytest.fixture
def alone(write_request, tmp_path):
    """The same run in one process."""
    synthesize(load_request(write_request(**RUN)), tmp_path / "alone", 1, fake())
    return tmp_path / "alone"


def test_a_plain_run(lab, run_on, alone):
    run = run_on(lab)
    run.drive()
    status, words = run.finish()
    assert status == 0, run.all_words()
    assert f"{SHARDS} shards" in words
    assert_same_dataset(alone, run.out)
    assert len(list(run.logs.iterdir())) <= 4, "one log for each node, and nothing of submitit's"
