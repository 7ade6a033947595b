"""Weights of small networks that an evaluation trains, as safetensors; what is kept is not trained again."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch.nn as nn

from ecg_batch.errors import UserError
from ecg_batch.pool import pool_of
from ecg_batch.progress import track
from ecg_batch.sums import is_whole

MADE_WITH = "made with"  # of the metadata: what the weights depend on


class Job(Protocol):
    """A training. name: of its file; key: what its weights depend on."""

    name: str

    def key(self) -> str: ...


def trained(jobs: Sequence[Job], folder: Path, workers: int, load: Callable, train: Callable, what: str) -> dict[str, nn.Module]:
    """The network of each job, by its name; those of the folder that state the same are not trained again.

    load(path) -> network and what its file says; train(job, path) trains one and saves it with its key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [job for job in jobs if _kept(job, folder, load) is None]
    if wanted:
        with pool_of(min(workers, len(wanted))) as pool:
            runs = [pool.submit(train, job, path_of(job, folder)) for job in wanted]
            for run in track(runs, what, "trainings"):
                run.result()
    return {job.name: _kept(job, folder, load) for job in jobs}


def path_of(job: Job, folder: Path) -> Path:
    return folder / f"{job.name}.safetensors"


def _kept(job: Job, folder: Path, load: Callable) -> nn.Module | None:
    path = path_of(job, folder)
    model, says = load(path) if path.exists() else (None, {})
    return model if says.get(MADE_WITH) == job.key() else None


def save(path: Path, model: nn.Module, says: dict[str, str], format: str) -> None:
    """Writes a safetensors file whose metadata are `says`; a file that is there is replaced at once, never half."""
    from safetensors.torch import save as as_bytes

    aside = path.with_suffix(".tmp")
    aside.write_bytes(as_bytes(model.state_dict(), {"format": format, **says}))
    aside.replace(path)


def load(path: Path, model: nn.Module, format: str, source: str) -> tuple[nn.Module, dict[str, str]]:
    """The network of a file, put into `model`, and what the file says. UserError where it is absent, damaged or of another kind.

    source: what makes such files, for the error.
    """
    from safetensors import SafetensorError, safe_open

    try:
        is_whole(path, "Fetch the file again; if another was put here on purpose, remove its list of sums")
        with safe_open(path, framework="pt") as file:
            says, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error!s:.200}); needed weights of {source}") from None
    known = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if says.get("format") != format or known != {name: tensor.shape for name, tensor in tensors.items()}:
        raise UserError(f"{path}: format {says.get('format')!r:.100}, or other sizes; needed {format!r}. Train it again")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise UserError(f"{path}: holds NaN or infinity; train it again")
    model.load_state_dict(tensors)
    return model.eval(), says
