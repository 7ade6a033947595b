"""Noise by request: added to finished, checked records, so that it changes neither donors nor beats.

A stretch of a record gets one kind of noise, in every second case a second one. What is added is made at the electrodes (muscle,
electrode, baseline, mains), or is other patients' recorded noise (donors/noisy.py), and is scaled to the ratio that was asked:

    snr_db = 10 log10 (power of the beats / power of what is added)

Both are sums over the twelve leads, above 0.5 Hz, of the stretch that has noise. The beats are the skeleton, without its texture.
Of each lead the same ratio is what the physics of the electrodes gives. The same request without `noise` makes the same record
without it, so the difference of the two is what was added, to the microvolt. Where an electrode is off, or the converter at its
end, the record does not show it: these places are `masked`, and nothing of them changes the ratio.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import numpy as np

from ecg_batch.draws import Stream, each_generator
from ecg_batch.leads import LEADS, MODELLED_INDEX, MV_PER_UV, twelve_leads
from ecg_batch.request.model import ADDED, LOOP_S, MODELLED_NOISE, Noise, Request
from ecg_batch.signal.filters import low_pass
from ecg_batch.synthesis.ask import quantile
from ecg_batch.synthesis.batch import Batch
from ecg_batch.synthesis.noise_models import ELECTRODES, LEADS_OF, electrode_noise
from ecg_batch.synthesis.queries import varied
from ecg_batch.synthesis.synthesizer import Synthesizer

COUNTED_HZ = 0.5  # power is counted from here on: below, wander hides no beat
RAIL_UV = 16_383  # of I, II and V1 to V6, so that III, twice as far at most, fits int16
CLIPPED_SHARE = (0.4, 0.8)  # of the highest peak: where a converter ends whose range is too small
SECOND_SHARE = (0.1, 0.5)  # of the power: what a second kind has
FADE_S = 0.5  # noise of a part of a record comes and goes
SWAPPED = np.array([LEADS.index(lead) for lead in ("I", "III", "II", "aVL", "aVR", "aVF", *LEADS[6:])])  # arms exchanged; I turns
# By how much each chest lead moves where Wilson's terminal is the mean of two limbs: half the lost one's potential, of I and II.
TERMINAL = {"RA": np.array([-1, -1]) / 6, "LA": np.array([2, -1]) / 6, "LL": np.array([-1, 2]) / 6}
LIMB_ROWS = {"RA": (0, 1), "LA": (0,), "LL": (1,)}  # which of I and II a limb's electrode feeds
MODELLED_ROWS = list(MODELLED_INDEX)
TWELVE = np.zeros((9, 12))  # squares of twelve leads of those of the modelled ones and the product of I and II, by the identities
TWELVE[[0, 1, 8], :6] = np.array([[1, 0, 0], [0, 1, 0], [1, 1, -2], [0.25, 0.25, 0.5], [1, 0.25, -1], [0.25, 1, -1]]).T
TWELVE[2:8, 6:] = np.eye(6)
TINY = 1e-30  # instead of a division by nothing
DRAWN = 8  # numbers that say what a stretch gets

Masked = tuple[str, int, int]  # a lead, and the samples from start to stop - 1 in which it does not show the heart


@dataclass(frozen=True)
class NoiseOf:
    """What is known of one record's noise. beats, added: power of each of the twelve leads, uV^2, summed over time; rows: of the
    bank, whose recorded noise it is.
    """

    kinds: tuple[str, ...]
    beats: np.ndarray
    added: np.ndarray
    masked: tuple[Masked, ...]
    rows: tuple[int, ...] = ()

    @property
    def snr_db(self) -> float | None:
        """Of the record; None where nothing was added."""
        return _db(self.beats.sum(), self.added.sum())

    @property
    def snr_db_by_lead(self) -> list[float | None]:
        return [_db(*powers) for powers in zip(self.beats, self.added, strict=True)]


def _db(beats: float, added: float) -> float | None:
    return float(10 * np.log10(beats / added)) if beats > 0 and added > 0 else None


def with_noise(synthesizer: Synthesizer, batch: Batch) -> Batch:
    """The finished records of 10 s with the noise that the request asks for."""
    request, noisy, ecg, of_records = synthesizer.request, synthesizer.noisy, np.empty_like(batch.ecg), []
    generators = each_generator(request.seed, batch.queries.key, Stream.NOISE)
    hosts, snrs_db = batch.donor_row.tolist(), own_snr_db(request, batch.queries.record)
    each = zip(batch.ecg, batch.skeleton_mv, ecg, generators, hosts, snrs_db, strict=True)
    for clean, skeleton_mv, out, draws, host, snr_db in each:
        drawn = draws.random(2)
        start, stop = _part(request, *drawn)
        fades = (start > 0, stop < request.samples)
        made = make_episode(request, draws, skeleton_mv[:, start:stop], fades, snr_db, noisy and partial(noisy.stretch, host=host))
        out[...] = clean
        masked = made.put_over(out[:, start:stop], 0)
        of_records.append(_known(request, made, out, intervals([(start, masked)])))
    return replace(batch, ecg=ecg, noise=of_records, skeleton_mv=None)


def own_snr_db(request: Request, records: np.ndarray) -> list[float | None]:
    """The ratio that each record has to have where the request varies it, else None: it is drawn."""
    snr_db = varied(request, "snr_db", records)
    return [None] * len(records) if snr_db is None else snr_db.tolist()


def _part(request: Request, length: float, place: float) -> tuple[int, int]:
    """Where in a record of 10 s its noise lies, by two numbers from 0 to 1."""
    asked = request.noise.length_s
    seconds = LOOP_S if asked is None else min(float(quantile(asked, np.array([length]))[0]), LOOP_S)
    samples = round(seconds * request.fs_hz)
    start = round(place * (request.samples - samples))
    return start, start + samples


def _known(request: Request, made: "Episode", ecg: np.ndarray, masked: list[Masked]) -> NoiseOf:
    """What the row says. Arms are exchanged in the whole record: ecg (12, time) changes in place, and what is said of its leads."""
    if "swapped" not in made.kinds:
        return NoiseOf(made.kinds, made.beats, made.added, tuple(masked), made.rows)
    arms_exchanged(ecg)
    shown = {LEADS[was]: lead for lead, was in zip(LEADS, SWAPPED, strict=True)}
    moved = sorted(((shown[lead], start, stop) for lead, start, stop in masked), key=by_lead)
    return NoiseOf(made.kinds, made.beats[SWAPPED], made.added[SWAPPED], tuple(moved), made.rows)


def arms_exchanged(ecg: np.ndarray) -> None:
    """The electrodes of both arms exchanged, in stored integers (12, time), in place: I turns, II and III change places."""
    modelled = ecg[MODELLED_ROWS].astype(np.int32)
    modelled[1] -= modelled[0]
    modelled[0] *= -1
    ecg[...] = twelve_leads(modelled)


# A stretch of noise ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Episode:
    """The noise of one stretch. added_uv: int32 (8 leads, time), or None; beats, added: power of the twelve leads, uV^2, summed.

    off: the electrode that is off, whose leads are flat or show `added_uv` alone; rail_uv: where the converter ends; rows: of the
    bank, whose recorded noise it is.
    """

    kinds: tuple[str, ...]
    snr_db: float | None
    added_uv: np.ndarray | None
    beats: np.ndarray
    added: np.ndarray
    off: str | None
    is_flat: bool
    rail_uv: int
    rows: tuple[int, ...] = ()

    def put_over(self, ecg: np.ndarray, at: int) -> np.ndarray:
        """Puts its samples from `at` on over stored integers int16 (12, time) without noise, in place; bool (12, time): masked."""
        now = slice(at, at + ecg.shape[1])
        added = 0 if self.added_uv is None else self.added_uv[:, now]
        modelled = np.add(ecg[MODELLED_ROWS], added, dtype=np.int32)
        masked = np.zeros(modelled.shape, bool)
        if self.off:
            self._switch_off(modelled, added, masked)
        if max(modelled.max(), -modelled.min()) >= self.rail_uv:
            np.clip(modelled, -self.rail_uv, self.rail_uv, out=modelled)
            masked |= np.abs(modelled) >= self.rail_uv
        ecg[...] = twelve_leads(modelled)
        limb = masked[0] | masked[1]
        return np.concatenate([masked[:2], np.broadcast_to(limb, (4, len(limb))), masked[2:]])

    def _switch_off(self, modelled: np.ndarray, added: np.ndarray, masked: np.ndarray) -> None:
        """Beats leave the leads that the electrode feeds; a limb's leaves Wilson's terminal too, the mean of two limbs then."""
        rows = LIMB_ROWS.get(self.off) or (2 + int(self.off[1]) - 1,)
        if self.off in TERMINAL:
            modelled[2:] += np.rint(TERMINAL[self.off] @ modelled[:2]).astype(np.int32)
        for row in rows:
            modelled[row] = 0 if self.is_flat or self.added_uv is None else added[row]
            masked[row] = True


# Recorded noise of a kind, by draws, of so many samples: float64 (8, time) in no unit, and the rows of the bank that it is from.
Recorded = Callable[[str, np.random.Generator, int], tuple[np.ndarray, list[int]]]


def make_episode(
    request: Request,
    draws: np.random.Generator,
    skeleton_mv: np.ndarray,
    fades: tuple[bool, bool],
    snr_db: float | None = None,
    recorded: Recorded | None = None,
) -> Episode:
    """The noise of a stretch whose beats are skeleton_mv float64 (8, time). fades: whether it comes, and goes, in the record;
    snr_db: where it is not drawn; recorded: where the request asks for recorded noise.
    """
    asked, numbers = request.noise, draws.random(DRAWN)
    kinds, share = _kinds(asked, numbers[:4])
    snr_db = float(quantile(asked.snr_db, numbers[4:5])[0]) if snr_db is None else snr_db
    added = [kind for kind in kinds if kind in ADDED]
    parts, rows = [], []
    for kind in added:
        if kind in MODELLED_NOISE:
            made, lent = LEADS_OF @ electrode_noise(kind, draws, skeleton_mv.shape[1], request.fs_hz), []
        else:
            made, lent = recorded(kind=kind, draws=draws, samples=skeleton_mv.shape[1])
        parts.append(_finished(request, made, fades))
        rows += lent
    beats, power, noise_mv = _powers(request, skeleton_mv, parts, (share, 1 - share))
    noise_uv = None
    if parts:
        gain = np.sqrt(beats.sum() / (10 ** (snr_db / 10) * max(power.sum(), TINY)))
        rounded = np.rint((gain / MV_PER_UV) * noise_mv)
        noise_uv, power = rounded.astype(np.int32), power_of_leads(above(rounded, request.fs_hz))  # as it is stored
    rail_uv = RAIL_UV
    if "clipped" in kinds:
        low, high = CLIPPED_SHARE
        shown = np.abs(skeleton_mv / MV_PER_UV + (0 if noise_uv is None else noise_uv)).max()
        rail_uv = int(min((low + numbers[5] * (high - low)) * shown, RAIL_UV))
    off = ELECTRODES[int(numbers[6] * len(ELECTRODES))] if "lead_off" in kinds else None
    return Episode(kinds, snr_db if parts else None, noise_uv, beats / MV_PER_UV**2, power, off, numbers[7] < 0.5, rail_uv,
                   tuple(dict.fromkeys(rows)))  # fmt: skip


def _kinds(asked: Noise, numbers: np.ndarray) -> tuple[tuple[str, ...], float]:
    """(the kinds of a stretch, which share of the power the first has): one by weight, one that is added where that is a fault, and
    in every second case a second one that is added.
    """
    first = _drawn(asked.kinds, numbers[0])
    added = [(name, share) for name, share in asked.kinds if name in ADDED]
    main = first if first in ADDED else _drawn(added, numbers[1])
    kinds = [main] if main else []
    others = [(name, share) for name, share in added if name != main]
    low, high = SECOND_SHARE
    second = low + (high - low) * (2 * numbers[2] % 1)
    if others and numbers[2] < 0.5:
        kinds.append(_drawn(others, numbers[3]))
    return (*kinds, *([first] if first not in ADDED else [])), 1 - second


def _drawn(weighted, number: float) -> str | None:
    """One of (name, weight), by a number from 0 to 1; None of none."""
    if not weighted:
        return None
    *upper, whole = accumulate(weight for _, weight in weighted)
    return weighted[bisect_right(upper, number * whole)][0]


def _finished(request: Request, made: np.ndarray, fades: tuple[bool, bool]) -> np.ndarray:
    """Noise float64 (8, time), low-passed as the record is, coming and going."""
    made = low_pass(made, request.lowpass_hz, request.fs_hz)
    fade = min(round(FADE_S * request.fs_hz), made.shape[1] // 4)
    rising = np.sin(np.pi / 2 * (np.arange(fade) + 0.5) / fade)
    if fades[0]:
        made[:, :fade] *= rising
    if fades[1]:
        made[:, -fade:] *= rising[::-1]
    return made


def _powers(request: Request, skeleton_mv: np.ndarray, parts: list[np.ndarray], shares: tuple[float, float]):
    """(power of the beats (12,), power of what is added (12,), and that (8, time)), of parts with these shares of its power."""
    fast = above(np.concatenate([skeleton_mv, *parts]), request.fs_hz)
    fast = fast.reshape(1 + len(parts), *skeleton_mv.shape)
    power = power_of_leads(fast)
    if not parts:
        return power[0], np.zeros(len(LEADS)), None
    if len(parts) == 1:
        return power[0], power[1], parts[0]
    scales = np.sqrt(shares / power[1:].sum(axis=1).clip(TINY))
    fast = scales[0] * fast[1] + scales[1] * fast[2]
    return power[0], power_of_leads(fast), scales[0] * parts[0] + scales[1] * parts[1]


def above(x: np.ndarray, fs_hz: float) -> np.ndarray:
    """What of x (lead, time) counts: all above COUNTED_HZ."""
    return x - low_pass(x, COUNTED_HZ, fs_hz)


def power_of_leads(modelled: np.ndarray) -> np.ndarray:
    """Sums of squares of all twelve leads (..., 12) from the modelled ones (..., 8, time)."""
    products = np.empty((*modelled.shape[:-2], 9))
    np.einsum("...lt,...lt->...l", modelled, modelled, out=products[..., :8])
    np.einsum("...t,...t->...", modelled[..., 0, :], modelled[..., 1, :], out=products[..., 8])
    return products @ TWELVE


# What is masked -------------------------------------------------------------------------------------------------------


def intervals(pieces: list[tuple[int, np.ndarray]]) -> list[Masked]:
    """Where leads are masked, by lead and time, of pieces in order, each (its first sample, bool (12, time))."""
    found: list[Masked] = []
    pieces = [(first, masked) for first, masked in pieces if masked.any()]
    for lead, name in enumerate(LEADS if pieces else ()):
        for first, masked in pieces:
            edges = np.flatnonzero(np.diff(np.concatenate([[0], masked[lead].view(np.int8), [0]])))
            found += [(name, start, stop) for start, stop in (first + edges.reshape(-1, 2)).tolist()]
    return found


def by_lead(masked: Masked) -> tuple[int, int]:
    return LEADS.index(masked[0]), masked[1]
