"""Vary, as a request file has it: lists of values that make each record several times, alike in all else."""

from dataclasses import dataclass
from typing import Annotated

from ecg_batch.keys import Meaning, Needs, Range
from ecg_batch.request.model import (
    ADDED,
    ALPHA_LIMITS,
    ELECTRODE_LIMITS,
    HR_LIMITS_BPM,
    SNR_LIMITS_DB,
    TURN_LIMITS_DEG,
    VARIED,
    Request,
    Vary,
)
from ecg_batch.settings import Written
from ecg_batch.statements import rate_range_bpm, rate_rule

LARGEST_SET = 64


def _values(low: float, high: float, meaning: str):
    words = f"a list of numbers from {low:g} to {high:g}, as [{max(low, 0):g}, {high:g}]"
    return Annotated[list[Annotated[float, Range(low, high)]], Needs(words), Meaning(meaning)]


@dataclass(frozen=True)
class AskedVary:
    """Each record several times, once for each combination of these values, and alike in all else."""

    hr_bpm: _values(*HR_LIMITS_BPM, "heart rates, bpm: one donor's beats at each") | None = None
    snr_db: _values(*SNR_LIMITS_DB, "beats to noise, dB: the same noise, scaled") | None = None
    alpha: _values(*ALPHA_LIMITS, "shares of texture") | None = None
    axis_deg: _values(*TURN_LIMITS_DEG, "by how many degrees the heart is turned, about an axis drawn by set") | None = None
    electrode: _values(*ELECTRODE_LIMITS, "how far chest electrodes sit toward a neighbour's place") | None = None


def vary_of(asked: AskedVary, written: Written) -> Vary:
    """UserError where it varies nothing, or more than a set may hold."""
    given = {name: getattr(asked, name) for name in VARIED if getattr(asked, name) is not None}
    if not given:
        raise written.error(("vary",), f"vary names nothing; needed one or more of {', '.join(VARIED)}, each with a list of values")
    for name, values in given.items():
        if len(values) < 2:
            one = f"{values[0]:g}" if values else ""
            raise written.error(("vary", name), f"vary.{name} is [{one}]; needed two values or more, in which records then differ")
        if twice := [value for at, value in enumerate(values) if value in values[:at]]:
            raise written.error(("vary", name), f"vary.{name} names {twice[0]:g} twice; name each value once")
    vary = Vary(tuple((name, tuple(map(float, values))) for name, values in given.items()))
    if vary.size > LARGEST_SET:
        grid = " x ".join(str(len(values)) for values in given.values())
        raise written.error(("vary",), f"vary makes sets of {grid} = {vary.size} records; needed {LARGEST_SET} or fewer. Name "
                            "fewer values")  # fmt: skip
    return vary


def refuse_with_vary(request: Request, written: Written) -> None:
    """What contradicts what is varied."""
    if request.texture != "units":
        raise written.error(("vary",), f"vary is given, but texture is {request.texture}, which is made for a batch of records "
                            "whether they are a set or not. Say texture: units, or leave vary out")  # fmt: skip
    said_twice = {"hr_bpm": ("mix", "hr_bpm"), "snr_db": ("noise", "snr_db"), "alpha": ("alpha",),
                  "axis_deg": ("variation", "axis_deg"), "electrode": ("variation", "electrode")}  # fmt: skip
    for name, key in said_twice.items():
        if request.vary.of(name) and _is_written(written.values, key):
            raise written.error(key, f"{'.'.join(key)} is given, and vary.{name} as well; a record has one of them. Leave one out")
    if request.vary.of("hr_bpm"):
        _refuse_with_rates(request, written)
    if request.vary.of("snr_db"):
        _refuse_without_noise(request, written)
    for name in ("axis_deg", "electrode"):
        if request.vary.of(name) and request.is_long:
            raise written.error(("vary", name), f"vary.{name} is given, but in records over 10 s breathing and posture move the "
                                "heart. Leave it out")  # fmt: skip
    if request.records is not None and request.records % request.vary.size:
        raise written.error(("records",), f"records is {request.records:,}, but vary makes sets of {request.vary.size} records, "
                            f"none of which is cut. Ask for {whole_sets_near(request.records, request.vary.size)}")  # fmt: skip


def whole_sets_near(records: int, size: int) -> str:
    """The numbers of records below and above that are whole sets, in words."""
    below = records // size * size
    return " or ".join(f"{number:,}" for number in (below, below + size) if number)


def _is_written(values: dict, key: tuple[str, ...]) -> bool:
    for name in key:
        if not isinstance(values, dict) or values.get(name) is None:
            return False
        values = values[name]
    return True


def _refuse_with_rates(request: Request, written: Written) -> None:
    key = ("vary", "hr_bpm")
    if request.is_long:
        raise written.error(key, "vary.hr_bpm is given, but at another rate a record over 10 s has other beats, ectopic ones at "
                            "other places. Vary the rate of records of 10 s, or other things of long ones")  # fmt: skip
    if request.cohort:
        raise written.error(key, "vary.hr_bpm is given, but a cohort asks for rates as its donors have them. Ask with a mix or a "
                            "table, or leave vary.hr_bpm out")  # fmt: skip
    for label, _ in request.mix.labels if request.mix else ():
        if odd := rate_against(request.vary, label):
            raise written.error(key, f"vary.hr_bpm has {odd:g}, but {rate_rule(label)}. Leave the one or the other out")


def rate_against(vary: Vary, label: str) -> float | None:
    """The first of the rates that a label cannot have."""
    low, high = rate_range_bpm(label)
    return next((rate for rate in vary.of("hr_bpm") if not low <= rate <= high), None)


def _refuse_without_noise(request: Request, written: Written) -> None:
    key = ("vary", "snr_db")
    if request.noise is None:
        raise written.error(key, "vary.snr_db is given, but no noise is asked for. Add noise: {}, or leave vary.snr_db out")
    if not {name for name, _ in request.noise.kinds} & set(ADDED):
        raise written.error(key, f"vary.snr_db is given, but nothing is added to the beats: noise.kinds has none of "
                            f"{', '.join(ADDED)}. Leave vary.snr_db out, or name one of them")  # fmt: skip
