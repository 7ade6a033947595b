"""The token loop in Triton: in its interpreter, through its compiler for an H200, which needs none, and on a GPU where one is."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from places import ROOT, TESTS

NEEDED = "triton is not installed: torch for CUDA brings it, and .[dev]"
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason=NEEDED)
COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from ecg_batch.kernels import token_loop_triton as loop

types = dict(zip(loop._loop.arg_names, "*i64 *fp32 *fp32 *fp64 *i64 i32 i32 fp32 *fp32 *fp32".split()))
sizes = dict(ROWS=loop.RECORDS, K=512, D=64, IN=128, N=16, R=loop.RANK)
source = ASTSource(loop._loop, types | dict.fromkeys(sizes, "constexpr"), sizes)
made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": loop.WARPS})
print(made.metadata.shared, len(made.asm["cubin"]), made.asm["ptx"].count("mma"))
"""


def told(*words: str, **environment: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(TESTS)]), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))])
def found(request) -> dict:
    interpreted = {"TRITON_INTERPRET": "1"} if request.param == "cpu" else {}
    return json.loads(told(str(TESTS / "triton_cases.py"), request.param, **interpreted))


@pytest.mark.slow
def test_tokens_are_those_of_the_plain_loop(found):
    """Sums round otherwise, and exponentials on a GPU: a record whose uniform lies that near to a border goes another way. Between
    other float32 loops that is 1 in 30,000 tokens (docs/evidence/performance.md); here at most 6, and one more.
    """
    assert found["fits"] == [True, True, False]
    for case in ("bundled", "cold", "tiny"):
        compared = found[case]
        assert compared["others"] <= 1 + compared["records"] * compared["tokens"] * 6 / 30_000 and compared["kinds"] > 10
        assert compared["ssm"] < 1e-4 and compared["conv"] < 1e-4
    assert found["alone"], "a record's tokens depend on its neighbours"
    assert found["ends"][0][0] == found["ends"][0][2] == 0 and found["ends"][0][1] == found["ends"][0][3] == 63
    assert found["none"] == [0, 4]


@pytest.mark.slow
def test_it_compiles_for_an_h200(tmp_path):
    """The compiler needs no GPU. No product is of TF32, and a multiprocessor of an H200 has 227 KB of shared memory."""
    shared, size, tensor_cores = map(int, told("-c", COMPILED, TRITON_CACHE_DIR=str(tmp_path)).split())
    assert shared <= 227 * 1024 and size > 10_000 and tensor_cores == 0
