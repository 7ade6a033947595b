"""How much a long record repeats itself, beside real recordings: python -m benchmarks.repetition DIR RECORDING ...

A RECORDING is a WFDB record (its path without suffix), or FILE:HZ of one lead (.npy, or a text column). Both sides are cut into
pieces of equal length; of each piece, the two windows of 10 s that are most alike are found, in every lead by itself and, where a
recording has all eight modelled leads, in all at once. How alike they are follows how little RR varies and how wide a beat is, so
pieces are also compared with those alike in these. --figure PNG shows each. Where real recordings are: docs/evidence/holter.md.
"""

import argparse
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from benchmarks.detect import neurokit
from ecg_batch.dataset.beats import BEAT_SYMBOLS
from ecg_batch.errors import UserError
from ecg_batch.leads import MODELLED, MODELLED_INDEX
from ecg_batch.reading.synthetic import open_dataset
from ecg_batch.signal.filters import low_pass
from ecg_batch.signal.hrv import Hrv, measure_hrv

WINDOW_S = 10
PIECES_S = (300, 1500, 3600)
SDNN_MS = (0, 20, 30, 40, 60, 1000)
WIDTH_MS = (0, 60, 80, 1000)
Pieces = dict[tuple[str, str, int], list[tuple[float, float, float]]]  # (whose, leads, seconds) -> (highest, SDNN, width) of each


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="finished, of records of an hour")
    parser.add_argument("recordings", nargs="+", metavar="RECORDING")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args(words)
    opened = open_dataset(arguments.dataset)
    if opened.fs_hz != 100:
        parser.error(f"{arguments.dataset} has {opened.fs_hz} Hz; needed 100 Hz, to which the recordings are brought")
    found: Pieces = {}
    print("| recording | lead | min | beats | SDNN of 5 min, RMSSD, ms | LF/HF |\n|---|---|---|---|---|---|")
    for text in arguments.recordings:
        names, leads = recording(text)
        beats = neurokit(leads[names.index("II") if "II" in names else 0], 100)
        for name, lead in zip(names, leads, strict=True):
            own = neurokit(lead, 100)
            describe(text, name, lead, own)
            collect(found, "real", "one lead", lead[None], own)
        if set(MODELLED) <= set(names):
            collect(found, "real", "eight leads", leads[[names.index(name) for name in MODELLED]], beats)
    for record, label in enumerate(opened.records["label"].to_pylist()):
        rows = opened.beats(record)
        beats = rows["sample"].to_numpy()[np.isin(np.array(rows["symbol"].to_pylist()), BEAT_SYMBOLS)]
        leads = opened.raw[record][list(MODELLED_INDEX)]
        collect(found, label, "one lead", leads[[MODELLED.index("II")]], beats)
        collect(found, label, "eight leads", leads, beats)
    print("\n| leads | piece, min | records | pieces | lowest | median | highest |\n|---|---|---|---|---|---|---|")
    order = sorted(found, key=lambda key: (key[1] != "one lead", key[2], key[0] != "real", key[0]))
    for whose, leads, seconds in order:
        each = np.array(found[whose, leads, seconds])[:, 0]
        low, middle, high = each.min(), np.median(each), each.max()
        print(f"| {leads} | {seconds / 60:g} | {whose} | {len(each)} | {low:.3f} | {middle:.3f} | {high:.3f} |")
    for what, at, edges in (("SDNN of 5 min, ms", 1, SDNN_MS), ("width of a beat, ms", 2, WIDTH_MS)):
        print(f"\n| piece, min | {what} | real, one lead: pieces, lowest, median, highest | ours without AFIB |\n|---|---|---|---|")
        for seconds in PIECES_S:
            real, ours = (np.array(pieces).reshape(-1, 3) for pieces in sides(found, seconds))
            for low, high in zip(edges, edges[1:], strict=False):
                cells = [told(side[(side[:, at] >= low) & (side[:, at] < high), 0]) for side in (real, ours)]
                print(f"| {seconds / 60:g} | {low} to {high} | {' | '.join(cells)} |")
    if arguments.figure:
        draw(found, arguments.figure)


def sides(found: Pieces, seconds: int) -> tuple[list, list]:
    """(highest, SDNN, width) of each piece of one lead: of real recordings, and of ours that are not in fibrillation."""
    ours = [each for (whose, what, length), pieces in found.items() for each in pieces
            if whose not in ("real", "AFIB") and (what, length) == ("one lead", seconds)]  # fmt: skip
    return found.get(("real", "one lead", seconds), []), ours


def told(values: np.ndarray) -> str:
    return f"{len(values)}, {values.min():.3f}, {np.median(values):.3f}, {values.max():.3f}" if len(values) else "none"


def draw(found: Pieces, path: Path) -> None:
    """Each piece of one lead of five and of 25 minutes, by how wide its beats are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, seconds in zip(figure.subplots(1, 2, sharey=True), PIECES_S, strict=False):
        real, ours = (np.array(pieces).reshape(-1, 3) for pieces in sides(found, seconds))
        axes.scatter(ours[:, 2], ours[:, 0], s=12, c="#c65b1c", label=f"synthetic, lead II ({len(ours)})")
        axes.scatter(real[:, 2], real[:, 0], s=12, c="#1f4e79", label=f"real, each lead ({len(real)})")
        axes.set(title=f"pieces of {seconds // 60} min", xlabel="width of the typical beat, area over height (ms)")
        axes.legend()
    figure.axes[0].set_ylabel("highest correlation of two windows of 10 s")
    figure.savefig(path, dpi=110)


def collect(found: Pieces, whose: str, what: str, leads: np.ndarray, beats: np.ndarray) -> None:
    """Adds the highest correlation in each whole piece of leads (lead, time) at 100 Hz."""
    width = width_ms(leads[0], beats)
    for seconds in PIECES_S:
        for start in range(0, leads.shape[1] - 100 * seconds + 1, 100 * seconds):
            inside = beats[(beats >= start) & (beats < start + 100 * seconds)] - start
            each = nearest(leads[:, start : start + 100 * seconds], inside, 100 * WINDOW_S)
            if len(each):
                found.setdefault((whose, what, seconds), []).append((float(each.max()), sdnn_ms(inside), width))


def recording(text: str) -> tuple[list[str], np.ndarray]:
    """(names of leads, (lead, time) mV at 100 Hz, low-passed as records are)."""
    if Path(f"{text}.hea").exists():
        import wfdb

        held = wfdb.rdrecord(text)
        names, leads, hz = held.sig_name, np.nan_to_num(held.p_signal.T), held.fs
    else:
        path, _, hz = text.rpartition(":")
        names, leads = ["?"], np.atleast_2d(np.load(path) if path.endswith(".npy") else np.loadtxt(path)).astype(float)
    return names, at_100_hz(leads, float(hz))


def at_100_hz(leads: np.ndarray, hz: float) -> np.ndarray:
    from scipy.signal import resample_poly

    ratio = Fraction(100 / hz).limit_denominator(1000)
    centred = leads - np.median(leads, axis=1, keepdims=True)
    return low_pass(resample_poly(centred, ratio.numerator, ratio.denominator, axis=1), 40, 100)


def describe(recording: str, name: str, lead: np.ndarray, beats: np.ndarray) -> None:
    measured = variability(beats)
    print(f"| {Path(recording).name} | {name} | {len(lead) / 6000:.1f} | {len(beats):,} | "
          f"{measured.sdnn_index_ms:.0f}, {measured.rmssd_ms:.0f} | {measured.lf_hf:.2g} |", flush=True)  # fmt: skip


def width_ms(lead: np.ndarray, beats: np.ndarray) -> float:
    """Area over height of the typical beat, 250 ms before R to 450 ms after it: how much of a window is not flat."""
    inside = beats[(beats >= 25) & (beats < len(lead) - 45)]
    if not len(inside):
        return float("nan")
    typical = np.median(lead[inside[:, None] + np.arange(-25, 45)], axis=0)
    typical = np.abs(typical - np.median(typical))
    return float(10 * typical.sum() / typical.max())


def sdnn_ms(beats: np.ndarray) -> float:
    """Of five minutes; NaN where hardly any interval is normal, as in bigeminy."""
    try:
        return variability(beats).sdnn_index_ms
    except UserError:
        return float("nan")


def variability(beats: np.ndarray) -> Hrv:
    """Of R peaks at 100 Hz, without intervals that are 20 % off their neighbours."""
    return measure_hrv(beats / 100, without_ectopic(beats))


def without_ectopic(beats: np.ndarray) -> np.ndarray:
    """Symbol of each R peak: "V" where the interval that it ends is 20 % off its neighbours, else "N"."""
    rr = np.diff(beats)
    off = np.abs(rr / np.convolve(np.pad(rr, 2, "edge"), np.ones(5) / 5, "valid") - 1) > 0.2
    symbol = np.array(["N"] * len(beats))
    symbol[1:][off] = "V"
    return symbol


def highest(ecg: np.ndarray, beats: np.ndarray, samples: int) -> float:
    """The highest correlation of two windows; NaN where there are no two."""
    found = nearest(ecg, beats, samples)
    return float(found.max()) if len(found) else float("nan")


def nearest(ecg: np.ndarray, beats: np.ndarray, samples: int) -> np.ndarray:
    """Of each window of ecg (lead, time) that begins at an R peak, the normalised correlation, all leads at once, with that window
    which is most like it and does not overlap it.
    """
    starts = beats[beats + samples <= ecg.shape[1]]
    if len(starts) < 2:
        return np.empty(0)
    windows = ecg[:, starts[:, None] + np.arange(samples)].astype(np.float32).transpose(1, 0, 2)  # (window, lead, time)
    windows = (windows - windows.mean(axis=-1, keepdims=True)).reshape(len(starts), -1)
    windows /= np.linalg.norm(windows, axis=1, keepdims=True) + 1e-9
    found = []
    for row in range(0, len(starts), 500):
        correlation = windows[row : row + 500] @ windows.T
        correlation[np.abs(starts[row : row + 500, None] - starts) < samples] = -1
        found.append(correlation.max(axis=1))
    return np.concatenate(found)


if __name__ == "__main__":
    main()
