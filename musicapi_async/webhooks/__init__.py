"""Webhooks: verify and read what the service sends when a task has news, and finish the waits with it.

```python
client = MusicAPI(webhooks=Webhooks(url="https://example.com/hooks/musicapi", secret=secret))
...
event = await client.webhooks.handle(request.headers, raw)  # in the view that serves that address
```

`verify` alone needs no client.
"""

from ..errors import WebhookVerificationError
from ..wire.signature import sign, sign_body
from .events import BODY_LIMIT, TOLERANCE, Event, parse, verify

__all__ = [
    "BODY_LIMIT",
    "TOLERANCE",
    "Event",
    "WebhookVerificationError",
    "parse",
    "sign",
    "sign_body",
    "verify",
]
