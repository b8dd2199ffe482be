"""The control of a sandbox over HTTP, below `/_sandbox/`: for users of any language.

Every choice, duration and fault that Python can set can be set here, the journal read, the time moved
forward, and everything reset. `GET /_sandbox/openapi.json` describes it. All else needs the token that is
printed at the start (`Sandbox.control_token`): `Authorization: Bearer <token>`. Nothing here is in the
journal.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec
from aiohttp import http_exceptions, web

from ..api.json_values import JSON
from . import control_rows as rows
from .control_description import described_faults, document, settings_schema
from .declared_settings import Setting, WrongSetting, changed
from .fault_texts import add, described, described_fault
from .prices import MOST_CREDITS
from .reply_choices import PRESETS, Choices, Durations, preset

if TYPE_CHECKING:
    from .backend import Service

ROOT: Final = "/_sandbox"
MOST_ROWS: Final = 1000
"""Rows of a reply; a policy of this package."""

MOST_BYTES: Final = 4 * 1024 * 1024
"""Bytes of request bodies in a reply after which it ends; `next` continues."""

MOST_FAULTS: Final = 1000
"""Faults that wait to act, since each request is compared with all of them; a policy of this package."""

FARTHEST: Final = 366 * 86_400.0
"""Seconds by which the clock can be moved forward at a time."""

Kinds = Literal["create", "direct", "poll", "account", "media", "other", "webhook"]
"""The kinds of requests in the journal."""


@dataclass(slots=True)
class ControlCall:
    """One request to the control: what it is about, and its fields."""

    service: Service
    reset: Callable[[], None]
    query: Mapping[str, str]
    body: Mapping[str, object]


class Route(NamedTuple):
    """One route below `/_sandbox`: its function, the schema of its body, the type of its reply, its query."""

    summary: str
    call: Callable[[ControlCall], object]
    reply: object = None
    body: Callable[[], dict[str, object]] | None = None
    query: tuple[Setting, ...] = ()


def _settings(name: str, call: ControlCall) -> object:
    return msgspec.to_builtins(getattr(call.service, name))


def _change(name: str, call: ControlCall) -> object:
    setattr(call.service, name, changed(getattr(call.service, name), call.body))
    return _settings(name, call)


def _presets(call: ControlCall) -> object:
    return {name: found.help for name, found in PRESETS.items()}


def _use_preset(call: ControlCall) -> object:
    _check_keys(call, "like")
    like = call.body.get("like")
    if not isinstance(like, str):
        raise WrongSetting(f"like must be one of {', '.join(PRESETS)}")
    call.service.choices, call.service.durations = preset(like)
    return {"choices": call.service.choices, "durations": call.service.durations}


def _faults(call: ControlCall) -> object:
    faults = call.service.faults
    random = [{**described_fault(fault), "rate": rate} for fault, rate in faults.rates.items()]
    return {"scripts": [described(script) for script in faults.scripts], "rates": random}


def _add_fault(call: ControlCall) -> object:
    text = call.body.get("text")
    if "text" in call.body and "fault" not in call.body:
        if not isinstance(text, str) or len(call.body) > 1:
            raise WrongSetting("text must be the only key, such as 'POST /sonic/create 429*2'")
        given: str | Mapping[str, object] = text
    else:
        given = call.body
    if len(call.service.faults.scripts) + len(call.service.faults.rates) >= MOST_FAULTS:
        raise WrongSetting(f"{MOST_FAULTS} faults wait to act: DELETE {ROOT}/faults forgets them")
    add(call.service.faults, given)
    return _faults(call)


def _clear_faults(call: ControlCall) -> object:
    call.service.faults.clear()
    return _faults(call)


AFTER: Final = Setting("after", int, 0, "Only what has a greater number; `next` of the reply before.")
LIMIT: Final = Setting("limit", int, 100, f"Most rows, at most {MOST_ROWS}.")
NEWEST: Final = Setting("newest", int, 0, "Only so many of the newest requests; 0 for all.")
BODIES: Final = Setting("bodies", bool, True, "False: without the bodies of requests.")
KIND: Final = Setting("kind", Kinds, None, "Only requests of this kind; `webhook` is a delivery.")
TASK: Final = Setting("task_id", str, "", "Only what is about this task.")


def _journal(call: ControlCall) -> rows.JournalPage:
    journal = call.service.journal
    after, limit = _whole(call, AFTER, 1 << 62), _whole(call, LIMIT, MOST_ROWS)
    kind, task_id = call.query.get("kind"), call.query.get("task_id", "")
    if kind is not None:
        KIND.read(kind)
    newest = _whole(call, NEWEST, MOST_ROWS)
    bodies = "bodies" not in call.query or bool(BODIES.read_text(call.query["bodies"]))
    found: list[rows.RequestRow] = []
    size = 0
    for entry in journal.newest(newest) if newest else journal.after(after):
        if entry.number <= after:
            continue
        if len(found) >= limit or size > MOST_BYTES:
            break
        size += len(entry.raw) if bodies else 0
        after = entry.number
        if kind in (None, entry.kind) and task_id in ("", entry.task_id):
            found.append(rows.request_row(entry, body=bodies))
    return rows.JournalPage(found, min(after, journal.last), journal.dropped, journal.charges)


def _clear_journal(call: ControlCall) -> rows.JournalPage:
    call.service.journal.clear()
    return _journal(call)


def _tasks(call: ControlCall) -> list[rows.TaskRow]:
    newest = call.service.tasks.newest(_whole(call, LIMIT, MOST_ROWS))
    return [rows.task_row(call.service, task) for task in newest]


def _whole(call: ControlCall, setting: Setting, most: int) -> int:
    text = call.query.get(setting.name)
    value = setting.default if text is None else setting.read_text(text)
    if not isinstance(value, int) or not 0 <= value <= most:
        raise WrongSetting(f"{setting.name} must be a whole number of 0 to {most}, got {text!r}")
    return value


def _account(call: ControlCall) -> rows.AccountRow:
    return rows.account_row(call.service.account, call.service.now())


def _change_account(call: ControlCall) -> rows.AccountRow:
    account = call.service.account
    _check_keys(call, "credits", "extra_credits", "subscription")
    account.settle(call.service.now())
    credits = _number(call, "credits", account.credits, MOST_CREDITS)
    extra = _number(call, "extra_credits", account.extra_credits, MOST_CREDITS)
    subscription = call.body.get("subscription", account.subscription)
    if not isinstance(subscription, bool):
        raise WrongSetting("subscription must be true or false")
    account.credits, account.extra_credits, account.subscription = credits, extra, subscription
    return _account(call)


def _number(call: ControlCall, name: str, default: float | None, most: float) -> float:
    value = call.body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        got = "nothing" if value is None else repr(value)
        raise WrongSetting(f"{name} must be a number of 0 to {most:,.0f}, got {got}"[:200])
    return float(value)


def _check_keys(call: ControlCall, *known: str) -> None:
    unknown = call.body.keys() - set(known)
    if unknown:
        raise WrongSetting(f"{min(unknown)[:80]!r} is unknown here; the body may have {', '.join(known)}")


def _clock(call: ControlCall) -> rows.ClockRow:
    return rows.clock_row(call.service)


def _forward(call: ControlCall) -> rows.ClockRow:
    _check_keys(call, "seconds")
    seconds = _number(call, "seconds", None, FARTHEST)
    call.service.time.forward(seconds)
    return _clock(call)


def _reset(call: ControlCall) -> rows.ClockRow:
    call.reset()
    return _clock(call)


def _routes() -> dict[tuple[str, str], Route]:
    number: dict[str, object] = {"type": "number", "minimum": 0}
    account = _object(credits=number, extra_credits=number, subscription={"type": "boolean"})
    forward: dict[str, object] = {**_object(seconds={**number, "maximum": FARTHEST}), "required": ["seconds"]}
    like: dict[str, object] = {**_object(like={"enum": list(PRESETS)}), "required": ["like"]}
    return {
        ("GET", "/choices"): Route(
            "The replies where several forms are known.", partial(_settings, "choices"), Choices
        ),
        ("PATCH", "/choices"): Route(
            "Change some choices.", partial(_change, "choices"), Choices, partial(settings_schema, Choices)
        ),
        ("GET", "/durations"): Route("How long things take.", partial(_settings, "durations"), Durations),
        ("PATCH", "/durations"): Route(
            "Change some durations.",
            partial(_change, "durations"),
            Durations,
            partial(settings_schema, Durations),
        ),
        ("GET", "/presets"): Route("The presets, and what each is for.", _presets),
        ("POST", "/preset"): Route(
            "Use a preset: its choices and durations replace all others.", _use_preset, body=lambda: like
        ),
        ("GET", "/faults"): Route("The faults that are still to act.", _faults),
        ("POST", "/faults"): Route("Inject a fault.", _add_fault, body=described_faults),
        ("DELETE", "/faults"): Route("Forget all faults.", _clear_faults),
        ("GET", "/journal"): Route(
            "Every request that arrived, and every webhook that was sent or skipped, oldest first.",
            _journal,
            rows.JournalPage,
            query=(AFTER, LIMIT, NEWEST, BODIES, KIND, TASK),
        ),
        ("DELETE", "/journal"): Route("Forget the journal.", _clear_journal, rows.JournalPage),
        ("GET", "/tasks"): Route("The newest tasks.", _tasks, list[rows.TaskRow], query=(LIMIT,)),
        ("GET", "/account"): Route("The balance.", _account, rows.AccountRow),
        ("PATCH", "/account"): Route(
            "Change the balance.", _change_account, rows.AccountRow, lambda: account
        ),
        ("GET", "/clock"): Route("The time of the sandbox.", _clock, rows.ClockRow),
        ("POST", "/clock/forward"): Route(
            "Move the time forward, in API seconds.", _forward, rows.ClockRow, lambda: forward
        ),
        ("POST", "/reset"): Route(
            "Forget tasks, clips, personas, journal and faults; balance, choices and durations are those of "
            "the start. Ids are never repeated.",
            _reset,
            rows.ClockRow,
        ),
    }


def _object(**properties: dict[str, object]) -> dict[str, object]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


ROUTES: Final = _routes()
"""Every route of the control."""


@dataclass(slots=True)
class Control:
    """Answers the requests below `/_sandbox`."""

    service: Service
    token: str
    reset: Callable[[], None]
    changed: Callable[[], None]
    """Called after each request that may have changed something."""

    async def serve(self, request: web.BaseRequest) -> web.Response:
        """Return the response to a request."""
        path = request.path.removeprefix(ROOT)
        if path == "/openapi.json":
            return _json(document(ROUTES, self.service.origin + ROOT))
        if not self._is_allowed(request.headers.get("Authorization", "")):
            text = "Send the token that the sandbox printed when it started: Authorization: Bearer <token>."
            return _json({"error": text}, 401, {"WWW-Authenticate": "Bearer"})
        route = ROUTES.get((request.method, path))
        if route is None:
            return _unknown(path)
        try:
            query = {name: request.query[name] for name in request.query}
            unknown = query.keys() - {setting.name for setting in route.query}
            if unknown:
                raise WrongSetting(f"{min(unknown)[:80]!r} is no parameter of {request.method} {path}")
            body: Mapping[str, object] = {}
            if route.body is not None:
                body = await _body(request)
            reply = route.call(ControlCall(self.service, self.reset, query, body))
        except WrongSetting as error:
            return _json({"error": str(error)}, 400)
        if request.method != "GET":
            self.changed()
        return _json(reply)

    def _is_allowed(self, header: str) -> bool:
        scheme, _, given = header.partition(" ")
        same = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.token.encode())
        return same and scheme.lower() == "bearer"


async def _body(request: web.BaseRequest) -> Mapping[str, object]:
    try:
        body: JSON = msgspec.json.decode(await request.read())
    except web.HTTPRequestEntityTooLarge:
        raise WrongSetting("the body is too large") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError, http_exceptions.HttpProcessingError):
        raise WrongSetting("the body must be a JSON object") from None
    if not isinstance(body, dict):
        raise WrongSetting("the body must be a JSON object")
    return body


def _unknown(path: str) -> web.Response:
    allowed = [method for method, known in ROUTES if known == path]
    if allowed:
        return _json(
            {"error": f"{ROOT}{path} takes {', '.join(allowed)}"}, 405, {"Allow": ", ".join(allowed)}
        )
    known = ", ".join(dict.fromkeys(ROOT + route for _, route in ROUTES))
    return _json({"error": f"There is no such path; there are {known}."}, 404)


def _json(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/json",
        charset="utf-8",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )
