"""Extend or cover audio wherever it comes from, and the full song."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..api.direct_replies import Upload
from ..api.operation import Operation
from ..api.results import Clip, Clips
from ..api.sonic import Sonic
from ..api.task import Task
from ..errors import RequestValidationError
from .checkpoint import Checkpoint
from .step_engine import Step, Workflow

if TYPE_CHECKING:
    from ..client import MusicAPI

Source = str | os.PathLike[str] | Clip | Upload
"""Where audio comes from: a public link (it is uploaded), a local file (the client needs an
`uploader`), a `Clip` or its id (made on the platform), or an `Upload` (of `sonic.upload`; of an id:
`Upload(clip_id=...)`)."""

AUDIO: Final = frozenset({".mp3", ".wav", ".m4a", ".flac", ".ogg", ".aac", ".aiff"})
"""Endings by which text is taken for the name of a local file rather than for a clip id."""

UPLOAD: Final = "upload"
"""The step that uploads a source."""


async def extend(
    client: MusicAPI,
    source: Source,
    *,
    continue_at: float | None = None,
    checkpoint: Checkpoint | None = None,
    **fields: Any,
) -> Task[Clips]:
    """Extend audio from any source, with `extend_upload_music` for uploads, else `extend_music`.

    Charges credits: an upload if `source` is a link or a file, then an extension. The fields are checked
    before the upload is paid for.

    Args:
        client: The client. If it has a job key, each step has its own one, such as "demo.extend".
        source: A link, a local file, a `Clip` or its id, or an `Upload`.
        continue_at: The second of the source where the new part starts; by default the end of a `Clip`.
        checkpoint: The checkpoint of an earlier call, to continue it; it is filled in.
        **fields: The arguments of `sonic.extend_music`, such as `mv` and `prompt`. `custom_mode` follows from
            `prompt` unless it is given.

    Returns:
        The task of the extension. Its clips are only the new part.

    Raises:
        MusicAPIError: What the calls raise, with `checkpoint` on the error.
    """
    workflow = Workflow(client, checkpoint)
    with workflow.on_errors():
        return await workflow.task(await _extending(workflow, source, continue_at, fields))


async def cover(
    client: MusicAPI,
    source: Source,
    *,
    checkpoint: Checkpoint | None = None,
    **fields: Any,
) -> Task[Clips]:
    """Make a cover of audio from any source, with `cover_upload_music` for uploads, else `cover_music`.

    Charges credits: an upload if `source` is a link or a file, then a cover. The fields are checked before
    the upload is paid for.

    Args:
        client: The client. If it has a job key, each step has its own one, such as "demo.cover".
        source: A link, a local file, a `Clip` or its id, or an `Upload`.
        checkpoint: The checkpoint of an earlier call, to continue it; it is filled in.
        **fields: The arguments of `sonic.cover_music`, such as `mv`, `prompt` and `tags`.

    Returns:
        The task of the cover.

    Raises:
        MusicAPIError: What the calls raise, with `checkpoint` on the error.
    """
    operation = Sonic.cover_upload_music if _is_upload(source) else Sonic.cover_music
    workflow = Workflow(client, checkpoint)
    with workflow.on_errors():
        return await workflow.task(await _reworking(workflow, operation, source, fields))


async def extend_full(
    client: MusicAPI,
    source: Source,
    *,
    continue_at: float | None = None,
    choose: Callable[[Clips], Clip] | None = None,
    timeout: float | None = None,
    checkpoint: Checkpoint | None = None,
    **fields: Any,
) -> Clips:
    """Extend audio, wait, join the new part to it, and return the full song. Takes minutes.

    Charges credits for the steps of `extend`, and for joining.

    Args:
        client: The client. If it has a job key, each step has its own one, such as "demo.concat".
        source: A link, a local file, a `Clip` or its id, or an `Upload`.
        continue_at: The second of the source where the new part starts; by default the end of a `Clip`.
        choose: A function that chooses one of the extensions; by default the first that succeeded.
        timeout: The longest time of each of the two waits, in seconds; by default 900.
        checkpoint: The checkpoint of an earlier call, to continue it; it is filled in.
        **fields: The arguments of `sonic.extend_music`.

    Returns:
        The clips of the full song.

    Raises:
        MusicAPIError: What the calls raise, with `checkpoint` on the error. The tasks in it can be waited for
            again. When it is cancelled, such as by a time-out around it, the log has the checkpoint.
    """

    def one(parts: Clips) -> list[Clip]:
        return [choose(parts)] if choose is not None else parts.succeeded[:1]

    workflow = Workflow(client, checkpoint)
    with workflow.on_errors():
        step = await _extending(workflow, source, continue_at, fields)
        return (await full_songs(workflow, step, one, timeout))[0]


async def full_songs(
    workflow: Workflow,
    step: Step[Task[Clips]],
    choose: Callable[[Clips], Sequence[Clip]],
    timeout: float | None = None,
) -> list[Clips]:
    """Run the step that extends a clip, and join the parts that `choose` takes to it, one after the other.

    Args:
        workflow: Runs the steps; its checkpoint says which parts were chosen.
        step: The extension.
        choose: Takes at least one of the parts.
        timeout: Seconds that each wait may take (default: that of the family).

    Returns:
        For each part the clips of its full song.
    """
    chosen = workflow.checkpoint.clip_ids
    parts = await workflow.result(step, timeout)
    if "part" not in chosen:
        chosen.update((_numbered("part", index), part.clip_id) for index, part in enumerate(choose(parts)))
    join: Operation[..., Task[Clips]] = step.operation.family.operations()["concat_music"]
    full: list[Clips] = []
    while (part := chosen.get(_numbered("part", len(full)))) is not None:
        name = _numbered("concat", len(full))
        joining = Step(name, join, {"continue_clip_id": part})
        full.append(await workflow.result(joining, timeout))
    return full


def _numbered(name: str, index: int) -> str:
    return f"{name} {index + 1}" if index else name


async def _extending(
    workflow: Workflow,
    source: Source,
    continue_at: float | None,
    fields: Mapping[str, object],
) -> Step[Task[Clips]]:
    """Return the step that extends a source, which is uploaded first if it must be."""
    if continue_at is None and isinstance(source, Clip):
        continue_at = source.duration
    if continue_at is None:
        raise RequestValidationError(
            "continue_at: needed unless source is a finished Clip", field="continue_at"
        )
    fields = {"custom_mode": bool(fields.get("prompt")), **fields, "continue_at": continue_at}
    operation = Sonic.extend_upload_music if _is_upload(source) else Sonic.extend_music
    return await _reworking(workflow, operation, source, fields)


async def _reworking(
    workflow: Workflow,
    operation: Operation[..., Task[Clips]],
    source: Source,
    fields: Mapping[str, object],
) -> Step[Task[Clips]]:
    """Return the step that works on a source, which is uploaded first if it must be."""
    name = operation.name.partition("_")[0]
    Step(name, operation, {**fields, "continue_clip_id": "checked before it is known"}).check(workflow.client)
    clip_id = await _clip_id(workflow, source)
    return Step(name, operation, {**fields, "continue_clip_id": clip_id})


def _is_upload(source: Source) -> bool:
    return isinstance(source, Upload) or _is_outside(source)


def _is_outside(source: Source) -> bool:
    """Return True if `source` has to be uploaded: a link or a local file."""
    if not isinstance(source, str):
        return isinstance(source, os.PathLike)
    path = Path(source)
    return "://" in source or path.name != source or path.suffix.lower() in AUDIO or path.is_file()


async def _clip_id(workflow: Workflow, source: Source) -> str:
    """Return the clip id of a source, uploaded first if it must be."""
    known = workflow.checkpoint
    if isinstance(source, Clip):
        return source.clip_id
    if isinstance(source, str) and not _is_outside(source):
        return source
    if UPLOAD in known.clip_ids:
        return known.clip_ids[UPLOAD]
    if UPLOAD not in known.tasks:
        upload = source
        if not isinstance(upload, Upload):  # the client publishes a local file
            upload = await workflow.reply(Step(UPLOAD, Sonic.upload, {"url": source}))
        if upload.clip_id:
            known.clip_ids[UPLOAD] = upload.clip_id
            return upload.clip_id
        if not upload.task_id:
            raise RequestValidationError("source: an Upload with a clip id or a task id", field="source")
        known.tasks[UPLOAD] = workflow.client.task("sonic", upload.task_id, kind=UPLOAD).token
    task = workflow.client.task(known.tasks[UPLOAD])
    step = Step(UPLOAD, Sonic.upload)
    clips = await workflow.wait(step, task)
    known.clip_ids[UPLOAD] = clips[0].clip_id
    return clips[0].clip_id
