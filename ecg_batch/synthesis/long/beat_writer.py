"""Which beats come and when, as the model of rhythm writes them (rhythm_codes.py): for records in fibrillation and of donors
with single ectopic beats. Sinus rhythm stays with rhythm.py, which ties it to breathing and to the donor's own variability, and
bigeminy and trigeminy do.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ecg_batch.donors.bank import DonorTable
from ecg_batch.draws import Stream, generator
from ecg_batch.models.sequences.model import SequenceModel, conditions, draw_codes
from ecg_batch.models.sequences.rhythm_codes import STATEMENTS, SYMBOLS, beats_of, said

WRITTEN = ("AFIB", "PVC", "PAC")  # donors of which one of these is stated ...
IN_TURN = ("BIGU", "TRIGU")  # ... and none of these: over hours the model falls out of every second or third beat, rules keep it
LATEST = 1.0  # cycle of an ectopic beat: what comes later is an escape, which nobody asked for
AFTER_ECTOPIC = (0.5, 1.7)  # cycle of the beat that follows one: from interpolated to a long compensatory pause
TRIES = 4  # sequences until one shows what the record's label says


@dataclass(frozen=True)
class WrittenBeats:
    """symbol str (beat,), of SYMBOLS; cycle (beat,): RR before each over the mean RR."""

    symbol: np.ndarray
    cycle: np.ndarray


class BeatWriter:
    """Draws sequences of beats for records, each a function of its donor, its rate and its own random numbers."""

    def __init__(self, model: SequenceModel, table: DonorTable, seed: int):
        self._model, self._table, self._seed = model, table, seed
        self._held = np.zeros((len(table), len(STATEMENTS)), bool)
        for at, code in enumerate(STATEMENTS):
            self._held[:, at] = table.holds(code) if code in table.codes else False
        written, in_turn = (self._held[:, [STATEMENTS.index(code) for code in codes]].any(axis=1) for codes in (WRITTEN, IN_TURN))
        self._writes = written & ~in_turn
        self._ready: dict[tuple[int, int, float], WrittenBeats] = {}

    def prepare(self, rows: np.ndarray, keys: np.ndarray, hr_bpm: np.ndarray, duration_s: float) -> None:
        """Draws what records with these donors will ask for, all at once: one by one it takes up to sixteen times as long."""
        which = np.flatnonzero(self._writes[rows])
        if len(which):
            rows, keys, hr_bpm = rows[which], keys[which], hr_bpm[which]
            drawn = self._drawn(rows, keys, hr_bpm, beats_for(duration_s, hr_bpm.max()))
            self._ready = dict(zip(zip(rows.tolist(), keys.tolist(), hr_bpm.tolist(), strict=True), drawn, strict=True))

    def sequences(self, row: int, key: int, hr_bpm: float, duration_s: float) -> Iterator[WrittenBeats] | None:
        """Sequences for a record of this donor, for whoever does not like the first; None where its beats are not written here."""
        return self._tries(row, key, hr_bpm, duration_s) if self._writes[row] else None

    def _tries(self, row: int, key: int, hr_bpm: float, duration_s: float) -> Iterator[WrittenBeats]:
        rows, keys, rates, beats = np.array([row]), np.array([key]), np.array([hr_bpm]), beats_for(duration_s, hr_bpm)
        for part in range(TRIES):
            ready = self._ready.get((row, key, hr_bpm)) if part == 0 else None  # as long as the longest of the batch
            found = ready or self._drawn(rows, keys, rates, beats, part)[0]
            yield WrittenBeats(found.symbol[:beats], found.cycle[:beats])

    def _drawn(self, rows, keys, hr_bpm, beats: int, part: int = 0) -> list[WrittenBeats]:
        numbers = np.stack([generator(self._seed, int(key), Stream.BEAT_ORDER, part).random((beats, 2)) for key in keys])
        condition = conditions(self._model, said(self._held[rows], 60 / hr_bpm, self._table.age[rows].astype(np.float64)))
        codes = draw_codes(self._model, condition, np.ascontiguousarray(numbers[..., 0]))
        each = (beats_of(of, own[:, 1]) for of, own in zip(codes, numbers, strict=True))
        return [WrittenBeats(np.array(SYMBOLS)[symbol], cycle) for symbol, cycle in each]


def beats_for(duration_s: float, hr_bpm: float) -> int:
    """Some more beats than a record has."""
    return int(1.3 * hr_bpm * duration_s / 60) + 16


def taken(
    beats: WrittenBeats, fibrillation: bool, shown: frozenset[str], couplets: frozenset[str], factor: float, chance: np.ndarray
) -> WrittenBeats:
    """The beats as a record can show them. shown: the types of ectopic beats that its donor has, couplets: those of which it has
    two; factor: the share of them that is to come, by chance (beat,) in [0, 1).

    In fibrillation all cycles are the model's. Else it says of ectopic beats, one or two in a row, and of what follows them when
    they come; all other normal beats are breathing's. An ectopic beat that cannot come, or is late, is a normal one, in its time.
    """
    symbol, cycle = beats.symbol.copy(), beats.cycle.copy()
    gone = (symbol != "N") & (~np.isin(symbol, sorted(shown)) | (chance >= factor) | ((cycle > LATEST) & (not fibrillation)))
    gone[0] |= symbol[0] != "N"
    in_a_row = 0
    for at in np.flatnonzero((symbol != "N") & ~gone).tolist():
        again = at > 0 and symbol[at - 1] == symbol[at] and not gone[at - 1]
        in_a_row = in_a_row + 1 if again else 1
        gone[at] |= in_a_row > (2 if symbol[at] in couplets else 1)
    symbol[gone] = "N"
    if not fibrillation:
        follows = (symbol == "N") & ~gone & np.append(False, symbol[:-1] != "N")
        cycle[follows] = np.clip(cycle[follows], *AFTER_ECTOPIC)
        cycle[(symbol == "N") & ~follows] = 1.0
    return WrittenBeats(symbol, cycle)
