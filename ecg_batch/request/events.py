"""Events of long records: what can be named below `events`, how often it comes and how long it lasts where nothing is said.

Rates of people whose Holter recording is looked at: wide, since a detector that is to find an event has to see it rare and often.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Literal

from ecg_batch.keys import Line, Meaning, Needs, Range
from ecg_batch.request.model import Distribution, Event
from ecg_batch.request.spread import distribution, drawn
from ecg_batch.settings import Written

PER_HOUR = (0.01, 3600.0)
LENGTHS = {"beats": (2.0, 10_000.0), "s": (1.0, 86_400.0)}
PAUSE_S, ACTIVITY_S = (1.2, 10.0), (5.0, 900.0)  # the noise of activity is made in one piece
FULL = 0.9  # of the time that events may take
OVERLAYS = frozenset({"st_episode", "posture", "activity"})  # that come over beats, whichever they are
VENTRICULAR_EVENTS = frozenset({"v_beat", "v_interpolated", "v_couplet", "v_bigeminy", "v_trigeminy", "v_run"})  # in any rhythm
AV_BLOCKS = frozenset({"av_block_1", "wenckebach", "mobitz", "complete_block"})  # which nobody sees without a P wave


@dataclass(frozen=True)
class Kind:
    """An event that can be asked for: what it is, in what its length is told, and how often, how long and in how many records it
    comes by default.
    """

    meaning: str
    unit: Literal["", "beats", "s"]
    per_hour: tuple[float, float]
    length: tuple[float, float] | None
    share: float
    within: tuple[float, float] | None = None  # what length may be, where not as LENGTHS

    @property
    def limits(self) -> tuple[float, float]:
        """Of its length."""
        return self.within or LENGTHS[self.unit]


KINDS = {
    "v_beat": Kind("single ventricular premature beats", "", (5, 300), None, 0.5),
    "v_interpolated": Kind("ventricular beats between two sinus beats, without a pause", "", (1, 30), None, 0.1),
    "fusion_beat": Kind("late ventricular beats that meet the sinus beat in the ventricle", "", (1, 30), None, 0.1),
    "v_couplet": Kind("two ventricular beats in a row", "", (1, 30), None, 0.25),
    "v_bigeminy": Kind("every other beat ventricular", "beats", (1, 12), (4, 60), 0.2),
    "v_trigeminy": Kind("every third beat ventricular", "beats", (1, 12), (6, 60), 0.15),
    "v_run": Kind("ventricular tachycardia", "beats", (0.5, 6), (3, 15), 0.2, (3.0, 10_000.0)),
    "idioventricular": Kind("accelerated idioventricular rhythm", "beats", (0.5, 4), (3, 30), 0.06),
    "sv_beat": Kind("single supraventricular premature beats", "", (5, 300), None, 0.5),
    "sv_couplet": Kind("two supraventricular beats in a row", "", (1, 30), None, 0.25),
    "sv_bigeminy": Kind("every other beat supraventricular", "beats", (1, 12), (4, 40), 0.15),
    "sv_run": Kind("runs of supraventricular beats", "beats", (0.5, 12), (3, 120), 0.3, (3.0, 10_000.0)),
    "sv_blocked": Kind("atrial premature beats that are not conducted", "", (1, 40), None, 0.15),
    "junctional": Kind("junctional rhythm, premature or as an escape", "beats", (0.5, 6), (1, 40), 0.1, (1.0, 10_000.0)),
    "fibrillation": Kind("paroxysms of atrial fibrillation", "s", (0.3, 2), (30, 900), 0.2),
    "flutter": Kind("paroxysms of atrial flutter", "s", (0.3, 2), (30, 600), 0.08),
    "sinus_arrhythmia": Kind("sinus arrhythmia with the breath: irregular and normal", "s", (1, 6), (30, 600), 0.3),
    "pause": Kind("sinus pauses", "s", (0.5, 10), (1.8, 4), 0.1, PAUSE_S),
    "branch_block": Kind("bundle branch block that comes and goes", "s", (0.5, 6), (3, 300), 0.08),
    "pre_excitation": Kind("pre-excitation that comes and goes", "s", (0.5, 6), (3, 120), 0.04),
    "av_block_1": Kind("AV block of first degree", "s", (0.5, 2), (60, 900), 0.1),
    "wenckebach": Kind("AV block of second degree, Mobitz I", "s", (0.5, 4), (20, 200), 0.06),
    "mobitz": Kind("AV block of second degree, Mobitz II, 2:1 or 3:1", "s", (0.5, 4), (10, 120), 0.04),
    "complete_block": Kind("complete AV block with an escape rhythm", "s", (0.3, 2), (20, 300), 0.04),
    "st_episode": Kind("ST episodes: J + 60 ms falls or rises slowly, and comes back", "s", (0.2, 1), (120, 1200), 0.1),
    "posture": Kind("changes of posture: the heart turns in the chest", "", (1, 6), None, 0.3),
    "pacing": Kind("ventricular pacing", "s", (0.5, 4), (10, 200), 0.05),
    "activity": Kind("activity: the rate rises and falls back, with muscle noise", "s", (0.5, 4), (30, 600), 0.2, ACTIVITY_S),
}

# What other patients lend: the statements of which one is held by whoever does, and the events that need it
LENT = {
    "ventricular": (frozenset({"PVC", "BIGU", "TRIGU"}), ("v_beat", "v_interpolated", "fusion_beat", "v_couplet", "v_bigeminy",
                                                          "v_trigeminy", "v_run", "idioventricular")),
    "paced": (frozenset({"PACE"}), ("pacing",)),
    "wide": (frozenset({"CLBBB", "CRBBB"}), ("branch_block",)),
    "preexcited": (frozenset({"WPW"}), ("pre_excitation",)),
    "fibrillation": (frozenset({"AFIB"}), ("fibrillation",)),
    "flutter": (frozenset({"AFLT"}), ("flutter",)),
}  # fmt: skip


# The form that they have in a file ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AskedEvent:
    """How often an event comes, for how long, and in which share of the records. What is left out is as by default."""

    per_hour: drawn(*PER_HOUR, "how often, times an hour; drawn by record") | None = None
    length: drawn(1.0, 86_400.0, "how long: beats or seconds, as docs/requests.md says of each event; drawn by event") | None = None
    share: Annotated[float, Range(0, 1, "share of the records that have it at all")] | None = None


def _key(kind: Kind):
    words = f"how often an hour, from {PER_HOUR[0]:g} to {PER_HOUR[1]:g}, or keys below it: length, per_hour, share"
    return Annotated[Annotated[float, Range(*PER_HOUR)] | AskedEvent, Needs(words), Meaning(kind.meaning)] | None


PlacesPath = Annotated[str, Line("CSV or Parquet with a row for each event: record, event, start_s, length")] | None
AskedEvents = make_dataclass(
    "AskedEvents",
    [*((name, _key(kind), field(default=None)) for name, kind in KINDS.items()), ("table", PlacesPath, field(default=None))],
    frozen=True,
    namespace={"__doc__": "Events of long records; {} takes the defaults of all, and what is not named does not come."},
)  # fmt: skip


def refuse_odd_events(written: Written) -> None:
    """What stands below one event, by itself: of a value that may be a number or keys a reader says only that it is neither."""
    events = written.values.get("events")
    for name, said in events.items() if isinstance(events, dict) else ():
        if name in KINDS and isinstance(said, dict):
            written.checked(AskedEvent, ("events", name))


def checked_events(asked: "AskedEvents", written: Written) -> tuple[Event, ...] | None:
    """The events that are asked for by rates, in the order of KINDS; None where a table alone says what comes."""
    named = {name: getattr(asked, name) for name in KINDS if getattr(asked, name) is not None}
    if asked.table is not None and not named:
        return None
    events = tuple(_checked(named, written)) if named else tuple(_checked(dict.fromkeys(KINDS, AskedEvent()), written))
    share = {event.name: _of_time(event) for event in events}
    for event in events:
        if (full := share[event.name]) > FULL and event.name in named:
            raise written.error(
                ("events", event.name),
                f"events.{event.name} would take {100 * full:.0f} % of the time at {_often(event):g} an hour of about "
                f"{usual_s(event):.1f} s; needed {100 * FULL:.0f} % at most. Ask for fewer, or shorter ones",
            )
    always = [event.name for event in events if event.share == 1 and event.name in named and event.name not in OVERLAYS]
    if (full := sum(share[name] for name in always)) > FULL:
        raise written.error(
            ("events",),
            f"events would take {100 * full:.0f} % of the time in every record: {', '.join(always)}; needed {100 * FULL:.0f} % at "
            "most. Ask for fewer, or shorter ones, or give some a share of the records",
        )
    return events


def _of_time(event: Event) -> float:
    """About which share of a record's time an event takes."""
    return _often(event) * usual_s(event) / 3600


def _often(event: Event) -> float:
    """The most, or the mean of a normal distribution, an hour."""
    return event.per_hour.high if event.per_hour.mean is None else event.per_hour.mean


def _checked(named: dict, written: Written) -> Iterator[Event]:
    for name, kind in KINDS.items():
        if (one := named.get(name)) is None:
            continue
        if not isinstance(one, AskedEvent):
            one = AskedEvent(per_hour=one, share=1.0)
        key = ("events", name)
        if one.length is not None and not kind.unit:
            raise written.error((*key, "length"), f"events.{name}.length is given, but these beats come one by one. Leave it out")
        rate = distribution(one.per_hour, PER_HOUR, (*key, "per_hour"), written) or Distribution(*map(float, kind.per_hour))
        length = None
        if kind.unit:
            asked = float(one.length) if isinstance(one.length, int) else one.length
            length = distribution(asked, kind.limits, (*key, "length"), written) or Distribution(*map(float, kind.length))
            if not kind.limits[0] <= length.low <= length.high <= kind.limits[1]:
                words = f"events.{name}.length reaches from {length.low:g} to {length.high:g} {kind.unit}; needed "
                raise written.error((*key, "length"), words + f"{kind.limits[0]:g} to {kind.limits[1]:g} {kind.unit}")
        said = one.per_hour is not None or one.length is not None
        yield Event(name, rate, length, (1.0 if said else kind.share) if one.share is None else float(one.share))


BEATS_S = {"v_run": 0.45, "sv_run": 0.55, "v_beat": 1.6, "sv_beat": 1.6, "v_interpolated": 0.8, "fusion_beat": 0.8,
           "v_couplet": 2.2, "sv_couplet": 2.2, "sv_blocked": 1.3, "posture": 0.0}  # fmt: skip
USUAL_RR_S = 0.8


def usual_s(event: Event) -> float:
    """About how long an event lasts, in seconds: by which its rate in what is left of the time is raised."""
    if event.length is None:
        return BEATS_S[event.name]
    mean = (event.length.low + event.length.high) / 2 if event.length.mean is None else event.length.mean
    return mean if KINDS[event.name].unit == "s" else mean * BEATS_S.get(event.name, USUAL_RR_S)
