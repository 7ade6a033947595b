"""Texture by units: recorded noise of other patients, cut at beats and laid in time with the new ones.

A unit is a recorded beat's cell of texture, from TP to TP. Its fast part is aligned at R and joined to the next cell in TP by a
crossfade of equal power. Where a new cell is longer than the recorded one, the unit goes to and fro at its end: in its TP, at least
a tenth of a second. Its slow part, drift, goes on as recorded. So what recordings have, noise that is quiet in TP, louder towards
the QRS and silent in it, stays in its place: texture laid without regard to beats is told from real at once
(docs/evidence/realism.md).

How noise changes from beat to beat is written by a Mamba, one code a beat, under the condition of how loud the donor's own noise
is, lead by lead (unit_model.py). Each code is rendered by the recorded unit that is nearest to the donor's own level and
what the code adds, of many donors of like level; or by the one that was recorded after the last, where that is not much farther. No
sample is decoded by a network.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ecg_batch.donors.bank import Bank
from ecg_batch.donors.level import tp_before_r, unit_levels
from ecg_batch.donors.split import BEFORE_R_S, END_S, JOIN_S, UNLOCKED_ATRIAL
from ecg_batch.errors import UserError
from ecg_batch.kernels import units as units_kernel
from ecg_batch.models.sequences.model import conditions, draw_codes
from ecg_batch.models.sequences.unit_model import UnitModel
from ecg_batch.signal.beats import beat_types
from ecg_batch.signal.filters import low_pass
from ecg_batch.signal.noise import NO_UNIT, counted, has_unit, mean_level, to_and_fro
from ecg_batch.statements import NOISE_KINDS
from ecg_batch.synthesis.retime import Timing, pieces

DRIFT_HZ = 2.0  # below it texture knows nothing of beats
# Drift and the rest are of two people as a rule, so their powers add and not their amplitudes. Where drift has the low-pass D, the
# rest has 1 - L, and |D|^2 is to be 2L - L^2: L as steep, and its edge lower by 1.6, is that within 0.2 dB. Drift up to 3 Hz would
# know of beats (docs/evidence/realism.md).
REST_HZ = DRIFT_HZ / 1.6
CROSSFADE_S = 0.08
LENDERS = 128  # donors of like level, whose units render a record's codes
RECENT = 32  # beats before, none of whose units comes again: noise does not repeat
FOLLOW = 6.0  # so many times the squared distance of the nearest unit, and one goes on as recorded: three beats in five do
NOBODY = -1  # instead of a row of the bank
DRIFT_LENDERS = 16  # the nearest of them, of which one lends its drift
T_END_S, P_BEGINS_S = 0.42, 0.30  # after and before R: beyond, a beat's noise is that of TP
SIDE_BY_SIDE = 16  # records whose codes are drawn side by side
LEAST_TP_S = 0.10  # read to and fro, however short the recorded one is


@dataclass(frozen=True)
class Units:
    """All units that may be lent. Arrays over units, those of a donor in the order of their recording.

    row: of the bank; r: sample of its beat; first, last: samples between which it may be read; level: int64 (unit, lead * band) in
    steps, see noise.py; ordinary: whether its beat is of its recording's most frequent type.
    """

    row: np.ndarray
    r: np.ndarray
    first: np.ndarray
    last: np.ndarray
    level: np.ndarray
    ordinary: np.ndarray

    def __len__(self) -> int:
        return len(self.row)


@dataclass
class UnitIndex:
    """Where the noise of a record may come from. rows: donors whose folds the request allows, of the bank."""

    bank: Bank
    rows: np.ndarray
    model: UnitModel
    units: Units
    level: np.ndarray  # of each donor of the bank, int64 (donor, lead * band)
    _lenders: dict[int, np.ndarray] = field(default_factory=dict, repr=False)
    _in_order: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        donors, leads, samples = self.bank.texture.shape
        self._rest = np.empty((donors, samples, leads), np.int16)  # memory comes as it is filled
        self._slow = np.empty((donors, leads, samples), np.int16)
        self._apart, self._is_slow, self._is_told = np.zeros((3, donors), bool)
        self._told = np.empty((donors, len(self.model.tensors["outer.bias"])), np.float32)
        self._points, self.unit_points = counted(self.level), counted(self.units.level)
        self._code_points = counted(self.model.codebook.astype(np.float64))
        self._by_type = counted(level_by_type(self.bank, self.level).astype(np.float64))
        self._squares, self.unit_squares = (np.square(points).sum(axis=1) for points in (self._points, self.unit_points))
        numbers = np.arange(len(self.bank.table))
        self._first, self._stop = (np.searchsorted(self.units.row, numbers, side) for side in ("left", "right"))
        self._of_kind = [(rows, self._points[rows]) for rows in (self.rows[self.kinds[self.rows] == kind] for kind in range(3))]

    @cached_property
    def for_kernel(self) -> units_kernel.Units:
        units, fs_hz = self.units, self.bank.table.fs_hz
        return units_kernel.all_units(
            level=self.unit_points, square=self.unit_squares, ordinary=units.ordinary, of_first=self._first, of_stop=self._stop,
            row=units.row, r=units.r, first=units.first, last=units.last, rest=self._rest,
            **{name: round(s * fs_hz) for name, s in (("t_end", T_END_S), ("p_begins", P_BEGINS_S), ("least", LEAST_TP_S))},
        )  # fmt: skip

    @cached_property
    def kinds(self) -> np.ndarray:
        """0 ordinary, 1 atrial activity that is not locked to the QRS, 2 paced: their textures differ. (donor,)."""
        atrial = np.any([self.bank.table.holds(code) for code in sorted(UNLOCKED_ATRIAL)], axis=0)
        return np.where(self.bank.table.holds("PACE"), 2, np.where(atrial, 1, 0))

    def lenders(self, host: int) -> np.ndarray:
        """The LENDERS of one row of the bank, nearest in level first, of other patients: of its kind where there are enough."""
        if host not in self._lenders:
            self._lenders[host] = self._found(host)
            self._in_order[host] = np.sort(self._lenders[host])
        return self._lenders[host]

    def lenders_in_order(self, host: int) -> np.ndarray:
        """The same, in the order of the bank."""
        self.lenders(host)
        return self._in_order[host]

    def _found(self, host: int) -> np.ndarray:
        patient = self.bank.table.patient_id
        rows, points = self._of_kind[self.kinds[host]]
        if (patient[rows] != patient[host]).sum() < DRIFT_LENDERS:
            rows, points = self.rows, self._points[self.rows]
        # whole numbers, exact in whatever order they are added; of equals the first in the bank comes first
        gap = self._squares[rows] - 2 * (points @ self._points[host])
        others = np.flatnonzero(patient[rows] != patient[host])
        key = gap[others] * len(rows) + others
        near = np.argpartition(key, LENDERS)[:LENDERS] if len(key) > LENDERS else np.arange(len(key))
        return rows[others[near[np.argsort(key[near])]]]

    def lent(self, host: int) -> np.ndarray:
        """All units of the lenders of one row of the bank, in the order of the bank: (unit,)."""
        rows = self.lenders_in_order(host)
        count = self._stop[rows] - self._first[rows]
        return np.repeat(self._first[rows] - np.cumsum(count) + count, count) + np.arange(count.sum())

    def rendered(self, host: int, codes: np.ndarray, ordinary: np.ndarray) -> np.ndarray:
        """rendered_all of one record: codes, ordinary (beat,)."""
        return self.rendered_all(np.array([host]), np.array([0, len(codes)]), codes, ordinary)

    def rendered_all(self, hosts: np.ndarray, first: np.ndarray, codes: np.ndarray, ordinary: np.ndarray) -> np.ndarray:
        """The unit of each beat of records (beat,): the nearest to the level of its host under beats of that type and what its code
        adds.

        hosts (record,): rows of the bank; record i has the beats first[i] .. first[i + 1] - 1 of codes and ordinary (beat,):
        whether a beat is of its record's most frequent type. It takes a unit of such a beat where there is any, and none that one
        of the RECENT beats before has. The unit that was recorded after that of the beat before is taken where it is not much
        farther (FOLLOW).
        """
        host = np.repeat(hosts, np.diff(first))
        wanted = self._points[host] + self._by_type[np.asarray(ordinary, np.int64), host] + self._code_points[codes]
        if units_kernel.library():
            lenders = [self.lenders_in_order(host) for host in hosts.tolist()]
            return units_kernel.nearest(self.for_kernel, lenders, first, wanted, ordinary, RECENT, FOLLOW)
        each = zip(hosts.tolist(), first, first[1:], strict=False)
        return np.concatenate([plain_nearest(self, self.lent(host), wanted[of:to], ordinary[of:to]) for host, of, to in each])

    def drawn(self, hosts: np.ndarray, uniforms: np.ndarray, temperature: float) -> np.ndarray:
        """Codes of the noise of records (record, beat): hosts (record,), uniforms (record, beat)."""
        return draw_codes(self.model, self._conditions(hosts), uniforms, temperature)

    def _conditions(self, hosts: np.ndarray) -> np.ndarray:
        """What the model is told of rows of the bank, (record, d): worked out when a donor is met, as all of them take 50 ms."""
        fresh = hosts[~self._is_told[hosts]]
        if len(fresh):
            said = self.model.said(self.level[fresh], self.bank.noise[fresh].reshape(len(fresh), -1))
            self._told[fresh], self._is_told[fresh] = conditions(self.model, said), True
        return self._told[hosts]

    def drawn_of(self, hosts: np.ndarray, first: np.ndarray, uniforms: np.ndarray, temperature: float) -> np.ndarray:
        """The same where record i has the beats first[i] .. first[i + 1] - 1: codes (beat,). Records of like length are drawn side
        by side, as many codes for each of them as the longest needs.
        """
        codes, beats = np.empty(first[-1], np.int64), np.diff(first)
        by_length = np.argsort(beats, kind="stable")
        for few in np.split(by_length, range(SIDE_BY_SIDE, len(hosts), SIDE_BY_SIDE)):
            own = np.ascontiguousarray(uniforms[few, : beats[few[-1]]])
            heard = np.arange(own.shape[1]) < beats[few, None]
            codes[(first[few, None] + np.arange(own.shape[1]))[heard]] = self.drawn(hosts[few], own, temperature)[heard]
        return codes

    @cached_property
    def ordinary_in_loop(self) -> np.ndarray:
        """Which beats of each donor's loop are of its most frequent type: bool (donor, beat)."""
        return self.bank.of_loops(self.bank.beat_type == 0)[0]

    def rest(self, row: np.ndarray, sample: np.ndarray) -> np.ndarray:
        """Texture without its drift at samples of rows that were taken apart, (time,) each: int16 (lead, time) in microvolts."""
        return self._rest[row, sample].T

    def drift(self, row: int) -> np.ndarray:
        """The slow part of one row's texture, int16 (lead, time) in microvolts."""
        return self.slow(np.array([row]))[row]

    def slow(self, row: np.ndarray) -> np.ndarray:
        """The slow parts of all rows of the bank, int16 (donor, lead, time) in microvolts, of which those asked for are there."""
        for one in set(row[~self._is_slow[row]].tolist()):
            self._slow[one] = np.rint(self._low(one, DRIFT_HZ))
            self._is_slow[one] = True
        return self._slow

    def take_apart(self, row: np.ndarray) -> None:
        """Where that was not done yet."""
        for one in set(row[~self._apart[row]].tolist()):
            self._rest[one] = (self.bank.texture[one] - np.rint(self._low(one, REST_HZ))).T
            self._apart[one] = True

    def _low(self, row: int, edge_hz: float) -> np.ndarray:
        return low_pass(self.bank.texture[row].astype(np.float64), edge_hz, self.bank.table.fs_hz)


def unit_index(bank: Bank, folds: tuple[int, ...], model: UnitModel, usable: np.ndarray | bool = True) -> UnitIndex:
    """The donors of these folds; usable: bool (donor,), only of these. A bank of before, that does not say how loud its textures
    are, is measured here.
    """
    if bank.unit_level is None:
        bank = replace(bank, **_measured(bank))
    donors = len(bank.table)
    level = mean_level(bank.unit_level).reshape(donors, -1)
    rows = np.flatnonzero(np.isin(bank.table.fold, folds) & has_unit(bank.unit_level).any(axis=1) & usable)
    if len(np.unique(bank.table.patient_id[rows])) < 2:
        raise UserError("texture: units takes texture from other patients than the donor, and the allowed donors are of fewer "
                        "than two. Allow more with donor_folds, or take a larger bank")  # fmt: skip
    return UnitIndex(bank, rows, model, units_of(bank, rows), level)


def level_by_type(bank: Bank, level: np.ndarray) -> np.ndarray:
    """How much louder than its recording's mean (donor, lead * band) the noise is under beats of any other than the most frequent
    type, and of that: whole steps, int64 (2, donor, lead * band). Where a recording has one of the two alone, the former is that of
    the median recording, and the latter 0.

    A rare beat is its own typical beat, and keeps in the skeleton what is texture elsewhere.
    """
    there, other = has_unit(bank.unit_level), np.zeros(bank.unit_level.shape[:2], bool)
    units = min(other.shape[1], bank.beat_type.shape[1] - 2)
    other[:, :units] = bank.beat_type[:, 1 : 1 + units] > 0
    both = np.flatnonzero((there & other).any(axis=1) & (there & ~other).any(axis=1))
    found = np.zeros((2, *level.shape), np.int64)
    if len(both):
        for at, of_type in enumerate((other[both], ~other[both])):
            own = np.where(of_type[..., None, None], bank.unit_level[both], np.int8(NO_UNIT))
            found[at, both] = mean_level(own).reshape(len(both), -1) - level[both]
        found[0, np.setdiff1d(np.arange(len(level)), both)] = np.rint(np.median(found[0, both], axis=0))
    return found


def _measured(bank: Bank) -> dict[str, np.ndarray]:
    """What a bank of format 2 has beside those of format 1; that a reader saw no noise is what is left to say."""
    fs_hz, beats = bank.table.fs_hz, bank.r_sample.shape[1]
    each = [(texture, skeleton, r[r >= 0]) for texture, skeleton, r in zip(bank.texture, bank.skeleton, bank.r_sample, strict=True)]
    types = [beat_types(skeleton.astype(np.float64), r, fs_hz) for _, skeleton, r in each]
    return {
        "unit_level": np.stack([unit_levels(texture, r, fs_hz, beats) for texture, _, r in each]),
        "beat_type": np.stack([np.pad(of, (0, beats - len(of)), constant_values=-1) for of in types]),
        "noise": np.zeros((len(each), len(NOISE_KINDS), bank.texture.shape[1]), np.uint8),
    }


def units_of(bank: Bank, rows: np.ndarray) -> Units:
    """All beats of these rows but the first and the last, whose cells the ends of a recording may cut."""
    fs_hz, r = bank.table.fs_hz, bank.r_sample[rows].astype(np.int64)  # (donor, beat)
    before = tp_before_r(np.diff(r, axis=1), fs_hz)  # of all beats but the first
    end, joint = round((END_S + JOIN_S) * fs_hz), round(CROSSFADE_S * fs_hz / 2)  # so far a cell reaches into the next one
    last = np.minimum(r[:, 2:] - before[:, 1:] + joint, bank.texture.shape[-1] - 1 - end)
    first = np.maximum(np.minimum(r[:, :-2] + round(BEFORE_R_S * fs_hz), r[:, 1:-1] - before[:, :-1] - joint), end)
    level = bank.unit_level[rows, : r.shape[1] - 2]
    donor, beat = np.nonzero(has_unit(level))
    return Units(
        row=rows[donor],
        r=r[donor, beat + 1],
        first=first[donor, beat],
        last=last[donor, beat],
        level=level[donor, beat].reshape(len(donor), -1).astype(np.int64),
        ordinary=bank.beat_type[rows[donor], beat + 1] == 0,
    )


@dataclass(frozen=True)
class Texture:
    """Texture of records of 10 s: finished, or which units are to be laid; and who lent it.

    mv: float64 (record, lead, time), or None where there are cells; rows: of the bank, all of each record; of_beats: of each placed
    beat (beat,), NOBODY where it is not heard.
    """

    mv: np.ndarray | None
    cells: "Cells | None"
    rows: list[np.ndarray]
    of_beats: list[np.ndarray]


@dataclass(frozen=True)
class Cells:
    """Of records, which unit lies under each beat that is heard. Record i has the cells first[i] .. first[i + 1] - 1 of begins, r
    and unit (beat,); drift (record,): rows of the bank that lend the slow part.
    """

    first: np.ndarray
    begins: np.ndarray
    r: np.ndarray
    unit: np.ndarray
    drift: np.ndarray


def of_nobody(mv: np.ndarray, timings: list[Timing]) -> Texture:
    """Texture that was not recorded: mv float64 (record, lead, time)."""
    return Texture(mv, None, [np.empty(0, np.int64)] * len(timings), [np.full(len(timing.placed), NOBODY) for timing in timings])


@dataclass(frozen=True)
class Laid:
    """Which unit lies under each beat of a record, from one before it to one after it: samples r (beat,) and units (beat,)."""

    r: np.ndarray
    unit: np.ndarray


def plain_nearest(index: UnitIndex, pool: np.ndarray, wanted: np.ndarray, ordinary: np.ndarray) -> np.ndarray:
    """Of a pool of units what UnitIndex.rendered says, in numpy: the kernel's reference. wanted (beat, level), ordinary (beat,)."""
    points, squares, chosen = index.unit_points[pool], index.unit_squares[pool], []
    kinds, row = index.units.ordinary[pool], index.units.row[pool]
    for one, kind in zip(wanted, ordinary, strict=True):
        gap = squares - 2 * (points @ one) + np.square(one).sum()  # (unit,), whole multiples: exact
        if (kinds == kind).any():
            gap[kinds != kind] = np.inf
        left = gap.copy()
        left[chosen[-RECENT:]] = np.inf
        at = int((left if np.isfinite(left).any() else gap).argmin())
        after = chosen[-1] + 1 if chosen else len(pool)
        goes_on = after < len(pool) and row[after] == row[after - 1] and left[after] <= FOLLOW * gap[at]
        chosen.append(after if goes_on else at)
    return pool[chosen]


def unit_textures(index: UnitIndex, hosts: np.ndarray, timings: list[Timing], draws: np.ndarray, temperature: float) -> Texture:
    """Texture of records of 10 s: hosts (record,), the rows that their beats are from; draws (record, 1 + beat): who lends the
    drift, then the code of each beat that is heard.
    """
    placed, source = (np.concatenate([getattr(timing, name) for timing in timings]) for name in ("placed", "source"))
    counts = np.array([len(timing.placed) for timing in timings])
    begins, (start, stop) = np.cumsum(counts) - counts, heard(placed, counts, timings[0].samples)
    first = np.concatenate([[0], np.cumsum(stop - start)])
    record = np.repeat(np.arange(len(timings)), stop - start)
    at = (begins + start - first[:-1])[record] + np.arange(first[-1])  # of all placed beats
    codes = index.drawn_of(hosts, first, draws[:, 1:], temperature)
    unit = index.rendered_all(hosts, first, codes, index.ordinary_in_loop[hosts[record], source[at]])
    near = [index.lenders(host)[:DRIFT_LENDERS] for host in hosts.tolist()]
    drift = np.array([rows[int(drawn * len(rows))] for rows, drawn in zip(near, draws[:, 0], strict=True)])
    lent, of_beats = index.units.row[unit], np.full(len(placed), NOBODY)
    of_beats[at] = lent
    index.take_apart(lent)
    cells = Cells(first, _begins(placed[at], first[:-1], index.bank.table.fs_hz), placed[at], unit, drift)
    return Texture(None, cells, _lenders(record, lent, drift), [of_beats[own] for own in pieces(np.append(begins, len(placed)))])


def heard(r: np.ndarray, counts: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Which beats of each record have cells that may reach into its samples 0 .. samples - 1, first and last + 1: (record,) each.

    r (beat,): the beats of all records one after another, ascending in each; counts (record,) of them.
    """
    before, inside = (np.add.reduceat(r < end, np.cumsum(counts) - counts) for end in (0, samples))
    return np.maximum(before - 2, 0), np.minimum(inside + 1, counts)


def _begins(r: np.ndarray, first: np.ndarray, fs_hz: float) -> np.ndarray:
    """Where the cells of beats begin, crossfade included: r (beat,) of records that begin at beats `first`."""
    rr = np.diff(r, prepend=r[0])
    rr[first] = rr[first + 1]  # the first of a record has that after it
    return r - tp_before_r(rr, fs_hz) - fade_samples(fs_hz) // 2


def _lenders(record: np.ndarray, row: np.ndarray, drift: np.ndarray) -> list[np.ndarray]:
    """Of each record who lends its drift, and then whoever lends units, ascending: record, row (beat,), drift (record,)."""
    many = max(row.max(), drift.max()) + 1
    others = row != drift[record]
    key = np.unique(np.concatenate([2 * many * np.arange(len(drift)) + drift, (2 * record[others] + 1) * many + row[others]]))
    rows = key % many
    return [rows[own] for own in pieces(np.searchsorted(key, 2 * many * np.arange(len(drift) + 1)))]


def plain_textures(index: UnitIndex, cells: Cells, samples: int) -> np.ndarray:
    """Units laid, and drift, float64 (record, lead, time) in microvolts: the reference of what record.cpp does."""
    out = np.empty((len(cells.drift), index.bank.texture.shape[1], samples))
    for texture, first, stop, drift in zip(out, cells.first, cells.first[1:], cells.drift.tolist(), strict=False):
        laid = Laid(cells.r[first:stop], cells.unit[first:stop])
        fades = crossfade(index.bank.table.fs_hz)
        rest = plain_laid(index, cells.begins[first:stop], laid, fades, 0, samples)
        np.add(index.drift(drift)[:, :samples], rest, out=texture)
    return out


def rest_of(index: UnitIndex, laid: Laid, start: int, stop: int) -> np.ndarray:
    """What the units say of samples start .. stop - 1: float64 (lead, time) in microvolts, without drift."""
    near_first = max(int(np.searchsorted(laid.r, start)) - 3, 0)  # the cell before the window's first is needed, and its RR
    near = slice(near_first, int(np.searchsorted(laid.r, stop)) + 2)
    laid, fs_hz = Laid(laid.r[near].astype(np.int64), laid.unit[near]), index.bank.table.fs_hz
    begins, fades = _begins(laid.r, np.array([0]), fs_hz), crossfade(fs_hz)
    index.take_apart(index.units.row[laid.unit])
    if units_kernel.library():
        return units_kernel.laid(index.for_kernel, begins, laid.r, laid.unit, fades, start, stop)
    return plain_laid(index, begins, laid, fades, start, stop)


def fade_samples(fs_hz: float) -> int:
    return 2 * round(CROSSFADE_S * fs_hz / 2)


def crossfade(fs_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """By how much the first samples of a cell are multiplied, and those of the cell before: (fade,) each."""
    share = (np.arange(fade_samples(fs_hz)) + 0.5) / fade_samples(fs_hz)
    return np.sqrt(share), np.sqrt(1 - share)


def plain_laid(index: UnitIndex, begins: np.ndarray, laid: Laid, fades, start: int, stop: int) -> np.ndarray:
    """Samples start .. stop - 1 of units laid under beats whose cells begin at begins (beat,): float64 (lead, time) in microvolts.

    fades: by how much the first samples of a cell are multiplied, and by how much those of the cell before, which goes on.
    In numpy: the reference of the kernel that stands in for it.
    """
    (rising, falling), time = fades, np.arange(start, stop)
    now = np.clip(np.searchsorted(begins, time, side="right") - 1, 0, len(begins) - 1)
    row, sample = _source(index, laid, now, time)
    out = index.rest(row, sample).astype(np.float64)
    fading = np.flatnonzero((time - begins[now] < len(rising)) & (now > 0))
    row_before, sample_before = _source(index, laid, now[fading] - 1, time[fading])
    other = (row_before != row[fading]) | (sample_before != sample[fading])  # the same noise goes on, and would get louder
    fading, row_before, sample_before = fading[other], row_before[other], sample_before[other]
    since = time[fading] - begins[now[fading]]
    out[:, fading] = rising[since] * out[:, fading] + falling[since] * index.rest(row_before, sample_before)
    return out


def _source(index: UnitIndex, laid: Laid, beat: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row of the bank, its sample) that show these times of these beats, (time,) each; to and fro in TP beyond a unit's ends."""
    units, unit, fs_hz = index.units, laid.unit[beat], index.bank.table.fs_hz
    r, first, last = units.r[unit], units.first[unit], units.last[unit]
    at = r + time - laid.r[beat]
    least = round(LEAST_TP_S * fs_hz)
    after = np.maximum(last - (r + round(T_END_S * fs_hz)), least)
    before = np.maximum(r - round(P_BEGINS_S * fs_hz) - first, least)
    at = np.where(at > last, last - to_and_fro(at - last, after), at)
    return units.row[unit], np.where(at < first, first + to_and_fro(first - at, before), at)
