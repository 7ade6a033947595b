"""Stitch: a long record's skeleton, any stretch of it, from single beats of its donor at the beat times of the rhythm model.

From one R to the next, A is the beat that was and B the one that comes:

    A: QRS as it is | ST-T by Fridericia, from the lagged RR | TP, stretched | splice | TP | P and PR as they are | QRS of B

When TP is used up, ST-T and PR give way in proportion. At the splice half the difference in value and in slope is taken by either
side (less by B where it has no room, as before an early V), smoothly between QRS and splice, and what is left is cross-faded. An
interval depends on its two beats alone, so any stretch of the record comes out the same whatever was made before it.
"""

from dataclasses import dataclass, replace

import numpy as np

from ecg_batch.dataset.beats import WAVES
from ecg_batch.kernels import stitch as stitch_kernel
from ecg_batch.signal.interpolate import catmull_rom
from ecg_batch.synthesis.long.donor import LongDonor
from ecg_batch.synthesis.long.events.atrial import NO_PIECES, pieces_at, placed_pieces
from ecg_batch.synthesis.long.events.order import Form
from ecg_batch.synthesis.long.events.stock import Stock

BEFORE_R = WAVES.index("qrs_on") + 1  # marks that lie before R
VENTRICULAR_QT_SD = 0.04  # of log QT of ventricular beats, from one to the next
ROOM_S = 0.1  # from splice to QRS: with less, a side takes up less than half of what is missing at the splice


@dataclass(frozen=True)
class Placed:
    """Beats of one record, one before it and one after it included. r: (beat,) samples; source: (beat,), of the donor; qt_rr:
    (beat,) samples, what QT follows. atrial_out, atrial_in: (piece,) where a piece begins, in record and donor.

    int32, uint8 and float16, int32 and int16: a day has 100,000 beats, and a batch may hold 32 days.
    """

    r: np.ndarray
    source: np.ndarray
    qt_rr: np.ndarray
    atrial_out: np.ndarray
    atrial_in: np.ndarray


@dataclass(frozen=True)
class Interval:
    """From one R to the next, arrays over intervals; samples from the first R, those with donor_ in the donor's x."""

    start: np.ndarray
    qrs_off: np.ndarray
    t_end: np.ndarray
    splice: np.ndarray
    p_on: np.ndarray
    qrs_on: np.ndarray
    before: np.ndarray  # beats of the donor
    after: np.ndarray
    donor_out: np.ndarray  # the splice, in A
    donor_in: np.ndarray  # the splice, in B


def place(donor: LongDonor, r_s: np.ndarray, symbol: np.ndarray, qt_rr_s: np.ndarray, samples: int, generator) -> Placed:
    """Beats at r_s (beat,), each of its type and never the same twice in a row, drawn by the generator; an ectopic beat brings the
    beats beside it.
    """
    fs_hz, r = donor.fs_hz, _with_outer(r_s, donor.fs_hz, samples)
    symbol, qt_rr = (np.concatenate([first, values, last]) for first, values, last in
                     ((["N"], symbol, ["N"]), (qt_rr_s[:1], qt_rr_s, qt_rr_s[-1:])))  # fmt: skip
    source = np.empty(len(r), np.int64)
    for name in np.unique(symbol):
        at, pool = np.flatnonzero(symbol == name), np.flatnonzero(donor.symbol == name)
        source[at] = in_rounds(pool, len(at), generator)
    source = _with_neighbours(donor, source)
    atrial = placed_pieces(donor.atrial, samples, donor.fs_hz, generator) if donor.atrial is not None else NO_PIECES
    return Placed(r.astype(np.int32), source.astype(np.uint8), (qt_rr * fs_hz).astype(np.float16), *atrial)


def place_forms(stock: Stock, r_s: np.ndarray, form: list[int], qt_rr_s: np.ndarray, samples: int, generator) -> Placed:
    """The same of a record with events: beats (beat,), and the one after them, of these forms, each drawn from its form's pool in
    rounds.
    """
    donor = stock.donor
    r, form = _with_outer(r_s, donor.fs_hz, samples), np.array([Form.OWN, *form])
    if len(form) != len(r):
        raise ValueError(f"{len(form)} forms of {len(r)} beats: the order ended before the record")
    source = np.empty(len(r), np.int64)
    for name in np.unique(form).tolist():
        at = np.flatnonzero(form == name)
        source[at] = in_rounds(stock.pools[name], len(at), generator)
    qt_rr = np.concatenate([qt_rr_s[:1], qt_rr_s, qt_rr_s[-1:]])
    pieces = placed_pieces(donor.atrial, samples, donor.fs_hz, generator) if donor.atrial is not None else NO_PIECES
    return Placed(r.astype(np.int32), source.astype(np.uint8), (qt_rr * donor.fs_hz).astype(np.float16), *pieces)


def with_varied_qt(placed: Placed, which: np.ndarray, draws: np.random.Generator) -> Placed:
    """The same where QT of each of these beats, bool (beat,), differs a little from what the rate makes of it."""
    qt_rr = placed.qt_rr.astype(np.float64)
    qt_rr[which] *= np.exp(3 * VENTRICULAR_QT_SD * draws.standard_normal(which.sum()))  # QT goes with its cube root
    return replace(placed, qt_rr=qt_rr.astype(np.float16))


def _with_outer(r_s: np.ndarray, fs_hz: int, samples: int) -> np.ndarray:
    """R samples (beat,), with a beat before the record and one after it."""
    r = np.floor(r_s * fs_hz).astype(np.int64)  # never beyond the last sample
    rr = np.diff(r) if len(r) > 1 else np.array([round(fs_hz)])
    return np.concatenate([[min(r[0] - rr[0], -1)], r, [max(r[-1] + rr[-1], samples)]])


def in_rounds(pool: np.ndarray, count: int, generator) -> np.ndarray:
    """`count` beats of the pool: all of them, then all again in another order, so that ten seconds vary as the donor's did.

    Never the same twice in a row where there are three.
    """
    rounds = generator.permuted(np.tile(pool, (-(-count // len(pool)), 1)), axis=1)
    if len(pool) > 2:
        same = 1 + np.flatnonzero(rounds[1:, 0] == rounds[:-1, -1])
        rounds[same, 0], rounds[same, 1] = rounds[same, 1], rounds[same, 0]
    return rounds.ravel()[:count]


def _with_neighbours(donor: LongDonor, source: np.ndarray) -> np.ndarray:
    """The beats (beat,), beside each ectopic one its own neighbours in the donor, where these are usable.

    TP is short there, or gone, so that a splice would show; and the pause is followed by the beat that followed it. A beat that two
    ectopic ones share follows the first, and the second follows it where that is so in the donor.
    """
    natural, pool = donor.splice_out == donor.splice_in, np.flatnonzero(donor.symbol == "N")
    after, before = (np.where(pair.any(axis=1), pair.argmax(axis=1), -1).tolist() for pair in (natural, natural.T))  # -1: none
    kind, beats = [*donor.symbol.tolist(), ""], source.tolist()
    held = [kind[beat] != "N" for beat in beats]
    for k in np.flatnonzero(held).tolist():  # neither the first nor the last
        if held[k - 1]:
            follows = after[beats[k - 1]]
            beats[k] = follows if kind[follows] == kind[beats[k]] else beats[k]
            if beats[k] == beats[k - 1]:
                same = np.flatnonzero(donor.symbol == kind[beats[k]])
                beats[k] = int(same[(np.searchsorted(same, beats[k]) + 1) % len(same)])
        elif kind[own := before[beats[k]]] == "N" and not (held[k - 2] and beats[k - 2] == own):
            beats[k - 1], held[k - 1] = own, True
        if kind[own := after[beats[k]]] == "N" == kind[beats[k + 1]]:
            beats[k + 1], held[k + 1] = own, True
    source, free = np.array(beats), ~np.array(held)
    for turn in (0, 0, 1, 1):  # every other beat, so that its neighbours stand still: of three beats one differs from both
        same = source[1:] == source[:-1]
        again = np.flatnonzero(free & (np.append(same, False) | np.insert(same, 0, False)))
        again = again[again % 2 == turn]
        source[again] = pool[(np.searchsorted(pool, source[again]) + 1) % len(pool)]
    return source


def stitch(donor: LongDonor, placed: Placed, start: int, stop: int) -> np.ndarray:
    """Samples start .. stop - 1 of the skeleton: float64 (lead, time) in steps."""
    time = np.arange(start, stop)
    first, last = np.searchsorted(placed.r, (start, stop - 1), side="right") - 1
    interval = intervals(donor, placed, np.arange(first, last + 1))
    k = np.searchsorted(placed.r, time, side="right") - 1 - first
    half = np.minimum(
        round(donor.fade_s * donor.fs_hz), np.minimum(interval.splice - interval.qrs_off, interval.qrs_on - interval.splice)
    )
    since_splice = time - (interval.start + interval.splice)[k]
    fade = np.clip(since_splice / (2 * np.maximum(half[k], 0.5)) + 0.5, 0.0, 1.0)
    fade = fade * fade * (3 - 2 * fade)
    sides = _sides(donor, interval)
    a, b = _side_a(donor, interval, sides, k, time), _side_b(donor, interval, sides, k, time)
    crossfade = stitch_kernel.crossfaded if stitch_kernel.library() else _crossfaded
    out = crossfade(sides.x, a, b, fade, k)
    return out if donor.atrial is None else out + pieces_at(donor.atrial, placed.atrial_out, placed.atrial_in, time, donor.fs_hz)


def _crossfaded(x: np.ndarray, a: tuple, b: tuple, fade: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Side a fading into side b, each (donor time, rise, tilt (time,), value, slope (interval, lead)): (lead, time)."""
    read = [_read(x, at) + rise[:, None] * value[k] + tilt[:, None] * slope[k] for at, rise, tilt, value, slope in (a, b)]
    out = np.where((fade < 1)[:, None], read[0], read[1])
    out += np.where(fade < 1, fade, 0.0)[:, None] * (read[1] - read[0])
    return np.ascontiguousarray(out.T)


def intervals(donor: LongDonor, placed: Placed, k: np.ndarray) -> Interval:
    rr = (placed.r[k + 1] - placed.r[k]).astype(np.float64)
    a, b = placed.source[k], placed.source[k + 1]
    qrs_off, qrs_on = (donor.qrs_off - donor.r)[a], rr + (donor.qrs_on - donor.r)[b]
    qrs, st_t, pr = (donor.qrs_off - donor.qrs_on)[a], (donor.t_end - donor.qrs_off)[a], (donor.qrs_on - donor.p_on)[b]
    wanted = np.maximum((qrs + st_t) * np.cbrt(placed.qt_rr[k].astype(np.float64) / donor.rr_samples) - qrs, 1.0)
    give = np.minimum(np.maximum(qrs_on - qrs_off - 1, 1.0) / (wanted + pr), 1.0)
    t_end, p_on = qrs_off + give * wanted, qrs_on - give * pr
    donor_out, donor_in = donor.splice_out[a, b], donor.splice_in[a, b]
    of_a, of_b = donor_out - donor.t_end[a] + 0.5, donor.p_on[b] - donor_in + 0.5
    splice = t_end + of_a / (of_a + of_b) * (p_on - t_end)
    return Interval(placed.r[k], qrs_off, t_end, splice, p_on, qrs_on, a, b, donor_out, donor_in)


def carried(donor: LongDonor, placed: Placed) -> np.ndarray:
    """The marks of all placed beats in samples of the record: (beat, wave).

    A beat's P wave and QRS onset lie in the interval before its R, where it is the one that comes (B there); QRS end and T lie in
    the interval after it, where it is the one that was (A). A wave that reaches beyond a splice ends, or begins, with it.
    """
    i = intervals(donor, placed, np.arange(len(placed.r) - 1))
    marks = np.full((len(placed.r), len(WAVES)), np.nan)
    a, b = i.before, i.after
    at, of_donor = [np.zeros(len(a)), i.qrs_off, i.t_end, i.splice], [donor.r[a], donor.qrs_off[a], donor.t_end[a], i.donor_out]
    marks[:-1, BEFORE_R:] = _moved(donor, a, of_donor, at)[:, BEFORE_R:] + i.start[:, None]
    at = [i.splice, i.p_on, i.qrs_on, i.qrs_on + (donor.r - donor.qrs_on)[b]]
    of_donor = [i.donor_in, donor.p_on[b], donor.qrs_on[b], donor.r[b]]
    marks[1:, :BEFORE_R] = _moved(donor, b, of_donor, at)[:, :BEFORE_R] + i.start[:, None]
    return marks


def _moved(donor: LongDonor, beats: np.ndarray, of_donor: list[np.ndarray], at: list[np.ndarray]) -> np.ndarray:
    """The marks of these beats (beat,) where the straight pieces between corners bring them: (beat, wave). of_donor, at: of each
    corner its samples of the donor's x and of the interval, (beat,). All pieces as one map, each beat's behind the one before.
    """
    of_donor, at = np.stack(of_donor, axis=1).astype(np.float64), np.stack(at, axis=1)
    apart = np.arange(len(beats))[:, None] * (donor.x.shape[1] + 1.0)
    marks = np.clip(donor.r[beats][:, None] + donor.waves[beats], of_donor[:, :1], of_donor[:, -1:])
    return np.interp(marks + apart, (of_donor + apart).ravel(), at.ravel())


@dataclass(frozen=True)
class Sides:
    """What both sides of a splice need. x: (time, lead) of the donor. rate_a, rate_b: donor samples an output sample at the splice,
    (interval,); value, slope: what B has more there than A, (interval, lead).
    """

    x: np.ndarray
    rate_a: np.ndarray
    rate_b: np.ndarray
    value: np.ndarray
    slope: np.ndarray


def _sides(donor: LongDonor, interval: Interval) -> Sides:
    rate_a = _rate(interval.donor_out - donor.t_end[interval.before], interval.splice - interval.t_end)
    rate_b = _rate(donor.p_on[interval.after] - interval.donor_in, interval.p_on - interval.splice)
    x, out, into = np.ascontiguousarray(donor.x.T), interval.donor_out, interval.donor_in
    value = x[into] - x[out]
    slope = rate_b[:, None] * (x[into + 1] - x[into - 1]) / 2 - rate_a[:, None] * (x[out + 1] - x[out - 1]) / 2
    return Sides(x, rate_a, rate_b, value, slope)


def _rate(donor_samples: np.ndarray, samples: np.ndarray) -> np.ndarray:
    return np.clip(donor_samples / np.maximum(samples, 1e-6), 0.0, 3.0)


def _side_a(donor: LongDonor, i: Interval, sides: Sides, k: np.ndarray, time: np.ndarray) -> tuple:
    """What makes A at times (time,) of the record inside intervals k (time,), as _crossfaded takes it.

    The donor's time is straight between corners. What is missing in value and slope is taken up by rise and tilt.
    """
    a, beyond = i.before, np.maximum(i.qrs_on - i.splice, 1.0)
    at = np.stack([np.zeros(len(a)), i.qrs_off, i.t_end, i.splice, i.splice + beyond], axis=1)
    of_donor = np.stack([donor.r[a], donor.qrs_off[a], donor.t_end[a], i.donor_out, i.donor_out + beyond * sides.rate_a], axis=1)
    room = i.splice - i.qrs_off
    rise, tilt = _ramps((time - (i.start + i.qrs_off)[k]) / np.maximum(room, 1e-6)[k])
    donor_time = np.interp(time, (i.start[:, None] + at).ravel(), of_donor.ravel())
    share = 1 - _share_b(donor, i)[:, None]
    return donor_time, rise, tilt, share * sides.value, share * room[:, None] * sides.slope


def _side_b(donor: LongDonor, i: Interval, sides: Sides, k: np.ndarray, time: np.ndarray) -> tuple:
    """B, as _side_a."""
    b, beyond, rr = i.after, np.maximum(i.splice - i.qrs_off, 1.0), i.qrs_on + (donor.r - donor.qrs_on)[i.after]
    at = np.stack([i.splice - beyond, i.splice, i.p_on, i.qrs_on, rr], axis=1)
    of_donor = np.stack([i.donor_in - beyond * sides.rate_b, i.donor_in, donor.p_on[b], donor.qrs_on[b], donor.r[b]], axis=1)
    room = i.qrs_on - i.splice
    rise, tilt = _ramps(((i.start + i.qrs_on)[k] - time) / np.maximum(room, 1e-6)[k])
    donor_time = np.interp(time, (i.start[:, None] + at).ravel(), of_donor.ravel())
    share = _share_b(donor, i)[:, None]
    return donor_time, rise, tilt, -share * sides.value, share * room[:, None] * sides.slope


def _share_b(donor: LongDonor, i: Interval) -> np.ndarray:
    """How much of the difference at each splice B takes up: half, or less where it has less room than ROOM_S."""
    return 0.5 * np.minimum((i.qrs_on - i.splice) / (ROOM_S * donor.fs_hz), 1.0)


def _ramps(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(value 0 to 1 with no slope at its ends, slope 0 to 1 with no value at its ends) of u in 0 .. 1, going on straight beyond."""
    inside = np.clip(u, 0.0, 1.0)
    square = inside * inside
    return square * (3 - 2 * inside), square * (inside - 1) + np.maximum(u - 1, 0.0)


def _read(x: np.ndarray, time: np.ndarray) -> np.ndarray:
    """x (time, lead) at fractional times, its ends beyond them."""
    return catmull_rom(x, np.clip(time, 1, len(x) - 3))
