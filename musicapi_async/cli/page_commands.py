"""`musicapi batch report` and `keep`: the page of a batch, and the takes that were chosen on it."""

from __future__ import annotations

import asyncio
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..workflows.command_texts import counted
from .exit_codes import ExitCode
from .invocation import Invocation
from .output import visible
from .parameters import Folder, StorePlace
from .usage import Command

if TYPE_CHECKING:
    from ..jobs import JobStore


@click.command("report", cls=Command)
@click.argument("folder", type=Folder(), metavar="DIR")
@click.option(
    "--to",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File for the page. [default: report.html in DIR]",
)
@click.option(
    "--embed", is_flag=True, help="Include songs and covers in the page, so that one file can be sent."
)
@click.option(
    "--store",
    type=StorePlace(),
    metavar="STORE",
    help="Address of the database, for the progress of a batch that workers carry out. "
    "[default: MUSICAPI_STORE]",
)
@click.pass_obj
async def report_command(
    invocation: Invocation, /, *, folder: Path, page: Path | None, embed: bool, store: JobStore | None
) -> ExitCode:
    """Write the page of the batch in DIR: players, picks, failures. Free, sends nothing.

    A run writes the page itself, and updates it every few seconds; open it in a browser. The page sends
    nothing either: listen, compare takes, give stars, mark the takes to keep, and export them for
    `musicapi batch keep`.

    For a batch that workers carry out, it also prints their progress, on any machine. The exit code is then
    that of the batch: 0 if all songs are done, 5 if some are not settled yet.
    """
    from ..jobs import STORE_VARIABLE
    from ..workflows import write_report
    from ..workflows.batch_folder import BatchFolder

    shared = BatchFolder(folder).shared()
    if shared is None and store is not None:
        await store.aclose()
        raise click.UsageError(f"No workers carry out the batch in {folder}, so it has no --store.")
    if shared is not None and (store is not None or os.environ.get(STORE_VARIABLE)):
        from .worker_commands import report_shared

        return await report_shared(invocation, folder, store, shared.store, to=page, embed=embed)
    written = await write_report(folder, to=page, embed=embed)
    lines = [f"Report: {written}"]
    if shared is not None:
        words = ("musicapi", "batch", "report", str(folder), "--store", shared.store)
        lines += ["To see how far the workers are:", f"  {visible(shlex.join(words))}"]
    invocation.reporter.event("report", {"report": written}, lines)
    return ExitCode.OK


@click.command("keep", cls=Command)
@click.argument("folder", type=Folder(), metavar="DIR")
@click.argument("picks", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="PICKS")
@click.option("--out", type=Folder(), metavar="FOLDER", help="Folder for the copies. [default: picks in DIR]")
@click.pass_obj
async def keep_command(invocation: Invocation, /, *, folder: Path, picks: Path, out: Path | None) -> None:
    """Copy the takes to keep into a folder, with their subtitles. Free, sends nothing.

    DIR is the folder of the batch, PICKS the JSON file that its page exported. No file is overwritten.
    """
    from ..workflows import copy_picks

    copies = await asyncio.to_thread(copy_picks, folder, picks, out)
    lines = [
        f"{counted(len(copies), 'take')} copied to {copies[0].parent}",
        *(f"  {copy.name}" for copy in copies),
    ]
    invocation.reporter.event("copied", {"files": copies}, lines)
