"""Chains of calls that belong together: extend or cover whatever it is, the full song, everything of a clip.

```python
from musicapi_async import MusicAPI, chains

async with MusicAPI() as client:
    link = "https://example.org/demo.mp3"
    task = await chains.cover(client, link, mv="sonic-v6", prompt=lyrics, tags="jazz")
    song = await chains.extend_full(client, (await task.wait())[0], mv="sonic-v6", prompt=more)
    files = await chains.everything(client, song[0], "out/demo")
```

They use public calls only, so the pace, the checks and the promise of paying once are those of the client.
A chain pays for several calls, and a later one may fail. What was paid for until then is never lost: every
`MusicAPIError` that leaves a chain carries it as `error.reached`, and `chain(..., reached=error.reached)`
goes on from there without paying again. A `Reached` that is passed in is filled as the chain goes on, which
helps where no error comes, such as a cancelled task; it is stored as JSON (`Reached.json`, `Reached.parse`).

A step of unknown outcome (`OutcomeUnknownError`, or a task cancelled or a process killed while it was sent)
may be paid for; it is noted in `Reached` before it is sent, and `everything` writes that down in its folder.
Going on raises `OutcomeUnknownError` again and sends nothing until somebody has looked and says
`reached.resolve("extend", task=token)` or, to pay for it once more, `reached.resubmit("extend")`.

With a job key (`client.with_options(job_key="demo")`) each step gets a key of its own ("demo.extend"), so
that running a chain again finds what it has paid for in the store of the client. A step that failed stays so
under its key until `client.resubmit("demo.extend")`; without a job key, going on submits it anew. A client
with a store gives each step a new key of its own, which `Reached` keeps: so a step that was under way when
the process was killed is settled by its job, and sends nothing if it was accepted.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

import anyio
import anyio.to_thread
import msgspec

from .api.operation import Operation
from .api.parts import Stems
from .api.replies import Midi, Upload, Wav
from .api.request import refuse, violations
from .api.results import Clip, Clips, Result
from .api.sonic import Sonic
from .errors import (
    DownloadError,
    JobStoreError,
    MusicAPIError,
    NotFoundError,
    OutcomeUnknownError,
    RequestValidationError,
    TaskFailedError,
)
from .reached import TAKES, Reached
from .transport.download import safe_name, sync_folder
from .transport.links import extension_of

if TYPE_CHECKING:
    from .api.handle import Task
    from .client import MusicAPI

__all__ = [
    "AUDIO",
    "GONE",
    "REACHED_FILE",
    "REFUSED",
    "Everything",
    "Reached",
    "Source",
    "Uploader",
    "cover",
    "everything",
    "extend",
    "extend_full",
]

R = TypeVar("R", bound=Result)
T = TypeVar("T")

Source = str | os.PathLike[str] | Clip | Upload
"""Where audio comes from: a public link (it is uploaded), a local file (needs an `uploader`), a `Clip` or its
id (made on the platform), or an `Upload` (of `sonic.upload`; of an id: `Upload(clip_id=...)`)."""

Uploader = Callable[[Path], Awaitable[str]]
"""Puts a local file where the service can fetch it and returns its public link, which must answer HEAD."""


AUDIO: Final = frozenset({".mp3", ".wav", ".m4a", ".flac", ".ogg", ".aac", ".aiff"})
"""Endings by which text is taken for the name of a local file rather than for a clip id."""


# --- extend and cover ---------------------------------------------------------------------------------------


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
    with _keeping(reached) as now:
        extension = await extend(client, source, reached=now, **fields)
        parts = await _finished(extension, now, "extend", timeout)
        if "part" not in now.clip_ids:
            now.clip_ids["part"] = (choose or _first)(parts).clip_id
        part = now.clip_ids["part"]
        full = await _submitted(
            client, now, "concat", lambda view: view.sonic.concat_music(continue_clip_id=part)
        )
        return await _finished(full, now, "concat", timeout)


async def _reworked(
    client: MusicAPI,
    operation: Operation[Any, Any],
    source: Source,
    fields: dict[str, Any],
    *,
    uploader: Uploader | None,
    reached: Reached | None,
) -> Task[Clips]:
    with _keeping(reached) as now:
        _check(client, operation, {**fields, "continue_clip_id": "checked before it is known"})
        clip_id = await _clip_id(client, source, uploader, now)
        step = operation.name.partition("_")[0]

        def create(view: MusicAPI) -> Awaitable[Task[Clips]]:
            method: Callable[..., Awaitable[Task[Clips]]] = getattr(view.sonic, operation.name)
            return method(continue_clip_id=clip_id, **fields)

        return await _submitted(client, now, step, create)


@contextmanager
def _keeping(reached: Reached | None) -> Generator[Reached]:
    """What is reached inside stands on every error that leaves."""
    now = Reached() if reached is None else reached
    try:
        yield now
    except MusicAPIError as error:
        error.reached = now
        raise


async def _nothing() -> None:
    """Where what was reached is kept by the caller."""


async def _submitted(
    client: MusicAPI,
    reached: Reached,
    step: str,
    create: Callable[[MusicAPI], Awaitable[Task[R]]],
    keep: Callable[[], Awaitable[None]] = _nothing,
) -> Task[R]:
    """The task of a step: the one that is paid for already, else a new one."""
    token = reached.tasks.get(step)
    if token is not None:
        return cast("Task[R]", client.task(token))
    task = await _paid(client, reached, step, create, keep)
    reached.tasks[step] = task.token
    return task


async def _paid(
    client: MusicAPI,
    reached: Reached,
    step: str,
    create: Callable[[MusicAPI], Awaitable[T]],
    keep: Callable[[], Awaitable[None]] = _nothing,
) -> T:
    """Make a paid call unless it may have been made, with a client that has the job key of the step.

    The step counts as of unknown outcome from before it is sent until its answer is there, and `keep` writes
    that down: whoever is killed in between does not pay again.
    """
    key = _key_of(client, reached, step)
    takes = TAKES.get(step, ("task",))[0]
    if step in reached.unknown and not await _is_guarded(client, reached.unknown[step]):
        raise OutcomeUnknownError(
            f"the step {step!r} was begun before and may have been sent: its outcome is unknown",
            job_key=reached.unknown[step] or None,
            hint=f"Look for its result in the dashboard, then call reached.resolve({step!r}, {takes}=...), "
            f"or reached.resubmit({step!r}) to pay for it again. (`reached` is on this error.)",
        )
    before = reached.unknown.get(step)
    reached.unknown[step] = key
    try:
        await keep()
    except BaseException:  # nothing was sent
        _restore(reached, step, before)
        raise
    try:
        made = await create(client.with_options(job_key=key) if key else client)
    except MusicAPIError as error:
        if error.may_have_been_charged:
            reached.unknown[step] = getattr(error, "job_key", None) or key
        elif not await _stays_open(client, key, before):
            reached.unknown.pop(step, None)
        raise
    except TypeError:  # a misspelt field: it was not sent this time
        _restore(reached, step, before)
        raise
    except anyio.get_cancelled_exc_class():
        if await _never_left(client, key):
            _restore(reached, step, before)
        raise
    reached.unknown.pop(step, None)
    return made


def _restore(reached: Reached, step: str, before: str | None) -> None:
    """Have it noted of a step what was noted before this call of it."""
    if before is None:
        reached.unknown.pop(step, None)
    else:
        reached.unknown[step] = before


async def _stays_open(client: MusicAPI, key: str, before: str | None) -> bool:
    """Whether a step may have been carried out although its call has just ended without a charge.

    An earlier call of it may have been: of one that was noted before, only that its job is gone proves that
    it was not. A store that cannot be read proves nothing.
    """
    if not key:
        return False  # without a job, a step that was noted before is not called
    try:
        job = await client.job(key)
    except JobStoreError:
        return before is not None
    return job is not None and (before is not None or job.state in {"sent", "ambiguous"})


async def _never_left(client: MusicAPI, key: str) -> bool:
    """Whether the job of a call that was cancelled just now proves that nothing had left."""
    if not key:
        return False
    with anyio.CancelScope(shield=True), suppress(JobStoreError):
        job = await client.job(key)
        return job is None or job.state == "reserved"
    return False


def _key_of(client: MusicAPI, reached: Reached, step: str) -> str:
    """The job key of a step: from that of the chain, else that of its last send, else a new one.

    '' if there is no store where it would be written down.
    """
    if client.options.job_key is not None:
        return f"{client.options.job_key}.{step}"
    if reached.unknown.get(step):
        return reached.unknown[step]
    return f"chain-{uuid.uuid4().hex}.{step}" if client.records_calls else ""


async def _is_guarded(client: MusicAPI, key: str) -> bool:
    """Whether a call was written down under this key, in this store: then its job says whether it is sent."""
    wanted = client.options.job_key
    mine = not wanted or key.startswith(f"{wanted}.")
    return bool(key) and mine and await client.job(key) is not None


async def _finished(task: Task[R], reached: Reached, step: str, timeout: float | None = None) -> R:
    """The result of a step. A task that failed is forgotten, so that going on makes a new one."""
    try:
        return await task.wait(timeout=timeout)
    except TaskFailedError:
        reached.tasks.pop(step, None)
        raise


def _check(client: MusicAPI, operation: Operation[Any, Any], fields: dict[str, Any]) -> None:
    """Refuse what the last call of a chain would refuse before the first is paid for."""
    try:
        request = operation.request(**fields)
    except TypeError as error:
        raise operation._misused((), fields, error) from None  # pyright: ignore[reportPrivateUsage]
    found = violations(request)
    if found and client.options.validate == "error":
        raise refuse(found, operation.call_name)


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
            upload = await _paid(client, reached, "upload", lambda view: view.sonic.upload(link))
    if upload.clip_id:
        reached.clip_ids["upload"] = upload.clip_id
        return upload.clip_id
    if upload.task_id:
        reached.tasks["upload"] = client.task("sonic", upload.task_id, kind="upload").token
    clips = await _finished(client.task(reached.tasks["upload"]), reached, "upload")
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


# --- everything of a clip -----------------------------------------------------------------------------------


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
    place = _Place(client, clip, Path(folder), name)
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
            await anyio.to_thread.run_sync(_write, self.folder / REACHED_FILE, self.reached.json())

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
                url = await _paid(self.client, self.reached, step, ask, self.keep)
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
            await anyio.to_thread.run_sync(_write, lrc, aligned.lrc())
            await anyio.to_thread.run_sync(_write, srt, aligned.srt())
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
                task = await _submitted(self.client, self.reached, step, create, self.keep)
            finally:
                await self.keep()
            try:
                stems = await _finished(task, self.reached, step, timeout)
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


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    sync_folder(path.parent)
