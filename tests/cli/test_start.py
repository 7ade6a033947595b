"""What a process imports until its first record: each of these takes from 0.1 s to 2 s, and no record needs it."""

import os
import subprocess
import sys

import pytest
from kernel_builds import needs_kernel
from places import ROOT

HEAVY = ("torch", "scipy.signal", "scipy.stats", "pandas", "sleepecg", "zarr", "asyncio", "fsspec", "matplotlib", "submitit")
HEAVY += ("h5py", "wfdb", "jinja2")
LOADED = "print([name for name in {heavy!r} if name in sys.modules])"
COMMAND = "import sys; from ecg_batch.cli.main import main; assert main(sys.argv[1:]) == 0; " + LOADED
RECORDS = """
import sys
from pathlib import Path
from ecg_batch.arrow import leave_pandas_out
from ecg_batch.dataset.layout import Shard
from ecg_batch.request.parse import load_request
from ecg_batch.run.planning import make_plan
from ecg_batch.run import local
from ecg_batch.synthesis.generate import open_generator
from ecg_batch.synthesis.source import query_source
leave_pandas_out()
plan, _ = make_plan(load_request(Path(sys.argv[1])))
ecg, rows, beats = open_generator(plan)(Shard(0, 0, 64), 64, query_source(plan.request, Path("none")), lambda done: None)
assert len(ecg) == len(rows) == 64
"""


def said(code: str, *words, heavy=HEAVY) -> str:
    command = [sys.executable, "-c", code.replace("{heavy!r}", repr(heavy)), *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.splitlines()[-1]


@needs_kernel
@pytest.mark.parametrize("config", ["demo", "rare"])
def test_records_are_made_without_what_is_slow_to_import(config):
    assert said(RECORDS + LOADED, ROOT / "configs" / f"{config}.yaml") == "[]"


@needs_kernel
@pytest.mark.slow
def test_nor_does_a_whole_run_or_its_picture_need_it(tmp_path):
    """In the run's own process: its one worker, the writing and the finishing."""
    words = ("--out", tmp_path / "run", "--set", "records=64")
    assert said(COMMAND, "synthesize", ROOT / "configs/demo.yaml", *words) == "[]"
    assert said(COMMAND, "plot", tmp_path / "run", heavy=tuple(name for name in HEAVY if name != "matplotlib")) == "[]"


def test_pandas_that_was_left_out_is_there_for_whoever_wants_it():
    code = (
        "import sys; from ecg_batch.arrow import leave_pandas_out; leave_pandas_out(); import pyarrow as pa; "
        "table = pa.table({'a': ['x', None]}); assert 'pandas' not in sys.modules; frame = table.to_pandas(); "
        "print(pa.Table.from_pandas(frame).equals(table))"
    )
    assert said(code) == "True"
