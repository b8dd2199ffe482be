"""Files of direct calls: the command fetches the links of the reply, without another program."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import anyio.to_thread
import pytest
from click.testing import CliRunner, Result
from command_shell import QUICK, SPEED, environment, lines_of

from musicapi_async.cli.commands import musicapi
from musicapi_async.sandbox import Sandbox

LYRICS = "[Verse]\nRain on the window"
ENDINGS = {
    ("wav",): {".wav"},
    ("midi",): {".mid"},
    ("download", "--formats", "mp3", "--formats", "wav"): {".mp3", ".wav"},
    ("aligned-lyrics",): {".lrc", ".srt"},
}


async def run(box: Sandbox, *args: str) -> Result:
    """Run the command in another thread, as it has an event loop of its own."""
    invoke = partial(CliRunner().invoke, musicapi, args, env=environment(box))
    return await anyio.to_thread.run_sync(invoke)


async def test_files_of_direct_calls_are_saved(tmp_path: Path) -> None:
    """The reply first, then where its files are; without the option nothing is written. As text, lyrics are
    shown line by line, or saved."""
    async with Sandbox(speed=SPEED, durations=QUICK, longest=4.0) as box, box.client() as client:
        song = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        clip_id = (await song.wait())[0].clip_id
        for number, (words, endings) in enumerate(ENDINGS.items()):
            folder = tmp_path / str(number)
            done = await run(box, "sonic", *words, clip_id, "--download", str(folder))
            assert done.exit_code == 0, done.output
            reply, saved = lines_of(done.stdout)
            assert (reply["event"], saved["event"]) == ("reply", "saved")
            assert {Path(path) for path in saved["paths"]} == set(folder.iterdir())
            assert {path.suffix for path in folder.iterdir()} == endings
        assert "Rain on the window" in (tmp_path / "3" / f"{clip_id}.lrc").read_text(encoding="utf-8")
        plain = await run(box, "sonic", "wav", clip_id)
        assert len(lines_of(plain.stdout)) == 1
        shown = await run(box, "--text", "sonic", "aligned-lyrics", clip_id)
        assert shown.stdout == (tmp_path / "3" / f"{clip_id}.lrc").read_text(encoding="utf-8")
        saved_only = await run(box, "--text", "sonic", "aligned-lyrics", clip_id, "--download", str(tmp_path))
        assert [line.split()[0] for line in saved_only.stdout.splitlines()] == ["saved", "saved"]


async def test_notes_of_a_song_do_not_flood_the_terminal() -> None:
    """Text prints their number, instead of a line for each of hundreds; JSON has all."""
    async with Sandbox(speed=SPEED, durations=QUICK, longest=20.0) as box, box.client() as client:
        song = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        clip_id = (await song.wait())[0].clip_id
        shown = (await run(box, "--text", "sonic", "midi", clip_id)).stdout
        (event,) = lines_of((await run(box, "--json", "sonic", "midi", clip_id)).stdout)
    many = [one for one in event["instruments"] if len(one["notes"]) > 20]
    assert many
    for instrument in many:
        assert (
            f"  name  {instrument['name']}\n  notes  {len(instrument['notes'])} (--json prints them)" in shown
        )


async def test_impossible_folder_is_found_before_paying(tmp_path: Path) -> None:
    """Neither a song nor a file is ordered for nowhere."""
    (tmp_path / "file").touch()
    song = ("create", "--mv", "sonic-v6", "--gpt-description-prompt", "rain")
    async with Sandbox() as box:
        for words in (song, ("sonic", "wav", "clip"), ("sonic", "aligned-lyrics", "clip")):
            blocked = await run(box, *words, "--download", str(tmp_path / "file/x"))
            assert blocked.exit_code == 1
            assert "DownloadError" in blocked.stderr
        assert len(box.journal) == 0


async def test_call_without_files_has_no_such_option() -> None:
    """A tempo is no file."""
    async with Sandbox() as box:
        done = await run(box, "sonic", "bpm", "clip", "--download", "folder")
    assert done.exit_code == 2
    assert "--download" in done.stderr


async def test_tilde_is_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells leave it as it is behind `=`."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    async with Sandbox(speed=SPEED, durations=QUICK, longest=4.0) as box, box.client() as client:
        song = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        clip_id = (await song.wait())[0].clip_id
        lyrics = await run(box, "sonic", "aligned-lyrics", clip_id, "--download=~/lyrics")
        assert lyrics.exit_code == 0, lyrics.output
        files = await run(box, "download", song.token, "--out=~/songs")
        assert files.exit_code == 0, files.output
    assert os.listdir(tmp_path) == ["home"]
    assert sorted(os.listdir(tmp_path / "home")) == ["lyrics", "songs"]
