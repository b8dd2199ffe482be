"""The `musicapi` command, with click and rich: the extra `[cli]`.

```sh
musicapi create --mv sonic-v6 --gpt-description-prompt "warm lo-fi, rainy evening" --download out/ --tags
musicapi play out/*.mp3
musicapi sandbox --port 8765 --speed 60
musicapi sonic aligned-lyrics CLIP_ID --download out/     # LRC and SRT; the same with wav, midi, download
musicapi credits --json
```

`musicapi sandbox` prints what to export for the command and for your own programs, the speed of its clock
included. `musicapi --help` lists the commands and exit codes. On a terminal it shows progress; piped, it
prints one JSON object per line: all events of a task have its `task_id` and `token`, and an `update` has what
is new of each clip. `musicapi show TOKEN` prints all that is known of a task. Ctrl-C prints the tasks that
are still being made, and the command that waits for them, or downloads them if that was requested.
"""

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
