"""Texture of long records: tokens in stretches made side by side, joined where they agree, decoded in the order of time.

A Mamba's tokens come one after another, and the kernel makes those of 16 streams in the time of one. So a record's tokens are made
in stretches, each from an empty state: a day of one patient costs what a batch of hours costs. How many there are depends on the
duration alone, a stretch's numbers on (seed, record, stretch), so neither neighbours nor workers change a token. All tokens of a
stretch are made at once (16 bits for 40 ms: 16 stretches are 750 KB); signal is decoded by the minute.

Where two stretches meet, half a minute of each is to be had: of all pairs of places in them the one is taken where the tokens
around agree best, and one stream goes over into the other there. Noise goes on through it. The VQ-VAE's decoder sees real tokens
to both sides of all it gives out, so nothing else has edges. (A cross-fade of two textures was found by a classifier: docs/log.md.)

The Mamba was trained on records of 10 s, which begin quietly. Carried on, drift under 1 Hz grows for half a minute to a level
that then stays, 3 to 6 dB (a typical record: 7 to 10 dB) over that of real records; above 1.5 Hz nothing changes. So the first
half minute of a stretch is thrown away, and a low shelf takes the drift back to the real level (docs/holter.md).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.signal import bilinear, butter, lfilter

from ecg_batch import decode, draws
from ecg_batch.compose import FILTER_ORDER, low_pass

STRETCH_S = 1800  # at most
WARM_UP_S = 75
SEARCH_S = 30  # the end of a stretch and the beginning of the next, within which they are joined
SETTLE_S = 2  # decoded before the record begins, for the shelf and the low-pass: their slowest answer is 0.16 s
PIECE_S = 60  # decoded at a time
LANES = 16  # token streams side by side, at least, where there are so many: those of the widest kernel
AROUND = (-12, -8, -5, -3, -2, -1, 0, 1, 2, 4, 7, 11)  # tokens that have to agree about a joint; drift reaches 12 to either side
INTO_STEP = 4  # every so many tokens of the next stretch are tried
SHELF_HZ, SHELF_GAIN = 1.0, 0.6  # below and above it: SD in 10 s of 84 uV for real 107 (in the median 77 for 70), without it 133


@dataclass(frozen=True)
class Cut:
    """A record's texture in stretches of equal length, in tokens: warm-up, search, body, search. total: what is decoded."""

    stretches: int
    body: int
    total: int
    warm_up: int
    search: int
    settle: int
    piece: int
    context: int

    @property
    def tokens(self) -> int:
        return self.warm_up + self.body + 2 * self.search

    @property
    def lead_in(self) -> int:
        """Tokens before the record begins: context of what is decoded to settle."""
        return self.settle + self.context


def cut_texture(samples: int, fs_hz: int, margin: int, models: decode.Models) -> Cut:
    """How a record of so many samples, and `margin` after its end, is cut: in as few stretches as STRETCH_S allows."""
    warm_up, search, settle, piece = (decode.token_count(models, seconds * fs_hz)
                                      for seconds in (WARM_UP_S, SEARCH_S, SETTLE_S, PIECE_S))  # fmt: skip
    context = models.vqvae.config.decoder_context
    total = settle + decode.token_count(models, samples + margin)
    stretches = -(-samples // (STRETCH_S * fs_hz))
    return Cut(stretches, -(-total // stretches) + context, total, warm_up, search, settle, piece, context)


class TextureStream:
    """Texture of a batch of records of so many samples from their beginning, as much of it as is asked for, piece after piece."""

    def __init__(self, request, models: decode.Models, records: np.ndarray, conditions: torch.Tensor, samples: int):
        self._request, self._models, self._records = request, models, records
        self._margin = filter_margin(request.lowpass_hz, request.fs_hz)
        self._cut = cut_texture(samples, request.fs_hz, self._margin, models)
        self._conditions = self._filled(conditions)
        self._codebook = models.vqvae.codebook.cpu().numpy()
        leads, context = models.vqvae.config.leads, self._cut.context
        self._made: dict[int, torch.Tensor] = {}  # stretches whose tokens wait to be joined
        self._next_stretch, self._decoded = 0, 0
        self._tokens = [np.empty(0, np.int16) for _ in records]  # joined, from `context` before what is decoded next
        self._ends = self._tokens  # of the last stretch, to be joined to the next one
        self.joints: list[list[int]] = [[] for _ in records]  # samples of each record at which one stretch went over into the next
        self._noise = [draws.generator(request.seed, int(record), draws.Stream.TEXTURE_NOISE) for record in records]
        self._loudness = np.stack([noise.standard_normal(leads, dtype=np.float32) for noise in self._noise])  # (b, lead)
        self._waiting = self._new_noise(2 * context)
        w = 2 * np.pi * SHELF_HZ
        self._shelf = bilinear([1, SHELF_GAIN * w], [1, w], fs=request.fs_hz)
        self._shelf_state = np.zeros((len(records), leads, 1))
        self._samples = self._piece()[..., self._cut.settle * models.samples_per_token - self._margin :]

    def next(self, samples: int) -> list[np.ndarray]:
        """The next samples of each record, low-passed: float64 (lead, time) mV. Record by record, since arrays of all of them
        would be new memory maps each time: a tenth of the whole job's time.
        """
        while self._samples.shape[-1] < samples + 2 * self._margin:
            self._samples = np.concatenate([self._samples, self._piece()], axis=-1)
        window = self._samples[..., : samples + 2 * self._margin]
        self._samples = self._samples[..., samples:]
        inner = slice(self._margin, self._margin + samples)
        return [low_pass(one, self._request.lowpass_hz, self._request.fs_hz)[:, inner] for one in window]

    def _piece(self) -> np.ndarray:
        """The next minute of texture, drift shelved: float64 (record, lead, time) mV."""
        count, context = min(self._cut.piece, self._cut.total - self._decoded), self._cut.context
        while min(map(len, self._tokens)) < count + 2 * context:
            self._join()
        tokens = self._filled(torch.from_numpy(np.stack([row[: count + 2 * context] for row in self._tokens])).long())  # (b, l)
        self._waiting = torch.cat([self._waiting, self._new_noise(count)], dim=1)  # (b, l, e + lead)
        texture = decode.decode_texture(self._models, tokens, self._waiting)[: len(self._records)]  # (record, lead, time)
        self._tokens, self._waiting = [row[count:] for row in self._tokens], self._waiting[:, count:]
        self._decoded += count
        if not torch.isfinite(texture).all():
            raise ValueError("the texture models gave NaN or infinity, so their weights are damaged; train or fetch them again")
        margin = context * self._models.samples_per_token
        return self._shelved(texture[..., margin:-margin].cpu().numpy())

    def _shelved(self, texture: np.ndarray) -> np.ndarray:
        shelved = np.empty(texture.shape)
        for record, one in enumerate(texture):
            shelved[record], self._shelf_state[record] = lfilter(*self._shelf, one.astype(np.float64), zi=self._shelf_state[record])
        return shelved

    def _join(self) -> None:
        """The next stretch joined to the tokens of each record."""
        cut, joined, ends = self._cut, [], []
        for before, end, stretch, joints in zip(
            self._tokens, self._ends, self._tokens_of(self._next_stretch), self.joints, strict=True
        ):
            if self._next_stretch == 0:
                parts = (stretch[cut.warm_up - cut.lead_in : -cut.search],)
            else:
                out, into = best_joint(self._codebook, end, stretch[cut.warm_up : cut.warm_up + cut.search])
                parts = (before, end[:out], stretch[cut.warm_up + into : -cut.search])
                joints.append((self._decoded - cut.lead_in + len(before) + out) * self._models.samples_per_token)
            joined.append(np.concatenate(parts))
            ends.append(stretch[-cut.search :])
        self._tokens, self._ends, self._next_stretch = joined, ends, self._next_stretch + 1

    def _tokens_of(self, stretch: int) -> np.ndarray:
        """Tokens of one stretch, int16 (record, l); those of the next ones are made along with it, as many as fill the lanes."""
        if stretch not in self._made:
            at_once = max(1, LANES // self._request.batch)
            stretches = range(stretch, min(stretch + at_once, self._cut.stretches))
            self._made = dict(zip(stretches, self._new_tokens(stretches), strict=True))
        return self._made.pop(stretch)[: len(self._records)].numpy()

    def _new_tokens(self, stretches: range) -> tuple[torch.Tensor, ...]:
        """All tokens of these stretches, made side by side: (b, l) int16 each."""
        drawn = [
            self._filled(torch.from_numpy(np.stack([self._draws(record, stretch) for record in self._records])))
            for stretch in stretches
        ]
        conditions, uniforms = self._conditions.repeat(len(stretches)), torch.cat(drawn)  # (b * stretch,), (b * stretch, l)
        tokens = decode.sample_tokens(self._models, conditions, uniforms, self._request.temperature)
        return tokens.to("cpu", torch.int16).split(self._request.batch)

    def _draws(self, record: int, stretch: int) -> np.ndarray:
        return draws.generator(self._request.seed, int(record), draws.Stream.TOKENS, stretch).random(self._cut.tokens)

    def _new_noise(self, count: int) -> torch.Tensor:
        """The decoder's noise for the next tokens, as decode.draw_noise draws it: (b, l, e + lead)."""
        config = self._models.vqvae.config
        noise = np.empty((len(self._noise), count, config.drawn_channels), np.float32)
        for row, loudness, generator in zip(noise, self._loudness, self._noise, strict=True):
            row[:, : config.noise_channels] = generator.standard_normal((count, config.noise_channels), dtype=np.float32)
            row[:, config.noise_channels :] = loudness
        return self._filled(torch.from_numpy(noise))

    def _filled(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows, the first again until there are as many as a batch has: sums round differently in other batches."""
        return torch.cat([rows, rows[:1].expand(self._request.batch - len(rows), *rows.shape[1:])])


def best_joint(codebook: np.ndarray, end: np.ndarray, begin: np.ndarray) -> tuple[int, int]:
    """Where tokens `end` (l,) are best left, and tokens `begin` (l,) entered: end[:out] then begin[into:].

    There the rows of the codebook that both streams say around the joint, before and after it, differ least in the sum of squares.
    """
    around = np.array(AROUND)
    outs = np.arange(-around[0], len(end) - around[-1])
    intos = np.arange(-around[0], len(begin) - around[-1], INTO_STEP)
    left, entered = (codebook[tokens[places[:, None] + around]].reshape(len(places), -1) for tokens, places in
                     ((end, outs), (begin, intos)))  # fmt: skip
    cost = np.square(left).sum(axis=1)[:, None] - 2 * left @ entered.T + np.square(entered).sum(axis=1)
    out, into = np.unravel_index(np.argmin(cost), cost.shape)
    return int(outs[out]), int(intos[into])


def filter_margin(lowpass_hz: float, fs_hz: float) -> int:
    """Samples to either side of a stretch beyond which the zero-phase low-pass sees nothing: its slowest pole falls to 1e-13."""
    poles = butter(FILTER_ORDER // 2, lowpass_hz, fs=fs_hz, output="zpk")[1]
    return int(np.ceil(np.log(1e-13) / np.log(np.abs(poles).max())))


def filtered(signal: Callable[[int, int], np.ndarray], start: int, stop: int, samples: int, lowpass_hz: float, fs_hz: float):
    """Samples start .. stop - 1 of a low-passed signal(start, stop) of so many samples, as if all of it were filtered at once."""
    margin = filter_margin(lowpass_hz, fs_hz)
    first, last = max(start - margin, 0), min(stop + margin, samples)
    return low_pass(signal(first, last), lowpass_hz, fs_hz)[..., start - first : stop - first]
