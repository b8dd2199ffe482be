"""Waiting: one scheduler for all tasks, and the schedule that it follows.

| call | ends when |
| --- | --- |
| `await task.wait()` | all clips are terminal; some may have failed: `clips.failed`, `clips.require_all()` |
| `await task.wait(until="first")` | the first clip has succeeded |
| `await task.wait(until="stream")` | there is any audio: `clip.stream_url`, about 20 s after the submit |
| `async for update in task.updates()` | each change, until the end; a failed task is an update with `error` |
| `await task.refresh()` | at once: one poll |

Waiting is free. Without `timeout=` the limit is the family's (900 s for songs, 1800 s for stems).
`clip.final_url` is the finished file or None, never a stream. Links expire: download soon, or refresh the
task for new ones.

One scheduler polls all tasks of a client: it polls late at first, learns how long such tasks take, and polls
when a poll pays: by the age of a task and, where that says more, by how far the last poll showed it to be
(not ready, running, a stream, the first clip). With a job store the next process begins with what was
learned. Any number of callers may wait for the same task and share its polls.

| module | holds |
| --- | --- |
| `waiter` | `TaskWaiter`, which polls and notifies |
| `due_queue` | the due times of all polls: one timer, a bounded number of workers |
| `subscribers` | the callers who wait for a task, and the slot that they share |
| `schedule` | when to poll next: `LearnedSchedule`, hints of the service, the safety net; `PollCost` |
| `duration_model` | how long a kind of task takes, learned from polls; why there is a model per stage |
| `kind_model` | the models of one kind, one for each stage, and which of them to believe |
| `saved_durations` | what was learned, in a job store that processes share |
| `expected_webhooks` | tasks of which a webhook will come, so that polls are only the safety net |

One response is judged in `_wire/poll_response.py`; `_wire/poll_rules.py` decides what follows from it.
"""

from .kind_model import PolledStage, Stage
from .schedule import LearnedSchedule, PollCost, PollSchedule

__all__ = ["LearnedSchedule", "PollCost", "PollSchedule", "PolledStage", "Stage"]
