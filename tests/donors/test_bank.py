"""A bank is read as it was written, or not at all: nothing absent is taken for zero, nothing changed for true."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from fakes import write_fake_bank
from flips import FLIPS

from ecg_batch import sums
from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank
from ecg_batch.donors.measure import NO_P
from ecg_batch.errors import UserError
from ecg_batch.leads import MV_PER_UV, twelve_leads
from ecg_batch.models.corpus import load_corpus
from ecg_batch.signal.marks import ABSENT_MS, MARKS, read_marks, stored_marks
from ecg_batch.signal.waves import wave_marks

COLUMNS = (*bank.TABLE_COLUMNS, "skeleton", "texture", *bank.SHAPE_COLUMNS)


@pytest.fixture
def a_bank(tmp_path) -> Path:
    """The bundled bank, to be damaged."""
    shutil.copytree(BUNDLED / "donors.zarr", tmp_path / "donors.zarr")
    shutil.copy(BUNDLED / "donors.sha256", tmp_path)
    return tmp_path


def chunk_of(folder: Path, name: str) -> Path:
    return next(path for path in (folder / "donors.zarr" / name).iterdir() if path.name != "zarr.json")


def flip(path: Path, at: float, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1 << bit
    path.write_bytes(data)


def refused(folder: Path, *says: str) -> None:
    for read in (bank.read_bank, bank.read_table, bank.read_beats):
        with pytest.raises(UserError) as error:
            read(folder)
        assert all(part in str(error.value) for part in says), error.value


@pytest.mark.slow
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_bank_without_one_of_its_chunks_is_refused(a_bank, name, listed):
    if not listed:
        (a_bank / "donors.sha256").unlink()
    chunk = chunk_of(a_bank, name)
    chunk.unlink()
    refused(a_bank, str(chunk), "is missing", "ecg-batch prepare")


@pytest.mark.slow
def test_a_bank_that_is_whole_opens_with_and_without_its_list(a_bank):
    first = bank.read_bank(a_bank)
    digest = bank.bank_digest(a_bank)
    (a_bank / "donors.sha256").unlink()
    second = bank.read_bank(a_bank)
    np.testing.assert_array_equal(first.skeleton, second.skeleton)
    assert bank.bank_digest(a_bank) == digest == bank.bank_digest(BUNDLED)  # run ids do not know of lists


def remove_metadata(folder: Path) -> None:
    (folder / "donors.zarr" / "likelihood" / "zarr.json").unlink()


def change_attribute(folder: Path) -> None:
    path = folder / "donors.zarr" / "zarr.json"
    path.write_text(path.read_text().replace("AFIB", "AFLT", 1))


def add_file(folder: Path) -> None:
    (folder / "donors.zarr" / "age" / "c.99").write_bytes(b"")


def link_elsewhere(folder: Path) -> None:
    (folder / "donors.zarr" / "age" / "more").symlink_to("/dev/zero")


def pipe_instead(folder: Path) -> None:
    chunk = chunk_of(folder, "age")
    chunk.unlink()
    os.mkfifo(chunk)


def swap_columns(folder: Path) -> None:
    shutil.copy(chunk_of(folder, "qrs_on"), chunk_of(folder, "qrs_off"))


@pytest.mark.parametrize(("damage", "says"), [
    (remove_metadata, "is missing"), (change_attribute, "has changed"), (add_file, "is not listed"),
    (link_elsewhere, "is not listed"), (pipe_instead, "has changed"), (swap_columns, "has changed"),
    (lambda folder: chunk_of(folder, "sex").write_bytes(b""), "has changed"),
])  # fmt: skip
def test_whatever_is_missing_extra_or_changed_is_refused(a_bank, damage, says):
    damage(a_bank)
    refused(a_bank, says, str(a_bank))


@pytest.mark.parametrize(
    "content", [b"", b"nonsense\n", b"\xff\xfe\n", b"0" * 64 + b"  ../../etc/passwd\n", b"0" * 63 + b"  donors.zarr/x\n"]
)
def test_a_damaged_list_is_refused(a_bank, content):
    (a_bank / "donors.sha256").write_bytes(content)
    refused(a_bank, "donors.sha256")


def test_a_list_leads_to_no_file_outside(a_bank):
    listing = a_bank / "donors.sha256"
    listing.write_text(listing.read_text().replace("donors.zarr/age/", "/age/"))
    refused(a_bank, f"{a_bank}//age/", "is missing", "donors.sha256")


def test_a_list_ends_its_lines_as_it_is_written(a_bank):
    """One bit makes a vertical tab of a line's end, which Python's splitlines takes for one too."""
    listing = a_bank / "donors.sha256"
    listing.write_text(listing.read_text().replace("\n", "\x0b", 1))
    refused(a_bank, "is missing", "donors.sha256")


@pytest.mark.slow
def test_no_flipped_bit_of_a_bank_is_silent(a_bank):
    rng = np.random.default_rng(0)
    files = [path for path in sums._files(a_bank / "donors.zarr") if path.name != "c.0.0.0"] + [a_bank / "donors.sha256"]
    for path in (files[at] for at in rng.integers(len(files), size=FLIPS)):
        before = path.read_bytes()
        flip(path, rng.random(), int(rng.integers(8)))
        with pytest.raises(UserError):
            bank.read_table(a_bank)
        path.write_bytes(before)
    assert len(bank.read_table(a_bank)) == len(bank.read_table(BUNDLED))


def test_a_bank_that_changes_after_it_was_read_is_refused(a_bank):
    bank.read_table(a_bank)
    shutil.copy(chunk_of(a_bank, "qrs_on"), chunk_of(a_bank, "p_on"))
    refused(a_bank, "has changed")


def rewritten(folder: Path, **changes) -> Path:
    """A bank of two donors with other values, and a list that agrees with them."""
    write_fake_bank(folder)
    import zarr

    group = zarr.open_group(folder / "donors.zarr", mode="r+")
    arrays = {name: changes.get(name, array[...]) for name, array in group.arrays()}
    attributes = {**dict(group.attrs), **{key: value for key, value in changes.items() if key not in arrays}}
    shutil.rmtree(folder / "donors.zarr")
    bank.write_group(folder / "donors.zarr", arrays, attributes)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "says"), [
    ({"hr_bpm": np.full(17, np.nan, np.float32)}, "not finite"),
    ({"age": np.full(17, np.inf, np.float32)}, "not finite"),
    ({"sex": np.full(17, 2, np.int8)}, "sex other"),
    ({"fold": np.zeros(17, np.int8)}, "fold other"),
    ({"age": np.zeros(16, np.float32)}, "differ in length"),
    ({"likelihood": np.zeros((17, 3), np.int8)}, "a column for each statement"),
    ({"likelihood": np.full((17, 9), 127, np.int8)}, "outside -1 to 100"),
    ({"leads": ["I"]}, "leads"), ({"leads": None}, "leads"), ({"format": 99}, "newer"), ({"format": "x"}, "format x"),
    ({"format": True}, "format True"), ({"format": 0}, "format 0"),
    ({"codes": None}, "codes"), ({"fs_hz": "many"}, "fs_hz"), ({"superclass_of": 3}, "superclass_of"),
    ({"codes": [["NORM"]] * 9}, "codes"), ({"codes": ["NORM"] * 9}, "codes"), ({"superclass_of": {"NORM": 1}}, "superclass_of"),
    ({"fs_hz": 100.5}, "fs_hz"), ({"fs_hz": True}, "fs_hz"), ({"fs_hz": -100}, "fs_hz"),
])  # fmt: skip
def test_values_that_no_bank_holds_are_refused(tmp_path, changes, says):
    folder = rewritten(tmp_path / "bank", **changes)
    with pytest.raises(UserError, match=says):
        bank.read_table(folder)


@pytest.mark.parametrize(("column", "change", "says"), [
    ("age", ('"float32"', '"int32"'), "age is of type int32"), ("r_sample", ('"int32"', '"uint32"'), "r_sample is of type uint32"),
    ("skeleton", ('"int16"', '"uint16"'), "skeleton is of type uint16"),
    ("ecg_id", ("little", "big"), "ecg_id is in big-endian order"),
    ("texture", ("little", "big"), "texture cannot be read"),
])  # fmt: skip
def test_numbers_read_as_others_are_refused(tmp_path, column, change, says):
    """The very bytes, as numbers of another kind, with a list that agrees."""
    folder = tmp_path / "bank"
    write_fake_bank(folder)
    path = folder / "donors.zarr" / column / "zarr.json"
    path.write_text(path.read_text().replace(*change))
    (folder / "donors.sha256").write_bytes(sums.sums_of(folder / "donors.zarr"))
    with pytest.raises(UserError, match=says):
        bank.read_bank(folder)


def test_a_corpus_without_one_of_its_chunks_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"texture": rng.integers(1, 9, (12, 8, 40), np.int16), "fold": np.resize([1, 9], 12).astype(np.int8),
              "likelihood": np.full((12, 2), 100, np.int8)}  # fmt: skip
    attributes = {"fs_hz": 100, "codes": ["NORM", "AFIB"], "superclass_of": {"NORM": "NORM"}}
    bank.write_group(tmp_path / "textures.zarr", arrays, attributes)
    assert len(load_corpus(tmp_path)) == 12
    (tmp_path / "textures.zarr" / "likelihood" / "c.0.0").unlink()
    for _ in range(2):
        with pytest.raises(UserError, match="is missing"):
            load_corpus(tmp_path)
        (tmp_path / "textures.sha256").unlink(missing_ok=True)  # and as a corpus of before there were lists


@pytest.mark.parametrize(("name", "shape", "says"), [
    ("r_sample", lambda donors, beats: [donors, beats + 20], "is missing"), ("r_sample", lambda donors, beats: [donors, beats - 1],
     "hold more"), ("noise", lambda donors, kinds, leads: [donors, kinds, leads - 1], "hold more"),
    ("age", lambda donors: [donors + 1], "is missing"), ("r_sample", lambda donors, beats: [donors], "is no part of its array"),
])  # fmt: skip
def test_another_shape_is_refused_although_the_list_agrees(a_bank, name, shape, says):
    """More would be zeros, which are beats at the beginning of the record; fewer would be left out."""
    path = a_bank / "donors.zarr" / name / "zarr.json"
    stated = json.loads(path.read_text())
    stated["shape"] = shape(*stated["shape"])
    grid = stated["chunk_grid"]["configuration"]
    grid["chunk_shape"] = grid["chunk_shape"][: len(stated["shape"])]
    path.write_text(json.dumps(stated))
    (a_bank / "donors.sha256").write_bytes(sums.sums_of(a_bank / "donors.zarr"))
    with pytest.raises(UserError, match=says):
        bank.read_bank(a_bank)


def test_a_bank_of_which_no_reader_saw_noise_opens(tmp_path):
    arrays = {"fold": np.array([1, 9], np.int8), "noise": np.zeros((2, 4, 8), np.uint8)}
    bank.write_group(tmp_path / "textures.zarr", arrays, {"fs_hz": 100})
    (tmp_path / "textures.sha256").unlink()
    assert sums.open_whole(tmp_path / "textures.zarr", ("fold", "noise"), "")["noise"][...].max() == 0


def test_a_bank_of_before_has_no_waves(a_bank):
    shutil.rmtree(a_bank / "donors.zarr" / bank.WAVES)
    with pytest.raises(UserError, match="is missing"):  # says its list
        bank.read_bank(a_bank)
    (a_bank / "donors.sha256").unlink()
    assert bank.read_bank(a_bank).wave_ms is None


def test_waves_of_another_shape_are_refused(a_bank):
    import zarr

    (a_bank / "donors.sha256").unlink()
    group = zarr.open_group(a_bank / "donors.zarr", mode="r+")
    fewer = group[bank.WAVES][..., :8]
    group.create_array(bank.WAVES, data=fewer, overwrite=True)
    with pytest.raises(UserError, match="not 9 marks a beat"):
        bank.read_bank(a_bank)


def test_the_waves_of_the_bundled_bank_are_those_of_its_donors():
    held = bank.read_bank(BUNDLED)
    beats = held.r_sample >= 0
    assert (held.wave_ms[~beats] == ABSENT_MS).all()
    marks = read_marks(held.wave_ms)
    assert not (marks[beats] < np.fmax.accumulate(marks[beats], axis=1)).any()
    assert np.nanmedian(np.abs(marks[..., MARKS.index("r")])) <= 5
    without_p = np.isnan(marks[..., 0])[beats & (held.table.holds("AFIB") | held.table.holds("AFLT"))[:, None]]
    with_p = ~np.isnan(marks[..., 0])[beats & (held.table.holds("SR") & (held.beat_type == 0).all(axis=1, where=beats))[:, None]]
    assert without_p.all() and with_p.mean() > 0.98
    for donor in range(0, len(beats), 100):
        r, types, p_allowed = held.beats(donor), held.beat_type[donor][beats[donor]], not NO_P & set(held.table.scp_codes(donor))
        ecg_mv = twelve_leads((held.skeleton[donor] + held.texture[donor]) * MV_PER_UV)
        found = stored_marks(wave_marks(ecg_mv, r, types, 100, p_allowed), len(beats[donor]))
        np.testing.assert_array_equal(held.wave_ms[donor], found)


def test_a_planted_zarr_2_array_is_not_opened(a_bank):
    (a_bank / "donors.sha256").unlink()
    shutil.rmtree(a_bank / "donors.zarr" / "age")
    (a_bank / "donors.zarr" / "age").mkdir()
    planted = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "fill_value": None, "order": "C", "compressor": None,
               "filters": [{"id": "pickle"}]}  # fmt: skip
    (a_bank / "donors.zarr" / "age" / ".zarray").write_text(json.dumps(planted))
    refused(a_bank, "age")
