"""Run: a plan and the folder that it is made in, with the places inside that folder by name."""

from dataclasses import dataclass
from pathlib import Path

from ecg_batch.dataset.layout import FAILURES, MANIFEST, PLAN, RECEIPTS, STAGING, SUMS, Shard, final_name, partial_of
from ecg_batch.dataset.plan import Plan, read_plan
from ecg_batch.errors import UserError
from ecg_batch.files import exists
from ecg_batch.remote.path import RemotePath
from ecg_batch.remote.url import is_url
from ecg_batch.request.model import Request


@dataclass(frozen=True)
class Run:
    """folder: NAME.partial while the run is being made, NAME when it is finished."""

    plan: Plan
    folder: Path | RemotePath

    @property
    def request(self) -> Request:
        return self.plan.request

    @property
    def shards(self) -> tuple[Shard, ...]:
        return self.plan.shards

    @property
    def out(self) -> Path:
        """The folder's name when it is finished."""
        return final_name(self.folder)

    @property
    def staging(self) -> Path:
        """Where shards are built, and files lie before they are moved into place."""
        return self.folder / STAGING

    @property
    def receipts(self) -> Path:
        return self.folder / RECEIPTS

    @property
    def failures(self) -> Path:
        return self.folder / FAILURES

    def receipt(self, shard_index: int) -> Path:
        return self.receipts / f"{shard_index}.json"

    def failure(self, shard_index: int) -> Path:
        """The traceback of a shard that failed by itself."""
        return self.failures / f"{shard_index}.txt"

    @property
    def is_finished(self) -> bool:
        return self.folder.suffix != ".partial"

    @property
    def is_over(self) -> bool:
        """Whether finalise has cleared the folder, or renamed it: there is nothing left to do for anybody."""
        return not self.staging.exists()

    @property
    def is_sealed(self) -> bool:
        """Whether finalise has written its sums: from then on the parts may be gone, merged into records.parquet."""
        return (self.folder / SUMS).exists()


def refuse_no_dataset(path: RemotePath) -> None:
    """UserError where no finished dataset is at a URL, or its server knows no ranges."""
    if path.suffix == ".partial":
        raise UserError(f"{path}: not finished yet, and only finished datasets are read from a URL. Where it is made, ecg-batch "
                        "status says how far it is")  # fmt: skip
    try:
        path.store.refuse_without_ranges(MANIFEST)
    except FileNotFoundError:
        raise UserError(f"{path}: no dataset (no {MANIFEST} below it). Give the URL to which a finished ecg-batch synthesize --out "
                        "was copied, with all its files") from None  # fmt: skip


def find_folder(path: Path | str) -> Path | RemotePath:
    """The folder of a run, finished or not, from either of its names; or a finished one's URL. UserError where there is none."""
    if is_url(path):
        from ecg_batch.remote.store import Store

        refuse_no_dataset(found := RemotePath(Store(path)))
        return found
    try:
        out = final_name(path)
        for folder in (out, partial_of(out)):
            if exists(folder / PLAN):
                return folder
    except PermissionError as error:
        raise UserError(f"{error.filename}: this user may not read it. Ask its owner to give you read access") from None
    raise UserError(f"{path}: no dataset here (no {PLAN}, and no {partial_of(out).name} beside it). Give the folder of a run")


def read_run(folder: Path) -> Run:
    """The run in a folder. UserError where its plan is absent, of a newer format, or damaged."""
    return Run(read_plan(folder), folder)
