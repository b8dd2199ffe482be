"""Memory over a batch of 5,000 songs, in virtual time.

    python benchmarks/batch_memory.py [--songs 5000]

Client, batch and a service with canned answers run in one event loop whose clock jumps, so that hours pass
in minutes. Traced Python memory and the process's peak are noted while the batch goes on: flat means that
what is kept for a settled song is on the disk.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

from aiohttp import web
from report import Report, arguments

sys.path.insert(0, str(Path(__file__).parent.parent))

from musicapi_async import MusicAPI
from musicapi_async.testing.virtual import VirtualTimeLoop
from musicapi_async.workflows import BatchResult, Manifest, Progress, run_batch

WHAT = """A batch of {songs:,} songs with two clips each at the default rate, 1 create per 3 s; the service
takes 100 s for a song and its files have 4 kB. *Traced* is what the Python objects of client, batch and
service hold, just after a collection; *peak* is the largest resident size of the process so far. From a fifth
of the songs on, everything that is open at once is open: what traced memory then gains per song is what the
batch keeps for each."""
KEPT = 0.5
"""kB per settled song: its id in a few lists."""

FILE = b"ID3\x04\x00\x00\x00\x00\x00\x00" + 10 * (b"\xff\xfb\x90\x64" + bytes(413))
"""A tag and ten silent frames."""


class Service:
    """Answers creates, polls and downloads; a song takes 100 seconds."""

    def __init__(self) -> None:
        self.born: dict[str, float] = {}
        self.origin = ""

    async def serve(self, request: web.BaseRequest) -> web.Response:
        """One request."""
        now = asyncio.get_running_loop().time()
        if request.method == "POST":
            await request.read()
            task_id = f"task-{len(self.born)}"
            self.born[task_id] = now
            return web.json_response({"message": "success", "task_id": task_id})
        name = request.path.rpartition("/")[2]
        if name.endswith(".mp3"):
            return web.Response(body=FILE)
        done = now - self.born[name] > 100
        clips = [
            {
                "clip_id": f"{name}-{side}",
                "state": "succeeded" if done else "running",
                "title": name,
                "audio_url": f"{self.origin}/{name}-{side}.mp3" if done else "",
            }
            for side in "ab"
        ]
        return web.json_response({"code": 200, "data": clips, "message": "success"})


def measure(songs: int, seed: int) -> tuple[BatchResult, list[tuple[int, float, float, float]]]:
    """Run the batch; how it ended, and rows of songs done, MB traced, MB at the peak, and hours passed."""
    rows: list[tuple[int, float, float, float]] = []

    async def work() -> BatchResult:
        service = Service()
        runner = web.ServerRunner(web.Server(service.serve))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        service.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        manifest = Manifest.of(
            [
                {
                    "id": f"{seed}-{i}",
                    "mv": "sonic-v6",
                    "prompt": f"[Verse]\n{i} " + "words and words " * 60,
                }
                for i in range(songs)
            ]
        )
        tracemalloc.start()

        def watch(progress: Progress) -> None:
            if progress.done >= len(rows) * songs // 10:
                gc.collect()
                traced = tracemalloc.get_traced_memory()[0] / 1e6
                rows.append((progress.done, traced, peak(), asyncio.get_running_loop().time() / 3600))

        with tempfile.TemporaryDirectory() as folder:
            async with MusicAPI("key", base_url=service.origin + "/api/v1") as client:
                result = await run_batch(client, manifest, out=folder, waveforms=False, on_progress=watch)
        await runner.cleanup()
        tracemalloc.stop()
        return result

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as loop:
        return loop.run(work()), rows


def peak() -> float:
    """The largest resident size so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Run and report."""
    parser = arguments("Memory over a batch of many songs, in virtual time.")
    parser.add_argument("--songs", type=int, default=5000, help="in the batch; at least 10")
    chosen = parser.parse_args()
    report = Report("batch_memory", WHAT.format(songs=chosen.songs))
    began = time.process_time()
    result, rows = measure(chosen.songs, chosen.seed)
    spent = time.process_time() - began
    report.table(
        "While it goes on",
        ("done", "traced, MB", "peak, MB", "hours"),
        [(f"{done:,}", traced, most, hours) for done, traced, most, hours in rows],
    )
    report.text(
        f"{result.done:,} songs done, {result.failed} failed, {len(result.unfinished)} unfinished, "
        f"{result.submitted:,} creates; {peak():.0f} MB at the peak with the report page written; "
        f"{spent:.0f} s of CPU, memory tracing included."
    )
    early, late = rows[2], rows[9]
    gained = (late[1] - early[1]) * 1e3 / (late[0] - early[0])
    report.target("traced memory gained per settled song, from 20 % to 90 % done, kB", gained, KEPT)
    report.target("songs that are not done", float(chosen.songs - result.done), 0.0)
    report.write(chosen.out)


if __name__ == "__main__":
    main()
