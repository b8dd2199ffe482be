"""The media host: files of clips, made at the first request, cached for a while, served with ranges."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

import anyio
import anyio.to_thread
from aiohttp import web

from ..extras import require
from .service import Service
from .works import Clip

CONTENT_TYPES: Final = {
    "mp3": "audio/mp3",
    "m4a": "audio/mp4",
    "wav": "audio/wav",
    "mid": "audio/midi",
    "png": "image/png",
}
"""The files that can be made, and the content type that the service sends with it (audio/mp3: seen)."""

THREADS: Final = 2
"""Files that are made at the same time; more would only starve the event loop."""

STREAM_CHUNK: Final = 64 * 1024


class MediaHost:
    """Makes and serves files; keeps at most `room` bytes of them."""

    def __init__(self, service: Service, room: int) -> None:
        self._service = service
        self._room = room
        self._files: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._size = 0
        self._making: dict[tuple[str, str], anyio.Lock] = {}
        self._room_to_work = anyio.Semaphore(THREADS)

    async def file(self, clip: Clip, ending: str) -> bytes:
        """The bytes of a file; made in a worker thread once for all who ask at the same time."""
        key = clip.clip_id, ending
        async with self._making.setdefault(key, anyio.Lock()):
            data = self._files.get(key)
            if data is None:
                async with self._room_to_work:
                    data = await anyio.to_thread.run_sync(make_file, clip, ending, abandon_on_cancel=True)
                self._keep(key, data)
            self._files.move_to_end(key)
        self._making.pop(key, None)
        return data

    def _keep(self, key: tuple[str, str], data: bytes) -> None:
        self._files[key] = data
        self._size += len(data)
        while self._size > self._room and len(self._files) > 1:
            _, dropped = self._files.popitem(last=False)
            self._size -= len(dropped)

    async def serve(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """`/media/<name>.<ending>` and `/stream/?item_id=<clip>`."""
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"})
        if request.method == "HEAD" and self._service.choices.head == "refused":
            return web.Response(status=403)
        if path.rstrip("/") == "/stream":
            return await self._stream(request)
        name, _, ending = path.rpartition("/")[2].rpartition(".")
        clip = self._service.clips.get(name.removeprefix("image_"))
        now = self._service.now()
        there = clip is not None and (now >= clip.starts if ending == "png" else now >= clip.file_at)
        if clip is None or not there or ending not in CONTENT_TYPES:
            return web.Response(status=404, text="Not Found")
        return await self._send(request, clip, ending)

    async def _send(self, request: web.BaseRequest, clip: Clip, ending: str) -> web.Response:
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

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        clip = self._service.clips.get(request.query.get("item_id", ""))
        if clip is None or self._service.now() < clip.streams or clip.failed:
            return web.Response(status=404, text="Not Found")
        try:
            data = await self.file(clip, "mp3")
        except ModuleNotFoundError as error:
            return _without_extra(error)
        response = web.StreamResponse(headers={"Content-Type": "audio/mpeg"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        if request.method == "GET":
            for start in range(0, len(data), STREAM_CHUNK):
                await response.write(data[start : start + STREAM_CHUNK])
        await response.write_eof()
        return response


def make_file(clip: Clip, ending: str) -> bytes:
    """Return the file of `clip` with this ending, a key of `CONTENT_TYPES`. Blocks for up to some seconds.

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
    """Say which libraries are missing, with a status that clients do not wait and repeat for."""
    return web.Response(status=400, text=str(error))


def _span(request: web.BaseRequest, size: int) -> slice | None:
    """The requested bytes: an empty slice for all, None for a range outside the file."""
    try:
        wanted = request.http_range
    except ValueError:
        return slice(None)
    if wanted.start is None and wanted.stop is None:
        return slice(None)
    start, stop, _ = wanted.indices(size)
    return slice(start, stop) if start < stop else None
