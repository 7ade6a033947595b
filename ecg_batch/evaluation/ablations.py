"""Ablations: the records of one request, made again with one option changed, those of decoded texture all with the same.

A row of the evaluation then differs from the next one in that option and in nothing else.
"""

from collections.abc import Callable, Mapping

import numpy as np

from ecg_batch.dataset.rows import rows_table
from ecg_batch.evaluation.labelled import Labelled, from_rows, together
from ecg_batch.leads import MV_PER_UV
from ecg_batch.synthesis.batch import candidate_rows, decode_tokens, draw_tokens, make_batch, with_texture
from ecg_batch.synthesis.synthesizer import Synthesizer

TextureOf = Callable[[Synthesizer, np.ndarray, np.ndarray], np.ndarray]  # (synthesizer, texture (record, 8, time), donor_row)


def ablations(
    synthesizer: Synthesizer, records: int, changes: Mapping[str, dict], queries_of, textures: Mapping[str, TextureOf], show=iter
) -> dict[str, Labelled]:
    """{name: the first `records` records of a request}; changes: name -> fields of the request that differ.

    textures: name -> what stands in for decoded texture. show: wraps the batches, for a progress bar. Batches are as
    large as the request's and begin where its batches do, so without a change the records are the dataset's own.
    """
    request, parts = synthesizer.request, {name: [] for name in changes}
    for start in show(range(0, records, request.batch)):
        queries = queries_of(start, min(start + request.batch, records))
        candidates = candidate_rows(synthesizer, queries)
        if synthesizer.models:
            generated = decode_tokens(synthesizer, *draw_tokens(synthesizer, queries, candidates[:, 0]))[: len(queries)]
        for name, change in changes.items():
            asked, stand_in = synthesizer.asked(**change), textures.get(name)
            if asked.request.texture == "units":
                batch = make_batch(asked, queries)
            else:
                texture_mv = generated if stand_in is None else stand_in(synthesizer, generated, candidates[:, 0])
                batch = with_texture(asked, queries, candidates, texture_mv)
            parts[name].append(from_rows(batch.ecg, rows_table(synthesizer.bank.table, batch, 0), request.fs_hz))
    return {name: together(*held) for name, held in parts.items()}


def real_texture(synthesizer: Synthesizer, texture: np.ndarray, donor_row: np.ndarray) -> np.ndarray:
    """Real texture of another donor: the upper bound of any texture generator. The neighbour in the bank's order of donors."""
    others = (donor_row + 1 + np.arange(len(donor_row)) % 7) % len(synthesizer.bank.texture)
    return synthesizer.bank.texture[others][..., : texture.shape[-1]] * MV_PER_UV


def noise_texture(synthesizer: Synthesizer, texture: np.ndarray, donor_row: np.ndarray) -> np.ndarray:
    """Gaussian noise with the power spectrum of the generated texture, lead by lead: what costs no model.

    Random phases (Theiler et al. 1992, doi:10.1016/0167-2789(92)90102-S), drawn by donor and place in the batch.
    """
    spectrum = np.abs(np.fft.rfft(texture, axis=-1))
    mean = np.sqrt(np.square(spectrum).mean(0, keepdims=True))
    rng = np.random.default_rng([int(donor_row[0]), len(donor_row)])
    normal = np.fft.rfft(rng.standard_normal(texture.shape), axis=-1) / np.sqrt(texture.shape[-1])
    return np.fft.irfft(mean * normal, n=texture.shape[-1], axis=-1)
