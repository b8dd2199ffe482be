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
when a poll pays. Any number of callers may wait for the same task and share its polls.
"""

from .schedule import Learned, PollPolicy

__all__ = ["Learned", "PollPolicy"]
