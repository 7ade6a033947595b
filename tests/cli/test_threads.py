"""One thread a process, on whichever core is free; processes as many as there are cores for them."""

import os
import subprocess
import sys

import pytest
from places import ROOT

from ecg_batch.cli.threads import BINDING, one_thread
from ecg_batch.kernels import build
from ecg_batch.pool import usable_cores


@pytest.mark.parametrize("name", BINDING)
def test_rules_that_put_every_process_on_the_first_core_are_dropped(name, monkeypatch):
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "8")
    monkeypatch.setenv(name, "true")
    one_thread()
    assert name not in os.environ and os.environ["OMP_NUM_THREADS"] == "1"


def test_cores_are_those_of_the_allocation():
    code = "import os; from ecg_batch.pool import usable_cores; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code += "; print(usable_cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout == "1\n" and 1 <= usable_cores() <= os.cpu_count()


NOT_BUILT = "none were built: install a wheel, which has them, or a C++ compiler"


def test_kernels_of_another_version_of_the_code_are_not_used(monkeypatch):
    if not build.kernel():
        pytest.skip("no kernels were built")
    build.kernel.cache_clear()
    monkeypatch.setattr(build, "VERSION", build.VERSION + 1)
    try:
        assert build.kernel() is None and "another version of this code; install ecg-batch again" in build.why_plain()
    finally:
        build.kernel.cache_clear()


@pytest.mark.parametrize(("builds", "says"), [
    ((), f"there are none for {build.MACHINE}"), ((("_absent", 4),), NOT_BUILT), ((("_damaged", 4),), "file too short"),
])  # fmt: skip
def test_why_there_are_no_kernels_is_said(builds, says, tmp_path, monkeypatch):
    (tmp_path / "_damaged.so").write_bytes(b"\x7fELF")
    monkeypatch.setattr(build, "BUILDS", builds)
    monkeypatch.setattr(build, "_file", lambda name: tmp_path / f"{name}.so")
    build.kernel.cache_clear()
    try:
        assert says in build.why_plain() and build.kernels() == "plain"
    finally:
        build.kernel.cache_clear()


def test_nothing_is_said_where_there_are_kernels():
    assert bool(build.why_plain()) == (build.kernel() is None)
