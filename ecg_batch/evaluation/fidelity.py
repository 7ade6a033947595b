"""Fidelity: how far two sets of ECGs are apart, in features of an encoder and in millivolts. Never without its floor.

frechet     |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2), exact (Heusel et al. 2017, arXiv:1706.08500)
kid         unbiased MMD^2 with the kernel (x.y / d + 1)^3 (Binkowski et al. 2018, arXiv:1801.01401)
prdc        precision, recall, density, coverage by 5 nearest neighbours (Naeem et al. 2020, arXiv:2002.09797)
prd_pct     100 |x - y| / |y|;  prdn_pct: y about its mean in the denominator (Blanco-Velasco 2005)
"""

import numpy as np
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist

NEIGHBOURS = 5


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Frechet distance between normal fits of two sets of features (record, feature)."""
    root = sqrtm(np.cov(x, rowvar=False) @ np.cov(y, rowvar=False))
    spread = np.trace(np.cov(x, rowvar=False)) + np.trace(np.cov(y, rowvar=False)) - 2 * np.trace(np.real(root))
    return float(np.square(x.mean(0) - y.mean(0)).sum() + max(spread, 0.0))


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """Kernel distance between two sets of features; about zero, on either side, where they are one distribution."""
    kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3  # noqa: E731
    within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(x, x), kernel(y, y)))
    return float(within - 2 * kernel(x, y).mean())


def prdc(real: np.ndarray, synthetic: np.ndarray) -> dict[str, float]:
    """How much of the synthetic set lies where real records are (precision, density), and the reverse (recall, coverage)."""
    reach_real, reach_synthetic = (np.sort(cdist(z, z), axis=1)[:, NEIGHBOURS] for z in (real, synthetic))
    between = cdist(real, synthetic)
    inside = between < reach_real[:, None]
    return {
        "precision": float(inside.any(0).mean()),
        "recall": float((between < reach_synthetic[None, :]).any(1).mean()),
        "density": float(inside.sum(0).mean() / NEIGHBOURS),
        "coverage": float((between.min(1) < reach_real).mean()),
    }


def matched(labels: np.ndarray, like: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """For each row of `like`, a row of `labels` with the same set of superclasses, none twice: (rows, which of `like`).

    Two sets compared in features must hold the same diagnoses in the same shares, or their distance measures prevalence.
    """
    queues: dict[bytes, list[int]] = {}
    for row in rng.permutation(len(labels)):
        queues.setdefault(labels[row].tobytes(), []).append(int(row))
    pairs = [(queues[held.tobytes()].pop(), at) for at, held in enumerate(like) if queues.get(held.tobytes())]
    return tuple(np.array(pairs, np.int64).reshape(-1, 2).T)


def prd_pct(x: np.ndarray, y: np.ndarray, about_mean: bool = False) -> np.ndarray:
    """PRD of x against y over time, by lead: (..., lead, time) -> (..., lead)."""
    reference = y - y.mean(-1, keepdims=True) if about_mean else y
    return 100 * np.linalg.norm(x - y, axis=-1) / np.maximum(np.linalg.norm(reference, axis=-1), 1e-9)


def aligned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x (lead, time) shifted round so that its correlation with y, summed over leads, is highest; one shift for all leads."""
    product = np.fft.irfft((np.fft.rfft(y) * np.conj(np.fft.rfft(x))).sum(0), n=x.shape[-1])
    return np.roll(x, int(np.argmax(product)), axis=-1)


def distortion(x: np.ndarray, y: np.ndarray) -> dict:
    """PRD, PRDN and RMS difference of pairs (record, lead, time) in mV: medians over records, at zero lag and after alignment."""
    moved = np.stack([aligned(a, b) for a, b in zip(x, y, strict=True)])
    rows = {}
    for name, z in (("zero lag", x), ("aligned", moved)):
        rms = np.sqrt(np.square(z - y).mean(-1))  # (record, lead)
        rows[name] = {
            "PRD %": float(np.median(prd_pct(z, y))),
            "PRDN %": float(np.median(prd_pct(z, y, about_mean=True))),
            "PRD % by lead": np.median(prd_pct(z, y), axis=0).round(2).tolist(),
            "RMS mV by lead": np.median(rms, axis=0).round(4).tolist(),
        }
    return rows
