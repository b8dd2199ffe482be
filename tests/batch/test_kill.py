"""kill -9 at any instant: every song is there once, and charges equal jobs."""

from __future__ import annotations

from pathlib import Path

from kill_runs import check, kill_and_resume

from musicapi_async.sandbox import Sandbox


async def test_a_batch_killed_again_and_again_pays_once_for_each_job(tmp_path: Path) -> None:
    """Ten songs with stems, killed six times: each is made and charged once, or listed as ambiguous."""
    async with Sandbox(speed=25, credits=1e6, longest=4) as sandbox:
        outcome = await kill_and_resume(sandbox, tmp_path, songs=10, kills=6, seed=11)
        check(sandbox, outcome, songs=10)
    assert len(outcome.kills) >= 3
