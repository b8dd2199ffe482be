"""`musicapi batch` and `musicapi jobs` as a user sees them."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from command_shell import Shell, lines_of
from command_shell import ended as end
from patience import until

from musicapi_async.errors import OutcomeUnknownError
from musicapi_async.jobs import Job, JobRequest, SQLiteStore
from musicapi_async.sandbox import Fault, Sandbox


def write(folder: Path, count: int, **more: Any) -> None:
    """A manifest of a few songs."""
    rows = [
        {"id": f"s{i}", "mv": "sonic-v6", "gpt_description_prompt": f"rain {i}", **more} for i in range(count)
    ]
    (folder / "songs.jsonl").write_text("\n".join(map(json.dumps, rows)))


def records(out: Path) -> list[Path]:
    """The records of the songs of a batch."""
    return sorted((out / ".musicapi/songs").iterdir())


async def test_batch_makes_its_songs_and_report(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """Two songs: files, a report, a summary; again: nothing is sent."""
    write(tmp_path, 2)
    ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text")
    assert ended.code == 0, ended.err
    assert "2 songs done, 0 failed, 2 calls submitted" in ended.out
    assert (tmp_path / "out" / "report.html").is_file()
    again = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--json")
    (event,) = lines_of(again.out)
    assert (event["event"], event["done"], event["submitted"]) == ("batch", 2, 0)
    assert len(sandbox.journal.creates) == 2


async def test_local_file_in_a_row_is_refused_with_what_to_do(
    shell: Shell, sandbox: Sandbox, tmp_path: Path
) -> None:
    """A command has no function that publishes files; a program has."""
    (tmp_path / "demo.mp3").write_bytes(b"ID3 demo")
    row = {"operation": "sonic.upload_cover", "mv": "sonic-v6", "prompt": "la", "url": "demo.mp3"}
    (tmp_path / "songs.jsonl").write_text(json.dumps(row))
    for more in ([], ["--dry-run"]):
        ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text", *more)
        assert ended.code == 2
        text = " ".join(ended.err.split())
        assert "line 1: url: a public link, http:// or https://, got 'demo.mp3'" in text
        assert "put the file at a public address, and give its link" in text
        assert "In a program, run_batch does that with the uploader of its client" in text
    assert not sandbox.journal.requests()


async def test_dry_run_sends_and_writes_nothing(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """The plan: songs, steps, creates, time."""
    write(tmp_path, 10, steps=["stems_basic", "wav"])
    ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--dry-run", "--text")
    assert ended.code == 0
    assert "10 songs: 10 to submit" in ended.out
    assert "20 stems_basic, 20 wav" in ended.out
    assert "30 creates at 1 per 3 s, and 20 other paid calls: 50 paid calls in all" in ended.out
    assert "About 5 min" in ended.out
    assert not (tmp_path / "out").exists()
    assert not sandbox.journal


async def test_dry_run_needs_no_folder(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """It plans for a new one; a run needs it."""
    write(tmp_path, 10)
    ended = await shell.run("batch", "run", "songs.jsonl", "--dry-run", "--text")
    assert (ended.code, "10 songs: 10 to submit" in ended.out) == (0, True)
    refused = await shell.run("batch", "run", "songs.jsonl", "--text")
    assert (refused.code, "Missing option '--out'" in refused.err) == (2, True)
    assert not sandbox.journal


async def test_rate_limit_is_option(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """`--rate-limit` decides how fast songs are submitted, and how long the plan says that it takes."""
    write(tmp_path, 30)
    for rate_limit, text in (
        ("1/1m", "About 32 min"),
        ("20/10s", "About 2 min"),
        ("none", "without a limit"),
    ):
        ended = await shell.run(
            "batch", "run", "songs.jsonl", "--out", "p", "--rate-limit", rate_limit, "--dry-run", "--text"
        )
        assert text in ended.out, ended.err
    wrong = await shell.run("batch", "run", "songs.jsonl", "--out", "p", "--rate-limit", "quick")
    assert wrong.code == 2
    assert "20/10s" in wrong.err
    write(tmp_path, 2)
    process = await shell.start("batch", "run", "songs.jsonl", "--out", "slow", "--rate-limit", "1/24h")
    await until(lambda: any((tmp_path / "slow/.musicapi/songs").glob("*.json")))  # the first song is done
    process.send_signal(signal.SIGINT)
    assert (await end(process)).code == 130
    assert len(sandbox.journal.creates) == 1


async def test_faulty_manifest_names_line(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """Exit code 2, and nothing is sent."""
    write(tmp_path, 2, title="x" * 100)
    ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out")
    assert ended.code == 2
    assert "lines 1, 2: title" in ended.err
    assert not sandbox.journal


async def test_help_explains_rows(shell: Shell) -> None:
    """Fields, steps, which clips they follow for, and how CSV separates them."""
    text = " ".join((await shell.run("batch", "run", "--help")).out.split())
    for words in (
        "fields of create_music",
        "Steps: stems",
        "for each clip",
        "commas",
        "semicolons",
        "may exceed it",
    ):
        assert words in text


async def test_manifest_faults_have_line_each(shell: Shell, tmp_path: Path) -> None:
    """Text names one fault on each line, in plain words; JSON holds all of them in one event."""
    song = {"mv": "sonic-v6", "gpt_description_prompt": "rain"}
    bad = json.dumps({**song, "titel": "Rain"})
    (tmp_path / "songs.jsonl").write_text(f"{bad}\n{json.dumps(song)}\nrain\n[]\n")
    ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--dry-run", "--text")
    assert ended.code == 2
    first, *lines = ended.err.splitlines()
    assert first == "Error: songs.jsonl:"
    assert lines[0] == "line 1: unknown field 'titel', did you mean 'title'?"
    assert lines[1].startswith("line 3: not JSON (")
    assert lines[2] == "line 4: not a JSON object {...}, but []"
    assert lines[3].startswith("Nothing was sent")
    refused = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--dry-run", "--json")
    (event,) = lines_of(refused.err)
    assert event["message"].count("line ") == 3


async def test_ctrl_c_once_finishes_submitted_songs(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """Nothing more is submitted, submitted songs are fetched, and the same command continues later."""
    write(tmp_path, 5)
    sandbox.faults.on("GET", "/sonic/task/*", Fault.status(503), times=None)  # until Ctrl-C was heard
    process = await shell.start(
        "batch", "run", "songs.jsonl", "--out", "out", "--max-in-flight", "3", "--text"
    )
    await until(lambda: len(sandbox.journal.creates) == 3)
    process.send_signal(signal.SIGINT)
    said = await process.stderr.readuntil(b"Ctrl-C")
    sandbox.faults.clear()
    ended = await end(process)
    assert ended.code == 130, ended.err
    assert b"nothing more is submitted" in said
    assert "3 songs done" in ended.out
    assert len(sandbox.journal.creates) == 3
    assert sandbox.journal.charged_twice() == []


async def test_ctrl_c_after_last_submit_is_success(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """All songs were submitted before it, so all are done, and there is nothing to come back for."""
    write(tmp_path, 1)
    process = await shell.start("batch", "run", "songs.jsonl", "--out", "out", "--text")
    await until(lambda: len(sandbox.journal.creates) == 1)
    process.send_signal(signal.SIGINT)
    ended = await end(process)
    assert "under way" in ended.err
    assert ended.code == 0, ended.err
    assert "1 song done" in ended.out


async def test_ctrl_c_twice_stops_at_once(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """The tasks continue at the service, and the next run pays for none of them again."""
    sandbox.faults.on("POST", "/sonic/create", Fault.stuck(), times=None)
    write(tmp_path, 4)
    process = await shell.start(
        "batch", "run", "songs.jsonl", "--out", "out", "--max-in-flight", "2", "--text"
    )
    await until(lambda: len({entry.path for entry in sandbox.journal.polls}) == 2)  # no create is under way
    process.send_signal(signal.SIGINT)
    await process.stderr.readuntil(b"Ctrl-C")
    process.send_signal(signal.SIGINT)
    ended = await end(process)
    assert ended.code == 130, ended.err
    assert "Run the same command again" in ended.err
    made = len(sandbox.journal.creates)
    listed = await shell.run("jobs", "list", "out", "--json")
    jobs = lines_of(listed.out)
    assert {job["task_id"] for job in jobs} == {entry.task_id for entry in sandbox.journal.creates}
    assert len(jobs) == made


async def test_sigterm_during_create_keeps_its_task(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """A batch that is ended while a call is sent stores its task, and says that the same command continues."""
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(1.0 * sandbox.clock.speed))
    write(tmp_path, 1)
    process = await shell.start("batch", "run", "songs.jsonl", "--out", "out", "--text")
    await until(lambda: any(entry.path == "/sonic/create" for entry in sandbox.journal))
    process.send_signal(signal.SIGTERM)
    ended = await end(process)
    assert ended.code == 130, ended.err
    assert "Run the same command again" in ended.err
    continued = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text")
    assert continued.code == 0, continued.err
    assert len(sandbox.journal.creates) == 1


async def test_shared_reason_is_printed_once(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """Without credits all songs are unfinished: one line names them, another says why."""
    sandbox.account.credits = 0
    write(tmp_path, 12)
    ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text")
    assert ended.code == 3, ended.err
    assert ended.out.count("credits are not enough") == 1
    assert ended.out.count("songs unfinished") == 1
    assert "s0 in line 1, " in ended.out
    assert "and 2 more" in ended.out


async def test_failures_are_grouped_by_reason(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """One line for each reason, what to do next, and the same by song in JSON, in later runs, too."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail(), times=2)
    sandbox.faults.on("POST", "/sonic/create", Fault.status(400))
    write(tmp_path, 3)
    ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text")
    assert ended.code == 4, ended.err
    assert "2 failed: generation failed (s" in ended.out
    assert "1 failed: Bad Request (HTTP 400) (s" in ended.out
    assert ended.out.count("--retry-failed") == 1
    again = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--json")
    (event,) = lines_of(again.out)
    assert sorted(event["failures"].values()) == ["Bad Request (HTTP 400)", *["generation failed"] * 2]


async def test_refusals_after_waits_are_one_reason(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """Each later song has waited longer for the rate. None was charged, so none is charged "again"."""
    sandbox.faults.on("POST", "/sonic/create", Fault.status(400), times=None)
    write(tmp_path, 4)
    ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text")
    assert ended.code == 4, ended.err
    assert ended.out.count("failed: Bad Request") == 1
    assert "4 failed: Bad Request" in ended.out
    assert "charged again" not in ended.out
    (problem,) = re.findall(r"<b>Failed</b>", (tmp_path / "out/report.html").read_text())
    assert problem


async def test_lost_connection_is_one_reason(tmp_path: Path) -> None:
    """One line that says that they are paid for, another what to do."""
    write(tmp_path, 3)
    async with Sandbox(speed=200) as box:  # the whole time limit passes
        box.faults.on("POST", "/sonic/create", Fault.stuck(), times=None)
        process = await Shell(box, tmp_path).start("batch", "run", "songs.jsonl", "--out", "out", "--text")
        await until(lambda: len({entry.path for entry in box.journal.polls}) == 3)
    ended = await end(process)
    assert ended.code == 5, ended.err
    (line,) = [line for line in ended.out.splitlines() if " unfinished" in line]
    assert line.startswith("3 songs unfinished: no end after 90")  # 900 s and a bit
    assert "the last poll failed: no connection to http://" in line
    assert "; paid for and still running (s" in line
    assert "Run the same command again" in ended.out


async def test_disk_fault_has_its_own_exit_code(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """Exit code 1 and the path that could not be written; once it is repaired the same command ends."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "details").write_text("a file where a folder has to be")
    write(tmp_path, 2)
    ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--json")
    (event,) = lines_of(ended.out)
    assert f"out{os.sep}details" in event["halted"]
    assert event["disk_failed"] is True
    assert ended.code == 1, ended.err
    (out / "details").unlink()
    assert (await shell.run("batch", "run", "songs.jsonl", "--out", "out")).code == 0
    assert len(sandbox.journal.creates) == 2
    assert sandbox.journal.charged_twice() == []


async def test_unknown_outcome_is_listed_and_resolved(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """Exit code 6; `jobs` lists it, `jobs resolve` settles it, and the batch continues."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    write(tmp_path, 1)
    ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text")
    assert ended.code == 6
    assert "Outcome unknown: s0 in line 1: " in ended.out
    listed = await shell.run("jobs", "list", "out", "--state", "ambiguous", "--text")
    row, *details = listed.out.splitlines()
    assert row.split() == ["ambiguous", "s0/create_music"]
    assert details
    assert all(line.startswith(" " * row.index("s0/")) for line in details)
    task_id = sandbox.journal.creates[0].task_id
    resolved = await shell.run("jobs", "resolve", "out", "s0/create_music", "--task-id", task_id)
    assert resolved.code == 0, resolved.err
    assert (await shell.run("batch", "run", "songs.jsonl", "--out", "out")).code == 0
    assert len(sandbox.journal.creates) == 1
    plan = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--dry-run", "--text")
    assert "Nothing is left to pay for" in plan.out


async def test_unknown_outcomes_are_grouped_by_reason(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """One text for the lines of the songs, in later runs, too, though each then names its job and its wait."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after, times=3)
    rows = [{"mv": "sonic-v6", "prompt": f"[Verse]\nRain {number}"} for number in range(3)]
    rows[2]["id"] = "s 2"  # a shell needs quotes for its job key
    (tmp_path / "songs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for _ in range(2):
        ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text")
        assert ended.code == 6, ended.err
        assert ended.out.count("The account may have been charged") == 1
        assert "Outcome unknown: line 1, line 2, s 2 in line 3: " in ended.out
        assert "`musicapi jobs list out --state ambiguous`" in ended.out
        assert "`musicapi jobs resolve out KEY --task-id ID`" in ended.out
        assert ended.out.count("the same command continues") == 1
    assert len(sandbox.journal.requests("/sonic/create")) == 3


async def test_unknown_step_is_named_by_song_and_clip(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """Its job key says neither line nor step to a person."""
    sandbox.faults.on("POST", "/sonic/wav*", Fault.reset_after, times=None)
    write(tmp_path, 1, steps=["wav"])
    ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text")
    assert ended.code == 6, ended.err
    assert re.search(r"^Outcome unknown: s0 in line 1, wav, clip [-0-9a-f]{36}, ", ended.out, re.MULTILINE)


async def test_call_that_makes_no_task_is_only_sent_again(
    shell: Shell, sandbox: Sandbox, tmp_path: Path
) -> None:
    """`jobs resolve` refuses it, so no text names it, in both runs and on the page; the reply is printed."""
    sandbox.faults.on("POST", "/sonic/persona", Fault.reset_after)
    write(tmp_path, 1, steps=[{"persona": {"name": "Voice"}}], clips="first")
    for _ in range(2):
        ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text")
        assert ended.code == 6, ended.err
        assert "jobs resolve" not in ended.out
        assert ended.out.count("the same command continues") == 1
    (command,) = re.findall("`musicapi (jobs resubmit [^`]*)`", ended.out)
    page = (tmp_path / "out/report.html").read_text()
    assert "jobs resolve" not in page
    assert f"musicapi {command}" in page
    sent = await shell.run(*shlex.split(command), "--yes", "--text")
    assert sent.code == 0, sent.err
    assert sent.out.startswith("persona_id  ")
    assert (await shell.run("batch", "run", "songs.jsonl", "--out", "out")).code == 0


async def test_resubmit_asks_first(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """Without --yes, and without a terminal for the question, nothing is sent."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_before)
    write(tmp_path, 1)
    await shell.run("batch", "run", "songs.jsonl", "--out", "out")
    refused = await shell.run("jobs", "resubmit", "out", "s0/create_music")
    assert refused.code == 2
    assert refused.out == ""
    assert "Send it again, which charges credits? [y/N]" in refused.err
    assert len(sandbox.journal.creates) == 1
    sent = await shell.run("jobs", "resubmit", "out", "s0/create_music", "--yes", "--json")
    assert sent.code == 0, sent.err
    assert lines_of(sent.out)[0]["task_id"] == sandbox.journal.creates[1].task_id


async def test_batch_without_credits_says_how_it_continues(
    shell: Shell, sandbox: Sandbox, tmp_path: Path
) -> None:
    """With the same command, once there are credits; a full disk and a budget say it themselves."""
    sandbox.faults.on("POST", "/sonic/create", Fault.status(402))
    write(tmp_path, 2)
    ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text")
    assert ended.code == 3
    assert "Stopped early: " in ended.out
    assert ended.out.count("the same command continues, and pays for nothing twice") == 1


async def test_resubmit_looks_before_it_asks(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """The question names call, state, time and reason; there is none for a job that cannot be sent again."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    write(tmp_path, 2)
    await shell.run("batch", "run", "songs.jsonl", "--out", "out")
    first = str(sandbox.journal.creates[0].body)  # of the row that was sent first, either of both
    unknown, known = ("s0", "s1") if "rain 0" in first else ("s1", "s0")
    for key, why in (
        ("s9", "there is no job with the key"),
        (f"{known}/create_music", "is accepted as task|is finished"),
    ):
        refused = await shell.run("jobs", "resubmit", "out", key, "--text", given=b"y\n")
        assert refused.code == 2
        assert re.search(why, refused.err)
        assert "[y/N]" not in refused.err
    host = await shell.run(
        *("jobs", "resubmit", "out", f"{unknown}/create_music", "--base-url", "http://127.0.0.1:9/api/v1"),
        given=b"y\n",
    )
    assert "was sent to" in host.err
    assert f"`--base-url {sandbox.base_url}`" in host.err
    assert "[y/N]" not in host.err
    asked = await shell.run("jobs", "resubmit", "out", f"{unknown}/create_music", "--text", given=b"n\n")
    assert asked.code == 1
    assert re.search(
        rf"^ambiguous +{unknown}/create_music\n +sonic create-music, recorded 20\d\d-", asked.err
    )
    assert "reset by peer" in asked.err
    assert "It may have been charged already." in asked.err
    assert len(sandbox.journal.creates) == 2
    sent = await shell.run("jobs", "resubmit", "out", f"{unknown}/create_music", "--json", given=b"y\n")
    assert (sent.code, len(sandbox.journal.creates)) == (0, 3)
    assert lines_of(sent.out)[0]["task_id"] == sandbox.journal.creates[2].task_id


async def test_secret_in_a_query_is_refused_before_the_question(
    shell: Shell, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Such a call cannot be sent again, so there is nothing to confirm."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    store = SQLiteStore(tmp_path / "jobs.sqlite")
    async with sandbox.client(store=store) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="k").request(
                "POST", "/sonic/create", json={}, params={"webhook_secret": "sixteen or more of them"}
            )
    refused = await shell.run("jobs", "resubmit", "jobs.sqlite", "k", "--text", given=b"y\n")
    assert refused.code == 2
    assert "had one in its query, which was not stored" in refused.err
    assert "[y/N]" not in refused.err
    assert len(sandbox.journal.requests("/sonic/create")) == 1


async def test_jobs_of_nothing_is_usage_error(shell: Shell, tmp_path: Path) -> None:
    """A folder without a store is not turned into one."""
    ended = await shell.run("jobs", "list", ".")
    assert ended.code == 2
    assert "holds no jobs" in ended.err
    assert not os.listdir(tmp_path)


async def test_failed_steps_are_named_and_exit_with_4(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """Reason, step, row and clip, and how to send it again; in JSON, too, and in runs with nothing to do."""
    sandbox.faults.on("POST", "/sonic/stems/basic", Fault.fail())
    write(tmp_path, 1, steps=["stems_basic", "wav"], clips="first")
    ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text")
    assert ended.code == 4, ended.err
    assert "1 song done, 0 failed, 1 step failed, 3 calls submitted" in ended.out
    assert "1 step failed: stems_basic: generation failed (s0 in line 1, clip " in ended.out
    assert ended.out.count("--retry-failed") == 1
    again = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--json")
    (event,) = lines_of(again.out)
    assert (again.code, event["failed_steps"], event["submitted"]) == (4, 1, 0)
    (failure,) = event["step_failures"]
    assert (failure["id"], failure["line"], failure["step"]) == ("s0", 1, "stems_basic")
    assert "--retry-failed" in event["hint"]
    retried = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--retry-failed", "--text")
    assert (retried.code, "failed:" in retried.out) == (0, False)


async def test_every_summary_says_what_was_spent(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """By the balance, or with a budget by the prices, for the run and for the folder."""
    write(tmp_path, 1)
    price = sandbox.account.prices["create"]
    ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text")
    assert f"{price:g} credits spent in this run, by the balance" in ended.out
    options = ("--budget", "100", "--price", f"create_music={price:g}")
    again = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text", *options)
    assert "\n0 credits spent in this run\n" in again.out
    assert f"\n{price:g} credits spent in this folder\n" in again.out


async def test_dry_run_with_prices_adds_up(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """The total, what has no price, and the budget; prices are those of steps."""
    write(tmp_path, 2, steps=["stems", "lyrics"], clips="first")
    run = ("batch", "run", "songs.jsonl", "--out", "out", "--dry-run")
    some = ("--price", "create_music=20", "--price", "lyrics=1")
    ended = await shell.run(*run, *some, "--budget", "100", "--text")
    assert "Cost: 42 credits\n" in ended.out
    assert "Without a price, so not in it: 2 stems\n" in ended.out
    assert "Within the budget of 100: 58 would remain" in ended.out
    ended = await shell.run(*run, *some, "--price", "stems=30", "--budget", "100", "--text")
    assert "Cost: 102 credits\n" in ended.out
    assert "More than the budget of 100, by 2\n" in ended.out
    ended = await shell.run(*run, *some, "--price", "stems=30", "--budget", "100", "--json")
    (event,) = lines_of(ended.out)
    assert (event["cost"], event["unpriced"], event["over_budget"]) == (102, {}, True)
    wrong = await shell.run(*run, "--price", "lyric=1")
    assert wrong.code == 2
    assert "songs or steps of a batch (did you mean 'lyrics'?), got 'lyric'" in wrong.err
    for price in ("-1", "nan", "inf"):
        wrong = await shell.run(*run, "--price", f"lyrics={price}")
        assert (wrong.code, "credits, 0 or more, got lyrics=" in wrong.err) == (2, True)
    assert not sandbox.journal


async def test_manifest_comes_from_standard_input(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """'-' reads JSON Lines or a table; a fault names the line."""
    song = b'{"id": "s0", "mv": "sonic-v6", "gpt_description_prompt": "rain"}\n'
    ended = await shell.run("batch", "run", "-", "--out", "out", "--text", given=song)
    assert (ended.code, len(sandbox.journal.creates)) == (0, 1), ended.err
    table = b"id;mv;gpt_description_prompt\ns0;sonic-v6;rain\n"
    again = await shell.run("batch", "run", "-", "--out", "out", "--text", given=table)
    assert (again.code, len(sandbox.journal.creates)) == (0, 1), again.err
    wrong = await shell.run("batch", "run", "-", "--out", "out", "--text", given=song + b"caf\xe9\n")
    assert wrong.code == 2
    assert "standard input: line 2: not UTF-8 text" in wrong.err


async def test_lyrics_of_instrumental_are_refused(shell: Shell, sandbox: Sandbox, tmp_path: Path) -> None:
    """Exit code 2, the line, and nothing is sent."""
    write(tmp_path, 1, steps=["lyrics"], make_instrumental=True)
    ended = await shell.run("batch", "run", "songs.jsonl", "--out", "out", "--text")
    assert ended.code == 2
    assert "line 1: step 'lyrics' needs singing" in ended.err
    assert not sandbox.journal


# --- a store with jobs of more than one account -----------------------------------------------------------------


async def some_jobs(path: Path, *accounts: str, now: float) -> SQLiteStore:
    """A store with a finished job of each account."""
    store = SQLiteStore(path)
    request = JobRequest("POST /sonic/wav", "http://host", '{"clip_id":"c"}', "sonic", "wav")
    for account in accounts:
        job = Job(key="k", state="finished", request=request, created_at=now, updated_at=now)
        await store.change("k", lambda _none, job=job: job, account=account)
    await store.aclose()
    return store


async def test_jobs_list_names_accounts_and_unreadable_rows(shell: Shell, tmp_path: Path) -> None:
    """The account where there is more than one; a damaged row says so, in JSON as `is_readable`."""
    path = tmp_path / "jobs.sqlite"
    await some_jobs(path, "studio", now=1.0)
    one = await shell.run("jobs", "list", "jobs.sqlite", "--text")
    assert "account" not in one.out
    await some_jobs(path, "label", now=2.0)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE jobs SET record = '{' WHERE account = 'studio'")
    listed = await shell.run("jobs", "list", "jobs.sqlite", "--text")
    first, account, why, *whole = map(str.strip, listed.out.splitlines())
    assert (first.split(), account) == (["finished", "k"], "account studio")
    assert why.startswith("unreadable: its record cannot be read")
    assert (whole[0].split(), whole[1:]) == (["finished", "k"], ["account label"])
    jobs = lines_of((await shell.run("jobs", "list", "jobs.sqlite", "--json")).out)
    assert [(job["account"], job["is_readable"]) for job in jobs] == [("studio", False), ("label", True)]


async def test_jobs_purge_removes_what_is_older(shell: Shell, tmp_path: Path) -> None:
    """Only what has ended and was not changed since; it is confirmed first."""
    path = tmp_path / "jobs.sqlite"
    await some_jobs(path, "old", now=1.0)
    store = await some_jobs(path, "new", now=time.time())
    nothing = await shell.run("jobs", "purge", "jobs.sqlite", "--older-than", "30000d", "--text")
    assert (nothing.code, nothing.out.strip(), nothing.err) == (0, "0 jobs removed.", "")
    refused = await shell.run("jobs", "purge", "jobs.sqlite", "--older-than", "30d")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("1 job to remove, keys included")
    assert len(await store.jobs()) == 2
    wrong = await shell.run("jobs", "purge", "jobs.sqlite", "--older-than", "30", "--yes")
    assert (wrong.code, "such as '30d'" in wrong.err) == (2, True)
    done = await shell.run("jobs", "purge", "jobs.sqlite", "--older-than", "30d", "--yes", "--text")
    assert done.out.strip() == "1 job removed."
    assert [job.account for job in await store.jobs()] == ["new"]
    await store.aclose()


# --- the page and the picks ----------------------------------------------------------------------------------


async def test_page_is_written_again_and_picks_are_copied(
    shell: Shell, sandbox: Sandbox, tmp_path: Path
) -> None:
    """`batch report` needs the folder alone, and no key; `batch keep` copies what the page's JSON says to keep."""
    write(tmp_path, 2)
    assert (await shell.run("batch", "run", "songs.jsonl", "--out", "out")).code == 0
    requests = len(sandbox.journal)
    page = tmp_path / "out/report.html"
    page.unlink()
    ended = await shell.run("batch", "report", "out", "--text")
    assert (ended.code, ended.out) == (0, "Report: out/report.html\n")
    found = re.findall(
        r'"clip_id":"([^"]+)"', "".join(path.read_text() for path in records(tmp_path / "out"))
    )
    picks = {"picks": [{"clip_id": clip_id, "choice": "keep"} for clip_id in found[:3]]}
    (tmp_path / "picks.json").write_text(json.dumps(picks))
    ended = await shell.run("batch", "keep", "out", "picks.json", "--out", "chosen", "--text")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("3 takes copied to chosen\n")
    assert len(list((tmp_path / "chosen").iterdir())) == 3
    again = await shell.run("batch", "keep", "out", "picks.json", "--out", "chosen", "--json")
    (event,) = lines_of(again.out)
    assert (event["event"], len(event["files"])) == ("copied", 3)
    assert len(sandbox.journal) == requests


async def test_report_and_keep_refuse_what_is_none(shell: Shell, tmp_path: Path) -> None:
    """A folder of no batch, and a file that has no picks: exit code and text say so, and nothing is written."""
    (tmp_path / "picks.json").write_text("{}")
    (tmp_path / "mine").mkdir()
    ended = await shell.run("batch", "report", "mine", "--text")
    assert (ended.code, "mine is no folder of a batch" in " ".join(ended.err.split())) == (1, True), ended.err
    ended = await shell.run("batch", "keep", "mine", "picks.json", "--text")
    assert (ended.code, "is no file of picks" in " ".join(ended.err.split())) == (2, True), ended.err
    ended = await shell.run("batch", "keep", "mine", "absent.json", "--text")
    assert (ended.code, "absent.json" in ended.err) == (2, True)
    assert list((tmp_path / "mine").iterdir()) == []
