"""Money: a model repeats, gives up and forgets, and each song is paid for once and within the budget."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from agents import SONG, agent_of, an_agent

from musicapi_async import MemoryStore, MusicAPI, RequestValidationError, SQLiteStore
from musicapi_async.mcp import music_server
from musicapi_async.sandbox import Choices, Fault, Sandbox
from musicapi_async.sandbox.reply_choices import Durations


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_same_call_three_times_pays_once(tmp_path: Path, mode: str) -> None:
    """One after the other, and all at once: one charge and one token."""
    async with Sandbox(longest=3) as sandbox, an_agent(sandbox, tmp_path, mode=mode) as agent:
        first = await agent("create_song", job_key="rain", **SONG)
        others = [await agent("create_song", job_key="rain", **SONG) for _ in range(2)]
        at_once = await asyncio.gather(*(agent("create_song", job_key="sun", **SONG) for _ in range(3)))
        assert (first["state"], first["money"]) == ("being made", "Credits were charged.")
        assert {other["token"] for other in others} == {first["token"]}
        assert all(other["money"].startswith("Nothing was charged") for other in others)
        assert len({one["token"] for one in at_once}) == 1
        assert [one["money"] for one in at_once].count("Credits were charged.") == 1
        assert len(sandbox.journal.creates) == 2


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("create_persona", {"name": "Ann"}),
        ("write_lyrics", {"description": "rain"}),
        ("separate_stems", {}),
        ("separate_stems", {"full": True}),
        ("extend_song", {"prompt": "[Verse]\nla", "continue_at": 5}),
        ("cover_song", {"prompt": "[Verse]\nla", "tags": "jazz"}),
    ],
)
async def test_each_paid_tool_pays_once(tmp_path: Path, tool: str, arguments: dict[str, object]) -> None:
    """Creates and direct calls alike give the same result under the same key."""
    async with Sandbox(longest=3) as sandbox, an_agent(sandbox, tmp_path) as agent:
        made = await agent("create_song", job_key="song", **SONG)
        clips = (await agent("wait_for_song", token=made["token"], at_most=50))["clips"] or []
        while not clips or clips[0]["state"] != "succeeded":
            clips = (await agent("wait_for_song", token=made["token"], at_most=50))["clips"]
        if tool != "write_lyrics":
            name = "continue_clip_id" if tool in ("extend_song", "cover_song") else "clip_id"
            arguments = {**arguments, name: clips[0]["clip_id"]}
        spent = sandbox.journal.charges
        first = await agent(tool, job_key="it", **arguments)
        price = sandbox.journal.charges - spent
        again = await agent(tool, job_key="it", **arguments)
        assert not first.is_error, first.fields
        assert price > 0
        assert sandbox.journal.charges - spent == price
        changing = {"money", "made_at"}
        assert {name: value for name, value in again.fields.items() if name not in changing} == {
            name: value for name, value in first.fields.items() if name not in changing
        }


async def test_same_key_for_another_song_is_refused(tmp_path: Path) -> None:
    """A model that uses one key for two songs learns so, and nothing is sent."""
    async with Sandbox(longest=3) as sandbox, an_agent(sandbox, tmp_path) as agent:
        await agent("create_song", job_key="rain", **SONG)
        refused = await agent("create_song", job_key="rain", gpt_description_prompt="calm sun")
        assert (refused.is_error, refused["error"]) == (True, "JobKeyConflictError")
        assert "new job_key" in refused["next"]
        assert len(sandbox.journal.creates) == 1


async def test_budget_stops_before_the_next_charge(tmp_path: Path) -> None:
    """Songs cost 20: of a budget of 50 two are made, also when all are requested at once, and repeats are free."""
    async with Sandbox(longest=3) as sandbox, an_agent(sandbox, tmp_path, budget=50) as agent:
        made = await asyncio.gather(
            *(agent("create_song", job_key=f"song-{number}", **SONG) for number in range(5))
        )
        refused = [one for one in made if one.is_error]
        assert len(sandbox.journal.creates) == 2
        assert {one["error"] for one in refused} == {"BudgetExceeded"}
        assert "--budget" in refused[0]["next"]
        paid = next(one for one in made if not one.is_error)
        again = await agent("create_song", job_key=paid["job_key"], **SONG)
        assert again["token"] == paid["token"]
        assert (await agent("get_credits"))["budget"] == {"limit": 50, "spent": 40, "remaining": 10}
        assert sandbox.journal.charges == 40


async def test_first_call_of_a_kind_is_within_the_budget_with_a_price(tmp_path: Path) -> None:
    """A price that is given is not learned by spending it."""
    async with (
        Sandbox(longest=3) as sandbox,
        an_agent(sandbox, tmp_path, budget=10, prices={"create_music": 20}) as agent,
    ):
        refused = await agent("create_song", job_key="rain", **SONG)
        assert refused["error"] == "BudgetExceeded"
        assert sandbox.journal.charges == 0


async def test_repeats_at_once_fit_the_budget_of_one(tmp_path: Path) -> None:
    """Repeats of a call that is under way cost nothing, so none is refused."""
    options: dict[str, Any] = {"budget": 20, "prices": {"create_music": 20}}
    async with Sandbox(longest=3) as sandbox, an_agent(sandbox, tmp_path, **options) as agent:
        sandbox.faults.on("POST", "/sonic/create", Fault.slow(5))
        made = await asyncio.gather(*(agent("create_song", job_key="rain", **SONG) for _ in range(3)))
        assert len({one["token"] for one in made}) == 1
        assert len(sandbox.journal.creates) == 1


async def test_budget_counts_earlier_servers(tmp_path: Path) -> None:
    """A server that is started again has not a new budget."""
    file = tmp_path / "jobs.sqlite"
    async with Sandbox(longest=3) as sandbox:
        async with an_agent(sandbox, tmp_path, store=SQLiteStore(file), budget=30) as agent:
            await agent("create_song", job_key="rain", **SONG)
        async with an_agent(sandbox, tmp_path, store=SQLiteStore(file), budget=30) as agent:
            refused = await agent("create_song", job_key="sun", **SONG)
            assert refused["error"] == "BudgetExceeded"
        assert len(sandbox.journal.creates) == 1


async def test_budget_counts_each_song_of_a_batch(tmp_path: Path) -> None:
    """A program with the same job store has made three songs in one call, of which one was refused."""
    store = MemoryStore()
    async with Sandbox(longest=3) as sandbox:
        async with sandbox.client(store=store) as api:
            refused = {"mv": "sonic-v6", "gpt_description_prompt": "by example name"}
            await api.sonic.create_batch([*[{"mv": "sonic-v6", **SONG}] * 2, refused])
        assert sandbox.journal.charges == 40
        options: dict[str, Any] = {"store": store, "budget": 50, "prices": {"create_music": 20}}
        async with an_agent(sandbox, tmp_path, **options) as agent:
            assert (await agent("get_credits"))["budget"]["spent"] == 40
            assert (await agent("create_song", job_key="rain", **SONG))["error"] == "BudgetExceeded"
        assert sandbox.journal.charges == 40


@pytest.mark.parametrize("prices", [{}, {"create_music": 20}], ids=["learned", "given"])
async def test_servers_at_once_share_one_budget(tmp_path: Path, prices: dict[str, float]) -> None:
    """Two clients of one person, each with a server of its own on the same folder: one song of 20 fits."""
    file = tmp_path / "jobs.sqlite"
    async with Sandbox(longest=3) as sandbox:
        options: dict[str, Any] = {"budget": 20, "prices": prices}
        async with (
            an_agent(sandbox, tmp_path, store=SQLiteStore(file), **options) as one,
            an_agent(sandbox, tmp_path, store=SQLiteStore(file), **options) as other,
        ):
            made = await asyncio.gather(
                one("create_song", job_key="rain", **SONG), other("create_song", job_key="sun", **SONG)
            )
        assert sorted(result.is_error for result in made) == [False, True]
        assert sandbox.journal.charges == 20


async def test_folder_without_a_budget_sends_nothing_and_says_so(tmp_path: Path) -> None:
    """What was spent cannot be known there, so the user is named, and no song is in doubt."""
    (tmp_path / ".musicapi").write_text("a file, where the folder has its records")
    async with Sandbox(longest=3) as sandbox, an_agent(sandbox, tmp_path, budget=100) as agent:
        refused = await agent("create_song", job_key="rain", **SONG)
        assert (refused["error"], refused["money"]) == (
            "FolderError",
            "Nothing was sent, nothing was charged.",
        )
        assert refused["next"].startswith("The user")
        assert sandbox.journal.charges == 0


async def test_failed_song_is_refunded_to_the_budget(tmp_path: Path) -> None:
    """A task that failed costs nothing, and its key gives no other task."""
    async with Sandbox(longest=3) as sandbox, an_agent(sandbox, tmp_path, budget=30) as agent:
        sandbox.faults.on("POST", "/sonic/create", Fault.fail())
        made = await agent("create_song", job_key="rain", **SONG)
        failed = await agent("wait_for_song", token=made["token"], at_most=50)
        while not failed.is_error:
            failed = await agent("wait_for_song", token=made["token"], at_most=50)
        assert failed["error"] == "TaskFailedError"
        assert "new job_key" in failed["next"]
        again = await agent("create_song", job_key="rain", **SONG)
        assert (again["state"], again["token"]) == ("failed", made["token"])
        assert (await agent("get_credits"))["budget"]["spent"] == 0
        assert not (await agent("create_song", job_key="rain-2", **SONG)).is_error


async def test_client_without_a_job_store_is_refused(tmp_path: Path) -> None:
    """Without one a server that is killed would have forgotten what it paid for."""
    with pytest.raises(RequestValidationError, match="job store"):
        music_server(MusicAPI("key"), tmp_path)


async def test_unknown_outcome_is_never_repeated(tmp_path: Path) -> None:
    """The connection is lost behind the request: the error says who decides, and the key sends nothing more."""
    async with Sandbox(longest=3) as sandbox, an_agent(sandbox, tmp_path, store=MemoryStore()) as agent:
        sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
        for _ in range(2):
            unknown = await agent("create_song", job_key="rain", **SONG)
            assert unknown["error"] == "OutcomeUnknownError"
            assert unknown["may_have_been_charged"] is True
            assert "musicapi jobs resolve" in unknown["next"]
        assert len(sandbox.journal.creates) == 1
        assert [job["state"] for job in (await agent("list_jobs", states=["ambiguous"]))["jobs"]] == [
            "ambiguous"
        ]


async def test_slow_call_continues_behind_its_tool(tmp_path: Path) -> None:
    """A create that is answered after 100 s: the tool returns before the client gives up, the key has the task."""
    async with (
        Sandbox(longest=3) as sandbox,
        sandbox.client(attempt_timeout=300, store=MemoryStore()) as api,
        agent_of(api, tmp_path) as agent,
    ):
        sandbox.faults.on("POST", "/sonic/create", Fault.slow(100))
        start = asyncio.get_running_loop().time()
        sending = await agent("create_song", job_key="rain", **SONG)
        assert asyncio.get_running_loop().time() - start <= 50
        assert (sending["state"], sending.is_error) == ("being sent", False)
        results = [await agent("create_song", job_key="rain", **SONG) for _ in range(3)]
        assert results[-1]["token"]
        assert len(sandbox.journal.creates) == 1


async def test_cancelled_call_loses_nothing(tmp_path: Path) -> None:
    """A client that gives up on a create while it is sent finds its task under the same key."""
    async with (
        Sandbox(longest=3) as sandbox,
        sandbox.client(attempt_timeout=300, store=MemoryStore()) as api,
        agent_of(api, tmp_path) as agent,
    ):
        sandbox.faults.on("POST", "/sonic/create", Fault.slow(20))
        call = asyncio.ensure_future(agent("create_song", job_key="rain", **SONG))
        await asyncio.sleep(5)
        call.cancel()
        await asyncio.wait({call})
        made = await agent("create_song", job_key="rain", **SONG)
        assert made["token"]
        assert len(sandbox.journal.creates) == 1


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_wait_never_exceeds_the_limit(tmp_path: Path, mode: str) -> None:
    """A song that takes over ten minutes, polls that hang: each wait ends in its time, and one has the song."""
    durations = Durations(song=(700.0, 0.0))
    async with (
        Sandbox(longest=3, durations=durations) as sandbox,
        an_agent(sandbox, tmp_path, mode=mode) as agent,
    ):
        loop = asyncio.get_running_loop()
        made = await agent("create_song", job_key="rain", **SONG)
        sandbox.faults.on("GET", "/sonic/task/*", Fault.hang, times=2)
        waits = 0
        result = None
        while result is None or result["state"] == "still being made":
            start = loop.time()
            result = await agent("wait_for_song", token=made["token"])
            assert loop.time() - start <= 46
            waits += 1
        assert result["state"] == "succeeded"
        assert waits >= 600 / 46
        moments = [moment for moment, _ in agent.progress]
        assert sum(1 for moment in moments if moment >= 40) >= 10, "each wait reports until its end"
        assert len(sandbox.journal.creates) == 1


async def test_refused_song_is_not_charged(tmp_path: Path) -> None:
    """No credits, no key, moderation: the error says so, and the same key may be used once it is settled."""
    async with Sandbox(longest=3, credits=0) as sandbox, an_agent(sandbox, tmp_path) as agent:
        poor = await agent("create_song", job_key="rain", **SONG)
        assert poor["error"] == "InsufficientCreditsError"
        assert poor["money"] == "Nothing was charged."
    async with (
        Sandbox(longest=3) as sandbox,
        MusicAPI("wrong-key-wrong-key", base_url=sandbox.base_url, store=MemoryStore()) as api,
        agent_of(api, tmp_path) as agent,
    ):
        stranger = await agent("create_song", job_key="rain", **SONG)
        assert stranger["error"] == "AuthenticationError"
        assert "MUSICAPI_KEY" in stranger["next"]
        assert "wrong-key-wrong-key" not in agent.texts[-1]


async def test_budget_that_cannot_learn_a_price_stops(tmp_path: Path) -> None:
    """Without the balance after the first call nothing more is paid for."""
    async with (
        Sandbox(longest=3, choices=Choices()) as sandbox,
        an_agent(sandbox, tmp_path, budget=500) as agent,
    ):
        sandbox.faults.on("GET", "/get-credits", Fault.status(503), after=1, times=20)
        assert not (await agent("create_song", job_key="rain", **SONG)).is_error
        refused = await agent("create_song", job_key="sun", **SONG)
        assert refused["error"] == "BudgetExceeded"
        assert "price" in refused["happened"]
        assert len(sandbox.journal.creates) == 1
