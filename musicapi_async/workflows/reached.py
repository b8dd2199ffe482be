"""The record of what a workflow has reached: what is paid for, and what may be."""

from __future__ import annotations

from typing import Final

import msgspec

from ..errors import RequestValidationError

TAKES: Final = {"upload": ("task", "clip_id"), "wav": ("link",), "midi": ("link",)}
"""What settles a step of unknown outcome: what going on reads of it. Of all others, that is the task."""


class Reached(msgspec.Struct, omit_defaults=True):
    """What a chain has got, by step: clip ids, tokens of tasks, links, files. Pass it back to go on."""

    clip_ids: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    tasks: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    links: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    files: dict[str, dict[str, str]] = msgspec.field(default_factory=dict[str, dict[str, str]])
    unknown: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """Steps that may have been carried out, and under which job key ("" without one)."""

    def resolve(
        self, step: str, *, task: str | None = None, clip_id: str | None = None, link: str | None = None
    ) -> None:
        """Say what a step of unknown outcome made.

        A `link` for "wav" and "midi", a `task` or a `clip_id` for "upload", and the `task` for every other
        step, by its token: of a task id, `client.task("sonic", task_id).token`. The clips that a task made
        are not taken in its place; the dashboard shows the task id.
        Sends nothing. Raises `RequestValidationError` for a step that is not in `unknown`, and unless one
        thing is given that the step takes.
        """
        if step not in self.unknown:
            raise RequestValidationError(
                f"step: one of unknown outcome ({', '.join(self.unknown) or 'there is none'}), got {step!r}",
                field="step",
                value=step,
            )
        takes = TAKES.get(step, ("task",))
        named = {"task": (self.tasks, task), "clip_id": (self.clip_ids, clip_id), "link": (self.links, link)}
        given = [name for name, (_, value) in named.items() if value]
        if len(given) != 1 or given[0] not in takes:
            raise RequestValidationError(
                f"step: {step!r} takes {'= or '.join(takes)}=, got {', '.join(given) or 'nothing'}",
                field="step",
                value=step,
                hint=""
                if "task" not in takes
                else "A task is named by its token: "
                'client.task("sonic", task_id).token, with the task id that the dashboard shows.',
            )
        kept, value = named[given[0]]
        kept[step] = value or ""
        del self.unknown[step]

    def resubmit(self, step: str) -> None:
        """Forget what a step gave or may have given: going on pays for it again. Sends nothing."""
        self.unknown.pop(step, None)
        self.tasks.pop(step, None)
        self.clip_ids.pop(step, None)
        self.files.pop(step, None)
        self.links.pop(step, None)

    def json(self) -> str:
        """As one line of JSON, to be stored."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def parse(cls, text: str | bytes) -> Reached:
        """Read what `json` wrote; raises `RequestValidationError` for anything else."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise RequestValidationError(
                f"reached: no JSON of a Reached: {error}", field="reached"
            ) from error
