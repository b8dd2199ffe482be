"""The links of downloadable values: clips, results, ended tasks, replies with links, plain links.

Anything else is refused with a hint. The result of an unfinished task has no clips yet; it is refused, too,
because an empty list of files would pass for a success.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, cast
from urllib.parse import SplitResult, unquote, urlsplit

from .._wire.codec import escaped
from ..api.direct_replies import Files, Midi, Wav
from ..api.results import Clip, Clips, Result, TaskUpdate
from ..api.stems import Stem
from ..api.task import Task
from ..errors import DownloadError, RequestValidationError

EXTENSIONS: Final = ("mp3", "wav", "ogg", "flac", "m4a", "aac", "mid")
"""Of the formats that are known by their first bytes."""
OTHERS: Final = ("mp4", "webm", "opus", "aif", "aiff", "png", "jpg", "jpeg", "webp", "gif")
"""Of other files that the service links to, taken from the link. All else is a `.bin`: a host must not choose
that a file is one that a system runs."""
UNKNOWN: Final = "bin"

WAIT_FIRST: Final = "Wait for the task first: clips = await task.wait()."

Fetchable: TypeAlias = (
    Clip | Result | Task[Any] | TaskUpdate | Wav | Midi | Files | str | Sequence["Fetchable"]
)
"""Values that `client.download` takes."""


class Link(NamedTuple):
    """A file to fetch: its address, the parts of its name, and its extension if that is known.

    `clip_id` may be the last part of a link, which says little; it is the id of a clip with `clip`.
    `duration` is that of the clip in seconds.
    """

    url: str
    title: str = ""
    clip_id: str = ""
    name: str = ""
    extension: str = ""
    clip: Clip | None = None
    duration: float | None = None


def links_of(files: Fetchable) -> list[Link]:
    """Return the links of the files; clips that failed have none, files that do not exist yet are refused.

    Raises `DownloadError` for files that are not there yet, `RequestValidationError` for what never is a
    file, and the error of a task that failed.
    """
    return list(_links(files))


def _links(value: object) -> Iterator[Link]:
    match value:
        case str():
            yield _named_by_link(value, extension_of(value))
        case Wav():
            yield _named_by_link(value.wav_url, "wav")
        case Midi():
            if value.midi_url is None:
                raise DownloadError("the MIDI file is not ready yet", hint="Call midi() again.")
            yield _named_by_link(value.midi_url, "mid")
        case Files():
            for file in value.files:
                yield _named_by_link(file.url, file.format.lower())
        case Clip():
            yield _of_clip(value, 0)
        case Task():
            task: Task[Any] = value
            if task.last is None:
                raise _not_there("no one has waited for it here", task.task_id, task.family)
            yield from _links(task.last)
        case TaskUpdate():
            if not value.is_terminal:
                raise _not_there(f"it is {value.state}", value.task_id, value.family)
            yield from _links(value.outcome())
        case Result():
            if not value.clips:
                if not isinstance(value, Clips):
                    raise _no_file(value)
                if value.task_id:
                    raise _not_there("it has no clips yet", value.task_id, value.family)
            yield from _of_clips(value.clips)
        case _ if isinstance(value, Iterable) and not isinstance(value, dict | bytes | bytearray):
            several = list(cast("Iterable[object]", value))
            if all(isinstance(one, Clip) for one in several):
                yield from _of_clips(cast("list[Clip]", several))
            else:
                for one in several:
                    yield from _links(one)
        case _:
            raise _no_file(value)


def _of_clips(clips: Iterable[Clip]) -> Iterator[Link]:
    for index, clip in enumerate(clips):
        if not clip.is_failed:
            yield _of_clip(clip, index)


def _of_clip(clip: Clip, index: int) -> Link:
    if clip.final_url is None:
        raise DownloadError(
            f"clip {clip.clip_id or index} has no file (state {clip.state or 'unknown'})",
            hint="Wait for the task first; a stream is not a file.",
        )
    name = clip.name if isinstance(clip, Stem) else ""
    ending = extension_of(clip.final_url)
    return Link(clip.final_url, clip.title or "", clip.clip_id, name, ending, clip, clip.duration)


def _named_by_link(url: str, extension: str) -> Link:
    known = extension if extension in EXTENSIONS else ""
    return Link(url, clip_id=Path(unquote(parts_of(url).path)).stem, extension=known)


def _not_there(why: str, task_id: str, family: str) -> DownloadError:
    return DownloadError(
        f"task {task_id} has no files to fetch: {why}", hint=WAIT_FIRST, task_id=task_id, family=family
    )


def _no_file(given: object) -> RequestValidationError:
    limit = "a clip, clips, the result of a task, a reply with links, or a link"
    kind = type(given).__name__
    hint = ""
    if inspect.iscoroutine(given):
        given.close()  # else Python warns besides that it was never awaited
        hint = f"Await it first: {given.__name__}(...) without await returns no result."
    return RequestValidationError(
        f"files: {limit}, got {kind}", field="files", limit=limit, value=kind, hint=hint
    )


def extension_of(url: str) -> str:
    """Return the extension in a link's path, if it is a known one, else ''."""
    suffix = Path(parts_of(url).path).suffix.lower().lstrip(".")
    return suffix if suffix in EXTENSIONS or suffix in OTHERS else ""


def printable(url: str) -> str:
    """Return a link for an error text: without its query, which may be signed, and without a password.

    Characters that cannot be printed, which may steer a terminal, are escaped.
    """
    parts = parts_of(url)
    host = parts.netloc.rpartition("@")[2]
    text = f"{parts.scheme}://{host}{parts.path}" if host else url.partition("?")[0].partition("#")[0]
    return escaped(text[:200])


def parts_of(url: str) -> SplitResult:
    """Return the parts of a link; empty ones if it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
