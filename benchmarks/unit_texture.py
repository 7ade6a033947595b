"""Texture laid by units against recorded texture of people whom it was not taken from: python -m benchmarks.unit_texture

The hosts are the bank's donors of fold 8, who lend nothing; each gets texture as a record of it would, from folds 1 to 7, at its
own rate. Beside it the floor, the same distances between the recordings of folds 7 and 8. By the kind of noise that a reader saw,
too.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecg_batch import draws
from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.bank import Bank, read_bank
from ecg_batch.leads import MV_PER_UV
from ecg_batch.models.report import compare, db, save_figure, spectra_and_amplitudes, spectrum, traces
from ecg_batch.models.sequences.unit_model import load_unit_model
from ecg_batch.signal.noise import LEVEL_BANDS_HZ
from ecg_batch.statements import NOISE_KINDS
from ecg_batch.synthesis.retime import Loops, time_records
from ecg_batch.synthesis.units import UnitIndex, plain_textures, unit_index, unit_textures

SEED, BEATS = 0, 64
HOSTS = 8  # their fold: the bank has no later one
FEWEST = 20  # records on either side, by which a kind of noise is judged


def of_hosts(index: UnitIndex, hosts: np.ndarray, seed: int = SEED) -> np.ndarray:
    """A texture for each of these rows of the bank, under beats at its own rate: float64 (host, lead, time) in mV."""
    bank, records = index.bank, np.arange(len(hosts))
    fs_hz, samples = bank.table.fs_hz, bank.texture.shape[-1]
    starts = draws.uniforms(seed, records, draws.Stream.RHYTHM, 2)
    timings = time_records(Loops(bank), hosts, 60 * fs_hz / bank.table.hr_bpm[hosts], samples, fs_hz, starts)
    texture = unit_textures(index, hosts, timings, draws.uniforms(seed, records, draws.Stream.UNITS, 1 + BEATS), 1.0)
    return plain_textures(index, texture.cells, samples) * MV_PER_UV


def measure(bank: Bank, model, out: Path | None = None, seeds: int = 5) -> list[dict]:
    """By the noise that a reader saw: distances of models/report.py, means over leads and seeds. The first row has gap_db too: by
    how far the level of a lead from 2 Hz on, where conditions say it, differs from that of the host's own recording, under its
    conditions and under another host's.
    """
    fold, fs_hz = bank.table.fold, bank.table.fs_hz
    index = unit_index(bank, tuple(range(1, HOSTS)), model)
    hosts, others = np.flatnonzero(fold == HOSTS), np.flatnonzero(fold == HOSTS - 1)
    made = [of_hosts(index, hosts, seed) for seed in range(seeds)]
    real, other = bank.texture[hosts] * MV_PER_UV, bank.texture[others] * MV_PER_UV
    if out:
        out.mkdir(parents=True, exist_ok=True)
        save_figure(out / "unit_texture.png", spectra_and_amplitudes(made[0], real, other, fs_hz, HOSTS))
        save_figure(out / "unit_traces.png", traces(made[0], real, fs_hz, fold=HOSTS))
    rows = [("any or none", np.ones(len(bank.table), bool))]
    rows += [(name, bank.noise[:, kind].any(axis=-1)) for kind, name in enumerate(NOISE_KINDS)]
    rows = [(name, seen[hosts], seen[others]) for name, seen in rows if min(seen[hosts].sum(), seen[others].sum()) >= FEWEST]
    found = [{
        "noise": name, "records": int(ours.sum()), "generated": _means([x[ours] for x in made], real[ours], fs_hz),
        "floor": _means([other[theirs]], real[ours], fs_hz),
    } for name, ours, theirs in rows]  # fmt: skip
    shuffled = np.roll(np.arange(len(hosts)), 1)  # the bank is in the order of recordings
    found[0]["gap_db"] = [float(np.mean([_gap_db(x[at], real, fs_hz) for x in made])) for at in (np.arange(len(hosts)), shuffled)]
    return found


def _means(sets: Sequence[np.ndarray], real: np.ndarray, fs_hz: float) -> dict[str, float]:
    each = [compare(x, real, fs_hz) for x in sets]
    return {name: float(np.mean([list(one[name].values()) for one in each])) for name in each[0]}


def _gap_db(x: np.ndarray, real: np.ndarray, fs_hz: float) -> float:
    levels = []
    for texture in (x, real):
        f, power = spectrum(texture, fs_hz)
        levels.append(db(power[..., f >= LEVEL_BANDS_HZ[0][0]].mean(axis=-1)))
    return float(np.abs(levels[0] - levels[1]).mean())


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, default=BUNDLED, help="(default: the bundled one)")
    parser.add_argument("--out", type=Path, help="folder for the figures")
    given = parser.parse_args(words)
    rows = measure(read_bank(given.bank), load_unit_model(BUNDLED / "units.safetensors"), given.out)
    print("generated (floor)\n\n| noise that a reader saw | records | " + " | ".join(rows[0]["floor"]) + " |")
    print("|---|---|" + "---|" * len(rows[0]["floor"]))
    for row in rows:
        both = (f"{row['generated'][name]:.3f} ({floor:.3f})" for name, floor in row["floor"].items())
        print(f"| {row['noise']} | {row['records']} | " + " | ".join(both) + " |")
    right, shuffled = rows[0]["gap_db"]
    print(f"\nlevel of a lead from 2 Hz on, off by {right:.2f} dB under its host's conditions, {shuffled:.2f} dB under another's")


if __name__ == "__main__":
    main()
