"""How much ventricular beats repeat themselves, beside those of MIT-BIH: python -m benchmarks.wide MITDB [--figure PNG].

Pieces of 25 minutes, one lead (theirs: the first of each recording; ours: II). Two measures: the highest correlation of two windows
of 10 s, as in benchmarks.repetition, of those that begin with a ventricular beat; and how alike each ventricular beat by itself is
to that other one which is most like it, 250 ms before R to 450 ms after it, R moved by up to 30 ms where that fits better. The
more beats there are, the more alike are two of them: so of each piece MOST are taken, evenly, and pieces with fewer than FEWEST
are left out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.noise import opened
from benchmarks.repetition import at_100_hz, nearest
from ecg_batch.leads import LEADS
from ecg_batch.synthesis.long.batch import LongBatch

SECONDS, FEWEST, MOST = 1500, 16, 100
BEFORE, AFTER, SHIFT = 25, 45, 3  # samples at 100 Hz about R
OURS = {"records": 24, "duration_s": SECONDS, "seed": 8,
        "mix": {"labels": {"NORM": 0.4, "STTC": 0.2, "MI": 0.2, "CD": 0.2}, "hr_bpm": {"normal": [75, 10], "within": [55, 100]}},
        "events": {"v_beat": {"per_hour": {"uniform": [40, 1000]}, "share": 1.0}}}  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mitdb", type=Path, help="of MIT-BIH recordings")
    parser.add_argument("--records", type=int, default=OURS["records"])
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args(words)
    ours = OURS | {"records": arguments.records, "duration_s": arguments.seconds}
    found = {
        "MIT-BIH": measured(real(arguments.mitdb, arguments.seconds)),
        "ours": measured(made(ours)),
        "ours with `noise: {}`": measured(made(ours | {"noise": {}})),
    }
    print("| | pieces | beats | two windows of 10 s, highest | a beat and that most like it: tenth | median | two most alike |")
    print("|---|---|---|---|---|---|---|")
    for whose, pieces in found.items():
        count, *values = np.array(pieces, float).reshape(-1, 5).T
        cells = [f"{np.nanmin(each):.3f}, {np.nanmedian(each):.3f}, {np.nanmax(each):.4f}" for each in values]
        print(f"| {whose} | {len(count)} | {count.sum():,.0f} | {' | '.join(cells)} |", flush=True)
    if arguments.figure:
        draw(found, arguments.figure)


def real(folder: Path, seconds: int):
    """(lead (time,) at 100 Hz, R of its ventricular beats) of each recording."""
    import wfdb

    for path in sorted(folder.glob("*.hea")):
        held, marks = wfdb.rdrecord(str(path.with_suffix("")), channels=[0]), wfdb.rdann(str(path.with_suffix("")), "atr")
        lead = at_100_hz(np.nan_to_num(held.p_signal.T), float(held.fs))[0, : 100 * seconds]
        yield lead, np.rint(marks.sample[np.isin(marks.symbol, ("V", "E"))] * 100 / held.fs).astype(int)


def made(asked: dict):
    """The same of a request's records."""
    synthesizer, queries_of = opened(asked | {"batch": asked["records"]})
    batch = LongBatch(synthesizer, queries_of(0, asked["records"]), lambda done: None)
    ecg = np.concatenate([block[:, LEADS.index("II")] for block in batch.blocks()], axis=-1)
    for lead, table in zip(ecg, batch.tables(0)[1], strict=True):
        yield lead.astype(float), table["sample"].to_numpy()[np.array(table["symbol"].to_pylist()) == "V"]


def measured(pieces) -> list[tuple[float, ...]]:
    """Of each piece with enough beats: how many were taken, highest of two windows of 10 s; of beats by themselves a tenth of them
    are less alike to any other than this, half of them, none of them.
    """
    found = []
    for lead, r in pieces:
        r = r[(r >= BEFORE + SHIFT) & (r < len(lead) - AFTER - SHIFT)]
        if len(r) < FEWEST:
            continue
        r = r[np.linspace(0, len(r) - 1, min(len(r), MOST)).astype(int)]
        windows = nearest(lead[None], r, 1000)
        beats = most_like(lead, r)
        found.append((len(r), windows.max() if len(windows) else np.nan, *np.quantile(beats, (0.1, 0.5, 1.0))))
    return found


def most_like(lead: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Of each beat the correlation with that other one which is most like it: (beat,)."""
    highest = np.full((len(r), len(r)), -1.0)
    still = _unit(lead[r[:, None] + np.arange(-BEFORE, AFTER)])
    for shift in range(-SHIFT, SHIFT + 1):
        highest = np.maximum(highest, still @ _unit(lead[r[:, None] + shift + np.arange(-BEFORE, AFTER)]).T)
    np.fill_diagonal(highest, -1)
    return highest.max(axis=1)


def _unit(windows: np.ndarray) -> np.ndarray:
    windows = windows - windows.mean(axis=1, keepdims=True)
    return windows / (np.linalg.norm(windows, axis=1, keepdims=True) + 1e-9)


def draw(found: dict, path: Path) -> None:
    """Each piece: how alike its beats are by how many were compared."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    titles = ("two windows of 10 s", "a beat and the one most like it, median")
    for axes, at, title in zip(figure.subplots(1, 2), (1, 3), titles, strict=True):
        for (whose, pieces), colour in zip(found.items(), ("#1f4e79", "#c65b1c", "#e5b48f"), strict=True):
            each = np.array(pieces)
            axes.scatter(each[:, 0], each[:, at], s=16, c=colour, label=f"{whose} ({len(each)})")
        axes.set(title=title, xlabel="ventricular beats compared", ylabel="correlation")
        axes.legend()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
