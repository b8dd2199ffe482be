"""Everything of a clip in one folder: audio, WAV, MIDI, subtitles and stems."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import anyio
import anyio.to_thread
import msgspec

from .._transport.links import extension_of
from ..api.direct_replies import Reply
from ..api.results import Clip
from ..api.sonic import Sonic
from ..api.stems import Stems
from ..api.task import Task
from ..arguments import check_bools, refused
from ..errors import NotFoundError, RequestValidationError
from ..file_names import literal, safe_name
from ..files import expand, write_whole
from .checkpoint import Checkpoint
from .folder_lock import locked
from .song_places import Place
from .step_engine import Step, Workflow
from .step_files import reply_files, task_files

if TYPE_CHECKING:
    from ..client import MusicAPI

ReplyT = TypeVar("ReplyT", bound=Reply)

CHECKPOINT_FILE: Final = "checkpoint.json"
"""The checkpoint in the folder of `everything`."""
FORMER_CHECKPOINT_FILE: Final = "reached.json"
"""Its name in folders of earlier versions, which are continued."""


class Everything(msgspec.Struct, kw_only=True):
    """The files of a clip. One that the service does not have, such as lyrics of an instrumental, is None."""

    audio: Path
    wav: Path | None = None
    midi: Path | None = None
    lrc: Path | None = None
    srt: Path | None = None
    stems: dict[str, Path] = msgspec.field(default_factory=dict[str, Path])


async def everything(
    client: MusicAPI,
    clip: Clip,
    folder: str | os.PathLike[str],
    *,
    name: str = "song",
    stems: Literal["basic", "full", "none"] = "basic",
    wav: bool = True,
    midi: bool = True,
    lyrics: bool = True,
    timeout: float | None = None,
    checkpoint: Checkpoint | None = None,
) -> Everything:
    """Fetch audio, WAV, MIDI, timed lyrics (LRC, SRT) and stems of a finished Sonic clip into one folder.

    Charges credits for each part except the audio; stems cost most. May be repeated: files that are in the
    folder are neither paid for nor fetched again. Tasks and links that were paid for are saved in
    `checkpoint.json` there, so that a call after a failure, even of the machine, pays for nothing twice.

    All parts are tried; then the first error is raised, and the files of the other parts are in the folder. A
    failed stems task is submitted again by the next call, because the service returns its credits. A link
    that does not work is tried again by each call, until `error.checkpoint.resubmit("wav")` removes it.

    Args:
        client: The client. If it has a job key, each step has its own one, such as "demo.wav".
        clip: A finished clip.
        folder: A folder for this clip only, created if it is missing. Only one run at a time can use it.
        name: Name of the files without extension; stems are in `stems/`.
        stems: 'basic' for two, 'full' for all, 'none'.
        wav: Include the WAV file.
        midi: Include the MIDI file.
        lyrics: Include the timed lyrics.
        timeout: The longest wait for the stems, in seconds; by default 1800.
        checkpoint: A checkpoint to use instead of the one in the folder.

    Returns:
        The paths of the files.

    Raises:
        RequestValidationError: The clip is not finished, the folder is that of another clip, or an argument
            has an unknown value; nothing was sent.
        FolderError: Another run uses the folder, or it cannot be written; nothing was sent.
        MusicAPIError: What the calls and downloads raise, with `checkpoint` on the error.
    """
    if stems not in ("basic", "full", "none"):  # None or 'Basic' is not to buy the dearest ones
        raise refused("stems", "'basic', 'full' or 'none'", repr(stems))
    check_bools(wav=wav, midi=midi, lyrics=lyrics)
    if not clip.is_succeeded:
        raise RequestValidationError(
            f"clip: finished, got state {clip.state or 'unknown'!r}", field="clip", hint="Wait for its task."
        )
    place = expand(folder)
    with locked(place):
        workflow = _FolderWorkflow(client, clip, place, name)
        await anyio.to_thread.run_sync(workflow.load, checkpoint)
        if checkpoint is not None:
            await workflow.save()
        of_clip = {"clip_id": clip.clip_id}
        parts = [workflow.get_audio()]
        if wav:
            parts.append(workflow.get_files(Step("wav", Sonic.wav, of_clip), {"wav": "wav"}))
        if midi:
            parts.append(workflow.get_files(Step("midi", Sonic.midi, of_clip), {"midi": "mid"}))
        if lyrics:
            step = Step("lyrics", Sonic.aligned_lyrics, {**of_clip, "wait": True})
            parts.append(workflow.get_files(step, {"lrc": "lrc", "srt": "srt"}))
        if stems != "none":
            operation = Sonic.stems_basic if stems == "basic" else Sonic.stems_full
            parts.append(workflow.get_stems(Step(f"stems_{stems}", operation, of_clip), timeout))
        ended = await asyncio.gather(*parts, return_exceptions=True)
        errors = [error for error in ended if error is not None]
        if not errors:
            return workflow.found()
        for other in errors[1:]:
            errors[0].add_note(f"Besides: {other}")
        with workflow.on_errors():
            raise errors[0]


class _FolderWorkflow(Workflow):
    """The steps of one clip in its folder, where the checkpoint is saved."""

    def __init__(self, client: MusicAPI, clip: Clip, folder: Path, name: str) -> None:
        super().__init__(client, Checkpoint())
        safe = safe_name(name) or "song"
        self.clip: Final = clip
        self.place: Final = Place(
            root=folder,
            folder=folder,
            name=safe,
            stems=folder / "stems",
            subtitles=folder / safe,
            reply=folder / safe,
        )
        self.files: Final[dict[str, Path]] = {}
        self.stems: dict[str, Path] = {}
        self._writing: Final = anyio.Lock()

    def load(self, given: Checkpoint | None) -> None:
        """Take the checkpoint that is given, else read the one in the folder, if it is of the same clip."""
        folder = self.place.folder
        file, former = folder / CHECKPOINT_FILE, folder / FORMER_CHECKPOINT_FILE
        if given is not None:
            self.checkpoint = given
        elif file.is_file():
            self.checkpoint = Checkpoint.parse(file.read_bytes())
        elif former.is_file():
            self.checkpoint = Checkpoint.parse(former.read_bytes())
        of = self.checkpoint.clip_ids.setdefault("clip", self.clip.clip_id)
        if of != self.clip.clip_id:
            raise RequestValidationError(
                f"folder: one for each clip; {str(folder)!r} is that of clip {of}", field="folder"
            )

    async def save(self) -> None:
        """Save the checkpoint, also when this is being cancelled."""
        with anyio.CancelScope(shield=True):
            async with self._writing:
                await anyio.to_thread.run_sync(self._write)

    def _write(self) -> None:
        folder = self.place.folder
        write_whole(folder / CHECKPOINT_FILE, self.checkpoint.json().encode(), private=True)
        (folder / FORMER_CHECKPOINT_FILE).unlink(missing_ok=True)

    def existing(self, *extensions: str) -> list[Path]:
        """Return the files with the name and these extensions, if all are in the folder."""
        paths = [self.place.folder / f"{self.place.name}.{extension}" for extension in extensions]
        return paths if all(path.is_file() for path in paths) else []

    def found(self) -> Everything:
        """Return all files; the audio must be there."""
        files = self.files
        return Everything(
            audio=files["audio"],
            wav=files.get("wav"),
            midi=files.get("midi"),
            lrc=files.get("lrc"),
            srt=files.get("srt"),
            stems=self.stems,
        )

    async def get_audio(self) -> None:
        """Fetch the clip itself; free."""
        paths = self.existing(extension_of(self.clip.final_url or "") or "mp3")
        if not paths:
            place = self.place
            paths = await self.client.download(self.clip, place.folder, name=literal(place.name))
        self.files["audio"] = paths[0]

    async def get_files(self, step: Step[ReplyT], extensions: Mapping[str, str]) -> None:
        """Get the files of a direct call, unless all are in the folder; `extensions` are theirs, by name."""
        if paths := self.existing(*extensions.values()):
            self.files.update(zip(extensions, paths, strict=True))
            return
        try:
            self.files.update((await reply_files(self, step, self.clip, self.place))[1])
        except NotFoundError:
            if step.operation is not Sonic.aligned_lyrics:  # which a clip without singing does not have
                raise

    async def get_stems(self, step: Step[Task[Stems]], timeout: float | None) -> None:
        """Get the stems, each under its name."""
        files = self.checkpoint.files.get(step.name, {})
        paths = {name: self.place.folder / file for name, file in files.items()}
        if not paths or not all(path.is_file() for path in paths.values()):
            paths = await task_files(self, step, self.clip, self.place, timeout)
        self.stems = paths
