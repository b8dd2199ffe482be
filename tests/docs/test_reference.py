"""The API reference: one command builds it without a warning, and it names every operation."""

from __future__ import annotations

import html
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import musicapi_async
from musicapi_async import MusicAPI
from musicapi_async.api.families import FAMILIES

BUILDER = Path(__file__).with_name("reference.py")
CALLER = MusicAPI("not-a-real-key").sonic.caller
OPERATIONS = [(family, name) for family in FAMILIES.values() for name in family.operations()]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reference that was built by the documented command."""
    folder = tmp_path_factory.mktemp("reference")
    command = [sys.executable, "-W", "error", str(BUILDER), str(folder)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def entry(pages: Path, page: str, name: str) -> str:
    """The text of one entry: from its heading to the next."""
    text = (pages / page).read_text(encoding="utf-8")
    _, found, rest = text.partition(f'id="{name}"')
    assert found, name
    return html.unescape(re.sub(r"<[^>]+>", "", re.split(r'<div id="', rest, maxsplit=1)[0]))


def test_every_operation_is_listed_with_its_arguments(pages: Path) -> None:
    """Each argument in the signature and explained, and what the call costs."""
    assert len(OPERATIONS) > 60
    for family, name in OPERATIONS:
        listed = entry(pages, "musicapi_async/api.html", f"{family.__name__}.{name}")
        for argument in inspect.signature(getattr(family(CALLER), name)).parameters:
            assert len(re.findall(rf"\b{argument}\b", listed)) >= 2, (name, argument)
        assert "Charges credits." in listed or "Free." in listed, name


def test_every_exported_name_has_an_entry(pages: Path) -> None:
    """The page of the package lists what the package exports."""
    text = (pages / "musicapi_async.html").read_text(encoding="utf-8")
    lacking = [name for name in musicapi_async.__all__ if f'id="{name}"' not in text]
    assert lacking in ([], ["__version__"])
