"""Make a dataset of synthetic 12-lead ECGs from a request. Run it again to carry on where it stopped."""

import argparse
import os
import re
import sys
from pathlib import Path

# One thread per worker, set before numpy or torch is imported: sums in another order are other bytes.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("request", type=Path, help="YAML file: what to make (configs/demo.yaml is an example)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the dataset; DIR.partial while it is being made")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, one core each (default 1); changes no byte")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="override keys of the request, as in: --set records=100 mix.hr_bpm=70")  # fmt: skip
    parser.add_argument("--only", type=shards, metavar="17,31", help="make just these shards")
    parser.add_argument("--cluster", type=Path, metavar="FILE", help="YAML file: make the shards in Slurm tasks "
                        "(configs/slurm.yaml is an example); changes no byte")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print shards, tasks, files, bytes, hours and the sbatch text")
    arguments = parser.parse_args()
    if arguments.workers < 1:
        parser.error(f"--workers is {arguments.workers}; needed 1 or more")
    if arguments.cluster and arguments.workers > 1:
        parser.error("--workers is for this machine and --cluster for Slurm; give one of them")
    return arguments


def shards(text: str) -> frozenset[int]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r}; needed shard numbers, for example 17,31")
    return frozenset(map(int, text.split(",")))


def main() -> int:
    arguments = parse()
    if arguments.dry_run:
        from ecg_batch.forecast import forecast_job

        return forecast_job(arguments.request, arguments.set, arguments.out, arguments.cluster, arguments.only)
    from ecg_batch.execute import synthesize_job
    from ecg_batch.shard import open_assets, synthesize_shard
    from ecg_batch.worker import Generator

    generator = Generator(open_assets, synthesize_shard)
    return synthesize_job(
        arguments.request, arguments.set, arguments.out, arguments.workers, generator, arguments.cluster, arguments.only
    )


if __name__ == "__main__":
    sys.exit(main())
