"""Texture of long records by units: other patients' recorded noise in time with every beat, any stretch of a record at a time.

Which unit lies under which beat is drawn once for all beats. Drift goes on apart: pieces of the recorded drift of donors of like
level, joined by crossfades. So a stretch is the same whatever was made before it.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ecg_batch.donors.split import END_S, JOIN_S
from ecg_batch.draws import Stream, generator
from ecg_batch.leads import MV_PER_UV
from ecg_batch.request.model import Request
from ecg_batch.signal.filters import reach
from ecg_batch.signal.noise import to_and_fro
from ecg_batch.synthesis.long.begin import NARROW, LongRecord
from ecg_batch.synthesis.units import DRIFT_LENDERS, Laid, UnitIndex, rest_of

DRIFT_STEP_S, DRIFT_FADE_S = 12.0, 2.0  # a piece of drift begins so long after the one before, and fades in for so long


class UnitStreams:
    """The texture of records that are made together, from their beginning, piece after piece; as texture_stream.TextureStream."""

    def __init__(self, index: UnitIndex, request: Request, record_numbers: np.ndarray, records: Sequence[LongRecord]):
        beats = [len(record.placed.r) for record in records]
        uniforms = np.zeros((len(records), max(beats)))
        for row, number, count in zip(uniforms, record_numbers, beats, strict=True):
            row[:count] = generator(request.seed, int(number), Stream.UNITS).random(count)
        self._index = index
        codes = index.drawn(np.array([record.donor_row for record in records]), uniforms, request.temperature)
        each = zip(record_numbers, records, codes, strict=True)
        self.textures = [UnitTexture(index, request, int(number), record, of_record) for number, record, of_record in each]
        self._margin, self._at = reach(request.lowpass_hz, request.fs_hz), 0

    def windows(self, samples: int) -> Iterator[np.ndarray]:
        """Of each record the next samples, and as many of their neighbours to either side as the low-pass sees: (lead, time) mV."""
        start, stop, self._at = self._at - self._margin, self._at + samples + self._margin, self._at + samples
        return (MV_PER_UV * texture.between(start, stop) for texture in self.textures)

    def rows(self) -> list[tuple[int, ...]]:
        """Of each record the rows of the bank that its texture is from."""
        return [texture.rows for texture in self.textures]

    def of_beats(self, record: int) -> np.ndarray:
        """Of one record the row of the bank that the noise under each placed beat is from: (beat,)."""
        texture = self.textures[record]
        return self._index.units.row[texture.laid.unit]


class UnitTexture:
    """The texture of one record."""

    def __init__(self, index: UnitIndex, request: Request, number: int, record: LongRecord, codes: np.ndarray):
        """codes (beat,), or longer: the code of each beat."""
        self._index, fs_hz, near = index, request.fs_hz, index.lenders(record.donor_row)[:DRIFT_LENDERS]
        r, ordinary = record.placed.r, np.isin(record.donor.symbol[record.placed.source], NARROW)
        self.laid = Laid(r, index.rendered(record.donor_row, codes[: len(r)], ordinary).astype(np.int32))
        self._step, self._fade, self._end = (round(s * fs_hz) for s in (DRIFT_STEP_S, DRIFT_FADE_S, END_S + JOIN_S))
        draws, pieces = generator(request.seed, number, Stream.DRIFT), request.samples // self._step + 3
        self._room = index.bank.texture.shape[-1] - 2 * self._end - 1
        self.piece_row = near[draws.integers(len(near), size=pieces)].astype(np.int32)
        self._piece_first = draws.integers(2 * self._room, size=pieces).astype(np.int32)

    @property
    def rows(self) -> tuple[int, ...]:
        return tuple(int(row) for row in np.union1d(self._index.units.row[self.laid.unit], self.piece_row))

    def between(self, start: int, stop: int) -> np.ndarray:
        """Samples start .. stop - 1, those beside the record too: float64 (lead, time) in microvolts."""
        return self.drift(start, stop) + rest_of(self._index, self.laid, start, stop)

    def drift(self, start: int, stop: int) -> np.ndarray:
        """Piece p begins at (p - 1) * step and is alone but for its first and last `fade`. Of equal power at every time.

        It goes to and fro through a recording, so that what is slowest in ten seconds is there too.
        """
        out = np.zeros((self._index.bank.texture.shape[1], stop - start))
        for piece in range(max((start - self._fade) // self._step + 1, 0), (stop - 1) // self._step + 2):
            begins = (piece - 1) * self._step
            time = np.arange(max(begins, start), min(begins + self._step + self._fade, stop))
            since = time - begins
            ramp = np.minimum(since + 0.5, self._step + self._fade - since - 0.5) / self._fade
            drift = self._index.drift(int(self.piece_row[piece]))
            read = self._end + to_and_fro(self._piece_first[piece] + since, self._room)
            out[:, time - start] += np.sin(np.pi / 2 * np.clip(ramp, 0, 1)) * drift[:, read]
        return out
