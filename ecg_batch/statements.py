"""What a label says: the five superclasses of PTB-XL, and the SCP-ECG statements that imply a heart rate."""

import math

# The order of the multi-hot labels everywhere in this project (Wagner et al. 2020, doi:10.1038/s41597-020-0495-6).
SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")

# Sinus bradycardia is a rate under 60 / min, the tachycardias are over 100 / min. Cardiologists round, and read the
# rate off a few beats, so 5 bpm of tolerance: a record called SBRAD at 62 bpm is no contradiction, one at 80 is.
RATE_TOLERANCE_BPM = 5.0
RATE_RANGE_BPM = {
    "SBRAD": (0.0, 60.0 + RATE_TOLERANCE_BPM),
    "STACH": (100.0 - RATE_TOLERANCE_BPM, math.inf),
    "SVTAC": (100.0 - RATE_TOLERANCE_BPM, math.inf),
    "PSVT": (100.0 - RATE_TOLERANCE_BPM, math.inf),
}


def rate_range_bpm(label: str) -> tuple[float, float]:
    """Lowest and highest heart rate a record with this label can have, bpm."""
    return RATE_RANGE_BPM.get(label, (0.0, math.inf))


def rate_rule(label: str) -> str:
    """The rule in words, for an error: 'SBRAD means a rate up to 65 bpm'."""
    low, high = rate_range_bpm(label)
    return f"{label} means a rate " + (f"up to {high:g} bpm" if low == 0 else f"from {low:g} bpm")
