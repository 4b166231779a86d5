"""What all tests share: Hypothesis's profiles."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# The gate must say the same thing every time, on a slow machine too; "make soak" searches further.
settings.register_profile(
    "gate", derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("soak", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))
