"""Train a judge: folds 1-8 teach, fold 9 chooses the step and the thresholds, fold 10 is looked at once.

The same loop trains the classifiers of the usefulness study, so all of them get the same number of steps. The randomness of a step
comes from generators keyed by (seed, step), so a training that was killed and resumed goes through the same numbers.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F

from ecg_batch.errors import UserError
from ecg_batch.evaluation.labelled import CHOICE_FOLD, TEST_FOLD, TRAIN_FOLDS, Labelled
from ecg_batch.evaluation.scores import bootstrap, calibration, fast_macro_auroc, macro_auroc, macro_f1, thresholds_of
from ecg_batch.keys import Range
from ecg_batch.models.judge import JUDGE_HZ, Judge, JudgeConfig, filtered, predict
from ecg_batch.models.sizes import refuse
from ecg_batch.models.weights import FORMAT
from ecg_batch.progress import progress
from ecg_batch.statements import SUPERCLASSES


@dataclass(frozen=True)
class JudgeTraining:
    """steps of `batch` records each, whatever the number of records: more data does not mean more training."""

    steps: Annotated[int, Range(1, 10**7)] = 1000
    batch: Annotated[int, Range(1, 65_536)] = 64
    learning_rate: Annotated[float, Range(1e-12, 1e12)] = 3e-3
    weight_decay: Annotated[float, Range(0, 1e6)] = 0.05
    look_every: Annotated[int, Range(1, 10**7, "steps between two looks at fold 9")] = 100
    augment: Annotated[int, Range(0, 1, "1: classical augmentation")] = 0
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0


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
    """Trains on folds 1-8 and writes OUT/NAME.safetensors, NAME.json and NAME.png; returns the report. Resumes.

    The report names every patient the weights have seen (folds 1-8) or were chosen on (fold 9).
    """
    from ecg_batch.models.checkpoints import best_device, save_curves, save_report, save_weights

    taught, chosen, tested = (records.in_folds(*folds) for folds in (TRAIN_FOLDS, (CHOICE_FOLD,), (TEST_FOLD,)))
    refuse_shared_patients(taught, chosen, tested)
    refuse(config, f"train {name}"), refuse(training, f"train {name}")
    left_out = classes_left_out(taught, chosen, tested)
    train, choice, test = (examples_of(part) for part in (taught, chosen, tested))
    curve: list[float] = []
    with progress(training.steps, name, "steps") as shown:
        def look(step: int, aurocs: list[float]) -> None:
            curve[:] = aurocs
            shown.update(step - shown.done)

        judge = fit(train, choice, config, training, look, best_device(), out / f"{name}.checkpoint.pt")
    p_choice, p_test = predict(judge, choice.x), predict(judge, test.x)
    thresholds = thresholds_of(chosen.labels, p_choice)
    report = {
        "config": asdict(config), "training": asdict(training), "records": [len(part) for part in (taught, chosen, tested)],
        "thresholds": thresholds.tolist(), "fold 9 macro AUROC": macro_auroc(chosen.labels, p_choice), "fold 9 curve": curve,
        "fold 10": judged(tested.labels, p_test, thresholds), "classes left out": left_out,
        "patients": sorted({int(patient) for part in (taught, chosen) for patient in part.patient_id}),
    }  # fmt: skip
    metadata = {"format": FORMAT["judge"], "config": config.to_json(), "thresholds": json.dumps(thresholds.tolist()),
                "patients": json.dumps(report["patients"])}  # fmt: skip
    save_weights(out / f"{name}.safetensors", judge.state_dict(), metadata)
    save_curves(out / f"{name}.png", name, "macro AUROC on fold 9", {f"every {training.look_every} steps": curve})
    save_report(out / f"{name}.json", report)
    return report


def classes_left_out(*parts: Labelled) -> list[str]:
    """Classes that all records of a part hold or none does, so that no AUROC counts them. UserError where that leaves none."""
    both = [(part.labels.min(0) == 0) & (part.labels.max(0) == 1) for part in parts]
    left_out = [name for name, counted in zip(SUPERCLASSES, np.all(both, axis=0), strict=True) if not counted]
    if len(left_out) == len(SUPERCLASSES):
        raise UserError(
            "no superclass has records that hold it and records that do not in each of the parts to train on, to choose on (fold "
            f"{CHOICE_FOLD}) and to test on (fold {TEST_FOLD}); these have {', '.join(str(len(part)) for part in parts)} records. "
            "Give a fuller PTB-XL"
        )
    return left_out


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
    train: Examples,
    choice: Examples,
    config: JudgeConfig,
    training: JudgeTraining,
    on_look: Callable[[int, list[float]], None] = lambda step, aurocs: None,
    device="cpu",
    kept: Path | None = None,
) -> Judge:
    """The judge at the step at which fold 9's macro AUROC was best. A pure function of its arguments on one machine's CPU.

    on_look: is told the step and all AUROCs so far at each look at fold 9. kept: where to keep a checkpoint at each look, and go on
    from.
    """
    from ecg_batch.models.checkpoints import load_checkpoint, resuming, save_checkpoint

    torch.manual_seed(training.seed)
    judge, kind = Judge(config), torch.device(device).type
    some = train.x[:: max(len(train) // 1000, 1)].float()  # enough for two numbers a lead
    judge.mean.copy_(some.mean((0, 2)))
    judge.scale.copy_(some.std((0, 2)))
    judge.to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), training.learning_rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.learning_rate, training.steps, pct_start=0.2)
    settings = {**asdict(config), **asdict(training), "records": len(train)}
    done, aurocs, best = 0, [], judge.state_dict()
    if kept and (checkpoint := load_checkpoint(kept, settings)):
        with resuming(kept):
            judge.load_state_dict(checkpoint["model"])
            optimizer.load_state_dict(checkpoint["optimizer"])
            schedule.load_state_dict(checkpoint["schedule"])
        done, aurocs, best = checkpoint["epochs_done"], checkpoint["curves"]["fold 9"], checkpoint["best"]
        on_look(done, aurocs)
    for step in range(done + 1, training.steps + 1):
        rng = np.random.default_rng([training.seed, step])
        torch.manual_seed(int(rng.integers(2**63)))  # of dropout
        rows = rows_of_step(train, training, step, rng)
        x = pieces_at_random(train.x[rows], config.window, rng)
        judge.train()
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda" or bf16_is_fast()):
            logits = judge((augmented(x, rng) if training.augment else x).to(device))
        loss = F.binary_cross_entropy_with_logits(logits.float(), train.labels[rows].to(device))
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss is {loss.item()} at step {step} of {training.steps}: training has diverged and ends here; learning_rate "
                f"is {training.learning_rate:g}. Give a lower one (--set learning_rate=...)"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % training.look_every == 0 or step == training.steps:
            aurocs.append(macro_auroc(choice.labels.numpy(), predict(judge, choice.x)))
            if aurocs[-1] == max(aurocs):
                best = {name: tensor.clone() for name, tensor in judge.state_dict().items()}
            if kept:
                state = {"epochs_done": step, "curves": {"fold 9": aurocs}, "best": best, "settings": settings}
                learnt = {"model": judge.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
                save_checkpoint(kept, {**state, **learnt})
            on_look(step, aurocs)
    judge.load_state_dict(best)
    return judge.eval().cpu()


def pieces_at_random(x: torch.Tensor, window: int, rng: np.random.Generator) -> torch.Tensor:
    """A piece of each record: (b, lead, time) -> (b, lead, window)."""
    starts = rng.integers(0, max(x.shape[-1] - window, 0) + 1, len(x))
    return torch.stack([record[:, start : start + window] for record, start in zip(x, starts, strict=True)]).float()


def bf16_is_fast() -> bool:
    return torch.cpu._is_amx_tile_supported()


def rows_of_step(train: Examples, training: JudgeTraining, step: int, rng: np.random.Generator) -> torch.Tensor:
    """Rows of one step, from 1: of shuffled passes over the records, or a weighted lot where they have weights."""
    if train.weight is not None:
        weight = train.weight[(step - 1) * len(train.weight) // training.steps].double().numpy()
        return torch.from_numpy(rng.choice(len(train), training.batch, p=weight / weight.sum()))
    at = np.arange((step - 1) * training.batch, step * training.batch)
    passes = {int(one): _shuffled(len(train), training.seed, int(one)) for one in np.unique(at // len(train))}
    return torch.from_numpy(np.array([passes[int(one // len(train))][one % len(train)] for one in at]))


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: int, one: int) -> np.ndarray:
    """The records in the order of one pass: (record,)."""
    return np.random.default_rng([seed, one, count]).permutation(count)


def augmented(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Classical augmentation of filtered mV: loudness, lead loudness, noise, a slow wave. Shifts: every piece is one."""
    b, lead, time = x.shape
    uniform = lambda low, high, *shape: torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))  # noqa: E731
    x = x * uniform(0.8, 1.25, b, 1, 1) * uniform(0.9, 1.1, b, lead, 1)
    x = x + uniform(0, 0.04, b, 1, 1) * torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
    t = torch.arange(time) / JUDGE_HZ
    wave = torch.sin(2 * np.pi * (uniform(0.3, 1.0, b, 1, 1) * t + uniform(0, 1, b, lead, 1)))
    return x + uniform(0, 0.05, b, lead, 1) * wave
