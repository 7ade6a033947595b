"""One shard, end to end. Read this file first: each stage of the system is a line of make_batch."""

import ctypes
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecg_batch.bank import Bank, read_bank
from ecg_batch.check import check_all
from ecg_batch.compose import Composed, compose, low_pass
from ecg_batch.draws import Stream, uniforms
from ecg_batch.errors import UserError
from ecg_batch.leads import MV_PER_STEP
from ecg_batch.plan import refuse_other_software
from ecg_batch.query import Queries
from ecg_batch.request import Request
from ecg_batch.retime import DonorLoop, Timing, donor_loop
from ecg_batch.retrieve import MAX_STRETCH, DonorIndex, contradictions, index_donors, retrieve
from ecg_batch.skeleton import Skeleton, make_skeleton

M_MMAP_THRESHOLD = -3  # malloc.h
TILE_SAMPLES = 16_000  # finished together, all leads of each: 1 MB an array in float64 stays in cache, and is no new memory map


@dataclass
class Assets:
    """What a process loads once: bank, donors, models. loops fills as donors are met."""

    bank: Bank
    donors: DonorIndex
    models: "decode.Models"  # noqa: F821
    loops: dict[int, DonorLoop]
    judge: "judge.Judge | None" = None  # noqa: F821  where the request refines

    def loop(self, donor: int) -> DonorLoop:
        if donor not in self.loops:
            self.loops[donor] = donor_loop(self.bank, donor)
        return self.loops[donor]


@dataclass(frozen=True)
class Batch:
    """Finished records and what is known of them. Arrays over records; donors are rows of the bank."""

    queries: Queries
    ecg: np.ndarray  # int16 (record, 12, time)
    donors: np.ndarray
    measured_bpm: np.ndarray
    prd_pct: np.ndarray
    alpha: np.ndarray
    flags: list[list[str]]
    blended: list[tuple[int, ...]]  # the donors after the first
    timings: list[Timing]
    skeleton_mv: np.ndarray | None  # low-passed, float64 (record, 8, time), where the request refines


def open_assets(plan) -> Assets:
    """Loads bank and models, on one thread: a result must not depend on how many threads a sum is split over."""
    import torch

    from ecg_batch import decode

    refuse_other_software(plan)
    if plan.request.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda but this machine shows no GPU to torch; results differ between CPU and GPU, so there is no "
                        "falling back. Run where a GPU is, or say device: cpu")  # fmt: skip
    _return_large_blocks()
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = False  # as for products of matrices: float32 is to mean float32
    bank = read_bank(Path(plan.request.bank))
    models = decode.load_models(Path(plan.request.models), plan.request.device)
    usable = None
    if plan.request.is_long:
        from ecg_batch.long_donor import enough_beats

        usable = enough_beats(bank.r_sample, bank.p_on, bank.t_end, bank.skeleton.shape[-1], bank.table.fs_hz)
    return Assets(bank, index_donors(bank.table, plan.request.donor_folds, usable), models, {}, _judge(plan.request))


def _judge(request: Request):
    if request.judge is None:
        return None
    from ecg_batch.judge import load_judge

    return load_judge(Path(request.models) / "judge.safetensors")[0]


def _return_large_blocks() -> None:
    """Arrays of 2 MiB and more go back to the system when they are freed.

    glibc raises that limit each time such a block is freed and so keeps ever more: 733 MiB after 2,048 records, 815 MiB after
    200,000. Naming the limit stops that.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2 << 20)


def synthesize_shard(plan, assets: Assets, shard, queries_of, on_batch):
    """Makes one shard: (ecg int16 (record, 12, time), pyarrow Table of its rows). Batches never cross a shard.

    Records over 10 s are made by long.py, see there.
    """
    from ecg_batch.rows import rows_table

    if plan.request.is_long:
        from ecg_batch.long import synthesize_long

        return synthesize_long(plan, assets, shard, queries_of, on_batch)
    ecg = np.empty((shard.stop - shard.start, 12, plan.time_samples), np.int16)
    rows = []
    starts = range(shard.start, shard.stop, plan.request.batch)
    asked = (queries_of(start, min(start + plan.request.batch, shard.stop)) for start in starts)
    done = 0
    for batch in make_batches(plan.request, assets, asked, plan.time_samples):
        ecg[done : done + len(batch.ecg)] = batch.ecg
        rows.append(rows_table(assets.bank.table, batch, shard.index))
        done += len(batch.ecg)
        on_batch(done)
    import pyarrow as pa

    return ecg, pa.concat_tables(rows)


def make_batches(request: Request, assets: Assets, asked: Iterable[Queries], samples: int) -> Iterator[Batch]:
    """The batch of each of these queries. On a GPU the next is begun before the last is finished; refining goes batch by batch."""
    if request.device == "cuda" and request.judge is None:
        from ecg_batch.shard_device import batches

        return batches(request, assets, asked, samples)
    return (make_batch(request, assets, queries, samples) for queries in asked)


def make_batch(request: Request, assets: Assets, queries: Queries, samples: int) -> Batch:
    """Query -> donors -> texture -> beats -> record -> checked; what fails the gate is drawn again with its next donor."""
    candidates = donors_of(request, assets, queries)
    drawn = draw_tokens(request, assets, queries, candidates[:, 0], samples)
    batch = with_texture(request, assets, queries, candidates, decoded(assets, drawn, len(queries), samples))
    if request.judge is None:
        return batch
    from ecg_batch.refine import refine

    return refine(request, assets, batch, *drawn)


def donors_of(request: Request, assets: Assets, queries: Queries) -> np.ndarray:
    """Donors in the order in which they are tried: rows of the bank, (record, k)."""
    return retrieve(assets.donors, queries, uniforms(request.seed, queries.record, Stream.DONOR, request.k))


def with_texture(request: Request, assets: Assets, queries: Queries, candidates: np.ndarray, texture_mv: np.ndarray) -> Batch:
    """The records of these textures (record, 8, time) mV, finished in tiles that stay in cache."""
    rhythm = uniforms(request.seed, queries.record, Stream.RHYTHM, 2)
    count = max(1, TILE_SAMPLES // texture_mv.shape[-1])
    tiles = [slice(start, start + count) for start in range(0, len(texture_mv), count)]
    return _joined([_finish(request, assets, some(queries, at), candidates[at], rhythm[at], texture_mv[at]) for at in tiles])


def _finish(request: Request, assets: Assets, queries: Queries, candidates, rhythm, texture_mv) -> Batch:
    """The records of these textures, each with the first of its candidate donors that passes the gate."""
    texture_mv = low_pass(texture_mv.astype(np.float64), request.lowpass_hz, request.fs_hz)
    batch = _try(request, assets, queries, candidates, rhythm, texture_mv)
    return draw_again(request, assets, candidates, rhythm, batch, lambda rows: texture_mv[rows])


def draw_again(request: Request, assets: Assets, candidates, rhythm, batch: Batch, texture_of: Callable) -> Batch:
    """The batch with records that failed the gate drawn again, each with its next donors. texture_of: low-passed, of these rows."""
    for attempt in range(1, request.attempts):
        again = np.flatnonzero([bool(flags) for flags in batch.flags])
        if not len(again):
            break
        ranked = np.roll(candidates[again], -(attempt % request.k), axis=1)
        retried = _try(request, assets, some(batch.queries, again), ranked, rhythm[again], texture_of(again))
        batch = _better(batch, retried, again)
    return batch


def texture(request: Request, assets: Assets, queries: Queries, donors: np.ndarray, samples: int) -> np.ndarray:
    """Generated texture, float32 (record, 8, time) mV."""
    return decoded(assets, draw_tokens(request, assets, queries, donors, samples), len(queries), samples)


def draw_tokens(request: Request, assets: Assets, queries: Queries, donors: np.ndarray, samples: int):
    """Tokens and decoder noise of a batch of the request's size, filled up where there are fewer records."""
    import torch

    from ecg_batch import decode

    models, fill = assets.models, request.batch - len(queries.record)
    count = decode.token_count(models, samples)
    held = [assets.bank.table.scp_codes(donor) for donor in donors]
    conditions = decode.conditions_of(models, queries.label, held)
    draws = torch.from_numpy(uniforms(request.seed, queries.record, Stream.TOKENS, count))
    noise = decode.draw_noise(models, request.seed, queries.record, count)
    conditions, draws, noise = (torch.cat([x, x[:1].expand(fill, *x.shape[1:])]) for x in (conditions, draws, noise))
    return decode.sample_tokens(models, conditions, draws, request.temperature), noise


def decoded(assets: Assets, drawn: tuple, records: int, samples: int) -> np.ndarray:
    """Texture of tokens and noise, float32 (record, 8, time) mV."""
    import torch

    from ecg_batch import decode

    texture = decode.decode_texture(assets.models, *drawn)[:records, :, :samples]
    if not torch.isfinite(texture.sum()):  # in a sum both stay; a mask of all samples would cost 10 ms a batch
        raise ValueError("the texture models gave NaN or infinity, so their weights are damaged; train or fetch them again")
    return texture.cpu().numpy()


def _try(request: Request, assets: Assets, queries: Queries, ranked: np.ndarray, rhythm, texture_mv: np.ndarray) -> Batch:
    """One attempt: the records with the first of their ranked donors (record, k), checked."""
    made = skeletons(request, assets, queries, ranked, rhythm, texture_mv.shape[-1])
    skeleton_mv = low_pass(np.stack([skeleton.steps for skeleton in made]) * MV_PER_STEP, request.lowpass_hz, request.fs_hz)
    composed = compose(skeleton_mv, texture_mv, request.alpha, request.prd_limit_pct)
    return judged(request, assets, queries, ranked, made, composed, skeleton_mv)


def skeletons(request: Request, assets: Assets, queries: Queries, ranked: np.ndarray, rhythm, samples: int) -> list[Skeleton]:
    """The beats of each record, of the first of its ranked donors."""
    rr_samples = 60 * request.fs_hz / _asked_bpm(assets, queries, ranked[:, 0])
    each = zip(queries.record, ranked, rr_samples, rhythm, strict=True)
    return [make_skeleton(request, assets, int(record), row, rr, samples, u) for record, row, rr, u in each]


def _asked_bpm(assets: Assets, queries: Queries, donors: np.ndarray) -> np.ndarray:
    """The heart rate asked for, the donor's own where none is."""
    return np.where(np.isnan(queries.hr_bpm), assets.bank.table.hr_bpm[donors], queries.hr_bpm).astype(np.float64)


def judged(
    request: Request, assets: Assets, queries: Queries, ranked, made: list[Skeleton], composed: Composed, skeleton_mv
) -> Batch:
    """What the gate says of composed records."""
    donors, timings = ranked[:, 0], [skeleton.timing for skeleton in made]
    hr_bpm = _asked_bpm(assets, queries, donors)
    measured, flags = _checked(composed, timings, hr_bpm, request.fs_hz)
    far = np.abs(np.log([timing.stretch for timing in timings])) > np.log(MAX_STRETCH)
    for flag, contradicts, is_far in zip(flags, contradictions(assets.donors, donors, hr_bpm), far, strict=True):
        flag.extend(["rate_statement"] * bool(contradicts) + ["stretch"] * bool(is_far))
    ecg = np.clip(composed.steps, -32768, 32767).astype(np.int16)
    blended = [skeleton.donors[1:] for skeleton in made]
    return Batch(queries, ecg, donors, measured, composed.prd_pct, composed.alpha, flags, blended, timings,
                 skeleton_mv if request.judge else None)  # fmt: skip


def _checked(composed: Composed, timings: list[Timing], hr_bpm: np.ndarray, fs_hz: float):
    """Measured heart rates (record,) and flags of each record."""
    checked = check_all(composed.steps, [timing.r_sample for timing in timings], hr_bpm, fs_hz)
    return np.array([measured for measured, _ in checked]), [flags for _, flags in checked]


def _joined(parts: list[Batch]) -> Batch:
    queries = Queries(*(np.concatenate([getattr(part.queries, name) for part in parts]) for name in Queries.__dataclass_fields__))
    arrays = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("ecg", "donors", "measured_bpm", "prd_pct", "alpha")
    )
    lists = ([one for part in parts for one in getattr(part, name)] for name in ("flags", "blended", "timings"))
    refines = parts[0].skeleton_mv is not None
    return Batch(queries, *arrays, *lists, np.concatenate([part.skeleton_mv for part in parts]) if refines else None)


def some(queries: Queries, at: np.ndarray | slice) -> Queries:
    return Queries(*(getattr(queries, name)[at] for name in Queries.__dataclass_fields__))


def _better(batch: Batch, retried: Batch, again: np.ndarray) -> Batch:
    """The batch with each retried record in its place where it has fewer flags than before."""
    for at, row in enumerate(again):
        if len(retried.flags[at]) < len(batch.flags[row]):
            for name in ("ecg", "donors", "measured_bpm", "prd_pct", "alpha", "flags", "blended", "timings", "skeleton_mv"):
                if getattr(batch, name) is not None:
                    getattr(batch, name)[row] = getattr(retried, name)[at]
    return batch
