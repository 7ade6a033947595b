"""Training on tiny data: a killed run resumes exactly, it learns, reports find what is wrong, bad input is refused."""

import io
import json
import pickle
import shutil
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file

import ecg_batch.models.train_mamba as train_mamba_module
import ecg_batch.models.train_vqvae as train_vqvae_module
from ecg_batch.cli.main import main
from ecg_batch.cli.settings import settings
from ecg_batch.errors import UserError
from ecg_batch.models.corpus import load_corpus, split
from ecg_batch.models.decode import load_models
from ecg_batch.models.mamba import MambaConfig
from ecg_batch.models.report import compare, write_report
from ecg_batch.models.train_mamba import MambaTraining, bigram_bits, pair_counts, train_mamba, unigram
from ecg_batch.models.train_vqvae import VqVaeTraining, train_vqvae
from ecg_batch.models.vqvae import VqVaeConfig
from ecg_batch.sums import list_of

CPU = torch.device("cpu")
CONFIG = VqVaeConfig(codes=32, dim=8, channels=8, dilations=(1,), drift_tokens=4)
VQVAE = VqVaeTraining(epochs=4, batch=8, crop_s=1.0)
MAMBA_CONFIG = MambaConfig(d_model=16, n_layer=1, d_state=4)
MAMBA = MambaTraining(epochs=4, batch=8, learning_rate=1e-2)


def write_bank(folder: Path, records: int = 48, time: int = 320, fs_hz: float = 100, folds=(1, 8, 9), leads: int = 8) -> Path:
    """Texture that has something to learn: a drift, and noise that is loud in the records of one label."""
    rng = np.random.default_rng(0)
    drift = np.cumsum(rng.standard_normal((records, leads, time)), axis=-1) * 4
    loud = np.arange(records) % 2
    noise = rng.standard_normal((records, leads, time)) * (5 + 60 * loud)[:, None, None]
    group = zarr.open_group(folder / "textures.zarr", mode="w")
    likelihood = np.full((records, 2), -1, np.int8)
    likelihood[np.arange(records), loud] = 100
    ids = np.arange(records, dtype=np.int32)
    arrays = {"texture": (drift + noise).astype(np.int16), "fold": np.resize(folds, records).astype(np.int8),
              "ecg_id": ids, "patient_id": ids, "likelihood": likelihood}  # fmt: skip
    for name, values in arrays.items():
        group.create_array(name, data=values)
    group.attrs.update(fs_hz=fs_hz, codes=["NORM", "AFIB"], superclass_of={"NORM": "NORM"})
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return load_corpus(write_bank(tmp_path_factory.mktemp("bank")))


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("models")
    reports = (
        train_vqvae(corpus, out, CONFIG, VQVAE, CPU),
        train_mamba(corpus, out, MAMBA_CONFIG, MAMBA, CPU),
    )
    return out, *reports


class Killed(Exception):
    pass


def kill_in_epoch(monkeypatch, module, epoch: int) -> None:
    """The training ends in the middle of this epoch, as if killed: after the checkpoint of the one before."""
    original = module.train_epoch

    def dying(*args):
        if any(isinstance(argument, int) and argument == epoch for argument in args):
            raise Killed
        return original(*args)

    monkeypatch.setattr(module, "train_epoch", dying)


@pytest.mark.slow
def test_killed_and_resumed_vqvae_equals_one_run(corpus, trained, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_in_epoch(patch, train_vqvae_module, 2)
        with pytest.raises(Killed):
            train_vqvae(corpus, tmp_path, CONFIG, VQVAE, CPU)
    assert not (tmp_path / "vqvae.safetensors").exists()
    train_vqvae(corpus, tmp_path, CONFIG, VQVAE, CPU)
    assert_same_weights(tmp_path / "vqvae.safetensors", trained[0] / "vqvae.safetensors")


@pytest.mark.slow
def test_killed_and_resumed_mamba_equals_one_run(corpus, trained, tmp_path, monkeypatch):
    (tmp_path / "vqvae.safetensors").write_bytes((trained[0] / "vqvae.safetensors").read_bytes())
    with monkeypatch.context() as patch:
        kill_in_epoch(patch, train_mamba_module, 2)
        with pytest.raises(Killed):
            train_mamba(corpus, tmp_path, MAMBA_CONFIG, MAMBA, CPU)
    train_mamba(corpus, tmp_path, MAMBA_CONFIG, MAMBA, CPU)
    assert_same_weights(tmp_path / "mamba.safetensors", trained[0] / "mamba.safetensors")


def assert_same_weights(a: Path, b: Path) -> None:
    ours, theirs = load_file(a), load_file(b)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.slow
def test_tokens_of_all_phases_are_made_without_the_corpus_once_for_each(corpus, trained):
    vqvae = train_mamba_module.read_vqvae(trained[0] / "vqvae.safetensors", corpus, CPU)
    large = replace(corpus, texture_mv=np.tile(corpus.texture_mv, (20, 1, 1)), fold=np.tile(corpus.fold, 20),
                    statements=corpus.statements * 20)  # fmt: skip
    tracemalloc.start()
    made = train_mamba_module.tokenise(large, vqvae, ("ANY", "NORM"), CPU)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < large.texture_mv.nbytes / 4
    samples, time = vqvae.config.samples_per_token, large.texture_mv.shape[-1]
    with torch.no_grad():
        for phase in range(samples):
            x = torch.from_numpy(large.texture_mv[..., phase : phase + time - samples].copy())
            assert torch.equal(made.tokens[phase], torch.cat([vqvae.quantise(vqvae.encode(part)) for part in x.split(64)]))


def test_how_much_memory_texture_takes_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    load_corpus(write_bank(tmp_path, records=1200, time=400))
    assert "1,200 records of texture, 0.02 GB in memory" in caplog.text


@pytest.mark.slow
def test_training_learns(corpus, trained, tmp_path):
    vqvae = train_vqvae(corpus, tmp_path, CONFIG, replace(VQVAE, epochs=8, batch=4, learning_rate=1e-2), CPU)
    assert vqvae["curves"]["fold 9"][-1] < 0.97 * vqvae["curves"]["fold 9"][0]  # 0.9504 on an Intel Xeon with AVX-512
    mamba = trained[2]
    assert mamba["curves"]["fold 9"][-1] < mamba["curves"]["fold 9"][0] - 0.1
    assert mamba["bits_per_token"]["mamba"] < mamba["bits_per_token"]["unigram"]


@pytest.mark.slow
def test_reports_and_curves_are_written(trained):
    out, vqvae, mamba = trained
    assert json.loads((out / "vqvae.json").read_bytes())["perplexity"] == vqvae["perplexity"]
    assert json.loads((out / "mamba.json").read_bytes())["bits_per_token"] == mamba["bits_per_token"]
    for name in ("vqvae_curves.png", "mamba_curves.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_checkpoint_of_other_settings_is_refused(corpus, trained):
    with pytest.raises(UserError, match="other values of learning_rate"):
        train_vqvae(corpus, trained[0], CONFIG, replace(VQVAE, learning_rate=1e-4), CPU)


@pytest.mark.slow
def test_report_holds_generated_against_real(corpus, trained, tmp_path):
    line = write_report(corpus, load_models(trained[0]), tmp_path)
    report = json.loads((tmp_path / "texture.json").read_bytes())
    assert "generated" in line
    assert set(report["generated"]) == {"spectral_db", "spectral_db_typical", "amplitude", "level"}
    assert (tmp_path / "texture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_distances_find_what_is_wrong(corpus):
    """Twice as loud: 6.02 dB everywhere and an amplitude distance; the same texture: nothing."""
    x = corpus.texture_mv
    same, louder = compare(x, x, 100.0), compare(2 * x, x, 100.0)
    assert set(same["spectral_db"].values()) == {0.0} and set(same["amplitude"].values()) == {0.0}
    assert all(abs(value - 6.02) < 0.01 for value in louder["spectral_db"].values())
    assert min(louder["amplitude"].values()) > 0.5
    assert all(abs(value - np.log10(2)) < 0.01 for value in louder["level"].values())


@pytest.mark.slow
def test_other_rate_and_length_are_the_same_code(tmp_path):
    """500 Hz: another bank, other weights, nothing else."""
    corpus = load_corpus(write_bank(tmp_path, time=600, fs_hz=500))
    train_vqvae(corpus, tmp_path, CONFIG, replace(VQVAE, epochs=1, crop_s=0.8), CPU)
    train_mamba(corpus, tmp_path, MAMBA_CONFIG, replace(MAMBA, epochs=1), CPU)
    assert load_models(tmp_path).fs_hz == 500


def test_bigram_by_hand():
    """Tokens 0 1 0 1: after 0 comes 1 twice, after 1 comes 0 once; unsmoothed the pairs cost nothing."""
    tokens = np.array([[0, 1, 0, 1]])
    counts = pair_counts(tokens, 2)
    assert counts.tolist() == [[0, 2], [1, 0]]
    first = -np.log2(unigram(counts)[0])
    assert bigram_bits(counts, tokens, 1e-9) == pytest.approx(first / 4)
    assert bigram_bits(counts, tokens, 1e9) == pytest.approx(-np.log2(unigram(counts)[tokens]).mean())


def test_split_keeps_patients_of_fold_9_apart(corpus):
    train, validation = split(corpus)
    assert set(train.fold) == {1, 8} and set(validation.fold) == {9} and len(train) + len(validation) == len(corpus)


@pytest.mark.parametrize(
    ("bank", "says"),
    [({"folds": (1, 2)}, "fold 9 to validate on"), ({"folds": (1, 9, 10)}, "fold 10"), ({"leads": 7}, "shape")],
)
def test_unfit_banks_are_refused(tmp_path, bank, says):
    with pytest.raises(UserError, match=says):
        load_corpus(write_bank(tmp_path, records=12, time=40, **bank))


def test_missing_bank_and_missing_vqvae_are_refused(tmp_path, corpus):
    with pytest.raises(UserError, match="ecg-batch prepare"):
        load_corpus(tmp_path)
    with pytest.raises(UserError, match="ecg-batch train vqvae"):
        train_mamba(corpus, tmp_path, MAMBA_CONFIG, MAMBA, CPU)


def test_settings_from_the_command_line():
    pairs = ["channels=96", "dilations=1,2", "learning_rate=1e-3"]
    config, training = settings(pairs, VqVaeConfig(), VqVaeTraining(), fixed=("leads",))
    assert (config.channels, config.dilations, training.learning_rate) == (96, (1, 2), 1e-3)


VQVAE_CANNOT = ("noise_channels=5", "noise_channels=0", "codes=0", "codes=1", "batch=0", "epochs=0", "dim=0", "channels=0",
                "dilations=0", "drift_tokens=3", "samples_per_token=0", "crop_s=0", "learning_rate=nan", "learning_rate=inf",
                "learning_rate=0", "commitment=nan", "codes=99999999999", "seed=99999999999999999999999")  # fmt: skip
MAMBA_CANNOT = ("d_conv=0", "d_state=0", "d_model=0", "n_layer=0", "expand=0", "batch=0", "epochs=0", "weight_decay=inf")
JUDGE_CANNOT = ("steps=-1", "steps=5", "batch=0", "widths=0,0", "blocks=0", "kernel=4", "dropout=1", "window_s=0", "window_s=nan",
                "stem_stride=0", "look_every=-1", "augment=3")  # fmt: skip


CANNOT = {"vqvae": VQVAE_CANNOT, "mamba": MAMBA_CANNOT, "judge": JUDGE_CANNOT}


@pytest.mark.parametrize(("what", "pair"), [(what, pair) for what, pairs in CANNOT.items() for pair in pairs])
def test_sizes_that_torch_refuses_are_refused_in_words_before_anything_is_loaded(tmp_path, what, pair, capsys):
    source = ["--ptbxl" if what == "judge" else "--bank", str(tmp_path / "nowhere")]
    assert main(["train", what, *source, "--out", str(tmp_path / "models"), "--set", pair]) == 2
    said = capsys.readouterr().err
    assert "--set" in said and pair.split("=")[0] in said and "needed" in said and "nowhere" not in said
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(("perplexity", "warns"), [(3.0, True), (25.0, True), (300.0, False)])
def test_a_collapsed_codebook_is_said_in_another_tone_than_a_good_one(tmp_path, monkeypatch, caplog, capsys, perplexity, warns):
    found = {"perplexity": perplexity, "codes_used": 4}
    monkeypatch.setattr(train_vqvae_module, "train_vqvae", lambda *_: found)
    bank = str(write_bank(tmp_path, records=12, time=40))
    assert main(["train", "vqvae", "--bank", bank, "--out", str(tmp_path / "models")]) == 0
    said = caplog.text + capsys.readouterr().err
    assert ("codebook has collapsed" in said) == warns


@pytest.mark.slow
def test_a_finished_training_leaves_its_files_alone_when_it_is_repeated(corpus, trained):
    def state():
        return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(trained[0].iterdir())}

    before = state()
    assert train_vqvae(corpus, trained[0], CONFIG, VQVAE, CPU)["perplexity"] == trained[1]["perplexity"]
    assert train_mamba(corpus, trained[0], MAMBA_CONFIG, MAMBA, CPU)["bits_per_token"] == trained[2]["bits_per_token"]
    assert state() == before
    sums = list_of(trained[0] / "vqvae.safetensors")
    (trained[0] / "vqvae.json").unlink()
    train_vqvae(corpus, trained[0], CONFIG, VQVAE, CPU)  # what is gone is made again, and the weights stay the same file
    after = state()
    assert after["vqvae.safetensors"] == before["vqvae.safetensors"] and "vqvae.json" in after and sums.is_file()
    load_models(trained[0])


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [
    lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"foreign",
    lambda data: data[:2000] + b"\0" * 64 + data[2064:],
    lambda data: pickle.dumps({"settings": {}}), lambda data: zipped(b"x"),
])  # fmt: skip
def test_damaged_checkpoints_name_file_and_remedy(corpus, trained, tmp_path, spoil):
    for name in ("vqvae.safetensors", "vqvae.checkpoint.pt", "mamba.checkpoint.pt"):
        shutil.copy(trained[0] / name, tmp_path)
    for name in ("vqvae", "mamba"):
        path = tmp_path / f"{name}.checkpoint.pt"
        path.write_bytes(spoil(path.read_bytes()))
    for train in (
        lambda: train_vqvae(corpus, tmp_path, CONFIG, VQVAE, CPU),
        lambda: train_mamba(corpus, tmp_path, MAMBA_CONFIG, MAMBA, CPU),
    ):
        with pytest.raises(UserError, match=r"checkpoint\.pt: no checkpoint.*Remove the file"):
            train()


def zipped(content: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr("x", content)
    return held.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1e6, 1e12])
def test_a_loss_that_is_no_number_ends_training_in_its_epoch(corpus, trained, tmp_path, rate):
    shutil.copy(trained[0] / "vqvae.safetensors", tmp_path)
    with pytest.raises(UserError, match="vqvae: the loss is .* in epoch [1-3], .* lower"):
        train_vqvae(corpus, tmp_path, CONFIG, replace(VQVAE, learning_rate=rate, epochs=60), CPU)
    with pytest.raises(UserError, match="mamba: the loss is .* in epoch [1-3], .* lower"):
        train_mamba(corpus, tmp_path, MAMBA_CONFIG, replace(MAMBA, learning_rate=rate, epochs=60), CPU)
    assert not (tmp_path / "mamba.safetensors").exists()


@pytest.mark.parametrize(("config", "crop_s"), [({"samples_per_token": 200}, 1.0), ({"samples_per_token": 20}, 0.1)])
def test_records_and_crops_shorter_than_tokens_are_refused(corpus, tmp_path, config, crop_s):
    with pytest.raises(UserError, match="samples_per_token"):
        train_vqvae(corpus, tmp_path, replace(CONFIG, **config), replace(VQVAE, crop_s=crop_s), CPU)


@pytest.mark.parametrize("pair", ["chanels=96", "channels=many", "epochs=-1", "leads=12"])
def test_bad_settings_exit_with_2(tmp_path, pair, capsys):
    bank = str(write_bank(tmp_path, records=12, time=40))
    assert main(["train", "vqvae", "--bank", bank, "--out", str(tmp_path / "models"), "--set", pair]) == 2
    assert f"--set {pair}" in capsys.readouterr().err
