"""The signature of a webhook: HMAC-SHA256 over `"<timestamp>.<raw body>"` (contract, webhooks 3).

Only these bytes are signed. The id and the event name in the other headers are not, and neither is the
address that was called, so nothing that matters may be decided by them alone. What an address says of a job
therefore carries a proof of its own, which the one who ordered the webhook put there.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from typing import Final

PREFIX: Final = "sha256="
PROVEN: Final = b"job_key:"
"""What is signed for an address begins with this, and what is signed for a body with digits: neither passes
for the other."""
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


def sign(secret: str | bytes, timestamp: int | str, raw: bytes) -> str:
    """The value of `X-Webhook-Signature` for a body sent at `timestamp` (Unix seconds)."""
    return PREFIX + _mac(secret, _stamped(str(timestamp), raw)).hex()


def sign_body(secret: str | bytes, raw: bytes) -> str:
    """The value of the older header `X-Signature`, which covers the body alone."""
    return PREFIX + _mac(secret, raw).hex()


def read_signature(value: str, *, prefixed: bool = True) -> bytes | None:
    """The 32 bytes of a signature header, or None if it is malformed.

    Hex in either case. `prefixed` False lets `sha256=` be missing, as in the older header.
    """
    digits = value.removeprefix(PREFIX)
    if prefixed and len(digits) == len(value):
        return None
    return bytes.fromhex(digits) if _HEX.fullmatch(digits) else None


def read_timestamp(value: str) -> int | None:
    """The Unix seconds of a timestamp header, or None if it is malformed."""
    return int(value) if _SECONDS.fullmatch(value) else None


def matches(signature: bytes, secrets: Iterable[str | bytes], timestamp: str | None, raw: bytes) -> bool:
    """Whether any of `secrets` made `signature`; `timestamp` None means that only the body was signed.

    Every secret is tried and every comparison takes the same time, so that the time taken tells nothing
    about the secrets. An empty secret never matches: anybody could sign with it.
    """
    message = raw if timestamp is None else _stamped(timestamp, raw)
    found = False
    for secret in secrets:
        found |= bool(secret) and hmac.compare_digest(_mac(secret, message), signature)
    return found


def prove(secret: str | bytes, job_key: str) -> str:
    """The proof, 64 hex digits, that a holder of `secret` put `job_key` into an address."""
    return _mac(secret, PROVEN + job_key.encode("utf-8", "surrogatepass")).hex()


def proves(proof: str, secrets: Iterable[str | bytes], job_key: str) -> bool:
    """Return True if `proof` was made for `job_key` with any of `secrets`; all are tried, as in `matches`."""
    found = False
    for secret in secrets:
        made = prove(secret, job_key).encode()
        found |= bool(secret) and hmac.compare_digest(made, proof.encode("utf-8", "surrogatepass"))
    return found


def _stamped(timestamp: str, raw: bytes) -> bytes:
    return timestamp.encode() + b"." + raw


def _mac(secret: str | bytes, message: bytes) -> bytes:
    key = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    return hmac.digest(key, message, "sha256")
