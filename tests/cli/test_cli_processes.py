"""The command as users and scripts run it: processes against a sandbox."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_shell import Shell, ended, environment, lines_of
from mutagen.mp3 import MP3
from patience import until

from musicapi_async.sandbox import Choices, Fault, Sandbox

SONG = ("create", "--mv", "sonic-v6", "--prompt", "[Verse]\nla la la", "--title", "Lanterns")


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run a few lines of Python."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# --- starting ------------------------------------------------------------------------------------------------


def test_help_loads_neither_aiohttp_nor_numpy_nor_rich() -> None:
    """A help text comes at once."""
    loaded = python(
        "import sys\n"
        "from musicapi_async.cli import main\n"
        "sys.argv = ['musicapi', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print({'aiohttp', 'numpy', 'rich'} & set(sys.modules))"
    )
    assert loaded.stdout.endswith("set()\n"), loaded.stderr
    assert "Exit codes" in loaded.stdout


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_missing_extra_is_one_line(missing: str) -> None:
    """No traceback, but the line to type."""
    ran = python(f"import sys; sys.modules[{missing!r}] = None\nfrom musicapi_async.cli import main; main()")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"The musicapi command needs the extra [cli] ({missing} is not installed): ")
    assert len(ran.stderr.splitlines()) == 1


async def test_proxy_of_the_environment_is_used(shell: Shell, sandbox: Sandbox) -> None:
    """As with other commands; a sandbox on this machine is called without it."""
    heads: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        shell.environment |= dict.fromkeys(("http_proxy", "https_proxy"), f"http://127.0.0.1:{port}")
        shell.environment["no_proxy"] = ""
        assert (await shell.run("credits")).code == 0
        assert heads == []
        shell.environment |= {
            "MUSICAPI_CLOCK_SPEED": "1",
            "MUSICAPI_BASE_URL": "https://music.invalid/api/v1",
        }
        refused = await shell.run("--text", "credits")
    assert refused.code == 1
    assert "the proxy refused: HTTP 407" in refused.err
    assert {head.split(b"\r\n")[0] for head in heads} == {b"CONNECT music.invalid:443 HTTP/1.1"}


def test_ctrl_c_while_the_command_is_imported_is_quiet() -> None:
    """It takes a part of a second, and a traceback says nothing to a user."""
    ran = python(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(name, *_):\n"
        "        if name == 'musicapi_async.cli.commands': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder)\n"
        "from musicapi_async.cli import main; main()"
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
async def test_completion_scripts_are_printed(name: str) -> None:
    """One for each common shell."""
    done = await Shell().run("completion", name)
    assert done.code == 0
    assert "_MUSICAPI_COMPLETE" in done.out


# --- the account and refusals --------------------------------------------------------------------------------


async def test_credits_as_json(shell: Shell) -> None:
    """One object on one line."""
    done = await shell.run("credits")
    assert (done.code, done.err) == (0, "")
    assert lines_of(done.out) == [{"event": "credits", "credits": 1000, "extra_credits": 0, "total": 1000}]


async def test_key_from_file(sandbox: Sandbox, shell: Shell, tmp_path: Path) -> None:
    """The key may be in a file; never in the arguments."""
    del shell.environment["MUSICAPI_KEY"]
    missing = await shell.run("credits")
    assert (missing.code, lines_of(missing.err)[0]["field"]) == (2, "api_key")
    (tmp_path / "key").write_text(sandbox.api_key + "\n", encoding="utf-8")
    assert (await shell.run("credits", "--key-file", "key")).code == 0
    assert (await shell.run("credits", "--key-file", "none")).code == 2


async def test_wrong_key_is_code_three(shell: Shell) -> None:
    """And the text does not show it."""
    shell.environment["MUSICAPI_KEY"] = "not-the-key"
    done = await shell.run("credits", "--json")
    error = lines_of(done.err)[0]
    assert (done.code, error["type"], error["exit_code"]) == (3, "AuthenticationError", 3)
    assert "not-the-key" not in done.err


async def test_refused_request_is_never_sent(sandbox: Sandbox, shell: Shell) -> None:
    """Limits are checked here, and named by their options."""
    done = await shell.run(*SONG, "--tags", "x" * 1001, "--duration", "3")
    assert done.code == 2
    error = lines_of(done.err)[0]
    assert "--tags" in error["message"]
    assert "--duration" in error["message"]
    assert error["money"] == "Nothing was sent, nothing was charged."
    assert not list(sandbox.journal)


async def test_fast_clock_is_for_sandboxes_only(shell: Shell) -> None:
    """A forgotten variable must not hammer the real service."""
    done = await shell.run("credits", "--base-url", "https://api.example.org/v1")
    assert done.code == 2
    assert "sandbox on this machine only" in done.err


async def test_usage_error_is_json_when_asked(shell: Shell) -> None:
    """Programs get an object for every error."""
    done = await shell.run("--json", "credits", "--nonsense")
    assert (done.code, lines_of(done.err)[0]["type"]) == (2, "UsageError")


# --- creating, waiting, fetching ------------------------------------------------------------------------------


async def test_song_from_submit_to_file(sandbox: Sandbox, shell: Shell, tmp_path: Path) -> None:
    """Every step is an event with stable keys; the files are whole and named by their title."""
    done = await shell.run(*SONG, "--download", "songs")
    assert (done.code, done.err) == (0, "")
    events = lines_of(done.out)
    names = [event["event"] for event in events]
    assert (names[0], names[-2:]) == ("submitted", ["finished", "downloaded"])
    assert set(names[1:-2]) == {"update"}
    assert {event["token"] for event in events} == {events[0]["token"]}
    finished = events[-2]
    assert (finished["state"], [clip["state"] for clip in finished["clips"]]) == (
        "succeeded",
        ["succeeded"] * 2,
    )
    for path in events[-1]["paths"]:
        assert MP3(tmp_path / path).tags["TIT2"] == "Lanterns"
    assert len(sandbox.journal.creates) == 1


async def test_pipe_gets_id_at_once(shell: Shell) -> None:
    """Without a terminal a create does not wait; the token is enough for all that follows."""
    done = await shell.run(*SONG)
    (submitted,) = lines_of(done.out)
    assert (done.code, submitted["event"], submitted["kind"]) == (0, "submitted", "create_music")
    look = await shell.run("task", submitted["token"])
    assert lines_of(look.out)[0]["task_id"] == submitted["task_id"]
    waited = await shell.run("wait", submitted["token"], submitted["task_id"])
    assert [event["event"] for event in lines_of(waited.out)].count("finished") == 1
    fetched = await shell.run("download", submitted["task_id"], "--out", "d", "--name", "{index}")
    assert lines_of(fetched.out)[-1]["paths"] == ["d/0.mp3", "d/1.mp3"]


async def test_text_without_terminal(shell: Shell) -> None:
    """--text prints a command to copy."""
    done = await shell.run("--text", *SONG, "--no-wait")
    assert "musicapi wait" in done.out
    assert "musicapi:sonic:create_music:" in done.out


async def test_lyrics_from_standard_input(sandbox: Sandbox, shell: Shell) -> None:
    """`@-` reads the prompt."""
    done = await shell.run("create", "--mv", "sonic-v6", "--prompt", "@-", given=b"[Verse]\nfrom a pipe\n")
    assert done.code == 0
    sent = [entry for entry in sandbox.journal if entry.path == "/sonic/create"]
    assert [entry.body["prompt"] for entry in sent if entry.body] == ["[Verse]\nfrom a pipe"]


async def test_persona_and_song_with_it(shell: Shell) -> None:
    """The shortcut takes the clip as an option; the reply holds the persona's id."""
    song = await shell.run(*SONG, "--wait")
    clip_id = lines_of(song.out)[-1]["clips"][0]["clip_id"]
    made = await shell.run("persona", "--name", "Rain", "--clip-id", clip_id)
    persona_id = lines_of(made.out)[0]["persona_id"]
    sung = await shell.run(
        *(
            "sonic",
            "persona-music",
            "--mv",
            "sonic-v6",
            "--persona-id",
            persona_id,
            "--prompt",
            "la",
            "--wait",
        )
    )
    assert lines_of(sung.out)[-1]["state"] == "succeeded"


async def test_any_path_can_be_called(shell: Shell) -> None:
    """Paths that are not typed are reached with their method and path."""
    done = await shell.run("request", "get", "/get-credits")
    assert lines_of(done.out) == [{"credits": 1000, "extra_credits": 0}]
    body = '{"task_type": "create_music", "mv": "sonic-v6", "prompt": "la", "custom_mode": true}'
    created = await shell.run("request", "POST", "/sonic/create", "--json", "@-", given=body.encode())
    assert "task_id" in lines_of(created.out)[0]
    assert (await shell.run("request", "GET", "https://example.org/")).code == 2


# --- failures and interruptions -------------------------------------------------------------------------------


async def test_failed_task_is_code_four(sandbox: Sandbox, shell: Shell) -> None:
    """The event has the service's word about the credits."""
    sandbox.faults.on("POST", "/sonic/create", Fault.fail("failed-200"))
    done = await shell.run(*SONG, "--wait")
    assert done.code == 4
    failed = lines_of(done.out)[-1]
    assert (failed["event"], failed["state"]) == ("failed", "failed")
    assert lines_of(done.err)[0]["type"] == "TaskFailedError"


async def test_timeout_is_code_five(sandbox: Sandbox, shell: Shell) -> None:
    """The task continues, and the last line names it."""
    sandbox.faults.on("POST", "/sonic/create", Fault.stuck())
    done = await shell.run(*SONG, "--timeout", "60")
    token = lines_of(done.out)[0]["token"]
    assert done.code == 5
    assert lines_of(done.err)[-1] == {"event": "going_on", "tasks": [token], "not_downloaded": []}


async def test_timeout_says_once_that_the_task_is_paid_for(sandbox: Sandbox, shell: Shell) -> None:
    """The error, which refers to the command that resumes, printed when the task was accepted."""
    sandbox.faults.on("POST", "/sonic/create", Fault.stuck())
    done = await shell.run(*SONG, "--wait", "--timeout", "60", "--text")
    error = done.err.partition("Error: ")[2]
    assert error.startswith(
        "no end after 60 s of waiting (last state: running)\n1 task is still running and paid"
    )
    assert done.err.count("paid for") == done.err.count("musicapi wait") == 1


async def test_unknown_outcome_is_code_six(sandbox: Sandbox, shell: Shell) -> None:
    """Sent once, charged perhaps, and said so, once."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    done = await shell.run(*SONG)
    (error,) = lines_of(done.err)
    assert (done.code, error["may_have_been_charged"]) == (6, True)
    assert [entry.path for entry in sandbox.journal].count("/sonic/create") == 1


async def test_unknown_task_is_not_unfinished(sandbox: Sandbox, shell: Shell) -> None:
    """No text advises to wait for an id that does not exist."""
    sandbox.choices = Choices(unknown_task="404")
    done = await shell.run("wait", "nonsense")
    assert [event["event"] for event in lines_of(done.err)] == ["error"]
    assert done.code == 1


async def test_ctrl_c_prints_unfinished_tasks(sandbox: Sandbox, shell: Shell) -> None:
    """Exit code 130, no traceback, and the command to come back with."""
    sandbox.faults.on("POST", "/sonic/create", Fault.stuck())
    done = await shell.interrupt_after('"running"', *SONG, "--wait")
    token = lines_of(done.out)[0]["token"]
    interrupted = lines_of(done.err)[-1]
    assert (done.code, interrupted["event"], interrupted["tasks"]) == (130, "interrupted", [token])
    assert "Traceback" not in done.err


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP"])
async def test_signal_during_create_names_its_task(sandbox: Sandbox, shell: Shell, how: str) -> None:
    """Ctrl-C, `timeout` or a service manager, and a closed terminal, each perhaps twice: the answer to a paid
    call is awaited for a moment, because its id is worth money."""
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(1.0 * sandbox.clock.speed))
    process = await shell.start("--json", *SONG)
    while not any(entry.path == "/sonic/create" for entry in sandbox.journal):
        await sandbox.clock.sleep(1)  # in small steps, because another process sends the request
    process.send_signal(signal.Signals[how])
    if how != "SIGINT":  # of which a second one ends the process at once
        process.send_signal(signal.Signals[how])
    done = await ended(process)
    interrupted = lines_of(done.err)[-1]
    assert (done.code, interrupted["event"]) == (130, "interrupted")
    (token,) = interrupted["tasks"]
    waited = await shell.run("wait", token)
    assert waited.code == 0


async def test_second_ctrl_c_gives_up_a_call_that_is_sent(sandbox: Sandbox, shell: Shell) -> None:
    """Its outcome is unknown, and the text says so, without a traceback."""
    sandbox.faults.on("POST", "/sonic/create", Fault.hang)
    process = await shell.start("--text", *SONG)
    await until(lambda: sandbox.journal.creates)
    process.send_signal(signal.SIGINT)
    said = await process.stderr.readuntil(b"its answer is still awaited")
    process.send_signal(signal.SIGINT)
    done = await ended(process)
    err = said.decode() + done.err
    assert done.code == 130
    assert "given up before the answer: the account may have been charged" in err
    assert err.count("Interrupted.") == 1
    assert "Traceback" not in err


async def test_paid_reply_after_ctrl_c_is_printed(sandbox: Sandbox, shell: Shell) -> None:
    """A link or a persona that is paid for is nowhere else."""
    created = lines_of((await shell.run(*SONG, "--wait")).out)
    clip_id = created[-1]["clips"][0]["clip_id"]
    sandbox.faults.on("POST", "/sonic/persona", Fault.slow(1.0 * sandbox.clock.speed))
    process = await shell.start("--text", "persona", "--name", "V%", clip_id)
    await until(lambda: sandbox.journal.requests("/sonic/persona"))
    process.send_signal(signal.SIGINT)
    done = await ended(process)
    assert done.code == 130
    assert '"persona_id":"' in done.err


async def test_files_that_are_missing_can_be_fetched_later(
    sandbox: Sandbox, shell: Shell, tmp_path: Path
) -> None:
    """A folder that is gone when the song is there is an error that costs nothing but another download."""
    process = await shell.start(*SONG, "--download", "songs")
    await until(lambda: sandbox.journal.creates)
    (tmp_path / "songs").rmdir()
    (tmp_path / "songs").write_text("a file, no folder", encoding="utf-8")
    done = await ended(process)
    token = lines_of(done.out)[0]["token"]
    assert done.code == 1
    assert lines_of(done.err)[-1] == {"event": "going_on", "tasks": [], "not_downloaded": [token]}


async def test_closed_pipe_ends_without_traceback(sandbox: Sandbox, shell: Shell) -> None:
    """`| head -1` gives no traceback, and the task is still named."""
    process = await shell.start(*SONG, "--wait")
    line = await process.stdout.readline()
    process.transports[1].close()
    err = (await process.stderr.read()).decode()
    assert await process.ended() == 141
    assert "Traceback" not in err
    assert lines_of(err)[-1]["tasks"] == [lines_of(line.decode())[0]["token"]]
    assert sandbox.balance < 1000


async def test_log_is_shown_when_asked(shell: Shell) -> None:
    """-v prints the library's log, without the key."""
    done = await shell.run(*SONG, "-v")
    assert any("accepted" in event["message"] for event in lines_of(done.err))
    assert "sandbox-key" not in done.err


# --- the sandbox as a program ----------------------------------------------------------------------------------


async def test_sandbox_runs_alone() -> None:
    """It prints what to export, serves, and Ctrl-C ends it cleanly."""
    shell = Shell()
    process = await shell.start("sandbox", "--port", "0", "--speed", "200", "--create-limit", "1/3s")
    event = lines_of((await process.stdout.readline()).decode())[0]
    other = Shell()
    other.environment |= {"MUSICAPI_BASE_URL": event["base_url"], "MUSICAPI_KEY": event["api_key"]}
    assert lines_of((await other.run("credits")).out)[0]["total"] == 1000
    port = event["base_url"].split(":")[2].split("/")[0]
    taken = await shell.run("sandbox", "--port", port)
    assert taken.code == 2
    assert "--port 0" in taken.err
    process.send_signal(signal.SIGINT)
    done = await ended(process)
    assert done.code == 0
    assert "Traceback" not in done.err


async def test_environment_turns_the_log_on(sandbox: Sandbox) -> None:
    """MUSICAPI_LOG is obeyed like -v: each line once, as a JSON line; a wrong word is named."""
    shell = Shell(sandbox)
    shell.environment["MUSICAPI_LOG"] = "debug"
    done = await shell.run("credits")
    assert done.code == 0
    (line,) = lines_of(done.err)
    assert (line["event"], line["level"]) == ("log", "debug")
    assert line["message"].startswith("GET /get-credits: attempt 1: HTTP 200, ")
    shell.environment["MUSICAPI_LOG"] = "loud"
    done = await shell.run("credits")
    assert done.code != 0
    assert "MUSICAPI_LOG: one of debug, info, warning, got 'loud'" in done.err


# --- Ctrl-C --------------------------------------------------------------------------------------------------


def test_ctrl_c_cancels_between_callbacks() -> None:
    """A future that a callback saw waiting is still waiting when the callback sets it."""
    ran = python(
        "import asyncio, os, signal, sys, click\n"
        "from musicapi_async.cli import usage\n"
        "@click.command(cls=usage.Command)\n"
        "async def command():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    waiter = loop.create_future()\n"
        "    def callback():\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        waiter.set_result(None)\n"
        "    loop.call_soon(callback)\n"
        "    await waiter\n"
        "    await asyncio.sleep(60)\n"
        "try: command.main([], standalone_mode=False)\n"
        "except click.Abort: print('interrupted')"
    )
    assert (ran.stdout, ran.stderr.strip()) == ("interrupted\n", "")
