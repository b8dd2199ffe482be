"""`musicapi jobs`: paid calls that were sent, and decisions on those whose outcome is unknown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ..api.task import Task
from ..jobs.job import STATES
from .invocation import Command, Group, Invocation
from .output import print_out, visible
from .parameters import Word

if TYPE_CHECKING:
    from ..jobs import Job, JobState, SQLiteStore

HEADER: Final = ("state", "key", "task", "(reason, balance)")

_store = click.argument("store", type=click.Path(exists=True, path_type=Path), metavar="FILE_OR_DIR")


@click.group("jobs", cls=Group)
def jobs_group() -> None:
    """Show paid calls, and settle those whose outcome is unknown."""


@jobs_group.command("list", cls=Command)
@_store
@click.option("--state", "states", type=Word(STATES), multiple=True, help="Only jobs in it; repeatable.")
@click.pass_obj
async def list_command(invocation: Invocation, store: Path, states: tuple[JobState, ...]) -> None:
    """List the jobs of a store, oldest first. Free, sends nothing."""
    from ..clock import Clock
    from ..jobs.recorder import JobRecorder

    recorder = JobRecorder(_open(store), Clock(), "")
    try:
        jobs = await recorder.jobs(*states)
        rows = [HEADER, *map(_row, jobs)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        if not invocation.is_json:
            print_out(lines[0] if jobs else "No jobs.")
        for job, line in zip(jobs, lines[1:], strict=True):
            invocation.reporter.event("job", _fields(job), [line])
    finally:
        await recorder.aclose()


@jobs_group.command("resolve", cls=Command)
@_store
@click.argument("key")
@click.option("--task-id", required=True, metavar="ID", help="The task, as the dashboard displays it.")
@click.pass_obj
async def resolve_command(invocation: Invocation, store: Path, key: str, task_id: str) -> None:
    """Name the task that the ambiguous job KEY made. Free, sends nothing."""
    opened = _open(store)
    async with invocation.client() as client:
        task = await client.with_options(store=opened).resolve(key, task_id=task_id)
        invocation.track(task.ref)
        fields = {"key": key, "task_id": task.task_id, "token": task.token}
        invocation.reporter.event("resolved", fields, [task.token])


@jobs_group.command("resubmit", cls=Command)
@_store
@click.argument("key")
@click.option("--webhook-secret", metavar="TEXT", help="Required if the job had one; it is never stored.")
@click.confirmation_option(
    "--yes", prompt="This charges credits, and an ambiguous job may be paid for twice. Send it again?"
)
@click.pass_obj
async def resubmit_command(invocation: Invocation, store: Path, key: str, webhook_secret: str | None) -> None:
    """Send the ambiguous or failed job KEY once more. Charges credits; an ambiguous one perhaps twice."""
    opened = _open(store)
    async with invocation.client() as client:
        invocation.charges = True
        result = await client.with_options(store=opened).resubmit(key, webhook_secret=webhook_secret)
        if not isinstance(result, Task):
            invocation.reporter.event("resubmitted", {"key": key}, ["done"])
            return
        invocation.track(result.ref)
        fields = {"key": key, "task_id": result.task_id, "token": result.token}
        invocation.reporter.event("resubmitted", fields, [result.token])


def _open(path: Path) -> SQLiteStore:
    """Open the store in a file, or in the folder of a batch."""
    from ..jobs import SQLiteStore
    from ..workflows.batch_folder import BatchFolder

    file = BatchFolder(path).store_path if path.is_dir() else path
    if not file.is_file():
        raise click.UsageError(f"{path} holds no jobs: give the file of a store, or the folder of a batch.")
    return SQLiteStore(file)


def _fields(job: Job) -> dict[str, object]:
    return {
        "key": job.key,
        "state": job.state,
        "call": job.request.call,
        "task_id": job.task_id,
        "outcome": job.outcome,
        "refunded": job.refunded,
        "why": job.why,
        "balance_before": job.balance_before,
        "balance_after": job.balance_after,
        "attempts": job.attempts,
        "updated_at": job.updated_at,
    }


def _row(job: Job) -> tuple[str, ...]:
    reason = [job.why] if job.why else []
    if job.balance_before is not None and job.balance_after is not None:
        reason.append(f"balance {job.balance_before:g} to {job.balance_after:g}, other calls included")
    return tuple(map(visible, (job.state, job.key, job.task_id or "", "  ".join(reason))))
