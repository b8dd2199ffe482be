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

Replies, faults, and time
-------------------------

Where the documentation of the service leaves a choice, `Choices` has a row; `Durations` says how long things
take; `Faults` make requests, tasks and webhooks fail. All are values of `Sandbox(...)`, can be changed while
it runs, and `sandbox.forward(3600)` is an hour later. `Sandbox(like="vendor-samples")` and
`like="vendor-sdk"` choose what the service's published samples and the vendor's SDK expect: samples that
return on the first HTTP 200 then end with playable clips.

From any language
-----------------

`musicapi sandbox` is the same as a command: `--choice running=hidden`, `--duration song=30`,
`--fail "POST /sonic/create 429*2"`, `--like vendor-samples`; each option says `help` of its own
(`--fail help`). While it runs, everything is below `/_sandbox/`, with the token that it prints:

```text
curl $CONTROL/openapi.json                                            # describes all of it, needs no token
curl -H "Authorization: Bearer $TOKEN" $CONTROL/journal?kind=create   # every create that arrived, its charge
curl -H "Authorization: Bearer $TOKEN" -X PATCH -d '{"running": "hidden"}' $CONTROL/choices
curl -H "Authorization: Bearer $TOKEN" -X POST -d '{"text": "GET /media/* truncate"}' $CONTROL/faults
curl -H "Authorization: Bearer $TOKEN" -X POST -d '{"seconds": 3600}' $CONTROL/clock/forward
curl -H "Authorization: Bearer $TOKEN" -X POST $CONTROL/reset
```

The page at `/` shows balance, tasks and journal live. With `--state FILE` (`Sandbox(state=)`) tasks, clips,
personas, balance and journal survive a restart and `kill -9`, and ids are never repeated.

Addresses
---------

A sandbox is a server with a well-known key, so it serves its own names only (numbers, localhost, the host of
`public_url`), and no page of another origin. It speaks TLS with `tls=True`, whose certificate
`sandbox.client()` trusts and `sandbox.ca_file` lets others trust, or with the files of a certificate. With
`--host 0.0.0.0` everyone in the network can use the API with its well-known key; links have the address of
`--public-url`.

The command sends webhooks to other ports of this machine, and fetches uploads from them, only with
`--local-ports` (`Sandbox(local_ports=)`, True by default). What is skipped is in the journal, with the fault
`not_allowed`, and the reply to an upload says so.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .faults import Fault, Faults
    from .journal import Entry, Journal
    from .reply_choices import Choices, Durations
    from .server import Sandbox

__all__ = ["Choices", "Durations", "Entry", "Fault", "Faults", "Journal", "Sandbox"]

_HOMES = {
    "Choices": "reply_choices",
    "Durations": "reply_choices",
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
