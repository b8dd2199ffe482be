"""Which endpoint answers which path, and of which kind it is for the journal and the create limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple

from . import sonic
from .service import Call, Reply

Kind = Literal["create", "direct", "free"]


class Endpoint(NamedTuple):
    """`create` counts for the create limit; `direct` may cost but is not paced; `free` costs nothing."""

    kind: Kind
    answer: Callable[[Call], Reply | Awaitable[Reply]]


POSTS: Final[dict[str, Endpoint]] = {
    "/sonic/create": Endpoint("create", sonic.create),
    "/suno/create": Endpoint("create", sonic.create),
    "/sonic/persona": Endpoint("direct", sonic.persona),
}

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
