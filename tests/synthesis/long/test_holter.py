"""Long records as a job: the files it leaves, killed and resumed, damaged and repaired, read by others."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from comparing import ecg_files
from half_done import kill_half_done
from making import assert_memory_does_not_grow, finish, start, write_request
from places import ROOT
from zarr.codecs import BloscCodec, Crc32cCodec

from ecg_batch.dataset.beats import BEAT_COLUMNS, BEAT_SYMBOLS, QUALITY, RHYTHM
from ecg_batch.dataset.layout import RECORDS, ecg_file, partial_of
from ecg_batch.dataset.plan import BEATS
from ecg_batch.dataset.verify import verify
from ecg_batch.dataset.write import MINUTE_CODEC
from ecg_batch.dataset.zarr_chunks import ShardFile
from ecg_batch.errors import UserError
from ecg_batch.reading.synthetic import open_dataset

MIX = {"labels": {"NORM": 0.5, "AFIB": 0.3, "PVC": 0.2}, "hr_bpm": {"uniform": [55, 100]}}
HOLTER = {"records": 7, "duration_s": 130, "batch": 2, "shard": 2, "mix": MIX}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    finish(start(write_request(folder, **HOLTER), folder / "one", 1))
    return folder / "one"


@pytest.mark.slow
def test_each_record_is_a_file_and_all_is_well(dataset):
    names = sorted(path.name for path in (dataset / "ecg.zarr" / "ecg").iterdir() if path.name != "zarr.json")
    assert names == sorted(Path(ecg_file(record)).name for record in range(7))
    assert list(verify(dataset)) == []
    sums = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=dataset, capture_output=True, text=True)
    assert sums.returncode == 0, sums.stdout


@pytest.mark.slow
def test_two_workers_and_kills_make_the_same_bytes(dataset, tmp_path):
    request = write_request(tmp_path, **HOLTER)
    finish(start(request, tmp_path / "two", 2))
    folder = partial_of(tmp_path / "killed")
    for share in (0.4, 0.9, 0.4, 0.9):  # of a shard: its first minute is made, or its second
        process = start(request, tmp_path / "killed", 1)
        found = kill_half_done(process, folder, share)
        assert process.returncode == -signal.SIGKILL and 1 <= found.finished < found.planned == 4
        (begun,) = found.begun
        assert 2 * share <= begun.done_records <= 2 and found.staged > 0, "minutes of its two records are on disk"
    finish(start(request, tmp_path / "killed", 1))
    for other in ("two", "killed"):
        assert ecg_files(tmp_path / other) == ecg_files(dataset)
        for name in (RECORDS, BEATS):
            assert (tmp_path / other / name).read_bytes() == (dataset / name).read_bytes()
        roots = {json.loads((folder / "dataset.json").read_text())["content_root"] for folder in (tmp_path / other, dataset)}
        assert len(roots) == 1
        assert list(verify(tmp_path / other)) == []


@pytest.mark.slow
def test_a_record_is_the_same_whatever_the_number_of_records(dataset, tmp_path):
    finish(start(write_request(tmp_path, **{**HOLTER, "records": 3}), tmp_path / "fewer", 1))
    np.testing.assert_array_equal(open_dataset(tmp_path / "fewer").raw[:], open_dataset(dataset).raw[:3])


@pytest.mark.slow
@pytest.mark.parametrize("name", [ecg_file(3), BEATS])
def test_one_flipped_bit_is_named_and_repaired(dataset, tmp_path, name):
    folder = shutil.copytree(dataset, tmp_path / "copy")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 4
    (folder / name).write_bytes(data)
    assert [line.split(":")[0] for line in verify(folder)] == [name]
    repair = subprocess.run([sys.executable, "jobs/verify.py", folder, "--repair"], cwd=ROOT, capture_output=True, text=True)
    assert "given up" in repair.stdout, repair.stdout + repair.stderr
    assert partial_of(folder).exists()
    finish(start(write_request(tmp_path, **HOLTER), folder, 1))
    assert ecg_files(folder) == ecg_files(dataset) and (folder / BEATS).read_bytes() == (dataset / BEATS).read_bytes()


@pytest.mark.slow
def test_damage_inside_a_minute_is_noticed_by_who_reads_it(dataset, tmp_path):
    folder = shutil.copytree(dataset, tmp_path / "copy")
    data = bytearray((folder / ecg_file(0)).read_bytes())
    data[1000] ^= 1
    (folder / ecg_file(0)).write_bytes(data)
    with pytest.raises(UserError, match=r"c\.0\.0\.0 cannot be read.*ecg-batch verify"):
        open_dataset(folder).window(0, 0, 10)
    assert open_dataset(folder).window(0, 70, 80).shape == (12, 1000)  # another chunk


@pytest.mark.slow
def test_a_window_and_the_beats_of_one_record(dataset):
    opened = open_dataset(dataset)
    np.testing.assert_array_equal(opened.window(4, 55.5, 65.5), opened[4][:, 5550:6550])
    beats = opened.beats(4)
    assert beats.column_names == list(BEAT_COLUMNS[1:]) and beats["symbol"][0].as_py() == "+"
    with pytest.raises(UserError, match="no 120 to 131 s in record 4; it has records 0 to 6 of 130 s"):
        opened.window(4, 120, 131)


@pytest.mark.slow
def test_tensorstore_reads_the_same_samples(dataset):
    tensorstore = pytest.importorskip("tensorstore")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(dataset / "ecg.zarr" / "ecg")}}
    array = tensorstore.open(spec, read=True).result()
    np.testing.assert_array_equal(array[5].read().result(), open_dataset(dataset).raw[5])


@pytest.mark.slow
def test_wfdb_reads_the_same_samples_and_annotations(dataset, tmp_path):
    import wfdb

    export = [sys.executable, "jobs/export.py", dataset, "--format", "wfdb", "--out", tmp_path / "wfdb", "--workers", "1"]
    done = subprocess.run(export, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    opened, names = open_dataset(dataset), sorted((tmp_path / "wfdb").rglob("*.hea"))
    assert len(names) == 7
    for record, name in enumerate(names):
        samples, beats = wfdb.rdrecord(str(name.with_suffix("")), physical=False), opened.beats(record)
        np.testing.assert_array_equal(samples.d_signal.T, opened.raw[record])
        marks = wfdb.rdann(str(name.with_suffix("")), "atr")
        clean_again = (np.array(marks.symbol) == "~") & (marks.subtype == 0)  # where minutes that failed end, which WFDB wants said
        beats = beats.filter(np.isin(beats["symbol"].to_pylist(), [*BEAT_SYMBOLS, RHYTHM, QUALITY]))
        np.testing.assert_array_equal(marks.sample[~clean_again], beats["sample"].to_numpy())
        assert np.array(marks.symbol)[~clean_again].tolist() == beats["symbol"].to_pylist()
        assert marks.aux_note[0].startswith("(")


def test_a_shard_file_is_what_zarr_itself_would_read_and_write(tmp_path):
    """Same samples through zarr-python's own sharding; an empty minute and a short last one among them."""
    codecs = [BloscCodec(typesize=2, cname="zstd", clevel=2, shuffle="bitshuffle"), Crc32cCodec()]
    steps = np.random.default_rng(1).integers(-900, 900, (12, 14_500), np.int16)
    steps[:, 6000:12_000] = 0
    layout = {"shape": (1, 12, 14_500), "shards": (1, 12, 18_000), "chunks": (1, 12, 6000), "dtype": "int16", "fill_value": 0}
    array = zarr.create_array(tmp_path / "a", compressors=codecs, config={"write_empty_chunks": True}, **layout)
    array[0] = steps
    file = ShardFile(tmp_path / "mine", (12, 6000), MINUTE_CODEC)
    for start_sample in (0, 6000, 12_000):
        file.append(steps[:, start_sample : start_sample + 6000])
    file.close()
    theirs = tmp_path / "a" / "c" / "0" / "0" / "0"
    assert theirs.read_bytes() == (tmp_path / "mine").read_bytes()
    np.testing.assert_array_equal(np.concatenate(list(file.read_back()), axis=1)[:, :14_500], steps)
    shutil.copy(tmp_path / "mine", theirs)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[0], steps)


@pytest.mark.slow
def test_status_tells_of_progress_inside_a_record(tmp_path):
    request = write_request(tmp_path, **{**HOLTER, "records": 1, "duration_s": 36_000, "batch": 1, "shard": 1})
    process = start(request, tmp_path / "run", 1)
    seen = set()
    while len(seen) < 3 and process.poll() is None:
        time.sleep(0.2)  # a look costs the machine a process, the record grows by a minute in 30 ms
        status = subprocess.run([sys.executable, "jobs/status.py", tmp_path / "run"], cwd=ROOT, capture_output=True, text=True)
        seen |= {line for line in status.stdout.splitlines() if "of 1 record (" in line and not line.startswith("0 of")}
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert len(seen) >= 3 and all("s of signal/s" in line for line in seen), seen
    assert process.returncode == 130


@pytest.mark.slow
def test_memory_does_not_grow_with_the_duration(tmp_path):
    """At 2 and at 30 minutes; 1 and 24 hours: benchmarks/cost.py."""
    one = {**HOLTER, "records": 1, "batch": 1, "shard": 1}
    short, long = (write_request(tmp_path, **{**one, "duration_s": seconds}) for seconds in (120, 1800))
    assert_memory_does_not_grow(short, long)


@pytest.mark.slow
def test_a_page_is_drawn_of_a_long_record(dataset, tmp_path):
    plot = [sys.executable, "jobs/plot.py", dataset, "--records", "3", "--out", tmp_path / "page.png"]
    assert subprocess.run([*plot, "--at", "60"], cwd=ROOT).returncode == 0
    beyond = subprocess.run([*plot, "--at", "125"], cwd=ROOT, capture_output=True, text=True)
    assert beyond.returncode == 2 and "needed 0 to 120 s" in beyond.stderr


def test_a_label_without_usable_donors_is_refused_at_the_plan(tmp_path):
    from ecg_batch.bundled import BUNDLED
    from ecg_batch.donors.bank import read_beats
    from ecg_batch.donors.usable import enough_beats
    from ecg_batch.request.parse import load_request
    from ecg_batch.run.planning import _check_donors

    request = load_request(write_request(tmp_path, **HOLTER))
    from ecg_batch.donors.bank import read_table

    donors = read_table(BUNDLED)
    assert enough_beats(*read_beats(BUNDLED), donors.fs_hz).mean() > 0.9
    with pytest.raises(UserError, match="no donor for AFIB with three whole beats, as long records need,"):
        _check_donors(request, donors, ("AFIB",), ~donors.holds("AFIB"))
