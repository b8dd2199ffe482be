"""Exit codes and texts, as plain functions."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicapi_async import (
    AuthenticationError,
    ConnectFailedError,
    ContentModerationError,
    DownloadError,
    InsufficientCreditsError,
    MusicAPIError,
    OutcomeUnknownError,
    RequestValidationError,
    TaskFailedError,
    TaskTimeoutError,
)
from musicapi_async._wire.result_reading import read_clip
from musicapi_async.api.results import TaskUpdate
from musicapi_async.api.task import TaskRef
from musicapi_async.cli.error_texts import Saving, error_fields, next_step
from musicapi_async.cli.exit_codes import ExitCode, exit_code_of, gravest
from musicapi_async.cli.invocation import Invocation
from musicapi_async.cli.output import visible
from musicapi_async.cli.progress import AGE, Bars, age_text, expected_share
from musicapi_async.cli.result_texts import value_lines
from musicapi_async.cli.task_commands import refs_of

ERRORS = [
    (RequestValidationError("title: too long"), ExitCode.REFUSED),
    (AuthenticationError("wrong key", status=401), ExitCode.NOT_ALLOWED),
    (InsufficientCreditsError("no credits", status=403), ExitCode.NOT_ALLOWED),
    (ContentModerationError("copyright", status=403), ExitCode.OTHER),
    (TaskFailedError("upstream", task_id="t", family="sonic"), ExitCode.TASK_FAILED),
    (TaskTimeoutError("still running", task_id="t", family="sonic"), ExitCode.STILL_RUNNING),
    (OutcomeUnknownError("lost"), ExitCode.OUTCOME_UNKNOWN),
    (MusicAPIError("odd", may_have_been_charged=True), ExitCode.OUTCOME_UNKNOWN),
    (ConnectFailedError("refused"), ExitCode.OTHER),
    (DownloadError("disk full"), ExitCode.OTHER),
]


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_every_error_has_its_code(error: MusicAPIError, code: int) -> None:
    """Scripts can tell what happened from the exit code."""
    assert exit_code_of(error) == code


def test_gravest_code_wins() -> None:
    """Of several ends, the one that costs most when overlooked decides."""
    assert (
        gravest([ExitCode.OTHER, ExitCode.OUTCOME_UNKNOWN, ExitCode.TASK_FAILED]) == ExitCode.OUTCOME_UNKNOWN
    )
    assert gravest([ExitCode.STILL_RUNNING, ExitCode.TASK_FAILED]) == ExitCode.TASK_FAILED
    assert gravest([]) == ExitCode.OK


def test_error_objects_have_same_keys_always() -> None:
    """A program may rely on every key being there, and no text speaks of Python."""
    objects = [error_fields(error, code) for error, code in ERRORS]
    assert len({tuple(fields) for fields in objects}) == 1
    assert not any("client." in str(value) for fields in objects for value in fields.values())


def test_timeout_names_finished_clips() -> None:
    """In terms of the command, and only where it helps."""
    ready = [
        read_clip({"clip_id": "c", "state": "succeeded"}),
        read_clip({"clip_id": "d", "state": "running"}),
    ]
    for clips, named in ((ready, True), (ready[1:], False)):
        error = TaskTimeoutError("still running", clips=clips, task_id="t", family="sonic")
        assert ("--until first" in next_step(error)) is named
        assert "client." not in next_step(error)


@given(st.text())
def test_no_title_can_steer_terminal(text: str) -> None:
    """Control and format characters never reach it."""
    shown = visible(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202e\u2066" for c in shown)


@given(st.floats(min_value=0, max_value=1e6), st.floats(min_value=0, max_value=1e6))
def test_bar_only_grows_and_never_claims_end(one: float, other: float) -> None:
    """It is full only when the task has ended."""
    low, high = sorted((one, other))
    assert 0 <= expected_share(low) <= expected_share(high) < 1


def test_task_ended_before_first_poll_has_no_age() -> None:
    """When it ended is not known; one that is still under way shows the time since its submit."""
    end = TaskUpdate("failed", error=TaskFailedError("upstream"))
    ended, running = Bars().bar("ended"), Bars().bar("running")
    unpolled = TaskUpdate("pending")
    for bar, looks in (
        (ended, [unpolled, end]),
        (running, [unpolled, TaskUpdate("running", age=9540.0), end]),
    ):
        bar.resume(9540.0)
        assert bar.words[-1][0] == ""
        for look in looks:
            bar.show(look)
        bar.stop("failed")
    assert (ended.words[-1][0], running.words[-1][0]) == ("", "2h39")


@given(st.floats(min_value=0, max_value=8e7))
def test_age_fits_its_column(seconds: float) -> None:
    """Minutes, hours or days."""
    assert len(age_text(seconds)) <= AGE
    assert [age_text(one) for one in (162, 3600, 9540, 432000)] == ["2:42", "1h00", "2h39", "5 d"]


def test_unfinished_tasks_are_resumed_by_right_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`wait` for tasks, or `download` as the files were requested; also for a task that only the log names."""
    plain, wanted = TaskRef("sonic", "p", "create_music", 5).token, TaskRef("sonic", "w").token
    invocation = Invocation()
    invocation.json = False
    invocation.track_logged(plain)
    invocation.saving = Saving(Path("my songs"), tags=True, pattern="{index}")
    invocation.track_logged(wanted)
    assert (invocation.unfinished, invocation.not_downloaded) == ([plain, wanted], [wanted])
    invocation.interrupted()
    text = " ".join(capsys.readouterr().err.replace("\\\n", "").split())
    assert f"musicapi wait {plain} " in text
    assert text.endswith(f"musicapi download --out 'my songs' --name '{{index}}' --tags {wanted}")


def test_replies_read_well() -> None:
    """Flat objects take a line each, long text keeps its lines, empty fields are left out."""
    words = [{"word": "la", "start_s": 4.0678}, {"word": "li", "start_s": 5.0}]
    lyrics = [{"title": "Cat", "lyrics": "one\ntwo"}]
    shown = value_lines({"bpm": 118.0, "key": None, "tags": ["a", "b"], "words": words, "results": lyrics})
    plain = [click.unstyle(line) for line in shown]
    assert plain[:2] == ["bpm  118", "tags  a, b"]
    assert plain[2:5] == ["words", "  word la  start_s 4.0678", "  word li  start_s 5"]
    assert plain[5:] == ["results", "  title  Cat", "  lyrics", "  one", "  two", ""]


def test_tokens_and_ids_are_accepted_once() -> None:
    """A token knows its family; a bare id gets the one that was given."""
    token = TaskRef("producer", "p1", "create_music", 5).token
    refs = refs_of([token, "s1", "s1"], "sonic")
    assert [(ref.family, ref.task_id) for ref in refs] == [("producer", "p1"), ("sonic", "s1")]
