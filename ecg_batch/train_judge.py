"""Train a judge: folds 1-8 teach, fold 9 chooses the step and the thresholds, fold 10 is looked at once.

The same loop trains the classifiers of the usefulness study, so all of them get the same number of steps.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from ecg_batch.errors import UserError
from ecg_batch.judge import JUDGE_FORMAT, JUDGE_HZ, Judge, JudgeConfig, filtered, predict
from ecg_batch.labelled import CHOICE_FOLD, TEST_FOLD, TRAIN_FOLDS, Labelled
from ecg_batch.scores import bootstrap, calibration, fast_macro_auroc, macro_auroc, macro_f1, thresholds_of
from ecg_batch.statements import SUPERCLASSES


@dataclass(frozen=True)
class JudgeTraining:
    """steps of `batch` records each, whatever the number of records: more data does not mean more training."""

    steps: int = 1000
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    look_every: int = 100  # steps between two looks at fold 9
    augment: int = 0  # 1: classical augmentation
    seed: int = 0


@dataclass(frozen=True)
class Examples:
    """Filtered records (record, lead, time) and labels, float32 (record, 5).

    weight (phase, record): how often each is drawn, in phases of equal length; None: shuffled passes over all.
    """

    x: torch.Tensor
    labels: torch.Tensor
    weight: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)


def train_judge(records: Labelled, out: Path, config: JudgeConfig, training: JudgeTraining, name: str = "judge") -> dict:
    """Trains on folds 1-8 and writes OUT/NAME.safetensors, NAME.json and NAME.png; returns the report.

    The report names every patient the weights have seen (folds 1-8) or were chosen on (fold 9).
    """
    from ecg_batch.training import best_device, save_curves, save_report, save_weights

    taught, chosen, tested = (records.in_folds(*folds) for folds in (TRAIN_FOLDS, (CHOICE_FOLD,), (TEST_FOLD,)))
    refuse_shared_patients(taught, chosen, tested)
    train, choice, test = (examples_of(part) for part in (taught, chosen, tested))
    curve = []
    with tqdm(total=training.steps, desc=name, unit="step", disable=None) as bar:
        judge = fit(
            train, choice, config, training, lambda step, auroc: (curve.append(auroc), bar.update(step - bar.n)), best_device()
        )
    p_choice, p_test = predict(judge, choice.x), predict(judge, test.x)
    thresholds = thresholds_of(chosen.labels, p_choice)
    report = {
        "config": asdict(config), "training": asdict(training), "records": [len(part) for part in (taught, chosen, tested)],
        "thresholds": thresholds.tolist(), "fold 9 macro AUROC": macro_auroc(chosen.labels, p_choice), "fold 9 curve": curve,
        "fold 10": judged(tested.labels, p_test, thresholds),
        "patients": sorted({int(patient) for part in (taught, chosen) for patient in part.patient_id}),
    }  # fmt: skip
    metadata = {"format": JUDGE_FORMAT, "config": config.to_json(), "thresholds": json.dumps(thresholds.tolist()),
                "patients": json.dumps(report["patients"])}  # fmt: skip
    save_weights(out / f"{name}.safetensors", judge.state_dict(), metadata)
    save_curves(out / f"{name}.png", name, "macro AUROC on fold 9", {f"every {training.look_every} steps": curve})
    save_report(out / f"{name}.json", report)
    return report


def judged(truth: np.ndarray, probability: np.ndarray, thresholds: np.ndarray) -> dict:
    """Scores with 95 % bootstrap intervals over records: macro AUROC, macro F1, calibration error; AUROC and F1 by class."""
    f1 = lambda y, p: macro_f1(y, p, thresholds)  # noqa: E731
    by_class = {
        name: {"AUROC": macro_auroc(truth[:, [k]], probability[:, [k]]), "records": int(truth[:, k].sum()),
               "F1": macro_f1(truth[:, [k]], probability[:, [k]], thresholds[[k]])}
        for k, name in enumerate(SUPERCLASSES) if 0 < truth[:, k].sum() < len(truth)
    }  # fmt: skip
    return {
        "records": len(truth),
        "macro AUROC": [macro_auroc(truth, probability), *bootstrap(fast_macro_auroc, truth, probability)],
        "macro F1": [f1(truth, probability), *bootstrap(f1, truth, probability)],
        "calibration error": calibration(truth, probability)[0],
        "by class": by_class,
    }


def refuse_shared_patients(*parts: Labelled) -> None:
    """UserError where a patient is in two of the parts."""
    for at, part in enumerate(parts):
        for other in parts[at + 1 :]:
            if shared := set(part.patient_id.tolist()) & set(other.patient_id.tolist()):
                raise UserError(
                    f"patients {sorted(shared)[:5]} are on both sides of a split between training and test folds; a score "
                    "would measure memory. Use PTB-XL's own strat_fold column"
                )


def examples_of(records: Labelled) -> Examples:
    return Examples(filtered(records.ecg, records.fs_hz), torch.from_numpy(records.labels).float())


def fit(
    train: Examples, choice: Examples, config: JudgeConfig, training: JudgeTraining, on_look=lambda step, auroc: None, device="cpu"
) -> Judge:
    """The judge at the step at which fold 9's macro AUROC was best. A pure function of its arguments on one machine's CPU."""
    torch.manual_seed(training.seed)
    judge, kind = Judge(config), torch.device(device).type
    some = train.x[:: max(len(train) // 1000, 1)].float()  # enough for two numbers a lead
    judge.mean.copy_(some.mean((0, 2)))
    judge.scale.copy_(some.std((0, 2)))
    judge.to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), training.learning_rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.learning_rate, training.steps, pct_start=0.2)
    rng, best = np.random.default_rng(training.seed), (-1.0, None)
    for step, rows in enumerate(batches(train, training, rng), start=1):
        x = pieces_at_random(train.x[rows], config.window, rng)
        judge.train()
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda" or bf16_is_fast()):
            logits = judge((augmented(x, rng) if training.augment else x).to(device))
        loss = F.binary_cross_entropy_with_logits(logits.float(), train.labels[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % training.look_every == 0 or step == training.steps:
            auroc = macro_auroc(choice.labels.numpy(), predict(judge, choice.x))
            on_look(step, auroc)
            if auroc > best[0]:
                best = auroc, {name: tensor.clone() for name, tensor in judge.state_dict().items()}
    judge.load_state_dict(best[1])
    return judge.eval().cpu()


def pieces_at_random(x: torch.Tensor, window: int, rng: np.random.Generator) -> torch.Tensor:
    """A piece of each record: (b, lead, time) -> (b, lead, window)."""
    starts = rng.integers(0, max(x.shape[-1] - window, 0) + 1, len(x))
    return torch.stack([record[:, start : start + window] for record, start in zip(x, starts, strict=True)]).float()


def bf16_is_fast() -> bool:
    return torch.cpu._is_amx_tile_supported()


def batches(train: Examples, training: JudgeTraining, rng: np.random.Generator):
    """Rows of each step: shuffled passes over the records, or a weighted lot where they have weights."""
    rows = np.empty(0, np.int64)
    phases = None if train.weight is None else train.weight.double().numpy()
    for step in range(training.steps):
        if phases is not None:
            weight = phases[step * len(phases) // training.steps]
            yield torch.from_numpy(rng.choice(len(train), training.batch, p=weight / weight.sum()))
            continue
        while len(rows) < training.batch:
            rows = np.concatenate([rows, rng.permutation(len(train))])
        yield torch.from_numpy(rows[: training.batch])
        rows = rows[training.batch :]


def augmented(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Classical augmentation of filtered mV: loudness, lead loudness, noise, a slow wave. Shifts: every piece is one."""
    b, lead, time = x.shape
    uniform = lambda low, high, *shape: torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))  # noqa: E731
    x = x * uniform(0.8, 1.25, b, 1, 1) * uniform(0.9, 1.1, b, lead, 1)
    x = x + uniform(0, 0.04, b, 1, 1) * torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
    t = torch.arange(time) / JUDGE_HZ
    wave = torch.sin(2 * np.pi * (uniform(0.3, 1.0, b, 1, 1) * t + uniform(0, 1, b, lead, 1)))
    return x + uniform(0, 0.05, b, lead, 1) * wave
