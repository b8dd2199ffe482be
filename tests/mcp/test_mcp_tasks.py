"""The tasks extension: a client that declares it polls a wait itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

import pytest
from agents import SONG, Agent, an_agent
from mcp import MCPError
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim, advertise
from mcp.types import CallToolResult, Request, RequestParams, Result
from pydantic import ConfigDict, Field

from musicapi_async.sandbox import Fault, Sandbox

TASKS = "io.modelcontextprotocol/tasks"


class CreateTaskResult(Result):
    """The handle of a task, as the extension defines it."""

    result_type: Literal["task"] = Field(alias="resultType")
    task_id: str = Field(alias="taskId")
    status: str
    poll_interval_ms: int = Field(alias="pollIntervalMs")
    ttl_ms: int | None = Field(alias="ttlMs")
    created_at: str = Field(alias="createdAt")


class DetailedTask(Result):
    """The state of a task."""

    model_config = ConfigDict(extra="allow")
    task_id: str = Field(alias="taskId")
    status: str
    result: dict[str, Any] | None = None


class TaskRequestParams(RequestParams):
    """The parameters of each method of the extension."""

    task_id: str = Field(serialization_alias="taskId")


class TaskRequest(Request[TaskRequestParams, str]):
    """A request of the extension."""

    method: str
    params: TaskRequestParams


async def request(agent_session: Any, method: str, token: str, kind: type[Result] = DetailedTask) -> Any:
    """Send a request of the extension."""
    return await agent_session.send_request(
        TaskRequest(method=method, params=TaskRequestParams(task_id=token)), kind
    )


class TasksClient(ClientExtension):
    """Polls tasks, as a client with the extension does."""

    identifier = TASKS

    def __init__(self) -> None:
        self.polls = 0
        self.created: list[CreateTaskResult] = []

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=CreateTaskResult, resolve=self.resolve)]

    async def resolve(self, created: CreateTaskResult, context: ClaimContext) -> CallToolResult:
        self.created.append(created)
        while True:
            await asyncio.sleep(created.poll_interval_ms / 1000)
            self.polls += 1
            task = await request(context.session, "tasks/get", created.task_id)
            if task.status == "completed":
                return CallToolResult.model_validate(task.result)


async def test_wait_becomes_a_task(tmp_path: Path) -> None:
    """The id is the token, the client polls at the vendor's interval, and the result is that of the wait."""
    tasks = TasksClient()
    async with Sandbox(longest=3) as sandbox, an_agent(sandbox, tmp_path, extensions=[tasks]) as agent:
        made = await agent("create_song", job_key="a", **SONG)
        song = await agent("wait_for_song", token=made["token"])
        assert song["state"] == "succeeded"
        assert [one.task_id for one in tasks.created] == [made["token"]]
        assert (tasks.created[0].status, tasks.created[0].ttl_ms) == ("working", None)
        assert tasks.created[0].poll_interval_ms == 15_000
        assert 2 <= tasks.polls <= 30
        again = await agent("wait_for_song", token=made["token"])
        assert again["state"] == "succeeded"
        assert len(tasks.created) == 1, "a song that is finished needs no task"


async def test_task_of_a_failed_song(tmp_path: Path) -> None:
    """It is completed, with the error as its result; a poll that fails meanwhile ends nothing."""
    tasks = TasksClient()
    async with Sandbox(longest=3) as sandbox, an_agent(sandbox, tmp_path, extensions=[tasks]) as agent:
        sandbox.faults.on("POST", "/sonic/create", Fault.fail())
        made = await agent("create_song", job_key="a", **SONG)
        sandbox.faults.on("GET", "/sonic/task/*", Fault.status(503), after=1, times=4)
        failed = await agent("wait_for_song", token=made["token"])
        assert (failed.is_error, failed["error"]) == (True, "TaskFailedError")


async def test_task_that_can_no_longer_be_polled(tmp_path: Path) -> None:
    """A key that was revoked ends the polls of the client, with the error as the result."""
    tasks = TasksClient()
    async with Sandbox(longest=3) as sandbox, an_agent(sandbox, tmp_path, extensions=[tasks]) as agent:
        made = await agent("create_song", job_key="a", **SONG)
        sandbox.faults.on(
            "GET", "/sonic/task/*", Fault.status(403, body='{"error": "revoked"}'), after=1, times=9
        )
        refused = await agent("wait_for_song", token=made["token"])
        assert (refused.is_error, refused["error"]) == (True, "PermissionDeniedError")
        assert tasks.polls == 1


async def test_methods_of_the_extension(tmp_path: Path) -> None:
    """Cancelling is acknowledged and costs no song; an unknown task is an error of the protocol."""
    async with (
        Sandbox(longest=3) as sandbox,
        an_agent(sandbox, tmp_path, extensions=[advertise(TASKS)]) as agent,
    ):
        made = await agent("create_song", job_key="a", **SONG)
        session = agent.client.session
        for method in ("tasks/cancel", "tasks/update"):
            await request(session, method, made["token"], Result)
            with pytest.raises(MCPError, match="Unknown task"):
                await request(session, method, "no token", Result)
        assert (await request(session, "tasks/get", made["token"])).status == "working"
        for token in ("no token", "musicapi:sonic:create_music:0:unknown"):
            with pytest.raises(MCPError, match="Unknown task"):
                await request(session, "tasks/get", token)


@pytest.mark.parametrize(("mode", "declared"), [("auto", []), ("legacy", []), ("legacy", [advertise(TASKS)])])
async def test_client_without_the_extension(tmp_path: Path, mode: str, declared: list[Any]) -> None:
    """It never gets a task, not even if it declares one in a version of the protocol that has none."""
    options = {"mode": mode, "extensions": declared}
    async with Sandbox(longest=3) as sandbox, an_agent(sandbox, tmp_path, **options) as agent:
        made = await agent("create_song", job_key="a", **SONG)
        assert (await _wait(agent, made["token"]))["state"] == "still being made"
        with pytest.raises(MCPError) as refused:
            await request(agent.client.session, "tasks/get", made["token"])
        assert refused.value.error.code == -32021


async def _wait(agent: Agent, token: str) -> Any:
    return await agent("wait_for_song", token=token, at_most=1)
