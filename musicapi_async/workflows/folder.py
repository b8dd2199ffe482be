"""Everything of a clip in one folder: audio, WAV, MIDI, subtitles and stems."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
import anyio.to_thread
import msgspec

from .._transport.links import extension_of
from ..api.parts import Stems
from ..api.replies import Midi, Wav
from ..api.results import Clip
from ..errors import (
    DownloadError,
    MusicAPIError,
    NotFoundError,
    RequestValidationError,
)
from ..files import expand, safe_name, write_whole
from .paying import finished, paid, submitted
from .reached import Reached

if TYPE_CHECKING:
    from ..api.handle import Task
    from ..client import MusicAPI


class Everything(msgspec.Struct, kw_only=True):
    """The files of a clip. What the service does not have, such as the lyrics of an instrumental, is None."""

    audio: Path
    wav: Path | None = None
    midi: Path | None = None
    lrc: Path | None = None
    srt: Path | None = None
    stems: dict[str, Path] = msgspec.field(default_factory=dict[str, Path])


REACHED_FILE: Final = "reached.json"
"""Keeps, in the folder of `everything`, what was paid for."""

GONE: Final = 410
"""The status of a link that is stale for certain."""
REFUSED: Final = frozenset({403, 404})
"""Statuses of a link that worked before and has gone stale, or of one whose file is not on the CDN yet."""


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
    reached: Reached | None = None,
) -> Everything:
    """The audio, WAV, MIDI, timed lyrics (LRC, SRT) and stems of a finished Sonic clip, in one folder.

    Charges credits for each of them but the audio; the dearest are the stems. Files that are in the folder
    already are neither paid for nor fetched again, and tasks and links that were paid for are kept in
    `reached.json` there, so that calling again after any failure, even of the machine, goes on for free. Use
    one folder for each clip. `name` is that of the files without extension; stems go to `stems/`. `timeout`
    in seconds limits the wait for the stems.
    All parts are tried; then the first error is raised, with the files of the others in place. A stems task
    that failed is submitted anew by the next call: the service returns its credits. A link that never worked
    is tried again by each call; `reached.resubmit("wav")` of `error.reached` gives it up. `reached` takes the
    place of what is in `reached.json`.
    """
    if not clip.is_succeeded:
        raise RequestValidationError(
            f"clip: finished, got state {clip.state or 'unknown'!r}", field="clip", hint="Wait for its task."
        )
    place = _Place(client, clip, expand(folder), name)
    await anyio.to_thread.run_sync(place.load, reached)
    if reached is not None:
        await place.keep()
    parts: list[Callable[[], Awaitable[None]]] = [place.get_audio]
    if wav:
        parts.append(place.get_wav)
    if midi:
        parts.append(place.get_midi)
    if lyrics:
        parts.append(place.get_lyrics)
    if stems != "none":
        parts.append(partial(place.get_stems, stems, timeout))
    errors: list[Exception] = []
    async with anyio.create_task_group() as group:
        for part in parts:
            group.start_soon(_tried, part, errors)
    if not errors:
        return Everything(**place.found)
    for other in errors[1:]:
        errors[0].add_note(f"Besides: {other}")
    if isinstance(errors[0], MusicAPIError):
        errors[0].reached = place.reached
    raise errors[0]


async def _tried(part: Callable[[], Awaitable[None]], errors: list[Exception]) -> None:
    try:
        await part()
    except Exception as error:
        errors.append(error)


class _Place:
    """One clip and its folder."""

    def __init__(self, client: MusicAPI, clip: Clip, folder: Path, name: str) -> None:
        self.client: Final = client
        self.clip: Final = clip
        self.folder: Final = folder
        self.name: Final = safe_name(name) or "song"
        self.pattern: Final = self.name.replace("{", "{{").replace("}", "}}")
        self.reached = Reached()
        self.found: dict[str, Any] = {}
        self._writing: Final = anyio.Lock()

    def load(self, given: Reached | None) -> None:
        """Take what is given, or read what an earlier call has reached, if it was for the same clip."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / REACHED_FILE
        if given is not None:
            self.reached = given
        elif file.is_file():
            self.reached = Reached.parse(file.read_bytes())
        of = self.reached.clip_ids.setdefault("clip", self.clip.clip_id)
        if of != self.clip.clip_id:
            raise RequestValidationError(
                f"folder: one for each clip; {str(self.folder)!r} is that of clip {of}", field="folder"
            )

    async def keep(self) -> None:
        """Write down what is paid for, also when this is being cancelled."""
        with anyio.CancelScope(shield=True):
            await self._keep()

    async def _keep(self) -> None:
        async with self._writing:
            await anyio.to_thread.run_sync(
                write_whole, self.folder / REACHED_FILE, self.reached.json().encode()
            )

    def there(self, extension: str) -> Path | None:
        """A file that is in the folder already."""
        path = self.folder / f"{self.name}.{extension}"
        return path if path.is_file() else None

    async def get_audio(self) -> None:
        """The clip itself; free."""
        there = self.there(extension_of(self.clip.final_url or "") or "mp3")
        self.found["audio"] = (
            there or ((await self.client.download(self.clip, self.folder, name=self.pattern))[0])
        )

    async def get_wav(self) -> None:
        """The WAV file."""

        async def ask(view: MusicAPI) -> str:
            return (await view.sonic.wav(self.clip.clip_id)).wav_url

        self.found["wav"] = self.there("wav") or await self._linked("wav", ask, lambda url: Wav(wav_url=url))

    async def get_midi(self) -> None:
        """The MIDI file; none if the service made notes without a file."""

        async def ask(view: MusicAPI) -> str:
            return (await view.sonic.midi(self.clip.clip_id)).midi_url or ""

        self.found["midi"] = self.there("mid") or await self._linked(
            "midi", ask, lambda url: Midi(midi_url=url)
        )

    async def _linked(
        self, step: str, ask: Callable[[MusicAPI], Awaitable[str]], reply: Callable[[str], Wav | Midi]
    ) -> Path | None:
        """A file behind a link that is paid for once. One that is stale is asked for again by the next call;
        one that has never worked may only be early, so it is kept."""
        url = self.reached.links.get(step)
        if url is None:
            try:
                url = await paid(self.client, self.reached, step, ask, self.keep)
                self.reached.links[step] = url
            finally:
                await self.keep()
        if not url:
            return None
        try:
            (path,) = await self.client.download(reply(url), self.folder, name=self.pattern)
        except DownloadError as error:
            if error.status == GONE or (error.status in REFUSED and step in self.reached.files):
                self.reached.resubmit(step)
                await self.keep()
            raise
        self.reached.files[step] = {step: path.name}
        await self.keep()
        return path

    async def get_lyrics(self) -> None:
        """Subtitles in both formats; none of a clip without singing."""
        lrc, srt = self.there("lrc"), self.there("srt")
        if lrc is None or srt is None:
            try:
                key = self.client.options.job_key
                view = self.client.with_options(job_key=f"{key}.lyrics") if key else self.client
                aligned = await view.sonic.aligned_lyrics(self.clip.clip_id, wait=True)
            except NotFoundError:
                return
            if not aligned.words:
                return
            lrc, srt = (self.folder / f"{self.name}.{extension}" for extension in ("lrc", "srt"))
            await anyio.to_thread.run_sync(write_whole, lrc, aligned.lrc().encode())
            await anyio.to_thread.run_sync(write_whole, srt, aligned.srt().encode())
        self.found["lrc"], self.found["srt"] = lrc, srt

    async def get_stems(self, kind: Literal["basic", "full"], timeout: float | None) -> None:
        """The stems, each under its name."""
        step = f"stems_{kind}"
        files = self.reached.files.get(step, {})
        paths = {name: self.folder / file for name, file in files.items()}
        if not paths or not all(path.is_file() for path in paths.values()):

            def create(view: MusicAPI) -> Awaitable[Task[Stems]]:
                sonic = view.sonic
                return (sonic.stems_basic if kind == "basic" else sonic.stems_full)(self.clip.clip_id)

            try:
                task = await submitted(self.client, self.reached, step, create, self.keep)
            finally:
                await self.keep()
            try:
                stems = await finished(task, self.reached, step, timeout)
            finally:
                await self.keep()
            named = stems.by_name
            for name, stem in named.items():
                stem.name = name
            good = {name: stem for name, stem in named.items() if stem.is_succeeded}
            fetched = await self.client.download(list(good.values()), self.folder / "stems", name="{name}")
            paths = dict(zip(good, fetched, strict=True))
            self.reached.files[step] = {name: f"stems/{path.name}" for name, path in paths.items()}
            await self.keep()
        self.found["stems"] = paths
