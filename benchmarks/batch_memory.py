"""Memory over a batch of 5,000 songs, in virtual time.

    python benchmarks/batch_memory.py [--songs 5000]

Client, batch and a service with canned answers run in one event loop whose clock jumps, so that hours pass
in minutes. Traced Python memory and the process's peak are printed while the batch goes on: flat means that
what is kept for a settled song is on the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

from aiohttp import web

sys.path.insert(0, str(Path(__file__).parent.parent))

from musicapi_async import MusicAPI
from musicapi_async.batch import Manifest, Progress, run_batch
from musicapi_async.testing.virtual import VirtualTimeLoop

FILE = b"ID3\x04\x00\x00\x00\x00\x00\x00" + bytes(4000)


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


def main(songs: int) -> None:
    """Run and print."""

    async def work() -> None:
        service = Service()
        runner = web.ServerRunner(web.Server(service.serve))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        service.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        manifest = Manifest.of(
            [
                {"id": str(i), "mv": "sonic-v6", "prompt": f"[Verse]\n{i} " + "words and words " * 60}
                for i in range(songs)
            ]
        )
        mark = 0
        tracemalloc.start()

        def watch(progress: Progress) -> None:
            nonlocal mark
            if progress.done >= mark:
                gc.collect()
                traced = tracemalloc.get_traced_memory()[0] / 1e6
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
                hours = asyncio.get_running_loop().time() / 3600
                print(f"{progress.done:6} done  {traced:6.1f} MB traced  {peak:6.1f} MB peak  {hours:.1f} h")
                mark += songs // 10

        with tempfile.TemporaryDirectory() as folder:
            async with MusicAPI("key", base_url=service.origin + "/api/v1") as client:
                result = await run_batch(client, manifest, out=folder, waveforms=False, on_progress=watch)
        await runner.cleanup()
        print(json.dumps({"done": result.done, "left": len(result.left), "submitted": result.submitted}))

    started = time.perf_counter()
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as loop:
        loop.run(work())
    print(f"{time.perf_counter() - started:.0f} s of real time")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--songs", type=int, default=5000)
    main(parser.parse_args().songs)
