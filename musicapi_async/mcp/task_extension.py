"""The tasks extension of the protocol (`io.modelcontextprotocol/tasks`, SEP-2663), for waits.

A client that declares it gets a task in the place of a wait that would time out: the id of the task is the
token, so any server process knows it, and nothing has to be stored. The client polls it with `tasks/get`
and gets the result of the wait in the end. The `mcp` SDK (2.3) has no runtime for this extension; it needs
these few methods.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import mcp_types as types
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import Field

from ..api.task import TaskRef

if TYPE_CHECKING:
    from .actions import Actions
    from .tool_results import Reply

TASKS: Final = "io.modelcontextprotocol/tasks"
POLL_SECONDS: Final = 15.0
"""API seconds between polls: the interval that the vendor advises for songs."""

PASSING: Final = frozenset(
    {
        "ConnectFailedError",
        "ConnectionLostError",
        "InvalidResponseError",
        "RateLimitedError",
        "RequestTimeoutError",
        "ServerError",
        "UpstreamError",
    }
)
"""Errors of a poll that say nothing of the task: the client polls once more."""

Context = ServerRequestContext["Actions", Any]


class TaskParams(types.RequestParams):
    """The parameters of all methods of the extension."""

    task_id: str = Field(alias="taskId")


def add_tasks(server: Server[Actions], result_of: Callable[[Reply], types.CallToolResult]) -> None:
    """Add the extension to a server.

    Args:
        server: The server.
        result_of: Makes a result of the protocol.
    """

    async def get(ctx: Context, params: TaskParams) -> dict[str, Any]:
        _require(ctx)
        reply = await ctx.lifespan_context.call("check_song", {"token": params.task_id}, _no_report)
        if is_working(reply):
            return {**working(params.task_id, ctx.lifespan_context), "resultType": "complete"}
        if reply.fields.get("error") in ("RequestValidationError", "NotFoundError"):
            raise MCPError(code=types.INVALID_PARAMS, message="Unknown task", data=reply.fields)
        result = result_of(reply).model_dump(by_alias=True, mode="json", exclude_none=True)
        ended = {**_task(params.task_id), "status": "completed", "result": result}
        return {**ended, "resultType": "complete"}

    async def acknowledge(ctx: Context, params: TaskParams) -> dict[str, Any]:
        """Take a cancellation, or input that was not requested: a song that is paid for is made."""
        _require(ctx)
        if TaskRef.parse(params.task_id) is None:
            raise MCPError(code=types.INVALID_PARAMS, message="Unknown task")
        return {"resultType": "complete"}

    methods: dict[str, Callable[[Context, TaskParams], Awaitable[dict[str, Any]]]] = {
        "tasks/get": get,
        "tasks/cancel": acknowledge,
        "tasks/update": acknowledge,
    }
    for name, handler in methods.items():
        server.add_request_handler(name, TaskParams, handler)
    server.extensions[TASKS] = {}


def is_declared(ctx: Context) -> bool:
    """Return True if the client declared the extension, in a version of the protocol that has it."""
    capabilities = ctx.session.client_capabilities
    is_modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
    return is_modern and capabilities is not None and TASKS in (capabilities.extensions or {})


def is_working(reply: Reply) -> bool:
    """Return True if the task of a check has not ended, or could not be polled at present."""
    is_passing = reply.is_error and reply.fields.get("error") in PASSING
    return is_passing or reply.fields.get("state") == "still being made"


def working(token: str, actions: Actions) -> dict[str, Any]:
    """Return a task that has not ended."""
    interval = int(1000 * POLL_SECONDS / actions.speed)
    return {
        **_task(token),
        "status": "working",
        "statusMessage": "Paid for, and still being made.",
        "pollIntervalMs": max(1, interval),
    }


def _task(token: str) -> dict[str, Any]:
    ref = TaskRef.parse(token)
    now = datetime.now(UTC)
    made = datetime.fromtimestamp(ref.submitted_at, UTC) if ref is not None and ref.submitted_at else now
    return {
        "taskId": token,
        "createdAt": made.isoformat(timespec="seconds"),
        "lastUpdatedAt": now.isoformat(timespec="seconds"),
        "ttlMs": None,
    }


def _require(ctx: Context) -> None:
    """Refuse a client that did not declare the extension with this request."""
    if not is_declared(ctx):
        needed: dict[str, Any] = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
        text = "Missing required client capability"
        raise MCPError(code=types.MISSING_REQUIRED_CLIENT_CAPABILITY, message=text, data=needed)


async def _no_report(_seconds: float, _text: str) -> None:
    """Report nothing: the extension has no progress."""
