"""Texts of a batch for people: its plan, its progress, and its summary."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ..api.account import credits_in, credits_text
from ..workflows.command_texts import counted, duration_text, in_commands, same_reason
from .output import visible

if TYPE_CHECKING:
    from .._transport.rate_window import Rate
    from ..workflows import BatchResult, Plan, Progress
    from ..workflows.workers import Queued

NAMED: Final = 10
"""Songs that a line of the summary names at most; the report names all."""


def plan_lines(plan: Plan, rate_limit: Rate | None, out: Path | None) -> list[str]:
    """Return the songs, steps, calls, cost and time of a batch that was not run.

    Args:
        plan: The plan of the batch.
        rate_limit: Creates per time; None for no limit.
        out: The folder of the batch; None for a new one.
    """
    counts = (plan.new, "to submit"), (plan.going_on, "running"), (plan.settled, "settled")
    listed = ", ".join(f"{count} {words}" for count, words in counts if count)
    lines = [f"{songs_text(plan.songs)}: {listed}" if listed else songs_text(plan.songs)]
    if plan.unknown:
        lines.append(
            f"{plan.unknown} with an unknown outcome: see `musicapi jobs list {shlex.quote(str(out))}`"
        )
    if plan.steps:
        lines.append("Steps: " + ", ".join(f"{count} {name}" for name, count in plan.steps.items()))
    rate = "without a limit" if rate_limit is None else f"at {rate_limit.count} per {rate_limit.period:g} s"
    calls = f", and {counted(plan.calls, 'other paid call')}" if plan.calls else ""
    in_all = f": {counted(plan.creates + plan.calls, 'paid call')} in all" if calls else ""
    if plan.creates or plan.calls:
        lines.append(f"{counted(plan.creates, 'create')} {rate}{calls}{in_all}")
    else:
        lines.append("Nothing is left to pay for")
    lines += _cost_lines(plan)
    lines.append(f"About {duration_text(plan.seconds)}. Nothing was sent.")
    return lines


def _cost_lines(plan: Plan) -> list[str]:
    """Return the cost of a plan by the known prices, compared with the budget."""
    if plan.cost is None:
        return ["The budget can be compared when prices are given with --price."] if plan.budget else []
    spent = f", and {credits_text(plan.spent)} are spent already" if plan.spent else ""
    lines = [f"Cost: {credits_text(plan.cost)} credits{spent}"]
    if plan.unpriced:
        calls = ", ".join(f"{count} {name}" for name, count in plan.unpriced.items())
        lines.append(f"Without a price, so not in it: {calls}")
    if plan.budget is not None:
        rest = credits_in(plan.budget, -plan.spent, -plan.cost)
        lines.append(
            f"More than the budget of {credits_text(plan.budget)}, by {credits_text(-rest)}"
            if plan.over_budget
            else f"Within the budget of {credits_text(plan.budget)}: {credits_text(rest)} would remain"
        )
    return lines


def summary_lines(
    result: BatchResult, rows: Mapping[str, tuple[int, bool]], budget: float | None, store: str
) -> list[str]:
    """Return the counts of a run, its cost, and every reason with its songs and steps.

    Args:
        result: The result of the run, from `result_in_commands`.
        rows: The lines of the songs in the manifest, by their ids, and whether the manifest gives the id;
            another id is a hash, which says nothing to a person.
        budget: The credits that the folder may cost, or None.
        store: The folder of the jobs.
    """
    steps = f", {counted(result.failed_steps, 'step')} failed" if result.failed_steps else ""
    calls = counted(result.submitted, "call")
    lines = [f"{songs_text(result.done)} done, {result.failed} failed{steps}, {calls} submitted"]
    lines += _spent_lines(result, budget)
    if result.halted:
        lines.append(f"Stopped early: {visible(result.halted)}")
    lines += _reason_lines(result, rows, store)
    if result.unfinished and not result.halted:
        lines.append("Run the same command again: it continues, and pays for nothing twice.")
    elif result.unknown or (
        result.unfinished and not result.disk_failed and "continues" not in result.halted
    ):
        lines.append("When that is settled, the same command continues, and pays for nothing twice.")
    lines.append(f"Report: {result.report}")
    return lines


def report_lines(
    result: BatchResult, rows: Mapping[str, tuple[int, bool]], store: str, prefix: str
) -> list[str]:
    """Return the counts of a batch that workers carry out, and every reason; see `summary_lines`.

    `store` is the address of the database of its jobs, and `prefix` begins their keys.
    """
    steps = f", {counted(result.failed_steps, 'step')} failed" if result.failed_steps else ""
    lines = [f"{songs_text(result.done)} done, {result.failed} failed{steps}"]
    return [*lines, *_reason_lines(result, rows, store, prefix), f"Report: {result.report}"]


def queued_lines(queued: Queued, out: Path, store: str) -> list[str]:
    """Return what was queued for workers, and how to continue.

    `store` is the address of the database, if the commands need it; else ''.
    """
    option = f" --store {shlex.quote(store)}" if store else ""
    counts = (
        (queued.queued, "queued"),
        (queued.known, "queued or under way already"),
        (queued.settled, "settled"),
    )
    listed = ", ".join(f"{count} {words}" for count, words in counts if count)
    return [
        f"{songs_text(queued.songs)}: {listed}",
        "To carry them out, on each machine:",
        f"  musicapi worker{option}",
        "To see how far the workers are, and to write the report:",
        f"  musicapi batch report {shlex.quote(str(out))}{option}",
    ]


def _reason_lines(
    result: BatchResult, rows: Mapping[str, tuple[int, bool]], store: str, prefix: str = ""
) -> list[str]:
    """Return the reasons of all that is not done; see `summary_lines`."""
    lines: list[str] = []

    def called(name: str) -> str:
        line, is_named = rows.get(name, (0, True))
        return name if not line else f"{name} in line {line}" if is_named else f"line {line}"

    def named(names: Sequence[str]) -> str:
        return _named([called(name) for name in sorted(names, key=lambda name: rows.get(name, (0, True)))])

    for why, names in _by_reason(result.failures.items()).items():
        lines.append(f"{len(names)} failed: {visible(why)} ({named(names)})")
    failed_steps = [
        (f"{called(step.id)}, clip {step.clip_id}", f"{step.step}: {step.reason}")
        for step in result.step_failures
    ]
    for why, places in _by_reason(failed_steps).items():
        lines.append(f"{counted(len(places), 'step')} failed: {visible(why)} ({_named(places)})")
    if result.hint:
        lines.append(result.hint)
    lines += _unknown_lines(result.unknown, rows, called, store, prefix)
    for why, names in _by_reason(result.unfinished.items()).items():
        reason = "" if why == result.halted else f": {visible(why)}"
        lines.append(f"{songs_text(len(names))} unfinished{reason} ({named(names)})")
    return lines


def _unknown_lines(
    unknown: Mapping[str, str],
    rows: Mapping[str, object],
    called: Callable[[str], str],
    store: str,
    prefix: str,
) -> list[str]:
    """Return the reasons of calls of unknown outcome, each once, with the places in the manifest.

    A reason of several calls has KEY in the place of their job keys, and a command that lists these.

    Args:
        unknown: The reasons by job key, which they may name.
        rows: The songs by their ids, in the order of the manifest.
        called: Names a song.
        store: The place of the jobs.
        prefix: The beginning of all job keys.
    """
    from ..workflows.run_record import song_id_of

    def place(key: str) -> str:
        song = song_id_of(key, rows, prefix)
        if song not in rows:
            return key
        step, *clip = key.removeprefix(f"{prefix}{song}/").split("/")
        return f"{called(song)}, {step}, clip {clip[0]}" if clip else called(song)

    order = {song: number for number, song in enumerate(rows)}
    keys = sorted(unknown, key=lambda key: order.get(song_id_of(key, rows, prefix), -1))
    lines: list[str] = []
    listing = ""
    for why, alike in _by_reason((key, _without_key(unknown[key], key)) for key in keys).items():
        reason = visible(why if alike[1:] else unknown[alike[0]])
        lines.append(f"Outcome unknown: {_named([place(key) for key in alike])}: {reason}")
        if alike[1:]:
            listing = f"Job keys (KEY): `musicapi jobs list {shlex.quote(store)} --state ambiguous`"
    return [*lines, listing] if listing else lines


def _without_key(text: str, key: str) -> str:
    """Return a text with KEY in the place of a job key, however the text quotes it."""
    for quoted in (repr(key), shlex.quote(key), key):
        text = text.replace(quoted, "KEY")
    return text


def _spent_lines(result: BatchResult, budget: float | None) -> list[str]:
    """Return the cost of the run, and with a budget that of the folder."""
    if result.spent_now is None:
        why = "the balance could not be read" if budget is None else "a price is unknown"
        return [f"The cost of this run is unknown: {why}"]
    lines = [f"{_credits(result.spent_now)} spent in this run"]
    if budget is None:
        if result.submitted:
            lines[0] += ", by the balance, which other calls of the account change, too"
    elif result.spent is None:
        lines.append("The cost of this folder is unknown: earlier calls have no price, which --price gives")
    else:
        more = f", more than the budget of {credits_text(budget)}" if result.spent > budget else ""
        lines.append(f"{_credits(result.spent)} spent in this folder{more}")
    return lines


def _credits(amount: float) -> str:
    return f"{credits_text(amount)} credit" if amount == 1 else f"{credits_text(amount)} credits"


def result_in_commands(result: BatchResult, store: str) -> BatchResult:
    """Return a result with its reasons in terms of the command.

    `store` is the folder of its jobs, or the address of their database.
    """
    store = shlex.quote(store)

    def translated(reasons: Mapping[str, str]) -> dict[str, str]:
        return {name: in_commands(why, store) for name, why in reasons.items()}

    return msgspec.structs.replace(
        result,
        failures=translated(result.failures),
        unknown=translated(result.unknown),
        unfinished=translated(result.unfinished),
        step_failures=[
            msgspec.structs.replace(step, reason=in_commands(step.reason, store))
            for step in result.step_failures
        ],
        halted=in_commands(result.halted, store),
        hint=in_commands(result.hint, store),
    )


def songs_text(count: int) -> str:
    """Return a number of songs, such as '2 songs'."""
    return counted(count, "song")


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(visible(name) for name in names[:NAMED]) + more


def _by_reason(found: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return names by their reason, so that a full disk is printed once, not once for each song.

    Reasons that differ only in the seconds of a wait are one.
    """
    reasons: dict[str, str] = {}
    names: dict[str, list[str]] = {}
    for name, why in found:
        first = reasons.setdefault(same_reason(why), why)
        names.setdefault(first, []).append(name)
    return names


def progress_line(progress: Progress) -> str:
    """Return the counts of a running batch, the remaining time, and the credits spent."""
    counts = [
        f"{count} {name}"
        for name, count in (
            ("queued", progress.queued + progress.submitting),
            ("running", progress.running),
            ("finishing", progress.fetching),
            ("failed", progress.failed),
            ("unknown", progress.unknown),
            ("unfinished", progress.unfinished),
        )
        if count
    ]
    parts = [", ".join(counts)] if counts else []
    if progress.remaining_seconds:
        parts.append(f"{duration_text(progress.remaining_seconds)} to go")
    if progress.spent is not None:
        parts.append(f"{_credits(progress.spent)} spent")
    parts.append(f"{progress.submitted} submitted")
    if progress.queued + progress.submitting and progress.rate >= 1:
        parts[-1] += f" ({progress.rate:.0f}/min)"
    return ", ".join(parts)
