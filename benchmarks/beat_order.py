"""The model of rhythm beside the rules: bits a beat on recordings that neither has seen.

python -m benchmarks.beat_order ptbxl --bank BANK --models MODELS --out FOLDER                of fold 9, by rhythm
python -m benchmarks.beat_order beats --bank BANK --models MODELS --out FOLDER                what both make, beside fold 9
python -m benchmarks.beat_order mitdb --bank BANK --models MODELS --out FOLDER --mitdb DIR    leaving one recording out

Rules give no probabilities. So the same network is taught by what they make: a minute for each donor that could have been, with the
rate, age, beat-to-beat variability and share of ectopic beats of its recording. All are asked for the same codes. A stretch of
MIT-BIH is ten seconds, as a recording of PTB-XL is; MODELS of ecg-batch train rhythm is taught further by the other recordings, the
rules' network by what rules make with their rates and shares. FOLDER keeps the trainings.
"""

import argparse
import copy
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from ecg_batch.models.corpus import RhythmCorpus, load_rhythm_corpus
from ecg_batch.models.networks import RhythmConfig
from ecg_batch.models.sequences.model import SequenceModel, conditions, draw_codes
from ecg_batch.models.sequences.network import SequenceNetwork, bits_of, mean_bits, network_of
from ecg_batch.models.sequences.rhythm_codes import STATEMENTS, SYMBOLS, beats_of, said
from ecg_batch.models.sequences.train_rhythm import (
    RHYTHMS,
    Beats,
    RhythmTraining,
    alike,
    beats_of_corpus,
    difference,
    rhythms_of,
    train_epoch,
)
from ecg_batch.models.train_mamba import optimizer_of
from ecg_batch.models.weights import load_arrays
from ecg_batch.progress import track
from ecg_batch.request.rhythm_parameters import RhythmParameters, rate_limits_bpm
from ecg_batch.rhythm_words import AAMI
from ecg_batch.synthesis.long.donor import _beat_to_beat
from ecg_batch.synthesis.long.rhythm import DonorRhythm, make_rhythm

STRETCH_S, RULED_S = 10.0, 60.0
BEFORE = 300  # beats: longer than anything that was learnt from
AS_STATED = {"(AFIB": "AFIB", "(AFL": "AFLT", "(B": "BIGU", "(T": "TRIGU", "(SVTA": "SVTAC", "(SBR": "SBRAD", "(BII": "2AVB"}
AS_WRITTEN = {"N": "N", "V": "V", "F": "V", "S": "A", "Q": "Q"}  # AAMI's classes
TAUGHT = RhythmTraining()
FURTHER = RhythmTraining(epochs=1, learning_rate=1e-3)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ptbxl", "beats", "mitdb"))
    for name in ("bank", "models", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR")
    parser.add_argument("--mitdb", type=Path, metavar="DIR")
    arguments = parser.parse_args(words)
    arguments.out.mkdir(parents=True, exist_ok=True)
    corpus = load_rhythm_corpus(arguments.bank)
    model = SequenceModel(*load_arrays(arguments.models / "rhythm.safetensors", "rhythm"))
    if arguments.what == "beats":
        ninth = corpus.fold == 9
        described({"recordings": corpus, "rules": by_rules(corpus, ninth), "Mamba": by_mamba(corpus, model, ninth)})
        return
    mamba = network_of(model)
    torch.manual_seed(TAUGHT.seed)
    untaught = SequenceNetwork(RhythmConfig())
    ruled = kept(arguments.out / "rules.pt", untaught, lambda: all_of(by_rules(corpus, corpus.fold < 9)), TAUGHT)
    if arguments.what == "ptbxl":
        check = beats_of_corpus(corpus, corpus.fold == 9)
        other = check.said[torch.from_numpy(np.random.default_rng(0).permutation(len(check)))]
        rows = {"Mamba": (mamba, check.said), "Mamba, conditions of other records": (mamba, other), "rules": (ruled, check.said)}
        shown({name: bits_of(network, check.codes, of) for name, (network, of) in rows.items()}, check)
        return
    stretches = stretches_of(arguments.mitdb)
    shown(one_left_out(stretches, mamba, ruled, arguments.out), all_of(stretches))


def all_of(corpus: RhythmCorpus) -> Beats:
    return beats_of_corpus(corpus, np.ones(len(corpus.fold), bool))


def kept(path: Path, start: SequenceNetwork, learn_from: Callable[[], Beats], training: RhythmTraining) -> SequenceNetwork:
    """A copy of the network taught by learn_from(), from path where it was taught before."""
    network = copy.deepcopy(start).requires_grad_(True)
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()
    learn, optimizer = learn_from(), optimizer_of(network, training)
    followers = alike(learn)
    for epoch in range(training.epochs):
        bits = train_epoch(network, optimizer, learn, followers, training, epoch)
        print(f"{path.name}: epoch {epoch + 1}, {bits:.3f} bits a beat", flush=True)
    torch.save(network.state_dict(), path)
    return network.eval()


def by_rules(corpus: RhythmCorpus, wanted: np.ndarray) -> RhythmCorpus:
    """What the rules make for each wanted record, a minute cut into stretches: their r_sample are rounded as the records' are."""
    rows = np.flatnonzero(wanted & ((corpus.r_sample >= 0).sum(axis=1) >= 5) & ~(corpus.symbol == "Q").any(axis=1))
    made = ((row, *stretch) for row in track(rows.tolist(), "rules", "records") for stretch in _ruled(corpus, row))
    return corpus_of(made, corpus)


def _ruled(corpus: RhythmCorpus, row: int) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    r = corpus.r_sample[row][corpus.r_sample[row] >= 0]
    symbol, held = corpus.symbol[row, : len(r)], corpus.held[row]
    p = RhythmParameters()
    bpm = float(np.clip(60 * corpus.fs_hz / np.diff(r).mean(), *rate_limits_bpm(p)))
    ectopic = {name: float((symbol == name).mean()) for name in "VA" if (symbol == name).any()}
    fibrillation, varies = bool(held[STATEMENTS.index("AFIB")]), _beat_to_beat(r, symbol == "N")
    donor = DonorRhythm(bpm, fibrillation, ectopic, 1.0, float(corpus.age[row]), varies)
    rhythm = make_rhythm(p, donor, bpm, RULED_S, np.random.default_rng([0, row]), 12.0)
    for begin in np.arange(0, RULED_S, STRETCH_S):
        inside = (rhythm.r_s >= begin) & (rhythm.r_s < begin + STRETCH_S)
        yield np.floor(rhythm.r_s[inside] * corpus.fs_hz).astype(np.int64), rhythm.symbol[inside]


def by_mamba(corpus: RhythmCorpus, model: SequenceModel, wanted: np.ndarray) -> RhythmCorpus:
    """A minute by the model under the condition of each wanted record, after BEFORE beats, cut and rounded likewise."""
    rows = np.flatnonzero(wanted & ((corpus.r_sample >= 0).sum(axis=1) >= 5) & ~(corpus.symbol == "Q").any(axis=1))
    mean_s = np.array([np.diff(r[r >= 0]).mean() for r in corpus.r_sample[rows]]) / corpus.fs_hz
    numbers = np.random.default_rng(0).random((len(rows), BEFORE + int(2 * RULED_S / mean_s.min()), 2))
    codes = draw_codes(model, conditions(model, said(corpus.held[rows], mean_s, corpus.age[rows])), numbers[..., 0].copy())
    stretches = []
    for row, rr_s, of, own in zip(rows.tolist(), mean_s, codes, numbers, strict=True):
        symbol, ratio = beats_of(of[BEFORE:], own[BEFORE:, 1])
        r_s = np.cumsum(ratio * rr_s)
        for begin in np.arange(0, RULED_S, STRETCH_S):
            inside = (r_s >= begin) & (r_s < begin + STRETCH_S)
            stretches.append((row, np.floor(r_s[inside] * corpus.fs_hz).astype(np.int64), np.array(SYMBOLS)[symbol[inside]]))
    return corpus_of(stretches, corpus)


def described(made: dict[str, RhythmCorpus]) -> None:
    """Beats of ten seconds of fold 9's patients, by rhythm: medians over stretches of what varies, and shares of beats."""
    print("| rhythm | beats | CV of RR: quartiles | V, A of 100 beats | V after V | coupling of V, of A | the RR after it |")
    print("|---" * 7 + "|")
    for rhythm in RHYTHMS[:3]:
        for name, corpus in made.items() if (rhythms_of(made["recordings"].held) == rhythm).any() else ():
            print(f"| {rhythm} | {name} | {' | '.join(_words_of(corpus, rhythm))} |")


def _words_of(corpus: RhythmCorpus, rhythm: str) -> list[str]:
    of = (rhythms_of(corpus.held) == rhythm) & (corpus.fold == 9) & ((corpus.r_sample >= 0).sum(axis=1) >= 5)
    cv, symbols, near = [], [], {"V": [], "A": []}
    for r, symbol in zip(corpus.r_sample[of], corpus.symbol[of], strict=True):
        r, symbol = r[r >= 0], symbol[r >= 0]
        ratio = np.diff(r) / np.diff(r).mean()
        cv.append(ratio.std()), symbols.append("".join(symbol))
        for at in range(1, len(symbol) - 1):
            if symbol[at] in near and symbol[at - 1] == symbol[at + 1] == "N":
                near[symbol[at]].append((ratio[at - 1], ratio[at]))
    beats, pairs = "".join(symbols), sum(one.count("VV") for one in symbols)
    middle = {name: np.median(each, axis=0) if len(each) > 9 else (np.nan, np.nan) for name, each in near.items()}
    return [", ".join(f"{value:.3f}" for value in np.percentile(cv, (25, 50, 75))),
            ", ".join(f"{100 * beats.count(name) / len(beats):.1f}" for name in "VA"),
            f"{100 * pairs / max(beats.count('V'), 1):.1f} %",
            *(", ".join("-" if np.isnan(one[at]) else f"{one[at]:.2f}" for one in middle.values()) for at in (0, 1))]  # fmt: skip


def corpus_of(stretches: Iterable[tuple[int, np.ndarray, np.ndarray]], like: RhythmCorpus) -> RhythmCorpus:
    """Stretches (the record of `like` that says what is said of it, R samples, symbols) as a corpus."""
    row, r, symbol = zip(*stretches, strict=True)
    row, longest = np.array(row), max(map(len, r))
    r = np.stack([np.pad(one, (0, longest - len(one)), constant_values=-1) for one in r])
    symbol = np.stack([np.pad(one, (0, longest - len(one)), constant_values="") for one in symbol])
    return RhythmCorpus(r, symbol, like.held[row], like.age[row], like.patient_id[row], like.fold[row], like.fs_hz)


def stretches_of(folder: Path) -> RhythmCorpus:
    """The recordings of a folder as WFDB has them, ten seconds each; a recording is a patient."""
    import wfdb

    names = sorted(path.stem for path in folder.glob("*.atr"))
    r, symbol, held, age, patient = [], [], [], [], []
    for number, name in enumerate(names):
        header, found = wfdb.rdheader(str(folder / name)), wfdb.rdann(str(folder / name), "atr")
        beat = np.array([one in AAMI for one in found.symbol])
        at, kind = found.sample[beat], np.array([AS_WRITTEN[AAMI[one]] for one in np.array(found.symbol)[beat]])
        notes = zip(found.sample, found.aux_note, strict=True)
        words = [(sample, text.strip("\0 ")) for sample, text in notes if text.startswith("(")]
        begins, rhythm = np.array([sample for sample, _ in words]), ["", *(text for _, text in words)]
        stated = {code for code, one in (("PVC", "V"), ("PAC", "A")) if (kind == one).any()}
        years = re.match(r"\s*(\d+)", " ".join(header.comments))
        for begin in np.arange(0, header.sig_len, STRETCH_S * header.fs):
            inside = (at >= begin) & (at < begin + STRETCH_S * header.fs)
            now = rhythm[int(np.searchsorted(begins, begin + STRETCH_S * header.fs / 2))]
            codes = {AS_STATED.get(now, "SR"), *stated}
            r.append(at[inside].astype(np.int64)), symbol.append(kind[inside])
            held.append([code in codes for code in STATEMENTS])
            age.append(float(years[1]) if years else np.nan), patient.append(number)
    none = np.empty(0)
    like = RhythmCorpus(none, none, np.array(held), np.array(age), np.array(patient), np.zeros(len(r), int), header.fs)
    return corpus_of(zip(range(len(r)), r, symbol, strict=True), like)


def one_left_out(stretches: RhythmCorpus, mamba: SequenceNetwork, ruled: SequenceNetwork, out: Path) -> dict[str, np.ndarray]:
    """Bits of each stretch, by networks that have not seen its recording: (stretch, 2) of each."""
    check, rules = all_of(stretches), by_rules(stretches, stretches.fold == 0)
    found = {}
    for name, start, of in (("Mamba, and the other recordings", mamba, stretches), ("rules", ruled, rules)):
        found[name] = np.zeros((len(check), 2))
        for number in np.unique(check.patient_id):
            network = kept(out / f"{name.split(',')[0]}_{number}.pt", start,
                           lambda of=of, number=number: beats_of_corpus(of, of.patient_id != number), FURTHER)  # fmt: skip
            own = np.flatnonzero(check.patient_id == number)
            of_own = check.take(own)
            found[name][own] = bits_of(network, of_own.codes, of_own.said)
    return found | {"Mamba of PTB-XL alone": bits_of(mamba, check.codes, check.said)}


def shown(found: dict[str, np.ndarray], check: Beats) -> None:
    first, *others = found
    print("| rhythm | stretches | " + " | ".join(found) + " | " + " | ".join(f"{name}, less the first" for name in others) + " |")
    print("|---" * (2 + 2 * len(found) - 1) + "|")
    for rhythm in (*RHYTHMS, "all"):
        of = check.rhythm == rhythm if rhythm != "all" else np.ones(len(check), bool)
        if of.any():
            each = [difference(found[name][of], found[first][of], check.patient_id[of], 0) for name in others]
            cells = [f"{mean_bits(bits[of]):.3f}" for bits in found.values()]
            cells += [f"{one['mean']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})" for one in each]
            print(f"| {rhythm} | {int(of.sum()):,} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
