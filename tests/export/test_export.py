"""Exports hold the very integers of the dataset, resume where they were killed, and code for PTB-XL reads them unchanged."""

import json
import os
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pandas
import pyarrow as pa
import pytest
import webdataset
import wfdb
from places import TESTS

import ecg_batch
from ecg_batch.cli.main import build_parser
from ecg_batch.dataset.beats import BEAT_SYMBOLS, RHYTHM
from ecg_batch.dataset.manifest import sums_text
from ecg_batch.dataset.run import read_run
from ecg_batch.donors.ptbxl import read_record, read_release
from ecg_batch.errors import UserError
from ecg_batch.export import ptbxl as export_ptbxl
from ecg_batch.export.annotations import CODES, annotation_files
from ecg_batch.export.formats import NOTES, export, formats
from ecg_batch.leads import LEADS

JOB = [sys.executable, str(TESTS.parent / "jobs/export.py")]


@pytest.fixture
def dataset(small_dataset):
    return ecg_batch.open_dataset(small_dataset)


def run_job(*arguments) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    return subprocess.run([*JOB, *map(str, arguments)], capture_output=True, text=True, env=environment)


def read_wfdb(folder: Path) -> np.ndarray:
    """All records by the table, int16 (record, lead, time)."""
    names = pandas.read_csv(folder / "ptbxl_database.csv")["filename_lr"]
    return np.stack([wfdb.rdrecord(str(folder / name), physical=False).d_signal.T for name in names]).astype(np.int16)


def read_hdf5(folder: Path) -> np.ndarray:
    parts = []
    for path in sorted((folder / "ecg.hdf5").iterdir(), key=lambda path: int(path.stem)):
        with h5py.File(path, "r") as file:
            parts.append(file["ecg"][:])
    return np.concatenate(parts)


def read_webdataset(folder: Path) -> np.ndarray:
    tars = sorted(str(path) for path in folder.glob("ecg-*.tar"))
    return np.stack([sample["npy"] for sample in webdataset.WebDataset(tars, shardshuffle=False).decode()])


READERS = {"ptbxl": read_wfdb, "hdf5": read_hdf5, "npy": lambda folder: np.load(folder / "ecg.npy"), "webdataset": read_webdataset}


@pytest.mark.slow
@pytest.mark.parametrize("source", ["zarr", "hdf5"])
def test_every_format_holds_the_integers_of_the_dataset(make_dataset, tmp_path, source):
    dataset = ecg_batch.open_dataset(make_dataset(format=source))
    for format, read in READERS.items():
        done = run_job(dataset.path, "--format", format, "--out", tmp_path / format, "--workers", 2)
        assert done.returncode == 0 and "540 records" in done.stdout, done.stderr
        np.testing.assert_array_equal(read(tmp_path / format), dataset.raw[:])
        assert not (tmp_path / f"{format}.partial").exists() and not (tmp_path / format / NOTES).exists()
    assert (tmp_path / "npy/records.parquet").read_bytes() == (dataset.path / "records.parquet").read_bytes()


@pytest.mark.slow
def test_a_selection_is_exported_by_any_column(dataset, tmp_path):
    done = run_job(dataset.path, "--format", "npy", "--out", tmp_path / "few", "--where", "label=AFIB", "--where", "flags=",
                   "--records", "10:30", "--workers", 1)  # fmt: skip
    chosen = dataset.where(label="AFIB").select(slice(10, 30))
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "few/ecg.npy"), chosen.raw[:])
    assert pandas.read_parquet(tmp_path / "few/records.parquet")["record"].tolist() == chosen.indices.tolist()
    assert json.loads((tmp_path / "few/ecg.json").read_text())["leads"] == list(LEADS)
    for format in READERS:
        export(chosen, tmp_path / format, format, 1)
        np.testing.assert_array_equal(READERS[format](tmp_path / format), chosen.raw[:])


@pytest.mark.slow
@pytest.mark.parametrize("format", READERS)
def test_a_killed_export_goes_on(dataset, tmp_path, format, monkeypatch):
    module = f"ecg_batch.export.{format}"
    monkeypatch.setattr(f"{module}.units", lambda dataset: [(0, 128), (128, 256), (256, 512), (512, 540)])
    whole_unit, calls = (sys.modules.get(module) or __import__(module, fromlist=["unit"])).unit, []

    def unit(dataset, folder, first, stop):
        calls.append(first)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole_unit(dataset, folder, first, stop)

    monkeypatch.setattr(f"{module}.unit", unit)
    with pytest.raises(KeyboardInterrupt):
        export(dataset, tmp_path / "out", format, 1)
    assert not (tmp_path / "out").exists()
    assert export(dataset, tmp_path / "out", format, 1) == 2 and calls == [0, 128, 256, 256, 512]
    np.testing.assert_array_equal(READERS[format](tmp_path / "out"), dataset.raw[:])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("format", READERS)
def test_an_export_names_each_of_its_files_with_its_sha256(dataset, tmp_path, format, workers, monkeypatch):
    monkeypatch.setattr(f"ecg_batch.export.{format}.units", lambda dataset: [(0, 128), (128, 256), (256, 512), (512, 540)])
    export(dataset, tmp_path / "out", format, workers)
    whole = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "out", capture_output=True, text=True)
    named = {line.removesuffix(": OK") for line in whole.stdout.splitlines()}
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert whole.returncode == 0 and named == there - {"SHA256SUMS"} and len(there) > 2, whole.stderr
    for path in [one for one in (tmp_path / "out").rglob("*") if one.is_file()][:3]:  # the footer of a table, say
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
        again = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path / "out", capture_output=True)
        assert again.returncode == 1
        data[-5] ^= 1
        path.write_bytes(data)


@pytest.mark.slow
def test_a_unit_whose_file_is_short_is_made_again(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("ecg_batch.export.ptbxl.end", lambda dataset, folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(dataset, tmp_path / "out", "ptbxl", 1)
    monkeypatch.undo()
    (tmp_path / "out.partial" / export_ptbxl.record_name(300, 100)).with_suffix(".dat").write_bytes(b"")
    assert export(dataset, tmp_path / "out", "ptbxl", 1) == 1
    np.testing.assert_array_equal(read_wfdb(tmp_path / "out"), dataset.raw[:])


@pytest.mark.slow
def test_what_cannot_be_exported_says_why(dataset, tmp_path):
    with pytest.raises(UserError, match="no record chosen"):
        export(dataset.where(label="none"), tmp_path / "out", "npy", 1)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already; nothing of it is touched"):
        export(dataset, tmp_path / "out", "npy", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export(dataset, tmp_path / "file/out", "npy", 1)
    (tmp_path / "half.partial/export-notes").mkdir(parents=True)
    (tmp_path / "half.partial/export.json").write_text("{}")
    with pytest.raises(UserError, match="holds a part of another export"):
        export(dataset, tmp_path / "half", "npy", 1)
    refused = run_job(dataset.path, "--format", "npy", "--out", tmp_path / "x", "--where", "sex=woman")
    assert refused.returncode == 2 and "the column sex holds int8" in refused.stderr and "Traceback" not in refused.stderr


# PTB-XL's layout ------------------------------------------------------------------------------------------------------


@pytest.fixture
def layout(dataset, tmp_path) -> Path:
    export(dataset, tmp_path / "layout", "ptbxl", 1)
    return tmp_path / "layout"


@pytest.mark.slow
def test_the_header_is_what_wfdb_itself_writes(dataset, layout, tmp_path):
    name = Path(export_ptbxl.record_name(7, 100)).name
    wfdb.wrsamp(name, 100, ["mV"] * 12, export_ptbxl.SIGNAL_NAMES, d_signal=dataset.raw[7].T.astype(np.int64), fmt=["16"] * 12,
                adc_gain=[1000.0] * 12, baseline=[0] * 12, comments=["x"], write_dir=str(tmp_path))  # fmt: skip
    ours = (layout / export_ptbxl.record_name(7, 100)).with_suffix(".hea").read_text()
    assert ours.splitlines()[:-1] == (tmp_path / f"{name}.hea").read_text().splitlines()[:-1]


@pytest.mark.slow
def test_our_own_reader_of_ptbxl_reads_it(dataset, layout):
    release = read_release(layout, 100)
    assert len(release.entries) == 540 and len(release.codes) == 71
    np.testing.assert_array_equal(read_record(release, release.entries[33]), dataset.raw[33])
    row = dataset.records.slice(33, 1).to_pylist()[0]
    entry = release.entries[33]
    assert (entry.patient_id, entry.fold, entry.sex, entry.age) == (
        row["donor_patient_id"], row["donor_fold"], row["sex"], row["age"])  # fmt: skip
    assert entry.scp_codes == json.loads(row["scp_codes"])


def test_the_table_has_the_columns_of_ptbxl(layout):
    table = pandas.read_csv(layout / "ptbxl_database.csv", index_col="ecg_id")
    assert tuple(table.reset_index().columns[:28]) == export_ptbxl.PTBXL_COLUMNS
    assert table["filename_hr"].isna().all() and all((layout / f"{name}.dat").exists() for name in table["filename_lr"])
    assert (layout / "RECORDS").read_text().split() == table["filename_lr"].tolist()
    assert table.index[0] == 1_000_001 and table["synthetic"].all() and not table["validated_by_human"].any()


@pytest.mark.slow
def test_a_public_loader_reads_it_unchanged(dataset, layout):
    """deepecgkit (PyPI), which nobody here wrote."""
    public = pytest.importorskip("deepecgkit.datasets.ptbxl")
    read = public.PTBXLDataset(
        layout, sampling_rate=100, use_high_resolution=False, folds=[1, 2], normalization="none", verbose=False
    )
    rows = [row for row in dataset.records.to_pylist() if row["donor_fold"] in (1, 2)]
    assert len(read) == len(rows)
    for at in (0, 50, len(rows) - 1):
        signal, labels = read[at][:2]
        np.testing.assert_allclose(np.asarray(signal), dataset[rows[at]["record"]], atol=1e-6)
        # rhythm statements alone (AFIB, SBRAD) belong to no superclass
        assert np.asarray(labels).tolist() == [
            float(rows[at]["label"] == name) for name in public.PTBXLDataset.CLASS_LABELS_SUPERCLASS
        ]


# WebDataset -----------------------------------------------------------------------------------------------------------


def test_a_sample_of_a_tar_is_a_record_with_its_row_and_its_beats(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("ecg_batch.export.webdataset.TAR_SAMPLES", 200_000)
    chosen = dataset.select([500, 3, 200, 199])
    export(chosen, tmp_path / "few", "webdataset", 1)
    samples = list(webdataset.WebDataset(str(tmp_path / "few/ecg-000000000.tar"), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == ["000000500", "000000003", "000000200", "000000199"]
    for sample, row, record in zip(samples, chosen.records.to_pylist(), chosen.indices, strict=True):
        np.testing.assert_array_equal(sample["npy"], dataset.raw[record])
        assert sample["json"] == row and sample["beats.json"] == dataset.beats(int(record)).to_pydict()
    export(dataset, tmp_path / "all", "webdataset", 1)
    assert sorted(path.name for path in (tmp_path / "all").glob("*.tar")) == [f"ecg-000000{at}00.tar" for at in (0, 2, 4)]
    assert json.loads((tmp_path / "all/ecg.json").read_text())["tars"] == 3


@pytest.mark.slow
def test_tars_are_the_same_bytes_whenever_and_by_whomever_they_are_made(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("ecg_batch.export.webdataset.TAR_SAMPLES", 300_000)
    for name, workers in (("one", 1), ("two", 2)):
        export(dataset, tmp_path / name, "webdataset", workers)
    one, two = ((tmp_path / name / "SHA256SUMS").read_bytes() for name in ("one", "two"))
    assert one == two
    with tarfile.open(tmp_path / "one/ecg-000000300.tar") as tar:
        said = {(member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode) for member in tar.getmembers()}
    assert said == {(0, 0, 0, "", "", 0o644)}


# Long records ---------------------------------------------------------------------------------------------------------


def test_a_day_in_one_record_takes_bounded_memory(tmp_path):
    generator = np.random.default_rng(0)
    minutes = [generator.integers(-500, 500, (12, 6000)).astype(np.int16) for _ in range(7)]
    tracemalloc.start()
    export_ptbxl.write_wfdb(tmp_path / "day", (minutes[minute % 7] for minute in range(24 * 60)), 100, "synthetic")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6 and (tmp_path / "day.dat").stat().st_size == 24 * 3600 * 100 * 12 * 2
    for minute in (0, 700, 1439):
        part = wfdb.rdrecord(str(tmp_path / "day"), sampfrom=minute * 6000, sampto=(minute + 1) * 6000, physical=False)
        np.testing.assert_array_equal(part.d_signal.T, minutes[minute % 7])
    stated = wfdb.rdheader(str(tmp_path / "day"))
    total = sum(minutes[minute % 7].sum(axis=1, dtype=np.int64) for minute in range(1440))
    assert stated.sig_len == 8_640_000 and stated.checksum == (total % 65536).tolist()


@pytest.mark.slow
def test_annotations_and_waves_are_those_of_the_table(dataset, layout):
    """The waves as LUDB has them: an onset, a peak and an end each; those that the record's ends cut are left out."""
    for record in (0, 7, 539):
        rows = dataset.beats(record).to_pandas()
        name = str(layout / export_ptbxl.record_name(record, 100))
        found, waves, beats = wfdb.rdann(name, "atr"), wfdb.rdann(name, "waves"), rows[rows.symbol.isin([*BEAT_SYMBOLS, RHYTHM])]
        assert (found.sample.tolist(), found.symbol) == (beats["sample"].tolist(), beats["symbol"].tolist())
        assert found.aux_note[0].rstrip("\x00") == rows["aux"][0] == "(N" and found.fs == waves.fs == 100
        stated = []
        for row in rows.itertuples():
            for on, peak, end, letter in ((row.p_on_ms, row.p_peak_ms, row.p_end_ms, "p"), (row.qrs_on_ms, 0, row.qrs_end_ms, "N"),
                                          (row.t_on_ms, row.t_peak_ms, row.t_end_ms, "t")):  # fmt: skip
                at = [row.sample + ms / 10 for ms in (on, peak, end)]
                stated += [(round(each), symbol) for each, symbol in zip(at, ("(", letter, ")"), strict=True)
                           if all(0 <= round(one) <= 999 for one in at)] if not np.isnan(at).any() else []  # fmt: skip
        assert list(zip(waves.sample.tolist(), waves.symbol, strict=True)) == sorted(stated, key=lambda each: each[0])
        assert waves.symbol.count("p") < waves.symbol.count("N") == 10 and waves.symbol.count("(") == waves.symbol.count(")") > 25


def test_annotation_files_are_the_bytes_of_wfdb_itself(tmp_path):
    draws = np.random.default_rng(2)
    for far in (40, 3000, 90_000):
        sample = np.cumsum(draws.integers(0, far, 200))
        symbol, aux = draws.choice(list(CODES), 200), np.where(draws.random(200) < 0.2, "(AFIB", "")
        aux[:4], subtype = ["", "(N", "beats,flat", ""], np.where(draws.random(200) < 0.3, 127, 0)
        record = np.repeat([2, 9, 11], [50, 100, 50])
        files, own = annotation_files(500, record, np.where(record == 9, sample - sample[50], 7), symbol, aux, subtype), record == 9
        wfdb.wrann("own", "atr", sample[own] - sample[50], symbol=symbol[own].tolist(), subtype=subtype[own], fs=500,
                   aux_note=aux[own].tolist(), write_dir=str(tmp_path))  # fmt: skip
        assert sorted(files) == [2, 9, 11] and files[9] == (tmp_path / "own.atr").read_bytes()
        wfdb.wrann("own", "waves", sample, symbol=symbol.tolist(), fs=100, write_dir=str(tmp_path))
        assert annotation_files(100, np.full(200, 7), sample, symbol) == {7: (tmp_path / "own.waves").read_bytes()}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["hdf5", "npy", "webdataset"])
def test_beats_go_with_the_records(dataset, tmp_path, format, monkeypatch):
    monkeypatch.setattr("ecg_batch.export.pieces.BEATS_UNITS", 1)
    monkeypatch.setattr("ecg_batch.export.pieces.UNIT_SAMPLES", 3000)
    export(dataset, tmp_path / "all", format, 1)
    assert (tmp_path / "all/beats.parquet").read_bytes() == (dataset.path / "beats.parquet").read_bytes()
    chosen = dataset.select([500, 3, 200, 199])
    export(chosen, tmp_path / "few", format, 1)
    few, whole = (pandas.read_parquet(folder / "beats.parquet") for folder in (tmp_path / "few", dataset.path))
    pandas.testing.assert_frame_equal(few, whole[whole.record.isin([3, 199, 200, 500])].reset_index(drop=True))


def test_annotations_are_written_where_there_are_beats(dataset, tmp_path):
    """Of a table of before 0.5, without waves."""
    import pyarrow.parquet as pq

    beats = {"record": [0, 0, 0, 0, 2], "sample": [0, 80, 170, 250, 33], "symbol": ["+", "N", "V", "N", "N"],
             "aux": ["(AFIB", "", "", "", ""]}  # fmt: skip
    pq.write_table(pa.table(beats), dataset.path / "beats.parquet")
    (dataset.path / "SHA256SUMS").write_bytes(sums_text(read_run(dataset.path), {}))
    export(dataset.select(slice(0, 5)), tmp_path / "out", "ptbxl", 1)
    found = wfdb.rdann(str(tmp_path / "out" / export_ptbxl.record_name(0, 100)), "atr")
    assert (found.sample.tolist(), found.symbol) == ([0, 80, 170, 250], ["+", "N", "V", "N"]) and found.fs == 100
    assert found.aux_note[0].rstrip("\x00") == "(AFIB"
    assert len(list((tmp_path / "out").rglob("*.atr"))) == 2 and not list((tmp_path / "out").rglob("*.waves"))


@pytest.mark.parametrize(("failed", "marks"), [
    ([], []), ([0], [(0, 127), (6000, 0)]), ([6000, 12000], [(6000, 127), (12000, 127), (18000, 0)]),
    ([0, 12000], [(0, 127), (6000, 0), (12000, 127), (18000, 0)]), ([18000], [(18000, 127)]),
])  # fmt: skip
def test_minutes_that_failed_are_noise_to_wfdb_until_they_end(tmp_path, failed, marks):
    """A "~" of subtype 0 says that all signals are clean from there on."""
    rows = sorted([(0, "+", "(N"), *((at, "~", "flat") for at in failed), *((at, "N", "") for at in range(40, 24000, 900))])
    beats = dict(zip(("sample", "symbol", "aux"), map(list, zip(*rows, strict=True)), strict=True))
    files = export_ptbxl.annotations_of(pa.table({"record": [5] * len(rows), **beats}), 24_000, 100)
    assert list(files) == ["atr"]
    (tmp_path / "r.atr").write_bytes(files["atr"][5])
    found = wfdb.rdann(str(tmp_path / "r"), "atr")
    read = list(zip(found.sample.tolist(), found.symbol, found.subtype.tolist(), strict=True))
    assert [(at, subtype) for at, symbol, subtype in read if symbol == "~"] == marks
    assert [(at, symbol) for at, symbol, _ in read if symbol != "~"] == [(at, symbol) for at, symbol, _ in rows if symbol != "~"]
    assert all(subtype == 0 for _, symbol, subtype in read if symbol != "~")


def test_noise_that_was_asked_for_ends_where_its_mark_says_beside_a_minute_that_failed(tmp_path):
    rows = [(0, "+", "(N"), (3000, "~", "noise muscle 6.0 dB"), (5200, "~", "noise ends"), (6000, "~", "beats"), (7000, "N", "")]
    beats = dict(zip(("sample", "symbol", "aux"), map(list, zip(*rows, strict=True)), strict=True))
    files = export_ptbxl.annotations_of(pa.table({"record": [5] * len(rows), **beats}), 24_000, 100)
    (tmp_path / "r.atr").write_bytes(files["atr"][5])
    found = wfdb.rdann(str(tmp_path / "r"), "atr")
    marks = [(at, subtype) for at, symbol, subtype in zip(found.sample, found.symbol, found.subtype, strict=True) if symbol == "~"]
    assert marks == [(3000, 127), (5200, 0), (6000, 127), (12_000, 0)]


@pytest.mark.slow
def test_two_workers_export_in_parallel(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("ecg_batch.export.pieces.UNIT_SAMPLES", 64_000)
    start = sum(os.times()[:4])  # processor time of this process and its workers: a busy machine is no fault of ours
    export(dataset, tmp_path / "out", "ptbxl", 2)
    assert sum(os.times()[:4]) - start < 60
    np.testing.assert_array_equal(read_wfdb(tmp_path / "out"), dataset.raw[:])


@pytest.mark.slow
def test_a_long_dataset_is_exported_in_every_format(tmp_path):
    (tmp_path / "long.yaml").write_text("{records: 2, duration_s: 150, seed: 1, mix: {labels: {NORM: 0.5, AFIB: 0.5}, hr_bpm: 72}}")
    job = [sys.executable, str(TESTS.parent / "jobs/synthesize.py"), str(tmp_path / "long.yaml"), "--out", str(tmp_path / "long")]
    made = subprocess.run(job, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(TESTS.parent)})
    assert made.returncode == 0, made.stderr
    dataset = ecg_batch.open_dataset(tmp_path / "long")
    for format, read in READERS.items():
        export(dataset, tmp_path / format, format, 1)
        np.testing.assert_array_equal(read(tmp_path / format), dataset.raw[:])
    found = wfdb.rdann(str(tmp_path / "ptbxl" / export_ptbxl.record_name(1, 100)), "atr")
    stated = pandas.read_parquet(tmp_path / "long/beats.parquet").query("record == 1 and symbol not in ['t', 'p']")
    assert found.sample.tolist() == stated["sample"].tolist() and found.symbol == stated["symbol"].tolist()


def test_the_command_offers_each_format():
    """Its list is kept by hand, so that --help imports nothing heavy; wfdb is another word for ptbxl."""
    with pytest.raises(SystemExit):
        build_parser().parse_args(["export", "DIR", "--format", "none"])
    for name in [*formats(), "wfdb"]:
        assert build_parser().parse_args(["export", "DIR", "--format", name]).format == name
