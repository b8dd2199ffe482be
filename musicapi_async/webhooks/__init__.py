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
lost is found again.
"""

from .._wire.signature import sign, sign_body
from ..errors import WebhookVerificationError
from .events import BODY_LIMIT, TOLERANCE, Event, parse, verify
from .inbox import Inbox, Webhooks
from .problems import PROBLEM_TYPE, Problem, loggable, problem_of, problem_schema
from .streams import STREAM_HEADERS, STREAM_TYPE, event, has_ended, stream, update_fields

__all__ = [
    "BODY_LIMIT",
    "PROBLEM_TYPE",
    "STREAM_HEADERS",
    "STREAM_TYPE",
    "TOLERANCE",
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
