"""Rules over one poll response, and the conclusions from several."""

from __future__ import annotations

import json
import pickle
import sys
from typing import Any

import pytest
from multidict import CIMultiDict

from musicapi_async._wire import poll_response, response
from musicapi_async._wire.poll_result import PollResult
from musicapi_async._wire.poll_rules import Conclusion, PollHistory, conclude
from musicapi_async.api.families import polled_as
from musicapi_async.api.lyrics import WrittenLyrics
from musicapi_async.api.results import Clips, Voice
from musicapi_async.api.stems import ConcatPairs, Stems
from musicapi_async.api.task import TaskRef
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


def poll(
    body: Any,
    status: int = 200,
    *,
    family: str = "sonic",
    kind: str = "",
    headers: dict[str, str] | None = None,
) -> PollResult:
    """Judge one response."""
    polled = polled_as(family, kind)
    assert polled is not None
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return poll_response.judge_poll(
        response.read_response(status, CIMultiDict(headers or {}), raw),
        ref=TaskRef(family, "T", kind),
        polled=polled,
    )


def after(result: PollResult, history: PollHistory | None = None, **facts: Any) -> Conclusion:
    """Return what follows, for a task of another process and of some age."""
    return conclude(result, history, **{"age": 100.0, "own": False, "now": 0.0, **facts})


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
def test_202_is_pending(status: int, body: Any) -> None:
    """202, 'not_ready' or code 202 is pending, whatever else the body holds."""
    assert poll(body, status).phase == "pending"


@pytest.mark.parametrize("body", [{"type": "failed"}, {"status": "FAILED", "message": "x"}])
def test_202_with_a_failure_is_failed(body: Any) -> None:
    """A 202 that says that the task failed is a failure."""
    assert poll(body, 202).phase == "failed"


@pytest.mark.parametrize("status", [200, 400, 401, 404, 410, 429, 500, 503])
@pytest.mark.parametrize(("flag", "value"), [("already_refunded", True), ("refund_processed", False)])
def test_refund_flag_ends_at_any_status(status: int, flag: str, value: bool) -> None:
    """A task word with a refund flag is a failed task, with the flag reported as it is."""
    result = poll({"type": "api_error", "message": "no", flag: value}, status)
    assert result.phase == "failed"
    assert isinstance(result.error, TaskFailedError)
    assert (result.error.refunded, result.error.http_status) == (value, status)


@pytest.mark.parametrize("text", ["API QPS limit exceeded", "Queue is full"])
def test_limits_of_nuro_are_waited_out(text: str) -> None:
    """Nuro's limits carry the refund flag of a failure, and are waited out."""
    body = {"type": "forbidden", "message": text, "refund_processed": True}
    result = poll(body, 403, family="nuro")
    assert result.phase == "rate_limited"
    assert after(result).pause == 10


def test_rate_limit_with_a_failed_step_is_waited_out() -> None:
    """A poll that was refused for its rate is repeated, though its body names a failed step."""
    body = {
        "message": "API QPS limit exceeded",
        "failed_step": "upload",
        "steps": {"upload": {"error": "no"}},
    }
    assert poll(body, 403).phase == "rate_limited"


def test_usage_limit_ends_the_polling() -> None:
    """Nuro's usage limit is no failed task and does not pass: the poll stops."""
    body = {"type": "forbidden", "message": "API usage limit exceeded", "refund_processed": False}
    assert isinstance(after(poll(body, 403, family="nuro")).error, PermissionDeniedError)


@pytest.mark.parametrize("status", [200, 400, 500, 504])
def test_failed_is_failed_at_any_status(status: int) -> None:
    """`type` failed, and Producer's top-level FAILED, end the task at every status."""
    assert poll({"type": "failed", "error": "x"}, status).phase == "failed"
    assert poll({"status": "FAILED", "message": "x", "data": []}, status, family="producer").phase == "failed"


@pytest.mark.parametrize("word", ["timeout", "api_error", "forbidden", "bad_request"])
def test_words_of_failure_in_a_2xx(word: str) -> None:
    """These words end the task only in a 2xx."""
    assert poll({"type": word, "message": "x"}).phase == "failed"


@pytest.mark.parametrize("body", [{"type": "timeout", "error": "x"}, {"type": "api_error", "error": "x"}])
def test_failure_as_http_error_needs_a_second_poll(body: Any) -> None:
    """An error of the task as an HTTP error is believed when it comes twice."""
    result = poll(body, 500)
    first = after(result)
    assert not first.is_final
    assert first.update is not None
    assert first.update.state == "pending"
    second = after(result, first.history)
    assert second.update is not None
    assert isinstance(second.update.error, TaskFailedError)


def test_other_failure_confirms_nothing() -> None:
    """A different error, or an unfinished task in between, starts the count again."""
    one, other = poll({"type": "timeout", "error": "x"}, 500), poll({"type": "timeout", "error": "y"}, 500)
    history = after(one).history
    assert not after(other, history).is_final
    unfinished = after(poll({"data": [clip("running")]}), history)
    assert unfinished.history is None
    assert not after(one, unfinished.history).is_final


def test_refund_in_the_text_ends_at_once() -> None:
    """A text that names the refund ends the task at once, with or without the word."""
    result = poll({"message": "Task failed due to timeout. Credits were previously refunded."}, 504)
    assert result.phase == "failed"
    assert isinstance(result.error, TaskFailedError)
    assert result.error.refunded is True
    assert poll({"message": "Task failed."}, 504).phase == "unconfirmed"
    assert poll({"message": "Gateway Timeout"}, 504).phase == "transient"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthenticationError), (410, EndpointRetiredError), (403, PermissionDeniedError)],
)
def test_refusals_end_the_polling(status: int, kind: type[APIStatusError]) -> None:
    """Key, retirement and other refusals stop the poll, with the task id on the error."""
    conclusion = after(poll({"error": "no"}, status))
    assert isinstance(conclusion.error, kind)
    assert (conclusion.error.task_id, conclusion.error.family) == ("T", "sonic")
    assert "already paid" in str(conclusion.error)


def test_retired_family_names_its_replacement() -> None:
    """A retired family says what replaces it."""
    error = after(poll({"error": "gone"}, 410, family="nuro")).error
    assert isinstance(error, EndpointRetiredError)
    assert "sonic.create_music" in str(error)


@pytest.mark.parametrize(("header", "pause"), [(None, 10), ("3", 10), ("25", 25), ("86400", 60)])
def test_rate_limit_pauses_ten_seconds_or_more(header: str | None, pause: float) -> None:
    """After a 429 the next poll comes in 10 s or more; Retry-After is obeyed up to a minute."""
    result = poll({"error": "slow"}, 429, headers={"Retry-After": header} if header else None)
    assert after(result).pause == pause


def test_young_task_may_be_unknown_twice() -> None:
    """Within 60 s of our own submit an unknown id is pending at most twice."""
    result = poll({"error": "task not found."}, 400)
    first = after(result, own=True, age=15)
    second = after(result, first.history, own=True, age=30)
    third = after(result, second.history, own=True, age=45)
    assert [first.is_final, second.is_final, third.is_final] == [False, False, True]
    assert isinstance(third.error, NotFoundError)
    assert after(result, own=True, age=60).is_final
    assert after(poll(b"", 404), own=False, age=1).is_final


@pytest.mark.parametrize("status", [500, 502, 503, 504, 302])
def test_five_failures_in_a_row_end_the_polling(status: int) -> None:
    """Four failures of the service end no wait, the fifth does; a good response resets the count."""
    result, history = poll(b"<html>", status), None
    for count in range(1, 5):
        conclusion = after(result, history)
        assert (conclusion.is_final, conclusion.failures) == (False, count)
        history = conclusion.history
    assert isinstance(after(result, history).error, APIStatusError)
    assert after(poll({"data": []}), history).history is None


def test_lost_connections_and_pages_count_alike() -> None:
    """No answer, and a 200 that is not JSON, count as the same kind of failure."""
    lost = poll_response.without_response(ConnectionLostError("dropped"), ref=TaskRef("sonic", "T"))
    page = poll(b"<html>ok</html>")
    assert page.phase == "transient"
    history = None
    for result in (lost, page, lost, page):
        history = after(result, history).history
    assert isinstance(after(page, history).error, InvalidResponseError)
    error = after(lost, history).error
    assert isinstance(error, ConnectionLostError)
    assert error.task_id == "T"


def test_code_in_a_2xx_counts_as_the_status() -> None:
    """`code` 404, 429, 500 and '401' in a 200 are what they say."""
    phases = [poll({"code": code, "message": "m"}).phase for code in (404, 429, 500, "401", "success", 399)]
    assert phases == ["missing", "rate_limited", "transient", "refused", "pending", "pending"]
    error = after(poll({"code": 500, "message": "m"}), PollHistory(failures=4)).error
    assert isinstance(error, ServerError)


def test_error_alone_in_a_2xx_is_transient() -> None:
    """`error` without type, data and status is transient; with one of them the body decides."""
    assert poll({"error": "x"}).phase == "transient"
    assert poll({"error": "x", "data": [clip()]}).phase == "done"
    assert poll({"error": "", "message": "m"}).phase == "pending"


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
def test_clips_decide(items: list[Any], state: str) -> None:
    """A list of clips is done when each clip is; failed when all are; odd words and items are unfinished."""
    result = poll({"code": 200, "message": "success", "data": items})
    assert result.update is not None
    assert result.update.state == state
    if state == "failed":
        assert isinstance(result.error, TaskFailedError)
        assert result.error.message == "a; b"
        assert len(result.error.clips) == 2


@pytest.mark.parametrize(
    "body", [[], [clip()], "x", 5, None, {}, {"data": "x"}, {"data": {"clips": [clip()]}}]
)
def test_unknown_shapes_are_pending(body: Any) -> None:
    """A shape that no rule knows is pending, never an end."""
    assert poll(body).phase == "pending"


def test_finished_clip_without_file_is_polled_twice_more() -> None:
    """'succeeded' without a link is believed after two more polls, and no link is made up."""
    result, history = poll({"data": [clip(url=None), clip()]}), None
    for _ in range(2):
        conclusion = after(result, history)
        assert not conclusion.is_final
        assert conclusion.update is not None
        assert conclusion.update.state == "running"
        history = conclusion.history
    last = after(result, history)
    assert last.update is not None
    assert last.update.result is not None
    assert last.update.result.clips[0].final_url is None
    assert last.history is None


def test_pairs_need_their_full_song() -> None:
    """A pair is done with its full song, failed with either part, and gives the full song."""
    full = {"extended": clip(), "full": clip(clip_id="f")}
    joining = {"extended": clip(), "full": None}
    broken = {"extended": clip("failed", None), "full": None}
    assert poll({"data": [full, joining]}).phase == "running"
    result = poll({"data": [full, broken]})
    assert isinstance(result.result, ConcatPairs)
    assert (result.result.status, result.result[0].clip_id, len(result.result.pairs)) == ("partial", "f", 2)
    assert poll({"data": [broken]}).phase == "failed"
    assert poll({"data": [full, clip()]}).phase == "running"


def test_results_by_kind() -> None:
    """A voice is an object, stems are named, lyrics are a text."""
    voice = poll({"data": {"persona_id": "p"}}, kind="create_voice").result
    assert isinstance(voice, Voice)
    assert (voice.persona_id, voice.name) == ("p", None)
    assert poll({"data": {"persona_id": ""}}, kind="create_voice").phase == "pending"
    stems = poll({"data": [clip(title="A - B - Vocals"), clip(stem_type="Drums")]}, kind="stems_full").result
    assert isinstance(stems, Stems)
    assert list(stems.by_name) == ["vocals", "drums"]


@pytest.mark.parametrize("word", ["failed", "FAILED", "error", "clone_error"])
def test_failed_voice_ends_at_once(word: str) -> None:
    """An object with a status of failure is no task that goes on; its own text is the reason."""
    result = poll(
        {"code": 200, "data": {"status": word, "error": "the voice is too short"}}, kind="create_voice"
    )
    conclusion = after(result)
    assert conclusion.is_final
    assert conclusion.update is not None
    error = conclusion.update.error
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
def test_voice_with_an_odd_word_is_pending(data: dict[str, Any]) -> None:
    """An odd word is no failure: a wrong one would lose a voice that was paid for."""
    assert not after(poll({"data": data}, kind="create_voice")).is_final


@pytest.mark.parametrize("persona_id", ["p", 17])
def test_persona_id_is_the_result(persona_id: object) -> None:
    """The persona id is the result, whatever word stands beside it; a number is an id, as everywhere."""
    result = poll({"data": {"persona_id": persona_id, "status": "failed-over"}}, kind="create_voice")
    assert isinstance(result.result, Voice)
    assert result.result.persona_id == str(persona_id)


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
def test_event_song_failed_ends_the_task(
    body: dict[str, Any], text: str, refunded: bool | None, family: str
) -> None:
    """Whatever else the body holds; `message` tells why, `refund_processed` of the credits."""
    polled = polled_as(family)
    assert polled is not None
    result = poll_response.judge_webhook(
        {**body, "event": "song.failed"}, ref=TaskRef(family, "T"), polled=polled
    )
    conclusion = after(result)
    assert conclusion.is_final
    assert conclusion.update is not None
    error = conclusion.update.error
    assert isinstance(error, TaskFailedError)
    assert (error.message, error.refunded, error.task_id) == (text, refunded, "T")


def test_event_name_counts_in_webhooks_only() -> None:
    """The name counts in webhooks only; other events are read by their bodies."""
    body = {"event": "song.failed", "data": [clip("running", None)]}
    assert poll(body).phase == "running"
    polled = polled_as("sonic")
    assert polled is not None
    delivered = poll_response.judge_webhook(
        {**body, "event": "song.streaming"}, ref=TaskRef("sonic", "T"), polled=polled
    )
    assert delivered.phase == "running"


def test_id_replaces_a_missing_clip_id() -> None:
    """In clips, pairs and uploads; a clip id wins."""
    done = poll({"data": [{"id": "a", "state": "succeeded", "audio_url": FILE}, clip(id="other")]}).result
    assert isinstance(done, Clips)
    assert [one.clip_id for one in done] == ["a", "c"]
    pairs = poll({"data": [{"extended": {"id": 7, "state": "succeeded"}, "full": clip()}]}).result
    assert isinstance(pairs, ConcatPairs)
    assert pairs.pairs[0].part.clip_id == "7"
    for kind in ("", "upload"):
        uploaded = poll({"data": [{"id": "u"}]}, family="producer", kind=kind).result
        assert isinstance(uploaded, Clips)
        assert uploaded[0].clip_id == "u"
    lyrics = poll({"data": {"text": "[Verse]"}}, family="suno", kind="make_lyrics").result
    assert isinstance(lyrics, WrittenLyrics)
    assert lyrics.lyrics == "[Verse]"
    assert poll({"data": {"status": "running"}}, family="suno", kind="make_lyrics").phase == "pending"


def test_producer_status_goes_first() -> None:
    """Producer's top-level status goes before the clips; without one the clips decide."""
    done = {"status": "SUCCESS", "data": [{"clip_id": "c", "audio_url": FILE}]}
    assert poll(done, family="producer").phase == "done"
    assert poll({"status": "RUNNING", "data": [clip()]}, family="producer").phase == "running"
    assert poll({"status": "NEW", "data": [clip()]}, family="producer").phase == "done"
    empty = poll({"status": "SUCCESS", "data": []}, family="producer")
    assert not after(empty).is_final
    assert after(empty, PollHistory(without_file=2)).is_final


def test_upload_is_done_with_its_clip_id() -> None:
    """The result of a Producer upload is an id alone."""
    result = poll({"data": [{"clip_id": "u", "title": "x"}]}, family="producer", kind="upload")
    assert result.result is not None
    assert result.result.clips[0].clip_id == "u"
    assert after(result).is_final


def test_nuro_is_flat() -> None:
    """Nuro's one song takes the id of its task; an empty link counts as missing."""
    result = poll({"status": "succeeded", "audio_url": FILE, "duration": "9.5"}, family="nuro")
    assert result.result is not None
    assert (result.result.clips[0].clip_id, result.result.clips[0].duration) == ("T", 9.5)
    assert not after(poll({"status": "succeeded", "audio_url": ""}, family="nuro")).is_final
    assert poll({"status": "queued"}, family="nuro").note


def test_riffusion_waits_for_the_second_song() -> None:
    """One song of two is running until 120 s after the first poll that found it, then it is the result."""
    result = poll({"data": [clip()]}, family="riffusion")
    first = after(result, now=1000)
    assert not first.is_final
    between = after(poll({"data": []}, family="riffusion"), first.history, now=1050)
    late = after(result, between.history, now=1119)
    assert not late.is_final
    last = after(result, late.history, now=1120)
    assert last.update is not None
    assert last.update.state == "succeeded"
    assert poll({"message": "processing", "data": [clip(), clip()]}, family="riffusion").phase == "pending"


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
    result = poll({"code": "success", "data": data}, family="studio")
    assert result.phase == phase
    if phase == "done":
        assert result.result is not None
        assert (result.result.clips[0].tags, result.result.clips[0].final_url) == ("a, b", FILE)


def test_studio_without_songs_is_polled_twice_more() -> None:
    """SUCCESS without songs is believed after two more polls, with an empty list and the body."""
    result, history = poll({"data": {"status": "SUCCESS", "data": None}}, family="studio"), None
    for _ in range(2):
        conclusion = after(result, history)
        assert not conclusion.is_final
        history = conclusion.history
    last = after(result, history)
    assert last.update is not None
    assert last.update.result is not None
    assert list(last.update.result.clips) == []


def test_history_exists_only_when_needed() -> None:
    """A plain response leaves no history, and a history stays far below the budget of a slot."""
    assert after(poll({"data": [clip("running")]})).history is None
    assert sys.getsizeof(PollHistory(failures=3, one_song_since=1.0)) <= 100


def test_unfinished_clips_are_read_on_demand() -> None:
    """A poll of unfinished clips reads none of them before they are used; then they are as any others."""
    data = [
        {"clip_id": "c1", "state": "running", "audio_url": "https://audiopipe.suno.ai/?item_id=c1"},
        {"clip_id": "c2", "state": "pending", "duration": "odd"},
    ]
    result = poll({"code": 200, "data": data})
    assert result.phase == "running"
    assert result.update is not None
    clips = result.update.clips
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
    """Only the known words are taken at their word; nothing else breaks or ends the poll."""
    result = poll({"code": 200, "data": [{"clip_id": "c", "state": state}]})
    assert result.phase in {"running", "pending"}


@pytest.mark.parametrize(("requested", "ending"), [("wav", "wav"), ("mp3", "mp3"), ("", "wav")])
def test_producer_download_gives_the_requested_file(requested: str, ending: str) -> None:
    """With both links the WAV is read first, unless MP3 was requested; a track itself is its audio.

    The same holds for a handle made from the token.
    """
    links = {"audio_url": "https://cdn.example/a.mp3", "wav_url": "https://cdn.example/a.wav"}
    polled = polled_as("producer")
    assert polled is not None
    for kind, wanted in (("download", ending), ("create_music", "mp3")):
        ref = TaskRef.parse(TaskRef("producer", "T", kind, format=requested).token)
        assert ref is not None
        raw = json.dumps({"code": 200, "data": [links]}).encode()
        result = poll_response.judge_poll(
            response.read_response(200, CIMultiDict(), raw), ref=ref, polled=polled
        )
        assert result.update is not None
        assert result.update.clips[0].final_url == f"https://cdn.example/a.{wanted}"
        assert result.update.clips[0].raw == links
