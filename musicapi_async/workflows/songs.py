"""Extend or cover audio wherever it comes from, and the full song."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from ..api.operation import Operation
from ..api.replies import Upload
from ..api.results import Clip, Clips
from ..api.sonic import Sonic
from ..errors import (
    RequestValidationError,
)
from .paying import check, finished, keeping, paid, submitted
from .reached import Reached

if TYPE_CHECKING:
    from ..api.handle import Task
    from ..client import MusicAPI


Source = str | os.PathLike[str] | Clip | Upload
"""Where audio comes from: a public link (it is uploaded), a local file (needs an `uploader`), a `Clip` or its
id (made on the platform), or an `Upload` (of `sonic.upload`; of an id: `Upload(clip_id=...)`)."""

Uploader = Callable[[Path], Awaitable[str]]
"""Puts a local file where the service can fetch it and returns its public link, which must answer HEAD."""


AUDIO: Final = frozenset({".mp3", ".wav", ".m4a", ".flac", ".ogg", ".aac", ".aiff"})
"""Endings by which text is taken for the name of a local file rather than for a clip id."""


async def extend(
    client: MusicAPI,
    source: Source,
    *,
    continue_at: float | None = None,
    uploader: Uploader | None = None,
    reached: Reached | None = None,
    **fields: Any,
) -> Task[Clips]:
    """Extend audio wherever it comes from: an upload by `extend_upload_music`, else by `extend_music`.

    Charges credits: an upload if `source` is a link or a file, then an extension. `continue_at` is the second
    where the new part starts (default: the end of a `Clip`); `fields` are those of `sonic.extend_music`, such
    as `mv` and `prompt`; `custom_mode` follows from `prompt` unless it is given. They are checked before the
    upload is paid for. Returns the task of the extension, whose clips are the new part alone.
    Raises what the calls raise, with `reached` on the error.
    """
    if continue_at is None and isinstance(source, Clip):
        continue_at = source.duration
    if continue_at is None:
        raise RequestValidationError(
            "continue_at: needed unless source is a finished Clip", field="continue_at"
        )
    fields = {"custom_mode": bool(fields.get("prompt")), **fields, "continue_at": continue_at}
    operation = Sonic.extend_upload_music if _is_upload(source) else Sonic.extend_music
    return await _reworked(client, operation, source, fields, uploader=uploader, reached=reached)


async def cover(
    client: MusicAPI,
    source: Source,
    *,
    uploader: Uploader | None = None,
    reached: Reached | None = None,
    **fields: Any,
) -> Task[Clips]:
    """Sing audio anew, wherever it comes from: an upload by `cover_upload_music`, else by `cover_music`.

    Charges credits: an upload if `source` is a link or a file, then a cover. `fields` are those of
    `sonic.cover_music`, such as `mv`, `prompt` and `tags`; they are checked before the upload is paid for.
    Returns the task of the cover. Raises what the calls raise, with `reached` on the error.
    """
    operation = Sonic.cover_upload_music if _is_upload(source) else Sonic.cover_music
    return await _reworked(client, operation, source, fields, uploader=uploader, reached=reached)


async def extend_full(
    client: MusicAPI,
    source: Source,
    *,
    choose: Callable[[Clips], Clip] | None = None,
    timeout: float | None = None,
    reached: Reached | None = None,
    **fields: Any,
) -> Clips:
    """Extend, wait, join: the full song. Takes minutes.

    Charges credits as `extend`, and for joining. The service gives several extensions; `choose` takes one
    (default: the first that succeeded). `timeout` in seconds limits each of the two waits; `fields` as for
    `extend`. Returns the clips of the full song.
    Raises what the calls raise, with `reached` on the error: both tasks can be waited for again.
    """
    with keeping(reached) as now:
        extension = await extend(client, source, reached=now, **fields)
        parts = await finished(extension, now, "extend", timeout)
        if "part" not in now.clip_ids:
            now.clip_ids["part"] = (choose or _first)(parts).clip_id
        part = now.clip_ids["part"]
        full = await submitted(
            client, now, "concat", lambda view: view.sonic.concat_music(continue_clip_id=part)
        )
        return await finished(full, now, "concat", timeout)


async def _reworked(
    client: MusicAPI,
    operation: Operation[Any, Any],
    source: Source,
    fields: dict[str, Any],
    *,
    uploader: Uploader | None,
    reached: Reached | None,
) -> Task[Clips]:
    with keeping(reached) as now:
        check(client, operation, {**fields, "continue_clip_id": "checked before it is known"})
        clip_id = await _clip_id(client, source, uploader, now)
        step = operation.name.partition("_")[0]

        def create(view: MusicAPI) -> Awaitable[Task[Clips]]:
            method: Callable[..., Awaitable[Task[Clips]]] = getattr(view.sonic, operation.name)
            return method(continue_clip_id=clip_id, **fields)

        return await submitted(client, now, step, create)


def _first(clips: Clips) -> Clip:
    return clips.succeeded[0]


def _is_upload(source: Source) -> bool:
    return isinstance(source, Upload) or _is_outside(source)


def _is_outside(source: Source) -> bool:
    """Whether `source` has to be uploaded: a link or a local file."""
    return isinstance(source, os.PathLike) or (
        isinstance(source, str) and ("://" in source or _is_path(source))
    )


def _is_path(text: str) -> bool:
    path = Path(text)
    return path.name != text or path.suffix.lower() in AUDIO or path.is_file()


async def _clip_id(client: MusicAPI, source: Source, uploader: Uploader | None, reached: Reached) -> str:
    """The clip id of a source, uploaded first if it must be."""
    if isinstance(source, Clip):
        return source.clip_id
    if isinstance(source, str) and not _is_outside(source):
        return source
    if "upload" in reached.clip_ids:
        return reached.clip_ids["upload"]
    if isinstance(source, Upload):
        upload = source
    else:
        if "upload" not in reached.links and "upload" not in reached.tasks:
            reached.links["upload"] = await _link(source, uploader)
        if "upload" in reached.tasks:
            upload = Upload()
        else:
            link = reached.links["upload"]
            upload = await paid(client, reached, "upload", lambda view: view.sonic.upload(link))
    if upload.clip_id:
        reached.clip_ids["upload"] = upload.clip_id
        return upload.clip_id
    if upload.task_id:
        reached.tasks["upload"] = client.task("sonic", upload.task_id, kind="upload").token
    clips = await finished(client.task(reached.tasks["upload"]), reached, "upload")
    reached.clip_ids["upload"] = clips[0].clip_id
    return clips[0].clip_id


async def _link(source: str | os.PathLike[str], uploader: Uploader | None) -> str:
    """The public link of a source."""
    if isinstance(source, str) and "://" in source:
        return source
    path = Path(source)
    if uploader is None:
        raise RequestValidationError(
            f"source: {str(path)!r} is a local file, and this API takes public links only",
            field="source",
            hint="Put it where everybody can fetch it and pass the link, or pass uploader=, an async "
            "function that takes the path, does that, and returns the link.",
        )
    if not await anyio.Path(path).is_file():
        raise RequestValidationError(f"source: there is no file {str(path)!r}", field="source")
    return await uploader(path)
