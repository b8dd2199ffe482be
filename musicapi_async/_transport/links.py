"""What can be downloaded, and the links in it: clips, results, ended tasks, replies with links, plain links.

Whatever else is given is refused with what to give instead. An unfinished task looks like an empty list of
clips; it must not pass for one that has nothing to fetch.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, cast
from urllib.parse import SplitResult, unquote, urlsplit

from ..api.replies import Files, Midi, Wav
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
"""What can be downloaded."""


class Link(NamedTuple):
    """A file to fetch: its address, what its name is made of, and its extension if that is known.

    `clip_id` may be the last part of a link, which says little; it is the id of a clip with `of_clip`.
    `duration` is that of the clip in seconds.
    """

    url: str
    title: str = ""
    clip_id: str = ""
    name: str = ""
    extension: str = ""
    of_clip: bool = False
    duration: float | None = None


def links_of(asked: Fetchable) -> list[Link]:
    """The links of what is asked for; clips that failed have none, files that are not there are refused.

    Raises `DownloadError` for files that are not there yet, `RequestValidationError` for what never is a
    file, and the error of a task that failed.
    """
    return list(_links(asked))


def _links(asked: object) -> Iterator[Link]:
    match asked:
        case str():
            yield _named_by_link(asked, extension_of(asked))
        case Wav():
            yield _named_by_link(asked.wav_url, "wav")
        case Midi():
            if asked.midi_url is None:
                raise DownloadError("the MIDI file is not there yet", hint="Call midi() again.")
            yield _named_by_link(asked.midi_url, "mid")
        case Files():
            for file in asked.files:
                yield _named_by_link(file.url, file.format.lower())
        case Clip():
            yield _of_clip(asked, 0)
        case Task():
            task: Task[Any] = asked
            if task.last is None:
                raise _not_there("nobody has waited for it here", task.task_id, task.family)
            yield from _links(task.last)
        case TaskUpdate():
            if not asked.is_terminal:
                raise _not_there(f"it is {asked.state}", asked.task_id, asked.family)
            yield from _links(asked.outcome())
        case Result():
            if not asked.clips:
                if not isinstance(asked, Clips):
                    raise _no_file(asked)
                if asked.task_id:
                    raise _not_there("it has no clips yet", asked.task_id, asked.family)
            yield from _of_clips(asked.clips)
        case _ if isinstance(asked, Iterable) and not isinstance(asked, dict | bytes | bytearray):
            several = list(cast("Iterable[object]", asked))
            if all(isinstance(one, Clip) for one in several):
                yield from _of_clips(cast("list[Clip]", several))
            else:
                for one in several:
                    yield from _links(one)
        case _:
            raise _no_file(asked)


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
    return Link(clip.final_url, clip.title or "", clip.clip_id, name, ending, True, clip.duration)


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
        given.close()  # else Python complains besides that nobody awaited it
        hint = f"Await it first: {given.__name__}(...) without await gives no result."
    return RequestValidationError(
        f"files: {limit}, got {kind}", field="files", limit=limit, value=kind, hint=hint
    )


def extension_of(url: str) -> str:
    """The extension in a link's path, if it is a known one."""
    suffix = Path(parts_of(url).path).suffix.lower().lstrip(".")
    return suffix if suffix in EXTENSIONS or suffix in OTHERS else ""


def shown_link(url: str) -> str:
    """A link as an error text shows it: without its query, which may be signed, and without a password.

    Characters that cannot be printed, which may steer a terminal, are escaped.
    """
    parts = parts_of(url)
    host = parts.netloc.rpartition("@")[2]
    shown = f"{parts.scheme}://{host}{parts.path}" if host else url.partition("?")[0].partition("#")[0]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown[:200])


def parts_of(url: str) -> SplitResult:
    """The parts of a link; empty ones if it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
