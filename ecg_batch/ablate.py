"""Ablations: the records of one request, made again with one option changed, all with the same texture.

A row of the evaluation then differs from the next one in that option and in nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from ecg_batch.labelled import Labelled, from_rows, together

TextureOf = Callable[[object, np.ndarray], np.ndarray]  # (assets, texture (record, 8, time), donors) -> texture


def ablations(
    plan, assets, records: int, changes: Mapping[str, dict], queries_of, textures: Mapping[str, TextureOf], show=iter
) -> dict[str, Labelled]:
    """{name: the first `records` records of a plan}; changes: name -> fields of the request that differ.

    textures: name -> what stands in for the generated texture. show: wraps the batches, for a progress bar. Batches are as
    large as the plan's and begin where its batches do, so without a change the records are the dataset's own.
    """
    from ecg_batch import shard
    from ecg_batch.rows import rows_table

    base, parts = plan.request, {name: [] for name in changes}
    for start in show(range(0, records, base.batch)):
        queries = queries_of(start, min(start + base.batch, records))
        candidates = shard.donors_of(base, assets, queries)
        drawn = shard.texture(base, assets, queries, candidates[:, 0], plan.time_samples)
        for name, change in changes.items():
            stand_in = textures.get(name)
            texture = drawn if stand_in is None else stand_in(assets, drawn, candidates[:, 0])
            request = replace(base, **change)
            batch = shard.with_texture(request, assets, queries, candidates, texture)
            parts[name].append(from_rows(batch.ecg, rows_table(assets.bank.table, batch, 0), base.fs_hz))
    return {name: together(*held) for name, held in parts.items()}


def real_texture(assets, texture: np.ndarray, donors: np.ndarray) -> np.ndarray:
    """Real texture of another donor: the upper bound of any texture generator. The neighbour in the bank's order of donors."""
    from ecg_batch.leads import MV_PER_STEP

    others = (donors + 1 + np.arange(len(donors)) % 7) % len(assets.bank.texture)
    return assets.bank.texture[others][..., : texture.shape[-1]] * MV_PER_STEP


def noise_texture(assets, texture: np.ndarray, donors: np.ndarray) -> np.ndarray:
    """Gaussian noise with the power spectrum of the generated texture, lead by lead: what costs no model.

    Random phases (Theiler et al. 1992, doi:10.1016/0167-2789(92)90102-S), drawn by donor and place in the batch.
    """
    spectrum = np.abs(np.fft.rfft(texture, axis=-1))
    mean = np.sqrt(np.square(spectrum).mean(0, keepdims=True))
    rng = np.random.default_rng([int(donors[0]), len(donors)])
    normal = np.fft.rfft(rng.standard_normal(texture.shape), axis=-1) / np.sqrt(texture.shape[-1])
    return np.fft.irfft(mean * normal, n=texture.shape[-1], axis=-1)
