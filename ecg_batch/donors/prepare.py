"""From PTB-XL to a bank: records are measured (measure.py), losses counted by reason, donors chosen (choose.py), all written."""

import errno
import logging
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

from ecg_batch.donors import bank
from ecg_batch.donors.choose import DONORS, balanced
from ecg_batch.donors.measure import MAX_BEATS, TOO_SMALL, Usable, entry_fault, measure
from ecg_batch.donors.ptbxl import PTBXL, SAME_SIGNAL, Entry, Release, counted, digest_of, read_stretches
from ecg_batch.donors.recording import Unreadable
from ecg_batch.donors.sources import LAST_ECG_ID
from ecg_batch.donors.split import Split
from ecg_batch.donors.spool import DISK_FULL, Spool, Textures, reserve
from ecg_batch.donors.symbols import symbols_of
from ecg_batch.donors.trace import Traces, trace_of
from ecg_batch.errors import UserError, clipped
from ecg_batch.files import to_json
from ecg_batch.leads import MODELLED
from ecg_batch.pool import pool_of
from ecg_batch.progress import progress
from ecg_batch.statements import NOISE_KINDS, SUPERCLASSES

TRAIN_FOLDS, VALIDATION_FOLD, TEST_FOLD = range(1, 9), 9, 10  # of fold 10 only digests are taken
ENOUGH_TO_JUDGE = 20  # records, before a fault that most of them share is said to be the release's at once
FEW = 2  # records that can be odd by themselves: of real ones fewer than one in 2,000 is so small
SAME_AS_TESTED = f"the same signal as a record of fold {TEST_FOLD}"
FIDUCIALS = ("p_on", "qrs_on", "qrs_off", "t_end")
ATTRIBUTION = (f"{bank.PTBXL} (Wagner, Strodthoff, Bousseljot, Samek, Schaeffter: PTB-XL, a large publicly available "
               "electrocardiography dataset, PhysioNet 2020; Scientific Data 7, 154, 2020), CC BY 4.0")  # fmt: skip

log = logging.getLogger(__name__)


def measure_all(release: Release, entries: list[Entry], pool: Executor, workers: int) -> Iterator[tuple[Usable, Split] | str]:
    """Measures records in parallel, in order."""
    return _in_parallel(measure, release, entries, pool, workers, "measure")


class Signals:
    """Recordings that were there before: by their samples, and where there are several registries by their shape as well."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()
        self._traces = Traces()

    def add(self, digest: bytes, trace: np.ndarray | None) -> None:
        self._digests.add(digest)
        if trace is not None:
            self._traces.add(trace)

    def hold(self, one: Usable) -> bool:
        return one.digest in self._digests or (one.trace is not None and self._traces.hold(one.trace))


def signals_tested(release: Release, pool: Executor, workers: int) -> Signals:
    """The recordings of fold 10. Whoever learns from one of them under another id knows what it is tested on."""
    entries = [entry for entry in release.entries if entry.fold == TEST_FOLD]
    tested = Signals()
    for signals in _in_parallel(_signals, release, entries, pool, workers, f"fold {TEST_FOLD}"):
        for digest, trace in signals:
            tested.add(digest, trace)
    return tested


def _signals(release: Release, entry: Entry) -> list[tuple[bytes, np.ndarray | None]]:
    try:
        stretches = [ecg for _, ecg in read_stretches(release, entry)]
    except Unreadable:
        return []
    return [(digest_of(ecg), trace_of(ecg, release.fs_hz) if release.folders else None) for ecg in stretches]


def _in_parallel(work: Callable, release: Release, entries: list[Entry], pool: Executor, workers: int, what: str) -> Iterator:
    """work(release, entry) of each in order, with at most 64 records a worker in flight."""
    lean = Release(release.folder, release.fs_hz, (), (), {}, folders=release.folders)  # what a worker needs, without the tables
    waiting: deque = deque()
    with progress(len(entries), what, "records") as shown:
        for entry in entries:
            waiting.append(pool.submit(work, lean, entry))
            if len(waiting) >= 64 * workers:
                yield waiting.popleft().result()
                shown.update()
        while waiting:
            yield waiting.popleft().result()
            shown.update()


def prepare(release: Release, out: Path, donors: int | None = None, workers: int = 1) -> dict:
    """Makes a bank of `release` in the folder `out` and returns its report.

    Raises UserError when nothing is usable, `out` holds a bank, or the disk is full. A run that ends early leaves nothing that
    keeps the next from beginning.
    """
    for name, value in (("donors", donors), ("workers", workers)):
        if value is not None and (type(value) is not int or value < 1):
            raise UserError(f"{name} is {value!r:.50}; needed a whole number from 1")
    entries = _wanted(release)
    with _disk_full_in_words(out):
        _clear(out)
        return _prepare(release, entries, out, donors, workers)


def _wanted(release: Release) -> list[Entry]:
    """The entries to measure. UserError where no measuring could make a bank of them, a warning where it will lack something."""
    entries = [entry for entry in release.entries if entry.fold in TRAIN_FOLDS or entry.fold == VALIDATION_FOLD]
    fit = [entry for entry in entries if entry.fold in TRAIN_FOLDS and not entry_fault(entry)]
    if not fit:
        faults = counted(Counter(entry_fault(entry) or "fold 9" for entry in entries)) or "fold 10"
        raise UserError(f"{release.named}: no record of folds 1-8 with age, sex and a statement, which donors are taken from, "
                        f"among {len(release.entries)} at {release.fs_hz} Hz: {faults}. Check the download")  # fmt: skip
    if not any(entry.fold == VALIDATION_FOLD for entry in entries):
        log.warning("%s: no record of fold %d, so models cannot be trained on this bank", release.named, VALIDATION_FOLD)
    held = {release.superclass_of.get(code) for entry in fit for code in entry.scp_codes}
    if absent := [name for name in SUPERCLASSES if name not in held]:
        log.warning("%s: no record of folds 1-8 holds %s, so no donor will", release.named, ", ".join(absent))
    return entries


@contextmanager
def _disk_full_in_words(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(f"{out}: the disk is full ({error.strerror}). Make room, or give another --out, and run it again; "
                            "nothing of this bank is left") from error  # fmt: skip
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
            raise UserError(f"{out}: cannot be written: {error.strerror}. Give an --out that you may write to") from error
        raise


def _clear(out: Path) -> None:
    """Makes the folder, without what runs left there that were killed. UserError where it holds a bank."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / "donors.zarr").exists():
        raise UserError(f"{out}: holds a bank; datasets may refer to it by its hash. Choose another --out, or delete it first")
    if (out / "textures.zarr").exists():
        bank.remove_left_behind(out / "textures.zarr")
    for path in out.iterdir():
        if (found := re.fullmatch(r"([0-9]+)\.spool", path.name)) and not _is_running(int(found[1])):
            path.unlink()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _prepare(release: Release, entries: list[Entry], out: Path, donors: int | None, workers: int) -> dict:
    with TemporaryFile(dir=out) as file:  # without a name: it goes with the process, however that ends
        spool = Spool(file, release.fs_hz)
        reserve(file, len(entries) * 2 * spool.bytes)
        split_up, lost = _split_up(release, entries, workers, spool)
        reasons = Counter(release.rejected) + lost.total
        chosen = _chosen(release, split_up, reasons, donors)
        report = _report(release, [split_up[row] for row in chosen], [one for one in split_up if not one.unfit])
        report |= {"textures": len(split_up), "statements": _holders(entries, lost)}
        if release.folders:
            report |= _by_source(release, entries, split_up, chosen, lost)
        report |= {f"{name}_rms_uv": _rms(spool.read(chosen, part)) for part, name in enumerate(("skeleton", "texture"))}
        report |= {"rejected": dict(reasons.most_common())}
        (out / "report.json").write_bytes(to_json(report))
        try:
            _write(out, release, split_up, chosen, spool)
        except BaseException:
            (out / "report.json").unlink()
            raise
    return report


@dataclass
class Lost:
    """How many records are no donors, by reason, and of each statement's holders and each source's records."""

    total: Counter
    of_statement: dict[str, Counter]
    of_source: dict[str, Counter]

    def add(self, entry: Entry, reason: str) -> None:
        self.total[reason] += 1
        self.of_source.setdefault(entry.source, Counter())[reason] += 1
        for code in entry.scp_codes:
            self.of_statement.setdefault(code, Counter())[reason] += 1


def _split_up(release: Release, entries: list[Entry], workers: int, spool: Spool) -> tuple[list[Usable], Lost]:
    """The records whose texture is known, also those that are unfit as donors; their waveforms go into `spool`."""
    lost = Lost(Counter(), {}, {})
    usable: Counter = Counter()  # of each source
    split_up: list[Usable] = []
    seen = Signals()
    with pool_of(workers) as pool:
        tested = signals_tested(release, pool, workers)
        for entry, result in zip(entries, measure_all(release, entries, pool, workers), strict=True):
            if not isinstance(result, str):
                again = {SAME_AS_TESTED: tested, SAME_SIGNAL: seen}
                result = next((why for why, signals in again.items() if signals.hold(result[0])), result)
            if isinstance(result, str):
                lost.add(entry, result)
                if result == TOO_SMALL and lost.of_source[entry.source][TOO_SMALL] >= ENOUGH_TO_JUDGE:
                    _refuse_wrong_scale(release, entry.source, lost, usable)
                continue
            if result[0].unfit:
                lost.add(entry, result[0].unfit)
            seen.add(result[0].digest, result[0].trace)
            spool.write(len(split_up), result[1])
            split_up.append(result[0])
            usable[entry.source] += 1
    for source in lost.of_source:
        _refuse_wrong_scale(release, source, lost, usable)
    return split_up, lost


def _holders(entries: list[Entry], lost: Lost) -> dict[str, dict]:
    """Of each statement how many records hold it, how many of them can be donors, and why the others cannot; rarest first."""
    holders = Counter(code for entry in entries for code in entry.scp_codes)
    report = {}
    for code, count in sorted(holders.items(), key=lambda item: (item[1], item[0])):
        reasons = lost.of_statement.get(code, Counter())
        report[code] = {"holders": count, "usable": count - reasons.total(), "lost": dict(reasons.most_common())}
        if 2 * reasons.total() > count:
            log.warning("%s: %d of its %d holders cannot be donors: %s", code, reasons.total(), count, counted(reasons))
    return report


def _by_source(release: Release, entries: list[Entry], usable: list[Usable], chosen: list[int], lost: Lost) -> dict:
    """Of each source how many records were there, could be donors and are, and why not; and the codes that mean no statement."""
    of_all, measured = Counter(one.source for one in release.entries), Counter(one.source for one in entries)
    of_usable = Counter(one.entry.source for one in usable if not one.unfit)
    donors = Counter(usable[row].entry.source for row in chosen)
    sources = {
        name: {"records": count, "of_fold_10": count - measured[name], "usable": of_usable[name], "donors": donors[name],
               "rejected": dict(lost.of_source.get(name, Counter()).most_common())}
        for name, count in of_all.items()
    }  # fmt: skip
    return {"sources": sources, "snomed_ct_without_statement": release.unmapped}


def _refuse_wrong_scale(release: Release, source: str, lost: Lost, usable_of: Counter) -> None:
    too_small, usable = lost.of_source[source][TOO_SMALL], usable_of[source]
    if too_small > max(usable, FEW):
        where = f"{release.named}: of {source} {too_small}" if release.folders else f"{release.folder}: {too_small}"
        raise UserError(f"{where} records have a {TOO_SMALL}, {usable} could be used so far. Real ones have "
                        "about 2 mV, so the gain in these headers is not that of the samples. Fetch them again")  # fmt: skip


def _chosen(release: Release, usable: list[Usable], reasons: Counter, donors: int | None) -> list[int]:
    """Rows of the donors among the records."""
    training = [row for row, one in enumerate(usable) if one.entry.fold in TRAIN_FOLDS and not one.unfit]
    if not training:
        raise UserError(f"{release.named}: no usable record in folds 1-8, rejected: {counted(reasons)}. Check the download")
    chosen = [training[at] for at in balanced([usable[row] for row in training], release.superclass_of, donors)]
    if len(chosen) < (donors or min(DONORS, len(training) // 2)):
        asked = f"{donors} were asked for" if donors else "superclasses have equal shares; --donors N takes more"
        log.warning("%d donors of %d usable records of folds 1-8: %s", len(chosen), len(training), asked)
    return chosen


def _write(out: Path, release: Release, usable: list[Usable], chosen: list[int], spool: Spool) -> None:
    """Writes both groups, which appear together; textures first: a folder that holds donors.zarr is a whole bank."""
    attributes = {"format": bank.FORMAT, "fs_hz": release.fs_hz, "units": "uV", "leads": list(MODELLED),
                  "codes": list(release.codes), "superclass_of": release.superclass_of, "noise_kinds": list(NOISE_KINDS),
                  "attribution": _source(release)}  # fmt: skip
    held = {one.source for one in release.entries} if release.folders else set()
    sources = tuple(sorted(held, key=lambda name: (name != PTBXL, name)))
    attributes |= {"sources": list(sources)} if sources else {}
    donors = [usable[row] for row in chosen]
    shapes = {
        "skeleton": spool.read(chosen, 0),
        "texture": spool.read(chosen, 1),
        "r_sample": np.stack([_padded(one.beats) for one in donors]),
        "beat_type": np.stack([_padded(one.types) for one in donors]).astype(np.int8),
        bank.WAVES: np.stack([one.wave_ms for one in donors]),
        "loop_start": np.array([one.loop[0] for one in donors], np.int32),
        "loop_stop": np.array([one.loop[1] for one in donors], np.int32),
    }
    shapes |= {name: np.array([asdict(one.fiducials)[name] for one in donors], np.int32) for name in FIDUCIALS}
    learnt = {"unit_level": np.stack([one.unit_level for one in usable]), "noise": _noise(usable)}
    shapes |= {name: values[chosen] for name, values in learnt.items()}
    textures = _table(usable, release.codes, sources) | learnt | {"texture": Textures(spool, len(usable))}
    textures |= _rhythms(usable, release.codes, textures["likelihood"])
    donors_group = _table(donors, release.codes, sources) | shapes
    bank.write_groups({out / "textures.zarr": textures, out / "donors.zarr": donors_group}, attributes)


def _rhythms(usable: list[Usable], codes: tuple[str, ...], likelihood: np.ndarray) -> dict[str, np.ndarray]:
    """Where the beats of each record are and which: r_sample int32 (record, beat), -1 no more beats; beat_symbol uint8, the letter
    of N, V or A, Q of a beat that is neither, 0 no more beats.
    """
    r, types = (np.stack([_padded(getattr(one, name)) for one in usable]) for name in ("beats", "types"))
    symbol = symbols_of(codes, likelihood, r, types)
    letter = np.select([symbol == name for name in "NVA"], [ord(name) for name in "NVA"], ord("Q"))
    return {"r_sample": r, "beat_symbol": np.where(r >= 0, letter, 0).astype(np.uint8)}


def _source(release: Release) -> str:
    """Whom the recordings are from: PTB-XL where each has a number that PTB-XL has, and the name that PTB-XL gives it."""
    if release.folders:
        others = sorted({one.source for one in release.entries} - {PTBXL})
        own = [one for one in release.entries if one.source == PTBXL]
        first = [_source(replace(release, entries=tuple(own), folders=())).replace("Made from ", "")] if own else []
        named = ", ".join([*first, *(f"the folder {ascii(name)[1:-1]}" for name in others)])
        return clipped(f"Made from recordings of {named}; the licence of each is its own", bank.MOST_ATTRIBUTION - 50)
    folder, end = {100: ("records100", "lr"), 500: ("records500", "hr")}[release.fs_hz]
    numbers = {entry.ecg_id: entry.path for entry in release.entries}
    if max(numbers) <= LAST_ECG_ID and all(f"{folder}/{n // 1000:02d}000/{n:05d}_{end}" == path for n, path in numbers.items()):
        return ATTRIBUTION
    return f"{bank.UNKNOWN_SOURCE} in the layout of PTB-XL, in a folder named {ascii(release.folder.resolve().name):.100}"


def _noise(records: list[Usable]) -> np.ndarray:
    """Which kinds of noise a reader saw in which leads, uint8 (record, kind, lead): statements.NOISE_KINDS, leads.MODELLED."""
    noise = np.zeros((len(records), len(NOISE_KINDS), len(MODELLED)), np.uint8)
    for row, one in zip(noise, records, strict=True):
        for kind, leads in one.entry.noise.items():
            row[NOISE_KINDS.index(kind), [MODELLED.index(lead) for lead in leads]] = 1
    return noise


def _table(records: list[Usable], codes: tuple[str, ...], sources: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Columns of the bank's table. sources: all that there are, where it is not PTB-XL alone."""
    entries = [one.entry for one in records]
    likelihood = np.full((len(records), len(codes)), -1, np.int8)
    for row, entry in zip(likelihood, entries, strict=True):
        for code, percent in entry.scp_codes.items():
            row[codes.index(code)] = round(percent)
    named = {
        "source": np.array([sources.index(entry.source) for entry in entries], np.int16),
        "record": bank.as_bytes([entry.path for entry in entries]),
        "start_s": np.array([one.start_s for one in records], np.float32),
    } if sources else {}  # fmt: skip
    return named | {
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
        "source": _source(release),
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
        median, high = (round(float(value), 1) for value in np.percentile(known, [50, 90])) if len(known) else (None, None)
        report[name] = {"median": median, "p90": high, "records": len(known)}
    return report
