"""Can a classifier tell where a lent beat was joined? python -m benchmarks.joints [--bank BANK] [--only KIND].

Records with events: each joint beside a beat that another patient lent, or that got another P wave, is held against a place of the
same donor where nothing was joined, in an interval alike (as in benchmarks.splices: TP and ST-T as long within 20 ms, as far along
TP). For ventricular beats that is beside the donor's own ventricular beats, which bring their own neighbours in its records without
events: as recorded, but for time. For the others it is between the donor's own beats that did follow each other.

unchanged: the same without what is done to a lent beat's shape (width, axis, versions), which is no matter of joints.
skeletons: without texture, nothing hides anything. records: as they are delivered. recordings: the rival is the donor's recording
of ten seconds itself, noise and all, with its own ectopic beats.
"""

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from tqdm import tqdm

from benchmarks.noise import opened
from benchmarks.splices import features, held_out, matched
from ecg_batch.bundled import BUNDLED
from ecg_batch.leads import to_uv, twelve_leads
from ecg_batch.synthesis.compose import compose
from ecg_batch.synthesis.long.begin import _with_donor
from ecg_batch.synthesis.long.donor import TooFewBeats, single_beats
from ecg_batch.synthesis.long.events import stock
from ecg_batch.synthesis.long.events.stock import HOST
from ecg_batch.synthesis.long.filtered import filtered_with
from ecg_batch.synthesis.long.stitch import Interval, intervals
from ecg_batch.synthesis.long.unit_stream import UnitStreams
from ecg_batch.synthesis.synthesizer import Synthesizer

ENDS, FEWEST, MOST = 1000, 3, 12  # samples at a record's ends that are left out; pairs of a donor
KEYS, SECONDS, DRAWN = 3, 600, 500  # records of a donor, with others' beats each; resamplings of the donors
SIDES = [(side, what) for side in ("before", "after") for what in ("skeletons", "records")]
UNCHANGED = {"GAIN_SD": 0.0, "WIDTH_SD": 0.0, "TURN_SD_DEG": 0.0, "TURN_LIMIT_DEG": 0.0, "WIDTH_LIMITS": (1.0, 1.0)}
OFTEN = {"per_hour": 300, "share": 1.0}
ASKED = {  # symbol of the beats, of the rival's, and the events
    "ventricular": ("V", "V", {"v_beat": OFTEN}),
    "ventricular, unchanged": ("V", "V", {"v_beat": OFTEN}),
    "premature": ("A", "N", {"sv_beat": OFTEN}),
    "fusion": ("F", "N", {"fusion_beat": OFTEN}),
    "paced": ("/", "N", {"pacing": {"per_hour": 60, "share": 1.0, "length": 3}}),
    "bundle branch block": ("B", "N", {"branch_block": {"per_hour": 60, "share": 1.0, "length": 2}}),
}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, default=BUNDLED)
    parser.add_argument("--only", choices=ASKED, nargs="+", default=list(ASKED))
    parser.add_argument("--donors", type=int, default=150, help="so many at most")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each record")
    arguments = parser.parse_args(words)
    print("| beats | joint | in | donors | windows of each kind | AUC (95 % by donor) |\n|---|---|---|---|---|---|")
    for kind in arguments.only:
        made = list(of_donors(arguments.bank, kind, arguments.donors, arguments.seconds))
        for side, what in SIDES:
            print(f"| {kind} | {side} | {what} | {told([each[side, what] for each in made if (side, what) in each])} |", flush=True)


@dataclass
class Made:
    """A record's skeleton alone and as delivered, int (12, time) uV; its intervals; of the two beats of each the symbols and which
    are lent, (2, interval).
    """

    ecg: dict[str, np.ndarray]
    interval: Interval
    symbol: np.ndarray
    lent: np.ndarray


def windows(joined: list[Made], plain: Made, symbols: tuple[str, str], fs_hz: int) -> dict:
    """(before or after, in what) -> windows about joints of one donor and about places without one, (place, feature) each."""
    found = {}
    for side, what in SIDES:
        place = ("after", "before").index(side)
        rivals = np.flatnonzero(natural(plain) & beside(plain, place, symbols[1]))
        each = []
        for one in joined:
            at = beside(one, place, symbols[0]) & (one.lent[place] | (symbols[0] == "F")) & ~natural(one)
            places = matched(one.interval, np.flatnonzero(at), plain.interval, rivals, fs_hz, MOST // KEYS)
            if len(places[0]):
                each.append([features(of.ecg[what], here) for of, here in zip((one, plain), places, strict=True)])
        if sum(len(first) for first, _ in each) >= FEWEST:
            found[side, what] = [np.concatenate(kind).astype(np.float32) for kind in zip(*each, strict=True)]
    return found


def natural(one: Made) -> np.ndarray:
    """Which intervals are as recorded, (interval,)."""
    return one.interval.donor_out == one.interval.donor_in


def beside(one: Made, place: int, symbol: str) -> np.ndarray:
    """Which intervals, away from the record's ends, are between such a beat and a normal one."""
    i, length = one.interval, one.ecg["skeletons"].shape[1]
    inside = (i.start > ENDS) & (i.start < length - ENDS)
    return inside & (one.symbol[place] == symbol) & (one.symbol[1 - place] == "N")


def told(pairs: list) -> str:
    """donors | windows | AUC (interval)."""
    from sklearn.metrics import roc_auc_score

    if len(pairs) < 5:
        return f"{len(pairs)} | | too few"
    x = np.concatenate([np.concatenate(each) for each in pairs])
    y = np.concatenate([np.repeat([1, 0], len(each[0])) for each in pairs])
    donor = np.repeat(np.arange(len(pairs)), [2 * len(each[0]) for each in pairs])
    score, rng = held_out(x, y, donor), np.random.default_rng(0)
    of = [np.flatnonzero(donor == one) for one in range(len(pairs))]
    drawn = [np.concatenate([of[one] for one in rng.integers(len(of), size=len(of))]) for _ in range(DRAWN)]
    low, high = np.quantile([roc_auc_score(y[at], score[at]) for at in drawn], (0.025, 0.975))
    return f"{len(pairs)} | {y.sum():,} | {roc_auc_score(y, score):.3f} ({low:.3f} to {high:.3f})"


def of_donors(bank: Path, kind: str, most: int, seconds: int):
    """windows() of each donor that has the rival."""
    ours, theirs, events = ASKED[kind]
    asked = {"records": 1, "duration_s": seconds, "seed": 5, "bank": str(bank), "mix": {"labels": {"NORM": 1.0}}}
    synthesizer, _ = opened(asked | {"events": events})
    without = replace(synthesizer, request=opened(asked)[0].request)
    found = 0
    for row in tqdm(synthesizer.donors.rows.tolist(), desc=kind, disable=None):
        try:
            donor = single_beats(synthesizer.bank, row)
        except TooFewBeats:
            continue
        fit = not donor.ectopic_spliced and theirs in donor.ectopic if theirs != "N" else not donor.ectopic and row % 10 == 0
        if not fit or donor.atrial is not None or found >= most:
            continue
        found += 1
        with patch.multiple(stock, **UNCHANGED) if "unchanged" in kind else nullcontext():
            joined = [made(synthesizer, row, KEYS * row + key) for key in range(KEYS)]
        yield windows(joined, made(without, row, KEYS * row), (ours, theirs), donor.fs_hz)


def made(synthesizer: Synthesizer, row: int, key: int) -> Made:
    record, request = _with_donor(synthesizer, row, key, float(synthesizer.bank.table.hr_bpm[row])), synthesizer.request
    stream = UnitStreams(synthesizer.units, request, np.array([key]), [record])
    skeleton, texture = filtered_with(next(iter(stream.windows(request.samples))), record.skeleton, 0, request.samples, request)
    whole = compose(skeleton[None], texture[None], request.alpha, request.prd_limit_pct).ecg_uv[0]
    interval = intervals(record.donor, record.placed, np.arange(len(record.placed.r) - 1))
    beats = np.stack([interval.before, interval.after])
    lent = np.zeros(beats.shape, bool) if record.lent is None else record.lent[beats] != HOST
    return Made({"skeletons": twelve_leads(to_uv(skeleton)), "records": whole}, interval, record.donor.symbol[beats], lent)


if __name__ == "__main__":
    main()
