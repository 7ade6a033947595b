"""Whole 10 s 12-lead ECGs from what users would pick instead, on all threads: pip install -e '.[peers]'.

NeuroKit2 simulates; ECGEN denoises (U-Net of its default size, 50 steps, as its sampler does by default). ECGEN's weights are
untrained here: what a record costs does not depend on them. Neither checks or writes what it makes.
"""

import os

import torch

from benchmarks.turns import median_seconds

SAMPLES = 1000
ECGEN_BATCH = 8
STEPS = 50


def measure(rounds: int) -> list[dict]:
    former = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    candidates = {**_neurokit(), **_ecgen()}
    seconds = median_seconds(candidates, min(rounds, 3))
    torch.set_num_threads(former)
    made = {name: ECGEN_BATCH if name.startswith("ECGEN") else 1 for name in candidates}
    return [{"what": name, "value": made[name] / took, "unit": "records/s"} for name, took in seconds.items()]


def _neurokit() -> dict:
    try:
        import neurokit2
    except ImportError:
        return {}
    asked = {"duration": 10, "sampling_rate": 100, "method": "multileads"}
    return {"NeuroKit2 ecg_simulate, 12 leads": lambda: neurokit2.ecg_simulate(**asked)}


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
        f"ECGEN diffusion, DDIM, {STEPS} steps": sampled(DDPMProcess()),
        f"ECGEN flow matching, Euler, {STEPS} steps": sampled(RectifiedFlowProcess()),
    }
