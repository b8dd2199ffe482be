"""Batches: several songs in one call, each paid for once and none lost. The sandbox's journal is the judge."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from musicapi_async import (
    APIStatusError,
    BadRequestError,
    Batch,
    JobKeyConflictError,
    MusicAPI,
    OutcomeUnknownError,
    RateLimitedError,
    RequestValidationError,
    SQLiteStore,
    TaskFailedError,
    Webhooks,
)
from musicapi_async._wire.signature import sign
from musicapi_async.api.sonic_songs import CreateMusic
from musicapi_async.hooks import HookEvent, ResponseEvent
from musicapi_async.sandbox import Choices, Fault, Sandbox

ROWS: list[dict[str, Any]] = [
    {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"},
    {"mv": "sonic-v5", "gpt_description_prompt": "warm sun"},
]
REFUSED = {"mv": "sonic-v6", "gpt_description_prompt": "by example name"}
"""A song that the sandbox's moderation refuses."""
SECRET = "a secret of enough length"
PRICE = 20.0


@pytest.fixture
async def box() -> AsyncGenerator[Sandbox]:
    async with Sandbox() as box:
        yield box


@pytest.fixture
async def client(box: Sandbox, tmp_path: Path) -> AsyncGenerator[MusicAPI]:
    async with box.client(store=SQLiteStore(tmp_path / "jobs.sqlite")) as client:
        yield client


def answer(box: Sandbox, body: object, status: int = 200) -> None:
    """Have the next batch carried out, and answered with this body."""
    box.faults.on("POST", "/sonic/batch", Fault.status(status, body=json.dumps(body), taken=True))


def ids(batch: Batch) -> list[str | None]:
    return [None if item.task is None else item.task.task_id for item in batch.items]


# --- one call -----------------------------------------------------------------------------------------------


async def test_a_batch_is_one_request_and_each_song_is_paid_for_once(box: Sandbox, client: MusicAPI) -> None:
    """The tasks are waited for as any others; the job has ended with the last of them."""
    batch = await client.with_options(job_key="k").sonic.create_batch(ROWS)
    assert (len(batch.tasks), batch.errors, batch.is_assigned, batch.submitted) == (2, [], True, 2)
    assert [item.index for item in batch.items] == [0, 1]
    results = await client.wait_all(batch.tasks)
    assert [len(clips) for clips in results] == [2, 2]
    assert [clips[0].gpt_description_prompt for clips in results] == ["calm rain", "warm sun"]
    (create,) = box.journal.creates
    assert create.body == {"items": [{**row, "custom_mode": False} for row in ROWS]}
    assert box.journal.charges == 2 * PRICE
    job = await client.job("k")
    assert job is not None
    assert (job.state, job.outcome, [ref.model for ref in job.refs]) == (
        "finished",
        "succeeded",
        ["sonic-v6", "sonic-v5"],
    )


async def test_requests_of_single_creates_are_items_too(box: Sandbox, client: MusicAPI) -> None:
    """With the checks of a type checker; `use_suno_cdn` is of the single create alone."""
    song = CreateMusic(mv="sonic-v6", gpt_description_prompt="calm rain")
    await client.sonic.create_batch([song])
    (create,) = box.journal.creates
    assert create.body == {"items": [{**ROWS[0], "custom_mode": False, "task_type": "create_music"}]}


async def test_a_batch_counts_once_for_the_rate() -> None:
    """The next create follows after 3 s, however many songs the batch has."""
    async with Sandbox(create_limit=(1, 3.0)) as box, box.client() as client:
        await client.sonic.create_batch(ROWS * 3)
        await client.sonic.create_music(**ROWS[0])
        assert [round(pause) for pause in box.journal.intervals()] == [3]


async def test_a_refusal_for_the_rate_is_obeyed_where_each_item_counts() -> None:
    """Then the sandbox refuses what comes too early, and the client sends it once more."""
    choices = Choices(batch_rate="items")
    async with Sandbox(create_limit=(1, 3.0), choices=choices) as box, box.client() as client:
        await client.sonic.create_batch(ROWS)
        await client.sonic.create_music(**ROWS[0])
        assert [entry.status for entry in box.journal.creates] == [200, 429, 200]
        assert box.journal.charges == 3 * PRICE


async def test_a_429_is_repeated_and_pays_once(box: Sandbox, client: MusicAPI) -> None:
    """A refusal for the rate is a proof; any other failure is never repeated."""
    box.faults.on("POST", "/sonic/batch", Fault.status(429))
    assert len((await client.sonic.create_batch(ROWS)).tasks) == 2
    assert [entry.status for entry in box.journal.creates] == [429, 200]
    box.faults.on("POST", "/sonic/batch", Fault.status(429), times=None)
    with pytest.raises(RateLimitedError, match=r"Nothing was charged"):
        await client.with_options(max_retries=0).sonic.create_batch(ROWS)
    assert box.journal.charges == 2 * PRICE


async def test_the_balance_tells_what_a_batch_cost(client: MusicAPI) -> None:
    """A failed song is refunded by itself."""
    async with client.spending() as spent:
        batch = await client.sonic.create_batch(ROWS)
        await client.wait_all(batch.tasks)
    assert spent.total == 2 * PRICE


async def test_one_failed_song_is_refunded_and_loses_no_other(box: Sandbox, client: MusicAPI) -> None:
    """The others end well, and the job ends as partial."""
    box.faults.on("POST", "/sonic/batch", Fault.fail())
    batch = await client.with_options(job_key="k").sonic.create_batch(ROWS)
    failed, good = await client.wait_all(batch.tasks, return_exceptions=True)
    assert isinstance(failed, TaskFailedError)
    assert not isinstance(good, Exception)
    job = await client.job("k")
    assert job is not None
    assert (job.state, job.outcome) == ("finished", "partial")
    assert box.journal.charges == PRICE


async def test_hooks_name_all_tasks_of_a_batch(box: Sandbox) -> None:
    """As does the log, where each has a line."""
    events: list[HookEvent] = []
    async with box.client(hooks=[events.append]) as client:
        batch = await client.sonic.create_batch(ROWS)
    (event,) = [one for one in events if isinstance(one, ResponseEvent)]
    assert (event.kind, event.carried_out) == ("create_batch", True)
    assert list(event.task_ids) == ids(batch)


async def test_a_batch_pickles(client: MusicAPI) -> None:
    """With its tasks, which then have no client."""
    batch = await client.sonic.create_batch([ROWS[0], REFUSED])
    again = pickle.loads(pickle.dumps(batch))
    assert (ids(again), again.batch_id, again.raw) == (ids(batch), batch.batch_id, batch.raw)
    assert str(again.errors[0]) == str(batch.errors[0])
    with pytest.raises(RequestValidationError, match=r"client\.task"):
        await again.tasks[0].wait()


# --- refused items, and replies that say little -------------------------------------------------------------


async def test_a_refused_item_has_its_error_and_the_others_their_tasks(
    box: Sandbox, client: MusicAPI
) -> None:
    """Nothing proves that a refused item cost nothing, so that is not said. The same key sends nothing."""
    keyed = client.with_options(job_key="k")
    for _ in range(2):
        batch = await keyed.sonic.create_batch([ROWS[0], REFUSED, ROWS[1]])
        assert [task is None for task in ids(batch)] == [False, True, False]
        (error,) = batch.errors
        assert error.may_have_been_charged
        assert "artist names" in str(error)
        assert "Nothing was charged" not in str(error)
    assert len(box.journal.creates) == 1
    assert box.journal.charges == 2 * PRICE
    await client.wait_all(batch.tasks)
    job = await client.job("k")
    assert job is not None
    assert (job.state, job.outcome, len(job.refs)) == ("finished", "partial", 2)


async def test_an_item_whose_code_refuses_it_cost_nothing(box: Sandbox, client: MusicAPI) -> None:
    """An entry is read as a submit reply is, so its `code` proves what it proves there."""
    answer(box, {"batch_id": "b", "tasks": [{"task_id": "t"}, {"code": 400, "message": "too long"}]})
    (error,) = (await client.sonic.create_batch(ROWS)).errors
    assert isinstance(error, BadRequestError)
    assert "Nothing was charged" in str(error)


async def test_a_batch_of_which_every_item_is_refused_has_failed(box: Sandbox, client: MusicAPI) -> None:
    """So that it may be sent once more, on purpose."""
    batch = await client.with_options(job_key="k").sonic.create_batch([REFUSED])
    assert (batch.tasks, len(batch.errors)) == ([], 1)
    (job,) = await client.jobs("failed")
    assert job.key == "k"
    assert box.journal.charges == 0


ASSIGNED = [
    ("keys of other names", [{"id": "t1"}, {"data": {"task_id": "t2"}}], ["t1", "t2"], 0, "accepted"),
    ("texts and numbers", ["t1", 2], ["t1", "2"], 0, "accepted"),
    ("an error as text", ["t1", "the prompt is too long"], ["t1", None], 1, "accepted"),
    ("an error beside an id", [{"task_id": "t1", "error": "x"}, "t2"], ["t1", "t2"], 0, "accepted"),
    ("nothing of one item", [{"task_id": "t1"}, {}], ["t1", None], 0, "ambiguous"),
    ("null for one item", [{"task_id": "t1"}, None], ["t1", None], 0, "ambiguous"),
    (
        "an id that was damaged",
        [{"task_id": "t1"}, {"task_id": "t\ufffd", "error": "x"}],
        ["t1", None],
        0,
        "ambiguous",
    ),
    ("lists and objects", [{"task_id": ["t1"]}, [["t2"]]], [None, None], 0, "ambiguous"),
]


@pytest.mark.parametrize(
    ("entries", "tasks", "errors", "state"), [one[1:] for one in ASSIGNED], ids=[one[0] for one in ASSIGNED]
)
async def test_entry_n_belongs_to_item_n(
    box: Sandbox, client: MusicAPI, entries: list[Any], tasks: list[str | None], errors: int, state: str
) -> None:
    """Of each what it says and no more; where it says nothing, the job stays ambiguous."""
    answer(box, {"batch_id": "b", "tasks": entries})
    keyed = client.with_options(job_key="k")
    for _ in range(2):
        batch = await keyed.sonic.create_batch(ROWS)
        assert (ids(batch), len(batch.errors), batch.is_assigned) == (tasks, errors, True)
    job = await client.job("k")
    assert job is not None
    assert (job.state, [ref.task_id for ref in job.refs]) == (state, [one for one in tasks if one])
    assert len(box.journal.creates) == 1


UNASSIGNED = [
    ("fewer", [{"task_id": "t1"}], ["t1"]),
    ("more", ["t1", "t2", "t3"], ["t1", "t2", "t3"]),
    ("none", [], []),
    ("one task twice", ["t1", "t1"], ["t1"]),
    ("an error for both", [{"error": "no"}], []),
]


@pytest.mark.parametrize(
    ("entries", "tasks"), [one[1:] for one in UNASSIGNED], ids=[one[0] for one in UNASSIGNED]
)
async def test_a_reply_that_does_not_say_which_is_which_assigns_nothing(
    box: Sandbox, client: MusicAPI, entries: list[Any], tasks: list[str]
) -> None:
    """The tasks are there all the same; the job is ambiguous until a webhook or a person assigns them."""
    answer(box, {"batch_id": "b", "tasks": entries})
    keyed = client.with_options(job_key="k")
    for _ in range(2):
        batch = await keyed.sonic.create_batch(ROWS)
        assert not batch.is_assigned
        assert batch.batch_id == "b"
        assert {item.index for item in batch.items} <= {None}
        assert list(dict.fromkeys(task.task_id for task in batch.tasks)) == tasks
    assert len(box.journal.creates) == 1
    (job,) = await client.jobs("ambiguous")
    assert (job.refs, [ref.task_id for ref in job.others]) == ((), tasks)
    for item, task_id in enumerate(["t1", "t2"]):
        await client.resolve("k", task_id=task_id, item=item)
    assert ids(await keyed.sonic.create_batch(ROWS)) == ["t1", "t2"]
    assert len(box.journal.creates) == 1


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (200, {"message": "success"}, "holds no tasks"),
        (200, [], "holds no tasks"),
        (200, {"success": False, "error": "busy"}, "busy"),
        (200, {"batch_id": "b", "error": "busy"}, "busy"),
        (202, {"message": "accepted"}, "holds no tasks"),
        (400, {"batch_id": "b", "error": "some items"}, "some items"),
        (409, {"error": "conflict"}, "conflict"),
        (500, {"error": "internal"}, "internal"),
    ],
)
async def test_a_reply_without_tasks_proves_nothing(
    box: Sandbox, client: MusicAPI, status: int, body: Any, text: str
) -> None:
    """It may have been charged, the key stays taken, and nothing is sent again."""
    answer(box, body, status)
    keyed = client.with_options(job_key="k")
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError, match=text) as caught:
            await keyed.sonic.create_batch(ROWS)
        assert caught.value.may_have_been_charged
    assert len(box.journal.creates) == 1
    assert [job.key for job in await client.jobs("ambiguous")] == ["k"]


async def test_a_whole_refusal_costs_nothing_and_frees_the_key(box: Sandbox, client: MusicAPI) -> None:
    """A 400 that names no task is a proof, whatever it says of the items."""
    answer(box, {"error": "refused", "tasks": [{"error": "a"}, {"error": "b"}]}, 400)
    with pytest.raises(BadRequestError, match="Nothing was charged"):
        await client.with_options(job_key="k").sonic.create_batch(ROWS)
    assert await client.job("k") is None


@pytest.mark.parametrize(("status", "code"), [(400, None), (500, None), (200, 500), (402, None)])
async def test_an_error_that_names_tasks_loses_none(
    box: Sandbox, client: MusicAPI, status: int, code: int | None
) -> None:
    """They are on the error, and the same key gives them."""
    body = {"error": "out of credits", "tasks": [{"task_id": "t1"}, {"error": "no credits"}]}
    answer(box, body if code is None else {**body, "code": code}, status)
    keyed = client.with_options(job_key="k")
    with pytest.raises(OutcomeUnknownError, match="t1") as caught:
        await keyed.sonic.create_batch(ROWS)
    assert (caught.value.task_ids, caught.value.task_id, caught.value.job_key) == (("t1",), "t1", "k")
    assert isinstance(caught.value.__cause__, APIStatusError)
    assert pickle.loads(pickle.dumps(caught.value)).task_ids == ("t1",)
    assert ids(await keyed.sonic.create_batch(ROWS)) == ["t1", None]
    assert len(box.journal.creates) == 1


async def test_a_task_beside_the_list_is_not_lost(box: Sandbox, client: MusicAPI) -> None:
    """It is paid for, too; then it is not known which item made which task."""
    answer(box, {"message": "success", "task_id": "t0", "tasks": [{"task_id": "t1"}, {"task_id": "t2"}]})
    keyed = client.with_options(job_key="k")
    for _ in range(2):
        batch = await keyed.sonic.create_batch(ROWS)
        assert {task.task_id for task in batch.tasks} == {"t0", "t1", "t2"}
        assert not batch.is_assigned
    assert len(box.journal.creates) == 1


@pytest.mark.parametrize("says_no", [{"success": False}, {"error": "out of credits"}])
async def test_a_2xx_that_says_no_names_its_batch_or_its_items(
    box: Sandbox, client: MusicAPI, says_no: dict[str, Any]
) -> None:
    """With a batch id alone it is no result; with a reason for each item it is a batch of refusals."""
    answer(box, {**says_no, "batch_id": "bat-1"})
    with pytest.raises(OutcomeUnknownError, match="names batch bat-1"):
        await client.sonic.create_batch(ROWS)
    answer(box, {**says_no, "tasks": [{"error": "no credits"}, {"error": "too long"}]})
    batch = await client.sonic.create_batch(ROWS)
    assert (batch.tasks, [error.message for error in batch.errors]) == ([], ["no credits", "too long"])


async def test_a_refusal_for_the_rate_that_names_tasks_is_not_repeated(
    box: Sandbox, client: MusicAPI
) -> None:
    """A part was carried out, whatever the status is; all that it names are on the error."""
    answer(box, {"error": "Too many requests", "tasks": ["t1", "t2"]}, 429)
    with pytest.raises(OutcomeUnknownError) as caught:
        await client.with_options(job_key="k").sonic.create_batch(ROWS)
    assert caught.value.task_ids == ("t1", "t2")
    assert len(box.journal.creates) == 1
    assert ids(await client.with_options(job_key="k").sonic.create_batch(ROWS)) == ["t1", "t2"]
    assert len(box.journal.creates) == 1


@pytest.mark.parametrize("status", [200, 400])
async def test_a_batch_without_readable_tasks_has_its_id_in_the_log_or_the_error(
    box: Sandbox, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a job store it is all that is left of what may be paid for."""
    caplog.set_level("INFO", "musicapi_async")
    answer(box, {"message": "success", "batch_id": "bat-1", "submitted": 2, "tasks": {}}, status)
    async with box.client() as client:
        if status == 200:
            assert (await client.sonic.create_batch(ROWS)).batch_id == "bat-1"
            assert any("accepted: batch bat-1" in one.getMessage() for one in caplog.records)
        else:
            with pytest.raises(OutcomeUnknownError, match="names batch bat-1"):
                await client.sonic.create_batch(ROWS)


async def test_the_service_need_not_list_refused_items() -> None:
    """Then two entries stand for three items: none is assigned, and both songs are there."""
    async with Sandbox(choices=Choices(batch_entries="accepted")) as box, box.client() as client:
        batch = await client.sonic.create_batch([ROWS[0], REFUSED, ROWS[1]])
        assert (len(batch.tasks), batch.is_assigned, batch.submitted) == (2, False, 2)
        await client.wait_all(batch.tasks)


@pytest.mark.parametrize("tasks", ["task_id", "id", "text"])
@pytest.mark.parametrize("status", ["data", "tasks"])
async def test_every_choice_of_the_sandbox_is_understood(tasks: Any, status: Any) -> None:
    """The forms of an entry, and of the states."""
    choices = Choices(batch_tasks=tasks, batch_status=status)
    async with Sandbox(choices=choices) as box, box.client() as client:
        batch = await client.sonic.create_batch(ROWS)
        assert batch.batch_id is not None
        states = await client.sonic.get_batch(batch.batch_id)
        assert [state.task_id for state in states.tasks] == ids(batch)
        assert {state.state for state in states.tasks} == {"pending"}
        await client.wait_all(batch.tasks)
        states = await client.sonic.get_batch(batch.batch_id)
        assert [(state.state, len(state.clips), state.is_terminal) for state in states.tasks] == [
            ("succeeded", 2, True)
        ] * 2
        assert states.raw["batch_id"] == states.batch_id == batch.batch_id


# --- lost answers -------------------------------------------------------------------------------------------


def delivery(task_id: str) -> tuple[dict[str, str], bytes]:
    """A signed webhook about a task."""
    body = json.dumps({"event": "song.streaming", "platform": "suno", "task_id": task_id, "data": []})
    stamp = "1700000000"
    headers = {
        "X-Webhook-Id": task_id,
        "X-Webhook-Timestamp": stamp,
        "X-Webhook-Signature": sign(SECRET, stamp, body.encode()),
    }
    return headers, body.encode()


@pytest.fixture
async def hooked(box: Sandbox, tmp_path: Path) -> AsyncGenerator[MusicAPI]:
    """A client that orders webhooks, which come only as a test hands them over."""
    box.faults.on("WEBHOOK", "*", Fault.lost, times=None)
    webhooks = Webhooks("http://127.0.0.1:9/hook", SECRET, now=lambda: 1700000000.0)
    async with box.client(store=SQLiteStore(tmp_path / "jobs.sqlite"), webhooks=webhooks) as client:
        yield client


def ordered(box: Sandbox) -> list[dict[str, str]]:
    """The items of the last batch, as they were sent."""
    body: Any = box.journal.creates[-1].body
    return list(body["items"])


async def test_webhooks_adopt_the_items_of_a_lost_answer_one_by_one(box: Sandbox, hooked: MusicAPI) -> None:
    """Each address names its item; with the last of them the same key gives the whole batch."""
    box.faults.on("POST", "/sonic/batch", Fault.reset_after)
    keyed = hooked.with_options(job_key="k")
    with pytest.raises(OutcomeUnknownError) as caught:
        await keyed.sonic.create_batch(ROWS)
    assert caught.value.job_key == "k"
    items = ordered(box)
    assert {item["webhook_secret"] for item in items} == {SECRET}
    job = await hooked.job("k")
    assert job is not None
    assert (job.state, job.request.items, job.request.hidden) == ("ambiguous", 2, ("webhook_secret",))
    assert SECRET not in str(job)

    await hooked.webhooks.handle(*delivery("t2"), url=items[1]["webhook_url"])
    assert hooked.webhooks.task_of("k", 1) is not None
    with pytest.raises(OutcomeUnknownError):
        await keyed.sonic.create_batch(ROWS)
    await hooked.webhooks.handle(*delivery("t1"), url=items[0]["webhook_url"])
    batch = await keyed.sonic.create_batch(ROWS)
    assert (ids(batch), batch.raw, batch.is_assigned) == (["t1", "t2"], None, True)
    assert len(box.journal.creates) == 1


async def test_a_webhook_settles_no_other_item(box: Sandbox, hooked: MusicAPI) -> None:
    """The proof covers the place of the item, and one task is of one item only."""
    box.faults.on("POST", "/sonic/batch", Fault.reset_after)
    with pytest.raises(OutcomeUnknownError):
        await hooked.with_options(job_key="k").sonic.create_batch(ROWS)
    first, second = (item["webhook_url"] for item in ordered(box))
    for forged in (first.replace("job_item=0", "job_item=1"), first.replace("&job_item=0", "")):
        await hooked.webhooks.handle(*delivery("t1"), url=forged)
    job = await hooked.job("k")
    assert job is not None
    assert job.refs == ()
    await hooked.webhooks.handle(*delivery("t1"), url=first)
    await hooked.webhooks.handle(*delivery("t1"), url=second)
    job = await hooked.job("k")
    assert job is not None
    assert (job.state, [ref.task_id for ref in job.refs]) == ("ambiguous", ["t1"])


async def test_an_item_may_have_a_webhook_of_its_own_or_none(box: Sandbox, hooked: MusicAPI) -> None:
    """As the vendor's page says; an empty address orders none."""
    rows = [{**ROWS[0], "webhook_url": "http://localhost:9/own", "webhook_secret": "another long secret"}]
    rows += [{**ROWS[1], "webhook_url": ""}, ROWS[1]]
    await hooked.sonic.create_batch(rows)
    own, none, usual = ordered(box)
    assert (own["webhook_url"], own["webhook_secret"]) == ("http://localhost:9/own", "another long secret")
    assert "webhook_url" not in none
    assert "job_item=2" in usual["webhook_url"]


async def test_webhooks_end_the_waits_for_the_songs_that_have_one(box: Sandbox, tmp_path: Path) -> None:
    """Once they are known to come, such a song is polled less; one without a webhook as ever."""
    webhooks = Webhooks("http://127.0.0.1:9/hook", SECRET, now=lambda: 1700000000.0)
    box.faults.on("WEBHOOK", "*", Fault.lost, times=None)
    async with box.client(webhooks=webhooks) as client:
        song = await client.sonic.create_music(**ROWS[0])
        await client.webhooks.handle(*delivery(song.task_id))
        batch = await client.sonic.create_batch([ROWS[0], {**ROWS[1], "webhook_url": ""}])
        waits = asyncio.ensure_future(client.wait_all(batch.tasks))
        while not box.journal.polls:  # noqa: ASYNC110 - the sandbox has no event for it
            await asyncio.sleep(1)
        assert [entry.task_id for entry in box.journal.polls] == ids(batch)[1:]
        await waits


async def test_resubmit_sends_the_whole_batch_once_more_with_its_secrets(
    box: Sandbox, hooked: MusicAPI
) -> None:
    """A decision of a person, which may pay twice; nothing else sends it again."""
    box.faults.on("POST", "/sonic/batch", Fault.reset_after)
    with pytest.raises(OutcomeUnknownError):
        await hooked.with_options(job_key="k").sonic.create_batch(ROWS)
    sent = ordered(box)
    batch = await hooked.resubmit("k")
    assert isinstance(batch, Batch)
    assert ordered(box) == sent
    assert ids(await hooked.with_options(job_key="k").sonic.create_batch(ROWS)) == ids(batch)
    assert len(box.journal.creates) == 2
    assert box.journal.charges == 4 * PRICE


async def test_a_person_names_the_tasks_item_by_item(box: Sandbox, client: MusicAPI) -> None:
    """The job is settled with the last one; an item that is not there is refused."""
    box.faults.on("POST", "/sonic/batch", Fault.reset_after)
    keyed = client.with_options(job_key="k")
    with pytest.raises(OutcomeUnknownError):
        await keyed.sonic.create_batch(ROWS)
    for item in (2, -1, "1"):
        with pytest.raises(RequestValidationError, match="item: the number of an item, from 0 to 1"):
            await client.resolve("k", task_id="t", item=item)  # type: ignore[arg-type]
    assert (await client.resolve("k", task_id="t2", item=1)).task_id == "t2"
    assert [job.key for job in await client.jobs("ambiguous")] == ["k"]
    assert (await client.resolve("k", task_id="t1")).task_id == "t1"
    assert ids(await keyed.sonic.create_batch(ROWS)) == ["t1", "t2"]
    assert len(box.journal.creates) == 1


async def test_a_caller_who_is_cancelled_after_sending_loses_no_task(box: Sandbox, client: MusicAPI) -> None:
    """The answer is awaited in the background, and the same key gives the batch."""
    box.faults.on("POST", "/sonic/batch", Fault.slow(5))
    keyed = client.with_options(job_key="k")
    call = asyncio.ensure_future(keyed.sonic.create_batch(ROWS))
    while not box.journal.creates:  # noqa: ASYNC110 - the sandbox has no event for it
        await asyncio.sleep(0.1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len((await keyed.sonic.create_batch(ROWS)).tasks) == 2
    assert len(box.journal.creates) == 1


async def test_the_same_song_in_two_batches_is_paid_twice_and_a_key_twice_once(
    box: Sandbox, client: MusicAPI
) -> None:
    """A key belongs to one batch; another request under it names the item and the field that differ."""
    first, second = await asyncio.gather(*(client.sonic.create_batch(ROWS[:1]) for _ in range(2)))
    assert ids(first) != ids(second)
    keyed = client.with_options(job_key="k")
    await keyed.sonic.create_batch(ROWS)
    with pytest.raises(JobKeyConflictError, match=r"items\[1\]\.title: nothing before, 'Sun' now"):
        await keyed.sonic.create_batch([ROWS[0], {**ROWS[1], "title": "Sun"}])
    with pytest.raises(JobKeyConflictError, match=r"items\[1\]"):
        await keyed.sonic.create_batch(ROWS[:1])
    assert len(box.journal.creates) == 3


# --- requests that are refused here -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], "a list of 1 to 10, each an object, got 0 items"),
        (ROWS * 6, "got 12 items"),
        ("abc", "got 'abc'"),
        (ROWS[0], "items: a list"),
        ([1], "items: a list"),
        ([None], "items: a list"),
        ([{}], r"items\[0\]\.mv: text, not empty, needed, got nothing"),
        ([ROWS[0], {**ROWS[1], "title": "x" * 81}], r"items\[1\]\.title: .* 80 characters"),
        ([{**ROWS[0], "titel": "x"}], r"items\[0\]\.titel: .* \(did you mean 'title'\?\)"),
        ([{**ROWS[0], "task_type": 7}], r"items\[0\]\.task_type: text, got 7"),
        ([{"task_type": "new", "webhook_url": "http://example.com"}], r"items\[0\]\.webhook_url: an https"),
        ([{"task_type": "new", "webhook_secret": "short"}], r"items\[0\]\.webhook_secret: .*, got a secret"),
        ([{**ROWS[0], "task_type": "extend_music"}], r"items\[0\]\.continue_clip_id"),
        ([{**ROWS[0], "webhook_url": "http://example.com"}], r"items\[0\]\.webhook_url: an https address"),
        ([{**ROWS[0], "webhook_secret": "short"}], r"items\[0\]\.webhook_secret: .*, got a secret"),
        ([{**ROWS[0], "duration": "long"}], r"items\[0\]\.duration"),
        ([{**ROWS[0], "mv": object()}], "items: a list"),
    ],
)
async def test_wrong_items_are_refused_before_they_cost_anything(
    box: Sandbox, client: MusicAPI, items: Any, text: str
) -> None:
    """With the item, the field and its limit."""
    with pytest.raises(RequestValidationError, match=text) as caught:
        await client.sonic.create_batch(items)
    assert "short" not in str(caught.value)
    assert "Nothing was sent" in str(caught.value)
    assert len(box.journal) == 0


async def test_an_unknown_task_type_is_sent_as_it_is(box: Sandbox, client: MusicAPI) -> None:
    """Task types are open: the service decides on a new one and on its fields, as on a new model."""
    item = {"task_type": "sing_backwards", "clip_id": "c", "depth": 2}
    batch = await client.sonic.create_batch([ROWS[0], item])
    assert box.journal.creates[0].body["items"][1] == item
    assert [task is None for task in ids(batch)] == [False, True]
    assert "task_type" in str(batch.errors[0])


async def test_a_secret_of_an_item_is_in_no_text(client: MusicAPI) -> None:
    """Neither of the request nor of an error about another field."""
    rows = [{**ROWS[0], "webhook_url": "https://example.com", "webhook_secret": SECRET, "title": 3}]
    with pytest.raises(RequestValidationError) as caught:
        await client.sonic.create_batch(rows)
    assert SECRET not in repr(caught.value.__dict__)


async def test_a_batch_larger_than_the_cap_is_refused(box: Sandbox) -> None:
    """It could wait for ever."""
    async with box.client(max_in_flight=1) as client:
        with pytest.raises(RequestValidationError, match="at most max_in_flight=1 items, got 2"):
            await client.sonic.create_batch(ROWS)
    assert len(box.journal) == 0


async def test_batches_share_the_cap_and_none_waits_for_ever(box: Sandbox) -> None:
    """Each takes all of its permits at once; those of refused items are free again."""
    async with box.client(max_in_flight=3, rate_limit=None) as client:

        async def made(rows: list[dict[str, Any]]) -> int:
            batch = await client.sonic.create_batch(rows)
            service = box.service
            running = sum(now < task.ends for task in service.tasks for now in [box.now()])
            await client.wait_all(batch.tasks)
            return running

        rows = [ROWS[0], REFUSED]
        assert max(await asyncio.gather(*(made(rows if n % 2 else ROWS) for n in range(8)))) <= 3
        await asyncio.gather(*(client.sonic.create_music(**ROWS[0]) for _ in range(3)))
    assert box.journal.charges == (4 * 2 + 4 + 3) * PRICE
