"""A job: one paid call as it is stored, with its request, its owner and the tasks that it made."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, cast, get_args

import msgspec

from ..api.json_values import list_or_empty, mapping_or_empty
from ..api.local_files import NO_FILES
from ..api.request import SECRET, picture, without_secrets
from ..api.task import TaskRef
from ..plain_data import PlainData

JobState = Literal["reserved", "sent", "accepted", "finished", "failed", "ambiguous"]
"""The life of a paid call.

- `reserved`: a process is about to send it; nothing has left.
- `sent`: it may have left; the answer is awaited.
- `accepted`: the service gave a task id; it is paid for.
- `finished`: the task ended well, or a direct call was answered.
- `failed`: the task failed; `refunded` is what the service reports.
- `ambiguous`: it was sent, and whether it was carried out is unknown.
"""
STATES: Final[tuple[JobState, ...]] = get_args(JobState)
DELIVERY: Final = frozenset({"webhook_url"})
"""Fields that say where results are sent and not what to make: they may differ under one key."""


BATCH_KIND: Final = "create_batch"
"""The operation whose calls make one task for each of their items."""

_encoder: Final = msgspec.json.Encoder(order="sorted")


MADE_UP_KEY: Final = re.compile(r"auto-[0-9a-f]{32}")


def new_key() -> str:
    """Return a job key for a call that was given none.

    It comes from the system: two processes that were forked from one, or have generators of the same seed,
    would draw the same one, and the second call would be taken for the first.
    """
    return f"auto-{os.urandom(16).hex()}"


def is_made_up(key: str) -> bool:
    """Return True for a job key that `new_key` made. A caller who names it, as a handle or an error gave it,
    means that call and no new one."""
    return MADE_UP_KEY.fullmatch(key) is not None


class Owner(PlainData, msgspec.Struct, frozen=True):
    """The process that has reserved a job key.

    `namespace` is that of the process id, so that a `pid` is compared only where it means the same process;
    '' if the system has none or it was not recorded. `started` and `boot` tell the process from a later one
    with its `pid`; `nonce` tells its reservations apart.
    """

    host: str
    boot: str
    pid: int
    started: str
    nonce: str = ""
    namespace: str = ""


class JobTask(PlainData, msgspec.Struct, frozen=True, kw_only=True):
    """One item of a job: its task, or why it has none.

    `ref` is None for an item that the service refused (then `outcome` is 'failed'), and for one of which
    nothing is known yet. `outcome` is 'succeeded', 'partial' or 'failed' once the task has ended, `refunded`
    what the service reports then, `error` why it failed. `by_webhook` is set while only a webhook has named
    the task.
    """

    ref: TaskRef | None = None
    outcome: str = ""
    refunded: bool | None = None
    error: str = ""
    by_webhook: bool = False

    @property
    def is_decided(self) -> bool:
        """True if the item has a task or was refused."""
        return self.ref is not None or bool(self.outcome)


class JobRequest(PlainData, msgspec.Struct, frozen=True):
    """The request of a job, in the one form in which two requests are compared.

    `body` is the JSON body with its keys in order; `hidden` names the fields that were sent and are not
    stored, because they are secret. `items` is the number of tasks that the call makes: 1, or more for a
    batch. `files` has the SHA-256 of each local file, by the field that holds its link in the body: the file
    is compared, and not the link, which may be another one each time that it is published.
    """

    call: str
    base_url: str
    body: str
    family: str = ""
    kind: str = ""
    hidden: tuple[str, ...] = ()
    items: int = 1
    files: Mapping[str, str] = {}

    @property
    def fields(self) -> Mapping[str, Any]:
        """The body's fields; one field 'json' for a body that is no object."""
        body: Any = msgspec.json.decode(self.body)
        return cast("dict[str, Any]", body) if isinstance(body, dict) else {"json": body}

    @property
    def is_batch(self) -> bool:
        """True for a batch, whose tasks are those of its items."""
        return self.kind == BATCH_KIND

    @property
    def leaves(self) -> Mapping[str, Any]:
        """The body's fields, those of a batch by their item, such as 'items[0].title'."""
        fields = self.fields
        if not self.is_batch:
            return fields
        items = enumerate(map(mapping_or_empty, list_or_empty(fields.get("items"))))
        inner = {f"items[{n}].{name}": value for n, item in items for name, value in item.items()}
        return {name: value for name, value in fields.items() if name != "items"} | inner


class Job(PlainData, msgspec.Struct, frozen=True, kw_only=True):
    """One paid call as it is stored. It holds the request, never the API key or a webhook secret.

    `key` is the caller's job key, or a generated one; with `account` it identifies the job. `account` is that
    of the client (see `MusicAPI(account=...)`), '' in files of versions that did not store it. `tasks` has
    one entry for each item of the request once anything is known of one; `reply` is the JSON of the service's
    answer to the call. `outcome` is 'succeeded', 'partial' or 'failed' once all tasks have ended, `why` the
    reason why a job is ambiguous or failed. `balance_before` and `balance_after` are credits, with
    `check_balance=True`; they are evidence, not proof: other calls and refunds move the balance, too. Times
    are Unix times of the machine that stored them. `attempts` counts the decisions to send: 1, and one more
    for each `resubmit`; `previous` is the job as it was before the last one, with a `previous` of its own if
    that was a resubmit, too. `others` are tasks that were named for this key and are not its result: those of
    previous sends, and what a webhook named while a later one was under way. `disputed` are ids of tasks that
    webhooks named for another job, too. `is_readable` is False for a job whose stored record is damaged: then
    only key, account, state, tasks and `created_at` are known, and `why` says what is wrong.
    """

    key: str
    state: JobState
    request: JobRequest
    created_at: float
    updated_at: float
    account: str = ""
    owner: Owner | None = None
    tasks: tuple[JobTask, ...] = ()
    reply: str = ""
    outcome: str = ""
    refunded: bool | None = None
    why: str = ""
    balance_before: float | None = None
    balance_after: float | None = None
    attempts: int = 1
    previous: Job | None = None
    others: tuple[TaskRef, ...] = ()
    disputed: tuple[str, ...] = ()
    is_readable: bool = True

    @property
    def refs(self) -> tuple[TaskRef, ...]:
        """The tasks that the call made, in the order of its items."""
        return tuple(item.ref for item in self.tasks if item.ref is not None)

    @property
    def task(self) -> TaskRef | None:
        """The task that the call made; of a batch the first. None before there is one."""
        return next(iter(self.refs), None)

    @property
    def task_id(self) -> str | None:
        """The service's id of `task`."""
        return self.task.task_id if self.task is not None else None


# --- the request of a call ----------------------------------------------------------------------------------


def request_of(  # noqa: PLR0917 - as in a recorded request
    base_url: str,
    call: str,
    body: bytes,
    family: str = "",
    kind: str = "",
    files: Mapping[str, str] = NO_FILES,
    *,
    items: int = 1,
) -> JobRequest:
    """Return the request of a call, without its secrets.

    Args:
        base_url: the base URL of the client.
        call: method and path, such as `POST /sonic/create`.
        body: the JSON body; empty for none.
        family: the family of the operation, '' for an untyped call.
        kind: the name of the operation, '' for an untyped call.
        files: the SHA-256 of each local file, by the field of its link.
        items: the number of tasks that it makes.
    """
    value: Any = msgspec.json.decode(body) if body else None
    places = [cast("dict[str, Any]", value)] if isinstance(value, dict) else []
    if kind == BATCH_KIND and places:
        places += map(mapping_or_empty, list_or_empty(places[0].get("items")))
    hidden = tuple(sorted(name for name in SECRET if any(fields.get(name) for fields in places)))
    stored = _encoder.encode(without_secrets(cast("object", value))).decode()
    return JobRequest(call, base_url, stored, family, kind, hidden, items, files)


def item_of(request: JobRequest, item: int) -> Mapping[str, Any]:
    """Return the fields of one item of a batch; of another request all of its fields."""
    if not request.is_batch:
        return request.fields
    items = list_or_empty(request.fields.get("items"))
    return mapping_or_empty(items[item]) if item < len(items) else {}


def difference(before: JobRequest, now: JobRequest) -> list[str]:
    """Return one line for each field in which two requests differ; empty if they ask for the same."""
    lines = [
        f"{name}: {old!r} before, {new!r} now"
        for name, old, new in (
            ("call", before.call, now.call),
            ("base_url", before.base_url, now.base_url),
        )
        if old != new
    ]
    if before.body != now.body or before.files != now.files:
        old_fields, new_fields = before.leaves, now.leaves
        names = {*old_fields, *new_fields}
        for name in sorted(one for one in names if one.rpartition(".")[2] not in DELIVERY):
            old, new = old_fields.get(name), new_fields.get(name)
            old_file, new_file = before.files.get(name), now.files.get(name)
            if old_file is not None and new_file is not None:
                if old_file != new_file:
                    lines.append(f"{name}: the file {old_file[:12]} (SHA-256) before, {new_file[:12]} now")
            elif old != new:
                lines.append(f"{name}: {_excerpt(old, new)} before, {_excerpt(new, old)} now")
    return lines


def _excerpt(value: object, other: object) -> str:
    """A value for the error text; of two long texts the place where they differ."""
    if value is None:
        return "nothing"
    if isinstance(value, str) and isinstance(other, str) and picture(value) == picture(other):
        at = next((i for i, pair in enumerate(zip(value, other, strict=False)) if pair[0] != pair[1]), 0)
        return f"'...{value[max(0, at - 10) : at + 30]}...'"
    return picture(value)
