"""What an error lets suspect of the base URL."""

from __future__ import annotations

from typing import Any

import pytest

from musicapi_async import AuthenticationError
from musicapi_async._wire.base_url_hints import suggestion
from musicapi_async._wire.response import error_of, read_response
from musicapi_async.sandbox import Fault, Sandbox

GOOD = "https://api.musicapi.ai/api/v1"
PAGE = b"<!DOCTYPE html><title>404</title>"

ROWS: list[tuple[str, int, bytes, dict[str, str], str]] = [
    (GOOD, 401, b'{"error": "Unauthorized"}', {}, "a key of api.musicapi.ai, where base_url leads"),
    (GOOD, 404, PAGE, {}, "which does not answer like the API"),
    (GOOD, 404, b'{"error": "Not Found"}', {}, "which does not answer like the API"),
    (GOOD, 405, PAGE, {}, "which does not answer like the API"),
    (GOOD, 404, b'{"error": "task not found"}', {}, ""),
    (GOOD, 404, b'{"error": "clip not found"}', {}, ""),
    (GOOD, 400, b'{"error": "mv is required"}', {}, ""),
    ("https://proxy.example/music", 404, b'{"error": "clip not found"}', {}, ""),
    (GOOD, 502, PAGE, {}, ""),
    (GOOD, 308, b"", {"location": "https://www.musicapi.ai/"}, "redirects to https://www.musicapi.ai/"),
    (
        "https://api.musicapi.ai/v1",
        404,
        b'{"error": "x"}',
        {},
        "at this host it is https://api.musicapi.ai/api/v1",
    ),
    ("https://api.aimusicapi.ai", 404, PAGE, {}, "at this host it is https://api.aimusicapi.ai/api/v1"),
    ("https://api.sunoapi.com/api/v1", 404, PAGE, {}, 'MusicAPI(sonic_word="suno")'),
    (
        "https://proxy.example/music",
        404,
        PAGE,
        {},
        "Calls go to https://proxy.example/music; the API's address is like",
    ),
]


async def test_a_refused_key_may_be_bound_to_other_addresses() -> None:
    """What the client raises says so, too, whatever else it advises."""
    async with Sandbox(speed=300) as sandbox, sandbox.client() as client:
        sandbox.faults.on("GET", "*", Fault.status(401, body='{"error":"Invalid API key"}'), times=2)
        with pytest.raises(AuthenticationError, match="bound to IP addresses"):
            await client.credits()
        with pytest.raises(AuthenticationError, match="bound to IP addresses"):
            await client.task("sonic", "11111111-1111-4111-8111-111111111111").wait()


@pytest.mark.parametrize(("base_url", "status", "raw", "headers", "advice"), ROWS)
def test_the_address_is_named_where_it_may_be_the_cause(
    base_url: str, status: int, raw: bytes, headers: dict[str, Any], advice: str
) -> None:
    """Pages, unknown paths, redirects and foreign keys speak of the address; refusals of a thing do not."""
    error = error_of(read_response(status, headers, raw), call="POST /sonic/create")
    told = suggestion(error, base_url)
    assert advice in told
    assert bool(told) == bool(advice)
