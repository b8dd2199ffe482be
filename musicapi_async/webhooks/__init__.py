"""Webhooks: verify and read the messages of the service about tasks, and finish the waits with them.

```python
client = MusicAPI(webhooks=Webhooks(url="https://example.com/hooks/musicapi", secret=secret))
...
event = await client.webhooks.handle(request.headers, raw, url=str(request.url))  # in that view
```

`verify` alone needs no client.

A back end also answers browsers. The pure half of that is here, too: problem documents instead of errors
(`problem_of`), and event streams of a task's updates (`stream`). It knows no web framework;
`musicapi_async.contrib.fastapi` and `musicapi_async.contrib.aiohttp_web` are thin layers over it.

| module | holds |
| --- | --- |
| `delivery` | one delivery, verified and read as an `Event`; `_wire/signature.py` checks its signature |
| `webhook_settings` | `Webhooks`: the URL that the service calls, with the job key in it, and the secrets |
| `inbox` | `Inbox`: each delivery is taken once, settles its job, and goes to the waits |
| `receiving` | the body of a request at a public address, read within bounds of size and time |
| `problems` | problem documents instead of errors |
| `server_sent_events` | the updates of a task as server-sent events, for browsers |
| `event_stream_access` | who may watch the events of a task, and how many unknown tasks are looked up |

# Webhooks in a back end

With webhooks every create has its result sent by the service, and polling becomes a safety net once the
first one has arrived; it is as usual again when webhooks stop coming. The routes of `musicapi_async.contrib`
receive them:

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

Workers that share an address (`uvicorn --workers 4`) each get a part of the webhooks, and poll as usual,
too, once they notice that; until then a result may be five minutes late. Webhooks are signed as they are
sent, so a compressed body is refused (415), as is one that is too large (413) or takes longer than
`body_timeout=10` seconds (408).

Any other framework: `await client.webhooks.handle(headers, raw, url=url)`, or `verify(raw, headers, secret)`
without a client; both raise `WebhookVerificationError` for all that must not be believed, and nothing else.
The address that the service calls carries the job key and a proof of it, so that a create whose answer was
lost is found again; of a batch also the place of the item, so that each is found by itself.
"""

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
