"""Forecast: what a run will take, before anything is submitted (--dry-run). Figures are measured on this run's own finished
shards, or "not measured".
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ecg_batch.cluster import Cluster, cut_arrays, load_cluster, sbatch_text
from ecg_batch.commit import read_receipts
from ecg_batch.driver import job_name, logs_of
from ecg_batch.errors import UserError
from ecg_batch.plan import PLAN, Plan, final_name, find_run, make_plan, read_plan
from ecg_batch.request_file import load_request
from ecg_batch.slurm import max_array_size
from ecg_batch.status import duration

# plan.json, dataset.json, records.parquet, croissant.json and SHA256SUMS; of Zarr also four zarr.json and two coordinates
FIXED_FILES = {"zarr": 11, "hdf5": 5}


def forecast_job(path: Path, overrides: Sequence[str], out: Path, cluster: Path | None, only: frozenset[int] | None) -> int:
    """jobs/synthesize.py --dry-run: prints, makes nothing. Returns the exit status."""
    try:
        plan, _ = make_plan(load_request(path, overrides))
        out = final_name(out)
        receipts = _receipts(plan, out)
        chosen = [shard for shard in plan.shards if only is None or shard.index in only]
        todo = [shard for shard in chosen if shard.index not in receipts]
        print("\n".join(_run_lines(plan, out, receipts, sum(shard.records for shard in todo))))
        if cluster:
            print("\n".join(_cluster_lines(plan, out, load_cluster(cluster), len(todo), only)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _receipts(plan: Plan, out: Path) -> dict[int, dict]:
    """What is there of this run. UserError where the folder holds another one."""
    try:
        folder = find_run(out)
    except UserError:
        return {}
    there = read_plan(folder)
    if there.run_id != plan.run_id:
        raise UserError(
            f"{folder / PLAN}: holds another run ({there.run_id[:12]}, this one is {plan.run_id[:12]}). Give another --out"
        )
    return read_receipts(plan, folder)


def _run_lines(plan: Plan, out: Path, receipts: dict[int, dict], left: int) -> list[str]:
    """Shards, files, bytes and hours. left: records still to make."""
    made = sum(receipt["records"] for receipt in receipts.values())
    tables = 1 if "table" in plan.inputs else 0
    raw = plan.request.records * 12 * plan.time_samples * 2
    size, hours = f"at most {raw / 1e9:,.3f} GB (not measured; the raw samples)", "not measured: no shard of this run is made yet"
    if made:
        measured = sum(receipt["bytes"] for receipt in receipts.values()) / made * plan.request.records
        seconds_each = sum(receipt["seconds"] for receipt in receipts.values()) / made
        size = f"about {measured / 1e9:,.3f} GB, at the size of the {len(receipts):,} shards made"
        hours = (
            f"about {duration(left * seconds_each)} of one task, at {1 / seconds_each:,.1f} records/s as measured on the "
            f"{len(receipts):,} shards made"
        )
    shards, files = len(plan.shards), 2 * len(plan.shards) + FIXED_FILES[plan.request.format] + tables
    return [
        f"{out}: {plan.request.records:,} records in {shards:,} shards; {len(receipts):,} are made, {left:,} records are left",
        f"files: {files:,} when finished, up to {shards:,} more on the way; {size}",
        f"{'GPU' if plan.request.device == 'cuda' else 'CPU'} time: {hours}",
    ]


def _cluster_lines(plan: Plan, out: Path, cluster: Cluster, shards: int, only: frozenset[int] | None) -> list[str]:
    """Tasks, arrays and the batch script of the first of them."""
    tasks = cluster.tasks_for(shards)
    if not tasks:
        return ["nothing is left to submit"]
    arrays = cut_arrays(tasks, limit := max_array_size())
    return [
        f"tasks: {tasks:,} in {len(arrays):,} arrays of at most {arrays[0]:,} (MaxArraySize {limit:,}), {cluster.gpus} GPUs, "
        f"{cluster.cpus} CPUs and {cluster.memory_gb:g} GB each, {cluster.walltime_min} min at most; more are submitted as long as "
        "shards are missing",
        "",
        sbatch_text(cluster, job_name(plan, only), logs_of(out), arrays[0]),
    ]
