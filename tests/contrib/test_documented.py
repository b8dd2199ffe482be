"""OpenAPI of apps with the routes of the FastAPI bridge, and the text of a missing extra."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from serving import serving

from musicapi_async.contrib.fastapi import EventStream, lifespan, router
from musicapi_async.examples.service import Settings, make_app
from musicapi_async.sandbox import Sandbox


def test_routes_are_documented_typed_and_tagged() -> None:
    """The document is made, and says what comes in and what goes out."""
    app = FastAPI()
    app.include_router(router(public=True))
    paths = app.openapi()["paths"]
    events, webhook = paths["/tasks/{token}/events"]["get"], paths["/webhooks/musicapi"]["post"]
    for route in (events, webhook):
        assert route["tags"] == ["musicapi"]
        assert route["summary"]
        assert route["description"]
    assert events["responses"]["200"]["content"] == {"text/event-stream": {"schema": {"type": "string"}}}
    assert events["responses"].keys() == {"200", "204", "404", "422"}
    problem = events["responses"]["404"]["content"]["application/problem+json"]["schema"]
    assert {"type", "status", "title", "code", "detail", "errors"} <= problem["properties"].keys()
    assert "$ref" not in str(problem)
    assert [one["name"] for one in events["parameters"]] == ["token", "last-event-id"]
    assert {"204", "400", "408", "413", "415", "500", "503"} <= webhook["responses"].keys()
    assert "application/json" in webhook["requestBody"]["content"]
    assert "X-Webhook-Signature" in [one["name"] for one in webhook["parameters"]]


def test_route_with_the_stream_class_does_not_break_the_document() -> None:
    """Routes of one's own with `response_class=EventStream`, and those of the example service."""
    app = FastAPI()
    app.get("/mine", response_class=EventStream)(lambda: None)
    assert "text/event-stream" in app.openapi()["paths"]["/mine"]["get"]["responses"]["200"]["content"]
    example = make_app(Settings("127.0.0.1", 8000, Path(), None, 1.0))
    assert "/feed" in example.openapi()["paths"]


async def test_the_page_of_the_document_is_served() -> None:
    """`/docs` and what it loads."""
    async with Sandbox() as sandbox:
        app = FastAPI(lifespan=lifespan(sandbox.client))
        app.include_router(router(public=True))
        async with serving(app) as server:
            assert (await server.get("/docs"))[0] == 200
            assert (await server.get("/openapi.json"))[0] == 200
