"""What weight files state of themselves, held against what they hold.

Without torch: a plan asks before anything is written, and whoever loads the weights asks again.
"""

import json
import math
from pathlib import Path

from ecg_batch.errors import UserError
from ecg_batch.leads import MODELLED
from ecg_batch.models.conditions import ANY
from ecg_batch.models.networks import COUNTED, JudgeConfig, MambaConfig, RhythmConfig, UnitConfig, VqVaeConfig
from ecg_batch.models.sequences.rhythm_codes import ALPHABET, CODES, STATEMENTS
from ecg_batch.models.sizes import read_sizes
from ecg_batch.signal.noise import LEVEL_BANDS_HZ
from ecg_batch.statements import NOISE_KINDS, SUPERCLASSES

SIZES = {"vqvae": VqVaeConfig, "mamba": MambaConfig, "judge": JudgeConfig, "units": UnitConfig, "rhythm": RhythmConfig}
Sizes = VqVaeConfig | MambaConfig | JudgeConfig | UnitConfig | RhythmConfig
Tensors = dict[str, tuple[tuple[int, ...], bool]]  # name -> shape, and whether it holds real numbers


def check(path: Path, kind: str, metadata: dict[str, str], tensors: Tensors) -> Sizes:
    """The sizes of the network in a file, a key of SIZES. UserError where metadata say nothing, or not what the file holds."""
    try:
        sizes = read_sizes(SIZES[kind], metadata["config"])
        _refuse_other_tensors(sizes.shapes(), tensors)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        what = f"no {error} in its metadata" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise UserError(
            f"{path}: damaged or of another program: {what:.300}. Fetch the file again, or run ecg-batch train {kind}"
        ) from error
    {"vqvae": _check_vqvae, "mamba": labels_of, "judge": _check_judge, "units": _check_units, "rhythm": _check_rhythm}[kind](
        path, metadata
    )
    return sizes


def check_pair(path: Path, vqvae: VqVaeConfig, mamba: MambaConfig) -> None:
    """path: of the Mamba."""
    if mamba.texture_tokens != vqvae.codes:
        raise UserError(f"{path}: {mamba.texture_tokens} tokens, but the VQ-VAE has {vqvae.codes}. Fetch the file again")


def _check_vqvae(path: Path, metadata: dict[str, str]) -> None:
    if (leads := read_sizes(VqVaeConfig, metadata["config"]).leads) != len(MODELLED):
        raise UserError(f"{path}: texture of {leads} leads; needed {len(MODELLED)}. Run ecg-batch train vqvae again")
    rate_of(path, metadata)


def _check_units(path: Path, metadata: dict[str, str]) -> None:
    sizes, bands = read_sizes(UnitConfig, metadata["config"]), len(LEVEL_BANDS_HZ)
    if (sizes.levels, sizes.kinds) != (needed := (len(MODELLED) * bands, len(NOISE_KINDS) * len(MODELLED))):
        raise UserError(
            f"{path}: {sizes.levels} levels and {sizes.kinds} kinds of noise by lead; needed {needed[0]} and {needed[1]}. "
            "Run ecg-batch train units again"
        )
    rate_of(path, metadata)


def _check_rhythm(path: Path, metadata: dict[str, str]) -> None:
    """What its codes and conditions stand for is written out in the file: weights of another alphabet would say other beats."""
    sizes = read_sizes(RhythmConfig, metadata["config"])
    if metadata.get("alphabet") != ALPHABET or (sizes.codes, sizes.said) != (CODES, len(STATEMENTS) + 2):
        raise UserError(f"{path}: codes or conditions of another program; needed {ALPHABET:.50}... Run ecg-batch train rhythm")


def rate_of(path: Path, metadata: dict[str, str]) -> float:
    """Of a VQ-VAE or a model of units: the rate it was trained at, Hz."""
    try:
        fs_hz = float(metadata["fs_hz"])
    except (KeyError, ValueError):
        fs_hz = 0.0
    if not 0 < fs_hz < 1e6:
        raise UserError(
            f"{path}: fs_hz is {metadata.get('fs_hz')!r:.200} in its metadata; needed the rate in Hz. Fetch the file again"
        )
    return fs_hz


def labels_of(path: Path, metadata: dict[str, str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Of a Mamba: its conditions, one for each condition token, and the superclass of each statement."""
    tokens = read_sizes(MambaConfig, metadata["config"]).condition_tokens
    try:
        conditions, superclass_of = (json.loads(metadata[name]) for name in ("conditions", "superclass_of"))
        fits = len(conditions) == tokens and ANY in conditions
        if fits and all(isinstance(name, str) for name in [*conditions, *superclass_of, *superclass_of.values()]):
            return tuple(conditions), superclass_of
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        pass
    raise UserError(
        f"{path}: damaged: its metadata have no list of {tokens} conditions with {ANY}, or no superclass_of. "
        "Fetch the file again, or run ecg-batch train mamba"
    )


def _check_judge(path: Path, metadata: dict[str, str]) -> None:
    outputs = read_sizes(JudgeConfig, metadata["config"]).outputs
    try:
        classes, thresholds, patients = (json.loads(metadata[name]) for name in ("classes", "thresholds", "patients"))
        named = tuple(classes[: len(SUPERCLASSES)]) == SUPERCLASSES and all(isinstance(one, str) for one in classes)
        fits = named and len(classes) == len(thresholds) == outputs
        if fits and all(map(math.isfinite, thresholds)) and all(type(one) is int for one in patients):
            return
    except (KeyError, TypeError, ValueError, RecursionError):
        pass
    raise UserError(
        f"{path}: damaged: its metadata have no list of patients, or no class and threshold for each of its {outputs} outputs, "
        f"{', '.join(SUPERCLASSES)} first. Run ecg-batch train judge again"
    )


def _refuse_other_tensors(needed: dict[str, tuple[int, ...]], found: Tensors) -> None:
    if differing := sorted(needed.keys() ^ found.keys()):
        raise ValueError(f"its tensors are not those that its metadata state: {', '.join(differing[:3])}")
    for name, shape in needed.items():
        stated = (tuple(shape), not name.endswith(COUNTED))
        if stated != found[name]:
            raise ValueError(f"{name} is {_shown(*found[name])}; its metadata state {_shown(*stated)}")


def _shown(shape: tuple[int, ...], real: bool) -> str:
    return f"{'real' if real else 'whole'} numbers {list(shape)}"
