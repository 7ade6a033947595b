"""Whole 10 s ECGs from what users would pick instead, on all threads: pip install -e '.[peers]'.

NeuroKit2 simulates; deepfake-ecg (a WaveGAN with its own weights, eight leads at 500 Hz) draws, as it is shipped, to text files,
and its network alone; ECGEN denoises (U-Net of its default size, 50 steps, as its sampler does by default). ECGEN's weights are
untrained here: what a record costs does not depend on them. None of these checks what it makes. The last is what a user would do
instead of any of them: recordings copied and classically augmented, on one thread, through the writer of this system.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.turns import median_seconds
from ecg_batch.dataset.layout import Shard
from ecg_batch.dataset.rows import rows_table
from ecg_batch.dataset.write import build_shard
from ecg_batch.leads import twelve_leads
from ecg_batch.request.parse import load_request
from ecg_batch.run.planning import make_plan
from ecg_batch.synthesis.annotate import batch_beats
from ecg_batch.synthesis.batch import make_batch
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer

DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"
SAMPLES = 1000
ECGEN_BATCH, COPIES = 8, 256
STEPS = 50


def measure(rounds: int) -> list[dict]:
    former = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as folder:
        candidates = _neurokit() | _deepfake(Path(folder)) | _ecgen() | _copied(Path(folder))
        seconds = median_seconds({name: run for name, (run, _) in candidates.items()}, min(rounds, 3))
    torch.set_num_threads(former)
    return [{"what": name, "value": candidates[name][1] / took, "unit": "records/s"} for name, took in seconds.items()]


def _neurokit() -> dict:
    """Name -> (what makes records, how many)."""
    try:
        import neurokit2
    except ImportError:
        return {}
    asked = {"duration": 10, "sampling_rate": 100, "method": "multileads"}
    return {"NeuroKit2 ecg_simulate, 12 leads": (lambda: neurokit2.ecg_simulate(**asked), 1)}


def _deepfake(folder: Path) -> dict:
    try:
        import deepfakeecg
    except ImportError:
        return {}
    network = deepfakeecg.Generator().eval()
    drawn = torch.empty(ECGEN_BATCH, 8, 5 * SAMPLES).uniform_(-1, 1)
    forward = torch.inference_mode()(lambda: network(drawn))
    return {
        "deepfake-ecg as shipped, 8 leads at 500 Hz": (lambda: deepfakeecg.generate(ECGEN_BATCH, str(folder)), ECGEN_BATCH),
        "deepfake-ecg, its network alone": (forward, ECGEN_BATCH),
    }


def _ecgen() -> dict:
    try:
        from ecgen.nn.backbones.unet1d import UNet1d
        from ecgen.processes import DDPMProcess, RectifiedFlowProcess
    except ImportError:
        return {}
    network, shape = UNet1d().eval(), (ECGEN_BATCH, 12, SAMPLES)

    def sampled(process):
        return lambda: process.sample(network, shape, steps=STEPS)

    return {
        f"ECGEN diffusion, DDIM, {STEPS} steps": (sampled(DDPMProcess()), ECGEN_BATCH),
        f"ECGEN flow matching, Euler, {STEPS} steps": (sampled(RectifiedFlowProcess()), ECGEN_BATCH),
    }


def _copied(folder: Path) -> dict:
    """Donors' recordings, louder or softer, lead by lead, shifted, with white noise and a slow wave. Rows are made once."""
    plan, _ = make_plan(load_request(DEMO, [f"records={COPIES}", f"shard={COPIES}"]))
    synthesizer, shard = open_synthesizer(plan), Shard(0, 0, COPIES)
    batch = make_batch(synthesizer, query_source(plan.request, folder)(0, COPIES))
    rows, beats = rows_table(synthesizer.bank.table, batch, 0), batch_beats(synthesizer, batch)
    bank, rng, time_s = synthesizer.bank, np.random.default_rng(0), np.arange(SAMPLES) / plan.request.fs_hz

    def run() -> None:
        at = rng.integers(0, len(bank.table), COPIES)
        x = bank.skeleton[at] + bank.texture[at].astype(np.float32)  # (record, 8, time)
        x *= rng.uniform(0.8, 1.25, (COPIES, 1, 1)) * rng.uniform(0.9, 1.1, (COPIES, 8, 1))
        x += 10 * rng.standard_normal(x.shape, np.float32)
        x += 50 * np.sin(2 * np.pi * (rng.uniform(0.1, 0.5, (COPIES, 1, 1)) * time_s + rng.random((COPIES, 8, 1))))
        x = np.stack([np.roll(one, shift, axis=-1) for one, shift in zip(x, rng.integers(0, SAMPLES, COPIES), strict=True)])
        with tempfile.TemporaryDirectory(dir=folder) as staging:
            build_shard(plan, shard, twelve_leads(np.rint(x).astype(np.int16)), rows, Path(staging), [beats])

    return {"recordings copied and classically augmented, written, 1 thread": (run, COPIES)}
