"""Before the first minute of a long record: its donor, its rhythm, where each of its beats comes from."""

from dataclasses import dataclass

import numpy as np

from ecg_batch.donors.bank import DonorTable
from ecg_batch.donors.usable import MIN_BEATS
from ecg_batch.draws import Stream, generator
from ecg_batch.errors import UserError
from ecg_batch.leads import MV_PER_UV, to_uv, twelve_leads
from ecg_batch.request.model import Request
from ecg_batch.signal.filters import low_pass_of
from ecg_batch.statements import SUPERCLASSES
from ecg_batch.synthesis.batch import candidate_rows
from ecg_batch.synthesis.check import check
from ecg_batch.synthesis.donor_marks import rhythms_of
from ecg_batch.synthesis.long.donor import LongDonor, TooFewBeats, lacks_ectopic, long_donor
from ecg_batch.synthesis.long.respiration import Respiration, respiration_of, with_respiration
from ecg_batch.synthesis.long.rhythm import VARIABILITY, DonorRhythm, make_rhythm
from ecg_batch.synthesis.long.stitch import Placed, place, stitch
from ecg_batch.synthesis.queries import Queries
from ecg_batch.synthesis.retrieve import MAX_STRETCH, contradictions
from ecg_batch.synthesis.synthesizer import Synthesizer


@dataclass(frozen=True)
class LongRecord:
    """One record before its minutes are made: its donor with its beats, all that is known beforehand."""

    donor_row: int  # in the bank
    donor: LongDonor
    changes: list[tuple[float, str]]  # time in s and WFDB aux of each rhythm
    placed: Placed
    respiration: Respiration
    hr_bpm: float
    flags: list[str]

    def skeleton(self, start: int, stop: int) -> np.ndarray:
        """Samples start .. stop - 1, float64 (lead, time) mV."""
        beats_uv = stitch(self.donor, self.placed, start, stop)
        return MV_PER_UV * with_respiration(beats_uv, self.donor.level, self.respiration, start)


def begin_records(synthesizer: Synthesizer, queries: Queries) -> list[LongRecord]:
    """Each record with the first of its donors whose first minute passes the gate, or the one with the fewest flags; with one whose
    ectopic beats bring their neighbours rather than one whose do not.
    """
    return [_begin(synthesizer, queries, at, rows) for at, rows in enumerate(candidate_rows(synthesizer, queries))]


def _begin(synthesizer: Synthesizer, queries: Queries, at: int, rows: np.ndarray) -> LongRecord:
    attempts, best = synthesizer.request.attempts, None
    for row in dict.fromkeys(rows[:attempts].tolist()):  # where a label has few donors, they come again
        try:
            tried = _with_donor(synthesizer, row, int(queries.key[at]), float(queries.hr_bpm[at]))
        except TooFewBeats:
            continue
        best = tried if best is None else min(best, tried, key=_shortcomings)
        if not any(_shortcomings(best)):
            return best
    if best is None:
        raise UserError(
            f"record {queries.record[at]}: no donor for {queries.label[at]} among {attempts} tried has {MIN_BEATS} usable "
            "beats, so there is nothing to make a long record of. Raise attempts and k, or ask for a label with more donors"
        )
    return best


def _shortcomings(made: LongRecord) -> tuple[int, bool]:
    return len(made.flags), made.donor.ectopic_spliced


def _with_donor(synthesizer: Synthesizer, row: int, key: int, hr_bpm: float) -> LongRecord:
    """A record with one donor, its draws by this key, and the flags that are known before its first minute is made."""
    request, table = synthesizer.request, synthesizer.bank.table
    own_bpm = float(table.hr_bpm[row])
    hr_bpm = own_bpm if np.isnan(hr_bpm) else hr_bpm
    donor = long_donor(synthesizer.bank, row)
    allowed = DonorRhythm(own_bpm, "AFIB" in donor.codes, donor.ectopic, _variability(table, row), float(table.age[row]),
                          donor.beat_to_beat)  # fmt: skip
    rhythm_draws = generator(request.seed, key, Stream.LONG_RHYTHM)
    rhythm = make_rhythm(request.rhythm, allowed, hr_bpm, request.duration_s, rhythm_draws, request.start_hour)
    beat_draws = generator(request.seed, key, Stream.LONG_BEATS)
    placed = place(donor, rhythm.r_s, rhythm.symbol, rhythm.qt_rr_s, request.samples, beat_draws)
    flags = ["rate_statement"] * bool(contradictions(synthesizer.donors, np.array([row]), np.array([hr_bpm]))[0])
    flags += ["stretch"] * bool(abs(np.log(hr_bpm / (60 * request.fs_hz / donor.rr_samples))) > np.log(MAX_STRETCH))
    flags += ["ectopic"] * lacks_ectopic(donor)
    rhythm_aux = str(rhythms_of(table, np.array([row]))[0])
    made = LongRecord(row, donor, [(0.0, rhythm_aux)], placed, respiration_of(rhythm, placed.r[1:-1]), hr_bpm, flags)
    made.flags.extend(_flags_of_first_minute(made, request))
    return made


def _flags_of_first_minute(made: LongRecord, request: Request) -> list[str]:
    """What the gate says of the skeleton, but of its rate: the mean is asked of the whole record."""
    first = min(request.samples, request.minute_samples)
    skeleton = low_pass_of(made.skeleton, 0, first, request.samples, request.lowpass_hz, request.fs_hz)
    beats = made.placed.r[(made.placed.r >= 0) & (made.placed.r < first)]
    _, gate = check(twelve_leads(to_uv(skeleton)), beats, made.hr_bpm, request.fs_hz)
    return [flag for flag in gate if flag != "heart_rate"]


def _variability(table: DonorTable, row: int) -> float:
    """Factor on heart rate variability from the donor's superclasses: the least of them."""
    held = table.superclasses()[row]
    return min((VARIABILITY[name] for name, holds in zip(SUPERCLASSES, held, strict=True) if holds), default=1.0)
