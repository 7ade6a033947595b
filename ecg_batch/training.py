"""What both training loops need: checkpoints that resume exactly, weights as safetensors, curves and reports.

Randomness of an epoch comes from a generator keyed by (seed, epoch), so a checkpoint needs no generator state: a run
that was killed and resumed goes through the same numbers as one that was not.
"""

import io
import math
import platform
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors.torch import save

from ecg_batch.errors import UserError
from ecg_batch.files import to_json, write_over

matplotlib.use("agg")


def write_whole(path: Path, data: bytes) -> None:
    """`files.write_over` with a scratch folder of its own beside the target."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as scratch:
        write_over(path, data, Path(scratch))


def save_checkpoint(path: Path, checkpoint: dict) -> None:
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    write_whole(path, buffer.getvalue())


def load_checkpoint(path: Path, settings: dict) -> dict | None:
    """The checkpoint at path, or None where there is none. UserError if it belongs to other settings."""
    if not path.exists():
        return None
    checkpoint = torch.load(path, weights_only=True)
    differing = sorted(key for key in settings if checkpoint["settings"].get(key) != settings[key])
    if differing:
        raise UserError(
            f"{path}: made with other values of {', '.join(differing)}; resuming would mix two trainings. "
            "Give the same settings, another --out, or remove the file to start again"
        )
    return checkpoint


def save_weights(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    write_whole(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata))


def save_report(path: Path, report: dict) -> None:
    made_with = {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": machine()}
    write_whole(path, to_json({**report, "made_with": made_with}))


def set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, done: float) -> None:
    """Linear warm-up over a twentieth of the training, then a cosine to zero; `done` is the share that is over."""
    share = min((done + 1e-3) / 0.05, 0.5 * (1 + math.cos(math.pi * done)))
    for group in optimizer.param_groups:
        group["lr"] = peak * share


def save_curves(path: Path, title: str, ylabel: str, curves: dict[str, list[float]]) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot(np.arange(1, len(values) + 1), values, label=name)
    axes.set(title=title, xlabel="epoch", ylabel=ylabel)
    axes.legend(frameon=False)
    save_figure(path, figure)


def save_figure(path: Path, figure: Figure) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_whole(path, buffer.getvalue())


def machine() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
