"""Overlays: what comes over the beats of a long record for a while, whichever they are: ST episodes, and changes of posture.

An ST episode is a slow rise and fall of what lies between the J point and the end of T, along one direction of the
vectorcardiogram: away from the left ventricle in depression, toward a wall in elevation. It is annotated as in the European ST-T
Database (Taddei et al. 1992, doi:10.1093/oxfordjournals.eurheartj.a060332): where it begins, is highest and ends, in the lead in
which it is highest. A change of posture turns the vectorcardiogram, and with it every lead, within two seconds and until the next
one (Norgaard et al. 2000, doi:10.1016/S0022-0736(00)80059-4, had 5 to 30 degrees).
"""

from dataclasses import dataclass

import numpy as np

from ecg_batch.leads import MV_PER_UV, twelve_leads
from ecg_batch.request.events import usual_s
from ecg_batch.request.places import Place, until_next
from ecg_batch.signal.vcg import DOWER, rotation_of_leads
from ecg_batch.synthesis.ask import quantile
from ecg_batch.synthesis.long.events.patient import Asked

ST_MV = (0.12, 0.4)  # at J + 60 ms in the lead in which it is highest
FULL_AFTER_J_S = 0.06
USUAL_ST_S = 0.28  # from J to the end of T, where a beat has no mark of it
DEPRESSION = np.array([-0.75, -0.55, 0.35])  # X to the left, Y down, Z to the back
ELEVATION = np.array([[0.2, 0.0, -1.0], [0.1, 1.0, 0.1], [1.0, -0.2, 0.0]])  # of the front wall, the lower and the side
DEPRESSED = 0.7  # of the episodes
TURN_SD_DEG, MOST_TURN_DEG, GAIN_SD, TAKES_S = 15.0, 30.0, 0.06, 2.0
ST_CHANGE, NOTE = "s", '"'  # WFDB's symbols


@dataclass(frozen=True)
class StEpisode:
    """start, stop: samples; leads (8,): microvolts at its height."""

    start: int
    stop: int
    leads: np.ndarray

    def meets(self, other: "StEpisode") -> bool:
        """Whether both are there at once."""
        return self.start < other.stop and other.start < self.stop


@dataclass(frozen=True)
class Posture:
    """From sample `start` on the leads are multiplied by `by`, (8, 8)."""

    start: int
    by: np.ndarray


@dataclass(frozen=True)
class Overlays:
    """Of one record. j, t_end: of each beat, in samples, NaN is not known. active: samples (start, stop) of activity, of which
    activity.py makes the rate and noise_episodes.py the noise.
    """

    fs_hz: int
    level: np.ndarray
    st: list[StEpisode]
    postures: list[Posture]
    j: np.ndarray
    t_end: np.ndarray
    active: tuple[tuple[int, int], ...] = ()

    def put_over(self, out: np.ndarray, begins: int) -> np.ndarray:
        """Samples of the record from `begins` on, float64 (8, time) in microvolts, with what comes over them."""
        out = self._postured(out, begins) if self.postures else out
        for one in self.st:  # as high as annotated, however the patient lies
            if one.start < begins + out.shape[1] and one.stop > begins:
                self._add_st(one, out, begins)
        return out

    def _add_st(self, one: StEpisode, out: np.ndarray, begins: int) -> None:
        ends = np.where(np.isnan(self.t_end), self.j + USUAL_ST_S * self.fs_hz, self.t_end)
        low, high = max(one.start, begins), min(one.stop, begins + out.shape[1])
        for at in np.flatnonzero((ends > low) & (self.j < high)).tolist():
            j, end = float(self.j[at]), float(ends[at])
            time = np.arange(max(int(np.ceil(j)), low), min(int(end) + 1, high))
            if not len(time) or end - j < 2:
                continue
            rising, falling = (time - j) / (FULL_AFTER_J_S * self.fs_hz), (end - time) / (0.5 * (end - j))
            height = np.sin(np.pi * (j - one.start) / (one.stop - one.start)) ** 2 if one.start < j < one.stop else 0.0
            out[:, time - begins] += height * one.leads[:, None] * _smooth(rising) * _smooth(falling)

    def _postured(self, out: np.ndarray, begins: int) -> np.ndarray:
        """The leads about their level, each change fading in over the one before."""
        time, level = np.arange(begins, begins + out.shape[1]), self.level[:, None]
        weights = [_smooth((time - one.start) / (TAKES_S * self.fs_hz)) for one in self.postures]
        moved, before = out.copy(), np.eye(len(out))
        for one, weight in zip(self.postures, weights, strict=True):
            if weight.any():
                moved += weight * ((one.by - before) @ (out - level))
            before = one.by
        return moved

    def annotations(self) -> list[tuple[int, str, str]]:
        """(sample, symbol, aux): of ST episodes as in the European ST-T Database, of changes of posture and of activity notes."""
        said = [(one.start, NOTE, "posture") for one in self.postures]
        for start, stop in self.active:
            said += [(start, NOTE, "activity"), (stop - 1, NOTE, "activity ends")]
        for one in self.st:
            twelve = twelve_leads(np.rint(one.leads).astype(np.int64)[:, None])[:, 0]
            lead = int(np.abs(twelve).argmax())
            sign = "+" if twelve[lead] > 0 else "-"
            said += [(one.start, ST_CHANGE, f"(ST{lead}{sign}"), (one.stop - 1, ST_CHANGE, f"ST{lead}{sign})"),
                     ((one.start + one.stop) // 2, ST_CHANGE, f"AST{lead}{sign}{abs(int(twelve[lead]))}")]  # fmt: skip
        return said


def drawn_overlays(
    asked: Asked, places: tuple[Place, ...], samples: int, fs_hz: int, level: np.ndarray, j, t_end, draws, draws_of_places
) -> Overlays:
    """When they come, and what they are: at their places, and by chance those of asked.per_hour. One ST episode begins after the
    one before has ended; one by chance that meets one at a place does not come.
    """
    st, postures, lengths = [], [], asked.lengths()
    if rate := asked.per_hour.get("st_episode"):
        (event,) = (event for event in asked.events if event.name == "st_episode")
        gap_s = max(3600 / rate - usual_s(event), 1.0)
        at = gap_s * draws.exponential()
        while at * fs_hz < samples:
            stop = at + float(quantile(event.length, draws.random(1))[0])
            st.append(StEpisode(round(at * fs_hz), min(round(stop * fs_hz), samples), _st_leads(draws)))
            at = stop + gap_s * draws.exponential()
    if rate := asked.per_hour.get("posture"):
        at = draws.exponential(3600 / rate)
        while at * fs_hz < samples:
            postures.append(Posture(round(at * fs_hz), _turned(draws)))
            at += TAKES_S + draws.exponential(3600 / rate)
    placed, until = [], {one: round(until_s * fs_hz) for one, until_s in until_next(places, "st_episode", samples / fs_hz)}
    for one in places:
        start = round(one.start_s * fs_hz)
        if one.event == "posture":
            postures.append(Posture(start, _turned(draws_of_places)))
        elif one.event == "st_episode":
            drawn = float(quantile(lengths[one.event], draws_of_places.random(1))[0])
            stop = start + round(fs_hz * (one.length or drawn))
            placed.append(StEpisode(start, min(stop, until[one]), _st_leads(draws_of_places)))
    st = [one for one in st if one.stop - one.start > fs_hz and not any(one.meets(other) for other in placed)] + placed
    by_time = [sorted(them, key=lambda one: one.start) for them in (st, postures)]
    return Overlays(fs_hz, level, *by_time, j, t_end)


def _st_leads(draws: np.random.Generator) -> np.ndarray:
    """Microvolts of the eight leads at the height of an episode."""
    depressed, wall, height, jitter = draws.random(), draws.integers(3), draws.uniform(*ST_MV), draws.normal(0, 0.15, 3)
    leads = DOWER @ ((DEPRESSION if depressed < DEPRESSED else ELEVATION[wall]) + jitter)
    twelve = twelve_leads(np.rint(leads * 1e6).astype(np.int64)[:, None])[:, 0] / 1e6
    return leads * height / MV_PER_UV / np.abs(twelve).max()


def _turned(draws: np.random.Generator) -> np.ndarray:
    axis, angle, gain = draws.standard_normal(3), TURN_SD_DEG * draws.standard_normal(), np.exp(GAIN_SD * draws.standard_normal())
    angle = np.deg2rad(np.clip(angle, -MOST_TURN_DEG, MOST_TURN_DEG))
    return gain * (np.eye(8) + rotation_of_leads(axis / np.linalg.norm(axis), angle))


def _smooth(u: np.ndarray) -> np.ndarray:
    u = np.clip(u, 0.0, 1.0)
    return u * u * (3 - 2 * u)
