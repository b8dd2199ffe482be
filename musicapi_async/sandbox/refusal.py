"""Answers that are not results: the documented error bodies, in one place."""

from __future__ import annotations

from typing import Final

NO_CREDITS: Final = (
    "The remaining credits are not enough. You can buy more one-time credit packs or subscribe."
)
NO_SUBSCRIPTION: Final = (
    "You do not have an active subscription. Please check whether your renewal was successful."
)
NOT_ACCESSIBLE: Final = "Audio URL is not accessible. Please provide a public direct audio file URL."
TIMED_OUT: Final = "Task failed due to timeout. Credits were previously refunded."
NOT_READY: Final = "Task is still processing. Please wait a few seconds and try again."


class Refusal(Exception):
    """An HTTP answer that ends a request early: `status`, a JSON `body`, extra `headers`."""

    def __init__(self, status: int, body: dict[str, object], headers: dict[str, str] | None = None) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.headers: dict[str, str] = headers or {}


def invalid(text: str) -> Refusal:
    """400: the request is wrong; not charged."""
    return Refusal(400, {"type": "validation_error", "error": text})


def unauthorized(text: str) -> Refusal:
    """401: the key is missing, malformed or wrong."""
    return Refusal(401, {"type": "unauthorized", "error": text})


def forbidden(text: str) -> Refusal:
    """403: subscription, moderation or credits, distinguished by the text."""
    return Refusal(403, {"type": "forbidden", "error": text})


def not_found(text: str) -> Refusal:
    """404: no such clip, task or source."""
    return Refusal(404, {"type": "not_found", "error": text})


def retired(text: str = "This endpoint has been retired.") -> Refusal:
    """410: the endpoint or the task type is gone."""
    return Refusal(410, {"type": "endpoint_retired", "error": text})


def not_ready(text: str = NOT_READY) -> Refusal:
    """202: ask again later."""
    return Refusal(202, {"type": "not_ready", "error": text})


def in_form(refusal: Refusal, form: str) -> dict[str, object]:
    """The body of a 400 in one of the documented forms; every other refusal has only one."""
    text = refusal.body.get("error")
    if refusal.body.get("type") != "validation_error" or form == "type" or len(refusal.body) != 2:
        return refusal.body
    if form == "code":
        return {"code": 400, "message": text}
    if form == "code-text":
        return {"code": "bad_request", "message": text}
    return {form: text}
