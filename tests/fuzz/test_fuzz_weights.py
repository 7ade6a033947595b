"""Weights and banks: what a header, the metadata or a list of sums says is refused in words, or is what was written."""

import hashlib
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import write_fake_bank
from fuzzing import Refused, answer, changed_bytes, changed_text, changed_value, examples, instead
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank
from ecg_batch.models.checkpoints import save_weights
from ecg_batch.models.conditions import ANY
from ecg_batch.models.decode import load_models, load_vqvae
from ecg_batch.models.judge import Judge, JudgeConfig, load_judge
from ecg_batch.models.mamba import MambaConfig, MambaLM
from ecg_batch.models.vqvae import VqVae, VqVaeConfig
from ecg_batch.models.weights import read_header, read_weights
from ecg_batch.sums import list_of, sums_of

pytestmark = pytest.mark.slow

SIZES = {"vqvae": VqVaeConfig(codes=4, dim=3, channels=3, dilations=(1, 2), noise_channels=8, drift_tokens=2),
         "mamba": MambaConfig(texture_tokens=4, condition_tokens=2, d_model=4, n_layer=1, d_state=2, d_conv=2),
         "judge": replace(JudgeConfig(), widths=(2, 2), blocks=1, outputs=76)}  # fmt: skip
NETWORKS = {"vqvae": VqVae, "mamba": MambaLM, "judge": Judge}
LOADERS = {"vqvae": load_vqvae, "judge": load_judge, "mamba": lambda path: load_models(path.parent)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of small networks without lists of sums, with the metadata of the bundled ones."""
    folder = tmp_path_factory.mktemp("weights")
    for kind, config in SIZES.items():
        metadata = {**read_header(BUNDLED / f"{kind}.safetensors")[0], "config": config_json(config)}
        if kind == "mamba":
            metadata |= {"conditions": json.dumps([ANY, "NORM"]), "vqvae_sha256": sha256(folder / "vqvae.safetensors")}
        torch.manual_seed(1)
        tensors = {name: tensor for name, tensor in NETWORKS[kind](config).state_dict().items() if name != "lm_head.weight"}
        if kind == "mamba":
            tensors["lm_head.weight"] = tensors["backbone.embedding.weight"].clone()
        save_weights(folder / f"{kind}.safetensors", tensors, metadata)
        list_of(folder / f"{kind}.safetensors").unlink()
    return folder


def config_json(config) -> str:
    return config.to_json() if hasattr(config, "to_json") else json.dumps(vars(config))


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def packed(header: str, tensors: bytes) -> bytes:
    data = header.encode("utf-8", errors="surrogatepass")
    return struct.pack("<Q", len(data)) + data + tensors


@st.composite
def files(draw, path, kind: str) -> bytes:
    """The file with other metadata, another config, another header, or other bytes."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8 : 8 + length]), data[8 + length :]
    what = draw(st.sampled_from(("config", "metadata", "header", "text", "bytes")))
    if what == "bytes":
        return draw(changed_bytes(data))
    if what == "text":
        return packed(draw(changed_text(data[8 : 8 + length].decode())), tensors)
    if what == "header":
        return packed(json.dumps(draw(changed_value(header))), tensors)
    stated = header["__metadata__"]
    if what == "config":
        stated["config"] = json.dumps(draw(changed_value(json.loads(stated["config"]))))
    else:
        key = draw(st.sampled_from(sorted(stated)))
        stated[key] = draw(changed_text(stated[key]))
    return packed(json.dumps(header), tensors)


@examples(3)
@given(st.data(), st.sampled_from(sorted(NETWORKS)))
def test_weights_are_refused_in_words_or_are_what_safetensors_reads(weights, data, kind):
    path = weights / f"{kind}.safetensors"
    with instead(path, data.draw(files(path, kind))):

        def metadata():
            try:
                return read_header(path)[0]
            except ValueError as error:  # which a plan puts into its words
                assert str(path) in str(error)
                return None

        stated = answer(metadata, str(path), folder=weights)
        read = answer(lambda: read_weights(path, kind), str(path), folder=weights)
        loaded = answer(lambda: LOADERS[kind](path), str(path), folder=weights)
        if isinstance(read, Refused):
            assert isinstance(loaded, Refused)
            return
        tensors = load_file(path)
        assert stated == read[1] and tensors.keys() == read[0].keys()
        for name, tensor in read[0].items():
            assert np.array_equal(tensor.float().numpy(), tensors[name].astype(np.float32))
        if isinstance(loaded, Refused):
            return
        model = {"vqvae": lambda: loaded[0], "mamba": lambda: loaded.mamba, "judge": lambda: loaded[0]}[kind]()
        said = json.loads(read[1]["config"])
        assert json.loads(json.dumps(vars(type(model.config)()) | said)) == json.loads(json.dumps(vars(model.config)))
        for name, tensor in model.state_dict().items():
            assert np.array_equal(tensor.numpy(), tensors[name])


# Banks ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def a_bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank") / "bank"
    write_fake_bank(folder)
    return folder


ITS_MAKERS_TO_SAY = {"codes", "superclass_of", "fs_hz", "attribution"}


def all_of(folder) -> dict:
    read = bank.read_bank(folder)
    held = {**vars(read), **vars(read.table)}
    del held["table"]
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in held.items()}


def without_what_its_maker_says(held: dict) -> dict:
    return {name: value for name, value in held.items() if name not in ITS_MAKERS_TO_SAY}


@examples(0.7)
@given(st.data(), st.booleans())
def test_what_a_bank_says_of_itself_is_refused_in_words_or_changes_nothing(a_bank, data, listed):
    """Its zarr.json files, with a list that agrees with them, as a bank that was made by others has."""
    before = all_of(a_bank)
    paths = sorted((a_bank / "donors.zarr").rglob("zarr.json"))
    path = data.draw(st.sampled_from([paths[0], *paths]))
    stated = json.loads(path.read_bytes())
    change = st.one_of(changed_value(stated).map(json.dumps), changed_text(path.read_text()))
    listing = a_bank / "donors.sha256"
    with instead(listing, listing.read_bytes()), instead(path, text := data.draw(change)):
        if listed:
            listing.write_bytes(sums_of(a_bank / "donors.zarr"))
        else:
            listing.unlink()
        found = answer(lambda: all_of(a_bank), str(a_bank), folder=a_bank)
        if isinstance(found, Refused):
            return
        assert without_what_its_maker_says(found) == without_what_its_maker_says(before)
        if found != before:
            said = json.loads(text.removeprefix("\ufeff"))["attributes"]
            again = {"codes": tuple(said["codes"]), "superclass_of": dict(said["superclass_of"]), "fs_hz": said["fs_hz"]}
            assert again.items() <= found.items()


@st.composite
def lists(draw, text: str) -> str:
    """A list in its form, with another digit, a line less or more, or the sum of another file."""
    lines = text.splitlines(True)
    at, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    what = draw(st.sampled_from(("digit", "less", "more", "sum")))
    if what == "digit":
        place = draw(st.integers(0, 63))
        lines[at] = lines[at][:place] + draw(st.sampled_from("0123456789abcdef")) + lines[at][place + 1 :]
    elif what == "less":
        del lines[at]
    elif what == "more":
        lines.insert(other, lines[at].replace("/", "/x", 1))
    else:
        lines[at] = lines[other][:64] + lines[at][64:]
    return "".join(lines)


@examples(1)
@given(st.data())
def test_a_list_of_sums_that_was_edited_is_refused_or_lists_the_same(a_bank, data):
    listing = a_bank / "donors.sha256"
    text = listing.read_text()
    with instead(listing, data.draw(st.one_of(lists(text), changed_text(text), changed_bytes(text.encode())))):
        found = answer(lambda: bank.read_table(a_bank), str(a_bank), folder=a_bank)
        if not isinstance(found, Refused):
            names = [line.split(None, 1) for line in listing.read_text().splitlines()]
            assert {(sum, name.lstrip("*")) for sum, name in names} == {tuple(line.split()) for line in text.splitlines()}


def test_the_small_networks_load(weights, a_bank):
    for kind, load in LOADERS.items():
        load(weights / f"{kind}.safetensors")
    assert len(bank.read_table(a_bank)) == 17
