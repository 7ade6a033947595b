"""--help and status answer at once: heavy imports stay out of what plans, reads and prints help."""

import subprocess
import sys
import time

import pytest
from conftest import TESTS

JOBS = TESTS.parent / "jobs"
HEAVY = ("numpy", "torch", "zarr", "pyarrow", "scipy", "submitit", "pandas")


def fastest_s(*command) -> float:
    """The best of three, since other work on the machine only ever adds."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, *map(str, command)], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize("job", sorted(path.name for path in JOBS.glob("*.py")))
def test_help(job):
    assert fastest_s(JOBS / job, "--help") < 0.5


def test_status(make_dataset, make_run):
    assert fastest_s(JOBS / "status.py", make_dataset()) < 0.5
    assert fastest_s(JOBS / "status.py", make_run()[2]) < 0.5


@pytest.mark.parametrize("module", ["ecg_batch", "ecg_batch.status", "ecg_batch.plan", "ecg_batch.commit", "ecg_batch.request"])
def test_light_modules_import_nothing_heavy(module):
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
