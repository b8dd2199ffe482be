"""Requests: msgspec Structs whose fields carry their limits and their help text.

A request is checked here, before it costs a round trip: `violations` names every field that breaks a limit.
`body` is what goes on the wire. Neither touches the network, so both are tested as plain functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Final, cast, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from ..errors import RequestValidationError, Violation
from ..options import is_protected
from .spelling import did_you_mean
from .values import KNOWN, LINK, SHORTEST_SECRET, WebhookSecret, WebhookUrl

LOCAL: Final = "local"
"""`Meta(extra={LOCAL: True})` marks a field that steers this client and is never sent."""

PUBLIC_LINK: Final = "a public link, http:// or https://"
"""The limit of such a field."""

PUBLISH: Final = (
    "The service takes no files: put the file where everybody can fetch it, and give its link. "
    "musicapi_async.workflows.extend and cover do that with uploader=..., an async function."
)
"""What to do with a local file."""

SECRET: Final = frozenset({"webhook_secret"})
"""Fields whose value appears in no error text and no repr."""


class Request(msgspec.Struct, kw_only=True):
    """The base of all requests. Subclasses add fields, and rules over several fields in `rules`."""

    def rules(self) -> Iterator[Violation]:
        """Rules over several fields; single fields carry their limits themselves."""
        yield from ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={shown}' for name, shown in self._shown())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The same as `repr`: that of msgspec would show secrets in tracebacks with locals."""
        return [(name, _Shown(shown)) for name, shown in self._shown()]

    def _shown(self) -> Iterator[tuple[str, str]]:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None:
                yield name, "..." if name in SECRET else picture(value)


class _Shown(str):
    """A text whose repr is itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Hooked(Request, kw_only=True):
    """A request whose result can be told to a webhook."""

    webhook_url: WebhookUrl | None = None
    webhook_secret: WebhookSecret | None = None

    def rules(self) -> Iterator[Violation]:
        """A webhook must be https, except to this machine itself, where a sandbox delivers it."""
        if self.webhook_url and not is_protected(self.webhook_url):
            yield Violation("webhook_url", "an https address", picture(self.webhook_url))


class GetMusic(Request):
    """Look at a task once, as it is now. A task that failed gives an update with `error` set."""

    task_id: Annotated[str, Meta(min_length=1, description="Task id, from any create of the family.")]


class FieldInfo(msgspec.Struct, frozen=True):
    """A field of a request: its type, its limit in words, its help text, and whether it is sent."""

    name: str
    hint: Any
    required: bool
    default: Any
    limit: str
    description: str
    local: bool
    type: msgspec.inspect.Type
    link: bool = False
    known: tuple[str, ...] = ()

    @property
    def known_words(self) -> str:
        """The known values in words; empty if there are none."""
        return f"known for {self.name}: {', '.join(self.known)}" if self.known else ""


@cache
def fields(cls: type[Request]) -> tuple[FieldInfo, ...]:
    """The fields of a request class, from its annotations; the one source of help, checks and options."""
    hints = get_type_hints(cls, include_extras=True)
    info = cast("msgspec.inspect.StructType", msgspec.inspect.type_info(cls))
    found: list[FieldInfo] = []
    for field in info.fields:
        description, extra = _described(field.type)
        found.append(
            FieldInfo(
                name=field.name,
                hint=hints[field.name],
                required=field.required,
                default=None if field.default is msgspec.NODEFAULT else field.default,
                limit=PUBLIC_LINK if extra.get(LINK) else limit_of(field.type),
                description=description,
                local=bool(extra.get(LOCAL)),
                type=field.type,
                link=bool(extra.get(LINK)),
                known=tuple(extra.get(KNOWN, ())),
            )
        )
    return tuple(found)


def _described(kind: msgspec.inspect.Type) -> tuple[str, dict[str, Any]]:
    if isinstance(kind, msgspec.inspect.Metadata):
        meta = cast("Any", kind)  # msgspec types both dictionaries without their keys
        told = cast("dict[str, Any]", meta.extra_json_schema or {})
        return told.get("description", ""), cast("dict[str, Any]", meta.extra or {})
    if isinstance(kind, msgspec.inspect.UnionType):
        for member in kind.types:
            if isinstance(member, msgspec.inspect.Metadata):
                return _described(member)
    return "", {}


def limit_of(kind: msgspec.inspect.Type) -> str:
    """The limit of a type in words, such as 'text of at most 80 characters'."""
    inspect = msgspec.inspect
    match kind:
        case inspect.Metadata():
            return limit_of(kind.type)
        case inspect.UnionType():
            known = [limit_of(member) for member in kind.types if not isinstance(member, inspect.NoneType)]
            return " or ".join(dict.fromkeys(known))
        case inspect.StrType():
            if kind.max_length is not None:
                return f"text of at most {kind.max_length} characters"
            if kind.min_length and kind.min_length > 1:
                return f"text of at least {kind.min_length} characters"
            return "text, not empty" if kind.min_length else "text"
        case inspect.BoolType():
            return "True or False"
        case inspect.IntType() | inspect.FloatType():
            noun = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
            low, high = kind.ge, kind.le
            if low is not None and high is not None:
                return f"{noun} from {low:g} to {high:g}"
            return f"{noun} of at least {low:g}" if low is not None else noun
        case inspect.ListType():
            low, high = kind.min_length, kind.max_length
            item = limit_of(kind.item_type)
            if low is not None and low == high:
                return f"a list of exactly {low}, each {item}"
            return f"a list of at most {high}, each {item}" if high is not None else f"a list, each {item}"
        case inspect.StructType():
            return "an object"
        case _:
            return "a JSON value"


def picture(value: object) -> str:
    """A short picture of a value for an error text: long text by its length, never whole."""
    if isinstance(value, str):
        return repr(value) if len(value) <= 40 else f"{len(value)} characters"
    if isinstance(value, list | tuple):
        return f"{len(cast('list[object]', value))} items"
    if isinstance(value, bool | int | float) or value is None:
        return repr(value)
    return type(value).__name__


def secrets_in(value: object) -> Iterator[str]:
    """The secrets in a JSON value, however deep."""
    if isinstance(value, Mapping):
        for name, inner in cast("Mapping[object, object]", value).items():
            if name in SECRET and isinstance(inner, str) and inner:
                yield inner
            else:
                yield from secrets_in(inner)
    elif isinstance(value, list | tuple):
        for inner in cast("Sequence[object]", value):
            yield from secrets_in(inner)


def secrets_of(sent: bytes | None, call: str) -> tuple[str, ...]:
    """The webhook secrets in a JSON body; refuses one that is too short, whatever else is checked.

    The limit is ours, that of the service is unknown: an ordinary word is easily guessed, and it could not be
    hidden in texts without making them unreadable.
    """
    if sent is None or not any(f'"{name}"'.encode() in sent for name in SECRET):
        return ()
    return check_secrets(secrets_in(msgspec.json.decode(sent)), call)


def check_secrets(secrets: Iterable[str], call: str) -> tuple[str, ...]:
    """The webhook secrets, if all are long enough to order webhooks with."""
    found = tuple(secrets)
    if any(len(secret) < SHORTEST_SECRET for secret in found):
        limit = f"text of at least {SHORTEST_SECRET} characters"
        raise refuse([Violation("webhook_secret", limit, "a secret")], call)
    return found


def without_secrets(value: object) -> object:
    """A JSON value without its secrets, however deep."""
    if isinstance(value, Mapping):
        fields = cast("Mapping[object, object]", value)
        return {name: without_secrets(inner) for name, inner in fields.items() if name not in SECRET}
    if isinstance(value, list | tuple):
        return [without_secrets(inner) for inner in cast("Sequence[object]", value)]
    return value


def violations(request: Request) -> list[Violation]:
    """Every rule that `request` breaks: first field by field, then those over several fields."""
    found: list[Violation] = []
    for field in fields(type(request)):
        value = getattr(request, field.name)
        if value is None and not field.required:
            continue
        if value == "" and not field.required:
            continue  # an empty optional text is left out, as if it were not given
        if not _fits(value, field.hint):
            shown = "a secret" if field.name in SECRET else picture(value) + _meant(field.name, value)
            limit = f"{field.limit} ({field.known_words})" if field.known else field.limit
            found.append(Violation(field.name, limit, shown))
        elif field.link and not _is_link(value):
            found.append(Violation(field.name, field.limit, picture(value)))
    if not found:
        found.extend(request.rules())
    return found


def _is_link(value: object) -> bool:
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        return parts is not None and parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _meant(name: str, value: object) -> str:
    """What to give of an object that holds the value of a field: of a clip its id."""
    wanted = "clip_id" if name.endswith("clip_id") else name
    if isinstance(getattr(value, wanted, None), str):
        return f": pass its {wanted}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = cast("Sequence[object]", value)
        if items and isinstance(getattr(items[0], wanted, None), str):
            return f": pass the {wanted} of one of them"
    return ""


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return False
    try:
        if isinstance(value, str):
            value.encode()  # a lone surrogate cannot be sent
        elif isinstance(value, list | tuple | dict):
            msgspec.json.encode(value)
            value = msgspec.to_builtins(value)  # a Struct in it is checked as what is sent
        msgspec.convert(value, hint)
    except (msgspec.ValidationError, UnicodeError, TypeError, RecursionError):
        return False
    return True


def refuse(found: list[Violation], call: str) -> RequestValidationError:
    """The error for `found`, which must not be empty."""
    first = found[0]
    text = "; ".join(str(violation) for violation in found)
    hint = PUBLISH if any(violation.limit == PUBLIC_LINK for violation in found) else ""
    return RequestValidationError(
        text, field=first.field, limit=first.limit, value=first.value, violations=found, call=call, hint=hint
    )


def unknown_words(request: Request) -> str:
    """The known values of fields that hold another one, for the error of a service that refused them."""
    told: list[str] = []
    for field in fields(type(request)):
        value: object = getattr(request, field.name)
        if field.known and isinstance(value, str) and value and value not in field.known:
            near = did_you_mean(value, field.known)
            told.append(f"{field.name} {picture(value)} is not known here{near}; {field.known_words}.")
    return " ".join(told)


def body(request: Request) -> dict[str, Any]:
    """The JSON object to send: None and empty text are left out, and so are fields that only steer us."""
    local = _local(type(request))
    built = cast("dict[str, Any]", msgspec.to_builtins(request))
    return {name: value for name, value in built.items() if value not in (None, "") and name not in local}


@cache
def _local(cls: type[Request]) -> frozenset[str]:
    return frozenset(field.name for field in fields(cls) if field.local)


def window(start: float | None, end: float | None, first: str, last: str) -> Iterator[Violation]:
    """Two bounds in seconds: both or neither, the end after the start."""
    if (start is None) != (end is None):
        missing = first if start is None else last
        yield Violation(missing, f"{first} and {last} belong together", "only one of them")
    else:
        yield from in_order(start, end, first, last)


def in_order(start: float | None, end: float | None, first: str, last: str) -> Iterator[Violation]:
    """Two bounds in seconds that may come alone: the end after the start."""
    if start is not None and end is not None and end <= start:
        yield Violation(last, f"a number greater than {first}", f"{end:g} after {start:g}")
