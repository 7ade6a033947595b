"""Hold a finished dataset against real ECGs: fidelity, clinical validity, privacy, usefulness; or what the marks on it teach.

Writes REPORT/report.html (opens offline), REPORT/report.json and what is kept of trainings. An evaluation that was killed keeps
those that were done: run the same command again. Of records longer than ten seconds only the two-sample test is made.

With --ludb or --mitdb it is the waves alone: a small network learns where P, QRS and T are from the dataset, as configs/waves.yaml
makes it, and is held against people's marks. --ptbxl then adds noise of its recordings to MIT-BIH's.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ecg_batch.cli.parser import setting
from ecg_batch.cli.settings import settings
from ecg_batch.errors import UserError

SECTIONS = ("judge", "fidelity", "distortion", "clinical validity", "diversity and privacy", "two-sample test", "refinement",
            "usefulness")  # fmt: skip
MARKED = ("ludb", "mitdb")
EXAMPLES = """examples:
  ecg-batch evaluate runs/augment --ptbxl PTBXL --out runs/report
  ecg-batch evaluate runs/augment --ptbxl PTBXL --out runs/report --skip usefulness --set workers=8
  ecg-batch evaluate runs/waves --ludb LUDB/data --mitdb MITDB --ptbxl PTBXL --out runs/waves-report
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, metavar="DIR", help="a finished dataset")
    parser.add_argument("--ptbxl", type=Path, metavar="DIR", help="PTB-XL in its original layout")
    parser.add_argument("--out", type=Path, required=True, metavar="REPORT", help="folder for the report")
    parser.add_argument("--ludb", type=Path, metavar="DIR", help="LUDB, or any folder with marks of waves as 1.i to 1.v6")
    parser.add_argument("--mitdb", type=Path, metavar="DIR", help="MIT-BIH, or any folder with beats as 101.atr")
    parser.add_argument("--records", type=Path, metavar="FILE", help="which records of --ludb or --mitdb, a name a line; with both "
                        "as ludb/2 and mitdb/101 (default: all)")  # fmt: skip
    parser.add_argument("--judges", type=Path, metavar="DIR", help="folder of judge.safetensors and encoder.safetensors (default: "
                        "bundled)")  # fmt: skip
    parser.add_argument("--set", nargs="+", type=setting, action="extend", default=[], metavar="KEY=VALUE",
                        help="folds, few_folds, seeds, steps, records, compared, delineated, workers, told_seeds, told_steps; of "
                        "waves: teaching, steps, rows, seed, folds, noisy_s, residuals, workers")  # fmt: skip
    parser.add_argument("--skip", nargs="+", action="extend", default=[], choices=SECTIONS, metavar="SECTION",
                        help=f"any of: {', '.join(SECTIONS)}")  # fmt: skip


def run(arguments: Namespace) -> int:
    from ecg_batch.errors import need

    of_waves = arguments.ludb or arguments.mitdb
    need("evaluate", "sklearn", "neurokit2")
    report = _waves(arguments) if of_waves else _all(arguments)
    for line in report["first lines"]:
        print(line)
    verdict = {True: "met", False: "NOT MET", None: "not measured"}
    for bar in report["bars"]:
        print(f"{verdict[bar['met']]}: {bar['what']}: {bar['found']} ({bar['bar']})")
    print(f"{arguments.out}/report.html")
    return 0


def _all(arguments: Namespace) -> dict:
    if arguments.ptbxl is None or arguments.records:
        raise UserError("ecg-batch evaluate needs --ptbxl DIR, or --ludb or --mitdb for waves alone; --records goes with these")
    from ecg_batch.bundled import BUNDLED
    from ecg_batch.evaluation.report import evaluate_dataset
    from ecg_batch.evaluation.sections import Settings

    (chosen,) = settings(arguments.set, Settings())
    skip, judges = tuple(arguments.skip), arguments.judges or BUNDLED
    return evaluate_dataset(arguments.dataset, arguments.ptbxl, arguments.out, chosen, skip, judges)


def _waves(arguments: Namespace) -> dict:
    if arguments.skip or arguments.judges:
        raise UserError("--skip and --judges are of the other sections; with --ludb or --mitdb it is the waves alone")
    from ecg_batch.evaluation.waves.compare import WaveSettings
    from ecg_batch.evaluation.waves.report import evaluate_waves

    (chosen,) = settings(arguments.set, WaveSettings())
    given = [name for name in MARKED if getattr(arguments, name)]
    records = named_records(arguments.records, given) if arguments.records else None
    return evaluate_waves(arguments.dataset, arguments.out, chosen, arguments.ludb, arguments.mitdb, arguments.ptbxl, records)


def named_records(path: Path, given: list[str]) -> dict[str, list[str]]:
    """Of "ludb" and "mitdb" the names in a file, a name a line. UserError where it cannot be read, or a line is of neither."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error!s:.200}); needed a name of a record a line") from None
    named: dict[str, list[str]] = {name: [] for name in given}
    for number, line in enumerate(lines, 1):
        of, _, name = line.rpartition("/")
        of = of or (given[0] if len(given) == 1 else "")
        if line and (of not in named or not name):
            raise UserError(f"{path}, line {number}: {line[:60]!r}; needed {' or '.join(f'{one}/NAME' for one in given)}")
        if line:
            named[of].append(name)
    if empty := [of for of, names in named.items() if not names]:
        raise UserError(f"{path}: no record of --{empty[0]}; name some, or leave --{empty[0]} out")
    return named
