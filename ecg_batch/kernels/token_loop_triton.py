"""The token loop on a GPU as one kernel: a program takes RECORDS records from their first token to their last. Not yet measured.

Their states, 20 KB a record, are carried in registers through the loop over tokens: 160 of the 256 KB that a multiprocessor of an
H200 has. With WARPS a thread has 128 registers, and the compiler spills 1.4 KB a thread to the L1 cache. The weights, 390 KB in
float32, are more than the shared memory of a multiprocessor (227 KB) and the same for all programs: they are read again for each
token and stay in the L2 cache (50 MB). Products are of float32 in full, not of TF32, of which nothing has shown that the sampled
distribution stays the same. Nothing of a record depends on its neighbours, nor on how many there are.

The reference is models/sampling.plain_tokens; Triton's interpreter holds the two together where there is no GPU. Letters as in
models/mamba.py. Import it only where triton is installed.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

RECORDS = 8  # of a program: 16 would have more state than a multiprocessor has registers
WARPS = 16
RANK = 16  # dt_rank is padded to it, the shortest sum that tl.dot takes
PARTS = tl.constexpr(4)  # of the head: all of its weights at once would push the states out of the registers


@triton.jit
def _silu(x):
    return x / (1.0 + tl.exp(-x))


@triton.jit
def _softplus(x):
    """log(1 + e^x). Kahan's log1p: small values keep their relative precision."""
    small = tl.exp(-tl.abs(x))
    above = 1.0 + small
    log1p = tl.where(above == 1.0, small, tl.log(above) * (small / (above - 1.0 + (above == 1.0))))
    return tl.maximum(x, 0.0) + log1p


@triton.jit
def _rows(weights, AT: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr):
    """The matrix (HIGH, WIDE) at AT. AT comes last: so matrices of one shape share their addresses in registers."""
    return tl.load(weights + (tl.arange(0, HIGH)[:, None] * WIDE + tl.arange(0, WIDE)[None, :]) + AT)


@triton.jit
def _row(weights, AT: tl.constexpr, WIDE: tl.constexpr):
    return tl.load(weights + tl.arange(0, WIDE) + AT)[None, :]


@triton.jit
def _product(x, weights, AT: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr):
    return tl.dot(x, _rows(weights, AT, HIGH, WIDE), input_precision="ieee")


@triton.jit
def _norm(x, weights, AT: tl.constexpr, D: tl.constexpr):
    return x * tl.rsqrt(tl.sum(x * x, 1) / D + 1e-5)[:, None] * _row(weights, AT, D)


@triton.jit
def _layer(x, h, third, second, first, weights, AT: tl.constexpr,
           D: tl.constexpr, IN: tl.constexpr, N: tl.constexpr, R: tl.constexpr):  # fmt: skip
    """x (b, d), state h (b, d_in, n), the inputs of the convolution three, two and one token ago (b, d_in) -> the same of now.

    The weights lie from AT on, in the order of _packed.
    """
    CONV: tl.constexpr = AT + D + 2 * D * IN
    TO_DELTA: tl.constexpr = CONV + 5 * IN
    DT: tl.constexpr = TO_DELTA + IN * (R + 2 * N)
    A: tl.constexpr = DT + R * IN + IN
    u = _norm(x, weights, AT, D)  # (b, d)
    into, z = _product(u, weights, AT + D, D, IN), _product(u, weights, AT + D + D * IN, D, IN)  # (b, d_in) each
    taps = _row(weights, CONV, IN) * third + _row(weights, CONV + IN, IN) * second  # (b, d_in)
    taps += _row(weights, CONV + 2 * IN, IN) * first + _row(weights, CONV + 3 * IN, IN) * into
    xc = _silu(taps + _row(weights, CONV + 4 * IN, IN))  # (b, d_in)
    delta = _product(_product(xc, weights, TO_DELTA, IN, R), weights, DT, R, IN)  # (b, d_in)
    delta = _softplus(delta + _row(weights, DT + R * IN, IN))  # (b, d_in)
    b = _product(xc, weights, TO_DELTA + IN * R, IN, N)  # (b, n)
    c = _product(xc, weights, TO_DELTA + IN * (R + N), IN, N)  # (b, n)
    h = h * tl.exp(delta[:, :, None] * _rows(weights, A, IN, N)[None]) + (delta * xc)[:, :, None] * b[:, None, :]  # (b, d_in, n)
    y = (tl.sum(h * c[:, None, :], 2) + _row(weights, A + IN * N, IN) * xc) * _silu(z)  # (b, d_in)
    return x + _product(y, weights, A + IN * N + IN, IN, D), h, second, first, into


@triton.jit
def _logits(u, weights, AT: tl.constexpr, K: tl.constexpr, D: tl.constexpr):
    """(b, d) -> (b, K), from four parts that hold every fourth token each."""
    WIDE: tl.constexpr = K // PARTS
    PART: tl.constexpr = D * WIDE
    zeroth, first = _product(u, weights, AT, D, WIDE), _product(u, weights, AT + PART, D, WIDE)
    second, third = _product(u, weights, AT + 2 * PART, D, WIDE), _product(u, weights, AT + 3 * PART, D, WIDE)
    return tl.reshape(tl.join(tl.join(zeroth, second), tl.join(first, third)), (u.shape[0], K))


@triton.jit
def _sample(logits, uniform, temperature, K: tl.constexpr):
    """sampling.inverse_cdf: (b, K), (b,) float64 -> (b,) int32."""
    weight = tl.exp((logits - tl.max(logits, 1)[:, None]) / temperature)  # (b, K)
    cdf = tl.cumsum(weight.to(tl.float64), 1)  # (b, K)
    target = uniform * tl.max(cdf, 1)  # (b,)
    return tl.minimum(tl.sum((cdf <= target[:, None]).to(tl.int32), 1), K - 1)


@triton.jit(do_not_specialize=["records", "length"])  # else another kernel is compiled for 1 of them, and for multiples of 16
def _loop(last, conv_state, ssm_state, uniforms, tokens, records, length, temperature, embedding, weights,
          ROWS: tl.constexpr, K: tl.constexpr, D: tl.constexpr, IN: tl.constexpr, N: tl.constexpr, R: tl.constexpr):  # fmt: skip
    """All tokens of ROWS records, through two layers."""
    LAYER: tl.constexpr = D + 3 * D * IN + IN * (7 + 2 * R + 3 * N)
    at = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # (b,)
    there = at < records
    row = tl.where(there, at, records - 1).to(tl.int64)  # rows without a record repeat the last one
    wide, deep = tl.arange(0, IN), tl.arange(0, N)
    of_conv = conv_state + (row[:, None] * IN + wide[None, :]) * 4  # (b, d_in)
    of_ssm = ssm_state + (row[:, None, None] * IN + wide[None, :, None]) * N + deep[None, None, :]  # (b, d_in, n)
    layer = records.to(tl.int64) * IN  # channels of a layer
    h, h2 = tl.load(of_ssm), tl.load(of_ssm + layer * N)
    third, second, first = tl.load(of_conv + 1), tl.load(of_conv + 2), tl.load(of_conv + 3)
    of_conv2 = of_conv + layer * 4
    third2, second2, first2 = tl.load(of_conv2 + 1), tl.load(of_conv2 + 2), tl.load(of_conv2 + 3)
    token = tl.load(last + row).to(tl.int32)
    for t in range(length):
        x = tl.load(embedding + token[:, None] * D + tl.arange(0, D)[None, :])  # (b, d)
        x, h, third, second, first = _layer(x, h, third, second, first, weights, 0, D, IN, N, R)
        x, h2, third2, second2, first2 = _layer(x, h2, third2, second2, first2, weights, LAYER, D, IN, N, R)
        logits = _logits(_norm(x, weights, 2 * LAYER, D), weights, 2 * LAYER + D, K, D)  # (b, K)
        token = _sample(logits, tl.load(uniforms + row * length + t), temperature, K)  # (b,)
        tl.store(tokens + row * length + t, token.to(tl.int64), mask=there)
    channels, cells = there[:, None], there[:, None, None]
    tl.store(of_ssm, h, mask=cells)
    tl.store(of_ssm + layer * N, h2, mask=cells)
    tl.store(of_conv + 1, third, mask=channels)  # the oldest input, at 0, is never read again
    tl.store(of_conv + 2, second, mask=channels)
    tl.store(of_conv + 3, first, mask=channels)
    tl.store(of_conv2 + 1, third2, mask=channels)
    tl.store(of_conv2 + 2, second2, mask=channels)
    tl.store(of_conv2 + 3, first2, mask=channels)


def fits(mamba) -> bool:
    """Whether the kernel can stand in for the plain loop on this model: two layers, as published, and sizes of powers of two."""
    c = mamba.config
    if (c.n_layer, c.d_conv) != (2, 4) or c.dt_rank > RANK or mamba.lm_head.weight.dtype != torch.float32:
        return False
    part, rest = divmod(c.texture_tokens, PARTS.value)
    return rest == 0 and all(size >= 16 and size & (size - 1) == 0 for size in (c.d_model, c.d_inner, c.d_state, part))


def continue_tokens(mamba, last, state, uniforms, temperature: float = 1.0, rows: int = RECORDS, warps: int = WARPS):
    """decode.continue_tokens on a GPU: (b,), state, (b, l) float64 -> tokens (b, l) int64. Nothing waits for the device.

    Of each convolution's last inputs the oldest, which no later step reads, stays as it was.
    """
    c = mamba.config
    records, length = uniforms.shape
    device = last.device
    if uniforms.device != device:
        uniforms = uniforms.pin_memory().to(device, non_blocking=True)
    given = last.contiguous(), state.conv, state.ssm, uniforms.contiguous()
    tokens = torch.empty(records, length, dtype=torch.int64, device=device)
    if tokens.numel():
        _loop[(triton.cdiv(records, rows),)](
            *given, tokens, records, length, float(temperature), mamba.lm_head.weight, _packed(mamba),
            ROWS=rows, K=c.texture_tokens, D=c.d_model, IN=c.d_inner, N=c.d_state, R=RANK, num_warps=warps)  # fmt: skip
    return tokens


@lru_cache(maxsize=2)
def _packed(mamba) -> torch.Tensor:
    """All weights but the embedding, one after the other as the kernel reads them, each matrix (in, out)."""
    c = mamba.config
    sizes, short = (c.dt_rank, c.d_state, c.d_state), RANK - c.dt_rank
    parts = []
    for layer in mamba.backbone.layers:
        mixer = layer.mixer
        to_delta, to_b, to_c = mixer.x_proj.weight.T.split(sizes, dim=1)  # (d_in, r), (d_in, n), (d_in, n)
        parts += [layer.norm.weight, *mixer.in_proj.weight.T.chunk(2, dim=1)]  # (d,), (d, d_in), (d, d_in)
        parts += [mixer.conv1d.weight.squeeze(1).T, mixer.conv1d.bias]  # (k, d_in), (d_in,)
        parts += [F.pad(to_delta, (0, short)), to_b, to_c, F.pad(mixer.dt_proj.weight.T, (0, 0, 0, short)), mixer.dt_proj.bias]
        parts += [-mixer.A_log.exp(), mixer.D, mixer.out_proj.weight.T]  # (d_in, n), (d_in,), (d_in, d)
    head = mamba.lm_head.weight[: c.texture_tokens]  # (K, d)
    parts += [mamba.backbone.norm_f.weight, *(head[part :: PARTS.value].T for part in range(PARTS.value))]
    return torch.cat([part.reshape(-1) for part in parts])
