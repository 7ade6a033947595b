"""A flipped bit in a file of a dataset is an error in words or no difference, through every reader, and never another value."""

import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fakes import fake_rows
from flips import FLIPS, flipped, survey
from making import plan_of

import ecg_batch
from ecg_batch.dataset.beats import beats_table
from ecg_batch.dataset.finalise import finalise
from ecg_batch.dataset.layout import FOLDERS, PLAN
from ecg_batch.dataset.manifest import read_manifest
from ecg_batch.dataset.plan import BEATS, plan_to_json
from ecg_batch.dataset.rows import ROW_COLUMNS
from ecg_batch.dataset.run import Run
from ecg_batch.errors import UserError
from ecg_batch.export import ptbxl as export_ptbxl
from ecg_batch.export.formats import export
from ecg_batch.files import to_json
from ecg_batch.plot.records import plot_dataset


def rows_of(folder: Path):
    return ecg_batch.open_dataset(folder).records


def batches_of(folder: Path) -> list[dict]:
    from ecg_batch import ECGIterable, ECGLoader

    loader = ECGLoader(
        ECGIterable(ecg_batch.open_dataset(folder), batch=64, labels=("NORM", "AFIB"), columns=("sex", "donor_fold"))
    )
    return [{name: value.numpy() for name, value in batch.items()} for batch in loader]


def targets_of(folder: Path) -> list[dict]:
    from ecg_batch import ECGIterable

    stream = ECGIterable(ecg_batch.open_dataset(folder), batch=128, targets=("waves", "beats", "rhythm"))
    return [{name: batch[name].numpy() for name in ("waves", "beats", "rhythm")} for batch in stream]


def drawn(folder: Path, tmp_path: Path, record: int) -> bytes:
    plot_dataset(folder, tmp_path / "plot.png", [record])
    return (tmp_path / "plot.png").read_bytes()


@pytest.fixture
def without_donors(monkeypatch):
    """Pictures of the fakes' records have no donors beside them: those of the fakes' bank have ten samples."""
    monkeypatch.setattr("ecg_batch.plot.records._donors_of", lambda *args: None)


def exported(folder: Path, tmp_path: Path, format: str) -> list[bytes]:
    out = tmp_path / "out"
    for stale in (out, tmp_path / "out.partial"):
        shutil.rmtree(stale, ignore_errors=True)
    dataset = ecg_batch.open_dataset(folder)
    export(dataset.select(slice(0, min(len(dataset), 20))), out, format, 1)
    return [path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()]


@pytest.mark.slow
def test_rows_are_right_or_refused_through_every_reader(small_dataset, tmp_path, without_donors):
    path = small_dataset / "records.parquet"
    assert survey(path, lambda: rows_of(small_dataset), 4 * FLIPS) == (4 * FLIPS, 0)
    assert survey(path, lambda: batches_of(small_dataset), FLIPS // 6) == (FLIPS // 6, 0)
    for format in ("npy", "ptbxl"):
        assert survey(path, lambda format=format: exported(small_dataset, tmp_path, format), FLIPS // 6) == (FLIPS // 6, 0)
    survey(path, lambda: drawn(small_dataset, tmp_path, 0), 3)


@pytest.mark.slow
def test_beats_and_targets_are_right_or_refused(small_dataset, tmp_path):
    path = small_dataset / BEATS
    assert survey(path, lambda: targets_of(small_dataset), FLIPS // 3) == (FLIPS // 3, 0)
    assert survey(path, lambda: [ecg_batch.open_dataset(small_dataset).beats(record) for record in (0, 300)], FLIPS) == (FLIPS, 0)
    for format in ("npy", "ptbxl"):
        assert survey(path, lambda format=format: exported(small_dataset, tmp_path, format), 5) == (5, 0)


@pytest.mark.slow
def test_pages_alone_keep_rows_right_where_no_sums_are(small_dataset):
    """An export has no sums: values are still checked, and what pyarrow throws at a damaged footer is told in words."""
    (small_dataset / "SHA256SUMS").unlink()
    path, wrong = small_dataset / "records.parquet", 0
    right, bits = rows_of(small_dataset), random.Random(1)
    for _ in range(FLIPS):
        with flipped(path, bits.randrange(8 * path.stat().st_size)):
            try:
                wrong += not rows_of(small_dataset).equals(right)
            except UserError:
                pass
            except UnicodeDecodeError:  # of the test's own look at a column whose name is damaged
                wrong += 1
    assert wrong <= 0.03 * FLIPS


@pytest.mark.slow
@pytest.mark.parametrize(("format", "name"), [("zarr", "ecg.zarr/ecg/c.1.0.0"), ("hdf5", "ecg.hdf5/00001.h5")])
def test_samples_are_right_or_refused_through_every_reader(make_dataset, tmp_path, without_donors, format, name):
    folder = make_dataset(format=format, records=200)
    path = folder / name
    survey(path, lambda: ecg_batch.open_dataset(folder).raw[120:140], 4 * FLIPS)
    survey(path, lambda: batches_of(folder), FLIPS // 6)
    survey(path, lambda: exported(folder, tmp_path, "hdf5"), 3)
    survey(path, lambda: drawn(folder, tmp_path, 130), 3)


@pytest.fixture
def long_dataset(tmp_path, monkeypatch) -> Path:
    """A dataset of seven records of 130 s with noise for signals, as finalise leaves it."""
    from ecg_batch.dataset.write import array_metadata
    from ecg_batch.dataset.write_streamed import build_streamed

    plan = plan_of(tmp_path, records=7, duration_s=130, batch=3, shard=3, mix={"labels": {"NORM": 1.0}, "hr_bpm": 70})
    run = Run(plan, tmp_path / "long.partial")
    for name in FOLDERS:
        (run.folder / name).mkdir(parents=True)
    for name, data in {PLAN: to_json(plan_to_json(plan)), **array_metadata(plan)}.items():
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / name).write_bytes(data)
    for shard in plan.shards:
        built = build_streamed(plan, shard, Made(plan, shard), run.folder)
        stated = {"format": 1, "run_id": plan.run_id, "shard": shard.index, "records": shard.records, "files": built.files,
                  "content_sha256": built.content_sha256, "bytes": 1, "seconds": 1.0}  # fmt: skip
        run.receipt(shard.index).write_bytes(to_json(stated))
    finalise(run)
    return run.out


class Made:
    """A long shard: what build_streamed asks of one."""

    def __init__(self, plan, shard):
        self.plan, self.shard = plan, shard

    @property
    def blocks(self):
        draws, done = np.random.default_rng(self.shard.index), 0
        while done < self.plan.request.samples:
            count = min(self.plan.request.minute_samples, self.plan.request.samples - done)
            yield draws.integers(-500, 500, (self.shard.records, 12, count)).astype(np.int16)
            done += count

    def tables(self):
        rows = fake_rows(self.shard, ["NORM"] * self.shard.records, np.full(self.shard.records, 70.0)).select(ROW_COLUMNS)
        return rows, [beats_of(record) for record in range(self.shard.start, self.shard.stop)]


def beats_of(record: int) -> pa.Table:
    samples, symbols, aux = np.arange(150) * 86, np.full(150, "N"), np.full(150, "")
    symbols[0], aux = "+", np.where(np.arange(150) == 0, "(N", "")
    return beats_table(np.full(150, record), samples, symbols, aux, np.where(np.arange(8) == 2, np.nan, np.arange(8) * 50.0 - 200)
                       + np.zeros((150, 1)))  # fmt: skip


@pytest.mark.slow
def test_beats_and_long_records_are_right_or_refused(long_dataset, tmp_path):
    assert read_manifest(long_dataset)["records"] == 7
    open_it = ecg_batch.open_dataset
    path = long_dataset / BEATS
    assert survey(path, lambda: [open_it(long_dataset).beats(record) for record in (0, 4, 6)], 4 * FLIPS) == (4 * FLIPS, 0)
    assert survey(path, lambda: exported(long_dataset, tmp_path, "ptbxl"), 5) == (5, 0)
    assert survey(path, lambda: drawn(long_dataset, tmp_path, 2), 3) == (3, 0)
    samples = long_dataset / "ecg.zarr/ecg/c.3.0.0"
    survey(samples, lambda: open_it(long_dataset).raw[3:4])
    survey(samples, lambda: open_it(long_dataset).window(3, 50.0, 70.0))
    samples.unlink()
    for read in (lambda: open_it(long_dataset).raw[2:4], lambda: open_it(long_dataset).window(3, 1, 2)):
        with pytest.raises(UserError, match=r"c.3.0.0: absent.*ecg-batch verify"):
            read()
    found = export_ptbxl._annotations(open_it(long_dataset), np.array([1, 5]))
    assert sorted(found["atr"]) == [1, 5] and found == export_ptbxl._annotations(open_it(long_dataset), np.array([5, 1]))


@pytest.mark.slow
def test_small_files_that_say_what_samples_are_are_held_against_their_sums(small_dataset):
    for name in ("dataset.json", "ecg.zarr/ecg/zarr.json", "SHA256SUMS"):
        read = lambda: (rows_of(small_dataset), ecg_batch.open_dataset(small_dataset).raw[0])  # noqa: E731
        refused, _ = survey(small_dataset / name, read, FLIPS // 2)
        assert refused == FLIPS // 2
