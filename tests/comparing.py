"""Datasets that are to be the same, and damage done to them."""

from pathlib import Path

from ecg_batch.dataset.manifest import read_manifest
from ecg_batch.dataset.verify import verify


def flip_bit(path, position: float) -> bytes:
    """Flip one bit at a relative position; returns what the file was."""
    before = path.read_bytes()
    after = bytearray(before)
    after[min(int(position * len(after)), len(after) - 1)] ^= 0x04
    path.write_bytes(after)
    return before


def ecg_files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in (out / "ecg.zarr").rglob("*") if path.is_file()}


def assert_same_dataset(one: Path, two: Path) -> None:
    assert ecg_files(one) == ecg_files(two)
    assert read_manifest(one)["content_root"] == read_manifest(two)["content_root"]
    for table in ("records.parquet", "beats.parquet"):
        assert (one / table).read_bytes() == (two / table).read_bytes()
    assert list(verify(two)) == []
