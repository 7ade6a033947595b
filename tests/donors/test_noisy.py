"""Recorded noise to be lent: its holes filled, from those who have it, never from the patient who gets it."""

from dataclasses import replace

import numpy as np
import pytest

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.bank import read_bank
from ecg_batch.donors.noisy import mirrored, noisy_donors, without_holes
from ecg_batch.donors.split import as_recorded
from ecg_batch.errors import UserError
from ecg_batch.statements import NOISE_KINDS


@pytest.fixture(scope="module")
def bank():
    return read_bank(BUNDLED)


def test_holes_are_filled_as_loud_as_what_lies_beside_them_and_nothing_else_changes():
    draws, beats = np.random.default_rng(0), np.arange(40, 1000, 80)
    hole = as_recorded(1000, beats, 100)
    texture = (1 - hole) * draws.standard_normal((64, 1000)) + 3
    whole, fast = without_holes(texture, beats, 100)
    np.testing.assert_array_equal(whole[:, hole == 0], texture[:, hole == 0])
    power = np.square(fast).mean(axis=0)
    assert power[hole == 1].mean() == pytest.approx(power[hole == 0].mean(), rel=0.1)
    assert power.min() > 0.4  # at no place of a beat is there less


def test_what_stands_in_for_a_sample_is_no_hole_and_both_sides_make_its_power():
    hole = np.zeros(200, bool)
    hole[:7] = hole[20:45] = hole[50:80] = hole[190:] = True  # the second gap, of five samples, is gone through to and fro
    (before, left), (after, right) = mirrored(hole)
    np.testing.assert_allclose(left**2 + right**2, 1)
    assert not hole[before[left > 0]].any() and not hole[after[right > 0]].any()
    assert (left[:7] == 0).all() and (right[190:] == 0).all()
    assert before[20] == 19 and after[44] == 45 and before[50:58].tolist() == [49, 48, 47, 46, 45, 46, 47, 48]


def test_a_recording_without_any_gap_has_nothing_to_give():
    (_, left), (_, right) = mirrored(np.ones(50, bool))
    assert not left.any() and not right.any()


@pytest.mark.parametrize("samples", [1, 400, 1000, 6000])
def test_a_stretch_of_any_length_names_whom_it_is_from(bank, samples):
    noisy = noisy_donors(bank, np.arange(len(bank.table)), list(NOISE_KINDS))
    for kind in NOISE_KINDS:
        host = int(noisy.rows_of[kind][0])
        (made, rows), (same, _) = (noisy.stretch(kind, host, np.random.default_rng(5), samples) for _ in range(2))
        np.testing.assert_array_equal(made, same)
        assert made.shape == (8, samples) and np.isfinite(made).all() and made.any()
        assert bank.noise[rows, NOISE_KINDS.index(kind)].any(axis=1).all()
        assert bank.table.patient_id[host] not in bank.table.patient_id[rows]
        assert samples / 1000 <= len(rows) <= samples / 900 + 2


def test_a_kind_that_fewer_than_two_patients_have_is_refused(bank):
    holders = np.flatnonzero(bank.noise[:, NOISE_KINDS.index("burst_noise")].any(axis=1))
    for rows, words in ((np.flatnonzero(~bank.noise.any(axis=(1, 2))), "none has it"), (holders[:1], "only one patient has it")):
        with pytest.raises(UserError, match=f"noise.kinds.burst_noise: .*{words}"):
            noisy_donors(bank, rows, ["burst_noise"])
    with pytest.raises(UserError, match="none has it"):
        noisy_donors(replace(bank, noise=None), np.arange(100), ["static_noise"])
