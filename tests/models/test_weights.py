"""Weight files: damaged, foreign or non-finite ones are refused in words; equal weights are equal bytes."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from flips import FLIPS
from safetensors.torch import save_file

from ecg_batch.bundled import BUNDLED
from ecg_batch.errors import UserError
from ecg_batch.models.checkpoints import save_weights
from ecg_batch.models.decode import load_models
from ecg_batch.models.judge import ENCODER, Judge, load_judge
from ecg_batch.models.mamba import MambaLM
from ecg_batch.models.networks import COUNTED, JudgeConfig, MambaConfig, UnitConfig, VqVaeConfig
from ecg_batch.models.sequences.network import UnitNetwork
from ecg_batch.models.sequences.unit_model import load_unit_model
from ecg_batch.models.vqvae import VqVae
from ecg_batch.models.weights import load_arrays, read_header, read_weights
from ecg_batch.sums import list_of

NAMES = ("vqvae", "mamba", "judge", "encoder", "units", "rhythm")


def kind_of(name: str) -> str:
    return "judge" if name == "encoder" else name


def copied(folder: Path, name: str, change=lambda tensors, metadata: None) -> Path:
    """All bundled weights without lists, one of them changed."""
    for other in NAMES:
        shutil.copy(BUNDLED / f"{other}.safetensors", folder)
    tensors, metadata = read_weights(BUNDLED / f"{name}.safetensors", kind_of(name))
    change(tensors, metadata)
    save_file(tensors, folder / f"{name}.safetensors", metadata)
    return folder / f"{name}.safetensors"


def load(folder: Path, name: str):
    one = {"judge": load_judge, "units": load_unit_model, "rhythm": partial(load_arrays, kind="rhythm")}.get(kind_of(name))
    return one(folder / f"{name}.safetensors") if one else load_models(folder)


def spoil(value: float, pick):
    def change(tensors, metadata):
        name = pick(sorted(name for name, tensor in tensors.items() if tensor.is_floating_point()))
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[-1] = value

    return change


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("pick", [min, max])
@pytest.mark.parametrize("name", NAMES)
def test_one_number_that_is_not_finite_is_refused_by_loading_and_by_planning(tmp_path, name, pick, value):
    path = copied(tmp_path, name, spoil(value, pick))
    with pytest.raises(UserError, match=f"{name}.*NaN or infinity"):
        load(tmp_path, name)
    with pytest.raises(UserError, match=f"{name}.*NaN or infinity"):
        read_header(path)


def without(key):
    return lambda tensors, metadata: metadata.pop(key)


def stating(key, text):
    return lambda tensors, metadata: metadata.update({key: text})


def sizes(**changes):
    return lambda tensors, metadata: metadata.update(config=json.dumps({**json.loads(metadata["config"]), **changes}))


def one_tensor_less(tensors, metadata):
    tensors.pop(min(tensors))


def one_more(tensors, metadata):
    tensors["more"] = torch.zeros(3)


def other_shape(tensors, metadata):
    name = max(tensors, key=lambda name: tensors[name].numel())
    tensors[name] = tensors[name][..., :-1].contiguous()


def whole_numbers(tensors, metadata):
    name = max(tensors, key=lambda name: tensors[name].numel())
    tensors[name] = tensors[name].to(torch.int32)


DAMAGE = [
    *(without("config"), stating("config", "no JSON"), stating("config", "[" * 100_000)),
    *(stating("config", '{"colour": 3}'), stating("config", "null"), without("format")),
    stating("format", "x" * 9999),
    *(one_tensor_less, one_more, other_shape, whole_numbers),
]  # fmt: skip
NO_SIZES = [stating("config", "[]"), stating("config", "{}")]  # the default ones are meant, which those two have


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [(name, change) for name in NAMES for change in DAMAGE + NO_SIZES if change not in NO_SIZES or name not in ("units", "rhythm")],
)
def test_damaged_metadata_and_tensors_that_do_not_fit_are_refused_in_words(tmp_path, name, change):
    path = copied(tmp_path, name, change)
    with pytest.raises(UserError) as error:
        load(tmp_path, name)
    assert str(path) in str(error.value) and f"ecg-batch train {kind_of(name)}" in str(error.value) and len(str(error.value)) < 900


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change"), [
    ("vqvae", sizes(channels=10**12)), ("vqvae", sizes(codes=-1)), ("vqvae", sizes(noise_channels=5)),
    ("vqvae", sizes(dilations=7)),
    ("vqvae", sizes(dim="64")), ("vqvae", sizes(dilations=[1] * 10**5)), ("vqvae", sizes(codes=4000)),
    ("mamba", sizes(n_layer=10**12)), ("mamba", sizes(d_model=None)), ("mamba", sizes(d_conv=0)), ("mamba", sizes(d_state=True)),
    ("judge", sizes(widths=[])), ("judge", sizes(kernel=8)), ("judge", sizes(dropout=2)), ("judge", sizes(outputs=4)),
    ("vqvae", without("fs_hz")), ("vqvae", stating("fs_hz", "many")), ("vqvae", stating("fs_hz", "nan")),
    ("mamba", without("vqvae_sha256")), ("mamba", without("conditions")), ("mamba", stating("conditions", "[1, 2]")),
    ("mamba", stating("conditions", "{")), ("mamba", stating("superclass_of", "[]")), ("mamba", without("superclass_of")),
    ("judge", without("thresholds")), ("judge", stating("thresholds", "[1, 2]")), ("judge", stating("thresholds", "[NaN,0,0,0,0]")),
    ("units", sizes(levels=23)), ("units", sizes(d_state=0)), ("units", without("fs_hz")), ("units", stating("fs_hz", "inf")),
    ("rhythm", sizes(said=18)), ("rhythm", without("alphabet")), ("rhythm", stating("alphabet", "{}")),
    ("judge", without("patients")), ("judge", stating("patients", '["a"]')), ("encoder", stating("patients", "3")),
])  # fmt: skip
def test_metadata_that_state_what_cannot_be_are_refused_in_words(tmp_path, name, change):
    path = copied(tmp_path, name, change)
    if name == "mamba" and "vqvae_sha256" in read_header(path)[0]:
        shutil.copy(BUNDLED / "vqvae.safetensors", tmp_path)
    with pytest.raises(UserError, match=str(path)):
        load(tmp_path, name)


@pytest.mark.parametrize("content", [b"", b"no weights", b"\xff" * 64, b"\x00" * 8, (2**62).to_bytes(8, "little") + b"{}"])
@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_no_weights_are_refused_in_words(tmp_path, name, content):
    path = copied(tmp_path, name)
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{name}.*cannot be read"):
        load(tmp_path, name)
    with pytest.raises(ValueError, match="safetensors"):
        read_header(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    path = copied(tmp_path, "vqvae")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="no regular file"):
        load(tmp_path, "vqvae")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_flipped_bit_is_silent_where_a_list_lies_beside_the_weights(tmp_path, name):
    path, rng = copied(tmp_path, name), np.random.default_rng(0)
    for other in NAMES:
        shutil.copy(BUNDLED / f"{other}.safetensors", tmp_path)
        shutil.copy(list_of(BUNDLED / f"{other}.safetensors"), tmp_path)
    load(tmp_path, name)
    before = path.read_bytes()
    header = int.from_bytes(before[:8], "little")
    for at in [*rng.integers(0, 8 + header, FLIPS // 3), *rng.integers(len(before), size=FLIPS // 3)]:
        data = bytearray(before)
        data[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        with pytest.raises(UserError, match=name):
            load(tmp_path, name)
        with pytest.raises(UserError, match=name):
            read_header(path)


@pytest.mark.parametrize(("network", "changes"), [
    (VqVae, {}), (VqVae, {"leads": 2, "samples_per_token": 3, "codes": 5, "dim": 7, "channels": 3, "noise_channels": 6}),
    (VqVae, {"dilations": (1,), "drift_tokens": 2}),
    (MambaLM, {}), (MambaLM, {"texture_tokens": 7, "condition_tokens": 3, "d_model": 17, "n_layer": 3, "expand": 3}),
    (MambaLM, {"d_state": 1, "d_conv": 1, "d_model": 1}),
    (UnitNetwork, {}), (UnitNetwork, {"codes": 7, "levels": 3, "kinds": 2, "hidden": 5, "n_layer": 1}),
    (Judge, {}), (Judge, vars(ENCODER)), (Judge, {"widths": (4, 4, 6), "blocks": 3, "outputs": 2}), (Judge, {"widths": (3,)}),
])  # fmt: skip
def test_a_network_has_the_tensors_that_its_sizes_say(network, changes):
    sizes = {VqVae: VqVaeConfig, MambaLM: MambaConfig, Judge: JudgeConfig, UnitNetwork: UnitConfig}[network](**changes)
    tensors = network(sizes).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == sizes.shapes()
    assert all(tensor.is_floating_point() != name.endswith(COUNTED) for name, tensor in tensors.items())


def test_equal_weights_are_equal_bytes(tmp_path):
    tensors, metadata = read_weights(BUNDLED / "mamba.safetensors", "mamba")
    made = set()
    for at in range(10):
        path = tmp_path / str(at) / "mamba.safetensors"
        save_weights(path, dict(reversed(tensors.items())) if at % 2 else tensors, dict(reversed(metadata.items())))
        made.add(path.read_bytes())
    assert len(made) == 1
    again, stated = read_weights(path, "mamba")
    assert stated == metadata and all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_a_file_that_holds_the_same_weights_already_is_left_alone(tmp_path):
    """Whatever its metadata's order: the Mamba knows the VQ-VAE by its sha256."""
    path = copied(tmp_path, "vqvae")  # as the library writes it
    before = path.stat().st_ino, path.read_bytes()
    save_weights(path, *read_weights(path, "vqvae"))
    assert (path.stat().st_ino, path.read_bytes()) == before and list_of(path).is_file()
    tensors, metadata = read_weights(path, "vqvae")
    save_weights(path, {**tensors, "codebook": tensors["codebook"] + 1}, metadata)
    assert path.read_bytes() != before[1]
    assert torch.equal(read_weights(path, "vqvae")[0]["codebook"], tensors["codebook"] + 1)
