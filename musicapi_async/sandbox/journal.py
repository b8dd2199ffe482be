"""Everything that reached the sandbox, in order: the request, the reply, the cost.

It says how many creates arrived, at what rate, and if anything was paid twice.
It is bounded: the oldest entries go first, and the bodies of old entries go before the entries themselves.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, overload

import msgspec

from .declared_settings import checked

_access_log: Final = logging.getLogger("musicapi_async.sandbox.access")
_access_log.setLevel(logging.WARNING)  # in a process with a client, its log has the same calls already

BODY_BYTES: Final = 64 * 1024 * 1024
"""Bytes of request bodies that a journal stores; a policy of this package."""


@dataclass(slots=True)
class Entry:
    """One request to the sandbox, or one delivery of a webhook by it.

    `at` is the time in API seconds since the sandbox started. `status` is 0 if no response was sent. `charge`
    has the credits that the request cost; `refunded` is True after they were returned. `key_sent` is True if
    the request had an API key (requests for media must not). `fault` is the name of the injected fault.
    """

    at: float
    method: str
    path: str
    kind: str
    raw: bytes = b""
    status: int = 0
    task_id: str = ""
    charge: float = 0.0
    refunded: bool = False
    key_sent: bool = False
    fault: str = ""
    request_id: str = ""
    event: str = ""
    """Of a delivery: `song.completed`, ..."""
    number: int = 0
    """Its place in the journal, from 1 on; never used twice."""

    @property
    def body(self) -> object:
        """The JSON of the request; None if there was none, or none that could be read."""
        try:
            return msgspec.json.decode(self.raw) if self.raw else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None


def log_access(entry: Entry) -> None:
    """Write one request or delivery to the log `musicapi_async.sandbox.access`, if its level is INFO."""
    if not _access_log.isEnabledFor(logging.INFO):
        return
    parts = [f"{entry.at:.1f} s", entry.method, entry.path, str(entry.status or "no response")]
    if entry.charge:
        parts.append(f"{entry.charge:g} credits")
    parts += [text for text in (entry.event, entry.task_id, entry.fault) if text]
    line = " ".join(parts)  # escaped, since the sender of a request chooses its path
    _access_log.info("%s", line.encode("unicode_escape").decode())


class Journal(Sequence[Entry]):
    """The journal of a sandbox: its last `size` entries, oldest first, as a sequence."""

    @checked
    def __init__(self, size: int = 100_000) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self._entries: deque[Entry] = deque(maxlen=size)
        self._bodied: deque[Entry] = deque()
        self._bytes = 0
        self._first = 1
        self.last: int = 0
        """The number of the newest entry, be it forgotten."""
        self._changes: dict[int, Entry] | None = None
        self.dropped: int = 0
        """How many entries were forgotten to stay within the size."""

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return list(self._entries)[index]
        return self._entries[index]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries))

    def __repr__(self) -> str:
        return f"<Journal: {len(self)} entries, {len(self.creates)} creates, {self.charges:g} credits>"

    def add(self, entry: Entry) -> Entry:
        """Append an entry; remove the oldest one if the journal is full."""
        if len(self._entries) == self._entries.maxlen:
            self.dropped += 1
        self.last = entry.number = max(entry.number, self.last + 1)
        self._entries.append(entry)
        self.touch(entry)
        return entry

    def touch(self, entry: Entry) -> None:
        """Note that an entry has changed, for the state."""
        if self._changes is not None:
            self._changes[entry.number] = entry

    def track(self) -> None:
        """Begin to track changes."""
        self._changes = {}

    def changes(self) -> tuple[list[Entry], int | None]:
        """Return the entries that changed and are not written yet, and the number of the oldest of all.

        The number is None if no entry can have been forgotten since the last write.
        """
        first = self._oldest()
        changed = [entry for entry in (self._changes or {}).values() if entry.number >= first]
        return changed, first if first != self._first else None

    def written(self) -> None:
        """Forget the changes: they are written."""
        self._changes, self._first = {}, self._oldest()

    def _oldest(self) -> int:
        return self._entries[0].number if self._entries else self.last + 1

    def after(self, number: int) -> Iterator[Entry]:
        """Yield the entries whose number is greater, oldest first."""
        first = self._entries[0].number if self._entries else 0
        start = max(0, number - first + 1)
        return iter(tuple(itertools.islice(self._entries, start, None)))

    def newest(self, count: int) -> list[Entry]:
        """Return the newest entries, oldest first."""
        return list(itertools.islice(reversed(self._entries), count))[::-1]

    def store_body(self, entry: Entry, raw: bytes) -> None:
        """Store the body of an entry; bodies of older ones are dropped above `BODY_BYTES`."""
        entry.raw = raw
        self.touch(entry)
        if raw:
            self._bodied.append(entry)
            self._bytes += len(raw)
        while self._bodied and (self._bytes > BODY_BYTES or len(self._bodied) > len(self._entries)):
            oldest = self._bodied.popleft()
            self._bytes -= len(oldest.raw)
            oldest.raw = b""
            self.touch(oldest)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._bodied.clear()
        self._bytes = 0
        self.dropped = 0

    def requests(
        self,
        path: str | None = None,
        method: str | None = None,
        *,
        kind: str | None = None,
        task_id: str | None = None,
    ) -> list[Entry]:
        """Return the requests that match all given arguments.

        Args:
            path: The path below `/api/v1`; it may end with `*`.
            method: The method.
            kind: "create", "direct", "poll", "account", "media", "other", or "webhook": the deliveries of the
                sandbox, which are in no other list.
            task_id: The task that was made or polled.
        """

        def fits(entry: Entry) -> bool:
            return (
                (entry.kind != "webhook" or kind == "webhook")
                and (method is None or entry.method == method.upper())
                and (kind is None or entry.kind == kind)
                and (task_id is None or entry.task_id == task_id)
                and (
                    path is None
                    or entry.path == path
                    or (path.endswith("*") and entry.path.startswith(path[:-1]))
                )
            )

        return [entry for entry in self if fits(entry)]

    @property
    def creates(self) -> list[Entry]:
        """The creates that arrived, including refused ones."""
        return [entry for entry in self if entry.kind == "create"]

    @property
    def polls(self) -> list[Entry]:
        """The polls of tasks."""
        return [entry for entry in self if entry.kind == "poll"]

    @property
    def webhooks(self) -> list[Entry]:
        """The deliveries of webhooks, including failed ones."""
        return [entry for entry in self if entry.kind == "webhook"]

    @property
    def charges(self) -> float:
        """The credits that were charged and not refunded."""
        return sum(entry.charge for entry in self if not entry.refunded)

    def charged_twice(self) -> list[list[Entry]]:
        """Return groups of charged requests with the same path and body: what was paid for more than once.

        Give each song its own title, so that different songs have different bodies. Refunded charges do not
        count.
        """
        groups: dict[tuple[str, bytes], list[Entry]] = {}
        for entry in self:
            if entry.charge > 0 and not entry.refunded and entry.kind in ("create", "direct"):
                groups.setdefault((entry.path, entry.raw), []).append(entry)
        return [group for group in groups.values() if len(group) > 1]

    def peak(self, period: float) -> int:
        """Return the largest number of creates that arrived within any `period` of API seconds."""
        times = sorted(entry.at for entry in self.creates)
        most = first = 0
        for last, at in enumerate(times):
            while at - times[first] >= period:
                first += 1
            most = max(most, last - first + 1)
        return most

    def intervals(self) -> list[float]:
        """Return the API seconds between each create and the next one."""
        return [after - before for before, after in itertools.pairwise(e.at for e in self.creates)]

    def tally(self) -> Counter[str]:
        """Return the number of entries of each kind."""
        return Counter(entry.kind for entry in self)
