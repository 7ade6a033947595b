"""ECGs on ECG paper: 25 mm/s, 10 mm/mV, 12 leads as 4 columns of 2.5 s and a rhythm strip, drawn to scale."""

from dataclasses import dataclass

import numpy as np

from ecg_batch.leads import LEADS

MM_PER_S, MM_PER_MV = 25, 10
COLUMN_S, STRIP_LEAD = 2.5, "II"
LAYOUT = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
ROW_MM, HEAD_MM, MARGIN_MM, PULSE_MM = 27, 17, 6, 8
WIDTH_MM = PULSE_MM + 4 * COLUMN_S * MM_PER_S
HEIGHT_MM = HEAD_MM + 4 * ROW_MM
PAPER, MINOR, MAJOR, INK = "#fffafa", "#f7d9d9", "#eda9a9", "#101018"


@dataclass(frozen=True)
class Sheet:
    """One ECG to draw: mV (12, time), a title and a line of facts."""

    ecg_mv: np.ndarray
    fs_hz: float
    title: str
    facts: str


def draw(rows: list[tuple[Sheet, ...]], path, dpi: int = 100) -> None:
    """Draws sheets in rows, as PNG. Millimetres on the page are millimetres at `dpi`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    columns = max(len(row) for row in rows)
    width, height = columns * (WIDTH_MM + MARGIN_MM) + MARGIN_MM, len(rows) * (HEIGHT_MM + MARGIN_MM) + MARGIN_MM
    figure = Figure(figsize=(width / 25.4, height / 25.4), dpi=dpi, facecolor="white")
    for i, row in enumerate(rows):
        for j, sheet in enumerate(row):
            left, bottom = MARGIN_MM + j * (WIDTH_MM + MARGIN_MM), height - (i + 1) * (HEIGHT_MM + MARGIN_MM)
            axes = figure.add_axes((left / width, bottom / height, WIDTH_MM / width, HEIGHT_MM / height))
            draw_sheet(axes, sheet)
    figure.savefig(path)


def draw_sheet(axes, sheet: Sheet) -> None:
    axes.set(xlim=(0, WIDTH_MM), ylim=(0, HEIGHT_MM), xticks=[], yticks=[], facecolor=PAPER)
    for every, colour, width in ((1, MINOR, 0.4), (5, MAJOR, 0.7)):
        axes.vlines(np.arange(0, WIDTH_MM + 1, every), 0, 4 * ROW_MM, colour, linewidth=width)
        axes.hlines(np.arange(0, 4 * ROW_MM + 1, every), 0, WIDTH_MM, colour, linewidth=width)
    axes.text(2, HEIGHT_MM - 2, sheet.title, va="top", fontsize=11, weight="bold", color=INK)
    axes.text(2, HEIGHT_MM - 8.5, sheet.facts, va="top", fontsize=8.5, color=INK)
    axes.text(WIDTH_MM - 2, 1, "25 mm/s  10 mm/mV", ha="right", fontsize=8, color=INK)
    for row, names in enumerate(LAYOUT):
        middle = (3.5 - row) * ROW_MM
        _pulse(axes, middle)
        for column, name in enumerate(names):
            _trace(axes, sheet, name, column * COLUMN_S, (column + 1) * COLUMN_S, middle)
    _pulse(axes, 0.5 * ROW_MM)
    _trace(axes, sheet, STRIP_LEAD, 0, 4 * COLUMN_S, 0.5 * ROW_MM)


def _pulse(axes, middle: float) -> None:
    """The calibration pulse: 1 mV for 200 ms."""
    axes.plot([1, 2, 2, 7, 7, 8], np.array([0, 0, 1, 1, 0, 0]) * MM_PER_MV + middle, color=INK, linewidth=0.9)


def _trace(axes, sheet: Sheet, name: str, start_s: float, stop_s: float, middle: float) -> None:
    """One lead from start to stop, its median on the middle line."""
    time = np.arange(round(start_s * sheet.fs_hz), min(round(stop_s * sheet.fs_hz) + 1, sheet.ecg_mv.shape[1]))
    lead = sheet.ecg_mv[LEADS.index(name)]
    x = PULSE_MM + time / sheet.fs_hz * MM_PER_S
    axes.plot(x, middle + (lead[time] - np.median(lead)) * MM_PER_MV, color=INK, linewidth=0.9, solid_joinstyle="round")
    axes.plot([x[0], x[0]], [middle - 3, middle + 3], color=INK, linewidth=0.6)
    axes.text(x[0] + 1, middle + 9, name, fontsize=8.5, color=INK)
