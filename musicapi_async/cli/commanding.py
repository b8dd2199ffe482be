"""What all commands share: the options that may stand anywhere, and names that follow the API's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..api.spelling import did_you_mean, nearest
from ..errors import RequestValidationError
from ..options import check_seconds
from .invocation import Invocation

if TYPE_CHECKING:
    from .._transport.rate import Rate

T = TypeVar("T")


def _note(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value and ctx.resilient_parsing is False:
        setattr(ctx.ensure_object(Invocation), str(param.name), value)


def _note_form(ctx: click.Context, param: click.Parameter, value: bool | None) -> None:
    if value is not None:
        ctx.ensure_object(Invocation).json = value


def _note_speed(ctx: click.Context, param: click.Parameter, value: float | None) -> None:
    if value is not None:
        ctx.ensure_object(Invocation).clock_speed = seconds(ctx, param, value) or 1.0


def seconds(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """A positive finite number, or a usage error."""
    try:
        return None if value is None else check_seconds("it", value)
    except RequestValidationError as error:
        raise click.BadParameter("must be a positive number", ctx, param) from error


def rate_of(ctx: click.Context, param: click.Parameter, value: str | None) -> Rate | None:
    """'1/3s' as a rate; 'none', and nothing, as none; or a usage error."""
    from .._transport.rate import Rate

    if value is None or value == "none":
        return None
    try:
        return Rate.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def shared_options(*, hidden: bool, form: bool = True) -> list[click.Parameter]:
    """The options of `musicapi` itself, which its commands take too. `form` is --json/--text."""

    def option(*declared: str, **given: Any) -> click.Option:
        given.setdefault("callback", _note)
        return click.Option(declared, expose_value=False, hidden=hidden, **given)

    form_option = option(
        "--json/--text",
        "json",
        default=None,
        callback=_note_form,
        help="JSON lines, or text. Default: text on a terminal, JSON lines otherwise.",
    )
    found: list[click.Parameter] = [form_option] if form else []
    found += [
        option("--base-url", metavar="URL", help="Address of the service (else MUSICAPI_BASE_URL)."),
        option("--sonic-word", metavar="WORD", help="Word for Sonic in paths: 'suno' at api.sunoapi.com."),
        option("--key-file", metavar="FILE", help="File that holds the API key (else MUSICAPI_KEY)."),
        option("-v", "--verbose", count=True, help="Show the log; -vv shows more."),
    ]
    speed = "Run the client's clock faster, as fast as a sandbox (else MUSICAPI_CLOCK_SPEED)."
    if hidden:
        return [*found, option("--clock-speed", type=float, callback=_note_speed, help=speed)]
    variable = {"envvar": "MUSICAPI_CLOCK_SPEED"}
    return [*found, option("--clock-speed", type=float, callback=_note_speed, help=speed, **variable)]


class _NearestOption(click.Command):
    """A command that knows what a misspelt option was meant to be."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; an error for an option that there is not names the nearest one."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            flags = [flag for param in self.get_params(ctx) for flag in (*param.opts, *param.secondary_opts)]
            known = {flag[2:].replace("-", "_"): flag for flag in flags if flag.startswith("--")}
            near = nearest(error.option_name, known)
            meant = f" Did you mean {known[near]!r}?" if near else ""
            raise click.UsageError(f"No such option {error.option_name!r}.{meant}", error.ctx) from None


class Group(_NearestOption, click.Group):
    """A group that knows what a misspelt command was meant to be."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, or an error that names the nearest one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(error.message.rstrip(".") + near, error.ctx or ctx) from None


class Word(click.Choice[str]):
    """One of some words; for another the error names the nearest one."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """The words that there are, and the one that was meant."""
        told = super().get_invalid_choice_message(value, ctx).rstrip(".")
        return told + did_you_mean(str(value), self.choices)


class Command(_NearestOption):
    """A command that takes the shared options as well, without showing them again."""

    def __init__(self, *args: Any, form: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params = [*self.params, *shared_options(hidden=True, form=form)]


def run(work: Callable[[Invocation], Coroutine[Any, Any, int | None]]) -> None:
    """Run the asynchronous part of a command, and exit with the code that it gives."""
    ctx = click.get_current_context()
    code = asyncio.run(work(ctx.ensure_object(Invocation)))
    if code:
        ctx.exit(code)


def kebab(name: str) -> str:
    """'create_music' as 'create-music'."""
    return name.replace("_", "-")


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, on one line."""
    joined = " ".join(text.replace("`", "").split())
    return joined.partition(". ")[0].partition(": ")[0].rstrip(".") + "." if joined else ""
