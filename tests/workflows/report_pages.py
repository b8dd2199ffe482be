"""The page of a batch as its script reads it."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any


def block(page: Path | None, name: str) -> Any:
    """Return the data of a page in one of its blocks, `batch` or `songs`."""
    assert page is not None
    found = re.findall(
        rf'<script type="application/json" id="{name}">(.*?)</script>', page.read_text("utf-8"), re.DOTALL
    )
    assert len(found) == 1
    return json.loads(found[0])


def songs(page: Path | None) -> list[dict[str, Any]]:
    """Return the songs of a page."""
    return block(page, "songs")


def takes(page: Path | None) -> list[dict[str, Any]]:
    """Return the takes of all songs of a page."""
    return [take for song in songs(page) for take in song.get("takes", ())]


def overview(page: Path | None) -> str:
    """Return the text above the songs: name, date, numbers, and what failed."""
    assert page is not None
    text = page.read_text("utf-8")
    head = text[text.index("<main>") : text.index("<noscript>")]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", head)).split())
