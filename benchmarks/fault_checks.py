"""What a cell of the fault matrix notes, and what every error and text is looked at for."""

from __future__ import annotations

import contextvars
import logging
import pickle
import re
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from fault_cases import MARK, SECRET
from rich.pretty import pretty_repr

from musicapi_async import MusicAPIError

DOUBLE = "double sends"
UNTRUE = "untrue texts"
STATE = "jobs that disagree"
PICKLE = "errors that do not pickle"
LEAK = "secrets shown"
FOREIGN = "foreign errors"
LOST = "results lost"
KINDS = (DOUBLE, UNTRUE, STATE, PICKLE, LEAK, FOREIGN, LOST)


@dataclass
class Cell:
    """What was seen of one fault and one call."""

    name: str
    log: list[str] = field(default_factory=list[str])
    faults: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def fails(self, kind: str, why: str) -> None:
        """Note a failure, once."""
        if (kind, why) not in self.faults:
            self.faults.append((kind, why))

    def expect(self, holds: bool, kind: str, why: str) -> None:
        """Note a failure unless it holds."""
        if not holds:
            self.fails(kind, why)


current: contextvars.ContextVar[Cell | None] = contextvars.ContextVar("current", default=None)
unattributed: list[str] = []


class Notebook(logging.Handler):
    """Gives each line of the log to the cell that wrote it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Format as a file would have it, trace included."""
        cell = current.get()
        (unattributed if cell is None else cell.log).append(self.format(record))


def shows_secret(text: str) -> str:
    """Which secret a text shows, whole or its beginning, in any spelling; '' for none."""
    plain = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    plain = unquote(re.sub(r"\\+/", "/", plain))
    for name, mark in (("the API key", MARK), ("the webhook secret", SECRET[: len(MARK)])):
        if mark in plain or mark in text:
            return name
    return ""


def check_secrets(cell: Cell, where: str, text: str | bytes) -> None:
    """No secret in a text."""
    shown = shows_secret(text if isinstance(text, str) else text.decode("latin-1"))
    cell.expect(not shown, LEAK, f"{shown} in {where}")


def check_files(cell: Cell, folder: Path) -> None:
    """No secret in the files of a store."""
    for path in folder.iterdir():
        check_secrets(cell, f"the file {path.name}", path.read_bytes())


def check_error(cell: Cell, error: BaseException) -> None:
    """Whatever error it is: of the package, picklable and equal after it, and without secrets everywhere."""
    if not isinstance(error, MusicAPIError):
        cell.fails(FOREIGN, f"{type(error).__module__}.{type(error).__name__}: {str(error)[:80]}")
        return
    check_secrets(cell, f"str({type(error).__name__})", str(error))
    check_secrets(cell, f"repr({type(error).__name__})", repr(error))
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    for cause in chain[1:]:
        check_secrets(cell, f"the cause {type(cause).__name__}", f"{cause}\n{cause!r}")
    looked_at: set[int] = set()
    for link in chain:
        if "echo" not in cell.name:  # what a reply repeats is data, and stays as it came
            check_locals(cell, link, looked_at)
    try:
        raw = pickle.dumps(error)
        again = pickle.loads(raw)
    except Exception as failure:
        cell.fails(PICKLE, f"{type(error).__name__}: {type(failure).__name__}: {str(failure)[:80]}")
        return
    check_secrets(cell, f"the pickle of {type(error).__name__}", raw)
    told = difference(error, again)
    cell.expect(not told, PICKLE, f"{type(error).__name__} comes back with another {told}")


def check_locals(cell: Cell, error: BaseException, looked_at: set[int]) -> None:
    """What a traceback with locals shows of the package's own objects."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if not frame.f_globals.get("__name__", "").startswith("musicapi_async"):
            continue
        for value in list(frame.f_locals.values()):
            kind = type(value)
            own = kind.__module__.startswith("musicapi_async") and not isinstance(value, BaseException)
            if not own or id(value) in looked_at:
                continue
            looked_at.add(id(value))
            check_secrets(cell, f"repr({kind.__name__}) in a traceback with locals", repr(value))
            if hasattr(kind, "__rich_repr__"):
                check_secrets(cell, f"rich's repr of {kind.__name__} in a traceback", pretty_repr(value))


def difference(one: BaseException, other: BaseException) -> str:
    """In what two errors differ; '' if in nothing."""
    if type(one) is not type(other):
        return "type"
    if str(one) != str(other) or repr(one) != repr(other):
        return "text"
    mine, its = dict(vars(one)), dict(vars(other))
    for values in (mine, its):
        values.pop("__notes__", None)
    if repr(mine) != repr(its):
        return "field"
    if (one.__cause__ is None) != (other.__cause__ is None):
        return "cause"
    if isinstance(one.__cause__, MusicAPIError) and isinstance(other.__cause__, BaseException):
        return difference(one.__cause__, other.__cause__)
    return ""
