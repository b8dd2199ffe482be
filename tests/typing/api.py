"""Checked by pyright and mypy, never run: what a type checker sees of the public API.

Lines marked as errors must be reported: an ignore that is not needed is itself an error for both checkers.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Sequence
from pathlib import Path
from typing import assert_type

from aiohttp import web

import musicapi_async
from musicapi_async import (
    Batch,
    BatchState,
    Clip,
    Clips,
    Credits,
    MemoryStore,
    MusicAPI,
    Persona,
    Result,
    Stem,
    Stems,
    Task,
    TaskFailedError,
    TaskTimeoutError,
    TaskUpdate,
    Voice,
    Webhooks,
    WrittenLyrics,
    workflows,
)
from musicapi_async.api.sonic_songs import CreateMusic
from musicapi_async.client import ClientOptions, OptionChanges
from musicapi_async.contrib import aiohttp_web, fastapi
from musicapi_async.sandbox import Sandbox
from musicapi_async.webhooks import Event, verify


async def right_calls(client: MusicAPI) -> None:
    task = await client.sonic.create_music(
        mv="sonic-v6", gpt_description_prompt="calm", title="A", duration=60
    )
    assert_type(task, Task[Clips])
    clips = await task.wait(timeout=60, until="first")
    assert_type(clips, Clips)
    assert_type(clips[0], Clip)
    assert_type(clips[0].duration, float | None)
    assert_type(await client.sonic.create_persona("name", "clip", styles="soft"), Persona)
    rows: list[dict[str, str]] = [{"mv": "sonic-v6", "gpt_description_prompt": "calm"}]
    await client.sonic.create_batch(rows)
    batch = await client.sonic.create_batch([{"mv": "sonic-v6"}, CreateMusic(mv="sonic-v6")])
    assert_type(batch, Batch)
    assert_type(await client.wait_all(batch.tasks), list[Clips])
    assert_type((await client.sonic.get_batch("b")).tasks, list[BatchState])
    assert_type(await client.sonic.create_persona(name="name", clip_id="clip"), Persona)
    assert_type(await client.credits(), Credits)
    assert_type(await client.sonic.get_music("id"), TaskUpdate)
    assert_type(await client.suno.create_music(mv="sonic-v6", prompt="la"), Task[Clips])
    assert_type(await client.suno.get_lyrics(task_id="id"), TaskUpdate)
    assert_type(await (await client.suno.make_lyrics("rain")), WrittenLyrics)
    assert_type(await client.sonic.create_voice("https://a.example/b"), Task[Voice])
    assert_type(await client.producer.create_music(sound="lo-fi", seed=7), Task[Clips])
    extended = await client.sonic.extend_music(
        continue_clip_id="clip", continue_at=30, custom_mode=True, mv="sonic-v6", prompt="la"
    )
    assert_type(await client.wait_all([task, extended]), list[Clips])
    assert_type(await client.create_many(client.sonic.stems_basic, []), list[Task[Stems] | Exception])
    async for done in client.as_completed([task]):
        assert_type(done, Task[Clips])
    async for update in task.updates():
        assert_type(update, TaskUpdate)
    assert_type(client.task("sonic", "id"), Task[Clips])
    assert_type(client.task("token", result=Stems), Task[Stems])
    assert_type(client.task("sonic", "id", kind="create_voice", result=Voice), Task[Voice])
    assert_type(await client.wait_all([task], return_exceptions=False), list[Clips])
    assert_type(await client.wait_all([task], return_exceptions=True), list[Clips | Exception])
    assert_type(client.with_options(deadline=5.0), MusicAPI)
    changes: OptionChanges = {"job_key": "order-42", "store": MemoryStore()}
    assert_type(client.with_options(**changes), MusicAPI)
    stems = await (await client.sonic.stems_basic("clip")).wait()
    assert_type(stems["vocals"], Stem)
    assert_type(stems[0], Stem)
    assert_type(stems[:1], Sequence[Stem])
    assert_type([stem.name for stem in stems], list[str])
    for files in (
        clips,
        clips[0],
        stems,
        list(clips),
        await client.sonic.midi("clip"),
        "https://a.example/b",
    ):
        assert_type(await client.download(files, "out"), list[Path])
    assert_type(await workflows.extend(client, clips[0], mv="sonic-v6", prompt="la"), Task[Clips])
    assert_type(await workflows.extend_full(client, "https://a.example/b", mv="sonic-v6"), Clips)
    assert_type(await workflows.everything(client, clips[0], "out"), workflows.Everything)


def modules_without_imports_of_their_own(raw: bytes, headers: dict[str, str]) -> None:
    assert_type(musicapi_async.webhooks.verify(raw, headers, "secret"), Event)
    assert_type(musicapi_async.sandbox.Sandbox().client(), MusicAPI)
    assert_type(musicapi_async.hooks.RequestEvent.__name__, str)


def options_of_the_client(app: web.Application, sandbox: Sandbox) -> None:
    options: ClientOptions = {"max_retries": 5, "store": MemoryStore()}
    assert_type(MusicAPI("key"), MusicAPI)
    assert_type(MusicAPI(**options), MusicAPI)
    assert_type(sandbox.client(**options), MusicAPI)
    aiohttp_web.setup(app, public=True, **options)
    fastapi.lifespan(**options)
    MusicAPI("key", max_retires=5)  # type: ignore[call-arg]
    MusicAPI("key", timeout=5)  # type: ignore[call-arg]
    sandbox.client(max_retires=5)  # type: ignore[call-arg]
    sandbox.client(deadline="5")  # type: ignore[arg-type]
    aiohttp_web.setup(app, public=True, max_retires=5)  # type: ignore[call-arg]
    fastapi.lifespan(max_retires=5)  # type: ignore[call-arg]


async def webhooks(client: MusicAPI, raw: bytes, headers: dict[str, str]) -> None:
    assert_type(verify(raw, headers, "secret"), Event)
    assert_type(verify(headers, raw, ["new", b"old"], 300, 1760000000.0), Event)
    assert_type(verify(raw, [(b"a", b"b")], "secret", now=lambda: 1.0, limit=1000), Event)
    event = await client.webhooks.handle(headers, raw, url="https://a.example/?job_key=k")
    assert_type(event.result, Result | None)
    assert_type(event.update, TaskUpdate)
    verify(raw, headers)  # type: ignore[call-overload]
    MusicAPI(webhooks=Webhooks(url="https://a.example", secret=["new", "old"]))
    MusicAPI(webhooks="https://a.example")  # type: ignore[arg-type]


def wrong_names() -> None:
    print(musicapi_async.MusicApi)  # type: ignore[attr-defined]
    print(musicapi_async.jobs.SqliteStore)  # type: ignore[attr-defined]
    print(musicapi_async.sandbox.Sandboxes)  # type: ignore[attr-defined]
    print(musicapi_async.mcp.server)  # type: ignore[attr-defined]


def errors_of_a_task(failed: TaskFailedError, late: TaskTimeoutError) -> None:
    assert_type(failed.clips, tuple[Clip, ...])
    assert_type(late.clips, tuple[Clip, ...])
    assert_type(failed.refunded, bool | None)


async def wrong_calls(client: MusicAPI) -> None:
    await client.sonic.create_music(mv="sonic-v6", promt="misspelt")  # type: ignore[call-arg]
    await client.sonic.create_music(prompt="mv is missing")  # type: ignore[call-arg]
    await client.sonic.create_music("sonic-v6")  # type: ignore[call-arg]
    MusicAPI(validate="maybe")  # type: ignore[arg-type]
    client.with_options(job_kye="order-42")  # type: ignore[call-arg]
    client.with_options(deadline="20")  # type: ignore[arg-type]
    await client.suno.create_music(mv="sonic-v6", promt="misspelt")  # type: ignore[call-arg]
    await client.suno.create_persona(name="n", clip_id="c")  # type: ignore[attr-defined]
    await client.sonic.get_music(5)  # type: ignore[arg-type]
    await client.sonic.create_music(mv=5, prompt="la")  # type: ignore[arg-type]
    await client.sonic.create_music(mv="sonic-v6", make_instrumental="yes")  # type: ignore[arg-type]
    await client.sonic.extend_music(continue_clip_id="clip", mv="sonic-v6")  # type: ignore[call-arg]
    await client.sonic.create_persona(name="name")  # type: ignore[call-arg]
    await client.sonic.create_batch(["calm rain"])  # type: ignore[list-item]
    task = await client.sonic.create_music(mv="sonic-v6", prompt="la")
    await task.wait(until="done")  # type: ignore[arg-type]
    await client.download(5, "out")  # type: ignore[arg-type]
    await workflows.everything(client, "clip id", "out")  # type: ignore[arg-type]
    client.task("token", result=Clip)  # type: ignore[type-var]
    client.task("sonic", "id", result=Stems)  # type: ignore[call-overload]
    await client.wait_all(task)  # type: ignore[call-overload]
