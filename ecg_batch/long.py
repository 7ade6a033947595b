"""Long records, 11 s to 24 h: one patient's beats at the times of a rhythm model, minute by minute, memory free of the duration.

donor    the nearest of those drawn that passes the quality gate on its first minute
rhythm   when each beat comes, and of which type                                     rhythm.py
place    which of the donor's beats it is                                            stitch.py, long_donor.py
then, by the minute:
stitch   skeleton of this minute; breathing and posture move it                      stitch.py, sway.py
texture  the next minute of the stream                                               texture_stream.py
compose  together, under the PRD limit in every minute, as stored integers           compose.py
check    beats found against beats placed; a minute that fails is marked             check.py
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ecg_batch.check import check
from ecg_batch.compose import allowed_alpha, compose, norm
from ecg_batch.draws import Stream, generator, uniforms
from ecg_batch.errors import UserError
from ecg_batch.leads import MV_PER_STEP, to_steps, twelve_leads
from ecg_batch.long_check import MinuteCheck, check_minute
from ecg_batch.long_donor import MIN_BEATS, LongDonor, TooFewBeats, lacks_ectopic, long_donor
from ecg_batch.query import Queries
from ecg_batch.request import MINUTE_S
from ecg_batch.retrieve import MAX_STRETCH, contradictions, retrieve
from ecg_batch.rhythm import VARIABILITY, DonorRhythm, make_rhythm
from ecg_batch.shard import Assets, Batch, some
from ecg_batch.stitch import Placed, place, stitch
from ecg_batch.sway import Sway, sway_of, swayed
from ecg_batch.texture_stream import TextureStream, filtered, filtered_with

UNLIMITED_PCT = 1e9  # alpha is chosen already, sample by sample
# WFDB rhythm annotations of statements that say more than the rhythm model does
RHYTHMS = {"AFIB": "(AFIB", "AFLT": "(AFL", "SVTAC": "(SVTA", "PSVT": "(SVTA", "BIGU": "(B", "PACE": "(P", "SBRAD": "(SBR"}


@dataclass(frozen=True)
class LongShard:
    """A shard in the making. blocks: int16 (record, 12, time), a minute each; tables: rows, and beats by record, afterwards."""

    blocks: Iterator[np.ndarray]
    tables: Callable[[], tuple]


@dataclass(frozen=True)
class Cast:
    """One record before its minutes are made: its donor (row of the bank) with its beats, all that is known beforehand."""

    row: int
    donor: LongDonor
    changes: list[tuple[float, str]]  # time in s and WFDB aux of each rhythm
    placed: Placed
    sway: Sway
    hr_bpm: float
    flags: list[str]

    def skeleton(self, start: int, stop: int) -> np.ndarray:
        """Samples start .. stop - 1, float64 (lead, time) mV."""
        return MV_PER_STEP * swayed(stitch(self.donor, self.placed, start, stop), self.donor.level, self.sway, start)


def synthesize_long(plan, assets: Assets, shard, queries_of, on_batch):
    """A LongShard of streamed records; (ecg, rows, beats) of records up to a minute, which fit in memory as 10 s records do."""
    if plan.request.is_streamed:
        batch = LongBatch(plan, assets, queries_of(shard.start, shard.stop), on_batch)
        return LongShard(batch.blocks(), lambda: batch.tables(shard.index))
    import pyarrow as pa

    made = []
    for start in range(shard.start, shard.stop, plan.request.batch):
        stop = min(start + plan.request.batch, shard.stop)
        batch = LongBatch(plan, assets, queries_of(start, stop), lambda done: None)
        ecg = np.concatenate(list(batch.blocks()), axis=-1)
        rows, beats = batch.tables(shard.index)
        made.append((ecg, rows, list(beats)))
        on_batch(stop - shard.start)
    ecg, rows, beats = zip(*made, strict=True)
    return np.concatenate(ecg), pa.concat_tables(rows), chain.from_iterable(beats)


class LongBatch:
    """Records that are made together, minute by minute."""

    def __init__(self, plan, assets: Assets, queries: Queries, on_minute: Callable[[float], None]):
        self._request, self._assets, self._queries, self._on_minute = plan.request, assets, queries, on_minute
        self._samples, self._block = plan.time_samples, plan.minute_samples
        self._casts = cast(plan.request, assets, queries, plan.time_samples)
        fs_hz = plan.request.fs_hz
        self._checks = [MinuteCheck(fs_hz, self._samples, each.placed.r[1:-1]) for each in self._casts]
        self._error, self._power, self._alpha = (np.zeros(len(self._casts)) for _ in range(3))

    def blocks(self) -> Iterator[np.ndarray]:
        """The records' next minute, int16 (record, 12, time), until their end."""
        minutes = chain(self._minutes(), [None])
        before, now = None, next(minutes)
        for after in minutes:
            yield self._finished(before, now, after)
            before, now = now.without_parts(), after
            self._on_minute(len(self._casts) * min(now.start if now else self._samples, self._samples) / self._samples)

    def _minutes(self) -> Iterator["Minute"]:
        """Skeleton and texture of each minute, low-passed, and the alpha that it allows."""
        request, rows = self._request, np.array([each.row for each in self._casts])
        size = request.batch  # all of them, but where memory made a worker take fewer: see batch.py
        parts = [slice(first, first + size) for first in range(0, len(rows), size)]
        streams = [open_texture(request, self._assets, some(self._queries, part), rows[part]) for part in parts]
        for start in range(0, self._samples, self._block):
            stop = min(start + self._block, self._samples)
            textures = chain.from_iterable(stream.windows(stop - start) for stream in streams)
            each = zip(textures, self._casts, strict=True)
            parts = [filtered_with(texture, one.skeleton, start, stop, self._samples, request) for texture, one in each]
            alpha = np.array([allowed_alpha(*part, request.alpha, request.prd_limit_pct) for part in parts])
            yield Minute(start, stop, alpha, parts)

    def _finished(self, before: "Minute | None", now: "Minute", after: "Minute | None") -> np.ndarray:
        """A minute of all records, composed and checked."""
        alpha = ramps(now, before, after)
        out = np.empty((len(self._casts), 12, now.stop - now.start), np.int16)
        for record, (skeleton, texture) in enumerate(now.parts):
            made = compose(skeleton[None], (alpha[record] * texture)[None], 1.0, UNLIMITED_PCT)
            steps, power = made.steps[0], norm(skeleton[None])[0] ** 2
            self._error[record] += (made.prd_pct[0] / 100) ** 2 * power
            self._power[record] += power
            self._alpha[record] += alpha[record].sum()
            out[record] = np.clip(steps, -32768, 32767)
        check_minute(self._checks, out)
        return out

    def tables(self, shard_index: int) -> tuple:
        """(rows, beats) of the records, once their last block has been made; beats: a table of each record when it is asked for."""
        from ecg_batch.rows import beats_table, rows_table

        found = [check.found(each.hr_bpm) for check, each in zip(self._checks, self._casts, strict=True)]
        prd_pct = 100 * np.sqrt(self._error / np.maximum(self._power, 1e-18))
        flags = [each.flags + [flag for flag in flags if flag not in each.flags]
                 for each, (_, flags) in zip(self._casts, found, strict=True)]  # fmt: skip
        batch = Batch(
            self._queries,
            ecg=np.empty((0, 12, 0), np.int16),
            donors=np.array([each.row for each in self._casts]),
            measured_bpm=np.array([measured for measured, _ in found]),
            prd_pct=prd_pct,
            alpha=self._alpha / self._samples,
            flags=flags,
            blended=[()] * len(self._casts),
            timings=[],
            skeleton_mv=None,
        )
        beats = (beats_table(int(record), self._annotations(at)) for at, record in enumerate(self._queries.record))
        return rows_table(self._assets.bank.table, batch, shard_index), beats

    def _annotations(self, record: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(samples, symbols, aux) of rhythm changes, of minutes that failed the gate ("~", as WFDB marks quality), of beats."""
        each, placed = self._casts[record], self._casts[record].placed
        beats, kinds = placed.r[1:-1], each.donor.symbol[placed.source[1:-1]]
        changes = [(round(time_s * self._request.fs_hz), "+", aux) for time_s, aux in each.changes]
        failed = [(start, "~", ",".join(flags)) for start, flags in self._checks[record].failed]
        samples, symbols, aux = zip(*changes, *failed, strict=True)
        return [(np.array(samples), np.array(symbols), np.array(aux)), (beats, kinds, np.full(len(beats), ""))]


@dataclass(frozen=True)
class Minute:
    """Samples start .. stop - 1 of all records. alpha (record,): the most that keeps this minute under the PRD limit.

    parts: skeleton and texture of each record, (lead, time) mV.
    """

    start: int
    stop: int
    alpha: np.ndarray
    parts: list[tuple[np.ndarray, np.ndarray]]

    def without_parts(self) -> "Minute":
        return Minute(self.start, self.stop, self.alpha, [])


def ramps(now: Minute, before: Minute | None, after: Minute | None) -> np.ndarray:
    """Alpha at each sample (record, time): straight lines through the middle of each minute and the lesser of both at its ends.

    It never steps, and nowhere exceeds what its own minute allows: so every minute stays under the PRD limit, and the record with
    them, since squares of errors and of skeletons add up over minutes.
    """
    ends = [np.minimum(now.alpha, side.alpha) if side else now.alpha for side in (before, after)]
    at = (np.arange(now.stop - now.start) + 0.5) / (now.stop - now.start)
    knots = np.stack([ends[0], now.alpha, ends[1]], axis=1)
    return np.stack([np.interp(at, (0.0, 0.5, 1.0), row) for row in knots])


def open_texture(request, assets: Assets, queries: Queries, rows: np.ndarray) -> TextureStream:
    from ecg_batch import decode

    held = [assets.bank.table.scp_codes(int(row)) for row in rows]
    conditions = decode.conditions_of(assets.models, queries.label, held)
    return TextureStream(request, assets.models, queries.record, conditions)


# Before the first minute -----------------------------------------------------------------------------------------------


def cast(request, assets: Assets, queries: Queries, samples: int) -> list[Cast]:
    """Each record with the first of its donors whose first minute passes the gate, or the one with the fewest flags; with one whose
    ectopic beats bring their neighbours rather than one whose do not.
    """
    candidates = retrieve(assets.donors, queries, uniforms(request.seed, queries.record, Stream.DONOR, request.k))
    return [_cast(request, assets, queries, at, rows, samples) for at, rows in enumerate(candidates)]


def _cast(request, assets: Assets, queries: Queries, at: int, rows: np.ndarray, samples: int) -> Cast:
    best = None
    for row in dict.fromkeys(rows[: request.attempts].tolist()):  # where a label has few donors, they come again
        try:
            tried = _with_donor(request, assets, row, int(queries.record[at]), float(queries.hr_bpm[at]), samples)
        except TooFewBeats:
            continue
        best = tried if best is None else min(best, tried, key=_shortcomings)
        if not any(_shortcomings(best)):
            return best
    if best is None:
        raise UserError(
            f"record {queries.record[at]}: no donor for {queries.label[at]} among {request.attempts} tried has {MIN_BEATS} usable "
            "beats, so there is nothing to make a long record of. Raise attempts and k, or ask for a label with more donors"
        )
    return best


def _shortcomings(made: Cast) -> tuple[int, bool]:
    return len(made.flags), made.donor.ectopic_joined


def _with_donor(request, assets: Assets, row: int, record: int, hr_bpm: float, samples: int) -> Cast:
    """A record with one donor, and the flags that are known before its first minute is made."""
    hr_bpm = float(assets.bank.table.hr_bpm[row]) if np.isnan(hr_bpm) else hr_bpm
    donor = long_donor(assets.bank, row)
    age = float(assets.bank.table.age[row])
    allowed = DonorRhythm(hr_bpm, "AFIB" in donor.codes, donor.ectopic, _variability(assets, row), age)
    rhythm_draws = generator(request.seed, record, Stream.LONG_RHYTHM)
    rhythm = make_rhythm(request.rhythm, allowed, hr_bpm, request.duration_s, rhythm_draws, request.start_hour)
    stated = next((aux for code, aux in RHYTHMS.items() if code in donor.codes), "(N")
    beat_draws = generator(request.seed, record, Stream.LONG_BEATS)
    placed = place(donor, rhythm.r_s, rhythm.symbol, rhythm.qt_rr_s, samples, beat_draws)
    flags = ["rate_statement"] * bool(contradictions(assets.donors, np.array([row]), np.array([hr_bpm]))[0])
    flags += ["stretch"] * bool(abs(np.log(hr_bpm / (60 * request.fs_hz / donor.rr_samples))) > np.log(MAX_STRETCH))
    flags += ["ectopic"] * lacks_ectopic(donor)
    made = Cast(row, donor, [(0.0, stated)], placed, sway_of(rhythm, placed.r[1:-1]), hr_bpm, flags)
    first = min(samples, MINUTE_S * request.fs_hz)
    skeleton = filtered(made.skeleton, 0, first, samples, request.lowpass_hz, request.fs_hz)
    beats = placed.r[(placed.r >= 0) & (placed.r < first)]
    _, gate = check(twelve_leads(to_steps(skeleton)), beats, hr_bpm, request.fs_hz)
    made.flags.extend(flag for flag in gate if flag != "heart_rate")  # of a minute: the mean is asked of the whole record
    return made


def _variability(assets: Assets, row: int) -> float:
    """Factor on heart rate variability from the donor's superclasses: the least of them."""
    from ecg_batch.statements import SUPERCLASSES

    held = assets.bank.table.superclasses()[row]
    return min((VARIABILITY[name] for name, holds in zip(SUPERCLASSES, held, strict=True) if holds), default=1.0)
