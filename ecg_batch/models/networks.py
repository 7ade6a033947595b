"""The sizes of the networks, and the shape of each of their tensors that follows. Without torch: a plan asks for them too.

Their letters are explained where the networks are: mamba.py, vqvae.py, judge.py.
"""

import json
import math
from dataclasses import asdict, dataclass
from typing import Annotated

from ecg_batch.keys import Range
from ecg_batch.leads import LEADS
from ecg_batch.statements import SUPERCLASSES

JUDGE_HZ = 100  # a judge's rate; faster records are decimated to it
COUNTED = "num_batches_tracked"  # ends the name of the one kind of tensor that holds whole numbers

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class MambaConfig:
    """Sizes of the language model. The defaults are the published ones."""

    texture_tokens: Annotated[int, Range(1, 65_536)] = 512
    condition_tokens: Annotated[int, Range(1, 65_536)] = 6
    d_model: Annotated[int, Range(1, 8192)] = 64
    n_layer: Annotated[int, Range(1, 256)] = 2
    expand: Annotated[int, Range(1, 16)] = 2
    d_state: Annotated[int, Range(1, 1024)] = 16
    d_conv: Annotated[int, Range(1, 64)] = 4

    @property
    def vocab_size(self) -> int:
        return -(-(self.texture_tokens + self.condition_tokens) // 8) * 8

    @property
    def d_inner(self) -> int:
        return self.expand * self.d_model

    @property
    def dt_rank(self) -> int:
        return math.ceil(self.d_model / 16)

    def shapes(self) -> Shapes:
        """Of each tensor of a MambaLM."""
        d, d_in, n, r = self.d_model, self.d_inner, self.d_state, self.dt_rank
        shapes = {f"{name}.weight": (self.vocab_size, d) for name in ("backbone.embedding", "lm_head")}
        shapes["backbone.norm_f.weight"] = (d,)
        mixer = {
            "in_proj.weight": (2 * d_in, d), "conv1d.weight": (d_in, 1, self.d_conv), "conv1d.bias": (d_in,), "A_log": (d_in, n),
            "x_proj.weight": (r + 2 * n, d_in), "dt_proj.weight": (d_in, r), "dt_proj.bias": (d_in,), "D": (d_in,),
            "out_proj.weight": (d, d_in),
        }  # fmt: skip
        for layer in range(self.n_layer):
            shapes[f"backbone.layers.{layer}.norm.weight"] = (d,)
            shapes |= {f"backbone.layers.{layer}.mixer.{name}": shape for name, shape in mixer.items()}
        return shapes

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class SequenceSizes:
    """What follows from the sizes of a model that writes sequences (sequences/model.py)."""

    @property
    def mamba(self) -> MambaConfig:
        """One condition token, which begins each sequence."""
        return MambaConfig(self.codes, 1, self.d_model, self.n_layer, self.expand, self.d_state, self.d_conv)

    def shapes(self) -> Shapes:
        """Of each tensor of a SequenceNetwork."""
        first, last = (self.hidden, self.said), (self.d_model, self.hidden)
        layers = {"inner.weight": first, "inner.bias": first[:1], "outer.weight": last, "outer.bias": last[:1]}
        return layers | {f"mamba.{name}": shape for name, shape in self.mamba.shapes().items()}

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class UnitConfig(SequenceSizes):
    """Sizes of the model of noise, beat by beat (sequences/unit_model.py). Codes and Mamba have the published sizes."""

    codes: Annotated[int, Range(2, 65_536)] = 512
    levels: Annotated[int, Range(1, 1024, "numbers that say how loud a unit is: leads times bands")] = 24
    kinds: Annotated[int, Range(1, 1024, "of noise, by lead")] = 32
    hidden: Annotated[int, Range(1, 8192)] = 128
    d_model: Annotated[int, Range(1, 8192)] = 64
    n_layer: Annotated[int, Range(1, 256)] = 2
    expand: Annotated[int, Range(1, 16)] = 2
    d_state: Annotated[int, Range(1, 1024)] = 16
    d_conv: Annotated[int, Range(1, 64)] = 4

    @property
    def said(self) -> int:
        """Numbers that a condition is made of."""
        return self.levels + self.kinds

    def shapes(self) -> Shapes:
        """Of each tensor of a UnitNetwork."""
        per_level = {name: (self.levels,) for name in ("mean", "scale")}
        return {"codebook": (self.codes, self.levels), **per_level, **super().shapes()}


@dataclass(frozen=True)
class RhythmConfig(SequenceSizes):
    """Sizes of the model of rhythm (sequences/rhythm_codes.py)."""

    codes: Annotated[int, Range(2, 65_536, "types of beats times steps of RR")] = 198
    said: Annotated[int, Range(1, 1024, "numbers that a condition is made of")] = 19
    hidden: Annotated[int, Range(1, 8192)] = 64
    d_model: Annotated[int, Range(1, 8192)] = 64
    n_layer: Annotated[int, Range(1, 256)] = 2
    expand: Annotated[int, Range(1, 16)] = 2
    d_state: Annotated[int, Range(1, 1024)] = 16
    d_conv: Annotated[int, Range(1, 64)] = 4


@dataclass(frozen=True)
class VqVaeConfig:
    """Sizes of the VQ-VAE. Codes, dim and samples a token are the published ones."""

    leads: Annotated[int, Range(1, 64)] = 8
    samples_per_token: Annotated[int, Range(1, 1000)] = 4
    codes: Annotated[int, Range(2, 65_536)] = 512
    dim: Annotated[int, Range(1, 4096)] = 64
    channels: Annotated[int, Range(1, 4096)] = 64
    dilations: tuple[Annotated[int, Range(1, 1000)], ...] = (1, 3, 9)
    noise_channels: Annotated[int, Range(1, 4096, "as many for each lead")] = 32
    drift_tokens: Annotated[int, Range(2, 10_000, "even; 0.96 s at 100 Hz")] = 24

    @property
    def patch(self) -> int:
        return self.leads * self.samples_per_token

    @property
    def encoder_context(self) -> int:
        """Tokens to either side that a token depends on."""
        return 1 + sum(self.dilations) + 1

    @property
    def decoder_context(self) -> int:
        """Tokens to either side that an output sample depends on."""
        return self.encoder_context + self.drift_tokens // 2

    @property
    def drawn_channels(self) -> int:
        """Numbers drawn outside for each token: e that are new each time, and the loudness of each lead."""
        return self.noise_channels + self.leads

    def shapes(self) -> Shapes:
        """Of each tensor of a VqVae."""
        encoder = self._stack("encoder", self.patch, self.dim)
        decoder = self._stack("decoder", self.dim + self.drawn_channels, self.leads + self.patch)
        per_lead = {"scale_mv": (self.leads,), "loudness_mix": (self.leads, self.leads), "loudness_spread": (self.leads,)}
        return {"codebook": (self.codes, self.dim), **per_lead, **encoder, **decoder}

    def _stack(self, name: str, into: int, out: int) -> Shapes:
        c = self.channels
        kernels = {"first": (c, into, 3), "last": (out, c, 3)}
        for block in range(len(self.dilations)):
            kernels |= {f"blocks.{block}.inner": (2 * c, c, 3), f"blocks.{block}.outer": (c, c, 1)}
        return {f"{name}.{at}.{part}": shape if part == "weight" else shape[:1]
                for at, shape in kernels.items() for part in ("weight", "bias")}  # fmt: skip

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class JudgeConfig:
    """Sizes. outputs: the five superclasses, and any statements after them.

    It learns on pieces of window_s seconds at random and judges by the mean over pieces half overlapped, as the published
    benchmark does (Strodthoff et al. 2020): a quarter of the work, and every piece is a new example.
    """

    widths: tuple[Annotated[int, Range(1, 4096)], ...] = (48, 64, 96, 128)
    blocks: Annotated[int, Range(1, 64, "at each width")] = 2
    kernel: Annotated[int, Range(1, 999, "odd")] = 7
    stem_kernel: Annotated[int, Range(1, 999)] = 15
    stem_stride: Annotated[int, Range(1, 64)] = 2
    dropout: Annotated[float, Range(0, 0.99)] = 0.3
    window_s: Annotated[float, Range(0.5, 10)] = 2.5
    outputs: Annotated[int, Range(1, 1000)] = len(SUPERCLASSES)

    @property
    def window(self) -> int:
        return round(self.window_s * JUDGE_HZ)

    @property
    def steps(self) -> tuple[tuple[int, int, int], ...]:
        """(channels into, channels out, stride) of each block."""
        pairs = zip(self.widths, self.widths[1:], strict=False)
        return tuple((a, b, 2 if at == 0 else 1) for a, b in pairs for at, a in enumerate([a] + [b] * (self.blocks - 1)))

    def shapes(self) -> Shapes:
        """Of each tensor of a Judge."""
        first, last, leads = self.widths[0], self.widths[-1], len(LEADS)
        shapes = {"mean": (leads,), "scale": (leads,), "stem.0.weight": (first, leads, self.stem_kernel), **_norm("stem.1", first)}
        for at, (into, out, stride) in enumerate(self.steps):
            block = f"blocks.{at}"
            shapes |= {f"{block}.first.weight": (out, into, self.kernel), f"{block}.second.weight": (out, out, self.kernel)}
            shapes |= {**_norm(f"{block}.first_norm", out), **_norm(f"{block}.second_norm", out)}
            if into != out or stride > 1:
                shapes[f"{block}.shortcut.weight"] = (out, into, 1)
        return shapes | {"head.weight": (self.outputs, 2 * last), "head.bias": (self.outputs,)}

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def _norm(name: str, channels: int) -> Shapes:
    """Of a BatchNorm1d."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{COUNTED}": ()} | {f"{name}.{part}": (channels,) for part in parts}
