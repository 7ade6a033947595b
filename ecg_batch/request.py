"""Request: what the user asks for, checked (request_file.py reads it from YAML).

Everything that changes a byte of the dataset is here and enters the run id. Where and how widely it runs is not here.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ecg_batch.rhythm_parameters import RhythmParameters
from ecg_batch.statements import rate_range_bpm

CHUNK_RECORDS = 64  # records per Zarr chunk: about 1.5 MB at 100 Hz, read and decoded as one
LOOP_S = 10  # as long as a donor: up to here a record is its donor's loop; beyond, the rhythm model and the donor's single beats
MINUTE_S = 60  # a chunk of a long record; a record that is longer is a Zarr shard file of its own
BUNDLED = Path(__file__).parent / "bundled"  # bank and models

LATER_DEFAULTS = (("batch_on_oom", "fail"), ("format", "zarr"), ("rhythm", None), ("start_hour", None), ("variation", None),
                  ("judge", None), ("cohort", None))  # fmt: skip
HR_LIMITS_BPM = (20.0, 300.0)
AGE_LIMITS = (0.0, 120.0)


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
    hr_spread: standard deviation of the log of the asked rate about the donor's own.
    """

    labels: tuple[tuple[str, float], ...] | None = None
    hr_spread: float = 0.1


@dataclass(frozen=True)
class Variation:
    """How much each donor's beats are varied; what the parts mean: ecg_batch/variation.py."""

    rr_cv: float = 0.0
    axis_deg: float = 0.0
    electrode: float = 0.0
    gain_sd: float = 0.0
    blend: float = 0.0


@dataclass(frozen=True)
class Refinement:
    """Gradient steps on the texture's latent for records that the judge gives less than `below` for the asked superclass."""

    steps: int
    below: float


@dataclass(frozen=True)
class Request:
    """A checked request. Exactly one of mix, table and cohort is set; records may be None until the table is counted."""

    records: int | None
    duration_s: int
    fs_hz: int
    seed: int
    alpha: float
    k: int
    batch: int
    shard: int
    prd_limit_pct: float
    lowpass_hz: float
    attempts: int
    temperature: float
    donor_folds: tuple[int, ...]
    device: str
    bank: str  # a folder
    models: str  # a folder
    mix: Mix | None
    table: str | None  # a CSV or Parquet file
    batch_on_oom: str = "fail"  # or "halve": see batch.py
    source: str = ""  # the request file, for messages
    format: str = "zarr"  # one of FORMATS
    variation: Variation | None = None
    judge: Refinement | None = None
    rhythm: RhythmParameters | None = None  # of long records only
    start_hour: float | None = None  # time of day at which long records begin; None = drawn by record
    cohort: Cohort | None = None

    @property
    def is_long(self) -> bool:
        """Whether records are made by the rhythm model, beat by beat (long.py), and not as their donor's loop (shard.py)."""
        return self.duration_s > LOOP_S

    @property
    def is_streamed(self) -> bool:
        """Whether a record is a Zarr shard file of its own, written minute by minute."""
        return self.duration_s > MINUTE_S

    def resolved(self) -> dict:
        """What enters the run id, as JSON values: all but paths, whose contents enter by their hashes instead, and but keys
        that were added later and say what was always done, so that older runs keep their id.
        """
        entering = {key: value for key, value in asdict(self).items() if key not in ("bank", "models", "table", "source")}
        return {key: value for key, value in entering.items() if (key, value) not in LATER_DEFAULTS}


def request_from_resolved(resolved: Mapping, bank: str, models: str) -> Request:
    """The inverse of `resolved`, for a plan read back. The rows of a table stand beside the plan: no path is needed."""
    mix = resolved["mix"]
    if mix is not None:
        drawn = {key: Distribution(**mix[key]) if mix[key] else None for key in ("hr_bpm", "age")}
        mix = Mix(labels=tuple((label, share) for label, share in mix["labels"]), female=mix["female"], **drawn)
    options = {"variation": Variation, "judge": Refinement, "rhythm": RhythmParameters, "cohort": _cohort_from_resolved}
    options = {key: kind(**resolved[key]) for key, kind in options.items() if resolved.get(key)}
    fields = {**resolved, "donor_folds": tuple(resolved["donor_folds"]), "mix": mix, **options}
    return Request(**fields, bank=bank, models=models, table=None)


def _cohort_from_resolved(labels, hr_spread: float) -> Cohort:
    return Cohort(labels and tuple((label, share) for label, share in labels), hr_spread)
