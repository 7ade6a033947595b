"""Texture of long records: stretches of a quarter of an hour, each a Mamba state of its own, faded into each other, decoded in the
order of time.

A Mamba's tokens come one after another, and the kernel makes those of 16 records in the time of one. So a record is cut into
stretches, which are decoded side by side: a day of one patient costs what a batch of hours costs. The cut depends on the duration
alone, a stretch's random numbers on (seed, record, stretch), so neither neighbours nor workers change a token. A stretch's tokens
are made at once (16 bits for 40 ms, so 16 stretches are 750 KB); signal is made by the minute, the VQ-VAE's decoder with real
tokens on both sides of all it gives out. Where one stretch ends and the next begins both are decoded, and cross-faded with equal
power over some seconds: independent noise of equal spectrum then keeps its spectrum.

The Mamba was trained on records of 10 s, which begin quietly. Carried on, drift under 1 Hz grows for half a minute to a level
that then stays, 3 to 6 dB (a typical record: 7 to 10 dB) over that of real records; above 1.5 Hz nothing changes. So the first
half minute of a stretch is thrown away, and a low shelf takes the drift back to the real level (docs/holter.md).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.signal import bilinear, butter, lfilter

from ecg_batch import decode, draws
from ecg_batch.compose import FILTER_ORDER, low_pass

STRETCH_S = 900  # at most; 3 % are lost to the warm-up
WARM_UP_S = 30
FADE_S = 4
SETTLE_S = 2  # decoded before the record begins, for the shelf and the low-pass: their slowest answer is 0.16 s
PIECE_S = 60  # decoded at a time
LANES = 16  # token streams side by side, at least, where there are so many: those of the widest kernel
SHELF_HZ, SHELF_GAIN = 1.0, 0.6  # below and above it: SD in 10 s of 84 uV for real 107 (in the median 77 for 70), without it 133


@dataclass(frozen=True)
class Cut:
    """A record's texture in stretches of equal length, in tokens: warm-up, body, fade into the next, context."""

    stretches: int
    body: int
    warm_up: int
    fade: int
    settle: int
    piece: int
    context: int

    @property
    def tokens(self) -> int:
        return self.warm_up + self.body + self.fade + self.context

    def stops(self, stretch: int) -> list[int]:
        """Where the pieces of a stretch begin and end: the body, by the minute, then the fade. The first stretch settles before."""
        begin, end = self.warm_up - (self.settle if stretch == 0 else 0), self.warm_up + self.body
        return [*range(begin, end, self.piece), end, end + self.fade]


def cut_texture(samples: int, fs_hz: int, models: decode.Models) -> Cut:
    """How a record of so many samples is cut: as few stretches as STRETCH_S allows."""
    stretches = -(-samples // (STRETCH_S * fs_hz))
    body = -(-decode.token_count(models, samples) // stretches)
    sizes = (decode.token_count(models, seconds * fs_hz) for seconds in (WARM_UP_S, FADE_S, SETTLE_S, PIECE_S))
    return Cut(stretches, body, *sizes, context=models.vqvae.config.decoder_context)


class TextureStream:
    """Texture of a batch of records of so many samples from their beginning, as much of it as is asked for, piece after piece."""

    def __init__(self, request, models: decode.Models, records: np.ndarray, conditions: torch.Tensor, samples: int):
        self._request, self._models, self._records = request, models, records
        self._cut = cut_texture(samples, request.fs_hz, models)
        self._conditions = self._filled(conditions)
        self._loudness = np.stack(
            [self._noise_of(record, 0).standard_normal(models.vqvae.config.leads, dtype=np.float32) for record in records]
        )  # fmt: skip  (b, lead)
        w = 2 * np.pi * SHELF_HZ
        self._shelf = bilinear([1, SHELF_GAIN * w], [1, w], fs=request.fs_hz)
        self._shelf_state = np.zeros((len(records), models.vqvae.config.leads, 1))
        self._margin = filter_margin(request.lowpass_hz, request.fs_hz)
        self._tokens: dict[int, torch.Tensor] = {}
        self._pieces = self._joined()
        self._samples = self._shelved(next(self._pieces))
        self._samples = self._samples[..., self._cut.settle * models.samples_per_token - self._margin :]

    def next(self, samples: int) -> list[np.ndarray]:
        """The next samples of each record, low-passed: float64 (lead, time) mV. Record by record, since arrays of all of them
        would be new memory maps each time: a tenth of the whole job's time.
        """
        while self._samples.shape[-1] < samples + 2 * self._margin:
            self._samples = np.concatenate([self._samples, self._shelved(next(self._pieces))], axis=-1)
        window = self._samples[..., : samples + 2 * self._margin]
        self._samples = self._samples[..., samples:]
        inner = slice(self._margin, self._margin + samples)
        return [low_pass(one, self._request.lowpass_hz, self._request.fs_hz)[:, inner] for one in window]

    def _shelved(self, texture: np.ndarray) -> np.ndarray:
        """The next piece with its drift taken back: (record, lead, time) -> float64 of the same shape."""
        shelved = np.empty(texture.shape)
        for record, one in enumerate(texture):
            shelved[record], self._shelf_state[record] = lfilter(*self._shelf, one.astype(np.float64), zi=self._shelf_state[record])
        return shelved

    def _joined(self) -> Iterator[np.ndarray]:
        """All of the records, from SETTLE_S before them to FADE_S after them, in pieces (record, lead, time), float32 mV."""
        fading = None
        for stretch in range(self._cut.stretches):
            *stops, last = self._cut.stops(stretch)
            decoder = self._decoder(stretch)
            for stop in stops[1:]:
                piece = decoder(stop)
                if fading is not None:
                    piece, fading = faded(fading, piece), None
                yield piece
            fading = decoder(last)
        yield fading

    def _decoder(self, stretch: int) -> Callable[[int], np.ndarray]:
        """decode(stop): the texture of a stretch from where it stands up to that token, (record, lead, time)."""
        tokens, context, at = self._tokens_of(stretch), self._cut.context, self._cut.stops(stretch)[0]
        generators = [self._noise_of(record, stretch) for record in self._records]
        if stretch == 0:  # its first numbers were the loudness
            for noise in generators:
                noise.standard_normal(self._loudness.shape[1], dtype=np.float32)
        waiting = self._new_noise(generators, 2 * context)  # of tokens at - context .. at + context - 1

        def decoded(stop: int) -> np.ndarray:
            nonlocal waiting, at
            waiting = torch.cat([waiting, self._new_noise(generators, stop - at)], dim=1)  # (b, l, e + lead)
            window = tokens[:, at - context : stop + context].long()  # (b, l)
            texture = decode.decode_texture(self._models, window, waiting)[: len(self._records)]  # (record, lead, time)
            waiting, at = waiting[:, -2 * context :], stop
            if not torch.isfinite(texture).all():
                raise ValueError("the texture models gave NaN or infinity, so their weights are damaged; train or fetch them again")
            margin = context * self._models.samples_per_token
            return texture[..., margin:-margin].cpu().numpy()

        return decoded

    def _tokens_of(self, stretch: int) -> torch.Tensor:
        """Tokens of one stretch, (b, l) int16; those of the next ones are made along with it, as many as fill the lanes."""
        if stretch not in self._tokens:
            at_once = max(1, LANES // self._request.batch)
            stretches = range(stretch, min(stretch + at_once, self._cut.stretches))
            self._tokens = dict(zip(stretches, self._new_tokens(stretches), strict=True))
        return self._tokens[stretch]

    def _new_tokens(self, stretches: range) -> tuple[torch.Tensor, ...]:
        """All tokens of these stretches, made side by side: (b, l) int16 each."""
        drawn = [
            self._filled(torch.from_numpy(np.stack([self._draws(record, stretch) for record in self._records])))
            for stretch in stretches
        ]
        conditions = self._conditions.repeat(len(stretches))  # (b * stretch,)
        uniforms = torch.cat(drawn)  # (b * stretch, l)
        tokens = decode.sample_tokens(self._models, conditions, uniforms, self._request.temperature)
        return tokens.to(torch.int16).split(self._request.batch)

    def _draws(self, record: int, stretch: int) -> np.ndarray:
        return draws.generator(self._request.seed, int(record), draws.Stream.TOKENS, stretch).random(self._cut.tokens)

    def _noise_of(self, record: int, stretch: int) -> np.random.Generator:
        return draws.generator(self._request.seed, int(record), draws.Stream.TEXTURE_NOISE, stretch)

    def _new_noise(self, generators: list[np.random.Generator], count: int) -> torch.Tensor:
        """The decoder's noise for the next tokens, as decode.draw_noise draws it: (b, l, e + lead)."""
        config = self._models.vqvae.config
        noise = np.empty((len(generators), count, config.drawn_channels), np.float32)
        for row, loudness, generator in zip(noise, self._loudness, generators, strict=True):
            row[:, : config.noise_channels] = generator.standard_normal((count, config.noise_channels), dtype=np.float32)
            row[:, config.noise_channels :] = loudness
        return self._filled(torch.from_numpy(noise))

    def _filled(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows, the first again until there are as many as a batch has: sums round differently in other batches."""
        return torch.cat([rows, rows[:1].expand(self._request.batch - len(rows), *rows.shape[1:])])


def faded(out: np.ndarray, into: np.ndarray) -> np.ndarray:
    """`into` (record, lead, time), `out` (record, lead, fade) fading at its beginning; the squares of the weights add up to 1."""
    angle = (np.arange(out.shape[-1], dtype=np.float32) + 0.5) / out.shape[-1] * np.float32(np.pi / 2)
    head = np.cos(angle) * out + np.sin(angle) * into[..., : out.shape[-1]]
    return np.concatenate([head, into[..., out.shape[-1] :]], axis=-1)


def filter_margin(lowpass_hz: float, fs_hz: float) -> int:
    """Samples to either side of a stretch beyond which the zero-phase low-pass sees nothing: its slowest pole falls to 1e-13."""
    poles = butter(FILTER_ORDER // 2, lowpass_hz, fs=fs_hz, output="zpk")[1]
    return int(np.ceil(np.log(1e-13) / np.log(np.abs(poles).max())))


def filtered(signal: Callable[[int, int], np.ndarray], start: int, stop: int, samples: int, lowpass_hz: float, fs_hz: float):
    """Samples start .. stop - 1 of a low-passed signal(start, stop) of so many samples, as if all of it were filtered at once."""
    margin = filter_margin(lowpass_hz, fs_hz)
    first, last = max(start - margin, 0), min(stop + margin, samples)
    return low_pass(signal(first, last), lowpass_hz, fs_hz)[..., start - first : stop - first]
