"""Can a classifier tell where beats were joined? python -m benchmarks.splices [--bank BANK] for splices beside ectopic beats.

An ectopic beat brings its neighbours, so most have no splice beside them: only those whose neighbour was cut off in the donor, or
where two ectopic beats share one. Skeletons alone, no texture hides anything. Each splice is held against a place of the same
donor where the beats did follow each other, in an interval alike: TP and ST-T as long within 20 ms. Of a donor often one such pair
of beats exists, so chance is wide: the same is repeated with the two kinds exchanged in a random half of the donors.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.bank import read_bank
from ecg_batch.draws import Stream, generator
from ecg_batch.leads import MODELLED_INDEX, to_uv, twelve_leads
from ecg_batch.request.rhythm_parameters import RhythmParameters
from ecg_batch.signal.filters import low_pass
from ecg_batch.synthesis.long.donor import LongDonor, TooFewBeats, long_donor
from ecg_batch.synthesis.long.rhythm import DonorRhythm, make_rhythm
from ecg_batch.synthesis.long.stitch import Interval, intervals, place, stitch

HALF = 15  # samples to either side of a splice that a classifier sees
ENDS_S = 20
ALIKE_S = 0.02
FEWEST, MOST = 5, 25  # pairs of a donor


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, default=BUNDLED)
    parser.add_argument("--donors", type=int, help="so many at most (default: all with ectopic beats)")
    parser.add_argument("--minutes", type=int, default=40, help="of each donor")
    parser.add_argument("--exchanges", type=int, default=10, help="of the two kinds, to see what chance does")
    arguments = parser.parse_args(words)
    made = list(islice(skeletons(arguments.bank, 60 * arguments.minutes), arguments.donors))
    print(
        "| donors | | ectopic beats | with a splice | donors with some | AUC of splices, donors, windows of each kind | by chance |"
    )
    print("|---|---|---|---|---|---|---|")
    for kind, chosen in (
        ("whole neighbours", [one for one in made if not one.ectopic_spliced]),
        ("no whole neighbours", [one for one in made if one.ectopic_spliced]),
        ("all", made),
    ):
        if not chosen:
            continue
        for name, second in (("before", 1), ("after", 0)):
            beside = [one.ectopic[second] for one in chosen]
            joined = [one.is_seam & at for one, at in zip(chosen, beside, strict=True)]
            total, some = sum(at.sum() for at in beside), sum(at.sum() for at in joined)
            share = f"{some / total:.0%} | {sum(at.any() for at in joined)} of {len(chosen)}"
            pairs = [(one, *alike(one, at)) for one, at in zip(chosen, beside, strict=True)]
            pairs = [each for each in pairs if len(each[1]) >= FEWEST]
            told = told_from_alike(pairs, arguments.exchanges) if len(pairs) > 1 else "too few | "
            print(f"| {kind} | {name} | {total:,} | {share} | {told} |", flush=True)


def told_from_alike(pairs: list[tuple["Skeleton", np.ndarray, np.ndarray]], exchanges: int) -> str:
    x = np.concatenate([features(one.ecg, np.concatenate(places)) for one, *places in pairs])
    y = np.concatenate([np.repeat([1, 0], len(splices)) for _, splices, _ in pairs])
    donor = np.repeat(np.arange(len(pairs)), [2 * len(splices) for _, splices, _ in pairs])
    rng = np.random.default_rng(0)
    exchanged = [y ^ rng.integers(0, 2, len(pairs))[donor] for _ in range(exchanges)]
    chance = [cross_validated(x, other, donor) for other in tqdm(exchanged, desc="by chance", disable=None)]
    auc, low, high = cross_validated(x, y, donor), min(chance), max(chance)
    return f"{auc:.3f}, {len(pairs)}, {y.sum():,} | {low:.3f} to {high:.3f}"


@dataclass
class Skeleton:
    """A donor's skeleton without texture: ecg int (12, time) uV. Over intervals: is_seam; ectopic, of its first and second beat.
    ectopic_spliced: as in LongDonor.
    """

    ecg: np.ndarray
    interval: Interval
    is_seam: np.ndarray
    ectopic: tuple[np.ndarray, np.ndarray]
    ectopic_spliced: bool
    fs_hz: int


def skeletons(bank_path: Path, seconds: int) -> Iterator[Skeleton]:
    """Of each donor that has ectopic beats, at its own rate."""
    bank = read_bank(bank_path)
    for row in tqdm(range(len(bank.table)), desc="donors", disable=None):
        try:
            donor = long_donor(bank, row)
        except TooFewBeats:
            continue
        if donor.ectopic:
            yield _skeleton(donor, float(bank.table.hr_bpm[row]), row, seconds)


def _skeleton(donor: LongDonor, hr_bpm: float, seed: int, seconds: int = 2400) -> Skeleton:
    allowed = DonorRhythm(hr_bpm, "AFIB" in donor.codes, donor.ectopic)
    rhythm = make_rhythm(RhythmParameters(), allowed, hr_bpm, seconds, generator(0, seed, Stream.LONG_RHYTHM))
    samples, drawn = seconds * donor.fs_hz, generator(0, seed, Stream.LONG_BEATS)
    placed = place(donor, rhythm.r_s, rhythm.symbol, rhythm.qt_rr_s, samples, drawn)
    interval = intervals(donor, placed, np.arange(len(placed.r) - 1))
    ecg = twelve_leads(to_uv(low_pass(stitch(donor, placed, 0, samples) / 1000, 40, donor.fs_hz)))
    ectopic = tuple(donor.symbol[beats] != "N" for beats in (interval.before, interval.after))
    return Skeleton(ecg, interval, interval.donor_out != interval.donor_in, ectopic, donor.ectopic_spliced, donor.fs_hz)


def alike(one: Skeleton, beside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(splices, places without one in intervals alike, as far along TP), samples, in pairs."""
    i, ends = one.interval, ENDS_S * one.fs_hz
    clear = beside & (i.start > ends) & (i.start < one.ecg.shape[1] - ends)
    return matched(i, np.flatnonzero(clear & one.is_seam), i, np.flatnonzero(clear & ~one.is_seam), one.fs_hz)


def matched(
    i: Interval, joined: np.ndarray, other: Interval, plain: np.ndarray, fs_hz: int, most: int = MOST
) -> tuple[np.ndarray, np.ndarray]:
    """(splices of these intervals, places as far along TP in intervals of the other that are alike), samples, in pairs."""
    lengths, others = (np.stack([one.p_on - one.t_end, one.t_end - one.qrs_off], axis=1) for one in (i, other))
    apart = np.abs(lengths[joined][:, None] - others[plain]).max(axis=-1) if len(plain) else np.full((len(joined), 1), np.inf)
    pairs = []
    for row in np.argsort(apart.min(axis=1), kind="stable"):
        at = int(apart[row].argmin())
        if apart[row, at] <= ALIKE_S * fs_hz and len(pairs) < most:
            pairs.append((joined[row], plain[at]))
            apart[:, at] = np.inf  # each place once
    first, second = np.array(pairs, int).reshape(-1, 2).T
    along = (i.splice - i.t_end)[first] / np.maximum(i.p_on - i.t_end, 1e-6)[first]
    splices = i.start[first] + i.splice[first]
    return np.rint(splices).astype(int), np.rint(other.start[second] + other.t_end[second] + along * others[second, 0]).astype(int)


# Any splices -----------------------------------------------------------------------------------------------------------


def unspliced(one, kind: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Places where nothing was joined, since the beats follow each other in the donor: as far along TP as the splices are."""
    i = one.interval
    along = (i.splice - i.t_end) / (i.p_on - i.t_end)
    plain = np.flatnonzero(~one.is_seam & kind)
    if not len(plain) or not (one.is_seam & kind).any():
        return np.empty(0, int)
    share = chance.choice(along[one.is_seam & kind], len(plain))
    return np.rint(i.start[plain] + i.t_end[plain] + share * (i.p_on - i.t_end)[plain]).astype(int)


def told_apart(places: list, chance: np.random.Generator, most: int = 400) -> tuple[float, int]:
    x, y, group = [], [], []
    for number, (one, seam, plain) in enumerate(places):
        if plain is None:
            plain = chance.integers(2000, one.ecg.shape[1] - 2000, size=len(seam))
        seam, plain = (at[(at > 1000) & (at < one.ecg.shape[1] - 1000)] for at in (seam, plain))
        count = min(len(seam), len(plain), most)  # as many of each kind from each record
        for kind, at in ((1, seam), (0, plain)):
            x.append(features(one.ecg, chance.choice(at, count, replace=False)))
            y.append(np.full(count, kind))
            group.append(np.full(count, number))
    x, y, group = np.concatenate(x), np.concatenate(y), np.concatenate(group)
    return cross_validated(x, y, group), int(y.sum())


def cross_validated(x: np.ndarray, y: np.ndarray, group: np.ndarray) -> float:
    """AUC of gradient boosting, five folds by record."""
    from sklearn.metrics import roc_auc_score

    return roc_auc_score(y, held_out(x, y, group))


def held_out(x: np.ndarray, y: np.ndarray, group: np.ndarray) -> np.ndarray:
    """What gradient boosting that has not seen a record says of its windows, five folds by record."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import GroupKFold

    score = np.empty(len(y))
    for train, test in GroupKFold(min(5, len(np.unique(group)))).split(x, y, group):
        model = HistGradientBoostingClassifier(max_iter=150, learning_rate=0.05, random_state=0).fit(x[train], y[train])
        score[test] = model.predict_proba(x[test])[:, 1]
    return score


def features(ecg: np.ndarray, at: np.ndarray) -> np.ndarray:
    """First and second differences of the eight leads about each place, and how much larger they are in its middle."""
    time = at[:, None] + np.arange(-HALF, HALF + 1)
    window = ecg[np.array(MODELLED_INDEX)[:, None, None], time].astype(np.float32)  # (lead, place, time)
    out = []
    for order in (1, 2):
        steps = np.abs(np.diff(window, order, axis=-1))
        middle, around = steps[..., HALF - 5 : HALF + 5].max(axis=-1), np.median(steps, axis=-1)
        out += [steps.transpose(1, 0, 2).reshape(len(at), -1), middle.T, (middle / (around + 1)).T]
    return np.concatenate(out, axis=1)


if __name__ == "__main__":
    main()
