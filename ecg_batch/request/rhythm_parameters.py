"""The parameters of the rhythm model: published defaults, ranges and meaning, as the keys below `rhythm:` of a request."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ecg_batch.keys import Meaning, Range

Order = Annotated[
    Literal["mamba", "rules"],
    Meaning("who says which beat comes, in fibrillation and in donors with ectopic beats; left out: mamba, with events rules"),
]


@dataclass(frozen=True)
class RhythmParameters:
    """Depths are relative: SD of log RR, at a mean RR of 0.8 s and 50 years of age. A ratio is in units of
    the current RR. Sources: docs/evidence/rhythm.md.
    """

    order: Order = "rules"  # a request that says nothing has mamba, but with events: parse.parse_request
    variability: Annotated[float, Range(0, 2, "factor on all depths; below 1 for patients whose rate varies less")] = 1.0
    rate_exponent: Annotated[float, Range(0, 3, "depths grow as RR ** rate_exponent, for a fast heart varies less")] = 1.0
    person_spread: Annotated[float, Range(0, 0.5, "SD of the log of each depth between records")] = 0.15
    circadian_depth: Annotated[float, Range(0, 0.4, "depth of the day")] = 0.13
    circadian_fastest_hour: Annotated[float, Range(0, 24, "hour at which the heart is fastest")] = 15.0
    long_range_depth: Annotated[float, Range(0, 0.3, "SD within 1e-4 .. 1e-2 Hz, of variation without a period of its own")] = 0.07
    long_range_slope: Annotated[float, Range(-2, 0, "slope of its spectrum there; steeper by 2 above the corner")] = -1.0
    long_range_corner_hz: Annotated[float, Range(0.01, 0.1, "where its spectrum becomes steeper, Hz")] = 0.06
    lf_hz: Annotated[float, Range(0.04, 0.15, "middle of the slow blood-pressure waves, Hz")] = 0.1
    lf_width_hz: Annotated[float, Range(0.002, 0.03, "their width, Hz")] = 0.025
    lf_depth: Annotated[float, Range(0, 0.15, "their depth")] = 0.018
    respiration_hz: Annotated[float, Range(0.15, 0.4, "breaths a second")] = 0.25
    respiration_spread_hz: Annotated[float, Range(0, 0.05, "how much that differs between records, Hz")] = 0.02
    respiration_variation: Annotated[float, Range(0, 0.5, "how much one breath differs in length from the next")] = 0.21
    respiration_depth_spread: Annotated[float, Range(0, 1, "how much one breath differs in depth from the next")] = 0.33
    rsa_depth: Annotated[float, Range(0, 0.15, "how deeply breathing moves the rate")] = 0.0195
    fibrillation_impulses_per_s: Annotated[float, Range(3, 12, "impulses that reach the AV node in fibrillation, a second")] = 6.3
    fibrillation_short_refractory_s: Annotated[float, Range(0.2, 1, "shorter of its two refractory times, s")] = 0.36
    fibrillation_long_refractory_s: Annotated[float, Range(0.2, 1.5, "longer one, s")] = 0.52
    fibrillation_short_share: Annotated[float, Range(0, 1, "how often the shorter one holds")] = 0.4
    fibrillation_prolongation_s: Annotated[float, Range(0.01, 1, "over how long the chance of conduction rises afterwards, s")] = (
        0.24
    )
    fibrillation_slow_share: Annotated[float, Range(0, 1, "how much of the slow parts is left in fibrillation")] = 0.6
    ectopic_factor: Annotated[float, Range(0, 1, "factor on how many of the donor's ectopic beats come")] = 1.0
    ectopic_burst_spread: Annotated[float, Range(0, 2, "how much that share rises and falls within a record")] = 0.6
    ventricular_coupling_ratio: Annotated[float, Range(0.4, 0.85, "how early a ventricular beat comes, in RR")] = 0.62
    atrial_coupling_ratio: Annotated[float, Range(0.4, 0.85, "how early an atrial beat comes, in RR")] = 0.70
    coupling_spread_ratio: Annotated[float, Range(0, 0.1, "how much that differs")] = 0.04
    atrial_return_ratio: Annotated[float, Range(1, 1.2, "cycle after an atrial beat, in RR")] = 1.12
    qt_lag_s: Annotated[float, Range(1, 300, "time constant with which QT follows RR, s")] = 65.0
    rr_low_s: Annotated[float, Range(0.2, 0.4, "shortest RR, s")] = 0.25
    rr_high_s: Annotated[float, Range(1.5, 4, "longest RR, s")] = 2.5


OF_ECTOPIC = ("ectopic_burst_spread", "ventricular_coupling_ratio", "atrial_coupling_ratio", "coupling_spread_ratio",
              "atrial_return_ratio")  # not where there are events  # fmt: skip
OF_RULES = ("fibrillation_impulses_per_s", "fibrillation_short_refractory_s", "fibrillation_long_refractory_s",
            "fibrillation_short_share", "fibrillation_prolongation_s", *OF_ECTOPIC)  # not of order: mamba  # fmt: skip


def rate_limits_bpm(p: RhythmParameters) -> tuple[float, float]:
    """Mean rates that leave beats room to vary between the shortest and the longest RR."""
    return 60 / (0.95 * p.rr_high_s), 60 / (1.05 * p.rr_low_s)
