"""The lock of a folder that a workflow fills: one run at a time holds it, in whichever process.

The lock is the file `.musicapi/lock` in the folder. It says which process holds it, and the system frees it
when that process dies.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from ..errors import FolderError
from ..files import lock, open_lock
from ..jobs import Owner
from ..jobs.owner import is_alive, this_process

HOME: Final = ".musicapi"
"""What belongs to the runs on a folder, for its owner only."""
OWNER_AT: Final = 1
"""Byte of the lock file where its owner is written. Windows locks the first byte against reading, too."""
OWNER_BYTES: Final = 4096
OWNER_PATIENCE: Final = 0.5
"""Real seconds in which a run that has just taken the lock writes who it is."""

_owner_decoder: Final = msgspec.json.Decoder(Owner)


@contextlib.contextmanager
def locked(folder: Path, *private: str) -> Generator[None]:
    """Hold a folder, which is made if it is missing.

    Args:
        folder: The folder.
        private: Names of folders that are made in `.musicapi`.

    Raises:
        FolderError: Another run holds the folder, and the text names its process; or it cannot be written.
    """
    try:
        _make(folder, private)
        file = open_lock(folder / HOME / "lock")
    except OSError as error:
        raise unwritable(folder, error) from error
    with file:
        try:
            lock(file)
            file.truncate(OWNER_AT)
            file.seek(OWNER_AT)
            file.write(msgspec.json.encode(this_process("")))
            file.flush()
        except BlockingIOError as error:
            raise _held(folder, file) from error
        except OSError as error:
            raise unwritable(folder, error) from error
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(OWNER_AT)


def _make(folder: Path, private: Sequence[str]) -> None:
    """Make the folder, `.musicapi` in it, and folders in that, for their owner only. Raises `OSError`."""
    home = folder / HOME
    folder.mkdir(parents=True, exist_ok=True)
    paths = (home, *(home / name for name in private))
    for path in paths:
        path.mkdir(mode=0o700, exist_ok=True)
    if os.name == "posix" and home.stat().st_mode & 0o077:
        with contextlib.suppress(PermissionError):  # another user's, who lets this one write
            for path in paths:  # of an earlier version, which left them open
                path.chmod(0o700)
    tempfile.TemporaryFile(dir=home).close()


def unwritable(folder: Path, error: OSError) -> FolderError:
    """Return the error of a folder that cannot be written."""
    return FolderError(
        f"the folder {folder} cannot be written: {error.strerror or error}",
        hint="Nothing was sent. Choose another folder.",
    )


def _held(folder: Path, file: BinaryIO) -> FolderError:
    owner = _owner(file)
    process = f" (process {owner.pid} on {owner.host})" if owner is not None else ""
    return FolderError(
        f"another run holds the folder {folder}{process}",
        hint="Nothing was sent. Wait for it, or stop it; or choose another folder.",
    )


def _owner(file: BinaryIO) -> Owner | None:
    """Return the process that holds the lock; None if it does not say so in time."""
    end = time.monotonic() + OWNER_PATIENCE
    while True:
        try:
            file.seek(OWNER_AT)
            owner = _owner_decoder.decode(file.read(OWNER_BYTES))
        except (OSError, msgspec.MsgspecError, ValueError):
            owner = None
        if owner is not None and is_alive(owner) is not False:  # else that of a run that was killed
            return owner
        if time.monotonic() > end:
            return None
        time.sleep(OWNER_PATIENCE / 20)
