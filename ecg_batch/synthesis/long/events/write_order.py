"""Write order: which beat comes next and when, in a record with events (request/events.py), beat after beat.

Between events the beats are the donor's own rhythm. An event begins by chance, as often as it is asked for, and is a few beats, or
some minutes, with cycles and forms of their own, as the patient's habits are (patient.py).

Cycles are in units of the current RR, as in rhythm.py, which makes times of them. What has its place in a record is tried at each
beat from a little before on, until its first beat is not before its time; an event by chance that would run into it is taken back.
"""

from collections.abc import Callable

import numpy as np

from ecg_batch.request.events import KINDS, OVERLAYS, usual_s
from ecg_batch.request.rhythm_parameters import RhythmParameters
from ecg_batch.synthesis.ask import quantile
from ecg_batch.synthesis.long.beat_times import LONGEST_PAUSE_S, QT_AT_1_S, refractory_s, shortest_rr_s
from ecg_batch.synthesis.long.clock import ExactClock, RoughClock
from ecg_batch.synthesis.long.events.order import Form, LoneP, Order
from ecg_batch.synthesis.long.events.patient import RHYTHM_OF_EVENT, Asked, Habits, Host
from ecg_batch.synthesis.long.rhythm import COUPLING_OF_QT, fibrillation_cycles

SHORTEST_RUN_S = 0.27  # RR of the fastest tachycardia, 220 bpm
RUN = 3  # beats that make a run
FROM_BEAT_BEFORE = frozenset({"pause", "sv_blocked"})  # events that begin with the beat before their first
LEAST_OF_DRAWN = 0.01  # of a drawn length, where the next event has its place before; then it is said that there is no room
ROOM_S, ROOM_RR = 2.0, 3.5  # before a place: longer than the first cycle of any event but a pause, blocks too


class Crowded(Exception):
    """An event that has its place where the one before is not over."""


def write_order(
    p: RhythmParameters,
    host: Host,
    habits: Habits,
    asked: Asked,
    rr_s: np.ndarray,
    mean_rr_s: float,
    duration_s: float,
    draws: np.random.Generator,
    first: float | None = None,
) -> Order:
    """The order of beats of a record. rr_s: the current RR on rhythm.py's grid.

    first: where the order is to have the record's own times (Order.r_s), how much of a cycle lies before its first beat; places
    need it. Raises Crowded where one place's event is not over when the next one's is to begin.
    """
    return _Writer(p, host, habits, asked, rr_s, mean_rr_s, duration_s, draws, first).written()


class _Writer:
    """The order in the making. A method for each event, of its name."""

    def __init__(self, p, host, habits, asked, rr_s, mean_rr_s, duration_s, draws, first):
        self._p, self._host, self._habits, self._draws = p, host, habits, draws
        self._clock, self._mean_rr_s = RoughClock(rr_s) if first is None else ExactClock(rr_s), mean_rr_s
        self._until, self._t, self._order = 1.2 * duration_s + 20, 0.0, Order(fixed=bool(asked.places))
        self._fewest = 1.05 * duration_s / mean_rr_s + 8  # the mean rate is brought to the asked one, whatever slow rhythms took
        self._limits_s, self._ectopic_of = None, None
        if first is not None:
            self._until, self._t = 1.02 * duration_s + 20, (first - 1) * self._clock.rr_at(0.0)
            self._fewest = 0
            self._limits_s = 1.001 * shortest_rr_s(p, 60 / mean_rr_s), LONGEST_PAUSE_S
        self._places, self._draws_of, self._tried = list(enumerate(asked.places)), asked.draws_of, -1
        self._lengths, per_hour = asked.lengths(), asked.per_hour
        usual = {event.name: usual_s(event) for event in asked.events}
        possible = {name: rate for name, rate in per_hour.items() if name not in OVERLAYS and host.can_have(name)}
        named = {*per_hour, *(one.event for one in asked.places)}
        for name, symbol in (("v_beat", "V"), ("sv_beat", "A")):  # what its own recording shows, where nothing is asked of it
            may_be = symbol == "V" and not host.bigeminy or symbol == "A" and host.sinus
            if name not in named and may_be and host.ectopic.get(symbol):
                usual[name], possible[name] = 1.6, 3600 / mean_rr_s * min(p.ectopic_factor * host.ectopic[symbol], 0.3)
        taken = asked.placed_s() / duration_s
        busy = min(sum(rate * usual[name] for name, rate in possible.items()) / 3600 + taken, 0.9)
        self._names = list(possible)
        self._hazard = np.cumsum([rate / 3600 / (1 - busy) for rate in possible.values()])
        self._of_fibrillation = _endless(lambda: fibrillation_cycles(p, mean_rr_s, 512, draws))

    def written(self) -> Order:
        """The whole order, some beats longer than the record."""
        self._add(1.0, Form.OWN)
        self._order.changes.append((0, self._host.rhythm))
        next_at = self._next()
        while self._t < self._until or len(self._order.cycle) < self._fewest:
            if self._places and self._t + self._room_s() >= self._places[0][1].start_s:
                if not self._placed():
                    self._add(self._base(), Form.OWN)
            elif self._t < next_at:
                self._own()
            else:
                drawn = np.searchsorted(self._hazard, self._draws.random() * self._hazard[-1], side="right")
                self._by_chance(self._names[int(drawn)])
                next_at = self._next()
        self._order.seconds = self._t
        return self._order

    def _own(self) -> None:
        """The next of its own rhythm: a beat, or in bigeminy two."""
        if self._host.bigeminy:
            self._ectopic_of = self._ectopic_of or (self._shape(), self._early_v())
            self._every_so_often(2, *self._ectopic_of)
        else:
            self._add(self._base(), Form.OWN)

    def _next(self) -> float:
        return self._t + self._draws.standard_exponential() / self._hazard[-1] if self._names else np.inf

    def _room_s(self) -> float:
        return max(ROOM_S, ROOM_RR * self._now())

    def _by_chance(self, name: str) -> None:
        """An event, unless it leaves no room for what has its place after it."""
        held = self._t, self._order.lengths()
        self._run(name)
        if self._places and self._t + self._room_s() > self._places[0][1].start_s:
            self._take_back(*held)

    def _placed(self) -> bool:
        """Whether the event of the next place begins now: its first beat would not be before it is asked for."""
        at, place = self._places[0]
        first_try, self._tried = at != self._tried, at
        held, own = (self._t, self._order.lengths()), self._draws
        if first_try and self._is_late(place.start_s) and len(self._order.cycle) > 1:
            raise Crowded(
                f"{place.event} is to begin at {place.start_s:g} s, and what came before it ends at {self._t:.1f} s. Give "
                "the events of a record more room between them, or make the earlier one shorter"
            )
        self._draws = self._draws_of(at)  # the same however often it is tried
        self._run(place.event, place.length)
        drawn, share = place.length is None and self._lengths[place.event] is not None, 1.0
        until_s = self._places[1][1].start_s if drawn and len(self._places) > 1 else np.inf
        while self._is_late(until_s) and share > LEAST_OF_DRAWN:
            share *= max((until_s - self._room_s() - held[0]) / (self._t - held[0]), 0.0)
            self._take_back(*held)
            self._draws = self._draws_of(at)
            self._run(place.event, share=share)
        self._draws, first = own, held[1]["r_s"]
        if self._order.r_s[first - (place.event in FROM_BEAT_BEFORE)] < place.start_s:
            self._take_back(*held)
            return False
        del self._places[0]
        return True

    def _is_late(self, start_s: float) -> bool:
        """Whether what is to begin then has no beat left to begin with."""
        return self._t > start_s + self._now()

    def _take_back(self, time_s: float, lengths: dict[str, int]) -> None:
        self._t = time_s
        self._order.cut(lengths)

    def _run(self, name: str, length: float | None = None, share: float = 1.0) -> None:
        """share: of a length that is drawn, so much."""
        asked = self._lengths[name]
        first = len(self._order.cycle)
        self._order.events.append((first, name))
        if asked is not None and length is None:
            length = max(share * float(quantile(asked, self._draws.random(1))[0]), KINDS[name].limits[0])
        getattr(self, f"_{name}")(*([] if length is None else [length]))
        last = len(self._order.cycle)
        if name in RHYTHM_OF_EVENT and (last - first > RUN or KINDS[name].unit == "s"):
            self._order.changes += [(first, RHYTHM_OF_EVENT[name]), (last - 1, self._host.rhythm)]

    # What the events are made of ----------------------------------------------------------------------------------

    def _add(self, cycle: float, form: int, pr_s: float = np.nan) -> None:
        """A beat so long after the one before."""
        rr = self._now()
        cycle = max(cycle, 1.03 * refractory_s(self._mean_rr_s) / rr)
        self._order.cycle.append(cycle)
        self._order.form.append(int(form))
        self._order.pr_s.append(pr_s)
        after = self._clock.after(self._t, cycle)
        if self._limits_s:
            low, high = self._limits_s
            after = min(max(after, self._t + low), self._t + high)
            self._order.r_s.append(after)
        self._t = after

    def _now(self) -> float:
        return self._clock.rr_at(self._t)

    def _base(self) -> float:
        return next(self._of_fibrillation) if self._host.fibrillation else 1.0

    def _u(self, low: float, high: float) -> float:
        return low + (high - low) * self._draws.random()

    def _normal(self, mean: float, sd: float) -> float:
        return mean + sd * self._draws.standard_normal()

    def _chance(self, share: float) -> bool:
        return self._draws.random() < share

    def _early_v(self) -> float:
        lowest = COUPLING_OF_QT * QT_AT_1_S * self._now() ** (-2 / 3)
        return float(np.clip(self._normal(*self._habits.early_v), min(lowest, 0.8), 0.93))

    def _early_a(self) -> float:
        return float(np.clip(self._normal(*self._habits.early_a), 0.38, 0.95))

    def _shape(self) -> int:
        return Form.VENTRICULAR + int(self._draws.integers(self._habits.shapes))

    def _premature(self) -> int:
        aberrant = self._habits.aberrant and self._chance(self._habits.aberrant)
        return Form.ABERRANT if aberrant and "wide" in self._host.lent else Form.PREMATURE

    def _after_v(self, coupling: float) -> float:
        """The pause after a ventricular beat: most often compensatory."""
        if self._host.fibrillation:
            return max(self._base(), self._u(1.0, 1.5))
        return 2 - coupling if self._chance(0.8) else self._u(1.0, 1.3)

    def _after_a(self, coupling: float) -> float:
        """The cycle after a supraventricular beat: the sinus node is reset; sometimes it is not."""
        if self._chance(0.15):
            return max(2 - coupling, 1.0)
        return max(self._normal(self._habits.return_a, 0.05), 0.85)

    # Ventricular --------------------------------------------------------------------------------------------------

    def _v_beat(self) -> None:
        coupling = self._early_v()
        self._add(coupling, self._shape())
        self._add(self._after_v(coupling), Form.OWN)

    def _v_interpolated(self) -> None:
        coupling, whole = self._u(0.44, 0.54), self._u(1.02, 1.15)
        if (whole - coupling) * self._now() < 0.4 or coupling * self._now() < 0.34:  # no room between two beats
            return self._v_beat()
        self._add(coupling, self._shape())
        self._add(whole - coupling, Form.OWN)

    def _fusion_beat(self) -> None:
        self._add(self._u(0.93, 1.0), Form.FUSION)
        self._add(self._u(0.98, 1.08), Form.OWN)

    def _v_couplet(self) -> None:
        self._series(2)

    def _v_run(self, beats: float) -> None:
        self._series(max(round(beats), RUN))

    def _series(self, beats: int) -> None:
        shape = self._shape()
        cycle = min(max(self._habits.run_v_s * np.exp(0.1 * self._draws.standard_normal()), SHORTEST_RUN_S) / self._now(), 0.85)
        self._add(self._early_v(), shape)
        for _ in range(beats - 1):
            self._add(cycle * self._normal(1, 0.04), shape if self._chance(0.9) else self._shape())
        self._add(self._u(1.1, 1.6), Form.OWN)

    def _v_bigeminy(self, beats: float) -> None:
        self._every(2, beats)

    def _v_trigeminy(self, beats: float) -> None:
        self._every(3, beats)

    def _every(self, step: int, beats: float) -> None:
        shape, coupling = self._shape(), self._early_v()
        for _ in range(max(round(beats / step), 2)):
            self._every_so_often(step, shape, coupling)

    def _every_so_often(self, step: int, shape: int, coupling: float) -> None:
        now = max(coupling * self._normal(1, 0.02), 0.4)
        self._add(now, shape)
        self._add(self._after_v(now), Form.OWN)
        for _ in range(step - 2):
            self._add(self._base(), Form.OWN)

    def _idioventricular(self, beats: float) -> None:
        cycle = self._u(0.8, 1.12)
        for _ in range(round(beats)):
            self._add(cycle * self._normal(1, 0.03), Form.VENTRICULAR)
        self._add(self._u(0.95, 1.3), Form.OWN)

    # Supraventricular ---------------------------------------------------------------------------------------------

    def _sv_beat(self) -> None:
        coupling = self._early_a()
        self._add(coupling, self._premature())
        self._add(self._after_a(coupling), Form.OWN)

    def _sv_couplet(self) -> None:
        self._burst(2)

    def _sv_run(self, beats: float) -> None:
        self._burst(max(round(beats), RUN))

    def _burst(self, beats: int) -> None:
        coupling, form, warming = self._early_a(), self._premature(), self._u(0, 0.1)
        cycle = self._habits.run_a * np.exp(0.08 * self._draws.standard_normal()) if beats > 2 else self._early_a()
        cycle = max(cycle, SHORTEST_RUN_S / self._now())
        self._add(coupling, form)
        for beat in range(beats - 1):
            now = form if form == Form.PREMATURE or self._chance(0.6) else Form.PREMATURE
            self._add((cycle + warming * np.exp(-beat / 4)) * self._normal(1, 0.03), now)
        self._add(self._after_a(coupling) * (self._u(1, 1.5) if beats > 2 else 1.0), Form.OWN)

    def _sv_bigeminy(self, beats: float) -> None:
        for _ in range(max(round(beats / 2), 2)):
            coupling = self._early_a()
            self._add(coupling, self._premature())
            self._add(self._after_a(coupling), Form.OWN)

    def _sv_blocked(self) -> None:
        cycle = self._u(1.2, 1.9)
        self._order.lone.append(LoneP(len(self._order.cycle), min(self._u(0.38, 0.52) / cycle, 0.6), True))
        self._add(cycle, Form.OWN)

    def _junctional(self, beats: float) -> None:
        cycle = self._u(0.75, 1.35)
        form = Form.JUNCTIONAL if cycle < 1 else Form.ESCAPE
        for _ in range(round(beats)):
            self._add(cycle * self._normal(1, 0.02), form)
        self._add(self._u(0.95, 1.2), Form.OWN)

    # Atrial and sinus ---------------------------------------------------------------------------------------------

    def _fibrillation(self, seconds: float) -> None:
        first, until = len(self._order.cycle), self._t + seconds
        self._add(self._u(0.55, 0.95), Form.WITHOUT_P)
        while self._t < until:
            self._add(self._habits.fibrillation * next(self._of_fibrillation), Form.WITHOUT_P)
        self._order.atrial.append((first, len(self._order.cycle), "(AFIB"))
        self._add(self._u(1.0, 1.7), Form.OWN)

    def _flutter(self, seconds: float) -> None:
        first, until, ratio = len(self._order.cycle), self._t + seconds, 2
        while self._t < until:
            if self._chance(0.2):
                ratio = int(self._draws.choice([2, 3, 4], p=[0.5, 0.15, 0.35]))
            self._add(ratio * self._habits.flutter_s / self._now() * self._normal(1, 0.01), Form.WITHOUT_P)
        self._order.atrial.append((first, len(self._order.cycle), "(AFL"))
        self._add(self._u(1.0, 1.6), Form.OWN)

    def _sinus_arrhythmia(self, seconds: float) -> None:
        until, depth, hz, phase = self._t + seconds, self._u(0.06, 0.22), self._u(0.12, 0.33), self._u(0, 2 * np.pi)
        while self._t < until:
            self._add(np.exp(depth * np.sin(2 * np.pi * hz * self._t + phase) + self._normal(0, 0.02)), Form.OWN)

    def _pause(self, seconds: float) -> None:
        self._add(max(self._clock.cycles(self._t, seconds), 1.3), Form.OWN)

    def _branch_block(self, seconds: float) -> None:
        self._widened(Form.BRANCH, seconds)

    def _pre_excitation(self, seconds: float) -> None:
        self._widened(Form.PREEXCITED, seconds)

    def _widened(self, form: int, seconds: float) -> None:
        """Sinus beats that are conducted otherwise, all or one in some."""
        until, share = self._t + seconds, 1.0 if self._chance(0.6) else self._u(0.3, 0.8)
        self._add(1.0, form)
        while self._t < until:
            self._add(1.0, form if self._chance(share) else Form.OWN)
        self._add(1.0, Form.OWN)

    # AV block: the sinus node goes on, P waves are laid apart -----------------------------------------------------

    def _av_block_1(self, seconds: float) -> None:
        until, before = self._t + seconds, self._host.pr_s
        while self._t < until:
            pr = max(self._habits.block_pr_s, self._host.pr_s + 0.03) * self._normal(1, 0.01)
            self._add(1 + (pr - before) / self._now(), Form.WITHOUT_P, pr)
            before = pr
        self._add(max(1 + (self._host.pr_s - before) / self._now(), 0.8), Form.OWN)

    def _wenckebach(self, seconds: float) -> None:
        until, before, dropped = self._t + seconds, self._host.pr_s, 0
        while self._t < until:
            pr, longer = self._host.pr_s + self._u(0.01, 0.06), self._u(0.05, 0.11)
            for _ in range(int(self._draws.integers(2, 6))):
                if dropped:
                    self._order.lone.append(LoneP(len(self._order.cycle), 0.5, False))
                self._add(1 + dropped + (pr - before) / self._now(), Form.WITHOUT_P, pr)
                before, pr, longer, dropped = pr, min(pr + longer, 0.55), longer * 0.6, 0
            dropped = 1
        self._order.lone.append(LoneP(len(self._order.cycle), 0.5, False))
        self._add(2 + (self._host.pr_s - before) / self._now(), Form.OWN)

    def _mobitz(self, seconds: float) -> None:
        until, pr = self._t + seconds, self._host.pr_s + self._u(0, 0.06)
        most = 1 if self._chance(0.75) else 2
        while self._t < until:
            for drop in range(1, most + 1):
                self._order.lone.append(LoneP(len(self._order.cycle), drop / (most + 1), False))
            self._add(1.0 + most, Form.WITHOUT_P, pr)
            for _ in range(int(self._draws.integers(0, 3)) if self._chance(0.3) else 0):
                self._add(1.0, Form.WITHOUT_P, pr)
        self._add(1.0, Form.OWN)

    def _complete_block(self, seconds: float) -> None:
        first, until = len(self._order.cycle), self._t + seconds
        wide = self._chance(0.5) and "ventricular" in self._host.lent
        while self._t < until:
            form = Form.IDIOVENTRICULAR if wide else Form.DISSOCIATED
            self._add(max(self._habits.escape_s, 1.25 * self._now()) / self._now() * self._normal(1, 0.01), form, np.inf)
        self._order.apart.append((first, len(self._order.cycle)))
        self._add(self._u(1.0, 1.3), Form.OWN)

    def _pacing(self, seconds: float) -> None:
        until, cycle_s = self._t + seconds, self._now() * self._u(0.8, 0.98)
        while self._t < until:
            self._add(cycle_s / self._now(), Form.PACED)
        self._add(self._u(1.0, 1.2), Form.OWN)


def _endless(more: Callable[[], np.ndarray]):
    while True:
        yield from more().tolist()
