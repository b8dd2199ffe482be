"""`musicapi jobs`: what was sent and paid for, and decisions on what nobody knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..api.handle import Task
from .commanding import Command, Group, Word, run
from .invocation import Invocation
from .output import put
from .visible import visible

if TYPE_CHECKING:
    from ..jobs import Job, JobState, SQLiteStore

STATES = ("reserved", "sent", "accepted", "finished", "failed", "ambiguous")

HEADER = "state  key  task  (why, balance)"

_store = click.argument("store", type=click.Path(exists=True, path_type=Path), metavar="FILE_OR_DIR")


def _opened(path: Path) -> SQLiteStore:
    """The store in a file, or in the folder of a batch."""
    from ..jobs import SQLiteStore
    from ..workflows.batch_folder import BatchFolder

    file = BatchFolder(path).store_path if path.is_dir() else path
    if not file.is_file():
        raise click.UsageError(f"{path} holds no jobs: give the file of a store, or the folder of a batch.")
    return SQLiteStore(file)


@click.group("jobs", cls=Group)
def jobs_group() -> None:
    """Show what was sent and paid for, and settle what is unknown."""


@jobs_group.command("list", cls=Command)
@_store
@click.option("--state", "states", type=Word(STATES), multiple=True, help="Only these; repeatable.")
def list_command(store: Path, states: tuple[JobState, ...]) -> None:
    """List the jobs of a store, oldest first. Free, sends nothing."""
    opened = _opened(store)

    async def work(invocation: Invocation) -> None:
        from ..clock import Clock
        from ..jobs.recorder import JobRecorder

        recorder = JobRecorder(opened, Clock(), "")
        try:
            found = await recorder.jobs(*states)
            if not invocation.is_json:
                put(HEADER if found else "No jobs.")
            for job in found:
                invocation.reporter.event("job", _fields(job), _text(job))
        finally:
            await recorder.aclose()

    run(work)


@jobs_group.command("resolve", cls=Command)
@_store
@click.argument("key")
@click.option("--task-id", required=True, metavar="ID", help="The task, as the dashboard shows it.")
def resolve_command(store: Path, key: str, task_id: str) -> None:
    """Say which task the ambiguous job KEY made. Free, sends nothing."""
    opened = _opened(store)

    async def work(invocation: Invocation) -> None:
        async with invocation.client() as client:
            task = await client.with_options(store=opened).resolve(key, task_id=task_id)
            invocation.named(task.ref)
            invocation.reporter.event(
                "resolved", {"key": key, "task_id": task.task_id, "token": task.token}, [task.token]
            )

    run(work)


@jobs_group.command("resubmit", cls=Command)
@_store
@click.argument("key")
@click.option("--webhook-secret", metavar="TEXT", help="Needed if the job had one; it is never kept.")
@click.confirmation_option(
    "--yes", prompt="This charges credits, and an ambiguous job may be paid for twice. Send it again?"
)
def resubmit_command(store: Path, key: str, webhook_secret: str | None) -> None:
    """Send the ambiguous or failed job KEY once more. Charges credits; an ambiguous one perhaps twice."""
    opened = _opened(store)

    async def work(invocation: Invocation) -> None:
        async with invocation.client() as client:
            invocation.charges = True
            found = await client.with_options(store=opened).resubmit(key, webhook_secret=webhook_secret)
            if isinstance(found, Task):
                invocation.named(found.ref)
            told = {"task_id": found.task_id, "token": found.token} if isinstance(found, Task) else {}
            invocation.reporter.event("resubmitted", {"key": key, **told}, [told.get("token", "done")])

    run(work)


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


def _text(job: Job) -> list[str]:
    told = [job.state, job.key, job.task_id or "", job.why]
    if job.balance_before is not None and job.balance_after is not None:
        told.append(f"balance {job.balance_before:g} to {job.balance_after:g}, other calls included")
    return [visible("  ".join(part for part in told if part))]
