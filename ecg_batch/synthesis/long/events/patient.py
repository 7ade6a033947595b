"""Patient: whom a record with events is of. What its donor allows, its habits, and what is asked of it.

Habits are drawn once for a record: how early its premature beats come and how much that varies, what follows them, how many shapes
its ventricular beats have, how fast its runs are. They are drawn wide, as patients differ.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ecg_batch.request.events import AV_BLOCKS, KINDS, LENT, OVERLAYS, VENTRICULAR_EVENTS, usual_s
from ecg_batch.request.model import Distribution, Event
from ecg_batch.request.places import Place
from ecg_batch.synthesis.ask import quantile

RHYTHM_OF_EVENT = {
    "v_bigeminy": "(B", "v_trigeminy": "(T", "v_run": "(VT", "idioventricular": "(IVR", "sv_bigeminy": "(AB", "sv_run": "(SVTA",
    "junctional": "(NOD", "fibrillation": "(AFIB", "flutter": "(AFL", "wenckebach": "(BII", "mobitz": "(BII",
    "complete_block": "(BIII", "av_block_1": "(BI", "pacing": "(P", "pre_excitation": "(PREX",
}  # fmt: skip


@dataclass(frozen=True)
class Habits:
    """Of one patient. Ratios to the current RR: mean and SD of how early premature beats come, and what follows them; of runs."""

    early_a: tuple[float, float]
    early_v: tuple[float, float]
    return_a: float
    run_a: float
    run_v_s: float
    shapes: int
    aberrant: float
    fibrillation: float  # its mean RR
    flutter_s: float  # the period of its waves
    block_pr_s: float
    escape_s: float


@dataclass(frozen=True)
class Host:
    """What the donor and its bank allow. sinus: whether atrial events can come to it; fibrillation: whether it is in it; pr_s: from
    P to QRS; rhythm: WFDB's word for its own, in "(B" every other beat is ventricular; ectopic: share of "V" and "A" among its
    beats; has_p: whether its P wave can be laid apart from its beats; lent: which kinds of beats other patients have for it.
    """

    sinus: bool
    fibrillation: bool
    pr_s: float
    rhythm: str
    ectopic: dict[str, float]
    has_p: bool = True
    lent: frozenset[str] = frozenset(LENT)

    @property
    def bigeminy(self) -> bool:
        return self.rhythm == RHYTHM_OF_EVENT["v_bigeminy"]

    def can_have(self, name: str) -> bool:
        """Whether an event can come to it."""
        return name in OVERLAYS or (self.sinus or name in VENTRICULAR_EVENTS) and (self.has_p or name not in AV_BLOCKS)


@dataclass(frozen=True)
class Asked:
    """What is asked of a record: events with their lengths; per_hour: how often those come that it has; places: where others are to
    begin, by time. draws_of: the generator of a place, so that what it has is the same whatever else comes.
    """

    events: tuple[Event, ...]
    per_hour: dict[str, float]
    places: tuple[Place, ...] = ()
    draws_of: Callable[[int], np.random.Generator] | None = None

    def timed_in(self, host: Host) -> bool:
        """Whether a record needs times that are exact while its order is written: for a place, or to know how long a pause is."""
        return bool(self.places) or "pause" in self.per_hour and host.can_have("pause")

    def lengths(self) -> dict[str, Distribution | None]:
        """Of each event that it may have: as asked, or as by default."""
        usual = {name: kind.length and Distribution(*kind.length) for name, kind in KINDS.items()}
        return usual | {event.name: event.length for event in self.events}

    def placed_s(self) -> float:
        """About how long all that is placed lasts."""
        lengths = self.lengths()
        told = ((one.event, one.length and Distribution(one.length, one.length)) for one in self.places)
        return sum(usual_s(Event(name, Distribution(1, 1), length or lengths[name], 1.0)) for name, length in told)


def drawn_habits(draws: np.random.Generator) -> Habits:
    """The habits of one patient."""
    u = draws.uniform
    return Habits(
        early_a=(u(0.45, 0.9), u(0.02, 0.08)),
        early_v=(u(0.42, 0.88), u(0.02, 0.08)),
        return_a=u(0.95, 1.35),
        run_a=u(0.5, 0.9),
        run_v_s=u(0.32, 0.55),
        shapes=int(draws.choice([1, 2, 3], p=[0.6, 0.25, 0.15])),
        aberrant=u(0.1, 0.6) if draws.random() < 0.2 else 0.0,
        fibrillation=u(0.65, 1.0),
        flutter_s=u(0.19, 0.26),
        block_pr_s=u(0.22, 0.36),
        escape_s=u(1.2, 1.9),
    )


def drawn_rates(events: tuple[Event, ...], draws: np.random.Generator) -> dict[str, float]:
    """How often each event comes in one record, an hour; those that it does not have are left out."""
    each = [(event.name, float(quantile(event.per_hour, np.array([at]))[0]), have < event.share)
            for event, (at, have) in zip(events, draws.random((len(events), 2)), strict=True)]  # fmt: skip
    return {name: rate for name, rate, has in each if has}
