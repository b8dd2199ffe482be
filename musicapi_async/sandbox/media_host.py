"""The media host: files of clips, made at the first request, cached for a while, served with ranges."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

import anyio
import anyio.to_thread
from aiohttp import HttpVersion11, web

from ..extras import require
from .backend import Service
from .ordered_tasks import OrderedClip
from .poll_bodies import STREAM

CONTENT_TYPES: Final = {
    "mp3": "audio/mp3",
    "m4a": "audio/mp4",
    "wav": "audio/wav",
    "mid": "audio/midi",
    "png": "image/png",
}
"""The files that can be made, and the content types of the service (audio/mp3 was observed)."""

THREADS: Final = 2
"""Files that are made at the same time; more would only starve the event loop."""

AHEAD: Final = 5.0
"""Seconds of music that a stream is ahead of a listener who begins when it begins."""

STREAM_PAUSE: Final = 0.1
"""Real seconds between two parts of a stream."""

STORED_BYTES: Final = 128 * 1024 * 1024

NO_PATH: Final = "Not Found: the API is below /api/v1, files are below /media, and the page is /."


class MediaHost:
    """Makes and serves files; the oldest go beyond `STORED_BYTES`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._files: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._size = 0
        self._making: dict[tuple[str, str], anyio.Lock] = {}
        self._threads = anyio.Semaphore(THREADS)

    async def file(self, clip: OrderedClip, ending: str) -> bytes:
        """Return the bytes of a file; made in a worker thread once for all requests at the same time."""
        key = clip.clip_id, ending
        try:
            async with self._making.setdefault(key, anyio.Lock()):
                data = self._files.get(key)
                if data is None:
                    async with self._threads:
                        data = await anyio.to_thread.run_sync(make_file, clip, ending, abandon_on_cancel=True)
                    self._store(key, data)
                self._files.move_to_end(key)
        finally:
            self._making.pop(key, None)
        return data

    def clear(self) -> None:
        """Forget all files."""
        self._files.clear()
        self._size = 0

    def _store(self, key: tuple[str, str], data: bytes) -> None:
        self._files[key] = data
        self._size += len(data)
        while self._size > STORED_BYTES and len(self._files) > 1:
            _, dropped = self._files.popitem(last=False)
            self._size -= len(dropped)

    async def serve(self, request: web.BaseRequest, path: str, *, unsent: bool = False) -> web.StreamResponse:
        """Return the response for `/media/<name>.<ending>` and `/audiopipe/?item_id=<clip>`.

        Args:
            request: The request.
            path: Its path.
            unsent: True if a fault acts on the response: a stream is then what could be heard by now, unsent.
        """
        if not path.startswith(("/media/", STREAM)):
            return web.Response(status=404, text=NO_PATH)
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"})
        if request.method == "HEAD" and self._service.choices.head == "refused":
            return web.Response(status=403)
        if path.startswith(STREAM):
            return await self._stream(request, unsent=unsent)
        name, _, ending = path.rpartition("/")[2].rpartition(".")
        clip = self._service.clips.get(name.removeprefix("image_"))
        now = self._service.now()
        there = clip is not None and (now >= clip.starts if ending == "png" else now >= clip.file_at)
        if clip is None or not there or ending not in CONTENT_TYPES:
            return web.Response(status=404, text="Not Found")
        return await self._send(request, clip, ending)

    async def _send(self, request: web.BaseRequest, clip: OrderedClip, ending: str) -> web.Response:
        try:
            data = await self.file(clip, ending)
        except ModuleNotFoundError as error:
            return _without_extra(error)
        tag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
        headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Type": CONTENT_TYPES[ending]}
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        span = _span(request, len(data)) if request.headers.get("If-Range", tag) == tag else slice(None)
        if span is None:
            return web.Response(status=416, headers={**headers, "Content-Range": f"bytes */{len(data)}"})
        if span.start is None:
            return web.Response(body=data, headers=headers)
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{len(data)}"
        return web.Response(status=206, body=data[span], headers=headers)

    async def _stream(self, request: web.BaseRequest, *, unsent: bool) -> web.StreamResponse:
        """Send unfinished audio as fast as the music plays: all that could be heard by now, then more.

        It is no file: another encoding than the final one, without tags and without its length.
        """
        clip = self._service.clips.get(request.query.get("item_id", ""))
        if clip is None or self._service.now() < clip.streams or clip.failed:
            return web.Response(status=404, text="Not Found")
        try:
            data = await self.file(clip, "stream")
        except ModuleNotFoundError as error:
            return _without_extra(error)
        headers = {"Content-Type": "audio/mpeg", "Cache-Control": "no-store"}
        if unsent:
            return web.Response(body=data[: self._heard(data, clip)], headers=headers)
        response = web.StreamResponse(headers=headers)
        if request.version >= HttpVersion11:
            response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            if request.method == "GET":
                await self._send_played(response, data, clip)
            await response.write_eof()
        except ConnectionError:
            pass  # the listener has gone
        return response

    async def _send_played(self, response: web.StreamResponse, data: bytes, clip: OrderedClip) -> None:
        time = self._service.time
        sent = 0
        while sent < len(data):
            heard = self._heard(data, clip)
            if heard > sent:
                await response.write(data[sent:heard])
                sent = heard
            else:
                await time.sleep(STREAM_PAUSE * time.clock.speed)

    def _heard(self, data: bytes, clip: OrderedClip) -> int:
        """Return how many bytes of a stream could be heard by now."""
        seconds = self._service.now() - clip.streams + AHEAD
        return round(seconds * len(data) / max(clip.recipe.duration, 1e-9))


def make_file(clip: OrderedClip, ending: str) -> bytes:
    """Return the file of `clip` with this ending: a key of `CONTENT_TYPES`, or "stream". Blocks for seconds.

    Raises ModuleNotFoundError with the way out when the libraries of the `sandbox` extra are not installed.
    """
    require("Making media files", "sandbox")
    from . import media_files

    return media_files.make_file(clip, ending)


def audio_of(data: bytes) -> tuple[float, int]:
    """Return the duration in seconds and a seed of an uploaded file.

    Raises ValueError if it is no audio, and ModuleNotFoundError as `make_file` does.
    """
    require("Reading audio files", "sandbox")
    from . import media_files

    return media_files.load(data)


def _without_extra(error: ModuleNotFoundError) -> web.Response:
    """Return which libraries are missing, with a status that no client repeats a request for."""
    return web.Response(status=400, text=str(error))


def _span(request: web.BaseRequest, size: int) -> slice | None:
    """Return the requested bytes: an empty slice for all, None for a range outside the file."""
    try:
        wanted = request.http_range
    except ValueError:
        return slice(None)
    if wanted.start is None and wanted.stop is None:
        return slice(None)
    start, stop, _ = wanted.indices(size)
    return slice(start, stop) if start < stop else None
