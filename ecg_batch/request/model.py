"""Request: what the user asks for, checked (parse.py reads it from YAML). Its keys, their ranges, defaults and meaning.

Everything that changes a byte of the dataset is here and enters the run id. Where and how widely it runs is not here.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import product
from typing import Annotated, Literal

from ecg_batch.errors import shown
from ecg_batch.keys import Line, Meaning, Range
from ecg_batch.request.rhythm_parameters import RhythmParameters
from ecg_batch.request.types import odd_field
from ecg_batch.statements import NOISE_KINDS, rate_range_bpm

CHUNK_RECORDS = 64  # records per Zarr chunk: about 1.5 MB at 100 Hz, read and decoded as one
LOOP_S = 10  # as long as a donor: up to here a record is its donor's loop; beyond, the rhythm model and the donor's single beats
MINUTE_S = 60  # a chunk of a long record; a record that is longer is a Zarr shard file of its own
LONG_LOWPASS_HZ = 47.0  # where PTB-XL's files at 100 Hz end (docs/evidence/realism.md)

LATER_DEFAULTS = (("batch_on_oom", "fail"), ("format", "zarr"), ("rhythm", None), ("start_hour", None), ("variation", None),
                  ("judge", None), ("cohort", None), ("min_likelihood", 0), ("texture", "decoded"), ("noise", None),
                  ("events", None), ("vary", None), ("places", None))  # fmt: skip
LATER_RHYTHM = (("order", "rules"),)  # the same below rhythm
PATHS = {"bank", "models", "table", "source", "places_table"}  # enter the run id by what is there
HR_LIMITS_BPM = (20.0, 300.0)
AGE_LIMITS = (0.0, 120.0)
ALPHA_LIMITS = (0, 2)
ELECTRODE_LIMITS = (0, 0.4)
TURN_LIMITS_DEG = (-40.0, 40.0)  # as far as variation.axis_deg may turn, at two standard deviations
SNR_LIMITS_DB = (-20.0, 30.0)
NOISE_LIMITS_S = (1.0, 300.0)  # an episode is made in one piece
MODELLED_NOISE = ("muscle", "electrode", "baseline", "mains")
ADDED = (*MODELLED_NOISE, *NOISE_KINDS)  # kinds of noise that are added to the beats, at a ratio to them; the latter as recorded
FAULTS = ("lead_off", "swapped", "clipped")  # kinds that take beats away, or show them elsewhere
# what a request may vary; of what it does, the last changes from record to record
VARIED = ("hr_bpm", "snr_db", "alpha", "axis_deg", "electrode")


@dataclass(frozen=True)
class Distribution:
    """A number drawn by record: uniform on [low, high] (fixed where they are equal), or normal(mean, sd) cut to it."""

    low: float
    high: float
    mean: float | None = None
    sd: float | None = None

    def within(self, low: float, high: float) -> "Distribution | None":
        """The same distribution cut to [low, high], or None where next to nothing of it lies there."""
        cut = Distribution(max(self.low, low), min(self.high, high), self.mean, self.sd)
        return cut if cut.low <= cut.high and cut.mass() > 1e-6 else None

    def mass(self) -> float:
        """Share of the uncut normal inside [low, high]: the inverse CDF has no precision left where it is tiny."""
        if self.sd is None or self.low == self.high:
            return 1.0
        low, high = (math.erf((x - self.mean) / (self.sd * math.sqrt(2))) / 2 for x in (self.low, self.high))
        return high - low


@dataclass(frozen=True)
class Mix:
    """Shares of labels, sorted by name and summing to 1, and what is asked of each record. None = not asked."""

    labels: tuple[tuple[str, float], ...]
    hr_bpm: Distribution | None = None
    age: Distribution | None = None
    female: float | None = None  # share of women

    def hr_bpm_of(self, label: str) -> Distribution | None:
        """The heart rate asked of one label: cut to what the label itself allows (SBRAD under 65 bpm, ...)."""
        return self.hr_bpm and self.hr_bpm.within(*rate_range_bpm(label))


@dataclass(frozen=True)
class Cohort:
    """Records that ask for what the bank's donors are: each for the label, age, sex and rate of one donor, dealt evenly.

    labels: shares as in a Mix, a holder for each; None: every donor as often as the next, by the rarest of its statements.
    """

    labels: tuple[tuple[str, float], ...] | None = None
    hr_spread: Annotated[float, Range(0, 0.5, "SD of the log of the asked rate about the donor's own")] = 0.1


@dataclass(frozen=True)
class Variation:
    """How much each donor's beats are varied; what the parts mean: synthesis/variation.py."""

    rr_cv: Annotated[float, Range(0, 0.2, "how much RR varies, beyond what the donor does")] = 0.0
    axis_deg: Annotated[float, Range(0, 20, "by how many degrees the heart turns in the chest (SD)")] = 0.0
    electrode: Annotated[float, Range(*ELECTRODE_LIMITS, "how far chest electrodes sit toward a neighbour's place")] = 0.0
    gain_sd: Annotated[float, Range(0, 0.25, "how much the voltage varies (SD of its log)")] = 0.0
    blend: Annotated[float, Range(0, 0.5, "share of up to two further donors in the beats")] = 0.0


@dataclass(frozen=True)
class Refinement:
    """Gradient steps on the texture's latent for records that the judge gives less than `below` for the asked superclass."""

    steps: Annotated[int, Range(0, 40, "gradient steps on the texture of records that the classifier doubts")] = 20
    below: Annotated[float, Range(0, 1, "it doubts a record to whose label it gives less than this")] = 0.5


@dataclass(frozen=True)
class Noise:
    """Noise that is added to finished records. What the kinds are: synthesis/noise_models.py; the ratio: synthesis/noise.py.

    kinds: weights, sorted by name, that sum to 1. length_s: None = all of a record of 10 s. per_hour: of long records only.
    """

    snr_db: Distribution
    kinds: tuple[tuple[str, float], ...]
    length_s: Distribution | None = None
    per_hour: float | None = None


@dataclass(frozen=True)
class Event:
    """An event of long records, a key of events.KINDS. per_hour is drawn by record; length, beats or seconds, by event, None where
    beats come one by one; share: of the records that have it at all.
    """

    name: str
    per_hour: Distribution
    length: Distribution | None
    share: Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class Vary:
    """What makes each record several times, alike in all else: a set of all combinations of these values, see synthesis/queries.py.

    values: names in the order of VARIED, each with its values in the order that was asked.
    """

    values: tuple[tuple[Literal[VARIED], tuple[float, ...]], ...]

    def of(self, name: str) -> tuple[float, ...]:
        """The values of one name, none where it is not varied."""
        return dict(self.values).get(name, ())

    @property
    def size(self) -> int:
        """Records of a set."""
        return math.prod(len(values) for _, values in self.values)

    def combinations(self, name: str) -> tuple[float, ...]:
        """Of one name the value that each record of a set has: (size,)."""
        names, values = zip(*self.values, strict=True)
        return tuple(each[names.index(name)] for each in product(*values))


@dataclass(frozen=True, kw_only=True)
class Request:
    """A checked request. Exactly one of mix, table and cohort is set; records may be None until the table is counted."""

    records: Annotated[int, Range(1, 10**9, "how many records; with a table its rows are counted")] | None = None
    duration_s: Annotated[int, Range(LOOP_S, 86_400, "seconds of each record; over 10 they are long records")] = LOOP_S
    fs_hz: Annotated[Literal[100, 500], Meaning("samples a second; must be the bank's and the models'")] = 100
    seed: Annotated[int, Range(0, 2**63 - 1, "another seed makes other records")] = 0
    alpha: Annotated[float, Range(*ALPHA_LIMITS, "share of texture: x = x_skel + alpha * x_tex")] = 1.0
    k: Annotated[int, Range(1, 100, "from how many nearest donors one is drawn")] = 8
    batch: Annotated[int, Range(1, 65_536, "records in one call of the models; the default is for 10 s")] = 256
    shard: Annotated[int, Range(1, 2**20, "records in a shard, a multiple of batch and of 64; the default is for 10 s")] = 4096
    prd_limit_pct: float | None = None
    lowpass_hz: float | None = None
    attempts: Annotated[int, Range(1, 100, "donors tried before a record that fails the quality gate is flagged")] = 4
    temperature: Annotated[float, Range(0.01, 10, "how freely the texture's tokens are drawn")] = 1.0
    donor_folds: tuple[int, ...] = tuple(range(1, 9))
    device: Annotated[Literal["cpu", "cuda"], Meaning("results differ between the two; there is no falling back")] = "cpu"
    bank: Annotated[str, Line("bundled, or a folder made by ecg-batch prepare, relative to this file")] = "bundled"
    models: Annotated[str, Line("bundled, or a folder made by ecg-batch train, relative to this file")] = "bundled"
    mix: Mix | None = None
    table: Annotated[str, Line("a CSV or Parquet file with a row a record: label and, where asked, hr_bpm, age, sex")] | None = None
    batch_on_oom: Annotated[Literal["fail", "halve"], Meaning("what becomes of a shard that runs out of memory")] = "fail"
    source: str = ""  # the request file, for messages
    format: Annotated[Literal["zarr", "hdf5"], Meaning("how samples are stored; over a minute as Zarr only")] = "zarr"
    variation: Variation | None = None
    judge: Refinement | None = None
    rhythm: RhythmParameters | None = None  # of long records only
    start_hour: float | None = None  # time of day at which long records begin; None = drawn by record
    cohort: Cohort | None = None
    min_likelihood: Annotated[int, Range(0, 100, "a donor holds a label from this likelihood on, percent")] = 0
    texture: Annotated[
        Literal["units", "decoded"],
        Meaning("units: other patients' recorded noise, laid in time with the beats; decoded: by the models, as published"),
    ] = "units"
    noise: Noise | None = None
    events: tuple[Event, ...] | None = None  # of long records only
    vary: Vary | None = None
    places_table: str | None = None  # read when the run is planned
    places: str | None = None  # what it holds, in normal form: places.py

    @property
    def has_events(self) -> bool:
        """Whether events come to the records, by rates or at places."""
        return bool(self.events or self.places)

    @property
    def has_beats_by_model(self) -> bool:
        """Whether the model of rhythm says which beat comes, where donors are in fibrillation or have ectopic beats."""
        return self.is_long and self.rhythm.order == "mamba"

    @property
    def samples(self) -> int:
        """Samples of a record."""
        return self.duration_s * self.fs_hz

    @property
    def minute_samples(self) -> int:
        """Samples of a chunk of a streamed record."""
        return MINUTE_S * self.fs_hz

    @property
    def usual_lowpass_hz(self) -> float | None:
        """Where nothing is said. What the joints of long records leave above the band of their recordings goes."""
        return LONG_LOWPASS_HZ if self.is_long and self.fs_hz == 100 else None

    @property
    def is_long(self) -> bool:
        """Whether records are made by the rhythm model, beat by beat, and not as their donor's loop."""
        return self.duration_s > LOOP_S

    @property
    def is_streamed(self) -> bool:
        """Whether a record is a Zarr shard file of its own, written minute by minute."""
        return self.duration_s > MINUTE_S

    def resolved(self) -> dict:
        """What enters the run id, as JSON values: all but paths, whose contents enter by their hashes instead, and but keys
        that were added later and say what was always done, so that older runs keep their id.
        """
        entering = {key: value for key, value in asdict(self).items() if key not in PATHS}
        if self.rhythm:
            entering["rhythm"] = {key: value for key, value in entering["rhythm"].items() if (key, value) not in LATER_RHYTHM}
        return {key: value for key, value in entering.items() if (key, value) not in LATER_DEFAULTS}


def request_from_resolved(resolved: Mapping, bank: str, models: str) -> Request:
    """The inverse of `resolved`, for a plan read back. The rows of a table stand beside the plan: no path is needed.

    KeyError, TypeError or ValueError where a key is absent that was there from the beginning, or a value is none of its key.
    """
    later = {key for key, _ in LATER_DEFAULTS} | PATHS
    if absent := {field.name for field in fields(Request)} - later - resolved.keys():
        raise KeyError(min(absent))
    mix = resolved["mix"]
    if mix is not None:
        drawn = {key: None if mix[key] is None else Distribution(**mix[key]) for key in ("hr_bpm", "age")}
        mix = Mix(**{**mix, "labels": tuple((label, share) for label, share in mix["labels"]), **drawn})
    resolved = {**dict(LATER_DEFAULTS), **resolved}  # what is not there was always done so
    options = {"variation": Variation, "judge": Refinement, "rhythm": RhythmParameters, "cohort": _cohort_from_resolved,
               "noise": _noise_from_resolved, "vary": _vary_from_resolved}  # fmt: skip
    options = {key: kind(**resolved[key]) for key, kind in options.items() if resolved.get(key) is not None}
    options["events"] = resolved["events"] and tuple(_event_from_resolved(**event) for event in resolved["events"])
    values = {**resolved, "donor_folds": tuple(resolved["donor_folds"]), "mix": mix, **options}
    request = Request(**values, bank=bank, models=models, table=None, places_table=None)
    if odd := odd_field(request):
        raise ValueError(f"{odd} is {shown(getattr(request, odd))}")
    if not _holds(request, resolved):
        raise ValueError("a value is not what it was written as")
    return request


def _holds(request: Request, resolved: Mapping) -> bool:
    """Whether each value is read as it stands: {} is not no folds. Parameters that came later need not be there."""
    held = json.loads(json.dumps(asdict(request)))
    return all(
        held[key] == said or (isinstance(said, dict) and isinstance(held[key], dict) and held[key] == held[key] | said)
        for key, said in resolved.items()
    )


def _cohort_from_resolved(labels, hr_spread: float) -> Cohort:
    return Cohort(labels and tuple((label, share) for label, share in labels), hr_spread)


def _event_from_resolved(name, per_hour, length, share) -> Event:
    return Event(name, Distribution(**per_hour), length and Distribution(**length), share)


def _noise_from_resolved(snr_db, kinds, length_s, per_hour) -> Noise:
    shares = tuple((name, share) for name, share in kinds)
    return Noise(Distribution(**snr_db), shares, length_s and Distribution(**length_s), per_hour)


def _vary_from_resolved(values) -> Vary:
    return Vary(tuple((name, tuple(each)) for name, each in values))
