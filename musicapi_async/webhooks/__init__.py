"""Webhooks: verify and read the messages of the service about tasks, and end the waits for these tasks.

```python
client = MusicAPI(webhooks=Webhooks(url="https://example.com/hooks/musicapi", secret=secret))
...
event = await client.webhooks.handle(request.headers, raw, url=str(request.url))  # in the route of this URL
```

`verify` can be used without a client.

This package also has what a back end sends to browsers, independent of a web framework: problem documents
for errors (`problem_of`), and event streams of a task's updates (`stream`). `musicapi_async.contrib.fastapi`
and `musicapi_async.contrib.aiohttp_web` are thin layers over it.

| module | holds |
| --- | --- |
| `delivery` | one delivery, verified and read as an `Event`; `_wire/signature.py` checks its signature |
| `webhook_settings` | `Webhooks`: the URL that the service calls, with the job key in it, and the secrets |
| `inbox` | `Inbox`: takes each delivery once among all processes |
| `handover` | ends the waits for the task of a delivery, and settles its job |
| `receiving` | the body of a request at a public address, read within limits of size and time |
| `problems` | problem documents for errors |
| `server_sent_events` | the updates of a task as server-sent events, for browsers |
| `event_stream_access` | who may watch the events of a task, and how many unknown tasks are polled |

# Webhooks in a back end

With webhooks, the service sends the result of each create. After the first webhook has arrived, polls are
only a safety net; when webhooks stop coming, tasks are polled as usual again. The routes of
`musicapi_async.contrib` receive webhooks:

```python
import os
from fastapi import FastAPI
from musicapi_async import Webhooks
from musicapi_async.contrib.fastapi import add_problem_handler, lifespan, router


def make_app() -> FastAPI:
    hooks = Webhooks(url="https://example.com/webhooks/musicapi", secret=os.environ["WEBHOOK_SECRET"])
    app = FastAPI(lifespan=lifespan(webhooks=hooks))
    app.include_router(router(public=True))
    add_problem_handler(app)
    return app
```

Processes that share an address (`uvicorn --workers 4`) each receive a part of the webhooks, and poll as usual
when they notice it; until then a result may be five minutes late. With a `PostgresStore` each webhook reaches
the process that waits for its task. The signature is that of the uncompressed body, so a compressed body is
refused (415), and so is a body that is too large (413) or takes longer than `body_timeout=10` seconds (408).

In any other framework, call `await client.webhooks.handle(headers, raw, url=url)`, or, without a client,
`verify(raw, headers, secret)`. Both raise only `WebhookVerificationError`, for each webhook that must not be
trusted. The URL that the service calls includes the job key and a proof of it, so that a create whose
response was lost is found again. For a batch it also includes the index of the item.
"""

from typing import TYPE_CHECKING

from .._lazy_names import lazy_names

if TYPE_CHECKING:
    from .._wire.signature import sign, sign_body
    from ..errors import WebhookVerificationError
    from .delivery import TOLERANCE, WEBHOOK_BODY_LIMIT, Event, parse, verify
    from .inbox import Inbox
    from .problems import PROBLEM_TYPE, Problem, loggable, problem_of, problem_schema
    from .server_sent_events import STREAM_HEADERS, STREAM_TYPE, event, has_ended, stream, update_fields
    from .webhook_settings import Webhooks

__all__ = [
    "PROBLEM_TYPE",
    "STREAM_HEADERS",
    "STREAM_TYPE",
    "TOLERANCE",
    "WEBHOOK_BODY_LIMIT",
    "Event",
    "Inbox",
    "Problem",
    "WebhookVerificationError",
    "Webhooks",
    "event",
    "has_ended",
    "loggable",
    "parse",
    "problem_of",
    "problem_schema",
    "sign",
    "sign_body",
    "stream",
    "update_fields",
    "verify",
]

_MODULES = {
    ".._wire.signature": ("sign", "sign_body"),
    "..errors": ("WebhookVerificationError",),
    ".delivery": ("TOLERANCE", "WEBHOOK_BODY_LIMIT", "Event", "parse", "verify"),
    ".inbox": ("Inbox",),
    ".problems": ("PROBLEM_TYPE", "Problem", "loggable", "problem_of", "problem_schema"),
    ".server_sent_events": ("STREAM_HEADERS", "STREAM_TYPE", "event", "has_ended", "stream", "update_fields"),
    ".webhook_settings": ("Webhooks",),
}


if not TYPE_CHECKING:  # type checkers would believe in any name
    __getattr__, __dir__ = lazy_names(__name__, _MODULES)
