"""Diversity and privacy: how many patients a dataset shows, and what an attacker learns of them.

Attacks look at the typical beat: median over a record's beats, 8 leads, 250 ms before to 400 ms after R. It does not change with
heart rate, so re-timing hides nothing from them.
"""

from collections import Counter

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from ecg_batch.evaluation.labelled import Labelled
from ecg_batch.leads import MODELLED_INDEX, MV_PER_UV
from ecg_batch.signal.beats import detect_beats

BEFORE_S, AFTER_S = 0.25, 0.40


def typical_beat(ecg: np.ndarray, fs_hz: float) -> np.ndarray | None:
    """Median beat, flattened (8 * time,), each lead about its median; None with fewer than three beats. ecg int16 (12, time)."""
    x = ecg[list(MODELLED_INDEX)] * MV_PER_UV
    before, after = round(BEFORE_S * fs_hz), round(AFTER_S * fs_hz)
    beats = [r for r in detect_beats(x, fs_hz) if before <= r < x.shape[-1] - after]
    if len(beats) < 3:
        return None
    beat = np.median([x[:, r - before : r + after] for r in beats], axis=0)
    return (beat - np.median(beat, axis=1, keepdims=True)).ravel()


def typical_beats(records: Labelled) -> tuple[np.ndarray, np.ndarray]:
    """(beats (record, 8 * time), the rows that have one)."""
    found = [typical_beat(ecg, records.fs_hz) for ecg in records.ecg]
    rows = np.array([at for at, beat in enumerate(found) if beat is not None])
    return np.stack([found[at] for at in rows]), rows


def donor_use(synthetic: Labelled) -> dict:
    """Donors and patients behind a dataset, and how evenly: effective = exp(entropy of the shares)."""
    counts = np.array(list(Counter(synthetic.patient_id.tolist()).values()))
    share = counts / counts.sum()
    return {
        "records": len(synthetic),
        "donor records": len(set(synthetic.ecg_id.tolist())),
        "donor patients": len(counts),
        "effective patients": float(np.exp(-(share * np.log(share)).sum())),
        "share of the top patient": float(share.max()),
    }


def within_donor_spread(features: np.ndarray, synthetic: Labelled) -> float:
    """Mean squared distance between records of one donor, over that between any two records. 0 = each donor is one point."""
    total, within, weight = 2 * features.var(0).sum(), 0.0, 0
    for donor in np.unique(synthetic.ecg_id):
        held = features[synthetic.ecg_id == donor]
        if len(held) > 1:
            within += len(held) * 2 * held.var(0, ddof=1).sum()
            weight += len(held)
    return float(within / max(weight, 1) / max(total, 1e-12))


def attacks(synthetic: Labelled, training: Labelled, held_out: Labelled) -> dict:
    """What the typical beats give away.

    re-identification: share of synthetic records whose nearest real training record is of their donor's patient.
    membership AUC: can the distance to the nearest synthetic record tell donors from patients that were never used? 0.5 = no.
    nearest-neighbour distance ratio: median of distance to the nearest over that to the nearest of another patient;
    near 1 = no one real record is singled out. The same for held-out real records is the value of no leak at all.
    """
    (fake, fake_rows), (real, real_rows), (new, new_rows) = (typical_beats(part) for part in (synthetic, training, held_out))
    patients, donors = training.patient_id[real_rows], synthetic.patient_id[fake_rows]
    to_real = cdist(fake, real)
    nearest = patients[to_real.argmin(1)]
    members = np.isin(training.patient_id[real_rows], np.unique(synthetic.patient_id))
    distance = np.concatenate([cdist(real[members], fake).min(1), cdist(new, fake).min(1)])
    truth = np.concatenate([np.ones(members.sum()), np.zeros(len(new))])
    return {
        "re-identified share": float((nearest == donors).mean()),
        "re-identified by chance": float(1 / len(np.unique(patients))),
        "membership AUC": float(roc_auc_score(truth, -distance)),
        "distance ratio, synthetic": distance_ratio(to_real, patients),
        "distance ratio, held-out real": distance_ratio(cdist(new, real), patients),
        "N": [len(fake), len(real), len(new)],
    }


def distance_ratio(distances: np.ndarray, patients: np.ndarray) -> float:
    """Median of d(nearest) / d(nearest record of another patient): distances (query, real), patients (real,)."""
    nearest = distances.argmin(1)
    other = np.where(patients[None, :] == patients[nearest][:, None], np.inf, distances).min(1)
    return float(np.median(distances.min(1) / np.maximum(other, 1e-12)))
