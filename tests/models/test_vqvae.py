"""The VQ-VAE: patches round trip, a finite context, a loss that is proper, a codebook that stays in use."""

import numpy as np
import pytest
import torch

from ecg_batch.models.sizes import read_sizes
from ecg_batch.models.train_vqvae import Told, VqVaeTraining, energy_score, move_codebook, normal_scores, start
from ecg_batch.models.vqvae import VqVae, VqVaeConfig, from_patches, smooth, to_patches

SMALL = VqVaeConfig(codes=16, dim=8, channels=8, dilations=(1, 4), drift_tokens=6)


def random_vqvae(config: VqVaeConfig = SMALL) -> VqVae:
    torch.manual_seed(0)
    model = VqVae(config)
    model.scale_mv.fill_(0.03)
    return model.eval()


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_patches_round_trip():
    x = normal(3, 8, 40)
    patches = to_patches(x, 4)
    assert patches.shape == (3, 32, 10)
    assert torch.equal(patches[1, :, 2].view(8, 4), x[1, :, 8:12])  # token 2 is samples 8 .. 11 of every lead
    assert torch.equal(from_patches(patches, 8), x)


@pytest.mark.parametrize("time", [40, 1000, 5000])
@torch.no_grad()
def test_any_length_is_whole_tokens(time):
    model = random_vqvae()
    tokens = model.quantise(model.encode(0.1 * normal(2, 8, time)))
    assert tokens.shape == (2, time // 4)
    assert model.decode(model.embed(tokens)).shape == (2, 8, time)


@torch.no_grad()
def test_quantise_finds_the_nearest_row():
    model, latent = random_vqvae(), normal(2, 8, 5)
    nearest = torch.cdist(latent.transpose(1, 2), model.codebook[None]).argmin(-1)
    assert torch.equal(model.quantise(latent), nearest)
    assert torch.equal(model.quantise(model.embed(nearest)), nearest)


@pytest.mark.parametrize("part", ["latent", "noise"])
@torch.no_grad()
def test_decoder_context_is_what_it_states(part):
    """One token changed moves its context and nothing outside it, so a long texture can be decoded piece by piece."""
    model, context, centre = random_vqvae(), SMALL.decoder_context, 30
    inputs = {"latent": normal(1, 8, 60), "noise": normal(1, 60, 40, seed=1)}
    before = model.decode(**inputs)
    inputs[part][(0, slice(None), centre) if part == "latent" else (0, centre)] += 1.0
    moved = (model.decode(**inputs) != before).any(dim=1)[0].view(60, 4).any(dim=1).nonzero().flatten()
    assert moved.min() == centre - context and moved.max() == centre + context


@torch.no_grad()
def test_pieces_equal_the_whole():
    model, context = random_vqvae(), SMALL.decoder_context
    latent, noise = normal(2, 8, 100), normal(2, 100, 40, seed=1)
    whole = model.decode(latent, noise)
    piece = model.decode(latent[..., 40 - context : 60 + context], noise[:, 40 - context : 60 + context])
    torch.testing.assert_close(piece[..., 4 * context : -4 * context], whole[..., 160:240], atol=1e-6, rtol=1e-5)


def test_drift_is_smooth_and_keeps_its_level():
    """A constant stays what it is, up to the ends; a step becomes a rise over the whole kernel, centred on the step."""
    constant = smooth(torch.full((1, 8, 20), 0.7), 6, 4)
    torch.testing.assert_close(constant, torch.full((1, 8, 80), 0.7))
    step = smooth(torch.arange(20).ge(10).float().expand(1, 8, 20), 6, 4)[0, 0]
    assert step[:28].abs().max() < 1e-6 and (step[52:] - 1).abs().max() < 1e-6
    assert (step.diff() > -1e-6).all() and step.diff().max() < 0.1
    assert abs(float(step[39] + step[40]) - 1) < 0.1


def test_gradient_reaches_the_latent():
    """The judge of a later issue moves the latent before the decoder."""
    latent = normal(1, 8, 20).requires_grad_()
    random_vqvae().decode(latent, normal(1, 20, 40)).square().sum().backward()
    assert (latent.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["constant", "too quiet", "too loud", "too smooth"])
def test_energy_score_prefers_the_true_distribution(wrong):
    """White noise against a mean, wrong amplitudes and a wrong spectrum: the true distribution must score best."""
    scale = torch.full((8,), 0.02)
    x, a, b = (0.02 * normal(32, 8, 512, seed=seed) for seed in range(3))
    smooth = lambda y: (y + y.roll(1, -1)) / 2**0.5  # noqa: E731, same variance, other spectrum
    quiet, loud = (lambda y: 0.7 * y), (lambda y: 1.4 * y)
    spoil = {"constant": torch.zeros_like, "too quiet": quiet, "too loud": loud, "too smooth": smooth}[wrong]
    assert energy_score(x, a, b, scale, 100.0) < energy_score(x, spoil(a), spoil(b), scale, 100.0) - 0.005


@pytest.mark.slow
def test_loudness_is_drawn_as_it_was_in_training():
    """Normal scores of the training records are standard normal; drawn loudness has their correlation between leads."""
    noise = np.exp(normal(2000, 8).numpy() + 2 * normal(2000, 1, seed=1).numpy())  # log-normal, leads correlate by 0.8
    scores = normal_scores(noise, np.sort(noise, axis=0))
    assert abs(scores.mean()) < 0.01 and abs(scores.std() - 1) < 0.01
    session = start(Told(0.03 * normal(2000, 8, 40), torch.from_numpy(scores)), SMALL, VqVaeTraining())
    drawn = normal(20_000, 8, seed=2) @ session.model.loudness_mix.T
    torch.testing.assert_close(torch.corrcoef(drawn.T), torch.corrcoef(torch.from_numpy(scores).T), atol=0.02, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_dead_rows_start_again_at_encoder_outputs():
    session = start(Told(0.03 * normal(16, 8, 80), normal(16, 8)), SMALL, VqVaeTraining(batch=4))
    session.model.codebook[3:] = 1e3  # far from everything: never chosen
    session.codes_sum[3:] = 1e3
    z, rng = normal(400, 8), np.random.default_rng(0)
    for _ in range(600):
        move_codebook(session, z, session.model.quantise(z.T[None])[0], rng)
    assert (torch.bincount(session.model.quantise(z.T[None])[0], minlength=16) > 0).all()


def test_config_survives_json():
    config = VqVaeConfig(codes=1024, dilations=(1, 3, 9))
    assert read_sizes(VqVaeConfig, config.to_json()) == config
