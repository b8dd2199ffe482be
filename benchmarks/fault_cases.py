"""The faults of the matrix: what a server, a gateway or the network between can do to a request."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import quote

from fault_oracle import Reply
from hostile_server import Answer, End, Request, Stage, Step

TASK_ID = "7f3a1e52-9c1d-4b11-a001-0123456789ab"
CLIP_ID = "cccccccc-0000-4000-8000-000000000001"
KEY = "mk-9f3c/aB+7Zq=40-tail0123456789"
SECRET = "whs-5d1e/zQ+secret=of-the-webhooks"
MARK = "mk-9f3c/aB+7"
"""The start of the key: enough of it to count as a leak."""

Address = Literal["server", "refused port", "unknown host", "TLS"]
Body = Callable[[Mapping[str, Any], Request], bytes]
"""Makes a body of the good reply of a call and of the request."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong. `answers` play in turn, the last one for ever; `slow` ones outlast the
    attempt's time-out; `address` is where the client is sent instead of the server."""

    name: str
    answers: tuple[Callable[[Mapping[str, Any]], Answer], ...] = ()
    slow: bool = False
    address: Address = "server"

    def script(self, good: Mapping[str, Any]) -> list[Answer]:
        """The answers to a call whose good reply is `good`."""
        return [make(good) for make in self.answers]


def written(
    status: int,
    body: bytes,
    headers: Sequence[tuple[str, str]] = (),
    *,
    line: str | None = None,
    length: str | None = "right",
) -> bytes:
    """An HTTP response; `length` another Content-Length or None, `line` another status line."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Odd"
    lines = [line if line is not None else f"HTTP/1.1 {status} {reason}", "Content-Type: application/json"]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length == 'right' else length}")
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def good_body(good: Mapping[str, Any], _request: Request) -> bytes:
    """The good reply itself."""
    return good["raw"] if "raw" in good else json.dumps(good).encode()


def fixed(value: object) -> Body:
    """Always the same body: bytes as they are, anything else as JSON."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda _good, _request: raw


def answered(
    status: int,
    body: Body = good_body,
    headers: Sequence[tuple[str, str]] = (),
    *,
    good: bool | None = None,
    readable: bool | None = True,
    wire: Callable[[bytes], Sequence[Step]] | None = None,
    stage: Stage = "request",
    sent: bool | None = True,
    **options: Any,
) -> Callable[[Mapping[str, Any]], Answer]:
    """An answer with this status and body. `wire` turns the body into what is written instead; `readable` is
    False if a correct client cannot read the answer then."""
    carries = body is good_body if good is None else good

    def of(good_reply: Mapping[str, Any]) -> Answer:
        def make(request: Request) -> tuple[Sequence[Step], Reply]:
            raw = body(good_reply, request)
            steps = [written(status, raw, headers, **options)] if wire is None else wire(raw)
            if KEY not in request.headers.get("authorization", ""):  # who was not told cannot repeat it
                steps = [_without_key(step) if isinstance(step, bytes) else step for step in steps]
            if not readable:
                return steps, Reply(sent=sent, begun=status)
            return steps, Reply(status, raw, good=carries, begun=status)

        return Answer(make, stage)

    return of


def _without_key(raw: bytes) -> bytes:
    return raw.replace(KEY.encode(), b"nothing").replace(quote(KEY).encode(), b"nothing")


def one(name: str, status: int = 200, body: Body = good_body, **options: Any) -> Fault:
    """A fault that is one answer."""
    slow = bool(options.pop("slow", False))
    return Fault(name, (answered(status, body, **options),), slow=slow)


REFUSAL: dict[str, Any] = {"type": "matrix_fault", "error": "the matrix says no"}
QPS: dict[str, Any] = {"type": "forbidden", "message": "API QPS limit exceeded"}
STATUSES = (
    *(201, 202, 203, 204, 205, 206, 226, 300, 301, 302, 303, 304, 305, 307, 308),
    *range(400, 419),
    *(421, 422, 423, 424, 425, 426, 428, 429, 431, 444, 451, 460, 499),
    *(500, 501, 502, 503, 504, 505, 507, 508, 511, 520, 522, 524, 525, 530, 599, 600, 999),
)


def statuses() -> Iterator[Fault]:
    """Every status with the plain body of an error, and some with none or a page."""
    for status in STATUSES:
        headers = (("Location", "/elsewhere"),) if 300 <= status < 400 else ()
        yield one(f"{status}", status, fixed(REFUSAL), headers=headers)
    for status in (200, 202, 400, 403, 404, 429, 500, 502):
        yield one(f"{status} with a page of HTML", status, fixed(b"<!DOCTYPE html><p>Bad gateway"))
        yield one(f"{status} without a body", status, fixed(b""))
    yield one("202 with the good body", 202, good_body)
    yield one("200 not_ready", 200, fixed({"type": "not_ready", "error": "wait"}))
    yield one("200 code 202", 200, fixed({"code": 202, "error": "wait"}))
    yield one("403 for the rate", 403, fixed(QPS))
    for code in (*(400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 415, 422, 429, 499, 500, 503, 999),):
        yield one(f"200 code {code}", 200, fixed({"code": code, **REFUSAL}))
    for code in ("400", "429", "500", 400.0, "4e2", True, None, -400, "error"):
        yield one(f"200 code {json.dumps(code)}", 200, fixed({"code": code, **REFUSAL}))
    for after in ("0", "3600", "soon", "-1", "1e400", "NaN", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"):
        yield one(f"429 Retry-After {after[:12]}", 429, fixed(REFUSAL), headers=(("Retry-After", after),))


def with_ids() -> Iterator[Fault]:
    """Error bodies that name a task or a step, and some that only seem to."""
    steps = {
        "a step that succeeded": {
            "upload": {"success": True, "clip_id": CLIP_ID},
            "cover": {"success": False},
        },
        "a step that names a clip": {"upload": {"clip_id": CLIP_ID}},
        "failed steps": {"upload": {"success": False, "error": "no"}},
    }
    named: dict[str, dict[str, Any]] = {
        "task_id": {"task_id": TASK_ID},
        "data.task_id": {"data": {"task_id": TASK_ID}},
        "a number as task_id": {"task_id": 41_000_123},
        "data that is a word": {"data": TASK_ID},
        **{name: {"failed_step": "upload", "steps": value} for name, value in steps.items()},
    }
    errors: tuple[tuple[int, dict[str, Any]], ...] = (
        *((status, REFUSAL) for status in (307, 400, 404, 408, 429, 500, 504)),
        (403, QPS),
        (200, {"code": 400, **REFUSAL}),
        (200, {"code": 429, **REFUSAL}),
    )
    for status, body in errors:
        for name, more in named.items():
            kind = " for the rate" if body is QPS else f" code {body['code']}" if "code" in body else ""
            yield one(f"{status}{kind} with {name}", status, fixed({**body, **more}))
    for empty in ("", "   ", None, [], {}, False):
        body = {**REFUSAL, "task_id": empty, "data": "no task here"}
        yield one(f"400 with task_id {json.dumps(empty)}", 400, fixed(body))
    yield one("200 with an error and a task_id", 200, fixed({"error": "odd", "task_id": TASK_ID}))


def bodies() -> Iterator[Fault]:
    """2xx bodies that are no result, and results with one damaged place."""
    nothing: dict[str, object] = {
        "an error text": {"error": "something went wrong"},
        "success false": {"success": False, "message": "something went wrong"},
        "an object as error": {"error": {"message": "inner", "code": "x"}},
        "only success": {"message": "success"},
        "an empty object": {},
        "a list": [],
        "null": None,
        "a number": 5,
        "text": b'"fine"',
        "half a JSON": b'{"task_id": "7f3a1e52',
        "JSON and more": b'{"message":"success"} {"x":1}',
        "deep nesting": b"[" * 100_000,
        "a deep object": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "bytes of chance": bytes(range(256)),
        "UTF-16": json.dumps({"message": "success"}).encode("utf-16"),
        "17 MB": b" " * (17 * 1024 * 1024),
        "a digit of a million": b'{"x":' + b"1" * 1_000_000 + b"}",
    }
    for name, value in nothing.items():
        yield one(f"200 with {name}", 200, fixed(value), readable=name != "17 MB")
    damage = {
        "a lone surrogate": b'"cut \\ud83d"',
        "NaN": b"NaN",
        "Infinity": b"-Infinity",
        "1e999": b"1e999",
        "a raw tab": b'"a\tb"',
        "a raw newline": b'"a\nb"',
        "a raw NUL": b'"a\x00b"',
        "one byte of Latin-1": b'"caf\xe9"',
        "half a character": b'"\xf0\x9f\x8e"',
    }
    for name, value in damage.items():

        def damaged(good: Mapping[str, Any], request: Request, value: bytes = value) -> bytes:
            return b'{"note": ' + value + b", " + good_body(good, request).lstrip()[1:]

        yield one(f"200 with {name}", 200, damaged, good=True)
        inside = json.dumps(REFUSAL).encode()[1:]
        yield one(f"400 with {name}", 400, fixed(b'{"note": ' + value + b", " + inside))
        task = f', "task_id": "{TASK_ID}"}}'.encode()
        yield one(f"500 with {name} and a task_id", 500, fixed(b'{"note": ' + value + task))
    yield one("200 with a damaged id", 200, fixed(b'{"message":"success","task_id":"7f3a\xe91e52"}'))
    yield one("200 with a cut id", 200, fixed(b'{"message":"success","task_id":"7f3a\\ud83d"}'))


def heads() -> Iterator[Fault]:
    """Status lines and headers that are broken, huge, or merely rare."""
    lines = (
        *("HTTP/1.1 abc OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 -200 OK", "HTTP/9.9 200 OK"),
        *("ICY 200 OK", "200 OK", "HTTP/1.1", "SSH-2.0-OpenSSH_9.9", "\x16\x03\x01\x00", "HTTP/1.1 2OO OK"),
        "HTTP/1.1 200 " + "x" * 70_000,
    )
    for line in lines:
        shown = line[:20].encode("unicode_escape").decode()
        yield one(f"status line {shown!r}", 200, good_body, readable=False, line=line)
    for line in ("HTTP/1.0 200 OK", "HTTP/1.1 200", "HTTP/1.1 200 " + "x" * 9_000):
        yield one(f"status line {line[:20]!r} of {len(line)}", 200, good_body, line=line)
    for size in (9_000, 60_000):
        yield one(f"200 with a header of {size}", headers=(("X-Long", "x" * size),))
        yield one(f"400 with a header of {size}", 400, fixed(REFUSAL), headers=(("X-Long", "x" * size),))
    yield one("200 with a header of 200,000", readable=False, headers=(("X-Long", "x" * 200_000),))
    yield one("400 with a header of 200,000", 400, readable=False, headers=(("X-Long", "x" * 200_000),))
    yield one("200 with 100 headers", headers=[(f"X-{n}", "x" * 100) for n in range(100)])
    yield one("200 as text/html in UTF-16", headers=(("Content-Type", "text/html; charset=utf-16"),))
    yield one("200 with a Latin-1 header", headers=(("X-Name", "caf\xe9"),))
    yield one("400 with a Latin-1 header", 400, fixed(REFUSAL), headers=(("X-Request-Id", "caf\xe9"),))
    yield one("200 with a cookie", headers=(("Set-Cookie", f"a={KEY}; Domain=example.com"),))
    yield one("200 with a header without colon", readable=False, line=f"HTTP/1.1 200 OK\r\nX Echo {KEY}")
    yield one("400 with a header without colon", 400, readable=False, line=f"HTTP/1.1 400 No\r\nX Echo {KEY}")
    yield one("200 with a NUL in a header", readable=False, headers=(("X-Nul", f"a\x00{KEY}"),))


def early(
    name: str, first: bytes, *then: Step, status: int = 200, readable: bool = True, slow: bool = False
) -> Fault:
    """1xx responses in front of the real one, or of none."""

    def wire(raw: bytes) -> Sequence[Step]:
        return [first, *then] if then else [first + written(200, raw)]

    return one(name, status, good_body, wire=wire, readable=readable, slow=slow)


def early_responses() -> Iterator[Fault]:
    """1xx."""
    carry_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    yield early("100 first", carry_on)
    yield early("103 first", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    yield early("100 twenty times first", carry_on * 20)
    yield early("100 and cut", carry_on, End.CLOSE, readable=False)
    yield early("100 and silence", carry_on, End.HANG, readable=False, slow=True)
    switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tls\r\nConnection: upgrade\r\n\r\n"
    yield early("101 and cut", switching, End.CLOSE, status=101, readable=False)


def cuts() -> Iterator[Fault]:
    """The connection ends, or falls silent, at every stage."""
    ends = {"closed": End.CLOSE, "reset": End.RESET}
    for word, end in ends.items():
        for stage, sent in (("accept", None), ("head", True), ("request", True)):

            def nothing(_raw: bytes, end: End = end) -> Sequence[Step]:
                return [end]

            yield one(f"{word} at stage {stage}", wire=nothing, readable=False, stage=stage, sent=sent)
        for place in (
            "in the status line",
            "in a header",
            "after the headers",
            "in the body",
            "at the last byte",
        ):

            def cut(raw: bytes, place: str = place, end: End = end) -> Sequence[Step]:
                whole = written(200, raw)
                body_at = len(whole) - len(raw)
                at = {
                    "in the status line": 9,
                    "in a header": 30,
                    "after the headers": body_at,
                    "in the body": body_at + len(raw) // 2,
                    "at the last byte": len(whole) - 1,
                }[place]
                return [whole[:at], 0.01, end]

            yield one(f"{word} {place}", wire=cut, readable=False)
    for status in (400, 404, 429, 500):
        half = written(status, json.dumps(REFUSAL).encode())[:-9]
        yield one(
            f"{status} cut in the body",
            status,
            wire=lambda _raw, half=half: [half, End.CLOSE],
            readable=False,
        )
    for place, at in (("before an answer", 0), ("in the headers", 30), ("in the body", -5)):

        def silent(raw: bytes, at: int = at) -> Sequence[Step]:
            return [written(200, raw)[:at], End.HANG] if at else [End.HANG]

        yield one(f"silence {place}", wire=silent, readable=False, slow=True)
    yield one("silence at stage head", wire=lambda _raw: [End.HANG], readable=False, slow=True, stage="head")

    def dripping(raw: bytes) -> Sequence[Step]:
        head = written(200, raw[:5], length="99999")
        return [head, *[step for _ in range(400) for step in (0.05, b" ")]]

    yield one("one byte at a time, for ever", wire=dripping, readable=False, slow=True)
    yield one(
        "slow but whole", wire=lambda raw: [step for b in _thirds(written(200, raw)) for step in (b, 0.02)]
    )


def _thirds(raw: bytes) -> list[bytes]:
    third = len(raw) // 3
    return [raw[:third], raw[third : 2 * third], raw[2 * third :]]


@cache
def bomb() -> bytes:
    """64 MB of spaces, packed."""
    return gzip.compress(b" " * (64 * 1024 * 1024), 9)


def encodings() -> Iterator[Fault]:
    """Lengths, chunks and compression, honest and not."""
    yield one(
        "no length, closed after the body", wire=lambda raw: [written(200, raw, length=None), End.CLOSE]
    )
    lies = {"too long": "99999", "negative": "-5", "no number": "abc", "huge": "9" * 20}
    for name, length in lies.items():
        yield one(
            f"Content-Length {name}",
            wire=lambda raw, length=length: [written(200, raw, length=length), End.CLOSE],
            readable=False,
        )
    yield one("Content-Length 7", wire=lambda raw: [written(200, raw, length="7"), End.CLOSE], readable=False)
    yield one("Content-Length twice", readable=False, headers=(("Content-Length", "3"),))
    chunked = (("Transfer-Encoding", "chunked"),)

    def chunks(raw: bytes, end: bytes = b"0\r\n\r\n", size: str | None = None) -> list[Step]:
        head = written(200, b"", chunked, length=None)
        return (
            [head + f"{len(raw):x}".encode() + b"\r\n" + raw + b"\r\n" + end]
            if size is None
            else [
                head + size.encode() + b"\r\n" + raw + b"\r\n" + end,
                End.CLOSE,
            ]
        )

    yield one("chunked", wire=chunks)
    yield one("chunked with trailers", wire=lambda raw: chunks(raw, b"0\r\nX-Sum: 1\r\n\r\n"))
    yield one("chunked without an end", wire=lambda raw: [*chunks(raw, b""), End.CLOSE], readable=False)
    yield one("chunk size that is none", wire=lambda raw: chunks(raw, size="zz"), readable=False)
    yield one("chunk size that is huge", wire=lambda raw: chunks(raw, size="f" * 20), readable=False)
    packers: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
    for name, pack in packers.items():
        said = (("Content-Encoding", name),)
        yield one(f"{name}", wire=lambda raw, pack=pack, said=said: [written(200, pack(raw), said)])
        yield one(f"{name} that is plain", headers=said, readable=False)
        yield one(
            f"{name} cut short",
            wire=lambda raw, pack=pack, said=said: [written(200, pack(raw)[: len(pack(raw)) // 2], said)],
            readable=False,
        )
    yield one(
        "gzip of 64 MB",
        wire=lambda _raw: [written(200, bomb(), (("Content-Encoding", "gzip"),))],
        readable=False,
    )
    yield one(
        "400 gzip that is plain", 400, fixed(REFUSAL), headers=(("Content-Encoding", "gzip"),), readable=False
    )


def redirects() -> Iterator[Fault]:
    """Redirects that must not be followed, to places that must not hear the key."""
    places = (
        "http://a..b/x",
        "//elsewhere.invalid/x",
        "",
        f"https://elsewhere.invalid/?key={quote(KEY)}",
        "\\\\x",
    )
    for place in places:
        for status in (302, 307):
            yield one(f"{status} to {place[:24]!r}", status, fixed(b""), headers=(("Location", place),))


def echoes() -> Iterator[Fault]:
    """The server repeats what it was told in confidence: the key, and the secret of the webhooks."""

    def confided(request: Request) -> str:
        key = request.headers.get("authorization", "")
        return f"{key} and {SECRET if SECRET.encode() in request.body else 'nothing'}"

    spellings: dict[str, Callable[[str], str]] = {
        "plain": lambda text: text,
        "with \\/": lambda text: text.replace("/", "\\/"),
        "with \\u002b": lambda text: text.replace("+", "\\u002b").replace("/", "\\u002F"),
        "percent-encoded": lambda text: quote(text, safe=""),
        "all escaped": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
        "at the cut of 500": lambda text: "x" * 478 + text,
    }
    for status in (200, 400, 500):
        for name, spell in spellings.items():

            def echoing(
                _good: Mapping[str, Any], request: Request, spell: Callable[[str], str] = spell
            ) -> bytes:
                return f'{{"error": "you said {spell(confided(request))}"}}'.encode()

            yield one(f"{status} echo, {name}", status, echoing)
    yield one("500 echo in a page", 500, lambda _good, request: f"<p>{confided(request)}".encode())
    yield one(
        "500 echo with a task_id",
        500,
        lambda _good, request: json.dumps({"error": confided(request), "task_id": TASK_ID}).encode(),
    )
    yield one(
        "200 echo beside the result",
        200,
        lambda good, request: (
            json.dumps({**good, "echo": confided(request)}).encode() if "raw" not in good else good["raw"]
        ),
        good=True,
    )
    yield one("500 echo in keys", 500, lambda _good, r: json.dumps({confided(r): {confided(r): 1}}).encode())
    yield one(
        "500 echo in the type",
        500,
        lambda _good, r: json.dumps({"type": confided(r), "code": confided(r)}).encode(),
    )
    yield one(
        "400 echo in a step",
        400,
        lambda _good, r: json.dumps(
            {"failed_step": "upload", "steps": {"upload": {"error": confided(r)}}}
        ).encode(),
    )
    for header in ("X-Request-Id", "X-Echo", "Retry-After", f"X-{KEY.replace('/', '.').replace('=', '')}"):
        yield one(f"500 echo in {header[:14]}", 500, fixed(REFUSAL), headers=((header, f"Bearer {KEY}"),))
    yield one("echo in the reason", 500, fixed(REFUSAL), line=f"HTTP/1.1 500 {KEY}")
    yield one("echo in a broken status line", readable=False, line=f"HTTP/1.1 {KEY} OK")
    yield one(
        "echo in a chunk size",
        wire=lambda _raw: [
            written(200, b"", (("Transfer-Encoding", "chunked"),), length=None) + KEY.encode() + b"\r\nx\r\n"
        ],
        readable=False,
    )
    yield one("echo in Content-Length", readable=False, length=KEY)
    yield one("echo in 17 MB", 500, lambda _good, r: (confided(r) + " ").encode() * 250_000, readable=False)


def sequences() -> Iterator[Fault]:
    """One thing after the other."""
    rate = answered(429, fixed(REFUSAL))
    yield Fault("429, then good", (rate, answered(200)))
    yield Fault("429 three times, then good", (rate, rate, rate, answered(200)))
    yield Fault("403 for the rate, then good", (answered(403, fixed(QPS)), answered(200)))
    yield Fault("429, then 500", (rate, answered(500, fixed(REFUSAL))))
    yield Fault("429, then 409", (rate, answered(409, fixed(REFUSAL))))
    yield Fault("429, then 400", (rate, answered(400, fixed(REFUSAL))))
    yield Fault("429, then cut", (rate, answered(200, wire=lambda _raw: [End.RESET], readable=False)))
    yield Fault("429 with a task_id, then good", (answered(429, fixed({"task_id": TASK_ID})), answered(200)))
    yield Fault("500, then good", (answered(500, fixed(REFUSAL)), answered(200)))
    yield Fault("500, then 504", (answered(500, fixed(REFUSAL)), answered(504, fixed(REFUSAL))))
    yield Fault(
        "cut, then good", (answered(200, wire=lambda _raw: [End.CLOSE], readable=False), answered(200))
    )
    yield Fault("202, then good", (answered(202, fixed({"type": "not_ready"})), answered(200)))


def addresses() -> Iterator[Fault]:
    """Nothing is there, or it speaks another language."""
    yield Fault("refused port", (answered(200),), address="refused port")
    yield Fault("unknown host", (answered(200),), address="unknown host")
    plain = written(400, b"this is no TLS")
    spoken = answered(400, wire=lambda _raw: [plain, End.CLOSE], readable=False, stage="accept", sent=False)
    yield Fault("TLS", (spoken,), address="TLS")


FAULTS: list[Fault] = [
    fault
    for group in (statuses, with_ids, bodies, heads, early_responses, cuts, encodings, redirects, echoes)
    for fault in group()
] + [*sequences(), *addresses()]
GOOD = answered(200)

assert len({fault.name for fault in FAULTS}) == len(FAULTS), "every fault has a name of its own"
