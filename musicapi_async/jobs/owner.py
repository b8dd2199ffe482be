"""The process that owns a reservation: who this is, and whether another one still lives.

A process id alone is used again by later processes, and means something else in another PID namespace, such
as that of a container. On Linux the time at which a process started, the id of the boot and the namespace
make it unique; elsewhere a process that ended is noticed, and one that lives is not trusted to be the same.
"""

from __future__ import annotations

import os
import socket
import sys
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from .job import Owner

_STAT: Final = "/proc/{}/stat"
_START_FIELD: Final = 19
"""Position of the start time after the name in /proc/<pid>/stat (field 22, proc_pid_stat(5))."""


@cache
def _this_process() -> Owner:
    """This process without a nonce; read once per process, as it costs a sixth of a recorded create."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    pid = os.getpid()
    return Owner(socket.gethostname(), boot, pid, _started(pid), namespace=namespace)


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_this_process.cache_clear)


def this_process(nonce: str) -> Owner:
    """Return this process as an owner, with a `nonce` for one reservation."""
    return msgspec.structs.replace(_this_process(), nonce=nonce)


def is_alive(owner: Owner) -> bool | None:
    """Return True if the process of `owner` lives, False if it ended, None if that cannot be known here."""
    here = _this_process()
    if owner.host != here.host:
        return None
    if owner.namespace and owner.namespace != here.namespace:
        return None  # a container of the same name: its process ids mean nothing here
    if owner.boot != here.boot:
        return False if owner.boot and here.boot else None
    if owner.started and here.started:
        return _started(owner.pid) == owner.started
    return None if _exists(owner.pid) else False


def _started(pid: int) -> str:
    """When the process started, in the system's own words; '' if that cannot be known."""
    try:
        if not _shows_own_namespace():
            return ""
        stat = Path(_STAT.format(pid)).read_text(encoding="utf-8", errors="replace")
        state, *fields = stat.rpartition(")")[2].split()
        return "" if state in "ZX" else fields[_START_FIELD - 1]
    except (OSError, ValueError, IndexError):
        return ""


def _shows_own_namespace() -> bool:
    """Return False if /proc has the process ids of another namespace, as after `unshare --pid`."""
    return Path("/proc/self").readlink().name == str(os.getpid())


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
