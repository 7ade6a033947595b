"""Noise of long records comes in episodes, each with kinds and a ratio of its own (synthesis/noise.py).

When they come is drawn once for the whole record; each is made in one piece when its first minute is, from numbers of its own, and
measured against the beats that it covers. So a stretch is the same whatever was made before it, and no more than one episode of a
record is held at a time.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ecg_batch.draws import Stream, generator
from ecg_batch.leads import LEADS
from ecg_batch.request.model import NOISE_LIMITS_S, Distribution, Request
from ecg_batch.signal.filters import low_pass_of
from ecg_batch.synthesis.ask import quantile
from ecg_batch.synthesis.noise import Episode, Masked, NoiseOf, Recorded, intervals, make_episode

NEAR_S = 0.2  # places that are masked and lie nearer than this are one: else an hour has thousands
ENDS = "noise ends"  # aux of the "~" where an episode ends


class NoiseEpisodes:
    """The noise of one record, put over its minutes in their order; then ask what is known of it."""

    def __init__(
        self,
        request: Request,
        key: int,
        skeleton: Callable[[int, int], np.ndarray],
        snr_db: float | None = None,
        active: Sequence[tuple[int, int]] | None = None,
        recorded: Recorded | None = None,
    ):
        """key: what its draws are keyed by; skeleton: samples start .. stop - 1 of the beats, float64 (8, time) mV; snr_db: of all
        episodes, where it is not drawn for each; active: samples (start, stop) of activity, where the noise is that of it;
        recorded: where the request asks for recorded noise.
        """
        self._recorded, self._rows = recorded, {}
        self._request, self._key, self._skeleton, self._snr_db = request, key, skeleton, snr_db
        self._draws = (Stream.NOISE, 1) if active is None else (Stream.ACTIVITY, 2)  # and the part of the first episode
        self.stretches = episode_times(request, key) if active is None else list(active)
        self._made: tuple[int, Episode] | None = None
        self._next = 0  # the first that does not end before what comes next
        self._kinds: dict[str, None] = {}
        self._powers = np.zeros((2, len(LEADS)))
        self._masked: list[Masked] = []
        self._annotated: list[tuple[int, str]] = []

    def put_over(self, ecg: np.ndarray, first: int) -> None:
        """Samples from `first` on, int16 (12, time), in place."""
        last = first + ecg.shape[1]
        while self._next < len(self.stretches) and self.stretches[self._next][0] < last:
            start, stop = self.stretches[self._next]
            made = self._episode(self._next)
            now = slice(max(start - first, 0), min(stop, last) - first)
            masked = made.put_over(ecg[:, now], max(first - start, 0))
            self._masked += intervals([(first + now.start, masked)])
            if stop > last:
                break
            self._next += 1

    def _episode(self, at: int) -> Episode:
        if self._made is None or self._made[0] != at:
            request, (start, stop) = self._request, self.stretches[at]
            beats_mv = low_pass_of(self._skeleton, start, stop, request.samples, request.lowpass_hz, request.fs_hz)
            stream, first = self._draws
            draws = generator(request.seed, self._key, stream, first + at)
            made = make_episode(request, draws, beats_mv, (start > 0, stop < request.samples), self._snr_db, self._recorded)
            self._made = at, made
            self._kinds |= dict.fromkeys(made.kinds)
            self._rows |= dict.fromkeys(made.rows)
            if made.added_uv is not None:
                self._powers += made.beats, made.added
            self._annotated += [(start, words_of(made)), (stop, ENDS)]
        return self._made[1]

    def known(self) -> NoiseOf:
        """Of the whole record, once its last minute is made."""
        near = round(NEAR_S * self._request.fs_hz)
        return NoiseOf(tuple(self._kinds), *self._powers, tuple(_together(self._masked, near)), tuple(self._rows))

    def annotations(self) -> Iterator[tuple[int, str, str]]:
        """(sample, symbol, aux) of where episodes begin and end; none of an end that is the record's, or another's beginning."""
        begins = {start for start, _ in self.stretches} | {self._request.samples}
        return ((sample, "~", aux) for sample, aux in self._annotated if aux != ENDS or sample not in begins)


def episode_times(request: Request, key: int) -> list[tuple[int, int]]:
    """When a record has noise: (start, stop) samples, in order and apart from each other.

    The gap from one to the next is exponential, of such a mean that they come as often as asked; without any where they could not.
    """
    asked, draws = request.noise, generator(request.seed, key, Stream.NOISE)
    length_s = asked.length_s or Distribution(*NOISE_LIMITS_S)
    gap_s = max(3600 / asked.per_hour - mean(length_s), 0.0)
    at_s, found = gap_s * draws.exponential() if draws.random() < _gap_share(gap_s, length_s) else 0.0, []
    while at_s < request.duration_s:
        stop_s = at_s + float(quantile(length_s, draws.random(1))[0])
        start, stop = round(at_s * request.fs_hz), min(round(stop_s * request.fs_hz), request.samples)
        if stop - start >= NOISE_LIMITS_S[0] * request.fs_hz:
            found.append((start, stop))
        at_s = stop_s + gap_s * draws.exponential()
    return found


def _gap_share(gap_s: float, length_s: Distribution) -> float:
    """How likely a record begins without noise."""
    return gap_s / (gap_s + mean(length_s))


def mean(distribution: Distribution) -> float:
    """Of the quantiles, near enough."""
    return float(quantile(distribution, (np.arange(100) + 0.5) / 100).mean())


def words_of(made: Episode) -> str:
    """What an annotation says of an episode: noise muscle+electrode 6.0 dB, or noise lead_off V3."""
    kinds = [f"lead_off {made.off}" if kind == "lead_off" else kind for kind in made.kinds]
    return f"noise {'+'.join(kinds)}" + (f" {made.snr_db:.1f} dB" if made.snr_db is not None else "")


def _together(masked: list[Masked], near: int) -> list[Masked]:
    """By lead and time, those less than `near` samples apart as one."""
    found: list[Masked] = []
    for lead, start, stop in sorted(masked, key=lambda one: (LEADS.index(one[0]), one[1])):
        if found and found[-1][0] == lead and start - found[-1][2] <= near:
            found[-1] = (lead, found[-1][1], max(stop, found[-1][2]))
        else:
            found.append((lead, start, stop))
    return found
