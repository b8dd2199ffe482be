"""The command itself: its options, its commands, and how every error becomes a text and an exit code."""

from __future__ import annotations

import logging
from typing import Any, Final

import click
from click.exceptions import NoArgsIsHelpError

from .._version import __version__
from ..api.families import FAMILIES
from ..errors import MusicAPIError
from . import exits
from .batch_command import batch_group
from .commanding import Group, shared_options
from .demo import demo_command
from .error_texts import wrapped
from .invocation import Invocation, LogHandler
from .jobs_command import jobs_group
from .json_output import json_line
from .operation_commands import family_groups, shortcut
from .output import OutputLost, lost_output, tell
from .sandbox_command import sandbox_command
from .task_commands import (
    completion_command,
    credits_command,
    download_command,
    request_command,
    task_command,
    wait_command,
)

LOGGER: Final = logging.getLogger("musicapi_async")

ABOUT: Final = """Make music with MusicAPI.ai: songs, personas, stems, and files of them.

The key comes from MUSICAPI_KEY (or --key-file). Without one, begin with `musicapi demo`, which needs
neither an account nor a network."""


class Root(Group):
    """The group of all commands. All errors end here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Every run has settings of its own."""
        ctx.obj = Invocation()
        ctx.obj.args = tuple(args)
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command as a program; what click prints itself (help, usage) may be lost, too."""
        try:
            return super().main(*args, **kwargs)
        except OutputLost as lost:
            raise SystemExit(Invocation().output_lost(lost)) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it raises is told, and decides the exit code."""
        invocation = ctx.ensure_object(Invocation)
        handler = LogHandler(invocation)
        LOGGER.addHandler(handler)
        before = LOGGER.level
        LOGGER.setLevel(logging.DEBUG)  # the handler knows what to show once all options were read
        try:
            found = super().invoke(ctx)
            if (unsaid := lost_output()) is None:
                return found
            code = invocation.output_lost(unsaid)
        except OutputLost as lost:
            code = invocation.output_lost(lost)
        except (KeyboardInterrupt, EOFError):
            code = invocation.interrupted()
        except MusicAPIError as error:
            code = invocation.end([error])
        except click.UsageError as error:
            if isinstance(error, NoArgsIsHelpError):  # help is always text
                raise
            if not invocation.errors_as_json:
                message = " ".join(error.format_message().split())
                raise click.UsageError(wrapped(message, first=7), error.ctx) from error
            code = _usage(error)
        finally:
            LOGGER.removeHandler(handler)
            LOGGER.setLevel(before)
        ctx.exit(code)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands of the workflow first, then the families with all their operations."""
        own = [(name, one) for name, one in self.commands.items() if name not in FAMILIES]
        families = [(name, one) for name, one in self.commands.items() if name in FAMILIES]
        for title, rows in (("Commands", own), ("All operations, by family", families)):
            with formatter.section(title):
                formatter.write_dl([(name, one.get_short_help_str(64)) for name, one in rows])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The exit codes."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), text) for code, text in exits.MEANINGS.items()])
        formatter.write_paragraph()
        formatter.write_text("The options above may also stand after a command.")


def _usage(error: click.UsageError) -> int:
    told = {"type": "UsageError", "message": error.format_message(), "exit_code": exits.REFUSED_HERE}
    tell(json_line({"event": "error", **told}))
    return exits.REFUSED_HERE


def _root() -> Root:
    commands: list[click.Command] = [
        demo_command,
        sandbox_command,
        shortcut("sonic", "create_music", "create"),
        shortcut("sonic", "create_persona", "persona"),
        wait_command,
        task_command,
        download_command,
        credits_command,
        batch_group,
        jobs_group,
        request_command,
        completion_command,
        *family_groups().values(),
    ]
    group = Root(
        "musicapi",
        help=ABOUT,
        params=shared_options(hidden=False),
        commands={str(command.name): command for command in commands},
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    return click.version_option(__version__, prog_name="musicapi-async")(group)


root: Final = _root()
"""The `musicapi` command."""
