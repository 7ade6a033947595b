"""Which compiled kernels this machine runs."""

import pytest

from ecg_batch.kernels.build import BUILDS, OTHER_BITS, kernel

RUNS_HERE = [build for build, _ in BUILDS if kernel(build)]
SAME_BITS = [build for build in RUNS_HERE if build not in OTHER_BITS]  # whatever the width of their vectors
needs_kernel = pytest.mark.skipif(not RUNS_HERE, reason="no compiled kernels: no compiler at install, or no x86-64 or arm64")
needs_two_widths = pytest.mark.skipif(len(SAME_BITS) < 2, reason="this CPU runs one build with fused multiply-add, or none")
needs_usual_bits = pytest.mark.skipif(not SAME_BITS, reason="the golden value is that of x86-64 with AVX2 and FMA")
