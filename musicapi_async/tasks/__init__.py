"""Waiting for tasks: handles, the waiter and the schedule of its looks."""
