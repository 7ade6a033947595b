"""Hold a finished dataset against real ECGs: fidelity, clinical validity, privacy, usefulness; or what the marks on it teach.

Writes REPORT/report.html (opens offline), REPORT/report.json and what is kept of trainings. An evaluation that was killed keeps
those that were done: run the same command again. Of records longer than ten seconds only the two-sample test is made.

With --ludb or --mitdb it is the waves alone: a small network learns where P, QRS and T are from the dataset, as configs/waves.yaml
makes it, and is held against people's marks. --ptbxl then adds noise of its recordings to MIT-BIH's.

Where the dataset has long records, --mitdb and --cinc2017 are for types of beats and fibrillation: small networks learn them from
the dataset, and are held against people's annotations.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ecg_batch.cli.parser import folder, setting
from ecg_batch.cli.settings import settings
from ecg_batch.errors import UserError

SECTIONS = ("judge", "fidelity", "distortion", "clinical validity", "diversity and privacy", "two-sample test", "refinement",
            "usefulness")  # fmt: skip
MARKED = ("ludb", "mitdb", "cinc2017")
EXAMPLES = """examples:
  ecg-batch evaluate runs/augment --ptbxl PTBXL --out runs/report
  ecg-batch evaluate runs/augment --ptbxl PTBXL --out runs/report --skip usefulness --set workers=8
  ecg-batch evaluate runs/waves --ludb LUDB/data --mitdb MITDB --ptbxl PTBXL --out runs/waves-report
  ecg-batch evaluate runs/holter --mitdb MITDB --cinc2017 CINC2017 --out runs/beats-report
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", type=folder, metavar="DIR", help="a finished dataset")
    parser.add_argument("--ptbxl", type=Path, metavar="DIR", help="PTB-XL in its original layout")
    parser.add_argument("--out", type=folder, required=True, metavar="REPORT", help="folder for the report")
    parser.add_argument("--ludb", type=Path, metavar="DIR", help="LUDB, or any folder with marks of waves as 1.i to 1.v6")
    parser.add_argument("--mitdb", type=Path, metavar="DIR", help="MIT-BIH, or any folder with beats as 101.atr")
    parser.add_argument("--cinc2017", type=Path, metavar="DIR", help="CinC 2017, or any folder with records of one lead "
                        "and REFERENCE.csv")  # fmt: skip
    parser.add_argument("--records", type=Path, metavar="FILE", help="which records of --ludb, --mitdb or --cinc2017, a name a "
                        "line; with several as ludb/2 and mitdb/101 (default: all)")  # fmt: skip
    parser.add_argument("--judges", type=Path, metavar="DIR", help="folder of judge.safetensors and encoder.safetensors (default: "
                        "bundled)")  # fmt: skip
    parser.add_argument("--set", nargs="+", type=setting, action="extend", default=[], metavar="KEY=VALUE",
                        help="folds, few_folds, seeds, steps, records, compared, delineated, workers, told_seeds, told_steps; of "
                        "waves: teaching, steps, rows, seed, folds, noisy_s, residuals, workers; of beat types: records, "
                        "seconds, seeds, steps, beats, folds, workers")  # fmt: skip
    parser.add_argument("--skip", nargs="+", action="extend", default=[], choices=SECTIONS, metavar="SECTION",
                        help=f"any of: {', '.join(SECTIONS)}")  # fmt: skip


def run(arguments: Namespace) -> int:
    from ecg_batch.errors import need

    need("evaluate", "torch", "sklearn", "neurokit2")
    report = _marked(arguments) if any(getattr(arguments, name) for name in MARKED) else _all(arguments)
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
    from ecg_batch.evaluation.sets import Settings

    (chosen,) = settings(arguments.set, Settings())
    skip, judges = tuple(arguments.skip), arguments.judges or BUNDLED
    return evaluate_dataset(arguments.dataset, arguments.ptbxl, arguments.out, chosen, skip, judges)


def _marked(arguments: Namespace) -> dict:
    if arguments.skip or arguments.judges:
        raise UserError("--skip and --judges are of the other sections; with --ludb, --mitdb or --cinc2017 it is their marks alone")
    given = [name for name in MARKED if getattr(arguments, name)]
    records = named_records(arguments.records, given) if arguments.records else None
    if arguments.cinc2017 or (not arguments.ludb and _is_long(arguments.dataset)):
        return _beats(arguments, records)
    from ecg_batch.evaluation.waves.compare import WaveSettings
    from ecg_batch.evaluation.waves.report import evaluate_waves

    (chosen,) = settings(arguments.set, WaveSettings())
    return evaluate_waves(arguments.dataset, arguments.out, chosen, arguments.ludb, arguments.mitdb, arguments.ptbxl, records)


def _is_long(dataset: Path) -> bool:
    from ecg_batch.dataset.plan import read_plan
    from ecg_batch.request.model import LOOP_S

    return read_plan(dataset).request.duration_s > LOOP_S


def _beats(arguments: Namespace, records: dict[str, list[str]] | None) -> dict:
    if arguments.ludb or arguments.ptbxl:
        raise UserError("--ludb and --ptbxl go with records of 10 s; long records are held against --mitdb and --cinc2017")
    from ecg_batch.evaluation.beats.compare import BeatSettings
    from ecg_batch.evaluation.beats.report import evaluate_beats

    (chosen,) = settings(arguments.set, BeatSettings())
    return evaluate_beats(arguments.dataset, arguments.out, chosen, arguments.mitdb, arguments.cinc2017, records)


def named_records(path: Path, given: list[str]) -> dict[str, list[str]]:
    """Of each of MARKED that is given the names in a file, a name a line. UserError where it cannot be read, or a line is of
    none of them.
    """
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
