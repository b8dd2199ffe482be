"""Files on the disk: names that every file system takes, and writes that are whole or absent.

A file is written under a temporary name beside its place, `<name>.part`, synced, and renamed. The temporary
file is always a new one. Others may be able to write to the folder, so whatever has that name is removed and
never opened: it may be a link to a file of the user's, or a pipe on which opening would wait for ever.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import unicodedata
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

NAME_BYTES: Final = 150
"""Bytes of a file name without its extension; file systems allow 255."""

RESERVED: Final = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
UNSAFE: Final = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')

if sys.platform == "win32":
    NO_FOLLOW: Final = os.O_BINARY
else:
    NO_FOLLOW: Final = os.O_NOFOLLOW | os.O_NONBLOCK


def safe_name(text: str, limit: int = NAME_BYTES) -> str:
    """`text` as a file name that every common file system takes; '' if nothing is left of it."""
    visible = "".join(c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c)[0] != "C")
    name = " ".join(UNSAFE.sub(" ", visible).split())
    name = name.encode("utf-8", "ignore")[:limit].decode("utf-8", "ignore").strip(" .")
    return f"_{name}" if RESERVED.fullmatch(name) else name


def expand(path: str | os.PathLike[str]) -> Path:
    """`path` with a leading `~` as the home folder; as it is where there is no such home, as in a shell."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def open_new(path: Path, *, private: bool = False) -> BinaryIO:
    """Open a new empty file for reading and writing; what had the name is removed, never followed.

    A `private` file can be read by its owner only, elsewhere the user's umask decides.
    """
    path.unlink(missing_ok=True)
    mode = 0o600 if private else 0o666
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_FOLLOW, mode), "w+b")


def open_old(path: Path, *, write: bool = False) -> BinaryIO | None:
    """Open a file that an earlier run left; None if there is no plain file with this one name.

    A symbolic link, a pipe, or a second name of another file is not what an earlier run left.
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

    It is held by whoever opened it, so two openings in one process exclude each other, too.
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
    file that had the name is as it was, and nothing is left beside it. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    file = open_new(part, private=private)
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


def sync(file: BinaryIO) -> os.stat_result:
    """Have what was written to `file` on the disk; returns what identifies the file, for `give_name`."""
    file.flush()
    os.fsync(file.fileno())
    return os.fstat(file.fileno())


def give_name(written: os.stat_result, part: Path, path: Path) -> None:
    """Rename the synced file `part` to `path`, for good. `written` proves that it still is that file.

    Raises `OSError` if another process has begun to write the same file meanwhile.
    """
    if not os.path.samestat(written, part.lstat()):
        raise FileExistsError(errno.EEXIST, "another process is writing it", str(part))
    os.replace(part, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlive a loss of power, where the system can be asked for that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
