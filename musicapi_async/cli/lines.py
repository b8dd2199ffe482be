"""JSON lines: the output for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec


def write_json(value: Mapping[str, Any] | Any, *, err: bool = False) -> None:
    """One line of JSON, at once. Only ASCII, so that no encoding and no terminal can spoil it."""
    stream = sys.stderr if err else sys.stdout
    stream.write(json.dumps(value, default=_plain) + "\n")
    stream.flush()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else msgspec.to_builtins(value)
