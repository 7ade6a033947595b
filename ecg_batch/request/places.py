"""Places: a table of events of long records, one a row, each where it is to begin. Read from CSV or Parquet, checked, put in order.

What it holds becomes part of the request, so it enters the run id and stands in the plan: no task needs the file. There it is one
text, a CSV by itself, with the rows by record and time: of 100,000 places as values a plan took five seconds to read.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ecg_batch.errors import UserError, number_of, shown, suggestion
from ecg_batch.request.events import KINDS, OVERLAYS
from ecg_batch.request.model import Request
from ecg_batch.request.table_file import numbers, read_columns, refuse_bad_rows, text_of

COLUMNS = ("record", "event", "start_s", "length")
MUST = ("event", "start_s")
MOST_ROWS = 100_000  # they stand in the plan, which every task reads
LAST_S = 3.0  # before the end of a record nothing begins: its first beat might lie beyond


@dataclass(frozen=True)
class Place:
    """Where an event of long records begins, a row of the table. record: None is every one; where the request varies anything, the
    number of a set. length: beats or seconds, None: drawn.
    """

    record: int | None
    event: str
    start_s: float
    length: float | None

    def line(self) -> str:
        """Of the normal form."""
        return ",".join("" if value is None else str(value) for value in (self.record, self.event, self.start_s, self.length))


def read_places(request: Request) -> str:
    """What request.places_table holds in normal form: by record, those of every record first, and time.

    Raises UserError with the first bad rows, counted from 1 without the header. The request's records must be known.
    """
    path, source = request.places_table, request.source
    needed = "event and start_s and, where asked, record and length, each once"
    columns = read_columns(path, f"{source}: events", COLUMNS, MUST, needed, "event")
    rows, bad = len(columns["event"]), {}
    if rows > MOST_ROWS:
        raise UserError(
            f"{source}: events: table {path} has {rows:,} rows; needed {MOST_ROWS:,} at most, since they stand in the plan. Leave "
            "record blank where all records have the same, or make several runs"
        )
    size = request.vary.size if request.vary else 1
    count, what = request.records // size, "record" if size == 1 else "set"
    beyond = f"; there are {number_of(count, what)}, counted from 0"
    record = numbers(columns.get("record"), rows, "record", (0, count - 1), bad, lambda value: beyond)
    for row in np.flatnonzero(record != np.floor(record)):
        if not np.isnan(record[row]):
            bad.setdefault(int(row), f"record is {record[row]:g}, not a whole number")
    event = _events(columns["event"], bad)
    late = f" (a record lasts {request.duration_s} s, and what begins in its last {LAST_S:g} s might not be in it)"
    start_s = numbers(columns["start_s"], rows, "start_s", (0, request.duration_s - LAST_S), bad, lambda value: late)
    for row in np.flatnonzero(np.isnan(start_s)):
        bad.setdefault(int(row), "start_s is blank")
    length = _lengths(columns.get("length"), event, bad)
    places = [Place(*each) for each in zip(map(_whole, record), event, start_s.tolist(), map(_known, length), strict=True)]
    if not bad:
        _check_overlaps(places, request, bad)
    refuse_bad_rows(bad, rows, path, f"{source}: events")
    return "\n".join([",".join(COLUMNS), *(one.line() for one in sorted(places, key=_in_order))])


def places_of(request: Request, key: int) -> list[Place]:
    """Those of one record, or set, by time."""
    each = _by_record(request.places or "")
    return sorted((*each.get(None, ()), *each.get(key, ())), key=lambda one: one.start_s)


def until_next(places: Sequence[Place], name: str, end_s: float) -> list[tuple[Place, float]]:
    """Those of an overlay, by time, each with when the next one of them begins, or the record ends: it lasts no longer."""
    those = [one for one in places if one.event == name]
    return list(zip(those, [*(one.start_s for one in those[1:]), end_s], strict=False))


def all_places(request: Request) -> list[Place]:
    """As they stand in the request."""
    return [one for each in _by_record(request.places or "").values() for one in each]


@lru_cache(maxsize=2)
def _by_record(text: str) -> dict[int | None, list[Place]]:
    """The places of each record of a normal form."""
    found = defaultdict(list)
    for line in text.split("\n")[1:]:
        record, event, start_s, length = line.split(",")
        record = int(record) if record else None
        found[record].append(Place(record, event, float(start_s), float(length) if length else None))
    return dict(found)


def _in_order(one: Place):
    return (-1 if one.record is None else one.record, one.start_s, one.event, one.length or 0.0)


def _whole(number: float) -> int | None:
    return None if np.isnan(number) else int(number)


def _known(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


def _events(column, bad: dict[int, str]) -> list[str]:
    names = [name or "" for name in text_of(column).to_pylist()]
    for row, name in enumerate(names):
        if name not in KINDS:
            known = suggestion(name, KINDS) or "; known events: " + ", ".join(KINDS)
            bad.setdefault(row, f"event is {shown(name)}{known}" if name else "event is blank")
    return names


def _lengths(column, event: list[str], bad: dict[int, str]) -> np.ndarray:
    length = numbers(column, len(event), "length", (-np.inf, np.inf), bad)
    for row in np.flatnonzero(~np.isnan(length)):
        kind = KINDS.get(event[row])
        if kind and not kind.unit:
            bad.setdefault(int(row), f"length is {length[row]:g}, but {event[row]} has none; leave it blank")
        elif kind and not kind.limits[0] <= length[row] <= kind.limits[1]:
            low, high = kind.limits
            bad.setdefault(int(row), f"length is {length[row]:g}, outside {low:g} to {high:g} {kind.unit} of {event[row]}")
    return length


def _check_overlaps(places: list[Place], request: Request, bad: dict[int, str]) -> None:
    """Events that must run into the next, as short as they can be. The writer refuses those that do so in their record."""
    shortest = {name: kind.length[0] for name, kind in KINDS.items() if kind.length}
    shortest |= {event.name: event.length.low for event in request.events or () if event.length}
    for rows in _of_each_record(places):
        before = None
        for row in rows:
            one = places[row]
            if before is not None and one.start_s < (until := _least_end_s(places[before], shortest, request)):
                said = f"{one.event} at {one.start_s:g} s begins before {places[before].event} of row {before + 1} ends, at "
                bad.setdefault(row, said + f"{until:g} s at the earliest; events follow one another")
            before = row


def _of_each_record(places: list[Place]) -> Iterator[list[int]]:
    """Rows of each record by time: of events of beats, of which one follows the other; and of each overlay that has a length."""
    for names in (KINDS.keys() - OVERLAYS, {"st_episode"}, {"activity"}):
        each = defaultdict(list)
        for row, one in enumerate(places):
            if one.event in names:
                each[one.record].append(row)
        every = each.pop(None, [])
        for rows in each.values() if each else [[]]:
            yield sorted([*every, *rows], key=lambda row: places[row].start_s)


def _least_end_s(one: Place, shortest: dict[str, float], request: Request) -> float:
    """shortest: how long an event may be whose length is drawn."""
    kind, shortest_rr_s = KINDS[one.event], request.rhythm.rr_low_s
    least = one.length or shortest.get(one.event, 1.0)
    return one.start_s + (least if kind.unit == "s" else least * shortest_rr_s)
