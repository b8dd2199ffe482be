"""How an answer's bytes come and what becomes of the connection, against a server that scripts every byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from musicapi_async._transport.attempts import FREE_CALL
from musicapi_async._transport.session import Session
from musicapi_async._wire.prepare import PreparedRequest
from musicapi_async.clock import Clock
from musicapi_async.errors import ConnectionLostError, InvalidResponseError, RequestTimeoutError

KEY = 'an "api-key'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Script:
    """A server that answers each request with the next pieces, one write each; None: it closes there."""

    def __init__(self, answers: Sequence[Sequence[bytes | None]]) -> None:
        self.answers = list(answers)
        self.connections = 0
        self.talks: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.talks.add(asyncio.ensure_future(self.talk(reader, writer)))

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.answers and await reader.readuntil(b"\r\n\r\n"):
                for piece in self.answers.pop(0):
                    if piece is None:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.01)  # so that each piece is read by itself
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def session(script: Script, body_limit: int = 1000) -> AsyncGenerator[Session, None]:
    server = await asyncio.start_server(script.connected, "127.0.0.1", 0)
    opened = Session(
        api_key=KEY,
        base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        clock=Clock(),
        body_limit=body_limit,
    )
    try:
        yield opened
    finally:
        await opened.aclose()
        server.close()
        await asyncio.gather(*script.talks)


def asked(attempt_timeout: float = 30.0) -> PreparedRequest:
    return PreparedRequest(
        method="GET", path="/a", call="GET /a", kind="get", lane="call", attempt_timeout=attempt_timeout
    )


def whole(body: bytes) -> bytes:
    return HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    "pieces",
    [
        [whole(b'{"a": 1}')],
        [HEAD, b"Content-Length: 8\r\n\r\n", b'{"a"', b": 1}"],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b'4\r\n{"a"\r\n', b"4\r\n: 1}\r\n", b"0\r\n\r\n"],
    ],
)
async def test_a_body_in_any_pieces_is_whole_and_its_connection_is_used_again(pieces: list[bytes]) -> None:
    """However the bytes come, the answer is the same, and the next call shakes no hands."""
    script = Script([pieces, pieces])
    async with session(script) as opened:
        for _ in range(2):
            answer = await opened.attempt(asked(), FREE_CALL)
            assert answer.body == {"a": 1}
    assert script.connections == 1


async def test_an_answer_over_the_limit_is_given_up_with_its_connection() -> None:
    """What is too large is refused as soon as that shows; what was not read is not taken for an answer."""
    large = whole(b"[" + b" " * 5000 + b"]")
    script = Script([[large], [large[:2000], large[2000:]], [whole(b"[]")]])
    async with session(script) as opened:
        for _ in range(2):
            with pytest.raises(InvalidResponseError, match="larger than 1000 bytes"):
                await opened.attempt(asked(), FREE_CALL)
        assert (await opened.attempt(asked(), FREE_CALL)).body == []
    assert script.connections in (2, 3)  # the first one may come in pieces by itself


async def test_an_answer_at_the_limit_is_read() -> None:
    """The limit itself is allowed."""
    async with session(Script([[whole(b"[" + b" " * 998 + b"]")]])) as opened:
        assert (await opened.attempt(asked(), FREE_CALL)).body == []


async def test_half_an_answer_is_an_error_and_its_connection_is_not_used_again() -> None:
    """A body that is cut, or that stops coming, is never taken for an answer."""
    half = whole(b'{"a": 1}')[:-3]
    script = Script([[half, None], [half], [whole(b"{}")]])
    async with session(script) as opened:
        with pytest.raises(ConnectionLostError):
            await opened.attempt(asked(), FREE_CALL)
        with pytest.raises(RequestTimeoutError):
            await opened.attempt(asked(attempt_timeout=0.1), FREE_CALL)
        assert (await opened.attempt(asked(), FREE_CALL)).body == {}
    assert script.connections == 3


async def test_a_call_cancelled_in_the_middle_of_the_body_drops_its_connection() -> None:
    """What was not read of an answer is never read as the next one."""
    script = Script([[whole(b'{"a": 1}')[:-3]], [whole(b"{}")]])
    async with session(script) as opened:
        call = asyncio.ensure_future(opened.attempt(asked(), FREE_CALL))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await opened.attempt(asked(), FREE_CALL)).body == {}
    assert script.connections == 2


async def test_an_answer_is_data_and_only_what_is_shown_of_it_hides_the_key() -> None:
    """The body stays as it came; its copy for errors, and the text of one that is not JSON, hide the key."""
    escaped = b'{"said": "an \\"api-key"}'
    text = b'no an "api-key'
    script = Script([[whole(escaped)], [whole(text)]])
    async with session(script) as opened:
        answer = await opened.attempt(asked(), FREE_CALL)
        assert (answer.body, answer.redacted) == ({"said": KEY}, {"said": "[hidden]"})
        assert (await opened.attempt(asked(), FREE_CALL)).body == "no [hidden]"
