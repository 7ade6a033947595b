"""Readme: README.md of a dataset. Its head tells Hugging Face's `datasets` which files are tables: without it any JSON beside them
is taken for data.
"""

from ecg_batch.dataset.croissant import CITATION, LICENCE
from ecg_batch.dataset.layout import BEATS, ECG, HDF5, RECORDS
from ecg_batch.dataset.run import Run

TEXT = """---
pretty_name: Synthetic 12-lead ECGs, run {run}
configs:
{configs}---

# Synthetic 12-lead ECGs

{records:,} records of {duration} s at {fs} Hz, made by ecg-batch from the beats of real records. Not for diagnosis.

- `{samples}`: the samples, int16 (record, lead, time), 0.001 mV a step
{tables}- `dataset.json`: what was asked, and of what it was made; `SHA256SUMS`: every file, for `sha256sum -c SHA256SUMS`

Records of one donor are not independent: split by `donor_patient_id`. In pandas the flags are `df["flags"]`, since `df.flags`
is something else.

{rights}
"""
TABLES = {RECORDS: "a row for each record", BEATS: "a row for each annotation"}


def readme(run: Run) -> str:
    request, tables = run.request, [name for name in TABLES if (run.folder / name).exists()]
    default = ["", "  default: true\n"]
    configs = (f"- config_name: {name.split('.')[0]}\n  data_files: {name}\n{default[name == RECORDS]}" for name in tables)
    return TEXT.format(
        run=run.plan.run_id[:12],
        configs="".join(configs),
        records=request.records,
        duration=request.duration_s,
        fs=request.fs_hz,
        samples={"zarr": ECG, "hdf5": HDF5}[request.format],
        tables="".join(f"- `{name}`: {TABLES[name]}\n" for name in tables),
        rights=f"{run.plan.source}." if run.plan.source else f"{CITATION}\n\nLicence: {LICENCE}",
    )
