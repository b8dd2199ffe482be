"""Waiting: one scheduler for all tasks, and the schedule it follows."""
