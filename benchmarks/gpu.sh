#!/usr/bin/env bash
# Installs, tests and measures what `device: cuda` does, on a bare machine with a GPU, torch for CUDA, Triton, a C++ compiler and no
# network, in 8 minutes at most. Each step has its own time; one that fails or takes longer is noted, and the next begins.
#
#   benchmarks/gpu_wheels.sh .gpu                  first, where PyPI is: what such a machine lacks, into the folder .gpu
#   OUT=results benchmarks/gpu.sh .gpu             there, in the checkout with that folder: figures in results/gpu.json
#   OUT=results benchmarks/gpu.sh --rehearse       anywhere: the same steps at toy size on the CPU, nothing installed; no figure counts
#   OUT=results benchmarks/gpu.sh .gpu --rehearse  the same on a machine like that one, without its GPU: installing too
#
# Not yet run on a GPU. Settings: PYTHON (python3), BUDGET_S (480).
set -euo pipefail
cd "$(dirname "$0")/.."
wheels='' toy=''
for word; do
    if [ "$word" = --rehearse ]; then toy=1; else wheels=$(realpath "$word"); fi
done
[ -n "$wheels$toy" ] || { echo "say the folder that benchmarks/gpu_wheels.sh filled, or --rehearse"; exit 2; }
: "${OUT:?say where the results go: OUT=results benchmarks/gpu.sh ...}" "${PYTHON:=python3}" "${BUDGET_S:=480}"
mkdir -p "$OUT"
OUT=$(realpath "$OUT") scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
rm -f "$OUT"/{gpu.json,log.txt,mamba_ssm.txt,nvidia-smi.txt,profile.txt}
export PYTHONPATH=$scratch/site:$PWD OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 TMPDIR=$scratch TRITON_CACHE_DIR=$scratch/triton

note() { # a step, how it ended, the seconds it took
    "$PYTHON" - "$OUT/gpu.json" "$@" <<'PYTHON'
import json, pathlib, sys
path, step, ended, took = pathlib.Path(sys.argv[1]), *sys.argv[2:]
figures = json.loads(path.read_text()) if path.exists() else {}
figures.setdefault("steps", {})[step] = {"ended": ended, "seconds": int(took)}
path.write_text(json.dumps(figures, indent=1) + "\n")
PYTHON
    echo "$1: $2, $3 s"
}

step() { # its name, the most seconds it may take, and its command
    local name=$1 most=$2 began=$SECONDS ended=well status=0
    shift 2
    ((BUDGET_S - SECONDS > most)) || most=$((BUDGET_S - SECONDS))
    if ((most < 3)); then
        note "$name" "not begun: the $BUDGET_S s were over" 0
        return
    fi
    echo "== $name" >>"$OUT/log.txt"
    timeout --kill-after=3 "$most" "$@" >>"$OUT/log.txt" 2>&1 || status=$?
    ((status == 0)) || ended="exit status $status, see log.txt"
    ((status != 124 && status != 137)) || ended="cut off after $most s"
    note "$name" "$ended" $((SECONDS - began))
}

# mamba_ssm without causal_conv1d, which it can do without: of its dozen CUDA files the one that generating in float32 calls, for this
# GPU alone. All of them, for all GPUs, would take nvcc half an hour. A group of its own, so that all of it can be ended.
build_mamba_ssm() {
    cd "$scratch"
    tar xzf "$wheels"/mamba_ssm-*.tar.gz
    cd mamba_ssm-*/
    "$PYTHON" - <<'PYTHON'
import pathlib, re, torch
setup, scan = pathlib.Path("setup.py"), pathlib.Path("csrc/selective_scan/selective_scan.cpp")
other = r'cc_flag\.append\("-gencode"\)\s*cc_flag\.append\("arch=compute_(?!%d%d,).*\)' % torch.cuda.get_device_capability()
unused = r'\s*"csrc/selective_scan/selective_scan_(?!fwd_fp32).*\.cu",'
setup.write_text(re.sub(unused, "", re.sub(other, "pass", setup.read_text())))
kept = "template <> void selective_scan_fwd_cuda<float, %s>(SSMParamsBase &, cudaStream_t);\n"
text = re.sub(r"(void selective_scan_[fb]wd_cuda\(.*stream\));", r'\1 { TORCH_CHECK(false, "left out"); }', scan.read_text())
at = text.index("void set_ssm_params_fwd")
scan.write_text(text[:at] + kept % "float" + kept % "c10::complex<float>" + text[at:])
PYTHON
    [ ! -e /usr/local/cuda/include/cuda_runtime.h ] || export CUDA_HOME=${CUDA_HOME:-/usr/local/cuda}
    MAMBA_FORCE_BUILD=TRUE "$PYTHON" -m pip install --no-index --no-deps --no-build-isolation --target "$scratch/mamba" . &&
        touch "$scratch/built"
}

rehearsal=()
[ -z "$toy" ] || rehearsal=(--device cpu --toy)
measure() { # a part, the most seconds it may take
    step "$1" "$2" "$PYTHON" -m benchmarks.gpu "$1" --json "$OUT/gpu.json" "${rehearsal[@]}"
}

nvidia-smi >"$OUT/nvidia-smi.txt" 2>&1 || true
commit=()
if [ -n "$wheels" ]; then
    step install 60 "$PYTHON" -m pip install --no-index --no-deps --no-compile --target "$scratch/site" "$wheels"/*.whl
    [ ! -e "$wheels/commit" ] || commit=(--commit "$(cat "$wheels/commit")")
fi
compgen -G 'ecg_batch/kernels/*.so' >/dev/null || step kernels 100 "$PYTHON" setup.py --quiet build_ext --inplace --parallel 3
builder=
if [ -z "$toy" ] && compgen -G "$wheels/mamba_ssm-*.tar.gz" >/dev/null; then
    (set -m; (build_mamba_ssm) >"$OUT/mamba_ssm.txt" 2>&1 & echo $! >"$scratch/builder")
    builder=$(cat "$scratch/builder")
fi
step about 60 "$PYTHON" -m benchmarks.gpu about --json "$OUT/gpu.json" "${rehearsal[@]}" "${commit[@]}"
tests=(tests/kernels/test_token_loop_triton.py::test_tokens_are_those_of_the_plain_loop # in Triton's interpreter it is CI's
    tests/models/test_cuda_graph.py::test_graph_on_a_gpu_makes_the_plain_tokens
    tests/synthesis/test_cuda.py::test_on_a_gpu_records_are_pure_and_bounded)
[ -z "$toy" ] || tests=(tests/models/test_cuda_graph.py::test_the_captured_step_makes_the_plain_tokens_and_state)
step tests 120 "$PYTHON" -m pytest -q -p no:cacheprovider -k 'not cpu' "${tests[@]}"
if [ -n "$builder" ]; then # nothing is measured beside it
    while kill -0 "$builder" 2>/dev/null && ((SECONDS < BUDGET_S - 240)); do sleep 1; done
    kill -9 -- "-$builder" 2>/dev/null || true
    [ -e "$scratch/built" ] && ended=well || ended="failed or cut off, see mamba_ssm.txt"
    note 'build of mamba_ssm' "$ended" "$SECONDS"
fi
measure machine 30
measure decode 120
measure batch 40
if [ -e "$scratch/built" ]; then
    PYTHONPATH=$scratch/mamba:$PYTHONPATH measure mamba_ssm 40
fi
measure runs 170
measure profile 40
"$PYTHON" -c 'import json, sys; print(json.dumps(json.load(open(sys.argv[1])), indent=1))' "$OUT/gpu.json"
