"""Make a dataset of synthetic 12-lead ECGs from a request. Run it again to carry on where it stopped.

While it is being made the dataset is called DIR.partial; finished shards survive whatever ends the run.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from ecg_batch.cli.parser import folder, positive, setting, shards
from ecg_batch.cli.threads import one_thread
from ecg_batch.errors import UserError, need

EXAMPLES = """examples:
  ecg-batch synthesize configs/demo.yaml --out runs/demo --workers 2
  ecg-batch synthesize configs/demo.yaml --out runs/small --set records=128 mix.hr_bpm=70
  ecg-batch synthesize configs/million.yaml --out runs/million --cluster configs/slurm.yaml --dry-run

next: ecg-batch status DIR, ecg-batch plot DIR, ecg-batch verify DIR
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("request", type=Path, metavar="REQUEST", help="YAML file: what to make; ecg-batch configs copies examples")
    parser.add_argument("--out", type=folder, required=True, metavar="DIR", help="the dataset; DIR.partial while it is being made")
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="processes, one core each (default: 1); changes "
                        "no byte")  # fmt: skip
    parser.add_argument("--set", nargs="+", type=setting, action="extend", default=[], metavar="KEY=VALUE",
                        help="override keys of the request, as in: --set records=100 mix.hr_bpm=70")  # fmt: skip
    parser.add_argument("--only", type=shards, metavar="17,31", help="make just these shards (default: all)")
    parser.add_argument("--cluster", type=Path, metavar="FILE", help="YAML file: make the shards in Slurm tasks "
                        "(configs/slurm.yaml is an example); changes no byte")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print shards, tasks, files, bytes, hours and the sbatch text")


def run(arguments: Namespace) -> int:
    if arguments.cluster and arguments.workers > 1:
        raise UserError("--workers is for this machine and --cluster for Slurm; give one of them")
    if arguments.cluster:
        need("slurm", "submitit")
    one_thread()
    if arguments.dry_run:
        return forecast_job(arguments.request, arguments.set, arguments.out, arguments.cluster, arguments.only)
    from ecg_batch.arrow import leave_pandas_out
    from ecg_batch.synthesis.generate import open_generator

    leave_pandas_out()
    return synthesize_job(
        arguments.request, arguments.set, arguments.out, arguments.workers, open_generator, arguments.cluster, arguments.only
    )


def synthesize_job(
    path: Path,
    overrides: Sequence[str],
    out: Path,
    workers: int,
    open_generator,
    cluster: Path | None = None,
    only: frozenset[int] | None = None,
) -> int:
    """What run.local.synthesize does, told to the user. open_generator: a run.worker.OpenGenerator; the tests have their own."""
    from ecg_batch.dataset.layout import PLAN
    from ecg_batch.dataset.manifest import read_manifest
    from ecg_batch.request.parse import load_request
    from ecg_batch.run.folder import place_of
    from ecg_batch.run.local import synthesize
    from ecg_batch.run.slurm.capacity import load_fitting_cluster
    from ecg_batch.run.status import describe_finished, describe_kept
    from ecg_batch.run.worker import sigterm_as_interrupt

    out = place_of(out)
    try:
        with sigterm_as_interrupt():
            already = (out / PLAN).exists()
            where = load_fitting_cluster(cluster) if cluster else None
            synthesize(load_request(path, overrides), out, workers, open_generator, where, only)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(describe_kept(out)) from None
    if (out / PLAN).exists():
        print(describe_finished(out, read_manifest(out)) + (" (nothing was left to do)" if already else ""))
    else:
        print(f"the chosen shards are made; {describe_kept(out)}, without --only")
    return 0


def forecast_job(path: Path, overrides: Sequence[str], out: Path, cluster: Path | None, only: frozenset[int] | None) -> int:
    """--dry-run: prints what the run will take, makes nothing."""
    from ecg_batch.request.parse import load_request
    from ecg_batch.run.folder import place_of
    from ecg_batch.run.forecast import forecast
    from ecg_batch.run.planning import make_plan
    from ecg_batch.run.slurm.capacity import load_fitting_cluster

    plan, _ = make_plan(load_request(path, overrides))
    print("\n".join(forecast(plan, place_of(out), load_fitting_cluster(cluster) if cluster else None, only)))
    return 0
