"""What the command that counts functions and files takes for a function, a file and a use of `Any`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from flows import uses, walked

from musicapi_async import Clock, MusicAPI
from musicapi_async.sandbox import Sandbox


def test_functions_of_the_package_are_counted_once() -> None:
    """By file and name; not those of other packages, of the sandbox, or of this file."""
    seen = {
        Clock.real.__code__,
        Clock.sleep.__code__,
        MusicAPI.credits.__code__,
        Sandbox.start.__code__,
        Path.exists.__code__,
        test_functions_of_the_package_are_counted_once.__code__,
    }
    assert walked(seen) == (
        {"clock.py:Clock.real", "clock.py:Clock.sleep", "client.py:MusicAPI.credits"},
        {"clock.py", "client.py"},
    )


def test_uses_of_any_and_cast_are_counted_in_code_alone() -> None:
    """Imports, comments and texts hold none; the type that a cast names as text does."""
    text = (
        'from typing import Any, cast\n"""Any cast."""\n# Any\n'
        'def read(a: Any) -> "list[int]":\n    return cast("dict[str, Any]", cast(list, a))\n'
    )
    assert dict(uses(text)) == {"Any": 2, "cast": 2}
