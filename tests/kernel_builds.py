"""Which compiled kernels this machine runs."""

import pytest

from ecg_batch.kernels.build import BUILDS, kernel

RUNS_HERE = [build for build, _ in BUILDS if kernel(build)]
needs_kernel = pytest.mark.skipif(not RUNS_HERE, reason="no compiled token loop: no compiler at install, or no AVX2 with FMA")
