"""One page for a long record: heart rate over the hours, tachogram, Poincaré plot, spectrum of RR, ten seconds on ECG paper.

Works from beats and a function that reads some seconds, so that a day is drawn without being read.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
from scipy.ndimage import median_filter

from ecg_batch.errors import UserError
from ecg_batch.plot.course import LANE_MM, LANES_HEAD_MM, Lane, draw_lanes, in_own_rhythm
from ecg_batch.plot.paper import HEAD_MM, INK, MM_PER_S, PULSE_MM, WIDTH_MM, Sheet, draw_sheet, grid_mm, room_mm, save_png
from ecg_batch.rhythm_words import RHYTHMS
from ecg_batch.signal.hrv import (
    FEWEST_INTERVALS,
    HF_HZ,
    LF_HZ,
    RANGES_5_MIN,
    RANGES_24_H,
    SLOPE_HZ,
    Hrv,
    long_range_spectrum,
    measure_hrv,
    normal_intervals,
)

STRIP_BELOW_MM = 216  # from the page's upper edge to ten seconds on ECG paper
FACTS_MM = 10  # beside the lanes
STRIP_S = 10.0
TEN_S, SHORT_S = 10.0, 1200.0  # a record under 20 minutes is short: its axes say minutes and seconds
COLOURS = {"N": "#33506e", "V": "#c0392b", "A": "#d98a00", "R": "#8e44ad"}
# drawn as others are: supraventricular and ventricular beats, and those with the main rhythm's place
GROUP = {"a": "A", "J": "A", "E": "V", "F": "V", "j": "N", "B": "N", "/": "N"}
NAMES = {"N": "normal", "V": "ventricular ectopic", "A": "atrial ectopic", "R": "of another rhythm"}
BESIDE = {"N": "own rhythm", "V": "beside a V", "A": "beside an A", "R": "other rhythm"}
SINUS = ("(N", "(SBR")
PAUSE, PAUSE_AMONG = 1.5, 11  # times the median of so many intervals: the sinus node stood still, or a beat was not conducted
NORMAL = {"(P": "/"}  # of the record's own rhythm the symbol whose intervals count as normal, where it is not N
A_DAY_S, MOST_DOTS = 20 * 3600, 60_000


def plot_long(
    record_title: str,
    fs_hz: float,
    rhythm_r_s: np.ndarray,
    symbols: np.ndarray,
    read_mv: Callable[[float, float], np.ndarray],
    at_s: float | None,
    path: Path,
    start_hour: float | None = None,
    rhythms: Sequence[tuple[float, str]] = ((0.0, "(N"),),
    lanes: Sequence[Lane] = (),
) -> Hrv:
    """Draws the page as PNG and returns what was measured.

    rhythm_r_s (beat,) in seconds, symbols (beat,); read_mv(start_s, stop_s) gives mV (12, time). at_s: where the strip begins, by
    default where the record shows an ectopic beat, else its middle. start_hour: time of day at 0 s, for the trend's axis.
    rhythms: (seconds, WFDB's word) of where each begins; the published ranges are of sinus rhythm and stand beside nothing else.
    What is measured is between normal beats of the rhythm with which the record begins, without pauses; NaN of what has too few.
    lanes: what comes and goes.
    """
    from matplotlib.figure import Figure

    r_s, written = np.asarray(rhythm_r_s, np.float64), np.asarray(symbols)
    own, rhythm_aux = in_own_rhythm(r_s, list(rhythms)), rhythms[0][1]
    normal = own & (written == NORMAL.get(rhythm_aux, "N"))
    if rhythm_aux in SINUS:
        normal[1:] &= ~(_pauses(np.diff(r_s)) & normal[:-1])
    normal = np.where(normal, "N", "-")  # of all others no interval is measured
    symbols = np.array([GROUP.get(name, name) for name in written.tolist()])
    symbols[(symbols == "N") & ~own] = "R"
    at_s = strip_start(r_s, symbols) if at_s is None else float(at_s)
    if not 0 <= at_s < r_s[-1]:
        raise UserError(f"{record_title}: no strip at {at_s:g} s; its beats end at {r_s[-1]:.0f} s. Choose an earlier time")
    few = len(normal_intervals(r_s, normal)[1]) < FEWEST_INTERVALS
    measured = Hrv(*[float("nan")] * len(fields(Hrv))) if few else measure_hrv(r_s, normal)
    title = f"Ten seconds from {clock(at_s)}: {rhythms_within(rhythms, at_s, at_s + STRIP_S)}"
    strip = Sheet(read_mv(at_s, at_s + STRIP_S), fs_hz, title, _strip_facts(r_s, at_s))
    room = room_mm([strip])
    strip_mm = HEAD_MM + grid_mm(*room)
    more = LANES_HEAD_MM + LANE_MM * len(lanes) if lanes else 0.0
    page_mm = (WIDTH_MM + 20, STRIP_BELOW_MM + more + strip_mm + 6)
    figure = Figure(figsize=(page_mm[0] / 25.4, page_mm[1] / 25.4), dpi=110, facecolor="white")

    def panel(left: float, below: float, width: float, height: float):
        box = (left / page_mm[0], (page_mm[1] - below - height) / page_mm[1], width / page_mm[0], height / page_mm[1])
        axes = figure.add_axes(box)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        return axes

    figure.text(10 / page_mm[0], 1 - 7 / page_mm[1], record_title, fontsize=13, weight="bold", va="center")
    figure.text(10 / page_mm[0], 1 - 13 / page_mm[1], _facts(r_s, symbols, measured), fontsize=9, va="center")
    sinus, wide = rhythm_aux == "(N", page_mm[0] - (34 + FACTS_MM * bool(lanes))
    _trend(panel(24, 22, wide, 34), r_s, at_s, start_hour)
    if lanes:
        draw_lanes(panel(24, 75, wide, LANE_MM * len(lanes)), list(lanes), rhythm_aux, r_s[-1])
    _ectopic(panel(24, 74 + more, wide, 9), r_s, symbols)
    _tachogram(panel(24, 92 + more, wide, 28), r_s, symbols, at_s)
    _poincare(panel(24, 137 + more, 60, 60), r_s, symbols, measured)
    _spectrum(panel(120, 137 + more, 76, 60), r_s, normal, sinus, measured)
    _table(panel(203, 137 + more, page_mm[0] - 210, 60), measured, r_s[-1] > A_DAY_S, sinus)
    _strip(panel(10, STRIP_BELOW_MM + more, WIDTH_MM, strip_mm), strip, room, r_s, written, at_s)
    save_png(figure, path)
    return measured


def _pauses(rr_s: np.ndarray) -> np.ndarray:
    """Which intervals (interval,) are no sinus cycle of those about them."""
    return rr_s > PAUSE * median_filter(rr_s, PAUSE_AMONG, mode="nearest")


def rhythms_within(rhythms: Sequence[tuple[float, str]], start_s: float, stop_s: float) -> str:
    """The rhythms of a strip in words."""
    ends = [start for start, _ in rhythms[1:]] + [np.inf]
    words = [word for (start, word), end in zip(rhythms, ends, strict=True) if start < stop_s and end > start_s]
    return ", then ".join(RHYTHMS.get(word, word) for word in words)


def strip_start(r_s: np.ndarray, symbols: np.ndarray) -> float:
    """So that an ectopic beat near the middle of the record stands in the middle of the strip."""
    wanted = r_s[symbols != "N"] if (symbols != "N").any() else r_s
    beat = wanted[np.argmin(np.abs(wanted - r_s[-1] / 2))]
    return float(np.clip(np.floor(beat - STRIP_S / 2), 0, max(0.0, r_s[-1] - STRIP_S)))


def clock(time_s: float) -> str:
    whole_s = round(time_s)
    return f"{whole_s // 3600:02d}:{whole_s // 60 % 60:02d}:{whole_s % 60:02d}"


def _facts(r_s: np.ndarray, symbols: np.ndarray, measured: Hrv) -> str:
    rate = 60 / np.diff(r_s).mean()
    ectopic = [f"{NAMES[name]} {np.sum(symbols == name)} ({100 * np.mean(symbols == name):.1f} %)" for name in ("V", "A")]
    long = f"{r_s[-1] / 3600:.1f} h" if r_s[-1] > 2 * 3600 else f"{r_s[-1] / 60:.1f} min"
    return f"{long}, {len(r_s)} beats, mean rate {rate:.1f} bpm   {'   '.join(ectopic)}"


def _strip(axes, sheet: Sheet, room: tuple[float, float], r_s: np.ndarray, symbols: np.ndarray, at_s: float) -> None:
    """Ten seconds on ECG paper, the type of each beat written under the rhythm strip."""
    axes.spines[:].set_visible(False)
    draw_sheet(axes, sheet, *room)
    for beat in np.flatnonzero((r_s >= at_s) & (r_s < at_s + STRIP_S)):
        x, name = PULSE_MM + (r_s[beat] - at_s) * MM_PER_S, str(symbols[beat])
        colour = COLOURS[GROUP.get(name, name)]
        axes.text(x, 5.2, name, fontsize=8, ha="center", va="center", color=colour, weight="bold" if name != "N" else None)


def _strip_facts(r_s: np.ndarray, at_s: float) -> str:
    inside = (r_s >= at_s) & (r_s < at_s + STRIP_S)
    rate = f"{60 / np.diff(r_s[inside]).mean():.0f} bpm" if inside.sum() > 1 else "no two beats"
    return f"{rate}   under lead II: the type of each beat, from the annotations"


def _hours(axes, last_s: float, start_hour: float | None = None) -> None:
    """The time axis: hours of the record, or minutes where it is short; with the time of day where start_hour is given."""
    step_s = next(step for step in (10, 30, 60, 300, 600, 1800, 3600, 2 * 3600, 4 * 3600) if last_s / step <= 14)
    at = np.arange(0, 1.01 * last_s, step_s)
    text = [clock(time)[3:] if last_s < SHORT_S else clock(time)[:5] for time in at]
    if start_hour is not None:
        axes.text(-0.022, -0.085, _axis_word(last_s), fontsize=8, ha="right", va="center", transform=axes.transAxes)
        axes.text(-0.022, -0.205, "of day", fontsize=8, ha="right", va="center", transform=axes.transAxes)
        text = [
            f"{label}\n{clock(60 * round(start_hour * 60 + time / 60) % 86_400)[:5]}" for label, time in zip(text, at, strict=True)
        ]
    axes.set_xticks(at, text)
    axes.set_xlim(0, 1.002 * last_s)


def _axis_word(last_s: float) -> str:
    return "min:s" if last_s < SHORT_S else "h:min"


def rates_bpm(r_s: np.ndarray) -> np.ndarray:
    """Mean rate of each ten seconds (ten,), filled up to whole minutes; NaN where no beat ends."""
    count = int(r_s[-1] // TEN_S) + 1
    count += -count % 6
    return 60 / _binned(np.diff(r_s), (r_s[1:] // TEN_S).astype(int), count)


def _binned(values: np.ndarray, bin_of: np.ndarray, count: int) -> np.ndarray:
    """Mean of values in each bin; NaN where there are none."""
    number = np.bincount(bin_of, minlength=count)
    with np.errstate(invalid="ignore"):
        return np.where(number > 0, np.bincount(bin_of, values, count) / number, np.nan)


def _trend(axes, r_s: np.ndarray, at_s: float, start_hour: float | None) -> None:
    """Mean rate of each minute and the range of its ten-second means; of a short record the ten-second means themselves."""
    ten = rates_bpm(r_s)
    if r_s[-1] < SHORT_S:
        axes.plot(TEN_S * (np.arange(len(ten)) + 0.5), ten, ".-", color=COLOURS["N"], linewidth=1)
        axes.set_title("Heart rate: mean of each ten seconds", fontsize=9, loc="left")
    else:
        minutes, minute_s = ten.reshape(-1, 6), 6 * TEN_S * (np.arange(len(ten) // 6) + 0.5)
        known = ~np.isnan(minutes).all(axis=1)
        minutes, minute_s = minutes[known], minute_s[known]
        axes.fill_between(minute_s, np.nanmin(minutes, axis=1), np.nanmax(minutes, axis=1), color="#b9cbdc", linewidth=0)
        axes.plot(minute_s, np.nanmean(minutes, axis=1), color=COLOURS["N"], linewidth=1)
        axes.set_title("Heart rate: mean of each minute; shaded, its slowest to its fastest ten seconds", fontsize=9, loc="left")
    axes.axvline(at_s + STRIP_S / 2, color="#2e8b57", linewidth=1.2)
    low, high = axes.get_ylim()
    axes.set_ylim(max(0, 10 * np.floor(low / 10)), 10 * np.ceil(high / 10))
    axes.text(at_s + STRIP_S / 2, axes.get_ylim()[1], " strip", fontsize=8, va="top", color="#2e8b57")
    _hours(axes, r_s[-1], start_hour)
    axes.set_ylabel("heart rate, bpm", fontsize=9)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)


def _ectopic(axes, r_s: np.ndarray, symbols: np.ndarray) -> None:
    """Ectopic beats per hour of a day, per minute of an hour; ventricular ones below, atrial ones on top."""
    width_s, word = (3600, "hour") if r_s[-1] > 6 * 3600 else (60, "minute")
    edges = np.arange(0, r_s[-1] + width_s, width_s)
    below = np.zeros(len(edges) - 1)
    for name in ("V", "A"):
        count = np.histogram(r_s[symbols == name], edges)[0]
        axes.bar(edges[:-1], count, 0.92 * width_s, below, color=COLOURS[name], align="edge", label=NAMES[name])
        below = below + count
    axes.set(xlim=(0, 1.002 * r_s[-1]), xticks=[], ylim=(0, max(1, 1.1 * below.max())))
    axes.locator_params(axis="y", nbins=3, integer=True)
    if not below.any():
        axes.text(0.5, 0.4, "none", fontsize=8, ha="center", transform=axes.transAxes, color="#777777")
    axes.set_title(f"Ectopic beats per {word}", fontsize=9, loc="left", pad=3)
    axes.legend(fontsize=7, loc="lower right", bbox_to_anchor=(1, 0.92), ncols=2, frameon=False, handlelength=1)


def _tachogram(axes, r_s: np.ndarray, symbols: np.ndarray, at_s: float) -> None:
    every = max(1, len(r_s) // MOST_DOTS)
    for name in NAMES:
        at = np.flatnonzero(symbols[1:] == name)
        at = at[::every] if name == "N" else at
        size = 0.6 if len(r_s) > 10_000 else 1.6
        axes.plot(r_s[1:][at], 1000 * np.diff(r_s)[at], ".", color=COLOURS[name], markersize=size if name == "N" else 2.5)
    axes.axvline(at_s + STRIP_S / 2, color="#2e8b57", linewidth=1.2)
    _hours(axes, r_s[-1])
    axes.set_ylabel("RR, ms", fontsize=9)
    axes.set_xlabel(f"time in the record, {_axis_word(r_s[-1])}", fontsize=9, labelpad=1)
    axes.set_title("Tachogram: each RR, by the type of the beat that ends it", fontsize=9, loc="left")
    if (symbols == "R").any():
        axes.plot([], [], ".", color=COLOURS["R"], label="normal or paced, in another rhythm")
        axes.legend(fontsize=7, loc="lower right", bbox_to_anchor=(1, 0.97), frameon=False, handletextpad=0.1)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)


def _poincare(axes, r_s: np.ndarray, symbols: np.ndarray, measured: Hrv) -> None:
    rr_ms = 1000 * np.diff(r_s)
    every = max(1, len(rr_ms) // MOST_DOTS)
    touched = np.where(symbols[2:] != "N", symbols[2:], np.where(symbols[1:-1] != "N", symbols[1:-1], symbols[:-2]))
    for name in NAMES:
        at = np.flatnonzero(touched == name)[:: every if name == "N" else 1]
        alpha, size = (0.25, 1.2) if len(rr_ms) > 10_000 else (0.5, 2.0)
        axes.plot(rr_ms[:-1][at], rr_ms[1:][at], ".", color=COLOURS[name], markersize=size, alpha=alpha, rasterized=True)
        if len(at):
            axes.plot([], [], ".", color=COLOURS[name], label=BESIDE[name], markersize=3)
    low, high = np.percentile(rr_ms, [0.05, 99.95])
    pad = 0.08 * (high - low)
    limits = (low - pad, high + pad)
    axes.plot(limits, limits, color="#999999", linewidth=0.7)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set_xlabel("RR, ms", fontsize=9, labelpad=1)
    axes.set_ylabel("next RR, ms", fontsize=9)
    known = not np.isnan(measured.sd1_ms)
    axes.set_title("Poincaré" + f": SD1 {measured.sd1_ms:.0f} ms, SD2 {measured.sd2_ms:.0f} ms" * known, fontsize=9, loc="left")
    if (touched != "N").any():
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0.99, 1), frameon=False, handletextpad=0.1, markerscale=3)


def _spectrum(axes, r_s: np.ndarray, symbols: np.ndarray, sinus: bool, measured: Hrv) -> None:
    axes.set_title("Spectrum of RR between normal beats", fontsize=9, loc="left")
    if np.isnan(measured.sdnn_ms):
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "too few normal beats", fontsize=8, ha="center", transform=axes.transAxes, color="#777777")
        return
    with_slope = not np.isnan(measured.slope)
    frequency, power = long_range_spectrum(*normal_intervals(r_s, symbols))
    kept = frequency < 0.5
    axes.loglog(frequency[kept], power[kept], color=COLOURS["N"], linewidth=1.1)
    for band, text, colour in ((LF_HZ, "LF", "#f3e3b3"), (HF_HZ, "HF", "#cfe6d4")):
        axes.axvspan(*band, color=colour, linewidth=0, zorder=0)
        axes.text(np.sqrt(band[0] * band[1]), 0.97, text, fontsize=8, ha="center", va="top", transform=axes.get_xaxis_transform())
    inside = (frequency >= SLOPE_HZ[0]) & (frequency <= SLOPE_HZ[1])
    if with_slope and inside.sum() > 3:
        _slope_lines(axes, frequency[inside], power[inside], sinus)
    axes.set_xlim(frequency[0], 0.5)
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("frequency, Hz", fontsize=9, labelpad=1)
    axes.set_ylabel("power, ms$^2$/Hz", fontsize=9)


def _slope_lines(axes, frequency: np.ndarray, power: np.ndarray, sinus: bool) -> None:
    """The fitted line, and in sinus rhythm a cone of the published slopes through its middle."""
    log = np.log10(frequency)
    fitted = np.polyfit(log, np.log10(power), 1)
    level, limits = np.polyval(fitted, log.mean()), RANGES_24_H["slope"]
    if sinus:
        cone = [10 ** (level + slope * (log - log.mean())) for slope in (limits.low, limits.high)]
        axes.fill_between(
            frequency, *cone, color="#c9c9c9", linewidth=0, zorder=1, label=f"healthy: {limits.low:g} to {limits.high:g}"
        )
    axes.plot(frequency, 10 ** np.polyval(fitted, log), "--", color="#c0392b", linewidth=1, label=f"slope {fitted[0]:.2f}")
    axes.legend(fontsize=7, loc="lower left", frameon=False)


def _table(axes, measured: Hrv, is_day: bool, sinus: bool) -> None:
    """Measured values, in sinus rhythm beside the published range of healthy adults: green inside it, amber outside."""
    ranges = RANGES_24_H if is_day else RANGES_5_MIN
    rows = (("SDNN", "sdnn_ms", "ms"), ("SDNN index", "sdnn_index_ms", "ms"), ("RMSSD", "rmssd_ms", "ms"),
            ("pNN50", "pnn50_pct", "%"), ("LF", "lf_ms2", "ms$^2$"), ("HF", "hf_ms2", "ms$^2$"), ("LF/HF", "lf_hf", ""),
            ("1/f slope", "slope", ""))  # fmt: skip
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    head = f"healthy, {'24 h' if is_day else '5 min'}" if sinus else "(no range: not sinus)"
    axes.text(1, 1.03, head, fontsize=8.5, ha="right", va="bottom")
    for i, (name, key, unit) in enumerate(rows):
        y, value, limits = 0.93 - 0.115 * i, getattr(measured, key), ranges.get(key) if sinus else None
        shown = "-" if np.isnan(value) else f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
        axes.text(0, y, name, fontsize=8.5, color=INK)
        axes.text(0.52, y, shown, fontsize=8.5, ha="right", color=INK)
        axes.text(0.54, y, unit, fontsize=8.5, color=INK)
        if limits:
            colour = "#2e8b57" if limits.holds(value) else "#b06000"
            axes.text(1, y, f"{limits.low:g} to {limits.high:g}", fontsize=8.5, ha="right", color=colour)
    if sinus:
        axes.text(0, 0.0, "Task Force 1996, Nunan 2010, Bigger 1996", fontsize=6.5, color="#777777")
