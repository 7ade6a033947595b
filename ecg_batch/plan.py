"""Plan: a request made final. Inputs are checked and hashed, records cut into shards, and the run's folder is opened.

The run id is a digest of everything that changes bytes, so a folder can tell whether a request is its own.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_batch import decode_kernel
from ecg_batch.errors import UserError
from ecg_batch.files import sha256_file, sync, to_json, write_new, write_over
from ecg_batch.request import HR_LIMITS_BPM, MINUTE_S, Request, request_from_resolved
from ecg_batch.rhythm_parameters import rate_limits_bpm
from ecg_batch.statements import SUPERCLASSES

if TYPE_CHECKING:
    from ecg_batch.query_table import QueryTable

FORMAT = 1
PLAN, ECG, RECORDS, MANIFEST, SUMS = "plan.json", "ecg.zarr", "records.parquet", "dataset.json", "SHA256SUMS"
HDF5, CROISSANT = "ecg.hdf5", "croissant.json"
BEATS = "beats.parquet"  # of long records
RECEIPTS, PARTS, STAGING, FAILURES = "receipts", "parts", "staging", "failures"
FORMAT_FOLDERS = {"zarr": (ECG, f"{ECG}/ecg", f"{ECG}/lead", f"{ECG}/time"), "hdf5": (HDF5,)}
FOLDERS = (RECEIPTS, PARTS, STAGING, FAILURES)
SOFTWARE = ("ecg-batch", "numpy", "numcodecs", "pyarrow", "scipy", "torch", "zarr")  # what a byte can depend on


@dataclass(frozen=True)
class Shard:
    """Records start .. stop - 1, the unit of work: one Zarr shard file, or of records over a minute one for each."""

    index: int
    start: int
    stop: int

    @property
    def records(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Plan:
    """What a run makes. request.bank and request.models say where the inputs were found, `inputs` what they were."""

    run_id: str
    request: Request
    inputs: dict[str, str]  # sha256 of bank, vqvae, mamba and, where there is one, table
    shards: tuple[Shard, ...]
    versions: dict[str, str]

    @property
    def time_samples(self) -> int:
        return self.request.duration_s * self.request.fs_hz

    @property
    def minute_samples(self) -> int:
        """Samples of a chunk of a streamed record."""
        return MINUTE_S * self.request.fs_hz


def final_name(path: Path) -> Path:
    """The name a run's folder has, or will have, when it is finished: from either of its names, or '.' inside it."""
    path = path if path.name not in ("", "..") else path.resolve()
    return path.with_name(path.name.removesuffix(".partial"))


def partial_of(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def ecg_file(shard_index: int, format: str = "zarr") -> str:
    return f"{ECG}/ecg/c.{shard_index}.0.0" if format == "zarr" else f"{HDF5}/{shard_index}.h5"


def part_file(shard_index: int) -> str:
    return f"{PARTS}/{shard_index}.parquet"


def beats_part_file(shard_index: int) -> str:
    return f"{PARTS}/{shard_index}.beats.parquet"


def ecg_files(plan: Plan, shard: Shard) -> list[str]:
    """The files that hold the samples of a shard: one, or one for each record where records are streamed."""
    files = range(shard.start, shard.stop) if plan.request.is_streamed else (shard.index,)
    return [ecg_file(index, plan.request.format) for index in files]


def part_files(plan: Plan, shard: Shard) -> dict[str, str]:
    """File of the finished dataset -> the part of it that a shard brings."""
    beats = {BEATS: beats_part_file(shard.index)} if plan.request.is_long else {}
    return {RECORDS: part_file(shard.index), **beats}


def shard_files(plan: Plan, shard: Shard) -> list[str]:
    """All files that a shard's receipt names."""
    return [*ecg_files(plan, shard), *part_files(plan, shard).values()]


def find_run(path: Path) -> Path:
    """The folder of a run, finished or not, from either of its names. UserError where there is none."""
    out = final_name(path)
    for folder in (out, partial_of(out)):
        if (folder / PLAN).exists():
            return folder
    raise UserError(f"{path}: no dataset here (no {PLAN}, and no {partial_of(out).name} beside it). Give the folder of a run")


def cut_shards(records: int, shard_records: int) -> tuple[Shard, ...]:
    """Shards of shard_records each, the last one shorter: every record exactly once."""
    starts = range(0, records, shard_records)
    return tuple(Shard(i, start, min(start + shard_records, records)) for i, start in enumerate(starts))


def make_plan(request: Request) -> tuple[Plan, "QueryTable | None"]:
    """Check and hash the inputs of a request, touching nothing. Raises UserError for whatever could not be made."""
    table = None
    if request.table is not None:
        from ecg_batch.query_table import read_query_table

        limits = rate_limits_bpm(request.rhythm) if request.is_long else HR_LIMITS_BPM  # beats of a long record need room to vary
        table = read_query_table(request.table, request.source, limits)
        request = _counted(request, len(table))
    shares = (request.mix or request.cohort).labels if table is None else None
    labels = table.labels if table else tuple(label for label, _ in shares or ())
    inputs = {"bank": _check_bank(request, labels), **_check_models(request)}
    if table:
        inputs["table"] = table.sha256()
    shards = cut_shards(request.records, request.shard)
    return Plan(_run_id(request.resolved(), inputs), request, inputs, shards, software_versions(request.format)), table


def _counted(request: Request, rows: int) -> Request:
    if request.records not in (None, rows):
        raise UserError(
            f"{request.source}: records is {request.records:,} but the table has {rows:,} rows; a table makes one "
            "record per row. Leave records out"
        )
    return replace(request, records=rows)


def _run_id(resolved: dict, inputs: dict[str, str]) -> str:
    canonical = json.dumps([FORMAT, resolved, inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def software_versions(format: str = "zarr") -> dict[str, str]:
    """What a byte can depend on here, beside the request and its inputs."""
    names = (*SOFTWARE, "h5py") if format == "hdf5" else SOFTWARE
    return {name: _version(name) for name in names} | {"kernels": decode_kernel.kernels()}


def refuse_other_software(plan: Plan) -> None:
    """UserError where this machine would make other bytes than the one that planned."""
    here = software_versions(plan.request.format)
    if here != plan.versions:
        changed = [f"{name} {plan.versions.get(name)} there, {here.get(name)} here" for name in sorted({*here, *plan.versions})
                   if here.get(name) != plan.versions.get(name)]  # fmt: skip
        raise UserError(
            f"the run was begun with other software ({'; '.join(changed)}); the shards of one dataset must not differ in "
            "that. Install those versions on every machine, or give another --out"
        )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


# Inputs ---------------------------------------------------------------------------------------------------------------


def _check_bank(request: Request, labels: tuple[str, ...]) -> str:
    """sha256 of the bank, after a look whether it serves this request."""
    from ecg_batch.bank import bank_digest, read_beats, read_table
    from ecg_batch.long_donor import enough_beats

    try:
        donors = read_table(Path(request.bank))
        usable = enough_beats(*read_beats(Path(request.bank)), donors.fs_hz) if request.is_long else True
        digest = bank_digest(Path(request.bank))
    except UserError as error:
        raise UserError(f"{request.source}: bank: {error}") from error
    except Exception as error:  # whatever zarr makes of a damaged folder, the user needs the same advice
        raise UserError(
            f"{request.source}: cannot read the bank {request.bank}: {type(error).__name__}: {error}. Prepare it "
            "again with jobs/prepare.py, or use 'bundled'"
        ) from error
    if donors.fs_hz != request.fs_hz:
        raise UserError(
            f"{request.source}: fs_hz is {request.fs_hz} but the bank {request.bank} holds {donors.fs_hz} Hz; donors "
            "are not resampled. Prepare a bank at this rate with jobs/prepare.py, or change fs_hz"
        )
    _check_donors(request, donors, labels, usable)
    return digest


def _check_donors(request: Request, donors, labels: tuple[str, ...], usable) -> None:
    import numpy as np

    allowed = np.isin(donors.fold, request.donor_folds) & usable
    known = [*SUPERCLASSES, *donors.codes]
    held = {label: int((donors.holds(label) & allowed).sum()) for label in known}
    absent = [label for label in labels if not held.get(label)] if labels else ["any label"] * (not allowed.any())
    if absent:
        present = ", ".join(f"{label} ({count})" for label, count in held.items() if count)
        with_beats = " with three whole beats, as long records need," if request.is_long else ""
        raise UserError(
            f"{request.source}: no donor for {', '.join(absent[:10])}{with_beats} in folds "
            f"{', '.join(map(str, request.donor_folds))} of the bank {request.bank}; labels with donors: "
            f"{present or 'none'}. Ask for these, or prepare a bank that holds the others"
        )


def _check_models(request: Request) -> dict[str, str]:
    """sha256 of both weight files, after a look at what they say they are. No torch: a safetensors header is JSON."""
    folder = Path(request.models)
    names = ("vqvae", "mamba", "judge") if request.judge else ("vqvae", "mamba")
    paths = {name: folder / f"{name}.safetensors" for name in names}
    try:
        stated = {name: read_metadata(path) for name, path in paths.items()}
        inputs = {name: sha256_file(path) for name, path in paths.items()}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{request.source}: cannot read the models in {folder}: {error}. Give a folder with vqvae.safetensors and "
            "mamba.safetensors made by jobs/train.py, or 'bundled'"
        ) from None
    for name, metadata in stated.items():
        _check_weights(request, paths[name], metadata, f"ecg-batch {name} 1")
    if stated["mamba"].get("vqvae_sha256") != inputs["vqvae"]:
        raise UserError(
            f"{request.source}: {paths['mamba']} was trained on the tokens of another vqvae.safetensors than the one "
            "beside it; its tokens would mean nothing here. Take both files from one training, or run jobs/train.py "
            "mamba again"
        )
    return inputs


def _check_weights(request: Request, path: Path, metadata: dict, needed: str) -> None:
    if metadata.get("format") != needed:
        raise UserError(f"{request.source}: {path} states the format {metadata.get('format')!r}; needed {needed!r}. Train it again")
    if path.stem != "judge" and metadata.get("fs_hz") != str(request.fs_hz):  # the judge brings every rate to its own
        raise UserError(
            f"{request.source}: fs_hz is {request.fs_hz} but {path} was trained at {metadata.get('fs_hz')} Hz. Use "
            "models of this rate, or change fs_hz"
        )


def read_metadata(path: Path) -> dict[str, str]:
    """The __metadata__ of a safetensors file. ValueError where the file is none."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= 100_000_000 else b""  # the format's own limit
    try:
        return json.loads(header)["__metadata__"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not a safetensors file with metadata") from None


# The folder -----------------------------------------------------------------------------------------------------------


def open_run(plan: Plan, table: "QueryTable | None", out: Path) -> Path:
    """Open the run's folder: `out` where that is finished already, else out.partial, new or as a former run left it.

    UserError where the folder belongs to another request. Harmless when two do it at once, or when it was killed
    half-way.
    """
    folder = partial_of(out)
    if not _is_finished(plan, out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        if not _is_finished(plan, out):  # looked at again: another run may just have renamed the folder away
            _fill(plan, table, folder)
            return folder
        folder.rmdir()
    return out


def _is_finished(plan: Plan, out: Path) -> bool:
    if (out / PLAN).exists():
        _refuse_other(plan, out)
        return True
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError(f"{out}: exists and is no dataset; nothing of it is touched. Give another --out")
    return False


def _fill(plan: Plan, table: "QueryTable | None", folder: Path) -> None:
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
    if not write_new(folder / PLAN, to_json(plan_to_json(plan)), folder / STAGING):
        _refuse_other(plan, folder)
    if table:
        _keep_table(plan, table, folder)
    from ecg_batch.write import array_metadata

    metadata = array_metadata(plan)
    for name in FORMAT_FOLDERS[plan.request.format]:
        if plan.request.format != "zarr" or f"{name}/zarr.json" in metadata:  # streamed records have no array of times
            (folder / name).mkdir(exist_ok=True)  # never with parents: that would bring back a folder which was renamed this moment
    for name, data in metadata.items():
        if not (folder / name).exists() or (folder / name).read_bytes() != data:
            write_over(folder / name, data, folder / STAGING)


def _keep_table(plan: Plan, table: "QueryTable", folder: Path) -> None:
    from ecg_batch import query_table

    if query_table.copy_digest(folder / query_table.NAME) != plan.inputs["table"]:
        aside = folder / STAGING / f"table-{os.getpid()}"
        query_table.write_copy(table, aside, plan.request.shard)
        sync(aside)
        os.replace(aside, folder / query_table.NAME)
        sync(folder)


def _refuse_other(plan: Plan, folder: Path) -> None:
    """UserError unless the plan in the folder is this one."""
    there = read_plan(folder)
    finished = folder.suffix != ".partial"
    if there.run_id != plan.run_id:
        raise UserError(
            f"{folder}: holds another run: {_difference(there, plan)}. A folder holds one run: give another --out"
            + ("" if finished else f", or delete {folder} to start over")
        )
    if not finished:
        refuse_other_software(there)


def _difference(there: Plan, here: Plan) -> str:
    old, new = _flat(there.request.resolved()), _flat(here.request.resolved())
    lines = [
        f"{key} is {old.get(key)} there and {new.get(key)} here" for key in sorted({*old, *new}) if old.get(key) != new.get(key)
    ]
    names = sorted({*there.inputs, *here.inputs})
    lines += [f"the {name} is not the same" for name in names if there.inputs.get(name) != here.inputs.get(name)]
    return "; ".join(lines)


def _flat(value, prefix: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {prefix: json.dumps(value)}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}.{key}" if prefix else key).items()}


# plan.json ------------------------------------------------------------------------------------------------------------


def plan_to_json(plan: Plan) -> dict:
    return {
        "format": FORMAT,
        "run_id": plan.run_id,
        "request": plan.request.resolved(),
        "inputs_sha256": plan.inputs,
        "found_at": {"bank": plan.request.bank, "models": plan.request.models},
        "versions": plan.versions,
        "shards": [list(asdict(shard).values()) for shard in plan.shards],
    }


def read_plan(folder: Path) -> Plan:
    """The plan of a run's folder. UserError where it is absent, of a newer format, or damaged."""
    path = folder / PLAN
    try:
        raw = json.loads(path.read_bytes())
        if raw["format"] > FORMAT:
            raise UserError(f"{path}: format {raw['format']}; this ecg-batch reads up to {FORMAT}. Install a newer one")
        request = request_from_resolved(raw["request"], **raw["found_at"])
        plan = Plan(raw["run_id"], request, raw["inputs_sha256"], tuple(Shard(*row) for row in raw["shards"]), raw["versions"])
        # of the request as it is written: a newer ecg-batch may know parameters that it does not name
        sound = _run_id(raw["request"], plan.inputs) == plan.run_id and plan.shards == cut_shards(request.records, request.shard)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UserError(f"{path}: damaged: it does not agree with its own run id. Restore it from a copy, or make the run anew")
    return plan
