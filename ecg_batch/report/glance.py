"""A long record at a glance: its rate over the hours, and what comes and goes, as SVG that stretches with the page."""

from dataclasses import dataclass

import numpy as np

from ecg_batch.plot.course import THINNEST, Lane
from ecg_batch.plot.long import SHORT_S, TEN_S, clock, rates_bpm

WIDE, HIGH = 1000, 100  # of the box that the page stretches
MOST_TICKS = 4  # so that they do not touch on a phone


@dataclass(frozen=True)
class Course:
    """line, band: paths in a box of WIDE x HIGH. low, high: bpm at its edges. at: share of the width where the strip lies. ticks:
    (share of the width, text). lanes: (name, facts, colour, path in a box of WIDE x 10).
    """

    line: str
    band: str
    low: int
    high: int
    at: float
    ticks: list[tuple[float, str]]
    lanes: list[tuple[str, str, str, str]]
    says: str


def course_of(r_s: np.ndarray, lanes: list[Lane], last_s: float, at_s: float) -> Course:
    """r_s: times of beats (beat,). last_s: how long the record is, at_s: where its strip begins."""
    ten = rates_bpm(r_s)
    each = ten[:, None] if last_s < SHORT_S else ten.reshape(-1, 6)
    known = ~np.isnan(each).all(axis=1)
    x = (np.flatnonzero(known) + 0.5) * TEN_S * each.shape[1] / last_s * WIDE
    each = each[known]
    low, high = int(10 * np.floor(np.nanmin(each) / 10)), int(10 * np.ceil(np.nanmax(each) / 10))
    high = max(high, low + 10)
    slowest, mean, fastest = (HIGH * (1 - (of(each, axis=1) - low) / (high - low)) for of in (np.nanmin, np.nanmean, np.nanmax))
    band = "" if last_s < SHORT_S else line_of(np.append(x, x[::-1]), np.append(fastest, slowest[::-1])) + "z"
    drawn = [(lane.name, lane.facts(), lane.colour, _spans(lane, last_s)) for lane in lanes]
    means = np.nanmean(each, axis=1)
    says = f"Heart rate over {clock(last_s)}: mean of each {'minute' if band else 'ten seconds'} from {means.min():.0f} to "
    says += f"{means.max():.0f} bpm" + "".join(f"; {lane.name}: {lane.facts()}" for lane in lanes)
    return Course(line_of(x, mean), band, low, high, at_s / last_s, _ticks(last_s), drawn, says)


def line_of(x: np.ndarray, y: np.ndarray) -> str:
    """SVG path through points, to a tenth."""
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def _spans(lane: Lane, last_s: float) -> str:
    thinnest = THINNEST * WIDE
    boxes = [(start / last_s * WIDE, max((stop - start) / last_s * WIDE, thinnest)) for start, stop in lane.spans]
    return "".join(f"M{left:.1f} 0h{wide:.1f}v10H{left:.1f}z" for left, wide in boxes)


def _ticks(last_s: float) -> list[tuple[float, str]]:
    steps = (10, 20, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600)
    step_s = next(step for step in steps if last_s / step <= MOST_TICKS)
    at = np.arange(0, last_s + 1, step_s).tolist()
    return [(time / last_s, clock(time)[:5] if last_s >= SHORT_S else clock(time)[3:]) for time in at]
