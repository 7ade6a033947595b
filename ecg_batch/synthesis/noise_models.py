"""Models of noise, made where it arises: at nine electrodes, from where it goes into every lead that they feed.

muscle     Gaussian noise of the spectrum that PTB-XL's recordings show in leads whose readers state static noise: even from 8 to
           20 Hz, falling with the third power of the frequency above 55 Hz. Its loudness rises and falls with each group of
           muscles (band and Gaussian law: Friesen et al. 1990, doi:10.1109/10.43620).
electrode  an electrode moves, sometimes a second one: waves of 0.7 to 8 Hz in bursts, as tall and broad as beats, sudden steps that
           recover within seconds, and pops ("em" of the noise stress test: Moody, Muldrow, Mark 1984, Computers in Cardiology
           11:381).
baseline   wander whose power falls with frequency to the power of 3.2, as in leads whose readers state baseline drift, and a wave
           with each breath ("bw" of the same test).
mains      50 or 60 Hz, the frequency moving by some hundredths of a hertz and the amplitude by a fifth, with a little of the third
           harmonic; each electrode picks up as much as its own impedance lets it.

What was measured on PTB-XL, and how ours lie beside it: docs/evidence/noise.md. Nothing is above 0.47 of the sampling rate, where
recorders of that rate have nothing either.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")
LEADS_OF = np.zeros((8, 9))  # modelled leads of potentials
LEADS_OF[0, [0, 1]] = -1, 1  # I = LA - RA
LEADS_OF[1, [0, 2]] = -1, 1  # II = LL - RA
LEADS_OF[2:, 3:] = np.eye(6)  # V = its electrode - Wilson's terminal
LEADS_OF[2:, :3] = -1 / 3
MUSCLES = np.array([0, 1, 2, 3, 3, 3, 3, 3, 3])  # of each electrode: right arm, left arm, abdomen, chest
MUSCLE_HZ = (8.0, 55.0)
MOTION_HZ = (0.7, 8.0)
WANDER_HZ, WANDER_SLOPE = (0.05, 0.12, 4.0), -3.2  # lowest; where the slope begins; highest
MAINS_HZ = (50.0, 60.0)
MAINS_MOVES_HZ = 0.02  # SD of a grid's frequency
MANY = 200  # real and imaginary parts of a spectrum, from which on bytes will do for numbers
EVENTS_PER_S = 0.7  # steps and pops of an electrode that moves


def electrode_noise(kind: str, draws: np.random.Generator, samples: int, fs_hz: float) -> np.ndarray:
    """Potentials float64 (electrode, time), in no unit."""
    return {"muscle": muscle, "electrode": electrode, "baseline": baseline, "mains": mains}[kind](draws, samples, fs_hz)


def muscle(draws: np.random.Generator, samples: int, fs_hz: float) -> np.ndarray:
    tone = shaped(draws, len(ELECTRODES), samples, fs_hz, emg)
    effort = np.exp(0.5 * unit(shaped(draws, 4, samples, fs_hz, slow)))
    return (weights(draws, 0.5)[:, None] * effort[MUSCLES]) * tone


def electrode(draws: np.random.Generator, samples: int, fs_hz: float) -> np.ndarray:
    """One electrode moves, in every second case another one by less, and all a trace, together."""
    share = 0.05 * weights(draws, 0.5)
    first, second = draws.permutation(len(ELECTRODES))[:2]
    bursts = np.exp(0.5 * unit(shaped(draws, 1, samples, fs_hz, slow)))
    waves = bursts * unit(shaped(draws, 3, samples, fs_hz, motion))
    out = share[:, None] * waves[2]
    out[first] = waves[0] + events(draws, samples, fs_hz)
    if draws.random() < 0.5:
        out[second] = draws.uniform(0.2, 0.7) * (waves[1] + events(draws, samples, fs_hz))
    return out


def events(draws: np.random.Generator, samples: int, fs_hz: float) -> np.ndarray:
    """Steps that recover within seconds, and pops: (time,), beside waves whose SD is 1."""
    count = 1 + draws.poisson(EVENTS_PER_S * samples / fs_hz)
    begins, heights = draws.integers(samples, size=count), 5 * draws.standard_normal(count)
    is_pop, rise_s = draws.random(count) < 0.3, draws.uniform(0.008, 0.04, count)
    recovery_s = np.where(is_pop, draws.uniform(0.02, 0.08, count), draws.uniform(0.2, 2.0, count))
    out, t = np.zeros(samples), np.arange(samples) * (-1 / fs_hz)
    for begin, height, rise, recovery in zip(begins.tolist(), heights.tolist(), rise_s.tolist(), recovery_s.tolist(), strict=True):
        length = min(int(6 * recovery * fs_hz) + 1, samples - begin)
        rising = min(int(6 * rise * fs_hz) + 1, length)
        event = height * np.exp(t[:length] / recovery)
        event[:rising] *= 1 - np.exp(t[:rising] / rise)
        out[begin : begin + length] += event
    return out


def baseline(draws: np.random.Generator, samples: int, fs_hz: float) -> np.ndarray:
    longer = samples * 3 // 2  # what is made in the frequency domain ends where it begins
    wander = unit(shaped(draws, len(ELECTRODES), longer, fs_hz, wanders))[:, :samples]
    breaths_hz, depth = draws.uniform(0.18, 0.35), weights(draws, 0.5)
    sways = unit(shaped(draws, 2, samples, fs_hz, slower))
    breath = (1 + 0.3 * sways[0]) * np.sin(2 * np.pi * (breaths_hz * np.arange(samples) / fs_hz + draws.random()) + sways[1])
    return weights(draws, 0.4)[:, None] * wander + 0.5 * depth[:, None] * breath


def mains(draws: np.random.Generator, samples: int, fs_hz: float) -> np.ndarray:
    line_hz = MAINS_HZ[draws.integers(2)]
    moves = unit(shaped(draws, 2, samples, fs_hz, slower))
    hz = line_hz + MAINS_MOVES_HZ * (draws.standard_normal() + moves[0])
    phase = 2 * np.pi * (np.cumsum(hz) / fs_hz + draws.random())
    loudness, lag = weights(draws, 0.6), 0.3 * draws.standard_normal(len(ELECTRODES))
    third = 0.1 * draws.random() * np.sin(3 * phase) if 3 * line_hz < 0.4 * fs_hz else 0.0
    out = np.stack([np.cos(lag), np.sin(lag)], axis=1) @ np.stack([np.sin(phase), np.cos(phase)]) + third
    return loudness[:, None] * ((1 + 0.2 * moves[1]).clip(0.1) * out)


# Spectra: the amplitude at each of some frequencies, Hz, 0 where there is none --------------------------------------------


def emg(f: np.ndarray) -> np.ndarray:
    low, high = MUSCLE_HZ
    return (f >= 1) / np.sqrt((1 + (low / f) ** 4) * (1 + (f / high) ** 2) ** 1.5)


def motion(f: np.ndarray) -> np.ndarray:
    return ((f >= MOTION_HZ[0]) & (f < MOTION_HZ[1])) / f


def wanders(f: np.ndarray) -> np.ndarray:
    low, corner, high = WANDER_HZ
    return ((f >= low) & (f < high)) * np.maximum(f, corner) ** (WANDER_SLOPE / 2)


def slow(f: np.ndarray) -> np.ndarray:
    """How effort and restlessness rise and fall."""
    return ((f >= 0.05) & (f < 1.0)) * 1.0


def slower(f: np.ndarray) -> np.ndarray:
    return ((f >= 0.02) & (f < 0.2)) / f


def shaped(draws: np.random.Generator, rows: int, samples: int, fs_hz: float, amplitude: Callable) -> np.ndarray:
    """Gaussian noise (rows, time) of this spectrum. Where it has many frequencies, evenly drawn amplitudes serve as well as normal
    ones, and take a hundredth of the time: their sum is normal.
    """
    even = -(-samples // 250) * 250  # a length whose Fourier transform is quick
    within, gain = _gain(even, fs_hz, amplitude)
    spectrum = np.zeros((rows, even // 2 + 1), np.complex128)
    if len(gain) > MANY:
        parts = np.frombuffer(draws.bytes(rows * len(gain)), np.int8).reshape(rows, -1) * gain
    else:
        parts = draws.standard_normal((rows, len(gain))) * gain
    spectrum[:, within] = parts.view(np.complex128)
    return np.fft.irfft(spectrum, even)[:, :samples]


@lru_cache(maxsize=64)
def _gain(samples: int, fs_hz: float, amplitude: Callable) -> tuple[slice, np.ndarray]:
    """(the bins of a Fourier transform that a spectrum has, its amplitude there, for the real and the imaginary part)."""
    f = np.fft.rfftfreq(samples, 1 / fs_hz)[1:]
    gain = amplitude(f) * before_sampling(f, fs_hz)
    there = np.flatnonzero(gain)
    within = slice(there[0] + 1, there[-1] + 2) if len(there) else slice(0, 0)
    return within, np.repeat(gain[there[0] : there[-1] + 1], 2) if len(there) else np.empty(0)


def before_sampling(f: np.ndarray, fs_hz: float) -> np.ndarray:
    """What recorders leave of a frequency before they sample: all up to 0.4 of the rate, as PTB-XL's 100 Hz; nothing from 0.47."""
    return np.sqrt(np.clip((0.47 - f / fs_hz) / 0.07, 0, 1))


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of an RMS of 1; of nothing, nothing."""
    return x / np.sqrt(np.einsum("rt,rt->r", x, x) / x.shape[1]).clip(1e-300)[:, None]


def weights(draws: np.random.Generator, spread: float) -> np.ndarray:
    """How strongly each electrode has something: (electrode,), lognormal."""
    return np.exp(spread * draws.standard_normal(len(ELECTRODES)))
