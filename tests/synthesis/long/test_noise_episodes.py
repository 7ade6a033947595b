"""Noise of long records: in episodes, each at its own ratio, the same in whatever pieces it is made."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from making import plan_of
from scipy.signal import butter, sosfiltfilt

from ecg_batch.dataset.rows import mask_of
from ecg_batch.donors.bank import read_bank
from ecg_batch.leads import MV_PER_UV, identity_residual, twelve_leads
from ecg_batch.synthesis.long.batch import LongBatch
from ecg_batch.synthesis.long.begin import begin_records
from ecg_batch.synthesis.long.noise_episodes import ENDS, NoiseEpisodes, episode_times
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import noisy_for, open_synthesizer

OFTEN = {"per_hour": 90, "length_s": {"uniform": [3, 40]}, "snr_db": {"uniform": [-6, 18]},
         "kinds": {"muscle": 1, "electrode": 1, "baseline": 1, "static_noise": 1, "lead_off": 0.5, "clipped": 0.5}}  # fmt: skip
LONG = {"records": 4, "duration_s": 200, "batch": 4, "shard": 4, "mix": {"labels": {"NORM": 0.5, "AFIB": 0.5}}}
SAMPLES = 20_000


def make(plan, start: int = 0, stop: int = 4):
    """(ecg (record, 12, time), rows, tables of beats)."""
    batch = LongBatch(open_synthesizer(plan), query_source(plan.request, Path("unused"))(start, stop), lambda done: None)
    ecg = np.concatenate(list(batch.blocks()), axis=-1)
    rows, beats = batch.tables(0)
    return ecg, rows, list(beats)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    plan = plan_of(tmp_path_factory.mktemp("noisy"), **LONG, noise=OFTEN)
    return plan, *make(plan)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return make(plan_of(tmp_path_factory.mktemp("clean"), **LONG))


def marks(beats: pa.Table) -> list[tuple[int, str]]:
    rows = beats.to_pydict()
    found = zip(rows["sample"], rows["symbol"], rows["aux"], strict=True)
    return [(sample, aux) for sample, symbol, aux in found if symbol == "~" and aux.startswith("noise")]


@pytest.mark.slow
def test_episodes_are_annotated_where_they_begin_and_end_and_elsewhere_nothing_changes(noisy, clean):
    plan, ecg, _, beats = noisy
    for at in range(4):
        stretches = episode_times(plan.request, at)
        said = marks(beats[at])
        begins = {start for start, _ in stretches}
        assert [sample for sample, aux in said if aux != ENDS] == sorted(begins)
        assert [sample for sample, aux in said if aux == ENDS] == [
            stop for _, stop in stretches if stop < SAMPLES and stop not in begins
        ]
        outside = np.ones(SAMPLES, bool)
        for start, stop in stretches:
            outside[start:stop] = False
            assert (ecg[at, :, start:stop] != clean[0][at, :, start:stop]).any()
        np.testing.assert_array_equal(ecg[at][:, outside], clean[0][at][:, outside])
        other = beats[at].to_pandas()[["sample", "symbol", "aux"]]
        other = other[~other["aux"].str.startswith("noise")].reset_index(drop=True)
        assert other.equals(clean[2][at].to_pandas()[["sample", "symbol", "aux"]])
    assert identity_residual(ecg).max() <= 0.5


@pytest.mark.slow
def test_each_episode_has_the_ratio_that_its_annotation_says(noisy, clean):
    """Against the beats of the same seconds, without texture; those with a fault are not what was added alone."""
    plan, ecg, _, beats = noisy
    begun = begin_records(open_synthesizer(plan), query_source(plan.request, Path("unused"))(0, 4))
    measured = 0
    for at in range(4):
        begins = [aux for _, aux in marks(beats[at]) if aux != ENDS]
        for (start, stop), aux in zip(episode_times(plan.request, at), begins, strict=True):
            if "lead_off" in aux or "clipped" in aux:
                continue
            kinds, level = re.fullmatch(r"noise ([a-z_+]+) (-?\d+\.\d) dB", aux).groups()
            skeleton = twelve_leads(begun[at].skeleton(start, stop) / MV_PER_UV)
            added = ecg[at, :, start:stop].astype(float) - clean[0][at, :, start:stop]
            powers = [np.square(x - sosfiltfilt(butter(2, 0.5, fs=100, output="sos"), x)).sum() for x in (skeleton, added)]
            assert 10 * np.log10(powers[0] / powers[1]) == pytest.approx(float(level), abs=0.1)
            assert set(kinds.split("+")) <= {"muscle", "electrode", "baseline", "static_noise"}
            measured += 1
    assert measured > 5


@pytest.mark.slow
def test_rows_say_kinds_ratio_and_what_is_masked(noisy, clean):
    plan, ecg, rows, beats = noisy
    for at, row in enumerate(rows.to_pylist()):
        said = " ".join(aux for _, aux in marks(beats[at]))
        assert set(row["noise_kinds"]) == set(re.findall(r"muscle|electrode|baseline|static_noise|lead_off|clipped", said))
        assert -6 <= row["snr_db"] <= 18 and len(row["snr_db_by_lead"]) == 12
        masked = mask_of(row["masked"], SAMPLES)
        noise_at = np.zeros(SAMPLES, bool)
        for start, stop in episode_times(plan.request, at):
            noise_at[start:stop] = True
        assert not masked[:, ~noise_at].any()
        assert masked.any() == bool({"lead_off", "clipped"} & set(row["noise_kinds"]))
    assert any(rows["masked"].to_pylist()) and {"snr_db", "masked"}.isdisjoint(clean[1].column_names)


@pytest.mark.slow
def test_a_record_is_the_same_in_another_batch(noisy, tmp_path):
    plan, ecg, rows, beats = noisy
    one, rows_one, beats_one = make(plan, 2, 3)
    np.testing.assert_array_equal(one[0], ecg[2])
    assert rows_one.to_pylist() == rows.slice(2, 1).to_pylist() and beats_one[0].equals(beats[2])


def whole_of(request, step: int, skeleton, recorded=None) -> tuple[np.ndarray, NoiseEpisodes]:
    """A flat record with noise, put over it so many samples at a time."""
    ecg, noise = np.zeros((12, request.samples), np.int16), NoiseEpisodes(request, 3, skeleton, recorded=recorded)
    for first in range(0, request.samples, step):
        noise.put_over(ecg[:, first : first + step], first)
    return ecg, noise


def wave(start: int, stop: int) -> np.ndarray:
    return np.sin(np.arange(start, stop) / 5) * np.arange(1, 9)[:, None] / 8


def test_any_pieces_make_the_same(tmp_path):
    request = plan_of(tmp_path, **LONG, noise=OFTEN).request
    recorded = partial(noisy_for(request, read_bank(Path(request.bank))).stretch, host=0)
    whole, known = whole_of(request, request.samples, wave, recorded)
    for step in (6000, 777, 5):
        pieces, in_pieces = whole_of(request, step, wave, recorded)
        np.testing.assert_array_equal(pieces, whole)
        assert list(in_pieces.annotations()) == list(known.annotations())
        assert in_pieces.known().kinds == known.known().kinds
        np.testing.assert_array_equal(in_pieces.known().added, known.known().added)
        np.testing.assert_array_equal(mask_of_known(in_pieces), mask_of_known(known))


def mask_of_known(noise: NoiseEpisodes) -> np.ndarray:
    return mask_of([f"{lead}:{start}-{stop}" for lead, start, stop in noise.known().masked], SAMPLES)


@pytest.mark.parametrize(("per_hour", "share"), [(8, 8 * 20 / 3600), (60, 1 / 3), (360, 1)])
def test_episodes_come_as_often_as_asked_in_order_and_never_two_at_once(tmp_path, per_hour, share):
    """Twenty hours; where they would have to overlap, one follows the other without a gap."""
    noise = {"per_hour": per_hour, "length_s": {"uniform": [10, 30]}}
    request = plan_of(tmp_path, **{**LONG, "duration_s": 7200, "batch": 4}, noise=noise).request
    found = [np.array(episode_times(request, record)).reshape(-1, 2) for record in range(10)]
    for one in found:
        assert (one[1:, 0] >= one[:-1, 1]).all() and (one[:, 1] > one[:, 0]).all() and one.max() <= request.samples
    length = sum((one[:, 1] - one[:, 0]).sum() for one in found) / (10 * request.samples)
    assert length == pytest.approx(share, rel=0.2)
