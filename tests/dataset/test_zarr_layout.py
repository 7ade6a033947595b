"""What a dataset's zarr.json files say, and its coordinates, are what zarr-python writes, byte for byte."""

import json
from dataclasses import replace

import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from ecg_batch.dataset.coordinates import coordinates
from ecg_batch.dataset.write import CODEC, MINUTE_CODEC, TITLE, array_metadata
from ecg_batch.files import to_json
from ecg_batch.leads import LEADS
from ecg_batch.request.parse import load_request
from ecg_batch.run.planning import make_plan

ECG = {"fs_hz": 100, "units": "mV", "scale_factor": 0.001, "leads": list(LEADS), "long_name": "12-lead electrocardiogram"}


def by_zarr(shape, shards, chunks, codec, long) -> dict[str, bytes]:
    store, kwargs = {}, {"chunk_key_encoding": {"name": "default", "separator": "."}}
    group = zarr.create_group(MemoryStore(store), attributes={"title": TITLE.format("PTB-XL"), "Conventions": "CF-1.11"})
    stated = {"cname": codec.cname, "clevel": codec.clevel, "shuffle": "bitshuffle", "blocksize": codec.blocksize}
    kwargs |= {"compressors": [BloscCodec(typesize=2, **stated), Crc32cCodec()], "dimension_names": ("record", "lead", "time")}
    group.create_array("ecg", shape=shape, shards=shards, chunks=chunks, dtype="int16", fill_value=0, attributes=ECG, **kwargs)
    for name, (values, attributes) in coordinates(None if long else shape[2], 100).items():
        codecs = [BloscCodec(typesize=values.dtype.itemsize, cname="zstd", shuffle="bitshuffle"), Crc32cCodec()]
        kwargs |= {"compressors": codecs, "dimension_names": (name,)}
        array = group.create_array(name, shape=values.shape, chunks=values.shape, dtype=values.dtype, fill_value=-1,
                                   attributes=attributes, **kwargs)  # fmt: skip
        array[:] = values
    return {f"ecg.zarr/{name}": to_json(json.loads(data.to_bytes())) if name.endswith(".json") else data.to_bytes()
            for name, data in store.items()}  # fmt: skip


@pytest.mark.parametrize(("records", "duration_s", "long"), [(540, 10, False), (1, 10, False), (3, 150, True)])
def test_metadata_and_coordinates(write_request, records, duration_s, long):
    plan, _ = make_plan(load_request(write_request(shard=128, batch=64)))
    request = replace(plan.request, records=records, duration_s=duration_s, **({"batch": 1, "shard": 1} if long else {}))
    minute, samples = request.minute_samples, 100 * duration_s
    sizes = ((1, 12, -(-samples // minute) * minute), (1, 12, minute)) if long else ((128, 12, samples), (64, 12, samples))
    reference = by_zarr((records, 12, samples), *sizes, MINUTE_CODEC if long else CODEC, long)
    made = array_metadata(replace(plan, request=request, source=""))
    assert made == reference and list(made) == sorted(made)
