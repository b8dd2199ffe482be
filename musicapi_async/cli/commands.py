"""The `musicapi` command: all its commands, the end of every error, and the commands about the account."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import click
from click.exceptions import NoArgsIsHelpError

from .._version import __version__
from ..api.account import credits_text
from ..api.families import FAMILIES
from ..api.json_values import mapping_or_empty
from ..api.sonic import Sonic
from ..api.task import TaskRef
from ..errors import MusicAPIError
from ..extras import MissingExtra
from ..options import LOG_LEVELS, LOG_VARIABLE, find_base_url
from ..workflows.command_texts import in_commands
from .batch_command import batch_group
from .demo_command import demo_command
from .error_texts import wrapped
from .exit_codes import EXIT_CODES, ExitCode
from .invocation import Invocation
from .jobs_command import jobs_group
from .mcp_command import mcp_command
from .operation_commands import FamilyGroup, OperationCommand
from .output import OutputLost, json_line, lost_output, print_err, print_out
from .parameters import Json, OneOfWords
from .play_command import play_command
from .sandbox_command import sandbox_command
from .task_commands import POLLED_FAMILIES, download_command, show_command, task_command, wait_command
from .usage import Command, Group, shared_options
from .worker_commands import withdraw_command, worker_command

LOGGER: Final = logging.getLogger("musicapi_async")

ABOUT: Final = """Make music with MusicAPI.ai: songs, personas, stems, and files of them.

The key comes from MUSICAPI_KEY (or --key-file). Without one, begin with `musicapi demo`, which needs
neither an account nor a network."""


_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)
"""The lowest level that is printed without -v, with -v, and with -vv, unless MUSICAPI_LOG has a lower one."""


class LogHandler(logging.Handler):
    """A handler that writes the library's log to standard error, as text or JSON lines."""

    def __init__(self, invocation: Invocation) -> None:
        super().__init__()
        self._invocation = invocation
        self._wanted = LOG_LEVELS.get(os.environ.get(LOG_VARIABLE, "").strip().lower(), logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Track the tasks that a record names, and write one line."""
        if record.levelno >= logging.INFO:
            args = record.args.values() if isinstance(record.args, Mapping) else record.args or ()
            for value in args:
                self._invocation.track_logged(value, abandoned=record.levelno >= logging.WARNING)
        if record.levelno < min(self._wanted, _LEVELS[min(self._invocation.verbose, 2)]):
            return
        message = in_commands(record.getMessage())
        if self._invocation.errors_as_json:
            print_err(json_line({"event": "log", "level": record.levelname.lower(), "message": message}))
        else:
            line = f"{record.levelname.lower()}: {message}"
            print_err(wrapped(line) if sys.stderr.isatty() else line)


class MusicAPIGroup(Group):
    """The group of all commands. All errors end here."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command as a program; the output of click itself (help, usage) may be lost, too."""
        try:
            return super().main(*args, **kwargs)
        except OutputLost as lost:
            raise SystemExit(Invocation().output_lost(lost)) from None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give every run settings of its own."""
        ctx.obj = Invocation()
        ctx.obj.args = tuple(args)
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            ctx.color = False  # bars follow both variables by themselves
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error is reported and decides the exit code."""
        invocation = ctx.ensure_object(Invocation)
        handler = LogHandler(invocation)
        LOGGER.addHandler(handler)
        before = LOGGER.level
        LOGGER.setLevel(logging.DEBUG)  # the handler decides what is printed, once all options were read
        try:
            super().invoke(ctx)
            lost = lost_output()
            code = ExitCode.OK if lost is None else invocation.output_lost(lost)
        except OutputLost as lost:
            code = invocation.output_lost(lost)
        except (KeyboardInterrupt, EOFError):
            code = invocation.interrupted()
        except MusicAPIError as error:
            code = invocation.end([error])
        except NoArgsIsHelpError:  # help is always text
            raise
        except (click.UsageError, MissingExtra) as error:
            wrong = error if isinstance(error, click.UsageError) else click.UsageError(str(error))
            if not invocation.errors_as_json:
                message = " ".join(wrong.format_message().split())
                raise click.UsageError(wrapped(message, first=7), wrong.ctx) from error
            code = _report_usage_error(wrong)
        finally:
            LOGGER.removeHandler(handler)
            LOGGER.setLevel(before)
        ctx.exit(code)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of the workflow first, then the families with all their operations."""
        names = self.list_commands(ctx)
        self.write_commands(formatter, "Commands", (name for name in names if name not in FAMILIES), ctx)
        families = (name for name in names if name in FAMILIES)
        self.write_commands(formatter, "All operations, by family", families, ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit codes."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code.value), text) for code, text in EXIT_CODES.items()])
        formatter.write_paragraph()
        formatter.write_text("The options above may also follow the command.")


def _report_usage_error(error: click.UsageError) -> ExitCode:
    code = ExitCode.REFUSED
    fields = {"type": "UsageError", "message": error.format_message(), "exit_code": code}
    print_err(json_line({"event": "error", **fields}))
    return code


@click.command("credits", cls=Command)
@click.pass_obj
async def credits_command(invocation: Invocation) -> None:
    """Show the balance of the account. Free."""
    async with invocation.client() as client:
        balance = await client.credits()
    fields = {"credits": balance.credits, "extra_credits": balance.extra_credits, "total": balance.total}
    extra = f" ({credits_text(balance.extra_credits)} of them extra)" if balance.extra_credits else ""
    invocation.reporter.event("credits", fields, [f"{credits_text(balance.total)} credits{extra}"])


def _pairs(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in value:
        name, sign, given = text.partition("=")
        if not sign:
            raise click.BadParameter("needs the form NAME=VALUE", ctx, param)
        pairs[name] = given
    return pairs


@click.command("request", cls=Command, form=False)
@click.argument("method")
@click.argument("path")
@click.option(
    "--json",
    "body",
    type=Json(),
    metavar="JSON",
    help="Body of the request: JSON, @file, or @- for standard input.",
)
@click.option(
    "--param",
    "params",
    multiple=True,
    callback=_pairs,
    metavar="NAME=VALUE",
    help="Query parameter; repeatable.",
)
@click.pass_obj
async def request_command(
    invocation: Invocation, method: str, path: str, body: object, params: dict[str, str]
) -> None:
    """Call any path and print the JSON of the response.

    PATH is below the base URL, such as /get-credits.

    A GET is free, and is repeated after passing failures. Any other method is assumed to charge credits, and
    is sent at most once.
    """
    async with invocation.client() as client:
        with invocation.reporter.busy(f"{method.upper()} {path}"):
            response = await client.request(method, path, json=body, params=params or None)
        invocation.charges = method.upper() != "GET"
        family, task_id = path.strip("/").partition("/")[0], mapping_or_empty(response).get("task_id")
        if invocation.charges and family in POLLED_FAMILIES and isinstance(task_id, str):
            invocation.track(TaskRef(family, task_id))
        invocation.reporter.body(response)


@click.command("completion", cls=Command)
@click.argument("shell", type=OneOfWords(["bash", "zsh", "fish"]))
async def completion_command(shell: str) -> None:
    """Print the script that completes commands and options.

    bash: add `eval "$(musicapi completion bash)"` to ~/.bashrc; zsh: the same with zsh in ~/.zshrc; fish:
    `musicapi completion fish > ~/.config/fish/completions/musicapi.fish`.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click knows no completion for {shell}.")
    print_out(kind(musicapi, {}, "musicapi", "_MUSICAPI_COMPLETE").source())


@click.command("openapi", cls=Command)
@click.pass_obj
async def openapi_command(invocation: Invocation) -> None:
    """Print an OpenAPI 3.1 document of the service, as this SDK knows it. Free, sends nothing.

    Use it to generate clients in other languages: `musicapi openapi > musicapi.json`. It is not the vendor's.
    """
    from ..api.openapi import document

    invocation.reporter.body(document(find_base_url(invocation.base_url)))


def _group_of_all() -> MusicAPIGroup:
    commands: list[click.Command] = [
        demo_command,
        sandbox_command,
        OperationCommand(Sonic.create_music, "create"),
        OperationCommand(Sonic.create_persona, "persona"),
        wait_command,
        show_command,
        task_command,
        download_command,
        play_command,
        credits_command,
        batch_group,
        worker_command,
        jobs_group,
        mcp_command,
        request_command,
        openapi_command,
        completion_command,
        *map(FamilyGroup, FAMILIES.values()),
    ]
    batch_group.add_command(withdraw_command)
    group = MusicAPIGroup(
        "musicapi",
        help=ABOUT,
        params=shared_options(hidden=False),
        commands={str(command.name): command for command in commands},
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    return click.version_option(__version__, prog_name="musicapi-async")(group)


musicapi: Final = _group_of_all()
"""The `musicapi` command."""
