"""The API host: each request below `/api/v1` goes to its endpoint, and its reply becomes a response."""

from __future__ import annotations

import math
import zlib
from email.utils import formatdate
from typing import Final

import msgspec
from aiohttp import http_exceptions, web

from .backend import Call, Service
from .batches import batch_reply, count_items
from .journal import Entry
from .poll_bodies import poll_reply
from .prices import CreateLimit
from .replies import JsonReply, Refusal, invalid, refused
from .routes import BATCH, POLLS, POSTS, methods_of
from .validation import Form, read_body

_UNREADABLE: Final = (http_exceptions.HttpProcessingError, ValueError, zlib.error, EOFError)
_HTML: Final = "<!doctype html><html><body><h1>{} {}</h1></body></html>"


class ApiHost:
    """Serves the API; `limit` is the create limit, None for none."""

    def __init__(self, service: Service, limit: CreateLimit | None) -> None:
        self._service = service
        self._limit = limit

    def reset(self) -> None:
        """Forget the creates that were counted."""
        if self._limit is not None:
            self._limit.reset()

    async def serve(self, request: web.BaseRequest, path: str, entry: Entry) -> web.Response:
        """Return the response for a path below `/api/v1`."""
        known = methods_of(path)
        if request.method not in known:
            return _page(405, known) if known else _page(404)
        try:
            self._service.account.check_key(request.headers.get("Authorization"))
            reply = await self._reply(request, path, entry)
        except Refusal as refusal:
            reply = refused(refusal, path, self._service.choices)
        if reply.pause > 0:
            await self._service.sleep(reply.pause)
        return json_response(reply, entry)

    async def _reply(self, request: web.BaseRequest, path: str, entry: Entry) -> JsonReply:
        now = entry.at
        if request.method == "GET":
            if path == BATCH:
                return batch_reply(self._service, request.query.get("batch_id", ""), now)
            return self._get(path, entry, now)
        endpoint = POSTS[path]
        if endpoint.kind == "create":
            self._check_rate(path, now)
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:  # more than 1 MiB, the limit of aiohttp's requests
            return JsonReply({"error": "The request body is too large."}, 413)
        except _UNREADABLE:
            raise invalid("The request body should be valid JSON.") from None
        self._service.journal.store_body(entry, raw)
        body = read_body(raw)
        if path == BATCH and self._limit is not None and self._service.choices.batch_rate == "items":
            self._limit.count(now, count_items(body) - 1)
        call = Call(self._service, Form(body), entry, now)
        reply = endpoint.reply(call)
        return reply if isinstance(reply, JsonReply) else await reply

    def _get(self, path: str, entry: Entry, now: float) -> JsonReply:
        if path == "/get-credits":
            return JsonReply(self._service.account.body(now))
        prefix, _, task_id = path.rpartition("/")
        if path in POLLS or not task_id:
            raise invalid("missing task id.")
        entry.task_id = task_id
        return poll_reply(self._service, POLLS[prefix], task_id, now)

    def _check_rate(self, path: str, now: float) -> None:
        """Refuse a create above the create limit."""
        wait = 0.0 if self._limit is None else self._limit.wait(now)
        if wait <= 0:
            return
        if path.startswith("/nuro/"):
            body = {"type": "forbidden", "message": "API QPS limit exceeded", "refund_processed": False}
            raise Refusal(403, dict[str, object](body))
        headers: dict[str, str] = {}
        choice = self._service.choices.retry_after
        if choice == "seconds":
            headers["Retry-After"] = f"{math.ceil(wait)}"
        elif choice == "date":
            date = self._service.time.date() + wait
            headers["Retry-After"] = formatdate(math.ceil(date), usegmt=True)
        raise Refusal(429, {"type": "rate_limited", "error": "Too many requests."}, headers)


def _page(status: int, allowed: list[str] | None = None) -> web.Response:
    """Return the HTML page of a gateway for a wrong path or method."""
    text = _HTML.format(status, "Method Not Allowed" if status == 405 else "Not Found")
    headers = {"Allow": ", ".join(allowed)} if allowed else None
    return web.Response(status=status, text=text, content_type="text/html", headers=headers)


def json_response(reply: JsonReply, entry: Entry) -> web.Response:
    """Return a reply as a response, with the id of its request."""
    return web.Response(
        status=reply.status,
        body=msgspec.json.encode(reply.body),
        content_type="application/json",
        charset="utf-8",
        headers={"X-Request-Id": entry.request_id, **reply.headers},
    )
