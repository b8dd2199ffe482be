"""Replies and tasks say which HTTP response they came in."""

from __future__ import annotations

import copy
import json
import pickle
from functools import partial

import msgspec
import pytest
from test_headers import Seen, serving

from musicapi_async import Credits, MemoryLimiter, MusicAPI, Rate, ResponseInfo
from musicapi_async._transport.rate_limiter import LaneLimits
from musicapi_async.api.direct_replies import Reply
from musicapi_async.sandbox import Fault, Sandbox

SONG = {"mv": "sonic-v6", "prompt": "[Verse]\nla la la"}


def info_of(reply: Reply) -> ResponseInfo:
    """The response, which must be there."""
    assert reply.response is not None
    return reply.response


async def test_reply_of_a_direct_call_has_its_response() -> None:
    """A free one and one that charges, as the server saw them."""
    async with Sandbox(speed=100) as sandbox, sandbox.client(rate_limit=None) as client:
        clip = (await (await client.sonic.create_music(**SONG)).wait())[0]
        for call in (client.credits, partial(client.sonic.bpm, clip.clip_id)):
            reply: Reply = await call()
            response = info_of(reply)
            assert response.request_id == sandbox.journal[-1].request_id
            assert (response.status, response.attempts, response.waited) == (200, 1, 0.0)
            assert response.headers["x-request-id"] == response.request_id
            assert all(name == name.lower() for name in response.headers)
            assert response.elapsed >= 0.0
            assert reply.response is response


async def test_task_of_a_submit_has_its_response() -> None:
    """A handle from a token, and one of a job key that has its task, have none."""
    async with Sandbox(speed=100) as sandbox, sandbox.client(rate_limit=None) as client:
        view = client.with_options(job_key="order-1")
        task = await view.sonic.create_music(**SONG)
        assert task.response is not None
        assert task.response.request_id == sandbox.journal[-1].request_id
        assert client.task(task.token).response is None
        reused = await view.sonic.create_music(**SONG)
        assert (reused.task_id, reused.response) == (task.task_id, None)
        clip = (await task.wait())[0]
        named = client.with_options(job_key="order-2")
        first = await named.sonic.create_persona("Voice", clip.clip_id)
        second = await named.sonic.create_persona("Voice", clip.clip_id)
        assert first == second
        assert first.response is not None
        assert second.response is None


async def test_attempts_are_counted() -> None:
    """Those that failed, and those of a file that was being prepared."""
    async with Sandbox(speed=100) as sandbox, sandbox.client(rate_limit=None) as client:
        sandbox.faults.on("GET", "/get-credits", Fault.status(503), times=2)
        assert info_of(await client.credits()).attempts == 3
        clip = (await (await client.sonic.create_music(**SONG)).wait())[0]
        before = len(sandbox.journal)
        sandbox.faults.on("POST", "/sonic/midi", Fault.status(429), times=1)
        midi = await client.sonic.midi(clip.clip_id)
        assert info_of(midi).attempts == len(sandbox.journal) - before >= 2


async def test_waits_for_the_rate_are_told_from_the_response() -> None:
    """A create that the rate holds back for 3 s, a direct call, and one after a refusal."""
    calls = MemoryLimiter({"call": LaneLimits(16, Rate(1, 4.0))})
    async with Sandbox() as sandbox, sandbox.client(limiter=calls) as client:
        await client.sonic.create_music(**SONG)
        task = await client.sonic.create_music(**SONG)
        assert task.response is not None
        assert task.response.waited == pytest.approx(3.0, abs=0.2)
        assert task.response.elapsed < 1.0
        await client.credits()
        assert info_of(await client.credits()).waited == pytest.approx(4.0, abs=0.2)
    async with Sandbox() as sandbox, sandbox.client(rate_limit=None) as client:
        sandbox.faults.on("GET", "/get-credits", Fault.status(429, retry_after=7), times=1)
        response = info_of(await client.credits())
        assert (response.attempts, response.status) == (2, 200)
        assert response.waited == pytest.approx(7.0, abs=0.2)
        assert response.elapsed < 1.0


async def test_response_is_no_part_of_the_content() -> None:
    """Not of comparisons, texts, JSON or fields; but copies and pickles have it, as plain data."""
    async with Sandbox(speed=100) as sandbox, sandbox.client() as client:
        reply = await client.credits()
        plain = Credits(credits=reply.credits, extra_credits=reply.extra_credits)
        assert plain == reply
        assert plain.response is None
        assert repr(plain) == repr(reply)
        assert msgspec.json.encode(plain) == msgspec.json.encode(reply)
        assert msgspec.structs.asdict(plain) == msgspec.structs.asdict(reply)
        assert not hasattr(reply, "__dict__")
        for copied in (pickle.loads(pickle.dumps(reply)), copy.deepcopy(reply), copy.copy(reply)):
            assert (copied, copied.response) == (reply, reply.response)
        assert pickle.loads(pickle.dumps(plain)).response is None
        response = info_of(reply)
        assert pickle.loads(pickle.dumps(response)) == response
        assert json.loads(msgspec.json.encode(response))["status"] == 200
        assert repr(response).startswith("ResponseInfo(status=200, request_id='")
        with pytest.raises(AttributeError):
            response.status = 404  # type: ignore[misc]
        with pytest.raises(AttributeError):
            reply.response = response  # type: ignore[misc]


async def test_secrets_are_hidden_in_headers() -> None:
    """A server that repeats what it got, the key and the header of a view."""
    seen: list[Seen] = []
    async with serving(seen, echo=True) as url, MusicAPI("sk-live-sesame-1", base_url=url) as client:
        view = client.with_options(headers={"X-Token": "open/sesame+2"})
        for response in (
            info_of(await view.credits()),
            (await view.sonic.create_music(**SONG)).response,
            info_of(await view.sonic.bpm("clip")),
        ):
            assert response is not None
            assert "sesame" not in str(response.headers)
            assert "[hidden]" in response.headers["x-echo"]
