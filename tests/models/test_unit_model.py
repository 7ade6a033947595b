"""One code a beat: the codebook's distances, the Mamba under its condition, and what training gives."""

import json

import numpy as np
import pytest
import torch
from fakes import killed_in_epoch
from torch.nn import functional as F

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank as banks
from ecg_batch.errors import UserError
from ecg_batch.models.checkpoints import load_checkpoint
from ecg_batch.models.corpus import UnitCorpus, load_unit_corpus
from ecg_batch.models.networks import UnitConfig
from ecg_batch.models.sequences.model import conditions, draw_codes
from ecg_batch.models.sequences.network import NO_CODE, network_of, plain_codes
from ecg_batch.models.sequences.train_units import UnitTraining, sequences, train_units
from ecg_batch.models.sequences.unit_model import CODE_STEP, load_unit_model, nearest
from ecg_batch.signal.noise import BAND_SCALE, NO_UNIT, has_unit, mean_level

TINY = UnitConfig(codes=16, hidden=16, d_model=16, n_layer=1)
TRAINING = UnitTraining(epochs=6, batch=16, learning_rate=1e-2, rounds=8)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return load_unit_model(BUNDLED / "units.safetensors")


@pytest.fixture(scope="module")
def said(model):
    held = banks.read_bank(BUNDLED)
    return model.said(mean_level(held.unit_level)[:40].reshape(40, -1), held.noise[:40].reshape(40, -1))


@pytest.fixture(scope="module")
def corpus():
    """400 records of 9 units. Those that a reader calls noisy have bursts, the others have not."""
    rng = np.random.default_rng(0)
    noise = np.zeros((400, 4, 8), np.uint8)
    noise[::2, 2] = 1
    level = np.full((400, 12, 8, 3), NO_UNIT, np.int8)
    level[:, :9] = np.rint(rng.normal(40, 1, (400, 9, 8, 3)))
    level[::2, :9] += np.where(rng.random((200, 9, 1, 1)) < 0.4, 20, 0).astype(np.int8)
    return UnitCorpus(level, noise, np.arange(400) % 9 + 1, 100.0)


def test_the_nearest_is_that_of_a_search_one_by_one(model):
    codebook, changes = model.codebook, np.random.default_rng(0).integers(-40, 40, (300, 24))
    scale = np.tile(BAND_SCALE, 8)
    one_by_one = [np.square((codebook - change) * scale).sum(axis=1).argmin() for change in changes]
    np.testing.assert_array_equal(nearest(codebook, changes), one_by_one)
    assert np.array_equal(np.rint(codebook / CODE_STEP) * CODE_STEP, codebook), "else distances would be rounded"


def test_conditions_are_those_of_the_network_that_was_trained(model, said):
    ours, network = conditions(model, said), network_of(model)
    theirs = network.outer(F.relu(network.inner(torch.from_numpy(said))))
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(conditions(model, said[7:8]), ours[7:8])


def test_codes_are_drawn_from_what_the_network_says(model, said):
    """Of 4,000 sequences under one condition, the shares of first codes, and of second ones after the most frequent first."""
    condition, network, said = conditions(model, said[:1]).repeat(4000, axis=0), network_of(model), torch.from_numpy(said)
    codes = torch.from_numpy(draw_codes(model, condition, np.random.default_rng(0).random((4000, 2))))
    with torch.no_grad():
        logits = network(codes[:1], said[:1])
        top = int(codes[:, 0].mode().values)
        after = network(torch.tensor([[top, 0]]), said[:1])[0, 1]
    for found, wanted in ((codes[:, 0], logits[0, 0]), (codes[codes[:, 0] == top, 1], after)):
        share = torch.bincount(found, minlength=512) / len(found)
        assert (share - wanted.softmax(0)).abs().sum() < 2.2 * (512 / len(found)) ** 0.5


def test_a_sequence_depends_on_nothing_but_itself_and_a_longer_one_begins_the_same(model, said):
    condition, uniforms = conditions(model, said), np.random.default_rng(1).random((40, 30))
    codes = draw_codes(model, condition, uniforms)
    np.testing.assert_array_equal(draw_codes(model, condition[5:6], uniforms[5:6])[0], codes[5])
    np.testing.assert_array_equal(draw_codes(model, condition[:17], np.ascontiguousarray(uniforms[:17, :9])), codes[:17, :9])


def test_the_kernel_and_plain_torch_draw_the_same(model, said):
    condition, uniforms = conditions(model, said), np.random.default_rng(2).random((40, 12))
    np.testing.assert_array_equal(plain_codes(model, condition, uniforms, 1.0), draw_codes(model, condition, uniforms))


@pytest.mark.slow
def test_what_is_learnt_follows_the_condition_and_a_killed_training_goes_on(corpus, tmp_path):
    report = train_units(corpus, tmp_path / "one", TINY, TRAINING, CPU)
    bits = report["bits_a_beat"]
    assert bits["mamba"] < bits["unigram"] - 0.2 and bits["mamba_other_conditions"] > bits["mamba"] + 0.3
    assert report["condition_gain_bits_a_beat"]["low"] > 0 and report["explained"] > 0.5
    half = tmp_path / "two"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ecg_batch.models.checkpoints.refuse_divergence", killed_in_epoch(3))
        with pytest.raises(KeyboardInterrupt):
            train_units(corpus, half, TINY, TRAINING, CPU)
    assert load_checkpoint(half / "units.checkpoint.pt", json.loads((tmp_path / "one" / "units.json").read_bytes())["settings"])
    train_units(corpus, half, TINY, TRAINING, CPU)
    assert (half / "units.safetensors").read_bytes() == (tmp_path / "one" / "units.safetensors").read_bytes()
    assert load_unit_model(half / "units.safetensors").config == TINY


def test_sequences_are_the_units_in_order(model, corpus):
    learn = sequences(network_of(model), corpus)
    assert learn.codes.shape == (400, 9) and (learn.codes != NO_CODE).all() and has_unit(corpus.level).sum() == 3600


def test_too_few_units_and_banks_of_before_are_refused(corpus, tmp_path):
    few = UnitCorpus(corpus.level[:10], corpus.noise[:10], np.array([1] * 9 + [9]), 100.0)
    with pytest.raises(UserError, match="81 units of folds 1-8 for 512 codes"):
        train_units(few, tmp_path, UnitConfig(), TRAINING, CPU)
    with pytest.raises(UserError, match=r"textures.zarr: not found; training needs"):
        load_unit_corpus(tmp_path)
    banks.write_group(tmp_path / "textures.zarr", {"fold": np.array([1, 9], np.int8)}, {"fs_hz": 100})
    with pytest.raises(UserError, match="does not say how loud its textures are"):
        load_unit_corpus(tmp_path)
