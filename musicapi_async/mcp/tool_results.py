"""Results of tools as JSON objects: what a model reads after a call.

Each says what happened, whether money moved, and what to do next. Texts of the service, such as titles and
error messages, are data: control and format characters in them become escapes, and long ones are cut, so that
none can pass for a sentence of this server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from .._wire.codec import escaped, one_line
from ..api.direct_replies import Persona
from ..api.lyrics import LyricsDrafts
from ..api.results import Clip, TaskUpdate
from ..api.stems import Stem
from ..api.task import Task, TaskRef
from ..errors import (
    APIConnectionError,
    AuthenticationError,
    ContentModerationError,
    DownloadError,
    FolderError,
    InsufficientCreditsError,
    JobKeyConflictError,
    JobStoreError,
    MusicAPIError,
    NotFoundError,
    OutcomeUnknownError,
    RateLimitedError,
    RequestValidationError,
    SubscriptionRequiredError,
    TaskFailedError,
)
from ..jobs import Job
from .tools import OF_OPERATION, TOOLS, in_tools

Fields = dict[str, Any]

MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".mp3": "audio/mpeg",
        ".wav": "audio/wav",
        ".ogg": "audio/ogg",
        ".flac": "audio/flac",
        ".m4a": "audio/mp4",
        ".aac": "audio/aac",
        ".mid": "audio/midi",
    }
)
"""The media type of a file by its ending."""

WAIT: Final = "Call wait_for_song with this token."
SAVE: Final = "Call download_song with this token: it saves the files on this machine. Links expire."
WAIT_MORE: Final = (
    "It is paid for and still being made. Call wait_for_song again with the same token, which is free; do "
    "not create it once more, which would be charged."
)


class FileLink(msgspec.Struct, frozen=True):
    """A file that was saved, for the link to it."""

    path: Path
    title: str = ""
    seconds: float | None = None
    cover_url: str | None = None


class Reply(msgspec.Struct, frozen=True):
    """The result of a tool: a JSON object, the files that were saved, and if it is an error."""

    fields: Fields
    files: tuple[FileLink, ...] = ()
    is_error: bool = False


def given(**values: object) -> Fields:
    """Return those values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def clip_fields(clip: Clip) -> Fields:
    """Return what a model needs of a clip."""
    return given(
        clip_id=escaped(clip.clip_id),
        title=one_line(clip.title) if clip.title else None,
        part=one_line(clip.name) if isinstance(clip, Stem) else None,
        state=escaped(clip.state) or None,
        seconds=clip.duration,
        audio_url=link(clip.final_url),
        listen_early_url=link(clip.stream_url),
        cover_url=link(clip.image_url),
        failure=one_line(clip.failure) if clip.is_failed and clip.failure else None,
    )


def link(url: str | None) -> str | None:
    """Return a link, None if it is no link of the web."""
    return escaped(url) if url and url.startswith(("https://", "http://")) else None


def update_fields(token: str, update: TaskUpdate) -> Fields:
    """Return a task as one poll found it, with the next step; raises the error of a failed task."""
    done = update.is_terminal
    state = update.state if done else "still being made"
    clips = update.outcome().clips
    return given(
        state=escaped(state),
        token=token,
        clips=[clip_fields(clip) for clip in clips],
        money="Paid for. Waiting, checking and saving are free.",
        next=SAVE if done else WAIT_MORE,
    )


def task_fields(task: Task[Any], key: str, known: Job | None) -> Fields:
    """Return the result of a create.

    Args:
        task: the task.
        key: its job key.
        known: the job that the key had before the call; None if the call was paid for now.
    """
    state, following = "being made", WAIT
    if known is not None and known.outcome:
        state, following = known.outcome, "Call wait_for_song with this token for its clips."
        if known.outcome == "failed":
            following = "This one failed. For another attempt, which is charged, use a new job_key."
    return given(
        state=state, token=task.token, job_key=key, money=paid(known), made_at=made_at(known), next=following
    )


def paid(known: Job | None) -> str:
    """Return the sentence about the cost of a call."""
    if known is None:
        return "Credits were charged."
    return (
        "Nothing was charged: this job_key was used before, and this is its result. If a new one is wanted, "
        "use a new job_key."
    )


def made_at(job: Job | None) -> str | None:
    """Return the time of a job's call in ISO 8601."""
    return None if job is None else datetime.fromtimestamp(job.created_at, UTC).isoformat(timespec="seconds")


def reply_fields(reply: object, key: str, known: Job | None) -> Fields:
    """Return the reply of a direct call."""
    about = given(job_key=key, money=paid(known), made_at=made_at(known))
    match reply:
        case Persona():
            name = one_line(reply.name) if reply.name else None
            following = "Pass persona_id to song_with_persona."
            return {**given(persona_id=escaped(reply.persona_id), name=name), **about, "next": following}
        case LyricsDrafts():
            drafts = [given(title=one_line(one.title or ""), lyrics=lines(one.lyrics)) for one in reply]
            return {"lyrics": drafts, **about, "next": "Pass one as `prompt` to create_song."}
        case _:
            raise TypeError(f"no result is declared for {type(reply).__name__}")


def lines(text: str) -> str:
    """Return a text of several lines, with all other control and format characters as escapes."""
    return "\n".join(map(escaped, text.splitlines()))


def job_fields(job: Job) -> Fields:
    """Return a recorded call for the list; one that has no token with what gives its result once more."""
    fields: Mapping[str, Any] = job.request.fields if job.is_readable else {}
    tool = TOOLS.get(OF_OPERATION.get(job.request.kind, ""))
    is_direct = tool is not None and not tool.operations[0].submits
    names = {field.name for field in tool.fields} if tool is not None else set[str]()
    title = fields.get("title") or fields.get("name") or fields.get("gpt_description_prompt")
    return given(
        job_key=escaped(job.key),
        tool=OF_OPERATION.get(job.request.kind, escaped(job.request.call)),
        title=one_line(str(title)) if title else None,
        state=job.state,
        token=job.task.token if job.task is not None else None,
        arguments={name: value for name, value in fields.items() if name in names} if is_direct else None,
        made_at=made_at(job),
        outcome=job.outcome or None,
        refunded=job.refunded,
        why=one_line(job.why) if job.why else None,
    )


def file_fields(files: Iterable[FileLink]) -> list[Fields]:
    """Return the files that were saved."""
    return [
        given(
            path=str(file.path),
            title=file.title or None,
            seconds=file.seconds,
            cover_url=file.cover_url,
            bytes=file.path.stat().st_size,
        )
        for file in files
    ]


FREE: Final = "This tool is free."
NOT_SENT: Final = "Nothing was sent, nothing was charged."
UNKNOWN: Final = "It is not known if credits were charged; the same job_key never pays twice."
SAME_CALL: Final = "call again with the same arguments and the same job_key, which never pays twice"
OTHER_REQUEST: Final = (
    "Use a new job_key, or repeat the arguments that this one was first used with. If the API key of the "
    "account was replaced, the user sets MUSICAPI_ACCOUNT for this server."
)
NEXT: Final[tuple[tuple[type[MusicAPIError], str], ...]] = (
    (RequestValidationError, "Correct the arguments and call again; a job_key may stay the same."),
    (JobKeyConflictError, OTHER_REQUEST),
    (JobStoreError, "The user has to check the job store of this server; without it nothing is sent."),
    (
        FolderError,
        "The user has to check the folder of this server; with a budget, nothing is sent without it.",
    ),
    (InsufficientCreditsError, "The user has to buy credits; get_credits shows the balance."),
    (SubscriptionRequiredError, "The user has to renew the subscription."),
    (ContentModerationError, "Change the lyrics or the description as the message says, and call again."),
    (AuthenticationError, "The user has to check MUSICAPI_KEY in the configuration of this server."),
    (RateLimitedError, f"Wait a minute, then {SAME_CALL}."),
    (
        TaskFailedError,
        "Say so to the user. Another attempt, with a new job_key, is charged: only if that is wanted.",
    ),
    (DownloadError, "Call download_song again with the same token: it continues, and is free."),
    (APIConnectionError, f"Wait a minute, then {SAME_CALL}."),
)
"""The next step after an error; the first row whose class fits."""
NOT_FOUND: Final = (
    "Check the id: a token, a clip_id or a persona_id of another account is not found, and neither is one "
    "that was mistyped. list_jobs has the tokens."
)


def error_fields(error: MusicAPIError, *, charges: bool, store: str) -> Fields:
    """Return what a model needs of an error.

    Args:
        error: the error.
        charges: True if the tool costs credits.
        store: the job store, as a word of a command line.
    """
    accepted = TaskRef(error.family or "", error.task_id or "")
    details = error.violations if isinstance(error, RequestValidationError) else ()
    arguments = [
        {"name": escaped(one.field), "limit": escaped(one.limit), "got": escaped(one.value)}
        for one in details
    ]
    return given(
        error=type(error).__name__,
        happened=lines(error.message),
        money=_money(error, charges=charges),
        may_have_been_charged=error.may_have_been_charged,
        next=_next(error, store) if charges else _next(error, store).replace(SAME_CALL, "call again"),
        token=accepted.token if error.family and error.task_id else None,
        arguments=arguments or None,
    )


def _money(error: MusicAPIError, *, charges: bool) -> str:
    if not charges and not isinstance(error, TaskFailedError):
        return FREE
    if isinstance(error, FolderError):  # the folder is used for the budget, before a call
        return NOT_SENT
    if isinstance(error, TaskFailedError) and error.refunded is None:
        return "The service does not say if the credits were returned; get_credits shows the balance."
    return error.money or UNKNOWN


def _next(error: MusicAPIError, store: str) -> str:
    if isinstance(error, OutcomeUnknownError):
        if error.task_id:
            return "Do not repeat it: call wait_for_song with this token."
        return (
            "Do not repeat it with another job_key: it may be paid for. A person searches for the song in "
            f"the dashboard, and settles it: `musicapi jobs list {store}`, then `musicapi jobs resolve` with "
            "its task id, or `musicapi jobs resubmit`, which may be charged twice."
        )
    if isinstance(error, NotFoundError):
        return NOT_FOUND
    found = (text for kind, text in NEXT if isinstance(error, kind))
    return next(found, f"Wait a little, then {SAME_CALL}. If it stays so, tell the user.")


def sending_fields() -> Fields:
    """Return the result of a paid call that takes longer than its tool may."""
    return given(
        state="being sent",
        money="It is charged once at most.",
        next=f"It continues, or waits for the rate limit. To get its result, {SAME_CALL}.",
    )


def over_budget_fields(reason: str) -> Fields:
    """Return the error of a call that would pass the budget."""
    return given(
        error="BudgetExceeded",
        happened=in_tools(one_line(reason)),
        money=NOT_SENT,
        may_have_been_charged=False,
        next="Tell the user: only a larger --budget of this server lets it continue.",
    )


def fault_fields(error: Exception, *, charges: bool) -> Fields:
    """Return the error of a tool that has a fault."""
    return given(
        error="InternalError",
        happened=f"a fault of this server ({type(error).__name__}); its log has the details",
        money=UNKNOWN if charges else FREE,
        may_have_been_charged=charges,
        next=f"To try it once more, {SAME_CALL}." if charges else "Tell the user.",
    )
