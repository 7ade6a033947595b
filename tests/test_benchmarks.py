"""The benchmarks still find what they time; what they measure is for quiet machines."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wfdb

from benchmarks import decode, joints, repetition, stages, texture
from ecg_batch.bank import BUNDLED, read_bank
from ecg_batch.long_donor import long_donor
from ecg_batch.mamba import MambaConfig
from ecg_batch.vqvae import VqVaeConfig

ROOT = Path(__file__).parents[1]


def test_every_stage_of_a_batch_takes_time():
    rows = {row["what"]: row["value"] for row in stages.measure(rounds=1)}
    assert set(stages.STAGES) < set(rows) and min(rows[name] for name in stages.STAGES) > 0
    assert sum(rows[name] for name in stages.STAGES) < rows["all"]


def test_work_of_a_token_by_hand():
    """One layer of d 1, d_in 1, n 1, k 1, r 1: 2 in, 1 conv, 3 x, 1 dt, 2 scan, 1 out, and 4 tokens' head."""
    tiny = MambaConfig(texture_tokens=4, d_model=1, n_layer=1, expand=1, d_state=1, d_conv=1)
    assert decode.work(tiny) == (2 * (2 + 1 + 3 + 1 + 2 + 1 + 4), 1 + 3 + 4)


def test_work_of_the_texture_decoder_by_hand():
    """One lead, one sample, d 1, c 1, e 1, one block, drift over 2 tokens: in 3 * 3, block 6 + 1, out 3 * 2, drift 3."""
    tiny = VqVaeConfig(leads=1, samples_per_token=1, dim=1, channels=1, dilations=(1,), noise_channels=1, drift_tokens=2)
    assert texture.work(tiny) == (2 * (9 + 7 + 6 + 3), 1 + 1 + 2)


def test_what_recurs_is_found_and_what_does_not_is_not():
    once = np.random.default_rng(0).normal(size=(8, 6000))
    again, beats = np.concatenate([once, once], axis=1), np.arange(0, 12_000, 80)
    assert repetition.highest(again, np.arange(0, 12_000, 75), 1000) == pytest.approx(1)  # 6000 is a multiple of 75, not of 80
    assert repetition.highest(again, beats, 1000) == pytest.approx(1) and repetition.highest(once, beats, 1000) < 0.2
    assert np.isnan(repetition.highest(once, beats[:1], 1000))


def test_a_wfdb_record_is_read_at_100_hz(tmp_path):
    time = np.arange(20_000) / 250
    wave = np.stack([np.sin(2 * np.pi * time), np.cos(2 * np.pi * 3 * time)], axis=1)
    wfdb.wrsamp("two", 250, ["mV", "mV"], ["II", "V5"], wave, fmt=["16", "16"], write_dir=str(tmp_path))
    names, leads = repetition.recording(str(tmp_path / "two"))
    assert names == ["II", "V5"] and leads.shape == (2, 8000)
    np.testing.assert_allclose(leads[:, 500:-500], np.stack([np.sin(2 * np.pi * np.arange(8000) / 100),
                               np.cos(2 * np.pi * 3 * np.arange(8000) / 100)])[:, 500:-500], atol=0.01)  # fmt: skip


def test_joints_beside_ectopic_beats_are_held_against_intervals_alike():
    bank = read_bank(BUNDLED)
    row = next(row for row in range(len(bank.table)) if "BIGU" in bank.table.scp_codes(row))
    one = joints._skeleton(long_donor(bank, row), float(bank.table.hr_bpm[row]), row)
    beside = one.ectopic[1]
    joined, plain = joints.alike(one, beside)
    assert len(joined) == len(plain) >= joints.FEWEST and len(set(plain)) == len(plain)
    interval = np.searchsorted(one.interval.start, np.concatenate([joined, plain]), side="right") - 1
    assert beside[interval].all() and one.is_seam[interval[: len(joined)]].all() and not one.is_seam[interval[len(joined) :]].any()


@pytest.mark.parametrize("words", [["--help"], ["decoding"]])
def test_the_command_says_what_there_is(words):
    done = subprocess.run([sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == (0 if words == ["--help"] else 2)
    assert "machine, decode, texture, stages, runs, peers" in done.stdout + done.stderr
