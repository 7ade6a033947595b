"""What each stage of a record of 10 s costs at least on this machine, beside what it takes: python -m benchmarks.roofline

A stage that computes cannot take less time than its multiply-adds at the rate of the thread's vector units (peak.cpp, which is
compiled here for this machine), nor than its bytes at the rate of its second-level cache. A stage that a library does whole
(compression, sums) takes what that library takes for the same bytes by itself. All rates are measured first, on one thread, in the
same process. What counts as work is what the stage cannot do without.
"""

import argparse
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs import blosc

from benchmarks.__main__ import about, said
from benchmarks.decode import work
from benchmarks.machine import DOUBLE, EXP_FLOP, LOADS, PAIRS, SINGLE, STORES, thread_rates
from benchmarks.stages import measure as measured_stages
from benchmarks.turns import median_seconds
from ecg_batch.dataset.write import CODEC
from ecg_batch.request.parse import load_request
from ecg_batch.run.planning import make_plan
from ecg_batch.synthesis.batch import Batch, make_batch
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import Synthesizer, open_synthesizer

DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"
LEADS, STORED = 8, 12


@dataclass(frozen=True)
class Work:
    """Of a record at a stage. amounts: of what thread_rates names, operations and bytes; seconds: of a library's own calls."""

    amounts: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256, help="records made together")
    args = parser.parse_args(words)
    print(said(about(sys.argv[1:] if words is None else words, "benchmarks.roofline")))
    rates = thread_rates(args.rounds)
    print("\n" + "\n".join(f"{name:<44}{value:>10.3g} {unit}" for name, (value, unit) in rates.items()))
    plan, _ = make_plan(load_request(DEMO, [f"batch={args.batch}"]))
    synthesizer = open_synthesizer(plan)
    batch = make_batch(synthesizer, query_source(plan.request, Path("no table"))(0, args.batch))
    took = {row["what"].removeprefix("demo: "): row["value"] for row in measured_stages(args.rounds, args.batch, ("demo",))}
    print(f"\n{'us a record':<52}{'takes':>8}{'at least':>10}{'reached':>9}   bound by")
    bounds = {}
    for stage, done in stages_work(synthesizer, batch, args.rounds).items():
        bounds[stage], by = bound_us(done, rates)
        print(f"{stage:<52}{took[stage]:>8.1f}{bounds[stage]:>10.1f}{bounds[stage] / took[stage]:>9.0%}   {by}")
    unbound = took["all"] - sum(took[stage] for stage in bounds)
    print(f"{'what has no bound here: tables, draws, Python':<52}{unbound:>8.1f}")
    slowest = max(bounds, key=bounds.get)
    together = sum(bounds.values())
    print(f"{'all':<52}{took['all']:>8.1f}{together:>10.1f}{together / took['all']:>9.0%}")
    print(f"a thread makes {1e6 / took['all']:,.0f} records/s; the bounds of all stages together allow {1e6 / together:,.0f}, "
          f"that of the slowest alone ({slowest}) {1e6 / bounds[slowest]:,.0f}")  # fmt: skip
    return 0


def stages_work(synthesizer: Synthesizer, batch: Batch, rounds: int) -> dict[str, Work]:
    """The work of a record, in the mean over a batch; names as in stages.py."""
    samples, count = synthesizer.request.samples, len(batch.ecg)
    beats = np.mean([(rows >= 0).sum() for rows in batch.texture_of_beats])  # that are heard, so that they have a code
    units = synthesizer.units
    pool = np.mean([len(units.lent(row)) for row in batch.donor_row.tolist()])
    levels = units.unit_points.shape[1]
    flop, exps = work(units.model.config.mamba)
    leads = LEADS * samples
    # four samples of the loop and their weights, the lead matrix left out; two samples of units where cells meet, left out too;
    # sum, rounding, four derived leads and the error of all twelve
    finish = 2 * 4 * leads + 3 * leads + 6 * STORED * samples
    return {
        "draw codes (Mamba)": Work({SINGLE: beats * (flop + EXP_FLOP * exps)}),
        "choose units": Work({PAIRS: 2 * pool * levels * beats, LOADS: 2 * pool * levels}),
        "read the donor's loop, lay units, filter, compose": Work(
            {DOUBLE: finish, LOADS: (4 * 2 + 2 * 2) * leads, STORES: 2 * STORED * samples}
        ),
        # two sections of a band-pass, there and back, nine operations each; slope, its square and a running mean
        "check": Work({DOUBLE: samples * (2 * 2 * 9 + 9 + 4), LOADS: 8 * samples}),
        "write, read back, hash": Work(seconds=write_seconds(batch.ecg, rounds) / count),
    }


def write_seconds(ecg: np.ndarray, rounds: int) -> float:
    """Processor seconds of what writing a batch cannot do without: compression, its check by decompression, and three sums."""
    data = np.ascontiguousarray(ecg)
    stored = CODEC.encode(data)
    out = np.empty_like(data)
    calls: dict[str, Callable] = {
        "compress": lambda: CODEC.encode(data),
        "decompress": lambda: blosc.decompress(stored, out),
        "sha256 of samples": lambda: hashlib.sha256(data).digest(),
        "sha256 of the file": lambda: hashlib.sha256(stored).digest(),
        "crc32c": lambda: google_crc32c.value(stored),
    }
    return sum(median_seconds(calls, rounds).values())


def bound_us(done: Work, rates: dict[str, tuple[float, str]]) -> tuple[float, str]:
    """(microseconds at least, by what)."""
    per_second = {name: 1e9 * value for name, (value, _) in rates.items()}
    bounds = {name: amount / per_second[name] for name, amount in done.amounts.items()} | {"the library's own calls": done.seconds}
    by = max(bounds, key=bounds.get)
    return 1e6 * bounds[by], by


if __name__ == "__main__":
    sys.exit(main())
