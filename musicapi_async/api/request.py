"""Requests: msgspec Structs whose fields carry their limits and their help text.

A request is checked before it costs a round trip: `violations` names every field that breaks a limit.
`body` is the JSON object that is sent. Both are plain functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Annotated, Any, ClassVar, Final, cast, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from ..arguments import is_list, is_mapping
from ..errors import RequestValidationError, Violation
from ..options import is_protected
from .field_limits import (
    KNOWN,
    LINK,
    LOCAL,
    PLACE,
    PROTECTED,
    SHORTEST_SECRET,
    WebhookSecret,
    WebhookUrl,
    has_white_ends,
)
from .json_values import mapping_or_empty, text_or_none
from .suggestions import did_you_mean

PUBLIC_LINK: Final = "a public link, http:// or https://"
"""The limit of a field that the service fetches."""

PUBLISH: Final = (
    "The service takes no files: put the file at a public address, and give its link. "
    "MusicAPI(uploader=...) does that for local files: an async function that takes the path and returns the "
    "link."
)
"""Advice for a local file."""

SECRET: Final = frozenset({"webhook_secret"})
"""Fields whose value appears in no error text and no repr."""


class Request(msgspec.Struct, kw_only=True):
    """The base of all requests. Single fields carry their limits themselves."""

    example: ClassVar[str] = ""
    """A call of the method, for its help, with `{family}` for the word of the family; '' for none."""

    def rules(self) -> Iterator[Violation]:
        """Check the rules that hold between fields."""
        return iter(())

    def as_sent(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON object to send, made of the fields that are given."""
        return values

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, text in self._pictures())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the same as `repr`: that of msgspec would show secrets in tracebacks with locals."""
        return [(name, _Verbatim(text)) for name, text in self._pictures()]

    def _pictures(self) -> Iterator[tuple[str, str]]:
        for name, value in msgspec.structs.asdict(self).items():
            if value is not None:
                yield name, "..." if name in SECRET else picture(value)


class _Verbatim(str):
    """A text whose repr is itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class WebhookFields(Request, kw_only=True):
    """A request whose result the service can send to a webhook."""

    webhook_url: WebhookUrl | None = None
    webhook_secret: WebhookSecret | None = None


class GetMusic(Request):
    """Poll a task once. A task that failed gives an update with `error` set."""

    task_id: Annotated[str, Meta(min_length=1, description="Task id, from any create of the family.")]


class FieldInfo(msgspec.Struct, frozen=True):
    """A field of a request, as declared.

    `type` is its type for msgspec's inspection and `hint` for its conversion, `limit` its limit in words,
    `description` its help text, `known` the known values; `local` fields steer this client and are not sent,
    `link` fields take a public link only, `protected` ones an https address; `place` orders the help, and
    `example` is a value to display where the type does not say enough.
    """

    name: str
    hint: Any
    required: bool
    default: Any
    limit: str
    description: str
    type: msgspec.inspect.Type
    known: tuple[str, ...] = ()
    local: bool = False
    link: bool = False
    protected: bool = False
    place: int = 0
    example: Any = None

    @property
    def known_words(self) -> str:
        """The known values in words; empty if there are none."""
        return f"known for {self.name}: {', '.join(self.known)}" if self.known else ""


@cache
def fields(cls: type[Request]) -> tuple[FieldInfo, ...]:
    """Return the fields of a request class, required ones and those of most use first.

    They are read off the annotations: the one source of help, checks and options.
    """
    hints = get_type_hints(cls, include_extras=True)
    found: list[FieldInfo] = []
    for field in msgspec.structs.fields(cls):
        kind = msgspec.inspect.type_info(field.type)
        meta = _meta_of(kind)
        extra = meta.extra
        found.append(
            FieldInfo(
                name=field.name,
                hint=hints[field.name],
                required=field.required,
                default=None if field.default is msgspec.NODEFAULT else field.default,
                limit=PUBLIC_LINK if extra.get(LINK) else limit_of(kind),
                description=meta.description,
                type=kind,
                known=tuple(extra.get(KNOWN, ())),
                local=bool(extra.get(LOCAL)),
                link=bool(extra.get(LINK)),
                protected=bool(extra.get(PROTECTED)),
                place=extra.get(PLACE, 0),
                example=meta.example,
            )
        )
    return tuple(sorted(found, key=lambda field: (not field.required, field.place)))


class _Meta(msgspec.Struct, frozen=True):
    """The text and the marks of a field."""

    description: str = ""
    extra: dict[str, Any] = {}
    example: Any = None


def _meta_of(kind: msgspec.inspect.Type) -> _Meta:
    match kind:
        case msgspec.inspect.Metadata():
            given = msgspec.structs.asdict(kind)
            schema = mapping_or_empty(given["extra_json_schema"])
            text, examples = text_or_none(schema.get("description")), schema.get("examples")
            example = examples[0] if isinstance(examples, list) and examples else None
            return _Meta(text or "", mapping_or_empty(given["extra"]), example)
        case msgspec.inspect.UnionType():
            annotated = (one for one in kind.types if isinstance(one, msgspec.inspect.Metadata))
            return next(map(_meta_of, annotated), _Meta())
        case _:
            return _Meta()


def limit_of(kind: msgspec.inspect.Type) -> str:
    """Return the limit of a type in words, such as 'text of at most 80 characters'."""
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
            if low is not None and high is not None:
                return f"a list of {low} to {high}, each {item}"
            return f"a list of at most {high}, each {item}" if high is not None else f"a list, each {item}"
        case inspect.StructType() | inspect.DictType():
            return "an object"
        case _:
            return "a JSON value"


def picture(value: object) -> str:
    """Return a short picture of a value for an error text: of a long text its length."""
    if isinstance(value, str):
        return repr(value) if len(value) <= 40 else f"{len(value)} characters"
    if is_list(value):
        return f"{len(value)} items"
    if isinstance(value, bool | int | float) or value is None:
        return repr(value)
    return type(value).__name__


def secrets_in(value: object) -> Iterator[str]:
    """Find the secrets in a JSON value, however deep."""
    if is_mapping(value):
        for name, inner in value.items():
            if name in SECRET and isinstance(inner, str) and inner:
                yield inner
            else:
                yield from secrets_in(inner)
    elif is_list(value):
        for inner in value:
            yield from secrets_in(inner)


def secrets_of(sent: bytes | None, call: str) -> tuple[str, ...]:
    """Return the webhook secrets in a JSON body; refuses one that is too short, even with `validate="off"`.

    The limit is ours, that of the service is unknown: an ordinary word is easily guessed, and it could not be
    hidden in texts without making them unreadable.
    """
    if sent is None or not any(f'"{name}"'.encode() in sent for name in SECRET):
        return ()
    return check_secrets(secrets_in(msgspec.json.decode(sent)), call)


def check_secrets(secrets: Iterable[str], call: str) -> tuple[str, ...]:
    """Return the webhook secrets; raises `RequestValidationError` if one is too short or has white ends."""
    found = tuple(secrets)
    if any(len(secret) < SHORTEST_SECRET or has_white_ends(secret) for secret in found):
        limit = f"text of at least {SHORTEST_SECRET} characters, without white space at its ends"
        raise refuse([Violation("webhook_secret", limit, "a secret")], call)
    return found


def without_secrets(value: object) -> object:
    """Return a copy of a JSON value without its secrets, however deep."""
    if is_mapping(value):
        return {name: without_secrets(inner) for name, inner in value.items() if name not in SECRET}
    if is_list(value):
        return [without_secrets(inner) for inner in value]
    return value


def violations(request: Request) -> list[Violation]:
    """Return every rule that `request` breaks: of single fields, else those that hold between fields."""
    values = msgspec.structs.asdict(request)
    declared = fields(type(request))
    if _all_fit(request, values.values()):
        declared = _marked(type(request))
    found = [broken for field in declared if (broken := _violation(field, values[field.name]))]
    return found or list(_with_defaults(request, values).rules())


def _with_defaults(request: Request, values: Mapping[str, Any]) -> Request:
    """Return the request as its rules take it: None and empty text are as if the field were left out."""
    with_default, others = _optional(type(request))
    changes = {name: default() for name, default in with_default if values[name] in (None, "")}
    if "" in values.values():
        changes |= {name: None for name in others if values[name] == ""}
    return msgspec.structs.replace(request, **changes) if changes else request


@cache
def _optional(cls: type[Request]) -> tuple[tuple[tuple[str, Callable[[], object]], ...], tuple[str, ...]]:
    """Return the fields that have a default, with what makes it, and the others that take no text."""
    with_default: list[tuple[str, Callable[[], object]]] = []
    others: list[str] = []
    for field in msgspec.structs.fields(cls):
        if field.default_factory is not msgspec.NODEFAULT:
            with_default.append((field.name, field.default_factory))
        elif field.default is not None and field.default is not msgspec.NODEFAULT:
            with_default.append((field.name, partial(_itself, field.default)))
        elif field.default is None and not _takes_text(msgspec.inspect.type_info(field.type)):
            others.append(field.name)
    return tuple(with_default), tuple(others)


def _itself(value: object) -> object:
    return value


def _takes_text(kind: msgspec.inspect.Type) -> bool:
    match kind:
        case msgspec.inspect.Metadata():
            return _takes_text(kind.type)
        case msgspec.inspect.UnionType():
            return any(map(_takes_text, kind.types))
        case _:
            return isinstance(kind, msgspec.inspect.StrType)


@cache
def _marked(cls: type[Request]) -> tuple[FieldInfo, ...]:
    """Return the fields of which more is checked than their type."""
    return tuple(field for field in fields(cls) if field.link or field.protected)


def _all_fit(request: Request, values: Iterable[object]) -> bool:
    """Return True if all values fit their fields: simple ones are checked at once."""
    given: dict[str, object] = {}
    for name, value in zip(request.__struct_encode_fields__, values, strict=True):
        if value is None or value == "":
            continue  # left out; of a field that is required, the check fails
        if type(value) not in (int, bool) and not (type(value) is str and value.isascii()):
            return False
        given[name] = value
    try:
        msgspec.convert(given, type(request))
    except msgspec.ValidationError:
        return False
    return True


def _violation(field: FieldInfo, value: Any) -> Violation | None:
    if value in (None, "") and not field.required:
        return None  # left out
    if not _fits(value, field.hint):
        given = "a secret" if field.name in SECRET else picture(value) + _advice(field.name, value)
        limit = f"{field.limit} ({field.known_words})" if field.known else field.limit
        return Violation(field.name, limit, given)
    if field.link and not is_link(value):
        return Violation(field.name, field.limit, picture(value))
    if field.protected and not (isinstance(value, str) and is_protected(value)):
        return Violation(field.name, "an https address", picture(value))
    return None


def is_link(value: object) -> bool:
    """Return True for text that is an http or https link with a host."""
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        return parts is not None and parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _advice(name: str, value: object) -> str:
    """Say which attribute to pass of an object that holds the value of a field: of a clip its id."""
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
    """Return the error for violations, of which there must be one."""
    first = found[0]
    text = "; ".join(str(violation) for violation in found)
    hint = PUBLISH if any(violation.limit == PUBLIC_LINK for violation in found) else ""
    return RequestValidationError(
        text, field=first.field, limit=first.limit, value=first.value, violations=found, call=call, hint=hint
    )


def unknown_words(request: Request) -> str:
    """Say the known values of fields that hold another one, for the error of a service that refused them."""
    texts: list[str] = []
    values = msgspec.structs.asdict(request)
    for field in fields(type(request)):
        value: object = values[field.name]
        if field.known and isinstance(value, str) and value and value not in field.known:
            near = did_you_mean(value, field.known)
            texts.append(f"{field.name} {picture(value)} is not known here{near}; {field.known_words}.")
    return " ".join(texts)


def body(request: Request) -> dict[str, Any]:
    """Return the JSON object to send: without None, empty texts, and fields that steer this client."""
    local = _local(type(request))
    built: dict[str, Any] = msgspec.to_builtins(request)
    given = {name: value for name, value in built.items() if value not in (None, "") and name not in local}
    for name, default in _optional(type(request))[0]:
        if name not in given and name not in local:
            given[name] = default()
    return request.as_sent(given)


@cache
def _local(cls: type[Request]) -> frozenset[str]:
    return frozenset(field.name for field in fields(cls) if field.local)


def in_order(start: float | None, end: float | None, first: str, last: str) -> Iterator[Violation]:
    """Check two bounds in seconds, `first` and `last`, that may come alone: the end after the start."""
    if start is not None and end is not None and end <= start:
        yield Violation(last, f"a number greater than {first}", f"{end:g} after {start:g}")
