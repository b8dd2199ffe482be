"""Batches: several songs in one paid call, and the states of its tasks in one free one.

The vendor's page "Batch Music Generation API" names the fields of the request and of the reply, and says that
each item costs what a single create costs, that failures are reported per item, and that each item may have
a webhook of its own. It does not name the keys inside `tasks`, nor the form of a status.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, cast

import msgspec
from msgspec import Meta

from ..errors import APIStatusError, Violation
from ..plain_data import PlainData, fields_of
from . import sonic_songs
from .direct_replies import Reply
from .json_values import JSON, mapping_or_empty
from .request import Request, WebhookFields, body, fields, picture, violations
from .response_info import Received, ResponseInfo
from .results import Clip, Clips, Failure, Item
from .suggestions import did_you_mean
from .task import Task

BATCH_CALL: Final = "POST /sonic/batch"
"""The call that creates a batch."""

MOST_ITEMS: Final = 10
"""Items of a batch at most (vendor's page)."""

MOST_ENTRIES: Final = 1000
"""Entries of a reply that are read: a hundred times what a request can ask for."""

TASK_TYPES: Final[Mapping[str, type[Request]]] = {
    str(kind.__struct_config__.tag): kind
    for kind in vars(sonic_songs).values()
    if isinstance(kind, type)
    and issubclass(kind, Request)
    and kind.__struct_config__.tag_field == "task_type"
}
"""The requests of a single create by their task type: an item takes the fields of one of them."""

ENDS: Final = frozenset({"succeeded", "partial", "failed"})
"""States of a task that has ended."""

if TYPE_CHECKING:
    Songs = Sequence[Mapping[str, Any] | Request]
else:
    Songs = list[dict[str, Any]]
"""The items: each the arguments of a single create by name, such as those of `create_music`."""


class CreateBatch(Request):
    """Create several songs in one call: 1 to 10 items, each with the arguments of `create_music`.

    Each item costs as much as a single create, and the call counts once for the rate of creates. An item with
    another `task_type`, such as `cover_music`, takes the arguments of that operation; one that is not known
    here is sent as it is. The service may accept some items and refuse others, each with its own error. One
    job key covers the whole call.
    """

    example: ClassVar[str] = """\
batch = await client.{family}.create_batch(
    [{"mv": "sonic-v6", "gpt_description_prompt": text} for text in ("calm rain", "warm sun")]
)
results = await client.wait_all(batch.tasks)"""

    items: Annotated[
        Songs,
        Meta(
            min_length=1,
            max_length=MOST_ITEMS,
            description="The songs, each an object with the arguments of a single create.",
            examples=[
                [
                    {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"},
                    {"mv": "sonic-v6", "title": "Rain", "prompt": "[Verse]\nRain on the window"},
                ]
            ],
        ),
    ]

    def __post_init__(self) -> None:
        given = cast("object", self.items)
        if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
            self.items = [_as_item(one) for one in cast("Iterable[object]", given)]

    def rules(self) -> Iterator[Violation]:
        for index, item in enumerate(self.items):
            for broken in _broken(cast("Mapping[str, object]", item)):
                yield Violation(f"items[{index}].{broken.field}", broken.limit, broken.value)

    def as_sent(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the body: of each item without None and empty texts, and with its mode."""
        items = values.get("items")
        if not isinstance(items, list):
            return values
        return {**values, "items": [_sent(one) for one in cast("list[object]", items)]}


class GetBatch(Request):
    """Get the states of all tasks of a batch in one call. To wait, use `client.wait_all(batch.tasks)`."""

    example: ClassVar[str] = """\
batch = await client.{family}.create_batch([{"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}])
states = await client.{family}.get_batch(batch.batch_id)
print([task.state for task in states.tasks])"""

    batch_id: Annotated[str, Meta(min_length=1, description="Batch id, from create_batch.")]


def _as_item(given: object) -> Any:
    """Return an item as an object; a request of a single create as what it would send."""
    if isinstance(given, Request):
        fields = body(given)
        if not fields.get("use_suno_cdn"):
            fields.pop("use_suno_cdn", None)  # of `create` alone the service demands it
        return fields
    return dict(cast("Mapping[str, Any]", given)) if isinstance(given, Mapping) else given


def _sent(item: object) -> object:
    """Return an item as it is sent; `custom_mode` follows from its text where it is left out."""
    if not isinstance(item, dict):
        return item
    sent = {name: value for name, value in cast("dict[str, Any]", item).items() if value not in (None, "")}
    kind = TASK_TYPES.get(_task_type(sent))
    if kind is not None and issubclass(kind, sonic_songs.SongFields) and "custom_mode" not in sent:
        sent["custom_mode"] = sonic_songs.is_custom(sent.get("prompt"), sent.get("gpt_description_prompt"))
    return sent


def _task_type(item: Mapping[str, object]) -> str:
    return str(item.get("task_type") or "create_music")


def _broken(item: Mapping[str, object]) -> Iterator[Violation]:
    """Find the rules of a single create that an item breaks; with an unknown task type, those of webhooks."""
    given = item.get("task_type")
    if given is not None and not isinstance(given, str):
        yield Violation("task_type", "text", picture(given))
        return
    kind = TASK_TYPES.get(_task_type(item))
    if kind is None:  # the service decides, as on an unknown model
        shared = {name: item[name] for name in WebhookFields.__struct_fields__ if name in item}
        yield from violations(WebhookFields(**cast("dict[str, Any]", shared)))
        return
    known = {field.name: field for field in fields(kind)}
    values = {name: value for name, value in item.items() if value is not None and name != "task_type"}
    for name in values.keys() - known.keys():
        yield Violation(
            str(name), f"an argument of {_task_type(item)}{did_you_mean(str(name), known)}", "another name"
        )
    missing = [name for name, field in known.items() if field.required and values.get(name) in (None, "")]
    for name in missing:
        yield Violation(name, f"{known[name].limit}, needed", "nothing")
    if not missing:
        yield from violations(kind(**{name: value for name, value in values.items() if name in known}))


class BatchItem(
    PlainData, fields={"index": int | None, "task": Task[Clips] | None, "failure": Failure | None}
):
    """One entry of the reply to a batch: the task of an item, or the error with which it was refused.

    If an entry has neither `task` nor `error`, the outcome of its item is unknown: it may have been charged.

    Args:
        index: the index of the item in the request, from 0; None if the reply does not say which item the
            entry belongs to.
        task: the task of the item.
        error: the refusal. Its `may_have_been_charged` is True unless the entry proves that the item was not
            charged.
        failure: the refusal as plain data.
        raw: the entry of the reply.
    """

    __slots__ = ("error", "index", "raw", "task")

    def __init__(
        self,
        index: int | None = None,
        task: Task[Clips] | None = None,
        error: APIStatusError | None = None,
        *,
        failure: Failure | None = None,
        raw: Any = None,
    ) -> None:
        if error is None and failure is not None:
            error = APIStatusError(
                failure.message, status=200, type=failure.type, call=BATCH_CALL, may_have_been_charged=True
            )
        self.index: int | None = index
        self.task: Task[Clips] | None = task
        self.error: APIStatusError | None = error
        self.raw: Any = raw

    @property
    def failure(self) -> Failure | None:
        """`error` as plain data; None if the item was not refused."""
        return None if self.error is None else Failure(self.error.message, self.error.type)

    def __eq__(self, other: object) -> bool:
        return self._facts() == other._facts() if isinstance(other, BatchItem) else NotImplemented

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # compared by value

    def _facts(self) -> tuple[object, ...]:
        return self.index, self.task, self.failure

    def __repr__(self) -> str:
        end = self.task if self.task is not None else self.error
        return f"BatchItem({self.index}, {end!r})"


class Batch(
    PlainData,
    fields={
        "batch_id": str | None,
        "submitted": int | None,
        "items": list[BatchItem],
        "is_assigned": bool,
        "job_key": str | None,
    },
):
    """The songs of a batch that the service accepted, as far as its reply names them. Each task is paid for.

    If `is_assigned` is True, `items` has one entry for each item of the request, in its order. If it is
    False, the reply has more or fewer entries than the request has items, or names a task twice: it is not
    known which task belongs to which item, and a recorded job stays ambiguous. A batch that was pickled has
    no client, and neither have its tasks.

    Args:
        batch_id: the id for `get_batch`; None if the reply has none.
        submitted: the number of submitted items, as the service says.
        items: the entries.
        is_assigned: True if entry n belongs to item n.
        job_key: the key of its job, if it has one.
        raw: the reply.
    """

    __slots__ = ("_received", "batch_id", "is_assigned", "items", "job_key", "raw", "submitted")

    def __init__(
        self,
        batch_id: str | None = None,
        items: Sequence[BatchItem] = (),
        *,
        submitted: int | None = None,
        is_assigned: bool = True,
        job_key: str | None = None,
        raw: Any = None,
    ) -> None:
        self.batch_id: str | None = batch_id
        self.items: tuple[BatchItem, ...] = tuple(items)
        self.submitted: int | None = submitted
        self.is_assigned: bool = is_assigned
        self.job_key: str | None = job_key
        self.raw: Any = raw
        self._received: Received | ResponseInfo | None = None

    @property
    def tasks(self) -> list[Task[Clips]]:
        """The tasks of the accepted items, for `await client.wait_all(batch.tasks)`. Each is paid for."""
        return [item.task for item in self.items if item.task is not None]

    @property
    def errors(self) -> list[APIStatusError]:
        """The errors of the refused items, in the order of the items."""
        return [item.error for item in self.items if item.error is not None]

    @property
    def response(self) -> ResponseInfo | None:
        """The HTTP response to the call; None if the tasks came from a recorded job."""
        if self._received is not None and not isinstance(self._received, ResponseInfo):
            self._received = self._received.info()
        return self._received

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Batch):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in fields_of(Batch))

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # compared by value

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: getattr(self, name) for name in ("submitted", "is_assigned", "job_key", "raw")}
        return _load, (self.batch_id, self.items, fields, self.response)

    def __repr__(self) -> str:
        return f"Batch({self.batch_id!r}, tasks={len(self.tasks)}, errors={len(self.errors)})"


def batch_came_in(batch: Batch, received: Received | ResponseInfo | None) -> Batch:
    """Set the HTTP response that a batch came in, and return the batch."""
    batch._received = received  # pyright: ignore[reportPrivateUsage]
    return batch


def _load(
    batch_id: str | None, items: Sequence[BatchItem], fields: Mapping[str, Any], response: ResponseInfo | None
) -> Batch:
    return batch_came_in(Batch(batch_id, items, **fields), response)


class BatchState(Item, kw_only=True):
    """The state of one task of a batch.

    `state` is 'pending', 'running', 'succeeded', 'partial' or 'failed'; `clips` are the clips at this time;
    `failure` is the reason of a failed task. `raw` is the entry of the reply.
    """

    task_id: str = ""
    state: str = ""
    clips: list[Clip] = msgspec.field(default_factory=list[Clip])
    failure: Failure | None = None

    @property
    def is_terminal(self) -> bool:
        """True if the task has ended."""
        return self.state in ENDS


class BatchStates(Reply, kw_only=True):
    """The states of the tasks of a batch, in `tasks`. An entry that names no task is only in `raw`."""

    batch_id: str | None = None
    tasks: list[BatchState] = msgspec.field(default_factory=list[BatchState])


def entries_in(fields: Mapping[str, JSON], *names: str) -> list[JSON]:
    """Return the first `MOST_ENTRIES` of the first list among fields of a body, or of `data` in it.

    An empty list hides no other one: the tasks of the other were paid for.
    """
    for place in (fields, mapping_or_empty(fields.get("data"))):
        for name in names:
            if isinstance(found := place.get(name), list) and found:
                return found[:MOST_ENTRIES]
    return []
