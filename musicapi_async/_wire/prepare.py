"""Prepare the request of an operation, or of a bare path: checked, encoded, with its limits.

Pure: nothing is sent or waited for here. The cost that a request may have (`kind`), the lane that it queues
in, and the time for one attempt follow from the declaration of its operation; a path that no operation
declares is taken to cost credits and to make tasks.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import FrameType
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import msgspec

from ..api.account import Account
from ..api.batches import CreateBatch
from ..api.families import FAMILIES, family_in
from ..api.json_values import list_or_empty, mapping_or_empty, text_or_none
from ..api.operation import Operation
from ..api.producer import RETIRED_TASK_TYPES
from ..api.request import SECRET, GetMusic, Request, body, check_secrets, refuse, secrets_of, violations
from ..api.task import TaskRef
from ..arguments import check_parts, check_text, is_mapping, refused
from ..errors import RequestValidationError
from ..options import ATTEMPT_TIMEOUT, POLL_TIMEOUT, Options, check_id, leaves_folder
from . import codec
from .retry import MethodKind

MOST_PATHS: Final = 1024
"""Prepared polls that are cached: 0.6 MB at most."""

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""Methods of untyped calls."""

PACKAGE: Final = __name__.partition(".")[0]

PathOf = Callable[[str], str]
"""Gives the path at a host of a declared path: sister hosts may have another word in it."""


class PreparedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is ready to be sent.

    `call` names it in errors and logs, such as `POST /sonic/create`. `family` and `operation` are those of
    the declaration, '' for an untyped call; `model` and `format` are those that a create requests, `models`
    those of the items of a batch, each of which makes a task. `instead` names what to use where the service
    has retired the endpoint or the task type. `attempt_timeout` is in seconds. `headers` are those that the
    caller adds.
    """

    method: str
    path: str
    call: str
    kind: MethodKind
    lane: str
    params: Mapping[str, str] | None = None
    body: bytes | None = None
    headers: Mapping[str, str] | None = None
    attempt_timeout: float = ATTEMPT_TIMEOUT
    secrets: tuple[str, ...] = ()
    family: str = ""
    operation: str = ""
    model: str = ""
    format: str = ""
    models: tuple[str, ...] = ()
    instead: str | None = None

    def task(self, task_id: str, submitted_at: float, item: int | None = None) -> TaskRef:
        """Return what identifies the task that this request made at `submitted_at`, a Unix time.

        `item` is the place of its item in a batch, if it is known.
        """
        return TaskRef(
            self.family or family_in(self.call),
            task_id,
            self.operation,
            submitted_at,
            model=self.model if item is None else self.models[item],
            own=True,
            format=self.format,
        )

    @property
    def recorded_call(self) -> str:
        """The call with its query as a job store has it: of a secret the name alone."""
        query = self.path.partition("?")[2]
        if not (query or self.params):
            return self.call
        given = (*parse_qsl(query, keep_blank_values=True), *(self.params or {}).items())
        return f"{self.call}?{urlencode([(name, '' if name in SECRET else value) for name, value in given])}"

    def __repr__(self) -> str:
        return f"PreparedRequest({self.call!r}, kind={self.kind!r}, lane={self.lane!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields without the body and the secrets in it, as in `repr`."""
        return [("call", self.call), ("kind", self.kind), ("lane", self.lane)]


def prepare(
    operation: Operation[..., Any], request: Request, options: Options, path_of: PathOf
) -> PreparedRequest:
    """Return the request of an operation.

    Args:
        operation: the declared endpoint.
        request: its arguments.
        options: those of the client view.
        path_of: gives the path at this host.

    Raises:
        RequestValidationError: the service would refuse the request. With `validate="warn"` a broken rule is
            a warning at the line that awaits the call.
    """
    call = operation.call_name
    path = path_of(operation.path)
    if not request.__struct_fields__ and operation.method == "GET":
        return _prepare_query(operation, path, options.attempt_timeout)
    check(request, call, options)
    values = body(request)
    if "{" in path:
        path = fill_path(path, values)
    data: bytes | None = None
    fields: dict[str, Any] = values
    kind: MethodKind = "get"
    params: dict[str, str] | None = None
    instead = operation.replacement
    if operation.method == "GET":
        params = {name: str(one) for name, one in values.items() if f"{{{name}}}" not in operation.path}
    if operation.method != "GET":
        fields = {**values, **(options.extra_body or {})}
        data = codec.encode(fields, call, "the body")
        kind = "create" if operation.charges and not operation.resend else "repeatable"
        if options.extra_body is not None:
            instead = instead or _instead(path, options.extra_body)
    model, wanted = values.get("mv"), values.get("format")
    return PreparedRequest(
        method=operation.method,
        path=path,
        call=call,
        kind=kind,
        lane="submit" if operation.creates else "call",
        params=params or None,
        body=data,
        attempt_timeout=options.attempt_timeout or operation.attempt_timeout or ATTEMPT_TIMEOUT,
        secrets=secrets_of(data, call),
        family=operation.family.word,
        operation=operation.name,
        model=model if operation.submits and isinstance(model, str) else "",
        format=wanted if operation.submits and isinstance(wanted, str) else "",
        models=_models(fields) if isinstance(request, CreateBatch) else (),
        instead=instead,
    )


@lru_cache(maxsize=MOST_PATHS)
def _prepare_query(
    operation: Operation[..., Any], path: str, attempt_timeout: float | None
) -> PreparedRequest:
    """Return the request of an operation without arguments, such as for the balance. It never changes."""
    return PreparedRequest(
        method=operation.method,
        path=path,
        call=operation.call_name,
        kind="get",
        lane="call",
        attempt_timeout=attempt_timeout or operation.attempt_timeout or ATTEMPT_TIMEOUT,
        family=operation.family.word,
        operation=operation.name,
        instead=operation.replacement,
    )


def prepare_raw(  # noqa: PLR0917 - what the caller gave, and where
    method: str,
    path: str,
    options: Options,
    json: object,
    params: Mapping[str, object] | None,
    path_of: PathOf = str,
) -> PreparedRequest:
    """Return the request of an untyped call; see `MusicAPI.request`.

    Args:
        method: the HTTP method, in any case.
        path: the path below the base URL; a query may be part of it.
        options: those of the client view.
        json: the body, None for none.
        params: the query; a parameter that is None is left out.
        path_of: gives the path at this host of a declared one.

    Raises:
        RequestValidationError: a method, path, body or parameter that cannot be sent.
    """
    check_text("method", method)
    check_text("path", path)
    check_parts(params=params)
    verb = method.upper()
    if verb not in METHODS:
        raise refused("method", f"one of {', '.join(METHODS)}", repr(method))
    parts = urlsplit(path)
    odd = any(not "!" <= character <= "~" for character in path)  # white space, control, not ASCII
    if parts.scheme or parts.netloc or parts.fragment or odd or not path.startswith("/") or "\\" in path:
        raise RequestValidationError(
            "path: a path below the base URL such as '/sonic/batch'", field="path", value=repr(path[:80])
        )
    query: dict[str, str] = {}
    for name, value in (params or {}).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestValidationError(f"params: {name} is not finite", field="params")
        if value is not None:
            query[name] = str(value).lower() if isinstance(value, bool) else str(value)
    if leaves_folder(parts.path):
        raise RequestValidationError(
            "path: one without '..' and '%2e', which could lead out of the API",
            field="path",
            value=repr(path[:80]),
        )
    call = f"{verb} {parts.path}"
    known = _declared(path_of).get(call)
    creates = verb != "GET" and (known is None or known.creates)  # an unknown path may make tasks
    data = None if json is None else codec.encode(json, call)
    in_query = [value for name, value in (*parse_qsl(parts.query), *query.items()) if name in SECRET]
    return PreparedRequest(
        method=verb,
        path=path,
        call=call,
        kind="get" if verb == "GET" else "create",
        lane="submit" if creates else "call",
        params=query or None,
        body=data,
        attempt_timeout=options.attempt_timeout or (known and known.attempt_timeout) or ATTEMPT_TIMEOUT,
        secrets=secrets_of(data, call) + check_secrets(in_query, call),
        instead=_instead(path, json),
    )


@lru_cache(maxsize=MOST_PATHS)
def prepare_poll(path: str, task_id: str, attempt_timeout: float | None) -> PreparedRequest:
    """Return the request of a poll: `path` with the task's id in it; cached, as polls repeat."""
    filled = fill_path(path, {"task_id": task_id})
    return PreparedRequest(
        method="GET",
        path=filled,
        call=f"GET {filled}",
        kind="get",
        lane="poll",
        attempt_timeout=attempt_timeout or POLL_TIMEOUT,
    )


BALANCE: Final = _prepare_query(Account.operations()["credits"], "/get-credits", None)
"""The query for the credits of the account."""


def fill_path(path: str, values: Mapping[str, Any]) -> str:
    """Return `/sonic/task/{task_id}` with the id percent-encoded.

    Raises `RequestValidationError` for an id that servers could take for a way to another path.
    """
    for name, value in values.items():
        mark = "{" + name + "}"
        if mark in path:
            path = path.replace(mark, quote(check_id(name, str(value)), safe=""))
    return path


@lru_cache(maxsize=16)  # one for each client, and few have a word of their own in the paths
def _declared(path_of: PathOf) -> Mapping[str, Operation[..., Any]]:
    """Return the operations by call, as they are at this host: those of one call have the same limits."""
    operations = [one for family in FAMILIES.values() for one in family.operations().values()]
    return {f"{one.method} {path_of(one.path)}": one for one in operations}


def _models(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the model of each item of a batch, '' for none."""
    items = list_or_empty(fields.get("items"))
    return tuple(text_or_none(mapping_or_empty(item).get("mv")) or "" for item in items)


def _instead(path: str, fields: object) -> str | None:
    """Return the advice for a task type that Producer has retired; no typed call has one."""
    if not (path.startswith("/producer/") and is_mapping(fields)):
        return None
    kind = fields.get("task_type")
    return RETIRED_TASK_TYPES.get(kind) if isinstance(kind, str) else None


@lru_cache(maxsize=MOST_PATHS)
def is_task_id(task_id: str) -> bool:
    """Return True for an id that breaks no rule of `GetMusic`; cached, as polls repeat."""
    return not violations(GetMusic(task_id=task_id))


def check(request: Request, call: str, options: Options) -> None:
    """Refuse a request that breaks a rule, or warn at the caller's line, as `options.validate` says."""
    if options.validate == "off":
        return
    broken = violations(request)
    if broken and options.validate == "error":
        raise refuse(broken, call)
    for violation in broken:
        warn(f"{call}: {violation}")


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the caller's line: the first one outside this package that waits for the call.

    A task of its own would cut the stack, so warnings are issued before one begins.
    """
    warnings.warn(text, category, stacklevel=outside()[0] - 1)


def outside() -> tuple[int, FrameType | None]:
    """Return the first frame outside this package, and how many frames it is above this one."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE:
        level, frame = level + 1, frame.f_back
    return level, frame
