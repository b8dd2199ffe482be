"""A paid call that ends without a result: what is said about money, what is sent again, what the job key gives."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from musicapi_async import (
    APIConnectionError,
    APIStatusError,
    BadRequestError,
    InvalidResponseError,
    MusicAPI,
    MusicAPIError,
    OutcomeUnknownError,
    RateLimitedError,
    StepFailedError,
    Task,
    UpstreamError,
)
from musicapi_async.sandbox import Fault, Sandbox

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the families that are retired

SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}
Call = Callable[[MusicAPI], Awaitable[Any]]

CALLS: dict[str, tuple[str, Call]] = {
    "submit": ("/sonic/create", lambda client: client.sonic.create_music(**SONG)),
    "wav": ("/sonic/wav", lambda client: client.sonic.wav("c-1")),
    "bpm": ("/sonic/bpm", lambda client: client.sonic.bpm("c-1")),
    "lyrics": ("/sonic/lyrics", lambda client: client.sonic.lyrics("a sky")),
    "studio": (
        "/studio/create",
        lambda client: client.studio.create_from_description(prompt="a song", model_type="studio32-v1.5"),
    ),
    "raw": ("/sonic/create", lambda client: client.request("POST", "/sonic/create", json=SONG)),
    "unknown path": ("/new/thing", lambda client: client.request("POST", "/new/thing", json={})),
}


@asynccontextmanager
async def opened(**options: Any) -> AsyncGenerator[tuple[Sandbox, MusicAPI]]:
    async with Sandbox(speed=2000) as sandbox, sandbox.client(rate_limit=None, **options) as client:
        yield sandbox, client


async def end_of(call: Awaitable[Any]) -> MusicAPIError:
    """The error that a call ends with; it pickles, and its text is the same afterwards."""
    with pytest.raises(MusicAPIError) as caught:
        await call
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return caught.value


UNKNOWN: dict[str, tuple[int, str, type[MusicAPIError]]] = {
    "202 not ready": (202, '{"type":"not_ready"}', MusicAPIError),
    "202 not ready with a text": (202, '{"type":"not_ready","error":"later"}', APIStatusError),
    "202 with a refusing code": (202, '{"code":400,"error":"no"}', APIStatusError),
    "202 empty": (202, "", InvalidResponseError),
    "200 with an error and nothing else": (200, '{"error":"Example error text"}', APIStatusError),
    "200 without success": (200, '{"success":false,"message":"no"}', InvalidResponseError),
    "200 with a code of 5xx": (200, '{"code":500,"message":"no"}', APIStatusError),
    "302": (302, "", APIStatusError),
    "303": (303, "", APIStatusError),
    "408": (408, "", BadRequestError),
    "409": (409, '{"error":"conflict"}', BadRequestError),
    "460": (460, "", BadRequestError),
    "499": (499, "", BadRequestError),
    "500": (500, '{"error":"no"}', APIStatusError),
    "503": (503, "<html>", APIStatusError),
    "a step that worked": (
        400,
        '{"failed_step":"cover","steps":{"upload":{"success":true,"clip_id":"c-9"}}}',
        StepFailedError,
    ),
    "a task under an id that was cut": (400, '{"task_id":"abc\\ud83d"}', BadRequestError),
}


@pytest.mark.parametrize("call", CALLS)
async def test_without_proof_the_outcome_is_unknown_and_the_key_stays_taken(call: str) -> None:
    """One request, no claim that it was free, an ambiguous job, and no second request under its key."""
    path, make = CALLS[call]
    async with opened() as (sandbox, client):
        for case, (status, body, cause) in UNKNOWN.items():
            sandbox.journal.clear()
            sandbox.faults.clear()
            sandbox.faults.on("POST", path, Fault.status(status, body=body, taken=True), times=None)
            view = client.with_options(job_key=case)
            error = await end_of(make(view))
            assert isinstance(error, OutcomeUnknownError), case
            assert isinstance(error.__cause__, cause), case
            assert error.may_have_been_charged
            assert error.job_key == case
            assert "othing was charged" not in f"{error} {error.__cause__}", case
            job = await client.job(case)
            assert job is not None
            assert job.state == "ambiguous"
            assert isinstance(await end_of(make(view)), OutcomeUnknownError)
            assert len(sandbox.journal.requests(path, "POST")) == 1, case


REFUSED: dict[str, tuple[int, str]] = {
    **{
        str(status): (status, '{"error":"no"}')
        for status in (400, 401, 402, 403, 404, 405, 410, 411, 413, 414, 415, 422)
    },
    "a page of a gateway": (404, "<html>not here</html>"),
    "a code in a 2xx": (200, '{"code":403,"message":"The remaining credits are not enough."}'),
    "a code in words": (201, '{"code":"400","message":"no"}'),
    "a step that failed": (400, '{"failed_step":"upload","steps":{"upload":{"success":false}}}'),
    "301": (301, ""),
    "307": (307, '{"error":"moved"}'),
    "308": (308, "<html>"),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_proven_refusal_frees_the_key_and_says_so(call: str) -> None:
    """One request, "nothing was charged", no job; the same key may be used for another try."""
    path, make = CALLS[call]
    async with opened() as (sandbox, client):
        for case, (status, body) in REFUSED.items():
            sandbox.journal.clear()
            sandbox.faults.clear()
            sandbox.faults.on("POST", path, Fault.status(status, body=body), times=None)
            for attempt in (1, 2):
                error = await end_of(make(client.with_options(job_key="k")))
                assert isinstance(error, APIStatusError), case
                assert "Nothing was charged" in str(error), case
                assert not error.may_have_been_charged
                assert await client.jobs() == []
                assert len(sandbox.journal.requests(path, "POST")) == attempt, case
            assert sandbox.journal.charges == 0


@pytest.mark.parametrize("call", CALLS)
async def test_a_refusal_for_the_rate_is_sent_again_and_then_frees_the_key(call: str) -> None:
    """429, its code in a 2xx, and the two texts of Nuro."""
    path, make = CALLS[call]
    for status, body in [(429, ""), (200, '{"code":429}'), (403, '{"error":"Queue is full"}')]:
        async with opened(max_retries=2) as (sandbox, client):
            sandbox.faults.on("POST", path, Fault.status(status, body=body), times=None)
            error = await end_of(make(client.with_options(job_key="k")))
            assert isinstance(error, RateLimitedError)
            assert "Nothing was charged" in str(error)
            assert await client.jobs() == []
            assert len(sandbox.journal.requests(path, "POST")) == 3


NAMED: dict[str, tuple[int, str]] = {
    "429": (429, '{"type":"rate_limited","task_id":"%s"}'),
    "a 403 for the rate": (403, '{"error":"QPS limit","data":{"task_id":"%s"}}'),
    "a code of 429 in a 2xx": (200, '{"code":429,"task_id":"%s"}'),
    "400": (400, '{"error":"no","task_id":"%s"}'),
    "404 under data": (404, '{"error":"no","data":{"task_id":"%s"}}'),
    "500": (500, '{"error":"no","task_id":"%s"}'),
    "504": (504, '{"task_id":"%s"}'),
    "303": (303, '{"task_id":"%s"}'),
    "307": (307, '{"task_id":"%s"}'),
    "a step beside it": (400, '{"failed_step":"cover","steps":{"upload":{"success":true}},"task_id":"%s"}'),
}


@pytest.mark.parametrize("resend", [False, True])
@pytest.mark.parametrize("case", NAMED)
async def test_an_error_that_names_a_task_loses_neither_the_task_nor_money(case: str, resend: bool) -> None:
    """Nothing is sent again; the error carries the id, and the same key gives the task."""
    status, body = NAMED[case]
    async with opened() as (sandbox, client):
        paid = await client.sonic.create_music(**SONG)
        fault = Fault.status(status, body=body % paid.task_id)
        sandbox.faults.on("POST", "/sonic/create", fault, times=None)
        view = client.with_options(job_key="k", resend_creates_on_5xx=resend)
        error = await end_of(view.sonic.create_music(**SONG))
        assert isinstance(error, OutcomeUnknownError)
        assert (error.task_id, error.family, error.job_key) == (paid.task_id, "sonic", "k")
        assert isinstance(error.__cause__, APIStatusError)
        assert "othing was charged" not in f"{error} {error.__cause__}"
        job = await client.job("k")
        assert job is not None
        assert (job.state, job.task_id) == ("accepted", paid.task_id)
        task = await view.sonic.create_music(**SONG)
        assert isinstance(task, Task)
        assert task.task_id == paid.task_id
        assert (await task.wait()).clips
        assert len(sandbox.journal.creates) == 2


@pytest.mark.parametrize("call", ["wav", "bpm", "lyrics", "raw", "studio", "unknown path"])
@pytest.mark.parametrize("body", ['{"error":"no","task_id":"t-1"}', '{"task_id":"t-1"}'])
async def test_an_error_that_names_a_task_is_the_same_for_every_paid_call(call: str, body: str) -> None:
    """A second use of the key sends nothing, whatever the call gives."""
    path, make = CALLS[call]
    async with opened() as (sandbox, client):
        sandbox.faults.on("POST", path, Fault.status(500, body=body), times=None)
        view = client.with_options(job_key="k")
        error = await end_of(make(view))
        assert isinstance(error, OutcomeUnknownError)
        assert error.task_id == "t-1"
        job = await client.job("k")
        assert job is not None
        assert (job.state, job.task_id) == ("accepted", "t-1")
        try:
            again = await make(view)
        except OutcomeUnknownError as error:
            assert error.task_id == "t-1"
        else:
            assert again.task_id == "t-1" if isinstance(again, Task) else again["task_id"] == "t-1"
        assert len(sandbox.journal.requests(path, "POST")) == 1


async def test_the_id_of_studio_may_be_its_data() -> None:
    """A text without white space is the id; a sentence is not."""
    path, make = CALLS["studio"]
    async with opened() as (sandbox, client):
        sandbox.faults.on("POST", path, Fault.status(400, body='{"code":"400","data":"t-1"}'))
        sandbox.faults.on("POST", path, Fault.status(400, body='{"code":"400","data":"not allowed"}'))
        error = await end_of(make(client))
        assert isinstance(error, OutcomeUnknownError)
        assert (error.task_id, error.family) == ("t-1", "studio")
        assert isinstance(await end_of(make(client)), BadRequestError)


async def test_a_sentence_is_no_id_of_a_task() -> None:
    """A 2xx whose `data` is a text of several words names no task: its outcome is unknown."""
    async with opened() as (sandbox, client):
        for call, data in [("studio", "not allowed"), ("submit", "done, thank you"), ("studio", " t-1 ")]:
            path, make = CALLS[call]
            body = json.dumps({"code": "error", "data": data})
            sandbox.faults.on("POST", path, Fault.status(200, body=body))
            if data == " t-1 ":
                assert (await make(client)).task_id == "t-1"
                continue
            error = await end_of(make(client.with_options(job_key=data)))
            assert isinstance(error, OutcomeUnknownError)
            assert isinstance(error.__cause__, InvalidResponseError)
            assert error.task_id is None
            job = await client.job(data)
            assert job is not None
            assert job.state == "ambiguous"


async def test_a_step_that_worked_stays_usable() -> None:
    """The error has the steps and the clip, on itself and on its cause."""
    body = (
        '{"code":400,"message":"Cover failed","failed_step":"cover",'
        '"steps":{"upload":{"success":true,"clip_id":"c-9"},"cover":{"success":false}}}'
    )
    for status in (200, 400, 500):
        async with opened() as (sandbox, client):
            sandbox.faults.on("POST", "/sonic/upload-cover", Fault.status(status, body=body))
            error = await end_of(
                client.sonic.upload_cover(
                    url="https://files.example/a.mp3", mv="sonic-v6", prompt="la", tags="pop"
                )
            )
            assert isinstance(error, OutcomeUnknownError)
            assert isinstance(error.__cause__, StepFailedError)
            for one in (error, error.__cause__):
                assert one.clip_id == "c-9"
                assert one.steps["upload"]["success"] is True
            assert error.__cause__.failed_step == "cover"


async def test_a_504_of_lyrics_is_free_only_where_nothing_is_open() -> None:
    """After a 5xx that may have charged, a later one proves nothing: not in the error, and not in the job."""
    path, make = CALLS["lyrics"]
    async with opened(max_retries=1) as (sandbox, client):
        sandbox.faults.on("POST", path, Fault.status(504))
        error = await end_of(make(client.with_options(job_key="free")))
        assert isinstance(error, UpstreamError)
        assert "Nothing was charged" in str(error)
        assert await client.jobs() == []
        sandbox.faults.on("POST", path, Fault.status(500, taken=True)).on("POST", path, Fault.status(504))
        error = await end_of(make(client.with_options(job_key="open", resend_creates_on_5xx=True)))
        assert isinstance(error, OutcomeUnknownError)
        assert error.may_have_been_charged
        assert "othing was charged" not in f"{error} {error.__cause__}"
        assert [(job.key, job.state) for job in await client.jobs()] == [("open", "ambiguous")]
        sandbox.faults.on("POST", path, Fault.status(200, body='{"code":504,"message":"no"}'))
        assert isinstance(await end_of(make(client)), OutcomeUnknownError)  # documented for the status alone


async def test_a_202_with_a_result_is_that_result() -> None:
    """It keeps its job key, too: the next use gives the same, and sends nothing."""
    async with opened() as (sandbox, client):
        sandbox.faults.on(
            "POST", "/*", Fault.status(202, body='{"task_id":"t-1","wav_url":"https://a.example/b"}'), times=3
        )
        for call in ("submit", "wav", "raw"):
            make = CALLS[call][1]
            view = client.with_options(job_key=call)
            for _ in range(2):
                made = await make(view)
                given = made if isinstance(made, dict) else made.raw
                assert given["task_id"] == "t-1"
        assert len(sandbox.journal.requests(method="POST")) == 3


async def test_midi_and_download_are_asked_again_on_202() -> None:
    """For these two, 202 is documented as being prepared; an untyped call is given it and keeps no job."""
    async with opened() as (sandbox, client):
        later = Fault.status(202, body='{"type":"not_ready"}')
        done = Fault.status(200, body='{"data":{"midi_url":"https://cdn.example/a.mid"}}')
        sandbox.faults.on("POST", "/sonic/midi", later, times=2).on("POST", "/sonic/midi", done)
        assert (await client.sonic.midi("c-1")).midi_url
        sandbox.faults.on("POST", "/sonic/midi", later).on("POST", "/sonic/midi", done)
        view = client.with_options(job_key="k")
        body = {"clip_id": "c-1"}
        assert (await view.request("POST", "/sonic/midi", json=body))["type"] == "not_ready"
        assert await client.jobs() == []
        assert "data" in await view.request("POST", "/sonic/midi", json=body)
        assert [job.state for job in await client.jobs()] == ["finished"]
        assert len(sandbox.journal.requests("/sonic/midi", "POST")) == 5


@pytest.mark.parametrize("path", ["/sonic/midi", "/sonic/download"])
@pytest.mark.parametrize(
    "body", ['{"type":"not_ready"}', '{"code":202,"message":"later"}', '{"type":"not_ready","progress":5}']
)
async def test_a_200_that_says_not_ready_is_never_sent_again(path: str, body: str) -> None:
    """Free repeats are documented for HTTP 202 alone; a repeat of anything else might cost again."""
    async with opened() as (sandbox, client):
        sandbox.faults.on("POST", path, Fault.status(200, body=body), times=None)
        sonic, raw = client.with_options(job_key="typed").sonic, client.with_options(job_key="raw")
        fields: dict[str, Any] = {"clip_id": "c-1"} | ({"formats": ["mp3"]} if "download" in path else {})
        typed = sonic.download(**fields) if "download" in path else sonic.midi(**fields)
        for call in (typed, raw.request("POST", path, json=fields)):
            error = await end_of(call)
            assert isinstance(error, OutcomeUnknownError)
            assert isinstance(error.__cause__, InvalidResponseError)
        assert isinstance(await end_of(raw.request("POST", path, json=fields)), OutcomeUnknownError)
        assert [job.state for job in await client.jobs()] == ["ambiguous", "ambiguous"]
        assert len(sandbox.journal.requests(path, "POST")) == 2


CELLS = st.tuples(
    st.sampled_from(list(CALLS)),
    st.sampled_from(
        [200, 201, 202, 204, 300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 408, 409]
    )
    | st.integers(400, 599),
    st.sampled_from([None, 200, "200", 400, "403", 404, 408, 429, 500, 504]),
    st.sampled_from([{}, {}, {"task_id": "t-1"}, {"data": {"task_id": "t-1"}}]),
    st.sampled_from([{}, {}, {"steps": {"upload": {"clip_id": "c-9"}}}]),
    st.sampled_from(["", "no", "API QPS limit exceeded"]),
)


@settings(max_examples=20, phases=[Phase.explicit, Phase.generate])
@given(st.lists(CELLS, min_size=12, max_size=12))
def test_every_cell_is_sent_once_or_was_refused(cells: list[tuple[Any, ...]]) -> None:
    """Any answer to any paid call: sent again only after a refusal for the rate, free only with the key free."""

    async def run() -> None:
        async with opened(max_retries=1) as (sandbox, client):
            for number, (call, status, code, task, steps, text) in enumerate(cells):
                path, make = CALLS[call]
                body = {"error": text, "code": code, **task, **steps}
                sandbox.faults.clear()
                sandbox.faults.on("POST", path, Fault.status(status, body=json.dumps(body)), times=None)
                sandbox.journal.clear()
                view = client.with_options(job_key=f"k-{number}")
                error: MusicAPIError | None = None
                try:
                    await make(view)
                except MusicAPIError as caught:
                    error = caught
                sent = len(sandbox.journal.requests(path, "POST"))
                job = await client.job(f"k-{number}")
                said_free = error is not None and "othing was charged" in f"{error} {error.__cause__}"
                assert said_free == (job is None), cells[number]
                assert (sent == 2) == isinstance(error, RateLimitedError), cells[number]
                assert isinstance(error, OutcomeUnknownError) == (
                    job is not None
                    and (job.state == "ambiguous" or (error is not None and bool(error.task_id)))
                ), cells[number]
                if task:
                    assert job is not None, cells[number]
                    assert not said_free
                    assert sent == 1

    asyncio.run(run())


# --- answers that the HTTP library rejects ----------------------------------------------------------------

REJECTED = {
    "a header line over the limit": b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n{}",
    "a status line over the limit": b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n{}",
    "a broken status line": b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\n{}",
    "a header without a colon": b"HTTP/1.1 200 OK\r\nX Echo key-that-nobody-may-see\r\nContent-Length: 2\r\n\r\n{}",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
}


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncGenerator[tuple[str, list[bytes]]]:
    """A server that gives each request the next answer, the last one for ever; and the requests that came."""
    requests: list[bytes] = []
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            requests.append(head)
            writer.write(answers[min(len(requests), len(answers)) - 1])
            await writer.drain()
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.ensure_future(talk(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests
    finally:
        server.close()
        await asyncio.gather(*talks)  # else a connection may be open when the loop ends


def whole(body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), b"Connection: close", *headers, b"", body]
    return b"\r\n".join(lines)


def client_of(base_url: str) -> MusicAPI:
    return MusicAPI(
        "key-that-nobody-may-see", base_url=base_url, rate_limit=None, max_retries=0, attempt_timeout=10
    )


@pytest.mark.parametrize("case", REJECTED)
async def test_an_answer_that_is_no_http_has_no_status(case: str) -> None:
    """A paid call is of unknown outcome, and no number of the HTTP library is taken for the server's."""
    async with answering(REJECTED[case]) as (url, requests), client_of(url) as client:
        error = await end_of(client.with_options(job_key="k").sonic.create_music(**SONG))
        assert isinstance(error, OutcomeUnknownError)
        assert isinstance(error.__cause__, APIConnectionError)
        assert not isinstance(error.__cause__, APIStatusError)
        text = f"{error} {error.__cause__}"
        assert "400" not in text
        assert "key-that-nobody-may-see" not in text
        assert "othing was charged" not in text
        assert [job.state for job in await client.jobs()] == ["ambiguous"]
        assert len(requests) == 1


@pytest.mark.parametrize("case", REJECTED)
async def test_a_poll_whose_answer_is_no_http_is_tried_again(case: str) -> None:
    """For a poll it is a passing fault."""
    done = b'{"data":[{"clip_id":"c","state":"succeeded","audio_url":"https://cdn.example/c.mp3"}]}'
    async with answering(REJECTED[case], whole(done)) as (url, requests):
        client = MusicAPI("k" * 20, base_url=url, rate_limit=None, max_retries=1, attempt_timeout=10)
        async with client:
            update = await client.task("sonic", "t").refresh()
        assert update.result is not None
        assert len(requests) == 2


async def test_headers_of_64_kib_are_read() -> None:
    """Gateways send signed cookies and policies that are longer than the HTTP library's default allows."""
    long = [b"X-Policy: " + b"p" * 60_000, b"Set-Cookie: a=" + b"c" * 65_000]
    async with answering(whole(b'{"task_id":"t-1"}', *long)) as (url, _), client_of(url) as client:
        assert (await client.sonic.create_music(**SONG)).task_id == "t-1"


# --- bodies that are not quite JSON -----------------------------------------------------------------------


@pytest.mark.parametrize("dirt", [b'"cut \\ud83d"', b"NaN", b"1e999", b'"a\tb"', b'"caf\xe9"'])
async def test_a_stray_character_costs_no_id_and_no_result(
    dirt: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """In the reply of a create, of a direct call and of an untyped one, and in a poll; logged once."""
    reply = b'{"message":%s,"task_id":"t-1","wav_url":"https://cdn.example/a.wav"}' % dirt
    poll = (
        b'{"data":[{"clip_id":"c","state":"succeeded","title":%s,"audio_url":"https://cdn.example/c.mp3"}]}'
        % dirt
    )
    async with answering(*[whole(reply)] * 3, whole(poll)) as (url, requests), client_of(url) as client:
        task = await client.sonic.create_music(**SONG)
        assert task.task_id == "t-1"
        assert (await client.sonic.wav("c")).wav_url == "https://cdn.example/a.wav"
        assert (await client.request("POST", "/sonic/create", json=SONG))["task_id"] == "t-1"
        update = await task.refresh()
        assert update.result is not None
        assert update.result.clips[0].final_url == "https://cdn.example/c.mp3"
        assert len(requests) == 4
    assert len([record for record in caplog.records if "was repaired" in record.getMessage()]) == 1


async def test_an_id_that_was_repaired_is_no_id() -> None:
    """Another task might have it: the outcome is unknown, and the body as it was read is kept."""
    async with answering(whole(b'{"message":"success","task_id":"7f3a\xe9"}')) as (url, requests):
        async with client_of(url) as client:
            error = await end_of(client.with_options(job_key="k").sonic.create_music(**SONG))
            assert isinstance(error, OutcomeUnknownError)
            assert error.task_id is None
            assert isinstance(error.__cause__, InvalidResponseError)
            assert error.__cause__.body["task_id"] == "7f3a\ufffd"
        assert len(requests) == 1
