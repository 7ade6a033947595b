"""Other registries than PTB-XL: WFDB records with age, sex and SNOMED CT codes become donors that say where they are from."""

import csv
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import wfdb
import zarr
from making import make, plan_of
from ptbxl_layout import write_layout
from wfdb_folder import CODES, ecg_of, said, write_wfdb

from ecg_batch.bundled import BUNDLED
from ecg_batch.cli.main import main
from ecg_batch.dataset.rows import ROW_COLUMNS, SOURCE_COLUMNS
from ecg_batch.donors import bank, recording, sources
from ecg_batch.donors.measure import measure
from ecg_batch.donors.prepare import prepare
from ecg_batch.donors.ptbxl import read_release, statement_codes
from ecg_batch.donors.recording import Unreadable, read_windows
from ecg_batch.donors.sources import LAST_ECG_ID, fold_of, header_says, read_sources, snomed_ct
from ecg_batch.donors.trace import SAME, trace_of
from ecg_batch.errors import UserError
from ecg_batch.leads import LEADS, MODELLED_INDEX

SHUFFLED = tuple(np.random.default_rng(3).permutation([lead.upper() for lead in LEADS]))


def of_fold(source: str, folds, count: int, stem: str = "A") -> list[str]:
    """Names of records that are dealt to these folds."""
    names = (f"{stem}{number:05d}" for number in range(10_000))
    return [name for name in names if fold_of(source, name) in folds][:count]


# The table -------------------------------------------------------------------------------------------------------------


def test_every_snomed_ct_code_is_there_once_and_means_a_statement_of_ptbxl_or_none():
    rows = list(csv.DictReader(open(BUNDLED / sources.SNOMED_CT, encoding="utf-8")))
    codes = [row["snomed_ct"] for row in rows]
    assert len(set(codes)) == len(codes) and all(code.isdigit() for code in codes)
    assert {row["scp_statement"] for row in rows} <= {"", *statement_codes()}
    assert all(bool(row["match"]) == bool(row["scp_statement"]) and row["meaning"] and row["source"] for row in rows)


def test_what_names_no_place_no_degree_or_another_thing_means_no_statement():
    """An infarction somewhere is no inferior one, a block of any degree no first-degree one, sinus rhythm no normal ECG."""
    assert [snomed_ct()[code][1] for code in ("164865005", "233917008", "426783006", "39732003")] == ["", "", "SR", ""]
    assert [snomed_ct()[code][1] for code in ("164889003", "164909002", "270492004")] == ["AFIB", "CLBBB", "1AVB"]


# Headers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("comments", "age", "sex", "codes"), [
    (["# Age: 57", "# Sex: Female", "# Dx: 426783006,164889003"], 57, 1, ["SR", "AFIB"]),
    (["#Age: 57", "#Sex: Male", "#Dx: 426783006"], 57, 0, ["SR"]),
    (["#age:57.0", "#SEX : m", "#dx : 426783006 ; 164889003"], 57, 0, ["SR", "AFIB"]),
    (["# Age = 57 years", "# Gender = F", "# Diagnosis = 426783006"], 57, 1, ["SR"]),
    (["#Age: 057Y #Sex: F #Dx: 426783006"], 57, 1, ["SR"]),
    (["# Age: 95", "# Sex: Female", "# Dx: 426783006", "# Dx: 164889003"], 90, 1, ["SR", "AFIB"]),
    (["# Age: NaN", "# Sex: Unknown", "# Dx: Unknown"], None, -1, []),
    (["# Age: Unknown", "# Sex: ", "# Dx: "], None, -1, []), (["# Age: -1", "# Sex: 1", "# Dx: 39732003"], None, -1, []),
    (["# Age: 999", "# Sex: x", "# Dx: normal,abc,1"], None, -1, []), ([], None, -1, []), (["#", "# :", "#::::"], None, -1, []),
    (["# Age: 1e999", "# Sex: Female\x00", "# Dx: " + "9" * 5000], None, -1, []),
])  # fmt: skip
def test_headers_are_understood_as_registries_write_them(tmp_path, comments, age, sex, codes):
    folder = tmp_path / "registry"
    write_wfdb(folder, "A0001", np.zeros((12, 5000), np.int16), comments)
    entry = read_sources(None, [folder], 100).entries[0]
    assert (entry.sex, list(entry.scp_codes)) == (sex, codes)
    assert entry.age == age if age else np.isnan(entry.age)
    assert (entry.source, entry.path) == ("registry", "A0001")


def test_codes_that_mean_the_same_are_one_statement_and_those_without_one_are_counted(tmp_path, caplog):
    write_wfdb(tmp_path / "r", "A1", np.zeros((12, 5000), np.int16), said(dx="427172004,17338001,39732003,999"))
    release = read_sources(None, [tmp_path / "r"], 100)
    assert release.entries[0].scp_codes == {"PVC": 0.0}
    assert release.unmapped == {"39732003 left axis deviation": 1, "999 not in snomed_ct.csv": 1}
    assert "left axis deviation" in caplog.text


def test_a_diagnosis_is_certain_and_a_rhythm_has_no_likelihood_as_in_ptbxl(tmp_path):
    write_wfdb(tmp_path / "r", "A1", np.zeros((12, 5000), np.int16), said(dx=f"{CODES['LVH']},{CODES['SR']}"))
    assert read_sources(None, [tmp_path / "r"], 100).entries[0].scp_codes == {"LVH": 100.0, "SR": 0.0}


def test_what_lies_beside_records_is_none(tmp_path):
    write_wfdb(tmp_path / "r" / "deep" / "down", "A1", np.zeros((12, 5000), np.int16), said())
    write_wfdb(tmp_path / "r" / ".trash", "A2", np.zeros((12, 5000), np.int16), said())
    (tmp_path / "r" / "._A1.hea").write_bytes(b"\0\1")
    (tmp_path / "r" / "gone.hea").symlink_to("nowhere")
    (tmp_path / "r" / b"caf\xe9.hea".decode(errors="surrogateescape")).write_text("x")
    release = read_sources(None, [tmp_path / "r"], 100)
    assert [entry.path for entry in release.entries] == ["deep/down/A1", "gone"]
    assert release.rejected == {"a file name that is no plain text": 1}
    assert measure(release, release.entries[1]) == "age or sex unknown"
    assert header_says(tmp_path / "nowhere.hea") == {}


# Numbers and folds -----------------------------------------------------------------------------------------------------


def test_numbers_lie_above_ptbxls_and_depend_on_no_order(tmp_path):
    for folder in ("b", "a"):
        for name in ("X2", "X1"):
            write_wfdb(tmp_path / folder, name, np.zeros((12, 5000), np.int16), said())
    one, other = (read_sources(None, [tmp_path / first, tmp_path / second], 100).entries for first, second in ("ab", "ba"))
    assert one == other
    assert [(e.source, e.path) for e in one] == [("a", "X1"), ("a", "X2"), ("b", "X1"), ("b", "X2")]
    assert [e.ecg_id for e in one] == list(range(LAST_ECG_ID + 1, LAST_ECG_ID + 5))
    assert len({e.patient_id for e in one}) == 4


def test_a_fold_is_the_same_whatever_else_is_there_and_one_for_each_named_patient(tmp_path):
    for name in of_fold("r", (1,), 1) + of_fold("r", (10,), 2):
        write_wfdb(tmp_path / "r", name, np.zeros((12, 5000), np.int16), said())
    alone = {entry.path: entry.fold for entry in read_sources(None, [tmp_path / "r"], 100).entries}
    assert sorted(alone.values()) == [1, 10, 10]
    for number in range(20):
        write_wfdb(tmp_path / "r", f"B{number}", np.zeros((12, 5000), np.int16), [*said(), f"#Patient ID: {number // 5}"])
    entries = read_sources(None, [tmp_path / "r"], 100).entries
    assert alone.items() <= {entry.path: entry.fold for entry in entries}.items()
    patients = {entry.patient_id: entry.fold for entry in entries if entry.path.startswith("B")}
    assert len(patients) == 4 and all(entry.fold == patients.get(entry.patient_id, entry.fold) for entry in entries)


def test_all_folds_are_dealt_about_equally():
    dealt = np.bincount([fold_of("georgia", f"E{number:05d}") for number in range(10_000)], minlength=11)
    assert dealt[0] == 0 and (np.abs(dealt[1:] - 1000) < 150).all()


# Recordings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fs_hz", "unit", "leads", "mat"), [
    (500, "mV", LEADS, False), (500, "mV", LEADS, True), (1000, "uV", SHUFFLED, False), (100, "V", SHUFFLED, True),
    (200, "mV", LEADS, True),
])  # fmt: skip
def test_rates_units_orders_and_spellings_give_the_same_ecg(tmp_path, fs_hz, unit, leads, mat):
    write_wfdb(tmp_path, "A1", ecg_of(40, fs_hz), said(), fs_hz, leads, unit, mat)
    ((start_s, ecg),) = read_windows(tmp_path / "A1", 100)
    truth = ecg_of(40, 100)
    assert start_s == 0 and ecg.shape == (12, 1000) and ecg.dtype == np.int16
    inner = (ecg - truth.astype(int))[:, 20:-20]
    assert np.sqrt(np.square(inner).mean()) < 0.06 * truth.std()  # the filter's edge at 50 Hz takes a little of the QRS
    if fs_hz == 100:
        np.testing.assert_array_equal(ecg, truth)


def test_a_rate_that_is_no_multiple_is_brought_over_as_well(tmp_path):
    seconds = np.arange(round(257 * 10)) / 257
    wave = np.rint(1000 * np.sin(2 * np.pi * 3 * seconds))
    write_wfdb(tmp_path, "A1", np.tile(wave, (12, 1)), said(), 257)
    ((_, ecg),) = read_windows(tmp_path / "A1", 100)
    truth = 1000 * np.sin(2 * np.pi * 3 * np.arange(1000) / 100)
    assert np.abs(ecg[:, 20:-20] - truth[20:-20]).max() < 5


@pytest.mark.parametrize(("samples", "fs_hz", "reason"), [
    (4999, 500, "shorter than 10 s"), (2500, 500, "shorter than 10 s"), (1000, 50, "50 Hz, under 100"),
    (60, 30_000, "over 20,000 Hz"),
])  # fmt: skip
def test_what_cannot_be_ten_seconds_at_this_rate_has_a_reason(tmp_path, samples, fs_hz, reason):
    write_wfdb(tmp_path, "A1", np.zeros((12, samples), np.int16), said(), fs_hz)
    with pytest.raises(Unreadable, match=reason):
        next(read_windows(tmp_path / "A1", 100))


def test_of_a_longer_recording_the_first_ten_seconds_that_can_be_a_donor_are_taken(tmp_path):
    folder, ecg = tmp_path / "r", ecg_of(40)
    name = of_fold("r", (1,), 1)[0]
    flat = np.zeros((12, 5000), np.int16)
    write_wfdb(folder, name, np.concatenate([flat, ecg, ecg[:, :2000]], axis=1), said())
    release = read_sources(None, [folder], 100)
    found, parts = measure(release, release.entries[0])
    assert found.start_s == 10 and not found.unfit
    write_wfdb(tmp_path, "alone", ecg, said())
    alone = next(read_windows(tmp_path / "alone", 100))[1][list(MODELLED_INDEX)]
    np.testing.assert_array_equal((parts.skeleton + parts.texture)[:, 50:-50], alone[:, 50:-50])
    write_wfdb(folder, name, np.concatenate([flat, flat], axis=1), said())
    assert measure(release, release.entries[0]) == "QRS under 0.5 mV in every lead"


def test_stretches_with_missing_samples_are_passed_over(tmp_path):
    ecg = np.tile(ecg_of(40), (1, 2))
    ecg[3, 100] = -32768
    write_wfdb(tmp_path, "A1", ecg, said())
    assert [start for start, _ in read_windows(tmp_path / "A1", 100)] == [10.0]
    write_wfdb(tmp_path, "A1", ecg[:, :5000], said())
    with pytest.raises(Unreadable, match="missing samples"):
        next(read_windows(tmp_path / "A1", 100))


def test_a_recording_too_large_for_memory_is_not_read(tmp_path):
    write_wfdb(tmp_path, "A1", ecg_of(40), said())
    header = tmp_path / "A1.hea"
    header.write_text(header.read_text().replace("12 500 5000", "12 500 99999999"))
    with pytest.raises(Unreadable, match="over 1,000,000 samples"):
        next(read_windows(tmp_path / "A1", 100))
    with open(tmp_path / "A1.dat", "r+b") as file:
        file.truncate(10**9)
    header.write_text(header.read_text().replace("12 500 99999999", "12 500"))
    with pytest.raises(Unreadable, match="over 100 MB"):
        next(read_windows(tmp_path / "A1", 100))


@pytest.mark.parametrize("change", [
    lambda text: text, lambda text: text.replace(".dat 16 ", ".dat 16x1 "), lambda text: text.replace("(0)/mV", "/mV"),
    lambda text: text.replace("(0)/mV", "(7)/mV"), lambda text: text.replace("(0)/mV 16 0", "/mV 16 -40"),
    lambda text: text.replace("1000.0(0)", "200(0)"), lambda text: text.replace("\n", "\n\n# a remark\n", 3),
    lambda text: text.replace(" ", "\t"), lambda text: text.replace("12 500 5000", "12 500 5000 12:00:00"),
])  # fmt: skip
def test_a_plain_header_says_to_us_what_it_says_to_wfdb(tmp_path, monkeypatch, change):
    path = write_wfdb(tmp_path, "A1", ecg_of(40), said(), leads=SHUFFLED)
    path.with_suffix(".hea").write_text(change(path.with_suffix(".hea").read_text()))
    assert recording._plain_header(path.with_suffix(".hea").read_text())
    ((_, plain),) = read_windows(path, 100)
    with monkeypatch.context() as without:
        without.setattr(recording, "_plain_header", lambda text: None)
        ((_, by_wfdb),) = read_windows(path, 100)
    np.testing.assert_array_equal(plain, by_wfdb)


@pytest.mark.parametrize("change", [
    lambda text: text.replace(".dat 16 ", ".dat 212 ", 1), lambda text: text.replace("12 500 5000", "12 500.5 5000"),
    lambda text: text.replace(".dat 16 ", ".dat 16x2 "), lambda text: text.replace(".dat 16 ", ".dat 16:3 "),
    lambda text: text.replace("A1.dat", "A2.dat", 1),
    lambda text: text.replace("A1 12", "A1/2 12"), lambda text: text.replace("12 500 5000", "12 500"),
])  # fmt: skip
def test_what_is_no_plain_header_is_left_to_wfdb(tmp_path, change):
    path = write_wfdb(tmp_path, "A1", ecg_of(40), said())
    assert recording._plain_header(change(path.with_suffix(".hea").read_text())) is None


def test_the_dates_of_the_challenge_of_2020_are_passed_over(tmp_path):
    path = write_wfdb(tmp_path, "A1", ecg_of(40), said())
    text = path.with_suffix(".hea").read_text()
    path.with_suffix(".hea").write_text(text.replace("12 500 5000", "12 500 5000 12-May-2020 12:33:59"))
    assert next(read_windows(path, 100))[1].shape == (12, 1000)


def test_a_recording_that_was_at_another_rate_is_known_by_its_shape_and_another_recording_is_not(tmp_path):
    trace = trace_of(ecg_of(40, 100), 100)
    for name, again in (("whole", ecg_of(40)), ("half", np.rint(ecg_of(40) / 2)), ("other", ecg_of(41))):
        write_wfdb(tmp_path, name, again, said())
        apart = np.linalg.norm(trace_of(next(read_windows(tmp_path / name, 100))[1], 100) - trace)
        assert apart > 2 * SAME if name == "other" else apart < SAME / 2


# Banks -----------------------------------------------------------------------------------------------------------------


PTBXL_DONORS = list(range(0, 360, 12))


@pytest.fixture(scope="module")
def registries(tmp_path_factory):
    """A PTB-XL of 30 records, and two registries, one of which has records of PTB-XL and of the other."""
    folder = tmp_path_factory.mktemp("registries")
    ids = list(write_layout(folder / "ptbxl", PTBXL_DONORS))
    names = of_fold("georgia", range(1, 9), 12, "E") + of_fold("georgia", (10,), 2, "E") + of_fold("georgia", (9,), 1, "E")
    for at, (name, code) in enumerate(zip(names, [*CODES.values()] * 3, strict=False)):
        write_wfdb(folder / "georgia", name, ecg_of(601 + 12 * at), said(age=str(30 + at), dx=code), mat=True)
    training = of_fold("cpsc", range(1, 9), 9)
    for name, donor in zip(training, [PTBXL_DONORS[1], PTBXL_DONORS[5], 601, 601 + 12 * 12, 7, 19, 31], strict=False):
        write_wfdb(folder / "cpsc" / "g1", name, ecg_of(donor), said(sex="Male"), leads=SHUFFLED)
    write_wfdb(folder / "cpsc" / "g1", training[7], ecg_of(43)[:, :3000], said())
    write_wfdb(folder / "cpsc" / "g1", training[8], ecg_of(55), said(dx="39732003"))
    return folder, ids, names, training


@pytest.fixture(scope="module")
def prepared(registries):
    folder = registries[0]
    release = read_sources(folder / "ptbxl", [folder / "georgia", folder / "cpsc"], 100)
    return folder / "bank", prepare(release, folder / "bank", donors=60, workers=2)


@pytest.mark.slow
def test_a_bank_of_three_registries_names_the_source_of_each_donor(registries, prepared):
    folder, ids, names, training = registries
    table = bank.read_table(prepared[0])
    assert set(table.source) == {"PTB-XL", "georgia", "cpsc"} and len(set(table.ecg_id.tolist())) == len(table)
    own = table.source == "PTB-XL"
    assert set(table.ecg_id[own].tolist()) <= set(ids) and (table.ecg_id[~own] > LAST_ECG_ID).all()
    assert set(table.record[table.source == "georgia"]) <= set(names[:12])
    assert {record.removeprefix("g1/") for record in table.record[table.source == "cpsc"]} <= {training[2], *training[4:7]}
    assert all(record.startswith("records100/") for record in table.record[own])
    report = prepared[1]["sources"]
    assert sum(source["donors"] for source in report.values()) == len(table) and report["georgia"]["of_fold_10"] == 2
    assert report["cpsc"]["rejected"]["shorter than 10 s"] == 1
    assert report["cpsc"]["rejected"]["no SNOMED CT code with a counterpart in SCP-ECG"] == 1
    assert prepared[1]["snomed_ct_without_statement"] == {"39732003 left axis deviation": 1}
    assert json.loads((prepared[0] / "report.json").read_text()) == json.loads(json.dumps(prepared[1]))


@pytest.mark.slow
def test_fold_10_is_nowhere_even_where_another_registry_holds_its_recordings_at_another_rate(registries, prepared):
    """Two records of cpsc are of fold 10 of PTB-XL and of georgia, one is a donor of PTB-XL, and georgia has another of cpsc's."""
    cpsc, georgia = (prepared[1]["sources"][name]["rejected"] for name in ("cpsc", "georgia"))
    assert cpsc["the same signal as a record of fold 10"] == 2
    assert cpsc["the same signal as another record"] == georgia["the same signal as another record"] == 1
    textures = zarr.open_group(prepared[0] / "textures.zarr", mode="r")
    assert set(textures["fold"][...].tolist()) <= set(range(1, 10))
    names = bank._sources(textures, prepared[0], textures["fold"].shape[0])
    assert not set(names["record"]) & {*registries[2][12:14], *(f"g1/{registries[3][at]}" for at in (0, 1, 3))}
    assert registries[2][14] in names["record"]  # of fold 9, to validate on
    assert set(bank.read_table(prepared[0]).fold.tolist()) <= set(range(1, 9))


@pytest.mark.slow
def test_a_dataset_of_such_a_bank_names_the_sources_of_its_donors(prepared, tmp_path):
    labels = {"LVH": 0.5, "CLBBB": 0.5}
    rows = make(plan_of(tmp_path, records=64, batch=64, shard=64, bank=str(prepared[0]), mix={"labels": labels}))[1]
    assert tuple(rows) == ROW_COLUMNS + SOURCE_COLUMNS
    table = bank.read_table(prepared[0])
    named = {int(number): (source, record) for number, source, record in zip(table.ecg_id, table.source, table.record, strict=True)}
    for what in ("donor", "blend", "texture"):
        for numbers, source, record in zip(*(rows[f"{what}_{name}"] for name in ("ecg_id", "source", "record")), strict=True):
            told = [(source, record)] if what == "donor" else list(zip(source, record, strict=True))
            assert told == [named[number] for number in ([numbers] if what == "donor" else numbers)]
    assert set(rows["donor_source"]) & {"georgia", "cpsc"}


@pytest.mark.slow
def test_a_bank_of_ptbxl_alone_and_its_datasets_have_no_columns_of_sources(registries, tmp_path):
    folder = registries[0]
    assert read_sources(folder / "ptbxl", [], 100) == read_release(folder / "ptbxl", 100)
    prepare(read_sources(folder / "ptbxl", [], 100), tmp_path / "bank", donors=20, workers=2)
    group = zarr.open_group(tmp_path / "bank" / "donors.zarr", mode="r")
    assert not {*bank.SOURCE_COLUMNS} & {*group.array_keys()} and "sources" not in group.attrs
    assert bank.read_table(tmp_path / "bank").source is None


@pytest.mark.slow
def test_the_attribution_names_every_source(prepared):
    said = bank.read_table(prepared[0]).attribution
    assert not said.startswith(bank.PTBXL) and all(name in said for name in ("PTB-XL", "georgia", "cpsc", "CC BY 4.0"))
    assert len(said) <= bank.MOST_ATTRIBUTION


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [
    lambda group: group.attrs.update({"sources": ["PTB-XL"]}), lambda group: group.attrs.update({"sources": 3}),
    lambda group: group["source"].__setitem__(0, 99), lambda group: group["record"].__setitem__(slice(None), 255),
])  # fmt: skip
def test_a_bank_with_damaged_sources_is_refused_in_words(prepared, tmp_path, spoil):
    shutil.copytree(prepared[0], tmp_path / "bank")
    (tmp_path / "bank" / "donors.sha256").unlink()
    spoil(zarr.open_group(tmp_path / "bank" / "donors.zarr", mode="r+"))
    with pytest.raises(UserError, match="damaged bank: source"):
        bank.read_table(tmp_path / "bank")


def test_texts_come_back_from_bytes():
    texts = ["a", "g1/Ärger", "", "records100/00000/00001_lr"]
    assert [row.tobytes().rstrip(b"\0").decode() for row in bank.as_bytes(texts)] == texts


# The command -----------------------------------------------------------------------------------------------------------


def test_folders_that_are_no_registry_are_refused_in_one_sentence(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    write_wfdb(tmp_path / "x" / "same", "A1", np.zeros((12, 5000), np.int16), said(age="NaN"))
    write_wfdb(tmp_path / "y" / "same", "A1", np.zeros((12, 5000), np.int16), said())
    given = [
        ([], "needed --ptbxl DIR, --wfdb DIR"),
        (["--wfdb", tmp_path / "absent"], "no such folder"),
        (["--wfdb", tmp_path / "empty"], "no WFDB record"),
        (["--wfdb", tmp_path / "x" / "same", "--wfdb", tmp_path / "y" / "same"], "called same as well"),
        (["--wfdb", tmp_path / "x", "--wfdb", tmp_path / "x" / "same"], "lies in"),
        (["--wfdb", tmp_path / "x", "--download"], "add --ptbxl"),
        (["--wfdb", tmp_path / "x"], r"age or sex unknown \(1\)|fold"),
        (["--wfdb", tmp_path / "x", "--ptbxl", tmp_path / "x"], "no ptbxl_database.csv"),
    ]
    for arguments, says in given:
        assert main(["prepare", *map(str, arguments), "--out", str(tmp_path / "bank")]) == 2
        told = capsys.readouterr().err
        assert "Traceback" not in told and sum(line.startswith("error") for line in told.splitlines()) == 1
        assert re.search(says, told), (says, told)
    assert not (tmp_path / "bank" / "donors.zarr").exists()


def test_rows_are_named_by_plain_strings():
    """What Parquet encodes by a dictionary: a name of a source costs a row some bits."""
    from ecg_batch.dataset.rows import _sources

    table = replace(bank.read_table(BUNDLED), source=np.array(["PTB-XL", "b"] * 2000, object)[: len(bank.read_table(BUNDLED))],
                    record=np.array([f"r{n}" for n in range(len(bank.read_table(BUNDLED)))], object))  # fmt: skip

    class Batch:
        donor_row, blended_rows, texture_rows = np.array([1, 2]), [(), (3, 4)], [(5,), ()]
        lent_rows, noise = [(3,), ()], None

    found = {name: column.to_pylist() for name, column in _sources(table, Batch).items()}
    assert found["donor_source"] == ["b", "PTB-XL"] and found["donor_record"] == ["r1", "r2"]
    assert found["blend_record"] == [[], ["r3", "r4"]] and found["texture_source"] == [["b"], []]
    assert found["beat_record"] == [["r3"], []] and list(found)[-2:] == ["beat_source", "beat_record"]
    assert pa.types.is_string(_sources(table, Batch)["donor_source"].type)


def test_wfdb_reads_what_these_tests_write(tmp_path):
    path = write_wfdb(tmp_path, "A1", ecg_of(40), said(), mat=True)
    np.testing.assert_allclose(wfdb.rdrecord(str(path)).p_signal.T * 1000, ecg_of(40), atol=1e-6)
