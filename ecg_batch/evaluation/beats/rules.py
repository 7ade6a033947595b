"""What a rule knows without learning: types of beats by shape and prematurity."""

import numpy as np

from ecg_batch.evaluation.beats.classifier import SAID
from ecg_batch.evaluation.beats.features import NUMBERS, Seen

UNLIKE = 0.75  # correlation of a QRS with the patient's: below it is ventricular
EARLY = 0.85  # of the usual RR
REGULAR = 0.1  # median change of RR, as a logarithm, up to which an early beat says something


def types_by_rule(seen: Seen) -> np.ndarray:
    """A QRS unlike the patient's is V; one like it, early by 15 %, is S where RR is not irregular: (beat,), index in SAID."""
    of = {name: seen.numbers[:, NUMBERS.index(name)] for name in ("QRS unlike", "RR before / usual", "irregularity")}
    unlike = of["QRS unlike"] > 2 * (1 - UNLIKE)
    early = (of["RR before / usual"] < np.log(EARLY)) & (of["irregularity"] < 5 * REGULAR)
    return np.select([unlike, early], [SAID.index("V"), SAID.index("S")], SAID.index("N"))
