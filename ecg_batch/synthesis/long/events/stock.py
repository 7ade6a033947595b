"""Stock: the beats that a record with events is made of, by their forms (order.py): its donor's own, what is made of them, and
beats of other patients, brought to this one.

A beat that is lent is turned by the vectorcardiogram to the axis of this patient's QRS and scaled to its voltage, both within
limits, its width and repolarisation changed a little. It brings the TP that it has beside it in its own recording, within which
stitch.py joins it; a flat stretch instead shows. So do premature beats, which are the donor's own with another P wave, junctional
ones, whose P wave runs backwards or is hidden, and fusion beats, which are both at once.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ecg_batch.dataset.beats import WAVES
from ecg_batch.donors.bank import Bank
from ecg_batch.donors.loop import SEAM_S
from ecg_batch.donors.split import UNLOCKED_ATRIAL
from ecg_batch.errors import UserError
from ecg_batch.request.events import LENT
from ecg_batch.signal.interpolate import catmull_rom
from ecg_batch.signal.vcg import INVERSE_DOWER, rotation_of_leads
from ecg_batch.synthesis.long.donor import LongDonor, TooFewBeats, single_beats, with_splices
from ecg_batch.synthesis.long.events.order import SHAPES, SYMBOL_OF, Form

OWN_CELLS = 4  # of the donor's beats that others are made of
# Where beats of two recordings meet, each has noise of its own. The place where both happen to be still would show, and so would
# a long crossfade, in which less is left of either: docs/evidence/events.md. So they meet in the middle, whatever it costs.
CLOSE_UV2, FADE_S = 1e6, 0.02
VERSIONS = 4  # of each shape of a lent beat: no two beats of a heart are the same
GAIN_SD, WIDTH_SD, TURN_SD_DEG = 0.04, 0.03, 3.0  # between these
GAIN_LIMITS, TURN_LIMIT_DEG, WIDTH_LIMITS = (0.5, 2.0), 60.0, (0.85, 1.3)
P_UV = 60.0  # of a P wave that is lent to a donor whose own is lower
TP_S = 0.6  # at most, that a beat brings with it on either side
QRS_AT_R_S, LOWEST_QRS = 0.07, 0.6  # see is_clear
TRIES = 8  # donors of a kind that are drawn; most have a usable beat
WIDE = frozenset({"CLBBB", "CRBBB"})
HOST = -1  # lent by nobody
ATRIAL_KINDS = {"(AFIB": ("fibrillation", 40), "(AFL": ("flutter", 41)}  # who lends it, and the part of the draws
OF_CELL = ("p_on", "qrs_on", "r", "qrs_off", "t_end")


@dataclass(frozen=True)
class Cell:
    """A beat by itself, with its TP on either side, its ends at zero: x (lead, time) in steps; the rest in samples of it, waves
    from R, NaN is absent. row: of the bank, HOST of the donor's own.
    """

    x: np.ndarray
    p_on: int
    qrs_on: int
    r: int
    qrs_off: int
    t_end: int
    waves: np.ndarray
    row: int


@dataclass(frozen=True)
class PWave:
    """A P wave by itself: x (lead, time) in steps, zero at its ends; onset, peak and end in samples of it."""

    x: np.ndarray
    marks: tuple[float, float, float]
    row: int = HOST


@dataclass(frozen=True)
class Stock:
    """donor: with all beats of the stock. pools: of each form its beats; row (beat,): whose they are. p_waves: the donor's, and
    that of its premature beats. atrial: of "(AFIB" and "(AFL" the row and the waves (lead, time).
    """

    donor: LongDonor
    pools: dict[int, np.ndarray]
    row: np.ndarray
    p_waves: tuple[PWave | None, PWave | None]
    atrial: dict[str, tuple[int, np.ndarray]]


@dataclass(frozen=True)
class Lenders:
    """Rows of the bank that may lend: ventricular and paced beats, such with a bundle branch block, pre-excited ones; fibrillation,
    flutter; P waves.
    """

    bank: Bank
    ventricular: np.ndarray
    paced: np.ndarray
    wide: np.ndarray
    preexcited: np.ndarray
    fibrillation: np.ndarray
    flutter: np.ndarray
    sinus: np.ndarray

    def kinds_for(self, host: int) -> frozenset[str]:
        """Which kinds some other patient may lend to a row of the bank."""
        patient = self.bank.table.patient_id
        return frozenset(kind for kind in LENT if (patient[getattr(self, kind)] != patient[host]).any())

    def some(self, kind: str, host: int, draws: np.random.Generator) -> Iterator[tuple[int, LongDonor]]:
        """Donors of a kind, of other patients: TRIES by lot, then all of them."""
        rows = getattr(self, kind)
        rows = rows[self.bank.table.patient_id[rows] != self.bank.table.patient_id[host]]
        drawn = rows[draws.integers(len(rows), size=TRIES)] if len(rows) else rows
        for row in [*drawn.tolist(), *rows.tolist()]:
            try:
                yield row, single_beats(self.bank, row)
            except TooFewBeats:
                continue


def lenders_of_beats(bank: Bank, rows: np.ndarray, symbol: np.ndarray) -> Lenders:
    """Of these rows of the bank; symbol (donor, beat): of donor_marks.bank_marks."""
    table = bank.table

    def held(*codes: str) -> np.ndarray:
        return np.any([table.holds(code)[rows] for code in codes], axis=0)

    paced, unlocked = held("PACE"), held(*sorted(UNLOCKED_ATRIAL))
    return Lenders(
        bank,
        ventricular=rows[(symbol[rows] == "V").any(axis=1)],
        paced=rows[paced],
        wide=rows[held(*sorted(WIDE)) & ~unlocked & ~paced],
        preexcited=rows[held("WPW") & ~unlocked & ~paced],
        fibrillation=rows[held("AFIB")],
        flutter=rows[held("AFLT")],
        sinus=rows[held("SR") & ~unlocked & ~paced],
    )


def stocked(
    lenders: Lenders,
    host_row: int,
    host: LongDonor,
    needed: Iterable[int],
    atrial: Iterable[str],
    draws_of: Callable[[int], np.random.Generator],
) -> Stock:
    """The stock of one record. needed: forms that its order has; atrial: its paroxysms; draws_of: the generator of a part."""
    return _Builder(lenders, host_row, host, draws_of).built(frozenset(needed), frozenset(atrial))


class _Builder:
    def __init__(self, lenders: Lenders, host_row: int, host: LongDonor, draws_of: Callable[[int], np.random.Generator]):
        self._lenders, self._row, self._host, self._draws_of, self._draws = lenders, host_row, host, draws_of, draws_of(0)
        normal = np.flatnonzero(host.symbol == "N")
        self._own = [cell_of(host, beat, HOST) for beat in normal[np.linspace(0, len(normal) - 1, OWN_CELLS).astype(int)]]

    def built(self, needed: frozenset[int], atrial: frozenset[str]) -> Stock:
        """Each part has numbers of its own, so that what a record has beside it changes none."""
        own_p, other_p = own_p_wave(self._host), self._another_p(self._draws_of(0))
        lent, pools = [], {Form.OWN: np.flatnonzero(self._host.symbol == "N")}
        for form in sorted(needed - {Form.OWN}):
            self._draws = self._draws_of(form)
            cells, own = self._cells(form, other_p)
            pools[form] = np.concatenate([own, len(self._host.r) + len(lent) + np.arange(len(cells))]).astype(np.int64)
            lent += [(form, cell) for cell in cells]
        donor = _joined(self._host, [cell for _, cell in lent], [_symbol(form) for form, _ in lent])
        rows = np.concatenate([np.full(len(self._host.r), HOST), np.array([cell.row for _, cell in lent], np.int64)])
        waves = {aux: self._atrial(kind, self._draws_of(part)) for aux, (kind, part) in ATRIAL_KINDS.items() if aux in atrial}
        return Stock(with_splices(donor, CLOSE_UV2), pools, rows, (own_p, other_p), waves)

    def _cells(self, form: int, other_p: PWave | None) -> tuple[list[Cell], np.ndarray]:
        """(new beats of a form, those of the donor that are of it)."""
        none = np.empty(0, np.int64)
        if Form.VENTRICULAR <= form < Form.VENTRICULAR + SHAPES:
            own = np.flatnonzero(self._host.symbol == "V")
            own = own[[is_clear(self._host, beat) for beat in own.tolist()]]
            if len(own) and self._draws.random() < 0.5:
                return [], own
            return self._versions("ventricular", "V"), none
        if form == Form.IDIOVENTRICULAR:
            return self._versions("ventricular", "V"), none
        if form == Form.PACED:
            return self._versions("paced", "N"), none
        if form in (Form.BRANCH, Form.PREEXCITED):
            return self._versions("wide" if form == Form.BRANCH else "preexcited", "N"), none
        if form == Form.ABERRANT:
            return [with_p(cell, other_p, self._host.fs_hz) for cell in self._versions("wide", "N")], none
        if form == Form.FUSION:
            wide = self._versions("ventricular", "V")
            return [fused(cell, other, self._draws.uniform(0.35, 0.65)) for cell, other in zip(self._own, wide, strict=True)], none
        if form in (Form.JUNCTIONAL, Form.ESCAPE):
            back = own_p_wave(self._host) if self._draws.random() < 0.5 else None
            back = back and replace(_shortened(back, 0.6), x=-0.7 * _shortened(back, 0.6).x)
            return [with_p(cell, back, self._host.fs_hz) for cell in self._own], none
        if form == Form.PREMATURE:
            return [with_p(cell, other_p, self._host.fs_hz) for cell in self._own], none
        return [without_p(cell) for cell in self._own], none

    def _versions(self, kind: str, symbol: str) -> list[Cell]:
        """VERSIONS of one beat of another patient, or of two of its beats. UserError where nobody has one."""
        for row, guest in self._lenders.some(kind, self._row, self._draws):
            beats = np.flatnonzero(guest.symbol == symbol)
            beats = beats[[symbol != "V" or is_clear(guest, beat) for beat in beats.tolist()]]
            if not len(beats) or not (guest.symbol == "N").any():
                continue
            move = self._brought(guest)
            width = self._draws.uniform(*WIDTH_LIMITS)
            made = []
            for beat in np.resize(beats[:2], VERSIONS).tolist():
                cell = cell_of(guest, beat, row)
                if symbol == "V" or kind == "paced":
                    cell = without_p(cell)
                gain, wide, turn = self._draws.standard_normal(3) * (GAIN_SD, WIDTH_SD, np.deg2rad(TURN_SD_DEG))
                axis = self._draws.standard_normal(3)
                by = np.exp(gain) * (np.eye(8) + rotation_of_leads(axis / np.linalg.norm(axis), turn)) @ move
                longer = np.cbrt(self._host.rr_samples / guest.rr_samples)
                made.append(_timed(replace(cell, x=by @ cell.x), width * np.exp(wide) if symbol == "V" else 1.0, longer))
            return made
        raise nobody_lends(kind)

    def _brought(self, guest: LongDonor) -> np.ndarray:
        """What turns a guest's leads to this patient's axis and voltage: (8, 8)."""
        axis, turn = _turn(_qrs_axis(guest), _qrs_axis(self._host), np.deg2rad(TURN_LIMIT_DEG))
        return self._gain(guest) * np.exp(0.15 * self._draws.standard_normal()) * (np.eye(8) + rotation_of_leads(axis, turn))

    def _gain(self, guest: LongDonor) -> float:
        return float(np.clip(_qrs_rms(self._host) / max(_qrs_rms(guest), 1.0), *GAIN_LIMITS))

    def _another_p(self, draws: np.random.Generator) -> PWave | None:
        """The P wave of this patient's premature beats: another patient's, turned; in one patient of seven it is not seen."""
        hidden, turn, gain, length = draws.uniform((0, 0, 0.4, 0.8), (1, np.pi, 1.3, 1.3))
        axis = draws.standard_normal(3)
        if hidden < 0.15:
            return None
        own = own_p_wave(self._host)
        height = max(np.abs(own.x).max() if own else 0.0, P_UV)
        for row, guest in self._lenders.some("sinus", self._row, draws):
            found = p_wave_of(cell_of(guest, int(np.flatnonzero(guest.symbol == "N")[0]), HOST))
            if found and (peak := np.abs(found.x).max()) > P_UV / 3:
                by = gain * height / peak * (np.eye(8) + rotation_of_leads(axis / np.linalg.norm(axis), turn))
                return _shortened(replace(found, x=by @ found.x, row=row), length)
        return None

    def _atrial(self, kind: str, draws: np.random.Generator) -> tuple[int, np.ndarray]:
        """(row, waves) of another patient's fibrillation or flutter. UserError where nobody has any."""
        for row, guest in self._lenders.some(kind, self._row, draws):
            if guest.atrial is not None:
                return row, self._gain(guest) * guest.atrial
        raise nobody_lends(kind)


def nobody_lends(kind: str) -> UserError:
    statements, names = LENT[kind]
    return UserError(
        f"events: no other patient of the allowed folds lends {kind} beats, for the bank has no usable beat of a donor that holds "
        f"{' or '.join(sorted(statements))}. Leave out {', '.join(names)}, allow more donor_folds, or take a larger bank"
    )


def _symbol(form: int) -> str:
    return SYMBOL_OF.get(form, "V")


# Beats by themselves ----------------------------------------------------------------------------------------------------


def cell_of(donor: LongDonor, beat: int, row: int) -> Cell:
    """One beat of a donor with the TP beside it, the straight line between its ends taken away."""
    most = round(TP_S * donor.fs_hz)
    start = int(max(donor.first[beat], donor.p_on[beat] - most))
    stop = int(min(donor.last[beat], donor.t_end[beat] + most)) + 1
    piece = donor.x[:, start:stop]
    straight = np.linspace(0, 1, piece.shape[1])
    x = piece - piece[:, :1] - (piece[:, -1:] - piece[:, :1]) * straight
    at = (int(getattr(donor, name)[beat]) - start for name in OF_CELL)
    return Cell(x, *at, waves=donor.waves[beat], row=row)


def is_clear(donor: LongDonor, beat: int) -> bool:
    """Whether an ectopic beat's QRS stands where its R is marked, and is not much lower than those of the donor's others.

    Of 265 ventricular beats in the bundled bank 16 do not: noise that was taken for a beat, or an R beside its QRS.
    """
    near = round(QRS_AT_R_S * donor.fs_hz)
    speed = np.linalg.norm(np.diff(donor.x[:, donor.qrs_on[beat] - near : donor.qrs_off[beat] + near + 1], axis=1), axis=0)
    off = int(speed.argmax()) - near - (donor.r[beat] - donor.qrs_on[beat])
    return abs(off) <= near and _qrs_rms(donor, beat) >= LOWEST_QRS * _qrs_rms(donor)


def p_wave_of(cell: Cell) -> PWave | None:
    """The P wave of a beat, from its onset to the QRS; None where there is none."""
    marks = cell.waves[: WAVES.index("p_end") + 1] + cell.r
    if np.isnan(marks).any() or cell.qrs_on - cell.p_on < 4:
        return None
    x = cell.x[:, cell.p_on : cell.qrs_on + 1]
    return PWave(x - np.linspace(x[:, 0], x[:, -1], x.shape[1], axis=1), tuple(np.clip(marks - cell.p_on, 0, x.shape[1] - 1)))


def own_p_wave(donor: LongDonor) -> PWave | None:
    """That of a donor's first normal beat that has one."""
    found = (p_wave_of(cell_of(donor, beat, HOST)) for beat in np.flatnonzero(donor.symbol == "N").tolist())
    return next((wave for wave in found if wave), None)


def without_p(cell: Cell) -> Cell:
    """A beat with a straight line from the onset of P to the QRS; its TP may be joined up to there."""
    x, waves = cell.x.copy(), cell.waves.copy()
    x[:, cell.p_on : cell.qrs_on + 1] = np.linspace(x[:, cell.p_on], x[:, cell.qrs_on], cell.qrs_on - cell.p_on + 1, axis=1)
    waves[: WAVES.index("p_end") + 1] = np.nan
    return replace(cell, x=x, p_on=max(cell.qrs_on - 1, 0), waves=waves)


def with_p(cell: Cell, wave: PWave | None, fs_hz: int) -> Cell:
    """A beat with this P wave instead of its own."""
    if wave is None:
        return without_p(cell)
    bare, length = without_p(cell), wave.x.shape[1] - 1
    more = max(length - cell.qrs_on, 0)  # before the beat
    x = np.concatenate([np.repeat(bare.x[:, :1], more, axis=1), bare.x], axis=1)
    qrs_on = cell.qrs_on + more
    x[:, qrs_on - length : qrs_on + 1] += wave.x
    waves = bare.waves.copy()
    waves[:3] = np.array(wave.marks) + qrs_on - length - (cell.r + more)
    return Cell(x, qrs_on - length, qrs_on, cell.r + more, cell.qrs_off + more, cell.t_end + more, waves,
                wave.row if cell.row == HOST else cell.row)  # fmt: skip


def fused(one: Cell, other: Cell, share: float) -> Cell:
    """Both beats at once, R on R: the P wave of the first, and so much of the second's QRS and T, which comes in until R."""
    r, after = max(one.r, other.r), max(one.x.shape[1] - one.r, other.x.shape[1] - other.r)
    offset, waves = r - one.r, one.waves.copy()
    at = {name: pick(getattr(one, name) - one.r, getattr(other, name) - other.r) + r
          for name, pick in (("qrs_on", min), ("qrs_off", max), ("t_end", max))}  # fmt: skip
    first, second = (np.pad(cell.x, ((0, 0), (r - cell.r, after - cell.x.shape[1] + cell.r))) for cell in (one, other))
    come = np.clip((np.arange(r + after) - at["qrs_on"]) / max(r - at["qrs_on"], 1), 0, 1)
    x = first + share * come * (second - first)
    bounds = np.stack([one.waves, other.waves])
    for name, pick in (("qrs_on", np.fmin), ("qrs_end", np.fmax), ("t_on", np.fmin), ("t_end", np.fmax)):
        waves[WAVES.index(name)] = pick.reduce(bounds[:, WAVES.index(name)])
    p_end = WAVES.index("p_end")
    if not waves[p_end] < waves[WAVES.index("qrs_on")]:
        waves[: p_end + 1] = np.nan
    return Cell(x, min(one.p_on + offset, at["qrs_on"] - 1), r=r, waves=np.fmax.accumulate(waves), row=other.row, **at)


def _shortened(wave: PWave, factor: float) -> PWave:
    """A P wave that takes so much longer, or less long, to reach the QRS."""
    last = wave.x.shape[1] - 1
    length = max(round(last * factor), 4)
    x = catmull_rom(_edged(wave.x), 1 + np.linspace(0, last, length + 1)).T
    return PWave(x, tuple(np.array(wave.marks) * length / last), wave.row)


def _timed(cell: Cell, width: float, longer: float) -> Cell:
    """A beat with a QRS that is so much wider and a repolarisation so much longer."""
    qrs_on, qrs_off = (round((at - cell.r) * width) for at in (cell.qrs_on, cell.qrs_off))
    p_on, t_end = qrs_on - (cell.qrs_on - cell.p_on), qrs_off + max(round((cell.t_end - cell.qrs_off) * longer), 3)
    lead = cell.p_on  # what lies before P
    tail = cell.x.shape[1] - 1 - cell.t_end
    old = np.array([0, cell.p_on, cell.qrs_on, cell.r, cell.qrs_off, cell.t_end, cell.t_end + tail], float)
    new = np.array([p_on - lead, p_on, qrs_on, 0, qrs_off, t_end, t_end + tail], float) + lead - p_on
    old, new = (np.maximum.accumulate(corners + 1e-6 * np.arange(7)) for corners in (old, new))
    r = lead - p_on
    x = catmull_rom(_edged(cell.x), 1 + np.interp(np.arange(r + t_end + tail + 1), new, old)).T
    waves = np.interp(cell.waves + cell.r, old, new) - r
    waves[np.isnan(cell.waves)] = np.nan
    return Cell(x, p_on + r, qrs_on + r, r, qrs_off + r, t_end + r, waves, cell.row)


def _edged(x: np.ndarray) -> np.ndarray:
    """(time, lead), with a sample more before and two after, as interpolation needs them."""
    return np.pad(x, ((0, 0), (1, 2)), mode="edge").T


def _joined(host: LongDonor, cells: list[Cell], symbols: list[str]) -> LongDonor:
    """The donor with these beats behind its own, each between flat stretches, which are read only where it has faded."""
    pad, at = 2 * round(SEAM_S * host.fs_hz) + 2, host.x.shape[1]
    pieces, columns = [host.x], {name: [getattr(host, name)] for name in (*OF_CELL, "first", "last")}
    for cell in cells:
        pieces.append(host.level[:, None] + np.pad(cell.x, ((0, 0), (pad, pad))))
        begins = at + pad
        for name in OF_CELL:
            columns[name].append([begins + getattr(cell, name)])
        columns["first"].append([begins])
        columns["last"].append([begins + cell.x.shape[1] - 1])
        at += pieces[-1].shape[1]
    arrays = {name: np.concatenate(values).astype(np.int64) for name, values in columns.items()}
    waves = np.concatenate([host.waves, *(cell.waves[None] for cell in cells)])
    symbol = np.concatenate([host.symbol, np.array(symbols, host.symbol.dtype)])
    return replace(host, x=np.concatenate(pieces, axis=1), symbol=symbol, waves=waves, fade_s=FADE_S, **arrays)


# Axis and voltage of a QRS ----------------------------------------------------------------------------------------------


def _qrs(donor: LongDonor, beat: int | None = None) -> np.ndarray:
    """The QRS of a beat, by default of the first normal one, about its onset: (lead, time)."""
    beat = np.flatnonzero(donor.symbol == "N")[0] if beat is None else beat
    x = donor.x[:, donor.qrs_on[beat] : donor.qrs_off[beat] + 1]
    return x - x[:, :1]


def _qrs_axis(donor: LongDonor) -> np.ndarray:
    return INVERSE_DOWER @ _qrs(donor).mean(axis=1)


def _qrs_rms(donor: LongDonor, beat: int | None = None) -> float:
    return float(np.sqrt(np.square(_qrs(donor, beat)).mean()))


def _turn(start: np.ndarray, goal: np.ndarray, most_rad: float) -> tuple[np.ndarray, float]:
    """(unit axis (3,), angle) of the shortest turn from one vector towards the other, at most so far."""
    axis = np.cross(start, goal)
    length = np.linalg.norm(axis)
    if length < 1e-9:
        return np.array([0.0, 0.0, 1.0]), 0.0
    return axis / length, min(float(np.arctan2(length, start @ goal)), most_rad)
