"""Batches whose texture is made on a GPU: filtered and composed there too, and the next begun before the last is finished.

begin hands a batch to the device and comes back at once; the device works on it while complete checks the one before. Only stored
integers come back, by pinned memory. The few records that fail the gate are drawn again by the CPU, as all are without a GPU, so a
record depends on nothing in its batch. Not yet measured on a GPU; on the CPU it is tested against shard.make_batch.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ecg_batch import decode
from ecg_batch.compose import Composed, low_pass, rounding_bound_mv
from ecg_batch.draws import Stream, uniforms
from ecg_batch.leads import MV_PER_STEP
from ecg_batch.query import Queries
from ecg_batch.request import Request
from ecg_batch.shard import Assets, Batch, donors_of, draw_again, draw_tokens, judged, skeletons
from ecg_batch.skeleton import Skeleton


@dataclass(frozen=True)
class Begun:
    """A batch that the device is at work on. ecg, prd_pct, alpha, sound: on their way to the host, there once `arrived` is."""

    queries: Queries
    candidates: np.ndarray
    rhythm: np.ndarray
    skeletons: list[Skeleton]
    texture_mv: torch.Tensor  # low-passed, float64 (batch, 8, time), stays on the device
    ecg: torch.Tensor  # int16 (batch, 12, time)
    prd_pct: torch.Tensor
    alpha: torch.Tensor
    sound: torch.Tensor  # bool, whether all of the texture is finite
    arrived: "torch.cuda.Event | None"


def batches(request: Request, assets: Assets, asked: Iterable[Queries], samples: int) -> Iterator[Batch]:
    """The batch of each of these queries, two of them in the making at any time."""
    return two_in_flight(lambda each: begin(request, assets, each, samples), lambda begun: complete(request, assets, begun), asked)


def two_in_flight(begin: Callable, complete: Callable, items: Iterable) -> Iterator:
    """complete(begin(item)) of each item, in order; each is begun before the one ahead of it is completed, and no more are."""
    ahead = []
    for item in items:
        ahead.append(begin(item))
        if len(ahead) == 2:
            yield complete(ahead.pop(0))
    yield from map(complete, ahead)


@torch.inference_mode()
def begin(request: Request, assets: Assets, queries: Queries, samples: int) -> Begun:
    """All that the device has to do, in its queue. Always request.batch records, filled up where there are fewer."""
    candidates = donors_of(request, assets, queries)
    tokens, noise = draw_tokens(request, assets, queries, candidates[:, 0], samples)
    device, matrix = tokens.device, low_pass_matrix(samples, request.lowpass_hz, request.fs_hz, tokens.device)
    texture = decode.decode_texture(assets.models, tokens, to_device(noise, device))[..., :samples]
    texture_mv = texture.double() @ matrix  # (batch, 8, time)
    rhythm = uniforms(request.seed, queries.record, Stream.RHYTHM, 2)
    made = skeletons(request, assets, queries, candidates, rhythm, samples)  # here, while the device makes texture
    steps = np.stack([skeleton.steps for skeleton in made], dtype=np.float64)
    steps = np.concatenate([steps, np.repeat(steps[:1], request.batch - len(steps), axis=0)])
    skeleton_mv = (to_device(torch.from_numpy(steps), device) * MV_PER_STEP) @ matrix
    composed = compose(skeleton_mv, texture_mv, request.alpha, request.prd_limit_pct)
    sent = [to_host(tensor) for tensor in (*composed, torch.isfinite(texture).all())]
    arrived = torch.cuda.Event() if device.type == "cuda" else None
    if arrived:
        arrived.record()
    return Begun(queries, candidates, rhythm, made, texture_mv, *sent, arrived)


def complete(request: Request, assets: Assets, begun: Begun) -> Batch:
    """The batch once it has arrived: checked, and what failed drawn again."""
    if begun.arrived:
        begun.arrived.synchronize()
    if not begun.sound:
        raise ValueError("the texture models gave NaN or infinity, so their weights are damaged; train or fetch them again")
    queries, count = begun.queries, len(begun.queries)
    ecg, prd_pct, alpha = (tensor[:count].numpy() for tensor in (begun.ecg, begun.prd_pct, begun.alpha))
    composed = Composed(ecg.astype(np.int32), prd_pct.copy(), alpha.copy())  # copies: the pinned memory serves the next batch
    batch = judged(request, assets, queries, begun.candidates, begun.skeletons, composed, None)
    return draw_again(request, assets, begun.candidates, begun.rhythm, batch, lambda rows: fetched(begun, rows))


def fetched(begun: Begun, rows: np.ndarray) -> np.ndarray:
    """Texture of some records. Not through the device's queue, where the copy would wait until the next batch is made."""
    if not begun.arrived:
        return begun.texture_mv[rows].numpy()
    with torch.cuda.stream(torch.cuda.Stream()):
        return begun.texture_mv[rows].cpu().numpy()


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy that the host need not wait for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in pinned memory that the host need not wait for; it must, before it reads it."""
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True) if tensor.is_cuda else tensor


@lru_cache(maxsize=2)
def low_pass_matrix(samples: int, edge_hz: float, fs_hz: float, device: torch.device) -> torch.Tensor:
    """compose.low_pass as a matrix: x @ matrix, float64 (time, time). It is linear, ends included, and a GPU multiplies faster than
    it recurs. (On a CPU the filter is 10 times as fast: docs/performance.md.)
    """
    return torch.from_numpy(low_pass(np.eye(samples), edge_hz, fs_hz)).to(device)


def compose(skeleton_mv: torch.Tensor, texture_mv: torch.Tensor, alpha: float, prd_limit_pct: float):
    """compose.compose in torch: float64 (record, 8, time) mV -> ecg int16 (record, 12, time), PRD in %, alpha (record,)."""
    size = norm(skeleton_mv)  # (record,)
    allowed = (prd_limit_pct / 100 * size - rounding_bound_mv(skeleton_mv.shape[-1])).clamp(min=0.0)
    used = alpha * (allowed / (alpha * norm(texture_mv)).clamp(min=1e-9)).clamp(max=1.0)  # (record,)
    steps = ((skeleton_mv + used[:, None, None] * texture_mv) / MV_PER_STEP).round().to(torch.int32)  # halves to even, as np.rint
    i, ii = steps[:, 0], steps[:, 1]  # halves of steps round down, as in leads.twelve_leads
    steps = torch.cat([torch.stack([i, ii, ii - i, -((i + ii) >> 1), i - (ii >> 1), ii - (i >> 1)], dim=1), steps[:, 2:]], dim=1)
    i, ii = skeleton_mv[:, 0], skeleton_mv[:, 1]
    whole = torch.cat([torch.stack([i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2], dim=1), skeleton_mv[:, 2:]], dim=1)
    error = torch.linalg.vector_norm(steps.double() * MV_PER_STEP - whole, dim=(1, 2))  # rounding included
    return steps.clamp(-32768, 32767).to(torch.int16), 100 * error / size.clamp(min=1e-9), used


def norm(modelled: torch.Tensor) -> torch.Tensor:
    """compose.norm in torch: root of the sum of squares over 12 leads, (record, 8, time) -> (record,)."""
    squares, product = modelled.square().sum(-1), (modelled[:, 0] * modelled[:, 1]).sum(-1)  # (record, 8), (record,)
    return (3.5 * (squares[:, 0] + squares[:, 1] - product) + squares[:, 2:].sum(1)).sqrt()
