"""An MCP server: songs from Claude, Cursor, VS Code and other clients of the Model Context Protocol.

Agents repeat calls, exceed time limits and lose context; none of this pays twice. Each paid tool needs a
`job_key`, and a second call with the same key returns the same task. A create returns a token at once. A wait
ends before the client's time limit, and can be repeated. Every paid call is recorded before it is sent, so no
task is lost if the server is killed. Install the extra `[mcp]` (`pip install -e '.[mcp]'` in a clone of the
package); the MCP client starts the command `musicapi mcp` itself.

# Configuration

MCP clients start servers without your shell, so configure the full path of the command (`which musicapi`
prints it) and the key. The configuration is the same for Claude Desktop (`claude_desktop_config.json`:
Settings, Developer, Edit Config), Cursor (`~/.cursor/mcp.json`, or `.cursor/mcp.json` in a project), Windsurf
(`~/.codeium/windsurf/mcp_config.json`), Gemini CLI (`~/.gemini/settings.json`) and most others:

```json
{
  "mcpServers": {
    "musicapi": {
      "command": "/path/to/.venv/bin/musicapi",
      "args": ["mcp", "--folder", "/home/me/Music/songs", "--budget", "200"],
      "env": {"MUSICAPI_KEY": "your-key"}
    }
  }
}
```

In VS Code, the file is `.vscode/mcp.json`, `mcpServers` is called `servers`, and VS Code prompts for the key:

```json
{
  "inputs": [{"type": "promptString", "id": "key", "description": "MusicAPI key", "password": true}],
  "servers": {
    "musicapi": {
      "type": "stdio",
      "command": "/path/to/.venv/bin/musicapi",
      "args": ["mcp", "--budget", "200"],
      "env": {"MUSICAPI_KEY": "${input:key}"}
    }
  }
}
```

Claude Code and Codex have a command for it:

```sh
claude mcp add --env MUSICAPI_KEY=your-key --transport stdio musicapi \\
    -- /path/to/.venv/bin/musicapi mcp --budget 200
codex mcp add musicapi --env MUSICAPI_KEY=your-key -- /path/to/.venv/bin/musicapi mcp --budget 200
```

To try it without an account, run `musicapi sandbox --speed 20` in a terminal, and use the variables that it
prints as `env`.

# The tools

| tool | what it does | cost |
| --- | --- | --- |
| `create_song` | a song from a description or lyrics, or an instrumental | credits |
| `extend_song`, `join_song` | a longer song: the new part, and both in one | credits |
| `cover_song` | a clip in another style | credits |
| `create_persona`, `song_with_persona` | the voice of a clip, and a song with it | credits |
| `separate_stems` | vocals and instrumental, or all parts | credits |
| `write_lyrics` | two versions of lyrics | credits |
| `wait_for_song`, `check_song` | the state of a task, with or without waiting; progress is reported | free |
| `download_song` | saves files, and returns links to them with title, length and cover | free |
| `list_jobs` | all paid calls with their tokens, also those of earlier conversations | free |
| `get_credits`, `plan_batch` | balance and budget; the time and cost of many songs | free |

Arguments have the names and limits of `musicapi_async.api`. Paid tools are marked as destructive, so that
clients can let you confirm them. All tools are idempotent. Results and errors are JSON objects, also as text;
an error says what happened, whether money moved, and what to do next.

`wait_for_song` waits 45 seconds by default and 50 at most, because clients give up after 60. If the song is
not finished then, the result says that it is paid for and that the tool is to be called again. A client with
the protocol's extension `io.modelcontextprotocol/tasks` receives a task instead, whose id is the token, and
polls it itself.

# Money

`--budget` limits all paid calls in the job store together, including those of earlier conversations and other
servers. When it is used up, no paid call is sent until the server is started with a larger one. With a
budget, servers that use one folder at the same time make paid calls one after the other. An unknown price is
learned from the first call of its kind, which may exceed the budget; `--price create_song=20` sets it. A call
of unknown outcome counts as charged; a person settles it with `musicapi jobs`.

Files and records are in `--folder` (default `~/musicapi`); `musicapi jobs list ~/musicapi` lists the agent's
paid calls. `--store`, or MUSICAPI_STORE, is another job store, such as a database that machines share.

# In a program

The server runs over any transport of the `mcp` SDK:

```python
from musicapi_async import MusicAPI, SQLiteStore
from musicapi_async.mcp import music_server, serve


async def main() -> None:
    async with MusicAPI(store=SQLiteStore("songs/jobs.sqlite")) as client:
        await serve(music_server(client, "songs", budget=200))
```

The command serves only standard input and output. For HTTP, `music_server(...).streamable_http_app()` returns
a Starlette app. Add authorization to it: anyone who can call it spends your credits.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

from .._lazy_names import lazy_names

if TYPE_CHECKING:
    from .tool_server import music_server, serve

__all__ = ["music_server", "serve"]
if not TYPE_CHECKING and PathFinder.find_spec("mcp") is None:
    __all__.clear()  # which `help` would fail for, and so not show this guide

_MODULES = {".tool_server": ("music_server", "serve")}


if not TYPE_CHECKING:  # type checkers would believe in any name
    __getattr__, __dir__ = lazy_names(__name__, _MODULES)
