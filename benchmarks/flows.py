"""How far data walks: functions and files of the package that run in one flow, and what each room holds.

A profile function (`sys.setprofile`, `threading.setprofile`) sees every call in every thread while a flow
runs. Counted are the distinct functions, by file and qualified name, that are defined in `musicapi_async`:
methods, closures and lambdas count as functions, comprehensions as parts of the function around them; the
sandbox, which runs in a process of its own, and the command do not count. Each flow has run once before with
the same client, so that nothing is imported, opened or learned for the first time; and nothing is counted
before what earlier flows left behind has ended. Lines are those of the files, as `wc -l` counts them; `Any`
and `cast` are uses in code, not in texts and imports.
"""

from __future__ import annotations

import ast
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from report import Report, arguments

import musicapi_async
from musicapi_async import Clock, MusicAPI, Webhooks
from musicapi_async.jobs import SQLiteStore
from musicapi_async.webhooks import sign
from musicapi_async.workflows import run_batch

PACKAGE = Path(musicapi_async.__file__).parent
APART = ("sandbox", "cli", "examples", "testing")
"""Rooms that no flow here is meant to count."""
SPEED = 100.0
SETTLE = 0.3
"""Real seconds in which what a flow left behind ends."""
SECRET = "secret-of-the-webhooks"
SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "warm lo-fi"}
INNER = ("<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>")

BEFORE = {
    "create_music to a Task": (66, 18),
    "the same with SQLite": (103, 20),
    "a wait from start to end": (134, 25),
    "a webhook to a finished wait": (130, 25),
    "download of two clips": (62, 12),
    "a batch of one row": (342, 45),
}
"""Functions and files that this command counted before the package was rebuilt."""

# --- counting ----------------------------------------------------------------------------------------------


class Counting:
    """The code objects that ran while counting was on, in all threads."""

    def __init__(self) -> None:
        self._seen: set[CodeType] | None = None
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def _profile(self, frame: FrameType, event: str, _argument: object) -> None:
        if self._seen is not None and event == "call":
            self._seen.add(frame.f_code)

    @contextmanager
    def on(self) -> Iterator[set[CodeType]]:
        """Count inside."""
        self._seen = seen = set()
        try:
            yield seen
        finally:
            self._seen = None


def walked(seen: set[CodeType]) -> tuple[set[str], set[str]]:
    """The package's functions and files among code objects."""
    functions: set[str] = set()
    files: set[str] = set()
    for code in seen:
        path = Path(code.co_filename)
        if not path.is_relative_to(PACKAGE) or path.relative_to(PACKAGE).parts[0] in APART:
            continue
        if code.co_name in INNER or code.co_name == "<module>":
            continue
        files.add(str(path.relative_to(PACKAGE)))
        functions.add(f"{path.relative_to(PACKAGE)}:{code.co_qualname}")
    return functions, files


# --- flows -------------------------------------------------------------------------------------------------


@contextmanager
def sandbox() -> Iterator[dict[str, str]]:
    """A sandbox in a process of its own; gives its `base_url` and `api_key`."""
    command = "from musicapi_async.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "--json", "sandbox", "--port", "0", "--speed", f"{SPEED:g}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(timeout=30)


class Flows:
    """The flows, on clients of one sandbox."""

    def __init__(self, counting: Counting, at: dict[str, str], folder: Path) -> None:
        self.counting = counting
        self.at = at
        self.folder = folder
        self.functions: dict[str, set[str]] = {}
        self.found: dict[str, tuple[int, int]] = {}

    def client(self, **options: Any) -> MusicAPI:
        """A client with the usual rate, on the sandbox's clock."""
        return MusicAPI(self.at["api_key"], base_url=self.at["base_url"], clock=Clock(SPEED), **options)

    async def count(
        self, name: str, flow: Callable[[Any], Awaitable[object]], before: Callable[[], Awaitable[Any]]
    ) -> None:
        """Run a flow twice, each time after `before`, and count the second time."""
        await flow(await before())
        given = await before()
        await asyncio.sleep(SETTLE)
        with self.counting.on() as seen:
            await flow(given)
        functions, files = walked(seen)
        self.functions[name] = functions
        self.found[name] = len(functions), len(files)

    async def run(self) -> None:
        """All flows in turn."""

        async def nothing() -> None:
            """Nothing comes before."""

        async with self.client() as client:
            await self.count("create_music to a Task", lambda _: client.sonic.create_music(**SONG), nothing)
            await self.count(
                "a wait from start to end",
                lambda task: task.wait(),
                lambda: client.sonic.create_music(**SONG),
            )
            clips = await (await client.sonic.create_music(**SONG)).wait()
            places = iter(range(9))
            await self.count(
                "download of two clips",
                lambda _: client.download(clips, self.folder / str(next(places))),
                nothing,
            )
        async with self.client(store=SQLiteStore(self.folder / "jobs.sqlite")) as client:
            await self.count("the same with SQLite", lambda _: client.sonic.create_music(**SONG), nothing)
        async with self.client(webhooks=Webhooks(secret=SECRET)) as client:

            async def told(task: Any) -> None:
                """The wait begins, the delivery comes, the wait ends."""
                waiting = asyncio.ensure_future(task.wait())
                await asyncio.sleep(0)
                await client.webhooks.handle(*delivery(task.task_id))
                await waiting

            await self.count("a webhook to a finished wait", told, lambda: client.sonic.create_music(**SONG))
        rows = iter("abc")

        async def manifest() -> Path:
            """A manifest with one row."""
            path = self.folder / f"{next(rows)}.jsonl"
            path.write_text(json.dumps({"id": path.stem, **SONG}) + "\n", encoding="utf-8")
            return path

        async with self.client() as client:
            await self.count(
                "a batch of one row",
                lambda path: run_batch(client, path, out=self.folder / path.stem),
                manifest,
            )


def delivery(task_id: str) -> tuple[dict[str, str], bytes]:
    """Headers and body of a webhook for a finished song."""
    clips = [
        {"clip_id": f"{task_id}-{n}", "state": "succeeded", "audio_url": f"https://cdn.example/{n}.mp3"}
        for n in range(2)
    ]
    body = {"code": 200, "data": clips, "task_id": task_id, "platform": "suno", "event": "song.completed"}
    raw, stamp = json.dumps(body).encode(), str(int(time.time()))
    headers = {
        "X-Webhook-Id": task_id,
        "X-Webhook-Timestamp": stamp,
        "X-Webhook-Signature": sign(SECRET, stamp, raw),
    }
    return headers, raw


# --- rooms -------------------------------------------------------------------------------------------------


def rooms() -> list[tuple[str, int, int, int, int]]:
    """Each room with its modules, lines, and uses of `Any` and `cast`; then all of them."""
    found: dict[str, Counter[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        text = path.read_text(encoding="utf-8")
        room = found.setdefault(f"{parts[0]}/" if len(parts) > 1 else "beside the rooms", Counter())
        room.update(modules=1, lines=text.count("\n"), **uses(text))
    found["all"] = sum(found.values(), Counter())
    return [(name, *(n[key] for key in ("modules", "lines", "Any", "cast"))) for name, n in found.items()]


def uses(text: str) -> Counter[str]:
    """How often `Any` and `cast` are used in a module; types in the text of a cast count, too."""
    count: Counter[str] = Counter()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and node.id == "Any":
            count["Any"] += 1
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "cast":
            count["cast"] += 1
            if isinstance(node.args[0], ast.Constant):
                kind = ast.walk(ast.parse(str(node.args[0].value)))
                count["Any"] += sum(isinstance(part, ast.Name) and part.id == "Any" for part in kind)
    return count


def main() -> None:
    """Run, print, write."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--show", default="", help="print the functions of the flow with this name")
    options = parser.parse_args()
    report = Report("flows", (__doc__ or "").strip())
    counting = Counting()
    with tempfile.TemporaryDirectory() as folder, sandbox() as at:
        flows = Flows(counting, at, Path(folder))
        asyncio.run(flows.run())
    sys.setprofile(None)
    report.table(
        "Functions and files that run in one flow",
        ("flow", "functions", "files", "functions before", "files before"),
        [(name, *flows.found[name], *before) for name, before in BEFORE.items()],
    )
    report.table("What each room holds", ("room", "modules", "lines", "Any", "cast"), rooms())
    report.write(options.out)
    for name in sorted(flows.functions.get(options.show, ())):
        print(name)


if __name__ == "__main__":
    main()
