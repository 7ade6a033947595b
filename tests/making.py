"""The real system, with the bundled bank and models, made small: requests, plans, shards in this process, runs as processes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from places import ROOT

from ecg_batch.request.parse import load_request
from ecg_batch.run.planning import make_plan
from ecg_batch.synthesis.generate import open_generator
from ecg_batch.synthesis.source import query_source

MIX = {
    "labels": {"NORM": 0.25, "MI": 0.25, "STTC": 0.15, "CD": 0.15, "HYP": 0.1, "AFIB": 0.1},
    "hr_bpm": {"uniform": [50, 110]},
    "age": {"uniform": [25, 85]},
    "sex": {"female": 0.5, "male": 0.5},
}
PUBLISHED = {"texture": "decoded", "alpha": 0.6, "prd_limit_pct": 10, "lowpass_hz": 40}  # as configs/published.yaml
REQUEST = {"records": 448, "seed": 11, "batch": 64, "shard": 128, "mix": MIX}


def write_request(folder: Path, **changes) -> Path:
    path = folder / f"request-{len(list(folder.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump({**REQUEST, **changes}))
    return path


def plan_of(folder: Path, **changes):
    return make_plan(load_request(write_request(folder, **changes)))[0]


def make(plan, shards=None):
    """(ecg, rows as columns) of some shards of a plan, in this process."""
    return make_all(plan, shards)[:2]


def make_all(plan, shards=None):
    """(ecg, rows as columns, beats as a table) of some shards of a plan, in this process."""
    make_shard, queries_of = open_generator(plan), query_source(plan.request, Path("unused"))
    made = [make_shard(shard, plan.request.batch, queries_of, lambda done: None) for shard in shards or plan.shards]
    columns = {name: sum((rows[name].to_pylist() for _, rows, _ in made), []) for name in made[0][1].column_names}
    return np.concatenate([ecg for ecg, _, _ in made]), columns, pa.concat_tables([each for _, _, beats in made for each in beats])


def start(request: Path, out: Path, workers: int) -> subprocess.Popen:
    command = [sys.executable, "jobs/synthesize.py", request, "--out", out, "--workers", str(workers)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    return output


# VmHWM: ru_maxrss of a process begins with what its parent had
PEAK_OF = """
import runpy, sys
from pathlib import Path
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


def assert_memory_does_not_grow(small: Path, large: Path) -> None:
    """The peak of one worker on each request: within 10 %, and under 2 GiB."""
    peaks_mib = []
    for request in (small, large):
        command = [sys.executable, "-c", PEAK_OF, "jobs/synthesize.py", request, "--out", request.with_suffix(".run")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks_mib.append(int(done.stdout.split()[-1]))
    assert peaks_mib[1] < 1.1 * peaks_mib[0] and max(peaks_mib) < 2048, peaks_mib
