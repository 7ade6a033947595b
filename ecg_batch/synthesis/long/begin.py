"""Before the first minute of a long record: its donor, its rhythm, where each of its beats comes from."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ecg_batch.dataset.beats import WAVES
from ecg_batch.donors.bank import DonorTable
from ecg_batch.donors.split import UNLOCKED_ATRIAL
from ecg_batch.donors.usable import MIN_BEATS
from ecg_batch.draws import Stream, generator
from ecg_batch.errors import UserError
from ecg_batch.leads import MV_PER_UV, to_uv, twelve_leads
from ecg_batch.request.events import OVERLAYS
from ecg_batch.request.model import Request
from ecg_batch.request.places import Place, places_of
from ecg_batch.signal.filters import low_pass_of
from ecg_batch.statements import SUPERCLASSES
from ecg_batch.synthesis.batch import candidate_rows
from ecg_batch.synthesis.check import check
from ecg_batch.synthesis.donor_marks import rhythms_of
from ecg_batch.synthesis.long.check import MinuteCheck, check_minute
from ecg_batch.synthesis.long.donor import LongDonor, TooFewBeats, lacks_ectopic, long_donor, single_beats
from ecg_batch.synthesis.long.events.activity import drawn_activity, most_surge, quickened
from ecg_batch.synthesis.long.events.atrial import Atrial, atrial_of
from ecg_batch.synthesis.long.events.overlays import Overlays, drawn_overlays
from ecg_batch.synthesis.long.events.patient import Asked, Host, drawn_habits, drawn_rates
from ecg_batch.synthesis.long.events.stock import HOST, own_p_wave, stocked
from ecg_batch.synthesis.long.events.write_order import Crowded, write_order
from ecg_batch.synthesis.long.respiration import Respiration, respiration_of, with_respiration, with_wandering
from ecg_batch.synthesis.long.rhythm import VARIABILITY, DonorRhythm, make_rhythm
from ecg_batch.synthesis.long.stitch import Placed, carried, place, place_forms, stitch, with_varied_qt
from ecg_batch.synthesis.queries import Queries
from ecg_batch.synthesis.retrieve import MAX_STRETCH, contradictions
from ecg_batch.synthesis.synthesizer import Synthesizer

NARROW = ("N", "A", "J", "j")  # of the beats of a record with events, those with the QRS of its main rhythm
BEFORE_BEAT_S = 0.12  # a rhythm is annotated so long before its first R, or before that beat's P wave
BIGEMINY, SHOWN_FROM = "(B", 0.35  # which a donor states; from this share of ventricular beats on it shows
FROM_VENTRICLE = ("V", "E", "F")  # of which no two are the same
OF_EACH_BEAT = 50  # part of the draws of lent beats; those below are stock.py's
SHORTEST_PR_S = 0.1  # of a donor whose P wave can be laid apart


class CannotHave(Exception):
    """A donor to which an event cannot come that has its place in the record."""

    def __init__(self, place: Place):
        self.place = place


@dataclass(frozen=True)
class LongRecord:
    """One record before its minutes are made: its donor with its beats, lent ones too, and all that is known beforehand."""

    donor_row: int  # in the bank
    donor: LongDonor
    changes: list[tuple[float, str]]  # time in s and WFDB aux of each rhythm
    placed: Placed
    respiration: Respiration
    hr_bpm: float
    flags: list[str]
    atrial: Atrial | None = None  # of a record with events, as the next two
    overlays: Overlays | None = None
    lent: np.ndarray | None = None  # (beat of `donor`,), the row of the bank that it is from, stock.HOST of its own
    written: bool = False  # whether the model of rhythm says which beat comes

    def wide_beats(self) -> np.ndarray | None:
        """Which of the beats inside the record have another QRS than its main rhythm; None where they come by rules, one by one."""
        if self.atrial is None and not self.written:
            return None
        return ~np.isin(self.donor.symbol[self.placed.source[1:-1]], NARROW)

    def skeleton(self, start: int, stop: int) -> np.ndarray:
        """Samples start .. stop - 1, float64 (lead, time) mV."""
        beats_uv = stitch(self.donor, self.placed, start, stop)
        if self.atrial:
            self.atrial.add_to(beats_uv, start)
            beats_uv = self.overlays.put_over(beats_uv, start)
        return MV_PER_UV * with_respiration(beats_uv, self.donor.level, self.respiration, start, self.donor.fs_hz)


def lenders_in(made: LongRecord) -> tuple[int, ...]:
    """Rows of the bank of other patients whose beats, or fibrillation, a record has."""
    used = np.union1d(made.lent[np.unique(made.placed.source)], made.atrial.rows)
    return tuple(int(row) for row in used if row != HOST)


def begin_records(synthesizer: Synthesizer, queries: Queries) -> list[LongRecord]:
    """Each record with the first of its donors whose first minute passes the gate, or the one with the fewest flags; with one whose
    ectopic beats bring their neighbours rather than one whose do not.
    """
    candidates = candidate_rows(synthesizer, queries)
    if synthesizer.beat_writer:
        rows, duration_s = candidates[:, 0], synthesizer.request.duration_s
        synthesizer.beat_writer.prepare(rows, queries.key, _rates(synthesizer, rows, queries.hr_bpm), duration_s)
    return [_begin(synthesizer, queries, at, rows) for at, rows in enumerate(candidates)]


def _rates(synthesizer: Synthesizer, rows: np.ndarray, hr_bpm: np.ndarray) -> np.ndarray:
    """The asked mean rates, where none is asked the donors' own: (record,) bpm."""
    return np.where(np.isnan(hr_bpm), synthesizer.bank.table.hr_bpm[rows], hr_bpm).astype(np.float64)


def _begin(synthesizer: Synthesizer, queries: Queries, at: int, rows: np.ndarray) -> LongRecord:
    attempts, best, tried, unfit = synthesizer.request.attempts, None, 0, None
    for row in dict.fromkeys(rows.tolist()):  # where a label has few donors, they come again
        if tried == attempts:
            break
        try:
            rate = float(_rates(synthesizer, np.array([row]), queries.hr_bpm[at : at + 1])[0])
            made = _with_donor(synthesizer, row, int(queries.key[at]), rate)
        except TooFewBeats:
            tried += 1
            continue
        except CannotHave as error:  # as if it were none of the nearest
            unfit = error.place
            continue
        except Crowded as error:
            raise UserError(f"record {queries.record[at]}: {error}") from None
        tried += 1
        best = made if best is None else min(best, made, key=_shortcomings)
        if not any(_shortcomings(best)):
            return best
    if best is None and unfit:
        raise UserError(
            f"record {queries.record[at]}: {unfit.event} is to begin at {unfit.start_s:g} s, but none of the donors for "
            f"{queries.label[at]} that are near enough can have it: AV blocks need a clear P wave, and all but ventricular events "
            "sinus rhythm. Raise k, ask for another label, or place it in another record"
        )
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
    donor = (single_beats if request.has_events else long_donor)(synthesizer.bank, row)  # stock.py joins more than its own
    couplets = frozenset(name for name in donor.ectopic if (donor.symbol == name).sum() > 1)
    allowed = DonorRhythm(own_bpm, "AFIB" in donor.codes, donor.ectopic, _variability(table, row), float(table.age[row]),
                          donor.beat_to_beat, couplets, donor.coupling)  # fmt: skip
    rhythm_aux = str(rhythms_of(table, np.array([row]))[0])
    made = (_with_events if request.has_events else _as_recorded)(synthesizer, row, key, hr_bpm, donor, allowed, rhythm_aux)
    flags = made.flags
    flags += ["rate_statement"] * bool(contradictions(synthesizer.donors, np.array([row]), np.array([hr_bpm]))[0])
    flags += ["stretch"] * bool(abs(np.log(hr_bpm / (60 * request.fs_hz / donor.rr_samples))) > np.log(MAX_STRETCH))
    flags += ["ectopic"] * lacks_ectopic(donor)
    flags += _flags_of_first_minute(made, request)
    return made


def _as_recorded(synthesizer: Synthesizer, row: int, key: int, hr_bpm: float, donor: LongDonor, allowed: DonorRhythm, aux: str):
    """A record of the donor's own rhythm from beginning to end."""
    request = synthesizer.request
    rhythm_draws = generator(request.seed, key, Stream.LONG_RHYTHM)
    writer = synthesizer.beat_writer
    written = writer.sequences(row, key, hr_bpm, request.duration_s) if writer else None
    rhythm = make_rhythm(request.rhythm, allowed, hr_bpm, request.duration_s, rhythm_draws, request.start_hour, written=written)
    beat_draws = generator(request.seed, key, Stream.LONG_BEATS)
    placed = place(donor, rhythm.r_s, rhythm.symbol, rhythm.qt_rr_s, request.samples, beat_draws)
    changes = [(0.0, _as_shown(aux, float(np.mean(rhythm.symbol == "V"))))]
    return LongRecord(row, donor, changes, placed, respiration_of(rhythm, placed.r[1:-1]), hr_bpm, [], written=written is not None)


def _with_events(synthesizer: Synthesizer, row: int, key: int, hr_bpm: float, donor: LongDonor, allowed: DonorRhythm, aux: str):
    """A record in which events come to that rhythm. Which ones a record has, and its patient's habits, are drawn beside it."""
    request, fs_hz = synthesizer.request, synthesizer.bank.table.fs_hz
    draws = generator(request.seed, key, Stream.EVENTS)
    habits, per_hour = drawn_habits(draws), drawn_rates(request.events or (), draws)
    normal = donor.symbol == "N"
    pr_s = float(np.median((donor.qrs_on - donor.p_on)[normal])) / fs_hz
    sinus = not donor.codes & (UNLOCKED_ATRIAL | {"PACE"})
    has_p = own_p_wave(donor) is not None and pr_s >= SHORTEST_PR_S
    shown = {} if request.places and not request.events else donor.ectopic  # a table by itself says all that comes
    named = "v_beat" in per_hour or any(one.event == "v_beat" for one in places_of(request, key))
    aux = _as_shown(aux, 0.0 if named else request.rhythm.ectopic_factor * shown.get("V", 0.0))
    host = Host(sinus, allowed.fibrillation, pr_s, aux, shown, has_p, synthesizer.beat_lenders.kinds_for(row))
    of_beats, over = _placed(request, key, host)
    asked = Asked(request.events or (), per_hour, of_beats, lambda at: generator(request.seed, key, Stream.PLACES, 1 + at))

    def order_of(rr_s: np.ndarray, first: float | None):
        numbers = generator(request.seed, key, Stream.EVENTS, 1)
        return write_order(request.rhythm, host, habits, asked, rr_s, 60 / hr_bpm, request.duration_s, numbers, first)

    activities = drawn_activity(asked, over, request.duration_s, most_surge(allowed.age, hr_bpm),
                                *(generator(request.seed, key, Stream.ACTIVITY, part) for part in (0, 1)))  # fmt: skip
    rhythm_draws = generator(request.seed, key, Stream.LONG_RHYTHM)
    rhythm = make_rhythm(request.rhythm, allowed, hr_bpm, request.duration_s, rhythm_draws, request.start_hour, order_of,
                         timed=asked.timed_in(host), quicken=partial(quickened, activities=activities))  # fmt: skip
    order, beats = rhythm.order, len(rhythm.r_s)
    atrial_kinds = {aux for first, _, aux in order.atrial if first < beats}
    forms = order.form[: beats + 1]  # and the one after the record
    stock = stocked(synthesizer.beat_lenders, row, donor, set(forms), atrial_kinds,
                    lambda part: generator(request.seed, key, Stream.LENT_BEATS, part))  # fmt: skip
    beat_draws = generator(request.seed, key, Stream.LONG_BEATS)
    placed = place_forms(stock, rhythm.r_s, forms, rhythm.qt_rr_s, request.samples, beat_draws)
    atrial = atrial_of(order, stock, placed.r.astype(np.int64), placed.source, placed.qt_rr, request.samples, beat_draws)
    from_ventricle = np.isin(stock.donor.symbol[placed.source], FROM_VENTRICLE)
    of_each = generator(request.seed, key, Stream.LENT_BEATS, OF_EACH_BEAT)
    placed = with_varied_qt(placed, from_ventricle, of_each)
    marks = carried(stock.donor, placed)[1:-1]
    j, t_end = marks[:, WAVES.index("qrs_end")], marks[:, WAVES.index("t_end")]
    over_draws = generator(request.seed, key, Stream.EVENTS, 2), generator(request.seed, key, Stream.PLACES)
    overlays = drawn_overlays(asked, over, request.samples, fs_hz, donor.level, j, t_end, *over_draws)
    overlays = replace(overlays, active=tuple((round(one.start_s * fs_hz), round(one.stop_s * fs_hz)) for one in activities))
    p_on_s = np.where(np.isnan(atrial.p_marks[1:-1, 0]), marks[:, WAVES.index("p_on")], atrial.p_marks[1:-1, 0]) / fs_hz
    begins_s = np.maximum(np.fmin(rhythm.r_s - BEFORE_BEAT_S, p_on_s - 2 / fs_hz), 0.0)
    changes = [(begins_s[beat] if beat else 0.0, aux) for beat, aux in order.rhythms(rhythm.r_s)]
    respiration = with_wandering(respiration_of(rhythm, placed.r[1:-1]), placed.r[from_ventricle], of_each)
    return LongRecord(row, stock.donor, changes, placed, respiration, hr_bpm, [], atrial, overlays, stock.row)


def _as_shown(aux: str, share: float) -> str:
    """WFDB's word for the rhythm that a donor states, where this share of beats is ventricular: one by one they are no bigeminy."""
    return "(N" if aux == BIGEMINY and share < SHOWN_FROM else aux


def _placed(request: Request, key: int, host: Host) -> tuple[tuple[Place, ...], tuple[Place, ...]]:
    """What has its place in a record: (events of beats, overlays). CannotHave where one cannot come to this donor."""
    places = places_of(request, key)
    if unfit := next((one for one in places if not host.can_have(one.event)), None):
        raise CannotHave(unfit)
    return tuple(one for one in places if one.event not in OVERLAYS), tuple(one for one in places if one.event in OVERLAYS)


def _flags_of_first_minute(made: LongRecord, request: Request) -> list[str]:
    """What the gate says of the skeleton, but of its rate: the mean is asked of the whole record."""
    first = min(request.samples, request.minute_samples)
    skeleton = low_pass_of(made.skeleton, 0, first, request.samples, request.lowpass_hz, request.fs_hz)
    beats = made.placed.r[(made.placed.r >= 0) & (made.placed.r < first)]
    ecg_uv = twelve_leads(to_uv(skeleton))
    if (wide := made.wide_beats()) is None:
        _, gate = check(ecg_uv, beats, made.hr_bpm, request.fs_hz)
    else:
        probe = MinuteCheck(request.fs_hz, first, beats, wide[: len(beats)])
        check_minute([probe], ecg_uv[None])
        _, gate = probe.found(made.hr_bpm)
    return [flag for flag in gate if flag != "heart_rate"]


def _variability(table: DonorTable, row: int) -> float:
    """Factor on heart rate variability from the donor's superclasses: the least of them."""
    held = table.superclasses[row]
    return min((VARIABILITY[name] for name, holds in zip(SUPERCLASSES, held, strict=True) if holds), default=1.0)
