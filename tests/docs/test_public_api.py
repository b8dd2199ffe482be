"""The public names change on purpose only."""

from __future__ import annotations

import difflib

import public_api


def test_public_names_are_those_of_the_snapshot() -> None:
    """A name, an argument, a default or a type that changed is announced by rewriting the snapshot."""
    announced = public_api.SNAPSHOT.read_text(encoding="utf-8").splitlines()
    change = list(difflib.unified_diff(announced, public_api.snapshot().splitlines(), lineterm="", n=0))
    listed = "\n".join(change)
    assert not change, f"announce it: python tests/docs/public_api.py --write\n{listed}"
