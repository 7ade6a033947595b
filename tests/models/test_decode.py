"""Decoding: a record depends on its own row alone, one uniform gives one token, unfit files are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ecg_batch import draws
from ecg_batch.bundled import BUNDLED
from ecg_batch.errors import UserError
from ecg_batch.models.conditions import choose_conditions, condition_of, labels_of
from ecg_batch.models.decode import (
    Models,
    conditions_of,
    continue_tokens,
    decode_texture,
    draw_noise,
    load_models,
    sample_tokens,
    token_count,
)
from ecg_batch.models.sampling import inverse_cdf
from ecg_batch.models.weights import read_weights

BATCH, LENGTH = 6, 40


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models(BUNDLED)


def uniforms(records, length=LENGTH) -> torch.Tensor:
    return torch.from_numpy(draws.uniforms(7, np.asarray(records), draws.Stream.TOKENS, length))


@pytest.mark.slow
def test_neighbours_do_not_matter(models):
    """The same row among other rows: the same bits, tokens and texture."""
    ours, theirs = np.arange(BATCH), np.array([100, 101, 2, 103, 104, 105])  # record 2 stays at place 2
    results = []
    for records, condition in ((ours, 0), (theirs, 3)):
        conditions = torch.full((BATCH,), condition)
        conditions[2] = 1
        tokens = sample_tokens(models, conditions, uniforms(records))
        results.append((tokens, decode_texture(models, tokens, draw_noise(models, 7, records, LENGTH))))
    (tokens_a, texture_a), (tokens_b, texture_b) = results
    assert torch.equal(tokens_a[2], tokens_b[2]) and torch.equal(texture_a[2], texture_b[2])
    assert not torch.equal(tokens_a[3], tokens_b[3])  # the neighbours did change


def test_twice_the_same_bits(models):
    a, b = (sample_tokens(models, torch.zeros(BATCH, dtype=torch.int64), uniforms(range(BATCH))) for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.slow
@torch.inference_mode()
def test_tokens_follow_the_slow_reference(models):
    """Token by token from forward() on the whole prefix, no state: the same tokens."""
    mamba, u = models.mamba, uniforms(range(2), 12)
    sequence = torch.tensor([[0], [1]]) + mamba.config.texture_tokens
    for t in range(12):
        logits = mamba(sequence)[:, -1, : mamba.config.texture_tokens]
        sequence = torch.cat([sequence, inverse_cdf(logits, u[:, t], 1.0)[:, None]], dim=1)
    assert torch.equal(sequence[:, 1:], sample_tokens(models, torch.tensor([0, 1]), u))


def test_state_carried_over_two_calls_equals_one_call(models):
    mamba, u = models.mamba, uniforms(range(3))
    prefix = torch.arange(3) + mamba.config.texture_tokens
    state = mamba.empty_state(3)
    first = continue_tokens(mamba, prefix, state, u[:, :17])
    second = continue_tokens(mamba, first[:, -1], state, u[:, 17:])
    assert torch.equal(torch.cat([first, second], dim=1), sample_tokens(models, torch.arange(3), u))


def test_inverse_cdf_by_hand():
    """Weights 1, 2, 1: shares [0, .25), [.25, .75), [.75, 1)."""
    logits = torch.tensor([[1.0, 2.0, 1.0]]).log().expand(6, 3)
    u = torch.tensor([0.0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(logits, u, 1.0).tolist() == [0, 0, 1, 1, 2, 2]
    assert inverse_cdf(logits[:1], u[1:2], 0.1).tolist() == [1]  # cold: the likeliest takes nearly all


@pytest.mark.slow
def test_sampled_frequencies_are_the_softmax():
    logits = torch.linspace(-2, 2, 9)
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    counts = torch.bincount(inverse_cdf(logits.expand(20_000, 9), u, 1.5), minlength=9) / 20_000
    torch.testing.assert_close(counts, torch.softmax(logits / 1.5, 0), atol=1e-4, rtol=0)


def test_condition_and_noise_have_an_effect(models):
    u = uniforms(np.zeros(64, int))
    tokens = sample_tokens(models, torch.arange(64) % len(models.conditions), u)
    assert len(torch.unique(tokens, dim=0)) > 1
    same = tokens[:1].expand(2, -1)
    texture = decode_texture(models, same, draw_noise(models, 7, np.arange(2), LENGTH))
    assert not torch.equal(texture[0], texture[1])
    assert decode_texture(models, same, None).shape == (2, 8, LENGTH * models.samples_per_token)


@pytest.mark.slow
def test_a_batch_larger_than_a_tile(models):
    tokens = torch.randint(models.vqvae.config.codes, (70, 10))
    noise = draw_noise(models, 1, np.arange(70), 10)
    whole = decode_texture(models, tokens, noise)
    assert whole.shape == (70, 8, 40) and whole.dtype == torch.float32
    torch.testing.assert_close(whole[64:], decode_texture(models, tokens[64:], noise[64:]), atol=1e-6, rtol=1e-5)


def test_longer_noise_begins_the_same(models):
    records = np.array([5, 9])
    noise = draw_noise(models, 3, records, 25)
    assert torch.equal(draw_noise(models, 3, records, 10), noise[:, :10])
    loudness = noise[:, :, models.vqvae.config.noise_channels :]
    assert (loudness == loudness[:, :1]).all() and not torch.equal(loudness[0], loudness[1])


def test_token_count_covers_every_sample(models):
    assert [token_count(models, samples) for samples in (1, 4, 5, 1000, 5000)] == [1, 1, 2, 250, 1250]


def test_textures_are_texture(models):
    """Not silent, not absurd: real texture has a standard deviation of some 0.1 mV and stays under 4 mV."""
    length = 250
    tokens = sample_tokens(models, torch.zeros(16, dtype=torch.int64), uniforms(range(16), length))
    texture = decode_texture(models, tokens, draw_noise(models, 7, np.arange(16), length))
    assert torch.isfinite(texture).all() and texture.abs().max() < 5
    assert 0.02 < texture.std() < 0.4


CONDITIONS = ("ANY", "NORM", "MI", "STTC", "CD", "HYP", "AFIB", "IMI", "SR")
SUPERCLASS_OF = {"IMI": "MI", "WPW": "CD", "NORM": "NORM"}


@pytest.mark.parametrize(
    ("label", "statements", "expected"),
    [
        ("MI", ["SR"], "MI"),  # the label itself
        ("AFIB", ["NORM"], "AFIB"),
        ("WPW", ["SR", "AFIB"], "CD"),  # too rare: its superclass
        ("TRIGU", ["SR", "IMI"], "IMI"),  # no superclass: the donor's rarest statement
        ("TRIGU", ["PVC"], "ANY"),  # nothing known
        ("ANY", ["AFIB"], "ANY"),
    ],
)
def test_condition_of(label, statements, expected):
    assert CONDITIONS[condition_of(label, statements, CONDITIONS, SUPERCLASS_OF)] == expected


def test_conditions_of_a_batch(models):
    indices = conditions_of(models, ["NORM", "no such label"], [["NORM"], []])
    assert [models.conditions[i] for i in indices.tolist()] == ["NORM", "ANY"]


def test_conditions_are_chosen_by_their_records():
    records = [labels_of(codes, SUPERCLASS_OF) for codes in [["IMI", "SR"]] * 40 + [["AFIB"]] * 39 + [["SR"]] * 9]
    assert choose_conditions(records) == ("ANY", "NORM", "MI", "STTC", "CD", "HYP", "IMI", "SR")


def copy_models(target: Path, change_vqvae: bool = False, **metadata: str) -> Path:
    """The bundled models with something changed."""
    for name in ("vqvae", "mamba"):
        tensors, stated = read_weights(BUNDLED / f"{name}.safetensors", name)
        if name == "vqvae" and change_vqvae:
            tensors["codebook"] = tensors["codebook"] + 1
        save_file(tensors, target / f"{name}.safetensors", {**stated, **(metadata if name == "mamba" else {})})
    return target


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"change_vqvae": True}, "another VQ-VAE"),
        ({"vqvae_sha256": "0" * 64}, "another VQ-VAE"),
        ({"format": "ecg-batch mamba 0"}, "needed 'ecg-batch mamba 1'"),
    ],
)
def test_models_that_do_not_match_are_refused(tmp_path, change, says):
    with pytest.raises(UserError, match=says):
        load_models(copy_models(tmp_path, **change))


def test_missing_and_damaged_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match="ecg-batch train vqvae"):
        load_models(tmp_path)
    data = (BUNDLED / "vqvae.safetensors").read_bytes()
    (tmp_path / "vqvae.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        load_models(tmp_path)


def test_bundled_files_state_what_they_are():
    """The keys that planning reads without torch."""
    _, vqvae = read_weights(BUNDLED / "vqvae.safetensors", "vqvae")
    _, mamba = read_weights(BUNDLED / "mamba.safetensors", "mamba")
    assert vqvae["fs_hz"] == mamba["fs_hz"] == "100" and int(vqvae["samples_per_token"]) == 4
    assert {"ANY", "NORM", "MI", "STTC", "CD", "HYP"} <= set(json.loads(mamba["conditions"]))
    assert sum((BUNDLED / f"{name}.safetensors").stat().st_size for name in ("vqvae", "mamba")) < 4_000_000
    assert "lm_head.weight" in load_file(BUNDLED / "mamba.safetensors")


def test_one_generator_put_to_each_record_draws_what_its_own_would():
    records = np.array([0, 5, 2**40])
    for drawn, record in zip(draws.each_generator(2**63 + 5, records, draws.Stream.TOKENS), records, strict=True):
        own = draws.generator(2**63 + 5, int(record), draws.Stream.TOKENS)
        np.testing.assert_array_equal(drawn.standard_normal(5, dtype=np.float32), own.standard_normal(5, dtype=np.float32))
        np.testing.assert_array_equal(drawn.random(9), own.random(9))
