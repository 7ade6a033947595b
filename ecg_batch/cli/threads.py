"""One thread a process."""

import os

BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")


def one_thread() -> None:
    """To be called before numpy or torch is imported: workers share the cores by process, and sums in another order are other
    bytes.
    """
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    for name in BINDING:  # by OpenMP's rules each of several processes would sit on the first core
        os.environ.pop(name, None)
