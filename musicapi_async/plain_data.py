"""Results as plain data, and back: dicts, lists, texts, numbers, True, False and None.

`to_dict()` and `to_json()` return only the fields of a class, under their own names: no `raw`, no HTTP
headers (except those of a `ResponseInfo`), no secrets, and no values that are computed from the fields
(`clip.final_url`, `credits.total`). `raw` is left out because it repeats the fields, and because a back end
that returns a clip would publish each field that the service adds. The only exception is the body of a
webhook, `Event.raw`, which is the content of the event.

The fields are declared once, in a form that each library recognizes:

| reader | takes the class for |
| --- | --- |
| `msgspec.json.encode` | a Struct, or a dataclass |
| `fastapi.encoders.jsonable_encoder`, `dataclasses.asdict` | a dataclass |
| pydantic and FastAPI, in a model, a body or a response | a type with a core schema, which is a plain dict |

Only msgspec is imported here. pydantic also makes instances from plain data.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeGuard, TypeVar, Union, cast, get_args, get_origin

import msgspec

from .errors import RequestValidationError

if TYPE_CHECKING:
    from inspect import Parameter

PlainT = TypeVar("PlainT", bound="PlainData")


class PlainData:
    """The base of results, updates, tasks, replies, jobs and events: each gives its fields as plain data.

    A class that is no Struct names its fields, `class Clips(PlainData, fields={"items": list[Clip]})`: they
    are its attributes. Those that are arguments of its constructor are read back, the others follow from
    them.
    """

    __slots__ = ()

    def __init_subclass__(cls, *, fields: Mapping[str, object] | None = None) -> None:
        super().__init_subclass__()
        if fields is not None:
            _DECLARED[cls] = fields

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as dicts, lists, texts, numbers, True, False and None. Free, sends nothing.

        What is computed from the fields is not among them, and fields of the service that this version does
        not know are in `raw` only.
        """
        return msgspec.json.decode(self.to_json(), type=dict[str, Any])

    def to_json(self) -> str:
        """Return `to_dict()` as one line of JSON. Free, sends nothing."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> dict[str, Any]:
        """Return how pydantic validates a value, an instance or plain data, and serializes it."""
        return {
            "type": "function-plain",
            "ref": f"{cls.__module__}.{cls.__qualname__}:{id(cls)}",  # becomes its name in `/docs`
            "function": {"type": "no-info", "function": partial(from_plain, cls)},
            "serialization": {"type": "function-plain", "function": partial(_to_plain, cls)},
        }

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: object, handler: Any) -> dict[str, Any]:
        """Return the JSON schema of the plain data; in what is sent no field is missing."""
        return json_schema(cls, complete=handler.mode == "serialization")

    if not TYPE_CHECKING:  # a type checker would give each class the constructor of a dataclass

        class _LikeDataclass:
            """An attribute of dataclasses, made for a class when it is first read."""

            def __set_name__(self, owner, name):
                self._name = name

            def __get__(self, instance, owner):
                return getattr(_dataclass_like(owner), self._name)

        __dataclass_fields__ = _LikeDataclass()
        __dataclass_params__ = _LikeDataclass()


_DECLARED: Final[dict[type[PlainData], Mapping[str, object]]] = {}


def fields_of(kind: type[PlainData]) -> Mapping[str, object]:
    """Return the fields of a class with their types."""
    if issubclass(kind, msgspec.Struct):
        return {field.name: field.type for field in msgspec.structs.fields(kind)}
    declared = [_DECLARED[base] for base in kind.__mro__ if base in _DECLARED]
    return declared[0] if declared else {}


def from_plain(kind: type[PlainT], value: object) -> PlainT:
    """Return an instance of `kind` from plain data, or `value` itself if it is one.

    Fields that are missing have their defaults, and unknown ones are ignored, as in replies of the service.

    Raises:
        ValueError: it is neither, a field is needed, or one has another type.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"a {kind.__name__} or its fields as an object, got {type(value).__name__}")
    given = cast("Mapping[str, object]", value)
    try:
        if issubclass(kind, msgspec.Struct):
            return msgspec.convert(given, kind, strict=False)
        fitting = next((one for one in _forms(kind) if fields_of(one).keys() <= given.keys()), kind)
        if missing := [name for name in _needed(fitting) if name not in given]:
            raise ValueError(f"{fitting.__name__} needs {', '.join(missing)}")
        hints, arguments = fields_of(fitting), _arguments(fitting)
        names = [name for name in hints if name in given and name in arguments]
        return fitting(**{name: _read(hints[name], given[name]) for name in names})
    except RequestValidationError as error:
        raise ValueError(error.message) from None
    except (msgspec.ValidationError, UnicodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _read(hint: object, value: object) -> Any:
    """Return a field of a class that is no Struct."""
    if get_origin(hint) is list and _is_plain(inner := get_args(hint)[0]) and isinstance(value, list):
        return [from_plain(inner, one) for one in cast("list[object]", value)]
    for kind in (hint, *get_args(hint)):
        if _is_plain(kind) and not issubclass(kind, msgspec.Struct):
            return None if value is None else from_plain(kind, value)
    return msgspec.convert(value, hint, strict=False)


def _is_plain(hint: object) -> TypeGuard[type[PlainData]]:
    return isinstance(hint, type) and issubclass(hint, PlainData)


def _forms(kind: type[PlainT]) -> Iterator[type[PlainT]]:
    """Find the subclasses of a class that declare fields, and then the class itself."""
    for one in kind.__subclasses__():
        yield from _forms(one)
    if kind in _DECLARED:
        yield kind


def _to_plain(kind: type[PlainData], value: object) -> object:
    """Return the plain data that the schema of `kind` promises, also of a subclass that has other fields."""
    if not isinstance(value, PlainData):
        return value  # a model of pydantic may be made without validation
    plain = value.to_dict()
    if isinstance(value, msgspec.Struct):
        return plain
    names = fields_of(kind).keys()
    if names <= plain.keys():
        return plain
    return msgspec.json.decode(msgspec.json.encode({name: getattr(value, name) for name in names}))


def json_schema(hint: object, *, complete: bool, within: tuple[object, ...] = ()) -> dict[str, Any]:
    """Return the JSON schema of the plain data of a type.

    Args:
        hint: the type, such as a class or `list[Clip]`.
        complete: True for data that is sent, in which no field is missing.
        within: the classes that this one is a field of; one of them inside itself is only 'an object'.
    """
    from inspect import cleandoc

    inner = partial(json_schema, complete=complete, within=(*within, hint))
    if _is_plain(hint):
        hints = fields_of(hint)
        # Of `Result` any result may come; `Clips` have fields that its subclasses do not share.
        forms = [one for one in _forms(hint) if one is not hint and fields_of(one).keys() >= hints.keys()]
        if forms:
            return {"title": hint.__name__, "anyOf": [inner(one) for one in forms]}
        schema: dict[str, Any] = {"title": hint.__name__, "type": "object"}
        if hint not in within:
            schema["description"] = cleandoc(hint.__doc__ or "").partition("\n\n")[0]
            schema["properties"] = {name: inner(kind) for name, kind in hints.items()}
            schema["required"] = list(hints if complete else _needed(hint))
        return schema
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (list, tuple):
        return {"type": "array", "items": inner(arguments[0])}
    if origin in (Union, types.UnionType):
        return {"anyOf": [inner(one) for one in arguments]}
    return msgspec.json.schema(hint)


def _needed(kind: type[PlainData]) -> tuple[str, ...]:
    """Return the fields without which no instance can be made."""
    if issubclass(kind, msgspec.Struct):
        return tuple(field.name for field in msgspec.structs.fields(kind) if field.required)
    from inspect import Parameter

    arguments = _arguments(kind)
    return tuple(
        name for name in fields_of(kind) if name in arguments and arguments[name].default is Parameter.empty
    )


def _arguments(kind: type) -> Mapping[str, Parameter]:
    """Return the arguments of the constructor of a class that is no Struct."""
    from inspect import signature

    return signature(kind).parameters


@cache
def _dataclass_like(kind: type[PlainData]) -> type:
    """Return a dataclass with the same fields. No code is generated for it, so that it costs little."""
    import dataclasses

    fields = [(name, cast("Any", hint)) for name, hint in fields_of(kind).items()]
    return dataclasses.make_dataclass(
        kind.__name__, fields, init=False, repr=False, eq=False, match_args=False
    )
