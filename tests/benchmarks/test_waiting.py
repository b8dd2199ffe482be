"""The stand-in for a session with which `waiting.py` measures `client.wait_all`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import waiting


@pytest.mark.parametrize("failing", [False, True])
def test_the_client_takes_the_stand_in_for_a_session(failing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty tasks are taken in and polled once, with replies or without."""
    monkeypatch.setattr(waiting, "FACE", 20)
    monkeypatch.setattr(
        logging.getLogger("musicapi_async"), "level", logging.ERROR
    )  # it is set for good there
    handle, _taken_in, polled = waiting.face_memory(failing)
    assert handle > 0
    assert polled > 0
