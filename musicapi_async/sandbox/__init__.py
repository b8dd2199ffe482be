"""The API on this machine: `Sandbox`, and how it is set up.

Importing this is cheap; the server and aiohttp are loaded when `Sandbox` is first named, and the libraries
of the `sandbox` extra when a media file is first fetched.

Without an account, a sandbox takes its place; it speaks the same API, and time runs 60 times as fast in it:

```python
import asyncio
from musicapi_async.sandbox import Sandbox


async def main() -> None:
    async with Sandbox(speed=60) as sandbox, sandbox.client() as client:
        task = await client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\\nHello", title="Hello")
        clips = await task.wait()
        print(clips[0].title, clips[0].duration, sandbox.journal.charges)


asyncio.run(main())
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .choices import Choices, Durations
    from .faults import Fault, Faults
    from .journal import Entry, Journal
    from .server import Sandbox

__all__ = ["Choices", "Durations", "Entry", "Fault", "Faults", "Journal", "Sandbox"]

_HOMES = {
    "Choices": "choices",
    "Durations": "choices",
    "Entry": "journal",
    "Fault": "faults",
    "Faults": "faults",
    "Journal": "journal",
    "Sandbox": "server",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
