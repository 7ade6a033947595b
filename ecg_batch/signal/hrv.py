"""Heart rate variability: the measures of the Task Force (1996, doi:10.1161/01.CIR.93.5.1043), on intervals between normal beats.

Long-range slope after Bigger et al. (1996, doi:10.1161/01.CIR.93.11.2142): a line through log power over log frequency from 1e-4
to 1e-2 Hz.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.signal import detrend, welch

from ecg_batch.errors import UserError

RESAMPLED_HZ = 4.0
LF_HZ, HF_HZ, SLOPE_HZ = (0.04, 0.15), (0.15, 0.40), (1e-4, 1e-2)
WINDOW_S = 300.0  # of a spectrum for LF and HF: five minutes, the Task Force's short record
SLOPE_BINS_PER_DECADE = 12
LEAST_CYCLES = 2.0  # a frequency that turns fewer times within the record says nothing of its slope
FEWEST_INTERVALS = 20


@dataclass(frozen=True)
class Range:
    """A published range: low .. high, whether of five minutes or of a day, and where from."""

    low: float
    high: float
    source: str

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


TASK_FORCE = "Task Force 1996, doi:10.1161/01.CIR.93.5.1043, mean +- 2 SD"
NUNAN = "Nunan et al. 2010, doi:10.1111/j.1540-8159.2010.02841.x, range of study means"
BIGGER = "Bigger et al. 1996, doi:10.1161/01.CIR.93.11.2142, healthy, mean +- 2 SD"
RANGES_5_MIN = {
    "sdnn_index_ms": Range(32, 93, NUNAN),
    "rmssd_ms": Range(19, 75, NUNAN),
    "lf_ms2": Range(193, 1009, NUNAN),
    "hf_ms2": Range(82, 3630, NUNAN),
    "lf_hf": Range(1.1, 11.6, NUNAN),
}
RANGES_24_H = {
    "sdnn_ms": Range(63, 219, TASK_FORCE),
    "sdnn_index_ms": Range(24, 84, TASK_FORCE),
    "rmssd_ms": Range(3, 51, TASK_FORCE),
    "lf_hf": Range(1.1, 11.6, NUNAN),  # of five-minute windows, averaged over the day
    "slope": Range(-1.30, -0.82, BIGGER),
}
# RMSSD over 24 h of healthy persons, mean and SD in ms by decade, the first entry of 10 to 19 years, the last of 80 to 99
UMETANI = "Umetani et al. 1998, doi:10.1016/S0735-1097(97)00554-8, mean +- 2 SD"
RMSSD_BY_DECADE = ((53, 17), (43, 19), (35, 11), (31, 11), (25, 9), (22, 6), (24, 7), (21, 6))


def rmssd_range(age: float) -> Range:
    """RMSSD of healthy persons of this age over 24 h."""
    mean, sd = RMSSD_BY_DECADE[int(min(max(age // 10 - 1, 0), len(RMSSD_BY_DECADE) - 1))]
    return Range(mean - 2 * sd, mean + 2 * sd, UMETANI)


@dataclass(frozen=True)
class Hrv:
    """Measures of one record. NaN where the record is too short for one: lf, hf and their ratio under 2 min, slope under 30 min."""

    mean_hr_bpm: float
    sdnn_ms: float
    sdnn_index_ms: float  # mean SDNN of five-minute windows: comparable between records of any length
    rmssd_ms: float
    pnn50_pct: float
    lf_ms2: float
    hf_ms2: float
    lf_hf: float
    slope: float
    sd1_ms: float
    sd2_ms: float


def measure_hrv(r_s: np.ndarray, symbol: np.ndarray | None = None) -> Hrv:
    """All measures from R times (beat,) in seconds and beat symbols (beat,), by default all "N"."""
    at_s, rr_s = normal_intervals(r_s, symbol)
    if len(rr_s) < FEWEST_INTERVALS:
        raise UserError(
            f"{len(rr_s)} intervals between normal beats: needed {FEWEST_INTERVALS}, for fewer say nothing of variability. "
            "Give a longer record or one with fewer ectopic beats"
        )
    change_ms = 1000 * successive_differences(at_s, rr_s)
    lf, hf = (band_power(at_s, rr_s, band) for band in (LF_HZ, HF_HZ))
    sdnn, sdsd = 1000 * float(rr_s.std(ddof=1)), float(change_ms.std(ddof=1))
    return Hrv(
        mean_hr_bpm=60 / float(rr_s.mean()),
        sdnn_ms=sdnn,
        sdnn_index_ms=sdnn_index_ms(at_s, rr_s),
        rmssd_ms=float(np.sqrt(np.mean(change_ms**2))),
        pnn50_pct=100 * float(np.mean(np.abs(change_ms) > 50 + 1e-6)),
        lf_ms2=lf,
        hf_ms2=hf,
        lf_hf=lf / hf if hf > 0 else float("nan"),
        slope=long_range_slope(at_s, rr_s),
        sd1_ms=sdsd / 2**0.5,
        sd2_ms=float(np.sqrt(max(0.0, 2 * sdnn**2 - sdsd**2 / 2))),
    )


def sdnn_index_ms(at_s: np.ndarray, rr_s: np.ndarray) -> float:
    """Mean of the SDNN of each five-minute window that holds two intervals at least."""
    window = ((at_s - at_s[0]) // WINDOW_S).astype(int)
    number = np.bincount(window)
    mean = np.bincount(window, rr_s) / np.maximum(number, 1)
    squares = np.bincount(window, (rr_s - mean[window]) ** 2)
    kept = number > 1
    return 1000 * float(np.sqrt(squares[kept] / (number[kept] - 1)).mean())


def normal_intervals(r_s: np.ndarray, symbol: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(time of the beat that ends it, RR) in seconds of each interval between two normal beats."""
    r_s = np.asarray(r_s, np.float64)
    normal = np.ones(len(r_s), bool) if symbol is None else np.isin(symbol, ("N", "/"))  # / is a paced beat
    both = normal[1:] & normal[:-1]
    return r_s[1:][both], np.diff(r_s)[both]


def successive_differences(at_s: np.ndarray, rr_s: np.ndarray) -> np.ndarray:
    """RR minus the RR before it, in seconds, where the two intervals share a beat: none across an ectopic beat."""
    neighbours = np.abs(at_s[1:] - rr_s[1:] - at_s[:-1]) < 1e-6
    return np.diff(rr_s)[neighbours]


def resampled(at_s: np.ndarray, rr_s: np.ndarray) -> np.ndarray:
    """The tachogram at 4 Hz in ms (time,): a cubic spline, gaps left by ectopic beats first bridged by straight lines.

    A straight line from beat to beat instead of the spline takes away a quarter of HF (measured at 70 bpm).
    """
    gap = np.diff(at_s) - rr_s[1:]
    missing = np.maximum(np.round(gap / rr_s.mean()), 0).astype(int)
    at = np.flatnonzero(missing)
    added = [np.linspace(at_s[i], at_s[i + 1] - rr_s[i + 1], missing[i] + 1)[1:] for i in at]
    knot_s = np.sort(np.concatenate([at_s, *added]))
    spline = CubicSpline(knot_s, np.interp(knot_s, at_s, rr_s))
    return 1000 * spline(np.arange(at_s[0], at_s[-1], 1 / RESAMPLED_HZ))


def spectrum(at_s: np.ndarray, rr_s: np.ndarray, window_s: float = WINDOW_S) -> tuple[np.ndarray, np.ndarray]:
    """(frequency in Hz, power in ms^2/Hz) by Welch: windows that overlap by half, each less its own line."""
    tachogram = resampled(at_s, rr_s)
    size = min(len(tachogram), round(window_s * RESAMPLED_HZ))
    return welch(tachogram, RESAMPLED_HZ, nperseg=size, detrend="linear")


def band_power(at_s: np.ndarray, rr_s: np.ndarray, band_hz: tuple[float, float]) -> float:
    """Power in ms^2 within the band, the mean over five-minute windows; NaN under two minutes."""
    if at_s[-1] - at_s[0] < 120:
        return float("nan")
    frequency, power = spectrum(at_s, rr_s)
    return float(power[(frequency >= band_hz[0]) & (frequency < band_hz[1])].sum() * (frequency[1] - frequency[0]))


def long_range_spectrum(at_s: np.ndarray, rr_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(frequency, power in ms^2/Hz), one window over the whole record, log power averaged within equal steps of log frequency.

    The mean of log power, not the log of mean power: its bias is the same in a bin of one frequency and of a thousand, so that the
    slope has none (the other way a slope of -2 came out as -1.87), and can be taken away.
    """
    tachogram = detrend(resampled(at_s, rr_s))
    frequency, power = welch(tachogram, RESAMPLED_HZ, nperseg=len(tachogram), detrend=False)
    lowest = LEAST_CYCLES * RESAMPLED_HZ / len(tachogram)
    edges = np.geomspace(lowest, RESAMPLED_HZ / 2, 1 + max(1, round(SLOPE_BINS_PER_DECADE * np.log10(RESAMPLED_HZ / 2 / lowest))))
    bin_of, size = np.digitize(frequency, edges), len(edges) + 1
    count = np.bincount(bin_of, minlength=size)[1:-1]
    logs = [np.bincount(bin_of, np.log(np.maximum(x, 1e-12)), size)[1:-1] for x in (frequency, power)]
    kept = count > 0
    return np.exp(logs[0][kept] / count[kept]), np.exp(logs[1][kept] / count[kept] + np.euler_gamma)


def long_range_slope(at_s: np.ndarray, rr_s: np.ndarray) -> float:
    """Slope of log power over log frequency from 1e-4 Hz, or two cycles a record, to 1e-2 Hz; NaN under 30 min."""
    if at_s[-1] - at_s[0] < 1800:
        return float("nan")
    frequency, power = long_range_spectrum(at_s, rr_s)
    inside = (frequency >= SLOPE_HZ[0]) & (frequency <= SLOPE_HZ[1])
    return float(np.polyfit(np.log10(frequency[inside]), np.log10(power[inside]), 1)[0])
