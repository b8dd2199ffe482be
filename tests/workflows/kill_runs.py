"""A batch in a real process, killed with SIGKILL at random instants and resumed each time."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from batch_processes import BatchRun, Running

from musicapi_async.jobs import Job, SQLiteStore
from musicapi_async.sandbox import Sandbox
from musicapi_async.sandbox.journal import Entry
from musicapi_async.sandbox.reply_choices import Durations
from musicapi_async.workflows import SongRecord
from musicapi_async.workflows.batch_folder import BatchFolder

CLIPS = 2
"""Clips of a song, and stems of a clip (vocals and the rest)."""
STEMS = 1 + CLIPS
"""Requests that the stems of a clip need besides polls: the create and the files."""
SONG = 1 + CLIPS * 2
"""The same of a song without its stems: the create, and audio and cover of each clip."""
IN_FLIGHT = 6
"""Tasks at once: few, so that at any instant some songs begin, some run, and some are fetched."""
DURATIONS = Durations(song=(40.0, 0.3), stems=(30.0, 0.3))
WATCHED = 0.003
"""Real seconds between looks at the journal while the instant of a kill is awaited."""
MOMENT = 0.05
"""Real seconds, at most, between the last of the requests that a draw waits for and the kill."""
LAST = 3
"""Creates that may be on their way at once, at the default rate of one per 3 s."""
PATIENCE = 10.0
"""Real seconds after which a run is killed even if it has not come as far as the draw says."""


@dataclass
class Kill:
    """What was under way in the instant of a kill: jobs by state, files that were not whole, songs without
    a record."""

    at: float
    requests: int
    creates: list[str]
    """The creates that had arrived in this run, by name, in order."""
    sent: set[str]
    reserved: int
    songs_running: int
    stems_running: int
    parts: int
    unrecorded: int

    @property
    def phases(self) -> list[str]:
        """The names of all that it hit."""
        found = {
            "start": not self.requests,
            "reserved": self.reserved,
            "sent": self.sent,
            "wait": self.songs_running,
            "stems": self.stems_running,
            "download": self.parts,
            "finish": self.unrecorded,
        }
        return [name for name, hit in found.items() if hit]


@dataclass
class Outcome:
    """What was found after the run that was let end."""

    kills: list[Kill] = field(default_factory=list[Kill])
    listed: set[str] = field(default_factory=set[str])
    """The names that this run gave for jobs of unknown outcome."""
    jobs: list[Job] = field(default_factory=list[Job])
    records: list[SongRecord] = field(default_factory=list[SongRecord])
    charged: Counter[str] = field(default_factory=Counter[str])
    arrived: dict[str, Entry] = field(default_factory=dict[str, Entry])

    @property
    def ambiguous(self) -> list[Job]:
        """The jobs of unknown outcome."""
        return [job for job in self.jobs if job.state == "ambiguous"]


def song_rows(songs: int) -> list[dict[str, Any]]:
    """Songs with their stems; by the title each differs from all others at the server."""
    return [
        {
            "id": f"song-{index}",
            "mv": "sonic-v6",
            "gpt_description_prompt": f"song number {index}",
            "steps": ["stems_basic"],
            "clips": "first",
        }
        for index in range(songs)
    ]


def named(fields: object) -> str:
    """The text by which a request differs from all others."""
    assert isinstance(fields, dict)
    return str(fields.get("clip_id") or fields.get("gpt_description_prompt"))


class Killing:
    """A batch on its way through many processes.

    ```python
    killing = Killing(sandbox, folder, songs=60, seed=1)
    await killing.kill_and_resume(40)
    killing.check()
    await killing.settle()
    killing.check_whole()
    ```
    """

    def __init__(self, sandbox: Sandbox, folder: Path, songs: int, seed: int) -> None:
        self.sandbox = sandbox
        self.songs = songs
        self.draw = random.Random(seed)
        self.folder = BatchFolder(folder / "out")
        self.manifest = folder / "songs.jsonl"
        self.manifest.write_bytes(b"\n".join(msgspec.json.encode(row) for row in song_rows(songs)))
        self.copy = folder / "copy"
        self.outcome = Outcome()
        self.run = BatchRun(
            sandbox.base_url,
            sandbox.api_key,
            sandbox.clock.speed,
            str(self.manifest),
            str(self.folder.out),
            max_in_flight=IN_FLIGHT,
        )

    async def kill_and_resume(self, kills: int) -> None:
        """Start, kill at a random instant, start again; after the last kill let it end.

        There are fewer kills if a run comes to its end: then only jobs of unknown outcome are left.
        """
        while len(self.outcome.kills) < kills and await self.start_and_kill(kills - len(self.outcome.kills)):
            pass
        await self.let_end()

    async def start_and_kill(self, left: int) -> bool:
        """One run, killed when it has made a random number of requests and a random moment has gone by.

        Returns False if the run ended before it was killed.
        """
        journal = self.sandbox.journal
        seen, made = len(journal), 0
        # In the middle, an equal share of the work that is left for each of the kills that are left.
        wanted = self.draw.uniform(0, 2 * self.work_left() / (left + 1))
        moment = self.draw.uniform(0, MOMENT)
        before = seen
        running = Running(self.run)
        try:
            async with asyncio.timeout(PATIENCE):
                while made < wanted and not running.has_ended:
                    await asyncio.sleep(WATCHED)
                    made += sum(journal[at].kind != "poll" for at in range(seen, len(journal)))
                    seen = len(journal)
        except TimeoutError:
            pass
        await asyncio.sleep(moment)
        killed = await running.killed()
        if killed:
            self.outcome.kills.append(await self.look(before))
        return killed

    def work_left(self) -> int:
        """Requests but polls that are still to be made; jobs of unknown outcome lead to none."""
        made = len({(entry.path, entry.raw) for entry in self.sandbox.journal if entry.kind != "poll"})
        unknown = set[str]().union(*(kill.sent for kill in self.outcome.kills))
        dropped = sum(SONG + STEMS if key.endswith("create_music") else STEMS for key in unknown) - len(
            unknown
        )
        return max(0, (SONG + STEMS) * self.songs - dropped - made)

    async def look(self, before: int) -> Kill:
        """What the killed process has left. Looks at copies: opening the store would mend it."""
        at = self.sandbox.now()
        shutil.rmtree(self.copy, ignore_errors=True)
        self.copy.mkdir()
        for name in ("jobs.sqlite", "jobs.sqlite-wal"):
            if (self.folder.home / name).exists():
                shutil.copyfile(self.folder.home / name, self.copy / name)
        jobs: list[Job] = []
        if (self.copy / "jobs.sqlite").exists():
            store = SQLiteStore(self.copy / "jobs.sqlite")
            jobs = await store.jobs()
            await store.aclose()
        running = Counter(job.request.kind for job in jobs if job.state == "accepted")
        whole = Counter(job.key.partition("/")[0] for job in jobs if job.state == "finished")
        recorded = {record.id for record in self.records()}
        arrived = self.sandbox.journal[before:]
        return Kill(
            at=at,
            requests=len(arrived),
            creates=[named(entry.body) for entry in arrived if entry.kind == "create" and entry.raw],
            sent={job.key for job in jobs if job.state == "sent"},
            reserved=sum(job.state == "reserved" for job in jobs),
            songs_running=running["create_music"],
            stems_running=running["stems_basic"],
            parts=sum(1 for _ in self.folder.out.rglob("*.part")),
            unrecorded=sum(jobs_of > 1 and song not in recorded for song, jobs_of in whole.items()),
        )

    def records(self) -> list[SongRecord]:
        """The records of all settled songs."""
        ids = (f"song-{index}" for index in range(self.songs))
        return [record for record in self.folder.records(ids) if not record.open]

    async def let_end(self) -> None:
        """An undisturbed run, and the files and jobs after it."""
        running = Running(self.run)
        self.outcome.listed = set((await running.result())["unknown"])
        await self.find()

    async def find(self) -> None:
        """What the store, the folder and the sandbox's journal say."""
        outcome = self.outcome
        store = SQLiteStore(self.folder.store_path)
        outcome.jobs = await store.jobs()
        await store.aclose()
        outcome.records = self.records()
        outcome.arrived.clear()
        outcome.charged.clear()
        for entry in self.sandbox.journal.creates:
            if entry.raw:  # else the kill cut it off before its body had arrived: it was not taken
                name = named(entry.body)
                outcome.arrived[name] = entry
                outcome.charged[name] += entry.charge > 0

    async def settle(self) -> None:
        """Settle unknown outcomes, as a person with the dashboard would, and let the batch come to its end."""
        store = SQLiteStore(self.folder.store_path)
        async with self.sandbox.client(store=store, rate_limit=None) as client:
            for job in self.outcome.ambiguous:
                entry = self.outcome.arrived.get(named(job.request.fields))
                if entry is None:
                    await client.resubmit(job.key)
                else:
                    await client.resolve(job.key, task_id=entry.task_id)
        await self.let_end()

    # --- what must be so ------------------------------------------------------------------------------------

    def check(self) -> None:
        """Nothing was paid twice, nothing that was paid for was lost, and nothing is unknown without a kill."""
        outcome = self.outcome
        assert max(outcome.charged.values()) == 1, "a job was charged twice"
        assert self.sandbox.journal.charged_twice() == []
        known = {named(job.request.fields) for job in outcome.jobs}
        assert set(outcome.arrived) <= known, "a paid task is in no row"
        for job in outcome.jobs:
            if job.state != "ambiguous":
                assert job.state == "finished"
                assert outcome.arrived[named(job.request.fields)].task_id == job.task_id
                assert outcome.charged[named(job.request.fields)] == 1
        self.check_unknown()
        self.check_songs()

    def check_unknown(self) -> None:
        """A job is ambiguous if a kill fell between its being sent and its answer, and it is named then."""
        outcome = self.outcome
        unknown = {job.key: named(job.request.fields) for job in outcome.ambiguous}
        assert outcome.listed == set(unknown)
        assert set(unknown) <= set[str]().union(*(kill.sent for kill in outcome.kills))
        polled = {entry.task_id for entry in self.sandbox.journal.polls}
        for key, name in unknown.items():
            entry = outcome.arrived.get(name)
            if entry is None:
                continue  # it never left
            assert entry.task_id not in polled, "its answer had been read"
            (kill,) = (kill for kill in outcome.kills if key in kill.sent)
            assert name not in kill.creates[:-LAST] or not entry.status, (
                "it was answered long before the kill"
            )

    def check_songs(self) -> None:
        """Every song is there once with its stems, but for those of unknown outcome."""
        outcome = self.outcome
        unsettled = {job.key.partition("/")[0] for job in outcome.ambiguous}
        settled = [record.id for record in outcome.records]
        assert len(settled) == len(set(settled))
        assert set(settled) == {f"song-{index}" for index in range(self.songs)} - unsettled
        for record in outcome.records:
            assert not list(record.faults)
            assert len(record.clips) == CLIPS
            assert [len(step.files) for clip in record.clips for step in clip.steps] == [CLIPS]
            assert all((self.folder.out / name).stat().st_size for name in record.files)

    def check_whole(self) -> None:
        """Nothing is unknown any more: every song is there, and charges equal jobs exactly."""
        self.check()
        outcome = self.outcome
        assert not outcome.ambiguous
        assert len(outcome.jobs) == len(outcome.charged) == outcome.charged.total() == 2 * self.songs
        assert [str(path) for path in self.folder.out.rglob("*.part")] == []
