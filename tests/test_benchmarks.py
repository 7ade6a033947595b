"""The benchmarks still find what they time; what they measure is for quiet machines."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import decode, stages, texture
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


@pytest.mark.parametrize("words", [["--help"], ["decoding"]])
def test_the_command_says_what_there_is(words):
    done = subprocess.run([sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == (0 if words == ["--help"] else 2)
    assert "machine, decode, texture, stages, runs, peers" in done.stdout + done.stderr
