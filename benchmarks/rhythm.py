"""The table of docs/rhythm.md: HRV of generated rhythms beside published ranges, as Markdown.

python benchmarks/rhythm.py [--seeds 12]
"""

import argparse
import time

import numpy as np

from ecg_batch.draws import Stream, generator
from ecg_batch.hrv import RANGES_5_MIN, RANGES_24_H, measure_hrv
from ecg_batch.rhythm import VARIABILITY, DonorRhythm, RhythmParameters, make_rhythm

DAY_S, HOUR_S, FIVE_MINUTES_S = 86_400, 3600, 300
CASES = (
    ("healthy, 24 h, 72 bpm", DonorRhythm(72.0), 72.0, DAY_S, RANGES_24_H),
    ("5 % V, 24 h, 72 bpm", DonorRhythm(72.0, ectopic={"V": 0.05}), 72.0, DAY_S, RANGES_24_H),
    ("MI, 24 h, 72 bpm", DonorRhythm(72.0, variability=VARIABILITY["MI"]), 72.0, DAY_S, {}),
    ("healthy, 1 h, 65 bpm", DonorRhythm(65.0), 65.0, HOUR_S, RANGES_5_MIN),
    ("healthy, 5 min, 65 bpm", DonorRhythm(65.0), 65.0, FIVE_MINUTES_S, RANGES_5_MIN),
    ("healthy, 1 h, 110 bpm", DonorRhythm(110.0), 110.0, HOUR_S, {}),
    ("fibrillation, 24 h, 80 bpm", DonorRhythm(80.0, fibrillation=True), 80.0, DAY_S, {}),
)
MEASURES = ("sdnn_ms", "sdnn_index_ms", "rmssd_ms", "pnn50_pct", "lf_ms2", "hf_ms2", "lf_hf", "slope")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=12)
    seeds = range(parser.parse_args().seeds)
    print("| case | " + " | ".join(MEASURES) + " | within range | s |\n|" + "---|" * (len(MEASURES) + 3))
    for name, donor, bpm, duration_s, ranges in CASES:
        start = time.perf_counter()
        rhythms = [make_rhythm(RhythmParameters(), donor, bpm, duration_s, generator(seed, 0, Stream.RHYTHM)) for seed in seeds]
        each_s = (time.perf_counter() - start) / len(seeds)
        found = [measure_hrv(rhythm.r_s, rhythm.symbol) for rhythm in rhythms]
        cells = [cell([getattr(one, measure) for one in found]) for measure in MEASURES]
        held = [
            f"{key.removesuffix('_ms').removesuffix('_ms2')} {sum(ranges[key].holds(getattr(one, key)) for one in found)}"
            for key in ranges
        ]
        print(f"| {name} | {' | '.join(cells)} | {', '.join(held) or '-'} of {len(seeds)} | {each_s:.2f} |")


def cell(values: list[float]) -> str:
    """Mean (lowest to highest)."""
    if np.isnan(values).all():
        return "-"
    digits = 2 if abs(np.mean(values)) < 10 else 0
    return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
