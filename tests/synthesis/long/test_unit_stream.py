"""Recorded texture of long records: in time with every beat, the same whatever was made before it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from making import plan_of

from ecg_batch.synthesis.long.batch import LongBatch
from ecg_batch.synthesis.long.begin import begin_records
from ecg_batch.synthesis.long.unit_stream import UnitStreams
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    mix = {"labels": {"NORM": 0.5, "AFIB": 0.25, "PVC": 0.25}}
    return plan_of(tmp_path_factory.mktemp("long"), records=8, duration_s=150, batch=8, shard=8, mix=mix)


@pytest.fixture(scope="module")
def synthesizer(plan):
    return open_synthesizer(plan)


@pytest.fixture(scope="module")
def queries(plan):
    return query_source(plan.request, Path("unused"))(0, 8)


@pytest.fixture(scope="module")
def textures(plan, synthesizer, queries):
    return UnitStreams(synthesizer.units, plan.request, queries.record, begin_records(synthesizer, queries)).textures


@pytest.mark.slow
def test_any_stretch_of_texture_is_the_same_bits(textures):
    for texture in textures:
        whole = texture.between(-30, 15_030)
        pieces = [texture.between(*ends) for ends in ((-30, 5), (5, 6000), (6000, 6001), (6001, 15_030))]
        np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)
        assert np.isfinite(whole).all()


def test_drift_goes_on_without_a_step_and_as_loud_as_recorded(textures, synthesizer):
    for texture in textures:
        drift = texture.drift(0, 15_000)
        recorded = np.stack([synthesizer.units.drift(row) for row in np.unique(texture.piece_row)]).astype(np.float64)
        assert np.abs(np.diff(drift)).max() <= 2.5 * np.abs(np.diff(recorded)).max()
        assert 0.4 < np.sqrt(np.square(drift).mean() / np.square(recorded).mean()) < 1.8


def test_all_beats_have_units_of_many_donors_of_other_patients(textures, synthesizer, queries):
    for texture in textures:
        assert len(texture.laid.unit) == len(texture.laid.r) > 100
        assert len(texture.rows) > 25


@pytest.mark.slow
def test_minutes_of_a_batch_are_those_of_a_record_alone(synthesizer, queries):
    def made(of, asked):
        batch = LongBatch(of, asked, lambda done: None)
        return np.concatenate(list(batch.blocks()), axis=-1), batch.tables(0)[0]

    ecg, rows = made(synthesizer, queries)
    alone, row = made(replace(synthesizer, request=replace(synthesizer.request, batch=1)), queries.take(np.array([5])))
    np.testing.assert_array_equal(alone[0], ecg[5])
    assert row["texture_ecg_id"].to_pylist() == rows["texture_ecg_id"].to_pylist()[5:6]
    donors, lenders = rows["donor_patient_id"].to_pylist(), rows["texture_patient_id"].to_pylist()
    assert all(len(held) >= 4 and donor not in held for donor, held in zip(donors, lenders, strict=True))
    assert set(rows["alpha"].to_pylist()) == {1.0}
