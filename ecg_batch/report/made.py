"""What was made, in how much time and with how much energy, and how to cite it: what plan, manifest and receipts say."""

from datetime import UTC, datetime
from pathlib import Path

from ecg_batch.dataset.croissant import CITATION, LICENCE
from ecg_batch.dataset.layout import SUMS
from ecg_batch.dataset.plan import Plan
from ecg_batch.dataset.receipts import NOT_MEASURED, read_receipts
from ecg_batch.dataset.run import Run
from ecg_batch.errors import number_of
from ecg_batch.leads import LEADS, MV_PER_UV
from ecg_batch.progress import duration
from ecg_batch.report.asked import length
from ecg_batch.report.parts import Facts, Section, Words

METHOD = "Hybrid-SSM-ECG: Efficient Electrocardiogram Synthesis via Compositional State Space Models"
NOT_FOR = ("The records show beats of real patients, and donors can be found by design. They are for augmentation and tests, not "
           "for diagnosis, nor for statements about a patient. Synthetic records of one donor do not add patients.")  # fmt: skip


def made(plan: Plan, manifest: dict) -> Section:
    request, versions = plan.request, plan.versions
    layout = {"zarr": "Zarr v3, ecg.zarr", "hdf5": "HDF5, a file a shard in ecg.hdf5"}[request.format]
    smaller = sum(map(len, manifest.get("smaller_batch", {}).values()))
    facts = [
        ("Records", f"{request.records:,} of {length(request.duration_s)}: {hours(request.records * request.duration_s)} in all"),
        ("Leads", ", ".join(LEADS)),
        ("Samples", f"int16 (record, lead, time) at {request.fs_hz} Hz, {MV_PER_UV:g} mV a step; {layout}"),
        ("Tables", "records.parquet, a row a record" + ("; beats.parquet, a row a beat, with its waves" if plan.has_beats else "")),
        ("Size", f"{size(manifest['bytes'])} in {number_of(manifest['shards'], 'shard')}"),
        ("Seed", str(request.seed)),
        ("Software", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("Run id", manifest["run_id"]),
        ("Content root", manifest["content_root"]),
    ]
    if smaller:
        facts.append(("Made with a smaller batch", f"{number_of(smaller, 'shard')}, for want of memory; dataset.json names them"))
    root = f"The content root is a digest of all samples, equal for equal ones. ecg-batch verify holds every file against {SUMS}."
    return Section("What was made", "made", [Facts(facts), Words(root)])


def spent(plan: Plan, folder: Path, manifest: dict) -> Section:
    receipts = read_receipts(Run(plan, folder)).values()
    records, seconds = manifest["records"], manifest["seconds"]
    speed = f", {records / seconds:,.1f} records a second each" if seconds else ""
    facts = [("Work", f"{duration(seconds)} over all workers together{speed}")]
    if hosts := {receipt.get("host", "?") for receipt in receipts}:
        facts.append(("Made on", number_of(len(hosts), "node")))
    if ended := [one["finished_unix_s"] for one in receipts if isinstance(one.get("finished_unix_s"), int | float)]:
        facts.append(("Shards finished", " to ".join(dict.fromkeys(map(when, (min(ended), max(ended)))))))
    return Section("Time and energy", "spent", [Facts([*facts, ("Energy", energy(manifest))])])


def citing(plan: Plan) -> Section:
    software = f"ecg-batch {plan.versions.get('ecg-batch', '')}, under Apache-2.0; run {plan.run_id}"
    cited = Facts([("Method", METHOD), ("Recordings", plan.source or CITATION), ("Software", software)])
    if plan.source:
        licence = f"The recordings are under their own licence: {plan.source}. The bundled models are from PTB-XL, CC BY 4.0."
    else:
        licence = f"The beats are from PTB-XL, under CC BY 4.0 ({LICENCE}): what is made of them carries the same attribution."
    return Section("How to cite, and the licence", "citing", [cited, Words(licence), Words(NOT_FOR)])


def energy(manifest: dict) -> str:
    joules = manifest.get("joules", NOT_MEASURED)
    if joules == NOT_MEASURED:
        return NOT_MEASURED
    return f"{joules:,.0f} J ({', '.join(manifest['joules_of'])}) for {number_of(manifest['joules_shards'], 'shard')}"


def when(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M} UTC"


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.1f} min"


def size(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
