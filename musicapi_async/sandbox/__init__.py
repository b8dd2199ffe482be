"""A server with the same API as the service, for work without an account and for tests: `Sandbox`.

The server and aiohttp are imported when `Sandbox` is first used, and the libraries of the extra `[sandbox]`
when a media file is first fetched.

In this example the clock of the sandbox, and of its client, runs 60 times as fast as real time:

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

`Choices` has a field for each behaviour that the documentation of the service leaves open; `Durations` sets
how long things take; `Faults` make requests, tasks and webhooks fail. All are arguments of `Sandbox(...)`,
and can be changed while it runs. `sandbox.forward(3600)` moves its clock forward by an hour.
`Sandbox(like="vendor-samples")` and `like="vendor-sdk"` choose the behaviour that the service's published
samples and the vendor's SDK expect: samples that return on the first HTTP 200 then end with playable clips.

From any language
-----------------

The command `musicapi sandbox` starts the same server: `--choice running=hidden`, `--duration song=30`,
`--fail "POST /sonic/create 429*2"`, `--like vendor-samples`; `--fail help` and likewise print the possible
values. While it runs, it is controlled below `/_sandbox/`, with the token that it prints:

```text
curl $CONTROL/openapi.json                                            # describes all of it, needs no token
curl -H "Authorization: Bearer $TOKEN" $CONTROL/journal?kind=create   # every create that arrived, its charge
curl -H "Authorization: Bearer $TOKEN" -X PATCH -d '{"running": "hidden"}' $CONTROL/choices
curl -H "Authorization: Bearer $TOKEN" -X POST -d '{"text": "GET /media/* truncate"}' $CONTROL/faults
curl -H "Authorization: Bearer $TOKEN" -X POST -d '{"seconds": 3600}' $CONTROL/clock/forward
curl -H "Authorization: Bearer $TOKEN" -X POST $CONTROL/reset
```

The page at `/` displays balance, tasks and journal live. With `--state FILE` (`Sandbox(state=)`), tasks,
clips, personas, balance and journal survive a restart and `kill -9`, and ids are never repeated.

Addresses
---------

The key of a sandbox is well known, so it accepts only its own host names (IP addresses, localhost, the host
of `public_url`), and no requests from pages of other origins. `tls=True` serves https with a certificate that
`sandbox.client()` trusts; other clients trust it with the file `sandbox.ca_file`. `tls` may also be the files
of a certificate. With `--host 0.0.0.0` everyone in the network can use the API; links then have the address
in `--public-url`.

The command sends webhooks to other ports of this machine, and fetches uploads from them, only with
`--local-ports` (`Sandbox(local_ports=)`, which is True by default). Skipped ones are in the journal with the
fault `not_allowed`, and the reply to an upload says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy_names import lazy_names

if TYPE_CHECKING:
    from .faults import Fault, Faults
    from .journal import Entry, Journal
    from .reply_choices import Choices, Durations
    from .server import Sandbox

__all__ = ["Choices", "Durations", "Entry", "Fault", "Faults", "Journal", "Sandbox"]

_MODULES = {
    ".faults": ("Fault", "Faults"),
    ".journal": ("Entry", "Journal"),
    ".reply_choices": ("Choices", "Durations"),
    ".server": ("Sandbox",),
}


if not TYPE_CHECKING:  # type checkers would believe in any name
    __getattr__, __dir__ = lazy_names(__name__, _MODULES)
