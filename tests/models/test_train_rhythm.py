"""Which beat comes next, and when: the codes, what is learnt from recordings of ten seconds, and that it holds for long."""

import json

import numpy as np
import pytest
import torch
from fakes import killed_in_epoch

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank as banks
from ecg_batch.errors import UserError
from ecg_batch.models.checkpoints import load_checkpoint
from ecg_batch.models.corpus import RhythmCorpus, load_rhythm_corpus
from ecg_batch.models.networks import RhythmConfig
from ecg_batch.models.sequences.model import SequenceModel, conditions, draw_codes
from ecg_batch.models.sequences.network import NO_CODE
from ecg_batch.models.sequences.rhythm_codes import CODES, EDGES, STATEMENTS, STEPS, SYMBOLS, beats_of, codes_of, said
from ecg_batch.models.sequences.train_rhythm import CHAIN, RhythmTraining, alike, beats_of_corpus, chains, difference, train_rhythm
from ecg_batch.models.weights import load_arrays

TINY, CPU = RhythmConfig(hidden=16, d_model=16, n_layer=1), torch.device("cpu")
TRAINING = RhythmTraining(epochs=6, batch=60, learning_rate=1e-2)


@pytest.fixture(scope="module")
def corpus():
    """900 records of 14 beats at 100 Hz: a third regular, a third in fibrillation, a third with a ventricular beat every third."""
    rng, held = np.random.default_rng(0), np.zeros((900, len(STATEMENTS)), bool)
    rr, symbol = np.full((900, 13), 80.0), np.full((900, 14), "N")
    rr += rng.normal(0, 1, rr.shape)
    rr[::3] = rng.uniform(45, 120, (300, 13))
    rr[1::3, 2::3], rr[1::3, 3::3], symbol[1::3, 3::3] = 50, 110, "V"
    held[::3, STATEMENTS.index("AFIB")], held[1::3, STATEMENTS.index("PVC")] = True, True
    r = np.rint(np.cumsum(np.concatenate([np.full((900, 1), 20), rr], axis=1), axis=1)).astype(np.int64)
    return RhythmCorpus(r, symbol, held, np.full(900, 60.0), np.arange(900), np.arange(900) // 3 % 9 + 1, 100.0)


def test_a_beat_comes_back_from_its_code_within_its_step():
    ratio = np.exp(np.random.default_rng(0).uniform(-1.2, 1.2, 500))
    symbol = np.random.default_rng(1).integers(0, 3, 500)
    again, found = beats_of(codes_of(symbol, ratio), np.random.default_rng(2).random(500))
    assert np.array_equal(again, symbol)
    width = np.diff(EDGES)[np.clip(np.searchsorted(EDGES, np.log(ratio)) - 1, 0, len(EDGES) - 2)]
    assert (np.abs(np.log(found / ratio)) <= width + 1e-5).all()
    assert CODES == len(SYMBOLS) * STEPS and (np.diff(EDGES) > 0.009).all()


def test_chains_are_of_records_alike_and_their_joints_are_not_learnt(corpus):
    learn = beats_of_corpus(corpus, corpus.fold < 9)
    followers = alike(learn)
    irregular = learn.rhythm == "fibrillation"  # no two of them are equal
    assert (followers[irregular, 0] == np.flatnonzero(irregular)).all()
    assert (learn.rhythm[followers] == learn.rhythm[:, None]).all()
    codes, wanted = (part.numpy() for part in chains(learn, followers, np.arange(30), np.random.default_rng(0)))
    assert codes.shape == wanted.shape == (30, CHAIN)
    assert (np.flatnonzero(wanted[0] == NO_CODE) % 13 == 0).all() and (wanted[0] == NO_CODE).sum() == (CHAIN - 1) // 13
    assert np.array_equal(codes[wanted != NO_CODE], wanted[wanted != NO_CODE])


def test_the_interval_is_by_patient():
    """Ten recordings of one patient are one: their interval is as wide as that of a patient's one, and wider than ten patients'."""
    rng = np.random.default_rng(0)
    more = np.stack([rng.normal(30, 8, 40), np.full(40, 12.0)], axis=1)
    less = np.stack([np.full(40, 28.0), np.full(40, 12.0)], axis=1)
    by_record = difference(more, less, np.arange(40), 0)
    repeated = difference(more.repeat(10, axis=0), less.repeat(10, axis=0), np.arange(40).repeat(10), 0)
    assert repeated == pytest.approx(by_record)
    assert by_record["mean"] == pytest.approx((more - less)[:, 0].sum() / 480)
    assert by_record["low"] < by_record["mean"] < by_record["high"]


@pytest.mark.slow
def test_what_is_learnt_follows_the_statement_for_hours_and_a_killed_training_goes_on(corpus, tmp_path):
    report = train_rhythm(corpus, tmp_path / "one", TINY, TRAINING, CPU)
    for rhythm in ("fibrillation", "ectopic", "sinus"):
        assert report[rhythm]["condition_gain_bits_a_beat"]["low"] > 0
    assert report["ectopic"]["bits_a_beat"]["mamba"] < report["ectopic"]["bits_a_beat"]["unigram"] - 0.5
    model = SequenceModel(*load_arrays(tmp_path / "one" / "rhythm.safetensors", "rhythm"))
    held = np.array([[code == name for code in STATEMENTS] for name in ("AFIB", "PVC", "SR")])
    condition = conditions(model, said(held, np.full(3, 0.8), np.full(3, 60.0)))
    numbers = np.random.default_rng(0).random((3, 4000, 2))
    codes = draw_codes(model, condition, np.ascontiguousarray(numbers[..., 0]))
    symbol, ratio = beats_of(codes, numbers[..., 1])
    late = slice(3000, None)
    assert (symbol[:, late] == 1).mean(axis=1) == pytest.approx([0, 1 / 3, 0], abs=0.06)
    assert ratio[0, late].std() == pytest.approx(0.26, abs=0.05) and ratio[2, late].std() < 0.06
    early = ratio[1, late][symbol[1, late] == 1]
    assert np.median(early) == pytest.approx(0.625, abs=0.05)
    half = tmp_path / "two"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ecg_batch.models.checkpoints.refuse_divergence", killed_in_epoch(3))
        with pytest.raises(KeyboardInterrupt):
            train_rhythm(corpus, half, TINY, TRAINING, CPU)
    assert load_checkpoint(half / "rhythm.checkpoint.pt", json.loads((tmp_path / "one" / "rhythm.json").read_bytes())["settings"])
    train_rhythm(corpus, half, TINY, TRAINING, CPU)
    assert (half / "rhythm.safetensors").read_bytes() == (tmp_path / "one" / "rhythm.safetensors").read_bytes()


def test_the_kernel_and_plain_torch_draw_the_same_beats():
    from ecg_batch.models.sequences.network import plain_codes

    model = SequenceModel(*load_arrays(BUNDLED / "rhythm.safetensors", "rhythm"))
    held = np.random.default_rng(0).random((5, len(STATEMENTS))) < 0.2
    condition = conditions(model, said(held, np.linspace(0.5, 1.2, 5), np.array([20, 40, np.nan, 80, 95.0])))
    uniforms = np.random.default_rng(2).random((5, 60))
    np.testing.assert_array_equal(plain_codes(model, condition, uniforms, 1.0), draw_codes(model, condition, uniforms))


def test_banks_of_before_and_records_of_unknown_beats_are_refused(corpus, tmp_path):
    banks.write_group(tmp_path / "textures.zarr", {"fold": np.array([1, 9], np.int8)}, {"fs_hz": 100})
    with pytest.raises(UserError, match="does not say where its beats are, as banks before 0.5.0"):
        load_rhythm_corpus(tmp_path)
    with pytest.raises(UserError, match="none has 5 beats that are all known"):
        beats_of_corpus(corpus, np.zeros(900, bool))
