"""From an operation or a bare path to the request that leaves: checked, encoded, and under its job key."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from .._wire import codec
from ..api.families import FAMILIES
from ..api.operation import Operation
from ..api.request import SECRET, Request, body, check_secrets, refuse, secrets_of, violations
from ..errors import RequestValidationError
from ..options import ATTEMPT_TIMEOUT, Options, leaves_folder
from .recording import Recorder
from .session import Kind, Outgoing, fill_path


def check(request: Request, call: str, options: Options, *, stacklevel: int) -> None:
    """Refuse a request that breaks a rule, or warn at the line that awaits the operation, as was asked."""
    if options.validate == "off":
        return
    found = violations(request)
    if found and options.validate == "error":
        raise refuse(found, call)
    for violation in found:
        warnings.warn(f"{call}: {violation}", stacklevel=stacklevel)


def outgoing(
    operation: Operation[Any, Any], request: Request, options: Options, path_of: Callable[[str], str]
) -> Outgoing:
    """The request of an operation; `RequestValidationError` for one that the service would refuse."""
    call = operation.call_name
    path = path_of(operation.path)
    values: dict[str, Any] = {}
    if request.__struct_fields__:  # one without fields, such as for the balance, costs 2 µs less
        check(request, call, options, stacklevel=6)
        values = body(request)
        path = fill_path(path, values)
    data: bytes | None = None
    if operation.method == "POST":
        data = _encode({**values, **(options.extra_body or {})}, call)
    kind: Kind = "get"
    if operation.method != "GET":
        kind = "create" if operation.charges and not operation.resend else "repeatable"
    return Outgoing(
        method=operation.method,
        path=path,
        call=call,
        kind=kind,
        lane="submit" if operation.submits else "call",
        body=data,
        attempt_timeout=options.attempt_timeout or operation.attempt_timeout or ATTEMPT_TIMEOUT,
        secrets=secrets_of(data, call),
    )


def _encode(values: Mapping[str, object], call: str) -> bytes:
    try:
        return codec.encode(values)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestValidationError(f"the body cannot be sent as JSON: {error}", call=call) from error


@lru_cache(maxsize=16)  # one for each client, and few have a word of their own in the paths
def _declared(path_of: Callable[[str], str]) -> Mapping[str, Operation[Any, Any]]:
    """The operations by call, as they are at this host: those of one call have the same limits."""
    operations = [one for family in FAMILIES.values() for one in family.operations().values()]
    return {f"{one.method} {path_of(one.path)}": one for one in operations}


METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


def raw_outgoing(  # noqa: PLR0917 - what the caller was given, and where
    method: str,
    path: str,
    options: Options,
    json: object,
    params: Mapping[str, object] | None,
    path_of: Callable[[str], str] = str,
) -> Outgoing:
    """The request of an untyped call; `RequestValidationError` for one that cannot be sent."""
    verb = method.upper()
    if verb not in METHODS:
        raise RequestValidationError(
            f"method: one of {', '.join(METHODS)}, got {method!r}", field="method", value=repr(method)
        )
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
    creates = verb != "GET" and (known is None or known.submits)  # what nobody knows may make tasks
    body = None if json is None else encode_any(json, call)
    in_query = [value for name, value in (*parse_qsl(parts.query), *query.items()) if name in SECRET]
    return Outgoing(
        method=verb,
        path=path,
        call=call,
        kind="get" if verb == "GET" else "create",
        lane="submit" if creates else "call",
        params=query or None,
        body=body,
        attempt_timeout=options.attempt_timeout or (known and known.attempt_timeout) or ATTEMPT_TIMEOUT,
        secrets=secrets_of(body, call) + check_secrets(in_query, call),
    )


def encode_any(json: object, call: str) -> bytes:
    """Any JSON value as bytes; `RequestValidationError` for what is none."""
    try:
        return msgspec.json.encode(json)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestValidationError(f"json: cannot be sent as JSON: {error}", call=call) from error


def record(
    out: Outgoing, options: Options, recorder: Recorder, operation: Operation[Any, Any] | None = None
) -> None:
    """Have a call written down that costs credits, or that has a job key."""
    if out.kind == "create" or (out.kind == "repeatable" and options.job_key is not None):
        params = {name: value for name, value in (out.params or {}).items() if name not in SECRET}
        out.recording = recorder.record(
            options.job_key,
            f"{out.call}?{urlencode(params)}" if params else out.call,
            out.body or b"",
            operation.family.word if operation is not None else "",
            operation.name if operation is not None else "",
        )
