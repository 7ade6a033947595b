"""docs/guarantees.md as laws: existence and stability, on real donors; each would fail if its statement were false."""

from dataclasses import replace

import numpy as np
import pytest
from prd import all_leads, prd_pct

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank
from ecg_batch.leads import MV_PER_UV, twelve_leads
from ecg_batch.request.model import Variation
from ecg_batch.signal.filters import low_pass
from ecg_batch.synthesis.compose import ROUNDING_UV2, compose
from ecg_batch.synthesis.queries import Queries
from ecg_batch.synthesis.retime import donor_loop, time_beats
from ecg_batch.synthesis.retrieve import _squared_distance, index_donors, retrieve
from ecg_batch.synthesis.variation import rr_factors

rng = np.random.default_rng(0)
ROUNDING = np.sqrt(ROUNDING_UV2 * 1000) * MV_PER_UV


@pytest.fixture(scope="module")
def real():
    return bank.read_bank(BUNDLED)


@pytest.fixture(scope="module")
def parts(real):
    return tuple(low_pass(x[:24] * MV_PER_UV, 40, 100) for x in (real.skeleton, real.texture))


def norm(ecg: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(ecg).sum((-1, -2)))


def queries(label: str, hr_bpm, age, sex) -> Queries:
    count = len(hr_bpm)
    return Queries(np.arange(count), np.array([label] * count), np.float32(hr_bpm), np.float32(age), np.int8(sex))


@pytest.mark.parametrize("k", [1, 8, 40])
def test_e1_every_query_has_donors_that_hold_its_label_in_an_allowed_fold(real, k):
    folds = (1, 2, 5)
    index = index_donors(real.table, folds)
    held = [code for code in real.table.codes if real.table.holds(code)[index.rows].any()]
    for label in ["NORM", "HYP", *held]:
        asked = queries(label, [20, 300, np.nan], [0, 120, np.nan], [0, 1, -1])
        donors = retrieve(index, asked, rng.random((3, k)))
        assert real.table.holds(label)[donors].all() and np.isin(real.table.fold[donors], folds).all()


@pytest.mark.parametrize("bpm", [30, 75, 220])
def test_e2_donor_time_never_runs_back(real, bpm):
    for donor in range(0, len(real.table), 29):
        factors = rr_factors(Variation(rr_cv=0.2), 3, donor, 60 / bpm)
        timing = time_beats(donor_loop(real, donor), 6000 / bpm, 1000, 100, rng.random(2), factors)
        assert (np.diff(timing.donor_time) >= 0).all() and (np.diff(timing.placed) > 0).all()


@pytest.mark.parametrize("limit", [5, 1e9])
def test_s1_alpha_is_lipschitz(parts, limit):
    skeleton, texture = parts
    for one, other in rng.random((6, 2)) * 2:
        a, b = (compose(skeleton, texture, alpha, limit).ecg_uv * MV_PER_UV for alpha in (one, other))
        assert (norm(a - b) <= abs(one - other) * norm(twelve_leads(texture)) + 2 * ROUNDING).all()


@pytest.mark.parametrize("limit", [5, 1e9])
@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
def test_s2_texture_is_lipschitz(parts, limit, size):
    skeleton, texture = parts
    other = texture + size * rng.standard_normal(texture.shape) * texture.std()
    a, b = (compose(skeleton, x, 0.6, limit).ecg_uv * MV_PER_UV for x in (texture, other))
    assert (norm(a - b) <= 0.6 * norm(twelve_leads(texture - other)) + 2 * ROUNDING).all()


@pytest.mark.parametrize("limit", [0.1, 1, 10, 50])
@pytest.mark.parametrize("louder", [1, 30, 1000])
def test_s3_the_prd_limit_holds_whatever_the_texture(parts, limit, louder):
    skeleton, texture = parts
    made = compose(skeleton, texture * louder, 2.0, limit)
    rounding_alone = 100 * ROUNDING / norm(twelve_leads(skeleton))
    for prd in (made.prd_pct, prd_pct(made.ecg_uv * MV_PER_UV, all_leads(skeleton))):
        assert (prd <= np.maximum(limit, rounding_alone)).all()
    if limit >= 10 and louder >= 30:
        assert (made.prd_pct >= 0.9 * limit).all()  # the limit is used, not merely kept


def test_s5_a_small_change_of_the_query_changes_no_donor(real):
    index, draws = index_donors(real.table, tuple(range(1, 9))), rng.random((1, 8))
    for age in (30.0, 50.0, 70.0):
        asked = queries("MI", [72.0], [age], [1])
        holders = np.flatnonzero(real.table.holds("MI")[index.rows])
        distance = np.sort(np.sqrt(_squared_distance(index, holders, asked, np.array([0]), "MI")[0]))[:9]
        gap = np.diff(distance).min()  # moving the query by delta moves every distance by at most delta
        step = 0.49 * gap * index.scale[1] / 0.7
        moved = replace(asked, age=np.float32([age + step]))
        np.testing.assert_array_equal(retrieve(index, asked, draws), retrieve(index, moved, draws))
        assert (retrieve(index, asked, draws) != retrieve(index, replace(asked, age=np.float32([age + 40])), draws)).any()
