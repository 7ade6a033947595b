"""Plan: a request made final, as plan.json holds it: the shards, the digests of the inputs, the versions of the software.

The run id is a digest of everything that changes bytes, so a folder can tell whether a request is its own.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ecg_batch.dataset.layout import (
    ARROW,
    BEATS,
    FORMAT,
    HDF5_DIGITS,
    PARQUET,
    PLAN,
    RECORDS,
    Shard,
    beats_part_file,
    cut_shards,
    ecg_file,
    part_file,
)
from ecg_batch.errors import UserError
from ecg_batch.files import read_regular
from ecg_batch.kernels.build import gpu_kernels, instructions, kernels
from ecg_batch.request.model import Request, request_from_resolved

SOFTWARE = ("ecg-batch", "numpy", "numcodecs", "pyarrow", "scipy", "torch", "zarr")  # what a byte can depend on


@dataclass(frozen=True)
class Plan:
    """What a run makes. request.bank and request.models say where the inputs were found, `inputs` what they were."""

    run_id: str
    request: Request
    inputs: dict[str, str]  # sha256 of bank and, where there are any, vqvae, mamba, judge and table
    shards: tuple[Shard, ...]
    versions: dict[str, str]
    digits: int = HDF5_DIGITS  # of names of HDF5 files
    annotated: bool = True  # whether records of 10 s have their beats, as long ones always had; before 0.5 they had not
    parts: str = ARROW  # what files the parts of tables are; PARQUET in runs that were begun before Arrow's were
    source: str = ""  # whom the bank's recordings are from, where that is not PTB-XL; changes no sample

    def ecg_files(self, shard: Shard) -> list[str]:
        """The files that hold the samples of a shard: one, or one for each record where records are streamed."""
        files = range(shard.start, shard.stop) if self.request.is_streamed else (shard.index,)
        return [ecg_file(index, self.request.format, self.digits) for index in files]

    @property
    def has_beats(self) -> bool:
        return self.annotated or self.request.is_long

    def part_files(self, shard: Shard) -> dict[str, str]:
        """File of the finished dataset -> the part of it that a shard brings."""
        beats = {BEATS: beats_part_file(shard.index, self.parts)} if self.has_beats else {}
        return {RECORDS: part_file(shard.index, self.parts), **beats}

    def shard_files(self, shard: Shard) -> list[str]:
        """All files that a shard's receipt names."""
        return [*self.ecg_files(shard), *self.part_files(shard).values()]


# The run id ----------------------------------------------------------------------------------------------------------


def run_id_of(resolved: dict, inputs: dict[str, str]) -> str:
    canonical = json.dumps([FORMAT, resolved, inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def software_versions(request: Request | None = None) -> dict[str, str]:
    """What a byte can depend on here, beside the request and its inputs."""
    names = (*SOFTWARE, "h5py") if request and request.format == "hdf5" else SOFTWARE
    versions = {name: _version(name) for name in names} | {"kernels": kernels()}
    by_torch = versions["kernels"] == "plain" or (request and request.judge)  # our own kernels give the same at every width
    on_gpu = {"GPU kernels": gpu_kernels()} if request and request.device == "cuda" else {}
    return versions | ({"instructions": instructions()} if by_torch else {}) | on_gpu


def _torch_computes(request: Request, kernels: str) -> bool:
    """Whether anything of a record passes through torch: recorded texture does only where no kernels were compiled."""
    return kernels == "plain" or request.texture == "decoded" or bool(request.judge) or request.device != "cpu"


def refuse_other_software(plan: Plan) -> None:
    """UserError where this machine would make other bytes than the one that planned."""
    here = software_versions(plan.request)
    if "instructions" not in plan.versions:  # of a run that was begun before they counted
        here.pop("instructions", None)
    if not _torch_computes(plan.request, here["kernels"]):  # so whoever has it and whoever has not make the same bytes
        here["torch"] = plan.versions.get("torch", here["torch"])
    if here != plan.versions:
        changed = [f"{name} {plan.versions.get(name)} there, {here.get(name)} here" for name in sorted({*here, *plan.versions})
                   if here.get(name) != plan.versions.get(name)]  # fmt: skip
        raise UserError(
            f"the run was begun with other software ({'; '.join(changed)}); the shards of one dataset must not differ in "
            "that. Install those versions on every machine, or give another --out"
        )


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # 33 ms, which `status` does not need

    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


# plan.json ------------------------------------------------------------------------------------------------------------


def plan_to_json(plan: Plan) -> dict:
    return {
        "format": FORMAT,
        "run_id": plan.run_id,
        "request": plan.request.resolved(),
        "inputs_sha256": plan.inputs,
        "found_at": {"bank": plan.request.bank, "models": plan.request.models},
        "versions": plan.versions,
        **({"annotated": True} if plan.annotated else {}),
        **({"parts": plan.parts} if plan.parts != PARQUET else {}),
        **({"source": plan.source} if plan.source else {}),
        **({"digits": plan.digits} if plan.request.format == "hdf5" else {}),
        "shards": [list(asdict(shard).values()) for shard in plan.shards],
    }


def read_plan(folder: Path) -> Plan:
    """The plan of a run's folder. UserError where it is absent, of a newer format, or damaged."""
    path = folder / PLAN
    try:
        raw = json.loads(read_regular(path))
        if raw["format"] > FORMAT:
            raise UserError(f"{path}: format {raw['format']}; this ecg-batch reads up to {FORMAT}. Install a newer one")
        request = request_from_resolved(raw["request"], **raw["found_at"])
        plan = Plan(raw["run_id"], request, raw["inputs_sha256"], tuple(Shard(*row) for row in raw["shards"]), raw["versions"],
                    raw.get("digits", 0), raw.get("annotated", False), raw.get("parts", PARQUET),
                    raw.get("source", ""))  # fmt: skip
        # of the request as it is written: a newer ecg-batch may know parameters that it does not name
        sound = raw["format"] in range(1, FORMAT + 1) and type(raw["format"]) is int and _is_sane(plan)
        sound = sound and run_id_of(raw["request"], plan.inputs) == plan.run_id
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RecursionError):
        sound = False
    if not sound:
        raise UserError(f"{path}: damaged: it does not agree with its own run id. Restore it from a copy, or make the run anew")
    return plan


def _is_sane(plan: Plan) -> bool:
    """Whether the shards are those of the request, and digests and versions are words. Shards are counted first: a number of
    records can be written whose shards no memory holds.
    """
    words = [*plan.inputs.values(), *plan.versions.values(), plan.request.bank, plan.request.models, plan.source]
    if not all(isinstance(word, str) and word.isprintable() for word in words):
        return False
    if len(plan.shards) != -(-plan.request.records // plan.request.shard):
        return False
    numbers = [plan.digits, *(number for shard in plan.shards for number in (shard.index, shard.start, shard.stop))]  # 0.0 is 0 too
    whole = all(type(number) is int for number in numbers) and 0 <= plan.digits < 20
    whole = whole and type(plan.annotated) is bool and plan.parts in (ARROW, PARQUET)
    return whole and plan.shards == cut_shards(plan.request.records, plan.request.shard)
