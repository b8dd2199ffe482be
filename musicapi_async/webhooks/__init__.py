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
