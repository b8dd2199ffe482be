"""The reservation of job keys: which job a key means, and who may send under it.

A key is reserved once. `apply` finds the row of a key for an account; every store changes rows only with it.
`reserve` gives a free key to one process, and refuses another request with this key. `resubmitted` is the
only way to send a job a second time. All are pure functions, including the texts of their errors.
`_transport.paid_call` has `recorder` apply them before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import msgspec

from ..api.account import credits_text
from ..api.request import SECRET
from ..errors import JobKeyConflictError, JobStoreError, OutcomeUnknownError, RequestValidationError
from .job import Job, JobRequest, Owner, difference
from .store import Transition
from .transitions import Liveness, allows, joined, no_job, recovered, refused

FINGERPRINT: Final = re.compile(r"key-[0-9a-f]{16}")
"""An account that was derived from an API key, because `MusicAPI(account=...)` did not name one."""


class Change(NamedTuple):
    """A row before and after a transition; None: there is none."""

    before: Job | None
    after: Job | None


def apply(rows: Sequence[Job], transition: Transition, account: str) -> Change:
    """Apply a transition to the row that a key means for an account; every store changes rows by this alone.

    Args:
        rows: all rows with the key, oldest first.
        transition: the change.
        account: the account of the caller; '' if it was not said.

    Returns:
        The row before and after. It keeps its account.

    Raises:
        JobKeyConflictError: the transition reserves a key that exists under another account only, and one of
            the two accounts is a fingerprint of an API key. A key that was replaced is still of the same
            account, so paying again would perhaps pay twice; only the caller can tell. Accounts that were
            both named are different accounts, with a job each.
        JobStoreError: the row is damaged.
    """
    before = choose(rows, account)
    after = transition(before)
    if after is not None:
        owned = account if before is None else before.account
        if after.account != owned:
            after = msgspec.structs.replace(after, account=owned)
        if before is None and after.state == "reserved":
            for row in rows:
                if may_be_same(row.account, account):
                    raise conflict(row, account)
    return Change(before, after)


def choose(rows: Sequence[Job], account: str) -> Job | None:
    """Return the row that a key means for an account: its own, else one where either account is not said.

    Args:
        rows: all rows with the key, oldest first.
        account: the account of the caller; '' if it was not said.

    Raises:
        JobStoreError: the row is damaged: a decision would be a guess.
    """
    exact = (row for row in rows if row.account == account)
    unsaid = (row for row in rows if not (row.account and account))
    job = next(exact, None) or next(unsaid, None)
    if job is not None and not job.is_readable:
        named = f", which made task {job.task_id}," if job.task_id is not None else ""
        raise JobStoreError(
            f"job {job.key!r}{named} is damaged in the store: {job.why}",
            hint="Search for its song in the dashboard, and use another job key if it is not there.",
        )
    return job


def may_be_same(account: str, other: str) -> bool:
    """Return True if two accounts may be one: a fingerprint may be that of any account's API key."""
    return account == other or bool(FINGERPRINT.fullmatch(account) or FINGERPRINT.fullmatch(other))


def reserve(key: str, request: JobRequest, owner: Owner, is_alive: Liveness, now: float) -> Transition:
    """Reserve a key for `owner` if it is free, or if the process that had reserved it died before sending.

    The transition leaves a key that is in use as it is, and raises `JobKeyConflictError` when the key was
    used with another request.

    Args:
        key: the job key.
        request: the request that will be sent under it.
        owner: the process that will send it.
        is_alive: judges the owner of the row that is there.
        now: Unix time.
    """

    def transition(job: Job | None) -> Job | None:
        if job is not None and (lines := difference(job.request, request)):
            raise JobKeyConflictError(
                f"the job key {key!r} was used before with another request ({'; '.join(lines)})",
                job_key=key,
                difference=lines,
                call=request.call,
            )
        job = recovered(job, is_alive, now)
        if not allows("reserve", job):
            return job
        return Job(key=key, state="reserved", request=request, created_at=now, updated_at=now, owner=owner)

    return transition


def resubmitted(key: str, owner: Owner, is_alive: Liveness, now: float) -> Transition:
    """Reserve the key of an ambiguous or failed job, because a person decided to send it once more.

    Args:
        key: the job key, for the error texts.
        owner: the process that will send it.
        is_alive: judges the owner of the row.
        now: Unix time.
    """

    def transition(job: Job | None) -> Job | None:
        job = recovered(job, is_alive, now)
        if job is None:
            raise no_job(key)
        if not allows("resubmitted", job):
            raise refused(
                job,
                "only an ambiguous or failed job is sent again",
                hint="It is under way or paid for; for another song use another job key.",
            )
        query = urlsplit(job.request.call).query
        if any(name in SECRET for name, _ in parse_qsl(query, keep_blank_values=True)):
            raise RequestValidationError(
                f"webhook_secret: job {key!r} had one in its query, which was not stored",
                field="webhook_secret",
            )
        return Job(
            key=key,
            state="reserved",
            request=job.request,
            created_at=job.created_at,
            updated_at=now,
            owner=owner,
            attempts=job.attempts + 1,
            previous=job,
            others=joined(job.others, job.refs),
            disputed=job.disputed,
        )

    return transition


# --- the errors of a key that is in use -------------------------------------------------------------------


def conflict(job: Job, account: str) -> JobKeyConflictError:
    """Return the error of a job key that exists under another account, which may be the same one."""
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


def elsewhere(job: Job, base_url: str) -> JobKeyConflictError:
    """Return the error of a decision about a job that was sent to another host than `base_url`."""
    sent_to = job.request.base_url
    return JobKeyConflictError(
        f"job {job.key!r} was sent to {sent_to}, and this client is of {base_url}",
        job_key=job.key,
        difference=(f"base_url: {sent_to!r} before, {base_url!r} now",),
        call=job.request.call,
        hint=f"Decide with a client of that host: MusicAPI(base_url={sent_to!r}).",
    )


def made_up(key: str) -> JobKeyConflictError:
    """Return the error of a key that was made up for a call of which the store holds nothing."""
    return JobKeyConflictError(
        f"the job key {key!r} was made up for a call without one, and the store holds no such call: "
        "it may have been paid for, so nothing was sent",
        job_key=key,
        hint="The log has its task. A key of your own, with_options(job_key='order-42'), is not removed.",
    )


def outcome_unknown(job: Job) -> OutcomeUnknownError:
    """Return the error of a job key whose job is ambiguous."""
    return OutcomeUnknownError(
        f"job {job.key!r} was sent before and its outcome is unknown ({job.why})",
        call=job.request.call,
        job_key=job.key,
        balance_before=job.balance_before,
        balance_after=job.balance_after,
        hint=resolving(job.key, job.balance_before, job.balance_after, by_task=job.request.makes_tasks),
    )


def resolving(
    key: str, before: float | None = None, after: float | None = None, *, by_task: bool = True
) -> str:
    """Return advice on an ambiguous job.

    Args:
        key: its job key.
        before: the credits before it, where they are known.
        after: the credits after it.
        by_task: True if it makes a task, which a person can name.
    """
    evidence = ""
    if before is not None and after is not None:
        evidence = (
            f"The balance went from {credits_text(before)} to {credits_text(after)} credits, which other "
            "calls and refunds may have moved as well. "
        )
    resubmit = f"client.resubmit({key!r}) to send it again, which may be paid for twice"
    if not by_task:
        return f"{evidence}Search for its result in the dashboard; if it is not there, {resubmit}"
    song = f"then client.resolve({key!r}, task_id=...) if it is there, or {resubmit}"
    return f"{evidence}Search for the song in the dashboard; {song}"


def reserved_elsewhere(job: Job, owner: Owner, here: Owner) -> JobStoreError:
    """Return the error of a key whose owner is out of sight, so that it is unknown whether it lives.

    Args:
        job: the job of the key.
        owner: the process that has reserved it.
        here: this process.
    """
    place = " in another container" if owner.namespace != here.namespace else ""
    return JobStoreError(
        f"job {job.key!r} is {job.state} by process {owner.pid} on {owner.host}{place}, and whether that one "
        "lives cannot be known here",
        hint=(
            f"If it has ended, search the dashboard for the song: client.resolve({job.key!r}, task_id=...) "
            "if it is there, else use another job key."
        ),
    )
