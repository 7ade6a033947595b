"""ECGs on ECG paper: 25 mm/s, 10 mm/mV, 12 leads as 4 columns of 2.5 s and a rhythm strip, drawn to scale."""

from dataclasses import dataclass

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.leads import LEADS

MM_PER_S, MM_PER_MV = 25, 10
COLUMN_S, STRIP_LEAD = 2.5, "II"
LAYOUT = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
HEAD_MM, MARGIN_MM, PULSE_MM = 17, 6, 8
ROW_MM, MOST_ROW_MM = 27, 45  # between middle lines of rows: more where a high QRS would run into the next one
MOST_TOP_MM = 60  # from the grid's upper edge to the first middle line: half a row, more where a QRS would leave the grid
NAME_MM, NAME_OVER_MM = 9, 7  # what the name of a lead takes of its trace; its least height over the middle line
WIDTH_MM = PULSE_MM + 4 * COLUMN_S * MM_PER_S
SHADE_MM, WAVE_COLOURS = 12, ("#2f9d5f", "#2f6fbf", "#e08a1b")  # of P, QRS, T
PAPER, MINOR, MAJOR, INK = "#fffafa", "#f7d9d9", "#eda9a9", "#101018"


@dataclass(frozen=True)
class Sheet:
    """One ECG to draw: mV (12, time), a title and a line of facts. waves (3, time): 1 inside P, QRS and T, shaded in the strip."""

    ecg_mv: np.ndarray
    fs_hz: float
    title: str
    facts: str
    waves: np.ndarray | None = None


def draw(rows: list[tuple[Sheet, ...]], path, dpi: int = 100) -> None:
    """Draws sheets in rows, as PNG. Millimetres on the page are millimetres at `dpi`. UserError where path cannot be written."""
    from matplotlib.figure import Figure

    columns, room = max(len(row) for row in rows), room_mm([sheet for row in rows for sheet in row])
    sheet_mm = HEAD_MM + grid_mm(*room)
    width, height = columns * (WIDTH_MM + MARGIN_MM) + MARGIN_MM, len(rows) * (sheet_mm + MARGIN_MM) + MARGIN_MM
    figure = Figure(figsize=(width / 25.4, height / 25.4), dpi=dpi, facecolor="white")
    for i, row in enumerate(rows):
        for j, sheet in enumerate(row):
            left, bottom = MARGIN_MM + j * (WIDTH_MM + MARGIN_MM), height - (i + 1) * (sheet_mm + MARGIN_MM)
            axes = figure.add_axes((left / width, bottom / height, WIDTH_MM / width, sheet_mm / height))
            draw_sheet(axes, sheet, *room)
    save_png(figure, path)


def save_png(figure, path) -> None:
    """Write a figure as PNG, whatever the name ends with. UserError where the path cannot be written."""
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}. Give another --out") from None


def room_mm(sheets: list[Sheet]) -> tuple[float, float]:
    """(top, row): room over the first middle line and between middle lines, in which no trace runs into another or off the grid, as
    far as is reasonable.
    """
    tops, gaps = [ROW_MM / 2], [ROW_MM]
    for sheet in sheets:
        middle = np.median(sheet.ecg_mv, axis=1)
        highest, lowest = sheet.ecg_mv.max(axis=1) - middle, middle - sheet.ecg_mv.min(axis=1)  # (lead,) mV
        rows = [[LEADS.index(name) for name in names] for names in (*LAYOUT, (STRIP_LEAD,))]
        up, down = ([MM_PER_MV * float(side[leads].max()) for leads in rows] for side in (highest, lowest))
        tops.append(up[0] + 2)
        gaps += [above + below for above, below in zip(down, up[1:], strict=False)]
    row = min(5 * np.ceil(max(gaps) / 5), MOST_ROW_MM)
    return min(max(5 * np.ceil(max(tops) / 5), row / 2), MOST_TOP_MM), row


def grid_mm(top_mm: float = ROW_MM / 2, row_mm: float = ROW_MM) -> float:
    """Height of the grid: three rows, and the strip with half a row below it."""
    return top_mm + 3.5 * row_mm


def draw_sheet(axes, sheet: Sheet, top_mm: float = ROW_MM / 2, row_mm: float = ROW_MM) -> None:
    grid, top = grid_mm(top_mm, row_mm), HEAD_MM + grid_mm(top_mm, row_mm)
    axes.set(xlim=(0, WIDTH_MM), ylim=(0, top), xticks=[], yticks=[], facecolor=PAPER)
    for every, colour, width in ((1, MINOR, 0.4), (5, MAJOR, 0.7)):
        axes.vlines(np.arange(0, WIDTH_MM + 1, every), 0, grid, colour, linewidth=width)
        axes.hlines(np.arange(0, grid + 1, every), 0, WIDTH_MM, colour, linewidth=width)
    axes.text(2, top - 2, sheet.title, va="top", fontsize=11, weight="bold", color=INK)
    axes.text(2, top - 8.5, sheet.facts, va="top", fontsize=8.5, color=INK)
    axes.text(WIDTH_MM - 2, 1, "25 mm/s  10 mm/mV", ha="right", fontsize=8, color=INK)
    for row, names in enumerate(LAYOUT):
        middle = (3.5 - row) * row_mm
        _pulse(axes, middle)
        for column, name in enumerate(names):
            _trace(axes, sheet, name, column * COLUMN_S, (column + 1) * COLUMN_S, middle)
    if sheet.waves is not None:
        _waves(axes, sheet, 0.5 * row_mm)
    _pulse(axes, 0.5 * row_mm)
    _trace(axes, sheet, STRIP_LEAD, 0, 4 * COLUMN_S, 0.5 * row_mm)


def _pulse(axes, middle: float) -> None:
    """The calibration pulse: 1 mV for 200 ms."""
    axes.plot([1, 2, 2, 7, 7, 8], np.array([0, 0, 1, 1, 0, 0]) * MM_PER_MV + middle, color=INK, linewidth=0.9)


def _waves(axes, sheet: Sheet, middle: float) -> None:
    """The waves of the strip, shaded, and their names at the foot."""
    for at, (name, colour, inside) in enumerate(zip(("P", "QRS", "T"), WAVE_COLOURS, sheet.waves, strict=True)):
        edges = PULSE_MM + np.flatnonzero(np.diff(inside.astype(np.int8), prepend=0, append=0)) / sheet.fs_hz * MM_PER_S
        spans = list(zip(edges[::2], np.diff(edges)[::2], strict=True))
        axes.broken_barh(spans, (middle - SHADE_MM / 2, SHADE_MM), facecolor=colour, alpha=0.3, zorder=1.9, linewidth=0)
        axes.text(PULSE_MM + 2 + 5 * at + 4 * (at > 1), 1, name, fontsize=8, color=colour, weight="bold")


def _trace(axes, sheet: Sheet, name: str, start_s: float, stop_s: float, middle: float) -> None:
    """One lead from start to stop, its median on the middle line."""
    time = np.arange(round(start_s * sheet.fs_hz), min(round(stop_s * sheet.fs_hz) + 1, sheet.ecg_mv.shape[1]))
    lead = sheet.ecg_mv[LEADS.index(name)]
    x = PULSE_MM + time / sheet.fs_hz * MM_PER_S
    axes.plot(x, middle + (lead[time] - np.median(lead)) * MM_PER_MV, color=INK, linewidth=0.9, solid_joinstyle="round")
    axes.plot([x[0], x[0]], [middle - 3, middle + 3], color=INK, linewidth=0.6)
    below_name = (lead[time] - np.median(lead))[x < x[0] + NAME_MM].max() * MM_PER_MV  # so that no name lies on a QRS complex
    axes.text(x[0] + 1, middle + max(NAME_OVER_MM, below_name + 1), name, fontsize=8.5, color=INK)
