"""A VQ-VAE for texture: 8 leads x 4 samples become one of K tokens, and tokens become texture again.

van den Oord et al. 2017, Neural Discrete Representation Learning, https://arxiv.org/abs/1711.00937. One stream of
tokens for all modelled leads: 9 bits for 32 values. That is far too little to keep noise sample by sample, and a
decoder that gives the conditional mean of what it was not told has too little power at high frequency. So the decoder
takes noise channels, drawn outside it by record, and shapes them to what the tokens say: it draws a sample, not a mean.

Nor do the tokens say how noisy a record is as a whole: all their bits go to drift, and every record came out equally
noisy. So each lead has a loudness, one standard normal number a record, correlated between leads as in the training
records (a Gaussian copula), that the decoder is told in training and that is drawn afterwards (docs/evidence/models.md).

Fully convolutional, with no normalisation across time: an output depends on `decoder_context` tokens to either side and
on nothing else, so a long texture can be decoded piece by piece. All work is done at the token rate.

Glossary
    b       batch (records)
    lead    modelled leads (leads.MODELLED)
    time    samples
    l       length in tokens, time / samples_per_token
    p       values a token stands for, lead * samples_per_token
    c       channels inside encoder and decoder
    d       width of the latent and of a codebook row
    K       rows of the codebook
    e       noise channels; after them comes one loudness channel a lead, constant over a record
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ecg_batch.models.networks import VqVaeConfig

# Bound of the decoder's output before sinh: sinh(5.5) = 122 units, 4 mV for a unit of 30 uV. Real texture: under 3 mV.
COMPANDED_LIMIT = 5.5


class VqVae(nn.Module):
    """Encoder, codebook, decoder.

    `scale_mv` is each lead's unit, the corpus's median absolute value. `loudness_mix` times independent normal numbers
    gives loudness with the corpus's correlation between leads; `loudness_spread` is the standard deviation of log noise.
    """

    def __init__(self, config: VqVaeConfig):
        super().__init__()
        self.config = config
        c, dilations = config.channels, config.dilations
        self.encoder = Stack(config.patch, c, config.dim, dilations)
        self.decoder = Stack(config.dim + config.drawn_channels, c, config.leads + config.patch, dilations)
        self.register_buffer("codebook", torch.randn(config.codes, config.dim))
        self.register_buffer("scale_mv", torch.ones(config.leads))
        self.register_buffer("loudness_mix", torch.eye(config.leads))
        self.register_buffer("loudness_spread", torch.ones(config.leads))

    def encode(self, texture_mv: torch.Tensor) -> torch.Tensor:
        """(b, lead, time) in mV -> latent (b, d, l).

        asinh compands: linear for noise of a few uV, logarithmic for drift of some mV, 100 times the unit.
        """
        x = torch.asinh(texture_mv / self.scale_mv[:, None])  # (b, lead, time)
        return self.encoder(to_patches(x, self.config.samples_per_token))  # (b, d, l)

    def quantise(self, latent: torch.Tensor) -> torch.Tensor:
        """Nearest row of the codebook: (b, d, l) -> tokens (b, l)."""
        product = torch.einsum("bdl,kd->blk", latent, self.codebook)  # (b, l, K)
        return (self.codebook.pow(2).sum(1) - 2 * product).argmin(-1)  # (b, l); |z|^2 is the same for every row

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (b, l) -> latent (b, d, l)."""
        return F.embedding(tokens, self.codebook).transpose(1, 2)  # (b, d, l)

    def decode(self, latent: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Latent (b, d, l) and standard normal noise (b, l, e + lead), None for zeros -> texture (b, lead, time) in mV."""
        if noise is None:
            noise = latent.new_zeros(latent.shape[0], latent.shape[2], self.config.drawn_channels)  # (b, l, e + lead)
        fresh, loudness = noise.split([self.config.noise_channels, self.config.leads], dim=2)  # (b, l, e), (b, l, lead)
        return self.render(latent, fresh, loudness @ self.loudness_mix.T)  # (b, lead, time)

    def render(self, latent: torch.Tensor, noise: torch.Tensor, loudness: torch.Tensor) -> torch.Tensor:
        """Latent (b, d, l), noise (b, l, e), loudness (b, l, lead) as it is, not to be mixed -> (b, lead, time) in mV."""
        # noise comes in as loud as it is to go out: left to find that product itself, the decoder ignored loudness
        gain = torch.exp(loudness * self.loudness_spread)  # (b, l, lead)
        noise = (noise.unflatten(2, (self.config.leads, -1)) * gain[..., None]).flatten(2)  # (b, l, e)
        x = torch.cat([latent, noise.transpose(1, 2), loudness.transpose(1, 2)], dim=1)  # (b, d + e + lead, l)
        x = self.decoder(x)  # (b, lead + p, l)
        x = torch.sinh(x.clamp(-COMPANDED_LIMIT, COMPANDED_LIMIT))  # (b, lead + p, l)
        drift, rest = x.split([self.config.leads, self.config.patch], dim=1)  # (b, lead, l), (b, p, l)
        drift = smooth(drift, self.config.drift_tokens, self.config.samples_per_token)  # (b, lead, time)
        return (drift + from_patches(rest, self.config.leads)) * self.scale_mv[:, None]  # (b, lead, time)


class Stack(nn.Module):
    """Convolution, gated residual blocks, convolution; zero padding at the ends, length kept."""

    def __init__(self, into: int, c: int, out: int, dilations: tuple[int, ...]):
        super().__init__()
        self.first = nn.Conv1d(into, c, 3, padding=1)
        self.blocks = nn.ModuleList(GatedBlock(c, dilation) for dilation in dilations)
        self.last = nn.Conv1d(c, out, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)  # (b, c, l)
        for block in self.blocks:
            x = x + block(x)  # (b, c, l)
        return self.last(x)  # (b, out, l)


class GatedBlock(nn.Module):
    """A gate multiplies: so a token that says "much muscle noise" can scale a noise channel, which a sum could not."""

    def __init__(self, c: int, dilation: int):
        super().__init__()
        self.inner = nn.Conv1d(c, 2 * c, 3, padding=dilation, dilation=dilation)
        self.outer = nn.Conv1d(c, c, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.inner(x).chunk(2, dim=1)  # (b, c, l) each
        return self.outer(value * torch.sigmoid(gate))  # (b, c, l)


def smooth(drift: torch.Tensor, tokens: int, samples_per_token: int) -> torch.Tensor:
    """One value a token -> one a sample, through a Hann kernel `tokens` wide: (b, lead, l) -> (b, lead, time).

    Real drift has 20 dB less power at 1 Hz than at 0.3 Hz. Left to the convolutions, the steps between tokens filled that
    gap, and since sinh steepens away from zero, noise grew wherever drift was large. At the ends the last value goes on.
    """
    leads, half, width = drift.shape[1], tokens // 2, tokens * samples_per_token
    kernel = torch.hann_window(width, device=drift.device, dtype=drift.dtype) / half  # (width,), shifted copies sum to 1
    padded = F.pad(drift, (half, half), mode="replicate")  # (b, lead, l + 2 half)
    wide = F.conv_transpose1d(padded, kernel.expand(leads, 1, width), stride=samples_per_token, groups=leads)
    first = width - samples_per_token // 2  # a token's kernel is centred on the middle of its samples
    return wide[..., first : first + drift.shape[-1] * samples_per_token]  # (b, lead, time)


def to_patches(x: torch.Tensor, samples_per_token: int) -> torch.Tensor:
    """(b, lead, time) -> (b, p, l): the samples of one token, all leads, become channels."""
    b, lead, time = x.shape
    patches = x.view(b, lead, time // samples_per_token, samples_per_token)  # (b, lead, l, samples)
    return patches.transpose(2, 3).flatten(1, 2)  # (b, p, l)


def from_patches(x: torch.Tensor, leads: int) -> torch.Tensor:
    """(b, p, l) -> (b, lead, time), the inverse of `to_patches`."""
    b, p, length = x.shape
    return x.view(b, leads, p // leads, length).transpose(2, 3).reshape(b, leads, -1)  # (b, lead, time)
