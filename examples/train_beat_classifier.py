"""Train a small network to say of each beat of any one lead whether it is normal, supraventricular or ventricular, from the types
that the beats of long synthetic records carry.

    ecg-batch synthesize configs/beats.yaml --out runs/beats
    python examples/train_beat_classifier.py runs/beats [--out beats.safetensors] [--steps 1500]

A minute or two. No annotation of a reader is in it: `ecg-batch evaluate runs/beats --mitdb DIR` holds it against theirs.
"""

import argparse
from pathlib import Path

import numpy as np

import ecg_batch
from ecg_batch.evaluation.beats.classifier import SAID, Taught, Training, fit, kinds_of, said_of, save, together
from ecg_batch.evaluation.beats.features import FEWEST, at_rate, seen
from ecg_batch.reading.synthetic import OpenDataset
from ecg_batch.rhythm_words import AAMI

LEADS = ("II", "I", "V1", "V5")  # one by lot, II as often as the others together
MOST = 300  # beats of a record


def beats_of(dataset: OpenDataset, record: int, rng: np.random.Generator) -> Taught | None:
    """Some beats of one record as the network sees them, in a lead by lot; None where it has hardly any."""
    rows = dataset.beats(record)
    is_beat = np.isin(rows["symbol"].to_numpy(zero_copy_only=False), list(AAMI))
    r = rows["sample"].to_numpy()[is_beat] * 100 / dataset.fs_hz
    if len(r) < FEWEST:
        return None
    kind = kinds_of(rows["symbol"].to_numpy(zero_copy_only=False)[is_beat])
    lead = dataset.leads.index(str(rng.choice(LEADS, p=[0.5, 0.15, 0.15, 0.2])))
    ecg = at_rate(dataset.window(record, 0, dataset.duration_s)[lead], dataset.fs_hz)
    known = rng.permutation(np.flatnonzero(kind < len(SAID)))[:MOST]
    return Taught(seen(ecg, np.rint(r)).take(known), kind[known])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--out", type=Path, default=Path("beats.safetensors"))
    parser.add_argument("--steps", type=int, default=1500)
    args = parser.parse_args()
    rng, dataset = np.random.default_rng(0), ecg_batch.open_dataset(args.dataset)
    parts = [part for record in range(len(dataset)) if (part := beats_of(dataset, record, rng))]
    held_out = max(len(parts) // 10, 1)  # records; those of one donor may be on both sides
    taught, asked = together(parts[held_out:]), together(parts[:held_out])
    print(f"{len(taught):,} beats: {', '.join(f'{(taught.kind == at).sum():,} {name}' for at, name in enumerate(SAID))}")
    model = fit(taught, Training(args.steps))
    said = said_of(model, asked.seen).argmax(axis=1)
    for at, name in enumerate(SAID):
        found, there = ((said == at) & (asked.kind == at)).sum(), (asked.kind == at).sum()
        print(f"{name}: {found} of {there} found, {(said == at).sum() - found} more said, in {held_out} other records")
    save(args.out, model, {"taught by": dataset.content(), "steps": str(args.steps)})
    print(f"{args.out}: {args.out.stat().st_size / 2**10:.0f} KiB")


if __name__ == "__main__":
    main()
