"""The VQ-VAE's decoder on one thread: the compiled kernel and plain torch, a batch and a lone record, against the ceiling.

The ceiling is the time of a record's products and exponentials at the rate of the thread's multiply-adds.
"""

import numpy as np
import torch

from benchmarks.decode import BATCH, TOKENS, ceiling, on_one_thread
from benchmarks.turns import median_seconds
from ecg_batch.bundled import BUNDLED
from ecg_batch.kernels import texture as texture_kernel
from ecg_batch.models import decode
from ecg_batch.models.vqvae import VqVaeConfig
from ecg_batch.synthesis.synthesizer import _return_large_blocks

MINUTES = 1500  # tokens of a minute of a long record


def measure(rounds: int, machine: list[dict] | None, batch: int = BATCH, tokens_each: int = TOKENS) -> list[dict]:
    _return_large_blocks()  # as in a worker: else memory for a minute is a new map each time
    models = decode.load_models(BUNDLED)
    vqvae = models.vqvae
    sizes = {f"{batch} records": (batch, tokens_each), "1 record": (1, tokens_each), "1 minute": (1, MINUTES)}
    ways = {"plain torch": decode.plain_texture}
    if texture_kernel.fits(vqvae):
        ways = {"kernel": texture_kernel.decode_texture, **ways}
    candidates, tokens_of = {}, {}
    for size, (records, length) in sizes.items():
        tokens = torch.randint(vqvae.config.codes, (records, length), generator=torch.Generator().manual_seed(1))
        noise = decode.draw_noise(models, 1, np.arange(records), length)
        for way, run in ways.items():
            name = f"{way}, {size}"
            tokens_of[name] = records * length
            candidates[name] = lambda run=run, tokens=tokens, noise=noise: on_one_thread(lambda: run(vqvae, tokens, noise))
    seconds = median_seconds(candidates, rounds)
    rates = {name: tokens_of[name] / tokens_each / took for name, took in seconds.items()}
    rows = [{"what": name, "value": rate, "unit": "records/s", "beside": _ratio(rates, name)} for name, rate in rates.items()]
    return rows + ([_ceiling(vqvae.config, machine, rates[f"{next(iter(ways))}, {batch} records"], tokens_each)] if machine else [])


def _ratio(rates: dict[str, float], name: str) -> str:
    ours = rates.get(name.replace("plain torch", "kernel"))
    return f"the kernel is {ours / rates[name]:.1f} times as fast" if ours and "plain" in name else ""


def _ceiling(config: VqVaeConfig, machine: list[dict], rate: float, tokens: int) -> dict:
    flop, exps = work(config)
    most = ceiling(machine, flop, exps) / tokens
    return {
        "what": f"ceiling: {flop * tokens / 1e6:.0f} MFLOP and {exps * tokens / 1e6:.2f} M exp a record",
        "value": most,
        "unit": "records/s",
        "beside": f"the batch reaches {rate / most:.0%} of it",
    }


def work(config: VqVaeConfig) -> tuple[int, int]:
    """Floating-point operations in products, and exponentials, of one token of one record."""
    c, into, out = config.channels, config.dim + config.drawn_channels, config.leads + config.patch
    blocks = len(config.dilations) * (3 * c * 2 * c + c * c)
    drift = config.patch * (config.drift_tokens + 1)
    return 2 * (3 * into * c + blocks + 3 * c * out + drift), len(config.dilations) * c + config.leads + out
