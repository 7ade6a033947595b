"""The cheap rival: the donors' own recordings, as they are, with the marks of their beats and the noise that a request asks for."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecg_batch.dataset.plan import read_plan
from ecg_batch.donors.bank import Bank, read_bank
from ecg_batch.donors.noisy import NoisyDonors
from ecg_batch.errors import UserError
from ecg_batch.evaluation.waves.delineator import Taught
from ecg_batch.evaluation.waves.marked import spans_to_masks
from ecg_batch.leads import MV_PER_UV, twelve_leads
from ecg_batch.reading.synthetic import open_dataset
from ecg_batch.request.model import Request
from ecg_batch.signal.marks import read_marks
from ecg_batch.synthesis.noise import with_noise
from ecg_batch.synthesis.synthesizer import noisy_for

EDGES = ((0, 2), (3, 5), (6, 8))  # of P, QRS and T in signal/marks.MARKS
AT_ONCE = 256


@dataclass(frozen=True)
class Copies:
    """What noise is put over, in the place of a synthesis.batch.Batch."""

    queries: "Numbers"
    ecg: np.ndarray  # int16 (record, 12, time)
    donor_row: np.ndarray  # row in the bank
    skeleton_mv: np.ndarray | None  # float64 (record, 8, time)
    noise: list | None = None


@dataclass(frozen=True)
class Numbers:
    """In the place of synthesis.queries.Queries. key: what draws go by, the record's own number or that of its set."""

    record: np.ndarray
    key: np.ndarray


@dataclass(frozen=True)
class _Asked:
    request: Request
    noisy: NoisyDonors | None


def copies(folder: Path, most: int) -> Taught:
    """Of each record of a dataset, up to `most`, the recording of its donor, with the kinds and ratios of noise of that record."""
    request = read_plan(folder).request
    bank, ecg_id = read_bank(Path(request.bank)), open_dataset(folder).columns(["donor_ecg_id"])["donor_ecg_id"].to_numpy()[:most]
    if bank.wave_ms is None:
        raise UserError(f"{request.bank}: a bank without marks of waves; make it again with ecg-batch prepare")
    row_of = {int(each): row for row, each in enumerate(bank.table.ecg_id)}
    order = np.array([row_of[int(each)] for each in ecg_id])  # rows of the bank
    waves = np.stack([donor_waves(bank, row) for row in order])
    parts = (np.arange(first, min(first + AT_ONCE, len(order))) for first in range(0, len(order), AT_ONCE))
    asked = _Asked(request, noisy_for(request, bank))
    ecg = [noisy(asked, bank, part, order) for part in parts]
    return Taught(np.concatenate(ecg), waves[:, None], request.fs_hz)


def noisy(asked: _Asked, bank: Bank, record: np.ndarray, order: np.ndarray) -> np.ndarray:
    """int16 (record, 12, time)."""
    request = asked.request
    skeleton, texture = bank.skeleton[order[record]], bank.texture[order[record]]
    key = record // request.vary.size if request.vary else record
    copied = Copies(Numbers(record, key), twelve_leads(skeleton + texture), order[record], skeleton * MV_PER_UV)
    return with_noise(asked, copied).ecg if request.noise else copied.ecg


def donor_waves(bank: Bank, row: int) -> np.ndarray:
    """Where P, QRS and T of a donor's recording are: uint8 (3, time)."""
    r, fs_hz = bank.beats(row), bank.table.fs_hz
    marks_s = r[:, None] / fs_hz + read_marks(bank.wave_ms[row, : len(r)]) / 1000  # (beat, mark)
    on_s, end_s = (marks_s[:, [edge[side] for edge in EDGES]].T for side in (0, 1))
    return spans_to_masks(on_s, end_s, bank.skeleton.shape[-1], fs_hz)
