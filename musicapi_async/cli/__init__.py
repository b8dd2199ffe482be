"""The `musicapi` command, with click and rich: the extra `[cli]`.

```sh
musicapi create --mv sonic-v6 --gpt-description-prompt "warm lo-fi, rainy evening" --download out/ --tags
musicapi play out/*.mp3
musicapi sandbox --port 8765 --speed 60
musicapi sonic aligned-lyrics CLIP_ID --download out/     # LRC and SRT; the same with wav, midi, download
musicapi credits --json
```

`musicapi sandbox` prints the variables to export, for the command and for your own programs, including the
speed of its clock. `musicapi --help` lists the commands and exit codes. On a terminal the command displays
progress. In a pipe it prints one JSON object per line: all events of a task have its `task_id` and `token`,
and an `update` has the changes of each clip. `musicapi show TOKEN` prints the details of a task. After
Ctrl-C, SIGTERM or SIGHUP the command prints the tasks that are still being made, and the command that waits
for them or downloads them.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the `musicapi` command with the arguments of the process, and exit with its code.

    The entry point of the package. It imports the command only after it has checked that the extra is
    installed, so that without it there is a text instead of a traceback.
    """
    try:
        from ..extras import require
        from .output import guard_streams

        guard_streams()
        try:
            require("The musicapi command", "cli", "click", "rich")
        except ModuleNotFoundError as error:
            sys.stderr.write(f"{error}\n")
            raise SystemExit(2) from None
        from .commands import musicapi
    except KeyboardInterrupt:  # nothing has begun
        raise SystemExit(130) from None
    musicapi.main(prog_name="musicapi")
