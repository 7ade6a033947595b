"""Requests: whatever a request file or --set holds, it is refused in words or asks for what YAML's plain reading says."""

import math
import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import yaml
from fakes import CODES, open_nothing
from fuzzing import Refused, answer, changed_text, changed_value, examples, pieces
from hypothesis import example, given
from hypothesis import strategies as st

from ecg_batch.bundled import BUNDLED
from ecg_batch.cli.synthesize import synthesize_job
from ecg_batch.request.model import Request, Variation
from ecg_batch.request.parse import AskedRequest, load_request
from ecg_batch.request.rhythm_parameters import RhythmParameters
from ecg_batch.settings import schema

pytestmark = pytest.mark.slow

MIX = {"labels": {"NORM": 0.5, "AFIB": 0.3, "SBRAD": 0.2}, "hr_bpm": {"uniform": [50, 90]},
       "age": {"normal": [60, 10], "within": [20, 90]}, "sex": {"female": 0.6, "male": 0.4}}  # fmt: skip
PLACES = {"bank": "bank", "models": "models"}
SOUND = (
    {"records": 540, "batch": 64, "shard": 128, "seed": 7, "mix": MIX, **PLACES},
    {"table": "t.csv", "alpha": 0.5, "k": 3, "donor_folds": [1, 2, 9], "min_likelihood": 15, "format": "hdf5", **PLACES},
    {"records": 100, "cohort": {"labels": {"IMI": 1}, "hr_spread": 0.2}, "variation": {"rr_cv": 0.1, "blend": 0.2},
     "judge": {"steps": 5, "below": 0.4}, "lowpass_hz": 30, "attempts": 2, "temperature": 0.9, "prd_limit_pct": 8.0},
    {"records": 3, "duration_s": 3600, "mix": {"labels": {"MI": 1}, "hr_bpm": 70, "sex": "male"},
     "rhythm": {"start_hour": 3, "variability": 0.5, "rr_low_s": 0.3, "lf_hz": 0.09}},
    {"records": 64, "mix": {"labels": {"NORM": 1}}, "noise": {"snr_db": {"uniform": [-6, 24]}, "length_s": {"normal": [6, 2],
     "within": [2, 10]}, "kinds": {"muscle": 1, "lead_off": 0.1}}},
    {"records": 2, "duration_s": 600, "mix": {"labels": {"NORM": 1}}, "noise": {"snr_db": 3, "per_hour": 6.5, "length_s": 20}},
    {"records": 12, "mix": {"labels": {"NORM": 1}}, "noise": {}, "vary": {"hr_bpm": [50, 75, 100], "snr_db": [12, 0.5]}},
)  # fmt: skip
KEYS = sorted(schema(AskedRequest)["properties"])
BELOW = ("mix.hr_bpm", "mix.labels", "mix.labels.NORM", "mix.sex", "mix.age.within", "variation.rr_cv", "judge.steps",
         "rhythm.lf_hz",
         "noise", "noise.snr_db", "noise.kinds", "noise.kinds.muscle", "noise.length_s.uniform", "noise.per_hour",
         "vary", "vary.hr_bpm", "vary.alpha")  # fmt: skip


@st.composite
def requests(draw) -> str:
    """A request file near to a sound one."""
    asked = draw(st.sampled_from(SOUND))
    if draw(st.booleans()):
        asked = draw(changed_value(asked))
    text = yaml.safe_dump(asked, default_flow_style=draw(st.sampled_from((None, False, True))), allow_unicode=True)
    return draw(changed_text(text)) if draw(st.booleans()) else text


@pytest.fixture
def folder(inputs, tmp_path) -> Path:
    """A folder with what the requests name."""
    (tmp_path / "bank").symlink_to(inputs / "bank")
    (tmp_path / "models").symlink_to(inputs / "models")
    (tmp_path / "t.csv").write_text("label,age\n" + "".join(f"{code},50\n" for code in CODES))
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "request.yaml"
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    return path


# What the text says, read by PyYAML's reader that knows text alone ----------------------------------------------------------


def plain(text: str):
    return yaml.load(text.lstrip("\ufeff"), yaml.BaseLoader)


def number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[-+]?[0-9]+", text) else float(text)


def is_null(text) -> bool:
    return text in ("null", "Null", "NULL", "~")


def assert_as_said(request: Request, said: dict, folder: Path) -> None:
    """Each key of the request is what the text says of it, or its default."""
    sizes = ("batch", "shard") if request.is_long else ()  # their defaults follow from the duration
    for field in fields(Request):
        text, value = said.get(field.name), getattr(request, field.name)
        if field.name in MEANT and text is not None and not (is_null(text) and value is None):  # "null" in quotes is a name
            assert MEANT[field.name](value, text, folder), (field.name, value, text)
        elif field.name not in (*sizes, "source", "rhythm", "start_hour", "bank", "models"):
            default = field.default_factory() if field.default is MISSING else field.default
            default = request.usual_lowpass_hz if field.name == "lowpass_hz" else default
            assert value == default, (field.name, value, text)
    assert set(said) <= set(KEYS)


def same_number(value, text: str, folder=None) -> bool:
    return math.isclose(value, number(text), rel_tol=1e-15) and value == value


def same_text(value, text: str, folder=None) -> bool:
    return value == text


def same_path(value, text: str, folder: Path) -> bool:
    return value == str(BUNDLED if text == "bundled" else (folder / Path(text).expanduser()).resolve())


def same_folds(value, text, folder=None) -> bool:
    return list(value) == sorted({number(fold) for fold in ([text] if isinstance(text, str) else text)})


def same_shares(value, said: dict) -> bool:
    asked = {name: number(share) for name, share in said.items()}
    whole = math.fsum(asked.values())
    return abs(whole - 1) <= 1e-3 and value == tuple((name, asked[name] / whole) for name in sorted(asked) if asked[name])


def same_spread(value, said) -> bool:
    if said is None or is_null(said):
        return value is None
    if isinstance(said, str):
        return value.low == value.high == number(said)
    said = {key: None if is_null(pair) else [number(end) for end in pair] for key, pair in said.items()}
    if said.get("uniform"):
        return said["uniform"] == [value.low, value.high] and value.mean is value.sd is None
    inside = not said.get("within") or said["within"][0] <= value.low <= value.high <= said["within"][1]
    return inside and said["normal"] == [value.mean, value.sd]


def same_mix(value, said: dict, folder=None) -> bool:
    sex = said.get("sex")
    sex = {sex: "1"} if isinstance(sex, str) and not is_null(sex) else sex
    female = None if sex is None or is_null(sex) else number(sex.get("female", "0"))
    return (same_shares(value.labels, said["labels"]) and same_spread(value.hr_bpm, said.get("hr_bpm"))
            and same_spread(value.age, said.get("age")) and set(said) <= {"labels", "hr_bpm", "age", "sex"}
            and (value.female is None) == (female is None) and (female is None or abs(value.female - female) < 1e-3))  # fmt: skip


def same_cohort(value, said: dict, folder=None) -> bool:
    labels = said.get("labels")
    same = value.labels is None if labels is None or is_null(labels) else same_shares(value.labels, labels)
    return same and value.hr_spread == number(said.get("hr_spread", "0.1")) and set(said) <= {"labels", "hr_spread"}


def same_options(value, said: dict, folder=None) -> bool:
    if value is None:
        names = {field.name for field in fields(Variation)} | {"steps", "below"}
        return set(said) <= names and not any(number(text) for text in said.values())
    if is_null(said):  # long records have a rhythm, said or not
        return value in (RhythmParameters(), RhythmParameters(order="mamba"))  # without events
    order = said.get("order")
    same = order is None or is_null(order) or value.order == order
    return same and all(getattr(value, key) == number(text) for key, text in said.items() if key not in ("start_hour", "order"))


def same_noise(value, said: dict, folder=None) -> bool:
    """Shares of weights, and spreads; what is not said has a default."""
    if weights := {} if is_null(kinds := said.get("kinds") or {}) else {name: number(text) for name, text in kinds.items()}:
        whole = math.fsum(weights.values())
        if value.kinds != tuple((name, weights[name] / whole) for name in sorted(weights) if weights[name]):
            return False
    spreads = ((key, said.get(key)) for key in ("snr_db", "length_s"))
    spread = all(same_spread(getattr(value, key), text) for key, text in spreads if text is not None and not is_null(text))
    rate = said.get("per_hour")
    return spread and (rate is None or is_null(rate) or value.per_hour == number(rate))


def same_vary(value, said: dict, folder=None) -> bool:
    asked = {name: tuple(map(number, values)) for name, values in said.items() if values is not None and not is_null(values)}
    return dict(value.values) == asked and value.size == math.prod(map(len, asked.values()))


MEANT = {field.name: same_number for field in fields(Request)} | {
    **dict.fromkeys(("device", "batch_on_oom", "format"), same_text),
    **dict.fromkeys(("bank", "models", "table"), same_path),
    **dict.fromkeys(("variation", "judge", "rhythm"), same_options),
    "donor_folds": same_folds, "mix": same_mix, "cohort": same_cohort, "noise": same_noise, "vary": same_vary,
}  # fmt: skip


# The tests ------------------------------------------------------------------------------------------------------------


@examples(4)
@given(requests())
@example("duration_s: 3600\nmix: {labels: {MI: 1}}\nrecords: 3\nrhythm: null\n")
def test_a_request_is_refused_in_words_or_asks_for_what_it_says(folder, text):
    path = written(folder, text)
    request = answer(lambda: load_request(path), str(path), folder=folder)
    if not isinstance(request, Refused):
        assert_as_said(request, said := plain(text), folder)
        start = said.get("rhythm", {}).get("start_hour") if isinstance(said.get("rhythm"), dict) else None
        assert request.start_hour == (None if start is None or is_null(start) else number(start))


@st.composite
def overrides(draw) -> list[str]:
    keys = st.sampled_from((*KEYS, *BELOW)) | changed_text("mix.labels", 1)
    return [f"{draw(keys)}={draw(pieces)}" for _ in range(draw(st.integers(1, 3)))]


@examples(4)
@given(st.sampled_from(SOUND), overrides())
def test_set_is_refused_in_words_or_is_put_over_the_file(folder, asked, pairs):
    path = written(folder, text := yaml.safe_dump(asked))
    request = answer(lambda: load_request(path, pairs), str(path), "--set")
    if isinstance(request, Refused):
        return
    said = plain(text)
    for key, _, value in (pair.partition("=") for pair in pairs):
        inner = said
        for name in key.split(".")[:-1]:
            inner = inner.setdefault(name, {}) if isinstance(inner.get(name, {}), dict) else inner.update({name: {}}) or inner[name]
        inner[key.split(".")[-1]] = plain(value)
    assert_as_said(request, said, folder)


@examples(0.5)
@given(requests())
@example("mix: {labels: {'\\x1b[31m': 1}}\nrecords: 1\n")
def test_whatever_is_refused_leaves_no_folder_behind(folder, text):
    """Through planning, with an inference that can make nothing: an exit status 2, and nothing was begun."""
    path = written(folder, text)
    refused = answer(lambda: synthesize_job(path, [], folder / "out", 1, open_nothing), str(path), "vqvae", folder=folder)
    assert isinstance(refused, Refused)
