"""The entry point. It checks for the extra before anything imports it, so that a bare install gets a text."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final

from .output import guard

NEEDED: Final = ("click", "rich")
"""What the extra `[cli]` installs."""


def main() -> None:
    """Run the `musicapi` command with the arguments of the process, and exit with its code."""
    guard()
    if any(find_spec(name) is None for name in NEEDED):
        sys.stderr.write("The musicapi command needs an extra: pip install 'musicapi-async[cli]'\n")
        raise SystemExit(2)
    from .commands import root

    root.main(prog_name="musicapi")


if __name__ == "__main__":
    main()
