"""The cells of the fault matrix: one fault against one call, and what is judged of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fault_calls import (
    FINISHED,
    FREE,
    HOOK,
    MEDIA,
    PAID,
    PATIENT,
    SONG,
    SPEED,
    SUBMITTED,
    Call,
    Seen,
    client_of,
    place_of,
    seen_of,
)
from fault_cases import FAULTS, GOOD, KEY, SECRET, TASK_ID, Fault
from fault_checks import (
    DOUBLE,
    FOREIGN,
    LEAK,
    LOST,
    STATE,
    UNTRUE,
    Cell,
    check_error,
    check_files,
    check_secrets,
)
from fault_oracle import (
    MAY_FOLLOW,
    PROVEN,
    Poll,
    Reply,
    Rules,
    Verdict,
    fields_of,
    poll_verdicts,
    task_id_in,
    verdicts,
)
from hostile_server import HostileServer, Request

from musicapi_async import (
    Batch,
    DownloadError,
    MusicAPIError,
    OutcomeUnknownError,
    Task,
    TaskFailedError,
    Webhooks,
    WebhookVerificationError,
)
from musicapi_async.webhooks import sign

WAIT_SPEED = 300.0
PREPARING_SPEED = 30.0
"""Slower where time limits of the service's own are short: they must not pass because the machine is busy."""
FREE_WORDS = re.compile(
    r"(nothing|not|n't) (was |been |be )*(charged|spent|paid|sent)\b|costs? nothing", re.I
)
NOT_SENT_WORDS = re.compile(r"nothing was sent|before anything was sent|not sent", re.I)
ADVICE = re.compile(r"try again|may be repeated|simply be repeated", re.I)


Run = Callable[[Cell, Path], Awaitable[None]]
"""Carries out a cell in a folder of its own."""


def expected_of(cell: Cell, seen: Seen, rules: Rules) -> frozenset[Verdict]:
    """What may be concluded after the last attempt; an attempt before it that forbade it is a double send."""
    if not seen.replies:
        return frozenset({Verdict.NOT_SENT})
    found = [verdicts(reply, rules) for reply in seen.replies]
    for number, one in enumerate(found[:-1], 1):
        if not one & MAY_FOLLOW:
            cell.fails(DOUBLE, f"sent again after attempt {number}: {names(one)}")
            return one
    if any(request.target.split("?")[0].endswith("/elsewhere") for request in seen.arrived):
        cell.fails(DOUBLE, "a redirect was followed")
    return found[-1]


def verdict_of(error: BaseException | None, expected: frozenset[Verdict]) -> Verdict | None:
    """Which of the expected verdicts the end of the call speaks for; None if it contradicts all."""
    if error is None:
        candidates = (Verdict.RESULT, Verdict.PREPARING)
    elif isinstance(error, OutcomeUnknownError):
        candidates = (Verdict.TASK, Verdict.UNKNOWN) if error.task_id else (Verdict.UNKNOWN,)
    else:
        candidates = (Verdict.NOT_SENT, Verdict.REFUSED, Verdict.RATE)
    return next((one for one in candidates if one in expected), None)


async def paid_cell(cell: Cell, fault: Fault, call: Call, folder: Path) -> None:
    """A paid call under a job key, and the same key again when the fault is gone."""
    script = fault.script(call.good)
    async with HostileServer(script) as server:
        preparing = Verdict.PREPARING in verdicts(script[0].make(Request())[1], call.rules)
        if preparing:
            server.play([script[0], *script, GOOD(call.good)])
        speed = PREPARING_SPEED if preparing else SPEED
        store = folder / "jobs.sqlite"
        async with client_of(place_of(fault, server), speed=speed, slow=fault.slow, store=store) as client:
            first = await seen_of(server, call.make(client.with_options(job_key="k")))
            check_secrets(cell, "repr(client)", repr(client))
        expected = expected_of(cell, first, call.rules)
        verdict = verdict_of(first.error, expected)
        check_end(cell, call, first, expected, verdict)
        server.play([GOOD(call.good)])
        async with client_of(server.address, store=store) as client:
            job = await client.job("k")
            again = await seen_of(server, call.make(client.with_options(job_key="k")))
    check_job(cell, call, job, verdict, first)
    check_again(cell, call, again, expected, verdict, first)
    check_files(cell, folder)


def names(expected: frozenset[Verdict]) -> str:
    """Verdicts in words."""
    return " or ".join(sorted(one.name for one in expected))


def check_end(
    cell: Cell, call: Call, seen: Seen, expected: frozenset[Verdict], verdict: Verdict | None
) -> None:
    """The end of a paid call says what is known, and its texts say no more."""
    error = seen.error
    if error is None:
        check_secrets(cell, "repr(result)", repr(seen.result) if isinstance(seen.result, Task) else "")
        cell.expect(verdict is not None, UNTRUE, f"a result, where it should be {names(expected)}")
        return
    check_error(cell, error)
    if not isinstance(error, MusicAPIError):
        return
    kind = type(error).__name__
    if verdict is None:
        lost = expected <= {Verdict.RESULT, Verdict.TASK}
        cell.fails(LOST if lost else UNTRUE, f"{kind}, where it should be {names(expected)}")
    proven = bool(expected & PROVEN)
    charged = error.may_have_been_charged
    text = f"{error} {error.__cause__ if isinstance(error.__cause__, MusicAPIError) else ''}"
    if not proven:
        said = FREE_WORDS.search(text)
        cell.expect(said is None, UNTRUE, f"{kind} says {said and said[0]!r} without proof")
        cell.expect(charged, UNTRUE, f"{kind}.may_have_been_charged is False without proof")
    elif verdict in PROVEN:
        cell.expect(not charged, UNTRUE, f"{kind}.may_have_been_charged in spite of proof")
        said = None if Verdict.NOT_SENT in expected else NOT_SENT_WORDS.search(text)
        cell.expect(said is None, UNTRUE, f"{kind} says {said and said[0]!r}, and it was sent")
    if not proven and ADVICE.search(str(error)):
        cell.fails(UNTRUE, f"{kind} advises to repeat a call that may have been carried out")
    if Verdict.TASK in expected and verdict is not Verdict.UNKNOWN and seen.replies:
        task = task_id_in(fields_of(seen.replies[-1].body), id_is_data=call.rules.id_is_data)
        cell.expect(
            error.task_id == task, LOST, f"{kind}.task_id is {error.task_id!r}, not the id in the body"
        )
        cell.expect(str(task) in str(error), UNTRUE, f"{kind} does not name the task")


def check_job(cell: Cell, call: Call, job: Any, verdict: Verdict | None, seen: Seen) -> None:
    """The row says the same as the error."""
    state = job.state if job is not None else None
    right: dict[Verdict, tuple[str | None, ...]] = {
        Verdict.RESULT: ("accepted" if call.rules.submits else "finished",),
        Verdict.PREPARING: ("finished",),
        Verdict.UNKNOWN: ("ambiguous",),
        Verdict.TASK: ("ambiguous",)
        if call.rules.is_batch
        else ("accepted",)
        if call.rules.submits
        else ("accepted", "ambiguous", "finished"),
        Verdict.REFUSED: (None,),
        Verdict.RATE: (None,),
        Verdict.NOT_SENT: (None,),
    }
    if verdict is None:
        return  # told already: the error itself is wrong
    if isinstance(seen.result, Batch) and not seen.result.is_assigned:
        right[Verdict.RESULT] = ("ambiguous",)
    cell.expect(state in right[verdict], STATE, f"the job is {state}, after {verdict.name}")
    if verdict is Verdict.RESULT and call.rules.submits and isinstance(seen.result, Task) and job is not None:
        cell.expect(job.task_id == seen.result.task_id, STATE, "the job names another task")


def check_again(
    cell: Cell, call: Call, again: Seen, expected: frozenset[Verdict], verdict: Verdict | None, first: Seen
) -> None:
    """The same job key pays again only for what was proven not to be carried out."""
    sent = len(again.arrived)
    free = bool(expected & PROVEN)
    if not free:
        cell.expect(sent == 0, DOUBLE, f"the same job key sent again after {names(expected)}")
    elif verdict in PROVEN:
        cell.expect(sent == 1, STATE, f"the same job key sent {sent} requests after a proven refusal")
        cell.expect(again.error is None, STATE, f"the freed job key fails: {type(again.error).__name__}")
    if again.error is not None:
        check_error(cell, again.error)
    if verdict is Verdict.UNKNOWN and not free:
        right = isinstance(again.error, OutcomeUnknownError)
        cell.expect(right, STATE, f"the job key again: {type(again.error).__name__}, not OutcomeUnknownError")
    if verdict is Verdict.RESULT and call.rules.submits:
        same = again.error is None and again.result == first.result
        cell.expect(same, LOST, "the job key again does not give the task")
    if Verdict.TASK in expected and call.rules.submits and len(expected) == 1:
        given = isinstance(again.result, Task) or (
            isinstance(again.result, Batch) and bool(again.result.tasks)
        )
        cell.expect(given, LOST, "the job key again does not give the task that the error named")


async def free_cell(cell: Cell, fault: Fault, call: Call, _folder: Path) -> None:
    """A call that costs nothing: any end of the package's own will do, and a good reply must be read."""
    async with (
        HostileServer(fault.script(call.good)) as server,
        client_of(place_of(fault, server), slow=fault.slow) as client,
    ):
        seen = await seen_of(server, call.make(client))
    last = seen.replies[-1] if seen.replies else Reply(sent=False)
    if seen.error is not None:
        check_error(cell, seen.error)
        cell.expect(
            not (last.good and last.status == 200), LOST, f"{type(seen.error).__name__}, and it was there"
        )
        if call.name == "task.refresh" and isinstance(seen.error, MusicAPIError):
            said = FREE_WORDS.search(str(seen.error))
            cell.expect(said is None, UNTRUE, f"a poll of a paid task says {said and said[0]!r}")
            cell.expect(seen.error.task_id == TASK_ID, LOST, f"{type(seen.error).__name__} names no task")


async def wait_cell(cell: Cell, fault: Fault, folder: Path, times: int) -> None:
    """A task that was paid for, whose polls meet the fault `times` times before it is finished."""
    store = folder / "jobs.sqlite"
    async with HostileServer([GOOD(SUBMITTED)]) as server:
        options = {"speed": WAIT_SPEED, "store": store}
        async with client_of(server.address, slow=fault.slow, **options) as client:
            patient = client.with_options(job_key="k", attempt_timeout=PATIENT * WAIT_SPEED)
            task = await patient.sonic.create_music(**SONG)
            script = fault.script(FINISHED)
            server.play([*script[:-1], *script[-1:] * times, GOOD(FINISHED)])
            seen = await seen_of(server, task.wait(timeout=20 * WAIT_SPEED))
            await client.jobs()  # returns when the end has been written down
            job = await client.job("k")
    reply = seen.replies[min(len(seen.replies), len(script)) - 1]
    expected = poll_verdicts(reply)
    if len(script) > 1:
        expected = frozenset(Poll)
    error = seen.error
    if error is None:
        good = bool(expected & {Poll.DONE, Poll.GO_ON})
        cell.expect(good, UNTRUE, f"a result, where it should be {sorted(one.name for one in expected)}")
        polls = len(seen.arrived)
        if expected == {Poll.DONE}:
            cell.expect(polls == 1, LOST, f"the finished reply was read at poll {polls} only")
    else:
        check_error(cell, error)
        end = Poll.FAILED if isinstance(error, TaskFailedError) else Poll.STOP
        if end not in expected:
            cell.fails(LOST, f"the wait ended with {type(error).__name__}: {str(error)[:90]}")
        if isinstance(error, MusicAPIError):
            said = FREE_WORDS.search(str(error))
            cell.expect(said is None, UNTRUE, f"the end of a paid task says {said and said[0]!r}")
            cell.expect(error.task_id == TASK_ID, LOST, f"{type(error).__name__} names no task")
    right = (
        ("failed",)
        if isinstance(error, TaskFailedError)
        else ("finished",)
        if error is None
        else ("accepted",)
    )
    state = job.state if job is not None else None
    cell.expect(
        state in right, STATE, f"the job is {state} after {type(error).__name__ if error else 'success'}"
    )
    check_files(cell, folder)


async def media_cell(cell: Cell, fault: Fault, folder: Path, times: int | None) -> None:
    """A finished file from a host that misbehaves, once or for ever: whole or not at all under its name."""
    good = GOOD(MEDIA)
    script = fault.script(MEDIA)
    async with HostileServer(script if times is None else [*script * times, good]) as server:
        host = place_of(fault, server)
        url = (host if "://" in host else f"http://{host}/api/v1") + "/song.wav?sig=a%2Fb"
        async with client_of("http://127.0.0.1:9/api/v1", slow=fault.slow) as client:
            limit = 3000.0 if fault.slow else None
            seen = await seen_of(server, client.with_options(deadline=limit).download(url, folder / "out"))
    sent = any("authorization" in request.headers for request in seen.arrived)
    cell.expect(not sent, LEAK, "the API key was sent to the media host")
    out = folder / "out"
    named = [path for path in out.iterdir() if path.suffix != ".part"] if out.exists() else []
    for path in named:
        cell.expect(path.read_bytes() == MEDIA["raw"], LOST, f"{path.name} is not the file")
    reply = seen.replies[0] if seen.replies else Reply(sent=False)
    begun = reply.begun or 0
    passing = begun == 200 or 500 <= begun < 600 or begun in (403, 404, 408, 425, 429)
    if seen.error is not None:
        check_error(cell, seen.error)
        right = isinstance(seen.error, DownloadError) or not isinstance(seen.error, MusicAPIError)
        cell.expect(right, UNTRUE, f"{type(seen.error).__name__}, no DownloadError")
        whole = reply.body == MEDIA["raw"] and reply.status == 200
        once = times == 1 and passing and len(script) == 1 and fault.address == "server" and not fault.slow
        cell.expect(not (whole or once), LOST, f"not fetched: {str(seen.error)[:90]}")
    else:
        cell.expect(len(named) == 1, LOST, "no file, and no error")


async def webhook_cell(cell: Cell, fault: Fault, _folder: Path) -> None:
    """A delivery whose body is the fault's, signed as it should be."""
    finished = {**FINISHED, "task_id": TASK_ID, "platform": "suno", "event": "song.completed"}
    request = Request("POST", "/hook", {"authorization": f"Bearer {KEY}"}, json.dumps(HOOK).encode())
    reply = fault.script(finished)[0].make(request)[1]
    raw = reply.body if reply.body is not None else b""
    stamp = str(int(time.time()))
    headers = {
        "X-Webhook-Id": "e-1",
        "X-Webhook-Timestamp": stamp,
        "X-Webhook-Signature": sign(SECRET, stamp, raw),
    }
    async with client_of("127.0.0.1:9", webhooks=Webhooks(secret=SECRET)) as client:
        try:
            event = await client.webhooks.handle(headers, raw)
        except Exception as error:
            check_error(cell, error)
            right = isinstance(error, WebhookVerificationError)
            cell.expect(right, FOREIGN, f"{type(error).__name__} from a delivery")
            cell.expect(not reply.good, LOST, f"a finished delivery is refused: {str(error)[:80]}")
        else:
            if reply.good:
                done = event.task_id == TASK_ID and event.update.is_terminal
                cell.expect(done, LOST, "a finished delivery is not read as one")


def cells() -> dict[str, Run]:
    """All cells by name."""
    found: dict[str, Run] = {}

    def add(call: str, fault: Fault, run: Run) -> None:
        found[f"{call} × {fault.name}"] = run

    for fault in FAULTS:
        local = fault.address == "server"
        for call in PAID:
            add(call.name, fault, lambda cell, at, f=fault, c=call: paid_cell(cell, f, c, at))
        for call in FREE:
            add(call.name, fault, lambda cell, at, f=fault, c=call: free_cell(cell, f, c, at))
        add("download, for ever", fault, lambda cell, at, f=fault: media_cell(cell, f, at, None))
        if local:
            add("download, once", fault, lambda cell, at, f=fault: media_cell(cell, f, at, 1))
            add("wait, twice", fault, lambda cell, at, f=fault: wait_cell(cell, f, at, 2))
            add("wait, seven times", fault, lambda cell, at, f=fault: wait_cell(cell, f, at, 7))
            add("webhook", fault, lambda cell, at, f=fault: webhook_cell(cell, f, at))
    return found
