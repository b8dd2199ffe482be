"""`musicapi batch`: many songs from one file, resumable at any time."""

from __future__ import annotations

import asyncio
import contextlib
import math
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

from ..errors import RequestValidationError
from .error_texts import ExitCode, in_commands, labelled, wrapped
from .invocation import Command, Group, Invocation
from .output import json_line, print_err, visible
from .parameters import Folder, Positive, RateLimit

if TYPE_CHECKING:
    from .._transport.rate import Rate
    from ..workflows import BatchResult, Manifest, Plan, Progress
    from .progress import BatchBar

PLAIN_EVERY: Final = 5.0
"""Real seconds between plain lines of progress, where no terminal is watched."""
_SECONDS: Final = re.compile(r"\b[\d.]+ s\b")
NAMED: Final = 10
"""Songs that a line of the summary names at most; the report names all."""


def _prices(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, float]:
    """Return the prices by operation, or raise a usage error."""
    found: dict[str, float] = {}
    for text in value:
        name, _, credits = text.partition("=")
        try:
            found[name.replace("-", "_")] = price = float(credits)
        except ValueError:
            price = -1.0
        if not 0 <= price < math.inf:
            form = "needs the form STEP=CREDITS, such as lyrics=1 or create_music=20"
            raise click.BadParameter(form, ctx, param)
    if found:
        from ..workflows.budget import prices_by_operation

        try:
            return prices_by_operation(found)
        except RequestValidationError as error:
            raise click.BadParameter(error.message.removeprefix("prices: "), ctx, param) from error
    return found


def _given(_ctx: click.Context, _param: click.Parameter, manifest: Path) -> Path | bytes:
    """Return the path, or the bytes of standard input, one more at most than a manifest may have.

    They are read before the event loop runs, so that Ctrl-C ends the reading at once.
    """
    from ..workflows.manifest import SIZE_LIMIT

    if str(manifest) != "-":
        return manifest
    if sys.stdin is None:  # closed by the caller
        raise click.UsageError("Standard input is closed, so - names no manifest.")
    return sys.stdin.buffer.read(SIZE_LIMIT + 1)


@click.group("batch", cls=Group)
def batch_group() -> None:
    """Make many songs from one file."""


@batch_group.command("run", cls=Command)
@click.argument(
    "manifest",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    callback=_given,
)
@click.option(
    "--out",
    type=Folder(),
    required=True,
    metavar="DIR",
    help="Folder for the songs, the report, and what is known of the batch.",
)
@click.option(
    "--dry-run", is_flag=True, help="Check the file and say what would be done, and its cost; send nothing."
)
@click.option(
    "--budget",
    type=Positive(),
    metavar="CREDITS",
    help="Stop before more than this is spent in the folder. The first call of each kind may pass it, unless "
    "--price says what it costs.",
)
@click.option(
    "--price",
    "prices",
    multiple=True,
    callback=_prices,
    metavar="STEP=CREDITS",
    help="The price of a step, such as lyrics=1, or of a song, such as create_music=20, for --budget and "
    "--dry-run; repeatable. Else --budget learns it from the first call of each kind, which is made alone.",
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
    manifest: Path | bytes,
    out: Path,
    dry_run: bool,
    rate_limit: Rate | None,
    **options: Any,
) -> ExitCode:
    """Make all songs of MANIFEST, a .jsonl, .csv or .tsv file, or - for standard input. Charges credits.

    May be stopped at any time and run again: it goes on, and pays for nothing twice. Ctrl-C once submits
    nothing more and finishes what was submitted; twice leaves at once.

    A row has the fields of create_music (`musicapi create --help`; or of another `operation`), and if
    wanted `id`, `steps` and `clips`. The steps follow for each clip of the song, usually two; with `clips`
    "first" for the first only. A table (with commas, semicolons or tabs) has the same names in its header;
    its steps are separated by commas or semicolons, in quotes where the columns are.

    Steps: stems (or stems_basic, stems_full), wav, midi, lyrics, bpm, vox, persona, extend, cover, everything
    (stems, wav, midi and lyrics), and every other operation that works on a clip; with fields of its own a
    step is an object, such as {"persona": {"name": "Voice"}}.
    """
    from ..workflows import plan_batch, run_batch

    try:
        songs = await asyncio.to_thread(_manifest, manifest)
    except RequestValidationError as error:
        if invocation.errors_as_json:
            raise
        return _refused(error)
    if dry_run:
        shared = {name: options[name] for name in ("retry_failed", "max_in_flight", "budget", "prices")}
        plan = await plan_batch(songs, out, rate_limit=rate_limit, **shared)
        told = {name: getattr(plan, name) for name in plan.__struct_fields__}
        invocation.reporter.event("plan", told, _plan_text(plan, rate_limit, out))
        return ExitCode.OK
    invocation.is_rerunnable = invocation.charges = True
    meter = _Meter(invocation, len(songs.songs))
    async with invocation.client(rate_limit=rate_limit) as client:
        with meter, _two_interrupts(meter) as stop:
            result = await run_batch(client, songs, out=out, stop=stop, on_progress=meter.show, **options)
    lines = {song.id: song.line for song in songs.songs}
    return _summary(invocation, result, lines, budget=options["budget"], interrupted=stop.is_set())


def _manifest(given: Path | bytes) -> Manifest:
    """Return the manifest in a file, or in the bytes of standard input."""
    from ..workflows import Manifest

    return Manifest.read(given) if isinstance(given, Path) else Manifest.parse(given, "standard input")


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
    lines += _cost_text(plan)
    lines.append(f"About {_duration(plan.seconds)}. Nothing was sent.")
    return lines


def _cost_text(plan: Plan) -> list[str]:
    """Return what a plan costs by the prices that are known, held against the budget."""
    if plan.cost is None:
        return ["The budget can be compared when prices are given with --price."] if plan.budget else []
    spent = f", and {plan.spent:g} are spent already" if plan.spent else ""
    lines = [f"Cost: {plan.cost:g} credits{spent}"]
    if plan.unpriced:
        calls = ", ".join(f"{count} {name}" for name, count in plan.unpriced.items())
        lines.append(f"Without a price, so not in it: {calls}")
    if plan.budget is not None:
        rest = plan.budget - plan.spent - plan.cost
        lines.append(
            f"More than the budget of {plan.budget:g}, by {-rest:g}"
            if plan.over_budget
            else f"Within the budget of {plan.budget:g}: {rest:g} would remain"
        )
    return lines


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{rest} s"


def _summary(
    invocation: Invocation,
    result: BatchResult,
    rows: Mapping[str, int],
    *,
    budget: float | None,
    interrupted: bool,
) -> ExitCode:
    """Report how a run ended, and return the exit code; `rows` are the lines of the songs by their ids."""
    result = _in_commands(result)
    fields = {name: getattr(result, name) for name in result.__struct_fields__}
    steps = f", {_count(result.failed_steps, 'step')} failed" if result.failed_steps else ""
    calls = _count(result.submitted, "call")
    lines = [f"{_songs(result.done)} done, {result.failed} failed{steps}, {calls} submitted"]
    lines += _spent_text(result, budget)
    if result.halted:
        lines.append(f"Stopped early: {visible(result.halted)}")
    for why, names in _by_reason(result.failures).items():
        places = [f"{name} in line {rows[name]}" for name in names]
        lines.append(f"{len(names)} failed: {visible(why)} ({_named(places)})")
    failed_steps: dict[str, list[str]] = {}
    for step in result.step_failures:
        place = f"{step.id} in line {step.line}, clip {step.clip_id}"
        failed_steps.setdefault(f"{step.step}: {step.reason}", []).append(place)
    for why, places in failed_steps.items():
        lines.append(f"{_count(len(places), 'step')} failed: {visible(why)} ({_named(places)})")
    if result.hint:
        lines.append(result.hint)
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
    if result.failed or result.failed_steps:
        return ExitCode.TASK_FAILED
    return ExitCode.STILL_RUNNING if result.left else ExitCode.OK


def _spent_text(result: BatchResult, budget: float | None) -> list[str]:
    """Return what the run has cost, and with a budget the folder."""
    if result.spent_now is None:
        return ["What this run has cost is unknown: the balance could not be read"]
    lines = [f"{result.spent_now:g} credits spent in this run"]
    if result.spent is None and result.submitted:
        lines[0] += ", by the balance, which other calls of the account change, too"
    if result.spent is not None:
        more = f", more than the budget of {budget:g}" if budget is not None and result.spent > budget else ""
        lines.append(f"{result.spent:g} credits spent in this folder{more}")
    return lines


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
        step_failures=[
            msgspec.structs.replace(step, reason=in_commands(step.reason, store))
            for step in result.step_failures
        ],
        halted=in_commands(result.halted, store),
        hint=in_commands(result.hint, store),
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
    if progress.queued + progress.submitting and progress.rate >= 1:
        parts[-1] += f" ({progress.rate:.0f}/min)"
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
