"""Settings that are declared once, as a dataclass, and set from Python, from texts, and over HTTP.

A row of `Choices` or `Durations` is its field: the name, the type, the default, and the docstring below it
are read here, and nothing is written a second time for the command line, the control over HTTP, or its
description. So one more row is one more line.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial, wraps
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from ..api.suggestions import did_you_mean
from ..arguments import is_list

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    S = TypeVar("S", bound=DataclassInstance)
else:
    S = TypeVar("S")

P = ParamSpec("P")
R = TypeVar("R")

LONGEST_VALUE: Final = 80
"""Characters of a wrong value that an error repeats; a policy of this package."""


class WrongSetting(ValueError):
    """A setting that does not exist, or a value that it cannot have; the text names both."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name, the type of its values, its default (None if it has none), and its meaning."""

    name: str
    kind: object
    default: object
    help: str

    @property
    def words(self) -> tuple[object, ...]:
        """The values that it can have, if they are a closed list; else none."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    def read(self, value: object) -> object:
        """Return `value` in the type of the setting; a number is (number, 0) where a spread is meant.

        Raises:
            WrongSetting: with the name, the values that are allowed, and the one that came.
        """
        try:
            found: object = msgspec.convert([value, 0.0] if self._is_spread_of(value) else value, self.kind)
        except msgspec.ValidationError:
            raise self._wrong(value) from None
        if not _in_range(found):
            raise self._wrong(value)
        return found

    def read_text(self, text: str) -> object:
        """Return the value that a text means: the text itself, or a number, `true`, `40,0.3` in it."""
        for candidate in _candidates(text):
            try:
                return self.read(candidate)
            except WrongSetting:
                continue
        raise self._wrong(text)

    def schema(self) -> dict[str, object]:
        """Return the JSON schema of the values."""
        (schemas, _) = msgspec.json.schema_components([self.kind])
        row: dict[str, object] = dict(schemas[0])
        if self._is_spread_of(0.0):
            row = {"anyOf": [{"type": "number", "minimum": 0}, row]}
        if self.help:
            row["description"] = self.help
        if self.default is not None:
            row["default"] = self.default
        return row

    def _is_spread_of(self, value: object) -> bool:
        pair = get_origin(self.kind) is tuple
        return pair and isinstance(value, int | float) and not isinstance(value, bool)

    def _wrong(self, value: object) -> WrongSetting:
        text = repr(value)
        if len(text) > LONGEST_VALUE:
            text = text[: LONGEST_VALUE - 3] + "..."
        return WrongSetting(f"{self.name} must be {self.allowed()}, got {text}")

    def allowed(self) -> str:
        """Return the values that are allowed, in words."""
        if self.words:
            return " or ".join([", ".join(map(repr, self.words[:-1])), repr(self.words[-1])])
        if self._is_spread_of(0.0):
            return "a number of seconds, or median and sigma such as 40,0.3"
        names: dict[object, str] = {
            bool: "true or false",
            int: "a whole number",
            float: "a number of at least 0",
            str: "text",
            int | None: "a whole number or null",
            float | str | None: "a number, text or null",
            str | None: "text or null",
        }
        if get_origin(self.kind) is Annotated:
            kind, limits = get_args(self.kind)
            return f"{names[kind]} of {limits.ge} to {limits.le}"
        return names[self.kind]


def _in_range(value: object) -> bool:
    """Return True unless a number, or one of several, is negative or no number: nothing here may be."""
    numbers = value if is_list(value) else (value,)
    return all(0 <= number < math.inf for number in numbers if isinstance(number, float))


def _candidates(text: str) -> Iterator[object]:
    yield text
    for raw in (text, f"[{text}]"):
        try:
            yield msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            continue


@cache
def settings_of(declared: type[DataclassInstance]) -> Mapping[str, Setting]:
    """Return the settings that a dataclass declares, by name, in their order."""
    hints = get_type_hints(declared, include_extras=True)
    help_texts = docstrings(declared)
    return {
        field.name: Setting(field.name, hints[field.name], field.default, help_texts.get(field.name, ""))
        for field in dataclasses.fields(declared)
    }


def docstrings(declared: type[object]) -> dict[str, str]:
    """Return the docstring below each field of a class; none where its source is not there."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(declared))).body[0]
    except (OSError, SyntaxError):
        return {}
    found: dict[str, str] = {}
    name = ""
    for node in body.body if isinstance(body, ast.ClassDef) else ():
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            found[name] = " ".join(str(node.value.value).split())
            name = ""
        else:
            name = ""
    return found


@cache
def _readers(declared: type[DataclassInstance]) -> Mapping[str, Setting]:
    """Return the settings of a dataclass without their help, which takes 20 ms to read."""
    hints = get_type_hints(declared, include_extras=True)
    return {
        field.name: Setting(field.name, hints[field.name], None, "") for field in dataclasses.fields(declared)
    }


def check(settings: DataclassInstance) -> None:
    """Put each value into the type of its setting: a number is a duration without spread.

    Raises `WrongSetting` (a `ValueError`) for a value that a setting cannot have.
    """
    for name, setting in _readers(type(settings)).items():
        object.__setattr__(settings, name, setting.read(getattr(settings, name)))  # they are frozen


def changed(settings: S, values: Mapping[str, object], *, texts: bool = False) -> S:
    """Return `settings` with some values changed; all or none.

    Args:
        settings: An instance of a dataclass of settings.
        values: The new values by name.
        texts: True if the values are texts of a command line.

    Raises:
        WrongSetting: for an unknown name, or a value that its setting cannot have.
    """
    return dataclasses.replace(settings, **read_values(type(settings), values, texts=texts))


def read_values(
    declared: type[DataclassInstance], values: Mapping[str, object], *, texts: bool = False
) -> dict[str, object]:
    """Return values in the types of their settings. Raises `WrongSetting` as `changed` does."""
    rows = _readers(declared)
    read: dict[str, object] = {}
    for name, value in values.items():
        setting = rows.get(name)
        if setting is None:
            word = declared.__name__.lower()
            raise WrongSetting(f"{name!r} is none of the {word}{did_you_mean(name, rows)}")
        read[name] = setting.read_text(value) if texts and isinstance(value, str) else setting.read(value)
    return read


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function, which now refuses values of other types than it declares, by their names.

    Raises `TypeError`: where such a value is given, and not when a request comes.
    """
    signature = inspect.signature(function)
    hints = cache(partial(get_type_hints, function))

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in hints():
                check_type(name, value, hints()[name])
        return function(*args, **kwargs)

    return call


def check_type(name: str, value: object, kind: Any) -> None:
    """Refuse a value of another type than a declared one with a `TypeError` that names the argument."""
    if not _is_of(value, kind):
        raise TypeError(f"{name} must be {_in_words(kind)}, got {value!r:.{LONGEST_VALUE}}")


def _is_of(value: object, kind: Any) -> bool:
    """Return True for a value of a declared type: a whole number is a number, and a list may be a tuple."""
    plain, inside = get_origin(kind) or kind, get_args(kind)
    if plain in (Union, UnionType):
        return any(_is_of(value, one) for one in inside)
    if plain is Literal:
        return any(value is one or (value == one and type(value) is type(one)) for one in inside)
    if plain is tuple:
        return is_list(value) and len(value) == len(inside) and all(map(_is_of, value, inside))
    if plain in (int, float):
        return isinstance(value, int | plain) and not isinstance(value, bool)
    return isinstance(value, plain)


def _in_words(kind: Any) -> str:
    plain, inside = get_origin(kind) or kind, get_args(kind)
    if plain in (Union, UnionType):
        return " or ".join(_in_words(one) for one in inside if one is not NoneType)
    if plain is Literal:
        return " or ".join(map(repr, inside))
    if plain is tuple:
        return f"({', '.join(map(_in_words, inside))})"
    names = {
        bool: "True or False",
        int: "a whole number",
        float: "a number",
        str: "text",
        Mapping: "a mapping",
        os.PathLike: "a path",
    }
    return names.get(plain, f"{plain.__name__}(...)")


@cache
def parameters_of(function: Callable[..., object]) -> Mapping[str, Setting]:
    """Return the parameters of a function as settings; the default of one that must be given is None."""
    hints = get_type_hints(function)
    return {
        name: Setting(
            name, hints[name], None if parameter.default is parameter.empty else parameter.default, ""
        )
        for name, parameter in inspect.signature(function).parameters.items()
    }
