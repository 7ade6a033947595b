"""WFDB records as of the PhysioNet/CinC challenges, made of the bundled donors: real ECGs, with SNOMED CT codes."""

from functools import cache
from pathlib import Path

import numpy as np
import wfdb
from scipy.signal import resample_poly

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank
from ecg_batch.leads import LEADS, twelve_leads

CODES = {"AFIB": "164889003", "SR": "426783006", "LVH": "164873001", "CLBBB": "164909002", "NDT": "428750005", "PVC": "427172004"}


@cache
def _bundled() -> bank.Bank:
    return bank.read_bank(BUNDLED)


def ecg_of(donor: int, fs_hz: int = 500) -> np.ndarray:
    """int16 uV (12, time) of a bundled donor, brought to another rate."""
    source = _bundled()
    ecg = twelve_leads(source.skeleton[donor] + source.texture[donor])
    return np.rint(resample_poly(ecg.astype(float), fs_hz // 100, 1, axis=1, padtype="edge")).astype(np.int16)


def write_wfdb(
    folder: Path, name: str, ecg_uv: np.ndarray, comments: list[str], fs_hz: float = 500, leads=LEADS, unit: str = "mV", mat=False
) -> Path:
    """One record, as .dat or as the .mat of the challenges: int16 behind 24 bytes that wfdb passes over. Returns the path without
    suffix.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = [[lead.lower() for lead in LEADS].index(lead.lower()) for lead in leads]
    gain = {"mV": 1000.0, "uV": 1.0, "V": 1e6}[unit]
    wfdb.wrsamp(name, fs_hz, [unit] * 12, list(leads), d_signal=ecg_uv[order].T.astype(np.int64), fmt=["16"] * 12,
                adc_gain=[gain] * 12, baseline=[0] * 12, write_dir=str(folder))  # fmt: skip
    path = folder / name
    header = path.with_name(f"{name}.hea")
    text = header.read_text()
    if mat:
        path.with_name(f"{name}.mat").write_bytes(b"\0" * 24 + path.with_name(f"{name}.dat").read_bytes())
        path.with_name(f"{name}.dat").unlink()
        text = text.replace(f"{name}.dat 16 ", f"{name}.mat 16x1+24 ")
    header.write_text(text + "".join(f"{line}\n" for line in comments))
    return path


def said(age="57", sex="Female", dx=CODES["SR"]) -> list[str]:
    return [f"# Age: {age}", f"# Sex: {sex}", f"# Dx: {dx}", "# Rx: Unknown"]
