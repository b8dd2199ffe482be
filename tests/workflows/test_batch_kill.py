"""kill -9 at any instant: every song is there once, and charges equal jobs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from kill_runs import DURATIONS, Killing

from musicapi_async.sandbox import Sandbox

SONGS = 36
KILLS = 24


async def test_batch_killed_again_and_again_pays_once_for_each_job(tmp_path: Path) -> None:
    """36 songs with stems, killed 24 times in all phases: each is made and charged once, or listed by name as
    unknown; when those are settled, every song is there."""
    async with Sandbox(speed=100, credits=1e6, longest=1, durations=DURATIONS) as sandbox:
        killing = Killing(sandbox, tmp_path, songs=SONGS, seed=11)
        await killing.kill_and_resume(KILLS)
        killing.check()
        hit = Counter(phase for kill in killing.outcome.kills for phase in kill.phases)
        assert len(killing.outcome.kills) == KILLS
        assert min(hit[phase] for phase in ("wait", "stems", "download", "finish")) > 0, hit
        assert hit["reserved"] + hit["sent"] > 0, hit
        await killing.settle()
        killing.check_whole()
