"""The rules for one look at a task, and what follows from it (contract, tasks 3)."""

from __future__ import annotations

import json
import pickle
import sys
from typing import Any

import pytest
from multidict import CIMultiDict

from musicapi_async._wire import polls, response
from musicapi_async._wire.polls import Memory, Seen, Verdict, decide
from musicapi_async.api.families import polled_as
from musicapi_async.api.handle import TaskRef
from musicapi_async.api.parts import ConcatPairs, Stems, Voice, WrittenLyrics
from musicapi_async.api.results import Clips
from musicapi_async.errors import (
    APIStatusError,
    AuthenticationError,
    ConnectionLostError,
    EndpointRetiredError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    ServerError,
    TaskFailedError,
)

FILE = "https://cdn.example/a.mp3"


def look(
    body: Any,
    status: int = 200,
    *,
    family: str = "sonic",
    kind: str = "",
    headers: dict[str, str] | None = None,
) -> Seen:
    """One answer, judged."""
    polled = polled_as(family, kind)
    assert polled is not None
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return polls.read_poll(
        response.read_response(status, CIMultiDict(headers or {}), raw),
        ref=TaskRef(family, "T", kind),
        polled=polled,
    )


def follow(seen: Seen, memory: Memory | None = None, **facts: Any) -> Verdict:
    """What follows, for a task of another process and of some age."""
    return decide(seen, memory, **{"age": 100.0, "own": False, "now": 0.0, **facts})


def clip(state: str = "succeeded", url: str | None = FILE, **more: Any) -> dict[str, Any]:
    return {"clip_id": "c", "state": state, "audio_url": url, **more}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (202, {"anything": 1}),
        (202, b"<html>"),
        (202, {"type": "timeout"}),
        (200, {"type": "not_ready"}),
        (200, {"code": 202}),
        (200, {"code": "202", "data": [clip()]}),
    ],
)
def test_r1_not_ready(status: int, body: Any) -> None:
    """202, 'not_ready' or code 202 is pending, whatever else the body holds."""
    assert look(body, status).phase == "pending"


@pytest.mark.parametrize("body", [{"type": "failed"}, {"status": "FAILED", "message": "x"}])
def test_r1_lets_a_failure_through(body: Any) -> None:
    """A 202 that says that the task failed is a failure."""
    assert look(body, 202).phase == "failed"


@pytest.mark.parametrize("status", [200, 400, 401, 404, 410, 429, 500, 503])
@pytest.mark.parametrize(("flag", "value"), [("already_refunded", True), ("refund_processed", False)])
def test_r2_a_refund_flag_makes_it_a_failure_at_any_status(status: int, flag: str, value: bool) -> None:
    """A task word with a refund flag is a failed task, with the flag reported as it is."""
    seen = look({"type": "api_error", "message": "no", flag: value}, status)
    assert seen.phase == "failed"
    assert isinstance(seen.error, TaskFailedError)
    assert (seen.error.refunded, seen.error.http_status) == (value, status)


@pytest.mark.parametrize("text", ["API QPS limit exceeded", "Queue is full"])
def test_r2_leaves_out_the_limits_of_nuro(text: str) -> None:
    """Nuro's limits carry the same flag and are waited out (R7)."""
    body = {"type": "forbidden", "message": text, "refund_processed": True}
    seen = look(body, 403, family="nuro")
    assert seen.phase == "rate_limited"
    assert follow(seen).after == 10


def test_a_refused_poll_tells_nothing_about_steps() -> None:
    """A poll that was refused for its rate is repeated, though its body names a failed step."""
    body = {
        "message": "API QPS limit exceeded",
        "failed_step": "upload",
        "steps": {"upload": {"error": "no"}},
    }
    assert look(body, 403).phase == "rate_limited"


def test_r2_usage_limit_stops() -> None:
    """Nuro's usage limit is no failed task and does not pass: the poll stops."""
    body = {"type": "forbidden", "message": "API usage limit exceeded", "refund_processed": False}
    assert isinstance(follow(look(body, 403, family="nuro")).error, PermissionDeniedError)


@pytest.mark.parametrize("status", [200, 400, 500, 504])
def test_r3_failed_is_failed_at_any_status(status: int) -> None:
    """`type` failed, and Producer's top-level FAILED, end the task at every status."""
    assert look({"type": "failed", "error": "x"}, status).phase == "failed"
    assert look({"status": "FAILED", "message": "x", "data": []}, status, family="producer").phase == "failed"


@pytest.mark.parametrize("word", ["timeout", "api_error", "forbidden", "bad_request"])
def test_r3_words_of_failure_in_a_2xx(word: str) -> None:
    """These words end the task only in a 2xx."""
    assert look({"type": word, "message": "x"}).phase == "failed"


@pytest.mark.parametrize("body", [{"type": "timeout", "error": "x"}, {"type": "api_error", "error": "x"}])
def test_r4_is_confirmed_by_a_second_look(body: Any) -> None:
    """An error of the task as an HTTP error is believed when it comes twice."""
    seen = look(body, 500)
    first = follow(seen)
    assert not first.final
    assert first.update is not None
    assert first.update.state == "pending"
    second = follow(seen, first.memory)
    assert second.update is not None
    assert isinstance(second.update.error, TaskFailedError)


def test_r4_another_answer_is_not_a_confirmation() -> None:
    """A different error, or a living task in between, starts anew."""
    one, other = look({"type": "timeout", "error": "x"}, 500), look({"type": "timeout", "error": "y"}, 500)
    memory = follow(one).memory
    assert not follow(other, memory).final
    alive = follow(look({"data": [clip("running")]}), memory)
    assert alive.memory is None
    assert not follow(one, alive.memory).final


def test_r4_a_refund_in_the_text_is_enough() -> None:
    """A text that speaks of the refund ends the task at once, with or without the word."""
    seen = look({"message": "Task failed due to timeout. Credits were previously refunded."}, 504)
    assert seen.phase == "failed"
    assert isinstance(seen.error, TaskFailedError)
    assert seen.error.refunded is True
    assert look({"message": "Task failed."}, 504).phase == "timeout?"
    assert look({"message": "Gateway Timeout"}, 504).phase == "transient"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthenticationError), (410, EndpointRetiredError), (403, PermissionDeniedError)],
)
def test_r5_r6_r9_stop(status: int, kind: type[APIStatusError]) -> None:
    """Key, retirement and other refusals stop the poll, with the task id on the error."""
    verdict = follow(look({"error": "no"}, status))
    assert isinstance(verdict.error, kind)
    assert (verdict.error.task_id, verdict.error.family) == ("T", "sonic")
    assert "already paid" in str(verdict.error)


def test_r6_names_what_to_use_instead() -> None:
    """A retired family says what replaces it."""
    error = follow(look({"error": "gone"}, 410, family="nuro")).error
    assert isinstance(error, EndpointRetiredError)
    assert "sonic.create_music" in str(error)


@pytest.mark.parametrize(("header", "after"), [(None, 10), ("3", 10), ("25", 25), ("86400", 60)])
def test_r7_waits_at_least_ten_seconds(header: str | None, after: float) -> None:
    """After a 429 the next look comes in 10 s or more; Retry-After is obeyed up to a minute."""
    seen = look({"error": "slow"}, 429, headers={"Retry-After": header} if header else None)
    assert follow(seen).after == after


def test_r8_an_own_young_task_may_be_unknown_twice() -> None:
    """Within 60 s of our own submit an unknown id is pending at most twice."""
    seen = look({"error": "task not found."}, 400)
    first = follow(seen, own=True, age=15)
    second = follow(seen, first.memory, own=True, age=30)
    third = follow(seen, second.memory, own=True, age=45)
    assert [first.final, second.final, third.final] == [False, False, True]
    assert isinstance(third.error, NotFoundError)
    assert follow(seen, own=True, age=60).final
    assert follow(look(b"", 404), own=False, age=1).final


@pytest.mark.parametrize("status", [500, 502, 503, 504, 302])
def test_r10_five_failures_in_a_row_stop(status: int) -> None:
    """Four failures of the service are looked past, the fifth ends the wait; a good look starts anew."""
    seen, memory = look(b"<html>", status), None
    for count in range(1, 5):
        verdict = follow(seen, memory)
        assert (verdict.final, verdict.failures) == (False, count)
        memory = verdict.memory
    assert isinstance(follow(seen, memory).error, APIStatusError)
    assert follow(look({"data": []}), memory).memory is None


def test_r10_counts_lost_connections_and_pages_that_are_no_json() -> None:
    """No answer, and a 200 that is not JSON, count as the same kind of failure."""
    lost = polls.unanswered(ConnectionLostError("dropped"), ref=TaskRef("sonic", "T"))
    page = look(b"<html>ok</html>")
    assert page.phase == "transient"
    memory = None
    for seen in (lost, page, lost, page):
        memory = follow(seen, memory).memory
    assert isinstance(follow(page, memory).error, InvalidResponseError)
    error = follow(lost, memory).error
    assert isinstance(error, ConnectionLostError)
    assert error.task_id == "T"


def test_r11_a_code_in_a_2xx_counts_as_the_status() -> None:
    """`code` 404, 429, 500 and '401' in a 200 are what they say."""
    phases = [look({"code": code, "message": "m"}).phase for code in (404, 429, 500, "401", "success", 399)]
    assert phases == ["missing", "rate_limited", "transient", "stop", "pending", "pending"]
    error = follow(look({"code": 500, "message": "m"}), Memory(failures=4)).error
    assert isinstance(error, ServerError)


def test_r12_an_error_alone_in_a_2xx_passes() -> None:
    """`error` without type, data and status is transient; with one of them the body decides."""
    assert look({"error": "x"}).phase == "transient"
    assert look({"error": "x", "data": [clip()]}).phase == "done"
    assert look({"error": "", "message": "m"}).phase == "pending"


@pytest.mark.parametrize(
    ("items", "state"),
    [
        ([], "pending"),
        ([clip("pending", None), clip("pending", None)], "running"),
        ([clip(), clip("running")], "running"),
        ([clip(), clip("weird")], "running"),
        ([clip(), None], "running"),
        ([clip("SUCCEEDED"), clip("Failed", None)], "partial"),
        ([clip(), clip()], "succeeded"),
        ([{"clip_id": "c", "audio_url": FILE}], "succeeded"),
        ([{"clip_id": "c", "wav_url": FILE}], "succeeded"),
        ([{"clip_id": "c", "audio_url": "https://audiopipe.suno.ai/?item_id=c"}], "running"),
        ([{"clip_id": "c", "audio_url": FILE, "state": None}], "running"),
        ([{"clip_id": "c"}], "succeeded"),
        ([{"clip_id": "c", "title": "t"}], "running"),
        ([clip("failed", None, error="a"), clip("failed", None, error_message="b")], "failed"),
    ],
)
def test_r13_clips_decide(items: list[Any], state: str) -> None:
    """A list of clips is done when each clip is; failed when all are; odd words and items go on."""
    seen = look({"code": 200, "message": "success", "data": items})
    assert seen.update is not None
    assert seen.update.state == state
    if state == "failed":
        assert isinstance(seen.error, TaskFailedError)
        assert seen.error.message == "a; b"
        assert len(seen.error.clips) == 2


@pytest.mark.parametrize(
    "body", [[], [clip()], "x", 5, None, {}, {"data": "x"}, {"data": {"clips": [clip()]}}]
)
def test_r13_unknown_shapes_go_on(body: Any) -> None:
    """A shape that no rule knows is pending, never an end."""
    assert look(body).phase == "pending"


def test_a_finished_clip_without_its_file_is_looked_at_twice_more() -> None:
    """'succeeded' without a link is believed after two more looks, and no link is made up."""
    seen, memory = look({"data": [clip(url=None), clip()]}), None
    for _ in range(2):
        verdict = follow(seen, memory)
        assert not verdict.final
        assert verdict.update is not None
        assert verdict.update.state == "running"
        memory = verdict.memory
    last = follow(seen, memory)
    assert last.update is not None
    assert last.update.result is not None
    assert last.update.result.clips[0].final_url is None
    assert last.memory is None


def test_pairs_need_their_full_song() -> None:
    """A pair is done with its full song, failed with either part, and gives the full song."""
    full = {"extended": clip(), "full": clip(clip_id="f")}
    joining = {"extended": clip(), "full": None}
    broken = {"extended": clip("failed", None), "full": None}
    assert look({"data": [full, joining]}).phase == "running"
    seen = look({"data": [full, broken]})
    assert isinstance(seen.result, ConcatPairs)
    assert (seen.result.status, seen.result[0].clip_id, len(seen.result.pairs)) == ("partial", "f", 2)
    assert look({"data": [broken]}).phase == "failed"
    assert look({"data": [full, clip()]}).phase == "running"


def test_results_by_kind() -> None:
    """A voice is an object, stems are named, lyrics are a text."""
    voice = look({"data": {"persona_id": "p"}}, kind="create_voice").result
    assert isinstance(voice, Voice)
    assert (voice.persona_id, voice.name) == ("p", None)
    assert look({"data": {"persona_id": ""}}, kind="create_voice").phase == "pending"
    stems = look({"data": [clip(title="A - B - Vocals"), clip(stem_type="Drums")]}, kind="stems_full").result
    assert isinstance(stems, Stems)
    assert list(stems.by_name) == ["vocals", "drums"]


@pytest.mark.parametrize("word", ["failed", "FAILED", "error", "clone_error"])
def test_a_failed_voice_ends_at_once(word: str) -> None:
    """An object with a status of failure is no task that goes on; its own text is the reason."""
    seen = look(
        {"code": 200, "data": {"status": word, "error": "the voice is too short"}}, kind="create_voice"
    )
    verdict = follow(seen)
    assert verdict.final
    assert verdict.update is not None
    error = verdict.update.error
    assert isinstance(error, TaskFailedError)
    assert error.message == "the voice is too short"
    assert error.refunded is None


@pytest.mark.parametrize(
    "data",
    [
        {"status": "processing"},
        {"status": None, "error": ""},
        {"status": "weird"},
        {"persona_id": "", "status": ["failed"]},
    ],
)
def test_a_voice_without_a_failure_goes_on(data: dict[str, Any]) -> None:
    """An odd word is no failure: a wrong one would lose a voice that was paid for."""
    assert not follow(look({"data": data}, kind="create_voice")).final


def test_a_voice_that_is_there_has_not_failed() -> None:
    """The persona id is the result, whatever word stands beside it."""
    seen = look({"data": {"persona_id": "p", "status": "failed-over"}}, kind="create_voice")
    assert isinstance(seen.result, Voice)


@pytest.mark.parametrize(
    ("body", "text", "refunded"),
    [
        ({}, "no reason given", None),
        ({"message": "Example failure"}, "Example failure", None),
        ({"error": "no"}, "no", None),
        ({"error": "second", "message": "first"}, "first", None),
        ({"message": "success", "error": "no"}, "no", None),
        ({"code": 500, "data": []}, "no reason given", None),
        ({"code": 200, "data": None, "message": "success"}, "no reason given", None),
        ({"type": "not_ready", "message": "gone"}, "gone", None),
        ({"code": 202, "message": "gone"}, "gone", None),
        ({"code": 404, "message": "task not found"}, "task not found", None),
        ({"data": [clip("running", None)], "message": "half"}, "half", None),
        ({"data": [clip("failed", None, error_message="moderated")]}, "moderated", None),
        ({"message": "x", "refund_processed": True}, "x", True),
        ({"message": "x", "refund_processed": False, "already_refunded": True}, "x", False),
        ({"message": "x", "already_refunded": True}, "x", True),
        ({"message": "Credits were refunded."}, "Credits were refunded.", True),
        ({"message": ["odd"], "error": {"message": "inner"}}, "inner", None),
    ],
)
@pytest.mark.parametrize("family", ["sonic", "producer", "nuro"])
def test_the_event_song_failed_ends_the_task(
    body: dict[str, Any], text: str, refunded: bool | None, family: str
) -> None:
    """Whatever else the body holds; `message` tells why, `refund_processed` of the credits."""
    polled = polled_as(family)
    assert polled is not None
    seen = polls.read_payload({**body, "event": "song.failed"}, ref=TaskRef(family, "T"), polled=polled)
    verdict = follow(seen)
    assert verdict.final
    assert verdict.update is not None
    error = verdict.update.error
    assert isinstance(error, TaskFailedError)
    assert (error.message, error.refunded, error.task_id) == (text, refunded, "T")


def test_a_poll_is_not_read_as_an_event() -> None:
    """The name counts in webhooks only; other events are read by their bodies."""
    body = {"event": "song.failed", "data": [clip("running", None)]}
    assert look(body).phase == "running"
    polled = polled_as("sonic")
    assert polled is not None
    told = polls.read_payload({**body, "event": "song.streaming"}, ref=TaskRef("sonic", "T"), polled=polled)
    assert told.phase == "running"


def test_an_id_is_read_where_the_clip_id_is_missing() -> None:
    """In clips, pairs and uploads; a clip id wins."""
    done = look({"data": [{"id": "a", "state": "succeeded", "audio_url": FILE}, clip(id="other")]}).result
    assert isinstance(done, Clips)
    assert [one.clip_id for one in done] == ["a", "c"]
    pairs = look({"data": [{"extended": {"id": 7, "state": "succeeded"}, "full": clip()}]}).result
    assert isinstance(pairs, ConcatPairs)
    assert pairs.pairs[0].part.clip_id == "7"
    for kind in ("", "upload"):
        uploaded = look({"data": [{"id": "u"}]}, family="producer", kind=kind).result
        assert isinstance(uploaded, Clips)
        assert uploaded[0].clip_id == "u"
    lyrics = look({"data": {"text": "[Verse]"}}, family="suno", kind="make_lyrics").result
    assert isinstance(lyrics, WrittenLyrics)
    assert lyrics.lyrics == "[Verse]"
    assert look({"data": {"status": "running"}}, family="suno", kind="make_lyrics").phase == "pending"


def test_producer_status_decides_where_it_is_known() -> None:
    """Producer's top-level status goes before the clips; without one the clips decide."""
    done = {"status": "SUCCESS", "data": [{"clip_id": "c", "audio_url": FILE}]}
    assert look(done, family="producer").phase == "done"
    assert look({"status": "RUNNING", "data": [clip()]}, family="producer").phase == "running"
    assert look({"status": "NEW", "data": [clip()]}, family="producer").phase == "done"
    empty = look({"status": "SUCCESS", "data": []}, family="producer")
    assert not follow(empty).final
    assert follow(empty, Memory(without_file=2)).final


def test_an_upload_is_done_with_its_clip_id() -> None:
    """The result of a Producer upload is an id alone."""
    seen = look({"data": [{"clip_id": "u", "title": "x"}]}, family="producer", kind="upload")
    assert seen.result is not None
    assert seen.result.clips[0].clip_id == "u"
    assert follow(seen).final


def test_nuro_is_flat() -> None:
    """Nuro's one song takes the id of its task; an empty link counts as missing."""
    seen = look({"status": "succeeded", "audio_url": FILE, "duration": "9.5"}, family="nuro")
    assert seen.result is not None
    assert (seen.result.clips[0].clip_id, seen.result.clips[0].duration) == ("T", 9.5)
    assert not follow(look({"status": "succeeded", "audio_url": ""}, family="nuro")).final
    assert look({"status": "queued"}, family="nuro").note


def test_riffusion_waits_two_minutes_for_the_second_song() -> None:
    """One song of two is running until 120 s after it was first seen, then it is the result."""
    seen = look({"data": [clip()]}, family="riffusion")
    first = follow(seen, now=1000)
    assert not first.final
    between = follow(look({"data": []}, family="riffusion"), first.memory, now=1050)
    late = follow(seen, between.memory, now=1119)
    assert not late.final
    last = follow(seen, late.memory, now=1120)
    assert last.update is not None
    assert last.update.state == "succeeded"
    assert look({"message": "processing", "data": [clip(), clip()]}, family="riffusion").phase == "pending"


@pytest.mark.parametrize(
    ("data", "phase"),
    [
        ({"status": "NOT_START"}, "pending"),
        ({"status": "IN_PROGRESS"}, "running"),
        ({"status": "WAITING"}, "pending"),
        ({"status": "NOT_START", "fail_reason": "x"}, "failed"),
        ({"status": "some_error"}, "failed"),
        (None, "pending"),
        (
            {"status": "SUCCESS", "data": {"songs": [{"id": "s", "song_path": FILE, "tags": ["a", "b"]}]}},
            "done",
        ),
    ],
)
def test_studio(data: Any, phase: str) -> None:
    """Studio's inner status decides; a reason of failure is a failure."""
    seen = look({"code": "success", "data": data}, family="studio")
    assert seen.phase == phase
    if phase == "done":
        assert seen.result is not None
        assert (seen.result.clips[0].tags, seen.result.clips[0].final_url) == ("a, b", FILE)


def test_studio_without_songs_is_looked_at_twice_more() -> None:
    """SUCCESS without songs is believed after two more looks, with an empty list and the body."""
    seen, memory = look({"data": {"status": "SUCCESS", "data": None}}, family="studio"), None
    for _ in range(2):
        verdict = follow(seen, memory)
        assert not verdict.final
        memory = verdict.memory
    last = follow(seen, memory)
    assert last.update is not None
    assert last.update.result is not None
    assert list(last.update.result.clips) == []


def test_nothing_is_remembered_without_need() -> None:
    """A plain look leaves no memory, and a memory stays far below the budget of a slot."""
    assert follow(look({"data": [clip("running")]})).memory is None
    assert sys.getsizeof(Memory(failures=3, half_since=1.0)) <= 100


def test_clips_under_way_are_read_when_asked_for() -> None:
    """A poll of clips that go on reads none of them before somebody looks; then they are as any others."""
    data = [
        {"clip_id": "c1", "state": "running", "audio_url": "https://audiopipe.suno.ai/?item_id=c1"},
        {"clip_id": "c2", "state": "pending", "duration": "odd"},
    ]
    seen = look({"code": 200, "data": data})
    assert seen.phase == "running"
    assert seen.update is not None
    clips = seen.update.clips
    later = pickle.loads(pickle.dumps(clips))
    for read in (clips, later):
        assert [clip.clip_id for clip in read] == ["c1", "c2"]
        assert [clip.raw for clip in read] == data
        assert read[0].stream_url
        assert read[1].duration is None
        assert len(read) == 2
        assert read.items is read.items


@pytest.mark.parametrize("state", [["running"], {"running": 1}, None, 1, "", "RUNNING", "paused"])
def test_odd_states_are_read_with_care(state: object) -> None:
    """Only the known words are taken at their word; nothing else breaks the look or ends it."""
    seen = look({"code": 200, "data": [{"clip_id": "c", "state": state}]})
    assert seen.phase in {"running", "pending"}


@pytest.mark.parametrize(("asked", "ending"), [("wav", "wav"), ("mp3", "mp3"), ("", "wav")])
def test_the_file_of_a_producer_download_is_the_one_asked_for(asked: str, ending: str) -> None:
    """With both links the WAV is read first, unless MP3 was asked for; a track itself is its audio.

    So it is for who has only the token.
    """
    links = {"audio_url": "https://cdn.example/a.mp3", "wav_url": "https://cdn.example/a.wav"}
    polled = polled_as("producer")
    assert polled is not None
    for kind, wanted in (("download", ending), ("create_music", "mp3")):
        ref = TaskRef.parse(TaskRef("producer", "T", kind, format=asked).token)
        assert ref is not None
        raw = json.dumps({"code": 200, "data": [links]}).encode()
        seen = polls.read_poll(response.read_response(200, CIMultiDict(), raw), ref=ref, polled=polled)
        assert seen.update is not None
        assert seen.update.clips[0].final_url == f"https://cdn.example/a.{wanted}"
        assert seen.update.clips[0].raw == links
