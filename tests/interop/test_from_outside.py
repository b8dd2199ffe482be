"""Clients in other hands against a sandbox that is set up over HTTP, as a user of any language sets it up.

The vendor's SDK, and its published samples. The samples are rebuilt here as what they do, not as they are
written: each polls until the first HTTP 200 that it takes for the end.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import musicapi as vendor
import pytest

from musicapi_async.sandbox import Sandbox

SONG = {"custom_mode": False, "mv": "sonic-v5", "gpt_description_prompt": "calm rain", "duration": 10}
QUICKLY = vendor.PollOptions(poll_interval_ms=5, timeout_ms=20_000)


@pytest.fixture
def anyio_backend() -> str:
    """Real time: the clients live in it."""
    return "asyncio"


class Outside:
    """A program without the SDK, on the standard library."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.base, self.key = sandbox.base_url, sandbox.api_key
        self._control, self._token = sandbox.control_url, sandbox.control_token

    def set(self, method: str, path: str, body: object = None) -> Any:
        """Set up the sandbox."""
        status, reply = self.call(method, self._control + path, self._token, body)
        assert status == 200, reply
        return reply

    def call(self, method: str, url: str, key: str, body: object = None) -> tuple[int, Any]:
        """One request; every status is a result."""
        raw = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, raw, {"Authorization": f"Bearer {key}"}, method=method)
        try:
            with urllib.request.urlopen(request) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def file(self, url: str) -> bytes:
        """The file behind a link, b"" if there is none."""
        try:
            with urllib.request.urlopen(url, timeout=20) as reply:
                return bytes(reply.read())
        except (urllib.error.URLError, TimeoutError, ValueError, AttributeError):
            return b""


async def outside(sandbox: Sandbox, work: Callable[[Outside], Any]) -> Any:
    """Run a program in a thread."""
    return await asyncio.to_thread(work, Outside(sandbox))


# --- the published samples ---------------------------------------------------------------------------------


class SampleFailed(Exception):
    """What `raise_for_status` of a sample raises."""


def until_status_200(status: int, body: Any) -> bool:
    """The quickstart (musicapi.ai/docs/quickstart-python): HTTP 200 is the end, all else is polled again."""
    return status == 200


def until_not_not_ready(status: int, body: Any) -> bool:
    """The guides (musicapi.ai/python-music-api, Go, Django): an error ends it, 202 and `not_ready` do not."""
    if status >= 400:
        raise SampleFailed(status)
    return status != 202 and body.get("type") != "not_ready"


def until_code_200(status: int, body: Any) -> bool:
    """What clients after the vendor's reference of "get music" do: `code` 200 in the body is the end."""
    return bool(body.get("code") == 200)


SAMPLES = [until_status_200, until_not_not_ready, until_code_200]


def run_sample(program: Outside, done: Callable[[int, Any], bool]) -> list[bytes]:
    """Create, poll until `done`, and return the files behind the links of the clips."""
    _, made = program.call("POST", f"{program.base}/sonic/create", program.key, SONG)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        status, body = program.call("GET", f"{program.base}/sonic/task/{made['task_id']}", program.key)
        if done(status, body):
            return [program.file(clip["audio_url"]) for clip in body["data"]]
        time.sleep(0.002)
    raise AssertionError("the sample never ended")


@pytest.mark.parametrize("done", SAMPLES)
async def test_samples_end_with_playable_clips_under_their_preset(done: Callable[[int, Any], bool]) -> None:
    """With `vendor-samples` the first HTTP 200 holds finished clips, and each link is a whole file."""

    def program(user: Outside) -> None:
        user.set("POST", "/preset", {"like": "vendor-samples"})
        files = run_sample(user, done)
        assert [file[:3] for file in files] == [b"ID3", b"ID3"]

    async with Sandbox(speed=500) as box:
        await outside(box, program)


@pytest.mark.parametrize("done", SAMPLES)
async def test_samples_return_too_early_without_the_preset(done: Callable[[int, Any], bool]) -> None:
    """As the live service behaves, the first HTTP 200 has clips that still run: the preset is why they work."""
    async with Sandbox(speed=100) as box:
        files = await outside(box, lambda user: run_sample(user, done))
        assert b"ID3" not in [file[:3] for file in files]


async def test_failed_task_is_no_200_under_the_preset() -> None:
    """No sample takes a failed song for a finished one: that of the guides ends with its error."""

    def program(user: Outside) -> None:
        user.set("POST", "/preset", {"like": "vendor-samples"})
        user.set("POST", "/faults", {"text": "POST /sonic/create fail"})
        _, made = user.call("POST", f"{user.base}/sonic/create", user.key, SONG)
        user.set("POST", "/clock/forward", {"seconds": 600})
        status, body = user.call("GET", f"{user.base}/sonic/task/{made['task_id']}", user.key)
        assert (status, body["type"]) == (500, "failed")
        assert not until_status_200(status, body)
        assert not until_code_200(status, body)
        with pytest.raises(SampleFailed):
            until_not_not_ready(status, body)

    async with Sandbox() as box:
        await outside(box, program)


# --- the vendor's SDK --------------------------------------------------------------------------------------


class Receiver:
    """A receiver of webhooks on the standard library."""

    def __init__(self) -> None:
        self.events: list[str] = []
        events = self.events

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["event"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def vendor_program(user: Outside) -> dict[str, Any]:
    """Create, poll, persona, stems, wav, midi, webhooks and credits with the vendor's SDK, unchanged."""
    user.set("POST", "/preset", {"like": "vendor-sdk"})
    user.set("POST", "/faults", {"text": "GET /sonic/task/* 503"})
    receiver = Receiver()
    described = vendor.SonicCreateParams(
        custom_mode=False,
        mv="sonic-v5",
        gpt_description_prompt="calm rain",
        webhook_url=receiver.url,
    )
    with vendor.MusicAPI(user.key, base_url=user.base, max_retries=3) as client:
        before = client.credits.get()
        song = client.sonic.generate_and_wait(described, QUICKLY).data[0]
        persona = client.sonic.create_persona(vendor.CreatePersonaParams(name="Ann", clip_id=song.clip_id))
        sung = vendor.SonicCreateParams(
            task_type="persona_music",
            custom_mode=True,
            mv="sonic-v5",
            prompt="[Verse]\nRain on the window",
            persona_id=persona.persona_id,
        )
        assert client.sonic.generate_and_wait(sung, QUICKLY).data[0].state == "succeeded"
        stems = client.sonic.stems_basic_and_wait(vendor.StemsParams(song.clip_id), QUICKLY)
        wav = client.sonic.wav(vendor.WavParams(song.clip_id))
        midi = client.sonic.midi(vendor.MidiParams(song.clip_id))
        after = client.credits.get()
    deadline = time.monotonic() + 20
    while len(receiver.events) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    receiver.close()
    journal = user.set("GET", "/journal?limit=1000")
    return {
        "cost": before.credits - after.credits,
        "charges": journal["charges"],
        "polls": [row["status"] for row in journal["requests"] if row["kind"] == "poll"],
        "stems": len(stems.data),
        "files": [
            user.file(wav.data["wav_url"])[:4],
            user.file(midi.data["midi_url"])[:4],
            user.file(song.audio_url)[:3],
        ],
        "events": receiver.events,
    }


async def test_vendor_sdk_with_preset_and_faults_over_http() -> None:
    """Its preset makes it work; it survives the injected 503; what it paid is what the journal says."""
    async with Sandbox(speed=2000, longest=10) as box:
        found = await outside(box, vendor_program)
    assert found["cost"] == found["charges"] > 0
    assert found["polls"].count(503) == 1
    assert found["stems"] == 2
    assert found["files"] == [b"RIFF", b"MThd", b"ID3"]
    assert found["events"] == ["song.streaming", "song.completed"]
