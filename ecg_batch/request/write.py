"""The way back from a checked request to a file that asks for it. What has its default is left out, but for what comes first."""

from dataclasses import asdict, fields

from ecg_batch.request.events import KINDS
from ecg_batch.request.model import ADDED, Distribution, Event, Request
from ecg_batch.request.query_table import NAME as QUERIES
from ecg_batch.request.rhythm_parameters import RhythmParameters
from ecg_batch.request.spread import parts_of_one

FIRST = ("records", "duration_s", "fs_hz", "seed", "texture")
PLAIN = ("alpha", "k", "batch", "batch_on_oom", "shard", "temperature", "attempts", "device", "format", "min_likelihood")
PLACES = "places.csv"  # what the page calls a table of events: the plan holds its rows and not its name


def as_file(request: Request) -> dict:
    """The keys of a request file, in the order in which people write them. Paths are left out: bank and models are the bundled ones
    unless the reader names others, and a table is the one that lies beside the dataset.
    """
    usual = {field.name: field.default for field in fields(Request)}
    asked: dict = {name: getattr(request, name) for name in FIRST}
    asked |= {name: value for name in PLAIN if (value := getattr(request, name)) != usual[name]}
    if request.is_long:  # where other sizes are usual, by duration
        asked |= {"batch": request.batch, "shard": request.shard}
    asked |= {"prd_limit_pct": number(request.prd_limit_pct)} if request.prd_limit_pct is not None else {}
    if request.lowpass_hz != request.usual_lowpass_hz:
        asked["lowpass_hz"] = "none" if request.lowpass_hz is None else number(request.lowpass_hz)
    if request.donor_folds != usual["donor_folds"]:
        asked["donor_folds"] = list(request.donor_folds)
    if request.mix:
        asked["mix"] = _mix(request)
    elif request.cohort:
        asked["cohort"] = {"hr_spread": number(request.cohort.hr_spread)}
        asked["cohort"] |= {"labels": shares(request.cohort.labels)} if request.cohort.labels else {}
    else:
        asked["table"] = QUERIES
    if request.variation:
        asked["variation"] = {name: number(value) for name, value in asdict(request.variation).items() if value}
    if request.judge:
        asked["judge"] = {name: number(value) for name, value in asdict(request.judge).items()}
    if request.rhythm:
        usual_rhythm = asdict(RhythmParameters()) | {"order": None}
        differing = {name: value for name, value in asdict(request.rhythm).items() if value != usual_rhythm[name]}
        asked["rhythm"] = {name: number(value) for name, value in differing.items()}
        asked["rhythm"] |= {} if request.start_hour is None else {"start_hour": number(request.start_hour)}
    if request.noise:
        drawn = {"snr_db": request.noise.snr_db, "length_s": request.noise.length_s, "per_hour": request.noise.per_hour}
        asked["noise"] = {name: spread(value) for name, value in drawn.items() if value is not None}
        asked["noise"]["kinds"] = shares(request.noise.kinds)
        varied = request.vary is not None and bool(request.vary.of("snr_db"))
        if varied or not set(ADDED) & set(asked["noise"]["kinds"]):
            del asked["noise"]["snr_db"]  # refused where it is said elsewhere, and where nothing is added
    if request.has_events:
        asked["events"] = {} if has_usual_events(request) else {event.name: _event(event) for event in request.events or ()}
        asked["events"] |= {"table": PLACES} if request.places else {}
    if request.vary:
        asked["vary"] = {name: [number(value) for value in values] for name, values in request.vary.values}
    return asked


def _mix(request: Request) -> dict:
    mix = request.mix
    asked = {"labels": shares(mix.labels)}
    asked |= {name: spread(value) for name in ("hr_bpm", "age") if (value := getattr(mix, name))}
    if mix.female is not None:
        asked["sex"] = {"female": number(mix.female), "male": number(1 - mix.female)}
    return asked


def has_usual_events(request: Request) -> bool:
    """Whether it asks for all events as they are where nothing is said of them."""
    return request.places is None and request.events == tuple(
        Event(name, Distribution(*map(float, kind.per_hour)), kind.length and Distribution(*map(float, kind.length)), kind.share)
        for name, kind in KINDS.items()
    )


def as_text(asked: dict, wide: int = 100) -> str:
    """The file: a line for each key, and for each key below it."""
    lines = []
    for key, value in asked.items():
        if isinstance(value, dict) and value:
            lines += [f"{key}:", *(f"  {name}: {_flow(inner, wide - 4)}" for name, inner in value.items())]
        else:
            lines.append(f"{key}: {_flow(value, wide)}")
    return "\n".join(lines) + "\n"


def _flow(value, wide: int) -> str:
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=wide, allow_unicode=True)
    return text.removesuffix("...\n").strip().replace("\n", "\n    ")


def _event(event) -> dict:
    length = {"length": spread(event.length)} if event.length else {}
    return {"per_hour": spread(event.per_hour), **length, "share": number(event.share)}


def shares(pairs) -> dict[str, float]:
    """As short as they can be written to be the same shares again."""
    short = {name: round(share, 6) for name, share in pairs}
    same = all(short.values()) and parts_of_one(short) == tuple(pairs)
    return {name: number(share) for name, share in (short.items() if same else pairs)}


def spread(drawn: Distribution | float):
    """As drawn numbers are written: one number, {uniform: [low, high]} or {normal: [mean, sd], within: [low, high]}."""
    if not isinstance(drawn, Distribution):
        return number(drawn)
    ends = [number(drawn.low), number(drawn.high)]
    if drawn.mean is not None:
        return {"normal": [number(drawn.mean), number(drawn.sd)], "within": ends}
    return ends[0] if ends[0] == ends[1] else {"uniform": ends}


def number(value):
    """A whole number without a point."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
