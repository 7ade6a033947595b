"""The two-sample test: can a small network tell synthetic records from real ones? AUC, 0.5 = it cannot.

A classifier learns to tell the two sides apart on some patients and is asked on others (Lopez-Paz and Oquab 2017,
arXiv:1610.06545). What it is shown says where a difference is: the records as a whole, one band of frequencies, or one part of
the beat.

Its strength is shown each time. Real records of some patients against real records of others must not be told apart. Beats with
Gaussian noise of their own texture's spectrum and lead correlation instead of that texture must be.

With batch norm, one scale for all bands and a higher learning rate the same network once said 0.50 and 0.99 of the same records.
So: band by band, companded, group norm, clipped gradients, several seeds.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.signal import butter, resample_poly, sosfiltfilt
from torch.nn import functional as F

from ecg_batch.leads import MODELLED_INDEX, MV_PER_UV, twelve_leads
from ecg_batch.signal.beats import detect_beats

FS_HZ, SAMPLES = 100, 1000  # what is compared: ten seconds at PTB-XL's lower rate
BANDS = {"under 1 Hz": (None, 1.0, 50.0), "1 to 8 Hz": (1.0, 8.0, 50.0), "8 to 25 Hz": (8.0, 25.0, 10.0),
         "over 25 Hz": (25.0, None, 3.0)}  # edges; microvolts that count as one: loud parts are companded  # fmt: skip
STEP_UV = 5  # a band is counted in these, so no rounding of stored integers tells
# About R, s: what is kept of a record. Beats overlap where rates are high; a sample belongs to the nearest R.
PARTS = {"P and PR": (-0.30, -0.08), "QRS": (-0.08, 0.08), "ST and T": (0.08, 0.42), "TP": (0.42, -0.30)}
EDGE = 50  # samples at both ends that no one sees: PTB-XL's last ones hold a spike of its resampling
WIDTH, BATCH, CROP = 48, 24, 400
TRAINING_SHARE = 0.7  # of the patients
DRAWS = 500
RHYTHM_BINS = ((0.08, 20.0), (0.35, 0.01))  # of heart rate in bpm, of variability: width of the logarithm, least
BINS, RAKES = 64, 5
MOST_WEIGHT = 5.0


@dataclass(frozen=True)
class Side:
    """Records of one side: ecg int16 (record, 12, time) in microvolts at 100 Hz, ten seconds; patient (record,), of the donor."""

    ecg: np.ndarray
    patient: np.ndarray

    def __len__(self) -> int:
        return len(self.ecg)

    def take(self, at: np.ndarray) -> "Side":
        return Side(self.ecg[at], self.patient[at])


@dataclass(frozen=True)
class Told:
    """AUC on the patients that were kept out: the mean over seeds, each, and the 95 % interval by patient."""

    auc: float
    of_seeds: tuple[float, ...]
    interval: tuple[float, float]


def at_100_hz(ecg: np.ndarray, fs_hz: int) -> np.ndarray:
    """int16 (record, 12, time) at another whole multiple of 100 Hz."""
    if fs_hz == FS_HZ:
        return ecg
    return np.rint(resample_poly(ecg.astype(np.float32), 1, fs_hz // FS_HZ, axis=-1)).astype(np.int16)


def windows_of(ecg: np.ndarray, count: int, rng: np.random.Generator, samples: int = SAMPLES) -> np.ndarray:
    """`count` windows of one long record: int16 (12, time) -> (count, 12, samples)."""
    starts = rng.integers(0, ecg.shape[-1] - samples + 1, count)
    return np.stack([ecg[:, start : start + samples] for start in starts])


def same_leads(real: Side) -> Side:
    """Real records with III, aVR, aVL and aVF derived and rounded as synthetic ones have them."""
    return Side(twelve_leads(real.ecg[:, list(MODELLED_INDEX)]), real.patient)


def gaussian(skeleton_uv: np.ndarray, texture_uv: np.ndarray, seed: int = 0) -> np.ndarray:
    """Beats with Gaussian noise of their texture's power spectrum and lead correlation: int16 (record, 12, time).

    skeleton_uv, texture_uv: (record, 8, time). Each record's spectra go on with common random phases, which keep what leads have
    in common (Prichard and Theiler 1994, doi:10.1103/PhysRevLett.73.951).
    """
    spectrum = np.fft.rfft(texture_uv.astype(np.float64), axis=-1)
    phases = np.exp(2j * np.pi * np.random.default_rng(seed).random((len(texture_uv), 1, spectrum.shape[-1])))
    phases[..., 0] = 1
    noise = np.fft.irfft(spectrum * phases, n=texture_uv.shape[-1], axis=-1)
    return twelve_leads(np.rint(skeleton_uv + noise)).astype(np.int16)


# What the network sees ------------------------------------------------------------------------------------------------


def planes(ecg: np.ndarray, bands: tuple[str, ...] = tuple(BANDS), part: str | None = None) -> np.ndarray:
    """float16 (record, band x 12, time): each band companded, ends cut off; of one part of the beats only, zero elsewhere."""
    x = ecg.astype(np.float32)
    x -= x.mean(axis=-1, keepdims=True)
    out = np.concatenate([_companded(x, *BANDS[name]) for name in bands], axis=1)
    if part is not None:
        out *= np.stack([_shown(one, PARTS[part]) for one in ecg])[:, None]
    return out[..., EDGE:-EDGE]


def _companded(x: np.ndarray, low: float | None, high: float | None, unit_uv: float) -> np.ndarray:
    edges, kind = (high, "low") if low is None else (low, "high") if high is None else ([low, high], "band")
    inside = sosfiltfilt(butter(3, edges, kind, fs=FS_HZ, output="sos"), x, axis=-1)
    return np.arcsinh(np.rint(inside / STEP_UV) * (STEP_UV / unit_uv)).astype(np.float16)


def _shown(ecg: np.ndarray, part: tuple[float, float]) -> np.ndarray:
    """1 where a record (12, time) is in this part of its beats: float16 (time,). TP is what no other part has."""
    beats = detect_beats(ecg[list(MODELLED_INDEX)] * MV_PER_UV, FS_HZ)
    time = np.arange(ecg.shape[-1])
    if not len(beats):
        return np.zeros(len(time), np.float16)
    since = (time - beats[np.argmin(np.abs(time[:, None] - beats), axis=1)]) / FS_HZ
    low, high = part
    return ((since >= low) & (since < high) if low < high else (since >= low) | (since < high)).astype(np.float16)


class Block(torch.nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.wide, self.wide_norm = torch.nn.Conv1d(inputs, outputs, 7, stride, padding=3), torch.nn.GroupNorm(8, outputs)
        self.narrow, self.narrow_norm = torch.nn.Conv1d(outputs, outputs, 3, padding=1), torch.nn.GroupNorm(8, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.wide_norm(self.wide(x)))
        return x + F.gelu(self.narrow_norm(self.narrow(x)))


class Teller(torch.nn.Module):
    """(record, channel, time) -> (record,): the logit of being synthetic. Mean, maximum and spread over time of what it finds."""

    def __init__(self, channels: int):
        super().__init__()
        self.blocks = torch.nn.Sequential(Block(channels, WIDTH, 1), *(Block(WIDTH, WIDTH, 2) for _ in range(3)))
        self.out = torch.nn.Linear(3 * WIDTH, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.blocks(x)
        return self.out(torch.cat([found.mean(-1), found.amax(-1), found.std(-1)], dim=1))[:, 0]


# The test -------------------------------------------------------------------------------------------------------------


def tell_apart(synthetic: Side, real: Side, seeds: int, steps: int, weight: np.ndarray | None = None, **seen) -> Told:
    """Trains once for each seed, each on other patients. weight (synthetic record,): how often each counts; seen: as planes."""
    x = np.concatenate([planes(real.ecg, **seen), planes(synthetic.ecg, **seen)])
    made = np.repeat([False, True], [len(real), len(synthetic)])
    patient = np.concatenate([real.patient, synthetic.patient])
    weights = np.concatenate([np.ones(len(real)), np.ones(len(synthetic)) if weight is None else weight])
    of_seeds, drawn = [], []
    for seed in range(seeds):
        asked, score = _trained(x, made, patient, weights, seed, steps)
        held = score, made[asked], weights[asked]
        of_seeds.append(float(auc(*held)))
        drawn.append(_drawn_by_patient(*held, patient[asked], seed))
    low, high = np.nanpercentile(np.mean(drawn, axis=0), [2.5, 97.5])
    return Told(float(np.mean(of_seeds)), tuple(of_seeds), (float(low), float(high)))


def _trained(x, made, patient, weights, seed: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(records of patients that were kept out, their scores)."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    patients = rng.permutation(np.unique(patient))
    taught = np.isin(patient, patients[: int(TRAINING_SHARE * len(patients))])
    sides = [np.flatnonzero(taught & (made == side)) for side in (False, True)]
    chances = [weights[side] / weights[side].sum() for side in sides]
    net = Teller(x.shape[1])
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=2e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.5e-3, steps)
    target = torch.from_numpy(np.repeat([0.0, 1.0], BATCH)).float()
    for _ in range(steps):
        rows = np.concatenate([rng.choice(side, BATCH, p=chance) for side, chance in zip(sides, chances, strict=True)])
        start = rng.integers(0, x.shape[-1] - CROP + 1)
        batch = torch.from_numpy(x[rows, :, start : start + CROP].astype(np.float32))
        loss = F.binary_cross_entropy_with_logits(net(batch), target)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    asked = np.flatnonzero(~taught)
    net.eval()
    with torch.no_grad():
        parts = [net(torch.from_numpy(x[asked[at : at + 64]].astype(np.float32))) for at in range(0, len(asked), 64)]
    return asked, torch.cat(parts).numpy()


def auc(score: np.ndarray, made: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Chance that a synthetic record scores higher than a real one, ties half: (...).

    score, made (record,); weight (..., record): how often each counts.
    """
    order = np.argsort(score)
    score, made, weight = score[order], made[order], weight[..., order]
    real = np.concatenate([np.zeros((*weight.shape[:-1], 1)), np.cumsum(weight * ~made, axis=-1)], axis=-1)
    below = (real[..., np.searchsorted(score, score)] + real[..., np.searchsorted(score, score, side="right")]) / 2
    return (weight * made * below).sum(axis=-1) / ((weight * made).sum(axis=-1) * real[..., -1])


def _drawn_by_patient(score, made, weight, patient, seed: int) -> np.ndarray:
    """AUC with the patients drawn again, DRAWS times: (draw,)."""
    unique, at = np.unique(patient, return_inverse=True)
    counts = np.random.default_rng(seed).multinomial(len(unique), np.full(len(unique), 1 / len(unique)), size=DRAWS)
    return auc(score, made, weight * counts[:, at])


def rhythms_of(side: Side) -> np.ndarray:
    """Heart rate in bpm, and the RMS of successive differences of log RR, of each record: (record, 2), NaN under four beats."""
    return np.array([_rhythm(ecg[list(MODELLED_INDEX)] * MV_PER_UV) for ecg in side.ecg])


def _rhythm(modelled_mv: np.ndarray) -> tuple[float, float]:
    beats = detect_beats(modelled_mv, FS_HZ)
    if len(beats) < 4:
        return np.nan, np.nan
    rr = np.diff(beats)
    return 60 * FS_HZ / float(rr.mean()), float(np.sqrt(np.square(np.diff(np.log(rr))).mean()))


def alike_in_rhythm(synthetic: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Weights (synthetic record,) under which the synthetic side has the real side's rates and variabilities: as of rhythms_of.

    They are asked for, not invented: by `hr_spread`, by `rr_cv`, by the hours of a day where recordings are made at rest. So they
    would tell whatever else is alike. By raking (Deming and Stephan 1940, doi:10.1214/aoms/1177731829).
    """
    binned = [(_bins(made, width, least), _bins(of_real, width, least))
              for made, of_real, (width, least) in zip(synthetic.T, real.T, RHYTHM_BINS, strict=True)]  # fmt: skip
    weight = np.ones(len(synthetic))
    for _ in range(RAKES):
        for made, of_real in binned:
            here = np.bincount(made, weight, minlength=BINS) / weight.sum()
            there = np.bincount(of_real, minlength=BINS) / len(of_real)
            weight = np.minimum(weight * there[made] / np.maximum(here[made], 1e-12), MOST_WEIGHT)
    return weight


def _bins(values: np.ndarray, width: float, least: float) -> np.ndarray:
    """Bins of the logarithm; what is not known has its own."""
    at = np.rint(np.log(np.maximum(values, least) / least) / width)
    return np.where(np.isfinite(at), np.minimum(at, BINS - 2), BINS - 1).astype(int)
