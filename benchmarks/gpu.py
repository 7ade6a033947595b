"""Parts of benchmarks/gpu.sh, each a call of its own, so that one that hangs takes no other along. Not yet measured on a GPU.

    python -m benchmarks.gpu about machine decode batch profile runs mamba_ssm --json gpu.json [--device cpu --toy]

With --device cpu --toy it is a rehearsal: all code runs, and no figure means anything.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import decode, runs
from benchmarks.__main__ import about as about_here
from benchmarks.turns import median_seconds
from ecg_batch.bundled import BUNDLED
from ecg_batch.kernels.build import gpu_kernels, kernels
from ecg_batch.models import decode as models_decode
from ecg_batch.request.parse import load_request
from ecg_batch.run.planning import make_plan
from ecg_batch.synthesis import cuda
from ecg_batch.synthesis.batch import candidate_rows, draw_tokens
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer

COPIED = 1 << 30  # bytes
BATCHES = 8  # made one after another, two in flight


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=list(PARTS), metavar="PART", help=f"any of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, required=True, help="to which the figures are added; profile.txt goes beside it")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--toy", action="store_true", help="few and small, for a test")
    parser.add_argument("--commit", help="of the code, where there is no repository")
    args = parser.parse_args(words)
    for part in args.parts:
        rows = PARTS[part](args)
        add(args.json, {part: rows})
        for row in rows if isinstance(rows, list) else [{"what": f"{key}: {value}"} for key, value in rows.items()]:
            print(f"{row['what']:<58} {row.get('value', ''):>12.5} {row.get('unit', ''):<12} {row.get('beside', '')}", flush=True)
    return 0


def add(path: Path, figures: dict) -> None:
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(before | figures, indent=1) + "\n", encoding="utf-8")


def row(what: str, value: float, unit: str) -> dict:
    return {"what": what, "value": value, "unit": unit}


def about(args: argparse.Namespace) -> dict:
    here = about_here([]) | {"command": f"benchmarks/gpu.sh, on {args.device}", "kernels": kernels(), "GPU kernels": gpu_kernels()}
    if args.commit:
        here["commit"] = args.commit
    if args.toy:
        here["rehearsal"] = "at toy size: no figure means anything"
    if args.device == "cuda":
        one = torch.cuda.get_device_properties(0)
        here["GPU"] = f"{one.name}, {one.multi_processor_count} multiprocessors, {one.total_memory / 2**30:.0f} GB"
        here["CUDA"] = torch.version.cuda
    return here


def machine(args: argparse.Namespace) -> list[dict]:
    """What memory and float32 products without TF32 do at best, to hold the others against."""
    wide, size = (256, 1 << 20) if args.toy else (8192, COPIED)
    a = torch.randn(wide, wide, device=args.device)
    there, host = torch.ones(size, dtype=torch.uint8, device=args.device), torch.ones(size, dtype=torch.uint8)
    host, other = host.pin_memory() if args.device == "cuda" else host, torch.empty_like(there)
    candidates = {
        "float32 product": lambda: a @ a,
        "copy on the device, bytes read and written": lambda: other.copy_(there),
        "copy to the device, pinned": lambda: there.copy_(host, non_blocking=True),
        "copy from the device, pinned": lambda: host.copy_(there, non_blocking=True),
    }
    seconds = median_seconds({name: waited(run, args.device) for name, run in candidates.items()}, rounds(args))
    done = dict.fromkeys(candidates, size / 1e9) | {"float32 product": 2 * wide**3 / 1e12}
    done["copy on the device, bytes read and written"] *= 2
    return [row(name, done[name] / took, "TFLOP/s" if name == "float32 product" else "GB/s") for name, took in seconds.items()]


def decoding(args: argparse.Namespace) -> list[dict]:
    return decode.measure(min(rounds(args), 3), args.device, None, *sizes(args))


def beside_mamba_ssm(args: argparse.Namespace) -> list[dict]:
    """Its own generation beside our two loops. Without causal_conv1d, its convolution and our CUDA graph are torch's."""
    mamba, (size, tokens) = models_decode.load_models(BUNDLED, args.device).mamba, sizes(args)
    theirs = decode.mamba_ssm_run(mamba, size, tokens)
    if not theirs:
        raise SystemExit("mamba_ssm is not installed, or cannot be imported")
    ours = {"ours": lambda: decode.ours(mamba, size, tokens), "CUDA graph": decode.on_gpu(mamba, size, tokens)["CUDA graph"]}
    seconds = median_seconds(ours | theirs, rounds(args))
    return [row(name, size / took, "records/s") for name, took in seconds.items()]


def batch(args: argparse.Namespace) -> list[dict]:
    """A batch of configs/published.yaml: its stages on the device, each waited for; then whole ones, two in flight."""
    synthesizer, queries_of = opened(args)
    request, models = synthesizer.request, synthesizer.models
    asked = [queries_of(at, at + request.batch) for at in range(0, BATCHES * request.batch, request.batch)]
    rows = candidate_rows(synthesizer, asked[0])[:, 0]
    tokens, noise = draw_tokens(synthesizer, asked[0], rows)
    noise = noise.to(tokens.device)
    begun = cuda.begin(synthesizer, asked[0])
    candidates = {
        "draw random numbers, make tokens": waited(lambda: draw_tokens(synthesizer, asked[0], rows), args.device),
        "make texture": waited(lambda: models_decode.decode_texture(models, tokens, noise), args.device),
        "begin, until the host is free": lambda: cuda.begin(synthesizer, asked[0]),
        "begin, until it has arrived": waited(lambda: cuda.begin(synthesizer, asked[0]), args.device),
        "complete: checked, drawn again": lambda: cuda.complete(synthesizer, begun),
    }
    seconds = median_seconds(candidates, rounds(args))
    start = time.perf_counter()
    made = sum(len(one.ecg) for one in cuda.make_batches_on_device(synthesizer, asked))
    whole = row(f"{len(asked)} batches, one process, nothing written", made / (time.perf_counter() - start), "records/s")
    return [row(f"{name}, {request.batch} records", 1e3 * took, "ms") for name, took in seconds.items()] + [whole]


def profile(args: argparse.Namespace) -> list[dict]:
    """What the device does in two batches, longest first. The whole table is in profile.txt."""
    synthesizer, queries_of = opened(args)
    asked = [queries_of(at, at + synthesizer.request.batch) for at in (0, synthesizer.request.batch)]
    list(cuda.make_batches_on_device(synthesizer, asked[:1]))  # kernels are compiled and loaded
    kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * (args.device == "cuda")
    with torch.profiler.profile(activities=kinds) as found:
        list(cuda.make_batches_on_device(synthesizer, asked))
    average, at = found.key_averages(), "self_device_time_total" if args.device == "cuda" else "self_cpu_time_total"
    table = average.table(sort_by=at, row_limit=60, max_name_column_width=90)
    args.json.with_name("profile.txt").write_text(table, encoding="utf-8")
    longest = sorted(average, key=lambda event: -getattr(event, at))[:15]
    return [row(event.key[:80], getattr(event, at) / 1e3, "ms") | {"beside": f"{event.count} times"} for event in longest]


def whole_runs(args: argparse.Namespace) -> list[dict]:
    return runs.measure(1, "cpu", 512) if args.toy else runs.measure(1, args.device, 4096)


MEASURED: dict[str, Callable] = {
    "machine": machine, "decode": decoding, "batch": batch, "profile": profile, "runs": whole_runs
}  # fmt: skip
PARTS = {"about": about, **MEASURED, "mamba_ssm": beside_mamba_ssm}


def sizes(args: argparse.Namespace) -> tuple[int, int]:
    """Records decoded together, and tokens of each."""
    return (64, 5) if args.toy else (1024, decode.TOKENS)


def rounds(args: argparse.Namespace) -> int:
    return 1 if args.toy else 5


def waited(run: Callable, device: str) -> Callable:
    def whole() -> None:
        run()
        if device == "cuda":
            torch.cuda.synchronize()

    return whole


def opened(args: argparse.Namespace):
    """The synthesizer of configs/published.yaml on this device, and the queries of its records."""
    size = 64 if args.toy else 1024
    request = load_request(runs.PUBLISHED, [f"device={args.device}", f"batch={size}", f"shard={size}", f"records={BATCHES * size}"])
    plan, _ = make_plan(request)
    return open_synthesizer(plan), query_source(plan.request, Path("no table"))


if __name__ == "__main__":
    sys.exit(main())
