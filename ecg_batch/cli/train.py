"""Train the texture models or the judge, or hold what the former generate against real texture.

A training that was killed goes on where it stopped: run the same command again. A GPU is used where there is one.
"""

import logging
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ecg_batch.cli.parser import add_command, folder, setting
from ecg_batch.cli.settings import settings
from ecg_batch.errors import need

log = logging.getLogger(__name__)

COLLAPSED = 0.05  # of the codes, as perplexity; the bundled codebook has over half
EXAMPLES = """examples:
  ecg-batch train units  --bank BANK --out MODELS
  ecg-batch train rhythm --bank BANK --out MODELS
  ecg-batch train vqvae  --bank BANK --out MODELS --set epochs=30 channels=64
  ecg-batch train mamba  --bank BANK --out MODELS --set n_layer=4 d_model=128
  ecg-batch train report --bank BANK --models MODELS --out REPORT
  ecg-batch train judge  --ptbxl PTBXL --out MODELS
"""


def add_arguments(parser: ArgumentParser) -> None:
    jobs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, (text, example, arguments, _) in JOBS.items():
        add_command(jobs, name, text, f"example:\n  ecg-batch train {name} {example}\n", arguments)


def run(arguments: Namespace) -> int:
    need("train", "torch", *["sklearn"] * (arguments.what == "judge"))
    return JOBS[arguments.what][-1](arguments)


# Arguments ------------------------------------------------------------------------------------------------------------


def _texture(parser: ArgumentParser) -> None:
    parser.add_argument("--bank", type=Path, required=True, metavar="DIR", help="folder with textures.zarr, from ecg-batch prepare")
    parser.add_argument("--out", type=folder, required=True, metavar="DIR", help="folder for weights, checkpoints, curves, report")
    _set(parser)


def _report(parser: ArgumentParser) -> None:
    parser.add_argument("--bank", type=Path, required=True, metavar="DIR", help="folder with textures.zarr, from ecg-batch prepare")
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="folder with the two .safetensors files")
    parser.add_argument("--out", type=folder, required=True, metavar="DIR", help="folder for the report and its figure")


def _judge(parser: ArgumentParser) -> None:
    parser.add_argument("--ptbxl", type=Path, required=True, metavar="DIR", help="PTB-XL in its original layout")
    parser.add_argument("--fs", type=int, choices=(100, 500), default=100, help="which of its records to read, Hz (default: 100)")
    parser.add_argument("--out", type=folder, required=True, metavar="DIR", help="folder for weights, curves and report")
    parser.add_argument("--name", choices=("judge", "encoder"), default="judge", help="encoder: the network that measures fidelity "
                        "(default: judge)")  # fmt: skip
    _set(parser)


def _set(parser: ArgumentParser) -> None:
    parser.add_argument("--set", nargs="+", type=setting, action="extend", default=[], metavar="KEY=VALUE",
                        help="sizes and settings that differ; an unknown key lists the known ones")  # fmt: skip


# What they do ---------------------------------------------------------------------------------------------------------


def vqvae(arguments: Namespace) -> int:
    from ecg_batch.models.checkpoints import best_device
    from ecg_batch.models.corpus import load_corpus
    from ecg_batch.models.train_vqvae import VqVaeTraining, train_vqvae
    from ecg_batch.models.vqvae import VqVaeConfig

    config, training = settings(arguments.set, VqVaeConfig(), VqVaeTraining(), fixed=("leads",))
    result = train_vqvae(load_corpus(arguments.bank), arguments.out, config, training, best_device())
    print(f"{arguments.out}/vqvae.safetensors: codebook perplexity {result['perplexity']:.0f} of {config.codes} on fold 9")
    if result["perplexity"] < COLLAPSED * config.codes:
        log.warning(
            "the codebook has collapsed: fold 9 uses %d of %d codes, and texture made with it will hardly vary. Train longer, with "
            "more records or another learning_rate, or with fewer codes", result["codes_used"], config.codes,
        )  # fmt: skip
    return 0


def mamba(arguments: Namespace) -> int:
    from ecg_batch.models.checkpoints import best_device
    from ecg_batch.models.corpus import load_corpus
    from ecg_batch.models.mamba import MambaConfig
    from ecg_batch.models.train_mamba import MambaTraining, train_mamba

    # these two follow from the VQ-VAE and the corpus
    config, training = settings(arguments.set, MambaConfig(), MambaTraining(), fixed=("texture_tokens", "condition_tokens"))
    result = train_mamba(load_corpus(arguments.bank), arguments.out, config, training, best_device())
    bits = result["bits_per_token"]
    print(f"{arguments.out}/mamba.safetensors: {bits['mamba']:.3f} bits per token on fold 9, bigram {bits['bigram']:.3f}")
    return 0


def units(arguments: Namespace) -> int:
    from ecg_batch.models.checkpoints import best_device
    from ecg_batch.models.corpus import load_unit_corpus
    from ecg_batch.models.networks import UnitConfig
    from ecg_batch.models.sequences.train_units import UnitTraining, train_units

    config, training = settings(arguments.set, UnitConfig(), UnitTraining(), fixed=("levels", "kinds"))
    result = train_units(load_unit_corpus(arguments.bank), arguments.out, config, training, best_device())
    bits = result["bits_a_beat"]
    print(f"{arguments.out}/units.safetensors: {bits['mamba']:.2f} bits a beat on fold 9, "
          f"{bits['mamba_other_conditions']:.2f} under the conditions of other records, unigram {bits['unigram']:.2f}")  # fmt: skip
    return 0


def report(arguments: Namespace) -> int:
    from ecg_batch.models.checkpoints import best_device
    from ecg_batch.models.corpus import load_corpus
    from ecg_batch.models.decode import load_models
    from ecg_batch.models.report import write_report

    summary = write_report(load_corpus(arguments.bank), load_models(arguments.models, best_device()), arguments.out)
    print(f"{arguments.out}/texture.png, {arguments.out}/texture.json: {summary}")
    return 0


def judge(arguments: Namespace) -> int:
    from ecg_batch.evaluation.labelled import from_ptbxl
    from ecg_batch.evaluation.train_judge import JudgeTraining, train_judge
    from ecg_batch.models.judge import ENCODER, JudgeConfig

    sizes, training = (ENCODER, JudgeTraining(seed=1)) if arguments.name == "encoder" else (JudgeConfig(), JudgeTraining())
    config, training = settings(arguments.set, sizes, training, fixed=("outputs",))
    records = from_ptbxl(arguments.ptbxl, arguments.fs, every=True)
    result = train_judge(records, arguments.out, config, training, arguments.name)
    (auroc, low, high), (of_statements, *_) = (result[name]["macro AUROC"] for name in ("fold 10", "fold 10, statements"))
    left_out = result["classes left out"]
    without = f", without {', '.join(left_out)}: all or none of the records of a part hold it" if left_out else ""
    print(f"{arguments.out}/{arguments.name}.safetensors: macro AUROC {auroc:.3f} ({low:.3f} to {high:.3f}) on fold 10{without}; "
          f"of {len(result['fold 10, statements']['by class'])} statements {of_statements:.3f}")  # fmt: skip
    return 0


def rhythm(arguments: Namespace) -> int:
    from ecg_batch.models.checkpoints import best_device
    from ecg_batch.models.corpus import load_rhythm_corpus
    from ecg_batch.models.networks import RhythmConfig
    from ecg_batch.models.sequences.train_rhythm import RHYTHMS, RhythmTraining, train_rhythm

    config, training = settings(arguments.set, RhythmConfig(), RhythmTraining(), fixed=("codes", "said"))
    result = train_rhythm(load_rhythm_corpus(arguments.bank), arguments.out, config, training, best_device())
    each = [f"{name} {bits['mamba']:.2f} ({bits['mamba_other_conditions']:.2f} under the conditions of other records, unigram "
            f"{bits['unigram']:.2f})" for name in RHYTHMS if name in result for bits in [result[name]["bits_a_beat"]]]  # fmt: skip
    print(f"{arguments.out}/rhythm.safetensors: bits a beat on fold 9: {'; '.join(each)}")
    return 0


JOBS = {
    "units": (
        "Train the model of noise, beat by beat.", "--bank runs/bank --out runs/models", _texture, units,
    ),
    "rhythm": (
        "Train the model of rhythm: which beat comes next, and when.", "--bank runs/bank --out runs/models", _texture, rhythm,
    ),
    "vqvae": (
        "Train the VQ-VAE, which turns texture into tokens and back.", "--bank runs/bank --out runs/models", _texture, vqvae
    ),
    "mamba": (
        "Train the Mamba on the tokens of MODELS/vqvae.safetensors; so train vqvae first.",
        "--bank runs/bank --out runs/models", _texture, mamba,
    ),
    "report": (
        "Hold generated texture against real texture of fold 9, with a figure.",
        "--bank runs/bank --models runs/models --out runs/texture", _report, report,
    ),
    "judge": (
        "Train the judge, a classifier of superclasses and statements, or the encoder that measures fidelity.",
        "--ptbxl PTBXL --out MODELS --set steps=600 widths=64,64,128,256", _judge, judge,
    ),
}  # fmt: skip
