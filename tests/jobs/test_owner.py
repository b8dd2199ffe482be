"""The owner of a reservation: this process, another one, one that ended, one that cannot be known."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from musicapi_async.jobs import Owner
from musicapi_async.jobs.owner import is_alive, this_process

HERE = this_process("nonce")


def other(**changes: object) -> Owner:
    return msgspec.structs.replace(HERE, **changes)


def test_this_process_lives() -> None:
    """Whatever the nonce of the reservation is."""
    assert is_alive(HERE) is True
    assert is_alive(this_process("another")) is True


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        (other(host="elsewhere"), None),
        (other(namespace="pid:[1]"), None),
        (other(namespace="pid:[1]", boot="before"), None),
        (other(namespace="pid:[1]", pid=2**22 + 1), None),
        (other(namespace=""), True),
        (other(started="before this process"), False),
        (other(pid=2**22 + 1), False),
        (other(boot="before"), False),
        (other(boot=""), None),
        (other(started=""), None),
    ],
)
def test_liveness_is_known_only_where_a_process_id_means_the_same(
    owner: Owner, expected: bool | None
) -> None:
    """Another host or PID namespace is unknown; another boot, start time or a missing process is dead."""
    assert is_alive(owner) is expected


FORKING = """
import os, sys
import msgspec
from musicapi_async.jobs.owner import this_process
before = this_process("nonce")
if os.fork():
    os.wait()
sys.stdout.buffer.write(msgspec.json.encode(this_process("nonce")) + b"\\n")
assert (this_process("nonce") == before) == (os.getpid() == before.pid)
"""


def test_ended_process_is_dead_and_a_fork_is_a_process_of_its_own() -> None:
    """The identity is read once per process, and again in a child; both have ended here."""
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, check=True)
    child, parent = (msgspec.json.decode(line, type=Owner) for line in done.stdout.splitlines())
    assert child.pid != parent.pid
    assert child.namespace == parent.namespace == HERE.namespace
    assert is_alive(child) is False
    assert is_alive(parent) is False
