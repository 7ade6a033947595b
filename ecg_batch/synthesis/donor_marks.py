"""Marks: type and waves of each beat of the donors, and their rhythms, of a whole bank at once. annotate.py carries them into
records.
"""

from dataclasses import dataclass

import numpy as np

from ecg_batch.dataset.beats import WAVES
from ecg_batch.donors.bank import Bank, DonorTable
from ecg_batch.donors.symbols import IRREGULAR, held, symbols_of
from ecg_batch.rhythm_words import RHYTHM_OF_STATEMENT
from ecg_batch.signal.beats import beat_types
from ecg_batch.signal.delineate import T_BEGINS_S
from ecg_batch.signal.marks import MARKS, read_marks

LONGEST_P_MS, OF_PR = 110.0, 0.4  # the P wave of banks that know its onset only; PR at most this share of the RR before
OF_BANK = [MARKS.index(name) for name in WAVES]  # all but R, which a row's sample is
# Of statements that say more than the rhythm model does; the first that a donor holds
RHYTHM_OF = {code: RHYTHM_OF_STATEMENT[code] for code in ("AFIB", "AFLT", "SVTAC", "PSVT", "BIGU", "PACE", "SBRAD")}


@dataclass(frozen=True)
class Marks:
    """Of a bank. symbol: str (donor, beat), as records state it; wave_ms: from R, float32 (donor, beat, wave), NaN is absent;
    rhythm: str (donor,), WFDB's aux; first: (donor,), the first beat that lies in the donor's loop.
    """

    symbol: np.ndarray
    wave_ms: np.ndarray
    rhythm: np.ndarray
    first: np.ndarray


def bank_marks(bank: Bank) -> Marks:
    """The marks of all donors."""
    donors, most = np.arange(len(bank.table)), int((bank.r_sample >= 0).sum(axis=1).max())
    r = bank.r_sample[:, :most]
    codes, likelihood = bank.table.codes, bank.table.likelihood[donors]
    symbol = symbols_of(codes, likelihood, r, _types(bank)[:, :most])
    first = ((r >= 0) & (r < bank.loop_start[:, None])).sum(axis=1)
    stated = stated_symbols(symbol, held(codes, likelihood, {"PACE"})[:, None])
    return Marks(stated, waves_of(bank, donors, symbol).astype(np.float32), rhythms_of(bank.table, donors), first)


def _types(bank: Bank) -> np.ndarray:
    """Types of beats (donor, beat), 0 the most frequent; those of banks that do not know them are found here."""
    if bank.beat_type is not None:
        return bank.beat_type
    types = np.full(bank.r_sample.shape, -1)
    for donor, own in enumerate(types):
        r = bank.beats(donor)
        own[: len(r)] = beat_types(bank.skeleton[donor].astype(np.float64), r, bank.table.fs_hz)
    return types


def rhythms_of(table: DonorTable, donors: np.ndarray) -> np.ndarray:
    """The rhythm of records of each donor: str (donor,)."""
    likelihood = table.likelihood[donors]
    return np.select([held(table.codes, likelihood, {code}) for code in RHYTHM_OF], list(RHYTHM_OF.values()), "(N")


def stated_symbols(symbol: np.ndarray, paced: np.ndarray | bool) -> np.ndarray:
    """As records state them: Q what symbols_of knows no name for, / the main rhythm of a paced donor."""
    return np.where(symbol == "", "Q", np.where((symbol == "N") & paced, "/", symbol))


def waves_of(bank: Bank, donors: np.ndarray, symbol: np.ndarray) -> np.ndarray:
    """Milliseconds from R of each beat of these donors, (donor, beat, wave), NaN is absent. symbol (donor, beat): of symbols_of."""
    if bank.wave_ms is None:
        return _of_typical_beat(bank, donors, symbol)
    return read_marks(bank.wave_ms[donors, : symbol.shape[1]][..., OF_BANK])


def _of_typical_beat(bank: Bank, donors: np.ndarray, symbol: np.ndarray) -> np.ndarray:
    """waves_of where the bank knows onsets and ends of the typical beat only: peaks are put in the middle."""
    ms = 1000 / bank.table.fs_hz
    names = ("p_on", "qrs_on", "qrs_off", "t_end")
    p_on, qrs_on, qrs_end, t_end = (getattr(bank, name)[donors, None] * ms for name in names)
    rr = np.diff(bank.r_sample[donors, : symbol.shape[1]], prepend=-1_000_000) * ms
    begins = qrs_on - np.minimum(qrs_on - p_on, OF_PR * rr)
    ends = np.minimum(begins + LONGEST_P_MS, qrs_on)
    t_on = np.minimum(qrs_end + 1000 * T_BEGINS_S, t_end)
    no_p = (symbol == "V") | held(bank.table.codes, bank.table.likelihood[donors], IRREGULAR)[:, None] | (qrs_on - p_on < 1.5 * ms)
    no_t = t_end - qrs_end < 2 * ms
    p, t = [begins, (begins + ends) / 2, ends], [t_on, (t_on + t_end) / 2, t_end]
    each = [*(np.where(no_p, np.nan, mark) for mark in p), qrs_on, qrs_end, *(np.where(no_t, np.nan, mark) for mark in t)]
    return np.stack(np.broadcast_arrays(*each), axis=-1)
