"""The page of a batch: to listen, to compare, to choose. One file that sends nothing and needs no network.

The template and its scripts are in `page/`. Its engine escapes all texts; the policy in the page allows its
own script and style by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

from ..errors import FolderError
from ..extras import require
from ..files import expand, is_held, replacing
from ..jobs import Job, JobState, SQLiteStore
from .batch_folder import BatchFolder
from .budget import charged_sends, cost_text
from .command_texts import in_commands
from .report_data import Links, PageSong, page_song
from .report_overview import Overview, PageState, state_of
from .run_record import RowRecord, RunRecord, date_text, read_run, song_id_of

PAGE: Final = "report.html"
"""The name of the page in the folder of the batch."""
SCRIPTS: Final = ("player.js", "timeline.js", "listen.js", "takes.js", "choose.js")
"""The parts of the page's script, in the order in which they need each other."""
STATES: Final[Mapping[JobState, str]] = {
    "reserved": "submitting",
    "sent": "submitting",
    "accepted": "running",
    "finished": "fetching",
    "failed": "unfinished",
    "ambiguous": "unknown",
}
"""The state of a song on the page by that of its job, while a run is on."""


def can_write_pages() -> bool:
    """Return True if the template engine is installed."""
    return find_spec("jinja2") is not None


async def write_report(
    out: str | os.PathLike[str], *, to: str | os.PathLike[str] | None = None, embed: bool = False
) -> Path:
    """Write the page of a batch from the records in its folder. Free, sends nothing, may be repeated.

    A run writes and updates `report.html` itself; this function writes it after the run, or on another
    machine.

    Args:
        out: The folder of the batch.
        to: The file of the page; by default `report.html` in the folder.
        embed: Include songs and covers in the page, so that one file can be sent; it is a third larger than
            the songs and covers.

    Returns:
        The path of the page.

    Raises:
        FolderError: The folder has no batch, a run is under way and writes the page itself, or the page
            cannot be written.
        ModuleNotFoundError: Jinja2 is not installed (extra `[cli]`).
    """
    require("The page of a batch", "cli", "jinja2")
    folder = BatchFolder(out)
    run = read_run(folder.out)
    records = list(folder.all_records()) if run is None else []
    if run is None and not records:
        raise FolderError(
            f"{folder.out} is no folder of a batch", hint="Name the folder that --out (out=) named."
        )
    page = expand(to) if to is not None else folder.out / PAGE
    is_on = is_held(folder.home / "lock")
    if is_on and to is None:
        raise FolderError(f"a run is on in {folder.out} and writes the page itself: {page}")
    if run is None:
        rows = [RowRecord(one.id, one.id, one.line, one.title, one.operation) for one in records]
        name = hashlib.sha256(os.fsencode(folder.out.resolve())).hexdigest()[:16]
        run = RunRecord(batch_id=name, source="MANIFEST", rows=rows, ended_at=1)
    jobs = await _jobs_of(folder)
    prices = folder.prices()
    state = PageState(
        run=msgspec.structs.replace(run, ended_at=run.ended_at or 1),
        states=_states(run, jobs, is_on=is_on),
        costs=song_costs(run, jobs, prices),
        unknown=[job for job in jobs if job.state == "ambiguous"],
        spent=cost_text(charged_sends(jobs), prices) if prices else "",
    )
    try:
        write_page(page, folder, state, embed=embed)
    except OSError as error:
        raise FolderError(f"could not write {page}: {error.strerror or error}") from error
    return page


async def _jobs_of(folder: BatchFolder) -> list[Job]:
    if not folder.store_path.exists():
        return []
    store = SQLiteStore(folder.store_path)
    try:
        return await store.jobs()
    finally:
        await store.aclose()


def _states(run: RunRecord, jobs: Iterable[Job], *, is_on: bool) -> dict[str, str]:
    """Return the states of songs by their jobs."""
    ids = {row.stored_id for row in run.rows}
    states: dict[str, str] = {}
    for job in jobs:
        song_id = job.key.rpartition("/")[0]
        if song_id in ids:
            states[song_id] = STATES[job.state] if is_on else "unfinished"
    return states | unknown_songs(run, jobs)


def unknown_songs(run: RunRecord, jobs: Iterable[Job]) -> dict[str, str]:
    """Return the state of the songs that have an ambiguous job."""
    ids = {row.stored_id for row in run.rows}
    return {song_id_of(job.key, ids, run.job_prefix): "unknown" for job in jobs if job.state == "ambiguous"}


def song_costs(run: RunRecord, jobs: Iterable[Job], prices: Mapping[str, float]) -> dict[str, str]:
    """Return the credits that each song has cost with its steps, in words; none where no price is known."""
    ids = {row.stored_id for row in run.rows}
    of_songs: dict[str, list[Job]] = {}
    for job in jobs if prices else ():
        of_songs.setdefault(song_id_of(job.key, ids, run.job_prefix), []).append(job)
    costs: dict[str, str] = {}
    for song_id, of_song in of_songs.items():
        if text := cost_text(charged_sends(of_song), prices):
            costs[song_id] = text
    return costs


def write_page(page: Path, folder: BatchFolder, state: PageState, *, embed: bool = False) -> None:
    """Write the page, for its owner only; flat in memory. Raises `OSError`."""
    links = Links(folder.out.resolve(), page.resolve().parent, embed=embed)
    with replacing(page, private=True) as file:
        file.writelines(text.encode() for text in _page(folder, state, links))


def _page(folder: BatchFolder, state: PageState, links: Links) -> Iterator[str]:
    run, overview = state.run, Overview(folder, state)
    markup: Callable[[str], str] = import_module("markupsafe").Markup
    style, script = asset("player.css", "report.css"), asset(*SCRIPTS)
    about = {
        "id": run.batch_id,
        "name": folder.name,
        "running": state.is_running,
        "written": state.written_at,
        "renewed": state.renewed,
        "keep_command": f"musicapi batch keep {shlex.quote(str(folder.out))} picks.json",
    }
    yield from _template().generate(
        policy=policy(style, script),
        style=markup(style),
        script=markup(script),
        batch=about,
        date=date_text(run.started_at),
        numbers=overview.numbers(),
        problems=overview.problems,
        problems_title=overview.title,
        songs=_songs(folder, state, links),
    )


def _songs(folder: BatchFolder, state: PageState, links: Links) -> Iterator[PageSong]:
    """Yield the songs in the order of the manifest, one at a time, however many there are."""
    store = state.jobs_in(folder)
    for number, row in enumerate(state.run.rows, 1):
        record = folder.record_of(row.stored_id)
        song_state, note = state_of(row, record, state)
        if record is None:
            yield PageSong(
                row.id,
                number,
                row.title,
                song_state,
                named=row.is_named,
                note=in_commands(note, store),
                operation=row.operation,
                model=row.model,
            )
        else:
            cost = state.costs.get(row.stored_id, "")
            yield page_song(record, row, number, links, cost=cost, note=note, state=song_state, store=store)


@cache
def asset(*names: str) -> str:
    """Return files of the page, one after the other, such as a script."""
    folder = files(__name__.rpartition(".")[0]) / "page"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


@cache
def _template() -> Any:
    jinja2: Any = import_module("jinja2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_function"] = _json
    return environment.from_string(asset("report.html"))


def _json(value: object, **_: object) -> str:
    """Return JSON; the engine then escapes what would end a script."""
    return msgspec.json.encode(value).decode()


def policy(style: str, script: str) -> str:
    """Return the policy of a page: its own script and style, and files beside it."""
    return (
        f"default-src 'none'; script-src '{hash_of(script)}'; style-src '{hash_of(style)}'; "
        "img-src 'self' file: data:; media-src 'self' file: data: blob:; base-uri 'none'; form-action 'none'"
    )


def hash_of(text: str) -> str:
    """Return the hash by which a policy allows a script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
