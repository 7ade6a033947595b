"""The network of unit_model.py as it is trained, in torch, and the plain loop that draws from it where no kernel runs."""

from functools import lru_cache

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from ecg_batch.models.mamba import MambaLM
from ecg_batch.models.networks import UnitConfig
from ecg_batch.models.sampling import plain_tokens
from ecg_batch.models.weights import frozen


class UnitNetwork(nn.Module):
    """codebook (K, level): steps above a recording's mean level; mean, scale (level,) of those of training records, in steps."""

    def __init__(self, config: UnitConfig):
        super().__init__()
        self.config = config
        self.register_buffer("codebook", torch.zeros(config.codes, config.levels))
        self.register_buffer("mean", torch.zeros(config.levels))
        self.register_buffer("scale", torch.ones(config.levels))
        self.inner = nn.Linear(config.levels + config.kinds, config.hidden)
        self.outer = nn.Linear(config.hidden, config.d_model)
        self.mamba = MambaLM(config.mamba)

    def forward(self, codes: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """Logits of each code given those before it: codes (b, l), said (b, level + kind) -> (b, l, K)."""
        first = codes.new_full((len(codes), 1), self.config.codes)  # the condition token
        condition = self.outer(F.relu(self.inner(said)))  # (b, d)
        return self.mamba(torch.cat([first, codes[:, :-1]], dim=1), condition)[..., : self.config.codes]


@lru_cache(maxsize=2)
def network_of(model: "unit_model.UnitModel") -> UnitNetwork:  # noqa: F821
    """The network of these weights, frozen."""
    network = UnitNetwork(model.config)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in model.tensors.items()})
    return frozen(network, "cpu")


@torch.inference_mode()
def plain_codes(model, condition: np.ndarray, uniforms: np.ndarray, temperature: float) -> np.ndarray:
    """unit_model.draw_codes in torch, where no kernel runs: the reference. Record by record, as torch's sums know neighbours."""
    mamba, first = network_of(model).mamba, torch.tensor([model.config.codes])
    each = zip(torch.from_numpy(condition).split(1), torch.from_numpy(uniforms).split(1), strict=True)
    return np.concatenate([plain_tokens(mamba, first, mamba.empty_state(1), some, temperature, of).numpy() for of, some in each])
