"""Atrial activity that goes on whatever the beats do: fibrillation and flutter in pieces, and P waves that no beat carries."""

from dataclasses import dataclass

import numpy as np

from ecg_batch.donors.loop import SEAM_S, VALUE_WEIGHT
from ecg_batch.synthesis.long.events.order import Form, LoneP, Order
from ecg_batch.synthesis.long.events.stock import PWave, Stock

PIECE_S = (1.0, 4.0)  # of a donor's atrial activity, drawn anew
CHOICES = 12  # places drawn for the next piece; the one that fits best is taken
NO_PIECES = (np.empty(0, np.int32), np.empty(0, np.int16))
FADE_S = 0.6  # over which f waves come and go


def placed_pieces(x: np.ndarray, samples: int, fs_hz: int, generator) -> tuple[np.ndarray, np.ndarray]:
    """Where pieces of atrial activity x (lead, time) begin, in a record of so many samples and in x: (piece,) each.

    One after another, each begun where it goes on best from the one before.
    """
    seam = round(SEAM_S * fs_hz)
    low, high = (round(s * fs_hz) for s in PIECE_S)
    points = np.arange(seam, x.shape[1] - 2 * seam, 2)
    reach = points[:, None] + np.arange(-seam, seam + 1)
    values, slopes = x[:, reach], np.diff(x, axis=1)[:, reach[:, :-1]] / np.sqrt(VALUE_WEIGHT)
    around = np.concatenate([values, slopes], axis=-1).transpose(1, 0, 2).reshape(len(points), -1)  # their distance: seam_cost
    count = samples // (low - 2) + 2
    length = generator.integers(low // 2, high // 2, size=count)  # in points
    choice = generator.integers(len(points) - high // 2, size=(count, CHOICES))
    at, begun = int(choice[0, 0]), np.empty(count, np.int64)
    for piece in range(count):
        begun[piece] = points[at]
        end = at + length[piece]
        at = int(choice[piece, np.argmin(np.square(around[choice[piece]] - around[end]).sum(axis=1))])
    out = np.concatenate([[0], np.cumsum(2 * length)[:-1]])
    inside = out < samples
    return out[inside].astype(np.int32), begun[inside].astype(np.int16)


def pieces_at(x: np.ndarray, out: np.ndarray, into: np.ndarray, time: np.ndarray, fs_hz: int) -> np.ndarray:
    """Atrial activity at times (time,) since the first piece: (lead, time), each piece fading into the next over 50 ms."""
    seam = round(SEAM_S * fs_hz)
    piece = np.searchsorted(out, time, side="right") - 1
    since = time - out[piece]
    new = x[:, into[piece] + since]
    fading = (since < seam) & (piece > 0)
    old = piece[fading] - 1
    weight = (since[fading] + 1) / (seam + 1)
    gone_on = x[:, into[old] + time[fading] - out[old]]
    new[:, fading] = gone_on + weight * (new[:, fading] - gone_on)
    return new


# Of a record with events ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Paroxysm:
    """Samples start .. stop - 1 of a record have atrial activity x (lead, time), in pieces that begin at out and in x at into."""

    start: int
    stop: int
    x: np.ndarray
    out: np.ndarray
    into: np.ndarray

    def add_to(self, out: np.ndarray, begins: int, fs_hz: int) -> None:
        """To samples of a record from `begins` on, (lead, time), in place."""
        time = np.arange(max(self.start, begins), min(self.stop, begins + out.shape[1]))
        if len(time):
            ends = np.minimum(time - self.start, self.stop - 1 - time) / (FADE_S * fs_hz)
            fade = np.clip(ends, 0, 1)
            out[:, time - begins] += fade * fade * (3 - 2 * fade) * pieces_at(self.x, self.out, self.into, time - self.start, fs_hz)


@dataclass(frozen=True)
class Atrial:
    """What is added to the beats of one record. p_waves: (onset (wave,) samples, ascending; the wave) of those that are laid apart.

    p_marks: onset, peak and end of the P wave of each placed beat that has its P laid apart, NaN of others, (beat, 3), in samples;
    lone: the same of those that no beat follows, (wave, 3). rows: of the bank, whom it is from.
    """

    fs_hz: int
    paroxysms: list[Paroxysm]
    p_waves: list[tuple[np.ndarray, PWave]]
    p_marks: np.ndarray
    lone: np.ndarray
    rows: tuple[int, ...]

    def add_to(self, out: np.ndarray, begins: int) -> None:
        """To samples of the record from `begins` on, (lead, time) steps, in place."""
        for paroxysm in self.paroxysms:
            paroxysm.add_to(out, begins, self.fs_hz)
        for onsets, wave in self.p_waves:
            length = wave.x.shape[1]
            for onset in onsets[slice(*np.searchsorted(onsets, (begins - length, begins + out.shape[1])))].tolist():
                first, last = max(onset, begins), min(onset + length, begins + out.shape[1])
                out[:, first - begins : last - begins] += wave.x[:, first - onset : last - onset]


def atrial_of(order: Order, stock: Stock, r: np.ndarray, source: np.ndarray, rr: np.ndarray, samples: int, generator) -> Atrial:
    """What an order adds to its placed beats. r, source, rr (beat,): samples, beats of the stock, and the RR that QT follows; with
    one beat before those of the order, and one after those that the record has.
    """
    donor, count = stock.donor, len(r) - 2
    begins = r - (donor.r - donor.p_on)[source].astype(np.float64)
    pr = np.array([np.nan, *order.pr_s[:count], np.nan])
    apart = np.isfinite(pr)
    begins[apart] = (r + (donor.qrs_on - donor.r)[source] - pr * donor.fs_hz)[apart]
    premature = [one for one in order.lone if one.beat < count and one.premature]
    dropped = [one for one in order.lone if one.beat < count and not one.premature]
    own, other = stock.p_waves
    of_own = [*begins[apart], *(_between(begins, one) for one in dropped), *_without_beats(order, begins, r, rr, count)]
    laid = ((own, of_own), (other, [_between(begins, one) for one in premature]))
    p_waves = [(np.sort(np.rint(onsets).astype(np.int64)), wave) for wave, onsets in laid if wave is not None and len(onsets)]
    p_marks, lone = np.full((len(r), 3), np.nan), [np.empty((0, 3))]
    for at, (wave, onsets) in enumerate(laid):
        if wave is not None and len(onsets):
            marks = np.rint(np.array(onsets))[:, None] + np.array(wave.marks)
            carried = int(apart.sum()) if at == 0 else 0
            p_marks[apart if carried else slice(0)] = marks[:carried]
            lone.append(marks[carried:])
    lone = np.concatenate(lone)
    paroxysms = [made for one in order.atrial if (made := _paroxysm(one, stock, r, count, samples, generator))]
    with_other = len(premature) or {Form.PREMATURE, Form.ABERRANT} & set(order.form[:count])
    rows = tuple(row for row, _ in stock.atrial.values()) + ((other.row,) if other and with_other else ())
    return Atrial(donor.fs_hz, paroxysms, p_waves, p_marks, lone[np.argsort(lone[:, 1])], rows)


def _between(begins: np.ndarray, one: LoneP) -> float:
    before, after = begins[one.beat], begins[one.beat + 1]  # the order's first beat is the second that is placed
    return float(before + one.share * (after - before))


def _without_beats(order: Order, begins: np.ndarray, r: np.ndarray, rr: np.ndarray, count: int) -> list[float]:
    """P waves of stretches in which the atria beat by themselves."""
    found = []
    for first, stop in order.apart:
        if first >= count:
            continue
        stop = min(stop, count)
        step, at = float(rr[first]), float(begins[first])
        while (at := at + step) < begins[stop + 1] - 0.5 * step:
            found.append(at)
    return found


def _paroxysm(one: tuple[int, int, str], stock: Stock, r: np.ndarray, count: int, samples: int, generator) -> Paroxysm | None:
    """From the beat before its first to the beat after its last, within the record."""
    first, stop, aux = one
    if first >= count:
        return None
    start = max(int(r[first] + r[first + 1]) // 2, 0)
    stop = int(r[stop] + r[stop + 1]) // 2 if stop < count else samples + round(FADE_S * stock.donor.fs_hz)  # it goes on
    x = stock.atrial[aux][1]
    if stop - start < 2:
        return None
    return Paroxysm(start, stop, x, *placed_pieces(x, stop - start, stock.donor.fs_hz, generator))
