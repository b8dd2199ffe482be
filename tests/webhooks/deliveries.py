"""Signed deliveries, made as the service makes them."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

SECRET = "example-webhook-secret"
NOW = 1760000000
EVENT_ID = "99999999-0000-4000-8000-000000000001"
EXAMPLES = Path(__file__).parent.parent / "contract" / "examples"


def example(name: str) -> dict[str, Any]:
    """One of the contract's example bodies."""
    return json.loads((EXAMPLES / f"{name}.json").read_text())


def deliver(
    body: dict[str, Any] | bytes, *, secret: str = SECRET, at: float = NOW, event_id: str = EVENT_ID
) -> tuple[bytes, dict[str, str]]:
    """Raw body and headers, signed without the help of the code under test."""
    raw = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    stamp = str(int(at))
    digest = hmac.new(secret.encode(), stamp.encode() + b"." + raw, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-Webhook-Id": event_id,
        "Idempotency-Key": event_id,
        "X-Webhook-Event": "song.failed",
        "X-Webhook-Timestamp": stamp,
        "X-Webhook-Signature": f"sha256={digest}",
    }
    return raw, headers
