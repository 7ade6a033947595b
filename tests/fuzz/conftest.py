"""Two profiles of hypothesis: `ci`, the same examples each time, and `long`, others each time, which long.py runs by the hour."""

import logging

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

# fixtures hold what is costly to make, and each example puts back what it changed
KNOWN = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture,
                                                     HealthCheck.data_too_large, HealthCheck.filter_too_much]}  # fmt: skip
settings.register_profile("ci", max_examples=100, derandomize=True, database=None, **KNOWN)
settings.register_profile("long", max_examples=2000, print_blob=True, database=None, **KNOWN)
# Else examples also come from the numbers and texts in whatever modules are loaded by then, which differ from worker to worker.
providers._get_local_constants = providers.Constants
if settings.get_current_profile_name() != "long":  # --hypothesis-profile=long may have come before
    settings.load_profile("ci")


@pytest.fixture(autouse=True, scope="module")
def quiet():
    """Thousands of warnings about odd rows and files would hide a finding."""
    log = logging.getLogger("ecg_batch")
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(logging.NOTSET)
