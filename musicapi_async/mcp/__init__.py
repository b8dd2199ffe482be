"""An MCP server: songs from Claude, Cursor, VS Code and other clients of the Model Context Protocol.

An agent that makes songs retries, times out and forgets. Here none of that pays twice: each paid tool needs
a `job_key`, and the same key gives the same task. A create returns a token at once, a wait ends before the
client gives up and can be repeated, and all that is paid for is recorded before it is sent, so a server
that is killed loses nothing. The extra is `[mcp]`: `pip install -e '.[mcp]'` in a clone of the package
installs the command `musicapi mcp`, which a client starts itself.

# Configuration

Clients start servers without your shell, so give the whole path of the command (`which musicapi` prints it)
and the key. Claude Desktop (`claude_desktop_config.json`: Settings, Developer, Edit Config), Cursor
(`~/.cursor/mcp.json`, or `.cursor/mcp.json` in a project), Windsurf
(`~/.codeium/windsurf/mcp_config.json`), Gemini CLI (`~/.gemini/settings.json`) and most others take the
same:

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

VS Code has `servers` in the place of `mcpServers`, in `.vscode/mcp.json`, and requests the key once:

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

To try it without an account, run `musicapi sandbox --speed 20` in a terminal and give what it prints as
`env`.

# The tools

| tool | what it does | cost |
| --- | --- | --- |
| `create_song` | a song from a description or lyrics, or an instrumental | credits |
| `extend_song`, `join_song` | a longer song: the new part, and both in one | credits |
| `cover_song` | a clip in another style | credits |
| `create_persona`, `song_with_persona` | the voice of a clip, and a song with it | credits |
| `separate_stems` | vocals and instrumental, or all parts | credits |
| `write_lyrics` | two versions of lyrics | credits |
| `wait_for_song`, `check_song` | a token's state, with or without waiting; progress is reported | free |
| `download_song` | local files, as links with title, length and cover | free |
| `list_jobs` | all paid calls with their tokens, those of earlier conversations, too | free |
| `get_credits`, `plan_batch` | balance and budget; the time and cost of many songs | free |

Names and limits of arguments are those of `musicapi_async.api`. Paid tools are marked as destructive, so
that clients let you confirm them; all are idempotent. A result is a JSON object, also as text, and so is an
error: what happened, whether money moved, and what to do next.

`wait_for_song` works 45 seconds by default and 50 at most, because clients give up after 60; then it says
that the song is paid for and still being made, and is called again. A client that declares the protocol's
extension `io.modelcontextprotocol/tasks` gets a task instead, whose id is the token, and polls it itself.

# Money

`--budget` counts all paid calls in the job store together, those of earlier conversations and servers
included: once it is used up, nothing more is sent until the server is started with a larger one. With a
budget, servers that run on one folder at once pay one after the other. A price
that is not known is learned from the first call of its kind, which may pass the budget; `--price
create_song=20` says it beforehand. A call of unknown outcome counts as charged, and a person settles it
with `musicapi jobs`.

Files and records are in `--folder` (`~/musicapi`), so `musicapi jobs list ~/musicapi` has what the agent
did. `--store`, or MUSICAPI_STORE, is another job store, such as the database that machines share.

# In a program

The server runs over any transport of the `mcp` SDK:

```python
from musicapi_async import MusicAPI, SQLiteStore
from musicapi_async.mcp import music_server, serve


async def main() -> None:
    async with MusicAPI(store=SQLiteStore("songs/jobs.sqlite")) as client:
        await serve(music_server(client, "songs", budget=200))
```

The command serves standard input and output only. For HTTP, `music_server(...).streamable_http_app()` is a
Starlette app, for which you provide authorization: who reaches it spends your credits.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from .server import music_server, serve

__all__ = ["music_server", "serve"]


def __getattr__(name: str) -> object:
    """Import the server, and with it the `mcp` SDK, when it is first named."""
    if name in __all__:
        from . import server

        return {"music_server": server.music_server, "serve": server.serve}[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
