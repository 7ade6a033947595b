"""What is said of a record: PTB-XL's superclasses and kinds of noise, and the SCP-ECG statements that imply a heart rate."""

import math
from collections.abc import Iterable, Mapping

# The order of the multi-hot labels everywhere in this project (Wagner et al. 2020, doi:10.1038/s41597-020-0495-6).
SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
# What its readers said of the signal, lead by lead: columns of ptbxl_database.csv.
NOISE_KINDS = ("baseline_drift", "static_noise", "burst_noise", "electrodes_problems")

# Sinus bradycardia is a rate under 60 / min, the tachycardias are over 100 / min, and sinus rhythm by itself is neither.
# Cardiologists round, and read the rate off a few beats, so 5 bpm of tolerance: a record called SBRAD at 62 bpm is no
# contradiction, one at 80 is.
RATE_TOLERANCE_BPM = 5.0
RATE_RANGE_BPM = {
    "SBRAD": (0.0, 60.0 + RATE_TOLERANCE_BPM),
    "STACH": (100.0 - RATE_TOLERANCE_BPM, math.inf),
    "SVTAC": (100.0 - RATE_TOLERANCE_BPM, math.inf),
    "PSVT": (100.0 - RATE_TOLERANCE_BPM, math.inf),
    "SR": (50.0 - RATE_TOLERANCE_BPM, 100.0 + RATE_TOLERANCE_BPM),  # of PTB-XL's 99.5 % are within 50 to 100
}


def rate_range_bpm(label: str) -> tuple[float, float]:
    """Lowest and highest heart rate a record with this label can have, bpm."""
    return RATE_RANGE_BPM.get(label, (0.0, math.inf))


def rates_that_agree(statements: Iterable[str], own_bpm: float) -> tuple[float, float]:
    """Lowest and highest heart rate at which a donor's statements all stay true, bpm. Sinus rhythm is also what a child has at the
    donor's own rate, however fast.
    """
    low, high = 0.0, math.inf
    for code in statements:
        slowest, fastest = rate_range_bpm(code)
        if code == "SR":
            slowest, fastest = min(slowest, own_bpm), max(fastest, own_bpm)
        low, high = max(low, slowest), min(high, fastest)
    return low, high


def rate_rule(label: str) -> str:
    """The rule in words, for an error: 'SBRAD means a rate up to 65 bpm'."""
    low, high = rate_range_bpm(label)
    bounds = [f"from {low:g}"] * (low > 0) + [f"up to {high:g}"] * (high < math.inf)
    return f"{label} means a rate {' '.join(bounds)} bpm"


def stated(attributes: Mapping) -> tuple[tuple[str, ...], dict[str, str], int]:
    """(SCP statements, superclass of the diagnostic ones, rate in Hz) as the attributes of a bank's groups state them.

    KeyError, TypeError or ValueError where they are none.
    """
    codes, superclass_of, fs_hz = attributes["codes"], attributes["superclass_of"], attributes["fs_hz"]
    if not (isinstance(codes, list) and isinstance(superclass_of, dict) and type(fs_hz) is int):
        raise TypeError("needed a list, a mapping and a whole number")
    if not all(isinstance(word, str) and word for word in (*codes, *superclass_of, *superclass_of.values())):
        raise TypeError("a statement or superclass is no text")
    if len(set(codes)) < len(codes) or fs_hz < 1:
        raise ValueError("a statement is there twice, or the rate is under 1 Hz")
    return tuple(codes), superclass_of, fs_hz
