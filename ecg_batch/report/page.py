"""The page: what a finished dataset is, as one HTML file that needs nothing else. Equal datasets give equal bytes.

page.html draws the sections and escapes whatever comes from files; what is marked safe is SVG that report/sheet.py has made of
numbers. It has no script, and its policy forbids the browser to load anything.
"""

from pathlib import Path

import numpy as np

from ecg_batch.dataset.plan import Plan
from ecg_batch.errors import UserError, number_of
from ecg_batch.plot.records import plan_of
from ecg_batch.reading.synthetic import OpenDataset, open_dataset
from ecg_batch.report import asked, made, rows
from ecg_batch.report.beats import beats
from ecg_batch.report.gallery import gallery
from ecg_batch.report.parts import Section


def write_report(folder: Path, out: Path) -> int:
    """Write the page about a finished dataset. Returns its bytes. UserError where it is unfinished or damaged."""
    text = render(open_dataset(folder)).encode()
    try:
        out.write_bytes(text)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}. Give another --out") from None
    return len(text)


def render(dataset: OpenDataset) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("ecg_batch", "report"), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    plan, table = plan_of(dataset.path), rows.read_rows_of(dataset)
    page = {"name": dataset.path.name, "summary": summary(plan, table), "key": key_figures(plan, table, dataset.manifest),
            "sections": sections(dataset, plan, table)}  # fmt: skip
    return environment.get_template("page.html").render(page)


def sections(dataset: OpenDataset, plan: Plan, table: rows.Rows) -> list[Section]:
    named = "" if plan.source else "PTB-XL "
    said = plan.request.mix or plan.request.cohort
    shares = dict(said.labels or ()) if said else {}
    return [
        asked.asked(plan, asked.bundled_digests(plan)),
        made.made(plan, dataset.manifest),
        rows.labels(table, shares),
        rows.rates(table),
        rows.people(table),
        rows.donors(table, named),
        rows.flags(table),
        rows.noise(table),
        beats(dataset.path),
        gallery(table, named),
        made.spent(plan, dataset.path, dataset.manifest),
        made.citing(plan),
    ]


def summary(plan: Plan, table: rows.Rows) -> str:
    request, patients = plan.request, len(np.unique(table.numbers("donor_patient_id")))
    what = f"{number_of(request.records, 'synthetic 12-lead ECG')} of {asked.length(request.duration_s)} at {request.fs_hz} Hz"
    maker = f"ecg-batch {plan.versions.get('ecg-batch', '')}".strip()
    return (f"{what}, made by {maker} from the beats of {number_of(patients, 'real patient')}. For training and testing software, "
            "not for diagnosis.")  # fmt: skip


def key_figures(plan: Plan, table: rows.Rows, manifest: dict) -> list[tuple[str, str]]:
    """What a reader wants to know first: (number, of what)."""
    flagged = int((table.texts("flags") != "").sum())
    share = f" ({100 * flagged / len(table):.1f} %)" * (flagged > 0)
    off = np.abs(table.numbers("hr_bpm_measured") - table.numbers("hr_bpm_requested"))
    off = off[~np.isnan(off)]
    near = f"{np.floor(1000 * np.mean(off <= rows.NEAR_BPM)) / 10:.1f} %" if len(off) else "not asked"  # 100 is all
    return [
        (f"{len(table):,}", "records"), (made.hours(len(table) * plan.request.duration_s), "of signal"),
        (f"{len(np.unique(table.texts('label'))):,}", "labels"),
        (f"{len(np.unique(table.numbers('donor_patient_id'))):,}", "donor patients"),
        (near, "within 3 bpm of the asked rate"), (f"{flagged:,}{share}", "flagged"),
        (made.size(manifest["bytes"]), "on disk"), (made.energy(manifest).partition(" (")[0], "energy"),
    ]  # fmt: skip
