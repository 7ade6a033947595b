"""Long records, 11 s to 24 h: one patient's beats at the times of a rhythm model, minute by minute, memory free of the duration.

donor    the nearest of those drawn that passes the quality gate on its first minute  begin.py
rhythm   when each beat comes, and of which type                                     rhythm.py
place    which of the donor's beats it is                                            stitch.py, donor.py
events   where asked: which beat comes next, beats of others, what is over them     events/
then, by the minute:
stitch   skeleton of this minute; breathing and posture move it                      stitch.py, respiration.py
texture  the next minute of the stream                                               texture_stream.py
compose  together, under the PRD limit in every minute, as stored integers           compose.py
check    beats found against beats placed; a minute that fails is marked             check.py
noise    where it is asked for, in episodes; of muscles in activity                  noise_episodes.py
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import pyarrow as pa

from ecg_batch.dataset.layout import Shard
from ecg_batch.dataset.rows import rows_table
from ecg_batch.synthesis.annotate import lenders_of
from ecg_batch.synthesis.batch import Batch
from ecg_batch.synthesis.compose import allowed_alpha, compose, norm
from ecg_batch.synthesis.long.annotate import record_beats
from ecg_batch.synthesis.long.begin import begin_records, lenders_in
from ecg_batch.synthesis.long.check import MinuteCheck, check_minute
from ecg_batch.synthesis.long.events.activity import with_muscles
from ecg_batch.synthesis.long.filtered import filtered_with
from ecg_batch.synthesis.long.noise_episodes import NoiseEpisodes
from ecg_batch.synthesis.long.unit_stream import UnitStreams
from ecg_batch.synthesis.noise import NoiseOf, by_lead, own_snr_db
from ecg_batch.synthesis.queries import Queries, varied
from ecg_batch.synthesis.synthesizer import Synthesizer
from ecg_batch.synthesis.units import NOBODY


@dataclass(frozen=True)
class LongShard:
    """A shard in the making. blocks: int16 (record, 12, time), a minute each; tables: rows, and beats by record, afterwards."""

    blocks: Iterator[np.ndarray]
    tables: Callable[[], tuple]


def make_long_shard(synthesizer: Synthesizer, shard: Shard, queries_of: Callable[[int, int], Queries], on_batch: Callable):
    """A LongShard of streamed records; (ecg, rows, beats) of records up to a minute, which fit in memory as 10 s records do."""
    if synthesizer.request.is_streamed:
        batch = LongBatch(synthesizer, queries_of(shard.start, shard.stop), on_batch)
        return LongShard(batch.blocks(), lambda: batch.tables(shard.index))
    made = []
    for start in range(shard.start, shard.stop, synthesizer.request.batch):
        stop = min(start + synthesizer.request.batch, shard.stop)
        batch = LongBatch(synthesizer, queries_of(start, stop), lambda done: None)
        ecg = np.concatenate(list(batch.blocks()), axis=-1)
        rows, beats = batch.tables(shard.index)
        made.append((ecg, rows, list(beats)))
        on_batch(stop - shard.start)
    ecg, rows, beats = zip(*made, strict=True)
    return np.concatenate(ecg), pa.concat_tables(rows), chain.from_iterable(beats)


class LongBatch:
    """Records that are made together, minute by minute."""

    def __init__(self, synthesizer: Synthesizer, queries: Queries, on_minute: Callable[[float], None]):
        self._synthesizer, self._request = synthesizer, synthesizer.request
        self._queries, self._on_minute = queries, on_minute
        self._records = begin_records(synthesizer, queries)
        self._checks = [MinuteCheck(self._request.fs_hz, self._request.samples, each.placed.r[1:-1], each.wide_beats())
                        for each in self._records]  # fmt: skip
        self._recorded = None
        if synthesizer.units:
            self._recorded = UnitStreams(synthesizer.units, self._request, queries.key, self._records)
        self._noise = None
        if self._request.noise:
            each, noisy = zip(queries.key, self._records, own_snr_db(self._request, queries.record), strict=True), synthesizer.noisy
            self._noise = [NoiseEpisodes(self._request, int(key), record.skeleton, snr_db,
                                         recorded=noisy and partial(noisy.stretch, host=record.donor_row))
                           for key, record, snr_db in each]  # fmt: skip
        each = zip(queries.key, self._records, strict=True)
        muscles = with_muscles(self._request)
        self._active = [NoiseEpisodes(muscles, int(key), record.skeleton, None, record.overlays.active)
                        if record.overlays and record.overlays.active else None for key, record in each]  # fmt: skip
        own_alpha = varied(self._request, "alpha", queries.record)
        self._asked_alpha = np.full(len(queries), self._request.alpha) if own_alpha is None else own_alpha
        self._error, self._power, self._alpha = (np.zeros(len(self._records)) for _ in range(3))

    def blocks(self) -> Iterator[np.ndarray]:
        """The records' next minute, int16 (record, 12, time), until their end."""
        minutes = chain(self._minutes(), [None])
        before, now = None, next(minutes)
        for after in minutes:
            yield self._finished(before, now, after)
            before, now = now.without_parts(), after
            samples = self._request.samples
            self._on_minute(len(self._records) * min(now.start if now else samples, samples) / samples)

    def _minutes(self) -> Iterator["Minute"]:
        """Skeleton and texture of each minute, low-passed, and the alpha that it allows."""
        request, rows = self._request, np.array([each.donor_row for each in self._records])
        if self._recorded:
            streams = [self._recorded]
        else:
            size = request.batch  # all of them, but where memory made a worker take fewer: see run/oom.py
            parts = [slice(first, first + size) for first in range(0, len(rows), size)]
            streams = [open_texture(self._synthesizer, self._queries.take(part), rows[part]) for part in parts]
        for start in range(0, request.samples, request.minute_samples):
            stop = min(start + request.minute_samples, request.samples)
            textures = chain.from_iterable(stream.windows(stop - start) for stream in streams)
            each = zip(textures, self._records, strict=True)
            parts = [filtered_with(texture, one.skeleton, start, stop, request) for texture, one in each]
            each = zip(parts, self._asked_alpha.tolist(), strict=True)
            alpha = np.array([allowed_alpha(*part, asked, request.prd_limit_pct) for part, asked in each])
            yield Minute(start, stop, alpha, parts)

    def _finished(self, before: "Minute | None", now: "Minute", after: "Minute | None") -> np.ndarray:
        """A minute of all records, composed and checked."""
        alpha = ramps(now, before, after)
        out = np.empty((len(self._records), 12, now.stop - now.start), np.int16)
        for record, (skeleton, texture) in enumerate(now.parts):
            made = compose(skeleton[None], (alpha[record] * texture)[None], 1.0, None)  # alpha is chosen already
            ecg_uv, power = made.ecg_uv[0], norm(skeleton[None])[0] ** 2
            self._error[record] += (made.prd_pct[0] / 100) ** 2 * power
            self._power[record] += power
            self._alpha[record] += alpha[record].sum()
            out[record] = np.clip(ecg_uv, -32768, 32767)
        check_minute(self._checks, out)
        for record, ecg in enumerate(out):  # last: it is not what the gate judges
            for noise in self._noises(record):
                noise.put_over(ecg, now.start)
        return out

    def tables(self, shard_index: int) -> tuple:
        """(rows, beats) of the records, once their last block has been made; beats: a table of each record when it is asked for."""
        found = [check.found(each.hr_bpm) for check, each in zip(self._checks, self._records, strict=True)]
        prd_pct = 100 * np.sqrt(self._error / np.maximum(self._power, 1e-18))
        flags = [each.flags + [flag for flag in flags if flag not in each.flags]
                 for each, (_, flags) in zip(self._records, found, strict=True)]  # fmt: skip
        batch = Batch(
            self._queries,
            ecg=np.empty((0, 12, 0), np.int16),
            donor_row=np.array([each.donor_row for each in self._records]),
            measured_bpm=np.array([measured for measured, _ in found]),
            prd_pct=prd_pct,
            alpha=self._alpha / self._request.samples,
            flags=flags,
            blended_rows=[()] * len(self._records),
            texture_rows=self._recorded.rows() if self._recorded else [()] * len(self._records),
            texture_of_beats=[],
            timings=[],
            skeleton_mv=None,
            noise=self._noise and [self._known(record) for record in range(len(self._records))],
            lent_rows=[lenders_in(each) for each in self._records] if self._request.has_events else None,
        )
        beats = map(self._beats, range(len(self._records)))
        return rows_table(self._synthesizer.bank.table, batch, shard_index), beats

    def _beats(self, at: int) -> pa.Table:
        made = self._records[at]
        rows = self._recorded.of_beats(at) if self._recorded else np.full(len(made.placed.r), NOBODY)
        lent = lenders_of(self._synthesizer, rows)
        ecg_id = self._synthesizer.bank.table.ecg_id
        return record_beats(int(self._queries.record[at]), made, self._remarks(at), lent, self._request, ecg_id)

    def _remarks(self, record: int) -> list[tuple[int, str]]:
        """(first sample, what is said) of minutes that failed the gate and of noise."""
        noise = [said for each in self._noises(record) for said in each.annotations()]
        return [*self._checks[record].remarks(), *((start, aux) for start, _, aux in noise)]

    def _noises(self, record: int) -> list[NoiseEpisodes]:
        """That of activity, and over it that which is asked for."""
        return [noise for noise in (self._active[record], self._noise and self._noise[record]) if noise]

    def _known(self, record: int) -> NoiseOf:
        """Of both, where noise is asked for."""
        first, *more = (noise.known() for noise in reversed(self._noises(record)))
        for other in more:
            kinds = tuple(dict.fromkeys((*first.kinds, *other.kinds)))
            masked = tuple(sorted((*first.masked, *other.masked), key=by_lead))
            first = NoiseOf(kinds, first.beats + other.beats, first.added + other.added, masked, (*first.rows, *other.rows))
        return first


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
        """What the next minute needs of it: its bounds and its alpha."""
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


def open_texture(synthesizer: Synthesizer, queries: Queries, donor_row: np.ndarray) -> "TextureStream":  # noqa: F821
    """The endless texture of these records, conditioned on their labels and their donors' statements."""
    from ecg_batch.models import decode
    from ecg_batch.synthesis.long.texture_stream import TextureStream

    statements = [synthesizer.bank.table.scp_codes(int(row)) for row in donor_row]
    conditions = decode.conditions_of(synthesizer.models, queries.label, statements)
    return TextureStream(synthesizer.request, synthesizer.models, queries.key, conditions)
