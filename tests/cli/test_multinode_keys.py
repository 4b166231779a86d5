"""The MultiNode words of a job beside its test definitions: delayed start, and requests that actions make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import LOCAL, Multinode

pytestmark = pytest.mark.slow

Write = Callable[[str, str], Path]

SECONDARY = """\
job_name: guests behind a host
timeouts: {job: {minutes: 4}, action: {minutes: 3}}
protocols:
  lava-multinode:
    roles:
      host: {device_type: board, count: 1, timeout: {minutes: 3}}
      guest:
        connection: ssh
        host_role: host
        request: lava-start
        expect_role: host
        count: 2
        timeout: {minutes: 3}
actions:
- deploy:
    role: [guest]
    to: ssh
    connection: ssh
    protocols:
      lava-multinode:
      - action: prepare-scp-overlay
        request: lava-wait
        messageID: ipv4
        message: {ipaddr: $ipaddr}
        timeout: {minutes: 3}
- boot:
    role: [guest]
    method: ssh
    connection: ssh
    parameters: {hostID: ipv4, host_key: ipaddr}
- test:
    role: host
    definitions:
    - from: inline
      name: host
      path: inline/host.yaml
      repository:
        run:
          steps:
          - lava-send ipv4 ipaddr=10.0.0.9
          - lava-send lava_start
          - lava-wait-all address guest
          - sort /tmp/lava_multi_node_cache.txt
          - test "$(sort /tmp/lava_multi_node_cache.txt | tr '\\n' ' ')" = "2:at=10.0.0.9 3:at=10.0.0.9 "
          - lava-sync done
- test:
    role: [guest]
    protocols:
      lava-multinode:
      - action: lava-test-shell
        request: lava-send
        messageID: address
        message: {at: $ipaddr}
    definitions:
    - from: inline
      name: guest
      path: inline/guest.yaml
      params: {HOST: $ipaddr, KEPT: $other}
      repository:
        run:
          steps:
          - test "$CONNECTED_TO" = 10.0.0.9
          - test "$HOST,$KEPT" = '10.0.0.9,$other'
          - lava-sync done
"""

DEVICES = """\
devices:
  board: {device_type: board, console: {command: sh}}
  connection:
    device_type: ssh
    count: 2
    console: {command: env CONNECTED_TO=$ipaddr sh}
"""


def test_guests_start_when_their_host_says_so_and_connect_to_its_address(multinode: Multinode, write: Write) -> None:
    ran = multinode("run", write("job.yaml", SECONDARY), "--devices", write("devices.yaml", DEVICES))
    assert ran.status == 0, ran.out + ran.err
    events = [json.loads(line) for line in (ran.output / "events.jsonl").read_text().splitlines()]
    told = [(event["job"], event["event"]) for event in events if event["event"] in {"opening", "testing"}]
    assert set(told[:2]) == {("1", "opening"), ("1", "testing")}, "guests open nothing before the host's test runs"
    assert len(told) == 6


def test_a_device_cannot_put_words_into_a_command_of_this_host(multinode: Multinode, write: Write) -> None:
    job = SECONDARY.replace("ipaddr=10.0.0.9", "ipaddr=-oProxyCommand=x")
    ran = multinode("run", write("job.yaml", job), "--devices", write("devices.yaml", DEVICES))
    assert ran.status == 1, ran.out + ran.err
    expected = "the console's $ipaddr would be '-oProxyCommand=x', which is no host's name or address"
    assert [ran.reason(member, "lava", "job") for member in (2, 3)] == [expected] * 2


def test_a_request_that_fails_names_its_line(multinode: Multinode, write: Write) -> None:
    job = SECONDARY.replace("lava-send ipv4 ipaddr=", "lava-send ipv4 address=")
    ran = multinode("run", write("job.yaml", job), "--devices", write("devices.yaml", DEVICES))
    assert ran.status == 1, ran.out + ran.err
    path = write("job.yaml", job)
    assert ran.reason(2, "lava", "job") == f"{path}:21: ipv4 has come without the key 'ipaddr'"


def test_a_host_that_never_starts_its_guests_ends_them_with_the_reason(multinode: Multinode, write: Write) -> None:
    job = SECONDARY.replace("- lava-send lava_start", '- "false"')
    ran = multinode("run", write("job.yaml", job), "--devices", write("devices.yaml", DEVICES))
    assert ran.status == 1, ran.out + ran.err
    assert "the delayed start waits for lava_start of role 'host': " in ran.reason(2, "lava", "job")


def test_requests_of_a_boot_and_of_a_repeated_test_are_made_by_the_members_of_its_role(
    multinode: Multinode, write: Write
) -> None:
    job = """\
job_name: t
timeouts: {job: {minutes: 3}}
protocols: {lava-multinode: {roles: {a: {device_type: board, count: 1}, b: {device_type: board, count: 1}}}}
actions:
- boot:
    role: a
    method: minimal
    protocols: {lava-multinode: [{action: x, request: lava-send, messageID: up, message: {n: 5}}]}
- boot:
    role: b
    method: minimal
    protocols:
      lava-multinode:
      - {request: lava-wait-all, role: a, messageID: up, message: {n: $n}}
      - {request: lava-send, messageID: up}
- test:
    role: [a, b]
    repeat: 2
    protocols: {lava-multinode: [{request: lava-sync, messageID: s}]}
    definitions:
    - {from: inline, name: x, repository: {params: {N: $n}, run: {steps: ['test "$(lava-role)$N" != b$n']}}}
"""
    ran = multinode("run", write("job.yaml", job), "--devices", LOCAL)
    assert ran.status == 0, ran.out + ran.err
    suites = sorted((case["job"], case["name"]) for case in ran.results)
    assert suites == [("1", "0_x"), ("1", "1_x"), ("2", "0_x"), ("2", "1_x")]
