"""Re-time: a donor's beats at the heart rate that was asked for.

Each RR interval is stretched by one factor, so the donor's own irregularity stays in proportion. Within an interval

    QRS      keeps its duration, sample by sample
    ST-T     follows the rate by Fridericia's rule, QT ~ RR^(1/3) (doi:10.1111/j.0954-6820.1920.tb18266.x)
    P, PR    keep their duration
    TP       takes the rest; when it is used up, ST-T and PR give way in proportion

as a piecewise linear map from output time to donor time, read off the donor's loop by cubic interpolation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ecg_batch.donors.bank import Bank
from ecg_batch.donors.loop import closed_loop
from ecg_batch.kernels import finish as finish_kernel
from ecg_batch.kernels import record as record_kernel
from ecg_batch.kernels.record import CORNERS
from ecg_batch.signal.interpolate import catmull_rom

CLEAR_S = 0.2  # a beat closer to an end may not be detected
ROUNDS = 4  # of correcting the stretch until the mean RR inside the record is the one asked for
BEFORE = 3  # beats before the record: their T waves reach into it


@dataclass(frozen=True)
class DonorLoop:
    """A donor ready for re-timing. loop int16 (lead, time); r_sample (beat,) in the loop; fiducials in samples from R."""

    loop: np.ndarray
    r_sample: np.ndarray
    p_on: int
    qrs_on: int
    qrs_off: int
    t_end: int

    @cached_property
    def rr_samples(self) -> np.ndarray:
        """RR after each beat, the last one across the seam: (beat,)."""
        return np.diff(self.r_sample, append=self.r_sample[0] + self.loop.shape[1])


class Loops:
    """The donors of a bank as loops. Each is made when it is first asked for."""

    def __init__(self, bank: Bank):
        donors, leads, samples = bank.skeleton.shape
        self._bank, self._loops = bank, {}
        self._around = np.empty((donors, samples + 3, leads), np.int16)  # memory comes as it is filled
        self._there = np.zeros(donors, bool)

    def __getitem__(self, row: int) -> DonorLoop:
        if row not in self._loops:
            self._loops[row] = donor_loop(self._bank, row)
        return self._loops[row]

    def for_kernel(self, rows: np.ndarray) -> record_kernel.Loops:
        """All of them; those in these rows are filled in."""
        for row in set(rows[~self._there[rows]].tolist()):
            loop = donor_loop(self._bank, row).loop  # not kept twice
            np.take(loop.T, np.arange(-1, loop.shape[1] + 2), axis=0, out=self._around[row, : loop.shape[1] + 3], mode="wrap")
            self._there[row] = True
        return self._of_kernel

    @cached_property
    def _of_kernel(self) -> record_kernel.Loops:
        bank, start, stop = self._bank, self._bank.loop_start.astype(np.int64), self._bank.loop_stop.astype(np.int64)
        r, beats = bank.of_loops(bank.r_sample.astype(np.int64))
        fiducials = np.stack([getattr(bank, name) for name in ("p_on", "qrs_on", "qrs_off", "t_end")], axis=1)
        return record_kernel.Loops(
            samples=self._around.shape[1], most=r.shape[1], around=self._around, fiducials=fiducials,
            r=r - start[:, None], beats=beats, length=stop - start,
        )  # fmt: skip


@dataclass(frozen=True)
class Timing:
    """Where a record's beats are, and how its time goes through its donor's loop.

    samples: of the record; stretch: output RR over donor RR; placed: int64 (beat,), all beats, those outside the record too;
    source: the beat of the loop that each of them is; corners: of the time map, output and loop samples, CORNERS from each beat to
    the next.
    """

    samples: int
    stretch: float
    placed: np.ndarray
    source: np.ndarray
    corners: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))

    @property
    def r_sample(self) -> np.ndarray:
        """R of the beats inside the record."""
        return self.placed[(self.placed >= 0) & (self.placed < self.samples)]

    @property
    def donor_time(self) -> np.ndarray:
        """Which time of the loop each sample shows, float64 (time,) in its samples; it may run over the loop's end."""
        return np.interp(np.arange(self.samples), *self.corners)


def donor_loop(bank: Bank, donor: int) -> DonorLoop:
    """The loop of one row of the bank."""
    start, stop = int(bank.loop_start[donor]), int(bank.loop_stop[donor])
    beats = bank.beats(donor)
    inside = beats[(beats >= start) & (beats < stop)] - start
    loop = closed_loop(bank.skeleton[donor], start, stop, bank.table.fs_hz)
    return DonorLoop(loop, inside, *(int(getattr(bank, name)[donor]) for name in ("p_on", "qrs_on", "qrs_off", "t_end")))


def time_records(
    loops: Loops, rows: np.ndarray, rr_samples: np.ndarray, samples: int, fs_hz: float, uniforms: np.ndarray,
    rr_factors: Sequence[np.ndarray] | None = None,
) -> list[Timing]:  # fmt: skip
    """time_beats of each record: rows of the bank and rr_samples (record,), uniforms (record, 2)."""
    if not record_kernel.library():
        factors = [None] * len(rows) if rr_factors is None else rr_factors
        each = zip(rows.tolist(), rr_samples, uniforms, factors, strict=True)
        return [time_beats(loops[row], rr, samples, fs_hz, drawn, own) for row, rr, drawn, own in each]
    first = np.concatenate([[0], np.cumsum(_intervals(samples, rr_samples) + 1)])
    asked = (rows, rr_samples, uniforms, rr_factors, first, samples, CLEAR_S * fs_hz)
    stretch, placed, source, *corners = record_kernel.time_beats(loops.for_kernel(rows), *asked)
    beats, cornered = pieces(first), pieces(CORNERS * (first - np.arange(len(first))))
    each = zip(stretch.tolist(), beats, cornered, strict=True)
    return [Timing(samples, own, placed[at], source[at], tuple(side[by] for side in corners)) for own, at, by in each]


def _intervals(samples: int, rr_samples):
    """How many RR intervals of a record are timed: those before it and half as many again as it has room for."""
    return (1.5 * samples / rr_samples).astype(np.int64) + 2 * BEFORE


def pieces(first: np.ndarray) -> list[slice]:
    """Of what begins there, and of which the last ends there. np.split by itself takes a microsecond a piece."""
    ends = first.tolist()
    return [slice(*both) for both in zip(ends, ends[1:], strict=False)]


def time_beats(
    donor: DonorLoop, rr_samples: float, samples: int, fs_hz: float, uniforms: np.ndarray, rr_factors: np.ndarray | None = None
) -> Timing:
    """Beats of one record of `samples` at a mean RR of `rr_samples`. uniforms (2,): which beat comes first, and when.

    rr_factors: what successive RR intervals are multiplied by beside the stretch, going round; None = the donor's own rhythm.
    Beats near the ends, which a detector may not see, do not count for the mean.
    """
    first = int(uniforms[0] * len(donor.r_sample))
    offset = uniforms[1] * rr_samples
    order = (first - BEFORE + np.arange(_intervals(samples, np.float64(rr_samples)))) % len(donor.r_sample)
    donor_rr = donor.rr_samples[order]
    since_first = _summed(donor_rr)
    donor_beats = donor.r_sample[first] + since_first
    if rr_factors is not None:
        rr = donor_rr * np.resize(rr_factors, len(donor_rr))
        since_first = _summed(rr)
    stretch = rr_samples / donor.rr_samples.mean()
    for _ in range(ROUNDS):
        beats = offset + stretch * since_first
        one, after = np.searchsorted(beats, (CLEAR_S * fs_hz, samples - CLEAR_S * fs_hz))
        share = rr_samples * (after - one - 1) / (beats[after - 1] - beats[one]) if after - one > 1 else 1.0
        stretch *= share
        if abs(share - 1) < 1e-9:
            break
    beats = np.rint(offset + stretch * since_first).astype(np.int64)
    corners = _knots(donor, beats, donor_beats, stretch)
    source = np.append(order, (order[-1] + 1) % len(donor.r_sample))
    return Timing(samples, float(stretch), beats, source, corners)


def _summed(rr: np.ndarray) -> np.ndarray:
    """Times of beats with these intervals between them, from the one that BEFORE others come before: (interval + 1,)."""
    times = np.zeros(len(rr) + 1, rr.dtype)
    np.cumsum(rr, out=times[1:])
    return times - times[BEFORE]


def follow(donor: DonorLoop, placed: np.ndarray, samples: int, uniform: float) -> np.ndarray:
    """Another donor's time (time,) for each output sample when its beats, whichever comes first, are put at `placed`."""
    order = (int(uniform * len(donor.r_sample)) + np.arange(len(placed) - 1)) % len(donor.r_sample)
    donor_beats = donor.r_sample[order[0]] + np.concatenate([[0], np.cumsum(donor.rr_samples[order])])
    stretch = float(np.diff(placed).mean() / donor.rr_samples.mean())
    return np.interp(np.arange(samples), *_knots(donor, placed, donor_beats, stretch))


def _knots(donor: DonorLoop, beats: np.ndarray, donor_beats: np.ndarray, stretch: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the time map, output and donor samples: R, QRS end, T end, P onset, QRS onset of each interval."""
    rr, donor_rr = (beats[1:] - beats[:-1]).astype(np.float64), (donor_beats[1:] - donor_beats[:-1]).astype(np.float64)
    qrs_off, qrs_on, p_on = float(donor.qrs_off), float(donor.qrs_on), float(donor.p_on)
    pr = np.minimum(qrs_on - p_on, 0.4 * (donor_rr + qrs_on - qrs_off))  # a premature beat has little room before it
    st_t = np.minimum(max(donor.t_end - qrs_off, 0.0), donor_rr + qrs_on - pr - qrs_off - 1)
    qt = st_t + qrs_off - qrs_on
    wanted = np.maximum(qt * stretch ** (1 / 3) - (qrs_off - qrs_on), 1.0)
    room = np.maximum(rr + qrs_on - qrs_off - 1, 1.0) / (wanted + pr)
    give = np.minimum(room, 1.0)
    return tuple(_corners(*each, qrs_off, qrs_on) for each in ((beats, give * wanted, give * pr), (donor_beats, st_t, pr)))


def _corners(r: np.ndarray, st_t: np.ndarray, pr: np.ndarray, qrs_off: float, qrs_on: float) -> np.ndarray:
    corners = np.empty((len(r) - 1, CORNERS))
    corners[:, 0] = r[:-1]
    corners[:, 1] = r[:-1] + qrs_off
    corners[:, 2] = corners[:, 1] + st_t
    corners[:, 4] = r[1:] + qrs_on
    corners[:, 3] = corners[:, 4] - pr
    return corners.ravel()


def read_loop(donor: DonorLoop, donor_time: np.ndarray) -> np.ndarray:
    """The loop at fractional times (time,), going round: (lead, time) in its own unit, by Catmull-Rom interpolation.

    At whole samples it is the donor's own value, so QRS complexes are copied, not resampled.
    """
    if finish_kernel.library():
        return finish_kernel.read_loop(donor.loop, donor_time)
    return plain_read_loop(donor, donor_time)


def plain_read_loop(donor: DonorLoop, donor_time: np.ndarray) -> np.ndarray:
    """read_loop in numpy: the reference, and what runs where no kernel does."""
    around = np.concatenate([donor.loop[:, -1:], donor.loop, donor.loop[:, :2]], axis=1, dtype=np.float64)
    return catmull_rom(around.T, 1 + donor_time % donor.loop.shape[1]).T  # around begins one sample before the loop
