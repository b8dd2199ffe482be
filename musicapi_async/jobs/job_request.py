"""The request of a job: the one form in which it is stored, and in which two requests are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from ..api.request import SECRET, picture, without_secrets

DELIVERY: Final = frozenset({"webhook_url"})
"""Fields that say where results are sent and not what to make: they may differ under one key."""

_encoder: Final = msgspec.json.Encoder(order="sorted")


class JobRequest(msgspec.Struct, frozen=True):
    """The request of a job, in the one form in which two requests are compared.

    `body` is the JSON body with its keys in order; `hidden` names the fields that were sent and are not
    stored, because they are secret. `items` is the number of tasks that the call makes: 1, or more for a
    batch.
    """

    call: str
    base_url: str
    body: str
    family: str = ""
    kind: str = ""
    hidden: tuple[str, ...] = ()
    items: int = 1

    @property
    def fields(self) -> Mapping[str, Any]:
        """The body's fields; one field 'json' for a body that is no object."""
        body: Any = msgspec.json.decode(self.body)
        return cast("dict[str, Any]", body) if isinstance(body, dict) else {"json": body}


def request_of(base_url: str, call: str, body: bytes, family: str = "", kind: str = "") -> JobRequest:
    """Return the request of a call, without its secrets.

    Args:
        base_url: the base URL of the client.
        call: method and path, such as `POST /sonic/create`.
        body: the JSON body; empty for none.
        family: the family of the operation, '' for an untyped call.
        kind: the name of the operation, '' for an untyped call.
    """
    value: Any = msgspec.json.decode(body) if body else None
    hidden: tuple[str, ...] = ()
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        hidden = tuple(sorted(name for name in SECRET if fields.get(name)))
    stored = _encoder.encode(without_secrets(cast("object", value))).decode()
    return JobRequest(call, base_url, stored, family, kind, hidden)


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
    if before.body != now.body:
        old_fields, new_fields = before.fields, now.fields
        for name in sorted({*old_fields, *new_fields} - DELIVERY):
            old, new = old_fields.get(name), new_fields.get(name)
            if old != new:
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
