"""The tables of docs/evidence/rhythm.md: HRV of generated rhythms beside published ranges; with recordings, spectra of RR too.

python -m benchmarks.rhythm [--seeds 12] [--hours 24] [RECORDING ...]      a RECORDING as in benchmarks.repetition
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.detect import neurokit
from benchmarks.repetition import recording, without_ectopic
from ecg_batch.draws import Stream, generator
from ecg_batch.request.rhythm_parameters import RhythmParameters
from ecg_batch.signal.hrv import RANGES_5_MIN, RANGES_24_H, measure_hrv, normal_intervals, spectrum
from ecg_batch.synthesis.long.rhythm import VARIABILITY, DonorRhythm, make_rhythm

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
BANDS_HZ = (0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.1, 0.12, 0.15, 0.19, 0.23, 0.27, 0.32, 0.4)
MEASURES = ("sdnn_ms", "sdnn_index_ms", "rmssd_ms", "pnn50_pct", "lf_ms2", "hf_ms2", "lf_hf", "slope")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("recordings", nargs="*", metavar="RECORDING")
    parser.add_argument("--hours", type=float, default=24, help="the longest of the generated rhythms")
    arguments = parser.parse_args(words)
    seeds = range(arguments.seeds)
    if arguments.recordings:
        spectra(arguments.recordings, seeds)
        return
    print("| case | " + " | ".join(MEASURES) + " | within range | s |\n|" + "---|" * (len(MEASURES) + 3))
    for name, donor, bpm, whole_s, ranges in CASES:
        duration_s = min(whole_s, 3600 * arguments.hours)
        name += f", cut to {arguments.hours:g} h" * (duration_s < whole_s)
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


def spectra(recordings: list[str], seeds: range) -> None:
    """Power of RR by band, in percent of 0.01 to 0.4 Hz: of recordings (one lead), and of hours at 80 bpm, beats at 100 Hz."""
    print("| | " + " | ".join(f"{low:g}" for low in BANDS_HZ[:-1]) + " |\n|" + "---|" * len(BANDS_HZ))
    for text in recordings:
        names, leads = recording(text)
        lead = leads[names.index("V5") if "V5" in names[2:] else 0]  # of many leads one over the apex, else the first
        beats = neurokit(lead, 100)
        print(f"| {Path(text).name} | {' | '.join(f'{share:.1f}' for share in by_band(beats))} |", flush=True)
    hours = (make_rhythm(RhythmParameters(), DonorRhythm(80.0), 80.0, HOUR_S, generator(seed, 0, Stream.RHYTHM)) for seed in seeds)
    middle = np.median([by_band(np.floor(100 * hour.r_s)) for hour in hours], axis=0)
    print(f"| median of {len(seeds)} generated hours | {' | '.join(f'{share:.1f}' for share in middle)} |")


def by_band(beats: np.ndarray) -> np.ndarray:
    frequency, power = spectrum(*normal_intervals(beats / 100, without_ectopic(beats)))
    inside = np.array([power[(frequency >= low) & (frequency < high)].mean() * (high - low)
                       for low, high in zip(BANDS_HZ, BANDS_HZ[1:], strict=False)])  # fmt: skip
    return 100 * inside / inside.sum()


def cell(values: list[float]) -> str:
    """Mean (lowest to highest)."""
    if np.isnan(values).all():
        return "-"
    digits = 2 if abs(np.mean(values)) < 10 else 0
    return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
