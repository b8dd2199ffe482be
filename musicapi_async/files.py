"""Files on the disk: writes that are whole or absent, locks, and files of a previous run.

A file is written under a temporary name beside its place, `<name>.part`, synced, and renamed. The temporary
file is always a new one. Others may be able to write to the folder, so a file of that name is removed and
never opened: it may be a link to a file of the user's, or a pipe on which opening would wait for ever.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from .arguments import refused

if sys.platform == "win32":
    NO_FOLLOW: Final = os.O_BINARY
else:
    NO_FOLLOW: Final = os.O_NOFOLLOW | os.O_NONBLOCK

COMPARED: Final = 256 * 1024
"""Bytes of two files that are compared at once."""


def expand(path: str | os.PathLike[str]) -> Path:
    """Return `path` with a leading `~` as the home folder; unchanged if there is none, as in a shell.

    Raises `RequestValidationError` for what no system call takes: no text, or text with a null character.
    """
    if not _is_path(path):
        raise refused("path", "text without null characters, or a path", f"{path!r:.100}")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _is_path(path: object) -> bool:
    if isinstance(path, str):
        return "\0" not in path
    return isinstance(path, os.PathLike) and _is_path(cast("os.PathLike[str]", path).__fspath__())


def fault_in_words(error: BaseException) -> str:
    """Return the text of an error; of one of the system its words alone, without number and path.

    Mutagen puts such an error into one of its own.
    """
    for one in (error, *error.args[:1]):
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
    return str(error)


def open_new(path: Path, *, private: bool = False) -> BinaryIO:
    """Open a new empty file for reading and writing; a file or link of that name is removed, never followed.

    A `private` file can be read by its owner only, elsewhere the user's umask decides.
    """
    path.unlink(missing_ok=True)
    mode = 0o600 if private else 0o666
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW, mode), "w+b")


def open_old(path: Path, *, write: bool = False) -> BinaryIO | None:
    """Open a file of a previous run; None if there is no plain file with this one name.

    A symbolic link, a pipe, or a second name of another file is none of a previous run.
    """
    try:
        if not _is_plain(path.lstat()):
            return None
        descriptor = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | NO_FOLLOW)
    except FileNotFoundError:
        return None
    file = os.fdopen(descriptor, "r+b" if write else "rb")
    if _is_plain(os.fstat(descriptor)):
        return file
    file.close()
    return None


def open_lock(path: Path) -> BinaryIO:
    """Open a file that is held as a lock, making it if it is missing; `OSError` for a link.

    It can be read by its owner only.
    """
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | NO_FOLLOW, 0o600), "r+b")


def lock(file: BinaryIO) -> None:
    """Hold a file until it is closed or the process dies; `BlockingIOError` if another one holds it.

    Each opening holds it for itself, so two of them in one process exclude each other, too.
    """
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_held(path: Path) -> bool:
    """Return True if `path` is a plain file that someone holds with `lock`."""
    file = open_old(path)
    if file is None:
        return False
    with file:
        try:
            lock(file)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
    return False


def _is_plain(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_nlink <= 1


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Generator[BinaryIO, None, None]:
    """Yield a new file that takes the name `path`, whole and on the disk, when the block ends.

    The folder is made if it is missing. A `private` file can be read by its owner only. After an error the
    file that had the name is as it was, and no other remains beside it. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        file = open_new(part, private=private)
    except FileExistsError:  # made by another one since it was removed
        raise BeingWrittenError(part) from None
    try:
        with file:
            yield file
            written = sync(file)
        give_name(written, part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file that appears under its name only when it is whole and on the disk; see `replacing`."""
    with replacing(path, private=private) as file:
        file.write(data)


def make_first(path: Path, data: bytes) -> bool:
    """Make a file that can be read by its owner only, if nothing has its name; return True if it was made.

    Of all processes and machines that try, one makes it. Others may find it before its data is there, and it
    remains empty if the process is killed in that moment. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        sync(file)
    sync_folder(path.parent)
    return True


def sync(file: BinaryIO) -> os.stat_result:
    """Force the content of `file` to the disk; return the identity of the file, for `give_name`."""
    file.flush()
    os.fsync(file.fileno())
    return os.fstat(file.fileno())


class BeingWrittenError(FileExistsError):
    """Another process has begun to write the same file; its own is as good."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EEXIST, "another process is writing it", str(path))


def give_name(written: os.stat_result, part: Path, path: Path) -> None:
    """Rename the synced file `part` to `path`, for good. `written` proves that it still is that file.

    Raises `OSError`: `BeingWrittenError` if another process has begun to write the same file meanwhile.
    """
    try:
        is_mine = os.path.samestat(written, part.lstat())
    except FileNotFoundError:  # the other one has given it its name
        is_mine = False
    if not is_mine:
        raise BeingWrittenError(part)
    try:
        os.replace(part, path)
    except FileNotFoundError:  # in this moment
        raise BeingWrittenError(part) from None
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlive a loss of power, where the system offers that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def same_bytes(one: Path, other: Path) -> bool:
    """Return True if two files have the same content."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(COMPARED):
            if chunk != second.read(COMPARED):
                return False
    return True
