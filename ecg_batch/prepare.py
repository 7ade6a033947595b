"""From PTB-XL to a bank: measure, reject with reasons, split, balance the classes, write."""

import json
import os
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ecg_batch import bank
from ecg_batch.beats import LEAD_II, agree, detect_beats, detect_leads, heart_rate_bpm
from ecg_batch.delineate import Fiducials, delineate, r_peaks
from ecg_batch.errors import UserError
from ecg_batch.leads import MODELLED, MODELLED_INDEX, MV_PER_STEP, identity_residual
from ecg_batch.loop import find_loop
from ecg_batch.ptbxl import Entry, Release, read_record
from ecg_batch.split import UNLOCKED_ATRIAL, Split, band, split
from ecg_batch.statements import SUPERCLASSES

DONORS = 3336  # the published bank
TRAIN_FOLDS, VALIDATION_FOLD = range(1, 9), 9  # fold 10 is never read
MAX_ECG_UV, MAX_TEXTURE_UV, MAX_BURST_UV = 8000, 2000, 400
BURST_BAND_HZ = (5.0, 40.0)
MAX_IDENTITY_UV = 10  # PTB-XL's own rounding leaves up to 3
FLAT_S = 1.0
XQRS_HZ = 250  # wfdb's XQRS fed 100 Hz directly is wrong half of the time
RARE_HOLDERS = 20  # a statement with fewer holders keeps all of them as donors
MAX_BEATS = 64
RECORD_S = 10  # every PTB-XL record
FIDUCIALS = ("p_on", "qrs_on", "qrs_off", "t_end")
ATTRIBUTION = ("Made from PTB-XL (Wagner, Strodthoff, Bousseljot, Samek, Schaeffter: PTB-XL, a large publicly available "
               "electrocardiography dataset, PhysioNet 2020; Scientific Data 7, 154, 2020), CC BY 4.0")  # fmt: skip


@dataclass(frozen=True)
class Usable:
    """A record that can be a donor: R samples, the fiducials of its typical beat, its loop (samples)."""

    entry: Entry
    hr_bpm: float
    beats: np.ndarray
    fiducials: Fiducials
    loop: tuple[int, int]
    shift_ms: dict[str, float]  # of R, PR, QRS and QT from donor to skeleton


def measure(release: Release, entry: Entry) -> tuple[Usable, Split] | str:
    """Reads, measures and splits one record, or says in a few words why it cannot be used."""
    if not np.isfinite(entry.age) or entry.sex not in (0, 1):
        return "age or sex unknown"
    if not entry.scp_codes:
        return "no SCP statement"
    try:
        ecg = read_record(release, entry)
    except (OSError, ValueError, IndexError) as error:
        return f"unreadable ({type(error).__name__})"
    if ecg.shape[1] != RECORD_S * release.fs_hz:
        return f"not {RECORD_S} s long"
    return signal_fault(ecg, release.fs_hz) or _measured(ecg[list(MODELLED_INDEX)], entry, release.fs_hz)


def signal_fault(ecg: np.ndarray, fs_hz: float) -> str | None:
    """What makes an ECG unusable as it stands, int16 microvolts (12 leads, time), or None."""
    if np.abs(ecg).max() > MAX_ECG_UV:
        return f"amplitude over {MAX_ECG_UV / 1000:g} mV"
    if identity_residual(ecg) > MAX_IDENTITY_UV:
        return "limb leads contradict each other"
    if longest_run(ecg) >= FLAT_S * fs_hz:
        return "a lead is flat for a second or more"
    return None


def longest_run(ecg: np.ndarray) -> int:
    """Samples of the longest stretch without any change in one lead: (lead, time)."""
    changes = np.diff(ecg, axis=1) != 0
    return max(int(np.diff(np.flatnonzero(row), prepend=-1, append=len(row)).max()) for row in changes)


def _measured(modelled: np.ndarray, entry: Entry, fs_hz: int) -> tuple[Usable, Split] | str:
    modelled_mv = modelled * MV_PER_STEP
    by_lead = detect_leads(modelled_mv, fs_hz)
    beats = detect_beats(modelled_mv, fs_hz, by_lead)
    hr_bpm = heart_rate_bpm(beats, fs_hz)
    if len(beats) < 4:
        return "fewer than four beats found"
    if not agree(hr_bpm, heart_rate_bpm(by_lead[LEAD_II], fs_hz)):
        return "heart rate unclear: lead II against eight leads"
    if not agree(hr_bpm, heart_rate_bpm(_xqrs(modelled_mv[LEAD_II], fs_hz), fs_hz)):
        return "heart rate unclear: sleepecg against XQRS"
    parts = split(modelled, beats, fs_hz, keep_atrial=bool(UNLOCKED_ATRIAL & set(entry.scp_codes)))
    typical = parts.beats[parts.types == 0]
    if len(typical) < 3:
        return "no three beats alike"
    if np.abs(parts.texture).max() > MAX_TEXTURE_UV:
        return f"drift or artefact over {MAX_TEXTURE_UV / 1000:g} mV"
    if np.abs(band(parts.texture, BURST_BAND_HZ, fs_hz)).max() > MAX_BURST_UV:
        return f"a beat or artefact over {MAX_BURST_UV / 1000:g} mV that recurs nowhere"
    fiducials = delineate(parts.skeleton, typical, fs_hz)
    loop = find_loop(parts.skeleton, parts.beats, fiducials, fs_hz)
    if loop is None:
        return "no loop of three whole beats"
    return Usable(entry, hr_bpm, parts.beats, fiducials, loop, _shift_ms(modelled, parts, fiducials, fs_hz)), parts


def _shift_ms(modelled: np.ndarray, parts: Split, fiducials: Fiducials, fs_hz: int) -> dict[str, float]:
    """How far R, PR, QRS and QT of the skeleton are from those of the donor, found in the same way."""
    typical = parts.beats[parts.types == 0]
    skeleton, donor = fiducials.intervals_ms(fs_hz), delineate(modelled, typical, fs_hz).intervals_ms(fs_hz)
    r_shift = r_peaks(parts.skeleton, parts.beats, fs_hz) - r_peaks(modelled, parts.beats, fs_hz)
    return {"R": 1000 * float(np.median(np.abs(r_shift))) / fs_hz} | {name: skeleton[name] - donor[name] for name in donor}


def _xqrs(lead_mv: np.ndarray, fs_hz: float) -> np.ndarray:
    """R samples by wfdb's XQRS, which wants 250 Hz."""
    from scipy.signal import resample_poly
    from wfdb.processing import xqrs_detect

    resampled = resample_poly(lead_mv, XQRS_HZ, int(fs_hz))
    return xqrs_detect(resampled, XQRS_HZ, verbose=False) * fs_hz / XQRS_HZ


def measure_all(release: Release, entries: list[Entry], workers: int) -> Iterator[tuple[Usable, Split] | str]:
    """Measures records in parallel, in order, with at most 64 records a worker in flight."""
    from tqdm import tqdm

    bar = tqdm(total=len(entries), desc="measure", unit="record", disable=None)
    lean = Release(release.folder, release.fs_hz, (), (), {})  # what a worker needs, without the tables
    with bar, ProcessPoolExecutor(workers, initializer=_one_thread) as pool:
        waiting: deque = deque()
        for entry in entries:
            waiting.append(pool.submit(measure, lean, entry))
            if len(waiting) >= 64 * workers:
                yield waiting.popleft().result()
                bar.update()
        while waiting:
            yield waiting.popleft().result()
            bar.update()


def _one_thread() -> None:
    """Workers share the cores by process: threads below them would only get in each other's way."""
    import warnings

    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    warnings.simplefilter("ignore")


def balanced(usable: list[Usable], superclass_of: dict[str, str], wanted: int | None) -> list[int]:
    """Indices of the donors: equal shares of the five superclasses, one record a patient first, rare statements kept.

    A record counts for the rarest of its superclasses, since that is what the bank lacks. A class with fewer records than its
    share gives all it has. Without a wish: 3,336, or five times the smallest class where the release cannot fill that.
    """
    holders = Counter(code for one in usable for code in one.entry.scp_codes)
    classes = [{superclass_of[code] for code in one.entry.scp_codes if code in superclass_of} for one in usable]
    sizes = Counter(name for held in classes for name in held)
    home = [min(held, key=lambda name: (sizes[name], name)) if held else "none" for held in classes]
    queues = {name: _order([i for i, at in enumerate(home) if at == name], usable, holders) for name in {*SUPERCLASSES, *home}}
    smallest = min(len(queues[name]) for name in SUPERCLASSES)
    count = wanted or min(DONORS, len(SUPERCLASSES) * smallest)
    shares = _fill({name: len(queue) for name, queue in queues.items()}, count)
    return sorted(index for name, queue in queues.items() for index in queue[: shares[name]])


def _order(indices: list[int], usable: list[Usable], holders: Counter) -> list[int]:
    """Holders of rare statements first, then first records of a patient, then the others; within each by ecg_id."""
    seen: set[int] = set()
    keyed = []
    for index in indices:
        entry = usable[index].entry
        again = entry.patient_id in seen
        seen.add(entry.patient_id)
        rare = min(holders[code] for code in entry.scp_codes) < RARE_HOLDERS
        keyed.append((not rare, again, entry.ecg_id, index))
    return [key[-1] for key in sorted(keyed)]


def _fill(sizes: dict[str, int], count: int) -> dict[str, int]:
    """Shares of `count` as equal as the sizes allow (water-filling), e.g. sizes 2, 9, 9 and 12 give 2, 5, 5."""
    shares, left = {}, count
    for rank, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: (item[1], item[0]))):
        shares[name] = min(size, left // (len(sizes) - rank))
        left -= shares[name]
    return shares


def prepare(release: Release, out: Path, donors: int | None = None, workers: int = 1) -> dict:
    """Makes a bank of `release` in the folder `out` and returns its report. Raises UserError when nothing is usable."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / "donors.zarr").exists():
        raise UserError(f"{out}: holds a bank; datasets may refer to it by its hash. Choose another --out, or delete it first")
    entries = [entry for entry in release.entries if entry.fold in TRAIN_FOLDS or entry.fold == VALIDATION_FOLD]
    reasons: Counter = Counter()
    usable: list[Usable] = []
    # the waveforms wait on disk, (record, [skeleton, texture], lead, time): the release at 500 Hz would not fit in memory
    spool_path = out / f"{os.getpid()}.spool"
    spool = np.memmap(spool_path, np.int16, "w+", shape=(len(entries), 2, len(MODELLED), RECORD_S * release.fs_hz))
    try:
        for result in measure_all(release, entries, workers):
            if isinstance(result, str):
                reasons[result] += 1
                continue
            spool[len(usable)] = result[1].skeleton, result[1].texture
            usable.append(result[0])
        chosen = _chosen(release, usable, reasons, donors)
        report = _write(out, release, usable, chosen, spool) | {"rejected": dict(reasons.most_common())}
    finally:
        spool_path.unlink()
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def _chosen(release: Release, usable: list[Usable], reasons: Counter, donors: int | None) -> list[int]:
    """Rows of the donors among the usable records."""
    training = [row for row, one in enumerate(usable) if one.entry.fold in TRAIN_FOLDS]
    if not training:
        raise UserError(f"{release.folder}: no usable record in folds 1-8, rejected: {dict(reasons)}. Check the download")
    return [training[at] for at in balanced([usable[row] for row in training], release.superclass_of, donors)]


def _write(out: Path, release: Release, usable: list[Usable], chosen: list[int], spool: np.ndarray) -> dict:
    """Writes both groups and returns the report. Textures first: a folder that holds donors.zarr is a whole bank."""
    attributes = {"format": bank.FORMAT, "fs_hz": release.fs_hz, "units": "uV", "leads": list(MODELLED),
                  "codes": list(release.codes), "superclass_of": release.superclass_of, "attribution": ATTRIBUTION}  # fmt: skip
    bank.write_group(out / "textures.zarr", _table(usable, release.codes) | {"texture": spool[: len(usable), 1]}, attributes)
    donors = [usable[row] for row in chosen]
    skeleton, texture = spool[chosen, 0], spool[chosen, 1]
    shapes = {
        "skeleton": skeleton,
        "texture": texture,
        "r_sample": np.stack([_padded(one.beats) for one in donors]),
        "loop_start": np.array([one.loop[0] for one in donors], np.int32),
        "loop_stop": np.array([one.loop[1] for one in donors], np.int32),
    }
    shapes |= {name: np.array([asdict(one.fiducials)[name] for one in donors], np.int32) for name in FIDUCIALS}
    bank.write_group(out / "donors.zarr", _table(donors, release.codes) | shapes, attributes)
    return _report(release, donors, usable) | {"skeleton_rms_uv": _rms(skeleton), "texture_rms_uv": _rms(texture)}


def _table(records: list[Usable], codes: tuple[str, ...]) -> dict[str, np.ndarray]:
    entries = [one.entry for one in records]
    likelihood = np.full((len(records), len(codes)), -1, np.int8)
    for row, entry in zip(likelihood, entries, strict=True):
        for code, percent in entry.scp_codes.items():
            row[codes.index(code)] = round(percent)
    return {
        "ecg_id": np.array([entry.ecg_id for entry in entries], np.int32),
        "patient_id": np.array([entry.patient_id for entry in entries], np.int32),
        "fold": np.array([entry.fold for entry in entries], np.int8),
        "age": np.array([entry.age for entry in entries], np.float32),
        "sex": np.array([entry.sex for entry in entries], np.int8),
        "hr_bpm": np.array([one.hr_bpm for one in records], np.float32),
        "likelihood": likelihood,
    }


def _padded(beats: np.ndarray) -> np.ndarray:
    return np.pad(beats[:MAX_BEATS], (0, max(MAX_BEATS - len(beats), 0)), constant_values=-1).astype(np.int32)


def _rms(waveforms: np.ndarray) -> dict[str, float]:
    """Root mean square by lead: (record, lead, time)."""
    per_lead = np.sqrt([np.square(waveforms[:, lead], dtype=np.float32).mean() for lead in range(len(MODELLED))])
    return {name: round(float(value), 1) for name, value in zip(MODELLED, per_lead, strict=True)}


def _report(release: Release, donors: list[Usable], usable: list[Usable]) -> dict:
    """The one-page report: counts, classes, heart rates."""

    def classes(records: list[Usable]) -> dict[str, int]:
        held = [{release.superclass_of.get(code) for code in one.entry.scp_codes} for one in records]
        return {name: sum(name in of_one for of_one in held) for name in SUPERCLASSES}

    rates = np.percentile([one.hr_bpm for one in donors], [1, 50, 99])
    return {
        "source": ATTRIBUTION,
        "fs_hz": release.fs_hz,
        "usable": len(usable),
        "usable_by_superclass": classes(usable),
        "donors": len(donors),
        "donor_patients": len({one.entry.patient_id for one in donors}),
        "donor_folds": sorted({one.entry.fold for one in donors}),
        "donors_by_superclass": classes(donors),
        "donors_by_statement": dict(Counter(code for one in donors for code in one.entry.scp_codes).most_common()),
        "skeleton_against_donor_ms": _shifts([one.shift_ms for one in usable]),
        "hr_bpm_percentiles_1_50_99": [round(float(rate), 1) for rate in rates],
    }


def _shifts(shifts: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median and 90th percentile of the absolute differences in ms, and how many records had both intervals."""
    report = {}
    for name in shifts[0]:
        absolute = np.abs([shift[name] for shift in shifts])
        known = absolute[~np.isnan(absolute)]
        median, high = np.percentile(known, [50, 90])
        report[name] = {"median": round(float(median), 1), "p90": round(float(high), 1), "records": len(known)}
    return report
