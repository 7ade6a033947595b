"""Train a judge: folds 1-8 teach, fold 9 chooses the step and the thresholds, fold 10 is looked at once.

It learns the five superclasses and all 71 statements together. Both are scored as the published benchmark counts them
(Strodthoff et al. 2020, doi:10.1109/JBHI.2020.3022989): whatever the likelihood, superclasses over the records that have any,
statements over all records and the statements that a record of the fold holds.

The same loop trains the classifiers of the usefulness study, so all of them get the same number of steps. The randomness of a step
comes from generators keyed by (seed, step), so a training that was killed and resumed goes through the same numbers.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from ecg_batch.donors.ptbxl import statement_codes
from ecg_batch.errors import UserError
from ecg_batch.evaluation.labelled import CHOICE_FOLD, TEST_FOLD, TRAIN_FOLDS, Labelled
from ecg_batch.evaluation.scores import bootstrap, calibration, fast_macro_auroc, macro_auroc, macro_f1, thresholds_of
from ecg_batch.keys import Range
from ecg_batch.leads import MODELLED_INDEX, twelve_leads
from ecg_batch.models.judge import BATCH, JUDGE_HZ, Judge, JudgeConfig, filtered, predict
from ecg_batch.models.sizes import refuse
from ecg_batch.models.weights import FORMAT
from ecg_batch.progress import progress
from ecg_batch.signal.vcg import DOWER, INVERSE_DOWER
from ecg_batch.statements import SUPERCLASSES

PASSES, FEWEST_STEPS, LOOKS = 15, 600, 8  # where no number of steps is asked for


@dataclass(frozen=True)
class JudgeTraining:
    """steps of `batch` records each."""

    steps: Annotated[int, Range(0, 10**7, "0: by the number of records")] = 0
    batch: Annotated[int, Range(1, 65_536)] = 64
    learning_rate: Annotated[float, Range(1e-12, 1e12)] = 3e-3
    weight_decay: Annotated[float, Range(0, 1e6)] = 0.05
    look_every: Annotated[int, Range(0, 10**7, "steps between two looks at fold 9; 0: eight looks")] = 0
    augment: Annotated[int, Range(0, 2, "1: classical augmentation; 2: turned and scaled vectorcardiograms")] = 1
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0

    def of(self, records: int) -> "JudgeTraining":
        """The same with its numbers of steps, for so many records to train on."""
        steps = self.steps or max(PASSES * records // self.batch, FEWEST_STEPS)
        return replace(self, steps=steps, look_every=self.look_every or max(steps // LOOKS, 1))


@dataclass(frozen=True)
class Examples:
    """Filtered records (record, lead, time), float16 or float32, and labels, float32 (record, output).

    weight (phase, record): how often each is drawn, in phases of equal length; None: shuffled passes over all.
    """

    x: torch.Tensor
    labels: torch.Tensor
    weight: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)


def train_judge(records: Labelled, out: Path, config: JudgeConfig, training: JudgeTraining, name: str = "judge") -> dict:
    """Trains on folds 1-8; writes OUT/NAME.safetensors, NAME.json, NAME.png and NAME_classes.png; returns the report. Resumes.

    records: those without a superclass among them, as from_ptbxl(every=True) reads them. The report names every patient the weights
    have seen (folds 1-8) or were chosen on (fold 9).
    """
    from ecg_batch.models.checkpoints import best_device

    taught, chosen, tested = (records.in_folds(*folds) for folds in (TRAIN_FOLDS, (CHOICE_FOLD,), (TEST_FOLD,)))
    refuse_shared_patients(taught, chosen, tested)
    classes = (*SUPERCLASSES, *statement_codes())
    config, training = replace(config, outputs=len(classes)), training.of(len(taught))
    refuse(config, f"train {name}"), refuse(training, f"train {name}")
    left_out = classes_left_out(taught, chosen, tested)
    train, choice, test = (examples_of(part, classes) for part in (taught, chosen, tested))
    curve: list[float] = []
    with progress(training.steps, name, "steps") as shown:
        def look(step: int, aurocs: list[float]) -> None:
            curve[:] = aurocs
            shown.update(step - shown.done)

        kept = out / f"{name}.checkpoint.pt"
        judge = fit(train, choice, config, training, look, best_device(), kept, superclass_auroc)
    judge.load_state_dict(stored(judge.state_dict()))  # so that the scores are those of the file
    p_choice, p_test = predict(judge, choice.x), predict(judge, test.x)
    thresholds = thresholds_of(choice.labels.numpy(), p_choice)
    report = {
        "config": asdict(config), "training": asdict(training), "records": [len(part) for part in (taught, chosen, tested)],
        "classes": classes, "thresholds": thresholds.tolist(), "fold 9 curve": curve,
        "fold 9 macro AUROC": superclass_auroc(choice.labels.numpy(), p_choice),
        "fold 9 macro AUROC of statements": macro_auroc(*(x[:, len(SUPERCLASSES) :] for x in (choice.labels.numpy(), p_choice))),
        **on_fold_10(tested, test.labels.numpy(), p_test, thresholds), "classes left out": left_out,
        "patients": sorted({int(patient) for part in (taught, chosen) for patient in part.patient_id}),
    }  # fmt: skip
    save(out, name, judge, report)
    return report


def save(out: Path, name: str, judge: Judge, report: dict) -> None:
    """Weights, report and figures."""
    from ecg_batch.evaluation.figures import auroc_by_class
    from ecg_batch.models.checkpoints import save_curves, save_report, save_weights, write_whole

    stated = {key: json.dumps(report[key]) for key in ("classes", "thresholds", "patients")}
    metadata = {"format": FORMAT["judge"], "config": judge.config.to_json(), **stated}
    save_weights(out / f"{name}.safetensors", stored(judge.state_dict()), metadata)
    looks = f"every {report['training']['look_every']} steps"
    save_curves(out / f"{name}.png", name, "macro AUROC on fold 9", {looks: report["fold 9 curve"]})
    write_whole(out / f"{name}_classes.png", auroc_by_class(report))
    save_report(out / f"{name}.json", report)


def stored(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As the file has them: kernels in half precision, which halves it, and what belongs to a channel in full."""
    return {name: one.half() if one.ndim > 1 else one for name, one in tensors.items()}


def superclass_auroc(truth: np.ndarray, probability: np.ndarray) -> float:
    """Macro AUROC of the superclasses over the records that have any: arrays (record, output)."""
    truth, probability = truth[:, : len(SUPERCLASSES)], probability[:, : len(SUPERCLASSES)]
    held = truth.any(1)
    return macro_auroc(truth[held], probability[held])


def on_fold_10(tested: Labelled, truth: np.ndarray, probability: np.ndarray, thresholds: np.ndarray) -> dict:
    """Scores of the superclasses, and of the statements that a record holds: arrays (record, output)."""
    patient, diagnosed, first = tested.patient_id, tested.labels.any(1), slice(len(SUPERCLASSES))
    there = len(SUPERCLASSES) + np.flatnonzero(truth[:, len(SUPERCLASSES) :].any(0))
    names = [statement_codes()[at - len(SUPERCLASSES)] for at in there]
    return {
        "fold 10": judged(truth[diagnosed, first], probability[diagnosed, first], thresholds[first], patient[diagnosed]),
        "fold 10, statements": judged(truth[:, there], probability[:, there], thresholds[there], patient, names),
    }


def classes_left_out(*parts: Labelled) -> list[str]:
    """Classes that all diagnosed records of a part hold, or none does: no AUROC counts them. UserError where that leaves none."""
    diagnosed = [part.labels[part.labels.any(1)] for part in parts]
    both = [labels.any(0) & ~labels.all(0) for labels in diagnosed]
    left_out = [name for name, counted in zip(SUPERCLASSES, np.all(both, axis=0), strict=True) if not counted]
    if len(left_out) == len(SUPERCLASSES):
        raise UserError(
            "no superclass has records that hold it and records that do not in each of the parts to train on, to choose on (fold "
            f"{CHOICE_FOLD}) and to test on (fold {TEST_FOLD}); these have {', '.join(str(len(part)) for part in parts)} records. "
            "Give a fuller PTB-XL"
        )
    return left_out


def judged(
    truth: np.ndarray, probability: np.ndarray, thresholds: np.ndarray, patient: np.ndarray, classes: Sequence[str] = SUPERCLASSES
) -> dict:
    """Scores with 95 % bootstrap intervals over patients: macro AUROC, macro F1, calibration error; AUROC and F1 by class.

    By class those that some records hold and some do not. Arrays (record, class) and (record,).
    """
    f1 = lambda y, p: macro_f1(y, p, thresholds)  # noqa: E731
    by_class = {
        name: {"AUROC": macro_auroc(truth[:, [k]], probability[:, [k]]), "records": int(truth[:, k].sum()),
               "F1": macro_f1(truth[:, [k]], probability[:, [k]], thresholds[[k]])}
        for k, name in enumerate(classes) if 0 < truth[:, k].sum() < len(truth)
    }  # fmt: skip
    return {
        "records": len(truth),
        "macro AUROC": [macro_auroc(truth, probability), *bootstrap(fast_macro_auroc, truth, probability, of=patient)],
        "macro F1": [f1(truth, probability), *bootstrap(f1, truth, probability, of=patient)],
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


def examples_of(records: Labelled, classes: Sequence[str]) -> Examples:
    """In float16, which keeps 2 uV of a 4 mV QRS: all of folds 1-8 are 0.4 GB."""
    parts = [filtered(records.ecg[at : at + BATCH], records.fs_hz).half() for at in range(0, len(records), BATCH)]
    return Examples(torch.cat(parts), torch.from_numpy(records.hold(classes)).float())


def fit(
    train: Examples,
    choice: Examples,
    config: JudgeConfig,
    training: JudgeTraining,
    on_look: Callable[[int, list[float]], None] = lambda step, aurocs: None,
    device="cpu",
    kept: Path | None = None,
    score: Callable[[np.ndarray, np.ndarray], float] = macro_auroc,
) -> Judge:
    """The judge at the step at which fold 9's score was best. A pure function of its arguments on one machine's CPU.

    on_look: is told the step and all scores so far at each look at fold 9. kept: where to keep a checkpoint at each look, and go on
    from. score: of labels and probabilities (record, output).
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
            logits = judge(AUGMENTATIONS[training.augment](x, rng).to(device))
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
            aurocs.append(score(choice.labels.numpy(), predict(judge, choice.x)))
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


def as_they_are(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    return x


def augmented(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Classical augmentation of filtered mV: loudness, lead loudness, noise, a slow wave. Shifts: every piece is one."""
    b, lead, time = x.shape
    uniform = lambda low, high, *shape: torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))  # noqa: E731
    x = x * uniform(0.8, 1.25, b, 1, 1) * uniform(0.9, 1.1, b, lead, 1)
    x = x + uniform(0, 0.04, b, 1, 1) * torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
    t = torch.arange(time) / JUDGE_HZ
    wave = torch.sin(2 * np.pi * (uniform(0.3, 1.0, b, 1, 1) * t + uniform(0, 1, b, lead, 1)))
    return x + uniform(0, 0.05, b, lead, 1) * wave


def turned_and_scaled(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Each record's vectorcardiogram turned by up to 45 degrees about each axis and stretched along each by up to 1.5, as 3KG does
    (Gopal et al. 2021, arXiv:2106.04452). What is no dipole, the rest of each lead, stays as it is.
    """
    turns = Rotation.from_euler("xyz", rng.uniform(-45, 45, (len(x), 3)), degrees=True).as_matrix()
    moved = turns * rng.uniform(1, 1.5, (len(x), 1, 3)) - np.eye(3)  # (record, 3, 3)
    of_leads = torch.from_numpy((DOWER @ moved @ INVERSE_DOWER).astype(np.float32))  # (record, 8, 8)
    return x + twelve_leads(of_leads @ x[:, list(MODELLED_INDEX)])


AUGMENTATIONS = (as_they_are, augmented, turned_and_scaled)
