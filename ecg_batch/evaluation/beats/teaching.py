"""What teaches beat types: long records of a dataset, copies of the donors, recordings that people marked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecg_batch.dataset.plan import read_plan
from ecg_batch.donors.bank import Bank, read_bank
from ecg_batch.evaluation.beats.classifier import SAID, Taught, kinds_of, together
from ecg_batch.evaluation.beats.features import FEWEST, HZ, at_rate, seen
from ecg_batch.evaluation.beats.recordings import Recording
from ecg_batch.leads import LEADS, MV_PER_UV, twelve_leads
from ecg_batch.progress import track
from ecg_batch.reading.synthetic import OpenDataset, open_dataset
from ecg_batch.rhythm_words import AAMI
from ecg_batch.synthesis.donor_marks import bank_marks

ALWAYS, OFTEN = "II", ("I", "V1", "V5")  # II of each record, and one of these by lot
MOST = 200  # beats of one class of one lead, by lot: a record of bigeminy is one record
COPIED_S = 60.0  # a recording of ten seconds is laid end to end for so long, so that something is usual in it


def leads_by_lot(rng: np.random.Generator) -> tuple[int, int]:
    return LEADS.index(ALWAYS), LEADS.index(str(rng.choice(OFTEN)))


def examples_of(lead: np.ndarray, r: np.ndarray, symbol: np.ndarray, rng: np.random.Generator, counted=slice(None)) -> Taught:
    """Beats of a lead at HZ that are N, S or V, MOST of each at most. counted: those of the beats that may be examples."""
    kind, among = kinds_of(symbol), np.zeros(len(r), bool)
    among[counted] = True
    rows = [np.flatnonzero(among & (kind == one)) for one in range(len(SAID))]
    chosen = np.sort(np.concatenate([rng.permutation(of)[:MOST] for of in rows]))
    return Taught(seen(lead, r).take(chosen), kind[chosen])


def beats_of_record(dataset: OpenDataset, record: int, seconds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(leads float64 (12, time) mV, r (beat,), symbol (beat,)) at HZ of the first seconds of a long record."""
    stop = min(seconds, dataset.duration_s) * dataset.fs_hz
    rows = dataset.beats(record)
    sample, symbol = rows["sample"].to_numpy(), np.array(rows["symbol"].to_pylist())
    kept = np.isin(symbol, list(AAMI)) & (sample < stop)
    ecg = at_rate(dataset.piece(record, 0, stop) * MV_PER_UV, dataset.fs_hz)
    return ecg, np.rint(sample[kept] * (HZ / dataset.fs_hz)).astype(np.int64), symbol[kept]


def synthetic(folder: Path, records: int, seconds: int) -> Taught:
    """The beats of a dataset's long records with the types that it states, two leads each."""
    dataset, parts = open_dataset(folder), []
    for record in track(range(min(records, len(dataset))), "beats", "records"):
        rng = np.random.default_rng([0, record])
        ecg, r, symbol = beats_of_record(dataset, record, seconds)
        if len(r) >= FEWEST:
            parts += [examples_of(ecg[lead], r, symbol, rng) for lead in leads_by_lot(rng)]
    return together(parts)


def copies(folder: Path) -> Taught:
    """The recordings of all donors of the dataset's bank with the types that their statements and shapes give their beats."""
    bank = read_bank(Path(read_plan(folder).request.bank))
    symbols, parts = bank_marks(bank).symbol, []
    for donor in track(range(len(bank.table)), "copies", "donors"):
        rng = np.random.default_rng([1, donor])
        r = bank.beats(donor)[: symbols.shape[1]]
        if len(r) >= 4:
            parts += [copied(bank, donor, r, symbols[donor, : len(r)], lead, rng) for lead in leads_by_lot(rng)]
    return together(parts)


def copied(bank: Bank, donor: int, r: np.ndarray, symbol: np.ndarray, lead: int, rng: np.random.Generator) -> Taught:
    """One lead of a donor's recording, laid end to end from half an RR before its first beat to half an RR after its last one.
    Each beat is an example once.
    """
    ecg = twelve_leads(bank.skeleton[donor].astype(np.float64) + bank.texture[donor])[lead] * MV_PER_UV
    half = round(np.median(np.diff(r)) / 2)
    x = at_rate(ecg[max(r[0] - half, 0) : r[-1] + half], bank.table.fs_hz)
    own = np.rint((r - max(r[0] - half, 0)) * (HZ / bank.table.fs_hz)).astype(np.int64)
    times = max(round(COPIED_S * HZ / len(x)), 3)
    every = (own + len(x) * np.arange(times)[:, None]).ravel()
    middle = len(r) * (times // 2)
    return examples_of(np.tile(x, times), every, np.tile(symbol, times), rng, slice(middle, middle + len(r)))


def marked_by_people(recordings: Sequence[Recording]) -> Taught:
    rng = np.random.default_rng(2)
    return together([examples_of(each.lead, each.r, each.symbol, rng) for each in recordings])
