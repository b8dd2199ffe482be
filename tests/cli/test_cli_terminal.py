"""What a person sees on a terminal of 80 columns: progress that leaves nothing behind, songs shown and played."""

from __future__ import annotations

import json
import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import mutagen.id3
import pytest
from click.testing import CliRunner
from command_shell import SPEED, Shell, lines_of
from terminal import on_terminal, screen_of

from musicapi_async.cli.commands import musicapi
from musicapi_async.sandbox import Durations, Fault, Sandbox

BAR = "\u2501"
LYRICS = "[Verse]\nRain on the window"
SONG = ("--mv", "sonic-v6", "--prompt", "la", "--title", "Rain", "--duration", "10")


def manifest(folder: Path, songs: int) -> None:
    """Songs without ids."""
    rows = [{"mv": "sonic-v6", "prompt": f"[Verse]\nRain {n}", "title": f"Song {n}"} for n in range(songs)]
    (folder / "songs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


async def terminal(folder: Path, box: Sandbox, *args: str, **options: Any) -> tuple[int, list[str]]:
    """The exit code, and the screen in the end."""
    code, written = await anyio.to_thread.run_sync(partial(on_terminal, folder, *args, box=box, **options))
    assert BAR in written
    return code, screen_of(written)


async def stopped(folder: Path, box: Sandbox, *args: str, interrupt_at: str) -> tuple[int, list[str]]:
    """The same of a batch whose songs end only after Ctrl-C."""
    box.faults.on("GET", "/sonic/task/*", Fault.status(503), times=None)
    return await terminal(folder, box, *args, interrupt_at=interrupt_at, stopping=box.faults.clear)


async def test_budget_stop_is_printed_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """In the summary, which takes the place of the bar; a song without an id is named by its line."""
    manifest(tmp_path, 3)
    run = ("batch", "run", "songs.jsonl", "--out", "out", "--budget", "25", "--price", "create_music=20")
    code, screen = await terminal(tmp_path, sandbox, *run)
    text = " ".join(screen)
    assert code == 3
    assert text.count("the budget of 25 credits is used up") == 1
    assert text.count(BAR) == 0
    assert "2 songs unfinished (line " in text
    assert text.count("continues") == 1
    assert screen[0].startswith("1 song done, 0 failed")


async def test_ctrl_c_leaves_no_bar_behind(sandbox: Sandbox, tmp_path: Path) -> None:
    """The text says what happens, and the summary follows; the terminal's ^C is on no line."""
    manifest(tmp_path, 2)
    run = ("batch", "run", "songs.jsonl", "--out", "out", "--rate-limit", "none")
    code, screen = await stopped(tmp_path, sandbox, *run, interrupt_at="2 running")
    assert code == 0
    assert screen[0].startswith("Stopping: nothing more is submitted; songs under way will be fetched.")
    assert any(line.startswith("2 songs done, 0 failed") for line in screen)
    assert not [line for line in screen if BAR in line or "^C" in line]


@pytest.mark.parametrize(
    "more", [(), ("--download", "songs"), ("--timeout", "1")], ids=["wait", "save", "late"]
)
async def test_resume_command_is_printed_once(
    sandbox: Sandbox, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """When the task is accepted; the end of the wait refers to it, and comes by Ctrl-C or by a time limit."""
    sandbox.faults.on("POST", "/sonic/create", Fault.stuck())
    at = "" if "--timeout" in more else "Accepted"
    code, screen = await terminal(tmp_path, sandbox, "create", *SONG, *more, interrupt_at=at)
    text = " ".join(screen)
    assert code == (130 if at else 5)
    assert text.count("musicapi:sonic:create_music:") == 1
    assert text.index("musicapi:sonic:create_music:") < text.index("1 task is still running and paid for.")
    assert text.endswith("with the command above.")


async def test_resume_command_of_other_tasks_is_printed(sandbox: Sandbox, tmp_path: Path) -> None:
    """Of two waits the one that has ended needs no second one, so the command is another one."""
    sandbox.faults.on("POST", "/sonic/create", Fault.stuck())
    shell = Shell(sandbox, tmp_path)
    ended, running = [lines_of((await shell.run("create", *SONG)).out)[0]["token"] for _ in range(2)][::-1]
    assert (await shell.run("wait", ended)).code == 0
    code, screen = await terminal(tmp_path, sandbox, "wait", ended, running, "--timeout", "2")
    assert code == 5
    assert f"  {running}" in screen


async def test_resume_command_of_several_tasks_fits(sandbox: Sandbox, tmp_path: Path) -> None:
    """Each token is on one line with its backslash, which does not wrap."""
    sandbox.faults.on("POST", "/sonic/create", Fault.stuck(), times=2)
    shell = Shell(sandbox, tmp_path)
    tokens = [lines_of((await shell.run("create", *SONG, "--no-wait")).out)[0]["token"] for _ in range(2)]
    code, screen = await terminal(tmp_path, sandbox, "wait", *tokens, "--timeout", "1")
    assert code == 5
    assert screen[-3:] == ["  musicapi wait \\", f"  {tokens[0]} \\", f"  {tokens[1]}"]


async def test_command_in_a_text_can_be_copied(sandbox: Sandbox, tmp_path: Path) -> None:
    """A line break, or a blank at the end of a line, would cut the words of the command that settles a call."""
    manifest(tmp_path, 1)
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    out = "the folder of all my songs"
    code, written = await anyio.to_thread.run_sync(
        partial(on_terminal, tmp_path, "batch", "run", "songs.jsonl", "--out", out, box=sandbox)
    )
    assert code == 6
    (command,) = re.findall(r"`musicapi (jobs resubmit [^`]*)`", written)
    again = await Shell(sandbox, tmp_path).run(*shlex.split(command), "--yes", "--json")
    assert (again.code, len(sandbox.journal.creates)) == (0, 2), again.err
    assert "\n" not in command


async def test_resume_command_repeats_host_key_and_clock(sandbox: Sandbox, tmp_path: Path) -> None:
    """Given as options, they are in no variable that the command would find them in."""
    (tmp_path / "my key").write_text(sandbox.api_key)
    options = ("--base-url", sandbox.base_url, "--key-file", "my key", "--clock-speed", f"{SPEED:g}")
    for then in ("--no-wait", "--wait"):
        code, written = await anyio.to_thread.run_sync(
            partial(on_terminal, tmp_path, *options, "create", *SONG, then)
        )
        assert code == 0
        text = "\n".join(screen_of(written))
        (words,) = re.findall(r"^  musicapi (wait (?:.*\\\n)*.*)$", text, re.MULTILINE)
        again = await Shell(folder=tmp_path).run(*shlex.split(words.replace("\\\n", "")))
        assert again.code == 0, again.err


async def test_ctrl_c_at_a_question_is_an_interrupt(sandbox: Sandbox, tmp_path: Path) -> None:
    """By its exit code, too, as anywhere else; nothing is sent."""
    manifest(tmp_path, 1)
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after)
    shell = Shell(sandbox, tmp_path)
    await shell.run("batch", "run", "songs.jsonl", "--out", "out")
    (job,) = lines_of((await shell.run("jobs", "list", "out")).out)
    code, written = await anyio.to_thread.run_sync(
        partial(
            *(on_terminal, tmp_path, "jobs", "resubmit", "out", job["key"]), box=sandbox, interrupt_at="[y/N]"
        )
    )
    assert (code, screen_of(written)[-1]) == (130, "Interrupted.")
    assert len(sandbox.journal.creates) == 1


async def test_interrupted_batch_has_one_way_to_continue(sandbox: Sandbox, tmp_path: Path) -> None:
    """The same command, which fetches the songs, too; Ctrl-C comes while the call is sent, and comes twice."""
    manifest(tmp_path, 1)
    sandbox.faults.on("POST", "/sonic/create", Fault.slow(1.0 * SPEED))
    code, written = await anyio.to_thread.run_sync(
        partial(
            *(on_terminal, tmp_path, "batch", "run", "songs.jsonl", "--out", "out"),
            box=sandbox,
            interrupt_at="1 queued",
            again_at="Stopping:",
        )
    )
    text = " ".join(screen_of(written))
    assert code == 130
    assert text.count("Run the same command again") == 1
    assert "0 songs under way" not in text
    assert "musicapi wait" not in text


async def test_batch_says_once_that_it_continues(sandbox: Sandbox, tmp_path: Path) -> None:
    """After Ctrl-C the summary says it, and the text before the summary does not."""
    manifest(tmp_path, 3)
    run = ("batch", "run", "songs.jsonl", "--out", "out", "--max-in-flight", "1")
    code, screen = await stopped(tmp_path, sandbox, *run, interrupt_at="1 running")
    assert code == 130
    assert " ".join(screen).count("pays for nothing twice") == 1


async def test_log_line_leaves_no_bar_behind(sandbox: Sandbox, tmp_path: Path) -> None:
    """It is above the bars while they move, and below them nothing remains but the result."""
    code, screen = await terminal(tmp_path, sandbox, "create", *SONG, "-v")
    assert code == 0
    assert sum(line.startswith("info: POST /sonic/create accepted") for line in screen) == 1
    assert sum(line.startswith("Rain  0:10  succeeded") for line in screen) == 2
    assert not [line for line in screen if BAR in line]


async def test_update_says_what_is_new(tmp_path: Path) -> None:
    """All updates together give the clips of the end, and no clip repeats what an event before said."""
    slow = Durations(song=(80.0, 0.0))  # polls find it running
    async with Sandbox(speed=SPEED, durations=slow, longest=1) as box:
        done = await Shell(box, tmp_path).run("create", *SONG, "--download", "d", "--json")
    events = lines_of(done.out)
    assert [name for name in ("family", "kind") if any(name in event for event in events[1:])] == []
    clips: dict[str, dict[str, Any]] = {}
    for event in events:
        for clip in event.get("clips", ()) if event["event"] == "update" else ():
            known = clips.setdefault(clip["clip_id"], {})
            assert not [
                name for name in clip if name in known and name != "clip_id" and known[name] == clip[name]
            ]
            known.update(clip)
    ended = {
        clip["clip_id"]: clip for clip in next(one for one in events if one["event"] == "finished")["clips"]
    }
    assert clips.keys() == ended.keys()
    assert all(clips[clip_id]["title"] == clip["title"] for clip_id, clip in ended.items())


async def test_show_says_all_of_a_task(sandbox: Sandbox, tmp_path: Path) -> None:
    """In text and in JSON, without waiting; `task`, its former name, does the same."""
    shell = Shell(sandbox, tmp_path)
    made = await shell.run("create", *SONG, "--prompt", LYRICS, "--tags", "lo-fi, soft", "--wait", "--json")
    token = lines_of(made.out)[0]["token"]
    shown = (await shell.run("--text", "show", token)).out.splitlines()
    assert shown[0].startswith("sonic create_music, succeeded, submitted 20")
    assert shown.count("  style  lo-fi, soft") == shown.count("  model  sonic-v6") == 2
    assert shown.count("  lyrics as above") == shown.count("    Rain on the window") == 1
    assert "  task " not in (await shell.run("--help")).out
    (event,) = lines_of((await shell.run("--json", "task", token)).out)
    assert [clip["tags"] for clip in event["clips"]] == ["lo-fi, soft"] * 2
    assert event["kind"] == "create_music"


async def test_terminal_without_a_cursor_gets_plain_lines(sandbox: Sandbox, tmp_path: Path) -> None:
    """With TERM=dumb no bar moves: a wait leaves no empty line, and a batch says how far it is."""
    manifest(tmp_path, 1)

    async def written_by(*args: str) -> str:
        run = partial(on_terminal, tmp_path, *args, box=sandbox, variables={"TERM": "dumb"})
        code, written = await anyio.to_thread.run_sync(run)
        assert code == 0
        assert "\x1b" not in written
        assert "\r\n\r\n" not in written
        return written

    assert "succeeded" in await written_by("create", *SONG)
    assert (await written_by("batch", "run", "songs.jsonl", "--out", "out")).startswith("0/1 ")


async def test_no_color_is_followed(sandbox: Sandbox, tmp_path: Path) -> None:
    """By results and errors as by bars, which may be bold."""
    for args, text in ((("create", *SONG), "succeeded"), (("request", "GET", "/typo"), "Error: GET /typo")):
        run = partial(on_terminal, tmp_path, *args, box=sandbox, variables={"NO_COLOR": "1"})
        _, written = await anyio.to_thread.run_sync(run)
        assert text in written
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", written)


async def test_create_writes_tags_beside_the_style(sandbox: Sandbox, tmp_path: Path) -> None:
    """`--tags` without a text is about the files, with one about the style; both may be given."""
    shell = Shell(sandbox, tmp_path)
    made = await shell.run("create", *SONG, "--tags", "lo-fi", "--tags", "--download", "d", "--json")
    for path in lines_of(made.out)[-1]["paths"]:
        tags = mutagen.id3.ID3(tmp_path / path)
        assert [str(tags[name]) for name in ("TCON", "TALB", "COMM::und")] == ["lo-fi", "d", "la"]
    body = sandbox.journal.creates[0].body
    assert isinstance(body, dict)
    assert body["tags"] == "lo-fi"
    plain = await shell.run("create", *SONG, "--tags", "--json")
    assert plain.code == 2
    assert "needs --download DIR" in lines_of(plain.err)[0]["message"]
    assert len(sandbox.journal.creates) == 1
    token = lines_of(made.out)[0]["token"]
    again = await shell.run("download", token, "--out", "e", "--tags", "--json")
    assert str(mutagen.id3.ID3(tmp_path / lines_of(again.out)[-1]["paths"][0])["TALB"]) == "e"


def fake(folder: Path, name: str, text: str) -> dict[str, str]:
    """A player that is the only program of the path."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def test_play_takes_the_player_that_is_there(tmp_path: Path) -> None:
    """One file after the other; a player that cannot play a file ends it."""
    songs = [tmp_path / "-one (take 1).mp3", tmp_path / "two.mp3"]
    for song in songs:
        song.write_bytes(b"ID3")
    path = fake(tmp_path / "bin", "mpv", f'echo "$*" >> {tmp_path}/played; [ "$2" != {songs[1]} ]')
    done = CliRunner().invoke(musicapi, ["--text", "play", "--", *map(str, songs)], env=path)
    assert (done.exit_code, (tmp_path / "played").read_text()) == (
        1,
        "".join(f"--no-video {one}\n" for one in songs),
    )
    assert "mpv could not play" in done.stderr
    for_programs = CliRunner().invoke(musicapi, ["--json", "play", str(songs[1])], env=path)
    (error,) = lines_of(for_programs.stderr)
    assert (error["event"], error["exit_code"]) == ("error", 1)


def test_ctrl_c_ends_the_player(tmp_path: Path) -> None:
    """The next file is not played, and the text is over the ^C of the terminal."""
    songs = [tmp_path / "one.mp3", tmp_path / "two.mp3"]
    for song in songs:
        song.write_bytes(b"ID3")
    path = fake(tmp_path / "bin", "mpv", "echo sounds; exec /bin/sleep 60")
    code, written = on_terminal(tmp_path, "play", *map(str, songs), interrupt_at="sounds", variables=path)
    assert (code, screen_of(written)[-2:]) == (130, ["sounds", "Interrupted."])


def test_play_says_what_to_install(tmp_path: Path) -> None:
    """No player, one that plays other formats only, or a folder."""
    song = tmp_path / "one.mp3"
    song.write_bytes(b"ID3")
    for env in ({"PATH": ""}, fake(tmp_path / "bin", "aplay", "exit 0")):
        done = CliRunner().invoke(musicapi, ["--text", "play", str(song)], env=env)
        assert done.exit_code == 2
        assert "no player for mp3 files was found. Install mpv: " in " ".join(done.stderr.split())
    tune = tmp_path / "two.wav"
    tune.write_bytes(b"RIFF")
    done = CliRunner().invoke(
        musicapi,
        ["--text", "play", str(tune), str(song)],
        env=fake(tmp_path / "bin", "aplay", "touch played"),
    )
    assert (done.exit_code, "playing" in done.stdout) == (2, False)  # before the first one is played
    done = CliRunner().invoke(musicapi, ["--text", "play", str(tmp_path)], env={"PATH": ""})
    assert f"Name its files, such as {tmp_path}/*.mp3" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("words", "found"), [("create --mv sonic-v6-", ["sonic-v6-wild", "sonic-v6-mini"]), ("sho", ["show"])]
)
def test_completion_knows_models(words: str, found: list[str]) -> None:
    """And commands."""
    line = f"musicapi {words}"
    env = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_MUSICAPI_COMPLETE": "bash_complete"}
    done = CliRunner().invoke(musicapi, prog_name="musicapi", env=env)
    assert done.stdout.split() == [f"plain,{word}" for word in found]
