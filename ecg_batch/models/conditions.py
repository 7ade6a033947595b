"""Which condition token stands before a texture: the diagnosis as far as the training records can support it."""

from collections import Counter
from collections.abc import Iterable

from ecg_batch.statements import SUPERCLASSES

ANY = "ANY"

# A condition is one row of the embedding, 64 numbers. 40 records are 10,000 tokens to fit it with; with fewer, the row
# learns the noise of a handful of patients, and the superclass says it better.
MIN_RECORDS = 40


def labels_of(statements: Iterable[str], superclass_of: dict[str, str]) -> set[str]:
    """Every label a record holds: ANY, its statements, their superclasses."""
    statements = set(statements)
    return {ANY} | statements | {superclass_of[code] for code in statements if code in superclass_of}


def choose_conditions(labels: list[set[str]]) -> tuple[str, ...]:
    """The list of conditions: ANY, the superclasses, then statements of at least MIN_RECORDS records, rarest first."""
    counts = Counter(label for held in labels for label in held)
    fixed = (ANY, *SUPERCLASSES)
    often = [label for label, count in counts.items() if count >= MIN_RECORDS and label not in fixed]
    return fixed + tuple(sorted(often, key=lambda label: (counts[label], label)))


def condition_of(label: str, statements: Iterable[str], conditions: tuple[str, ...], superclass_of: dict[str, str]) -> int:
    """The condition for a requested label and its donor's statements: an index into `conditions`.

    The label itself, else its superclass, else the rarest of the donor's statements that is a condition, else ANY.
    """
    held = labels_of(statements, superclass_of)
    rarest = [name for name in conditions[1 + len(SUPERCLASSES) :] if name in held]
    for name in (label, superclass_of.get(label), *rarest):
        if name in conditions:
            return conditions.index(name)
    return conditions.index(ANY)
