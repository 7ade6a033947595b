"""Texture of long records: one Mamba state carried through the whole record, the VQ-VAE decoder streamed with its own context.

Numbers are drawn by record in the order of time, so a piece of a stream is what it would be in one long draw; the decoder sees
`decoder_context` real tokens to either side of all it gives out, so there are no block edges to find.

The Mamba was trained on records of 10 s, which begin quietly. Carried on, drift under 1 Hz grows for half a minute to a level
that then stays, 3 to 6 dB (a typical record: 7 to 10 dB) over that of real records; above 1.5 Hz nothing changes. So the first
half minute of a stream is thrown away, and a low shelf takes the drift back to the real level (docs/evidence/holter.md).
"""

import numpy as np
import torch
from scipy.signal import bilinear, lfilter

from ecg_batch import draws
from ecg_batch.kernels import finish as finish_kernel
from ecg_batch.models import decode
from ecg_batch.request.model import Request
from ecg_batch.signal.filters import low_pass, reach

WARM_UP_S = 30
SHELF_HZ, SHELF_GAIN = 1.0, 0.6  # below and above it: SD in 10 s of 84 uV for real 107 (in the median 77 for 70), without it 133


class TextureStream:
    """Texture of a batch of records from their beginning, as much of it as is asked for, piece after piece."""

    def __init__(self, request: Request, models: decode.Models, records: np.ndarray, conditions: torch.Tensor):
        self._request, self._models, self._count = request, models, len(records)
        self._fill = request.batch - len(records)
        self._uniforms = [draws.generator(request.seed, int(record), draws.Stream.TOKENS) for record in records]
        self._noise = [draws.generator(request.seed, int(record), draws.Stream.TEXTURE_NOISE) for record in records]
        leads = models.vqvae.config.leads
        self._loudness = np.stack([noise.standard_normal(leads, dtype=np.float32) for noise in self._noise])  # (b, lead)
        conditions = self._filled(conditions)
        self._state = models.mamba.empty_state(len(conditions))
        self._last = conditions.to(models.mamba.lm_head.weight.device) + models.mamba.config.texture_tokens  # (b,)
        self._context, self._samples_per_token = models.vqvae.config.decoder_context, models.samples_per_token
        self._margin = reach(request.lowpass_hz, request.fs_hz)
        w = 2 * np.pi * SHELF_HZ
        self._shelf = bilinear([1, SHELF_GAIN * w], [1, w], fs=request.fs_hz)
        self._shelf_state = np.zeros((self._count, leads, 1))
        self._tokens = torch.empty(len(conditions), 0, dtype=torch.int64, device=self._last.device)
        self._waiting = np.empty((self._count, 0, models.vqvae.config.drawn_channels), np.float32)
        warm_up = WARM_UP_S * request.fs_hz
        self._samples = np.empty((self._count, leads, 0))
        self._samples = self._with_more(warm_up)[..., warm_up - self._margin :]  # from `margin` before what comes next

    def next(self, samples: int) -> list[np.ndarray]:
        """The next samples of each record, low-passed: float64 (lead, time) mV. Record by record, since arrays of all of them
        would be new memory maps each time: a tenth of the whole job's time.
        """
        inner = slice(self._margin, self._margin + samples)
        return [low_pass(one, self._request.lowpass_hz, self._request.fs_hz)[:, inner] for one in self.windows(samples)]

    def windows(self, samples: int) -> np.ndarray:
        """The next samples with as many of their neighbours to either side as the low-pass sees: (record, lead, margin + time
        + margin) mV, not yet low-passed.
        """
        lacking = samples + 2 * self._margin - self._samples.shape[-1]
        if lacking > 0:
            self._samples = self._with_more(lacking)
        window = self._samples[..., : samples + 2 * self._margin]
        self._samples = self._samples[..., samples:]
        return window

    def _with_more(self, samples: int) -> np.ndarray:
        """The samples that are held and at least so many more, drift shelved: (record, lead, time). Keeps the context of those that
        come after. Each array of a minute is made once, in its place: all records of a batch together are too large for the cache.
        """
        context = self._context
        if left := not self._tokens.shape[1]:  # the beginning has no context, as in one piece
            wanted = -(-samples // self._samples_per_token) + context
        else:
            wanted = -(-samples // self._samples_per_token)
        self._tokens = torch.cat([self._tokens, self._new_tokens(wanted)], dim=1)  # (b, l)
        self._waiting = self._with_more_noise(wanted)  # (record, l, e + lead)
        noise = self._filled(torch.from_numpy(self._waiting))
        texture = decode.decode_texture(self._models, self._tokens, noise)  # (b, lead, time)
        first, last = 0 if left else context, self._tokens.shape[1] - context
        texture = texture[: self._count, :, first * self._samples_per_token : last * self._samples_per_token]
        decode.refuse_non_finite(texture)
        kept, held = 2 * context, self._samples.shape[-1]
        self._tokens, self._waiting = self._tokens[:, -kept:], self._waiting[:, -kept:]
        out = np.empty((*self._samples.shape[:2], held + texture.shape[-1]))
        out[..., :held] = self._samples
        shelve = finish_kernel.first_order if finish_kernel.library() else plain_shelf
        for one, state, place in zip(texture.cpu().numpy(), self._shelf_state, out[..., held:], strict=True):
            shelve(*self._shelf, one, state, place)
        return out

    def _new_tokens(self, count: int) -> torch.Tensor:
        """The next tokens of each record: (b, l) int64."""
        uniforms = self._filled(torch.from_numpy(np.stack([uniform.random(count) for uniform in self._uniforms])))  # (b, l)
        tokens = decode.continue_tokens(self._models.mamba, self._last, self._state, uniforms, self._request.temperature)
        self._last = tokens[:, -1]
        return tokens

    def _with_more_noise(self, count: int) -> np.ndarray:
        """The decoder's noise that waits and that of the next tokens, as decode.draw_noise draws it: (record, l, e + lead)."""
        config, held = self._models.vqvae.config, self._waiting.shape[1]
        noise = np.empty((self._count, held + count, config.drawn_channels), np.float32)
        noise[:, :held] = self._waiting
        for row, loudness, generator in zip(noise[:, held:], self._loudness, self._noise, strict=True):
            row[:, : config.noise_channels] = generator.standard_normal((count, config.noise_channels), dtype=np.float32)
            row[:, config.noise_channels :] = loudness
        return noise

    def _filled(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows, the first again until there are as many as a batch has: sums round differently in other batches."""
        return torch.cat([rows, rows[:1].expand(self._fill, *rows.shape[1:])]) if self._fill else rows


def plain_shelf(b, a, x: np.ndarray, state: np.ndarray, out: np.ndarray) -> None:
    """finish_kernel.first_order in scipy: the reference, and what runs where no kernel does."""
    out[...], state[...] = lfilter(b, a, x.astype(np.float64), zi=state)
