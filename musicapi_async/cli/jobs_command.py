"""`musicapi jobs`: paid calls, decisions on those of unknown outcome, and their removal."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from ..api.account import credits_text
from ..api.batches import Batch
from ..api.task import Task, ref_of
from ..jobs import STORE_VARIABLE
from ..jobs.job import STATES
from ..jobs.store import SETTLED
from ..workflows.command_texts import counted
from .invocation import Invocation, confirm
from .output import print_err, print_out, visible
from .parameters import Age, OneOfWords, RateLimit, StorePlace
from .reporters import reply_fields
from .result_texts import value_lines
from .usage import Command, Group

STATE_COLUMNS: Final = max(map(len, STATES))
"""Columns of the longest state."""

if TYPE_CHECKING:
    from ..jobs import Job, JobState, JobStore

_yes = click.option("--yes", is_flag=True, help="Confirm the action without prompting.")
_store = click.argument("store", type=StorePlace(), metavar="STORE", envvar=STORE_VARIABLE)


@click.group("jobs", cls=Group)
def jobs_group() -> None:
    """Show paid calls, and settle those whose outcome is unknown."""


@jobs_group.command("list", cls=Command)
@_store
@click.option(
    "--state",
    "states",
    type=OneOfWords(STATES),
    multiple=True,
    help="List only jobs in this state; repeatable.",
)
@click.pass_obj
async def list_command(invocation: Invocation, store: JobStore, states: tuple[JobState, ...]) -> None:
    """List the jobs of a store, oldest first. Free, sends nothing.

    STORE is the file of a job store, the folder of a batch, or the address of a database,
    postgresql://user@host/name, with its password in PGPASSWORD or in the file of PGPASSFILE. Default:
    MUSICAPI_STORE.
    """
    from ..clock import Clock
    from ..jobs.recorder import JobRecorder

    recorder = JobRecorder(store, Clock(), "")
    try:
        jobs = await recorder.jobs(*states)
        if not jobs and not invocation.is_json:
            print_out("No jobs.")
        names_account = len({job.account for job in jobs}) > 1  # else it tells no jobs apart
        for job in jobs:
            lines = _lines(job, names_account=names_account)
            invocation.reporter.event("job", _fields(job), lines)
    finally:
        await recorder.aclose()


@jobs_group.command("purge", cls=Command)
@_store
@click.option(
    "--older-than",
    "age",
    type=Age(),
    required=True,
    help="Age of the last change, such as 30d, 12h or 90m; younger jobs stay.",
)
@_yes
@click.pass_obj
async def purge_command(invocation: Invocation, store: JobStore, age: float, *, yes: bool) -> None:
    """Remove old jobs that have finished or failed. Free, sends nothing.

    All others stay, however old they are. What is removed counts no longer for the budget of a batch.
    """
    before = time.time() - age
    try:
        old = 0 if yes else sum(job.updated_at < before for job in await store.jobs(*SETTLED))
        if old:
            print_err(
                f"{counted(old, 'job')} to remove, keys included: a call with such a key is paid for again."
            )
            confirm("Remove?")
        count = await store.purge(before) if old or yes else 0
    finally:
        await store.aclose()
    invocation.reporter.event("purged", {"jobs": count}, [f"{counted(count, 'job')} removed."])


@jobs_group.command("resolve", cls=Command)
@_store
@click.argument("key")
@click.option("--task-id", required=True, metavar="ID", help="Id of the task, from the dashboard.")
@click.option(
    "--item",
    type=int,
    default=0,
    metavar="N",
    help="For a batch: index of the item that made the task, from 0.",
)
@click.pass_obj
async def resolve_command(invocation: Invocation, store: JobStore, key: str, task_id: str, item: int) -> None:
    """Name the task that the ambiguous job KEY made. Free, sends nothing."""
    async with invocation.client(store=store) as client:
        task = await client.resolve(key, task_id=task_id, item=item)
        invocation.track(ref_of(task))
        fields = {"key": key, "task_id": task.task_id, "token": task.token}
        invocation.reporter.event("resolved", fields, [task.token])


@jobs_group.command("resubmit", cls=Command)
@_store
@click.argument("key")
@click.option(
    "--webhook-secret", metavar="TEXT", help="Secret of the webhook, if the call had one; it is never stored."
)
@_yes
@click.pass_obj
async def resubmit_command(
    invocation: Invocation, store: JobStore, key: str, webhook_secret: str | None, *, yes: bool
) -> None:
    """Send the ambiguous or failed job KEY once more. Charges credits; an ambiguous job may be paid twice."""
    from ..jobs.recorder import JobRecorder

    async with invocation.client(store=store) as client:
        recorder = JobRecorder(store, client.clock, client.base_url, client.account)
        job = await recorder.job_to_resubmit(key)
        if not yes and (webhook_secret or not job.request.hidden):  # without its secret it is refused
            print_err("\n".join(_lines(job, names_account=False, names_call=True)))
            about = "It may have been charged already. " if job.state == "ambiguous" else ""
            confirm(f"{about}Send it again, which charges credits?")
        invocation.charges = True
        result = await client.resubmit(key, webhook_secret=webhook_secret)
        if isinstance(result, Batch):
            tokens = [task.token for task in result.tasks]
            for task in result.tasks:
                invocation.track(ref_of(task))
            invocation.reporter.event("resubmitted", {"key": key, **result.to_dict()}, tokens)
            return
        if not isinstance(result, Task):
            reply = reply_fields(result)
            fields = {"key": key, "reply": reply}
            invocation.reporter.event("resubmitted", fields, value_lines(reply) or ["done"])
            return
        invocation.track(ref_of(client.task(result.token)))
        fields = {"key": key, "task_id": result.task_id, "token": result.token}
        invocation.reporter.event("resubmitted", fields, [result.token])


@jobs_group.command("rate", cls=Command)
@_store
@click.argument("rate", required=False, metavar="[N/TIME]")
@click.option("--account", metavar="NAME", help="Account whose rate it is. Default: that of the API key.")
@click.pass_obj
async def rate_command(
    invocation: Invocation, store: JobStore, rate: str | None, account: str | None
) -> None:
    """Show the rate limit that machines share, or change it for all of them. Free, sends nothing.

    STORE is the address of a database, and N/TIME creates per time, such as 20/10s; none: no limit. Clients
    at work go by the new rate from their next create on, unless they were given another one.
    """
    from ..jobs.store import SharedStore

    if not isinstance(store, SharedStore):
        raise click.UsageError(
            "Only a store in a database, postgresql://..., has a rate that machines share."
        )
    name = account or invocation.account()
    try:
        if rate is not None:
            await store.set_rate(name, RateLimit().convert(rate, None, None))
        present = await store.rate(name)
    finally:
        await store.aclose()
    text = "none" if present is None else str(present)
    invocation.reporter.event("rate", {"account": name, "rate": text}, [text])


def _fields(job: Job) -> dict[str, object]:
    return {
        "key": job.key,
        "account": job.account,
        "state": job.state,
        "is_readable": job.is_readable,
        "call": job.request.call,
        "task_id": job.task_id,
        "task_ids": [ref.task_id for ref in job.refs],
        "outcome": job.outcome,
        "refunded": job.refunded,
        "why": job.why,
        "balance_before": job.balance_before,
        "balance_after": job.balance_after,
        "attempts": job.attempts,
        "updated_at": job.updated_at,
    }


def _lines(job: Job, *, names_account: bool, names_call: bool = False) -> list[str]:
    """Return state and key, and below them call, account, task and reason, which have lines of their own."""
    below: list[str] = []
    if names_call:
        call = " ".join(filter(None, (job.request.family, job.request.kind))) or job.request.call
        items = f" of {job.request.items} songs" if job.request.is_batch else ""
        sends = f", sent {job.attempts} times" if job.attempts > 1 else ""
        at = datetime.fromtimestamp(job.created_at, UTC).astimezone()
        below.append(f"{call.replace('_', '-')}{items}, recorded {at:%Y-%m-%d %H:%M}{sends}")
    below += [f"account {job.account or 'unknown'}"] if names_account else []
    below += [f"task {ref.task_id}" for ref in job.refs]
    below += [f"task {ref.task_id} (not assigned to an item)" for ref in job.others if job.request.is_batch]
    below += [job.why if job.is_readable else f"unreadable: {job.why}"] if job.why else []
    if job.balance_before is not None and job.balance_after is not None:
        below.append(
            f"balance {credits_text(job.balance_before)} to {credits_text(job.balance_after)}, "
            "other calls included"
        )
    return [
        visible(f"{job.state:{STATE_COLUMNS}}  {job.key}"),
        *(f"{'':{STATE_COLUMNS}}  {visible(text)}" for text in below),
    ]
