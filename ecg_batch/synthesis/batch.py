"""A batch of records of 10 s. Each stage of the system is a line of _try, one attempt: beats, texture, composition, check."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import numpy as np

from ecg_batch.draws import Stream, uniforms
from ecg_batch.request.model import Request
from ecg_batch.signal.beats import joined
from ecg_batch.signal.filters import low_pass
from ecg_batch.synthesis.check import add_flags, check_all
from ecg_batch.synthesis.compose import Stored, finish
from ecg_batch.synthesis.queries import Queries, own_variations, varied, whole_sets
from ecg_batch.synthesis.retime import Timing
from ecg_batch.synthesis.retrieve import MAX_STRETCH, contradictions, retrieve
from ecg_batch.synthesis.skeleton import Skeletons, make_skeletons
from ecg_batch.synthesis.synthesizer import Synthesizer
from ecg_batch.synthesis.units import Texture, of_nobody, unit_textures

# Records of so many samples are finished together: what is decoded lies in float64 arrays that are to stay in cache; of what is
# recorded only integers are held for more than one record, and a call costs as much as several records.
TILE_SAMPLES = {"decoded": 16_000, "units": 256_000}


@dataclass(frozen=True)
class Batch:
    """Finished records and what is known of them. Arrays over records."""

    queries: Queries
    ecg: np.ndarray  # int16 (record, 12, time)
    donor_row: np.ndarray  # row in the bank
    measured_bpm: np.ndarray
    prd_pct: np.ndarray
    alpha: np.ndarray
    flags: list[list[str]]
    blended_rows: list[tuple[int, ...]]  # of the donors after the first
    texture_rows: list[np.ndarray]  # of the donors of recorded texture
    texture_of_beats: list[np.ndarray]  # of each placed beat the row that its noise is from, see units.Texture
    timings: list[Timing]
    skeleton_mv: np.ndarray | list | None  # low-passed, float64 (record, 8, time), where the request refines or adds noise
    noise: list | None = None  # noise.NoiseOf of each record, where the request adds noise
    lent_rows: list[tuple[int, ...]] | None = None  # of whoever lent beats, where the request has events

    def take(self, at: np.ndarray) -> "Batch":
        """Some of the records."""
        columns = [getattr(self, name) for name in OF_RECORD]
        return Batch(self.queries.take(at), *(
            column[at] if isinstance(column, np.ndarray) else column and [column[one] for one in at] for column in columns
        ))  # fmt: skip


OF_RECORD = tuple(field.name for field in fields(Batch) if field.name != "queries")


# Texture, where it is finished low-passed, of these records of the batch with these beats: what is laid in time with the beats is
# another when the donor is.
TextureOf = Callable[[np.ndarray, Skeletons], Texture]


def make_batch(synthesizer: Synthesizer, queries: Queries) -> Batch:
    """Query -> donors -> beats -> texture -> record -> checked; what fails the gate is drawn again with its next donor.

    Sets that these records cut are made whole, and cut afterwards. Decoded texture, of which there are no sets, knows nothing of
    beats, and is made for the whole batch before them.
    """
    if synthesizer.request.texture == "units":
        whole = whole_sets(synthesizer.request, queries)
        batch = _in_tiles(synthesizer, whole, candidate_rows(synthesizer, whole), partial(recorded, synthesizer, whole))
        return batch if whole is queries else batch.take(np.searchsorted(whole.record, queries.record))
    candidates = candidate_rows(synthesizer, queries)
    tokens, noise = draw_tokens(synthesizer, queries, candidates[:, 0])
    texture_mv = decode_tokens(synthesizer, tokens, noise)[: len(queries)]
    return with_texture(synthesizer, queries, candidates, texture_mv)


def candidate_rows(synthesizer: Synthesizer, queries: Queries) -> np.ndarray:
    """Donors in the order in which they are tried: rows of the bank, (record, k)."""
    request = synthesizer.request
    rates = request.vary.of("hr_bpm") if queries.set_size > 1 else ()
    return retrieve(synthesizer.donors, queries, uniforms(request.seed, queries.key, Stream.DONOR, request.k), rates)


def draw_tokens(synthesizer: Synthesizer, queries: Queries, donor_row: np.ndarray):
    """Tokens and decoder noise of a batch of the request's size, filled up where there are fewer records."""
    import torch

    from ecg_batch.models import decode

    request, models = synthesizer.request, synthesizer.models
    count, fill = decode.token_count(models, request.samples), request.batch - len(queries)
    statements = [synthesizer.bank.table.scp_codes(row) for row in donor_row]
    conditions = decode.conditions_of(models, queries.label, statements)
    draws = torch.from_numpy(uniforms(request.seed, queries.key, Stream.TOKENS, count))
    noise = decode.draw_noise(models, request.seed, queries.key, count)
    conditions, draws, noise = (torch.cat([x, x[:1].expand(fill, *x.shape[1:])]) for x in (conditions, draws, noise))
    return decode.sample_tokens(models, conditions, draws, request.temperature), noise


def decode_tokens(synthesizer: Synthesizer, tokens, noise) -> np.ndarray:
    """Texture of tokens (batch, token) and noise, float32 (batch, 8, time) mV."""
    from ecg_batch.models import decode

    texture = decode.decode_texture(synthesizer.models, tokens, noise)[..., : synthesizer.request.samples]
    decode.refuse_non_finite(texture)
    return texture.cpu().numpy()


def with_texture(synthesizer: Synthesizer, queries: Queries, candidates: np.ndarray, texture_mv: np.ndarray) -> Batch:
    """The records of these textures (record, 8, time) mV."""
    return _in_tiles(synthesizer, queries, candidates, partial(decoded, synthesizer.request, texture_mv))


def decoded(request: Request, texture_mv: np.ndarray, records: np.ndarray, made: Skeletons) -> Texture:
    """TextureOf what the models decoded for the batch: (batch, 8, time) mV."""
    return of_nobody(low_pass(texture_mv[records].astype(np.float64), request.lowpass_hz, request.fs_hz), made.timings)


def recorded(synthesizer: Synthesizer, queries: Queries, records: np.ndarray, made: Skeletons) -> Texture:
    """TextureOf other patients' recorded noise, laid in time with the beats."""
    request = synthesizer.request
    draws = uniforms(request.seed, queries.key[records], Stream.UNITS, 1 + max(len(timing.placed) for timing in made.timings))
    return unit_textures(synthesizer.units, made.rows, made.timings, draws, request.temperature)


def _in_tiles(synthesizer: Synthesizer, queries: Queries, candidates: np.ndarray, texture_of: TextureOf) -> Batch:
    """The records, each with the first of its candidate donors that passes the gate, finished in tiles that stay in cache."""
    beat_draws = uniforms(synthesizer.request.seed, queries.key, Stream.RHYTHM, 2)
    batch = _try_in_tiles(synthesizer, queries, candidates, beat_draws, np.arange(len(queries)), texture_of)
    return draw_again(synthesizer, candidates, beat_draws, batch, texture_of)


def draw_again(synthesizer: Synthesizer, candidates, beat_draws, batch: Batch, texture_of: TextureOf) -> Batch:
    """The batch with records that failed the gate drawn again, each with its next donors; sets as a whole."""
    request = synthesizer.request
    for attempt in range(1, min(request.attempts, request.k)):  # the same donor once more would fail once more
        again = np.flatnonzero(_faults(batch))
        if not len(again):
            break
        ranked = np.roll(candidates[again], -attempt, axis=1)
        retried = _try_in_tiles(synthesizer, batch.queries.take(again), ranked, beat_draws[again], again, texture_of)
        batch = _better(batch, retried, again)
    return batch


def _try_in_tiles(synthesizer: Synthesizer, queries: Queries, ranked, beat_draws, records: np.ndarray, texture_of) -> Batch:
    """_try of a tile of records at a time."""
    count = max(1, TILE_SAMPLES[synthesizer.request.texture] // synthesizer.request.samples)
    tiles = np.split(np.arange(len(queries)), range(count, len(queries), count))
    return _joined([_try(synthesizer, queries.take(at), ranked[at], beat_draws[at], records[at], texture_of) for at in tiles])


def _try(synthesizer: Synthesizer, queries: Queries, ranked, beat_draws, records: np.ndarray, texture_of: TextureOf) -> Batch:
    """One attempt: these records of the batch with the first of their ranked donors (record, k), checked."""
    request = synthesizer.request
    made = skeletons(synthesizer, queries, ranked, beat_draws)
    texture = texture_of(records, made)
    finished, skeleton_mv = finish(synthesizer, made, texture, varied(request, "alpha", queries.record))
    return checked(synthesizer, queries, ranked, made, finished, skeleton_mv, texture)


def skeletons(synthesizer: Synthesizer, queries: Queries, ranked: np.ndarray, beat_draws) -> Skeletons:
    """The beats of each record, of the first of its ranked donors."""
    rr_samples = 60 * synthesizer.request.fs_hz / _asked_bpm(synthesizer, queries, ranked[:, 0])
    own = own_variations(synthesizer.request, queries.record)
    return make_skeletons(synthesizer, queries.key, ranked, rr_samples, beat_draws, own)


def _asked_bpm(synthesizer: Synthesizer, queries: Queries, donor_row: np.ndarray) -> np.ndarray:
    """The heart rate asked for, the donor's own where none is."""
    return np.where(np.isnan(queries.hr_bpm), synthesizer.bank.table.hr_bpm[donor_row], queries.hr_bpm).astype(np.float64)


def checked(
    synthesizer: Synthesizer, queries: Queries, ranked, made: Skeletons, finished: Stored, skeleton_mv, texture: Texture
) -> Batch:
    """Finished records with what the quality gate says of them."""
    donor_row, timings = ranked[:, 0], made.timings
    hr_bpm = _asked_bpm(synthesizer, queries, donor_row)
    measured_bpm, flags = _measured(finished, timings, hr_bpm, synthesizer.request.fs_hz)
    far = np.abs(np.log([timing.stretch for timing in timings])) > np.log(MAX_STRETCH)
    add_flags(flags, {"rate_statement": contradictions(synthesizer.donors, donor_row, hr_bpm), "stretch": far})
    return Batch(
        queries,
        ecg=finished.ecg,
        donor_row=donor_row,
        measured_bpm=measured_bpm,
        prd_pct=finished.prd_pct,
        alpha=finished.alpha,
        flags=flags,
        blended_rows=[rows[1:] for rows in made.donor_rows],
        texture_rows=texture.rows,
        texture_of_beats=texture.of_beats,
        timings=timings,
        skeleton_mv=skeleton_mv if synthesizer.request.judge else list(skeleton_mv) if synthesizer.request.noise else None,
    )


def _measured(finished: Stored, timings: list[Timing], hr_bpm: np.ndarray, fs_hz: float) -> tuple[np.ndarray, list[list[str]]]:
    """Measured heart rates (record,) and flags of each record."""
    record, r = joined([timing.placed for timing in timings])
    inside = (r >= 0) & (r < timings[0].samples)
    return check_all(finished.ecg, finished.extremes, (record[inside], r[inside]), hr_bpm, fs_hz)


def _joined(parts: list[Batch]) -> Batch:
    """Tiles as one batch."""
    if len(parts) == 1:
        return parts[0]

    def column(name: str):
        values = [getattr(part, name) for part in parts]
        if isinstance(values[0], np.ndarray):
            return np.concatenate(values)
        return None if values[0] is None else [value for part in values for value in part]

    return Batch(Queries.concatenate([part.queries for part in parts]), *map(column, OF_RECORD))


def _better(batch: Batch, retried: Batch, again: np.ndarray) -> Batch:
    """The batch with each retried record in its place where it, or its set, has fewer flags than before."""
    for at in np.flatnonzero(_faults(retried) < _faults(batch)[again]):
        for name in OF_RECORD:
            if (column := getattr(batch, name)) is not None:
                column[again[at]] = getattr(retried, name)[at]
    return batch


def _faults(batch: Batch) -> np.ndarray:
    """How many flags each record has, with all others of its set, who have the same donor: (record,)."""
    _, of_set = np.unique(batch.queries.key, return_inverse=True)
    return np.bincount(of_set, [len(flags) for flags in batch.flags])[of_set]
