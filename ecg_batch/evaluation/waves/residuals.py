"""Noise as recorders have it: what is left of recordings of PTB-XL whose readers state noise, when their beats are taken away."""

from pathlib import Path

import numpy as np
import torch

from ecg_batch.donors.ptbxl import read_records, read_release
from ecg_batch.donors.split import UNLOCKED_ATRIAL, split
from ecg_batch.errors import UserError
from ecg_batch.evaluation.labelled import CHOICE_FOLD, TEST_FOLD
from ecg_batch.evaluation.waves.delineator import NETWORK_HZ, at_network_rate
from ecg_batch.leads import LEADS, MODELLED_INDEX, MV_PER_UV, twelve_leads
from ecg_batch.signal.beats import detect_beats, detect_rows
from ecg_batch.statements import NOISE_KINDS

READ_HZ = 100
KINDS = tuple(kind for kind in NOISE_KINDS if kind != "baseline_drift")  # which hides no beat
FEWEST_BEATS = 4
FADE_S = 0.25  # one piece goes over into the next


def residuals(ptbxl: Path, records: int) -> np.ndarray:
    """Texture of the leads in which readers state noise other than drift, of so many records of folds 9 and 10 by lot, of which no
    donor is: float32 (row, time) at 250 Hz, 0.5 to 40 Hz, each of power 1.
    """
    release = read_release(ptbxl, READ_HZ)
    noisy = [entry for entry in release.entries if entry.fold in (CHOICE_FOLD, TEST_FOLD) and _leads(entry)]
    chosen = np.random.default_rng(0).permutation(len(noisy))[:records]
    found = [row for entry, ecg in read_records(release, [noisy[at] for at in np.sort(chosen)]) for row in _texture(entry, ecg)]
    if not found:
        raise UserError(f"{ptbxl}: no record of folds 9 and 10 with noise that its readers state; needed for noisy beats")
    rows = at_network_rate(torch.from_numpy(np.array(found, np.float32)), READ_HZ).numpy()
    return rows / np.sqrt(np.square(rows).mean(axis=1, keepdims=True))


def _leads(entry) -> set[str]:
    return set().union(*(entry.noise.get(kind, ()) for kind in KINDS))


def _texture(entry, ecg: np.ndarray) -> list[np.ndarray]:
    """Of the noisy leads of a record int16 (12, time): what is no beat."""
    modelled = ecg[list(MODELLED_INDEX)]
    beats = detect_beats(modelled * MV_PER_UV, READ_HZ, detect_rows(modelled * MV_PER_UV, READ_HZ))
    if len(beats) < FEWEST_BEATS:
        return []
    texture = twelve_leads(split(modelled, beats, READ_HZ, bool(UNLOCKED_ATRIAL & set(entry.scp_codes))).texture)
    return [texture[LEADS.index(lead)] for lead in sorted(_leads(entry)) if texture[LEADS.index(lead)].any()]


def noise_for(rows: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Recorded noise of any length, one piece after the other by lot: (samples,) at 250 Hz, of power 1."""
    rng, fade = np.random.default_rng(seed), round(FADE_S * NETWORK_HZ)
    length = rows.shape[1] - fade
    out = np.zeros((-(-samples // length) + 1) * length + fade, np.float32)
    rising = np.sin(np.pi / 2 * (np.arange(fade, dtype=np.float32) + 0.5) / fade)
    shape = np.concatenate([rising, np.ones(length - fade, np.float32), rising[::-1]])
    for start in range(0, len(out) - fade, length):
        out[start : start + length + fade] += shape * rows[rng.integers(len(rows))]
    return out[:samples] / np.sqrt(np.square(out[:samples]).mean())


def mixed(lead: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """A lead (time,) at 250 Hz with noise of power 1, at a ratio of powers of 0.5 to 40 Hz."""
    beats = at_network_rate(torch.from_numpy(lead), NETWORK_HZ).square().mean().item()
    return lead + noise * np.float32(np.sqrt(beats / 10 ** (snr_db / 10)))
