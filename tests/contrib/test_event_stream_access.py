"""Who may watch a task, and what visitors with invented tokens cost. Polls are counted at the sandbox."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from aiohttp import web
from fastapi import FastAPI, HTTPException
from patience import PATIENCE
from serving import FRAMEWORKS, app_of, serving

from musicapi_async import MusicAPI, RequestValidationError, Webhooks
from musicapi_async.contrib import aiohttp_web, fastapi
from musicapi_async.jobs import SQLiteStore
from musicapi_async.sandbox import Durations, Fault, Sandbox

QUICK = Durations(song=(30.0, 0.0))
SONG = {"mv": "sonic-v6", "gpt_description_prompt": "rain"}

each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)


def invented(number: int, family: str = "sonic") -> str:
    return f"/tasks/musicapi:{family}:create_music:0:{number:08d}-0000-4000-8000-000000000000/events"


@each_framework
def test_streams_need_a_rule_who_may_watch(framework: str) -> None:
    """At once, before anything is served; not where the stream is left out."""
    with pytest.raises(RequestValidationError, match=r"authorize=.*public=True"):
        app_of(framework, MusicAPI)
    app_of(framework, MusicAPI, events=None)
    app_of(framework, MusicAPI, public=True)
    app_of(framework, MusicAPI, authorize=lambda request, task: True)


@each_framework
async def test_authorize_decides_who_watches(framework: str) -> None:
    """Plain or async; other visitors get the response for an unknown task, and no poll is made."""

    def plain(request: Any, task: Any) -> bool:
        if "X-User" not in request.headers:
            raise web.HTTPUnauthorized if framework == "aiohttp_web" else HTTPException(401)
        return (request.headers["X-User"], task.task_id) == ("owner", own.task_id)

    async def asynchronous(request: Any, task: Any) -> bool:
        return plain(request, task)

    for authorize in (plain, asynchronous):
        async with Sandbox(speed=60, durations=QUICK) as sandbox:
            client = sandbox.client()
            async with serving(
                app_of(framework, lambda client=client: client, authorize=authorize)
            ) as server:
                own = await client.sonic.create_music(**SONG)
                path = f"/tasks/{own.token}/events"
                assert (await server.get(path))[0] == 401
                stranger = await server.get(path, headers={"X-User": "stranger"})
                assert stranger[0] == 404
                assert stranger == await server.get(invented(1), headers={"X-User": "owner"})
                assert sandbox.journal.polls == []
                status, text = await server.get(path, headers={"X-User": "owner"})
                assert status == 200
                assert '"succeeded"' in text


@each_framework
@pytest.mark.parametrize("value", ["no", "True", 1, None, ["owner"]])
async def test_only_true_admits(framework: str, value: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Other values are mostly mistakes: they get the response for an unknown task, no poll, and a line in the log."""

    async def asynchronous(request: Any, task: Any) -> Any:
        return value

    for authorize in (lambda request, task: value, asynchronous):
        caplog.clear()
        async with Sandbox(speed=60, durations=QUICK) as sandbox:
            client = sandbox.client()
            async with serving(
                app_of(framework, lambda client=client: client, authorize=authorize)
            ) as server:
                own = await client.sonic.create_music(**SONG)
                refused = await server.get(f"/tasks/{own.token}/events")
                assert refused[0] == 404
                assert refused == await server.get(invented(1))
                assert sandbox.journal.polls == []
        assert f"authorize returned {type(value).__name__}, not True or False" in caplog.text


@each_framework
def test_a_word_does_not_make_streams_public(framework: str) -> None:
    """Any text is true, "no" as well."""
    with pytest.raises(RequestValidationError, match="public: True or False"):
        app_of(framework, MusicAPI, public="no")


@each_framework
async def test_invented_tokens_cost_few_polls(framework: str) -> None:
    """400 made-up tokens: a burst of polls, then two a second; and a real song is not late."""
    async with Sandbox(speed=60, durations=QUICK) as sandbox:
        client = sandbox.client()
        async with serving(app_of(framework, lambda: client, public=True)) as server:
            task = await client.sonic.create_music(**SONG)
            watching = asyncio.create_task(server.get(f"/tasks/{task.token}/events"))
            started = asyncio.get_running_loop().time()
            answers = await asyncio.gather(*(server.get(invented(number)) for number in range(400)))
            elapsed = asyncio.get_running_loop().time() - started
            assert '"succeeded"' in (await watching)[1]
        strangers = [poll for poll in sandbox.journal.polls if task.task_id not in poll.path]
        assert 1 <= len(strangers) <= 20 + 2 * elapsed + 1
        assert {status for status, _ in answers} == {200, 404}
        for status, text in answers:
            assert "pending" not in text
            assert "update" not in text
            assert status == 404 or text.startswith("retry: 5000\n: ")


@each_framework
async def test_unknown_token_is_remembered(framework: str) -> None:
    """The second visitor with it is answered from memory, and the first never got 'pending'."""
    async with Sandbox(speed=60) as sandbox:
        app = app_of(framework, sandbox.client, public=True)
        async with serving(app) as server:
            for _ in range(30):
                status, text = await server.get(invented(1))
                assert status == 404
                assert '"not_found"' in text
            assert len(sandbox.journal.polls) == 1
            await asyncio.gather(*(server.get(invented(2)) for _ in range(30)))
            assert len(sandbox.journal.polls) <= 3  # those who came meanwhile shared a poll


@each_framework
async def test_families_and_lengths_that_no_task_has_cost_no_poll(framework: str) -> None:
    """404 without a word to the service."""
    async with Sandbox(speed=60) as sandbox:
        async with serving(app_of(framework, sandbox.client, public=True)) as server:
            for path in (
                invented(1, "nosuch"),
                f"/tasks/musicapi:sonic:x:0:{'i' * 2000}/events",
                "/tasks/x/events",
                "/tasks/musicapi:sonic:x:0:%252E%252E/events",
                "/tasks/musicapi:sonic:x:0:a%252F..%252Fb/events",
            ):
                assert (await server.get(path))[0] == 404
        assert sandbox.journal.polls == []


@each_framework
async def test_refused_lookup_gives_nothing_away(framework: str) -> None:
    """The service answers 429 or 500: no state is shown, and the browser comes back later."""
    async with (
        Sandbox(speed=60) as sandbox,
        serving(app_of(framework, sandbox.client, public=True)) as server,
    ):
        for number, fault in enumerate((Fault.status(429), Fault.status(500), Fault.garbage)):
            sandbox.faults.on("GET", "*", fault)
            status, text = await server.get(invented(number))
            assert (status, text) == (200, "retry: 5000\n: this task could not be looked up yet\n\n")
            assert len(sandbox.journal.polls) == number + 1


@each_framework
async def test_young_task_is_looked_up_again(framework: str) -> None:
    """A browser goes to another worker than the one that made its song, before the service knows it."""
    async with (
        Sandbox(speed=1) as sandbox,
        sandbox.client() as maker,
        serving(app_of(framework, sandbox.client, public=True)) as server,
    ):
        events = f"/tasks/{(await maker.sonic.create_music(**SONG)).token}/events"
        sandbox.faults.on("GET", "*", Fault.status(404))
        status, text = await server.get(events)
        assert (status, text) == (200, "retry: 5000\n: this task could not be looked up yet\n\n")
        async with server.browser.get(f"{server.url}{events}") as response:
            assert response.status == 200
            while not (line := await response.content.readline()).startswith(b"data: "):
                assert line
        assert len(sandbox.journal.polls) == 2


@each_framework
async def test_trouble_of_the_server_ends_no_browser_for_ever(framework: str, tmp_path: Path) -> None:
    """The job store is away, or the client was closed before its streams: the browser finds the next process."""
    path = tmp_path / "jobs.sqlite"
    async with Sandbox(speed=1) as sandbox:
        client = sandbox.client(store=SQLiteStore(path))
        async with serving(app_of(framework, lambda: client, public=True)) as server:
            events = f"/tasks/{(await client.sonic.create_music(**SONG)).token}/events"
            async with server.browser.get(f"{server.url}{events}") as response:
                while not (await response.content.readline()).startswith(b"data: "):
                    pass
                path.unlink()
                away = await server.get(invented(1))
                await client.aclose()
                rest = await response.text()
            closed = await server.get(events)
        assert away == (200, "retry: 5000\n: this task could not be looked up yet\n\n")
        for status, text in ((200, rest), closed):
            assert status == 200
            assert "problem" not in text
            assert text.endswith("retry: 5000\n: not now\n\n")
        assert sandbox.journal.charges == 20


@each_framework
async def test_tasks_of_an_earlier_process_are_found(framework: str, tmp_path: Path) -> None:
    """With a job store they are known; without one they are looked up, with one poll to begin with."""
    slow = Durations(song=(600.0, 0.0))
    async with Sandbox(speed=1, durations=slow) as sandbox:
        path = tmp_path / "jobs.sqlite"
        async with sandbox.client(store=SQLiteStore(path)) as earlier:
            task = await earlier.sonic.create_music(**SONG)
        for store, polls in ((SQLiteStore(path), 0), (None, 1)):
            client = sandbox.client(store=store)
            async with serving(app_of(framework, lambda client=client: client, public=True)) as server:
                assert await client.task(task.token).is_known() is (store is not None)
                async with server.browser.get(f"{server.url}/tasks/{task.token}/events") as response:
                    assert response.status == 200
                    seen = b""
                    while b"data: " not in seen and not response.content.at_eof():
                        seen += await response.content.readline()
                    assert b'"state"' in seen
                assert len(sandbox.journal.polls) >= polls


@each_framework
async def test_visitors_write_no_lines_of_their_own_into_the_log(
    framework: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Line breaks and escape sequences of paths and tokens are logged as text."""
    async with Sandbox(speed=60, credits=0) as sandbox:
        client = sandbox.client()
        app = app_of(framework, lambda: client, public=True)

        async def create(name: str) -> dict[str, str]:
            await client.sonic.create_music(**SONG)
            return {}

        if isinstance(app, FastAPI):
            app.get("/songs/{name}")(create)
        else:

            async def view(request: web.Request) -> web.Response:
                return web.json_response(await create(request.match_info["name"]))

            app.router.add_get("/songs/{name}", view)
        with caplog.at_level(logging.DEBUG):
            async with serving(app) as server:
                forged = b"GET /songs/a%0AWARNING%20all%20is%20lost%1b[2J HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                assert b" 503 " in await server.raw(forged)
                token = "musicapi:sonic:create_music:0:x%250AWARNING%2520forged%251b"
                await server.raw(
                    f"GET /tasks/{token}/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
                )
        ours = [record.getMessage() for record in caplog.records if record.name.startswith("musicapi_async")]
        assert any("/songs/a" in line for line in ours)
        assert all(line.isprintable() for line in ours), ours


async def test_mounted_app_finds_the_client() -> None:
    """FastAPI: `main.mount("/api", sub)`, whose lifespan never runs; its streams end with the server, too."""
    async with Sandbox(speed=60, durations=QUICK) as sandbox:
        hooks = Webhooks(secret="a secret of sixteen characters or more")
        opened = fastapi.lifespan(lambda: sandbox.client(webhooks=hooks))
        main, sub = FastAPI(lifespan=opened), FastAPI()
        sub.include_router(fastapi.router(public=True))

        @sub.post("/songs")
        async def create(client: fastapi.Client) -> dict[str, str]:
            return {"token": (await client.sonic.create_music(**SONG)).token}

        main.mount("/api", sub)
        async with serving(main) as server:
            async with server.browser.post(f"{server.url}/api/songs") as response:
                assert response.status == 200, await response.text()
                token = (await response.json())["token"]
            status, text = await server.get(f"/api/tasks/{token}/events")
            assert status == 200
            assert '"succeeded"' in text
            async with server.browser.post(f"{server.url}/api/webhooks/musicapi", data=b"{}") as response:
                assert response.status == 400  # the client of the outer app has found no signature


async def test_streams_of_a_mounted_app_end_with_the_others() -> None:
    """`end_streams(main)` ends them, so that the server need not wait; one that begins later ends at once."""
    async with Sandbox(speed=1) as sandbox:
        main, sub = FastAPI(lifespan=fastapi.lifespan(sandbox.client)), FastAPI()
        sub.include_router(fastapi.router(public=True))
        main.mount("/api", sub)
        async with serving(main) as server:
            task = await main.state.musicapi.sonic.create_music(**SONG)
            async with server.browser.get(f"{server.url}/api/tasks/{task.token}/events") as response:
                await response.content.readline()
                fastapi.end_streams(main)
                await response.content.read()
            async with asyncio.timeout(PATIENCE):
                assert (await server.get(f"/api/tasks/{task.token}/events"))[0] == 200


async def test_signals_reach_the_server_and_its_handlers_come_back() -> None:
    """FastAPI: the stream ends, the handler that was there is called as well, and is alone again afterwards."""
    heard: list[int] = []

    def own(number: int, _frame: object) -> None:
        heard.append(number)

    async with Sandbox(speed=1) as sandbox:
        app = FastAPI(lifespan=fastapi.lifespan(sandbox.client))
        app.include_router(fastapi.router(public=True))
        before = signal.signal(signal.SIGTERM, own)
        try:
            async with app.router.lifespan_context(app):
                task = await app.state.musicapi.sonic.create_music(**SONG)
                body = bytearray()

                async def send(message: Any) -> None:
                    body.extend(message.get("body", b""))
                    if b"data: " in body and not heard:
                        signal.raise_signal(signal.SIGTERM)

                path = f"/tasks/{task.token}/events"
                request = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
                async with asyncio.timeout(PATIENCE):
                    await app(request, asyncio.Event().wait, send)
                assert heard == [signal.SIGTERM]
                assert b'"ended":false' in body
            assert signal.getsignal(signal.SIGTERM) is own
        finally:
            signal.signal(signal.SIGTERM, before)


async def test_no_stream_begins_while_the_app_stops() -> None:
    """aiohttp: a browser that was looked up meanwhile would hold the server for as long as its song takes."""
    async with Sandbox(speed=1) as sandbox:
        app = app_of("aiohttp_web", sandbox.client, public=True)
        assert isinstance(app, web.Application)
        async with serving(app) as server:
            task = await app[aiohttp_web.CLIENT].sonic.create_music(**SONG)
            await app.shutdown()
            async with asyncio.timeout(PATIENCE):
                assert (await server.get(f"/tasks/{task.token}/events"))[0] == 200


async def test_routes_are_found_by_their_names() -> None:
    """Below any prefix, so that no page need know the path of a stream; each with its client."""
    async with Sandbox(speed=300, durations=QUICK) as sandbox:
        app, main = FastAPI(lifespan=fastapi.lifespan(sandbox.client)), web.Application()
        app.include_router(fastapi.router(public=True), prefix="/v1")
        async with serving(app) as server:
            token = (await app.state.musicapi.sonic.create_music(**SONG)).token
            path = app.url_path_for("musicapi_events", token=token)
            assert path == f"/v1/tasks/{token}/events"
            assert '"succeeded"' in (await server.get(path))[1]
        sub = app_of("aiohttp_web", sandbox.client, public=True)
        assert isinstance(sub, web.Application)
        main.add_subapp("/v1", sub)
        async with serving(main) as server:
            token = (await sub[aiohttp_web.CLIENT].sonic.create_music(**SONG)).token
            path = str(sub.router["musicapi_events"].url_for(token=token))
            assert unquote(path) == f"/v1/tasks/{token}/events"
            assert '"succeeded"' in (await server.get(path))[1]
            assert str(sub.router["musicapi_webhook"].url_for()) == "/v1/webhooks/musicapi"


async def test_a_test_gives_the_app_a_client() -> None:
    """`app.dependency_overrides[client_of]`: neither the lifespan runs, nor is a key needed."""
    async with Sandbox(speed=300, durations=QUICK) as sandbox, sandbox.client() as client:
        app = FastAPI()
        app.include_router(fastapi.router(public=True))
        app.dependency_overrides[fastapi.client_of] = lambda: client
        async with serving(app) as server:
            token = (await client.sonic.create_music(**SONG)).token
            assert '"succeeded"' in (await server.get(f"/tasks/{token}/events"))[1]


async def test_own_lifespan_passes_the_client_on() -> None:
    """The state of `lifespan()` is yielded; an app without any says what to do."""
    async with Sandbox(speed=60) as sandbox:
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def own(app: FastAPI) -> Any:
            async with fastapi.lifespan(sandbox.client)(app) as state:
                yield {**state, "mine": 1}

        main, sub = FastAPI(lifespan=own), FastAPI()

        @sub.get("/balance")
        async def balance(client: fastapi.Client) -> float:
            return (await client.credits()).total

        main.mount("/api", sub)
        async with serving(main) as server:
            assert (await server.get("/api/balance"))[0] == 200


async def test_sub_application_finds_the_client() -> None:
    """aiohttp: `main.add_subapp("/api", sub)`; the bridge may be set up in either."""
    for outer in (True, False):
        async with Sandbox(speed=60, durations=QUICK) as sandbox:
            main, sub = web.Application(), web.Application()
            aiohttp_web.setup(main if outer else sub, sandbox.client, public=True)

            async def create(request: web.Request) -> web.Response:
                task = await request.config_dict[aiohttp_web.CLIENT].sonic.create_music(**SONG)
                return web.json_response({"token": task.token})

            sub.router.add_post("/songs", create)
            main.add_subapp("/api", sub)
            async with serving(main) as server:
                async with server.browser.post(f"{server.url}/api/songs") as response:
                    token = (await response.json())["token"]
                status, text = await server.get(f"{'' if outer else '/api'}/tasks/{token}/events")
                assert status == 200
                assert '"succeeded"' in text


def test_wrong_options_of_the_client_are_found_where_they_are_written() -> None:
    """Not when the app starts; and none is ignored because a function makes the client."""

    def set_up(*args: Any, **options: Any) -> None:
        aiohttp_web.setup(web.Application(), *args, public=True, **options)

    for bridge in (fastapi.lifespan, set_up):
        with pytest.raises(TypeError, match=r"unknown option 'max_retires' .did you mean 'max_retries'"):
            bridge(max_retires=3)
        with pytest.raises(RequestValidationError, match="or options, not both, got max_retries"):
            bridge(lambda: MusicAPI("key"), max_retries=3)
