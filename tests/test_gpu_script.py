"""benchmarks/gpu.sh where there is no GPU: its rehearsal runs every step, and its time is kept."""

import json
import os
import subprocess
import sys

import pytest
from places import ROOT

from benchmarks import gpu, runs
from ecg_batch.request.parse import load_request


def rehearsed(out, **environment) -> dict:
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "--rehearse"]
    environment = {**os.environ, "OUT": str(out), "PYTHON": sys.executable, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((out / "gpu.json").read_text())


@pytest.mark.slow
def test_every_step_runs_at_toy_size(tmp_path):
    figures = rehearsed(tmp_path)
    ended = {step: of["ended"] for step, of in figures["steps"].items() if step != "kernels"}  # compiled where they are not yet
    assert ended == dict.fromkeys(["about", "tests", *gpu.MEASURED], "well"), (tmp_path / "log.txt").read_text()
    assert "no figure means anything" in figures["about"]["rehearsal"]
    for part in gpu.MEASURED:
        assert figures[part] and all(row["unit"] and isinstance(row["value"], float) for row in figures[part])
    assert {"ours", "plain torch loop"} < {row["what"] for row in figures["decode"]}
    assert "CPU" in (tmp_path / "profile.txt").read_text()


def test_no_step_begins_when_the_time_is_over(tmp_path):
    figures = rehearsed(tmp_path, BUDGET_S="0")
    assert list(figures) == ["steps"] and {of["ended"] for of in figures["steps"].values()} == {"not begun: the 0 s were over"}


def test_whole_runs_on_a_gpu_decode_their_texture(monkeypatch):
    """Of recorded texture there is nothing for a GPU to do, and a request for it is refused."""
    asked = []
    monkeypatch.setattr(runs, "_run_seconds", lambda out, workers, records, words: asked.append(words) or 5 + records / 1024)
    rows = runs.measure(1, "cuda", 4096)
    assert rows[0]["value"] == 1024 and rows[-1]["what"] == "1 worker(s), checked, written"
    path, _, *changes = asked[0]
    request = load_request(path, [*changes, "records=4096"])
    assert (request.device, request.texture, request.batch) == ("cuda", "decoded", 1024)
