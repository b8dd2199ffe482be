"""The errors of job keys: what happened, and what to do next."""

from __future__ import annotations

from ..errors import JobKeyConflictError, JobStoreError, OutcomeUnknownError, RequestValidationError
from .job import Job, Owner
from .owner import this_process


def no_job(key: str) -> RequestValidationError:
    """The error of a key that no job has."""
    return RequestValidationError(f"there is no job with the key {key!r}", field="key", value=repr(key))


def conflict(job: Job, account: str) -> JobKeyConflictError:
    """The error of a job key that exists under another account, which may be the same one."""
    stored = job.account
    return JobKeyConflictError(
        f"the job key {job.key!r} was used before by account {stored!r}, and this client is of {account!r}",
        job_key=job.key,
        difference=(f"account: {stored!r} before, {account!r} now",),
        call=job.request.call,
        hint=(
            "If both are one account, such as after its API key was replaced, say so: "
            f"MusicAPI(account={stored!r}), or MUSICAPI_ACCOUNT={stored!r} in the environment. "
            "Else use another job key."
        ),
    )


def outcome_unknown(job: Job) -> OutcomeUnknownError:
    """The error of a job key whose job is ambiguous."""
    return OutcomeUnknownError(
        f"job {job.key!r} was sent before and its outcome is unknown ({job.why})",
        call=job.request.call,
        job_key=job.key,
        balance_before=job.balance_before,
        balance_after=job.balance_after,
        hint=resolving(job.key, job.balance_before, job.balance_after),
    )


def resolving(key: str, before: float | None = None, after: float | None = None) -> str:
    """Advice on an ambiguous job, with the credits before and after it where they are known."""
    evidence = ""
    if before is not None and after is not None:
        evidence = (
            f"The balance went from {before:g} to {after:g} credits, which other calls and refunds may have "
            "moved as well. "
        )
    return (
        f"{evidence}Search for the song in the dashboard; then client.resolve({key!r}, task_id=...) if it is "
        f"there, or client.resubmit({key!r}) to send it again, which may be paid for twice"
    )


def reserved_elsewhere(job: Job, owner: Owner) -> JobStoreError:
    """The error of a key that a process has reserved of which is unknown whether it lives."""
    place = " in another container" if owner.namespace != this_process("").namespace else ""
    return JobStoreError(
        f"job {job.key!r} is {job.state} by process {owner.pid} on {owner.host}{place}, and whether that one "
        "lives cannot be known here",
        hint=(
            f"If it has ended, search the dashboard for the song: client.resolve({job.key!r}, task_id=...) "
            "if it is there, else use another job key."
        ),
    )
