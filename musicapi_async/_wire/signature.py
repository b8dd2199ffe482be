"""The signature of a webhook, made and checked: HMAC-SHA256 over `"<timestamp>.<raw body>"`.

Only these bytes are signed. The id and the event name in other headers, and the URL that was called, are not
signed, so no decision about money may depend on them alone. So a job key in a URL has its own proof, which
the client that ordered the webhook made.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from ..errors import WebhookVerificationError

PREFIX: Final = "sha256="
PROOF_PREFIX: Final = b"job_key:"
"""What is signed for an address begins with this, and what is signed for a body with digits: neither passes
for the other."""
ITEM_PREFIX: Final = b"job_item:"
"""The same for an address that is for one item of a batch."""
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_UNIX_SECONDS: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


class Signed(NamedTuple):
    """A checked signature: its 64 hex digits, and the Unix seconds of signing (0 where none are signed)."""

    digits: str
    timestamp: int


def sign(secret: str | bytes, timestamp: int | str, raw: bytes) -> str:
    """Return the value of `X-Webhook-Signature` for a body.

    Args:
        secret: the webhook secret.
        timestamp: Unix seconds of signing, as `X-Webhook-Timestamp` says them.
        raw: the body.
    """
    return PREFIX + _mac(secret, f"{timestamp}.".encode() + raw).hex()


def sign_body(secret: str | bytes, raw: bytes) -> str:
    """Return the value of the older header `X-Signature`, which covers the body alone."""
    return PREFIX + _mac(secret, raw).hex()


def check(
    header: str,
    timestamp: str | None,
    raw: bytes,
    secrets: Iterable[str | bytes],
    *,
    now: float,
    tolerance: float,
) -> Signed:
    """Check the signature of a body, and that it was made within `tolerance` of now.

    Args:
        header: the value of `X-Webhook-Signature`, or of the older `X-Signature`.
        timestamp: the value of `X-Webhook-Timestamp`; None for the older header, which covers the body alone,
            and may come without its prefix.
        raw: the body as it came.
        secrets: those that may have signed it.
        now: Unix seconds.
        tolerance: seconds by which the time of signing may differ from `now`.

    Returns:
        The signature and its time.

    Raises:
        WebhookVerificationError: it is malformed, of another secret or body, or too old.
    """
    if timestamp is not None and not _UNIX_SECONDS.fullmatch(timestamp):
        raise WebhookVerificationError("X-Webhook-Timestamp: Unix seconds expected, malformed")
    digits = header.removeprefix(PREFIX)
    if not _HEX.fullmatch(digits) or (timestamp is not None and digits == header):
        name = "X-Signature" if timestamp is None else "X-Webhook-Signature"
        raise WebhookVerificationError(f"{name}: sha256=<64 hex digits> expected, malformed")
    message = raw if timestamp is None else f"{timestamp}.".encode() + raw
    if not is_made_by(secrets, message, bytes.fromhex(digits)):
        raise WebhookVerificationError("the signature does not match: another secret, or a changed body")
    if timestamp is None:
        return Signed(digits.lower(), 0)
    away = now - int(timestamp)
    if not abs(away) <= tolerance:  # so that NaN is refused, too
        side = "before" if away > 0 else "after"
        raise WebhookVerificationError(
            f"signed {abs(away):.0f} s {side} now, more than {tolerance:g} s: a replay, or a clock"
        )
    return Signed(digits.lower(), int(timestamp))


def prove(secret: str | bytes, job_key: str, item: int | None = None) -> str:
    """Return the proof, 64 hex digits, that someone with `secret` put `job_key` into an address.

    Of a batch, `item` is the place of the item that the address is for.
    """
    return _mac(secret, _proof_message(job_key, item)).hex()


def proves(proof: str, secrets: Iterable[str | bytes], job_key: str, item: int | None = None) -> bool:
    """Return True if a proof is genuine.

    Args:
        proof: 64 lower-case hex digits, or anything else that came in an address.
        secrets: those that may have made it.
        job_key: what it was made for.
        item: the place of the item that it was made for, if any.
    """
    if not _HEX.fullmatch(proof) or proof != proof.lower():
        return False
    return is_made_by(secrets, _proof_message(job_key, item), bytes.fromhex(proof))


def is_made_by(secrets: Iterable[str | bytes], message: bytes, mac: bytes) -> bool:
    """Return True if any of `secrets` gives `mac` for `message`.

    Every secret is tried and every comparison takes the same time, so that the time taken tells nothing
    about the secrets. An empty secret never matches: any sender could sign with it.

    Args:
        secrets: those to try.
        message: what was signed.
        mac: the 32 bytes of the signature.
    """
    found = False
    for secret in secrets:
        found |= bool(secret) and hmac.compare_digest(_mac(secret, message), mac)
    return found


def _proof_message(job_key: str, item: int | None) -> bytes:
    prefix = PROOF_PREFIX if item is None else ITEM_PREFIX + f"{item}:".encode()
    return prefix + job_key.encode("utf-8", "surrogatepass")


def _mac(secret: str | bytes, message: bytes) -> bytes:
    key = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    return hmac.digest(key, message, "sha256")
