"""The donor as a loop: its beats go on for ever, joined once, where end and beginning fit best.

A 10 s record at a faster rate needs more beats than its donor has, and may start at any of them. The loop runs from a
point before one of the first P waves to a point before one of the last, chosen by the published seam cost
MSE(derivatives) + 0.15 MSE(values) over all leads at once, and is cross-faded there.
"""

import numpy as np

from ecg_batch.donors.split import END_S, JOIN_S
from ecg_batch.signal.delineate import Fiducials

SEAM_S = 0.05  # compared on either side, and cross-faded
VALUE_WEIGHT = 0.15
MIN_BEATS = 3


def find_loop(skeleton: np.ndarray, beats: np.ndarray, fiducials: Fiducials, fs_hz: float) -> tuple[int, int] | None:
    """(start, stop) samples of the best loop over whole beats, or None with fewer than three: skeleton (lead, time)."""
    seam, ends = round(SEAM_S * fs_hz), round((END_S + JOIN_S) * fs_hz)
    x = skeleton.astype(np.float64)
    heads = _before_p(beats[: max(len(beats) // 3, 1)], fiducials, beats, seam, ends, x.shape[-1])
    tails = _before_p(beats[MIN_BEATS:], fiducials, beats, seam, ends, x.shape[-1])
    if not len(heads) or not len(tails):
        return None
    # the longest loop first: more of the donor's own beats; its seam is the best of all points of that beat pair
    first, last = heads[0, 0], tails[-1, 0]
    if last - first < MIN_BEATS:
        return None
    starts, stops = heads[heads[:, 0] == first, 1], tails[tails[:, 0] == last, 1]
    cost = seam_cost(x, starts, stops, seam)
    start, stop = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return int(starts[start]), int(stops[stop])


def _before_p(chosen: np.ndarray, fiducials: Fiducials, beats: np.ndarray, seam: int, ends: int, samples: int) -> np.ndarray:
    """Possible seam points (point, [beat index, sample]) in the TP segment before each chosen beat; at least one a beat."""
    points = []
    for r in chosen:
        index = int(np.searchsorted(beats, r))
        latest = r + fiducials.p_on
        t_end = beats[index - 1] + fiducials.t_end if index else latest - 2 * seam
        for point in range(min(max(t_end, latest - 4 * seam), latest), latest + 1):
            if seam + ends <= point < samples - seam - ends:
                points.append((index, point))
    return np.array(points, dtype=np.int64).reshape(-1, 2)


def seam_cost(x: np.ndarray, starts: np.ndarray, stops: np.ndarray, seam: int) -> np.ndarray:
    """MSE of derivatives + 0.15 MSE of values about each pair of points, mean over leads: (start, stop)."""
    reach = np.arange(-seam, seam + 1)
    head, tail = x[:, starts[:, None] + reach], x[:, stops[:, None] + reach]  # (lead, point, time)
    values = head[:, :, None] - tail[:, None]
    return np.square(np.diff(values, axis=-1)).mean(axis=(0, -1)) + VALUE_WEIGHT * np.square(values).mean(axis=(0, -1))


def closed_loop(skeleton: np.ndarray, start: int, stop: int, fs_hz: float) -> np.ndarray:
    """The loop (lead, stop - start): its last 50 ms fade into what comes before its start, so value and slope go on."""
    seam = round(SEAM_S * fs_hz)
    loop = skeleton[:, start:stop].astype(np.float64)
    fade = (np.arange(seam) + 1) / (seam + 1)
    loop[:, -seam:] = (1 - fade) * loop[:, -seam:] + fade * skeleton[:, start - seam : start]
    return np.rint(loop).astype(np.int16)
