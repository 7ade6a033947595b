"""What PTB-XL says of a record's noise: a reader wrote into its table, for each kind, in which leads it is.

The words are those of people: ", I-V2,", "alles" (all), "v3-4", "V1,  noisy recording", "mittel" (moderate). A lead or a range of
leads means these; words that name no lead mean all. A limb lead that is derived (III, aVR, aVL, aVF) is made of I and II, so both
have its noise.
"""

import re

from ecg_batch.leads import LEADS, MODELLED

_NUMBER = {lead.upper(): at for at, lead in enumerate(LEADS)}
_NAME = r"(?:AV[RLF]|V[1-6]|III|II|I)(?![A-Z0-9])"
_RANGE = re.compile(rf"(?<![A-Z0-9])({_NAME})(?:\s*-\s*({_NAME}|[1-6](?![0-9])))?")


def noisy_leads(cell: str) -> frozenset[str]:
    """The modelled leads that one cell means; none where it is blank."""
    text = cell.strip().upper()
    if text in ("", "NAN"):
        return frozenset()
    found: set[str] = set()
    for first, last in _RANGE.findall(text):
        start = _NUMBER[first]
        stop = _NUMBER[(f"V{last}" if last.isdigit() else last) or first]
        found.update(LEADS[min(start, stop) : max(start, stop) + 1])
    if "ALLES" in text or not found:
        return frozenset(MODELLED)
    derived = found - set(MODELLED)
    return frozenset(found & set(MODELLED)) | (frozenset(("I", "II")) if derived else frozenset())
