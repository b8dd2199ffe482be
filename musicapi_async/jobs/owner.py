"""Which process holds a reservation, and whether it still lives.

A process id alone is used again by later processes. On Linux the time at which a process started and the id
of the boot make it unique; elsewhere a process that is gone is noticed, and one that lives is not trusted to
be the same.
"""

from __future__ import annotations

import os
import socket
import sys
from functools import cache
from pathlib import Path
from typing import Final

from .store import Owner

_STAT: Final = "/proc/{}/stat"
_START_FIELD: Final = 19
"""Position of the start time after the name in /proc/<pid>/stat (field 22, proc_pid_stat(5))."""


@cache
def _machine() -> tuple[str, str]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return socket.gethostname(), boot


def _started(pid: int) -> str:
    """When the process started, in the system's own words; '' if that cannot be told."""
    try:
        stat = Path(_STAT.format(pid)).read_text(encoding="utf-8", errors="replace")
        state, *fields = stat.rpartition(")")[2].split()
        return "" if state in "ZX" else fields[_START_FIELD - 1]
    except (OSError, ValueError, IndexError):
        return ""


def this_process(nonce: str) -> Owner:
    """This process, with a `nonce` for one reservation."""
    host, boot = _machine()
    pid = os.getpid()
    return Owner(host, boot, pid, _started(pid), nonce)


def is_alive(holder: Owner) -> bool | None:
    """Whether the process of `holder` lives; None when that cannot be told from here."""
    host, boot = _machine()
    if holder.host != host:
        return None
    if holder.boot != boot:
        return False
    if holder.started:
        return _started(holder.pid) == holder.started
    return None if _exists(holder.pid) else False


def _exists(pid: int) -> bool:
    if sys.platform == "win32":
        import ctypes

        query_limited_information, still_active = 0x1000, 259  # processthreadsapi.h, winnt.h
        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(query_limited_information, False, pid)
        if not handle:
            return False
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == still_active
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
