"""What both training loops need: checkpoints that resume exactly, weights as safetensors, curves and reports.

Randomness of an epoch comes from a generator keyed by (seed, epoch), so a checkpoint needs no generator state: a run
that was killed and resumed goes through the same numbers as one that was not.
"""

import io
import json
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors.torch import save

from ecg_batch.errors import UserError
from ecg_batch.files import to_json, write_over
from ecg_batch.progress import track
from ecg_batch.sums import list_of, sums_of

# What a checkpoint of either model has, beside weights.
KEPT = {"settings": dict, "epochs_done": int, "curves": dict, "best": dict, "model": dict, "optimizer": dict}


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
    """The checkpoint at path, or None where there is none. UserError if it is damaged, or belongs to other settings."""
    if not path.exists():
        return None
    try:
        with ZipFile(path) as parts:  # torch does not look at the sums of its own archive
            broken = parts.testzip()
        checkpoint = None if broken else torch.load(path, weights_only=True)
    except Exception as error:  # zip, pickle and torch raise what they like of a file that is not theirs
        raise _no_checkpoint(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(key), kind) for key, kind in KEPT.items()):
        raise _no_checkpoint(path, f"{broken} is damaged" if broken else f"it holds no {', '.join(KEPT)}")
    differing = sorted(key for key in settings if checkpoint["settings"].get(key) != settings[key])
    if differing:
        raise UserError(
            f"{path}: made with other values of {', '.join(differing)}; resuming would mix two trainings. "
            "Give the same settings, another --out, or remove the file to start again"
        )
    return checkpoint


def _no_checkpoint(path: Path, why: str) -> UserError:
    return UserError(f"{path}: no checkpoint that can be gone on with ({why:.200}). Remove the file to start this training again")


@contextmanager
def resuming(path: Path) -> Iterator[None]:
    """UserError where the block cannot put a checkpoint into place."""
    try:
        yield
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise _no_checkpoint(path, f"{type(error).__name__}: {error}") from error


def save_weights(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes weights, with their sum beside them. A file that holds the same is left alone: others know it by its sha256."""
    if not holds(path, tensors, metadata):
        list_of(path).unlink(missing_ok=True)  # a kill between the two leaves weights without a sum, and not with a wrong one
        write_whole(path, in_order(save(on_cpu(tensors), metadata)))
    write_whole(list_of(path), sums_of(path))


def on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def holds(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bool:
    """Whether the file is there, with these tensors bit by bit and these metadata, in whatever order."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()} if file.metadata() == metadata else {}  # noqa: SIM118
    except (OSError, SafetensorError):
        return False
    if found.keys() != tensors.keys():
        return False
    return all(found[name].dtype == one.dtype and torch.equal(found[name], one) for name, one in on_cpu(tensors).items())


def in_order(data: bytes) -> bytes:
    """A safetensors file with its metadata in order, so that equal weights are equal bytes: the library writes them by chance.

    8 bytes of length, a header of JSON padded with blanks to a multiple of 8, the tensors, whose places count from there.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items())), **dict(sorted(header.items()))}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def save_report(path: Path, report: dict) -> None:
    """What is not known, NaN here, is null there: JSON has no NaN."""
    made_with = {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": machine()}
    write_whole(path, to_json(_known({**report, "made_with": made_with})))


def _known(value):
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def finished_report(
    out: Path, name: str, settings: dict, tensors: dict[str, torch.Tensor], metadata: dict[str, str]
) -> dict | None:
    """The report of a training that was finished before, whose weights, curves and report are there; else None."""
    if not (out / f"{name}_curves.png").is_file() or not holds(out / f"{name}.safetensors", tensors, metadata):
        return None
    try:
        report = json.loads((out / f"{name}.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) and report.get("settings") == settings else None


def refuse_divergence(name: str, epoch: int, value: float, learning_rate: float) -> None:
    """UserError where a loss is no number any more: nothing that follows would be."""
    if not math.isfinite(value):
        raise UserError(
            f"{name}: the loss is {value} in epoch {epoch + 1}, so training has diverged and ends here; learning_rate is "
            f"{learning_rate:g}. Give a lower one (--set learning_rate=...) and another --out, or remove the checkpoint there"
        )


def best_epoch(
    name: str, out: Path, model, optimizer, training, settings: dict, stated: dict[str, str], untied: Callable,
    train: Callable[[int], float], look: Callable[[], float],
) -> tuple[dict[str, list[float]], dict | None]:
    """Train by epochs and keep the weights of the best one on fold 9 as OUT/NAME.safetensors, and in the model. Resumes.

    train(epoch) and look() give the figures of both curves. Returns (curves, the report where all was finished before, else None).
    """  # fmt: skip
    done, curves, best = 0, {"train": [], "fold 9": []}, None
    kept = out / f"{name}.checkpoint.pt"
    if checkpoint := load_checkpoint(kept, settings):
        with resuming(kept):
            model.load_state_dict(checkpoint["model"])
            optimizer.load_state_dict(checkpoint["optimizer"])
        done, curves, best = checkpoint["epochs_done"], checkpoint["curves"], checkpoint["best"]
        if done >= training.epochs and (made := finished_report(out, name, settings, untied(best), stated)):
            return curves, made
    for epoch in track(range(done, training.epochs), name, "epochs", training.epochs, done):
        curves["train"].append(train(epoch))
        curves["fold 9"].append(look())
        refuse_divergence(name, epoch, curves["fold 9"][-1], training.learning_rate)
        if curves["fold 9"][-1] == min(curves["fold 9"]):
            best = {of: tensor.clone() for of, tensor in model.state_dict().items()}
        state = {"epochs_done": epoch + 1, "curves": curves, "best": best, "settings": settings}
        save_checkpoint(kept, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), **state})
    with resuming(kept):
        model.load_state_dict(best)
    save_weights(out / f"{name}.safetensors", untied(best), stated)
    return curves, None


def taught(name: str, model, optimizer, training, epoch: int, batches: Sequence, loss_of: Callable) -> float:
    """One pass over these batches; mean bits of loss_of(batch), which is in nats."""
    losses = []
    for index, batch in enumerate(batches):
        set_learning_rate(optimizer, training.learning_rate, (epoch + index / len(batches)) / training.epochs)
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        refuse_divergence(name, epoch, losses[-1], training.learning_rate)
    return float(np.mean(losses) / np.log(2))


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
