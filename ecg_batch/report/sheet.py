"""Sheets: ECG paper as SVG, with the geometry of plot/paper.py: 25 mm/s, 10 mm/mV, four columns of 2.5 s over a strip of lead II.

Each column is a picture of its own with its part of the strip below it, so that on a phone two lie over two. A point is rounded to
a tenth of a millimetre, which is finer than the line; at 100 Hz no point is left out.
"""

from html import escape

import numpy as np

from ecg_batch.leads import LEADS
from ecg_batch.plot.paper import (
    COLUMN_S,
    LAYOUT,
    MM_PER_MV,
    MM_PER_S,
    NAME_MM,
    NAME_OVER_MM,
    PULSE_MM,
    SHADE_MM,
    STRIP_LEAD,
    WAVE_COLOURS,
    Sheet,
    grid_mm,
    room_mm,
)

STEP_MM = 0.1  # to which the height of a trace is rounded
POINT_MM = 0.25  # along time, of which a trace has its least and its most: 10 ms
LETTER_MM = 1.6  # half of one
COLUMNS = len(LAYOUT[0])
COLUMN_MM = COLUMN_S * MM_PER_S
BELOW_STRIP_MM = 5.2  # from the lower edge, where the types of beats stand


def columns_of(sheet: Sheet, beats: list[tuple[float, str]] = ()) -> list[str]:
    """The SVG of each column. beats: (seconds, type) to be written below the strip."""
    room = room_mm([sheet])
    return [_column(sheet, at, *room, beats) for at in range(COLUMNS)]


def height_mm(sheet: Sheet) -> float:
    """Of the paper that it needs."""
    return grid_mm(*room_mm([sheet]))


def _column(sheet: Sheet, at: int, top_mm: float, row_mm: float, beats: list[tuple[float, str]]) -> str:
    height, start_s = grid_mm(top_mm, row_mm), at * COLUMN_S
    left, right = (at > 0) * (PULSE_MM + at * COLUMN_MM), PULSE_MM + (at + 1) * COLUMN_MM
    middles = [height - (3.5 - row) * row_mm for row in range(len(LAYOUT))] + [height - 0.5 * row_mm]
    drawn = [f'<rect x="{left:g}" width="{right - left:g}" height="{height:g}" fill="url(#mm)"/>']
    if at == 0:
        drawn.append(f'<path class="e" d="{"".join(f"M1 {middle:g}h1v-{MM_PER_MV}h5v{MM_PER_MV}h1" for middle in middles)}"/>')
    if sheet.waves is not None:
        drawn += _waves(sheet, start_s, middles[-1])
    for middle, names in zip(middles, LAYOUT, strict=False):
        drawn += _trace(sheet, names[at], start_s, middle)
    drawn += _trace(sheet, STRIP_LEAD, start_s, middles[-1], named=at == 0)
    for beat_s, name in beats:
        if start_s <= beat_s < start_s + COLUMN_S:
            x, odd = PULSE_MM + beat_s * MM_PER_S, "" if name == "N" else ' class="o"'
            x = min(max(x, left + LETTER_MM), right - LETTER_MM)  # whole, also at the edge of a column
            drawn.append(f'<text x="{x:.4g}" y="{height - BELOW_STRIP_MM:g}" text-anchor="middle"{odd}>{escape(name)}</text>')
    if at == 0 and sheet.waves is not None:
        names = zip(("P", "QRS", "T"), WAVE_COLOURS, (0, 5, 16), strict=True)
        drawn += [f'<text x="{PULSE_MM + 2 + x}" y="{height - 1:g}" fill="{colour}">{name}</text>' for name, colour, x in names]
    if at == COLUMNS - 1:
        drawn.append(f'<text x="{right - 2:g}" y="{height - 1:g}" text-anchor="end">25 mm/s 10 mm/mV</text>')
    return f'<svg viewBox="{left:g} 0 {right - left:g} {height:g}" aria-hidden="true">{"".join(drawn)}</svg>'


def _trace(sheet: Sheet, name: str, start_s: float, middle: float, named: bool = True) -> list[str]:
    """One lead for the time of a column, its median on the middle line, its name over it."""
    lead = sheet.ecg_mv[LEADS.index(name)]
    first, stop = round(start_s * sheet.fs_hz), min(round((start_s + COLUMN_S) * sheet.fs_hz) + 1, len(lead))
    if stop - first < 2:
        return []
    height_mm = (lead[first:stop] - np.median(lead)) * MM_PER_MV
    x, mm_each = PULSE_MM + start_s * MM_PER_S, MM_PER_S / sheet.fs_hz
    place = f'transform="translate({x:g} {middle:g})scale({mm_each:g} {STEP_MM:g})"'
    drawn = [f'<path class="e" {place} d="{path_of(-height_mm / STEP_MM, round(POINT_MM / mm_each))}"/>']
    if named:
        over = max(NAME_OVER_MM, float(height_mm[: round(NAME_MM / mm_each)].max()) + 1)
        drawn.append(f'<path class="d" d="M{x:g} {middle - 3:g}v6"/>')
        drawn.append(f'<text x="{x + 1:g}" y="{max(middle - over, 3.4):.4g}">{name}</text>')
    return drawn


def path_of(height: np.ndarray, each: int = 1) -> str:
    """SVG path of heights (time,) over 0, 1, 2 ..., rounded to whole numbers. Of `each` points the least and the most are drawn,
    and of points on one line its ends.
    """
    at, whole = np.arange(len(height)), np.rint(height).astype(int)
    if each > 2:
        at = _extremes(whole, each)
    steps, heights = np.diff(at), np.diff(whole[at])
    turns = np.append(np.flatnonzero((np.diff(steps) != 0) | (np.diff(heights) != 0)) + 1, len(at) - 1)
    at = at[np.append(0, turns)]
    pairs = zip(np.diff(at).tolist(), np.diff(whole[at]).tolist(), strict=True)
    return f"M0 {whole[0]}l" + " ".join(f"{step}{high}" if high < 0 else f"{step} {high}" for step, high in pairs)


def _extremes(height: np.ndarray, each: int) -> np.ndarray:
    """Indices of the least and the most of every so many points, of the first and of the last."""
    kept = {0, len(height) - 1}
    for start in range(0, len(height), each):
        part = height[start : start + each]
        kept |= {start + int(part.argmin()), start + int(part.argmax())}
    return np.array(sorted(kept))


def _waves(sheet: Sheet, start_s: float, middle: float) -> list[str]:
    """P, QRS and T of the strip, shaded."""
    first, stop = round(start_s * sheet.fs_hz), round((start_s + COLUMN_S) * sheet.fs_hz)
    drawn = []
    for colour, inside in zip(WAVE_COLOURS, sheet.waves[:, first:stop], strict=True):
        edges = PULSE_MM + (start_s + np.flatnonzero(np.diff(inside.astype(np.int8), prepend=0, append=0)) / sheet.fs_hz) * MM_PER_S
        boxes = [f"M{left:.5g} {middle - SHADE_MM / 2:g}h{right - left:.3g}v{SHADE_MM}H{left:.5g}z"
                 for left, right in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]  # fmt: skip
        if boxes:
            drawn.append(f'<path fill="{colour}" fill-opacity=".3" d="{"".join(boxes)}"/>')
    return drawn
