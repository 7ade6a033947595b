"""Weight files: safetensors whose metadata say what they are. Read without torch where only that is asked, as by a plan."""

from pathlib import Path
from typing import TYPE_CHECKING

from ecg_batch.errors import UserError
from ecg_batch.models.stated import Sizes, Tensors, check
from ecg_batch.sums import is_whole, list_of

if TYPE_CHECKING:
    import numpy as np
    import torch

# What the metadata of each kind of file state as `format`; the number rises when older files no longer fit.
FORMAT = {kind: f"ecg-batch {kind} 1" for kind in ("vqvae", "mamba", "units", "rhythm")} | {"judge": "ecg-batch judge 2"}


def read_header(path: Path) -> tuple[dict[str, str], Tensors]:
    """What a safetensors file states, and its tensors, whose numbers are finite. OSError or ValueError where it is none, UserError
    where it is damaged. Reads all of the file, without torch: a plan must not be made for weights that could make nothing.
    """
    import numpy as np
    from safetensors import SafetensorError, safe_open

    _refuse_damage(path)
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {}
            for name in file.keys():  # noqa: SIM118, a handle is no mapping
                tensor = file.get_tensor(name)
                _refuse_non_finite(path, name, bool(np.isfinite(tensor).all()))
                tensors[name] = (tensor.shape, tensor.dtype.kind == "f")
            return file.metadata() or {}, tensors
    except (SafetensorError, TypeError) as error:
        raise ValueError(f"{path} is not a safetensors file that can be read: {error!s:.200}") from None


def read_weights(path: Path, kind: str) -> tuple[dict[str, "torch.Tensor"], dict[str, str]]:
    """Tensors and metadata of a file of this kind, a key of FORMAT. UserError where it is damaged, or of another kind."""
    tensors, metadata = _read(path, kind, "pt")
    for name, tensor in tensors.items():
        _refuse_non_finite(path, name, bool(tensor.isfinite().all()))
    return tensors, metadata


def _read(path: Path, kind: str, framework: str) -> tuple[dict, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        _refuse_damage(path)
        with safe_open(path, framework=framework) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, a handle is no mapping
    except (OSError, ValueError, TypeError, SafetensorError) as error:  # TypeError: of a type that numpy does not know
        raise UserError(f"{path}: cannot be read ({error!s:.200}); needed weights from ecg-batch train {kind}") from error
    if metadata.get("format") != FORMAT[kind]:
        stated = metadata.get("format")
        raise UserError(f"{path}: format {stated!r:.200}; needed {FORMAT[kind]!r}. Run ecg-batch train {kind} again")
    return tensors, metadata


def load_arrays(path: Path, kind: str) -> tuple[Sizes, dict[str, "np.ndarray"]]:
    """The sizes and float32 tensors of a network, without torch. UserError where they do not fit, as by load_network."""
    import numpy as np

    arrays, metadata = _read(path, kind, "numpy")
    for name, array in arrays.items():
        _refuse_non_finite(path, name, bool(np.isfinite(array).all()))
    sizes = check(path, kind, metadata, {name: (one.shape, one.dtype.kind == "f") for name, one in arrays.items()})
    return sizes, {name: one.astype(np.float32, copy=False) for name, one in arrays.items()}


def load_network(path: Path, kind: str, network: "type[torch.nn.Module]") -> tuple["torch.nn.Module", dict[str, str]]:
    """The network of a file, and what the file says of it. network: made of its sizes. UserError where these do not fit."""
    tensors, metadata = read_weights(path, kind)
    # sizes are compared before there is memory for them
    sizes = check(path, kind, metadata, {name: (tuple(one.shape), one.is_floating_point()) for name, one in tensors.items()})
    model = network(sizes)
    model.load_state_dict(tensors)
    return model, metadata


def _refuse_damage(path: Path) -> None:
    """UserError where the file is not what its list says, ValueError where it is no regular file. Absent: for others to say."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no regular file")
    if path.exists():
        is_whole(path, f"Fetch the file again; if another was put here on purpose, remove {list_of(path).name}")


def _refuse_non_finite(path: Path, name: str, finite: bool) -> None:
    if not finite:
        raise UserError(
            f"{path}: {name} holds NaN or infinity, so these weights can make nothing. Fetch the file again, or train again"
        )


def frozen(model: "torch.nn.Module", device: "torch.device | str") -> "torch.nn.Module":
    return model.to(device).eval().requires_grad_(False)
