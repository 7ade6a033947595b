"""Batches whose texture is made on a GPU: filtered and composed there too, and the next begun before the last is finished.

begin hands a batch to the device and comes back at once; the device works on it while complete checks the one before. Only stored
integers come back, by pinned memory. The few records that fail the gate are drawn again by the CPU, as all are without a GPU, so a
record depends on nothing in its batch. Not yet measured on a GPU; on the CPU it is tested against batch.make_batch.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from ecg_batch.draws import Stream, uniforms
from ecg_batch.leads import MV_PER_UV
from ecg_batch.models import decode
from ecg_batch.signal.filters import low_pass, low_pass_matrix
from ecg_batch.synthesis.batch import Batch, candidate_rows, checked, draw_again, draw_tokens, skeletons
from ecg_batch.synthesis.compose import Composed, compose, stored
from ecg_batch.synthesis.queries import Queries
from ecg_batch.synthesis.skeleton import Skeletons
from ecg_batch.synthesis.synthesizer import Synthesizer
from ecg_batch.synthesis.units import Texture, of_nobody


@dataclass(frozen=True)
class Begun:
    """A batch that the device is at work on. ecg, prd_pct, alpha, is_finite: on their way to the host, there once `arrived` is."""

    queries: Queries
    candidates: np.ndarray
    beat_draws: np.ndarray
    skeletons: Skeletons
    texture_mv: torch.Tensor  # low-passed, float64 (batch, 8, time), stays on the device
    ecg: torch.Tensor  # int16 (batch, 12, time)
    prd_pct: torch.Tensor
    alpha: torch.Tensor
    is_finite: torch.Tensor  # bool, whether all of the texture is finite
    arrived: "torch.cuda.Event | None"


def make_batches_on_device(synthesizer: Synthesizer, asked: Iterable[Queries]) -> Iterator[Batch]:
    """The batch of each of these queries, two of them in the making at any time."""
    return two_in_flight(partial(begin, synthesizer), partial(complete, synthesizer), asked)


def two_in_flight(begin: Callable, complete: Callable, items: Iterable) -> Iterator:
    """complete(begin(item)) of each item, in order; each is begun before the one ahead of it is completed, and no more are."""
    ahead = []
    for item in items:
        ahead.append(begin(item))
        if len(ahead) == 2:
            yield complete(ahead.pop(0))
    yield from map(complete, ahead)


@torch.inference_mode()
def begin(synthesizer: Synthesizer, queries: Queries) -> Begun:
    """All that the device has to do, in its queue. Always request.batch records, filled up where there are fewer."""
    request, candidates = synthesizer.request, candidate_rows(synthesizer, queries)
    tokens, noise = draw_tokens(synthesizer, queries, candidates[:, 0])
    device, samples = tokens.device, request.samples
    matrix = low_pass_matrix(samples, request.lowpass_hz, request.fs_hz, device)
    texture = decode.decode_texture(synthesizer.models, tokens, to_device(noise, device))[..., :samples]
    texture_mv = texture.double() @ matrix  # (batch, 8, time)
    beat_draws = uniforms(request.seed, queries.key, Stream.RHYTHM, 2)
    made = skeletons(synthesizer, queries, candidates, beat_draws)  # here, while the device makes texture
    ecg_uv = made.ecg_uv(synthesizer)
    ecg_uv = np.concatenate([ecg_uv, np.repeat(ecg_uv[:1], request.batch - len(ecg_uv), axis=0)])
    skeleton_mv = (to_device(torch.from_numpy(ecg_uv), device) * MV_PER_UV) @ matrix
    composed = compose(skeleton_mv, texture_mv, request.alpha, request.prd_limit_pct)
    ecg = composed.ecg_uv.clamp(-32768, 32767).to(torch.int16)
    sent = [to_host(tensor) for tensor in (ecg, composed.prd_pct, composed.alpha, torch.isfinite(texture).all())]
    arrived = torch.cuda.Event() if device.type == "cuda" else None
    if arrived:
        arrived.record()
    return Begun(queries, candidates, beat_draws, made, texture_mv, *sent, arrived)


def complete(synthesizer: Synthesizer, begun: Begun) -> Batch:
    """The batch once it has arrived: checked, and what failed drawn again."""
    if begun.arrived:
        begun.arrived.synchronize()
    if not begun.is_finite:
        raise ValueError(decode.NON_FINITE)
    queries, count = begun.queries, len(begun.queries)
    ecg, prd_pct, alpha = (tensor[:count].numpy() for tensor in (begun.ecg, begun.prd_pct, begun.alpha))
    finished = stored(Composed(ecg.astype(np.int32), prd_pct.copy(), alpha.copy()))  # copies: the memory serves the next batch
    skeleton_mv = None
    if synthesizer.request.noise:  # it is measured against the beats
        ecg_uv = begun.skeletons.ecg_uv(synthesizer)
        skeleton_mv = low_pass(ecg_uv * MV_PER_UV, synthesizer.request.lowpass_hz, synthesizer.request.fs_hz)
    texture = of_nobody(None, begun.skeletons.timings)
    batch = checked(synthesizer, queries, begun.candidates, begun.skeletons, finished, skeleton_mv, texture)
    return draw_again(synthesizer, begun.candidates, begun.beat_draws, batch, partial(fetched, begun))


def fetched(begun: Begun, records: np.ndarray, made: Skeletons) -> Texture:
    """batch.TextureOf. Not through the device's queue, where the copy would wait until the next batch is made."""
    if not begun.arrived:
        return of_nobody(begun.texture_mv[records].numpy(), made.timings)
    with torch.cuda.stream(torch.cuda.Stream()):
        return of_nobody(begun.texture_mv[records].cpu().numpy(), made.timings)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy that the host need not wait for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in pinned memory that the host need not wait for; it must, before it reads it."""
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True) if tensor.is_cuda else tensor
