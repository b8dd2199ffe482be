"""The state machine of a job: the table, and the jobs of batches, which make several tasks."""

from __future__ import annotations

import pytest

from musicapi_async.api.task import TaskRef
from musicapi_async.errors import RequestValidationError
from musicapi_async.jobs import Job, JobRequest, JobTask, Owner, Transition
from musicapi_async.jobs.job import STATES
from musicapi_async.jobs.reservation import reserve, resubmitted
from musicapi_async.jobs.transitions import (
    TRANSITIONS,
    accepted,
    adopted,
    disputed,
    ended,
    released,
    resolved,
    returned,
    sending,
    unknown,
)

BATCH = JobRequest("POST /sonic/batch", "http://host", '{"items":[]}', "sonic", "create_batch", items=3)
ME = Owner("host", "boot", 1, "1", "nonce")
REFUSED = JobTask(outcome="failed", error="prompt: too long")


def is_alive(_owner: Owner) -> bool:
    return True


def task(name: str) -> TaskRef:
    return TaskRef("sonic", name, "create_batch")


def made(name: str) -> JobTask:
    """An item of an answer that names a task."""
    return JobTask(ref=task(name))


def after(*steps: Transition, job: Job | None = None) -> Job:
    """A job after these steps."""
    for step in steps:
        job = step(job)
    assert job is not None
    return job


SENT = after(reserve("k", BATCH, ME, is_alive, 1.0), sending(ME, 2.0))
LOST = after(unknown(ME, "the connection dropped", None, 3.0), job=SENT)


def answer(*items: JobTask) -> Transition:
    return accepted(SENT, items, "{}", 4.0)


def ids(job: Job) -> list[str | None]:
    """The task ids of the items."""
    return [None if item.ref is None else item.ref.task_id for item in job.tasks]


def test_table_knows_every_state_and_leaves_none_without_a_way_out() -> None:
    """From each state that is not settled some event leads to a settled one."""
    reached = {state for row in TRANSITIONS.values() for state in row.values()}
    assert reached == {None, *STATES}
    for start in set(STATES) - {"finished", "failed"}:
        seen, todo = set[object](), [start]
        while todo:
            state = todo.pop()
            if state not in seen:
                seen.add(state)
                todo += [
                    row[state] for row in TRANSITIONS.values() if state in row and row[state] is not None
                ]
        assert {"finished", "failed"} <= seen


@pytest.mark.parametrize("state", STATES)
def test_events_that_the_table_does_not_have_change_nothing(state: str) -> None:
    """A late note of a sender, or of a task's end, leaves a job in any other state as it is."""
    job = Job(key="k", state=state, request=BATCH, created_at=1.0, updated_at=1.0, owner=ME)  # type: ignore[arg-type]
    for event, step in {
        "returned": returned(ME, 2.0),
        "released": released(ME),
        "unknown": unknown(ME, "lost", None, 2.0),
    }.items():
        assert (step(job) is job) == (state not in TRANSITIONS[event])  # type: ignore[index]
    assert ended(task("a"), "succeeded", None, "", 2.0)(job) is job


def test_batch_is_accepted_when_every_item_has_a_task_or_an_error() -> None:
    """A refused item is an outcome; the job ends with its last task, and tells of all."""
    job = after(answer(made("a"), REFUSED, made("c")), job=SENT)
    assert (job.state, ids(job), job.owner) == ("accepted", ["a", None, "c"], None)
    job = after(ended(task("a"), "succeeded", None, "", 5.0), job=job)
    assert (job.state, job.outcome) == ("accepted", "")
    assert ended(task("a"), "failed", None, "late", 5.0)(job) == job
    job = after(ended(task("c"), "failed", True, "no voice", 6.0), job=job)
    assert (job.state, job.outcome, job.refunded) == ("finished", "partial", None)
    assert job.why == "prompt: too long; no voice"


def test_batch_whose_items_were_all_refused_or_failed_has_failed() -> None:
    """So that it can be sent once more, on purpose."""
    assert after(answer(REFUSED, REFUSED, REFUSED), job=SENT).state == "failed"
    job = after(
        answer(made("a"), made("b"), REFUSED),
        ended(task("a"), "failed", True, "x", 5.0),
        ended(task("b"), "failed", True, "x", 5.0),
        job=SENT,
    )
    assert (job.state, job.outcome, job.why) == ("failed", "failed", "x; prompt: too long")
    again = after(resubmitted("k", ME, is_alive, 6.0), job=job)
    assert (again.state, again.tasks, [one.task_id for one in again.others]) == ("reserved", (), ["a", "b"])


def test_batch_answer_that_misses_an_item_leaves_it_ambiguous() -> None:
    """What is known is stored; a webhook or a person names the rest, item by item."""
    job = after(answer(made("a"), JobTask(), made("c")), job=SENT)
    assert (job.state, ids(job)) == ("ambiguous", ["a", None, "c"])
    assert "no task for 1 of its 3 items" in job.why
    job = after(ended(task("a"), "succeeded", None, "", 5.0), job=job)
    assert job.state == "ambiguous"
    with pytest.raises(RequestValidationError, match="only an ambiguous job"):
        resolved("k", task("x"), is_alive, 6.0, item=0)(job)
    job = after(resolved("k", task("b"), is_alive, 6.0, item=1), job=job)
    assert (job.state, ids(job), job.tasks[0].outcome) == ("accepted", ["a", "b", "c"], "succeeded")


def test_webhooks_adopt_the_items_of_a_lost_batch_one_by_one() -> None:
    """In any order, each once; the job is settled with the last of them."""
    job = after(adopted(task("c"), 4.0, item=2), adopted(task("a"), 4.0, item=0), job=LOST)
    assert (job.state, ids(job)) == ("ambiguous", ["a", None, "c"])
    assert adopted(task("x"), 5.0, item=2)(job) is job
    job = after(adopted(task("b"), 5.0, item=1), job=job)
    assert (job.state, ids(job)) == ("accepted", ["a", "b", "c"])
    assert all(item.by_webhook for item in job.tasks)


def test_answer_of_a_batch_joins_what_webhooks_have_named() -> None:
    """A task that ended meanwhile stays ended, an item that only a webhook named stays named, none is lost."""
    job = after(
        adopted(task("a"), 3.0, item=0),
        adopted(task("x"), 3.0, item=1),
        adopted(task("c"), 3.0, item=2),
        ended(task("a"), "succeeded", None, "", 4.0),
        answer(made("a"), made("b"), JobTask()),
        job=SENT,
    )
    assert (job.state, ids(job), [one.task_id for one in job.others]) == ("accepted", ["a", "b", "c"], ["x"])
    assert [item.outcome for item in job.tasks] == ["succeeded", "", ""]
    assert [item.by_webhook for item in job.tasks] == [False, False, True]


def test_disputed_item_is_undecided_again() -> None:
    """The other items keep their tasks."""
    job = after(adopted(task("a"), 4.0, item=0), adopted(task("b"), 4.0, item=1), job=LOST)
    job = after(disputed(task("a"), 5.0), job=job)
    assert (job.state, ids(job), job.disputed) == ("ambiguous", [None, "b", None], ("a",))
    assert adopted(task("a"), 6.0, item=0)(job) is job
