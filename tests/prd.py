"""PRD as the literature defines it, and the skeleton that a record is held against, worked out here: no PRD is taken on trust.

PRD = 100 |record - skeleton| / |skeleton| over the 12 leads and all samples; the skeleton is low-passed as the record is.
"""

import numpy as np
from scipy.signal import butter, sosfiltfilt

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.bank import read_bank
from ecg_batch.draws import Stream, uniforms
from ecg_batch.synthesis.retime import plain_read_loop, time_beats
from ecg_batch.synthesis.skeleton import make_skeletons
from ecg_batch.synthesis.synthesizer import Synthesizer


def prd_pct(ecg: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Of each record: (record, 12, time) twice, one unit -> (record,)."""
    difference = ecg.astype(np.float64) - reference
    return 100 * np.sqrt((difference**2).sum(axis=(1, 2)) / (reference**2).sum(axis=(1, 2)))


def all_leads(modelled: np.ndarray) -> np.ndarray:
    """Einthoven's and Goldberger's leads from I and II, then V1 to V6: (record, 8, time) -> (record, 12, time)."""
    i, ii, chest = modelled[:, 0], modelled[:, 1], modelled[:, 2:]
    left_arm, right_arm = (i - (ii - i)) / 3, -(i + ii) / 3  # potentials against the mean of the three limbs
    left_leg = -left_arm - right_arm
    limb = (left_arm - right_arm, left_leg - right_arm, left_leg - left_arm, 1.5 * right_arm, 1.5 * left_arm, 1.5 * left_leg)
    return np.concatenate([np.stack(limb, axis=1), chest], axis=1)


def skeletons_uv(plan, rows: dict[str, list]) -> np.ndarray:
    """The skeletons of 10 s records, made again from what their rows say, of the bundled donors: (record, 12, time) uV."""
    bank, request = read_bank(BUNDLED), plan.request
    synthesizer, row_of = Synthesizer(request, bank, None, None), {int(ecg_id): row for row, ecg_id in enumerate(bank.table.ecg_id)}
    rhythm = uniforms(request.seed, np.array(rows["record"]), Stream.RHYTHM, 2)
    modelled = []
    for at, record in enumerate(rows["record"]):
        donors = np.array([row_of[ecg_id] for ecg_id in (rows["donor_ecg_id"][at], *rows["blend_ecg_id"][at])])
        rr_samples = 60 * request.fs_hz / rows["hr_bpm_requested"][at]
        if request.variation:
            own = np.array([record]), donors[None], np.array([rr_samples]), rhythm[at : at + 1], [(request.variation, None)]
            made = make_skeletons(synthesizer, *own).ecg_uv(synthesizer)[0]
        else:
            loop = synthesizer.loops[int(donors[0])]
            made = plain_read_loop(loop, time_beats(loop, rr_samples, request.samples, request.fs_hz, rhythm[at]).donor_time)
        if request.lowpass_hz:
            made = sosfiltfilt(butter(2, request.lowpass_hz, fs=request.fs_hz, output="sos"), made, axis=-1)
        modelled.append(made)
    return all_leads(np.stack(modelled))
