"""`musicapi batch`: many songs from one file, resumable at any time."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import signal
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from ..api.families import FAMILIES
from ..api.spelling import did_you_mean
from ..errors import RequestValidationError
from .error_texts import ExitCode, in_commands, labelled, wrapped
from .invocation import Command, Group, Invocation
from .output import json_line, print_err, visible
from .parameters import Folder, Positive, RateLimit

if TYPE_CHECKING:
    from .._transport.rate import Rate
    from ..batch import BatchResult, Plan, Progress
    from .progress import BatchBar

PLAIN_EVERY: Final = 5.0
"""Real seconds between plain lines of progress, where no terminal is watched."""
_SECONDS: Final = re.compile(r"\b[\d.]+ s\b")
NAMED: Final = 10
"""Songs that a line of the summary names at most; the report names all."""


def _prices(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    known = {name for family in FAMILIES.values() for name in family.operations()}
    for text in value:
        name, sign, credits = text.partition("=")
        name = name.replace("-", "_")
        try:
            found[name] = float(credits)
        except ValueError:
            sign = ""
        if sign and name not in known:
            raise click.BadParameter(f"no operation {name!r}{did_you_mean(name, known)}", ctx, param)
        if not sign:
            raise click.BadParameter("needs the form OPERATION=CREDITS, such as create_music=20", ctx, param)
    return found


@click.group("batch", cls=Group)
def batch_group() -> None:
    """Make many songs from one file."""


@batch_group.command("run", cls=Command)
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=Folder(),
    required=True,
    metavar="DIR",
    help="Folder for the songs, the report, and what is known of the batch.",
)
@click.option("--dry-run", is_flag=True, help="Check the file and tell what would be done; send nothing.")
@click.option(
    "--budget",
    type=Positive(),
    metavar="CREDITS",
    help="Stop before more than this is spent. The first call of each kind may pass it, unless --price says "
    "what it costs.",
)
@click.option(
    "--price",
    "prices",
    multiple=True,
    callback=_prices,
    metavar="OPERATION=CREDITS",
    help="For the budget: what a call costs. Else the first call of each kind tells, which is made alone; "
    "repeatable.",
)
@click.option(
    "--max-in-flight", type=click.IntRange(1, 1000), default=64, show_default=True, help="Tasks at once."
)
@click.option(
    "--rate-limit",
    type=RateLimit(),
    default="1/3s",
    show_default=True,
    metavar="N/TIME",
    help="Creates per time, such as 20/10s, as the plan of the account allows; none: no limit.",
)
@click.option("--retry-failed", is_flag=True, help="Send songs and steps that failed once more.")
@click.option("--tags", is_flag=True, help="Write title, style and lyrics into the MP3 files.")
@click.pass_obj
async def run_command(
    invocation: Invocation,
    /,
    manifest: Path,
    out: Path,
    dry_run: bool,
    rate_limit: Rate | None,
    **options: Any,
) -> ExitCode:
    """Make all songs of MANIFEST, a .jsonl or .csv file. Charges credits.

    May be stopped at any time and run again: it goes on, and pays for nothing twice. Ctrl-C once submits
    nothing more and finishes what was submitted; twice leaves at once.

    A row has the fields of create_music (`musicapi create --help`; or of another `operation`), and if
    wanted `id`, `steps` and `clips`. The steps follow for each clip of the song, usually two; with `clips`
    "first" for the first only. CSV has the same names in its header; its steps are separated by commas (then
    in quotes) or semicolons.

    Steps: stems (or stems_basic, stems_full), wav, midi, lyrics, bpm, vox, persona, extend, and every other
    operation that works on a clip; with fields of its own a step is an object, such as
    {"persona": {"name": "Voice"}}.
    """
    from ..batch import Manifest, plan_batch, run_batch

    try:
        songs = await asyncio.to_thread(Manifest.read, manifest)
    except RequestValidationError as error:
        if invocation.errors_as_json:
            raise
        return _refused(error)
    if dry_run:
        shared = {name: options[name] for name in ("retry_failed", "max_in_flight")}
        plan = await plan_batch(songs, out, rate_limit=rate_limit, **shared)
        told = {name: getattr(plan, name) for name in plan.__struct_fields__}
        invocation.reporter.event("plan", told, _plan_text(plan, rate_limit, out))
        return ExitCode.OK
    invocation.is_rerunnable = invocation.charges = True
    meter = _Meter(invocation, len(songs.songs))
    async with invocation.client(rate_limit=rate_limit) as client:
        with meter, _two_interrupts(meter) as stop:
            result = await run_batch(client, songs, out=out, stop=stop, on_progress=meter.show, **options)
    return _summary(invocation, result, budget=options["budget"], interrupted=stop.is_set())


def _refused(error: RequestValidationError) -> ExitCode:
    """Tell what is wrong with a manifest, one fault on each line."""
    first, *others = error.message.split("\n")
    lines = [labelled(in_commands(first)), *map(wrapped, map(in_commands, others))]
    lines += [error.money, in_commands(error.hint)]
    print_err("\n".join(lines))
    return ExitCode.REFUSED


def _plan_text(plan: Plan, rate_limit: Rate | None, out: Path) -> list[str]:
    counts = (plan.new, "to submit"), (plan.going_on, "going on"), (plan.settled, "settled")
    told = ", ".join(f"{count} {words}" for count, words in counts if count)
    lines = [f"{_songs(plan.songs)}: {told}" if told else _songs(plan.songs)]
    if plan.unknown:
        lines.append(
            f"{plan.unknown} with an unknown outcome: see `musicapi jobs list {shlex.quote(str(out))}`"
        )
    if plan.steps:
        lines.append("Steps: " + ", ".join(f"{count} {name}" for name, count in plan.steps.items()))
    rate = "without a limit" if rate_limit is None else f"at {rate_limit.count} per {rate_limit.period:g} s"
    calls = f", and {_count(plan.calls, 'other paid call')}" if plan.calls else ""
    in_all = f": {_count(plan.creates + plan.calls, 'paid call')} in all" if calls else ""
    lines.append(f"{_count(plan.creates, 'create')} {rate}{calls}{in_all}")
    lines.append(f"About {_duration(plan.seconds)}. Nothing was sent.")
    return lines


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{rest} s"


def _summary(
    invocation: Invocation, result: BatchResult, *, budget: float | None, interrupted: bool
) -> ExitCode:
    result = _in_commands(result)
    fields = {name: getattr(result, name) for name in result.__struct_fields__}
    calls = _count(result.submitted, "call")
    lines = [f"{_songs(result.done)} done, {result.failed} failed, {calls} submitted"]
    if result.spent is not None:
        more = f", more than the budget of {budget:g}" if budget is not None and result.spent > budget else ""
        lines.append(f"{result.spent:g} credits spent in this folder{more}")
    if result.halted:
        lines.append(f"Stopped early: {visible(result.halted)}")
    for why, names in _by_reason(result.failures).items():
        lines.append(f"{len(names)} failed: {visible(why)} ({_named(names)})")
    if result.failures:
        lines.append(
            "To send what failed once more, which is charged again: the same command, --retry-failed."
        )
    for why, names in _by_reason(result.unknown).items():
        lines.append(f"Outcome unknown: {_named(names)}: {visible(why)}")
    for why, names in _by_reason(result.left).items():
        reason = "" if why == result.halted else f": {visible(why)}"
        lines.append(f"{_songs(len(names))} left{reason} ({_named(names)})")
    if result.left and not result.halted:
        lines.append("Run the same command again: it goes on, and pays for nothing twice.")
    lines.append(f"Report: {result.report}")
    invocation.reporter.event("batch", fields, lines)
    if result.unknown:
        return ExitCode.OUTCOME_UNKNOWN
    if interrupted and result.left:
        return ExitCode.INTERRUPTED
    if result.halted:
        return ExitCode.OTHER if result.disk_failed else ExitCode.NOT_ALLOWED
    if result.failed:
        return ExitCode.TASK_FAILED
    return ExitCode.STILL_RUNNING if result.left else ExitCode.OK


def _in_commands(result: BatchResult) -> BatchResult:
    """The result with its reasons in terms of the command."""
    store = shlex.quote(str(result.report.parent))

    def told(reasons: Mapping[str, str]) -> dict[str, str]:
        return {name: in_commands(why, store) for name, why in reasons.items()}

    return msgspec.structs.replace(
        result,
        failures=told(result.failures),
        unknown=told(result.unknown),
        left=told(result.left),
        halted=in_commands(result.halted, store),
    )


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _songs(count: int) -> str:
    return _count(count, "song")


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(visible(name) for name in names[:NAMED]) + more


def _by_reason(found: Mapping[str, str]) -> dict[str, list[str]]:
    """Return names by their reason, so that a full disk is printed once, not once for each song.

    Reasons that differ only in the seconds of a wait are one.
    """
    reasons: dict[str, str] = {}
    names: dict[str, list[str]] = {}
    for name, why in found.items():
        first = reasons.setdefault(_SECONDS.sub("", why), why)
        names.setdefault(first, []).append(name)
    return names


class _Meter:
    """Live progress: one bar on a terminal, a plain line now and then elsewhere, events in JSON."""

    def __init__(self, invocation: Invocation, songs: int) -> None:
        self._songs = songs
        self._json = invocation.errors_as_json
        self._last = 0.0
        self._progress: Progress | None = None
        self._bar: BatchBar | None = None

    def __enter__(self) -> _Meter:
        if not self._json and sys.stderr.isatty():
            from .progress import BatchBar

            self._bar = BatchBar(self._songs)
            self._bar.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*exception)

    def show(self, progress: Progress) -> None:
        """Display the progress of the batch."""
        self._progress = progress
        ended = progress.done + progress.failed
        if self._bar is not None:
            self._bar.show(ended, _line(progress))
        elif time.monotonic() - self._last >= PLAIN_EVERY:
            self._last = time.monotonic()
            if self._json:
                fields = {name: getattr(progress, name) for name in progress.__struct_fields__}
                print_err(json_line({"event": "progress", **fields}))
            else:
                self.say(f"{ended}/{progress.total} {_line(progress)}")

    @property
    def under_way(self) -> int:
        """The number of songs that are paid for and not fetched yet."""
        return self._progress.running + self._progress.fetching if self._progress else 0

    def say(self, text: str) -> None:
        """Print a text beside the progress, unless it is in JSON."""
        if not self._json:
            print_err(wrapped(text))


def _line(progress: Progress) -> str:
    counts = [
        f"{count} {name}"
        for name, count in (
            ("queued", progress.queued + progress.submitting),
            ("running", progress.running),
            ("finishing", progress.fetching),
            ("failed", progress.failed),
            ("unknown", progress.unknown),
            ("left", progress.left),
        )
        if count
    ]
    parts = [", ".join(counts)] if counts else []
    if progress.left_seconds:
        parts.append(f"{_duration(progress.left_seconds)} to go")
    if progress.spent is not None:
        parts.append(f"{progress.spent:g} credits")
    parts.append(f"{progress.submitted} submitted")
    if progress.queued + progress.submitting and progress.rate_limit >= 1:
        parts[-1] += f" ({progress.rate_limit:.0f}/min)"
    return ", ".join(parts)


@contextlib.contextmanager
def _two_interrupts(meter: _Meter) -> Generator[asyncio.Event]:
    """Within this context Ctrl-C sets the event once, and twice cancels: the batch can then be resumed."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()

    def interrupted() -> None:
        if stop.is_set():
            if main is not None:
                main.cancel()
            return
        stop.set()
        meter.say(
            f"Stopping: nothing more is submitted, and {_songs(meter.under_way)} under way will be fetched. "
            "Ctrl-C again stops at once. The same command continues later, and pays for nothing twice."
        )

    before = signal.getsignal(signal.SIGINT)

    def on_signal(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(interrupted)

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield stop
    except asyncio.CancelledError:
        if stop.is_set():
            count = meter.under_way
            verb = "is" if count == 1 else "are"
            paid = f"{_songs(count)} {verb} under way and paid for. " if count else ""
            meter.say(f"{paid}Run the same command again: it continues, and pays for nothing twice.")
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)
