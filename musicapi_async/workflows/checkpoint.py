"""The record of how far a workflow has come: what is paid for, and what may be.

It is for a workflow alone. A batch has its job store in the place of this, see `batch_calls`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ..errors import RequestValidationError

SETTLED_BY: Final[dict[str, tuple[str, ...]]] = {
    "upload": ("task", "clip_id"),
    "wav": ("link",),
    "midi": ("link",),
}
"""What settles a step of unknown outcome, because the workflow needs it; of all other steps, the task."""


def settled_by(step: str) -> tuple[str, ...]:
    """Return the names of the arguments of `Checkpoint.resolve` that settle this step."""
    return SETTLED_BY.get(step, ("task",))


class Checkpoint(msgspec.Struct, omit_defaults=True):
    """The results of a workflow's steps, by the name of the step: clip ids, tokens of tasks, links, files.

    Pass it to the same workflow to continue without paying for its steps again. `json` and `parse` store and
    read it.
    """

    clip_ids: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    tasks: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    links: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    files: dict[str, dict[str, str]] = msgspec.field(default_factory=dict[str, dict[str, str]])
    unknown: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """Steps that may have been carried out, and their job keys ("" without one)."""

    def resolve(
        self, step: str, *, task: str | None = None, clip_id: str | None = None, link: str | None = None
    ) -> None:
        """Set the result of a step of unknown outcome, as you found it in the dashboard. Sends nothing.

        Pass exactly one of `task`, `clip_id` and `link`.

        Args:
            step: A step in `unknown`.
            task: For every step except "wav" and "midi": the token of its task, for a task id
                `client.task("sonic", task_id).token`. A clip of the task cannot be passed instead.
            clip_id: For "upload", instead of a task: the id of the clip.
            link: For "wav" and "midi": the link of the file.

        Raises:
            RequestValidationError: The step is not in `unknown`, or the arguments do not fit it.
        """
        if step not in self.unknown:
            raise RequestValidationError(
                f"step: one of unknown outcome ({', '.join(self.unknown) or 'there is none'}), got {step!r}",
                field="step",
                value=step,
            )
        accepted = settled_by(step)
        results = {
            "task": (self.tasks, task),
            "clip_id": (self.clip_ids, clip_id),
            "link": (self.links, link),
        }
        given = [name for name, (_, value) in results.items() if value]
        if len(given) != 1 or given[0] not in accepted:
            raise RequestValidationError(
                f"step: {step!r} takes {'= or '.join(accepted)}=, got {', '.join(given) or 'nothing'}",
                field="step",
                value=step,
                hint=""
                if "task" not in accepted
                else "A task is named by its token: "
                'client.task("sonic", task_id).token, with the task id that the dashboard shows.',
            )
        by_step, value = results[given[0]]
        by_step[step] = value or ""
        del self.unknown[step]

    def resubmit(self, step: str) -> None:
        """Remove a step and its result, so that the next run pays for it again. Sends nothing."""
        self.unknown.pop(step, None)
        self.tasks.pop(step, None)
        self.clip_ids.pop(step, None)
        self.files.pop(step, None)
        self.links.pop(step, None)

    def json(self) -> str:
        """Return the checkpoint as one line of JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def parse(cls, text: str | bytes) -> Checkpoint:
        """Return the checkpoint in a text of `json`. Raises `RequestValidationError` for any other text."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise RequestValidationError(
                f"checkpoint: no JSON of a Checkpoint: {error}", field="checkpoint"
            ) from error
