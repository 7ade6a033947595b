"""The token loop: ours, the plain one, transformers' generate with the same weights, and mamba_ssm's on a GPU.

250 tokens a record, the texture of 10 s, unless it is told otherwise. The ceiling is the time of a record's products and
exponentials at the rate of the thread's multiply-adds.
"""

import os
from functools import partial

import torch

from benchmarks.machine import EXP_FLOP, SINGLE
from benchmarks.turns import median_seconds
from ecg_batch.bundled import BUNDLED
from ecg_batch.models import cuda_graph, decode, sampling
from ecg_batch.models.mamba import MambaConfig, MambaLM

TOKENS = 250
BATCH = 256
CUTS = ((8, 16), (4, 16), (4, 8), (2, 8))  # records and warps of a program of the loop in Triton; its own is the first


def measure(rounds: int, device: str, machine: list[dict] | None, batch: int = BATCH, tokens: int = TOKENS) -> list[dict]:
    former = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    mamba = decode.load_models(BUNDLED, device).mamba
    candidates = {
        "ours": lambda: ours(mamba, batch, tokens),
        "plain torch loop": lambda: ours(mamba, batch, tokens, sampling.plain_tokens),
    }
    if device == "cpu":
        candidates["ours, 1 thread"] = lambda: on_one_thread(lambda: ours(mamba, batch, tokens))
    theirs = {f"transformers generate, batch {size}": size for size in (batch // 4, batch)} if transformers_twin(mamba) else {}
    candidates |= {name: transformers_run(mamba, size, tokens) for name, size in theirs.items()}
    if device == "cuda":
        candidates |= on_gpu(mamba, batch, tokens) | mamba_ssm_run(mamba, batch, tokens)
    seconds = median_seconds(candidates, rounds)
    torch.set_num_threads(former)
    rates = {name: theirs.get(name, batch) / took for name, took in seconds.items()}
    rows = [{"what": name, "value": rate, "unit": "records/s", "beside": _ratio(rates, name)} for name, rate in rates.items()]
    if machine and device == "cpu":
        rows.append(_ceiling(mamba.config, machine, rates["ours, 1 thread"], tokens))
    return rows


def _ratio(rates: dict[str, float], name: str) -> str:
    return "" if name == "ours" else f"ours is {rates['ours'] / rates[name]:.1f} times as fast"


def _ceiling(config: MambaConfig, machine: list[dict], rate: float, tokens: int) -> dict:
    """From the rates that machine.py has measured on one thread."""
    flop, exps = work(config)
    most = ceiling(machine, flop, exps) / tokens
    return {
        "what": f"ceiling of 1 thread: {flop * tokens / 1e6:.0f} MFLOP and {exps * tokens / 1e6:.2f} M exp a record",
        "value": most,
        "unit": "records/s",
        "beside": f"ours reaches {rate / most:.0%} of it, on 1 thread",
    }


def ceiling(machine: list[dict], flop: float, exps: float) -> float:
    """How often a second a thread could do so much at most."""
    (peak,) = (row["value"] for row in machine if row["what"] == SINGLE)
    return 1e9 * peak / (flop + EXP_FLOP * exps)


def work(config: MambaConfig) -> tuple[int, int]:
    """Floating-point operations in products, and exponentials, of one token of one record."""
    d, d_in, n, r = config.d_model, config.d_inner, config.d_state, config.dt_rank
    layer = d * 2 * d_in + d_in * config.d_conv + d_in * (r + 2 * n) + r * d_in + 2 * d_in * n + d_in * d
    products = config.n_layer * layer + d * config.texture_tokens
    return 2 * products, config.n_layer * d_in * (n + 3) + config.texture_tokens  # 3: two silu and a softplus


def ours(mamba: MambaLM, batch: int, length: int = TOKENS, loop=decode.continue_tokens) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    uniforms = torch.rand(batch, length, dtype=torch.float64, generator=generator)
    last = torch.full((batch,), mamba.config.texture_tokens, device=mamba.lm_head.weight.device)
    tokens = loop(mamba, last, mamba.empty_state(batch), uniforms.to(last.device), 1.0)
    return tokens.cpu()  # waits for a GPU


def on_gpu(mamba: MambaLM, batch: int, tokens: int) -> dict:
    """The two loops that there are for a GPU, the one in Triton in other cuts. Not yet measured."""
    candidates = {"CUDA graph": lambda: ours(mamba, batch, tokens, cuda_graph.continue_tokens)}
    if in_triton := decode._triton_loop(mamba):
        for rows, warps in CUTS:
            loop = partial(in_triton.continue_tokens, rows=rows, warps=warps)
            name = f"Triton, {rows} records and {warps} warps a program"
            candidates[name] = lambda loop=loop: ours(mamba, batch, tokens, loop)
    return candidates


def on_one_thread(run):
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run()
    finally:
        torch.set_num_threads(former)


def transformers_twin(mamba: MambaLM):
    """transformers' model with our weights, or None where transformers is absent."""
    try:
        from transformers import MambaConfig as TheirConfig
        from transformers import MambaForCausalLM
    except ImportError:
        return None
    c = mamba.config
    sizes = {"hidden_size": c.d_model, "num_hidden_layers": c.n_layer, "state_size": c.d_state, "conv_kernel": c.d_conv}
    twin = MambaForCausalLM(TheirConfig(vocab_size=c.vocab_size, expand=c.expand, **sizes))
    twin.load_state_dict(mamba.state_dict())
    return twin.to(mamba.lm_head.weight.device).eval()


def transformers_run(mamba: MambaLM, batch: int, tokens: int):
    twin, c = transformers_twin(mamba), mamba.config
    prefix = torch.full((batch, 1), c.texture_tokens, device=mamba.lm_head.weight.device)
    beyond = list(range(c.texture_tokens, c.vocab_size))  # a condition is not texture
    asked = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": True, "top_k": 0, "suppress_tokens": beyond}

    @torch.inference_mode()
    def run() -> torch.Tensor:
        made = twin.generate(prefix, attention_mask=torch.ones_like(prefix), pad_token_id=0, **asked)[:, 1:]
        assert made.shape == (batch, tokens) and made.max() < c.texture_tokens
        return made.cpu()

    return run


def mamba_ssm_run(mamba: MambaLM, batch: int, tokens: int) -> dict:
    """mamba_ssm's own generation with CUDA graphs, where it is installed. Not yet measured."""
    try:
        from mamba_ssm.models.config_mamba import MambaConfig as TheirConfig
        from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel
    except ImportError:
        return {}
    c = mamba.config
    layer = {"d_state": c.d_state, "d_conv": c.d_conv, "expand": c.expand}
    twin = MambaLMHeadModel(
        TheirConfig(d_model=c.d_model, n_layer=c.n_layer, vocab_size=c.vocab_size, ssm_cfg=layer, fused_add_norm=False),
        device="cuda",
    )
    twin.load_state_dict(mamba.state_dict())
    prefix = torch.full((batch, 1), c.texture_tokens, device="cuda")
    asked = {"max_length": tokens + 1, "top_k": 0, "top_p": 0.0, "temperature": 1.0, "cg": True}
    return {"mamba_ssm generate, CUDA graphs": lambda: twin.eval().generate(prefix, **asked).cpu()}
