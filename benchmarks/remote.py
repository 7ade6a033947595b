"""Measure reading from a URL: what 256 shuffled records fetch from an S3 server, and the loader's speed beside that from the disk.

    python -m benchmarks.remote [DATASET] [--records N] [--wanted 256] [--epoch 32768] [--latency-ms 20] [--rounds 3] [--workers 2]

DATASET: a finished one (default: 2,048 records made as by configs/demo.yaml, repeated to --records). S3 is moto's server and the
web aiohttp's, each a process of its own on this machine, so what they take is taken from the reader. A proxy counts, or puts the
latency before each answer. The loaders take turns; each figure is the median of --rounds epochs of the first --epoch records, from
S3 a quarter of them: moto copies a whole file of samples for each range of it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.reader import ROOT, make_demo, repeated
from benchmarks.stores import Proxy, elsewhere, proxy_to, put, s3_options, s3_server


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", type=Path)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--wanted", type=int, default=256)
    parser.add_argument("--epoch", type=int, default=32_768)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="remote-") as scratch, s3_server() as s3:
        folder = args.dataset or repeated(make_demo(Path(scratch) / "demo"), Path(scratch) / "large", args.records)
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before, commit {commit}", flush=True)
        put(folder, s3, "bucket", "large")
        with proxy_to(s3) as proxy:
            fetched(folder, proxy, args.wanted)
        epochs(folder, s3, args, Path(scratch))
    return 0


def fetched(folder: Path, proxy: Proxy, wanted: int) -> None:
    """What reading `wanted` records in random order fetches, counted by the proxy before the S3 server."""
    import ecg_batch

    def told(what: str, began: float) -> int:
        took = proxy.bytes
        print(f"{what:80}{len(proxy.log):6,} requests {took:13,} bytes {time.monotonic() - began:7.2f} s", flush=True)
        proxy.clear()
        return took

    here = ecg_batch.open_dataset(folder)
    for latency_s in (0.05, 0.0):
        proxy.latency_s, began = latency_s, time.monotonic()
        there = ecg_batch.open_dataset("s3://bucket/large", storage_options=s3_options(proxy.url))
        opening = told(f"S3: opening {len(there):,} records, {1000 * latency_s:.0f} ms before each answer", began)
    began = time.monotonic()
    there.where(flags="")
    rows = told("S3: where(flags=''), which fetches records.parquet", began)
    records = np.random.default_rng(0).permutation(len(here))[:wanted]
    began = time.monotonic()
    ecg = there.raw[records]
    samples = told(f"S3: {wanted} shuffled records", began)
    np.testing.assert_array_equal(ecg, here.raw[records])
    chunks = np.unique(records // here.chunks.chunk_records)
    needed = sum(stored_bytes(here.chunks, int(chunk)) for chunk in chunks)
    print(f"{f'   the {len(chunks):,} chunks that they lie in have':80}{'':15} {needed:13,} bytes: {samples / needed:.4f} times "
          f"that; with opening and rows {(opening + rows + samples) / needed:.4f} times", flush=True)  # fmt: skip


def stored_bytes(chunks, chunk: int) -> int:
    """Of one chunk on the disk, its crc32c too."""
    shard, at = divmod(chunk, chunks.shard_records // chunks.chunk_records)
    return len(chunks._bytes(chunks.folder / f"c.{shard}.0.0", at)) + 4


def epochs(folder: Path, s3: str, args: argparse.Namespace, scratch: Path) -> None:
    import ecg_batch

    latency_s = args.latency_ms / 1000
    with ExitStack() as stack:
        web = stack.enter_context(elsewhere("web", folder.parent))
        far = stack.enter_context(elsewhere("proxy", web, latency_s))
        s3_far = stack.enter_context(elsewhere("proxy", s3, latency_s))
        late = f"{args.latency_ms:g} ms before each answer"
        opened = {
            "disk": ecg_batch.open_dataset(folder),
            "web": ecg_batch.open_dataset(f"{web}/{folder.name}"),
            f"web, {late}": ecg_batch.open_dataset(f"{far}/{folder.name}"),
            "S3": ecg_batch.open_dataset("s3://bucket/large", storage_options=s3_options(s3)),
            f"S3, {late}": ecg_batch.open_dataset("s3://bucket/large", storage_options=s3_options(s3_far)),
            f"S3, {late}, cached by a former epoch": ecg_batch.open_dataset(
                "s3://bucket/large", storage_options=s3_options(s3_far), cache=scratch / "cache"
            ),
        }
        opened = {name: dataset.select(slice(args.epoch // (1 + 3 * name.startswith("S3")))) for name, dataset in opened.items()}
        for workers in (0, args.workers):
            shown(opened, workers, args.rounds)


def shown(opened: dict, workers: int, rounds: int) -> None:
    """Shuffled epochs of int16 in batches of 256, in turns, after one of those that cache."""
    from ecg_batch import ECGIterable, ECGLoader

    loaders = {name: ECGLoader(ECGIterable(dataset, raw=True), num_workers=workers, persistent_workers=workers > 0)
               for name, dataset in opened.items()}  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(rounds + 1):
        for name, loader in loaders.items():
            if turn or name == "disk" or "cached" in name:
                began, records = time.monotonic(), sum(len(batch["signal"]) for batch in loader)
                found[name] += [records / (time.monotonic() - began)] * (turn > 0)
    disk = statistics.median(found["disk"])
    for name, speeds in found.items():
        of = f"{statistics.median(speeds) / disk:5.2f} of the disk's"
        print(f"{f'ECGLoader, {workers} workers: {name}':80}{statistics.median(speeds):9,.0f} records/s {of}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
