"""Waiting for tasks: one scheduler for all of them, and the schedule of its polls.

- `waiter`: `TaskWaiter`, which polls and notifies.
- `due_queue`: the due times of all polls, one timer, a bounded number of workers.
- `subscribers`: those who wait for a task, and the slot that they share.
- `schedule`: when to poll: `LearnedSchedule`, and `PollCost` where polls are rationed.
- `duration_model`: how long a kind of task takes, learned from polls.
- `expected_webhooks`: tasks of which a webhook will come, so that polls are only the safety net.

One response is judged in `_wire.poll_response`; `_wire.poll_rules` decides what follows from it.
"""
