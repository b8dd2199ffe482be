"""Standard output that is full, closed, or without a reader: paid tasks are named all the same.

Processes of their own, some of them under a shell, because what the interpreter does with a closed stream is
part of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from command_shell import Ended, environment, lines_of
from forked import Forked
from patience import PATIENCE

from musicapi_async import TaskFailedError
from musicapi_async.jobs import SQLiteStore
from musicapi_async.sandbox import Fault, Sandbox

LOST = 141
SONG = ("create", "--mv", "sonic-v6", "--prompt", "[Verse]\nla la la", "--title", "Lanterns")
SINKS = {"full": "No space left on device", "closed": "it is closed", "no reader": "Broken pipe"}
"""How standard output is lost, and what the system calls it."""
SCRIPTS = {"full": '"$@" >/dev/full', "closed": '"$@" >&-', "no reader": '"$@"'}
"""The same in a shell; without a reader the pipe's other end is closed from the start."""


async def lost(box: Sandbox | None, folder: Path, sink: str, *args: str) -> Ended:
    """Run the command with standard output lost."""
    done = await run(box, folder, {"full": "/dev/full", "closed": None, "no reader": ""}[sink], "err", *args)
    if not (sink == "no reader" and done.err == ""):
        assert SINKS[sink] in done.err
    return done


async def run(box: Sandbox | None, folder: Path, out: str | None, err: str | None, *args: str) -> Ended:
    """Run the command with files in `folder`, or devices, as its output; '' for a pipe without a reader, None
    for no stream at all."""
    opened = [os.open(os.devnull, os.O_RDONLY)]
    streams: list[int | None] = [opened[0]]
    for name in (out, err):
        if name == "":
            reader, writer = os.pipe()
            os.close(reader)
            opened.append(writer)
        elif name is not None:
            opened.append(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
        streams.append(None if name is None else opened[-1])
    process = Forked(
        "musicapi_async.cli:main", *args, environment=environment(box), folder=folder, streams=streams
    )
    for one in opened:
        os.close(one)
    code = await process.ended()
    written = [
        (folder / name).read_text(encoding="utf-8") if name and not name.startswith("/") else ""
        for name in (out, err)
    ]
    no_traceback(written[1])
    return Ended(code, *written)


async def in_shell(script: str, box: Sandbox, folder: Path, *args: str, read: bool = True) -> Ended:
    """Run the command as `"$@"` of a shell script; unless `read`, its standard output has no reader."""
    command = (sys.executable, "-c", "from musicapi_async.cli import main; main()", *args)
    reader, writer = os.pipe()
    os.close(reader)
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", script, "sh", *command),
        env=environment(box),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE if read else writer,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writer)
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode is not None
    no_traceback(err.decode())
    return Ended(process.returncode, (out or b"").decode(), err.decode())


def no_traceback(text: str) -> None:
    """Check that the interpreter printed no error that was not caught."""
    assert not any(word in text for word in ("Traceback", "Exception ignored", "OutputLost")), text


def token_of(box: Sandbox) -> str:
    """The token of the only task that was paid for, as far as it follows from the journal."""
    (create,) = box.journal.creates
    return f":{create.task_id}"


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("form", ["--json", "--text"])
@pytest.mark.parametrize("then", [["--no-wait"], ["--wait"], ["--download", "songs"]])
async def test_create_names_its_task(
    sandbox: Sandbox, tmp_path: Path, sink: str, form: str, then: list[str]
) -> None:
    """One create, its token and the command that resumes on standard error, and an exit code that tells."""
    done = await lost(sandbox, tmp_path, sink, form, *SONG, *then)
    assert done.code == LOST
    assert token_of(sandbox) in done.err
    word = "download" if "songs" in then else "wait"
    assert f"musicapi {word}" in done.err
    if form == "--json":
        event = lines_of(done.err)[-1]
        assert (event["event"], event["exit_code"]) == ("output_lost", LOST)
        assert event["tasks"] == [event["resume"].split()[-1]]
        words = event["resume"].split()[1:]
        assert (await run(sandbox, tmp_path, "out", "err", "--json", *words)).code == 0
        assert len(sandbox.journal.creates) == 1


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("words", [["wait"], ["task"], ["download", "--out", "songs"]])
async def test_free_commands_name_their_task(
    sandbox: Sandbox, tmp_path: Path, sink: str, words: list[str]
) -> None:
    """The result that could not be written is free to get again."""
    async with sandbox.client() as client:
        task = await client.sonic.create_music(mv="sonic-v6", prompt="la")
        await task.wait()
    for form in ("--json", "--text"):
        done = await lost(sandbox, tmp_path, sink, form, *words, task.token)
        assert done.code == LOST
        assert task.token in done.err
        assert ("musicapi download" if "download" in words else "musicapi wait") in done.err


@pytest.mark.parametrize("sink", SINKS)
async def test_batch_reports_on_standard_error(sandbox: Sandbox, tmp_path: Path, sink: str) -> None:
    """All songs are made and fetched; the summary, the tasks and the command are on standard error."""
    lines = [json.dumps({"mv": "sonic-v6", "prompt": "la", "id": name}) for name in ("one", "two")]
    (tmp_path / "songs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    words = ("batch", "run", "songs.jsonl", "--out", "o ut", "--rate-limit", "none")
    done = await lost(sandbox, tmp_path, sink, "--text", *words)
    assert done.code == LOST
    assert "2 songs done" in done.err
    assert "musicapi --text batch run songs.jsonl --out 'o ut' --rate-limit none" in done.err
    assert all(create.task_id in done.err for create in sandbox.journal.creates)
    as_json = await lost(sandbox, tmp_path, sink, "--json", *words)
    assert [event["event"] for event in lines_of(as_json.err)][-2:] == ["batch", "output_lost"]
    assert len(sandbox.journal.creates) == 2


@pytest.mark.parametrize("sink", SINKS)
async def test_paid_reply_is_printed_on_standard_error(sandbox: Sandbox, tmp_path: Path, sink: str) -> None:
    """A persona's id, and the body of a call that is not typed, cannot be asked for again."""
    async with sandbox.client() as client:
        clips = await (await client.sonic.create_music(mv="sonic-v6", prompt="la")).wait()
    for form in ("--json", "--text"):
        made = await lost(
            sandbox, tmp_path, sink, form, "persona", "--name", "A", "--clip-id", clips[0].clip_id
        )
        assert made.code == LOST
        assert "persona_id" in made.err
    body = '{"task_type": "create_music", "mv": "sonic-v6", "prompt": "la", "custom_mode": true}'
    raw = await lost(sandbox, tmp_path, sink, "request", "POST", "/sonic/create", "--json", body)
    assert raw.code == LOST
    assert f"musicapi:sonic::0:{sandbox.journal.creates[-1].task_id}" in raw.err or "musicapi wait" in raw.err


@pytest.mark.parametrize("sink", SINKS)
async def test_resubmitted_job_names_its_task(sandbox: Sandbox, tmp_path: Path, sink: str) -> None:
    """`jobs resubmit` pays, and `jobs list` does not."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after, times=1)
    async with sandbox.client() as client:
        store = SQLiteStore(tmp_path / "jobs.db")
        view = client.with_options(store=store, job_key="k")
        with pytest.raises(Exception, match="unknown"):
            await view.sonic.create_music(mv="sonic-v6", prompt="la")
        await store.aclose()
    done = await lost(sandbox, tmp_path, sink, "--text", "jobs", "resubmit", "jobs.db", "k", "--yes")
    assert done.code == LOST
    assert str(sandbox.journal.creates[-1].task_id) in done.err
    assert "musicapi wait" in done.err


@pytest.mark.parametrize(
    ("sink", "form"), [("full", "--json"), ("closed", "--text"), ("no reader", "--json")]
)
async def test_demo_charges_nothing_real(tmp_path: Path, sink: str, form: str) -> None:
    """Its tasks end with it; the files that were saved stay."""
    done = await lost(None, tmp_path, sink, form, "demo", "--speed", "400", "--out", "o")
    assert done.code == LOST
    assert "Task musicapi:" not in done.err  # no one can resume them
    assert ('"tasks": []' in done.err) == (form == "--json")
    assert f"musicapi {form} demo --speed 400 --out o" in done.err


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["create", "--help"], ["credits"], ["completion", "bash"]]
)
async def test_free_output_reports_loss_once(sandbox: Sandbox, tmp_path: Path, args: list[str]) -> None:
    """One error for a full or closed stream; a reader that left needs no words."""
    for sink in ("full", "closed"):
        done = await lost(sandbox, tmp_path, sink, "--text", *args)
        assert done.code == LOST
        assert len(done.err.splitlines()) == 1
    left = await lost(sandbox, tmp_path, "no reader", "--text", *args)
    assert (left.code, left.err) == (LOST, "")


@pytest.mark.parametrize("err", [None, "/dev/full", ""])
@pytest.mark.parametrize("form", ["--json", "--text"])
async def test_token_moves_to_standard_output(
    sandbox: Sandbox, tmp_path: Path, err: str | None, form: str
) -> None:
    """Nor does the log, which cannot be written, end a paid call."""
    sandbox.faults.on("POST", "/sonic/create", Fault.stuck())
    done = await run(sandbox, tmp_path, "out", err, form, "-vv", *SONG, "--timeout", "60")
    assert done.code == 5
    assert token_of(sandbox) in done.out


@pytest.mark.parametrize(
    ("script", "form"),
    [('"$@" >&- 2>&-', "--json"), ('"$@" >/dev/full 2>&1', "--text"), ('"$@" <&- >&- 2>&-', "--json")],
)
async def test_exit_code_without_any_stream(sandbox: Sandbox, tmp_path: Path, script: str, form: str) -> None:
    """And one song was paid for, not two."""
    done = await in_shell(script, sandbox, tmp_path, form, *SONG, "--download", "songs")
    assert (done.code, done.out, done.err) == (LOST, "", "")
    assert len(sandbox.journal.creates) == 1


@pytest.mark.parametrize("sink", SINKS)
async def test_create_under_shell(sandbox: Sandbox, tmp_path: Path, sink: str) -> None:
    """The same with a new interpreter, whose own end could fail as well."""
    done = await in_shell(SCRIPTS[sink], sandbox, tmp_path, "--json", *SONG, read=sink != "no reader")
    assert (done.code, done.out) == (LOST, "")
    assert token_of(sandbox) in done.err
    assert f"musicapi wait {lines_of(done.err)[-1]['tasks'][0]}" in done.err


async def test_closed_descriptors_are_not_reused(sandbox: Sandbox, tmp_path: Path) -> None:
    """Code that writes to descriptor 2 must not write into a job store."""
    (tmp_path / "songs.jsonl").write_text('{"mv": "sonic-v6", "prompt": "la"}', encoding="utf-8")
    words = ("batch", "run", "songs.jsonl", "--out", "o", "-vv")
    assert (await run(sandbox, tmp_path, None, None, *words)).code == LOST
    assert (await run(sandbox, tmp_path, "out", "err", *words)).code == 0
    assert len(sandbox.journal.creates) == 1


async def test_failed_task_is_reported_as_well(sandbox: Sandbox, tmp_path: Path) -> None:
    """The loss of the output does not hide the error."""
    async with sandbox.client() as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.fail("failed-200"))
        task = await client.sonic.create_music(mv="sonic-v6", prompt="la")
        with pytest.raises(TaskFailedError):
            await task.wait()
    done = await lost(sandbox, tmp_path, "full", "--json", "task", task.token)
    assert done.code == LOST
    assert [event["event"] for event in lines_of(done.err)] == ["error", "output_lost"]
    assert lines_of(done.err)[0]["type"] == "TaskFailedError"


async def test_non_blocking_pipe_gets_everything(sandbox: Sandbox, tmp_path: Path) -> None:
    """Other programs make their end of a pipe non-blocking, and so ours."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-c",
            "from musicapi_async.cli.output import guard_streams, print_out; guard_streams(); print_out('x' * 300000)",
        ),
        env=environment(sandbox),
        stdout=writer,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writer)
    await asyncio.sleep(0)
    with os.fdopen(reader, "rb") as pipe:
        read = await asyncio.to_thread(pipe.read)
    _, err = await process.communicate()
    assert (process.returncode, err, len(read)) == (0, b"", 300001)
