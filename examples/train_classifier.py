"""Train a small classifier on synthetic ECGs mixed with real ones, and test it on real patients that it has never seen (fold 10).

    python examples/train_classifier.py runs/demo --ptbxl PTBXL [--real-share 0.5]

--ptbxl is a folder in PTB-XL's layout; a part of it will do. Training takes its folds 1 to 8, where the donors of the synthetic
records come from too, so no patient of fold 10 is in either. --real-share 1 trains on real records alone, 0 on synthetic ones.
"""

import argparse
from itertools import pairwise

import torch
from sklearn.metrics import roc_auc_score
from torch import nn

import ecg_batch


def network(widths: tuple[int, ...] = (12, 32, 32, 64, 64, 128), classes: int = 5) -> nn.Module:
    """Five convolutions, each of half the length of the one before, and a mean over time."""
    layers = [nn.Sequential(nn.Conv1d(a, b, 9, stride=2, padding=4), nn.BatchNorm1d(b), nn.ReLU()) for a, b in pairwise(widths)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(widths[-1], classes))


def auroc(model: nn.Module, records) -> list[float | None]:
    model.eval()
    with torch.no_grad():
        found = [(model(batch["signal"]), batch["labels"]) for batch in ecg_batch.ECGIterable(records, batch=64, shuffle=False)]
    scores, labels = (torch.cat(part) for part in zip(*found, strict=True))
    columns = zip(labels.T, scores.T, strict=True)  # held by all or by none, as in a part of PTB-XL: no AUROC
    return [roc_auc_score(held, score) if held.min() < held.max() else None for held, score in columns]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--ptbxl", required=True)
    parser.add_argument("--real-share", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    torch.manual_seed(0)
    synthetic = ecg_batch.open_dataset(args.dataset).where(flags="")
    train, test = (ecg_batch.open_ptbxl(args.ptbxl, folds=folds, cache="runs/cache") for folds in (range(1, 9), [10]))
    stream = ecg_batch.ECGIterable(synthetic, train, shares=(1 - args.real_share, args.real_share), records=3072, batch=64)
    loader, model = ecg_batch.ECGLoader(stream), network()
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=args.epochs * len(loader))
    for epoch in range(args.epochs):
        model.train()
        for batch in loader:
            loss = nn.functional.binary_cross_entropy_with_logits(model(batch["signal"]), batch["labels"])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {args.epochs}: loss {loss.item():.3f}", flush=True)
    scores = auroc(model, test)
    found = {name: score for name, score in zip(stream.label_names, scores, strict=True) if score is not None}
    without = [name for name in stream.label_names if name not in found]  # all or none of the records hold these
    mean = f"{sum(found.values()) / len(found):.3f}" if found else "not to be had"
    named = [*(f"{name} {score:.3f}" for name, score in found.items()), *(f"no {name}" for name in without)]
    print(f"AUROC on {len(test)} real records of fold 10: {mean} ({', '.join(named)})")


if __name__ == "__main__":
    main()
