"""What all tests share: Hypothesis's profiles, and signals as a terminal has them."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

# The gate must say the same thing every time, on a slow machine too; "make soak" searches further.
settings.register_profile(
    "gate", derandomize=True, deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("soak", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))

# A shell's background job ignores them, and what it starts inherits that.
for _number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)
