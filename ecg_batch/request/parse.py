"""The request file: read and checked before anything else runs. Every message names file, line and key."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from ecg_batch.bundled import BUNDLED
from ecg_batch.errors import shown
from ecg_batch.keys import Meaning, Needs, Range
from ecg_batch.request.events import AskedEvents, checked_events, refuse_odd_events
from ecg_batch.request.model import (
    ADDED,
    AGE_LIMITS,
    CHUNK_RECORDS,
    HR_LIMITS_BPM,
    LOOP_S,
    MINUTE_S,
    NOISE_LIMITS_S,
    SNR_LIMITS_DB,
    Cohort,
    Distribution,
    Mix,
    Noise,
    Request,
)
from ecg_batch.request.rhythm_parameters import OF_ECTOPIC, OF_RULES, Order, RhythmParameters, rate_limits_bpm
from ecg_batch.request.spread import distribution, drawn, parts_of_one
from ecg_batch.request.vary import AskedVary, refuse_with_vary, vary_of
from ecg_batch.settings import Written, read_settings
from ecg_batch.statements import rate_rule
from ecg_batch.strict_yaml import Key, dotted

WHAT = ("mix", "table", "cohort")  # exactly one of them says what to make
LONG_BATCH = 32  # records that are decoded together, a minute of each at a time
SHARE_TOLERANCE = 1e-3  # thirds written as 0.333 still count as a whole


# The forms that keys have in a file, where the checked request holds something else --------------------------------------

Shares = dict[str, Annotated[float, Range(0, 1)]]
Fold = Annotated[int, Range(1, 10)]
Folds = Annotated[
    Fold | list[Fold], Needs("a list of PTB-XL folds from 1 to 10, as [1, 2, 3]"), Meaning("where donors may come from")
]


@dataclass(frozen=True)
class AskedMix:
    """Shares of labels, and what is asked of each record."""

    labels: Annotated[Shares, Meaning("superclasses or SCP-ECG statements that the bank holds; shares that sum to 1")]
    hr_bpm: drawn(*HR_LIMITS_BPM, "heart rate, bpm; left out: the donor's own") | None = None
    age: drawn(*AGE_LIMITS, "age in years; left out: any") | None = None
    sex: (
        Annotated[Literal["female", "male"] | Shares, Needs("female, male, or shares as {female: 0.5, male: 0.5}"),
                  Meaning("sex; left out: any")] | None
    ) = None  # fmt: skip


@dataclass(frozen=True)
class AskedCohort(Cohort):
    """Records that ask for what the bank's donors are; {} takes the defaults."""

    labels: Annotated[Shares, Meaning("shares as in a mix; left out: each donor as often as the next")] | None = None


@dataclass(frozen=True)
class AskedRhythm(RhythmParameters):
    """The rhythm model of long records. Depths are relative: SD of log RR, at a mean RR of 0.8 s and 50 years of age."""

    order: Order | None = None
    start_hour: Annotated[float, Range(0, 24, "time of day at which the record begins; left out: drawn from 8 to 18")] | None = None


Weight = Annotated[float, Range(0, 1000)]


@dataclass(frozen=True)
class AskedKinds:
    """Kinds of noise and how often each comes, as weights; a kind that is not named does not come."""

    muscle: Annotated[Weight, Meaning("muscles, from 8 Hz up, in bursts")] = 0.0
    electrode: Annotated[Weight, Meaning("electrodes that move: steps, pops, slow recoveries")] = 0.0
    baseline: Annotated[Weight, Meaning("a baseline that wanders, with breathing and posture")] = 0.0
    mains: Annotated[Weight, Meaning("50 or 60 Hz; with fs_hz 500 only")] = 0.0
    baseline_drift: Annotated[Weight, Meaning("recorded from donors in whom a reader saw baseline drift")] = 0.0
    static_noise: Annotated[Weight, Meaning("recorded from donors in whom a reader saw static noise: muscles, mains")] = 0.0
    burst_noise: Annotated[Weight, Meaning("recorded from donors in whom a reader saw bursts of noise")] = 0.0
    electrodes_problems: Annotated[Weight, Meaning("recorded from donors in whom a reader saw problems of electrodes")] = 0.0
    lead_off: Annotated[Weight, Meaning("an electrode off: its leads are flat, or noise without beats")] = 0.0
    swapped: Annotated[Weight, Meaning("the electrodes of both arms exchanged; in records of 10 s only")] = 0.0
    clipped: Annotated[Weight, Meaning("a converter whose range is too small")] = 0.0


@dataclass(frozen=True)
class AskedNoise:
    """Noise that is added to finished records; {} takes the defaults."""

    snr_db: drawn(*SNR_LIMITS_DB, "beats to noise, dB; left out: uniform from 0 to 24, in long records to 18") | None = None
    kinds: Annotated[AskedKinds, Meaning("which kinds come, as weights; left out: all of models, and all faults")] | None = None
    length_s: (
        drawn(*NOISE_LIMITS_S, "how long noise lasts, s; left out: all of a record of 10 s, 5 to 60 s in long records") | None
    ) = None
    per_hour: Annotated[float, Range(0.01, 360, "how often noise comes in long records, times an hour; left out: 8")] | None = None


USUAL_KINDS = AskedKinds(muscle=1, electrode=0.7, baseline=0.7, mains=0.5, lead_off=0.05, swapped=0.02, clipped=0.05)
USUAL_SNR_DB = {False: Distribution(0.0, 24.0), True: Distribution(0.0, 18.0)}  # of long records: docs/evidence/noise.md
USUAL_LENGTH_S = Distribution(5.0, 60.0)
USUAL_PER_HOUR = 8.0


def _or_none(low: float, high: float, meaning: str):
    words = f"a number from {low:g} to {high:g}, or none"
    return Annotated[Annotated[float, Range(low, high)] | Literal["none"], Needs(words), Meaning(meaning)]


@dataclass(frozen=True, kw_only=True)
class AskedRequest(Request):
    """A request as its file has it."""

    prd_limit_pct: _or_none(0.1, 100, "no record differs more from its skeleton, percent; its texture is scaled down") = "none"
    lowpass_hz: _or_none(1, 250, "edge of the low-pass, below half of fs_hz; left out, long records at 100 Hz have 47") = "none"
    donor_folds: Folds = field(default_factory=lambda: list(range(1, 9)))
    mix: AskedMix | None = None
    cohort: AskedCohort | None = None
    rhythm: AskedRhythm | None = None
    noise: AskedNoise | None = None
    events: AskedEvents | None = None
    vary: AskedVary | None = None
    start_hour: None = field(default=None, init=False)  # below rhythm
    source: str = field(default="", init=False)
    places_table: None = field(default=None, init=False)  # events.table
    places: None = field(default=None, init=False)


# From file to request -------------------------------------------------------------------------------------------------


def load_request(path: Path, overrides: Sequence[str] = ()) -> Request:
    """Read and check a request file. overrides: "key=value", dotted for nested keys (mix.hr_bpm=70), values as YAML.

    Paths inside, also those of overrides, are relative to the file. Raises UserError naming file and key.
    """
    return parse_request(read_settings(path, "the request", overrides), Path(path).resolve().parent)


def parse_request(written: Written, folder: Path) -> Request:
    """Check the keys of a request. folder: what its paths are relative to."""
    refuse_odd_events(written)
    asked = written.checked(AskedRequest)
    _refuse_unclear(asked, written)
    long = asked.is_long
    rhythm = {**vars(asked.rhythm or AskedRhythm())}
    start_hour = rhythm.pop("start_hour")
    rhythm["order"] = rhythm["order"] or ("rules" if asked.events else "mamba")
    options = {key: value if value and any(vars(value).values()) else None
               for key, value in (("variation", asked.variation), ("judge", asked.judge))}  # fmt: skip
    request = Request(
        **vars(asked)
        | _sizes(asked, written.values)
        | options
        | {
            "prd_limit_pct": None if asked.prd_limit_pct == "none" else asked.prd_limit_pct,
            "lowpass_hz": _lowpass_hz(asked, written.values),
            "donor_folds": _folds(asked.donor_folds, written),
            "bank": _path(asked.bank, "bank", written, folder),
            "models": _path(asked.models, "models", written, folder),
            "table": _path(asked.table, "table", written, folder) if asked.table is not None else None,
            "mix": _mix(asked.mix, written) if asked.mix else None,
            "cohort": _cohort(asked.cohort, written) if asked.cohort else None,
            "noise": _noise(asked, written) if asked.noise else None,
            "events": checked_events(asked.events, written) if asked.events else None,
            "places_table": _path(asked.events.table, "table", written, folder, "events")
            if asked.events and asked.events.table is not None
            else None,
            "vary": vary_of(asked.vary, written) if asked.vary else None,
            "rhythm": RhythmParameters(**rhythm) if long else None,
            "start_hour": start_hour if long else None,
            "source": written.source,
        }
    )
    _refuse_contradictions(request, written)
    return request


def _refuse_unclear(asked: AskedRequest, written: Written) -> None:
    """What to make, and how many, must be said once."""
    what = [key for key in WHAT if getattr(asked, key) is not None]
    if len(what) != 1:
        raise written.error(
            tuple(what[-1:]),
            f"found {' and '.join(what) or 'none'} of {', '.join(WHAT)}; exactly one says what to make: a mix of labels, "
            "a table with a row per record, a cohort like the donors" + ("; --set mix=null drops the mix" if "mix" in what else ""),
        )
    if asked.records is None and asked.table is None:
        raise written.error((), f"records is missing: a {what[0]} has no length of its own; add for example 'records: 2048'")


def _refuse_contradictions(request: Request, written: Written) -> None:
    if request.lowpass_hz is not None and request.lowpass_hz >= request.fs_hz / 2:
        raise written.error(
            ("lowpass_hz",),
            f"lowpass_hz is {request.lowpass_hz:g}; at fs_hz {request.fs_hz} there is nothing above "
            f"{request.fs_hz / 2:g} Hz. Use 40, the published value, or none",
        )
    if request.texture == "units":
        _refuse_with_units(request, written)
    for key in {"rhythm", "events"} & set(written.values) if not request.is_long else ():
        raise written.error(
            (key,),
            f"{key} is given, but a record of {request.duration_s} s keeps its donor's own rhythm. Ask for a duration_s "
            f"over {LOOP_S}, or leave {key} out",
        )
    if request.is_long:
        _refuse_in_long_records(request, written)
    if request.vary:
        refuse_with_vary(request, written)
    step = math.lcm(request.batch, CHUNK_RECORDS)
    if not request.is_streamed and request.shard % step:
        raise written.error(
            ("shard",),
            f"shard is {request.shard}; it must be a multiple of batch ({request.batch}) and of the chunk "
            f"({CHUNK_RECORDS}), so that no batch crosses a shard. Use {-(-request.shard // step) * step}",
        )


def _refuse_with_units(request: Request, written: Written) -> None:
    for key, what in (("judge", "moves the latent of a decoded texture"), ("device", "is a GPU's, which decodes texture")):
        if getattr(request, key) not in (None, "cpu"):
            raise written.error(
                (key,),
                f"{key} {what}, but texture is units, which is recorded and not decoded. Leave {key} out, or say texture: decoded",
            )


def _refuse_in_long_records(request: Request, written: Written) -> None:
    if request.is_streamed and request.shard != request.batch:
        raise written.error(
            ("shard",),
            f"shard is {request.shard} and batch {request.batch}; of records over {MINUTE_S} s a shard is what one "
            "batch decodes, since all its records grow at the same time. Leave shard out",
        )
    rhythm = request.rhythm
    if rhythm.fibrillation_short_refractory_s > rhythm.fibrillation_long_refractory_s:
        raise written.error(
            ("rhythm", "fibrillation_short_refractory_s"),
            f"rhythm.fibrillation_short_refractory_s is {rhythm.fibrillation_short_refractory_s:g}, over "
            f"fibrillation_long_refractory_s, {rhythm.fibrillation_long_refractory_s:g}; exchange them",
        )
    differing = [name for name in OF_RULES if getattr(rhythm, name) != getattr(RhythmParameters(), name)]
    with_events = request.events or request.places_table
    if rhythm.order == "mamba" and with_events:
        raise written.error(
            ("rhythm", "order"),
            "rhythm.order is mamba, but with events rules say which beat comes, so that patients differ as widely as events do. "
            "Leave order out, or events",
        )
    if rhythm.order == "mamba" and differing:
        raise written.error(
            ("rhythm", differing[0]),
            f"rhythm.{differing[0]} is of the rules that say which beat comes, but rhythm.order is mamba, a model that has learnt "
            "it from recordings. Leave the key out, or say order: rules",
        )
    if with_events and (idle := [name for name in differing if name in OF_ECTOPIC]):
        raise written.error(
            ("rhythm", idle[0]),
            f"rhythm.{idle[0]} says how a donor's ectopic beats come, but where there are events the habits of a patient do, which "
            "are drawn. Leave the key out, or events",
        )
    if request.mix and request.mix.hr_bpm:
        _refuse_rate(request, written)
    for option in ("variation", "judge"):
        if getattr(request, option):
            raise written.error(
                (option,),
                f"{option} is given, but records over {LOOP_S} s vary by breathing, posture and the rhythm model, and are too "
                "long for the judge. Leave it out",
            )
    if request.is_streamed and request.format != "zarr":
        raise written.error(
            ("format",),
            f"format is {request.format}; records over {MINUTE_S} s are written by the minute, into Zarr alone. Leave "
            "format out; ecg-batch export makes WFDB of them",
        )


def _refuse_rate(request: Request, written: Written) -> None:
    """The rhythm model needs room between the shortest and the longest RR."""
    low, high = rate_limits_bpm(request.rhythm)
    asked = request.mix.hr_bpm
    if asked.low < low or asked.high > high:
        raise written.error(
            ("mix", "hr_bpm"),
            f"mix.hr_bpm reaches from {asked.low:g} to {asked.high:g}; the mean of a long record may be "
            f"{low:.0f} to {high:.0f} bpm, so that its beats can vary between the shortest RR "
            f"({request.rhythm.rr_low_s:g} s) and the longest ({request.rhythm.rr_high_s:g} s). Narrow mix.hr_bpm (within: ...)",
        )


# Keys whose form in the file is another -------------------------------------------------------------------------------


def _sizes(asked: AskedRequest, given: dict) -> dict[str, int]:
    """Batch and shard, by default such that what a process holds of them does not grow with the duration."""
    if not asked.is_long:
        return {}
    batch = (
        asked.batch if "batch" in given else min(LONG_BATCH, asked.records or LONG_BATCH) if asked.is_streamed else CHUNK_RECORDS
    )
    shard = batch if asked.is_streamed else 8 * math.lcm(batch, CHUNK_RECORDS)
    return {"batch": batch, "shard": asked.shard if "shard" in given else shard}


def _lowpass_hz(asked: AskedRequest, given: dict) -> float | None:
    """None is no low-pass."""
    if "lowpass_hz" not in given:
        return asked.usual_lowpass_hz
    return None if asked.lowpass_hz == "none" else asked.lowpass_hz


def _path(value: str, key: str, written: Written, folder: Path, *above: str) -> str:
    if value == "bundled" and key != "table":
        return str(BUNDLED)
    try:
        return str((folder / Path(value).expanduser()).resolve())
    except (OSError, RuntimeError):  # ~nobody, a home that is not known, a loop of links
        words = f"{dotted((*above, key))} is {shown(value)}, which leads nowhere on this machine; needed a path, relative to the "
        words += "request file"
        raise written.error((*above, key), words) from None


def _folds(asked: int | list[int], written: Written) -> tuple[int, ...]:
    folds = asked if isinstance(asked, list) else [asked]
    if not folds:
        raise written.error(("donor_folds",), "donor_folds is []; needed a list of PTB-XL folds from 1 to 10, as [1, 2, 3]")
    return tuple(sorted(set(folds)))


def _mix(asked: AskedMix, written: Written) -> Mix:
    sex = asked.sex if isinstance(asked.sex, dict | None) else {asked.sex: 1.0}
    if unknown := set(sex or ()) - {"female", "male"}:
        raise written.error(("mix", "sex", min(unknown)), f"unknown key 'mix.sex.{min(unknown)}'; known keys: female, male")
    mix = Mix(
        labels=_shares(asked.labels, ("mix", "labels"), written),
        hr_bpm=distribution(asked.hr_bpm, HR_LIMITS_BPM, ("mix", "hr_bpm"), written),
        age=distribution(asked.age, AGE_LIMITS, ("mix", "age"), written),
        female=None if sex is None else dict(_shares(sex, ("mix", "sex"), written)).get("female", 0.0),
    )
    for label, _ in mix.labels:
        if mix.hr_bpm and mix.hr_bpm_of(label) is None:
            raise written.error(
                ("mix", "hr_bpm"),
                f"mix.hr_bpm has no value for label {label}: {rate_rule(label)}, the request allows "
                f"{mix.hr_bpm.low:g} to {mix.hr_bpm.high:g}. Widen mix.hr_bpm or drop {label} from mix.labels",
            )
    return mix


def _cohort(asked: AskedCohort, written: Written) -> Cohort:
    labels = None if asked.labels is None else _shares(asked.labels, ("cohort", "labels"), written)
    return Cohort(labels, asked.hr_spread)


def _noise(asked: AskedRequest, written: Written) -> Noise:
    noise, long = asked.noise, asked.is_long
    if noise.per_hour is not None and not long:
        raise written.error(
            ("noise", "per_hour"),
            f"noise.per_hour is given, but a record of {asked.duration_s} s has noise once. Ask for a duration_s over {LOOP_S}, or "
            "say with noise.length_s how much of the record is noisy",
        )
    length_s = distribution(noise.length_s, NOISE_LIMITS_S, ("noise", "length_s"), written)
    return Noise(
        snr_db=distribution(noise.snr_db, SNR_LIMITS_DB, ("noise", "snr_db"), written) or USUAL_SNR_DB[long],
        kinds=_kinds(asked, written),
        length_s=length_s or (USUAL_LENGTH_S if long else None),
        per_hour=(USUAL_PER_HOUR if noise.per_hour is None else float(noise.per_hour)) if long else None,
    )


def _kinds(asked: AskedRequest, written: Written) -> tuple[tuple[str, float], ...]:
    """Weights as shares of 1, sorted by name. What a record cannot have is refused where it is named, and else left out."""
    weights = vars(asked.noise.kinds or USUAL_KINDS)
    never = {"mains": asked.fs_hz == 100, "swapped": asked.is_long}
    why = {"mains": "at fs_hz 100 nothing is left of it: recorders take away what is above 45 Hz before they sample so slowly. "
                    "Leave it out, or use a bank of 500 Hz",
           "swapped": "electrodes are exchanged for all of a recording, and long records have noise in episodes. "
                      "Leave it out"}  # fmt: skip
    held = {name: weight for name, weight in weights.items() if weight}
    for name in [name for name in held if never.get(name)]:
        if asked.noise.kinds:
            raise written.error(("noise", "kinds", name), f"noise.kinds.{name} is {held[name]:g}, but {why[name]}")
        del held[name]
    if not held:
        words = f"noise.kinds has no kind with a weight; needed one or more of {', '.join(weights)}"
        raise written.error(("noise", "kinds"), words)
    if asked.noise.snr_db is not None and not set(held) & set(ADDED):
        raise written.error(
            ("noise", "snr_db"),
            f"noise.snr_db is given, but nothing is added to the beats: noise.kinds has none of {', '.join(ADDED)}. Leave snr_db "
            "out, or name one of them",
        )
    return parts_of_one(held)


def _shares(shares: dict[str, float], key: Key, written: Written) -> tuple[tuple[str, float], ...]:
    """parts_of_one. UserError where they do not sum to 1."""
    total = math.fsum(shares.values())
    if abs(total - 1) > SHARE_TOLERANCE:
        raise written.error(key, f"{dotted(key)} sums to {total:g}, not 1: a share may be missing or mistyped. Change the shares")
    return parts_of_one(shares)
