"""The paths of the API: the endpoint of each, its methods, and its kind for journal and create limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple

from . import batches, deprecated_families, direct_calls, producer_creates, song_edits, sonic_creates, uploads
from .backend import Call
from .replies import JsonReply

Kind = Literal["create", "direct"]


class Endpoint(NamedTuple):
    """A path's function, and its kind: a `create` counts for the create limit, a `direct` call does not."""

    kind: Kind
    reply: Callable[[Call], JsonReply | Awaitable[JsonReply]]


BATCH: Final = "/sonic/batch"
"""The path that has a POST, and a GET with a query."""

POSTS: Final[dict[str, Endpoint]] = {
    "/sonic/create": Endpoint("create", sonic_creates.create),
    "/sonic/persona": Endpoint("direct", sonic_creates.persona),
    "/sonic/create-voice": Endpoint("create", uploads.create_voice),
    "/sonic/upload": Endpoint("direct", uploads.upload),
    "/sonic/upload-extend": Endpoint("create", uploads.upload_extend),
    "/sonic/upload-cover": Endpoint("create", uploads.upload_cover),
    "/sonic/sample": Endpoint("create", uploads.sample),
    "/sonic/mashup": Endpoint("create", song_edits.mashup),
    "/sonic/replace-section": Endpoint("create", song_edits.replace_section),
    "/sonic/stems/basic": Endpoint("create", song_edits.stems_basic),
    "/sonic/stems/full": Endpoint("create", song_edits.stems_full),
    "/sonic/wav": Endpoint("direct", direct_calls.wav),
    "/sonic/midi": Endpoint("direct", direct_calls.midi),
    "/sonic/bpm": Endpoint("direct", direct_calls.bpm),
    "/sonic/vox": Endpoint("direct", direct_calls.vox),
    "/sonic/aligned-lyrics": Endpoint("direct", direct_calls.aligned_lyrics),
    "/sonic/upsample-tags": Endpoint("direct", direct_calls.upsample),
    "/sonic/lyrics": Endpoint("direct", direct_calls.lyrics),
    "/sonic/download": Endpoint("direct", direct_calls.download),
    BATCH: Endpoint("create", batches.create_batch),
    "/suno/create": Endpoint("create", sonic_creates.create),
    "/suno/make-lyrics": Endpoint("create", direct_calls.make_lyrics),
    "/suno/get-song": Endpoint("direct", direct_calls.get_song),
    "/producer/create": Endpoint("create", producer_creates.create),
    "/producer/upload": Endpoint("create", uploads.producer_upload),
    "/producer/download": Endpoint("create", producer_creates.download),
    "/nuro/create": Endpoint("create", deprecated_families.nuro),
    "/riffusion/create": Endpoint("create", deprecated_families.riffusion),
    "/riffusion/upload": Endpoint("direct", uploads.riffusion_upload),
    "/studio/create": Endpoint("create", deprecated_families.studio),
}
"""Every POST of the API."""

POLLS: Final[dict[str, str]] = {
    "/sonic/task": "sonic",
    "/suno/clip": "sonic",
    "/suno/get-lyrics": "lyrics",
    "/producer/task": "producer",
    "/nuro/task": "nuro",
    "/riffusion/task": "riffusion",
    "/studio/task": "studio",
}
"""Polling paths without the id, and the family whose tasks they know."""


def kind_of(method: str, path: str) -> str:
    """Return the kind of a request for the journal: create, direct, poll, account or other."""
    if method == "POST" and path in POSTS:
        return POSTS[path].kind
    if method == "GET" and (path == BATCH or path.rpartition("/")[0] in POLLS):
        return "poll"
    return "account" if path == "/get-credits" else "other"


def methods_of(path: str) -> list[str]:
    """Return the methods that a path takes; none for a path that does not exist."""
    known = ["POST"] if path in POSTS else []
    if path in ("/get-credits", BATCH) or path in POLLS or path.rpartition("/")[0] in POLLS:
        known.append("GET")
    return known
