"""The quality gate of long records: every minute as it is made, and what the minutes say of the record."""

from collections.abc import Sequence

import numpy as np

from ecg_batch.leads import MODELLED, MODELLED_INDEX, MV_PER_UV
from ecg_batch.signal.beats import LEAD_II, VOTE_TOLERANCE_S, detect_rows, voted_beats
from ecg_batch.synthesis.check import BEAT_WITHIN_S, EDGE_S, FLAT_MV, HR_WITHIN_BPM, MAX_MV, OF_SAMPLES

LEAD_IN_S = 8.0  # of the minute before: the detector has to learn how high a QRS is
JUDGED_S = 2.0  # the last of a minute is judged with the next one
T_WITHIN_S = 0.5  # of R
GAPS_S = (VOTE_TOLERANCE_S / 2, 0.1)  # in a vote; by the second, R in one lead and S in another, 80 ms apart, are one beat
MOST_WRONG = 0.005  # of a record's beats: more missed or invented, and the record is flagged
MOST_WRONG_IN_EVENTS = 0.02  # detectors put R of a premature beat on its P wave: docs/evidence/events.md


def check_minute(checks: Sequence["MinuteCheck"], ecg_uv: np.ndarray) -> None:
    """The next minute of each record, integers (record, 12, time). One filter serves the detectors of all: alone a row takes as
    long as sixteen.
    """
    due = [check for check, own in zip(checks, ecg_uv, strict=True) if check.takes(own)]
    if due:
        rows = detect_rows(np.stack([check.leads[LEAD_II] for check in due]) * MV_PER_UV, due[0].fs_hz)
        for check, by_lead_ii in zip(due, rows, strict=True):
            check.judge(by_lead_ii)


class MinuteCheck:
    """Follows one record through check_minute, then ask what was `found`. failed: (sample, flags) of minutes that failed.

    leads: of the modelled ones, (lead, time) ecg_uv, what is judged now with its lead-in.
    """

    def __init__(self, fs_hz: float, samples: int, beats: np.ndarray, wide: np.ndarray | None = None):
        """wide (beat,): beats of another QRS than the main rhythm's, which detectors may miss, or count their T waves."""
        self.fs_hz, self._samples, self._beats = fs_hz, samples, beats
        self._most_wrong = MOST_WRONG if wide is None else MOST_WRONG_IN_EVENTS
        self._gaps_s = GAPS_S[:1] if wide is None else GAPS_S
        self._narrow, self._wide = (beats, beats[:0]) if wide is None else (beats[~wide], beats[wide])
        self.leads = np.empty((len(MODELLED), 0), np.int16)
        self._at, self._judged = 0, round(EDGE_S * fs_hz)
        self._span, self._seen, self._wrong = (np.inf, -np.inf), 0, 0
        self._minute = 0  # where the latest one begins
        self.failed: list[tuple[int, list[str]]] = []

    def takes(self, ecg_uv: np.ndarray) -> bool:
        """The next minute, (12, time); whether there is enough to judge."""
        highest, lowest = (ends.astype(np.int64) for ends in (ecg_uv.max(axis=-1), ecg_uv.min(axis=-1)))  # (lead,)
        self._minute, self._at = self._at, self._at + ecg_uv.shape[-1]
        self._fails("amplitude", max(highest.max(), -lowest.min()) * MV_PER_UV > MAX_MV)
        flat = ((highest - lowest) * MV_PER_UV < FLAT_MV).any()
        self._fails("flat", flat and ecg_uv.shape[-1] > 2 * self.fs_hz)
        self.leads = np.concatenate([self.leads, ecg_uv[list(MODELLED_INDEX)]], axis=1)
        return self._at == self._samples or self.leads.shape[1] > LEAD_IN_S * self.fs_hz

    def judge(self, by_lead_ii: np.ndarray) -> None:
        """Whether a beat was missed or invented in what was not judged before, by what a detector found in lead II of `leads`.

        A detector that follows one lead may lose its threshold and count T waves for a while; then eight leads vote.
        """
        clear_s = EDGE_S if self._at == self._samples else JUDGED_S
        until = self._at - round(clear_s * self.fs_hz)
        found, wrong = self._held_against(by_lead_ii, until)
        if wrong:
            by_lead = detect_rows(self.leads * MV_PER_UV, self.fs_hz)
            for gap_s in self._gaps_s:
                voted = self._held_against(voted_beats(by_lead, self.fs_hz, gap_s), until)
                found, wrong = voted if voted[1] < wrong else (found, wrong)
        if len(found):
            self._span = min(self._span[0], found[0]), max(self._span[1], found[-1])
        self._seen, self._wrong, self._judged = self._seen + len(found), self._wrong + wrong, until
        self.leads = self.leads[:, -round((LEAD_IN_S + JUDGED_S) * self.fs_hz) :]
        self._fails("beats", bool(wrong))

    def _fails(self, flag: str, is_so: bool) -> None:
        """Marks the latest minute with a flag."""
        if is_so and (not self.failed or self.failed[-1][0] != self._minute):
            self.failed.append((self._minute, []))
        if is_so:
            self.failed[-1][1].append(flag)

    def _held_against(self, found: np.ndarray, until: int) -> tuple[np.ndarray, int]:
        """(detections that are judged now, how many beats were missed or invented). Wide beats count as detected."""
        found, near = found + self._at - self.leads.shape[1], BEAT_WITHIN_S * self.fs_hz
        judged = _between(found, self._judged, until)
        narrow, wide = (_between(beats, self._judged, until) for beats in (self._narrow, self._wide))
        missed, invented = _far(narrow, found, near), _far(judged, self._beats, near)
        if len(self._wide):
            before = np.searchsorted(self._wide, judged, side="right") - 1
            invented &= (before < 0) | (judged - self._wide[before] > T_WITHIN_S * self.fs_hz)
            judged = np.sort(np.concatenate([narrow[~missed], wide, judged[invented]]))
        return judged, int(missed.sum()) + int(invented.sum())

    def remarks(self) -> list[tuple[int, str]]:
        """(first sample, flags in one text) of each minute that failed."""
        return [(start, ",".join(flags)) for start, flags in self.failed]

    def found(self, hr_bpm: float) -> tuple[float, list[str]]:
        """(measured heart rate, flags) of the whole record: amplitude, flat, heart_rate, beats."""
        first, last = self._span
        measured = 60 * self.fs_hz * (self._seen - 1) / (last - first) if self._seen > 2 else float("nan")
        flags = [name for name in OF_SAMPLES if any(name in flags for _, flags in self.failed)]
        flags += ["heart_rate"] * (not abs(measured - hr_bpm) <= HR_WITHIN_BPM)
        flags += ["beats"] * (self._wrong > self._most_wrong * max(len(self._beats), 1))
        return measured, flags


def _between(r: np.ndarray, start: int, stop: int) -> np.ndarray:
    return r[(r >= start) & (r < stop)]


def _far(these: np.ndarray, those: np.ndarray, near: float) -> np.ndarray:
    """Which of these have none of those near: bool (beat,). Both ascending."""
    if not len(those):
        return np.ones(len(these), bool)
    after = np.searchsorted(those, these).clip(1, len(those) - 1) if len(those) > 1 else np.zeros(len(these), int)
    distance = np.minimum(np.abs(these - those[after]), np.abs(these - those[after - 1]))
    return distance > near
