"""The compiled texture decoder against VqVae.decode, and against itself: widths, neighbours, threads, pieces."""

import numpy as np
import pytest
import torch
from kernel_builds import RUNS_HERE, SAME_BITS, needs_kernel, needs_two_widths

from ecg_batch.bundled import BUNDLED
from ecg_batch.kernels.texture import decode_texture as compiled_texture
from ecg_batch.kernels.texture import fits, hann_by_token
from ecg_batch.models.decode import Models, decode_texture, draw_noise, load_models, plain_texture
from ecg_batch.models.vqvae import VqVae, VqVaeConfig, smooth

pytestmark = needs_kernel


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models(BUNDLED)


def inputs(models: Models, records: int, length: int):
    tokens = torch.randint(512, (records, length), generator=torch.Generator().manual_seed(length))
    return tokens, draw_noise(models, 7, np.arange(records), length)


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 15, 64, 250, 700])
@pytest.mark.parametrize("build", RUNS_HERE)
def test_texture_is_that_of_plain_torch(models, build, length):
    """Within 1 nV and float32 rounding; a stored step is 1 uV."""
    tokens, noise = inputs(models, 5, length)
    for drawn in (noise, None):
        ours = compiled_texture(models.vqvae, tokens, drawn, build)
        torch.testing.assert_close(ours, plain_texture(models.vqvae, tokens, drawn), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("build", RUNS_HERE)
@pytest.mark.parametrize(
    "config",
    [
        VqVaeConfig(leads=3, samples_per_token=5, codes=9, dim=7, channels=13, dilations=(2, 40), noise_channels=6, drift_tokens=4),
        VqVaeConfig(leads=8, samples_per_token=20, codes=40, dim=16, channels=24, dilations=(1,), drift_tokens=50),
    ],
)
def test_any_size_of_model(config, build):
    """Sizes that no row count divides; weights large enough that sinh meets its bound; loudness that changes along a record."""
    torch.manual_seed(0)
    vqvae = VqVae(config).eval().requires_grad_(False)
    for parameter in vqvae.parameters():
        parameter.mul_(2)
    vqvae.loudness_mix.normal_()
    vqvae.scale_mv.uniform_(0.01, 0.05)
    tokens, noise = torch.randint(config.codes, (3, 90)), 0.5 * torch.randn(3, 90, config.drawn_channels)
    ours, plain = compiled_texture(vqvae, tokens, noise, build), plain_texture(vqvae, tokens, noise)
    exact = plain_texture(vqvae.double(), tokens, noise.double())
    assert exact.abs().max() > 0.1
    assert (ours - exact).abs().max() < 2 * (plain - exact).abs().max()


@needs_two_widths
def test_the_same_bits_at_every_width(models):
    wide, narrow = (compiled_texture(models.vqvae, *inputs(models, 6, 250), build) for build in SAME_BITS)
    assert torch.equal(wide, narrow)


def test_the_same_bits_alone_in_company_and_on_threads(models):
    tokens, noise = inputs(models, 9, 250)
    together = decode_texture(models, tokens, noise)
    assert torch.equal(decode_texture(models, tokens[7:8], noise[7:8])[0], together[7])
    former = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(decode_texture(models, tokens, noise), together)
    finally:
        torch.set_num_threads(former)


@pytest.mark.parametrize("start", [40, 71, 128])
def test_a_piece_has_the_bits_of_the_whole(models, start):
    """Wherever it begins: so a long texture does not depend on how it was cut."""
    tokens, noise = inputs(models, 2, 400)
    context, samples = models.vqvae.config.decoder_context, models.samples_per_token
    whole = decode_texture(models, tokens, noise)
    piece = decode_texture(models, tokens[:, start - context : start + 200], noise[:, start - context : start + 200])
    inner = slice(context * samples, -context * samples)
    assert torch.equal(piece[..., inner], whole[..., start * samples : (start + 200 - context) * samples])


@pytest.mark.slow
def test_the_hann_weights_are_those_of_smooth():
    drift = torch.randn(1, 8, 30)
    weights, half = hann_by_token(6, 4), 3
    windows = torch.nn.functional.pad(drift, (half, half), mode="replicate").unfold(-1, 7, 1)  # (1, lead, l, q)
    ours = torch.einsum("bltq,sq->blts", windows, weights).flatten(2)
    torch.testing.assert_close(ours, smooth(drift, 6, 4))


def test_nan_is_not_hidden(models):
    """Damaged weights must be seen, wherever they are."""
    tokens, noise = inputs(models, 1, 40)
    for name in ("codebook", "loudness_spread", "decoder.blocks.1.inner.bias", "decoder.last.weight"):
        damaged = VqVae(models.vqvae.config).requires_grad_(False)
        damaged.load_state_dict(models.vqvae.state_dict())
        damaged.state_dict()[name][:] = float("nan")
        assert not torch.isfinite(compiled_texture(damaged, tokens, noise)).all()


def test_a_token_that_is_none_is_refused(models):
    tokens, noise = inputs(models, 1, 40)
    tokens[0, 3] = 512
    with pytest.raises(IndexError, match="rows 0 to 511"):
        compiled_texture(models.vqvae, tokens, noise)


def test_other_precisions_and_no_records(models):
    assert not fits(VqVae(VqVaeConfig()).double())
    tokens, noise = inputs(models, 1, 40)
    assert decode_texture(models, tokens[:0], noise[:0]).shape == (0, 8, 160)
