"""The songs of the example service, without HTTP: order, follow, download, make personas.

Everything is written down before it happens, so that a killed service continues where it was. A song is
ordered with its id as the job key: the same order after a restart sends it only if it was not sent before,
and otherwise gives the same task, or says that the outcome is unknown; then its webhook names the task. A
song with a token is followed again, and one that ended without its files downloads them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Coroutine
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import anyio

from ..api.results import Clips, TaskUpdate
from ..api.task import Task
from ..client import MusicAPI
from ..errors import DownloadError, MusicAPIError, OutcomeUnknownError, RateLimitedError, TaskTimeoutError
from ..webhooks import Event, event, problem_of, update_fields
from ..webhooks.server_sent_events import HEARTBEAT, problem_fields
from .records import Record, Records

log: Final = logging.getLogger("musicapi_async.examples")

SONG_MODEL: Final = "sonic-v6"
MAX_SONGS: Final = 50
"""Songs in flight at once; more would wait for minutes before they are even sent."""
REVISION_DIGITS: Final = 18
"""Digits that no revision reaches; longer ones are made up."""
RESTART_RECONNECT: Final = 1000
"""Milliseconds after which a browser comes back after a restart."""


class SongStudio:
    """Songs and personas of one client."""

    def __init__(self, client: MusicAPI, records: Records, folder: Path) -> None:
        self._client: Final = client
        self._records: Final = records
        self._folder: Final = folder
        self._running: Final[set[asyncio.Task[None]]] = set()
        self._changed = asyncio.Event()

    def order(
        self, description: str, persona_id: str = "", instrumental: bool = False, key: str = ""
    ) -> Record:
        """Order a song, once for the same `key`; it is made beside the request, and `feed` shows it."""
        song_id = f"song-{key or secrets.token_hex(16)}"
        if (known := self._records.get(song_id)) is not None:
            return known
        if len(self._running) >= MAX_SONGS:
            raise RateLimitedError(f"{MAX_SONGS} songs are in flight already", status=429)
        persona = self._records.get(persona_id) if persona_id else None
        fields: dict[str, Any] = {
            "description": description,
            "persona_id": persona_id,
            "persona": persona.fields["name"] if persona is not None else "",
            "instrumental": instrumental,
            "token": "",
            "state": "ordering",
            "ended": False,
            "clips": [],
            "ordered_at": self._client.clock.time(),
        }
        song = self._put("song", song_id, fields)
        self._start(self._make(song))
        return song

    async def make_persona(self, name: str, clip_id: str) -> Record:
        """Make a persona from a clip; charges credits, once for a clip and name. Raises as it does."""
        digest = blake2b(f"{clip_id} {name}".encode(), digest_size=16).hexdigest()
        sonic = self._client.with_options(job_key=f"persona-{digest}").sonic
        persona = await sonic.create_persona(name=name, clip_id=clip_id)
        return self._put("persona", persona.persona_id, {"name": name, "clip_id": clip_id})

    def file(self, song_id: str, clip_id: str) -> tuple[Path, str] | None:
        """Return the file of a clip and a name to save it under; None if there is none."""
        song = self._records.get(song_id)
        clips: list[dict[str, Any]] = song.fields["clips"] if song is not None else []
        for clip in clips:
            if clip["clip_id"] == clip_id and clip.get("file"):
                path = Path(clip["file"])
                return path, f"{clip['title'] or 'song'}{path.suffix}"
        return None

    async def feed(self, last_event_id: str | None) -> AsyncGenerator[bytes, None]:
        """Yield all songs and personas, then every change, as server-sent events after the browser's last."""
        epoch, _, revision = (last_event_id or "").partition(".")
        known = epoch == self._records.epoch and revision.isdecimal() and len(revision) < REVISION_DIGITS
        sent = int(revision) if known else 0
        yield event({}, name="hello", retry=RESTART_RECONNECT)
        while True:
            changed = self._changed
            for record in self._records.since(sent):
                sent = record.revision
                mark = f"{self._records.epoch}.{sent}"
                yield event(_displayed(record), name=record.kind, event_id=mark)
            with anyio.move_on_after(HEARTBEAT):
                await changed.wait()
                continue
            yield b": still here\n\n"

    def resume(self) -> None:
        """Follow the unfinished songs of an earlier process."""
        for song in self._records.songs():
            fields = song.fields
            if fields["token"] and not fields["ended"]:
                self._start(self._follow(song.id, self._client.task(fields["token"])))
            elif fields["state"] in ("ordering", "unknown"):
                self._start(self._make(song))

    async def on_event(self, event: Event) -> None:
        """Take a webhook: its job key names the song if the outcome of its order is unknown."""
        song = self._records.get(event.job_key or "")
        if song is not None and song.fields["state"] == "unknown":
            self._change(song.id, state="ordering")  # so that the next webhook changes nothing
            self._start(self._make(song))  # its job is settled now: this gives the task and sends nothing

    async def close(self) -> None:
        """Stop following; the songs continue at the service."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _make(self, song: Record) -> None:
        fields = song.fields
        sonic = self._client.with_options(job_key=song.id).sonic
        try:
            if fields["persona_id"]:
                task = await sonic.persona_music(
                    mv=SONG_MODEL,
                    persona_id=fields["persona_id"],
                    gpt_description_prompt=fields["description"],
                )
            else:
                task = await sonic.create_music(
                    mv=SONG_MODEL,
                    gpt_description_prompt=fields["description"],
                    make_instrumental=fields["instrumental"] or None,
                )
        except OutcomeUnknownError as error:
            log.warning("%s: %s", song.id, error)
            self._change(song.id, state="unknown", problem=problem_fields(problem_of(error)))
            if self._client.webhooks.task_of(song.id) is not None:
                await self._make(song)  # the webhook was quicker than the error
        except MusicAPIError as error:
            log.warning("%s: %s", song.id, error)
            self._change(song.id, state="failed", ended=True, problem=problem_fields(problem_of(error)))
        else:
            self._change(song.id, token=task.token, state="pending", problem=None)
            await self._follow(song.id, task)

    async def _follow(self, song_id: str, task: Task[Clips]) -> None:
        while True:
            try:
                async for update in task.updates():
                    await self._store(song_id, update)
                return
            except TaskTimeoutError:
                log.warning("%s takes long; still following", song_id)
            except MusicAPIError as error:
                log.warning("%s: %s", song_id, error)
                self._change(song_id, state="failed", ended=True, problem=problem_fields(problem_of(error)))
                return

    async def _store(self, song_id: str, update: TaskUpdate) -> None:
        """Write an update down; a song counts as ended once its files are here."""
        fields = update_fields(update)
        if update.result is None:
            self._change(song_id, **fields)
            return
        self._change(song_id, **{**fields, "ended": False})
        for clip, clip_fields in zip(update.result.clips, fields["clips"], strict=True):
            if clip.is_succeeded:
                try:
                    (path,) = await self._client.download(clip, self._folder / song_id, name="{clip_id}")
                except DownloadError as error:
                    log.warning("%s: %s", song_id, error)  # the page plays it from where it is
                else:
                    clip_fields["file"] = str(path)
        self._change(song_id, **fields)

    def _change(self, song_id: str, **changes: Any) -> None:
        song = self._records.get(song_id)
        if song is not None:
            self._put("song", song_id, {**song.fields, **changes})

    def _put(self, kind: Any, record_id: str, fields: dict[str, Any]) -> Record:
        record = self._records.put(kind, record_id, fields)
        self._changed.set()
        self._changed = asyncio.Event()
        return record

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a song could not be followed", exc_info=error)


def _displayed(record: Record) -> dict[str, Any]:
    """Return the fields of a record for the page: without its token, with URLs instead of paths."""
    fields = {name: value for name, value in record.fields.items() if name != "token"}
    if record.kind == "song":
        fields["clips"] = [
            {**clip, "file": f"/files/{record.id}/{clip['clip_id']}" if clip.get("file") else None}
            for clip in fields["clips"]
        ]
    return {"id": record.id, **fields}
