"""Forecast: what a run will take, before anything is submitted (--dry-run). Figures are measured on this run's own finished
shards, or "not measured".
"""

from pathlib import Path

from ecg_batch.dataset.layout import PLAN
from ecg_batch.dataset.plan import Plan
from ecg_batch.dataset.receipts import read_receipts
from ecg_batch.dataset.run import find_folder, read_run
from ecg_batch.errors import UserError, number_of
from ecg_batch.progress import duration
from ecg_batch.run.slurm.cluster import Cluster, cut_arrays, refuse_log_names, sbatch_text
from ecg_batch.run.slurm.driver import job_name, logs_of
from ecg_batch.run.slurm.queue import DEFAULT_MAX_ARRAY, told_array_size

# plan.json, dataset.json, both tables, croissant.json, README.md, SHA256SUMS; of Zarr also four zarr.json and two coordinates
FIXED_FILES = {"zarr": 13, "hdf5": 7}


def forecast(plan: Plan, out: Path, cluster: Cluster | None, only: frozenset[int] | None) -> list[str]:
    """Lines for the user. Nothing is made. only: the chosen shards, None for all."""
    receipts = _receipts(plan, out)
    todo = [shard for shard in plan.shards if (only is None or shard.index in only) and shard.index not in receipts]
    lines = _run_lines(plan, out, receipts, sum(shard.records for shard in todo))
    return lines + (_cluster_lines(plan, out, cluster, len(todo), only) if cluster else [])


def _receipts(plan: Plan, out: Path) -> dict[int, dict]:
    """What is there of this run. UserError where the folder holds another one."""
    try:
        there = read_run(find_folder(out))
    except UserError:
        return {}
    if there.plan.run_id != plan.run_id:
        raise UserError(
            f"{there.folder / PLAN}: holds another run ({there.plan.run_id[:12]}, this one is {plan.run_id[:12]}). "
            "Give another --out"
        )
    return read_receipts(there)


def _run_lines(plan: Plan, out: Path, receipts: dict[int, dict], left: int) -> list[str]:
    """Shards, files, bytes and hours. left: records still to make."""
    made = sum(receipt["records"] for receipt in receipts.values())
    tables = 1 if "table" in plan.inputs else 0
    raw = plan.request.records * 12 * plan.request.samples * 2
    size, hours = f"at most {raw / 1e9:,.3f} GB (not measured; the raw samples)", "not measured: no shard of this run is made yet"
    if made:
        measured = sum(receipt["bytes"] for receipt in receipts.values()) / made * plan.request.records
        seconds_each = sum(receipt["seconds"] for receipt in receipts.values()) / made
        size = f"about {measured / 1e9:,.3f} GB, at the size of the {number_of(len(receipts), 'shard')} made"
        hours = (
            f"about {duration(left * seconds_each)} of one task, at {1 / seconds_each:,.1f} records/s as measured on the "
            f"{number_of(len(receipts), 'shard')} made"
        )
    shards, files = len(plan.shards), 2 * len(plan.shards) + FIXED_FILES[plan.request.format] + tables
    return [
        f"{out}: {number_of(plan.request.records, 'record')} in {number_of(shards, 'shard')}; {len(receipts):,} are made, "
        f"{number_of(left, 'record', 'are')} left",
        f"files: {files:,} when finished, up to {shards:,} more on the way; {size}",
        f"{'GPU' if plan.request.device == 'cuda' else 'CPU'} time: {hours}",
    ]


def _cluster_lines(plan: Plan, out: Path, cluster: Cluster, shards: int, only: frozenset[int] | None) -> list[str]:
    """Tasks, arrays and the batch script of the first of them."""
    refuse_log_names(logs_of(out))
    tasks = cluster.tasks_for(shards)
    if not tasks:
        return ["nothing is left to submit"]
    told = told_array_size()
    arrays = cut_arrays(tasks, DEFAULT_MAX_ARRAY if told is None else told)
    limit = f"Slurm's usual MaxArraySize, {DEFAULT_MAX_ARRAY:,}" if told is None else f"MaxArraySize {told:,}"
    return [
        *(["Slurm gives no answer here: what tasks ask for was compared with no node"] if told is None else []),
        f"tasks: {tasks:,} in {number_of(len(arrays), 'array')} of at most {arrays[0]:,} ({limit}), "
        f"{_each(cluster)}; "
        "more are submitted as long as shards are missing",
        "",
        sbatch_text(cluster, job_name(plan, out, only), logs_of(out), arrays[0]),
    ]


def _each(cluster: Cluster) -> str:
    """What a task is given; what the cluster file leaves to the site, or to `extra`, is not told."""
    parts = [
        number_of(cluster.gpus, "GPU") if cluster.gpus is not None else "",
        number_of(cluster.cpus, "CPU") if cluster.cpus else "",
        f"{cluster.memory_gb:g} GB" if cluster.memory_gb else "",
        f"{cluster.walltime_min} min" if cluster.walltime_min else "",
    ]
    return f"{', '.join(filter(None, parts)) or 'what the site gives'} each"
