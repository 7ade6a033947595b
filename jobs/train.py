"""Train the texture models or the judge, or hold what the former generate against real texture.

    python jobs/train.py vqvae  --bank BANK --out MODELS [--set epochs=30 channels=64 ...]
    python jobs/train.py mamba  --bank BANK --out MODELS [--set n_layer=4 d_model=128 ...]
    python jobs/train.py report --bank BANK --models MODELS --out REPORT
    python jobs/train.py judge  --ptbxl PTBXL --out MODELS [--name encoder] [--set steps=600 widths=64,64,128,256 blocks=2 ...]

mamba reads MODELS/vqvae.safetensors, so train vqvae first. A killed training goes on where it stopped: run the same
command again. A GPU is used where there is one.
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from ecg_batch.errors import UserError


def main(argv: list[str]) -> int:
    args = parse(argv)
    try:
        {"vqvae": vqvae, "mamba": mamba, "report": report, "judge": judge}[args.job](args)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs = parser.add_subparsers(dest="job", required=True)
    for name in ("vqvae", "mamba", "report"):
        job = jobs.add_parser(name)
        job.add_argument("--bank", type=Path, required=True, help="folder with textures.zarr, from jobs/prepare.py")
        job.add_argument("--out", type=Path, required=True, help="folder for weights, checkpoints, curves and report")
        if name == "report":
            job.add_argument("--models", type=Path, required=True, help="folder with the two .safetensors files")
        else:
            job.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="sizes and settings that differ")
    job = jobs.add_parser("judge")
    job.add_argument("--ptbxl", type=Path, required=True, help="PTB-XL in its original layout")
    job.add_argument("--fs", type=int, choices=(100, 500), default=100, help="which of its records to read, Hz (default 100)")
    job.add_argument("--out", type=Path, required=True, help="folder for weights, curve and report")
    job.add_argument("--name", choices=("judge", "encoder"), default="judge", help="encoder: the network that measures fidelity")
    job.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="sizes and settings that differ")
    return parser.parse_args(argv)


def vqvae(args: argparse.Namespace) -> None:
    from ecg_batch.corpus import load_corpus
    from ecg_batch.train_vqvae import VqVaeTraining, train_vqvae
    from ecg_batch.training import best_device
    from ecg_batch.vqvae import VqVaeConfig

    config, training = settings(args.set, VqVaeConfig(), VqVaeTraining(), fixed=("leads",))
    result = train_vqvae(load_corpus(args.bank), args.out, config, training, best_device())
    print(f"{args.out}/vqvae.safetensors: codebook perplexity {result['perplexity']:.0f} of {config.codes} on fold 9")


def mamba(args: argparse.Namespace) -> None:
    from ecg_batch.corpus import load_corpus
    from ecg_batch.mamba import MambaConfig
    from ecg_batch.train_mamba import MambaTraining, train_mamba
    from ecg_batch.training import best_device

    # these two follow from the VQ-VAE and the corpus
    config, training = settings(args.set, MambaConfig(), MambaTraining(), fixed=("texture_tokens", "condition_tokens"))
    result = train_mamba(load_corpus(args.bank), args.out, config, training, best_device())
    bits = result["bits_per_token"]
    print(f"{args.out}/mamba.safetensors: {bits['mamba']:.3f} bits per token on fold 9, bigram {bits['bigram']:.3f}")


def judge(args: argparse.Namespace) -> None:
    from ecg_batch.errors import need

    need("evaluate", "sklearn")
    from ecg_batch.judge import ENCODER, JudgeConfig
    from ecg_batch.labelled import from_ptbxl
    from ecg_batch.train_judge import JudgeTraining, train_judge

    sizes, training = (ENCODER, JudgeTraining(seed=1)) if args.name == "encoder" else (JudgeConfig(), JudgeTraining())
    config, training = settings(args.set, sizes, training, fixed=())
    result = train_judge(from_ptbxl(args.ptbxl, args.fs), args.out, config, training, args.name)
    auroc, low, high = result["fold 10"]["macro AUROC"]
    print(f"{args.out}/{args.name}.safetensors: macro AUROC {auroc:.3f} ({low:.3f} to {high:.3f}) on fold 10")


def report(args: argparse.Namespace) -> None:
    from ecg_batch.corpus import load_corpus
    from ecg_batch.decode import load_models
    from ecg_batch.texture_report import write_report
    from ecg_batch.training import best_device

    summary = write_report(load_corpus(args.bank), load_models(args.models, best_device()), args.out)
    print(f"{args.out}/texture.png, {args.out}/texture.json: {summary}")


def settings(pairs: list[str], *defaults, fixed: tuple[str, ...]) -> tuple:
    """The default dataclasses with `key=value` pairs put into whichever of them has the key."""
    from dataclasses import replace

    known = {field.name: index for index, default in enumerate(defaults) for field in fields(default)}
    known = {key: index for key, index in known.items() if key not in fixed}
    changed = [{} for _ in defaults]
    for pair in pairs:
        key, _, text = pair.partition("=")
        if key not in known:
            raise UserError(f"--set {pair}: unknown key {key!r}; known keys: {', '.join(sorted(known))}")
        changed[known[key]][key] = parse_value(pair, text, getattr(defaults[known[key]], key))
    return tuple(replace(default, **change) for default, change in zip(defaults, changed, strict=True))


def parse_value(pair: str, text: str, like):
    """Text as the type of the default: an integer, a number, or integers joined by commas. All must be positive."""
    try:
        value = tuple(int(part) for part in text.split(",")) if isinstance(like, tuple) else type(like)(text)
    except ValueError as error:
        raise UserError(f"--set {pair}: {text!r} is no value like the default {like}") from error
    if min(value if isinstance(value, tuple) else (value,)) < 0:
        raise UserError(f"--set {pair}: sizes and rates cannot be negative; the default is {like}")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
