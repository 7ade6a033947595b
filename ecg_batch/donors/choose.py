"""Which usable records become donors: equal shares of the superclasses, one record a patient first, rare statements kept, and of
several registries equal shares.
"""

from collections import Counter

from ecg_batch.donors.measure import Usable
from ecg_batch.statements import SUPERCLASSES

DONORS = 3336  # the published bank
RARE_HOLDERS = 20  # a statement with fewer holders keeps all of them as donors


def balanced(usable: list[Usable], superclass_of: dict[str, str], wanted: int | None) -> list[int]:
    """Indices of the donors: equal shares of the five superclasses, one record a patient first, rare statements kept.

    A record counts for the rarest of its superclasses, since that is what the bank lacks. A class with fewer records than its
    share gives all it has. Without a wish: 3,336, or five times the smallest class where the release cannot fill that; a class that
    no record holds takes no part.
    """
    holders = Counter(code for one in usable for code in one.entry.scp_codes)
    classes = [{superclass_of[code] for code in one.entry.scp_codes if code in superclass_of} for one in usable]
    sizes = Counter(name for held in classes for name in held)
    home = [min(held, key=lambda name: (sizes[name], name)) if held else "none" for held in classes]
    queues = {name: _order([i for i, at in enumerate(home) if at == name], usable, holders) for name in {*SUPERCLASSES, *home}}
    smallest = min((len(queues[name]) for name in SUPERCLASSES if queues[name]), default=len(usable))
    count = wanted or min(DONORS, len(SUPERCLASSES) * smallest)
    shares = _fill({name: len(queue) for name, queue in queues.items()}, count)
    return sorted(index for name, queue in queues.items() for index in queue[: shares[name]])


def _order(indices: list[int], usable: list[Usable], holders: Counter) -> list[int]:
    """Holders of rare statements first, then first records of a patient, then the others; within each by ecg_id, of several
    registries one of each in turn: whoever adds one wants its donors, and its records have the highest numbers.
    """
    seen: set[int] = set()
    keyed, turns = [], Counter()
    for index in sorted(indices, key=lambda index: usable[index].entry.ecg_id):
        entry = usable[index].entry
        again = entry.patient_id in seen
        seen.add(entry.patient_id)
        rare = min(holders[code] for code in entry.scp_codes) < RARE_HOLDERS
        turns[rare, again, entry.source] += 1
        keyed.append((not rare, again, turns[rare, again, entry.source], entry.ecg_id, index))
    return [key[-1] for key in sorted(keyed)]


def _fill(sizes: dict[str, int], count: int) -> dict[str, int]:
    """Shares of `count` as equal as the sizes allow (water-filling), e.g. sizes 2, 9, 9 and 12 give 2, 5, 5."""
    shares, left = {}, count
    for rank, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: (item[1], item[0]))):
        shares[name] = min(size, left // (len(sizes) - rank))
        left -= shares[name]
    return shares
