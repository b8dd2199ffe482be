"""Which endpoint answers which path, and of which kind it is for the journal and the create limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple

from . import deprecated_families, edits, producer_creates, sonic_creates, tools, uploads
from .service import Call, Reply

Kind = Literal["create", "direct", "free"]


class Endpoint(NamedTuple):
    """`create` counts for the create limit; `direct` may cost but is not paced; `free` costs nothing."""

    kind: Kind
    answer: Callable[[Call], Reply | Awaitable[Reply]]


POSTS: Final[dict[str, Endpoint]] = {
    "/sonic/create": Endpoint("create", sonic_creates.create),
    "/sonic/persona": Endpoint("direct", sonic_creates.persona),
    "/sonic/create-voice": Endpoint("create", uploads.create_voice),
    "/sonic/upload": Endpoint("direct", uploads.upload),
    "/sonic/upload-extend": Endpoint("create", uploads.upload_extend),
    "/sonic/upload-cover": Endpoint("create", uploads.upload_cover),
    "/sonic/sample": Endpoint("create", uploads.sample),
    "/sonic/mashup": Endpoint("create", edits.mashup),
    "/sonic/replace-section": Endpoint("create", edits.replace_section),
    "/sonic/stems/basic": Endpoint("create", edits.stems_basic),
    "/sonic/stems/full": Endpoint("create", edits.stems_full),
    "/sonic/wav": Endpoint("direct", tools.wav),
    "/sonic/midi": Endpoint("direct", tools.midi),
    "/sonic/bpm": Endpoint("direct", tools.bpm),
    "/sonic/vox": Endpoint("direct", tools.vox),
    "/sonic/aligned-lyrics": Endpoint("direct", tools.aligned_lyrics),
    "/sonic/upsample-tags": Endpoint("direct", tools.upsample),
    "/sonic/lyrics": Endpoint("direct", tools.lyrics),
    "/sonic/download": Endpoint("direct", tools.download),
    "/sonic/batch": Endpoint("create", tools.batch),
    "/suno/create": Endpoint("create", sonic_creates.create),
    "/suno/make-lyrics": Endpoint("create", tools.make_lyrics),
    "/suno/get-song": Endpoint("direct", tools.get_song),
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
