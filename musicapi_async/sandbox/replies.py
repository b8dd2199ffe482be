"""Replies of the endpoints, and refusals: the documented error bodies in their documented forms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .reply_choices import Choices

NO_CREDITS: Final = (
    "The remaining credits are not enough. You can buy more one-time credit packs or subscribe."
)
NO_SUBSCRIPTION: Final = (
    "You do not have an active subscription. Please check whether your renewal was successful."
)
NOT_ACCESSIBLE: Final = "Audio URL is not accessible. Please provide a public direct audio file URL."
TIMED_OUT: Final = "Task failed due to timeout. Credits were previously refunded."
NOT_READY: Final = "Task is still processing. Please wait a few seconds and try again."


@dataclass(slots=True)
class JsonReply:
    """The reply of an endpoint."""

    body: object
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    pause: float = 0.0
    """API seconds before the response."""


class Refusal(Exception):
    """An HTTP response that ends a request early: `status`, a JSON `body`, extra `headers`."""

    def __init__(self, status: int, body: dict[str, object], headers: dict[str, str] | None = None) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.headers: dict[str, str] = headers or {}


def invalid(text: str) -> Refusal:
    """Return 400: the request is wrong; not charged."""
    return Refusal(400, {"type": "validation_error", "error": text})


def unauthorized(text: str) -> Refusal:
    """Return 401: the key is missing, malformed or wrong."""
    return Refusal(401, {"type": "unauthorized", "error": text})


def forbidden(text: str) -> Refusal:
    """Return 403: subscription, moderation or credits, distinguished by the text."""
    return Refusal(403, {"type": "forbidden", "error": text})


def not_found(text: str) -> Refusal:
    """Return 404: no such clip, task or source."""
    return Refusal(404, {"type": "not_found", "error": text})


def retired(text: str = "This endpoint has been retired.") -> Refusal:
    """Return 410: the endpoint or the task type is gone."""
    return Refusal(410, {"type": "endpoint_retired", "error": text})


def not_ready(text: str = NOT_READY) -> Refusal:
    """Return 202: the result is not ready."""
    return Refusal(202, {"type": "not_ready", "error": text})


def in_form(refusal: Refusal, form: str) -> dict[str, object]:
    """Return the body of a 400 in one of the documented forms; every other refusal has only one."""
    text = refusal.body.get("error")
    if refusal.body.get("type") != "validation_error" or form == "type" or len(refusal.body) != 2:
        return refusal.body
    if form == "code":
        return {"code": 400, "message": text}
    if form == "code-text":
        return {"code": "bad_request", "message": text}
    return {form: text}


def refused(refusal: Refusal, path: str, choices: Choices) -> JsonReply:
    """Return a refusal as the reply of a path, its body in the form of the choice; Nuro has its own."""
    body = nuro_form(refusal) if path.startswith("/nuro/") else in_form(refusal, choices.error)
    return JsonReply(body, refusal.status, refusal.headers)


def nuro_form(refusal: Refusal) -> dict[str, object]:
    """Return a refusal in Nuro's own form: `message` instead of `error`, and `refund_processed`."""
    words = {400: "bad_request", 403: "forbidden", 404: "not_found"}
    kind, text = words.get(refusal.status), refusal.body.get("error")
    if kind is None or text is None:
        return refusal.body
    return {"type": kind, "message": text, "refund_processed": False}
