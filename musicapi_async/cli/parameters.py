"""Options and arguments: their types, and those of an operation, read off the declaration of its request.

Names, types, limits and help of a request's fields are read off its declaration and written nowhere else.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast
from urllib.parse import urlsplit

import click
import msgspec
from click.shell_completion import CompletionItem

from ..api.operation import Operation
from ..api.request import SECRET, FieldInfo
from ..api.suggestions import did_you_mean
from ..arguments import check_seconds
from ..errors import RequestValidationError, Violation
from ..files import expand

if TYPE_CHECKING:
    from .._transport.rate_window import Rate
    from ..jobs import JobStore

    ParamType = click.ParamType[Any]  # generic for type checkers only: older releases of click are not
else:
    ParamType = click.ParamType

TEXT_FILE_LIMIT: Final = 1024 * 1024
"""Bytes that are read from a file or from standard input; the longest field has 5,000 characters."""

REFERENCES: Final = ("_id", "url", "_link")
"""Endings of fields that hold an id or a link: they are taken as they are, never as '@file'."""

PLAIN_LIMITS: Final = frozenset({"text", "text, not empty", "True or False", "a JSON value", "a number"})
"""Limits that the type displayed beside an option says already."""

STYLE: Final = "tags"
"""The field whose option has a second meaning without a text."""
NO_TEXT: Final = "\0"
"""The value of that option without a text; no shell passes a null character."""
IN_FILES: Final = "title, artist, album, track, style, lyrics, cover, and the prompt in a comment"


class Text(ParamType):
    """Text as it is, `@file` for the text in a file, `@-` for standard input, `@@...` for a leading '@'."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if not isinstance(value, str) or not value.startswith("@"):
            return value
        if value.startswith("@@"):
            return value[1:]
        return self.read(value[1:], param, ctx)

    def read(self, name: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text of the file `name`, or of standard input if it is '-'."""
        try:
            if name == "-":
                data = sys.stdin.buffer.read(TEXT_FILE_LIMIT + 1)
            else:
                with Path(name).open("rb") as file:
                    data = file.read(TEXT_FILE_LIMIT + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            hint = "for text that begins with '@', double it: '@@...'"
            self.fail(f"cannot read {name!r}: {reason} ({hint})", param, ctx)
        if len(data) > TEXT_FILE_LIMIT:
            self.fail(f"{name!r} holds more than {TEXT_FILE_LIMIT} bytes", param, ctx)
        try:
            return data.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            self.fail(f"{name!r} is not UTF-8 text", param, ctx)


class Folder(click.Path):
    """A folder to write to. A leading `~` is expanded, as shells do not in `--out=~/songs`."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        return super().convert(expand(value), param, ctx)


class Secret(Text):
    """A secret: only from a file or standard input, because the list of processes shows arguments."""

    name = "@file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if isinstance(value, str) and not value.startswith("@"):
            self.fail("is a secret: give '@file' or '@-', not the secret itself", param, ctx)
        return super().convert(value, param, ctx)


class Known(Text):
    """Text with known values: completion and errors list them, and others are sent as they are."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words: Final = words

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the known values that begin with `incomplete`."""
        return [CompletionItem(word) for word in self.words if word.startswith(incomplete)]

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the known values."""
        return f"Known: {', '.join(self.words)}."


class Scalar(Text):
    """A number if the text is exactly one, else text: for fields that take both."""

    name = "text or number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        text = super().convert(value, param, ctx)
        if not isinstance(text, str):
            return text
        for kind in (int, float):
            try:
                number = kind(text)
            except ValueError:
                continue
            if str(number) == text:
                return number
        return text


class Json(Text):
    """A JSON value, or `@file`."""

    name = "json"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        text = super().convert(value, param, ctx)
        if not isinstance(text, str):
            return text
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            self.fail(f"is not JSON: {error}", param, ctx)


class Positive(ParamType):
    """A positive number, such as of seconds."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return check_seconds("it", click.FLOAT.convert(value, param, ctx))
        except RequestValidationError:
            self.fail("must be a positive number", param, ctx)


class Age(ParamType):
    """A time in days, hours, minutes or seconds, such as '30d'; gives seconds."""

    name = "time"
    units: ClassVar[Mapping[str, float]] = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([dhms])", str(value).strip())
        if found is None:
            self.fail(f"a number with d, h, m or s, such as '30d', got {value!r}", param, ctx)
        return float(found[1]) * self.units[found[2]]


class RateLimit(ParamType):
    """A number of requests per time, such as '1/3s'; 'none' for no limit."""

    name = "n/time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Rate | None:
        from .._transport.rate_window import Rate

        try:
            return None if value == "none" else Rate.parse(value)
        except ValueError as error:
            self.fail(str(error).removeprefix("rate: "), param, ctx)


class StorePlace(ParamType):
    """The file of a job store, the folder of a batch, or the address of a database; gives the store.

    `may_be_new` is True if a file that is missing is made.
    """

    name = "store"

    def __init__(self, *, may_be_new: bool = False) -> None:
        self.may_be_new: Final = may_be_new

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> JobStore:
        from ..jobs import STORE_VARIABLE, is_address, open_store
        from ..workflows.batch_folder import BatchFolder

        if not isinstance(value, str):
            return cast("JobStore", value)
        if is_address(value):
            if urlsplit(value).password and value != os.environ.get(STORE_VARIABLE):
                self.fail(
                    "an address without a password, which every user of this machine could read; "
                    f"set PGPASSWORD, PGPASSFILE or {STORE_VARIABLE}",
                    param,
                    ctx,
                )
            return open_store(value)
        place = click.Path(exists=not self.may_be_new, path_type=Path)
        path: Path = place.convert(expand(value), param, ctx)
        file = BatchFolder(path).store_path if path.is_dir() else path
        if not file.is_file() and not self.may_be_new:
            raise click.UsageError(
                f"{path} holds no jobs: give the file of a store, or the folder of a batch."
            )
        return open_store(str(file))


class OneOfWords(click.Choice[str]):
    """One of a few words; the error for another one names the nearest."""

    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        """Return the words to choose from, and the nearest one."""
        message = super().get_invalid_choice_message(value, ctx).rstrip(".")
        return message + did_you_mean(str(value), self.choices)


def kebab(name: str) -> str:
    """Return 'create_music' as 'create-music'."""
    return name.replace("_", "-")


def flag_of(name: str) -> str:
    """Return the option of a field, such as '--title'."""
    return f"--{kebab(name)}"


def dest_of(name: str) -> str:
    """Return the name under which click passes a field; never that of another option of the command."""
    return f"field_{name}"


def argument_fields(operation: Operation[..., object]) -> tuple[FieldInfo, ...]:
    """Return the fields that are arguments: required ids and links, and a single required field."""
    own = inspect.signature(operation.request).parameters
    required = [field for field in operation.fields if field.required]
    return tuple(
        field
        for field in required
        if own[field.name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        and (len(required) == 1 or field.name.endswith(REFERENCES))
    )


def parameters_of(operation: Operation[..., object]) -> list[click.Parameter]:
    """Return the arguments and options of an operation, required ones first."""
    arguments = argument_fields(operation)
    found: list[click.Parameter] = []
    for field in arguments:
        label = field.name.upper()
        kind = str if field.name.endswith(REFERENCES) else type_of(field.type)
        found.append(click.Argument([dest_of(field.name)], required=False, type=kind, metavar=label))
        also = "also_" + dest_of(field.name)
        found.append(click.Option([flag_of(field.name), also], type=kind, hidden=True))
    options = [field for field in operation.fields if field not in arguments]
    options.sort(key=lambda field: (not field.required, field.name.startswith("webhook_")))
    found += [_option(field, operation) for field in options]
    return found


def _option(field: FieldInfo, operation: Operation[..., object]) -> click.Option:
    dest, flag, kind = dest_of(field.name), flag_of(field.name), _plain_type(field.type)
    texts = [in_options(field.description, operation)] if field.description else []
    if field.limit and field.limit not in PLAIN_LIMITS:
        limit = re.sub(r"^(text|a number|a whole number) (of )?", "", field.limit)
        texts.append(f"({limit})")
    if field.default is not None:
        default = {True: "yes", False: "no"}.get(field.default, field.default)
        texts.append(f"[default: {default}]")
    text = " ".join(texts)
    if isinstance(kind, msgspec.inspect.BoolType):
        off = f"--no-{flag[2:]}"
        text = text.replace("True:", f"{flag}:").replace("False:", f"{off}:").replace("None:", "Neither:")
        return click.Option([f"{flag}/{off}", dest], default=None, help=text, required=field.required)
    if isinstance(kind, msgspec.inspect.ListType):
        each = type_of(kind.item_type)
        text += " Repeat the option for each."
        return click.Option([flag, dest], type=each, multiple=True, help=text, required=field.required)
    if has_style(operation) and field.name == STYLE:
        text += f" {flag} without text writes tags into the files of --download: {IN_FILES}."
        return click.Option(
            [flag, dest], type=Text(), multiple=True, is_flag=False, flag_value=NO_TEXT, help=text
        )
    param_type = (
        Secret() if field.name in SECRET else Known(field.known) if field.known else type_of(field.type)
    )
    return click.Option([flag, dest], type=param_type, help=text, required=field.required)


def has_style(operation: Operation[..., object]) -> bool:
    """Return True if the operation makes songs with style tags, so that --tags has two meanings."""
    return operation.submits and any(field.name == STYLE for field in operation.fields)


def _plain_type(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """Return a type without its limits and without None; a union of several remains one."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return _plain_type(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        members = [_plain_type(one) for one in kind.types if not isinstance(one, msgspec.inspect.NoneType)]
        return members[0] if len(members) == 1 else kind
    return kind


def type_of(kind: msgspec.inspect.Type) -> ParamType:
    """Return the click type for a declared type."""
    match _plain_type(kind):
        case msgspec.inspect.StrType():
            return Text()
        case msgspec.inspect.IntType():
            return click.INT
        case msgspec.inspect.FloatType():
            return click.FLOAT
        case msgspec.inspect.UnionType():
            return Scalar()
        case _:
            return Json()


def in_options(text: str, operation: Operation[..., object]) -> str:
    """Return a docstring for the terminal: fields are named by their option, quotes are dropped.

    A field that could be an ordinary word, such as `title`, is one only in quotes.
    """
    names = {field.name for field in operation.fields}
    text = re.sub(r"`([^`]*)`", lambda found: flag_of(found[1]) if found[1] in names else found[1], text)
    text = _flags_in(text, names)
    return re.sub(r"(?<![\w-])[a-z]+_\w+", lambda it: flag_of(it[0]) if it[0] in names else it[0], text)


def violation_in_options(rule: Violation, operation: Operation[..., object]) -> Violation:
    """Return a broken rule for the terminal: all fields in its text are named by their option."""
    names = {field.name for field in operation.fields}
    limit = _flags_in(rule.limit, names)
    limit = re.sub(r"(?<![\w'-])\w+(?![\w'-])", lambda it: flag_of(it[0]) if it[0] in names else it[0], limit)
    return Violation(rule.field, limit, rule.value)


def _flags_in(text: str, names: Container[str]) -> str:
    def flag(found: re.Match[str]) -> str:
        is_field = found[1] in names
        return flag_of(found[1] if found[2] == "True" else f"no_{found[1]}") if is_field else found[0]

    return re.sub(r"\b(\w+)(?:=| is )(True|False)\b", flag, text)


def fields_given(operation: Operation[..., object], given: Mapping[str, Any]) -> dict[str, object]:
    """Return the keyword arguments for the operation's method.

    Args:
        operation: The operation of the command.
        given: The parameters that click parsed. Absent ones are left out, so that the request's own defaults
            hold.

    Raises:
        click.UsageError: if a required field is missing, or given twice.
    """
    values: dict[str, object] = {}
    arguments = argument_fields(operation)
    for field in operation.fields:
        dest = dest_of(field.name)
        value = given.get(dest)
        if field in arguments:
            also = given.get("also_" + dest)
            if value is None and also is None:
                raise click.UsageError(f"Missing argument '{field.name.upper()}'.")
            if value is not None and also is not None:
                raise click.UsageError(f"'{field.name.upper()}' was given twice.")
            value = also if value is None else value
        if isinstance(value, tuple) and isinstance(_plain_type(field.type), msgspec.inspect.ListType):
            value = [*cast("tuple[object, ...]", value)] or None
        elif isinstance(value, tuple):
            value = next((text for text in reversed(cast("tuple[str, ...]", value)) if text != NO_TEXT), None)
        if value is not None:
            values[field.name] = value
        elif field.required:
            raise click.UsageError(f"Missing option '{flag_of(field.name)}'.")
    return values
