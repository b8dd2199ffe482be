"""`musicapi worker`, and what is done with the batches of workers: queue, report, withdraw."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread
import click
import msgspec
from click.core import ParameterSource

from ..extras import require
from ..workflows.command_texts import in_commands
from .batch_texts import queued_lines, report_lines, result_in_commands, songs_text
from .error_texts import wrapped
from .exit_codes import ExitCode, exit_code_of_batch
from .invocation import Invocation, two_interrupts
from .output import print_err, visible
from .parameters import Folder, StorePlace
from .usage import Command

if TYPE_CHECKING:
    from ..client import MusicAPI
    from ..jobs import JobStore
    from ..workflows import Manifest
    from ..workflows.workers import RowEnd, WorkerResult, WorkerState

END_COLUMNS: Final = len("unfinished")
"""Columns of the longest end of a row."""

_store = click.option(
    "--store",
    type=StorePlace(),
    metavar="STORE",
    help="Address of the database, postgresql://user@host/name. Default: MUSICAPI_STORE.",
)


@click.command("worker", cls=Command)
@_store
@click.option(
    "--max-in-flight",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Largest number of unfinished tasks, of all workers of the account with this option. "
    "Default: no limit.",
)
@click.option("--status", is_flag=True, help="Show queue, workers, rate and permits, then exit. Free.")
@click.pass_obj
async def worker_command(
    invocation: Invocation, store: JobStore | None, max_in_flight: int | None, status: bool
) -> ExitCode:
    """Carry out the songs that `musicapi batch run --workers` has queued. Charges credits for each.

    Any number of workers may run, on any number of machines with the same database, the same account, and
    the folders of the batches under the same paths. Together they keep within the rate in the database.

    Ctrl-C or SIGTERM ends a worker: it returns its songs to the queue, and other workers continue them. The
    songs of a killed worker are taken over within 20 s. Nothing is paid for twice.
    """
    if status:
        return await _status(invocation, store)
    invocation.charges = False
    async with shared_client(invocation, store, max_in_flight=max_in_flight) as client:
        from ..workflows.row_queue import shared_store
        from ..workflows.workers import run_worker, worker_state

        place = shlex.quote(shared_store(client.store).name)

        def on_row(end: RowEnd) -> None:
            end = msgspec.structs.replace(end, why=in_commands(end.why, place))
            why = f": {end.why}" if end.why else ""
            line = visible(f"{end.state:{END_COLUMNS}}  {end.id} in line {end.line} of {end.out}{why}")
            invocation.reporter.event("row", msgspec.structs.asdict(end), _on_terminal([line]))

        queued = (await worker_state(client)).queue.queued
        _say(
            invocation,
            f"Working for account {client.account}: {songs_text(queued)} queued. Ctrl-C ends the worker.",
        )

        def first() -> None:
            _say(invocation, "Ending: calls that are being sent are finished, and all songs are given back.")

        def second() -> None:
            _say(invocation, "Ended at once; other workers take the songs over. Nothing is paid for twice.")

        with two_interrupts(first, second, signal.SIGINT, signal.SIGTERM) as stop:
            result = await run_worker(client, stop=stop, on_row=on_row)
    result = msgspec.structs.replace(result, halted=in_commands(result.halted, place))
    lines = _on_terminal(_result_lines(result))
    invocation.reporter.event("worker", msgspec.structs.asdict(result), lines)
    if not result.halted:
        return ExitCode.OK
    return ExitCode.OTHER if result.disk_failed else ExitCode.NOT_ALLOWED


def _say(invocation: Invocation, text: str) -> None:
    if not invocation.errors_as_json:
        print_err(wrapped(text))


def _on_terminal(lines: Iterable[str]) -> list[str]:
    """Return lines as a terminal shows them best; commands, which are indented, stay whole."""
    if not sys.stdout.isatty():
        return list(lines)
    return [line if line.startswith("  ") else wrapped(line) for line in lines]


def _result_lines(result: WorkerResult) -> list[str]:
    ends = ("failed", "unknown", "unfinished", "later", "given_back")
    words = {
        "unknown": "with an unknown outcome",
        "later": "to be tried again",
        "given_back": "given back",
    }
    counts = {name: int(getattr(result, name)) for name in ends}
    listed = [f"{count} {words.get(name, name)}" for name, count in counts.items() if count]
    lines = [", ".join([f"{songs_text(result.done)} done", *listed])]
    return [*lines, f"Stopped: {visible(result.halted)}"] if result.halted else lines


async def _status(invocation: Invocation, store: JobStore | None) -> ExitCode:
    async with shared_client(invocation, store) as client:
        from ..workflows.workers import worker_state

        state = await worker_state(client)
    invocation.reporter.event("worker_state", msgspec.to_builtins(state), _status_lines(state))
    return ExitCode.OK


def _status_lines(state: WorkerState) -> list[str]:
    queue, usage = state.queue, state.usage
    counts = [f"{queue.queued} queued", f"{queue.running} under way"]
    counts += [f"{queue.later} tried again later"] if queue.later else []
    counts += [f"{queue.orphaned} of workers that are gone"] if queue.orphaned else []
    waiting = f", creates that wait for it: {usage.waiting}" if usage.waiting else ""
    return [
        f"Account  {state.account}",
        f"Songs    {', '.join(counts)}",
        f"Workers  {len(queue.workers) or 'none'}",
        *(
            f"         {worker.number}: {songs_text(worker.rows)}, alive {worker.seconds:.0f} s ago"
            for worker in queue.workers
        ),
        f"Rate     {usage.rate or 'not used yet'}{waiting}",
        f"Permits  {usage.permits} held",
    ]


async def queue_batch(
    invocation: Invocation,
    manifest: Manifest,
    out: Path,
    store: JobStore | None,
    *,
    retry_failed: bool,
    name: str | None,
    tags: bool | None,
    **others: object,
) -> ExitCode:
    """Queue the songs of a batch for workers."""
    ctx = click.get_current_context()
    for option in (*others, "rate_limit", "dry_run"):
        if ctx.get_parameter_source(option) is not ParameterSource.DEFAULT:
            flag = "--price" if option == "prices" else f"--{option.replace('_', '-')}"
            raise click.UsageError(f"{flag} is for a batch in one process, without --workers.")
    async with shared_client(invocation, store) as client:
        from ..workflows.batch_folder import BatchFolder
        from ..workflows.workers import put_batch

        queued = await put_batch(client, manifest, out=out, retry_failed=retry_failed, name=name, tags=tags)
    shared = BatchFolder(out).shared() if store is not None else None  # else MUSICAPI_STORE names it
    lines = queued_lines(queued, out, shared.store if shared is not None else "")
    invocation.reporter.event("queued", msgspec.structs.asdict(queued), _on_terminal(lines))
    return ExitCode.OK


@contextlib.asynccontextmanager
async def shared_client(
    invocation: Invocation, store: JobStore | None, **options: Any
) -> AsyncGenerator[MusicAPI]:
    """A client whose store is a database that machines share; a usage error without one.

    Args:
        invocation: The run.
        store: The store of --store, else that of MUSICAPI_STORE.
        options: Those of `MusicAPI`.
    """
    from ..jobs.store import SharedStore

    require("The queue of workers", "workers", "procrastinate", "psycopg")
    async with invocation.client(store=store, **options) as client:
        if not isinstance(client.store, SharedStore):
            raise click.UsageError(
                "Workers share a database: --store postgresql://user@host/name, or MUSICAPI_STORE, with the "
                "password in PGPASSWORD or in the file of PGPASSFILE."
            )
        yield client


async def report_shared(
    invocation: Invocation, folder: Path, store: JobStore | None, address: str, **page: Any
) -> ExitCode:
    """Print how far the workers are, and write the page.

    Args:
        invocation: The run.
        folder: The folder of the batch.
        store: The store of --store, or None.
        address: That of its database in commands.
        page: `to` and `embed` of `report_batch`.
    """
    async with shared_client(invocation, store) as client:
        from ..workflows.workers import report_batch

        result = result_in_commands(await report_batch(client, out=folder, **page), address)
    from ..workflows.run_record import read_run

    run = await anyio.to_thread.run_sync(read_run, folder)
    rows = {row.id: (row.line, row.is_named) for row in run.rows} if run is not None else {}
    prefix = run.job_prefix if run is not None else ""
    if run is not None:
        retry = f"`{run.command(folder)} --retry-failed`"
        hint = result.hint.replace("the same command with --retry-failed", retry)
        result = msgspec.structs.replace(result, hint=hint)
    lines = _on_terminal(report_lines(result, rows, address, prefix))
    invocation.reporter.event("batch", msgspec.structs.asdict(result), lines)
    return exit_code_of_batch(result, interrupted=False)


@click.command("withdraw", cls=Command)
@click.argument("folder", type=Folder(), metavar="DIR")
@_store
@click.pass_obj
async def withdraw_command(invocation: Invocation, folder: Path, store: JobStore | None) -> None:
    """Remove the songs of the folder DIR from the queue. Free.

    Songs that a worker has begun are finished. `musicapi batch run --workers` queues the others again.
    """
    async with shared_client(invocation, store) as client:
        from ..workflows.workers import withdraw_batch

        count = await withdraw_batch(client, out=folder)
    invocation.reporter.event("withdrawn", {"songs": count}, [f"{songs_text(count)} removed from the queue."])
