"""Small inputs and a quick deterministic generator, so that the system around the generator is tested by itself.

Also a program, for tests that kill it: python tests/fakes.py REQUEST OUT WORKERS [PAUSE_S [CLUSTER [HUNGRY [POISONED ...]]]]
HUNGRY: shards that take 8 MB for each record of a batch, as 5,45.
"""

import json
import sys
import time
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecg_batch.draws import Stream, generator
from ecg_batch.execute import synthesize_job
from ecg_batch.leads import MODELLED, twelve_leads
from ecg_batch.rows import ROW_COLUMNS
from ecg_batch.statements import SUPERCLASSES
from ecg_batch.worker import Generator

HUNGER_BYTES = 8_000_000
CODES = ("NORM", "AFIB", "IMI", "SBRAD", "STACH", "CLBBB", "LVH", "NDT", "WPW")
SUPERCLASS_OF = {"NORM": "NORM", "IMI": "MI", "CLBBB": "CD", "LVH": "HYP", "NDT": "STTC", "WPW": "CD"}


def synthesize_fake(plan, assets, shard, queries_of, on_batch, pause_s=0.0, poisoned=(), hungry=()):
    """A shard of random walks by record. Raises on the records in `poisoned`; pauses after each batch."""
    eaten = np.ones(plan.request.batch * HUNGER_BYTES * (shard.index in hungry), np.uint8)
    ecg = np.empty((shard.records, 12, plan.time_samples), np.int16)
    labels, rates = [], []
    for start in range(shard.start, shard.stop, plan.request.batch):
        stop = min(start + plan.request.batch, shard.stop)
        queries = queries_of(start, stop)
        for record in range(start, stop):
            if record in poisoned:
                raise RuntimeError(f"record {record} is poisoned")
            steps = generator(plan.request.seed, record, Stream.TEXTURE_NOISE).integers(-9, 10, (8, plan.time_samples), np.int16)
            ecg[record - shard.start] = twelve_leads(steps.cumsum(axis=1, dtype=np.int16))
        labels += queries.label.tolist()
        rates.append(queries.hr_bpm)
        on_batch(stop - shard.start)
        time.sleep(pause_s)
    del eaten
    return ecg, fake_rows(shard, labels, np.concatenate(rates))


def fake_rows(shard, labels, rates):
    records = np.arange(shard.start, shard.stop)
    rows = {name: np.zeros(shard.records, np.float32) for name in ROW_COLUMNS}
    rows |= {"record": records, "shard": np.full(shard.records, shard.index, np.int32), "label": pa.array(labels)}
    rows |= {"hr_bpm_requested": pa.array(rates, from_pandas=True), "donor_ecg_id": [[int(r)] for r in records]}
    rows |= {"donor_patient_id": [[int(r) // 2] for r in records], "donor_fold": [[1 + int(r) % 8] for r in records]}
    rows |= {"scp_codes": [json.dumps({label: 100, "SR": 0}) for label in labels], "flags": [""] * len(labels)}
    rows |= {"sex": pa.array(records % 2, pa.int8()), "age": pa.array(20.0 + records % 70, pa.float32())}
    return pa.table(rows | {name: np.array(labels) == name for name in SUPERCLASSES})


def open_fake(plan):
    return None


def fake(pause_s: float = 0.0, poisoned: tuple = (), hungry: tuple = ()) -> Generator:
    return Generator(open_fake, partial(synthesize_fake, pause_s=pause_s, poisoned=poisoned, hungry=hungry))


def write_fake_bank(folder: Path, fs_hz: int = 100) -> None:
    """Two donors for each statement but WPW, which has one, and that in fold 9."""
    from ecg_batch import bank

    held = [code for code in range(len(CODES) - 1) for _ in range(2)] + [len(CODES) - 1]
    donors = len(held)
    likelihood = np.full((donors, len(CODES)), -1, np.int8)
    likelihood[np.arange(donors), held] = 100
    table = {name: np.zeros(donors, np.int32) for name in (*bank.TABLE_COLUMNS, *bank.SHAPE_COLUMNS)}
    table |= {"likelihood": likelihood, "fold": np.array([1 + i % 8 for i in range(donors - 1)] + [9], np.int32)}
    table |= {name: np.zeros((donors, 8, 10), np.int16) for name in ("skeleton", "texture")}
    table |= {"r_sample": np.zeros((donors, 3), np.int32)}
    attributes = {"format": 1, "leads": MODELLED, "fs_hz": fs_hz, "codes": CODES, "superclass_of": SUPERCLASS_OF}
    folder.mkdir()
    bank.write_group(folder / "donors.zarr", table, attributes)


def write_fake_models(folder: Path, fs_hz: int = 100, vqvae_sha256: str | None = None) -> None:
    """Weight files with true headers and no weights. vqvae_sha256: what mamba says of its vqvae, the truth by
    default.
    """
    folder.mkdir()
    _write_header(folder / "vqvae.safetensors", {"format": "ecg-batch vqvae 1", "fs_hz": str(fs_hz), "samples_per_token": "4"})
    vqvae_sha256 = vqvae_sha256 or sha256((folder / "vqvae.safetensors").read_bytes()).hexdigest()
    metadata = {"format": "ecg-batch mamba 1", "fs_hz": str(fs_hz), "vqvae_sha256": vqvae_sha256}
    _write_header(folder / "mamba.safetensors", metadata)


def _write_header(path: Path, metadata: dict[str, str]) -> None:
    header = json.dumps({"__metadata__": metadata}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


if __name__ == "__main__":
    given = sys.argv[1:]
    request, out, workers, pause_s, cluster, hungry, *poisoned = given + ["0", "", ""][len(given) - 3 :]
    # by its module name, so that worker processes find the functions too
    import fakes

    generator = fakes.fake(float(pause_s), tuple(map(int, poisoned)), tuple(map(int, filter(None, hungry.split(",")))))
    sys.exit(synthesize_job(Path(request), [], Path(out), int(workers), generator, Path(cluster) if cluster else None))
