"""The state of a sandbox in a file: what a restart finds, and files that are none."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from patience import until

from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.sandbox.state import StateError

LYRICS = "[Verse]\nRain on the window"
SONG = {"custom_mode": True, "mv": "sonic-v6", "title": "Rain", "prompt": LYRICS}


def plain(item: object) -> object:
    """A stored item without the identity of its objects."""
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {field.name: plain(getattr(item, field.name)) for field in dataclasses.fields(item)}
    if isinstance(item, list | tuple):
        return [plain(part) for part in item]
    return item


def everything(sandbox: Sandbox) -> dict[str, object]:
    """All that a restart must find again."""
    service = sandbox.service
    stores = ("tasks", "clips", "personas", "voxes", "requested")
    return {
        **{
            name: {key: plain(item) for key, item in getattr(service, name)._items.items()} for name in stores
        },
        "journal": [plain(entry) for entry in sandbox.journal],
        "account": (sandbox.account.credits, sandbox.account.extra_credits, sandbox.account.subscription),
    }


@pytest.fixture
async def restart(start, tmp_path: Path):
    """Starts sandboxes one after the other on one state; the one before is killed, not stopped."""
    file = tmp_path / "sandbox.state"
    runs: list[Any] = []

    async def begin(**options: Any) -> Any:
        if runs:  # what `kill -9` leaves is the file and its log at that moment, and no lock
            copy = tmp_path / f"copy-{len(runs)}.state"
            for ending in ("", "-wal"):
                shutil.copyfile(f"{runs[-1].sandbox._state._path}{ending}", f"{copy}{ending}")
            options["state"] = copy
        else:
            options["state"] = file
        runs.append(await start(extra_credits=7, longest=6.0, **options))
        return runs[-1]

    return begin


async def test_all_is_there_after_a_restart(restart):
    """Each kind of clip with its recipe, tasks, personas, voxes, uploads, journal, balance; to the byte."""
    api = await restart()
    clip = await api.song()
    stems = await api.finished(await api.submit("/sonic/stems/basic", {"clip_id": clip["clip_id"]}))
    ids = {"continue_clip_id": clip["clip_id"]}
    part = (
        await api.finished(
            await api.submit(body={**SONG, **ids, "task_type": "extend_music", "continue_at": 2})
        )
    )[0]
    whole = {"task_type": "concat_music", "mv": "sonic-v6", "continue_clip_id": part["clip_id"]}
    full = (await api.finished(await api.submit(body={**SONG, **whole})))[0]
    pair = {"mashup_clip_ids": [full["clip_id"], clip["clip_id"]], **SONG}
    mash = (await api.finished(await api.submit("/sonic/mashup", pair)))[0]
    wav = clip["audio_url"].replace(".mp3", ".wav")
    assert (await api.post("/sonic/upload", {"url": wav}))[0] == 200
    _, persona = await api.post("/sonic/persona", {"name": "Ann", "clip_id": clip["clip_id"]})
    vox = {"clip_id": clip["clip_id"], "vocal_start_s": 0, "vocal_end_s": 2}
    assert (await api.post("/sonic/vox", vox))[0] == 200
    auto = {"url": clip["audio_url"], "continue_at": 2, "auto_concat": True, **SONG}
    assert (await api.post("/sonic/upload-extend", auto))[0] == 200
    paths = [item["audio_url"].partition("/media/")[2] for item in (stems[0], mash)]
    files = [await api.call("GET", f"{api.sandbox.service.media(path)}", key=None) for path in paths]
    before = everything(api.sandbox)
    again = await restart()
    assert everything(again.sandbox) == before
    assert again.sandbox.control_token == api.sandbox.control_token
    for path, file in zip(paths, files, strict=True):
        assert await again.call("GET", again.sandbox.service.media(path), key=None) == file
    song = {**SONG, "task_type": "persona_music", "persona_id": persona["persona_id"]}
    assert (await again.post("/sonic/create", song))[0] == 200
    third = await restart()
    assert len(third.sandbox.service.tasks) == len(before["tasks"]) + 1  # type: ignore[arg-type]


async def test_ids_never_repeat(restart):
    """Three runs with one seed make different tasks, clips and songs; the first makes those of the seed."""
    ids: list[str] = []
    for run in range(3):
        api = await restart(seed=5)
        ids += [await api.submit(body=SONG) for _ in range(3)]
        clips = {clip.clip_id for clip in api.sandbox.service.clips}
        assert len(clips) == 6 * (run + 1)
    assert len(set(ids)) == 9
    async with Sandbox(seed=5, speed=1000) as box, box.client() as client:
        task = await client.sonic.create_music(**{**SONG, "prompt": LYRICS})
        assert task.task_id == ids[0]


async def test_time_continues_while_it_is_down(restart, monkeypatch):
    """A task that was under way ends on time, and a refund that was due comes once."""
    api = await restart(speed=1.0)
    task_id = await api.submit(body=SONG)
    api.sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    failed = await api.submit(body=SONG)
    now = api.sandbox.now()
    import time

    later = time.time() + 600
    monkeypatch.setattr(time, "time", lambda: later)
    again = await restart(speed=1.0)
    assert 599 < again.sandbox.now() - now < 610
    assert {clip["state"] for clip in (await again.get(f"/sonic/task/{task_id}"))[1]["data"]} == {"succeeded"}
    assert {clip["state"] for clip in (await again.get(f"/sonic/task/{failed}"))[1]["data"]} == {"failed"}
    assert again.sandbox.balance == 1007 - 20
    assert [entry.refunded for entry in again.sandbox.journal.creates] == [False, True]
    assert (await restart()).sandbox.balance == 1007 - 20


async def test_webhooks_are_delivered_after_a_restart(restart):
    """A task whose end was not reported is reported by the next run, and none twice."""
    api = await restart()
    url = "https://elsewhere.example/hook"
    done = await api.submit(body={**SONG, "webhook_url": url})
    await api.finished(done)
    await asyncio.sleep(1)
    assert len(api.sandbox.journal.webhooks) == 2
    await api.submit(body={**SONG, "webhook_url": url})
    again = await restart()
    again.sandbox.forward(3600)
    await asyncio.sleep(1)
    assert [(entry.event, entry.task_id == done) for entry in again.sandbox.journal.webhooks] == [
        ("song.streaming", True),
        ("song.completed", True),
        ("song.streaming", False),
        ("song.completed", False),
    ]


async def test_what_was_taken_is_written_before_anything_leaves(restart):
    """Killed after a request was charged and before its response left, it knows the task afterwards."""
    api = await restart()
    api.sandbox.faults.on("POST", "/sonic/create", Fault.hang)
    waiting = asyncio.create_task(api.post("/sonic/create", SONG))
    await until(lambda: api.sandbox.journal.charges)
    again = await restart()
    assert again.sandbox.balance == 987
    assert [entry.charge for entry in again.sandbox.journal.creates] == [20]
    assert len(again.sandbox.service.tasks) == 1
    waiting.cancel()


async def test_reset_empties_the_file(restart):
    """Forgotten is forgotten, and the numbers of the journal continue."""
    api = await restart()
    await api.submit(body=SONG)
    await api.call("POST", api.sandbox.control_url + "/reset", key=api.sandbox.control_token)
    await api.get("/get-credits")
    again = await restart()
    assert [entry.number for entry in again.sandbox.journal] == [2]
    assert (len(again.sandbox.service.tasks), again.sandbox.balance) == (0, 1007)


async def test_file_is_for_one_sandbox_at_a_time(tmp_path: Path):
    """A second one is refused with the reason; after the end of the first it can have the file."""
    file = tmp_path / "one.state"
    first, second = Sandbox(state=file), Sandbox(state=file)
    async with first:
        with pytest.raises(StateError, match="in use by another sandbox"):
            await second.start()
    assert file.stat().st_mode & 0o777 == 0o600
    async with second:
        pass
    with pytest.raises(StateError, match="used by another sandbox in between"):
        await first.start()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a database, but a long enough text for one" * 30, "no state, or is damaged"),
        (b"SQLite format 3\0" + b"\xff" * 4000, "no state, or is damaged"),
        (None, "cannot be opened"),
    ],
)
async def test_files_that_are_no_state(tmp_path: Path, content, said):
    """Refused by name, and left as they are."""
    file = tmp_path / "some.txt"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(StateError, match=said):
        await Sandbox(state=file).start()
    assert content is None or file.read_bytes() == content
    assert os.listdir(tmp_path) == ["some.txt"]


async def test_database_of_another_program_is_refused(tmp_path: Path):
    """A file with tables that are not ours, and a state of a later layout."""
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE songs (id)")
    database.close()
    with pytest.raises(StateError, match="no state of this version"):
        await Sandbox(state=other).start()
    later = tmp_path / "later.state"
    async with Sandbox(state=later):
        pass
    with sqlite3.connect(later) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StateError, match="no state of this version"):
        await Sandbox(state=later).start()


@pytest.mark.parametrize("table", ["items", "recipes", "journal", "sandbox"])
async def test_damaged_rows_are_refused(restart, tmp_path: Path, table):
    """Rows that hold something else: an error that names the file, not a sandbox with half of its state."""
    api = await restart()
    await api.song()
    await api.sandbox.stop()
    file = tmp_path / "sandbox.state"
    with sqlite3.connect(file) as database:
        database.execute(f"UPDATE {table} SET data = x'93010203'")
    database.close()
    with pytest.raises(StateError, match=r"sandbox\.state.*damaged"):
        await Sandbox(state=file).start()


async def test_full_disk_is_no_lost_state(restart, monkeypatch, caplog):
    """A write that fails answers 500, and the next one writes what is missing."""
    api = await restart()
    state = api.sandbox._state

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(state, "_save_account", full)
        assert (await api.post("/sonic/create", SONG))[0] == 500
    assert "disk is full" in caplog.text
    assert (await api.get("/get-credits"))[1] == {"credits": 987, "extra_credits": 0}
    again = await restart()
    assert everything(again.sandbox) == everything(api.sandbox)
    assert len(again.sandbox.service.clips) == 2
