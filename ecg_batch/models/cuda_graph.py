"""The token loop on a GPU where Triton's (kernels/token_loop_triton.py) is not: one step, captured in a CUDA graph, replayed for
every token. Not yet measured.

A step is some thirty small kernels; launched one by one from Python they would cost ten times what they compute.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch

from ecg_batch.models.mamba import MambaLM, MambaState
from ecg_batch.models.sampling import inverse_cdf

WARM_UP = 3  # steps before the capture: Triton compiles its kernels on first use, which a capture forbids


@dataclass
class Loop:
    """Tensors of fixed address that a captured step reads and writes."""

    token: torch.Tensor  # (b,) int64
    state: MambaState
    uniforms: torch.Tensor  # (b, l) float64
    tokens: torch.Tensor  # (b, l) int64
    position: torch.Tensor  # (1,) int64, the column at hand


def empty_loop(mamba: MambaLM, records: int, length: int) -> Loop:
    device = mamba.lm_head.weight.device
    return Loop(
        token=torch.zeros(records, dtype=torch.int64, device=device),
        state=mamba.empty_state(records),
        uniforms=torch.zeros(records, length, dtype=torch.float64, device=device),
        tokens=torch.zeros(records, length, dtype=torch.int64, device=device),
        position=torch.zeros(1, dtype=torch.int64, device=device),
    )


def fill(loop: Loop, last: torch.Tensor, state: MambaState, uniforms: torch.Tensor) -> None:
    loop.token.copy_(last)
    loop.state.conv.copy_(state.conv)
    loop.state.ssm.copy_(state.ssm)
    loop.uniforms.copy_(uniforms, non_blocking=True)
    loop.position.zero_()


def advance(mamba: MambaLM, loop: Loop, temperature: float) -> None:
    """One token further, all in place and with nothing read back: what a capture needs."""
    logits, _ = mamba.step(loop.token, loop.state)  # (b, v)
    uniform = loop.uniforms.index_select(1, loop.position).squeeze(1)  # (b,)
    loop.token.copy_(inverse_cdf(logits[:, : mamba.config.texture_tokens], uniform, temperature))
    loop.tokens.index_copy_(1, loop.position, loop.token[:, None])
    loop.position.add_(1)


@lru_cache(maxsize=4)
def _captured(mamba: MambaLM, records: int, length: int, temperature: float) -> tuple[Loop, torch.cuda.CUDAGraph]:
    """The loop's tensors and the graph of one step on them, for this model and these sizes."""
    loop, graph = empty_loop(mamba, records, length), torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            loop.position.zero_()
            advance(mamba, loop, temperature)
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        advance(mamba, loop, temperature)
    return loop, graph


@torch.inference_mode()
def continue_tokens(
    mamba: MambaLM, last: torch.Tensor, state: MambaState, uniforms: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """decode.continue_tokens on a GPU: (b,), state, (b, l) -> (b, l)."""
    loop, graph = _captured(mamba, *uniforms.shape, temperature)
    if not uniforms.is_cuda:
        uniforms = uniforms.pin_memory()  # else the copy waits until all before it is done
    fill(loop, last, state, uniforms)
    for _ in range(uniforms.shape[1]):
        graph.replay()
    state.conv.copy_(loop.state.conv)
    state.ssm.copy_(loop.state.ssm)
    return loop.tokens.clone()
