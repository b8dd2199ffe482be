"""Routes of FastAPI whose types are results: what they send, take and document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from serving import serving

from musicapi_async import Clip, Clips, Credits, MusicAPI, Result, Task, TaskUpdate
from musicapi_async.contrib.fastapi import Client, lifespan
from musicapi_async.sandbox import Sandbox


def app_with(make: Any = None) -> FastAPI:
    """A back end with a route for each kind of result."""
    app = FastAPI(lifespan=lifespan(make))

    @app.get("/credits")
    async def credits(client: Client) -> Credits:
        return await client.credits()

    @app.post("/songs")
    async def song(client: Client) -> Clips:
        return await (await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="calm"))

    @app.get("/songs/{task_id}/task")
    async def task(task_id: str, client: Client) -> Task[Clips]:
        return client.task("sonic", task_id)

    @app.get("/songs/{task_id}")
    async def update(task_id: str, client: Client) -> TaskUpdate:
        return await client.task("sonic", task_id).refresh()

    @app.get("/songs/{task_id}/first")
    async def first(task_id: str, client: Client) -> Clip:
        return (await client.task("sonic", task_id))[0]

    @app.get("/songs/{task_id}/clips")
    async def listed(task_id: str, client: Client) -> list[Clip]:
        return list(await client.task("sonic", task_id))

    @app.get("/songs/{task_id}/result")
    async def result(task_id: str, client: Client) -> Result:
        return await client.task("sonic", task_id)

    @app.post("/titles")
    async def title(clip: Clip) -> str:
        return clip.title or "none"

    return app


async def test_routes_send_and_take_results() -> None:
    """The fields and nothing else; a body is checked before it reaches the route."""
    async with Sandbox(speed=300) as sandbox:

        def make() -> MusicAPI:
            return sandbox.client()

        async with serving(app_with(make)) as server:
            url, browser = server.url, server.browser

            async def get(path: str) -> Any:
                async with browser.get(url + path) as response:
                    assert response.status == 200
                    return await response.json()

            assert (await get("/credits")).keys() == {"credits", "extra_credits"}
            async with browser.post(url + "/songs") as response:
                clips = await response.json()
            assert clips.keys() == {"task_id", "family", "items"}
            assert clips["items"][0].keys() == set(Clip.__struct_fields__)
            assert clips["items"][0]["state"] == "succeeded"
            path = f"/songs/{clips['task_id']}"
            assert (await get(path))["result"] == (await get(path + "/result")) == clips
            assert await get(path + "/first") == clips["items"][0]
            assert await get(path + "/clips") == clips["items"]
            assert (await get(path + "/task"))["token"].endswith(clips["task_id"])
            async with browser.post(url + "/titles", json=clips["items"][0]) as response:
                assert await response.json() == clips["items"][0]["title"]
            async with browser.post(url + "/titles", json={"clip_id": [1]}) as response:
                assert response.status == 422


def test_results_have_a_schema_in_the_document() -> None:
    """By their own names, with their fields and their docstring; `/docs` displays what is here."""
    document = app_with().openapi()
    schemas = document["components"]["schemas"]
    assert {"Clips", "Credits", "Task", "TaskUpdate", "Result"} <= schemas.keys()
    sent, taken = schemas["Clip-Output"], schemas["Clip-Input"]
    assert sent["description"].startswith("One song of a task.")
    assert set(sent["required"]) == set(sent["properties"]) == set(Clip.__struct_fields__)
    assert "required" not in taken or not taken["required"]
    assert schemas["Clips"]["properties"]["items"]["type"] == "array"
    reply = document["paths"]["/credits"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert reply == {"$ref": "#/components/schemas/Credits"}
    assert {form["title"] for form in schemas["Result"]["anyOf"]} >= {"Clips", "Stems", "Voice"}
