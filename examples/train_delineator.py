"""Train a small network to say where P, QRS and T are in any one lead, from the waves that a synthetic dataset carries.

    ecg-batch synthesize configs/waves.yaml --out runs/waves
    python examples/train_delineator.py runs/waves [--out delineator.safetensors] [--steps 6000]

Minutes on two cores. No mark of a reader is in it: `ecg-batch evaluate runs/waves --ludb DIR` holds it against theirs.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import ecg_batch
from ecg_batch.evaluation.waves.delineator import Delineator, examples, loss_of, save

CROP_S = 4.096  # of each record, one lead


def leads_of(loader: ecg_batch.ECGLoader, steps: int, rng: np.random.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """A lead by lot of each record of a batch, (record, time) mV, and its waves, (record, 3, time): epoch after epoch."""
    while True:
        for batch in loader:
            record = torch.arange(len(batch["signal"]))
            yield batch["signal"][record, torch.from_numpy(rng.integers(12, size=len(record)))], batch["waves"]
            steps -= 1
            if not steps:
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--out", type=Path, default=Path("delineator.safetensors"))
    parser.add_argument("--steps", type=int, default=6000)
    args = parser.parse_args()
    torch.manual_seed(0)
    rng, dataset, model = np.random.default_rng(0), ecg_batch.open_dataset(args.dataset), Delineator()
    loader = ecg_batch.ECGLoader(ecg_batch.ECGIterable(dataset, batch=32, drop_last=True), targets="waves")
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=args.steps, pct_start=0.1)
    for step, (ecg, waves) in enumerate(leads_of(loader, args.steps, rng), 1):
        loss = loss_of(model, *examples(ecg, waves, dataset.fs_hz, CROP_S, rng))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == args.steps:
            print(f"step {step} of {args.steps}: loss {loss.item():.3f}", flush=True)
    save(args.out, model.eval(), {"taught by": dataset.content(), "steps": str(args.steps)})
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
