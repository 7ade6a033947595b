"""Every figure of a dataset's report but those of usefulness_rows.py and two_sample_rows.py, in the order in which they are shown.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ecg_batch.bundled import BUNDLED
from ecg_batch.errors import UserError
from ecg_batch.evaluation import fidelity, privacy, validity
from ecg_batch.evaluation.scores import macro_auroc
from ecg_batch.evaluation.sets import Sets, Settings, with_this_software
from ecg_batch.evaluation.train_judge import judged
from ecg_batch.leads import MV_PER_UV
from ecg_batch.models.judge import Judge, embed, filtered, load_judge, superclasses
from ecg_batch.statements import SUPERCLASSES

FIDELITY_DRAWS = 10


def networks(models: Path = BUNDLED) -> dict[str, tuple[Judge, dict]]:
    """judge: refines. encoder: another network, which measures."""
    return {name: load_judge(models / f"{name}.safetensors") for name in ("judge", "encoder")}


# Fidelity -------------------------------------------------------------------------------------------------------------


def fidelity_section(sets: Sets, encoder: Judge, settings: Settings, encoder_sha256: str) -> dict:
    """Distances in features to real held-out patients (folds 9 and 10), each beside real training patients against the same.

    Means over FIDELITY_DRAWS matchings, and the range of the ratio to the floor.
    """
    from ecg_batch.evaluation.labelled import together

    held_out, floor = together(sets.choice, sets.test), "real, other patients (floor)"
    named = {floor: sets.train, "synthetic": sets.made}
    named |= {name: sets.variants[name] for name in ("no variation", "retrieval only", "noise-shaped texture", "real texture",
                                                     "decoded texture", "as published", "blend", "all variation")}  # fmt: skip
    named |= sets.smaller
    target = embed(encoder, filtered(held_out.ecg, held_out.fs_hz))
    features = {name: embed(encoder, filtered(part.ecg, part.fs_hz)) for name, part in named.items()}
    draws: dict[str, list[dict]] = {name: [] for name in named}
    for seed in range(FIDELITY_DRAWS):
        rng = np.random.default_rng(seed)
        pairs = {name: fidelity.matched(part.labels, held_out.labels, rng) for name, part in named.items()}
        both = np.intersect1d(pairs[floor][1], pairs["synthetic"][1])
        both = np.sort(rng.permutation(both)[: settings.compared])
        for name, (rows, at) in pairs.items():
            kept = np.isin(at, both)
            draws[name].append(distances(features[name][rows[kept]], target[at[kept]]))
    rows = {name: {key: float(np.mean([one[key] for one in held])) for key in held[0]} for name, held in draws.items()}
    for name, row in rows.items():
        each = [one["Frechet"] / base["Frechet"] for one, base in zip(draws[name], draws[floor], strict=True)]
        row |= {"ratio to floor": row["Frechet"] / rows[floor]["Frechet"], "lowest ratio": min(each), "highest ratio": max(each)}
    return {"N": len(both), "draws": FIDELITY_DRAWS, "encoder sha256": encoder_sha256, "features": target.shape[1],
            "class mix": "each held-out record matched by one with the same superclasses", "rows": rows}  # fmt: skip


def distances(x: np.ndarray, target: np.ndarray) -> dict:
    return {"Frechet": fidelity.frechet(x, target), "KID": fidelity.kid(x, target), **fidelity.prdc(target, x)}


def distortion_section(sets: Sets, encoder: Judge, count: int = 200) -> dict:
    """The four PRD rows: synthetic and skeleton against the donor, synthetic and real against the nearest other patient."""
    by_id = {int(ecg_id): at for at, ecg_id in enumerate(sets.train.ecg_id)}
    chosen = np.array([at for at, ecg_id in enumerate(sets.made.ecg_id) if int(ecg_id) in by_id][:count])
    made, bare = (part.ecg[chosen] * MV_PER_UV for part in (sets.made, sets.variants["retrieval only"]))
    donors = sets.train.ecg[[by_id[int(ecg_id)] for ecg_id in sets.made.ecg_id[chosen]]] * MV_PER_UV
    same = (sets.made.ecg_id == sets.variants["retrieval only"].ecg_id)[chosen]  # a redrawn record may have another donor
    features = embed(encoder, filtered(sets.train.ecg, sets.train.fs_hz))
    near = nearest_other(
        embed(encoder, filtered(sets.made.ecg[chosen], sets.made.fs_hz)), sets.made.patient_id[chosen], sets, features
    )
    real = np.random.default_rng(0).choice(len(sets.train), min(count, len(sets.train)), replace=False)
    near_real = nearest_other(features[real], sets.train.patient_id[real], sets, features)
    real_mv = sets.train.ecg * MV_PER_UV
    return {
        "N": len(chosen),
        "synthetic against its donor": fidelity.distortion(made, donors),
        "skeleton alone against its donor": fidelity.distortion(bare[same], donors[same]),
        "synthetic against the nearest other patient": fidelity.distortion(made, real_mv[near]),
        "real against the nearest other patient": fidelity.distortion(real_mv[real], real_mv[near_real]),
    }


def nearest_other(x: np.ndarray, patients: np.ndarray, sets: Sets, features: np.ndarray) -> np.ndarray:
    """The nearest training record of another patient in features: (record,)."""
    distance = privacy.cdist(x, features)
    distance[patients[:, None] == sets.train.patient_id[None, :]] = np.inf
    return distance.argmin(1)


# Clinical validity ----------------------------------------------------------------------------------------------------


def validity_section(sets: Sets, settings: Settings) -> dict:
    """KS distances of clinical measures by class, synthetic and real training patients against held-out patients."""
    from ecg_batch.evaluation.labelled import together

    held_out, rng = together(sets.choice, sets.test), np.random.default_rng(0)
    made_rows, made_at = fidelity.matched(sets.made.labels, held_out.labels, rng)
    real_rows, real_at = fidelity.matched(sets.train.labels, held_out.labels, rng)
    both = np.intersect1d(real_at, made_at)[: settings.compared]
    parts = {"synthetic": sets.made.take(made_rows[np.isin(made_at, both)]), "held-out": held_out.take(both),
             "real": sets.train.take(real_rows[np.isin(real_at, both)])}  # fmt: skip
    ours = {name: validity.table(part) for name, part in parts.items()}
    some = {name: part.take(np.arange(min(settings.delineated, len(part)))) for name, part in parts.items()}
    theirs = {name: validity.table(part, validity.measure_by_neurokit) for name, part in some.items()}
    ks = {}
    for name in ("synthetic", "real"):
        x, y, labels = ours[name], ours["held-out"], (parts[name].labels, parts["held-out"].labels)
        ks.setdefault("KS", {})[name] = {m: validity.ks(x[m], y[m]) for m in validity.MEASURES}
        ks.setdefault("KS by class", {})[name] = validity.ks_by_class(x, labels[0], y, labels[1])
        pairs = {m: (theirs[name][m], theirs["held-out"][m]) for m in validity.SECOND}
        ks.setdefault("KS by NeuroKit2", {})[name] = {m: validity.ks(*pair) for m, pair in pairs.items()}
    count = len(some["held-out"])
    bias = {m: disagreement(ours["held-out"][m][:count], theirs["held-out"][m]) for m in ("PR", "QRS", "QT")}
    return {
        "N": len(both),
        **ks,
        "N by NeuroKit2": count,
        "delineators on real records, ms": bias,
        "asked and got": validity.asked_and_got(sets.rows),
        "largest identity residual, steps": validity.identities(sets.made.ecg),
        "PRD against the skeleton, %": {"largest": float(np.max(sets.rows["prd_pct"].to_numpy())), "limit": sets.prd_limit_pct},
        "measures": {name: {m: table[m].round(2).tolist() for m in validity.MEASURES} for name, table in ours.items()},
    }


def disagreement(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Of two delineators on the same records: the bias to be known, and the scatter."""
    gap = (ours - theirs)[np.isfinite(ours - theirs)]
    return {"median": float(np.median(gap)), "median absolute": float(np.median(np.abs(gap))), "N": len(gap)}


# Diversity, privacy, labels -------------------------------------------------------------------------------------------


def privacy_section(sets: Sets, encoder: Judge, settings: Settings) -> dict:
    some = sets.made.take(np.random.default_rng(0).permutation(len(sets.made))[: settings.compared])
    features = embed(encoder, filtered(sets.made.ecg, sets.made.fs_hz))
    return {
        "donors": privacy.donor_use(sets.made),
        "within-donor spread": privacy.within_donor_spread(features, sets.made),
        "attacks": privacy.attacks(some, sets.train, sets.test),
    }


def judge_section(sets: Sets, nets: dict[str, tuple[Judge, dict]]) -> dict:
    """The judge and the encoder on real fold 10 with thresholds of fold 9, and on the synthetic labels."""
    import json

    out = {}
    for name, (judge, stated) in nets.items():
        seen = set(json.loads(stated["patients"]))
        if seen & set(sets.test.patient_id.tolist()):
            raise UserError(
                f"{name}: its weights were trained on patients of this test fold. Train it on this PTB-XL: ecg-batch train judge"
            )
        thresholds = np.array(json.loads(stated["thresholds"]))[: len(SUPERCLASSES)]
        p = superclasses(judge, filtered(sets.test.ecg, sets.test.fs_hz))
        predicted = superclasses(judge, filtered(sets.made.ecg, sets.made.fs_hz))
        out[name] = {
            "fold 10": judged(sets.test.labels, p, thresholds, sets.test.patient_id),
            "AUROC on synthetic labels": macro_auroc(sets.made.labels, predicted),
            "thresholds": thresholds.tolist(),
            "probabilities": p.round(4).tolist(),
            "truth": sets.test.labels.astype(int).tolist(),
        }
    return out


def refinement_section(plan, nets: dict[str, tuple[Judge, dict]], folder: Path, records: int = 256) -> dict:
    """The first records of the request, their texture decoded, with and without refinement: what both networks say of the asked
    class, and the time.
    """
    import time

    from ecg_batch.request.model import Refinement
    from ecg_batch.synthesis.generate import make_batches
    from ecg_batch.synthesis.refine import confidence, targets
    from ecg_batch.synthesis.source import query_source
    from ecg_batch.synthesis.synthesizer import open_synthesizer

    bare = with_this_software(replace(plan, request=replace(plan.request, texture="decoded", judge=None)))
    synthesizer = replace(open_synthesizer(bare), judge=nets["judge"][0])
    request = replace(bare.request, judge=plan.request.judge or Refinement(steps=20, below=0.5))
    queries = query_source(plan.request, folder)(0, min(records, plan.request.batch, plan.request.records))
    made, seconds = {}, {}
    for name, asked in (("before", bare.request), ("after", request)):
        start = time.process_time()
        made[name] = next(make_batches(replace(synthesizer, request=asked), [queries]))
        seconds[name] = time.process_time() - start
    target = targets(queries.label, synthesizer.bank.table.superclass_of)
    predicted = {
        f"{net}, {name}": confidence(nets[net][0], batch.ecg, request.fs_hz, target) for net in nets for name, batch in made.items()
    }
    doubted = (predicted["judge, before"] < request.judge.below) & (target >= 0)
    out = {"records": len(queries), "steps": request.judge.steps, "below": request.judge.below, "doubted": int(doubted.sum())}
    if doubted.any():
        out |= {f"{name}, mean of the doubted": float(p[doubted].mean()) for name, p in predicted.items()}
        out |= {
            f"{net}, share of the doubted that rose": float(
                (predicted[f"{net}, after"] > predicted[f"{net}, before"])[doubted].mean()
            )
            for net in nets
        }
        out["still doubted"] = int((predicted["judge, after"] < request.judge.below)[doubted].sum())
    out["largest PRD after, %"] = float(made["after"].prd_pct.max())
    out["CPU seconds a doubted record"] = (seconds["after"] - seconds["before"]) / max(int(doubted.sum()), 1)
    return out
