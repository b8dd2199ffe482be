"""Webhooks: verify and read what the service sends when a task has news, and finish the waits with it.

```python
client = MusicAPI(webhooks=Webhooks(url="https://example.com/hooks/musicapi", secret=secret))
...
event = await client.webhooks.handle(request.headers, raw, url=str(request.url))  # in that view
```

`verify` alone needs no client.
"""

from ..errors import WebhookVerificationError
from ..wire.signature import sign, sign_body
from .events import BODY_LIMIT, TOLERANCE, Event, parse, verify
from .inbox import Inbox, Webhooks

__all__ = [
    "BODY_LIMIT",
    "TOLERANCE",
    "Event",
    "Inbox",
    "WebhookVerificationError",
    "Webhooks",
    "parse",
    "sign",
    "sign_body",
    "verify",
]
