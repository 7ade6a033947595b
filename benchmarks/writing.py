"""What a made record costs until it lies in a finished dataset: python -m benchmarks.writing [--shard 4096 512] [--rounds 5]

The first shard of configs/demo.yaml is made once. Then runs are written of it: claimed, written, committed and finalised by the
code that does it in a run, in this process. Microseconds of processor time a record, of all threads, and of the clock.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecg_batch.dataset.finalise import finalise_steps
from ecg_batch.dataset.layout import Shard, ecg_file
from ecg_batch.dataset.write import build_shard
from ecg_batch.request.parse import load_request
from ecg_batch.run.claim import claim_shard
from ecg_batch.run.commit import commit_shard
from ecg_batch.run.folder import open_run
from ecg_batch.run.planning import make_plan
from ecg_batch.synthesis.generate import open_generator
from ecg_batch.synthesis.source import query_source

DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"
Made = tuple[np.ndarray, pa.Table, pa.Table]  # samples, rows, beats


def measure(shard: int, shards: int, made: Made, within: Path) -> tuple[dict[str, tuple[float, float]], int]:
    """(stage -> microseconds a record, of the processor and of the clock; bytes of samples a record) of one run."""
    plan, table = make_plan(load_request(DEMO, [f"records={shard * shards}", f"shard={shard}", f"batch={min(shard, 256)}"]))
    took: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    with tempfile.TemporaryDirectory(dir=within) as folder:
        run = open_run(plan, table, Path(folder) / "run")
        for one in run.shards:
            ecg, rows, beats = of_shard(made, one)
            with _timed(took, "claim"):
                claim = claim_shard(run, one)
            with _timed(took, "write"):
                built = build_shard(plan, one, ecg, rows, claim.staging, [beats])
            with _timed(took, "commit"):
                commit_shard(run, claim, built)
                claim.release()
        size = sum((run.folder / ecg_file(one.index)).stat().st_size for one in run.shards)
        steps = finalise_steps(run)
        while True:
            with _timed(took, step := "finalise: next"):
                step = next(steps, None)
            if step is None:
                break
            took[f"finalise: {step}"] = took.pop("finalise: next")
        took.pop("finalise: next")
    records = plan.request.records
    return {name: (1e6 * cpu / records, 1e6 * wall / records) for name, (cpu, wall) in took.items()}, size // records


@contextmanager
def _timed(took: dict[str, list[float]], stage: str) -> Iterator[None]:
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    took[stage][0] += time.process_time() - cpu
    took[stage][1] += time.perf_counter() - wall


def made_once(shard: int) -> Made:
    """A shard of the demo, of so many records."""
    plan, _ = make_plan(load_request(DEMO, [f"records={shard}", f"shard={shard}", f"batch={min(shard, 256)}"]))
    make = open_generator(plan)
    ecg, rows, beats = make(plan.shards[0], plan.request.batch, query_source(plan.request, Path("no table")), lambda done: None)
    return ecg, rows, pa.concat_tables(beats)


def of_shard(made: Made, shard: Shard) -> Made:
    """The first records of what was made, as if they were another shard's."""
    ecg, rows, beats = made
    beats = beats.slice(0, int(np.searchsorted(beats["record"].to_numpy(), shard.records)))
    rows = rows.slice(0, shard.records)
    rows = rows.set_column(0, "record", pa.array(np.arange(shard.start, shard.stop)))
    rows = rows.set_column(1, "shard", pa.array(np.full(shard.records, shard.index, np.int32)))
    return ecg[: shard.records], rows, beats.set_column(0, "record", pa.array(beats["record"].to_numpy() + shard.start))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shard", type=int, nargs="+", default=[4096, 512], help="records of a shard")
    parser.add_argument("--records", type=int, default=16_384, help="records of a run, and one shard at least")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--within", type=Path, help="a folder on the file system to measure (default: that of temporary files)")
    given = parser.parse_args(words)
    made = made_once(max(given.shard))
    print("| shard | stage | processor, us a record (least) | clock, us a record (least) |\n|---|---|---|---|")
    for shard in given.shard:
        rounds = [measure(shard, max(1, given.records // shard), made, given.within) for _ in range(given.rounds)]
        rows = {name: [took[name] for took, _ in rounds] for name in rounds[0][0]}
        rows["all"] = [tuple(map(sum, zip(*took.values(), strict=True))) for took, _ in rounds]
        for name, took in rows.items():
            cpu, wall = zip(*took, strict=True)
            shown = (f"{statistics.median(one):.1f} ({min(one):.1f})" for one in (cpu, wall))
            print(f"| {shard} | {name} | {' | '.join(shown)} |")
        print(f"| {shard} | bytes of samples a record | {rounds[0][1]:,} | |")


if __name__ == "__main__":
    main()
