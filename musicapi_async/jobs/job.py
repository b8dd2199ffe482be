"""A job: one paid call as it is stored, with its request, its owner and the tasks that it made."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import msgspec

from ..api.families import makes_tasks
from ..api.json_values import JSON, list_or_empty, mapping_or_empty
from ..api.local_files import NO_FILES
from ..api.request import SECRET, picture, without_secrets
from ..api.task import TaskRef
from ..plain_data import PlainData

JobState = Literal["reserved", "sent", "accepted", "finished", "failed", "ambiguous"]
"""The life of a paid call.

- `reserved`: a process is about to send the call; nothing was sent.
- `sent`: the call may have been sent; its response has not come yet.
- `accepted`: the service returned a task id; the task is paid for.
- `finished`: the task succeeded, at least in part, or a direct call has its reply.
- `failed`: the task failed; `refunded` is what the service reports.
- `ambiguous`: the call was sent, and it is unknown if it was carried out.
"""
STATES: Final[tuple[JobState, ...]] = get_args(JobState)
DELIVERY: Final = frozenset({"webhook_url"})
"""Fields that say where results are sent, not what to make: calls with one key may differ in them."""


BATCH_KIND: Final = "create_batch"
"""The operation whose calls make one task for each of their items."""

_encoder: Final = msgspec.json.Encoder(order="sorted")


MADE_UP_KEY: Final = re.compile(r"auto-[0-9a-f]{32}")


def new_key() -> str:
    """Return a job key for a call without one.

    It comes from the system's random source: forked processes, or generators with the same seed, would draw
    equal keys, and the second call would be taken for a repetition of the first.
    """
    return f"auto-{os.urandom(16).hex()}"


def is_made_up(key: str) -> bool:
    """Return True for a job key that `new_key` made.

    A caller who uses such a key has it from a handle or an error, and means that call, not a new one.
    """
    return MADE_UP_KEY.fullmatch(key) is not None


class Owner(PlainData, msgspec.Struct, frozen=True):
    """The process that reserved a job key.

    `namespace` is the namespace of process ids, because a `pid` is unique only within one; '' if the system
    has none or it was not recorded. `started` and `boot` distinguish the process from a later one with the
    same `pid`; `nonce` distinguishes its reservations.
    """

    host: str
    boot: str
    pid: int
    started: str
    nonce: str = ""
    namespace: str = ""


class JobTask(PlainData, msgspec.Struct, frozen=True, kw_only=True):
    """One item of a job: its task, or the reason why it has none.

    `ref` is None if the service refused the item (then `outcome` is 'failed'), or if nothing is known of it
    yet. When the task has ended, `outcome` is 'succeeded', 'partial' or 'failed', `refunded` is what the
    service reports, and `error` is the reason of a failure. `by_webhook` is True while only a webhook has
    named the task.
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
    """The request of a job, in a form in which two requests can be compared.

    `body` is the JSON body with sorted keys. `hidden` has the names of the fields that were sent but are not
    stored, because they are secret. `items` is the number of tasks that the call makes: 1, or more for a
    batch. `files` has the SHA-256 of each local file, by the field with its link: the files are compared, not
    their links, because a file may have another link each time that it is published.
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
        """The fields of the body; if the body is no object, it is the field 'json'."""
        body: JSON = msgspec.json.decode(self.body)
        return body if isinstance(body, dict) else {"json": body}

    @property
    def is_batch(self) -> bool:
        """True for a batch, which has one task for each item."""
        return self.kind == BATCH_KIND

    @property
    def makes_tasks(self) -> bool:
        """True if the call makes tasks; False if it is answered directly, as that for a persona is."""
        return makes_tasks(self.family, self.kind, self.call)

    @property
    def leaves(self) -> Mapping[str, Any]:
        """The fields of the body; those of a batch have names such as 'items[0].title'."""
        fields = self.fields
        if not self.is_batch:
            return fields
        items = enumerate(map(mapping_or_empty, list_or_empty(fields.get("items"))))
        inner = {f"items[{n}].{name}": value for n, item in items for name, value in item.items()}
        return {name: value for name, value in fields.items() if name != "items"} | inner


class Job(PlainData, msgspec.Struct, frozen=True, kw_only=True):
    """The record of one paid call. It has the request, but never the API key or a webhook secret.

    Args:
        key: the caller's job key, or a made-up one; together with `account` it identifies the job.
        state: the state, see `JobState`.
        request: the request.
        created_at: the Unix time at which the job was recorded, by the clock of the machine that stored it.
        updated_at: the Unix time of the last change.
        account: the account (see `MusicAPI(account=...)`); '' in files of versions that did not store it.
        owner: the process that reserved the key.
        tasks: one entry for each item of the request, when something is known of one; else empty.
        reply: the JSON of the service's reply.
        outcome: 'succeeded', 'partial' or 'failed' when all tasks have ended, else ''.
        refunded: the service's report on the credits of a failed task.
        why: the reason for which the job is ambiguous or failed.
        balance_before: the credits before the call, with `check_balance=True`: evidence, not proof, because
            other calls and refunds change the balance, too.
        balance_after: the credits after a call of unknown outcome, likewise.
        attempts: 1, and one more for each `resubmit`.
        previous: the job before the last `resubmit`.
        others: tasks that were named for this key and are not its result: those of previous sends, and those
            that a webhook named while a later send was under way.
        disputed: ids of tasks that webhooks named for another job, too.
        is_readable: False if the stored record is damaged. Then only key, account, state, tasks and
            `created_at` are known, and `why` says what is wrong.
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
        """The task that the call made, for a batch the first one; None if there is none yet."""
        return next(iter(self.refs), None)

    @property
    def task_id(self) -> str | None:
        """The id of `task`; None if there is none yet."""
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
    value: JSON = msgspec.json.decode(body) if body else None
    places = [value] if isinstance(value, dict) else []
    if kind == BATCH_KIND and places:
        places += map(mapping_or_empty, list_or_empty(places[0].get("items")))
    hidden = tuple(sorted(name for name in SECRET if any(fields.get(name) for fields in places)))
    stored = _encoder.encode(without_secrets(value)).decode()
    return JobRequest(call, base_url, stored, family, kind, hidden, items, files)


def item_of(request: JobRequest, item: int) -> Mapping[str, Any]:
    """Return the fields of one item of a batch; of another request all of its fields."""
    if not request.is_batch:
        return request.fields
    items = list_or_empty(request.fields.get("items"))
    return mapping_or_empty(items[item]) if item < len(items) else {}


def difference(before: JobRequest, now: JobRequest) -> list[str]:
    """Return one line for each field in which two requests differ; empty if they ask for the same.

    Two different calls have different fields, which say nothing more.
    """
    lines = [
        f"{name}: {old!r} before, {new!r} now"
        for name, old, new in (
            ("call", before.call, now.call),
            ("base_url", before.base_url, now.base_url),
        )
        if old != new
    ]
    if before.call == now.call and (before.body, before.files) != (now.body, now.files):
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
