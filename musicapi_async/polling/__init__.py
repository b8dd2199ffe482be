"""Waiting: one scheduler for all tasks, and the schedule that it follows.

| call | ends when |
| --- | --- |
| `await task.wait()` | all clips are terminal; some may have failed: `clips.failed`, `clips.require_all()` |
| `await task.wait(until="first")` | the first clip has succeeded |
| `await task.wait(until="stream")` | one clip has audio: `clip.stream_url`, about 20 s after the create |
| `async for update in task.updates()` | the task has ended; each change is an update, also a failure |
| `await task.refresh()` | at once, after one poll |

Waiting is free. Without `timeout=`, the limit is that of the family: 900 s for songs, 1800 s for stems, 600 s
for Producer and Nuro. `clip.final_url` is the link of the finished file, or None; it is never a stream. Links
expire: download soon, or poll the task with `task.refresh()` for new ones.

One scheduler polls all tasks of a client. It learns how long each kind of task takes, and polls a task when
it is likely to be done. It judges that by the age of the task and, where that says more, by the stage in the
last poll (not ready, running, streaming, first clip ready). With a job store, the next process starts with
the durations that were learned. Any number of callers may wait for the same task; they share its polls.

| module | holds |
| --- | --- |
| `waiter` | `TaskWaiter`, which polls and notifies |
| `due_queue` | the due times of all polls: one timer, a bounded number of workers |
| `poll_problems` | why polls show nothing, for the text of a time-out and the log |
| `subscribers` | the callers who wait for a task, and the slot that they share |
| `schedule` | when to poll next: `LearnedSchedule`, hints of the service, the safety net; `PollCost` |
| `duration_model` | how long a kind of task takes, learned from polls; why there is a model per stage |
| `kind_model` | the models of one kind, one for each stage, and the choice between them |
| `saved_durations` | learned durations in a job store, which processes may share |
| `expected_webhooks` | tasks whose end a webhook will report, so that polls are only the safety net |

`_wire/poll_response.py` reads the response to a poll; `_wire/poll_rules.py` decides what follows from it.
"""

from typing import TYPE_CHECKING

from .._lazy_names import lazy_names

if TYPE_CHECKING:
    from .kind_model import PolledStage, Stage
    from .schedule import LearnedSchedule, PollCost, PollSchedule

__all__ = ["LearnedSchedule", "PollCost", "PollSchedule", "PolledStage", "Stage"]

_MODULES = {
    ".kind_model": ("PolledStage", "Stage"),
    ".schedule": ("LearnedSchedule", "PollCost", "PollSchedule"),
}


if not TYPE_CHECKING:  # type checkers would believe in any name
    __getattr__, __dir__ = lazy_names(__name__, _MODULES)
