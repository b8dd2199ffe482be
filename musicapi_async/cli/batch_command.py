"""`musicapi batch`: many songs from one file, resumable at any time, their page, and the chosen takes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from click.core import ParameterSource
from msgspec import UNSET, UnsetType

from ..errors import RequestValidationError
from ..extras import require
from ..workflows.command_texts import counted, in_commands
from .batch_texts import plan_lines, progress_line, result_in_commands, songs_text, summary_lines
from .error_texts import labelled, wrapped
from .exit_codes import ExitCode, exit_code_of_batch
from .invocation import Invocation, two_interrupts
from .output import json_line, print_err, visible
from .parameters import Folder, Positive, RateLimit, StorePlace
from .usage import Command, Group

if TYPE_CHECKING:
    from .._transport.rate_window import Rate
    from ..jobs import JobStore
    from ..workflows import Manifest, Progress
    from .progress import BatchBar

PLAIN_EVERY: Final = 5.0
"""Real seconds between plain lines of progress, where no terminal is watched."""


def _source(ctx: click.Context, param: click.Parameter, value: Path) -> Path | bytes:
    """Return the path of the manifest, or for '-' the bytes of standard input.

    They are read before there is an event loop, so that Ctrl-C ends the reading at once.
    """
    from ..workflows.manifest import MANIFEST_LIMIT

    if str(value) != "-" or ctx.resilient_parsing:
        return value
    if sys.stdin is None:  # closed by the caller
        raise click.UsageError("Standard input is closed, so - names no manifest.")
    return sys.stdin.buffer.read(MANIFEST_LIMIT + 1)


def _prices(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, float]:
    """Return the prices by operation, or raise a usage error."""
    found: dict[str, float] = {}
    for text in value:
        name, _, credits = text.partition("=")
        try:
            found[name.replace("-", "_")] = float(credits)
        except ValueError:
            form = "needs the form STEP=CREDITS, such as lyrics=1 or create_music=20"
            raise click.BadParameter(form, ctx, param) from None
    if found:
        from ..workflows.budget import prices_by_operation

        try:
            return prices_by_operation(found)
        except RequestValidationError as error:
            raise click.BadParameter(error.message.removeprefix("prices: "), ctx, param) from error
    return found


def _name_pattern(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Refuse a pattern of names before anything is read."""
    from ..workflows.song_places import check_name_pattern

    if value is not None:
        try:
            check_name_pattern(value)
        except RequestValidationError as error:
            raise click.BadParameter(error.message.removeprefix("name: ")) from error
    return value


def _given(ctx: click.Context, param: click.Parameter, value: Rate | None) -> Rate | UnsetType | None:
    """Return the rate that was given, or UNSET for the default one, which that of a store replaces."""
    is_default = ctx.get_parameter_source(str(param.name)) is ParameterSource.DEFAULT
    return UNSET if is_default else value


@click.group("batch", cls=Group)
def batch_group() -> None:
    """Make many songs from one file, listen to them, and choose."""


@batch_group.command("run", cls=Command)
@click.argument(
    "source",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    callback=_source,
    metavar="MANIFEST",
)
@click.option(
    "--out",
    type=Folder(),
    metavar="DIR",
    help="Folder for the songs, the report, and the records of the batch. Required, except with --dry-run, "
    "which without it plans for a new folder.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check the manifest, print what would be done and its cost, and send nothing.",
)
@click.option(
    "--budget",
    type=Positive(),
    metavar="CREDITS",
    help="Most credits to spend in the folder. The first call of each kind may exceed it, unless --price "
    "sets its price.",
)
@click.option(
    "--price",
    "prices",
    multiple=True,
    callback=_prices,
    metavar="STEP=CREDITS",
    help="Price of a step, such as lyrics=1, or of a song, such as create_music=20, for --budget and "
    "--dry-run; repeatable. Without it, --budget learns the price from the first call of each kind, which "
    "is made alone.",
)
@click.option(
    "--max-in-flight",
    type=click.IntRange(1, 1000),
    default=64,
    show_default=True,
    metavar="N",
    help="Largest number of unfinished tasks.",
)
@click.option(
    "--rate-limit",
    type=RateLimit(),
    default="1/3s",
    callback=_given,
    metavar="N/TIME",
    help="Creates per time that the account allows, such as 20/10s; none: no limit. "
    "[default: 1/3s, or that of --store]",
)
@click.option(
    "--store",
    type=StorePlace(),
    metavar="STORE",
    help="Address of the database, postgresql://user@host/name, with the rate that machines share. The "
    "records of the batch are in DIR; with --workers, its calls are recorded in the database.",
)
@click.option(
    "--workers",
    is_flag=True,
    help="Queue the songs in the database, for `musicapi worker` on any number of machines. All of them need "
    "DIR under the same path.",
)
@click.option("--retry-failed", is_flag=True, help="Send failed songs and steps once more.")
@click.option(
    "--name",
    metavar="PATTERN",
    callback=_name_pattern,
    help="Pattern of file names, set by the first run in DIR; fields: {number} (of the row), {title}, "
    "{take}, {id}, {clip_id}. [default: {number} {title} (take {take})]",
)
@click.option(
    "--tags/--no-tags",
    default=None,
    help="Write title, artist, album, track, style, lyrics, cover and prompt into the MP3 and WAV files. "
    "[default: yes, if mutagen is installed]",
)
@click.pass_obj
async def run_command(
    invocation: Invocation,
    /,
    *,
    source: Path | bytes,
    out: Path | None,
    dry_run: bool,
    rate_limit: Rate | UnsetType | None,
    store: JobStore | None,
    workers: bool,
    **options: Any,
) -> ExitCode:
    """Make all songs of MANIFEST, a .jsonl, .csv or .tsv file, or - for standard input. Charges credits.

    The run may be stopped at any time and started again: it continues, and pays for nothing twice. After
    Ctrl-C it submits nothing more and finishes the submitted songs; after a second Ctrl-C, or
    SIGTERM, it stops at once.

    A row has the fields of create_music (see `musicapi create --help`), or of another `operation`, and
    optionally `id`, `steps` and `clips`. The steps run for each clip of the song, usually two; with `clips`
    "first" only for the first. A table (with commas, semicolons or tabs) has the same names in its header;
    its steps are separated by commas or semicolons, in quotes if the columns have the same separator.

    Steps: stems (or stems_basic, stems_full), wav, midi, lyrics, bpm, vox, persona, extend, cover, everything
    (stems, wav, midi and lyrics), and every other operation on a clip. A step with fields is an
    object, such as {"persona": {"name": "Voice"}}.
    """
    from ..workflows import plan_batch, run_batch

    if out is None and (workers or not dry_run):
        ctx = click.get_current_context()
        option = next(param for param in ctx.command.params if param.name == "out")
        raise click.MissingParameter(ctx=ctx, param=option)
    try:
        manifest = await asyncio.to_thread(_manifest_of, source)
    except RequestValidationError as error:
        if invocation.errors_as_json:
            raise
        return _refused(error)
    if workers and out is not None:
        from .worker_commands import queue_batch

        return await queue_batch(invocation, manifest, out, store, **options)
    if dry_run:
        shared = {name: options[name] for name in ("retry_failed", "max_in_flight", "budget", "prices")}
        rate = await _planned_rate(invocation, store) if isinstance(rate_limit, UnsetType) else rate_limit
        with tempfile.TemporaryDirectory() as new:
            plan = await plan_batch(manifest, out or new, rate_limit=rate, **shared)
        invocation.reporter.event("plan", msgspec.structs.asdict(plan), plan_lines(plan, rate, out))
        return ExitCode.OK
    require("The page of a batch", "cli", "jinja2")
    assert out is not None, "only a dry run has none"
    invocation.is_rerunnable = invocation.charges = True
    meter = _Meter(invocation, len(manifest.songs))
    async with invocation.client(rate_limit=rate_limit, store=store) as client:
        with meter, _interrupts(meter) as stop:
            result = await run_batch(client, manifest, out=out, stop=stop, on_progress=meter.show, **options)
    rows = {song.id: (song.line, song.is_named) for song in manifest.songs}
    result = result_in_commands(result, str(out))
    lines = summary_lines(result, rows, options["budget"], str(out))
    if sys.stdout.isatty():
        lines = [wrapped(line) for line in lines]
    invocation.reporter.event("batch", msgspec.structs.asdict(result), lines)
    return exit_code_of_batch(result, interrupted=stop.is_set())


async def _planned_rate(invocation: Invocation, store: JobStore | None) -> Rate | None:
    """Return the rate at which a batch would go that was given none."""
    from .._transport.rate_limiter import DEFAULT_LANES
    from ..jobs.store import SharedStore

    if not isinstance(store, SharedStore):
        return DEFAULT_LANES["submit"].rate
    try:
        return await store.rate(invocation.account())
    finally:
        await store.aclose()


def _manifest_of(source: Path | bytes) -> Manifest:
    """Return the manifest in a file, or in the bytes of standard input; the command publishes no files."""
    from ..workflows import Manifest
    from ..workflows.batch_plan import check_no_files

    read = Manifest.read(source) if isinstance(source, Path) else Manifest.parse(source, "standard input")
    try:
        check_no_files(read)
    except RequestValidationError as error:
        error.hint += " In a program, run_batch does that with the uploader of its client."
        raise
    return read


def _refused(error: RequestValidationError) -> ExitCode:
    """Print the faults of a manifest, one on each line."""
    first, *others = error.message.split("\n")
    lines = [labelled(in_commands(first)), *map(wrapped, map(in_commands, others))]
    lines += [error.money, in_commands(error.hint)]
    print_err("\n".join(lines))
    return ExitCode.REFUSED


class _Meter:
    """Live progress: one bar on a terminal, a plain line now and then elsewhere, events in JSON."""

    def __init__(self, invocation: Invocation, songs: int) -> None:
        self._songs = songs
        self._json = invocation.errors_as_json
        self._last = 0.0
        self._progress: Progress | None = None
        self._bar: BatchBar | None = None
        self._display = contextlib.ExitStack()

    def __enter__(self) -> _Meter:
        if not self._json and sys.stderr.isatty():
            from .progress import Bars

            bars = self._display.enter_context(Bars())
            self._bar = bars.batch(self._songs) if bars.are_live else None
        return self

    def __exit__(self, *exception: object) -> None:
        self._display.close()

    def show(self, progress: Progress) -> None:
        """Display the progress of the batch."""
        self._progress = progress
        ended = progress.done + progress.failed
        if self._bar is not None:
            state = "stopping" if progress.stopping else "running"
            self._bar.show(ended, progress.failed, state, progress_line(progress))
        elif time.monotonic() - self._last >= PLAIN_EVERY:
            self._last = time.monotonic()
            if self._json:
                print_err(json_line({"event": "progress", **msgspec.structs.asdict(progress)}))
            else:
                self.say(f"{ended}/{progress.total} {progress_line(progress)}")

    @property
    def under_way(self) -> int:
        """The number of songs that are paid for and not fetched yet."""
        return self._progress.running + self._progress.fetching if self._progress else 0

    def say(self, text: str) -> None:
        """Print a text beside the progress, unless it is in JSON."""
        if not self._json:
            print_err(wrapped(text))


def _interrupts(meter: _Meter) -> contextlib.AbstractContextManager[asyncio.Event]:
    """Ctrl-C once submits nothing more, and twice cancels: the batch can then be resumed."""

    def first() -> None:
        meter.say(
            "Stopping: nothing more is submitted; songs under way will be fetched. "
            "Ctrl-C again stops at once."
        )

    def second() -> None:
        count = meter.under_way
        verb = "is" if count == 1 else "are"
        paid = f"{songs_text(count)} {verb} under way and paid for. " if count else ""
        meter.say(f"{paid}Run the same command again: it continues, and pays for nothing twice.")

    return two_interrupts(first, second, signal.SIGINT)


@batch_group.command("report", cls=Command)
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

    require("The page of a batch", "cli", "jinja2")
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


@batch_group.command("keep", cls=Command)
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
