"""The `musicapi` command, with click and rich: the extra `[cli]`.

```sh
musicapi create --mv sonic-v6 --gpt-description-prompt "warm lo-fi, rainy evening" --download out/
musicapi sandbox --port 8765 --speed 60
musicapi sonic aligned-lyrics CLIP_ID --download out/     # LRC and SRT; the same with wav, midi, download
musicapi credits --json
```

`musicapi sandbox` prints what to export for the command and for your own programs, the speed of its clock
included. `musicapi --help` lists the commands and exit codes. On a terminal it shows progress; piped, it
prints one JSON object per line. Ctrl-C prints the tasks that are still being made, and the command that
waits for them, or downloads them if that was requested.
"""

__all__: list[str] = []
