"""How a command line is read: the options of all commands, advice for a mistyped one, and the help.

The nearest right word for a mistyped option or command comes from `api.suggestions`, as in Python.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click

from ..api.suggestions import did_you_mean, is_folder, nearest
from .error_texts import BLANK, with_whole_commands
from .invocation import CLOCK_SPEED_VARIABLE, Invocation, interruptible
from .parameters import NO_TEXT, Positive

FILE_TAGS: Final = "file_tags"
"""The name in Python of --tags where it is no text: it is not what another word for the style means."""

NON_BREAKING_HYPHEN: Final = "\u2011"
"""Stands for the hyphens of an option while a help text is broken into lines."""

SENTENCE: Final = 200
"""Characters of a command's first sentence; click's own limit cuts it in the middle."""


_OPTION: Final = re.compile(r"--[a-z][a-z-]*")


def _set(ctx: click.Context, param: click.Parameter, value: object) -> None:
    """Set an attribute of the run that has the name of the option, unless the option is absent."""
    if value is not None and not (param.name == "verbose" and value == 0):
        setattr(ctx.ensure_object(Invocation), str(param.name), value)


def shared_options(*, hidden: bool, form: bool = True) -> list[click.Parameter]:
    """Return the options of `musicapi` itself, which its commands accept, too.

    Args:
        hidden: True for a command, whose help does not repeat them.
        form: False for a command that has an option --json of its own.
    """

    def option(*declared: str, **given: Any) -> click.Option:
        return click.Option(declared, expose_value=False, hidden=hidden, callback=_set, **given)

    form_option = option(
        "--json/--text",
        "json",
        default=None,
        help="Print JSON lines, or text. Default: text on a terminal, else JSON lines.",
    )
    return [
        *([form_option] if form else []),
        option("--base-url", metavar="URL", help="Base URL of the API (else MUSICAPI_BASE_URL)."),
        option("--sonic-word", metavar="WORD", help="Word for Sonic in paths: 'suno' at api.sunoapi.com."),
        option("--key-file", metavar="FILE", help="File with the API key (else MUSICAPI_KEY)."),
        option("-v", "--verbose", count=True, help="Show the log; -vv shows more."),
        option(
            "--clock-speed",
            type=Positive(),
            envvar=None if hidden else CLOCK_SPEED_VARIABLE,
            help="Speed of the client's clock, for a faster sandbox (else MUSICAPI_CLOCK_SPEED).",
        ),
    ]


class _HelpFormatter(click.HelpFormatter):
    """A formatter that never breaks a line inside an option or a command, so that it can be copied."""

    def write(self, string: str) -> None:
        super().write(string.replace(NON_BREAKING_HYPHEN, "-").replace(BLANK, " "))

    def write_text(self, text: str) -> None:
        super().write_text(_unbroken(text))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(term, _unbroken(text)) for term, text in rows], col_max, col_spacing)


def _unbroken(text: str) -> str:
    return _OPTION.sub(lambda found: found[0].replace("-", NON_BREAKING_HYPHEN), with_whole_commands(text))


class _Context(click.Context):
    formatter_class = _HelpFormatter


class _AdvisingCommand(click.Command):
    """A command whose usage errors say what was probably meant."""

    context_class: type[click.Context] = _Context

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments of the command."""
        given = tuple(args)
        params = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        _check_values(params, given)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            known = {
                FILE_TAGS if param.name == FILE_TAGS else flag.lstrip("-").replace("-", "_"): flag
                for param in params
                for flag in (*param.opts, *param.secondary_opts)
                if flag.startswith("--")
            }
            name = _whole_option(error.option_name, given)
            message = f"No such option {name!r}.{self.advice(name, known)}"
            raise click.UsageError(message, error.ctx) from None
        except click.UsageError as error:
            if not error.message.startswith("Got unexpected extra argument"):
                raise
            advice = " Quote text that has blanks." if any(map(_takes_words, self.params)) else ""
            flags = {flag for param in params for flag in param.opts}
            text = next((flag for flag in ("--gpt-description-prompt", "--prompt") if flag in flags), None)
            if text is not None:
                advice = f" Text needs its option before it, such as {text}, and quotes if it has blanks."
            raise click.UsageError(f"{error.message}.{advice}", error.ctx) from None

    def advice(self, name: str, known: Mapping[str, str]) -> str:
        """Return what was probably meant by the option `name`, with a blank before it; '' if unknown.

        Args:
            name: The option, as it was typed.
            known: The options of this command by their names in Python.
        """
        near = nearest(name, known)
        if is_folder(name) and not (near and is_folder(near)):
            return " `musicapi download` fetches files."
        return f" Did you mean {known[near]!r}?" if near else ""


def _takes_words(param: click.Parameter) -> bool:
    """Return True for an argument or an option of the command's own that may be a text."""
    return isinstance(param.type, click.types.StringParamType) and not getattr(param, "hidden", False)


def _check_values(params: Iterable[click.Option], args: Sequence[str]) -> None:
    """Refuse an option where the value of another one is missing; click would take it as the value."""
    params = list(params)
    flags = {flag for param in params for flag in (*param.opts, *param.secondary_opts)}
    valued = (param for param in params if not (param.is_flag or param.count))
    with_value = {flag for param in valued if param.flag_value != NO_TEXT for flag in param.opts}
    for flag, value in itertools.pairwise(itertools.takewhile("--".__ne__, args)):
        if flag in with_value and value in flags:
            meant = f"to mean the text, write {flag}={value}"
            raise click.UsageError(f"Option {flag!r} needs a value, and {value!r} is an option ({meant}).")


def _whole_option(name: str, args: Sequence[str]) -> str:
    """Return the word of the command line that click reports as `name`, such as '-out' for '-o'."""
    if name.startswith("--"):
        return name
    words = (word.partition("=")[0] for word in args if not word.startswith("--"))
    return next((word for word in words if word.startswith(name)), name)


FEW: Final = 6
"""Commands of a group that an error names, where none is near to what was written."""


class Group(_AdvisingCommand, click.Group):
    """A group whose error for an unknown command names the nearest one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the name of a command, the command, and its arguments."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            names = self.list_commands(ctx)
            near = did_you_mean(args[0], names)
            if not near and "run" in names and os.path.isfile(args[0]):
                near = f" (did you mean `{ctx.command_path} run {shlex.quote(args[0])}`?)"
            if not near and len(names) <= FEW:
                near = (
                    f". There are {', '.join(names[:-1])} and {names[-1]}."
                    if names[1:]
                    else f". There is {names[0]}."
                )
            raise click.UsageError(error.message.rstrip(".") + near, error.ctx or ctx) from None

    def advice(self, name: str, known: Mapping[str, str]) -> str:
        """Return the nearest option of the group, or where the options of a command belong."""
        near = nearest(name, known)
        return f" Did you mean {known[near]!r}?" if near else " Options of a command follow its name."

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of their declaration."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, each with its whole first sentence."""
        self.write_commands(formatter, "Commands", self.list_commands(ctx), ctx)

    def write_commands(
        self, formatter: click.HelpFormatter, title: str, names: Iterable[str], ctx: click.Context
    ) -> None:
        """Write a section of commands, each with its whole first sentence."""
        found = ((name, self.get_command(ctx, name)) for name in names)
        listed = [(name, one) for name, one in found if one is not None and not one.hidden]
        with formatter.section(title):
            formatter.write_dl([(name, one.get_short_help_str(SENTENCE)) for name, one in listed])


class Command(_AdvisingCommand):
    """A command whose callback is an async function that returns an exit code, or None for success.

    It accepts the shared options, without displaying them again; `form` is as in `shared_options`.
    """

    def __init__(self, *args: Any, form: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params: list[click.Parameter] = [*self.params, *shared_options(hidden=True, form=form)]

    def invoke(self, ctx: click.Context) -> None:
        """Run the callback in an event loop, and exit with its code."""
        try:
            code = asyncio.run(interruptible(super().invoke(ctx)))
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise
        if code:
            ctx.exit(code)
