"""A PTB-XL folder with odd files: opened without them, with their reasons counted, by the reader that preparing uses."""

import csv
import shutil

import numpy as np
import pytest
from ptbxl_layout import write_layout, write_record

import ecg_batch
from ecg_batch.donors import ptbxl
from ecg_batch.errors import UserError
from ecg_batch.evaluation.labelled import from_ptbxl

RECORDS = 30


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real") / "ptbxl"
    write_layout(folder, list(range(RECORDS)))
    return folder


@pytest.fixture
def odd(layout, tmp_path):
    """A folder of 30 records, of which six cannot be used, each for another reason."""
    folder = shutil.copytree(layout, tmp_path / "ptbxl")
    rows = list(csv.DictReader(open(folder / ptbxl.TABLE, encoding="utf-8")))
    records = [folder / row["filename_lr"] for row in rows]
    shutil.copy(records[4].with_suffix(".dat"), records[3].with_suffix(".dat"))  # other samples under this header
    for suffix in (".dat", ".hea"):  # one recording under two ids
        text = records[5].with_suffix(suffix).read_bytes()
        records[6].with_suffix(suffix).write_bytes(text.replace(records[5].name.encode(), records[6].name.encode()))
    header = records[7].with_suffix(".hea")
    header.write_text(header.read_text().replace("1000.0(0)/mV", "0"))
    records[8].with_suffix(".hea").write_text("no header\n")
    records[9].with_suffix(".dat").write_bytes(b"short")
    rows[10]["age"] = "-1"
    with open(folder / ptbxl.TABLE, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder, [int(rows[at]["ecg_id"]) for at in (3, 6, 7, 8, 9, 10)]


REASONS = (
    "checksums",
    "the same signal as another record (1)",
    "gain 0 or absent (1)",
    "unreadable (",
    "age is no number of years",
)


@pytest.mark.slow
def test_odd_records_are_left_out_and_counted_with_and_without_a_cache(layout, odd, tmp_path, caplog):
    folder, unusable = odd
    whole = ecg_batch.open_ptbxl(layout)
    ids = np.array(whole.columns(["ecg_id"])["ecg_id"].to_pylist())
    kept = ~np.isin(ids, unusable)
    assert kept.sum() == RECORDS - 6
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        real = ecg_batch.open_ptbxl(folder, cache=cache)
        assert real.columns(["ecg_id"])["ecg_id"].to_pylist() == ids[kept].tolist()
        np.testing.assert_array_equal(real.raw[:], whole.raw[:][kept])
    assert all(reason in caplog.text for reason in REASONS), caplog.text
    assert "5 recordings left out" in caplog.text and "1 of 30 rows left out" in caplog.text


@pytest.mark.slow
def test_labelled_records_leave_out_the_same(layout, odd, caplog):
    folder, unusable = odd
    whole, some = from_ptbxl(layout, folds=tuple(range(1, 11))), from_ptbxl(folder, folds=tuple(range(1, 11)))
    assert some.ecg_id.tolist() == [ecg_id for ecg_id in whole.ecg_id.tolist() if ecg_id not in unusable]
    assert "recordings left out" in caplog.text


def test_a_folder_without_any_readable_record_is_refused(odd):
    folder, _ = odd
    for path in (folder / "records100").rglob("*.dat"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of 29 records can be read"):
        ecg_batch.open_ptbxl(folder)
    with pytest.raises(UserError, match="no record with a superclass can be read"):
        from_ptbxl(folder, folds=(1, 2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("divided", [20, 30])
def test_recordings_a_tenth_as_large_as_hearts_make_them_are_told(layout, tmp_path, caplog, divided):
    folder = shutil.copytree(layout, tmp_path / "ptbxl")
    release = ptbxl.read_release(folder, 100)
    for entry in release.entries[:divided]:
        write_record((folder / entry.path).parent, f"{entry.ecg_id:05d}_lr", np.rint(ptbxl.read_record(release, entry) / 10))
    ecg_batch.open_ptbxl(layout)
    assert "0.5 mV" not in caplog.text
    ecg_batch.open_ptbxl(folder)
    assert "of 30 recordings have under 0.5 mV in every lead" in caplog.text and "gain" in caplog.text
