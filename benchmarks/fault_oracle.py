"""What an honest client may conclude from a reply: the rules of the service, written apart from the package.

A paid call has no idempotency key, so it may be sent again only if the reply proves that it was not carried
out. The proofs are a closed list: nothing left; a documented refusal (400, 401, 402, 403, 404, 405, 410,
411, 413, 414, 415, 422, as status or as `code` in a 2xx) or a refusal for the rate, without a task id and
without a step that succeeded; 301, 307 and 308; 504 of the lyrics endpoint. Everything else is unknown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

REFUSING = frozenset({400, 401, 402, 403, 404, 405, 410, 411, 413, 414, 415, 422})
NOT_CARRIED_OUT_REDIRECTS = frozenset({301, 307, 308})
RATE_WORDS = ("qps limit", "queue is full")
FAILURE_TYPES = frozenset({"failed", "timeout", "api_error", "bad_request", "forbidden"})


class Verdict(Enum):
    """What became of a paid call, as far as the client can know."""

    RESULT = "carried out, and here is the result"
    TASK = "an error, but the body names a task: it is paid for"
    UNKNOWN = "may have been carried out"
    REFUSED = "proven: refused"
    RATE = "proven: refused for the rate"
    NOT_SENT = "proven: nothing left"
    PREPARING = "being prepared; documented as free to repeat"


PROVEN = frozenset({Verdict.REFUSED, Verdict.RATE, Verdict.NOT_SENT})
MAY_FOLLOW = frozenset({Verdict.RATE, Verdict.NOT_SENT, Verdict.PREPARING})
"""Verdicts after which the same call may be sent again."""


@dataclass(frozen=True)
class Reply:
    """What a correct HTTP client knows after an attempt.

    `begun` is the status of the first line even if no response could be read. `status` and `body` are None
    if no complete, valid response came; `sent` is None if nobody can tell whether the request left; `good`
    marks a body that holds the result, perhaps with a damaged character in another place.
    """

    status: int | None = None
    body: bytes | None = None
    sent: bool | None = True
    good: bool = False
    begun: int | None = None


@dataclass(frozen=True)
class Rules:
    """What is special about an endpoint: whether it gives a task, is called untyped, is repeated after a 202,
    documents its 504 as free, names the task in a text `data`, may answer with an empty result, gives two
    tasks, of which one that an error names belongs to neither item for certain."""

    submits: bool = True
    untyped: bool = False
    repeats_202: bool = False
    free_504: bool = False
    id_is_data: bool = False
    may_be_empty: bool = False
    is_batch: bool = False


def decode(raw: bytes | None) -> Any:
    """The JSON value of a body with what cannot be read replaced: U+FFFD for characters, None for numbers.

    Raises ValueError for what is no JSON even so.
    """
    text = (raw or b"").decode("utf-8", "replace")
    try:
        value = json.loads(text, strict=False, parse_constant=lambda _: None, parse_int=_whole)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return _clean(value)


def _whole(digits: str) -> int | None:
    """Python itself refuses to read more digits than 4,300."""
    return int(digits) if len(digits) <= 4300 else None


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value


def fields_of(raw: bytes | None) -> dict[str, Any]:
    """The body if it is a JSON object, else an empty one."""
    try:
        value = decode(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def task_id_in(fields: Mapping[str, Any], *, id_is_data: bool = False) -> str | None:
    """The id of a task in a body; one that holds a replaced character is none."""
    data = fields.get("data")
    found = [fields.get("task_id"), data.get("task_id") if isinstance(data, dict) else None]
    if id_is_data and isinstance(data, str) and not any(character.isspace() for character in data):
        found.append(data)
    for one in found:
        if isinstance(one, int) and not isinstance(one, bool):
            return str(one)
        if isinstance(one, str) and one.strip() and "\ufffd" not in one:
            return one.strip()
    return None


def step_in(fields: Mapping[str, Any]) -> bool:
    """Whether a step of several succeeded or names a clip."""
    steps = fields.get("steps")
    entries = [step for step in steps.values() if isinstance(step, dict)] if isinstance(steps, dict) else []
    return any(step.get("success") is True or step.get("clip_id") for step in entries)


def code_of(fields: Mapping[str, Any]) -> int | None:
    """`code` as a number: an integer, or digits in text."""
    code = fields.get("code")
    if isinstance(code, int) and not isinstance(code, bool):
        return code
    return int(code) if isinstance(code, str) and code.isascii() and code.isdigit() else None


def text_of(fields: Mapping[str, Any]) -> str:
    """The texts of a body, lower case."""
    return " ".join(str(fields.get(key) or "") for key in ("error", "message", "detail")).lower()


def verdicts(reply: Reply, rules: Rules) -> frozenset[Verdict]:
    """All that may be concluded about a paid call; one verdict but where the rules leave a choice."""
    if reply.sent is not True:
        return frozenset({Verdict.NOT_SENT} if reply.sent is False else {Verdict.NOT_SENT, Verdict.UNKNOWN})
    if reply.status is None or reply.body is None:
        return frozenset({Verdict.UNKNOWN})
    fields = fields_of(reply.body)
    code, ok = code_of(fields), 200 <= reply.status < 300
    task = task_id_in(fields, id_is_data=rules.id_is_data)
    if ok and not (code is not None and code >= 400):
        return _of_success(reply, rules, fields, task)
    if task is not None:
        return frozenset({Verdict.TASK} if rules.submits else {Verdict.TASK, Verdict.UNKNOWN})
    if step_in(fields):
        return frozenset({Verdict.UNKNOWN})
    status = code if ok and code is not None else reply.status
    if status == 403 and any(word in text_of(fields) for word in RATE_WORDS):
        return frozenset({Verdict.RATE, Verdict.REFUSED} if ok else {Verdict.RATE})
    if status == 429:
        return frozenset({Verdict.RATE})
    if status in REFUSING or (not ok and status in NOT_CARRIED_OUT_REDIRECTS):
        return frozenset({Verdict.REFUSED})
    return frozenset({Verdict.REFUSED if rules.free_504 and reply.status == 504 else Verdict.UNKNOWN})


def _of_success(
    reply: Reply, rules: Rules, fields: Mapping[str, Any], task: str | None
) -> frozenset[Verdict]:
    """A 2xx without a refusing code."""
    if rules.repeats_202 and reply.status == 202:
        return frozenset({Verdict.PREPARING})
    if reply.good:
        # A 202 is no promise of a result for a call that is not repeated, even if it looks like one.
        looks_done = {Verdict.RESULT, Verdict.UNKNOWN, Verdict.TASK}
        return frozenset(looks_done if reply.status == 202 else {Verdict.RESULT})
    # An untyped call returns what it is given, and a MIDI reply may lack its file; to call an odd body
    # unknown is as honest.
    either = frozenset({Verdict.RESULT, Verdict.UNKNOWN, *({Verdict.TASK} if task else ())})
    try:
        value = decode(reply.body)
    except ValueError:
        return frozenset({Verdict.UNKNOWN})
    if rules.untyped or (rules.may_be_empty and isinstance(value, dict) and not value.get("error")):
        return either
    if task is None:
        return frozenset({Verdict.UNKNOWN})
    if rules.submits and not fields.get("failed_step") and reply.status != 202:
        return frozenset({Verdict.RESULT})
    return frozenset({Verdict.RESULT, Verdict.TASK, Verdict.UNKNOWN})


class Poll(Enum):
    """What a poll says of a task that was paid for."""

    GO_ON = "nothing final: poll again"
    DONE = "finished"
    FAILED = "the generation failed"
    STOP = "polling makes no sense"


def poll_verdicts(reply: Reply) -> frozenset[Poll]:
    """What follows when this reply came two times in a row for a task that was submitted a moment ago."""
    if reply.status is None or reply.body is None:
        return frozenset({Poll.GO_ON})
    if reply.good and 200 <= reply.status < 300 and reply.status != 202:
        return frozenset({Poll.DONE})
    fields = fields_of(reply.body)
    word, text, code = str(fields.get("type") or "").lower(), text_of(fields), code_of(fields)
    status = reply.status
    ended = word == "failed" or str(fields.get("status") or "").upper() == "FAILED"
    if status == 202 or (200 <= status < 300 and (word == "not_ready" or code == 202)):
        return frozenset({Poll.FAILED if ended else Poll.GO_ON})
    if 200 <= status < 300 and code is not None and code >= 400:
        status = code
    ok = 200 <= status < 300
    flagged = "already_refunded" in fields or "refund_processed" in fields
    if ended or (flagged and word in FAILURE_TYPES) or (ok and word in FAILURE_TYPES):
        return frozenset({Poll.FAILED})
    if not ok and word in ("timeout", "api_error"):
        return frozenset({Poll.FAILED})
    if status in (401, 410):
        return frozenset({Poll.STOP})
    if status == 404 or (status == 400 and "task not found" in text):
        return frozenset({Poll.GO_ON, Poll.STOP})  # by the age of the task
    if status == 429 or (status == 403 and any(words in text for words in RATE_WORDS)):
        return frozenset({Poll.GO_ON})
    if 400 <= status < 500:
        return frozenset({Poll.STOP})
    # The service documents no redirects and no statuses beyond 599 for polls.
    return frozenset({Poll.GO_ON, Poll.STOP} if 300 <= status < 400 or status >= 600 else {Poll.GO_ON})
