"""The jobs of ``fixtures/jobs`` that are after test definitions in use, run on local shells with their results."""

from __future__ import annotations

import pytest

from .conftest import FIXTURES, LOCAL, Multinode

pytestmark = pytest.mark.slow

PATTERNS: dict[str, dict[str, str]] = {
    "address-pair": {"2 0_client server-address": "pass"},
    "request-reply": {
        "1 0_request-reply finished-at-request": "pass",
        "2 0_request-reply doubled-four-times": "pass",
    },
    "rounds": {f"{member} 0_catcher caught-{number}": "pass" for member in (2, 3) for number in range(1, 6)},
    "leader": {
        "1 0_leader all-joined": "pass",
        "2 0_leader token-is-the-leaders": "pass",
        "3 0_leader token-is-the-leaders": "pass",
    },
    "collect": {f"1 0_collector worker-{member}": "pass" for member in (2, 3, 4)},
    "status": {
        "1 0_builder configure": "pass",
        "1 lava 0_builder": "fail",
        "2 0_tester tests": "skip",
        "2 0_tester told-the-status": "pass",
    },
    "self-test": {
        "1 0_loader start": "pass",
        "1 1_self-test memory": "pass",
        "1 1_self-test clock": "pass",
        "2 0_server started": "pass",
    },
    "public-key": {"1 0_server key-of-2": "pass", "1 0_server key-of-3": "pass"},
}


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_in_use_gives_its_results(name: str, multinode: Multinode) -> None:
    ran = multinode("run", FIXTURES / "jobs" / name / "job.yaml", "--devices", LOCAL)
    found = {f"{case['job']} {case['suite']} {case['name']}": case["result"] for case in ran.results}
    own = {
        case: result
        for case, result in found.items()
        if result != "pass" or (" lava " not in case and " multinode-" not in case)
    }
    assert own == PATTERNS[name], ran.out + ran.err
    assert ran.status == ("fail" in PATTERNS[name].values())
