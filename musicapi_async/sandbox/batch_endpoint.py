"""Sonic's batches: several creates in one call, and the states of their tasks in one reply.

The vendor's page names the request and the head of the reply. What it leaves open is in `Choices`: the form
of an entry, whether refused items have one, the form of a status, and how a batch counts for the limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from ..api.json_values import JSON, list_or_empty, mapping_or_empty
from .backend import Call, Service
from .poll_bodies import poll_reply
from .replies import JsonReply, Refusal, in_form, invalid, not_found
from .sonic_creates import create
from .validation import ID, Form

MOST_ITEMS: Final = 10
"""Items of a batch at most (vendor's page)."""


def create_batch(call: Call) -> JsonReply:
    """`POST /sonic/batch`: each item is a create, and what is refused is reported per item."""
    choices, service = call.service.choices, call.service
    entries: list[object] = []
    task_ids: list[str] = []
    for form in _items(call.form):
        try:
            create(Call(service, form, call.entry, call.now))
        except Refusal as refusal:
            if choices.batch_entries == "all":
                entries.append(in_form(refusal, choices.error))
        else:
            task_ids.append(call.entry.task_id)  # it has the last task that was ordered
            entries.append(_entry(service, call.entry.task_id))
    batch_id = service.new_id()
    service.batches.put(batch_id, tuple(task_ids))
    call.entry.task_id = task_ids[0] if task_ids else ""
    body = {"message": "success", "batch_id": batch_id, "submitted": len(task_ids), "tasks": entries}
    return JsonReply(body)


def _items(form: Form) -> list[Form]:
    items = list_or_empty(form.get("items"))
    if not 1 <= len(items) <= MOST_ITEMS or not all(isinstance(item, dict) for item in items):
        raise invalid(f"The 'items' field should be an array of 1 to {MOST_ITEMS} objects.")
    return [Form(mapping_or_empty(item)) for item in items]


def _entry(service: Service, task_id: str) -> object:
    """Return the entry of a task in the reply, in the form of the choice."""
    match service.choices.batch_tasks:
        case "id":
            return {"id": task_id}
        case "text":
            return task_id
        case _:
            return {"task_id": task_id}


def count_items(body: Mapping[str, JSON]) -> int:
    """Return the number of items in the body of a batch."""
    return len(list_or_empty(body.get("items")))


def batch_reply(service: Service, batch_id: str, now: float) -> JsonReply:
    """Return the reply to `GET /sonic/batch`: of each task what a poll of it answers."""
    if not batch_id:
        raise invalid("missing batch id.")
    task_ids = service.batches.get(batch_id) if len(batch_id) <= ID else None
    if task_ids is None:
        raise not_found("batch not found.")
    entries = [{"task_id": task_id, **_state(service, task_id, now)} for task_id in task_ids]
    return JsonReply({"batch_id": batch_id, service.choices.batch_status: entries})


def _state(service: Service, task_id: str, now: float) -> dict[str, object]:
    try:
        body = poll_reply(service, "sonic", task_id, now).body
    except Refusal as refusal:
        body = refusal.body
    return cast("dict[str, object]", body)
