"""Recorded noise, to be added to others' records: the texture of donors in whom a reader of PTB-XL saw noise of a kind.

Texture is a straight line under each QRS, which split.py keeps for the skeleton, and at both ends. Noise of a muscle knows nothing
of that, so what lies beside goes on into these holes, mirrored from both sides.
"""

from dataclasses import dataclass, field

import numpy as np

from ecg_batch.donors.bank import Bank
from ecg_batch.donors.split import as_recorded
from ecg_batch.errors import UserError
from ecg_batch.signal.filters import low_pass
from ecg_batch.signal.noise import to_and_fro
from ecg_batch.statements import NOISE_KINDS

GOES_ON_HZ = 2.0  # what is slower runs through a hole as it is
FADE_S = 0.25  # from one recording to the next


@dataclass
class NoisyDonors:
    """Donors whose noise may be added to others. rows_of: of each kind, rows of the bank."""

    bank: Bank
    rows_of: dict[str, np.ndarray]
    _noise: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def stretch(self, kind: str, host: int, draws: np.random.Generator, samples: int) -> tuple[np.ndarray, list[int]]:
        """(noise float64 (lead, time) in no unit, the rows of the bank that it is from): recordings by lot, of other patients than
        the host, one after the other, all as loud.
        """
        patient, fs_hz = self.bank.table.patient_id, self.bank.table.fs_hz
        rows = self.rows_of[kind]
        rows = rows[patient[rows] != patient[host]]
        length, fade = self.bank.texture.shape[-1], round(FADE_S * fs_hz)
        rising = np.sin(np.pi / 2 * (np.arange(fade) + 0.5) / fade)
        shape = np.concatenate([rising, np.ones(length - 2 * fade), rising[::-1]])
        out, chosen, at = np.zeros((self.bank.texture.shape[1], samples)), [], -int(draws.random() * (length - fade))
        while at < samples:
            row, turned = int(rows[int(draws.random() * len(rows))]), draws.random() < 0.5
            piece = shape * self._whole(row)
            now = slice(max(at, 0), min(at + length, samples))
            out[:, now] += (-piece if turned else piece)[:, now.start - at : now.stop - at]
            chosen.append(row)
            at += length - fade
        return out, chosen

    def _whole(self, row: int) -> np.ndarray:
        """A donor's texture without holes, of power 1 above GOES_ON_HZ: float32 (lead, time)."""
        if row not in self._noise:
            whole, fast = without_holes(self.bank.texture[row].astype(np.float64), self.bank.beats(row), self.bank.table.fs_hz)
            self._noise[row] = (whole / np.sqrt(np.square(fast).mean()).clip(1e-9)).astype(np.float32)
        return self._noise[row]


def noisy_donors(bank: Bank, rows: np.ndarray, kinds: list[str]) -> NoisyDonors:
    """Of these rows of the bank. UserError where fewer than two patients have one of the kinds."""
    found = {}
    for kind in kinds:
        holders = np.zeros(len(rows), bool) if bank.noise is None else bank.noise[rows, NOISE_KINDS.index(kind)].any(axis=1)
        found[kind] = rows[holders]
        patients = len(np.unique(bank.table.patient_id[found[kind]]))
        if patients < 2:
            has = "none has it" if patients == 0 else "only one patient has it"
            raise UserError(
                f"noise.kinds.{kind}: it is recorded from donors in whom a reader saw it, and of the {len(rows):,} donors that the "
                f"request allows {has}; needed two patients. Leave the kind out, allow more with donor_folds, or take a bank that "
                "says which noise was seen (ecg-batch prepare --ptbxl)"
            )
    return NoisyDonors(bank, found)


def without_holes(texture: np.ndarray, beats: np.ndarray, fs_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """(texture, what of it is faster than GOES_ON_HZ), both (lead, time), its holes filled. beats: R samples (beat,)."""
    fast = texture - low_pass(texture, GOES_ON_HZ, fs_hz)
    hole = as_recorded(texture.shape[-1], beats, fs_hz)
    before, after = mirrored(hole > 0)
    lacks = np.sqrt(1 - np.square(1 - hole))  # powers of what is there and what comes add up to one
    filled = lacks * (before[1] * fast[:, before[0]] + after[1] * fast[:, after[0]])
    return texture + filled, fast + filled


def mirrored(hole: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """For each sample (time,) of a recording with holes, bool (time,): (sample, weight) that stand in for it from before it, and
    from after it. Weights' squares add up to one; at a recording's ends one side has it all. A side goes to and fro in its own gap.
    """
    time = np.arange(len(hole))
    edges = np.flatnonzero(np.diff(np.concatenate([[True], hole, [True]]).astype(np.int8)))
    first, last = edges[::2], edges[1::2] - 1  # of each gap between holes
    if not len(first):
        return (time, np.zeros(len(hole))), (time, np.zeros(len(hole)))
    left = np.searchsorted(first, time, side="right") - 1  # the gap that begins before this sample
    right = np.searchsorted(last, time)  # and the one that ends after it
    has_left, has_right = left >= 0, right < len(last)
    left, right = left.clip(0), right.clip(max=len(last) - 1)
    since, until = (time - last[left]).clip(1), (first[right] - time).clip(1)
    before = last[left] - to_and_fro(since - 1, last[left] - first[left])
    after = first[right] + to_and_fro(until - 1, last[right] - first[right])
    share = np.where(has_left & has_right, until / (since + until), has_left.astype(float))
    return (before, np.sqrt(share)), (after, np.sqrt(1 - share))
