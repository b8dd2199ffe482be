"""Small batches: their rows, and a run without wave forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from musicapi_async import MusicAPI
from musicapi_async.workflows import BatchResult, Manifest, run_batch


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    """Songs, each with a title of its own."""
    return [
        {"id": f"s{i}", "mv": "sonic-v6", "prompt": f"[Verse]\nRain {i}", "title": f"Song {i}", **more}
        for i in range(count)
    ]


async def make(client: MusicAPI, songs: list[dict[str, Any]], out: Path, **options: Any) -> BatchResult:
    """Run a batch without drawing wave forms."""
    return await run_batch(client, Manifest.of(songs), out=out, waveforms=False, **options)
