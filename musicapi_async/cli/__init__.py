"""The `musicapi` command, with click and rich: the extra `[cli]`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the `musicapi` command with the arguments of the process, and exit with its code.

    The entry point of the package. It imports the command only after it has checked that the extra is
    installed, so that without it there is a text instead of a traceback.
    """
    from ..extras import require
    from .output import guard_streams

    guard_streams()
    try:
        require("The musicapi command", "cli")
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    from .commands import musicapi

    musicapi.main(prog_name="musicapi")
