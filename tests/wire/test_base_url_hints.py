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
    (GOOD, 404, PAGE, {}, "a proxy may answer in its place"),
    (GOOD, 404, b'{"error": "Not Found"}', {}, "a proxy may answer in its place"),
    (GOOD, 405, PAGE, {}, "a proxy may answer in its place"),
    ("https://api.musicapi.ai:443/api/v1", 404, PAGE, {}, "a proxy may answer in its place"),
    (
        "https://api.musicapi.ai:8443/api/v1",
        404,
        PAGE,
        {},
        "at this host it is https://api.musicapi.ai/api/v1.",
    ),
    (
        "https://api.musicapi.ai/v1/api/v1",
        404,
        PAGE,
        {},
        "at this host it is https://api.musicapi.ai/api/v1.",
    ),
    ("https://proxy.example/api/v1", 404, PAGE, {}, "Is base_url right? Calls go to https://proxy.example"),
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


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        ("GET /typo", "Check the path."),
        ("GET /get-credit", "Check the path (did you mean '/get-credits'?)."),
        ("POST /get-credits?x=1", "The API has GET /get-credits."),
        ("GET /sonic/task/a/b", "Check the path (did you mean '/sonic/task/{task_id}'?)."),
        ("DELETE /suno/persona", "The API has POST /sonic/persona."),
    ],
)
@pytest.mark.parametrize("status", [404, 405])
def test_path_that_the_api_does_not_have_is_suspected_first(call: str, advice: str, status: int) -> None:
    """At an address of the service it alone is suspected, else the address, too."""
    error = error_of(read_response(status, {}, PAGE), call=call)
    assert suggestion(error, GOOD) == advice
    elsewhere = "http://127.0.0.1:8765/api/v1"
    assert suggestion(error, elsewhere) == f"{advice} Or is base_url wrong? Calls go to {elsewhere}."


@pytest.mark.parametrize("call", ["GET /sonic/task/7", "GET /suno/clip/7", "POST /suno/persona"])
def test_path_that_the_api_has_is_not_suspected(call: str) -> None:
    """Nor is the address of the service, which is right."""
    error = error_of(read_response(404, {}, PAGE), call=call)
    assert (
        suggestion(error, GOOD)
        == f"{GOOD} does not answer like the API now: a proxy may answer in its place."
    )
