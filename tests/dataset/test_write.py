"""A shard is written as zarr-python would write it, and what blosc or a file system makes of it is seen before anybody reads it."""

import numpy as np
import pytest
import zarr
from fakes import fake, fake_beats, fake_rows
from making import plan_of
from numcodecs import blosc

from ecg_batch.dataset import write
from ecg_batch.dataset.layout import ECG
from ecg_batch.dataset.rows import ROW_COLUMNS
from ecg_batch.dataset.write import array_metadata, build_shard
from ecg_batch.dataset.zarr_chunks import zarr_chunks
from ecg_batch.files import SummedFile, sums_of_file
from ecg_batch.run.local import ShardsFailed, run_missing

MIX = {"labels": {"NORM": 1.0}, "hr_bpm": 70}


def walks(records: int, samples: int, seed: int = 0) -> np.ndarray:
    """int16 (record, 12, time), a random walk in each lead."""
    steps = np.random.default_rng(seed).integers(-9, 10, (records, 12, samples), np.int16)
    return steps.cumsum(axis=2, dtype=np.int16)


def build(plan, shard, ecg: np.ndarray, folder):
    rows = fake_rows(shard, ["NORM"] * shard.records, np.full(shard.records, 70.0)).select(ROW_COLUMNS)
    return build_shard(plan, shard, ecg, rows, folder, [fake_beats(shard, plan.request.samples)])


def lay_out(plan, folder) -> None:
    for name, data in array_metadata(plan).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


# As zarr-python writes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("records", "shard", "duration_s", "zeros"), [
    (256, 256, 10, ()), (300, 128, 10, ()), (512, 128, 10, (0, 3, 7)), (70, 128, 10, (1,)), (65, 64, 10, ()), (200, 192, 25, (2,)),
])  # fmt: skip
def test_a_shard_file_has_the_bytes_that_zarr_writes(tmp_path, records, shard, duration_s, zeros):
    """Whole shards, a last one that ends inside a chunk, chunks of zeros alone, chunks of more blocks and of fewer."""
    plan = plan_of(tmp_path, records=records, batch=64, shard=shard, duration_s=duration_s, mix=MIX)
    ecg = walks(records, plan.request.samples)
    for chunk in zeros:
        ecg[64 * chunk : 64 * chunk + 64] = 0
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        lay_out(plan, folder)
    array = zarr.open_array(tmp_path / "theirs" / ECG / "ecg", mode="r+")
    for one in plan.shards:
        build(plan, one, ecg[one.start : one.stop], tmp_path / "ours")
        array[one.start : one.stop] = ecg[one.start : one.stop]
    for name in (name for one in plan.shards for name in plan.ecg_files(one)):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes(), name
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "ours" / ECG / "ecg", mode="r")[:], ecg)
    chunks = zarr_chunks(tmp_path / "ours" / ECG / "ecg")
    np.testing.assert_array_equal(np.concatenate([chunks.read(at) for at in range(-(-records // 64))]), ecg)


def test_a_shard_of_zeros_alone_is_a_file_too(tmp_path):
    """zarr-python would write none, and a receipt names one."""
    plan = plan_of(tmp_path, records=128, batch=64, shard=128, mix=MIX)
    lay_out(plan, tmp_path)
    ecg = np.zeros((128, 12, 1000), np.int16)
    built = build(plan, plan.shards[0], ecg, tmp_path)
    assert built.files["ecg.zarr/ecg/c.0.0.0"]["bytes"] == 2 * 16 + 4
    assert not zarr.open_array(tmp_path / ECG / "ecg", mode="r")[:].any()


# What gives back something else ---------------------------------------------------------------------------------------


def test_a_summed_file_says_what_it_was_given(tmp_path):
    pieces = [bytes([at]) * at * 40_000 for at in range(5)]
    with SummedFile(tmp_path / "file") as file:
        for piece in pieces:
            file.write(piece)
    size, sha256, crc32c = sums_of_file(tmp_path / "file")
    assert (size, crc32c) == (400_000, file.crc32c) and (tmp_path / "file").read_bytes() == b"".join(pieces)
    (tmp_path / "file").write_bytes(b"".join(pieces)[:-1])
    assert sums_of_file(tmp_path / "file")[2] != file.crc32c


def flipping(at: int):
    """SummedFile.write of a file system that changes a bit of the file, in byte `at` from its beginning or its end."""
    sound = SummedFile.write

    def write(self, data):
        start, done = self.tell(), sound(self, data)
        if start <= at < start + len(data):
            self.seek(at)
            self.raw.write(bytes([data[at - start] ^ 4]))
            self.seek(start + len(data))
        return done

    return write


def losing(self, data, sound=SummedFile.write):
    """Of one that forgets the last byte of each piece."""
    done = sound(self, data)
    self.seek(-1, 1)
    self.raw.truncate(self.tell())
    return done


def in_files(fault, suffix: str):
    """The fault, in files whose names end so."""
    sound = SummedFile.write
    return lambda self, data: (fault if str(self.raw.name).endswith(suffix) else sound)(self, data)


@pytest.mark.parametrize("fault", [flipping(0), flipping(3000), losing], ids=["first", "inside", "lost"])
@pytest.mark.parametrize("suffix", [".0.0", "0.arrow", "0.beats.arrow"])
def test_a_file_that_comes_back_other_than_it_was_written_is_refused(tmp_path, monkeypatch, fault, suffix):
    plan = plan_of(tmp_path, records=128, batch=64, shard=128, mix=MIX)
    monkeypatch.setattr(SummedFile, "write", in_files(fault, suffix))
    with pytest.raises(OSError, match=rf"shard 0: .*{suffix}: the file system gave back other bytes than were written"):
        build(plan, plan.shards[0], walks(128, 1000), tmp_path)


def test_a_chunk_that_blosc_does_not_give_back_is_refused(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, records=128, batch=64, shard=128, mix=MIX)

    class Wrong(blosc.Blosc):
        def encode(self, buf):
            buf = buf.copy()
            buf[7, 3, 500] ^= buf[0, 0, 0] == 77
            return super().encode(buf)

    ecg = walks(128, 1000)
    ecg[64, 0, 0] = 77
    monkeypatch.setattr(write, "CODEC", Wrong("zstd", clevel=1, shuffle=blosc.BITSHUFFLE))
    with pytest.raises(OSError, match="shard 0: blosc gave back other samples than were compressed, from record 64 on"):
        build(plan, plan.shards[0], ecg, tmp_path)


def test_such_a_shard_is_put_aside_and_has_no_receipt(make_run, monkeypatch):
    run = make_run()
    monkeypatch.setattr(SummedFile, "write", in_files(losing, "c.2.0.0"))
    with pytest.raises(ShardsFailed, match="1 of 5 shards failed: shard 2: OSError: shard 2: .*c.2.0.0: the file system gave back"):
        run_missing(run, 1, fake())
    assert not run.receipt(2).exists() and not (run.folder / "ecg.zarr/ecg/c.2.0.0").exists()


@pytest.mark.parametrize("wrong", [np.float32, 127])
def test_what_is_not_the_shards_is_refused(tmp_path, wrong):
    plan = plan_of(tmp_path, records=128, batch=64, shard=128, mix=MIX)
    ecg = walks(128, 1000).astype(wrong) if wrong is np.float32 else walks(wrong, 1000)
    with pytest.raises(ValueError, match="shard 0: the generator gave"):
        build(plan, plan.shards[0], ecg, tmp_path)
