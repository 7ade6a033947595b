"""Can a classifier tell where beats were joined? python -m benchmarks.joints [--bank BANK] for joints beside ectopic beats.

An ectopic beat brings its neighbours, so most have no joint beside them: only those whose neighbour was cut off in the donor, or
where two ectopic beats share one. Skeletons alone, no texture hides anything. Each joint is held against a place of the same
donor where the beats did follow each other, in an interval alike: TP and ST-T as long within 20 ms. Of a donor often one such pair
of beats exists, so chance is wide: the same is repeated with the two kinds exchanged in a random half of the donors.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ecg_batch.bank import BUNDLED, read_bank
from ecg_batch.compose import low_pass
from ecg_batch.draws import Stream, generator
from ecg_batch.leads import MODELLED_INDEX, to_steps, twelve_leads
from ecg_batch.long_donor import LongDonor, TooFewBeats, long_donor
from ecg_batch.rhythm import DonorRhythm, RhythmParameters, make_rhythm
from ecg_batch.stitch import Interval, intervals, place, stitch

HALF = 15  # samples to either side of a joint that a classifier sees
SECONDS = 2400
ENDS_S = 20
ALIKE_S = 0.02
FEWEST, MOST = 5, 25  # pairs of a donor
EXCHANGES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, default=BUNDLED)
    made = list(skeletons(parser.parse_args().bank))
    print(
        "| donors | | ectopic beats | with a joint | donors with some | AUC of joints, donors, windows of each kind | by chance |"
    )
    print("|---|---|---|---|---|---|---|")
    for kind, chosen in (
        ("whole neighbours", [one for one in made if not one.ectopic_joined]),
        ("no whole neighbours", [one for one in made if one.ectopic_joined]),
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
            told = told_from_alike(pairs) if len(pairs) > 1 else "too few | "
            print(f"| {kind} | {name} | {total:,} | {share} | {told} |", flush=True)


def told_from_alike(pairs: list[tuple["Skeleton", np.ndarray, np.ndarray]]) -> str:
    x = np.concatenate([features(one.ecg, np.concatenate(places)) for one, *places in pairs])
    y = np.concatenate([np.repeat([1, 0], len(joints)) for _, joints, _ in pairs])
    donor = np.repeat(np.arange(len(pairs)), [2 * len(joints) for _, joints, _ in pairs])
    rng = np.random.default_rng(0)
    exchanged = [y ^ rng.integers(0, 2, len(pairs))[donor] for _ in range(EXCHANGES)]
    chance = [cross_validated(x, other, donor) for other in tqdm(exchanged, desc="by chance", disable=None)]
    auc, low, high = cross_validated(x, y, donor), min(chance), max(chance)
    return f"{auc:.3f}, {len(pairs)}, {y.sum():,} | {low:.3f} to {high:.3f}"


@dataclass
class Skeleton:
    """A donor's skeleton without texture: ecg int (12, time) uV. Over intervals: is_seam; ectopic, of its first and second beat.
    ectopic_joined: as in LongDonor.
    """

    ecg: np.ndarray
    interval: Interval
    is_seam: np.ndarray
    ectopic: tuple[np.ndarray, np.ndarray]
    ectopic_joined: bool
    fs_hz: int


def skeletons(bank_path: Path) -> Iterator[Skeleton]:
    """Of each donor that has ectopic beats, at its own rate."""
    bank = read_bank(bank_path)
    for row in tqdm(range(len(bank.table)), desc="donors", disable=None):
        try:
            donor = long_donor(bank, row)
        except TooFewBeats:
            continue
        if donor.ectopic:
            yield _skeleton(donor, float(bank.table.hr_bpm[row]), row)


def _skeleton(donor: LongDonor, hr_bpm: float, seed: int) -> Skeleton:
    allowed = DonorRhythm(hr_bpm, "AFIB" in donor.codes, donor.ectopic)
    rhythm = make_rhythm(RhythmParameters(), allowed, hr_bpm, SECONDS, generator(0, seed, Stream.LONG_RHYTHM))
    samples, drawn = SECONDS * donor.fs_hz, generator(0, seed, Stream.LONG_BEATS)
    placed = place(donor, rhythm.r_s, rhythm.symbol, rhythm.qt_rr_s, samples, drawn)
    interval = intervals(donor, placed, np.arange(len(placed.r) - 1))
    ecg = twelve_leads(to_steps(low_pass(stitch(donor, placed, 0, samples) / 1000, 40, donor.fs_hz)))
    ectopic = tuple(donor.symbol[beats] != "N" for beats in (interval.before, interval.after))
    return Skeleton(ecg, interval, interval.donor_out != interval.donor_in, ectopic, donor.ectopic_joined, donor.fs_hz)


def alike(one: Skeleton, beside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(joints, places without one in intervals alike, as far along TP), samples, in pairs."""
    i, ends = one.interval, ENDS_S * one.fs_hz
    clear = beside & (i.start > ends) & (i.start < one.ecg.shape[1] - ends)
    joined, plain = (np.flatnonzero(clear & kind) for kind in (one.is_seam, ~one.is_seam))
    lengths = np.stack([i.p_on - i.t_end, i.t_end - i.qrs_off], axis=1)
    apart = np.abs(lengths[joined][:, None] - lengths[plain]).max(axis=-1) if len(plain) else np.full((len(joined), 1), np.inf)
    pairs = []
    for row in np.argsort(apart.min(axis=1), kind="stable"):
        at = int(apart[row].argmin())
        if apart[row, at] <= ALIKE_S * one.fs_hz and len(pairs) < MOST:
            pairs.append((joined[row], plain[at]))
            apart[:, at] = np.inf  # each place once
    first, second = np.array(pairs, int).reshape(-1, 2).T
    along = (i.joint - i.t_end)[first] / np.maximum(i.p_on - i.t_end, 1e-6)[first]
    joints = i.start[first] + i.joint[first]
    return np.rint(joints).astype(int), np.rint(i.start[second] + i.t_end[second] + along * lengths[second, 0]).astype(int)


# Any joints -----------------------------------------------------------------------------------------------------------


def unjoined(one, kind: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Places where nothing was joined, since the beats follow each other in the donor: as far along TP as the joints are."""
    i = one.interval
    along = (i.joint - i.t_end) / (i.p_on - i.t_end)
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
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold

    score = np.empty(len(y))
    for train, test in GroupKFold(min(5, len(np.unique(group)))).split(x, y, group):
        model = HistGradientBoostingClassifier(max_iter=150, learning_rate=0.05, random_state=0).fit(x[train], y[train])
        score[test] = model.predict_proba(x[test])[:, 1]
    return roc_auc_score(y, score)


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
