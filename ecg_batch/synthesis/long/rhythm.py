"""The rhythm of a long record: when each beat falls, what type it is, and what breathing and drift do to it.

Beats are the marks of an integral pulse frequency modulation (Mateo and Laguna 2000, doi:10.1109/10.855925): a rate that varies
with time of day, with long-range 1/f correlation, at 0.1 Hz and with respiration is integrated, and a beat falls each time the
integral has grown by one cycle. A sinus cycle is 1; an ectopic beat shortens its own and lengthens the next; in atrial fibrillation
each cycle is drawn from a model of the AV node (Corino et al. 2011, doi:10.1109/TBME.2011.2166262). Sources and values:
docs/evidence/rhythm.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.fft import irfft, next_fast_len, rfftfreq
from scipy.signal import lfilter

from ecg_batch.errors import UserError
from ecg_batch.request.rhythm_parameters import RhythmParameters
from ecg_batch.synthesis.long.beat_times import LONGEST_PAUSE_S, QT_AT_1_S, beat_times, refractory_s, timed_order
from ecg_batch.synthesis.long.clock import GRID_HZ

__all__ = ["DonorRhythm", "Rhythm", "RhythmParameters", "VARIABILITY", "make_rhythm"]

DEPTHS_AT_RR_S = 0.8
BREATH_FORGOTTEN_HZ = 0.05  # depths 4 s apart, a breath, have a correlation of 0.28: docs/evidence/rhythm.md
WITHIN_BREATH = 0.82  # of such noise, SD of its means over 4 s
RESPIRATION_HZ = (0.1, 0.5)  # no breath is slower or faster
DAY_H, DAY_S = 24.0, 86_400
SHORTEST_SPAN_S = 4 * 3600  # of the noise a record is cut from: an hour, too, lies in the middle of slower changes
HOOKED_UP_H = (8.0, 18.0)  # time of day at which a record begins, where it is not given
COUPLING_VARIES = 0.3  # of how much couplings differ within a record: those of one focus are nearly fixed
LONGEST_COUPLING = 0.88  # a beat less premature than 12 % is no ectopic beat to the eye
BIGEMINY = 0.3  # from this share of ectopic beats on, every other beat may be one
COUPLING_OF_QT = 0.90  # no ectopic beat falls on the T wave before it
VARIABILITY = {"NORM": 1.0, "STTC": 0.9, "HYP": 0.8, "CD": 0.9, "MI": 0.8}  # amplitude, by superclass: docs/evidence/rhythm.md
# What is left of variability with age (years, factor), straight between: Umetani et al. 1998, doi:10.1016/S0735-1097(97)00554-8.
FAST_BY_AGE = ((15.0, 1.0), (55.0, 0.47))  # as RMSSD: 47 % of the second decade's in the sixth, then the same
SLOW_BY_AGE = ((15.0, 1.0), (95.0, 0.46))  # as the SDNN index: 46 % in the tenth
OWN_SHARE, OWN_LIMITS = 0.9, (0.2, 4.0)  # of what a donor's own beats say, and how far from what is expected they may lead
DEPTHS_AT_AGE = 50.0  # depths are stated for this age, and used where none is known


@dataclass(frozen=True)
class DonorRhythm:
    """What a donor allows. ectopic: symbol ("V", "A") -> share of the donor's beats. variability: factor on all depths.
    couplets: types of which two can follow each other, as the donor has more than one of them. coupling: of each ectopic type
    how early it comes after a normal beat, in the RR of those, as recorded.
    age: years, NaN where it is not known. beat_to_beat: RMS of successive differences of log RR at the donor's own rate, as
    recorded, NaN where that is not known: the depth of what is fast follows it.
    """

    hr_bpm: float
    fibrillation: bool = False
    ectopic: dict[str, float] = field(default_factory=dict)
    variability: float = 1.0
    age: float = float("nan")
    beat_to_beat: float = float("nan")
    couplets: frozenset[str] = frozenset()
    coupling: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rhythm:
    """Beats of one record; arrays over beats.

    r_s: times of R in [0, duration_s). symbol: "N", "V" or "A" (WFDB). qt_rr_s: the lagged RR that QT follows.
    respiration: phase in radians, inspiration where its sine is positive. amplitude: depth of respiration, 1 on average.
    drift: in [-1, 1], changing over minutes to hours. changes: (time in s, WFDB aux) of each rhythm. start_hour: of day, at 0 s.
    """

    r_s: np.ndarray
    symbol: np.ndarray
    qt_rr_s: np.ndarray
    respiration: np.ndarray
    amplitude: np.ndarray
    drift: np.ndarray
    changes: list[tuple[float, str]]
    start_hour: float
    order: "Order | None" = None  # noqa: F821  of a record with events


@dataclass(frozen=True)
class Breath:
    """Respiration on the grid: phase (time,) in radians, depth (time,) with mean 1."""

    phase: np.ndarray
    depth: np.ndarray


def make_rhythm(
    parameters: RhythmParameters,
    donor: DonorRhythm,
    mean_hr_bpm: float,
    duration_s: float,
    generator: np.random.Generator,
    start_hour: float | None = None,
    order_of: Callable[[np.ndarray, float | None], "Order"] | None = None,  # noqa: F821  order.py, which needs this file
    timed: bool = False,
    quicken: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    written: "Iterator[WrittenBeats] | None" = None,  # noqa: F821
) -> Rhythm:
    """The rhythm of one record, a function of its arguments and the generator's state alone.

    order_of: of a record with events, from the current RR on the grid, and, where it is `timed`, which means that its own times
    are the record's, from how much of a cycle lies before the first beat. quicken: of (RR, time) on the grid the RR
    where there is activity (activity.py). written: sequences of beats by the model of rhythm, to choose from; without them the
    rules of this file say which beat comes.

    The mean rate between the first and the last beat is mean_hr_bpm, within 3 bpm also over 10 s, far closer over an hour; next to
    the shortest and the longest RR, fibrillation may miss it by more, which the quality gate sees. Raises UserError where that mean
    leaves no room between the two.
    """
    p = parameters
    _refuse_rate(p, mean_hr_bpm)
    start_hour = generator.uniform(*HOOKED_UP_H) if start_hour is None else float(start_hour)
    grid_s = np.arange(int(np.ceil(duration_s * GRID_HZ)) + 2) / GRID_HZ
    breath = _breath(p, generator, grid_s)
    rr_s = _rr_on_grid(p, donor, 60 / mean_hr_bpm, generator, grid_s, start_hour, breath)
    rr_s = quicken(rr_s, grid_s) if quicken else rr_s
    order, longest_s = None, p.rr_high_s
    if order_of and timed:
        order, r_s = timed_order(p, order_of, rr_s, generator.random(), mean_hr_bpm, duration_s)
        symbol = order.symbols()
    else:
        if order_of:
            order = order_of(rr_s, None)
            rr_s = rr_s * (60 / mean_hr_bpm) / (order.seconds / len(order.cycle))  # what lasts so many seconds is to last as long
            order, longest_s = order_of(rr_s, None), LONGEST_PAUSE_S
            cycles, symbol = np.array(order.cycle), order.symbols()
        else:
            beats = _as_written(p, donor, mean_hr_bpm * duration_s / 60, written, generator) if written else None
            cycles, symbol = beats or _cycles(p, donor, mean_hr_bpm, duration_s, generator, grid_s, rr_s)
            if p.order == "mamba":  # of the rules the request says how early
                cycles = _at_own_coupling(p, donor, 60 / mean_hr_bpm, cycles, symbol)
        r_s = beat_times(p, rr_s, grid_s, cycles, mean_hr_bpm, duration_s, generator.random(), longest_s)
    drift = np.tanh(0.8 * _noise(generator, len(grid_s), lambda f: _between(f, 1 / 7200, 1 / 120) / np.maximum(f, 1e-9)))

    def at_beats(values: np.ndarray) -> np.ndarray:
        return np.interp(r_s, grid_s, values)

    phase = np.mod(at_beats(breath.phase), 2 * np.pi)
    changes = [(0.0, "(AFIB" if donor.fibrillation else "(N")]
    lagged = lagged_rr(r_s, p.qt_lag_s)
    return Rhythm(r_s, symbol[: len(r_s)], lagged, phase, at_beats(breath.depth), at_beats(drift), changes, start_hour, order)


def _refuse_rate(p: RhythmParameters, mean_hr_bpm: float) -> None:
    low, high = 60 / (0.95 * p.rr_high_s), 60 / (1.05 * p.rr_low_s)
    if not low <= mean_hr_bpm <= high:
        raise UserError(
            f"a long record at {mean_hr_bpm:g} bpm: needed {low:.0f} to {high:.0f} bpm, so that its beats can vary between the "
            f"shortest RR ({p.rr_low_s:g} s) and the longest ({p.rr_high_s:g} s). Ask for a rate in that range"
        )


def _noise(generator: np.random.Generator, count: int, power) -> np.ndarray:
    """Gaussian noise (count,) on the grid, variance 1, spectrum in proportion to power(f in Hz); cut from a longer stretch."""
    size = _span(count)
    frequency = rfftfreq(size, 1 / GRID_HZ)
    wanted = power(frequency)
    wanted[0] = 0.0
    amplitude = np.sqrt(wanted / wanted.sum()) / 2
    drawn = generator.standard_normal((2, len(frequency)))
    return irfft(amplitude * (drawn[0] + 1j * drawn[1]), size)[:count] * size


def _span(count: int) -> int:
    """Samples of noise made for a record of `count`: more, because noise made by FFT ends as it began."""
    return next_fast_len(int(max(1.25 * count, SHORTEST_SPAN_S * GRID_HZ)), real=True)


def _between(frequency: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    return ((frequency >= low_hz) & (frequency <= high_hz)).astype(np.float64)


def _breath(p: RhythmParameters, generator: np.random.Generator, grid_s: np.ndarray) -> Breath:
    """Respiration that differs from breath to breath, in rate and in depth."""
    rate_noise, depth_noise = (_noise(generator, len(grid_s), lambda f: 1 / (1 + (f / BREATH_FORGOTTEN_HZ) ** 2)) for _ in range(2))
    rate = p.respiration_hz + p.respiration_spread_hz * generator.standard_normal()
    rate = rate * (1 + p.respiration_variation / WITHIN_BREATH * rate_noise)
    phase = 2 * np.pi * (generator.random() + np.cumsum(np.clip(rate, *RESPIRATION_HZ)) / GRID_HZ)
    spread = p.respiration_depth_spread
    return Breath(phase, np.exp(spread * depth_noise - spread**2 / 2))


def _rr_on_grid(
    p: RhythmParameters,
    donor: DonorRhythm,
    mean_rr_s: float,
    generator: np.random.Generator,
    grid_s: np.ndarray,
    start_hour: float,
    breath: Breath,
) -> np.ndarray:
    """RR in seconds at each time of the grid, before its mean is corrected. Atrial fibrillation has its slow part only."""
    person = np.exp(p.person_spread * generator.standard_normal(4))
    long_range = _noise(generator, len(grid_s), lambda f: _long_range_power(p, f))
    mayer = _noise(generator, len(grid_s), lambda f: np.exp(-0.5 * ((f - p.lf_hz) / p.lf_width_hz) ** 2))
    overall = p.variability * donor.variability * _at_rate(p, mean_rr_s)
    hours = start_hour + grid_s / 3600
    day = np.cos(2 * np.pi * (hours - p.circadian_fastest_hour) / DAY_H)
    long_range_depth = p.long_range_depth * _long_range_gain(p, len(grid_s)) * at_age(SLOW_BY_AGE, donor.age)
    slow = overall * (-p.circadian_depth * np.sqrt(2) * person[0] * day + long_range_depth * person[1] * long_range)
    if donor.fibrillation:
        return _around(p, mean_rr_s, p.fibrillation_slow_share * slow)
    fast = p.lf_depth * person[2] * mayer - p.rsa_depth * np.sqrt(2) * person[3] * breath.depth * np.sin(breath.phase)
    return _around(p, mean_rr_s, slow + overall * _fast_depth(p, donor) * np.exp(p.rate_exponent * slow) * fast)


def _fast_depth(p: RhythmParameters, donor: DonorRhythm) -> float:
    """How deep what is fast is in this donor: as its own beats say, or as its age does where they say nothing.

    Ten seconds say it with an error of a quarter, persons differ far more; so the logarithm is shrunk by a tenth.
    """
    by_age, rr_s = at_age(FAST_BY_AGE, donor.age), 60 / donor.hr_bpm
    steps = [depth * 2 * np.sin(np.pi * hz * rr_s) for hz, depth in ((p.lf_hz, p.lf_depth), (p.respiration_hz, p.rsa_depth))]
    expected = donor.variability * _at_rate(p, rr_s) * by_age * float(np.hypot(*steps))
    if np.isnan(donor.beat_to_beat) or expected <= 0:
        return by_age
    return by_age * float(np.clip((donor.beat_to_beat / expected) ** OWN_SHARE, *OWN_LIMITS))


def _at_rate(p: RhythmParameters, rr_s: float) -> float:
    """How depths differ at this RR. Not over 1.25: at 40 bpm the rails are near already."""
    return min((rr_s / DEPTHS_AT_RR_S) ** p.rate_exponent, 1.25)


def at_age(left: tuple[tuple[float, float], ...], age: float) -> float:
    """Depth at this age over that at DEPTHS_AT_AGE."""
    years, factors = zip(*left, strict=True)
    return float(np.interp(DEPTHS_AT_AGE if np.isnan(age) else age, years, factors) / np.interp(DEPTHS_AT_AGE, years, factors))


def _long_range_power(p: RhythmParameters, frequency: np.ndarray) -> np.ndarray:
    return np.maximum(frequency, 1e-9) ** p.long_range_slope / (1 + (frequency / p.long_range_corner_hz) ** 2)


def _long_range_gain(p: RhythmParameters, count: int) -> float:
    """SD of all long-range noise of this length over that of its part within 1e-4 .. 1e-2 Hz."""
    frequency = rfftfreq(_span(count), 1 / GRID_HZ)[1:]
    fine = np.geomspace(1e-4, 1e-2, 200)
    inside = np.trapezoid(_long_range_power(p, fine), fine)
    return float(np.sqrt(_long_range_power(p, frequency).sum() * frequency[0] / inside))


def _around(p: RhythmParameters, mean_rr_s: float, change: np.ndarray) -> np.ndarray:
    """RR = mean * exp(change), bent softly so that it stays between the shortest and the longest RR; its mean rate is 1 / mean."""
    up, down = np.log(p.rr_high_s / mean_rr_s), np.log(mean_rr_s / p.rr_low_s)
    shift = 0.0
    for _ in range(4):
        shifted = change + shift
        rr_s = mean_rr_s * np.exp(np.where(shifted > 0, up * np.tanh(shifted / up), down * np.tanh(shifted / down)))
        shift += np.log(mean_rr_s * np.mean(1 / rr_s))
    return rr_s


def _as_written(p: RhythmParameters, donor: DonorRhythm, expected: float, written, generator: np.random.Generator):
    """(cycle, symbol) of each beat as _cycles; None where no sequence shows what its donor's statements speak of."""
    from ecg_batch.synthesis.long.beat_writer import taken

    shown = frozenset(donor.ectopic) - ({"A"} if donor.fibrillation else set())
    needed = shown if p.ectopic_factor else frozenset()
    for one in written:
        beats = taken(one, donor.fibrillation, shown, donor.couplets, p.ectopic_factor, generator.random(len(one.cycle)))
        if needed <= set(beats.symbol[: int(expected) - 2]):
            return beats.cycle, beats.symbol
    return None


def _cycles(
    p: RhythmParameters,
    donor: DonorRhythm,
    mean_hr_bpm: float,
    duration_s: float,
    generator: np.random.Generator,
    grid_s: np.ndarray,
    rr_s: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(cycle before each beat in units of the current RR, symbol of each beat), for some more beats than are needed."""
    expected = mean_hr_bpm * duration_s / 60
    count = int(1.3 * expected) + 16
    cycles = fibrillation_cycles(p, 60 / mean_hr_bpm, count, generator) if donor.fibrillation else np.ones(count)
    spare = fibrillation_cycles(p, 60 / mean_hr_bpm, count, generator) if donor.fibrillation else cycles
    local_rr_s = np.interp(np.arange(count) * duration_s / expected, grid_s, rr_s)
    symbol = np.full(count, "N")
    coupling, chosen = _ectopic(p, donor, local_rr_s, int(expected), generator)
    for name in ("V", "A"):
        at = np.flatnonzero(chosen == name)
        symbol[at], cycles[at] = name, coupling[at]
        if donor.fibrillation:  # concealed conduction: the next cycle is a long one
            cycles[at + 1] = np.maximum(cycles[at + 1], spare[at + 1])
        else:
            cycles[at + 1] = 2 - coupling[at] if name == "V" else p.atrial_return_ratio
    return cycles, symbol


def _at_own_coupling(p: RhythmParameters, donor: DonorRhythm, rr_s: float, cycles: np.ndarray, symbol: np.ndarray) -> np.ndarray:
    """Cycles in which ectopic beats come as early after a normal beat as they do in the donor's recording, at this mean RR; what
    follows, so much later, so that the beat after it comes when it would have.
    """
    cycles = cycles.copy()
    for name, own in donor.coupling.items():
        at = np.flatnonzero((symbol[1:-1] == name) & (symbol[:-2] == "N")) + 1
        if not len(at):
            continue
        least = max(min(1.0, own / _end_of_t(60 / donor.hr_bpm)) * _end_of_t(rr_s), 1.1 * p.rr_low_s / rr_s)
        now = own * (cycles[at] / np.median(cycles[at])) ** COUPLING_VARIES
        now = np.clip(now, least, max(least, own, LONGEST_COUPLING))
        follows = at[symbol[at + 1] == "N"] + 1
        cycles[follows] = np.maximum(cycles[follows] + (cycles[at] - now)[symbol[at + 1] == "N"], least)
        cycles[at] = now
    return cycles


def _end_of_t(rr_s):
    """Of the RR, where the T wave ends: no ectopic beat comes before, but where a donor's does."""
    return COUPLING_OF_QT * QT_AT_1_S * rr_s ** (-2 / 3)


def _ectopic(
    p: RhythmParameters, donor: DonorRhythm, local_rr_s: np.ndarray, beats: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(coupling ratio, symbol or "") of each beat. Never two in a row, so a share of one half is bigeminy; where they are
    rarer than every third beat, at least two others lie between them.

    Chances rise and fall over minutes. A record whose donor has ectopic beats shows one at least, wherever there is room for it.
    """
    shares = {name: p.ectopic_factor * donor.ectopic.get(name, 0.0) for name in ("V", "A")}
    if donor.fibrillation:
        shares["A"] = 0.0
    count, total = len(local_rr_s), min(sum(shares.values()), 0.5)
    chosen, coupling = np.full(count, ""), np.ones(count)
    person, each = generator.standard_normal(2), generator.standard_normal(count)
    chance, kind, forced = generator.random(count), generator.random(count), generator.random()
    burst = np.exp(p.ectopic_burst_spread * _walk(generator, count))
    if total == 0:
        return coupling, chosen
    is_v = kind < shares["V"] / sum(shares.values())
    ratio = np.where(is_v, p.ventricular_coupling_ratio, p.atrial_coupling_ratio)
    ratio = ratio + p.coupling_spread_ratio * (np.where(is_v, *person) + 0.4 * each)
    coupling = np.maximum(ratio, _end_of_t(local_rr_s))
    room = (coupling <= LONGEST_COUPLING) & ((2 - coupling) * local_rr_s <= 0.95 * p.rr_high_s)
    room &= coupling * local_rr_s >= 1.1 * p.rr_low_s
    room[0], room[max(beats - 2, 0) :] = False, False
    least = 2 if total > BIGEMINY else 3
    wanted = room & (chance < total / (1 - (least - 1) * total) * (burst / burst.mean() if total < 0.4 else 1.0))
    wanted = _apart(wanted, least)
    if not wanted.any() and room.any():
        free = np.flatnonzero(room)
        wanted[free[int(forced * len(free))]] = True
    chosen[wanted] = np.where(is_v, "V", "A")[wanted]
    return coupling, chosen


def _walk(generator: np.random.Generator, count: int) -> np.ndarray:
    """Gaussian noise with variance 1 that forgets itself over some 500 beats."""
    keep = np.exp(-1 / 500)
    steps = generator.standard_normal(count) * np.sqrt(1 - keep**2)
    steps[0] /= np.sqrt(1 - keep**2)
    return lfilter([1.0], [1.0, -keep], steps)


def _apart(wanted: np.ndarray, least: int) -> np.ndarray:
    """The first of those wanted, and each that comes at least so many beats after the last one taken."""
    taken, last = np.zeros(len(wanted), bool), -least
    for at in np.flatnonzero(wanted).tolist():
        if at - last >= least:
            taken[at], last = True, at
    return taken


def fibrillation_cycles(p: RhythmParameters, mean_rr_s: float, count: int, generator: np.random.Generator) -> np.ndarray:
    """Cycles in atrial fibrillation, independent, mean near 1: impulses arrive at the AV node as a Poisson process.

    After a conducted impulse the node is refractory, for the short or the long time of its two pathways; then the chance that it
    conducts rises from 0 to 1 over the prolongation. With cumulated hazard H, H(RR) is exponential: it is inverted here.
    Corino et al. 2011. The times are scaled to the asked mean; near the shortest RR the distribution narrows.
    """
    short = generator.random(count) < p.fibrillation_short_share
    refractory = np.where(short, p.fibrillation_short_refractory_s, p.fibrillation_long_refractory_s)
    hazard, rise = generator.standard_exponential(count) / p.fibrillation_impulses_per_s, p.fibrillation_prolongation_s
    wait = np.where(hazard < rise / 2, np.sqrt(2 * rise * hazard), rise / 2 + hazard)
    mean = _fibrillation_mean_s(p)
    cycles = (refractory + wait) / mean
    lowest = p.fibrillation_short_refractory_s / mean
    room = max(0.0, 1 - 1.15 * max(p.rr_low_s, refractory_s(mean_rr_s)) / mean_rr_s)
    return 1 + (cycles - 1) * min(1.0, room / (1 - lowest))


def _fibrillation_mean_s(p: RhythmParameters) -> float:
    """Mean RR of the model before scaling: refractory time plus the integral of the survivor function of the wait."""
    rate, rise = p.fibrillation_impulses_per_s, p.fibrillation_prolongation_s
    x = np.linspace(0, rise, 500)
    wait = np.trapezoid(np.exp(-rate * x**2 / (2 * rise)), x) + np.exp(-rate * rise / 2) / rate
    share = p.fibrillation_short_share
    return share * p.fibrillation_short_refractory_s + (1 - share) * p.fibrillation_long_refractory_s + float(wait)


def lagged_rr(r_s: np.ndarray, lag_s: float) -> np.ndarray:
    """The RR that QT follows at each beat (beat,): past RR weighted exponentially with time constant lag_s.

    Razak et al. 2011, doi:10.1111/j.1542-474X.2011.00420.x: 60 s; Pueyo et al. 2004: 90 % after 2.5 min, hence 65 s. The RR that
    ends at a beat counts already; before the first RR the heart is taken to have beaten at the mean of the first lag_s.
    """
    rr = np.diff(r_s)
    before = rr[r_s[1:] <= r_s[0] + lag_s]
    lagged = float(before.mean()) if len(before) else float(rr[0])
    series = [lagged]
    for interval, keep in zip(rr.tolist(), np.exp(-rr / lag_s).tolist(), strict=True):
        lagged = interval + keep * (lagged - interval)
        series.append(lagged)
    return np.array(series)
