"""The compiled token loop against the plain one, and against itself: other widths, neighbours, threads, pieces."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_builds import RUNS_HERE, SAME_BITS, needs_kernel, needs_two_widths

from ecg_batch import draws
from ecg_batch.bundled import BUNDLED
from ecg_batch.kernels import token_loop
from ecg_batch.kernels.build import BUILDS, kernels
from ecg_batch.kernels.token_loop import continue_tokens as compiled_tokens
from ecg_batch.kernels.token_loop import fits
from ecg_batch.models.decode import Models, continue_tokens, load_models
from ecg_batch.models.mamba import MambaConfig, MambaLM
from ecg_batch.models.sampling import plain_tokens


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models(BUNDLED)


def uniforms(records, length: int) -> torch.Tensor:
    return torch.from_numpy(draws.uniforms(7, np.asarray(records), draws.Stream.TOKENS, length))


def run(loop, mamba, records, length, temperature=1.0, **kwargs):
    """Tokens and the state after them; record i starts from condition i mod 5."""
    records = np.asarray(records)
    state = mamba.empty_state(len(records))
    last = torch.from_numpy(records % mamba.config.condition_tokens) + mamba.config.texture_tokens
    with torch.inference_mode():
        return loop(mamba, last, state, uniforms(records, length), temperature, **kwargs), state


def test_the_kernel_is_there_where_it_can_be():
    if shutil.which("g++") is None or not BUILDS:
        pytest.skip("no C++ compiler, or no kernels for this machine")
    assert RUNS_HERE, "make .venv/installed-dev builds it; pip's output says why it did not"
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert BUILDS[-1][0] in RUNS_HERE and ("_avx2" in RUNS_HERE) == (" avx2 " in cpu and " fma " in cpu)
    assert kernels().startswith("compiled ")


@pytest.mark.slow
@needs_kernel
@pytest.mark.parametrize("build", RUNS_HERE)
@pytest.mark.parametrize("records", [1, 3, 16, 41])
def test_without_a_state_it_begins_with_the_empty_one(models, build, records):
    """And keeps none: what noise under a few beats is written with."""
    tensors = {name: tensor.numpy() for name, tensor in models.mamba.state_dict().items()}
    packed, last = token_loop.pack(models.mamba.config, tensors), np.full(records, models.mamba.config.texture_tokens)
    state = models.mamba.empty_state(records)
    empty = state.conv.numpy(), state.ssm.numpy()
    drawn = [token_loop.draw(packed, last, state, uniforms(range(records), 9).numpy(), 1.0, build=build) for state in (None, empty)]
    np.testing.assert_array_equal(*drawn)
    assert any(part.any() for part in empty)


@needs_kernel
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("build", RUNS_HERE)
def test_tokens_are_those_of_the_plain_loop(models, build, temperature):
    plain, plain_state = run(plain_tokens, models.mamba, range(256), 60, temperature)
    ours, state = run(compiled_tokens, models.mamba, range(256), 60, temperature, build=build)
    assert torch.equal(ours, plain)
    torch.testing.assert_close(state.ssm, plain_state.ssm, atol=1e-5, rtol=0)
    torch.testing.assert_close(state.conv, plain_state.conv, atol=1e-5, rtol=0)


@needs_kernel
@pytest.mark.parametrize("build", RUNS_HERE)
@pytest.mark.parametrize(
    "config",
    [
        MambaConfig(texture_tokens=100, condition_tokens=3, d_model=24, n_layer=3, d_state=5, d_conv=3),
        MambaConfig(texture_tokens=17, condition_tokens=1, d_model=16, n_layer=1, expand=3, d_state=1, d_conv=2),
    ],
)
def test_any_size_of_model(config, build):
    """Sizes that no lane, block or row count divides; weights large enough that every part moves the tokens."""
    torch.manual_seed(0)
    mamba = MambaLM(config).eval()
    with torch.no_grad():
        for parameter in mamba.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    plain, plain_state = run(plain_tokens, mamba, range(19), 80)
    ours, state = run(compiled_tokens, mamba, range(19), 80, build=build)
    assert torch.equal(ours, plain)
    torch.testing.assert_close(state.ssm, plain_state.ssm, atol=1e-4, rtol=1e-4)


@needs_two_widths
def test_the_same_bits_at_every_width(models):
    (wide, wide_state), (narrow, narrow_state) = (
        run(compiled_tokens, models.mamba, range(40), 100, build=build) for build in SAME_BITS
    )
    assert torch.equal(wide, narrow)
    assert torch.equal(wide_state.ssm, narrow_state.ssm) and torch.equal(wide_state.conv, narrow_state.conv)


@needs_kernel
def test_the_same_bits_alone_in_company_and_on_threads(models):
    together, state = run(compiled_tokens, models.mamba, range(50), 100)
    alone, alone_state = run(compiled_tokens, models.mamba, [37], 100)
    assert torch.equal(alone[0], together[37]) and torch.equal(alone_state.ssm[:, 0], state.ssm[:, 37])
    former = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        threaded, threaded_state = run(compiled_tokens, models.mamba, range(50), 100)
    finally:
        torch.set_num_threads(former)
    assert torch.equal(threaded, together) and torch.equal(threaded_state.ssm, state.ssm)


@needs_kernel
@pytest.mark.parametrize("build", RUNS_HERE)
def test_the_same_bits_however_many_records_there_are(models, build):
    """Few records take another way through the processor (lone_loop.h), the last ones of a batch too."""
    together, state = run(compiled_tokens, models.mamba, range(32), 40, build=build)
    for records in (1, 2, 4, 5, 8, 9, 12, 16, 17, 24, 25):
        ours, few = run(compiled_tokens, models.mamba, range(records), 40, build=build)
        assert torch.equal(ours, together[:records])
        assert torch.equal(few.ssm, state.ssm[:, :records]) and torch.equal(few.conv, state.conv[:, :records])


@needs_kernel
def test_pieces_join_to_the_whole(models):
    mamba, u = models.mamba, uniforms(range(20), 90)
    whole, _ = run(continue_tokens, mamba, range(20), 90)
    state, last, pieces = mamba.empty_state(20), torch.arange(20) % mamba.config.condition_tokens + mamba.config.texture_tokens, []
    for piece in u.split([1, 40, 49], dim=1):
        pieces.append(continue_tokens(mamba, last, state, piece))
        last = pieces[-1][:, -1]
    assert torch.equal(torch.cat(pieces, dim=1), whole)


@needs_kernel
def test_inputs_are_left_alone(models):
    mamba, u = models.mamba, uniforms(range(3), 5)
    last, before = torch.full((3,), 512), u.clone()
    continue_tokens(mamba, last, mamba.empty_state(3), u)
    assert torch.equal(u, before) and torch.equal(last, torch.full((3,), 512))


@needs_kernel
def test_a_uniform_next_to_one_gives_a_token(models):
    """uniform * total may round up to the total itself."""
    mamba = models.mamba
    tokens = continue_tokens(mamba, torch.full((2,), 512), mamba.empty_state(2), torch.full((2, 4), np.nextafter(1, 0)))
    assert 0 <= tokens.min() and tokens.max() < mamba.config.texture_tokens


def test_a_model_on_another_precision_takes_the_plain_loop(models):
    assert not fits(MambaLM(MambaConfig(n_layer=1)).double())
