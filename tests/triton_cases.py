"""The token loop in Triton beside the plain one: python tests/triton_cases.py cpu|cuda prints what was found, as JSON.

A process of its own: TRITON_INTERPRET must be there before triton is imported, and other tests may have imported it.
"""

import json
import sys

import numpy as np
import torch

from ecg_batch import draws
from ecg_batch.bundled import BUNDLED
from ecg_batch.kernels import token_loop_triton
from ecg_batch.models.decode import load_models
from ecg_batch.models.mamba import MambaConfig, MambaLM
from ecg_batch.models.sampling import plain_tokens

TINY = MambaConfig(texture_tokens=64, condition_tokens=3, d_model=16, d_state=16)


def run(loop, mamba, records, pieces, temperature=1.0, uniforms=None):
    """Tokens in these pieces and the state after them; record i starts from condition i mod those there are."""
    device, records = mamba.lm_head.weight.device, np.asarray(records)
    if uniforms is None:
        uniforms = torch.from_numpy(draws.uniforms(7, records, draws.Stream.TOKENS, sum(pieces)))
    last = torch.from_numpy(records % mamba.config.condition_tokens + mamba.config.texture_tokens).to(device)
    state, made = mamba.empty_state(len(records)), []
    for piece in uniforms.to(device).split(pieces, dim=1):
        made.append(loop(mamba, last, state, piece, temperature))
        last = made[-1][:, -1]
    return torch.cat(made, dim=1), state


def compared(mamba, records, pieces, temperature=1.0) -> dict:
    """How many records have other tokens, and by how much the states of the others differ."""
    theirs, their_state = run(plain_tokens, mamba, records, [sum(pieces)], temperature)
    ours, state = run(token_loop_triton.continue_tokens, mamba, records, pieces, temperature)
    same = (ours == theirs).all(dim=1)
    return {
        "records": len(same), "tokens": sum(pieces), "others": int((~same).sum()), "kinds": len(torch.unique(ours)),
        "ssm": float((state.ssm - their_state.ssm)[:, same].abs().max()),
        "conv": float((state.conv - their_state.conv)[:, same, :, 1:].abs().max()),
    }  # fmt: skip


@torch.inference_mode()
def found(device: str) -> dict:
    bundled = load_models(BUNDLED, device).mamba
    torch.manual_seed(0)
    tiny = MambaLM(TINY).eval().to(device)
    for parameter in tiny.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))  # so that every part moves the tokens
    many, length = (range(1000), 250) if device == "cuda" else (range(10), 16)
    loop = token_loop_triton.continue_tokens
    together, alone = (run(loop, bundled, which, [8])[0] for which in (range(10), [9]))
    ends = torch.tensor([[0.0, np.nextafter(1, 0)] * 2], dtype=torch.float64)
    return {
        "fits": [token_loop_triton.fits(mamba) for mamba in (bundled, tiny, MambaLM(MambaConfig(n_layer=1)))],
        "bundled": compared(bundled, many, [length - 5, 1, 4]),
        "cold": compared(bundled, many, [length // 2], 0.5),
        "tiny": compared(tiny, range(19), [40]),
        "alone": torch.equal(together[9], alone[0]),
        "ends": run(loop, tiny, [0], [4], uniforms=ends)[0].tolist(),
        "none": list(loop(tiny, torch.zeros(0, dtype=torch.int64), tiny.empty_state(0), torch.zeros(0, 4)).shape),
    }


if __name__ == "__main__":
    print(json.dumps(found(sys.argv[1])))
