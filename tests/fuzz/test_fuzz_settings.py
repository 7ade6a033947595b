"""Cluster files, --set of trainings and evaluations, rhythms: what they say, or refused; and what is accepted can be used."""

import math
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fuzzing import Refused, answer, changed_text, changed_value, examples, pieces
from hypothesis import example, given
from hypothesis import strategies as st

from ecg_batch.cli.settings import settings
from ecg_batch.evaluation.sets import Settings
from ecg_batch.evaluation.train_judge import JudgeTraining
from ecg_batch.models.judge import Judge, JudgeConfig
from ecg_batch.models.mamba import MambaConfig, MambaLM
from ecg_batch.models.train_mamba import MambaTraining
from ecg_batch.models.train_vqvae import VqVaeTraining
from ecg_batch.models.vqvae import VqVae, VqVaeConfig
from ecg_batch.request.rhythm_parameters import RhythmParameters, rate_limits_bpm
from ecg_batch.run.slurm.cluster import Cluster, load_cluster, sbatch_text
from ecg_batch.synthesis.long.rhythm import DonorRhythm, make_rhythm

pytestmark = pytest.mark.slow


def number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[-+]?[0-9]+", text) else float(text)


# Cluster files --------------------------------------------------------------------------------------------------------

CLUSTERS = (
    {"walltime_min": 90, "gpus": 1, "cpus": 4, "memory_gb": 8, "most_tasks": 16, "shards_per_task": 2, "partition": "gpu",
     "account": "ecg", "qos": "low", "setup": ["module load cuda/12"], "extra": {"constraint": "a100", "exclude": ["n1", "n2"]}},
    {"walltime_min": None, "memory_gb": None, "rounds": 5, "poll_s": 2.5, "extra": {"mem-per-cpu": "2G", "exclusive": True}},
    {"extra": {"gres": "gpu:1", "nice": 100, "mail_type": "END", "C": "icelake", "requeue": False, "begin": None}},
)  # fmt: skip


@st.composite
def clusters(draw) -> str:
    asked = draw(st.sampled_from(CLUSTERS))
    text = yaml.safe_dump(draw(changed_value(asked)) if draw(st.booleans()) else asked)
    return draw(changed_text(text)) if draw(st.booleans()) else text


def same(value, said) -> bool:
    if value is None:
        return said in ("null", "Null", "NULL", "~")
    if isinstance(value, tuple):
        return list(value) == said
    return value == said if isinstance(value, str) else math.isclose(value, number(said), rel_tol=1e-15)


@examples(4)
@given(clusters())
def test_a_cluster_file_is_refused_in_words_or_becomes_the_script_that_it_says(tmp_path, text):
    path = tmp_path / "cluster.yaml"
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    cluster = answer(lambda: load_cluster(path), str(path), folder=tmp_path)
    if isinstance(cluster, Refused):
        return
    said = yaml.load(text.lstrip("\ufeff"), yaml.BaseLoader)
    for field in fields(Cluster):
        if field.name != "extra":
            value = getattr(cluster, field.name)
            assert same(value, said[field.name]) if field.name in said else value == field.default, field.name
    assert len(cluster.extra) == len(said.get("extra", ()))
    script = answer(lambda: sbatch_text(cluster, "ecg", Path("/logs"), 3))
    options = script.partition("# Parameters\n")[2].partition("\n\n")[0].splitlines()
    assert options and all(re.fullmatch(r"#SBATCH --[\w-]+(=.*)?", line) for line in options), options
    assert len(options) <= 14 + len(cluster.extra)  # what the driver sets, and what is asked beside it
    for name, value in cluster.extra:
        if value is not None:
            assert any(line.startswith(f"#SBATCH --{name}") for line in options), (name, value, script)


# --set of trainings and evaluations -------------------------------------------------------------------------------------

KINDS = {
    "vqvae": (VqVaeConfig(), VqVaeTraining()),
    "mamba": (MambaConfig(), MambaTraining()),
    "judge": (JudgeConfig(), JudgeTraining()),
    "evaluate": (Settings(),),
}
NETWORKS = {"vqvae": VqVae, "mamba": MambaLM, "judge": Judge}
AFFORDABLE = 2**27  # parameters of a network that is built here, without memory for them


@st.composite
def chosen(draw) -> tuple[str, list[str]]:
    kind = draw(st.sampled_from(sorted(KINDS)))
    keys = [field.name for default in KINDS[kind] for field in fields(default)]
    numbers = st.lists(st.integers(0, 70), max_size=4).map(lambda held: ",".join(map(str, held)))
    lists = st.lists(pieces, max_size=3).map(lambda held: f"[{', '.join(held)}]")
    key, value = st.sampled_from(keys) | changed_text(keys[0], 1), st.integers(-2, 100).map(str) | pieces | numbers | lists
    return kind, [f"{draw(key)}={draw(value)}" for _ in range(draw(st.integers(1, 3)))]


@examples(4)
@given(chosen())
def test_settings_are_refused_in_words_or_as_said(asked):
    kind, pairs = asked
    made = answer(lambda: settings(pairs, *KINDS[kind]), "--set")
    if isinstance(made, Refused):
        return
    said = dict(pair.split("=", 1) for pair in pairs)
    for one, default in zip(made, KINDS[kind], strict=True):
        for field in fields(one):
            value = getattr(one, field.name)
            assert as_said(value, said.pop(field.name)) if field.name in said else value == getattr(default, field.name)
    assert not said
    if kind in NETWORKS and max([1, *(value for value in vars(made[0]).values() if isinstance(value, int))]) < 600:
        with torch.device("meta"):
            assert sum(one.numel() for one in NETWORKS[kind](made[0]).parameters()) > 0


def as_said(value, text: str) -> bool:
    plain = yaml.load(text, yaml.BaseLoader)
    if isinstance(value, tuple):
        plain = yaml.load(f"[{text}]", yaml.BaseLoader) if isinstance(plain, str) else plain
        return len(value) == len(plain) and all(map(as_said, value, plain))
    return str(value).lower() == plain.lower() if isinstance(value, (str, bool)) else value == number(plain)


# Rhythms --------------------------------------------------------------------------------------------------------------


def ranged(field) -> st.SearchStrategy:
    """Values in a parameter's range, its ends among them."""
    limits = field.type.__metadata__[0]
    return st.just(field.default) | st.sampled_from((limits.low, limits.high)) | st.floats(limits.low, limits.high)


parameters = st.fixed_dictionaries(
    {}, optional={field.name: ranged(field) for field in fields(RhythmParameters) if field.name != "order"}
)
SLOW = {"fibrillation_long_refractory_s": 1.5, "fibrillation_short_refractory_s": 0.2, "fibrillation_short_share": 0.4}
donors = st.builds(
    DonorRhythm,
    hr_bpm=st.floats(25, 250),
    fibrillation=st.booleans(),
    ectopic=st.sampled_from(({}, {"V": 0.05}, {"V": 0.5}, {"A": 0.3}, {"V": 0.5, "A": 0.5}, {"V": 1.0})),
    variability=st.sampled_from((0.8, 1.0)),
    age=st.sampled_from((0.0, 30.0, 90.0, float("nan"))),
)


@examples(1)
@example(SLOW, DonorRhythm(25.0, True, variability=0.8, age=0.0), 0.0, 11, 6848, None)  # the first beat after 5.2 s
@example(SLOW, DonorRhythm(25.0, True, variability=0.8, age=0.0), 0.0, 11, 6849, 0.0)  # one beat in 11 s
@given(parameters, donors, st.floats(0, 1), st.sampled_from((11, 61, 600)), st.integers(0, 2**32), st.none() | st.floats(0, 24))
def test_every_rhythm_in_range_can_be_made_and_keeps_its_limits(changes, donor, where, duration_s, seed, start_hour):
    asked = RhythmParameters(**changes)
    if asked.fibrillation_short_refractory_s > asked.fibrillation_long_refractory_s:
        return
    low, high = rate_limits_bpm(asked)
    bpm = min(low + where * (high - low), high)
    rhythm = answer(lambda: make_rhythm(asked, donor, bpm, duration_s, np.random.default_rng(seed), start_hour))
    assert not isinstance(rhythm, Refused)
    rr_s = np.diff(rhythm.r_s)
    assert len(rr_s) and rr_s.min() >= asked.rr_low_s - 1e-9 and rr_s.max() <= asked.rr_high_s + 1e-9
    # the intervals before the first beat and after the last are partly outside, where nothing is cut to the rails
    assert 0 <= rhythm.r_s[0] <= 2 * asked.rr_high_s and duration_s - 2 * asked.rr_high_s <= rhythm.r_s[-1] < duration_s
    for name in ("qt_rr_s", "respiration", "amplitude", "drift"):
        assert len(getattr(rhythm, name)) == len(rhythm.r_s) and np.isfinite(getattr(rhythm, name)).all(), name
    assert set(rhythm.symbol) <= {"N", "V", "A"}
