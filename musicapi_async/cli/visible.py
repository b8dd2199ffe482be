"""Text from outside, made safe for a terminal."""

from __future__ import annotations

import unicodedata


def visible(text: str, *, lines: bool = False) -> str:
    """`text` without control and format characters, so that no title can steer the terminal.

    With `lines`, line breaks stay.
    """
    return "".join(
        character
        for character in text.replace("\r\n", "\n").replace("\t", " ")
        if (lines and character == "\n") or unicodedata.category(character)[0] != "C"
    )
