"""The quality gate of long records: every minute as it is made, and what the minutes say of the record."""

import numpy as np

from ecg_batch.beats import LEAD_II, detect_rows, voted_beats
from ecg_batch.check import BEAT_WITHIN_S, EDGE_S, FLAT_MV, HR_WITHIN_BPM, MAX_MV
from ecg_batch.leads import MODELLED, MODELLED_INDEX, MV_PER_STEP

LEAD_IN_S = 8.0  # of the minute before: the detector has to learn how high a QRS is
JUDGED_S = 2.0  # the last of a minute is judged with the next one
MOST_WRONG = 0.005  # of a record's beats: more missed or invented, and the record is flagged


class MinuteCheck:
    """Follows one record: `add` its minutes in order, then ask what was `found`. failed: (sample, flags) of minutes that failed."""

    def __init__(self, fs_hz: float, samples: int, beats: np.ndarray):
        self._fs_hz, self._samples, self._beats = fs_hz, samples, beats
        self._leads = np.empty((len(MODELLED), 0), np.int32)  # the modelled leads, from the lead-in up to where we are
        self._at, self._judged = 0, round(EDGE_S * fs_hz)
        self._span, self._seen, self._wrong = (np.inf, -np.inf), 0, 0
        self.failed: list[tuple[int, list[str]]] = []

    def add(self, steps: np.ndarray) -> None:
        """The next minute, int32 (12, time)."""
        flags = []
        highest, lowest = steps.max(axis=-1), steps.min(axis=-1)  # (lead,)
        if max(highest.max(), -lowest.min()) * MV_PER_STEP > MAX_MV:
            flags.append("amplitude")
        if ((highest - lowest) * MV_PER_STEP < FLAT_MV).any() and steps.shape[-1] > 2 * self._fs_hz:
            flags.append("flat")
        self._leads = np.concatenate([self._leads, steps[list(MODELLED_INDEX)]], axis=1)
        self._at += steps.shape[-1]
        if self._at == self._samples or self._leads.shape[1] > LEAD_IN_S * self._fs_hz:
            flags += ["beats"] * self._judge()
        if flags:
            self.failed.append((self._at - steps.shape[-1], flags))

    def _judge(self) -> bool:
        """Whether a beat was missed or invented in what was not judged before.

        A detector that follows one lead may lose its threshold and count T waves for a while; then eight leads vote.
        """
        clear_s = EDGE_S if self._at == self._samples else JUDGED_S
        until = self._at - round(clear_s * self._fs_hz)
        by_lead = detect_rows(self._leads[[LEAD_II]] * MV_PER_STEP, self._fs_hz)
        found, wrong = self._held_against(by_lead[0], until)
        if wrong:
            by_lead = detect_rows(self._leads * MV_PER_STEP, self._fs_hz)
            voted = self._held_against(voted_beats(by_lead, self._fs_hz), until)
            found, wrong = voted if voted[1] < wrong else (found, wrong)
        if len(found):
            self._span = min(self._span[0], found[0]), max(self._span[1], found[-1])
        self._seen, self._wrong, self._judged = self._seen + len(found), self._wrong + wrong, until
        self._leads = self._leads[:, -round((LEAD_IN_S + JUDGED_S) * self._fs_hz) :]
        return bool(wrong)

    def _held_against(self, found: np.ndarray, until: int) -> tuple[np.ndarray, int]:
        """(detections that are judged now, how many beats were missed or invented)."""
        found, near = found + self._at - self._leads.shape[1], BEAT_WITHIN_S * self._fs_hz
        judged = _between(found, self._judged, until)
        return judged, _far(_between(self._beats, self._judged, until), found, near) + _far(judged, self._beats, near)

    def found(self, hr_bpm: float) -> tuple[float, list[str]]:
        """(measured heart rate, flags) of the whole record: amplitude, flat, heart_rate, beats."""
        first, last = self._span
        measured = 60 * self._fs_hz * (self._seen - 1) / (last - first) if self._seen > 2 else float("nan")
        flags = [name for name in ("amplitude", "flat") if any(name in flags for _, flags in self.failed)]
        flags += ["heart_rate"] * (not abs(measured - hr_bpm) <= HR_WITHIN_BPM)
        flags += ["beats"] * (self._wrong > MOST_WRONG * max(len(self._beats), 1))
        return measured, flags


def _between(r: np.ndarray, start: int, stop: int) -> np.ndarray:
    return r[(r >= start) & (r < stop)]


def _far(these: np.ndarray, those: np.ndarray, near: float) -> int:
    """How many of these have none of those near. Both ascending."""
    if not len(those):
        return len(these)
    after = np.searchsorted(those, these).clip(1, len(those) - 1) if len(those) > 1 else np.zeros(len(these), int)
    distance = np.minimum(np.abs(these - those[after]), np.abs(these - those[after - 1]))
    return int((distance > near).sum())
