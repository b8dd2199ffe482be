"""`musicapi sonic create-batch`, and what it leads to: waiting, files, refused items, jobs; and the document."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from click.testing import CliRunner, Result
from command_shell import QUICK, SPEED, environment, lines_of
from mutagen.id3 import ID3

from musicapi_async import SQLiteStore
from musicapi_async.cli.commands import musicapi
from musicapi_async.cli.exit_codes import ExitCode
from musicapi_async.sandbox import Fault, Sandbox

ROWS: list[dict[str, Any]] = [
    {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"},
    {"mv": "sonic-v6", "gpt_description_prompt": "by example name"},
    {"mv": "sonic-v6", "gpt_description_prompt": "warm sun", "title": "Sun"},
]
GOOD = [ROWS[0], ROWS[2]]


async def run(box: Sandbox, *args: str, given: str = "") -> Result:
    """Run the command in another thread, as it has an event loop of its own."""
    invoke = partial(CliRunner().invoke, musicapi, args, env=environment(box), input=given)
    return await anyio.to_thread.run_sync(invoke)


async def test_songs_of_a_batch_are_waited_for_and_saved(tmp_path: Path) -> None:
    """From a file; one line for the batch, then as for any tasks."""
    songs = tmp_path / "songs.json"
    songs.write_text(json.dumps(GOOD))
    async with Sandbox(speed=SPEED, durations=QUICK, longest=4.0) as box:
        out = tmp_path / "out"
        done = await run(box, "sonic", "create-batch", f"@{songs}", "--tags", "--download", str(out))
        assert done.exit_code == 0, done.output
        lines = lines_of(done.stdout)
        assert lines[0]["event"] == "batch"
        ends = [line["event"] for line in lines if line["event"] not in {"batch", "submitted", "update"}]
        assert sorted(ends) == ["downloaded", "downloaded", "finished", "finished"]
        tagged = sorted(str(ID3(path).getall("COMM")[0]) for path in out.iterdir())
        assert tagged == ["calm rain"] * 2 + ["warm sun"] * 2
        assert len(box.journal.creates) == 1
        states = await run(box, "sonic", "get-batch", lines[0]["batch_id"])
        assert [one["state"] for one in lines_of(states.stdout)[0]["tasks"]] == ["succeeded"] * 2


async def test_a_refused_item_is_named_and_the_others_continue() -> None:
    """By its place; the exit code says that it may have been charged."""
    async with Sandbox(speed=SPEED) as box:
        done = await run(box, "--text", "sonic", "create-batch", "@-", "--no-wait", given=json.dumps(ROWS))
        assert done.exit_code == ExitCode.OUTCOME_UNKNOWN
        assert "Accepted: 2 of 3 songs" in done.stdout
        assert done.stdout.count("musicapi:sonic:create_batch:") == 2
        assert "items[1]: The song description contains artist names" in " ".join(done.stderr.split())
        assert "still running" not in done.stderr  # as after any --no-wait
        refused = await run(box, "sonic", "create-batch", '[{"mv": "sonic-v6"}]')
        assert (refused.exit_code, len(box.journal.creates)) == (ExitCode.REFUSED, 1)
        assert "items[0].prompt" in refused.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("calm rain", "is not JSON"),
        ("3", "--items: a list of 1 to 10, each an object, got 3"),
        ('{"mv": "sonic-v6"}', "--items: a list of 1 to 10, each an object, got dict"),
        ('["calm rain"]', "--items: a list of 1 to 10, each an object, got 1 items"),
        ("[]", "--items: a list of 1 to 10, each an object, got 0 items"),
    ],
)
async def test_items_that_are_no_list_of_objects(given: str, said: str) -> None:
    """Refused before anything is sent, with what they must be."""
    async with Sandbox() as box:
        done = await run(box, "--text", "sonic", "create-batch", given)
        assert (done.exit_code, len(box.journal)) == (2, 0)
        assert said in " ".join(done.stderr.split())


async def test_help_has_items_that_can_be_sent() -> None:
    """The example in the help of the command is JSON of a batch that is accepted."""
    async with Sandbox() as box:
        text = (await run(box, "sonic", "create-batch", "--help")).stdout
        example = text[text.index("[{") : text.index("}]") + 2]
        assert (await run(box, "sonic", "create-batch", example, "--no-wait")).exit_code == 0
        assert len(box.service.tasks) == len(json.loads(example)) == 2


async def test_a_lost_batch_is_settled_item_by_item(tmp_path: Path) -> None:
    """`jobs list` names its tasks, and `jobs resolve --item` adds one."""
    async with Sandbox(speed=SPEED) as box:
        path = tmp_path / "jobs.sqlite"
        box.faults.on("POST", "/sonic/batch", Fault.status(200, body='{"tasks":["t1",null]}', taken=True))
        async with box.client(store=SQLiteStore(path)) as client:
            await client.with_options(job_key="k").sonic.create_batch(GOOD)
        (job,) = lines_of((await run(box, "jobs", "list", str(path))).stdout)
        assert (job["state"], job["task_ids"]) == ("ambiguous", ["t1"])
        named = await run(box, "jobs", "resolve", str(path), "k", "--task-id", "t2", "--item", "1")
        assert lines_of(named.stdout)[0]["task_id"] == "t2"
        text = (await run(box, "--text", "jobs", "list", str(path))).stdout
        assert [line.split()[-1] for line in text.splitlines()[:3]] == ["k", "t1", "t2"]


async def test_the_document_of_the_service_is_printed() -> None:
    """One JSON object; nothing is sent."""
    async with Sandbox() as box:
        done = await run(box, "openapi")
        document = json.loads(done.stdout)
        assert document["servers"] == [{"url": box.base_url}]
        assert "/sonic/batch" in document["paths"]
        assert len(box.journal) == 0
