"""The evaluation of beat types and fibrillation: its sections, its bars, and report.json and report.html, as evaluation/report.py
has them.
"""

import time
from pathlib import Path

from ecg_batch.dataset.plan import read_plan
from ecg_batch.errors import UserError
from ecg_batch.evaluation import figures
from ecg_batch.evaluation.beats.compare import COPIES, ECTOPIC, RULE, SYNTHETIC, BeatSettings, types_section
from ecg_batch.evaluation.beats.rhythms import has_fibrillation, labelled_section, rhythm_section
from ecg_batch.evaluation.report import bar, made_with, span, written
from ecg_batch.request.model import LOOP_S

TYPES, RHYTHM, LABELLED = "beat types in MIT-BIH", "fibrillation in MIT-BIH", "fibrillation in CinC 2017"
OVERALL = "A against N and O"


def evaluate_beats(
    folder: Path, out: Path, settings: BeatSettings, mitdb: Path | None, cinc2017: Path | None = None,
    records: dict[str, list[str]] | None = None,
) -> dict:  # fmt: skip
    """Writes OUT/report.json and OUT/report.html and returns the report. records: those of "mitdb" and of "cinc2017" that are used;
    all, where none is named.
    """
    started, plan, named = time.monotonic(), read_plan(folder), records or {}
    if plan.request.duration_s == LOOP_S:
        raise UserError(f"{folder}: records of {LOOP_S} s; types of beats and fibrillation are taught by long records, as "
                        "configs/holter.yaml makes them")  # fmt: skip
    report, fibrillates = {}, has_fibrillation(folder, settings.records)
    if cinc2017 and not fibrillates:
        raise UserError(f"{folder}: no record fibrillates; for --cinc2017 some must, as the label AFIB makes them")
    if mitdb:
        report[TYPES] = types_section(folder, mitdb, named.get("mitdb"), out, settings)
    if mitdb and fibrillates:
        report[RHYTHM] = rhythm_section(folder, mitdb, named.get("mitdb"), out, settings)
    if cinc2017:
        report[LABELLED] = labelled_section(folder, cinc2017, named.get("cinc2017"), out, settings)
    of = {"MIT-BIH": mitdb, "CinC 2017": cinc2017}
    report["made with"] = made_with(folder, plan, settings, time.monotonic() - started) | {k: str(v) for k, v in of.items() if v}
    report["bars"] = bars(report)
    report["first lines"] = first_lines(report)
    return written(report, drawn(report), out)


def bars(report: dict) -> list[dict]:
    """What is asked, what was found, whether it is met. What was not measured has no row."""
    rows = []
    if TYPES in report:
        for other in (COPIES, RULE):
            for name in ECTOPIC:
                less = report[TYPES]["rows"][SYNTHETIC][f"less {other}"][name]
                rows.append(bar(f"beat types, F1 of {name} less that of {other}", "interval above 0", span(less), less[1] > 0))
    if LABELLED in report:
        for other in (COPIES, RULE):
            less = report[LABELLED]["rows"][SYNTHETIC][f"less {other}"]
            rows.append(bar(f"{LABELLED}, AUROC less that of {other}", "interval above 0", span(less, 4), less[1] > 0))
    return rows


def first_lines(report: dict) -> list[str]:
    """The verdict in words."""
    missed = [one["what"] for one in report["bars"] if not one["met"]]
    verdict = f"Not met: {'; '.join(missed)}." if missed else "All bars are met."
    lines = ["Networks that have learned from the types of beats and the rhythms of synthetic records alone, held against "
             f"people's. {verdict}"]  # fmt: skip
    if TYPES in report:
        rows, most = report[TYPES]["rows"], report[TYPES]["most S"]
        for source, row in rows.items():
            without = row["S without the recording of most"]
            lines.append(f"{source}: V F1 {_shown(row['V']['F1'])}; S F1 {_shown(row['S']['F1'])}, without {most['recording']} "
                         f"{_shown(without['F1']) if without else 'not measured'}")  # fmt: skip
    if TYPES in report and RHYTHM not in report:
        lines.append("No record of the dataset fibrillates, so nothing is said of fibrillation.")
    if RHYTHM in report:
        lines += [f"{source}: windows of fibrillation in MIT-BIH, AUROC {_shown(row['AUROC'])}, F1 {_shown(row['F1'])}"
                  for source, row in report[RHYTHM]["rows"].items()]  # fmt: skip
    if LABELLED in report:
        lines += [f"{source}: fibrillation in CinC 2017, AUROC {_shown(row[OVERALL])}"
                  for source, row in report[LABELLED]["rows"].items()]  # fmt: skip
    return lines


def _shown(values: list[float], digits: int = 3) -> str:
    return "{:.{d}f} ({:.{d}f} to {:.{d}f})".format(*values, d=digits)


def drawn(report: dict) -> dict[str, bytes]:
    out = {}
    if TYPES in report:
        out["beat types"] = figures.beat_types(report[TYPES])
        out["beat confusions"] = figures.beat_confusions(report[TYPES]["rows"])
    if RHYTHM in report:
        out["burden"] = figures.burden(report[RHYTHM])
    if LABELLED in report:
        out["fibrillation"] = figures.fibrillation(report[LABELLED])
    return out
