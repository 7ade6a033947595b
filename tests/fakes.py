"""Small inputs and a quick deterministic generator, so that the system around the generator is tested by itself.

Also a program, for tests that kill it: python tests/fakes.py REQUEST OUT WORKERS [PAUSE_S [CLUSTER [HUNGRY [POISONED ...]]]]
HUNGRY: shards that take 8 MB for each record of a batch, as 5,45.
"""

import json
import logging
import sys
import time
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from ecg_batch.cli.logs import log_from
from ecg_batch.cli.outcome import exit_status
from ecg_batch.cli.synthesize import synthesize_job
from ecg_batch.dataset.beats import BEFORE, RHYTHM, WAVES, beats_table
from ecg_batch.dataset.rows import FURTHER, ROW_COLUMNS
from ecg_batch.draws import Stream, generator
from ecg_batch.errors import UserError
from ecg_batch.leads import MODELLED, twelve_leads
from ecg_batch.models.networks import MambaConfig, RhythmConfig, UnitConfig, VqVaeConfig
from ecg_batch.models.sequences.rhythm_codes import ALPHABET
from ecg_batch.run.worker import OpenGenerator
from ecg_batch.statements import SUPERCLASSES

HUNGER_BYTES = 8_000_000
CODES = ("NORM", "AFIB", "IMI", "SBRAD", "STACH", "CLBBB", "LVH", "NDT", "WPW")
SUPERCLASS_OF = {"NORM": "NORM", "IMI": "MI", "CLBBB": "CD", "LVH": "HYP", "NDT": "STTC", "WPW": "CD"}


MIX = {
    "labels": {"NORM": 0.5, "AFIB": 0.3, "SBRAD": 0.2},
    "hr_bpm": {"uniform": [50, 90]},
    "sex": {"female": 0.6, "male": 0.4},
}
# 5 shards, the last one short; small enough that a run takes a fraction of a second
SMALL = {"records": 540, "batch": 64, "shard": 128, "seed": 7, "mix": MIX}


def make_fake_shard(plan, shard, batch, queries_of, on_batch, pause_s=0.0, poisoned=(), hungry=()):
    """A shard of random walks by record. Raises on the records in `poisoned`; pauses after each batch."""
    eaten = np.ones(batch * HUNGER_BYTES * (shard.index in hungry), np.uint8)
    ecg = np.empty((shard.records, 12, plan.request.samples), np.int16)
    labels, rates = [], []
    for start in range(shard.start, shard.stop, batch):
        stop = min(start + batch, shard.stop)
        queries = queries_of(start, stop)
        for record in range(start, stop):
            if record in poisoned:
                raise RuntimeError(f"record {record} is poisoned")
            steps = generator(plan.request.seed, record, Stream.TEXTURE_NOISE).integers(-9, 10, (8, plan.request.samples), np.int16)
            ecg[record - shard.start] = twelve_leads(steps.cumsum(axis=1, dtype=np.int16))
        labels += queries.label.tolist()
        rates.append(queries.hr_bpm)
        on_batch(stop - shard.start)
        time.sleep(pause_s)
    del eaten
    return ecg, fake_rows(shard, labels, np.concatenate(rates)), [fake_beats(shard, plan.request.samples)]


def fake_rows(shard, labels, rates):
    records = np.arange(shard.start, shard.stop)
    rows = {name: np.zeros(shard.records, np.float32) for name in ROW_COLUMNS}
    rows |= {"record": records, "shard": np.full(shard.records, shard.index, np.int32), "label": pa.array(labels)}
    rows |= {"hr_bpm_requested": pa.array(rates, from_pandas=True), "donor_ecg_id": pa.array(records, pa.int32())}
    rows |= {"donor_patient_id": pa.array(records // 2, pa.int32()), "donor_fold": pa.array(1 + records % 8, pa.int32())}
    others = [[int(r) + 1] * (int(r) % 3) for r in records]  # of blends: none, one or two
    rows |= {name: pa.array(others, FURTHER) for name in ROW_COLUMNS if name.startswith(("blend_", "texture_"))}
    rows |= {"scp_codes": [json.dumps({label: 100, "SR": 0}) for label in labels], "flags": [""] * len(labels)}
    rows |= {"sex": pa.array(records % 2, pa.int8()), "age": pa.array(20.0 + records % 70, pa.float32())}
    return pa.table(rows | {name: np.array(labels) == name for name in SUPERCLASSES})


def fake_beats(shard, samples):
    """A beat a second, every fifth without a P wave, and a T wave that hangs over from before the record."""
    records, r = np.arange(shard.start, shard.stop), np.arange(40, samples, 100)
    wave_ms = np.arange(len(WAVES)) * 70.0 - 270 + (records[:, None, None] % 50) + np.zeros((len(r) + 2, 1))
    wave_ms[:, 0], wave_ms[:, 1, :7] = np.nan, np.nan
    wave_ms[:, 2::5, :3] = np.nan
    symbol = np.concatenate([[RHYTHM, BEFORE], np.where(np.arange(len(r)) % 7 == 6, "V", "N")])
    aux = np.concatenate([["(N"], np.full(len(r) + 1, "")])
    sample, each = np.concatenate([[0, 0], r]), len(r) + 2
    rows = (np.repeat(records, each), *(np.tile(column, shard.records) for column in (sample, symbol, aux)))
    return beats_table(*rows, wave_ms.reshape(-1, len(WAVES)))


def open_fake(plan, **how):
    return partial(make_fake_shard, plan, **how)


def fake(pause_s: float = 0.0, poisoned: tuple = (), hungry: tuple = ()) -> OpenGenerator:
    return partial(open_fake, pause_s=pause_s, poisoned=poisoned, hungry=hungry)


def small_request(inputs: Path, path: Path, **changes) -> Path:
    raw = {**SMALL, "bank": str(inputs / "bank"), "models": str(inputs / "models"), **changes}
    path.write_text(yaml.safe_dump({key: value for key, value in raw.items() if value is not None}))
    return path


def open_nothing(plan):
    raise UserError("models/vqvae.safetensors: damaged. Train it again")


def write_fake_bank(folder: Path, fs_hz: int = 100) -> None:
    """Two donors for each statement but WPW, which has one, and that in fold 9."""
    from ecg_batch.donors import bank

    held = [code for code in range(len(CODES) - 1) for _ in range(2)] + [len(CODES) - 1]
    donors = len(held)
    likelihood = np.full((donors, len(CODES)), -1, np.int8)
    likelihood[np.arange(donors), held] = 100
    table = {name: np.zeros(donors, np.int32) for name in (*bank.TABLE_COLUMNS, *bank.SHAPE_COLUMNS)}
    table |= {"likelihood": likelihood, "fold": np.array([1 + i % 8 for i in range(donors - 1)] + [9], np.int32)}
    table |= {name: np.zeros((donors, 8, 10), np.int16) for name in ("skeleton", "texture")}
    table |= {"r_sample": np.zeros((donors, 3), np.int32), **{name: np.zeros(donors, np.float32) for name in bank.FLOATS}}
    attributes = {"format": 1, "leads": MODELLED, "fs_hz": fs_hz, "codes": CODES, "superclass_of": SUPERCLASS_OF}
    folder.mkdir()
    bank.write_group(folder / "donors.zarr", table, attributes)


def write_fake_models(folder: Path, fs_hz: int = 100, vqvae_sha256: str | None = None) -> None:
    """The smallest weight files that fit together, all zeros. vqvae_sha256: what mamba says of its vqvae, the truth by default."""
    vqvae = VqVaeConfig(codes=2, dim=1, channels=1, dilations=(1,), noise_channels=8, drift_tokens=2)
    mamba = MambaConfig(texture_tokens=2, condition_tokens=1, d_model=1, n_layer=1, expand=1, d_state=1, d_conv=1)
    folder.mkdir()
    _write_zeros(folder / "vqvae.safetensors", vqvae, {"format": "ecg-batch vqvae 1", "fs_hz": str(fs_hz)})
    vqvae_sha256 = vqvae_sha256 or sha256((folder / "vqvae.safetensors").read_bytes()).hexdigest()
    metadata = {"format": "ecg-batch mamba 1", "fs_hz": str(fs_hz), "vqvae_sha256": vqvae_sha256}
    labels = {"conditions": json.dumps(["ANY"]), "superclass_of": json.dumps(SUPERCLASS_OF)}
    _write_zeros(folder / "mamba.safetensors", mamba, {**metadata, **labels})
    units = UnitConfig(codes=2, hidden=1, d_model=1, n_layer=1, expand=1, d_state=1, d_conv=1)
    _write_zeros(folder / "units.safetensors", units, {"format": "ecg-batch units 1", "fs_hz": str(fs_hz)})
    rhythm = RhythmConfig(hidden=1, d_model=1, n_layer=1, expand=1, d_state=1, d_conv=1)
    _write_zeros(folder / "rhythm.safetensors", rhythm, {"format": "ecg-batch rhythm 1", "alphabet": ALPHABET})


def _write_zeros(path: Path, sizes, metadata: dict[str, str]) -> None:
    """Written here, since safetensors orders metadata by chance, and other bytes are another run."""
    header, at = {"__metadata__": {**metadata, "config": sizes.to_json()}}, 0
    for name, shape in sizes.shapes().items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(at))


if __name__ == "__main__":
    given = sys.argv[1:]
    request, out, workers, pause_s, cluster, hungry, *poisoned = given + ["0", "", ""][len(given) - 3 :]
    # by its module name, so that worker processes find the functions too
    import fakes

    open_generator = fakes.fake(float(pause_s), tuple(map(int, poisoned)), tuple(map(int, filter(None, hungry.split(",")))))
    where = Path(cluster) if cluster else None
    log_from(logging.INFO)
    sys.exit(exit_status(lambda: synthesize_job(Path(request), [], Path(out), int(workers), open_generator, where)))


def killed_in_epoch(last: int):
    """What stands in for checkpoints.refuse_divergence, which every step of a training passes: a kill in this epoch."""

    def check(name, epoch, value, learning_rate):
        if epoch == last:
            raise KeyboardInterrupt

    return check
