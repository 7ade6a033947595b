"""The networks of model.py as they are trained, in torch, and the plain loop that draws from them where no kernel runs."""

from functools import lru_cache

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from ecg_batch.models.mamba import MambaLM
from ecg_batch.models.networks import RhythmConfig, UnitConfig
from ecg_batch.models.sampling import plain_tokens
from ecg_batch.models.weights import frozen

NO_CODE = -100  # beyond a sequence's end, as torch's cross entropy ignores it
LOOK_AT = 512  # sequences at a time


class SequenceNetwork(nn.Module):
    """A condition of what is said of a record, and a Mamba."""

    def __init__(self, config: UnitConfig | RhythmConfig):
        super().__init__()
        self.config = config
        self.inner = nn.Linear(config.said, config.hidden)
        self.outer = nn.Linear(config.hidden, config.d_model)
        self.mamba = MambaLM(config.mamba)

    def forward(self, codes: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """Logits of each code given those before it: codes (b, l), said (b, said) -> (b, l, K)."""
        first = codes.new_full((len(codes), 1), self.config.codes)  # the condition token
        condition = self.outer(F.relu(self.inner(said)))  # (b, d)
        return self.mamba(torch.cat([first, codes[:, :-1]], dim=1), condition)[..., : self.config.codes]


class UnitNetwork(SequenceNetwork):
    """codebook (K, level): steps above a recording's mean level; mean, scale (level,) of those of training records, in steps."""

    def __init__(self, config: UnitConfig):
        super().__init__(config)
        self.register_buffer("codebook", torch.zeros(config.codes, config.levels))
        self.register_buffer("mean", torch.zeros(config.levels))
        self.register_buffer("scale", torch.ones(config.levels))


def nats(model: SequenceNetwork, codes: torch.Tensor, said: torch.Tensor, reduction: str) -> torch.Tensor:
    """-log p of each code given its condition and all before it."""
    device = model.inner.weight.device
    codes, said = codes.to(device), said.to(device)
    logits = model(codes.clamp(min=0), said)  # (b, l, K)
    return F.cross_entropy(logits.transpose(1, 2), codes, reduction=reduction, ignore_index=NO_CODE)


@torch.no_grad()
def bits_of(model: SequenceNetwork, codes: torch.Tensor, said: torch.Tensor) -> np.ndarray:
    """(record, 2): bits of each record's codes, and how many codes they are."""
    parts = zip(codes.split(LOOK_AT), said.split(LOOK_AT), strict=True)
    total = torch.cat([nats(model, some, of_them, "none").sum(1) for some, of_them in parts]).cpu().numpy() / np.log(2)
    return np.stack([total, (codes != NO_CODE).sum(1).numpy()], axis=1)


def mean_bits(bits: np.ndarray) -> float:
    """Bits a code, of bits_of."""
    total, count = bits.sum(axis=0)
    return float(total / count)


def untied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """safetensors refuses tensors that share memory."""
    return {**tensors, "mamba.lm_head.weight": tensors["mamba.lm_head.weight"].clone()}


@lru_cache(maxsize=2)
def network_of(model: "SequenceModel") -> SequenceNetwork:  # noqa: F821
    """The network of these weights, frozen."""
    network = (UnitNetwork if isinstance(model.config, UnitConfig) else SequenceNetwork)(model.config)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in model.tensors.items()})
    return frozen(network, "cpu")


@torch.inference_mode()
def plain_codes(model, condition: np.ndarray, uniforms: np.ndarray, temperature: float) -> np.ndarray:
    """model.draw_codes in torch, where no kernel runs: the reference. Record by record: torch's sums know neighbours."""
    mamba, first = network_of(model).mamba, torch.tensor([model.config.codes])
    each = zip(torch.from_numpy(condition).split(1), torch.from_numpy(uniforms).split(1), strict=True)
    return np.concatenate([plain_tokens(mamba, first, mamba.empty_state(1), some, temperature, of).numpy() for of, some in each])
