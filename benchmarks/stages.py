"""One batch as of configs/demo.yaml, and one as of configs/published.yaml, by stage, on one thread as a worker runs it.

The rest is what no named stage holds.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from ecg_batch.dataset.layout import Shard
from ecg_batch.dataset.rows import rows_table
from ecg_batch.dataset.write import build_shard
from ecg_batch.models import decode
from ecg_batch.request.parse import load_request
from ecg_batch.run.planning import make_plan
from ecg_batch.synthesis import batch as made_in
from ecg_batch.synthesis import skeleton
from ecg_batch.synthesis.annotate import batch_beats
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer
from ecg_batch.synthesis.units import UnitIndex

CONFIGS = Path(__file__).parents[1] / "configs"
COMMON = {  # name in the table: the function whose time it is
    "retrieve": (made_in, "retrieve"),
    "re-time": (skeleton, "time_records"),
    "read the donor's loop, lay units, filter, compose": (made_in, "finish"),
    "check": (made_in, "_measured"),
}
STAGES = {  # of an example request
    "demo": COMMON
    | {
        "draw codes (Mamba)": (UnitIndex, "drawn"),
        "choose units": (UnitIndex, "rendered_all"),
    },
    "published": COMMON
    | {
        "draw noise": (decode, "draw_noise"),
        "decode tokens (Mamba)": (decode, "sample_tokens"),
        "decode texture (VQ-VAE)": (decode, "decode_texture"),
        "low-pass of texture": (made_in, "low_pass"),
    },
}


def measure(rounds: int, size: int = 256, examples: Sequence[str] = tuple(STAGES)) -> list[dict]:
    return [row for name in examples for row in _of_example(name, rounds, size)]


def _of_example(name: str, rounds: int, size: int) -> list[dict]:
    plan, _ = make_plan(load_request(CONFIGS / f"{name}.yaml", [f"batch={size}"]))
    plan = replace(plan, request=replace(plan.request, shard=size), shards=(Shard(0, 0, size),))
    synthesizer, queries_of = open_synthesizer(plan), query_source(plan.request, Path("no table"))
    times = [_one(plan, synthesizer, queries_of(0, size), STAGES[name]) for _ in range(rounds + 1)][1:]
    median = {stage: statistics.median(took[stage] for took in times) for stage in times[0]}
    median["rest"] = median["all"] - sum(took for stage, took in median.items() if stage != "all")
    rows = [
        {"what": f"{name}: {stage}", "value": took * 1e6 / size, "unit": "us/record", "beside": f"{took / median['all']:.0%}"}
        for stage, took in median.items()
    ]
    return [*rows, {"what": f"{name}: one worker, one thread", "value": size / median["all"], "unit": "records/s"}]


def _one(plan, synthesizer, queries, stages: dict) -> dict[str, float]:
    """Processor seconds by stage of one batch, made and written."""
    took = defaultdict(float)
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        for name, (module, function) in stages.items():
            stack.enter_context(patch.object(module, function, _timed(getattr(module, function), took, name)))
        start = time.process_time()
        batch = made_in.make_batch(synthesizer, queries)
        rows = rows_table(synthesizer.bank.table, batch, 0)
        beats = _timed(batch_beats, took, "annotate")(synthesizer, batch)
        _timed(build_shard, took, "write, read back, hash")(plan, plan.shards[0], batch.ecg, rows, Path(folder), [beats])
        took["all"] = time.process_time() - start
    return took


def _timed(function, took: dict, name: str):
    def timed(*args, **kwargs):
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            took[name] += time.process_time() - start

    return timed
