"""The request file: YAML read and checked key by key before anything else runs. Every message names file and key."""

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from ecg_batch.errors import UserError
from ecg_batch.files import read_yaml
from ecg_batch.request import (
    AGE_LIMITS,
    BUNDLED,
    CHUNK_RECORDS,
    HR_LIMITS_BPM,
    LOOP_S,
    MINUTE_S,
    Cohort,
    Distribution,
    Mix,
    Refinement,
    Request,
    Variation,
)
from ecg_batch.rhythm_parameters import RhythmParameters, parse_rhythm, rate_limits_bpm
from ecg_batch.statements import rate_rule

# key: (type, lowest, highest, default); None as default = must be stated
NUMBERS = {
    "records": (int, 1, 10**9, None),
    "duration_s": (int, LOOP_S, 86_400, LOOP_S),
    "fs_hz": (int, 1, 1000, 100),
    "seed": (int, 0, 2**63 - 1, 0),
    "alpha": (float, 0.0, 2.0, 0.6),
    "k": (int, 1, 100, 8),
    "batch": (int, 1, 65_536, 256),  # for 10 s records: see _sizes
    "shard": (int, 1, 2**20, 4096),
    "prd_limit_pct": (float, 0.1, 100.0, 10.0),
    "lowpass_hz": (float, 1.0, 250.0, 40.0),
    "attempts": (int, 1, 100, 4),
    "temperature": (float, 0.01, 10.0, 1.0),
}
FORMATS = ("zarr", "hdf5")
# options inside a key of their own, same form; left out = off
VARIATION = {"rr_cv": (float, 0.0, 0.2, 0.0), "axis_deg": (float, 0.0, 20.0, 0.0), "electrode": (float, 0.0, 0.4, 0.0),
             "gain_sd": (float, 0.0, 0.25, 0.0), "blend": (float, 0.0, 0.5, 0.0)}  # fmt: skip
JUDGE = {"steps": (int, 0, 40, 20), "below": (float, 0.0, 1.0, 0.5)}
OPTIONS = ("batch_on_oom", "format", "rhythm", "variation", "judge")
WHAT = ("mix", "table", "cohort")  # exactly one of them says what to make
OTHERS = ("donor_folds", "device", "bank", "models", *WHAT, *OPTIONS)
KNOWN = tuple(sorted((*NUMBERS, *OTHERS)))
MIX_KEYS = ("age", "hr_bpm", "labels", "sex")
COHORT_KEYS = ("hr_spread", "labels")
HR_SPREAD = (float, 0.0, 0.5, Cohort().hr_spread)
LONG_BATCH = 32  # records that are decoded together, a minute of each at a time
SHARE_TOLERANCE = 1e-3  # thirds written as 0.333 still count as a whole


def load_request(path: Path, overrides: Sequence[str] = ()) -> Request:
    """Read and check a request file. overrides: "key=value", dotted for nested keys (mix.hr_bpm=70), values as YAML.

    Paths inside, also those of overrides, are relative to the file. Raises UserError naming file and key.
    """
    raw = read_yaml(path, "the request", KNOWN)
    for override in overrides:
        _override(raw, override)
    source = str(path) + (f" with --set {' '.join(overrides)}" if overrides else "")
    return parse_request(raw, source, Path(path).resolve().parent)


def _override(raw: dict, override: str) -> None:
    import yaml

    key, equals, value = override.partition("=")
    if not (key and equals):
        raise UserError(f"--set {override}: needed key=value, for example --set records=100 or --set mix.hr_bpm=70")
    *parents, last = key.split(".")
    for parent in parents:
        raw[parent] = dict(raw[parent]) if isinstance(raw.get(parent), dict) else {}
        raw = raw[parent]
    try:
        raw[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {override}: '{value}' is not a YAML value; quote it for the shell") from None


def parse_request(raw: Mapping, source: str, folder: Path) -> Request:
    """Check the keys of a request. source: what to call it in messages; folder: what its paths are relative to."""
    raw = {key: value for key, value in raw.items() if value is not None}
    _refuse_unknown(raw, KNOWN, source)
    numbers = {key: _number(raw.get(key, rule[3]), *rule[:3], key, source) for key, rule in NUMBERS.items()}
    numbers |= _sizes(raw, numbers)
    rhythm, start_hour = _rhythm(raw.get("rhythm"), numbers["duration_s"], source)
    what = [key for key in WHAT if key in raw]
    if len(what) != 1:
        raise UserError(
            f"{source}: found {' and '.join(what) or 'none'} of {', '.join(WHAT)}; exactly one says what to make: a mix of labels, "
            "a table with a row per record, a cohort like the donors" + ("; --set mix=null drops the mix" if "mix" in raw else "")
        )
    if numbers["records"] is None and "table" not in raw:
        raise UserError(f"{source}: records is missing: a {what[0]} has no length of its own; add for example 'records: 2048'")
    request = Request(
        **numbers,
        donor_folds=_folds(raw.get("donor_folds", list(range(1, 9))), source),
        device=_choice(raw.get("device", "cpu"), ("cpu", "cuda"), "device", source),
        format=_choice(raw.get("format", "zarr"), FORMATS, "format", source),
        bank=_path(raw.get("bank", "bundled"), "bank", source, folder),
        models=_path(raw.get("models", "bundled"), "models", source, folder),
        batch_on_oom=_choice(raw.get("batch_on_oom", "fail"), ("fail", "halve"), "batch_on_oom", source),
        mix=_mix(raw["mix"], source) if "mix" in raw else None,
        table=_path(raw["table"], "table", source, folder) if "table" in raw else None,
        source=source,
        cohort=_cohort(raw["cohort"], source) if "cohort" in raw else None,
        rhythm=rhythm,
        start_hour=start_hour,
        variation=_options(raw, "variation", VARIATION, Variation, source),
        judge=_options(raw, "judge", JUDGE, Refinement, source),
    )
    _refuse_contradictions(request)
    return request


def _refuse_contradictions(request: Request) -> None:
    source = request.source
    _choice(request.fs_hz, (100, 500), "fs_hz", source)
    if request.lowpass_hz >= request.fs_hz / 2:
        raise UserError(
            f"{source}: lowpass_hz is {request.lowpass_hz:g}; at fs_hz {request.fs_hz} there is nothing above "
            f"{request.fs_hz / 2:g} Hz. Use 40, the published value"
        )
    if request.is_streamed and request.shard != request.batch:
        raise UserError(
            f"{source}: shard is {request.shard} and batch {request.batch}; of records over {MINUTE_S} s a shard is what one "
            "batch decodes, since all its records grow at the same time. Leave shard out"
        )
    if request.is_long and request.mix and request.mix.hr_bpm:
        _refuse_rate(request)
    if request.is_long and (request.variation or request.judge):
        raise UserError(
            f"{source}: {'variation' if request.variation else 'judge'} is given, but records over {LOOP_S} s vary by breathing, "
            "posture and the rhythm model, and are too long for the judge. Leave it out"
        )
    if request.is_streamed and request.format != "zarr":
        raise UserError(
            f"{source}: format is {request.format}; records over {MINUTE_S} s are written by the minute, into Zarr alone. Leave "
            "format out; jobs/export.py makes WFDB of them"
        )
    step = math.lcm(request.batch, CHUNK_RECORDS)
    if not request.is_streamed and request.shard % step:
        raise UserError(
            f"{source}: shard is {request.shard}; it must be a multiple of batch ({request.batch}) and of the chunk "
            f"({CHUNK_RECORDS}), so that no batch crosses a shard. Use {-(-request.shard // step) * step}"
        )


def _sizes(raw: Mapping, numbers: dict) -> dict[str, int]:
    """Batch and shard, by default such that what a process holds of them does not grow with the duration."""
    if numbers["duration_s"] <= LOOP_S:
        return {}
    streamed = numbers["duration_s"] > MINUTE_S
    batch = numbers["batch"] if "batch" in raw else min(LONG_BATCH, numbers["records"] or LONG_BATCH) if streamed else CHUNK_RECORDS
    shard = batch if streamed else 8 * math.lcm(batch, CHUNK_RECORDS)
    return {"batch": batch, "shard": numbers["shard"] if "shard" in raw else shard}


def _rhythm(raw, duration_s: int, source: str) -> tuple[RhythmParameters | None, float | None]:
    """The rhythm model's parameters and the time of day at which records begin; None for what a request does not need or say."""
    if duration_s <= LOOP_S:
        if raw is not None:
            raise UserError(
                f"{source}: rhythm is given, but a record of {duration_s} s keeps its donor's own rhythm. Ask for a duration_s "
                f"over {LOOP_S}, or leave rhythm out"
            )
        return None, None
    if not isinstance(raw, Mapping) or raw.get("start_hour") is None:
        return parse_rhythm(raw, source), None
    start_hour = _number(raw["start_hour"], float, 0.0, 24.0, "rhythm.start_hour", source)
    return parse_rhythm({key: value for key, value in raw.items() if key != "start_hour"}, source), start_hour


def _refuse_rate(request: Request) -> None:
    """The rhythm model needs room between the shortest and the longest RR."""
    low, high = rate_limits_bpm(request.rhythm)
    asked = request.mix.hr_bpm
    if asked.low < low or asked.high > high:
        raise UserError(
            f"{request.source}: mix.hr_bpm reaches from {asked.low:g} to {asked.high:g}; the mean of a long record may be "
            f"{low:.0f} to {high:.0f} bpm, so that its beats can vary between the shortest RR "
            f"({request.rhythm.rr_low_s:g} s) and the longest ({request.rhythm.rr_high_s:g} s). Narrow mix.hr_bpm (within: ...)"
        )


def _refuse_unknown(raw: Mapping, known: Sequence[str], source: str, inside: str = "") -> None:
    for key in raw:
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"{source}: unknown key '{inside}{key}'{hint}; known keys: {', '.join(known)}")


def _number(value, kind: type, low: float, high: float, key: str, source: str):
    """An int or float within [low, high]. Only records may be None. A bool is no number, whatever Python says."""
    if value is None and key == "records":
        return None
    kinds = int if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        word = "a whole number" if kind is int else "a number"
        hint = " (YAML reads 1e6 as text: write 1000000)" if isinstance(value, str) else ""
        raise UserError(f"{source}: {key} is {value!r}; needed {word} from {low:g} to {high:g}{hint}")
    if not low <= value <= high:
        raise UserError(f"{source}: {key} is {value:g}, outside {low:g} to {high:g}; choose a value in that range")
    return kind(value)


def _options(raw: Mapping, key: str, rules: dict, kind: type, source: str):
    """The options below a key as a dataclass, or None where the key is absent or switches nothing on."""
    given = raw.get(key)
    if given is None:
        return None
    if not isinstance(given, dict):
        raise UserError(f"{source}: {key} is {given!r}; needed options below it: {', '.join(rules)}")
    _refuse_unknown(given, tuple(rules), source, f"{key}.")
    values = {name: _number(given.get(name, rule[3]), *rule[:3], f"{key}.{name}", source) for name, rule in rules.items()}
    return kind(**values) if any(values.values()) else None


def _choice(value, allowed: Sequence, key: str, source: str):
    if isinstance(value, bool) or value not in allowed:
        raise UserError(f"{source}: {key} is {value!r}; choose one of {', '.join(map(str, allowed))}")
    return value


def _path(value, key: str, source: str, folder: Path) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{source}: {key} is {value!r}; needed a path, relative to the request file")
    if value == "bundled" and key != "table":
        return str(BUNDLED)
    return str((folder / Path(value).expanduser()).resolve())


def _folds(value, source: str) -> tuple[int, ...]:
    folds = value if isinstance(value, list) else [value]
    if not folds or any(isinstance(fold, bool) or fold not in range(1, 11) for fold in folds):
        raise UserError(f"{source}: donor_folds is {value!r}; needed a list of PTB-XL folds from 1 to 10, as [1, 2, 3]")
    return tuple(sorted(set(folds)))


def _mix(raw, source: str) -> Mix:
    if not isinstance(raw, dict):
        raise UserError(f"{source}: mix is {raw!r}; needed keys below it: {', '.join(MIX_KEYS)}")
    raw = {key: value for key, value in raw.items() if value is not None}
    _refuse_unknown(raw, MIX_KEYS, source, "mix.")
    mix = Mix(
        labels=_shares(raw.get("labels"), "mix.labels", "{NORM: 0.7, MI: 0.3}", source),
        hr_bpm=_distribution(raw.get("hr_bpm"), HR_LIMITS_BPM, "mix.hr_bpm", source),
        age=_distribution(raw.get("age"), AGE_LIMITS, "mix.age", source),
        female=_female(raw.get("sex"), source),
    )
    for label, _ in mix.labels:
        if mix.hr_bpm and mix.hr_bpm_of(label) is None:
            raise UserError(
                f"{source}: mix.hr_bpm has no value for label {label}: {rate_rule(label)}, the request allows "
                f"{mix.hr_bpm.low:g} to {mix.hr_bpm.high:g}. Widen mix.hr_bpm or drop {label} from mix.labels"
            )
    return mix


def _cohort(raw, source: str) -> Cohort:
    if not isinstance(raw, dict):
        raise UserError(f"{source}: cohort is {raw!r}; needed keys below it: {', '.join(COHORT_KEYS)}, or {{}} for the defaults")
    _refuse_unknown(raw, COHORT_KEYS, source, "cohort.")
    labels = None if raw.get("labels") is None else _shares(raw["labels"], "cohort.labels", "{AFIB: 0.5, CLBBB: 0.5}", source)
    return Cohort(labels, _number(raw.get("hr_spread", HR_SPREAD[3]), *HR_SPREAD[:3], "cohort.hr_spread", source))


def _shares(raw, key: str, example: str, source: str) -> tuple[tuple[str, float], ...]:
    """Shares that sum to 1, sorted by name, so that the order in the file changes nothing. Zero shares are dropped."""
    if not isinstance(raw, dict) or not raw:
        raise UserError(f"{source}: {key} is {raw!r}; needed shares that sum to 1, for example {example}")
    shares = {str(name): _number(share, float, 0.0, 1.0, f"{key}.{name}", source) for name, share in raw.items()}
    total = math.fsum(shares.values())
    if abs(total - 1) > SHARE_TOLERANCE:
        raise UserError(f"{source}: {key} sums to {total:g}, not 1: a share may be missing or mistyped. Change the shares")
    return tuple((name, shares[name] / total) for name in sorted(shares) if shares[name] > 0)


def _female(raw, source: str) -> float | None:
    if raw is None:
        return None
    if isinstance(raw, dict):
        _refuse_unknown(raw, ("female", "male"), source, "mix.sex.")
        return dict(_shares(raw, "mix.sex", "{female: 0.5, male: 0.5}", source)).get("female", 0.0)
    return float(_choice(raw, ("female", "male"), "mix.sex", source) == "female")


def _distribution(raw, limits: tuple[float, float], key: str, source: str) -> Distribution | None:
    """A number, {uniform: [low, high]} or {normal: [mean, sd], within: [low, high]}; limits where it is absent."""
    if raw is None:
        return None
    if not isinstance(raw, dict):
        value = _number(raw, float, *limits, key, source)
        return Distribution(value, value)
    if set(raw) == {"uniform"}:
        return Distribution(*_interval(raw["uniform"], limits, f"{key}.uniform", source))
    if set(raw) not in ({"normal"}, {"normal", "within"}):
        raise UserError(
            f"{source}: {key} is {raw!r}; needed a number, {{uniform: [low, high]}} or {{normal: [mean, sd], within: [low, high]}}"
        )
    low, high = _interval(raw.get("within", list(limits)), limits, f"{key}.within", source)
    mean, sd = _pair(raw["normal"], f"{key}.normal", source)
    mean = _number(mean, float, *limits, f"{key}.normal mean", source)
    sd = _number(sd, float, 0.001, 1000.0, f"{key}.normal sd", source)
    cut = Distribution(low, high, mean, sd).within(low, high)
    if cut is None:
        raise UserError(f"{source}: {key}: normal [{mean:g}, {sd:g}] has next to nothing within [{low:g}, {high:g}]; widen it")
    return cut


def _pair(raw, key: str, source: str) -> list:
    if not isinstance(raw, list) or len(raw) != 2:
        raise UserError(f"{source}: {key} is {raw!r}; needed two numbers in brackets, for example [60, 80]")
    return raw


def _interval(raw, limits: tuple[float, float], key: str, source: str) -> tuple[float, float]:
    low, high = (_number(value, float, *limits, key, source) for value in _pair(raw, key, source))
    if low > high:
        raise UserError(f"{source}: {key} is [{low:g}, {high:g}]; the lower number comes first: [{high:g}, {low:g}]")
    return low, high
