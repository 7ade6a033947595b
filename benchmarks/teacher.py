"""Hold the waves that a bank's donors carry against those that cardiologists marked: in LUDB, or any folder with its layout.

    python -m benchmarks.teacher --ludb DIR [--records 2,4,6] [--hz 100] [--by delineate] [--worst 5] [--figure FILE.png]

DIR holds WFDB records with annotations for each lead, 1.i to 1.v6 (LUDB: doi:10.1109/ACCESS.2020.3029211). Each record goes the
way of a donor: beats, types, marks. What the readers see in a lead is the median over the beats of the most frequent type that
they marked. Printed is ours less theirs in ms, where theirs is the median over leads, and where it is one lead's. --hz: the rate to
which records are brought before. --by delineate: the four fiducials of signal/delineate.py instead. --figure: typical beats of the
first six records, with our marks as lines and the readers' as triangles.
"""

import argparse
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ecg_batch.donors.measure import wave_marks_of
from ecg_batch.donors.split import split
from ecg_batch.leads import LEADS, MODELLED_INDEX, MV_PER_UV, twelve_leads
from ecg_batch.signal.beats import detect_beats, detect_rows
from ecg_batch.signal.delineate import delineate
from ecg_batch.signal.marks import MARKS

SYMBOLS = {"p": 0, "N": 3, "t": 6}  # of LUDB, and where their onset is in MARKS
SHOWN = tuple(name for name in MARKS if name != "r")  # each lead has another R
FIDUCIALS = {"p_on": "p_on", "qrs_on": "qrs_on", "qrs_off": "qrs_end", "t_end": "t_end"}  # of delineate.py
SAME_BEAT_MS, P_WITHIN_MS, T_WITHIN_MS = 80, 350, 700  # from our R to the peak that a reader marked
MOST = 0.5  # of the beats: a wave that fewer have is absent; LUDB's first and last beats are not marked
DRAWN, COLOURS = ("II", "V2", "V5"), ("tab:blue", "tab:red", "tab:green")  # of P, QRS and T
P_LEADS = 4  # a record has a P wave where so many leads of twelve have one


@dataclass(frozen=True)
class Compared:
    """Marks in ms from R, NaN is absent: ours (record, mark), theirs (record, lead, mark); seconds a record that ours took."""

    records: list[str]
    ours: np.ndarray
    theirs: np.ndarray
    took_s: float

    def off_ms(self, name: str) -> np.ndarray:
        """Ours less the median of theirs over leads, of the records that have both."""
        off = self.all_off_ms()[:, MARKS.index(name)]
        return off[~np.isnan(off)]

    def all_off_ms(self) -> np.ndarray:
        """(record, mark), NaN where one is absent."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # no lead has this wave
            return self.ours - np.nanmedian(self.theirs, axis=1)

    def off_of_leads_ms(self, name: str) -> np.ndarray:
        """Ours less theirs of each lead that has both."""
        off = (self.ours[:, None] - self.theirs)[..., MARKS.index(name)].ravel()
        return off[~np.isnan(off)]

    def p(self) -> tuple[np.ndarray, np.ndarray]:
        """Which records have a P wave, by their readers and by us."""
        return (~np.isnan(self.theirs[..., 1])).sum(axis=1) >= P_LEADS, ~np.isnan(self.ours[:, 1])


def records_of(folder: Path) -> list[str]:
    """Names of the records of a folder, by number where they have one."""
    names = (path.stem for path in folder.glob("*.hea"))
    return sorted(names, key=lambda name: (int(name) if name.isdigit() else 0, name))


def compare(folder: Path, records: Sequence[str], fs_hz: int | None = None, by: str = "waves") -> Compared:
    """by: `waves`, as donors are measured, or `delineate`."""
    ours, theirs, used, took_s = [], [], [], 0.0
    for name in records:
        modelled, rate_hz = read(folder / name, fs_hz)
        modelled_mv = modelled * MV_PER_UV
        beats = detect_beats(modelled_mv, rate_hz, detect_rows(modelled_mv, rate_hz))
        if len(beats) < 4:
            print(f"{name}: fewer than four beats found, left out")
            continue
        parts = split(modelled, beats, rate_hz, keep_atrial=False)
        begun = time.process_time()
        marks = {"waves": wave_marks_of, "delineate": _of_delineate}[by](modelled, parts, rate_hz)
        took_s += time.process_time() - begun
        ours.append(_median(marks[parts.types == 0]))
        r_ms = 1000 * parts.beats[parts.types == 0] / rate_hz
        theirs.append(np.stack([_of_reader(waves, r_ms) for waves in annotations(folder / name)]))
        used.append(name)
    return Compared(used, np.array(ours), np.array(theirs), took_s / max(len(used), 1))


def read(path: Path, fs_hz: int | None) -> tuple[np.ndarray, int]:
    """The eight modelled leads as stored, int16 (lead, time), and their rate. Gains of some of LUDB's headers are odd; a scale
    changes no mark.
    """
    import wfdb
    from scipy.signal import resample_poly

    record = wfdb.rdrecord(str(path), physical=False)
    lead_of = {name.lower(): at for at, name in enumerate(record.sig_name)}
    stored = record.d_signal.T[[lead_of[LEADS[lead].lower()] for lead in MODELLED_INDEX]]
    ratio = Fraction(fs_hz or record.fs) / Fraction(record.fs)
    if ratio != 1:
        stored = resample_poly(stored.astype(np.float64), ratio.numerator, ratio.denominator, axis=1)
    return np.rint(stored).astype(np.int16), round(record.fs * ratio)


def annotations(path: Path) -> Iterator[np.ndarray]:
    """Of each lead its waves (wave, 4): where in MARKS its onset is; onset, peak and end in ms, NaN where not marked."""
    import wfdb

    for lead in LEADS:
        found = wfdb.rdann(str(path), lead.lower())
        rate_hz = found.fs or wfdb.rdheader(str(path)).fs
        symbols, ms = ["", *found.symbol, ""], [np.nan, *(1000 * found.sample / rate_hz), np.nan]
        waves = []
        for at, symbol in enumerate(symbols):
            if symbol in SYMBOLS:
                on = ms[at - 1] if symbols[at - 1] == "(" else np.nan
                waves.append((SYMBOLS[symbol], on, ms[at], ms[at + 1] if symbols[at + 1] == ")" else np.nan))
        yield np.array(waves, float).reshape(-1, 4)


def _of_reader(waves: np.ndarray, r_ms: np.ndarray) -> np.ndarray:
    """What a reader marked in one lead, ms from R: the median over these beats (mark,), NaN where most have no such wave."""
    rows = []
    for r in r_ms:
        off = waves[:, 2] - r
        qrs = waves[(waves[:, 0] == SYMBOLS["N"]) & (np.abs(off) <= SAME_BEAT_MS)]
        if not len(qrs):
            continue
        p = waves[(waves[:, 0] == SYMBOLS["p"]) & (off < 0) & (off > -P_WITHIN_MS)][-1:]
        t = waves[(waves[:, 0] == SYMBOLS["t"]) & (off > 0) & (off < T_WITHIN_MS)][:1]
        rows.append(np.concatenate([(wave[0, 1:] if len(wave) else np.full(3, np.nan)) - r for wave in (p, qrs, t)]))
    rows = np.array(rows).reshape(-1, len(MARKS))
    enough = (~np.isnan(rows)).sum(axis=0) >= max(1.0, MOST * (len(rows) - 1))
    return np.where(enough, _median(rows), np.nan)


def _median(rows: np.ndarray) -> np.ndarray:
    """Of each column what is not NaN: (row, column) -> (column,)."""
    return np.array([np.median(column[~np.isnan(column)]) if not np.isnan(column).all() else np.nan for column in rows.T])


def _of_delineate(modelled: np.ndarray, parts, fs_hz: float) -> np.ndarray:
    """What donors have of signal/delineate.py, as marks (beat, mark)."""
    found = delineate(parts.skeleton, parts.beats[parts.types == 0], fs_hz)
    marks = np.full((len(parts.beats), len(MARKS)), np.nan)
    for theirs, name in FIDUCIALS.items():
        marks[:, MARKS.index(name)] = getattr(found, theirs) * 1000 / fs_hz
    if found.p_on == found.qrs_on - 1:
        marks[:, 0] = np.nan
    marks[:, 1] = marks[:, 0]  # that there is a P wave
    return marks


def table(found: Compared) -> str:
    rows = ["| | n | mean | SD | median | p90 of the absolute | leads | mean | SD |", "|---|" + "---|" * 8]
    for name in SHOWN:
        off, leads = found.off_ms(name), found.off_of_leads_ms(name)
        if len(off):
            high = np.percentile(np.abs(off), 90)
            rows.append(f"| {name} | {len(off)} | {off.mean():+.1f} | {off.std():.1f} | {np.median(off):+.1f} | {high:.0f} | "
                        f"{len(leads)} | {leads.mean():+.1f} | {leads.std():.1f} |")  # fmt: skip
    have, got = found.p()
    rows += ["", f"P: of {have.sum()} records that have it {(have & ~got).sum()} missed; of {(~have).sum()} without it "
             f"{(~have & got).sum()} found: {', '.join(np.array(found.records)[~have & got]) or 'none'}"]  # fmt: skip
    return "\n".join(rows)


def draw(folder: Path, found: Compared, out: Path) -> None:
    """Typical beats of the first six records, in three leads each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 8.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3).ravel()
    for panel, name, ours, theirs in zip(panels, found.records, found.ours, found.theirs, strict=False):
        _draw_beat(panel, folder / name, name, ours, theirs)
    figure.savefig(out, dpi=100)


def _draw_beat(panel, path: Path, name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    modelled, fs_hz = read(path, None)
    beats = detect_beats(modelled * MV_PER_UV, fs_hz, detect_rows(modelled * MV_PER_UV, fs_hz))
    parts = split(modelled, beats, fs_hz, keep_atrial=False)
    time = np.arange(round(-0.35 * fs_hz), round(0.55 * fs_hz))
    r = parts.beats[(parts.types == 0) & (parts.beats + time[0] >= 0) & (parts.beats + time[-1] < modelled.shape[1])]
    typical = twelve_leads(np.median((parts.skeleton + 0.0)[:, r[:, None] + time], axis=1))
    for row, lead in enumerate(DRAWN):
        beat = typical[LEADS.index(lead)]
        beat = (beat - np.median(beat)) / np.ptp(beat) - 1.15 * row
        panel.plot(1000 * time / fs_hz, beat, color="black", linewidth=1)
        panel.text(-345, beat[0] + 0.04, lead)
        for at, ms in enumerate(theirs[LEADS.index(lead)]):
            if at != MARKS.index("r") and not np.isnan(ms):
                panel.plot(ms, np.interp(ms, 1000 * time / fs_hz, beat) + 0.05, "v", color=COLOURS[at // 3], markersize=6)
    for at, ms in enumerate(ours):
        if at != MARKS.index("r") and not np.isnan(ms):
            panel.axvline(ms, color=COLOURS[at // 3], linewidth=1, linestyle=":" if at % 3 == 1 else "-")
    panel.set(title=f"record {name}", yticks=[], xlabel="ms from R", xlim=(-350, 550))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ludb", type=Path, required=True, metavar="DIR", help="where 1.hea, 1.i and so on are")
    parser.add_argument("--records", help="names with commas between them (default: all)")
    parser.add_argument("--hz", type=int, help="default: as recorded")
    parser.add_argument("--by", choices=("waves", "delineate"), default="waves")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--worst", type=int, default=0, help="also name so many records with the largest differences")
    args = parser.parse_args(words)
    names = args.records.split(",") if args.records else records_of(args.ludb)
    if not names:
        parser.error(f"{args.ludb}: no record there; LUDB's are in its folder data")
    found = compare(args.ludb, names, args.hz, args.by)
    print(f"{len(found.records)} records, {args.by}, {args.hz or 'own'} Hz, {1000 * found.took_s:.1f} ms of a processor a record\n")
    print(table(found))
    if args.figure:
        draw(args.ludb, found, args.figure)
    for name in SHOWN if args.worst else ():
        off = np.nan_to_num(found.all_off_ms()[:, MARKS.index(name)])
        first = np.argsort(-np.abs(off), kind="stable")[: args.worst]
        print(f"{name}: " + ", ".join(f"{found.records[at]} {off[at]:+.0f}" for at in first))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
