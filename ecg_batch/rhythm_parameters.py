"""The parameters of the rhythm model: published defaults, ranges, and how they are read from a request."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches

from ecg_batch.errors import UserError


@dataclass(frozen=True)
class RhythmParameters:
    """Depths are relative: SD of log RR, at a mean RR of 0.8 s and 50 years of age. A ratio is in units of
    the current RR. Sources: docs/rhythm.md.

    variability: factor on all depths; below 1 for patients whose heart rate varies less (VARIABILITY in rhythm.py).
    rate_exponent: depths grow as RR ** rate_exponent, for a fast heart varies less.
    person_spread: SD of the log of each depth between records.
    long_range_depth: SD within 1e-4 .. 1e-2 Hz, where the spectrum has long_range_slope; it is steeper by 2 above the corner.
    """

    variability: float = 1.0
    rate_exponent: float = 1.0
    person_spread: float = 0.15
    circadian_depth: float = 0.13
    circadian_fastest_hour: float = 15.0
    long_range_depth: float = 0.07
    long_range_slope: float = -1.0
    long_range_corner_hz: float = 0.06
    lf_hz: float = 0.1
    lf_width_hz: float = 0.025
    lf_depth: float = 0.018
    respiration_hz: float = 0.25
    respiration_spread_hz: float = 0.02
    respiration_variation: float = 0.21
    respiration_depth_spread: float = 0.33
    rsa_depth: float = 0.0195
    fibrillation_impulses_per_s: float = 6.3
    fibrillation_short_refractory_s: float = 0.36
    fibrillation_long_refractory_s: float = 0.52
    fibrillation_short_share: float = 0.4
    fibrillation_prolongation_s: float = 0.24
    fibrillation_slow_share: float = 0.6
    ectopic_factor: float = 1.0
    ectopic_burst_spread: float = 0.6
    ventricular_coupling_ratio: float = 0.62
    atrial_coupling_ratio: float = 0.70
    coupling_spread_ratio: float = 0.04
    atrial_return_ratio: float = 1.12
    qt_lag_s: float = 65.0
    rr_low_s: float = 0.25
    rr_high_s: float = 2.5

    def to_json(self) -> dict[str, float]:
        return asdict(self)


RANGES = {
    "variability": (0.0, 2.0),
    "rate_exponent": (0.0, 3.0),
    "person_spread": (0.0, 0.5),
    "circadian_depth": (0.0, 0.4),
    "circadian_fastest_hour": (0.0, 24.0),
    "long_range_depth": (0.0, 0.3),
    "long_range_slope": (-2.0, 0.0),
    "long_range_corner_hz": (0.01, 0.1),
    "lf_hz": (0.04, 0.15),
    "lf_width_hz": (0.002, 0.03),
    "lf_depth": (0.0, 0.15),
    "respiration_hz": (0.15, 0.4),
    "respiration_spread_hz": (0.0, 0.05),
    "respiration_variation": (0.0, 0.5),
    "respiration_depth_spread": (0.0, 1.0),
    "rsa_depth": (0.0, 0.15),
    "fibrillation_impulses_per_s": (3.0, 12.0),
    "fibrillation_short_refractory_s": (0.2, 1.0),
    "fibrillation_long_refractory_s": (0.2, 1.5),
    "fibrillation_short_share": (0.0, 1.0),
    "fibrillation_prolongation_s": (0.01, 1.0),
    "fibrillation_slow_share": (0.0, 1.0),
    "ectopic_factor": (0.0, 1.0),
    "ectopic_burst_spread": (0.0, 2.0),
    "ventricular_coupling_ratio": (0.4, 0.85),
    "atrial_coupling_ratio": (0.4, 0.85),
    "coupling_spread_ratio": (0.0, 0.1),
    "atrial_return_ratio": (1.0, 1.2),
    "qt_lag_s": (1.0, 300.0),
    "rr_low_s": (0.2, 0.4),
    "rr_high_s": (1.5, 4.0),
}


def parse_rhythm(raw: Mapping | None, source: str) -> RhythmParameters:
    """Checks the keys below `rhythm:` of a request; what is absent has its default. source: what to call it in messages."""
    raw = {} if raw is None else raw
    known = [field.name for field in fields(RhythmParameters)]
    if not isinstance(raw, Mapping):
        raise UserError(f"{source}: rhythm is {raw!r}; needed keys below it: {', '.join(known)}")
    raw = {key: value for key, value in raw.items() if value is not None}
    for key, value in raw.items():
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"{source}: unknown key 'rhythm.{key}'{hint}; known keys: {', '.join(known)}")
        low, high = RANGES[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UserError(f"{source}: rhythm.{key} is {value!r}; needed a number from {low:g} to {high:g}")
        if not low <= value <= high:
            raise UserError(f"{source}: rhythm.{key} is {value:g}, outside {low:g} to {high:g}; choose a value in that range")
    parameters = RhythmParameters(**{key: float(value) for key, value in raw.items()})
    if parameters.fibrillation_short_refractory_s > parameters.fibrillation_long_refractory_s:
        raise UserError(
            f"{source}: rhythm.fibrillation_short_refractory_s is {parameters.fibrillation_short_refractory_s:g}, over "
            f"fibrillation_long_refractory_s, {parameters.fibrillation_long_refractory_s:g}; exchange them"
        )
    return parameters


def rate_limits_bpm(p: RhythmParameters) -> tuple[float, float]:
    """Mean rates that leave beats room to vary between the shortest and the longest RR."""
    return 60 / (0.95 * p.rr_high_s), 60 / (1.05 * p.rr_low_s)
