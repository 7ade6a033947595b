"""The step that a CUDA graph captures, run uncaptured on the CPU; the graph itself where there is a GPU."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ecg_batch import draws, kernels
from ecg_batch.bundled import BUNDLED
from ecg_batch.models import cuda_graph as decode_graph
from ecg_batch.models import decode
from ecg_batch.models.decode import load_models
from ecg_batch.models.sampling import plain_tokens


def start(mamba, records: int, length: int):
    device = mamba.lm_head.weight.device
    uniforms = torch.from_numpy(draws.uniforms(7, np.arange(records), draws.Stream.TOKENS, length)).to(device)
    last = (torch.arange(records) % mamba.config.condition_tokens + mamba.config.texture_tokens).to(device)
    return last, mamba.empty_state(records), uniforms


@torch.inference_mode()
def test_the_captured_step_makes_the_plain_tokens_and_state():
    mamba = load_models(BUNDLED).mamba
    last, state, uniforms = start(mamba, 4, 30)
    loop = decode_graph.empty_loop(mamba, 4, 30)
    for _ in range(2):  # the second time over what the first left
        decode_graph.fill(loop, last, state, uniforms)
        addresses = [tensor.data_ptr() for tensor in (loop.token, loop.state.conv, loop.state.ssm, loop.tokens, loop.position)]
        for _ in range(30):
            decode_graph.advance(mamba, loop, 1.0)
        assert addresses == [
            tensor.data_ptr() for tensor in (loop.token, loop.state.conv, loop.state.ssm, loop.tokens, loop.position)
        ]
    expected = plain_tokens(mamba, last, state, uniforms)
    assert torch.equal(loop.tokens, expected)
    assert torch.equal(loop.state.ssm, state.ssm) and torch.equal(loop.state.conv, state.conv)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_graph_on_a_gpu_makes_the_plain_tokens():
    mamba = load_models(BUNDLED, "cuda").mamba
    last, state, uniforms = start(mamba, 64, 100)
    expected = plain_tokens(mamba, last, mamba.empty_state(64), uniforms)
    pieces = [decode_graph.continue_tokens(mamba, last, state, uniforms[:, :60])]
    pieces.append(decode_graph.continue_tokens(mamba, pieces[0][:, -1], state, uniforms[:, 60:]))
    assert torch.equal(torch.cat(pieces, dim=1), expected)


@pytest.mark.parametrize("there", [True, False])
def test_a_gpu_takes_the_loop_in_triton_where_it_is_installed_and_fits(there, monkeypatch):
    """On a stand-in for a model on a GPU: of two layers, and of one, which the loop in Triton is not for."""
    loop = SimpleNamespace(fits=lambda mamba: mamba.layers == 2, continue_tokens="in Triton")
    monkeypatch.setitem(sys.modules, "ecg_batch.kernels.token_loop_triton", loop)
    monkeypatch.setattr(kernels, "token_loop_triton", loop, raising=False)
    monkeypatch.setattr(decode, "triton_runs", lambda: there)
    weight = SimpleNamespace(is_cuda=True)
    two, one = (SimpleNamespace(layers=layers, lm_head=SimpleNamespace(weight=weight)) for layers in (2, 1))
    assert decode._token_loop(two) == ("in Triton" if there else decode_graph.continue_tokens)
    assert decode._token_loop(one) == decode_graph.continue_tokens
